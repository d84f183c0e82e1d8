"""Weights that are NaN or infinite, which no network computes anything with."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from ..errors import QuintetError

STATISTICS = ("running_mean", "running_var")  # buffers of normalization; others may hold what they like, masks infinity


def not_finite(state: Mapping[str, Tensor], parameters: Iterable[str]) -> list[str]:
    """Names of parameters, and of statistics of normalization, that hold NaN or infinity."""
    parameters = set(parameters)
    return [
        name
        for name, value in state.items()
        if (name in parameters or name.endswith(STATISTICS))
        and value.is_floating_point()
        and not value.isfinite().all()
    ]


def refuse_not_finite(state: Mapping[str, Tensor], parameters: Iterable[str]) -> None:
    """Raises QuintetError where weights hold NaN or infinity."""
    if bad := not_finite(state, parameters):
        raise QuintetError(
            f"{len(bad)} tensors of these weights hold NaN or infinity (first: {bad[0]}): their training had failed; "
            "use a checkpoint from before, or train again with a lower model.lr"
        )
