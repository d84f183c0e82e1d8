"""What a checkpoint says of itself, as a table: `quintet show ckpt_path=FILE`. Nothing is built and nothing is run."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text
from torch import Tensor

from ..weights.pretrained import read_checkpoint
from ..weights.records import record_of

LISTED = 24  # items of a list that are written out
LONGEST = 400  # characters of a value


def show_checkpoint(path: str | Path) -> Table:
    """`facts_of` a checkpoint as a table."""
    # Names and classes come from the file: brackets in them are no markup.
    table = Table(title=Text(str(path)), title_justify="left", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts_of(path):
        table.add_row(Text(name), Text(value))
    return table


def facts_of(path: str | Path) -> list[tuple[str, str]]:
    """Task, model, parameters, what is known of the data, epoch, metrics, where it was trained, licence.

    Raises QuintetError for a file that is damaged, unsafe or not quintet's.
    """
    checkpoint = read_checkpoint(path)
    record = record_of(checkpoint, path)
    return [*_task(record), *_weights(checkpoint["state_dict"]), *_known(record), *_training(checkpoint, record)]


def _task(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    task = record["task"]
    yield "task", task["class_path"].rsplit(".", 1)[-1]
    for name, value in task.get("init_args", {}).items():
        if value not in (None, [], {}):
            yield f"model.{name}", _node(value)
    if data := record.get("data"):
        yield "data", _node(data)


def _weights(state: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    count = sum(value.numel() for value in state.values())
    parts: dict[str, int] = {}
    for key, value in state.items():
        parts[key.split(".")[0]] = parts.get(key.split(".")[0], 0) + value.numel()
    kinds = sorted({str(value.dtype).removeprefix("torch.") for value in state.values() if value.is_floating_point()})
    listed = ", ".join(f"{name} {number:,}" for name, number in parts.items())
    if bad := [key for key, value in state.items() if value.is_floating_point() and value.isnan().any()]:
        yield "damaged", f"{len(bad)} tensors hold NaN (first: {bad[0]}): training had failed"
    yield "parameters", f"{count / 1e6:.2f} M in {len(state)} tensors of {' and '.join(kinds)}: {listed}"


def _known(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in record["description"].items():
        if value not in ("", None, [], {}):
            yield name.replace("_", " "), _value(value)


def _training(checkpoint: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    training = record.get("training", {})
    epoch, step = training.get("epoch", checkpoint.get("epoch")), training.get("step", checkpoint.get("global_step"))
    if epoch is not None:
        yield "trained", f"{epoch + 1} epochs, {step:,} steps"
    for name, value in training.get("metrics", {}).items():
        yield name, f"{value:.4f}" if abs(value) >= 1e-3 or value == 0 else f"{value:.2e}"
    where = [training[name] for name in ("folder", "device", "time") if training.get(name)]
    if where:
        yield "where", ", ".join(where)
    versions = {"quintet": record["version"]} | training.get("versions", {})
    yield "with", ", ".join(f"{name} {version}" for name, version in versions.items())
    if origin := record.get("origin"):
        yield "first weights", origin.get("weights", "")
        yield "licence", origin.get("licence") or "the file does not say"
    else:
        yield "licence", "its weights come from this training alone: that of its data"


def _node(value: Any) -> str:
    """A described object as a call, other values as they are."""
    if isinstance(value, Mapping) and "class_path" in value:
        given = {key: item for key, item in value.get("init_args", {}).items() if item is not None}
        arguments = ", ".join(f"{key}={_argument(item)}" for key, item in given.items())
        return f"{value['class_path'].rsplit('.', 1)[-1]}({arguments})"
    if isinstance(value, Mapping) and set(value) == {"function"}:
        return value["function"].rsplit(".", 1)[-1]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_node(item)}" for key, item in value.items()) + "}"
    return _value(value)


def _argument(value: Any) -> str:
    """An argument of a call: lists in brackets, so that their commas are told from those of the call."""
    return f"[{_node(value)}]" if isinstance(value, Sequence) and not isinstance(value, str) else _node(value)


def _value(value: Any) -> str:
    """A plain value in few characters: numbers rounded, long lists cut."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        nested = any(isinstance(item, Sequence | Mapping) and not isinstance(item, str) for item in value)
        items = [f"({_node(item)})" if nested else _node(item) for item in value[:LISTED]]
        more = f", ... {len(value)} in all" if len(value) > LISTED else ""
        return ", ".join(items) + more
    text = _node(value) if isinstance(value, Mapping) else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
