"""Every task on series starts from a file of weights, says its licence, and freezes by the word backbone."""

from dataclasses import replace

import pytest
import torch

from quintet.core.run.show import facts_of
from quintet.core.weights.pretrained import Layout, Terms
from quintet.timeseries import AnomalyDetector, Disaggregator, Forecaster, Imputer, SeriesClassifier
from quintet.timeseries.data.classes import LabelledSeriesDescription
from quintet.timeseries.data.disaggregation import DisaggregationDescription
from quintet.timeseries.data.windows import SeriesDescription

TOKENS = {"dim": 16, "depth": 1, "num_heads": 2}
KNOWN = {"channels": ["load", "heat"], "units": ["W", "W"], "mean": [5.0, 2.0], "std": [7.0, 8.0]}
ROWS = KNOWN | {"context": 12, "horizon": 6, "frequency": "h", "period": 1, "calendar": []}
SERIES = SeriesDescription(**ROWS, time="time", series="", seen_until={})
LOADS = DisaggregationDescription(**ROWS, time="time", series="", seen_until={}, thresholds=[5.0], shares=[0.3])
CLASSES = LabelledSeriesDescription(**KNOWN, classes=["a", "b"], class_counts=[4, 4], longest=16)
PATCHES = {"dim": 16, "depth": 1, "patch_size": 4, "stride": 2}
TASKS = {
    "forecaster": (lambda **more: Forecaster(backbone_arguments=TOKENS, **more), SERIES),
    "imputer": (lambda **more: Imputer(backbone_arguments=TOKENS, **more), SERIES),
    "detector": (lambda **more: AnomalyDetector(backbone_arguments=TOKENS, **more), SERIES),
    "disaggregator": (lambda **more: Disaggregator(backbone_arguments=TOKENS, **more), LOADS),
    "classifier": (lambda **more: SeriesClassifier("patch_classifier", PATCHES, **more), CLASSES),
}


@pytest.fixture(params=TASKS)
def made(request):
    """Function to a task of a kind, built for data of the same sizes."""
    build, description = TASKS[request.param]

    def make(**arguments):
        task = build(**arguments)
        task.adopt(description)
        return task

    return make


def test_it_starts_from_a_file_and_show_says_which(made, tmp_path, monkeypatch):
    torch.manual_seed(0)
    source = made()
    path = tmp_path / "weights.pth"
    torch.save({f"theirs.{key}": value for key, value in source.network.state_dict().items()}, path)
    layout = Layout("theirs", r"^theirs\.", ((r"^theirs\.", ""),), terms=Terms("Strict Licence", "research alone"))
    monkeypatch.setattr(type(source.network), "layouts", (layout,))
    task = made(pretrained=str(path), accept_license=True)
    own = task.network.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in source.network.state_dict().items())
    torch.save({"state_dict": task.state_dict(), "quintet": task.record()}, tmp_path / "model.ckpt")
    facts = dict(facts_of(tmp_path / "model.ckpt"))
    assert (facts["first weights"], facts["licence"]) == (str(path), "Strict Licence")


def test_the_word_backbone_leaves_the_head_to_learn(made):
    task = made(freeze=["backbone"])
    learning = {key for key, value in task.network.named_parameters() if value.requires_grad}
    assert learning == set(task.network.head_keys)


def test_a_head_of_another_size_is_left_to_learn(tmp_path):
    task = Forecaster(backbone_arguments=TOKENS)
    task.adopt(SERIES)
    torch.save(task.network.state_dict(), tmp_path / "weights.pth")
    longer = Forecaster(backbone_arguments=TOKENS, pretrained=str(tmp_path / "weights.pth"))
    longer.adopt(replace(SERIES, horizon=9))
    assert longer.origin.head_replaced == ["head.weight", "head.bias"]
