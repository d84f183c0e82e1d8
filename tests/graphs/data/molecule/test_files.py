"""Tables of molecules are read as they were written, and damage is said in one line with its place."""

import gzip

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem

from quintet.core.errors import QuintetError
from quintet.graphs.data.molecule.files import read_table

ROWS = [("CCO", "1.5"), ("CC,N", "-2"), ("C", "")]


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_any_separator_is_found(tmp_path, separator):
    lines = [separator.join(f'"{cell}"' for cell in row) for row in (("smiles", "y"), *ROWS)]
    table = read_table(written(tmp_path / "a.csv", "\n".join(lines)))
    assert list(table.frame.itertuples(index=False, name=None)) == ROWS
    assert table.numbers.tolist() == [2, 3, 4]


def test_extensions_part_no_cells(tmp_path):
    extended = "CCO |(0,0,;1,0,;1,1,)|"
    table = read_table(written(tmp_path / "a.csv", f'smiles,y\n"{extended}",1\n'))
    assert table.frame["smiles"].tolist() == [extended]
    table = read_table(written(tmp_path / "a.smi", f"{extended} ethanol\nCC ethane\n"))
    assert table.frame.to_numpy().tolist() == [[extended, "ethanol"], ["CC", "ethane"]]


def test_rows_are_named_by_their_lines(tmp_path):
    text = '\nsmiles,note\nCCO,"two\nlines"\n\nCC,x\nC,x,y\nN\n'
    table = read_table(written(tmp_path / "a.csv", text))
    assert table.numbers.tolist() == [3, 6, 7, 8]
    assert table.faults == {2: "has 3 cells and the header 2", 3: "has 1 cells and the header 2"}
    assert table.row(1).endswith("a.csv row 6")


def test_what_spreadsheets_leave_is_read(tmp_path):
    table = read_table(written(tmp_path / "a.csv", "\ufeffsmiles,y,\r\nCCO , 1 ,\r\n"))
    assert table.frame.to_dict("list") == {"smiles": ["CCO"], "y": ["1"]}


def test_packed_and_columnar_files_hold_the_same(tmp_path):
    frame = pd.DataFrame({"smiles": ["CCO", None], "y": [1.5, np.nan], "n": [3, 4]})
    frame.to_parquet(tmp_path / "a.parquet")
    with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
        frame.to_csv(file, index=False)
    expected = {"smiles": ["CCO", ""], "y": ["1.5", ""], "n": ["3", "4"]}
    for given in (tmp_path / "a.parquet", tmp_path / "a.csv.gz", frame):
        assert read_table(given).frame.to_dict("list") == expected
    assert read_table(["CCO", "C"]).frame.to_dict("list") == {"smiles": ["CCO", "C"]}


DAMAGED = {
    "empty.csv": (b"", "is empty"),
    "header.csv": (b"smiles,y\n", "has no rows"),
    "zero.csv": (b"smiles,y\nCC\0,1\n", "line 2 holds a zero byte"),
    "latin.csv": ("smiles,y\nCCO,1\nCC,é\n".encode("latin1"), "line 3 is not in UTF-8"),
    "long.csv": (b"smiles,y\nCCO,1\n" + b"C" * 1_000_001, "line 3 is longer than 1,000,000 bytes"),
    "cut.csv.gz": (gzip.compress(b"smiles,y\n" + b"CCO,1\n" * 9999)[:60], "ends in the middle of what was packed"),
    "not.csv.gz": (b"smiles,y\nCCO,1\n", "damaged or not packed"),
    "twice.csv": (b"smiles,y,y\nCCO,1,2\n", "several columns called 'y'"),
    "headless.csv": (b"CCOCCO,1.5\nCC,2\n", "has no header"),
    "wide.csv": (b",".join(b"c%d" % n for n in range(5001)) + b"\n", "has 5,001 columns"),
    "a.parquet": (b"PAR1 but nothing more", "cannot be read"),
    "a.xlsx": (b"PK", "is in no format that is read here"),
    "empty.sdf": (b"\n\n", "holds no record"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_said_in_one_line(tmp_path, name):
    content, what = DAMAGED[name]
    with pytest.raises(QuintetError) as error:
        read_table(written(tmp_path / name, content))
    assert what in str(error.value)
    assert name in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_absent_files_and_folders(tmp_path):
    with pytest.raises(QuintetError, match="no file"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(QuintetError, match="is no regular file"):
        read_table(tmp_path / "folder.csv")


def record(text: str, **properties: str) -> str:
    lines = [f"> <{name}>\n{value}\n" for name, value in properties.items()]
    return Chem.MolToMolBlock(Chem.MolFromSmiles(text)) + "\n".join(lines) + "\n$$$$\n"


def test_records_keep_their_place_their_properties_and_their_faults(tmp_path, capfd):
    good, broken = record("C[C@H](N)O", y="1.5"), record("CCO", y="2").replace(" C ", " Qq", 1)
    cut = "\n".join(record("CC", y="3").splitlines()[:5])
    table = read_table(written(tmp_path / "a.sdf", good + broken + record("C", z="a b") + cut))
    assert capfd.readouterr() == ("", "")
    assert [Chem.CanonSmiles(text) for text in table.frame["SMILES"][[0, 2]]] == ["C[C@H](N)O", "C"]
    assert table.frame["y"].tolist() == ["1.5", "2", "", ""]
    assert table.frame["z"].tolist() == ["", "", "a b", ""]
    assert set(table.faults) == {1, 3}
    assert "cut off" in table.faults[3]
    assert table.row(1).endswith(f"a.sdf record 2 (line {good.count(chr(10)) + 1})")
