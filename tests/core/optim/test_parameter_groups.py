"""Which parameters decay, and how fast each layer learns."""

import pytest
import torch
from torch import nn

from quintet.core.optim.parameter_groups import not_decayed, parameter_groups


class Net(nn.Module):
    """A stem, two blocks and a head; the position table of block 1 must not decay though it has two axes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 2)
        self.blocks = nn.ModuleList([nn.Linear(4, 4, bias=False), Positioned()])
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)


class Positioned(nn.Module):
    no_weight_decay = ("table",)

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(3, 4))
        self.mix = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.zeros(()))


LAYERS = [["stem"], ["blocks.0"], ["blocks.1", "norm"]]


def by_name(model, groups):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)]: group for group in groups for parameter in group["params"]}


def test_every_parameter_is_in_exactly_one_group():
    model = Net()
    for layers, decay in (((), None), (LAYERS, 0.5), (LAYERS, None)):
        groups = parameter_groups(model, 0.1, 0.05, layers, decay)
        grouped = [id(parameter) for group in groups for parameter in group["params"]]
        assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())
        torch.optim.AdamW(groups)  # an optimizer refuses a parameter given twice


def test_vectors_scalars_and_position_tables_do_not_decay():
    model = Net()
    groups = by_name(model, parameter_groups(model, 0.1, 0.05))
    decayed = {name for name, group in groups.items() if group["weight_decay"] == 0.05}
    assert decayed == {"stem.weight", "blocks.0.weight", "blocks.1.mix.weight", "head.weight"}
    assert {group["weight_decay"] for name, group in groups.items() if name not in decayed} == {0.0}
    assert {group["lr"] for group in groups.values()} == {0.1}


def test_a_model_that_is_itself_the_module_with_the_table():
    groups = by_name(model := Positioned(), parameter_groups(model, 0.1, 0.05))
    assert groups["table"]["weight_decay"] == 0.0


class Told(nn.Module):
    """Says which tables are not decayed by a method, as timm's models do, or by a collection."""

    def __init__(self, names):
        super().__init__()
        self.table, self.other = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2, 2))
        self.inner = nn.ModuleDict({"table": Positioned()})
        self.no_weight_decay = names


@pytest.mark.parametrize("names", [{"table"}, ("table",), lambda: {"table"}])
def test_what_is_not_decayed_is_stated_by_a_collection_or_a_method(names):
    model = Told(names)
    assert not_decayed(model) == {"table", "inner.table.table"}
    groups = by_name(model, parameter_groups(model, 0.1, 0.05))
    decay = {name: group["weight_decay"] for name, group in groups.items()}
    assert decay["table"] == decay["inner.table.table"] == 0.0
    assert decay["other"] == decay["inner.table.mix.weight"] == 0.05


@pytest.mark.parametrize("decay", [0.5, 1.0, 0.0])
def test_layers_learn_at_lr_times_decay_to_the_power_of_their_distance_to_the_head(decay):
    model = Net()
    groups = by_name(model, parameter_groups(model, 0.1, 0.05, LAYERS, decay))
    expected = {"stem": 0.1 * decay**3, "blocks.0": 0.1 * decay**2, "blocks.1": 0.1 * decay, "norm": 0.1 * decay}
    for name, group in groups.items():
        prefix = next((prefix for prefix in expected if name.startswith(f"{prefix}.")), None)
        assert group["lr"] == pytest.approx(expected.get(prefix, 0.1), rel=1e-12), name


def test_the_longest_prefix_claims_a_parameter_and_prefixes_end_at_dots():
    model = nn.ModuleDict({"a": nn.ModuleDict({"b": nn.Linear(2, 2, bias=False)}), "ab": nn.Linear(2, 2, bias=False)})
    groups = by_name(model, parameter_groups(model, 1.0, 0.0, [["a"], ["a.b"]], 0.1))
    assert groups["a.b.weight"]["lr"] == pytest.approx(0.1)
    assert groups["ab.weight"]["lr"] == 1.0


def test_groups_are_named_and_go_from_the_first_layer_to_the_head():
    groups = parameter_groups(Net(), 0.1, 0.05, LAYERS, 0.5)
    assert [group["name"] for group in groups] == [
        "layer 0, not decayed",
        "layer 0",
        "layer 1",
        "layer 2, not decayed",
        "layer 2",
        "layer 3, not decayed",
        "layer 3",
    ]


def test_frozen_parameters_are_grouped_so_that_they_can_thaw():
    model = Net()
    model.stem.requires_grad_(False)
    assert "stem.weight" in by_name(model, parameter_groups(model, 0.1, 0.05))
