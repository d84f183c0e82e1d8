"""Where a place of an image looks: the weights that layers of attention say aside, windows as they are."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from ...core.aside import listening, told_within
from ...core.attention import AttentionWeights
from ...core.learning.task import Task
from ...core.pictures.palette import WRONG
from ..data.images import denormalize

LAYERS = 5  # of a picture, besides the image
PLACES = ((0.5, 0.5), (0.03, 0.03))  # of the first image its middle, of the second its corner, where windows shift
HEAT = LinearSegmentedColormap.from_list("heat", [(0, 0.45, 0.7, 0.0), (0, 0.45, 0.7, 0.9)])
OUTLINED = 200  # neighbours up to which each one is outlined


@dataclass
class Look:
    """How one layer looks from one place.

    Args:
        title: which layer, and its kind.
        weights: of each token of the grid that is looked at, the mean over the heads.
        window: the tokens that can be seen; None means all.
        place: row and column of the token that looks, in its own grid; None for a token that is no patch.
        grid: size of that grid.
    """

    title: str
    weights: Float[Tensor, "rows columns"]
    window: Bool[Tensor, "rows columns"] | None
    place: tuple[int, int] | None
    grid: tuple[int, int]


def attention_pictures(task: Task) -> Iterator[tuple[str, Figure]]:
    """How the network of a task that was tested looks at two of the test images; nothing where it cannot be shown."""
    data = task.trainer.datamodule if task._trainer is not None else None
    dataset = getattr(data, "datasets", {}).get("test")
    if not dataset:
        return
    rows, columns = task.description.image_size
    images = [dataset[index].image[:, :rows, :columns] for index in sorted({0, len(dataset) // 2})]
    figure = attention_picture(task.network, images, partial(denormalize, description=task.description))
    if figure is not None:
        yield "attention", figure


def attention_picture(
    network: nn.Module,
    images: Sequence[Float[Tensor, "channels height width"]],
    display: Callable[[Tensor], Tensor],
) -> Figure | None:
    """One row an image: the image, and how layers from first to last look from a place marked in it.

    None where no layer of the network has weights to show.

    Args:
        network: whose layers are looked at.
        images: as the network takes them, at most two.
        display: turns one into values in [0, 1].
    """
    rows = [(image, place, looks(network, image, place)) for image, place in zip(images, PLACES)]
    columns = 1 + max((len(found) for *_, found in rows), default=0)
    if columns == 1:
        return None
    height, width = images[0].shape[-2:]
    side = 2.4
    figure = Figure(figsize=(columns * side, len(rows) * (side * min(1.4, height / width) + 0.4) + 0.35))
    figure.set_layout_engine("constrained")
    figure.suptitle("where layers look: the bluer, the more weight (mean over the heads)", fontsize=11)
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for panel in panels.ravel():
        panel.set_axis_off()
    for line, (image, place, found) in zip(panels, rows):
        pixels = display(image)
        _draw_image(line[0], pixels, 1.0)
        if any(look.place is not None for look in found):
            line[0].plot(place[1], place[0], "+", color=WRONG, markersize=12, markeredgewidth=2)
        line[0].set_title("image", fontsize=9)
        for panel, look in zip(line[1:], found):
            _draw_image(panel, pixels, 0.45)
            _draw_look(panel, look)
    return figure


def looks(network: nn.Module, image: Float[Tensor, "channels height width"], place: tuple[float, float]) -> list[Look]:
    """How up to five layers, spread over the network, look from a place given in shares of height and width."""
    if "weights" not in told_within(network):
        return []
    training = network.training
    network.eval()
    parameter = next(network.parameters())
    try:
        with torch.no_grad(), listening(network, "weights") as heard:
            # Not the call: what is drawn once need not be compiled for it.
            network.forward(image.to(parameter.device, parameter.dtype)[None])
    finally:
        network.train(training)
    layers = {name: told[-1] for name, told in heard["weights"].items() if len(told[-1].values) == 1}
    found = (_look(network, layers[name], image, place) for name in _spread(layers))
    return [look for look in found if look is not None]


def _spread(layers: dict[str, AttentionWeights]) -> list[str]:
    """Layers of each grid and window once, the last one of them; of what is left an even choice."""
    # Layers of one kind and grid differ only in depth: first, middle and last tell the most.
    kinds = {(weights.key_grid, weights.window): name for name, weights in layers.items()}
    chosen = sorted(kinds.values(), key=list(layers).index)
    if len(chosen) == 1:
        chosen = list(layers)
    if len(chosen) <= LAYERS:
        return chosen
    return [chosen[round(index * (len(chosen) - 1) / (LAYERS - 1))] for index in range(LAYERS)]


def _look(network: nn.Module, weights: AttentionWeights, image: Tensor, place: tuple[float, float]) -> Look | None:
    if len(weights.key_grid) == 1:
        return _look_of_sequence(network, weights, image, place)
    if len(weights.grid) != 2 or len(weights.key_grid) != 2:
        return None
    row, column = _token(weights.grid, place)
    token = row * weights.grid[1] + column
    of = weights.of(token)[0].mean(0).float().cpu()
    title = weights.window
    if weights.keys is None:
        same = weights.grid == weights.key_grid and hasattr(network, "prefix_length")
        title = f"{'place' if same else _words(weights.grid)} to {_words(weights.key_grid)}"
    window = None if weights.keys is None else weights.seen(token).cpu()
    return Look(title, of, window, (row, column), weights.grid)


def _look_of_sequence(
    network: nn.Module, weights: AttentionWeights, image: Tensor, place: tuple[float, float]
) -> Look | None:
    """Of a sequence of tokens that are no patches, and then of patches."""
    owner = next((part for part in network.modules() if hasattr(part, "prefix_length")), None)
    if owner is None:
        return None
    prefix = owner.prefix_length
    grid = tuple(-(-size // owner.patch_embedding.patch_size) for size in image.shape[-2:])
    if prefix + grid[0] * grid[1] != weights.key_grid[0]:
        return None
    row, column = _token(grid, place)
    # The class token, where there is one, is what the answer is read from.
    of_class = prefix > 0 and getattr(owner, "class_token", None) is not None
    token = 0 if of_class else prefix + row * grid[1] + column
    of = weights.of(token)[0].mean(0)[prefix:].reshape(grid).float().cpu()
    name = "class token" if of_class else "place"
    return Look(f"{name} to {_words(grid)}", of, None, None if of_class else (row, column), grid)


def _words(grid: tuple[int, ...]) -> str:
    return " x ".join(map(str, grid))


def _token(grid: tuple[int, ...], place: tuple[float, float]) -> tuple[int, int]:
    row, column = (min(size - 1, int(share * size)) for size, share in zip(grid, place))
    return row, column


def _draw_image(panel: Axes, pixels: Tensor, strength: float) -> None:
    """An image over the unit square, washed out so that what lies over it is seen."""
    shown = pixels.permute(1, 2, 0).numpy()
    if shown.shape[2] == 1:
        shown = shown.repeat(3, axis=2)
    shown = 1 - strength * (1 - shown)
    panel.imshow(shown, extent=(0, 1, 1, 0), interpolation="nearest", aspect=shown.shape[0] / shown.shape[1])


def _draw_look(panel: Axes, look: Look) -> None:
    rows, columns = look.weights.shape
    aspect = panel.get_aspect()
    seen = look.weights if look.window is None else look.weights[look.window]
    weights = 0.2 + 0.8 * (look.weights - seen.min()) / (seen.max() - seen.min()).clamp(min=1e-12)
    if look.window is not None:
        weights = weights.masked_fill(~look.window, 0.0)
    panel.imshow(weights.numpy(), cmap=HEAT, vmin=0, vmax=1, extent=(0, 1, 1, 0), interpolation="nearest")
    panel.set_aspect(aspect)
    if look.window is not None and look.window.sum() <= OUTLINED:
        for row, column in look.window.nonzero().tolist():
            panel.add_patch(_cell(row, column, (rows, columns), "black", 0.5))
    if look.place is not None:
        panel.add_patch(_cell(*look.place, look.grid, WRONG, 1.8))
    panel.set(xlim=(0, 1), ylim=(1, 0))
    # Colours run from the least to the most, however little they differ: this says how much.
    peak = (seen.max() / seen.mean().clamp(min=1e-12)).item()
    panel.set_title(f"{look.title}\npeak {peak:.1f} x the mean", fontsize=8)


def _cell(row: int, column: int, grid: tuple[int, int], colour: str, width: float) -> Rectangle:
    rows, columns = grid
    place, size = (column / columns, row / rows), (1 / columns, 1 / rows)
    return Rectangle(place, *size, fill=False, edgecolor=colour, linewidth=width)
