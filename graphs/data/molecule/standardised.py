"""Numbers that describe a whole molecule: which are worth telling a network, how far they may reach, their scale."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

OUTER = 0.005  # share of the training molecules at either end, beyond which a descriptor is clipped
FEWEST = 0.5  # share of the training molecules that must have a descriptor


@dataclass
class Descriptors:
    """Descriptors of all molecules of a table, NaN where one has none: values (molecules, descriptors), names."""

    values: Float[Tensor, "molecules descriptors"]
    names: list[str]

    @classmethod
    def joined(cls, parts: Sequence["Descriptors"]) -> "Descriptors":
        names = [name for part in parts for name in part.names]
        return cls(torch.cat([part.values for part in parts], dim=1), names)


def measured(descriptors: Descriptors, train: Sequence[int]) -> dict[str, list[float]]:
    """Mean, standard deviation, least and largest value of each descriptor that says something of training molecules.

    Least and largest are the quantiles 0.5 % and 99.5 %; mean and deviation are those of values clipped to them.
    Descriptors that never change, or that most training molecules lack, are left out.
    """
    found = {}
    for name, column in zip(descriptors.names, descriptors.values[train].numpy().T, strict=True):
        seen = column[np.isfinite(column)]
        if len(seen) < max(2, FEWEST * len(column)):
            continue
        low, high = np.quantile(seen, [OUTER, 1 - OUTER])
        if high - low <= 1e-9 * max(1.0, abs(low)):
            low, high = seen.min(), seen.max()  # a rare one: nearly always the same
        clipped = np.clip(seen, low, high)
        if (std := float(clipped.std())) > 1e-9 * max(1.0, float(abs(clipped).max())):
            found[name] = [float(clipped.mean()), std, float(low), float(high)]
    return found


def standardised(descriptors: Descriptors, numbers: dict[str, list[float]]) -> Float[Tensor, "molecules kept"]:
    """(clip(x, least, largest) - mean) / std of each descriptor; 0, the mean, where a molecule has none."""
    place = {name: at for at, name in enumerate(descriptors.names)}
    mean, std, low, high = torch.tensor(list(numbers.values()), dtype=torch.float64).reshape(-1, 4).T
    values = descriptors.values[:, [place[name] for name in numbers]]
    scaled = (values.clamp(low, high) - mean) / std
    return torch.where(values.isfinite(), scaled, 0).float()
