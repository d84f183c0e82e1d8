"""PatchTST: parity with the published layout, independent channels, any mixer."""

import pytest
import torch
import torch.nn.functional as F

from quintet.core.aside import listening
from quintet.core.attention import Attention
from quintet.core.errors import QuintetError
from quintet.core.weights.pretrained import load_weights
from quintet.core.weights.registry import count_parameters, create_model
from quintet.timeseries.models import PatchTST
from quintet.timeseries.models.patchtst import ResidualAttention, TokenBatchNorm

L, H, D, HIDDEN, HEADS, DEPTH, PATCH, STRIDE = 32, 10, 16, 24, 4, 3, 8, 4
PATCHES = (L - PATCH) // STRIDE + 2


def published() -> dict[str, torch.Tensor]:
    """Random float64 weights under the names and in the shapes of the published code."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)

    state = {"W_pos": draw(PATCHES, D), "W_P.weight": draw(D, PATCH), "W_P.bias": draw(D)}
    for layer in range(DEPTH):
        prefix = f"encoder.layers.{layer}"
        for name in ("W_Q", "W_K", "W_V", "to_out.0"):
            state |= {f"{prefix}.self_attn.{name}.weight": draw(D, D), f"{prefix}.self_attn.{name}.bias": draw(D)}
        state[f"{prefix}.self_attn.sdp_attn.scale"] = torch.tensor((D // HEADS) ** -0.5, dtype=torch.float64)
        for name, shape in (("ff.0", (HIDDEN, D)), ("ff.3", (D, HIDDEN))):
            state |= {f"{prefix}.{name}.weight": draw(*shape), f"{prefix}.{name}.bias": draw(shape[0])}
        for name in ("norm_attn.1", "norm_ffn.1"):
            state |= {f"{prefix}.{name}.weight": 1 + draw(D), f"{prefix}.{name}.bias": draw(D)}
            state |= {f"{prefix}.{name}.running_mean": draw(D), f"{prefix}.{name}.running_var": 1 + draw(D).abs()}
            state[f"{prefix}.{name}.num_batches_tracked"] = torch.tensor(5)
    state = {f"model.backbone.{key}": value for key, value in state.items()}
    return state | {"model.head.linear.weight": draw(H, D * PATCHES), "model.head.linear.bias": draw(H)}


def forecast(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The paper's equations over the published names, written down again in float64, channel by channel."""
    mean = x.mean(1, keepdim=True)
    std = (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    return torch.stack([one_channel(state, ((x - mean) / std)[..., c]) for c in range(x.shape[-1])], -1) * std + mean


def one_channel(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    def linear(tokens: torch.Tensor, name: str) -> torch.Tensor:
        return tokens @ state[f"model.{name}.weight"].T + state[f"model.{name}.bias"]

    def norm(tokens: torch.Tensor, name: str) -> torch.Tensor:
        mean, var, weight, bias = (
            state[f"model.backbone.{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (tokens - mean) / (var + 1e-5).sqrt() * weight + bias

    x = torch.cat([x, x[:, -1:].expand(-1, STRIDE)], 1)
    patches = torch.stack([x[:, start : start + PATCH] for start in range(0, x.shape[1] - PATCH + 1, STRIDE)], 1)
    tokens, previous = linear(patches, "backbone.W_P") + state["model.backbone.W_pos"], 0.0
    for layer in range(DEPTH):
        prefix = f"encoder.layers.{layer}"
        query, key, value = (
            linear(tokens, f"backbone.{prefix}.self_attn.{name}").unflatten(-1, (HEADS, -1))
            for name in ("W_Q", "W_K", "W_V")
        )
        scale = state[f"model.backbone.{prefix}.self_attn.sdp_attn.scale"]
        previous = torch.einsum("bphe,bqhe->bhpq", query, key) * scale + previous
        mixed = torch.einsum("bhpq,bqhe->bphe", previous.softmax(-1), value).flatten(2)
        tokens = norm(tokens + linear(mixed, f"backbone.{prefix}.self_attn.to_out.0"), f"{prefix}.norm_attn.1")
        hidden = linear(F.gelu(linear(tokens, f"backbone.{prefix}.ff.0")), f"backbone.{prefix}.ff.3")
        tokens = norm(tokens + hidden, f"{prefix}.norm_ffn.1")
    return linear(tokens.transpose(1, 2).flatten(1), "head.linear")


def small(**arguments) -> PatchTST:
    sizes = {"patch_size": PATCH, "stride": STRIDE, "dim": D, "depth": DEPTH, "hidden_dim": HIDDEN}
    return PatchTST(L, H, **sizes | arguments)


def test_parity_with_the_published_layout(tmp_path):
    state = published()
    torch.save(state, tmp_path / "checkpoint.pth")
    model = small(num_heads=HEADS).double().eval()
    report = load_weights(model, tmp_path / "checkpoint.pth")
    assert (report.layout, report.head_replaced) == ("PatchTST", [])
    x = 5 + 3 * torch.randn(3, L, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = forecast(state, x)
    assert (model(x).squeeze(-1) - expected).norm() / expected.norm() < 1e-12
    assert (model.float()(x.float()).squeeze(-1) - expected).norm() / expected.norm() < 1e-5


def test_registered_sizes():
    small, large = create_model("timeseries/patchtst_small"), create_model("timeseries/patchtst")
    assert small.position.position.shape == (42, 16)
    # Embedding, positions, layers (attention, norms, feed-forward) and head, counted by hand.
    layer = 4 * (128 * 128 + 128) + 2 * 2 * 128 + 2 * 128 * 256 + 256 + 128
    assert count_parameters(large) == 16 * 128 + 128 + 42 * 128 + 3 * layer + 128 * 42 * 96 + 96


def test_channels_do_not_see_each_other():
    model = small(num_heads=HEADS).eval()
    x = torch.randn(2, L, 3)
    assert torch.allclose(model(x)[:, :, 1:2], model(x[:, :, 1:2]), atol=1e-6)


def test_quantiles_are_outputs():
    assert small(outputs=5, num_heads=HEADS)(torch.randn(2, L, 3)).shape == (2, H, 3, 5)


def test_mixers_of_all_kinds(mixer):
    model = PatchTST(16, 4, patch_size=4, stride=2, dim=32, depth=1, mixer=mixer)
    forecasts = model(torch.randn(2, 16, 2))
    assert forecasts.shape == (2, 4, 2, 1)
    forecasts.sum().backward()


def test_residual_attention_without_scores_is_softmax_attention():
    ours, core = ResidualAttention(D, HEADS).eval(), Attention(D, HEADS).eval()
    core.load_state_dict(ours.state_dict())
    x, mask = torch.randn(2, 7, D), torch.rand(2, 7) > 0.3
    mask[1] = False
    assert torch.allclose(ours(x, mask)[0], core(x, mask), atol=1e-6)


def test_scores_are_handed_on_and_added_up():
    """Weights of the second layer: softmax of its own scores and those of the first."""
    model = small(num_heads=HEADS).eval()
    with listening(model, "weights") as heard:
        model(torch.randn(1, L, 1))
    blocks, scores = model.encoder.blocks, []
    inputs = []
    for block in blocks:
        block.mixer.register_forward_pre_hook(lambda _, tokens: inputs.append(tokens[0]))
    torch.manual_seed(0)
    x = torch.randn(1, L, 1)
    with listening(model, "weights") as heard:
        model(x)
    for block, tokens in zip(blocks, inputs):
        q, k, _ = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in block.mixer.qkv(tokens).chunk(3, -1))
        scores.append(q @ k.mT / (D // HEADS) ** 0.5)
    assert len(blocks) > 1
    for layer in range(len(blocks)):
        (found,) = heard["weights"][f"encoder.blocks.{layer}.mixer"]
        assert torch.allclose(found.dense(), sum(scores[: layer + 1]).softmax(-1), atol=1e-5)


def test_token_batch_norm_is_over_all_tokens():
    x = torch.randn(4, 5, D) * 3 + 1
    flat = TokenBatchNorm(D)(x).flatten(0, 1)
    assert torch.allclose(flat.mean(0), torch.zeros(D), atol=1e-5)
    assert torch.allclose(flat.var(0, unbiased=False), torch.ones(D), atol=1e-3)


def test_mistakes():
    with pytest.raises(QuintetError, match="holds no patch of patch_size=16"):
        PatchTST(8, 4)
    with pytest.raises(QuintetError, match=r"leave data.calendar out"):
        small(num_heads=HEADS)(torch.randn(1, L, 2), calendar=torch.zeros(1, L, 1))
