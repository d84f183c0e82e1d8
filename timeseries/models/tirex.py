"""TiRex: patches of a series read by sLSTM blocks, which forecast quantiles of every next patch.

Paper: "TiRex: Zero-Shot Forecasting Across Long and Short Horizons with Enhanced In-Context Learning", arXiv
2505.23719.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ...core.blocks.encoder import Encoder
from ...core.errors import QuintetError
from ...core.feedforward import SwiGLU
from ...core.mixer import Mixer
from ...core.norm import RMSNorm
from ...core.ssm import SLSTM
from ...core.weights.pretrained import Layout
from ...core.weights.registry import register_model
from .. import pretrained
from ._network import ForecastNetwork
from ._patches import ResidualMlp, hide_patches, pad_time, patch_features
from ._shared import check_num_heads, check_sequence_mixer

DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class Statistics(NamedTuple):
    """Mean and standard deviation of each channel of a context, by which all that follows is scaled."""

    mean: Float[Tensor, "batch 1 channels"]
    std: Float[Tensor, "batch 1 channels"]


class TiRexState(NamedTuple):
    """What TiRex remembers of a stream: statistics of its beginning, the states of the blocks after the last whole
    patch and their output there, and the steps since (NaN where unobserved)."""

    statistics: Statistics
    blocks: tuple[Any, ...]
    last: Float[Tensor, "series 1 dim"]
    pending: Float[Tensor, "batch steps channels"]


def context_statistics(
    values: Float[Tensor, "batch time channels"], observed: Bool[Tensor, "batch time channels"]
) -> Statistics:
    """Mean and population standard deviation of what was observed.

    A constant has |mean| + 1e-5 for its deviation; of nothing the mean is 0 and the deviation 1.
    """
    count = observed.sum(1, keepdim=True)
    some = count.clamp(min=1)
    mean = values.masked_fill(~observed, 0.0).sum(1, keepdim=True) / some
    variance = (values - mean).masked_fill(~observed, 0.0).square().sum(1, keepdim=True) / some
    std = torch.where(variance == 0, mean.abs() + 1e-5, variance.sqrt())
    return Statistics(mean, std.masked_fill(count == 0, 1.0))


class TiRex(ForecastNetwork):
    """TiRex: head(Encoder(embedding of [values, observed] of each patch)), each channel scaled by its context.

    The output at a patch is the quantiles of the next. Further patches of the horizon are forecast by reading patches
    of which nothing is observed: all in one pass, since blocks that read from left to right give the same one by one.
    The context is filled up from the left to whole patches. A mixer that also reads backwards is trained on the horizon
    alone; one that reads forwards on every next patch, with runs of patches hidden from it.

    Args:
        context: steps of a window; any number up to `max_context` can be read later.
        horizon: steps to forecast.
        outputs: 1 or the number of `levels`, which say what is forecast.
        levels: quantiles to forecast.
        patch_size: steps in a patch.
        dim: width of the tokens.
        depth: number of blocks.
        num_heads: heads of the sLSTM; None means 4. For another mixer set its own.
        mixer: factory `SomeMixer(dim)` in place of the sLSTM.
        hidden_dim: hidden width of the layers into and out of patches; None means 4 * dim.
        max_context: steps it was, or is to be, trained to read at most.
        padding: "patch" fills the context up to whole patches, "context" to `max_context` steps, as published.
        mask_rate: highest share of patches hidden in training.
        mask_length: most consecutive patches hidden in training.

    Raises QuintetError for sizes that do not fit, a context or horizon beyond `max_context`, and a calendar.
    """

    head_keys: ClassVar[tuple[str, ...]] = ("head.fc2.weight", "head.fc2.bias", "head.skip.weight", "head.skip.bias")
    layouts: ClassVar[tuple[Layout, ...]] = (pretrained.TIREX,)

    def __init__(
        self,
        context: int = 512,
        horizon: int = 64,
        outputs: int = 1,
        levels: Sequence[float] = DECILES,
        patch_size: int = 32,
        dim: int = 512,
        depth: int = 12,
        num_heads: int | None = None,
        mixer: Callable[[int], Mixer] | None = None,
        hidden_dim: int | None = None,
        max_context: int = 2048,
        padding: Literal["patch", "context"] = "patch",
        mask_rate: float = 0.25,
        mask_length: int = 5,
    ) -> None:
        super().__init__()
        check_num_heads(num_heads, mixer)
        if outputs not in (1, len(levels)):
            raise QuintetError(f"TiRex forecasts the quantiles {', '.join(map(str, levels))}; got outputs={outputs}")
        if max_context % patch_size:
            raise QuintetError(f"max_context={max_context} is no whole number of patches of patch_size={patch_size}")
        if padding not in ("patch", "context"):
            raise QuintetError(f"TiRex's padding is patch or context; got {padding!r}")
        if not 0 <= mask_rate <= 1 or mask_length < 1:
            raise QuintetError(
                f"mask_rate={mask_rate} is a share and mask_length={mask_length} a number of patches from 1"
            )
        self.context, self.horizon, self.levels = context, horizon, tuple(levels)
        self.patch_size, self.max_context, self.padding = patch_size, max_context, padding
        self.mask_rate, self.mask_length = mask_rate, mask_length
        self.max_horizon = max_context
        self._check_length("context", context)
        self._check_length("horizon", horizon)
        mixer = mixer or partial(SLSTM, num_heads=num_heads or 4, convolution_width=0, norm_eps=1e-6)
        hidden_dim = hidden_dim or 4 * dim
        self.embedding = ResidualMlp(2 * patch_size, hidden_dim, dim)
        self.encoder = Encoder(dim, depth, mixer, partial(SwiGLU, multiple_of=64), norm=RMSNorm)
        self.head = ResidualMlp(dim, hidden_dim, len(levels) * patch_size)
        check_sequence_mixer(self.encoder.blocks[0].mixer)
        self.causal = all(block.mixer.causal for block in self.encoder.blocks)

    @classmethod
    def arguments_from(cls, path: Path) -> dict[str, Any]:
        """Constructor arguments that say how large the network in a file is; none where the file does not say."""
        return pretrained.tirex_arguments(path)

    # Forecasts

    def forward(
        self,
        values: Float[Tensor, "batch time channels"],
        observed: Bool[Tensor, "batch time channels"] | None = None,
        calendar: Float[Tensor, "batch time features"] | None = None,
        horizon: int | None = None,
    ) -> Float[Tensor, "batch horizon channels outputs"]:
        """Forecasts `horizon` steps (None: those it was built for); `observed` is True where `values` counts."""
        if calendar is not None:
            raise QuintetError("TiRex reads each channel by itself and no calendar; leave data.calendar out")
        horizon = self.horizon if horizon is None else horizon
        self._check_length("context", values.shape[1])
        self._check_length("horizon", horizon)
        observed = torch.ones_like(values, dtype=torch.bool) if observed is None else observed
        statistics = context_statistics(values, observed)
        patches = -(-horizon // self.patch_size)
        scaled = pad_time(
            (values - statistics.mean) / statistics.std,
            observed,
            self._left(values.shape[1]),
            (patches - 1) * self.patch_size,
        )
        x = self.encoder(self._embed(*scaled))[:, -patches:]
        return self._restore(self._forecast(x, values.shape[2])[:, :horizon], statistics)

    def training_forecasts(
        self,
        values: Float[Tensor, "batch time channels"],
        target: Float[Tensor, "batch horizon channels"],
        observed: Bool[Tensor, "batch time channels"] | None = None,
    ) -> tuple[Float[Tensor, "batch steps channels outputs"], Float[Tensor, "batch steps channels"]]:
        """What training compares: forecasts of every next patch of context and horizon with the truth, both scaled.

        The truth is NaN where nothing was observed, as is `target`. In training mode runs of patches are hidden.
        """
        observed = torch.ones_like(values, dtype=torch.bool) if observed is None else observed
        statistics = context_statistics(values, observed)
        known = torch.cat([observed, target.isfinite()], 1)
        whole = (torch.cat([values, target.nan_to_num(0.0)], 1) - statistics.mean) / statistics.std
        whole, known = pad_time(whole, known, -values.shape[1] % self.patch_size, -target.shape[1] % self.patch_size)
        first = -(-values.shape[1] // self.patch_size)  # the patch with which the horizon begins
        shown = known[:, : -self.patch_size]
        if self.training and self.mask_rate:
            shown = hide_patches(shown, self.patch_size, self.mask_rate, self.mask_length)
        if self.causal:
            first = 1
        else:
            inside = torch.arange(shown.shape[1], device=shown.device) < first * self.patch_size
            shown = shown & inside[None, :, None]
        x = self.encoder(self._embed(whole[:, : -self.patch_size], shown))[:, first - 1 :]
        truth = whole.masked_fill(~known, torch.nan)[:, first * self.patch_size :]
        return self._forecast(x, values.shape[2]), truth

    # Streams

    def scan(
        self,
        values: Float[Tensor, "batch time channels"],
        state: TiRexState | None = None,
        observed: Bool[Tensor, "batch time channels"] | None = None,
    ) -> tuple[Float[Tensor, "batch horizon channels outputs"], TiRexState]:
        """Forecasts the steps after `values`, given the state before them; also the state after.

        The first stretch sets the statistics, by which all later ones are scaled, and where patches begin. A patch that
        is not full yet is part of the horizon: its steps count for the forecast when it is. Raises QuintetError where
        the mixer carries no state.
        """
        observed = torch.ones_like(values, dtype=torch.bool) if observed is None else observed
        if state is None:
            self._check_length("context", values.shape[1])
            statistics, blocks, last = context_statistics(values, observed), None, None
            values, observed = pad_time(values, observed, self._left(values.shape[1]), 0)
        else:
            statistics, blocks, last, pending = state
            values, observed = torch.cat([pending, values], 1), torch.cat([pending.isfinite(), observed], 1)
        values = values.masked_fill(~observed, torch.nan)
        whole = values.shape[1] // self.patch_size * self.patch_size
        if whole:
            scaled = (values[:, :whole] - statistics.mean) / statistics.std
            x, blocks = self.encoder.scan(self._embed(scaled, observed[:, :whole]), blocks)
            last = x[:, -1:]
        state = TiRexState(statistics, blocks, last, values[:, whole:])
        return self._ahead(state), state

    def step(
        self,
        values: Float[Tensor, "batch channels"],
        state: TiRexState | None = None,
        observed: Bool[Tensor, "batch channels"] | None = None,
    ) -> tuple[Float[Tensor, "batch horizon channels outputs"], TiRexState]:
        """`scan` for one step."""
        return self.scan(values.unsqueeze(1), state, None if observed is None else observed.unsqueeze(1))

    def _ahead(self, state: TiRexState) -> Tensor:
        """The forecast from a state, which is not changed."""
        (batch, waiting, channels), x = state.pending.shape, state.last
        patches = -(-(waiting + self.horizon) // self.patch_size)
        if patches > 1:
            nothing = x.new_zeros(batch, (patches - 1) * self.patch_size, channels)
            more, _ = self.encoder.scan(self._embed(nothing, torch.zeros_like(nothing, dtype=torch.bool)), state.blocks)
            x = torch.cat([x, more], 1)
        forecast = self._forecast(x, channels)[:, waiting : waiting + self.horizon]
        return self._restore(forecast, state.statistics)

    # Parts

    def _left(self, steps: int) -> int:
        """Unobserved steps to put before a context."""
        return self.max_context - steps if self.padding == "context" else -steps % self.patch_size

    def _embed(self, scaled: Tensor, observed: Tensor) -> Tensor:
        """Tokens (B C, patches, dim)."""
        return self.embedding(patch_features(scaled, observed, self.patch_size).flatten(0, 1))

    def _forecast(self, x: Tensor, channels: int) -> Tensor:
        """Scaled quantiles (B, steps, C, outputs) of the patches after those at which the encoder gave `x`."""
        quantiles = self.head(x).unflatten(-1, (len(self.levels), self.patch_size))
        return quantiles.transpose(2, 3).flatten(1, 2).unflatten(0, (-1, channels)).transpose(1, 2)

    @staticmethod
    def _restore(forecast: Tensor, statistics: Statistics) -> Tensor:
        return forecast * statistics.std.unsqueeze(-1) + statistics.mean.unsqueeze(-1)

    def _check_length(self, name: str, steps: int) -> None:
        if not 1 <= steps <= self.max_context:
            raise QuintetError(f"this TiRex takes a {name} of 1 to {self.max_context} steps (max_context); got {steps}")

    def layer_groups(self) -> list[list[str]]:
        """Prefixes of parameter names: the embedding, then each block; the last norm belongs to the head."""
        return [["embedding"], *([f"encoder.blocks.{layer}"] for layer in range(len(self.encoder.blocks)))]


register_model("timeseries/tirex", pretrained.TIREX_SOURCES)(TiRex)
