"""Gated linear attention: linear attention that decides for each channel of the key what to forget."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ....kernels.gated_linear_attention import gated_linear_attention
from ...mixer import SequenceMixer, forget_at_borders, mask_tokens, resolve_num_heads
from ...norm.gated_norm import GatedNorm
from ...weights.registry import register_mixer


@register_mixer("gated_linear")
class GatedLinearAttention(SequenceMixer):
    """y = W (norm(o) * silu(W_r x)), o_t = S_tᵀ q_t / sqrt(head_dim), S_t = diag(a_t) S_{t-1} + k_t v_tᵀ in each head,

    with decays a = sigmoid(W_2 W_1 x + b)^(1 / temperature) from a projection of low rank. Each head is divided by its
    root mean square. A masked token leaves the state as it is. Grids are read in raster order. Decays, sums and states
    are in fp32. Paper: "Gated Linear Attention Transformers with Hardware-Efficient Training", arXiv 2312.06635.

    Args:
        dim: width of the tokens.
        num_heads: None means dim // 32.
        key_factor: width of queries and keys, as a multiple of `dim`.
        gate_rank: width of W_1 x.
        temperature: the larger, the slower to forget.
        bias: bias of all projections but the decays', which always have one.
        norm_eps: added to the mean square of each head.

    Raises QuintetError where the heads do not divide the width of queries and keys.
    """

    title = "Gated linear attention: a memory whose every channel forgets by gates of the token"
    paper = "Gated Linear Attention Transformers with Hardware-Efficient Training, arXiv 2312.06635"
    resets: ClassVar[bool] = True
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "forgetful": {"num_heads": 4, "key_factor": 1.0, "gate_rank": 8, "temperature": 0.2, "bias": True}
    }

    def __init__(
        self,
        dim: int,
        num_heads: int | None = None,
        key_factor: float = 0.5,
        gate_rank: int = 16,
        temperature: float = 16.0,
        bias: bool = False,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.dim, self.num_heads, self.temperature = dim, resolve_num_heads(dim, num_heads), temperature
        key_dim = self.split_width("keys", key_factor=key_factor)
        self.query = nn.Linear(dim, key_dim, bias=bias)
        self.key = nn.Linear(dim, key_dim, bias=bias)
        self.value = nn.Linear(dim, dim, bias=bias)
        self.decay = nn.Sequential(nn.Linear(dim, gate_rank, bias=False), nn.Linear(gate_rank, key_dim))
        self.gate = nn.Linear(dim, dim, bias=bias)
        self.norm = GatedNorm(dim // self.num_heads, norm_eps)
        self.proj = nn.Linear(dim, dim, bias=bias)

    def recur(
        self,
        x: Float[Tensor, "batch time dim"],
        state: Float[Tensor, "batch heads key_dim value_dim"] | None,
        mask: Bool[Tensor, "batch time"] | None = None,
        cu_seqlens: Int[Tensor, " boundaries"] | None = None,
    ) -> tuple[Float[Tensor, "batch time dim"], Float[Tensor, "batch heads key_dim value_dim"]]:
        gates = self.decay(x).to(torch.promote_types(x.dtype, torch.float32))
        log_decay = mask_tokens(F.logsigmoid(gates) / self.temperature, mask)
        log_decay = forget_at_borders(log_decay, cu_seqlens)
        tensors = (self.query(x), mask_tokens(self.key(x), mask), self.value(x), log_decay, self.gate(x))
        query, key, value, log_decay, gate = (tensor.unflatten(-1, (self.num_heads, -1)) for tensor in tensors)
        y, state = gated_linear_attention(query, key, value, log_decay, state)
        return self.proj(self.norm(y.to(gate.dtype), gate).flatten(2)), state

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, temperature={self.temperature}"
