"""What an image is to a task: its description, its sample, and reading a file as a picture or as numbers."""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from ...core.errors import QuintetError
from .bands import Bands, as_numbers, read_bands
from .files import content_of, image_formats

UNLABELLED = -1
MOST_SEEN = 1 << 25  # pixels of what a network sees: 5,792 x 5,792, in which an image of three channels is 400 MB

# Statistics that published weights were trained with; gray is the mean over the colours.
NORMALIZATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}

DEEP_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")  # grayscale of more than 8 bits


def height_and_width(image_size: int | Sequence[int]) -> list[int]:
    """The option data.image_size, one number or two, as two. Raises QuintetError for others."""
    sides = [image_size] * 2 if isinstance(image_size, int) else list(image_size)
    if len(sides) != 2 or min(sides) < 1:
        raise QuintetError(f"data.image_size is {image_size}; give one positive number, or height and width")
    return sides


def check_channels(channels: int, normalization: str) -> None:
    """Raises QuintetError for the option data.channels where it is none, or where no published statistics fit it."""
    if channels < 1:
        raise QuintetError(f"data.channels is {channels}; give the number of bands an image has")
    if channels not in (1, 3) and normalization != "data":
        raise QuintetError(
            f"data.normalization={normalization} is of red, green and blue; with data.channels={channels} give "
            "data.normalization=data"
        )


def published_statistics(normalization: str, channels: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel that published weights were trained with."""
    mean, std = NORMALIZATIONS[normalization]
    return ([*mean], [*std]) if channels == 3 else ([sum(mean) / 3], [sum(std) / 3])


@dataclass
class ImageDescription:
    """What a classifier must know of its images.

    Args:
        classes: names, in the order of the labels.
        channels: 1 for grayscale, 3 for RGB, else the number of bands.
        image_size: height and width the network sees.
        mean: one value a channel, subtracted from values in [0, 1].
        std: one value a channel, divided by afterwards.
        class_counts: training images of each class.
        bit_depth: bits that images of more than 8 bits really use; they are divided by 2^bit_depth - 1.
        fit: how an image of another shape is brought to `image_size`: crop, pad or stretch.
        multi_label: an image may have several classes, or none.
        training_images: their number; None where it was not counted.
        span: what is 0 and what is 1 in images of fractions or of numbers with a sign; None where there are none.
    """

    together: ClassVar[tuple[tuple[str, ...], ...]] = (("mean", "std"), ("classes", "class_counts"))

    classes: list[str]
    channels: int
    image_size: list[int]
    mean: list[float]
    std: list[float]
    class_counts: list[int]
    bit_depth: int = 8
    fit: str = "crop"
    span: list[float] | None = None
    multi_label: bool = False
    training_images: int | None = None

    def __post_init__(self) -> None:
        # A checkpoint says it, and every image would be brought to it.
        if len(self.image_size) != 2 or min(self.image_size) < 1 or math.prod(self.image_size) > MOST_SEEN:
            raise QuintetError(f"image_size is {self.image_size}; give a height and a width that fit into memory")

    @property
    def numbers(self) -> bool:
        """Whether images are read as numbers in full precision, and not as 8-bit pictures of Pillow."""
        return self.channels not in (1, 3) or self.bit_depth > 8 or self.span is not None


class ImageSample(NamedTuple):
    """An image with its label (-1 where unknown) and where it came from; a batch has the same fields, collated."""

    image: Any
    label: Any
    path: Any


class OnImage:
    """Applies a transform to the image of a sample and leaves label and path alone."""

    def __init__(self, transform: Callable[[Any], Any]) -> None:
        self.transform = transform

    def __call__(self, sample: ImageSample) -> ImageSample:
        return sample._replace(image=self.transform(sample.image))


class ImageFiles(Dataset):
    """Image files with labels, read when asked for.

    Args:
        paths: the files.
        labels: one a file, -1 where unknown; of several labels an image, a vector of zeros and ones each.
        description: how to read them (channels, size, bit depth).
        transform: applied to each image as `load_image` returns it; None hands that out.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        labels: Sequence[int] | Sequence[Tensor],
        description: ImageDescription,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self.paths, self.labels = list(paths), list(labels)
        self.description = description
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> ImageSample:
        path = self.paths[index]
        # Twice the size the network sees keeps a random crop sharp; a large JPEG is decoded at a fraction of its cost.
        image = load_image(path, self.description, at_least=2 * max(self.description.image_size))
        return ImageSample(self.transform(image) if self.transform else image, self.labels[index], str(path))


class ImagesInMemory(Dataset):
    """Images that lie in memory as one float tensor (N, C, H, W), with labels and names."""

    def __init__(self, images: Tensor, labels: Sequence[int], names: Sequence[str]) -> None:
        self.images, self.labels, self.names = images, list(labels), list(names)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> ImageSample:
        return ImageSample(self.images[index], self.labels[index], self.names[index])


def load_image(
    path: str | Path, description: ImageDescription, at_least: int | None = None
) -> Image.Image | Float[Tensor, "channels height width"]:
    """An image as a model of this description sees files: an 8-bit picture, or numbers (quintet.vision.data.bands).

    Raises QuintetError for files that cannot be read so; `at_least` is that of `read_image`.
    """
    if not description.numbers:
        return read_image(path, description.channels, at_least, description.bit_depth)
    content = content_of(path)
    try:
        found = bands_of(content, description.channels, signed=description.span is not None)
        return as_numbers(found, description.channels, description.bit_depth, description.span)
    except QuintetError as error:
        raise QuintetError(f"{path} {error}") from None


def display_image(path: str | Path, description: ImageDescription) -> Image.Image:
    """An image as RGB for a person to look at; of several bands the first three, or the first of two."""
    image = load_image(path, description)
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    pixels = (visible(image).clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]).convert("RGB")


