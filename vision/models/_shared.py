"""What the image models share: checks of input and mixers, and the initialisation of their layers."""

from torch import Tensor, nn

from ...core.errors import QuintetError
from ...core.mixer import Mixer


def check_images(images: Tensor, in_channels: int) -> None:
    """Raises QuintetError where images do not have the axes or the channels a model takes."""
    if images.dim() != 4 or images.shape[1] != in_channels:
        raise QuintetError(
            f"this model takes images shaped (batch, {in_channels}, height, width); got {tuple(images.shape)}; "
            "another number of channels is set by in_channels"
        )


def check_grid_rank(mixer: Mixer, rank: int, why: str) -> None:
    """Raises QuintetError, ending in `why`, where a mixer does not take tokens on a grid of `rank` axes."""
    if rank not in mixer.grid_ranks:
        ranks = " or ".join(map(str, sorted(mixer.grid_ranks)))
        raise QuintetError(
            f"this {type(mixer).__name__} takes tokens on {ranks} grid axes, here they have {rank}: {why}"
        )


def initialise_linear_layers(module: nn.Module) -> None:
    """Draws the weights of linear layers from N(0, 0.02²) cut at two units, and clears their biases.

    Mixers keep their own initialisation, on which their mechanism may rely, unless they say `drawn_by_networks`.
    """
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if not isinstance(module, Mixer) or module.drawn_by_networks:
        for child in module.children():
            initialise_linear_layers(child)


def initialise_convolutions(module: nn.Module) -> None:
    """Draws the weights of convolutions from N(0, 2 / fan out), as SegFormer's authors do, and clears their biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels // layer.groups
            nn.init.normal_(layer.weight, std=(2 / fan_out) ** 0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
