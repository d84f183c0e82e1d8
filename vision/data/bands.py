"""Images that Pillow would cut down or refuse: many bands, more than 8 bits in colour, fractions.

TIFF is read by tifffile, PNG of 16 bits in colour by imagecodecs once its checksums are right, .npy by NumPy; whatever
Pillow holds whole is left to Pillow.
"""

import io
import logging
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import ExifTags, Image, TiffImagePlugin
from torch import Tensor

from ...core.errors import QuintetError

PNG, NUMPY, TIFF = b"\x89PNG\r\n\x1a\n", b"\x93NUMPY", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Tags of TIFF.
BITS, PHOTOMETRIC, SAMPLES, EXTRA, FORMAT = 258, 262, 277, 338, 339
RGB, CMYK = 2, 5
FLOATING = 3
MOST_PIXELS = 178_956_970  # of an image, where Pillow suspects a decompression bomb too
DENSEST = 2000  # bytes of an image for one of its file: no usual compression does better
LARGE = 2**28  # bytes from which that is looked at
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow weighs red, green and blue


@dataclass(frozen=True)
class Bands:
    """Values (height, width, bands) as a file holds them, upright; whether the last band is transparency.

    `orientation` is EXIF's, by which the stored values were turned.
    """

    values: np.ndarray
    alpha: bool = False
    orientation: int = 1

    @property
    def numbers(self) -> bool:
        """Whether the values have no natural black and white: fractions, or whole numbers with a sign."""
        return self.values.dtype.kind in "fi"

    @property
    def picture(self) -> bool:
        """Whether the bands are those of a gray or colour picture."""
        return self.alpha or self.values.shape[2] in (1, 3)

    @property
    def mode(self) -> str:
        bands = self.values.shape[2]
        return f"{bands} x {self.values.dtype}" if bands > 1 else str(self.values.dtype)


def read_bands(content: bytes) -> Bands | None:
    """The values of a file that Pillow does not hold whole; None for all others.

    Raises QuintetError whose message lacks only the file's name.
    """
    if content.startswith(NUMPY):
        return _of_numpy(content)
    # Bit depth and kind of colour are bytes 24 and 25 of a PNG; 2, 4 and 6 have several bands.
    if content.startswith(PNG) and len(content) > 25 and content[24] == 16 and content[25] in (2, 4, 6):
        return _of_png(content)
    if content.startswith(TIFF):
        return _of_tiff(content)
    return None


def _refuse_more_pixels(height: int, width: int) -> None:
    if height * width > MOST_PIXELS:
        raise QuintetError(f"is said to be {width} x {height}, too many pixels to be opened safely")


def _of_numpy(content: bytes) -> Bands:
    try:
        values = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # of a damaged header whatever its parser raises
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise QuintetError(f"is no NumPy array of numbers ({text})") from None
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.dtype.kind not in "buif" or not values.size:
        raise QuintetError(
            f"is an array of {values.dtype} of shape {values.shape}, not of numbers (height, width[, bands])"
        )
    if values.shape[0] < values.shape[2]:
        values = np.moveaxis(values, 0, -1)  # bands first
    return Bands(values.astype(np.uint8) if values.dtype.kind == "b" else values)


def _of_png(content: bytes) -> Bands:
    import imagecodecs  # loads many codecs, and few images need it

    width, height = _checked_png(content)
    _refuse_more_pixels(height, width)
    try:
        values = imagecodecs.png_decode(content)
    except Exception as error:  # a codec's own types, and what becomes of its message
        raise QuintetError(f"is damaged ({str(error).splitlines()[0]})") from None
    orientation = orientation_of(Image.open(io.BytesIO(content), formats=["PNG"]).getexif())
    return Bands(upright_array(values, orientation), values.shape[2] in (2, 4), orientation)


def _checked_png(content: bytes) -> tuple[int, int]:
    """Width and height of a PNG whose chunks are whole; raises QuintetError for others.

    A decoder gets to see only what was meant: damage is found by the checksum of each chunk.
    """
    place, kind = len(PNG), b""
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", content[place : place + 8].ljust(8, b"\0"))
        end = place + 12 + length
        if end > len(content):
            raise QuintetError("is truncated")
        if zlib.crc32(content[place + 4 : end - 4]) != int.from_bytes(content[end - 4 : end]):
            raise QuintetError(f"is damaged (wrong checksum at byte {place})")
        place = end
    return struct.unpack(">II", content[16:24])


