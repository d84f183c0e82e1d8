"""How many times faster the operations' torch forms are than the obvious forms, on the CPU, all in one run.

    OMP_NUM_THREADS=2 python benchmarks/cpu_ratios.py [--repeats 5] [--output benchmarks/results]

Each operation is compared with what one would write without it: a gather, a loop over the steps, a dense mask. The two
take turns within each repeat, so that what else the machine does falls on both, and medians are compared. Training is
the forward with the backward. Nothing is timed that is wrong: outputs and gradients are compared with the reference in
float64 first. Writes cpu_ratios.json and cpu_ratios.md.
"""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from quintet.core.bench.operations import processor_name
from quintet.core.bench_peers import masked_segment_attention, tirex_slstm
from quintet.kernels._runtime import TRITON_VERSION
from quintet.kernels._spec import OpSpec, benchmark, list_specs
from quintet.kernels.slstm import SLSTMState


@dataclass(frozen=True)
class Comparison:
    """An operation on one of its benchmark cases against a baseline; None for the operation's own reference."""

    operation: str
    case: str
    baseline: str
    function: Callable | None = None
    forward: float = math.nan  # the ratios that are asked for
    training: float = math.nan
    forward_only: bool = False
    tolerance: float | None = None  # of a baseline that rounds


def slstm_cells(
    x: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor | None = None,
    initial_state: SLSTMState | None = None,
    forget_gate: str = "sigmoid",
) -> tuple[Tensor, SLSTMState]:
    """A cell of plain torch operations for each step, in a Python loop."""
    (batch, _, _, heads, head_dim), weight = x.shape, recurrent_weight.flatten(2)
    bias = 0.0 if bias is None else bias
    if initial_state is None:
        c = n = h = m = x.new_zeros(batch, heads, head_dim)
    else:
        c, n, h, m = initial_state
    outputs = []
    for step, gates in enumerate(x.unbind(1)):
        mixed = torch.matmul(h.unsqueeze(2), weight).view(batch, heads, 4, head_dim).transpose(1, 2)
        i, f, z, o = (gates + mixed + bias).unbind(1)
        kept = F.logsigmoid(f) + m
        largest = i if step == 0 and initial_state is None else torch.maximum(i, kept)
        keep, write = torch.exp(kept - largest), torch.exp(i - largest)
        c, n, m = keep * c + write * torch.tanh(z), keep * n + write, largest
        h = torch.sigmoid(o) * c / n
        outputs.append(h)
    return torch.stack(outputs, 1), SLSTMState(c, n, h, m)


def tirex_as_shipped(x: Tensor, recurrent_weight: Tensor, bias: Tensor | None = None, **settings):
    """TiRex rounds inputs, weights and, at each step, its states to bfloat16."""
    inputs, weight = x.bfloat16(), recurrent_weight.bfloat16()
    y, state = tirex_slstm(inputs, weight, bias, **settings)
    return y.to(x.dtype), state


SLSTM = "batch 16, 64 steps, 4 heads of 128"
COMPARISONS = [
    Comparison("neighborhood_attention", "56x56, window 7", "gather", forward=3, training=5),
    Comparison("gated_linear_attention", "2x1024, 4 heads of 64", "recurrence", forward=4, training=15),
    Comparison("delta_rule", "1024 steps, 4 heads of 64", "recurrence", forward=4, training=10),
    Comparison("selective_scan", "2x1024 dim 128, 16 states", "sequential loop", forward=1.5, training=1.5),
    Comparison("slstm", SLSTM, "loop of torch cells", slstm_cells, forward=4),
    Comparison("slstm", SLSTM, "tirex-ts' torch cell in float32", tirex_slstm, forward=4),
    # Its gradients are off by a tenth, so that only the forward is compared.
    Comparison(
        "slstm", SLSTM, "tirex-ts' torch cell as shipped", tirex_as_shipped, 4, tolerance=1.6e-2, forward_only=True
    ),
    Comparison("fft_conv", "1x2048 dim 64", "direct convolution", forward=15),
    Comparison("fft_conv", "4x2048 dim 64", "direct convolution", forward=15),
    Comparison("segment_attention", "48 graphs", "one masked SDPA", masked_segment_attention, forward=5),
]


