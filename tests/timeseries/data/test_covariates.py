"""What a description says of covariates survives a checkpoint, and counts features."""

from dataclasses import asdict

import torch

from quintet.timeseries.data import Covariates, SeriesDescription, Windows
from quintet.timeseries.data.features import Covariate

KNOWN = SeriesDescription(
    ["load"], ["MW"], [0.0], [1.0], 4, 3, "h", 24, [], "when", "", {"": "2024-01-01"},
    past=[Covariate("wind", 2.0, 3.0)],
    static=[Covariate("site", categories=["x", "y"])],
)  # fmt: skip


def test_a_description_is_plain_values_and_back():
    assert SeriesDescription(**asdict(KNOWN)) == KNOWN
    assert KNOWN.covariate_features() == {"past": 1, "static": 2}


def test_windows_move_with_their_covariates():
    part = torch.zeros(1, 4, 1)
    windows = Windows(part, part, part, part[0], torch.zeros(1), torch.zeros(1))
    assert windows.to("meta").covariates is None
    windows = windows._replace(covariates=Covariates(part, part, part[0]))
    assert windows.to("meta").covariates.future.device.type == "meta"
