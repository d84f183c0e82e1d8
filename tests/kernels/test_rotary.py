"""Rotary positions: properties of rotations, layouts, parity with timm, x-transformers, flash-linear-attention."""

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import apply_rot_embed_cat
from timm.layers.pos_embed_sincos import build_rotary_pos_embed

from quintet.kernels._runtime import INTERPRETING
from quintet.kernels._spec import relative_error
from quintet.kernels.rotary import rotary, rotary_angles

LAYOUTS = ["half", "interleaved"]
sizes = {
    "layout": st.sampled_from(LAYOUTS),
    "grid": st.lists(st.integers(1, 4), min_size=1, max_size=3),
    "pairs": st.integers(1, 3),
    "rest": st.integers(0, 3),
    "seed": st.integers(0, 99),
}


def sample(grid, pairs, rest, seed):
    torch.manual_seed(seed)
    angles = rotary_angles(50 * torch.rand(*grid, len(grid), dtype=torch.float64), pairs)
    head_dim = 2 * pairs * len(grid) + rest
    query, key = (torch.randn(2, *grid, heads, head_dim, dtype=torch.float64) for heads in (3, 1))
    return query, key, angles


@given(**sizes)
def test_rotations_keep_lengths_and_add_up(layout, grid, pairs, rest, seed):
    query, key, angles = sample(grid, pairs, rest, seed)
    for backend in ("torch", "reference"):
        turned = rotary(query, key, angles, layout=layout, backend=backend)
        for before, after in zip((query, key), turned):
            assert relative_error(after.norm(dim=-1), before.norm(dim=-1)) < 1e-12
        twice = rotary(*turned, 2 * angles, layout=layout, backend=backend)
        for found, expected in zip(twice, rotary(query, key, 3 * angles, layout=layout, backend=backend)):
            assert relative_error(found, expected) < 1e-10


@given(**sizes)
def test_layouts_are_orders_of_the_same_channels_and_others_stay(layout, grid, pairs, rest, seed):
    query, key, angles = sample(grid, pairs, rest, seed)
    turned, _ = rotary(query, key, angles, layout=layout)
    assert torch.equal(turned[..., 2 * angles.shape[-1] :], query[..., 2 * angles.shape[-1] :])
    count = angles.shape[-1]
    half = torch.arange(2 * count).view(2, count)
    order = torch.cat([half.T.flatten(), torch.arange(2 * count, query.shape[-1])])  # of "half" in "interleaved"
    interleaved, _ = rotary(query[..., order], key[..., order], angles, layout="interleaved")
    assert relative_error(interleaved, rotary(query, key, angles, layout="half")[0][..., order]) < 1e-12


def test_scores_depend_on_differences_of_positions():
    torch.manual_seed(0)
    query, key = torch.randn(1, 16, dtype=torch.float64), torch.randn(1, 16, dtype=torch.float64)
    positions = torch.tensor([[3.0, 5.0], [13.0, 4.0], [0.0, 2.0], [10.0, 1.0]], dtype=torch.float64)
    query, key = rotary(query.expand(1, 4, 1, 16), key.expand(1, 4, 1, 16), rotary_angles(positions, 4))
    scores = torch.einsum("bihd,bjhd->ij", query, key)
    assert scores[0, 1].item() == pytest.approx(scores[2, 3].item(), abs=1e-12)


def test_angles_by_hand():
    angles = rotary_angles(torch.tensor([[2, 7]]), 2, base=100.0)
    assert torch.allclose(angles, torch.tensor([[2.0, 0.2, 7.0, 0.7]]), rtol=1e-6, atol=0)
    assert rotary_angles(torch.tensor([[1, 2]]), 0).shape == (1, 0)


