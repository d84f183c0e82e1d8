"""PatchTST: every channel by itself, its window cut into overlapping patches that are read as a sequence.

Paper: "A Time Series is Worth 64 Words: Long-term Forecasting with Transformers", arXiv 2211.14730.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...core.aside import listened_to, tell
from ...core.attention import AttentionWeights
from ...core.blocks.encoder import Encoder
from ...core.errors import QuintetError
from ...core.feedforward import Mlp
from ...core.mixer import Mixer, mask_tokens, resolve_num_heads
from ...core.position import LearnedPosition
from ...core.regularization.dropout import Dropout
from ...core.weights.pretrained import Layout
from ...core.weights.registry import register_model
from .. import pretrained
from ._network import ForecastNetwork
from ._shared import check_context, check_num_heads, check_sequence_mixer, normalize_window, restore_window


class ResidualAttention(Mixer):
    """y = softmax(s) v, projected, where s = q kᵀ / sqrt(head_dim) + the scores s of the layer before.

    A layer hands its scores to the next; the first has none before it and is plain softmax attention. Paper:
    "RealFormer: Transformer Likes Residual Attention", arXiv 2012.11747.

    Args:
        dim: width of the tokens.
        num_heads: None means dim // 32.
        dropout: rate on the output.
    """

    grid_ranks = frozenset({1})
    takes = frozenset({"mask", "scores"})
    tells = frozenset({"weights"})

    def __init__(self, dim: int, num_heads: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.dim, self.num_heads = dim, resolve_num_heads(dim, num_heads)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        mask: Bool[Tensor, "batch time"] | None = None,
        scores: Float[Tensor, "batch heads time time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time dim"], dict[str, Float[Tensor, "batch heads time time"]]]:
        """Attends; `scores` are those of the layer before, and its own are returned for the one after."""
        self.check_tokens(x, mask)
        qkv = self.qkv(mask_tokens(x, mask)).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))
        own = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        if scores is not None:
            own = own + scores
        scores = own
        if mask is not None:
            # A softmax over nothing is NaN: a sample without a real token attends to everything, and is zeroed later.
            allowed = mask | ~mask.any(dim=-1, keepdim=True)
            own = own.masked_fill(~allowed[:, None, None, :], float("-inf"))
        weights = own.softmax(-1)
        if listened_to(self, "weights"):
            told = weights if mask is None else weights.masked_fill(~mask[:, None, :, None], 0.0)
            tell(self, "weights", AttentionWeights(told, None, *[tuple(x.shape[1:2])] * 2))
        y = self.dropout(self.proj((weights @ value).transpose(1, 2).flatten(2)))
        return mask_tokens(y, mask), {"scores": scores}


class TokenBatchNorm(nn.Module):
    """Batch normalization of each channel over all tokens of all samples. Paper: arXiv 1502.03167.

    Args:
        dim: width of the tokens.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, x: Float[Tensor, "batch *grid dim"]) -> Float[Tensor, "batch *grid dim"]:
        return self.norm(x.flatten(0, -2)).view(x.shape)


