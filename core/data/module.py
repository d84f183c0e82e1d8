"""The data module all domains share: seeded order, seeded augmentation, and a description of what was found."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from matplotlib.figure import Figure
from rich.table import Table
from torch.utils.data import DataLoader, Dataset, default_collate

from ..errors import QuintetError
from ..weights.described import Described
from .faults import Fault as Fault
from .length_batches import LengthBatches, Together
from .seeded import Augmented as Augmented
from .seeded import Draw as Draw
from .seeded import SeededSampler as SeededSampler

STAGES = ("train", "val", "test", "predict")


class DataModule(Described, L.LightningDataModule):
    """Base of every domain's data: reads the user's files in `prepare`, hands out loaders, describes what it found.

    A domain's data module sets `self.datasets[stage]` in `prepare(stages)` for the stages it can serve, and answers
    `description()` (a dataclass that travels in the checkpoint) and `table()` (what a person reads before training).

    Args:
        batch_size: samples in a batch.
        num_workers: processes that read data; 0 reads in the training process.
        seed: seed of the splits, the order and the augmentation.
    """

    files: ClassVar[str | None] = "root"
    """The argument that names the user's files; None for data that come with a library."""
    fixed: ClassVar[frozenset[str]] = frozenset()
    """Arguments that a trained model decides on: a checkpoint brings their values, and others are refused."""

    inherited: frozenset[str] = frozenset()
    """Names of the arguments that a checkpoint brought, where none of the user's stands in their place."""

    def __init__(self, *, batch_size: int = 32, num_workers: int = 0, seed: int = 0) -> None:
        super().__init__()
        for name, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
            if value < least:
                raise QuintetError(f"data.{name} is {value}; give at least {least}")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.datasets: dict[str, Dataset] = {}
        self._described: Any = None
        self._resumed_epoch = 0

    def prepare(self, stages: tuple[str, ...]) -> None:
        """Fills `self.datasets` for each of `stages` ("train", "val", "test", "predict")."""
        raise NotImplementedError

    def description(self) -> Any:
        """What a task must know of the data (classes, sizes, statistics), as a dataclass of plain values."""
        raise NotImplementedError

    def table(self) -> Table:
        """What was understood of the user's files: counts, shapes, classes, problems."""
        raise NotImplementedError

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether a file or folder of the user's looks like this kind of data, for `quintet inspect`.

        Raises QuintetError where it is of a format of this kind and cannot be read.
        """
        return False

    @classmethod
    def reads(cls, path: Path) -> bool:
        """Whether a path is of a format of this kind, so that options could say how it is to be read."""
        return False

    def pictures(self) -> Iterator[tuple[str, Figure]]:
        """What a person looks at before training, faults or not, e.g. a contact sheet: names and figures."""
        return iter(())

    def faults(self) -> list[Fault]:
        """Everything wrong with the data, where `setup` would stop at the first."""
        return []

    def adopt(self, description: Any) -> None:
        """Takes over the description of a checkpoint, so that new files are read the way the model was trained."""
        self._described = description

    def adopted(self) -> Any:
        """The description of the model that new files are read for. Raises QuintetError where none was adopted."""
        if self._described is None:
            raise QuintetError(
                "predicting needs a model's description: give ckpt_path, or data.adopt(task.description)"
            )
        return self._described

    def setup(self, stage: str | None = None) -> None:
        # A task that already knows its data, from a checkpoint, decides how new files are read.
        trained = getattr(self.trainer and self.trainer.lightning_module, "description", None)
        if trained is not None and self._described is None and not self.datasets:
            self.adopt(trained)
        stages = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}
        wanted = stages.get(stage, ("train", "val", "test"))
        if missing := tuple(name for name in wanted if name not in self.datasets):
            self.prepare(missing)

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self._epoch()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self._resumed_epoch = state_dict["epoch"]

    def _epoch(self) -> int:
        """Number of epochs that are done."""
        return self.trainer.fit_loop.epoch_progress.current.processed if self.trainer else 0

    def collate(self) -> Callable | None:
        """How samples become a batch; None for torch's default."""
        return None

    def by_length(self) -> tuple[Sequence[int], int] | None:
        """Lengths of the training samples and the most tokens of a batch of like ones; None where order is free."""
        return None

    def train_dataloader(self) -> DataLoader:
        dataset, lengths = self._dataset("train"), self.by_length()
        # Under a distributed strategy each process sees its own share; alone it sees all.
        trainer = self.trainer
        share = {
            "num_replicas": trainer.world_size if trainer else 1,
            "rank": trainer.global_rank if trainer else 0,
            "seed": self.seed,
        }
        if lengths:
            self._refuse_overfitting()
            sampler = LengthBatches(*lengths, self.batch_size, **share)
        else:
            sampler = SeededSampler(dataset, shuffle=True, **share)
        # Worker processes ask for a resumed run's first order before Lightning tells the sampler which epoch it is.
        sampler.set_epoch(max(self._resumed_epoch, self._epoch()))
        if lengths:
            return self._loader(Together(dataset), sampler=sampler, batch_size=None)
        # A last batch of one sample breaks batch normalization; dropping it is made up for by reshuffling each epoch.
        return self._loader(dataset, sampler=sampler, drop_last=len(sampler) > self.batch_size)

    def _refuse_overfitting(self) -> None:
        # Lightning would draw single samples in the order of the data.
        if getattr(self.trainer, "overfit_batches", 0):
            raise QuintetError(
                "trainer.overfit_batches takes samples in their order, not batches by length; leave one of the two out"
            )

    def val_dataloader(self) -> DataLoader:
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader:
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader:
        return self._evaluation_loader("predict")

    def _evaluation_loader(self, stage: str) -> DataLoader:
        dataset = self._dataset(stage)
        if self.trainer is None or self.trainer.world_size == 1:
            return self._loader(dataset)
        if len(dataset) < self.trainer.world_size:
            raise QuintetError(
                f"the {stage} part has {len(dataset)} samples for {self.trainer.world_size} processes; give fewer "
                "trainer.devices, or more data to that part"
            )
        # Torch's own sampler repeats samples to fill up the last batch, and the metrics would count them twice.
        sampler = UnrepeatedDistributedSampler(
            dataset, num_replicas=self.trainer.world_size, rank=self.trainer.global_rank, shuffle=False
        )
        return self._loader(dataset, sampler=sampler)

    def _dataset(self, stage: str) -> Dataset:
        if stage not in self.datasets:
            raise QuintetError(
                f"{type(self).__name__} has no {stage} data; it has: {', '.join(self.datasets) or 'none'}"
            )
        return self.datasets[stage]

    def _loader(self, dataset: Dataset, **arguments: Any) -> DataLoader:
        options = {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
            # Where the sampler draws whole batches, torch itself would leave their samples as they are.
            "collate_fn": self.collate() or default_collate,
        }
        return DataLoader(dataset, **options | arguments)
