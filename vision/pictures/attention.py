"""Where a place of an image looks: the window of neighborhood attention as it is, and the weights of any softmax.

The weight of token j for token i is d y_i / d v_j, the derivative of the output with respect to the value, so what is
drawn is what the layer computes: shifted windows at borders, dilation and bias included.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from ...core.attention import Attention, NeighborhoodAttention
from ...core.learning.task import Task
from ...kernels.neighborhood_attention import neighborhood_attention
from ..data.images import denormalize
from ..models.segformer import SpatialReductionAttention
from .images import WRONG

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
    kinds = {NeighborhoodAttention: _neighborhood, Attention: _softmax, SpatialReductionAttention: _reduced}
    layers = {name: layer for name, layer in network.named_modules() if type(layer) in kinds}
    seen: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: seen.__setitem__(name, inputs[0].detach()))
        for name, layer in layers.items()
    ]
    training = network.training
    network.eval()
    parameter = next(network.parameters())
    try:
        # A test runs in inference mode, in which nothing can be differentiated.
        with torch.inference_mode(False), torch.enable_grad():
            with torch.no_grad():
                # Not the call, which may be compiled: a compiled graph would pass the hooks over.
                network.forward(image.to(parameter.device, parameter.dtype).clone()[None])
            chosen = _spread([name for name in layers if name in seen and seen[name].shape[0] == 1], layers, seen)
            found = [kinds[type(layers[name])](network, layers[name], seen[name], image, place) for name in chosen]
    finally:
        for hook in hooks:
            hook.remove()
        network.train(training)
    return [look for look in found if look is not None]


def _spread(names: list[str], layers: dict[str, nn.Module], seen: dict[str, Tensor]) -> list[str]:
    """Layers of each grid and dilation once, the last one of them; of what is left an even choice."""
    kinds: dict[Any, str] = {}
    for name in names:
        grid = tuple(seen[name].shape[1:-1])
        # Layers of one kind and grid differ only in depth: first, middle and last tell the most.
        kinds[grid, getattr(layers[name], "dilation", None)] = name
    chosen = sorted(kinds.values(), key=names.index)
    if len(chosen) == 1:
        chosen = names
    if len(chosen) <= LAYERS:
        return chosen
    return [chosen[round(index * (len(chosen) - 1) / (LAYERS - 1))] for index in range(LAYERS)]


def _neighborhood(network: nn.Module, layer: nn.Module, x: Tensor, image: Tensor, place: tuple) -> Look | None:
    if x.dim() != 4:
        return None
    grid = tuple(x.shape[1:3])
    row, column = _token(grid, place)
    query, key, value = layer.qkv(x).unflatten(-1, (3, layer.num_heads, -1)).detach().unbind(-3)
    settings = {"stride": layer.stride, "dilation": layer.dilation, "causal": layer.causal_axes}

    def weights(query: Tensor, bias: Tensor | None) -> Tensor:
        values = torch.zeros_like(value, requires_grad=True)
        y = neighborhood_attention(query, key, values, layer.kernel_size, bias=bias, **settings)
        (found,) = torch.autograd.grad(y[0, row, column, :, 0].sum(), values)
        return found[0, ..., 0].mean(-1).float().cpu()

    # A query of zeros weighs its window evenly: no weight of it is lost in rounding.
    window = weights(torch.zeros_like(query), None) > 0
    bias = None if layer.rpb is None else layer.rpb.detach()
    sizes = " x ".join(map(str, layer.kernel_size))
    steps = layer.dilation[0] if len(set(layer.dilation)) == 1 else layer.dilation
    title = f"{sizes} of {grid[0]} x {grid[1]}, dilation {steps}"
    return Look(title, weights(query, bias), window, (row, column), grid)


def _softmax(network: nn.Module, layer: nn.Module, x: Tensor, image: Tensor, place: tuple) -> Look | None:
    prefix, grid = 0, tuple(x.shape[1:-1])
    if len(grid) == 1:
        owner = next((part for part in network.modules() if hasattr(part, "prefix_length")), None)
        if owner is None:
            return None
        prefix = owner.prefix_length
        grid = tuple(-(-size // owner.patch_embedding.patch_size) for size in image.shape[-2:])
    if len(grid) != 2 or prefix + grid[0] * grid[1] != x[0, ..., 0].numel():
        return None
    row, column = _token(grid, place)
    # The class token, where there is one, is what the answer is read from.
    of_class = prefix > 0 and getattr(owner, "class_token", None) is not None
    token = 0 if of_class else prefix + row * grid[1] + column
    captured = _attention_weights(layer, x, token)
    name = "class token" if of_class else "place"
    weights = captured[prefix:].reshape(grid)
    return Look(f"{name} to {grid[0]} x {grid[1]}", weights, None, None if of_class else (row, column), grid)


def _attention_weights(layer: nn.Module, x: Tensor, token: int) -> Float[Tensor, " tokens"]:
    """Softmax weights of one token, the mean over the heads."""
    with torch.no_grad():
        qkv = layer.qkv(x).unflatten(-1, (-1, layer.head_dim))
        query, key, _ = qkv.split((layer.num_heads, layer.num_key_value_heads, layer.num_key_value_heads), dim=-2)
        query, key = layer.q_norm(query), layer.k_norm(key)
        if layer.rotary is not None:
            query, key = layer.rotary(query, key)
        query, key = query.flatten(1, -3)[0, token], key.flatten(1, -3)[0]
        key = key.repeat_interleave(layer.num_heads // layer.num_key_value_heads, dim=1)
        scores = torch.einsum("hd,nhd->hn", query.float(), key.float()) * layer.head_dim**-0.5
        if layer.relative_bias is not None:
            scores = scores + layer.relative_bias(tuple(x.shape[1:-1]))[:, token]
        if layer.causal:
            scores[:, token + 1 :] = -torch.inf
        return scores.softmax(-1).mean(0).cpu()


def _reduced(network: nn.Module, layer: nn.Module, x: Tensor, image: Tensor, place: tuple) -> Look | None:
    grid = tuple(x.shape[1:3])
    row, column = _token(grid, place)
    heads = (layer.num_heads, -1)
    with torch.no_grad():
        context, _ = layer._reduced(x, None)
        query = layer.query(x[0, row, column]).unflatten(-1, heads)
        key = layer.key_value(context)[0].flatten(0, 1).unflatten(-1, (2, *heads))[:, 0]
        scores = torch.einsum("hd,nhd->hn", query.float(), key.float()) * query.shape[-1] ** -0.5
    weights = scores.softmax(-1).mean(0).reshape(context.shape[1:3]).cpu()
    return Look(f"{grid[0]} x {grid[1]} to {weights.shape[0]} x {weights.shape[1]}", weights, None, (row, column), grid)


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
