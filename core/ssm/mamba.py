"""The mixer of Mamba: a selective state space between a short convolution and a gate."""

import math
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ...kernels.selective_scan import selective_scan
from ..convolution.short import ShortConvolution
from ..mixer import SequenceMixer
from ..weights.registry import register_mixer


class MambaState(NamedTuple):
    """What Mamba remembers of a sequence: the convolution's last tokens and the state space, both fp32."""

    convolution: Float[Tensor, "batch past inner"]
    ssm: Float[Tensor, "batch inner states"]


def softplus_inverse_of_time_steps(count: int, smallest: float, largest: float) -> Float[Tensor, " count"]:
    """b with softplus(b) log-uniform between the two, as the biases of Mamba's time steps start."""
    steps = torch.exp(torch.empty(count).uniform_(math.log(smallest), math.log(largest)))
    return steps + torch.log(-torch.expm1(-steps))


@register_mixer("mamba")
class Mamba(SequenceMixer):
    """y = W (S(u) * silu(z)) with (u, z) = W_in x, u through a short convolution and silu, S the selective scan:

        h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t,    S(u)_t = C_t h_t + D u_t,    A = -exp(A_log)
        delta_t = softplus(W_dt r_t + b),    (r, B, C) = W_x u

    Parameters are named and laid out as published, but for `conv1d.weight`, which is (inner, width) here and (inner, 1,
    width) there. A masked token is passed over. Grids are read in raster order. Recurrence and states are in fp32.
    Paper: "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", arXiv 2312.00752.

    Args:
        dim: width of the tokens.
        states: states of the recurrence a channel.
        expansion: width of u, as a multiple of `dim`.
        convolution_width: tokens that the convolution sees.
        time_step_rank: width of r; None means dim / 16, rounded up.
        time_steps: smallest and largest delta at the start.
        bias: bias of the first and the last projection.
    """

    title = "Mamba: a state per channel, read and written as the token says"
    paper = "Mamba: Linear-Time Sequence Modeling with Selective State Spaces, arXiv 2312.00752"
    passes_over: ClassVar[bool] = True
    # Packed sequences are padded: the decay exp(delta A) is made within the kernel, and no finite delta makes it zero
    # whatever A was learned, while one large enough would also scale what the token writes.
    no_weight_decay: ClassVar[tuple[str, ...]] = ("A_log",)
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "narrow": {"states": 5, "expansion": 1.0, "convolution_width": 2, "time_step_rank": 3, "bias": True}
    }

    def __init__(
        self,
        dim: int,
        states: int = 16,
        expansion: float = 2.0,
        convolution_width: int = 4,
        time_step_rank: int | None = None,
        time_steps: tuple[float, float] = (1e-3, 1e-1),
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.dim, self.states = dim, states
        self.time_step_rank = math.ceil(dim / 16) if time_step_rank is None else time_step_rank
        inner = round(dim * expansion)
        self.in_proj = nn.Linear(dim, 2 * inner, bias=bias)
        self.conv1d = ShortConvolution(inner, convolution_width)
        self.x_proj = nn.Linear(inner, self.time_step_rank + 2 * states, bias=False)
        self.dt_proj = nn.Linear(self.time_step_rank, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, dim, bias=bias)
        nn.init.uniform_(self.dt_proj.weight, -(self.time_step_rank**-0.5), self.time_step_rank**-0.5)
        with torch.no_grad():
            self.dt_proj.bias.copy_(softplus_inverse_of_time_steps(inner, *time_steps))

    def recur(
        self, x: Float[Tensor, "batch time dim"], state: MambaState | None
    ) -> tuple[Float[Tensor, "batch time dim"], MambaState]:
        last, ssm = (None, None) if state is None else state
        u, gate = self.in_proj(x).chunk(2, -1)
        u, last = self.conv1d(u, last)
        rank, B, C = self.x_proj(u).split((self.time_step_rank, self.states, self.states), -1)
        A = -self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)).exp()
        # The bias joins inside the scan, in float32.
        time_step = F.linear(rank, self.dt_proj.weight)
        y, ssm = selective_scan(u, time_step, A, B, C, self.D, gate, self.dt_proj.bias, ssm)
        return self.out_proj(y), MambaState(last, ssm)
