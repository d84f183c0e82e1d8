"""The score of ReLU attention."""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from .contract import Score


class ReluScore(Score):
    """weights = relu(logits) / n^exponent, each pair by itself, for n allowed keys.

    The authors normalise queries and keys: `qk_norm=LayerNorm`. Paper: "Replacing softmax with ReLU in Vision
    Transformers", arXiv 2309.08586.

    Args:
        num_heads: heads of the attention.
        exponent: of n; the authors found 1 best.
    """

    title = "ReLU attention: matches above zero count, without a softmax"
    paper = "Replacing softmax with ReLU in Vision Transformers, arXiv 2309.08586"

    def __init__(self, num_heads: int, exponent: float = 1.0) -> None:
        super().__init__()
        self.exponent = exponent

    def forward(
        self,
        logits: Float[Tensor, "batch heads queries keys"],
        allowed: Bool[Tensor, "#batch #heads #queries keys"],
        counts: Int[Tensor, "#batch #heads #queries 1"],
    ) -> Float[Tensor, "batch heads queries keys"]:
        return logits.relu() / counts.to(logits.dtype) ** self.exponent

    def extra_repr(self) -> str:
        return f"exponent={self.exponent}"
