"""NetCDF files and Zarr stores as labelled arrays: nothing in them runs code, and nothing is loaded that cannot fit."""

import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import xarray as xr

from ...core.errors import QuintetError

# What a Zarr store may ask for to decode its chunks. Codecs of Python objects (pickle, json2, msgpack2) are no part of
# numbers in time, and pickle runs whatever its author wrote.
CODECS = {
    *("blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd"),
    *("adler32", "crc32", "crc32c", "fletcher32", "jenkins_lookup3"),
    *("astype", "bitround", "categorize", "delta", "fixedscaleoffset", "packbits", "quantize", "shuffle"),
    *("bytes", "sharding_indexed", "transpose", "vlen-bytes", "vlen-utf8"),
}
DESCRIBING = (".zarray", ".zmetadata", "zarr.json")  # files of a store that say how the others are read
NAMING = ("filters", "compressor", "codecs", "index_codecs")
SIZES = ("shape", "chunks", "chunk_shape")
LARGEST = 16 << 20  # bytes of such a file


def open_arrays(path: Path) -> xr.Dataset:
    """The arrays of a .nc file or a .zarr store, in memory.

    Raises QuintetError for a store that asks for codecs which could run code, and for more numbers than memory holds;
    damaged files raise whatever their reader does.
    """
    store = path.name.lower().endswith(".zarr")
    if store:
        check_store(path)
    elif h5py.is_hdf5(path):
        refuse_oversize(str(path), _declared(path))  # coordinates are read as soon as it is opened
    with xr.open_dataset(path, engine="zarr" if store else None) as dataset:
        if (calendar := _other_calendar(dataset)) is not None:
            raise QuintetError(
                f"{path} has stamps of the calendar '{calendar}', which are no dates; bring them to dates with "
                "xarray: dataset.convert_calendar('standard')"
            )
        refuse_oversize(str(path), dataset.nbytes)
        return dataset.load()


def _declared(path: Path) -> int:
    """Bytes of all arrays that a NetCDF-4 file declares, of which it may hold none."""
    sizes: list[int] = []

    def note(_: str, node: object) -> None:
        if isinstance(node, h5py.Dataset) and node.shape is not None:
            sizes.append(math.prod(node.shape) * node.dtype.itemsize)

    with h5py.File(path, "r") as file:
        file.visititems(note)
    return sum(sizes)


def _other_calendar(dataset: xr.Dataset) -> str | None:
    """The calendar of the first coordinate whose stamps are on one that is not ours, such as noleap or 360_day."""
    for variable in dataset.coords.values():
        if variable.dtype.kind == "O" and (calendar := variable.encoding.get("calendar")):
            return str(calendar)
    return None


def refuse_oversize(where: str, size: int) -> None:
    """Raises QuintetError for more bytes than half of this machine's memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory // 2:
        raise QuintetError(
            f"{where} says it holds {size / 2**30:,.0f} GiB, which does not fit into the {memory / 2**30:,.0f} GiB of "
            "this machine; write the part that is needed into a file of its own"
        )


def check_store(path: Path) -> None:
    """Looks through what a Zarr store says of itself, before anything of it is decoded.

    Raises QuintetError for codecs that could run code, arrays no machine holds, and what is no store.
    """
    if not path.is_dir():
        raise QuintetError(f"{path} is a file; a Zarr store is a folder (unpack it first)")
    described = False
    for folder, _, names in os.walk(path):
        for name in names:
            file = Path(folder) / name
            if not stat.S_ISREG(file.stat().st_mode):
                raise QuintetError(f"{file} is no regular file; a Zarr store holds nothing else")
            if name in DESCRIBING:
                described = True
                _check_described(file)
    if not described:
        raise QuintetError(f"{path} has neither zarr.json nor .zarray in it; it is no Zarr store, or part of one")


def _check_described(file: Path) -> None:
    if file.stat().st_size > LARGEST:
        raise QuintetError(f"{file} has {file.stat().st_size:,} bytes, more than what describes arrays takes")
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise QuintetError(f"{file} is no JSON ({error}); the Zarr store is damaged: write it again") from None
    for key, value in _described(content):
        if key in SIZES:
            if all(isinstance(size, int) for size in value):
                refuse_oversize(str(file), 8 * math.prod(value))
            continue
        for codec in value if isinstance(value, list) else [value]:
            name = codec.get("id", codec.get("name")) if isinstance(codec, dict) else codec
            if name is not None and str(name).removeprefix("numcodecs.") not in CODECS:
                raise QuintetError(
                    f"{file} asks for the codec '{name}', which is not decoded here as it may run code; "
                    "write the store again with one such as zstd"
                )


def _described(node: Any) -> Iterator[tuple[str, Any]]:
    """Every entry of a store's description that names codecs or sizes, wherever it stands but in attributes."""
    if isinstance(node, list):
        for one in node:
            yield from _described(one)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in NAMING or (key in SIZES and isinstance(value, list)):
                yield key, value
            if key not in ("attributes", "attrs") and not key.endswith(".zattrs"):
                yield from _described(value)
