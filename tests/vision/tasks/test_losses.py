"""Losses of dense prediction: against torch, by hand in float64, and where nothing counts."""

import functools
from itertools import combinations, pairwise

import pytest
import torch
import torch.nn.functional as F
from jsonargparse import ArgumentParser

from quintet.vision.tasks.losses import (
    Boundary,
    CrossEntropy,
    CrossEntropyDice,
    DenseLoss,
    Dice,
    Focal,
    Lovasz,
    Tversky,
    signed_distances,
)

IGNORED = 255
LOSSES = [CrossEntropy, Dice, CrossEntropyDice, Focal, Tversky, Lovasz, Boundary]


def batch(ignored=0.2, classes=4, size=(5, 6)):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, classes, *size, generator=generator, dtype=torch.float64)
    targets = torch.randint(classes, (2, *size), generator=generator)
    targets[torch.rand(2, *size, generator=generator) < ignored] = IGNORED
    return scores, targets


def flat(scores, targets):
    """Probabilities (pixels, classes) and labels (pixels) of the pixels that count."""
    counted = targets != IGNORED
    return scores.softmax(1).movedim(1, -1)[counted], targets[counted]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_is_a_mean_of_torchs_by_the_weights_of_the_classes(weighted, smoothing):
    scores, targets = batch()
    weight = torch.tensor([0.5, 1.0, 2.0, 0.0], dtype=torch.float64) if weighted else None
    counted = targets != IGNORED
    own = torch.ones(4).double() if weight is None else weight
    own = own[targets[counted]]
    each = F.cross_entropy(scores, targets, ignore_index=IGNORED, label_smoothing=smoothing, reduction="none")
    expected = (own * each[counted]).sum() / own.sum()
    found = CrossEntropy(weight, IGNORED, smoothing)(scores, targets)
    torch.testing.assert_close(found, expected)


def test_focal_by_hand():
    scores, targets = batch()
    weight = torch.tensor([0.5, 1.0, 2.0, 0.25], dtype=torch.float64)
    probabilities, labels = flat(scores, targets)
    p, w = probabilities.gather(1, labels[:, None])[:, 0], weight[labels]
    torch.testing.assert_close(
        Focal(weight, gamma=1.5)(scores, targets), -(w * (1 - p) ** 1.5 * p.log()).sum() / w.sum()
    )
    torch.testing.assert_close(Focal(gamma=0.0)(scores, targets), CrossEntropy()(scores, targets))


