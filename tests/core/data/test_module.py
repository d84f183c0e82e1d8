"""Order, augmentation and shares of the data as functions of the seed and the epoch alone."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset, DistributedSampler

from quintet.core.data.module import Augmented, DataModule, Draw, Fault, SeededSampler
from quintet.core.errors import QuintetError


class Numbers(Dataset):
    """0, 1, 2, ..."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(float(index))


def jitter(sample: torch.Tensor) -> torch.Tensor:
    return sample + torch.rand(())


class NumberData(DataModule):
    """As many numbers in each part as `sizes` says."""

    def __init__(self, sizes: dict[str, int], **base) -> None:
        super().__init__(**base)
        self.sizes = sizes
        self.prepared = []

    def prepare(self, stages):
        self.prepared.append(stages)
        for stage in stages:
            if stage in self.sizes:
                numbers = Numbers(self.sizes[stage])
                self.datasets[stage] = Augmented(numbers, jitter) if stage == "train" else numbers


def on_rank(data, rank=0, world_size=1, epoch=0):
    """Gives a data module what it asks its trainer for."""
    progress = SimpleNamespace(current=SimpleNamespace(processed=epoch))
    loop = SimpleNamespace(epoch_progress=progress)
    data.trainer = SimpleNamespace(world_size=world_size, global_rank=rank, fit_loop=loop, lightning_module=None)
    return data


def order(size, seed, epoch, rank=0, replicas=1):
    sampler = SeededSampler(Numbers(size), num_replicas=replicas, rank=rank, shuffle=True, seed=seed)
    sampler.set_epoch(epoch)
    return list(sampler)


@given(st.integers(1, 40), st.integers(0, 3), st.integers(0, 3))
def test_order_and_seeds_are_a_function_of_seed_and_epoch(size, seed, epoch):
    draws = order(size, seed, epoch)
    assert draws == order(size, seed, epoch)
    assert sorted(draw.index for draw in draws) == list(range(size))


def test_each_epoch_and_each_seed_has_an_order_and_an_augmentation_of_its_own():
    first, second, third = order(20, 0, 0), order(20, 0, 1), order(20, 7, 0)
    indices = [[draw.index for draw in draws] for draws in (first, second, third)]
    assert indices[0] != indices[1] != indices[2] != indices[0]
    seeds = [{draw.index: draw.seed for draw in draws} for draws in (first, second, third)]
    assert all(seeds[0][index] != seeds[1][index] != seeds[2][index] for index in range(20))
    assert len(set(seeds[0].values())) == 20


@given(st.integers(2, 40), st.integers(2, 4))
def test_processes_share_the_samples_and_augment_them_as_one_process_does(size, replicas):
    alone = order(size, 0, 3)
    shares = [order(size, 0, 3, rank, replicas) for rank in range(replicas)]
    assert len({len(share) for share in shares}) == 1
    assert {draw for share in shares for draw in share} == set(alone)
    if size % replicas == 0:
        assert sum(len(share) for share in shares) == size


def test_the_order_does_not_touch_the_global_generator():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    order(20, 0, 0)
    Augmented(Numbers(3), jitter)[Draw(1, 5)]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_sample_is_augmented_by_its_draw():
    augmented = Augmented(Numbers(3), jitter)
    assert len(augmented) == 3
    assert augmented[Draw(1, 5)] == augmented[Draw(1, 5)]
    assert augmented[Draw(1, 5)] != augmented[Draw(1, 6)]
    assert augmented[2] == augmented[2]


def test_workers_change_neither_order_nor_augmentation():
    def epochs(num_workers):
        data = on_rank(NumberData({"train": 11}, batch_size=4, num_workers=num_workers, seed=3))
        data.setup("fit")
        loader = data.train_dataloader()
        batches = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            batches.append([batch.tolist() for batch in loader])
        return batches

    alone = epochs(0)
    assert alone == epochs(2)
    assert alone[0] != alone[1]


def test_a_resumed_run_starts_with_the_order_of_its_epoch():
    state = on_rank(NumberData({"train": 8}), epoch=5).state_dict()
    data = on_rank(NumberData({"train": 8}, batch_size=4))
    data.load_state_dict(state)
    data.setup("fit")
    drawn = [draw.index for draw in data.train_dataloader().sampler]
    assert drawn == [draw.index for draw in order(8, 0, 5)]


class LengthData(NumberData):
    """Numbers whose value is their length."""

    def by_length(self):
        return list(range(1, 1 + self.sizes["train"])), 20


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_by_length_are_shared_augmented_and_resumed(workers):
    def batches(rank=0, world_size=1, **base):
        data = on_rank(LengthData({"train": 20}, num_workers=workers, **base), rank, world_size)
        data.load_state_dict({"epoch": 3})
        data.setup("fit")
        return [batch.tolist() for batch in data.train_dataloader()]

    def values(batches):
        return sorted(value for batch in batches for value in batch)

    alone = batches()
    assert alone == batches() != batches(seed=1)
    assert max(map(len, batches(batch_size=2))) == 2
    assert all(len(batch) * (int(max(batch)) + 1) <= 20 for batch in alone)
    shares = [batches(rank, 2) for rank in range(2)]
    assert len(shares[0]) == len(shares[1])
    assert values(shares[0] + shares[1]) == values(alone)  # augmented as one process does it


