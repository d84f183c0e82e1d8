"""Atoms and bonds as words, both ways along each bond."""

import pytest
import torch
from rdkit import Chem

from quintet.graphs.data.molecule.featurize import EDGE_COLUMNS, NODE_COLUMNS, MoleculeGraphs


def graphs_of(*texts: str) -> MoleculeGraphs:
    graphs = MoleculeGraphs()
    graphs.add([Chem.MolFromSmiles(text) for text in texts])
    return graphs


def words_of(graphs: MoleculeGraphs) -> tuple[list, list]:
    """The words of each atom and of each edge, in their order."""
    store = graphs.store()
    atoms, bonds = list(graphs.atoms.numbers), list(graphs.bonds.numbers)
    return [atoms[kind] for kind in store.nodes["atom"]], [bonds[kind] for kind in store.edges["bond"]]


def test_the_words_of_an_amino_acid():
    atoms, bonds = words_of(graphs_of("C[C@H]([NH3+])C(=O)[O-]"))
    assert atoms == [
        ("C", "0", "3", "1", "sp3", "no", "no", "none"),
        ("C", "0", "1", "3", "sp3", "no", "no", "S"),  # L-alanine
        ("N", "+1", "3", "1", "sp3", "no", "no", "none"),
        ("C", "0", "0", "3", "sp2", "no", "no", "none"),
        ("O", "0", "0", "1", "sp2", "no", "no", "none"),
        ("O", "-1", "0", "1", "sp2", "no", "no", "none"),
    ]
    assert bonds[6:8] == [("double", "none", "yes", "no")] * 2


def test_the_words_of_rings_and_double_bonds():
    atoms, bonds = words_of(graphs_of("c1ccccc1/C=C/F"))
    assert atoms[0] == ("C", "0", "1", "2", "sp2", "yes", "yes", "none")
    assert ("aromatic", "none", "yes", "yes") in bonds
    assert ("double", "e", "yes", "no") in bonds
    assert ("double", "z", "no", "no") in words_of(graphs_of("F/C=C\\F"))[1]
    assert len(NODE_COLUMNS) == len(atoms[0])
    assert len(EDGE_COLUMNS) == len(bonds[0])


@pytest.mark.parametrize("text", ["N[C@@H](C)O", "C[C@H](N)O", "O[C@@H](N)C", "[C@H](O)(N)C"])
def test_chirality_does_not_depend_on_the_order_of_atoms(text):
    expected = "R" if Chem.CanonSmiles(text) == Chem.CanonSmiles("N[C@@H](C)O") else "S"
    found = {words[-1] for words in words_of(graphs_of(text))[0]} - {"none"}
    reference = dict(Chem.FindMolChiralCenters(Chem.MolFromSmiles(text)))
    assert found == set(reference.values())
    assert (expected == "R") == (found == {dict(Chem.FindMolChiralCenters(Chem.MolFromSmiles("N[C@@H](C)O")))[1]})


def test_edges_lead_both_ways_and_atoms_without_bonds_have_none():
    store = graphs_of("CCO", "C", "[Na+].[Cl-]").store()
    assert store.node_counts.tolist() == [3, 1, 2]
    assert store.edge_counts.tolist() == [4, 0, 0]
    assert store.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert torch.equal(store.edges["bond"][0::2], store.edges["bond"][1::2])


def test_a_word_that_training_never_saw_is_code_0():
    graphs = graphs_of("CO", "CS")
    atoms = graphs.store().nodes["atom"]
    vocabulary = graphs.atoms.vocabulary(atoms[:2].tolist(), NODE_COLUMNS)
    codes = graphs.atoms.codes(vocabulary)[atoms.long()]
    assert vocabulary["element"] == ["C", "O"]
    assert codes[:, 0].tolist() == [1, 2, 1, 0]
