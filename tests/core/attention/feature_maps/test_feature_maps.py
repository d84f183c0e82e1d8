"""Every feature map in its layer against the weights of its paper, all pairs in float64."""

import math
from functools import partial

import pytest
import torch

from quintet.core.attention import LinearAttention
from quintet.core.attention.feature_maps import (
    CosineReweighting,
    EluPlusOne,
    HedgehogFeatures,
    PositiveRandomFeatures,
    TaylorFeatures,
    Tokens,
)
from quintet.core.errors import QuintetError


def error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def elu(query, key, feature_map, mask):
    def positive(x):
        return torch.where(x > 0, x + 1, x.exp())

    return torch.einsum("bhid,bhjd->bhij", positive(query), positive(key))


def random(query, key, feature_map, mask):
    """The mean over m of exp(w_m · (u + v) - |u|² / 2 - |v|² / 2) for each pair (u, v)."""
    u, v = query.unsqueeze(3) / query.shape[-1] ** 0.25, key.unsqueeze(2) / key.shape[-1] ** 0.25
    exponents = torch.einsum("bhijd,md->bhijm", u + v, feature_map.projection)
    return (exponents - ((u**2).sum(-1) + (v**2).sum(-1)).unsqueeze(-1) / 2).exp().mean(-1)


def hedgehog(query, key, feature_map, mask):
    total = 0.0
    query = torch.stack([q @ w for q, w in zip(query.unbind(1), feature_map.query_weight.expand(2, -1, -1))], 1)
    key = torch.stack([k @ w for k, w in zip(key.unbind(1), feature_map.key_weight.expand(2, -1, -1))], 1)
    for sign in (1.0, -1.0):
        one, other = ((sign * x).exp() / (sign * x).exp().sum(-1, keepdim=True) for x in (query, key))
        total = total + torch.einsum("bhid,bhjd->bhij", one, other)
    return total


def taylor(query, key, feature_map, mask):
    s = torch.einsum("bhid,bhjd->bhij", query, key) / math.sqrt(query.shape[-1])
    return 1 + s + s**2 / 2


def cosine(query, key, feature_map, mask):
    """cos(pi / 2 (i - j) / M) of the i-th and the j-th real token of M, sample by sample."""
    weights = torch.einsum("bhid,bhjd->bhij", query.clamp_min(0), key.clamp_min(0))
    factors = torch.zeros(len(mask), 1, mask.shape[1], mask.shape[1], dtype=torch.float64)
    for sample, real in zip(factors, mask):
        places = real.nonzero().flatten().tolist()
        for i, row in enumerate(places):
            for j, column in enumerate(places):
                sample[0, row, column] = math.cos(math.pi / 2 * (i - j) / len(places))
    return weights * factors


MAPS = {
    "elu": (EluPlusOne, elu),
    "performer": (PositiveRandomFeatures, random),
    "performer of few features": (partial(PositiveRandomFeatures, features=5), random),
    "hedgehog": (HedgehogFeatures, hedgehog),
    "hedgehog of each head": (partial(HedgehogFeatures, num_heads=2), hedgehog),
    "based": (TaylorFeatures, taylor),
    "cosformer": (CosineReweighting, cosine),
}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", MAPS)
def test_layer_has_the_weights_of_the_paper(name, masked, causal):
    make, weights_of = MAPS[name]
    if causal and name == "cosformer":
        pytest.skip("refused below")
    torch.manual_seed(0)
    layer = LinearAttention(16, num_heads=2, feature_map=make, causal=causal, chunk_size=4, eps=1e-30).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    x = torch.randn(2, 11, 16, dtype=torch.float64)
    mask = torch.rand(2, 11) < 0.7 if masked else torch.ones(2, 11, dtype=torch.bool)
    query, key, value = layer.qkv(x).unflatten(-1, (3, 2, 8)).transpose(1, 3).unbind(2)
    weights = weights_of(query, key, layer.feature_map, mask) * mask[:, None, None, :]
    weights = weights * torch.ones(11, 11).tril() if causal else weights
    # relu can leave a query nothing at all: then its mean is zero.
    mean = (weights / weights.sum(-1, keepdim=True).clamp_min(1e-30)) @ value
    expected = layer.proj(mean.transpose(1, 2).flatten(2))
    found = layer(x, mask if masked else None)
    assert error(found[mask], expected[mask]) < 1e-12
    assert error(layer.float()(x.float(), mask if masked else None)[mask], expected[mask]) < 1e-5


