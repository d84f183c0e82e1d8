"""Images with several labels: both ways of writing them, parts that share rare ones, and what is refused."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from quintet.core.errors import QuintetError
from quintet.vision import ImageFolder

SETS = [("red",), ("red", "dark"), ("dark",), (), ("red", "green"), ("green", "dark"), ("green",), ("red", "rare")]


@pytest.fixture
def pictures(tmp_path):
    """48 small pictures, and of each the classes it has."""
    draw = np.random.default_rng(0)
    found = {}
    for number in range(48):
        name = f"{number:02}.png"
        Image.fromarray(draw.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(tmp_path / name)
        found[name] = SETS[number % len(SETS)]
    return tmp_path, found


def with_separator(pictures, extra=""):
    folder, labels = pictures
    rows = [f"{name},{' | '.join(sorted(own))}" for name, own in labels.items()]
    (folder / "labels.csv").write_text("\n".join(["path,label", *rows, extra]).strip() + "\n")
    return folder / "labels.csv"


def with_columns(pictures, extra=""):
    folder, labels = pictures
    classes = ["green", "red", "dark", "rare"]
    rows = [f"{name},{','.join(str(int(c in own)) for c in classes)}" for name, own in labels.items()]
    (folder / "columns.csv").write_text("\n".join(["path,green,Red,dark,rare", *rows, extra]).strip() + "\n")
    return folder / "columns.csv"


def folder(root, **arguments):
    return ImageFolder(root, image_size=8, num_workers=0, batch_size=4, augmentation="none", **arguments)


def test_a_column_with_a_separator(pictures):
    data = folder(with_separator(pictures), label_separator="|")
    data.setup()
    known = data.description()
    assert (known.classes, known.multi_label) == (["dark", "green", "rare", "red"], True)
    total = 0
    for stage in ("train", "val", "test"):
        dataset = data.datasets[stage]
        dataset = getattr(dataset, "dataset", dataset)
        for path, label in zip(dataset.paths, dataset.labels):
            assert {known.classes[index] for index in label.nonzero().flatten()} == set(pictures[1][path.name])
            total += 1
    assert total == 48
    batch = next(iter(data.val_dataloader()))
    assert batch.label.dtype == torch.float32
    assert batch.label.shape == (4, 4)
    assert known.training_images == len(data.datasets["train"])


def test_a_column_a_class(pictures):
    path = with_columns(pictures)
    assert ImageFolder.recognises(path)
    data = folder(path)
    data.setup()
    # In the order of the columns, written as there.
    assert data.description().classes == ["green", "Red", "dark", "rare"]
    separated = folder(with_separator(pictures), label_separator="|")
    counts = dict(zip(data.description().classes, data.description().class_counts))
    separated.setup()
    assert sum(counts.values()) == sum(separated.description().class_counts)
    table = render(data.table())
    assert "images have several labels, 1.4 on average; 6 of 48 have none" in table


def test_every_part_has_its_share_of_rare_labels(pictures):
    data = folder(with_separator(pictures), label_separator="|", val_fraction=0.25, test_fraction=0.25)
    parts = data.examination.parts
    for part, share in (("train", 0.5), ("val", 0.25), ("test", 0.25)):
        counts = Counter(name for entry in parts[part] for name in entry.names)
        assert counts["rare"] == pytest.approx(6 * share, abs=1)
        assert counts["dark"] == pytest.approx(18 * share, abs=3)


def test_labels_that_look_like_several_are_mentioned(pictures):
    data = folder(with_separator(pictures, "00.png,red"))
    remarks = " ".join(data.examination.remarks)
    assert (
        "labels hold '|', e.g. 'dark | red'; if those are several labels of an image, say data.label_separator"
        in remarks
    )


@pytest.mark.parametrize(
    ("make", "arguments", "complaint"),
    [
        (lambda p: with_columns(p, "00.png,0,2,0,0"), {}, "columns.csv row 50 has '2' in the column Red; write 0 or 1"),
        (lambda p: with_columns(p, "00.png,0,,0,0"), {}, "has '' in the column Red"),
        (lambda p: p[0], {"label_separator": ";"}, "data.label_separator is of a CSV"),
    ],
)
def test_what_is_not_understood_is_refused(pictures, make, arguments, complaint):
    data = folder(make(pictures), **arguments)
    with pytest.raises(QuintetError, match=complaint.replace(".", r"\.")):
        data.setup("fit")


def test_a_blank_separator_and_a_column_of_text_are_refused(pictures):
    with pytest.raises(QuintetError, match="label_separator is blank"):
        folder(pictures[0], label_separator=" ")
    (pictures[0] / "text.csv").write_text("path,colour\n00.png,red\n")
    with pytest.raises(QuintetError, match="has no column 'label'"):
        folder(pictures[0] / "text.csv").setup("fit")


def test_a_model_of_one_label_does_not_take_several(pictures):
    data = folder(with_separator(pictures), label_separator="|")
    data.setup()
    known = data.description()
    known.multi_label = False
    other = folder(with_separator(pictures), label_separator="|")
    other.adopt(known)
    with pytest.raises(QuintetError, match="several labels, the model was trained to give them one"):
        other.setup("test")


def render(table):
    from rich.console import Console

    console = Console(width=200)
    with console.capture() as captured:
        console.print(table)
    return captured.get()
