"""Parallel, repeated and cross blocks and the decoder, against their formulas and torch's decoder layer."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from quintet.core.attention import Attention, CrossAttention, LinearAttention, NeighborhoodAttention
from quintet.core.blocks import CrossBlock, Parallel, Reduction, Repeated, StagedDecoder
from quintet.core.blocks.block import Block
from quintet.core.blocks.encoder import Encoder, StagedEncoder
from quintet.core.errors import QuintetError
from quintet.core.feedforward import Mlp
from quintet.core.norm import RMSNorm
from quintet.core.ssm import HGRN, MinGRU


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def test_parallel_branches_are_added_and_promise_what_all_do():
    torch.manual_seed(0)
    both, x = Parallel(16, [partial(Attention, causal=True), MinGRU]), torch.randn(2, 5, 16)
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    assert error(both(x, mask), both.branches[0](x, mask) + both.branches[1](x, mask)) < 1e-6
    assert both.causal
    assert not both.streaming
    assert not Parallel(16, [Attention, MinGRU]).causal
    local = Parallel(16, [NeighborhoodAttention, Attention])
    assert local.grid_ranks == {2}
    assert not local.padding_invariant
    with pytest.raises(QuintetError, match=r"take \{1\} and \{2\} grid axes: none in common"):
        Parallel(16, [partial(NeighborhoodAttention, rank=1), NeighborhoodAttention])
    with pytest.raises(QuintetError, match="needs a mixer"):
        Parallel(16, [])


def test_parallel_recurrences_stream_and_pack():
    torch.manual_seed(0)
    encoder, x = Encoder(16, 1, partial(Parallel, mixers=[HGRN, MinGRU])), torch.randn(1, 7, 16)
    first, state = encoder.scan(x[:, :4])
    second, _ = encoder.scan(x[:, 4:], state)
    assert error(torch.cat([first, second], 1), encoder(x)) < 1e-5
    alone = torch.cat([encoder(x[:, :3]), encoder(x[:, 3:])], 1)[0]
    assert error(encoder.forward_packed(x[0], torch.tensor([0, 3, 7])), alone) < 1e-5


def test_first_tokens_alone_need_every_branch():
    torch.manual_seed(0)
    x = torch.randn(2, 5, 32)
    for mixers in ([Attention, Attention], [Attention, LinearAttention]):
        encoder = Encoder(32, 2, partial(Parallel, mixers=mixers))
        assert ("queries" in encoder.blocks[0].takes) == (mixers[1] is Attention)
        assert error(encoder(x, queries=2), encoder(x)[:, :2]) < 1e-6


def test_repeated_is_the_block_again_and_again():
    torch.manual_seed(0)
    encoder, x = Encoder(16, 1, block=partial(Repeated, times=3), norm=RMSNorm, layer_scale=0.5), torch.randn(2, 5, 16)
    (repeated,) = encoder.blocks
    assert isinstance(repeated.block.norm1, RMSNorm)
    assert repeated.block.scale1.gamma[0] == 0.5
    expected = repeated.block(repeated.block(repeated.block(x)))
    assert error(encoder(x), encoder.norm(expected)) < 1e-6
    assert sum(p.numel() for p in encoder.parameters()) == sum(
        p.numel() for p in Encoder(16, 1, norm=RMSNorm, layer_scale=0.5).parameters()
    )

    class Counting(nn.Module):
        takes = frozenset({"count"})

        def __init__(self, dim):
            super().__init__()

        def forward(self, x, count=0):
            return x * (count + 1), {"count": count + 1}

    changing = Repeated(16, Counting, times=3, feedforward=None, norm=lambda _: nn.Identity())
    y, changes = changing(x, count=1)  # x + 2x, then three more of it, then four
    assert error(y, x * 3 * 4 * 5) < 1e-6
    assert changes == {"count": 4}
    with pytest.raises(QuintetError, match="at least once"):
        Repeated(16, times=0)


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_a_cross_block_is_torchs_decoder_layer(placement):
    torch.manual_seed(0)
    reference = nn.TransformerDecoderLayer(
        16, 2, 64, dropout=0.0, activation="gelu", batch_first=True, norm_first=placement == "pre", layer_norm_eps=1e-6
    )
    for parameter in reference.parameters():
        nn.init.normal_(parameter, std=0.3)
    heads = {"num_heads": 2}
    block = CrossBlock(16, partial(Attention, **heads), partial(CrossAttention, **heads), placement=placement)
    state = {}
    for key, value in reference.state_dict().items():
        for old, new in (
            ("self_attn.in_proj_", "mixer.qkv."),
            ("self_attn.out_proj", "mixer.proj"),
            ("multihead_attn.out_proj", "cross.proj"),
            ("linear1", "feedforward.fc1"),
            ("linear2", "feedforward.fc2"),
            ("norm1", "norms.mixer"),
            ("norm2", "norms.cross"),
            ("norm3", "norms.feedforward"),
        ):
            key = key.replace(old, new)
        if key.startswith("multihead_attn"):
            kind = key.rsplit("_", 1)[1]
            state[f"cross.q.{kind}"], state[f"cross.kv.{kind}"] = value[:16], value[16:]
        else:
            state[key] = value
    block.load_state_dict(state)
    x, context = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    mask, seen = torch.arange(5) < torch.tensor([[5], [3]]), torch.arange(7) < torch.tensor([[4], [7]])
    expected = reference(x, context, tgt_key_padding_mask=~mask, memory_key_padding_mask=~seen)
    found = block(x, mask, context=context, context_mask=seen)
    assert error(found[mask], expected[mask]) < 1e-5
    packed = Encoder(16, 1, partial(Attention, **heads), block=lambda *_: block, final_norm=False)
    tokens = packed.forward_packed(x[mask], torch.tensor([0, 5, 8]), context=context, context_mask=seen)
    assert error(tokens, expected[mask]) < 1e-5


def test_mistakes_of_cross_blocks():
    x = torch.randn(1, 3, 16)
    with pytest.raises(QuintetError, match="reads a context"):
        CrossBlock(16)(x)
    with pytest.raises(QuintetError, match="no layer of this CrossBlock takes contxt"):
        CrossBlock(16)(x, contxt=x)
    with pytest.raises(QuintetError, match="placement is pre or post"):
        CrossBlock(16, placement="peri")


def test_blocks_of_ones_own():
    class Plain(nn.Module):
        def __init__(self, dim, mixer, norm=RMSNorm):
            super().__init__()
            self.norm, self.mixer = norm(dim), mixer(dim)

        def forward(self, x, mask=None):
            return x + self.mixer(self.norm(x), mask)

    torch.manual_seed(0)
    encoder, x = Encoder(16, 2, block=Plain), torch.randn(2, 5, 16)
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    assert isinstance(encoder.blocks[0].norm, RMSNorm)  # its own default
    expected = x * mask.unsqueeze(-1)
    for block in encoder.blocks:
        expected = block(expected, mask)
    assert error(encoder(x, mask), encoder.norm(expected) * mask.unsqueeze(-1)) < 1e-6
    assert error(encoder(x, mask, queries=1), encoder(x, mask)[:, :1]) < 1e-6
    with pytest.raises(QuintetError, match="a Plain has no layer_scale"):
        Encoder(16, 2, block=Plain, layer_scale=0.1)
    with pytest.raises(QuintetError, match="a Plain has no drop_path"):
        Encoder(16, 2, block=Plain, drop_path=0.1)
    staged = StagedEncoder([16, 16], [1, 2], nn.Linear, block=Plain)
    assert [len(stage(x).shape) for stage in staged.stages] == [3, 3]
    assert all(isinstance(block, Plain) for stage in staged.stages for block in stage.blocks)


def test_a_mask_follows_the_tokens_that_are_left():
    class First(Reduction):
        def __init__(self, dim):
            super().__init__()

        def forward(self, x, mask=None):
            return x[:, ::2], {"mask": None if mask is None else mask[:, ::2]}

    torch.manual_seed(0)
    encoder, x = Encoder(16, 2, reductions={0: First}), torch.randn(2, 6, 16)
    mask = torch.arange(6) < torch.tensor([[6], [3]])
    found = encoder(x, mask)
    clean = x * mask.unsqueeze(-1)
    expected = encoder.norm(encoder.blocks[1](encoder.blocks[0](clean, mask)[:, ::2], mask[:, ::2]))
    assert error(found, expected * mask[:, ::2].unsqueeze(-1)) < 1e-6
    assert not found[1, 2:].any()
    with pytest.raises(QuintetError, match=r"after blocks 0 to 1; got \[2\]"):
        Encoder(16, 2, reductions={2: First})
    with pytest.raises(QuintetError, match="take no mask, queries or reductions"):
        encoder.forward_packed(x[0], torch.tensor([0, 6]))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_decoder_is_its_formula(rank):
    torch.manual_seed(0)
    grids = [(7, 5, 4)[:rank], (3, 3, 2)[:rank]]
    features = [torch.randn(2, *grid, dim) for grid, dim in zip(grids, (16, 32))]
    decoder = StagedDecoder((16, 32), (1,))
    projection, encoder = decoder.upsamples[0].projection, decoder.stages[0]
    coarse = projection(features[1])
    finer = F.interpolate(coarse.movedim(-1, 1), grids[0], mode=("linear", "bilinear", "trilinear")[rank - 1])
    joined = decoder.merges[0].projection(torch.cat([finer.movedim(1, -1), features[0]], -1))
    fine, last = decoder(features)
    assert error(fine, encoder.norm(encoder.blocks[0](joined))) < 1e-6
    assert last is features[1]
    mask = torch.rand(2, *grids[0]) < 0.7
    assert error(decoder(features, mask)[0], encoder(joined, mask)) < 1e-6
    with pytest.raises(QuintetError, match=r"joins stages of widths \(16, 32\), finest first; got \(32, 16\)"):
        decoder(features[::-1])
    with pytest.raises(QuintetError, match="2 entries in depths for the 1 stages above"):
        StagedDecoder((16, 32), (1, 1))


def test_drop_path_falls_towards_the_finest_stage():
    decoder = StagedDecoder((8, 16, 32), (2, 2), drop_path=0.3, feedforward=partial(Mlp, ratio=1.0))
    rates = [block.drop_path.rate for stage in decoder.stages for block in stage.blocks]
    assert rates == pytest.approx([0.1, 0.0, 0.3, 0.2])
    assert all(isinstance(block, Block) for block in decoder.stages[0].blocks)


class Halving(Reduction):
    """Every other token, with what is given of them where it says so."""

    def __init__(self, dim, says_bias=True):
        super().__init__()
        self.says_bias = says_bias
        self.takes = frozenset({"mask", "bias"})

    def forward(self, x, mask=None, bias=None):
        changes = {"mask": None if mask is None else mask[:, ::2]}
        return x[:, ::2], changes | ({"bias": bias[..., ::2, ::2]} if self.says_bias else {})


def test_a_reduction_says_what_becomes_of_all_that_counts_on_the_tokens():
    torch.manual_seed(0)
    encoder = Encoder(16, 2, reductions={0: Halving}).double().eval()
    x, bias = torch.randn(2, 6, 16).double(), torch.randn(1, 1, 6, 6).double()
    mask = torch.arange(6) < torch.tensor([[6], [3]])
    first, second = encoder.blocks
    half = first(x.masked_fill(~mask[..., None], 0.0), mask, bias=bias)[:, ::2]
    expected = encoder.norm(second(half, mask[:, ::2], bias=bias[..., ::2, ::2])) * mask[:, ::2, None]
    assert error(encoder(x, mask, bias=bias), expected) < 1e-12
    with pytest.raises(QuintetError, match=r"leaves \(3,\) of \(6,\) tokens and does not say what becomes of bias"):
        Encoder(16, 2, reductions={0: partial(Halving, says_bias=False)})(x.float(), mask, bias=bias.float())


def test_layers_are_not_asked_for_first_tokens():
    encoder, x = Encoder(16, 2), torch.randn(2, 5, 16)
    for ask in (lambda: encoder.layers(x, queries=1), lambda: encoder.intermediates(x, [0], queries=1)):
        with pytest.raises(QuintetError, match="leave queries out"):
            ask()


def test_a_block_keeps_the_mixer_it_was_given_by_hand():
    assert Encoder(16, 1, block=partial(CrossBlock, mixer=None)).blocks[0].mixer is None
    assert isinstance(Encoder(16, 1, block=partial(Block, mixer=MinGRU)).blocks[0].mixer, MinGRU)
    with pytest.raises(QuintetError, match="not to both"):
        Encoder(16, 1, MinGRU, block=partial(Block, mixer=HGRN))


def test_a_decoder_refuses_the_mask_of_another_grid():
    decoder, features = StagedDecoder([16, 16], [1]), [torch.randn(2, 7, 16), torch.randn(2, 4, 16)]
    with pytest.raises(QuintetError, match=r"finest grid, \(2, 7\); got \(2, 4\)"):
        decoder(features, torch.ones(2, 4, dtype=torch.bool))
