"""Benchmarks of the kernels' operations."""

from .operations import bench_kernels as bench_kernels
