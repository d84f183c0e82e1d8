"""Times of things that take turns, so that what else the machine does falls on all of them."""

import statistics
import time
from collections.abc import Callable, Sequence


def take_turns(sides: Sequence[Callable[[], object]], rounds: int, warm_up: int = 2) -> list[list[tuple[float, float]]]:
    """(wall, processor) milliseconds of every call of each side, in alternating order."""
    times = [[] for _ in sides]
    for turn in range(warm_up + rounds):
        order = range(len(sides)) if turn % 2 else reversed(range(len(sides)))
        for side in order:
            wall, processor = time.perf_counter(), time.process_time()
            sides[side]()
            if turn >= warm_up:
                times[side].append((1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - processor)))
    return times


def report(what: str, names: Sequence[str], times: Sequence[Sequence[tuple[float, float]]]) -> None:
    """Prints the medians of two sides, and the median of the first over the second within each round."""
    for clock, kind in enumerate(("wall", "processor")):
        calls = [[call[clock] for call in side] for side in times]
        sides = ", ".join(f"{name} {statistics.median(side):.1f} ms" for name, side in zip(names, calls))
        ratio = statistics.median(ours / theirs for ours, theirs in zip(*calls))
        print(f"{what}, {kind} time: {sides}, ratio {ratio:.3f} (of the fastest {min(calls[0]) / min(calls[1]):.3f})")
