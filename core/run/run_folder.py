"""The run folder `runs/<experiment>/<time>/`: config.yaml, metrics.csv, checkpoints/, pictures/, predictions/."""

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import QuintetError
from ..writing.files import written_whole
from .yaml_files import read_text

RUN_FOLDER = "QUINTET_RUN_FOLDER"  # processes that a distributed run starts inherit it
REMEDY = "free space, or choose another folder with run_dir=FOLDER"


def new_run_folder(experiment: str, root: str | Path = "runs") -> Path:
    """Creates `root/<experiment>/<time>/`; a second run within the same second gets a number behind it."""
    parent = Path(root) / experiment
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for number in range(1, 1000):
        folder = parent / (stamp if number == 1 else f"{stamp}_{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except (OSError, ValueError) as error:
            raise _not_created(folder, error) from None
        return folder
    raise QuintetError(f"{parent} holds a thousand runs of this second; choose a folder with run_dir=FOLDER")


def given_run_folder(given: str | Path) -> Path:
    """The folder that `run_dir` names, made where there is none. Raises QuintetError where it cannot be one."""
    folder = Path(given)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise QuintetError(f"run_dir: {folder} is a file; choose a folder with run_dir=FOLDER") from None
    except (OSError, ValueError) as error:
        raise _not_created(folder, error) from None
    return folder


def _not_created(folder: Path, error: OSError | ValueError) -> QuintetError:
    reason = getattr(error, "strerror", None) or error
    shown = str(folder) if len(str(folder)) <= 200 else f"{str(folder)[:200]}..."
    return QuintetError(f"cannot create {shown} ({reason}); choose another with run_dir=FOLDER")


def new_output_folder(run: Path, kind: str) -> Path:
    """Creates `<run>/<kind>/<time>/` for the results of one command, so that none overwrites another.

    Raises QuintetError where `<run>/<kind>` is a link that leads out of the run.
    """
    _refuse_link(Path(run) / kind, Path(run))
    return new_run_folder(kind, run)


def refuse_links(run: Path) -> None:
    """Raises QuintetError for a link that leads out of a run folder: whoever sent the folder would choose by it which
    of one's own files are written, and which are read into the report.
    """
    for path in (*run.iterdir(), *(run / "pictures").glob("*")):
        _refuse_link(path, run)


def _refuse_link(path: Path, run: Path) -> None:
    if path.is_symlink() and not path.resolve().is_relative_to(run.resolve()):
        raise QuintetError(
            f"{path} leads out of the run by a link; remove the link, or write elsewhere with run_dir=FOLDER"
        )


def settings_of(run: Path) -> str:
    """The text of a run's config.yaml for people to read, or why it is not shown; empty where there is none."""
    path = run / "config.yaml"
    if not os.path.lexists(path):
        return ""
    try:
        _refuse_link(path, run)
        return read_text(path)
    except QuintetError as error:
        return f"not shown: {error}"


def last_checkpoint(experiment: str, root: str | Path = "runs") -> Path:
    """The last.ckpt written most recently among the runs of an experiment. Raises QuintetError where there is none."""
    found = list(Path(root, experiment).glob("*/checkpoints/last.ckpt"))
    if not found:
        raise QuintetError(f"ckpt_path=last: no run under {Path(root, experiment)} has checkpoints/last.ckpt yet")
    return max(found, key=lambda path: path.stat().st_mtime)


def run_folder_of(checkpoint: str | Path) -> Path | None:
    """The run folder a checkpoint lies in, None where it lies elsewhere."""
    path = Path(checkpoint)
    return path.parent.parent if path.parent.name == "checkpoints" else None


def best_checkpoint(run: Path) -> Path:
    """The best checkpoint of a run, its last one where none was better."""
    best = run / "checkpoints" / "best.ckpt"
    return best if best.is_file() else run / "checkpoints" / "last.ckpt"


def write_summary(folder: Path, content: dict[str, Any]) -> None:
    """Writes summary.json: what the run measured in the end, for tables over several runs."""
    with written_whole(folder / "summary.json", replace=True, remedy=REMEDY) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
