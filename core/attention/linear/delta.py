"""Linear attention that corrects its memory by the delta rule, with decay: Gated DeltaNet, and DeltaNet without it."""

import math
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ....kernels.delta_rule import delta_rule
from ...convolution.short import ShortConvolution
from ...mixer import SequenceMixer, forget_at_borders, resolve_num_heads
from ...norm.gated_norm import GatedNorm
from ...norm.rms_norm import RMSNorm
from ...weights.registry import register_mixer


class GatedDeltaNetState(NamedTuple):
    """What the layer remembers: its memory and, with a convolution, the last tokens that it saw, all fp32."""

    memory: Float[Tensor, "batch heads key_dim value_dim"]
    convolution: Float[Tensor, "batch past channels"] | None


@register_mixer("gated_deltanet")
class GatedDeltaNet(SequenceMixer):
    """y = W norm(o), o the delta rule on q, k, v, beta and the log decay g; norm is of each head, with a gate.

    q, k and v are linear in the tokens, then see the last of them through a short convolution, then SiLU; q and k are
    normalized to length 1. beta = sigmoid(b), g = -A softplus(a), with b and a linear in the tokens, one each a head,
    and A learned. A masked token leaves the memory as it is. Grids are read in raster order. Gates and memory are in
    fp32, also under autocast. Papers: "Gated Delta Networks", arXiv 2412.06464; without decay and gate: "Parallelizing
    Linear Transformers with the Delta Rule over Sequence Length", arXiv 2406.06484.

    Args:
        dim: width of the tokens.
        num_heads: None means dim // 32.
        value_factor: width of the values of all heads together, as a multiple of `dim`; keys are `dim` wide.
        convolution_width: tokens that the convolution sees; 0 leaves it out.
        decay: learn how fast the memory fades; without, it only changes where it is corrected.
        output_gate: multiply each head's norm by SiLU of a linear function of the token.
        norm_eps: added to the mean square of each head.
    """

    title = "Gated DeltaNet: a memory that replaces what it knew of a key, and forgets"
    paper = "Gated Delta Networks, arXiv 2412.06464"
    resets: ClassVar[bool] = True
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "deltanet": {"decay": False, "output_gate": False},
        "wide values": {"value_factor": 1.5, "num_heads": 4, "convolution_width": 0},
    }

    def __init__(
        self,
        dim: int,
        num_heads: int | None = None,
        value_factor: float = 1.0,
        convolution_width: int = 4,
        decay: bool = True,
        output_gate: bool = True,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.dim, self.num_heads = dim, resolve_num_heads(dim, num_heads)
        value_dim = self.split_width("values", value_factor=value_factor)
        self.widths = (dim, dim, value_dim)
        self.qkv = nn.Linear(dim, sum(self.widths), bias=False)
        self.convolution = (
            ShortConvolution(sum(self.widths), convolution_width, bias=False) if convolution_width else None
        )
        self.beta = nn.Linear(dim, self.num_heads, bias=False)
        self.decay = nn.Linear(dim, self.num_heads) if decay else None
        self.log_rate = nn.Parameter(torch.empty(self.num_heads)) if decay else None
        self.gate = nn.Linear(dim, value_dim, bias=False) if output_gate else None
        head_norm = GatedNorm if output_gate else RMSNorm
        self.norm = head_norm(value_dim // self.num_heads, eps=norm_eps)
        self.proj = nn.Linear(value_dim, dim, bias=False)
        if decay:
            self._reset_decay()

    def _reset_decay(self) -> None:
        """Rates A uniform up to 16, times softplus(a) log-uniform from 0.001 to 0.1, as in the paper and in Mamba-2."""
        with torch.no_grad():
            self.log_rate.uniform_(1e-2, 16.0).log_()
            steps = torch.empty_like(self.decay.bias).uniform_(math.log(1e-3), math.log(1e-1)).exp()
            self.decay.bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # the inverse of softplus

    def recur(
        self,
        x: Float[Tensor, "batch time dim"],
        state: GatedDeltaNetState | None,
        mask: Bool[Tensor, "batch time"] | None = None,
        cu_seqlens: Int[Tensor, " boundaries"] | None = None,
    ) -> tuple[Float[Tensor, "batch time dim"], GatedDeltaNetState]:
        memory, last = (None, None) if state is None else state
        qkv = self.qkv(x)
        if self.convolution is None:
            qkv = F.silu(qkv)
        else:
            qkv, last = self.convolution(qkv, last, cu_seqlens)
        query, key, value = (part.unflatten(-1, (self.num_heads, -1)) for part in qkv.split(self.widths, dim=-1))
        query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
        beta, log_decay = self._gates(x, mask)
        if cu_seqlens is not None:
            log_decay = forget_at_borders(torch.zeros_like(beta) if log_decay is None else log_decay, cu_seqlens)
        output, memory = delta_rule(query, key, value, beta, log_decay, memory)
        if self.gate is None:
            output = self.norm(output)
        else:
            output = self.norm(output, self.gate(x).unflatten(-1, (self.num_heads, -1)))
        return self.proj(output.flatten(2)), GatedDeltaNetState(memory, last)

    def _gates(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """beta and the log decay; both are zero at masked tokens, which then do nothing."""
        x = x.to(torch.promote_types(self.beta.weight.dtype, torch.float32))
        with torch.autocast(x.device.type, enabled=False):
            beta, log_decay = torch.sigmoid(_linear(self.beta, x)), None
            if self.decay is not None:
                # log sigmoid(-a) is -softplus(a), whose backward has other strides than the compiler takes it to have.
                log_decay = self.log_rate.to(x.dtype).exp() * F.logsigmoid(-_linear(self.decay, x))
        if mask is not None:
            masked = ~mask.unsqueeze(-1)
            beta = beta.masked_fill(masked, 0.0)
            log_decay = None if log_decay is None else log_decay.masked_fill(masked, 0.0)
        return beta, log_decay


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """The layer in the dtype of x, float32 also for a layer in half precision."""
    return F.linear(x, layer.weight.to(x.dtype), None if layer.bias is None else layer.bias.to(x.dtype))
