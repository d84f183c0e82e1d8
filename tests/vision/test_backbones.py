"""Backbones by name, from timm, as classes and functions, and as the command line hands them over."""

import functools
import sys
from collections.abc import Callable

import pytest
import timm
import torch
from lightning.pytorch.cli import LightningCLI
from torch import nn

from quintet.core.adaptation.lora import add_adapters, plain_name
from quintet.core.attention import Attention
from quintet.core.data.module import DataModule
from quintet.core.errors import QuintetError
from quintet.core.learning.task import Task
from quintet.core.mixer import Mixer
from quintet.core.optim.parameter_groups import parameter_groups
from quintet.core.weights.described import description_of
from quintet.core.weights.network import said
from quintet.core.weights.networks import build_network, load_network
from quintet.core.weights.pretrained import load_weights
from quintet.core.weights.records import build
from quintet.vision import ImageClassifier
from quintet.vision.backbones import IMAGES
from quintet.vision.data.images import ImageDescription
from quintet.vision.models import VisionTransformer
from quintet.vision.models.timm_maps import TimmMaps

HERE = __name__


def build_backbone(backbone, num_classes, in_channels, arguments):
    return build_network(backbone, IMAGES, {"num_classes": num_classes, "in_channels": in_channels}, arguments)


def load_backbone(network, backbone, which, num_classes, in_channels, arguments):
    sizes = {"num_classes": num_classes, "in_channels": in_channels}
    return load_network(network, backbone, IMAGES, which, sizes, arguments)


def head_keys_of(network):
    return said(network, "head_keys")


def layer_groups_of(network):
    return said(network, "layer_groups")()


class Net(nn.Module):
    """A network of the user's own: pooled pixels, one layer, one head."""

    head_keys = ("head.weight", "head.bias")

    def __init__(
        self, width: int = 4, num_classes: int = 10, in_channels: int = 3, mixer: Callable[[int], Mixer] | None = None
    ) -> None:
        super().__init__()
        self.body = nn.Conv2d(in_channels, width, 3, padding=1)
        self.mixer = mixer(width) if mixer else None
        self.head = nn.Linear(width, num_classes)

    def forward(self, images):
        x = self.body(images).relu()
        if self.mixer is not None:
            x = self.mixer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head(x.mean((2, 3)))

    def layer_groups(self):
        return [["body"]]


class Plain(nn.Module):
    """One that takes no mixer and says nothing about itself."""

    def __init__(self, num_classes: int, in_channels: int, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))

    def forward(self, images):
        return self.layers(images)


def small(num_classes: int, in_channels: int) -> nn.Module:
    return Net(2, num_classes, in_channels)


def test_by_name():
    network = build_backbone("vit_tiny", 5, 1, {"depth": 1, "image_size": 32})
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 5)


def test_by_class_function_and_partial():
    for backbone in (Net, small, functools.partial(Net, width=2), Plain):
        assert build_backbone(backbone, 5, 1, {})(torch.zeros(2, 1, 4, 4)).shape == (2, 5)


def test_a_mixer_is_put_in():
    network = build_backbone(Net, 5, 1, {"mixer": functools.partial(Attention, num_heads=2)})
    assert isinstance(network.mixer, Attention)
    assert network(torch.zeros(2, 1, 4, 4)).shape == (2, 5)


@pytest.mark.parametrize(
    ("backbone", "arguments", "complaint"),
    [
        ("vit_tinny", {}, "no model is called 'vit_tinny'; nearest: vision/vit_tiny"),
        ("timm:resnt18", {}, r"timm has no model 'resnt18'; nearest: resnet18"),
        ("timm:hf-hub:someone/model", {}, "timm has no model"),
        ("timm:resnet10t", {"mixer": Attention}, "timm:resnet10t takes no mixer; give a registered backbone"),
        ("timm:resnet10t", {"depht": 3}, "timm:resnet10t refuses {'depht': 3}"),
        ("vit_tiny", {"dept": 3}, "vit_tiny takes no dept; nearest: depth"),
        ("nat_mini", {"img_size": 96}, "nat_mini takes no img_size; leave it out: images of any size are taken"),
        ("segformer_b0", {"image_size": 96}, "segformer_b0 takes no image_size; leave it out: images of any size"),
        ("resnet18", {}, "no model of quintet is called 'resnet18'; timm's is timm:resnet18"),
        ("nat_tinny", {}, "no model is called 'nat_tinny'; nearest: vision/nat_tiny"),
        (Plain, {"mixer": Attention}, "Plain takes no mixer; give a backbone that does, such as nat_mini"),
        (functools.partial(Plain, width=3), {"with": 3}, "Plain takes no with; nearest: width"),
        (nn.ReLU, {}, "ReLU takes no num_classes; a backbone is called with num_classes and in_channels"),
    ],
)
def test_mistakes_are_one_line(backbone, arguments, complaint):
    with pytest.raises(QuintetError) as caught:
        build_backbone(backbone, 5, 3, arguments)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_error_inside_a_backbone_is_not_hidden():
    def broken(num_classes, in_channels):
        return Net(colour=3)

    with pytest.raises(TypeError, match="colour"):
        build_backbone(broken, 5, 3, {})


