"""Published implementations that `quintet bench kernels` times beside ours, where they are installed.

Each takes the arguments of our operation and must agree with our reference, which the benchmark checks before timing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Peer:
    """Another project's implementation of an operation.

    Args:
        name: how the table calls it.
        function: takes our arguments, returns what our operation returns.
        package: what must be installed; None for torch itself.
        needs_cuda: whether it runs on GPUs only.
        forward_only: whether it has no gradients here.
    """

    name: str
    function: Callable[..., Any]
    package: str | None = None
    needs_cuda: bool = False
    forward_only: bool = False


def peers_of(operation: str, device: torch.device) -> list[Peer]:
    """The peers of an operation that can run here."""
    return [
        peer
        for peer in PEERS.get(operation, ())
        if (peer.package is None or find_spec(peer.package)) and (device.type == "cuda" or not peer.needs_cuda)
    ]


def torch_rms_norm(x: Tensor, weight: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], weight, eps)


def liger_rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    from liger_kernel.transformers.functional import liger_rms_norm as run

    return run(x, weight, eps, in_place=False)


def fla_gated_linear_attention(
    query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, **settings: Any
) -> tuple[Tensor, Tensor]:
    from fla.ops.gla import chunk_gla

    return chunk_gla(query, key, value, log_decay, output_final_state=True, **settings)


PEERS: dict[str, tuple[Peer, ...]] = {
    "rms_norm": (
        Peer("F.rms_norm", torch_rms_norm),
        Peer("liger", liger_rms_norm, package="liger_kernel", needs_cuda=True),
    ),
}
