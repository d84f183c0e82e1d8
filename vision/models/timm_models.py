"""Our backbones in timm's registry: `timm.create_model("quintet_nat_tiny", features_only=True, in_chans=4)`.

timm has no plug-ins, so importing `quintet.vision` registers them as soon as timm is there: at once where it has been
imported already, else right after it is. timm itself is not imported for it, which would take a second.
"""

import re
import sys
from collections.abc import Callable, Iterable
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.util import find_spec
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Proxy

from ...core.blocks.encoder import keep_inputs_only
from ...core.errors import QuintetError
from ...core.optim.parameter_groups import not_decayed
from ...core.position.learned import resample_position
from ...core.weights.pretrained import Source, StateDict
from ...core.weights.registry import ModelEntry
from .segmentation import FeaturePyramid
from .vit import VisionTransformer

PREFIX = "quintet_"
# By how our models name their first convolution.
STEMS = ("patch_embedding.projection", "stem.convolutions.0", "embedding.projection")
IN22K_CLASSES = 21841

default_cfgs: dict[str, Any] = {}  # where timm looks for published weights


class TimmModel(nn.Module):
    """One of our image models with the interface of timm's.

    Images of any size are taken. Built for its maps (`features_only`), a model gives them channels first at strides 4,
    8, 16 and 32; a plain Vision Transformer gets a simple feature pyramid for them, which is not part of published
    weights. Otherwise the intermediates of a Vision Transformer are its blocks, those of the others their stages.

    Args:
        build: the model's builder.
        num_classes: outputs of the head; 0 leaves it out.
        in_chans: channels of the images.
        global_pool: "avg", for Vision Transformers "token", or "" for none; None means what the model was published
            with.
        drop_rate: dropout before the head.
        drop_path_rate: of the last block; None means what the model was published with.
        img_size: for which a Vision Transformer learns positions; other models have none.
        dynamic_img_size: true, as images of any size are taken.
        dynamic_img_pad: true, as sizes that patches do not divide are padded.
        pyramid: build what maps need.
        **arguments: further ones for the builder, such as mixer.

    Raises QuintetError for a pooling that the model does not have, and for images of one size alone.
    """

    def __init__(
        self,
        build: Callable[..., nn.Module],
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float | None = None,
        img_size: int | tuple[int, int] | None = None,
        dynamic_img_size: bool = True,
        dynamic_img_pad: bool = True,
        pyramid: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__()
        if not (dynamic_img_size and dynamic_img_pad):
            raise QuintetError("quintet's models take images of any size; leave dynamic_img_size and dynamic_img_pad")
        arguments |= {} if drop_path_rate is None else {"drop_path": drop_path_rate}
        self.plain = build.__annotations__["return"] is VisionTransformer
        if self.plain:
            arguments |= {} if img_size is None else {"image_size": img_size}
            arguments |= {"pooling": {"avg": "average"}.get(global_pool, global_pool)} if global_pool else {}
        self.network = build(num_classes=num_classes, in_channels=in_chans, **arguments)
        self.num_features = self.head_hidden_size = self.network.feature_info[-1][0]
        self.global_pool = "token" if getattr(self.network, "pooling", "") == "token" else "avg"
        self._choose_pool(global_pool, num_classes)
        self.num_classes, self.drop_rate = num_classes, drop_rate
        self.pyramid = FeaturePyramid(_Maps(self.network)) if self.plain and pyramid else None
        if self.plain and self.pyramid is None:
            blocks = range(len(self.network.encoder.blocks))
            sources = [(*self.network.feature_info[0], f"network.encoder.blocks.{block}") for block in blocks]
        else:
            maps = (self.pyramid or self.network).feature_info
            sources = [(*shape, f"feature_maps.{index}") for index, shape in enumerate(maps)]
        self.feature_info = [
            {"num_chs": channels, "reduction": stride, "module": module} for channels, stride, module in sources
        ]

    def forward(self, x: Tensor | Proxy) -> Tensor:
        if isinstance(x, Proxy):
            raise QuintetError(
                "torch.fx.symbolic_trace cannot follow quintet's models, whose operators depend on shapes and device; "
                "export with torch.export or quintet export"
            )
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Tokens (batch, tokens, dim) of a Vision Transformer, else the last map, channels first."""
        tokens = self.network.forward_features(x)
        return tokens.flatten(1, -2) if self.plain else tokens.movedim(-1, 1)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pools what `forward_features` gave and classifies; `pre_logits` stops before."""
        pooled = F.dropout(self._pooled(x), self.drop_rate, self.training)
        return pooled if pre_logits else self.network.head(pooled)

    def _pooled(self, x: Tensor) -> Tensor:
        if not self.global_pool:
            return x
        if not self.plain:
            return x.mean((2, 3))
        return x[:, 0] if self.global_pool == "token" else x[:, self.network.prefix_length :].mean(1)

    def _choose_pool(self, global_pool: str | None, num_classes: int) -> None:
        """Takes another pooling. Raises QuintetError for one that the model does not have."""
        choices = ["avg", ""]
        if getattr(self.network, "class_token", None) is not None:
            choices.append("token")
        chosen = self.global_pool if global_pool is None else global_pool
        if chosen not in choices:
            raise QuintetError(f"global_pool is {' or '.join(map(repr, choices))} for this model; got {global_pool!r}")
        if not chosen and num_classes and not self.plain:
            raise QuintetError("global_pool='' leaves maps, which this head cannot classify; add num_classes=0")
        self.global_pool = chosen

    def set_input_size(self, img_size: int | tuple[int, int] | None = None, patch_size: int | None = None) -> None:
        """Brings learned positions to the grid of another size; models without them take any size as they are.

        Raises QuintetError for patches of another size.
        """
        if patch_size is not None and patch_size != (self.network.feature_info[0][1] if self.plain else None):
            raise QuintetError("the size of patches belongs to the weights; leave patch_size out")
        if self.plain and img_size is not None:
            size = (img_size, img_size) if isinstance(img_size, int) else img_size
            grid = tuple(-(-side // self.network.patch_embedding.patch_size) for side in size)
            position = self.network.position
            position.position = nn.Parameter(resample_position(position.position.detach(), grid).clone())

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Iterable[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The intermediates at `indices` (a number: the last ones), and before them the last features unless alone.

        With `norm` they go through the last norm where it fits them: all blocks of a Vision Transformer, the last stage
        of the others; the maps of a pyramid are made of what has been through it. `stop_early` computes nothing that
        lies behind the last one asked for. `output_fmt` is "NCHW", or "NLC" for tokens (batch, tokens, dim);
        `return_prefix_tokens` makes pairs with the tokens that stand before the patches.
        """
        form = str(output_fmt).split(".")[-1]
        if form not in ("NCHW", "NLC"):
            raise QuintetError(f"output_fmt is 'NCHW' or 'NLC'; got {output_fmt!r}")
        if return_prefix_tokens and (not self.plain or self.pyramid is not None):
            raise QuintetError("only the blocks of a Vision Transformer have prefix tokens; leave them out")
        taken = self._taken(indices)
        layers = self.network.encoder.blocks if self.plain else self.network.encoder.stages
        end = max(taken) if stop_early else len(layers) - 1
        if self.pyramid is not None:
            every = self.pyramid.feature_maps(x)
            last, found = None if intermediates_only else self.forward_features(x), [every[index] for index in taken]
        else:
            last, found = (self._blocks if self.plain else self._stages)(x, taken, end, norm)
        prefixes = []
        if self.plain and self.pyramid is None:
            length, grid = (
                self.network.prefix_length,
                [-(-side // self.feature_info[0]["reduction"]) for side in x.shape[-2:]],
            )
            prefixes = [tokens[:, :length] for tokens in found]
            found = [tokens[:, length:].unflatten(1, grid).movedim(-1, 1) for tokens in found]
        if form == "NLC":
            found = [x.flatten(2).transpose(1, 2) for x in found]
        if return_prefix_tokens:
            found = list(zip(found, prefixes))
        return found if intermediates_only else (last, found)

    def _blocks(self, images: Tensor, taken: list[int], end: int, norm: bool) -> tuple[Tensor, list[Tensor]]:
        """Normalized tokens of the block `end`, and tokens of the blocks `taken`."""
        encoder = self.network.encoder
        *found, last = (x.flatten(1, -2) for x in encoder.intermediates(self.network.embed(images), [*taken, end]))
        return encoder.norm(last), [encoder.norm(x) if norm else x for x in found]

    def _stages(self, images: Tensor, taken: list[int], end: int, norm: bool) -> tuple[Tensor, list[Tensor]]:
        """The map of the stage `end`, normalized where it is the last, and maps of the stages `taken`."""
        encoder, x, found = self.network.encoder, self.network.embed(images), {}
        for level in range(end + 1):
            x = encoder.stages[level](encoder.downsamples[level - 1](x) if level else x)
            found[level] = x
        if end == len(self.feature_info) - 1:
            x = getattr(self.network, "norm", nn.Identity())(x)
            found[end] = x if norm else found[end]
        return x.movedim(-1, 1), [found[level].movedim(-1, 1) for level in taken]

    def prune_intermediate_layers(
        self, indices: int | Iterable[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Removes the head and the layers behind the last of `indices`, on request the last norm too; returns them.

        The maps of a pyramid need every block, and the norm.
        """
        taken, encoder = self._taken(indices), self.network.encoder
        if self.plain and self.pyramid is None:
            encoder.blocks = encoder.blocks[: max(taken) + 1]
        elif not self.plain:
            encoder.stages, encoder.downsamples = encoder.stages[: max(taken) + 1], encoder.downsamples[: max(taken)]
        if prune_norm and self.pyramid is None:
            owner = encoder if self.plain else self.network
            if hasattr(owner, "norm"):
                owner.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0)
        return taken

    def _taken(self, indices: int | Iterable[int] | None) -> list[int]:
        number = len(self.feature_info)
        if indices is None or isinstance(indices, int):
            chosen = list(range(number))[-(number if indices is None else indices) :]
        else:
            chosen = [index % number if -number <= index < number else index for index in indices]
        if not chosen or max(chosen) >= number or (isinstance(indices, int) and indices > number):
            raise QuintetError(f"this model has the maps 0 to {number - 1}; got {indices}")
        return chosen

    def get_classifier(self) -> nn.Module:
        return self.network.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Gives the model a new head, with random weights, for another number of classes; 0 leaves it out.

        Raises QuintetError for a pooling that the model does not have.
        """
        self._choose_pool(global_pool, num_classes)
        self.num_classes = num_classes
        self.network.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        if num_classes:
            nn.init.trunc_normal_(self.network.head.weight, std=0.02, a=-0.04, b=0.04)
            nn.init.zeros_(self.network.head.bias)

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """From a parameter's name to its layer (`coarse`: its stage), counted from the stem."""
        if coarse:
            return _stage_of
        layers = {
            f"network.{prefix}.": depth for depth, group in enumerate(self.network.layer_groups()) for prefix in group
        }
        last = max(layers.values()) + 1

        def layer_of(name: str) -> int:
            return next((depth for prefix, depth in layers.items() if f"{name}.".startswith(prefix)), last)

        return layer_of

    def no_weight_decay(self) -> set[str]:
        """Names of parameters with several axes that are not decayed."""
        return {f"network.{name}" for name in not_decayed(self.network)}

    def __prepare_scriptable__(self) -> nn.Module:
        # What torch.jit.script asks first; it would go on to stumble over shapes in annotations.
        raise QuintetError(
            "TorchScript cannot read quintet's models (shapes in annotations, operators chosen by device); trace with "
            "torch.jit.trace, or export with torch.export or quintet export"
        )

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        keep_inputs_only(self.network, enable)


class _Maps(nn.Module):
    """A network seen through its maps, without counting as a part: its parameters belong elsewhere."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.feature_info = network.feature_info
        self.feature_maps = network.feature_maps


def _stage_of(name: str) -> int:
    found = re.search(r"\.(stages|downsamples|blocks)\.(\d+)\.", name)
    if found is None:
        return 0 if any(stem.split(".")[0] in name for stem in STEMS) or "position" in name or "token" in name else 99
    return int(found[2]) + (2 if found[1] == "downsamples" else 1)


def in_our_names(state: StateDict, model: TimmModel) -> StateDict:
    """A published state dict, whatever known layout it is in, under the names of a `TimmModel`."""
    for wrapper in ("state_dict_ema", "model_ema", "state_dict", "model"):
        state = state.get(wrapper, state)
    if any(key.startswith("network.") for key in state):
        return dict(state)
    for layout in model.network.layouts:
        if layout.matches(state):
            state = layout.apply(state)
            break
    return {f"network.{key}": value for key, value in state.items()}


def configuration(entry: ModelEntry, source: Source, tag: str, stem: str) -> dict[str, Any]:
    """What timm has to know of published weights."""
    known = {"first_conv": f"network.{stem}", "classifier": "network.head", "license": source.licence}
    if source.location.startswith("hub:"):
        known["hf_hub_id"] = source.location.removeprefix("hub:")
    else:
        known["url"] = source.location
    if "mean 0.5" in source.note:
        known |= {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    if re.search(r"in2[12]k$", tag):
        known["num_classes"] = IN22K_CLASSES if "in22k" in tag else 21843
    elif tag in ("dino", "mae"):
        known["num_classes"] = 0
    side = 384 if "_384" in entry.name else 224
    pool_size = None if "/vit" in entry.name else (side // 32, side // 32)
    return known | {
        "input_size": (3, side, side),
        "pool_size": pool_size,
        "crop_pct": 0.9,
        "interpolation": "bicubic",
    }


def register(entries: Iterable[ModelEntry]) -> None:
    """Makes models known to timm as `quintet_<name>`, with their published weights as tags."""
    from timm.models import generate_default_cfgs, register_model

    published = {}
    builders = []
    for entry in entries:
        name = PREFIX + entry.name.split("/")[-1]
        stem = STEMS[0] if "/vit" in entry.name else STEMS[2] if "/mit" in entry.name else STEMS[1]
        for tag, source in entry.pretrained.items():
            published[f"{name}.{tag}"] = configuration(entry, source, tag, stem)
        builders.append(_entry_point(name, entry))
    default_cfgs.update(generate_default_cfgs(published))
    for builder in builders:
        register_model(builder)


def _entry_point(name: str, entry: ModelEntry) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **arguments: Any) -> nn.Module:
        from timm.models import build_model_with_cfg

        maps = arguments.get("features_only", False)
        return build_model_with_cfg(
            partial(TimmModel, entry.build, pyramid=maps),
            name,
            pretrained,
            pretrained_filter_fn=in_our_names,
            feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter"},
            **arguments,
        )

    create.__name__ = create.__qualname__ = name
    create.__doc__ = entry.summary
    return create


class _AfterTimm(MetaPathFinder, Loader):
    """Registers models when timm has been imported; finds nothing else."""

    def __init__(self, entries: list[ModelEntry]) -> None:
        self.entries = entries

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "timm":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None:
            self.loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: Any) -> Any:
        return self.loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        register(self.entries)


def register_once_timm_is_there(entries: list[ModelEntry]) -> None:
    """Registers models now where timm has been imported, else as soon as it is."""
    if "timm" in sys.modules:
        register(entries)
    else:
        sys.meta_path.insert(0, _AfterTimm(entries))
