"""What any model must beat is measured as the model is, under names of its own."""

import lightning as L
import pytest
import torch
from torchmetrics import MeanAbsoluteError, MeanSquaredError

from quintet.core.learning.baselines import Baselines
from quintet.core.learning.metrics import collection


class Log(L.LightningModule):
    """A task that keeps what it is to log."""

    def __init__(self):
        super().__init__()
        self.logged = {}

    def log_dict(self, metrics, batch_size, **when):
        assert when == {"on_step": False, "on_epoch": True}
        self.logged |= {name: (metric, batch_size) for name, metric in metrics.items()}


def test_each_has_the_metrics_under_its_own_name_and_its_own_state():
    log, truth = Log(), [torch.tensor([1.0, 3.0]), torch.tensor([5.0])]
    measures = collection({"mae": MeanAbsoluteError(), "mse": MeanSquaredError()})
    baselines = Baselines(["zero", "two"], measures)
    for targets in truth:
        estimates = {"zero": torch.zeros_like(targets), "two": torch.full_like(targets, 2.0)}
        baselines.measure(log, estimates, targets)
    expected = {"test/mae_zero": 3.0, "test/mse_zero": 35 / 3, "test/mae_two": 5 / 3, "test/mse_two": 11 / 3}
    assert {name: metric.compute().item() for name, (metric, _) in log.logged.items()} == pytest.approx(expected)
    assert {size for _, size in log.logged.values()} == {1}
    assert measures["mae"].update_count == 0
    assert not baselines.state_dict()
