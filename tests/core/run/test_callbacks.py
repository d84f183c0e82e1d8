"""Callbacks every run has: checkpoints, averages, what is said and what is drawn."""

import math
from itertools import pairwise
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure
from torch import nn
from torch.utils.data import DataLoader

from quintet.core.attention import PositiveRandomFeatures
from quintet.core.errors import QuintetError
from quintet.core.run import callbacks
from quintet.core.run.callbacks import Checkpoint, Introduction, Pictures, RedrawFeatures, WeightAverage
from quintet.core.run.checkpoint_io import AtomicCheckpointIO
from quintet.core.run.metrics_file import MetricsFile


class Line(L.LightningModule):
    """One weight that falls by one at each step; its loss is what `losses` says of the epoch."""

    def __init__(self, losses=(3.0, 1.0, 2.0)):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.losses = losses
        self.tested = None

    def training_step(self, batch, index):
        return self.weight.sum()

    def validation_step(self, batch, index):
        self.log("val/loss", self.losses[self.current_epoch])

    def test_step(self, batch, index):
        self.tested = self.weight.item()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def run(folder, module, *used, max_epochs=3, **arguments):
    trainer = L.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        max_epochs=max_epochs,
        callbacks=list(used),
        logger=MetricsFile(folder),
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in used),
        plugins=[AtomicCheckpointIO(folder)],
    )
    loader = DataLoader(range(2))
    trainer.fit(module, loader, loader, **arguments)
    return trainer


def weight(path):
    return torch.load(path, weights_only=True)["state_dict"]["weight"].item()


def test_the_best_and_the_last_epoch_are_kept_under_their_names(tmp_path):
    run(tmp_path, Line(), Checkpoint("best", monitor="val/loss"), Checkpoint("last"))
    folder = tmp_path / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert weight(folder / "best.ckpt") == -4  # two steps an epoch, the second epoch is best
    assert weight(folder / "last.ckpt") == -6
    assert torch.load(folder / "last.ckpt", weights_only=True)["epoch"] == 2


def test_without_a_metric_the_best_is_the_last(tmp_path):
    run(tmp_path, Line(), Checkpoint("best"), Checkpoint("last"))
    best, last = (torch.load(tmp_path / f"checkpoints/{name}.ckpt", weights_only=True) for name in ("best", "last"))
    assert best["epoch"] == last["epoch"]
    assert best["state_dict"].keys() == last["state_dict"].keys()
    assert all(torch.equal(tensor, last["state_dict"][name]) for name, tensor in best["state_dict"].items())


def test_the_largest_may_be_best(tmp_path):
    run(tmp_path, Line(), Checkpoint("best", monitor="val/loss", mode="max"))
    assert weight(tmp_path / "checkpoints" / "best.ckpt") == -2


def test_checkpoints_may_be_written_less_often(tmp_path):
    run(tmp_path, Line(), Checkpoint("last", every_n_epochs=2))
    assert weight(tmp_path / "checkpoints" / "last.ckpt") == -4


