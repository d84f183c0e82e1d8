"""Descriptors and fingerprints, against values by hand and RDKit's own functions."""

import math

import numpy as np
import pytest
import torch
from rdkit import Chem, DataStructs
from rdkit.Chem import Descriptors, rdFingerprintGenerator

from quintet.core.errors import QuintetError
from quintet.graphs.data.molecule import descriptors
from quintet.graphs.data.molecule.descriptors import descriptors_of, morgan_bits, morgan_counts, most_similar, tanimoto

SMILES = ["C", "CCO", "c1ccccc1", "CC(=O)Oc1ccccc1C(=O)O", "[Na+].[Cl-]", "C[C@H](N)C(=O)O", "[H][H]", "C" * 60, "CC.O"]


@pytest.fixture(scope="module")
def molecules():
    return [Chem.MolFromSmiles(smiles) for smiles in SMILES]


@pytest.fixture(scope="module")
def described(molecules):
    return descriptors_of(molecules)


def column(described, name):
    return described.values[:, described.names.index(name)]


def test_ethanol_is_as_in_the_tables(described):
    ethanol = dict(zip(described.names, described.values[1]))
    assert ethanol["MolWt"] == pytest.approx(2 * 12.011 + 6 * 1.008 + 15.999, abs=2e-3)
    assert ethanol["NumHDonors"] == ethanol["NumHAcceptors"] == 1
    assert ethanol["HeavyAtomCount"] == 3
    assert ethanol["TPSA"] == pytest.approx(20.23)  # a hydroxyl group in Ertl's table
    assert ethanol["fr_Al_OH"] == 1
    # Two bonds of atoms of degrees 1 and 2: Randic's index is their sum of 1 / sqrt(d d').
    assert ethanol["Chi1"] == pytest.approx(2 / math.sqrt(2))


def test_the_matrix_is_what_rdkit_computes_one_by_one(molecules, described):
    for row, molecule in zip(described.values, molecules):
        for value, name in zip(row, described.names):
            try:
                expected = float(dict(Descriptors.descList)[name](Chem.Mol(molecule)))
            except ZeroDivisionError:
                expected = float("nan")
            if name == "Ipc":
                expected = math.log(1 + expected)
            expected = expected if math.isfinite(expected) else float("nan")
            np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12, err_msg=name)


def test_about_two_hundred_and_none_is_infinite(described):
    assert 200 <= len(described.names) == len(set(described.names)) == described.values.shape[1]
    assert described.values.dtype == np.float64
    assert not np.isinf(described.values).any()


def test_a_descriptor_that_is_not_defined_is_nan_and_of_that_molecule_alone(described):
    assert np.isnan(column(described, "SPS")).tolist() == [smiles == "[H][H]" for smiles in SMILES]
    assert np.isnan(column(described, "BCUT2D_MWHI"))[SMILES.index("[Na+].[Cl-]")]
    assert np.isfinite(column(described, "MolWt")).all()


def test_ipc_of_a_long_chain_stays_small(described):
    assert 10 < column(described, "Ipc")[SMILES.index("C" * 60)] < 60


def test_a_molecule_that_was_changed_is_described_anew():
    molecule = Chem.RWMol(Chem.MolFromSmiles("CCO"))
    first = descriptors_of([molecule]).values
    molecule.GetAtomWithIdx(2).SetAtomicNum(16)
    Chem.SanitizeMol(molecule)
    names = descriptors_of([]).names
    changed = dict(zip(names, descriptors_of([molecule]).values[0] - first[0]))
    assert changed["MaxEStateIndex"] != 0
    assert any(changed[name] for name in names if name.startswith("VSA_EState"))


def test_no_molecules_are_an_empty_table():
    values, names = descriptors_of([])
    assert values.shape == (0, len(names))
    assert morgan_bits([]).shape == (0, 256)
    assert morgan_counts([]).shape == (0, 2048)


def test_counts_of_methane_and_of_benzene():
    # Methane has its one atom; benzene's six atoms are alike at each of three radii, the last seen from each of them.
    methane, benzene = morgan_counts([Chem.MolFromSmiles("C"), Chem.MolFromSmiles("c1ccccc1")])
    assert sorted(methane[methane > 0].tolist()) == [1]
    assert benzene.max() == 6
    assert benzene[benzene > 0].size == 3


def test_bits_are_where_counts_are(molecules):
    bits = np.unpackbits(morgan_bits(molecules, size=1024).numpy(), axis=1)
    np.testing.assert_array_equal(bits.astype(bool), morgan_counts(molecules, size=1024) > 0)


def test_similarity_is_rdkits_whatever_the_blocks(molecules, monkeypatch):
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    prints = [generator.GetFingerprint(molecule) for molecule in molecules]
    expected = torch.tensor([DataStructs.BulkTanimotoSimilarity(one, prints[:5]) for one in prints])
    bits = morgan_bits(molecules)
    torch.testing.assert_close(tanimoto(bits, bits[:5]), expected)
    monkeypatch.setattr(descriptors, "BLOCK", 2 * 2048 * 2)
    torch.testing.assert_close(tanimoto(bits, bits[:5]), expected)
    torch.testing.assert_close(most_similar(bits, bits[:5], 2).similarity, expected.sort(1, True)[0][:, :2])


def test_similarity_by_hand():
    left, right = torch.tensor([[0b11110000], [0]], dtype=torch.uint8), torch.tensor([[0b00111000]], dtype=torch.uint8)
    assert tanimoto(left, right).tolist() == [[pytest.approx(2 / 5)], [0.0]]


def test_the_nearest_of_a_molecule_is_itself(molecules):
    bits = morgan_bits(molecules)
    nearest = most_similar(bits[[3, 1]], bits)
    assert nearest.index.tolist() == [[3], [1]]
    assert nearest.similarity.tolist() == [[1.0], [1.0]]
    with pytest.raises(QuintetError, match="the 3 most similar of 2 molecules"):
        most_similar(bits, bits[:2], 3)


def test_bits_that_fill_no_bytes_are_refused(molecules):
    with pytest.raises(QuintetError, match="multiple of 8"):
        morgan_bits(molecules, size=1023)
