"""Sequences of different lengths as one batch: padded with a mask, or packed one after the other."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def pad_sequences(
    sequences: Sequence[Shaped[Tensor, "_time dim"]], padding: float | int = 0
) -> tuple[Shaped[Tensor, "batch time dim"], Bool[Tensor, "batch time"]]:
    """Sequences, each continued by `padding` to the longest's length, and a mask that is True at what is real."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    values = pad_sequence(list(sequences), batch_first=True, padding_value=padding)
    return values, torch.arange(values.shape[1]) < lengths[:, None]


def pack_sequences(
    sequences: Sequence[Shaped[Tensor, "_time dim"]],
) -> tuple[Shaped[Tensor, "tokens dim"], Int[Tensor, " boundaries"]]:
    """Sequences one after the other, and 0 and where each ends, as `Encoder.forward_packed` takes them."""
    lengths = torch.tensor([0, *(len(sequence) for sequence in sequences)])
    return torch.cat(list(sequences)), lengths.cumsum(0)
