"""Sliding windows: cover everything, average where they overlap, keep little; masks enlarged in bands."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from quintet.vision.tasks.sliding_window import enlarged_classes, positions, slide


@given(st.integers(1, 200), st.integers(1, 60), st.floats(0, 0.9))
def test_windows_cover_everything_and_overlap_enough(length, window, overlap):
    starts = positions(length, window, overlap)
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    assert starts[-1] == max(0, length - window)
    for one, two in pairwise(starts):
        # Whole pixels: the step may be rounded up by one.
        assert two - one <= max(1, window * (1 - overlap)) + 1


def of_pixels(images):
    """Probabilities that depend on each pixel alone, so that windows change nothing."""
    return torch.stack([images[:, 0], 1 - images[:, 0]], dim=1)


@pytest.mark.parametrize("size", [(8, 8), (5, 6), (8, 30), (37, 8), (41, 29)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.8])
def test_bands_make_up_the_whole(size, overlap):
    image = torch.rand(3, *size)
    bands = list(slide(of_pixels, image, (8, 8), overlap, batch=3))
    assert [top for top, _ in bands] == [sum(band.shape[1] for _, band in bands[:index]) for index in range(len(bands))]
    torch.testing.assert_close(torch.cat([band for _, band in bands], dim=1), of_pixels(image[None])[0])


def test_overlapping_windows_are_averaged_with_falling_weights():
    image = torch.arange(12.0).view(1, 1, 12)
    seen = []

    def numbered(windows):
        seen.extend(windows[:, 0, 0, 0].tolist())
        return windows[:, :, :, :1].expand(-1, 2, -1, 8)

    ((_, band),) = slide(numbered, image, (1, 8), overlap=0.5)
    assert seen == [0, 4]
    weights = torch.tensor([1, 2, 3, 4, 4, 3, 2, 1.0])
    expected = torch.zeros(12)
    mass = torch.zeros(12)
    for start in seen:
        expected[int(start) : int(start) + 8] += weights * start
        mass[int(start) : int(start) + 8] += weights
    torch.testing.assert_close(band[0, 0], expected / mass)


def test_memory_does_not_grow_with_the_image():
    largest = 0

    def watched(windows):
        nonlocal largest
        largest = max(largest, windows.shape[0])
        return windows.new_full((windows.shape[0], 5, *windows.shape[-2:]), 0.2)

    bands = [band.shape for _, band in slide(watched, torch.zeros(3, 500, 40), (16, 16), 0.25, batch=2)]
    assert largest == 2
    assert max(rows for _, rows, _ in bands) <= 16
    assert sum(rows for _, rows, _ in bands) == 500


@pytest.mark.parametrize("size", [(40, 60), (41, 59), (10, 15), (7, 9)])
def test_bands_of_an_enlarged_mask_are_the_whole(size):
    probabilities = torch.randn(4, 10, 15, generator=torch.Generator().manual_seed(0)).softmax(0)
    expected = F.interpolate(probabilities[None], size, mode="bilinear", align_corners=False)[0]
    found = enlarged_classes(probabilities, size, elements=4 * size[1] * 3)
    assert found.dtype == torch.uint8
    # Where two classes are equally probable but for rounding, either is right.
    chosen = expected.gather(0, found[None].long())[0]
    torch.testing.assert_close(chosen, expected.max(0).values, rtol=1e-5, atol=1e-6)
