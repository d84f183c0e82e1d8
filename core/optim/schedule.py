"""The course of the learning rate over a run: a linear rise, then a half cosine down."""

import math
from collections.abc import Callable


def rise_and_fall(rising: int, total: int | float, final: float) -> Callable[[int], float]:
    """Factor of the peak rate at each step: (step + 1) / (rising + 1) while it rises, then a half cosine to `final`.

    Args:
        rising: steps in which the rate rises.
        total: steps of the whole run; infinite where nobody knows, which keeps the peak.
        final: the last factor.
    """

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        if math.isinf(total):
            return 1.0
        progress = min(1.0, (step - rising) / max(1, total - rising))
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return factor
