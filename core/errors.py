"""Errors a person is meant to read: what is wrong, where, and what to do, in one or two lines."""

import importlib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

_VERBS = ("fit", "validate", "test", "predict")  # the Lightning CLI puts them before the keys it complains of


class QuintetError(Exception):
    """A mistake in the user's input or surroundings; the command line prints its message without a traceback."""

    def __init__(self, message: str = "") -> None:
        super().__init__(_without_worker(message, type(self).__name__))


def _without_worker(message: str, kind: str) -> str:
    """An error's own words, without the traceback that torch writes around those of a process that reads data."""
    if not re.match(r"Caught \w+ in .*\.\nOriginal Traceback", message):
        return message
    return re.split(rf"^(?:[\w.]+\.)?{kind}(?:: |$)", message, flags=re.MULTILINE)[-1].strip()


class QuintetWarning(UserWarning):
    """Something a person should know of their input that stops nothing; the command line prints it as one note."""


def first_line(error: object, length: int = 200) -> str:
    """The first line of what another library complains of, or the name of its error where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:length]


def nearest(name: str, choices: Iterable[str], count: int = 3) -> str:
    """A half-sentence naming the choices that look most like `name`, or all where none does and they are few."""
    choices = sorted(choices)
    # A full name is long where its last part is what was typed, so both are compared.
    by_tail = {choice.rsplit("/", 1)[-1].rsplit(".", 1)[-1]: choice for choice in choices}
    tail = name.rsplit("/", 1)[-1].rsplit(".", 1)[-1]
    close = get_close_matches(name, choices, n=count, cutoff=0.6)
    close += [by_tail[match] for match in get_close_matches(tail, by_tail, n=count, cutoff=0.6)]
    close = list(dict.fromkeys(close))[:count]
    if close:
        return "nearest: " + ", ".join(close)
    if len(choices) <= 12:
        return "choices: " + (", ".join(choices) or "none")
    return f"{len(choices)} choices, none of them close"


def import_class(class_path: Any, where: str) -> Any:
    """The class or function at a dotted path, None for a bare name. Raises QuintetError naming `where` it stood."""
    if not isinstance(class_path, str):
        raise QuintetError(f"{where}: {class_path!r} is no class; give its dotted path")
    module_path, _, name = class_path.rpartition(".")
    if not module_path:
        return None  # a bare class name: jsonargparse finds it among the subclasses of the argument's type
    try:
        module = importlib.import_module(module_path)
    except ImportError as error:
        raise QuintetError(f"{where}: cannot import {module_path} for {class_path}: {error}") from error
    if not hasattr(module, name):
        raise QuintetError(
            f"{where}: {module_path} has no {name}; {nearest(name, [n for n in dir(module) if n[0] != '_'])}"
        )
    return getattr(module, name)


def one_line(error: BaseException) -> str:
    """What went wrong, in one or two lines."""
    if isinstance(error, QuintetError):
        return str(error)
    text = _without_worker(str(error).strip(), type(error).__name__)
    if type(error).__name__ in ("ArgumentError", "NSKeyError"):
        return _option_error(text)
    if (words := in_words(error)) is not None:
        return words
    if found := re.search(r"Union subtypes.*?\n *Errors:\n *- (.*?)\n *- ", text, flags=re.DOTALL):
        text = found[1]  # what a constructor raised, which jsonargparse wraps
        if "\n" not in text:
            return text
    lines = [line for line in text.splitlines() if line.strip()] or [""]
    return f"{type(error).__name__}: {lines[0]} (QUINTET_DEBUG=1 shows where)"


def in_words(error: BaseException) -> str | None:
    """What a person can read of an error that another library or the system made of their input; None of any other."""
    text = " ".join(str(error).split())
    for pattern, words in _WORDS:
        if found := re.search(pattern, text):
            return words(*found.groups())
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "MisconfigurationException" in kinds:  # Lightning's, of options that do not go together
        return text
    if isinstance(error, OSError) and error.strerror:
        return f"{shortened(str(error.filename))}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"the package {error.name} is not installed: pip install {error.name.split('.')[0]}"
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object[error.start : error.end]!a} cannot be written as {error.encoding}; set PYTHONUTF8=1"
    return None


@contextmanager
def told_of(what: str) -> Iterator[None]:
    """While it lasts, what a constructor of another library complains of is a QuintetError about `what`."""
    try:
        yield
    except QuintetError:
        raise
    except Exception as error:
        raise QuintetError(f"{what}: {in_words(error) or ' '.join(str(error).split())}") from error


def shortened(text: str, length: int = 200) -> str:
    """Text that is cut where it is longer than a line of a terminal bears."""
    return text if len(text) <= length else f"{text[:length]}..."


def _not_measured(name: str, measured: str) -> str:
    known = [key for key in re.findall(r"[\w/.-]+", measured) if key not in ("epoch", "step")]
    return f"monitor={name}: nothing of this name is measured; {nearest(name, known)}"


_WORDS = (
    (r"ModelCheckpoint\(monitor='(.*?)'\)` could not find the monitored key .*?: \[(.*?)\]", _not_measured),
    (r"Early stopping conditioned on metric `(.*?)` which is not available.*?: (.*)", _not_measured),
    (r"No supported gpu backend found", lambda: "there is no GPU here; add trainer.accelerator=cpu"),
    (
        r"`(\w+)Accelerator` can not run on your system",
        lambda name: f"there is no {name} device here; add trainer.accelerator=cpu",
    ),
    (r"Neither `(\w+)` nor `\w+` is available", lambda name: f"this needs the package {name}: pip install {name}"),
    (r"Requirement '([\w-]+).*?' not met", lambda name: f"this needs the package {name}: pip install {name}"),
)


def _option_error(text: str) -> str:
    """The innermost complaint of a jsonargparse error, with the full key it is about."""
    keys = re.findall(r'[Pp]arser key "([\w.]+)"', text)
    key = ".".join(
        dict.fromkeys(part for item in keys for part in item.split(".") if part not in ("init_args", *_VERBS))
    )
    if found := re.search(r"Expected a path but (\S+) either not accessible", text):
        try:
            import_class(found[1], key)
        except QuintetError as error:
            return str(error)
        return f"{key}: {found[1]} is not what this option takes; give a class or a name"
    if found := re.search(r"[Uu]nrecognized arguments: (\S+)", text):
        return f"cannot read '{found[1]}': give all options as key=value, or all of them as --key value (quintet -h)"
    if found := re.search(r"class_path '(?:[\w.]+\.)?(\w+)':\s+the following arguments are required: ([\w, ]+)", text):
        remedy = "; add monitor=val/loss" if found[2] == "monitor" else ""
        return f"{key}: {found[1]} needs {found[2]}{remedy}"
    complaints = [
        line.strip(" -")
        for line in text.splitlines()
        if re.search(r"not accepted|Expected|expects|Unable|invalid|not valid|Not a valid|[Ii]mport", line)
        and not re.search(r"Does not validate against any|NoneType", line)
    ]
    if expected := _expected(text):
        what, got = expected
        given = re.search(r"Given value: (.*)", text)
        value = f", got {got.strip()}" if got else f", got {given[1]}" if given and len(given[1]) < 60 else ""
        return f"{key}: {what}{value}"
    complaint = re.sub(r'^[Pp]arser key "[^"]*": *', "", complaints[0] if complaints else text.splitlines()[0])
    return f"{key}: {complaint}" if key else complaint


def _expected(text: str) -> tuple[str, str] | None:
    """What jsonargparse expected at the innermost place, each kind of a union, and the value that it got."""
    found = re.findall(r"^([ -]*).*?(Expected an? [^\n]*?)(?:\.? Got value: ([^\n]*))?$", text, flags=re.MULTILINE)
    found = [(indent, what, got) for indent, what, got in found if "NoneType" not in what]
    if not found:
        return None
    first, _, got = found[0]
    kinds = [_kind(what.removeprefix("Expected ")) for indent, what, _ in found if indent == first]
    return "expected " + " or ".join(dict.fromkeys(kinds)), got


def _kind(what: str) -> str:
    """A type in plain words."""
    what = re.sub(r"<class '([\w.]+)'>", r"\1", what).replace("a int", "an int")
    choices = re.fullmatch(r"an? (?:typing\.)?Literal\[(.*)\]", what)
    return f"one of {choices[1]}" if choices else what
