"""Attention within graphs: padded, packed and written out alike, with gradients, biases and dropout."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from quintet.core.attention import Attention
from quintet.graphs.models.attention import DistanceBias, GraphAttention, padded_is_faster
from quintet.graphs.models.padded_attention import padded_attention
from quintet.graphs.models.padding import padding_of


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def with_gradients(call, *inputs):
    leaves = [each.detach().clone().requires_grad_() for each in inputs]
    y = call(*leaves)
    return [y, *torch.autograd.grad(y, leaves, torch.linspace(-1, 2, y.numel()).to(y.dtype).view_as(y))]


BORDERS = torch.tensor([0, 5, 5, 6, 13, 16])  # the second is empty


def dense(qkv, heads, bias=None, factor=None):
    """One softmax a graph."""
    outputs = []
    for number, (first, stop) in enumerate(pairwise(BORDERS)):
        count = int(stop - first)
        query, key, value = qkv[first:stop].view(count, 3, heads, qkv.shape[1] // (3 * heads)).permute(1, 2, 0, 3)
        scores = query @ key.mT / query.shape[-1] ** 0.5
        scores = scores if bias is None else scores + bias[number, :, :count, :count]
        weights = scores.softmax(-1)
        weights = weights if factor is None else weights * factor[number * heads : (number + 1) * heads, :count, :count]
        outputs.append((weights @ value).transpose(0, 1).flatten(1))
    return torch.cat(outputs)


def test_written_out_attention_and_its_gradients():
    torch.manual_seed(0)
    qkv, bias = torch.randn(16, 24).double(), torch.randn(5, 2, 7, 7).double()
    padding = padding_of(BORDERS, 16, torch.float64)
    found = with_gradients(lambda x, b: padded_attention(x, padding, 2, b), qkv, bias)
    expected = with_gradients(lambda x, b: dense(x, 2, b), qkv, bias)
    for ours, theirs in zip(found, expected):
        assert error(ours, theirs) < 1e-12
    found, expected = (
        with_gradients(lambda x: padded_attention(x, padding, 2), qkv),
        with_gradients(lambda x: dense(x, 2), qkv),
    )
    assert max(map(error, found, expected)) < 1e-12


def test_dropout_is_of_the_weights(monkeypatch):
    torch.manual_seed(0)
    qkv, kept = torch.randn(16, 24).double(), 2.0 * torch.randint(2, (10, 7, 7)).double()
    monkeypatch.setattr("quintet.graphs.models.padded_attention.dropout", lambda ones, rate: ones * kept)
    padding = padding_of(BORDERS, 16, torch.float64)
    found = with_gradients(lambda x: padded_attention(x, padding, 2, None, 0.5), qkv)
    expected = with_gradients(lambda x: dense(x, 2, None, kept), qkv)
    assert max(map(error, found, expected)) < 1e-12


def test_padded_and_packed_are_cores_attention():
    torch.manual_seed(0)
    ours, theirs = GraphAttention(16, 4), Attention(16, 4)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(16, 16)
    expected = torch.cat([theirs(part[None])[0] for part in x.split(BORDERS.diff().tolist())])
    padding = padding_of(BORDERS, 16)
    packed, padded = ours.forward_packed(x, BORDERS), ours.forward_packed(x, BORDERS, padding=padding)
    assert error(packed, expected) < 1e-5
    assert error(padded, packed) < 1e-5
    assert error(padding.pack(ours(padding.pad(x), padding.mask)), packed) < 1e-5
    with torch.autocast("cpu", torch.bfloat16):
        assert error(ours.forward_packed(x, BORDERS, padding=padding).float(), expected) < 0.02


def test_distances_are_a_bias_of_each_head():
    torch.manual_seed(0)
    layer, counts = DistanceBias(3, 2), [2, 1, 3]
    tables = [torch.randint(0, 5, (count, count)) for count in counts]
    distances = torch.cat([table.flatten() for table in tables]).to(torch.int8).unsqueeze(1)
    found = layer(distances, torch.tensor([0, 2, 3, 6]), 3)
    for number, table in enumerate(tables):
        expected = F.embedding(table, layer.table.weight).permute(2, 0, 1)
        assert torch.equal(found[number, :, : len(table), : len(table)], expected)


@pytest.mark.parametrize(("counts", "padded"), [([20] * 32, True), ([9, 38] * 16, True), ([20] * 31 + [2000], False)])
def test_which_is_faster_goes_by_padding(counts, padded):
    assert padded_is_faster(counts) is padded
