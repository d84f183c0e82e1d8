"""Polygons and run lengths: drawn as pycocotools draws them, in the right order, with every fault named."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from quintet.core.errors import QuintetError
from quintet.vision.data import ImageFolder, MaskFolder
from quintet.vision.data.coco_drawing import draw, reach
from quintet.vision.data.mask_sources import find_masks
from quintet.vision.data.masks import read_mask

coco_mask = pytest.importorskip("pycocotools.mask")

CATEGORIES = [{"id": 90, "name": "dog"}, {"id": 7, "name": "cat"}, {"id": 3, "name": "unused"}]
SIZE = (40, 32)  # width, height


def square(x, y, side):
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def annotation(number, image, category, segmentation, **more):
    return {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation, **more}


def instances(count=6, annotations=None):
    """A cat and a dog in each image, at other places."""
    both = annotations or [
        item
        for number in range(count)
        for item in (
            annotation(2 * number, number, 7, [square(2 + number, 2, 10)]),
            annotation(2 * number + 1, number, 90, [square(20, 4 + number, 12)]),
        )
    ]
    images = [{"id": number, "file_name": f"{number}.jpg", "width": 40, "height": 32} for number in range(count)]
    return {"images": images, "annotations": both, "categories": CATEGORIES}


@pytest.fixture
def write(photograph):
    def write(root, content, images="images", name="labels.json"):
        for item in content["images"]:
            photograph(root / images / item["file_name"], seed=item["id"], size=SIZE)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(content))
        return root / name

    return write


def folder(root, **arguments):
    return MaskFolder(root, **{"image_size": 16, "batch_size": 2, "num_workers": 0, **arguments})


def text_of(data):
    console = Console(file=io.StringIO(), width=200)
    console.print(data.table())
    return console.file.getvalue()


def test_categories_become_classes_behind_the_background(tmp_path, write):
    data = folder(write(tmp_path, instances()), val_fraction=0.2, test_fraction=0.2)
    data.setup("fit")
    assert data.description().classes == ["background", "cat", "dog"]
    assert data.description().ids == [0, 1, 2]
    assert "categories without annotations are no classes: unused" in text_of(data)
    mask = read_mask(find_masks(data.root).entries[0].mask)
    assert mask.shape == (32, 40)
    assert (mask[3:11, 3:11] == 1).all()
    assert (mask[5:15, 21:31] == 2).all()
    assert (mask[20:, :15] == 0).all()


@pytest.mark.parametrize("kind", ["polygons", "plain run lengths", "compressed run lengths"])
def test_every_kind_of_segmentation_covers_what_it_says(kind):
    covered = np.zeros((32, 40), np.uint8)
    covered[3:20, 5:30] = 1
    runs = coco_mask.encode(np.asfortranarray(covered))
    counts = np.flatnonzero(np.diff(np.concatenate([[2], covered.ravel(order="F"), [2]])))
    plain = np.diff(counts).tolist()
    segmentation = {
        "polygons": [[5, 3, 30, 3, 30, 20, 5, 20]],
        "plain run lengths": {"size": [32, 40], "counts": plain},
        "compressed run lengths": {"size": [32, 40], "counts": runs["counts"].decode()},
    }[kind]
    mask = draw([annotation(1, 1, 7, segmentation, iscrowd=int(kind != "polygons"))], {7: 5}, 32, 40)
    assert (mask == 5 * covered).all()


def test_smaller_objects_lie_over_larger_ones():
    layers = [annotation(1, 1, 1, [square(10, 10, 4)]), annotation(2, 1, 2, [square(5, 5, 20)])]
    for order in (layers, layers[::-1]):
        mask = draw(order, {1: 1, 2: 2}, 32, 40)
        assert mask[12, 12] == 1
        assert mask[7, 7] == 2


def test_polygons_of_one_annotation_are_joined():
    mask = draw([annotation(1, 1, 1, [square(1, 1, 5), square(20, 20, 5)])], {1: 1}, 32, 40)
    assert mask[3, 3] == mask[22, 22] == 1
    assert mask.sum() == 50


def test_what_reaches_outside_is_cut_and_said(tmp_path, write):
    content = instances()
    content["annotations"][0]["segmentation"] = [[-20, -20, 10, -20, 10, 10, -20, 10]]
    content["annotations"][1]["segmentation"] = [square(100, 100, 10)]
    data = folder(write(tmp_path, content))
    text = text_of(data)
    assert "labels.json: reaches out of its image and is cut: 1 annotation" in text
    assert "labels.json: lies outside of its image: 1 annotation" in text
    assert data.faults() == []
    mask = read_mask(find_masks(data.root).entries[0].mask)
    assert (mask[:9, :9] == 1).all()
    assert mask.sum() == 100


INSIDE, CUT, OUTSIDE = "", "reaches out of its image and is cut", "lies outside of its image"


@pytest.mark.parametrize(
    ("corner", "side", "said"),
    [
        ((0, 0), 32, INSIDE),
        ((30, 22), 10, INSIDE),
        # What touches a border from outside has no pixel.
        ((-4, 5), 4, OUTSIDE),
        ((5, -4), 4, OUTSIDE),
        ((40, 5), 4, OUTSIDE),
        ((5, 32), 4, OUTSIDE),
        ((39.5, 5), 4, CUT),
        ((5, 31.5), 4, CUT),
        ((-3.5, 5), 4, CUT),
        ((5, -3.5), 4, CUT),
        # Up to one pixel beyond is rounding.
        ((-1, 5), 4, INSIDE),
        ((5, -1), 4, INSIDE),
        ((37, 5), 4, INSIDE),
        ((5, 29), 4, INSIDE),
        ((-1.5, 5), 4, CUT),
        ((5, -1.5), 4, CUT),
        ((37.5, 5), 4, CUT),
        ((5, 29.5), 4, CUT),
    ],
)
def test_borders(corner, side, said):
    width, height = SIZE
    assert reach({"segmentation": [square(*corner, side)]}, height, width) == said


def test_of_several_polygons_one_within_is_enough():
    assert reach({"segmentation": [square(50, 50, 4), square(5, 5, 4)]}, 32, 40) == CUT
    assert reach({"segmentation": {"size": [32, 40], "counts": [1280]}}, 32, 40) == ""


def test_images_without_annotations_are_background(tmp_path, write):
    content = instances(annotations=[annotation(1, 0, 7, [square(2, 2, 9)]), annotation(2, 1, 90, [square(2, 2, 9)])])
    listing = find_masks(write(tmp_path, content))
    assert "4 images of labels.json have no annotation and are all background" in listing.remarks
    assert not read_mask(listing.entries[5].mask).any()


@pytest.mark.parametrize(
    ("images", "name", "split"),
    [
        ("train2017", "annotations/instances_train2017.json", "train"),
        ("images/val2017", "annotations/instances_val2017.json", "val"),
        ("valid", "valid/_annotations.coco.json", "val"),
        ("images", "annotations.json", None),
        ("", "train.json", "train"),
    ],
)
def test_layouts(tmp_path, write, images, name, split):
    write(tmp_path, instances(), images, name)
    assert MaskFolder.recognises(tmp_path)
    assert not ImageFolder.recognises(tmp_path)
    entries = find_masks(tmp_path).entries
    assert len(entries) == 6
    assert {entry.split for entry in entries} == {split}


def test_parts_number_their_categories_differently_but_agree_by_name(tmp_path, write):
    write(tmp_path, instances(), "train", "train/_annotations.coco.json")
    other = instances(3)
    other["categories"] = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    for item in other["annotations"]:
        item["category_id"] = {7: 2, 90: 1}[item["category_id"]]
    for item in other["images"]:
        item["file_name"] = f"other{item['file_name']}"
    write(tmp_path, other, "valid", "valid/_annotations.coco.json")
    listing = find_masks(tmp_path)
    assert listing.classes == ["background", "cat", "dog"]
    masks = [
        read_mask(next(entry.mask for entry in listing.entries if entry.split == part)) for part in ("train", "val")
    ]
    assert (masks[0] == masks[1]).all()


def test_masks_are_drawn_once(tmp_path, write, cache, monkeypatch):
    path = write(tmp_path, instances())
    find_masks(path)
    monkeypatch.setattr("quintet.vision.data.coco.draw", None)
    assert len(find_masks(path).entries) == 6
    assert len(list(cache.rglob("*.png"))) == 6


def test_groups_by_a_pattern(tmp_path, write):
    content = instances(12)
    for item in content["images"]:
        item["file_name"] = f"film{item['id'] // 3}_{item['id']}.jpg"
    data = folder(write(tmp_path, content), group="film[0-9]+", val_fraction=0.25, test_fraction=0.25)
    groups = [{entry.group for entry in entries} for entries in data.examination.parts.values()]
    assert all(groups)
    assert sum(map(len, groups)) == 4


def broken(content, **changes):
    content["annotations"][0].update(changes)
    return content


FAULTS = {
    "missing image": (lambda c: c["images"][0].update(file_name="gone.jpg"), "labels.json image 0", "names gone.jpg"),
    "two points": (lambda c: broken(c, segmentation=[[1, 1, 2, 2]]), "image 0", "fewer than three points"),
    "only a box": (lambda c: broken(c, segmentation=[]), "image 0", "annotation 0, which has no polygon"),
    "no numbers": (lambda c: broken(c, segmentation=[["a"] * 6]), "image 0", "cannot be read"),
    "unknown category": (lambda c: broken(c, category_id=5), "image 0", "category 5, which is not known"),
    "unknown image": (lambda c: broken(c, image_id=77), "labels.json annotation 0", "names the image 77"),
    "another size": (
        lambda c: broken(c, segmentation={"size": [4, 4], "counts": [16]}),
        "image 0",
        "run lengths of size [4, 4]",
    ),
    "broken run lengths": (
        lambda c: broken(c, segmentation={"size": [32, 40], "counts": [5]}),
        "image 0",
        "run lengths of 5 pixels for one of 1280",
    ),
    "size of the image": (lambda c: c["images"][0].update(width=50), "image 0", "says 50 x 32, its image is 40 x 32"),
    "no size": (lambda c: c["images"][0].pop("width"), "image 0", "has no height and width"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_faults(tmp_path, write, kind):
    change, where, what = FAULTS[kind]
    content = instances()
    path = write(tmp_path, content)
    change(content)
    path.write_text(json.dumps(content))
    faults = folder(path).faults()
    assert len(faults) == 1
    assert where in faults[0].where
    assert what in faults[0].what


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"images": [], "annotations": [], "segmentation"', "is no JSON"),
        ('{"images": [], "annotations": {}, "segmentation": 1}', "lacks one of the lists"),
        ('{"images": [], "annotations": [], "categories": [{"id": "1"}], "segmentation": 1}', "a category without"),
    ],
)
def test_files_that_are_none(tmp_path, content, complaint):
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(QuintetError, match=complaint):
        find_masks(tmp_path / "labels.json")


def test_a_models_categories_decide_about_the_ids(tmp_path, write):
    known = folder(write(tmp_path / "a", instances())).description()
    other = instances(3)
    other["categories"] = [{"id": 1, "name": "dog"}, {"id": 2, "name": "horse"}]
    for item in other["annotations"]:
        item["category_id"] = 1
    path = write(tmp_path / "b", other)
    data = folder(path, val_fraction=0.0, test_fraction=1.0)
    data.adopt(known)
    assert data.faults() == []
    assert set(np.unique(read_mask(data.examination.parts["test"][0].mask))) == {0, 2}
    other["annotations"][0]["category_id"] = 2
    path.write_text(json.dumps(other))
    data = folder(path, test_fraction=1.0, val_fraction=0.0)
    data.adopt(known)
    assert "horse" in [fault.where for fault in data.faults()]


def test_prediction_takes_the_images(tmp_path, write):
    path = write(tmp_path, instances())
    data = folder(path)
    data.adopt(folder(path).description())
    data.setup("predict")
    assert len(data.datasets["predict"]) == 6
    Image.open(data.datasets["predict"][0].path).verify()
