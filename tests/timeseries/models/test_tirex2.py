"""TiRex-2: variates that may see each other and those that may not, and parity with the published forecaster."""

import copy
import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from quintet.core.attention import Attention, GatedLinearAttention
from quintet.core.errors import QuintetError
from quintet.core.weights.registry import create_model
from quintet.timeseries.models import TiRex2
from quintet.timeseries.models.covariates import Covariates

SMALL = {"patch_size": 4, "dim": 16, "recipe": ("mlstm", "slstm"), "num_heads": 2, "hidden_dim": 24}
SMALL |= {"max_context": 32, "max_horizon": 16, "context": 18, "horizon": 6}


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def small(**arguments):
    torch.manual_seed(0)
    model = TiRex2(**SMALL | arguments).double().eval()
    for name, parameter in model.named_parameters():
        if "recurrent" in name:
            nn.init.normal_(parameter, std=0.3)
    return model


def inputs(seed=1, steps=18, horizon=6):
    """Two channels, the second with a trend; one covariate of the past, two of the future, one of these 0 and 1."""
    torch.manual_seed(seed)
    x = torch.randn(2, steps, 2).cumsum(1).double()
    x[..., 1] += 3.0 * torch.arange(steps)
    future = torch.randn(2, steps + horizon, 2).double()
    future[..., 0] = (future[..., 0] > 0).double()
    return x, Covariates(torch.randn(2, steps, 1).double(), future, torch.zeros(2, 0).double())


def test_the_published_size():
    with torch.device("meta"):
        model = TiRex2()
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == 82_501_744
    across = [part for block in model.blocks for part in (block.norm3, block.attention, block.norm4, block.mlp)]
    combining = [block.mixer.combination for block in model.blocks]
    assert count - sum(p.numel() for part in across + combining for p in part.parameters()) == 38_449_264


@pytest.mark.parametrize(
    ("levels", "refused"),
    [((0.1, 0.5, 0.9), False), ((0.1, 0.5, 0.8), True), ((0.2, 0.5, 0.9), True), ((0.1, 0.4, 0.5, 0.9), True)],
)
def test_levels_about_one_half_are_asked_for_where_signs_are_flipped(levels, refused):
    assert small(levels=levels, outputs=len(levels)).sign_flip is False
    if refused:
        with pytest.raises(QuintetError, match="lie evenly about"):
            small(levels=levels, outputs=len(levels), sign_flip=True)
    else:
        assert small(levels=levels, outputs=len(levels), sign_flip=True).sign_flip is True


@torch.no_grad()
def test_a_forecast_is_the_mean_with_that_of_the_negated_series_where_signs_are_flipped():
    x, covariates = inputs()
    plain, flipping = small(), small(sign_flip=True)
    negated = Covariates(-covariates.past, -covariates.future, covariates.static)
    above, below = plain(x, covariates=covariates), plain(-x, covariates=negated)
    torch.testing.assert_close(flipping(x, covariates=covariates), (above - below.flip(-1)) / 2, rtol=1e-10, atol=1e-10)
    assert (above + below.flip(-1)).abs().max() > 0.01


@torch.no_grad()
def test_every_covariate_counts_and_the_future_before_it_comes():
    model, (x, covariates) = small(), inputs()
    forecast = model(x, covariates=covariates)
    assert forecast.shape == (2, 6, 2, 9)
    for role in ("past", "future"):
        changed = getattr(covariates, role).clone()
        changed[:, -1] += 1.0
        assert error(model(x, covariates=covariates._replace(**{role: changed})), forecast) > 1e-6
    assert error(model(x), forecast) > 1e-3


@torch.no_grad()
def test_fewer_patches_are_read_where_nothing_of_the_future_is_known():
    model, (x, covariates) = small(), inputs()
    # Forgotten, the future of a covariate leaves one of the past; only then are 8 of the 16 largest steps enough.
    forgotten = covariates.future.clone()
    forgotten[:, 18:] = torch.nan
    past = torch.cat([covariates.past, forgotten[:, :18]], 2)
    expected = model(x, covariates=Covariates(past, torch.zeros(2, 24, 0).double(), covariates.static))
    assert error(model(x, covariates=covariates._replace(future=forgotten)), expected) < 1e-10


