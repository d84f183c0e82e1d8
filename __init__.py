"""quintet: five domains (vision, time series, graphs, audio, medical imaging) on one core of layers and kernels."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Imported on first use: `import quintet` costs nothing, and a domain's libraries load only with the domain.
_MODULES = ("audio", "core", "graphs", "kernels", "medical", "timeseries", "vision")
_NAMES = ("create_model", "list_models", "load_task")
__all__ = ["__version__", *_MODULES, *_NAMES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name in _NAMES:
        return getattr(import_module(".core", __name__), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")


def __dir__() -> list[str]:
    return __all__
