"""No file of the package is imported in a circle, whether at its top or inside a function."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

import pytest

from quintet.core.weights import trusted
from quintet.core.weights.trusted import own_modules


def imported(module: str, package: str, tree: ast.AST, known: set[str]) -> Iterator[str]:
    """The modules of quintet that one imports; what stands under TYPE_CHECKING is for readers of types alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                name = f"{source}.{alias.name}"
                yield name if name in known else source
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        yield from imported(module, package, node, known)


def graph(sources: dict[str, tuple[str, bool]]) -> dict[str, set[str]]:
    """Of each module, by its text and whether it is a package: those it imports."""
    edges = {}
    for module, (text, is_package) in sources.items():
        package = module if is_package else module.rpartition(".")[0]
        edges[module] = set(imported(module, package, ast.parse(text), set(sources))) & (set(sources) - {module})
    return edges


def test_no_module_is_imported_in_a_circle(monkeypatch):
    monkeypatch.setattr(trusted, "WITHOUT_LAYERS", trusted.re.compile("(?!)"))
    modules = own_modules.__wrapped__()
    sources = {name: (place.read_text("utf-8"), place.name == "__init__.py") for name, place in modules.items()}
    assert {"quintet.core.run.runner", "quintet.vision.models.nat"} <= set(sources)
    TopologicalSorter(graph(sources)).prepare()  # raises CycleError


@pytest.mark.parametrize("text", ["from . import b", "from .b import x", "def f():\n    from quintet.b import x"])
def test_a_circle_is_seen(text):
    with pytest.raises(CycleError):
        TopologicalSorter(graph({"quintet.a": (text, False), "quintet.b": ("from .a import y", False)})).prepare()


def test_types_alone_make_no_circle():
    text = "if TYPE_CHECKING:\n    from .b import x"
    TopologicalSorter(graph({"quintet.a": (text, False), "quintet.b": ("from .a import y", False)})).prepare()
