"""The user's own photographs: every layout, every fault, splits, leakage, and what a checkpoint brings."""

import csv
import io

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from quintet.core.errors import QuintetError
from quintet.vision.data import ImageFolder


def folder(root, **arguments) -> ImageFolder:
    return ImageFolder(root, **{"image_size": 16, "batch_size": 4, "num_workers": 0, **arguments})


def parts(data: ImageFolder) -> dict[str, set[str]]:
    found = data.examination
    return {
        part: {str(entry.path.relative_to(data.root)) for entry in entries} for part, entries in found.parts.items()
    }


def text_of(data: ImageFolder) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(data.table())
    return console.file.getvalue()


def refused(data: ImageFolder, stage: str = "fit") -> str:
    with pytest.raises(QuintetError) as caught:
        data.setup(stage)
    message = str(caught.value)
    assert message.count("\n") <= 1
    return message


def table_file(root, rows, header=("path", "label"), delimiter=","):
    path = root / "labels.csv"
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


# Layouts


def test_class_folders_are_split_here(photographs):
    data = folder(photographs)
    data.setup("fit")
    data.setup("test")
    assert {part: len(dataset) for part, dataset in data.datasets.items()} == {"train": 20, "val": 5, "test": 5}
    assert data.description().classes == ["blue", "green", "red"]
    assert sum(data.description().class_counts) == len(data.datasets["train"])
    again = folder(photographs)
    assert parts(data) == parts(again)
    assert parts(data) != parts(folder(photographs, seed=1))
    assert parts(data)["train"].isdisjoint(parts(data)["val"] | parts(data)["test"])


def test_folders_of_splits(tmp_path, photograph):
    for split, count in (("train", 5), ("Validation", 2), ("test", 3)):
        for name in ("a", "b"):
            for number in range(count):
                photograph(tmp_path / split / name / f"{number}.png", seed=len(split) * 100 + ord(name) * 1000 + number)
    data = folder(tmp_path)
    data.setup("fit")
    data.setup("test")
    assert {part: len(dataset) for part, dataset in data.datasets.items()} == {"train": 10, "val": 4, "test": 6}
    assert "as given" in text_of(data)


def test_a_missing_validation_folder_is_split_off_train(tmp_path, photograph):
    for split, count in (("train", 10), ("test", 3)):
        for name in ("a", "b"):
            for number in range(count):
                photograph(tmp_path / split / name / f"{number}.png", seed=len(split) * 100 + ord(name) * 1000 + number)
    data = folder(tmp_path, val_fraction=0.2)
    assert {part: len(files) for part, files in parts(data).items()} == {"train": 16, "val": 4, "test": 6}
    assert "20% of each class, seed 0" in text_of(data)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv(photographs, delimiter):
    rows = [(f"{name}/{number:02}.jpg", name) for name in ("red", "green") for number in range(8)]
    data = folder(table_file(photographs, rows, delimiter=delimiter))
    data.setup("fit")
    assert data.description().classes == ["green", "red"]
    assert len(data.datasets["train"]) + len(data.datasets["val"]) + len(data.examination.parts["test"]) == 16


def test_csv_with_splits_and_groups(photographs):
    rows = [
        (f"{name}/{number:02}.jpg", name, f"{name}{number // 2}") for name in ("red", "green") for number in range(10)
    ]
    data = folder(table_file(photographs, rows, ("path", "label", "group")), val_fraction=0.3, test_fraction=0.3)
    of_part = {part: {entry.group for entry in entries} for part, entries in data.examination.parts.items()}
    assert of_part["train"] and of_part["val"] and of_part["test"]  # noqa: PT018
    assert of_part["train"].isdisjoint(of_part["val"] | of_part["test"])
    rows = [
        (*row[:2], "valid" if index % 5 == 0 else "test" if index % 5 == 1 else "train")
        for index, row in enumerate(rows)
    ]
    data = folder(table_file(photographs, rows, ("path", "label", "split")))
    assert {part: len(files) for part, files in data.examination.parts.items()} == {"train": 12, "val": 4, "test": 4}


def test_hidden_folders_are_no_classes(photographs, photograph):
    for name in (".thumbnails", "__MACOSX", "late__", "v1_"):
        for number in range(5):
            photograph(photographs / name / f"{number}.jpg", seed=number + len(name) * 100)
    assert folder(photographs).description().classes == ["blue", "green", "late__", "red", "v1_"]


