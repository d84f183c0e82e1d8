"""Sweeps: `quintet fit -m model.lr=1e-3,3e-4` runs every combination through Hydra's sweepers and launchers."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from hydra import main as hydra_main
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.table import Table

from . import composition
from .console import Console
from .errors import QuintetError, one_line
from .files import written_whole
from .overrides import forced, literal, parsed, readable
from .run_folder import REMEDY, RUN_FOLDER
from .runner import check_types, composed, run_composed


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
    with written_whole(folder / "overrides.json", replace=True, remedy=REMEDY) as partial:
        partial.write_text(json.dumps(overrides), encoding="utf-8")
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
    finally:
        sys.argv = typed
        HydraConfig.instance().cfg = whole
        os.environ.pop(RUN_FOLDER, None)


def _print_table(folder: Path) -> int:
    """A table of the runs of a sweep: what varied, and what the test measured. Returns 1 where a run has no result."""
    runs = sorted((path for path in folder.glob("*") if path.name.isdigit()), key=lambda path: int(path.name))
    rows = [(run, _read(run / "overrides.json", []), _read(run / "summary.json", None)) for run in runs]
    common = set.intersection(*(set(overrides) for _, overrides, _ in rows)) if rows else set()
    metrics = sorted({key for _, _, summary in rows if summary for key in summary["metrics"]})
    table = Table(title=str(folder))
    for column in ("run", "varied", *metrics):
        table.add_column(column)
    for run, overrides, summary in rows:
        varied = " ".join(item.lstrip("+") for item in overrides if item not in common)
        measured = [f"{summary['metrics'][key]:.4f}" for key in metrics] if summary else ["failed"]
        table.add_row(run.name, varied, *measured)
    Console(markup=False).print(table)
    return 0 if rows and all(summary for _, _, summary in rows) else 1


def _read(path: Path, default: object) -> object:
    return json.loads(path.read_text()) if path.is_file() else default
