"""SMILES as RDKit's molecules, or why they are none, in one line; RDKit's own log stays silent."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from rdkit import Chem, rdBase

LONGEST = 20_000  # characters of a SMILES with its extension: insulin has 800, with coordinates 12,000
MOST_ATOMS = 1000  # of a molecule, heavy ones, unless the user allows more
QUOTED = 60  # characters of what cannot be read that a message repeats


class Unreadable(ValueError):
    """Why a cell or a record is no molecule; the message goes on from the name of the row."""


@contextmanager
def silent() -> Iterator[None]:
    """While it lasts RDKit writes nothing to the terminal."""
    with rdBase.BlockLogs(), rdBase.CaptureErrorLog():
        yield


def read_smiles(text: str, most_atoms: int = MOST_ATOMS) -> Chem.Mol:
    """The molecule of a SMILES, also with an extension behind it: `CCO |(0,0,;1,0,;1,1,)|` (CXSMILES).

    Raises Unreadable where it is none, or has more atoms than `most_atoms`.
    """
    text = text.strip()
    refuse_unlike(text)
    with rdBase.BlockLogs(), rdBase.CaptureErrorLog() as log:
        molecule = Chem.MolFromSmiles(text)
    if molecule is None:
        raise Unreadable(f"has {quoted(text)}, which is no molecule: {complaint(log.messages, text)}")
    return within(molecule, most_atoms)


def refuse_unlike(text: str) -> None:
    """Raises Unreadable for what RDKit would read as something else, or should not be given at all."""
    if not text:
        raise Unreadable("has an empty SMILES")
    if len(text) > LONGEST:
        raise Unreadable(f"has a SMILES of {len(text):,} characters, of at most {LONGEST:,}")
    if "\0" in text:
        raise Unreadable("has a SMILES that holds a zero byte")
    core, *behind = text.split(maxsplit=1)
    if ">" in core and "->" not in core and "<-" not in core:
        raise Unreadable(f"has {quoted(text)}, which is a reaction, not a molecule")
    if behind and not behind[0].startswith("|"):
        raise Unreadable(f"has {quoted(behind[0])} behind its SMILES")


def within(molecule: Chem.Mol, most_atoms: int) -> Chem.Mol:
    """The molecule as it is. Raises Unreadable where it has no atom, or more than are allowed."""
    atoms = molecule.GetNumAtoms()
    if not atoms:
        raise Unreadable("has a molecule without atoms")
    if atoms > most_atoms:
        raise Unreadable(f"has a molecule of {atoms:,} atoms, and data.max_atoms is {most_atoms:,}")
    return molecule


def complaint(log: str, text: str = "", silence: str = "RDKit gives no reason") -> str:
    """What RDKit says of a molecule it cannot read, in one line; `silence` where it says nothing."""
    lines = [re.sub(r"^\[[\d:]+\]\s*", "", line) for line in log.splitlines()]
    first = next((line for line in lines if line.strip(" *")), "")
    if not first:
        return "its extension |...| cannot be read" if "|" in text else silence
    first = first.removeprefix("SMILES Parse Error: ").split(" while parsing: ")[0].split(" for input: ")[0]
    at = next((found[1] for line in lines if (found := re.search(r"around position (\d+)", line))), None)
    return f"{' '.join(first.split())[:120]}{f' around character {at}' if at else ''}"


def quoted(text: str) -> str:
    """Text of the user's as a message repeats it."""
    return f"'{text}'" if len(text) <= QUOTED else f"'{text[:QUOTED]}...'"


def largest_fragment(molecule: Chem.Mol) -> Chem.Mol:
    """The fragment of most heavy atoms, of equal ones the heaviest, then the first."""
    parts = Chem.GetMolFrags(molecule, asMols=True)
    return max(parts, key=lambda part: (part.GetNumHeavyAtoms(), sum(atom.GetMass() for atom in part.GetAtoms())))


def without_stereo(molecule: Chem.Mol, canonical: str) -> str:
    """Canonical SMILES of the largest fragment without its stereochemistry: mirror images are one, and so are salts.

    Args:
        molecule: to be written.
        canonical: its canonical SMILES.
    """
    if "." in canonical:
        molecule = largest_fragment(molecule)
    elif not set(canonical) & set("@/\\"):
        return canonical
    return Chem.MolToSmiles(molecule, isomericSmiles=False)
