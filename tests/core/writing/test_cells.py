"""Cells of tables: text from data and files is never a formula, and everything else stays as it is."""

import pytest

from quintet.core.writing.cells import path_cell, text_cell

FORMULAS = ["=1+1", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\u00a0=1", "\uff1d1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula(text):
    assert text_cell(text) == "'" + text.replace("\r", "\n")
    assert path_cell(text) == f"./{text}"


@pytest.mark.parametrize(
    "text", ["", "cat", "-1", "+2.5", "-1e-5", "a=b", "1-2", "'=1", "./=a.png", "-inf", "2024-01-01"]
)
def test_other_cells_stay(text):
    assert text_cell(text) == text
    assert path_cell(text) == text


def test_a_bare_carriage_return_begins_no_row():
    assert text_cell("a\r=1") == "a\n=1"  # in quotes when it is written
