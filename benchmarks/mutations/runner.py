"""Runs pytest again and again without importing the large libraries again; see score.py.

Each line of standard input is a list: arguments, seconds, and a file for what is printed. A fork of this process runs
pytest with them; the answer is a line with its exit status, or "timeout".
"""

import contextlib
import importlib
import json
import os
import signal
import sys
import time

LIBRARIES = [
    "torch",
    "torch.utils.data",
    "torchvision",
    "torchmetrics",
    "lightning.pytorch.cli",
    "timm",
    "jsonargparse",
]
LIBRARIES += ["hydra", "jaxtyping", "beartype", "hypothesis", "pytest", "pandas", "xarray", "pyarrow", "scipy.stats"]
LIBRARIES += ["sklearn.metrics", "statsmodels.api", "matplotlib.figure", "rich.table", "safetensors.torch"]


def run(arguments: list[str], output: str) -> None:
    """In the fork: never returns."""
    os.setsid()
    target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(target, 1)
    os.dup2(target, 2)
    status = 3
    try:
        status = int(importlib.import_module("pytest").main(arguments))
    finally:
        sys.stdout.flush()
        os._exit(status)


def waited(child: int, seconds: float) -> str:
    """The exit status of a fork; what it started ends with it."""
    end = time.monotonic() + seconds
    status: int | None = None
    try:
        while status is None and time.monotonic() < end:
            ended, code = os.waitpid(child, os.WNOHANG)
            status = os.waitstatus_to_exitcode(code) if ended else None
            time.sleep(0.05)
    finally:  # also where a person stops it
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    if status is None:
        os.waitpid(child, 0)
        return "timeout"
    return str(status)


if __name__ == "__main__":
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for line in sys.stdin:
        arguments, seconds, output = json.loads(line)
        child = os.fork()
        if not child:
            run(arguments, output)
        print(waited(child, seconds), flush=True)
