"""Semantic segmentation: a class for every pixel, by any backbone with any decoder."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
import torch
import torch.nn.functional as F
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix

from ...core.adaptation.lora import named_weights
from ...core.data.module import DataModule
from ...core.errors import QuintetError
from ...core.learning.baselines import Baselines
from ...core.learning.deployable import Deployable
from ...core.learning.metrics import collection
from ...core.learning.network_task import NetworkTask
from ...core.learning.task import StepResult, Task, command
from ...core.objectives import balanced_weights
from ...core.weights.networks import Kind, refuse_built
from ...core.weights.pretrained import LoadReport
from ..backbones import MAPS, Backbone, build_segmentation_network, load_segmentation_backbone
from ..data.images import denormalize
from ..data.masks import IGNORED, MaskDescription, MaskSample
from ..models.decoders import Decoder, enlarge
from ..models.segmentation import FeaturePyramid
from ..pictures import MaskGallery, ShownMask, class_bars, confusion_matrix, mask_rows, overlay_grid
from ..pictures.attention import attention_pictures
from ..pictures.masks import ROWS, reduced
from .deployment import DeployedSegmenter, deployable_images
from .losses import CrossEntropy, DenseLoss
from .mask_writer import SHOWN, MaskWriter, WriteEach
from .scores import ForegroundIoU, MeanDice, MeanIoU, PixelAccuracy, class_iou, confusion_of
from .sliding_window import enlarged_classes, slide

FREQUENT = "most_frequent"  # what the baseline is called beside the model


@dataclass
class MaskPredictions:
    """Masks of class indices (H, W) of a batch at the files' size, and small images for a picture of the first."""

    paths: list[str]
    masks: list[Tensor]
    shown: list[ShownMask]

    def write(self, writer: MaskWriter) -> None:
        for index, (path, mask) in enumerate(zip(self.paths, self.masks, strict=True)):
            writer.add(path, mask, self.shown[index] if index < len(self.shown) else None)


