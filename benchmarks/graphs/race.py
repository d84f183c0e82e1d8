"""Errors of quintet's molecules beside what a chemist would use otherwise, all in one run.

    OMP_NUM_THREADS=1 python benchmarks/graphs/race.py ../shared/data/graphs_esol/delaney-processed.csv
        [--problems "ESOL random"] [--only mean quintet] [--seeds 0 1 2] [--seconds 60] [--chemprop PROGRAM --epochs 30]
        [--output benchmarks/results]

RMSE of the test part, mean and spread of the seeds: of the mean of the training part, a random forest on Morgan counts,
gradient boosting on RDKit's descriptors, chemprop (where its program is given: it pins other versions, so it lives in
an environment of its own), GPS of PyG, and `quintet fit experiment=graphs/molecules` with nothing set but the data and
the seed, its network alone and its blend. CPU seconds are of one thread, with all that each computes of the molecules;
those of chemprop and quintet are of the whole command, its imports too. PyG learns for `--seconds`.

The random split is torch.randperm with seed 0 cut at 80 and 90 %; the scaffold split puts whole Bemis-Murcko scaffolds,
the most frequent first and equally frequent ones in the order of the table, into train while they fit in 80 %, then
into validation while they fit in 10 %, and the rest into test. The ligands are those that come with RDKit.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from molecule_peers import boosting, chemprop, forest, mean, parts, pyg_gps
from rich.console import Console
from rich.table import Table

from quintet.core.bench.operations import processor_name
from quintet.graphs.data.molecule.ligands import ligands
from quintet.graphs.data.molecule.splits import scaffold_of, scaffold_split

PROBLEMS = ("ESOL random", "ChEMBL random", "ChEMBL scaffold")
ALONE, BLEND = "quintet, network alone", "quintet"
COMMAND = "from quintet.cli import main; main()"


def problem(name: str, esol: Path) -> pd.DataFrame:
    """A table with smiles, target and split."""
    if name.startswith("ESOL"):
        given = pd.read_csv(esol)
        smiles, target = given["smiles"].str.strip(), given["measured log solubility in mols per litre"]
    else:
        given = ligands().frame
        smiles, target = given["smiles"], pd.to_numeric(given["activity"])
    frame = pd.DataFrame({"smiles": smiles, "target": target})
    frame["split"] = scaffold_parts(frame) if name.endswith("scaffold") else random_parts(len(frame))
    return frame


def random_parts(rows: int) -> np.ndarray:
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0)).numpy()
    found = np.full(rows, "train", object)
    found[order[int(0.8 * rows) : int(0.9 * rows)]] = "val"
    found[order[int(0.9 * rows) :]] = "test"
    return found


def scaffold_parts(frame: pd.DataFrame) -> np.ndarray:
    found = np.full(len(frame), "train", object)
    chosen = scaffold_split([scaffold_of(smiles) for smiles in frame["smiles"]], {"val": 0.1, "test": 0.1})
    for part, rows in chosen.items():
        found[rows] = part
    return found


def spent() -> float:
    """CPU seconds of this process and of all that it started and waited for."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def predicted(predict: Callable[..., np.ndarray], frame: pd.DataFrame, seed: int) -> float:
    """RMSE of what a peer predicts."""
    test = parts(frame)["test"]
    return float(np.sqrt(np.mean((predict(frame, seed) - frame["target"].to_numpy()[test]) ** 2)))


