"""Images with masks as people really have them, and what is written of predictions for them: right, or asked about."""

import csv
import functools
import hashlib
import os

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from quintet.core.errors import QuintetError
from quintet.vision import MaskFolder, SemanticSegmenter
from quintet.vision.data.masks import MaskDescription
from quintet.vision.models import MixTransformer
from quintet.vision.tasks.mask_writer import MaskWriter

TINY = functools.partial(MixTransformer, dims=(16,), depths=(1,), num_heads=(2,), reductions=(2,), drop_path=0.0)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("QUINTET_CACHE", str(tmp_path_factory.mktemp("cache")))


def photograph(path, seed=0, size=(40, 32), **arguments):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(60, 190, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(path, **arguments)
    return path


def described(classes=("background", "foreground")) -> MaskDescription:
    palette = [[0, 0, 0], [200, 0, 0]]
    known = {"channels": 3, "image_size": [16, 16], "mean": [0.5] * 3, "std": [0.25] * 3, "fit": "stretch"}
    return MaskDescription(list(classes), **known, class_counts=[5, 5], ids=[0, 255], ignored_ids=[], palette=palette)


def segmenter() -> SemanticSegmenter:
    torch.manual_seed(0)
    task = SemanticSegmenter(backbone=TINY)
    task.adopt(described())
    return task.eval()


def trainer(folder) -> L.Trainer:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return L.Trainer(accelerator="cpu", default_root_dir=folder, **quiet)


def digests(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# Predictions lie in their own folder, and on nothing that was there


@pytest.mark.parametrize("up", ["../photos", "../../x/photos", "./../photos/../photos", "{root}/photos"])
def test_predictions_of_a_list_with_paths_that_lead_upwards(tmp_path, up, monkeypatch):
    """The list lies in a folder of its own, and the output beside the images, where such paths would lead from it."""
    root = tmp_path / "x"
    for number in range(2):
        photograph(root / "photos" / f"{number}.png", number)
    (root / "lists").mkdir()
    up = up.format(root=root)
    (root / "lists" / "list.csv").write_text(f"path\n{up}/0.png\n{up}/1.png\n")
    before = digests(tmp_path)
    data = MaskFolder(root / "lists" / "list.csv", num_workers=0)
    written = segmenter().predict(data, trainer(tmp_path), root / "photos" / "out")
    after = digests(tmp_path)
    assert {path: after[path] for path in before} == before
    new = set(after) - set(before)
    assert all(path.is_relative_to(root / "photos" / "out") for path in new)
    with written[0].open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["mask"] for row in rows}) == 2
    assert all((root / "photos" / "out" / row["mask"]).is_file() for row in rows)
    assert all(row["mask"].startswith("masks/") and ".." not in row["mask"] for row in rows)


HOSTILE = [
    "../../{}",
    "/{}",
    "C:\\{}",
    "..\\..\\{}",
    "a/../../{}",
    "A.jpg",
    "a.jpg",
    "a.png",
    "a_2.png",
    "con:{}",
    "x\n{}",
    "{}\x1b[2J",
    ".hidden",
    "y" * 250,
    "y" * 251,
    "é.jpg",
    "e\u0301.jpg",
    ".png",
    "..png",
    "~/{}",
]


def test_names_meet_nowhere_and_stay_inside(tmp_path, monkeypatch):
    writer = MaskWriter(tmp_path / "out", described(), tmp_path)
    monkeypatch.setattr(writer, "_overlay", lambda path, mask: Image.new("RGB", (4, 4)))
    paths = [str(tmp_path / name.format("z.jpg")) for name in HOSTILE] + [name.format("z.jpg") for name in HOSTILE]
    for place, path in enumerate(paths):
        writer.add(path, torch.full((4, 4), place % 2, dtype=torch.uint8))
    writer.close()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(path.is_relative_to(tmp_path / "out") for path in files)
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == paths
    assert len({row["mask"].casefold() for row in rows}) == len(paths)
    for place, row in enumerate(rows):
        with Image.open(tmp_path / "out" / row["mask"]) as mask:
            assert np.unique(np.asarray(mask)).tolist() == [255 * (place % 2)]
        overlay = row["mask"].replace("masks/", "overlays/", 1).removesuffix(".png")
        assert (tmp_path / "out" / f"{overlay}.jpg").is_file()


