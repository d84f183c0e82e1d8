"""Classes of molecules, and several labels with gaps."""

import lightning as L
import numpy as np
import pytest
import torch

from quintet.core.errors import QuintetError
from quintet.graphs import GraphClassifier, GraphRegressor, Molecules

SMALL = {"dim": 8, "depth": 1, "num_heads": 1}


def data_of(table, kind):
    if kind == "classes":
        table["what"] = np.where(table["length"] > 4, "long", np.where(table["length"] > 2, "middle", "short"))
        return Molecules(table, targets=["what"], split="random", val_fraction=0.2, test_fraction=0.3)
    table["long"] = (table["length"] > 4).astype(int).astype(object)
    table["oxygen"] = table["smiles"].str.contains("O").astype(int).astype(object)
    table.loc[::3, "long"] = None
    return Molecules(table, targets=["long", "oxygen"], split="random", val_fraction=0.2, test_fraction=0.3)


def trained(data, tmp_path, **arguments):
    torch.manual_seed(0)
    task = GraphClassifier(backbone_arguments=SMALL, lr=1e-2, **arguments)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, enable_model_summary=False, **quiet)
    trainer.fit(task, datamodule=data)
    return task, trainer.test(task, datamodule=data, verbose=False)[0]


@pytest.mark.parametrize("kind", ["classes", "labels"])
def test_a_test_stands_beside_the_baselines_and_is_drawn(table, tmp_path, kind):
    task, measured = trained(data_of(table, kind), tmp_path, blend=True)
    for name in ("roc_auc", "average_precision", "f1", "accuracy"):
        methods = ("", "_network", "_forest", "_boosting", "_nearest", "_majority")
        assert {f"test/{name}{method}" for method in methods} <= set(measured)
    assert measured["test/roc_auc_majority"] == pytest.approx(0.5)
    assert measured["test/roc_auc_forest"] > 0.8
    assert ("test/roc_auc_oxygen" in measured) == (kind == "labels")
    drawn = {name for name, _ in task.pictures()}
    assert {"comparison", "worst_median_best", "embeddings"} <= drawn
    assert ("confusion_matrix" in drawn) == (kind == "classes")
    found = task.predict(["OCCCCCO", "C"])
    assert list(found)[1] == ("class" if kind == "classes" else "labels")
    chances = found.filter(like="probability_").astype(float)
    assert chances.shape == (2, 3 if kind == "classes" else 2)
    if kind == "classes":
        np.testing.assert_allclose(chances.sum(1), 1, atol=1e-5)


def test_numbers_and_classes_are_not_taken_for_each_other(table):
    classes, numbers = data_of(table, "classes"), Molecules(table, targets=["length"], split="random")
    for task, data, named in ((GraphRegressor, classes, "classifier"), (GraphClassifier, numbers, "regressor")):
        data.setup()
        with pytest.raises(QuintetError, match=named):
            task(backbone_arguments=SMALL).adopt(data.description())


def test_labels_have_no_class_weights(table):
    data = data_of(table, "labels")
    data.setup()
    with pytest.raises(QuintetError, match="class_weights"):
        GraphClassifier(backbone_arguments=SMALL, class_weights="balanced").adopt(data.description())
