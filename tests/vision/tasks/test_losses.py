"""Losses of dense prediction: against torch and by hand, and where nothing counts."""

import pytest
import torch
import torch.nn.functional as F

from quintet.vision.tasks.losses import CrossEntropy, CrossEntropyDice, Dice

IGNORED = 255
LOSSES = [CrossEntropy, Dice, CrossEntropyDice]


def batch(ignored=0.2, classes=4):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, classes, 5, 6, generator=generator, dtype=torch.float64)
    targets = torch.randint(classes, (2, 5, 6), generator=generator)
    targets[torch.rand(2, 5, 6, generator=generator) < ignored] = IGNORED
    return scores, targets


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_is_torchs(weighted, smoothing):
    scores, targets = batch()
    weight = torch.tensor([0.5, 1.0, 2.0, 0.0], dtype=torch.float64) if weighted else None
    expected = F.cross_entropy(scores, targets, weight, ignore_index=IGNORED, label_smoothing=smoothing)
    found = CrossEntropy(weight, IGNORED, smoothing)(scores, targets)
    torch.testing.assert_close(found, expected)


def test_dice_by_hand():
    scores, targets = batch()
    targets[targets == 3] = 0
    probabilities = scores.softmax(1)
    lost = []
    for label in range(3):  # the fourth class is nowhere true
        true, counted = (targets == label).double(), (targets != IGNORED).double()
        found = probabilities[:, label] * counted
        lost.append(1 - (2 * (found * true).sum() + 1) / (found.sum() + true.sum() + 1))
    torch.testing.assert_close(
        Dice(None, IGNORED)(scores, targets).double(), torch.stack(lost).mean(), rtol=1e-5, atol=0
    )


def test_both_together():
    scores, targets = batch()
    expected = CrossEntropy()(scores, targets) + 0.5 * Dice()(scores, targets)
    torch.testing.assert_close(CrossEntropyDice(dice=0.5)(scores, targets), expected)


def test_right_scores_lose_nothing():
    _, targets = batch()
    scores = 50 * F.one_hot(targets.where(targets != IGNORED, 0), 4).movedim(-1, 1).double()
    for loss in LOSSES:
        assert loss()(scores, targets).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_ignored_pixels_change_nothing_and_alone_give_zero(loss, dtype):
    scores, targets = batch()
    built = loss(weight=None, ignore_index=IGNORED)
    changed = scores.masked_fill((targets == IGNORED).unsqueeze(1), 9.0)
    torch.testing.assert_close(built(scores, targets.to(dtype)), built(changed, targets.to(dtype)))
    scores.requires_grad_()
    nothing = built(scores, torch.full_like(targets, IGNORED).to(dtype))
    nothing.backward()
    assert nothing.item() == 0
    assert (scores.grad == 0).all()
