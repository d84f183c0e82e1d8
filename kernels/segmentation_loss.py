"""Loss of dense predictions: cross entropy, soft Dice and focal terms of class logits against integer targets.

With p = softmax(z) over the classes, t the target, w the weight of a class, over the pixels i that are not ignored,

    cross entropy = sum_i [(1 - e) w_t (-log p_t) + (e / K) sum_k w_k (-log p_k)] / sum_i w_t
    focal         = sum_i w_t (1 - p_t)^gamma (-log p_t) / sum_i w_t
    Dice          = 1 - sum_k w_k score_k / sum_k w_k
    score_k       = (2 sum_i p_k [t = k] + s) / (sum_i p_k + sum_i [t = k] + s)

and the loss is their weighted sum. Scores are of each sample and averaged, or of the whole batch for `batch_dice`.

Shapes: logits z (batch, classes, *grid), also channels-last in memory; target (batch, *grid) of any integer dtype;
class weights (classes,) or None for one. The loss is a float32 scalar (float64 for float64 logits), as are all sums.

All that the terms need of the pixels are a few sums for each sample and class. An op computes the sums in one pass over
the logits; its backward makes the softmax again, and writes the gradient of the logits in one more pass. There is
neither a one-hot copy of the target nor a probability of all pixels in memory: the torch form does a block of pixels
after the other, the Triton form keeps them in registers.

Floor, for R = numel(logits) elements of e bytes and targets of b bytes: the forward reads both, Re + (R / K) b bytes
and 8R flops; the backward reads them again and writes the gradient, 2Re + (R / K) b bytes and 12R flops.

Papers: Dice, V-Net, arXiv 1606.04797; focal, Focal Loss for Dense Object Detection, arXiv 1708.02002.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from ._normalization import widen
from ._runtime import Backends, cdiv, jit, next_power_of_2, operator, processor_count, tl
from ._spec import Cost, OpSpec, Sampler, size_in_bytes

BLOCK = 1 << 17  # elements of logits that the torch form has at hand: some of their size stay in the cache
MAX_TRITON_CLASSES = 1024  # a program has all classes of a pixel in registers


class Terms(NamedTuple):
    """What the loss is made of: the weights of its terms, and their own settings."""

    cross_entropy: float
    dice: float
    focal: float
    gamma: float
    label_smoothing: float
    smooth: float
    batch_dice: bool


def segmentation_loss_reference(
    logits: Float[Tensor, "batch classes *grid"],
    target: Integer[Tensor, "batch *grid"],
    class_weight: Float[Tensor, " classes"] | None,
    ignore_index: int,
    terms: Terms,
) -> Float[Tensor, ""]:
    log_p = torch.log_softmax(widen(logits).flatten(2), 1)
    target, classes = target.flatten(1).long(), logits.shape[1]
    counts = target != ignore_index
    _check_target(target, counts, classes)
    weight = log_p.new_ones(classes) if class_weight is None else class_weight.detach().to(log_p)
    one_hot = torch.nn.functional.one_hot(target.masked_fill(~counts, 0), classes).mT.to(log_p)
    one_hot, log_p = one_hot * counts.unsqueeze(1), log_p.masked_fill(~counts.unsqueeze(1), 0.0)
    p = log_p.exp() * counts.unsqueeze(1)
    weights = one_hot * weight[:, None]
    # 1 - p_t without cancellation.
    other = torch.where(one_hot.bool(), -torch.expm1(log_p), 0.0)
    total = weights.sum()
    statistics = _Statistics(
        intersection=(p * one_hot).sum(2),
        predicted=p.sum(2),
        true=one_hot.sum(2),
        sums=torch.stack(
            (
                -(weights * log_p).sum(),
                -(weight[:, None] * log_p).sum(),
                -(weights * other**terms.gamma * log_p).sum(),
                total,
            )
        ).unsqueeze(0),
    )
    return _loss(statistics, class_weight, terms)


class _Statistics(NamedTuple):
    """Sums over the pixels. (batch, classes): of p_k [t = k], of p_k, of [t = k]. (batch, 4): of w_t (-log p_t), of
    w_k (-log p_k) over all classes, of w_t (1 - p_t)^gamma (-log p_t), of w_t."""

    intersection: Tensor
    predicted: Tensor
    true: Tensor
    sums: Tensor


def _loss(statistics: _Statistics, class_weight: Tensor | None, terms: Terms) -> Tensor:
    """The loss, zero where every pixel is ignored."""
    intersection, predicted, true, sums = statistics
    classes = true.shape[1]
    nll, smoothed, focal, total = sums.sum(0).unbind()
    total = torch.where(total > 0, total, 1.0)
    e = terms.label_smoothing
    loss = terms.cross_entropy * ((1 - e) * nll + (e / classes) * smoothed) + terms.focal * focal
    loss = loss / total
    if not terms.dice:
        return loss
    if terms.batch_dice:
        intersection, predicted, true = (part.sum(0, keepdim=True) for part in (intersection, predicted, true))
    score = ((2 * intersection + terms.smooth) / (predicted + true + terms.smooth)).mean(0)
    weight = torch.ones_like(score) if class_weight is None else class_weight.detach().to(score)
    return loss + terms.dice * (1 - (score * weight).sum() / weight.sum())


def _check_target(target: Tensor, counts: Tensor, classes: int) -> None:
    """On the CPU only, where looking at values does not make the program wait."""
    if target.device.type == "cpu":
        wrong = counts & ((target < 0) | (target >= classes))
        if wrong.any():
            raise ValueError(
                f"segmentation_loss: target holds {target[wrong][0].item()}, but logits have {classes} classes; mark "
                "pixels without a class by ignore_index"
            )


# --- torch ------------------------------------------------------------------------------------------------------------


def _wide(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


def _statistics_fake(
    logits: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, gamma: float, smoothing: bool,
    dice: bool, focal: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    def new(columns: int) -> Tensor:
        return logits.new_empty((logits.shape[0], columns), dtype=_wide(logits))

    return *(new(logits.shape[1]) for _ in range(3)), new(4)


def _blocks(logits: Tensor) -> list[slice]:
    """Pixels, so many at once."""
    batch, classes, pixels = logits.shape
    length = max(1, BLOCK // (batch * classes))
    return [slice(start, min(pixels, start + length)) for start in range(0, pixels, length)]


def _load(logits: Tensor, target: Tensor, pixels: slice, ignore_index: int, wide: torch.dtype):
    """The log probabilities of a block of pixels, their classes (0 where ignored), and which are not ignored."""
    t = target[:, pixels].long()
    ignored = t == ignore_index
    _check_target(t, ~ignored, logits.shape[1])
    z = logits[:, :, pixels].to(wide)
    if ignored.any():
        t, z = t.masked_fill(ignored, 0), z.masked_fill(ignored.unsqueeze(1), 0.0)
    return torch.log_softmax(z, 1), t, (~ignored).to(wide)


def _of_target(values: Tensor, t: Tensor) -> Tensor:
    return values.gather(1, t.unsqueeze(1)).squeeze(1)


# Custom ops, so that a compiler does not unroll the blocks, and keeps none of their intermediate results.
@operator("segmentation_statistics_torch", fake=_statistics_fake)
def _statistics_torch(
    logits: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, gamma: float, smoothing: bool,
    dice: bool, focal: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    found = _statistics_fake(logits, target, weight, ignore_index, gamma, smoothing, dice, focal)
    intersection, predicted, true, sums = (part.zero_() for part in found)
    for pixels in _blocks(logits):
        log_p, t, counts = _load(logits, target, pixels, ignore_index, sums.dtype)
        log_p_t = _of_target(log_p, t)
        w_t = counts if weight is None else weight[t] * counts
        sums[:, 0] -= (w_t * log_p_t).sum(1)
        sums[:, 3] += w_t.sum(1)
        if smoothing:
            all_classes = log_p.sum(1) if weight is None else torch.einsum("bkn,k->bn", log_p, weight)
            sums[:, 1] -= (all_classes * counts).sum(1)
        if focal:
            sums[:, 2] -= (w_t * (-torch.expm1(log_p_t)).pow(gamma) * log_p_t).sum(1)
        if dice:
            intersection.scatter_add_(1, t, log_p_t.exp() * counts)
            true.scatter_add_(1, t, counts)
            predicted += (log_p.exp_() @ counts.unsqueeze(2)).squeeze(2)
    return intersection, predicted, true, sums


def _backward_fake(
    grad_intersection: Tensor, grad_predicted: Tensor, grad_sums: Tensor, logits: Tensor, target: Tensor,
    weight: Tensor | None, ignore_index: int, gamma: float, smoothing: bool, dice: bool, focal: bool,
) -> Tensor:  # fmt: skip
    return torch.empty_like(logits)


@operator("segmentation_statistics_torch_backward", fake=_backward_fake)
def _statistics_torch_backward(
    grad_intersection: Tensor, grad_predicted: Tensor, grad_sums: Tensor, logits: Tensor, target: Tensor,
    weight: Tensor | None, ignore_index: int, gamma: float, smoothing: bool, dice: bool, focal: bool,
) -> Tensor:  # fmt: skip
    grad_logits = torch.empty_like(logits)
    of_nll, of_smoothed, of_focal, _ = grad_sums.unsqueeze(2).unbind(1)
    for pixels in _blocks(logits):
        p, t, counts = _load(logits, target, pixels, ignore_index, grad_sums.dtype)
        log_p_t = _of_target(p, t)
        p = p.exp_()
        w_t = counts if weight is None else weight[t] * counts
        # The gradient is p_k times `of_p`, less `of_hit` for the class of the target, and a constant of the smoothing.
        of_hit = w_t * of_nll
        if focal:
            other = -torch.expm1(log_p_t)
            ratio = torch.where(other < 1e-3, 1 + other / 2, -log_p_t / other)
            of_hit = of_hit + w_t * of_focal * other.pow(gamma) * (1 + gamma * log_p_t.exp() * ratio)
        of_p = of_hit
        if smoothing:
            of_p = of_p + of_smoothed * counts * (len(grad_predicted[0]) if weight is None else weight.sum())
        if dice:
            gained = log_p_t.exp() * grad_intersection.gather(1, t) * counts
            of_hit = of_hit - gained
            of_p = of_p - gained - (grad_predicted.unsqueeze(1) @ p).squeeze(1) * counts
            grad = p * torch.addcmul(of_p.unsqueeze(1), grad_predicted.unsqueeze(2), counts.unsqueeze(1))
        else:
            grad = p.mul_(of_p.unsqueeze(1))
        grad.scatter_add_(1, t.unsqueeze(1), -of_hit.unsqueeze(1))
        if smoothing:
            share = of_smoothed * counts
            grad -= share.unsqueeze(1) if weight is None else share.unsqueeze(1) * weight[:, None]
        grad_logits[:, :, pixels] = grad
    return grad_logits


def _save_for_backward(ctx, inputs, output):
    logits, target, weight, *ctx.settings = inputs
    ctx.save_for_backward(logits, target, weight)


def _gradient_by(backward):
    def gradient(ctx, grad_intersection, grad_predicted, grad_true, grad_sums):
        grads = (grad_intersection, grad_predicted, grad_sums)
        return backward(*grads, *ctx.saved_tensors, *ctx.settings), *(None for _ in range(7))

    return gradient


_statistics_torch.register_autograd(_gradient_by(_statistics_torch_backward), setup_context=_save_for_backward)


def _run(op, logits: Tensor, target: Tensor, class_weight: Tensor | None, ignore_index: int, terms: Terms) -> Tensor:
    weight = None if class_weight is None else class_weight.detach().to(_wide(logits)).contiguous()
    found = op(
        logits.flatten(2), target.flatten(1), weight, ignore_index, terms.gamma, terms.label_smoothing > 0,
        terms.dice != 0, terms.focal != 0,
    )  # fmt: skip
    return _loss(_Statistics(*found), class_weight, terms)


def segmentation_loss_torch(
    logits: Float[Tensor, "batch classes *grid"],
    target: Integer[Tensor, "batch *grid"],
    class_weight: Float[Tensor, " classes"] | None,
    ignore_index: int,
    terms: Terms,
) -> Float[Tensor, ""]:
    return _run(_statistics_torch, logits, target, class_weight, ignore_index, terms)


# --- Triton -----------------------------------------------------------------------------------------------------------


@jit
def _load_pixels(
    logits_ptr, target_ptr, weight, sample, block, classes, pixels, ignore_index, batch_stride, class_stride,
    pixel_stride, CLASSES: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Of a block of pixels: probabilities and their logarithms (classes, pixels), 0 where ignored; who is the target;
    and for the target the log probability, NaN for one that is no class, 1 - p, the weight, and which pixels count."""
    pixel = tl.cast(block, tl.int64) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.arange(0, CLASSES)
    t = tl.load(target_ptr + sample * pixels + pixel, mask=pixel < pixels, other=0).to(tl.int64)
    counts = (pixel < pixels) & (t != ignore_index)
    at = logits_ptr + sample * batch_stride + tl.cast(channel, tl.int64)[:, None] * class_stride
    inside = (channel < classes)[:, None] & counts[None, :]
    z = tl.load(at + pixel[None, :] * pixel_stride, mask=inside, other=0.0).to(tl.float32)
    z = tl.where((channel < classes)[:, None], z, float("-inf"))

    log_p = z - tl.max(z, axis=0)[None, :]
    log_p -= tl.log(tl.sum(tl.exp(log_p), axis=0))[None, :]
    p = tl.where(inside, tl.exp(log_p), 0.0)
    hit = (channel[:, None] == t[None, :]) & inside
    log_p_t = tl.sum(tl.where(hit, log_p, 0.0), axis=0)
    log_p_t = tl.where(counts & ((t < 0) | (t >= classes)), float("nan"), log_p_t)
    other = tl.sum(tl.where(hit, 0.0, p), axis=0)  # without the cancellation of 1 - p
    w_t = tl.sum(tl.where(hit, weight[:, None], 0.0), axis=0)
    return pixel, inside, counts, log_p, p, hit, log_p_t, other, w_t


