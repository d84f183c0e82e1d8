"""What the forecasters share: the normalization of a window by its own statistics, and checks of input and mixers."""

from jaxtyping import Bool, Float
from torch import Tensor

from ...core.errors import QuintetError
from ...core.mixer import Mixer

EPS = 1e-5


def normalize_window(
    values: Float[Tensor, "batch time channels"], observed: Bool[Tensor, "batch time channels"] | None
) -> tuple[Float[Tensor, "batch time channels"], Float[Tensor, "batch 1 channels"], Float[Tensor, "batch 1 channels"]]:
    """(x - mean) / std of each window and channel, with std = sqrt(var + 1e-5); also mean and std.

    Statistics are of what was observed; what was not stands at 0, the window's own mean. Papers: "Non-stationary
    Transformers", arXiv 2205.14415, and "Reversible Instance Normalization", OpenReview cGDAkQo1C0p.
    """
    if observed is None:
        mean = values.mean(1, keepdim=True)
        centred = values - mean
        std = (centred.square().mean(1, keepdim=True) + EPS).sqrt()
        return centred / std, mean, std
    count = observed.sum(1, keepdim=True).clamp(min=1)
    mean = values.masked_fill(~observed, 0.0).sum(1, keepdim=True) / count
    centred = (values - mean).masked_fill(~observed, 0.0)
    std = (centred.square().sum(1, keepdim=True) / count + EPS).sqrt()
    return centred / std, mean, std


def complete(*values: Tensor) -> bool:
    """Whether no number is missing. The sum tells, at a fraction of the cost of asking each number."""
    return all(bool(part.sum().isfinite()) for part in values)


def window_std(values: Float[Tensor, "batch time channels"]) -> Float[Tensor, "batch 1 channels"]:
    """The standard deviation by which `normalize_window` divides windows with NaN where nothing was observed."""
    observed = values.isfinite()
    return normalize_window(values.nan_to_num(0.0), observed)[2]


def restore_window(
    outputs: Float[Tensor, "batch horizon channels outputs"],
    mean: Float[Tensor, "batch 1 channels"],
    std: Float[Tensor, "batch 1 channels"],
) -> Float[Tensor, "batch horizon channels outputs"]:
    """Undoes `normalize_window` for forecasts."""
    return outputs * std.unsqueeze(-1) + mean.unsqueeze(-1)


def check_context(values: Tensor, context: int) -> None:
    """Raises QuintetError where windows do not have the axes or the length a model takes."""
    if values.dim() != 3 or values.shape[1] != context:
        raise QuintetError(
            f"this model takes windows shaped (batch, {context}, channels); got {tuple(values.shape)}; another length "
            "is set by context"
        )


def check_channels(values: Tensor, channels: int) -> None:
    """Raises QuintetError where series have another number of channels than a model was built for."""
    if values.shape[-1] != channels:
        raise QuintetError(f"this model takes {channels} channels; got values shaped {tuple(values.shape)}")


def check_sequence_mixer(mixer: Mixer) -> None:
    """Raises QuintetError where a mixer does not take sequences."""
    if 1 not in mixer.grid_ranks:
        ranks = " or ".join(map(str, sorted(mixer.grid_ranks)))
        raise QuintetError(
            f"this {type(mixer).__name__} takes tokens on {ranks} grid axes; a forecaster's are a sequence: give it "
            "rank=1, or another"
        )


def check_num_heads(num_heads: int | None, mixer: object) -> None:
    """Raises QuintetError where heads are given beside a mixer that has its own."""
    if mixer is not None and num_heads is not None:
        raise QuintetError("num_heads is an argument of softmax attention; where a mixer is given, set it there")
