"""Every registered mixer, in its default configuration and all its `variants`, keeps the promises of the contract.

A mixer joins by registering. A property that an instance does not claim (causal, streaming, padding_invariant) is
skipped for it.
"""

import io
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quintet.core.attention import NeighborhoodAttention, WindowAttention
from quintet.core.errors import QuintetError
from quintet.core.mixer import Mixer
from quintet.core.weights.registry import create_mixer, list_mixers, mixer_variants

DIM = 64
# Bounds on the sides of a grid, by rank: small, yet with grids larger and smaller than windows and chunks.
SIDES = {1: 20, 2: 6, 3: 4}
CASES = [(name, variant) for name in list_mixers() for variant in ("default", *mixer_variants(name))]
IDS = [f"{name}-{variant}" for name, variant in CASES]
every_mixer = pytest.mark.parametrize(("name", "variant"), CASES, ids=IDS)
few = settings(max_examples=4)


@pytest.fixture(autouse=True)
def _fresh_compiler():
    """Instances of a class share one compiled forward, and the compiler gives up after eight of them."""
    yield
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


def build(name, variant, seed=0) -> Mixer:
    """The mixer in evaluation mode; noise on the parameters opens gates and scales that start at zero."""
    torch.manual_seed(seed)
    arguments = {} if variant == "default" else mixer_variants(name)[variant]
    mixer = create_mixer(name, DIM, **arguments).eval()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return mixer


@st.composite
def grids(draw, mixer, smallest=1):
    rank = draw(st.sampled_from(sorted(mixer.grid_ranks)))
    return tuple(draw(st.integers(smallest, SIDES[rank])) for _ in range(rank))


