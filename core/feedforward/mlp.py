"""The two-layer perceptron of a transformer block."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from ..regularization.dropout import Dropout


class Mlp(nn.Module):
    """y = fc2(activation(fc1(x))), token by token.

    Paper: "Attention Is All You Need", arXiv 1706.03762, section 3.3; GELU from arXiv 1606.08415.

    Args:
        dim: width of the tokens.
        hidden_dim: width between the layers; None means `ratio * dim`.
        ratio: hidden width over `dim` where `hidden_dim` is None.
        activation: factory of the nonlinearity.
        bias: biases in both layers.
        dropout: rate after the activation and after the second layer.
    """

    takes = frozenset()  # said, as a class is asked faster than a module

    def __init__(
        self,
        dim: int,
        hidden_dim: int | None = None,
        ratio: float = 4.0,
        activation: Callable[[], nn.Module] = nn.GELU,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        hidden_dim = hidden_dim or int(ratio * dim)
        self.fc1 = nn.Linear(dim, hidden_dim, bias=bias)
        self.activation = activation()
        self.fc2 = nn.Linear(hidden_dim, dim, bias=bias)
        self.dropout = Dropout(dropout)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return self.dropout(self.fc2(self.dropout(self.activation(self.fc1(x)))))
