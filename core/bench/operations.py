"""`quintet bench kernels`: every operation against its floor, its reference, the compiler and installed peers.

The floor of a pass is the larger of its bytes over the copy bandwidth and its flops over the matmul rate, both measured
in the same run. An operation whose correctness check fails is not timed.
"""

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.box import SIMPLE
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from ...kernels._runtime import INTERPRETING, TRITON_VERSION
from ...kernels._spec import Cost, Measurement, OpSpec, benchmark, errors, list_specs
from ..errors import QuintetError, nearest
from ..pictures.palette import BLUE, VERMILION
from ..run.run_folder import new_run_folder
from ..writing.console import Console
from ..writing.files import refuse_existing, written_whole
from .peers import Peer, all_peers, peers_of


@dataclass(frozen=True)
class Machine:
    """What the measurements were made on: names, versions, threads, bytes and flops a second."""

    device: str
    torch: str
    triton: str
    threads: int
    dtype: str
    bandwidth: float
    matmul_rate: float

    def floor(self, cost: Cost) -> float:
        """Milliseconds that a pass cannot go below."""
        return 1e3 * max(cost.bytes / self.bandwidth, cost.flops / self.matmul_rate)


def bench_kernels(
    operations: Sequence[str] = (),
    output: str | Path | None = None,
    dtype: str = "float32",
    compile: bool = True,
    repeats: int = 15,
) -> Path:
    """Times operations (all of them by default), prints a table, and writes results.json, .md and .png into a folder.

    Raises QuintetError for an unknown operation or dtype.
    """
    specs = list_specs()
    for name in operations:
        if name not in specs:
            raise QuintetError(f"no operation is called '{name}'; {nearest(name, specs)}")
    if dtype not in ("float32", "float16", "bfloat16"):
        raise QuintetError(f"dtype is {dtype}; choose float32, float16 or bfloat16")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    machine = measure_machine(device, getattr(torch, dtype))
    console = Console()
    console.print(
        f"{machine.device}, torch {machine.torch}, triton {machine.triton}, {machine.threads} threads, {dtype}: "
        f"copy {machine.bandwidth / 1e9:.1f} GB/s, matmul {machine.matmul_rate / 1e9:.0f} GFLOP/s"
    )
    if not all_peers():
        console.print(
            "note: published implementations are timed from a checkout of the repository (benchmarks/peers.py)"
        )
    measured: list[Measurement] = []
    for name in track(list(operations) or list(specs), "timing", transient=True, console=console):
        try:
            measured += _measure(specs[name], device, getattr(torch, dtype), compile, repeats, console.print)
        except ValueError as error:
            console.print(f"[red]not timed[/red]: {error}")
    rows = [_row(result, machine, measured) for result in measured]
    console.print(_table(rows))
    folder = Path(output) if output else new_run_folder("bench")
    content = json.dumps({"machine": asdict(machine), "results": rows}, indent=1) + "\n"
    writers = {
        "results.json": lambda path: path.write_text(content, encoding="utf-8"),
        "results.md": lambda path: path.write_text(markdown(machine, rows), encoding="utf-8"),
        "results.png": lambda path: picture(rows).savefig(path, dpi=110),
    }
    for file in writers:
        refuse_existing(folder / file, "output=FOLDER")
    for file, write in writers.items():
        with written_whole(folder / file, remedy="give another output=FOLDER") as partial:
            write(partial)
    console.print(f"folder: {folder}")
    return folder


def measure_machine(device: torch.device, dtype: torch.dtype) -> Machine:
    """Copy bandwidth (bytes read and written) and matmul rate of a device, the best of several tries."""
    elements = 2**28 if device.type == "cuda" else 2**25
    source = torch.zeros(elements, dtype=dtype, device=device)
    target = torch.empty_like(source)
    copied = min(_seconds(lambda: target.copy_(source), device) for _ in range(8))
    size = 8192 if device.type == "cuda" else 1024
    matrix = torch.randn(size, size, dtype=dtype, device=device)
    multiplied = min(_seconds(lambda: matrix @ matrix, device) for _ in range(8))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    return Machine(
        device=name,
        torch=torch.__version__,
        triton=".".join(map(str, TRITON_VERSION)) or "absent",
        threads=torch.get_num_threads(),
        dtype=str(dtype).removeprefix("torch."),
        bandwidth=2 * elements * source.itemsize / copied,
        matmul_rate=2 * size**3 / multiplied,
    )


def processor_name() -> str:
    """The processor's name, where the system tells it, else its architecture."""
    information = Path("/proc/cpuinfo")
    for line in information.read_text().splitlines() if information.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def markdown(machine: Machine, rows: Sequence[dict[str, Any]]) -> str:
    """The results as a Markdown table, with what they were measured on."""
    lines = [
        f"Measured on {machine.device} with {machine.threads} threads, torch {machine.torch}, triton {machine.triton}, "
        f"{machine.dtype}; copy {machine.bandwidth / 1e9:.1f} GB/s, matmul {machine.matmul_rate / 1e9:.0f} GFLOP/s. "
        "Times are medians in ms, forward and forward with backward; `x` is how many times faster than the reference.",
        "",
        "| operation | case | implementation | forward | of floor | x | training | of floor | x | error |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['operation']} | {row['case']} | {row['implementation']} | {row['forward']:.3g} | "
            f"{row['forward_of_floor']:.0%} | {row['forward_ratio']:.2f} | {_or_dash(row['training'], '.3g')} | "
            f"{_or_dash(row['training_of_floor'], '.0%')} | {_or_dash(row['training_ratio'], '.2f')} | "
            f"{row['error']:.0e} |"
        )
    return "\n".join(lines) + "\n"


