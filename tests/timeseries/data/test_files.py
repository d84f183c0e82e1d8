"""Every format gives the same table, with what it says of units and dimensions."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from quintet.core.errors import QuintetError
from quintet.timeseries.data.files import Wanted, files_in, read


def dataset(frame: pd.DataFrame) -> xr.Dataset:
    made = frame.rename(columns={"date": "time"}).set_index("time").to_xarray()
    made["a"].attrs["units"] = "degC"
    return made


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".parquet", ".nc", ".zarr"])
def test_every_format(tmp_path, table, ending):
    frame, path = table(30), tmp_path / f"series{ending}"
    if ending == ".parquet":
        frame.set_index("date").to_parquet(path)
    elif ending == ".nc":
        dataset(frame).to_netcdf(path, engine="h5netcdf")
    elif ending == ".zarr":
        dataset(frame).to_zarr(path)
    else:
        frame.to_csv(path, index=False)
    source = read(path)
    assert np.array_equal(source.frame[["a", "b"]].to_numpy(), frame[["a", "b"]].to_numpy())
    stamps = pd.to_datetime(source.frame[source.time or "date"])
    assert (stamps == frame["date"]).all()
    if ending in (".nc", ".zarr"):
        assert (source.time, source.series, source.units) == ("time", [], {"a": "degC"})


@pytest.mark.parametrize("separator", [";", "\t", ","])
def test_separators_of_csv(tmp_path, table, separator):
    path = tmp_path / "series.csv"
    table(5).to_csv(path, index=False, sep=separator)
    assert list(read(path).frame.columns) == ["date", "a", "b"]


def test_a_second_dimension_is_that_of_the_series(tmp_path, table):
    made = dataset(table(10))
    both = xr.concat([made, made + 1], pd.Index(["north", "south"], name="station"))
    both["height"] = ("station", [3.0, 4.0])
    path = tmp_path / "stations.nc"
    both.to_netcdf(path, engine="h5netcdf")
    source = read(path)
    assert source.series == ["station"]
    assert set(source.frame.columns) == {"time", "station", "a", "b"}
    assert source.remarks == ["not read, as without time: height"]
    wanted = read(path, Wanted(columns=["a"], static=["height"]))
    assert set(wanted.frame.columns) == {"time", "station", "a", "height"}
    assert wanted.frame.groupby("station")["height"].unique().map(list).to_dict() == {"north": [3.0], "south": [4.0]}
    with pytest.raises(QuintetError, match=r"data.id=place is not what tells its series apart; it has station"):
        read(path, Wanted(series=["place"]))


def cube() -> xr.Dataset:
    times = pd.date_range("2024", periods=3)
    values = np.arange(12.0).reshape(3, 2, 2)
    coordinates = {"time": times, "lat": ("lat", [46.0, 45.0], {"units": "degrees_north"}), "lon": [15.0, 16.0]}
    return xr.Dataset({"t": (("time", "lat", "lon"), values, {"units": "K"})}, coordinates, {"title": "cube"})


def test_each_point_of_a_grid_is_a_series(tmp_path):
    cube().to_netcdf(tmp_path / "cube.nc", engine="h5netcdf")
    for given in (tmp_path / "cube.nc", cube(), cube()["t"]):
        source = read(given)
        assert (source.time, source.series) == ("time", ["lat", "lon"])
        one = source.frame[(source.frame["lat"] == 45.0) & (source.frame["lon"] == 16.0)]
        assert one["t"].tolist() == [3.0, 7.0, 11.0]
        assert source.labels.attributes["lat"] == {"units": "degrees_north"}
        assert source.labels.coordinates["lat"].to_numpy().tolist() == [46.0, 45.0]


def test_variables_of_different_shapes_are_refused():
    mixed = cube()
    mixed["mean"] = mixed["t"].mean("lon")
    with pytest.raises(
        QuintetError, match=r"'t' runs along lat, lon beside time and 'mean' along lat; choose variables"
    ):
        read(mixed)
    assert read(mixed, Wanted(columns=["mean"])).series == ["lat"]


def test_each_file_of_a_folder_is_a_series(tmp_path, table):
    folder = tmp_path / "shops"
    folder.mkdir()
    table(10).to_csv(folder / "north.csv", index=False)
    table(7, seed=1)[["b", "a", "date"]].to_csv(folder / "south.csv.gz", index=False)
    (folder / "README.txt").write_text("shops")
    source = read(folder)
    assert source.series == ["file"]
    assert source.frame["file"].value_counts().to_dict() == {"north": 10, "south": 7}
    assert source.row(12) == f"{folder / 'south.csv.gz'} row 4"
    assert len(files_in(folder)) == 2
    table(3).drop(columns="a").to_csv(folder / "west.csv", index=False)
    with pytest.raises(QuintetError, match="differ in the column 'a'; a folder holds files of one shape"):
        read(folder)
    (folder / "photo.jpg").write_bytes(b"")
    assert files_in(folder) == []
    (tmp_path / "empty").mkdir()
    with pytest.raises(QuintetError, match="holds no file in a format that is read here"):
        read(tmp_path / "empty")


def test_a_folder_whose_files_name_their_series(tmp_path, table):
    for part, name in ((table(10), "x"), (table(10, start="2024-02-01"), "y")):
        part.assign(store=name).to_csv(tmp_path / f"{name}.csv", index=False)
    source = read(tmp_path, Wanted(series=["store"]))
    assert source.series == ["store"]
    assert "file" not in source.frame


def test_data_frames(table):
    frame = table(10)
    assert read(frame).frame.equals(frame)
    indexed = read(frame.set_index(pd.DatetimeIndex(frame["date"]))[["a", "b"]].rename_axis(None)).frame
    assert list(indexed.columns) == ["time", "a", "b"]
    assert list(read(frame[frame["a"] > 10]).frame.columns) == ["date", "a", "b"]
    with pytest.raises(QuintetError, match="the DataFrame has no rows"):
        read(frame[:0])
    with pytest.raises(QuintetError, match="several columns called 'a'"):
        read(frame.rename(columns={"b": "a"}))


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("absent.csv", None, "no file"),
        ("series.xlsx", b"", "is in no format that is read here; give .csv"),
        ("series.parquet", b"no parquet", "cannot be read"),
        ("series.nc", b"no netcdf", "cannot be read"),
        ("series.csv", b"date,a\n", "has no rows"),
        ("empty.csv", b"", "cannot be read"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, complaint):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(QuintetError, match=complaint) as caught:
        read(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_netcdf_without_dates(tmp_path):
    path = tmp_path / "x.nc"
    xr.Dataset({"a": ("x", [1.0, 2.0])}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(QuintetError, match="has no time dimension with dates; its dimensions are x: name one"):
        read(path)
