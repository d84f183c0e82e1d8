"""Training that has failed is noticed at once: losses that are NaN or infinite."""

from pathlib import Path
from typing import NoReturn

import lightning as L
import torch
from torch import Tensor
from torchmetrics import Metric

from ..errors import QuintetError

TOGETHER = 20  # losses on a GPU, or of several processes, that are looked at together: each look waits for all of them


class MeanLoss(Metric):
    """Mean of the losses of batches, sum(n * loss) / sum(n); one that is NaN makes it NaN.

    torchmetrics' MeanMetric leaves NaN out, and waits for a GPU to do so; told not to, it forgets the weights.
    """

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("samples", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, loss: Tensor, samples: int) -> None:
        """Takes the mean loss of a batch of `samples`."""
        self.total += loss.detach() * samples
        self.samples += samples

    def compute(self) -> Tensor:
        """The mean over all samples; NaN where there were none."""
        return self.total / self.samples


class LossWatch:
    """Keeps the losses of training until they are looked at, with the steps they belong to."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, Tensor]] = []

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, step: int, loss: Tensor) -> None:
        self._kept.append((step, loss.detach()))

    def look(self, task: L.LightningModule) -> None:
        """Raises QuintetError where a loss since the last look is NaN or infinite, in any process of the run."""
        kept, self._kept = self._kept, []
        values = torch.stack([loss.float() for _, loss in kept]).tolist() if kept else []
        bad = [(step, value) for (step, _), value in zip(kept, values) if not abs(value) < float("inf")]
        # All processes stop together: one that waits for another's gradients would hang.
        if task.trainer.strategy.reduce_boolean_decision(bool(bad), all=False):
            step, value = bad[0] if bad else (task.trainer.global_step, "no number in another process")
            failed(task, f"the loss is {value}", step)


def failed(task: L.LightningModule, what: str, step: int | None = None) -> NoReturn:
    """Raises QuintetError that says what failed in training, at which step, and what to try."""
    trainer = task.trainer
    clip, rate = trainer.gradient_clip_val, getattr(task, "lr", None)
    lower = "a lower model.lr" + (f" (now {rate:g})" if rate else "")
    clipped = f"a lower trainer.gradient_clip_val (now {clip:g})" if clip else "trainer.gradient_clip_val=1.0"
    last = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
    kept = f"; {last} is from before" if last.is_file() else ""
    step = trainer.global_step if step is None else step
    raise QuintetError(
        f"{what} at step {step} (epoch {trainer.current_epoch}): training stopped\n"
        f"try {lower}, {clipped}, or look for bad samples with quintet inspect{kept}"
    )
