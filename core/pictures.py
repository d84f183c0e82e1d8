"""Pictures any domain has: learning curves from the rows of metrics.csv."""

from typing import Any

from matplotlib.figure import Figure


def learning_curves(rows: list[dict[str, Any]]) -> Figure:
    """Training and validation curves over epochs, one panel a quantity.

    Args:
        rows: rows of metrics.csv as `quintet.core.metrics_file.read_metrics` returns them.
    """
    names = {key for row in rows for key in row if key.startswith(("train/", "val/"))}
    quantities = sorted({name.split("/", 1)[1] for name in names}, key=lambda name: (name != "loss", name))
    columns = min(3, max(1, len(quantities)))
    lines = -(-max(1, len(quantities)) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.0 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel, quantity in zip(panels, quantities, strict=False):
        for stage, colour in (("train", "#0072B2"), ("val", "#D55E00")):
            points = [(row["epoch"] + 1, row[f"{stage}/{quantity}"]) for row in rows if f"{stage}/{quantity}" in row]
            if points:
                panel.plot(
                    *zip(*points, strict=True), color=colour, label=stage, marker="." if len(points) < 30 else ""
                )
        panel.set_title(quantity.replace("_", " "))
        panel.set_xlabel("epoch")
        panel.grid(alpha=0.3)
        panel.legend(frameon=False)
    for panel in panels[len(quantities) :]:
        panel.set_axis_off()
    return figure