@pytest.mark.parametrize("taken", ["predictions.csv", "predictions.png", "masks", "overlays"])
def test_what_lies_there_is_not_overwritten(tmp_path, taken):
    # A link that leads nowhere yet would lead the file out of the folder.
    (tmp_path / taken).symlink_to(tmp_path.parent / "elsewhere")
    with pytest.raises(QuintetError, match="exists and is not overwritten"):
        MaskWriter(tmp_path, described())


def test_a_full_disk_leaves_nothing_half(tmp_path, monkeypatch):
    photograph(tmp_path / "a.png")
    writer = MaskWriter(tmp_path / "out", described(), tmp_path)

    def full(self, file, *_, **__):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(QuintetError, match="No space left on device"):
        writer.add(str(tmp_path / "a.png"), torch.zeros(32, 40, dtype=torch.uint8))
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_no_name_is_a_formula(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["=1+1.png", "+a.png", "-b.png", "@c.png", "\td.png"]
    for name in names:
        photograph(tmp_path / name)
    writer = MaskWriter(tmp_path / "out", described(("=SUM(A1)", "@x")))
    for name in names:
        writer.add(name, torch.zeros(32, 40, dtype=torch.uint8))
    with writer.close()[0].open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "mask", "share_=SUM(A1)", "share_@x"]
    for name, (path, mask, *_) in zip(names, rows, strict=True):
        assert path == f"./{name}"
        assert os.path.samefile(path, name)
        assert mask.startswith("masks/")


# What masks leave open is asked


def folder(root, **arguments) -> MaskFolder:
    return MaskFolder(root, **{"image_size": 16, "batch_size": 4, "num_workers": 0, **arguments})


def pairs(root, masks, images="images", into="masks", suffix=".png"):
    """images/ and masks/ of the masks given, arrays of 32 x 40."""
    for number, mask in enumerate(masks):
        photograph(root / images / f"{number:02}.jpg", number)
        (root / into).mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(root / into / f"{number:02}{suffix}")
    return root


def drawn(*values, count=12, seed=0):
    """Masks with blocks of each value but the first, which is everywhere else; moved so that no two are equal."""
    masks = []
    for number in range(count):
        mask = np.full((32, 40), values[0], np.uint8)
        for place, value in enumerate(values[1:]):
            mask[2 + number : 12 + number, 10 * place + 1 : 10 * place + 9] = value
        masks.append(mask)
    return masks


def asked(root, **arguments) -> str:
    """What is refused in one line, whether faulty files are to be skipped or not."""
    messages = []
    for on_error in ("raise", "skip"):
        with pytest.raises(QuintetError) as caught:
            folder(root, on_error=on_error, **arguments).setup("fit")
        messages.append(str(caught.value))
    assert messages[0].startswith(messages[1].split(" (")[0])
    assert "\n" not in messages[0]
    return messages[0]


def read(data: MaskFolder):
    """Indices of each image's mask by the image's name, as they are tested on."""
    data.setup("fit")
    entries = [entry for part in data.examination.parts.values() for entry in part]
    dataset = data._dataset_of(entries, "val")
    return {entry.path.stem: np.asarray(dataset[index].mask) for index, entry in enumerate(entries)}


def one_stray_pixel():
    masks = drawn(0, 255)
    masks[3][30, 39] = 37
    return masks


def test_one_pixel_of_another_gray_does_not_make_the_object_void(tmp_path):
    root = pairs(tmp_path, one_stray_pixel())
    message = asked(root)
    assert "255 (6.2% of the pixels) may be a class or void; masks/03.png has 1 pixel of 37, the rarest" in message
    for option in ("data.threshold=128", "data.ignore_index=null", "data.ignore_index=255"):
        assert option in message
    known = folder(root, threshold=128)
    assert known.faults() == []
    assert (known.description().classes, known.description().ids) == (["background", "foreground"], [0, 255])
    masks = read(known)
    for number, mask in enumerate(one_stray_pixel()):
        assert (masks[f"{number:02}"] == (mask == 255)).all()


@pytest.mark.parametrize("stray", [1, 2, 127, 254])
@pytest.mark.parametrize("block", [(10, 8), (2, 2)])
def test_objects_of_255_are_never_void_because_of_a_stray_pixel(tmp_path, stray, block):
    masks = [np.zeros((32, 40), np.uint8) for _ in range(10)]
    for number, mask in enumerate(masks):
        mask[number : number + block[0], 3 : 3 + block[1]] = 255
    masks[0][31, 39] = stray
    assert "may be a class or void" in asked(pairs(tmp_path, masks))


