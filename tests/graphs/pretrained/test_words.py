"""Weights of a run on other molecules, whose words have other numbers."""

import lightning as L
import pandas as pd
import pytest
import torch

from quintet.graphs import GraphRegressor, Molecules
from quintet.graphs.pretrained.words import by_word

TINY = {"backbone_arguments": {"dim": 16, "depth": 1}, "baselines": False}


def molecules(smiles, **options):
    frame = pd.DataFrame({"smiles": smiles, "y": [0.1 * at for at in range(len(smiles))], "split": "train"})
    frame.loc[len(smiles) - 1, "split"] = "val"
    return Molecules(frame, targets="y", batch_size=4, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint of an ensemble that read descriptors, and its words of elements."""
    task = GraphRegressor(**TINY, ensemble=2)
    data = molecules(["CCO", "CCN", "CCS", "CCCl", "CC"], descriptors="rdkit")
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_checkpointing", "enable_model_summary"), False)
    trainer = L.Trainer(max_steps=1, accelerator="cpu", **quiet)
    trainer.fit(task, datamodule=data)
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    trainer.save_checkpoint(path)
    return path, task


def rows(network, description):
    names = [(name, word) for name, words in description.node_words.items() for word in words]
    return dict(zip(names, network.features["nodes"].categories.weight.detach(), strict=True))


def test_each_word_keeps_its_row_and_new_ones_begin_as_nothing(trained):
    path, before = trained
    data = molecules(["BrCC", "OCC", "c1ccccc1", "SCC", "CCC"])
    data.setup("fit")
    task = GraphRegressor(**TINY, pretrained=str(path))
    task.adopt(data.description())
    old, new = rows(before.network.members[0], before.description), rows(task.network, task.description)
    assert old.keys() - new.keys()
    assert new.keys() - old.keys()
    for word, row in new.items():
        assert torch.equal(row, old.get(word, torch.zeros(16)))


def test_rows_of_words_by_hand():
    table = torch.arange(10.0).view(5, 2)
    known, wanted = {"a": ["x", "y"], "b": ["x", "y", "z"]}, {"b": ["z", "new", "x"], "c": ["x"]}
    assert by_word(table, known, wanted).tolist() == [[8, 9], [0, 0], [4, 5], [0, 0]]
    assert torch.equal(by_word(table[:4], known, wanted), table[:4])
