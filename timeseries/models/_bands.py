"""What TiRex-2 does around its network: series with a trend are forecast by their differences, and bands are widened.

The constants are those of the published forecaster (https://github.com/NX-AI/tirex-2, Apache-2.0). Paper: TiRex-2,
arXiv 2607.01204.
"""

from jaxtyping import Bool, Float
from torch import Tensor, arange, where

TREND_RISE = 1.5  # least rise of the fitted line over the context, in standard deviations
TREND_FIT = 0.87  # least share of the variance that the line explains
TREND_STEPS = 4  # least number of observed steps
DIFFERENCED_SCALE, DIFFERENCED_EXPONENT = 1.68, 0.51
PLAIN_SCALE, PLAIN_EXPONENT = 0.90, 0.52


def has_trend(
    values: Float[Tensor, "batch time channels"], observed: Bool[Tensor, "batch time channels"]
) -> Bool[Tensor, "batch channels"]:
    """Whether a line fitted by least squares rises, or falls, far enough and explains enough of a series."""
    if values.device.type == "mps":  # which has no float64
        return has_trend(values.cpu(), observed.cpu()).to(values.device)
    steps, weight = values.shape[1], observed.double()
    count = weight.sum(1)
    time = arange(steps, device=values.device, dtype=weight.dtype)[None, :, None]
    centred = []
    for part in (time, values.double().masked_fill(~observed, 0.0)):
        centred.append((part - (part * weight).sum(1, keepdim=True) / count.clamp(min=1).unsqueeze(1)) * weight)
    x, y = centred
    of_time, of_both, of_values = (x * x).sum(1), (x * y).sum(1), (y * y).sum(1)
    std = (of_values / (count - 1).clamp(min=1)).sqrt()
    enough = (count >= TREND_STEPS) & (std >= 1e-12)
    rise = steps * of_both.abs() / (of_time.clamp(min=1e-12) * std.clamp(min=1e-12))
    fit = of_both.square() / (of_time * of_values).clamp(min=1e-300)
    return enough & (rise >= TREND_RISE) & (fit >= TREND_FIT)


def difference(
    values: Float[Tensor, "batch time channels"], observed: Bool[Tensor, "batch time channels"]
) -> tuple[Float[Tensor, "batch time channels"], Bool[Tensor, "batch time channels"]]:
    """Each step less the one before it, observed where both are; the first is 0."""
    changed, known = values.clone(), observed.clone()
    changed[:, 0], known[:, 0] = 0.0, True
    changed[:, 1:] = values[:, 1:] - values[:, :-1]
    known[:, 1:] = observed[:, 1:] & observed[:, :-1]
    return changed, known


def last_observed(
    values: Float[Tensor, "batch time channels"], observed: Bool[Tensor, "batch time channels"]
) -> Float[Tensor, "batch channels"]:
    """The last observed step, 0 where there is none."""
    place = (observed * arange(1, values.shape[1] + 1, device=values.device)[None, :, None]).argmax(1, keepdim=True)
    return values.masked_fill(~observed, 0.0).gather(1, place).squeeze(1)


def widen(forecast: Float[Tensor, "batch horizon channels outputs"]) -> Float[Tensor, "batch horizon channels outputs"]:
    """Quantiles further from the median the later the step."""
    median = _median(forecast)
    return median + PLAIN_SCALE**0.5 * _growth(forecast, PLAIN_EXPONENT) * (forecast - median)


def integrate(
    forecast: Float[Tensor, "batch horizon channels outputs"], last: Float[Tensor, "batch channels"]
) -> Float[Tensor, "batch horizon channels outputs"]:
    """Levels from forecast differences: medians add up, offsets from them as independent errors do."""
    median = _median(forecast)
    offset = forecast - median
    band = offset.sum(1, keepdim=True).sign() * offset.square().cumsum(1).sqrt()
    band = DIFFERENCED_SCALE**0.5 * _growth(forecast, DIFFERENCED_EXPONENT) * band
    return median.cumsum(1) + band + last[:, None, :, None]


def restore_levels(
    forecast: Float[Tensor, "batch horizon channels outputs"],
    last: Float[Tensor, "batch channels"],
    differenced: Bool[Tensor, "batch channels"],
) -> Float[Tensor, "batch horizon channels outputs"]:
    """`integrate` for channels that were differenced, `widen` for the others."""
    return where(differenced[:, None, :, None], integrate(forecast, last), widen(forecast))


def _median(forecast: Tensor) -> Tensor:
    middle = forecast.shape[-1] // 2
    return forecast[..., middle : middle + 1]


def _growth(forecast: Tensor, exponent: float) -> Tensor:
    steps = arange(1, forecast.shape[1] + 1, device=forecast.device, dtype=forecast.dtype)
    return steps[None, :, None, None] ** (exponent - 0.5)
