"""Checkpoints that are either whole or not there."""

import errno
import os
import resource
import stat
import subprocess
import sys

import pytest
import torch

from quintet.core.errors import QuintetError
from quintet.core.run.checkpoint_io import AtomicCheckpointIO

BIG = {"state_dict": {"a": torch.arange(200_000)}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoints" / "last.ckpt"


def test_what_is_saved_is_loaded(path):
    AtomicCheckpointIO().save_checkpoint(BIG | {"epoch": 3, "sizes": (1, 2)}, path)
    content = AtomicCheckpointIO().load_checkpoint(path)
    assert torch.equal(content["state_dict"]["a"], BIG["state_dict"]["a"])
    assert (content["epoch"], content["sizes"]) == (3, (1, 2))
    assert os.listdir(path.parent) == ["last.ckpt"]


def test_others_may_read_it_as_far_as_the_umask_lets_them(path):
    before = os.umask(0o027)
    try:
        AtomicCheckpointIO().save_checkpoint({}, path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_checkpoint_that_would_run_code_is_refused(path):
    AtomicCheckpointIO().save_checkpoint({"a": os.mkdir}, path)
    with pytest.raises(QuintetError, match="would run code"):
        AtomicCheckpointIO().load_checkpoint(path)


class Full:
    """A file on a disk that is full after some bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, content):
        self.room -= len(content)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(content)

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [0, 1_000, 1_000_000])
def test_a_full_disk_leaves_the_previous_checkpoint_and_is_said_in_one_line(path, monkeypatch, room):
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)
    before = path.read_bytes()
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda content, file: save(content, Full(file, room)))
    with pytest.raises(QuintetError, match="No space left on device") as caught:
        AtomicCheckpointIO().save_checkpoint(BIG, path)
    assert str(caught.value) == (
        f"cannot write {path} (No space left on device); the previous last.ckpt is intact; "
        "free space and resume with ckpt_path=last"
    )
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["last.ckpt"]


def test_a_limit_of_the_operating_system_is_said_too(path):
    """A real failed write: the largest file this process may write is smaller than the checkpoint."""
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(QuintetError, match=r"cannot write .*last.ckpt \(File too large\); the previous last.ckpt"):
            AtomicCheckpointIO().save_checkpoint(BIG, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["last.ckpt"]


def test_a_disk_that_fills_up_before_the_first_checkpoint_promises_nothing(path, monkeypatch):
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda content, file: save(content, Full(file, 10)))
    with pytest.raises(QuintetError, match=r"\(No space left on device\); free space and start again"):
        AtomicCheckpointIO().save_checkpoint(BIG, path)
    assert not path.parent.exists()


def test_an_interruption_in_the_middle_of_writing_leaves_the_previous_checkpoint(path, monkeypatch):
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)

    def interrupted(content, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpointIO().save_checkpoint(BIG, path)
    assert AtomicCheckpointIO().load_checkpoint(path)["epoch"] == 1
    assert os.listdir(path.parent) == ["last.ckpt"]


def test_what_a_kill_left_behind_is_written_over(path):
    path.parent.mkdir()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (path.parent / f".partial.{ended.pid}.last.ckpt").write_bytes(b"half")
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)
    assert os.listdir(path.parent) == ["last.ckpt"]


def test_an_error_that_is_not_the_disk_s_is_left_as_it_is(path):
    with pytest.raises(Exception, match="pickle") as caught:
        AtomicCheckpointIO().save_checkpoint({"a": lambda: None}, path)
    assert not isinstance(caught.value, QuintetError)
    assert not path.parent.exists()


def test_storage_options_are_refused(path):
    with pytest.raises(TypeError, match="storage_options"):
        AtomicCheckpointIO().save_checkpoint({}, path, storage_options={})