class SemanticSegmenter(NetworkTask):
    """Gives every pixel a class, by any network with feature maps and any decoder, from random or published weights.

    Two classes are background and foreground; a softmax over them is a sigmoid of the difference of their scores. The
    loss on validation and test data is the plain cross entropy. Measured at the masks' own size are the mean over the
    classes of intersection over union and of the Dice score, and the share of pixels that are right; pixels without a
    class count nowhere, and a class that occurs nowhere is no part of a mean. Beside every test stand the numbers of
    the most frequent class of the training masks, given to every pixel.

    Args:
        backbone: a registered name such as mit_b0, vit_small or segformer_b0 (whole, with its decoder), `timm:<name>`,
            or a class or function called with `num_classes` and `in_channels`.
        decoder: a class or function called with `feature_info` and `num_classes`; None means SegFormer's.
        loss: a class or function called with `weight` and `ignore_index`, e.g. quintet.vision.tasks.losses.Dice; None
            means cross entropy.
        class_weights: "balanced" weighs each class by the inverse of its number of training pixels, "square_root" by
            the root of that.
        overlap: share that neighbouring windows have in common, where the data says fit="window".
        test_time_flip: in test and prediction look at the mirrored image too, and average both.
        test_time_scales: sizes, as multiples of the image's, at which test and prediction look at it, and average; with
            windows, of each window.
        **network: see quintet.core.learning.network_task.NetworkTask. The head, which "backbone" in `freeze` leaves
            out, is the decoder and the feature pyramid that a plain backbone is given, of which no weights are
            published.

    Raises:
        QuintetError: an unknown backbone, one without feature maps or that takes no mixer, weights that do not fit.
    """

    description_type: ClassVar[type] = MaskDescription
    kind: ClassVar[Kind] = MAPS
    fixed: ClassVar[frozenset[str]] = Task.fixed | {"decoder"}

    def __init__(
        self,
        backbone: str | Backbone = "mit_b0",
        backbone_arguments: dict[str, Any] | None = None,
        decoder: Decoder | None = None,
        loss: DenseLoss | None = None,
        class_weights: Literal["balanced", "square_root"] | None = None,
        overlap: float = 0.25,
        test_time_flip: bool = False,
        test_time_scales: list[float] | None = None,
        **network: Any,
    ) -> None:
        super().__init__(backbone, backbone_arguments, **network)
        refuse_built(decoder, "decoder")
        refuse_built(loss, "loss")
        if not 0 <= overlap < 1:
            raise QuintetError(f"model.overlap is {overlap}; it lies between 0 and 1")
        self.decoder = decoder
        self.loss_factory = CrossEntropy if loss is None else loss
        self.class_weights = class_weights
        self.overlap = overlap
        self.test_time_flip = test_time_flip
        self.test_time_scales = list(test_time_scales or [1.0])
        if min(self.test_time_scales) <= 0:
            raise QuintetError(
                f"model.test_time_scales is {self.test_time_scales}; give positive ones, such as [0.75, 1]"
            )
        self.gallery: MaskGallery | None = None

    # Building

    def make(self, description: MaskDescription) -> None:
        classes = len(description.classes)
        self.network = build_segmentation_network(
            self.backbone, self.decoder, classes, description.channels, self.network_arguments
        )
        weights = None
        if self.class_weights is not None:
            power = 0.5 if self.class_weights == "square_root" else 1.0
            weights = balanced_weights(description.class_counts, power)
        self.loss = self.loss_factory(weight=weights, ignore_index=IGNORED)
        self.confusion = MulticlassConfusionMatrix(classes, validate_args=False)
        self.baseline_metrics = Baselines([FREQUENT], self.metrics())

    def load_network(self) -> LoadReport:
        return load_segmentation_backbone(self.network, self.backbone, self.pretrained, self.accept_license)

    def head_patterns(self) -> list[str]:
        own = ("network.decoder.",)
        if isinstance(self.network.backbone, FeaturePyramid):
            own += ("network.backbone.steps.",)
        names = [f"network.{name}" for name in named_weights(self.network)]
        return [name for name in names if name.startswith(own)]

    # Steps

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes height width"]:
        """Scores of every pixel of normalized images."""
        return self.network(images)

    def probabilities(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes height width"]:
        """Class probabilities of every pixel, averaged over other sizes and mirrored images where that is asked for."""
        found = []
        for scale in self.test_time_scales:
            size = [max(1, round(scale * side)) for side in images.shape[-2:]] if scale != 1 else images.shape[-2:]
            seen = images
            if scale != 1:
                seen = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
            found.append(enlarge(self._plain(seen), images))
            if self.test_time_flip:
                found.append(enlarge(self._plain(seen.flip(-1)).flip(-1), images))
        return sum(found) / len(found)

    def _plain(self, images: Tensor) -> Tensor:
        return self(images).float().softmax(1)

    def step(self, batch: MaskSample) -> StepResult:
        if not self.training:
            return self._measured(batch)[0]
        scores = self(batch.image)
        return StepResult(self.loss(scores, batch.mask.long()), scores.detach(), batch.mask)

    def metrics(self) -> MetricCollection:
        classes = len(self.description.classes)
        metrics = {"mean_iou": MeanIoU(classes), "dice": MeanDice(classes), "pixel_accuracy": PixelAccuracy(classes)}
        if classes == 2:
            metrics["foreground_iou"] = ForegroundIoU(classes)
        return collection(metrics, shared=[list(metrics)])  # of one confusion matrix

    def segmented(
        self, batch: MaskSample, probabilities: Callable[[Tensor], Tensor]
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """For each image of a batch its mask of class indices at the file's size, and -log p of each pixel that counts.

        The latter where masks are known, at the resolution at which the network works. `probabilities` are those of a
        look at the images, or of several.
        """
        masks = batch.mask if batch.mask is not None else [None] * len(batch.path)
        if self.description.fit == "window":
            for image, mask in zip(batch.image, masks):
                yield self._slid(image, mask, probabilities)
            return
        for found, mask, size in zip(probabilities(batch.image), masks, batch.size):
            surprise = None
            if mask is not None:
                seen = F.interpolate(mask[None, None].float(), found.shape[-2:], mode="nearest-exact")[0, 0].long()
                surprise = _surprise(found, seen)
            yield enlarged_classes(found, tuple(size)), surprise

    def _slid(
        self, image: Tensor, mask: Tensor | None, probabilities: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        window = tuple(self.description.image_size)
        found, surprises = [], []
        for top, band in slide(probabilities, image, window, self.overlap):
            found.append(band.argmax(0).to(torch.uint8))
            if mask is not None:
                surprises.append(_surprise(band, mask[top : top + band.shape[1]].long()))
        return torch.cat(found), torch.cat(surprises) if surprises else None

    def _measured(
        self, batch: MaskSample, probabilities: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[StepResult, list[Tensor]]:
        """Loss, predictions and targets of the pixels that count, and the mask of each image.

        Validation, which comes often, looks at each image once; a test as prediction does, by its `probabilities`.
        """
        found, predictions, targets, surprises = [], [], [], []
        for (predicted, surprise), true in zip(self.segmented(batch, probabilities or self._plain), batch.mask):
            counted = true != IGNORED
            found.append(predicted)
            predictions.append(predicted[counted])
            targets.append(true[counted])
            surprises.append(surprise)
        surprise = torch.cat(surprises)
        loss = surprise.sum() / max(1, len(surprise))
        return StepResult(loss, torch.cat(predictions).long(), torch.cat(targets).long()), found

    # Pictures

    def on_test_epoch_start(self) -> None:
        self.gallery = MaskGallery(partial(denormalize, description=self.description))
        self.confusion.reset()

    def test_step(self, batch: MaskSample, batch_index: int) -> None:
        result, found = self._measured(batch, self.probabilities)
        self.measure(result, "test")
        counts = self.description.class_counts
        frequent = torch.full_like(result.targets, counts.index(max(counts)))
        self.baseline_metrics.measure(self, {FREQUENT: frequent}, result.targets)
        self.confusion.update(result.predictions, result.targets)
        classes = len(self.description.classes)
        for image, predicted, true, path in zip(batch.image, found, batch.mask, batch.path):
            counted = true != IGNORED
            confusion = confusion_of(predicted[counted].long(), true[counted].long(), classes)
            self.gallery.add(image, predicted, true, class_iou(confusion).nanmean().item(), Path(path).name)

    def on_test_epoch_end(self) -> None:
        # Every process takes part in the sum, though only one draws the picture.
        self.confused = self.confusion.compute()

    def pictures(self) -> Iterator[tuple[str, Figure]]:
        if self.gallery is None or not self.gallery.images:
            return
        known = self.description
        rows = partial(mask_rows, classes=known.classes, palette=known.palette)
        yield "predictions", rows(self.gallery.images[:ROWS], title="a sample of the test images")
        yield "worst_median_best", rows(self.gallery.extremes(), title="the worst, the median and the best test images")
        yield "confusion_matrix", confusion_matrix(self.confused, known.classes, what="test pixels")
        counts = self.confused.cpu()
        shares = counts.sum(1) / counts.sum().clamp(min=1)
        yield "class_iou", class_bars(class_iou(counts), shares, known.classes, "the classes on the test images")
        yield from attention_pictures(self)

    def batch_pictures(self, batch: MaskSample) -> Iterator[tuple[str, Figure]]:
        known = self.description
        images = denormalize(batch.image[:SHOWN], known)
        items = [reduced(ShownMask(image, mask.cpu())) for image, mask in zip(images, batch.mask)]
        yield (
            "training_batch",
            overlay_grid(items, known.classes, known.palette, "the first images as they are trained on"),
        )

    # Prediction

    def deployable(self, resize: bool = True) -> Deployable:
        """From images of any size to class probabilities and classes of their pixels.

        With `resize` the network sees them at the size of the training, as in evaluation, else at their own. Where the
        data said fit="window" it sees them whole and at their own: a graph slides no window.
        """
        known, note = self.description, ""
        if known.fit == "window":
            note = "trained on windows: the file takes each image whole, at its own size, without sliding a window"
        module = DeployedSegmenter(self, resize and known.fit != "window")
        about = {"palette": known.palette, "ids": known.ids}
        return deployable_images(self, module, ["probabilities", "classes"], about, note)

    def predict_step(self, batch: MaskSample, batch_index: int) -> MaskPredictions:
        masks = [mask.cpu() for mask, _ in self.segmented(batch, self.probabilities)]
        room = max(0, SHOWN - batch_index * len(masks))
        shown = [
            reduced(ShownMask(denormalize(image, self.description), mask, name=Path(path).name))
            for image, mask, path in list(zip(batch.image, masks, batch.path))[:room]
        ]
        return MaskPredictions(batch.path, masks, shown)

    @command
    def predict(self, data: DataModule, trainer: L.Trainer, folder: Path) -> list[Path]:
        """Writes masks, overlays and a table for the images `data` names into `folder`, one batch at a time."""
        root = getattr(data, "root", None)
        writer = MaskWriter(folder, self.description, root if root is None or root.is_dir() else root.parent)
        callback = WriteEach(writer)
        trainer.callbacks.append(callback)
        try:
            trainer.predict(self, datamodule=data, return_predictions=False)
        finally:
            trainer.callbacks.remove(callback)
        return writer.close()

    def write_predictions(self, results: list[MaskPredictions], folder: Path) -> list[Path]:
        """Writes masks/, overlays/, predictions.csv (path, mask, share of each class) and predictions.png.

        Raises QuintetError where one of them exists already.
        """
        writer = MaskWriter(folder, self.description)
        for result in results:
            result.write(writer)
        return writer.close()


def _surprise(probabilities: Float[Tensor, "classes height width"], mask: Tensor) -> Float[Tensor, " pixels"]:
    """-log p of the true class of each pixel that counts."""
    counted = mask != IGNORED
    true = probabilities.gather(0, mask.where(counted, 0).unsqueeze(0))[0]
    return -true[counted].clamp(min=1e-12).log()
