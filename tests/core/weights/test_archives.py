"""Damaged archives are refused in a line, by what checks them."""

import pytest
import torch

from quintet.core.errors import QuintetError
from quintet.core.weights.archives import check_archive


@pytest.mark.parametrize("change", ["signature", "offset", "version", "encrypted"])
def test_a_damaged_directory_of_an_archive(tmp_path, change):
    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(3)}, path)
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    if change == "signature":
        content[entry : entry + 4] = b"PK\x09\x09"
    elif change == "offset":
        content[entry + 42 : entry + 46] = b"\x01\x00\x00\x00"  # where its first entry begins
    elif change == "version":
        content[entry + 6] = 255  # needed to unpack it
    else:
        content[entry + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(QuintetError, match=r"a\.pt is damaged: "):
        check_archive(path)
