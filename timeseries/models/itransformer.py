"""iTransformer: every channel is one token, and attention runs over channels instead of time.

Paper: "iTransformer: Inverted Transformers Are Effective for Time Series Forecasting", arXiv 2310.06625.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...core.attention import Attention
from ...core.blocks.encoder import Encoder
from ...core.errors import QuintetError
from ...core.feedforward import Mlp
from ...core.mixer import Mixer
from ...core.norm import LayerNorm
from ...core.regularization.dropout import Dropout
from ...core.weights.pretrained import Layout
from ...core.weights.registry import register_model
from .. import pretrained
from ._network import ForecastNetwork
from ._shared import check_context, check_num_heads, check_sequence_mixer, normalize_window, restore_window
from .covariates import Covariates


class CovariateTokens(nn.Module):
    """One token a feature: a linear map of its values plus a learned vector that says which feature it is.

    Features of which a sample shows nothing are masked tokens; what is missing of the others stands at 0, the mean of
    the training rows.

    Args:
        features: number of features of each role: past, future, static.
        context: steps of a window.
        horizon: steps to forecast.
        dim: width of the tokens.
    """

    def __init__(self, features: Mapping[str, int], context: int, horizon: int, dim: int) -> None:
        super().__init__()
        lengths = {"past": context, "future": context + horizon, "static": 1}
        self.embeddings = nn.ModuleDict({role: nn.Linear(lengths[role], dim) for role in features})
        self.identities = nn.ParameterDict({role: 0.02 * torch.randn(count, dim) for role, count in features.items()})

    def forward(self, covariates: Covariates) -> tuple[Float[Tensor, "batch tokens dim"], Bool[Tensor, "batch tokens"]]:
        """The tokens of all roles, and where they are real."""
        tokens, real = [], []
        for role, embedding in self.embeddings.items():
            values = getattr(covariates, role)
            values = values.unsqueeze(-1) if role == "static" else values.transpose(1, 2)
            known = values.isfinite()
            tokens.append(embedding(values.masked_fill(~known, 0.0)) + self.identities[role])
            real.append(known.any(-1))
        return torch.cat(tokens, 1), torch.cat(real, 1)


class ITransformer(ForecastNetwork):
    """head(Encoder([embedding of each channel's window, embedding of each calendar feature])) of normalized windows.

    The tokens are channels, so the same weights take any number of them; covariates are further tokens, future ones
    with their values over the horizon. A channel of which a window shows nothing is a masked token. A causal mixer sees
    the channels in their order.

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
        covariates: number of features of each role (past, future, static); None where the data have none.

    Raises QuintetError for a mixer that takes no sequences, windows of another length and other covariates.
    """

    head_keys: ClassVar[tuple[str, ...]] = ("head.weight", "head.bias")
    takes: ClassVar[frozenset[str]] = frozenset({"past", "future", "static"})
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
        covariates: dict[str, int] | None = None,
    ) -> None:
        super().__init__()
        check_num_heads(num_heads, mixer)
        mixer = mixer or partial(Attention, num_heads=num_heads or 8, dropout=dropout, projection_dropout=dropout)
        self.context, self.horizon, self.outputs = context, horizon, outputs
        self.embedding = nn.Linear(context, dim)
        self.covariates = CovariateTokens(covariates, context, horizon, dim) if covariates else None
        self.dropout = Dropout(dropout)
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
        covariates: Covariates | None = None,
    ) -> Float[Tensor, "batch horizon channels outputs"]:
        """Forecasts; `observed` is True where `values` is a number that counts, `calendar` is of the same steps."""
        check_context(values, self.context)
        if (covariates is None) != (self.covariates is None):
            had, given = ("none", "some") if self.covariates is None else ("some", "none")
            raise QuintetError(f"this ITransformer was built for {had} of the covariates and is given {given}")
        channels = values.shape[-1]
        normalized, mean, std = normalize_window(values, observed)
        tokens = normalized if calendar is None else torch.cat([normalized, calendar], dim=-1)
        x = self.embedding(tokens.transpose(1, 2))
        mask = None
        if observed is not None or covariates is not None:
            mask = x.new_ones(x.shape[:2], dtype=torch.bool)
        if observed is not None:
            mask = torch.cat([observed.any(1), mask[:, channels:]], dim=1)
        if covariates is not None:
            further, real = self.covariates(covariates)
            x, mask = torch.cat([x, further], dim=1), torch.cat([mask, real], dim=1)
        x = self.head(self.encoder(self.dropout(x), mask, queries=channels))
        return restore_window(x.unflatten(-1, (self.horizon, self.outputs)).transpose(1, 2), mean, std)

    def layer_groups(self) -> list[list[str]]:
        """Prefixes of parameter names: the embeddings, then each block; the last norm belongs to the head."""
        first = ["embedding"] if self.covariates is None else ["embedding", "covariates"]
        return [first, *([f"encoder.blocks.{layer}"] for layer in range(len(self.encoder.blocks)))]


@register_model("timeseries/itransformer")
def itransformer(**arguments: Any) -> ITransformer:
    """iTransformer as published for ETTh1, 96 steps to 96: dim 256, depth 2."""
    return ITransformer(**arguments)
