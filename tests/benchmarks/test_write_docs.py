"""The committed documentation of the kernels is what the specifications generate."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_documentation_of_the_kernels_is_up_to_date():
    specification = importlib.util.spec_from_file_location("write_docs", ROOT / "benchmarks/write_docs.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    assert (ROOT / "docs/kernels.md").read_text() == module.document(), "run python benchmarks/write_docs.py"
