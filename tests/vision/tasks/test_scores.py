"""Scores from one confusion matrix: by hand, with absent classes, over batches, and against scikit-learn."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score
from torchmetrics import MetricCollection

from quintet.vision.tasks.scores import (
    ForegroundIoU,
    MeanDice,
    MeanIoU,
    PixelAccuracy,
    class_dice,
    class_iou,
    confusion_of,
    pixel_accuracy,
)


def test_by_hand():
    confusion = torch.tensor([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
    assert class_iou(confusion)[:2].tolist() == pytest.approx([3 / 6, 4 / 7])
    assert class_dice(confusion)[:2].tolist() == pytest.approx([6 / 9, 8 / 11])
    assert class_iou(confusion)[2].isnan()
    assert class_dice(confusion)[2].isnan()
    assert pixel_accuracy(confusion).item() == pytest.approx(0.7)


def test_a_class_that_is_only_predicted_scores_zero_and_counts():
    confusion = torch.tensor([[3, 0, 1], [0, 4, 0], [0, 0, 0]])
    assert class_iou(confusion).tolist() == pytest.approx([3 / 4, 1.0, 0.0])


@given(st.integers(0, 1000), st.integers(2, 6))
def test_scikit_learn_agrees(seed, classes):
    generator = torch.Generator().manual_seed(seed)
    true, predicted = torch.randint(classes, (2, 60), generator=generator)
    confusion = confusion_of(predicted, true, classes)
    assert (confusion.numpy() == confusion_matrix(true, predicted, labels=range(classes))).all()
    occurring = sorted(set(true.tolist()) | set(predicted.tolist()))
    expected = jaccard_score(true, predicted, labels=occurring, average="macro")
    assert class_iou(confusion).nanmean().item() == pytest.approx(expected)
    expected = f1_score(true, predicted, labels=occurring, average="macro")
    assert class_dice(confusion).nanmean().item() == pytest.approx(expected)


def test_a_collection_keeps_one_matrix_and_starts_anew():
    metrics = MetricCollection(
        {"iou": MeanIoU(2), "dice": MeanDice(2), "right": PixelAccuracy(2), "foreground": ForegroundIoU(2)}
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        metrics.reset()
        batches = [torch.randint(2, (2, length), generator=generator) for length in (40, 7, 0)]
        for predicted, true in batches:
            metrics.update(predicted, true)
        confusion = sum(confusion_of(predicted, true, 2) for predicted, true in batches)
        found = metrics.compute()
        assert found["iou"].item() == pytest.approx(class_iou(confusion).mean().item())
        assert found["dice"].item() == pytest.approx(class_dice(confusion).mean().item())
        assert found["right"].item() == pytest.approx(pixel_accuracy(confusion).item())
        assert found["foreground"].item() == pytest.approx(class_iou(confusion)[1].item())
    assert len(metrics.compute_groups) == 1


def measure_share(rank, processes, store, answers):
    """One of several processes: measures every `processes`-th image and says what all of them found together."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=processes)
    metrics = MetricCollection({"iou": MeanIoU(5), "dice": MeanDice(5), "right": PixelAccuracy(5)})
    # Five images for two processes: one has more, and the ignored pixels are not spread evenly either.
    for predicted, true in labelled_images()[rank::processes]:
        counted = true != 255
        metrics.update(predicted[counted], true[counted])
    answers.put((rank, {name: value.item() for name, value in metrics.compute().items()}))
    torch.distributed.destroy_process_group()


def labelled_images():
    """Images of the classes 0, 1, 2 and 4 (3 occurs nowhere) in which some pixels are ignored."""
    generator = torch.Generator().manual_seed(0)
    images = []
    for number in range(5):
        predicted, true = torch.tensor([0, 1, 2, 4])[torch.randint(4, (2, 50), generator=generator)]
        true[: 8 * number] = 255
        if number != 3:
            true[true == 4], predicted[predicted == 4] = 0, 0  # a class that one process alone sees
        images.append((predicted, true))
    return images


def test_two_processes_measure_what_one_does(tmp_path):
    context = torch.multiprocessing.get_context("fork")
    answers = context.Queue()
    processes = [context.Process(target=measure_share, args=(rank, 2, tmp_path / "store", answers)) for rank in (0, 1)]
    for process in processes:
        process.start()
    found = dict(answers.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    counted = [(predicted[true != 255], true[true != 255]) for predicted, true in labelled_images()]
    confusion = sum(confusion_of(predicted, true, 5) for predicted, true in counted)
    assert class_iou(confusion)[3].isnan()
    expected = {
        "iou": class_iou(confusion).nanmean().item(),
        "dice": class_dice(confusion).nanmean().item(),
        "right": pixel_accuracy(confusion).item(),
    }
    assert found[0] == found[1] == pytest.approx(expected)
