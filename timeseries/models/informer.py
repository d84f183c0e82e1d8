"""Informer: an encoder that halves the sequence layer by layer, and a decoder that writes the whole forecast at once.

Paper: "Informer: Beyond Efficient Transformer for Long Sequence Time-Series Forecasting", arXiv 2012.07436.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...core.attention import CrossAttention, ProbSparseAttention
from ...core.blocks.block import Block
from ...core.blocks.encoder import Layer, keeps_all, last_of, run_layers
from ...core.errors import QuintetError
from ...core.feedforward import Mlp
from ...core.mixer import Mixer
from ...core.norm import LayerNorm
from ...core.position.sincos import sincos_position
from ...core.regularization.dropout import Dropout
from ...core.weights.pretrained import Layout
from ...core.weights.registry import register_model
from .. import pretrained
from ._network import ForecastNetwork
from ._shared import check_context, check_sequence_mixer, normalize_window, restore_window

NORM = partial(LayerNorm, eps=1e-5)


class CircularConvolution(nn.Linear):
    """y_t = W [x_{t-1}, x_t, x_{t+1}] + b, where the sequence is a ring: a convolution of three steps as one product.

    Args:
        in_dim: width of the tokens that come.
        dim: width of those that go.
    """

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__(3 * in_dim, dim)

    def forward(self, x: Float[Tensor, "batch time in_dim"]) -> Float[Tensor, "batch time dim"]:
        return super().forward(torch.cat([x.roll(1, 1), x, x.roll(-1, 1)], dim=-1))


class SeriesEmbedding(nn.Module):
    """x_t = convolution(values)_t + position_t + W calendar_t + b.

    Positions are sines and cosines in turn. Without calendar features the last two terms are left out.

    Args:
        channels: of the values.
        features: of the calendar.
        length: most steps.
        dim: width of the tokens.
        dropout: rate on the tokens.
    """

    def __init__(self, channels: int, features: int, length: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.convolution = CircularConvolution(channels, dim)
        nn.init.kaiming_normal_(self.convolution.weight, nonlinearity="leaky_relu")
        self.calendar = nn.Linear(features, dim) if features else None
        position = sincos_position((length,), dim, dtype=torch.float32)
        position = position.unflatten(-1, (2, dim // 2)).transpose(-1, -2).flatten(-2)
        self.register_buffer("position", position, persistent=False)
        self.dropout = Dropout(dropout)

    def forward(
        self, values: Float[Tensor, "batch time channels"], calendar: Float[Tensor, "batch time features"] | None
    ) -> Float[Tensor, "batch time dim"]:
        x = self.convolution(values) + self.position[: values.shape[1]]
        if self.calendar is not None:
            x = x + self.calendar(calendar)
        return self.dropout(x)


class Distillation(nn.Module):
    """y = max pooling over 3 steps by 2 of ELU(batch norm(convolution(x))): half the steps, the strongest features.

    Args:
        dim: width of the tokens.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.convolution = CircularConvolution(dim, dim)
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch half dim"]:
        x = self.norm(self.convolution(x).flatten(0, 1)).unflatten(0, x.shape[:2])
        # ELU rises everywhere: the largest of three is the same before it, and half as many are left.
        return F.elu(F.max_pool1d(x.transpose(1, 2), 3, stride=2, padding=1)).transpose(1, 2)