@jit
def _power(base, exponent):
    """base^exponent for base >= 0."""
    positive = tl.exp2(exponent * tl.log2(tl.where(base > 0, base, 1.0)))
    return tl.where((base > 0) | (exponent == 0), positive, 0.0)


@jit
def _load_weight(weight_ptr, channel, classes, HAS_WEIGHT: tl.constexpr):
    weight = tl.where(channel < classes, 1.0, 0.0)
    if HAS_WEIGHT:
        weight = tl.load(weight_ptr + channel, mask=channel < classes, other=0.0)
    return weight


@jit(do_not_specialize=("pixels",))
def _forward_kernel(
    logits_ptr, target_ptr, weight_ptr, of_classes_ptr, sums_ptr, classes, pixels, ignore_index, gamma,
    batch_stride, class_stride, pixel_stride, HAS_WEIGHT: tl.constexpr, SMOOTHING: tl.constexpr, DICE: tl.constexpr,
    FOCAL: tl.constexpr, CLASSES: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    sample = tl.cast(tl.program_id(1), tl.int64)
    place = sample * tl.num_programs(0) + tl.program_id(0)
    channel = tl.arange(0, CLASSES)
    weight = _load_weight(weight_ptr, channel, classes, HAS_WEIGHT)
    intersection = tl.zeros([CLASSES], tl.float32)
    predicted = tl.zeros([CLASSES], tl.float32)
    true = tl.zeros([CLASSES], tl.float32)
    nll = tl.zeros([PIXELS], tl.float32)
    smoothed = tl.zeros([PIXELS], tl.float32)
    focal = tl.zeros([PIXELS], tl.float32)
    total = tl.zeros([PIXELS], tl.float32)

    for block in range(tl.program_id(0), tl.cdiv(pixels, PIXELS), tl.num_programs(0)):
        _, inside, _, log_p, p, hit, log_p_t, other, w_t = _load_pixels(
            logits_ptr, target_ptr, weight, sample, block, classes, pixels, ignore_index, batch_stride, class_stride,
            pixel_stride, CLASSES, PIXELS,
        )  # fmt: skip
        nll -= w_t * log_p_t
        total += w_t
        if SMOOTHING:
            smoothed -= tl.sum(tl.where(inside, log_p, 0.0) * weight[:, None], axis=0)
        if FOCAL:
            focal -= w_t * _power(other, gamma) * log_p_t
        if DICE:
            intersection += tl.sum(tl.where(hit, p, 0.0), axis=1)
            predicted += tl.sum(p, axis=1)
            true += tl.sum(tl.where(hit, 1.0, 0.0), axis=1)

    of_classes_ptr += place * 3 * classes + channel
    tl.store(of_classes_ptr, intersection, mask=channel < classes)
    tl.store(of_classes_ptr + classes, predicted, mask=channel < classes)
    tl.store(of_classes_ptr + 2 * classes, true, mask=channel < classes)
    sums_ptr += place * 4
    tl.store(sums_ptr, tl.sum(nll, axis=0))
    tl.store(sums_ptr + 1, tl.sum(smoothed, axis=0))
    tl.store(sums_ptr + 2, tl.sum(focal, axis=0))
    tl.store(sums_ptr + 3, tl.sum(total, axis=0))


@jit(do_not_specialize=("pixels",))
def _backward_kernel(
    grad_intersection_ptr, grad_predicted_ptr, grad_sums_ptr, logits_ptr, target_ptr, weight_ptr, grad_logits_ptr,
    classes, pixels, ignore_index, gamma, batch_stride, class_stride, pixel_stride,
    grad_batch_stride, grad_class_stride, grad_pixel_stride,
    HAS_WEIGHT: tl.constexpr, SMOOTHING: tl.constexpr, DICE: tl.constexpr, FOCAL: tl.constexpr,
    CLASSES: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    sample = tl.cast(tl.program_id(1), tl.int64)
    channel = tl.arange(0, CLASSES)
    weight = _load_weight(weight_ptr, channel, classes, HAS_WEIGHT)
    pixel, _, counts, _, p, hit, log_p_t, other, w_t = _load_pixels(
        logits_ptr, target_ptr, weight, sample, tl.program_id(0), classes, pixels, ignore_index, batch_stride,
        class_stride, pixel_stride, CLASSES, PIXELS,
    )  # fmt: skip
    of_hit = w_t * tl.load(grad_sums_ptr + sample * 4)
    if FOCAL:
        ratio = tl.where(other < 1e-3, 1.0 + other * 0.5, -log_p_t / tl.where(other > 0, other, 1.0))
        slope = _power(other, gamma) * (1.0 + gamma * tl.exp(log_p_t) * ratio)
        of_hit += w_t * tl.load(grad_sums_ptr + sample * 4 + 2) * slope
    grad = p * of_hit[None, :] - tl.where(hit, of_hit[None, :], 0.0)
    if DICE:
        row = sample * classes + channel
        of_intersection = tl.load(grad_intersection_ptr + row, mask=channel < classes, other=0.0)
        of_predicted = tl.load(grad_predicted_ptr + row, mask=channel < classes, other=0.0)
        of_p = tl.where(hit, of_intersection[:, None], 0.0) + of_predicted[:, None]
        grad += p * (of_p - tl.sum(p * of_p, axis=0)[None, :])
    if SMOOTHING:
        of_smoothed = tl.load(grad_sums_ptr + sample * 4 + 1)
        grad += of_smoothed * (p * tl.sum(weight, axis=0) - weight[:, None])
    grad = tl.where(counts[None, :], grad, 0.0)

    at = grad_logits_ptr + sample * grad_batch_stride + tl.cast(channel, tl.int64)[:, None] * grad_class_stride
    inside = (channel < classes)[:, None] & (pixel < pixels)[None, :]
    tl.store(at + pixel[None, :] * grad_pixel_stride, grad.to(grad_logits_ptr.dtype.element_ty), mask=inside)


def _tile(classes: int) -> dict[str, int]:
    """All classes of so many pixels that a program has two thousand elements, and a whole line of memory of each."""
    block = next_power_of_2(classes)
    return {"CLASSES": block, "PIXELS": max(16, 2048 // block), "num_warps": 4 if block <= 128 else 8}


@operator("segmentation_statistics", fake=_statistics_fake)
def _statistics(
    logits: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, gamma: float, smoothing: bool,
    dice: bool, focal: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    batch, classes, pixels = logits.shape
    tile = _tile(classes)
    programs = min(cdiv(pixels, tile["PIXELS"]), cdiv(8 * processor_count(logits.device), batch))
    of_classes = logits.new_empty((batch, programs, 3, classes), dtype=torch.float32)
    sums = logits.new_empty((batch, programs, 4), dtype=torch.float32)
    _forward_kernel[(programs, batch)](
        logits, target.contiguous(), weight, of_classes, sums, classes, pixels, ignore_index, gamma, *logits.stride(),
        HAS_WEIGHT=weight is not None, SMOOTHING=smoothing, DICE=dice, FOCAL=focal, **tile,
    )  # fmt: skip
    return *(part.clone() for part in of_classes.sum(1).unbind(1)), sums.sum(1)


@operator("segmentation_statistics_backward", fake=_backward_fake)
def _statistics_backward(
    grad_intersection: Tensor, grad_predicted: Tensor, grad_sums: Tensor, logits: Tensor, target: Tensor,
    weight: Tensor | None, ignore_index: int, gamma: float, smoothing: bool, dice: bool, focal: bool,
) -> Tensor:  # fmt: skip
    batch, classes, pixels = logits.shape
    grad_logits, tile = torch.empty_like(logits), _tile(classes)
    _backward_kernel[(cdiv(pixels, tile["PIXELS"]), batch)](
        grad_intersection.contiguous(), grad_predicted.contiguous(), grad_sums.contiguous(), logits,
        target.contiguous(), weight, grad_logits, classes, pixels, ignore_index, gamma, *logits.stride(),
        *grad_logits.stride(), HAS_WEIGHT=weight is not None, SMOOTHING=smoothing, DICE=dice, FOCAL=focal, **tile,
    )  # fmt: skip
    return grad_logits


_statistics.register_autograd(_gradient_by(_statistics_backward), setup_context=_save_for_backward)


def _segmentation_loss_triton(
    logits: Tensor, target: Tensor, class_weight: Tensor | None, ignore_index: int, terms: Terms
) -> Tensor:
    return _run(_statistics, logits, target, class_weight, ignore_index, terms)


def _triton_refuses(logits: Tensor, *_) -> str | None:
    if logits.shape[1] > MAX_TRITON_CLASSES:
        return f"{logits.shape[1]} classes are more than {MAX_TRITON_CLASSES}"
    return None


# --- the operation ----------------------------------------------------------------------------------------------------

_BACKENDS = Backends(
    "segmentation_loss",
    segmentation_loss_reference,
    segmentation_loss_torch,
    _segmentation_loss_triton,
    _triton_refuses,
)


def segmentation_loss(
    logits: Float[Tensor, "batch classes *grid"],
    target: Integer[Tensor, "batch *grid"],
    class_weight: Float[Tensor, " classes"] | None = None,
    ignore_index: int = -100,
    *,
    cross_entropy: float = 1.0,
    dice: float = 1.0,
    focal: float = 0.0,
    gamma: float = 2.0,
    label_smoothing: float = 0.0,
    smooth: float = 1e-5,
    batch_dice: bool = False,
    backend: str | None = None,
) -> Float[Tensor, ""]:
    """Weighted sum of cross entropy, soft Dice and focal loss of class logits against integer targets, in float32.

    logits (batch, classes, *grid), target (batch, *grid) of an integer dtype, class_weight (classes,) or None; pixels
    whose target is `ignore_index` take no part, and where all are ignored the loss is 0. `cross_entropy`, `dice` and
    `focal` weigh the terms. Cross entropy is that of `torch.nn.functional.cross_entropy` with `label_smoothing`; focal
    has the factor (1 - p)^gamma; Dice is 1 minus the mean over classes of (2 |p t| + smooth) / (|p| + |t| + smooth), of
    each sample or, for `batch_dice`, of the whole batch; class weights weigh that mean, so 0 leaves out a background.
    The gradient is that of the logits alone. Raises ValueError if shapes or settings do not fit, for a target on the
    CPU that is no class, and for a backend ("reference", "torch", "triton") that cannot serve the call; on a GPU a
    target that is no class makes the loss NaN.

    V-Net, arXiv 1606.04797; Focal Loss for Dense Object Detection, arXiv 1708.02002.
    """
    if logits.ndim < 3 or logits.shape[1] < 2 or not logits.numel():
        raise ValueError(
            f"segmentation_loss: logits must be (batch, classes, *grid) with two classes or more and at least one "
            f"pixel; they are {tuple(logits.shape)}"
        )
    if target.shape != (logits.shape[0], *logits.shape[2:]) or target.is_floating_point():
        raise ValueError(
            f"segmentation_loss: target is {tuple(target.shape)} {target.dtype}; for logits {tuple(logits.shape)} it "
            f"must be integers of shape {(logits.shape[0], *logits.shape[2:])}"
        )
    if class_weight is not None and class_weight.shape != logits.shape[1:2]:
        raise ValueError(
            f"segmentation_loss: class_weight is {tuple(class_weight.shape)}; logits have {logits.shape[1]} classes"
        )
    if not 0 <= label_smoothing < 1 or gamma < 0 or smooth <= 0:
        raise ValueError(
            f"segmentation_loss: label_smoothing={label_smoothing}, gamma={gamma}, smooth={smooth}; they must be in "
            "[0, 1), at least 0, and above 0"
        )
    terms = Terms(cross_entropy, dice, focal, gamma, label_smoothing, smooth, batch_dice)
    run = _BACKENDS.select(backend, logits, target, class_weight)
    return run(logits, target, class_weight, ignore_index, terms)


def _floor(logits: Tensor, target: Tensor, **_) -> tuple[Cost, Cost]:
    moved, elements = size_in_bytes(logits, target), logits.numel()
    return Cost(moved, 8 * elements), Cost(moved + size_in_bytes(logits), 12 * elements)


def _inputs(
    random: Sampler, batch: int, classes: int, *grid: int, weighted: bool = False, ignored: float = 0.0, **terms
) -> dict:
    target = random.integers(batch, *grid, high=classes)
    return {
        "logits": random.normal(batch, classes, *grid),
        "target": torch.where(random.boolean(batch, *grid, probability=ignored), 255, target),
        "class_weight": random.uniform(classes, low=0.5, high=2.0) if weighted else None,
        "ignore_index": 255,
        **terms,
    }


SPEC = OpSpec(
    function=segmentation_loss,
    backends=_BACKENDS,
    cases={
        "image": lambda random: _inputs(
            random, 2, 3, 5, 7, weighted=True, ignored=0.2, focal=0.5, label_smoothing=0.1, gamma=1.5
        ),
        "batch Dice of a volume": lambda random: _inputs(
            random, 2, 5, 3, 2, 3, ignored=0.3, cross_entropy=0.0, batch_dice=True, smooth=1.0
        ),
        "cross entropy of a sequence": lambda random: _inputs(random, 1, 17, 13, dice=0.0, label_smoothing=0.1),
        "focal, one pixel": lambda random: _inputs(random, 1, 2, 1, cross_entropy=0.0, dice=0.0, focal=2.0, gamma=0.5),
        "sure": lambda random: {
            **_inputs(random, 1, 3, 11, focal=1.0, gamma=0.0),
            "logits": random.normal(1, 3, 11, scale=30.0),
        },
        "all ignored": lambda random: _inputs(random, 1, 3, 5, ignored=1.0, focal=1.0),
    },
    large_cases={
        "several blocks": lambda random: _inputs(random, 2, 19, 67, 71, weighted=True, ignored=0.1, focal=1.0),
    },
    benchmarks={
        "4x21x256x256": lambda random: _inputs(random, 4, 21, 256, 256, ignored=0.05),
        "1x4x64x128x128, all terms": lambda random: _inputs(
            random, 1, 4, 64, 128, 128, weighted=True, focal=1.0, label_smoothing=0.1
        ),
    },
    differentiable=("logits",),
    floor=_floor,
    paper="V-Net, arXiv 1606.04797; Focal Loss for Dense Object Detection, arXiv 1708.02002",
    float32=("class_weight",),
)