def test_three_grays_are_three_classes_or_two_and_void(tmp_path):
    root = pairs(tmp_path, drawn(0, 127, 255))
    assert "has masks of 0, 127 and 255" in asked(root)
    assert folder(root, ignore_index=None).description().ids == [0, 127, 255]
    assert folder(root, classes=["ground", "half", "full"]).description().ids == [0, 127, 255]
    assert folder(root, ignore_index=255).description().ids == [0, 127]


def test_void_that_was_asked_for_or_is_proven(tmp_path):
    root = pairs(tmp_path, drawn(0, 1, 2, 255))
    assert "may be a class or void" in asked(root)
    for arguments in ({"ignore_index": 255}, {"classes": ["a", "b", "c"]}):
        known = folder(root, **arguments).description()
        assert (known.ids, known.ignored_ids) == ([0, 1, 2], [255])
    masks = drawn(0, 1, 2)
    for mask in masks:
        mask[0, :6] = 255
    known = folder(pairs(tmp_path / "few", masks)).description()
    assert (known.ids, known.ignored_ids) == ([0, 1, 2], [255])


def soft(count=12, noise=False):
    masks = []
    rows, columns = np.mgrid[:32, :40]
    for number in range(count):
        far = np.hypot(rows - 10 - number, columns - 20)
        mask = 255 / (1 + np.exp(2 * (far - 8)))
        if noise:
            mask += np.random.default_rng(number).normal(0, 4, mask.shape)
        masks.append(mask.round().clip(0, 255).astype(np.uint8))
    return masks


@pytest.mark.parametrize("kind", ["edges", "noise", "most"])
def test_soft_edges_are_no_classes(tmp_path, kind):
    masks = soft(noise=kind == "noise")
    if kind == "most":
        masks = [*drawn(0, 255, count=5), *soft(6)]
    message = asked(pairs(tmp_path, masks))
    assert "data.threshold=128" in message
    assert "gray values" in message
    known = folder(tmp_path, threshold=128)
    assert known.faults() == []
    assert known.description().classes == ["background", "foreground"]
    found = read(known)
    for number, mask in enumerate(masks):
        assert (found[f"{number:02}"] == (mask >= 128)).all()


def test_some_masks_with_soft_edges_among_others_are_left_out_by_skip(tmp_path):
    """The binary masks of 12 are drawn as 0 and 255, or as 0 and 1; 3 have soft edges."""
    for name, value in (("white", 255), ("one", 1)):
        root = pairs(tmp_path / name, [*drawn(0, value), *soft(3)])
        assert [fault.where for fault in folder(root).faults()] == [f"masks/{number}.png" for number in (12, 13, 14)]
        data = folder(root, on_error="skip")
        assert set(read(data)) == {f"{number:02}" for number in range(12)}
        assert data.description().ids == [0, value]


def test_masks_saved_as_jpeg(tmp_path):
    root = pairs(tmp_path, drawn(0, 255), suffix=".jpg")
    assert "data.threshold=128" in folder(root).faults()[0].what
    found = read(folder(root, threshold=128))
    for number, mask in enumerate(drawn(0, 255)):
        assert (found[f"{number:02}"] != (mask >= 128)).mean() < 0.01


def test_the_threshold_is_of_what_is_seen(tmp_path):
    """A palette whose first entry is white and its second black; a mask of one bit."""
    masks = drawn(0, 1)
    pairs(tmp_path, masks)
    for number, path in enumerate(sorted((tmp_path / "masks").iterdir())):
        image = Image.fromarray(masks[number])
        if number % 2:
            image = Image.fromarray(masks[number] > 0)
        else:
            image = Image.fromarray(1 - masks[number], mode="P")
            image.putpalette([255, 255, 255, 0, 0, 0])
        image.save(path)
    found = read(folder(tmp_path, threshold=128))
    for number, mask in enumerate(masks):
        assert (found[f"{number:02}"] == mask).all()


def test_what_was_found_with_another_threshold_is_not_remembered(tmp_path):
    root = pairs(tmp_path, soft())
    assert folder(root).faults()
    assert folder(root, threshold=128).faults() == []
    assert folder(root).faults()
    few, many = (folder(root, threshold=value).description().class_counts[1] for value in (250, 5))
    assert few < many


