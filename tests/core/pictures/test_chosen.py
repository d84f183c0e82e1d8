"""Few are kept of many: a uniform sample, and the highest."""

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from quintet.core.pictures.chosen import Highest, UniformSample


def sampled(size: int, count: int, batch: int) -> list[int]:
    sample = UniformSample(size)
    for begin in range(0, count, batch):
        for item, key in enumerate(sample.keys(min(batch, count - begin)), start=begin):
            sample.offer(key, item)
    return sample.items


@given(st.integers(1, 8), st.integers(0, 40))
def test_a_sample_is_bounded_without_repetition(size, count):
    items = sampled(size, count, batch=7)
    assert len(items) == len(set(items)) == min(size, count)
    assert set(items) <= set(range(count))


def test_every_item_is_as_likely_as_another():
    # Of one stream of keys, each of 20,000 samples of 2 of 5 takes the next 5.
    stream, counts = UniformSample(1), Counter()
    for _ in range(20_000):
        sample = UniformSample(2)
        for item, key in enumerate(stream.keys(5)):
            sample.offer(key, item)
        counts.update(sample.items)
    # Five standard deviations of a binomial of 20,000 draws at 2/5.
    assert all(abs(counts[item] - 8000) < 5 * math.sqrt(20_000 * 0.4 * 0.6) for item in range(5))


@given(st.lists(st.one_of(st.just(math.nan), st.integers(-5, 5).map(float)), max_size=30), st.integers(1, 5))
def test_the_highest_are_those_of_a_sort_that_keeps_order(scores, size):
    highest = Highest(size)
    for index, score in enumerate(scores):
        highest.offer(score, index)
    ranked = sorted((index for index, score in enumerate(scores) if score == score), key=lambda index: -scores[index])
    assert highest.items == ranked[:size]
