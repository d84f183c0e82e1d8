"""Cross entropy of samples that weigh by their classes, towards targets that are smoothed.

A class weighs what its samples cost. torch's own functions instead weigh every share of a smoothed target by the class
the share went to: a rare class that weighs 20 then draws every sample of the others with 20 times the smoothing.
"""

import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor


def cross_entropy(
    logits: Float[Tensor, "samples classes"],
    targets: Shaped[Tensor, "samples *classes"],
    weight: Float[Tensor, " classes"] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """sum_ik t_ik w_k H(smooth(k), softmax(s_i)) / sum_ik t_ik w_k, smooth(k) = (1 - e) [j = k] + e / classes.

    H is the cross entropy. Papers: smoothing: arXiv 1512.00567.

    Args:
        logits: s.
        targets: indices of classes, or shares t of classes that sum to 1 in each sample (mixup).
        weight: w of each class; None weighs all alike. Where no sample of a batch has a weight the loss is 0.
        label_smoothing: e.
    """
    if weight is None:
        return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    if targets.ndim == 1:
        each = F.cross_entropy(logits, targets, label_smoothing=label_smoothing, reduction="none")
        weighed = weight[targets]
        return (weighed * each).sum() / weighed.sum().clamp(min=1e-12)
    log_p = logits.log_softmax(1)
    shares = targets * weight
    weighed = shares.sum(1)
    true, spread = (shares * log_p).sum(1), weighed * log_p.mean(1)
    return -((1 - label_smoothing) * true + label_smoothing * spread).sum() / weighed.sum().clamp(min=1e-12)


def binary_cross_entropy(
    logits: Float[Tensor, "samples classes"],
    targets: Float[Tensor, "samples classes"],
    odds: Float[Tensor, " classes"] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """mean_ik t_ik o_k H(1 - e / 2, p_ik) + (1 - t_ik) H(e / 2, p_ik), p = sigmoid(logits): each class a yes or no.

    H(q, p) = - q log p - (1 - q) log(1 - p).

    Args:
        logits: of a yes.
        targets: t, 1 for yes and 0 for no, or shares of yes.
        odds: o, what a yes of each class weighs; None for 1.
        label_smoothing: e.
    """
    smoothed = targets * (1 - label_smoothing) + label_smoothing / 2
    if odds is None or not label_smoothing:
        return F.binary_cross_entropy_with_logits(logits, smoothed, pos_weight=odds)
    yes, no = -F.softplus(-logits), -F.softplus(logits)
    half = label_smoothing / 2
    return -(targets * odds * ((1 - half) * yes + half * no) + (1 - targets) * (half * yes + (1 - half) * no)).mean()
