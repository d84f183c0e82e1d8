"""Choosing a backend: what is chosen, what is refused and why, and life without Triton."""

import logging
import subprocess
import sys

import pytest
import torch
from torch._subclasses import FakeTensorMode

from quintet.kernels import _runtime as runtime
from quintet.kernels import explain
from quintet.kernels._runtime import INTERPRETING, OPERATIONS, Backends, KnownBad, cdiv, next_power_of_2

X = torch.ones(2, 8)


@pytest.fixture
def doubling():
    """An operation whose three implementations can be told apart; gone again after the test."""
    refuses_wide = lambda x: "x is too wide" if x.shape[-1] > 8 else None  # noqa: E731
    yield Backends(
        "doubling", lambda x: ("reference", x), lambda x: ("torch", x), lambda x: ("triton", x), refuses_wide
    )
    del OPERATIONS["doubling"]


def test_everything_imports_and_runs_without_triton():
    program = """
import sys
sys.modules["triton"] = None
import torch
from quintet.kernels import explain, list_specs
assert len(list_specs()) >= 2
from quintet.kernels.rms_norm import rms_norm
assert (rms_norm(torch.ones(2, 8)) - 1).abs().max() < 1e-5
assert "Triton is not available" in explain("rms_norm", torch.ones(2, 8))
try:
    rms_norm(torch.ones(2, 8), backend="triton")
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "rms_norm: backend='triton' cannot serve this call: Triton is not available" in done.stdout


def test_named_backends_are_taken_and_unknown_ones_refused(doubling):
    assert doubling.select("torch", X)(X)[0] == "torch"
    assert doubling.select("reference", X)(X)[0] == "reference"
    assert doubling.select(None, X)(X)[0] == "torch"
    with pytest.raises(ValueError, match="doubling: backend 'cuda' is unknown; choose None, 'reference'"):
        doubling.select("cuda", X)


@pytest.mark.skipif(INTERPRETING or runtime.triton is None, reason="about Triton without its interpreter")
def test_triton_on_cpu_is_refused_with_the_reason(doubling):
    with pytest.raises(ValueError, match="backend='triton' cannot serve this call: inputs are on cpu, not on CUDA"):
        doubling.select("triton", X)


@pytest.mark.skipif(INTERPRETING or runtime.triton is None, reason="about Triton without its interpreter")
def test_default_on_cuda_is_triton_and_falls_back_with_one_logged_line(doubling, caplog, monkeypatch):
    monkeypatch.setattr(runtime, "_HAS_COMPILER", True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with FakeTensorMode(allow_non_fake_inputs=True), caplog.at_level(logging.WARNING, "quintet.kernels"):
        narrow, wide = (torch.empty(2, dim, device="cuda") for dim in (8, 9))
        assert doubling.select(None, narrow)(narrow)[0] == "triton"
        assert [doubling.select(None, wide)(wide)[0] for _ in range(3)] == ["torch"] * 3
    assert caplog.messages == ["doubling runs on its torch form: x is too wide"]


def test_known_bad_combination_of_version_and_architecture_is_refused(monkeypatch):
    entry = KnownBad((9, 0), (3, 4, 0), (3, 7, 1), "doubling", "https://example.org/640")
    monkeypatch.setattr(runtime, "KNOWN_BAD", (entry,))
    device = torch.device("cuda")
    for version, capability, operation, bad in (
        ((3, 6, 0), (9, 0), "doubling", True),
        ((3, 7, 1), (9, 0), "doubling", False),
        ((3, 6, 0), (8, 0), "doubling", False),
        ((3, 6, 0), (9, 0), "rms_norm", False),
    ):
        monkeypatch.setattr(runtime, "TRITON_VERSION", version)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, capability=capability: capability)
        reason = runtime._known_bad(operation, device)
        assert (reason is not None) == bad
        assert not bad or "https://example.org/640" in reason


def test_explain_gives_a_line_to_each_backend():
    lines = explain("rms_norm", X.double()).splitlines()
    assert [line.split(":")[0] for line in lines] == ["rms_norm  triton", "rms_norm  torch", "rms_norm  reference"]
    assert "refuses" in lines[0]
    assert lines[1].endswith("the default here")


def test_explain_names_the_nearest_operation():
    with pytest.raises(ValueError, match="no operation 'rms_nrom'; nearest: rms_norm"):
        explain("rms_nrom", X)


def test_autocast_casts_float32_and_leaves_float64_bool_and_none():
    tensors = (X, X.double(), X.bool(), None)
    assert runtime.autocast(*tensors) == tensors
    with torch.autocast("cpu", torch.bfloat16):
        dtypes = [None if entry is None else entry.dtype for entry in runtime.autocast(*tensors)]
    assert dtypes == [torch.bfloat16, torch.float64, torch.bool, None]


def test_launch_arithmetic():
    assert [cdiv(length, 4) for length in (0, 1, 4, 5)] == [0, 1, 1, 2]
    assert [next_power_of_2(length) for length in (1, 2, 3, 63, 64)] == [1, 2, 4, 64, 64]
    assert runtime.dot_precision() in ("tf32x3", "tf32")


def test_a_message_is_marked_for_dynamo_as_torch_marks_constants():
    marked = torch.compiler.assume_constant_result(lambda: None)
    assert vars(marked)
    assert vars(marked).items() <= vars(runtime._log_once).items()
