"""A trained task as one file that other programs run: what comes before and after the network inside, and verified.

A task says in `deployable()` what of it leaves the house. It is traced at batch 2, written beside its target, read back
by what will run it (onnxruntime, torch.export), compared with the task itself at other batches and another size, and
only then given its name.
"""

import contextlib
import importlib.util
import inspect
import io
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from ..errors import QuintetError, first_line, nearest
from ..learning.deployable import Deployable
from ..weights.described import to_json
from ..weights.pretrained import read_checkpoint
from ..weights.sealing import digest_of
from ..writing.files import refuse_existing, written_whole
from .composition import typed_options
from .run_folder import new_output_folder, new_run_folder, run_folder_of

ENDINGS = {"onnx": ".onnx", "torch_export": ".pt2", "safetensors": ".safetensors"}
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime")}  # what a format needs besides quintet itself
TOLERANCE = 1e-4


def export_checkpoint(
    path: str | Path, options: Mapping[str, Any], trusted: Iterable[str] = (), name: str = "run"
) -> Iterator[str]:
    """Exports the task of a checkpoint and yields what to say about it, line by line.

    Options are `format` (onnx, torch_export or safetensors), `output` (a file; by default one in a new folder beside
    the checkpoint's) and the keyword arguments of the task's `deployable`.

    Raises QuintetError for an option the task does not have, a format whose packages are missing, a file that exists,
    and a result that differs from the task's own.
    """
    from ..learning.task import load_task
    from ..weights.records import record_of

    options = dict(options)
    kind, output = options.pop("format", None), options.pop("output", None)
    if kind not in ENDINGS:
        given = "no format is given" if kind is None else f"no format is called '{kind}'; {nearest(str(kind), ENDINGS)}"
        raise QuintetError(f"{given}; add format={'|'.join(ENDINGS)}")
    missing = [package for package in PACKAGES.get(kind, ()) if importlib.util.find_spec(package) is None]
    if missing:
        raise QuintetError(f"format={kind} needs {', '.join(missing)}: pip install 'quintet[export]'")
    target = None if output is None else Path(str(output)).expanduser()
    if target is not None:
        _check_target(target, kind)
    task = load_task(path, trusted)
    typed = typed_options(type(task), "deployable", options, "export", ("format", "output"))
    record = record_of(read_checkpoint(path), path)
    if kind == "safetensors":
        if options:
            raise QuintetError(f"format=safetensors holds weights alone; it takes no {min(options)}")
        target, made = (target, False) if target else (_new_file(path, kind, name), True)
        with written_whole(target, made) as partial:
            write_safetensors(partial, task.state_dict(), record)
            _check_equal(task.state_dict(), load_task(partial, trusted).state_dict())
        yield f"verified: a task loaded from it has the same {len(task.state_dict())} tensors"
    else:
        deployable = task.deployable(**typed)
        program, note = traced(deployable)
        target, made = (target, False) if target else (_new_file(path, kind, name), True)
        about = {"version": record["version"], "task": record["task"], "description": record["description"]}
        about |= {"licence": record.get("origin", {}).get("licence", ""), **deployable.about}
        with written_whole(target, made) as partial:
            run = WRITERS[kind](program, partial, deployable, about)
            checks = verified(deployable, run)
        yield from filter(None, (deployable.note, note))
        for shapes, error in checks:
            yield f"verified: {shapes}: largest relative error {error:.1e} (at most {TOLERANCE:.0e})"
    yield f"wrote {target} ({target.stat().st_size / 2**20:.1f} MiB)"
    yield f"use: {_usage(kind, target)}"


# Tracing and verification


def traced(deployable: Deployable) -> tuple[ExportedProgram, str]:
    """The module as a graph, and one line where axes other than the batch had to stay fixed."""
    module, inputs = deployable.module.eval(), tuple(deployable.inputs.values())

    def attempt(axes: Mapping[str, Mapping[int, str]]) -> ExportedProgram:
        shapes = tuple(dict.fromkeys(axes.get(name, {}), Dim.DYNAMIC) for name in deployable.inputs)
        # `forward(*tensors)` has one argument, which is all of them.
        shapes = (shapes,) if _takes_any_number(module) else shapes
        with torch.no_grad(), _quiet():
            return torch.export.export(module, inputs, dynamic_shapes=shapes)

    try:
        program = attempt(deployable.axes)
        with torch.no_grad():
            program.module()(*deployable.other.values())  # raises where a graph is good for some sizes only
        return program, ""
    except Exception as error:  # the tracer's own errors are of a dozen types
        batch = {
            name: {axis: size for axis, size in axes.items() if size == "batch"}
            for name, axes in deployable.axes.items()
        }
        # What is not laid out by samples cannot be cut to some of one size.
        if batch == deployable.axes or deployable.alone is not None:
            raise QuintetError(f"this network cannot be traced: {first_line(error)}") from error
        try:
            program = attempt(batch)
        except Exception as second:
            raise QuintetError(f"this network cannot be traced: {first_line(second)}") from second
    free = sorted({size for axes in deployable.axes.values() for size in axes.values()} - {"batch"})
    shapes = ", ".join(f"{name} {tuple(value.shape[1:])}" for name, value in deployable.inputs.items())
    deployable.axes = batch
    deployable.other = {name: torch.cat([value, value[:1].flip(-1)]) for name, value in deployable.inputs.items()}
    return program, f"this network cannot be traced for any {' and '.join(free)}: the file takes {shapes} alone"


