"""Images that Pillow would cut down or refuse: many bands, more than 8 bits in colour, fractions.

TIFF is read by tifffile, PNG of 16 bits in colour by torchvision, .npy by NumPy; whatever Pillow holds whole is left
to Pillow.
"""

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import ExifTags, TiffImagePlugin
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from ...core.errors import QuintetError

PNG, NUMPY, TIFF = b"\x89PNG\r\n\x1a\n", b"\x93NUMPY", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Tags of TIFF.
BITS, PHOTOMETRIC, SAMPLES, EXTRA, FORMAT = 258, 262, 277, 338, 339
RGB, CMYK = 2, 5
FLOATING = 3
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow weighs red, green and blue


@dataclass(frozen=True)
class Bands:
    """Values (height, width, bands) as a file holds them; whether the last band is transparency."""

    values: np.ndarray
    alpha: bool = False

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


def _of_numpy(content: bytes) -> Bands:
    try:
        values = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise QuintetError(f"is no NumPy array of numbers ({str(error).splitlines()[0]})") from None
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
    try:
        values = decode_image(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.UNCHANGED)
    except RuntimeError as error:
        raise QuintetError(f"is damaged ({str(error).splitlines()[0]})") from None
    return Bands(values.permute(1, 2, 0).numpy(), alpha=len(values) in (2, 4))


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
    orientation = tags.get(ExifTags.Base.Orientation, 1)
    return Bands(np.ascontiguousarray(_upright(values, orientation)), alpha and photometric != CMYK)


def _decoded_tiff(content: bytes) -> np.ndarray:
    try:
        import tifffile
    except ImportError:
        raise QuintetError("has bands that need tifffile: pip install tifffile") from None
    try:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            page = file.pages[0]
            values, axes = page.asarray(), page.axes
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


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
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
