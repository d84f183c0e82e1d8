"""300 damaged files of every format of graphs: each is read or refused in a line; none ends the process."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

FUZZER = Path(__file__).parent / "fuzz_graphs.py"
FORMATS = ("smiles.csv", "sdf", "graphml", "planetoid", "tu", "tables", "pt")


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_are_read_or_refused(tmp_path, kind):
    command = [sys.executable, str(FUZZER), kind, str(tmp_path), "11", "300"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800)
    counts = Counter(done.stdout.split())
    others = sum(counts.values()) - counts["read"] - counts["refused"]
    print(f"| {kind} | {counts['read']} | {counts['refused']} | {others} |")
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    assert sum(counts.values()) == 300
    assert set(counts) <= {"read", "refused"}
