"""Labelled series of one's own: read, looked through, split by class, padded into batches."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from rich.table import Table
from rich.text import Text
from torch import Tensor
from torch.utils.data import Dataset

from ...core.data.faults import Fault, refusal
from ...core.data.module import DataModule, Draw
from ...core.data.problems import problems_table
from ...core.data.report import stacked
from ...core.data.sequences import pad_sequences
from ...core.data.splits import check_fractions, stratified_split
from ...core.errors import QuintetError
from .cases import Cases, Columns, archive_files, read_cases
from .files import format_of
from .ts_files import Case

SHOWN = 20  # classes listed one by one
FEWEST = 2  # classes of a classification


@dataclass
class LabelledSeriesDescription:
    """What a classifier knows of the series it was trained on; travels in its checkpoint.

    Args:
        channels: names of the columns, in order.
        units: of each, "" where the file does not say.
        mean: subtracted from each, of the training series.
        std: by which each is then divided, of the training series.
        classes: names, in order.
        class_counts: training series of each class.
        longest: steps of the longest training series.
    """

    together: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("channels", "units", "mean", "std"),
        ("classes", "class_counts"),
    )

    channels: list[str]
    units: list[str]
    mean: list[float]
    std: list[float]
    classes: list[str]
    class_counts: list[int]
    longest: int


class LabelledBatch(NamedTuple):
    """Series padded to one length, in units of training standard deviations; NaN where nothing was observed.

    Fields: values (B, T, C); mask (B, T), True where a step is real; label (B), -1 where unknown; index (B), numbers of
    the series in their part.
    """

    values: Tensor
    mask: Tensor
    label: Tensor
    index: Tensor


class CaseDataset(Dataset):
    """Scaled series of any length with their labels."""

    def __init__(self, values: Sequence[Float[Tensor, "_time channels"]], labels: Sequence[int]) -> None:
        self.values, self.labels = list(values), list(labels)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int | Draw) -> tuple[Tensor, int, int]:
        index = index.index if isinstance(index, Draw) else index
        return self.values[index], self.labels[index], index


def padded(samples: Sequence[tuple[Tensor, int, int]]) -> LabelledBatch:
    """Samples as a batch, each continued by padding to the length of the longest."""
    values, labels, indices = zip(*samples, strict=True)
    return LabelledBatch(*pad_sequences(values, float("nan")), torch.tensor(labels), torch.tensor(indices))


class LabelledSeries(DataModule):
    """Series with classes, of any length: .ts files of the UCR and UEA archives, one long table, or a file a series.

    A .ts problem keeps its own test part (NAME_TRAIN.ts beside NAME_TEST.ts); a long table has a column that names the
    series, one of the classes and columns of numbers; a folder has root/CLASS/*.csv or root/{train,val,test}/CLASS/*.
    Parts that are not given are split off the training series, class by class. Empty cells are masked, never filled;
    the scaler sees training series alone.

    Args:
        path: the file or folder.
        id: column that names the series; None finds one called unique_id or the like.
        time: column of stamps or of rising numbers; None finds it, or takes the rows in their order.
        label: column of the classes; None finds one called label or class.
        target: columns of numbers to read; None takes all.
        group: column of what belongs together (a person, a machine): it stays in one part.
        val_fraction: share of each class for validation, where the data have no part of their own.
        test_fraction: likewise for the test.
        scale: "standard" subtracts the mean and divides by the standard deviation of each channel; "none" does not.
        max_steps: most steps of a training batch, padding counted, of which it then holds series of like length; None
            puts series together in any order.
        batch_size: series in a batch, at most.
        num_workers: processes that read; everything lies in memory, so 0 is fastest.
        seed: of the split and the order.

    Raises:
        QuintetError: from `setup`, where the files cannot be read the way they are meant.
    """

    files: ClassVar[str | None] = "path"
    fixed: ClassVar[frozenset[str]] = frozenset({"target", "scale"})

    def __init__(
        self,
        path: str | Path,
        id: str | None = None,
        time: str | None = None,
        label: str | None = None,
        target: list[str] | None = None,
        group: str | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.2,
        scale: Literal["standard", "none"] = "standard",
        max_steps: int | None = None,
        *,
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
        check_fractions(val_fraction, test_fraction)
        self.path = Path(path).expanduser()
        self.columns = Columns(id, time, label, group, target)
        self.fractions = {"val": val_fraction, "test": test_fraction}
        if max_steps is not None and max_steps < 1:
            raise QuintetError(f"data.max_steps is {max_steps}; give at least the steps of the longest series")
        self.scale, self.max_steps = scale, max_steps
        self.parts: dict[str, list[Case]] = {}

    @classmethod
    def recognises(cls, path: Path) -> bool:
        if archive_files(path):
            return True
        # root/CLASS/*.csv or root/train/CLASS/*.csv and nothing else; a folder of files alone may be anything.
        if not path.is_dir() or format_of(path) is not None:
            return False
        tables = [file for pattern in ("*/*", "*/*/*") for file in path.glob(pattern) if file.is_file()]
        return bool(tables) and all(format_of(file) for file in tables)

    @classmethod
    def reads(cls, path: Path) -> bool:
        return path.suffix.lower() == ".ts"

    def adopt(self, description: LabelledSeriesDescription) -> None:
        super().adopt(description)
        for name in ("examined", "split_cases", "_measured"):
            self.__dict__.pop(name, None)

    @cached_property
    def examined(self) -> Cases:
        """Everything read once; faults are listed, not raised."""
        known = self._described
        labelled = known is None
        found = read_cases(self.path, self.columns, known.channels if known else None, labelled)
        if known is None:
            return found
        for case in found.cases:
            if case.label is not None and case.label not in known.classes:
                what = f"has the class '{case.label}'; the model knows {', '.join(known.classes[:6])}"
                found.faults.append(Fault(case.where, what, "leave the series out, or train on it"))
        return found

    def faults(self) -> list[Fault]:
        found = self.examined
        return found.faults or ([] if self._described else self._unlearnable())

    def usable(self) -> Cases:
        """What was read, once nothing stands in the way. Raises QuintetError for the first fault."""
        if faults := self.faults():
            raise self._refusal(faults)
        return self.examined

    def _refusal(self, faults: Sequence[Fault]) -> QuintetError:
        return refusal(faults, f"quintet inspect {self.path}")

    @cached_property
    def split_cases(self) -> dict[str, list[Case]]:
        """The series of each part: as given, and what is left open split off those of training."""
        parts: dict[str, list[Case]] = {"train": [], "val": [], "test": []}
        for case in self.examined.cases:
            parts[case.split or "train"].append(case)
        wanted = {part: share for part, share in self.fractions.items() if not parts[part]}
        pool = parts["train"]
        groups = [case.group or f"\0{number}" for number, case in enumerate(pool)]
        chosen = stratified_split([case.label or "" for case in pool], wanted, self.seed, groups)
        return parts | {part: [pool[index] for index in indices] for part, indices in chosen.items()}

    def _unlearnable(self) -> list[Fault]:
        """What keeps a classifier from learning: too few classes, parts without series, channels that say nothing."""
        found, parts = self.examined, self.split_cases
        counts = Counter(case.label for case in parts["train"])
        if len(counts) < FEWEST:
            names = ", ".join(map(str, counts)) or "no series"
            return [Fault(found.where, f"has one class ({names})", "a classifier needs two or more")]
        if not parts["val"]:
            what = f"leaves no series for validation of {len(parts['train'])}"
            return [Fault(found.where, what, "give data.val_fraction above 0, or more series")]
        faults = [
            Fault(case.where, f"has the class '{case.label}', which no training series has", "add some to train on")
            for part in ("val", "test")
            for case in parts[part]
            if case.label not in counts
        ]
        faults += self._too_long(parts["train"])
        train = np.concatenate([case.values for case in parts["train"]])
        for name, column in zip(found.channels, train.T, strict=True):
            observed = column[~np.isnan(column)]
            if not len(observed) or np.ptp(observed) <= 1e-12 * max(1.0, abs(observed[0])):
                what = "is constant" if len(observed) else "has no number"
                remedy = "leave it out: name the others with data.target"
                faults.append(Fault(f"{found.where} column '{name}'", f"{what} over the training series", remedy))
        return faults

    def _too_long(self, cases: Sequence[Case]) -> list[Fault]:
        """Training series that no batch holds."""
        most = math.inf if self.max_steps is None else self.max_steps
        return [
            Fault(case.where, f"has {len(case.values):,} steps and data.max_steps is {most}", "give at least as many")
            for case in cases
            if len(case.values) > most
        ]

    def prepare(self, stages: tuple[str, ...]) -> None:
        found = self.usable()
        if "predict" in stages:
            self.adopted()
        for stage in stages:
            cases = found.cases if stage == "predict" else self.split_cases[stage]
            if stage != "predict":
                for case in cases:
                    if case.label is None:
                        raise self._refusal([Fault(case.where, "has no class", f"add it, to {stage} with")])
            if cases:
                self.parts[stage] = cases
                self.datasets[stage] = self._dataset_of(cases)

    def _dataset_of(self, cases: Sequence[Case]) -> CaseDataset:
        known = self.description()
        mean, std = np.array(known.mean), np.array(known.std)
        numbers = {name: number for number, name in enumerate(known.classes)}
        scaled = [torch.from_numpy(((case.values - mean) / std).astype(np.float32)) for case in cases]
        return CaseDataset(scaled, [numbers.get(case.label, -1) for case in cases])

    def description(self) -> LabelledSeriesDescription:
        return self._described or self._measured

    @cached_property
    def _measured(self) -> LabelledSeriesDescription:
        found, train = self.usable(), self.split_cases["train"]
        rows = np.concatenate([case.values for case in train])
        standard, width = self.scale == "standard", len(found.channels)
        counts = Counter(case.label for case in train)
        classes = sorted(counts, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))
        return LabelledSeriesDescription(
            channels=found.channels,
            units=found.units,
            mean=np.nanmean(rows, axis=0).tolist() if standard else [0.0] * width,
            std=np.nanstd(rows, axis=0).tolist() if standard else [1.0] * width,
            classes=classes,
            class_counts=[counts[name] for name in classes],
            longest=max(len(case.values) for case in train),
        )

    def collate(self) -> Callable:
        return padded

    def by_length(self) -> tuple[list[int], int] | None:
        return None if self.max_steps is None else ([len(case.values) for case in self.parts["train"]], self.max_steps)

    def table(self) -> Table:
        found, faults = self.examined, self.faults()
        facts = Table.grid(padding=(0, 2))
        facts.add_row("series", f"{len(found.cases):,}")
        if found.cases:
            lengths = [len(case.values) for case in found.cases]
            facts.add_row("length", f"{min(lengths):,} to {max(lengths):,} steps")
            named = ", ".join(found.channels[:SHOWN]) + (", ..." if len(found.channels) > SHOWN else "")
            facts.add_row("channels", f"{len(found.channels)}: {named}")
            empty = sum(int(np.isnan(case.values).sum()) for case in found.cases)
            facts.add_row("empty", f"{empty:,} cells, masked" if empty else "no cell")
        sections = [Text(found.where, style="bold"), facts]
        if found.cases and not faults:
            counts = {
                part: Counter(case.label or "unknown" for case in cases) for part, cases in self.split_cases.items()
            }
            classes = self.description().classes
            table = Table("class", box=None, pad_edge=False, header_style="bold")
            for part in counts:
                table.add_column(part, justify="right")
            for name in classes[:SHOWN]:
                table.add_row(Text(name), *(f"{count[name]:,}" for count in counts.values()))
            if len(classes) > SHOWN:
                table.add_row(f"and {len(classes) - SHOWN} more")
            table.add_row("all", *(f"{sum(count.values()):,}" for count in counts.values()))
            sections.append(table)
        return stacked(*sections, problems_table(faults, found.remarks))
