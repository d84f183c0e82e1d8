"""Suggestions, and errors of other libraries in one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch._utils import ExceptionWrapper

from quintet.core.errors import QuintetError, nearest, one_line, shortened, told_of


@pytest.mark.parametrize(
    ("name", "choices", "answer"),
    [
        ("traner", ["trainer", "data"], "nearest: trainer"),
        ("digit", ["vision/digits", "vision/folder"], "nearest: vision/digits"),
        ("lrr", ["model.lr", "model.freeze"], "nearest: model.lr"),
        ("zzz", ["b", "a"], "choices: a, b"),
        ("zzz", [], "choices: none"),
        ("zzz", [str(number) for number in range(13)], "13 choices, none of them close"),
    ],
)
def test_nearest_names_what_was_probably_meant(name, choices, answer):
    assert nearest(name, choices) == answer


@given(
    st.lists(st.text(st.characters(codec="ascii", categories=["Ll"]), min_size=1), min_size=1, unique=True), st.data()
)
def test_a_choice_is_its_own_nearest(choices, data):
    name = data.draw(st.sampled_from(choices))
    assert nearest(name, choices).startswith(f"nearest: {name}")


def test_nearest_names_at_most_three():
    assert nearest("layer", [f"layer{number}" for number in range(20)]).count("layer") == 3


def test_a_quintet_error_is_shown_as_it_is():
    assert one_line(QuintetError("first\nsecond")) == "first\nsecond"


@pytest.mark.parametrize("error", [ValueError("a\n\nb\nc"), KeyError("a"), TypeError("a")])
def test_any_other_error_is_one_line_with_its_type(error):
    line = one_line(error)
    assert "\n" not in line
    assert line.startswith(f"{type(error).__name__}: ")
    assert line.endswith("(QUINTET_DEBUG=1 shows where)")


def test_an_error_without_a_message_is_named():
    assert one_line(RuntimeError()).startswith("RuntimeError: ")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(2, "No such file or directory", "a.csv"), "a.csv: No such file or directory"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (ModuleNotFoundError("No module named 'cftime'", name="cftime"), "the package cftime is not installed: pip"),
        (
            ModuleNotFoundError("Requirement 'torch_xla>=1.13' not met. HINT: ..."),
            "this needs the package torch_xla: pip",
        ),
        (
            ModuleNotFoundError("Neither `tensorboard` nor `tensorboardX` is available. Try `pip install`ing either."),
            "this needs the package tensorboard: pip install tensorboard",
        ),
        (RuntimeError("No supported gpu backend found!"), "there is no GPU here; add trainer.accelerator=cpu"),
        (
            RuntimeError("Early stopping conditioned on metric `val/los` which is not available. Pass in: `val/loss`"),
            "monitor=val/los: nothing of this name is measured; nearest: val/loss",
        ),
    ],
)
def test_errors_that_input_or_system_cause_are_said_in_words(error, words):
    assert one_line(error).startswith(words)
    assert "QUINTET_DEBUG" not in one_line(error)


def test_what_a_constructor_complains_of_is_said_of_its_option():
    with pytest.raises(QuintetError, match=r"^trainer: too small$"), told_of("trainer"):
        raise ValueError("too\n  small")
    with pytest.raises(QuintetError, match=r"^as it is$"), told_of("trainer"):
        raise QuintetError("as it is")


def test_a_long_name_is_cut():
    assert shortened("a" * 300) == "a" * 200 + "..."
    assert one_line(OSError(36, "File name too long", "a" * 5000)) == "a" * 200 + "...: File name too long"


def wrapped(error):
    """What torch raises in the training process where a process that reads data raised `error`."""
    try:
        raise error
    except Exception:
        wrapper = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(type(error)) as caught:
        wrapper.reraise()
    return caught.value


def test_errors_of_processes_that_read_data_keep_their_own_words():
    assert one_line(wrapped(QuintetError("a.jpg: cut short\ncopy it again"))) == "a.jpg: cut short\ncopy it again"
    assert one_line(wrapped(ValueError("bad value"))) == "ValueError: bad value (QUINTET_DEBUG=1 shows where)"
    assert one_line(wrapped(ValueError())) == "ValueError:  (QUINTET_DEBUG=1 shows where)"
