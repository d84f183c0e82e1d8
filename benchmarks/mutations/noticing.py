"""Which tests may notice that a source file was changed; see score.py."""

import ast
import re
from functools import cache
from pathlib import Path

from changes import Mutation

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("core", "graphs", "audio", "medical", "kernels", "timeseries", "vision", "cli.py")


def module_of(path: Path) -> str:
    return ".".join(("quintet", *path.with_suffix("").parts)).removesuffix(".__init__")


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Dotted names that a file imports, `quintet.core.attention.Attention` as well as its packages' modules."""
    names = set()
    package = module_of(path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return frozenset(names)


@cache
def names_of(path: Path) -> frozenset[str]:
    """What imports a file: its dotted name, and its classes and functions under each package that may show them."""
    module = module_of(path).split(".")
    text = (ROOT / path).read_text()
    public = re.findall(r"^(?:class|def) ([A-Za-z]\w*)", text, re.MULTILINE)
    packages = [".".join(module[:length]) for length in range(2, len(module))]
    return frozenset({".".join(module)} | {f"{package}.{name}" for package in packages for name in public})


def files_below(folder: str) -> list[Path]:
    if folder.endswith(".py"):
        return [Path(folder)]
    return sorted(path.relative_to(ROOT) for path in (ROOT / folder).rglob("*.py"))


@cache
def sources() -> tuple[Path, ...]:
    return tuple(path for room in ROOMS for path in files_below(room))


@cache
def tests() -> tuple[Path, ...]:
    return tuple(path for path in files_below("tests") if path.name.startswith("test_"))


def mirrored(path: Path) -> set[Path]:
    stem = path.stem.lstrip("_")
    folder = Path("tests", *path.parent.parts)
    return {test for test in tests() if test.parent == folder and re.fullmatch(f"test_{stem}s?", test.stem)}


def groups_of(mutation: Mutation) -> list[tuple[list[str], bool]]:
    """Test files, and whether Triton is interpreted, in the order in which they are tried."""
    path, room = Path(mutation.file), Path(mutation.file).parts[0].removesuffix(".py")
    own = mirrored(path)
    importing = {test for test in tests() if imports_of(test) & names_of(path)}
    for source in sources():
        if source != path and source.name != "__init__.py" and imports_of(source) & names_of(path):
            importing |= mirrored(source)
    whole = {test for test in tests() if test.parts[1] == (room if room != "cli" else "core")}
    whole |= {test for test in tests() if test.parts[1] == "trials"}
    tried: set[Path] = set()
    groups = []
    for number, group in enumerate((own, importing, whole)):
        groups.append((sorted(map(str, group - tried)), False))
        tried |= group
        if number == 1 and room == "kernels":
            groups.append((sorted(map(str, own | {Path("tests/kernels/test_specs.py")})), True))
    return [group for group in (groups[2:3] if mutation.interpreted else groups) if group[0]]
