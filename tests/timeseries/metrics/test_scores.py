"""Scores of a series against hand-computed numbers, the published ones of the M4 competition, and another package."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from quintet.timeseries.metrics import (
    AbsoluteError,
    Coverage,
    IntervalWidth,
    PinballLoss,
    ScaledError,
    SymmetricPercentageError,
    WeightedQuantileLoss,
)
from quintet.timeseries.metrics.scores import point_scores, quantile_scores, seasonal_scales
from quintet.timeseries.models import seasonal_naive

NAN = np.nan
LEVELS = [0.1, 0.5, 0.9]
INTERVAL = {"m-lo": "m-lo-80", "m-hi": "m-hi-80"}  # what the other package calls its bounds


def test_points_by_hand():
    truth, forecast = np.array([1.0, 2.0, NAN, -4.0]), np.array([1.5, 2.0, 9.0, -2.0])
    found = point_scores(truth, forecast, absolute=0.5, squared=4.0)
    assert found["mae"] == pytest.approx(2.5 / 3)
    assert found["mse"] == pytest.approx(4.25 / 3)
    assert found["rmse"] == pytest.approx((4.25 / 3) ** 0.5)
    assert found["smape"] == pytest.approx((200 * 0.5 / 2.5 + 200 * 2 / 6) / 3)
    assert found["mase"] == pytest.approx(5 / 3)
    assert found["rmsse"] == pytest.approx((4.25 / 12) ** 0.5)


def test_quantiles_by_hand():
    truth = np.array([1.5, 3.0, NAN])
    found = quantile_scores(truth, np.tile([0.0, 1.0, 2.0], (3, 1)), LEVELS)
    loss = np.mean([(0.1 * 1.5 + 0.5 * 0.5 + 0.1 * 0.5) / 3, (0.1 * 3 + 0.5 * 2 + 0.9 * 1) / 3])
    assert found == pytest.approx({"pinball": loss, "wql": 2 * loss / 2.25, "coverage": 0.5, "width": 2.0})


def test_what_cannot_be_scored_is_nan():
    nothing = np.array([NAN])
    assert np.isnan(list(point_scores(nothing, nothing, 1.0, 1.0).values())).all()
    assert np.isnan(list(quantile_scores(nothing, np.zeros((1, 3)), LEVELS).values())).all()
    assert np.isnan(point_scores(np.ones(2), np.ones(2), 0.0, 0.0)["mase"])
    assert np.isnan(quantile_scores(np.zeros(2), np.ones((2, 3)), LEVELS)["wql"])


def test_seasonal_scales():
    values = np.array([[1.0], [2.0], [4.0], [NAN], [5.0]])
    assert [float(scale[0]) for scale in seasonal_scales(values, 1)] == pytest.approx([1.5, 2.5])
    assert [float(scale[0]) for scale in seasonal_scales(values, 2)] == pytest.approx([2.0, 5.0])
    assert np.isnan(seasonal_scales(values, 5)).all()


def m4_scores(train: Path, test: Path, period: int) -> tuple[float, float]:
    """Mean sMAPE and MASE of the seasonal naive forecast over series in rows of unequal length, as M4 has them."""
    smape, mase = [], []
    tests = {line.split(",")[0].strip('"\n'): line for line in test.read_text().splitlines()[1:]}
    for line in train.read_text().splitlines()[1:]:
        name = line.split(",")[0].strip('"')
        seen, truth = (
            np.array([float(cell.strip('"')) for cell in row.split(",")[1:] if cell.strip('"')])
            for row in (line, tests[name])
        )
        context = torch.from_numpy(seen)[None, :, None]
        forecast = seasonal_naive(context, len(truth), period)[0, :, 0].numpy()
        scales = seasonal_scales(seen[:, None], period)
        scores = point_scores(truth, forecast, scales[0][0], scales[1][0])
        smape.append(scores["smape"])
        mase.append(scores["mase"])
    return float(np.mean(smape)), float(np.mean(mase))


def test_series_in_rows_by_hand(tmp_path):
    (tmp_path / "train.csv").write_text('"V1","V2"\n"H1","1","2","3","5",""\n"H2",4,4,8,6,5\n')
    (tmp_path / "test.csv").write_text('"V1","V2"\n"H1","3","5"\n"H2","9","5"\n')
    # H1 repeats 3, 5 and differs by 2 and 3 from the season before; H2 repeats 6, 5 and differs by 4, 2 and 3.
    expected = (0 + (200 * 3 / 15 + 0) / 2) / 2, (0 + 1.5 / 3) / 2
    assert m4_scores(tmp_path / "train.csv", tmp_path / "test.csv", 2) == pytest.approx(expected)


def test_the_published_numbers_of_m4():
    """The seasonal naive benchmark on the 414 hourly series: sMAPE 13.912, MASE 1.193."""
    data = os.environ.get("QUINTET_DATA", Path(__file__).parents[4] / "shared" / "data")
    folder = Path(os.environ.get("QUINTET_M4", Path(data) / "ts_m4"))
    files = [next(iter(sorted(folder.rglob(f"Hourly-{part}.csv"))), None) for part in ("train", "test")]
    if None in files:
        pytest.skip(f"no Hourly-train.csv and Hourly-test.csv below {folder}; set QUINTET_M4 to their folder")
    smape, mase = m4_scores(*files, 24)
    assert (round(smape, 3), round(mase, 3)) == (13.912, 1.193)


def example() -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Two series with forecasts, the rows they were trained on, and their quantiles."""
    draw = np.random.default_rng(0)
    names = np.repeat(["x", "y"], 30)
    truth = draw.normal(5, 2, 60)
    quantiles = np.sort(draw.normal(5, 2, (60, 3)), axis=1)
    frame = pd.DataFrame({"unique_id": names, "ds": np.tile(np.arange(30), 2), "y": truth, "m": quantiles[:, 1]})
    frame[["m-lo", "m-hi"]] = quantiles[:, [0, 2]]
    train = pd.DataFrame({"unique_id": np.repeat(["x", "y"], 50), "ds": np.tile(np.arange(50) - 50, 2)})
    return frame, train.assign(y=draw.normal(5, 2, 100)), quantiles


