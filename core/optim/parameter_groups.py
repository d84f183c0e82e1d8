"""Parameter groups: which parameters decay, and how fast each layer learns.

lr_l = lr * layer_decay^(L - l) for layer l of L (BEiT, arXiv 2106.08254); parameters with one axis or none (biases,
norms, scales) and relative position tables are not decayed (Decoupled Weight Decay Regularization, arXiv 1711.05101).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from ..adaptation.lora import plain_name


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    layers: Iterable[Iterable[str]] = (),
    layer_decay: float | None = None,
) -> list[dict[str, Any]]:
    """Groups for an optimizer, each with `lr`, `weight_decay` and a readable `name`.

    Args:
        model: whose parameters to group; frozen ones too, so that they can thaw later.
        lr: learning rate of the head.
        weight_decay: decay of what decays.
        layers: prefixes of parameter names, from the first layer to the last; what none claims is the head.
        layer_decay: factor between neighbouring layers; None or 1 for one rate.
    """
    depth_of = {prefix: depth for depth, prefixes in enumerate(layers) for prefix in prefixes}
    depths = 1 + max(depth_of.values(), default=-1)
    no_decay = not_decayed(model)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        depth = _depth(name, depth_of, depths) if layer_decay is not None else depths
        decays = parameter.ndim > 1 and plain_name(name) not in no_decay
        if (depth, decays) not in groups:
            scale = 1.0 if layer_decay is None else layer_decay ** (depths - depth)
            groups[depth, decays] = {
                "name": f"layer {depth}{'' if decays else ', not decayed'}",
                "params": [],
                "lr": lr * scale,
                "weight_decay": weight_decay if decays else 0.0,
            }
        groups[depth, decays]["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def not_decayed(model: nn.Module) -> set[str]:
    """Names of the parameters that some module of the model calls `no_weight_decay`: a collection, or a method (timm).

    These names are relative to that module.
    """
    names = set()
    for prefix, module in model.named_modules():
        stated = getattr(module, "no_weight_decay", ())
        stated = stated() if callable(stated) else stated
        names |= {f"{prefix}.{name}" if prefix else name for name in stated}
    return names


def _depth(name: str, depth_of: Mapping[str, int], head: int) -> int:
    """Depth of the longest prefix that claims `name`, by itself or without its adapter; the head's where none does."""
    plain = plain_name(name)
    claims = [prefix for prefix in depth_of if prefix in (name, plain) or name.startswith(f"{prefix}.")]
    return depth_of[max(claims, key=len)] if claims else head
