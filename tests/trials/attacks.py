"""Checkpoints written by an attacker, loaded under an audit hook: a script, since an audit hook stays for good.

    python attacks.py FOLDER STEP [verbs]

Makes an honest checkpoint, notes what loading it touches (imports, files, sockets, processes), puts every payload into
every place of its record, loads each, and prints what was touched besides as JSON lines. STEP n takes every n-th of the
family; `verbs` runs the commands too.
"""

import contextlib
import copy
import io
import itertools
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from quintet.cli import main
from quintet.core.errors import QuintetError
from quintet.core.learning.task import load_task
from quintet.core.run.configuration import restored_objects
from quintet.core.weights.described import description_of, to_json
from quintet.core.weights.pretrained import read_checkpoint
from quintet.core.weights.records import RECORD, arguments_of
from quintet.core.weights.registry import list_mixers
from quintet.core.weights.sealing import digest_of
from quintet.graphs import GraphNodes, GraphRegressor, Molecules, NodeClassifier
from quintet.timeseries.data import SeriesData
from quintet.timeseries.tasks import Forecaster
from quintet.vision.data.images import ImageDescription
from quintet.vision.tasks import ImageClassifier

# What a file must not make a program do. Names of what `compile` and `exec` see differ from file to file.
WATCHED = {"import", "open", "exec", "compile", "marshal.loads", "glob.glob", "urllib.Request", "webbrowser.open"}
WATCHED |= {f"os.{what}" for what in ("system", "exec", "posix_spawn", "spawn", "fork", "remove", "rename", "mkdir")}
WATCHED |= {f"os.{what}" for what in ("rmdir", "link", "symlink", "chmod", "listdir", "putenv", "truncate", "utime")}
WATCHED |= {"subprocess.Popen", "pty.spawn", "ctypes.dlopen", "shutil.copyfile", "shutil.rmtree", "tempfile.mkstemp"}
WATCHED |= {"tempfile.mkdtemp"}
UNNAMED = {"exec", "compile", "marshal.loads"}

HANDLER = "torch.distributed.elastic.multiprocessing.subprocess_handler.SubprocessHandler"
START = {"entrypoint": "touch", "args": ["OWNED"], "env": {}, "stdout": None, "stderr": None, "local_rank_id": 0}
URL = "http://127.0.0.1:9/beacon.pth"
PAYLOADS: list[Any] = [
    {"_target_": HANDLER, **START, "numa_options": None},
    {"class_path": HANDLER, "init_args": {**START, "numa_options": None}},
    {"class_path": HANDLER, "init_args": START, "partial": True},
    {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "OWNED"]}},
    {"_target_": "subprocess.Popen", "_args_": [["touch", "OWNED"]]},
    {"_target_": "builtins.eval", "_args_": ["open('OWNED', 'w')"], "_recursive_": True},
    {"function": "os.system"},
    {"class_path": "helper_mod.Run", "init_args": {}},
    {"class_path": "helper_mod.run", "init_args": {"command": "touch OWNED"}, "partial": True},
    {"_target_": "helper_mod.run"},
    {"function": "helper_mod.run"},
    "helper_mod.run",
    {"class_path": "torch.hub.load", "init_args": {"repo_or_dir": "a/b", "model": "c"}, "partial": True},
    {"class_path": "torch.distributed.nn.RemoteModule", "init_args": {"remote_device": "a/cpu", "module_cls": "b"}},
    {"class_path": "torchmetrics.multimodal.CLIPScore", "init_args": {"model_name_or_path": "a/b"}},
    {"class_path": "quintet.core.run.runner.Runner", "init_args": {"arguments": ["fit"]}},
    {"checkpoint_path": "BAIT"},
    {"pretrained": True, "pretrained_cfg_overlay": {"url": URL}},
    {"pretrained": True, "pretrained_cfg_overlay": {"file": "BAIT"}},
    {"pretrained": True, "pretrained_cfg": {"file": "BAIT"}},
    {"pretrained": True, "cache_dir": "BAIT", "features_only": True},
    {"dict_kwargs": {"a": "helper_mod.run"}},
    {"__path__": "BAIT"},
    "!!python/object/apply:os.system ['touch OWNED']",
    "${oc.env:HOME}",
    "BAIT",
    "hub:owner/name",
    "hf-hub:owner/name",
    URL,
    True,
    [{"a": ({"_target_": "helper_mod.run"},)}],
]
OWNERS = {
    "quintet.timeseries.Forecaster": Forecaster,
    "quintet.vision.ImageClassifier": ImageClassifier,
    "quintet.graphs.GraphRegressor": GraphRegressor,
    "quintet.graphs.NodeClassifier": NodeClassifier,
    "quintet.timeseries.SeriesData": SeriesData,
    "quintet.graphs.Molecules": Molecules,
    "quintet.graphs.GraphNodes": GraphNodes,
}
Touched = set[tuple[str, str]]


