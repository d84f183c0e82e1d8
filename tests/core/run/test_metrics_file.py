"""metrics.csv: one row a step, kept whole across interruptions."""

import csv
import math
import os
from argparse import Namespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quintet.core.errors import QuintetError
from quintet.core.run.metrics_file import MetricsFile, read_metrics


def written(folder, *measured):
    file = MetricsFile(folder)
    for step, metrics in measured:
        file.log_metrics(metrics, step)
        file.save()
    return read_metrics(file.path)


def test_what_is_measured_at_one_step_stands_in_one_row(tmp_path):
    rows = written(tmp_path, (3, {"epoch": 0, "train/loss": 2.0}), (3, {"val/loss": 1.5}), (7, {"val/loss": 1.0}))
    assert rows == [{"epoch": 0, "step": 3, "train/loss": 2.0, "val/loss": 1.5}, {"step": 7, "val/loss": 1.0}]
    with (tmp_path / "metrics.csv").open() as file:
        assert next(csv.reader(file)) == ["epoch", "step", "train/loss", "val/loss"]


@given(st.dictionaries(st.sampled_from("abc"), st.floats(), min_size=1))
def test_numbers_come_back_to_the_last_bit(tmp_path_factory, metrics):
    (row,) = written(tmp_path_factory.mktemp("run"), (0, metrics))
    del row["step"]
    assert row.keys() == metrics.keys()
    assert all(row[key] == value or (math.isnan(value) and math.isnan(row[key])) for key, value in metrics.items())


def test_a_resumed_run_goes_on_with_the_file_and_does_again_what_it_does_again(tmp_path):
    written(tmp_path, *((step, {"loss": float(step)}) for step in (3, 7, 11)))
    rows = written(tmp_path, (7, {"loss": 0.5}), (11, {"loss": 0.25}))
    assert rows == [{"step": 3, "loss": 3.0}, {"step": 7, "loss": 0.5}, {"step": 11, "loss": 0.25}]


def test_a_new_quantity_gets_a_column_and_old_rows_stay(tmp_path):
    assert written(tmp_path, (0, {"a": 1.0}), (1, {"b": 2.0})) == [{"step": 0, "a": 1.0}, {"step": 1, "b": 2.0}]


def test_nothing_measured_writes_nothing(tmp_path):
    file = MetricsFile(tmp_path / "run")
    file.save()
    file.finalize("success")
    file.log_hyperparams(Namespace(a=1))
    assert not file.path.exists()
    assert read_metrics(file.path) == []
    assert (file.name, file.version, file.save_dir) == ("", "", str(tmp_path / "run"))


def test_a_step_that_is_not_given_is_the_first(tmp_path):
    file = MetricsFile(tmp_path)
    file.log_metrics({"a": 1.0})
    file.finalize("success")
    assert read_metrics(file.path) == [{"step": 0, "a": 1.0}]


def test_a_failed_write_leaves_the_previous_file_and_is_said(tmp_path, monkeypatch, capsys):
    file = MetricsFile(tmp_path)
    file.log_metrics({"a": 1.0}, 0)
    file.save()
    before = file.path.read_text()

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(csv.DictWriter, "writerows", fail)
    file.log_metrics({"a": 2.0}, 1)
    with pytest.raises(QuintetError, match=r"cannot write .*metrics.csv \(No space left on device\); free space"):
        file.save()
    assert file.path.read_text() == before
    file.finalize("failed")  # beside the error that ended the run
    assert "warning: cannot write" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["metrics.csv"]
