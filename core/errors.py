"""Errors a person is meant to read: what is wrong, where, and what to do, in one or two lines."""

from collections.abc import Iterable
from difflib import get_close_matches


class QuintetError(Exception):
    """A mistake in the user's input or surroundings; the command line prints its message without a traceback."""


def nearest(name: str, choices: Iterable[str], count: int = 3) -> str:
    """A half-sentence naming the choices that look most like `name`, or all of them where none does and they are few."""
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
