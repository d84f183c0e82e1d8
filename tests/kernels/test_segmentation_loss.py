"""The segmentation loss against torch, torchvision, and the formulas of published losses that make one-hot copies."""

import inspect
import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import sigmoid_focal_loss

from quintet.kernels._runtime import INTERPRETING
from quintet.kernels._spec import relative_error
from quintet.kernels.segmentation_loss import (
    _statistics_torch,
    _statistics_torch_backward,
    segmentation_loss,
)

BACKENDS = ["reference", "torch"]
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def example(*grid, batch=2, classes=4, ignored=0.2, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(batch, classes, *grid, generator=generator, dtype=torch.float64)
    target = torch.randint(classes, (batch, *grid), generator=generator)
    target[torch.rand(batch, *grid, generator=generator) < ignored] = 255
    return logits.to(dtype).requires_grad_(), target, torch.rand(classes, generator=generator).to(dtype) + 0.5


def assert_same(found, expected, logits, tolerance=1e-12):
    """Values and gradients."""
    assert relative_error(found.detach(), expected.detach()) < tolerance
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (found, expected)]
    assert relative_error(*gradients) < tolerance


@every_backend
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("grid", [(31,), (5, 7), (3, 2, 5)], ids=str)
def test_cross_entropy_is_that_of_torch(backend, grid, weighted, label_smoothing):
    logits, target, weight = example(*grid)
    weight = weight if weighted else None
    found = segmentation_loss(logits, target, weight, 255, dice=0.0, label_smoothing=label_smoothing, backend=backend)
    expected = F.cross_entropy(logits, target, weight, ignore_index=255, label_smoothing=label_smoothing)
    assert_same(found, expected, logits)


