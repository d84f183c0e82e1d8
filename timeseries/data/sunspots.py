"""Yearly sunspot numbers, 1700 to 2008: 309 real observations that come with statsmodels and need no download."""

from pathlib import Path
from typing import ClassVar

from .files import Source
from .series import SeriesData
from .splits import Split


class Sunspots(SeriesData):
    """Mean yearly sunspot numbers (SIDC Brussels, in statsmodels), whose cycle takes about 11 years.

    Args:
        context: years the model sees.
        horizon: years it forecasts.
        split: where validation and test begin: shares of the years or dates; None means {val: 0.15, test: 0.2}.
        batch_size: windows in a batch.
        num_workers: processes that cut windows.
        seed: of the order.
    """

    files: ClassVar[str | None] = None

    def __init__(
        self,
        context: int = 44,
        horizon: int = 11,
        split: Split | None = None,
        *,
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            "sunspots",
            context,
            horizon,
            split={"val": 0.15, "test": 0.2} if split is None else split,
            period=11,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
        )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return False

    def source(self) -> Source:
        # Here, because statsmodels takes longer to import than everything else of this package.
        from statsmodels.datasets import sunspots

        frame = sunspots.load_pandas().data.rename(columns={"YEAR": "year", "SUNACTIVITY": "sunspots"})
        return Source("statsmodels' sunspots", frame, units={"sunspots": "number"})
