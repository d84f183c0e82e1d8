"""Labels of anomalies from a column, a list, JSON and CSV; what is refused; and that they are no channel."""

import json

import numpy as np
import pandas as pd
import pytest

from quintet.core.errors import QuintetError
from quintet.timeseries import AnomalyData

WINDOWS = [["2024-01-09 00:00", "2024-01-09 03:00"]]


def ready(path, **arguments) -> AnomalyData:
    data = AnomalyData(path, 24, 6, **arguments)
    data.setup()
    return data


def rows_of(data: AnomalyData, series: int = 0) -> list[int]:
    return np.flatnonzero(data.truth[series] > 0).tolist()


def labelled(frame):
    return frame.assign(is_anomaly=(frame.index // 4 == 48).astype(int))


@pytest.mark.parametrize("label", [None, "is_anomaly"])
def test_a_column_of_labels_is_no_channel(csv, label):
    data = ready(csv(labelled), label=label)
    assert data.description().channels == ["a", "b"]
    assert rows_of(data) == [192, 193, 194, 195]
    assert any("score the test and are used for nothing else" in remark for remark in data.examination.remarks)


def test_labels_on_the_grid(csv):
    """Rows that are absent have no label, stamps that repeat are anomalous where one of their rows is."""

    def change(frame):
        frame = labelled(frame).drop(index=[100, 194])
        return pd.concat([frame, frame[frame.index == 10].assign(is_anomaly=1)]).sort_values("date")

    data = ready(csv(change), duplicates="mean")
    assert rows_of(data) == [10, 192, 193, 195]
    assert np.flatnonzero(np.isnan(data.truth[0])).tolist() == [100, 194]


def test_windows_from_a_list_json_and_csv(csv, tmp_path):
    path, listed = csv(), tmp_path / "windows.json"
    nab, table = tmp_path / "nab.json", tmp_path / "windows.csv"
    listed.write_text(json.dumps(WINDOWS))
    nab.write_text(json.dumps({"folder/other.csv": [], f"{tmp_path.name}/series.csv": WINDOWS}))
    table.write_text("start,end\n" + ",".join(WINDOWS[0]) + "\n")
    for given in (WINDOWS, listed, nab, str(table)):
        assert rows_of(ready(path, windows=given)) == [192, 193, 194, 195]


def test_windows_by_series(csv, table, tmp_path):
    path = csv(lambda f: pd.concat([f.assign(unique_id="x"), table(240, seed=1).assign(unique_id="y")]))
    by_name = tmp_path / "windows.json"
    by_name.write_text(json.dumps({"y": WINDOWS}))
    data = ready(path, windows=by_name)
    assert (rows_of(data), rows_of(data, 1)) == ([], [192, 193, 194, 195])


def test_without_labels_there_is_no_truth(csv):
    assert ready(csv()).truth is None


def test_a_stride_leaves_no_row_out(csv):
    data = ready(csv(rows=245), stride=6)
    scored = {row for first in data.datasets["test"].positions.tolist() for row in range(first, first + 6)}
    assert scored == set(range(*data.rows[0]["test"]))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"label": "x"}, "data.label: no column 'x'"),
        ({"label": "a"}, "column 'a' has .*; labels are 0 and 1"),
        ({"windows": "nowhere.json"}, "data.windows: no file nowhere.json"),
        ({"windows": [["2024-01-09"]]}, r"data.windows: \['2024-01-09'\] is no window; give \[begin, end\]"),
        (
            {"windows": [["2025-01-09", "2025-01-10"]]},
            "2025-01-09 to 2025-01-10 holds no row; the series has rows from",
        ),
        ({"windows": [["2024-01-09", "2024-01-08"]]}, "the window 2024-01-09 to 2024-01-08 ends before it begins"),
        ({"windows": [["yesterday!", "2024-01-08"]]}, "'yesterday!' to '2024-01-08' is no window of rows from"),
        ({"windows": WINDOWS, "label": "a"}, "both say what is anomalous; give one of them"),
        ({"stride": 7}, "data.stride is 7; give 1 to data.horizon=6, so that every row is scored"),
        ({"calendar": ["hour"]}, "data.calendar: an anomaly detector reads the target columns alone"),
    ],
)
def test_what_is_refused(csv, arguments, complaint):
    with pytest.raises(QuintetError, match=complaint) as caught:
        _ = ready(csv(), **arguments).truth
    assert len(str(caught.value).splitlines()) == 1


def test_a_json_of_other_files_is_refused(csv, tmp_path):
    path = tmp_path / "windows.json"
    path.write_text(json.dumps({"realKnownCause/serie.csv": []}))
    with pytest.raises(QuintetError, match=r"names neither series\.csv nor one of its series; nearest: realKnownCause"):
        _ = ready(csv(), windows=path).truth


def test_nab(shared_data):
    folder = shared_data("ts_nab")
    path = folder / "data" / "realKnownCause" / "nyc_taxi.csv"
    data = ready(path, windows=folder / "labels" / "combined_windows.json")
    assert int(data.truth[0].sum()) == 5 * 207
