"""What is not given has the value that is promised.

Figures of runs that leave an option out depend on these numbers: they come from the publications, where there is one,
and from the documentation else. Whoever changes one changes it here as well, and tells users in CHANGELOG.md.
"""

from importlib import import_module

import pytest

from quintet.core.run import composition

DATA = {"batch_size": 32, "num_workers": 0, "seed": 0}
IMAGES = {"channels": 3, "augmentation": "medium", "flip": True, "val_fraction": 0.15, "test_fraction": 0.15}
IMAGES |= {"normalization": "imagenet", "on_error": "raise", "num_workers": 2, "seed": 0}
TIREX = {"context": 512, "horizon": 64, "outputs": 1, "patch_size": 32, "dim": 512, "max_context": 2048}
TIREX |= {"levels": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), "mask_rate": 0.25, "mask_length": 5}
GLU = {"ratio": 8 / 3, "multiple_of": 8, "bias": False, "dropout": 0.0}
PROJECTED = {"qkv_bias": True, "projection_bias": True, "projection_dropout": 0.0}

PROMISED = {
    "core.learning.task.Task": {"lr": 1e-3, "weight_decay": 0.05, "warmup": 0.05, "final_lr": 0.01, "lora_rank": 0},
    "core.data.DataModule": DATA,
    "core.run.callbacks.WeightAverage": {"decay": 0.999},
    # Data
    "vision.Digits": DATA | {"image_size": 8, "augmentation": "light", "val_fraction": 0.15, "test_fraction": 0.15},
    "vision.ImageFolder": IMAGES | {"image_size": 224, "fit": "crop", "batch_size": 32},
    "vision.MaskFolder": IMAGES | {"image_size": 256, "fit": "stretch", "batch_size": 8},
    "timeseries.SeriesData": DATA | {"context": 96, "horizon": 24, "scale": "standard", "duplicates": "raise"},
    "timeseries.Sunspots": DATA | {"context": 44, "horizon": 11, "batch_size": 16},
    "timeseries.AnomalyData": {"context": 96, "horizon": 12, "stride": 1},
    "timeseries.ImputationData": {"length": 96},
    "timeseries.DisaggregationData": {"length": 256, "aggregate": "aggregate"},
    "timeseries.LabelledSeries": DATA | {"val_fraction": 0.2, "test_fraction": 0.2, "batch_size": 16},
    # Tasks
    "vision.ImageClassifier": {"pretrained": False, "label_smoothing": 0.0, "mixup": 0.0, "cutmix": 0.0},
    "vision.SemanticSegmenter": {"pretrained": False, "overlap": 0.25, "test_time_flip": False},
    "timeseries.Forecaster": {"pretrained": False, "loss": "mse", "accept_license": False},
    "timeseries.Imputer": {"missing": 0.25, "pattern": "mixed", "block": 12, "loss": "mse"},
    "timeseries.AnomalyDetector": {"score_by": "forecast", "threshold": "quantile", "level": 0.99, "risk": 1e-3},
    "timeseries.SeriesClassifier": {"label_smoothing": 0.0, "class_weights": None},
    "timeseries.Disaggregator": {"pretrained": False, "loss": "mse"},
    "graphs.NodeClassifier": {"propagation": 0, "restart": 0.1, "feature_dropout": 0.0, "label_smoothing": 0.0},
    "graphs.LinkPredictor": {"dim": 64, "hidden": 0.3},
    # Networks, as published
    "vision.models.MixTransformer": {
        "num_classes": 1000,
        "in_channels": 3,
        "dims": (32, 64, 160, 256),
        "depths": (2, 2, 2, 2),
        "num_heads": (1, 2, 5, 8),
        "reductions": (8, 4, 2, 1),
        "mlp_ratio": 4.0,
        "drop_path": 0.1,
        "norm_eps": 1e-6,
    },
    "vision.models.VisionTransformer": {
        "num_classes": 1000,
        "in_channels": 3,
        "image_size": 224,
        "patch_size": 16,
        "dim": 192,
        "depth": 12,
        "mlp_ratio": 4.0,
        "pooling": "token",
        "register_tokens": 0,
    },
    "vision.models.NeighborhoodAttentionTransformer": {
        "num_classes": 1000,
        "in_channels": 3,
        "dim": 64,
        "depths": (3, 4, 6, 5),
        "mlp_ratio": 3.0,
        "stem_stride": 4,
    },
    "vision.models.SegFormerHead": {"dim": 256, "dropout": 0.1},
    "timeseries.models.PatchTST": {"context": 336, "patch_size": 16, "stride": 8, "dim": 128, "depth": 3},
    "timeseries.models.Informer": {"dim": 512, "depth": 2, "decoder_depth": 1, "factor": 5, "dropout": 0.05},
    "timeseries.models.InceptionTime": {"filters": 32, "depth": 6, "lengths": (40, 20, 10)},
    "timeseries.models.NILMFormer": {"dim": 96, "depth": 3, "kernel_size": 3, "dilations": (1, 2, 4, 8)},
    "timeseries.models.TiRex": TIREX | {"depth": 12, "padding": "patch"},
    "timeseries.models.TiRex2": TIREX | {"num_heads": 4, "hidden_dim": 2048, "max_horizon": 320, "final_norm": 1e-7},
    # Layers
    "core.attention.Attention": PROJECTED | {"causal": False, "dropout": 0.0},
    "core.attention.NeighborhoodAttention": PROJECTED | {"kernel_size": 7, "stride": 1, "dilation": 1, "rank": 2},
    "core.attention.WindowAttention": PROJECTED | {"window_size": 7, "shift": 0, "relative_bias": True, "rank": 2},
    "core.attention.LinearAttention": PROJECTED | {"causal": False, "chunk_size": 64, "eps": 1e-6},
    "core.attention.Retention": {"value_factor": 2.0, "rotary_base": 10000.0, "bias": False, "norm_eps": 1e-6},
    "core.attention.GatedLinearAttention": {"key_factor": 0.5, "gate_rank": 16, "temperature": 16.0},
    "core.attention.GatedDeltaNet": {"value_factor": 1.0, "convolution_width": 4, "norm_eps": 1e-5},
    "core.attention.ProbSparseAttention": {"factor": 5, "mask_future": False},
    "core.ssm.Mamba": {"states": 16, "expansion": 2.0, "convolution_width": 4, "time_steps": (1e-3, 0.1)},
    "core.ssm.Mamba2": {"states": 64, "expansion": 2.0, "convolution_width": 4, "time_steps": (1e-3, 0.1)},
    "core.ssm.MLSTM": {"key_factor": 0.5, "gate_soft_cap": 15.0, "bias": False, "norm_eps": 1e-6},
    "core.ssm.SLSTM": {"convolution_width": 4, "forget_gate": "sigmoid"},
    "core.ssm.HGRN": {"expansion": 1.0, "lower_bound": 0.0},
    "core.ssm.MinGRU": {"expansion": 1.0, "bias": True},
    "core.convolution.LongConvolution": {"order": 2, "causal": True, "length": 1024, "memory": (0.3, 1.5)},
    "core.convolution.long.ImplicitFilter": {"length": 1024, "memory": (0.3, 1.5), "hidden": 64, "bands": 16},
    "core.convolution.ShortConvolution": {"width": 4, "bias": True, "activation": "silu"},
    "core.feedforward.Mlp": {"ratio": 4.0, "bias": True, "dropout": 0.0},
    **{f"core.feedforward.{name}": GLU for name in ("SwiGLU", "GeGLU", "ReGLU", "BilinearGLU")},
    "core.norm.LayerNorm": {"eps": 1e-6, "weight": True, "bias": True, "offset": 0.0},
    "core.norm.RMSNorm": {"eps": 1e-6, "weight": True},
    "core.norm.BatchNorm": {"eps": 1e-5, "momentum": 0.1},
    "core.norm.HeadNorm": {"eps": 1e-5, "weight": True},
    "core.position.RotaryPosition": {"base": 10000.0, "layout": "half"},
    "core.position.SinCosPosition": {"base": 10000.0},
}


@pytest.mark.parametrize("name", PROMISED)
def test_defaults(name):
    module, _, attribute = f"quintet.{name}".rpartition(".")
    target = getattr(import_module(module), attribute)
    parameters = {parameter.name: parameter for parameter in composition.parameters_of(target)}
    found = {option: parameters[option].default for option in PROMISED[name]}
    assert found == PROMISED[name]


@pytest.mark.parametrize(
    "name",
    [
        "timeseries.AnomalyDetector",
        "timeseries.Disaggregator",
        "timeseries.Forecaster",
        "timeseries.Imputer",
        "timeseries.SeriesClassifier",
        "vision.ImageClassifier",
        "vision.SemanticSegmenter",
    ],
)
def test_what_a_backbone_is_given(name):
    """Nothing where nothing is said; else what is said, in a dictionary of the task's own."""
    module, _, attribute = f"quintet.{name}".rpartition(".")
    task = getattr(import_module(module), attribute)
    assert task().backbone_arguments == {}
    given = {"depth": 7}
    built = task(backbone_arguments=given)
    given["depth"] = 8
    assert built.backbone_arguments == {"depth": 7}
