"""What TiRex and TiRex-2 share: series cut into patches that do not overlap, and residual layers in and out of them."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...core.regularization.dropout import Dropout


class ResidualMlp(nn.Module):
    """y = fc2(activation(fc1(x))) + skip(x), all with biases.

    Paper: "TiRex: Zero-Shot Forecasting Across Long and Short Horizons", arXiv 2505.23719.

    Args:
        in_dim: width of the input.
        hidden_dim: width between the layers.
        out_dim: width of the output.
        activation: factory of the nonlinearity.
        dropout: rate on the output of the second layer.
    """

    def __init__(
        self,
        in_dim: int,
        hidden_dim: int,
        out_dim: int,
        activation: Callable[[], nn.Module] = nn.ReLU,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_dim, hidden_dim)
        self.activation = activation()
        self.fc2 = nn.Linear(hidden_dim, out_dim)
        self.skip = nn.Linear(in_dim, out_dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Float[Tensor, "*batch in_dim"]) -> Float[Tensor, "*batch out_dim"]:
        return self.dropout(self.fc2(self.activation(self.fc1(x)))) + self.skip(x)


def patches_of(
    values: Float[Tensor, "batch time channels"], patch_size: int
) -> Float[Tensor, "batch channels patches patch_size"]:
    """Whole patches of each channel, in order; the time must be a multiple of `patch_size`."""
    return values.transpose(1, 2).unflatten(-1, (-1, patch_size))


def patch_features(
    values: Float[Tensor, "batch time channels"], observed: Bool[Tensor, "batch time channels"], patch_size: int
) -> Float[Tensor, "batch channels patches features"]:
    """Of each patch, its values and then 1 where they were observed, else 0; what was not observed stands at 0."""
    shown = patches_of(values.masked_fill(~observed, 0.0), patch_size)
    return torch.cat([shown, patches_of(observed.to(values.dtype), patch_size)], dim=-1)


def pad_time(
    values: Float[Tensor, "batch time channels"], observed: Bool[Tensor, "batch time channels"], left: int, right: int
) -> tuple[Float[Tensor, "batch padded channels"], Bool[Tensor, "batch padded channels"]]:
    """Steps before and after that were not observed."""
    if not left and not right:
        return values, observed
    return F.pad(values, (0, 0, left, right)), F.pad(observed, (0, 0, left, right))


def mask_patches(
    patches: int, samples: int, rate: float, length: int, device: torch.device | None = None
) -> Bool[Tensor, "samples patches"]:
    """Contiguous patch masking: True where a patch is hidden from the network in training.

    Each sample draws a share p from U(0, rate) and a run length c from {1, ..., length}; its patches fall in runs of c,
    from a random start, and each run is hidden with probability p. Paper: TiRex, arXiv 2505.23719, section 3.
    """
    share = rate * torch.rand(samples, 1, device=device)
    run = torch.randint(1, length + 1, (samples, 1), device=device)
    start = (torch.rand(samples, 1, device=device) * run).long()
    number = (torch.arange(patches, device=device) + start) // run
    return (torch.rand(samples, patches + 1, device=device) < share).gather(1, number)


def hide_patches(
    observed: Bool[Tensor, "batch time channels"], patch_size: int, rate: float, length: int
) -> Bool[Tensor, "batch time channels"]:
    """`observed` without the patches that `mask_patches` hides, which are the same in all channels of a sample."""
    hidden = mask_patches(observed.shape[1] // patch_size, len(observed), rate, length, observed.device)
    return observed & ~hidden.repeat_interleave(patch_size, 1).unsqueeze(-1)
