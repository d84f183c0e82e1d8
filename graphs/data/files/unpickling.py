"""Pickles of arrays, sparse matrices and lists, read without running them: Planetoid's files are such.

A pickle is a program for a machine that imports what it names and calls it. The machine here knows only the
instructions of plain data. What a pickle would call stays a record, `Made(name, arguments, state)`, of a name from a
short list; nothing is imported or called, and the arrays are then built from their bytes once the sizes agree.
"""

import io
import pickletools
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ....core.errors import QuintetError

MOST_BYTES = 256 << 20  # of a file
MOST_STEPS = 10_000_000  # instructions of a file: one of a single byte takes sixty in memory
ARRAYS = frozenset(
    f"numpy{room}{name}"
    for room in (".core.multiarray.", "._core.multiarray.", ".")
    for name in ("_reconstruct", "scalar", "ndarray", "dtype")
)
SPARSE = frozenset(f"scipy.sparse{room}csr_matrix" for room in (".csr.", "._csr.", "."))
PLAIN = frozenset({"collections.defaultdict", "__builtin__.list", "builtins.list", "_codecs.encode"})
PLAIN |= frozenset({"__builtin__.bytes", "builtins.bytes"})
PLAIN |= frozenset({"copy_reg._reconstructor", "copyreg._reconstructor", "__builtin__.object", "builtins.object"})
NAMES = ARRAYS | SPARSE | PLAIN


class Refused(QuintetError):
    """A pickle holds something other than arrays, sparse matrices and lists."""


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names; only its name."""

    text: str


@dataclass(eq=False)
class Made:
    """What a pickle would make by calling something.

    Args:
        name: of what it would call.
        arguments: with which.
        state: what it would then set.
        items: what it would put in, of a mapping.
    """

    name: str
    arguments: tuple
    state: Any = None
    items: dict[int | str, Any] = field(default_factory=dict)


def read_pickle(path: Path, names: Collection[str] = NAMES) -> Any:
    """What a pickle describes, as plain data and `Made`. Raises QuintetError where it names or does anything else."""
    if path.stat().st_size > MOST_BYTES:
        raise QuintetError(f"{path} is larger than {MOST_BYTES >> 20} MiB; pickles are not read at that size")
    try:
        return _Machine(names).run(path.read_bytes())
    except Refused as error:
        raise QuintetError(f"{path} was refused: {error}") from None
    # What a damaged file can make of a stack, in as many ways as there are instructions.
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, UnicodeError, OverflowError) as error:
        raise QuintetError(f"{path} is damaged: it is no pickle that can be read to its end") from error


class _Machine:
    """The stack, the marks and the memory of one file."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = names
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memory: dict[int, Any] = {}

    def run(self, content: bytes) -> Any:
        self.spare = 4 * len(content) + 4096  # bytes that text may be encoded to, again and again
        for step, (opcode, argument, _) in enumerate(pickletools.genops(io.BytesIO(content))):
            if step > MOST_STEPS:
                raise Refused(f"it has more than {MOST_STEPS:,} instructions")
            if opcode.name == "STOP":
                return self.stack.pop()
            if opcode.name in _CONSTANTS:
                self.stack.append(_CONSTANTS[opcode.name]())
            elif opcode.name in _VALUES:
                self.stack.append(argument)
            elif opcode.name in _ACTIONS:
                _ACTIONS[opcode.name](self, argument)
            elif opcode.name not in ("PROTO", "FRAME"):
                raise Refused(f"it has the instruction {opcode.name}, which arrays and lists do not need")
        raise ValueError("no end")

    def name(self, text: str) -> None:
        dotted = text.replace(" ", ".")
        if dotted not in self.names:
            raise Refused(f"it names {dotted[:80]}, which is no array, sparse matrix or list")
        self.stack.append(Name(dotted))

    def stack_name(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.name(f"{module} {name}")

    def call(self, _: None) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        if not isinstance(called, Name) or not isinstance(arguments, tuple):
            raise Refused("it calls what is no array, sparse matrix or list")
        if called.text.endswith(".bytes") and not arguments:
            self.stack.append(b"")  # the way Python 3 writes none for Python 2
        else:
            encoded = called.text == "_codecs.encode"
            self.stack.append(self.encoded(*arguments) if encoded else Made(called.text, arguments))

    def encoded(self, text: str, encoding: str) -> bytes:
        """Bytes, the way Python 3 writes them for Python 2."""
        if encoding != "latin1" or not isinstance(text, str):
            raise Refused(f"it encodes text as {encoding!r}"[:80])
        self.spare -= len(text)
        if self.spare < 0:
            raise Refused("it encodes far more text than it holds")
        return text.encode("latin1")

    def set_state(self, _: None) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if not isinstance(made, Made) or made.state is not None:
            raise Refused("it sets the state of what has none")
        made.state = state

    def since_mark(self) -> list[Any]:
        begin = self.marks.pop()
        items = self.stack[begin:]
        del self.stack[begin:]
        return items

    def put_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        mapping = target.items if isinstance(target, Made) else target
        if not isinstance(mapping, dict) or len(items) % 2:
            raise Refused("it puts keys into what is no mapping")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, int | str):  # hashing what is nested deeply would overrun the stack of C
                raise Refused("it has keys that are neither numbers nor words")
            mapping[key] = value

    def append(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise Refused("it appends to what is no list")
        self.stack[-1].extend(items)

    def tuple_of(self, count: int) -> None:
        items = tuple(self.stack[len(self.stack) - count :])
        if len(items) != count:
            raise IndexError("stack")
        del self.stack[len(self.stack) - count :]
        self.stack.append(items)

    def pop(self, count: int) -> list[Any]:
        return [self.stack.pop() for _ in range(count)][::-1]


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
_VALUES = frozenset((*_NUMBERS, *_TEXTS, "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"))


def _put(machine: _Machine, place: int | None) -> None:
    machine.memory[len(machine.memory) if place is None else place] = machine.stack[-1]


_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.stack_name,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "BUILD": _Machine.set_state,
    "SETITEMS": lambda machine, _: machine.put_items(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.put_items(machine.pop(2)),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "APPEND": lambda machine, _: machine.append(machine.pop(1)),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.since_mark())),
    "LIST": lambda machine, _: machine.stack.append(machine.since_mark()),
    "DICT": lambda machine, _: _dict(machine),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"), _put),
    **dict.fromkeys(
        ("BINGET", "LONG_BINGET", "GET"), lambda machine, place: machine.stack.append(machine.memory[place])
    ),
}


def _dict(machine: _Machine) -> None:
    items = machine.since_mark()
    machine.stack.append({})
    machine.put_items(items)
