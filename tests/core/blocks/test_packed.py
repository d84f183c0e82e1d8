"""Packed sequences give what padded ones give, and what each gives by itself, gradients included."""

from functools import partial

import pytest
import torch
from torch import nn

from quintet.core.attention import Attention, NeighborhoodAttention, WindowAttention
from quintet.core.attention.linear import GatedDeltaNet, GatedLinearAttention, Retention
from quintet.core.blocks import CrossBlock, Parallel, Repeated
from quintet.core.blocks.encoder import Encoder, StagedEncoder
from quintet.core.errors import QuintetError
from quintet.core.norm import AdaptiveNorm, BatchNorm, RMSNorm
from quintet.core.position import RotaryPosition
from quintet.core.ssm import HGRN, MLSTM, Mamba2, MinGRU
from quintet.core.weights.registry import list_mixers, mixer_class

LENGTHS = [5, 1, 7]
BORDERS = torch.tensor([0, 5, 6, 13])


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def outputs_and_gradients(encoder, call, slope):
    y = call()
    return y, torch.autograd.grad(y, list(encoder.parameters()), slope, allow_unused=True)


MIXERS = [
    Attention,
    partial(Attention, causal=True, rotary=RotaryPosition, qk_norm=RMSNorm, num_heads=4, num_key_value_heads=2),
    HGRN,
    MinGRU,
    *(
        mixer_class(name)
        for name in list_mixers()
        if name in ("linear", "mlstm", "mamba", "mamba2", "gated_deltanet", "prob_sparse")
    ),
    partial(WindowAttention, rank=1, window_size=3),
]


@pytest.mark.parametrize("mixer", MIXERS)
def test_packed_is_padded_and_alone(mixer):
    """In float64: what a norm undoes, as a shift of all input gates, has gradients near zero: float32's rounding."""
    torch.manual_seed(0)
    encoder = Encoder(32, 2, mixer).double().eval()
    for parameter in encoder.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    tokens, slope = torch.randn(2, 13, 32).double()
    mask = torch.arange(7) < torch.tensor(LENGTHS)[:, None]
    padded = tokens.new_zeros(3, 7, 32).masked_scatter(mask.unsqueeze(-1), tokens)
    y, gradients = outputs_and_gradients(encoder, lambda: encoder.forward_packed(tokens, BORDERS), slope)
    alone = torch.cat([encoder(part[None])[0] for part in tokens.split(LENGTHS)])
    expected, wanted = outputs_and_gradients(encoder, lambda: encoder(padded, mask)[mask], slope)
    assert error(y, expected) < 1e-9
    assert error(y, alone) < 1e-9
    for found, truth in zip(gradients, wanted):
        assert truth is None or error(found, truth) < 1e-9


@pytest.mark.parametrize(
    "mixer", [Attention, HGRN, MinGRU, GatedLinearAttention, Retention, Mamba2, MLSTM, GatedDeltaNet]
)
def test_these_compute_no_padding(mixer, monkeypatch):
    def refuse(*_):
        raise AssertionError("tokens were padded")

    monkeypatch.setattr("quintet.core.mixer.pad_packed", refuse)
    Encoder(32, 1, mixer).forward_packed(torch.randn(13, 32), BORDERS)


def test_norms_over_the_batch_and_of_a_condition():
    torch.manual_seed(0)
    tokens, condition = torch.randn(13, 32).double(), torch.randn(3, 32).double()
    mask = torch.arange(7) < torch.tensor(LENGTHS)[:, None]
    padded = torch.zeros(3, 7, 32).double().masked_scatter(mask.unsqueeze(-1), tokens)
    for norm, given in ((BatchNorm, {}), (AdaptiveNorm, {"condition": condition})):
        encoder = Encoder(32, 2, norm=norm).double()
        for parameter in encoder.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        expected = encoder(padded, mask, **given)[mask]
        assert error(encoder.forward_packed(tokens, BORDERS, **given), expected) < 1e-12


def test_drop_path_drops_whole_sequences():
    torch.manual_seed(0)
    encoder = Encoder(32, 1, feedforward=None, drop_path=[0.5], final_norm=False)
    tokens, kept = torch.randn(13, 32), []
    for _ in range(8):
        branch = encoder.forward_packed(tokens, BORDERS) - tokens
        for part in branch.split(LENGTHS):
            moved = (part.abs().sum(-1) > 0).tolist()
            assert len(set(moved)) == 1
            kept.append(moved[0])
    assert 4 < sum(kept) < 20


def test_mistakes():
    encoder, tokens = Encoder(32, 1), torch.randn(13, 32)
    for borders in ([0, 5, 12], [1, 13], [0, 7, 5, 13], [13]):
        with pytest.raises(QuintetError, match="rise from 0 to their number"):
            encoder.forward_packed(tokens, torch.tensor(borders))
    with pytest.raises(QuintetError, match="take no mask, queries or reductions"):
        encoder.forward_packed(tokens, BORDERS, mask=torch.ones(13, dtype=torch.bool))
    with pytest.raises(QuintetError, match="NeighborhoodAttention depends on how much its sequences are padded"):
        Encoder(32, 1, partial(NeighborhoodAttention, rank=1)).forward_packed(tokens, BORDERS)


class OwnBlock(nn.Module):
    """A user's block that says nothing of borders."""

    def __init__(self, dim, mixer):
        super().__init__()
        self.mixer = mixer(dim)

    def forward(self, x, mask=None):
        return x + self.mixer(x, mask)


class OwnMixer(nn.Linear):
    """A user's mixer that says nothing at all."""

    def __init__(self, dim):
        super().__init__(dim, dim)


@pytest.mark.parametrize(
    "options",
    [
        {"block": OwnBlock},
        {"mixer": OwnMixer},
        {"mixer": partial(Parallel, mixers=[Attention, OwnMixer])},
        {"block": CrossBlock, "mixer": OwnMixer},
        {"block": partial(Repeated, block=OwnBlock)},
    ],
)
def test_what_cannot_be_told_of_borders_is_refused_instead_of_mixing_sequences(options):
    encoder = Encoder(16, 1, **options)
    with pytest.raises(QuintetError, match="would mix packed sequences"):
        encoder.forward_packed(torch.randn(13, 16), BORDERS)


def test_borders_come_without_a_mask_and_with_one_sample_and_not_to_stages():
    encoder, x = Encoder(16, 1), torch.randn(1, 13, 16)
    for tokens, mask in ((x, torch.ones(1, 13, dtype=torch.bool)), (x.expand(2, -1, -1), None)):
        with pytest.raises(QuintetError, match="one sample"):
            encoder(tokens, mask, cu_seqlens=BORDERS)
    with pytest.raises(QuintetError, match="no layer of this StagedEncoder takes cu_seqlens"):
        StagedEncoder([16], [1], nn.Linear)(x, cu_seqlens=BORDERS)
