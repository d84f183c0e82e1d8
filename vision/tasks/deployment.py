"""What of a task on images runs elsewhere: images of any size with values in [0, 1] in, probabilities or masks out.

Resampling is written as products with two matrices (quintet.core.position.resampling), in operations that every runtime
has and that take images of any size.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ...core.learning.deployable import Deployable
from ...core.learning.task import Task
from ...core.position.resampling import CUBIC, LINEAR, resampling_matrix
from ..data.images import ImageDescription
from ..data.transforms import KEPT

GRAY = 128 / 255  # of the bars around a padded image


def fitted(
    images: Float[Tensor, "batch channels _height _width"], image_size: Sequence[int], fit: str, reach: int
) -> Float[Tensor, "batch channels rows columns"]:
    """Images brought to `image_size` as in evaluation: their middle cut out ("crop"), "pad" or "stretch"."""
    sizes = [torch.full((), size, dtype=torch.float32) for size in images.shape[-2:]]
    goals = [torch.tensor(float(size)) for size in image_size]
    starts, extents = [torch.zeros(())] * 2, sizes
    before, inner = [torch.zeros(())] * 2, goals
    if fit == "crop":
        kept = [size * KEPT for size in sizes]
        ratio = goals[0] / goals[1]
        extents = [torch.minimum(kept[0], kept[1] * ratio), torch.minimum(kept[1], kept[0] / ratio)]
        starts = [(size - extent) / 2 for size, extent in zip(sizes, extents)]
    elif fit == "pad":
        inner = [
            torch.minimum(goal, (own / other * beside).round())
            for goal, own, other, beside in zip(goals, sizes, sizes[::-1], goals[::-1])
        ]
        before = [((goal - length) / 2).round() for goal, length in zip(goals, inner)]
    matrices, bars = [], []
    for axis in (0, 1):
        places = torch.arange(image_size[axis]) - before[axis]
        outside = (places < 0) | (places >= inner[axis])
        bars.append(outside)
        inside = torch.minimum(places.clamp(min=0), inner[axis] - 1)
        length, box = images.shape[axis - 2], (starts[axis], extents[axis])
        matrices.append(resampling_matrix(length, inside, inner[axis], reach, *box))
    seen = matrices[0] @ images @ matrices[1].T
    return seen.masked_fill(bars[0][:, None] | bars[1], GRAY) if fit == "pad" else seen


class DeployedImages(nn.Module):
    """Fits and normalizes images, and hands them to a task's network.

    Args:
        task: the trained task.
        resize: bring images to the size of the training first; else the network sees them at their own.
        reach: of the filter that resizes.
    """

    def __init__(self, task: Task, resize: bool, reach: int) -> None:
        super().__init__()
        known = task.description
        self.task, self.resize, self.reach = task, resize, reach
        self.image_size, self.fit, self.numbers = tuple(known.image_size), known.fit, known.numbers
        self.register_buffer("mean", torch.tensor(known.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(known.std)[:, None, None])

    def seen(self, images: Tensor) -> Tensor:
        """The images as the network sees them."""
        if self.resize:
            images = fitted(images, self.image_size, self.fit, self.reach)
            # As in 8-bit pictures, in which filters cannot overshoot.
            images = images if self.numbers else images.clamp(0, 1)
        return (images - self.mean) / self.std


class DeployedClassifier(DeployedImages):
    """From images to the probabilities of their classes."""

    def __init__(self, task: Task, resize: bool) -> None:
        super().__init__(task, resize, CUBIC)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.task.probabilities(self.seen(images)),)


class DeployedSegmenter(DeployedImages):
    """From images to the class probabilities of every pixel and the index of the most probable class."""

    def __init__(self, task: Task, resize: bool) -> None:
        super().__init__(task, resize, LINEAR)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found = self.task.probabilities(self.seen(images))
        if self.resize:
            found = F.interpolate(found, images.shape[-2:], mode="bilinear", align_corners=False)
        return found, found.argmax(1)


def deployable_images(
    task: Task, module: DeployedImages, outputs: list[str], about: dict[str, Any], note: str = ""
) -> Deployable:
    """Examples of images for a module, at the size of the training and at another."""
    known: ImageDescription = task.description
    height, width = known.image_size
    generator = torch.Generator().manual_seed(0)

    def images(number: int, height: int, width: int) -> Tensor:
        return torch.rand(number, known.channels, height, width, generator=generator)

    axes = {0: "batch", 2: "height", 3: "width"}
    other = images(3, height + height // 3 + 1, max(2, width - width // 4))
    found = {type(part).__name__ for part in task.modules() if getattr(part, "plans_grid", False)}
    if found and not module.resize:
        axes, other = {0: "batch"}, images(3, height, width)
        note = f"{' and '.join(sorted(found))} is planned for one size of grid: the file takes {height} x {width} alone"
    values = f"float32 (batch, {known.channels}, height, width) in [0, 1]"
    about = {"inputs": {"images": values}, "outputs": outputs, "classes": known.classes, **about}
    # Another size than what the network sees, so that what resizes is traced as what it is.
    inputs = images(2, height, width) if not module.resize else images(2, height + 3, width + 5)
    return Deployable(module, {"images": inputs}, {"images": other}, {"images": axes}, outputs, about, note)
