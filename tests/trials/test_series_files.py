"""Files of series that are damaged, hostile or something else than they say: refused in a line, and nothing runs."""

import gzip
import json
import os
import pickle
import resource
import sys
from contextlib import contextmanager

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from quintet.core.errors import QuintetError
from quintet.timeseries import SeriesData
from quintet.timeseries.data import csv_files
from quintet.timeseries.data.files import read
from quintet.timeseries.tasks import tables

HOURS = pd.date_range("2024-01-01", periods=60, freq="h")
TABLE = pd.DataFrame({"date": HOURS, "a": np.arange(60) * 0.5, "b": np.arange(60) % 7})
TEXT = TABLE.to_csv(index=False)


def grid() -> xr.Dataset:
    return xr.Dataset({"a": ("time", np.arange(60) * 0.5)}, {"time": HOURS})


# Zarr stores that ask for more than numbers


class Touch:
    """What a pickle of it does when it is read: makes a file."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def store_v2(folder, **changes):
    """A Zarr v2 store of one array, whose only chunk is a pickle that makes a folder beside the store."""
    path = folder / "evil.zarr"
    (path / "a").mkdir(parents=True)
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    described = {
        "zarr_format": 2,
        "shape": [1],
        "chunks": [1],
        "dtype": "|O",
        "order": "C",
        "fill_value": None,
        "compressor": None,
        "filters": None,
    }
    (path / "a" / ".zarray").write_text(json.dumps(described | changes))
    (path / "a" / ".zattrs").write_text('{"_ARRAY_DIMENSIONS": ["time"]}')
    (path / "a" / "0").write_bytes(pickle.dumps(np.array([Touch(folder / "OWNED")], dtype=object)))
    return path


@pytest.mark.parametrize("name", ["pickle", "json2", "msgpack2", "vlen-array", "numcodecs.pickle", "no_such_codec"])
@pytest.mark.parametrize("place", ["filters", "compressor", "after another"])
def test_zarr_decodes_nothing_that_could_run_code(tmp_path, monkeypatch, name, place):
    import numcodecs.pickles

    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)  # as older ones always do
    codec = {"id": name}
    changes = {"filters": {"filters": [codec]}, "compressor": {"compressor": codec}}
    changes["after another"] = {"filters": [{"id": "vlen-utf8"}, codec]}
    path = store_v2(tmp_path, **changes[place])
    with pytest.raises(QuintetError, match=f"codec '{name}'"):
        read(path)
    assert not (tmp_path / "OWNED").exists()


@pytest.mark.parametrize("name", ["pickle", "numcodecs.pickle", "numcodecs.json2"])
def test_zarr_of_the_third_format_and_inside_shards(tmp_path, name):
    path = tmp_path / "a.zarr"
    grid().to_zarr(path, consolidated=False, zarr_format=3)
    file = path / "a" / "zarr.json"
    for codecs in (
        [{"name": name, "configuration": {}}],
        [{"name": "sharding_indexed", "configuration": {"codecs": [{"name": name}], "index_codecs": []}}],
    ):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"codecs": codecs}))
        with pytest.raises(QuintetError, match=f"codec '{name}'"):
            read(path)


def test_zarr_with_what_is_harmless_is_read(tmp_path):
    names = xr.Dataset({"a": (("city", "time"), np.ones((2, 60)))}, {"time": HOURS, "city": ["Wien", "Graz"]})
    for version in (2, 3):
        path = tmp_path / f"{version}.zarr"
        names.to_zarr(path, consolidated=False, zarr_format=version)
        assert set(read(path).frame["city"]) == {"Wien", "Graz"}


def test_lowest_numcodecs_refuses_to_unpickle():
    # Of what pyproject.toml allows, none may unpickle by itself.
    from numcodecs.pickles import ALLOW_UNSAFE_PICKLE_DECODE

    assert ALLOW_UNSAFE_PICKLE_DECODE is False


# Damaged files: each a function from a folder to a path, and a word of what the error must say


def written(name, content):
    def make(folder):
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


def of_dataset(name, change):
    def make(folder):
        path = folder / name
        if name.endswith(".nc"):
            path.write_bytes(grid().to_netcdf(engine="h5netcdf"))
        else:
            grid().to_zarr(path, consolidated=False)
        change(path)
        return path

    return make


def of_parquet(name, frame, change=lambda content: content):
    def make(folder):
        frame.to_parquet(folder / "whole")
        (folder / name).write_bytes(change((folder / "whole").read_bytes()))
        return folder / name

    return make


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def described(path, **changes):
    file = path / "a" / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def undescribed(path):
    for file in path.rglob("zarr.json"):
        file.unlink()


def fifo(name):
    def make(folder):
        os.mkfifo(folder / name)
        return folder / name

    return make


def flipped(content, count=30, seed=0):
    found, draw = bytearray(content), np.random.default_rng(seed)
    for at in draw.integers(4, len(found), count):
        found[at] ^= int(draw.integers(1, 256))
    return bytes(found)


def chunk_of(path):
    return next(file for file in (path / "a").rglob("*") if file.is_file() and file.name != "zarr.json")


def folder_of(**files):
    def make(folder):
        (folder / "several").mkdir()
        for name, content in files.items():
            (folder / "several" / name.replace("_", ".")).write_text(content)
        return folder / "several"

    return make


ROWS = TEXT.splitlines(keepends=True)
DAMAGED = {
    "a comma behind one row": (written("a.csv", "".join(ROWS[:50]) + ROWS[50].rstrip() + ",\n"), "line 51"),
    "more cells than names": (written("a.csv", ROWS[0] + "".join(row.rstrip() + ",7\n" for row in ROWS[1:])), "header"),
    "comments": (written("a.csv", "# made by a logger\n" + TEXT), "comment"),
    "one name twice": (written("a.csv", TEXT.replace("date,a,b", "date,a,a")), "several columns called 'a'"),
    "decimal comma": (written("a.csv", TEXT.replace(",", ";").replace(".5", ",5").replace(".0", ",0")), "comma"),
    "not UTF-8": (written("a.csv", TEXT.replace("date,a", "date,\xe4").encode("latin-1")), "line 1 is not UTF-8"),
    "zeros": (written("a.csv", b"\0" * 500), "no text"),
    "empty": (written("a.csv", ""), "a.csv"),
    "a header alone": (written("a.csv", ROWS[0]), "no rows"),
    "packed, cut": (written("a.csv.gz", gzip.compress(TEXT.encode())[:200]), "cannot be read|ends in the middle"),
    "packed, not": (written("a.csv.gz", TEXT), "gzip"),
    "packed, flipped": (written("a.csv.gz", flipped(gzip.compress(TEXT.encode()))), "a.csv.gz"),
    "parquet, a CSV": (written("a.parquet", TEXT), "a.parquet"),
    "parquet, cut": (of_parquet("a.parquet", TABLE, lambda content: content[:-200]), "a.parquet"),
    "NetCDF, empty": (written("a.nc", ""), "a.nc"),
    "NetCDF, a CSV": (written("a.nc", TEXT), "a.nc"),
    "NetCDF, cut": (of_dataset("a.nc", cut), "a.nc"),
    "Zarr, a file": (written("a.zarr", TEXT), "folder"),
    "Zarr, without zarr.json": (
        of_dataset("a.zarr", lambda path: [f.unlink() for f in path.rglob("zarr.json")]),
        "Zarr",
    ),
    "Zarr, garbage": (of_dataset("a.zarr", lambda path: (path / "zarr.json").write_text("{garbage")), "no JSON"),
    "Zarr, deep": (of_dataset("a.zarr", lambda path: (path / "zarr.json").write_text("[" * 10**5)), "no JSON"),
    "Zarr, a chunk cut": (of_dataset("a.zarr", lambda path: cut(chunk_of(path))), "a.zarr"),
    "Zarr, 10^12 numbers": (of_dataset("a.zarr", lambda path: described(path, shape=[10**12])), "GiB"),
    "Zarr, a pipe in it": (
        of_dataset(
            "a.zarr",
            lambda path: os.mkfifo(path / "a" / "c") if not (path / "a" / "c").exists() else os.mkfifo(path / "x"),
        ),
        "regular",
    ),
    "a folder x.csv": (lambda folder: (folder / "x.csv").mkdir() or folder / "x.csv", "is a folder"),
    "a pipe": (fifo("x.csv"), "no regular file"),
    "a device": (lambda folder: (folder / "x.csv").symlink_to("/dev/null") or folder / "x.csv", "no regular file"),
    "a folder of other columns": (folder_of(a_csv=TEXT, b_csv=TEXT.replace(",b", ",c", 1)), "differ in the column"),
    "a folder with a broken file": (folder_of(a_csv=TEXT, b_csv="x\n1,2\n3,4,5\n"), "b.csv"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused_with_their_reason(tmp_path, name):
    make, words = DAMAGED[name]
    path = make(tmp_path)
    with pytest.raises(QuintetError, match=words) as caught:
        read(path)
    assert "\n" not in str(caught.value)


# One of each reader: composing every group of data takes its time.
INSPECTED = ["a comma behind one row", "packed, cut", "parquet, a CSV", "NetCDF, cut", "Zarr, garbage", "a pipe"]


@pytest.mark.parametrize("name", [*INSPECTED, "a folder with a broken file"])
def test_inspect_gives_the_reason_of_the_reader(tmp_path, name, capsys):
    from quintet.core.run.inspection import build_data

    make, words = DAMAGED[name]
    path = make(tmp_path)
    with pytest.raises(QuintetError, match=words):
        build_data(str(path), [])


def test_stamps_of_a_calendar_without_dates(tmp_path):
    path = tmp_path / "model.nc"
    stamps = ("time", np.arange(60), {"units": "days since 2000-01-01", "calendar": "noleap"})
    dataset = xr.Dataset({"a": ("time", np.arange(60.0))}, {"time": stamps})
    path.write_bytes(dataset.to_netcdf(engine="h5netcdf"))
    with pytest.raises(QuintetError, match="convert_calendar"):
        read(path)


@pytest.mark.parametrize("given", ["%Q", "%Y-%m-%d %", "%"])
def test_a_format_of_stamps_that_is_none(tmp_path, given):
    TABLE.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(QuintetError, match=r"data\.time_format"):
        SeriesData(tmp_path / "a.csv", time_format=given).usable()


def test_a_trailing_comma_shifts_no_column(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(ROWS[0] + "".join(row.rstrip() + ",\n" for row in ROWS[1:]))
    assert SeriesData(path).usable().channels == ["a", "b"]
    np.testing.assert_array_equal(SeriesData(path).usable().series[0].values, TABLE[["a", "b"]])
    path.write_text("".join(row.rstrip() + ",\n" for row in ROWS))
    np.testing.assert_array_equal(SeriesData(path).usable().series[0].values, TABLE[["a", "b"]])


# What is written


FORMULAS = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", " =1", '=HYPERLINK("http://x","y")']


def test_tables_hold_no_formula(tmp_path):
    names = pd.Series(FORMULAS)
    frame = pd.DataFrame({"id": names, "kind": names.astype("category"), "=x": -1.5, "ok": pd.array([True] * 8)})
    tables.write_frame(tmp_path / "a.csv", frame)
    found = pd.read_csv(tmp_path / "a.csv")
    assert list(found.columns) == ["id", "kind", "'=x", "ok"]
    assert all(cell.startswith("'") for cell in [*found["id"], *found["kind"]])
    assert (found["'=x"] == -1.5).all()
    tables.write_frame(tmp_path / "a.parquet", frame)
    assert list(pd.read_parquet(tmp_path / "a.parquet")["id"]) == FORMULAS  # no spreadsheet's


@contextmanager
def small_disk(size: int):
    """While it lasts, no file can grow beyond `size` bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(sys.platform == "win32", reason="limits are of POSIX systems")
