"""What every registered network says of itself is true of it."""

import re
from functools import cache
from inspect import signature
from pathlib import Path

import pytest
import torch
from torch import nn

from quintet.core.errors import QuintetError
from quintet.core.weights.network import Network, said
from quintet.core.weights.registry import factory_target, list_models, model_entry

CONFIGS = Path(__file__).parents[3] / "configs" / "experiment"


@cache
def network_of(name: str) -> nn.Module:
    """A network without numbers: names and shapes are all that is asked for here."""
    with torch.device("meta"):
        return model_entry(name).build()


@cache
def parameters_of(name: str) -> list[str]:
    return [key for key, _ in network_of(name).named_parameters()]


def below(names: list[str], prefix: str) -> set[str]:
    return {key for key in names if key == prefix or key.startswith(f"{prefix}.")}


@pytest.mark.parametrize("name", list_models())
class TestContract:
    def test_it_is_a_network_with_a_head(self, name):
        assert isinstance(network_of(name), Network)
        assert network_of(name).head_keys
        # Beside its own it may name what a file's head of the same kind may have.
        found, own = set(network_of(name).head_keys), set(parameters_of(name))
        assert found & own
        assert {key.split(".")[0] for key in found - own} <= {key.split(".")[0] for key in found & own}

    def test_its_layers_share_out_its_parameters_but_the_head(self, name):
        names, network = parameters_of(name), network_of(name)
        groups = [set().union(*(below(names, prefix) for prefix in group)) for group in network.layer_groups()]
        assert len(groups) > 1
        assert all(below(names, prefix) for group in network.layer_groups() for prefix in group)
        claimed = [key for group in groups for key in group]
        assert len(claimed) == len(set(claimed))
        assert not set(claimed) & set(network.head_keys)

    def test_what_it_does_not_decay_and_may_leave_out_exists(self, name):
        network = network_of(name)
        for key in network.no_weight_decay:  # a parameter, or one that this size is built without
            assert key in parameters_of(name) or getattr(network, key) is None
        assert all(key in network._buffers for key in network.optional_buffers)

    def test_no_layout_takes_its_own_weights_for_another_projects(self, name):
        assert not any(layout.matches(network_of(name).state_dict()) for layout in network_of(name).layouts)

    def test_its_maps_are_said_and_made_together(self, name):
        network = network_of(name)
        strides = [stride for _, stride in network.feature_info]
        assert strides == sorted(strides)
        assert bool(strides) == (type(network).feature_maps is not Network.feature_maps)

    def test_a_remedy_is_for_what_it_does_not_take(self, name):
        assert not set(network_of(name).remedies) & set(signature(type(network_of(name))).parameters)

    def test_it_is_tuned_further_by_an_experiment_that_there_is(self, name):
        experiment = re.match(r"experiment=(\S+) data\.(path=FILE|root=FOLDER)", network_of(name).finetune)
        assert (CONFIGS / f"{experiment[1]}.yaml").is_file()
        assert name.startswith(experiment[1].split("/")[0])

    def test_its_builder_returns_what_it_says(self, name):
        build = factory_target(model_entry(name).build)
        assert isinstance(build, type) or signature(build).return_annotation is type(network_of(name))


class Silent(nn.Module):
    """A network of a user's own that says little."""

    head_keys = ("head.weight",)


def test_a_silent_network_says_what_the_contract_does():
    assert said(Silent(), "head_keys") == ("head.weight",)
    assert said(Silent(), "layouts") == ()
    assert said(Silent(), "layer_groups")() == []
    with pytest.raises(QuintetError, match="Silent has no feature maps"):
        said(Silent(), "feature_maps")(torch.zeros(1, 3, 8, 8))
    with pytest.raises(AttributeError, match="head_key"):
        said(Silent(), "head_key")
