"""Remembers graphs that took long to read and to encode, in the user's cache folder.

A file is named by the content that its graphs were made of, and lies there whole or not at all. It holds numbers and
JSON alone: nothing in it is run. What it says is checked before it is believed, and whatever is damaged, of another
version or not ours is made anew.
"""

import contextlib
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...core.errors import QuintetError
from ...core.weights.archives import check_safetensors
from ...core.weights.pretrained import cache_folder
from ...core.writing.files import written_whole
from .store import LEVELS, GraphStore

VERSION = "1"  # of what this file writes and of the encodings: files of another are made anew
LIMIT = 8 * 2**30  # bytes of all files, beyond which those unused for longest go
KINDS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.float32, torch.float64, torch.bool)
OWN = ("node_counts", "edge_counts", "edge_index")
MOST_NODES = 2**31  # of a graph

Notes = dict[str, Any]


def content_key(files: Iterable[Path], options: Mapping[str, Any]) -> str:
    """Names what graphs are made of: the bytes of files, in their order, and all else that decides on the graphs.

    Args:
        files: that the graphs are read from.
        options: plain values: columns, encodings, and the version of whatever turns the files into graphs.
    """
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    digest.update(json.dumps([VERSION, options], sort_keys=True).encode())
    return digest.hexdigest()


def cached(key: str, build: Callable[[], GraphStore], keep: bool = True) -> GraphStore:
    """The graphs of a key (`content_key`): from the cache folder, else built and remembered.

    What is remembered is mapped into memory, not read: only what is used takes memory, and processes share it. Whole
    numbers are stored narrow, remembered or not.

    Args:
        key: of the content.
        build: makes the graphs.
        keep: whether to remember; False reads and writes no file.
    """
    return cached_with_notes(key, lambda: (build(), {}), keep)[0]


def cached_with_notes(
    key: str, build: Callable[[], tuple[GraphStore, Notes]], keep: bool = True
) -> tuple[GraphStore, Notes]:
    """`cached` with what else is known of the graphs, as values of JSON: words, rows that could not be read."""
    path = cache_folder() / "graphs" / f"{key}.safetensors"
    if keep and (remembered := _recall(path, key)):
        return remembered
    store, notes = build()
    store.narrow()
    if keep:
        # Remembering only saves time: a cache that cannot be written is no reason not to train.
        with contextlib.suppress(OSError, QuintetError), written_whole(path, replace=True) as partial:
            _write(partial, key, store, notes)
        _forget_oldest(path.parent)
    return store, json.loads(json.dumps(notes))


def _write(path: Path, key: str, store: GraphStore, notes: Notes) -> None:
    tensors = {name: getattr(store, name) for name in OWN}
    tensors |= {f"{level}.{name}": values for level, name, values in store.fields()}
    tensors = {name: _apart(values) for name, values in tensors.items()}
    told = {"version": VERSION, "key": key, "sum": str(_sum(tensors)), "notes": json.dumps(notes)}
    save_file(tensors, path, metadata=told)


def _apart(values: Tensor) -> Tensor:
    """Values as a file holds them: row by row, in memory of their own."""
    alone = values.is_contiguous() and values.untyped_storage().nbytes() == values.nbytes
    return values if alone else values.clone(memory_format=torch.contiguous_format)


def _recall(path: Path, key: str) -> tuple[GraphStore, Notes] | None:
    if not path.is_file():
        return None
    try:
        store, notes = _read(path, key)
    except Exception:  # readers of a damaged file raise a dozen types
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return store, notes


def _read(path: Path, key: str) -> tuple[GraphStore, Notes]:
    check_safetensors(path)
    with safe_open(path, "pt") as file:
        told = file.metadata() or {}
        if (told.get("version"), told.get("key")) != (VERSION, key):
            raise ValueError("of another version or content")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if told.get("sum") != str(_sum(tensors)) or not isinstance(notes := json.loads(told["notes"]), dict):
        raise ValueError("damaged")
    return _store(tensors), notes


def _store(tensors: dict[str, Tensor]) -> GraphStore:
    """A store of what a file holds. Raises ValueError or QuintetError where it cannot be one."""
    levels: dict[str, dict[str, Tensor]] = {level: {} for level in LEVELS}
    own = {name: tensors.pop(name) for name in OWN}
    for title, values in tensors.items():
        level, name = title.split(".")
        if values.dtype not in KINDS or not name.isidentifier() or name in (*OWN, "batch", "ptr"):
            raise ValueError(f"{title} is no field")
        levels[level][name] = values
    _check_edges(*own.values())
    for name, values in [*levels["nodes"].items(), *levels["edges"].items()]:
        if name.endswith("_categories") and values.numel() and int(values.min()) < 0:
            raise ValueError(f"{name} has a negative code")
    return GraphStore(*own.values(), **levels)


def _check_edges(node_counts: Tensor, edge_counts: Tensor, edge_index: Tensor) -> None:
    counts = torch.stack([node_counts, edge_counts])
    if counts.dtype != torch.long or counts.ndim != 2 or not counts.numel():
        raise ValueError("no counts of nodes and edges")
    if int(counts.min()) < 0 or int(counts.max()) >= MOST_NODES:
        raise ValueError("no counts of nodes and edges")
    if edge_index.dtype not in (torch.int32, torch.int64) or edge_index.shape != (2, int(edge_counts.sum())):
        raise ValueError("no edges")
    if edge_index.numel() and int(edge_index.min()) < 0:
        raise ValueError("an edge from or to no node")
    if not bool((edge_index < node_counts.repeat_interleave(edge_counts)).all()):
        raise ValueError("an edge from or to no node")


def _sum(tensors: Mapping[str, Tensor]) -> int:
    """A checksum of all values."""
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy(), total)
    return total


def _forget_oldest(folder: Path) -> None:
    """Deletes files unused for longest, as many as are too many."""
    with contextlib.suppress(OSError):
        files = sorted(folder.glob("*.safetensors"), key=lambda path: -path.stat().st_mtime)
        kept = 0
        for path in files:
            kept += path.stat().st_size
            if kept > LIMIT:
                path.unlink()