@pytest.mark.parametrize("ending", [".csv", ".parquet", ".nc", ".zarr", ".png"])
def test_a_full_disk_leaves_nothing_half(tmp_path, ending):
    from matplotlib.figure import Figure

    path = tmp_path / f"out{ending}"
    frame = pd.DataFrame({"a": np.random.default_rng(0).normal(size=5000)})
    write = {
        ".csv": lambda: tables.write_frame(path, frame),
        ".parquet": lambda: tables.write_frame(path, frame),
        ".nc": lambda: tables.write_dataset(path, frame.to_xarray()),
        ".zarr": lambda: tables.write_dataset(path, frame.to_xarray()),
        ".png": lambda: tables.write_picture(path, Figure()),
    }[ending]
    with small_disk(300), pytest.raises(QuintetError, match="cannot write"):
        write()
    assert list(tmp_path.iterdir()) == []
    write()
    assert [file.name for file in tmp_path.iterdir()] == [f"out{ending}"]


# What a CSV says in more than one way


def days(count):
    return [str(day.date()) for day in pd.date_range("2024-01-01", periods=count)]


@pytest.mark.parametrize(
    ("cells", "open_question"),
    [
        (["1.234", "12", "2.500"], True),
        (["1.234", "NA", "999.000"], True),
        (["1.234", "0.500", "2.500"], False),  # thousands do not begin with 0
        (["1.234", "1234", "2.500"], False),  # nor is one of them written without its point
        (["1.234", "2.5", "2.500"], False),
    ],
)
@pytest.mark.parametrize("separator", [";", "\t"])
def test_points_that_may_part_thousands_are_asked_about(tmp_path, cells, open_question, separator):
    rows = [f"{day}{separator}{cell}" for day, cell in zip(days(3 * len(cells)), cells * 3)]
    (tmp_path / "a.csv").write_text("\n".join([f"date{separator}load", *rows, ""]))
    if open_question:
        with pytest.raises(
            QuintetError, match=r"column 'load' writes numbers that may have decimals or thousands \('1"
        ):
            read(tmp_path / "a.csv")
    else:
        known = [float(cell) for cell in cells]
        assert read(tmp_path / "a.csv").frame["load"].tolist() == known * 3


