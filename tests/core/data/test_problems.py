"""Faults and remarks are all counted, whatever is listed of them."""

from io import StringIO

from rich.console import Console

from quintet.core.data import Fault
from quintet.core.data.problems import SHOWN, problems_table


def lines(table) -> list[str]:
    console = Console(file=StringIO(), width=200)
    console.print(table)
    return [line.strip() for line in console.file.getvalue().splitlines()]


def test_faults_come_with_their_remedy_or_are_left_out():
    fault = Fault("a.csv row 3", "has [no] date", "add it")
    assert lines(problems_table([fault], ["five rows are empty"])) == [
        "fault a.csv row 3 has [no] date; add it",
        "note  five rows are empty",
    ]
    assert lines(problems_table([fault], [], skipped=True)) == ["fault a.csv row 3 has [no] date; left out"]
    assert problems_table([], []) is None


def test_those_that_are_not_listed_are_counted():
    found = lines(problems_table([Fault("a", str(number), "b") for number in range(SHOWN + 2)], ["c"] * (SHOWN + 1)))
    assert len(found) == 2 * (SHOWN + 1)
    assert found[SHOWN] == "fault and 2 more"
    assert found[-1] == "note  and 1 more"
