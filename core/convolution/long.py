"""Gated long convolutions, whose kernels a small network writes: the mixer of Hyena."""

import math
from itertools import zip_longest
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...kernels.fft_conv import fft_conv
from ..errors import QuintetError
from ..mixer import Mixer, flatten_grid, mask_tokens, unflatten_grid
from ..weights.registry import register_mixer
from .short import ShortConvolution


class ImplicitFilter(nn.Module):
    """Kernels of any length: k_t = window_t * W_3 sin(f_2 (W_2 sin(f_1 (W_1 e_t + b_1)) + b_2)) for t = 0, 1, ...

    e_t holds p = t / length, and cos and sin of 2 pi p times frequencies from 0 to bands - 1. The window of channel c,

        window_t = sqrt(1 - exp(-2 a_c)) exp(-a_c t),    a_c = ln(100) / (length * memory_c)

    is down to a hundredth after memory_c lengths and has unit energy, so that outputs keep the scale of inputs. Called
    with a number of tokens; computed in fp32. Paper: "Hyena Hierarchy: Towards Larger Convolutional Language Models",
    arXiv 2302.10866, section 3.3.

    Args:
        channels: number of kernels.
        length: tokens that a kernel is laid out for; kernels may be longer or shorter.
        memory: memory_c of the first and the last channel.
        hidden: width of the network.
        bands: frequencies that the network sees positions by.
        frequency: f at the start; the higher, the rougher the kernels.
    """

    no_weight_decay: ClassVar[tuple[str, ...]] = ("frequencies",)

    def __init__(
        self,
        channels: int,
        length: int = 1024,
        memory: tuple[float, float] = (0.3, 1.5),
        hidden: int = 64,
        bands: int = 16,
        frequency: float = 1.0,
    ) -> None:
        super().__init__()
        self.channels, self.length, self.memory, self.bands = channels, length, memory, bands
        self.first = nn.Linear(1 + 2 * bands, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, channels, bias=False)
        self.frequencies = nn.Parameter(torch.full((2, hidden), frequency))
        for layer in (self.first, self.second, self.last):  # all see sines, whose mean square is one half
            nn.init.normal_(layer.weight, std=math.sqrt(2 / layer.in_features))

    def forward(self, time: int) -> Float[Tensor, "channels time"]:
        weight = self.last.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        step = torch.arange(time, dtype=dtype, device=weight.device).unsqueeze(-1)
        angle = 2 * math.pi * step / self.length * torch.arange(self.bands, dtype=dtype, device=weight.device)
        h = torch.cat([step / self.length, angle.cos(), angle.sin()], -1)
        with torch.autocast(weight.device.type, enabled=False):
            for layer, frequency in zip((self.first, self.second), self.frequencies.unbind()):
                h = torch.sin(frequency * F.linear(h, layer.weight.to(dtype), layer.bias.to(dtype)))
            h = F.linear(h, weight.to(dtype))
        shortest, longest = self.memory
        memory = torch.linspace(shortest, longest, self.channels, dtype=dtype, device=weight.device)
        rate = math.log(100.0) / (self.length * memory)
        return (h * torch.exp(-rate * step) * torch.sqrt(-torch.expm1(-2 * rate))).mT

    def extra_repr(self) -> str:
        return f"{self.channels}, length={self.length}, memory={self.memory}"


@register_mixer("long_convolution")
class LongConvolution(Mixer):
    """y = W z_N, z_n = x_n * (k_n conv z_{n-1} + D_n z_{n-1}): the Hyena operator of order N.

    z_0 and the gates x_1 ... x_N are linear in the tokens and go through a short convolution; the long kernels k_n come
    from an `ImplicitFilter`. Without `causal` each k_n is joined by a kernel that looks ahead. Costs time log time; a
    step would need all earlier tokens, so it does not stream. A masked token counts as zero at its place. Grids are
    read in raster order. Kernels and transforms are in fp32.
    Paper: "Hyena Hierarchy: Towards Larger Convolutional Language Models", arXiv 2302.10866.

    Args:
        dim: width of the tokens.
        order: N, the number of long convolutions; 1 is a gated long convolution, 2 as in the paper.
        causal: a token sees none after it.
        length: tokens of usual sequences, for which kernels are laid out; others work too.
        memory: where the shortest and the longest window are down to a hundredth, as multiples of `length`.
        filter_width: width of the network that writes the kernels.
        convolution_width: tokens that the short convolution sees.
        bias: bias of the first and the last projection.

    Raises QuintetError for an order, length or memory that is not positive.
    """

    title = "Hyena: long convolutions whose kernels are a small network of the position, between gates"
    paper = "Hyena Hierarchy, arXiv 2302.10866"
    causal = True
    subquadratic: ClassVar[bool] = True
    no_weight_decay: ClassVar[tuple[str, ...]] = ("D",)
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "both ways": {"order": 1, "causal": False, "length": 32, "filter_width": 16, "bias": False}
    }

    def __init__(
        self,
        dim: int,
        order: int = 2,
        causal: bool = True,
        length: int = 1024,
        memory: tuple[float, float] = (0.3, 1.5),
        filter_width: int = 64,
        convolution_width: int = 3,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if order < 1 or length < 1 or min(memory) <= 0:
            raise QuintetError(
                f"LongConvolution needs a positive order, length and memory; got {order}, {length} and {memory}"
            )
        self.dim, self.order, self.causal = dim, order, causal
        self.in_proj = nn.Linear(dim, (order + 1) * dim, bias=bias)
        self.short = ShortConvolution((order + 1) * dim, convolution_width, activation=None)
        self.filters = nn.ModuleList(ImplicitFilter(dim, length, memory, filter_width) for _ in range(order))
        self.filters_ahead = nn.ModuleList(
            ImplicitFilter(dim, length, memory, filter_width) for _ in range(0 if causal else order)
        )
        self.D = nn.Parameter(torch.randn(order, dim))
        self.out_proj = nn.Linear(dim, dim, bias=bias)

    def forward(
        self, x: Float[Tensor, "batch *grid dim"], mask: Bool[Tensor, "batch *grid"] | None = None
    ) -> Float[Tensor, "batch *grid dim"]:
        self.check_tokens(x, mask)
        tokens, flat_mask = flatten_grid(mask_tokens(x, mask), mask)
        # Masked again where biases and neighbors speak; the gates then keep all that follows masked.
        projected, _ = self.short(mask_tokens(self.in_proj(tokens), flat_mask))
        z, *gates = mask_tokens(projected, flat_mask).chunk(self.order + 1, -1)
        time = z.shape[1]
        for gate, skip, behind, ahead in zip_longest(gates, self.D, self.filters, self.filters_ahead):
            mixed = fft_conv(z, behind(time), skip)
            if ahead is not None:
                mixed = mixed + fft_conv(z.flip(1), ahead(time)).flip(1)
            z = gate * mixed
        return mask_tokens(unflatten_grid(self.out_proj(z), x.shape[1:-1]), mask)

    def extra_repr(self) -> str:
        return f"order={self.order}, causal={self.causal}"
