"""Loads of households: windows, thresholds, parts that share no row, and bad input in one line."""

import numpy as np
import pandas as pd
import pytest
import torch

from quintet.core.errors import QuintetError
from quintet.timeseries import DisaggregationData
from quintet.timeseries.data.disaggregation import cyclic_calendar, middle_threshold


@pytest.fixture
def written(tmp_path, house):
    """Function that writes the loads of a household, after `change(loads)`, and returns the path."""

    def write(change=None):
        frame = house()
        frame = frame if change is None else change(frame)
        frame.to_csv(tmp_path / "house.csv", index=False)
        return tmp_path / "house.csv"

    return write


def test_the_load_comes_first_and_scales_are_of_the_training_rows(written, house):
    def louder(frame):
        frame.loc[350:, ["aggregate", "fridge"]] *= 10
        return frame

    data = DisaggregationData(written(louder), length=20)
    data.setup()
    known = data.description()
    assert known.channels == ["aggregate", "kettle", "fridge"]
    assert known.units == ["W", "W", "W"]
    assert known.mean == [0.0, 0.0, 0.0]
    assert known.std[1:] == [2000.0, 80.0]
    assert known.std[0] < 2300
    assert known.thresholds == [1000.0, 40.0]
    train = house()[:240]
    assert known.shares == pytest.approx(
        [train[name].sum() / train["aggregate"].sum() for name in ("kettle", "fridge")]
    )


def test_parts_share_no_row_and_no_row_is_scored_twice(written):
    data = DisaggregationData(written(), length=24, stride=5, split={"val": 0.25, "test": 0.22})
    data.setup()
    rows = data.rows[0]
    for part in ("train", "val", "test"):
        dataset = data.datasets[part]
        batch = dataset.__getitems__(range(len(dataset)))
        starts = batch.position - data.context
        assert starts.min() >= rows[part][0]
        assert (starts + 24).max() <= rows[part][1]
        seen = torch.zeros(400)
        for start, target in zip(starts.tolist(), torch.cat([batch.context, batch.target], 1)):
            assert target[:, 0].isfinite().all()
            seen[start : start + 24] += target[:, 1].isfinite()
        if part != "train":
            assert (seen[slice(*rows[part])] == 1).all()


def test_households_are_told_apart(written, house):
    def two(frame):
        return pd.concat([frame.assign(unique_id="a"), house(seed=1).assign(unique_id="b")])

    data = DisaggregationData(written(two), length=24)
    data.setup()
    dataset = data.datasets["test"]
    batch = dataset.__getitems__(range(len(dataset)))
    counted = torch.cat([batch.context, batch.target], 1)[..., 1].isfinite().sum(1)
    for number in (0, 1):
        assert counted[batch.series == number].sum() == 80


def test_gaps_are_masked(written):
    def broken(frame):
        frame.loc[10:20, "kettle"] = np.nan
        return frame.drop(index=range(50, 60))

    data = DisaggregationData(written(broken), length=20, stride=1)
    data.setup()
    values = data.datasets["train"].values
    assert values[10:21, 1].isnan().all()
    assert values[:10, 1].isfinite().all()
    assert values[50:60].isnan().all()


def test_to_predict_some_of_the_load_must_be_known(written):
    description = DisaggregationData(written(), length=20).description()
    for last, known in ((398, True), (399, False)):

        def empty(frame, last=last):
            frame.loc[:last, "aggregate"] = np.nan
            return frame

        assert len(written(empty).read_text().splitlines()) == 401
        data = DisaggregationData(written(empty))
        data.adopt(description)
        if known:
            data.setup("predict")
        else:
            with pytest.raises(QuintetError, match="'aggregate' is empty; there is no load to take apart"):
                data.setup("predict")


def test_to_predict_appliances_may_be_absent(written):
    trained = DisaggregationData(written(), length=20)
    description = trained.description()
    path = written(lambda frame: frame[["date", "aggregate"]])
    data = DisaggregationData(path)
    data.adopt(description)
    data.setup("predict")
    batch = data.datasets["predict"].__getitems__([0, 1])
    assert torch.cat([batch.context, batch.target], 1)[..., 1:].isnan().all()
    assert batch.position.tolist() == [10, 20]
    assert batch.calendar.shape == (2, 20, 8)
    with pytest.raises(QuintetError, match="no window of 20"):
        data.setup("test")


def test_calendar_turns():
    stamps = pd.DatetimeIndex(["2024-01-01 00:00", "2024-01-01 06:15"])
    found = cyclic_calendar(stamps, ["hour", "minute"])
    np.testing.assert_allclose(found, [[0, 1, 0, 1], [1, 0, 1, 0]], atol=1e-6)


def test_threshold_is_in_the_middle():
    assert middle_threshold(np.array([0, 0, 1, 99, 101, 100.0])) == pytest.approx((100 + 1 / 3) / 2)
    assert middle_threshold(np.array([5.0, 5.0])) == 5.0


def test_suspicions_are_said(written):
    def odd(frame):
        frame.loc[3:5, "aggregate"] = -1.0
        frame.loc[100, "kettle"] = 9000.0
        return frame

    remarks = " | ".join(DisaggregationData(written(odd), length=20).examination.remarks)
    assert "column 'aggregate' is negative in 3 rows" in remarks
    assert "the appliances together exceed 'aggregate' in" in remarks


@pytest.mark.parametrize(
    ("change", "arguments", "complaint"),
    [
        (None, {"aggregate": "agregate"}, "no column 'agregate', the whole load; name it with data.aggregate; nearest"),
        (None, {"appliances": ["ketle"]}, "data.appliances: no column 'ketle'; nearest: kettle"),
        (None, {"thresholds": {"ketle": 5.0}}, "data.thresholds: no appliance is called 'ketle'; nearest: kettle"),
        (None, {"calendar": ["hours"]}, "data.calendar: no feature is called 'hours'; nearest: hour"),
        (None, {"length": 300}, "train rows, and no window of 300"),
        (None, {"past": ["fridge"]}, "data.past: a disaggregator reads what data.aggregate and data.appliances name"),
        (None, {"length": 1}, "data.length is 1"),
        (None, {"stride": 0}, "data.stride is 0"),
        (lambda frame: frame[["date", "aggregate"]], {}, "has no column of numbers beside 'aggregate'"),
        (lambda frame: frame.assign(kettle=0.0), {}, r"column 'kettle' is constant \(0\).*data.appliances"),
        (lambda frame: frame.drop(columns="date"), {}, "needs dates, and these rows have none"),
        (lambda frame: frame.assign(kettle=["on", *["0"] * 399]), {}, "row 2 has 'on' in 'kettle', which is no number"),
    ],
)
def test_mistakes(written, change, arguments, complaint):
    with pytest.raises(QuintetError, match=complaint):
        DisaggregationData(written(change), **{"length": 20} | arguments).setup()


def test_another_length_than_trained(written):
    description = DisaggregationData(written(), length=20).description()
    with pytest.raises(QuintetError, match=r"data\.length=24: this model was trained with data.length=20"):
        DisaggregationData(written(), length=24).adopt(description)