@torch.no_grad()
def test_what_was_not_observed_says_nothing():
    model, (x, covariates) = small(differencing=True, calibration=True), inputs()
    observed = torch.rand(x.shape) < 0.7
    observed[0, :, 0] = False
    forecast = model(x, observed, None, covariates)
    assert forecast.isfinite().all()
    for garbage in (torch.nan, 1e9):
        assert torch.equal(model(torch.where(observed, x, garbage), observed, None, covariates), forecast)


@torch.no_grad()
def test_training_sees_no_truth_before_it_is_due():
    model, (x, covariates) = small(), inputs()
    target = torch.randn(2, 6, 2).double()
    forecast, truth = model.training_forecasts(x, target, None, covariates)
    assert forecast.shape == (2, 24, 2, 9)  # six patches after the first
    assert truth.isnan()[:, -2:].all()
    later = target.clone()
    later[:, 4:] += 100.0
    changed, _ = model.training_forecasts(x, later, None, covariates)
    assert torch.equal(changed[:, :-4], forecast[:, :-4])
    hidden, _ = model.train().training_forecasts(x, target, None, covariates)
    assert error(hidden, forecast) > 1e-3


def test_another_mixer_by_one_word():
    assert isinstance(small(mixer=GatedLinearAttention).blocks[1].mixer.cell, GatedLinearAttention)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"horizon": 17}, "takes a horizon of 1 to 16 steps"),
        ({"context": 33}, "takes a context of 1 to 32 steps"),
        ({"recipe": ("mlstm", "gru")}, "recipe is of mlstm and slstm; got gru"),
        ({"mixer": Attention}, "this Attention is not causal"),
        ({"max_horizon": 10}, "whole numbers of patches of 4"),
        ({"sign_flip": True, "levels": (0.1, 0.5, 0.8)}, "sign_flip needs levels that lie evenly about 0.5"),
    ],
)
def test_what_is_refused(arguments, complaint):
    with pytest.raises(QuintetError, match=complaint):
        small(**arguments)


def test_a_future_of_another_length_is_refused():
    x, covariates = inputs(horizon=5)
    with pytest.raises(QuintetError, match="over context and horizon, 24 steps; got 23"):
        small()(x, covariates=covariates)


def test_other_configurations_are_refused(tmp_path):
    weights = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, weights)
    config = published_config()
    config["stack_config"]["templates"]["s"]["variate_mixer"]["num_heads"] = 8
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(QuintetError, match=r"config.json has variate_mixer.num_heads of 4, 8; one is supported"):
        TiRex2.arguments_from(weights)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(QuintetError, match="is no configuration of TiRex-2: KeyError 'stack_config'"):
        TiRex2.arguments_from(weights)


def arguments_of(folder, config) -> dict:
    (folder / "config.json").write_text(json.dumps(config))
    return TiRex2.arguments_from(folder / "model.safetensors")


def test_what_a_configuration_leaves_out_is_as_published(tmp_path):
    config = published_config()
    config["scaler_cfg"] = {}
    del config["tta_diff"], config["tokenizer_cfg"]["input_patch_stride"]
    for template in config["stack_config"]["templates"].values():
        del template["time_mixer"]["num_heads"], template["time_mixer"]["num_slstm_heads"]
        del template["variate_mixer"]["num_heads"]
    config["stack_out_norm_config"] = {}
    found = arguments_of(tmp_path, config)
    expected = {"num_heads": 4, "slstm_heads": 4, "variate_heads": 4, "qk_norm": True, "final_norm": 1e-7}
    expected |= {"arcsinh": False, "keep_binary": False, "scale_eps": 1e-8}
    expected |= {"differencing": True, "calibration": True, "sign_flip": False}
    assert found == found | expected
    del config["stack_out_norm_config"]
    assert arguments_of(tmp_path, config)["final_norm"] is None


def test_what_a_configuration_says_is_taken(tmp_path):
    config = published_config()
    config |= {"tta_diff": False, "tta_sign_flip": True, "use_qk_norm": False, "stack_out_norm_config": {"eps": 1e-5}}
    config["scaler_cfg"] = {"use_arcsinh": True, "binaryaware": True, "eps": 1e-6}
    for template in config["stack_config"]["templates"].values():
        template["time_mixer"] |= {"num_heads": 8, "num_slstm_heads": 2}
        template["variate_mixer"]["num_heads"] = 16
    assert arguments_of(tmp_path, config) == {
        "levels": (0.1, 0.5, 0.9),
        "patch_size": 4,
        "dim": 128,
        "recipe": ("mlstm", "slstm"),
        "num_heads": 8,
        "slstm_heads": 2,
        "variate_heads": 16,
        "hidden_dim": 64,
        "head_dim": 256,
        "activation": "SiLU",
        "dropout": 0.1,
        "qk_norm": False,
        "final_norm": 1e-5,
        "arcsinh": True,
        "keep_binary": True,
        "scale_eps": 1e-6,
        "max_context": 16,
        "max_horizon": 8,
        "differencing": False,
        "calibration": True,
        "sign_flip": True,
    }
    config["tokenizer_cfg"]["input_patch_stride"] = 2
    with pytest.raises(QuintetError, match="patch size and stride of 4, 2; one is supported"):
        arguments_of(tmp_path, config)


