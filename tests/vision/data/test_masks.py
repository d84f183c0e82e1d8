"""Masks: what every kind of file holds, what is refused, and the way from ids to indices and back."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from quintet.core.errors import QuintetError
from quintet.vision.data.masks import (
    IGNORED,
    MaskDescription,
    MaskFiles,
    MaskSample,
    collate_masks,
    distinct_colours,
    facts_of_mask,
    mask_image,
    read_mask,
)

IDS = np.array([[0, 1, 2], [3, 1, 255]], np.uint8)


def palette_image(ids=IDS):
    image = Image.fromarray(ids)
    image.putpalette([value for colour in distinct_colours(256) for value in colour])
    return image


def described(ids=(0, 1, 2), ignored=(255,), **arguments) -> MaskDescription:
    names = [f"class {value}" for value in ids]
    colours = distinct_colours(len(ids))
    known = {"channels": 3, "image_size": [8, 8], "mean": [0.5] * 3, "std": [0.25] * 3, "class_counts": [1] * len(ids)}
    return MaskDescription(names, **known | arguments, ids=list(ids), ignored_ids=list(ignored), palette=colours)


KINDS = {
    "gray.png": lambda: Image.fromarray(IDS),
    "palette.png": palette_image,
    "gray.tif": lambda: Image.fromarray(IDS),
    "sixteen.png": lambda: Image.fromarray(IDS.astype(np.uint16)),
    "integers.tif": lambda: Image.fromarray(IDS.astype(np.int32)),
    "floats.tif": lambda: Image.fromarray(IDS.astype(np.float32)),
    "gray as rgb.png": lambda: Image.fromarray(np.stack([IDS] * 3, axis=-1)),
    "gray as rgba.png": lambda: Image.fromarray(np.stack([*[IDS] * 3, np.full_like(IDS, 255)], axis=-1)),
    "gray with alpha.png": lambda: Image.fromarray(IDS).convert("LA"),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_holds_the_same_ids(name, tmp_path):
    KINDS[name]().save(tmp_path / name)
    assert (read_mask(tmp_path / name) == IDS).all()


def test_one_bit(tmp_path):
    Image.fromarray(IDS > 1).save(tmp_path / "a.png")
    assert (read_mask(tmp_path / "a.png") == (IDS > 1)).all()


def test_ids_beyond_a_byte(tmp_path):
    Image.fromarray(IDS.astype(np.uint16) + 1000).save(tmp_path / "a.png")
    assert (read_mask(tmp_path / "a.png") == IDS.astype(int) + 1000).all()


def test_a_turned_mask_is_read_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(IDS).save(tmp_path / "a.png", exif=exif)
    assert (read_mask(tmp_path / "a.png") == np.rot90(IDS, -1)).all()


REFUSED = {
    "colours": (lambda path: Image.new("RGB", (4, 4), "red").save(path), "holds colours and no palette"),
    "fractions": (
        lambda path: Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(path, format="TIFF"),
        "holds fractions, not class ids",
    ),
    "negative": (
        lambda path: Image.fromarray(np.full((4, 4), -1, np.int32)).save(path, format="TIFF"),
        "holds values from -1 to -1",
    ),
    "jpeg": (lambda path: Image.new("L", (4, 4)).save(path, format="JPEG"), "is a JPEG, whose compression changes"),
    "empty": (lambda path: path.write_bytes(b""), "is empty (0 bytes)"),
    "damaged": (lambda path: path.write_bytes(b"not an image"), "is not an image Pillow knows"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_mask_says_so(kind, tmp_path):
    write, complaint = REFUSED[kind]
    path = tmp_path / "a.png"
    write(path)
    with pytest.raises(QuintetError) as caught:
        read_mask(path)
    assert complaint in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert complaint in facts_of_mask(path)


def test_truncated(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 9, (64, 64)).astype(np.uint8)).save(buffer, format="PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue()[:-200])
    assert "truncated" in facts_of_mask(tmp_path / "a.png")


def test_facts(tmp_path):
    palette_image().save(tmp_path / "a.png")
    facts = facts_of_mask(tmp_path / "a.png")
    assert (facts.width, facts.height, facts.mode) == (3, 2, "P")
    assert facts.ids == {0: 1, 1: 2, 2: 1, 3: 1, 255: 1}
    assert facts.palette[3:6] == [128, 0, 0]
    assert facts_of_mask(tmp_path / "b.png") == "does not exist"


def test_from_ids_to_indices_and_back(tmp_path, photograph):
    known = described(ids=(1, 3), ignored=(0,))
    Image.fromarray(IDS).save(tmp_path / "mask.png")
    sample = MaskFiles([photograph(tmp_path / "a.jpg", size=(3, 2))], [tmp_path / "mask.png"], known)[0]
    assert sample.mask.tolist() == [[IGNORED, 0, IGNORED], [1, 0, IGNORED]]
    assert sample.size == (2, 3)
    image = mask_image(torch.tensor([[0, 1], [1, 0]], dtype=torch.uint8), known)
    assert image.mode == "P"
    assert np.asarray(image).tolist() == [[1, 3], [3, 1]]
    assert image.convert("RGB").getpixel((1, 0)) == tuple(known.palette[1])
    deep = mask_image(np.array([[0, 1]]), described(ids=(0, 700)))
    assert np.asarray(deep).tolist() == [[0, 700]]


def test_a_batch_of_different_sizes_stays_a_list():
    def sample(size):
        return MaskSample(torch.zeros(3, *size), torch.zeros(size, dtype=torch.uint8), "a", size)

    same = collate_masks([sample((4, 6)), sample((4, 6))])
    assert same.image.shape == (2, 3, 4, 6)
    assert same.mask.shape == (2, 4, 6)
    assert same.size == [(4, 6), (4, 6)]
    mixed = collate_masks([sample((4, 6)), sample((5, 6))])
    assert [tuple(mask.shape) for mask in mixed.mask] == [(4, 6), (5, 6)]
    assert collate_masks([sample((4, 6))._replace(mask=None)]).mask is None


def test_colours_are_those_of_pascal_voc():
    assert distinct_colours(256)[:4] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert distinct_colours(256)[20] == [0, 64, 128]
    assert len(set(map(tuple, distinct_colours(255)))) == 255
