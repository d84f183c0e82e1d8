"""YAML of the user's, read within bounds."""

import pytest
import yaml

from quintet.core.errors import QuintetError
from quintet.core.run.yaml_files import (
    BYTES,
    DEPTH,
    VALUES,
    check_configurations,
    check_file,
    check_text,
    place_of,
    read_text,
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: 1",
        "a: &a [1, 2]\nb: *a",
        "a: !!str 2020",
        "a: ! x",
        "[" * DEPTH + "]" * DEPTH,
        f"[{'1,' * (VALUES - 1)}]",
    ],
)
def test_what_lies_within_the_bounds_is_read(text):
    check_text(text, "mine")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: 1\nb: !own x", "mine, line 2: the tag !own is not read here"),
        ("a: !!python/name:os.system ''", "the tag tag:yaml.org,2002:python/name:os.system is not read"),
        ("a: !!python/object/apply:pathlib.Path [x]", "is not read here"),
        ("[" * (DEPTH + 1), f"mine, line 1: nested more than {DEPTH} deep"),
        (f"[{'1,' * VALUES}]", f"stands for more than {VALUES:,} values"),
        ("a: &a [1, *a]", r"mine, line 1: \*a stands within what it names"),
        (
            "\n".join(f"a{n}: &a{n} [{'x,' * 9 if n == 0 else f'*a{n - 1},' * 9}]" for n in range(60)),
            "line 5: stands for",
        ),
    ],
)
def test_what_leaves_the_bounds_is_refused_with_its_line(text, complaint):
    with pytest.raises(QuintetError, match=complaint):
        check_text(text, "mine")


def test_files_that_hold_no_text_are_refused(tmp_path):
    path = tmp_path / "a.yaml"
    for content, complaint in (
        (b"a: 1\nb: \xff", "a.yaml, line 2: not text in UTF-8"),
        (b"#" * (BYTES + 1), f"has more than {BYTES:,} bytes"),
        (b"a: [1\n", "a.yaml, line 2: did not find expected"),
        (b"a:\n\tb: 1", "a.yaml, line 2: found character that cannot start any token; indent with spaces, not tabs"),
    ):
        path.write_bytes(content)
        with pytest.raises(QuintetError, match=complaint):
            check_file(path)
    with pytest.raises(QuintetError, match="is a folder"):
        check_file(tmp_path)
    with pytest.raises(QuintetError, match="is no file"):
        check_file(tmp_path / "b.yaml")


def test_a_mark_of_byte_order_is_no_text(tmp_path):
    (tmp_path / "a.yaml").write_bytes("a: ü".encode("utf-8-sig"))
    assert read_text(tmp_path / "a.yaml") == "a: ü"


def test_configurations_are_checked_wherever_they_are_named(tmp_path):
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("seed_everything: 1\n")
    bad.write_text("- 1\n")
    check_configurations(["--config", str(good), "--trainer.max_epochs", "3", f"--config={good}"])
    for arguments in (["--config", str(bad)], ["-c", str(bad)], [f"--config={bad}"]):
        with pytest.raises(QuintetError, match=r"bad.yaml holds no options"):
            check_configurations(arguments)


def test_a_mistake_without_a_place_is_named_all_the_same():
    assert place_of(yaml.YAMLError("strange")) == ": strange"
