"""Encodings that tell a node where it stands in its graph, computed once before training.

Graphs with as many nodes as each other are computed together, dense and in double precision, without a loop over them.
A graph of more than `DENSE_NODES` nodes is computed sparse, block by block, in bounded memory. What an encoding says of
a graph does not depend on which others are computed beside it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from rich.progress import track
from scipy import sparse
from scipy.sparse import csgraph
from torch import Tensor

from ...core.errors import QuintetError
from . import _large
from .store import GraphStore

DENSE_NODES = 1500  # of a graph, up to which walks and eigenvectors are those of a dense matrix
MOST_NODES = 6000  # of a graph, for encodings that need a dense matrix of it: 0.3 GB each
TOGETHER = 2**18  # entries of the matrices that are computed together: 2 MB, which a processor keeps near
SHOWN_FROM = 300  # graphs from which a progress bar appears
ZERO = 1e-9  # an eigenvalue of L below this belongs to a component's constant vector


@dataclass(frozen=True)
class Alike:
    """Graphs of one number of nodes, their nodes one after the other.

    Args:
        number: of graphs.
        nodes: of each.
        edge_index: sources and targets, counted over all nodes.
    """

    number: int
    nodes: int
    edge_index: Int[Tensor, "2 edges"]

    @cached_property
    def edges(self) -> Float[Tensor, "graphs n n"]:
        """Number of edges from each node (row) to each other (column)."""
        source, target = self.edge_index
        entries = source * self.nodes + target % self.nodes
        total = self.number * self.nodes**2
        return torch.bincount(entries, minlength=total).view(-1, self.nodes, self.nodes).double()

    @cached_property
    def neighbours(self) -> Float[Tensor, "graphs n n"]:
        """1 for two different nodes that an edge joins, whichever way it leads and however many there are."""
        joined = ((self.edges + self.edges.mT) > 0).double()
        joined.diagonal(dim1=1, dim2=2).zero_()
        return joined

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (number, nodes) and eigenvectors (columns) of the Laplacian L = D - A of `neighbours`."""
        return torch.linalg.eigh(torch.diag_embed(self.neighbours.sum(-1)) - self.neighbours)

    @property
    def matrix(self) -> sparse.csr_array:
        """Number of edges between all nodes, sparse."""
        source, target = self.edge_index.numpy()
        size = self.number * self.nodes
        return sparse.csr_array((np.ones(len(source)), (source, target)), shape=(size, size))

    @property
    def sparse_neighbours(self) -> sparse.csr_array:
        """`neighbours`, sparse."""
        return _large.simple(self.matrix)


@runtime_checkable
class Encoding(Protocol):
    """A way to encode the nodes of graphs, or the pairs of nodes."""

    level: ClassVar[str]
    """What the numbers belong to: "nodes" or "pairs"."""

    def __call__(self, graphs: Alike) -> dict[str, Tensor]:
        """Fields by name, (number * nodes, width) of nodes or (number * nodes^2, 1) of pairs."""
        ...


@dataclass(frozen=True)
class RandomWalk:
    """How likely a random walk from a node is back after t steps: random_walk (N, steps).

        p_t(v) = [(D^-1 A)^t]_vv    t = 1, ..., steps

    A_uv counts the edges from u to v, D is the diagonal of its row sums; a walk ends where no edge leaves. With
    X_a = (D^-1 A)^a the diagonal of X_a X_b needs no product of matrices, so that half of the powers suffice.
    Of more than `DENSE_NODES` nodes, blocks of the walks are held, of `_large.ENTRIES` numbers, never all.

    Paper: "Graph Neural Networks with Learnable Structural and Positional Representations" (arXiv 2110.07875).
    """

    steps: int = 20
    level: ClassVar[str] = "nodes"

    def __call__(self, graphs: Alike) -> dict[str, Tensor]:
        if graphs.nodes > DENSE_NODES:
            rows = [torch.from_numpy(_large.returns(graphs.matrix, self.steps))]
        else:
            rows = [torch.stack(list(self._returns(graphs.edges)), dim=-1).flatten(0, 1)]
        return {"random_walk": torch.cat(rows).float()}

    def _returns(self, edges: Float[Tensor, "graphs n n"]) -> Iterator[Float[Tensor, "graphs n"]]:
        walk = edges / edges.sum(-1, keepdim=True).clamp(min=1)
        yield walk.diagonal(dim1=1, dim2=2)
        earlier, power = walk, walk
        for step in range(2, self.steps + 1):
            if step > 2 and step % 2:
                earlier, power = power, power @ walk
            yield (earlier * power.mT).sum(-1)
            earlier = power


