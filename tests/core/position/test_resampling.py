"""Resampling by a matrix against torch's own filters and against Pillow's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from quintet.core.position.resampling import CUBIC, LINEAR, resampling_matrix


@pytest.mark.parametrize(("reach", "mode"), [(LINEAR, "bilinear"), (CUBIC, "bicubic")])
@pytest.mark.parametrize(("length", "size"), [(7, 7), (7, 20), (20, 7), (100, 3), (3, 100), (1, 4)])
def test_it_is_the_filter_of_interpolate_with_antialias(reach, mode, length, size):
    samples = torch.randn(1, 2, length, 5)
    expected = F.interpolate(samples, (size, 5), mode=mode, antialias=True, align_corners=False)
    matrix = resampling_matrix(length, torch.arange(size), torch.tensor(float(size)), reach)
    torch.testing.assert_close(matrix @ samples, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("start", "extent"), [(0.0, 30.0), (2.5, 20.25), (10.0, 5.0)])
def test_a_part_is_resampled_as_pillow_does(start, extent):
    samples = np.random.default_rng(0).random((1, 30)).astype(np.float32)
    resized = Image.fromarray(samples).resize((12, 1), Image.Resampling.BICUBIC, box=(start, 0, start + extent, 1))
    matrix = resampling_matrix(30, torch.arange(12), torch.tensor(12.0), CUBIC, start, torch.tensor(extent))
    torch.testing.assert_close(
        torch.from_numpy(samples) @ matrix.T, torch.from_numpy(np.array(resized)), rtol=1e-4, atol=1e-5
    )
