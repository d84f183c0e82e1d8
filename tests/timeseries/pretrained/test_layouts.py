"""Layouts of other projects are told apart, and a head of another horizon is replaced with a word."""

import torch

from quintet.core.weights.pretrained import load_weights
from quintet.timeseries.models import ITransformer
from quintet.timeseries.pretrained import OFFICIAL_PATCHTST, THUML_ITRANSFORMER


def test_markers():
    assert THUML_ITRANSFORMER.matches({"enc_embedding.value_embedding.weight": torch.zeros(1)})
    assert OFFICIAL_PATCHTST.matches({"model.backbone.W_P.weight": torch.zeros(1)})
    ours = ITransformer(8, 4, dim=8).state_dict()
    assert not THUML_ITRANSFORMER.matches(ours)
    assert not OFFICIAL_PATCHTST.matches(ours)


def test_another_horizon(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(ITransformer(8, 4, dim=8).state_dict(), path)
    report = load_weights(ITransformer(8, 6, dim=8), path)
    assert sorted(report.head_replaced) == ["head.bias", "head.weight"]
