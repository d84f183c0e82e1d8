"""SMILES are read or refused in one line, and RDKit writes nothing to the terminal."""

import pytest
from rdkit import Chem

from quintet.graphs.data.molecule.smiles import LONGEST, Unreadable, largest_fragment, read_smiles, without_stereo

REASONS = {
    "": "empty SMILES",
    "  ": "empty SMILES",
    "CC(C": "'CC(C', which is no molecule: extra open parentheses around character 3",
    "c1cccc1": "Can't kekulize mol.  Unkekulized atoms: 0 1 2 3 4".replace("  ", " "),
    "C(C)(C)(C)(C)C": "Explicit valence for atom # 0 C, 5, is greater than permitted",
    "C1CC": "unclosed ring",
    "ethanol": "syntax error around character",
    "CC>>CO": "a reaction, not a molecule",
    "CCO ethanol": "'ethanol' behind its SMILES",
    "CC |nonsense|": "its extension |...| cannot be read",
    "C\0C": "zero byte",
    "C" * (LONGEST + 1): "of at most 20,000",
    "C" * 1001: "1,001 atoms, and data.max_atoms is 1,000",
    "(" * 5000: "no molecule",
}


@pytest.mark.parametrize("text", REASONS, ids=lambda text: text[:12].strip() or "empty")
def test_what_is_no_molecule_says_why_in_one_line(text, capfd):
    with pytest.raises(Unreadable) as error:
        read_smiles(text)
    said = str(error.value)
    assert REASONS[text] in said
    assert "\n" not in said
    assert len(said) < 250
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("text", ["C", "[Na+]", "[H][H]", "*", " CCO ", "CCO |(0,0,;1,0,;1,1,)|", "C[N+](C)(C)C.[Cl-]"])
def test_what_is_a_molecule_is_read(text):
    assert read_smiles(text).GetNumAtoms() >= 1


def test_parts_of_salts():
    salt = read_smiles("[Na+].CC(=O)[O-].O")
    assert Chem.MolToSmiles(largest_fragment(salt)) == "CC(=O)[O-]"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O", True),
        ("F/C=C/F", "F/C=C\\F", True),
        ("CC(=O)[O-].[Na+]", "CC(=O)[O-]", True),
        ("CCO", "CCN", False),
    ],
)
def test_molecules_that_differ_by_stereochemistry_and_salts_alone(one, other, same):
    flat = [without_stereo(Chem.MolFromSmiles(text), Chem.CanonSmiles(text)) for text in (one, other)]
    assert (flat[0] == flat[1]) == same