@dataclass(frozen=True)
class Laplacian:
    """Eigenvectors of the lowest eigenvalues: laplacian (N, count), and the eigenvalues laplacian_values (N, count).

        L = D - A,  or normalised  L = D^-1/2 (D - A) D^-1/2    L u_i = l_i u_i,  0 = l_1 <= l_2 <= ...

    A joins two different nodes with an edge either way, however many there are. Every u_i has length 1 over the nodes
    of its graph, those of l = 0 come too, and the entry of largest magnitude is positive (of several within 1e-6, the
    first). Where a graph has fewer nodes than `count`, the rest is NaN. A node without an edge has l = 0. Equal
    eigenvalues leave their vectors a choice, which falls the same way each time.

    Of more than `DENSE_NODES` nodes, each connected component is solved for itself by Lanczos from a fixed start, so
    that none of the zeros is missed.

    Papers: "Benchmarking Graph Neural Networks" (arXiv 2003.00982); "A Generalization of Transformer Networks to
    Graphs" (arXiv 2012.09699).
    """

    count: int = 8
    normalised: bool = True
    level: ClassVar[str] = "nodes"

    def __call__(self, graphs: Alike) -> dict[str, Tensor]:
        values, vectors = self._lowest(graphs)
        values, vectors = values.clamp(min=0), _signed(vectors)
        missing = (0, self.count - values.shape[-1])
        vectors = torch.nn.functional.pad(vectors, missing, value=torch.nan)
        values = torch.nn.functional.pad(values, missing, value=torch.nan)
        return {
            "laplacian": vectors.flatten(0, 1).float(),
            "laplacian_values": values.repeat_interleave(graphs.nodes, dim=0).float(),
        }

    def _lowest(self, graphs: Alike) -> tuple[Float[Tensor, "graphs k"], Float[Tensor, "graphs n k"]]:
        if graphs.nodes > DENSE_NODES:
            values, vectors = _large.lowest(graphs.sparse_neighbours, self.count, self.normalised)
            return torch.from_numpy(values)[None], torch.from_numpy(vectors)[None]
        values, vectors = torch.linalg.eigh(self._normalised(graphs)) if self.normalised else graphs.spectrum
        return values[:, : self.count], vectors[:, :, : self.count]

    def _normalised(self, graphs: Alike) -> Float[Tensor, "graphs n n"]:
        degrees = graphs.neighbours.sum(-1)
        scale = torch.where(degrees > 0, degrees.rsqrt(), 0)
        return torch.diag_embed((degrees > 0).double()) - scale[:, :, None] * graphs.neighbours * scale[:, None, :]


@dataclass(frozen=True)
class HeatKernel:
    """Heat that stays at a node after a time t: heat_kernel (N, count).

        h_t(v) = [exp(-t L)]_vv = sum_i exp(-t l_i) u_i(v)^2    t = step, 2 step, ..., count step,    L = D - A

    GraphGPS leaves out the vectors of l = 0, which add 1 / (nodes of v's component) for every t.

    Paper: "Recipe for a General, Powerful, Scalable Graph Transformer" (arXiv 2205.12454).
    """

    count: int = 16
    step: float = 1.0
    level: ClassVar[str] = "nodes"

    def __call__(self, graphs: Alike) -> dict[str, Tensor]:
        _refuse_large("heat_kernel", graphs.nodes)
        values, vectors = graphs.spectrum
        times = self.step * torch.arange(1, self.count + 1)
        heat = vectors.square() @ torch.exp(-values.clamp(min=0)[:, :, None] * times)
        return {"heat_kernel": heat.flatten(0, 1).float()}


@dataclass(frozen=True)
class Electrostatic:
    """What charges at the nodes do to each other: electrostatic (N, 10).

        G = pseudo-inverse of L = D - A    V_uv = G_uv - G_vv    M = D^-1 A * V  (entry by entry)

    of a node v: least, largest, mean and deviation of V's column v; of its row v least, the column's largest again (as
    published), mean and deviation; the sums of M's column v and row v. Deviations are those of a sample, 0 for one
    node; a node without an edge has sums 0.

    Paper: "Recipe for a General, Powerful, Scalable Graph Transformer" (arXiv 2205.12454).
    """

    width: int = 10
    level: ClassVar[str] = "nodes"

    def __post_init__(self) -> None:
        if self.width != 10:
            raise QuintetError(f"electrostatic gives 10 numbers a node, not {self.width}; give electrostatic: 10")

    def __call__(self, graphs: Alike) -> dict[str, Tensor]:
        _refuse_large("electrostatic", graphs.nodes)
        values, vectors = graphs.spectrum
        inverse = torch.where(values > ZERO, 1 / values, 0)
        green = (vectors * inverse[:, None]) @ vectors.mT
        potential = green - green.diagonal(dim1=1, dim2=2)[:, None]
        shares = graphs.neighbours / graphs.neighbours.sum(-1, keepdim=True).clamp(min=1)
        near, correction = shares * potential, min(1, graphs.nodes - 1)
        columns = [potential.amin(1), potential.amax(1), potential.mean(1), potential.std(1, correction=correction)]
        rows = [potential.amin(2), potential.amax(1), potential.mean(2), potential.std(2, correction=correction)]
        statistics = torch.stack([*columns, *rows, near.sum(1), near.sum(2)], dim=-1)
        return {"electrostatic": statistics.flatten(0, 1).float()}


