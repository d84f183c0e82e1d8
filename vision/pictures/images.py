"""What a person looks at: images with their predictions, the confusion matrix, the most confident mistakes.

Blue means right and orange means wrong (colours of Okabe and Ito that every kind of colour vision tells apart), always
with a mark beside them, so that nothing depends on colour alone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ...core.pictures.charts import shortened
from ...core.pictures.chosen import Highest, UniformSample
from ...core.pictures.palette import NEUTRAL, RIGHT, WRONG

SHOWN = 24  # images of a grid


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
        self._sample: UniformSample[Shown] = UniformSample(size)
        self._mistakes: Highest[Shown] = Highest(size)

    def add(self, images: Tensor, probabilities: Tensor, labels: Tensor) -> None:
        """Considers a batch: images (B, C, H, W), class probabilities (B, K) and labels (B)."""
        confidences, predictions = (values.tolist() for values in probabilities.detach().float().cpu().max(1))
        keys = self._sample.keys(len(images))
        for image, *facts, key in zip(images, predictions, confidences, labels.tolist(), keys, strict=True):
            item = Shown(image, *facts)
            surprise = item.confidence if item.wrong else math.nan
            if self._sample.admits(key) or self._mistakes.admits(surprise):
                # A copy: a view would keep its whole batch in memory.
                item.image = self.display(image).clone()
                self._sample.offer(key, item)
                self._mistakes.offer(surprise, item)

    @property
    def images(self) -> list[Shown]:
        return self._sample.items

    @property
    def mistakes(self) -> list[Shown]:
        return self._mistakes.items


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
        text = f"{mark}{shortened(classes[item.predicted])} ({item.confidence:.0%})"
        if item.wrong:
            text += f"\ntrue: {shortened(classes[item.true])}"
        panel.set_title(text, fontsize=9, color=colour, parse_math=False)
    return figure


def _draw(panel: Axes, image: Tensor) -> None:
    """One image, tiny ones with their pixels as squares."""
    pixels = image.permute(1, 2, 0).numpy()
    tiny = min(pixels.shape[:2]) < 64
    gray = {"cmap": "gray", "vmin": 0, "vmax": 1} if pixels.shape[2] == 1 else {}
    panel.imshow(pixels.squeeze(2) if gray else pixels, interpolation="nearest" if tiny else "antialiased", **gray)
