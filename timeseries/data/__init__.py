"""Data modules of series: `Sunspots` (comes with statsmodels) and, for one's own files, `SeriesData`."""

from .series import SeriesData
from .sunspots import Sunspots
from .windows import Covariate, Covariates, SeriesDescription, WindowDataset, Windows

__all__ = [
    "Covariate",
    "Covariates",
    "SeriesData",
    "SeriesDescription",
    "Sunspots",
    "WindowDataset",
    "Windows",
]