@pytest.mark.parametrize("weighted", [False, True])
def test_dice_by_hand(weighted):
    scores, targets = batch()
    targets[targets == 3] = 0
    weight = torch.tensor([0.5, 1.0, 2.0, 7.0], dtype=torch.float64) if weighted else None
    probabilities, labels = flat(scores, targets)
    lost = []
    for label in range(3):  # the fourth class is nowhere true
        true, found = (labels == label).double(), probabilities[:, label]
        lost.append(1 - (2 * (found * true).sum() + 1) / (found.sum() + true.sum() + 1))
    shares = torch.ones(3).double() if weight is None else weight[:3]
    expected = (shares * torch.stack(lost)).sum() / shares.sum()
    torch.testing.assert_close(Dice(weight, IGNORED)(scores, targets), expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_both_together(weighted):
    scores, targets = batch()
    targets[targets == 3] = 0
    weight = torch.tensor([0.5, 1.0, 2.0, 7.0], dtype=torch.float64) if weighted else None
    expected = CrossEntropy(weight)(scores, targets) + 0.5 * Dice()(scores, targets)
    torch.testing.assert_close(CrossEntropyDice(weight, dice=0.5)(scores, targets), expected)


def test_tversky_by_hand():
    scores, targets = batch()
    targets[targets == 3] = 0
    probabilities, labels = flat(scores, targets)
    lost = []
    for label in range(3):
        true, found = (labels == label).double(), probabilities[:, label]
        both, more, less = (found * true).sum(), (found * (1 - true)).sum(), ((1 - found) * true).sum()
        lost.append((1 - (both + 1) / (both + 0.2 * more + 0.9 * less + 1)) ** 0.75)
    loss = Tversky(alpha=0.2, beta=0.9, gamma=0.75)
    torch.testing.assert_close(loss(scores, targets), torch.stack(lost).mean())
    # Halves of both are Dice.
    halves = Tversky(alpha=0.5, beta=0.5, smooth=0.5)(scores, targets)
    torch.testing.assert_close(halves, Dice(smooth=1.0)(scores, targets))


def test_lovasz_at_corners_is_the_jaccard_loss():
    """The extension agrees with the set function it extends: at errors of 0 and 1 it is 1 - IoU."""
    true = torch.tensor([0, 0, 1, 1, 1, 0, IGNORED])
    for number in range(7):
        for wrong in combinations(range(6), number):
            predicted = true.clone()
            predicted[list(wrong)] = 1 - predicted[list(wrong)]
            scores = 80.0 * F.one_hot(predicted.where(true != IGNORED, 0), 2).double()
            lost = []
            for label in (0, 1):
                one, two = (predicted[:6] == label), (true[:6] == label)
                lost.append(1 - (one & two).sum() / (one | two).sum())
            found = Lovasz()(scores.T[None, :, None], true[None, None])
            torch.testing.assert_close(found, torch.stack(lost).mean().double(), atol=1e-7, rtol=1e-5)


def test_lovasz_is_the_sum_over_level_sets():
    """Choquet's integral of the set function: between two neighbouring errors, 1 - IoU of those above, in float64."""
    scores, targets = batch()
    probabilities, labels = flat(scores, targets)
    lost = []
    for label in range(4):
        true = labels == label
        errors = (true.double() - probabilities[:, label]).abs()
        levels = torch.cat([errors.unique(), torch.zeros(1).double()]).sort().values
        total = 0.0
        for low, high in pairwise(levels):
            wrong = errors > low
            total = total + (high - low) * wrong.sum() / (true | wrong).sum()
        lost.append(total)
    torch.testing.assert_close(Lovasz()(scores, targets), torch.stack(lost).mean())


def test_distances_by_brute_force():
    _, targets = batch(size=(6, 7))
    found = signed_distances(targets, 4)
    places = torch.cartesian_prod(torch.arange(6.0), torch.arange(7.0))
    between = torch.cdist(places, places).view(6, 7, 6, 7)
    for image, distances in zip(targets, found):
        for label in range(4):
            inside = image == label
            for row, column in ((0, 0), (3, 4), (5, 6)):
                other = between[row, column][inside != inside[row, column]].min() - 0.5
                expected = -other if inside[row, column] else other
                torch.testing.assert_close(distances[label, row, column], expected)


def test_boundary_by_hand():
    scores, targets = batch()
    counted = targets != IGNORED
    distances = signed_distances(targets, 4).double()
    true = F.one_hot(targets.where(counted, 0), 4).movedim(-1, 1).double()
    each = (distances * (scores.softmax(1) - true) * counted.unsqueeze(1)).sum((0, 2, 3)) / counted.sum()
    torch.testing.assert_close(Boundary(region=None, factor=0.1)(scores, targets), 0.1 * each.mean())
    both = Boundary(region=functools.partial(Tversky, beta=0.5), factor=0.1)(scores, targets)
    torch.testing.assert_close(both, 0.1 * each.mean() + Tversky(beta=0.5)(scores, targets))


def test_boundary_costs_more_further_away():
    targets = torch.zeros(1, 9, 20, dtype=torch.long)
    targets[..., :4] = 1

    def loss_of(column):
        wrong = targets.clone()
        wrong[0, 4, column] = 1
        return Boundary(region=None)(60 * F.one_hot(wrong, 2).movedim(-1, 1).float(), targets)

    assert loss_of(6) < loss_of(10) < loss_of(19)


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


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("absent", [0, 3])
@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss is not Boundary])
def test_ignored_pixels_are_as_if_cut_out(loss, absent, weighted):
    """Whichever class is nowhere true; the boundary loss alone asks where a pixel is."""
    scores, targets = batch()
    targets[targets == absent] = 1
    weight = torch.tensor([7.0, 1.0, 2.0, 5.0], dtype=torch.float64) if weighted else None
    counted = targets != IGNORED
    alone = scores.movedim(1, -1)[counted].T[None, :, None], targets[counted][None, None]
    built = loss(weight=weight, ignore_index=IGNORED)
    torch.testing.assert_close(built(scores, targets), built(*alone))


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients(loss):
    scores, targets = batch(classes=3, size=(3, 3))
    weight = torch.linspace(0.5, 2.0, 3, dtype=torch.float64)
    built = loss(weight=weight, ignore_index=IGNORED)
    assert torch.autograd.gradcheck(lambda x: built(x, targets), scores.requires_grad_(), atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_of_many_pixels(loss):
    scores, targets = batch(size=(100, 100))
    exact = loss()(scores, targets)
    found = loss()(scores.bfloat16(), targets)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(exact.item(), rel=0.02)


@pytest.mark.parametrize("loss", LOSSES)
def test_descent_reaches_the_truth(loss):
    _, targets = batch(size=(6, 8))
    scores = torch.zeros(2, 4, 6, 8, requires_grad=True)
    optimizer = torch.optim.Adam([scores], lr=1.0)
    for _ in range(30):
        optimizer.zero_grad()
        loss()(scores, targets).backward()
        optimizer.step()
    counted = targets != IGNORED
    assert (scores.argmax(1) == targets)[counted].float().mean() > 0.98


@pytest.mark.parametrize("loss", LOSSES)
def test_chosen_by_its_name(loss):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--loss", type=DenseLoss | None)
    for name in (loss.__name__, f"quintet.vision.tasks.losses.{loss.__name__}"):
        built = parser.instantiate(parser.parse_args([f"--loss={name}"])).loss(weight=None, ignore_index=7)
        assert isinstance(built, loss)


def test_a_class_that_does_not_exist_is_refused():
    scores, targets = batch()
    targets[0, 0, 0] = 4
    for loss in (Focal, Dice):
        with pytest.raises(ValueError, match="4"):
            loss()(scores, targets)
