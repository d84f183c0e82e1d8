"""Files that are written whole or not at all."""

import pytest

from quintet.core.errors import QuintetError
from quintet.core.writing import files
from quintet.core.writing.files import written_whole


def test_a_folder_that_is_still_written_to_is_removed_in_the_end(tmp_path, monkeypatch):
    remove, asked = files.shutil.rmtree, []

    def busy(path):
        asked.append(path)
        if len(asked) < 3:
            raise OSError("Directory not empty")
        remove(path)

    monkeypatch.setattr(files.shutil, "rmtree", busy)

    def write():
        with written_whole(tmp_path / "out.zarr") as partial:
            partial.mkdir()
            raise QuintetError("the disk is full")

    with pytest.raises(QuintetError, match="disk"):
        write()
    assert len(asked) == 3
    assert list(tmp_path.iterdir()) == []
