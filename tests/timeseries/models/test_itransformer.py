"""iTransformer: parity with the published layout, any mixer, masked channels."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from quintet.core.attention import Attention, NeighborhoodAttention
from quintet.core.errors import QuintetError
from quintet.core.weights.pretrained import load_weights
from quintet.core.weights.registry import count_parameters
from quintet.timeseries.models import ITransformer
from quintet.timeseries.models.covariates import Covariates

L, H, D, HIDDEN, HEADS, DEPTH = 24, 12, 16, 20, 4, 2


def published(projector: str = "projector") -> dict[str, torch.Tensor]:
    """Random float64 weights under the names and in the shapes of the published code."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)

    state = {"enc_embedding.value_embedding.weight": draw(D, L), "enc_embedding.value_embedding.bias": draw(D)}
    for layer in range(DEPTH):
        prefix = f"encoder.attn_layers.{layer}"
        for name in ("query", "key", "value", "out"):
            state[f"{prefix}.attention.{name}_projection.weight"] = draw(D, D)
            state[f"{prefix}.attention.{name}_projection.bias"] = draw(D)
        for name, shape in (("conv1", (HIDDEN, D, 1)), ("conv2", (D, HIDDEN, 1))):
            state |= {f"{prefix}.{name}.weight": draw(*shape), f"{prefix}.{name}.bias": draw(shape[0])}
        for name in ("norm1", "norm2"):
            state |= {f"{prefix}.{name}.weight": 1 + draw(D), f"{prefix}.{name}.bias": draw(D)}
    state |= {"encoder.norm.weight": 1 + draw(D), "encoder.norm.bias": draw(D)}
    return state | {f"{projector}.weight": draw(H, D), f"{projector}.bias": draw(H)}


