"""One palette, written once, whose colours are told apart by every kind of colour vision."""

import ast
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb

import quintet
from quintet.core.pictures import palette

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency" (2009),
# severity 1: what linear RGB becomes for who lacks the long or the middle wavelengths.
VISION = {
    "all": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


@pytest.mark.parametrize("kind", VISION)
def test_colours_are_told_apart_by_every_kind_of_colour_vision(kind):
    linear = np.array([to_rgb(colour) for colour in palette.DISTINCT]) ** 2.2
    seen = np.clip(linear @ np.transpose(VISION[kind]), 0, 1) ** (1 / 2.2)
    assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) > 0.15


def test_its_colours_are_written_in_one_file():
    root = Path(quintet.__file__).parent
    written = {value for value in vars(palette).values() if isinstance(value, str) and value.startswith("#")}
    assert len(written) == 10
    files = {path for room in ("core", "vision", "timeseries") for path in (root / room).rglob("*.py")}
    for path in files - {root / "core" / "pictures" / "palette.py"}:
        text = path.read_text(encoding="utf-8")
        if any(colour in text.upper() for colour in written):
            constants = {node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)}
            assert not written & {value.upper() for value in constants if isinstance(value, str)}, path
