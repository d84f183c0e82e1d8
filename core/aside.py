"""What layers get beside their tokens, and what they say aside: one rule for all kinds of layers.

A layer names in `takes` what it wants beside its tokens; `run` hands it that and nothing else. It names in `tells` what
it can say aside; `tell` says it, `listening` hears it:

    with listening(network, "weights") as heard:
        network(images)
    heard["weights"]["encoder.blocks.3.mixer"]        a list, one entry a call

A layer without `takes`, such as one of torch's, gets its tokens alone.
"""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .errors import QuintetError

Heard = dict[str, dict[str, list[Any]]]


class Edges(NamedTuple):
    """Edges of graphs.

    `index` holds source over target, counted over the flattened tokens (batch x nodes, or those of packed graphs).
    """

    index: Int[Tensor, "2 edges"]
    features: Float[Tensor, "edges dim"] | None = None


# What layers get


def run(layer: nn.Module, x: Tensor, given: Mapping[str, Any]) -> Any:
    """The layer on its tokens, with what it takes of `given`; what is None is as if it were not given.

    Of packed sequences, whose borders are given as `cu_seqlens`, x holds all tokens as one sample (1, tokens, dim).
    What has a `forward_packed` of its own, as mixers do, is called by it; other layers look at one token at a time, or
    take the borders.
    """
    takes = getattr(layer, "takes", None)
    borders = given.get("cu_seqlens")
    if not takes and borders is None:
        return layer(x)
    taken = {name: value for name, value in given.items() if value is not None and name in (takes or ())}
    if borders is None or not hasattr(layer, "forward_packed"):
        return layer(x, **taken)
    result = layer.forward_packed(x.squeeze(0), **taken | {"cu_seqlens": borders})
    if isinstance(result, tuple):
        return result[0].unsqueeze(0), result[1]
    return result.unsqueeze(0)


def knows_borders(layer: nn.Module | None) -> bool:
    """Whether a layer that moves information between tokens can be told where packed sequences end; so can none."""
    return layer is None or hasattr(layer, "forward_packed") or "cu_seqlens" in getattr(layer, "takes", ())


def changed(result: Any, given: Mapping[str, Any]) -> tuple[Tensor, Mapping[str, Any]]:
    """The tokens of what a layer returned, which may be (tokens, changes), and `given` with the changes."""
    return (result[0], {**given, **result[1]}) if isinstance(result, tuple) else (result, given)


def taken_within(*layers: nn.Module | None) -> frozenset[str]:
    """What any of the layers or of their parts takes."""
    parts = (part for layer in layers if layer is not None for part in layer.modules())
    return frozenset().union(*(getattr(part, "takes", ()) for part in parts))


def refuse_untaken(owner: nn.Module, given: Mapping[str, Any], takes: Iterable[str]) -> None:
    """Raises QuintetError for what is given and no layer takes."""
    if unknown := [name for name, value in given.items() if value is not None and name not in takes]:
        raise QuintetError(
            f"no layer of this {type(owner).__name__} takes {', '.join(unknown)}; they take "
            f"{', '.join(sorted(takes)) or 'their tokens alone'}"
        )


# What layers say


class _Listener:
    """Who listens: to the layers of one network by their paths, and to some names."""

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        self.paths = {id(part): path for path, part in network.named_modules() if not told_by(part).isdisjoint(names)}
        self.heard: Heard = {name: {} for name in names}

    def hears(self, layer: nn.Module, name: str) -> bool:
        return name in self.heard and id(layer) in self.paths

    def take(self, layer: nn.Module, name: str, value: Any) -> None:
        if self.hears(layer, name):
            self.heard[name].setdefault(self.paths[id(layer)], []).append(value)


class _Withheld(NamedTuple):
    """What a block that runs under checkpointing says, for whoever listened when it was first run."""

    listeners: tuple[_Listener, ...]
    told: list[tuple[nn.Module, str, Any]]


class _Hearing(threading.local):
    """Who listens in this thread, and the blocks that run under checkpointing, innermost last."""

    def __init__(self) -> None:
        self.listeners: list[_Listener] = []
        self.withheld: list[_Withheld] = []


_hearing = _Hearing()


def _listening() -> Sequence[_Listener]:
    """Who listens; to what is computed again going back, who listened the first time."""
    return _hearing.withheld[-1].listeners if _hearing.withheld else _hearing.listeners


def told_by(layer: nn.Module) -> frozenset[str]:
    """What a layer by itself can say aside."""
    return getattr(layer, "tells", None) or frozenset()


def told_within(network: nn.Module) -> frozenset[str]:
    """What any layer of a network can say aside."""
    return frozenset().union(*map(told_by, network.modules()))


def listened_to(layer: nn.Module, name: str) -> bool:
    """Whether someone listens, for a layer whose words cost something to make."""
    listeners = _listening()
    return bool(listeners) and any(listener.hears(layer, name) for listener in listeners)


def tell(layer: nn.Module, name: str, value: Any) -> None:
    """Says `value` aside to whoever listens; nothing happens where nobody does."""
    if not listened_to(layer, name):
        return
    if _hearing.withheld:
        _hearing.withheld[-1].told.append((layer, name, value))
        return
    for listener in _hearing.listeners:
        listener.take(layer, name, value)


@contextlib.contextmanager
def listening(network: nn.Module, *names: str) -> Iterator[Heard]:
    """While it lasts, what the layers of `network` say aside is kept: heard[name][path of the layer], one entry a call.

    A layer that stands at several places is heard at the first of them, and in the thread that listens alone. Works
    compiled and under checkpointing. Raises QuintetError for a name that no layer tells.
    """
    tells = told_within(network)
    if unknown := [name for name in names if name not in tells]:
        raise QuintetError(
            f"no layer of this {type(network).__name__} tells {', '.join(unknown)}; they tell "
            f"{', '.join(sorted(tells)) or 'nothing'}"
        )
    listener = _Listener(network, names)
    _hearing.listeners.append(listener)
    try:
        with _keeping_words_compiled():
            yield listener.heard
    finally:
        _hearing.listeners.remove(listener)


def checkpointed(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)`, of which only the inputs are kept; going back it is computed again, and tells nothing."""
    listeners = tuple(_listening())
    if not listeners and torch.compiler.is_compiling():
        return checkpoint(function, *arguments, use_reentrant=False)
    speakers: list[tuple[nn.Module, str]] = []

    def withholding(*inputs: Any) -> tuple[Any, tuple]:
        # Going back, others may listen, or none: layers then do as they did before, for those who did.
        told: list[tuple[nn.Module, str, Any]] = []
        _hearing.withheld.append(_Withheld(listeners, told))
        try:
            result = function(*inputs)
        finally:
            _hearing.withheld.pop()
        speakers[:] = [(layer, name) for layer, name, _ in told]
        return result, tuple(value for *_, value in told)

    result, values = checkpoint(withholding, *arguments, use_reentrant=False)
    for (layer, name), value in zip(speakers, values):
        tell(layer, name, value)
    return result


def _keeping_words_compiled() -> contextlib.AbstractContextManager:
    """The compiler refuses a checkpointed block that writes to a list outside, which here is emptied as it ends."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is None or torch.compiler.is_compiling():
        return contextlib.nullcontext()
    return dynamo.config.patch(skip_fwd_side_effects_in_bwd_under_checkpoint=True)
