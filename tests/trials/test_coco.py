"""Annotations in COCO's form as others write them, wrong, damaged or hostile: read right, or refused with a reason."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from quintet.core.errors import QuintetError
from quintet.vision.data import MaskFolder
from quintet.vision.data.mask_sources import find_masks
from quintet.vision.data.masks import read_mask

pytest.importorskip("pycocotools")

SIZE = (40, 32)  # width, height


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("QUINTET_CACHE", str(folder))
    return folder


def square(x, y, side):
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def instances(count=6):
    """A cat at (2, 2) and a dog at (20, 4) in each image, of 10 and 12 pixels a side."""
    images = [{"id": number, "file_name": f"{number}.jpg", "width": 40, "height": 32} for number in range(count)]
    annotations = [
        {"id": 2 * number + place, "image_id": number, "category_id": category, "segmentation": [square(*where)]}
        for number in range(count)
        for place, (category, where) in enumerate(((7, (2, 2, 10)), (90, (20, 4, 12))))
    ]
    categories = [{"id": 7, "name": "cat"}, {"id": 90, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def write(root, content, images="images", name="labels.json"):
    for item in range(6):
        path = root / images / f"{item}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(item).integers(80, 160, (SIZE[1], SIZE[0], 3), np.uint8)
        Image.fromarray(noise).save(path)
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return root / name


def everything_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# Nothing is written outside of the cache, nor taken for a mask that lies there


@pytest.mark.parametrize(
    "name", ["../../../{}", "{root}/{}", "{root}/images/{}", "..\\..\\{}", "a/b/{}", "{}\0", "{}" * 300]
)
def test_ids_that_are_paths(tmp_path, cache, name):
    content = instances()
    names = [name.format(f"made{number}", *(["x"] * 299), root=tmp_path) for number in range(6)]
    for item in content["images"]:
        item["id"] = names[item["id"]]
    for item in content["annotations"]:
        item["image_id"] = names[item["image_id"]]
    path = write(tmp_path / "data", content)
    # What already lies where such an id points is no mask.
    Image.fromarray(np.full(SIZE[::-1], 77, np.uint8)).save(tmp_path / "made0.png")
    before = everything_below(tmp_path)
    entries = find_masks(path).entries
    assert everything_below(tmp_path) == before
    assert len({entry.mask for entry in entries}) == 6
    assert all(entry.mask.resolve().is_relative_to(cache.resolve()) for entry in entries)
    for entry in entries:
        assert np.unique(read_mask(entry.mask)).tolist() == [0, 1, 2]


def test_ids_that_differ_in_their_case_alone(tmp_path):
    content = instances()
    for item in content["images"]:
        item["id"] = {0: "a", 1: "A"}.get(item["id"], item["id"])
    content["annotations"] = [
        {"id": 1, "image_id": "a", "category_id": 7, "segmentation": [square(2, 2, 10)]},
        {"id": 2, "image_id": "A", "category_id": 90, "segmentation": [square(2, 2, 10)]},
    ]
    masks = [read_mask(entry.mask) for entry in find_masks(write(tmp_path, content)).entries[:2]]
    assert [np.unique(mask).tolist() for mask in masks] == [[0, 1], [0, 2]]


# What is wrong is named, at once, and the rest is read


def first(content, **changes):
    content["annotations"][0].update(changes)


def run_lengths(counts, size=(32, 40)):
    return {"size": list(size), "counts": counts}


WRONG = {
    "an annotation is a list": (
        lambda c: c["annotations"].append([1, 2]),
        "annotations[12] is no record with image_id",
    ),
    "an annotation is null": (lambda c: c["annotations"].append(None), "annotations[12] is no record"),
    "an image is a text": (lambda c: c["images"].append("7.jpg"), "images[6] is no record with id"),
    "an image has no id": (lambda c: c["images"].append({"file_name": "1.jpg"}), "images[6] is no record with id"),
    "an id is a list": (lambda c: c["images"].append({"id": [1]}), "images[6] is no record with id"),
    "two images of one id": (lambda c: c["images"].append(c["images"][0]), "images[6] has the id 0 of another image"),
    "an image's id in an annotation is a list": (lambda c: first(c, image_id=[0]), "annotations[0] is no record"),
    "a category is a list": (lambda c: first(c, category_id=[7]), "has the category [7], which is not known"),
    "file_name is a number": (lambda c: c["images"][0].update(file_name=5), "has no file_name"),
    "file_name is empty": (lambda c: c["images"][0].update(file_name=""), "has no file_name"),
    "file_name is long": (lambda c: c["images"][0].update(file_name="x" * 5000), "which does not exist"),
    "file_name holds a zero": (lambda c: c["images"][0].update(file_name="a\0.jpg"), "which does not exist"),
    "width of 10^9": (lambda c: c["images"][0].update(width=10**9), "is said to be 1000000000 x 32"),
    "width of 10^12": (lambda c: c["images"][0].update(width=10**12), "more than can be drawn"),
    "width is true": (lambda c: c["images"][0].update(width=True), "has no height and width"),
    "height is a text": (lambda c: c["images"][0].update(height="32"), "has no height and width"),
    "coordinate of 1e9": (lambda c: first(c, segmentation=[[0, 0, 1e9, 0, 1e9, 5]]), "reaches to 1e+09, far out of"),
    "coordinate of -1e12": (lambda c: first(c, segmentation=[[0, 0, -1e12, 0, 9, 5]]), "reaches to -1e+12, far out"),
    "coordinate of 1e300": (lambda c: first(c, segmentation=[[0, 0, 1e300, 0, 9, 5]]), "reaches to 1e+300"),
    "coordinate of 10^400": (lambda c: first(c, segmentation=[[0, 0, 10**400, 0, 9, 5]]), "cannot be read"),
    "coordinate is NaN": (lambda c: first(c, segmentation=[[0, 0, float("nan"), 0, 9, 5]]), "are no numbers"),
    "a polygon is a text": (lambda c: first(c, segmentation=["abcdefgh"]), "is no list of polygons"),
    "a polygon is a record": (lambda c: first(c, segmentation=[{"x": 1}]), "is no list of polygons"),
    "polygons within polygons": (lambda c: first(c, segmentation=[[[1, 2]] * 6]), "places that are no numbers"),
    "segmentation is a number": (lambda c: first(c, segmentation=7), "is no list of polygons"),
    "segmentation is a text": (lambda c: first(c, segmentation="abc"), "is no list of polygons"),
    "run lengths without a size": (lambda c: first(c, segmentation={"counts": [1280]}), "cannot be read"),
    "a size of three": (lambda c: first(c, segmentation=run_lengths([1280], (32, 40, 1))), "run lengths of size"),
    "a size that is a number": (lambda c: first(c, segmentation={"size": 3, "counts": [1280]}), "cannot be read"),
    "negative runs": (lambda c: first(c, segmentation=run_lengths([1300, -20])), "no whole numbers from 0 on"),
    "runs that are fractions": (lambda c: first(c, segmentation=run_lengths([1279.5, 0.5])), "no whole numbers"),
    "runs beyond the image": (lambda c: first(c, segmentation=run_lengths([10**9])), "of 1000000000 pixels for one"),
    "runs of a text that ends": (lambda c: first(c, segmentation=run_lengths("0`")), "end in the middle"),
    "runs of a foreign text": (lambda c: first(c, segmentation=run_lengths("0 é")), "cannot be read"),
    "runs of a text beyond": (lambda c: first(c, segmentation=run_lengths("oooo0")), "pixels for one of 1280"),
    "runs are null": (lambda c: first(c, segmentation=run_lengths(None)), "no whole numbers"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_named_and_the_rest_is_read(tmp_path, kind):
    change, complaint = WRONG[kind]
    content = instances()
    change(content)
    data = MaskFolder(write(tmp_path, content), image_size=16, num_workers=0)
    assert len(data.faults()) == 1
    assert complaint in f"{data.faults()[0].where} {data.faults()[0].what}"
    assert len(data.faults()[0].what) < 200
    read = sum(map(len, data.examination.parts.values()))
    assert read == 6 - (not complaint.startswith(("annotations[", "images[")))
    with pytest.raises(QuintetError):
        data.setup("fit")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"images": [], "annotations": [], "segmentation"', "is no JSON"),
        ("[" * 100_000 + '"images""annotations""segmentation"', "is no JSON"),
        (json.dumps(instances())[:-200], "is no JSON"),
        ('["images", "annotations", "segmentation"]', "lacks one of the lists"),
        ('{"images": {}, "annotations": [], "categories": [], "segmentation": 1}', "lacks one of the lists"),
        ('{"images": [], "annotations": [], "categories": [7], "segmentation": 1}', "a category without a number"),
        ('{"images": [], "annotations": [], "categories": [{"id": true, "name": "a"}], "segmentation": 1}', "without"),
        (
            '{"images": [], "annotations": [], "segmentation": 1, '
            '"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
            "two categories of the id 1",
        ),
    ],
)
def test_files_that_are_damaged(tmp_path, text, complaint):
    with pytest.raises(QuintetError, match=complaint):
        find_masks(write(tmp_path, text))


def test_pipes_called_json_are_no_annotations(tmp_path):
    write(tmp_path, instances())
    os.mkfifo(tmp_path / "a.json")
    assert len(find_masks(tmp_path).entries) == 6


def test_run_lengths_as_text_cover_what_they_say(tmp_path):
    """Of the runs in text the first three are written as they are, later ones as the difference to the one before the
    last."""
    content = instances()

    def written(number):
        text = ""
        while True:
            code, number = number & 31, number >> 5
            more = number != 0 if not code & 16 else number != -1
            text += chr(48 + code + 32 * more)
            if not more:
                return text

    counts = [5 * 32, 3 * 32, 2 * 32, 32, 29 * 32]
    text = "".join(written(count - (counts[place - 2] if place > 2 else 0)) for place, count in enumerate(counts))
    content["annotations"] = [
        {"id": 1, "image_id": 0, "category_id": 7, "iscrowd": 1, "segmentation": run_lengths(text)},
        {"id": 2, "image_id": 1, "category_id": 90, "iscrowd": 1, "segmentation": run_lengths(counts)},
    ]
    masks = [read_mask(entry.mask) for entry in find_masks(write(tmp_path, content)).entries[:2]]
    expected = np.zeros((32, 40), int)
    expected[:, 5:8] = expected[:, 10:11] = 1
    assert (masks[0] == expected).all()
    assert (masks[1] == 2 * expected).all()


# Where the images lie


@pytest.mark.parametrize(
    ("images", "name"),
    [
        ("train2017", "train.json"),
        ("data/train2017", "annotations/instances_train2017.json"),
        ("some/where/deep", "labels.json"),
        ("train/photos", "train.json"),
    ],
)
def test_images_are_looked_for_below_the_folder(tmp_path, images, name):
    write(tmp_path, instances(), images, name)
    listing = find_masks(tmp_path)
    assert listing.faults == []
    assert [entry.path for entry in listing.entries] == [tmp_path / images / f"{number}.jpg" for number in range(6)]


@pytest.mark.parametrize("name", ["train2017/{}", "/home/someone/train2017/{}", "C:\\data\\{}"])
def test_file_names_with_folders_of_another_machine(tmp_path, name):
    content = instances()
    for item in content["images"]:
        item["file_name"] = name.format(item["file_name"])
    listing = find_masks(write(tmp_path, content, "pictures/train2017"))
    assert listing.faults == []
    assert {entry.path.parent for entry in listing.entries} == {tmp_path / "pictures" / "train2017"}


def test_the_images_of_a_part_lie_in_its_folder(tmp_path):
    write(tmp_path, instances(), "coco/val2017", "val.json")
    write(tmp_path, instances(), "coco/train2017", "train.json")
    listing = find_masks(tmp_path)
    assert listing.faults == []
    assert {(entry.split, entry.path.parent.name) for entry in listing.entries} == {
        ("train", "train2017"),
        ("val", "val2017"),
    }


def test_several_images_of_a_name_are_asked_about(tmp_path):
    write(tmp_path, instances(), "a/one")
    listing = find_masks(write(tmp_path, instances(), "a/two"))
    assert len(listing.faults) == 6
    assert "names 0.jpg, which may be a/one/0.jpg or a/two/0.jpg" in listing.faults[0].what


def test_a_full_disk_leaves_no_half_mask(tmp_path, cache, monkeypatch):
    path = write(tmp_path, instances())

    def full(self, file, *_, **__):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Image.Image, "save", full)
        with pytest.raises(QuintetError, match="No space left on device"):
            find_masks(path)
    assert not [item for item in cache.rglob("*") if item.is_file()]
    assert len(find_masks(path).entries) == 6
