"""The worst, the median and the best images of a test, and a sheet of the images that are trained on."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from ...core.pictures.charts import shortened
from ...core.pictures.chosen import Highest, UniformSample
from ...core.pictures.palette import NEUTRAL, RIGHT, WRONG
from .images import Shown

EACH = 6  # worst, median and best ones: a row of a grid each
KEPT = 64  # images of the uniform sample from which the median ones come


class Extremes:
    """A bounded choice of the images of a test by the probability of their true class.

    Args:
        display: turns an image (C, H, W) of a batch into one with values in [0, 1]; applied to those that are kept.
    """

    def __init__(self, display: Callable[[Tensor], Tensor]) -> None:
        self.display = display
        self.scores: list[float] = []
        self.sample: UniformSample[tuple[float, Shown]] = UniformSample(KEPT)
        self.worst: Highest[Shown] = Highest(EACH)
        self.best: Highest[Shown] = Highest(EACH)

    def add(self, images: Tensor, probabilities: Tensor, labels: Tensor) -> None:
        """Considers a batch: images (B, C, H, W), class probabilities (B, K) and labels (B)."""
        probabilities, labels = probabilities.detach().float().cpu(), labels.cpu()
        scores = probabilities.gather(1, labels[:, None])[:, 0].tolist()
        confidences, predictions = (values.tolist() for values in probabilities.max(1))
        keys = self.sample.keys(len(scores))
        for image, score, key, *facts in zip(
            images, scores, keys, predictions, confidences, labels.tolist(), strict=True
        ):
            self.scores.append(score)
            if not (self.worst.admits(-score) or self.best.admits(score) or self.sample.admits(key)):
                continue
            # A copy: a view would keep its whole batch in memory.
            item = Shown(self.display(image).clone(), *facts)
            self.worst.offer(-score, item)
            self.best.offer(score, item)
            self.sample.offer(key, (score, item))

    def images(self) -> list[Shown]:
        """The worst, those in the middle, and the best, a row of a grid each; none where there are too few."""
        if len(self.scores) < 3 * EACH:
            return []
        middle = float(np.median(self.scores))
        taken = {id(item) for item in (*self.worst.items, *self.best.items)}
        others = [(abs(score - middle), item) for score, item in self.sample.items if id(item) not in taken]
        median = [item for _, item in sorted(others, key=lambda pair: pair[0])[:EACH]]
        return [*self.worst.items, *median, *reversed(self.best.items)]


def extremes_sheet(extremes: Extremes, classes: Sequence[str]) -> Figure | None:
    """A row each of the worst, the median and the best images; None where there are too few for that."""
    items = extremes.images()
    if not items:
        return None
    names = []
    for item in items:
        found, true = shortened(classes[item.predicted]), shortened(classes[item.true])
        names.append(f"\N{BALLOT X} {found}\ntrue: {true}" if item.wrong else f"\N{CHECK MARK} {found}")
    colours = [WRONG if item.wrong else RIGHT for item in items]
    title = "test images by the probability of their true class"
    return _sheet([item.image for item in items], names, colours, title, EACH, ("worst", "median", "best"))


def batch_sheet(images: Sequence[Tensor], names: Sequence[str], title: str) -> Figure:
    """Images (C, H, W) in [0, 1] under their names, eight a row."""
    return _sheet(images, [shortened(name) for name in names], [NEUTRAL] * len(images), title, 8)


def _sheet(
    images: Sequence[Tensor],
    names: Sequence[str],
    colours: Sequence[str],
    title: str,
    columns: int,
    labels: Sequence[str] = (),
) -> Figure:
    """Images of one size on one pair of axes, which is drawn much faster than a pair for each."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    height, width = images[0].shape[-2:]
    tall = min(2.0, max(0.5, height / width))  # of an image, where its width is 1
    side = 1.45  # inches of a cell
    room = 0.12 * max(name.count("\n") + 1 for name in names) + 0.04  # above an image, of a cell
    left = 0.5 if labels else 0.05
    wide = columns * side + left + 0.1
    high = rows * (tall + room) * side + 0.4
    figure = Figure(figsize=(wide, high))
    figure.suptitle(title, fontsize=11, parse_math=False, y=1 - 0.12 / high, va="top")
    axes = figure.add_axes((left / wide, 0.05 / high, (wide - left - 0.1) / wide, (high - 0.4) / high))
    for place, (image, name, colour) in enumerate(zip(images, names, colours)):
        row, column = divmod(place, columns)
        top = row * (tall + room) + room
        pixels = image.permute(1, 2, 0).numpy()
        gray = {"cmap": "gray", "vmin": 0, "vmax": 1} if pixels.shape[2] == 1 else {}
        extent = (column + 0.03, column + 0.97, top + tall * 0.97, top)
        axes.imshow(
            pixels.squeeze(2) if gray else pixels, extent=extent, aspect="auto", interpolation="nearest", **gray
        )
        axes.text(column + 0.5, top - 0.03, name, ha="center", va="bottom", fontsize=8, color=colour, parse_math=False)
    for row, label in enumerate(labels):
        middle = row * (tall + room) + room + tall / 2
        axes.text(-0.05, middle, label, rotation=90, ha="right", va="center", fontsize=10)
    axes.set(xlim=(0, columns), ylim=(rows * (tall + room), 0))
    axes.set_axis_off()
    return figure
