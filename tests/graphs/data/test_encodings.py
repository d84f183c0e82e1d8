"""Encodings beside their formulas in numpy, one graph and one node at a time; and beside PyG's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm
from torch_geometric.data import Data
from torch_geometric.transforms import AddRandomWalkPE

from quintet.core.errors import QuintetError
from quintet.graphs.data import _large, encodings
from quintet.graphs.data.encodings import Electrostatic, HeatKernel, Laplacian, RandomWalk, encode
from quintet.graphs.data.store import GraphStore

WANTED = {"random_walk": 7, "laplacian": 5, "heat_kernel": 4, "electrostatic": 10, "shortest_paths": 3}


def a_graph(nodes: int, edges: list[tuple[int, int]], both: bool = True) -> Data:
    edges = edges + [(v, u) for u, v in edges] if both else edges
    return Data(edge_index=torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T, num_nodes=nodes)


def a_random_graph(nodes: int, share: float, seed: int, both: bool = True) -> Data:
    draw = np.random.default_rng(seed)
    pairs = [(u, v) for u in range(nodes) for v in range(nodes) if (u < v if both else u != v)]
    return a_graph(nodes, [pair for pair in pairs if draw.random() < share], both)


GRAPHS = {
    "one node": a_graph(1, []),
    "no edges": a_graph(3, []),
    "two nodes": a_graph(2, [(0, 1)]),
    "disconnected": a_graph(7, [(0, 1), (1, 2), (4, 5)]),
    "ring": a_graph(7, [(i, (i + 1) % 7) for i in range(7)]),
    "directed": a_graph(5, [(0, 1), (1, 2), (2, 0), (2, 3), (4, 3)], both=False),
    "loop": a_graph(3, [(0, 0), (0, 1), (1, 2)], both=False),
    "multiple": a_graph(3, [(0, 1), (0, 1), (1, 2)]),
    "random": a_random_graph(12, 0.3, 0),
    "random directed": a_random_graph(12, 0.2, 1, both=False),
}


def encoded(graphs: list[Data], wanted=WANTED) -> GraphStore:
    return encode(GraphStore.of(graphs, {}), wanted)


def edges_of(graph: Data) -> np.ndarray:
    matrix = np.zeros((graph.num_nodes, graph.num_nodes))
    for u, v in graph.edge_index.T.tolist():
        matrix[u, v] += 1
    return matrix


def joined_of(graph: Data) -> np.ndarray:
    edges = edges_of(graph)
    return ((edges + edges.T) > 0) * (1 - np.eye(len(edges)))


def laplacian_of(graph: Data) -> np.ndarray:
    return np.diag(joined_of(graph).sum(1)) - joined_of(graph)


def normalised_of(graph: Data) -> np.ndarray:
    laplacian = laplacian_of(graph)
    scale = np.diag([1 / np.sqrt(degree) if degree else 0 for degree in laplacian.diagonal()])
    return scale @ laplacian @ scale


def walks(graph: Data, steps: int) -> np.ndarray:
    edges = edges_of(graph)
    walk = np.array([row / row.sum() if row.sum() else row for row in edges])
    return np.stack([np.linalg.matrix_power(walk, t).diagonal() for t in range(1, steps + 1)], axis=1)


def charges(graph: Data) -> np.ndarray:
    green, joined = np.linalg.pinv(laplacian_of(graph)), joined_of(graph)
    nodes = range(len(green))
    potential = np.array([[green[u, v] - green[v, v] for v in nodes] for u in nodes])
    near = np.array([[potential[u, v] * joined[u, v] / max(joined[u].sum(), 1) for v in nodes] for u in nodes])

    def statistics(values: np.ndarray) -> list[float]:
        return [values.min(), values.max(), values.mean(), values.std(ddof=1) if len(values) > 1 else 0.0]

    found = []
    for v in nodes:
        column, row = statistics(potential[:, v]), statistics(potential[v])
        found.append([*column, row[0], column[1], *row[2:], near[:, v].sum(), near[v].sum()])
    return np.array(found)


def hops(graph: Data, longest: int) -> np.ndarray:
    far = np.where(edges_of(graph) > 0, 1, np.inf)
    np.fill_diagonal(far, 0)
    for middle in range(len(far)):
        far = np.minimum(far, far[:, [middle]] + far[[middle]])
    return np.where(np.isinf(far), longest + 1, np.minimum(far, longest))


def close(found: torch.Tensor, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    assert found.shape == expected.shape
    assert np.linalg.norm(found.double().numpy() - expected) <= tolerance * max(1, np.linalg.norm(expected))


def is_lowest(graph: Data, found: GraphStore, laplacian: np.ndarray, count: int) -> None:
    """Whether vectors are orthonormal, have the lowest eigenvalues, a sign that is fixed, and NaN after the last."""
    kept = min(count, graph.num_nodes)
    vectors, values = found.nodes["laplacian"].double().numpy(), found.nodes["laplacian_values"].double().numpy()
    assert vectors.shape == values.shape == (graph.num_nodes, count)
    assert np.isnan(vectors[:, kept:]).all()
    assert np.isnan(values[:, kept:]).all()
    vectors, values = vectors[:, :kept], values[:, :kept]
    assert np.abs(values - np.linalg.eigvalsh(laplacian)[:kept]).max() < 1e-5
    assert np.linalg.norm(vectors.T @ vectors - np.eye(kept)) < 1e-5
    assert np.linalg.norm(laplacian @ vectors - vectors * values) < 1e-5
    for vector in vectors.T:
        assert vector[np.argmax(np.abs(vector) > np.abs(vector).max() * (1 - 1e-5))] > 0


@pytest.mark.parametrize("name", GRAPHS)
def test_encodings_are_their_formulas(name):
    graph = GRAPHS[name]
    found = encoded([graph])
    close(found.nodes["random_walk"], walks(graph, 7))
    heat = [expm(-t * laplacian_of(graph)).diagonal() for t in range(1, 5)]
    close(found.nodes["heat_kernel"], np.stack(heat, axis=1))
    close(found.nodes["electrostatic"], charges(graph))
    assert np.array_equal(found.pairs["shortest_paths"].numpy(), hops(graph, 3).reshape(-1, 1))
    is_lowest(graph, found, normalised_of(graph), 5)
    plain = encoded([graph], {"laplacian": Laplacian(5, normalised=False)})
    is_lowest(graph, plain, laplacian_of(graph), 5)


@pytest.mark.parametrize("name", ["no edges", "disconnected", "directed", "random", "random directed"])
def test_random_walks_are_those_of_pyg(name):
    expected = AddRandomWalkPE(9, "random_walk")(GRAPHS[name].clone()).random_walk
    assert torch.allclose(encoded([GRAPHS[name]], {"random_walk": 9}).nodes["random_walk"], expected, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 3, 8])
def test_as_many_steps_as_asked_for(steps):
    graph = GRAPHS["random directed"]
    close(encoded([graph], {"random_walk": steps}).nodes["random_walk"], walks(graph, steps))


def test_other_graphs_beside_it_change_nothing():
    graphs = [*GRAPHS.values(), GRAPHS["ring"]]
    together = encoded(graphs)
    for index, graph in enumerate(graphs):
        alone, among = encoded([graph]), together.select([index])
        for level, name, values in alone.fields():
            assert torch.allclose(getattr(among, level)[name], values, rtol=0, atol=1e-6, equal_nan=True), name


def test_matrices_computed_together_are_bounded(monkeypatch):
    monkeypatch.setattr(encodings, "TOGETHER", 2 * 49 + 1)
    numbers = []

    class Counted(RandomWalk):
        def __call__(self, graphs):
            numbers.append(graphs.number)
            return super().__call__(graphs)

    found = encoded([GRAPHS["ring"]] * 5 + [GRAPHS["random"]], {"random_walk": Counted(3)})
    assert numbers == [2, 2, 1, 1]
    close(found.nodes["random_walk"][28:35], walks(GRAPHS["ring"], 3))


def test_of_zeros_that_of_the_largest_part_comes_first(monkeypatch):
    monkeypatch.setattr(encodings, "DENSE_NODES", 0)
    found = encoded([GRAPHS["disconnected"]], {"laplacian": 2}).nodes["laplacian"]
    assert [vector.nonzero().flatten().tolist() for vector in found.T] == [[0, 1, 2], [4, 5]]


@pytest.mark.parametrize("name", ["disconnected", "loop", "multiple", "random", "random directed"])
def test_a_large_graph_is_encoded_as_a_small_one(name, monkeypatch):
    graph = GRAPHS[name]
    monkeypatch.setattr(encodings, "DENSE_NODES", 0)
    monkeypatch.setattr(_large, "ENTRIES", 5 * graph.num_nodes)
    close(encoded([graph], {"random_walk": 7}).nodes["random_walk"], walks(graph, 7))
    for small in (500, 0):
        monkeypatch.setattr(_large, "SMALL", small)
        is_lowest(graph, encoded([graph], {"laplacian": 3}), normalised_of(graph), 3)
        plain = encoded([graph], {"laplacian": Laplacian(3, normalised=False)})
        is_lowest(graph, plain, laplacian_of(graph), 3)


@pytest.mark.parametrize("rounds", [300, 1])
def test_lanczos_finds_the_lowest_of_a_large_component(rounds, monkeypatch):
    monkeypatch.setattr(encodings, "DENSE_NODES", 0)
    monkeypatch.setattr(_large, "SMALL", 0)
    monkeypatch.setattr(_large, "ROUNDS", rounds)
    graph = a_graph(60, [(i, i + 1) for i in range(40)] + [(i, i + 1) for i in range(42, 55)])
    found = encoded([graph], {"laplacian": 12})
    values, vectors = found.nodes["laplacian_values"].double(), found.nodes["laplacian"].double()
    laplacian = torch.from_numpy(normalised_of(graph))
    assert torch.allclose(values[0], torch.linalg.eigvalsh(laplacian)[:12], atol=1e-6)
    assert (laplacian @ vectors - vectors * values).norm() < 1e-5
    assert (vectors.T @ vectors - torch.eye(12)).norm() < 1e-5


@settings(max_examples=15, deadline=None)
@given(nodes=st.integers(1, 9), share=st.floats(0, 1), seed=st.integers(0, 99), both=st.booleans())
def test_another_order_of_the_nodes_orders_the_encodings(nodes, share, seed, both):
    graph = a_random_graph(nodes, share, seed, both)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(nodes))
    place = order.argsort()
    wanted = WANTED | {"laplacian": nodes}
    moved_graph = Data(edge_index=place[graph.edge_index], num_nodes=nodes)
    given, moved = encoded([graph], wanted), encoded([moved_graph], wanted)
    for name in ("random_walk", "heat_kernel", "electrostatic"):
        assert torch.allclose(moved.nodes[name], given.nodes[name][order], atol=1e-5), name
    given_hops, moved_hops = (store.pairs["shortest_paths"].view(nodes, nodes) for store in (given, moved))
    assert torch.equal(moved_hops, given_hops[order][:, order])
    # Signs and equal eigenvalues leave vectors a choice, but not U exp(-l) U^T.
    given_heat, moved_heat = (
        (store.nodes["laplacian"] * torch.exp(-store.nodes["laplacian_values"])) @ store.nodes["laplacian"].T
        for store in (given, moved)
    )
    assert torch.allclose(moved_heat, given_heat[order][:, order], atol=1e-5)


def test_encoding_again_replaces():
    store = encoded([GRAPHS["ring"], GRAPHS["two nodes"]])
    encode(store, {"random_walk": 3, "heat_kernel": HeatKernel(2, step=0.5)})
    assert store.nodes["random_walk"].shape == (9, 3)
    close(store.nodes["heat_kernel"][:7, 1], expm(-laplacian_of(GRAPHS["ring"])).diagonal())


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"walk": 20}, "there is no encoding walk; there are: random_walk, laplacian"),
        ({"random_walk": 0}, "width of the encoding random_walk is 0"),
        ({"random_walk": Laplacian(3)}, "give its width, a whole number"),
        ({"electrostatic": 7}, "electrostatic gives 10 numbers a node, not 7"),
    ],
)
def test_what_is_no_encoding_is_refused(wanted, words):
    with pytest.raises(QuintetError, match=words):
        encoded([GRAPHS["ring"]], wanted)


@pytest.mark.parametrize("name", ["heat_kernel", "electrostatic", "shortest_paths"])
def test_dense_matrices_of_large_graphs_are_refused(name, monkeypatch):
    monkeypatch.setattr(encodings, "MOST_NODES", 6)
    with pytest.raises(QuintetError, match=f"a graph of 7 nodes is too large for the encoding {name}"):
        encoded([GRAPHS["ring"]], {name: 10})


def test_built_encodings_go_in_place_of_a_width():
    found = encoded([GRAPHS["ring"]], {"random_walk": RandomWalk(2), "electrostatic": Electrostatic()})
    assert found.nodes["random_walk"].shape == (7, 2)
