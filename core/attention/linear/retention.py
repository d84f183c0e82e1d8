"""Retention: linear attention whose heads forget at fixed rates."""

from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ....kernels.decay_linear_attention import decay_linear_attention
from ....kernels.rotary import rotary, rotary_angles
from ...errors import QuintetError
from ...mixer import SequenceMixer, forget_at_borders, places_in_sequences, resolve_num_heads
from ...norm.gated_norm import GatedNorm
from ...weights.registry import register_mixer


class RetentionState(NamedTuple):
    """What retention remembers of a sequence: the decayed sum of k vᵀ, fp32, and how many tokens there were."""

    memory: Float[Tensor, "batch heads head_dim value_dim"]
    position: Int[Tensor, ""]


@register_mixer("retention")
class Retention(SequenceMixer):
    """y = W (norm(o) * silu(W_g x)), o_i = sum_{j <= i} gamma^{i-j} (q_i · k_j / sqrt(head_dim)) v_j in each head.

    Heads forget at rates from gamma = 1 - 1/32 for the first to 1 - 1/512 for the last, evenly in the logarithm of
    1 - gamma. Queries and keys are turned by rotary positions. Each head is standardized by itself (group norm). Keys
    at masked tokens are zero; time passes there too. Grids are read in raster order. Decays and states are in fp32.
    Paper: "Retentive Network: A Successor to Transformer for Large Language Models", arXiv 2307.08621.

    Args:
        dim: width of the tokens.
        num_heads: None means dim // 32.
        value_factor: width of values, as a multiple of `dim`.
        rotary_base: ratio between the longest and the shortest wavelength.
        bias: bias of all projections.
        norm_eps: added to the variance of each head.

    Raises QuintetError where heads cannot be split evenly or have an odd width.
    """

    title = "Retention: linear attention in which each head forgets at a rate of its own"
    paper = "Retentive Network, arXiv 2307.08621"
    resets: ClassVar[bool] = True
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "narrow": {"num_heads": 4, "value_factor": 1.0, "bias": True},
        "one head": {"num_heads": 1},
    }

    def __init__(
        self,
        dim: int,
        num_heads: int | None = None,
        value_factor: float = 2.0,
        rotary_base: float = 10000.0,
        bias: bool = False,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.dim, self.num_heads, self.rotary_base = dim, resolve_num_heads(dim, num_heads), rotary_base
        value_dim, head_dim = round(dim * value_factor), dim // self.num_heads
        if head_dim % 2 or value_dim % self.num_heads:
            raise QuintetError(
                f"Retention(dim={dim}, num_heads={self.num_heads}) has heads of width {head_dim}, which must be even "
                f"for rotary positions, and values of width {value_dim}, which the heads must divide"
            )
        self.query = nn.Linear(dim, dim, bias=bias)
        self.key = nn.Linear(dim, dim, bias=bias)
        self.value = nn.Linear(dim, value_dim, bias=bias)
        self.gate = nn.Linear(dim, value_dim, bias=bias)
        self.norm = GatedNorm(value_dim // self.num_heads, norm_eps, kind="layer", weight=False)
        self.proj = nn.Linear(value_dim, dim, bias=bias)

    def recur(
        self,
        x: Float[Tensor, "batch time dim"],
        state: RetentionState | None,
        mask: Bool[Tensor, "batch time"] | None = None,
        cu_seqlens: Int[Tensor, " boundaries"] | None = None,
    ) -> tuple[Float[Tensor, "batch time dim"], RetentionState]:
        memory, position = (None, torch.zeros((), dtype=torch.int64, device=x.device)) if state is None else state
        layers = (self.query, self.key, self.value, self.gate)
        query, key, value, gate = (layer(x).unflatten(-1, (self.num_heads, -1)) for layer in layers)
        log_decay, places = self.log_decay(x), position + torch.arange(x.shape[1], device=x.device)
        if cu_seqlens is not None:
            log_decay = forget_at_borders(log_decay.expand(*x.shape[:2], -1), cu_seqlens)
            places = places_in_sequences(cu_seqlens, x.shape[1])
        places = places.unsqueeze(-1)
        if x.dtype == torch.float64:
            places = places.double()
        query, key = rotary(query, key, rotary_angles(places, query.shape[-1] // 2, self.rotary_base))
        if mask is not None:
            key = key.masked_fill(~mask[:, :, None, None], 0.0)
        y, memory = decay_linear_attention(query, key, value, log_decay, memory)
        y = self.norm(y.to(gate.dtype), gate).flatten(2)
        return self.proj(y), RetentionState(memory, position + x.shape[1])

    def log_decay(self, x: Tensor) -> Float[Tensor, " heads"]:
        """log gamma of each head, on the device of `x`."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        exponents = torch.linspace(5.0, 9.0, self.num_heads, device=x.device, dtype=dtype)
        return torch.log1p(-(2.0**-exponents))

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, rotary_base={self.rotary_base}"
