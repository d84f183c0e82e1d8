"""Names the folders of the repository root as subpackages of `quintet`; everything else is in pyproject.toml."""

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py

FOLDERS = ("kernels", "core", "vision", "timeseries", "graphs", "audio", "medical", "configs")


class BuildModules(build_py):
    """Leaves this file out: it lies in the package's folder and is no module of it."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        return [found for found in super().find_package_modules(package, package_dir) if found[1] != "setup"]


found = find_namespace_packages(".", include=[pattern for name in FOLDERS for pattern in (name, f"{name}.*")])
setup(
    packages=["quintet", *(f"quintet.{name}" for name in found if "__pycache__" not in name)],
    cmdclass={"build_py": BuildModules},
)
