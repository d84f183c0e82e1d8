"""Images with their masks: truth beside prediction with what is wrong, scores of each class, sheets of overlays.

Classes have the colours of their palette. Mistakes are orange over a gray image, for two classes told apart: what was
missed is orange, what was falsely found is purple (colours of Okabe and Ito).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor
from torch.nn import functional as F

from ...core.pictures.charts import name_in_legend, shortened
from ...core.pictures.chosen import Highest, UniformSample
from ...core.pictures.palette import NEUTRAL, PURPLE, RIGHT, WRONG

FALSE_ALARM = PURPLE
IGNORED = 255
LONGEST = 320  # pixels of the longer side of a kept image
KEPT = 64  # images of the uniform sample
ROWS = 6  # images of a picture with four columns
NAMED = 30  # classes up to which a legend names each one


@dataclass
class ShownMask:
    """An image (C, H, W) in [0, 1] with masks (H, W) of class indices; `score` is its mean IoU where truth is known."""

    image: Tensor
    predicted: Tensor
    true: Tensor | None = None
    score: float = math.nan
    name: str = ""


class MaskGallery:
    """A bounded choice of the images of a test: a uniform sample of all, the worst and the best.

    Args:
        display: turns an image (C, H, W) of a batch into one with values in [0, 1].
        size: how many worst and best ones are kept.
    """

    def __init__(self, display: Callable[[Tensor], Tensor], size: int = 2) -> None:
        self.display, self.size = display, size
        self.sample: UniformSample[ShownMask] = UniformSample(KEPT)
        self.worst: Highest[ShownMask] = Highest(size)
        self.best: Highest[ShownMask] = Highest(size)
        self.scores: list[float] = []

    def add(self, image: Tensor, predicted: Tensor, true: Tensor, score: float, name: str) -> None:
        """Considers an image as the network saw it, with predicted and true mask of one size."""
        (key,) = self.sample.keys(1)
        if not math.isnan(score):
            self.scores.append(score)
        if not (self.sample.admits(key) or self.worst.admits(-score) or self.best.admits(score)):
            return
        item = reduced(ShownMask(self.display(image), predicted.cpu(), true.cpu(), score, name))
        self.sample.offer(key, item)
        self.worst.offer(-score, item)
        self.best.offer(score, item)

    @property
    def images(self) -> list[ShownMask]:
        return self.sample.items

    def extremes(self) -> list[ShownMask]:
        """The worst, those in the middle, and the best, in this order."""
        scored = [item for item in self.images if not math.isnan(item.score)]
        if not scored:
            return []
        middle = float(np.median(self.scores))
        others = [item for item in scored if not any(item is known for known in (*self.worst.items, *self.best.items))]
        median = sorted(others, key=lambda item: abs(item.score - middle))[: self.size]
        return [*self.worst.items, *median, *reversed(self.best.items)]


def reduced(item: ShownMask) -> ShownMask:
    """A copy small enough to keep, image and masks of one size."""
    height, width = item.predicted.shape
    factor = min(1.0, LONGEST / max(height, width))
    size = (max(1, round(height * factor)), max(1, round(width * factor)))

    def mask(values: Tensor | None) -> Tensor | None:
        return None if values is None else F.interpolate(values[None, None].float(), size)[0, 0].to(torch.uint8)

    image = F.interpolate(item.image[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
    return ShownMask(image, mask(item.predicted), mask(item.true), item.score, item.name)


def painted(
    mask: UInt8[Tensor, "height width"], palette: Sequence[Sequence[int]]
) -> Float[np.ndarray, "height width 3"]:
    """A mask in the colours of its classes, in [0, 1]; ignored places are white."""
    colours = np.ones((256, 3))
    colours[: len(palette)] = np.array(palette) / 255
    return colours[mask.numpy()]


def overlaid(
    image: Float[Tensor, "channels height width"],
    mask: UInt8[Tensor, "height width"],
    palette: Sequence[Sequence[int]],
    strength: float = 0.5,
) -> Float[np.ndarray, "height width 3"]:
    """An image under its mask; ignored places show the image alone."""
    pixels = _rgb(image)
    covered = (mask.numpy() != IGNORED)[..., None] * strength
    return pixels * (1 - covered) + painted(mask, palette) * covered


def mistakes(item: ShownMask, classes: int) -> Float[np.ndarray, "height width 3"]:
    """The image in gray, and over it what is wrong."""
    gray = np.repeat(_rgb(item.image).mean(-1, keepdims=True), 3, axis=-1) * 0.6 + 0.4
    predicted, true = item.predicted.numpy(), item.true.numpy()
    counted = true != IGNORED
    wrong = counted & (predicted != true)
    gray[wrong] = to_rgb(WRONG)
    if classes == 2:
        gray[wrong & (predicted == 1)] = to_rgb(FALSE_ALARM)
    gray[~counted] = 1.0
    return gray


def mask_rows(
    items: Sequence[ShownMask], classes: Sequence[str], palette: Sequence[Sequence[int]], title: str
) -> Figure:
    """One row an image: image, truth, prediction with its mean IoU, and what is wrong."""
    rows = max(1, len(items))
    height, width = items[0].predicted.shape if items else (3, 4)
    side = 2.7
    legend = 0.3 * _legend_rows(classes) + 0.3
    figure = Figure(figsize=(4 * side + 0.3, rows * (side * min(1.3, height / width) + 0.12) + 0.9 + legend))
    figure.set_layout_engine("constrained")
    figure.suptitle(title, fontsize=11, parse_math=False)
    panels = figure.subplots(rows, 4, squeeze=False)
    for row, item in zip(panels, items):
        drawn = (_rgb(item.image), painted(item.true, palette), painted(item.predicted, palette))
        for panel, pixels in zip(row, (*drawn, mistakes(item, len(classes)))):
            _show(panel, pixels)
        row[0].set_ylabel(shortened(item.name, 40), fontsize=7, parse_math=False)
        row[2].set_xlabel("" if math.isnan(item.score) else f"mean IoU {item.score:.0%}", fontsize=9)
        counted = item.true != IGNORED
        wrong = ((item.predicted != item.true) & counted).sum().item() / max(1, counted.sum().item())
        row[3].set_xlabel(f"{wrong:.0%} of the pixels wrong", fontsize=9)
    for panel, name in zip(panels[0], ("image", "truth", "prediction", "error")):
        panel.set_title(name, fontsize=10)
    extra = [Patch(color=WRONG, label="missed"), Patch(color=FALSE_ALARM, label="false alarm")]
    _legend(figure, classes, palette, extra if len(classes) == 2 else [Patch(color=WRONG, label="wrong")])
    return figure


def overlay_grid(
    items: Sequence[ShownMask], classes: Sequence[str], palette: Sequence[Sequence[int]], title: str, columns: int = 4
) -> Figure:
    """Images under their masks, predicted or true."""
    columns = min(columns, max(1, len(items)))
    rows = max(1, math.ceil(len(items) / columns))
    height, width = items[0].predicted.shape if items else (3, 4)
    side = 2.7
    figure = Figure(
        figsize=(
            columns * side + 0.3,
            rows * (side * min(1.3, height / width) + 0.22) + 0.6 + 0.25 * _legend_rows(classes),
        )
    )
    figure.set_layout_engine("constrained")
    figure.suptitle(title, fontsize=11, parse_math=False)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels:
        panel.set_axis_off()
    for panel, item in zip(panels, items):
        panel.imshow(overlaid(item.image, item.predicted, palette), interpolation="nearest")
        panel.set_title(shortened(item.name, 40), fontsize=8, parse_math=False)
    _legend(figure, classes, palette, [])
    return figure


def class_bars(
    scores: Float[Tensor, " classes"],
    shares: Float[Tensor, " classes"],
    classes: Sequence[str],
    title: str,
    measure: str = "intersection over union",
    of: str = "true pixels",
) -> Figure:
    """A score of each class, the lowest at the bottom, beside its share of what was measured.

    Args:
        scores: NaN for classes that occur nowhere.
        shares: of the true pixels or images.
        classes: their names.
        title: of the picture.
        measure: what the scores are.
        of: what the shares are of.
    """
    order = sorted(range(len(classes)), key=lambda index: (not math.isnan(scores[index]), scores[index].item()))
    order = order[-60:]
    figure = Figure(figsize=(8.4, max(2.2, 0.3 * len(order) + 1.2)), layout="constrained")
    figure.suptitle(title, fontsize=11, parse_math=False)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    places = range(len(order))
    values = [scores[index].item() for index in order]
    left.barh(places, [0 if math.isnan(value) else value for value in values], color=RIGHT)
    for place, value in zip(places, values):
        text = "occurs nowhere" if math.isnan(value) else f"{value:.1%}"
        left.text(0.01 if math.isnan(value) else value + 0.01, place, text, va="center", fontsize=9, color=NEUTRAL)
    left.set(xlim=(0, 1.12), xlabel=measure, xticks=(0, 0.25, 0.5, 0.75, 1))
    left.set_yticks(places, [classes[index] for index in order], fontsize=9, parse_math=False)
    mean = float(np.nanmean(scores.numpy())) if not scores.isnan().all() else math.nan
    if not math.isnan(mean):
        left.axvline(mean, color=WRONG, linewidth=1.2, linestyle="--")
        left.text(mean + 0.01, len(order) - 0.4, f"mean {mean:.1%}", color=WRONG, fontsize=8, va="bottom")
    right.barh(places, [shares[index].item() for index in order], color="#999999")
    right.set(xlabel=f"share of the {of}")
    right.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def _rgb(image: Tensor) -> np.ndarray:
    pixels = image.permute(1, 2, 0).numpy()
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[..., :3]


def _show(panel: Axes, pixels: np.ndarray) -> None:
    panel.imshow(pixels, interpolation="nearest")
    panel.set_xticks([])
    panel.set_yticks([])
    panel.spines[:].set_visible(False)


def _legend_rows(classes: Sequence[str]) -> int:
    return math.ceil(min(len(classes), NAMED) / 7)


def _legend(figure: Figure, classes: Sequence[str], palette: Sequence[Sequence[int]], extra: Sequence[Patch]) -> None:
    """The colours of the classes below the picture; of very many the first."""
    handles = [
        Patch(facecolor=np.array(colour) / 255, edgecolor="#999999", label=name)
        for name, colour in list(zip(classes, palette))[:NAMED]
    ]
    if len(classes) > NAMED:
        handles.append(Patch(alpha=0, label=f"and {len(classes) - NAMED} more"))
    entries = [*handles, *extra]
    names = [entry.get_label() for entry in entries]
    look = {"ncols": min(7, len(entries)), "frameon": False, "fontsize": 8}
    name_in_legend(figure, entries, names, loc="outside lower center", **look)