@pytest.mark.parametrize("causal", [False, True])
def test_random_features_of_long_vectors_overflow_nowhere(causal):
    """Without division by the largest, exp(-|u|² / 2) of keys 40 long is zero in float32 for every feature."""
    torch.manual_seed(0)
    feature_map, x = PositiveRandomFeatures(16), torch.randn(1, 1, 6, 16)
    x = (40.0 if not causal else 15.0) * x / x.norm(dim=-1, keepdim=True)
    tokens = Tokens(None, causal)
    features = [feature_map.queries(x, tokens), feature_map.keys(x, tokens)]
    assert all(torch.isfinite(part).all() and part.amax() > 1e-30 for part in features)


def test_masked_keys_have_no_say_in_what_real_ones_are_divided_by():
    """A masked key of zeros has the largest features there are; real ones of length 30 would be nothing beside it."""
    torch.manual_seed(0)
    feature_map, key = PositiveRandomFeatures(16), torch.randn(1, 1, 3, 16)
    key = 30.0 * key / key.norm(dim=-1, keepdim=True)
    mask = torch.tensor([[True, False, True]])
    key[:, :, 1] = 0.0
    found = feature_map.keys(key, Tokens(mask))[:, :, mask[0]]
    assert error(found, feature_map.keys(key[:, :, mask[0]], Tokens())) < 1e-6


def test_random_features_are_unbiased_and_orthogonal():
    """E f(q) · f(k) = exp(q · k / sqrt(D)), to five standard errors; directions of a block are orthogonal."""
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 4, dtype=torch.float64)
    u, v = query.flatten() / 4**0.25, key.flatten() / 4**0.25
    draws, feature_map = [], PositiveRandomFeatures(4, features=8).double()
    for _ in range(1500):
        feature_map.redraw()
        w = feature_map.projection
        draws.append((w @ (u + v) - (u @ u + v @ v) / 2).exp().mean())
    draws = torch.stack(draws)
    assert abs(draws.mean() - (query.flatten() @ key.flatten() / 2).exp()) < 5 * draws.std() / len(draws) ** 0.5
    blocks = feature_map.projection.view(2, 4, 4)
    gram = blocks @ blocks.mT
    assert (gram - torch.diag_embed(gram.diagonal(dim1=-2, dim2=-1))).abs().max() < 1e-6


def test_directions_point_everywhere_alike():
    """A factor of a QR decomposition as it comes has a first column of one sign."""
    torch.manual_seed(0)
    projection = PositiveRandomFeatures(8, features=4000).projection
    lengths = projection.square().sum(-1)
    assert (projection.mean(0).abs() < 5 / 4000**0.5).all()
    assert abs(lengths.mean() - 8) < 5 * 4 / 4000**0.5  # chi square of 8 has variance 16


def test_redraw_follows_its_generator():
    one, other = PositiveRandomFeatures(8), PositiveRandomFeatures(8)
    assert not torch.equal(one.projection, other.projection)
    for feature_map in (one, other):
        feature_map.redraw(torch.Generator().manual_seed(3))
    assert torch.equal(one.projection, other.projection)
    assert list(one.state_dict()) == ["projection"]


def test_what_looks_ahead_is_refused_where_causal():
    with pytest.raises(QuintetError, match="CosineReweighting looks at later tokens"):
        LinearAttention(16, feature_map=CosineReweighting, causal=True)


def test_heads_of_hedgehog_are_those_of_the_attention():
    layer = LinearAttention(16, num_heads=4, feature_map=partial(HedgehogFeatures, num_heads=2))
    with pytest.raises(QuintetError, match=r"HedgehogFeatures\(num_heads=2\) in attention of 4 heads"):
        layer(torch.zeros(1, 3, 16))
