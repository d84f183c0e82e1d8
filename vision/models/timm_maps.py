"""Feature maps of any model of timm: always channels first, at any image size and with any number of channels."""

import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ...core.adaptation.lora import named_weights, plain_name
from ...core.errors import QuintetError, nearest
from ...core.optim.parameter_groups import not_decayed
from ...core.weights.network import Network
from .decoders import enlarge

# What families of timm call "take any image size"; the first one a model accepts is used.
ANY_SIZE: tuple[dict[str, bool], ...] = (
    {"dynamic_img_size": True, "dynamic_img_pad": True},
    {"strict_img_size": False},
    {},
)
PROBES = ((96, 160), (160, 64))
LOADING = re.compile(r"pretrained(_cfg\w*|_strict|_filter_fn|_custom_load)?|checkpoint_path|cache_dir")
FOR_MAPS = ("features_only", "out_indices")  # options that a classifier does not have


class TimmMaps(Network):
    """feature_maps(images) of timm's model `name`.

    Images are padded with zeros at the right and at the bottom to a multiple of the coarsest stride, and the maps cut
    back. A model that timm builds for one size alone (ConViT, TNT, GC ViT, MaxViT, ...) sees the image resampled to
    that size, and its maps are resampled to the image's grid: `fixed_size` says so.

    Args:
        name: of timm's model, with or without a tag.
        in_channels: channels of the images.
        arguments: further ones for timm.create_model.

    Raises QuintetError for a name timm does not know, a model without feature maps and arguments it refuses.
    """

    def __init__(self, name: str, in_channels: int = 3, arguments: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        import timm

        refuse_loading(name, arguments or {})
        if not timm.is_model(name):
            raise QuintetError(f"timm has no model '{name}'; {nearest(name.split('.')[0], timm.list_models())}")
        self.name = name
        self.options = self._accepted({"features_only": True, "in_chans": in_channels, **(arguments or {})})
        self.network = timm.create_model(name, **self.options)
        self.feature_info = list(zip(self.network.feature_info.channels(), self.network.feature_info.reduction()))
        self.channels_last = str(getattr(self.network, "output_fmt", "NCHW")).endswith("NHWC")
        self.multiple = max(stride for _, stride in self.feature_info)
        self.fixed_size = None if self._takes_any_size(in_channels) else self._own_size()

    def feature_maps(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> list[Float[Tensor, "batch _dim _rows _columns"]]:
        """One map a stage, each of the size of the image divided by its stride and rounded up."""
        height, width = images.shape[-2:]
        if self.fixed_size is None:
            seen = F.pad(images, (0, -width % self.multiple, 0, -height % self.multiple))
        else:
            seen = F.interpolate(images, self.fixed_size, mode="bilinear", align_corners=False, antialias=True)
        maps = [x.movedim(-1, 1) if self.channels_last else x for x in self.network(seen)]
        sizes = [(-(-height // stride), -(-width // stride)) for _, stride in self.feature_info]
        if self.fixed_size is None:
            return [x[..., :rows, :columns] for x, (rows, columns) in zip(maps, sizes)]
        return [enlarge(x, images.new_empty(1, 1, *size)) for x, size in zip(maps, sizes)]

    def load(self, tag_or_file: bool | str, is_file: bool) -> None:
        """Loads published weights, by tag or from a file in timm's layout, adapted to the channels of the images."""
        import timm

        base = self.name.split(".")[0]
        overlay = {"pretrained_cfg_overlay": {"file": tag_or_file}} if is_file else {}
        name = self.name if tag_or_file is True else base if is_file else f"{base}.{tag_or_file}"
        source = timm.create_model(name, pretrained=True, **self.options, **overlay)
        self.network.load_state_dict(source.state_dict())

    def layer_groups(self) -> list[list[str]]:
        """Names of parameters from the first layer to the last, as timm orders those of its classifier; empty where it
        does not.

        Raises QuintetError where that order does not say where a parameter of the maps belongs.
        """
        from timm.models import group_parameters

        whole = self._classifier()
        if not hasattr(whole, "group_matcher"):
            return []
        groups = group_parameters(whole, whole.group_matcher(coarse=False))
        layer_of = {_flat(name): layer for layer in groups for name in groups[layer]}
        # Where maps are taken, timm writes stages.0 as stages_0, or puts the whole network below `model`.
        own = {name: _flat(plain_name(name).removeprefix("model.")) for name, _ in self.network.named_parameters()}
        if unknown := [name for name, flat in own.items() if flat not in layer_of]:
            raise QuintetError(f"model.layer_decay: timm does not say which layer of {self.name} {unknown[0]} is in")
        return [
            [f"network.{name}" for name, flat in own.items() if layer_of[flat] == layer]
            for layer in sorted({layer_of[flat] for flat in own.values()})
        ]

    def no_weight_decay(self) -> set[str]:
        """Names of parameters with several axes that the classifier the maps are of does not decay."""
        flat = {_flat(name) for name in not_decayed(self._classifier())}
        names = named_weights(self.network)
        return {f"network.{name}" for name in names if _flat(name.removeprefix("model.")) in flat}

    def _classifier(self) -> nn.Module:
        """timm's classifier of this name, for what it says of its parameters; they have no values where timm can."""
        import timm

        options = {name: value for name, value in self.options.items() if name not in FOR_MAPS}
        try:
            with torch.device("meta"):
                return timm.create_model(self.name, **options)
        except (RuntimeError, NotImplementedError):  # built from tables of numbers, which the meta device cannot hold
            return timm.create_model(self.name, **options)

    def _accepted(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """The arguments with what the model calls "any image size"."""
        import timm

        for extra in ANY_SIZE:
            options = wanted | extra
            try:
                with torch.device("meta"):
                    timm.create_model(self.name, **options)
            except (TypeError, AssertionError, RuntimeError, NotImplementedError) as error:
                # timm builds some models from tables of numbers, which the meta device cannot hold.
                if isinstance(error, TypeError | AssertionError) or "meta" not in str(error):
                    reason = str(error).strip().split("\n")[0][:160]
                    continue
            return options
        raise QuintetError(f"timm:{self.name} gives no feature maps with {dict(wanted)}: {reason}")

    def _takes_any_size(self, in_channels: int) -> bool:
        """Whether two unusual sizes come out at the strides the model states."""
        training = self.network.training
        self.network.eval()
        try:
            for height, width in PROBES:
                size = [-(-side // self.multiple) * self.multiple for side in (height, width)]
                with torch.no_grad():
                    maps = self.network(torch.zeros(1, in_channels, *size))
                for x, (channels, stride) in zip(maps, self.feature_info):
                    expected = [side // stride for side in size]
                    found = list(x.shape[1:3] if self.channels_last else x.shape[2:])
                    if found != expected or channels != x.shape[-1 if self.channels_last else 1]:
                        return False
        except (AssertionError, RuntimeError, ValueError, IndexError):
            return False
        finally:
            self.network.train(training)
        return True

    def _own_size(self) -> tuple[int, int]:
        configuration = getattr(self.network, "pretrained_cfg", None) or self.network.default_cfg
        return tuple(configuration["input_size"][1:])


def refuse_loading(name: str, arguments: Mapping[str, Any]) -> None:
    """Raises QuintetError for arguments by which timm opens files or addresses while it builds a network.

    They could come from a checkpoint, of which nothing may be opened or fetched.
    """
    for argument in arguments:
        if LOADING.fullmatch(argument):
            raise QuintetError(
                f"timm:{name} is built without {argument}; weights come by model.pretrained=true, a tag or a file"
            )


def _flat(name: str) -> str:
    return name.replace(".", "_")
