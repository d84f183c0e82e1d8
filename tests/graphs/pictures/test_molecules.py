"""Pictures of molecules before training show what the table says."""

import numpy as np
import pandas as pd
import pytest

from quintet.graphs import Molecules
from quintet.graphs.pictures.molecules import drawing

CHAIN = [f"{'C' * length}O" for length in range(1, 21)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QUINTET_CACHE", str(tmp_path / "cache"))


def pictures_of(frame: pd.DataFrame, **options) -> dict:
    return dict(Molecules(frame, **options).pictures())


def texts(figure) -> list[str]:
    return [text for panel in figure.axes for text in [panel.get_title()] if text]


def test_a_sheet_goes_from_the_lowest_target_to_the_highest():
    values = np.random.default_rng(0).permutation(20)
    figures = pictures_of(pd.DataFrame({"smiles": CHAIN, "y": values, "name": [f"$n_{v}$" for v in values]}))
    assert texts(figures["molecules"]) == [f"$n_{value}$\n{value}" for value in range(20)]
    assert figures["molecules"].get_suptitle() == "the DataFrame: 20 of 20 molecules, by y"
    figures["molecules"].draw_without_rendering()  # no name is read as a formula
    heights = sum(patch.get_height() for patch in figures["targets"].axes[0].patches)
    assert figures["targets"].axes[0].get_title() == "y"
    assert heights >= 20


def test_faults_are_no_reason_to_show_nothing():
    figures = pictures_of(pd.DataFrame({"smiles": [*CHAIN, "CC("], "a": range(21), "b": range(21)}))
    assert list(figures) == ["molecules"]
    assert texts(figures["molecules"])[0].startswith("row ")


def test_classes_come_in_turn():
    frame = pd.DataFrame({"smiles": [f"{'C' * n}O" for n in range(1, 101)], "taste": ["sweet"] * 95 + ["sour"] * 5})
    titles = texts(pictures_of(frame, val_fraction=0.3)["molecules"])
    assert sum(title.endswith("sour") for title in titles) == 5


def test_a_drawing_has_ink_and_a_size():
    picture = np.asarray(drawing("c1ccccc1O", 120))
    assert picture.shape == (120, 120, 3)
    assert 0.002 < (picture < 128).mean() < 0.3