def test_commas_between_cells_leave_points_to_decimals(tmp_path):
    (tmp_path / "a.csv").write_text("\n".join(["date,load", *(f"{day},1.234" for day in days(9)), ""]))
    assert read(tmp_path / "a.csv").frame["load"].tolist() == [1.234] * 9


def test_years_and_weeks_are_no_stamps_and_their_reason_is_said(tmp_path):
    rows = [f"{2020 + number // 52},{number % 52 + 1},{number % 7}.5" for number in range(150)]
    (tmp_path / "a.csv").write_text("\n".join(["year,week,load", *rows, ""]))
    with pytest.raises(QuintetError, match="has years and weeks, of which calendars begin on different days"):
        SeriesData(tmp_path / "a.csv", context=12, horizon=4).setup("fit")
    dated = [f"{day},{row}" for day, row in zip(days(150), rows)]
    (tmp_path / "b.csv").write_text("\n".join(["date,year,week,load", *dated, ""]))
    data = SeriesData(tmp_path / "b.csv", context=12, horizon=4, target=["load"])
    data.setup("fit")
    assert data.description().frequency == "D"


def test_spaces_around_names_are_no_part_of_them(tmp_path):
    (tmp_path / "a.csv").write_text("\n".join(["date , load ,b", *(f"{day},{day[-1]}.5,2" for day in days(60)), ""]))
    data = SeriesData(tmp_path / "a.csv", context=12, horizon=4, target=["load"])
    data.setup("fit")
    assert data.description().channels == ["load"]


