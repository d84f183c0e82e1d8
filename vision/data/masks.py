"""What a mask is to a task: reading its class ids, what is known of all of them, and the sample of image and mask.

In files a class has an id; in tensors it has an index, 0 to the number of classes, and `IGNORED` marks pixels that
count nowhere.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import Dataset, default_collate

from ...core.errors import QuintetError
from .bands import NUMPY, orientation_of, read_bands, upright_array
from .files import bytes_of, content_of
from .images import DEEP_MODES, ImageDescription, load_image, open_image

IGNORED = 255
MOST_CLASSES = 255  # an index is one byte, and one value of it is taken


@dataclass
class MaskDescription(ImageDescription):
    """What a segmenter must know of its images and masks; `class_counts` are pixels of the training masks.

    Args:
        ids: the value in mask files of each class.
        ignored_ids: values in mask files that count nowhere.
        palette: red, green and blue of each class.
        fit: "stretch" resizes every image to `image_size`, "window" leaves images as they are and looks at windows.
    """

    ids: list[int] = field(default_factory=list)
    ignored_ids: list[int] = field(default_factory=list)
    palette: list[list[int]] = field(default_factory=list)


class MaskSample(NamedTuple):
    """An image with its mask of class indices (None where unknown), its file, and the file's height and width.

    In a batch, images and masks are stacked where they have one size and lists where they do not.
    """

    image: Any
    mask: Any
    path: Any
    size: Any


@dataclass(frozen=True)
class MaskFacts:
    """What a decoded mask is: size, Pillow mode, sha256 of its bytes, pixels of each id, and colours of its palette.

    `turned` says that the file itself names the way up it is seen.
    """

    width: int
    height: int
    mode: str
    digest: str
    pixels: Mapping[str, int]
    palette: Sequence[int] | None = None
    turned: bool = False

    @property
    def ids(self) -> dict[int, int]:
        return {int(value): count for value, count in self.pixels.items()}


def read_mask(path: str | Path, threshold: int | None = None, orientation: int = 1) -> np.ndarray:
    """Class ids (height, width) of a mask file: indices of a palette, or the gray values themselves.

    Args:
        path: the file.
        threshold: gray values from here on are 255, lower ones 0, as they are seen: palettes by their colours.
        orientation: EXIF's, of the image on whose stored pixels the mask was drawn; it is turned as that image is.

    Raises QuintetError for files that are empty, damaged, compressed with loss (unless there is a threshold), or that
    hold colours without a palette.
    """
    content = content_of(path)
    try:
        return upright_array(_decoded(content, threshold)[0], orientation)
    except QuintetError as error:
        raise QuintetError(f"{path} {error}") from None


def _decoded(content: bytes, threshold: int | None) -> tuple[np.ndarray, str, list[int] | None, bool]:
    """Ids, mode, colours of the palette, if any, and whether the file says which way is up.

    Raises QuintetError whose message lacks only the file's name.
    """
    if content.startswith(NUMPY):
        bands = read_bands(content)
        return _parted(_ids(bands.values, bands.alpha), threshold), bands.mode, None, False
    image = open_image(content)
    mode = image.mode
    palette = image.getpalette("RGB") if mode == "P" and threshold is None else None  # a threshold makes other ids
    turned = orientation_of(image.getexif()) != 1
    return ids_of(image, threshold), mode, palette, turned


def ids_of(image: Image.Image, threshold: int | None = None) -> np.ndarray:
    """The ids of a decoded mask; raises QuintetError whose message lacks only the file's name."""
    if image.format in ("JPEG", "MPO") and threshold is None:
        raise QuintetError(
            "is a JPEG, whose compression changes class ids (data.threshold=128 reads dark and bright as two classes)"
        )
    _refuse_frames(image)
    ImageOps.exif_transpose(image, in_place=True)
    if threshold is not None and image.mode not in (*DEEP_MODES, "F"):
        image = image.convert("L")
    return _parted(_ids(np.asarray(image), image.mode in ("LA", "PA", "RGBA")), threshold)


def _refuse_frames(image: Image.Image) -> None:
    """Raises QuintetError for several pictures of one size: one of them is the mask. Smaller ones are previews."""
    if (frames := getattr(image, "n_frames", 1)) < 2:
        return
    size = image.size
    image.seek(1)
    if image.size == size:
        raise QuintetError(f"holds {frames} frames, of which one alone can be the mask; export that")
    image.seek(0)


def _parted(values: np.ndarray, threshold: int | None) -> np.ndarray:
    return values if threshold is None else np.where(values >= threshold, 255, 0).astype(np.uint8)


