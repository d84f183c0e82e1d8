"""Padded and packed forms of the same sequences."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from quintet.core.blocks.encoder import Encoder
from quintet.core.data import pack_sequences, pad_sequences


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5))
def test_padded_and_packed_hold_the_same(lengths):
    sequences = [torch.randn(length, 2) for length in lengths]
    values, mask = pad_sequences(sequences, padding=-5.0)
    tokens, borders = pack_sequences(sequences)
    assert values.shape == (len(lengths), max(lengths), 2)
    assert mask.sum(1).tolist() == lengths
    assert (values[~mask] == -5).all()
    assert torch.equal(values[mask], tokens)
    for number, sequence in enumerate(sequences):
        assert torch.equal(values[number, : lengths[number]], sequence)
        assert torch.equal(tokens[borders[number] : borders[number + 1]], sequence)


def test_an_encoder_takes_both_forms():
    torch.manual_seed(0)
    encoder = Encoder(32, 1).double()
    sequences = [torch.randn(length, 32).double() for length in (3, 5, 1)]
    values, mask = pad_sequences(sequences)
    packed = encoder.forward_packed(*pack_sequences(sequences))
    assert torch.linalg.norm(encoder(values, mask)[mask] - packed) / torch.linalg.norm(packed) < 1e-12
