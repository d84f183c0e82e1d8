"""Molecules: how their tables are read, examined, split and turned into graphs of atoms."""
