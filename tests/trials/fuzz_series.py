"""Reads files of series that were damaged at random, one format a process, and prints what became of each.

    python fuzz_series.py FORMAT FOLDER SEED COUNT

One line a mutation: `read`, `refused`, or the name of an exception that is not meant for people. A process that ends by
a signal prints fewer lines than it should.
"""

import gzip
import shutil
import signal
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from quintet.core.errors import QuintetError
from quintet.timeseries import SeriesData
from quintet.timeseries.data.cases import Columns, read_cases

FORMATS = ("csv", "csv.gz", "parquet", "nc", "zarr", "ts")
PATIENCE = 30  # seconds for one file


def whole(kind: str, path: Path) -> None:
    """A file in good order: 200 hours of two channels, or 24 labelled series."""
    draw = np.random.default_rng(0)
    stamps = pd.date_range("2024-01-01", periods=200, freq="h")
    frame = pd.DataFrame({"date": stamps, "a": draw.normal(size=200).round(4), "b": draw.integers(0, 99, 200)})
    if kind.startswith("csv"):
        text = frame.to_csv(index=False).encode()
        path.write_bytes(gzip.compress(text) if kind == "csv.gz" else text)
    elif kind == "parquet":
        frame.to_parquet(path, index=False)
    elif kind == "ts":
        rows = [",".join(f"{value:.3f}" for value in draw.normal(size=20)) + f":{n % 2}" for n in range(24)]
        path.write_text("\n".join(["@problemName x", "@timeStamps false", "@classLabel true 0 1", "@data", *rows]))
    elif kind == "nc":
        path.write_bytes(frame.set_index("date").to_xarray().to_netcdf(engine="h5netcdf"))
    else:
        frame.set_index("date").to_xarray().to_zarr(path, consolidated=False)


def damaged(content: bytes, draw: np.random.Generator) -> bytes:
    """Flipped bytes, a piece cut out, doubled or overwritten, or an end that is missing."""
    found, kind = bytearray(content), int(draw.integers(5))
    if not found:
        return b"\x00"
    at, length = int(draw.integers(len(found))), int(draw.integers(1, 64))
    if kind == 0:
        for place in draw.integers(0, len(found), int(draw.integers(1, 20))):
            found[place] ^= int(draw.integers(1, 256))
    elif kind == 1:
        del found[at : at + length]
    elif kind == 2:
        found[at:at] = found[at : at + length]
    elif kind == 3:
        found[at : at + length] = draw.bytes(length)
    else:
        del found[at:]
    return bytes(found)


def outcome(kind: str, path: Path) -> str:
    """What becomes of reading a file."""
    signal.alarm(PATIENCE)
    try:
        if kind == "ts":
            found = read_cases(path, Columns())
            return "refused" if found.faults else "read"
        SeriesData(path, context=8, horizon=2).usable()
        return "read"
    except QuintetError as error:
        return "refused" if len(str(error).splitlines()) <= 2 else "QuintetErrorOfManyLines"
    except BaseException as error:
        return type(error).__name__
    finally:
        signal.alarm(0)


def main(kind: str, folder: Path, seed: int, count: int) -> None:
    """Prints the outcome of `count` damaged files."""
    warnings.simplefilter("ignore")
    source, path = folder / f"whole.{kind}", folder / f"damaged.{kind}"
    whole(kind, source)
    assert outcome(kind, source) == "read", "the file in good order"
    for number in range(count):
        draw = np.random.default_rng([seed, number])
        if source.is_dir():
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(source, path)
            files = sorted(file for file in path.rglob("*") if file.is_file())
            file = files[int(draw.integers(len(files)))]
            file.write_bytes(damaged(file.read_bytes(), draw))
        else:
            path.write_bytes(damaged(source.read_bytes(), draw))
        print(outcome(kind, path), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
