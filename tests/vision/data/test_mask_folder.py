"""The user's own images and masks: every layout, every fault, splits, classes, and what a checkpoint brings."""

import csv
import io

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from quintet.core.errors import QuintetError
from quintet.vision.data import ImageFolder, MaskFolder
from quintet.vision.data.mask_folder import SHOWN
from quintet.vision.data.mask_sources import find_masks
from quintet.vision.data.masks import IGNORED


def folder(root, **arguments) -> MaskFolder:
    return MaskFolder(root, **{"image_size": 16, "batch_size": 4, "num_workers": 0, **arguments})


def write_mask(path, values=(0, 1, 2), size=(40, 32), seed=0):
    """A mask of vertical stripes, one a value; the seed moves them so that no two are equal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = np.array(values)[(np.arange(size[0]) + seed) * len(values) // size[0] % len(values)]
    mask = np.broadcast_to(columns, (size[1], size[0]))
    Image.fromarray(mask.astype(np.uint16 if mask.max() > 255 else np.uint8)).save(path)
    return path


@pytest.fixture
def pairs(tmp_path, photograph):
    """Function that writes images/ and masks/ of `count` pairs below a folder."""

    def write(root=tmp_path / "data", count=10, values=(0, 1, 2), images="images", masks="masks", start=0):
        for number in range(start, start + count):
            photograph(root / images / f"{number:02}.jpg", seed=number)
            write_mask(root / masks / f"{number:02}.png", values, seed=number)
        return root

    return write


def text_of(data: MaskFolder) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(data.table())
    return console.file.getvalue()


def refused(data: MaskFolder, stage: str = "fit") -> str:
    with pytest.raises(QuintetError) as caught:
        data.setup(stage)
    message = str(caught.value)
    assert message.count("\n") <= 1
    return message


def test_the_table_names_the_size_the_network_sees(pairs):
    data = folder(pairs(), image_size=(24, 16))
    assert "16 x 24" in text_of(data)
    trained = data.description()
    other = folder(data.root, image_size=40)
    other.adopt(trained)
    assert "16 x 24" in text_of(other)
    assert "40 x 40" not in text_of(other)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_the_table_says_what_becomes_of_faults(pairs, on_error):
    root = pairs()
    (root / "images" / "03.jpg").write_bytes(b"nothing")
    assert ("; left out" in text_of(folder(root, on_error=on_error))) == (on_error == "skip")


def lengths(data: MaskFolder) -> dict[str, int]:
    return {part: len(entries) for part, entries in data.examination.parts.items()}


def table_file(root, rows, header=("image", "mask")):
    with (root / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return root / "pairs.csv"


# Layouts


def test_two_folders_are_split_here(pairs):
    data = folder(pairs(), val_fraction=0.2, test_fraction=0.2)
    data.setup("fit")
    data.setup("test")
    assert {part: len(dataset) for part, dataset in data.datasets.items()} == {"train": 6, "val": 2, "test": 2}
    again = folder(data.root, val_fraction=0.2, test_fraction=0.2).examination.parts
    assert again == data.examination.parts
    assert folder(data.root, val_fraction=0.2, test_fraction=0.2, seed=1).examination.parts != again
    assert data.description().classes == ["class 0", "class 1", "class 2"]
    assert "20% of the images by their rarest class, seed 0" in text_of(data)


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images/{}", "masks/{}"),
        ("{}/images", "{}/masks"),
        ("{}", "{}annot"),
        ("{}", "{}_labels"),
        ("{}/JPEGImages", "{}/SegmentationClass"),
    ],
)
def test_folders_of_splits(pairs, tmp_path, images, masks):
    for index, (split, count) in enumerate((("train", 5), ("val", 2), ("test", 3))):
        pairs(tmp_path, count, images=images.format(split), masks=masks.format(split), start=10 * index)
    data = folder(tmp_path)
    assert lengths(data) == {"train": 5, "val": 2, "test": 3}
    assert data.faults() == []
    assert set(data.examination.origins.values()) == {"as given"}


def test_of_two_folders_beside_a_part_the_chosen_one_is_taken(pairs, tmp_path):
    for masks, values in (("train_masks", (0, 1)), ("train_labels", (0, 1, 2))):
        pairs(tmp_path, 6, values, images="train", masks=masks)
    found = folder(tmp_path, masks="train_labels").examination
    assert {entry.mask.parent.name for entries in found.parts.values() for entry in entries} == {"train_labels"}
    assert found.ids == [0, 1, 2]


def test_the_contact_sheet_shows_every_class_however_rare(pairs):
    root = pairs(count=SHOWN + 8, values=(0, 1))
    write_mask(root / "masks/05.png", (0, 7))
    ((name, figure),) = folder(root).pictures()
    assert name == "contact_sheet"
    titles = [panel.get_title() for panel in figure.axes]
    assert len(titles) == SHOWN
    assert len(set(titles)) == SHOWN
    assert titles[0].endswith(": 05.jpg")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["class 0", "class 1", "class 7"]


def test_folders_without_a_partner_are_named(pairs, tmp_path, photograph):
    pairs(tmp_path, 6, images="images/train", masks="masks/train")
    photograph(tmp_path / "images" / "test" / "1.jpg")
    photograph(tmp_path / "extra" / "1.jpg")
    assert find_masks(tmp_path).remarks == ["folders without a partner are not read: extra, images/test"]
    assert "extra, images/test" in text_of(folder(tmp_path))


def test_names_with_an_ending(pairs, tmp_path, photograph):
    for number in range(4):
        photograph(tmp_path / "images" / "deep" / f"{number}.JPG", seed=number)
        write_mask(tmp_path / "labels" / "deep" / f"{number}_mask.png", seed=number)
    assert len(find_masks(tmp_path).entries) == 4


def test_csv_with_splits_and_groups(pairs):
    root = pairs(count=12)
    rows = [(f"images/{number:02}.jpg", f"masks/{number:02}.png", number // 3) for number in range(12)]
    data = folder(table_file(root, rows, ("image", "mask", "group")), val_fraction=0.25, test_fraction=0.25)
    of_part = {part: {entry.group for entry in entries} for part, entries in data.examination.parts.items()}
    assert sum(map(len, of_part.values())) == 4
    assert all(of_part.values())
    rows = [(*row[:2], ("valid", "test", "train")[min(index, 2)]) for index, row in enumerate(rows)]
    assert lengths(folder(table_file(root, rows, ("image", "mask", "split")))) == {"train": 10, "val": 1, "test": 1}


def test_who_recognises_what(pairs, photographs, tmp_path):
    root = pairs()
    assert MaskFolder.recognises(root)
    assert not ImageFolder.recognises(root)
    assert ImageFolder.recognises(photographs)
    assert not MaskFolder.recognises(photographs)
    assert MaskFolder.recognises(table_file(root, [("images/00.jpg", "masks/00.png")]))
    assert not MaskFolder.recognises(tmp_path / "nothing")


# Samples


def test_samples_and_batches(pairs):
    data = folder(pairs(), image_size=[12, 20], ignore_index=2)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.image.shape == (4, 3, 12, 20)
    assert batch.mask.shape == (4, 12, 20)
    assert batch.mask.dtype == torch.uint8
    assert set(batch.mask.unique().tolist()) <= {0, 1, IGNORED}
    sample = data.datasets["val"][0]
    assert sample.image.shape == (3, 12, 20)
    assert sample.mask.shape == (32, 40)  # evaluation compares at the mask's own size
    assert sample.size == (32, 40)


def test_windows_keep_the_scale(pairs):
    data = folder(pairs(), image_size=24, fit="window", augmentation="none")
    data.setup("fit")
    assert next(iter(data.train_dataloader())).image.shape == (4, 3, 24, 24)
    assert data.datasets["val"][0].image.shape == (3, 32, 40)
    assert data.description().fit == "window"


def test_workers_change_nothing(pairs):
    root = pairs()

    def epoch(workers):
        data = folder(root, num_workers=workers, augmentation="strong")
        data.setup("fit")
        return list(data.train_dataloader())

    for one, two in zip(epoch(0), epoch(2), strict=True):
        assert one.path == two.path
        assert torch.equal(one.image, two.image)
        assert torch.equal(one.mask, two.mask)


def test_statistics_of_the_data(pairs):
    data = folder(pairs(), normalization="data", augmentation="none")
    data.setup("fit")
    images = torch.stack([data.datasets["train"][index].image for index in range(len(data.datasets["train"]))])
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(images.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-3, rtol=0)


def save(mode):
    def write(path, photograph):
        with Image.open(photograph(path.with_suffix(".src.png"), 7)) as image:
            image.convert(mode).save(path)
        path.with_suffix(".src.png").unlink()

    return write


def turned(path, photograph):
    photograph(path, 7, size=(32, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as image:
        image.save(path, exif=exif)


def deep(path, photograph):
    Image.fromarray(np.random.default_rng(0).integers(0, 4096, (32, 40)).astype(np.uint16)).save(path)


UNUSUAL = {
    "grayscale.png": save("L"),
    "transparent.png": save("RGBA"),
    "cmyk.tif": save("CMYK"),
    "palette.png": save("P"),
    "turned.jpg": turned,
    "sixteen.png": deep,
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_images_are_read_right(pairs, photograph, name):
    root = pairs()
    UNUSUAL[name](root / "images" / name, photograph)
    write_mask(root / "masks" / f"{name.split('.')[0]}.png", seed=30)
    data = folder(root, val_fraction=0.1, test_fraction=0.0)
    assert data.faults() == []
    entry = next(e for entries in data.examination.parts.values() for e in entries if e.path.name == name)
    sample = data._dataset_of([entry], "val")[0]
    assert sample.image.shape == (3, 16, 16)
    assert sample.size == (32, 40)
    assert sample.image.isfinite().all()


# Classes


def test_masks_of_0_and_255_are_background_and_foreground(pairs):
    data = folder(pairs(values=(0, 255)))
    known = data.description()
    assert (known.classes, known.ids, known.ignored_ids) == (["background", "foreground"], [0, 255], [])
    assert "masks hold 0 and 255 alone: read as background and foreground" in text_of(data)
    data.setup("fit")
    assert set(next(iter(data.train_dataloader())).mask.unique().tolist()) == {0, 1}


def test_masks_of_0_and_1_have_255_ignored(pairs):
    data = folder(pairs(values=(0, 1, 255)), ignore_index=255)
    assert data.description().classes == ["background", "foreground"]
    assert data.description().ignored_ids == [255]
    assert sum(data.description().class_counts) < 7 * 32 * 40


def test_names_of_classes(pairs):
    root = pairs()
    assert folder(root, classes=["sky", "tree", "road"]).description().classes == ["sky", "tree", "road"]
    more = folder(root, classes=["sky", "tree", "road", "car"]).description()
    assert (more.ids, more.class_counts[3]) == ([0, 1, 2, 3], 0)
    (root / "classes.txt").write_text("a\nb\nc\n")
    assert folder(root).description().classes == ["a", "b", "c"]


def test_the_colours_of_a_palette_are_kept(pairs):
    root = pairs()
    for path in (root / "masks").iterdir():
        with Image.open(path) as image:
            image.load()
        image.putpalette([10, 20, 30, 200, 0, 0, 0, 0, 200])
        image.save(path)
    assert folder(root).description().palette == [[10, 20, 30], [200, 0, 0], [0, 0, 200]]


def test_black_is_for_the_background(pairs):
    root = pairs()
    assert folder(root).description().palette[0] == [0, 0, 0]
    assert folder(root, classes=["background", "a", "b"]).description().palette[0] == [0, 0, 0]
    assert folder(root, classes=["sky", "a", "b"]).description().palette[0] == [128, 0, 0]


def test_sparse_ids(pairs):
    data = folder(pairs(values=(7, 300, 1000)))
    assert data.description().ids == [7, 300, 1000]
    data.setup("fit")
    assert set(next(iter(data.train_dataloader())).mask.unique().tolist()) == {0, 1, 2}


# Faults: one or two lines, naming file and remedy


def test_another_size_than_the_image(pairs):
    root = pairs()
    write_mask(root / "masks" / "03.png", size=(40, 30))
    message = refused(folder(root))
    assert message == (
        "masks/03.png is 40 x 30, its image images/03.jpg 40 x 32; export the mask at the size of its image"
    )
    write_mask(root / "masks" / "03.png", size=(32, 40))
    assert "turn the mask as the image is shown upright (EXIF)" in refused(folder(root))
    assert "03.png" not in str(folder(root, on_error="skip").examination.parts)


def test_ids_above_the_class_count(pairs):
    root = pairs()
    write_mask(root / "masks" / "03.png", (0, 1, 17))
    message = refused(folder(root, classes=["a", "b", "c"]))
    assert message.startswith("masks/03.png holds the id 17, which is no class (classes are 0 to 2; 1 mask,")
    assert message.endswith("or leave it out of account with data.ignore_index=[17]")
    skipped = folder(root, classes=["a", "b", "c"], on_error="skip")
    assert sum(lengths(skipped).values()) == 9
    assert folder(root, classes=["a", "b", "c"], ignore_index=[255, 17]).faults() == []


def test_ids_that_training_never_sees(pairs, tmp_path):
    pairs(tmp_path, 4, images="images/train", masks="masks/train")
    pairs(tmp_path, 3, values=(0, 1, 5), images="images/val", masks="masks/val", start=20)
    assert "holds the id 5, which no training mask holds (classes are 0 to 2; 3 masks" in refused(folder(tmp_path))


def test_masks_of_0_and_255_among_masks_of_0_and_1(pairs):
    root = pairs(values=(0, 1))
    write_mask(root / "masks" / "03.png", (0, 255), seed=3)
    message = refused(folder(root))
    assert message.startswith(
        "masks/03.png holds 0 and 255 while others hold 0 and 1 (1 mask like it); write 1 for 255 there"
    )


def test_one_class(pairs):
    message = refused(folder(pairs(values=(0,))))
    assert "has masks of only the class 'class 0' to train on; a segmenter needs two" in message


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n", b"nothing"])
@pytest.mark.parametrize("where", ["images/03.jpg", "masks/03.png"])
def test_unreadable_files(pairs, where, content):
    root = pairs()
    (root / where).write_bytes(content)
    message = refused(folder(root))
    assert message.startswith(f"{where} is ")
    assert "delete it, replace it, or leave it out with data.on_error=skip" in message
    assert sum(lengths(folder(root, on_error="skip")).values()) == 9


def test_partners_that_are_missing(pairs):
    root = pairs()
    (root / "masks" / "03.png").rename(root / "masks" / "O3.png")
    data = folder(root)
    assert [(fault.where, fault.what) for fault in data.faults()] == [
        ("images/03.jpg", "has no mask of its name in masks/"),
        ("masks/O3.png", "has no image of its name in images/"),
    ]
    assert data.faults()[0].remedy.startswith("add it; ")


def test_duplicates_across_splits_and_outliers_are_remarked(pairs, tmp_path, photograph):
    pairs(tmp_path, 5, images="images/train", masks="masks/train")
    pairs(tmp_path, 2, images="images/val", masks="masks/val", start=20)
    (tmp_path / "images/val/20.jpg").write_bytes((tmp_path / "images/train/00.jpg").read_bytes())
    photograph(tmp_path / "images/train/04.jpg", size=(400, 320))
    write_mask(tmp_path / "masks/train/04.png", size=(400, 320))
    text = text_of(folder(tmp_path, image_size=[32, 40], test_fraction=0.0))
    assert "1 file stands in two parts (leakage), e.g. images/train/00.jpg = images/val/20.jpg" in text
    assert "1 file stands under two masks" in text
    assert "1 image has far more or fewer pixels than the others (40 x 32 mostly), e.g. images/train/04.jpg" in text
    assert "distorted" not in text


def test_images_alone(tmp_path, photograph):
    photograph(tmp_path / "1.jpg")
    assert "holds images but no folders images/ and masks/" in refused(folder(tmp_path))
    assert refused(folder(tmp_path / "nowhere")).startswith("no folder or CSV")


@pytest.mark.parametrize(
    ("rows", "header", "complaint"),
    [
        ([("a.jpg", "b.png")], ("path", "mask"), "has no column 'image'"),
        ([("", "masks/00.png")], ("image", "mask"), "pairs.csv row 2 has no image"),
        ([("images/00.jpg", "masks/99.png")], ("image", "mask"), "pairs.csv row 2 names masks/99.png, which does not"),
        ([("images/00.jpg", "masks/00.png", "tset")], ("image", "mask", "split"), "row 2 has the split 'tset'"),
        ([], ("image", "mask"), "has a header but no rows"),
    ],
)
def test_faults_of_a_csv(pairs, rows, header, complaint):
    assert complaint in refused(folder(table_file(pairs(), rows, header)))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"image_size": 0}, "data.image_size is 0"),
        ({"ignore_index": -1}, "data.ignore_index holds -1"),
        ({"classes": ["a"]}, "data.classes is ['a']; give two or more"),
        ({"val_fraction": 1.5}, "data.val_fraction is 1.5"),
    ],
)
def test_arguments(tmp_path, arguments, complaint):
    with pytest.raises(QuintetError) as caught:
        folder(tmp_path, **arguments)
    assert complaint in str(caught.value)


# Prediction


def test_prediction_reads_the_images_alone(pairs):
    root = pairs()
    data = folder(root)
    later = folder(root)
    later.adopt(data.description())
    later.setup("predict")
    assert len(later.datasets["predict"]) == 10
    assert all("images" in str(path) for path in later.datasets["predict"].images)
    batch = next(iter(later.predict_dataloader()))
    assert batch.mask is None
    with pytest.raises(QuintetError, match="predicting needs a model's description"):
        folder(root).setup("predict")


def test_a_model_s_classes_decide(pairs, tmp_path):
    data = folder(pairs())
    other = folder(pairs(tmp_path / "other", values=(0, 1, 4)), test_fraction=1.0, val_fraction=0.0)
    other.adopt(data.description())
    assert "holds the id 4, which is no class (classes are 0 to 2" in refused(other, "test")


def test_rare_classes_reach_every_part(tmp_path, photograph):
    """Of 40 masks 6 hold the class 2, and where 0 and 255 alone are held, empty ones are spread too."""
    for number in range(40):
        photograph(tmp_path / "images" / f"{number:02}.jpg", seed=number)
        write_mask(tmp_path / "masks" / f"{number:02}.png", (0, 1, 2) if number < 6 else (0, 1), seed=number)
    for seed in range(3):
        found = folder(tmp_path, seed=seed).examination
        assert [sum(2 in found.mask_facts[entry.mask].ids for entry in part) for part in found.parts.values()] == [
            4,
            1,
            1,
        ]
    for number in range(40):
        write_mask(tmp_path / "masks" / f"{number:02}.png", (0, 255) if number < 6 else (0,), seed=number)
    found = folder(tmp_path).examination
    assert [sum(255 in found.mask_facts[entry.mask].ids for entry in part) for part in found.parts.values()] == [
        4,
        1,
        1,
    ]
