"""Pickles of arrays are read; whatever else a pickle holds is refused, and runs nothing."""

import collections
import os
import pickle
import struct
import sys

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from quintet.core.errors import QuintetError
from quintet.graphs.data.files.pickled_arrays import array_of, lists_of, matrix_of
from quintet.graphs.data.files.unpickling import Made, read_pickle


class Calls:
    """Pickled, it calls a function."""

    def __init__(self, function, *arguments, state=None):
        self.made = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.made


def short(text: str) -> bytes:
    return b"U" + bytes([len(text)]) + text.encode()


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
ARRAY = RECONSTRUCT + b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R"
DTYPE = b"cnumpy\ndtype\n%sK\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


def array_pickle(shape: bytes, code: str = "f4", content: bytes = b"") -> bytes:
    """An array by hand: its shape as instructions, its type, its bytes."""
    body = b"T" + struct.pack("<I", len(content)) + content
    return b"\x80\x02" + ARRAY + b"(K\x01" + shape + DTYPE % short(code) + b"\x89" + body + b"tb."


HUGE = b"\x8a\x06" + (10**12).to_bytes(6, "little")
EVIL = {
    "call of the system": pickle.dumps(Calls(os.system, "touch OWNED"), 2),
    "by protocol 0": pickle.dumps(Calls(os.system, "touch OWNED"), 0),
    "by protocol 4": pickle.dumps(Calls(os.system, "touch OWNED"), 4),
    "import of a module": b"chelper_that_opens\nrun\n.",
    "eval": b"c__builtin__\neval\nU\x12open('OWNED', 'w')\x85R.",
    "getattr": b"c__builtin__\ngetattr\n(cnumpy\nndarray\nU\x05dumpstR.",
    "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0cf2py.os.systm\x93.",
    "instance": b"(S'touch OWNED'\nios\nsystem\n.",
    "object": b"(cos\nsystem\nS'touch OWNED'\no.",
    "extension": b"\x82\x01.",
    "persistent id": b"PBAIT\n.",
    "load of numpy's own": b"cnumpy\nload\nU\x04BAIT\x85R.",
    "loads again": b"c_pickle\nloads\nU\x04BAIT\x85R.",
    "memory map": b"cnumpy\nmemmap\nU\x05OWNED\x85R.",
    "state of a name": b"cnumpy\nndarray\n}U\x05shapeK\x01sb.",
    "state of a list": b"]}U\x01aK\x01sb.",
    "slots of a name": b"cnumpy\nndarray\n(N}U\x08__code__K\x01st\x86b.",
    "call of what was made": b"cnumpy\ndtype\nU\x02f4\x85R)R.",
    "call with a list": b"cnumpy\ndtype\n]R.",
    "new object with keywords": b"cnumpy\ndtype\n)}\x92.",
    "huge array made": b"cnumpy\nndarray\n" + HUGE + b"\x85\x85\x81.",
    "huge array of zeros": array_pickle(HUGE + b"\x85"),
    "array larger than its bytes": array_pickle(b"K\x05\x85", content=b"\0" * 4),
    "array of a negative shape": array_pickle(b"J\xff\xff\xff\xff\x85"),
    "array of objects": array_pickle(b"K\x01\x85", "O8", b"\x01" * 8),
    "array of words": array_pickle(b"K\x01\x85", "S8", b"\x01" * 8),
    "array of records": array_pickle(b"K\x01\x85", "V8", b"\x01" * 8),
    "array of an unknown type": array_pickle(b"K\x01\x85", "f4,f4", b"\x01" * 8),
    "array of many axes": array_pickle(b"(" + b"K\x01" * 40 + b"t", content=b"\0" * 4),
    "state of an array that is no tuple": b"\x80\x02" + ARRAY + b"}b.",
    "array without its parts": b"\x80\x02" + ARRAY + b")b.",
    "array without state": b"\x80\x02" + ARRAY + b".",
    "far place in memory": b"K\x01r\xff\xff\xff\xff.",
    "bytes that are not there": b"\x8e" + struct.pack("<Q", 10**12) + b".",
    "array of bytes that grow": b"\x96" + struct.pack("<Q", 10**12) + b".",
    "bytes of a number": b"c__builtin__\nbytes\n" + HUGE + b"\x85R.",
    "text encoded as code": b"c_codecs\nencode\nU\x02abU\x03hex\x86R.",
    "empty stack": b"R.",
    "no end": b"]",
    "nothing": b"",
    "no pickle": b"SMILES,y\nCCO,1\n",
    "keys that are nested": b"}" + b"K\x01\x85" + b"\x85" * 3000 + b"K\x01s.",
    "frame beyond the end": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
}


@pytest.fixture
def watched():
    """What a test imports, opens and starts besides the file it reads."""
    seen, on = [], [True]

    def hook(event, arguments):
        told = ("import", "open", "exec", "compile", "os.", "subprocess", "ctypes", "socket", "pickle")
        if on[0] and event.startswith(told):
            seen.append((event, str(arguments[:1])))

    sys.addaudithook(hook)
    yield seen
    on[0] = False


