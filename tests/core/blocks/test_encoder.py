"""Encoders against torch.nn.TransformerEncoder, by hand, and in compositions of published designs."""

from functools import partial

import pytest
import torch
from torch import nn

from quintet.core.attention import Attention, LinearAttention, NeighborhoodAttention
from quintet.core.blocks.encoder import Encoder, StagedEncoder, downsample_mask, drop_path_rates, keep_inputs_only
from quintet.core.errors import QuintetError
from quintet.core.feedforward import Mlp, SwiGLU
from quintet.core.norm import LayerNorm, RMSNorm
from quintet.core.position import RotaryPosition
from quintet.core.ssm import MinGRU
from quintet.core.weights.registry import create_model


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


class Downsample(nn.Module):
    """Every second token along each axis, projected."""

    def __init__(self, dim_before, dim_after):
        super().__init__()
        self.projection = nn.Linear(dim_before, dim_after)

    def forward(self, x):
        return self.projection(x[(slice(None), *(slice(None, None, 2),) * (x.dim() - 2))])


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_equals_torch_on_the_same_weights(placement):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        32, 2, 128, dropout=0.0, activation="gelu", batch_first=True, norm_first=placement == "pre", layer_norm_eps=1e-6
    )
    final = nn.LayerNorm(32, eps=1e-6) if placement == "pre" else None
    reference = nn.TransformerEncoder(layer, 3, norm=final, enable_nested_tensor=False)
    for parameter in reference.parameters():
        nn.init.normal_(parameter, std=0.2)
    encoder = Encoder(32, 3, mixer=partial(Attention, num_heads=2), placement=placement)
    names = [
        ("layers.", "blocks."),
        ("self_attn.in_proj_", "mixer.qkv."),
        ("self_attn.out_proj", "mixer.proj"),
        ("linear1", "feedforward.fc1"),
        ("linear2", "feedforward.fc2"),
    ]
    state = {}
    for key, value in reference.state_dict().items():
        for old, new in names:
            key = key.replace(old, new)
        state[key] = value
    encoder.load_state_dict(state)
    x, mask = torch.randn(2, 7, 32), torch.arange(7) < torch.tensor([[7], [4]])
    expected = reference(x, src_key_padding_mask=~mask)
    y = encoder(x, mask)
    assert error(y[mask], expected[mask]) < 1e-6
    assert y[~mask].count_nonzero() == 0


def test_mixers_take_turns_and_drop_path_rises():
    encoder = Encoder(32, 5, mixer=[Attention, Attention, LinearAttention], drop_path=0.2)
    assert [type(block.mixer).__name__[:4] for block in encoder.blocks] == ["Atte", "Atte", "Line", "Atte", "Atte"]
    assert [block.drop_path.rate for block in encoder.blocks] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert drop_path_rates(0.3, 1) == [0.0]
    assert [block.drop_path.rate for block in Encoder(32, 2, drop_path=[0.3, 0.1]).blocks] == [0.3, 0.1]


@pytest.mark.parametrize(("placement", "has_norm"), [("pre", True), ("peri", True), ("post", False)])
def test_final_norm_by_default_where_the_stream_is_not_normalized(placement, has_norm):
    assert isinstance(Encoder(32, 1, placement=placement).norm, LayerNorm) == has_norm
    assert isinstance(Encoder(32, 1, placement=placement, final_norm=False).norm, nn.Identity)
    assert isinstance(Encoder(32, 1, placement=placement, final_norm=True, norm=RMSNorm).norm, RMSNorm)


def test_intermediates_are_the_outputs_of_blocks():
    torch.manual_seed(0)
    encoder, x = Encoder(32, 4), torch.randn(2, 3, 4, 32)
    mask = torch.rand(2, 3, 4) < 0.7
    streams = [x.masked_fill(~mask.unsqueeze(-1), 0.0)]
    for block in encoder.blocks:
        streams.append(block(streams[-1], mask))
    outputs = encoder.intermediates(x, [-1, 0, 2], mask)
    for output, number in zip(outputs, (4, 1, 3)):
        assert error(output[mask], streams[number][mask]) < 1e-6
        assert output[~mask].count_nonzero() == 0
    assert error(encoder.intermediates(x, [3], mask, normalize=True)[0], encoder(x, mask)) < 1e-6
    for wrong in ([4], [-5], []):
        with pytest.raises(QuintetError, match="blocks 0 to 3"):
            encoder.intermediates(x, wrong)


