"""Every peer that this machine can run agrees with the operation on its benchmark cases, or says why it cannot."""

import sys
from types import ModuleType

import pytest
import torch

from quintet.core.bench import peers as bench_peers
from quintet.core.bench.operations import _refusal
from quintet.core.bench.peers import Peer, all_peers, peers_of
from quintet.kernels._spec import list_specs

PEERS = all_peers()
CPU = torch.device("cpu")
SPECS = list_specs()
OURS = [(name, peer) for name in PEERS for peer in peers_of(name, CPU) if peer.package is None]
THEIRS = [(name, peer) for name in PEERS for peer in PEERS[name] if peer.package and "cpu" in peer.devices]


def identity(parameter) -> str:
    return parameter.name if isinstance(parameter, Peer) else parameter


def cases_that_agree(operation: str, peer: Peer) -> list[str]:
    """Small cases, or for want of one that it can do, the first benchmark; anything wrong fails."""
    spec, agree = SPECS[operation], []
    for case in (*spec.cases, *spec.benchmarks):
        if agree and case in spec.benchmarks:
            break
        reason = _refusal(spec, peer, case, CPU, torch.float32)
        assert reason is None or "wrong by" not in reason, f"{case}: {reason}"
        agree += [case] * (reason is None)
    return agree


def test_every_peer_belongs_to_an_operation():
    assert set(PEERS) <= set(SPECS)


@pytest.mark.parametrize(("operation", "peer"), OURS, ids=identity)
def test_torch_forms_agree(operation, peer):
    assert cases_that_agree(operation, peer)


@pytest.mark.peers
@pytest.mark.parametrize(("operation", "peer"), THEIRS, ids=identity)
def test_published_implementations_agree(operation, peer):
    pytest.importorskip(peer.package, reason=f"{peer.package} is not installed")
    assert cases_that_agree(operation, peer)


# What only a GPU runs is called rightly: with the published function in its place, written from its documentation


def rms_norm(x, weight, eps, offset=0.0, in_place=True):
    assert not in_place
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * (offset + weight)


def layer_norm(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdim=True)
    return centred * (centred.square().mean(-1, keepdim=True) + eps).rsqrt() * weight + bias


def add_rms_norm(x, residual, weight, eps, offset=0.0, in_place=True):
    return rms_norm(x + residual, weight, eps, offset, in_place), x + residual


def gated_rms_norm(x, gate, weight, bias, activation, eps):
    assert activation == "swish"
    y = rms_norm(x, 1.0 if weight is None else weight, eps, in_place=False)
    return (y if bias is None else y + bias) * torch.nn.functional.silu(gate)


def rope(query, key, cos, sin):
    """Of (batch, heads, time, dim), with the second half of an axis turned against the first."""

    def turned(x):
        first, second = x.chunk(2, -1)
        return x * cos.unsqueeze(1) + torch.cat((-second, first), -1) * sin.unsqueeze(1)

    return turned(query), turned(key)


LIGER = {
    "liger_rms_norm": rms_norm,
    "liger_layer_norm": layer_norm,
    "liger_fused_add_rms_norm": add_rms_norm,
    "liger_rope": rope,
    "liger_swiglu": lambda gate, value: torch.nn.functional.silu(gate) * value,
    "liger_geglu": lambda gate, value: torch.nn.functional.gelu(gate, approximate="tanh") * value,
}
STAND_INS = {
    "liger": {"liger_kernel.transformers.functional": LIGER},
    "fla": {"fla.modules.norm.fused_norm_gate": {"rms_norm_gated": gated_rms_norm}},
}


@pytest.mark.parametrize(
    ("operation", "name"),
    [(operation, "liger") for operation in ("rms_norm", "layer_norm", "add_norm", "glu", "rotary")]
    + [("gated_norm", "fla")],
)
def test_what_runs_on_a_gpu_is_called_rightly(monkeypatch, operation, name):
    for path, functions in STAND_INS[name].items():
        parts = path.split(".")
        for length in range(1, len(parts) + 1):
            monkeypatch.setitem(sys.modules, ".".join(parts[:length]), ModuleType(parts[length - 1]))
        vars(sys.modules[path]).update(functions)
    (peer,) = [peer for peer in PEERS[operation] if peer.name == name]
    reasons = {case: _refusal(SPECS[operation], peer, case, CPU, torch.float32) for case in SPECS[operation].cases}
    assert all(reason is None or "only" in reason for reason in reasons.values()), reasons
    assert None in reasons.values(), reasons


def test_a_peer_that_is_not_installed_or_needs_a_gpu_is_left_out(monkeypatch):
    peers = (Peer("absent", abs, package="no_such_package"), Peer("gpu", abs, devices=("cuda",)), Peer("here", abs))
    monkeypatch.setitem(PEERS, "rms_norm", peers)
    assert [peer.name for peer in peers_of("rms_norm", CPU)] == ["here"]
    assert [peer.name for peer in peers_of("rms_norm", torch.device("cuda"))] == ["gpu", "here"]
    assert peers_of("no operation", CPU) == []


def test_without_a_checkout_there_are_none(monkeypatch, tmp_path):
    monkeypatch.setattr(bench_peers, "FILE", tmp_path / "peers.py")
    monkeypatch.setattr(bench_peers, "all_peers", all_peers.__wrapped__)
    assert peers_of("rms_norm", CPU) == []
