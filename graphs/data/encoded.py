"""The encodings of nodes that were asked for, remembered by the edges they follow from."""

import hashlib
from collections.abc import Mapping

from .cache import cached, content_key
from .encodings import encode
from .store import GraphStore

REMEMBERED_FROM = 20_000  # nodes, from which on encoding them takes seconds


def with_encodings(store: GraphStore, wanted: Mapping[str, int]) -> GraphStore:
    """Adds fields of encodings to a store, in place, and returns it."""
    if not wanted:
        return store
    bare = GraphStore(store.node_counts, store.edge_counts, store.edge_index)
    digest = hashlib.sha256()
    for tensor in (store.node_counts, store.edge_counts, store.edge_index):
        digest.update(tensor.long().contiguous().numpy())
    key = content_key([], {"edges": digest.hexdigest(), "encodings": dict(wanted)})
    keep = store.total("nodes") >= REMEMBERED_FROM
    found = cached(key, lambda: encode(bare, wanted, progress=True), keep)
    store.nodes |= found.nodes
    store.pairs |= found.pairs
    return store
