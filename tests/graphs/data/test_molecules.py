"""Molecules from the user's files: what each column is taken for, what is refused and where, parts, prediction."""

import functools
import math
import operator

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rdkit import Chem

from quintet.core.errors import QuintetError
from quintet.core.writing.console import Console
from quintet.graphs import GraphDescription, Molecules

CHAIN = [f"{'C' * length}O" for length in range(1, 31)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QUINTET_CACHE", str(tmp_path / "cache"))


def table_of(smiles, **columns) -> pd.DataFrame:
    return pd.DataFrame({"smiles": list(smiles)} | columns)


def told(data: Molecules) -> str:
    console = Console(width=400, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(data.table())
    return " ".join(console.export_text().split())


def alcohols(**columns) -> pd.DataFrame:
    """30 alcohols and a number of each."""
    return table_of(CHAIN, y=np.arange(30) / 10, **columns)


# The ligands that come with RDKit


def test_the_example_is_split_as_a_permutation_of_its_rows():
    data = Molecules()
    data.setup("fit")
    data.prepare(("test",))
    order = torch.randperm(1017, generator=torch.Generator().manual_seed(0))
    assert set(data.datasets["train"].graphs["row"].tolist()) == set(order[:813].tolist())
    assert set(data.datasets["test"].graphs["row"].tolist()) == set(order[914:].tolist())
    assert "CC BY-SA" in told(data)
    # The first row of the file by hand.
    assert data.rows[0].text == "O=S(=O)(Nc1cccs1)c2ccc(Oc3ccccc3c4ccccc4)c(c2)C#N"
    assert data.rows[0].named["name"] == "1520012"


def test_a_batch_holds_the_atoms_of_its_rows():
    data = Molecules(alcohols(), encodings={"random_walk": 4}, batch_size=8)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    known = data.description()
    molecules = [Chem.MolFromSmiles(data.rows[row].text) for row in batch.row.tolist()]
    assert batch.ptr.diff().tolist() == [molecule.GetNumAtoms() for molecule in molecules]
    elements = [known.node_words["element"][code - 1] for code in batch.node_categories[:, 0].tolist()]
    assert elements == [atom.GetSymbol() for molecule in molecules for atom in molecule.GetAtoms()]
    assert torch.equal(batch.y[:, 0], batch.row / 10)
    assert batch.random_walk.shape == (len(elements), 4)
    train = np.array([row / 10 for row in data.datasets["train"].graphs["row"].tolist()])
    assert known.target_scale == {"y": [pytest.approx(train.mean()), pytest.approx(train.std())]}


# What columns are


def roles(frame: pd.DataFrame, **options) -> tuple:
    found = Molecules(frame, **options).examined.roles
    return found.kind, found.targets, found.id


def test_targets_are_found_where_nothing_else_could_be_meant():
    half = [0, 1] * 15
    assert roles(alcohols(name=CHAIN)) == ("numbers", ["y"], "name")
    assert roles(table_of(CHAIN, tox=[*half[:29], None], mut=half)) == ("labels", ["tox", "mut"], None)
    assert roles(table_of(CHAIN, taste=["sweet", "sour"] * 15)) == ("classes", ["taste"], None)
    assert roles(alcohols(z=range(30))) == ("numbers", ["y"], None)  # called y
    assert roles(table_of(CHAIN, a=half), kind="numbers")[0] == "numbers"
    assert roles(table_of(CHAIN, a=[1, 2, 3] * 10), kind="classes", targets="a")[:2] == ("classes", ["a"])


def test_what_could_all_be_predicted_is_asked_for():
    data = Molecules(table_of(CHAIN, a=range(30), b=range(30)))
    with pytest.raises(QuintetError, match=r"2 columns that could be predicted: a, b; name .*data.targets=\[b\]"):
        data.setup("fit")
    with pytest.raises(QuintetError, match="no column to be predicted"):
        Molecules(table_of(CHAIN)).setup("fit")


def test_the_column_of_molecules_is_found_or_asked_for():
    frame = pd.DataFrame({"Structure": CHAIN, "note": ["fine"] * 30, "y": range(30)})
    assert Molecules(frame).roles.smiles == "Structure"
    assert Molecules(frame.rename(columns={"Structure": "what"})).roles.smiles == "what"
    twice = frame.assign(other=CHAIN).drop(columns="Structure").assign(more=CHAIN)
    with pytest.raises(QuintetError, match=r"other, more could all hold the molecules; name .* data.smiles=COLUMN"):
        Molecules(twice).setup("fit")
    assert Molecules(twice, smiles="more").roles.smiles == "more"
    with pytest.raises(QuintetError, match="hold no SMILES"):
        Molecules(frame[["note", "y"]]).setup("fit")
    with pytest.raises(QuintetError, match=r"data.smiles: .* no column 'Smiles'; nearest: "):
        Molecules(alcohols(), smiles="Smiles").setup("fit")


@pytest.mark.parametrize(
    ("option", "what"),
    [
        ({"targets": ["z"]}, "data.targets: .* no column 'z'"),
        ({"targets": ["smiles"]}, "has another role"),
        ({"descriptors": ["y"], "targets": ["y"]}, "has another role"),
        ({"descriptors": "z"}, "data.descriptors: .* no column 'z'"),
        ({"split": "z"}, "data.split: .* no column 'z'"),
        ({"split": "time"}, "data.split=time needs a column"),
        ({"split": "group"}, "data.split=group needs a column"),
        ({"encodings": {"walk": 3}}, "there is no encoding walk"),
        ({"max_atoms": 0}, "data.max_atoms is 0"),
        ({"val_fraction": 0.0}, "leaves no molecule for val"),
        ({"val_fraction": 0.7, "test_fraction": 0.7}, "more than 1"),
    ],
)
def test_options_that_cannot_be_meant(option, what):
    with pytest.raises(QuintetError, match=what):
        Molecules(alcohols(), **option).setup("fit")


# Faults


FAULTY = {
    "text": ("1.5 mg", "row 3 has '1.5 mg' in the column 'y', a number with its unit, 'mg'"),
    "bound": (">10", "a bound where a number is meant"),
    "thousands": ("1,234.5", "marks between its thousands"),
    "comma": ("1,5", "a comma for its point"),
    "infinite": ("inf", "an infinite number"),
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_cell_that_is_no_number_is_named_with_its_row(name):
    cell, what = FAULTY[name]
    data = Molecules(table_of(CHAIN, y=["0.5", "1", cell, *map(str, range(27))]))
    assert [what in fault.what or what in f"{fault.where} {fault.what}" for fault in data.faults()] == [True]
    with pytest.raises(QuintetError, match="row 3 has"):
        data.setup("fit")
    kept = Molecules(data.path, on_error="skip")
    kept.setup("fit")
    rows = [row for part in kept.examined.parts.values() for row in part]
    assert len(rows) == 29
    assert 2 not in rows
    assert "left out" in told(kept)


def test_rows_are_counted_as_in_the_file_and_rdkit_is_silent(tmp_path, capfd):
    lines = ["smiles,y", *(f"{text},{number}" for number, text in enumerate(CHAIN))]
    lines[7] = "c1cccc1,3"
    (tmp_path / "a.csv").write_text("\n".join(lines))
    with pytest.raises(QuintetError, match=r"a.csv row 8 has 'c1cccc1', which is no molecule: Can't kekulize mol"):
        Molecules(tmp_path / "a.csv").setup("fit")
    assert capfd.readouterr() == ("", "")


def test_targets_without_numbers_are_refused_or_masked():
    with pytest.raises(QuintetError, match=r"column 'y' is empty; leave it out of data.targets"):
        Molecules(table_of(CHAIN, x=range(30), y=[None] * 30), targets=["x", "y"]).setup("fit")
    gaps = [None if number % 3 else float(number) for number in range(30)]
    data = Molecules(table_of(CHAIN, x=range(30), y=gaps), targets=["x", "y"])
    data.setup("fit")
    y, rows = data.datasets["train"].graphs["y"], data.datasets["train"].graphs["row"]
    assert torch.equal(y[:, 1].isnan(), rows % 3 != 0)
    assert "2 rows without any target" in told(Molecules(table_of(CHAIN, x=[None, None, *range(28)]), targets="x"))


def test_labels_that_are_neither_0_nor_1():
    with pytest.raises(QuintetError, match="row 2 has '2' in the column 'y', where 0 or 1 is meant"):
        Molecules(table_of(CHAIN, y=[0, 2, *[1] * 28]), kind="labels").setup("fit")


def test_classes_of_words():
    words = ["sour", "sweet", None] * 10
    data = Molecules(table_of(CHAIN, taste=words), split="stratified", val_fraction=0.2)
    data.setup("fit")
    assert list(data.description().classes) == ["sour", "sweet"]
    store = data.datasets["train"]
    assert store.graphs["y"].tolist() == [["sour", "sweet"].index(words[row]) for row in store.graphs["row"].tolist()]
    with pytest.raises(QuintetError, match="fewer than two classes"):
        Molecules(table_of(CHAIN, taste=["sweet"] * 30), targets="taste").setup("fit")
    with pytest.raises(QuintetError, match="holds words, and there are 2 targets"):
        Molecules(table_of(CHAIN, taste=words, y=range(30)), targets=["y", "taste"]).setup("fit")


# Molecules


def test_single_atoms_salts_and_unseen_elements():
    frame = table_of(["C", "[Na+].[Cl-]", *CHAIN, "CS"], y=range(33), split=["train"] * 30 + ["val"] * 2 + ["test"])
    data = Molecules(frame)
    data.setup("fit")
    data.prepare(("test",))
    store = data.datasets["test"]
    assert store.nodes["node_categories"][:, 0].tolist()[1] == 0  # sulphur
    said = told(data)
    assert "1 row of several molecules (salts, mixtures), e.g. the DataFrame row 2" in said
    assert "element S: no training molecule has it" in said
    assert data.datasets["train"].node_counts.tolist()[:2] == [1, 2]
    stripped = Molecules(frame, strip_salts=True)
    stripped.setup("fit")
    assert stripped.datasets["train"].node_counts.tolist()[:2] == [1, 1]
    assert Chem.MolToSmiles(stripped.molecules_of([1])[0]) == "[Cl-]"
    assert "H" not in stripped.description().node_words["element"]


def test_one_molecule_stays_in_one_part_and_contradictions_are_said():
    frame = pd.concat([alcohols(), alcohols().assign(smiles=[f"O{'C' * n}" for n in range(1, 31)], y=9.0)])
    data = Molecules(frame.reset_index(drop=True))
    parts = data.examined.parts
    for rows in parts.values():
        assert {row % 30 for row in rows} == {row for row in rows if row < 30}
    said = told(data)
    assert "30 molecules stand in several rows, e.g. rows 1 and 31; they stay in one part" in said
    assert "30 of them with different targets, e.g. 0 and 9 in rows 1 and 31" in said


def test_a_column_of_parts_may_tear_molecules_apart_and_it_is_said():
    frame = table_of([*CHAIN, "OC", "C[C@H](N)O", "C[C@@H](N)O"], y=range(33))
    frame["split"] = ["train"] * 28 + ["val"] * 2 + ["test", "train", "test"]
    said = told(Molecules(frame))
    assert "1 molecule stands in two parts (leakage), e.g. row 1 in train and 31 in test" in said
    assert "two parts but for stereochemistry or salts (leakage), e.g. row 32 in train and 33 in test" in said
    frame["split"] = "other"
    with pytest.raises(QuintetError, match="row 1 has 'other' in 'split', which is none of train, val and test"):
        Molecules(frame).setup("fit")


@pytest.mark.parametrize("split", ["random", "stratified", "scaffold", "group", "time"])
def test_every_split_gives_every_part_its_share(split):
    frame = alcohols(batch=[number // 2 for number in range(30)], day=pd.date_range("2024-01-01", periods=30))
    rings = ["c1ccccc1" if number % 7 == 0 else "C1CCCC1" if number % 3 == 0 else "" for number in range(30)]
    frame["smiles"] = [text + ring for text, ring in zip(CHAIN, rings)]
    group = None if split == "scaffold" else "batch"
    shares = {"val_fraction": 0.2, "test_fraction": 0.2}
    parts = Molecules(frame, targets="y", split=split, time="day", group=group, **shares).examined.parts
    assert sorted(row for rows in parts.values() for row in rows) == list(range(30))
    assert len(parts["train"]) >= 14
    assert min(map(len, parts.values())) >= 2
    if split == "time":
        assert parts["test"] == list(range(24, 30))
    elif group:  # two rows of a batch are never torn apart
        for rows in parts.values():
            assert {row // 2 for row in rows if row % 2} == {row // 2 for row in rows if not row % 2}


PIECES = st.sampled_from(["C", "CO", "OC", "CC", "CN", "CC(C", "", "C1CC1", "xyz"])


@given(smiles=st.lists(PIECES, min_size=12, max_size=40), seed=st.integers(0, 3))
def test_every_readable_row_is_in_one_part(smiles, seed):
    readable = [row for row, text in enumerate(smiles) if text not in ("CC(C", "", "xyz")]
    data = Molecules(table_of(smiles, y=range(len(smiles))), smiles="smiles", on_error="skip", seed=seed)
    found = data.examined
    placed = [found.molecules.positions[number] for numbers in found.parts.values() for number in numbers]
    assert sorted(placed) == readable
    assert sorted(found.molecules.reasons) == [row for row in range(len(smiles)) if row not in readable]


# Prediction


def trained(frame: pd.DataFrame | None = None, **options) -> GraphDescription:
    data = Molecules(alcohols() if frame is None else frame, **options)
    data.setup("fit")
    return data.description()


def to_predict(known: GraphDescription, given, inherited=(), **options) -> Molecules:
    data = Molecules(given, **options)
    data.inherited = frozenset(inherited)
    data.adopt(known)
    data.prepare(("predict",))
    return data


@given(smiles=st.lists(PIECES, min_size=1, max_size=20).filter(lambda texts: set(texts) - {"CC(C", "", "xyz"}))
def test_predictions_keep_the_order_and_every_row(smiles):
    known = trained_once()
    data = to_predict(known, table_of(smiles))
    assert [row.text for row in data.rows] == smiles
    assert [row.number for row in data.rows] == list(range(len(smiles)))
    batches = [batch.row.tolist() for batch in data.predict_dataloader()]
    readable = [row.number for row in data.rows if row.reason is None]
    assert functools.reduce(operator.iadd, batches, []) == readable
    assert all(data.rows[row].text not in ("CC(C", "", "xyz") for row in readable)


_ONCE: list[GraphDescription] = []


def trained_once() -> GraphDescription:
    if not _ONCE:
        _ONCE.append(trained())
    return _ONCE[0]


def test_new_molecules_are_read_as_those_that_were_trained_on(capsys):
    known = trained(descriptors=["dose"], targets=["y"], frame=alcohols(dose=np.arange(30.0)))
    data = to_predict(known, table_of(["CO", "CS", "CC(C"], dose=[0, 1, 2]))
    assert "element S: no training molecule has it" in capsys.readouterr().out
    store = data.datasets["predict"]
    assert "y" not in store.graphs
    assert store.graphs["row"].tolist() == [0, 1]
    mean, std, low, _ = known.graph_numbers["dose"]
    expected = [(max(dose, low) - mean) / std for dose in (0, 1)]
    assert torch.allclose(store.graphs["graph_values"][:, 0], torch.tensor(expected))
    assert "no molecule" in data.rows[2].reason
    with pytest.raises(QuintetError, match="no column 'dose', a descriptor the model was trained with"):
        to_predict(known, table_of(["CO"]))
    data = to_predict(known, table_of(["CO", "CO"], dose=["1", "high"]))
    assert data.rows[1].reason == "has 'high' in the column 'dose', no number"


def test_a_list_of_smiles_is_predicted_and_ids_are_kept():
    assert to_predict(trained_once(), ["CO", "CCO"]).datasets["predict"].node_counts.tolist() == [2, 3]
    data = to_predict(trained_once(), table_of(["CO"], name=["methanol"]))
    assert data.rows[0].named == {"name": "methanol", "smiles": "CO"}
    with pytest.raises(QuintetError, match=r"row 1 has 'xyz', .*, and no other row can be read either"):
        to_predict(trained_once(), ["xyz", ""])


def test_columns_that_only_training_needs_may_be_absent():
    options = {"split": "part", "group": "batch", "id": "code", "targets": ["y"]}
    frame = alcohols(part=["train"] * 25 + ["val"] * 5, batch=range(30), code=CHAIN)
    data = to_predict(trained(frame, **options), table_of(["CO"], name=["methanol"]), options, **options)
    assert data.rows[0].named == {"name": "methanol", "smiles": "CO"}


@pytest.mark.parametrize("option", ["id", "smiles", "split", "time", "group"])
def test_columns_that_the_user_names_to_predict_must_be_there(option):
    with pytest.raises(QuintetError, match=rf"data\.{option}: the DataFrame has no column 'nmae'.*name"):
        to_predict(trained_once(), table_of(["CO"], name=["methanol"]), ["path"], **{option: "nmae"})


def test_a_test_on_new_rows_needs_their_targets():
    data = Molecules(table_of(["CO", "CCO"]), val_fraction=0.0, test_fraction=1.0)
    data.adopt(trained_once())
    with pytest.raises(QuintetError, match="no column 'y', a target the model was trained on"):
        data.prepare(("test",))
    data = Molecules(table_of(["CO", "CCO"], y=[1.0, 2.0], z=[0, 0]), val_fraction=0.0, test_fraction=1.0)
    data.adopt(trained_once())
    data.prepare(("test",))
    assert data.datasets["test"].graphs["y"].tolist() == [[1.0], [2.0]]


# Descriptors


def test_rdkits_descriptors_are_clipped_and_standardised_by_the_training_part():
    data = Molecules(alcohols(), descriptors="rdkit")
    data.setup("fit")
    known, train = data.description(), data.datasets["train"]
    values = train.graphs["graph_values"]
    assert values.shape == (len(train), len(known.graph_numbers))
    assert values.isfinite().all()
    assert values.mean(0).abs().max() < 1e-4
    assert (values.std(0, correction=0) - 1).abs().max() < 1e-3
    assert "MolWt" in known.graph_numbers
    assert "NumAromaticRings" not in known.graph_numbers
    at = list(known.graph_numbers).index("MolWt")
    mean, std, low, high = known.graph_numbers["MolWt"]
    row = train.graphs["row"][3]
    weight = 14.027 * (int(row) + 1) + 18.015  # of C_n H_(2n+2) O
    assert math.isclose(values[3, at], (min(max(weight, low), high) - mean) / std, abs_tol=1e-3)


def test_columns_become_features_where_they_are_asked_for_alone():
    frame = alcohols(dose=np.arange(30.0), note=["a"] * 30)
    assert "columns of numbers that are not read: dose" in told(Molecules(frame))
    assert trained(frame, targets="y").graph_numbers == {}
    assert list(trained(frame, targets="y", descriptors="columns").graph_numbers) == ["dose"]
    frame.loc[4, "dose"] = np.nan
    with pytest.raises(QuintetError, match="row 5 has no number in the descriptor 'dose'"):
        trained(frame, descriptors="columns")


# Memory of what was read


def test_what_was_read_is_remembered_by_its_content(tmp_path, monkeypatch):
    frame = pd.concat([alcohols()] * 20, ignore_index=True)
    options = {"encodings": {"random_walk": 4}, "split": "random"}
    first = Molecules(frame, **options)
    first.setup("fit")
    monkeypatch.setattr("quintet.graphs.data.molecules.read_molecules", None)
    again = Molecules(frame, **options)
    again.setup("fit")
    assert again.description() == first.description()
    one, other = (data.datasets["train"].take([0, 5]) for data in (first, again))
    assert all(torch.equal(one[name], other[name]) for name in one.keys())  # noqa: SIM118
    with pytest.raises(TypeError):
        Molecules(frame, strip_salts=True, **options).setup("fit")
