"""Images Pillow would cut down: every kind of file against the values written, and from files to batches."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from quintet.core.errors import QuintetError
from quintet.vision.data import ImageFolder, MaskFolder
from quintet.vision.data.bands import Bands, as_numbers, read_bands
from quintet.vision.data.images import ImageDescription, bands_of, denormalize, display_image, load_image, read_image
from quintet.vision.data.transforms import BandJitter, ResizeTo, paired_augmentation

tifffile = pytest.importorskip("tifffile")

KINDS = {
    "five bands": ((8, 9, 5), "u1", {"planarconfig": "contig"}),
    "bands one after the other": ((5, 8, 9), "u2", {"planarconfig": "separate"}),
    "colour of 16 bits": ((8, 9, 3), "u2", {"photometric": "rgb"}),
    "colour and infrared": ((8, 9, 4), "u1", {"photometric": "rgb", "extrasamples": [0]}),
    "colour of 16 bits with alpha": ((8, 9, 4), "u2", {"photometric": "rgb", "extrasamples": [2]}),
    "two bands": ((8, 9, 2), "u1", {"planarconfig": "contig"}),
    "fractions": ((8, 9), "f4", {}),
    "big endian": ((8, 9, 4), "u2", {"planarconfig": "contig", "byteorder": ">"}),
    "big TIFF": ((8, 9, 4), "u2", {"planarconfig": "contig", "bigtiff": True}),
    "compressed": ((8, 9, 5), "u2", {"planarconfig": "contig", "compression": "zlib", "predictor": True}),
}


def tiff(values, **arguments) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **{"photometric": "minisblack", **arguments})
    return file.getvalue()


def npy(values) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def random_values(shape, kind, seed=0, most=250):
    values = np.random.default_rng(seed).random(shape)
    return values.astype(kind) if np.dtype(kind).kind == "f" else (values * most).astype(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tiff(kind):
    shape, dtype, arguments = KINDS[kind]
    values = random_values(shape, dtype)
    found = read_bands(tiff(values, **arguments))
    expected = values[..., None] if values.ndim == 2 else values
    expected = np.moveaxis(expected, 0, -1) if kind == "bands one after the other" else expected
    assert (found.values == expected).all()
    assert found.values.dtype.kind == np.dtype(dtype).kind
    assert found.alpha == ("alpha" in kind)


@pytest.mark.parametrize(
    ("shape", "kind", "arguments"),
    [
        ((8, 9), "u1", {}),
        ((8, 9), "u2", {}),
        ((8, 9, 3), "u1", {"photometric": "rgb"}),
        ((8, 9, 4), "u1", {"photometric": "rgb", "extrasamples": [2]}),
    ],
)
def test_what_pillow_holds_whole_is_left_to_it(shape, kind, arguments):
    assert read_bands(tiff(random_values(shape, kind), **arguments)) is None


def test_png_of_16_bits_in_colour():
    from torchvision.io import encode_png

    values = torch.from_numpy(random_values((3, 8, 9), "u2", most=60000))
    try:
        content = encode_png(values).numpy().tobytes()
    except RuntimeError:
        content = png_of_16_bits(values.permute(1, 2, 0).numpy())
    assert (read_bands(content).values == values.permute(1, 2, 0).numpy()).all()
    with pytest.raises(QuintetError, match="is truncated"):
        read_bands(content[:90])


def png_of_16_bits(values: np.ndarray) -> bytes:
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    )


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 4), (4, 20, 30), (20, 30, 1)])
def test_arrays_with_the_bands_first_or_last(shape):
    values = random_values(shape, "f4")
    found = read_bands(npy(values)).values
    expected = np.moveaxis(values, 0, -1) if shape[0] == 4 else values.reshape(20, 30, -1)
    assert (found == expected).all()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (npy(np.zeros((2, 3, 4, 5))), r"shape \(2, 3, 4, 5\)"),
        (npy(np.array(["a"])), "not of numbers"),
        (npy(np.zeros(0)), "not of numbers"),
        (npy(np.zeros((9, 9)))[:100], "is no NumPy array"),
        (tiff(np.zeros((40, 40, 5), np.uint8), planarconfig="contig")[:400], "is damaged"),
    ],
)
def test_damaged(content, complaint):
    with pytest.raises(QuintetError, match=complaint):
        read_bands(content)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_tag_turns_bands_as_pillow_turns_pictures(orientation):
    values = random_values((8, 9), "u1")
    tag = (274, "H", 1, orientation, True)
    picture = bands_of(tiff(values, extratags=[tag]), 1).values
    bands = read_bands(tiff(np.stack([values] * 5, -1), planarconfig="contig", extratags=[tag])).values
    assert (bands[..., :1] == picture).all()


# Numbers


@given(st.integers(8, 16), st.integers(1, 6))
def test_whole_numbers_are_divided_by_their_range(bits, bands):
    values = np.arange(6 * bands).reshape(2, 3, bands).astype(np.uint16)
    values[0, 0, 0] = 2**bits - 1
    found = as_numbers(Bands(values), bands, bits)
    assert found.shape == (bands, 2, 3)
    assert torch.allclose(found, torch.from_numpy(values / (2**bits - 1)).float().permute(2, 0, 1), atol=1e-7)


def test_fractions_are_brought_from_their_span():
    values = np.array([[-2.0, 0.0, 2.0]])[..., None]
    assert as_numbers(Bands(values), 1, 8, [-2.0, 2.0]).flatten().tolist() == [0.0, 0.5, 1.0]
    with pytest.raises(QuintetError, match="black and white are not known"):
        as_numbers(Bands(values), 1, 8)
    with pytest.raises(QuintetError, match="not finite"):
        as_numbers(Bands(np.array([[[np.nan]]])), 1, 8, [0.0, 1.0])


def test_colour_gray_and_transparency():
    gray = Bands(np.full((1, 1, 1), 51, np.uint8))
    assert as_numbers(gray, 3, 8).flatten().tolist() == pytest.approx([0.2] * 3)
    colour = Bands(np.array([[[255, 0, 0]]], np.uint8))
    assert as_numbers(colour, 1, 8).item() == pytest.approx(0.299)
    half = Bands(np.array([[[65535, 0, 0, 32768]]], np.uint16), alpha=True)
    assert as_numbers(half, 3, 16).flatten().tolist() == pytest.approx([1.0, 0.5, 0.5], abs=1e-4)
    assert len(as_numbers(half, 4, 16)) == 4
    for values, channels in ((np.zeros((1, 1, 5), np.uint8), 3), (np.zeros((1, 1, 3), np.uint8), 4)):
        with pytest.raises(QuintetError, match=f"has {values.shape[2]} bands and not the {channels}"):
            as_numbers(Bands(values), channels, 8)
    with pytest.raises(QuintetError, match=r"holds the value 300, outside the 0..255"):
        as_numbers(Bands(np.full((1, 1, 1), 300, np.uint16)), 1, 8)


def test_deep_colour_as_a_picture_keeps_its_brightness(tmp_path):
    """Pillow takes the upper byte of 16 bits, and an image of 12 bits comes out nearly black."""
    values = random_values((8, 9, 3), "u2", most=4000)
    (tmp_path / "deep.tif").write_bytes(tiff(values, photometric="rgb"))
    picture = read_image(tmp_path / "deep.tif", 3, bit_depth=12)
    assert picture.mode == "RGB"
    assert np.abs(np.asarray(picture) - values / 4095 * 255).max() <= 0.51


def test_numbers_are_resized_as_pictures_are():
    # Smooth, since a picture is cut between pixels and numbers are cut at them.
    noise = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)
    picture = Image.fromarray(noise).resize((90, 60), Image.Resampling.BICUBIC)
    numbers = torch.from_numpy(np.asarray(picture) / np.float32(255)).permute(2, 0, 1)
    for fit in ("crop", "pad", "stretch"):
        resize = ResizeTo([32, 24], fit)
        expected = v2.functional.pil_to_tensor(resize(picture)) / 255
        found = resize(numbers)
        assert found.shape == (3, 32, 24)
        assert (found - expected).abs().mean() < (0.03 if fit == "crop" else 0.01), fit


# From files to batches


@pytest.fixture
def satellite(tmp_path):
    """12 images of six bands in 12 of 16 bits, half with a bright fifth band, and masks of where it is bright."""
    for number in range(12):
        values = random_values((24, 32, 6), "u2", seed=number, most=2000)
        values[:, : 8 * (number % 4), 4] += 1900
        for name in ("images", "masks", "classes/low", "classes/high"):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
        content = tiff(values, planarconfig="contig")
        (tmp_path / "images" / f"{number:02}.tif").write_bytes(content)
        (tmp_path / "classes" / ("low", "high")[number % 2] / f"{number:02}.tif").write_bytes(content)
        np.save(tmp_path / "masks" / f"{number:02}.npy", (values[..., 4] > 1900).astype(np.uint8))
    return tmp_path


ARGUMENTS = {"image_size": 16, "channels": 6, "normalization": "data", "batch_size": 4, "num_workers": 0}


@pytest.mark.parametrize("augmentation", ["none", "light", "medium", "strong"])
def test_classification(satellite, augmentation):
    data = ImageFolder(satellite / "classes", augmentation=augmentation, val_fraction=0.3, **ARGUMENTS)
    data.setup("fit")
    known = data.description()
    assert (known.channels, known.bit_depth, len(known.mean), known.span) == (6, 12, 6, None)
    batch = next(iter(data.train_dataloader()))
    assert batch.image.shape == (4, 6, 16, 16)
    assert batch.image.isfinite().all()
    sample = data.datasets["val"][0]
    assert sample.image.shape == (6, 16, 16)
    assert denormalize(sample.image[None], known).shape == (1, 3, 16, 16)
    assert display_image(sample.path, known).mode == "RGB"


@pytest.mark.parametrize("fit", ["stretch", "window"])
def test_segmentation(satellite, fit):
    data = MaskFolder(satellite, fit=fit, augmentation="strong", val_fraction=0.3, **ARGUMENTS)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.image.shape == (4, 6, 16, 16)
    assert set(batch.mask.unique().tolist()) <= {0, 1, 255}
    numbers = load_image(batch.path[0], data.description())
    assert numbers.dtype == torch.float32
    assert 0 <= numbers.min() <= numbers.max() <= 1


def test_bands_and_masks_move_together():
    """Where all bands are bright the mask is 1, after any change of geometry."""
    mask = np.zeros((40, 50), np.uint8)
    mask[10:30, 5:25] = 1
    image = torch.from_numpy(mask).float().expand(5, -1, -1)
    change = paired_augmentation("medium", [32, 32], [0.0] * 5, [1.0] * 5, numbers=True)
    torch.manual_seed(0)
    pixels, moved = change(image, mask)
    inside = (moved != 255) & ((pixels.mean(0) > 0.8) | (pixels.mean(0) < 0.2))
    assert inside.float().mean() > 0.4
    assert ((pixels.mean(0) > 0.5) == (moved == 1))[inside].float().mean() > 0.97


def test_band_jitter_changes_each_band_by_itself():
    torch.manual_seed(0)
    changed = BandJitter(0.3)(torch.full((4, 2, 2), 0.5))
    assert len(changed[:, 0, 0].unique()) == 4
    assert (changed - 0.5).abs().max() <= 0.5 * 0.3 + 0.3 / 4


def test_fractions_with_a_sign_learn_their_span(tmp_path):
    for name in ("cold", "warm"):
        (tmp_path / name).mkdir()
        for number in range(4):
            values = random_values((12, 12), "f4", seed=number) * 60 - (50 if name == "cold" else 20)
            (tmp_path / name / f"{number}.tif").write_bytes(tiff(values))
    data = ImageFolder(tmp_path, image_size=8, channels=1, val_fraction=0.25, test_fraction=0.0, num_workers=0)
    data.setup("fit")
    low, high = data.description().span
    assert -50 <= low < -40
    assert 30 < high <= 40
    assert data.datasets["val"][0].image.shape == (1, 8, 8)


def test_numbers_with_a_sign_have_one_scale_in_all_files(tmp_path):
    """Heights below the sea in some files, none in others, as Pillow reads them."""
    for name, offset in (("low", -100), ("high", 300)):
        (tmp_path / name).mkdir()
        for number in range(4):
            values = (random_values((12, 12), "i2", seed=number, most=90) + offset).astype(np.int16)
            (tmp_path / name / f"{number}.tif").write_bytes(tiff(values))
    data = ImageFolder(tmp_path, image_size=8, channels=1, val_fraction=0.25, test_fraction=0.0, num_workers=0)
    data.setup("fit")
    known = data.description()
    assert -100 <= known.span[0] < -90
    assert 380 < known.span[1] <= 390
    low, high = (load_image(tmp_path / name / "0.tif", known) for name in ("low", "high"))
    assert (high.mean() - low.mean()).item() == pytest.approx(400 / (known.span[1] - known.span[0]), abs=1e-3)


def refused(data, stage="fit") -> str:
    with pytest.raises(QuintetError) as caught:
        data.setup(stage)
    assert str(caught.value).count("\n") <= 1
    return str(caught.value)


def test_bands_that_do_not_fit_the_channels(satellite):
    arguments = ARGUMENTS | {"channels": 3, "normalization": "imagenet"}
    message = refused(MaskFolder(satellite, **arguments))
    assert "images/00.tif has 6 bands and data.channels is 3 (12 images like it)" in message
    assert "data.channels=6 data.normalization=data" in message
    assert "has 6 bands and data.channels is 4" in refused(
        ImageFolder(satellite / "classes", **ARGUMENTS | {"channels": 4})
    )


def test_published_statistics_know_three_colours():
    with pytest.raises(QuintetError, match=r"give data\.normalization=data"):
        MaskFolder("anywhere", channels=6)
    with pytest.raises(QuintetError, match=r"data.channels is 0"):
        ImageFolder("anywhere", channels=0)


def test_values_that_are_not_finite(satellite):
    np.save(satellite / "classes" / "low" / "broken.npy", np.full((4, 4, 6), np.nan, np.float32))
    data = ImageFolder(satellite / "classes", **ARGUMENTS)
    assert "low/broken.npy holds values that are not finite" in refused(data)


def test_prediction_refuses_other_bands_and_fractions(satellite, tmp_path):
    known = MaskFolder(satellite, **ARGUMENTS).description()
    new = tmp_path / "new"
    new.mkdir()
    Image.new("RGB", (20, 20)).save(new / "a.png")
    data = MaskFolder(new, num_workers=0)
    data.adopt(known)
    assert "a.png has 3 bands and data.channels is 6" in refused(data, "predict")
    (new / "a.png").unlink()
    (new / "b.tif").write_bytes(tiff(random_values((20, 20, 6), "f4"), planarconfig="contig"))
    data = MaskFolder(new, num_workers=0)
    data.adopt(known)
    assert "b.tif holds fractions or numbers with a sign (6 x float32)" in refused(data, "predict")


def test_description_says_how_files_are_read():
    known = ImageDescription(["a", "b"], 3, [8, 8], [0.5] * 3, [0.5] * 3, [1, 1])
    assert not known.numbers
    assert replace(known, bit_depth=12).numbers
    assert replace(known, span=[0.0, 2.0]).numbers
    assert replace(known, channels=4).numbers
