"""A column of SMILES as graphs: read in chunks, each molecule forgotten once its atoms and bonds are noted."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from rdkit import Chem, rdBase
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ....core.writing.console import Console
from ..store import GraphStore
from .featurize import Kinds, MoleculeGraphs
from .files import MoleculeTable
from .smiles import MOST_ATOMS, Unreadable, largest_fragment, read_smiles, silent, without_stereo

CHUNK = 1000  # molecules in memory at a time
SHOWN_FROM = 3000  # molecules from which a progress bar appears
Compute = Callable[[list[Chem.Mol]], tuple[np.ndarray, Sequence[str]]]
VERSION = "1"  # of what is noted of a molecule; graphs noted by another are made anew


@dataclass(frozen=True)
class Treatment:
    """What is done with a molecule before it becomes a graph.

    Args:
        strip_salts: only its largest fragment is kept.
        most_atoms: those with more are not read.
    """

    strip_salts: bool = False
    most_atoms: int = MOST_ATOMS


@dataclass
class ReadMolecules:
    """The molecules of a table that could be read, and why others could not.

    Args:
        store: their graphs, with the kind of each atom and bond.
        atoms: kinds of atoms by their numbers.
        bonds: kinds of bonds.
        positions: of each molecule in the table.
        canonical: canonical SMILES of each, with stereochemistry.
        flat: of its largest fragment without stereochemistry.
        fragments: of each, as it was given.
        reasons: why the molecule of a position could not be read.
        descriptor_names: of the descriptors that the store has, if it has any.
    """

    store: GraphStore
    atoms: Kinds
    bonds: Kinds
    positions: list[int] = field(default_factory=list)
    canonical: list[str] = field(default_factory=list)
    flat: list[str] = field(default_factory=list)
    fragments: list[int] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    descriptor_names: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, store: GraphStore, notes: dict[str, Any]) -> "ReadMolecules":
        """From what `read_molecules` returns, or a cache remembers of it."""
        kinds = [Kinds({tuple(words): number for number, words in enumerate(notes[name])}) for name in _KINDS]
        reasons = {int(position): reason for position, reason in notes["reasons"].items()}
        lists = {name: notes[name] for name in (*_LISTS, "descriptor_names")}
        return cls(store, *kinds, **lists, reasons=reasons)

    @property
    def bytes_each(self) -> float:
        """Memory of a molecule's graph."""
        return self.store.bytes / max(1, len(self.store))


_KINDS = ("atoms", "bonds")
_LISTS = ("positions", "canonical", "flat", "fragments")


def content_of(table: MoleculeTable, column: str, treatment: Treatment, further: Any = None) -> str:
    """A name of all that decides on the graphs of a table: its SMILES, their treatment, the versions that read them."""
    digest = hashlib.sha256()
    options = [VERSION, rdBase.rdkitVersion, treatment.strip_salts, treatment.most_atoms, further]
    digest.update(json.dumps([options, sorted(table.faults.items())], sort_keys=True).encode())
    for text in table.frame[column]:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def read_molecules(
    table: MoleculeTable, column: str, treatment: Treatment, compute: Compute | None = None
) -> tuple[GraphStore, dict[str, Any]]:
    """Graphs of all molecules that can be read, and what else is known, as plain values; see `ReadMolecules.of`.

    Args:
        table: as it was read.
        column: of SMILES.
        treatment: of each molecule.
        compute: descriptors of some molecules (molecules, descriptors), and their names; None computes none.
    """
    graphs, described = MoleculeGraphs(), []
    notes: dict[str, Any] = {name: [] for name in _LISTS} | {"reasons": {}, "descriptor_names": []}
    texts = enumerate(table.frame[column])
    with silent():
        size, what = (CHUNK, "reading molecules") if compute is None else (CHUNK // 10, "describing molecules")
        for chunk in chunks(texts, size, len(table.frame), what):
            molecules = _read_chunk(chunk, table.faults, treatment, notes)
            graphs.add(molecules)
            if compute is not None:
                values, names = compute(molecules)
                described.append(torch.from_numpy(np.asarray(values, np.float64)))
                notes["descriptor_names"] = list(names)
    kinds = {"atoms": graphs.atoms, "bonds": graphs.bonds}
    notes |= {name: [list(words) for words in found.numbers] for name, found in kinds.items()}
    store = graphs.store()
    if described:
        store.graphs["descriptors"] = torch.cat(described)
    return store, notes


def _read_chunk(
    chunk: Iterable[tuple[int, str]], faults: dict[int, str], treatment: Treatment, notes: dict[str, Any]
) -> list[Chem.Mol]:
    molecules = []
    for position, text in chunk:
        try:
            if position in faults:
                raise Unreadable(faults[position])
            molecule = read_smiles(text, treatment.most_atoms)
        except Unreadable as reason:
            notes["reasons"][position] = str(reason)
            continue
        canonical = Chem.MolToSmiles(molecule)
        fragments = canonical.count(".") + 1
        if treatment.strip_salts and fragments > 1:
            molecule = treated(molecule, treatment)
            canonical = Chem.MolToSmiles(molecule)
        flat = without_stereo(molecule, canonical)
        for name, value in zip(_LISTS, (position, canonical, flat, fragments), strict=True):
            notes[name].append(value)
        molecules.append(molecule)
    return molecules


def treated(molecule: Chem.Mol, treatment: Treatment) -> Chem.Mol:
    """The molecule as it becomes a graph."""
    if not treatment.strip_salts or len(Chem.GetMolFrags(molecule)) == 1:
        return molecule
    return Chem.MolFromSmiles(Chem.MolToSmiles(largest_fragment(molecule)))


def chunks(items: Iterable[Any], size: int, total: int, what: str) -> Iterator[list[Any]]:
    """Items some at a time, with a bar that says how long all will take."""
    iterator = iter(items)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = total >= SHOWN_FROM * size // CHUNK
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as progress:
        task = progress.add_task(what, total=total)
        while chunk := list(islice(iterator, size)):
            yield chunk
            progress.advance(task, len(chunk))
