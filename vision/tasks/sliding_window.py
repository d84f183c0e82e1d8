"""Prediction of images of any size by a window that slides over them, in memory that their height does not change."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor


def positions(length: int, window: int, overlap: float) -> list[int]:
    """Where windows begin so that they cover `length`, evenly and sharing at least `overlap` of their length."""
    if length <= window:
        return [0]
    step = max(1, int(window * (1 - overlap)))
    number = -(-(length - window) // step) + 1
    return [round(index * (length - window) / (number - 1)) for index in range(number)]


def slide(
    probabilities: Callable[[Tensor], Tensor],
    image: Float[Tensor, "channels height width"],
    window: tuple[int, int],
    overlap: float = 0.25,
    batch: int = 4,
) -> Iterator[tuple[int, Float[Tensor, "classes rows width"]]]:
    """Bands of class probabilities from top to bottom, each with the number of its first row.

    Overlapping windows are averaged with weights that fall linearly towards their borders. Only the rows that further
    windows can still change are kept: memory is (classes, window height, image width), whatever the image's height.
    An image smaller than the window is padded with zeros at the right and at the bottom.

    Args:
        probabilities: from images (batch, channels, *window) to class probabilities (batch, classes, *window).
        image: one image.
        window: height and width.
        overlap: share of a window that its neighbour sees too, below 1.
        batch: windows looked at together.
    """
    height, width = image.shape[-2:]
    rows, columns = window
    padded = F.pad(image, (0, max(0, columns - width), 0, max(0, rows - height)))
    tops, lefts = (positions(size, side, overlap) for size, side in zip(padded.shape[-2:], window))
    weights = _falling(rows, image.device)[:, None] * _falling(columns, image.device)
    sums = mass = None
    for index, top in enumerate(tops):
        for start in range(0, len(lefts), batch):
            chosen = lefts[start : start + batch]
            seen = probabilities(torch.stack([padded[:, top : top + rows, left : left + columns] for left in chosen]))
            if sums is None:
                sums = seen.new_zeros(seen.shape[1], rows, padded.shape[-1], dtype=torch.float32)
                mass = sums.new_zeros(rows, padded.shape[-1])
            for left, found in zip(chosen, seen):
                sums[..., left : left + columns] += weights * found
                mass[:, left : left + columns] += weights
        final = tops[index + 1] - top if index + 1 < len(tops) else rows
        end = min(final, height - top)
        yield top, sums[:, :end, :width] / mass[:end, :width]
        # What the next windows still change moves up.
        sums = torch.cat([sums[:, final:], torch.zeros_like(sums[:, :final])], dim=1)
        mass = torch.cat([mass[final:], torch.zeros_like(mass[:final])])


def enlarged_classes(
    probabilities: Float[Tensor, "classes rows columns"], size: tuple[int, int], elements: int = 2**24
) -> UInt8[Tensor, "height width"]:
    """The most probable class of each pixel after bilinear resampling to `size`, of a band of rows at a time.

    Args:
        probabilities: of each class; at most 256 of them.
        size: height and width of the result.
        elements: of the largest tensor made on the way.
    """
    classes, rows, columns = probabilities.shape
    height, width = size
    if (rows, columns) == (height, width):
        return probabilities.argmax(0).to(torch.uint8)
    wide = F.interpolate(probabilities[None], (rows, width), mode="bilinear", align_corners=False)[0]
    centres = ((torch.arange(height, device=wide.device) + 0.5) * rows / height - 0.5).clamp(0, rows - 1)
    above = centres.long()
    below = (above + 1).clamp(max=rows - 1)
    share = (centres - above).to(wide.dtype)[:, None]
    band = max(1, elements // (classes * width))
    bands = [
        torch.lerp(
            wide[:, above[start : start + band]], wide[:, below[start : start + band]], share[start : start + band]
        )
        .argmax(0)
        .to(torch.uint8)
        for start in range(0, height, band)
    ]
    return torch.cat(bands)


def _falling(length: int, device: torch.device) -> Tensor:
    """1 in the middle, falling linearly to 1 / length at both ends; never 0, so that every pixel has a weight."""
    places = torch.arange(length, device=device, dtype=torch.float32)
    return 1 - (places - (length - 1) / 2).abs() * 2 / (length + 1)