def _takes_any_number(module: torch.nn.Module) -> bool:
    """Whether `forward` takes its tensors as one `*argument`."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    return len(parameters) == 1 and parameters[0].kind is inspect.Parameter.VAR_POSITIONAL


def verified(deployable: Deployable, run: Callable[[list[Tensor]], list[Tensor]]) -> list[tuple[str, float]]:
    """Shapes and largest relative error of what was written against the module, at batches of 3, 1 and 2.

    Raises QuintetError where they differ by more than 1e-4.
    """
    results = []
    other = list(deployable.other.values())
    alone = [value[:1] for value in other] if deployable.alone is None else list(deployable.alone.values())
    for inputs in (other, alone, list(deployable.inputs.values())):
        with torch.no_grad():
            expected = deployable.module(*inputs)
        found = run(inputs)
        worst = max(difference(*pair) for pair in zip(found, expected, strict=True))
        shapes = ", ".join(
            f"{name} {' x '.join(map(str, value.shape))}" for name, value in zip(deployable.inputs, inputs)
        )
        if not worst <= TOLERANCE:
            raise QuintetError(
                f"the exported file differs from the task by {worst:.1e} at {shapes}, more than {TOLERANCE:.0e}; "
                "it was not kept"
            )
        results.append((shapes, worst))
    return results


def difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest value; of integers the share that differ; infinite where shapes or NaN do."""
    if found.shape != expected.shape:
        return float("inf")
    if not expected.numel():
        return 0.0
    if not expected.is_floating_point():
        return (found != expected).double().mean().item()
    found, expected = found.double(), expected.double()
    if not torch.equal(found.isfinite(), expected.isfinite()):
        return float("inf")
    found, expected = found.nan_to_num(0, 0, 0), expected.nan_to_num(0, 0, 0)
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=1e-12)).item()


# Formats


def write_onnx(program: ExportedProgram, path: Path, deployable: Deployable, about: Mapping[str, Any]) -> Callable:
    """Writes an ONNX file; returns what runs it in onnxruntime."""
    import onnxruntime

    _free_of_strides(program)
    try:
        with _quiet():
            graph = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                input_names=list(deployable.inputs),
                output_names=deployable.outputs,
                external_data=False,
            )
            graph.model.metadata_props["quintet"] = json.dumps(about)
            graph.save(str(path), external_data=False)
    except torch.onnx.OnnxExporterError as error:
        # The exception below says which operation; the one on top gives advice for torch's own issue tracker.
        reason = first_line(error.__cause__ or error)
        raise QuintetError(f"ONNX cannot express this network: {reason}; format=torch_export can") from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(inputs: list[Tensor]) -> list[Tensor]:
        named = {name: value.numpy() for name, value in zip(deployable.inputs, inputs)}
        return [torch.from_numpy(value) for value in session.run(deployable.outputs, named)]

    return run


def _free_of_strides(program: ExportedProgram) -> None:
    """Lets no view rely on how attention lays its result out in memory, which is not how the converter's own does."""
    graph = program.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default
        if node.target is torch.ops.aten.scaled_dot_product_attention.default:
            with graph.inserting_after(node):
                plain = {"memory_format": torch.contiguous_format}
                copy = graph.call_function(torch.ops.aten.clone.default, (node,), plain)
            copy.meta = dict(node.meta)
            node.replace_all_uses_with(copy, delete_user_cb=lambda user, copy=copy: user is not copy)
    program.graph_module.recompile()


def write_torch_export(
    program: ExportedProgram, path: Path, deployable: Deployable, about: Mapping[str, Any]
) -> Callable:
    """Writes a file of torch.export; returns what runs it as read back."""
    with _quiet():
        # By memory: torch's own writer of files ends the process where the disk is full (SIGABRT).
        content = io.BytesIO()
        torch.export.save(program, content, extra_files={"quintet.json": json.dumps(about)})
        path.write_bytes(content.getbuffer())
        module = torch.export.load(str(path)).module()

    def run(inputs: list[Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return list(module(*inputs))

    return run


WRITERS = {"onnx": write_onnx, "torch_export": write_torch_export}


def write_safetensors(path: Path, state: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Writes weights with the record of their task; `load_task`, `pretrained=FILE` and every verb read it again."""
    from safetensors.torch import save

    sealed = {**record, "digest": digest_of(record, state)}
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    path.write_bytes(save(tensors, metadata={"format": "pt", "quintet": to_json(sealed)}))


def _check_equal(state: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    if state.keys() != found.keys() or any(difference(found[key], value) for key, value in state.items()):
        raise QuintetError("the file read back does not hold the task's weights; it was not kept")


# Files


def _check_target(path: Path, kind: str) -> None:
    if path.suffix != ENDINGS[kind]:
        raise QuintetError(f"output={path}: files of format={kind} end in {ENDINGS[kind]}")
    refuse_existing(path)


def _new_file(checkpoint: str | Path, kind: str, name: str) -> Path:
    run = run_folder_of(checkpoint) or new_run_folder(name)
    return new_output_folder(run, "export") / f"model{ENDINGS[kind]}"


def _usage(kind: str, path: Path) -> str:
    return {
        "onnx": f"onnxruntime.InferenceSession('{path}').run(None, {{name: array}})",
        "torch_export": f"torch.export.load('{path}').module()(tensor)",
        "safetensors": f"quintet.load_task('{path}'), quintet predict ckpt_path={path}, or model.pretrained={path}",
    }[kind]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """While it lasts, tracers and converters keep their advice to themselves."""
    import logging

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