def compare(comparison: Comparison, spec: OpSpec, repeats: int) -> dict[str, float | str]:
    """Milliseconds of both, their ratios, the ratios asked for, and the operation's error."""

    def backend(name: str) -> Callable:
        return lambda **inputs: spec.function(**inputs, backend=name)

    one = replace(spec, cases={}, large_cases={}, benchmarks={comparison.case: spec.benchmarks[comparison.case]})
    if comparison.tolerance:
        one = replace(one, tolerances={"triton": {torch.float32: comparison.tolerance}})
    if comparison.forward_only:
        one = replace(one, differentiable=())
    forms = {"baseline": comparison.function or backend("reference"), "quintet": backend("torch")}
    baseline, ours = benchmark(one, forms, forward_only=forms if comparison.forward_only else (), repeats=repeats)
    return {
        "operation": comparison.operation,
        "case": comparison.case,
        "baseline": comparison.baseline,
        "baseline_forward": baseline.forward,
        "forward": ours.forward,
        "forward_ratio": baseline.forward / ours.forward,
        "forward_asked": comparison.forward,
        "baseline_training": baseline.training,
        "training": ours.training,
        "training_ratio": baseline.training / ours.training,
        "training_asked": comparison.training,
        "error": ours.error,
    }


HEADINGS = ("operation", "case", "against", "forward ms", "x", "asked", "training ms", "x", "asked", "error")


def cells(row: dict[str, float | str]) -> list[str]:
    def times(before: float, after: float) -> str:
        return "-" if math.isnan(after) else f"{before:.3g} -> {after:.3g}"

    def number(value: float, form: str) -> str:
        return "-" if math.isnan(value) else format(value, form)

    return [
        row["operation"],
        row["case"],
        row["baseline"],
        times(row["baseline_forward"], row["forward"]),
        number(row["forward_ratio"], ".1f"),
        number(row["forward_asked"], "g"),
        times(row["baseline_training"], row["training"]),
        number(row["training_ratio"], ".1f"),
        number(row["training_asked"], "g"),
        number(row["error"], ".0e"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()

    specs, rows, console = list_specs(), [], Console(width=180)
    for comparison in COMPARISONS:
        if comparison.function in (tirex_slstm, tirex_as_shipped) and find_spec("tirex") is None:
            console.print(f"not compared with {comparison.baseline}: tirex-ts is not installed")
            continue
        rows.append(compare(comparison, specs[comparison.operation], options.repeats))
        console.print("  ".join(cells(rows[-1])))

    machine = {
        "device": processor_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "triton": ".".join(map(str, TRITON_VERSION)) or "absent",
        "dtype": "float32",
    }
    table = Table(*HEADINGS, title=", ".join(f"{name} {value}" for name, value in machine.items()))
    for row in rows:
        table.add_row(*cells(row))
    console.print(table)

    options.output.mkdir(parents=True, exist_ok=True)
    finite = [
        {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
        for row in rows
    ]
    results = json.dumps({"machine": machine, "results": finite}, indent=1)
    (options.output / "cpu_ratios.json").write_text(results + "\n")
    lines = [
        f"Measured on {machine['device']} with {machine['threads']} threads, torch {machine['torch']}, triton "
        f"{machine['triton']} (not used), float32, by `OMP_NUM_THREADS=2 python benchmarks/cpu_ratios.py`, in one run. "
        "Times are medians; training is the forward with the backward; `x` is how many times faster the torch form is, "
        "`asked` what the project set out to reach; the error is relative to the reference in float64.",
        "",
        f"| {' | '.join(HEADINGS)} |",
        f"|{'---|' * len(HEADINGS)}",
        *(f"| {' | '.join(cells(row))} |" for row in rows),
    ]
    (options.output / "cpu_ratios.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
