"""What a person looks at: forecasts, classes, anomalies and filled gaps, each beside what is true."""

from .forecasts import SEEN, SHOWN, STYLES, Panel, error_by_step, forecast_panels

__all__ = ["SEEN", "SHOWN", "STYLES", "Panel", "error_by_step", "forecast_panels"]
