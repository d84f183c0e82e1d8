"""Labelled series from archives, tables and folders: what is understood, how it is split, what is refused."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from quintet.core.errors import QuintetError
from quintet.core.run.inspection import build_data
from quintet.timeseries import LabelledSeries

HEADER = "@problemName Toy\n@timeStamps false\n@univariate true\n@classLabel true up down\n@data\n"


def write_ts(folder, train: str, test: str | None = None, header: str = HEADER):
    (folder / "Toy_TRAIN.ts").write_text(header + train)
    if test is not None:
        (folder / "Toy_TEST.ts").write_text(header + test)
    return folder


def cases(count: int, seed: int = 0) -> str:
    """Series of 4 to 8 steps that rise or fall."""
    random = np.random.default_rng(seed)
    lines = []
    for number in range(count):
        slope = 1 if number % 2 else -1
        values = slope * np.arange(4 + number % 5) + random.normal(size=4 + number % 5)
        lines.append(",".join(f"{value:.3f}" for value in values) + (":up" if slope > 0 else ":down"))
    return "\n".join(lines) + "\n"


def long_table(series: int = 20) -> pd.DataFrame:
    random = np.random.default_rng(1)
    blocks = []
    for number in range(series):
        rows = 5 + number % 4
        values = {"x": random.normal(size=rows) + number % 2, "y": random.normal(size=rows)}
        label = "warm" if number % 2 else "cold"
        blocks.append(pd.DataFrame({"unique_id": f"s{number}", "step": range(rows), **values, "label": label}))
    return pd.concat(blocks, ignore_index=True)


def ready(path, **arguments) -> LabelledSeries:
    data = LabelledSeries(path, **arguments)
    data.setup()
    return data


def test_the_archives_own_test_stays_the_test(tmp_path):
    data = ready(write_ts(tmp_path, cases(20), cases(7, seed=1)))
    assert {part: len(dataset) for part, dataset in data.datasets.items()} == {"train": 16, "val": 4, "test": 7}
    assert all(case.name.startswith("Toy_TEST") for case in data.parts["test"])
    assert data.description().classes == ["down", "up"]
    assert ready(tmp_path / "Toy_TRAIN.ts").description() == data.description()


def test_the_scaler_sees_training_series_alone(tmp_path):
    data = ready(write_ts(tmp_path, cases(20), cases(7) + "1e6,1e6:up\n"))
    rows = np.concatenate([case.values for case in data.parts["train"]])
    assert np.allclose([data.description().mean, data.description().std], [rows.mean(0), rows.std(0)])


def test_the_scaler_passes_over_gaps(tmp_path):
    path = tmp_path / "long.csv"
    frame = long_table()
    frame["x"] = frame["x"].where(frame.index % 3 > 0)
    frame.to_csv(path, index=False)
    data = ready(path)
    train = frame[frame["unique_id"].isin([case.name for case in data.parts["train"]])]
    assert train["x"].isna().any()
    assert np.allclose(data.description().mean, train[["x", "y"]].mean())
    assert np.allclose(data.description().std, train[["x", "y"]].std(ddof=0))
    assert ready(path, scale="none").description().mean == [0.0, 0.0]
    assert ready(path, scale="none").description().std == [1.0, 1.0]


def test_batches_are_padded_and_masked(tmp_path):
    data = ready(write_ts(tmp_path, cases(20)))
    batch = next(iter(data.train_dataloader()))
    lengths = batch.mask.sum(1)
    assert lengths.min() < lengths.max() == batch.values.shape[1]
    assert torch.equal(batch.values[..., 0].isfinite(), batch.mask)


def test_missing_values_are_masked(tmp_path):
    data = ready(write_ts(tmp_path, cases(20) + "1,?,NaN,4:up\n", cases(4)), val_fraction=0.1)
    (case,) = [case for part in data.parts.values() for case in part if np.isnan(case.values).any()]
    assert np.isnan(case.values[:, 0]).tolist() == [False, True, True, False]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_long_table(tmp_path, ending):
    path = tmp_path / f"long.{ending}"
    frame = long_table()
    frame.to_csv(path, index=False) if ending == "csv" else frame.to_parquet(path, index=False)
    data = ready(path)
    known = data.description()
    assert (known.channels, known.classes) == (["x", "y"], ["cold", "warm"])
    assert {part: len(dataset) for part, dataset in data.datasets.items()} == {"train": 12, "val": 4, "test": 4}
    assert sorted(len(case.values) for part in data.parts.values() for case in part) == sorted([5, 6, 7, 8] * 5)


def test_groups_stay_in_one_part(tmp_path):
    path = tmp_path / "long.csv"
    frame = long_table()
    frame.assign(person=frame["unique_id"].str[1:].astype(int) // 4).to_csv(path, index=False)
    data = ready(path, group="person")
    people = [{case.group for case in part} for part in data.parts.values()]
    assert sum(map(len, people)) == len(set.union(*people)) == 5


def test_a_folder_with_a_file_a_series(tmp_path):
    for name, rows in long_table().groupby("unique_id"):
        path = tmp_path / rows["label"].iloc[0] / f"{name}.csv"
        path.parent.mkdir(exist_ok=True)
        rows[["step", "x", "y"]].to_csv(path, index=False)
    data = build_data(str(tmp_path), [])
    assert isinstance(data, LabelledSeries)
    assert not data.faults()
    data.setup()
    assert data.description().classes == ["cold", "warm"]
    assert data.parts["train"][0].name.startswith("cold/s")
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(data.table())
    assert "5 to 8 steps" in console.export_text()


@pytest.mark.parametrize(
    ("change", "arguments", "complaint"),
    [
        (lambda f: f.drop(columns="label"), {}, "has no column of classes; name it with data.label"),
        (lambda f: f.drop(columns="unique_id"), {}, "has no column that names the series; name it with data.id"),
        (lambda f: f, {"label": "lable"}, "data.label: no column 'lable'; nearest: label"),
        (lambda f: f.assign(label="warm"), {}, r"has one class \(warm\); a classifier needs two or more"),
        (lambda f: f.assign(x=3.0), {}, "column 'x' is constant over the training series; leave it out"),
        (lambda f: f.assign(step=f["step"].where(f.index != 3, 0)), {}, "row 5 does not come after the row before it"),
        (lambda f: f.assign(label=f["label"].where(f.index != 3, "warm")), {}, "row 5 gives series 's0' another class"),
        (lambda f: f.assign(label=f["label"].where(f.index != 3)), {}, "row 5 has no class in 'label'"),
        (lambda f: f.assign(x=f["x"].astype(object).where(f.index != 3, "bad")), {}, "row 5 has 'bad' in 'x'"),
        (lambda f: f, {"val_fraction": 0.0}, "leaves no series for validation"),
        (lambda f: f, {"val_fraction": 0.7, "test_fraction": 0.5}, "is more than 1"),
    ],
)
def test_tables_that_are_refused(tmp_path, change, arguments, complaint):
    path = tmp_path / "long.csv"
    change(long_table()).to_csv(path, index=False)
    with pytest.raises(QuintetError, match=complaint) as caught:
        ready(path, **arguments)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("train", "test", "header", "complaint"),
    [
        ("1,2,x:up\n" + cases(8), None, HEADER, "line 6 has 'x', which is no number; correct it, or write"),
        ("1,2:3:up\n" + cases(8), None, HEADER, "line 6 has channels of 1 to 2 values"),
        ("1,2:sideways\n" + cases(8), None, HEADER, "line 6 has the class 'sideways', which @classLabel does not name"),
        (cases(8), None, HEADER.replace("timeStamps false", "timeStamps true"), "has stamps beside its values"),
        ("1,2:up\n" * 8, "1,2:down\n", HEADER, "has one class"),
        ("?,?:up\n" + cases(8), None, HEADER, "holds no number; leave the series out"),
        ("", None, HEADER, "has no series below @data"),
        ("1,2:up", None, "", "has no line @data; it is no .ts file"),
    ],
)
def test_archives_that_are_refused(tmp_path, train, test, header, complaint):
    with pytest.raises(QuintetError, match=complaint) as caught:
        ready(write_ts(tmp_path, train, test, header))
    assert len(str(caught.value).splitlines()) == 1


def test_comments_among_the_series_are_passed_over(tmp_path):
    lines = cases(8).splitlines(keepends=True)
    remarks = ["# remark: of the author\n", "#\n", "\n", "  % indented\n", "%1,2:up\n"]
    (tmp_path / "Toy_TRAIN.ts").write_text(HEADER + "".join(lines[:4] + remarks + lines[4:]))
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "Toy_TRAIN.ts").write_text(HEADER + "".join(lines))
    found, plain = (ready(path / "Toy_TRAIN.ts") for path in (tmp_path, tmp_path / "plain"))
    for part, expected in plain.parts.items():
        assert [case.values.tolist() for case in found.parts[part]] == [case.values.tolist() for case in expected]
    assert sum(map(len, found.parts.values())) == 8


def test_training_batches_of_like_length_hold_every_series_once(tmp_path):
    write_ts(tmp_path, cases(60), cases(4))
    data = ready(tmp_path, max_steps=40, batch_size=8)
    batches = list(data.train_dataloader())
    assert sorted(torch.cat([batch.index for batch in batches]).tolist()) == list(range(len(data.parts["train"])))
    assert all(batch.mask.numel() <= 40 and len(batch.label) <= 8 for batch in batches)
    free = list(ready(tmp_path, batch_size=8).train_dataloader())
    padding = [sum((~batch.mask).sum().item() for batch in one) for one in (batches, free)]
    assert padding[0] < padding[1] / 4
    assert len(list(data.val_dataloader())) == 2


def test_series_longer_than_a_batch_are_found_before_training(tmp_path):
    data = LabelledSeries(write_ts(tmp_path, cases(20), cases(4)), max_steps=7)
    assert {fault.what for fault in data.faults()} == {"has 8 steps and data.max_steps is 7"}
    with pytest.raises(QuintetError, match=r"data\.max_steps is 0; give at least the steps"):
        LabelledSeries(tmp_path, max_steps=0)


def test_what_a_trained_model_refuses(tmp_path):
    trained = ready(write_ts(tmp_path, cases(20), cases(4))).description()
    other = tmp_path / "other.ts"
    other.write_text("@classLabel false\n@data\n1,2:3,4\n")
    data = LabelledSeries(other)
    data.adopt(trained)
    with pytest.raises(QuintetError, match="has 2 channels, the model was trained on 1"):
        data.setup("predict")


def test_the_archives(shared_data):
    found = ready(shared_data("ts_ucr_uea") / "JapaneseVowels")
    known = found.description()
    assert (len(known.channels), len(known.classes), len(found.parts["test"])) == (12, 9, 370)
    lengths = {len(case.values) for case in found.examined.cases}
    assert (min(lengths), max(lengths)) == (7, 29)