@every_backend
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_of_two_classes_is_that_of_torchvision(backend, gamma):
    """A softmax over (0, x) is the sigmoid of x."""
    x = torch.randn(2, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    target = (x.detach() + torch.randn_like(x) > 0).long()
    logits = torch.stack((torch.zeros_like(x), x), 1)
    found = segmentation_loss(logits, target, cross_entropy=0.0, dice=0.0, focal=1.0, gamma=gamma, backend=backend)
    assert_same(found, sigmoid_focal_loss(x, target.double(), alpha=-1, gamma=gamma, reduction="mean"), x)


@every_backend
def test_focal_loss_of_many_classes_is_a_weighted_mean(backend):
    logits, target, weight = example(5, 7)
    found = segmentation_loss(
        logits, target, weight, 255, cross_entropy=0.0, dice=0.0, focal=3.0, gamma=1.5, backend=backend
    )
    nll = F.cross_entropy(logits, target, reduction="none", ignore_index=255)
    weights = torch.where(target == 255, 0.0, weight[target.clamp(max=3)])
    assert_same(found, 3 * (weights * (1 - torch.exp(-nll)) ** 1.5 * nll).sum() / weights.sum(), logits)


@every_backend
@pytest.mark.parametrize("batch_dice", [False, True])
def test_dice_is_that_of_published_losses(backend, batch_dice):
    """Of MONAI's DiceLoss (softmax, to_onehot_y, batch) and, over the batch, of segmentation_models' DiceLoss."""
    logits, target, _ = example(5, 7, ignored=0.0)
    found = segmentation_loss(
        logits, target, cross_entropy=0.0, dice=2.0, smooth=1e-3, batch_dice=batch_dice, backend=backend
    )
    p, one_hot = logits.softmax(1), F.one_hot(target, 4).permute(0, 3, 1, 2)
    axes = (0, 2, 3) if batch_dice else (2, 3)
    score = (2 * (p * one_hot).sum(axes) + 1e-3) / (p.sum(axes) + one_hot.sum(axes) + 1e-3)
    assert_same(found, 2 * (1 - score).mean(), logits)


@every_backend
def test_a_class_of_weight_zero_has_no_part_in_dice(backend):
    logits, target, _ = example(9, ignored=0.0)
    background = torch.tensor([0.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    found = segmentation_loss(logits, target, background, cross_entropy=0.0, backend=backend)
    p, one_hot = logits.softmax(1)[:, 1:], F.one_hot(target, 4).mT[:, 1:]
    score = (2 * (p * one_hot).sum(2) + 1e-5) / (p.sum(2) + one_hot.sum(2) + 1e-5)
    assert_same(found, (1 - score).mean(), logits)


@settings(max_examples=20)
@given(seed=st.integers(0, 99), ignored=st.sampled_from([0.0, 0.5, 1.0]), pixels=st.integers(1, 40))
def test_ignored_pixels_take_no_part(seed, ignored, pixels):
    logits, target, weight = example(pixels, seed=seed, ignored=ignored)
    terms = {"focal": 1.0, "label_smoothing": 0.1, "backend": "torch"}
    found = segmentation_loss(logits, target, weight, 255, **terms)
    gradient = torch.autograd.grad(found, logits, retain_graph=True)[0]
    poisoned = torch.where((target == 255).unsqueeze(1), torch.nan, logits)
    assert_same(segmentation_loss(poisoned, target, weight, 255, **terms), found, logits)
    assert torch.isfinite(found)
    assert gradient.mT[target == 255].count_nonzero() == 0
    assert gradient.sum(1).abs().max() < 1e-12, "logits count only relative to each other"


@every_backend
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_targets_of_every_integer_dtype(backend, dtype):
    logits, target, weight = example(5, 7)
    found = segmentation_loss(logits, target.to(dtype), weight, 255, focal=1.0, backend=backend)
    assert_same(found, segmentation_loss(logits, target, weight, 255, focal=1.0, backend=backend), logits)


def test_many_blocks_equal_one(monkeypatch):
    logits, target, weight = example(13, 11)
    terms = {"focal": 1.0, "label_smoothing": 0.1, "backend": "torch"}
    expected = segmentation_loss(logits, target, weight, 255, **terms)
    truth = torch.autograd.grad(expected, logits)[0]
    monkeypatch.setattr("quintet.kernels.segmentation_loss.BLOCK", 8 * 17)
    found = segmentation_loss(logits, target, weight, 255, **terms)
    assert relative_error(found.detach(), expected.detach()) < 1e-12
    assert relative_error(torch.autograd.grad(found, logits)[0], truth) < 1e-12


def test_the_gradient_keeps_channels_last():
    logits, target, _ = example(5, 7)
    logits = logits.detach().to(memory_format=torch.channels_last).requires_grad_()
    gradient = torch.autograd.grad(segmentation_loss(logits, target, ignore_index=255), logits)[0]
    assert gradient.is_contiguous(memory_format=torch.channels_last)


def peak_memory(run) -> int:
    """Bytes that were allocated at once."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = (event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(itertools.accumulate(sizes))


def test_memory_is_that_of_the_gradient_and_a_block():
    """A one-hot form, as it is commonly written, has several copies of the size of the logits."""
    logits = torch.randn(1, 16, 1 << 17, requires_grad=True)
    target = torch.randint(16, (1, 1 << 17), dtype=torch.uint8)

    def one_hot_form():
        p, one_hot = logits.softmax(1), F.one_hot(target.long(), 16).mT
        score = (2 * (p * one_hot).sum(2) + 1e-5) / (p.sum(2) + one_hot.sum(2) + 1e-5)
        (F.cross_entropy(logits, target.long()) + 1 - score.mean()).backward()

    size = 4 * logits.numel()
    found = peak_memory(lambda: segmentation_loss(logits, target, focal=1.0).backward()) / size
    logits.grad = None
    assert found < 1.5 < 5 < peak_memory(one_hot_form) / size


def test_the_torch_form_is_registered_correctly():
    logits, target, weight = example(3, 5, dtype=torch.float32)
    logits = logits.detach().flatten(2).requires_grad_()
    settings = (target.flatten(1), weight, 255, 1.5, True, True, True)
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(_statistics_torch, (logits, *settings), test_utils=checks)
    grads = torch.randn(2, 4), torch.randn(2, 4), torch.randn(2, 4)
    torch.library.opcheck(_statistics_torch_backward, (*grads, logits.detach(), *settings), test_utils=checks[:2])


@pytest.mark.interpreter
@pytest.mark.skipif(not INTERPRETING, reason="set TRITON_INTERPRET=1 to interpret the kernels")
def test_the_kernel_shows_a_target_that_is_no_class():
    logits, target, _ = example(5, 7, dtype=torch.float32, ignored=0.0)
    target = target.to(torch.uint8)
    assert torch.isfinite(segmentation_loss(logits, target, backend="triton"))
    target[0, 0, 0] = 4
    assert torch.isnan(segmentation_loss(logits, target, backend="triton"))


def test_what_does_not_fit_is_refused_in_words():
    refuse = inspect.unwrap(segmentation_loss)  # the run-time shape checks of the tests would speak first
    logits, target, weight = example(5, 7)
    with pytest.raises(ValueError, match="target holds 255, but logits have 4 classes; mark pixels"):
        refuse(logits, target)
    with pytest.raises(ValueError, match=r"two classes or more and at least one pixel; they are \(2, 1, 5, 7\)"):
        refuse(logits[:, :1], target)
    with pytest.raises(ValueError, match=r"target is \(2, 5, 6\) torch.int64; for logits \(2, 4, 5, 7\) it must"):
        refuse(logits, target[..., :6])
    with pytest.raises(ValueError, match=r"is \(2, 5, 7\) torch\.float64"):
        refuse(logits, target.double())
    with pytest.raises(ValueError, match=r"class_weight is \(3,\); logits have 4 classes"):
        refuse(logits, target, weight[:3])
    with pytest.raises(ValueError, match=r"label_smoothing=1.0, gamma=2.0, smooth=1e-05"):
        refuse(logits, target, label_smoothing=1.0)
