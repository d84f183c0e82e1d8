"""Pictures any domain has."""

import pytest
import torch

from quintet.core.pictures.charts import COUNTED, NAMED, confusion_matrix, learning_curves


def test_one_panel_a_quantity_with_a_line_for_each_stage(tmp_path):
    rows = [
        {"epoch": 0, "step": 3, "train/loss": 2.0, "val/loss": 2.5, "val/f1_score": 0.1, "lr": 1.0},
        {"epoch": 1, "step": 7, "train/loss": 1.0, "val/f1_score": 0.3},
        {"epoch": 1, "step": 8, "test/loss": 1.0},
    ]
    figure = learning_curves(rows)
    loss, score = figure.axes
    assert [loss.get_title(), score.get_title()] == ["loss", "f1 score"]
    lines = {line.get_label(): line.get_xydata().tolist() for line in loss.lines}
    assert lines == {"train": [[1, 2.0], [2, 1.0]], "val": [[1, 2.5]]}
    assert [line.get_xydata().tolist() for line in score.lines] == [[[1, 0.1], [2, 0.3]]]
    figure.savefig(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


@pytest.mark.parametrize(("quantities", "shape"), [(1, (1, 1)), (3, (1, 3)), (4, (2, 3))])
def test_the_grid_grows_with_the_quantities_and_hides_what_is_left_over(quantities, shape):
    figure = learning_curves([{"epoch": 0, "step": 0} | {f"val/m{number}": 1.0 for number in range(quantities)}])
    grid = figure.axes[0].get_gridspec()
    assert (grid.nrows, grid.ncols) == shape
    assert sum(panel.axison for panel in figure.axes) == quantities


def test_no_rows_give_an_empty_picture(tmp_path):
    learning_curves([]).savefig(tmp_path / "curves.png")


@pytest.mark.parametrize("number", [2, COUNTED, COUNTED + 1, NAMED, NAMED + 1])
def test_confusion_matrix(number, tmp_path):
    counts = torch.diag(torch.full((number,), 7))
    counts[1, 0] = 3
    figure = confusion_matrix(counts, [f"class $ {index}" for index in range(number)])
    figure.savefig(tmp_path / "confusion.png", dpi=40)
    panel, aside = figure.axes[:2]
    assert panel.get_title() == f"{7 * number / (7 * number + 3):.1%} of {7 * number + 3} test samples right"
    written = [text.get_text() for text in panel.texts]
    assert written.count("7") == (number if number <= COUNTED else 0)
    assert [tick.get_text() for tick in panel.get_xticklabels()][:1] == ["class $ 0"] or number > NAMED
    assert aside.texts[0].get_text() == "3  class $ 1 \N{RIGHTWARDS ARROW} class $ 0"


def test_a_confusion_matrix_of_nothing(tmp_path):
    confusion_matrix(torch.zeros(3, 3, dtype=torch.long), list("abc")).savefig(tmp_path / "empty.png", dpi=40)


@pytest.mark.parametrize("epochs", [1, 3, 40])
def test_epochs_are_counted_in_whole_numbers(epochs):
    figure = learning_curves([{"epoch": epoch, "step": epoch, "train/loss": 1.0} for epoch in range(epochs)])
    assert all(float(tick).is_integer() for tick in figure.axes[0].get_xticks())
