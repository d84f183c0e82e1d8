"""TiRex-2: TiRex over several variates, with covariates of the past and of the future.

Paper: "TiRex-2: Generalizing TiRex to Multivariate Data and Streaming", arXiv 2607.01204.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...core.attention import Attention
from ...core.blocks.encoder import Layer, keeps_all, last_of, run_layers
from ...core.errors import QuintetError
from ...core.feedforward import Mlp, SwiGLU
from ...core.mixer import Mixer
from ...core.norm import RMSNorm
from ...core.regularization.dropout import Dropout
from ...core.ssm import MLSTM, SLSTM
from ...core.weights.pretrained import Layout
from ...core.weights.registry import register_model
from .. import pretrained
from . import _bands
from ._network import ForecastNetwork
from ._patches import ResidualMlp, hide_patches, pad_time, patch_features
from ._shared import check_sequence_mixer
from .covariates import Covariates
from .tirex import DECILES

ACTIVATIONS = {"SiLU": nn.SiLU, "ReLU": nn.ReLU, "GELU": nn.GELU}
LARGEST = 20.0  # of what the hyperbolic sine is taken of


class Variates(NamedTuple):
    """Targets, covariates of the past, then covariates of the future, as one table; and which of the last are known."""

    values: Float[Tensor, "batch time variates"]
    observed: Bool[Tensor, "batch time variates"]
    targets: int
    known: Bool[Tensor, "batch future"]


class Scaling(NamedTuple):
    """By what variates were scaled; `binary` ones, of 0 and 1 alone, were not."""

    mean: Float[Tensor, "batch 1 variates"]
    std: Float[Tensor, "batch 1 variates"]
    binary: Bool[Tensor, "batch 1 variates"]


class BidirectionalMixer(nn.Module):
    """y = f(x) forwards; where the future is known, W [f(x), f(x backwards)]: both directions by the same mixer f.

    Args:
        dim: width of the tokens.
        mixer: factory `SomeMixer(dim)`, which reads forwards.
        dropout: rate on the output of W.
    """

    def __init__(self, dim: int, mixer: Callable[[int], Mixer], dropout: float = 0.0) -> None:
        super().__init__()
        self.cell = mixer(dim)
        self.combination = nn.Linear(2 * dim, dim, bias=False)
        self.dropout = Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "batch variates time dim"], known: Bool[Tensor, "batch future"]
    ) -> Float[Tensor, "batch variates time dim"]:
        """`known` says of the last variates whether their future is known; the others are read forwards only."""
        forwards = self.cell(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        future = known.shape[1]
        if not future:
            return forwards
        rest, both = forwards.split((x.shape[1] - future, future), dim=1)
        backwards = self.cell(x[:, -future:].flatten(0, 1).flip(1)).flip(1).unflatten(0, known.shape)
        combined = self.dropout(self.combination(torch.cat([both, backwards], dim=-1)))
        return torch.cat([rest, torch.where(known[:, :, None, None], combined, both)], dim=1)


class TiRex2Block(nn.Module):
    """Along time, a bidirectional mixer and a SwiGLU; across variates at each patch, attention and an MLP; pre-norm.

    Targets attend to all variates, covariates to covariates alone; a single variate passes the second half by.

    Args:
        dim: width of the tokens.
        mixer: factory of the mixer along time.
        num_heads: heads of the attention across variates.
        qk_norm: normalize its queries and keys.
        activation: of the MLP.
        dropout: rate on all branches but the SwiGLU.
    """

    takes = frozenset({"targets", "known"})

    def __init__(
        self,
        dim: int,
        mixer: Callable[[int], Mixer],
        num_heads: int,
        qk_norm: bool,
        activation: Callable[[], nn.Module],
        dropout: float,
    ) -> None:
        super().__init__()
        normalize = partial(RMSNorm, eps=torch.finfo(torch.float32).eps, weight=False) if qk_norm else None
        self.norm1, self.mixer = RMSNorm(dim), BidirectionalMixer(dim, mixer, dropout)
        self.norm2, self.feedforward = RMSNorm(dim), SwiGLU(dim, multiple_of=64)
        self.norm3 = RMSNorm(dim)
        self.attention = Attention(
            dim,
            num_heads,
            qkv_bias=False,
            projection_bias=False,
            qk_norm=normalize,
            dropout=dropout,
            projection_dropout=dropout,
        )
        self.norm4, self.mlp = RMSNorm(dim), Mlp(dim, ratio=4.0, activation=activation, bias=False, dropout=dropout)

    def forward(
        self, x: Float[Tensor, "batch variates time dim"], targets: int, known: Bool[Tensor, "batch future"]
    ) -> Float[Tensor, "batch variates time dim"]:
        """The first `targets` variates are forecast; `known` as in `BidirectionalMixer`."""
        x = x + self.mixer(self.norm1(x), known)
        x = x + self.feedforward(self.norm2(x))
        variates = x.shape[1]
        if variates == 1:
            return x
        bias = None
        if targets < variates:
            is_target = torch.arange(variates, device=x.device) < targets
            hidden = ~is_target[:, None] & is_target
            bias = x.new_zeros(1, 1, variates, variates).masked_fill(hidden, float("-inf"))
        y = x.transpose(1, 2).flatten(0, 1)
        y = y + self.attention(self.norm3(y), bias=bias)
        y = y + self.mlp(self.norm4(y))
        return y.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)


class TiRex2(ForecastNetwork):
    """TiRex-2: head(blocks(embedding of [values, observed] of each patch of each variate)), each scaled by itself.

    All channels of a sample and its covariates form one group. The output at a patch is the quantiles of the next;
    patches of the horizon are read in the same pass, with nothing observed but covariates of the future. Where none are
    known no more patches are read than the horizon has, which changes nothing.

    Args:
        context: steps of a window; any number up to `max_context` can be read later.
        horizon: steps to forecast.
        outputs: 1 or the number of `levels`, which say what is forecast.
        levels: quantiles to forecast.
        patch_size: steps in a patch.
        dim: width of the tokens.
        recipe: of the mixers along time, block by block: "mlstm" or "slstm".
        num_heads: heads of both mixers and of the attention across variates.
        slstm_heads: heads of the sLSTM; None means `num_heads`.
        variate_heads: heads of the attention across variates; None means `num_heads`.
        mixer: factory `SomeMixer(dim)` of a causal mixer in place of all of the recipe.
        hidden_dim: hidden width of the layer into patches.
        head_dim: hidden width of the layer out of patches; None means 4 * dim.
        activation: "SiLU", "ReLU" or "GELU".
        dropout: rate in training.
        qk_norm: normalize queries and keys of the attention across variates.
        final_norm: epsilon of a last norm; None leaves it out.
        arcsinh: scaled values are compressed by the inverse hyperbolic sine.
        keep_binary: variates of 0 and 1 alone are not scaled.
        scale_eps: least standard deviation.
        max_context: steps it was, or is to be, trained to read at most.
        max_horizon: steps it was, or is to be, trained to forecast at most.
        padding: "patch" fills the context up to whole patches, "context" to `max_context` steps, as published.
        differencing: series with a trend are forecast by their differences, outside training.
        calibration: bands are widened by the published factors, outside training.
        sign_flip: average with the forecast of the negated series, outside training.
        mask_rate: highest share of patches hidden in training.
        mask_length: most consecutive patches hidden in training.

    Raises QuintetError for sizes that do not fit, a context or horizon beyond the largest, a mixer that is not causal
    and a calendar.
    """

    head_keys: ClassVar[tuple[str, ...]] = ("head.fc2.weight", "head.fc2.bias", "head.skip.weight", "head.skip.bias")
    layouts: ClassVar[tuple[Layout, ...]] = (pretrained.TIREX2,)
    takes: ClassVar[frozenset[str]] = frozenset({"past", "future"})

    def __init__(
        self,
        context: int = 512,
        horizon: int = 64,
        outputs: int = 1,
        levels: Sequence[float] = DECILES,
        patch_size: int = 32,
        dim: int = 512,
        recipe: Sequence[str] = ("mlstm", "slstm") * 6,
        num_heads: int = 4,
        slstm_heads: int | None = None,
        variate_heads: int | None = None,
        mixer: Callable[[int], Mixer] | None = None,
        hidden_dim: int = 2048,
        head_dim: int | None = None,
        activation: Literal["SiLU", "ReLU", "GELU"] = "SiLU",
        dropout: float = 0.1,
        qk_norm: bool = True,
        final_norm: float | None = 1e-7,
        arcsinh: bool = True,
        keep_binary: bool = True,
        scale_eps: float = 1e-8,
        max_context: int = 2048,
        max_horizon: int = 320,
        padding: Literal["patch", "context"] = "patch",
        differencing: bool = False,
        calibration: bool = False,
        sign_flip: bool = False,
        mask_rate: float = 0.25,
        mask_length: int = 5,
    ) -> None:
        super().__init__()
        if outputs not in (1, len(levels)):
            raise QuintetError(f"TiRex-2 forecasts the quantiles {', '.join(map(str, levels))}; got outputs={outputs}")
        if max_context % patch_size or max_horizon % patch_size:
            raise QuintetError(
                f"max_context={max_context} and max_horizon={max_horizon} are whole numbers of patches of {patch_size}"
            )
        if sign_flip and any(abs(low + high - 1) > 1e-6 for low, high in zip(levels, reversed(levels))):
            raise QuintetError(f"sign_flip needs levels that lie evenly about 0.5; got {list(levels)}")
        for name, value, choices in (
            ("padding", padding, ("patch", "context")),
            ("activation", activation, ACTIVATIONS),
        ):
            if value not in choices:
                raise QuintetError(f"TiRex-2's {name} is {' or '.join(choices)}; got {value!r}")
        self.context, self.horizon, self.levels, self.patch_size = context, horizon, tuple(levels), patch_size
        self.arcsinh, self.keep_binary, self.scale_eps = arcsinh, keep_binary, scale_eps
        self.max_context, self.max_horizon, self.padding = max_context, max_horizon, padding
        self.differencing, self.calibration, self.sign_flip = differencing, calibration, sign_flip
        self.mask_rate, self.mask_length = mask_rate, mask_length
        self._check_lengths(context, horizon)
        make, heads = ACTIVATIONS[activation], variate_heads or num_heads
        cells = {
            "mlstm": partial(MLSTM, num_heads=num_heads),
            "slstm": partial(SLSTM, num_heads=slstm_heads or num_heads, convolution_width=0, norm_eps=1e-6),
        }
        if unknown := set(recipe) - set(cells):
            raise QuintetError(f"TiRex-2's recipe is of mlstm and slstm; got {', '.join(sorted(unknown))}")
        self.embedding = ResidualMlp(2 * patch_size, hidden_dim, dim, make, dropout)
        self.blocks = nn.ModuleList(
            TiRex2Block(dim, mixer or cells[name], heads, qk_norm, make, dropout) for name in recipe
        )
        self.gradient_checkpointing = False
        self.norm = nn.Identity() if final_norm is None else RMSNorm(dim, final_norm)
        self.dropout = Dropout(dropout)
        self.head = ResidualMlp(dim, head_dim or 4 * dim, len(levels) * patch_size, make, dropout)
        for block in self.blocks:
            check_sequence_mixer(block.mixer.cell)
            if not block.mixer.cell.causal:
                name = type(block.mixer.cell).__name__
                raise QuintetError(f"TiRex-2 reads time forwards, and this {name} is not causal; give one that is")

    @classmethod
    def arguments_from(cls, path: Path) -> dict[str, Any]:
        """Constructor arguments that say how large the network in a file is, from the config.json beside it."""
        return pretrained.tirex2_arguments(path)

    # Forecasts

    def forward(
        self,
        values: Float[Tensor, "batch time channels"],
        observed: Bool[Tensor, "batch time channels"] | None = None,
        calendar: Float[Tensor, "batch time features"] | None = None,
        covariates: Covariates | None = None,
        horizon: int | None = None,
    ) -> Float[Tensor, "batch horizon channels outputs"]:
        """Forecasts `horizon` steps (None: those it was built for); `observed` is True where `values` counts."""
        if calendar is not None:
            raise QuintetError("TiRex-2 reads no calendar; give its features as future covariates, or leave it out")
        horizon = self.horizon if horizon is None else horizon
        self._check_lengths(values.shape[1], horizon)
        observed = torch.ones_like(values, dtype=torch.bool) if observed is None else observed
        if self.training:
            return self._forecast(values, observed, covariates, horizon)
        forecast = self._adjusted(values, observed, covariates, horizon)
        if self.sign_flip:
            if covariates is not None:
                covariates = Covariates(-covariates.past, -covariates.future, covariates.static)
            forecast = (forecast - self._adjusted(-values, observed, covariates, horizon).flip(-1)) / 2
        return forecast

    def training_forecasts(
        self,
        values: Float[Tensor, "batch time channels"],
        target: Float[Tensor, "batch horizon channels"],
        observed: Bool[Tensor, "batch time channels"] | None = None,
        covariates: Covariates | None = None,
    ) -> tuple[Float[Tensor, "batch steps channels outputs"], Float[Tensor, "batch steps channels"]]:
        """What training compares: forecasts of every next patch of context and horizon with the truth, both scaled.

        The truth is NaN where nothing was observed, as is `target`. In training mode runs of patches are hidden.
        Covariates never see targets, so what they know of the future tells nothing of the truth.
        """
        horizon = target.shape[1]
        observed = torch.ones_like(values, dtype=torch.bool) if observed is None else observed
        table = self._table(values, observed, covariates, horizon)
        scaling = self._scaling(table)
        whole, known = table.values.clone(), table.observed.clone()
        whole[:, values.shape[1] :, : table.targets] = target.nan_to_num(0.0)
        known[:, values.shape[1] :, : table.targets] = target.isfinite()
        left, right = -values.shape[1] % self.patch_size, -horizon % self.patch_size
        whole, known = pad_time(self._scaled(whole, scaling), known, left, right)
        shown = known
        if self.training and self.mask_rate:
            shown = hide_patches(known, self.patch_size, self.mask_rate, self.mask_length)
        x = self._encode(whole, shown, table)[:, :, :-1]
        truth = whole.masked_fill(~known, torch.nan)[:, self.patch_size :, : table.targets]
        return self._quantiles(x), truth

    def _adjusted(self, values: Tensor, observed: Tensor, covariates: Covariates | None, horizon: int) -> Tensor:
        """The forecast with what surrounds the network outside training."""
        differenced = torch.zeros_like(observed[:, 0])
        given = values, observed
        if self.differencing:
            differenced = _bands.has_trend(values, observed)
            given = (
                torch.where(differenced.unsqueeze(1), changed, kept)
                for changed, kept in zip(_bands.difference(values, observed), given)
            )
        forecast = self._forecast(*given, covariates, horizon)
        if self.calibration:
            return _bands.restore_levels(forecast, _bands.last_observed(values, observed), differenced)
        if self.differencing:
            levels = _bands.integrate(forecast, _bands.last_observed(values, observed))
            return torch.where(differenced[:, None, :, None], levels, forecast)
        return forecast

    def _forecast(self, values: Tensor, observed: Tensor, covariates: Covariates | None, horizon: int) -> Tensor:
        """The network's own forecast."""
        table = self._table(values, observed, covariates, horizon)
        scaling = self._scaling(table)
        steps, patches = values.shape[1], -(-horizon // self.patch_size)
        left = self.max_context - steps if self.padding == "context" else -steps % self.patch_size
        # Backwards, patches after the horizon are read first.
        reach = self.max_horizon if table.known.shape[1] else patches * self.patch_size
        scaled = pad_time(self._scaled(table.values, scaling), table.observed, left, reach - horizon)
        before = (left + steps) // self.patch_size
        x = self._encode(*scaled, table)[:, :, before - 1 : before - 1 + patches]
        return self._restored(self._quantiles(x)[:, :horizon], scaling)

    # Parts

    def _table(self, values: Tensor, observed: Tensor, covariates: Covariates | None, horizon: int) -> Variates:
        """All variates over context and horizon, of which targets and covariates of the past show nothing."""
        batch, steps, targets = values.shape
        parts, future = [values.masked_fill(~observed, torch.nan)], values.new_zeros(batch, steps + horizon, 0)
        if covariates is not None:
            future = covariates.future
            parts.append(covariates.past)
        if future.shape[1] != steps + horizon:
            raise QuintetError(
                f"covariates of the future are over context and horizon, {steps + horizon} steps; got {future.shape[1]}"
            )
        before = torch.cat(parts, 2)
        nothing = before.new_full((batch, horizon, before.shape[2]), torch.nan)
        table = torch.cat([torch.cat([before, nothing], 1), future], 2)
        shown = table.isfinite()
        return Variates(table.masked_fill(~shown, 0.0), shown, targets, future[:, steps:].isfinite().any(1))

    def _scaling(self, table: Variates) -> Scaling:
        values, observed = table.values, table.observed
        count = observed.sum(1, keepdim=True)
        mean = values.sum(1, keepdim=True) / count.clamp(min=1)
        variance = (values - mean).masked_fill(~observed, 0.0).square().sum(1, keepdim=True) / count.clamp(min=1)
        std = variance.sqrt().masked_fill(count == 0, 1.0).clamp(min=self.scale_eps)
        binary = torch.zeros_like(mean, dtype=torch.bool)
        if self.keep_binary:
            binary = ((values == 0) | (values == 1)).all(1, keepdim=True)
        return Scaling(mean.masked_fill(binary, 0.0), std.masked_fill(binary, 1.0), binary)

    def _scaled(self, values: Tensor, scaling: Scaling) -> Tensor:
        scaled = (values - scaling.mean) / scaling.std
        return torch.where(scaling.binary, scaled, scaled.arcsinh()) if self.arcsinh else scaled

    def _restored(self, forecast: Tensor, scaling: Scaling) -> Tensor:
        """Undoes `_scaled` for the targets."""
        mean, std, binary = (part[:, :, : forecast.shape[2]].unsqueeze(-1) for part in scaling)
        if self.arcsinh:
            forecast = torch.where(binary, forecast, forecast.clamp(-LARGEST, LARGEST).sinh())
        return forecast * std + mean

    def _encode(self, scaled: Tensor, observed: Tensor, table: Variates) -> Tensor:
        """Tokens (B, targets, patches, dim) of the targets."""
        x = self.embedding(patch_features(scaled, observed, self.patch_size))
        given = {"targets": table.targets, "known": table.known}
        x, _ = last_of(run_layers(self.blocks, x, given, keep=keeps_all(self)), Layer(x, given))
        return self.dropout(self.norm(x[:, : table.targets]))

    def _quantiles(self, x: Tensor) -> Tensor:
        """Scaled quantiles (B, steps, C, outputs) of the patches after those of the tokens `x`."""
        quantiles = self.head(x).unflatten(-1, (len(self.levels), self.patch_size))
        return quantiles.permute(0, 2, 4, 1, 3).flatten(1, 2)

    def _check_lengths(self, context: int, horizon: int) -> None:
        for name, steps, most in (("context", context, self.max_context), ("horizon", horizon, self.max_horizon)):
            if not 1 <= steps <= most:
                raise QuintetError(f"this TiRex-2 takes a {name} of 1 to {most} steps (max_{name}); got {steps}")

    def layer_groups(self) -> list[list[str]]:
        """Prefixes of parameter names: the embedding, then each block; the last norm belongs to the head."""
        return [["embedding"], *([f"blocks.{layer}"] for layer in range(len(self.blocks)))]


register_model("timeseries/tirex2", pretrained.TIREX2_SOURCES)(TiRex2)