def picture(rows: Sequence[dict[str, Any]]) -> Figure:
    """Speed over the reference of every implementation, forward and with backward, one panel a case."""
    cases = list(dict.fromkeys((row["operation"], row["case"]) for row in rows))
    columns = min(4, max(1, len(cases)))
    lines = -(-max(1, len(cases)) // columns)
    figure = Figure(figsize=(4.2 * columns, 1.9 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel, (operation, case) in zip(panels, cases, strict=False):
        found = [row for row in rows if (row["operation"], row["case"]) == (operation, case)]
        names = [row["implementation"] for row in found]
        places = range(len(found))
        panel.barh([p - 0.2 for p in places], [row["forward_ratio"] for row in found], 0.4, color=BLUE)
        training = [row["training_ratio"] or 0 for row in found]
        panel.barh([p + 0.2 for p in places], training, 0.4, color=VERMILION)
        panel.set_yticks(list(places), names, fontsize=8)
        panel.axvline(1, color="0.6", linewidth=0.8)
        panel.invert_yaxis()
        panel.set_title(f"{operation}: {case}", fontsize=8)
        panel.tick_params(axis="x", labelsize=7)
    for panel in panels[len(cases) :]:
        panel.set_axis_off()
    figure.suptitle("times faster than the reference: forward (blue), forward and backward (orange)", fontsize=10)
    return figure


def _measure(
    spec: OpSpec, device: torch.device, dtype: torch.dtype, compile: bool, repeats: int, say: Callable[[str], None]
) -> list[Measurement]:
    """Our forms and the peers of each case. A peer that cannot do it, or is wrong, is left out; `say` is told why."""

    def backend(name: str) -> Callable:
        return lambda **inputs: spec.function(**inputs, backend=name)

    ours = {"reference": backend("reference"), "torch": backend("torch")}
    if spec.backends.torch is spec.backends.reference:
        del ours["torch"]
    if compile:
        ours["torch.compile"] = torch.compile(backend("torch"), fullgraph=True)
    if spec.backends.triton is not None and device.type == "cuda" and not INTERPRETING:
        ours["triton"] = backend("triton")
    measured: list[Measurement] = []
    for case, make in spec.benchmarks.items():
        one = replace(spec, benchmarks={case: make})
        peers = {}
        for peer in peers_of(spec.name, device):
            reason = _refusal(one, peer, case, device, dtype)
            if reason is None:
                peers[peer.name] = peer
            else:
                say(f"not timed: {spec.name}, {case}, {peer.name}: {reason}")
        implementations = ours | {name: peer.function for name, peer in peers.items()}
        forward_only = [name for name, peer in peers.items() if device.type in peer.forward_only]
        measured += benchmark(
            one, implementations, forward_only=forward_only, device=device, dtype=dtype, repeats=repeats
        )
    return measured


def _refusal(spec: OpSpec, peer: Peer, case: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a peer is not timed on a case, in one line, or None."""
    checked = replace(spec, differentiable=()) if device.type in peer.forward_only else spec
    try:
        worst = torch.tensor([*errors(checked, peer.function, case, dtype, device=device).values()]).max().item()
    except Exception as error:  # another project's code, of any version: whatever it raises must not end the run
        return f"{type(error).__name__}: {error}".strip().splitlines()[0]
    tolerance = 4 * spec.tolerance("triton", dtype)
    return None if worst <= tolerance else f"wrong by {worst:.1e}, more than {tolerance:.1e}"


def _row(result: Measurement, machine: Machine, measured: Sequence[Measurement]) -> dict[str, Any]:
    """A measurement with its share of the floor and its ratio to the reference on the same case; None where untimed."""
    reference = next(
        other
        for other in measured
        if (other.operation, other.case, other.implementation) == (result.operation, result.case, "reference")
    )
    forward, backward = (machine.floor(cost) for cost in result.floor)
    trained = result.training == result.training  # not NaN
    return {
        "operation": result.operation,
        "case": result.case,
        "implementation": result.implementation,
        "forward": result.forward,
        "forward_of_floor": forward / result.forward,
        "forward_ratio": reference.forward / result.forward,
        "training": result.training if trained else None,
        "training_of_floor": (forward + backward) / result.training if trained else None,
        "training_ratio": reference.training / result.training if trained else None,
        "error": result.error,
    }


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="milliseconds, share of the floor, times faster than the reference", box=SIMPLE, padding=(0, 1))
    table.add_column("implementation", min_width=24)
    for column in ("forward", "of floor", "x", "training", "of floor", "x", "error"):
        table.add_column(column, justify="right")
    shown = None
    for row in rows:
        if shown != (shown := (row["operation"], row["case"])):
            table.add_section()
            table.add_row(f"[bold]{row['operation']}[/bold]\n{escape(row['case'])}")
        table.add_row(
            f"  {row['implementation']}",
            f"{row['forward']:.3g}",
            f"{row['forward_of_floor']:.0%}",
            f"{row['forward_ratio']:.2f}",
            _or_dash(row["training"], ".3g"),
            _or_dash(row["training_of_floor"], ".0%"),
            _or_dash(row["training_ratio"], ".2f"),
            f"{row['error']:.0e}",
        )
    return table


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _seconds(run: Callable, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return perf_counter() - start
