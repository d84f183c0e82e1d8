"""Seeded order and seeded augmentation.

Randomness is a function of (seed, epoch, sample), never of the process that happens to draw it: an interrupted run that
resumes, another number of workers and another number of devices see the same augmented samples.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset, DistributedSampler


@dataclass(frozen=True)
class Draw:
    """Asks a dataset for sample `index`, with `seed` for whatever is random about it."""

    index: int
    seed: int


def draw_seeds(samples: int, seed: int) -> list[int]:
    """The seed of each sample's draw in one epoch, whatever order the samples come in."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2**62, (samples,), generator=generator).tolist()


class SeededSampler(DistributedSampler):
    """Order of the training samples for one epoch, as `Draw`s, split over the processes of a distributed run."""

    def __iter__(self) -> Iterator[Draw]:
        seeds = draw_seeds(len(self.dataset), self.seed + self.epoch)
        return (Draw(index, seeds[index]) for index in super().__iter__())


class Augmented(Dataset):
    """A dataset whose samples pass through a random `transform`, seeded for each draw."""

    def __init__(self, dataset: Dataset, transform: Callable[[Any], Any]) -> None:
        self.dataset = dataset
        self.transform = transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: Draw | int) -> Any:
        if not isinstance(draw, Draw):
            draw = Draw(draw, draw)
        sample = self.dataset[draw.index]
        # The CPU generator alone: torch.manual_seed would reseed the GPUs too, and with them dropout.
        state = torch.default_generator.get_state()
        torch.default_generator.manual_seed(draw.seed)
        try:
            return self.transform(sample)
        finally:
            torch.default_generator.set_state(state)
