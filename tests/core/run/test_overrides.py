"""What is typed as key=value: numbers, lists, and names of files whatever characters they have."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from quintet.core.errors import QuintetError
from quintet.core.run.overrides import forced, keep_texts, literal, parsed, readable, typed_below, value_of

FILE_NAMES = st.text(
    st.one_of(
        st.sampled_from(list("()[]{},:=#'\"\\$&*!?|~%@`;<> \t\n-+._0123456789eE")),
        st.characters(exclude_categories=["Cs"]),
    ),
    min_size=1,
    max_size=40,
).filter(lambda name: name not in (".", "..") and not set(name) & {"/", "\0"} and len(name.encode()) < 200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("names")


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=FILE_NAMES)
def test_the_name_of_any_file_that_exists_is_taken_as_it_was_typed(name, folder, monkeypatch):
    assume("${" not in name)  # an interpolation where it is a whole one
    monkeypatch.chdir(folder)
    Path(name).touch()
    override = f"data.root={name}"
    values = {"root": value_of(override)}
    keep_texts({"root": str | Path}, values, typed_below([override], "data"))
    try:
        assert values == {"root": name}
    finally:
        Path(name).unlink()


@settings(max_examples=200)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_in_quotes_is_read_as_itself(text):
    assert value_of(f"data.root={literal(text)}") == text
    assert parsed(f"data.root={literal(text)}", sweeping=True).is_sweep_override() is False


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("1e-3", 1e-3),
        ("[Region,State]", ["Region", "State"]),
        ("{a:1}", {"a": 1}),
        ("null", None),
        ("true", True),
        ("'a b'", "a b"),
        ("a\\,b", "a,b"),
        ("${oc.env:QUINTET_TRY}/x", "here/x"),
        ("${oc.env:QUINTET_TRY}/ü (1)", "here/ü (1)"),
        ("${x", "${x"),
        ("[1", "[1"),
        ("photos (1)", "photos (1)"),
        ("a=b.csv", "a=b.csv"),
        ("", ""),
    ],
)
def test_values_that_hydra_reads_stay_what_they_are_and_others_are_text(typed, value, monkeypatch):
    monkeypatch.setenv("QUINTET_TRY", "here")
    assert value_of(f"data.x={typed}") == value


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("model.lr", "cannot read 'model.lr'; options are given as key=value"),
        ("größe=3", "cannot read 'größe=3'; options are given as key=value"),
        ("a b=3", "cannot read 'a b=3'"),
        ("model.lr=1,2", "model.lr=1,2 gives several values: try each with -m, or write model.lr='1,2' for one"),
        ("model.lr=${nothing}", "cannot read 'model.lr=.*nothing"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(override, complaint):
    with pytest.raises(QuintetError, match=complaint) as caught:
        value_of(override)
    assert "\n" not in str(caught.value)


def test_several_values_are_a_sweep_only_where_one_is_wanted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parsed("model.lr=1,2", sweeping=True).is_sweep_override()
    assert parsed("data.root=a (1),b", sweeping=True).value() == "a (1),b"
    Path("a,b").mkdir()
    assert value_of("data.root=a,b") == "a,b"
    assert parsed("data.root=a,b", sweeping=True).is_sweep_override()


def test_options_that_are_names_are_text_whatever_they_look_like():
    for key in ("name", "run_dir", "ckpt_path", "output"):
        assert value_of(f"{key}=2020") == "2020"
        assert value_of(f"{key}=1_000") == "1_000"
        assert value_of(f"{key}=null") is None
    assert value_of("seed=1") == 1


@pytest.mark.parametrize(
    ("annotation", "value", "kept"),
    [
        (str | Path, 1000, True),
        (str | None, True, True),
        (str, ["a"], True),
        (str | list[str], ["a"], False),
        (str | int, 1000, False),
        (str | float, 1000, False),
        (str | None, None, False),
        (int, 1000, False),
        (Callable[[int], str], 1000, False),
        (str | Path, "read", False),
    ],
)
def test_what_was_typed_is_kept_where_an_argument_takes_text_and_not_what_was_read(annotation, value, kept):
    values = {"x": value}
    keep_texts({"x": annotation}, values, {"x": "typed"})
    assert values == {"x": "typed" if kept else value}


def test_what_was_typed_below_a_node():
    typed = ["data.root=1_000", "++data.id=7", "data.backbone.dim=3", "data=points", "model.lr=1", "data.x=${y}"]
    assert typed_below(typed, "data") == {"root": "1_000", "id": "7"}


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("model.lr=1", "++model.lr=1"),
        ("callbacks.best.monitor=a", "++callbacks.best.monitor=a"),
        ("model.text='a=b'", "++model.text='a=b'"),
        ("trainer=gpu", "trainer=gpu"),
        ("model/mixer=linear", "model/mixer=linear"),
        ("seed=1", "seed=1"),
        ("modle.lr=1", "modle.lr=1"),
        ("hydra.sweep.dir=a", "hydra.sweep.dir=a"),
        ("~model.lr", "~model.lr"),
        ("+model.lr=1", "+model.lr=1"),
        ("model.lr", "model.lr"),
    ],
)
def test_only_values_below_what_is_built_are_forced(typed, read):
    assert forced(typed) == read


def test_a_readable_override_is_left_as_it_was_typed():
    for override in ("model.lr=1e-3", "experiment=vision/digits", "~callbacks.pictures", "data.root='a b'"):
        assert readable(override) == override
