"""Where the nodes of graphs that stand one after another are in a padded batch."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor


class HeadRows(NamedTuple):
    """Places of the vectors of single heads: rows of queries, keys and values, (nodes, 3, heads) and padded.

    `source` holds of each padded row (3, graphs, heads, longest) the row of (nodes, 3, heads) it copies, of padding one
    of the same graph; `padded` of each of the latter its place among the former; `output` that of each (nodes, heads).
    """

    source: Int[Tensor, " padded_rows"]
    padded: Int[Tensor, " rows"]
    output: Int[Tensor, " outputs"]


@dataclass
class Padding:
    """A padded batch (graphs, longest, ...) of packed nodes; computed once for all layers.

    `places` are counted over graphs x longest, `mask` is True at real nodes, `hidden` is 0 there and -inf elsewhere;
    `nodes` says which node stands at each place, of padding the last of its graph.
    """

    places: Int[Tensor, " nodes"]
    mask: Bool[Tensor, "graphs longest"]
    hidden: Float[Tensor, "graphs 1 1 longest"]
    nodes: Int[Tensor, "graphs longest"]
    _rows: dict[int, HeadRows] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """(graphs, longest)."""
        return self.mask.shape[0], self.mask.shape[1]

    def pad(self, nodes: Shaped[Tensor, "nodes dim"]) -> Shaped[Tensor, "graphs longest dim"]:
        """The padded batch, zero where there is no node."""
        padded = nodes.new_zeros(self.mask.numel(), nodes.shape[-1]).index_copy(0, self.places, nodes)
        return padded.view(*self.mask.shape, -1)

    def pack(self, padded: Shaped[Tensor, "graphs longest dim"]) -> Shaped[Tensor, "nodes dim"]:
        """Undoes `pad`."""
        return padded.flatten(0, 1).index_select(0, self.places)

    def rows(self, heads: int) -> HeadRows:
        """Places of the vectors of so many heads."""
        if heads not in self._rows:
            self._rows[heads] = self._head_rows(heads)
        return self._rows[heads]

    def _head_rows(self, heads: int) -> HeadRows:
        graphs, longest = self.shape
        part, head = (torch.arange(count, device=self.places.device) for count in (3, heads))
        source = (self.nodes[:, None] * 3 + part[:, None, None, None]) * heads + head[:, None]
        graph, place = self.places // longest, self.places % longest
        output = (graph.unsqueeze(1) * heads + head) * longest + place.unsqueeze(1)
        padded = part.unsqueeze(1) * (graphs * heads * longest) + output.unsqueeze(1)
        return HeadRows(source.flatten(), padded.flatten(), output.flatten())


def padding_of(borders: Int[Tensor, " borders"], nodes: int, dtype: torch.dtype = torch.float32) -> Padding:
    """The padding of graphs of which `borders` holds 0 and where each ends."""
    counts = borders.diff().unsqueeze(1)
    longest = int(counts.max())
    place = torch.arange(longest, device=borders.device)
    mask = place < counts
    shifts = torch.arange(len(counts), device=borders.device) * longest - borders[:-1]
    places = torch.arange(nodes, device=borders.device) + shifts.repeat_interleave(counts[:, 0], output_size=nodes)
    standing = (borders[:-1, None] + torch.minimum(place, (counts - 1).clamp(min=0))).clamp(max=nodes - 1)
    # A softmax over nothing is NaN: a graph without nodes attends to its padding.
    hidden = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    hidden = hidden.masked_fill(~mask & (counts > 0), float("-inf"))
    return Padding(places, mask, hidden[:, None, None], standing)
