"""Devices without float64 (Apple's): exact work is done on the CPU, and tensors never meet across devices.

torch's fake tensors know devices that this machine lacks: they say where every result would lie, and refuse what mixes
two devices.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from quintet.timeseries.metrics import AbsoluteError, Coverage, ErrorByStep, PinballLoss, ScaledError
from quintet.timeseries.metrics import SymmetricPercentageError as Smape
from quintet.timeseries.metrics import WeightedQuantileLoss as Wql
from quintet.timeseries.metrics.appliances import MatchingRatio, PowerError, RunningF1
from quintet.timeseries.tasks.anomaly import RowErrors
from quintet.timeseries.tasks.distributions import StudentT

LEVELS = [0.1, 0.5, 0.9]
APPLE = "mps"


class WithoutFloat64(TorchDispatchMode):
    """Refuses every result in float64 that lies on the device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for one in found if isinstance(found, tuple | list) else [found]:
            if isinstance(one, torch.Tensor) and one.device.type == APPLE and one.dtype == torch.float64:
                raise TypeError(f"{function} makes float64 on a device that has none")
        return found


@pytest.fixture
def apple():
    with FakeTensorMode(allow_non_fake_inputs=True), WithoutFloat64():
        yield


METRICS = {
    "mae": lambda: (AbsoluteError(), {}),
    "smape": lambda: (Smape([1e6, 2.0], [3.0, 4.0]), {}),
    "mase": lambda: (ScaledError(), {"seasonal_error": torch.empty(4, 2, device=APPLE)}),
    "by step": lambda: (ErrorByStep(6, 2), {}),
    "pinball": lambda: (PinballLoss(LEVELS), {}),
    "wql": lambda: (Wql(LEVELS, [1e6, 2.0], [3.0, 4.0]), {}),
    "coverage": lambda: (Coverage(), {}),
}


@pytest.mark.parametrize("name", METRICS)
def test_forecast_metrics(apple, name):
    metric, more = METRICS[name]()
    for own, buffer in metric.named_buffers():
        if buffer.dtype != torch.float64:
            setattr(metric, own, buffer.to(APPLE))
    outputs = 3 if name in ("pinball", "wql", "coverage") else 1
    metric.update(torch.empty(4, 6, 2, outputs, device=APPLE), torch.empty(4, 6, 2, device=APPLE), **more)
    assert (metric.total.device.type, metric.total.dtype) == ("cpu", torch.float64)
    assert metric.compute().dtype == torch.float64


@pytest.mark.parametrize("metric", [PowerError([2.0]), MatchingRatio([2.0]), RunningF1([2.0], [1.0])])
def test_appliance_metrics(apple, metric):
    metric.update(torch.empty(4, 6, 1, device=APPLE), torch.empty(4, 6, 1, device=APPLE))
    assert metric.compute().dtype == torch.float64


def test_errors_of_rows(apple):
    rows = RowErrors([20, 30], 2)
    series, starts = (torch.zeros(4, dtype=torch.int64, device=APPLE) for _ in range(2))
    rows.add(series, starts, torch.empty(4, 6, 2, device=APPLE))
    assert (rows.total.device.type, rows.total.dtype) == ("cpu", torch.float64)


def test_quantiles_of_a_distribution(apple):
    quantiles = StudentT(LEVELS)(torch.empty(4, 6, 2, 3, device=APPLE), torch.ones(4, 1, 2, device=APPLE))
    assert (quantiles.device.type, quantiles.dtype) == (APPLE, torch.float32)
