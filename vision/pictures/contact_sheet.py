"""A sheet of the images of each class, to see before training whether they are what their folders say."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ...core.pictures.charts import shortened

COLUMNS = 8  # images a class
ROWS = 16  # classes
SIDE = 160  # pixels of the longer side


def contact_sheet(images: Mapping[str, Sequence[tuple[Image.Image, str]]], title: str) -> Figure:
    """One row a class: up to `COLUMNS` images, each over its name.

    Args:
        images: of each class, with their names; of more classes than `ROWS` the first.
        title: of the sheet.
    """
    shown = dict(list(images.items())[:ROWS])
    figure = Figure(figsize=(1.3 * COLUMNS + 1.2, 1.45 * max(1, len(shown)) + 0.6), layout="constrained")
    more = f", {len(images) - ROWS} more classes not shown" if len(images) > ROWS else ""
    figure.suptitle(f"{title}{more}", fontsize=11, parse_math=False)
    panels = figure.subplots(max(1, len(shown)), COLUMNS, squeeze=False)
    for panel in panels.ravel():
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_visible(False)
    for row, (name, items) in zip(panels, shown.items()):
        row[0].set_ylabel(shortened(name), fontsize=10, parse_math=False)
        for panel, (image, caption) in zip(row, items):
            small = image.copy()
            small.thumbnail((SIDE, SIDE))
            panel.imshow(np.asarray(small.convert("RGB")), interpolation="nearest")
            panel.set_xlabel(shortened(caption), fontsize=7, parse_math=False)
    return figure
