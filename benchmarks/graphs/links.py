"""Which network for links that a graph lacks: settings compared on validation pairs, and one test of the one chosen.

    OMP_NUM_THREADS=1 python benchmarks/graphs/links.py ../shared/data/graphs_planetoid_cora_citeseer [--test]

Each seed draws other parts of the edges, other pairs that are none and other first weights. Of each run the epoch with
the best ROC-AUC of validation pairs counts, as in `quintet fit experiment=graphs/links`. Test pairs are looked at by
--test alone, which trains the setting of the experiment and prints it beside the two scores that need no network.
"""

import argparse
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from rich.console import Console
from rich.table import Table

from quintet.core.learning.task import load_task
from quintet.graphs import GraphLinks, LinkPredictor

GCN = {"depth": 2, "mixer": None, "global_mixer": False}
SETTINGS = {
    "gps_cora": {"backbone": "gps_cora"},
    "gps_cora, shared neighbours": {"backbone": "gps_cora", "neighbours": True},
    "two graph convolutions": {"backbone": "gps_cora", "backbone_arguments": GCN},
    "two graph convolutions, shared neighbours": {
        "backbone": "gps_cora",
        "backbone_arguments": GCN,
        "neighbours": True,
    },
    "gps_tiny, linear attention": {"backbone": "gps_tiny", "mixer": "linear"},
    "gps_tiny, linear attention, shared neighbours": {
        "backbone": "gps_tiny",
        "mixer": "linear",
        "neighbours": True,
    },
}
CHOSEN = "gps_cora, shared neighbours"  # what configs/experiment/graphs/links.yaml has
VALIDATED = ("val/roc_auc", "val/mrr")
TESTED = ("roc_auc", "average_precision", "mrr", "hits_at_10", "hits_at_50")
QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}


class Best(L.Callback):
    """Keeps the measures of the epoch with the best ROC-AUC of validation pairs."""

    def __init__(self) -> None:
        self.measures: dict[str, float] = dict.fromkeys(VALIDATED, 0.0)

    def on_validation_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        measures = {name: float(trainer.callback_metrics[name]) for name in VALIDATED}
        self.measures = max(self.measures, measures, key=lambda one: one["val/roc_auc"])


def trained(root: Path, seed: int, epochs: int, *callbacks: L.Callback, **setting: object) -> tuple[L.Trainer, dict]:
    """A trained network's trainer, and its measures on validation pairs with the processor seconds it took."""
    L.seed_everything(seed, verbose=False)
    best, data = Best(), GraphLinks(root, "cora", seed=seed)
    saving = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    trainer = L.Trainer(
        **QUIET,
        max_epochs=epochs,
        callbacks=[best, *callbacks],
        enable_checkpointing=saving,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
    )
    begin = time.process_time()
    trainer.fit(LinkPredictor(lr=5e-3, **setting), data)
    return trainer, best.measures | {"seconds": time.process_time() - begin}


def validated(root: Path, seeds: int, epochs: int, wanted: str) -> Table:
    """A row for each setting: means over seeds, and their standard deviations."""
    table = Table("setting", *VALIDATED, "CPU seconds", title=f"validation pairs of Cora, {seeds} seeds")
    for name, setting in SETTINGS.items():
        if wanted not in name:
            continue
        rows = [trained(root, seed, epochs, **setting)[1] for seed in range(seeds)]
        cells = [
            f"{statistics.mean(row[measure] for row in rows):.4f} ± "
            f"{statistics.stdev(row[measure] for row in rows) if seeds > 1 else 0:.4f}"
            for measure in VALIDATED
        ]
        table.add_row(name, *cells, f"{statistics.mean(row['seconds'] for row in rows):.0f}")
        print(name, *cells, flush=True)
    return table


def tested(root: Path, seeds: int, epochs: int, chosen: str) -> Table:
    """The chosen setting beside the scores that need no network, means over seeds."""
    rows = []
    for seed in range(seeds):
        with TemporaryDirectory() as folder:
            saved = ModelCheckpoint(folder, monitor="val/roc_auc", mode="max")
            trainer, _ = trained(root, seed, epochs, saved, **SETTINGS[chosen])
            task, data = load_task(saved.best_model_path), trainer.datamodule
            rows += L.Trainer(**QUIET, enable_checkpointing=False).test(task, data, verbose=False)
    table = Table("method", *TESTED, title=f"test pairs of Cora, {seeds} seeds")
    for name, suffix in ((chosen, ""), ("Adamic-Adar", "_adamic_adar"), ("common neighbours", "_common_neighbours")):
        columns = [[row[f"test/{measure}{suffix}"] for row in rows] for measure in TESTED]
        spreads = [statistics.stdev(column) if seeds > 1 else 0.0 for column in columns]
        table.add_row(
            name,
            *(f"{statistics.mean(column):.3f} ± {spread:.3f}" for column, spread in zip(columns, spreads, strict=True)),
        )
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="the folder with ind.cora.*")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument(
        "--setting", default="", help="settings whose name has this; with --test one, by its whole name"
    )
    parser.add_argument("--test", action="store_true", help="test the chosen setting in place of comparing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    asked = options.root, options.seeds, options.epochs
    table = tested(*asked, options.setting or CHOSEN) if options.test else validated(*asked, options.setting)
    Console(width=140).print(table)