def test_recognises(photographs, tmp_path):
    assert ImageFolder.recognises(photographs)
    assert ImageFolder.recognises(table_file(photographs, [("red/00.jpg", "red")]))
    assert not ImageFolder.recognises(tmp_path / "nothing")
    (tmp_path / "empty" / "sub").mkdir(parents=True)
    assert not ImageFolder.recognises(tmp_path / "empty")


# Samples


def test_samples_and_batches(photographs):
    data = folder(photographs, image_size=[12, 20])
    data.setup("fit")
    sample = data.datasets["val"][0]
    assert sample.image.shape == (3, 12, 20)
    assert sample.path.split("/")[-2] == data.description().classes[sample.label]
    batch = next(iter(data.train_dataloader()))
    assert batch.image.shape == (4, 3, 12, 20)
    assert batch.label.dtype == torch.int64
    assert len(batch.path) == 4


def test_grayscale(photographs):
    data = folder(photographs, channels=1)
    data.setup("fit")
    assert data.datasets["val"][0].image.shape == (1, 16, 16)
    assert len(data.description().mean) == 1


def test_workers_change_nothing(photographs):
    def epoch(workers):
        data = folder(photographs, num_workers=workers, augmentation="strong")
        data.setup("fit")
        return [(batch.image, batch.path) for batch in data.train_dataloader()]

    for (one, names), (two, same_names) in zip(epoch(0), epoch(2), strict=True):
        assert names == same_names
        assert torch.equal(one, two)


def test_statistics_of_the_data(photographs):
    data = folder(photographs, normalization="data", augmentation="none")
    data.setup("fit")
    images = torch.stack([data.datasets["train"][index].image for index in range(len(data.datasets["train"]))])
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(images.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-3, rtol=0)


def test_twelve_bits_in_sixteen(tmp_path):
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(5):
            values = generator.integers(0, 4096, (20, 20)).astype(np.uint16)
            Image.fromarray(values).save(tmp_path / name / f"{number}.png")
    data = folder(tmp_path, channels=1)
    assert data.description().bit_depth == 12
    assert "values up to 40" in text_of(data)
    later = folder(tmp_path, channels=1)
    known = data.description()
    known.bit_depth = 10
    later.adopt(known)
    assert len(later.faults()) == 10
    assert "the model was trained on 10-bit images" in later.faults()[0].what


# Faults: one sentence each, naming file, row and remedy


def test_missing_folder(tmp_path):
    (tmp_path / "photos").mkdir()
    assert refused(folder(tmp_path / "photo")) == f"no folder or CSV {tmp_path / 'photo'}; nearest: photos"


