"""The run folder."""

import json
import os
from datetime import datetime
from pathlib import Path

import pytest

from quintet.core.errors import QuintetError
from quintet.core.run import run_folder
from quintet.core.run.run_folder import (
    best_checkpoint,
    last_checkpoint,
    new_output_folder,
    new_run_folder,
    refuse_links,
    run_folder_of,
    settings_of,
    write_summary,
)


@pytest.fixture
def clock(monkeypatch):
    class Clock(datetime):
        @classmethod
        def now(cls):
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr(run_folder, "datetime", Clock)


def touch(path, time):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    os.utime(path, (time, time))
    return path


def test_a_run_has_a_folder_of_its_own_also_within_one_second(tmp_path, clock):
    names = [new_run_folder("vision/digits", tmp_path).relative_to(tmp_path) for _ in range(3)]
    stamp = "vision/digits/2026-01-02_03-04-05"
    assert names == [Path(stamp), Path(f"{stamp}_2"), Path(f"{stamp}_3")]
    assert new_output_folder(tmp_path, "predictions") == tmp_path / "predictions" / "2026-01-02_03-04-05"


def test_a_thousand_runs_of_one_second_are_too_many(tmp_path, clock, monkeypatch):
    def exists(*arguments, **keywords):
        raise FileExistsError

    monkeypatch.setattr(Path, "mkdir", exists)
    with pytest.raises(QuintetError, match="a thousand runs of this second; choose a folder with run_dir=FOLDER"):
        new_run_folder("a", tmp_path)


def test_a_place_that_cannot_be_written_is_named_with_the_remedy(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(QuintetError, match=r"cannot create .*file/a/.*run_dir=FOLDER"):
        new_run_folder("a", tmp_path / "file")


def test_the_last_checkpoint_is_the_one_written_most_recently(tmp_path):
    touch(tmp_path / "a" / "2" / "checkpoints" / "last.ckpt", 200)
    newest = touch(tmp_path / "a" / "1" / "checkpoints" / "last.ckpt", 300)
    touch(tmp_path / "a" / "3" / "checkpoints" / "best.ckpt", 400)
    touch(tmp_path / "b" / "1" / "checkpoints" / "last.ckpt", 500)
    assert last_checkpoint("a", tmp_path) == newest
    with pytest.raises(QuintetError, match=f"ckpt_path=last: no run under {tmp_path}/c has checkpoints/last.ckpt yet"):
        last_checkpoint("c", tmp_path)


def test_the_run_of_a_checkpoint():
    assert run_folder_of("runs/a/1/checkpoints/last.ckpt") == Path("runs/a/1")
    assert run_folder_of("downloads/last.ckpt") is None


def test_the_best_checkpoint_or_else_the_last(tmp_path):
    assert best_checkpoint(tmp_path).name == "last.ckpt"
    touch(tmp_path / "checkpoints" / "best.ckpt", 1)
    assert best_checkpoint(tmp_path).name == "best.ckpt"


def test_the_summary_replaces_the_previous_one(tmp_path):
    for value in (1.5, 2.5):
        write_summary(tmp_path, {"metrics": {"test/loss": value}})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"metrics": {"test/loss": 2.5}}
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_nothing_is_written_or_read_where_a_link_in_a_run_folder_leads(tmp_path):
    run, outside = tmp_path / "run", tmp_path / "outside"
    (run / "pictures").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_text("password")
    (run / "predictions").symlink_to(outside)
    with pytest.raises(QuintetError, match=r"predictions leads out of the run by a link; remove the link"):
        new_output_folder(run, "predictions")
    assert [path.name for path in outside.iterdir()] == ["secret"]
    with pytest.raises(QuintetError, match="predictions leads out"):
        refuse_links(run)
    (run / "predictions").unlink()
    (run / "pictures" / "a.png").symlink_to(outside / "secret")
    with pytest.raises(QuintetError, match=r"a\.png leads out"):
        refuse_links(run)
    (run / "pictures" / "a.png").unlink()
    (run / "test").mkdir()
    (run / "validate").symlink_to("test")  # stays inside
    refuse_links(run)
    assert new_output_folder(run, "validate").is_dir()


def test_settings_are_shown_where_they_are_the_runs_own(tmp_path):
    run, secret = tmp_path / "run", tmp_path / "secret"
    run.mkdir()
    assert settings_of(run) == ""
    (run / "config.yaml").write_text("a: 1\n")
    assert settings_of(run) == "a: 1\n"
    (run / "config.yaml").write_bytes(b"\xff")
    assert "not shown: " in settings_of(run)
    (run / "config.yaml").unlink()
    secret.write_text("password")
    (run / "config.yaml").symlink_to(secret)
    assert "leads out of the run" in settings_of(run)
    assert "password" not in settings_of(run)
