"""Everything the operation files know about Triton, and how a call finds its backend.

Triton is optional: without it (macOS, Windows, a plain CPU machine) every kernel file still imports, and its operations
run on their torch form. Nothing here touches a driver at import.

A kernel file uses five things:

- `jit`, `tl`: decorate and write kernels;
- `operator`: registers a launcher as a `torch.library` custom op (fake tensors, autograd and compile work with it);
- `Backends`: names the implementations of one operation and chooses between them;
- `dot_dtype`, `dot_precision`, `cdiv`, `next_power_of_2`, `processor_count`: launch arithmetic;
- `autocast`: casts the inputs of matmul-shaped operations under autocast.

`TRITON_INTERPRET=1` in the environment makes Triton's interpreter run the kernels on CPU tensors; it is read when a
kernel is decorated, so it must be set before import. The interpreter computes wrongly in bfloat16 unless values are
cast to float32 right after the load, takes one autotune configuration, and knows no methods on scalars (use `tl.cast`).
"""

import difflib
import functools
import importlib
import inspect
import logging
import os
import pkgutil
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl

    _IMPORT_ERROR = None
except (ImportError, OSError, RuntimeError) as error:  # a broken driver library must not break `import quintet`
    triton, _IMPORT_ERROR = None, error

    class _Absent:
        """Stands where `triton.language` would: any name can be looked up and called, so kernels can be defined."""

        def __getattr__(self, name):
            return self

        def __call__(self, *arguments, **settings):
            return self

    tl = _Absent()

INTERPRETING: bool = triton is not None and bool(triton.knobs.runtime.interpret)
TRITON_VERSION = tuple(int(part) for part in re.findall(r"\d+", triton.__version__)[:3]) if triton else ()
TRITON_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
# Triton builds its launcher with the system's C compiler; its Windows build brings one.
_HAS_COMPILER = os.name == "nt" or "CC" in os.environ or any(map(shutil.which, ("cc", "gcc", "clang")))

_logger = logging.getLogger("quintet.kernels")


@dataclass(frozen=True)
class KnownBad:
    """An operation that a range of Triton versions [first, fixed) compiles wrongly on one GPU architecture."""

    capability: tuple[int, int]
    first: tuple[int, ...]
    fixed: tuple[int, ...]
    operation: str
    issue: str


# Empty because no kernel here uses a construct known to be miscompiled (such as tl.dot of a transposed dot result on
# Hopper with Triton 3.4 to 3.7.0, https://github.com/fla-org/flash-linear-attention/issues/640).
KNOWN_BAD: tuple[KnownBad, ...] = ()


# --- kernels ----------------------------------------------------------------------------------------------------------


class _Undefined:
    """A kernel on a machine without Triton: it can be named, not launched."""

    def __init__(self, function: Callable):
        self.name = function.__qualname__

    def __getitem__(self, grid):
        raise RuntimeError(f"{self.name} needs Triton, which is not available here: {_IMPORT_ERROR}")


def jit(
    function: Callable | None = None,
    *,
    heuristics: Mapping[str, Callable] | None = None,
    configs: Sequence[Mapping] = (),
    key: Sequence[str] = (),
    do_not_specialize: Sequence[str] = (),
):
    """`triton.jit`, defined also where Triton is absent.

    Prefer plain block arithmetic in the launcher, then `heuristics`, and only then `configs`: at most four dictionaries
    of constants (with `num_warps`, `num_stages`), tried per value of `key`, which holds head sizes and never lengths.
    While interpreting, only the first configuration is used.
    """
    if function is None:
        return functools.partial(
            jit, heuristics=heuristics, configs=configs, key=key, do_not_specialize=do_not_specialize
        )
    function = inspect.unwrap(function)  # Triton compiles source: step beneath run-time shape checks
    if triton is None:
        return _Undefined(function)
    kernel = triton.jit(function, do_not_specialize=list(do_not_specialize))
    if heuristics:
        kernel = triton.heuristics(dict(heuristics))(kernel)
    if configs:
        kernel = triton.autotune([_config(entry) for entry in configs[: 1 if INTERPRETING else 4]], list(key))(kernel)
    return kernel


