"""The sunspots of statsmodels: 309 years, an 11-year season, no file."""

from quintet.timeseries import Sunspots


def test_sunspots():
    data = Sunspots()
    data.setup()
    known = data.description()
    assert (known.channels, known.frequency, known.period) == (["sunspots"], "YS-JAN", 11)
    (series,) = data.examination.series
    assert (len(series.values), series.values[0, 0], series.stamps[0].year) == (309, 5.0, 1700)
    assert set(data.datasets) == {"train", "val", "test"}
