"""Small batches of graphs for the tests of models: one of one node, one of two parts, one whose nodes have no edge."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch

COUNTS = (5, 1, 7, 3)
NODES, BORDERS = sum(COUNTS), torch.tensor([0, 5, 6, 13, 16])
# A ring of five, a node by itself, a path of four beside one of three, three nodes without an edge.
PAIRS = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (6, 7), (7, 8), (8, 9), (10, 11), (11, 12)]
EDGES = torch.tensor([*PAIRS, *((b, a) for a, b in PAIRS)]).T


def fields(seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """All fields that a network may read, with words of (28, 3) and (4,), five numbers a node and two an edge."""
    draw = torch.Generator().manual_seed(seed)
    edges = EDGES.shape[1]

    def numbers(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=draw).to(dtype)

    laplacian = numbers(NODES, 6)
    for first, count in zip(BORDERS, COUNTS):
        laplacian[first : first + count, count:] = torch.nan
    return {
        "node_categories": torch.stack([torch.randint(0, 1 + most, (NODES,), generator=draw) for most in (28, 3)], 1),
        "node_values": numbers(NODES, 5),
        "edge_categories": torch.randint(0, 5, (edges, 1), generator=draw),
        "edge_values": numbers(edges, 2),
        "graph_values": numbers(len(COUNTS), 3),
        "random_walk": numbers(NODES, 8),
        "heat_kernel": numbers(NODES, 4),
        "laplacian": laplacian,
        "laplacian_values": numbers(NODES, 6).abs().masked_fill(laplacian.isnan(), torch.nan),
        "shortest_paths": torch.randint(0, 5, (sum(count**2 for count in COUNTS), 1), generator=draw).to(torch.int8),
    }


SIZES = {
    "node_categories": (28, 3),
    "node_values": 5,
    "edge_categories": (4,),
    "edge_values": 2,
    "graph_values": 3,
    "encodings": {"random_walk": 8, "heat_kernel": 4, "laplacian": 6, "shortest_paths": 3},
}


def batch(seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
    """The four graphs with all their fields."""
    whose = torch.arange(len(COUNTS)).repeat_interleave(torch.tensor(COUNTS))
    return Batch(edge_index=EDGES, batch=whose, ptr=BORDERS, **fields(seed, dtype))


def alone(whole: Batch, number: int) -> Batch:
    """One graph of `batch()`, as a batch of its own."""
    first, stop = BORDERS[number], BORDERS[number + 1]
    squares = torch.tensor([0, *(count**2 for count in COUNTS)]).cumsum(0)
    inside = (whole.edge_index[0] >= first) & (whole.edge_index[0] < stop)
    taken = {}
    for name in fields():
        value = whole[name]
        if name == "shortest_paths":
            taken[name] = value[squares[number] : squares[number + 1]]
        elif name == "graph_values":
            taken[name] = value[number : number + 1]
        else:
            taken[name] = value[inside] if name.startswith("edge") else value[first:stop]
    count = int(stop - first)
    whose, borders = torch.zeros(count, dtype=torch.long), torch.tensor([0, count])
    return Batch(edge_index=whole.edge_index[:, inside] - first, batch=whose, ptr=borders, **taken)


@pytest.fixture(scope="session")
def graphs() -> SimpleNamespace:
    """The four graphs and what goes with them: `counts`, `nodes`, `borders`, `edges`, `sizes`, `batch`, `alone`."""
    constants = {"counts": COUNTS, "nodes": NODES, "borders": BORDERS, "edges": EDGES, "sizes": SIZES}
    return SimpleNamespace(batch=batch, alone=alone, **constants)
