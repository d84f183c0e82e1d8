"""What went wrong in hands other than ours: metrics, losses, options of training that meet, and networks of others."""

import copy
import functools

import pytest
import torch
from torchmetrics import MetricCollection

from quintet.core.errors import QuintetError
from quintet.core.weights.registry import create_model
from quintet.timeseries import (
    AnomalyDetector,
    DisaggregationDescription,
    Disaggregator,
    Forecaster,
    Imputer,
    LabelledSeriesDescription,
    SeriesClassifier,
    SeriesDescription,
)
from quintet.vision.data.images import ImageDescription
from quintet.vision.data.masks import MaskDescription
from quintet.vision.models import VisionTransformer
from quintet.vision.tasks import ImageClassifier, SemanticSegmenter

TINY = functools.partial(VisionTransformer, image_size=8, patch_size=4, dim=16, depth=1)
SMALL = {"dim": 16, "depth": 1, "num_heads": 2}


def images(classes=7, **known):
    names = [f"class {index}" for index in range(classes)]
    return ImageDescription(names, 3, [8, 8], [0.5] * 3, [0.25] * 3, [10] * classes, **known)


def masks(classes):
    names, ids = [f"class {index}" for index in range(classes)], list(range(classes))
    known = {"channels": 3, "image_size": [16, 16], "mean": [0.5] * 3, "std": [0.25] * 3, "fit": "stretch"}
    palette = [[80 * index, 0, 0] for index in ids]
    return MaskDescription(names, **known, class_counts=[9] * classes, ids=ids, ignored_ids=[255], palette=palette)


def series(kind=SeriesDescription, **more):
    known = {"channels": ["load", "heat"], "units": ["MW", "°C"], "mean": [50.0, 12.0], "std": [7.0, 8.0]}
    known |= {"context": 12, "horizon": 6, "frequency": "h", "period": 1, "calendar": []}
    return kind(**known, time="time", series="", seen_until={}, **more)


def labelled():
    known = {"channels": ["x"], "units": [""], "mean": [0.0], "std": [1.0]}
    return LabelledSeriesDescription(**known, classes=list("abc"), class_counts=[4] * 3, longest=16)


LOADS = {"kind": DisaggregationDescription, "thresholds": [5.0], "shares": [0.3]}
MEASURED = {
    "classes": (lambda: ImageClassifier(TINY), images, "classes"),
    "several classes": (lambda: ImageClassifier(TINY), lambda: images(multi_label=True), "labels"),
    "two masks": (lambda: SemanticSegmenter("mit_b0"), lambda: masks(2), "pixels"),
    "masks": (lambda: SemanticSegmenter("mit_b0"), lambda: masks(3), "pixels"),
    "forecasts": (lambda: Forecaster(backbone_arguments=SMALL), series, "points"),
    "quantiles": (lambda: Forecaster(backbone_arguments=SMALL, quantiles=[0.1, 0.5, 0.9]), series, "quantiles"),
    "anomalies": (lambda: AnomalyDetector(backbone_arguments=SMALL), series, "points"),
    "gaps": (lambda: Imputer(backbone_arguments=SMALL), series, "points"),
    "loads": (lambda: Disaggregator(backbone_arguments=SMALL), lambda: series(**LOADS), "loads"),
    "classes of series": (lambda: SeriesClassifier("inception_time"), labelled, "classes"),
}


def batches(kind, classes):
    """Predictions and truth of a batch that is right throughout, and of one that is not."""
    draw = torch.Generator().manual_seed(0)
    if kind == "pixels":
        true, wrong = torch.randint(classes, (2, 40), generator=draw)
        return [(true, true), (wrong, true)]
    if kind == "classes":
        true = torch.arange(12) % classes
        scores = torch.rand(12, classes, generator=draw)
        return [(torch.eye(classes)[true], true), (scores / scores.sum(1, keepdim=True), true)]
    if kind == "labels":
        true = torch.randint(2, (12, classes), generator=draw)
        return [(true.float(), true), (torch.rand(12, classes, generator=draw), true)]
    true = torch.randn(3, 6, 1 if kind == "loads" else 2, generator=draw).abs()
    outputs = {"loads": None, "points": 1, "quantiles": 3}[kind]
    right = true if outputs is None else true.unsqueeze(-1).expand(*true.shape, outputs)
    return [(right, true), (right + torch.randn(right.shape, generator=draw).sort(-1).values, true)]


@pytest.mark.parametrize(
    ("name", "arguments", "size"),
    [
        ("vit_tiny", {"depth": 1, "in_chans": 4, "img_size": 32}, 32),
        ("nat_mini", {"depths": (1,) * 4, "in_chans": 4}, 64),
    ],
)
def test_arguments_may_have_the_names_timms_users_know(name, arguments, size):
    model = create_model(name, **arguments | {"drop_path_rate": 0.1})
    assert model(torch.zeros(1, 4, size, size)).shape == (1, 1000)
    if name == "vit_tiny":
        assert model.position.position.shape == (2, 2, 192)
    with pytest.raises(QuintetError, match="takes no in_chans; nearest: in_channels"):
        create_model(name, in_chans=4, in_channels=3)


@pytest.mark.parametrize("name", MEASURED)
def test_a_first_batch_that_is_right_throughout_leaves_every_metric_its_own(name):
    make, describe, kind = MEASURED[name]
    task, description = make(), describe()
    task.adopt(description)
    given = {"seasonal_error": torch.ones(3, 2)} if isinstance(task, Forecaster) else {}
    collections = [module for module in task.modules() if isinstance(module, MetricCollection)]
    assert len(collections) >= 2
    for metrics in collections:
        metrics.reset()
        alone = copy.deepcopy({key: metrics[key] for key in metrics})
        for predicted, true in batches(kind, len(getattr(description, "classes", ()))):
            metrics.update(predicted, true, **given)
            for metric in alone.values():
                metric.update(predicted, true, **metric._filter_kwargs(**given))
        for key, value in metrics.compute().items():
            torch.testing.assert_close(value, alone[key].compute(), equal_nan=True)