def test_a_resumed_run_starts_with_the_next_epoch_and_remembers_the_best(tmp_path):
    run(tmp_path, Line(), Checkpoint("best", monitor="val/loss"), Checkpoint("last"))
    resumed = Line(losses=(3.0, 1.0, 2.0, 1.5))
    used = Checkpoint("best", monitor="val/loss"), Checkpoint("last")
    run(tmp_path, resumed, *used, max_epochs=4, ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    assert resumed.weight.item() == -8
    assert weight(tmp_path / "checkpoints" / "best.ckpt") == -4
    assert used[0].best_model_score == 1.0


def averages(steps, decay):
    """The exponential moving average of -1, -2, ..., started by the first; early on it keeps less."""
    average = -1.0
    for step in range(2, steps + 1):
        kept = min(decay, step / (step + 9))  # (1 + n) / (10 + n) after n = step - 1 of them
        average = kept * average + (1 - kept) * -step
    return average


def test_the_average_is_validated_saved_and_tested(tmp_path):
    module, seen = Line(), []

    class Watch(L.Callback):
        def on_validation_batch_start(self, trainer, module, *arguments):
            seen.append(module.weight.item())

    trainer = run(tmp_path, module, WeightAverage(0.5), Watch(), Checkpoint("last"), max_epochs=2)
    expected = [averages(2, 0.5), averages(4, 0.5)]
    assert seen[::2] == pytest.approx(expected)
    path = tmp_path / "checkpoints" / "last.ckpt"
    assert weight(path) == pytest.approx(expected[-1])
    trainer.test(module, DataLoader(range(2)), ckpt_path=path, verbose=False)
    assert module.tested == pytest.approx(expected[-1])


def test_what_validation_measured_is_saved_with_the_average_it_was_measured_of(tmp_path):
    class Measuring(Line):
        def __init__(self):
            super().__init__()
            self.register_buffer("threshold", torch.zeros(1))

        def on_validation_epoch_end(self):
            self.threshold.copy_(self.weight.detach())

    module = Measuring()
    run(tmp_path, module, WeightAverage(0.5), Checkpoint("last"), max_epochs=2)
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert state["threshold"].item() == state["weight"].item() == pytest.approx(averages(4, 0.5))


def test_what_is_learned_before_the_first_step_is_not_averaged_with_what_was_not_known(tmp_path):
    class Fitting(Line):
        def __init__(self):
            super().__init__()
            self.register_buffer("trees", None)
            self.register_buffer("mean", torch.full((1,), float("nan")))

        def on_fit_start(self):
            self.trees, self.mean = torch.tensor([3.0, 4.0]), torch.tensor([5.0])

    module = Fitting()
    run(tmp_path, module, WeightAverage(0.5), Checkpoint("last"), max_epochs=2)
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert state["trees"].tolist() == module.trees.tolist() == [3, 4]
    assert state["mean"].tolist() == [5]
    assert state["weight"].item() == pytest.approx(averages(4, 0.5))


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_that_is_none_is_refused(decay):
    with pytest.raises(QuintetError, match=r"callbacks.average.decay is .*; it lies between 0 and 1"):
        WeightAverage(decay)


@pytest.mark.parametrize("losses", [(math.nan, 2.0, 3.0), (2.0, math.nan, 3.0), (-math.inf, 2.0, 3.0)])
def test_an_epoch_without_a_number_is_never_the_best(tmp_path, losses):
    run(tmp_path, Line(losses=losses), Checkpoint("best", monitor="val/loss"))
    assert weight(tmp_path / "checkpoints" / "best.ckpt") == -2 * (1 + losses.index(2.0))


def test_a_run_folder_that_was_moved_remembers_its_best(tmp_path):
    run(tmp_path / "old", Line(), Checkpoint("best", monitor="val/loss"), Checkpoint("last"))
    (tmp_path / "old").rename(tmp_path / "new")
    used = Checkpoint("best", monitor="val/loss"), Checkpoint("last")
    path = tmp_path / "new" / "checkpoints" / "last.ckpt"
    run(tmp_path / "new", Line(losses=(3.0, 1.0, 2.0, 1.5)), *used, max_epochs=4, ckpt_path=path)
    assert weight(tmp_path / "new" / "checkpoints" / "best.ckpt") == -4
    assert used[0].best_model_path == str(tmp_path / "new" / "checkpoints" / "best.ckpt")


@pytest.mark.parametrize("where", ["{run}/checkpoints/../../victim", "{run}/../victim", "http://127.0.0.1:9/x"])
@pytest.mark.parametrize("kind", [Checkpoint, ModelCheckpoint])
def test_a_resumed_checkpoint_cannot_have_files_outside_the_run_deleted(tmp_path, where, kind):
    def used():
        if kind is Checkpoint:
            return [Checkpoint("best", monitor="val/loss"), Checkpoint("last")]
        folder = tmp_path / "run" / "checkpoints"
        return [ModelCheckpoint(folder, "best", "val/loss", save_on_train_epoch_end=True), Checkpoint("last")]

    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "kept.txt").write_text("kept")
    run(tmp_path / "run", Line(), *used(), max_epochs=1)
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content, named = torch.load(path, weights_only=True), where.format(run=tmp_path / "run")
    for state in content["callbacks"].values():
        high = torch.tensor(1e9)
        state |= {"best_model_path": named, "kth_best_model_path": named, "best_k_models": {named: high}}
        state |= {"kth_value": high, "best_model_score": high, "last_model_path": named}
    torch.save(content, path)
    run(tmp_path / "run", Line(losses=(3.0, 2.0, 1.0)), *used(), max_epochs=3, ckpt_path=path)
    assert (tmp_path / "victim" / "kept.txt").read_text() == "kept"


