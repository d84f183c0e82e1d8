"""Based's feature map: the exponential of softmax attention up to the second order."""

import torch
from jaxtyping import Float
from torch import Tensor

from .contract import FeatureMap


class TaylorFeatures(FeatureMap):
    """f(x) = [1, u_i, u_i² / sqrt(2), u_i u_j (i < j)], u = x / head_dim^(1/4): f(q) · f(k) = 1 + s + s² / 2 >= 1/2,

    s = q · k / sqrt(head_dim). There are 1 + D + D (D + 1) / 2 features of D channels, so heads are best narrow; the
    authors' are 16 wide. Paper: "Simple linear attention language models balance the recall-throughput tradeoff",
    arXiv 2402.18668.

    Args:
        head_dim: width of queries and keys of a head.
    """

    title = "Based: linear attention whose feature map is the exponential's Taylor series to the second order"
    paper = "Simple linear attention language models balance the recall-throughput tradeoff, arXiv 2402.18668"

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        rows, columns = torch.triu_indices(head_dim, head_dim)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)

    def forward(self, x: Float[Tensor, "*batch head_dim"]) -> Float[Tensor, "*batch features"]:
        u = x * x.shape[-1] ** -0.25
        products = u[..., self.rows] * u[..., self.columns]
        products = torch.where(self.rows == self.columns, products * 0.5**0.5, products)
        return torch.cat([torch.ones_like(u[..., :1]), u, products], dim=-1)
