"""The sLSTM: a recurrence with exponential gates whose heads mix their memory from step to step."""

import math
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ...kernels.slstm import SLSTMState, slstm
from ..convolution.short import ShortConvolution
from ..mixer import SequenceMixer, resolve_num_heads
from ..norm.head_norm import HeadNorm
from ..weights.registry import register_mixer


class SLSTMLayerState(NamedTuple):
    """What the layer remembers: the state of the recurrence and, with a convolution, its last tokens, all fp32."""

    recurrence: SLSTMState
    convolution: Float[Tensor, "batch past dim"] | None


@register_mixer("slstm")
class SLSTM(SequenceMixer):
    """y = HeadNorm(h), h the sLSTM recurrence on gates i, f, z, o, each linear in the tokens, separately for each head.

    The gates i and f see the tokens through a short convolution. A masked token is passed over: the recurrence goes
    from the real token before it to the one after. Heads do not mix; a feed-forward layer follows in the paper. Grids
    are read in raster order.
    Paper: "xLSTM: Extended Long Short-Term Memory", arXiv 2405.04517.

    Args:
        dim: width of the tokens.
        num_heads: None means dim // 32.
        convolution_width: tokens that the convolution before i and f sees; 0 leaves it out.
        forget_gate: "sigmoid" or "exponential".
        norm_eps: added to the variance of each head.
    """

    title = "sLSTM: an LSTM with exponential gates, step by step"
    paper = "xLSTM: Extended Long Short-Term Memory, arXiv 2405.04517"
    passes_over: ClassVar[bool] = True
    # Packed sequences are padded: the last output enters all gates through R, which no gate of a token can undo.
    no_weight_decay: ClassVar[tuple[str, ...]] = ("gate_bias",)
    stacked_weights: ClassVar[dict[str, int]] = {"gate_weight": 2, "recurrent_weight": 1}
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "plain": {"convolution_width": 0, "num_heads": 4},
        "exponential": {"forget_gate": "exponential", "num_heads": 1},
    }

    def __init__(
        self,
        dim: int,
        num_heads: int | None = None,
        convolution_width: int = 4,
        forget_gate: Literal["sigmoid", "exponential"] = "sigmoid",
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.dim, self.num_heads = dim, resolve_num_heads(dim, num_heads)
        self.forget_gate = forget_gate
        head_dim = dim // self.num_heads
        self.convolution = ShortConvolution(dim, convolution_width) if convolution_width else None
        self.gate_weight = nn.Parameter(torch.empty(4, self.num_heads, head_dim, head_dim))  # gate, head, out, in
        self.gate_bias = nn.Parameter(torch.empty(4, self.num_heads, head_dim))
        self.recurrent_weight = nn.Parameter(torch.empty(self.num_heads, head_dim, 4, head_dim))  # head, in, gate, out
        self.norm = HeadNorm(dim, self.num_heads, norm_eps)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As in the paper: no memory mixing at first, and forget gates from ever open to hardly open in each head."""
        nn.init.normal_(self.gate_weight, std=math.sqrt(2 / (5 * self.dim)))
        nn.init.zeros_(self.recurrent_weight)
        nn.init.zeros_(self.gate_bias)
        forget = 5.0 - 12.0 * torch.linspace(0, 1, self.gate_bias.shape[-1]) ** 0.3
        with torch.no_grad():
            self.gate_bias[1] = forget if self.forget_gate == "sigmoid" else F.logsigmoid(forget)

    def recur(
        self, x: Float[Tensor, "batch time dim"], state: SLSTMLayerState | None
    ) -> tuple[Float[Tensor, "batch time dim"], SLSTMLayerState]:
        recurrence, last = (None, None) if state is None else state
        sources = [x]
        if self.convolution is not None:
            convolved, last = self.convolution(x, last)
            sources = [convolved, x]
        gates = [
            torch.einsum("bthd,ghed->btghe", source.unflatten(-1, (self.num_heads, -1)), weight)
            for source, weight in zip(sources, self.gate_weight.chunk(len(sources)))
        ]
        gates = gates[0] if len(gates) == 1 else torch.cat(gates, dim=2)
        y, recurrence = slstm(gates, self.recurrent_weight, self.gate_bias, recurrence, self.forget_gate)
        return self.norm(y), SLSTMLayerState(recurrence, last)
