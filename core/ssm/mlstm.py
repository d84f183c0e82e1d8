"""The mLSTM: a matrix memory with exponential gates, one decision a head and token."""

from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...kernels.mlstm import MLSTMState, mlstm
from ..mixer import SequenceMixer, call_padded, resolve_num_heads, set_apart
from ..norm.head_norm import HeadNorm
from ..weights.registry import register_mixer


@register_mixer("mlstm")
class MLSTM(SequenceMixer):
    """y = W (sigmoid(o) * HeadNorm(h)), h the mLSTM recurrence on q, k, v and the gates i, f; all linear in the tokens.

    A masked token leaves the memory as it is. Grids are read in raster order. Gates and memory are in fp32, also under
    autocast. Papers: "xLSTM: Extended Long Short-Term Memory", arXiv 2405.04517; this form of the layer: "xLSTM 7B",
    arXiv 2503.13427.

    Args:
        dim: width of the tokens.
        num_heads: None means dim // 32.
        key_factor: width of queries and of keys, as a multiple of `dim`.
        bias: bias of all projections but the gates', which always have one.
        gate_soft_cap: c in c tanh(gate / c), which bounds the gates i and f; None leaves them as they are.
        norm_eps: added to the variance of each head.
    """

    title = "mLSTM: an LSTM with a matrix for its memory and exponential gates"
    paper = "xLSTM: Extended Long Short-Term Memory, arXiv 2405.04517"
    resets: ClassVar[bool] = True
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "wide keys": {"key_factor": 1.0, "num_heads": 4, "bias": True, "gate_soft_cap": None}
    }

    def __init__(
        self,
        dim: int,
        num_heads: int | None = None,
        key_factor: float = 0.5,
        bias: bool = False,
        gate_soft_cap: float | None = 15.0,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.dim, self.num_heads = dim, resolve_num_heads(dim, num_heads)
        self.gate_soft_cap = gate_soft_cap
        key_dim = self.split_width("keys", key_factor=key_factor)
        self.query = nn.Linear(dim, key_dim, bias=bias)
        self.key = nn.Linear(dim, key_dim, bias=bias)
        self.value = nn.Linear(dim, dim, bias=bias)
        self.input_gate = nn.Linear(dim, self.num_heads)
        self.forget_gate = nn.Linear(dim, self.num_heads)
        self.output_gate = nn.Linear(dim, dim, bias=bias)
        self.norm = HeadNorm(dim, self.num_heads, norm_eps)
        self.proj = nn.Linear(dim, dim, bias=bias)
        for gate in (self.input_gate, self.forget_gate):
            nn.init.zeros_(gate.weight)
        nn.init.normal_(self.input_gate.bias, std=0.1)
        with torch.no_grad():  # memories of 20 to 400 tokens
            self.forget_gate.bias.copy_(torch.linspace(3.0, 6.0, self.num_heads))

    def forward_packed(
        self, tokens: Float[Tensor, "tokens dim"], cu_seqlens: Int[Tensor, " boundaries"]
    ) -> Float[Tensor, "tokens dim"]:
        if tokens.device.type == "mps":  # has no float64, which many resets need in sums of log decays
            return call_padded(self, tokens, cu_seqlens)
        return super().forward_packed(tokens, cu_seqlens)

    def recur(
        self,
        x: Float[Tensor, "batch time dim"],
        state: MLSTMState | None,
        mask: Bool[Tensor, "batch time"] | None = None,
        cu_seqlens: Int[Tensor, " boundaries"] | None = None,
    ) -> tuple[Float[Tensor, "batch time dim"], MLSTMState]:
        places = None
        if cu_seqlens is not None:
            x, places = set_apart(x, cu_seqlens, 1)
        query, key, value = (
            layer(x).unflatten(-1, (self.num_heads, -1)) for layer in (self.query, self.key, self.value)
        )
        with torch.autocast(x.device.type, enabled=False):
            input_gate, forget_gate = (self._gate(layer, x) for layer in (self.input_gate, self.forget_gate))
        if mask is not None:
            masked = ~mask.unsqueeze(-1)
            input_gate, forget_gate = (
                input_gate.masked_fill(masked, -torch.inf),
                forget_gate.masked_fill(masked, torch.inf),
            )
        if places is not None:
            # Before each sequence a step that writes nothing with i = 0 and keeps exp(-1e4), which is 0: it leaves the
            # state of a start, m = 0 included. The gate is finite, for the kernel subtracts running sums of log decays.
            between = torch.ones(x.shape[1], 1, dtype=torch.bool, device=x.device).index_fill(0, places, False)
            key = key.masked_fill(between.unsqueeze(-1), 0.0)
            input_gate, forget_gate = input_gate.masked_fill(between, 0.0), forget_gate.masked_fill(between, -1e4)
        h, state = mlstm(query, key, value, input_gate, forget_gate, state)
        if places is not None:
            x, h = x.index_select(1, places), h.index_select(1, places)
        return self.proj(torch.sigmoid(self.output_gate(x)) * self.norm(h)), state

    def _gate(self, layer: nn.Linear, x: Tensor) -> Tensor:
        gate, cap = layer(x.to(layer.weight.dtype)), self.gate_soft_cap
        return gate if cap is None else cap * torch.tanh(gate / cap)
