"""Stratified splits: disjoint, complete, in proportion, seeded, and never through a group."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quintet.core.errors import QuintetError
from quintet.vision.data.sources import Entry
from quintet.vision.data.splits import divided_groups, named_groups, split_entries, stratified_split

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


ties = st.lists(
    st.tuples(st.sampled_from("ab"), st.none() | st.sampled_from(["p1", "p2", "p3", "p4"]), st.integers(0, 12)),
    min_size=1,
    max_size=50,
)


@given(ties, fractions, st.integers(0, 3))
def test_neither_groups_nor_equal_files_stand_on_two_sides(samples, fractions, seed):
    """Also where an equal file ties two groups together."""
    entries = [Entry(Path(str(number)), label, None, group) for number, (label, group, _) in enumerate(samples)]
    facts = {entry.path: SimpleNamespace(digest=str(digest)) for entry, (_, _, digest) in zip(entries, samples)}
    parts, _ = split_entries(entries, facts, fractions, seed)
    assert sorted(entry.path for part in parts.values() for entry in part) == sorted(facts)
    for name_of in (lambda entry: entry.group, lambda entry: facts[entry.path].digest):
        names = [{name_of(entry) for entry in part} - {None} for part in parts.values()]
        assert not names[0] & names[1] | names[0] & names[2] | names[1] & names[2]


def test_few_large_groups_still_reach_every_part():
    """A share of 15% is less than any of five patients, and each part has one."""
    patients = [number // 20 for number in range(100)]
    parts = stratified_split(["a"] * 100, {"val": 0.15, "test": 0.15}, 0, patients)
    assert {name: len(indices) for name, indices in parts.items()} == {"train": 60, "val": 20, "test": 20}


def test_groups_by_a_pattern():
    root = Path("/data")
    entries = [Entry(root / name) for name in ("patient1/a.png", "patient1/b.png", "patient2/a.png", "other.png")]

    def name_of(path):
        return path.relative_to(root).as_posix()

    named, faults = named_groups(entries, "^(patient[0-9]+)/", root, name_of)
    assert [entry.group for entry in named] == ["patient1", "patient1", "patient2"]
    assert [(fault.where, fault.what) for fault in faults] == [
        ("other.png", "does not match data.group=^(patient[0-9]+)/")
    ]
    assert [entry.group for entry in named_groups(entries[:3], "patient.", root, name_of)[0]] == [
        "patient1",
        "patient1",
        "patient2",
    ]
    assert named_groups(entries, None, root, name_of) == (entries, [])
    with pytest.raises(QuintetError, match="no regular expression"):
        named_groups(entries, "(patient", root, name_of)


def test_groups_that_the_user_divided_are_remarked():
    parts = {"train": [Entry(Path("a"), group="x"), Entry(Path("b"), group="y")], "val": [Entry(Path("c"), group="x")]}
    assert divided_groups(parts) == ["1 group stands in two parts (leakage), e.g. x in train and val"]
    assert divided_groups({"train": parts["train"], "val": []}) == []
