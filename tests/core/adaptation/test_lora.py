"""Adapters: nothing changes at first, merged and unmerged agree, and a task learns nothing else."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from quintet.core.adaptation.lora import adapt, adapter_state, adapters_of, add_adapters, merge_adapters, merged_state
from quintet.core.errors import QuintetError
from quintet.core.ssm import SLSTM
from quintet.core.weights.pretrained import load_weights


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def learned(module):
    """As after training: no adapter is zero any more."""
    for adapter in adapters_of(module).values():
        nn.init.normal_(adapter.up)
    return module


class Net(nn.Module):
    """A convolution, an sLSTM with weights that stack matrices, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(3, 8, 3, padding=1)
        self.mixer = SLSTM(8, num_heads=2, convolution_width=0)
        self.head = nn.Linear(8, 5)
        nn.init.normal_(self.mixer.recurrent_weight, std=0.3)

    def forward(self, x):
        return self.head(self.mixer(self.stem(x).transpose(1, 2)))


def test_the_formula():
    torch.manual_seed(0)
    layer = nn.Linear(6, 4).double()
    weight, x = layer.weight.detach().clone(), torch.randn(3, 6).double()
    add_adapters(layer, 2, alpha=5.0)
    (adapter,) = adapters_of(learned(layer)).values()
    expected = F.linear(x, weight, layer.bias) + 5.0 / 2 * x @ adapter.down.T @ adapter.up.T
    assert error(layer(x), expected) < 1e-14


def test_a_stack_has_an_adapter_a_matrix():
    mixer = SLSTM(8, num_heads=2, convolution_width=0)
    assert add_adapters(mixer, 3) == ["gate_weight", "recurrent_weight"]
    gates, recurrence = adapters_of(learned(mixer)).values()
    assert gates.up.shape == (4, 2, 4, 3)
    assert recurrence.down.shape == (2, 3, 16)
    change = mixer.recurrent_weight - mixer.parametrizations.recurrent_weight.original
    for head in range(2):
        assert torch.linalg.matrix_rank(change[head].flatten(1)) == 3


@given(rank=st.integers(1, 4), alpha=st.floats(0.5, 32.0), seed=st.integers(0, 2**31))
def test_first_the_same_then_merged_the_same(rank, alpha, seed):
    torch.manual_seed(seed)
    net, x = Net().double(), torch.randn(2, 3, 7).double()
    names, before = list(net.state_dict()), net(x)
    # Sides of 3 and of 5 take a rank of 3 at most.
    add_adapters(net, rank, alpha, ["mixer.*", "head.*"])
    assert torch.equal(net(x), before)
    after = learned(net)(x)
    assert error(after, before) > 1e-3
    merge_adapters(net)
    assert error(net(x), after) < 1e-13
    assert list(net.state_dict()) == names or sorted(net.state_dict()) == sorted(names)
    assert not adapters_of(net)


def test_what_adapters_learned_is_small_and_moves_to_a_copy():
    torch.manual_seed(0)
    net = Net()
    twin = copy.deepcopy(net)
    for one in (net, twin):
        add_adapters(one, 1)
    state = adapter_state(learned(net))
    assert sum(value.numel() for value in state.values()) < sum(value.numel() for value in net.parameters()) / 2
    twin.load_state_dict(state, strict=False)
    x = torch.randn(2, 3, 7)
    assert torch.equal(twin(x), net(x))


def test_a_file_with_adapters_loads_as_the_weights_they_make(tmp_path):
    torch.manual_seed(0)
    net, x = Net(), torch.randn(2, 3, 7)
    add_adapters(net, 2, alpha=7.0)
    expected = learned(net)(x)
    torch.save(net.state_dict(), tmp_path / "tuned.pth")
    plain = Net()
    load_weights(plain, tmp_path / "tuned.pth")
    torch.testing.assert_close(plain(x), expected, rtol=1e-5, atol=1e-5)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)).state_dict()  # not ours to merge
    assert merged_state(normed).keys() == normed.keys()


def test_only_adapters_and_what_is_named_learn():
    holder = nn.ModuleDict({"network": Net()})
    holder["network"].head_keys = ("head.weight", "head.bias")
    adapt(holder, 2, targets=["network.mixer.*"])
    found = {name for name, parameter in holder.named_parameters() if parameter.requires_grad}
    adapters = {
        f"network.mixer.parametrizations.{w}_weight.0.{p}" for w in ("gate", "recurrent") for p in ("up", "down")
    }
    assert found == adapters | {"network.head.weight", "network.head.bias"}
    net = Net()
    adapt(net, 2, also=["stem.*"])  # the weight by the name it had before
    assert net.stem.parametrizations.weight.original.requires_grad
    assert not net.head.bias.requires_grad


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"rank": 2, "targets": ["norm.*"]}, r"no weight that can be adapted matches 'norm.\*'; choices: head.weight"),
        ({"rank": 6, "targets": ["head.*"]}, "an adapter of a matrix of 5 by 8 has a rank of 1 to 5"),
        ({"rank": 1, "also": ["heads"]}, "model.lora_also: no parameter matches 'heads'"),
    ],
)
def test_what_is_refused(arguments, complaint):
    with pytest.raises(QuintetError, match=complaint):
        adapt(Net(), **arguments)
