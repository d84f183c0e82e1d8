"""Forecasts as files: the columns, stamps, names and units of what was read."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from quintet.core.errors import QuintetError
from quintet.timeseries.data.files import Labels
from quintet.timeseries.tasks.tables import Layout, check_targets, dataset_of, write_forecast


def known(arrays: Labels | None = None, **labels: list) -> Layout:
    return Layout("when", ["load", "price"], ["MW", ""], pd.DataFrame(labels), arrays)


STAMPS = pd.date_range("2024-01-01", periods=3, freq="h", name="when")
VALUES = np.arange(12.0).reshape(1, 3, 2, 2)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_table_like_the_one_that_was_read(tmp_path, ending):
    path = tmp_path / f"forecast{ending}"
    write_forecast(path, known(), [STAMPS], VALUES[..., :1], [])
    found = pd.read_parquet(path) if ending == ".parquet" else pd.read_csv(path, parse_dates=["when"])
    assert list(found.columns) == ["when", "load", "price"]
    assert np.array_equal(found[["load", "price"]], VALUES[0, :, :, 0])
    assert list(found["when"]) == list(STAMPS)


def test_series_and_quantiles_are_columns(tmp_path):
    path = tmp_path / "forecast.csv"
    write_forecast(path, known(site=["x", "y"]), [STAMPS] * 2, np.concatenate([VALUES, VALUES + 1]), [0.1, 0.5])
    found = pd.read_csv(path)
    assert list(found.columns) == [
        "site",
        "when",
        *(f"{c} quantile_{q}" for c in ("load", "price") for q in (0.1, 0.5)),
    ]
    assert list(found["site"]) == ["x"] * 3 + ["y"] * 3
    assert found["price quantile_0.5"].iloc[3] == 4.0


@pytest.mark.parametrize("ending", [".nc", ".zarr"])
def test_labelled_arrays_keep_coordinates_and_units(tmp_path, ending):
    path = tmp_path / f"forecast{ending}"
    write_forecast(path, known(site=["x", "y"]), [STAMPS] * 2, np.concatenate([VALUES, VALUES]), [0.1, 0.5])
    with xr.open_dataset(path, engine="zarr" if ending == ".zarr" else None) as found:
        assert found["load"].dims == ("site", "when", "quantile")
        assert found["load"].attrs == {"units": "MW"}
        assert (found["when"].to_index() == STAMPS).all()
        assert list(found["site"].to_numpy()) == ["x", "y"]


def test_series_that_end_at_different_stamps_keep_their_own():
    later = STAMPS + pd.Timedelta("1D")
    found = dataset_of(known(site=["x", "y"]), [STAMPS, later], np.concatenate([VALUES, VALUES])[..., :1], [])
    assert found["load"].dims == ("site", "step")
    assert (found["when"].sel(site="y").to_numpy() == later.to_numpy()).all()


def test_a_grid_is_a_grid_again():
    """Points that were left out are empty, further coordinates and all attributes come back, in the order they had."""
    given = xr.Dataset(
        {"load": (("when", "lat", "lon"), np.zeros((2, 2, 2)), {"units": "kW", "long_name": "electric load"})},
        {
            "when": ("when", STAMPS[:2], {"long_name": "time of day"}),
            "lat": ("lat", [46.0, 45.0], {"units": "degrees_north"}),
            "lon": [15.0, 16.0],
            "height": (("lat", "lon"), [[1.0, 2.0], [3.0, 4.0]]),
            "crs": 4326,
        },
        {"title": "grid"},
    )
    attributes = {str(name): dict(one.attrs) for name, one in given.variables.items()} | {"": given.attrs}
    arrays = Labels("when", given.drop_vars("load").drop_dims("when"), attributes)
    layout = known(arrays, lat=[46.0, 45.0, 45.0], lon=[16.0, 15.0, 16.0])
    found = dataset_of(layout, [STAMPS] * 3, np.stack([VALUES[0] + at for at in range(3)])[..., :1], [])
    for name in ("lat", "lon", "height", "crs"):
        assert found[name].identical(given[name]), name
    assert found["load"].dims == ("lat", "lon", "when")
    assert found["load"].sel(lat=45.0, lon=16.0).to_numpy().tolist() == [2.0, 6.0, 10.0]
    assert found["load"].sel(lat=46.0, lon=15.0).isnull().all()
    assert found["load"].attrs == {"units": "MW", "long_name": "electric load"}
    assert found["when"].attrs == {"long_name": "time of day"}
    assert found.attrs == {"title": "grid"}


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "there.csv").write_text("")
    with pytest.raises(QuintetError, match=r"there.csv exists and is not overwritten"):
        check_targets([tmp_path / "there.csv"])
    with pytest.raises(QuintetError, match="no folder"):
        check_targets([tmp_path / "no" / "there.csv"])