class PatchTST(ForecastNetwork):
    """head(flatten(Encoder(embedding of patches + position))) of each channel's normalized window.

    The window is first continued by `stride` copies of its last value; patches of `patch_size` steps then begin every
    `stride` steps. Blocks are post-norm with batch normalization, their attention residual (see `ResidualAttention`).

    Args:
        context: steps of a window.
        horizon: steps to forecast.
        outputs: values a step: 1 for a point, or one a quantile.
        patch_size: steps in a patch.
        stride: steps from one patch to the next.
        dim: width of the tokens.
        depth: number of blocks.
        num_heads: heads of the attention; None means 16. For another mixer set its own.
        mixer: factory `SomeMixer(dim)` in place of residual attention.
        hidden_dim: hidden width of the feed-forward layers; None means 2 * dim.
        dropout: rate on embeddings and both branches of a block.
        head_dropout: rate on the forecasts.

    Raises QuintetError for windows shorter than a patch or of another length, and a mixer that takes no sequences.
    """

    head_keys: ClassVar[tuple[str, ...]] = ("head.weight", "head.bias")
    layouts: ClassVar[tuple[Layout, ...]] = (pretrained.OFFICIAL_PATCHTST,)
    no_weight_decay: ClassVar[tuple[str, ...]] = ("position.position",)

    def __init__(
        self,
        context: int = 336,
        horizon: int = 96,
        outputs: int = 1,
        patch_size: int = 16,
        stride: int = 8,
        dim: int = 128,
        depth: int = 3,
        num_heads: int | None = None,
        mixer: Callable[[int], Mixer] | None = None,
        hidden_dim: int | None = None,
        dropout: float = 0.2,
        head_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if context < patch_size:
            raise QuintetError(f"a window of context={context} steps holds no patch of patch_size={patch_size}")
        check_num_heads(num_heads, mixer)
        mixer = mixer or partial(ResidualAttention, num_heads=num_heads or 16, dropout=dropout)
        self.context, self.horizon, self.outputs = context, horizon, outputs
        self.patch_size, self.stride = patch_size, stride
        patches = (context - patch_size) // stride + 2
        self.embedding = nn.Linear(patch_size, dim)
        self.position = LearnedPosition(dim, (patches,))
        self.dropout = Dropout(dropout)
        self.encoder = Encoder(
            dim,
            depth,
            mixer,
            partial(Mlp, hidden_dim=hidden_dim or 2 * dim, dropout=dropout),
            norm=TokenBatchNorm,
            placement="post",
        )
        self.head = nn.Linear(dim * patches, horizon * outputs)
        self.head_dropout = Dropout(head_dropout)
        check_sequence_mixer(self.encoder.blocks[0].mixer)

    def forward(
        self,
        values: Float[Tensor, "batch time channels"],
        observed: Bool[Tensor, "batch time channels"] | None = None,
        calendar: Float[Tensor, "batch time features"] | None = None,
    ) -> Float[Tensor, "batch horizon channels outputs"]:
        """Forecasts; `observed` is True where `values` is a number that counts. Raises QuintetError for a calendar."""
        check_context(values, self.context)
        if calendar is not None:
            raise QuintetError("PatchTST reads each channel by itself and no calendar; leave data.calendar out")
        channels = values.shape[-1]
        normalized, mean, std = normalize_window(values, observed)
        windows = F.pad(normalized.transpose(1, 2), (0, self.stride), mode="replicate").flatten(0, 1)
        x = self.dropout(self.position(self.embedding(windows.unfold(-1, self.patch_size, self.stride))))
        x = self.encoder(x)
        x = self.head_dropout(self.head(x.transpose(1, 2).flatten(1)))
        return restore_window(
            x.unflatten(-1, (self.horizon, self.outputs)).unflatten(0, (-1, channels)).transpose(1, 2), mean, std
        )

    def layer_groups(self) -> list[list[str]]:
        """Prefixes of parameter names: embedding and positions, then each block."""
        return [["embedding", "position"], *([f"encoder.blocks.{layer}"] for layer in range(len(self.encoder.blocks)))]


@register_model("timeseries/patchtst")
def patchtst(**arguments: Any) -> PatchTST:
    """PatchTST/42 as published for larger data, 336 steps to 96: dim 128, depth 3, 16 heads."""
    return PatchTST(**arguments)


@register_model("timeseries/patchtst_small")
def patchtst_small(**arguments: Any) -> PatchTST:
    """PatchTST/42 as published for ETTh1 and ETTh2: dim 16, depth 3, 4 heads."""
    own = {"dim": 16, "hidden_dim": 128, "dropout": 0.3}
    if arguments.get("mixer") is None:
        own["num_heads"] = 4
    return PatchTST(**own | arguments)
