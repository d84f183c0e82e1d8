"""The store with the encodings of nodes that were asked for."""

from collections.abc import Mapping
from importlib import import_module

from .store import GraphStore


def with_encodings(store: GraphStore, encodings: Mapping[str, int]) -> GraphStore:
    """The store with a field for each encoding of nodes."""
    return import_module(".encodings", __package__).encode(store, dict(encodings)) if encodings else store
