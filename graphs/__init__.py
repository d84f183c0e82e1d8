"""Regression and classification of graphs, nodes and links.."""
