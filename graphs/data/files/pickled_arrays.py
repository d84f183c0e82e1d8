"""Arrays, sparse matrices and lists of numbers from what a pickle describes, each built once its sizes agree."""

import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from .unpickling import ARRAYS, SPARSE, Made, Name, Refused

KINDS = {f"{kind}{size}" for kind in "iuf" for size in (1, 2, 4, 8)} - {"f1"} | {"b1"}
ORDERS = ("|", "<", ">", "=")
MOST_DENSE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 8  # bytes of a sparse matrix written out


def array_of(made: Any) -> np.ndarray:
    """A numpy array. Raises Refused where it is none, holds anything but numbers, or says another size than it has."""
    if not isinstance(made, Made) or not _ends(made, "_reconstruct") or not isinstance(made.state, tuple):
        raise Refused("it holds something else where an array belongs")
    if len(made.state) not in (4, 5):
        raise Refused("it holds an array without its parts")
    shape, kind, columns_first, content = made.state[-4:]
    dtype = _dtype(kind)
    content = content.encode("latin1") if isinstance(content, str) else content
    if not isinstance(content, bytes) or not _is_shape(shape) or math.prod(shape) * dtype.itemsize != len(content):
        raise Refused("it holds an array whose size is not that of its numbers")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if columns_first is True else "C")


def matrix_of(made: Any) -> np.ndarray:
    """A matrix of numbers, float32, from an array or a sparse matrix of rows."""
    if isinstance(made, Made) and (made.name in SPARSE or _reconstructs_sparse(made)):
        return _dense(made.state)
    array = array_of(made)
    if array.ndim != 2:
        raise Refused("it holds an array that is no table of rows and columns")
    with np.errstate(over="ignore"):  # what becomes infinite is said of its cell
        return array.astype(np.float32)


def lists_of(made: Any, most: int) -> Iterator[tuple[int, list[int]]]:
    """Numbers and lists of numbers beside them. Raises Refused for anything else, and for more than `most` in all."""
    mapping = made.items if isinstance(made, Made) and made.name == "collections.defaultdict" else made
    if not isinstance(mapping, dict):
        raise Refused("it holds something else where a mapping of lists belongs")
    for key, values in mapping.items():
        if type(values) is not list or type(key) is not int:
            raise Refused("it holds something else where a number and its list belong")
        # One list may stand in many places.
        most -= len(values)
        if most < 0:
            raise Refused("it lists more neighbours than it has room for")
        yield key, [_whole(value) for value in values]


def _whole(value: Any) -> int:
    if isinstance(value, Made) and value.name in ARRAYS and _ends(value, "scalar") and len(value.arguments) == 2:
        dtype, content = _dtype(value.arguments[0]), value.arguments[1]
        content = content.encode("latin1") if isinstance(content, str) else content
        if dtype.kind in "iu" and isinstance(content, bytes) and len(content) == dtype.itemsize:
            return int(np.frombuffer(content, dtype)[0])
    if type(value) is not int:
        raise Refused("it holds something else where the number of a node belongs")
    return value


def _ends(made: Made, name: str) -> bool:
    return made.name.rpartition(".")[2] == name


def _reconstructs_sparse(made: Made) -> bool:
    first = made.arguments[0] if made.arguments else None
    return _ends(made, "_reconstructor") and isinstance(first, Name) and first.text in SPARSE


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, tuple) and len(shape) <= 2 and all(type(n) is int and 0 <= n < 2**40 for n in shape)


def _dtype(made: Any) -> np.dtype:
    """A type of numbers, never of objects. Raises Refused for any other."""
    code = made.arguments[0] if isinstance(made, Made) and _ends(made, "dtype") and made.arguments else None
    code = code.decode("latin1") if isinstance(code, bytes) else code
    order = made.state[1] if isinstance(code, str) and isinstance(made.state, tuple) and len(made.state) > 1 else "="
    if code not in KINDS or order not in ORDERS:
        raise Refused("it holds an array of something other than numbers")
    return np.dtype(f"{order}{code}")


def _dense(state: Any) -> np.ndarray:
    shape = state.get("_shape") if isinstance(state, dict) else None
    if not _is_shape(shape) or len(shape) != 2 or not {"data", "indices", "indptr"} <= state.keys():
        raise Refused("it holds a sparse matrix without its parts")
    values, columns, borders = (array_of(state[name]) for name in ("data", "indices", "indptr"))
    if 4 * shape[0] * shape[1] > MOST_DENSE:
        raise Refused(f"it holds a matrix of {shape[0]:,} x {shape[1]:,} numbers, for which there is too little memory")
    if not _agree(values, columns, borders, shape):
        raise Refused("it holds a sparse matrix whose parts do not agree")
    # Copied in the machine's own order of bytes, in which scipy computes.
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    parts = (values, columns.astype(np.int64), borders.astype(np.int64))
    return csr_matrix(parts, shape=shape).toarray()


def _agree(values: np.ndarray, columns: np.ndarray, borders: np.ndarray, shape: tuple[int, int]) -> bool:
    whole = all(part.ndim == 1 and part.dtype.kind in "iu" for part in (columns, borders))
    if not whole or values.ndim != 1 or len(values) != len(columns) or len(borders) != shape[0] + 1:
        return False
    rising = borders[0] == 0 and borders[-1] == len(values) and bool((borders[1:] >= borders[:-1]).all())
    return rising and (not len(columns) or bool(columns.min() >= 0 and columns.max() < shape[1]))
