"""Published implementations beside which operations are timed. They lie in the repository, not in what is installed."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch

FILE = Path(sys.modules[__name__.split(".")[0]].__path__[0], "benchmarks", "peers.py")


@dataclass(frozen=True)
class Peer:
    """Another implementation of an operation.

    Args:
        name: how the table calls it.
        function: takes our arguments, returns what our operation returns.
        package: what must be installed; None for torch itself.
        devices: where it runs.
        forward_only: devices on which it has no gradients.
    """

    name: str
    function: Callable[..., Any]
    package: str | None = None
    devices: tuple[str, ...] = ("cpu", "cuda")
    forward_only: tuple[str, ...] = ()


@cache
def all_peers() -> dict[str, tuple[Peer, ...]]:
    """The peers of each operation, from benchmarks/peers.py; none where quintet runs from no checkout."""
    if not FILE.is_file():
        return {}
    spec = spec_from_file_location("quintet_benchmark_peers", FILE)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return dict(module.PEERS)


def peers_of(operation: str, device: torch.device) -> list[Peer]:
    """The peers of an operation that can run here."""
    return [
        peer
        for peer in all_peers().get(operation, ())
        if (peer.package is None or find_spec(peer.package)) and device.type in peer.devices
    ]
