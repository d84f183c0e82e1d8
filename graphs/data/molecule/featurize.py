"""Molecules as graphs of words: atoms are nodes, bonds edges both ways, and each distinct atom is kept once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Int
from rdkit import Chem
from torch import Tensor

from ..store import GraphStore

NODE_COLUMNS = ("element", "charge", "hydrogens", "degree", "hybridisation", "aromatic", "in_ring", "chirality")
EDGE_COLUMNS = ("bond", "stereo", "conjugated", "in_ring")

Words = tuple[str, ...]


@dataclass
class Kinds:
    """Distinct atoms, or distinct bonds, each known by its number.

    Args:
        numbers: of each, in the order in which they came.
    """

    numbers: dict[Words, int] = field(default_factory=dict)

    def number(self, words: Words) -> int:
        return self.numbers.setdefault(words, len(self.numbers))

    def codes(self, vocabulary: Mapping[str, Sequence[str]]) -> Int[Tensor, "kinds columns"]:
        """Codes of each column's word, i + 1 of the i-th word of its vocabulary, 0 of any other."""
        tables = [{word: code for code, word in enumerate(words, 1)} for words in vocabulary.values()]
        rows = [[table.get(word, 0) for table, word in zip(tables, words, strict=True)] for words in self.numbers]
        return torch.tensor(rows, dtype=torch.long).reshape(len(self.numbers), len(tables))

    def vocabulary(self, seen: Iterable[int], columns: Sequence[str]) -> dict[str, list[str]]:
        """The words of each column among the kinds that were seen, sorted, numbers by their size."""
        kinds = list(self.numbers)
        rows = [kinds[number] for number in seen]
        return {name: sorted({row[at] for row in rows}, key=_order) for at, name in enumerate(columns)}


def _order(word: str) -> tuple[bool, int, str]:
    number = word.lstrip("+-").isdigit()
    return not number, int(word) if number else 0, word


class MoleculeGraphs:
    """Graphs of many molecules in little memory: a number for each atom and each bond, some 0.4 kB a molecule."""

    def __init__(self) -> None:
        self.atoms, self.bonds = Kinds(), Kinds()
        self._parts: dict[str, list[np.ndarray]] = {name: [] for name in ("nodes", "edges", "atom", "bond", "ends")}

    def add(self, molecules: Sequence[Chem.Mol]) -> None:
        """Takes molecules in; they may be forgotten afterwards."""
        # RDKit's own iteration over atoms takes as long as all of their words.
        atoms = [
            self.atoms.number(_atom(molecule.GetAtomWithIdx(index)))
            for molecule in molecules
            for index in range(molecule.GetNumAtoms())
        ]
        bonds = [molecule.GetBondWithIdx(index) for molecule in molecules for index in range(molecule.GetNumBonds())]
        ends = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in bonds]
        added = {
            "nodes": np.array([molecule.GetNumAtoms() for molecule in molecules], np.int32),
            "edges": np.array([molecule.GetNumBonds() for molecule in molecules], np.int32),
            "atom": np.array(atoms, np.int32),
            "bond": np.array([self.bonds.number(_bond(bond)) for bond in bonds], np.int32),
            "ends": np.array(ends, np.int32).reshape(-1, 2),
        }
        for name, values in added.items():
            self._parts[name].append(values)

    def store(self) -> GraphStore:
        """All molecules with the kind of each atom (`atom`) and bond (`bond`); each bond leads both ways."""
        joined = {name: torch.from_numpy(np.concatenate(parts)) for name, parts in self._parts.items()}
        ends = joined["ends"].long()
        both = torch.stack([ends, ends.flip(1)], dim=1).reshape(-1, 2).T.contiguous()
        bonds = joined["bond"].repeat_interleave(2)
        nodes, edges = joined["nodes"].long(), 2 * joined["edges"].long()
        return GraphStore(nodes, edges, both, {"atom": joined["atom"]}, {"bond": bonds})


def _atom(atom: Chem.Atom) -> Words:
    """The words of an atom, as `NODE_COLUMNS` names them."""
    charge = atom.GetFormalCharge()
    return (
        atom.GetSymbol(),
        f"{charge:+d}" if charge else "0",
        str(atom.GetTotalNumHs()),
        str(atom.GetDegree()),
        _HYBRIDISATION[atom.GetHybridization()],
        "yes" if atom.GetIsAromatic() else "no",
        "yes" if atom.IsInRing() else "no",
        _chirality(atom),
    )


def _chirality(atom: Chem.Atom) -> str:
    """R or S as Cahn, Ingold and Prelog name it: the mark of a SMILES depends on the order of its atoms."""
    if atom.GetChiralTag() == Chem.ChiralType.CHI_UNSPECIFIED:
        return "none"
    return atom.GetProp("_CIPCode") if atom.HasProp("_CIPCode") else "unnamed"


def _bond(bond: Chem.Bond) -> Words:
    """The words of a bond, as `EDGE_COLUMNS` names them."""
    return (
        _BOND[bond.GetBondType()],
        _STEREO[bond.GetStereo()],
        "yes" if bond.GetIsConjugated() else "no",
        "yes" if bond.IsInRing() else "no",
    )


_HYBRIDISATION = {kind: name.lower() for name, kind in Chem.HybridizationType.names.items()}
_BOND = {kind: name.lower() for name, kind in Chem.BondType.names.items()}
# Cis and trans say of a bond what Z and E say where neighbours have ranks.
_STEREO = {
    kind: name.removeprefix("STEREO").removeprefix("STEREO_").lower() for name, kind in Chem.BondStereo.names.items()
}
