"""Attention with a bias against its definition spelt out pair by pair, and against torch's attention."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from quintet.kernels import bias_attention as module
from quintet.kernels._runtime import INTERPRETING
from quintet.kernels._spec import relative_error
from quintet.kernels.bias_attention import bias_attention


def by_definition(query, key, value, bias, mask, slopes, causal, scale):
    """bias (groups, heads or 1, queries or 1, keys or 1), mask (groups, queries or 1, keys)."""
    y = torch.zeros_like(query)
    behind = key.shape[1] - query.shape[1]
    for b, i, h in itertools.product(*map(range, query.shape[:3])):
        scores, seen = [], []
        for j in range(key.shape[1]):
            if mask is not None and not mask[b % len(mask), i % mask.shape[1], j]:
                continue
            if causal and j > i + behind:
                continue
            score = scale * query[b, i, h] @ key[b, j, h]
            if bias is not None:
                place = (b, h, i, j)
                score = score + bias[tuple(number % size for number, size in zip(place, bias.shape))]
            if slopes is not None:
                score = score - slopes[h] * abs(i + behind - j)
            scores.append(score)
            seen.append(value[b, j, h])
        if seen:
            y[b, i, h] = torch.stack(scores).softmax(0) @ torch.stack(seen)
    return y


@st.composite
def problems(draw):
    batch, queries, keys = draw(st.sampled_from([1, 4, 6])), draw(st.integers(1, 5)), draw(st.integers(1, 6))
    divisors = [number for number in range(1, batch + 1) if batch % number == 0]
    groups = st.sampled_from(divisors)
    bias = (draw(groups), draw(st.sampled_from([1, 2])), draw(st.sampled_from([1, queries])), keys)
    mask = (draw(groups), draw(st.sampled_from([1, queries])), keys)
    bias, mask = draw(st.sampled_from([None, bias])), draw(st.sampled_from([None, mask]))
    return (batch, queries, keys), bias, mask, draw(st.booleans()), draw(st.booleans()), draw(st.integers(0, 99))


@pytest.mark.parametrize("backend", ["reference", "torch"])
@given(problem=problems())
def test_agrees_with_the_definition(backend, problem):
    (batch, queries, keys), bias_shape, mask_shape, has_slopes, causal, seed = problem
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    query, key, value = (normal(batch, length, 2, 3) for length in (queries, keys, keys))
    bias = None if bias_shape is None else normal(*bias_shape)
    mask = None if mask_shape is None else torch.rand(mask_shape, generator=generator) < 0.6
    slopes = normal(2) if has_slopes else None
    found = bias_attention(query, key, value, bias, mask, causal=causal, slopes=slopes, scale=0.7, backend=backend)
    expected = by_definition(query, key, value, bias, mask, slopes, causal, 0.7)
    assert relative_error(found, expected) < 1e-12


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("bias_shape", [(3, 7, 9), (4, 3, 7, 9), (2, 1, 7, 9), (1, 9)], ids=str)
def test_gradient_of_the_bias_is_that_of_the_scores_summed_over_what_shares_it(backend, bias_shape):
    """From the closed form: weights times (gradient . value minus its mean under the weights)."""
    if len(bias_shape) == 2:
        bias_shape = (1, *bias_shape)
    torch.manual_seed(0)
    query, key, value = (torch.randn(4, length, 3, 5, dtype=torch.float64) for length in (7, 9, 9))
    bias = torch.randn(bias_shape, dtype=torch.float64, requires_grad=True)
    grad = torch.randn_like(query)
    bias_attention(query, key, value, bias, backend=backend).backward(grad)

    full = bias.detach().reshape(-1, *bias_shape[-3:])
    full = full.repeat(4 // len(full), 1, 1, 1)
    weights = (torch.einsum("bqhd,bkhd->bhqk", query, key) / 5**0.5 + full).softmax(-1)
    pull = torch.einsum("bqhd,bkhd->bhqk", grad, value)
    of_scores = weights * (pull - (weights * pull).sum(-1, keepdim=True))
    shape = (1,) * (4 - len(bias_shape)) + bias_shape
    expected = of_scores.unflatten(0, (4 // shape[0], shape[0])).sum(0)
    for axis, size in enumerate(shape):
        expected = expected.sum(axis, keepdim=True) if size == 1 else expected
    assert relative_error(bias.grad, expected.reshape(bias.shape)) < 1e-12


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("with_bias", [False, True])
def test_queries_without_keys_give_zero_and_clean_gradients(backend, with_bias):
    torch.manual_seed(0)
    leaves = [torch.randn(4, 6, 2, 4, requires_grad=True) for _ in range(3)]
    bias = torch.randn(2, 6, 6, requires_grad=True) if with_bias else None
    mask = torch.rand(2, 6, 6) < 0.5
    mask[0, 2] = mask[1] = False
    y = bias_attention(*leaves, bias, mask, backend=backend)
    assert not y[0::2, 2].any()
    assert not y[1::2].any()
    y.square().sum().backward()
    for leaf in (*leaves, *([bias] if with_bias else [])):
        assert leaf.grad.isfinite().all()
    assert not leaves[0].grad[1::2].any()


def test_without_extras_it_is_plain_attention():
    query, key, value = torch.randn(3, 2, 11, 3, 8, generator=torch.Generator().manual_seed(0)).unbind()
    double = (tensor.double().transpose(1, 2) for tensor in (query, key, value))
    expected = F.scaled_dot_product_attention(*double, is_causal=True).transpose(1, 2)
    assert relative_error(bias_attention(query, key, value, causal=True), expected) < 1e-6


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_the_last_queries_of_a_sequence_alone_give_the_same(backend):
    """As when decoding with stored keys: positions count from the last key."""
    query, key, value = torch.randn(3, 2, 9, 2, 4, generator=torch.Generator().manual_seed(0)).unbind()
    settings = {"causal": True, "slopes": torch.tensor([0.5, 0.25]), "backend": backend}
    whole = bias_attention(query, key, value, **settings)
    assert relative_error(bias_attention(query[:, -3:], key, value, **settings), whole[:, -3:]) < 1e-6


def test_steep_slopes_leave_each_token_to_itself():
    query, key, value = torch.randn(3, 1, 9, 1, 4, generator=torch.Generator().manual_seed(0)).unbind()
    y = bias_attention(query, key, value, slopes=torch.tensor([200.0]))
    assert relative_error(y, value) < 1e-6


def test_large_scores_do_not_overflow():
    query, key, value = torch.randn(3, 1, 9, 1, 4, generator=torch.Generator().manual_seed(0)).unbind()
    bias = torch.full((1, 9, 9), 5000.0)
    for dtype, most in ((torch.float32, 1e-3), (torch.float16, 2e-2)):
        tensors = [tensor.to(dtype) for tensor in (query, key, value)]
        y = bias_attention(*tensors, (bias * torch.eye(9)).to(dtype), torch.rand(1, 9, 9) < 2)
        assert relative_error(y, value) < most


@pytest.mark.interpreter
@pytest.mark.skipif(not INTERPRETING, reason="set TRITON_INTERPRET=1 to interpret the kernels")
def test_shares_of_the_gradient_of_the_bias_add_up():
    """Nine batch entries in several programs, some with more entries than others."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 9, 4, 1, 3).unbind()
    bias, gradients = torch.randn(1, 4, 4), {}
    for backend in ("triton", "reference"):
        leaf = bias.clone().requires_grad_()
        bias_attention(query, key, value, leaf, backend=backend).square().sum().backward()
        gradients[backend] = leaf.grad
    assert relative_error(gradients["triton"], gradients["reference"]) < 1e-5