@dataclass(frozen=True)
class ShortestPaths:
    """Edges on the shortest path between two nodes: shortest_paths (sum of squared node counts, 1).

        d(u, v) = fewest edges from u to v, at most `longest`;  longest + 1 where no path leads from u to v

    along the edges as they are given: row u, column v. A table of what each distance means has longest + 2 rows.

    Paper: "Do Transformers Really Perform Bad for Graph Representation?" (arXiv 2106.05234).
    """

    longest: int = 20
    level: ClassVar[str] = "pairs"

    def __call__(self, graphs: Alike) -> dict[str, Tensor]:
        _refuse_large("shortest_paths", graphs.nodes)
        matrix, borders = graphs.matrix, range(0, graphs.number * graphs.nodes, graphs.nodes)
        blocks = [matrix[begin : begin + graphs.nodes, begin : begin + graphs.nodes] for begin in borders]
        far = np.stack([csgraph.shortest_path(block, unweighted=True) for block in blocks])
        hops = np.where(np.isinf(far), self.longest + 1, np.minimum(far, self.longest))
        kind = torch.int8 if self.longest < 127 else torch.int32
        return {"shortest_paths": torch.from_numpy(hops).to(kind).view(-1, 1)}


ENCODINGS: dict[str, type[Encoding]] = {
    "random_walk": RandomWalk,
    "laplacian": Laplacian,
    "heat_kernel": HeatKernel,
    "electrostatic": Electrostatic,
    "shortest_paths": ShortestPaths,
}


def encodings_of(wanted: Mapping[str, int | Encoding]) -> list[Encoding]:
    """Encodings by name and width, e.g. {"random_walk": 20, "laplacian": 8}; or built, in the place of a width.

    Raises QuintetError for a name that is none, or a width below 1.
    """
    for name, width in wanted.items():
        if name not in ENCODINGS:
            raise QuintetError(f"there is no encoding {name}; there are: {', '.join(ENCODINGS)}")
        if isinstance(width, int) and width < 1:
            raise QuintetError(f"the width of the encoding {name} is {width}; give at least 1")
        if not isinstance(width, int | ENCODINGS[name]):
            raise QuintetError(f"the encoding {name} is {width!r}; give its width, a whole number")
    return [ENCODINGS[name](width) if isinstance(width, int) else width for name, width in wanted.items()]


def encode(store: GraphStore, wanted: Mapping[str, int | Encoding], progress: bool = False) -> GraphStore:
    """Adds encodings to a store, in place, and returns it.

    Args:
        store: graphs to encode.
        wanted: width of each encoding by name, as `GraphDescription.encodings` has them.
        progress: shows a bar where there are 300 graphs, or a large one.

    Raises:
        QuintetError: a name or a width that is none, or a graph too large for an encoding.
    """
    encodings = encodings_of(wanted)
    batches = list(_alike(store.node_counts)) if encodings else []
    long = len(store) >= SHOWN_FROM or bool((store.node_counts > DENSE_NODES).any())
    for graphs in track(batches, "encoding graphs", transient=True, disable=not (progress and long)):
        alike = _taken(store, graphs)
        for encoding in encodings:
            rows = store.rows(encoding.level, graphs).index
            for name, values in encoding(alike).items():
                _field(store, encoding.level, name, values)[rows] = values
    return store


def _alike(node_counts: Int[Tensor, " graphs"]) -> Iterator[Int[Tensor, " taken"]]:
    """Numbers of graphs of one size each, few enough to be computed together."""
    for nodes in node_counts[node_counts > 0].unique():
        graphs = (node_counts == nodes).nonzero().flatten()
        yield from graphs.split(max(1, TOGETHER // int(nodes) ** 2))


def _taken(store: GraphStore, graphs: Int[Tensor, " taken"]) -> Alike:
    rows, nodes = store.rows("edges", graphs), int(store.node_counts[graphs[0]])
    shift = (torch.arange(len(graphs)) * nodes).repeat_interleave(rows.counts)
    return Alike(len(graphs), nodes, store.edge_index[:, rows.index].long() + shift)


def _field(store: GraphStore, level: str, name: str, values: Tensor) -> Tensor:
    """The tensor of all graphs that `values` of some of them go to."""
    fields, total = getattr(store, level), store.total(level)
    if name not in fields or fields[name].shape != (total, *values.shape[1:]) or fields[name].dtype != values.dtype:
        fields[name] = values.new_zeros(total, *values.shape[1:])
    return fields[name]


def _signed(vectors: Float[Tensor, "graphs n k"]) -> Float[Tensor, "graphs n k"]:
    """Eigenvectors whose entry of largest magnitude is positive."""
    size = vectors.abs()
    first = (size >= size.amax(1, keepdim=True) * (1 - 1e-6)).double().argmax(1, keepdim=True)
    return vectors * vectors.gather(1, first).sign()


def _refuse_large(name: str, nodes: int) -> None:
    if nodes > MOST_NODES:
        raise QuintetError(
            f"a graph of {nodes} nodes is too large for the encoding {name}, which takes at most {MOST_NODES}; leave "
            "it out of data.encodings: random_walk and laplacian take graphs of any size"
        )
