"""Nothing that is printed moves the cursor, hides itself or turns the text around; all other letters stay."""

import io

import pytest
from rich.table import Table
from rich.text import Text

from quintet.core.writing.console import Console, printable

WRITTEN = {
    "\x1b[2J": r"\x1b[2J",
    "\x07": r"\x07",
    "\x7f": r"\x7f",
    "\x9b31m": r"\x9b31m",
    "\u202eabc": r"\u202eabc",
    "\u2066": r"\u2066",
    "\u2028": r"\u2028",
    "\udcff": r"\udcff",
    "\r": r"\r",
}


@pytest.mark.parametrize("text", WRITTEN)
def test_control_characters_are_written_out(text):
    assert printable(f"a{text}b") == f"a{WRITTEN[text]}b"


@pytest.mark.parametrize("text", ["Größe", "日本語", "a\tb\n", "\U0001f469\u200d\U0001f680", "[x]", ""])
def test_other_text_stays(text):
    assert printable(text) == text


def test_the_console_writes_them_out_wherever_they_stand():
    console = Console(file=io.StringIO(), width=80, markup=False)
    table = Table("bell\x1b[31m")
    table.add_row(Text("cell\x1b]0;title"))
    console.print(table)
    console.print("line\x1b[2J")
    shown = console.file.getvalue()
    assert "\x1b" not in shown
    for text in (r"bell\x1b[31m", r"cell\x1b]0", r"line\x1b[2J"):
        assert text in shown
