"""What any model must beat: estimates that need no network, measured on the same test data as the model.

Their numbers stand beside the model's under its names with their own at the end: `test/mase` and
`test/mase_seasonal_naive`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import lightning as L
from torch import Tensor, nn
from torchmetrics import MetricCollection


class Baselines(nn.ModuleDict):
    """The metrics of each baseline, by its name.

    Args:
        names: of the baselines.
        metrics: what is measured of each, as of the model.
    """

    def __init__(self, names: Iterable[str], metrics: MetricCollection) -> None:
        super().__init__({name: metrics.clone(prefix="test/", postfix=f"_{name}") for name in names})

    def measure(
        self, task: L.LightningModule, estimates: Mapping[str, Tensor], targets: Tensor, **further: Any
    ) -> None:
        """Takes one test batch into the metrics, and has the task log them.

        Args:
            task: of which these baselines are a part, in a test step.
            estimates: of each baseline, as the metrics take predictions.
            targets: the truth.
            **further: what the metrics take besides.
        """
        for name, metrics in self.items():
            metrics.update(estimates[name], targets, **further)
            task.log_dict(dict(metrics), on_step=False, on_epoch=True, batch_size=len(targets))
