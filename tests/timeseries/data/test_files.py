"""Every format gives the same table, with what it says of units and dimensions."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from quintet.core.errors import QuintetError
from quintet.timeseries.data.files import read


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
        assert (source.time, source.series, source.units) == ("time", None, {"a": "degC"})


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
    assert source.series == "station"
    assert set(source.frame.columns) == {"time", "station", "a", "b"}
    assert source.remarks == ["not read, as without time: height"]
    with pytest.raises(QuintetError, match=r"data.id=place is not the one other dimension; it has station"):
        read(path, series="place")


def test_more_dimensions_are_refused(tmp_path):
    cube = xr.DataArray(np.zeros((3, 2, 2)), dims=("time", "lat", "lon"), name="t")
    cube["time"] = pd.date_range("2024", periods=3)
    path = tmp_path / "cube.nc"
    cube.to_netcdf(path, engine="h5netcdf")
    with pytest.raises(QuintetError, match="has the dimensions lat, lon beside time; one at most"):
        read(path)


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
    with pytest.raises(QuintetError, match="has no time dimension with dates; its dimensions are x"):
        read(path)
