"""Batches of samples of like length: complete, bounded, seeded, the same number and like work on every process."""

import random
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from quintet.core.data import LengthBatches
from quintet.core.data.length_batches import Together
from quintet.core.errors import QuintetError

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=60)
SHARED = st.lists(st.integers(1, 60), min_size=12, max_size=60)  # as many as four processes always share


def made(lengths, tokens, batch_size=None, replicas=1, seed=0):
    """A sampler of each process."""
    options = {"num_replicas": replicas, "seed": seed}
    return [LengthBatches(lengths, tokens, batch_size, rank=rank, **options) for rank in range(replicas)]


def drawn(sampler, epoch=0):
    sampler.set_epoch(epoch)
    return [[draw.index for draw in batch] for batch in sampler]


@given(SHARED, st.integers(120, 300), st.none() | st.integers(2, 9), st.integers(1, 4), st.integers(0, 3))
def test_every_sample_comes_once_in_bounded_batches_as_many_on_every_process(
    lengths, tokens, batch_size, replicas, epoch
):
    shares = [drawn(sampler, epoch) for sampler in made(lengths, tokens, batch_size, replicas)]
    batches = [batch for share in shares for batch in share]
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert {len(share) for share in shares} == {len(batches) // replicas}
    for batch in batches:
        assert 1 <= len(batch) <= (batch_size or len(lengths))
        assert len(batch) * max(lengths[index] for index in batch) <= tokens


@given(SHARED, st.integers(120, 300), st.integers(1, 4))
def test_epochs_have_as_many_batches_and_len_says_how_many(lengths, tokens, replicas):
    sampler = made(lengths, tokens, replicas=replicas)[-1]
    assert {len(drawn(sampler, epoch)) for epoch in range(3)} == {len(sampler)}


@given(SHARED, st.integers(120, 300), st.integers(1, 3))
def test_batches_lie_side_by_side_in_order_of_length(lengths, tokens, replicas):
    shares = [drawn(sampler) for sampler in made(lengths, tokens, replicas=replicas)]
    batches = [[lengths[index] for index in batch] for share in shares for batch in share]
    # Of two batches one is the longer throughout, but for what lengths of one group differ.
    for one, other in combinations(batches, 2):
        assert max(one) <= 1.1 * min(other) or max(other) <= 1.1 * min(one)


@given(LENGTHS, st.integers(60, 300), st.integers(0, 3), st.integers(0, 3))
def test_the_order_is_a_function_of_seed_and_epoch_and_resumes_inside_an_epoch(lengths, tokens, seed, epoch):
    (sampler,) = made(lengths, tokens, seed=seed)
    sampler.set_epoch(epoch)
    whole = list(sampler)
    (again,) = made(lengths, tokens, seed=seed)
    for done in range(len(whole) + 1):
        again.resume(epoch, done)
        again.set_epoch(epoch)  # as Lightning does when the epoch begins
        assert list(again) == whole[done:]
        assert len(again) == len(whole) - done
    again.set_epoch(epoch + 1)
    sampler.set_epoch(epoch + 1)
    assert list(again) == list(sampler)


def test_each_epoch_and_each_seed_has_batches_an_order_and_draws_of_its_own():
    lengths = [50 + number % 3 for number in range(40)]
    orders = [[*LengthBatches(lengths, 250)]]
    orders += [[*LengthBatches(lengths, 250, seed=1)]]
    orders += [drawn(LengthBatches(lengths, 250), 1)]
    assert orders[0] != orders[1]
    sets = [{frozenset(getattr(draw, "index", draw) for draw in batch) for batch in order} for order in orders]
    assert not sets[0] & sets[1]
    assert not sets[0] & sets[2]
    assert len({draw.seed for batch in orders[0] for draw in batch}) == 40


def test_processes_augment_as_one_does_and_work_on_like_lengths_at_the_same_time():
    lengths = list(range(10, 210))
    alone = {draw for batch in LengthBatches(lengths, 800) for draw in batch}
    shares = [list(LengthBatches(lengths, 800, num_replicas=4, rank=rank)) for rank in range(4)]
    assert {draw for share in shares for batch in share for draw in batch} == alone
    padded = [[len(batch) * max(lengths[draw.index] for draw in batch) for batch in share] for share in shares]
    waits = sum(max(step) - sum(step) / 4 for step in zip(*padded, strict=True)) / sum(map(sum, padded))
    assert waits < 0.05


def test_padding_falls_from_half_to_a_twentieth():
    chance = random.Random(0)
    lengths = [int(10 * 50 ** chance.random()) for _ in range(2000)]  # 10 to 500, as many between 10 and 20 as 250, 500

    def padding(batches):
        whole = sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)
        return 1 - sum(lengths) / whole

    order = chance.sample(range(2000), 2000)
    assert padding([order[at : at + 16] for at in range(0, 2000, 16)]) > 0.5
    assert padding(drawn(LengthBatches(lengths, 2000))) < 0.05


@pytest.mark.parametrize(
    ("lengths", "options", "words"),
    [
        ([], {}, "there is no sample"),
        ([3, 0], {}, "shortest length of batches by length is 0"),
        ([3], {"tokens": 0}, "tokens of batches by length is 0; give at least 1"),
        ([3], {"batch_size": 0}, "batch_size of batches by length is 0"),
        ([3, 9, 2], {"tokens": 8}, "sample 1 has 9 tokens and a batch at most 8"),
        ([8] * 5, {"tokens": 8, "num_replicas": 2}, "5 samples, each a batch of its own"),
        ([3], {"num_replicas": 2, "rank": 2}, "rank 2 of 2 processes"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(lengths, options, words):
    with pytest.raises(QuintetError, match=words) as error:
        LengthBatches(lengths, **{"tokens": 10, **options})
    assert "\n" not in str(error.value)


def test_more_batches_done_than_an_epoch_has_are_refused():
    with pytest.raises(QuintetError, match="3 batches are done of an epoch that has 2"):
        LengthBatches([4, 4], 4).resume(0, 3)


def test_samples_are_fetched_together():
    together = Together(TensorDataset(torch.tensor([10, 20, 30])))
    assert len(together) == 3
    assert together[[2, 0]] == [(torch.tensor(30),), (torch.tensor(10),)]
