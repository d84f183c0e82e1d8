"""Low-rank adaptation: weights stay as they are, and a product of two thin matrices that learns is added to each.

    W' = W + (alpha / rank) up down        up (rows, rank), zero at first, down (rank, columns)

An adapter is a parametrization of the weight itself, so it fits whatever computes with that weight: linear layers and
convolutions, and the stacks of matrices of recurrent layers, each matrix of which has an adapter of its own. A class
says of such a parameter how many leading axes stack matrices: `stacked_weights = {"gate_weight": 2}`. Merged, an
adapter leaves nothing but the changed weight.

Paper: LoRA: Low-Rank Adaptation of Large Language Models, arXiv 2106.09685.
"""

import math
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..errors import QuintetError, nearest

ADAPTABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class LowRank(nn.Module):
    """W -> W + (alpha / rank) up down, W read as (*stack, rows, columns); all that follows the rows are columns.

    Args:
        weight: to adapt; gives shape, dtype and device.
        rank: of the product, at most that of the matrix.
        alpha: alpha / rank scales the product, so that its size is independent of the rank.
        stacked: leading axes that stack matrices.

    Raises QuintetError for a rank the matrix does not have.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float, stacked: int = 0) -> None:
        super().__init__()
        stack, rows, columns = weight.shape[:stacked], weight.shape[stacked], weight.shape[stacked + 1 :].numel()
        if not 1 <= rank <= min(rows, columns):
            raise QuintetError(f"an adapter of a matrix of {rows} by {columns} has a rank of 1 to {min(rows, columns)}")
        # In the state dict, so that it says by itself what the merged weight is.
        self.register_buffer("scale", weight.new_tensor(alpha / rank))
        self.up = nn.Parameter(weight.new_zeros(*stack, rows, rank))
        self.down = nn.Parameter(weight.new_empty(*stack, rank, columns))
        bound = 1 / math.sqrt(columns)
        nn.init.uniform_(self.down, -bound, bound)

    def forward(self, weight: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return weight + self.scale * (self.up @ self.down).view(weight.shape)


def add_adapters(
    module: nn.Module, rank: int, alpha: float | None = None, targets: Sequence[str] | None = None
) -> list[str]:
    """Adapts the weights whose names match `targets` (wildcards; None: all that can be); returns their names.

    `alpha` None means the rank, a factor of 1. The output of the module stays what it was until adapters learn. Raises
    QuintetError where a wildcard matches no weight that can be adapted, and for a rank that one of them does not have.
    """
    places = {name: place for name, *place in adaptable_weights(module)}
    chosen = dict.fromkeys(places) if targets is None else {}
    for pattern in targets or ():
        matches = [name for name in places if fnmatch(name, pattern)]
        if not matches:
            raise QuintetError(
                f"model.lora_targets: no weight that can be adapted matches '{pattern}'; {nearest(pattern, places)}"
            )
        chosen |= dict.fromkeys(matches)
    for name in chosen:
        owner, attribute, stacked = places[name]
        weight = getattr(owner, attribute)
        adapter = LowRank(weight, rank, float(rank if alpha is None else alpha), stacked)
        parametrize.register_parametrization(owner, attribute, adapter)
    return list(chosen)


def adapt(
    module: nn.Module,
    rank: int,
    alpha: float | None = None,
    targets: Sequence[str] | None = None,
    also: Sequence[str] | None = None,
) -> None:
    """`add_adapters`; then nothing learns but they and the parameters whose names match `also`.

    `also` None means what the parts of the module call their `head_keys`. Raises QuintetError as `add_adapters` does,
    and where a wildcard matches no parameter.
    """
    add_adapters(module, rank, alpha, targets)
    names = named_weights(module)
    for pattern in also or ():
        if not any(fnmatch(name, pattern) for name in names):
            raise QuintetError(f"model.lora_also: no parameter matches '{pattern}'; {nearest(pattern, names)}")
    if also is None:
        also = [f"{name}.{key}" for name, part in module.named_children() for key in getattr(part, "head_keys", ())]
    for name, parameter in names.items():
        parameter.requires_grad_(any(fnmatch(name, pattern) for pattern in also))


def plain_name(name: str) -> str:
    """The name that a weight has without an adapter, for any parameter of the two."""
    return re.sub(r"parametrizations\.(\w+)\.(original|0\.up|0\.down)$", r"\1", name)


def named_weights(module: nn.Module) -> dict[str, nn.Parameter]:
    """All parameters but those of adapters, by the names they have without adapters."""
    adapters = {id(parameter) for part in adapters_of(module).values() for parameter in part.parameters()}
    return {
        plain_name(name): parameter for name, parameter in module.named_parameters() if id(parameter) not in adapters
    }


def adaptable_weights(module: nn.Module) -> Iterator[tuple[str, nn.Module, str, int]]:
    """Name, owner, attribute and number of stacked axes of every weight that can be adapted and is not yet."""
    for prefix, owner in module.named_modules():
        stacks = {"weight": 0} if isinstance(owner, ADAPTABLE) else getattr(owner, "stacked_weights", {})
        for attribute, stacked in stacks.items():
            if attribute in owner._parameters and owner._parameters[attribute] is not None:
                yield f"{prefix}.{attribute}" if prefix else attribute, owner, attribute, stacked


def adapters_of(module: nn.Module) -> dict[str, LowRank]:
    """The adapters in a module, by name."""
    return {name: part for name, part in module.named_modules() if isinstance(part, LowRank)}


def adapter_state(module: nn.Module) -> dict[str, Tensor]:
    """What adapters learned, and nothing else: `load_state_dict(..., strict=False)` puts it onto the same weights."""
    return {
        f"{name}.{key}": value.detach().clone()
        for name, adapter in adapters_of(module).items()
        for key, value in adapter.named_parameters()
    }


@torch.no_grad()
def merge_adapters(module: nn.Module) -> None:
    """Adds every adapter to its weight for good; names, shapes and cost of the module are then as before."""
    for owner in list(module.modules()):
        if parametrize.is_parametrized(owner):
            for attribute, chain in list(owner.parametrizations.items()):
                if any(isinstance(part, LowRank) for part in chain):
                    parametrize.remove_parametrizations(owner, attribute, leave_parametrized=True)


def merged_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in which every adapter is added to its weight, under the name the weight had before."""
    chains = {key.removesuffix("0.up") for key in state if re.search(r"(^|\.)parametrizations\.\w+\.0\.up$", key)}
    parts = {chain + part for chain in chains for part in ("original", "0.up", "0.down", "0.scale")}
    merged = {key: value for key, value in state.items() if key not in parts}
    for chain in chains:
        weight, up, down, scale = (state[chain + part] for part in ("original", "0.up", "0.down", "0.scale"))
        name = re.sub(r"parametrizations\.(\w+)\.$", r"\1", chain)
        merged[name] = weight + scale * (up @ down).view(weight.shape)
    return merged