def quintet(frame: pd.DataFrame, seed: int) -> dict[str, float]:
    """RMSE of the command's blend and of its network alone."""
    with tempfile.TemporaryDirectory() as folder:
        table, run = Path(folder, "table.csv"), Path(folder, "run")
        frame.to_csv(table, index=False)
        options = [f"data.path={table}", "data.smiles=smiles", "data.targets=[target]", "data.split=split"]
        options += [f"seed={seed}", f"run_dir={run}", "callbacks.progress=null", "callbacks.pictures=null"]
        command = [sys.executable, "-c", COMMAND, "fit", "experiment=graphs/molecules", *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        measured = json.loads((run / "summary.json").read_text())["metrics"]
    return {ALONE: measured["test/rmse_network"], BLEND: measured["test/rmse"]}


def entrants(options: argparse.Namespace) -> dict[str, Callable[..., np.ndarray]]:
    """Who takes part, by what the table calls them, but for quintet."""
    found = {"mean": mean, "random forest": forest, "gradient boosting": boosting}
    if options.chemprop:
        found["chemprop"] = partial(chemprop, program=options.chemprop, epochs=options.epochs)
    found |= {"PyG GPS": partial(pyg_gps, seconds=options.seconds)}
    return {name: predict for name, predict in found.items() if not options.only or name in options.only}


def raced(frame: pd.DataFrame, seed: int, peers: dict[str, Callable], own: bool) -> Iterator[tuple[str, float, float]]:
    """Each name with its RMSE and CPU seconds, as it arrives."""
    for name, predict in peers.items():
        began = spent()
        error = predicted(predict, frame, seed)
        yield name, error, spent() - began
    if own:
        began = spent()
        errors = quintet(frame, seed)
        seconds = spent() - began
        yield from ((name, error, seconds) for name, error in errors.items())


def summary(name: str, found: list[tuple[float, float]]) -> dict[str, str | float]:
    errors, seconds = zip(*found, strict=True)
    spread = statistics.stdev(errors) if len(errors) > 1 else 0.0
    return {"name": name, "rmse": statistics.mean(errors), "spread": spread, "seconds": statistics.mean(seconds)}


def as_table(title: str, rows: list[dict[str, str | float]]) -> Table:
    table = Table("", title=title, title_justify="left")
    for column in ("RMSE", "spread", "CPU s"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(row["name"], f"{row['rmse']:.3f}", f"{row['spread']:.3f}", f"{row['seconds']:.0f}")
    return table


def as_markdown(results: dict[str, list[dict[str, str | float]]], seeds: list[int]) -> str:
    lines = [f"RMSE of the test part, mean ± spread of {len(seeds)} seeds, and CPU seconds; {processor_name()}.", ""]
    names = [row["name"] for row in next(iter(results.values()))]
    lines += [f"| | {' | '.join(results)} |", f"|---|{'---|' * len(results)}"]
    for at, name in enumerate(names):
        cells = (rows[at] for rows in results.values())
        shown = (f"{row['rmse']:.3f} ± {row['spread']:.3f}, {row['seconds']:.0f} s" for row in cells)
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("esol", type=Path, help="delaney-processed.csv")
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=PROBLEMS)
    parser.add_argument("--only", nargs="+", default=[], help="of those in the table, and quintet")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=60, help="CPU seconds that PyG's network learns for")
    parser.add_argument("--chemprop", type=Path, help="its program, e.g. ~/chemprop/bin/chemprop")
    parser.add_argument("--epochs", type=int, default=30, help="of chemprop: so many that it takes --seconds too")
    parser.add_argument("--output", type=Path, help="folder for molecule_race.json and .md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results, peers, began = {}, entrants(options), time.strftime("%Y-%m-%d")
    for name in options.problems:
        frame, found = problem(name, options.esol), {}
        for seed in options.seeds:
            for entrant, error, seconds in raced(frame, seed, peers, not options.only or BLEND in options.only):
                found.setdefault(entrant, []).append((error, seconds))
                print(f"{name}, seed {seed}: {entrant} {error:.3f} in {seconds:.0f} s", file=sys.stderr)
        results[name] = [summary(entrant, values) for entrant, values in found.items()]
        Console().print(as_table(name, results[name]))
        if options.output:
            record = {"date": began, "processor": processor_name(), "seeds": options.seeds, "problems": results}
            (options.output / "molecule_race.json").write_text(json.dumps(record, indent=1) + "\n")
            (options.output / "molecule_race.md").write_text(as_markdown(results, options.seeds))


if __name__ == "__main__":
    main()