@pytest.mark.parametrize("placement", ["pre", "post", "peri"])
def test_nothing_at_masked_tokens_reaches_outputs_or_gradients(placement):
    torch.manual_seed(0)
    encoder = Encoder(32, 2, placement=placement, layer_scale=0.5)
    x, mask = torch.randn(2, 9, 32), torch.arange(9) < torch.tensor([[6], [0]])
    y = encoder(x.masked_fill(~mask.unsqueeze(-1), float("nan")), mask)
    assert error(y[:1, :6], encoder(x[:1, :6])) < 1e-6
    y.square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in encoder.parameters())


@pytest.mark.parametrize("placement", ["pre", "post", "peri"])
@pytest.mark.parametrize("mixer", [Attention, partial(Attention, causal=True, rotary=RotaryPosition), MinGRU])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_first_tokens_alone_are_the_first_of_all(placement, mixer, masked, checkpointing):
    torch.manual_seed(0)
    encoder = Encoder(32, 2, mixer, placement=placement, gradient_checkpointing=checkpointing)
    x = torch.randn(3, 9, 32, requires_grad=True)
    mask = torch.arange(9) < torch.tensor([[9], [5], [1]]) if masked else None
    found, expected = encoder(x, mask, queries=2), encoder(x, mask)[:, :2]
    assert error(found, expected) < 1e-6
    slope = torch.randn_like(expected)
    (own,), (other,) = (torch.autograd.grad(y, x, slope) for y in (found, expected))
    assert error(own, other) < 1e-6


def test_first_tokens_alone_take_their_rows_of_a_bias():
    encoder, x, bias = Encoder(32, 2), torch.randn(2, 7, 32), torch.randn(2, 1, 7, 7)
    assert error(encoder(x, bias=bias, queries=3), encoder(x, bias=bias)[:, :3]) < 1e-6


def test_gradient_checkpointing_changes_nothing_but_memory():
    torch.manual_seed(0)
    x, bias = torch.randn(2, 5, 32), torch.randn(1, 1, 5, 5)
    encoder = Encoder(
        32, 2, mixer=partial(Attention, dropout=0.2), drop_path=0.2, feedforward=partial(Mlp, dropout=0.2)
    )
    stored, gradients = [], []
    for checkpointing in (False, True):
        encoder.gradient_checkpointing, count = checkpointing, []
        encoder.zero_grad()
        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(lambda t, count=count: count.append(t.numel()) or t, lambda t: t):
            y = encoder(x, bias=bias)
        y.square().sum().backward()
        stored.append(sum(count))
        gradients.append([parameter.grad.clone() for parameter in encoder.parameters()])
    assert stored[1] < 0.3 * stored[0]
    for one, other in zip(*gradients):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-7)


def test_lists_of_another_length_are_refused():
    with pytest.raises(QuintetError, match="2 drop path rates for 3 blocks"):
        Encoder(32, 3, drop_path=[0.1, 0.2])
    with pytest.raises(QuintetError, match="empty list"):
        Encoder(32, 3, mixer=[])
    for arguments in ({"depths": [1]}, {"mixer": [Attention]}, {"feedforward": [Mlp, Mlp, Mlp]}):
        with pytest.raises(QuintetError, match=f"entries in {next(iter(arguments))} for the 2 stages"):
            StagedEncoder(**({"dims": [16, 32], "depths": [1, 1], "downsample": Downsample} | arguments))


