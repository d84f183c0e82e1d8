"""Graphs of like size stand in a batch, through a data module's loaders and worker processes."""

from collections.abc import Callable

import pytest
import torch
from torch_geometric.data import Batch

from quintet.core.data.module import DataModule
from quintet.core.errors import QuintetError
from quintet.graphs.data.batches import by_nodes
from quintet.graphs.data.store import GraphStore

SIZES = torch.randint(1, 60, (300,), generator=torch.Generator().manual_seed(0))
MOST = 200


def a_store() -> GraphStore:
    """Graphs that are paths; a node's value is its number, a graph's row its own."""
    counts = SIZES - 1
    sources = torch.cat([torch.arange(int(count)) for count in counts])
    values = {"node_values": torch.arange(float(SIZES.sum()))[:, None]}
    row = {"row": torch.arange(len(SIZES))}
    return GraphStore(SIZES, counts, torch.stack([sources, sources + 1]), values, graphs=row).narrow()


def padding(store: GraphStore, batches: list[list[int]]) -> float:
    """Share of padded batches that is padding, over batches of graph numbers."""
    nodes = [store.node_counts[batch] for batch in batches]
    places = sum(len(counts) * int(counts.max()) for counts in nodes)
    return 1 - sum(int(counts.sum()) for counts in nodes) / places


class Paths(DataModule):
    def prepare(self, stages: tuple[str, ...]) -> None:
        self.datasets = {stage: a_store() for stage in stages}

    def collate(self) -> Callable:
        return self.datasets["train"].take

    def by_length(self) -> tuple[list[int], int]:
        return by_nodes(self.datasets["train"], MOST)


def loaded(workers: int) -> list[Batch]:
    data = Paths(batch_size=64, num_workers=workers)
    data.prepare(("train",))
    return list(data.train_dataloader())


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    return loaded(0)


def test_every_graph_comes_once_in_batches_of_bounded_size(batches):
    rows = torch.cat([batch.row for batch in batches])
    assert torch.equal(rows.sort().values, torch.arange(len(SIZES)))
    for batch in batches:
        assert batch.num_graphs * int((batch.ptr[1:] - batch.ptr[:-1]).max()) <= MOST
        assert torch.equal(batch.ptr.diff(), SIZES[batch.row])
    # Few more than graphs of these sizes would fill, stood they without padding.
    assert len(batches) < 1.3 * int(SIZES.sum()) / MOST


def test_like_sizes_leave_little_padding(batches):
    store = a_store()
    together = padding(store, [batch.row.tolist() for batch in batches])
    mixed = padding(store, torch.arange(300).view(-1, 6).tolist())
    assert together < 0.1 < 0.3 < mixed


def test_worker_processes_make_the_same_batches(batches):
    for alone, other in zip(batches, loaded(1), strict=True):
        assert type(other) is type(alone)
        for name in ("row", "edge_index", "node_values", "batch", "ptr"):
            assert torch.equal(getattr(alone, name), getattr(other, name))


def test_a_graph_larger_than_a_batch_is_refused():
    largest = int(SIZES.max())
    words = f"max_nodes is 9, and training graph {int(SIZES.argmax())} alone has {largest} nodes; give at least as many"
    with pytest.raises(QuintetError, match=words):
        by_nodes(a_store(), 9)
    with pytest.raises(QuintetError, match="there is no graph"):
        by_nodes(a_store().select([]), 9)