class InformerEncoder(nn.Module):
    """Post-norm blocks with a `Distillation` between each two, then a norm.

    Args:
        dim: width of the tokens.
        depth: number of blocks.
        mixer: factory `SomeMixer(dim)`.
        feedforward: factory `FeedForward(dim)`.
        distil: halve the steps after every block but the last.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        mixer: Callable[[int], Mixer],
        feedforward: Callable[[int], nn.Module],
        distil: bool = True,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, mixer, feedforward, NORM, "post") for _ in range(depth))
        self.distillations = nn.ModuleList(Distillation(dim) for _ in range(depth - 1 if distil else 0))
        self.norm = NORM(dim)
        self.gradient_checkpointing = False

    def forward(self, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch steps dim"]:
        shorter = dict(self.distillations.named_children())
        x, _ = last_of(run_layers(self.blocks, x, {}, keep=keeps_all(self), reductions=shorter), Layer(x, {}))
        return self.norm(x)


class InformerDecoderBlock(nn.Module):
    """x = norm1(x + mixer(x)); x = norm2(x + cross(x, memory)); y = norm3(x + feedforward(x)).

    Args:
        dim: width of the tokens.
        mixer: factory `ProbSparseAttention(dim)`.
        cross: factory `CrossAttention(dim)`.
        feedforward: factory `FeedForward(dim)`.
    """

    takes = frozenset({"memory", "count"})

    def __init__(
        self,
        dim: int,
        mixer: Callable[[int], ProbSparseAttention],
        cross: Callable[[int], CrossAttention],
        feedforward: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.mixer, self.cross, self.feedforward = mixer(dim), cross(dim), feedforward(dim)
        self.norm1, self.norm2, self.norm3 = NORM(dim), NORM(dim), NORM(dim)

    def forward(
        self, x: Float[Tensor, "batch time dim"], memory: Float[Tensor, "batch steps dim"], count: int | None = None
    ) -> Float[Tensor, "batch _count dim"]:
        """The last `count` tokens, None for all; after the mixer none of the others is needed."""
        count = x.shape[1] if count is None else count
        x = self.norm1(x[:, -count:] + self.mixer.tail(x, count))
        x = self.norm2(x + self.cross(x, memory))
        return self.norm3(x + self.feedforward(x))


class Informer(ForecastNetwork):
    """head(Decoder([the last steps, zeros for those to come], Encoder(window))): all steps of the forecast at once.

    A token is a step with all its channels, so the number of channels is fixed. What was not observed counts as 0, the
    mean of the training rows (with `normalize`, of the window).

    Args:
        context: steps of a window.
        horizon: steps to forecast.
        outputs: values a step: 1 for a point, or one a quantile.
        channels: of the series.
        calendar: number of calendar features; they are read of the steps to come too.
        start: last steps of the window that the decoder begins with (label_len of the published code); None means all.
        dim: width of the tokens.
        depth: blocks of the encoder.
        decoder_depth: blocks of the decoder.
        num_heads: heads of all attentions; None means 8.
        mixer: factory `SomeMixer(dim)` in place of ProbSparse attention in the encoder.
        factor: of ProbSparse attention, of how many queries and keys it takes.
        hidden_dim: hidden width of the feed-forward layers; None means 4 * dim.
        distil: halve the steps after every block of the encoder but the last.
        normalize: take each window by its own mean and deviation; the published model does not.
        dropout: rate on embeddings, cross attention and every branch of a block.

    Raises QuintetError for a start beyond the context, an odd width, and windows of another size or without calendar.
    """

    head_keys: ClassVar[tuple[str, ...]] = ("head.weight", "head.bias")
    layouts: ClassVar[tuple[Layout, ...]] = (pretrained.OFFICIAL_INFORMER,)
    reads_future_calendar: ClassVar[bool] = True

    def __init__(
        self,
        context: int = 96,
        horizon: int = 24,
        outputs: int = 1,
        channels: int = 7,
        calendar: int = 4,
        start: int | None = None,
        dim: int = 512,
        depth: int = 2,
        decoder_depth: int = 1,
        num_heads: int | None = None,
        mixer: Callable[[int], Mixer] | None = None,
        factor: int = 5,
        hidden_dim: int | None = None,
        distil: bool = True,
        normalize: bool = False,
        dropout: float = 0.05,
    ) -> None:
        super().__init__()
        start = context if start is None else start
        if not 0 <= start <= context:
            raise QuintetError(f"start={start}: the decoder begins with 0 to context={context} steps of the window")
        if dim % 2:
            raise QuintetError(f"dim={dim} is odd; positions are pairs of sine and cosine")
        heads = num_heads or 8
        attention = partial(ProbSparseAttention, num_heads=heads, factor=factor, projection_dropout=dropout)
        feedforward = partial(Mlp, hidden_dim=hidden_dim or 4 * dim, dropout=dropout)
        cross = partial(CrossAttention, num_heads=heads, dropout=dropout, projection_dropout=dropout)
        self.context, self.horizon, self.outputs = context, horizon, outputs
        self.channels, self.features, self.start, self.normalize = channels, calendar, start, normalize
        self.embedding = SeriesEmbedding(channels, calendar, context, dim, dropout)
        self.decoder_embedding = SeriesEmbedding(channels, calendar, start + horizon, dim, dropout)
        self.encoder = InformerEncoder(dim, depth, mixer or attention, feedforward, distil)
        self.decoder = nn.ModuleList(
            InformerDecoderBlock(dim, partial(attention, mask_future=True, interleave_heads=True), cross, feedforward)
            for _ in range(decoder_depth)
        )
        self.norm = NORM(dim)
        self.gradient_checkpointing = False
        self.head = nn.Linear(dim, channels * outputs)
        check_sequence_mixer(self.encoder.blocks[0].mixer)

    def forward(
        self,
        values: Float[Tensor, "batch time channels"],
        observed: Bool[Tensor, "batch time channels"] | None = None,
        calendar: Float[Tensor, "batch steps features"] | None = None,
    ) -> Float[Tensor, "batch horizon channels outputs"]:
        """Forecasts; `observed` is True where `values` counts, `calendar` is of the window and the steps to come."""
        check_context(values, self.context)
        self._check_width(values, calendar)
        mean = std = None
        if self.normalize:
            values, mean, std = normalize_window(values, observed)
        elif observed is not None:
            values = values.masked_fill(~observed, 0.0)
        first = self.context - self.start
        known = F.pad(values[:, first:], (0, 0, 0, self.horizon))
        seen = marks = None
        if self.features:
            seen, marks = calendar[:, : self.context], calendar[:, first:]
        memory = self.encoder(self.embedding(values, seen))
        x = self.decoder_embedding(known, marks)
        # Of the last block only the steps to come are read.
        *blocks, last = self.decoder
        given, keep = {"memory": memory}, keeps_all(self)
        x, _ = last_of(run_layers(blocks, x, given, keep=keep), Layer(x, given))
        ((x, _),) = run_layers([last], x, {**given, "count": self.horizon}, keep=keep)
        forecast = self.head(self.norm(x)).unflatten(-1, (self.channels, self.outputs))
        return forecast if mean is None else restore_window(forecast, mean, std)

    def _check_width(self, values: Tensor, calendar: Tensor | None) -> None:
        if values.shape[-1] != self.channels:
            raise QuintetError(f"this Informer takes {self.channels} channels, set by channels; got {values.shape[-1]}")
        found = None if calendar is None else tuple(calendar.shape[1:])
        if self.features and found != (self.context + self.horizon, self.features):
            raise QuintetError(
                f"this Informer reads {self.features} calendar features, set by calendar, of {self.context} steps and "
                f"the {self.horizon} to come; got {'none' if found is None else found}"
            )

    def layer_groups(self) -> list[list[str]]:
        """Prefixes of parameter names: embeddings, each block of the encoder, each of the decoder."""
        distillations, depth = len(self.encoder.distillations), len(self.encoder.blocks)
        encoder = [
            [f"encoder.blocks.{layer}", *([f"encoder.distillations.{layer}"] if layer < distillations else [])]
            for layer in range(depth)
        ]
        encoder[-1].append("encoder.norm")
        decoder = [[f"decoder.{layer}"] for layer in range(len(self.decoder))]
        return [["embedding", "decoder_embedding"], *encoder, *decoder]


@register_model("timeseries/informer")
def informer(**arguments: Any) -> Informer:
    """Informer as published: dim 512, two encoder blocks and one of the decoder, 11.3 million parameters."""
    return Informer(**arguments)
