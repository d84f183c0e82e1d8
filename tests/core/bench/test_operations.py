"""`bench_kernels` times what is right, says why it does not time the rest, and writes its files."""

import json
from dataclasses import replace

import pytest
import torch

from quintet.core.bench import operations as bench
from quintet.core.bench.peers import Peer, all_peers
from quintet.core.errors import QuintetError
from quintet.kernels._spec import Cost, Sampler, list_specs


def small(spec):
    """The specification with one small benchmark."""

    def make(random: Sampler) -> dict:
        return {"x": random.normal(8, 16), "weight": random.normal(16)}

    return replace(spec, cases={}, large_cases={}, benchmarks={"8x16": make})


@pytest.fixture(autouse=True)
def _small_machine(monkeypatch):
    spec = small(list_specs()["rms_norm"])
    monkeypatch.setattr(bench, "list_specs", lambda: {"rms_norm": spec})
    machine = bench.Machine("a device", "2.0", "3.0", 1, "float32", bandwidth=1e9, matmul_rate=1e9)
    monkeypatch.setattr(bench, "measure_machine", lambda device, dtype: machine)
    monkeypatch.setattr(bench.torch.cuda, "is_available", lambda: False)


def run(folder, **settings):
    written = bench.bench_kernels(output=folder, compile=False, repeats=2, **settings)
    return json.loads((written / "results.json").read_text())


def test_what_is_written(tmp_path):
    found = run(tmp_path / "here")
    assert found["machine"]["device"] == "a device"
    assert [row["implementation"] for row in found["results"]] == ["reference", "torch", "F.rms_norm"]
    for row in found["results"]:
        assert (row["operation"], row["case"]) == ("rms_norm", "8x16")
        assert row["forward"] > 0
        assert row["training"] > 0
        assert row["error"] < 1e-5
    assert found["results"][0]["forward_ratio"] == 1
    text = (tmp_path / "here/results.md").read_text()
    assert "a device with 1 threads, torch 2.0, triton 3.0" in text
    assert text.count("| rms_norm | 8x16 |") == 3
    assert (tmp_path / "here/results.png").stat().st_size > 1000
    with pytest.raises(QuintetError, match="exists and is not overwritten"):
        run(tmp_path / "here")


def test_an_operation_that_is_wrong_is_not_timed(tmp_path, monkeypatch, capsys):
    spec = small(list_specs()["rms_norm"])

    def wrong(x, weight, eps=1e-6, backend=None):
        return spec.function(x, weight, eps, backend=backend) * (1.001 if backend == "torch" else 1)

    monkeypatch.setattr(bench, "list_specs", lambda: {"rms_norm": replace(spec, function=wrong)})
    assert run(tmp_path / "here")["results"] == []
    assert "torch is wrong by 1.0e-03; not timed" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda x, weight: x * weight * torch.nan, "wrong by nan"),
        (lambda x, weight: 2 * x, "wrong by"),
        (lambda x, weight: (x, x), "KeyError|ValueError"),
        (lambda x, weight: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
    ids=["NaN", "wrong", "too much", "failing"],
)
def test_a_peer_that_is_wrong_or_fails_is_left_out(tmp_path, monkeypatch, capsys, answer, reason):
    monkeypatch.setitem(all_peers(), "rms_norm", (Peer("peer", answer), *all_peers()["rms_norm"]))
    found = run(tmp_path / "here")
    assert [row["implementation"] for row in found["results"]] == ["reference", "torch", "F.rms_norm"]
    said = " ".join(capsys.readouterr().out.split())
    assert "not timed: rms_norm, 8x16, peer: " in said
    assert any(part in said for part in reason.split("|"))


def test_a_peer_without_gradients_is_timed_forward(tmp_path, monkeypatch):
    spec = small(list_specs()["rms_norm"])
    forward = Peer("forward", lambda x, weight: spec.function(x.detach(), weight.detach()), forward_only=("cpu",))
    monkeypatch.setitem(all_peers(), "rms_norm", (forward,))
    row = run(tmp_path / "here")["results"][-1]
    assert row["implementation"] == "forward"
    assert row["forward_ratio"] > 0
    assert row["training"] is row["training_ratio"] is None


@pytest.mark.parametrize(("error", "refused"), [(1.9, False), (3.9, False), (4.1, True)])
def test_a_peer_may_be_off_by_four_tolerances(error, refused):
    spec = replace(small(list_specs()["rms_norm"]), tolerances={"triton": {torch.float32: 1e-3}})
    peer = Peer("peer", lambda x, weight: spec.function(x, weight) * (1 + error * 1e-3), forward_only=("cpu",))
    reason = bench._refusal(spec, peer, "8x16", torch.device("cpu"), torch.float32)
    assert reason == (f"wrong by {error:.1f}e-03, more than 4.0e-03" if refused else None)


def test_the_floor_is_that_of_the_slower_of_memory_and_arithmetic():
    machine = bench.Machine("a device", "2.0", "3.0", 1, "float32", bandwidth=1e9, matmul_rate=1e12)
    assert machine.floor(Cost(bytes=2e9, flops=1e12)) == pytest.approx(2000)
    assert machine.floor(Cost(bytes=1e9, flops=4e12)) == pytest.approx(4000)


def test_unknown_names_are_refused_in_words(tmp_path):
    with pytest.raises(QuintetError, match="rms_norm"):
        run(tmp_path / "here", operations=["rmsnorm"])
    with pytest.raises(QuintetError, match="choose float32, float16 or bfloat16"):
        run(tmp_path / "here", dtype="int8")
