"""The seal of a checkpoint: a digest of its record and its weights, written with it and checked whenever it is read.

A file that was damaged on its way is then refused, in whatever format it is, and not loaded with other numbers. It says
nothing about who wrote the file: whoever changes it on purpose can write another digest.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import QuintetError
from .described import to_json

DEEPEST = 64  # nested values; what quintet writes has about ten levels
MOST = 4_000_000  # values and characters of a record, each time they are named: a file may name one list many times
TIMES = 64  # tensors may share memory, but not so much that a small file takes all of it


def digest_of(record: Mapping[str, Any], state: Mapping[str, Tensor]) -> str:
    """Hexadecimal sha256 of a record without its digest, and of names, types, shapes and bytes of the weights."""
    digest = hashlib.sha256(to_json({key: value for key, value in record.items() if key != "digest"}).encode())
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode("utf-8", "surrogatepass"))
        if value.numel():
            digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def check_seal(record: Any, state: Any, where: Any) -> bool:
    """Whether a checkpoint has a seal. Raises QuintetError where it is broken or no plain data."""
    check_plain(record, where)
    if not isinstance(record, dict) or not isinstance(state, Mapping):
        return False  # whoever asks for its record is told what is wrong with it
    if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()):
        raise QuintetError(f"{where} is damaged: its weights are no tensors with names")
    if "digest" not in record:
        return False
    if record["digest"] != digest_of(record, state):
        raise QuintetError(
            f"{where} is damaged: its weights or its record are not what was written; copy it again, or take an "
            "earlier checkpoint"
        )
    return True


def check_tensors(content: Any, where: Any, size: int) -> None:
    """Raises QuintetError for tensors without plain numbers, and for many times more of them than `size` bytes hold."""
    total, seen, waiting = 0, set(), [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized or value.is_nested:
                raise QuintetError(f"{where} holds a sparse, quantized or empty tensor, which no model here takes")
            total += value.numel() * value.element_size()
        elif isinstance(value, Mapping | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, Mapping) else value
    if total > TIMES * max(size, 1 << 20):
        raise QuintetError(f"{where} is damaged: its tensors are {TIMES} times larger than the file")


def check_plain(value: Any, where: Any) -> None:
    """Raises QuintetError for anything but plain data, and for more or deeper data than a record has."""
    left, waiting = MOST, [(value, 0)]
    while waiting:
        value, depth = waiting.pop()
        left -= 1
        if isinstance(value, str):
            left -= len(value)
        elif isinstance(value, list | tuple):
            waiting += [(item, depth + 1) for item in value]
        elif isinstance(value, dict):
            waiting += [(item, depth + 1) for pair in value.items() for item in pair]
        elif not isinstance(value, int | float | None):
            raise QuintetError(f"{where} is damaged: its record holds a {type(value).__name__}, which is no plain data")
        if left < len(waiting) or depth > DEEPEST:
            raise QuintetError(f"{where} is damaged: its record is larger or deeper than any that quintet writes")
