"""Devices without float64 (Apple's): exact work is done on the CPU, and tensors never meet across devices."""

import pytest
import torch

from quintet.timeseries.metrics import AbsoluteError, Coverage, ErrorByStep, ScaledError
from quintet.timeseries.metrics import SymmetricPercentageError as Smape
from quintet.timeseries.metrics.appliances import MatchingRatio, PowerError, RunningF1
from quintet.timeseries.tasks.anomaly import RowErrors


class OnApple(torch.Tensor):
    """A tensor that behaves as if it lay on a device without float64: `to(device)` alone brings it to the CPU."""

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), options=None):
        options = options or {}
        if function is torch.Tensor.to and isinstance(arguments[1], torch.device | str):
            return arguments[0].as_subclass(torch.Tensor).clone()
        for other in arguments[1:]:
            if isinstance(other, torch.Tensor) and not isinstance(other, cls) and other.dim():
                raise RuntimeError("tensors of two devices meet")
        found = super().__torch_function__(function, types, arguments, options)
        if isinstance(found, torch.Tensor) and found.dtype == torch.float64:
            raise TypeError(f"{function} makes float64 on a device that has none")
        return found


def on_apple(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(len(shape))).as_subclass(OnApple)


def plain(tensor):
    return tensor.as_subclass(torch.Tensor)


METRICS = {
    "mae": lambda: (AbsoluteError(), {}),
    "smape": lambda: (Smape([1e6, 2.0], [3.0, 4.0]), {}),
    "mase": lambda: (ScaledError(), {"seasonal_error": on_apple(4, 2)}),
    "by step": lambda: (ErrorByStep(6, 2), {}),
    "coverage": lambda: (Coverage(), {}),
}


@pytest.mark.parametrize("name", METRICS)
def test_forecast_metrics_are_as_exact_as_on_the_cpu(name):
    metric, more = METRICS[name]()
    predictions, targets = on_apple(4, 6, 2, 1), on_apple(4, 6, 2)
    metric.update(predictions, targets, **more)
    there = metric.compute()
    metric.reset()
    metric.update(plain(predictions), plain(targets), **{key: plain(value) for key, value in more.items()})
    assert there.dtype == torch.float64
    torch.testing.assert_close(plain(there), metric.compute(), rtol=0, atol=0)


@pytest.mark.parametrize("metric", [PowerError([2.0]), MatchingRatio([2.0]), RunningF1([2.0], [1.0])])
def test_appliance_metrics(metric):
    metric.update(on_apple(4, 6, 1), on_apple(4, 6, 1))
    assert metric.compute().dtype == torch.float64


def test_errors_of_rows():
    rows = RowErrors([20, 30], 2)
    rows.add(torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.int64), on_apple(4, 6, 2))
    assert rows.total.dtype == torch.float64
    assert float(rows.count.sum()) == 48
