"""Time of neighborhood attention's torch form against the gather reference on the CPU.

    OMP_NUM_THREADS=2 python benchmarks/neighborhood_attention.py [--repeats 15]

The backends take turns within each repeat, so that what else the machine does falls on both, and the medians are shown.
Training is the forward with the backward. The error is the largest of the output and of all gradients, relative to the
reference in float64; figures of a form that is not within its tolerance are not shown but refused.
"""

import argparse
from functools import partial

import torch
from rich.console import Console
from rich.table import Table

from quintet.kernels._spec import benchmark
from quintet.kernels.neighborhood_attention import SPEC


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()

    table = Table(title=f"neighborhood attention, float32, {torch.get_num_threads()} threads")
    table.add_column("grid", no_wrap=True)
    for heading in ("gather ms", "torch ms", "ratio", "training: gather ms", "torch ms", "ratio", "error"):
        table.add_column(heading, justify="right")
    forms = {name: partial(SPEC.function, backend=name) for name in ("reference", "torch")}
    rows = benchmark(SPEC, forms, repeats=arguments.repeats)
    for gather, tiled in zip(rows, rows):  # two successive measurements are one case
        table.add_row(
            gather.case,
            f"{gather.forward:.1f}",
            f"{tiled.forward:.1f}",
            f"{gather.forward / tiled.forward:.1f}x",
            f"{gather.training:.1f}",
            f"{tiled.training:.1f}",
            f"{gather.training / tiled.training:.1f}x",
            f"{tiled.error:.0e}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
