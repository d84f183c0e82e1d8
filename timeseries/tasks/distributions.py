"""Forecasts as distributions: what a network's outputs mean, their likelihood, and their quantiles."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy import stats
from torch import Tensor, nn

NODES = 16  # of the polynomials in 1 / df, which are right to 12 digits between the levels 0.01 and 0.99


class StudentT(nn.Module):
    """Student's t of location m, scale s and df degrees of freedom, from three outputs a step:

        m = a,   s = w softplus((b - a) / w) + 1e-4 w,   df = 2 + softplus((c - a) / w)

    with w the standard deviation of the window. Shifting or stretching all outputs with the window, as networks do that
    normalize it, shifts or stretches the distribution. Quantiles are m + s T⁻¹(level; df); T⁻¹ is smooth in 1 / df, and
    interpolated there by Chebyshev polynomials. Reference: Salinas et al., "DeepAR: Probabilistic Forecasting with
    Autoregressive Recurrent Networks", arXiv 1704.04110, whose outputs are the parameters themselves.

    Args:
        levels: of the quantiles.
    """

    parameters_a_step: ClassVar[int] = 3

    def __init__(self, levels: Sequence[float]) -> None:
        super().__init__()
        angles = (np.arange(NODES) + 0.5) * np.pi / NODES
        inverse = 0.25 * (np.cos(angles) + 1)  # the nodes in 1 / df, between 0 and 1 / 2
        values = stats.t.ppf(np.asarray(levels)[None, :], 1 / inverse[:, None])
        # Coefficients of T_0, T_1, ... by the discrete cosine transform of the values at the nodes.
        basis = np.cos(np.arange(NODES)[:, None] * angles[None, :])
        coefficients = 2 / NODES * basis @ values
        coefficients[0] /= 2
        self.register_buffer("coefficients", torch.from_numpy(coefficients), persistent=False)

    def parameters_of(
        self, outputs: Float[Tensor, "batch horizon channels 3"], std: Float[Tensor, "batch 1 channels"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Location, scale and degrees of freedom (batch, horizon, channels)."""
        location, second, third = outputs.unbind(-1)
        scale = std * (F.softplus((second - location) / std) + 1e-4)
        return location, scale, 2 + F.softplus((third - location) / std)

    def loss(
        self,
        outputs: Float[Tensor, "batch horizon channels 3"],
        std: Float[Tensor, "batch 1 channels"],
        targets: Float[Tensor, "batch horizon channels"],
    ) -> Float[Tensor, "batch horizon channels"]:
        """The negative log-likelihood of each target."""
        location, scale, freedom = self.parameters_of(outputs, std)
        return -torch.distributions.StudentT(freedom, location, scale, validate_args=False).log_prob(targets)

    def forward(
        self, outputs: Float[Tensor, "batch horizon channels 3"], std: Float[Tensor, "batch 1 channels"]
    ) -> Float[Tensor, "batch horizon channels levels"]:
        """The quantiles of each step, rising with their levels."""
        location, scale, freedom = self.parameters_of(outputs, std)
        x = (4 / freedom.to(self.coefficients.device).double() - 1).unsqueeze(-1)
        # T_n(x) = cos(n arccos x)
        orders = torch.arange(NODES, dtype=x.dtype, device=x.device)
        standard = torch.cos(orders * torch.arccos(x.clamp(-1.0, 1.0))) @ self.coefficients
        return location.unsqueeze(-1) + scale.unsqueeze(-1) * standard.to(scale.dtype).to(scale.device)
