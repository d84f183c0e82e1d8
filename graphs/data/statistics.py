"""What can be counted of any graph: nodes, edges, categories, means; enough for a first guess without a network."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch_geometric.data import Batch

MOST = 64  # categories of a column that are counted by themselves


def graph_statistics(batch: Batch, categories: dict[str, list[int]]) -> Float[Tensor, "graphs statistics"]:
    """Of each graph its nodes, its edges, edges a node, shares of the categories and means of the numbers, in float64.

    Args:
        batch: of graphs.
        categories: words of each column of `node_categories` and of `edge_categories`.
    """
    graphs = len(batch.ptr) - 1
    of_nodes, of_edges = batch.batch, batch.batch[batch.edge_index[0]]
    nodes, edges = (torch.bincount(owners, minlength=graphs).double() for owners in (of_nodes, of_edges))
    columns = [nodes[:, None], edges[:, None], (edges / nodes.clamp(min=1))[:, None]]
    for level, owners, count in (("node", of_nodes, nodes), ("edge", of_edges, edges)):
        codes, values = (getattr(batch, f"{level}_{kind}", None) for kind in ("categories", "values"))
        words = categories.get(f"{level}_categories", [])
        if codes is not None:
            columns += [_shares(codes[:, at], size, owners, count) for at, size in enumerate(words)]
        if values is not None:
            columns.append(_sums(values.double(), owners, graphs) / count.clamp(min=1)[:, None])
    if (described := getattr(batch, "graph_values", None)) is not None:
        columns.append(described.double())
    return torch.cat(columns, dim=1)


def _shares(codes: Int[Tensor, " rows"], words: int, owners: Int[Tensor, " rows"], count: Tensor) -> Tensor:
    """How much of each graph each category is; those beyond the first ones count together."""
    size = min(words + 1, MOST)
    hot = torch.nn.functional.one_hot(codes.clamp(max=size - 1), size).double()
    return _sums(hot, owners, len(count)) / count.clamp(min=1)[:, None]


def _sums(values: Float[Tensor, "rows columns"], owners: Int[Tensor, " rows"], graphs: int) -> Tensor:
    return values.new_zeros(graphs, values.shape[1]).index_add_(0, owners, values)
