"""The committed documentation of kernels and mixers is what the code generates."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_documentation_of_kernels_and_mixers_is_up_to_date():
    specification = importlib.util.spec_from_file_location("write_docs", ROOT / "benchmarks/write_docs.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    assert (ROOT / "docs/kernels.md").read_text() == module.document(), "run python benchmarks/write_docs.py"
    assert (ROOT / "docs/mixers.md").read_text() == module.mixers(), "run python benchmarks/write_docs.py"
