"""NILMFormer: the power of single appliances from that of the whole household.

Paper: "NILMFormer: Non-Intrusive Load Monitoring that Accounts for Non-Stationarity", arXiv 2506.05880.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...core.attention import Attention, DiagonalMask
from ...core.blocks.encoder import Layer, keeps_all, last_of, run_layers
from ...core.errors import QuintetError
from ...core.feedforward import Mlp
from ...core.mixer import Mixer
from ...core.norm import LayerNorm
from ...core.weights.network import Network
from ...core.weights.pretrained import Layout
from ...core.weights.registry import register_model
from .. import pretrained
from ._shared import check_num_heads, check_sequence_mixer

NORM = partial(LayerNorm, eps=1e-5)
EPS = 1e-6  # of the variance of a window


class DilatedUnit(nn.Module):
    """y = x + BatchNorm(GELU(convolution(x))), the steps of the convolution `dilation` apart; length is kept.

    Args:
        in_channels: of the input: 1, which is added to every channel, or as many as go out.
        channels: of the output.
        kernel_size: steps of the convolution.
        dilation: see above.
    """

    def __init__(self, in_channels: int, channels: int, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(in_channels, channels, kernel_size, dilation=dilation, padding="same")
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Float[Tensor, "batch in_channels time"]) -> Float[Tensor, "batch channels time"]:
        return x + self.norm(F.gelu(self.convolution(x)))


class NILMFormerBlock(nn.Module):
    """x = norm1(x); x = x + mixer(x); x = norm2(x); y = x + feedforward(x): norms stand on the residual path itself.

    Args:
        dim: width of the tokens.
        mixer: factory `SomeMixer(dim)`.
        feedforward: factory `FeedForward(dim)`.
    """

    takes = frozenset({"mask"})

    def __init__(self, dim: int, mixer: Callable[[int], Mixer], feedforward: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.norm1, self.mixer, self.norm2, self.feedforward = NORM(dim), mixer(dim), NORM(dim), feedforward(dim)

    def forward(
        self, x: Float[Tensor, "batch time dim"], mask: Bool[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time dim"]:
        x = self.norm1(x)
        x = self.norm2(x + self.mixer(x, mask))
        return x + self.feedforward(x)


class NILMFormer(Network):
    """y_a = std_a head_a(blocks([dilated convolutions of the normalized load, W calendar] and a token)) + mean_a.

    The load is normalized by the mean and deviation of its window; both are told to the blocks as one more token, from
    which the mean_a and std_a of each appliance a are read. Attention is kept from a token's own place. Steps at which
    the load was not observed are masked tokens.

    Args:
        appliances: whose power is estimated.
        calendar: number of calendar features; 0 gives their share of the width to the load.
        dim: width of the tokens, a multiple of 4.
        depth: number of blocks.
        num_heads: heads of the attention; None means 8. For another mixer set its own.
        mixer: factory `SomeMixer(dim)` in place of diagonally masked attention.
        kernel_size: steps of the dilated convolutions, and of the head's.
        dilations: of the convolutions.
        dropout: rate on attention weights and both branches of a block.

    Raises QuintetError for a width that is no multiple of 4, an even kernel and a mixer that takes no sequences.
    """

    head_keys: ClassVar[tuple[str, ...]] = (
        "head.weight",
        "head.bias",
        "output_statistics.weight",
        "output_statistics.bias",
    )
    finetune: ClassVar[str] = "experiment=timeseries/disaggregate data.path=FILE"
    layouts: ClassVar[tuple[Layout, ...]] = (pretrained.OFFICIAL_NILMFORMER,)

    def __init__(
        self,
        appliances: int = 1,
        calendar: int = 8,
        dim: int = 96,
        depth: int = 3,
        num_heads: int | None = None,
        mixer: Callable[[int], Mixer] | None = None,
        kernel_size: int = 3,
        dilations: Sequence[int] = (1, 2, 4, 8),
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if dim % 4:
            raise QuintetError(f"dim={dim} is no multiple of 4; a quarter of it is the calendar's")
        if kernel_size % 2 == 0:
            raise QuintetError(f"kernel_size={kernel_size} is even, and a convolution has its step in the middle")
        check_num_heads(num_heads, mixer)
        mixer = mixer or partial(
            Attention,
            num_heads=num_heads or 8,
            qkv_bias=False,
            projection_bias=False,
            relative_bias=DiagonalMask,
            dropout=dropout,
            projection_dropout=dropout,
        )
        own = 3 * dim // 4 if calendar else dim
        self.appliances, self.features, self.padding = appliances, calendar, kernel_size // 2
        self.embedding = nn.Sequential(
            *(DilatedUnit(own if layer else 1, own, kernel_size, step) for layer, step in enumerate(dilations))
        )
        self.calendar = nn.Linear(calendar, dim // 4) if calendar else None
        self.statistics = nn.Linear(2, dim)
        self.output_statistics = nn.Linear(dim, 2 * appliances)
        self.blocks = nn.ModuleList(NILMFormerBlock(dim, mixer, partial(Mlp, dropout=dropout)) for _ in range(depth))
        self.gradient_checkpointing = False
        self.norm = NORM(dim)
        self.head = nn.Conv1d(dim, appliances, kernel_size)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        check_sequence_mixer(self.blocks[0].mixer)

    def forward(
        self,
        load: Float[Tensor, "batch time"],
        observed: Bool[Tensor, "batch time"] | None = None,
        calendar: Float[Tensor, "batch time features"] | None = None,
    ) -> Float[Tensor, "batch time appliances"]:
        """Power of the appliances; `observed` is True where `load` is a number that counts."""
        self._check_calendar(load, calendar)
        normalized, mean, std = self._normalize(load, observed)
        x = self.embedding(normalized.unsqueeze(1)).transpose(1, 2)
        if self.calendar is not None:
            x = torch.cat([x, self.calendar(calendar)], dim=-1)
        token = self.statistics(torch.cat([mean, std], dim=-1))
        x = torch.cat([x, token.unsqueeze(1)], dim=1)
        mask = None if observed is None else F.pad(observed, (0, 1), value=True)
        given = {"mask": mask}
        x, _ = last_of(run_layers(self.blocks, x, given, keep=keeps_all(self)), Layer(x, given))
        x = self.norm(x)[:, :-1].transpose(1, 2)
        x = self.head(F.pad(x, (self.padding, self.padding), mode="replicate")).transpose(1, 2)
        # (mean, std) of one appliance after the other
        own_mean, own_std = self.output_statistics(token).unflatten(-1, (1, self.appliances, 2)).unbind(-1)
        return x * own_std + own_mean

    @staticmethod
    def _normalize(load: Tensor, observed: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The load by the mean and deviation of what was observed of its window, 0 where nothing was; and these."""
        if observed is None:
            observed = torch.ones_like(load, dtype=torch.bool)
        count = observed.sum(1, keepdim=True).clamp(min=1)
        mean = load.masked_fill(~observed, 0.0).sum(1, keepdim=True) / count
        centred = (load - mean).masked_fill(~observed, 0.0)
        std = (centred.square().sum(1, keepdim=True) / count + EPS).sqrt()
        return centred / std, mean, std

    def _check_calendar(self, load: Tensor, calendar: Tensor | None) -> None:
        """Raises QuintetError for a calendar of another size than the weights."""
        found = 0 if calendar is None else calendar.shape[-1]
        if found != self.features or (calendar is not None and calendar.shape[:2] != load.shape):
            shape = "none" if calendar is None else tuple(calendar.shape)
            raise QuintetError(
                f"this NILMFormer reads {self.features} calendar features of each of {load.shape[1]} steps, set by "
                f"calendar; got {shape}"
            )

    def layer_groups(self) -> list[list[str]]:
        """Prefixes of parameter names: what makes tokens, then each block; the last norm belongs to the head."""
        embeddings = ["embedding", "calendar", "statistics"]
        return [embeddings, *([f"blocks.{layer}"] for layer in range(len(self.blocks)))]


@register_model("timeseries/nilmformer")
def nilmformer(**arguments: Any) -> NILMFormer:
    """NILMFormer as published: dim 96, three blocks of diagonally masked attention, 8 heads."""
    return NILMFormer(**arguments)
