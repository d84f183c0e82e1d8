"""Files of weights are looked at before anything reads them: sums, what makes bytes, and how much they describe.

Readers of pickles and of headers take microseconds for a name and a shape, so that a small file which names a million
tensors without numbers, or a million classes, would be read for half a minute before it was refused.
"""

import mmap
import zipfile
from pathlib import Path

from ..errors import QuintetError, first_line

GROWING = (b"builtins\nbytearray\n", b"__builtin__\nbytearray\n", b"_codecs\nencode\n")  # as pickles name them
# Far beyond what honest files need: a hundred thousand series are described by 5 MB, a tensor by about 150 bytes.
FREE_BYTES, FREE_ENTRIES = 8 << 20, 20_000
PER_ENTRY = 1024  # bytes of a file for each tensor beyond


def check_archive(path: Path) -> None:
    """Raises QuintetError for a zip file that is damaged or that torch.save did not write; torch checks no sums."""
    if not zipfile.is_zipfile(path):
        return
    try:
        _check_entries(path)
    # Of a damaged directory: offsets before the file, versions and methods there are none of, names that are no text.
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError, EOFError, RuntimeError) as error:
        raise QuintetError(f"{path} is damaged: {first_line(error)}") from None


def _check_entries(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        described = sum(entry.file_size for entry in entries if entry.filename.endswith(".pkl"))
        # torch.save compresses nothing and names nothing twice; what does can be a thousand times its own size.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or (
            sum(entry.file_size for entry in entries) > path.stat().st_size
        ):
            raise QuintetError(f"{path} is a compressed archive, which torch.save does not write")
        _check_proportion(path, described, len(entries))
        if broken := archive.testzip():
            raise QuintetError(f"{path} is damaged: {broken} in it does not have the sum that was written")


def check_pickle(path: Path) -> None:
    """Raises QuintetError for a pickle that makes bytes: of all that torch reads without running code, only what makes
    them (`bytearray(10**11)`, text encoded again and again) can be any number of times larger than the file.
    """
    # The whole file is looked through: which of its entries is the pickle, torch's reader of archives sees its own way.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pickled:
        if any(pickled.find(name) >= 0 for name in GROWING):
            raise QuintetError(
                f"{path} was refused: it holds bytes beside tensors, which may take any amount of memory; "
                "ask its author for a state dict or safetensors"
            )


def check_safetensors(path: Path) -> None:
    """Raises QuintetError for a header that describes far more than the file holds."""
    with path.open("rb") as file:
        described = int.from_bytes(file.read(8), "little")
        if described > path.stat().st_size:
            return  # damaged, which its reader says
        header = file.read(described) if described <= FREE_BYTES else b""
    _check_proportion(path, described, header.count(b'"dtype"'))


def _check_proportion(path: Path, described: int, entries: int) -> None:
    """Raises QuintetError where names and shapes outweigh the numbers they are of."""
    size = path.stat().st_size
    if described > FREE_BYTES + (size - described) // 2 or entries > FREE_ENTRIES + size // PER_ENTRY:
        raise QuintetError(
            f"{path} is damaged: it describes far more tensors, or classes and the like, than its size has numbers for"
        )
