"""Running: from what is typed to a run folder with checkpoints, metrics, pictures and a report."""
