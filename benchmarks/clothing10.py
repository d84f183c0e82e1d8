"""Accuracy on clothing10 from scratch after equal seconds: a small Mix Transformer beside timm's ResNet-10t.

    OMP_NUM_THREADS=2 python benchmarks/clothing10.py ../shared/data/vision_clothing10 [--seconds 120] [--seeds 0]

Both see the same images in the same augmentation, and both are trained by AdamW with the same schedule, which ends with
the time: steps are timed first, and as many are trained as fit. Seconds are of training, without the eight validations.
Both take the same learning rate; the test images are looked at once, by the best state of the validation.
"""

import argparse
import tempfile
import time
from pathlib import Path

import lightning as L
from rich.console import Console
from rich.table import Table

DATA = [
    "data.image_size=[128,96]",
    "data.batch_size=32",
    "data.num_workers=0",
    "data.augmentation=light",
    "data.fit=stretch",
]
SIDES = {
    "quintet Mix Transformer": [
        "model.backbone={_target_: quintet.vision.models.MixTransformer, _partial_: true, dims: [32, 64, 128, 192], "
        "depths: [1, 1, 2, 2], num_heads: [1, 2, 4, 6], drop_path: 0.0}",
        "model.lr=2e-3",
    ],
    "timm ResNet-10t": ["model.backbone=timm:resnet10t", "model.lr=2e-3"],
}
TIMED = 12  # steps from which the time of all is told
VALIDATIONS = 8  # of a run, the last at its end


class Clock(L.Callback):
    """Wall and processor seconds of training without its first steps, which warm up, and without validation."""

    def __init__(self, skipped: int = 0) -> None:
        self.skipped, self.seconds, self.since = skipped, [0.0, 0.0], None

    def resume(self) -> None:
        self.since = time.perf_counter(), time.process_time()

    def pause(self) -> None:
        if self.since is not None:
            now = time.perf_counter(), time.process_time()
            self.seconds = [spent + new - old for spent, new, old in zip(self.seconds, now, self.since)]
            self.since = None

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch, batch_idx: int) -> None:
        if self.since is None and trainer.global_step >= self.skipped:
            self.resume()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.pause()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.pause()


def run(root: Path, folder: Path, overrides: list[str], skipped: int = 0):
    from quintet.core.run.runner import run_composed

    runner = run_composed(
        "fit",
        [
            "experiment=vision/folder",
            "trainer=cpu",
            f"data.root={root.resolve()}",
            f"run_dir={folder}",
            "+callbacks.clock._target_=clothing10.Clock",
            f"+callbacks.clock.skipped={skipped}",
            "~callbacks.progress",
            "+trainer.enable_progress_bar=false",
            "~callbacks.pictures",
            *DATA,
            *overrides,
        ],
    )
    from clothing10 import Clock as Imported

    clock = next(callback for callback in runner.trainer.callbacks if isinstance(callback, Imported))
    return runner, clock.seconds


def compare(root: Path, seconds: float, seeds: list[int]) -> Table:
    table = Table("model", "parameters", "seed", "steps", "seconds", "processor", "val accuracy", "test accuracy")
    for name, overrides in SIDES.items():
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                short = ["trainer.max_epochs=1", f"trainer.limit_train_batches={TIMED}", "trainer.limit_val_batches=1"]
                _, spent = run(root, Path(folder) / "timed", [*overrides, *short, "trainer.limit_test_batches=1"], 2)
                between = max(1, round(seconds / spent[0] * (TIMED - 2) / VALIDATIONS))
                chosen = [
                    *overrides,
                    "trainer.max_epochs=-1",
                    f"+trainer.max_steps={VALIDATIONS * between}",
                    f"+trainer.val_check_interval={between}",
                    "+trainer.check_val_every_n_epoch=null",
                    f"seed={seed}",
                ]
                runner, spent = run(root, Path(folder) / "run", chosen)
                best = runner.trainer.checkpoint_callback.best_model_score
                parameters = sum(parameter.numel() for parameter in runner.model.network.parameters())
                test = runner.trainer.callback_metrics["test/accuracy"]
            figures = f"{VALIDATIONS * between}", f"{spent[0]:.0f}", f"{spent[1]:.0f}", f"{best:.3f}", f"{test:.3f}"
            table.add_row(name, f"{parameters / 1e6:.2f} M", str(seed), *figures)
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="the folder with train/, validation/ and test/")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    Console(width=120).print(compare(options.root, options.seconds, options.seeds))
