"""InceptionTime: its formula in float64, padding that changes nothing, gaps that hide what stands there."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from quintet.core.errors import QuintetError
from quintet.core.norm import BatchNorm
from quintet.core.weights.registry import count_parameters, create_model
from quintet.timeseries.models import InceptionTime


def series(length: int = 21, channels: int = 2, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    values = torch.randn(3, length, channels, dtype=dtype, generator=torch.Generator().manual_seed(0))
    return values, torch.ones(3, length, channels, dtype=torch.bool)


def unsettled(network: nn.Module) -> nn.Module:
    """With statistics and weights of its norms that are no identity."""
    generator = torch.Generator().manual_seed(1)
    for norm in (part for part in network.modules() if isinstance(part, BatchNorm)):
        for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
            tensor.normal_(generator=generator)
        norm.running_var.uniform_(0.5, 2.0, generator=generator)
    return network


def correlate(x: Tensor, weight: Tensor) -> Tensor:
    """One convolution as sums over shifted steps; of an even length one more step is seen ahead than behind."""
    weight = weight.flatten(2)
    length, steps = weight.shape[2], x.shape[1]
    behind = (length - 1) // 2
    padded = torch.zeros(len(x), steps + length - 1, x.shape[2], dtype=x.dtype)
    padded[:, behind : behind + steps] = x
    return sum(padded[:, at : at + steps] @ weight[:, :, at].T for at in range(length))


def normalize(x: Tensor, norm: nn.Module) -> Tensor:
    return (x - norm.running_mean) * norm.weight / (norm.running_var + norm.eps).sqrt() + norm.bias


def by_hand(network: InceptionTime, values: Tensor) -> Tensor:
    x = shortcut = values
    for layer, module in enumerate(network.inceptions):
        narrow = x if x.shape[2] == 1 else x @ module.bottleneck.weight.T
        edge = torch.full_like(x[:, :1], -torch.inf)
        wide = torch.cat([edge, x, edge], 1)
        highest = torch.stack([wide[:, :-2], wide[:, 1:-1], wide[:, 2:]]).amax(0)
        parts = [correlate(narrow, one.weight) for one in module.convolutions] + [highest @ module.pooled.weight.T]
        x = normalize(torch.cat(parts, 2), module.norm).clamp(min=0)
        if layer in (2, 5):
            through = shortcut @ network.shortcuts[layer // 3].weight.T
            x = shortcut = (x + normalize(through, network.shortcut_norms[layer // 3])).clamp(min=0)
    return x.mean(1) @ network.head.weight.T + network.head.bias


@pytest.mark.parametrize("channels", [1, 3])
def test_the_published_formula(channels):
    torch.manual_seed(0)
    network = unsettled(InceptionTime(channels, 4, filters=5, lengths=(8, 4, 3)).double()).eval()
    values, observed = series(17, channels)
    expected = by_hand(network, values)
    assert (network(values, observed) - expected).norm() < 1e-12 * expected.norm()


def test_the_published_size():
    # One channel: no bottleneck at the entrance; then five modules of 128 channels, two shortcuts and the head.
    first = 32 * (40 + 20 + 10) + 32 + 2 * 128
    further = 128 * 32 + 32 * 32 * (40 + 20 + 10) + 128 * 32 + 2 * 128
    shortcuts = 1 * 128 + 128 * 128 + 2 * 2 * 128
    network = create_model("timeseries/inception_time", channels=1, num_classes=3)
    assert count_parameters(network) == first + 5 * further + shortcuts + 128 * 3 + 3


@pytest.mark.parametrize("training", [False, True])
def test_padding_changes_nothing(training):
    torch.manual_seed(0)
    network = unsettled(InceptionTime(2, 3, filters=4).double()).train(training)
    values, observed = series()
    alone = network(values, observed)
    garbage = torch.cat([values, torch.full((3, 13, 2), torch.nan, dtype=torch.float64)], 1)
    mask = torch.arange(34).expand(3, 34) < 21
    padded = network(garbage, torch.ones_like(garbage, dtype=torch.bool), mask)
    assert torch.allclose(alone, padded, rtol=1e-9, atol=1e-11)


@settings(max_examples=20)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4))
def test_a_series_is_classified_alike_in_any_company(lengths):
    torch.manual_seed(0)
    network = unsettled(InceptionTime(2, 3, filters=2, depth=3).double()).eval()
    values = torch.randn(len(lengths), max(lengths), 2, dtype=torch.float64)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    together = network(values, torch.ones_like(values, dtype=torch.bool), mask)
    for number, length in enumerate(lengths):
        own = values[number : number + 1, :length]
        alone = network(own, torch.ones_like(own, dtype=torch.bool))
        assert torch.allclose(alone[0], together[number], rtol=1e-9, atol=1e-11)


def test_what_is_not_observed_counts_as_zero():
    network = InceptionTime(2, 3, filters=4).eval()
    values, observed = series(dtype=torch.float32)
    observed[0, 4:9, 1] = False
    zero = values.masked_fill(~observed, 0.0)
    spoiled = values.masked_fill(~observed, torch.nan)
    assert torch.equal(network(spoiled, observed), network(zero, torch.ones_like(observed)))


def test_every_parameter_learns_and_belongs_to_a_group():
    network = InceptionTime(2, 3, filters=4).train()
    F.cross_entropy(network(*series(dtype=torch.float32)), torch.tensor([0, 1, 2])).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    prefixes = tuple(f"{prefix}." for group in network.layer_groups() for prefix in group)
    left = [name for name, _ in network.named_parameters() if not name.startswith(prefixes)]
    assert left == ["head.weight", "head.bias"]


def test_one_step_is_enough():
    network = InceptionTime(1, 2, filters=2).eval()
    assert network(torch.zeros(1, 1, 1), torch.ones(1, 1, 1, dtype=torch.bool)).shape == (1, 2)


def test_other_channels_are_refused():
    with pytest.raises(QuintetError, match="this model takes 2 channels; got values shaped"):
        InceptionTime(2, 3, filters=2)(*series(channels=3))


@pytest.mark.parametrize("sizes", [{"filters": 0}, {"depth": 0}, {"lengths": [8, 0]}, {"lengths": []}])
def test_sizes_below_one_are_refused(sizes):
    with pytest.raises(QuintetError, match="each is at least 1"):
        InceptionTime(1, 2, **sizes)