def test_samples_may_have_positions_of_their_own():
    torch.manual_seed(0)
    query, key = torch.randn(2, 5, 3, 8), torch.randn(2, 5, 1, 8)
    angles = rotary_angles(torch.tensor([[0.0], [100.0]]).unsqueeze(1) + torch.arange(5.0).unsqueeze(-1), 4)
    turned = rotary(query, key, angles)
    for one in range(2):
        alone = rotary(query[one : one + 1], key[one : one + 1], angles[one])
        assert all(relative_error(part[one : one + 1], expected) < 1e-6 for part, expected in zip(turned, alone))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_timm(layout):
    torch.manual_seed(0)
    query, key = torch.randn(2, 12, 4, 16), torch.randn(2, 12, 4, 16)
    half = layout == "half"
    table = torch.cat(build_rotary_pos_embed([3, 4], dim=16, in_pixels=False, rotate_half=half), dim=-1)
    positions = torch.stack(torch.meshgrid(torch.arange(3.0), torch.arange(4.0), indexing="ij"), dim=-1).flatten(0, 1)
    for found, x in zip(rotary(query, key, rotary_angles(positions, 4), layout=layout), (query, key)):
        expected = apply_rot_embed_cat(x.transpose(1, 2), table, half=half).transpose(1, 2)
        assert relative_error(found, expected) < 1e-6


@pytest.mark.interpreter
@pytest.mark.skipif(not INTERPRETING, reason="set TRITON_INTERPRET=1 to interpret the kernels")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_kernel_reads_query_and_key_inside_one_projection(layout):
    torch.manual_seed(0)
    projected = torch.randn(2, 3, 5, (4 + 2 + 2) * 10, requires_grad=True)
    query, key, _ = projected.unflatten(-1, (-1, 10)).split((4, 2, 2), dim=-2)
    angles = torch.randn(3, 5, 4)
    turned, expected = (
        torch.cat(rotary(query, key, angles, layout=layout, backend=backend), dim=-2)
        for backend in ("triton", "reference")
    )
    assert relative_error(turned.detach(), expected.detach()) < 1e-5
    found, truth = (torch.autograd.grad(out.pow(3).sum(), projected)[0] for out in (turned, expected))
    assert relative_error(found, truth) < 1e-5


def test_wrong_arguments_are_refused_in_words(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # shape checks would speak first
    query, key, angles = torch.zeros(2, 5, 3, 8), torch.zeros(2, 5, 1, 8), torch.zeros(5, 4)
    with pytest.raises(ValueError, match=r"key \(2, 4, 1, 8\); only their heads may differ"):
        rotary(query, key[:, :4], angles)
    with pytest.raises(ValueError, match=r"angles must be \(5, 'pairs'\) or \(2, 5, 'pairs'\) with at most 4 pairs"):
        rotary(query, key, angles[:4])
    with pytest.raises(ValueError, match="with at most 4 pairs"):
        rotary(query, key, torch.zeros(5, 5))
    with pytest.raises(ValueError, match="layout 'split' is unknown; choose 'half' or 'interleaved'"):
        rotary(query, key, angles, layout="split")


@pytest.mark.peers
@pytest.mark.parametrize("rest", [0, 6])
def test_equals_x_transformers(rest):
    torch.manual_seed(0)
    peer = pytest.importorskip("x_transformers.x_transformers", reason="install quintet[peers]")
    query, key = torch.randn(2, 9, 4, 16 + rest), torch.randn(2, 9, 1, 16 + rest)
    frequencies, _ = peer.RotaryEmbedding(16).forward_from_seq_len(9)
    angles = rotary_angles(torch.arange(9).unsqueeze(-1), 8)
    for found, x in zip(rotary(query, key, angles, layout="interleaved"), (query, key)):
        expected = peer.apply_rotary_pos_emb(x.transpose(1, 2), frequencies).transpose(1, 2)
        assert relative_error(found, expected) < 1e-6


@pytest.mark.peers
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_flash_linear_attention(layout):
    torch.manual_seed(0)
    peer = pytest.importorskip("fla.modules.rotary.ops", reason="install quintet[peers]")
    query, key, angles = torch.randn(2, 9, 4, 20), torch.randn(2, 9, 1, 20), torch.randn(9, 8)
    for found, x in zip(rotary(query, key, angles, layout=layout), (query, key)):
        expected = peer.rotary_embedding_ref(x, angles.cos(), angles.sin(), interleaved=layout == "interleaved")
        assert relative_error(found, expected) < 1e-6