def test_no_images(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.heic").write_bytes(b"x")
    assert (
        refused(folder(tmp_path))
        == f"{tmp_path} holds no images Pillow reads, only 1 .heic; convert them to JPEG or PNG"
    )


def test_images_without_class_folders(tmp_path, photograph):
    photograph(tmp_path / "1.jpg")
    assert "holds images but no class folders; sort them into" in refused(folder(tmp_path))


def test_empty_class_folder(photographs):
    (photographs / "yellow").mkdir()
    assert refused(folder(photographs)) == "yellow is a class folder without images; remove it, or put images in"


def test_one_class_only(tmp_path, photograph):
    for number in range(6):
        photograph(tmp_path / "cat" / f"{number}.png", seed=number)
    expected = f"{tmp_path} has only the class 'cat' to train on; a classifier needs two"
    assert refused(folder(tmp_path)) == expected
    assert refused(folder(tmp_path, on_error="skip")) == expected


def test_a_truncated_jpeg_among_good_ones(photographs):
    path = photographs / "red" / "03.jpg"
    path.write_bytes(path.read_bytes()[:-100])
    message = refused(folder(photographs))
    assert message == "red/03.jpg is truncated; delete it, replace it, or leave it out with data.on_error=skip"
    data = folder(photographs, on_error="skip")
    data.setup("fit")
    assert "red/03.jpg" not in set().union(*parts(data).values())
    assert sum(map(len, parts(data).values())) == 29
    assert "red/03.jpg is truncated; left out" in text_of(data)


def test_zero_bytes_and_how_many(photographs):
    for name in ("red/00.jpg", "blue/01.jpg"):
        (photographs / name).write_bytes(b"")
    message = refused(folder(photographs))
    assert message.startswith("blue/01.jpg is empty (0 bytes); ")
    assert f"(2 faults in all: quintet inspect {photographs})" in message
    assert [fault.where for fault in folder(photographs).faults()] == ["blue/01.jpg", "red/00.jpg"]


def test_csv_row_with_a_missing_file(photographs):
    rows = [("red/00.jpg", "red"), ("red/99.jpg", "red"), ("green/00.jpg", "green")]
    message = refused(folder(table_file(photographs, rows)))
    assert (
        message == "labels.csv row 3 names red/99.jpg, which does not exist; paths are relative to the CSV; correct it"
    )


def test_csv_label_that_training_never_sees(photographs):
    rows = [(f"{name}/{number:02}.jpg", name, "train") for name in ("red", "green") for number in range(4)]
    rows += [("red/05.jpg", "red", "val"), ("blue/00.jpg", "gren", "val"), ("green/06.jpg", "green", "test")]
    path = table_file(photographs, rows, ("path", "label", "split"))
    message = refused(folder(path))
    assert message == (
        "labels.csv row 11 has the label 'gren', which train does not know (1 image of val); correct it or add it to "
        "train; nearest: green"
    )
    data = folder(path, on_error="skip")
    data.setup("fit")
    assert len(data.datasets["val"]) == 1


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (("", "red", "train"), "labels.csv row 2 has no path; fill it in or delete the row"),
        (("red/00.jpg", "", "train"), "labels.csv row 2 has no label for red/00.jpg; fill it in or delete the row"),
        (("red/00.jpg", "red", "dev"), "labels.csv row 2 has the split 'dev'; write train, val or test"),
    ],
)
def test_csv_rows(photographs, row, complaint):
    rows = [row, ("red/01.jpg", "red", "train"), ("green/01.jpg", "green", "train")]
    message = refused(folder(table_file(photographs, rows, ("path", "label", "split"))))
    assert message.startswith(complaint)


@pytest.mark.parametrize(("header", "missing"), [(("file", "label"), "'path'"), (("path", "class"), "'label'")])
def test_csv_columns(photographs, header, missing):
    path = table_file(photographs, [("red/00.jpg", "red")], header)
    assert refused(folder(path)) == (
        f"{path} has no column {missing}; its first row says {', '.join(header)}, expected path,label and optionally "
        "split,group"
    )


def test_csv_that_is_not_text(photographs):
    path = photographs / "labels.csv"
    path.write_bytes(b"path,label\nred/00.jpg,rot\nred/01.jpg,gr\xfcn\n")
    assert refused(folder(path)) == f"{path} row 3 is not UTF-8 text; save it as UTF-8"


def test_too_few_images_to_validate(tmp_path, photograph):
    for name in ("a", "b"):
        photograph(tmp_path / name / "1.png", seed=ord(name))
    assert refused(folder(tmp_path)) == f"{tmp_path} leaves no val images; add more images a class, or a val folder"


@pytest.mark.parametrize(
    "arguments",
    [{"image_size": 0}, {"image_size": [1, 2, 3]}, {"val_fraction": 1.5}, {"val_fraction": 0.6, "test_fraction": 0.6}],
)
def test_arguments(tmp_path, arguments):
    with pytest.raises(QuintetError, match=r"data\.(image_size|val_fraction)"):
        folder(tmp_path, **arguments)


def test_inspection_lists_everything_and_raises_nothing(photographs):
    (photographs / "yellow").mkdir()
    (photographs / "red" / "00.jpg").write_bytes(b"")
    (photographs / "notes.txt").write_text("x")
    (photographs / "red" / "readme.md").write_text("x")
    data = folder(photographs)
    assert [fault.where for fault in data.faults()] == ["yellow", "red/00.jpg"]
    text = text_of(data)
    for expected in ("yellow is a class folder without images", "red/00.jpg is empty", "red also holds 1 .md"):
        assert expected in text


# Leakage


