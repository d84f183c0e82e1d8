"""What is wrong with data: one line that stops a run, and sections a person reads."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from quintet.core.data import Fault
from quintet.core.data.faults import refusal
from quintet.core.data.report import stacked

FAULTS = [Fault(f"a.csv line {number}", "has '[x]', no number", "correct it") for number in range(30)]


def read(table):
    console = Console(width=90, file=io.StringIO())
    console.print(table)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("count", "command", "after"),
    [(1, "look", ""), (2, "look a.csv", " (2 faults in all: look a.csv)"), (30, "", " (30 faults in all)")],
)
def test_the_first_fault_stops_a_run_and_the_others_are_counted(count, command, after):
    assert str(refusal(FAULTS[:count], command)) == "a.csv line 0 has '[x]', no number; correct it" + after


def test_sections_stand_below_one_another():
    assert read(stacked(Text("one"), None, Text("two"))) == ["one", "", "two", ""]
