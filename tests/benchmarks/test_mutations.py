"""Single mutations of a source, by hand, and which tests are asked whether they notice them."""

import ast
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "mutations"


@pytest.fixture
def modules(monkeypatch):
    """`changes` and `noticing`, which find each other in their own folder."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import changes
    import noticing

    yield changes, noticing
    for name in ("changes", "noticing"):
        sys.modules.pop(name)


def mutants(modules, folder: Path, source: str) -> list[str]:
    (folder / "a.py").write_text(source)
    changes, _ = modules
    return [found.applied(source.encode()).decode() for found in changes.mutations_of(folder, Path("a.py"))]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b", ["a <= b"]),
        ("a not in b", ["a in b"]),
        ("a + b", ["a - b"]),
        ("a and b or c", ["a and b and c", "a or b or c"]),
        ("not a", ["a"]),
        ("-a", ["a"]),
        ("x = True", ["x = False"]),
        ("x = 3", ["x = 4"]),
        ("x = 0.5", ["x = 1.0"]),
        ("x = 0.0", ["x = 1.0"]),
        ("a += b", ["a -= b"]),
        ("x = f(a, b=c)", ["x = f(a)"]),
        ("x = f(b=c, d=e)", ["x = f( d=e)", "x = f(b=c)"]),
        ("x = f(b=c)", ["x = f()"]),
        ("x = a.nanmean()", ["x = a.mean()"]),
        ("x = min(a)", ["x = max(a)"]),
        ("f()", ["pass"]),
        ("x = a if b else c", ["x = a if (not b) else c"]),
        ("if a: pass", ["if (not a): pass"]),
        ("x = [a for b in c if d]", ["x = [a for b in c if (not d)]"]),
        ("for a in b: break", ["for a in b: continue"]),
        ("def f(a: g(1) = 2) -> h(3): pass", ["def f(a: g(1) = 3) -> h(3): pass"]),
        ("x: f(1) = 2", ["x: f(1) = 3"]),
        ('x = f"{a + b}"', ['x = f"{a - b}"']),
        ("ü = a < b", ["ü = a <= b"]),
    ],
)
def test_what_is_changed(modules, tmp_path, source, expected):
    found = mutants(modules, tmp_path, source)
    assert sorted(found) == sorted(expected)
    for text in found:
        ast.parse(text)


@pytest.mark.parametrize(
    "source", ['"""1 + 1"""', 'raise E(f"{1 + a}")', "if TYPE_CHECKING:\n    f(1)", "import a", "x = 'a'"]
)
def test_what_stays(modules, tmp_path, source):
    assert mutants(modules, tmp_path, source) == []


def test_kernels_are_interpreted(modules, tmp_path):
    (tmp_path / "a.py").write_text("@triton.jit\ndef f():\n    x = 1\n\n\ndef g():\n    x = 1\n")
    found = list(modules[0].mutations_of(tmp_path, Path("a.py")))
    assert [(mutation.line, mutation.interpreted) for mutation in found] == [(3, True), (7, False)]


def test_what_cannot_be_parsed_or_reads_alike_is_no_change(modules):
    mutation = modules[0].Mutation
    assert modules[0].changes(mutation("a", 1, 4, 5, "2"), b"x = 1")
    assert not modules[0].changes(mutation("a", 1, 4, 5, "("), b"x = 1")
    assert not modules[0].changes(mutation("a", 1, 4, 5, "0x1"), b"x = 1")
    assert mutation("a", 2, 8, 9, "2").lines(b"y\n  x = 1\nz") == ("x = 1", "x = 2")


@pytest.mark.parametrize(
    ("file", "interpreted", "first", "among_the_second"),
    [
        (
            "core/attention/local/window.py",
            False,
            ["tests/core/attention/local/test_window.py"],
            "tests/core/test_mixers.py",
        ),
        ("core/data/splits.py", False, ["tests/core/data/test_splits.py"], "tests/vision/data/test_splits.py"),
        ("kernels/_spec.py", False, ["tests/kernels/test_spec.py", "tests/kernels/test_specs.py"], None),
        ("kernels/rotary.py", True, ["tests/kernels/test_rotary.py", "tests/kernels/test_specs.py"], None),
    ],
)
def test_which_tests_are_asked(modules, file, interpreted, first, among_the_second):
    changes, noticing = modules
    groups = noticing.groups_of(changes.Mutation(file, 1, 0, 0, "", interpreted))
    assert groups[0] == (first, interpreted)
    assert len(groups) == 1 if interpreted else len(groups) > 1
    if among_the_second:
        assert among_the_second in groups[1][0]


def test_how_a_picture_looks_is_left_to_the_eye(modules, tmp_path):
    source = b"axis.plot(x, y + 1, linewidth=0.8, label='a')\n"
    (tmp_path / "a.py").write_bytes(source)
    changes, _ = modules
    looks = {
        found.applied(source)
        for found in changes.mutations_of(tmp_path, Path("a.py"))
        if changes.is_a_look(found, source)
    }
    assert looks == {source.replace(b"0.8", b"1.6"), source.replace(b", linewidth=0.8", b"")}
