"""What the tasks of all domains share that train a network given by name, class or function."""

from collections.abc import Callable
from typing import Any, ClassVar

from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from ..adaptation.lora import named_weights
from ..errors import QuintetError
from ..mixer import Mixer
from ..weights import networks
from ..weights.network import said
from ..weights.networks import Kind
from ..weights.pretrained import LoadReport
from ..weights.registry import mixer_factory
from .task import Task


class NetworkTask(Task):
    """A task whose `network` is built for the data from a backbone, from random or from published weights.

    A domain's task sets `kind`, gives its backbone a default and builds in `make`:
    `self.network = self.build_network({"num_classes": 10, "in_channels": 3})`.

    Args:
        backbone: a registered name, `library:name`, or a class or function called with what follows from the data.
        backbone_arguments: further arguments for a backbone given by name, e.g. {"depth": 3}.
        mixer: the mixer to put into the backbone instead of its own, or its registered name.
        pretrained: true for the default published weights, a tag, a file or a hub id.
        accept_license: the terms of the pretrained weights are accepted, where they restrict their use.
        **task: see quintet.core.learning.task.Task. In `freeze`, "backbone" stands for everything but the head.

    Raises:
        QuintetError: an unknown backbone, one that takes no mixer, weights that do not fit.
    """

    kind: ClassVar[Kind]

    def __init__(
        self,
        backbone: str | Callable[..., nn.Module],
        backbone_arguments: dict[str, Any] | None = None,
        mixer: Callable[[int], Mixer] | str | None = None,
        pretrained: bool | str = False,
        accept_license: bool = False,
        **task: Any,
    ) -> None:
        super().__init__(**task)
        networks.refuse_built(backbone)
        self.backbone = backbone
        self.backbone_arguments = dict(backbone_arguments or {})
        if isinstance(mixer, str):
            mixer_factory(mixer)  # complains of a name that no mixer has before any data is read
        self.mixer = mixer
        self.pretrained = pretrained
        self.accept_license = accept_license
        self.sizes: dict[str, Any] = {}  # arguments of the backbone that followed from the data

    # Building

    def adopt(self, description: Any, restoring: bool = False) -> None:
        if self.pretrained and not restoring and self.description is None:
            stated = networks.arguments_in(self.backbone, self.kind, self.pretrained, self.accept_license)
            if stated:
                # Become arguments, so that a checkpoint says them and is read without this file.
                self.backbone_arguments = stated | self.backbone_arguments
                self.restate(backbone_arguments=self.backbone_arguments)
        super().adopt(description, restoring)

    def build_network(self, sizes: dict[str, Any]) -> nn.Module:
        """The backbone for what the data say, with random weights."""
        self.sizes = sizes
        return networks.build_network(self.backbone, self.kind, sizes, self.network_arguments)

    def initialise(self) -> None:
        if self.pretrained:
            self.origin = self.load_network()
            rank_zero_only(print)(self.origin)

    def load_network(self) -> LoadReport:
        """Loads what `pretrained` names into the network."""
        what = self.pretrained, self.sizes, self.network_arguments, self.accept_license
        return networks.load_network(self.network, self.backbone, self.kind, *what)

    @property
    def network_arguments(self) -> dict[str, Any]:
        """The user's arguments of the backbone, the mixer among them."""
        return self.backbone_arguments | ({} if self.mixer is None else {"mixer": self.mixer})

    @property
    def backbone_name(self) -> str:
        """What messages call the backbone."""
        return networks.name_of(self.backbone)

    def accepts(self, argument: str) -> bool:
        """Whether the backbone's constructor has an argument of this name."""
        return networks.accepts(self.backbone, self.kind, argument)

    # Layers, for rates and freezing

    def layer_groups(self) -> list[list[str]]:
        groups = said(self.network, "layer_groups")()
        if not groups and self.layer_decay is not None:
            raise QuintetError(
                f"model.layer_decay needs the order of layers, and {self.backbone_name} has no layer_groups()"
            )
        return [[f"network.{prefix}" for prefix in prefixes] for prefixes in groups]

    def head_patterns(self) -> list[str]:
        own = named_weights(self.network)
        return [f"network.{key}" for key in said(self.network, "head_keys") if key in own]

    def parameter_patterns(self, pattern: str) -> list[str]:
        """A pattern of `freeze` as it is, but "backbone" as the names of all weights but those of the head."""
        if pattern not in ("backbone", "backbone.*"):
            return [pattern]
        head = self.head_patterns()
        if not head:
            raise QuintetError(
                f"model.freeze: {self.backbone_name} does not say which parameters are its head (head_keys)"
            )
        return [name for name in (f"network.{key}" for key in named_weights(self.network)) if name not in head]
