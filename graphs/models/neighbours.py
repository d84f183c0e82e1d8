"""Points of packed clouds: who is near whom, which few stand for all, and the clouds padded to one size."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

DISTANCES = 1 << 22  # so many are held at once


class Neighbours(NamedTuple):
    """Of each query the nearest points, nearest first; where a cloud has fewer, `real` is False and `index` 0."""

    index: Int[Tensor, "queries neighbours"]
    real: Bool[Tensor, "queries neighbours"]


class Sample(NamedTuple):
    """Which of the points are kept, cloud after cloud, and where each cloud's kept points begin and end."""

    index: Int[Tensor, " kept"]
    ptr: Int[Tensor, " borders"]


class Padded(NamedTuple):
    """Clouds side by side, zero behind their ends; `mask` is True for points that there are."""

    values: Float[Tensor, " clouds largest *channels"]
    mask: Bool[Tensor, "clouds largest"]


def padded(values: Float[Tensor, " points *channels"], ptr: Int[Tensor, " borders"]) -> Padded:
    """Packed points as clouds of one size, `ptr` holding 0 and where each cloud ends."""
    counts = ptr.diff()
    largest = int(counts.max()) if len(counts) else 0
    mask = torch.arange(largest, device=values.device) < counts.unsqueeze(1)
    clouds = values.new_zeros(len(counts), largest, *values.shape[1:])
    return Padded(clouds.masked_scatter(mask.view(*mask.shape, *[1] * (values.dim() - 1)), values), mask)


def gathered(
    values: Float[Tensor, "points channels"], index: Int[Tensor, "queries neighbours"]
) -> Float[Tensor, "queries neighbours channels"]:
    """values[index], of which a CPU computes the gradient many times faster."""
    return values.index_select(0, index.flatten()).unflatten(0, index.shape)


@torch.no_grad()
def nearest(
    points: Float[Tensor, "points dims"],
    ptr: Int[Tensor, " borders"],
    count: int,
    queries: Float[Tensor, "queries dims"] | None = None,
    query_ptr: Int[Tensor, " borders"] | None = None,
) -> Neighbours:
    """The `count` nearest points of each query within its cloud, by Euclidean distance; a point is its own nearest.

    Which of equally far points come is not said. Without queries, the points ask themselves.
    """
    clouds, mask = padded(points, ptr)
    asked, asking = (clouds, mask) if queries is None else padded(queries, query_ptr)
    chunk = max(DISTANCES // max(mask.numel(), 1), 1)
    parts = [_nearest(clouds, mask, part, count) for part in asked.split(chunk, dim=1)]
    local, real = (torch.cat(part, 1) for part in zip(*parts))
    index = (local + ptr[:-1].view(-1, 1, 1)).masked_fill(~real, 0)
    return Neighbours(index[asking], real[asking])


def _nearest(clouds: Tensor, mask: Tensor, asked: Tensor, count: int) -> tuple[Tensor, Tensor]:
    # The quick form by a product of matrices loses half the digits where clouds are far from the origin.
    distances = torch.cdist(asked, clouds, compute_mode="donot_use_mm_for_euclid_dist")
    distances = distances.masked_fill(~mask.unsqueeze(1), torch.inf)
    index = distances.topk(min(count, clouds.shape[1]), largest=False).indices
    return index, mask.unsqueeze(1).expand_as(distances).gather(2, index)


@torch.no_grad()
def farthest(points: Float[Tensor, "points dims"], ptr: Int[Tensor, " borders"], every: int) -> Sample:
    """One in `every` points of each cloud, rounded up, each the farthest from those before.

    The first is the farthest from the cloud's centre, so that the order of points says nothing. Paper: "PointNet++:
    Deep Hierarchical Feature Learning on Point Sets in a Metric Space", arXiv 1706.02413.
    """
    clouds, mask = padded(points, ptr)
    kept = (ptr.diff() + every - 1).div(every, rounding_mode="floor")
    away = mask.to(points.dtype).sub(0.5).mul(torch.inf)  # from those chosen: +inf at first, -inf of no point
    start = clouds.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
    score, chosen = (clouds - start.unsqueeze(1)).norm(dim=-1).masked_fill(~mask, -1.0), []
    for _ in range(int(kept.max()) if len(kept) else 0):
        chosen.append(score.argmax(1, keepdim=True))
        last = clouds.gather(1, chosen[-1].unsqueeze(-1).expand(-1, -1, clouds.shape[-1]))
        away = torch.minimum(away, (clouds - last).norm(dim=-1)).scatter(1, chosen[-1], -torch.inf)
        score = away
    order = torch.cat(chosen, 1) if chosen else kept.new_zeros(len(kept), 0)
    taken = torch.arange(order.shape[1], device=points.device) < kept.unsqueeze(1)
    return Sample((order + ptr[:-1].unsqueeze(1))[taken], torch.cat([ptr[:1], kept.cumsum(0)]))
