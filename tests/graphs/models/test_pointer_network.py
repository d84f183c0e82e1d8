"""Pointer network: its scores as loops, its search beside every selection there is, sets that are sets."""

from itertools import permutations

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch

from quintet.core.errors import QuintetError
from quintet.graphs.models import PointerHead, PointerNetwork
from quintet.graphs.models.pointer_network import LSTMEncoder, Selection

PTR = torch.tensor([0, 3, 5, 9])
SIZES = (3, 2, 4)


def points() -> Tensor:
    return torch.rand(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def a_batch(positions: Tensor, ptr: Tensor = PTR) -> Batch:
    return Batch(positions=positions, ptr=ptr)


def small(seed: int = 0, **arguments) -> PointerNetwork:
    torch.manual_seed(seed)
    network = PointerNetwork(dim=32, **arguments).double()
    with torch.no_grad():
        network.head.score.weight.mul_(8)  # so that selections differ in probability
    return network


def members(found: Selection, graph: int) -> list[int]:
    return [member for member in found.index[graph].tolist() if member >= 0]


def probabilities(network: PointerNetwork, points: Tensor, selections: list[list[int]]) -> list[float]:
    """Logarithms of those of selections of a single graph, the end included."""
    count, longest = len(selections), max(map(len, selections))
    batch = a_batch(points.repeat(count, 1), torch.arange(count + 1) * len(points))
    targets = torch.tensor([[*each, *[-1] * (longest - len(each))] for each in selections], dtype=torch.long)
    steps = network(batch, targets.view(count, longest)).log_softmax(-1).tolist()
    return [
        sum(row[member] for row, member in zip(logits, [*each, len(points)])) for logits, each in zip(steps, selections)
    ]


def test_scores_are_those_of_a_loop():
    torch.manual_seed(0)
    head = PointerHead(4, 6, 5).double()
    queries, options = torch.randn(2, 3, 6).double(), torch.randn(2, 7, 4).double()
    allowed = torch.rand(2, 3, 7) > 0.3
    found = head(queries, options, allowed)
    for b in range(2):
        for i in range(3):
            for j in range(7):
                hidden = head.options.weight @ options[b, j] + head.queries.weight @ queries[b, i] + head.queries.bias
                expected = head.score.weight[0] @ hidden.tanh()
                assert found[b, i, j] == -torch.inf if not allowed[b, i, j] else abs(found[b, i, j] - expected) < 1e-12


@pytest.mark.parametrize("encoder", [{}, {"encoder": LSTMEncoder}])
def test_logits_are_those_of_the_decoder_step_by_step(encoder):
    network, targets = small(**encoder), torch.tensor([[2, 0, -1], [1, -1, -1], [3, 1, 0]])
    found, options = network(a_batch(points()), targets), network.encode(a_batch(points()))
    for graph, selected in enumerate(([2, 0], [1], [3, 1, 0])):
        state, free = tuple(each[:, graph : graph + 1] for each in options.state), set(range(SIZES[graph])) | {4}
        last = network.begin
        for step in range(len(selected) + 1):
            hidden, state = network.decoder(last.view(1, 1, -1), state)
            allowed = torch.tensor([[[option in free for option in range(5)]]])
            expected = network.head(hidden, options.values[graph : graph + 1], allowed)[0, 0]
            assert torch.equal(found[graph, step].isinf(), expected.isinf())
            assert (found[graph, step] - expected)[allowed[0, 0]].norm() < 1e-12
            if step < len(selected):
                free, last = free - {selected[step]}, options.values[graph, selected[step]]


@pytest.mark.parametrize("encoder", [{}, {"encoder": LSTMEncoder}])
def test_graphs_of_a_batch_are_apart(encoder):
    network, targets = small(seed=4, **encoder), torch.tensor([[2, 0, -1], [1, -1, -1], [3, 1, 0]])
    together, selected = network(a_batch(points()), targets), network.select(a_batch(points()), 3)
    for graph, size in enumerate(SIZES):
        alone = a_batch(points()[PTR[graph] : PTR[graph + 1]], torch.tensor([0, size]))
        steps = int((targets[graph] >= 0).sum())
        logits = network(alone, targets[graph : graph + 1, :steps])
        kept = [*range(size), 4]
        assert (logits[0].exp() - together[graph, : steps + 1][:, kept].exp()).norm() < 1e-10
        single = network.select(alone, 3)
        assert members(single, 0) == members(selected, graph)
        assert abs(single.log_probability - selected.log_probability[graph]) < 1e-12


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_many_beams_find_the_most_probable_of_all_selections(seed):
    network = small(seed)
    found, greedy = network.select(a_batch(points()), beams=70), network.select(a_batch(points()))
    for graph, size in enumerate(SIZES):
        alone = points()[PTR[graph] : PTR[graph + 1]]
        every = [list(each) for length in range(size + 1) for each in permutations(range(size), length)]
        probable = probabilities(network, alone, every)
        best = max(range(len(every)), key=probable.__getitem__)
        assert members(found, graph) == every[best]
        assert abs(found.log_probability[graph] - probable[best]) < 1e-10
        assert abs(greedy.log_probability[graph] - probable[every.index(members(greedy, graph))]) < 1e-10


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_greedy_takes_the_most_probable_option_of_each_step(seed):
    network, alone = small(seed), a_batch(points()[5:], torch.tensor([0, 4]))
    selected = []
    while (choice := int(network(alone, torch.tensor([selected], dtype=torch.long))[0, -1].argmax())) != 4:
        selected.append(choice)
    assert members(network.select(alone), 0) == selected != []


def test_a_set_in_another_order_is_answered_by_the_same_points():
    network, order = small(seed=4), torch.tensor([2, 0, 1, 4, 3, 6, 8, 5, 7])
    found, again = network.select(a_batch(points()), 4), network.select(a_batch(points()[order]), 4)
    for graph, start in enumerate(PTR[:-1].tolist()):
        shuffled = [int(order[member + start]) - start for member in members(again, graph)]
        assert shuffled == members(found, graph) != []


def test_a_selection_ends_where_it_must():
    network = small(repeats=True)
    with torch.no_grad():  # scores are sums of tanh of the options, and the end's is the lowest
        network.head.options.weight.copy_(torch.eye(32))
        for parameter in network.head.queries.parameters():
            parameter.zero_()
        network.head.score.weight.fill_(1.0)
        network.end.fill_(-9.0)
    values, allowed = network.encode(a_batch(points()))[:2]
    highest = values.tanh().sum(-1).masked_fill(~allowed, -torch.inf).argmax(1).tolist()
    assert network.select(a_batch(points()), longest=2).index.tolist() == [[member, member] for member in highest]
    assert network.select(a_batch(points())).index.shape[1] == 4


def test_the_loss_is_the_mean_over_steps_and_the_end():
    network, targets = small(), torch.tensor([[2, 0, -1], [1, -1, -1], [3, 1, 0]])
    total = 0.0
    for graph, selected in enumerate(([2, 0], [1], [3, 1, 0])):
        total -= probabilities(network, points()[PTR[graph] : PTR[graph + 1]], [selected])[0]
    loss = network.loss(a_batch(points()), targets)
    assert abs(loss - total / 9) < 1e-10
    loss.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("targets", [[[3, -1], [0, 1], [0, 1]], [[0, 1], [-1, 1], [0, 1]], [[0, 1]]])
def test_targets_that_name_no_member_are_refused(targets):
    with pytest.raises(QuintetError, match="targets name members of their graph"):
        small()(a_batch(points()), torch.tensor(targets))


def test_points_of_other_dimensions_are_refused():
    with pytest.raises(QuintetError, match="points have 2 coordinates; this network reads 3"):
        small(dims=3).encode(a_batch(points()))
