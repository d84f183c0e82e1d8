"""Batches of samples of like length: little padding, bounded memory, and the same work on every process."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, DistributedSampler

from ..errors import QuintetError
from .seeded import Draw, draw_seeds

LIKE = 1.1  # times the shortest of a group that its longest sample has at most


# In a distributed run Lightning puts a sampler of its own in the place of any that does not derive from torch's.
class LengthBatches(DistributedSampler):
    """Batches of one epoch: samples of like length side by side, at most `tokens` a batch with padding.

    Samples are grouped by length, a group's longest at most 1.1 times its shortest, and lined up from the longest group
    to the shortest; each batch takes the next n samples,

        n * (longest of the group it begins in) <= tokens,    n <= batch_size.

    An epoch draws its order inside the groups and the order of the batches from (seed, epoch). Where batches begin in
    the line depends on the lengths alone: every epoch has as many batches. The processes take neighbouring batches at
    the same time, so that none waits for another's long ones. Over all processes together every sample comes exactly
    once; they have as many batches each, for which the fullest batches are halved.

    Args:
        lengths: tokens of each sample: steps, samples of sound, nodes.
        tokens: most tokens of a batch, padding counted.
        batch_size: most samples of a batch; None sets no such bound.
        num_replicas: processes that train together.
        rank: number of this one.
        seed: of the order.

    Raises:
        QuintetError: a sample longer than `tokens`, no samples, a number below 1, or samples that cannot be shared
            evenly by the processes.

    Paper: "Training and Inference Efficiency of Encoder-Decoder Speech Models" (arXiv 2503.05931), of whose batches
    these are those of one length.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        tokens: int,
        batch_size: int | None = None,
        *,
        num_replicas: int = 1,
        rank: int = 0,
        seed: int = 0,
    ) -> None:
        _check(lengths, tokens, batch_size)
        if not 0 <= rank < num_replicas:
            raise QuintetError(f"rank {rank} of {num_replicas} processes; give a rank from 0 to num_replicas - 1")
        super().__init__(lengths, num_replicas, rank, shuffle=True, seed=seed)
        self.groups = _groups(lengths)
        longest = [max(lengths[index] for index in group) for group in self.groups for _ in group]
        self.sizes = _shared(_sizes(longest, tokens, batch_size), num_replicas)
        self.done = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; another than that of `resume` is whole."""
        self.done = self.done if epoch == self.epoch else 0
        self.epoch = epoch

    def resume(self, epoch: int, done: int) -> None:
        """Leaves out the first `done` batches of an epoch, which this process has seen."""
        if not 0 <= done <= len(self.sizes) // self.num_replicas:
            raise QuintetError(f"{done} batches are done of an epoch that has {len(self.sizes) // self.num_replicas}")
        self.epoch, self.done = epoch, done

    def __len__(self) -> int:
        return len(self.sizes) // self.num_replicas - self.done

    def __iter__(self) -> Iterator[list[Draw]]:
        seeds = draw_seeds(len(self.dataset), self.seed + self.epoch)
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        batches = self._batches(generator)
        steps = torch.randperm(len(batches) // self.num_replicas, generator=generator).tolist()
        for step in steps[self.done :]:
            yield [Draw(index, seeds[index]) for index in batches[step * self.num_replicas + self.rank]]

    def _batches(self, generator: torch.Generator) -> list[list[int]]:
        """All batches of the epoch, from long samples to short."""
        line = [group[at] for group in self.groups for at in torch.randperm(len(group), generator=generator).tolist()]
        batches, begin = [], 0
        for size in self.sizes:
            batches.append(line[begin : begin + size])
            begin += size
        return batches


class Together(Dataset):
    """A dataset asked for the samples of a batch at once, for loaders whose sampler draws batches."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draws: Sequence[Draw | int]) -> list[Any]:
        return [self.dataset[draw] for draw in draws]


def _check(lengths: Sequence[int], tokens: int, batch_size: int | None) -> None:
    if not len(lengths):
        raise QuintetError("there is no sample to make batches of")
    for name, value in (("tokens", tokens), ("batch_size", batch_size), ("shortest length", min(lengths))):
        if value is not None and value < 1:
            raise QuintetError(f"{name} of batches by length is {value}; give at least 1")
    if max(lengths) > tokens:
        index = max(range(len(lengths)), key=lengths.__getitem__)
        raise QuintetError(
            f"sample {index} has {lengths[index]} tokens and a batch at most {tokens}; give batches of more tokens, or "
            "leave the sample out"
        )


def _groups(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of samples of like length, the longest group first."""
    groups: list[list[int]] = []
    longest = math.inf
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if not groups or lengths[index] * LIKE < longest:
            groups.append([])
            longest = lengths[index]
        groups[-1].append(index)
    return groups


def _sizes(longest: Sequence[int], tokens: int, batch_size: int | None) -> list[int]:
    """Samples of each batch, in the line of samples whose groups have these longest ones."""
    sizes, begin = [], 0
    while begin < len(longest):
        sizes.append(min(tokens // longest[begin], batch_size or len(longest), len(longest) - begin))
        begin += sizes[-1]
    return sizes


def _shared(sizes: list[int], num_replicas: int) -> list[int]:
    """Sizes of batches, as many for each process: the fullest are halved."""
    sizes = list(sizes)
    while len(sizes) % num_replicas:
        at = max(range(len(sizes)), key=sizes.__getitem__)
        if sizes[at] == 1:
            raise QuintetError(
                f"{sum(sizes)} samples, each a batch of its own, cannot be shared evenly by {num_replicas} processes; "
                "give batches of more tokens, or fewer trainer.devices"
            )
        sizes[at : at + 1] = [(sizes[at] + 1) // 2, sizes[at] // 2]
    return sizes
