"""Molecules of one's own: a table with SMILES, or an SDF, looked through before training, as graphs of atoms."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure
from rdkit import Chem
from rich.table import Table
from torch.utils.data import DataLoader

from ...core.data.faults import Fault, refusal
from ...core.data.length_batches import Together
from ...core.data.module import DataModule
from ...core.data.splits import check_fractions
from ...core.errors import QuintetError
from ...core.writing.console import printable
from .batches import by_nodes
from .cache import cached_with_notes
from .description import GraphDescription
from .encodings import encode, encodings_of
from .molecule import splits as splits
from .molecule.cells import cells_of, wrong_numbers
from .molecule.columns import RDKIT, Options, Roles, TargetKind, find_roles, holds_molecules
from .molecule.examination import MoleculeExamination, remarks_on, split_faults, targets_of
from .molecule.featurize import EDGE_COLUMNS, NODE_COLUMNS
from .molecule.files import OWN_FORMATS, Given, MoleculeTable, format_of, read_table
from .molecule.ligands import ligands
from .molecule.parts import divided, target_statistics, unlearnable
from .molecule.reading import ReadMolecules, Treatment, content_of, read_molecules, treated
from .molecule.report import report
from .molecule.smiles import MOST_ATOMS, read_smiles, silent
from .molecule.standardised import Descriptors, measured, standardised
from .rows import Row
from .store import GraphStore

REMEMBERED_FROM = 500  # rows; fewer are read again as fast
IN_PYTHON = "an object in Python"  # what a checkpoint says of data that were no file


@dataclass(frozen=True)
class Splitting:
    """How rows become parts; see `Molecules`."""

    kind: str | None
    fractions: dict[str, float]
    fold: int | None
    folds: int | None


class Molecules(DataModule):
    """Molecules from the user's own files: CSV with any separator (also .gz), .smi, parquet or SDF.

    A table has a column of SMILES (also CXSMILES), columns to be predicted, and often one that names the molecules.
    Targets are columns of numbers, or of 0 and 1, with gaps where nothing was measured, or one column of words.
    Atoms become nodes with their element, charge, hydrogens, degree, hybridisation, aromaticity, ring membership and
    chirality (R, S) as words; bonds become edges both ways with their type, stereochemistry (E, Z), conjugation and
    ring membership. A word that no training molecule has is code 0.

    Columns of numbers that are no target are read where they are asked for alone: they may hold the answer, as another
    method's prediction does, and must be there again to predict.

    Args:
        path: the file; in Python also a DataFrame or a list of SMILES. None takes 1,017 ligands with measured
            activities that come with RDKit (ChEMBL document CHEMBL2321810, CC BY-SA 3.0).
        smiles: column of the molecules; None finds it.
        targets: columns to be predicted; None finds them where nothing else could be meant.
        id: column that names the molecules; None finds one called id, name or the like.
        descriptors: what the network is told of a whole molecule: columns of numbers, "columns" for all that have no
            other role, "rdkit" for RDKit's two-dimensional descriptors; or a list of these. Each is clipped to the
            middle 99 % of the training molecules and standardised; those that never change there are left out.
        split: "random" (`torch.randperm` of the rows, cut at the shares), "stratified" (by the first target),
            "scaffold" (Bemis-Murcko; the most frequent to train), "time", "group", or a column of train, val and test.
            None takes a column called split, else "time" or "group" where such a column is named, else "random".
        time: column of dates or numbers: the latest rows are the test.
        group: column of what stays in one part.
        kind: "numbers", "labels" (of 0 and 1) or "classes", where cells alone do not say which of them targets are.
        val_fraction: share for validation, where no column says.
        test_fraction: share for the test.
        fold: which of `folds` rounds of cross-validation, from 0: this fold is the test, the next the validation.
        folds: number of folds.
        encodings: names and widths of encodings of atoms, e.g. {"random_walk": 16}.
        strip_salts: keep the largest fragment of each molecule alone.
        max_atoms: molecules of more heavy atoms are faults.
        on_error: "raise" refuses rows that cannot be used, "skip" leaves them out and says so. To predict they are
            always kept, with the reason.
        max_nodes: most atoms of a training batch, padding counted, of which it then holds molecules of like size;
            None puts molecules together in any order.
        batch_size: molecules in a batch, at most.
        num_workers: processes that read; everything lies in memory, so 0 is fastest.
        seed: of the split and the order.

    Rows of one molecule (by canonical SMILES) stay in one part, unless a column of parts or times tears them apart,
    which is said. `rows` holds every row of the file in its order with the reason of those that cannot be read, and
    `row` of a batch says which of them a graph is.

    Raises:
        QuintetError: from `setup`, where the file cannot be read the way it is meant.
    """

    files: ClassVar[str | None] = "path"
    fixed: ClassVar[frozenset[str]] = frozenset({"targets", "kind", "descriptors", "encodings", "strip_salts"})

    def __init__(
        self,
        path: Given | None = None,
        smiles: str | None = None,
        targets: list[str] | str | None = None,
        id: str | None = None,
        descriptors: list[str] | str | None = None,
        split: str | None = None,
        time: str | None = None,
        group: str | None = None,
        kind: TargetKind | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        fold: int | None = None,
        folds: int | None = None,
        encodings: dict[str, int] | None = None,
        strip_salts: bool = False,
        max_atoms: int = MOST_ATOMS,
        on_error: Literal["raise", "skip"] = "raise",
        max_nodes: int | None = None,
        *,
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
        check_fractions(val_fraction, test_fraction)
        splits.check_folds(fold, folds, split)
        if max_atoms < 1:
            raise QuintetError(f"data.max_atoms is {max_atoms}; give at least 1")
        self.path = Path(path).expanduser() if isinstance(path, str | Path) else path
        if not isinstance(path, str | Path | None):
            # Objects do not travel in a checkpoint; that there was one does.
            self.restate(path=IN_PYTHON)
        by_name = split is not None and split not in splits.KINDS
        self.options = Options(smiles, _listed(targets), id, _listed(descriptors) or [], time=time, group=group)
        self.options.kind, self.options.split = kind, split if by_name else None
        self.options.finds_split = split is None
        self.splitting = Splitting(
            None if by_name else split, {"val": val_fraction, "test": test_fraction}, fold, folds
        )
        self.encodings = dict(encodings or {})
        encodings_of(self.encodings)  # complains before any file is read
        self.treatment = Treatment(strip_salts, max_atoms)
        self.on_error, self.max_nodes = on_error, max_nodes

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return path.is_file() and format_of(path) is not None and holds_molecules(path)

    @classmethod
    def reads(cls, path: Path) -> bool:
        # Tables may be of any kind: where no column holds molecules, options are meant for another.
        return path.is_file() and format_of(path) in OWN_FORMATS

    def adopt(self, description: GraphDescription) -> None:
        super().adopt(description)
        self.treatment = Treatment(bool(description.reading.get("strip_salts")), self.treatment.most_atoms)
        self.encodings = dict(description.encodings)
        for name in ("roles", "read", "examined", "descriptors", "_measured"):
            self.__dict__.pop(name, None)

    # What is in the file

    @cached_property
    def source(self) -> MoleculeTable:
        """The user's table, as it was written."""
        if self.path is None:
            return ligands()
        if isinstance(self.path, Path) and self.path == Path(IN_PYTHON):
            raise QuintetError(f"this model was trained on {IN_PYTHON}; give data.path=FILE")
        return read_table(self.path)

    @cached_property
    def roles(self) -> Roles:
        """What each column is, targets left open."""
        return find_roles(self.source, self.options, self._described, False, self.inherited)

    @cached_property
    def read(self) -> ReadMolecules:
        """All molecules that can be read, whatever is to be done with them."""
        return self._remembered(self.roles.smiles)

    def _remembered(self, column: str) -> ReadMolecules:
        key = content_of(self.source, column, self.treatment, [self.encodings, self._computes])
        keep = len(self.source.frame) >= REMEMBERED_FROM
        return ReadMolecules.of(*cached_with_notes(key, lambda: self._encoded(column), keep))

    def _encoded(self, column: str) -> tuple[GraphStore, dict[str, Any]]:
        compute = _descriptors_of if self._computes else None
        store, notes = read_molecules(self.source, column, self.treatment, compute)
        return encode(store, self.encodings, progress=True), notes

    @property
    def _computes(self) -> bool:
        """Whether RDKit's descriptors are wanted."""
        asked = self._described.reading.get("descriptors") if self._described else self.options.descriptors
        return RDKIT in (asked or [])

    @cached_property
    def examined(self) -> MoleculeExamination:
        """Everything to learn from, looked through once; faults are listed, not raised."""
        known = self._described
        roles = find_roles(self.source, self.options, known, targets=True)
        targets = targets_of(self.source, roles, list(known.classes) if known and known.classes else None)
        found = MoleculeExamination(self.source, roles, self.read, targets, {}, list(roles.faults))
        found.row_faults = self._row_faults(found)
        if not found.faults:
            self._divide(found)
        found.remarks = list(remarks_on(found))
        return found

    def _row_faults(self, found: MoleculeExamination) -> dict[int, str]:
        """What is wrong with rows, the first of each."""
        faults = dict(found.molecules.reasons)
        others = [found.targets.faults, *(self._gaps(name) for name in found.roles.descriptors)]
        if found.roles.split and self.splitting.kind is None:
            others.append(split_faults(self.source, found.roles.split))
        for more in others:
            faults = more | faults
        return faults

    def _gaps(self, name: str) -> dict[int, str]:
        """Cells of a descriptor that are no numbers: nothing is filled in for them."""
        cells = cells_of(self.source.frame[name])
        empty = {int(at): f"has no number in the descriptor '{name}'" for at in np.flatnonzero(cells.missing)}
        return empty | dict(wrong_numbers(cells, name))

    def _divide(self, found: MoleculeExamination) -> None:
        """Puts every molecule that can be learned from into a part."""
        measured = ~np.isnan(found.targets.values).all(1)
        usable = [
            number for number, at in enumerate(found.molecules.positions) if measured[at] and at not in found.row_faults
        ]
        if not usable:
            what = "has no row to learn from"
            found.unlearnable = [Fault(self.source.where, what, "give rows with a molecule and a target")]
            return
        parts, found.origin = divided(found, usable, self.splitting, self.seed)
        found.parts = {part: [usable[at] for at in rows] for part, rows in parts.items()}
        found.unlearnable = unlearnable(found, self._described is not None, self.splitting.fractions)

    # What a run asks for

    def faults(self) -> list[Fault]:
        return self.examined.all_faults()

    def usable(self) -> MoleculeExamination:
        """The examination, once nothing stands in the way. Raises QuintetError for the first fault."""
        found = self.examined
        faults = [*found.faults, *found.unlearnable] if self.on_error == "skip" else found.all_faults()
        if faults:
            raise refusal(faults, self._inspected)
        return found

    @property
    def _inspected(self) -> str:
        return f"quintet inspect {self.path}" if isinstance(self.path, Path) else "data.faults()"

    def prepare(self, stages: tuple[str, ...]) -> None:
        for stage in stages:
            if stage == "predict":
                self.datasets[stage] = self._to_predict()
                continue
            numbers = self.usable().parts[stage]
            if numbers:
                self.datasets[stage] = self._part(self.usable(), numbers)
            elif stage != "test":
                what = f"leaves no molecule for {stage}"
                raise refusal([Fault(self.source.where, what, f"give data.{stage}_fraction above 0, or more rows")])

    def _part(self, found: MoleculeExamination, numbers: Sequence[int]) -> GraphStore:
        store = self._graphs(numbers)
        store.graphs["y"] = self._targets(found, numbers)
        return store

    def _to_predict(self) -> GraphStore:
        """All molecules that can be read; the others stay in `rows` with the reason."""
        self.adopted()
        bad = {at for name in self.roles.descriptors for at in self._gaps(name)}
        numbers = [number for number, at in enumerate(self.read.positions) if at not in bad]
        if not numbers:
            first = next(row for row in self.rows if row.reason)
            raise QuintetError(f"{self.source.row(first.number)} {first.reason}, and no other row can be read either")
        for remark in self.unseen(numbers):
            rank_zero_only(print)(printable(remark))
        return self._graphs(numbers)

    def _graphs(self, numbers: Sequence[int]) -> GraphStore:
        """The graphs of some molecules as a model is given them."""
        known, read = self.description(), self.read
        store = read.store.select(torch.as_tensor(list(numbers), dtype=torch.long))
        store.nodes["node_categories"] = read.atoms.codes(known.node_words)[store.nodes.pop("atom").long()]
        store.edges["edge_categories"] = read.bonds.codes(known.edge_words)[store.edges.pop("bond").long()]
        store.graphs.pop("descriptors", None)
        store.graphs["row"] = torch.tensor([read.positions[number] for number in numbers])
        if known.graph_numbers:
            store.graphs["graph_values"] = standardised(self.descriptors, known.graph_numbers)[list(numbers)]
        return store

    def _targets(self, found: MoleculeExamination, numbers: Sequence[int]) -> torch.Tensor:
        values = found.targets.values[[found.molecules.positions[number] for number in numbers]]
        if found.roles.kind != "classes":
            return torch.from_numpy(values).float()
        code = {word: number for number, word in enumerate(self.description().classes)}
        words = [None if np.isnan(value) else found.targets.words[int(value)] for value in values[:, 0]]
        return torch.tensor([code.get(word, -1) for word in words])

    @cached_property
    def descriptors(self) -> Descriptors:
        """Descriptors of all molecules that could be read, as they are."""
        roles = self.roles if self._described else self.examined.roles
        frame = self.source.frame
        columns = [cells_of(frame[name]).values[self.read.positions] for name in roles.descriptors]
        given = torch.from_numpy(np.stack(columns, 1)) if columns else torch.zeros(len(self.read.positions), 0).double()
        parts = [Descriptors(given, list(roles.descriptors))]
        if self._computes:
            parts.append(Descriptors(self.read.store.graphs["descriptors"], self.read.descriptor_names))
        return Descriptors.joined(parts)

    def description(self) -> GraphDescription:
        return self._described or self._measured

    @cached_property
    def _measured(self) -> GraphDescription:
        """The description of these molecules, from the training part."""
        found, read = self.usable(), self.read
        train = torch.tensor(found.parts["train"])
        seen = read.store.select(train)
        roles = found.roles
        return GraphDescription(
            source="molecules",
            node_words=read.atoms.vocabulary(seen.nodes["atom"].unique().tolist(), NODE_COLUMNS),
            edge_words=read.bonds.vocabulary(seen.edges["bond"].unique().tolist(), EDGE_COLUMNS),
            graph_numbers=measured(self.descriptors, train.tolist()) if self.options.descriptors else {},
            encodings=dict(self.encodings),
            targets=list(roles.targets),
            largest=int(seen.node_counts.max()),
            reading={
                "smiles": roles.smiles,
                "id": roles.id,
                "kind": roles.kind,
                "strip_salts": self.treatment.strip_salts,
                "descriptors": list(self.options.descriptors),
                "descriptor_columns": list(roles.descriptors),
            },
            **target_statistics(found),
        )

    def by_length(self) -> tuple[Sequence[int], int] | None:
        return None if self.max_nodes is None else by_nodes(self.datasets["train"], self.max_nodes)

    def _loader(self, dataset: GraphStore | Together, **arguments: Any) -> DataLoader:
        store = dataset.dataset if isinstance(dataset, Together) else dataset
        return super()._loader(dataset, collate_fn=store.take, **arguments)

    # What a person, or a task, wants to know of rows

    @cached_property
    def rows(self) -> list[Row]:
        """Every row of the file in its order: its SMILES as given, what names it, and why it could not be read."""
        roles, frame = self.roles, self.source.frame
        named = [name for name in (roles.id, roles.smiles) if name]
        reasons = dict(self.read.reasons)
        if self._described:
            for name in roles.descriptors:
                reasons = self._gaps(name) | reasons
        texts, columns = frame[roles.smiles].tolist(), [frame[name].tolist() for name in named]
        cells = zip(*columns, strict=True)
        return [
            Row(number, text, dict(zip(named, values, strict=True)), reasons.get(number))
            for number, (text, values) in enumerate(zip(texts, cells, strict=True))
        ]

    def molecules_of(self, rows: Sequence[int]) -> list[Chem.Mol]:
        """The molecules of some rows as they became graphs. Raises `Unreadable` for a row that is none."""
        with silent():
            given = [read_smiles(self.rows[row].text, self.treatment.most_atoms) for row in rows]
            return [treated(molecule, self.treatment) for molecule in given]

    def unseen(self, numbers: Sequence[int]) -> list[str]:
        """What to say of words that no training molecule has, column by column."""
        known, read = self.description(), self.read
        store, remarks = read.store.select(torch.as_tensor(list(numbers), dtype=torch.long)), []
        for kinds, codes, vocabulary in (
            (read.atoms, store.nodes["atom"], known.node_words),
            (read.bonds, store.edges["bond"], known.edge_words),
        ):
            here = kinds.vocabulary(codes.unique().tolist(), list(vocabulary))
            for name, words in here.items():
                if new := [word for word in words if word not in vocabulary[name]]:
                    told = ", ".join(new[:5])
                    remarks.append(f"{name.replace('_', ' ')} {told}: no training molecule has it, so it says nothing")
        return remarks

    def remarks(self) -> list[str]:
        """What is worth knowing of molecules to learn from."""
        found = self.examined
        remarks = list(found.remarks)
        if found.parts and not self._hindered:
            others = [number for part in ("val", "test") for number in found.parts[part]]
            remarks += [f"validation and test: {remark}" for remark in self.unseen(others)]
        return remarks

    def table(self) -> Table:
        found = self.examined
        return report(found, self.remarks(), self.description_or_none(), skipped=self.on_error == "skip")

    def description_or_none(self) -> GraphDescription | None:
        """The description, where faults do not stand in the way of one."""
        return self._described or (None if self._hindered else self.description())

    @property
    def _hindered(self) -> bool:
        """Whether faults stand in the way of training."""
        found = self.examined
        return bool(found.faults or found.unlearnable or (found.row_faults and self.on_error == "raise"))

    def pictures(self) -> Iterator[tuple[str, Figure]]:
        """A sheet of drawings, and histograms of the targets."""
        from ..pictures.molecules import molecule_sheet, target_histograms

        found = self.examined
        if found.molecules.positions:
            yield "molecules", molecule_sheet(found, self.seed)
        if found.roles.targets and len(found.table.frame):
            yield "targets", target_histograms(found)


def _descriptors_of(molecules: list[Chem.Mol]) -> tuple[np.ndarray, Sequence[str]]:
    from .molecule.descriptors import descriptors_of

    return descriptors_of(molecules)


def _listed(names: list[str] | str | None) -> list[str] | None:
    return [names] if isinstance(names, str) else names
