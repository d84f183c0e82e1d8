"""What an operation file says about its operation, and all that is generated from it.

A file of this folder that holds `SPEC = OpSpec(...)` is found by `list_specs`. Its tests (tests/kernels/test_specs.py),
its benchmarks (`benchmark`) and its line in the documentation (`operations_table`) come from the specification alone:
a new operation is one new file.

An input set is a dictionary from the names of the function's arguments to their values: tensors, tuples of tensors
(states), None, or plain settings. A `Sampler` makes the tensors in float64; tests and benchmarks cast them. What the
function returns may be a tensor or tuples, lists and dictionaries of tensors and None.
"""

import functools
import math
import statistics
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_map_only

from ._runtime import Backends, import_operations

Inputs = dict[str, Any]

# Largest relative error of an output or a gradient against the reference in float64, by backend and dtype. Half
# precision rounds inputs' products and results: 2^-12 and 2^-9 of the value on average, a few times over.
TOLERANCES: dict[str, dict[torch.dtype, float]] = {
    "torch": {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2},
    "triton": {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2},
}
LAYOUTS = ("contiguous", "permuted", "strided")


class Cost(NamedTuple):
    """The memory traffic in bytes and the arithmetic in flops that a pass cannot do without."""

    bytes: float
    flops: float


class Sampler:
    """Makes the tensors of an input set, reproducibly, in float64 (or bool, or int64)."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64) * scale

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.generator, dtype=torch.float64)

    def boolean(self, *shape: int, probability: float = 0.5) -> Tensor:
        return self.uniform(*shape) < probability

    def integers(self, *shape: int, low: int = 0, high: int) -> Tensor:
        return torch.randint(low, high, shape, generator=self.generator)


Maker = Callable[[Sampler], Inputs]


@dataclass(frozen=True)
class OpSpec:
    """One operation, described once.

    function        the public function; takes `backend` by keyword besides the names in the input sets
    backends        its implementations
    cases           tiny input sets by name, which everything runs on, the interpreter and finite differences too: odd
                    sizes (1, 63, primes), None inputs, edges. Layouts are varied by the tests, not here. The first is
                    the typical one, on which opcheck runs
    differentiable  the names of the inputs that have gradients
    floor           (forward, backward) `Cost` of an input set, given by keyword
    paper           title and arXiv id
    large_cases     input sets that take several tiles or chunks, on which the torch form alone is tested
    benchmarks      input sets worth timing
    float32         the names of inputs that stay float32 when the others are in half precision, such as states
    tolerances      exceptions to TOLERANCES, in the same form
    """

    function: Callable
    backends: Backends
    cases: Mapping[str, Maker]
    differentiable: tuple[str, ...]
    floor: Callable[..., tuple[Cost, Cost]]
    paper: str
    large_cases: Mapping[str, Maker] = field(default_factory=dict)
    benchmarks: Mapping[str, Maker] = field(default_factory=dict)
    float32: tuple[str, ...] = ()
    tolerances: Mapping[str, Mapping[torch.dtype, float]] = field(default_factory=dict)

    def __post_init__(self):
        names = [*self.cases, *self.large_cases, *self.benchmarks]
        if len(set(names)) < len(names):
            raise ValueError(f"{self.name}: two cases have the same name among {names}")

    @property
    def name(self) -> str:
        return self.backends.operation

    def tolerance(self, backend: str, dtype: torch.dtype) -> float:
        return self.tolerances.get(backend, {}).get(dtype, TOLERANCES[backend][dtype])

    def inputs(self, case: str, dtype: torch.dtype = torch.float64, layout: str = "contiguous", device="cpu") -> Inputs:
        """The input set of a case, always the same values, in a dtype and a memory layout."""
        make = {**self.cases, **self.large_cases, **self.benchmarks}[case]
        made = make(Sampler(zlib.crc32(f"{self.name} {case}".encode())))
        inputs = {}
        for name, value in made.items():
            to = torch.float32 if name in self.float32 and dtype.itemsize < 4 else dtype
            inputs[name] = tree_map_only(
                Tensor, functools.partial(_prepare, dtype=to, layout=layout, device=device), value
            )
        return inputs


def _prepare(leaf: Tensor, dtype: torch.dtype, layout: str, device) -> Tensor:
    if leaf.is_floating_point():
        leaf = leaf.to(dtype)
    elif leaf.is_complex():
        leaf = leaf.to(dtype.to_complex())
    leaf = leaf.to(device)
    if layout == "permuted":  # the first dimension is the innermost in memory
        return leaf.permute(*reversed(range(leaf.ndim))).contiguous().permute(*reversed(range(leaf.ndim)))
    if layout == "strided":  # every other element of a buffer with poison between
        poison = torch.full_like(leaf, torch.nan) if leaf.is_floating_point() or leaf.is_complex() else ~leaf
        return torch.stack((leaf, poison), -1)[..., 0]
    return leaf


def list_specs() -> dict[str, OpSpec]:
    """Every operation of this folder by name, found by importing its files."""
    found = (value for module in import_operations() for value in vars(module).values() if isinstance(value, OpSpec))
    return {spec.name: spec for spec in sorted(found, key=lambda spec: spec.name)}


def size_in_bytes(*tensors: Tensor | None) -> int:
    """What reading the tensors costs."""
    return sum(tensor.numel() * tensor.itemsize for tensor in tensors if tensor is not None)


# --- comparison -------------------------------------------------------------------------------------------------------


def evaluate(spec: OpSpec, function: Callable, inputs: Inputs, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Every tensor a function returns and every gradient, by name, for fixed random gradients of the outputs.

    `dtype` rounds those gradients, so that runs in different dtypes are given the same values.
    """
    inputs, leaves = require_gradients(spec, inputs)
    outputs = _tensors("output", function(**inputs))
    roots, gradients = [], []
    for seed, output in enumerate(outputs.values()):
        if output.requires_grad:
            roots.append(output)
            gradients.append(_fixed_normal(output, seed).to(dtype or output.dtype).to(output))
    found = torch.autograd.grad(roots, list(leaves.values()), gradients, allow_unused=True) if roots else ()
    results = {name: output.detach() for name, output in outputs.items()}
    for (name, leaf), gradient in zip(leaves.items(), found):
        results[f"gradient of {name}"] = torch.zeros_like(leaf) if gradient is None else gradient
    return results