def whole(path):
    """Everything a reader of Planetoid's files makes of one."""
    found = read_pickle(path)
    return matrix_of(found)


class TestEvil:
    @pytest.mark.parametrize("content", EVIL.values(), ids=EVIL.keys())
    def test_is_refused_in_a_line_and_touches_nothing(self, tmp_path, monkeypatch, watched, content):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "helper_that_opens.py").write_text("open('OWNED', 'w')\n")
        monkeypatch.syspath_prepend(tmp_path)
        path = tmp_path / "ind.evil.x"
        path.write_bytes(content)
        watched.clear()
        with pytest.raises(QuintetError) as raised:
            whole(path)
        assert [pair for pair in watched if str(path) not in pair[1]] == []
        assert not (tmp_path / "OWNED").exists()
        assert len(str(raised.value)) < 250
        assert "\n" not in str(raised.value)

    def test_text_cannot_be_encoded_again_and_again(self, tmp_path):
        path = tmp_path / "x"
        text = b"T" + struct.pack("<I", 10**5) + b"a" * 10**5
        path.write_bytes(b"c_codecs\nencode\nq\x00" + text + b"q\x01(" + b"h\x00h\x01U\x06latin1\x86R" * 1000 + b"t.")
        with pytest.raises(QuintetError, match="encodes far more text"):
            read_pickle(path)

    def test_instructions_are_counted(self, tmp_path, monkeypatch):
        monkeypatch.setattr("quintet.graphs.data.files.unpickling.MOST_STEPS", 100)
        path = tmp_path / "x"
        path.write_bytes(b"(" + b"]" * 200 + b"t.")
        with pytest.raises(QuintetError, match="more than 100 instructions"):
            read_pickle(path)

    def test_one_list_in_many_places_is_not_counted_as_many(self, tmp_path):
        neighbours = list(range(1000))
        path = tmp_path / "graph"
        path.write_bytes(pickle.dumps(dict.fromkeys(range(1000), neighbours), 2))
        with pytest.raises(QuintetError, match="more neighbours"):
            list(lists_of(read_pickle(path), path.stat().st_size))

    @pytest.mark.parametrize(
        ("part", "value", "match"),
        [
            ("indices", np.array([0, 9], dtype=np.int32), "do not agree"),
            ("indices", np.array([-1, 0], dtype=np.int32), "do not agree"),
            ("indptr", np.array([0, 5, 2], dtype=np.int32), "do not agree"),
            ("indptr", np.array([0, 2], dtype=np.int32), "do not agree"),
            ("data", np.ones(3, dtype=np.float32), "do not agree"),
            ("_shape", (2, 2**39), "too little memory"),
            ("_shape", (2, -1), "without its parts"),
            ("_shape", "no", "without its parts"),
            ("indices", "no", "something else"),
        ],
    )
    def test_sparse_matrices_whose_parts_lie_are_refused(self, tmp_path, part, value, match):
        made = Made("scipy.sparse.csr.csr_matrix", (), dict(csr_matrix(np.eye(2, dtype=np.float32)).__dict__))
        made.state = {name: made_of(item) for name, item in made.state.items()} | {part: made_of(value)}
        with pytest.raises(QuintetError, match=match):
            matrix_of(made)


def made_of(value):
    """What reading an array's pickle gives; anything else as it is."""
    if not isinstance(value, np.ndarray):
        return value
    state = (1, value.shape, Made("numpy.dtype", (value.dtype.str[1:],), (3, "<")), False, value.tobytes())
    return Made("numpy.core.multiarray._reconstruct", (), state)


class TestHonest:
    @pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
    @pytest.mark.parametrize("code", ["f4", "f8", "i4", "i8", "u1", "b1", ">i4"])
    def test_arrays_of_numbers_are_what_was_written(self, tmp_path, protocol, code):
        array = np.arange(12).reshape(3, 4).astype(code)
        path = tmp_path / "array"
        path.write_bytes(pickle.dumps(array, protocol))
        assert np.array_equal(array_of(read_pickle(path)), array)

    def test_columns_first_and_empty_arrays(self, tmp_path):
        path = tmp_path / "array"
        for array in (np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.zeros((0, 4))):
            path.write_bytes(pickle.dumps(array, 2))
            assert np.array_equal(array_of(read_pickle(path)), array)

    @pytest.mark.parametrize("protocol", [0, 2, 4])
    def test_sparse_matrices(self, tmp_path, protocol):
        matrix = csr_matrix(np.diag([1.0, 2.0, 3.0]).astype(np.float32))
        path = tmp_path / "x"
        path.write_bytes(pickle.dumps(matrix, protocol))
        assert np.array_equal(matrix_of(read_pickle(path)), matrix.toarray())

    @pytest.mark.parametrize("protocol", [0, 2, 4])
    def test_lists_of_neighbours(self, tmp_path, protocol):
        graph = collections.defaultdict(list, {0: [1, 2], 1: [0], 2: [np.int64(0)]})
        path = tmp_path / "graph"
        path.write_bytes(pickle.dumps(graph, protocol))
        assert dict(lists_of(read_pickle(path), 100)) == {0: [1, 2], 1: [0], 2: [0]}
