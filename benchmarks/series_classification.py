"""Accuracy of the default classifier of series beside the nearest neighbour, on problems of the UCR and UEA archives.

    OMP_NUM_THREADS=1 python benchmarks/series_classification.py ../shared/data/ts_ucr_uea [--problems ArrowHead]

Each problem, a folder with NAME_TRAIN.ts and NAME_TEST.ts, is trained by the command users type, with nothing set but
the seed; `--further` adds what else they would, e.g. model.backbone=patch_classifier. Seconds are of the whole command.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

PROBLEMS = ["ArrowHead", "BasicMotions", "GunPoint", "ItalyPowerDemand", "JapaneseVowels", "PickupGestureWiimoteZ"]


def measured(folder: Path, seed: int, further: list[str], run: str) -> dict[str, float]:
    """What a run's test says."""
    command = ["quintet", "fit", "experiment=timeseries/classify", f"data.path={folder}", f"run_dir={run}"]
    options = [f"seed={seed}", "callbacks.progress=null", "callbacks.pictures=null"]
    subprocess.run([*command, *options, *further], check=True, stdout=subprocess.DEVNULL)
    return json.loads(Path(run, "summary.json").read_text())["metrics"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with a folder for each problem")
    parser.add_argument("--problems", nargs="+", default=PROBLEMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--further", nargs="+", default=[], help="options of the command, key=value")
    options = parser.parse_args()
    table = Table("problem", "seed", title=" ".join(["accuracy", *options.further]), title_justify="left")
    for column in ("accuracy", "nearest neighbour", "seconds"):
        table.add_column(column, justify="right")
    runs = [(problem, seed) for problem in options.problems for seed in options.seeds]
    with tempfile.TemporaryDirectory() as folder:
        for problem, seed in track(runs, "problems"):
            begin = time.perf_counter()
            found = measured(options.folder / problem, seed, options.further, f"{folder}/{problem}-{seed}")
            accuracies = [f"{found[f'test/accuracy{name}']:.3f}" for name in ("", "_nearest_neighbor")]
            table.add_row(problem, str(seed), *accuracies, f"{time.perf_counter() - begin:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