@pytest.mark.peers
def test_scores_are_those_of_utilsforecast():
    from utilsforecast import losses

    frame, train, quantiles = example()
    models = {"m": ["m-lo", "m", "m-hi"]}
    peers = {
        "mae": losses.mae(frame, ["m"]),
        "mse": losses.mse(frame, ["m"]),
        "rmse": losses.rmse(frame, ["m"]),
        "smape": losses.smape(frame, ["m"]).assign(m=lambda found: 200 * found["m"]),  # theirs is a share of 2
        "mase": losses.mase(frame, ["m"], seasonality=7, train_df=train),
        "rmsse": losses.rmsse(frame, ["m"], seasonality=7, train_df=train),
        "pinball": losses.mqloss(frame, models, np.array(LEVELS)),
        "wql": losses.scaled_crps(frame, models, np.array(LEVELS)),
        "coverage": losses.coverage(frame.rename(columns=INTERVAL), ["m"], level=80),
    }
    for number, name in enumerate(("x", "y")):
        rows = slice(30 * number, 30 * number + 30)
        scales = seasonal_scales(train["y"].to_numpy()[50 * number : 50 * number + 50, None], 7)
        truth = frame["y"].to_numpy()[rows]
        found = point_scores(truth, quantiles[rows, 1], scales[0][0], scales[1][0])
        found |= quantile_scores(truth, quantiles[rows], LEVELS)
        for score, table in peers.items():
            expected = table.set_index("unique_id")["m"][name]
            assert found[score] == pytest.approx(expected, rel=1e-9), score


@pytest.mark.peers
def test_metrics_of_one_series_are_those_of_utilsforecast():
    from utilsforecast import losses

    frame, train, quantiles = example()
    frame, train, quantiles = frame[:30], train[:50], torch.from_numpy(quantiles[:30])
    models = {"m": ["m-lo", "m", "m-hi"]}
    targets = torch.from_numpy(frame["y"].to_numpy())[None, :, None]
    predictions = quantiles[None, :, None]
    scale = torch.from_numpy(seasonal_scales(train["y"].to_numpy()[:, None], 7)[0])[None]
    for metric, expected, extra in (
        (AbsoluteError(1), losses.mae(frame, ["m"]), []),
        (SymmetricPercentageError([0.0], [1.0], 1), losses.smape(frame, ["m"]).assign(m=lambda it: 200 * it["m"]), []),
        (ScaledError(1), losses.mase(frame, ["m"], seasonality=7, train_df=train), [scale]),
        (PinballLoss(LEVELS), losses.mqloss(frame, models, np.array(LEVELS)), []),
        (WeightedQuantileLoss(LEVELS, [0.0], [1.0]), losses.scaled_crps(frame, models, np.array(LEVELS)), []),
        (Coverage(), losses.coverage(frame.rename(columns=INTERVAL), ["m"], level=80), []),
    ):
        metric.update(predictions, targets, *extra)
        assert metric.compute().item() == pytest.approx(expected["m"].item(), rel=1e-6), type(metric).__name__


def test_weighted_quantile_loss_is_of_the_users_units():
    scaled, plain = WeightedQuantileLoss(LEVELS, [10.0], [2.0]), WeightedQuantileLoss(LEVELS, [0.0], [1.0])
    targets, predictions = torch.tensor([[[0.5], [NAN], [-1.0]]]), torch.randn(1, 3, 1, 3).sort(-1).values
    scaled.update(predictions, targets)
    plain.update(2 * predictions + 10, 2 * targets + 10)
    assert scaled.compute().item() == pytest.approx(plain.compute().item(), rel=1e-6)
    own = quantile_scores((2 * targets + 10).flatten().numpy(), (2 * predictions + 10).view(3, 3).numpy(), LEVELS)
    assert scaled.compute().item() == pytest.approx(own["wql"], rel=1e-6)


def test_interval_width():
    metric = IntervalWidth()
    metric.update(torch.tensor([[[[0.0, 1.0, 3.0]], [[0.0, 5.0, 9.0]]]]), torch.tensor([[[1.0], [NAN]]]))
    assert metric.compute().item() == 3.0
