"""Where a place looks: the weights and windows are those the layers compute with."""

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import nn

from quintet.core.aside import listening
from quintet.core.attention import Attention, LinearAttention, NeighborhoodAttention
from quintet.core.position import RotaryPosition
from quintet.vision.models import MixTransformer, NeighborhoodAttentionTransformer, VisionTransformer
from quintet.vision.pictures.attention import LAYERS, attention_picture, looks


def image(height: int = 16, width: int = 24, channels: int = 3) -> torch.Tensor:
    return torch.rand(channels, height, width, generator=torch.Generator().manual_seed(0))


def nat(**arguments) -> NeighborhoodAttentionTransformer:
    torch.manual_seed(0)
    given = {"num_classes": 3, "dim": 32, "depths": [2], "kernel_size": 3, "stem_stride": 1}
    return NeighborhoodAttentionTransformer(**given | arguments).eval()


def axis_window(place: int, length: int, size: int, dilation: int) -> set[int]:
    """The `size` members of a place's dilation class around it, shifted inwards at the borders (arXiv 2209.15001)."""
    members = list(range(place % dilation, length, dilation))
    first = min(max(members.index(place) - size // 2, 0), max(0, len(members) - size))
    return set(members[first : first + size])


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("place", [(0.5, 0.5), (0.0, 0.99), (0.99, 0.03)])
def test_the_window_is_the_neighborhood_with_its_dilation(dilation, place):
    look = looks(nat(dilations=[[1, dilation]]), image(), place)[-1]
    assert look.title == f"3 x 3 of 16 x 24, dilation {dilation}"
    row, column = look.place
    expected = torch.zeros(16, 24, dtype=torch.bool)
    for i in axis_window(row, 16, 3, dilation):
        for j in axis_window(column, 24, 3, dilation):
            expected[i, j] = True
    assert torch.equal(look.window, expected)
    assert torch.equal(look.weights > 0, expected)
    assert look.weights.sum().item() == pytest.approx(1, abs=1e-5)


def test_the_weights_are_those_of_the_layer():
    """Softmax of queries and keys with the relative bias, written out for one head and one place."""
    torch.manual_seed(0)
    layer = NeighborhoodAttention(4, num_heads=1, kernel_size=3)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, images):
            return self.layer(images.movedim(1, -1))

    tokens = image(6, 5, channels=4)
    (look,) = looks(Net(), tokens, (0.5, 0.5))
    query, key, _ = layer.qkv(tokens.movedim(0, -1)).split(4, dim=-1)
    row, column = look.place
    scores = torch.full((6, 5), -torch.inf)
    for i in range(row - 1, row + 2):
        for j in range(column - 1, column + 2):
            scores[i, j] = query[row, column] @ key[i, j] / 2 + layer.rpb[0, i - row + 2, j - column + 2]
    torch.testing.assert_close(look.weights, scores.flatten().softmax(0).view(6, 5).detach(), rtol=1e-4, atol=1e-6)


def weights_by_perturbation(layer: nn.Module, tokens: torch.Tensor, token: int) -> torch.Tensor:
    """The derivative of a token's output, before the projection, with respect to each value."""
    layer = layer.double()
    layer.proj = nn.Identity()
    tokens = tokens.double()
    dim = layer.num_key_value_heads * layer.head_dim
    bias = torch.zeros(tokens.shape[1], dim, dtype=torch.float64)
    found = []
    for j in range(tokens.shape[1]):
        changed = bias.clone()
        changed[j] = 1.0

        def with_values(module, inputs, output, changed=changed):
            return torch.cat([output[..., :-dim], output[..., -dim:] + changed], -1)

        def output(hook):
            handle = layer.qkv.register_forward_hook(hook)
            y = layer(tokens)[0, token]
            handle.remove()
            return y

        found.append((output(with_values) - output(lambda *_: None)).mean())
    return torch.stack(found)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"num_heads": 4, "num_key_value_heads": 2, "head_dim": 8}, {"rotary": RotaryPosition}, {"causal": True}],
)
def test_softmax_weights_are_what_the_output_is_made_of(arguments):
    torch.manual_seed(0)
    layer = Attention(32, **arguments).eval()
    tokens = torch.randn(1, 7, 32)
    with listening(layer, "weights") as heard:
        layer(tokens)
    found = heard["weights"][""][0].of(4)[0].mean(0)
    torch.testing.assert_close(found.double(), weights_by_perturbation(layer, tokens, 4).detach(), rtol=1e-4, atol=1e-6)


def test_the_class_token_and_a_patch_of_a_vision_transformer():
    torch.manual_seed(0)
    given = {"num_classes": 3, "image_size": 16, "patch_size": 4, "dim": 32, "depth": 2}
    found = looks(VisionTransformer(**given, register_tokens=2), image(16, 20), (0.5, 0.5))
    assert [look.title for look in found] == ["class token to 4 x 5"] * 2
    assert all(look.place is None and look.weights.shape == (4, 5) for look in found)
    assert all(0 < look.weights.sum() < 1 for look in found)  # the class token looks at the other tokens too
    found = looks(VisionTransformer(**given, pooling="average"), image(16, 20), (0.5, 0.5))
    assert [look.place for look in found] == [(2, 2)] * 2
    assert all(look.weights.sum().item() == pytest.approx(1, abs=1e-5) for look in found)


def test_the_coarser_grid_of_a_mix_transformer():
    torch.manual_seed(0)
    net = MixTransformer(dims=[8, 16], depths=[1, 1], num_heads=[1, 2], reductions=[2, 1], num_classes=3)
    first, second = looks(net, image(32, 48), (0.5, 0.5))
    assert first.title == "8 x 12 to 4 x 6"
    assert second.title == "4 x 6 to 4 x 6"
    assert first.weights.sum().item() == pytest.approx(1, abs=1e-5)


def test_a_picture_of_two_images_and_of_a_bounded_number_of_layers():
    figure = attention_picture(nat(depths=[2, 3]), [image(), image()], lambda pixels: pixels.clamp(0, 1))
    FigureCanvasAgg(figure).draw()
    assert len(figure.axes) % 2 == 0
    many = VisionTransformer(num_classes=2, image_size=8, patch_size=4, dim=32, depth=9)
    assert len(looks(many, image(8, 8), (0.5, 0.5))) == LAYERS


def test_looking_changes_nothing():
    net = nat(drop_path=0.5).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.inference_mode():
        looks(net, image(), (0.5, 0.5))
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_mixers_without_weights_give_no_picture():
    assert attention_picture(nat(mixer=LinearAttention, kernel_size=None), [image()], lambda pixels: pixels) is None
