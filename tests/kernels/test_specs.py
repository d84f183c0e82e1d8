"""Every operation of quintet.kernels against its reference, generated from the specifications.

In three steps: by default the references and torch forms; with `-m compilation` and QUINTET_SHAPE_CHECKS=0 the compiled
functions; with `-m interpreter` and TRITON_INTERPRET=1 the Triton kernels and their registration as custom ops.
"""

import csv
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten
from torch.utils.checkpoint import checkpoint

from quintet.kernels import list_specs
from quintet.kernels._runtime import INTERPRETING, Backends
from quintet.kernels._spec import LAYOUTS, OpSpec, errors, evaluate, operations_table, relative_error, require_gradients

SPECS = list_specs()
CASES = [pytest.param(spec, case, id=f"{name}: {case}") for name, spec in SPECS.items() for case in spec.cases]
LARGE = [pytest.param(spec, case, id=f"{name}: {case}") for name, spec in SPECS.items() for case in spec.large_cases]
SPEC = [pytest.param(spec, id=name) for name, spec in SPECS.items()]
KERNELS = [entry for entry in CASES if entry.values[0].backends.triton is not None]
with Path(__file__).with_name("benchmarks.tsv").open(newline="") as file:
    BENCHMARKS = {(row["operation"], row["case"]): row["inputs"] for row in csv.DictReader(file, delimiter="\t")}

interpreted = pytest.mark.skipif(not INTERPRETING, reason="set TRITON_INTERPRET=1 to interpret the kernels")


def assert_close(spec: OpSpec, backend: str, case: str, dtype: torch.dtype, layout: str = "contiguous") -> None:
    tolerance = spec.tolerance(backend, dtype)
    found = errors(spec, backend, case, dtype, layout)
    wrong = {name: f"{error:.1e}" for name, error in found.items() if not error <= tolerance}
    assert not wrong, f"{spec.name}, {case}: relative errors above {tolerance}: {wrong}"