def _of_tiff(content: bytes) -> Bands | None:
    """The first picture of a TIFF, unless Pillow reads it whole."""
    try:
        header = content[: 16 if content[2] == 43 or content[3] == 43 else 8]
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        file = io.BytesIO(content)
        file.seek(tags.next)
        tags.load(file)
        bits, samples = max(tags.get(BITS, (1,))), tags.get(SAMPLES, 1)
        kinds, extra, photometric = tags.get(FORMAT, (1,)), tags.get(EXTRA, ()), tags.get(PHOTOMETRIC)
    except (SyntaxError, struct.error, KeyError, TypeError, ValueError, IndexError) as error:
        raise QuintetError(f"is damaged ({error})") from None
    colours = {RGB: 3, CMYK: 4}.get(photometric, 1)
    alpha = samples == colours + 1 and bool(extra) and extra[0] in (1, 2)
    unnamed = samples > colours and not alpha  # bands of which the file does not say what they are
    if not unnamed and (samples == 1 or bits <= 8) and FLOATING not in kinds:
        return None
    values = _decoded_tiff(content)
    orientation = orientation_of(tags)
    upright = np.ascontiguousarray(upright_array(values, orientation))
    return Bands(upright, alpha and photometric != CMYK, orientation)


def _decoded_tiff(content: bytes) -> np.ndarray:
    try:
        import tifffile
    except ImportError:
        raise QuintetError("has bands that need tifffile: pip install tifffile") from None
    # What is wrong with a file is said once, and by us.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    try:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            page = file.pages[0]
            _refuse_more_pixels(page.imagelength, page.imagewidth)
            if page.nbytes > max(LARGE, DENSEST * len(content)):
                raise QuintetError(f"is said to hold {page.nbytes:,} bytes, more than its file can")
            values, axes = page.asarray(), page.axes
    except QuintetError:
        raise
    except Exception as error:  # tifffile raises what its decoders raise
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "imagecodecs" in text:
            raise QuintetError("is compressed in a way that needs another package: pip install imagecodecs") from None
        raise QuintetError(f"is damaged ({text})") from None
    if values.ndim == 2:
        return values[..., None]
    if values.ndim != 3 or "S" not in axes:
        raise QuintetError(f"is a TIFF of axes {axes}, not of one picture")
    return np.moveaxis(values, axes.index("S"), -1)


def orientation_of(tags: Mapping[int, Any]) -> int:
    """The orientation that EXIF or TIFF tags name, 1 to 8; 1, which turns nothing, where they name none."""
    found = tags.get(ExifTags.Base.Orientation, 1)
    return found if type(found) is int and 1 <= found <= 8 else 1


def upright_array(values: np.ndarray, orientation: int) -> np.ndarray:
    """The way up that the tag says: 5 to 8 swap the axes, then 2, 3, 6, 7 and 3, 4, 7, 8 mirror."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values[:, ::-1] if orientation in (2, 3, 6, 7) else values


def as_numbers(
    bands: Bands, channels: int, bit_depth: int, span: Sequence[float] | None = None
) -> Float[Tensor, "channels height width"]:
    """Values between black 0 and white 1, in as many channels as are asked for.

    Bytes are divided by 255, other whole numbers by 2^bit_depth - 1, fractions and numbers with a sign are brought
    from `span` to 0 and 1. Transparency is laid over white unless it is asked for as a channel; gray becomes three
    equal channels, colour becomes gray.

    Raises QuintetError, whose message lacks only the file's name, for other bands and for values beyond white.
    """
    values = bands.values
    if bands.numbers:
        if not np.isfinite(values).all():
            raise QuintetError("holds values that are not finite (NaN or infinity)")
        if span is None:
            raise QuintetError("holds fractions or numbers with a sign, whose black and white are not known")
        low, high = span
        scaled = (values.astype(np.float64) - low) / max(high - low, 1e-12)
    else:
        limit = 255 if values.dtype == np.uint8 else 2**bit_depth - 1
        if (found := int(values.max())) > limit:
            raise QuintetError(f"holds the value {found}, outside the 0..{limit} of {bit_depth}-bit images")
        scaled = values / limit
    pixels = torch.from_numpy(scaled.astype(np.float32)).permute(2, 0, 1)
    if len(pixels) == channels:
        return pixels.contiguous()
    if not bands.picture or channels not in (1, 3):
        raise QuintetError(f"has {len(pixels)} bands and not the {channels} of data.channels")
    if bands.alpha:
        pixels = pixels[:-1] * pixels[-1:] + (1 - pixels[-1:])
    if len(pixels) == channels:
        return pixels.contiguous()
    if channels == 3:
        return pixels.expand(3, -1, -1).contiguous()
    return (pixels * pixels.new_tensor(LUMA)[:, None, None]).sum(0, keepdim=True)
