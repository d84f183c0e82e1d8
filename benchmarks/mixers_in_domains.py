"""Every registered mixer in every model that takes one: a training step with unobserved values, and how long it took.

A third of the values that series hold, and of what models predict, was not observed; graphs are a packed batch of
molecules.

    python benchmarks/mixers_in_domains.py [pattern] [--output benchmarks/results/mixers_in_domains.md]

A cell is the processor milliseconds of forward and backward of a small model on one thread, the fastest of four, or "-"
where the mixer does not take the model's grids or packed graphs. Ends with 1 where a loss or a gradient is not finite
or anything else is wrong.
Tests take one mixer of each kind through the models; this takes all.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch

from quintet.core.errors import QuintetError
from quintet.core.mixer import Mixer
from quintet.core.weights.registry import list_mixers, mixer_class
from quintet.graphs import Molecules
from quintet.graphs.models import GPS
from quintet.timeseries.models import Informer, ITransformer, NILMFormer, PatchTST
from quintet.vision.models import MixTransformer, NeighborhoodAttentionTransformer, VisionTransformer

STEPS, AHEAD, CHANNELS, DIM = 48, 12, 3, 32
MixerFactory = Callable[[int], Mixer]


def series() -> tuple[Tensor, Tensor]:
    """Three channels of which a third of the steps was not observed."""
    generator = torch.Generator().manual_seed(0)
    observed = torch.rand(2, STEPS, CHANNELS, generator=generator) > 1 / 3
    return torch.randn(2, STEPS, CHANNELS, generator=generator), observed


def images() -> tuple[Tensor]:
    return (torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)),)


def load() -> tuple[Tensor, Tensor]:
    values, observed = series()
    return values[..., 0], observed[..., 0]


SMILES = ["CCO", "c1ccccc1O", "CC(=O)Oc1ccccc1C(=O)O", "C", "[Na+].[Cl-]", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C"]
PACKED = ("GPS",)  # models of graphs of any size that stand one after another


@cache
def molecules() -> Molecules:
    """Twelve molecules to train, one of one atom and one of two parts among them, with two targets."""
    rows = [(smiles, 0.1 + at, 0.2 - at, "train") for at, smiles in enumerate(SMILES * 2)] + [("CCC", 1.5, 2.5, "val")]
    table = pd.DataFrame(rows, columns=["smiles", "one", "two", "split"])
    data = Molecules(table, targets=["one", "two"], encodings={"random_walk": 8})
    data.setup("fit")
    return data


def packed() -> tuple[Batch]:
    return (molecules().datasets["train"].take(torch.arange(12)),)


def gps(mixer: MixerFactory) -> nn.Module:
    return GPS(DIM, 2, mixer=mixer, encoding_dim=4, num_outputs=2, **molecules().description().sizes)


MODELS: dict[str, tuple[int, Callable[[MixerFactory], nn.Module], Callable[[], tuple[Tensor, ...]]]] = {
    "PatchTST": (1, lambda mixer: PatchTST(STEPS, AHEAD, patch_size=8, dim=DIM, depth=2, mixer=mixer), series),
    "iTransformer": (1, lambda mixer: ITransformer(STEPS, AHEAD, dim=DIM, depth=2, mixer=mixer), series),
    "Informer": (1, lambda mixer: Informer(STEPS, AHEAD, channels=3, calendar=0, dim=DIM, mixer=mixer), series),
    "NILMFormer": (1, lambda mixer: NILMFormer(2, calendar=0, dim=DIM, depth=2, mixer=mixer), load),
    "ViT": (1, lambda mixer: VisionTransformer(10, image_size=64, dim=DIM, depth=2, mixer=mixer), images),
    "NAT": (2, lambda mixer: NeighborhoodAttentionTransformer(10, dim=DIM, depths=(1, 1, 1, 1), mixer=mixer), images),
    "MiT": (2, lambda mixer: MixTransformer(10, dims=(16, 32, 48, 64), depths=(1, 1, 1, 1), mixer=mixer), images),
    "GPS": (1, gps, packed),
}


def step(model: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """Processor milliseconds of one step. Raises QuintetError where something is not finite."""
    model.zero_grad()
    began = time.process_time()
    predicted = model(*inputs).float()
    unmeasured = torch.arange(predicted.numel()).view_as(predicted) % 3 == 0
    loss = predicted.masked_fill(unmeasured, 0).square().mean()
    loss.backward()
    taken = 1000 * (time.process_time() - began)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    wrong = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
    if not loss.isfinite() or wrong:
        raise QuintetError(f"the loss is {loss.item()}; gradients that are not finite: {wrong or 'none'}")
    return taken


def of_rank(name: str, rank: int) -> MixerFactory | None:
    """The mixer by default, told the rank of grids where it has to be; None where it takes no such grids."""
    kind = mixer_class(name)
    for arguments in ({}, {"rank": rank}):
        try:
            if rank in kind(DIM, **arguments).grid_ranks:
                return lambda dim: kind(dim, **arguments)
        except TypeError:
            continue
    return None


def rows_of(pattern: str) -> tuple[list[list[str]], list[str]]:
    """A row a mixer, and what went wrong."""
    rows, faults = [], []
    for name in list_mixers(pattern):
        cells = [name]
        for title, (rank, build, inputs) in MODELS.items():
            mixer = of_rank(name, rank)
            if mixer is None or (title in PACKED and not mixer(DIM).padding_invariant):
                cells.append("-")
                continue
            torch.manual_seed(0)
            try:
                model = build(mixer).train()
                cells.append(f"{min(step(model, inputs()) for _ in range(4)):.0f}")
            except Exception as error:  # every kind of fault is what this looks for
                cells.append("FAILS")
                faults.append(f"{name} in {title}: {type(error).__name__}: {error}")
        rows.append(cells)
        print(" ".join(f"{cell:>12}" for cell in cells), flush=True)
    return rows, faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern", nargs="?", default="*")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, faults = rows_of(options.pattern)
    if options.output:
        head = ["mixer", *MODELS]
        lines = [head, ["---", *["---:"] * len(MODELS)], *rows]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        about = (
            "Processor milliseconds of a training step of a small model, one thread (benchmarks/mixers_in_domains.py)."
        )
        options.output.write_text(f"# Mixers in models\n\n{about}\n\n{table}\n", encoding="utf-8")
    print("\n".join(faults) or "every mixer trains in every model that takes its grids")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
