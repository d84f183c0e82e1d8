"""iTransformer: every channel is one token, and attention runs over channels instead of time.

Paper: "iTransformer: Inverted Transformers Are Effective for Time Series Forecasting", arXiv 2310.06625.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...core.attention import Attention
from ...core.described import Described
from ...core.encoder import Encoder
from ...core.feedforward import Mlp
from ...core.mixer import Mixer
from ...core.norm import LayerNorm
from ...core.pretrained import Layout
from ...core.registry import register_model
from .. import pretrained
from ._shared import check_context, check_num_heads, check_sequence_mixer, normalize_window, restore_window


class ITransformer(Described, nn.Module):
    """head(Encoder([embedding of each channel's window, embedding of each calendar feature])) of normalized windows.

    The tokens are channels, so the same weights take any number of them. A channel of which a window shows nothing is a
    masked token. A causal mixer sees the channels in their order.

    Args:
        context: steps of a window.
        horizon: steps to forecast.
        outputs: values a step: 1 for a point, or one a quantile.
        dim: width of the tokens.
        depth: number of blocks.
        num_heads: heads of the attention; None means 8. For another mixer set its own.
        mixer: factory `SomeMixer(dim)` in place of softmax attention.
        hidden_dim: hidden width of the feed-forward layers; None means `dim`.
        dropout: rate on embeddings, attention weights and both branches of a block.

    Raises QuintetError for a mixer that takes no sequences and windows of another length.
    """

    head_keys: ClassVar[tuple[str, ...]] = ("head.weight", "head.bias")
    layouts: ClassVar[tuple[Layout, ...]] = (pretrained.THUML_ITRANSFORMER,)

    def __init__(
        self,
        context: int = 96,
        horizon: int = 96,
        outputs: int = 1,
        dim: int = 256,
        depth: int = 2,
        num_heads: int | None = None,
        mixer: Callable[[int], Mixer] | None = None,
        hidden_dim: int | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_num_heads(num_heads, mixer)
        mixer = mixer or partial(Attention, num_heads=num_heads or 8, dropout=dropout, projection_dropout=dropout)
        self.context, self.horizon, self.outputs = context, horizon, outputs
        self.embedding = nn.Linear(context, dim)
        self.dropout = nn.Dropout(dropout)
        self.encoder = Encoder(
            dim,
            depth,
            mixer,
            partial(Mlp, hidden_dim=hidden_dim or dim, dropout=dropout),
            norm=partial(LayerNorm, eps=1e-5),
            placement="post",
            final_norm=True,
        )
        self.head = nn.Linear(dim, horizon * outputs)
        check_sequence_mixer(self.encoder.blocks[0].mixer)

    def forward(
        self,
        values: Float[Tensor, "batch time channels"],
        observed: Bool[Tensor, "batch time channels"] | None = None,
        calendar: Float[Tensor, "batch time features"] | None = None,
    ) -> Float[Tensor, "batch horizon channels outputs"]:
        """Forecasts; `observed` is True where `values` is a number that counts, `calendar` is of the same steps."""
        check_context(values, self.context)
        channels = values.shape[-1]
        normalized, mean, std = normalize_window(values, observed)
        tokens = normalized if calendar is None else torch.cat([normalized, calendar], dim=-1)
        mask = None
        if observed is not None:
            mask = observed.any(1)
            if calendar is not None:
                mask = torch.cat([mask, mask.new_ones(calendar.shape[0], calendar.shape[-1])], dim=1)
        x = self.dropout(self.embedding(tokens.transpose(1, 2)))
        x = self.head(self.encoder(x, mask)[:, :channels])
        return restore_window(x.unflatten(-1, (self.horizon, self.outputs)).transpose(1, 2), mean, std)

    def layer_groups(self) -> list[list[str]]:
        """Prefixes of parameter names: the embedding, then each block; the last norm belongs to the head."""
        return [["embedding"], *([f"encoder.blocks.{layer}"] for layer in range(len(self.encoder.blocks)))]


@register_model("timeseries/itransformer")
def itransformer(**arguments: Any) -> ITransformer:
    """iTransformer as published for ETTh1, 96 steps to 96: dim 256, depth 2."""
    return ITransformer(**arguments)
