"""What all tasks share that train a network by name: libraries by prefix, sizes, weights, licences, freezing."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from quintet.core.errors import QuintetError
from quintet.core.learning.metrics import collection
from quintet.core.learning.network_task import NetworkTask
from quintet.core.weights import libraries
from quintet.core.weights.libraries import Library, library_of, register_library
from quintet.core.weights.network import Network
from quintet.core.weights.networks import Kind, accepts
from quintet.core.weights.pretrained import Layout, LoadReport, Terms


@dataclass
class Points:
    """What is known of the data."""

    width: int


class Net(Network):
    """A body and a head; another project publishes it, its body called stem, under terms of its own."""

    head_keys = ("head.weight", "head.bias")
    layouts = (Layout("stems", r"^stem\.", ((r"^stem\.", "body."),), terms=Terms("Strict Licence", "research alone")),)

    def __init__(self, width: int = 2, hidden: int = 3, mixer=None) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(width, hidden), nn.Linear(hidden, 1)

    @classmethod
    def arguments_from(cls, path):
        return {"hidden": len(torch.load(path)["stem.bias"])} if "stem" in path.name else {}

    def layer_groups(self):
        return [["body"]]


class Fit(NetworkTask):
    """Builds its network and measures nothing."""

    description_type: ClassVar[type] = Points
    kind: ClassVar[Kind] = Kind("toys", "a toy", "net")

    def make(self, description):
        self.network = self.build_network({"width": description.width})

    def metrics(self):
        return collection({})


def made(backbone=Net, *, width=2, **arguments):
    task = Fit(backbone, **arguments)
    task.adopt(Points(width))
    return task


@pytest.fixture
def shop(monkeypatch):
    """A library of the toys alone, with one network; the domains' own stay as they are."""
    monkeypatch.setattr(libraries, "_libraries", dict(libraries._libraries))

    @register_library("toys", "shop")
    class Shop(Library):
        def has(self, name):
            return name == "train"

        def build(self, name, own, arguments):
            return Net(own["width"], **arguments)

        def load(self, network, name, which, own, arguments):
            nn.init.ones_(network.body.weight)
            return LoadReport(f"shop:{name} {which} {own} {dict(arguments)}", licence="of the shop")

    return Shop


class TestLibraries:
    def test_a_name_with_a_prefix_is_built_by_the_library_of_the_domain(self, shop):
        task = made("shop:train", width=5, backbone_arguments={"hidden": 4})
        assert task.network.body.weight.shape == (4, 5)
        assert task.record()["task"]["init_args"]["backbone"] == "shop:train"

    def test_its_weights_are_loaded_and_its_licence_is_recorded(self, shop):
        task = made("shop:train", pretrained="tag", backbone_arguments={"hidden": 4})
        assert (task.network.body.weight == 1).all()
        weights = "shop:train tag {'width': 2} {'hidden': 4}"
        assert task.record()["origin"] == {"weights": weights, "licence": "of the shop"}

    def test_another_domain_does_not_have_it(self, shop):
        with pytest.raises(QuintetError, match=r"'shop:train' asks for a library 'shop:', which vision does not have"):
            library_of("shop:train", "vision")
        with pytest.raises(QuintetError, match=r"which toys does not have; it has shop:"):
            made("timm:resnet18")

    def test_who_forgets_the_prefix_is_told(self, shop):
        with pytest.raises(QuintetError, match=r"no model of quintet is called 'train'; shop's is shop:train"):
            made("train")

    def test_no_mixer_is_put_into_it(self, shop):
        with pytest.raises(QuintetError, match=r"shop:train takes no mixer; give a registered backbone, such as net"):
            made("shop:train", mixer=nn.Linear)

    def test_a_prefix_has_one_library_a_domain(self, shop):
        with pytest.raises(QuintetError, match="two libraries of toys want the prefix 'shop:'"):
            register_library("toys", "shop")(shop)
        register_library("other toys", "shop")(shop)
        assert isinstance(library_of("shop:x", "other toys")[0], shop)
        assert not accepts("shop:train", Fit.kind, "width")


class TestWeights:
    @pytest.fixture
    def published(self, tmp_path):
        """Weights in the other project's names, of another hidden width."""
        path = tmp_path / "stem.pth"
        state = Net(2, 7).state_dict()
        torch.save({key.replace("body", "stem"): value for key, value in state.items()}, path)
        return path

    def test_terms_are_accepted_first(self, published):
        with pytest.raises(QuintetError, match=r"Strict Licence.*research alone.*model.accept_license=true"):
            made(pretrained=str(published))

    def test_what_the_file_states_is_recorded_as_arguments(self, published):
        task = made(pretrained=str(published), accept_license=True)
        assert task.network.body.out_features == 7
        assert task.record()["task"]["init_args"]["backbone_arguments"] == {"hidden": 7}
        assert task.record()["origin"] == {"weights": str(published), "licence": "Strict Licence"}

    def test_restoring_reads_no_file(self):
        task = Fit(Net, pretrained="nowhere.pth")
        task.adopt(Points(2), restoring=True)
        assert task.origin is None


class TestLayers:
    def test_the_word_backbone_freezes_all_but_the_head(self):
        learning = {key for key, value in made(freeze=["backbone"]).named_parameters() if value.requires_grad}
        assert learning == {"network.head.weight", "network.head.bias"}

    def test_so_it_does_under_adapters(self):
        task = made(freeze=["backbone"], lora_rank=1)
        learning = {key for key, value in task.named_parameters() if value.requires_grad}
        assert {"network.head.bias", "network.body.parametrizations.weight.0.up"} <= learning
        assert "network.body.parametrizations.weight.original" not in learning

    def test_layers_learn_at_their_rates(self):
        assert made(layer_decay=0.5).layer_groups() == [["network.body"]]

    def test_a_network_that_says_nothing_is_told_so(self):
        def silent(width):
            return nn.Linear(width, 1)

        with pytest.raises(QuintetError, match=r"silent does not say which parameters are its head \(head_keys\)"):
            made(silent, freeze=["backbone"])
        with pytest.raises(QuintetError, match=r"layer_decay needs the order of layers, and silent has no"):
            made(silent, layer_decay=0.5).layer_groups()

    def test_sizes_are_those_of_the_data(self):
        with pytest.raises(QuintetError, match=r"backbone_arguments.width is 3, but the data say 2; leave it out"):
            made(backbone_arguments={"width": 3})
        assert made(backbone_arguments={"width": 2}).network.body.in_features == 2
        with pytest.raises(QuintetError, match=r"model.backbone is a built Net"):
            Fit(Net())
