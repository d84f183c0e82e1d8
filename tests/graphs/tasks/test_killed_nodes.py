"""A training on nodes or on links that was killed goes on where its last epoch ended, to the same weights."""

import os
import subprocess
import sys

import pytest
import torch

from quintet.core.learning.task import load_task

KILLED = """import os, signal
from lightning.pytorch.callbacks import Callback


class Killed(Callback):
    def on_train_epoch_start(self, trainer, *arguments):
        if trainer.current_epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def quintet(folder, *words):
    command = [sys.executable, "-c", "from quintet.cli import main; raise SystemExit(main())", *words]
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["links", "tables"])
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, experiment):
    names = [f"{number:03d}" for number in range(40)]
    nodes = [f"{name},{number % 7},{'xy'[number % 2]}" for number, name in enumerate(names)]
    edges = [f"{names[one]},{names[(one + step) % 40]}" for one in range(40) for step in (2, 4, 7)]
    (tmp_path / "nodes.csv").write_text("\n".join(["id,size,label", *nodes, ""]))
    (tmp_path / "edges.csv").write_text("\n".join(["source,target", *edges, ""]))
    (tmp_path / "killed.py").write_text(KILLED)
    fit = ["fit", f"experiment=graphs/{experiment}", "data.root=.", "model.backbone=gps_cora", "trainer.max_epochs=4"]
    whole = quintet(tmp_path, *fit, "run_dir=whole")
    assert whole.returncode == 0, whole.stderr
    killed = quintet(tmp_path, *fit, "run_dir=run", "++callbacks.killed._target_=killed.Killed")
    assert killed.returncode == -9
    resumed = quintet(tmp_path, *fit, "run_dir=run", "ckpt_path=run/checkpoints/last.ckpt")
    assert resumed.returncode == 0, resumed.stderr
    expected, found = (load_task(tmp_path / run / "checkpoints" / "last.ckpt").state_dict() for run in ("whole", "run"))
    assert expected.keys() == found.keys()
    differences = [torch.linalg.norm(expected[name].double() - found[name].double()) for name in expected]
    assert max(differences) < 1e-6