def test_lightning_keeps_the_batches_of_a_process_and_does_not_overfit_on_them():
    data = on_rank(LengthData({"train": 20}), 1, 2)
    data.setup("fit")
    # What Lightning asks before it puts a sampler of its own in the place of another, in a distributed run.
    assert isinstance(data.train_dataloader().sampler, DistributedSampler)
    data.trainer.overfit_batches = 1
    with pytest.raises(QuintetError, match="not batches by length; leave one of the two out"):
        data.train_dataloader()


@pytest.mark.parametrize(
    ("size", "batches"), [(3, [3]), (4, [4]), (9, [4, 4]), (8, [4, 4]), (5, [4])], ids=lambda value: str(value)
)
def test_a_last_training_batch_that_is_short_is_dropped_unless_it_is_the_only_one(size, batches):
    data = on_rank(NumberData({"train": size}, batch_size=4))
    data.setup("fit")
    assert [len(batch) for batch in data.train_dataloader()] == batches


@pytest.mark.parametrize("stage", ["val", "test", "predict"])
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("size", [3, 7, 8])
def test_evaluation_sees_every_sample_exactly_once_on_any_number_of_processes(stage, world_size, size):
    seen = []
    for rank in range(world_size):
        data = on_rank(NumberData({stage: size}, batch_size=2), rank, world_size)
        data.prepare((stage,))
        seen += torch.cat(list(getattr(data, f"{stage}_dataloader")())).tolist()
    assert sorted(seen) == list(range(size))
    if world_size == 1:
        assert seen == list(range(size))


def test_fewer_samples_than_processes_are_refused():
    data = on_rank(NumberData({"val": 1}, batch_size=2), 0, 2)
    data.prepare(("val",))
    with pytest.raises(QuintetError, match=r"the val part has 1 samples for 2 processes; give fewer trainer.devices"):
        data.val_dataloader()


def test_without_a_trainer_all_samples_are_served():
    data = NumberData({"train": 8, "val": 3}, batch_size=4)
    data.setup("fit")
    assert sum(len(batch) for batch in data.train_dataloader()) == 8
    assert sum(len(batch) for batch in data.val_dataloader()) == 3


def test_each_part_is_prepared_once_when_it_is_needed():
    data = NumberData({"train": 4, "val": 2, "test": 2})
    for stage in ("fit", "fit", "validate", "test", "predict"):
        data.setup(stage)
    assert data.prepared == [("train", "val"), ("test",), ("predict",)]


def test_a_task_that_knows_its_data_decides_how_new_files_are_read():
    data = on_rank(NumberData({"val": 2}))
    data.trainer.lightning_module = SimpleNamespace(description="of the checkpoint")
    data.setup("validate")
    assert data._described == "of the checkpoint"
    data.trainer.lightning_module = SimpleNamespace(description="of another")
    data.setup("validate")
    assert data._described == "of the checkpoint"


def test_a_transform_that_fails_leaves_the_global_generator_as_it_was():
    def fail(sample):
        raise ValueError("bad sample")

    before = torch.random.get_rng_state()
    with pytest.raises(ValueError, match="bad sample"):
        Augmented(Numbers(3), fail)[Draw(1, 5)]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_without_a_stage_all_parts_are_prepared():
    data = NumberData({"train": 4, "val": 2, "test": 2})
    data.setup()
    assert set(data.datasets) == {"train", "val", "test"}


def test_a_part_that_the_data_lacks_is_named():
    data = on_rank(NumberData({"train": 4}))
    data.setup("fit")
    with pytest.raises(QuintetError, match="NumberData has no val data; it has: train"):
        data.val_dataloader()
    with pytest.raises(QuintetError, match="has no train data; it has: none"):
        NumberData({}).train_dataloader()


@pytest.mark.parametrize("arguments", [{"batch_size": 0}, {"batch_size": -1}, {"num_workers": -1}])
def test_sizes_that_make_no_sense_are_refused(arguments):
    with pytest.raises(QuintetError, match=f"{next(iter(arguments))} is {next(iter(arguments.values()))}; give at"):
        NumberData({}, **arguments)


def test_what_a_domain_leaves_out_is_empty_or_says_so():
    data = DataModule()
    assert data.faults() == []
    assert not data.recognises(Path("points"))
    assert data.collate() is None
    for method in (data.description, data.table, lambda: data.prepare(("train",))):
        with pytest.raises(NotImplementedError):
            method()
    assert Fault("row 3", "empty", "fill it") == Fault("row 3", "empty", "fill it")
