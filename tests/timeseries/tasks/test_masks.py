"""Hidden cells: their share, their shape, and that evaluation hides the same ones again."""

import pytest
import torch

from quintet.timeseries.metrics.anomalies import stretches
from quintet.timeseries.tasks.imputation import gap_lengths
from quintet.timeseries.tasks.masks import hidden_cells, repeatable_cells


def observed(batch=64, length=60, channels=4):
    return torch.ones(batch, length, channels, dtype=torch.bool)


@pytest.mark.parametrize("pattern", ["points", "blocks", "rows", "mixed"])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_share_is_hidden(pattern, share):
    cells = hidden_cells(observed(512), share, 6, pattern, torch.Generator().manual_seed(0))
    assert cells.float().mean().item() == pytest.approx(share, abs=0.03)
    assert cells[:, 0].float().mean().item() == pytest.approx(share, abs=0.06)  # at the edge too


def test_patterns_have_their_shapes():
    draw = torch.Generator().manual_seed(0)
    rows = hidden_cells(observed(), 0.3, 5, "rows", draw)
    assert torch.equal(rows.any(-1), rows.all(-1))
    blocks = hidden_cells(observed(), 0.3, 5, "blocks", draw)
    inner = [run for run in stretches(blocks[0, :, 0].numpy()) if run[0] > 0 and run[1] < 59]
    assert all(last - first + 1 >= 5 for first, last in inner)
    assert not torch.equal(blocks.any(-1), blocks.all(-1))


def test_only_what_was_observed_is_hidden():
    given = observed()
    given[:, 10:20] = False
    assert not hidden_cells(given, 0.9, 5, "mixed")[:, 10:20].any()


def test_evaluation_hides_the_same_cells_in_any_batch():
    names = [(0, number) for number in range(8)]
    together = repeatable_cells(observed(8), names, 0.3, 5, "mixed")
    alone = torch.cat([repeatable_cells(observed(1), [name], 0.3, 5, "mixed") for name in names])
    assert torch.equal(together, alone)
    assert not torch.equal(together[0], together[1])


def test_gap_lengths():
    seen = torch.tensor([True, False, False, True, False, True])[None, :, None]
    assert gap_lengths(seen).flatten().tolist() == [0, 2, 2, 0, 1, 0]