def test_equal_files_stay_in_one_part(photographs):
    for number in range(6):
        (photographs / "red" / f"copy{number}.jpg").write_bytes((photographs / "red" / "00.jpg").read_bytes())
    for seed in range(4):
        found = parts(folder(photographs, seed=seed))
        copies = {f"red/copy{number}.jpg" for number in range(6)} | {"red/00.jpg"}
        assert sum(bool(copies & files) for files in found.values()) == 1


def test_leaks_between_given_splits_and_labels_are_reported(tmp_path, photograph):
    for split, count in (("train", 4), ("test", 2)):
        for name in ("a", "b"):
            for number in range(count):
                photograph(tmp_path / split / name / f"{number}.png", seed=len(split) * 100 + ord(name) * 1000 + number)
    (tmp_path / "test" / "a" / "0.png").write_bytes((tmp_path / "train" / "a" / "0.png").read_bytes())
    (tmp_path / "train" / "b" / "9.png").write_bytes((tmp_path / "train" / "a" / "1.png").read_bytes())
    text = text_of(folder(tmp_path))
    assert "1 file stands in two parts (leakage), e.g. train/a/0.png = test/a/0.png" in text
    assert "1 file stands under two labels, e.g. train/a/1.png = train/b/9.png" in text


# With the description of a checkpoint


def test_predicts_loose_images_as_the_model_was_trained(photographs, tmp_path, photograph):
    trained = folder(photographs, image_size=12, channels=1)
    known = trained.description()
    root = tmp_path / "new"
    photograph(root / "a.png", 1)
    photograph(root / "deep" / "er" / "b.jpg", 2)
    for target, count in ((root, 2), (root / "a.png", 1)):
        data = ImageFolder(target, num_workers=0)
        data.adopt(known)
        data.setup("predict")
        batch = next(iter(data.predict_dataloader()))
        assert batch.image.shape == (count, 1, 12, 12)
        assert batch.label.tolist() == [-1] * count
    listed = root / "list.csv"
    listed.write_text("path\na.png\n")
    data = ImageFolder(listed, num_workers=0)
    data.adopt(known)
    data.setup("predict")
    assert [sample.path for sample in data.datasets["predict"]] == [str(root / "a.png")]


def test_prediction_refuses_or_skips_damaged_images(photographs, tmp_path, photograph, capsys):
    known = folder(photographs).description()
    photograph(tmp_path / "new" / "a.png")
    (tmp_path / "new" / "b.png").write_bytes(b"")
    data = folder(tmp_path / "new")
    data.adopt(known)
    assert refused(data, "predict").startswith("b.png is empty")
    data = folder(tmp_path / "new", on_error="skip")
    data.adopt(known)
    data.setup("predict")
    assert len(data.datasets["predict"]) == 1
    assert capsys.readouterr().out == "left out: b.png is empty (0 bytes)\n"


def test_prediction_needs_a_description(photographs):
    assert "ckpt_path" in refused(folder(photographs), "predict")


def test_testing_on_another_folder_keeps_the_models_classes(photographs, tmp_path, photograph):
    known = folder(photographs).description()
    for name in ("red", "blue"):
        photograph(tmp_path / "new" / name / "1.png", seed=ord(name[0]))
    data = folder(tmp_path / "new", val_fraction=0.0, test_fraction=1.0)
    data.adopt(known)
    data.setup("test")
    assert sorted(sample.label for sample in data.datasets["test"]) == [0, 2]
    photograph(tmp_path / "new" / "purple" / "1.png", seed=5)
    data = folder(tmp_path / "new", val_fraction=0.0, test_fraction=1.0)
    data.adopt(known)
    assert "has the label 'purple', which the model does not know" in refused(data, "test")


def test_real_photographs(shared_data):
    data = ImageFolder(shared_data("vision_clothing10"), image_size=64, num_workers=0)
    assert data.faults() == []
    data.setup("fit")
    data.setup("test")
    assert {part: len(dataset) for part, dataset in data.datasets.items()} == {"train": 1192, "val": 341, "test": 372}
    assert data.description().class_counts == [120, 120, 120, 120, 120, 120, 120, 120, 112, 120]
    batch = next(iter(data.test_dataloader()))
    assert batch.image.shape == (32, 3, 64, 64)
    assert batch.image.std() > 0.3