@st.composite
def masks(draw, batch, grid):
    """Masks of all kinds; in the last sample of a batch of more than one no token is real."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    mask = torch.rand(batch, *grid, generator=generator) < draw(st.sampled_from([0.2, 0.7, 1.0]))
    mask.view(batch, -1)[0, 0] = True
    if batch > 1:
        mask[-1] = False
    return mask


def largest_grid(mixer):
    rank = max(mixer.grid_ranks)
    return (SIDES[rank],) * rank


def tokens(batch, grid, seed=0):
    return torch.randn(batch, *grid, DIM, generator=torch.Generator().manual_seed(seed))


def error(found, expected):
    """Relative norm of the difference, computed in float64."""
    found, expected = found.detach().double(), expected.detach().double()
    return ((found - expected).norm() / expected.norm().clamp_min(1e-30)).item()


@every_mixer
@given(data=st.data())
@few
def test_shape_and_samples_are_apart(name, variant, data):
    mixer = build(name, variant)
    x = tokens(data.draw(st.integers(2, 3)), data.draw(grids(mixer)))
    before = x.clone()
    y = mixer(x)
    assert y.shape == x.shape
    assert torch.isfinite(y).all()
    assert torch.equal(x, before), "the input was written to"
    assert error(mixer(x[1:2]), y[1:2]) < 1e-5, "a sample depends on its batch"
    strided = x.transpose(0, -1).contiguous().transpose(0, -1)
    assert error(mixer(strided), y) < 1e-5, "the result depends on strides"


@every_mixer
def test_gradient_reaches_every_parameter_and_the_input(name, variant):
    mixer = build(name, variant)
    x = tokens(2, largest_grid(mixer)).requires_grad_()
    y = mixer(x)
    (y * torch.randn_like(y)).sum().backward()
    for parameter_name, parameter in [("x", x), *mixer.named_parameters()]:
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name


@every_mixer
def test_information_moves(name, variant):
    mixer = build(name, variant)
    x = tokens(1, largest_grid(mixer))
    changed = x.clone()
    changed.view(-1, DIM)[0] += 1.0
    difference = (mixer(changed) - mixer(x)).reshape(-1, DIM).norm(dim=-1)
    assert difference[1:].max() > 1e-4 * difference[0]


@every_mixer
@given(data=st.data())
@few
def test_mask_masks(name, variant, data):
    mixer = build(name, variant)
    batch, grid = data.draw(st.integers(1, 3)), data.draw(grids(mixer))
    x, mask = tokens(batch, grid), data.draw(masks(batch, grid))
    y = mixer(x, mask)
    assert torch.isfinite(y).all()
    assert y[~mask].count_nonzero() == 0, "the output at masked tokens is not zero"
    poisoned = x.masked_fill(~mask.unsqueeze(-1), float("nan")).requires_grad_()
    result = mixer(poisoned, mask)
    assert error(result, y) < 1e-6, "masked tokens show"
    result.square().sum().backward()
    for parameter_name, parameter in [("x", poisoned), *mixer.named_parameters()]:
        assert torch.isfinite(parameter.grad).all(), f"masked tokens spoil the gradient of {parameter_name}"
    everything = torch.ones_like(mask)
    assert error(mixer(x, everything), mixer(x)) < 1e-5, "a mask of real tokens only changes the result"


@every_mixer
@given(data=st.data())
@few
def test_causal_means_causal(name, variant, data):
    mixer = build(name, variant)
    if not mixer.causal:
        pytest.skip("not causal")
    x = tokens(1, data.draw(grids(mixer, smallest=2)))
    places = x[..., 0].numel()
    first_changed = data.draw(st.integers(1, places - 1))
    changed = x.clone()
    changed.view(places, DIM)[first_changed:] = 3.0
    y, result = mixer(x).view(places, DIM), mixer(changed).view(places, DIM)
    assert error(result[:first_changed], y[:first_changed]) < 1e-5
    assert error(result[first_changed:], y[first_changed:]) > 1e-3


@every_mixer
@given(data=st.data())
@few
def test_padding_changes_nothing(name, variant, data):
    mixer = build(name, variant)
    if not mixer.padding_invariant:
        pytest.skip("not padding invariant; its docstring says why")
    batch, grid = data.draw(st.integers(1, 2)), data.draw(grids(mixer))
    x, padding = tokens(batch, grid), data.draw(st.integers(1, 5))
    padded = torch.cat([x, torch.full((batch, padding, *x.shape[2:]), 7.0)], dim=1)
    mask = torch.arange(padded.shape[1]).view(1, -1, *[1] * (len(grid) - 1)) < grid[0]
    y = mixer(padded, mask.expand(padded.shape[:-1]))
    assert error(y[:, : grid[0]], mixer(x)) < 1e-5


@every_mixer
def test_packed_sequences_are_what_each_is_alone(name, variant):
    mixer = build(name, variant)
    lengths = [0, 5, 1, 0, 0, 7, 0]
    x, borders = tokens(13, ()), torch.tensor([0, *lengths]).cumsum(0)
    if not mixer.padding_invariant or 1 not in mixer.grid_ranks:
        with pytest.raises(QuintetError, match=type(mixer).__name__):
            mixer.forward_packed(x, borders)
        return
    alone = torch.cat([mixer(part[None])[0] for part in x.split(lengths) if len(part)])
    assert error(mixer.forward_packed(x, borders), alone) < 1e-5
    # In float64, for norms of nearly constant heads make float32 gradients of either form differ by their rounding.
    mixer, x = mixer.double(), x.double().requires_grad_()
    alone = torch.cat([mixer(part[None])[0] for part in x.split(lengths) if len(part)])
    slope, leaves = torch.randn_like(alone), [x, *mixer.parameters()]
    expected = torch.autograd.grad((alone * slope).sum(), leaves)
    found = torch.autograd.grad((mixer.forward_packed(x, borders) * slope).sum(), leaves)
    for gradient, other in zip(found, expected):
        assert torch.isfinite(gradient).all()
        assert (gradient - other).norm() < 1e-5 * max(other.norm(), 1.0)


@every_mixer
def test_padding_in_front_changes_nothing(name, variant):
    """Whatever biases say at masked tokens does not reach the real ones behind them."""
    mixer = build(name, variant)
    if isinstance(mixer, NeighborhoodAttention | WindowAttention):
        pytest.skip("its windows are counted from the front")
    for rank in mixer.grid_ranks:
        x = tokens(2, (SIDES[rank] - 1,) * rank)
        padded = torch.cat([torch.full((2, 3, *x.shape[2:]), 7.0), x], dim=1)
        mask = torch.arange(padded.shape[1]).view(1, -1, *[1] * (rank - 1)) >= 3
        y = mixer(padded, mask.expand(padded.shape[:-1]))
        assert error(y[:, 3:], mixer(x)) < 1e-5


@every_mixer
def test_precisions(name, variant):
    mixer = build(name, variant)
    x = tokens(2, largest_grid(mixer))
    exact = build(name, variant).double()(x.double())
    assert exact.dtype == torch.float64
    assert error(mixer(x), exact) < 1e-5
    if not mixer.continuous:
        # Among few tokens none is chosen before another.
        x = tokens(2, (2,) * max(mixer.grid_ranks))
        exact = build(name, variant).double()(x.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert error(mixer(x), exact) < 3e-2
    low = build(name, variant).to(torch.bfloat16)(x.to(torch.bfloat16))
    assert low.dtype == torch.bfloat16
    assert error(low, exact) < 5e-2


@every_mixer
def test_training_under_autocast(name, variant):
    mixer = build(name, variant).train()
    x = tokens(2, largest_grid(mixer))
    with torch.autocast("cpu", torch.bfloat16):
        loss = mixer(x, torch.ones(x.shape[:-1], dtype=torch.bool)).float().square().mean()
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in mixer.parameters())


@every_mixer
def test_state_dict_round_trip(name, variant):
    mixer, other = build(name, variant), build(name, variant, seed=1)
    x = tokens(1, largest_grid(mixer))
    assert error(other(x), mixer(x)) > 1e-2
    buffer = io.BytesIO()
    torch.save(mixer.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(other(x), mixer(x))


@every_mixer
@given(data=st.data())
@few
def test_streaming_equals_the_whole(name, variant, data):
    mixer = build(name, variant)
    if not mixer.streaming:
        with pytest.raises(QuintetError, match="state"):
            mixer.scan(tokens(1, (3,)))
        return
    x = tokens(data.draw(st.integers(1, 2)), (data.draw(st.integers(2, SIDES[1])),))
    whole = mixer(x)
    scanned, final = mixer.scan(x)
    assert error(scanned, whole) < 1e-5
    cut = data.draw(st.integers(1, x.shape[1] - 1))
    first, state = mixer.scan(x[:, :cut])
    second, state = mixer.scan(x[:, cut:], state)
    assert error(torch.cat([first, second], dim=1), whole) < 1e-5
    leaves, finals = torch.utils._pytree.tree_leaves(state), torch.utils._pytree.tree_leaves(final)
    floating = [(one, two) for one, two in zip(leaves, finals) if torch.is_tensor(one) and one.is_floating_point()]
    assert floating, "a state holds tensors"
    for one, two in floating:
        assert one.dtype == torch.float32
        assert error(one, two) < 1e-5
    steps, state = [], None
    for token in x.unbind(1):
        y, state = mixer.step(token, state)
        steps.append(y)
    assert error(torch.stack(steps, dim=1), whole) < 1e-5


@every_mixer
def test_wrong_tokens_are_refused_in_words(name, variant):
    mixer = build(name, variant)
    rank = max(mixer.grid_ranks)
    for shape in [
        (1, *(4,) * rank, DIM + 1),
        *((1, *(4,) * r, DIM) for r in (0, 1, 2, 3, 4) if r not in mixer.grid_ranks),
    ]:
        with pytest.raises(QuintetError, match=type(mixer).__name__) as refusal:
            mixer(torch.zeros(shape))
        assert str(tuple(shape)) in str(refusal.value)


@pytest.mark.compilation
@pytest.mark.parametrize(
    ("name", "variant"),
    [pytest.param(*case, marks=() if case[1] == "default" else pytest.mark.slow) for case in CASES],
    ids=IDS,
)
def test_compiles_in_one_graph(name, variant):
    """Captured forward and backward; what Inductor makes of the graph is tested for the defaults below."""
    mixer = build(name, variant)
    compiled = torch.compile(mixer, fullgraph=True, backend="aot_eager")
    x = tokens(2, largest_grid(mixer))
    mask = torch.rand(x.shape[:-1], generator=torch.Generator().manual_seed(0)) < 0.7
    for arguments in ((x,), (x, mask)):
        expected = mixer(*arguments)
        expected.square().sum().backward()
        gradients = {key: parameter.grad.clone() for key, parameter in mixer.named_parameters()}
        mixer.zero_grad()
        result = compiled(*arguments)
        result.square().sum().backward()
        assert error(result, expected) < 1e-5
        for key, parameter in mixer.named_parameters():
            assert error(parameter.grad, gradients[key]) < 1e-4, key
        mixer.zero_grad()


# One mixer each of dense attention, windows, chunks and scans: a C++ file takes Inductor a second and a half, and
# others need up to thirty of them. Their operations are compiled in tests/kernels/test_specs.py.
@pytest.mark.compilation
@pytest.mark.parametrize("name", ["attention", "neighborhood", "gated_linear", "min_gru"])
def test_inductor(name):
    mixer = build(name, "default")
    x = tokens(2, largest_grid(mixer))
    result, expected = torch.compile(mixer, fullgraph=True)(x), mixer(x)
    assert error(result, expected) < 1e-5
    parameters = list(mixer.parameters())
    probe = torch.randn_like(expected)
    for found, truth in zip(*(torch.autograd.grad(y, parameters, probe) for y in (result, expected))):
        assert error(found, truth) < 1e-4
