"""TiRex: any context and horizon, streams, training on every patch, and parity with the published forecaster."""

import gc

import pytest
import torch
from torch import nn

from quintet.core.attention import Attention, GatedLinearAttention
from quintet.core.errors import QuintetError
from quintet.core.ssm import MLSTM
from quintet.core.weights.registry import create_model
from quintet.timeseries.models import TiRex

SMALL = {"patch_size": 4, "dim": 16, "depth": 2, "hidden_dim": 24, "max_context": 64}


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def small(**arguments):
    """A TiRex whose recurrence is not at rest, in float64."""
    torch.manual_seed(0)
    model = TiRex(**{"context": 18, "horizon": 10, **SMALL, **arguments}).double().eval()
    for name, parameter in model.named_parameters():
        if "recurrent" in name:
            nn.init.normal_(parameter, std=0.3)
    return model


def series(steps, channels=3, seed=1):
    torch.manual_seed(seed)
    return torch.randn(2, steps, channels).double().cumsum(1)


def test_the_published_size():
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in TiRex().parameters()) == 35_291_200


@pytest.mark.parametrize("padding", ["patch", "context"])
@pytest.mark.parametrize(("steps", "horizon"), [(1, 1), (18, 10), (64, 64)])
@torch.no_grad()
def test_any_context_and_horizon(padding, steps, horizon):
    model = small(padding=padding)
    forecast = model(series(steps), horizon=horizon)
    assert forecast.shape == (2, horizon, 3, 9)
    assert forecast.isfinite().all()


@torch.no_grad()
def test_a_longer_horizon_goes_on_where_a_shorter_ends():
    model, x = small(), series(18)
    assert error(model(x, horizon=5), model(x, horizon=40)[:, :5]) < 1e-12


@torch.no_grad()
def test_units_do_not_matter_and_channels_do_not_meet():
    model, x = small(), series(18)
    assert error(model(3.0 * x - 40.0), 3.0 * model(x) - 40.0) < 1e-10
    changed = x.clone()
    changed[..., 1:] = 7.0
    assert torch.equal(model(changed)[:, :, 0], model(x)[:, :, 0])


@torch.no_grad()
def test_what_was_not_observed_says_nothing():
    model, x = small(), series(18)
    observed = torch.rand(x.shape) < 0.7
    observed[0, :, 0] = False
    forecast = model(x, observed)
    assert forecast.isfinite().all()
    assert torch.equal(model(torch.where(observed, x, torch.nan), observed), forecast)
    assert torch.equal(model(torch.where(observed, x, 1e9), observed), forecast)
    assert model(torch.full((1, 18, 1), 5.0).double()).isfinite().all()


@torch.no_grad()
def test_a_stream_is_forecast_as_a_whole():
    model = small()
    parts = [series(18), series(20, seed=2)]
    parts = [(x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True, correction=0) for x in parts]
    whole = torch.cat(parts, 1)  # mean 0 and deviation 1, as its beginning
    forecast, state = model.scan(parts[0])
    assert error(forecast, model(parts[0])) < 1e-12
    half, _ = model.scan(parts[1][:, :9], state)
    for step, values in enumerate([*parts[1].unbind(1), *series(2).unbind(1)]):
        forecast, state = model.step(values, state)
        if step == 8:
            assert error(forecast, half) < 1e-12
    # The last two steps are of a patch that is not full yet.
    assert state.pending.shape[1] == 2
    assert error(forecast, model(whole, horizon=12)[:, 2:]) < 1e-10


@pytest.mark.parametrize("mixer", [MLSTM, GatedLinearAttention, Attention])
@torch.no_grad()
def test_another_mixer_by_one_word(mixer):
    model, x = small(mixer=mixer), series(18)
    assert isinstance(model.encoder.blocks[1].mixer, mixer)
    if mixer is Attention:
        with pytest.raises(QuintetError, match="carries no state"):
            model.scan(x)
    else:
        assert error(model.scan(x)[0], model(x)) < 1e-10


