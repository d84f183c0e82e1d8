"""Resampling along one axis as a matrix: the filters of Pillow and of F.interpolate with antialias, for any runtime."""

import torch
from jaxtyping import Float
from torch import Tensor

LINEAR, CUBIC = 1, 2  # by how many places of the coarser grid the filters reach


def resampling_matrix(
    length: int, places: Tensor, size: Tensor, reach: int, start: Tensor | float = 0.0, extent: Tensor | None = None
) -> Float[Tensor, "_places _length"]:
    """Weights by which `length` samples make up `places`, some of `size` cells laid over [start, start + extent).

    The filter is the triangle (`reach` 1) or the cubic with a = -0.5 (`reach` 2), widened where the cells are larger
    than samples; its weights sum to 1. Sizes may be symbolic: a graph that holds this matrix resamples to any size.
    Paper: "Cubic convolution interpolation for digital image processing", IEEE TASSP 29(6), 1981.

    Args:
        length: number of samples.
        places: numbers of the cells that are wanted.
        size: number of all cells.
        reach: of the filter.
        start: where the cells begin, in samples.
        extent: how long they are together; None means as long as the samples.
    """
    extent = torch.full((), length, dtype=torch.float32, device=places.device) if extent is None else extent
    step = extent / size
    centres = start + (places + 0.5) * step
    samples = torch.arange(length, device=places.device) + 0.5
    distance = ((samples - centres[:, None]) / step.clamp(min=1.0)).abs()
    if reach == LINEAR:
        weights = (1 - distance).clamp(min=0)
    else:
        near = (1.5 * distance - 2.5) * distance * distance + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        weights = torch.where(distance < 1, near, far.where(distance < 2, torch.zeros_like(far)))
    return weights / weights.sum(1, keepdim=True)
