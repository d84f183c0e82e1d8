"""Processor time of a training step of our Informer against the published code, from the same weights.

    OMP_NUM_THREADS=1 python benchmarks/informer_step.py FOLDER_OF_INFORMER2020 [--rounds 9] [--batch 32]

FOLDER_OF_INFORMER2020 is a checkout of https://github.com/zhouhaoyi/Informer2020. The size is the published one for
ETTh1 48 -> 24: width 512, two blocks of the encoder and one of the decoder, factor 3. A step is forward, squared error,
backward and Adam. The two sides take turns within each round, so that what else the machine does falls on both; the
ratio is the median of those of the rounds. An epoch of ETTh1 is 267 steps.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from turns import report, take_turns

from quintet.core.weights.pretrained import load_weights
from quintet.timeseries.models import Informer

CONTEXT, HORIZON, CHANNELS, FEATURES, FACTOR = 48, 24, 7, 4, 3
STEPS = 267  # of an epoch: 8,640 training rows, batches of 32


def published(folder: Path) -> nn.Module:
    """The published network with random weights."""
    sys.path.insert(0, str(folder))
    from models.model import Informer as Published

    sizes = {"factor": FACTOR, "d_model": 512, "n_heads": 8, "e_layers": 2, "d_layers": 1, "d_ff": 2048}
    options = {"dropout": 0.05, "attn": "prob", "embed": "timeF", "freq": "h", "device": torch.device("cpu")}
    return Published(CHANNELS, CHANNELS, CHANNELS, CONTEXT, CONTEXT, HORIZON, **sizes, **options).float()


def training_step(forecast: Callable[[], Tensor], target: Tensor, optimizer: torch.optim.Optimizer) -> Callable:
    """One step as a function without arguments; it returns the loss."""

    def step() -> float:
        optimizer.zero_grad()
        loss = (forecast() - target).square().mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def compare(folder: Path, rounds: int, batch: int) -> None:
    torch.manual_seed(0)
    theirs = published(folder).train()
    ours = Informer(CONTEXT, HORIZON, channels=CHANNELS, calendar=FEATURES, factor=FACTOR).train()
    with tempfile.TemporaryDirectory() as scratch:
        torch.save(theirs.state_dict(), Path(scratch) / "weights.pth")
        print(load_weights(ours, Path(scratch) / "weights.pth"))
    values, target = torch.randn(batch, CONTEXT, CHANNELS), torch.randn(batch, HORIZON, CHANNELS)
    calendar = torch.rand(batch, CONTEXT + HORIZON, FEATURES) - 0.5

    def their_forecast() -> Tensor:
        known = torch.cat([values, torch.zeros_like(target)], 1)
        return theirs(values, calendar[:, :CONTEXT], known, calendar)

    def our_forecast() -> Tensor:
        return ours(values, None, calendar).squeeze(-1)

    steps = [
        training_step(our_forecast, target, torch.optim.Adam(ours.parameters(), lr=1e-4, fused=True)),
        training_step(their_forecast, target, torch.optim.Adam(theirs.parameters(), lr=1e-4)),
    ]
    times = take_turns(steps, rounds, warm_up=2)
    report("Informer training step", ("quintet", "Informer2020"), times)
    for name, side in zip(("quintet", "Informer2020"), times):
        seconds = STEPS * statistics.median(call[1] for call in side) / 1e3
        print(f"an epoch of ETTh1, processor time, {name}: {seconds:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    compare(options.folder, options.rounds, options.batch)