def places(record: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Where in a record something can be put, as the keys that lead there."""
    yield from ((name,) for name in (*record, "trust", "_target_", "callbacks", "trainer"))
    for part in ("task", "data"):
        if part not in record:
            continue
        owner = OWNERS[record[part]["class_path"]]
        yield from ((part, key) for key in ("class_path", "init_args", "_target_", "dict_kwargs", "partial"))
        for name in (*arguments_of(owner)[0], "x"):
            yield part, "init_args", name
            yield part, "init_args", name, "x"
            yield part, "init_args", name, 0
    for name in record["description"]:
        yield "description", name
        yield "description", name, 0
    for part in ("origin", "training"):
        yield from ((part, name) for name in ("weights", "licence", "metrics", "folder"))


def poisoned(record: dict[str, Any], place: tuple[Any, ...], payload: Any) -> dict[str, Any]:
    """The record with a payload in a place; what leads there is made where it is absent."""
    record = copy.deepcopy(record)
    node: Any = record
    for key, after in itertools.pairwise(place):
        kind = list if after == 0 else dict
        if not isinstance(node.get(key), kind):
            node[key] = kind()
        node = node[key]
    if isinstance(node, list):
        node[:1] = [payload]
    elif place[-1] == "x" and isinstance(payload, dict) and "class_path" not in payload:
        node.update(payload)  # as arguments of a backbone, say
        node["x"] = payload
    else:
        node[place[-1]] = payload
    return record


@dataclass
class Honest:
    """A checkpoint that does no harm, and how it is used.

    Args:
        content: of the file.
        ending: of its name.
        given: new files for the data module, as overrides; None where the record has none.
        verbs: commands that take them.
    """

    content: dict[str, Any]
    ending: str = ".ckpt"
    given: dict[str, str] | None = None
    verbs: Sequence[str] = ("predict", "test", "validate", "export")


def honest_forecaster(folder: Path) -> dict[str, Any]:
    stamps = pd.date_range("2024-01-01", periods=200, freq="h").strftime("%Y-%m-%d %H:%M")
    values = np.sin(np.arange(200) / 4).round(4)
    pd.DataFrame({"date": stamps, "load": values, "price": values[::-1]}).to_csv(folder / "series.csv", index=False)
    data = SeriesData(path=str(folder / "series.csv"), context=24, horizon=6)
    data.setup("fit")
    task = Forecaster(backbone="itransformer", backbone_arguments={"dim": 8, "depth": 1, "num_heads": 1})
    task.adopt(task.describe(data))
    return {RECORD: task.record() | {"data": description_of(data)}, "state_dict": task.state_dict()}


def honest_classifier() -> dict[str, Any]:
    task = ImageClassifier(backbone="timm:test_resnet", backbone_arguments={"drop_rate": 0.1})
    sizes = {"channels": 3, "image_size": [32, 32], "mean": [0.5] * 3, "std": [0.2] * 3}
    task.adopt(ImageDescription(classes=["a", "b"], class_counts=[3, 3], **sizes))
    return {RECORD: task.record(), "state_dict": task.state_dict()}


def honest_regressor(folder: Path) -> dict[str, Any]:
    """Of molecules, blended with trees that travel in the file."""
    chains = [head + "C" * length + tail for head in "ON" for length in range(1, 9) for tail in ("", "F")]
    lengths = [float(text.count("C")) for text in chains]
    pd.DataFrame({"smiles": chains, "length": lengths}).to_csv(folder / "molecules.csv", index=False)
    data = Molecules(str(folder / "molecules.csv"), targets=["length"], descriptors=["rdkit"], split="random")
    data.setup("fit")
    task = GraphRegressor("gine_tiny", {"dim": 8, "depth": 1}, blend=True)
    task.adopt(data.description())
    with contextlib.redirect_stdout(sys.stderr):  # of which each line is a finding
        task.references.fit(data.datasets["train"], data)
    return {RECORD: task.record() | {"data": description_of(data)}, "state_dict": task.state_dict()}


def honest_nodes(folder: Path) -> dict[str, Any]:
    place = folder / "nodes"
    place.mkdir(exist_ok=True)
    numbers = np.arange(24)
    nodes = {"id": numbers, "weight": numbers % 5 * 0.1, "kind": np.where(numbers % 2, "a", "b"), "label": numbers % 2}
    pd.DataFrame(nodes).to_csv(place / "nodes.csv", index=False)
    pd.DataFrame({"source": numbers, "target": (numbers + 2) % 24}).to_csv(place / "edges.csv", index=False)
    data = GraphNodes(str(place), encodings={"random_walk": 2})
    data.setup("fit")
    task = NodeClassifier("gps_tiny", {"dim": 8, "depth": 1, "num_heads": 1, "encoding_dim": 2})
    task.adopt(data.description())
    return {RECORD: task.record() | {"data": description_of(data)}, "state_dict": task.state_dict()}


def write(content: dict[str, Any], path: Path) -> None:
    """A file of either format, with the digest that belongs to it: an attacker can write one too."""
    record = content[RECORD]
    if isinstance(record, dict):
        record["digest"] = digest_of(record, content["state_dict"])
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(content["state_dict"], path, metadata={"quintet": to_json(record)})
    else:
        torch.save(content, path)


class Watch:
    """What the process touches while it is on."""

    def __init__(self) -> None:
        self.on, self.touched = False, set()
        sys.addaudithook(self.see)

    def see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and (event in WATCHED or event.startswith("socket.")):
            self.touched.add((event, "" if event in UNNAMED or not arguments else str(arguments[0])[:120]))


def attempt(watch: Watch, run: Callable[[], Any]) -> tuple[Touched, str]:
    """What a call touches, and how it ended."""
    watch.touched = set()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        watch.on = True
        try:
            result = run()
            ended = f"exit {result}" if isinstance(result, int) else "loaded"
        except QuintetError:
            ended = "refused"
        except BaseException as error:
            ended = f"{type(error).__name__}: {error}"[:200]
        finally:
            watch.on = False
    if "QUINTET_DEBUG" in said.getvalue():
        ended = said.getvalue().strip()[-200:]
    return set(watch.touched), ended


def ways(path: Path, honest: Honest, verbs: bool) -> Iterator[tuple[str, Callable[[], Any]]]:
    """How a file is loaded: in plain Python, by what every verb does before it starts, and by the verbs."""
    yield "load_task", lambda: load_task(path) and None
    yield "show", lambda: main(["show", f"ckpt_path={path}"])
    if honest.given:
        yield "restored_objects", lambda: restored_objects(read_checkpoint(path), path, honest.given, []) and None
    for verb in honest.verbs if honest.given and verbs else ():
        yield verb, lambda verb=verb: command(verb, path, honest.given)


def command(verb: str, path: Path, given: dict[str, str]) -> int:
    options = ["format=safetensors", "output=e.safetensors"] if verb == "export" else []
    if verb == "predict" and given.get("data.path") == "series.csv":
        options = ["output=out.csv"]
    for name in ("out.csv", "out.png", "e.safetensors"):
        Path(name).unlink(missing_ok=True)
    files = [f"{name}={value}" for name, value in given.items()]
    where = [] if verb == "export" else [*files, "run_dir=out", "callbacks.progress=null"]
    return main([verb, f"ckpt_path={path}", *where, *options])


def family(folder: Path) -> Iterator[Honest]:
    series = {"data.path": "series.csv"}
    for ending in (".ckpt", ".safetensors"):
        verbs = ("predict", "test", "validate", "backtest", "export")
        yield Honest(honest_forecaster(folder), ending, series, verbs)
    yield Honest(honest_classifier())
    yield Honest(honest_regressor(folder), given={"data.path": "molecules.csv"})
    yield Honest(honest_nodes(folder), given={"data.root": "nodes"})


def run_family(folder: Path, step: int, verbs: bool) -> int:
    """Prints every load of the family that touched more than the honest one; returns how many files were tried."""
    watch, count = Watch(), 0
    list_mixers()  # an honest record may give a mixer by its word, which is looked for among quintet's own modules
    for honest in family(folder):
        content, path = honest.content, folder / f"file{honest.ending}"
        touched: dict[str, Touched] = {}
        # Three times, once refused: the first call of anything imports what it needs.
        for record in (content[RECORD], content[RECORD] | {"unknown": 1}, content[RECORD]):
            write({**content, RECORD: dict(record)}, path)
            for name, run in ways(path, honest, verbs):
                what, ended = attempt(watch, run)
                touched.setdefault(name, set()).update(what)
                if "unknown" not in record and ended not in ("loaded", "exit 0"):
                    print(json.dumps({"way": name, "ended": f"the honest file does not load: {ended}"}))
        payloads = itertools.product(places(content[RECORD]), PAYLOADS)
        for place, payload in itertools.islice(payloads, None, None, step):
            count += 1
            write({**content, RECORD: poisoned(content[RECORD], place, payload)}, path)
            for name, run in ways(path, honest, verbs):
                what, ended = attempt(watch, run)
                beyond = [pair for pair in sorted(what - touched[name]) if not _own(pair, folder)]
                owned = (folder / "OWNED").exists()
                if beyond or owned or ended not in ("loaded", "refused", "exit 0", "exit 1"):
                    (folder / "OWNED").unlink(missing_ok=True)
                    task = content[RECORD]["task"]["class_path"].rpartition(".")[2]
                    told = {"task": task, "file": honest.ending, "way": name, "place": place, "payload": payload}
                    told |= {"ended": ended, "touched": beyond[:4], "owned": owned}
                    print(json.dumps(told, default=str), flush=True)
    return count


def _own(pair: tuple[str, str], folder: Path) -> bool:
    """Whether what was touched is a new folder of the command's own results, whose name is the time."""
    below = f"{folder}/out/" in pair[1] or pair[1].startswith("out/")
    return pair[0] in ("open", "os.mkdir", "os.rmdir", "os.rename", "os.remove") and below


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    FOLDER = Path(sys.argv[1]).resolve()
    os.chdir(FOLDER)
    (FOLDER / "helper_mod.py").write_text("open('OWNED', 'w')\ndef run(*a, **k): open('OWNED', 'w')\nclass Run: pass\n")
    (FOLDER / "BAIT").write_bytes(b"cposix\nsystem\n(S'touch OWNED'\ntR.")
    print(json.dumps({"tried": run_family(FOLDER, int(sys.argv[2]), "verbs" in sys.argv[3:])}))
