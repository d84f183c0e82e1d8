"""Backbones by name, class and function; mistakes in one line."""

from functools import partial

import pytest
import torch

from quintet.core.attention import Attention
from quintet.core.errors import QuintetError
from quintet.core.weights.networks import Kind, build_network, name_of
from quintet.timeseries.models import ITransformer

FORECASTER = Kind("timeseries", "a forecaster", "itransformer")


def build_backbone(backbone, context, horizon, outputs, arguments):
    sizes = {"context": context, "horizon": horizon, "outputs": outputs}
    return build_network(backbone, FORECASTER, sizes, arguments)


def small(context: int, horizon: int, outputs: int) -> ITransformer:
    return ITransformer(context, horizon, outputs, dim=8, depth=1)


@pytest.mark.parametrize("backbone", ["itransformer", "timeseries/itransformer", ITransformer, small])
def test_by_name_class_and_function(backbone):
    assert build_backbone(backbone, 8, 4, 2, {})(torch.zeros(1, 8, 3)).shape == (1, 4, 3, 2)


@pytest.mark.parametrize(
    ("backbone", "arguments", "complaint"),
    [
        ("itransformr", {}, "no model is called 'itransformr'; nearest: timeseries/itransformer"),
        ("itransformer", {"dept": 3}, "itransformer takes no dept; nearest: depth"),
        ("itransformer", {"horizon": 5}, "backbone_arguments.horizon is 5, but the data say 4; leave it out"),
        ("timm:resnet18", {}, "'timm:resnet18' asks for a library 'timm:', which timeseries does not have"),
        (small, {"mixer": Attention}, "small takes no mixer; give a backbone that does, such as itransformer"),
        (torch.nn.ReLU, {}, "ReLU takes no context; a forecaster is called with context, horizon and outputs"),
    ],
)
def test_mistakes(backbone, arguments, complaint):
    with pytest.raises(QuintetError, match=complaint):
        build_backbone(backbone, 8, 4, 1, arguments)


def test_names():
    assert name_of(partial(ITransformer, dim=8)) == "ITransformer"
