"""Pointer network: answers a set with some of its members, one after the other.

Paper: "Pointer Networks", arXiv 1506.03134.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...core.blocks.encoder import Encoder
from ...core.errors import QuintetError
from ...core.weights.described import Described
from .neighbours import padded

NOBODY = -1  # behind the end of a selection
SET_ENCODER = partial(Encoder, depth=3)

State = tuple[Tensor, Tensor]


class PointerHead(nn.Module):
    """u_ij = v . tanh(W_1 e_j + W_2 d_i): how much a query d_i wants option e_j; -inf where it is not allowed.

    Args:
        dim: of options.
        query_dim: of queries; None means `dim`.
        hidden_dim: of the sum; None means `dim`.
    """

    def __init__(self, dim: int, query_dim: int | None = None, hidden_dim: int | None = None) -> None:
        super().__init__()
        self.options = nn.Linear(dim, hidden_dim or dim, bias=False)
        self.queries = nn.Linear(query_dim or dim, hidden_dim or dim)
        self.score = nn.Linear(hidden_dim or dim, 1, bias=False)

    def forward(
        self,
        queries: Float[Tensor, "batch queries query_dim"],
        options: Float[Tensor, "batch options dim"],
        allowed: Bool[Tensor, "batch #queries options"],
    ) -> Float[Tensor, "batch queries options"]:
        sums = self.options(options).unsqueeze(1) + self.queries(queries).unsqueeze(2)
        return self.score(sums.tanh()).squeeze(-1).masked_fill(~allowed, -torch.inf)


class LSTMEncoder(nn.Module):
    """The published encoder: an LSTM over the members of each set in the order in which they come."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, dim, batch_first=True)

    def forward(
        self, x: Float[Tensor, "batch members dim"], mask: Bool[Tensor, "batch members"]
    ) -> Float[Tensor, "batch members dim"]:
        return self.lstm(x)[0] * mask.unsqueeze(-1)  # what is behind the end comes too late to change a member


class Options(NamedTuple):
    """Encoded members of each set, the last one meaning the end; what may be selected; where the decoder begins."""

    values: Float[Tensor, "graphs options dim"]
    allowed: Bool[Tensor, "graphs options"]
    state: State


class Selection(NamedTuple):
    """The members selected, numbered within their graph, -1 behind the end; and the logarithm of its probability."""

    index: Int[Tensor, "graphs steps"]
    log_probability: Float[Tensor, " graphs"]


class PointerNetwork(Described, nn.Module):
    """p(c_1 .. c_m | points) = prod_t softmax(u(d_t, e))_(c_t), d_t = LSTM(e_(c_(t-1))), e the encoded points.

    A batch has `positions` (N, dims) and `ptr`. One more option means the end. The paper encodes by an LSTM
    (`encoder=LSTMEncoder`), for which the order of points matters; the default encodes them as what they are, a set, by
    attention without positions in a sequence: points in another order are answered by the same points.

    Args:
        dims: of positions.
        dim: width of encoder and decoder.
        encoder: factory `SomeEncoder(dim)`, called with tokens (graphs, n, dim) and their mask (graphs, n).
        repeats: whether a member may be selected again.

    Raises QuintetError for positions of other dimensions and for targets that name no member.
    """

    def __init__(
        self,
        dims: int = 2,
        dim: int = 64,
        encoder: Callable[[int], nn.Module] = SET_ENCODER,
        repeats: bool = False,
    ) -> None:
        super().__init__()
        self.dims, self.repeats = dims, repeats
        self.entrance = nn.Sequential(nn.Linear(dims, dim), nn.GELU(), nn.Linear(dim, dim))
        self.encoder = encoder(dim)
        self.begin, self.end = nn.Parameter(torch.randn(dim) * 0.02), nn.Parameter(torch.randn(dim) * 0.02)
        self.first_state = nn.Linear(dim, dim)
        self.decoder = nn.LSTM(dim, dim, batch_first=True)
        self.head = PointerHead(dim)

    def encode(self, batch: Any) -> Options:
        """The options of each set: its members, encoded, and the end."""
        if batch.positions.shape[1] != self.dims:
            raise QuintetError(f"points have {batch.positions.shape[1]} coordinates; this network reads {self.dims}")
        points, mask = padded(batch.positions, batch.ptr)
        values = self.encoder(self.entrance(points), mask)
        mean = values.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        hidden = self.first_state(mean).tanh().unsqueeze(0)
        values = torch.cat([values, self.end.expand(len(values), 1, -1)], 1)
        return Options(values, F.pad(mask, (0, 1), value=True), (hidden, torch.zeros_like(hidden)))

    def forward(
        self, batch: Any, targets: Int[Tensor, "graphs steps"]
    ) -> Float[Tensor, "graphs steps_and_end options"]:
        """Logits of each step's options, given those selected before it; `targets` are -1 behind their end."""
        options = self.encode(batch)
        self._check(targets, options.allowed)
        chosen = targets.clamp(min=0)
        before = options.values.gather(1, chosen.unsqueeze(-1).expand(-1, -1, options.values.shape[-1]))
        inputs = torch.cat([self.begin.expand(len(before), 1, -1), before], 1)
        queries, _ = self.decoder(inputs, options.state)
        taken = F.one_hot(chosen, options.allowed.shape[1]).cumsum(1) * (targets != NOBODY).unsqueeze(-1)
        return self.head(queries, options.values, self._free(options.allowed, F.pad(taken, (0, 0, 1, 0)) > 0))

    def loss(self, batch: Any, targets: Int[Tensor, "graphs steps"]) -> Float[Tensor, ""]:
        """Cross entropy of the members to select and of the end, mean over all steps of the batch."""
        logits = self(batch, targets)
        steps, end = torch.arange(logits.shape[1], device=targets.device), logits.shape[2] - 1
        wanted = torch.where(
            steps == (targets != NOBODY).sum(1, keepdim=True), end, F.pad(targets, (0, 1), value=NOBODY)
        )
        return F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=NOBODY)

    @torch.no_grad()
    def select(self, batch: Any, beams: int = 1, longest: int | None = None) -> Selection:
        """The most probable selection that a search of so many beams finds; one beam is greedy.

        Args:
            batch: see above.
            beams: partial selections kept at each step, of each graph.
            longest: members after which a selection ends in any case; None means as many as the largest set has.
        """
        options = self.encode(batch)
        search = _Search(options, beams, self.begin)
        for left in reversed(range((options.allowed.shape[1] - 1 if longest is None else longest) + 1)):
            queries, state = self.decoder(search.last, search.state)
            free = self._free(search.allowed, search.taken) if left else search.only_the_end
            logits = self.head(queries, search.values, free.unsqueeze(1))
            search.advance(logits.squeeze(1).log_softmax(-1), state)
            if search.all_ended:
                break
        return search.best()

    def _free(self, allowed: Tensor, taken: Tensor) -> Tensor:
        """Which options may still be selected: (graphs, steps, options) or (beams, options), as `taken` is."""
        allowed = allowed.unsqueeze(1) if taken.dim() > allowed.dim() else allowed
        return allowed.expand_as(taken) if self.repeats else allowed & ~taken

    def _check(self, targets: Tensor, allowed: Tensor) -> None:
        sizes = allowed.sum(1, keepdim=True) - 1
        ended = (targets == NOBODY).long()
        if len(targets) != len(allowed) or (targets >= sizes).any() or (ended.diff(dim=1) < 0).any():
            raise QuintetError("targets name members of their graph, counted from 0, and are -1 behind their end only")


