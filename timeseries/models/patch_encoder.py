"""Patches of all channels as tokens, encoded by any mixer: what the classifier is built on."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...core.attention import Attention
from ...core.blocks.encoder import Encoder
from ...core.errors import QuintetError
from ...core.feedforward import Mlp
from ...core.mixer import Mixer
from ...core.position import SinCosPosition
from ...core.regularization.dropout import Dropout
from ._shared import check_channels, check_num_heads, check_sequence_mixer


class PatchEncoder(nn.Module):
    """Encoder(position + Linear([values, observed] of `patch_size` steps)), a patch beginning every `stride` steps.

    The first patch ends with the first `stride` steps, the last holds the last step, and what lies outside is zero and
    unobserved: a series of T real steps has ceil(T / stride) tokens, however far it is padded. Patches as tokens are
    of "A Time Series is Worth 64 Words", arXiv 2211.14730; here one patch holds all channels.

    Args:
        channels: of the series.
        dim: width of the tokens.
        depth: number of blocks.
        patch_size: steps of a patch, at least `stride`.
        stride: steps from one patch to the next; 1 makes every step a token.
        num_heads: heads of softmax attention; None means dim // 32. For another mixer set its own.
        mixer: factory `SomeMixer(dim)` in place of softmax attention.
        hidden_dim: hidden width of the feed-forward layers; None means 2 * dim.
        dropout: rate on embeddings and both branches of a block.
        drop_path: rate of the last block.

    Raises QuintetError for a mixer that takes no sequences and a stride that skips steps.
    """

    def __init__(
        self,
        channels: int,
        dim: int = 64,
        depth: int = 2,
        patch_size: int = 8,
        stride: int = 4,
        num_heads: int | None = None,
        mixer: Callable[[int], Mixer] | None = None,
        hidden_dim: int | None = None,
        dropout: float = 0.1,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if not 1 <= stride <= patch_size:
            raise QuintetError(
                f"stride={stride} of patch_size={patch_size}; give 1 to {patch_size}, so that no step is lost"
            )
        check_num_heads(num_heads, mixer)
        mixer = mixer or partial(Attention, num_heads=num_heads, projection_dropout=dropout)
        self.channels, self.patch_size, self.stride = channels, patch_size, stride
        self.embedding = nn.Linear(2 * channels * patch_size, dim)
        self.position = SinCosPosition(dim)
        self.dropout = Dropout(dropout)
        feedforward = partial(Mlp, hidden_dim=hidden_dim or 2 * dim, dropout=dropout)
        self.encoder = Encoder(dim, depth, mixer, feedforward, drop_path=drop_path)
        check_sequence_mixer(self.encoder.blocks[0].mixer)

    def forward(
        self,
        values: Float[Tensor, "batch time channels"],
        observed: Bool[Tensor, "batch time channels"],
        mask: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch tokens dim"], Bool[Tensor, "batch tokens"] | None]:
        """Tokens, and which of them are real.

        Args:
            values: of any length; what is not observed counts as 0.
            observed: True where `values` is a number that counts.
            mask: True where a step is real; the padding comes last.
        """
        check_channels(values, self.channels)
        if mask is not None:
            observed = observed & mask.unsqueeze(-1)
        steps = torch.cat([values.masked_fill(~observed, 0.0), observed.to(values.dtype)], dim=-1)
        end = -steps.shape[1] % self.stride
        steps = F.pad(steps, (0, 0, self.patch_size - self.stride, end))
        patches = steps.unfold(1, self.patch_size, self.stride).flatten(2)
        x = self.dropout(self.position(self.embedding(patches)))
        if mask is not None:
            # A patch is real where it brings a step that the patch before it did not hold.
            mask = F.pad(mask, (0, end)).unflatten(1, (-1, self.stride)).any(-1)
        return self.encoder(x, mask), mask

    def layer_groups(self) -> list[list[str]]:
        """Prefixes of parameter names: the embedding, then each block."""
        return [["embedding"], *([f"encoder.blocks.{layer}"] for layer in range(len(self.encoder.blocks)))]
