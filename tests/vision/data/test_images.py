"""Reading images of every mode."""

import io

import imagecodecs
import numpy as np
import pytest
import torch
from PIL import Image

from quintet.core.errors import QuintetError
from quintet.vision.data.images import ImageDescription, denormalize, read_image

RED = (220, 30, 40)


def saved(image: Image.Image, path, **options):
    image.save(path, **options)
    return path


def halves(mode: str = "RGB") -> Image.Image:
    """Red above, black below: orientation and colour can be told from the result."""
    pixels = np.zeros((24, 16, 3), np.uint8)
    pixels[:12] = RED
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("RGB", "png"),
        ("RGB", "jpg"),
        ("RGBA", "png"),
        ("P", "png"),
        ("P", "gif"),
        ("CMYK", "jpg"),
        ("CMYK", "tif"),
        ("RGB", "webp"),
    ],
)
def test_colour_modes_become_rgb(tmp_path, mode, suffix):
    image = read_image(saved(halves(mode), tmp_path / f"image.{suffix}"))
    assert (image.mode, image.size) == ("RGB", (16, 24))
    pixels = np.asarray(image).astype(int)
    assert np.abs(pixels[3:9, 3:13].mean((0, 1)) - RED).max() < 12
    assert pixels[15:21, 3:13].max() < 40


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "RGBA", "CMYK", "P", "LA"])
def test_every_mode_becomes_grayscale(tmp_path, mode):
    image = read_image(saved(halves(mode), tmp_path / "image.tif"), channels=1)
    assert (image.mode, image.size) == ("L", (16, 24))
    assert np.asarray(image)[:12].mean() > np.asarray(image)[12:].mean()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_laid_over_white(tmp_path, mode):
    transparent = Image.new("RGBA", (8, 8), (0, 0, 0, 0)).convert("LA" if mode == "LA" else "RGBA")
    if mode == "PA":
        palette = Image.new("P", (8, 8), 0)
        palette.putpalette([0, 0, 0, 255, 0, 0])
        path = saved(palette, tmp_path / "image.png", transparency=0)
    else:
        path = saved(transparent, tmp_path / "image.png")
    assert np.asarray(read_image(path)).min() == 255


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))])
def test_exif_orientation_is_applied(tmp_path, orientation, corner):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(Image.fromarray(pixels), tmp_path / "image.jpg", exif=exif)
    image = np.asarray(read_image(path))
    assert image.shape[:2] == ((16, 32) if orientation in (1, 3) else (32, 16))
    assert image[corner].min() > 200
    assert sum(image[row, column].min() > 200 for row in (0, -1) for column in (0, -1)) == 1


def test_deep_images_use_their_real_range(tmp_path):
    values = np.array([[0, 1000, 2000, 4095]], np.uint16)
    path = saved(Image.fromarray(values), tmp_path / "image.png")
    assert np.asarray(read_image(path, 1, bit_depth=12)).tolist() == [[0, 62, 125, 255]]
    assert np.asarray(read_image(path, 1, bit_depth=16)).tolist() == [[0, 4, 8, 16]]
    with pytest.raises(QuintetError, match=r"image\.png holds the value 4095, outside the 0\.\.1023 of 10-bit images"):
        read_image(path, 1, bit_depth=10)


def test_a_large_jpeg_is_decoded_small_but_not_too_small(tmp_path):
    gradient = np.linspace(0, 255, 800, dtype=np.uint8)
    pixels = np.broadcast_to(gradient[None, :, None], (600, 800, 3))
    path = saved(Image.fromarray(pixels), tmp_path / "image.jpg")
    assert read_image(path).size == (800, 600)
    for channels in (1, 3):
        image = read_image(path, channels, at_least=140)
        assert image.size == (200, 150)
        assert np.abs(np.asarray(image.convert("L"))[75].astype(float) - gradient[2::4]).max() < 4


def truncated(path):
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(buffer, "JPEG")
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])


@pytest.mark.parametrize(
    ("write", "complaint"),
    [
        (truncated, "is truncated"),
        (lambda path: path.write_bytes(b""), r"is empty \(0 bytes\)"),
        (lambda path: path.write_text("not a picture"), "is not an image Pillow knows"),
        (lambda path: Image.new("F", (4, 4)).save(path, "TIFF"), "holds fractions or numbers with a sign, whose black"),
        (lambda path: None, "does not exist"),
    ],
)
def test_damaged_files_are_named(tmp_path, write, complaint):
    path = tmp_path / "image.jpg"
    write(path)
    with pytest.raises(QuintetError, match=f"image.jpg {complaint}") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_denormalize_undoes_normalization():
    images = torch.rand(2, 3, 4, 5)
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.1]
    known = ImageDescription(["a", "b"], 3, [4, 5], mean, std, [1, 1])
    normalized = (images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(denormalize(normalized, known), images)


@pytest.mark.parametrize(("channels", "mode"), [(3, "RGB"), (1, "L")])
def test_sixteen_bits_become_eight_by_rounding(tmp_path, channels, mode):
    values = np.array([0, 128, 129, 385, 386, 32896, 65535], np.uint16)  # 257 to a step
    path = tmp_path / "deep.png"
    path.write_bytes(imagecodecs.png_encode(np.repeat(values[None, :, None], 3, 2)))
    image = read_image(path, channels)
    assert image.mode == mode
    expected = [0, 0, 1, 1, 2, 128, 255]
    assert np.asarray(image).reshape(7, channels).tolist() == [[value] * channels for value in expected]
