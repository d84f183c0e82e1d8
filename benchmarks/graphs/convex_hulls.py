"""Whole convex hulls that a pointer network finds in sets of random points, beside the figures of its paper.

    OMP_NUM_THREADS=1 python benchmarks/graphs/convex_hulls.py [--encoder lstm] [--seconds 300] [--points 10]

The network is trained for so many CPU seconds on sets that are drawn as they are needed, uniform in the unit square,
each once; its rate falls to zero in that time. The best state by sets drawn for validation is measured on others again,
drawn for the test: three generators of random numbers apart. Hulls are told counter-clockwise from the leftmost point
(the paper: from the first in the list, which a set does not have). Whole: the same members in the same cyclic order.
Area: of the polygon told, relative to the hull's, mean over those that are polygons; what crosses itself is counted
apart, as the paper does.
"""

import argparse
import copy
import time
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Batch

from quintet.core.blocks import Encoder
from quintet.graphs.models.pointer_network import LSTMEncoder, PointerNetwork

SEEDS = {"train": 1, "validate": 2, "test": 3}
SETS = {"validate": 2000, "test": 10000}
BATCH, EVERY = 256, 200  # sets a step, steps from one validation to the next
ENCODERS = {"set": partial(Encoder, depth=3), "lstm": LSTMEncoder}
# "Pointer Networks", Table 1.
PAPER = """| paper, LSTM encoder, trained on 5 to 50 points | 10 | 87.0% | 99.8% | - |
| paper, LSTM encoder, trained on 50 points | 50 | 72.6% | 99.9% | - |"""


class Hulls(NamedTuple):
    """How many hulls are whole, the mean share of the area, and how many are no polygons."""

    whole: float
    area: float
    crossing: float


def hulls_of(points: Tensor) -> Tensor:
    """Members of each set's hull, counter-clockwise from the leftmost, -1 behind the end.

    From i to j is an edge of the hull where all others lie to the left of it.
    """
    double = points.double()
    to = double.unsqueeze(1) - double.unsqueeze(2)  # (sets, i, j)
    turn = to[..., 0].unsqueeze(3) * to[..., 1].unsqueeze(2) - to[..., 1].unsqueeze(3) * to[..., 0].unsqueeze(2)
    same = torch.eye(points.shape[1], dtype=torch.bool)
    edge = ((turn > 0) | same.unsqueeze(0) | same.unsqueeze(1)).all(3) & ~same
    following, first = edge.long().argmax(2), double[..., 0].argmin(1, keepdim=True)
    members = [first]
    for _ in range(points.shape[1] - 1):
        members.append(following.gather(1, members[-1]))
    told = torch.cat(members, 1)
    ended = ((told == first) & (torch.arange(points.shape[1]) > 0)).cumsum(1) > 0
    told = told.masked_fill(ended, -1)
    return told[:, : int((told >= 0).sum(1).max())]


def drawn(sets: int, points: int, generator: torch.Generator) -> tuple[Batch, Tensor]:
    clouds = torch.rand(sets, points, 2, generator=generator)
    batch = Batch(positions=clouds.flatten(0, 1), ptr=torch.arange(sets + 1) * points)
    return batch, torch.nn.functional.pad(hulls_of(clouds), (0, points), value=-1)[:, :points]


def area(corners: Tensor) -> float:
    x, y = corners.double().T
    return 0.5 * float((x * y.roll(-1) - y * x.roll(-1)).sum())


def crosses(corners: Tensor) -> bool:
    """Whether two edges of a polygon that have no corner in common meet."""
    start, end, count = corners.double(), corners.double().roll(-1, 0), len(corners)

    def side(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return (b - a)[..., 0] * (c - a)[..., 1] - (b - a)[..., 1] * (c - a)[..., 0]

    a, b, c, d = start.unsqueeze(1), end.unsqueeze(1), start.unsqueeze(0), end.unsqueeze(0)
    meet = (side(a, b, c) * side(a, b, d) < 0) & (side(c, d, a) * side(c, d, b) < 0)
    number = torch.arange(count)
    apart = (number.unsqueeze(1) - number).abs()
    return bool((meet & (apart > 1) & (apart < count - 1)).any())


def measured(network: PointerNetwork, batch: Batch, hulls: Tensor, beams: int) -> Hulls:
    network.eval()
    sets = batch.positions.unflatten(0, (len(hulls), -1))
    whole, areas, crossing = 0, [], 0
    for part in torch.arange(len(hulls)).split(1000):
        points = sets[part]
        told = network.select(
            Batch(positions=points.flatten(0, 1), ptr=torch.arange(len(part) + 1) * sets.shape[1]), beams
        ).index
        for cloud, found, true in zip(points, told, hulls[part]):
            found, true = found[found >= 0].tolist(), true[true >= 0].tolist()
            start = found.index(true[0]) if true[0] in found else 0
            whole += found[start:] + found[:start] == true
            if len(found) < 3 or crosses(cloud[found]):
                crossing += 1
            else:
                areas.append(abs(area(cloud[found])) / area(cloud[true]))
    return Hulls(whole / len(hulls), sum(areas) / max(len(areas), 1), crossing / len(hulls))


def trained(network: PointerNetwork, points: int, seconds: float, rate: float) -> PointerNetwork:
    """The best state by validation of a training that takes so many CPU seconds, drawing and validating included."""
    generators = {part: torch.Generator().manual_seed(seed) for part, seed in SEEDS.items()}
    validation = drawn(SETS["validate"], points, generators["validate"])
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.01)
    best, kept, step, began = -1.0, copy.deepcopy(network), 0, time.process_time()
    while (spent := (time.process_time() - began) / seconds) < 1:
        optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 200) * (1 - spent)
        loss = network.train().loss(*drawn(BATCH, points, generators["train"]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if step % EVERY == 0:
            found = measured(network, *validation, 1)
            print(
                f"{step * BATCH:9,} sets, {spent * seconds:4.0f} s: {found.whole:.3f} whole, loss {loss:.4f}",
                flush=True,
            )
            if found.whole > best:
                best, kept = found.whole, copy.deepcopy(network)
    print(f"{step * BATCH:,} sets in {time.process_time() - began:.0f} CPU seconds")
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", choices=ENCODERS, default="set")
    parser.add_argument("--points", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=290.0)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3)
    options = parser.parse_args()
    torch.manual_seed(0)
    network = PointerNetwork(dim=options.dim, encoder=ENCODERS[options.encoder])
    network = trained(network, options.points, options.seconds, options.rate)
    test = drawn(SETS["test"], options.points, torch.Generator().manual_seed(SEEDS["test"]))
    print("| network | points | whole | area | crossing |\n|---|---|---|---|---|")
    for beams in (1, 4):
        found = measured(network, *test, beams)
        print(
            f"| here, {options.encoder} encoder, {options.seconds:.0f} CPU seconds, {beams} beams | {options.points} | "
            f"{found.whole:.1%} | {found.area:.2%} | {found.crossing:.2%} |"
        )
    print(PAPER)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
