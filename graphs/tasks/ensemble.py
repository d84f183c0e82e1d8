"""Several networks that differ in their first weights and see the same batches: how far they disagree is a warning.

Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles, arXiv 1612.01474.
"""

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...core.weights.layout import Layout
from ...core.weights.network import said


class Ensemble(nn.Module):
    """The outputs of each member on one batch, (members, graphs, outputs).

    Args:
        members: networks of one kind, each with weights of its own.
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        # What tasks ask of any network, see quintet.core.weights.network.Network.
        self.head_keys = self._in_each("head_keys")
        self.no_weight_decay = self._in_each("no_weight_decay")

    def forward(self, batch: Any) -> Float[Tensor, "members graphs outputs"]:
        return torch.stack([member(batch) for member in self.members])

    def layer_groups(self) -> list[list[str]]:
        """The first layers of all members, then the second ones."""
        each = [self._prefixed(at, said(member, "layer_groups")()) for at, member in enumerate(self.members)]
        return [[name for own in groups for name in own] for groups in zip_longest(*each, fillvalue=[])]

    def _in_each(self, name: str) -> list[str]:
        return [f"members.{at}.{key}" for at, member in enumerate(self.members) for key in said(member, name)]

    @staticmethod
    def _prefixed(at: int, groups: Sequence[Sequence[str]]) -> list[list[str]]:
        return [[f"members.{at}.{prefix}" for prefix in prefixes] for prefixes in groups]


def member_layout(number: int) -> Layout:
    """The weights of one member in a file of an ensemble, for a network that stands alone."""
    own, others = rf"^members\.{number}\.", r"^members\.\d+\..*"
    return Layout(f"member {number} of an ensemble", own, ((own, ""), (others, "")))
