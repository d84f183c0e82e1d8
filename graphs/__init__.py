"""Graphs: regression and classification of graphs, nodes and links. Not built yet."""
