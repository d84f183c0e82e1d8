"""Blocks against the formulas of the three placements, and against timm."""

import pytest
import timm.models.vision_transformer as timm_vit
import torch
from torch import nn

from quintet.core.attention import Attention, LinearAttention
from quintet.core.blocks.block import Block, DropPath, LayerScale
from quintet.core.errors import QuintetError
from quintet.core.norm import RMSNorm


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def randomized(module):
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


@pytest.mark.parametrize("layer_scale", [None, 0.1])
@pytest.mark.parametrize("placement", ["pre", "post", "peri"])
@pytest.mark.parametrize("norm", [nn.LayerNorm, RMSNorm])
def test_equals_its_formula(placement, layer_scale, norm):
    torch.manual_seed(0)
    block = randomized(Block(32, norm=norm, placement=placement, layer_scale=layer_scale)).double()
    x, mask = torch.randn(2, 3, 4, 32).double(), torch.rand(2, 3, 4) < 0.7
    g1, g2 = (1.0, 1.0) if layer_scale is None else (block.scale1.gamma, block.scale2.gamma)
    if placement == "pre":
        h = x + g1 * block.mixer(block.norm1(x), mask)
        expected = h + g2 * block.feedforward(block.norm2(h))
    elif placement == "post":
        h = block.norm1(x + g1 * block.mixer(x, mask))
        expected = block.norm2(h + g2 * block.feedforward(h))
    else:
        h = x + g1 * block.output_norm1(block.mixer(block.norm1(x), mask))
        expected = h + g2 * block.output_norm2(block.feedforward(block.norm2(h)))
    assert error(block(x, mask), expected) < 1e-12
    assert len([child for child in block.modules() if isinstance(child, norm)]) == (4 if placement == "peri" else 2)


def test_equals_timm_on_the_same_weights():
    torch.manual_seed(0)
    reference = randomized(timm_vit.Block(64, num_heads=2, qkv_bias=True, init_values=0.1, norm_layer=nn.LayerNorm))
    block = Block(64, layer_scale=0.1, norm=nn.LayerNorm)
    names = {"attn.": "mixer.", "mlp.": "feedforward.", "ls1.": "scale1.", "ls2.": "scale2."}
    state = {}
    for key, value in reference.state_dict().items():
        prefix = next((prefix for prefix in names if key.startswith(prefix)), "")
        state[names.get(prefix, "") + key.removeprefix(prefix)] = value
    block.load_state_dict(state)
    x = torch.randn(2, 10, 64)
    assert error(block(x), reference(x)) < 1e-6


def test_mixer_only_and_arguments_for_the_mixer():
    torch.manual_seed(0)
    block, x = Block(32, feedforward=None), torch.randn(2, 5, 32)
    bias = torch.randn(2, 1, 5, 5)
    assert error(block(x, bias=bias), x + block.mixer(block.norm1(x), bias=bias)) < 1e-6
    with pytest.raises(QuintetError, match="no layer of this Block takes bias; they take cu_seqlens, mask"):
        Block(32, mixer=LinearAttention)(x, bias=bias)


def test_drop_path_drops_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    layer, x = DropPath(0.25), torch.ones(4000, 2, 3)
    y = layer(x)
    kept = y[:, 0, 0] != 0
    assert torch.equal(y, (kept / 0.75).view(-1, 1, 1).expand_as(y))
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert layer.eval()(x) is x


def test_a_block_with_drop_path_skips_whole_samples():
    torch.manual_seed(0)
    block, x = Block(32, drop_path=0.5), torch.randn(64, 3, 32)
    changed = (block(x) != x).flatten(1)
    assert changed.any(1).float().mean().item() == pytest.approx(0.75, abs=0.15)
    assert torch.equal(changed.any(1), changed.all(1))


def test_layer_scale_starts_where_told():
    assert torch.equal(LayerScale(3, 0.5)(torch.ones(2, 3)), torch.full((2, 3), 0.5))


def test_what_does_not_fit_is_refused():
    with pytest.raises(QuintetError, match="probability below 1; got 1"):
        DropPath(1.0)
    assert isinstance(Block(32).mixer, Attention)
