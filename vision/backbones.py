"""What a user may give as `backbone` of a task on images: timm's models too, and what a segmenter is built from."""

import inspect
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import nn

from ..core.adaptation.lora import plain_name
from ..core.errors import QuintetError, first_line, nearest
from ..core.weights.libraries import Library, library_of, register_library
from ..core.weights.network import said
from ..core.weights.networks import Kind, build_network, builder_of, load_network, name_of
from ..core.weights.pretrained import LoadReport, load_pretrained
from ..core.weights.registry import factory_target
from .models.decoders import Decoder, SegFormerHead
from .models.segmentation import FeaturePyramid, SegmentationNetwork, with_pyramid
from .models.timm_maps import TimmMaps, refuse_loading

IMAGES = Kind("vision", "a backbone", "nat_mini")
MAPS = Kind("vision", "a backbone", "mit_b0")


@runtime_checkable
class Backbone(Protocol):
    """A class or function that builds an image model once the data says how many classes and channels there are."""

    def __call__(self, *, num_classes: int, in_channels: int) -> nn.Module: ...


@register_library("vision", "timm")
class Timm(Library):
    """timm's classifiers, features where `num_classes` is 0, and their maps."""

    def has(self, name: str) -> bool:
        import timm

        return timm.is_model(name)

    def build(self, name: str, own: Mapping[str, Any], arguments: Mapping[str, Any]) -> nn.Module:
        import timm

        refuse_loading(name, arguments)
        # Only models of the installed library: timm's other kinds of names fetch a configuration from elsewhere.
        if not timm.is_model(name):
            raise QuintetError(f"timm has no model '{name}'; {nearest(name.split('.')[0], timm.list_models())}")
        sizes = {"num_classes": own["num_classes"], "in_chans": own["in_channels"]}
        try:
            network = timm.create_model(name, **sizes, **arguments)
        except (TypeError, AssertionError, RuntimeError) as error:
            if not arguments:
                raise
            raise QuintetError(f"timm:{name} refuses {dict(arguments)}: {first_line(error)}") from None
        classifier = network.pretrained_cfg.get("classifier") or ()
        heads = tuple(f"{prefix}." for prefix in ([classifier] if isinstance(classifier, str) else classifier))
        network.head_keys = tuple(key for key, _ in network.named_parameters() if key.startswith(heads))
        network.layer_groups = partial(_layers, network)
        return network

    def load(
        self, network: nn.Module, name: str, which: bool | str, own: Mapping[str, Any], arguments: Mapping[str, Any]
    ) -> LoadReport:
        import timm

        base = name.split(".")[0]
        tags = [known.split(".", 1)[1] for known in timm.list_pretrained(f"{base}.*")]
        if which is not True and which not in tags:
            return load_pretrained(network, which, {}, name=f"timm:{name}")
        full = name if which is True else f"{base}.{which}"
        sizes = {"num_classes": own["num_classes"], "in_chans": own["in_channels"]}
        try:
            # timm itself adapts the first layer to other channels, positions to other sizes, a head to its size.
            source = timm.create_model(full, pretrained=True, **sizes, **arguments)
        except Exception as error:  # hub, network and checksum errors are of a dozen types
            raise _unreachable(full, error) from None
        state = source.state_dict()
        network.load_state_dict(state)
        replaced = []
        if own["num_classes"] != source.pretrained_cfg["num_classes"]:
            replaced = list(said(network, "head_keys"))
        licence = source.pretrained_cfg.get("license") or ""
        return LoadReport(f"timm:{full}", "timm", licence, loaded=len(state) - len(replaced), head_replaced=replaced)

    def load_maps(self, maps: TimmMaps, name: str, which: bool | str) -> LoadReport:
        """Loads published weights, a tag or a file into the maps of a model."""
        is_file = which is not True and Path(str(which)).is_file()
        try:
            maps.load(which, is_file)
        except Exception as error:  # hub, network, checksum and shape errors are of a dozen types
            raise _unreachable(name, error) from None
        licence = "" if is_file else maps.network.pretrained_cfg.get("license") or ""
        origin = str(which) if is_file else f"timm:{name}"
        return LoadReport(origin, "timm", licence, loaded=len(maps.network.state_dict()))


