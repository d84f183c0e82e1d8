"""Sources of published weights: names and licences as timm states them, layouts account for every tensor."""

import pytest
import timm
import torch

from quintet.core.weights.registry import create_model, list_models, model_entry
from quintet.vision import pretrained

SOURCES = [
    (name, tag, source) for name in list_models("vision/*") for tag, source in model_entry(name).pretrained.items()
]


def test_every_registered_model_has_weights():
    assert SOURCES
    assert all(model_entry(name).pretrained for name in list_models("vision/*"))


@pytest.mark.parametrize(
    ("name", "tag", "source"),
    [entry for entry in SOURCES if entry[2].location.startswith("hub:timm/")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_sources_of_timm_are_known_to_timm_with_the_same_licence_and_statistics(name, tag, source):
    published = timm.get_pretrained_cfg(source.location.removeprefix("hub:timm/"))
    assert published is not None
    assert source.location == f"hub:{published.hf_hub_id}"
    assert source.licence == published.license
    assert source.note == (pretrained.IMAGENET if published.mean[0] == 0.485 else pretrained.HALVES)
    if published.num_classes:
        assert published.num_classes in (1000, 21843)


def test_the_default_source_classifies_imagenet_where_one_does():
    defaults = {name: next(iter(model_entry(name).pretrained)) for name, *_ in SOURCES}
    others = {name for name, tag in defaults.items() if not tag.endswith("in1k")}
    segmenting = set(list_models("vision/segformer_*"))
    assert others - segmenting <= {"vision/vit_small_patch8", "vision/vit_large_patch32"}
    assert {defaults[name] for name in segmenting} == {"ade20k"}


@pytest.mark.parametrize(("name", "tag", "source"), SOURCES, ids=lambda value: value if isinstance(value, str) else "")
def test_every_source_says_licence_and_normalisation(name, tag, source):
    assert source.licence in ("apache-2.0", "mit", "cc-by-nc-4.0", pretrained.NVIDIA)
    assert source.location.startswith(("hub:", "https://"))
    assert source.note


def test_weights_without_a_head_leave_ours_as_initialised(tmp_path):
    theirs = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0, depth=1)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = create_model("vit_tiny", pretrained=str(tmp_path / "weights.pth"), depth=1, num_classes=4)
    torch.testing.assert_close(ours.encoder.blocks[0].mixer.qkv.weight, theirs.blocks[0].attn.qkv.weight)


@pytest.mark.parametrize("covered", [0, 1, 4])
def test_positions_of_class_and_register_tokens_join_these_tokens(covered):
    state = {
        "class_token": torch.randn(1, 1, 8),
        "register_tokens": torch.randn(1, 3, 8),
        "position.position": torch.randn(1, 25 + covered, 8),
    }
    before = torch.cat([state["class_token"], state["register_tokens"]], dim=1)
    table = state["position.position"]
    converted = pretrained.add_positions_to_tokens(state)
    after = torch.cat([converted["class_token"], converted["register_tokens"]], dim=1)
    torch.testing.assert_close(after[:, :covered], (before[:, :covered] + table[:, :covered]))
    torch.testing.assert_close(after[:, covered:], before[:, covered:])
    torch.testing.assert_close(converted["position.position"].flatten(0, 1), table[0, covered:])
