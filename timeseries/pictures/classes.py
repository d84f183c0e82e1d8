"""Series with their classes: those of training, one panel a class, and single ones under what they were taken for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ...core.pictures.charts import name_in_legend, shortened
from ...core.pictures.chosen import Highest
from ...core.pictures.palette import DISTINCT, NEUTRAL, RIGHT, WRONG
from ..data.classes import LabelledBatch

CASES = 12  # series of a figure
DRAWN = 20  # series of a class drawn over one another
CLASSES = 12  # panels of classes
CHANNELS = 6  # channels drawn of one series


@dataclass
class ShownSeries:
    """One series in the user's units (T, C), what it was taken for and, where it is known, what is true."""

    index: int
    values: np.ndarray
    predicted: int
    confidence: float
    true: int | None = None

    @property
    def wrong(self) -> bool:
        return self.true is not None and self.true != self.predicted


class SeriesGallery:
    """A bounded choice of the series of a test: the mistakes with most confidence, and the first classified right.

    Args:
        mean: of each channel, and
        std: its deviation: they bring the series of a batch back into the user's units.
        size: how many of each kind are kept.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], size: int = CASES) -> None:
        self.mean, self.std = torch.tensor(mean), torch.tensor(std)
        self._mistakes: Highest[ShownSeries] = Highest(size)
        self._right: Highest[ShownSeries] = Highest(size)

    def add(self, batch: LabelledBatch, probabilities: Float[Tensor, "batch classes"]) -> None:
        """Considers a batch; a series whose class nobody knows counts as right."""
        confidences, predicted = (found.tolist() for found in probabilities.float().cpu().max(1))
        truth = [None if true < 0 else true for true in batch.label.tolist()]
        for place, told in enumerate(zip(batch.index.tolist(), predicted, confidences, truth, strict=True)):
            index, label, confidence, true = told
            wrong = true not in (None, label)
            chosen, score = (self._mistakes, confidence) if wrong else (self._right, -float(index))
            if chosen.admits(score):
                values = batch.values[place][batch.mask[place]].cpu() * self.std + self.mean
                chosen.offer(score, ShownSeries(index, values.numpy(), label, confidence=confidence, true=true))

    @property
    def mistakes(self) -> list[ShownSeries]:
        return self._mistakes.items

    @property
    def right(self) -> list[ShownSeries]:
        return self._right.items


def class_panels(groups: Mapping[str, Sequence[np.ndarray]], channels: Sequence[str], units: Sequence[str]) -> Figure:
    """Training series coloured by class: a column a class, a row a channel, the first few series over one another.

    Args:
        groups: series (T, C) of each class.
        channels: their names.
        units: of each, "" where unknown.
    """
    names, rows = list(groups)[:CLASSES], min(len(channels), 3)
    figure = Figure(figsize=(max(5.0, 1.9 * len(names) + 1.2), 1.8 * rows + 1.1), layout="constrained")
    of = [f"{len(names)} of {len(groups)} classes"] if len(names) < len(groups) else []
    of += [f"{rows} of {len(channels)} channels"] if rows < len(channels) else []
    figure.suptitle("training series by class" + (f" ({', '.join(of)})" if of else ""), fontsize=11, parse_math=False)
    axes = figure.subplots(rows, len(names), squeeze=False, sharey="row", sharex=True)
    for column, name in enumerate(names):
        colour = DISTINCT[column % len(DISTINCT)]
        for row in range(rows):
            for values in groups[name][:DRAWN]:
                axes[row, column].plot(values[:, row], color=colour, linewidth=0.8, alpha=0.45)
            axes[row, column].grid(alpha=0.25)
            axes[row, column].tick_params(labelsize=8)
        axes[0, column].set_title(f"{shortened(name, 14)} ({len(groups[name]):,})", fontsize=10, parse_math=False)
        axes[-1, column].set_xlabel("step", fontsize=9)
    for row in range(rows):
        label = f"{channels[row]} [{units[row]}]" if units[row] else channels[row]
        axes[row, 0].set_ylabel(shortened(label, 20), fontsize=9, parse_math=False)
    return figure


def series_panels(
    items: Sequence[ShownSeries], names: Sequence[str], classes: Sequence[str], channels: Sequence[str], title: str
) -> Figure:
    """Single series in rows of four, each under its prediction and probability, and what is true where that differs.

    Args:
        items: what to draw.
        names: of all series of the part, by their number.
        classes: names.
        channels: names.
        title: of the figure.
    """
    columns = min(4, max(1, len(items)))
    rows = -(-max(1, len(items)) // columns)
    figure = Figure(figsize=(max(5.0, 2.9 * columns + 0.3), 2.2 * rows + 0.9), layout="constrained")
    figure.suptitle(title, fontsize=11, parse_math=False)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, item in zip(axes, items, strict=False):
        _draw(axis, item, names[item.index], classes)
    for axis in axes[len(items) :]:
        axis.set_axis_off()
    if items and len(channels) > 1:
        handles = axes[0].get_lines()
        labels = [shortened(name, 14) for name in channels[: len(handles)]]
        if len(channels) > len(handles):
            labels[-1] += f" (and {len(channels) - len(handles)} more, not drawn)"
        look = {"ncols": min(len(labels), 6), "frameon": False, "fontsize": 8}
        name_in_legend(figure, handles, labels, loc="outside lower center", **look)
    return figure


def _draw(axis: Axes, item: ShownSeries, name: str, classes: Sequence[str]) -> None:
    known = item.true is not None
    for channel, values in enumerate(item.values.T[:CHANNELS]):
        axis.plot(values, color=DISTINCT[channel % len(DISTINCT)], linewidth=1.0)
    colour = WRONG if item.wrong else RIGHT if known else NEUTRAL
    mark = ("\N{BALLOT X} " if item.wrong else "\N{CHECK MARK} ") if known else ""
    text = f"{mark}{shortened(classes[item.predicted])} ({item.confidence:.0%})"
    text += f", true: {shortened(classes[item.true])}" if item.wrong else ""
    axis.set_title(f"{shortened(name, 28)}\n{text}", fontsize=9, color=colour, parse_math=False)
    axis.spines[:].set(color=colour, linewidth=2.0 if item.wrong else 1.0)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.25)