class _Search:
    """The beams of a search, graph after graph; a beam that ended stays as it is."""

    def __init__(self, options: Options, beams: int, begin: Float[Tensor, " dim"]) -> None:
        self.beams, self.end = beams, options.allowed.shape[1] - 1
        self.values, self.allowed = (each.repeat_interleave(beams, 0) for each in (options.values, options.allowed))
        self.state = tuple(each.repeat_interleave(beams, 1) for each in options.state)
        self.taken, self.only_the_end = torch.zeros_like(self.allowed), torch.zeros_like(self.allowed)
        self.only_the_end[:, -1] = True
        self.last = begin.expand(len(self.values), 1, -1)
        # All beams of a graph begin alike; but for one they cannot win, or all would continue alike.
        self.score = self.values.new_full((len(options.values), beams), -torch.inf)
        self.score[:, 0] = 0.0
        self.chosen = self.score.new_full((self.score.numel(), 0), self.end, dtype=torch.long)
        self.ended = self.only_the_end[:, 0]

    def advance(self, log_probabilities: Float[Tensor, "beams options"], state: State) -> None:
        """Keeps the most probable continuations of each graph's beams."""
        staying = torch.zeros_like(log_probabilities).masked_fill(~self.only_the_end, -torch.inf)
        log_probabilities = torch.where(self.ended.unsqueeze(1), staying, log_probabilities)
        total = (self.score.view(-1, 1) + log_probabilities).view(len(self.score), -1)
        self.score, index = total.topk(self.beams, dim=1)
        first = torch.arange(len(index), device=index.device).unsqueeze(1) * self.beams
        parent = (first + index.div(self.end + 1, rounding_mode="floor")).flatten()
        self._follow(parent, (index % (self.end + 1)).view(-1, 1), state)

    def _follow(self, parent: Int[Tensor, " beams"], choice: Int[Tensor, "beams 1"], state: State) -> None:
        self.state = tuple(each[:, parent] for each in state)
        self.taken = self.taken[parent].scatter(1, choice, choice != self.end)
        self.chosen = torch.cat([self.chosen[parent], choice], 1)
        self.ended = self.ended[parent] | (choice.squeeze(1) == self.end)
        self.last = self.values.gather(1, choice.unsqueeze(-1).expand(-1, -1, self.values.shape[-1]))

    @property
    def all_ended(self) -> bool:
        return bool(self.ended.all())

    def best(self) -> Selection:
        """Of each graph the most probable beam, which has ended."""
        chosen = self.chosen[:: self.beams, :-1]
        return Selection(chosen.masked_fill(chosen == self.end, NOBODY), self.score[:, 0])
