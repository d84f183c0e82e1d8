"""From what a user writes for `backbone` to a network: a registered name, `timm:<name>`, a class or a function.

Whatever it came from, the network then answers the same questions: its published weights, the order of its layers and
which of its parameters are the head.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import nn

from ..core.adaptation.lora import plain_name
from ..core.errors import QuintetError, first_line, nearest
from ..core.weights.pretrained import LoadReport, load_pretrained
from ..core.weights.registry import ModelEntry, build_with, factory_target, model_entry
from .models.decoders import Decoder, SegFormerHead
from .models.segmentation import FeaturePyramid, SegmentationNetwork, with_pyramid
from .models.timm_maps import TimmMaps, refuse_loading

TIMM = "timm:"
CALLED_WITH = "a backbone is called with num_classes and in_channels"
REMEDIES = {
    "mixer": "give a backbone that does, such as nat_mini",
    "num_classes": CALLED_WITH,
    "in_channels": CALLED_WITH,
}


@runtime_checkable
class Backbone(Protocol):
    """A class or function that builds an image model once the data says how many classes and channels there are."""

    def __call__(self, *, num_classes: int, in_channels: int) -> nn.Module: ...


def build_backbone(
    backbone: str | Backbone, num_classes: int, in_channels: int, arguments: Mapping[str, Any]
) -> nn.Module:
    """The network with random weights; `arguments` go to its constructor.

    Raises QuintetError for an unknown name and for an argument the backbone does not take.
    """
    if is_timm(backbone):
        return _build_timm(backbone, num_classes, in_channels, arguments)
    build = _entry(backbone).build if isinstance(backbone, str) else backbone
    own = {"num_classes": num_classes, "in_channels": in_channels}
    return build_with(build, name_of(backbone), own | dict(arguments), REMEDIES)


def load_backbone(
    network: nn.Module,
    backbone: str | Backbone,
    which: bool | str,
    num_classes: int,
    in_channels: int,
    arguments: Mapping[str, Any],
) -> LoadReport:
    """Loads the default published weights (`which` True), a tag, a file or a hub id into a network built here.

    Raises QuintetError where they cannot be had or do not fit.
    """
    if not is_timm(backbone):
        sources = _entry(backbone).pretrained if isinstance(backbone, str) else {}
        return load_pretrained(network, which, sources, name=name_of(backbone))
    import timm

    base = backbone.removeprefix(TIMM).split(".")[0]
    tags = [known.split(".", 1)[1] for known in timm.list_pretrained(f"{base}.*")]
    if which is not True and which not in tags:
        return load_pretrained(network, which, {}, name=backbone)
    full = backbone.removeprefix(TIMM) if which is True else f"{base}.{which}"
    try:
        # timm itself adapts the first layer to other channels, positions to other sizes, and a head of another size.
        source = timm.create_model(full, pretrained=True, num_classes=num_classes, in_chans=in_channels, **arguments)
    except Exception as error:  # hub, network and checksum errors are of a dozen types
        raise QuintetError(
            f"cannot load the weights of timm:{full} ({first_line(error)}); fetch the file elsewhere and pass its "
            "path as model.pretrained=FILE"
        ) from None
    state = source.state_dict()
    network.load_state_dict(state)
    replaced = list(head_keys_of(network)) if num_classes != source.pretrained_cfg["num_classes"] else []
    licence = source.pretrained_cfg.get("license") or ""
    return LoadReport(f"timm:{full}", "timm", licence, loaded=len(state) - len(replaced), head_replaced=replaced)


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
        network = build_backbone(backbone, num_classes, in_channels, arguments)
        if decoder is not None:
            network = SegmentationNetwork(
                network.backbone, decoder(feature_info=network.backbone.feature_info, num_classes=num_classes)
            )
        return network
    if is_timm(backbone):
        if "mixer" in arguments:
            raise QuintetError(f"{backbone} takes no mixer; give a registered backbone, such as mit_b0")
        maps = FeaturePyramid(TimmMaps(backbone.removeprefix(TIMM), in_channels, arguments))
    else:
        maps = build_backbone(backbone, 0, in_channels, arguments)
        if not hasattr(maps, "feature_maps") or not hasattr(maps, "feature_info"):
            raise QuintetError(
                f"{name_of(backbone)} has no feature_maps and feature_info, which a segmenter needs; give a registered "
                "backbone such as mit_b0, or timm:<name>"
            )
        maps = with_pyramid(maps)
    build = SegFormerHead if decoder is None else decoder
    return SegmentationNetwork(maps, build(feature_info=maps.feature_info, num_classes=num_classes))


def is_segmentation_network(backbone: str | Backbone) -> bool:
    """Whether a name or function builds a whole network that segments, with a decoder of its own."""
    if is_timm(backbone):
        return False
    build = factory_target(_entry(backbone).build if isinstance(backbone, str) else backbone)
    if inspect.isclass(build):
        return issubclass(build, SegmentationNetwork)
    return inspect.signature(build).return_annotation is SegmentationNetwork


def load_segmentation_backbone(
    network: SegmentationNetwork, backbone: str | Backbone, which: bool | str, arguments: Mapping[str, Any]
) -> LoadReport:
    """Loads published weights into the backbone of a network built here, or into all of one that has such weights.

    Raises QuintetError where they cannot be had or do not fit.
    """
    if is_segmentation_network(backbone):
        return load_backbone(network, backbone, which, 0, 0, arguments)
    maps = network.backbone.backbone if isinstance(network.backbone, FeaturePyramid) else network.backbone
    if not isinstance(maps, TimmMaps):
        return load_backbone(maps, backbone, which, 0, 0, arguments)
    is_file = which is not True and Path(str(which)).is_file()
    try:
        maps.load(which, is_file)
    except Exception as error:  # hub, network, checksum and shape errors are of a dozen types
        raise QuintetError(
            f"cannot load the weights of {backbone} ({first_line(error)}); fetch the file elsewhere and pass its "
            "path as model.pretrained=FILE"
        ) from None
    licence = "" if is_file else maps.network.pretrained_cfg.get("license") or ""
    return LoadReport(str(which) if is_file else backbone, "timm", licence, loaded=len(maps.network.state_dict()))


def layer_groups_of(network: nn.Module, backbone: str | Backbone) -> list[list[str]]:
    """Prefixes of parameter names from the first layer to the last, without the head; empty where nobody says."""
    if not is_timm(backbone):
        return network.layer_groups() if hasattr(network, "layer_groups") else []
    if not hasattr(network, "group_matcher"):
        return []
    from timm.models import group_parameters

    head = set(head_keys_of(network))
    groups = group_parameters(network, network.group_matcher(coarse=False))
    layers = [[name for name in groups[layer] if plain_name(name) not in head] for layer in sorted(groups)]
    return [names for names in layers if names]


def head_keys_of(network: nn.Module) -> tuple[str, ...]:
    """Names of the head's parameters; empty where nobody says."""
    return tuple(getattr(network, "head_keys", ()))


