"""Sweeps: `quintet fit -m model.lr=1e-3,3e-4` runs every combination through Hydra's sweepers and launchers."""

import csv
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra import main as hydra_main
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.table import Table

from ..errors import QuintetError, one_line
from ..writing.console import Console
from ..writing.files import written_whole
from . import composition
from .configuration import check_types, composed
from .overrides import forced, literal, parsed, readable
from .run_folder import REMEDY, RUN_FOLDER
from .runner import run_composed


def sweep(verb: str, overrides: list[str], config_dir: str | None = None) -> int:
    """Runs the verb for every combination of values and prints a table of what each measured."""
    if verb != "fit":
        raise QuintetError(f"a sweep fits; '{verb} -m' is not possible")
    first = composed("fit", _first_of_each(overrides), config_dir)
    check_types(first)  # a mistake is said before anything runs
    folder = Path("runs").resolve() / first["name"] / f"sweep_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    typed = sys.argv
    sys.argv = [typed[0], "--multirun", f"hydra.sweep.dir={literal(str(folder))}"]
    sys.argv += [forced(readable(override, sweeping=True)) for override in overrides]
    try:
        with composition.search_first(config_dir), _hydra_errors():
            hydra_main(version_base="1.3", config_path=str(composition.CONFIG_FOLDER), config_name="config")(_job)()
    finally:
        sys.argv = typed
    return _print_table(folder)


def _first_of_each(overrides: list[str]) -> list[str]:
    """The overrides with the first of several values each, without those whose values a sweeper thinks up."""
    first = []
    for override in overrides:
        read = parsed(override, sweeping=True)
        if read.is_choice_sweep() or read.is_range_sweep():
            first.append(f"{override.split('=', 1)[0]}={next(read.sweep_string_iterator())}")
        elif not read.is_sweep_override():
            first.append(override)
    return first


@contextmanager
def _hydra_errors() -> Iterator[None]:
    """While it lasts, Hydra raises errors instead of printing a traceback and leaving."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def _job(config: DictConfig) -> None:
    """One run of a sweep: as if its overrides had been typed alone, in the folder Hydra gave it."""
    whole = HydraConfig.instance().cfg
    job = HydraConfig.get()
    folder = Path(job.runtime.output_dir)
    overrides = [str(override) for override in job.overrides.task]
    user_folders = [source.path for source in job.runtime.config_sources if source.provider == "user"]
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(_job_file(folder), replace=True, remedy=REMEDY) as partial:
        partial.write_text(json.dumps({"overrides": overrides, "folder": folder.name}), encoding="utf-8")
    # Lightning would otherwise start further processes in Hydra's own grammar.
    HydraConfig.instance().cfg = None
    os.environ.pop(RUN_FOLDER, None)
    typed = sys.argv
    # Processes that a distributed strategy starts execute sys.argv again: it must name this run, not the sweep.
    overrides_here = [*overrides, f"run_dir={literal(str(folder))}"]
    sys.argv = [typed[0], "fit", *overrides_here]
    sys.argv += [f"--config-dir={user_folders[0]}"] if user_folders else []
    try:
        run_composed("fit", overrides_here, user_folders[0] if user_folders else None)
    except Exception as error:  # the other runs go on; the table shows this one as failed
        if os.environ.get("QUINTET_DEBUG") == "1":
            raise
        print(f"error: run {folder.name} ({' '.join(overrides)}): {one_line(error)}", file=sys.stderr)
        if not (folder / "checkpoints").exists():  # refused before it trained
            shutil.rmtree(folder)
    finally:
        sys.argv = typed
        HydraConfig.instance().cfg = whole
        os.environ.pop(RUN_FOLDER, None)


def _job_file(folder: Path) -> Path:
    """Where a run leaves what it was asked for until the table of all runs is made."""
    return folder.parent / f"run_{folder.name}.json"


def _print_table(folder: Path) -> int:
    """A table of the runs of a sweep, printed and written as sweep.csv: what differs, and what the test measured.

    Returns 1 where a run has no result.
    """
    files = sorted(folder.glob("run_*.json"), key=lambda path: int(path.stem.removeprefix("run_")))
    jobs = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    summaries = [_summary(folder / job["folder"] / "summary.json") for job in jobs]
    rows = list(_rows(jobs, summaries))
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if rows:
        with written_whole(folder / "sweep.csv") as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
    for path in files:
        path.unlink()
    table = Table(title=str(folder))
    for column in columns:
        table.add_column(column)
    for row in rows:
        cells = (row.get(column, "") for column in columns)
        table.add_row(*(f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in cells))
    Console(markup=False).print(table)
    return 0 if jobs and all(summaries) else 1


def _rows(jobs: Sequence[Mapping[str, Any]], summaries: Sequence[Mapping[str, Any] | None]) -> Iterator[dict[str, Any]]:
    """One row a run: its number, the options in which the runs differ, whether it ended, and what was measured."""
    typed = [dict(override.lstrip("+").partition("=")[::2] for override in job["overrides"]) for job in jobs]
    keys = list(dict.fromkeys(key for options in typed for key in options))
    varied = [key for key in keys if len({options.get(key) for options in typed}) > 1]
    metrics = sorted({key for summary in summaries if summary for key in summary["metrics"]})
    for job, options, summary in zip(jobs, typed, summaries):
        row = {"run": job["folder"], **{key: options.get(key, "") for key in varied}}
        row["result"] = "done" if summary else "failed"
        measured = summary["metrics"] if summary else {}
        yield row | {key: measured.get(key, "") for key in metrics}


def _summary(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
