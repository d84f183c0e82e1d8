"""Batches of graphs of like size."""

from ...core.errors import QuintetError
from .store import GraphStore


def by_nodes(store: GraphStore, max_nodes: int) -> tuple[list[int], int]:
    """What `DataModule.by_length` answers so that graphs of like size stand in a batch: nodes of each, and `max_nodes`.

        graphs of a batch * nodes of the largest <= max_nodes

    which bounds the memory of a batch, padded or not.

    Raises QuintetError where a graph alone is larger, or none is there.
    """
    if not len(store):
        raise QuintetError("there is no graph to make batches of")
    largest = int(store.node_counts.argmax())
    if (nodes := int(store.node_counts[largest])) > max_nodes:
        raise QuintetError(
            f"data.max_nodes is {max_nodes}, and training graph {largest} alone has {nodes} nodes; give at least as "
            "many"
        )
    return store.node_counts.tolist(), max_nodes