def expected_statistics(network: nn.Module) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation the published weights of a timm model were trained with, None for other models."""
    known = getattr(network, "pretrained_cfg", None)
    return (list(known["mean"]), list(known["std"])) if known else None


def name_of(backbone: str | Backbone) -> str:
    """What to call a backbone in a message."""
    if isinstance(backbone, str):
        return backbone
    target = factory_target(backbone)
    return getattr(target, "__name__", type(target).__name__)


def is_timm(backbone: str | Backbone) -> bool:
    return isinstance(backbone, str) and backbone.startswith(TIMM)


def _build_timm(backbone: str, num_classes: int, in_channels: int, arguments: Mapping[str, Any]) -> nn.Module:
    import timm

    name = backbone.removeprefix(TIMM)
    refuse_loading(name, arguments)
    if "mixer" in arguments:
        raise QuintetError(f"{backbone} takes no mixer; give a registered backbone, such as nat_mini")
    # Only models of the installed library: timm's other kinds of names fetch a configuration from elsewhere.
    if not timm.is_model(name):
        raise QuintetError(f"timm has no model '{name}'; {nearest(name.split('.')[0], timm.list_models())}")
    try:
        network = timm.create_model(name, num_classes=num_classes, in_chans=in_channels, **arguments)
    except (TypeError, AssertionError, RuntimeError) as error:
        if not arguments:
            raise
        raise QuintetError(f"{backbone} refuses {dict(arguments)}: {first_line(error)}") from None
    classifier = network.pretrained_cfg.get("classifier") or ()
    prefixes = (classifier,) if isinstance(classifier, str) else classifier
    heads = tuple(f"{prefix}." for prefix in prefixes)
    network.head_keys = tuple(key for key, _ in network.named_parameters() if key.startswith(heads))
    return network


def _entry(name: str) -> ModelEntry:
    """The entry of a registered model. Raises QuintetError for another name, with timm's where timm has it."""
    try:
        return model_entry(name)
    except QuintetError:
        import timm

        if not timm.is_model(name):
            raise
        raise QuintetError(f"no model of quintet is called '{name}'; timm's is {TIMM}{name}") from None
