"""A run on graphs that was killed goes on to where it would have come."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

KILLED = """
import os, signal, sys
from quintet.cli import main
from quintet.graphs import GraphRegressor

def end(self, outputs, batch, at):
    if self.current_epoch == 1 and at == 1:
        os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[1] == "killed":
    GraphRegressor.on_train_batch_end = end
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
def test_a_killed_run_finishes_with_the_figures_of_one_that_was_not(table, tmp_path):
    table[["smiles", "length"]].to_csv(tmp_path / "chains.csv", index=False)
    options = ["experiment=graphs/molecules", "data.path=chains.csv", "data.split=random", "data.batch_size=8"]
    options += ["data.descriptors=null", "trainer.max_epochs=3", "callbacks.progress=null", "name=chains"]

    def fit(how: str, *more: str) -> int:
        command = [sys.executable, "-c", KILLED, how, "fit", *options, *more]
        return subprocess.run(command, cwd=tmp_path, capture_output=True).returncode

    def figures(run: str) -> dict:
        return json.loads((Path(tmp_path) / run / "summary.json").read_text())["metrics"]

    assert fit("whole", "run_dir=whole") == 0
    assert fit("killed", "run_dir=killed") == -signal.SIGKILL
    assert fit("again", "run_dir=killed", "ckpt_path=killed/checkpoints/last.ckpt") == 0
    assert figures("killed") == figures("whole")
    assert "test/rmse_extra_trees" in figures("whole")
