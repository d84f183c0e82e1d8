"""Losses over what is known, against torch's own on what is left."""

import pytest
import torch
import torch.nn.functional as F

from quintet.graphs.tasks.losses import class_loss, label_loss, number_loss

THEIRS = {"huber": F.huber_loss, "l1": F.l1_loss, "squared": F.mse_loss}


@pytest.fixture
def gaps():
    draw = torch.Generator().manual_seed(0)
    outputs, targets = 2 * torch.randn(9, 3, generator=draw), torch.randn(9, 3, generator=draw)
    return outputs.requires_grad_(), targets.masked_fill(torch.rand(9, 3, generator=draw) < 0.4, torch.nan)


@pytest.mark.parametrize("error", THEIRS)
def test_numbers_that_are_known_count(gaps, error):
    outputs, targets = gaps
    known = targets.isfinite()
    torch.testing.assert_close(number_loss(outputs, targets, error), THEIRS[error](outputs[known], targets[known]))
    (gradient,) = torch.autograd.grad(number_loss(outputs, targets, error), outputs)
    assert gradient.isfinite().all()
    assert gradient[~known].eq(0).all()


def test_labels_that_are_known_count(gaps):
    outputs, targets = gaps[0], (gaps[1] > 0).float().masked_fill(gaps[1].isnan(), torch.nan)
    known = targets.isfinite()
    expected = F.binary_cross_entropy_with_logits(outputs[known], targets[known] * 0.8 + 0.1)
    torch.testing.assert_close(label_loss(outputs, targets, 0.2), expected)


@pytest.mark.parametrize("loss", [lambda *both: number_loss(*both, "huber"), label_loss])
def test_outputs_of_another_kind_of_number_learn(gaps, loss):
    """Of trainer.precision=64-true, and of bfloat16, whose targets keep their digits."""
    targets = (gaps[1] > 0).float().masked_fill(gaps[1].isnan(), torch.nan)
    (expected,) = torch.autograd.grad(loss(gaps[0], targets), gaps[0])
    outputs = gaps[0].detach().double().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(outputs, targets), outputs)
    torch.testing.assert_close(gradient.float(), expected)
    assert loss(gaps[0].bfloat16(), targets).dtype == torch.float32


def test_classes_that_are_known_count(gaps):
    targets = torch.tensor([0, 2, -1, 1, -1, 0, 2, 1, 0])
    known = targets >= 0
    torch.testing.assert_close(class_loss(gaps[0], targets), F.cross_entropy(gaps[0][known], targets[known]))


def test_nothing_known_is_no_loss(gaps):
    outputs = gaps[0]
    nothing = torch.full_like(outputs, torch.nan)
    losses = (
        number_loss(outputs, nothing, "l1"),
        label_loss(outputs, nothing),
        class_loss(outputs, torch.full((9,), -1)),
    )
    for loss in losses:
        assert loss.item() == 0
        loss.backward()
    assert outputs.grad.eq(0).all()
