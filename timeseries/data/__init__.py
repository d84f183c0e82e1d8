"""Data modules of series: `Sunspots` (comes with statsmodels) and, for one's own files, `SeriesData`."""

from .series import SeriesData
from .sunspots import Sunspots
from .windows import SeriesDescription, WindowDataset, Windows

__all__ = ["SeriesData", "SeriesDescription", "Sunspots", "WindowDataset", "Windows"]
