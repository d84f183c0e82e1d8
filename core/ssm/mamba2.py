"""The mixer of Mamba-2: state space duality, a state space with one decay a head, which is linear attention."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...kernels.decay_linear_attention import decay_linear_attention
from ..convolution.short import ShortConvolution
from ..mixer import SequenceMixer, forget_at_borders, resolve_num_heads
from ..norm.rms_norm import RMSNorm
from ..weights.registry import register_mixer
from .mamba import MambaState, softplus_inverse_of_time_steps


@register_mixer("mamba2")
class Mamba2(SequenceMixer):
    """y = W norm(S(u) * silu(z)) with (z, u, B, C, s) = W_in x, (u, B, C) through a short convolution and silu, and S

        h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t^T,    S(u)_t = C_t h_t + D u_t,    A = -exp(A_log)

    in each head, delta = softplus(s + dt_bias); B and C are shared by the heads. Parameters are named and laid out as
    published, but for `conv1d.weight`, which is (channels, width) here and (channels, 1, width) there. A masked token
    is passed over. Grids are read in raster order. Decays and states are in fp32.
    Paper: "Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State Space Duality",
    arXiv 2405.21060.

    Args:
        dim: width of the tokens.
        num_heads: None means heads of 32 channels of u.
        states: width of B and of C.
        expansion: width of u, as a multiple of `dim`.
        convolution_width: tokens that the convolution sees.
        time_steps: smallest and largest delta at the start.
        bias: bias of the first and the last projection.
        norm_eps: added to the mean square.

    Raises QuintetError where the heads do not divide the width of u.
    """

    title = "Mamba-2: Mamba with one rate of forgetting a head, computed as products of matrices"
    paper = "Transformers are SSMs, arXiv 2405.21060"
    passes_over: ClassVar[bool] = True
    resets: ClassVar[bool] = True
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "narrow": {"num_heads": 2, "states": 5, "expansion": 1.0, "convolution_width": 2, "bias": True}
    }

    def __init__(
        self,
        dim: int,
        num_heads: int | None = None,
        states: int = 64,
        expansion: float = 2.0,
        convolution_width: int = 4,
        time_steps: tuple[float, float] = (1e-3, 1e-1),
        bias: bool = False,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.dim, self.states, self.inner = dim, states, round(dim * expansion)
        self.num_heads = resolve_num_heads(self.inner, num_heads)
        self.in_proj = nn.Linear(dim, 2 * self.inner + 2 * states + self.num_heads, bias=bias)
        self.conv1d = ShortConvolution(self.inner + 2 * states, convolution_width)
        self.dt_bias = nn.Parameter(softplus_inverse_of_time_steps(self.num_heads, *time_steps))
        self.A_log = nn.Parameter(torch.empty(self.num_heads).uniform_(1.0, 16.0).log())
        self.D = nn.Parameter(torch.ones(self.num_heads))
        self.norm = RMSNorm(self.inner, norm_eps)
        self.out_proj = nn.Linear(self.inner, dim, bias=bias)

    def recur(
        self,
        x: Float[Tensor, "batch time dim"],
        state: MambaState | None,
        cu_seqlens: Int[Tensor, " boundaries"] | None = None,
    ) -> tuple[Float[Tensor, "batch time dim"], MambaState]:
        last, ssm = (None, None) if state is None else state
        dtype = torch.promote_types(x.dtype, torch.float32)
        gate, u, time_step = self.in_proj(x).split((self.inner, self.inner + 2 * self.states, self.num_heads), -1)
        u, last = self.conv1d(u, last, cu_seqlens)
        u, B, C = u.split((self.inner, self.states, self.states), -1)
        u = u.unflatten(-1, (self.num_heads, -1))
        delta = F.softplus(time_step.to(dtype) + self.dt_bias)
        log_decay = forget_at_borders(-delta * self.A_log.to(dtype).exp(), cu_seqlens)
        written = (u * delta.unsqueeze(-1)).to(u.dtype)
        y, ssm = decay_linear_attention(C.unsqueeze(2), B.unsqueeze(2), written, log_decay, ssm, scale=1.0)
        y = (y + self.D.unsqueeze(-1) * u).flatten(2)
        return self.out_proj(self.norm((y * F.silu(gate)).to(gate.dtype))), MambaState(last, ssm)
