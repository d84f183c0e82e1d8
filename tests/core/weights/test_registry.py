"""Models and mixers by name."""

from functools import partial

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from quintet.core.errors import QuintetError
from quintet.core.mixer import Mixer
from quintet.core.weights import registry
from quintet.core.weights.registry import (
    create_mixer,
    create_model,
    list_mixers,
    list_models,
    mixer_class,
    mixer_factory,
    mixer_summary,
    mixer_variants,
    model_entry,
    register_mixer,
    register_model,
)


@pytest.fixture
def models(monkeypatch):
    """Three models of two domains instead of the registered ones."""
    monkeypatch.setattr(registry, "_models", {})
    monkeypatch.setattr(registry, "_load_domains", lambda: None)

    @register_model("vision/small")
    class Small(nn.Linear):
        """A small model.

        And more of it.
        """

        def __init__(self, width: int = 2) -> None:
            super().__init__(width, 2)

    register_model("vision/twin")(Small)
    register_model("audio/twin")(lambda: nn.Identity())
    return Small


def test_models_are_listed_by_wildcard_with_or_without_their_domain(models):
    assert list_models() == ["audio/twin", "vision/small", "vision/twin"]
    assert list_models("vision/*") == ["vision/small", "vision/twin"]
    assert list_models("tw*") == ["audio/twin", "vision/twin"]
    assert list_models("nothing") == []


def test_a_model_is_built_with_arguments_and_its_domain_may_be_left_out_where_that_is_clear(models):
    assert create_model("small", width=3).in_features == 3
    with pytest.raises(QuintetError, match="small takes no widht; nearest: width"):
        create_model("small", widht=3)
    assert type(create_model("vision/twin")) is models
    assert model_entry("small").summary == "A small model."
    assert model_entry("audio/twin").summary == ""


def test_a_name_of_two_domains_must_be_given_in_full(models):
    with pytest.raises(QuintetError, match="several models: audio/twin, vision/twin"):
        create_model("twin")


def test_an_unknown_name_is_answered_with_the_nearest(models):
    with pytest.raises(QuintetError, match="no model is called 'vision/smal'; nearest: vision/small"):
        create_model("vision/smal")


def test_a_name_is_given_once(models):
    with pytest.raises(QuintetError, match="two models want the name 'vision/small'"):
        register_model("vision/small")(nn.Identity)


def test_weights_of_a_file_are_loaded_on_request_only(models, tmp_path):
    weights = {"weight": torch.full((2, 2), 0.5), "bias": torch.ones(2)}
    save_file(weights, tmp_path / "weights.safetensors")
    model = create_model("small", pretrained=str(tmp_path / "weights.safetensors"))
    assert torch.equal(model.weight, weights["weight"])
    assert not torch.equal(create_model("small").weight, weights["weight"])
    with pytest.raises(QuintetError, match="no published weights are known for 'vision/small'"):
        create_model("small", pretrained=True)


def test_every_registered_model_has_a_domain_and_a_summary():
    for name in list_models():
        assert name.split("/")[0] in ("vision", "timeseries", "graphs", "audio", "medical"), name
        assert model_entry(name).summary, name


def test_mixers_are_known_by_name():
    assert {"attention", "neighborhood", "linear"} <= set(list_mixers())
    assert list_mixers("neigh*") == ["neighborhood"]
    mixer = create_mixer("linear", 32, num_heads=2)
    assert type(mixer) is mixer_class("linear")
    assert isinstance(mixer, Mixer)


def test_mixer_names_are_checked(monkeypatch):
    with pytest.raises(QuintetError, match="no mixer is called 'nieghborhood'; nearest: neighborhood"):
        create_mixer("nieghborhood", 8)
    monkeypatch.setattr(registry, "_mixers", dict(registry._mixers))
    with pytest.raises(QuintetError, match="two mixers want the name 'linear'"):
        register_mixer("linear")(mixer_class("attention"))


def test_a_word_may_be_a_mixer_with_a_part_of_its_own(monkeypatch):
    monkeypatch.setattr(registry, "_mixers", dict(registry._mixers))

    class Narrow(nn.Identity):
        """How the part differs.

        And more of it.
        """

    narrow = partial(mixer_class("attention"), qk_norm=Narrow)
    register_mixer("narrow", variants={"causal": {"causal": True}})(narrow)
    assert mixer_factory("narrow") is narrow
    assert mixer_class("narrow") is mixer_class("attention")
    assert list(mixer_variants("narrow")) == ["causal"]
    assert mixer_summary("narrow") == "How the part differs."
    assert mixer_summary("attention").startswith("Softmax attention:")
    mixer = create_mixer("narrow", 8, num_heads=2)
    assert (mixer.num_heads, type(mixer.q_norm)) == (2, Narrow)


def test_a_model_takes_mixers_by_their_names(monkeypatch, models):
    taken = []
    register_model("vision/mixed")(lambda mixer=None: taken.append(mixer) or nn.Identity())
    attention, linear = mixer_class("attention"), mixer_class("linear")
    for given, expected in [
        ("linear", linear),
        (linear, linear),
        (["linear", ("attention", linear)], [linear, [attention, linear]]),
        (None, None),
    ]:
        create_model("mixed", mixer=given)
        assert taken.pop() == expected
    with pytest.raises(QuintetError, match="no mixer is called 'liner'; nearest: linear"):
        create_model("mixed", mixer="liner")


def test_real_models_take_them_too():
    """A string has as many letters as it has; a list of mixers one a stage."""
    model = create_model("vision/nat_mini", mixer="linear")
    assert type(model.encoder.stages[0].blocks[0].mixer) is mixer_class("linear")
