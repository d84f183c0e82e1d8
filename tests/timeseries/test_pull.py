"""`quintet pull`: the command it prints next is one that trains."""

import pytest
import torch

from quintet.cli import main
from quintet.core.weights.network import said
from quintet.core.weights.registry import list_models, model_entry

SHORT = [
    "trainer=cpu",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=1",
    "trainer.limit_val_batches=1",
    "seed=0",
]


def test_the_next_command_trains(csv, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(model_entry("itransformer").build().state_dict(), "weights.pth")
    assert main(["pull", "timeseries/itransformer", "weights.pth"]) == 0
    printed = capsys.readouterr().out.splitlines()[-1]
    assert printed.startswith("next: quintet fit experiment=timeseries/finetune data.path=FILE ")
    words = printed.replace("=FILE", f"={csv(rows=600)}").split()[2:]
    assert main([*words, *SHORT]) == 0
    assert list(tmp_path.rglob("best.ckpt"))


@pytest.mark.parametrize("name", list_models("timeseries/*"))
def test_every_model_names_a_file_of_series(name):
    with torch.device("meta"):
        words = said(model_entry(name).build(), "finetune").split()
    assert words[0].startswith("experiment=timeseries/")
    assert words[1] == "data.path=FILE"
