"""Cross attention against its formula in float64 and torch.nn.MultiheadAttention."""

import pytest
import torch
from torch import nn

from quintet.core.attention import CrossAttention
from quintet.core.errors import QuintetError
from quintet.core.norm import RMSNorm


def error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def test_equals_its_formula_with_groups_and_norms():
    torch.manual_seed(0)
    layer = CrossAttention(32, context_dim=24, num_heads=4, num_key_value_heads=2, qk_norm=RMSNorm)
    x, context = torch.randn(2, 3, 4, 32), torch.randn(2, 2, 2, 3, 24)
    y = layer(x, context)
    layer = layer.double()
    x, context = x.double().flatten(1, 2), context.double().flatten(1, 3)
    query = layer.q_norm(layer.q(x).unflatten(-1, (4, 8)))
    key, value = layer.kv(context)[..., :16].unflatten(-1, (2, 8)), layer.kv(context)[..., 16:].unflatten(-1, (2, 8))
    heads = []
    for head in range(4):
        scores = query[:, :, head] @ layer.k_norm(key)[:, :, head // 2].mT / 8**0.5
        heads.append(scores.softmax(-1) @ value[:, :, head // 2])
    assert y.shape == (2, 3, 4, 32)
    assert error(y.flatten(1, 2), layer.proj(torch.cat(heads, dim=-1))) < 1e-6


def test_equals_torch_on_the_same_weights_and_mask():
    torch.manual_seed(0)
    layer = CrossAttention(64, context_dim=40, num_heads=4)
    reference = nn.MultiheadAttention(64, 4, kdim=40, vdim=40, batch_first=True)
    with torch.no_grad():
        reference.in_proj_bias.normal_()
        layer.q.weight.copy_(reference.q_proj_weight)
        layer.kv.weight.copy_(torch.cat([reference.k_proj_weight, reference.v_proj_weight]))
        layer.q.bias.copy_(reference.in_proj_bias[:64])
        layer.kv.bias.copy_(reference.in_proj_bias[64:])
    layer.proj.load_state_dict(reference.out_proj.state_dict())
    x, context = torch.randn(2, 5, 64), torch.randn(2, 7, 40)
    mask = torch.arange(7) < torch.tensor([[7], [3]])
    expected, _ = reference(x, context, context, key_padding_mask=~mask, need_weights=False)
    assert error(layer(x, context, mask), expected) < 1e-6


def test_masked_context_is_unseen_and_an_empty_one_gives_zero():
    torch.manual_seed(0)
    layer = CrossAttention(32, num_heads=2)
    x, context = torch.randn(2, 5, 32), torch.randn(2, 7, 32)
    mask = torch.tensor([[True] * 4 + [False] * 3, [False] * 7])
    poisoned = context.masked_fill(~mask.unsqueeze(-1), float("nan"))
    y = layer(x, poisoned, mask)
    assert error(y[:1], layer(x[:1], context[:1, :4])) < 1e-6
    assert y[1].count_nonzero() == 0
    y.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in layer.parameters())


def test_widths_that_do_not_fit_are_refused():
    with pytest.raises(QuintetError, match=r"context_dim=24.*a context shaped \(1, 3, 32\)"):
        CrossAttention(32, context_dim=24)(torch.zeros(1, 2, 32), torch.zeros(1, 3, 32))


@pytest.mark.compilation
def test_compiles_in_one_graph():
    layer = CrossAttention(32, num_heads=2)
    x, context, mask = torch.randn(2, 5, 32), torch.randn(2, 3, 4, 32), torch.rand(2, 3, 4) < 0.5
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert error(compiled(x, context, mask), layer(x, context, mask)) < 1e-6
    torch._dynamo.reset()
