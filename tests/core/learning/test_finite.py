"""Losses that are no numbers."""

import math
from types import SimpleNamespace

import lightning as L
import pytest
import torch

from quintet.core.errors import QuintetError
from quintet.core.learning.finite import LossWatch, MeanLoss


def test_the_mean_counts_samples_and_not_batches():
    mean = MeanLoss()
    mean.update(torch.tensor(1.0), 10)
    mean.update(torch.tensor(4.0), 4)
    assert mean.compute().item() == pytest.approx((1 * 10 + 4 * 4) / 14)


def test_a_loss_that_is_no_number_is_not_left_out_of_the_mean():
    mean = MeanLoss()
    mean.update(torch.tensor(1.0), 10)
    mean.update(torch.tensor(math.nan), 4)
    assert mean.compute().isnan()


def watched(losses, folder, elsewhere=False):
    """Looks at losses of the steps 0, 1, ... as training does."""
    task, watch = L.LightningModule(), LossWatch()
    strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision or elsewhere)
    task.trainer = SimpleNamespace(
        strategy=strategy, global_step=9, current_epoch=2, gradient_clip_val=None, default_root_dir=folder
    )
    for step, loss in enumerate(losses):
        watch.keep(step, torch.tensor(loss))
    watch.look(task)
    assert len(watch) == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_first_bad_loss_is_named_with_its_step(tmp_path, value):
    with pytest.raises(QuintetError, match=rf"^the loss is {value} at step 1 \(epoch 2\): training stopped\n"):
        watched([0.5, value, 0.25, math.nan], tmp_path)


def test_losses_that_are_numbers_pass(tmp_path):
    watched([], tmp_path)
    watched([0.0, -3.0, 3e38], tmp_path)


def test_all_processes_stop_where_one_does(tmp_path):
    with pytest.raises(QuintetError, match=r"^the loss is no number in another process at step 9 \(epoch 2\)"):
        watched([0.5], tmp_path, elsewhere=True)
