"""Single mutations of Python source, as places in its bytes and what stands there instead; see score.py."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

COMPARISONS = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
}
OPERATORS = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"),
    ast.Pow: ("**", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
}
NAMES = {
    "min": "max",
    "max": "min",
    "any": "all",
    "all": "any",
    "zeros": "ones",
    "ones": "zeros",
    "zeros_like": "ones_like",
    "ones_like": "zeros_like",
    "zeros_": "ones_",
    "nanmean": "mean",
    "nansum": "sum",
    "nanstd": "std",
    "nanmin": "min",
    "nanmax": "max",
    "floor": "ceil",
    "ceil": "floor",
    "argmin": "argmax",
    "argmax": "argmin",
    "lstrip": "rstrip",
    "rstrip": "lstrip",
    "startswith": "endswith",
    "endswith": "startswith",
    "bfill": "ffill",
    "ffill": "bfill",
    "mean": "sum",
    "sum": "mean",
}
# How a picture looks, which is judged by eye: a test could only repeat the number.
LOOKS = {"alpha", "figsize", "fontsize", "frameon", "handlelength", "hspace", "labelcolor", "labelsize", "layout"}
LOOKS |= {"linewidth", "linewidths", "markersize", "ncols", "pad", "padding", "wspace", "zorder"}


@dataclass(frozen=True)
class Mutation:
    """`replacement` for the bytes from `start` to `end` of a file; `interpreted` where only Triton runs them."""

    file: str
    line: int
    start: int
    end: int
    replacement: str
    interpreted: bool = False

    def applied(self, source: bytes) -> bytes:
        return source[: self.start] + self.replacement.encode() + source[self.end :]

    def lines(self, source: bytes) -> tuple[str, str]:
        """The lines it touches, before and after, without what indents them."""
        first = source.rfind(b"\n", 0, self.start) + 1
        last = source.find(b"\n", self.end)
        before, head, tail = source[first:last], source[first : self.start], source[self.end : last]
        after = head + self.replacement.encode() + tail
        return tuple(" ".join(part.decode().split()) for part in (before, after))


class _Places(ast.NodeVisitor):
    """Collects (start, end, replacement, interpreted). Annotations, docstrings and what errors say stay as they are."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.interpreted = False
        self.found: list[tuple[int, int, str, bool]] = []

    def span(self, node: ast.AST) -> tuple[int, int]:
        return (
            self.starts[node.lineno - 1] + node.col_offset,
            self.starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def text(self, node: ast.AST) -> str:
        start, end = self.span(node)
        return self.source[start:end].decode()

    def add(self, start: int, end: int, replacement: str) -> None:
        self.found.append((start, end, replacement, self.interpreted))

    def between(self, left: ast.AST, right: ast.AST, old: str, new: str) -> None:
        """Another operator between two nodes."""
        start = self.source.find(old.encode(), self.span(left)[1], self.span(right)[0])
        if start >= 0:
            self.add(start, start + len(old), new)

    # What is left alone

    def visit_Raise(self, node: ast.Raise) -> None:
        pass

    def visit_arguments(self, node: ast.arguments) -> None:
        for default in [*node.defaults, *filter(None, node.kw_defaults)]:
            self.visit(default)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value:
            self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) == "TYPE_CHECKING":
            return
        self.negate(node.test)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer = self.interpreted
        self.interpreted |= any("jit" in ast.unparse(decorator) for decorator in node.decorator_list)
        self.visit(node.args)
        for statement in node.body:
            self.visit(statement)
        self.interpreted = outer

    def visit_FormattedValue(self, node: ast.FormattedValue) -> None:
        # Before Python 3.12 not every place within a text is told rightly.
        try:
            told = ast.dump(ast.parse(self.text(node.value).strip(), mode="eval").body)
        except (SyntaxError, UnicodeDecodeError, IndexError):
            return
        if told == ast.dump(node.value):
            self.visit(node.value)

    # What is changed

    def negate(self, test: ast.expr) -> None:
        if isinstance(test, ast.Name | ast.Attribute | ast.Call | ast.Subscript):
            start, end = self.span(test)
            self.add(start, end, f"(not {self.text(test)})")

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.negate(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self.negate(test)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for left, operator, right in zip([node.left, *node.comparators], node.ops, node.comparators):
            self.between(left, right, *COMPARISONS[type(operator)])
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in OPERATORS and not isinstance(node.left, ast.JoinedStr):
            self.between(node.left, node.right, *OPERATORS[type(node.op)])
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if type(node.op) in OPERATORS:
            old, new = OPERATORS[type(node.op)]
            self.between(node.target, node.value, f"{old}=", f"{new}=")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        change = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:]):
            self.between(left, right, *change)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not | ast.USub | ast.Invert):
            self.add(self.span(node)[0], self.span(node.operand)[0], "")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self.add(*self.span(node), str(not value))
        elif isinstance(value, int):
            self.add(*self.span(node), str(value + 1))
        elif isinstance(value, float):
            self.add(*self.span(node), repr(2 * value) if value else "1.0")

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)
        if name in NAMES:
            end = self.span(function)[1]
            self.add(end - len(name), end, NAMES[name])
        for keyword in node.keywords:
            if keyword.arg:
                self.leave_out(keyword)
        self.generic_visit(node)

    def leave_out(self, keyword: ast.keyword) -> None:
        start, end = self.span(keyword)
        before, after = self.source[:start].rstrip(), self.source[end:]
        if before.endswith(b","):
            self.add(len(before) - 1, end, "")
        elif after.lstrip().startswith(b","):
            self.add(start, end + after.index(b",") + 1, "")
        else:
            self.add(start, end, "")

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            self.add(*self.span(node), "pass")
        if not isinstance(node.value, ast.Constant):
            self.generic_visit(node)

    def visit_Break(self, node: ast.Break) -> None:
        self.add(*self.span(node), "continue")

    def visit_Continue(self, node: ast.Continue) -> None:
        self.add(*self.span(node), "break")


def mutations_of(root: Path, path: Path) -> Iterator[Mutation]:
    """All of a file; a few are refused by `changes`."""
    source = (root / path).read_bytes()
    places = _Places(source)
    places.visit(ast.parse(source))
    for start, end, replacement, interpreted in places.found:
        line = source.count(b"\n", 0, start) + 1
        yield Mutation(str(path), line, start, end, replacement, interpreted)


def is_a_look(mutation: Mutation, source: bytes) -> bool:
    """Whether it lies in an argument that says how a picture looks."""
    places = _Places(source)
    keywords = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.keyword) and node.arg in LOOKS)
    spans = [places.span(node) for node in keywords]
    # A keyword is left out together with the comma beside it.
    return any(start < mutation.end <= end + 1 for start, end in spans)


def changes(mutation: Mutation, source: bytes) -> bool:
    """Whether it can be parsed and reads differently."""
    try:
        return ast.dump(ast.parse(mutation.applied(source))) != ast.dump(ast.parse(source))
    except SyntaxError:
        return False
