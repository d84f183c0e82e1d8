"""Which paths are looked into for graphs at all."""

import subprocess
import sys

import pytest

from quintet import graphs
from quintet.graphs.data.files import edge_lists, networkx_files, pyg_files, tables
from quintet.graphs.data.molecule import files

ENDINGS = {
    *(ending for module in (edge_lists, networkx_files, pyg_files, tables) for ending in module.ENDINGS),
    *(ending + more for ending in files.FORMATS for more in ("", ".gz")),
}


@pytest.mark.parametrize("ending", sorted(ENDINGS))
def test_all_that_a_reader_reads_could_hold_graphs(tmp_path, ending):
    path = tmp_path / f"A{ending.upper()}"
    path.write_bytes(b"")
    assert graphs.could_hold(path)
    assert graphs.could_hold(tmp_path)


@pytest.mark.parametrize("name", ["ind.cora.graph", "MUTAG_A.txt"])
def test_so_could_folders_of_published_sets(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    assert graphs.could_hold(tmp_path)


def test_photographs_are_told_without_importing_what_reads_graphs(tmp_path, photos):
    assert not graphs.could_hold(photos)
    assert not graphs.could_hold(photos / "dark")
    program = (
        "import sys; from quintet.cli import main; assert main(['inspect', sys.argv[1]]) == 0; "
        "print([name for name in ('torch_geometric', 'rdkit', 'networkx') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(photos)]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "[]"