def forecast(state: dict[str, torch.Tensor], x: torch.Tensor, marks: torch.Tensor | None) -> torch.Tensor:
    """The paper's equations over the published names, written down again in float64."""

    def linear(tokens: torch.Tensor, name: str) -> torch.Tensor:
        weight = state[f"{name}.weight"]
        return tokens @ weight.reshape(weight.shape[:2]).T + state[f"{name}.bias"]

    def norm(tokens: torch.Tensor, name: str) -> torch.Tensor:
        centred = tokens - tokens.mean(-1, keepdim=True)
        var = centred.pow(2).mean(-1, keepdim=True)
        return centred / (var + 1e-5).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]

    mean = x.mean(1, keepdim=True)
    std = ((x - mean).pow(2).mean(1, keepdim=True) + 1e-5).sqrt()
    series = ((x - mean) / std).transpose(1, 2)
    if marks is not None:
        series = torch.cat([series, marks.transpose(1, 2)], 1)
    tokens = linear(series, "enc_embedding.value_embedding")
    for layer in range(DEPTH):
        prefix = f"encoder.attn_layers.{layer}"
        heads = [
            linear(tokens, f"{prefix}.attention.{name}_projection").unflatten(-1, (HEADS, -1))
            for name in ("query", "key", "value")
        ]
        scores = torch.einsum("blhe,bshe->bhls", heads[0], heads[1]) / math.sqrt(D // HEADS)
        mixed = torch.einsum("bhls,bshe->blhe", scores.softmax(-1), heads[2]).flatten(2)
        tokens = norm(tokens + linear(mixed, f"{prefix}.attention.out_projection"), f"{prefix}.norm1")
        hidden = linear(F.gelu(linear(tokens, f"{prefix}.conv1")), f"{prefix}.conv2")
        tokens = norm(tokens + hidden, f"{prefix}.norm2")
    name = "projector" if "projector.weight" in state else "projection"
    outputs = linear(norm(tokens, "encoder.norm"), name)[:, : x.shape[-1]].transpose(1, 2)
    return outputs * std + mean


@pytest.mark.parametrize("projector", ["projector", "projection"])
@pytest.mark.parametrize("marked", [False, True])
def test_parity_with_the_published_layout(tmp_path, projector, marked):
    state = published(projector)
    torch.save(state, tmp_path / "checkpoint.pth")
    model = ITransformer(L, H, dim=D, depth=DEPTH, num_heads=HEADS, hidden_dim=HIDDEN).double().eval()
    report = load_weights(model, tmp_path / "checkpoint.pth")
    assert (report.layout, report.head_replaced) == ("thuml", [])
    generator = torch.Generator().manual_seed(1)
    x = 5 + 3 * torch.randn(3, L, 7, generator=generator, dtype=torch.float64)
    marks = torch.rand(3, L, 4, generator=generator, dtype=torch.float64) - 0.5 if marked else None
    expected = forecast(state, x, marks)
    error = (model(x, calendar=marks).squeeze(-1) - expected).norm() / expected.norm()
    assert error < 1e-12
    single = model.float()(x.float(), calendar=None if marks is None else marks.float()).squeeze(-1)
    assert (single - expected).norm() / expected.norm() < 1e-5


def test_as_many_parameters_as_published():
    assert count_parameters(ITransformer()) == 841_568


def test_the_number_of_channels_is_free_and_quantiles_are_outputs():
    model = ITransformer(L, H, outputs=3, dim=D)
    for channels in (1, 5):
        assert model(torch.randn(2, L, channels)).shape == (2, H, channels, 3)


def test_mixers_of_all_kinds(mixer):
    model = ITransformer(8, 4, dim=32, depth=1, mixer=mixer)
    forecasts = model(torch.randn(2, 8, 5))
    assert forecasts.shape == (2, 4, 5, 1)
    forecasts.sum().backward()


def test_what_was_not_observed_changes_nothing():
    model = ITransformer(L, H, dim=D).eval()
    x, observed = torch.randn(2, L, 3), torch.ones(2, L, 3, dtype=torch.bool)
    observed[0, :5, 0] = False
    observed[1, :, 2] = False
    first = model(x, observed)
    second = model(torch.where(observed, x, 1e3), observed)
    assert torch.allclose(first, second, atol=1e-5)
    # A channel that shows nothing is invisible to the others.
    alone = model(x[1:, :, :2], observed[1:, :, :2])
    assert torch.allclose(first[1:, :, :2], alone, atol=1e-5)


def covariates() -> Covariates:
    return Covariates(torch.randn(2, L, 2), torch.randn(2, L + H, 1), torch.randn(2, 3))


def test_covariates_are_tokens_with_an_identity():
    model = ITransformer(L, H, dim=D, covariates={"past": 2, "future": 1, "static": 3}).eval()
    x, given = torch.randn(2, L, 3), covariates()
    tokens, real = model.covariates(given)
    assert tokens.shape == (2, 6, D)
    assert real.all()
    # Two features of equal values are told apart.
    twins = given._replace(past=given.past[..., :1].expand(-1, -1, 2))
    tokens, _ = model.covariates(twins)
    assert not torch.allclose(tokens[:, 0], tokens[:, 1])
    # The horizon of the future ones is seen, and one of which nothing is known is no token.
    forecast = model(x, covariates=given)
    later = given.future.clone()
    later[:, -1] += 1
    assert not torch.allclose(model(x, covariates=given._replace(future=later)), forecast)
    given.past[:, :, 0] = torch.nan
    _, real = model.covariates(given)
    assert real[0].tolist() == [False, True, True, True, True, True]
    assert model(x, covariates=given).isfinite().all()


def test_a_masked_feature_is_as_if_it_were_not_there():
    model = ITransformer(L, H, dim=D, covariates={"past": 2, "future": 1}).eval()
    x, given = torch.randn(2, L, 3), covariates()
    given.past[:, :, 1] = torch.nan
    smaller = ITransformer(L, H, dim=D, covariates={"past": 1, "future": 1}).eval()
    state = model.state_dict()
    state["covariates.identities.past"] = state["covariates.identities.past"][:1]
    smaller.load_state_dict(state)
    expected = smaller(x, covariates=given._replace(past=given.past[..., :1]))
    assert torch.allclose(model(x, covariates=given), expected, atol=1e-6)


def test_covariates_are_given_where_they_were_announced():
    with pytest.raises(QuintetError, match="built for none of the covariates and is given some"):
        ITransformer(L, H, dim=D)(torch.randn(2, L, 3), covariates=covariates())
    with pytest.raises(QuintetError, match="built for some of the covariates and is given none"):
        ITransformer(L, H, dim=D, covariates={"past": 2})(torch.randn(2, L, 3))


def test_mistakes():
    with pytest.raises(QuintetError, match=r"takes windows shaped \(batch, 24, channels\)"):
        ITransformer(L, H, dim=D)(torch.randn(2, 12, 3))
    with pytest.raises(QuintetError, match="num_heads is an argument of softmax attention"):
        ITransformer(L, H, dim=D, num_heads=2, mixer=Attention)
    with pytest.raises(QuintetError, match="a forecaster's are a sequence: give it rank=1"):
        ITransformer(L, H, dim=D, mixer=NeighborhoodAttention)


def test_layer_groups_name_every_parameter_but_the_head():
    model = ITransformer(L, H, dim=D, mixer=partial(Attention, num_heads=2))
    prefixes = tuple(prefix for group in model.layer_groups() for prefix in group)
    rest = {name for name, _ in model.named_parameters() if not name.startswith(prefixes)}
    assert rest == {"encoder.norm.weight", "encoder.norm.bias", "head.weight", "head.bias"}
