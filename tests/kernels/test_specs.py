"""Every operation of quintet.kernels against its reference, generated from the specifications.

In three steps: by default the references and torch forms; with `-m compilation` and QUINTET_SHAPE_CHECKS=0 the compiled
functions; with `-m interpreter` and TRITON_INTERPRET=1 the Triton kernels and their registration as custom ops.
"""

import os

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from quintet.kernels import list_specs
from quintet.kernels._runtime import INTERPRETING
from quintet.kernels._spec import LAYOUTS, OpSpec, errors, evaluate, operations_table, relative_error, require_gradients

SPECS = list_specs()
CASES = [pytest.param(spec, case, id=f"{name}: {case}") for name, spec in SPECS.items() for case in spec.cases]
LARGE = [pytest.param(spec, case, id=f"{name}: {case}") for name, spec in SPECS.items() for case in spec.large_cases]
SPEC = [pytest.param(spec, id=name) for name, spec in SPECS.items()]
KERNELS = [entry for entry in CASES if entry.values[0].backends.triton is not None]

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
        forward, backward = spec.floor(**inputs)
        assert forward.bytes > 0
        assert forward.flops <= backward.flops


@pytest.mark.compilation
@pytest.mark.parametrize(("spec", "case"), CASES)
def test_every_case_traces_into_one_graph(spec: OpSpec, case: str) -> None:
    assert_compiled_agrees(spec, case, "aot_eager")


@pytest.mark.compilation
@pytest.mark.parametrize("spec", SPEC)
def test_compiled_function_agrees_with_eager(spec: OpSpec) -> None:
    assert_compiled_agrees(spec, next(iter(spec.large_cases or spec.cases)), "inductor")


def assert_compiled_agrees(spec: OpSpec, case: str, compiler: str, **settings) -> None:
    torch.compiler.reset()
    compiled = torch.compile(spec.function, fullgraph=True, backend=compiler, dynamic=False)
    inputs = spec.inputs(case, torch.float32)
    found = evaluate(spec, lambda **given: compiled(**given, **settings), inputs)
    for name, value in evaluate(spec, lambda **given: spec.function(**given, **settings), inputs).items():
        assert relative_error(found[name], value) <= 1e-5, name


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
