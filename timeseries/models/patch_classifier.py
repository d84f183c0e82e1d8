"""Classifies series of any length by the mean of their encoded patches."""

from collections.abc import Callable
from typing import Any, ClassVar

from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...core.mixer import Mixer, mask_tokens
from ...core.regularization.dropout import Dropout
from ...core.weights.network import Network
from ...core.weights.registry import register_model
from .patch_encoder import PatchEncoder


class PatchClassifier(Network):
    """head(mean of the real tokens of `PatchEncoder`), of series of any length.

    Args:
        channels: of the series.
        num_classes: number of classes.
        head_dropout: rate on the mean.
        dim: width of the tokens.
        depth: number of blocks.
        patch_size: steps of a patch, at least `stride`.
        stride: steps from one patch to the next; 1 makes every step a token.
        num_heads: heads of softmax attention; None means dim // 32. For another mixer set its own.
        mixer: factory `SomeMixer(dim)` in place of softmax attention.
        hidden_dim: hidden width of the feed-forward layers; None means 2 * dim.
        dropout: rate on embeddings and both branches of a block.
        drop_path: rate of the last block.
    """

    head_keys: ClassVar[tuple[str, ...]] = ("head.weight", "head.bias")
    finetune: ClassVar[str] = "experiment=timeseries/classify data.path=FILE"

    def __init__(
        self,
        channels: int = 1,
        num_classes: int = 2,
        head_dropout: float = 0.1,
        dim: int = 64,
        depth: int = 2,
        patch_size: int = 16,
        stride: int = 4,
        num_heads: int | None = None,
        mixer: Callable[[int], Mixer] | None = None,
        hidden_dim: int | None = None,
        dropout: float = 0.1,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.tokens = PatchEncoder(
            channels, dim, depth, patch_size, stride, num_heads, mixer, hidden_dim, dropout, drop_path
        )
        self.head_dropout = Dropout(head_dropout)
        self.head = nn.Linear(dim, num_classes)

    def forward(
        self,
        values: Float[Tensor, "batch time channels"],
        observed: Bool[Tensor, "batch time channels"],
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch classes"]:
        """Logits; see `PatchEncoder.forward`."""
        x, mask = self.tokens(values, observed, mask)
        count = x.shape[1] if mask is None else mask.sum(1, keepdim=True).clamp(min=1)
        return self.head(self.head_dropout(mask_tokens(x, mask).sum(1) / count))

    def layer_groups(self) -> list[list[str]]:
        """Prefixes of parameter names from the embedding to the last block."""
        return [[f"tokens.{prefix}" for prefix in group] for group in self.tokens.layer_groups()]


@register_model("timeseries/patch_classifier")
def patch_classifier(**arguments: Any) -> PatchClassifier:
    """Classifier of series of any length: patches of all channels, dim 64, depth 2, mean of the tokens."""
    return PatchClassifier(**arguments)