def test_stages_are_encoders_one_after_another():
    torch.manual_seed(0)
    encoder = StagedEncoder([16, 32, 48], [1, 2, 1], Downsample, drop_path=0.3, feedforward=[Mlp, SwiGLU, Mlp]).eval()
    x = torch.randn(2, 8, 12, 16)
    outputs = encoder(x)
    assert [tuple(output.shape[1:]) for output in outputs] == [(8, 12, 16), (4, 6, 32), (2, 3, 48)]
    for number, stage in enumerate(encoder.stages):
        x = stage(x if number == 0 else encoder.downsamples[number - 1](x))
        assert torch.equal(outputs[number], x)
    rates = [block.drop_path.rate for stage in encoder.stages for block in stage.blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])
    assert isinstance(encoder.stages[1].blocks[0].feedforward, SwiGLU)
    assert not any(isinstance(stage.norm, LayerNorm) for stage in encoder.stages)


def test_dilated_neighborhood_attention_transformer():
    """The Mini model of arXiv 2209.15001: dilations 1,8,1 / 1,4,1,4 / 1,2,1,2,1,2 / 1,1,1,1,1, and its 20 M weights."""

    def pair(dilation):
        return [NeighborhoodAttention, partial(NeighborhoodAttention, dilation=dilation)]

    with torch.device("meta"):
        encoder = StagedEncoder(
            [64, 128, 256, 512],
            [3, 4, 6, 5],
            lambda before, after: nn.Sequential(nn.Linear(9 * before, after, bias=False), nn.LayerNorm(after)),
            mixer=[pair(8), pair(4), pair(2), NeighborhoodAttention],
            feedforward=partial(Mlp, ratio=3.0),
        )
    dilations = [[block.mixer.dilation[0] for block in stage.blocks] for stage in encoder.stages]
    assert dilations == [[1, 8, 1], [1, 4, 1, 4], [1, 2, 1, 2, 1, 2], [1, 1, 1, 1, 1]]
    assert [stage.blocks[0].mixer.num_heads for stage in encoder.stages] == [2, 4, 8, 16]
    # Two stem convolutions with a norm, a final norm and the classifier complete the published 19.98 M.
    rest = 9 * 3 * 32 + 32 + 9 * 32 * 64 + 64 + 2 * 64 + 2 * 512 + 512 * 1000 + 1000
    assert round((sum(parameter.numel() for parameter in encoder.parameters()) + rest) / 1e6, 2) == 19.98


def test_stage_norm_feeds_the_next_stage():
    torch.manual_seed(0)
    encoder, x = StagedEncoder([16, 32], [1, 1], Downsample, stage_norm=True), torch.randn(1, 8, 16)
    first, second = encoder(x)
    assert first.mean(-1).abs().max() < 1e-5
    assert torch.equal(second, encoder.stages[1](encoder.downsamples[0](first)))


