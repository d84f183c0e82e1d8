"""Remembered graphs are those that were built, and what is damaged or not ours is built anew."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from quintet.graphs.data import cache
from quintet.graphs.data.cache import cached, cached_with_notes, content_key
from quintet.graphs.data.store import GraphStore


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("QUINTET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "graphs"


def a_store() -> GraphStore:
    return GraphStore(
        torch.tensor([2, 1, 3]),
        torch.tensor([2, 0, 1]),
        torch.tensor([[0, 1, 2], [1, 0, 0]]),
        nodes={"node_categories": torch.arange(6)[:, None], "random_walk": torch.rand(6, 4)},
        edges={"edge_values": torch.rand(3, 2)},
        pairs={"shortest_paths": torch.arange(14)[:, None]},
        graphs={"y": torch.tensor([[0.5], [torch.nan], [1.0]])},
    )


class Builder:
    """Builds a store, and counts how often it is asked to."""

    def __init__(self) -> None:
        self.calls, self.store = 0, a_store()

    def __call__(self) -> GraphStore:
        self.calls += 1
        return self.store


def same(left: GraphStore, right: GraphStore) -> bool:
    fields, others = ({(level, name): values for level, name, values in store.fields()} for store in (left, right))
    own = all(torch.equal(getattr(left, name), getattr(right, name)) for name in cache.OWN)
    return own and fields.keys() == others.keys() and all(_same(fields[key], others[key]) for key in fields)


def _same(left: torch.Tensor, right: torch.Tensor) -> bool:
    return left.dtype == right.dtype and torch.equal(left.nan_to_num(7), right.nan_to_num(7))


def test_what_was_built_once_is_remembered():
    build = Builder()
    first, second = cached("k", build), cached("k", build)
    assert build.calls == 1
    assert same(first, second)
    assert second.edge_index.dtype == torch.int32
    assert torch.equal(second.take([2, 0]).edge_index, a_store().take([2, 0]).edge_index)
    cached("other", build)
    assert build.calls == 2


def test_notes_come_back():
    notes = {"words": ["C", "N"], "unread": [[3, "no molecule"]]}
    for _ in range(2):
        assert cached_with_notes("k", lambda: (a_store(), notes))[1] == notes


def test_views_and_columns_are_remembered():
    both = torch.rand(6, 4)
    store = GraphStore(
        torch.tensor([6]),
        torch.tensor([0]),
        torch.zeros(2, 0).long(),
        {"left": both[:, :2], "t": both.T.reshape(4, 6).T},
    )
    cached("k", lambda: store)
    assert same(cached("k", a_store), store)


def test_a_cache_that_is_off_reads_and_writes_nothing(folder):
    build = Builder()
    for _ in range(2):
        assert cached("k", build, keep=False).edge_index.dtype == torch.int32
    assert build.calls == 2
    assert not folder.exists()


def test_a_cache_that_cannot_be_written_costs_only_time(folder):
    folder.parent.mkdir()
    folder.write_text("a file where the folder should be")
    build = Builder()
    assert same(cached("k", build), build.store)


def rewritten(folder, change=None, told=None):
    """Writes the one file anew with changed tensors or metadata, its checksum right."""
    (path,) = folder.iterdir()
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = {name: values.clone() for name, values in load_file(path).items()}
    if change:
        change(tensors)
    save_file(tensors, path, metadata | {"sum": str(cache._sum(tensors))} | (told or {}))


def _set(name: str, value: torch.Tensor):
    return lambda tensors: tensors.__setitem__(name, value)


def _edgeless(tensors: dict[str, torch.Tensor]) -> None:
    tensors.pop("edges.edge_values")
    tensors["edge_counts"], tensors["edge_index"] = torch.zeros(3).long(), torch.zeros(2, 0).int()


CHANGES = {
    "an edge past its graph": _set("edge_index", torch.tensor([[0, 1, 2], [1, 2, 0]])),
    "an edge before its graph": _set("edge_index", torch.tensor([[0, 1, 2], [1, -1, 0]])),
    "edges of fractions": _set("edge_index", torch.zeros(2, 3)),
    "fewer edges": _set("edge_index", torch.zeros(2, 2).int()),
    "other node counts": _set("node_counts", torch.tensor([2, 2, 3])),
    "negative counts": _set("node_counts", torch.tensor([2, -1, 5])),
    "negative counts without edges": lambda tensors: (
        _edgeless(tensors),
        tensors.__setitem__("node_counts", torch.tensor([2, -1, 5])),
    ),
    # Squared, and 2^64 is 0 in 64 bits.
    "more nodes than can be": lambda tensors: (
        _edgeless(tensors),
        tensors.__setitem__("node_counts", torch.tensor([2**32, 2**32, 0])),
        [tensors.pop(name) for name in ("nodes.node_categories", "nodes.random_walk")],
        tensors.__setitem__("pairs.shortest_paths", torch.zeros(0, 1)),
    ),
    "counts of fractions": _set("node_counts", torch.ones(3)),
    "fewer rows": _set("nodes.random_walk", torch.zeros(5, 4)),
    "a negative code": _set("nodes.node_categories", torch.full((6, 1), -1).to(torch.int8)),
    "codes of one byte without a sign": _set("nodes.node_categories", torch.zeros(6, 1, dtype=torch.uint8)),
    "a level that is none": _set("faces.area", torch.zeros(6)),
    "a field that has no name": _set("nodes.a b", torch.zeros(6)),
    "a field that batches have": _set("nodes.batch", torch.zeros(6)),
    "no edges": lambda tensors: tensors.pop("edge_index"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_cannot_be_graphs_is_built_anew(change, folder):
    build = Builder()
    cached("k", build)
    rewritten(folder, change)
    assert same(cached("k", build), build.store)
    assert build.calls == 2
    cached("k", build)
    assert build.calls == 2


@pytest.mark.parametrize("told", [{"version": "0"}, {"key": "other"}, {"sum": "0"}, {"notes": "[]"}, {"notes": "{"}])
def test_what_is_of_another_kind_is_built_anew(told, folder):
    build = Builder()
    cached("k", build)
    rewritten(folder, told={})
    cached("k", build)
    assert build.calls == 1
    rewritten(folder, told=told)
    cached("k", build)
    assert build.calls == 2


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-5], lambda b: b[:-5] + b"12345", lambda b: b"", lambda b: b"pickle" * 9]
)
def test_damaged_files_are_built_anew(damage, folder):
    build = Builder()
    cached("k", build)
    (path,) = folder.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert same(cached("k", build), build.store)
    assert build.calls == 2


def test_files_unused_for_longest_go(folder, monkeypatch):
    build = Builder()
    cached("a", build)
    monkeypatch.setattr(cache, "LIMIT", 2.5 * next(folder.iterdir()).stat().st_size)
    for key in ("b", "a", "c"):
        cached(key, build)
    assert sorted(path.stem for path in folder.iterdir()) == ["a", "c"]


def test_a_key_is_of_content_and_options(tmp_path):
    first, second, copy = (tmp_path / name for name in ("first", "second", "copy"))
    for path, text in ((first, "C,1"), (second, "N,1"), (copy, "C,1")):
        path.write_text(text)
    options = {"encodings": {"random_walk": 20}, "smiles": "smiles"}
    key = content_key([first, second], options)
    assert key == content_key([copy, second], dict(reversed(options.items())))
    others = [([second, first], options), ([first], options), ([first, second], options | {"smiles": "name"})]
    assert len({key, *(content_key(*other) for other in others)}) == 4
