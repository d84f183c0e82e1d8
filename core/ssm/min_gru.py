"""The minimal gated recurrent unit: a GRU whose gates do not see the state, so that a scan computes it."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...kernels.linear_scan import linear_scan
from ..mixer import SequenceMixer, forget_at_borders, mask_tokens
from ..weights.registry import register_mixer


def positive_candidate(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """x + 1/2 above zero and sigmoid(x) below: the paper's g, positive and continuous."""
    return torch.where(x >= 0, x + 0.5, torch.sigmoid(x))


@register_mixer("min_gru")
class MinGRU(SequenceMixer):
    """h_t = (1 - z_t) h_{t-1} + z_t g(W_h x_t), z_t = sigmoid(W_z x_t), channel by channel; y = W h.

    The recurrence is in fp32, its decay in log space: log(1 - z) = logsigmoid(-W_z x). A masked token leaves the state
    as it is. Grids are read in raster order. Paper: "Were RNNs All We Needed?", arXiv 2410.01201.

    Args:
        dim: width of the tokens.
        expansion: width of the state, as a multiple of `dim`.
        candidate: g.
        bias: bias of all projections.
    """

    title = "minGRU: a GRU whose gates see the token alone, so that all steps are computed at once"
    paper = "Were RNNs All We Needed?, arXiv 2410.01201"
    resets: ClassVar[bool] = True
    variants: ClassVar[dict[str, dict[str, Any]]] = {"wide": {"expansion": 1.5, "candidate": torch.tanh, "bias": False}}

    def __init__(
        self,
        dim: int,
        expansion: float = 1.0,
        candidate: Callable[[Tensor], Tensor] = positive_candidate,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.dim, self.candidate_function = dim, candidate
        inner = round(dim * expansion)
        self.update_gate = nn.Linear(dim, inner, bias=bias)
        self.candidate = nn.Linear(dim, inner, bias=bias)
        self.proj = nn.Linear(inner, dim, bias=bias)

    def recur(
        self,
        x: Float[Tensor, "batch time dim"],
        state: Float[Tensor, "batch inner"] | None,
        mask: Bool[Tensor, "batch time"] | None = None,
        cu_seqlens: Int[Tensor, " boundaries"] | None = None,
    ) -> tuple[Float[Tensor, "batch time dim"], Float[Tensor, "batch inner"]]:
        dtype = torch.promote_types(x.dtype, torch.float32)
        gate = self.update_gate(x).to(dtype)
        written = gate.sigmoid() * self.candidate_function(self.candidate(x).to(dtype))
        log_decay = F.logsigmoid(-gate)
        log_decay = forget_at_borders(mask_tokens(log_decay, mask), cu_seqlens)
        h, state = linear_scan(mask_tokens(written, mask), log_decay, state, decay_is_log=True)
        return self.proj(h.to(x.dtype)), state
