"""The seal of a checkpoint."""

import pytest
import torch

from quintet.core.errors import QuintetError
from quintet.core.weights.sealing import check_seal, digest_of


@pytest.mark.parametrize("name", ["weight", "\ud800"], ids=["plain", "no text"])
def test_a_broken_seal_is_one_line_whatever_tensors_are_called(name):
    record, state = {"version": "0"}, {name: torch.ones(2)}
    sealed = record | {"digest": digest_of(record, state)}
    assert check_seal(sealed, state, "a.ckpt")
    with pytest.raises(QuintetError, match=r"a\.ckpt is damaged: its weights or its record are not what was written"):
        check_seal(sealed, {name: torch.tensor([1.0, 1.0 + 2**-23])}, "a.ckpt")