def _fixed_normal(like: Tensor, seed: int) -> Tensor:
    dtype = torch.promote_types(like.dtype, torch.float64)
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def require_gradients(spec: OpSpec, inputs: Inputs) -> tuple[Inputs, dict[str, Tensor]]:
    """The inputs with gradients required where the operation has them, and those tensors by name."""
    inputs, leaves = dict(inputs), {}
    for name in spec.differentiable:
        if name in inputs:
            inputs[name] = tree_map_only(Tensor, _require_gradient, inputs[name])
            leaves |= {name: leaf for name, leaf in _tensors(name, inputs[name]).items() if leaf.requires_grad}
    return inputs, leaves


def _require_gradient(leaf: Tensor) -> Tensor:
    """A state may hold integers too, which have no gradient."""
    return leaf.detach().requires_grad_() if leaf.is_floating_point() or leaf.is_complex() else leaf


def _tensors(name: str, tree: Any) -> dict[str, Tensor]:
    return {name + keystr(path): leaf for path, leaf in tree_flatten_with_path(tree)[0] if isinstance(leaf, Tensor)}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Norm of the difference over norm of the truth; NaN if anything is NaN.

    A truth of zero, which float64 leaves as noise below 1e-9, is compared on the scale of the inputs, which is one.
    """
    if actual.shape != expected.shape:
        raise ValueError(f"relative_error: shapes differ, {tuple(actual.shape)} and {tuple(expected.shape)}")
    wide = torch.promote_types(expected.dtype, torch.float64)
    actual, expected = actual.to(expected.device, wide), expected.to(wide)
    scale, unit = expected.norm().item(), max(1, expected.numel()) ** 0.5
    return (actual - expected).norm().item() / (unit if scale < 1e-9 * unit else scale)


def errors(
    spec: OpSpec, backend: str | Callable, case: str, dtype: torch.dtype, layout: str = "contiguous", device="cpu"
) -> dict[str, float]:
    """The relative error of every output and gradient of a backend, or of a function in the operation's place, against
    the reference in float64."""
    run = backend if callable(backend) else functools.partial(spec.function, backend=backend)
    inputs = spec.inputs(case, dtype, layout, device)
    wide = tree_map_only(Tensor, lambda leaf: _prepare(leaf, torch.float64, "contiguous", leaf.device), inputs)
    actual = evaluate(spec, run, inputs, dtype)
    expected = evaluate(spec, functools.partial(spec.function, backend="reference"), wide, dtype)
    if actual.keys() != expected.keys():
        raise ValueError(f"{spec.name}: {backend} returns {sorted(actual)}, the reference {sorted(expected)}")
    return {name: relative_error(actual[name], expected[name]) for name in expected}


# --- benchmarks and documentation -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measurement:
    """Median milliseconds of one implementation on one case, its worst relative error, the (forward, backward) floor.

    `training`, forward and backward, is NaN where an implementation has no gradients.
    """

    operation: str
    case: str
    implementation: str
    forward: float
    training: float
    error: float
    floor: tuple[Cost, Cost]


TURN = 20.0  # milliseconds that an implementation is timed for before the next one's turn


def benchmark(
    spec: OpSpec,
    implementations: Mapping[str, Callable],
    *,
    forward_only: Collection[str] = (),
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    repeats: int = 15,
    seconds: float = 30.0,
) -> Iterator[Measurement]:
    """Time the forward and the forward with backward of every benchmark case, implementations taking turns.

    `implementations` take the operation's arguments; those named in `forward_only` have no gradients. A case that has
    run for so many `seconds` is not repeated more than three times. Raises ValueError, and times nothing, when one of
    them is wrong by more than its tolerance.
    """
    for case in spec.benchmarks:
        inputs = spec.inputs(case, dtype, device=device)
        error = {}
        for name, run in implementations.items():
            checked = replace(spec, differentiable=()) if name in forward_only else spec
            found = errors(checked, run, case, dtype, device=device).values()
            error[name] = torch.tensor([*found]).max().item()  # unlike max(), keeps NaN
            if not error[name] <= 4 * spec.tolerance("triton", dtype):
                raise ValueError(f"{spec.name}, {case}: {name} is wrong by {error[name]:.1e}; not timed")
        modes = [(name, training) for name in implementations for training in (False, True)]
        times = {mode: [] for mode in modes if not (mode[1] and mode[0] in forward_only)}
        start = time.perf_counter()
        for repeat in range(repeats + 1):
            if repeat > 3 and time.perf_counter() - start > seconds:
                break
            for name, training in times:
                elapsed = _time(spec, implementations[name], inputs, training)
                if repeat:  # the first round warms up
                    times[name, training].append(elapsed)
        for name in implementations:
            forward, training = (
                statistics.median(times[name, mode]) if (name, mode) in times else math.nan for mode in (False, True)
            )
            yield Measurement(spec.name, case, name, forward, training, error[name], spec.floor(**inputs))


def _time(spec: OpSpec, run: Callable, inputs: Inputs, training: bool) -> float:
    """Milliseconds of a call. One that is over soon is first called untimed, so that neither caches nor sleeping
    threads count that another implementation left, and then as often as fills TURN milliseconds."""
    leaves: dict[str, Tensor] = {}
    if training:
        inputs, leaves = require_gradients(spec, inputs)

    def milliseconds(calls: int) -> float:
        _wait(inputs)
        start = time.perf_counter()
        for _ in range(calls):
            with torch.set_grad_enabled(training):
                outputs = _tensors("output", run(**inputs))
            if training:
                roots = [output for output in outputs.values() if output.requires_grad]
                gradients = [torch.ones_like(root) for root in roots]
                torch.autograd.grad(roots, list(leaves.values()), gradients, allow_unused=True)
        _wait(inputs)
        return (time.perf_counter() - start) * 1e3 / calls

    once = milliseconds(1)
    return once if once > TURN else milliseconds(max(1, int(TURN / once)))


def _wait(inputs: Inputs) -> None:
    if any(leaf.is_cuda for leaf in _tensors("input", inputs).values()):
        torch.cuda.synchronize()


def operations_table() -> str:
    """The operations as a Markdown table."""
    lines = ["| operation | what it computes | backends | gradients | paper |", "|---|---|---|---|---|"]
    for spec in list_specs().values():
        what = (spec.function.__doc__ or "").strip().splitlines()[0]
        backends = ["reference"]
        backends += ["torch"] * (spec.backends.torch is not spec.backends.reference)
        backends += ["triton"] * (spec.backends.triton is not None)
        gradients = ", ".join(f"`{name}`" for name in spec.differentiable)
        lines.append(f"| `{spec.name}` | {what} | {', '.join(backends)} | {gradients} | {spec.paper} |")
    return "\n".join(lines)
