"""Patches, and runs of them that are hidden."""

import torch

from quintet.timeseries.models._patches import hide_patches, mask_patches, patch_features


def test_features_are_values_then_what_was_observed():
    values = torch.arange(8.0).reshape(1, 8, 1)
    observed = values != 3
    found = patch_features(values, observed, 4)
    assert found.tolist() == [[[[0, 1, 2, 0, 1, 1, 1, 0], [4, 5, 6, 7, 1, 1, 1, 1]]]]


def test_hidden_runs_have_the_lengths_and_the_share_asked_for():
    torch.manual_seed(0)
    hidden = mask_patches(40, 4000, 0.25, 5)
    # In the mean a share p of U(0, 1/4) is hidden.
    assert abs(hidden.float().mean().item() - 0.125) < 0.01
    assert hidden.float().mean(1).min() == 0
    alone = mask_patches(40, 4000, 0.25, 1).float()
    together = hidden.float()
    # Neighbours agree more often where runs are longer than one.
    assert (together[:, 1:] * together[:, :-1]).mean() > 2 * (alone[:, 1:] * alone[:, :-1]).mean()


def test_whole_patches_of_all_channels_are_hidden():
    torch.manual_seed(0)
    observed = torch.rand(50, 24, 3) < 0.9
    shown = hide_patches(observed, 4, 1.0, 3)
    gone = (observed & ~shown).unflatten(1, (6, 4)).flatten(2)
    kept = (observed & shown).unflatten(1, (6, 4)).flatten(2)
    assert not (gone.any(-1) & kept.any(-1)).any()
    assert gone.any()
    assert kept.any()
