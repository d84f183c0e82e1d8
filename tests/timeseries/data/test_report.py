"""The table before training names what matters, and the problems where there are some."""

import io

from rich.console import Console

from quintet.timeseries import SeriesData


def text_of(data: SeriesData) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(data.table())
    return console.export_text()


def test_what_was_understood(csv):
    text = text_of(SeriesData(csv(lambda frame: frame.drop(index=5)), 24, 6))
    for part in ("239", "2024-01-01 to 2024-01-10 23:00:00", "h", "24 steps", "sees 24 steps, forecasts 6", "115"):
        assert part in text
    assert "1 stamps are absent; they are masked, not filled" in text


def test_faults(csv):
    assert "goes back in time" in text_of(SeriesData(csv(lambda frame: frame[::-1])))


def test_roles_are_named(table):
    frame = table(240, channels=3).assign(weather=["rain", "sun", "hail"] * 80, region="north")
    frame.loc[frame.index < 200, "weather"] = "sun"
    text = text_of(SeriesData(frame, 24, 6, past=["b"], future=["c", "weather"], static=["region"]))
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.split()}
    assert rows["a"][1] == "target"
    assert rows["b"][1] == "past"
    assert rows["c"][1] == "future"
    assert rows["weather"][1:] == ["future", "100.0%", "3:", "hail,", "rain,", "sun"]
    assert rows["region"][1] == "static"
    assert "column 'weather' has 'hail', 'rain', which no training row shows; masked" in text
