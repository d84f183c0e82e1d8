"""Accuracy of `quintet fit experiment=graphs/cora` on Cora's public split: mean and spread of several seeds.

    OMP_NUM_THREADS=1 python benchmarks/graphs/cora.py ../shared/data/graphs_planetoid_cora_citeseer [--seeds 5]

Each seed draws other first weights and other dropout; the parts are the published ones. The best epoch is that of the
500 validation papers, and so are the values of the experiment: 18 random draws with one seed (learning rate 5e-3, 1e-2,
2e-2; decay 1e-3 to 1e-2; dropout .3, .5, .7, of features .5, .8; 1 or 2 layers of 32 or 64; restart .05, .1, .2; label
smoothing 0, .1, .2; rows normalised or not), then the two draws with the best whole set of raw rows at a rate of 5e-3,
and one of them for 100 epochs, with three further seeds (validation .798, .801, .803). No test paper chose these
values; that the design was kept, scores that spread along citations included, was decided after figures of prototypes
on test papers had been seen.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

MEASURED = ("test/accuracy", "test/accuracy_label_propagation", "test/accuracy_mlp")
BAR, AHEAD = 0.81, 0.20  # of the mean, and of the mean before the network over features alone


def measured(root: Path, seed: int, overrides: list[str]) -> dict[str, float]:
    """What a run of one seed says of the test papers, and the processor seconds it took."""
    from quintet.core.run.runner import run_composed

    with tempfile.TemporaryDirectory() as folder:
        quiet = ["~callbacks.progress", "~callbacks.pictures", "~callbacks.introduction"]
        where = [f"data.root={root.resolve()}", f"run_dir={folder}/run", f"seed={seed}"]
        begin = time.process_time()
        runner = run_composed("fit", ["experiment=graphs/cora", *where, *quiet, *overrides])
        seconds = time.process_time() - begin
    found = runner.trainer.callback_metrics
    return {name: float(found[name]) for name in MEASURED} | {"seconds": seconds}


def compare(root: Path, seeds: int, overrides: list[str]) -> tuple[Table, dict[str, float]]:
    """A row for each seed and the means with their standard deviations."""
    table, rows = Table("seed", *MEASURED, "CPU seconds"), []
    for seed in range(seeds):
        rows.append(measured(root, seed, overrides))
        table.add_row(
            str(seed), *(f"{value:.4f}" for value in list(rows[-1].values())[:-1]), f"{rows[-1]['seconds']:.0f}"
        )
    means = {name: statistics.mean(row[name] for row in rows) for name in MEASURED}
    spreads = [statistics.stdev(row[name] for row in rows) if seeds > 1 else 0.0 for name in MEASURED]
    table.add_row("mean", *(f"{mean:.4f} ± {spread:.4f}" for mean, spread in zip(means.values(), spreads, strict=True)))
    return table, means


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="the folder with ind.cora.*")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("overrides", nargs="*", help="further options of the run, e.g. model.lr=1e-2")
    options = parser.parse_args()
    table, means = compare(options.root, options.seeds, options.overrides)
    Console(width=120).print(table)
    reached = means["test/accuracy"] >= BAR and means["test/accuracy"] >= means["test/accuracy_mlp"] + AHEAD
    print(f"{'reached' if reached else 'missed'}: {BAR} and {AHEAD} before the network over features alone")
