"""Numeric operations, one to a file: reference, fast torch form, Triton kernels, and the specification for tests.

Import an operation from its file: `from quintet.kernels.rms_norm import rms_norm`.
"""

from ._runtime import explain
from ._spec import OpSpec, list_specs
