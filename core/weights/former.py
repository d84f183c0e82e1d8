"""Where modules, classes and functions that checkpoints and runs' configurations named before they moved are today.

A line says where something is, not that a file may name it: what a checkpoint asks for is judged where it is today.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Checkpoints of before public names recorded files. What moves again gets another line; none is taken out.
FORMER: dict[str, str] = {
    "quintet.core.attention.linear.elu_plus_one": "quintet.core.attention.feature_maps.elu_plus_one",
    "quintet.core.attention.cross": "quintet.core.attention.dense.cross",
    "quintet.core.attention.delta": "quintet.core.attention.linear.delta",
    "quintet.core.attention.diagonal": "quintet.core.attention.patterns.diagonal",
    "quintet.core.attention.gated_linear": "quintet.core.attention.linear.gated_linear",
    "quintet.core.attention.neighborhood": "quintet.core.attention.local.neighborhood",
    "quintet.core.attention.prob_sparse": "quintet.core.attention.sparse.prob_sparse",
    "quintet.core.attention.retention": "quintet.core.attention.linear.retention",
    "quintet.core.attention.segment": "quintet.core.attention.dense.segment",
    "quintet.core.attention.softmax": "quintet.core.attention.dense.softmax",
    "quintet.core.attention.window": "quintet.core.attention.local.window",
    "quintet.core.block": "quintet.core.blocks.block",
    "quintet.core.callbacks": "quintet.core.run.callbacks",
    "quintet.core.described": "quintet.core.weights.described",
    "quintet.core.dropout": "quintet.core.regularization.dropout",
    "quintet.core.encoder": "quintet.core.blocks.encoder",
    "quintet.core.finite": "quintet.core.learning.finite",
    "quintet.core.lora": "quintet.core.adaptation.lora",
    "quintet.core.metrics_file": "quintet.core.run.metrics_file",
    "quintet.core.task": "quintet.core.learning.task",
    "quintet.core.trusted": "quintet.core.weights.trusted",
}


def present_path(path: str) -> str:
    """The path of a class or function today, from one that was written down before a module moved."""
    while path in FORMER:
        path = FORMER[path]
    module, dot, name = path.rpartition(".")
    while module in FORMER:
        module = FORMER[module]
    return f"{module}{dot}{name}"


def with_present_paths(config: Any) -> Any:
    """A configuration of the user's with classes and functions where they are today; all else stays as it is."""
    if isinstance(config, Mapping):
        return {key: with_present_paths(value) for key, value in config.items()}
    if isinstance(config, list):
        return [with_present_paths(value) for value in config]
    if not isinstance(config, str) or (present := present_path(config)) == config or Path(config).exists():
        return config
    return present
