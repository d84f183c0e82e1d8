"""Time series: models, data modules and tasks that forecast, classify, find anomalies and fill gaps.

Importing this package registers its models; data, tasks and pictures load when they are first asked for.
"""

from importlib import import_module
from typing import Any

from . import models

_HOMES = {
    "AnomalyData": "data.anomalies",
    "AnomalyDetector": "tasks.anomaly",
    "DisaggregationData": "data.disaggregation",
    "DisaggregationDescription": "data.disaggregation",
    "Disaggregator": "tasks.disaggregation",
    "Forecaster": "tasks",
    "Forecasts": "tasks",
    "FilledWindows": "tasks.filling",
    "ImputationData": "data.gaps",
    "Imputer": "tasks.imputation",
    "LabelledSeries": "data.classes",
    "LabelledSeriesDescription": "data.classes",
    "SeriesClassifier": "tasks.classification",
    "SeriesClasses": "tasks.classification",
    "SeriesData": "data",
    "SeriesDescription": "data",
    "Sunspots": "data",
}

__all__ = ["models", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