@pytest.mark.filterwarnings("error")
def test_numbers_are_read_to_the_bit_without_a_warning(tmp_path):
    draw = np.random.default_rng(0)
    numbers = draw.normal(size=2000) * 10.0 ** draw.integers(-300, 300, 2000)
    (tmp_path / "a.csv").write_text(
        "\n".join(["date,load", *(f"{d},{v!r}" for d, v in zip(days(2000), numbers.tolist()))])
    )
    assert (read(tmp_path / "a.csv").frame["load"].to_numpy() == numbers).all()


# Small files that declare or unpack to more than memory


def test_small_files_that_declare_more_than_memory_are_refused_before_they_are_read(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "a.nc", "w") as file:
        file.create_dataset("time", shape=(10**12,), dtype="i8", chunks=(10**6,))
    assert (tmp_path / "a.nc").stat().st_size < 10_000
    monkeypatch.setattr(xr, "open_dataset", None)
    with pytest.raises(QuintetError, match=r"a.nc says it holds 7,451 GiB, which does not fit"):
        read(tmp_path / "a.nc")


def test_tables_that_unpack_to_more_than_memory_are_refused(tmp_path, monkeypatch):
    TABLE.to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(TEXT.encode()))
    monkeypatch.setattr(csv_files, "MOST_TEXT", len(TEXT.encode()) - 1)
    with pytest.raises(QuintetError, match=r"a.csv.gz holds more than 0 MiB of text"):
        read(tmp_path / "a.csv.gz")
    monkeypatch.setattr(csv_files, "MOST_TEXT", len(TEXT.encode()))
    assert len(read(tmp_path / "a.csv.gz").frame) == len(TABLE)
    monkeypatch.setattr(pd, "read_parquet", None)
    pages = -(-8 * TABLE.size * 2 // os.sysconf("SC_PAGE_SIZE")) - 1
    page = os.sysconf("SC_PAGE_SIZE")
    monkeypatch.setattr(os, "sysconf", lambda name: page if name == "SC_PAGE_SIZE" else pages)
    with pytest.raises(QuintetError, match=r"a.parquet says it holds"):
        read(tmp_path / "a.parquet")
