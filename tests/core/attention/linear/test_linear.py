"""Linear attention against its definition, all pairs in float64."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from quintet.core.attention import LinearAttention
from quintet.core.attention.feature_maps import elu_plus_one
from quintet.core.attention.normalizers import DivideByRootMeanSquare
from quintet.core.convolution import DepthwiseConvolution
from quintet.core.errors import QuintetError
from quintet.core.weights.records import build


def error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def all_pairs(layer, x, mask=None):
    """weights[i, j] = f(q_i) · f(k_j) over those of all j that i may see, normalised to sum to one."""
    layer = layer.double()
    query, key, value = layer.qkv(x.double()).unflatten(-1, (3, layer.num_heads, -1)).unbind(2)
    weights = torch.einsum("bihd,bjhd->bhij", layer.feature_map(query), layer.feature_map(key))
    if layer.causal:
        places = torch.arange(x.shape[1])
        weights = weights * (places[None, :] <= places[:, None])
    if mask is not None:
        weights = weights * mask[:, None, None, :]
    weights = weights / weights.sum(-1, keepdim=True)
    return layer.proj(torch.einsum("bhij,bjhd->bihd", weights, value).flatten(2))


@given(time=st.integers(1, 70), chunk_size=st.integers(1, 33), seed=st.integers(0, 99))
def test_causal_equals_all_pairs(time, chunk_size, seed):
    torch.manual_seed(seed)
    layer, x = LinearAttention(32, num_heads=2, causal=True, chunk_size=chunk_size), torch.randn(2, time, 32)
    assert error(layer(x), all_pairs(layer, x)) < 1e-6


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "feature_map", [elu_plus_one, F.softplus, lambda x: torch.cat([x.relu(), (-x).relu()], dim=-1)]
)
def test_mask_and_other_feature_maps(causal, feature_map):
    torch.manual_seed(0)
    layer = LinearAttention(32, num_heads=2, causal=causal, feature_map=feature_map)
    x, mask = torch.randn(2, 40, 32), torch.rand(2, 40) < 0.6
    assert error(layer(x, mask)[mask], all_pairs(layer, x, mask)[mask]) < 1e-6


def test_gradients_of_the_chunks_are_those_of_all_pairs():
    torch.manual_seed(0)
    layer, x = LinearAttention(16, num_heads=2, causal=True, chunk_size=4).double(), torch.randn(1, 11, 16).double()
    x.requires_grad_()
    inputs, probe = (x, *layer.parameters()), torch.randn(1, 11, 16).double()
    found = torch.autograd.grad((layer(x) * probe).sum(), inputs)
    expected = torch.autograd.grad((all_pairs(layer, x) * probe).sum(), inputs)
    for one, other in zip(found, expected):
        assert error(one, other) < 1e-12


def test_recurrence_of_the_paper():
    """S_i = S_{i-1} + f(k_i) v_iᵀ, z_i = z_{i-1} + f(k_i): the state after each step, in order."""
    torch.manual_seed(0)
    layer, x, state = LinearAttention(32, num_heads=2, causal=True), torch.randn(2, 9, 32), None
    sums, normalizer = torch.zeros(2, 2, 16, 16), torch.zeros(2, 2, 16)
    for token in x.unbind(1):
        _, state = layer.step(token, state)
        _, key, value = layer.qkv(token).unflatten(-1, (3, 2, 16)).unbind(1)
        sums = sums + torch.einsum("bhf,bhd->bhfd", elu_plus_one(key), value)
        normalizer = normalizer + elu_plus_one(key)
        assert error(state.key_value, sums) < 1e-6
        assert error(state.normalizer, normalizer) < 1e-6


def test_a_long_sequence_in_bfloat16_keeps_its_state_in_float32():
    """4096 positive terms: a bfloat16 sum would stop growing at 256 times its terms."""
    torch.manual_seed(0)
    layer = LinearAttention(32, causal=True).to(torch.bfloat16)
    x = torch.randn(1, 4096, 32).to(torch.bfloat16)
    y, state = layer.scan(x)
    assert y.dtype == torch.bfloat16
    assert state.normalizer.dtype == state.key_value.dtype == torch.float32
    assert error(y, all_pairs(layer, x)) < 1e-2
    _, key, _ = layer.qkv(x.double()).unflatten(-1, (3, 1, 32)).unbind(2)
    assert error(state.normalizer, elu_plus_one(key).sum(1)) < 1e-3


def test_without_causality_there_is_no_state():
    layer = LinearAttention(32)
    assert not layer.streaming
    with pytest.raises(QuintetError, match="only with causal=True"):
        layer.step(torch.zeros(1, 32))


def test_normalizer_and_value_convolution_are_where_they_belong():
    """RMS over all heads together of the sums, plus a convolution of the real values that is written out by loops."""
    torch.manual_seed(0)
    layer = LinearAttention(
        8, 2, F.elu, normalizer=DivideByRootMeanSquare, value_convolution=partial(DepthwiseConvolution, kernel_size=3)
    ).double()
    x, mask = torch.randn(2, 3, 4, 8, dtype=torch.float64), torch.rand(2, 3, 4) < 0.7
    query, key, value = layer.qkv(x).unflatten(-1, (3, 2, 4)).unbind(3)
    key, values = F.elu(key) * mask[..., None, None], value * mask[..., None, None]
    sums = torch.einsum("bxyhf,bijhf,bijhd->bxyhd", F.elu(query), key, value).flatten(3)
    expected = sums / (sums.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    weight, bias = layer.value_convolution.convolution.weight, layer.value_convolution.convolution.bias
    padded = torch.zeros(2, 5, 6, 8, dtype=torch.float64)
    padded[:, 1:4, 1:5] = values.flatten(3)
    for row in range(3):
        for column in range(3):
            expected = expected + padded[:, row : row + 3, column : column + 4] * weight[:, 0, row, column]
    assert error(layer(x, mask)[mask], layer.proj(expected + bias)[mask]) < 1e-12


def test_causal_attention_refuses_a_convolution_over_values():
    with pytest.raises(QuintetError, match=r"DepthwiseConvolution looks at later tokens.*causal=True"):
        LinearAttention(8, causal=True, value_convolution=partial(DepthwiseConvolution, rank=1))


def test_the_convolution_decides_the_rank_and_its_size_is_checked():
    with pytest.raises(QuintetError, match=r"\(batch, height, width, 8\); got \(1, 3, 8\)"):
        LinearAttention(8, value_convolution=DepthwiseConvolution)(torch.zeros(1, 3, 8))
    with pytest.raises(QuintetError, match="odd kernel_size and a rank of 1 to 3; got 4 and 2"):
        DepthwiseConvolution(8, kernel_size=4)


def test_weights_of_earlier_checkpoints_fit():
    """The default has the tensors that it had when its feature map was a function, under which checkpoints know it."""
    names = {"qkv.weight", "qkv.bias", "proj.weight", "proj.bias"}
    earlier = {"class_path": "quintet.core.attention.linear.LinearAttention", "partial": True}
    earlier["init_args"] = {"feature_map": {"function": "quintet.core.attention.linear.elu_plus_one"}}
    torch.manual_seed(0)
    layer, x = LinearAttention(16), torch.randn(1, 5, 16)
    restored = build(earlier)(16)
    assert set(layer.state_dict()) == set(restored.state_dict()) == names
    restored.load_state_dict(layer.state_dict())
    assert torch.equal(restored(x), layer(x))
