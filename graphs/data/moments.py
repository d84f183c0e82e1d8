"""How what is predicted is distributed over the training part."""

from typing import Any

import numpy as np


def target_moments(names: tuple[str, ...], values: np.ndarray) -> dict[str, Any]:
    """How targets are distributed over training rows: `positives` where all are 0 or 1, else `target_scale`."""
    seen = values[~np.isnan(values)]
    if len(seen) and np.isin(seen, (0, 1)).all():
        return {"positives": {name: int(np.nansum(values[:, place])) for place, name in enumerate(names)}}
    scale = {}
    for place, name in enumerate(names):
        column = values[~np.isnan(values[:, place]), place]
        std = float(column.std()) if len(column) else 0.0
        scale[name] = [float(column.mean()) if len(column) else 0.0, std if std > 0 else 1.0]
    return {"target_scale": scale}