def test_a_resumed_run_goes_on_averaging(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    run(tmp_path, Line(), WeightAverage(0.5), Checkpoint("last"), max_epochs=1)
    run(tmp_path, Line(), WeightAverage(0.5), Checkpoint("last"), max_epochs=2, ckpt_path=path)
    assert weight(path) == pytest.approx(averages(4, 0.5))


def test_the_introduction_says_the_size_of_the_model(tmp_path, capsys):
    run(tmp_path, Line(), Introduction(), max_epochs=1)
    assert "Line: 0.00 M parameters" in capsys.readouterr().out


class Shown:
    """Stands for a logger of that class, and remembers the pictures it was given."""

    def __init__(self, kind):
        self.__class__ = type(kind.__name__, (Shown,), {})
        self.run_id = "7"
        self.experiment = self
        self.seen = []

    def add_figure(self, name, figure, step):
        self.seen.append((name, type(figure).__name__, step))

    def log_image(self, key, images, step):
        self.seen.append((key, images, step))

    def log_artifact(self, run_id, path, folder):
        self.seen.append((run_id, path, folder))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (TensorBoardLogger, ("test/roc", "Figure", 5)),
        (WandbLogger, ("test/roc", ["a/roc.png"], 5)),
        (MLFlowLogger, ("7", "a/roc.png", "pictures")),
    ],
)
def test_loggers_that_show_pictures_are_given_them(kind, expected):
    logger = Shown(kind)
    callbacks._show(logger, "test/roc", Figure(), Path("a/roc.png"), 5)
    assert logger.seen == [expected]


def test_the_metrics_file_is_not_given_pictures(tmp_path):
    callbacks._show(MetricsFile(tmp_path), "test/roc", Figure(), Path("a/roc.png"), 5)


def test_modules_that_are_no_task_have_no_pictures(tmp_path):
    module = Line()
    trainer = run(tmp_path, module, Pictures(), max_epochs=1)
    trainer.test(module, DataLoader(range(2)), verbose=False)
    assert not (tmp_path / "pictures").exists()


def test_random_features_are_drawn_anew_every_so_many_steps(tmp_path):
    """Three epochs of two steps: drawn before the third and the fifth, each map its own, and alike when run again."""

    class Random(Line):
        def __init__(self):
            super().__init__()
            self.maps = nn.ModuleList(PositiveRandomFeatures(4) for _ in range(2))
            self.seen = [torch.stack([feature_map.projection.clone() for feature_map in self.maps])]

        def training_step(self, batch, index):
            self.seen.append(torch.stack([feature_map.projection.clone() for feature_map in self.maps]))
            return super().training_step(batch, index)

    runs = [Random(), Random()]
    for network in runs:
        run(tmp_path, network, RedrawFeatures(every=2))
    for seen in (network.seen for network in runs):
        changed = [not torch.equal(before, after) for before, after in pairwise(seen)]
        assert changed == [False, False, True, False, True, False]
        assert not torch.equal(seen[3][0], seen[3][1])
    assert torch.equal(runs[0].seen[5], runs[1].seen[5])
    assert not torch.equal(runs[0].seen[3], runs[0].seen[5])
    with pytest.raises(QuintetError, match="at least 1; got 0"):
        RedrawFeatures(0)