def made(**changes):
    query, key, value = torch.zeros(3, 4, 5, 2, 8).unbind()
    return {"query": query, "key": key, "value": value} | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value": torch.zeros(4, 5, 2, 8).double()}, "query, key and value do not fit each other"),
        ({"bias": torch.zeros(3, 5, 5)}, r"bias has shape \(3, 5, 5\); these inputs need \(\[groups,\] 2, 5, 5\)"),
        ({"bias": torch.zeros(3, 2, 5, 5)}, "bias has 3 groups, which do not divide a batch of 4"),
        ({"mask": torch.ones(4, 4, 5).bool()}, r"mask has shape \(4, 4, 5\); these inputs need \(groups, 5\) or"),
        ({"mask": torch.ones(3, 5).bool()}, "mask has 3 groups, which do not divide a batch of 4"),
        ({"slopes": torch.zeros(3)}, r"slopes has shape \(3,\); 2 heads need one each"),
        ({"backend": "cuda"}, "backend 'cuda' is unknown"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_and_why(changes, message):
    with pytest.raises(ValueError, match=message):
        bias_attention(**made(**changes))


# Keys and values share one stride that is told to the kernels, queries have their own

LAUNCH = {"bias": None, "mask": None, "slopes": None, "causal": False, "scale": 1.0}
NAMES = ("query", "key", "value")


@pytest.mark.parametrize("name", NAMES)
def test_kernels_get_keys_and_values_of_one_layout(name):
    given = dict(zip(NAMES, torch.randn(3, 2, 5, 3, 8, generator=torch.Generator().manual_seed(0))))
    other = given | {name: given[name].transpose(0, 2).contiguous().transpose(0, 2)}
    for tensors in (other, {key: tensor.mT.contiguous().mT for key, tensor in given.items()}):
        launch = module._launch(**tensors, **LAUNCH)
        for key, tensor in given.items():
            found = launch.tensors[f"{key}_ptr"]
            assert torch.equal(found, tensor)
            kind = "query" if key == "query" else "key"
            told = [launch.numbers[f"{kind}_{stride}"] for stride in ("batch_stride", "stride", "head_stride")]
            assert [*told, 1] == [*found.stride()]


def test_parts_of_one_projection_are_not_copied():
    parts = dict(zip(NAMES, torch.zeros(2, 5, 3, 3, 8).unbind(2)))
    launch = module._launch(**parts, **LAUNCH)
    assert all(launch.tensors[f"{key}_ptr"].data_ptr() == tensor.data_ptr() for key, tensor in parts.items())
