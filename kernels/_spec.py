"""What an operation file says about its operation, and all that is generated from it.

A file of this folder that holds `SPEC = OpSpec(...)` is found by `list_specs`. Its tests (tests/kernels/test_specs.py),
its benchmarks (`benchmark`) and its line in the documentation (`operations_table`) come from the specification alone:
a new operation is one new file.

An input set is a dictionary from the names of the function's arguments to their values: tensors, tuples of tensors
(states), None, or plain settings. A `Sampler` makes the tensors in float64; tests and benchmarks cast them. What the
function returns may be a tensor or tuples, lists and dictionaries of tensors and None.
"""

import functools
import statistics
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
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
            inputs[name] = tree_map_only(Tensor, lambda leaf: leaf.detach().requires_grad_(), inputs[name])
            leaves |= _tensors(name, inputs[name])
    return inputs, leaves


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
    spec: OpSpec, backend: str, case: str, dtype: torch.dtype, layout: str = "contiguous", device="cpu"
) -> dict[str, float]:
    """The relative error of every output and gradient of a backend against the reference in float64."""
    inputs = spec.inputs(case, dtype, layout, device)
    wide = tree_map_only(Tensor, lambda leaf: _prepare(leaf, torch.float64, "contiguous", leaf.device), inputs)
    actual = evaluate(spec, lambda **given: spec.function(**given, backend=backend), inputs, dtype)
    expected = evaluate(spec, lambda **given: spec.function(**given, backend="reference"), wide, dtype)
    if actual.keys() != expected.keys():
        raise ValueError(f"{spec.name}: {backend} returns {sorted(actual)}, the reference {sorted(expected)}")
    return {name: relative_error(actual[name], expected[name]) for name in expected}


# --- benchmarks and documentation -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measurement:
    """Median milliseconds of one backend on one case, its worst relative error, and the (forward, backward) floor."""

    operation: str
    case: str
    backend: str
    forward: float
    training: float
    error: float
    floor: tuple[Cost, Cost]


def benchmark(
    spec: OpSpec,
    backends: tuple[str, ...] = ("reference", "torch"),
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    repeats: int = 15,
) -> Iterator[Measurement]:
    """Time the forward and the forward with backward of every benchmark case, backends taking turns in each repeat.

    Raises ValueError, and times nothing, when a backend is not within its tolerance.
    """
    for case in spec.benchmarks:
        error = {"reference": 0.0}
        for backend in set(backends) - {"reference"}:
            error[backend] = max(errors(spec, backend, case, dtype, device=device).values())
            if not error[backend] <= spec.tolerance(backend, dtype):
                raise ValueError(f"{spec.name}, {case}: {backend} is wrong by {error[backend]:.1e}; not timed")
        inputs = spec.inputs(case, dtype, device=device)
        times = {(backend, training): [] for backend in backends for training in (False, True)}
        for repeat in range(repeats + 1):
            for backend, training in times:
                elapsed = _time(spec, backend, inputs, training)
                if repeat:  # the first round warms up
                    times[backend, training].append(elapsed)
        for backend in backends:
            forward, training = (statistics.median(times[backend, mode]) for mode in (False, True))
            yield Measurement(spec.name, case, backend, forward, training, error[backend], spec.floor(**inputs))


def _time(spec: OpSpec, backend: str, inputs: Inputs, training: bool) -> float:
    leaves: dict[str, Tensor] = {}
    if training:
        inputs, leaves = require_gradients(spec, inputs)
    _wait(inputs)
    start = time.perf_counter()
    outputs = _tensors("output", spec.function(**inputs, backend=backend))
    if training:
        roots = [output for output in outputs.values() if output.requires_grad]
        gradients = [torch.ones_like(root) for root in roots]
        torch.autograd.grad(roots, list(leaves.values()), gradients, allow_unused=True)
    _wait(inputs)
    return (time.perf_counter() - start) * 1e3


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