@pytest.mark.parametrize(("spec", "case"), CASES)
def test_reference_gradients_agree_with_finite_differences(spec: OpSpec, case: str) -> None:
    inputs, leaves = require_gradients(spec, spec.inputs(case))
    flat, structure = tree_flatten(inputs)
    places = [index for index, entry in enumerate(flat) if any(entry is leaf for leaf in leaves.values())]

    def outputs(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        filled = list(flat)
        for place, tensor in zip(places, tensors):
            filled[place] = tensor
        returned = spec.function(**tree_unflatten(filled, structure), backend="reference")
        return tuple(leaf for leaf in tree_leaves(returned) if isinstance(leaf, torch.Tensor) and leaf.requires_grad)

    tensors = [flat[place] for place in places]
    assert torch.autograd.gradcheck(outputs, tensors, fast_mode=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("spec", "case"), CASES)
def test_torch_form_agrees_with_reference(spec: OpSpec, case: str, layout: str) -> None:
    assert_close(spec, "torch", case, torch.float32, layout)


def assert_checkpointable(spec: OpSpec, case: str, backend: str) -> None:
    """Under gradient checkpointing what was saved can be read once."""
    function = partial(checkpoint, partial(spec.function, backend=backend), use_reentrant=False)
    found = errors(spec, function, case, torch.float32)
    tolerance = spec.tolerance(backend, torch.float32)
    assert all(error <= tolerance for error in found.values()), found


@pytest.mark.parametrize(("spec", "case"), CASES)
def test_torch_form_under_checkpointing(spec: OpSpec, case: str) -> None:
    assert_checkpointable(spec, case, "torch")


@pytest.mark.parametrize(("spec", "case"), LARGE)
def test_torch_form_agrees_with_reference_on_large_inputs(spec: OpSpec, case: str) -> None:
    assert_close(spec, "torch", case, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize(("spec", "case"), CASES)
def test_torch_form_agrees_with_reference_in_half_precision(spec: OpSpec, case: str, dtype: torch.dtype) -> None:
    assert_close(spec, "torch", case, dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize(("spec", "case"), CASES)
def test_inputs_are_left_as_they_were(spec: OpSpec, case: str, backend: str, layout: str) -> None:
    assert_inputs_unchanged(spec, case, backend, layout)


def assert_inputs_unchanged(spec: OpSpec, case: str, backend: str, layout: str) -> None:
    inputs = spec.inputs(case, torch.float32, layout)
    before = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, inputs)
    evaluate(spec, lambda **given: spec.function(**given, backend=backend), inputs)
    for then, now in zip(tree_leaves(before), tree_leaves(inputs)):
        assert not isinstance(now, torch.Tensor) or (torch.equal(then, now) and now._version == 0)


@pytest.mark.parametrize(("spec", "case"), CASES)
def test_autocast_keeps_values_and_gives_gradients_in_the_dtype_of_the_inputs(spec: OpSpec, case: str) -> None:
    inputs = spec.inputs(case, torch.float32)

    def under_autocast(**given):
        with torch.autocast("cpu", torch.bfloat16):
            return spec.function(**given)

    found = evaluate(spec, under_autocast, inputs, torch.bfloat16)
    wide = spec.inputs(case, torch.float64)
    expected = evaluate(spec, lambda **given: spec.function(**given, backend="reference"), wide, torch.bfloat16)
    tolerance = spec.tolerance("torch", torch.bfloat16)
    for name, value in expected.items():
        assert relative_error(found[name], value) <= tolerance, name
        assert not name.startswith("gradient") or found[name].dtype == torch.float32


def described(inputs: dict) -> str:
    """Shapes and settings, in words."""

    def word(value) -> str:
        shaped = isinstance(value, torch.Tensor)
        return "x".join(map(str, value.shape)) if shaped else str(value)

    return ", ".join(f"{name} {word(value)}" for name, value in inputs.items() if value is not None)


@pytest.mark.parametrize("spec", SPEC)
def test_specification_is_complete(spec: OpSpec) -> None:
    assert spec.differentiable
    assert spec.function.__doc__
    assert "arXiv" in spec.paper or "doi" in spec.paper
    assert f"`{spec.name}`" in operations_table()
    for case in spec.benchmarks:
        inputs = {
            name: tree_map(lambda leaf: leaf.to("meta") if isinstance(leaf, torch.Tensor) else leaf, value)
            for name, value in spec.inputs(case, torch.float32).items()
        }
        # What was measured under a name is compared with later measurements: it stays what it was.
        assert described(inputs) == BENCHMARKS[spec.name, case]
        forward, backward = spec.floor(**inputs)
        assert forward.bytes > 0
        assert forward.flops <= backward.flops


@pytest.mark.compilation
@pytest.mark.parametrize(("spec", "case"), CASES)
def test_every_case_traces_into_one_graph(spec: OpSpec, case: str) -> None:
    assert_compiled_agrees(spec, case, "eager")  # what follows capture is the same for all cases


@pytest.mark.compilation
@pytest.mark.parametrize("spec", SPEC)
def test_compiled_function_agrees_with_eager(spec: OpSpec) -> None:
    """Forward and backward are captured; Inductor, which takes seconds for every loop, compiles the forward."""
    case = next(iter(spec.large_cases or spec.cases))
    assert_compiled_agrees(spec, case, "aot_eager")
    with torch.no_grad():
        assert_compiled_agrees(replace(spec, differentiable=()), case, "inductor")


def assert_compiled_agrees(spec: OpSpec, case: str, compiler: str, **settings) -> None:
    torch.compiler.reset()
    compiled = torch.compile(spec.function, fullgraph=True, backend=compiler, dynamic=False)
    inputs = spec.inputs(case, torch.float32)
    found = evaluate(spec, lambda **given: compiled(**given, **settings), inputs)
    for name, value in evaluate(spec, lambda **given: spec.function(**given, **settings), inputs).items():
        assert relative_error(found[name], value) <= 1e-5, name


# --- Triton compiled for GPUs, which need not be there ----------------------------------------------------------------


TYPES = {
    torch.bool: "i1",
    torch.int8: "i8",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
}


GPUS = {torch.bfloat16: 90, torch.float32: 80}  # Hopper and Ampere
SHARED_MEMORY = 160 * 1024  # what a program can have on the smaller of the two


@pytest.fixture
def launches(monkeypatch) -> list[tuple]:
    """The launches of kernels (kernel, arguments, settings), which are recorded and not run."""
    triton = pytest.importorskip("triton", reason="Triton is not installed")
    if INTERPRETING:
        pytest.skip("unset TRITON_INTERPRET to compile the kernels")
    recorded = []

    def record(kernel, *arguments, grid, warmup, **settings):
        recorded.append((kernel, arguments, settings))

    monkeypatch.setattr(triton.runtime.jit.JITFunction, "run", record)
    monkeypatch.setattr(Backends, "why_not_triton", lambda *inputs, **settings: None)
    return recorded


@pytest.mark.compilation
@pytest.mark.parametrize(
    "dtype",
    [torch.bfloat16, pytest.param(torch.float32, marks=pytest.mark.slow)],
    ids=["bfloat16", "float32"],
)
@pytest.mark.parametrize("spec", [spec for spec in SPEC if spec.values[0].backends.triton is not None])
def test_kernels_compile_for_gpus(spec: OpSpec, dtype: torch.dtype, launches: list[tuple]) -> None:
    """Every kernel of an operation's file, for the sizes and block shapes of one of its benchmarks."""
    home = spec.function.__module__
    kernels = {name for name, value in vars(sys.modules[home]).items() if hasattr(value, "fn") and "_kernel" in name}
    for case in (*spec.benchmarks, *spec.cases):
        launches.clear()
        evaluate(spec, lambda **given: spec.function(**given, backend="triton"), spec.inputs(case, dtype))
        if kernels <= {kernel.__name__ for kernel, *_ in launches if kernel.fn.__module__ == home}:
            break
    else:
        pytest.fail(f"no benchmark and no case launches all of {kernels}")
    assert len(launches) >= 2, "a forward and a backward"
    for kernel, arguments, settings in launches:
        # What an operation borrows from another is compiled in the test of that one.
        if kernel.fn.__module__ == home or kernel.fn.__module__.rpartition(".")[2].startswith("_"):
            compile_launch(kernel, arguments, settings, GPUS[dtype])


def compile_launch(kernel, arguments: tuple, settings: dict, capability: int) -> None:
    """Compile a kernel, specialized as its launch would, for a GPU that need not be there."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = [parameter.name for parameter in kernel.params]
    given = dict(zip(names, arguments)) | {name: value for name, value in settings.items() if name in names}
    signature, constants, attributes = {}, {}, {}
    for parameter in kernel.params:
        value, place = given[parameter.name], (parameter.num,)
        if parameter.is_constexpr or value is None or (type(value) is int and value == 1):
            signature[parameter.name], constants[place] = "constexpr", value
            continue
        pointer = isinstance(value, torch.Tensor)
        signature[parameter.name] = f"*{TYPES[value.dtype]}" if pointer else "i32" if type(value) is int else "fp32"
        if pointer or (type(value) is int and value % 16 == 0):
            attributes[place] = [["tt.divisibility", 16]]
    options = {name: value for name, value in settings.items() if name not in names}
    source = ASTSource(kernel, signature, constants, attributes)
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert built.metadata.shared <= SHARED_MEMORY, f"{kernel.__name__} takes {built.metadata.shared} bytes"


# --- Triton under its interpreter -------------------------------------------------------------------------------------


@pytest.fixture
def poisoned_memory(monkeypatch):
    """Fill what the launchers allocate with NaN, so that an element no program writes is seen."""

    def poison(allocate):
        def poisoned(*arguments, **settings):
            tensor = allocate(*arguments, **settings)
            return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor

        return poisoned

    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, poison(getattr(owner, name)))


@pytest.mark.interpreter
@interpreted
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize(
    ("dtype", "layout"),
    [(torch.float32, "contiguous"), (torch.float32, "strided"), (torch.float16, "permuted")],
    ids=["float32", "float32 strided", "float16 permuted"],
)
@pytest.mark.parametrize(("spec", "case"), KERNELS)
def test_kernels_agree_with_reference(spec: OpSpec, case: str, dtype: torch.dtype, layout: str) -> None:
    assert_close(spec, "triton", case, dtype, layout)


@pytest.mark.interpreter
@interpreted
@pytest.mark.parametrize("spec", [spec for spec in SPEC if spec.values[0].backends.triton is not None])
def test_kernels_under_checkpointing(spec: OpSpec) -> None:
    assert_checkpointable(spec, next(iter(spec.cases)), "triton")


@pytest.mark.interpreter
@interpreted
@pytest.mark.parametrize(("spec", "case"), KERNELS)
def test_kernels_leave_inputs_as_they_were(spec: OpSpec, case: str) -> None:
    assert_inputs_unchanged(spec, case, "triton", "strided")


class RecordedCalls(TorchDispatchMode):
    """Keeps the calls of quintet's custom ops."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "quintet":
            self.calls.append((func, args))
        return func(*args, **(kwargs or {}))


@pytest.mark.interpreter
@interpreted
@pytest.mark.parametrize("spec", [spec for spec in SPEC if spec.values[0].backends.triton is not None])
def test_custom_ops_are_registered_correctly(spec: OpSpec) -> None:
    """opcheck on the calls that a forward and a backward really make."""
    inputs = spec.inputs(next(iter(spec.cases)), torch.float32)
    with RecordedCalls() as recorded:
        evaluate(spec, lambda **given: spec.function(**given, backend="triton"), inputs)
    assert len(recorded.calls) >= 2, "a forward and a backward op"
    for index, (op, arguments) in enumerate(recorded.calls):
        torch.library.opcheck(op, tree_map(lambda leaf, first=index == 0: fresh(leaf, first), arguments))


def fresh(leaf, differentiable: bool):
    if not isinstance(leaf, torch.Tensor):
        return leaf
    return leaf.detach().clone().requires_grad_(differentiable and leaf.is_floating_point())


@pytest.mark.interpreter
@interpreted
@pytest.mark.skipif(os.environ.get("QUINTET_SHAPE_CHECKS") != "0", reason="set QUINTET_SHAPE_CHECKS=0 to compile")
@pytest.mark.parametrize("spec", [spec for spec in SPEC if spec.values[0].backends.triton is not None])
def test_kernels_compile_as_one_graph(spec: OpSpec) -> None:
    assert_compiled_agrees(spec, next(iter(spec.cases)), "aot_eager", backend="triton")