def test_timm_says_what_its_head_and_layers_are():
    network = build_backbone("timm:vit_tiny_patch16_224", 5, 3, {"img_size": 32, "depth": 2})
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 5)
    assert head_keys_of(network) == ("head.weight", "head.bias")
    groups = layer_groups_of(network)
    claimed = [name for names in groups for name in names]
    assert sorted([*claimed, *head_keys_of(network)]) == sorted(name for name, _ in network.named_parameters())
    assert any(name.startswith("patch_embed") for name in groups[0])
    assert any(name.startswith("blocks.0") for name in groups[1])


def test_adapted_weights_of_timm_stay_in_their_layers():
    network = build_backbone("timm:vit_tiny_patch16_224", 5, 3, {"img_size": 32, "depth": 2})
    before = layer_groups_of(network)
    add_adapters(network, 1)
    for names, plain in zip(layer_groups_of(network), before, strict=True):
        assert {plain_name(name) for name in names} == set(plain)
    maps = TimmMaps("vit_tiny_patch16_224", 3, {"depth": 3})
    assert "network.model.pos_embed" in maps.no_weight_decay()
    add_adapters(maps, 1)
    assert sorted(name for names in maps.layer_groups() for name in names) == sorted(dict(maps.named_parameters()))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_timms_word_on_what_is_not_decayed_is_heard(name):
    depth = {"depth": 1} if "vit" in name else {"depths": (1, 1), "num_heads": (1, 2)}
    network = build_backbone(f"timm:{name}", 5, 3, {"img_size": 56 if "swin" in name else 32, **depth})
    groups = parameter_groups(network, 1e-3, 0.05)
    held = {id(p) for group in groups if not group["weight_decay"] for p in group["params"]}
    named = dict(network.named_parameters())
    words = ("pos_embed", "cls_token", "relative_position_bias_table")
    assert [key for key in named if key.endswith(words)]
    assert all((id(p) in held) == (p.ndim < 2 or key.endswith(words)) for key, p in named.items())


def test_timm_weights_from_a_file_with_another_head(tmp_path):
    torch.manual_seed(0)
    source = timm.create_model("resnet10t", num_classes=7)
    path = tmp_path / "weights.pth"
    torch.save(source.state_dict(), path)
    network = build_backbone("timm:resnet10t", 3, 3, {})
    report = load_backbone(network, "timm:resnet10t", str(path), 3, 3, {})
    assert sorted(report.head_replaced) == ["fc.bias", "fc.weight"]
    assert torch.equal(network.layer1[0].conv1.weight, source.layer1[0].conv1.weight)


def test_timm_weights_by_tag(monkeypatch):
    network = build_backbone("timm:resnet10t", 3, 1, {})
    create = timm.create_model
    asked = []

    def offline(name, pretrained, **arguments):
        asked.append((name, pretrained))
        torch.manual_seed(1)
        return create(name, pretrained=False, **arguments)

    monkeypatch.setattr(timm, "create_model", offline)
    report = load_backbone(network, "timm:resnet10t", "c3_in1k", 3, 1, {})
    assert asked == [("resnet10t.c3_in1k", True)]
    torch.manual_seed(1)
    expected = create("resnet10t", num_classes=3, in_chans=1).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())
    assert report.head_replaced == ["fc.weight", "fc.bias"]