def visible(image: Float[Tensor, "*batch channels height width"]) -> Float[Tensor, "*batch shown height width"]:
    """Of more bands than three the first three, of two the first."""
    channels = image.shape[-3]
    return image if channels in (1, 3) else image[..., : 3 if channels > 3 else 1, :, :]


def bands_of(content: bytes, channels: int, signed: bool = False) -> Bands:
    """The values of any image file, upright; pictures in gray or RGB unless they have just so many `channels`.

    Of formats that keep no sign apart, `signed` says whether numbers without one are of the same kind as those with.
    """
    found = read_bands(content)
    if found is not None:
        return found
    image = open_image(content)
    if image.mode not in (*DEEP_MODES, "F"):
        if channels in (1, 3) or len(image.getbands()) != channels:
            return Bands(_with_bands(np.asarray(upright(image, 1 if channels == 1 else 3))))
        ImageOps.exif_transpose(image, in_place=True)
        return Bands(_with_bands(np.asarray(image)))
    ImageOps.exif_transpose(image, in_place=True)
    values = _with_bands(np.asarray(image))
    signed = signed and image.mode == "I"
    return Bands(values if image.mode == "F" or signed or values.min() < 0 else values.astype(np.uint32))


def _with_bands(values: np.ndarray) -> np.ndarray:
    return values[..., None] if values.ndim == 2 else values


def read_image(path: str | Path, channels: int = 3, at_least: int | None = None, bit_depth: int = 16) -> Image.Image:
    """Reads any image of gray or colour as 8-bit RGB or grayscale, upright.

    The EXIF orientation is applied, palettes and CMYK are converted, transparency is laid over white, of several frames
    the first is taken, and values of more than 8 bits are divided by 2^bit_depth - 1.

    Args:
        path: the file.
        channels: 3 for RGB, 1 for grayscale.
        at_least: lets a JPEG be decoded at 1/2, 1/4 or 1/8 size as long as both sides keep this many pixels.
        bit_depth: bits that images of more than 8 bits really use.

    Raises:
        QuintetError: the file is empty, damaged, truncated or of a mode that has no meaning as a photograph.
    """
    content = content_of(path)
    try:
        deep = read_bands(content)
        if deep is not None:
            pixels = (as_numbers(deep, channels, bit_depth) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            return Image.fromarray(pixels if channels == 3 else pixels[..., 0])
        return upright(open_image(content, at_least, gray=channels == 1), channels, bit_depth)
    except QuintetError as error:
        raise QuintetError(f"{path} {error}") from None


def open_image(content: bytes, at_least: int | None = None, gray: bool = False) -> Image.Image:
    """Decodes the bytes of a file whole, as they are; raises QuintetError whose message lacks only the file's name."""
    if not content:
        raise QuintetError("is empty (0 bytes)")
    try:
        image = Image.open(io.BytesIO(content), formats=image_formats())
        if at_least is not None and image.format in ("JPEG", "MPO"):
            image.draft("L" if gray and image.mode in ("L", "RGB") else None, (at_least, at_least))
        image.load()
    except UnidentifiedImageError:
        raise QuintetError("is not an image Pillow knows") from None
    except Image.DecompressionBombError:
        raise QuintetError("has too many pixels to be opened safely") from None
    except Exception as error:  # every format plugin raises its own types for damaged content
        text = str(error).split("\n")[0] or type(error).__name__
        raise QuintetError("is truncated" if "truncated" in text.lower() else f"is damaged ({text})") from None
    return image


def upright(image: Image.Image, channels: int = 3, bit_depth: int = 16) -> Image.Image:
    """8-bit RGB or grayscale, the way up its EXIF orientation says; raises QuintetError for modes without a meaning."""
    # Before any conversion: not every conversion keeps the EXIF block.
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in DEEP_MODES:
        values = np.asarray(image).astype(np.float64)
        limit = 2**bit_depth - 1
        if values.min() < 0 or values.max() > limit:
            found = int(values.min() if values.min() < 0 else values.max())
            raise QuintetError(f"holds the value {found}, outside the 0..{limit} of {bit_depth}-bit images")
        image = Image.fromarray(np.rint(values * (255 / limit)).astype(np.uint8))
    elif image.mode == "F":
        raise QuintetError("holds floating point numbers, whose range for black and white is not known")
    target = "L" if channels == 1 else "RGB"
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        image = Image.new("RGBA", layered.size, "white")
        image.alpha_composite(layered)
    try:
        return image if image.mode == target else image.convert(target)
    except ValueError as error:
        raise QuintetError(f"has mode {image.mode}, which cannot become {target} ({error})") from None


def channel_statistics(images: Dataset) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over all samples of a dataset."""
    sums = 0
    for index in range(len(images)):
        pixels = images[index].image.double().flatten(1)
        sums = sums + torch.stack((pixels.mean(1), pixels.square().mean(1))) / len(images)
    deviation = (sums[1] - sums[0].square()).clamp(min=0).sqrt()
    return sums[0].tolist(), deviation.clamp(min=1e-3).tolist()


def denormalize(images: Tensor, description: ImageDescription) -> Tensor:
    """Undoes the normalization of a batch (B, C, H, W): values in [0, 1] for display, of many bands the first three."""
    mean, std = (
        torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (description.mean, description.std)
    )
    return visible(images.detach().float().cpu() * std + mean).clamp(0, 1)
