"""Forecasts as files: the columns, stamps, names and units of what was read."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from quintet.core.errors import QuintetError
from quintet.timeseries.data import SeriesDescription
from quintet.timeseries.tasks.tables import dataset_of, refuse_existing, write_forecast


def known(series: str = "") -> SeriesDescription:
    return SeriesDescription(
        ["load", "price"], ["MW", ""], [0.0] * 2, [1.0] * 2, 4, 3, "h", 24, [], "when", series, {"": "2024-01-01"}
    )


STAMPS = pd.date_range("2024-01-01", periods=3, freq="h", name="when")
VALUES = np.arange(12.0).reshape(1, 3, 2, 2)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_table_like_the_one_that_was_read(tmp_path, ending):
    path = tmp_path / f"forecast{ending}"
    write_forecast(path, known(), [""], [STAMPS], VALUES[..., :1], [])
    found = pd.read_parquet(path) if ending == ".parquet" else pd.read_csv(path, parse_dates=["when"])
    assert list(found.columns) == ["when", "load", "price"]
    assert np.array_equal(found[["load", "price"]], VALUES[0, :, :, 0])
    assert list(found["when"]) == list(STAMPS)


def test_series_and_quantiles_are_columns(tmp_path):
    path = tmp_path / "forecast.csv"
    write_forecast(path, known("site"), ["x", "y"], [STAMPS, STAMPS], np.concatenate([VALUES, VALUES + 1]), [0.1, 0.5])
    found = pd.read_csv(path)
    assert list(found.columns) == [
        "site",
        "when",
        *(f"{c} quantile_{q}" for c in ("load", "price") for q in (0.1, 0.5)),
    ]
    assert list(found["site"]) == ["x"] * 3 + ["y"] * 3
    assert found["price quantile_0.5"].iloc[3] == 4.0


def test_netcdf_keeps_coordinates_and_units(tmp_path):
    path = tmp_path / "forecast.nc"
    write_forecast(path, known("site"), ["x", "y"], [STAMPS, STAMPS], np.concatenate([VALUES, VALUES]), [0.1, 0.5])
    with xr.open_dataset(path) as found:
        assert found["load"].dims == ("site", "when", "quantile")
        assert found["load"].attrs == {"units": "MW"}
        assert (found["when"].to_index() == STAMPS).all()
        assert list(found["site"].to_numpy()) == ["x", "y"]


def test_series_that_end_at_different_stamps_keep_their_own():
    later = STAMPS + pd.Timedelta("1D")
    found = dataset_of(known("site"), ["x", "y"], [STAMPS, later], np.concatenate([VALUES, VALUES])[..., :1], [])
    assert found["load"].dims == ("site", "step")
    assert (found["when"].sel(site="y").to_numpy() == later.to_numpy()).all()


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "there.csv").write_text("")
    with pytest.raises(QuintetError, match=r"there.csv exists and is not overwritten"):
        refuse_existing([tmp_path / "there.csv"])
    with pytest.raises(QuintetError, match="no folder"):
        refuse_existing([tmp_path / "no" / "there.csv"])
