"""What a network is given beside the series that it forecasts."""

from typing import NamedTuple

from torch import Tensor


class Covariates(NamedTuple):
    """What is known beside the series themselves, scaled by training rows; NaN where nothing was observed.

    Fields: past (B, L, P); future (B, L + H, K); static (B, S). A role without columns has no features.
    """

    past: Tensor
    future: Tensor
    static: Tensor


ROLES = Covariates._fields