def build_segmentation_network(
    backbone: str | Backbone,
    decoder: Decoder | None,
    num_classes: int,
    in_channels: int,
    arguments: Mapping[str, Any],
) -> SegmentationNetwork:
    """Backbone and decoder with random weights; a backbone of one stride gets a feature pyramid.

    `decoder` None means the one a whole network such as segformer_b0 brings, and SegFormer's for any other backbone.

    Raises QuintetError for an unknown backbone, one without feature maps and arguments it does not take.
    """
    if is_segmentation_network(backbone):
        network = build_network(backbone, MAPS, {"num_classes": num_classes, "in_channels": in_channels}, arguments)
        if decoder is not None:
            network = SegmentationNetwork(
                network.backbone, decoder(feature_info=network.backbone.feature_info, num_classes=num_classes)
            )
        return network
    if found := library_of(backbone, "vision"):
        if "mixer" in arguments:
            raise QuintetError(f"{backbone} takes no mixer; give a registered backbone, such as mit_b0")
        maps = FeaturePyramid(TimmMaps(found[1], in_channels, arguments))
    else:
        maps = build_network(backbone, MAPS, {"num_classes": 0, "in_channels": in_channels}, arguments)
        if not (said(maps, "feature_info") and hasattr(maps, "feature_maps")):
            raise QuintetError(
                f"{name_of(backbone)} has no feature_maps and feature_info, which a segmenter needs; give a registered "
                "backbone such as mit_b0, or timm:<name>"
            )
        maps = with_pyramid(maps)
    build = SegFormerHead if decoder is None else decoder
    return SegmentationNetwork(maps, build(feature_info=maps.feature_info, num_classes=num_classes))


def is_segmentation_network(backbone: str | Backbone) -> bool:
    """Whether a name or function builds a whole network that segments, with a decoder of its own."""
    if library_of(backbone, "vision"):
        return False
    build = factory_target(builder_of(backbone, MAPS))
    if inspect.isclass(build):
        return issubclass(build, SegmentationNetwork)
    return inspect.signature(build).return_annotation is SegmentationNetwork


def load_segmentation_backbone(
    network: SegmentationNetwork, backbone: str | Backbone, which: bool | str, accept_license: bool = False
) -> LoadReport:
    """Loads published weights into the backbone of a network built here, or into all of one that has such weights.

    Raises QuintetError where they cannot be had or do not fit.
    """
    if is_segmentation_network(backbone):
        return load_network(network, backbone, MAPS, which, {}, {}, accept_license)
    maps = network.backbone.backbone if isinstance(network.backbone, FeaturePyramid) else network.backbone
    if found := library_of(backbone, "vision"):
        library, name = found
        return library.load_maps(maps, name, which)
    return load_network(maps, backbone, MAPS, which, {}, {}, accept_license)


def expected_statistics(network: nn.Module) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation the published weights of a timm model were trained with, None for other models."""
    known = getattr(network, "pretrained_cfg", None)
    return (list(known["mean"]), list(known["std"])) if known else None


def _layers(network: nn.Module) -> list[list[str]]:
    """`layer_groups` of a timm model, as its `group_matcher` has them; empty where it has none."""
    if not hasattr(network, "group_matcher"):
        return []
    from timm.models import group_parameters

    head = set(said(network, "head_keys"))
    groups = group_parameters(network, network.group_matcher(coarse=False))
    layers = [[name for name in groups[layer] if plain_name(name) not in head] for layer in sorted(groups)]
    return [names for names in layers if names]


def _unreachable(name: str, error: Exception) -> QuintetError:
    return QuintetError(
        f"cannot load the weights of timm:{name} ({first_line(error)}); fetch the file elsewhere and pass its path as "
        "model.pretrained=FILE"
    )
