"""Mean IoU on CamVid at 240 x 180, from scratch, and the seconds that training took.

    OMP_NUM_THREADS=2 python benchmarks/camvid.py ../shared/data/vision_camvid [trainer.max_epochs=4 ...]

Runs `experiment=vision/camvid` with further options as given, in a folder that is deleted afterwards. Wall time is that
of training alone, validation included; processor time adds up the threads.
"""

import argparse
import tempfile
import time
from pathlib import Path

import lightning as L
from rich.console import Console


class Clock(L.Callback):
    """Wall and processor seconds of training."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.start = time.perf_counter(), time.process_time()

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        wall, processor = (now - before for now, before in zip((time.perf_counter(), time.process_time()), self.start))
        validated = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
        Console(soft_wrap=True).print(
            f"trained {trainer.current_epoch} epochs ({trainer.global_step} steps) in {wall:.0f} s, "
            f"{processor:.0f} s of processor time; last {validated}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="the folder with train/, trainannot/, ...")
    parser.add_argument("overrides", nargs="*", help="options of the experiment, key=value")
    options = parser.parse_args()
    from quintet.core.run.runner import run_composed

    with tempfile.TemporaryDirectory() as folder:
        run_composed(
            "fit",
            [
                "experiment=vision/camvid",
                f"data.root={options.root.resolve()}",
                f"run_dir={folder}/run",
                "+callbacks.clock._target_=camvid.Clock",
                "~callbacks.progress",
                "+trainer.enable_progress_bar=false",
                *options.overrides,
            ],
        )
