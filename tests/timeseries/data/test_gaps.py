"""Windows for imputation lie in their part, and what cannot be filled is refused."""

import numpy as np
import pytest

from quintet.core.errors import QuintetError
from quintet.timeseries import ImputationData
from quintet.timeseries.data.whole import steps_between


def ready(path, length=24, **arguments) -> ImputationData:
    data = ImputationData(path, length, **arguments)
    data.setup()
    return data


def test_windows_lie_wholly_in_their_part(csv):
    data = ready(csv(rows=240))
    assert {part: len(dataset) for part, dataset in data.datasets.items()} == {"train": 121, "val": 2, "test": 2}
    starts = {part: (dataset.positions - data.context).tolist() for part, dataset in data.datasets.items()}
    assert (starts["val"], starts["test"]) == ([144, 168], [192, 216])
    assert max(starts["train"]) == 120


def test_rows_after_training_change_nothing_of_it(csv):
    def garbage(frame):
        frame.loc[144:, ["a", "b"]] = 1e6
        return frame

    clean, spoiled = ready(csv()), ready(csv(garbage, name="spoiled.csv"))
    assert clean.description().mean == spoiled.description().mean
    pairs = [data.datasets["train"].__getitems__(range(121)) for data in (clean, spoiled)]
    assert all(np.array_equal(one, other) for one, other in zip(pairs[0][:2], pairs[1][:2], strict=True))


def test_the_last_window_is_flush_with_the_end():
    assert steps_between(0, 10, 4, 4).tolist() == [0, 4, 6]
    assert steps_between(2, 5, 4, 1).tolist() == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"length": 1}, "data.length is 1; a window has at least 2 rows"),
        ({"calendar": ["hour"]}, "data.calendar: an imputer reads the target columns alone"),
        ({"length": 200}, "has 144 train rows, and one window takes 200"),
        ({"length": 60}, "has 48 val rows, and one window takes 60"),
    ],
)
def test_what_is_refused(csv, arguments, complaint):
    with pytest.raises(QuintetError, match=complaint):
        ready(csv(), **arguments)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda f: f[:20], "has 20 rows; the model sees windows of 24"),
        (
            lambda f: f.assign(a=f["a"].where((f.index < 50) | (f.index > 120))),
            "'a' has no number from 2024-01-03 02:00:00 to 2024-01-06, a gap too long for the 24 rows",
        ),
    ],
)
def test_what_a_trained_model_refuses(csv, change, complaint):
    data = ImputationData(csv(change, name="gaps.csv"))
    data.adopt(ready(csv()).description())
    with pytest.raises(QuintetError, match=complaint) as caught:
        data.setup("predict")
    assert len(str(caught.value).splitlines()) == 1


def test_another_length_than_trained_is_refused(csv):
    trained = ready(csv()).description()
    with pytest.raises(QuintetError, match=r"data.length=48: this model was trained with data.length=24"):
        ImputationData(csv(), 48).adopt(trained)