def _config(entry: Mapping):
    options = {name: entry[name] for name in ("num_warps", "num_stages") if name in entry}
    return triton.Config({name: value for name, value in entry.items() if name not in options}, **options)


def dot_dtype(dtype: torch.dtype):
    """What `tl.dot` multiplies for inputs of `dtype`; the interpreter cannot multiply bfloat16."""
    if dtype is torch.bfloat16 and INTERPRETING:
        return tl.float32
    return {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}[dtype]


def dot_precision() -> str:
    """`input_precision` of float32 dots: one product in TensorFloat-32 only where the user allows it to torch's matmuls
    too, otherwise three, which are as exact as float32 and, unlike it, run on tensor cores."""
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def cdiv(length: int, block: int) -> int:
    """The number of blocks that cover a length."""
    return -(-length // block)


def next_power_of_2(length: int) -> int:
    """The smallest power of two that is at least `length`."""
    return 1 << max(0, length - 1).bit_length()


def processor_count(device: torch.device) -> int:
    """How many programs a device runs at once; 2 while interpreting, so that partial sums are exercised."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


# --- custom ops -------------------------------------------------------------------------------------------------------


def operator(name: str, *, fake: Callable):
    """Decorate a launcher to become the custom op `quintet::<name>`; `fake` gives its outputs without data.

    The launcher's annotations are the op's schema. It must return fresh tensors and leave its inputs alone. Forward and
    backward are one op each, the first with `register_autograd`. (`custom_op` and not `triton_op`, because the latter
    neither passes opcheck nor compiles under the interpreter, where machines without a GPU test the kernels.)

    The op has no separate CPU implementation: on CPU tensors it runs under the interpreter or not at all, so what
    opcheck sees is the kernel. Public functions send CPU tensors to plain torch, which Inductor can fuse.
    """

    def register(launch: Callable):
        @functools.wraps(launch)
        def on_device_of_inputs(*arguments):
            with torch.cuda.device_of(next(entry for entry in arguments if isinstance(entry, Tensor))):
                return launch(*arguments)

        custom_op = torch.library.custom_op(f"quintet::{name}", on_device_of_inputs, mutates_args=())
        custom_op.register_fake(fake)
        return custom_op

    return register


def autocast(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """Under autocast, the tensors in autocast's dtype; otherwise as they are.

    For matmul-shaped operations. Normalizations and states keep float32 accumulation and their input's dtype, and so
    take no part in autocast.
    """
    device = next(tensor.device.type for tensor in tensors if tensor is not None)
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(tensor.to(dtype) if _can_autocast(tensor) else tensor for tensor in tensors)


def _can_autocast(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.is_floating_point() and tensor.dtype is not torch.float64


# --- backends ---------------------------------------------------------------------------------------------------------

OPERATIONS: dict[str, "Backends"] = {}


@dataclass(frozen=True)
class Backends:
    """The implementations of one operation, which all take the operation's own arguments.

    `reference` is the obvious form and the oracle, `torch` the fast form in plain torch (the reference itself where
    nothing beats it), `triton` calls the custom op. `triton_refuses(*inputs)` says in one phrase why the kernel cannot
    serve the inputs, or None. Everything here looks at static facts (device, dtype, shape), so Dynamo traces it.
    """

    operation: str
    reference: Callable
    torch: Callable
    triton: Callable | None = None
    triton_refuses: Callable[..., str | None] = lambda *inputs, **settings: None

    def __post_init__(self):
        OPERATIONS[self.operation] = self

    def select(self, backend: str | None, *inputs, **settings) -> Callable:
        """The implementation that a backend names; None is Triton on CUDA where it serves the inputs, else torch.

        Raises ValueError for an unknown backend, and for "triton" with inputs it cannot serve, saying why.
        """
        if backend is None:
            if self.triton is None or not any(isinstance(entry, Tensor) and entry.is_cuda for entry in inputs):
                return self.torch
            reason = self.why_not_triton(*inputs, **settings)
            if reason is None:
                return self.triton
            _log_once(f"{self.operation} runs on its torch form: {reason}")
            return self.torch
        if backend == "torch":
            return self.torch
        if backend == "reference":
            return self.reference
        if backend != "triton":
            raise ValueError(
                f"{self.operation}: backend {backend!r} is unknown; choose None, 'reference', 'torch' or 'triton'"
            )
        reason = self.why_not_triton(*inputs, **settings)
        if reason is not None:
            raise ValueError(f"{self.operation}: backend='triton' cannot serve this call: {reason}; leave backend=None")
        return self.triton

    def why_not_triton(self, *inputs, **settings) -> str | None:
        """The reason why Triton cannot serve the inputs, or None."""
        tensors = [entry for entry in (*inputs, *settings.values()) if isinstance(entry, Tensor)]
        if self.triton is None:
            return "no Triton kernel is written for it"
        if triton is None:
            return f"Triton is not available ({_IMPORT_ERROR})"
        for tensor in tensors:
            if tensor.is_floating_point() and tensor.dtype not in TRITON_DTYPES:
                return f"{tensor.dtype} is not supported, only float16, bfloat16 and float32"
            if tensor.device != tensors[0].device:
                return f"inputs are on different devices, {tensors[0].device} and {tensor.device}"
        if not INTERPRETING:
            if tensors[0].device.type != "cuda":
                return f"inputs are on {tensors[0].device}, not on CUDA (TRITON_INTERPRET=1 would interpret the kernel)"
            if not _HAS_COMPILER:
                return "Triton finds no C compiler (install gcc or clang, or set CC)"
            issue = _known_bad(self.operation, tensors[0].device)
            if issue is not None:
                return issue
        return self.triton_refuses(*inputs, **settings)


def _known_bad(operation: str, device: torch.device) -> str | None:
    for entry in KNOWN_BAD:
        if (
            entry.operation == operation
            and entry.first <= TRITON_VERSION < entry.fixed
            and torch.cuda.get_device_capability(device) == entry.capability
        ):
            return f"Triton {triton.__version__} compiles it wrongly on this GPU ({entry.issue})"
    return None


@functools.cache
def _log_once(message: str) -> None:
    _logger.warning(message)


# What torch.compiler.assume_constant_result sets, which would import Dynamo (0.8 s): it then runs the function once
# while tracing instead of breaking the graph.
_log_once._dynamo_marked_constant = True


def import_operations() -> list[ModuleType]:
    """Import every operation file of this package, so that `OPERATIONS` is complete."""
    names = (entry.name for entry in pkgutil.iter_modules(importlib.import_module(__package__).__path__))
    return [importlib.import_module(f".{name}", __package__) for name in names if not name.startswith("_")]


def explain(operation: str, *inputs, **settings) -> str:
    """Say for each backend of an operation whether it serves these inputs, and if not, why.

    `print(explain("rms_norm", x, weight))`. Raises ValueError for an unknown operation, naming the nearest.
    """
    import_operations()
    if operation not in OPERATIONS:
        near = ", ".join(difflib.get_close_matches(operation, OPERATIONS, n=3)) or ", ".join(sorted(OPERATIONS))
        raise ValueError(f"explain: there is no operation {operation!r}; nearest: {near}")
    backends = OPERATIONS[operation]
    reason = backends.why_not_triton(*inputs, **settings)
    chosen = backends.triton if backends.select(None, *inputs, **settings) is backends.triton else backends.torch
    lines = {
        "triton": "serves this call" if reason is None else f"refuses: {reason}",
        "torch": "serves this call" + (" (the same as reference)" if backends.torch is backends.reference else ""),
        "reference": "serves this call",
    }
    default = "triton" if chosen is backends.triton else "torch"
    return "\n".join(
        f"{operation}  {name}: {line}{'; the default here' if name == default else ''}" for name, line in lines.items()
    )
