"""Metrics of graphs that torchmetrics has not."""
