"""Stratified splits: disjoint, complete, in proportion, seeded, and never through a group."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from quintet.vision.data.splits import stratified_split

labels = st.lists(st.sampled_from("abcd"), min_size=1, max_size=120)
fractions = st.tuples(st.floats(0, 0.45), st.floats(0, 0.45)).map(lambda pair: dict(zip(("val", "test"), pair)))


@given(labels, fractions, st.integers(0, 5))
def test_disjoint_and_complete(labels, fractions, seed):
    parts = stratified_split(labels, fractions, seed)
    assert set(parts) == {"train", "val", "test"}
    assert sorted(index for indices in parts.values() for index in indices) == list(range(len(labels)))


@given(labels, fractions, st.integers(0, 5))
def test_every_class_gives_its_share(labels, fractions, seed):
    parts = stratified_split(labels, fractions, seed)
    wanted = sum(fraction > 0 for fraction in fractions.values())
    for label, total in Counter(labels).items():
        for name, fraction in fractions.items():
            count = sum(labels[index] == label for index in parts[name])
            assert abs(count - total * fraction) <= 1
            if fraction > 0 and total > wanted:
                assert count >= 1
        assert any(labels[index] == label for index in parts["train"])


@given(labels, fractions)
def test_the_seed_decides(labels, fractions):
    assert stratified_split(labels, fractions, 3) == stratified_split(labels, fractions, 3)


def test_another_seed_splits_differently():
    labels = ["a"] * 50 + ["b"] * 50
    parts = [tuple(stratified_split(labels, {"val": 0.3}, seed)["val"]) for seed in range(5)]
    assert len(set(parts)) == 5


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 25)), min_size=1, max_size=80), fractions)
def test_groups_stay_together(samples, fractions):
    labels, groups = [label for label, _ in samples], [group for _, group in samples]
    parts = stratified_split(labels, fractions, 0, groups)
    assert sorted(index for indices in parts.values() for index in indices) == list(range(len(labels)))
    where = {name: {groups[index] for index in indices} for name, indices in parts.items()}
    assert not where["train"] & where["val"]
    assert not where["train"] & where["test"]
    assert not where["val"] & where["test"]


def test_more_of_one_class_moves_nothing_of_another():
    before = stratified_split(["a"] * 20 + ["b"] * 10, {"val": 0.25})["val"]
    after = stratified_split(["a"] * 20 + ["b"] * 30, {"val": 0.25})["val"]
    assert [index for index in before if index < 20] == [index for index in after if index < 20]


def test_a_fraction_of_one_leaves_nothing():
    parts = stratified_split(list("aabbbcc"), {"val": 0.0, "test": 1.0})
    assert parts == {"train": [], "val": [], "test": list(range(7))}
