"""Published implementations that `quintet bench kernels` times beside ours from a checkout, where they are installed.

Each takes the arguments of our operation, and what it cannot do it refuses by NotImplementedError. Before it is timed
it must agree with our reference on the case.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from quintet.core.bench.peers import Peer
from quintet.kernels.mlstm import MLSTMState
from quintet.kernels.slstm import SLSTMState

LARGEST_MASK = 1 << 24  # elements: beyond, attention with a dense mask is not worth waiting for


def _only(supported: bool, what: str) -> None:
    if not supported:
        raise NotImplementedError(f"only {what}")


# --- norms, gates, positions ------------------------------------------------------------------------------------------


def torch_rms_norm(x: Tensor, weight: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], weight, eps)


def liger_rms_norm(x: Tensor, weight: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    from liger_kernel.transformers.functional import liger_rms_norm as run

    _only(weight is not None, "with a weight")
    return run(x, weight, eps, in_place=False)


def torch_layer_norm(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-6, offset: float = 0.0
) -> Tensor:
    _only(not offset, "without an offset")
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def liger_layer_norm(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-6, offset: float = 0.0
) -> Tensor:
    from liger_kernel.transformers.functional import liger_layer_norm as run

    _only(weight is not None and bias is not None and not offset, "with weight and bias, without an offset")
    return run(x, weight, bias, eps)


def torch_add_norm(
    x: Tensor, residual: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-6,
    kind: str = "rms", offset: float = 0.0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    total = residual + x
    if kind == "layer":
        return total, torch_layer_norm(total, weight, bias, eps, offset)
    _only(bias is None and not offset, "root mean squares without bias and offset")
    return total, torch_rms_norm(total, weight, eps)


def liger_add_norm(
    x: Tensor, residual: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-6,
    kind: str = "rms", offset: float = 0.0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    from liger_kernel.transformers.functional import liger_fused_add_rms_norm as run

    _only(kind == "rms" and weight is not None and bias is None, "root mean squares with a weight, without bias")
    y, total = run(x, residual, weight, eps, offset, in_place=False)
    return total, y


def torch_gated_norm(
    x: Tensor, gate: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-6,
    kind: str = "rms", activation: str = "silu", offset: float = 0.0,
) -> Tensor:  # fmt: skip
    _only(activation == "silu", "silu")
    if kind == "layer":
        return torch_layer_norm(x, weight, bias, eps, offset) * F.silu(gate)
    _only(bias is None and not offset, "root mean squares without bias and offset")
    return torch_rms_norm(x, weight, eps) * F.silu(gate)


def fla_gated_norm(
    x: Tensor, gate: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-6,
    kind: str = "rms", activation: str = "silu", offset: float = 0.0,
) -> Tensor:  # fmt: skip
    from fla.modules.norm.fused_norm_gate import rms_norm_gated

    _only(kind == "rms" and activation == "silu" and not offset, "root mean squares and silu, without an offset")
    return rms_norm_gated(x, gate, weight, bias, activation="swish", eps=eps)


def torch_modulate(
    x: Tensor, scale: Tensor, shift: Tensor | None = None, eps: float = 1e-6, kind: str = "layer"
) -> Tensor:
    normalize = torch_layer_norm if kind == "layer" else torch_rms_norm
    places = (len(x), *(1 for _ in range(x.ndim - 2)), -1)
    y = normalize(x, eps=eps) * (1 + scale.view(places))
    return y if shift is None else y + shift.view(places)


def liger_glu(gate: Tensor, value: Tensor | None = None, activation: str = "silu") -> Tensor:
    from liger_kernel.transformers.functional import liger_geglu, liger_swiglu

    _only(activation in ("silu", "gelu_tanh"), "silu and gelu_tanh")
    gate, value = gate.chunk(2, -1) if value is None else (gate, value)
    return (liger_swiglu if activation == "silu" else liger_geglu)(gate, value)


def fla_rotary(query: Tensor, key: Tensor, angles: Tensor, layout: str = "half") -> tuple[Tensor, Tensor]:
    from fla.modules.rotary.ops import rotary_embedding_ref

    _only(angles.ndim == query.ndim - 2, "positions that samples share")
    tables = angles.flatten(0, -2)
    cos, sin = tables.cos().to(query.dtype), tables.sin().to(query.dtype)
    turned = (
        rotary_embedding_ref(x.flatten(1, -3), cos, sin, interleaved=layout == "interleaved") for x in (query, key)
    )
    return tuple(y.view_as(x) for x, y in zip((query, key), turned))


def liger_rotary(query: Tensor, key: Tensor, angles: Tensor, layout: str = "half") -> tuple[Tensor, Tensor]:
    from liger_kernel.transformers.functional import liger_rope

    _only(layout == "half" and angles.ndim == 2 and query.ndim == 4, "the layout 'half' and sequences")
    tables = torch.cat((angles, angles), -1).unsqueeze(0)
    cos, sin = tables.cos().to(query.dtype), tables.sin().to(query.dtype)
    # It writes into its inputs.
    turned = liger_rope(query.transpose(1, 2).clone(), key.transpose(1, 2).clone(), cos, sin)
    return tuple(x.transpose(1, 2) for x in turned)


# --- attention --------------------------------------------------------------------------------------------------------


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **settings: Any) -> Tensor:
    """Scaled dot product attention of (batch, tokens, heads, head_dim)."""
    heads_first = (tensor.transpose(1, 2) for tensor in (query, key, value))
    return F.scaled_dot_product_attention(*heads_first, attn_mask=mask, **settings).transpose(1, 2)


@cache
def _neighborhood(grid: tuple[int, ...], kernel_size: tuple[int, ...], device: torch.device) -> Tensor:
    """Which tokens a token sees: windows of a fixed size that shift inwards at the borders."""
    sees = torch.ones(1, 1, dtype=torch.bool, device=device)
    for length, size in zip(grid, kernel_size):
        place, size = torch.arange(length, device=device), min(size, length)
        first = (place - size // 2).clamp(0, length - size).unsqueeze(1)
        axis = (place >= first) & (place < first + size)
        sees = torch.kron(sees, axis)
    return sees


def _plain_windows(query: Tensor, kernel_size: Any, settings: dict[str, Any]) -> tuple[tuple[int, ...], ...]:
    rank = query.ndim - 3
    plain = all(settings.get(name) is None for name in ("bias", "mask", "scale"))
    plain = plain and settings.get("dilation", 1) in (1, (1,) * rank) and not settings.get("causal")
    _only(plain, "windows without bias, mask, dilation and causality")
    return tuple(query.shape[1:-2]), (kernel_size,) * rank if isinstance(kernel_size, int) else tuple(kernel_size)


def masked_neighborhood_attention(query: Tensor, key: Tensor, value: Tensor, kernel_size: Any, **settings) -> Tensor:
    grid, sizes = _plain_windows(query, kernel_size, settings)
    _only(query[0, ..., 0, 0].numel() ** 2 <= LARGEST_MASK, f"grids of {LARGEST_MASK**0.5:.0f} tokens or fewer")
    mask = _neighborhood(grid, sizes, query.device)
    return _attend(*(tensor.flatten(1, -3) for tensor in (query, key, value)), mask).view_as(query)


def flex_neighborhood_attention(query: Tensor, key: Tensor, value: Tensor, kernel_size: Any, **settings) -> Tensor:
    grid, sizes = _plain_windows(query, kernel_size, settings)
    flat = (tensor.flatten(1, -3).transpose(1, 2) for tensor in (query, key, value))
    attend, mask = _flex(grid, sizes, query.device)
    return attend(*flat, block_mask=mask).transpose(1, 2).reshape(query.shape)


@cache
def _flex(grid: tuple[int, ...], kernel_size: tuple[int, ...], device: torch.device) -> tuple[Callable, Any]:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def sees(batch, head, token, other):
        inside = token == token
        for length, size in zip(reversed(grid), reversed(kernel_size)):
            size = min(size, length)
            first = (token % length - size // 2).clamp(0, length - size)
            inside = inside & (other % length >= first) & (other % length < first + size)
            token, other = token // length, other // length
        return inside

    tokens = torch.Size(grid).numel()
    mask = torch.compile(create_block_mask)(sees, None, None, tokens, tokens, device=device.type)
    return torch.compile(flex_attention, dynamic=False), mask


def natten_neighborhood_attention(
    query: Tensor, key: Tensor, value: Tensor, kernel_size: Any, dilation: Any = 1, causal: Any = False,
    bias: Tensor | None = None, mask: Tensor | None = None, scale: float | None = None,
) -> Tensor:  # fmt: skip
    import natten

    _only(bias is None and mask is None, "without bias and mask")
    run = (natten.na1d, natten.na2d, natten.na3d)[query.ndim - 4]
    return run(query, key, value, kernel_size=kernel_size, dilation=dilation, is_causal=causal, scale=scale)


def masked_bias_attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None, mask: Tensor | None = None,
    causal: bool = False, slopes: Tensor | None = None, scale: float | None = None,
) -> Tensor:  # fmt: skip
    """The bias made to a dense addend, with minus infinity where keys are not seen."""
    (batch, queries), keys = query.shape[:2], key.shape[1]
    addend = torch.zeros(1, 1, queries, keys, dtype=query.dtype, device=query.device)
    if bias is not None:
        addend = addend + (bias if bias.ndim == 4 else bias.unsqueeze(0))
    place = torch.arange(keys, device=query.device)
    distance = place[keys - queries :].unsqueeze(1) - place
    if slopes is not None:
        addend = addend - slopes[:, None, None] * distance.abs()
    if causal:
        addend = addend.masked_fill(distance < 0, -torch.inf)
    if mask is not None:
        seen = mask.unsqueeze(1) if mask.ndim == 3 else mask[:, None, None]
        groups = max(len(mask), len(addend))
        addend = addend.expand(groups, -1, -1, -1).masked_fill(~seen, -torch.inf)
    addend = addend.repeat(batch // len(addend), 1, 1, 1) if len(addend) > 1 else addend
    return _attend(query, key, value, addend.to(query.dtype), scale=scale)


def masked_segment_attention(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, edge_index: Tensor | None = None,
    edge_bias: Tensor | None = None, causal: bool = False, scale: float | None = None,
) -> Tensor:  # fmt: skip
    """All segments as one sequence, with a dense mask."""
    tokens = len(query)
    _only(edge_index is None, "without edges")
    _only(tokens**2 <= LARGEST_MASK, f"{LARGEST_MASK**0.5:.0f} tokens or fewer")
    lengths = cu_seqlens.diff().long()
    segment = torch.repeat_interleave(torch.arange(len(lengths), device=query.device), lengths)
    mask = segment.unsqueeze(1) == segment
    mask = mask.tril() if causal else mask
    return _attend(*(tensor.unsqueeze(0) for tensor in (query, key, value)), mask, scale=scale).squeeze(0)


# --- recurrences ------------------------------------------------------------------------------------------------------


def mambapy_linear_scan(
    x: Tensor, decay: Tensor, initial_state: Tensor | None = None, decay_is_log: bool = False
) -> tuple[Tensor, Tensor]:
    from mambapy.pscan import pscan

    decay = decay.exp() if decay_is_log else decay
    if initial_state is not None:
        x = torch.cat(((x[:, :1] + decay[:, :1] * initial_state.unsqueeze(1)).to(x.dtype), x[:, 1:]), 1)
    states = pscan(decay.unsqueeze(-1), x.unsqueeze(-1)).squeeze(-1)
    return states, states[:, -1].float()


def mambapy_selective_scan(
    x: Tensor, time_step: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None, gate: Tensor | None = None,
    time_step_bias: Tensor | None = None, initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    from mambapy.pscan import pscan

    delta = F.softplus(time_step if time_step_bias is None else time_step + time_step_bias)
    decay = torch.exp(delta.unsqueeze(-1) * A)
    written = (delta * x).unsqueeze(-1) * B.unsqueeze(2)
    if initial_state is not None:
        written = torch.cat((written[:, :1] + decay[:, :1] * initial_state.unsqueeze(1), written[:, 1:]), 1)
    states = pscan(decay, written)
    y = (states @ C.unsqueeze(-1)).squeeze(-1)
    y = y if D is None else y + D * x
    y = y if gate is None else y * F.silu(gate)
    return y, states[:, -1].float()


def torch_causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str | None = None,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    past = weight.shape[1] - 1
    before = x.new_zeros(len(x), past, x.shape[2]) if initial_state is None else initial_state.to(x.dtype)
    padded = torch.cat((before, x), 1)
    y = F.conv1d(padded.mT, weight.unsqueeze(1), bias, groups=x.shape[2]).mT
    return (F.silu(y) if activation else y), padded[:, padded.shape[1] - past :].float()


def fla_decay_linear_attention(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, initial_state: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    query, key = (part.expand(*value.shape[:3], -1) for part in (query, key))
    log_decay = log_decay.expand(value.shape[:3])
    if query.is_cuda:
        from fla.ops.simple_gla import chunk_simple_gla as run
    else:
        from fla.ops.simple_gla.naive import naive_recurrent_simple_gla as run
    return run(query, key, value, log_decay, scale=scale, initial_state=initial_state, output_final_state=True)


def fla_gated_linear_attention(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, initial_state: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    if query.is_cuda:
        from fla.ops.gla import chunk_gla

        return chunk_gla(
            query, key, value, log_decay, scale=scale, initial_state=initial_state, output_final_state=True
        )
    from fla.ops.gla.naive import naive_recurrent_gla

    _only(scale is None, "the default scale")
    return naive_recurrent_gla(query, key, value, log_decay, initial_state=initial_state, output_final_state=True)


def fla_delta_rule(
    query: Tensor, key: Tensor, value: Tensor, beta: Tensor, log_decay: Tensor | None = None,
    initial_state: Tensor | None = None, scale: float | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    settings = {"scale": scale, "initial_state": initial_state, "output_final_state": True}
    if query.is_cuda and log_decay is None:
        from fla.ops.delta_rule import chunk_delta_rule

        return chunk_delta_rule(query, key, value, beta, **settings)
    if query.is_cuda:
        from fla.ops.gated_delta_rule import chunk_gated_delta_rule

        return chunk_gated_delta_rule(query, key, value, g=log_decay, beta=beta, **settings)
    from fla.ops.gated_delta_rule.naive import naive_recurrent_gated_delta_rule

    log_decay = torch.zeros_like(beta) if log_decay is None else log_decay
    return naive_recurrent_gated_delta_rule(query, key, value, beta, log_decay, **settings)


def mlstm_kernels(
    query: Tensor, key: Tensor, value: Tensor, input_gate: Tensor, forget_gate: Tensor,
    initial_state: MLSTMState | None = None, scale: float | None = None, eps: float = 1e-6,
) -> tuple[Tensor, MLSTMState]:  # fmt: skip
    _only(initial_state is None and scale is None, "from a state of zero, at the default scale")
    parts = [part.transpose(1, 2).contiguous() for part in (query, key, value, input_gate, forget_gate)]
    settings = {"return_last_states": True, "eps": eps, "chunk_size": 64}
    if query.is_cuda:
        from mlstm_kernels.torch.chunkwise.triton_xl_chunk import mlstm_chunkwise__xl_chunk as run

        settings["autocast_kernel_dtype"] = query.dtype
    else:
        from mlstm_kernels.torch.chunkwise.native import mlstm_chunkwise__native_autograd as run
    y, (cell, normalizer, stabilizer) = run(*parts, **settings)
    return y.transpose(1, 2), MLSTMState(cell, normalizer, stabilizer.reshape(normalizer.shape[:2]))


def tirex_slstm(
    x: Tensor, recurrent_weight: Tensor, bias: Tensor | None = None, initial_state: SLSTMState | None = None,
    forget_gate: str = "sigmoid",
) -> tuple[Tensor, SLSTMState]:  # fmt: skip
    """The cell that TiRex runs on a CPU, a loop over the steps, here in the dtype of x and not in bfloat16."""
    from tirex.models.slstm.cell import sLSTMCellTorch

    _only(forget_gate == "sigmoid", "the sigmoid forget gate")
    batch, _, _, heads, head_dim = x.shape
    bias = x.new_zeros(4, heads, head_dim) if bias is None else bias
    order = (2, 0, 1, 3)  # of its states: h, c, n, m
    if initial_state is None:
        states = x.new_zeros(4, batch, heads * head_dim)
    else:
        states = torch.stack([initial_state[place].flatten(1) for place in order])
    y, states = sLSTMCellTorch.slstm_forward(
        x.transpose(0, 1).flatten(2), states, recurrent_weight.flatten(2), bias.flatten()
    )
    hidden, cell, normalizer, stabilizer = states.unflatten(-1, (heads, head_dim)).float().unbind(0)
    y = y.transpose(0, 1).unflatten(-1, (heads, head_dim))
    return y, SLSTMState(cell, normalizer, hidden, stabilizer)


# --- losses -----------------------------------------------------------------------------------------------------------


def one_hot_segmentation_loss(
    logits: Tensor, target: Tensor, class_weight: Tensor | None = None, ignore_index: int = -100,
    cross_entropy: float = 1.0, dice: float = 1.0, focal: float = 0.0, gamma: float = 2.0,
    label_smoothing: float = 0.0, smooth: float = 1e-5, batch_dice: bool = False,
) -> Tensor:  # fmt: skip
    """As losses are commonly put together: `F.cross_entropy`, and Dice from a softmax and a one-hot copy."""
    logits, target = logits.float().flatten(2), target.flatten(1).long()
    settings = {"weight": class_weight, "ignore_index": ignore_index}
    loss = cross_entropy * F.cross_entropy(logits, target, label_smoothing=label_smoothing, **settings)
    counts = (target != ignore_index).unsqueeze(1)
    _only(bool(counts.any()), "where not every pixel is ignored")
    weight = logits.new_ones(logits.shape[1]) if class_weight is None else class_weight
    if focal:
        nll = F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="none")
        weights = torch.where(counts.squeeze(1), weight[target.where(counts.squeeze(1), 0)], 0.0)
        loss = loss + focal * (weights * (1 - torch.exp(-nll)) ** gamma * nll).sum() / weights.sum()
    p = logits.softmax(1) * counts
    one_hot = F.one_hot(target.where(counts.squeeze(1), 0), logits.shape[1]).mT * counts
    axes = (0, 2) if batch_dice else 2
    score = (2 * (p * one_hot).sum(axes) + smooth) / (p.sum(axes) + one_hot.sum(axes) + smooth)
    return loss + dice * (1 - (score * weight).sum(-1) / weight.sum()).mean()


GPU = ("cuda",)
PEERS: dict[str, tuple[Peer, ...]] = {
    "rms_norm": (
        Peer("F.rms_norm", torch_rms_norm),
        Peer("liger", liger_rms_norm, package="liger_kernel", devices=GPU),
    ),
    "layer_norm": (
        Peer("F.layer_norm", torch_layer_norm),
        Peer("liger", liger_layer_norm, package="liger_kernel", devices=GPU),
    ),
    "add_norm": (
        Peer("F.rms_norm, F.layer_norm", torch_add_norm),
        Peer("liger", liger_add_norm, package="liger_kernel", devices=GPU),
    ),
    "gated_norm": (
        Peer("F.rms_norm, F.layer_norm", torch_gated_norm),
        Peer("fla", fla_gated_norm, package="fla", devices=GPU),
    ),
    "modulate": (Peer("F.rms_norm, F.layer_norm", torch_modulate),),
    "glu": (Peer("liger", liger_glu, package="liger_kernel", devices=GPU),),
    "rotary": (
        Peer("fla naive", fla_rotary, package="fla"),
        Peer("liger", liger_rotary, package="liger_kernel", devices=GPU),
    ),
    "neighborhood_attention": (
        Peer("SDPA, dense mask", masked_neighborhood_attention),
        Peer("FlexAttention", flex_neighborhood_attention, devices=GPU),
        Peer("natten", natten_neighborhood_attention, package="natten", forward_only=("cpu",)),
    ),
    "bias_attention": (Peer("SDPA, dense bias", masked_bias_attention),),
    "segment_attention": (Peer("SDPA, dense mask", masked_segment_attention),),
    "linear_scan": (Peer("mambapy", mambapy_linear_scan, package="mambapy"),),
    "selective_scan": (Peer("mambapy", mambapy_selective_scan, package="mambapy"),),
    "causal_conv1d": (Peer("F.conv1d", torch_causal_conv1d),),
    "decay_linear_attention": (Peer("fla", fla_decay_linear_attention, package="fla"),),
    "gated_linear_attention": (Peer("fla", fla_gated_linear_attention, package="fla"),),
    "delta_rule": (Peer("fla", fla_delta_rule, package="fla"),),
    "mlstm": (Peer("mlstm_kernels", mlstm_kernels, package="mlstm_kernels"),),
    "slstm": (Peer("tirex", tirex_slstm, package="tirex"),),
    "segmentation_loss": (Peer("F.cross_entropy, one-hot Dice", one_hot_segmentation_loss),),
}
