"""Run-time shape checks for the whole suite, few threads, and where the shared data lies."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "agg")

if os.environ.get("QUINTET_SHAPE_CHECKS", "1") != "0":
    assert not any(name.split(".")[0] == "quintet" for name in sys.modules), "the hook must come before quintet"
    from jaxtyping import install_import_hook

    install_import_hook("quintet", "beartype.beartype")

import hypothesis
import pytest

# Deadlines measure the machine, not the code; a fixed seed makes a failure repeatable on any machine.
hypothesis.settings.register_profile("quintet", deadline=None, derandomize=True, max_examples=20)
hypothesis.settings.load_profile("quintet")

DATA = Path(os.environ.get("QUINTET_DATA", Path(__file__).resolve().parents[1] / ".." / "shared" / "data")).resolve()


@pytest.fixture
def shared_data():
    """Function from a folder's name to its path; the test is skipped, saying so, where the folder is absent."""

    def find(name: str) -> Path:
        path = DATA / name
        if not path.is_dir():
            pytest.skip(f"{path} is absent; set QUINTET_DATA to the folder of shared data")
        return path

    return find
