"""Optimization: parameter groups."""
