"""CPU seconds of an epoch of iTransformer on ETTh1, 96 steps to 96, beside a plain PyTorch loop over a plain network.

    OMP_NUM_THREADS=1 python benchmarks/etth1_epoch.py ../shared/data/ts_ett/ETTh1.csv [--epochs 3]

Four things take turns, epoch by epoch, so that what else the machine does falls on all: the Trainer with what a run
does in an epoch; the same task in a bare loop; the published network at its published size, written down again with
modules of torch alone, in the loop people write; all these in batches of 32 and with four calendar features, as
published. And the Trainer in batches and with the calendar that the experiment timeseries/etth1 has. Seconds are of the
process, not the clock. Medians are compared; the first epoch of each warms up and is not counted. --profile prints
where an epoch of the experiment spends them.
"""

import argparse
import cProfile
import logging
import math
import pstats
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import lightning as L
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from quintet.core.bench.operations import processor_name
from quintet.timeseries import Forecaster, SeriesData
from quintet.timeseries.models import ITransformer

STEPS, DIM, HEADS, DEPTH, DROPOUT = 96, 256, 8, 2, 0.1


class Setting(NamedTuple):
    batch: int
    calendar: list[str]
    lr: float


WRITTEN = OmegaConf.load(Path(__file__).parents[1] / "configs/experiment/timeseries/etth1.yaml")
PUBLISHED = Setting(32, ["hour", "weekday", "day", "yearday"], 1e-4)
EXPERIMENT = Setting(WRITTEN.data.batch_size, WRITTEN.data.get("calendar", []), WRITTEN.model.lr)


class PlainLayer(nn.Module):
    """Post-norm attention and feed-forward, the latter as convolutions over one step."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(DIM, DIM) for _ in range(4))
        self.conv1, self.conv2 = nn.Conv1d(DIM, DIM, 1), nn.Conv1d(DIM, DIM, 1)
        self.norm1, self.norm2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (layer(x).unflatten(-1, (HEADS, -1)) for layer in (self.query, self.key, self.value))
        scores = torch.einsum("blhe,bshe->bhls", query, key) / math.sqrt(DIM // HEADS)
        mixed = torch.einsum("bhls,bshd->blhd", self.dropout(scores.softmax(-1)), value).flatten(2)
        x = self.norm1(x + self.dropout(self.out(mixed)))
        hidden = self.dropout(F.gelu(self.conv1(x.transpose(1, 2))))
        return self.norm2(x + self.dropout(self.conv2(hidden).transpose(1, 2)))


class PlainITransformer(nn.Module):
    """The published network: each channel's normalized window and each calendar feature is a token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Linear(STEPS, DIM), nn.Linear(DIM, STEPS)
        self.layers, self.norm = nn.ModuleList(PlainLayer() for _ in range(DEPTH)), nn.LayerNorm(DIM)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, values: Tensor, marks: Tensor) -> Tensor:
        mean = values.mean(1, keepdim=True).detach()
        std = torch.sqrt(values.var(1, keepdim=True, unbiased=False) + 1e-5).detach()
        tokens = torch.cat([((values - mean) / std).transpose(1, 2), marks.transpose(1, 2)], 1)
        x = self.dropout(self.embedding(tokens))
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x)).transpose(1, 2)[..., : values.shape[-1]] * std + mean


class PlainWindows(Dataset):
    """Windows one by one from arrays, as the usual code cuts them."""

    def __init__(self, values: Tensor, marks: Tensor) -> None:
        self.values, self.marks = values, marks

    def __len__(self) -> int:
        return len(self.values) - 2 * STEPS + 1

    def __getitem__(self, at: int) -> tuple[Tensor, Tensor, Tensor]:
        middle = at + STEPS
        return self.values[at:middle], self.values[middle : middle + STEPS], self.marks[at:middle]


