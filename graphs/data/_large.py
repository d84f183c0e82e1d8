"""Encodings of one large graph, from its sparse matrix and in bounded memory."""

import numpy as np
from jaxtyping import Float
from scipy import sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import ArpackNoConvergence, eigsh

ENTRIES = 2**22  # of a block of walks: 32 MB, of which three are held at a time
SMALL = 500  # nodes of a component, up to which its eigenvectors are those of a dense matrix
ROUNDS = 300  # of Lanczos before factorising the matrix, which needs more memory but copes with close eigenvalues


def simple(edges: sparse.csr_array) -> sparse.csr_array:
    """1 for two different nodes that an edge joins, either way."""
    joined = (edges + edges.T).tocoo()
    kept = joined.row != joined.col
    row, col = joined.row[kept], joined.col[kept]
    return sparse.csr_array((np.ones(len(row)), (row, col)), shape=edges.shape)


def returns(edges: sparse.csr_array, steps: int) -> Float[np.ndarray, "nodes {steps}"]:
    """[(D^-1 A)^t]_vv for t = 1, ..., steps.

    Where as many edges lead back as forth, S = D^-1/2 A D^-1/2 has the same diagonals, and with Z_a = S^a restricted to
    some columns, [S^(a + b)]_vv is the product of the columns v of Z_a and Z_b: half of the powers suffice.
    """
    nodes, columns = edges.shape[0], max(1, ENTRIES // edges.shape[0])
    degrees = np.maximum(edges.sum(axis=1), 1)
    mutual = (edges != edges.T).nnz == 0
    left, right = (degrees**-0.5, degrees**-0.5) if mutual else (1 / degrees, np.ones(nodes))
    walk = (sparse.diags_array(left) @ edges @ sparse.diags_array(right)).tocsr()
    block_returns = _mutual if mutual else _one_way
    begins = range(0, nodes, columns)
    return np.concatenate([block_returns(walk, slice(begin, begin + columns), steps) for begin in begins])


def _mutual(walk: sparse.csr_array, block: slice, steps: int) -> Float[np.ndarray, "block {steps}"]:
    found = []
    power = walk[:, block].toarray()
    found.append(power[block].diagonal())
    earlier = power
    for step in range(2, steps + 1):
        if step > 2 and step % 2:
            earlier, power = power, walk @ power
        found.append(np.einsum("nb,nb->b", earlier, power))
        earlier = power
    return np.stack(found, axis=1)


def _one_way(walk: sparse.csr_array, block: slice, steps: int) -> Float[np.ndarray, "block {steps}"]:
    power = walk[:, block].toarray()
    found = [power[block].diagonal()]
    for _ in range(steps - 1):
        power = walk @ power
        found.append(power[block].diagonal())
    return np.stack(found, axis=1)


def lowest(
    joined: sparse.csr_array, count: int, normalised: bool
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, "nodes k"]]:
    """Lowest eigenvalues of the Laplacian of a graph and their vectors: those of all its components, sorted.

    Of equal ones the larger component's come first.
    """
    _, labels = csgraph.connected_components(joined, directed=False)
    order = np.argsort(labels, kind="stable")
    components = np.split(order, np.bincount(labels).cumsum()[:-1])
    components = sorted(components, key=lambda nodes: -len(nodes))[:count]
    # Each component has a zero, and these come first.
    needed = count - len(components) + 1
    solved = [(nodes, *_component(joined[nodes][:, nodes], needed, normalised)) for nodes in components]
    values = np.concatenate([values for _, values, _ in solved])
    # Rounding must not decide which of the zeros comes first.
    kept = np.argsort(np.where(values < 1e-9, 0, values), kind="stable")[:count]
    owners = np.repeat(np.arange(len(solved)), [len(values) for _, values, _ in solved])
    columns = np.concatenate([np.arange(len(values)) for _, values, _ in solved])
    vectors = np.zeros((joined.shape[0], len(kept)))
    for place, at in enumerate(kept):
        nodes, _, component_vectors = solved[owners[at]]
        vectors[nodes, place] = component_vectors[:, columns[at]]
    return values[kept], vectors


def _component(joined: sparse.csr_array, count: int, normalised: bool) -> tuple[np.ndarray, np.ndarray]:
    """Lowest eigenpairs of a connected graph."""
    nodes, degrees = joined.shape[0], joined.sum(axis=1)
    if count == 1:
        constant = np.maximum(degrees, 1) ** 0.5 if normalised else np.ones(nodes)
        return np.zeros(1), constant[:, None] / np.linalg.norm(constant)
    laplacian = (sparse.diags_array(degrees) - joined).tocsr()
    if normalised:
        scale = sparse.diags_array(np.maximum(degrees, 1) ** -0.5)
        laplacian = (scale @ laplacian @ scale).tocsr()
    if nodes <= max(SMALL, 2 * count):
        values, vectors = np.linalg.eigh(laplacian.toarray())
        return values[:count], vectors[:, :count]
    return _lanczos(laplacian, count)


def _lanczos(laplacian: sparse.csr_array, count: int) -> tuple[np.ndarray, np.ndarray]:
    start = np.random.default_rng(0).standard_normal(laplacian.shape[0])
    # No eigenvalue is above twice the largest entry of the diagonal, so that the lowest are the largest of this.
    above = 2 * laplacian.diagonal().max()
    turned = (above * sparse.eye_array(laplacian.shape[0]) - laplacian).tocsr()
    try:
        values, vectors = eigsh(turned, count, which="LA", v0=start, maxiter=ROUNDS)
        values = above - values
    except ArpackNoConvergence:
        values, vectors = eigsh(laplacian, count, sigma=-1e-3, which="LM", v0=start)
    order = np.argsort(values, kind="stable")
    return values[order], vectors[:, order]
