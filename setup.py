"""Names the folders of the repository root as subpackages of `quintet`; everything else is in pyproject.toml."""

from setuptools import find_namespace_packages, setup

FOLDERS = ("kernels", "core", "vision", "timeseries", "graphs", "audio", "medical", "configs")
found = find_namespace_packages(".", include=[pattern for name in FOLDERS for pattern in (name, f"{name}.*")])
setup(packages=["quintet", *(f"quintet.{name}" for name in found if "__pycache__" not in name)])
