"""The score of sigmoid attention."""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from .contract import Score


class SigmoidScore(Score):
    """weights = sigmoid(logits + b), each pair by itself; b = -log(n) for n allowed keys: together about 1 at first.

    Paper: "Theory, Analysis, and Best Practices for Sigmoid Self-Attention", arXiv 2409.04431.

    Args:
        num_heads: heads of the attention.
        bias: b; None means -log(n) of each query.
    """

    title = "Sigmoid attention: each match counts by itself, without a softmax"
    paper = "Theory, Analysis, and Best Practices for Sigmoid Self-Attention, arXiv 2409.04431"

    def __init__(self, num_heads: int, bias: float | None = None) -> None:
        super().__init__()
        self.bias = bias

    def forward(
        self,
        logits: Float[Tensor, "batch heads queries keys"],
        allowed: Bool[Tensor, "#batch #heads #queries keys"],
        counts: Int[Tensor, "#batch #heads #queries 1"],
    ) -> Float[Tensor, "batch heads queries keys"]:
        return (logits + (-counts.to(logits.dtype).log() if self.bias is None else self.bias)).sigmoid()

    def extra_repr(self) -> str:
        return "" if self.bias is None else f"bias={self.bias}"
