"""What a checkpoint may hold does not depend on what is imported."""

import threading
from collections import defaultdict
from fractions import Fraction

import pytest
import torch
from torch.serialization import add_safe_globals, get_safe_globals

from quintet.core.errors import QuintetError
from quintet.core.run.checkpoint_io import AtomicCheckpointIO
from quintet.core.weights.pretrained import read_checkpoint
from quintet.core.weights.safe_classes import safe_classes


@pytest.fixture
def declared():
    """A class that a library has declared safe for the whole process."""
    before = get_safe_globals()
    add_safe_globals([Fraction])
    yield Fraction
    torch.serialization.clear_safe_globals()
    add_safe_globals(before)


@pytest.mark.parametrize("read", [read_checkpoint, AtomicCheckpointIO().load_checkpoint])
def test_a_class_that_a_library_declares_safe_is_refused(tmp_path, declared, read):
    torch.save({"state_dict": {"a": torch.ones(1)}, "share": declared(1, 2)}, tmp_path / "file.ckpt")
    with pytest.raises(QuintetError, match=r"would run code \(fractions\.Fraction\)") as caught:
        read(tmp_path / "file.ckpt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "fields"), [("Data", {"x": [1.0]}), ("TemporalData", {"src": [1.0]}), ("HeteroData", {})]
)
def test_a_graph_of_pyg_is_refused_though_pyg_is_imported(tmp_path, kind, fields):
    pyg = pytest.importorskip("torch_geometric.data")
    graph = getattr(pyg, kind)(**{name: torch.tensor(values) for name, values in fields.items()})
    torch.save({"state_dict": {"a": torch.ones(1)}, "graph": graph}, tmp_path / "file.ckpt")
    with pytest.raises(QuintetError, match=r"would run code \(torch_geometric\.data\."):
        read_checkpoint(tmp_path / "file.ckpt")


def test_what_is_declared_stays_so_for_others(tmp_path, declared):
    before = set(get_safe_globals())
    torch.save({"a": torch.ones(1)}, tmp_path / "file.pth")
    read_checkpoint(tmp_path / "file.pth")
    assert set(get_safe_globals()) == before >= {declared}
    with safe_classes([defaultdict]):
        assert get_safe_globals() == [defaultdict]
    assert set(get_safe_globals()) == before
    with pytest.raises(ZeroDivisionError), safe_classes():
        raise ZeroDivisionError
    assert set(get_safe_globals()) == before


def test_what_another_thread_declares_meanwhile_stays(declared):
    with safe_classes():
        thread = threading.Thread(target=add_safe_globals, args=([defaultdict],))
        thread.start()
        thread.join()
    assert {declared, defaultdict} <= set(get_safe_globals())