class Cost(L.Callback):
    """CPU seconds of each epoch's training and validation."""

    def __init__(self) -> None:
        self.training, self.validation = [], []

    def on_train_epoch_start(self, *_: object) -> None:
        self.begin = time.process_time()

    def on_validation_start(self, *_: object) -> None:
        self.middle = time.process_time()
        self.training.append(self.middle - self.begin)

    def on_validation_end(self, *_: object) -> None:
        self.validation.append(time.process_time() - self.middle)


def ready(path: str, setting: Setting) -> tuple[SeriesData, Forecaster]:
    data = SeriesData(path, STEPS, STEPS, split="ett-hour", calendar=setting.calendar, batch_size=setting.batch)
    data.setup()
    backbone = partial(ITransformer, dim=DIM, depth=DEPTH, dropout=DROPOUT)
    optimizer = partial(torch.optim.AdamW, fused=True)
    task = Forecaster(backbone, lr=setting.lr, weight_decay=0.0, optimizer=optimizer)
    task.adopt(data.description())
    return data, task


def trainer_epoch(path: str, setting: Setting, cost: Cost) -> None:
    """The Trainer as a run has it, without what it writes and shows."""
    data, task = ready(path, setting)
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_checkpointing", "enable_model_summary"), False)
    trainer = L.Trainer(accelerator="cpu", max_epochs=1, callbacks=[cost], num_sanity_val_steps=0, **quiet)
    trainer.fit(task, datamodule=data)


def bare_epoch(path: str, setting: Setting) -> Callable[[], None]:
    """The same task, batches and optimizer in a loop."""
    data, task = ready(path, setting)
    optimizer = torch.optim.AdamW(task.network.parameters(), lr=setting.lr, weight_decay=0.0, fused=True)

    def epoch() -> None:
        task.train()
        for batch in data.train_dataloader():
            optimizer.zero_grad()
            task.step(batch).loss.backward()
            optimizer.step()

    return epoch


def plain_epoch(path: str) -> Callable[[], None]:
    data, _ = ready(path, PUBLISHED)
    train = data.datasets["train"]
    windows = PlainWindows(train.values[:8640], train.calendar[:8640])
    loader = DataLoader(windows, PUBLISHED.batch, shuffle=True, drop_last=True)
    network = PlainITransformer()
    optimizer, losses = torch.optim.Adam(network.parameters(), lr=PUBLISHED.lr), []

    def epoch() -> None:
        network.train()
        for values, targets, marks in loader:
            optimizer.zero_grad()
            loss = F.mse_loss(network(values, marks), targets)
            losses.append(loss.item())
            loss.backward()
            optimizer.step()

    return epoch


def seconds(function: Callable[[], None]) -> float:
    begin = time.process_time()
    function()
    return time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", help="of ETTh1.csv")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    L.seed_everything(0, verbose=False)
    if options.profile:
        profile = cProfile.Profile()
        profile.runcall(trainer_epoch, options.path, EXPERIMENT, Cost())
        pstats.Stats(profile).sort_stats("tottime").print_stats(40)
        return
    bare, plain = bare_epoch(options.path, PUBLISHED), plain_epoch(options.path)
    published, experiment, loops = Cost(), Cost(), []
    for _ in range(options.epochs + 1):
        trainer_epoch(options.path, EXPERIMENT, experiment)
        trainer_epoch(options.path, PUBLISHED, published)
        loops.append((seconds(bare), seconds(plain)))
    own, other = zip(*loops)
    table = Table("one epoch", title=f"{processor_name()}, {torch.get_num_threads()} thread(s)", title_justify="left")
    table.add_column("CPU s", justify="right")
    table.add_column("of the plain loop", justify="right")
    for name, values in (
        ("plain network, plain loop", other),
        ("quintet, bare loop", own),
        ("quintet, Trainer: training", published.training),
        ("quintet, Trainer: validation of 2,785 windows", published.validation),
        ("quintet, the experiment: training", experiment.training),
        ("quintet, the experiment: validation", experiment.validation),
    ):
        value = statistics.median(values[1:])
        table.add_row(name, f"{value:.2f}", f"{value / statistics.median(other[1:]):.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