def test_timm_weights_out_of_reach_say_what_to_do(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("offline")

    network = build_backbone("timm:resnet10t", 3, 3, {})
    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(
        QuintetError, match=r"cannot load the weights of timm:resnet10t \(offline\); .*model.pretrained=FILE"
    ):
        load_backbone(network, "timm:resnet10t", True, 3, 3, {})


def test_own_weights_from_a_file(tmp_path):
    source = Net()
    path = tmp_path / "weights.pth"
    torch.save(source.state_dict(), path)
    network = build_backbone(Net, 3, 3, {})
    report = load_backbone(network, Net, str(path), 3, 3, {})
    assert report.head_replaced == ["head.weight", "head.bias"]
    assert torch.equal(network.body.weight, source.body.weight)
    with pytest.raises(QuintetError, match="no published weights are known for 'Net'"):
        load_backbone(network, Net, True, 3, 3, {})


# As the Lightning CLI hands it over


class Nothing(DataModule):
    pass


def typed(**arguments) -> ImageClassifier:
    """The task as the Lightning CLI builds it from class_path/init_args dictionaries."""
    return LightningCLI(
        Task,
        DataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        run=False,
        save_config_callback=None,
        seed_everything_default=0,
        parser_kwargs={"exit_on_error": False},
        trainer_defaults={"logger": False, "accelerator": "cpu"},
        args={
            "model": {"class_path": "quintet.vision.ImageClassifier", "init_args": arguments},
            "data": {"class_path": f"{HERE}.Nothing"},
        },
    ).model


@pytest.fixture(autouse=True)
def nothing_typed(monkeypatch):
    """The Lightning CLI warns where the test run's own arguments stand beside its."""
    monkeypatch.setattr(sys, "argv", ["quintet"])


@pytest.mark.parametrize("name", ["nat_mini", "vision/nat_mini", "timm:vit_base_patch16_224.augreg_in1k"])
def test_a_name_stays_a_name(name):
    task = typed(backbone=name)
    assert task.backbone == name
    assert description_of(task)["init_args"]["backbone"] == name


def test_class_path_becomes_a_factory_with_its_first_argument():
    # The first positional argument of a class is where jsonargparse's reading of Callable[...] goes wrong.
    task = typed(backbone={"class_path": f"{HERE}.Net", "init_args": {"width": 6}})
    network = build_backbone(task.backbone, 5, 1, {})
    assert (network.body.out_channels, network.head.out_features, network.body.in_channels) == (6, 5, 1)


def test_class_path_of_a_packaged_model_round_trips_through_a_description():
    arguments = {"image_size": 8, "patch_size": 2, "dim": 32, "depth": 1}
    task = typed(
        backbone={"class_path": "quintet.vision.models.VisionTransformer", "init_args": arguments},
        mixer={"class_path": "quintet.core.attention.Attention", "init_args": {"num_heads": 4}},
    )
    description = description_of(task)
    assert "num_classes" not in description["init_args"]["backbone"]["init_args"]
    again = build(description)
    network = build_backbone(again.backbone, 5, 1, {"mixer": again.mixer})
    assert isinstance(network, VisionTransformer)
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 5)
    assert {module.num_heads for module in network.modules() if isinstance(module, Attention)} == {4}


@pytest.mark.parametrize("mixer", ["Attention", "quintet.core.attention.Attention"])
def test_mixer_by_class_name(mixer):
    task = typed(backbone="nat_mini", mixer=mixer)
    assert isinstance(task.mixer(32), Attention)


@pytest.mark.parametrize(
    ("given", "expected"), [(True, True), ("true", True), (False, False), ("in1k", "in1k"), ("/a/b.pth", "/a/b.pth")]
)
def test_pretrained(given, expected):
    assert typed(pretrained=given).pretrained == expected


def test_arguments_of_a_named_backbone():
    task = typed(backbone="vit_tiny", backbone_arguments={"depth": 1, "image_size": 32})
    assert len(build_backbone(task.backbone, 5, 3, task.backbone_arguments)(torch.zeros(1, 3, 32, 32))[0]) == 5


def test_a_built_network_is_refused():
    with pytest.raises(QuintetError, match=r"model.backbone is a built Net.*give the class or a registered name"):
        ImageClassifier(backbone=Net())


def test_published_weights_of_packaged_models_load_by_file(tmp_path):
    arguments = {"depth": 1, "image_size": 32}
    source = build_backbone("vit_tiny", 10, 3, arguments)
    path = tmp_path / "weights.pth"
    torch.save(source.state_dict(), path)
    network = build_backbone("vit_tiny", 4, 3, arguments)
    assert load_backbone(network, "vit_tiny", str(path), 4, 3, arguments).head_replaced
    load_weights(source, path)


def test_a_checkpoint_of_another_backbone_is_refused(tmp_path):
    description = ImageDescription(["a", "b"], 3, [32, 32], [0.5] * 3, [0.25] * 3, [1, 1])

    def made(backbone, **arguments):
        task = ImageClassifier(backbone, **arguments)
        task.adopt(description)
        return task

    small = {"depth": 1, "image_size": 32}
    trained = made("vit_tiny", backbone_arguments=small)
    with pytest.raises(
        QuintetError, match=r"the checkpoint is of another model: .* give the model it was trained with"
    ):
        made("nat_mini", backbone_arguments={"dim": 32, "depths": [1]}).load_state_dict(trained.state_dict())
    path = tmp_path / "vit.ckpt"
    torch.save({"state_dict": trained.state_dict(), "quintet": trained.record()}, path)
    with pytest.raises(QuintetError, match=r"vit.ckpt does not fit NeighborhoodAttentionTransformer: .* missing"):
        made("nat_mini", backbone_arguments={"dim": 32, "depths": [1]}, pretrained=str(path))
    again = made("vit_tiny", backbone_arguments=small, pretrained=str(path))
    assert torch.equal(
        again.network.encoder.blocks[0].mixer.qkv.weight, trained.network.encoder.blocks[0].mixer.qkv.weight
    )