@pytest.mark.parametrize("mixer", [None, Attention])
@torch.no_grad()
def test_training_sees_no_truth_before_it_is_due(mixer):
    model, x, target = small(mixer=mixer), series(18), series(10, seed=2)
    forecast, truth = model.training_forecasts(x, target)
    patches = 4 + 3 if mixer is None else 3  # those after the first, or those of the horizon
    assert forecast.shape == (2, 4 * patches, 3, 9)
    assert truth.shape == (2, 4 * patches, 3)
    assert truth.isnan()[:, -2:].all()  # the horizon's last patch is not full
    later = target.clone()
    later[:, 4:] += 100.0
    changed, other_truth = model.training_forecasts(x, later)
    assert torch.equal(changed[:, :-4], forecast[:, :-4])
    assert not torch.equal(other_truth.nan_to_num(), truth.nan_to_num())
    # The first patch of the horizon is forecast as it will be.
    mean, std = x.mean(1, keepdim=True), x.std(1, keepdim=True, correction=0)
    restored = forecast[:, -12:-8] * std.unsqueeze(-1) + mean.unsqueeze(-1)
    assert error(restored, model(x)[:, :4]) < 1e-10
    assert error(truth[:, -12:-2] * std + mean, target) < 1e-12


def test_patches_are_hidden_in_training_only():
    model, x, target = small(mask_rate=1.0), series(18), series(10)
    whole, truth = model.training_forecasts(x, target)
    torch.manual_seed(0)
    hidden, same = model.train().training_forecasts(x, target)
    assert error(hidden, whole) > 1e-3
    assert torch.equal(same.nan_to_num(), truth.nan_to_num())
    hidden.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"context": 65}, "takes a context of 1 to 64 steps"),
        ({"horizon": 65}, "takes a horizon of 1 to 64 steps"),
        ({"outputs": 3}, "TiRex forecasts the quantiles 0.1, 0.2"),
        ({"max_context": 62}, "max_context=62 is no whole number of patches"),
        ({"mixer": MLSTM, "num_heads": 2}, "num_heads is an argument of softmax attention|where a mixer is given"),
        ({"mask_rate": 2.0}, "mask_rate=2.0 is a share"),
    ],
)
def test_what_is_refused(arguments, complaint):
    with pytest.raises(QuintetError, match=complaint):
        small(**arguments)
    with pytest.raises(QuintetError, match="no calendar"):
        small()(series(18), calendar=torch.zeros(2, 18, 1).double())


# Parity


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """tirex-ts with random weights, and the file it would be published as."""
    tirex = pytest.importorskip("tirex.models.tirex")
    blocks = {"all_slstm": True, "embedding_dim": 512, "num_blocks": 12, "num_heads": 4}
    blocks |= {"return_last_states": True, "vocab_size": 0}
    levels = [level / 10 for level in range(1, 10)]
    config = {"input_patch_size": 32, "output_patch_size": 32, "quantiles": levels, "input_ff_dim": 2048}
    sizes = {"model_config": config | {"block_kwargs": blocks}, "train_ctx_len": 2048}
    reference = tirex.TiRexZero(backend="torch", **sizes).eval()
    torch.manual_seed(0)
    for name, parameter in reference.named_parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, float("norm" in name), 0.2 if "norm" in name else 0.5)
        else:
            nn.init.normal_(parameter, std=(0.35 if "recurrent" in name else 0.7) * parameter.shape[-1] ** -0.5)
    state = {
        f"block_stack.{key}" if key.startswith(("blocks", "out_norm")) else key: value
        for key, value in reference.state_dict().items()
    }
    path = tmp_path_factory.mktemp("tirex") / "model.ckpt"
    torch.save({"hyper_parameters": sizes, "state_dict": state}, path)
    yield reference, path
    del reference
    gc.collect()


@pytest.mark.peers
@torch.no_grad()
def test_equals_tirex_on_the_same_weights(published, monkeypatch):
    reference, path = published
    with pytest.raises(QuintetError, match=r"NXAI Community License.*model.accept_license=true"):
        create_model("timeseries/tirex", pretrained=str(path))
    model = create_model("timeseries/tirex", pretrained=str(path), accept_license=True, padding="context").eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == 35_291_200
    torch.manual_seed(1)
    gaps = torch.randn(2, 300).cumsum(1)
    gaps[0, 100:140] = torch.nan
    for x, horizon in ((gaps, 70), (torch.randn(1, 2048).cumsum(1), 100), (torch.full((1, 64), 3.0), 32)):
        found = model(x.unsqueeze(-1).nan_to_num(), x.isfinite().unsqueeze(-1), horizon=horizon)[:, :, 0]
        arguments = {"context": x, "prediction_length": horizon, "max_accelerated_rollout_steps": 64}
        assert error(found, reference.forecast(**arguments)[0]) < 1e-2  # its recurrence is in bfloat16
        with monkeypatch.context() as patch:
            patch.setattr(torch, "bfloat16", torch.float32)  # and now in what ours is
            assert error(found, reference.forecast(**arguments)[0]) < 1e-4
