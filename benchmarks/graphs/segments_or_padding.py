"""Attention among the nodes of graphs: padded, packed in segments, or linear; by size of graphs and share of padding.

    OMP_NUM_THREADS=1 python benchmarks/graphs/segments_or_padding.py [--output benchmarks/results/segments_or_padding]

Processor milliseconds of forward and backward of a mixer of width 64 with 4 heads, on one thread, the fastest of some
turns. First equal graphs of 10 to 2,000 nodes, about 2,000 nodes a batch. Then batches of 32 graphs of which one is
larger than the others, so that padding computes ever more scores than there are: "rule" is what `padded_is_faster`
chooses. Writes a table and a picture.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from quintet.core.attention import LinearAttention
from quintet.core.mixer import Mixer
from quintet.core.pictures.palette import DISTINCT
from quintet.graphs.models import GraphAttention
from quintet.graphs.models.attention import padded_is_faster
from quintet.graphs.models.padding import padding_of

DIM, HEADS, NODES = 64, 4, 2000
SIZES = (10, 20, 50, 100, 200, 500, 1000, 2000)
LARGE = ((20, 20), (20, 40), (20, 60), (20, 100), (20, 200), (20, 500), (100, 100), (100, 200), (100, 500), (100, 1500))


def sides(counts: Sequence[int]) -> dict[str, Callable[[], Tensor]]:
    """Forward and backward of each way, for graphs of so many nodes."""
    torch.manual_seed(0)
    borders = torch.tensor([0, *counts]).cumsum(0)
    x = torch.randn(int(borders[-1]), DIM, requires_grad=True)
    attention, linear = GraphAttention(DIM, HEADS), LinearAttention(DIM, num_heads=HEADS)

    def step(mixer: Mixer, padded: bool) -> Tensor:
        given = {"padding": padding_of(borders, len(x))} if padded else {}
        y = mixer.forward_packed(x, borders, **given)
        y.backward(torch.ones_like(y))
        return y

    ways = {"padded": (attention, True), "segments": (attention, False), "linear": (linear, False)}
    return {name: partial(step, *way) for name, way in ways.items()}


def milliseconds(counts: Sequence[int], turns: int) -> dict[str, float]:
    """Of each way, which take turns."""
    calls, best = sides(counts), {}
    for turn in range(turns + 1):
        for name, call in calls.items():
            began = time.process_time()
            call()
            if turn:
                best[name] = min(best.get(name, float("inf")), 1000 * (time.process_time() - began))
    return best


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---:"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(times: dict[int, dict[str, float]], path: Path) -> None:
    """Cost a node against the size of a graph."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, colour in zip(("padded", "segments", "linear"), DISTINCT):
        axes.plot(list(times), [1000 * each[name] / NODES for each in times.values()], "o-", color=colour, label=name)
    axes.set(xscale="log", yscale="log", xlabel="nodes of a graph", ylabel="processor microseconds a node")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    by_size, rows, wrong = {}, [], 0
    for size in SIZES:
        by_size[size] = milliseconds([size] * (NODES // size), options.turns)
    first = table(
        ["nodes", "padded", "segments", "linear"],
        [[str(s), *(f"{t:.1f}" for t in e.values())] for s, e in by_size.items()],
    )
    for small, large in LARGE:
        counts = [small] * 31 + [large]
        found = milliseconds(counts, options.turns)
        chosen = "padded" if padded_is_faster(counts) else "segments"
        share = 32 * large**2 / sum(count**2 for count in counts)
        wrong += found[chosen] > 1.2 * min(found["padded"], found["segments"])
        rows.append(
            [f"31 x {small}, {large}", f"{share:.1f}", *(f"{found[n]:.1f}" for n in ("padded", "segments")), chosen]
        )
    second = table(["graphs", "scores padded / needed", "padded", "segments", "rule"], rows)
    print(first, second, f"the rule costs a fifth more than the best in {wrong} of {len(rows)}", sep="\n\n")
    if options.output:
        about = "Processor milliseconds on one thread (benchmarks/graphs/segments_or_padding.py)."
        text = "\n\n".join(["# Padding or segments", about, first, second])
        options.output.with_suffix(".md").write_text(f"{text}\n", encoding="utf-8")
        draw(by_size, options.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