@pytest.mark.parametrize("grid", [(8,), (4, 8), (2, 4, 8)])
def test_masks_shrink_with_the_grid(grid):
    torch.manual_seed(0)
    mask = torch.rand(3, *grid) < 0.3
    coarse = tuple(length // 2 for length in grid)
    expected = torch.zeros(3, *coarse, dtype=torch.bool)
    for place in mask.nonzero():
        expected[(place[0], *(place[1:] // 2))] = True
    assert torch.equal(downsample_mask(mask, coarse), expected)
    assert downsample_mask(mask, grid) is mask
    encoder = StagedEncoder([16, 32], [1, 1], Downsample)
    x = torch.randn(3, *grid, 16)
    outputs = encoder(x.masked_fill(~mask.unsqueeze(-1), float("nan")), mask)
    for found, truth in zip(outputs, encoder(x.masked_fill(~mask.unsqueeze(-1), 0.0), mask)):
        assert torch.equal(found, truth)
    assert outputs[1][~expected].count_nonzero() == 0


@pytest.mark.compilation
def test_compiles_in_one_graph():
    encoder = Encoder(32, 2, placement="peri", layer_scale=0.1, feedforward=SwiGLU, norm=RMSNorm, drop_path=0.1)
    x, mask = torch.randn(2, 5, 32), torch.rand(2, 5) < 0.7
    compiled = torch.compile(encoder, fullgraph=True, backend="aot_eager")
    compiled(x, mask).sum().backward()
    encoder.eval()
    assert error(compiled(x, mask), encoder(x, mask)) < 1e-5
    torch._dynamo.reset()


@pytest.mark.compilation
def test_stages_compile_in_one_graph():
    encoder = StagedEncoder([16, 32], [1, 1], Downsample, gradient_checkpointing=True)
    x, mask = torch.randn(2, 4, 6, 16), torch.rand(2, 4, 6) < 0.7
    compiled = torch.compile(encoder, fullgraph=True, backend="aot_eager")
    for found, expected in zip(compiled(x, mask), encoder(x, mask)):
        assert error(found, expected) < 1e-5
    torch._dynamo.reset()


@pytest.mark.parametrize("placement", ["pre", "post", "peri"])
def test_a_scan_of_two_halves_is_the_whole(placement):
    torch.manual_seed(0)
    encoder = Encoder(16, 2, MinGRU, placement=placement, layer_scale=0.5).double().eval()
    x = torch.randn(2, 9, 16).double()
    first, states = encoder.scan(x[:, :4])
    second, _ = encoder.scan(x[:, 4:], states)
    assert error(torch.cat([first, second], 1), encoder(x)) < 1e-12
    with pytest.raises(QuintetError, match="carries no state"):
        Encoder(16, 1).scan(x.float())


def test_the_last_block_computes_first_tokens_alone():
    encoder, lengths = Encoder(32, 2), []
    for block in encoder.blocks:
        block.feedforward.register_forward_pre_hook(lambda _, tokens: lengths.append(tokens[0].shape[1]))
    encoder(torch.randn(1, 9, 32), queries=2)
    assert lengths == [9, 2]


class Saved:
    """Numbers that torch keeps for the way back."""

    def __enter__(self):
        self.numbers = 0

        def keep(tensor):
            self.numbers += tensor.numel() * (not isinstance(tensor, nn.Parameter))
            return tensor

        self.hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error):
        self.hooks.__exit__(*error)


@pytest.mark.parametrize(
    ("name", "arguments", "inputs"),
    [
        ("vision/vit_tiny", {"dim": 32, "depth": 4, "image_size": 32, "num_classes": 2}, (2, 3, 32, 32)),
        ("vision/nat_mini", {"dim": 32, "depths": (2, 2), "num_classes": 2}, (2, 3, 32, 32)),
        ("vision/mit_b0", {"num_classes": 2}, (2, 3, 64, 64)),
        (
            "timeseries/informer",
            {"channels": 2, "calendar": 0, "dim": 32, "context": 24, "start": 12, "horizon": 8, "depth": 3},
            (2, 24, 2),
        ),
        ("timeseries/nilmformer", {"calendar": 0, "dim": 32}, (2, 32)),
        (
            "timeseries/tirex2",
            {
                "context": 64,
                "horizon": 8,
                "patch_size": 8,
                "dim": 32,
                "num_heads": 2,
                "hidden_dim": 32,
                "recipe": ("mlstm", "slstm"),
            },
            (2, 64, 2),
        ),
        ("timeseries/itransformer", {"context": 24, "horizon": 8, "dim": 32}, (2, 24, 3)),
        ("timeseries/patchtst", {"context": 64, "horizon": 8, "dim": 32, "num_heads": 2}, (2, 64, 2)),
    ],
)
def test_checkpointing_reaches_models_and_changes_no_gradient(name, arguments, inputs):
    x, results = torch.randn(inputs), []
    for only in (False, True):
        torch.manual_seed(0)
        model = create_model(name, **arguments)
        keep_inputs_only(model, only)
        torch.manual_seed(1)
        with Saved() as saved:
            y = model(x)
        y.square().mean().backward()
        results.append((saved.numbers, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])))
    (much, expected), (little, found) = results
    assert little < 0.7 * much
    assert error(found, expected) < 1e-5
