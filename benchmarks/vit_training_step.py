"""Time of a training step of our ViT-Ti/16 against timm's, and of NAT-Mini's forward against the gather form.

    OMP_NUM_THREADS=2 python benchmarks/vit_training_step.py [--rounds 15] [--batch 16] [--size 224]

A step is forward, cross entropy, backward and AdamW, from the same weights on the same images. The two sides take turns
within each round, in alternating order, so that what else the machine does falls on both; the ratio is the median of
those of the rounds. Processor time adds up the threads and is the steadier figure on a busy machine.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quintet.core.attention import neighborhood
from quintet.core.pretrained import load_weights
from quintet.kernels.neighborhood_attention import neighborhood_attention
from quintet.vision.models.nat import nat_mini
from quintet.vision.models.vit import vit_tiny


def take_turns(sides: Sequence[Callable[[], object]], rounds: int, warm_up: int = 3) -> list[list[tuple[float, float]]]:
    """(wall, processor) milliseconds of every call of each side, the sides taking turns."""
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


def training_step(model: nn.Module, images: Tensor, targets: Tensor) -> Callable[[], float]:
    """One step of `model` as a function without arguments; it returns the loss."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-4)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(images), targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def compare_vit(rounds: int, batch: int, size: int) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=size)
    ours = vit_tiny(image_size=size)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(theirs.state_dict(), Path(folder) / "weights.pth")
        load_weights(ours, Path(folder) / "weights.pth")
    images, targets = torch.randn(batch, 3, size, size), torch.randint(1000, (batch,))
    steps = [training_step(model, images, targets) for model in (ours, theirs)]
    losses = [step() for step in steps]
    print(f"first losses: ours {losses[0]:.6f}, timm {losses[1]:.6f}")
    report("vit_tiny training step", ("quintet", "timm"), take_turns(steps, rounds))


def compare_nat(rounds: int, batch: int, size: int) -> None:
    model = nat_mini().eval()
    images = torch.randn(batch, 3, size, size)

    def forward(attention: Callable) -> Callable[[], Tensor]:
        def call() -> Tensor:
            neighborhood.neighborhood_attention = attention
            try:
                with torch.inference_mode():
                    return model(images)
            finally:
                neighborhood.neighborhood_attention = neighborhood_attention

        return call

    sides = forward(neighborhood_attention), forward(partial(neighborhood_attention, backend="reference"))
    difference = (sides[0]() - sides[1]()).norm() / sides[1]().norm()
    print(f"relative difference of the two forms: {difference:.1e}")
    report("nat_mini forward", ("quintet", "gather"), take_turns(sides, rounds))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, timm {timm.__version__}, {torch.get_num_threads()} threads")
    compare_vit(options.rounds, options.batch, options.size)
    compare_nat(max(3, options.rounds // 3), max(1, options.batch // 8), options.size)
