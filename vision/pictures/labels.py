"""Images that may have several classes, each under what was found, missed and wrongly found."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from torch import Tensor

from ...core.pictures.charts import shortened
from ...core.pictures.chosen import Highest, UniformSample
from ...core.pictures.palette import NEUTRAL, RIGHT, WRONG
from .images import SHOWN

LINES = 5  # classes named under an image


@dataclass
class ShownLabels:
    """One image: pixels (C, H, W) in [0, 1], the probability of each class and, where it is known, which it has."""

    image: Tensor
    probabilities: Tensor
    true: Tensor | None = None

    @property
    def surprise(self) -> float:
        """The largest distance between a probability and the truth."""
        return 0.0 if self.true is None else (self.probabilities - self.true).abs().max().item()


class LabelGallery:
    """A bounded choice of the images of a test: a uniform sample of all, and the most surprising.

    Args:
        display: turns an image (C, H, W) of a batch into one with values in [0, 1]; applied to those that are kept.
        size: how many images of each kind are kept.
    """

    def __init__(self, display: Callable[[Tensor], Tensor], size: int = SHOWN) -> None:
        self.display = display
        self._sample: UniformSample[ShownLabels] = UniformSample(size)
        self._mistakes: Highest[ShownLabels] = Highest(size)

    def add(self, images: Tensor, probabilities: Tensor, labels: Tensor) -> None:
        """Considers a batch: images (B, C, H, W), class probabilities and truth (B, K)."""
        probabilities, labels = probabilities.detach().float().cpu(), labels.cpu()
        keys = self._sample.keys(len(images))
        for image, found, true, key in zip(images, probabilities, labels, keys, strict=True):
            item = ShownLabels(image, found, true)
            surprise = item.surprise if item.surprise > 0.5 else math.nan
            if self._sample.admits(key) or self._mistakes.admits(surprise):
                # Copies: views would keep their whole batch in memory.
                item = ShownLabels(self.display(image).clone(), found.clone(), true.clone())
                self._sample.offer(key, item)
                self._mistakes.offer(surprise, item)

    @property
    def images(self) -> list[ShownLabels]:
        return self._sample.items

    @property
    def mistakes(self) -> list[ShownLabels]:
        return self._mistakes.items


def label_grid(items: Sequence[ShownLabels], classes: Sequence[str], title: str, threshold: float = 0.5) -> Figure:
    """Images in rows of six, each above the classes it was given or has, with their probabilities.

    A check marks what is right, a cross with + what was wrongly found, one with - what was missed.
    """
    columns = min(6, max(1, len(items)))
    rows = max(1, math.ceil(len(items) / columns))
    named = [_named(item, classes, threshold) for item in items]
    deepest = min(LINES, max((len(lines) for lines in named), default=1))
    figure = Figure(figsize=(1.9 * columns + 0.2, (1.9 + 0.17 * deepest) * rows + 0.5), layout="constrained")
    figure.suptitle(title, fontsize=11, parse_math=False)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels:
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_visible(False)
    for panel, item, lines in zip(panels, items, named):
        pixels = item.image.permute(1, 2, 0).numpy()
        gray = {"cmap": "gray", "vmin": 0, "vmax": 1} if pixels.shape[2] == 1 else {}
        tiny = min(pixels.shape[:2]) < 64
        panel.imshow(pixels.squeeze(2) if gray else pixels, interpolation="nearest" if tiny else "antialiased", **gray)
        if len(lines) > LINES:
            lines = [*lines[: LINES - 1], (f"and {len(lines) - LINES + 1} more", NEUTRAL)]
        for number, (text, colour) in enumerate(lines):
            # Below the image, a line a class, in points: the same distance whatever the size of the panel.
            panel.annotate(
                text, (0, 0), (0, -3 - 11 * number), "axes fraction", "offset points",
                va="top", fontsize=8.5, color=colour, parse_math=False,
            )  # fmt: skip
        panel.set_xlabel("\n" * max(0, deepest - 1), fontsize=8.5)
    return figure


def _named(item: ShownLabels, classes: Sequence[str], threshold: float) -> list[tuple[str, str]]:
    """What is said of an image, line by line, and the colour of each."""
    lines = []
    for index in item.probabilities.argsort(descending=True).tolist():
        found = bool(item.probabilities[index] > threshold)
        has = found if item.true is None else bool(item.true[index])
        if not found and not has:
            continue
        text = f"{shortened(classes[index], 14)} ({item.probabilities[index].item():.0%})"
        if item.true is None:
            lines.append((text, NEUTRAL))
        elif found and has:
            lines.append((f"\N{CHECK MARK} {text}", RIGHT))
        else:
            sign = "+" if found else "\N{MINUS SIGN}"
            lines.append((f"\N{BALLOT X}{sign} {text}", WRONG))
    return lines or [("no class", NEUTRAL)]