@pytest.mark.parametrize("kind", ["photographs", "instances"])
def test_more_values_than_classes_make_sense(tmp_path, kind):
    if kind == "photographs":
        masks = [np.random.default_rng(seed).integers(30, 200, (32, 40), np.uint8) for seed in range(8)]
    else:
        masks = [np.arange(32 * 40, dtype=np.uint16).reshape(32, 40) // 10 for _ in range(8)]
    assert "data.classes" in asked(pairs(tmp_path, masks))


def test_many_classes_are_classes(tmp_path):
    masks = []
    for number in range(12):
        mask = np.zeros((32, 40), np.uint8)
        mask[:, :] = (np.arange(40) // 2 + 10 * (number % 3))[None]
        masks.append(mask)
    assert folder(pairs(tmp_path, masks)).faults() == []


def blurred(*values, count=12):
    """Areas of several grays with the grays between them along their edges, as saving at another size leaves them."""
    large = [Image.fromarray(mask.repeat(8, 0).repeat(8, 1)) for mask in drawn(*values, count=count)]
    return [np.asarray(mask.resize((120, 96), Image.Resampling.BICUBIC)) for mask in large]


def test_soft_edges_between_three_classes_are_no_classes(tmp_path):
    root = pairs(tmp_path, blurred(127, 0, 255))
    for path in (root / "images").iterdir():
        photograph(path, int(path.stem), (120, 96))
    message = asked(root)
    assert "soft edges" in message
    assert "data.threshold=128" in message
    assert "export each class as one value" in message


@pytest.mark.parametrize("steps", [16, 40, 60])
def test_maps_of_probabilities_in_few_steps_are_no_classes(tmp_path, steps):
    rows, columns = np.mgrid[:32, :40] / 36
    slopes = [0.5 + 0.5 * np.sin(rows * (2 + number / 4) + columns) for number in range(12)]
    masks = [(np.round(slope * steps) * (252 // steps)).astype(np.uint8) for slope in slopes]
    message = asked(pairs(tmp_path, masks))
    assert "not classes" in message
    assert "data.threshold=128" in message


def test_masks_that_number_their_objects_are_asked_about(tmp_path):
    """As many nuclei as there are in each image, some in 16 bits; all of them are one class with a threshold of 1."""
    masks = []
    for number in range(12):
        mask = np.zeros((32, 40), np.uint8 if number else np.uint16)
        for index in range(3 + 7 * number):
            mask[index // 10 * 3 : index // 10 * 3 + 2, index % 10 * 4 : index % 10 * 4 + 3] = index + 1
        masks.append(mask)
    root = pairs(tmp_path, masks)
    message = asked(root)
    assert "number objects, not classes: to 80 in masks/11.png, to 3 in masks/00.png" in message
    assert "data.threshold=1 reads all objects as one class" in message
    found = read(folder(root, threshold=1))
    for number, mask in enumerate(masks):
        assert (found[f"{number:02}"] == (mask > 0)).all()


@pytest.mark.parametrize(
    ("values", "threshold", "said"), [((0, 1), 128, "no value reaches"), ((2, 9), 1, "no value is below")]
)
def test_a_threshold_that_leaves_one_class_says_so(tmp_path, values, threshold, said):
    message = asked(pairs(tmp_path, drawn(*values)), threshold=threshold)
    assert f"{said} data.threshold={threshold}" in message
    assert "ignore_index" not in message


@pytest.mark.parametrize("gaps", ["ids of a street scene", "a few of 150"])
def test_classes_with_gaps_between_their_ids_are_classes(tmp_path, gaps):
    draw = np.random.default_rng(0)
    masks = []
    for number in range(12):
        few = (
            [0, 7, 8, 11, 17, 21, 23, 24, 26, 31, 33] if gaps != "a few of 150" else draw.choice(150, 6, replace=False)
        )
        masks.append(np.asarray(few, np.uint8)[(np.arange(1280).reshape(32, 40) // 117 + number) % len(few)])
    data = folder(pairs(tmp_path, masks), on_error="skip")
    faults = [fault.what for fault in data.faults()]
    assert not any("gray values" in fault or "number objects" in fault for fault in faults)


def test_a_class_that_covers_everything(tmp_path):
    masks = drawn(0, 255)
    masks[3][30, 39] = 37
    message = asked(pairs(tmp_path, masks), ignore_index=255)
    assert "'class 0' covers" in message
    assert "null for none" in message
    root = pairs(tmp_path / "empty", drawn(0, 0))
    assert "'a' covers 100.00%" in asked(root, classes=["a", "b"])


def test_half_of_the_masks_in_another_form_are_left_out_by_skip(tmp_path):
    masks = [*drawn(0, 1, count=12)[:10], *drawn(0, 255, count=12)[10:]]
    data = folder(pairs(tmp_path, masks), on_error="skip")
    assert "holds 0 and 255 while others hold 0 and 1 (2 masks like it)" in data.faults()[0].what
    assert set(read(data)) == {f"{number:02}" for number in range(10)}
    assert data.description().ids == [0, 1]


# Which folder holds the masks


@pytest.mark.parametrize("other", ["1st_manual", "Ground Truth", "fov", "expert_b", "masks"])
def test_two_folders_that_may_be_masks_are_both_named(tmp_path, other):
    pairs(tmp_path, drawn(0, 255), into="mask")
    pairs(tmp_path, drawn(0, 255, 0)[::-1], into=other)
    assert MaskFolder.recognises(tmp_path)
    with pytest.raises(QuintetError) as caught:
        folder(tmp_path).faults()
    assert "mask" in str(caught.value)
    assert other in str(caught.value)
    assert "say data.masks=" in str(caught.value)
    data = folder(tmp_path, masks=other)
    assert data.faults() == []
    found = read(data)
    for number, mask in enumerate(drawn(0, 255, 0)[::-1]):
        assert (found[f"{number:02}"] == (mask == 255)).all()
    with pytest.raises(QuintetError, match="nowhere"):
        folder(tmp_path, masks="nowhere").faults()


@pytest.mark.parametrize("name", ["overlays", "SegmentationObject", "depth"])
def test_folders_that_are_no_masks_are_not_asked_about(tmp_path, name):
    pairs(tmp_path, drawn(0, 1), "JPEGImages", "SegmentationClass")
    pairs(tmp_path, drawn(0, 1), "JPEGImages", name)
    assert folder(tmp_path).faults() == []


def test_two_folders_within_parts(tmp_path):
    for part in ("train", "val"):
        pairs(tmp_path / part, drawn(0, 255), into="mask")
        pairs(tmp_path / part, drawn(0, 255), into="1st_manual")
    with pytest.raises(QuintetError, match=r"say data\.masks="):
        folder(tmp_path).faults()
    assert folder(tmp_path, masks="1st_manual", test_fraction=0.0).faults() == []


def test_prediction_takes_the_images_without_masks_too(tmp_path):
    pairs(tmp_path, drawn(0, 255))
    photograph(tmp_path / "images" / "new.jpg", 99)
    data = folder(tmp_path)
    data.adopt(described())
    data.setup("predict")
    assert len(data.datasets["predict"]) == 13


# Images that EXIF turns


def with_orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("size", [(40, 32), (32, 32)])
@pytest.mark.parametrize("drawn_on", ["stored", "upright"])
def test_masks_of_turned_images(tmp_path, orientation, size, drawn_on):
    """The bright corner of each image must lie under the mask's, whichever way up the mask was drawn."""
    for number in range(8):
        pixels = np.full((size[1], size[0], 3), 40, np.uint8)
        pixels[: 10 + number, :14] = 220
        path = tmp_path / "images" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path, exif=with_orientation(orientation))
        with Image.open(path) as image:
            shown = np.asarray(image if drawn_on == "stored" else ImageOps.exif_transpose(image))
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.where(shown[..., 0] > 100, 255, 0).astype(np.uint8)).save(
            tmp_path / "masks" / f"{number}.png"
        )
    data = folder(tmp_path)
    proven = orientation >= 5 and size[0] != size[1] and drawn_on == "upright"
    if not proven:
        assert "EXIF" in data.faults()[0].what
        assert "data.mask_orientation=stored" in data.faults()[0].remedy
        data = folder(tmp_path, mask_orientation=drawn_on)
    assert data.faults() == []
    data.setup("fit")
    for entries in data.examination.parts.values():
        dataset = data._dataset_of(entries, "val")
        for index in range(len(entries)):
            with Image.open(entries[index].path) as image:
                seen = np.asarray(ImageOps.exif_transpose(image))[..., 0] > 100
            assert (dataset[index].mask == seen).all()


# What is measured is said


def test_a_test_says_which_part_it_is_of(tmp_path, capsys):
    data = folder(pairs(tmp_path, drawn(0, 255)))
    data.setup("fit")
    assert capsys.readouterr().out == ""
    later = folder(tmp_path)
    later.adopt(data.description())
    later.setup("test")
    assert f"test on 2 of the 12 images of {tmp_path} (15%" in capsys.readouterr().out
    everything = folder(tmp_path, test_fraction=1.0, val_fraction=0.0)
    everything.adopt(data.description())
    everything.setup("test")
    assert capsys.readouterr().out == ""


# What masks say beside their first band, frame or palette


def mask_of(place):
    ids = np.zeros((32, 40), np.uint8)
    ids[8 : 20 + place, 10:25] = 1
    return ids


def folder_of(root, write):
    (root / "masks").mkdir(parents=True)
    for place in range(6):
        photograph(root / "images" / f"{place}.png", place)
        write(root / "masks" / f"{place}", mask_of(place), place)
    return MaskFolder(root, num_workers=0).examination


def coloured(path, ids, place, colours):
    image = Image.fromarray(ids, mode="P")
    image.putpalette(colours)
    image.save(path.with_suffix(".png"))


def first_fault(root, write):
    faults = folder_of(root, write).faults
    assert faults
    return f"{faults[0].what}; {faults[0].remedy}"


def test_two_bands_are_not_one_mask(tmp_path):
    def one_hot(path, ids, place):
        np.save(path.with_suffix(".npy"), np.stack([1 - ids, ids]))

    assert "2 bands that differ" in first_fault(tmp_path, one_hot)


def test_bands_behind_the_third_are_looked_at(tmp_path):
    def late(path, ids, place):
        np.save(path.with_suffix(".npy"), np.stack([ids, ids, ids, 0 * ids, 1 - ids], axis=-1))

    assert "5 bands that differ" in first_fault(tmp_path, late)


def test_transparency_that_says_nothing_and_that_does(tmp_path):
    def opaque(path, ids, place):
        np.save(path.with_suffix(".npy"), np.stack([ids, ids, ids, 0 * ids + 255], axis=-1))

    def hidden(path, ids, place):
        alpha = np.where(np.arange(40) < 15, 0, 255).astype(np.uint8)[None].repeat(32, 0)
        Image.fromarray(np.stack([ids * 255, ids * 255, ids * 255, alpha], axis=-1)).save(path.with_suffix(".png"))

    def cut_out(path, ids, place):
        Image.fromarray(np.stack([ids * 255] * 4, axis=-1)).save(path.with_suffix(".png"))

    assert folder_of(tmp_path / "a", opaque).ids == [0, 1]
    assert "transparent" in first_fault(tmp_path / "b", hidden)
    assert not (found := folder_of(tmp_path / "c", cut_out)).faults
    assert found.ids == [0, 255]


def test_frames_of_one_size_are_not_one_mask(tmp_path):
    def frames(size):
        def write(path, ids, place):
            more = Image.fromarray(ids * 255).resize(size)
            Image.fromarray(ids * 255).save(path.with_suffix(".tif"), save_all=True, append_images=[more])

        return write

    assert "2 frames" in first_fault(tmp_path / "a", frames((40, 32)))
    assert not folder_of(tmp_path / "b", frames((20, 16))).faults


def test_a_colour_has_one_number_in_all_palettes(tmp_path):
    def renumbered(path, ids, place):
        black, red = [0, 0, 0], [255, 0, 0]
        coloured(path, *((1 - ids, place, red + black) if place % 2 else (ids, place, black + red)))

    def other_colours(path, ids, place):
        coloured(path, ids, place, [0, 0, 0, 255, 0, 10 * place])

    words = first_fault(tmp_path / "a", renumbered)
    assert "palettes that differ: the colour (255, 0, 0) is 1 in masks/0.png and 0 in masks/1.png" in words
    assert not folder_of(tmp_path / "b", other_colours).faults
    named = MaskFolder(tmp_path / "a", classes=["nothing", "thing"], num_workers=0)
    assert not named.examination.faults
    seen = MaskFolder(tmp_path / "a", threshold=20, num_workers=0).examination
    assert not seen.faults


def test_void_of_sixteen_bits_is_asked_about(tmp_path):
    def deep(path, ids, place):
        ids = ids.astype(np.uint16)
        ids[0] = 65535
        Image.fromarray(ids).save(path.with_suffix(".png"))

    assert "data.ignore_index=65535" in first_fault(tmp_path / "a", deep)
    for given, ids in ((65535, [0, 1]), (None, [0, 1, 65535])):
        found = MaskFolder(tmp_path / "a", ignore_index=given, num_workers=0).examination
        assert found.ids == ids
        assert not found.faults
