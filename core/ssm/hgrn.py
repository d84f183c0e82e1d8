"""The hierarchically gated recurrent network's token mixer: forget gates bounded from below."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...kernels.linear_scan import linear_scan
from ..errors import QuintetError
from ..mixer import SequenceMixer, forget_at_borders, mask_tokens
from ..norm.gated_norm import GatedNorm
from ..weights.registry import register_mixer


@register_mixer("hgrn")
class HGRN(SequenceMixer):
    """h_t = f_t h_{t-1} + (1 - f_t) silu(W_i x_t), f_t = l + (1 - l) sigmoid(W_f x_t); y = W (norm(h) * silu(W_g x)).

    The lower bound l of the forget gate grows from layer to layer in the paper, so that deep layers remember longest:
    `HGRN(dim, lower_bound=depth / layers)`. The state is real, not turned by an angle. The recurrence is in fp32. A
    masked token leaves the state as it is. Grids are read in raster order.
    Paper: "Hierarchically Gated Recurrent Neural Network for Sequence Modeling", arXiv 2311.04823.

    Args:
        dim: width of the tokens.
        expansion: width of the state, as a multiple of `dim`.
        lower_bound: l, from 0 up to but not including 1.
        bias: bias of all projections.
        norm_eps: added to the mean square of the state.

    Raises QuintetError for a lower bound outside of its range.
    """

    title = "HGRN: a gated recurrence whose lowest rate of forgetting is learned"
    paper = "Hierarchically Gated Recurrent Neural Network for Sequence Modeling, arXiv 2311.04823"
    resets: ClassVar[bool] = True
    variants: ClassVar[dict[str, dict[str, Any]]] = {"bounded": {"expansion": 1.5, "lower_bound": 0.7, "bias": True}}

    def __init__(
        self,
        dim: int,
        expansion: float = 1.0,
        lower_bound: float = 0.0,
        bias: bool = False,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        if not 0.0 <= lower_bound < 1.0:
            raise QuintetError(f"HGRN's lower_bound of the forget gate is in [0, 1); got {lower_bound}")
        self.dim, self.lower_bound = dim, lower_bound
        inner = round(dim * expansion)
        self.input = nn.Linear(dim, inner, bias=bias)
        self.forget_gate = nn.Linear(dim, inner, bias=bias)
        self.output_gate = nn.Linear(dim, inner, bias=bias)
        self.norm = GatedNorm(inner, norm_eps)
        self.proj = nn.Linear(inner, dim, bias=bias)

    def recur(
        self,
        x: Float[Tensor, "batch time dim"],
        state: Float[Tensor, "batch inner"] | None,
        mask: Bool[Tensor, "batch time"] | None = None,
        cu_seqlens: Int[Tensor, " boundaries"] | None = None,
    ) -> tuple[Float[Tensor, "batch time dim"], Float[Tensor, "batch inner"]]:
        dtype = torch.promote_types(x.dtype, torch.float32)
        gate = self.forget_gate(x).to(dtype)
        # 1 - f from the sigmoid's other tail, and f from it, keep the digits that 1 - f would lose where f is near one.
        written = (1.0 - self.lower_bound) * torch.sigmoid(-gate)
        log_decay = torch.log1p(-written) if self.lower_bound else F.logsigmoid(gate)
        written = written * F.silu(self.input(x).to(dtype))
        log_decay = forget_at_borders(mask_tokens(log_decay, mask), cu_seqlens)
        h, state = linear_scan(mask_tokens(written, mask), log_decay, state, decay_is_log=True)
        return self.proj(self.norm(h.to(x.dtype), self.output_gate(x))), state

    def extra_repr(self) -> str:
        return f"lower_bound={self.lower_bound}"
