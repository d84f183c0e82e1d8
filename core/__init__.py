"""What the five domains share: the mixer contract, layers, blocks, the task base, the registry, pretrained weights."""

from importlib import import_module
from typing import Any

# Imported on first use, so that `import quintet.core` costs nothing.
_HOMES = {
    "Augmented": ".data",
    "Block": ".block",
    "DataModule": ".data",
    "Described": ".described",
    "Encoder": ".encoder",
    "Fault": ".data",
    "Mixer": ".mixer",
    "QuintetError": ".errors",
    "Network": ".network",
    "Source": ".pretrained",
    "Layout": ".pretrained",
    "StagedEncoder": ".encoder",
    "StepResult": ".task",
    "Task": ".task",
    "create_mixer": ".registry",
    "create_model": ".registry",
    "list_mixers": ".registry",
    "list_models": ".registry",
    "load_task": ".task",
    "load_weights": ".pretrained",
    "register_mixer": ".registry",
    "register_model": ".registry",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return __all__