def _ids(values: np.ndarray, alpha: bool = False) -> np.ndarray:
    if values.ndim == 3:
        # Gray saved as RGB, with or without an alpha channel that says nothing.
        alpha = alpha or (values.shape[2] == 4 and bool((values[..., 3] == 255).all()))
        colours = values[..., :-1] if alpha else values
        if (colours != colours[..., :1]).any():
            raise QuintetError(
                "holds colours and no palette, so that they name no class"
                if colours.shape[2] == 3
                else f"holds {colours.shape[2]} bands that differ, so that none of them alone is the mask"
            )
        if alpha and (hidden := values[..., -1] < values[..., -1].max()).any() and colours[hidden].any():
            raise QuintetError("is transparent in places where it holds ids; export it without transparency")
        values = colours[..., 0]
    if values.dtype == np.bool_:
        values = values.astype(np.uint8)
    if values.dtype.kind == "f":
        if (values != np.rint(values)).any():
            raise QuintetError("holds fractions, not class ids")
        values = values.astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise QuintetError(f"holds values from {values.min()} to {values.max()}, and class ids lie in 0 to 65535")
    return values


def facts_of_mask(path: Path, threshold: int | None = None) -> MaskFacts | str:
    """Facts of one mask, or what is wrong with it; `threshold` is that of `read_mask`."""
    try:
        content = bytes_of(path)
    except QuintetError as error:
        return str(error)
    try:
        values, mode, palette, turned = _decoded(content, threshold)
        ids, counts = np.unique(values, return_counts=True)
    except QuintetError as error:
        return str(error)
    except Exception as error:  # a damaged EXIF block
        return f"is damaged ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    pixels = {str(value): count for value, count in zip(ids.tolist(), counts.tolist(), strict=True)}
    height, width = values.shape
    return MaskFacts(width, height, mode, hashlib.sha256(content).hexdigest(), pixels, palette, turned)


@dataclass(frozen=True)
class MaskReader:
    """Reads masks as `read_mask` does, each with the `orientations` of its file, and one `threshold` for all."""

    threshold: int | None = None
    orientations: Mapping[Path, int] = field(default_factory=dict)

    def __call__(self, path: Path) -> np.ndarray:
        return read_mask(path, self.threshold, self.orientations.get(path, 1))


def index_table(description: MaskDescription) -> np.ndarray:
    """Class index of every id from 0 to 65535; `IGNORED` for those that are none."""
    table = np.full(65536, IGNORED, np.uint8)
    table[description.ids] = np.arange(len(description.ids), dtype=np.uint8)
    return table


class MaskFiles(Dataset):
    """Image files with their masks, read when asked for.

    Args:
        images: the files.
        masks: one an image, or None for all of them.
        description: how to read them.
        transform: from (image as `load_image` returns it, mask or None) to what the sample holds of them.
        read: from a mask's file to its ids.
    """

    def __init__(
        self,
        images: Sequence[Path],
        masks: Sequence[Path] | None,
        description: MaskDescription,
        transform: Callable[[Any, np.ndarray | None], tuple[Any, Any]] | None = None,
        read: Callable[[Path], np.ndarray] = read_mask,
    ) -> None:
        self.images, self.masks = list(images), None if masks is None else list(masks)
        self.description = description
        self.transform, self.read = transform, read
        self.table = index_table(description)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> MaskSample:
        path, known = self.images[index], self.description
        image = load_image(path, known)
        size = tuple(image.shape[-2:]) if isinstance(image, torch.Tensor) else (image.height, image.width)
        mask = None if self.masks is None else self.table[self.read(self.masks[index])]
        sample = MaskSample(image, mask, str(path), size)
        if self.transform is None:
            return sample
        image, mask = self.transform(image, mask)
        return sample._replace(image=image, mask=mask)


def collate_masks(samples: Sequence[MaskSample]) -> MaskSample:
    """A batch; images and masks of different sizes stay lists."""

    def together(items: list[Any]) -> Any:
        if items[0] is None:
            return None
        return default_collate(items) if len({item.shape for item in items}) == 1 else items

    images, masks, paths, sizes = zip(*samples, strict=True)
    return MaskSample(together(list(images)), together(list(masks)), list(paths), [tuple(size) for size in sizes])


def distinct_colours(number: int) -> list[list[int]]:
    """Colours of PASCAL VOC's palette: the bits of an index, spread over red, green and blue from the top down."""
    index = np.arange(number)
    colours = np.zeros((number, 3), np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    return colours.tolist()


def mask_image(indices: torch.Tensor | np.ndarray, description: MaskDescription) -> Image.Image:
    """A mask of class indices as a file: the ids the model was trained on, in the colours of its palette.

    Where an id needs more than a byte, a 16-bit image without colours.
    """
    indices = np.asarray(indices)
    ids = np.array(description.ids)
    if ids.max() > 255:
        return Image.fromarray(ids[indices].astype(np.uint16))
    image = Image.fromarray(ids[indices].astype(np.uint8)).convert("L")
    colours = np.zeros((256, 3), np.uint8)
    colours[ids] = description.palette
    image.putpalette(colours.ravel().tolist())
    return image
