"""Every peer that this machine can run agrees with the operation on its benchmark cases, or says why it cannot."""

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