# Parity


def published_config(dim=128, patch=4, future=8, context=16, blocks=2, levels=(0.1, 0.5, 0.9), hidden=64, expand=2):
    """A configuration as it lies beside published weights."""
    mixers = {"embedding_dim": dim, "num_heads": 4}
    templates = {
        name: {
            "time_mixer": {"model_type": f"bi-{name}lstm", "num_slstm_heads": 4, **mixers},
            "variate_mixer": dict(mixers),
            "dropout": 0.1,
            "eps": 1e-7,
        }
        for name in "ms"
    }
    patches = {f"{side}_patch_size": patch for side in ("input", "output")}
    return {
        "stack_config": {"templates": templates, "recipe": ["m", "s"] * (blocks // 2)},
        "num_blocks": blocks,
        "embedding_dim": dim,
        **patches,
        "quantiles": list(levels),
        "tokenizer_cfg": {**patches, "input_patch_stride": patch},
        "scaler_cfg": {"use_arcsinh": True, "binaryaware": True},
        "h_expand": expand,
        "context_len": context,
        "future_len": future,
        "input_ff_dim": hidden,
        "act_func": "SiLU",
        "dropout": 0.1,
        "tta_diff": True,
        "stack_out_norm_config": {"eps": 1e-7},
    }


LARGE = {"dim": 512, "patch": 32, "future": 320, "context": 2048, "blocks": 12, "hidden": 2048, "expand": 4}
LARGE["levels"] = tuple(level / 10 for level in range(1, 10))


@pytest.mark.peers
@pytest.mark.parametrize(("sizes", "steps", "horizon"), [({}, 15, 6), (LARGE, 500, 70)])
@torch.no_grad()
@torch.compiler.set_stance("force_eager")  # it would compile its layers first
def test_equals_tirex_2_on_the_same_weights(sizes, steps, horizon, tmp_path):
    tirex2 = pytest.importorskip("tirex2")
    config = published_config(**sizes)
    torch.manual_seed(0)
    reference = tirex2.model.TiRex2(**copy.deepcopy(config), device="cpu").eval()
    for name, parameter in reference.named_parameters():
        if "norm" in name:
            nn.init.normal_(parameter, 1.0, 0.2)
        elif parameter.ndim == 1 or "bias" in name:
            parameter.add_(0.3 * torch.randn_like(parameter))
        else:
            nn.init.normal_(parameter, std=(0.3 if "recurrent" in name else 0.8) * parameter.shape[-1] ** -0.5)
    once = {value.data_ptr(): (key, value) for key, value in reversed(reference.state_dict().items())}
    save_file({key: value.clone() for key, value in once.values()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))

    x, covariates = inputs(steps=steps, horizon=horizon)
    x, covariates = x.float(), Covariates(*(part.float() for part in covariates))
    x[0, 3:6, 0] = torch.nan
    given = {"context": steps, "horizon": horizon, "pretrained": str(tmp_path)}
    for known, padding, flip in ((None, "patch", True), (covariates, "patch", False), (covariates, "context", False)):
        model = create_model("timeseries/tirex2", padding=padding, sign_flip=flip, **given).eval()
        assert not sizes or sum(parameter.numel() for parameter in model.parameters()) == 82_501_744
        roles = [(None, None) if known is None else (known.past[at].T, known.future[at].T) for at in range(2)]
        expected = reference.predict(
            [tirex2.TimeseriesType(x[at].T, *roles[at]) for at in range(2)],
            horizon,
            pad_context=padding == "context",
            tta_sign_flip=flip,
        )
        expected = torch.stack([one.permute(2, 0, 1) for one in expected])
        assert error(model(x.nan_to_num(), x.isfinite(), None, known), expected) < 1e-3
