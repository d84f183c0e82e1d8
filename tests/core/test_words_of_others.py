"""Messages of other libraries that are read here, raised by these libraries: a change of their words fails a test."""

import datetime
import inspect
import io
import pickle
import re
from pathlib import Path

import h5py
import lightning as L
import pandas as pd
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.fabric.strategies.launchers import subprocess_script
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import tensorboard
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import dataloader

from quintet.core.errors import QuintetError, one_line
from quintet.core.run.composition import compose
from quintet.core.run.interruption import killed_process
from quintet.core.weights.networks import Kind, build_network
from quintet.core.weights.pretrained import read_checkpoint
from quintet.core.writing.files import system_error
from quintet.timeseries.data.stamp_formats import check_format


def raised(function, *arguments, **named):
    """What another library raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 (its words are what is tested)
        function(*arguments, **named)
    return caught.value


# Python


def test_an_argument_that_a_function_does_not_take():
    def build(width, **more):
        return nn.Linear(width, 1, **more)

    with pytest.raises(QuintetError, match="build takes no colour"):
        build_network(build, Kind("vision", "a network", "nat_mini"), {"width": 2}, {"colour": 3})


def test_text_that_is_not_of_a_format_and_a_format_that_is_none():
    assert "does not match" in str(raised(datetime.datetime.strptime, "", "%Y"))
    check_format("%Y")
    with pytest.raises(QuintetError, match=r"data.time_format: '%Q' is no format"):
        check_format("%Q")


# Lightning


class TestLightning:
    def test_what_is_monitored_is_not_measured(self, tmp_path):
        trainer = L.Trainer(logger=False, barebones=True, accelerator="cpu")
        trainer.fit_loop.epoch_loop.val_loop._has_run = True
        callback = ModelCheckpoint(tmp_path, monitor="val/los")
        error = raised(callback._save_topk_checkpoint, trainer, {"val/loss": torch.zeros(())})
        assert one_line(error) == "monitor=val/los: nothing of this name is measured; nearest: val/loss"
        error = raised(EarlyStopping("val/los")._validate_condition_metric, {"val/loss": torch.zeros(())})
        assert one_line(error) == "monitor=val/los: nothing of this name is measured; nearest: val/loss"

    def test_a_device_that_is_not_there(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr("lightning.fabric.accelerators.cuda.num_cuda_devices", lambda: 0)
        monkeypatch.setattr("lightning.pytorch.accelerators.cuda.num_cuda_devices", lambda: 0)
        assert one_line(raised(L.Trainer, accelerator="gpu")) == "there is no GPU here; add trainer.accelerator=cpu"
        words = one_line(raised(L.Trainer, accelerator="cuda"))
        assert words == "there is no CUDA device here; add trainer.accelerator=cpu"

    def test_a_package_that_is_not_there(self, monkeypatch, tmp_path):
        for module in (tensorboard, inspect.getmodule(tensorboard.TensorBoardLogger.__mro__[2])):
            for flag in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
                monkeypatch.setattr(module, flag, False, raising=False)
        error = raised(tensorboard.TensorBoardLogger, tmp_path)
        assert one_line(error) == "this needs the package tensorboard: pip install tensorboard"
        from lightning_utilities.core.imports import RequirementCache

        error = ModuleNotFoundError(str(RequirementCache("nothing_of_this_name>=1")))
        assert one_line(error) == "this needs the package nothing_of_this_name: pip install nothing_of_this_name"

    def test_a_process_that_ended(self):
        # Raised by a process that waits for killed ones; tests/trials kills some.
        assert "PID {proc.pid} terminated with code {proc.returncode}" in inspect.getsource(subprocess_script)


# torch


def test_a_reading_process_that_ended():
    assert '"DataLoader worker (pid(s) {' in inspect.getsource(dataloader).replace('f"', '"')
    error = RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly")
    assert "(pid 7, 8) ended unexpectedly" in killed_process(error, None)


def test_a_pickle_that_runs_code_and_a_file_that_is_none(tmp_path):
    torch.save({"a": Path}, tmp_path / "code.pt")
    with pytest.raises(QuintetError, match=r"it would run code \(pathlib\.\w+\)"):
        read_checkpoint(tmp_path / "code.pt")
    (tmp_path / "old.pt").write_bytes(pickle.dumps({"a": Path("x")}, protocol=2))
    with pytest.raises(QuintetError, match=r"it would run code|is damaged"):
        read_checkpoint(tmp_path / "old.pt")


def test_numbers_of_a_device_without_any():
    # By which timm's models are told that are built from tables of numbers.
    assert "meta" in str(raised(torch.zeros(2, device="meta").tolist))


# Files


def test_what_the_system_said_inside_another_message():
    text = str(raised(save_file, {"a": torch.zeros(9)}, "/nowhere/at/all.safetensors"))
    assert system_error(RuntimeError(text.replace("os error 2)", "os error 28)"))) == "No space left on device"
    text = str(raised(h5py.File, "/nowhere/at/all.h5", "r"))
    assert system_error(RuntimeError(text.replace("errno = 2,", "errno = 28,"))) == "No space left on device"


def test_tables_that_cannot_be_read(tmp_path):
    error = raised(pd.read_csv, io.StringIO("a,b\n1,2\n1,2,3\n"))
    assert str(error).startswith("Error tokenizing data. C error: ")


def test_a_picture_that_is_cut_short():
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(whole, "JPEG")
    with Image.open(io.BytesIO(whole.getvalue()[:900])) as image:
        assert "truncated" in str(raised(image.load)).lower()


# jsonargparse


class TestJsonargparse:
    @pytest.fixture
    def parser(self):
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--rate", type=float)
        parser.add_subclass_arguments(nn.Module, "model", required=False)
        return parser

    @pytest.mark.parametrize(
        ("typed", "words"),
        [
            ({"rate": "fast"}, r"^rate: expected a float, got fast"),
            (
                {"model": {"class_path": "torch.nn.Linear", "init_args": {"in_features": 2}}},
                r"Linear needs out_feat",
            ),
        ],
    )
    def test_values_that_are_not_taken(self, parser, typed, words):
        line = one_line(raised(parser.parse_object, typed))
        assert re.search(words, line), line
        assert "QUINTET_DEBUG" not in line

    def test_arguments_that_are_not_known(self, parser):
        line = one_line(raised(parser.parse_args, ["--colour", "red"]))
        assert line.startswith("cannot read '--colour")


# Hydra


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("experiment=vision/digit", "no experiment is called 'vision/digit'; nearest: vision/digits"),
        ("nothing_of_this_name=3", "no option is called 'nothing_of_this_name'"),
    ],
)
def test_words_of_hydra(typed, words):
    with pytest.raises(QuintetError) as caught:
        compose(["experiment=vision/digits"] * (typed[0] != "e") + [typed])
    assert words in str(caught.value)
