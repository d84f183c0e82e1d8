"""Time of ViT-Ti, NAT-Mini and MiT-B0 against timm, natten and transformers on the CPU, all in one run.

    OMP_NUM_THREADS=2 python benchmarks/vision_models.py [--rounds 7] [--size 224] [--only vit nat mit]

Each pair has the same weights and sees the same images, and nothing is timed whose outputs differ by more than 1e-4. A
training step is forward, cross entropy, backward and AdamW. The two sides take turns within each round, in alternating
order, so that what else the machine does falls on both; a speed-up is the median of those of the rounds, and below 1
ours is the slower one. Processor time adds up the threads and is the steadier figure on a busy machine.

NAT-Mini is compared twice: with its relative position bias against the gather that defines it (natten has dropped the
bias), and without it against natten's own attention, which on the CPU has no gradients. A peer that is not installed
is left out and named.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F
from turns import take_turns

from quintet.core.attention import NeighborhoodAttention
from quintet.core.attention.local import neighborhood
from quintet.core.weights.pretrained import load_weights
from quintet.kernels.neighborhood_attention import neighborhood_attention
from quintet.vision.models.nat import nat_mini
from quintet.vision.models.segformer import mit_b0
from quintet.vision.models.vit import vit_tiny

TOLERANCE = 1e-4  # relative difference of the outputs


@dataclass(frozen=True)
class Pair:
    """Two networks with the same weights: functions from images to scores, and whether the other one can train."""

    name: str
    peer: str
    ours: nn.Module
    theirs: nn.Module
    batch: int
    trains: bool = True


class WithAttention(nn.Module):
    """A network whose neighborhood attention is computed by another function."""

    def __init__(self, network: nn.Module, attention: Callable) -> None:
        super().__init__()
        self.network, self.attention = network, attention

    def forward(self, images: Tensor) -> Tensor:
        with replaced(self.attention):
            return self.network(images)


class Scores(nn.Module):
    """The scores of a network of transformers."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images).logits


@contextmanager
def replaced(attention: Callable) -> Iterator[None]:
    neighborhood.neighborhood_attention = attention
    try:
        yield
    finally:
        neighborhood.neighborhood_attention = neighborhood_attention


def with_weights_of(theirs: nn.Module, ours: nn.Module) -> nn.Module:
    """Our network with the weights of theirs, through the file a user would load."""
    with tempfile.TemporaryDirectory() as folder:
        torch.save(theirs.state_dict(), Path(folder) / "weights.pth")
        load_weights(ours, Path(folder) / "weights.pth")
    return ours


def vit_pair(size: int) -> Iterator[Pair]:
    import timm

    theirs = timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=size)
    yield Pair("vit_tiny", "timm", with_weights_of(theirs, vit_tiny(image_size=size)), theirs, batch=8)


def mit_pair(size: int) -> Iterator[Pair]:
    if not find_spec("transformers"):
        print("transformers is not installed; mit_b0 is left out")
        return
    from transformers import SegformerConfig, SegformerForImageClassification

    # Hugging Face's copies run with one eps; the published ones with two.
    theirs = SegformerForImageClassification(SegformerConfig(num_labels=1000, drop_path_rate=0.0))
    ours = mit_b0(norm_eps=1e-5, drop_path=0.0)
    yield Pair("mit_b0", "transformers", with_weights_of(theirs, ours), Scores(theirs), batch=4)


def nat_pairs(size: int) -> Iterator[Pair]:
    network = nat_mini(drop_path=0.0)
    gather = partial(neighborhood_attention, backend="reference")
    yield Pair("nat_mini", "gather with bias", network, WithAttention(network, gather), batch=1)
    if not find_spec("natten"):
        print("natten is not installed; its comparison is left out")
        return
    from quintet.core.bench_peers import natten_neighborhood_attention

    def natten(query: Tensor, key: Tensor, value: Tensor, kernel_size: Sequence[int], **arguments: Any) -> Tensor:
        # natten wants a kernel that fits the grid, ours is clamped to it.
        fitting = tuple(min(pair) for pair in zip(kernel_size, query.shape[1:3], strict=True))
        del arguments["stride"]  # 1 on both axes
        return natten_neighborhood_attention(query, key, value, fitting, **arguments)

    network = nat_mini(mixer=partial(NeighborhoodAttention, relative_bias=False), drop_path=0.0)
    yield Pair("nat_mini", "natten, no bias", network, WithAttention(network, natten), batch=1, trains=False)


def forward(network: nn.Module, images: Tensor) -> Callable[[], Tensor]:
    def call() -> Tensor:
        with torch.inference_mode():
            return network.eval()(images)

    return call


def training_step(network: nn.Module, images: Tensor, targets: Tensor) -> Callable[[], float]:
    """One step of a network as a function without arguments; it returns the loss."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def step() -> float:
        network.train()
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(network(images), targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def measured(pair: Pair, rounds: int, size: int) -> Iterator[list[str]]:
    """Rows of the table; raises ValueError where the two do not agree."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(pair.batch, 3, size, size, generator=generator)
    targets = torch.randint(1000, (pair.batch,), generator=generator)
    sides = [forward(network, images) for network in (pair.ours, pair.theirs)]
    found, expected = (side().double() for side in sides)
    error = ((found - expected).norm() / expected.norm()).item()
    if not error <= TOLERANCE:
        raise ValueError(f"{pair.name} differs from {pair.peer} by {error:.1e}; not timed")
    modes = {"forward": sides}
    if pair.trains:
        modes["training step"] = [training_step(network, images, targets) for network in (pair.ours, pair.theirs)]
    for mode, calls in modes.items():
        times = take_turns(calls, rounds)
        ratios = [
            statistics.median(theirs[clock] / ours[clock] for ours, theirs in zip(*times, strict=True))
            for clock in (0, 1)
        ]
        ours, theirs = (statistics.median(wall for wall, _ in side) for side in times)
        yield [
            pair.name,
            pair.peer,
            mode,
            str(pair.batch),
            f"{ours:.0f}",
            f"{theirs:.0f}",
            *(f"{ratio:.2f}x" for ratio in ratios),
            f"{error:.1e}",
        ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, default=224)
    pairs = {"vit": vit_pair, "nat": nat_pairs, "mit": mit_pair}
    parser.add_argument("--only", nargs="+", choices=pairs, default=list(pairs))
    options = parser.parse_args()
    torch.manual_seed(0)
    table = Table(
        title=f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.size} x {options.size}"
    )
    for heading in ("model", "against", "what", "batch", "ours ms", "theirs ms", "wall", "processor", "difference"):
        table.add_column(heading, justify="left" if heading in ("model", "against", "what") else "right")
    for name in options.only:
        for pair in pairs[name](options.size):
            for row in measured(pair, options.rounds, options.size):
                table.add_row(*row)
    Console(width=120).print(table)
