"""What the five domains share: the mixer contract, layers, blocks, the task base, the registry, pretrained weights."""

from importlib import import_module
from typing import Any

# Imported on first use, so that `import quintet.core` costs nothing.
_HOMES = {
    "Augmented": ".data",
    "Block": ".blocks.block",
    "DataModule": ".data",
    "Described": ".weights.described",
    "Encoder": ".blocks.encoder",
    "Fault": ".data",
    "Mixer": ".mixer",
    "QuintetError": ".errors",
    "Network": ".weights.network",
    "Source": ".weights.pretrained",
    "Layout": ".weights.pretrained",
    "StagedEncoder": ".blocks.encoder",
    "StepResult": ".learning.task",
    "Task": ".learning.task",
    "create_mixer": ".weights.registry",
    "create_model": ".weights.registry",
    "list_mixers": ".weights.registry",
    "list_models": ".weights.registry",
    "load_task": ".learning.task",
    "load_weights": ".weights.pretrained",
    "register_mixer": ".weights.registry",
    "register_model": ".weights.registry",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return __all__
