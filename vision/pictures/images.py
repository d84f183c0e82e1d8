"""What a person looks at: images with their predictions, the confusion matrix, the most confident mistakes.

Blue means right and orange means wrong (colours of Okabe and Ito that every kind of colour vision tells apart), always
with a mark beside them, so that nothing depends on colour alone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from torch import Tensor

RIGHT, WRONG, NEUTRAL = "#0072B2", "#D55E00", "#333333"
BLUES = LinearSegmentedColormap.from_list("blues", ["#FFFFFF", "#9CCBE6", "#0072B2", "#003A5C"])
SHOWN = 24  # images of a grid
NAMED = 40  # classes up to which a confusion matrix names each one
COUNTED = 20  # classes up to which it writes the counts


@dataclass
class Shown:
    """One image of a grid: pixels (C, H, W) in [0, 1], what was predicted and, where it is known, what is true."""

    image: Tensor
    predicted: int
    confidence: float
    true: int | None = None

    @property
    def wrong(self) -> bool:
        return self.true is not None and self.true != self.predicted


class Gallery:
    """A bounded choice of the images of a test: a uniform sample of all, and the wrong ones with most confidence.

    Args:
        display: turns an image (C, H, W) of a batch into one with values in [0, 1]; applied to those that are kept.
        size: how many images of each kind are kept.
    """

    def __init__(self, display: Callable[[Tensor], Tensor], size: int = SHOWN) -> None:
        self.display = display
        self.size = size
        self.sample: list[tuple[float, Shown]] = []
        self.mistakes: list[Shown] = []
        # Its own generator: collecting pictures must not shift the randomness of anything else.
        self._generator = torch.Generator().manual_seed(0)

    def add(self, images: Tensor, probabilities: Tensor, labels: Tensor) -> None:
        """Considers a batch: images (B, C, H, W), class probabilities (B, K) and labels (B)."""
        confidences, predictions = probabilities.detach().float().cpu().max(1)
        items = [
            Shown(image, predicted, confidence, true)
            for image, predicted, confidence, true in zip(
                images, predictions.tolist(), confidences.tolist(), labels.tolist(), strict=True
            )
        ]
        # The smallest random keys of all seen so far are a uniform sample, however many batches there are.
        keys = torch.rand(len(items), generator=self._generator).tolist()
        drawn = sorted([*self.sample, *zip(keys, items, strict=True)], key=lambda pair: pair[0])
        self.sample = drawn[: self.size]
        mistakes = sorted([*self.mistakes, *(item for item in items if item.wrong)], key=lambda item: -item.confidence)
        self.mistakes = mistakes[: self.size]
        kept = {id(item) for item in [*self.images, *self.mistakes]}
        for item in items:
            if id(item) in kept:
                # A copy: a view would keep its whole batch in memory.
                item.image = self.display(item.image).clone()

    @property
    def images(self) -> list[Shown]:
        return [item for _, item in self.sample]


def image_grid(items: Sequence[Shown], classes: Sequence[str], title: str) -> Figure:
    """Images in rows of six, each under its prediction and probability, and under what is true where that differs."""
    columns = min(6, max(1, len(items)))
    rows = max(1, math.ceil(len(items) / columns))
    figure = Figure(figsize=(1.75 * columns + 0.2, 2.15 * rows + 0.5), layout="constrained")
    figure.suptitle(title, fontsize=11, parse_math=False)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels:
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_visible(False)
    for panel, item in zip(panels, items):
        _draw(panel, item.image)
        known = item.true is not None
        colour = WRONG if item.wrong else RIGHT if known else NEUTRAL
        panel.spines[:].set(visible=known, color=colour, linewidth=2.5 if item.wrong else 1.2)
        mark = ("\N{BALLOT X} " if item.wrong else "\N{CHECK MARK} ") if known else ""
        text = f"{mark}{_shortened(classes[item.predicted])} ({item.confidence:.0%})"
        if item.wrong:
            text += f"\ntrue: {_shortened(classes[item.true])}"
        panel.set_title(text, fontsize=9, color=colour, parse_math=False)
    return figure


def confusion_matrix(
    counts: Int[Tensor, "classes classes"], classes: Sequence[str], what: str = "test images"
) -> Figure:
    """Rows are true classes, columns predicted ones; colour is the share of the row, numbers are counts.

    Counts of more than five digits are written as shares of their row. With many classes the numbers, and then the
    names, are left out and the most frequent confusions are listed beside.

    Args:
        counts: of each pair of classes.
        classes: their names.
        what: is counted, for the title.
    """
    number = len(classes)
    values = counts.cpu().numpy()
    shares = values / np.maximum(values.sum(1, keepdims=True), 1)
    side = min(11.0, max(4.2, 0.42 * number + 1.6))
    figure = Figure(figsize=(side + 3.2, side), layout="constrained")
    panel, aside = figure.subplots(1, 2, width_ratios=(side, 2.6))
    # The square root of the share, so that rare confusions are seen beside a full diagonal.
    image = panel.imshow(shares, cmap=BLUES, norm=PowerNorm(0.5, 0, 1))
    panel.set(xlabel="predicted", ylabel="true")
    panel.set_title(f"{values.trace() / max(values.sum(), 1):.1%} of {values.sum():,} {what} right", fontsize=11)
    if number <= NAMED:
        names = [_shortened(name, 18) for name in classes]
        upright = max(map(len, names)) > 3
        panel.set_xticks(range(number), names, rotation=90 if upright else 0, fontsize=9, parse_math=False)
        panel.set_yticks(range(number), names, fontsize=9, parse_math=False)
    few = values.max() < 100_000
    if number <= COUNTED:
        for row, column in zip(*values.nonzero(), strict=True):
            shade = "white" if shares[row, column] > 0.3 else "black"
            text = f"{values[row, column]:,}" if few else f"{shares[row, column]:.0%}"
            if few or shares[row, column] >= 0.005:
                panel.text(column, row, text, ha="center", va="center", fontsize=9, color=shade)
    # As tall as the square beside it: the scale at the bottom, the list above.
    aside.set_box_aspect(side / 2.6)
    aside.set_axis_off()
    scale = aside.inset_axes((0, 0, 1, 0.03))
    shown = {"ticks": (0, 0.1, 0.4, 1), "format": lambda share, _: f"{share:.0%}"}
    figure.colorbar(image, cax=scale, orientation="horizontal", **shown)
    scale.set_title("share of the true class", fontsize=9, loc="left")
    scale.tick_params(labelsize=8)
    aside.set_title("true \N{RIGHTWARDS ARROW} predicted", fontsize=10, loc="left")
    lines = [
        f"{values[pair]:,}  " + " \N{RIGHTWARDS ARROW} ".join(_shortened(classes[label], 14) for label in pair)
        for pair in _confusions(values)[: int(side * 3)]
    ]
    text = "\n".join(lines) or "no mistakes"
    aside.text(0, 0.99, text, va="top", fontsize=9, transform=aside.transAxes, parse_math=False, linespacing=1.5)
    return figure


def _confusions(values: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (true, predicted) of different classes, the most frequent first."""
    rows, columns = values.nonzero()
    pairs = [(int(row), int(column)) for row, column in zip(rows, columns, strict=True) if row != column]
    return sorted(pairs, key=lambda pair: -values[pair])


def _draw(panel: Axes, image: Tensor) -> None:
    """One image, tiny ones with their pixels as squares."""
    pixels = image.permute(1, 2, 0).numpy()
    tiny = min(pixels.shape[:2]) < 64
    gray = {"cmap": "gray", "vmin": 0, "vmax": 1} if pixels.shape[2] == 1 else {}
    panel.imshow(pixels.squeeze(2) if gray else pixels, interpolation="nearest" if tiny else "antialiased", **gray)


def _shortened(name: str, longest: int = 16) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}\N{HORIZONTAL ELLIPSIS}"
