"""Photographs made for a test, and a cache folder of the test's own."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """What is remembered about files goes to a folder of the test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("QUINTET_CACHE", str(folder))
    return folder


@pytest.fixture
def photograph():
    """Function that writes a JPEG or PNG of seeded noise around a colour, and returns its path."""

    def write(path: Path, seed: int = 0, colour: tuple[int, int, int] = (120, 120, 120), size=(40, 32)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).integers(-40, 40, (size[1], size[0], 3))
        Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path)
        return path

    return write


@pytest.fixture
def photographs(tmp_path, photograph):
    """A folder of three classes: 12 red, 10 green and 8 blue photographs."""
    root = tmp_path / "photos"
    colours = {"red": (200, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 200)}
    for (name, colour), count in zip(colours.items(), (12, 10, 8), strict=True):
        for number in range(count):
            photograph(root / name / f"{number:02}.jpg", seed=hash_of(name, number), colour=colour)
    return root


def hash_of(name: str, number: int) -> int:
    return sum(map(ord, name)) * 1000 + number
