"""Tasks of the time series domain: `Forecaster`."""

from .forecasting import Forecaster, Forecasts

__all__ = ["Forecaster", "Forecasts"]
