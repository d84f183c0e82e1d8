"""Losses of weighted classes and smoothed targets: by their formulas, by torch where it agrees, and where they end."""

import math

import pytest
import torch
import torch.nn.functional as F

from quintet.core.objectives import balanced_weights, binary_cross_entropy, cross_entropy

WEIGHT = torch.tensor([0.5, 20.0, 1.0, 0.0])


def drawn(samples=9, classes=4):
    torch.manual_seed(0)
    return torch.randn(samples, classes), torch.randint(classes, (samples,))


def by_hand(logits, shares, weight, smoothing):
    """Sample after sample and class after class, as the docstring writes it."""
    above = below = 0.0
    classes = len(weight)
    for row, parts in zip(logits.double().softmax(1).tolist(), shares.tolist(), strict=True):
        for k, share in enumerate(parts):
            smooth = [(1 - smoothing) * (j == k) + smoothing / classes for j in range(classes)]
            above -= share * weight[k].item() * sum(q * math.log(p) for q, p in zip(smooth, row, strict=True))
            below += share * weight[k].item()
    return above / below


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_a_class_weighs_what_its_samples_cost(smoothing):
    logits, labels = drawn()
    one_hot = F.one_hot(labels, 4).float()
    expected = by_hand(logits, one_hot, WEIGHT, smoothing)
    assert cross_entropy(logits, labels, WEIGHT, smoothing).item() == pytest.approx(expected, rel=1e-5)
    assert cross_entropy(logits, one_hot, WEIGHT, smoothing).item() == pytest.approx(expected, rel=1e-5)
    mixed = 0.7 * one_hot + 0.3 * one_hot.roll(1, 0)
    expected = by_hand(logits, mixed, WEIGHT, smoothing)
    assert cross_entropy(logits, mixed, WEIGHT, smoothing).item() == pytest.approx(expected, rel=1e-5)


def test_torch_agrees_on_weights_alone_and_smoothing_alone():
    logits, labels = drawn()
    torch.testing.assert_close(cross_entropy(logits, labels, WEIGHT), F.cross_entropy(logits, labels, WEIGHT))
    smoothed = F.cross_entropy(logits, labels, label_smoothing=0.2)
    torch.testing.assert_close(cross_entropy(logits, labels, label_smoothing=0.2), smoothed)
    torch.testing.assert_close(cross_entropy(logits, labels, torch.ones(4), 0.2), smoothed)
    yes = (logits > 0.3).float()
    odds = torch.tensor([0.5, 40.0, 1.0, 3.0])
    expected = F.binary_cross_entropy_with_logits(logits.flip(0), yes, pos_weight=odds)
    torch.testing.assert_close(binary_cross_entropy(logits.flip(0), yes, odds), expected)


def least(loss, shape, steps=300):
    """Logits at which a loss is least."""
    logits = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=steps, line_search_fn="strong_wolfe")

    def step():
        optimizer.zero_grad()
        value = loss(logits)
        value.backward()
        return value

    optimizer.step(step)
    return logits.detach()


def test_a_rare_class_does_not_draw_the_samples_of_a_common_one():
    """Every sample can be told: at the least loss each has its own smoothed target, whatever its class weighs."""
    labels = torch.tensor([0] * 40 + [1])
    weight = balanced_weights([240, 6]).double()  # 0.5 and 20.5
    found = least(lambda logits: cross_entropy(logits, labels, weight, 0.1), (41, 2)).softmax(1)
    torch.testing.assert_close(found, F.one_hot(labels, 2).double() * 0.9 + 0.05, atol=1e-3, rtol=0)
    yes = labels.double().unsqueeze(1)
    odds = torch.tensor([40.0]).double()
    found = least(lambda logits: binary_cross_entropy(logits, yes, odds, 0.1), (41, 1)).sigmoid()
    torch.testing.assert_close(found, yes * 0.9 + 0.05, atol=1e-3, rtol=0)


def test_binary_by_hand():
    # One sample, logit 0: p = 1 / 2 whatever the target; a yes of 3 weighs three times log 2.
    logits = torch.zeros(1, 2)
    found = binary_cross_entropy(logits, torch.tensor([[1.0, 0.0]]), torch.tensor([3.0, 5.0]), 0.2)
    assert found.item() == pytest.approx((3 + 1) * math.log(2) / 2)
    found = binary_cross_entropy(torch.tensor([[2.0]]), torch.tensor([[0.25]]), torch.tensor([3.0]), 0.2)
    yes, no = -math.log1p(math.exp(-2)), -math.log1p(math.exp(2))
    expected = -(0.25 * 3 * (0.9 * yes + 0.1 * no) + 0.75 * (0.1 * yes + 0.9 * no))
    assert found.item() == pytest.approx(expected)


def test_a_batch_without_weight_costs_nothing():
    logits = torch.randn(2, 4, requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([3, 3]), WEIGHT, 0.1)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().max() == 0


def test_balanced_weights():
    assert balanced_weights([10, 30, 0]).tolist() == pytest.approx([40 / 30, 40 / 90, 0])
    assert balanced_weights([10, 30, 0], power=0.5).tolist() == pytest.approx([(4 / 3) ** 0.5, 2 / 3, 0])
