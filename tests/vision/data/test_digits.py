"""The digits: real values, stratified parts, statistics of the training part alone."""

import io

import pytest
import torch
from rich.console import Console
from sklearn.datasets import load_digits

from quintet.core.errors import QuintetError
from quintet.vision.data import Digits


def test_parts_are_complete_and_even():
    data = Digits()
    assert sorted(index for indices in data.parts.values() for index in indices) == list(range(1797))
    for part, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
        for digit in range(10):
            of_part = sum(data.labels[index] == digit for index in data.parts[part])
            assert abs(of_part - share * data.labels.count(digit)) <= 1.1


def test_samples_are_the_scans_normalized():
    data = Digits()
    data.setup("test")
    known = data.description()
    sample = data.datasets["test"][7]
    index = int(sample.path.split("/")[1])
    raw = load_digits()
    assert sample.label == raw.target[index]
    expected = (torch.tensor(raw.images[index]).float() / 16 - known.mean[0]) / known.std[0]
    torch.testing.assert_close(sample.image[0], expected)


def test_description_comes_from_the_training_part():
    data = Digits()
    known = data.description()
    train = data.images[data.parts["train"]]
    assert known.mean == [train.mean().item()]
    assert known.classes == [str(digit) for digit in range(10)]
    assert sum(known.class_counts) == len(train)
    assert known.image_size == [8, 8]


def test_training_batches_are_seeded_by_epoch():
    def batches(epoch, seed=0):
        data = Digits(batch_size=64, seed=seed)
        data.setup("fit")
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        return next(iter(loader)).image

    assert torch.equal(batches(0), batches(0))
    assert not torch.equal(batches(0), batches(1))
    assert not torch.equal(batches(0), batches(0, seed=1))
    assert Digits(seed=1).seed == 1


def test_enlarged():
    data = Digits(image_size=16)
    data.setup("fit")
    assert data.datasets["val"][0].image.shape == (1, 16, 16)


def test_the_models_size_must_be_met():
    data = Digits(image_size=16)
    data.adopt(Digits().description())
    with pytest.raises(QuintetError, match=r"the model sees 1 channels of \[8, 8\].*set data.image_size"):
        data.setup("test")


@pytest.mark.parametrize(
    "arguments", [{"image_size": 4}, {"val_fraction": 0.0}, {"val_fraction": 0.5, "test_fraction": 0.5}]
)
def test_refuses(arguments):
    with pytest.raises(QuintetError, match=r"data\.(image_size|val_fraction)"):
        Digits(**arguments)


def test_table():
    console = Console(file=io.StringIO(), width=100)
    console.print(Digits().table())
    text = console.file.getvalue()
    assert "train" in text
    assert "1,259" in text
