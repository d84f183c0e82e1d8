"""The sLSTM layer against its equations, one token at a time in float64, and against xlstm."""

import pytest
import torch
import torch.nn.functional as F

from quintet.core.errors import QuintetError
from quintet.core.ssm import SLSTM


def error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def build(dim=24, num_heads=3, **arguments):
    torch.manual_seed(0)
    layer = SLSTM(dim, num_heads, **arguments)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def equations(layer, x):
    """Of one sample (time, dim), head by head, without a stabilizer."""
    layer, x = layer.double(), x.double()
    size, width = layer.dim // layer.num_heads, layer.convolution.width
    seen = F.pad(x, (0, 0, width - 1, 0)).unfold(0, width, 1)
    convolved = F.silu((seen * layer.convolution.weight).sum(-1) + layer.convolution.bias)
    outputs = []
    for head in range(layer.num_heads):
        channels = slice(head * size, (head + 1) * size)
        c, n, h = torch.zeros(3, size).double()
        rows = []
        for token, conv in zip(x[:, channels], convolved[:, channels]):
            i, f, z, o = (
                layer.gate_weight[gate, head] @ source
                + layer.gate_bias[gate, head]
                + h @ layer.recurrent_weight[head, :, gate]
                for gate, source in enumerate((conv, conv, token, token))
            )
            c = torch.sigmoid(f) * c + torch.exp(i) * torch.tanh(z)
            n = torch.sigmoid(f) * n + torch.exp(i)
            h = torch.sigmoid(o) * c / n
            rows.append(h)
        outputs.append(F.layer_norm(torch.stack(rows), (size,), eps=1e-5))
    return torch.cat(outputs, -1) * layer.norm.weight


def test_equals_its_equations():
    layer, x = build(), torch.randn(17, 24)
    assert error(layer(x.unsqueeze(0))[0], equations(layer, x)) < 1e-5


def test_a_masked_token_is_passed_over():
    layer, x = build(), torch.randn(2, 13, 24)
    mask = torch.rand(2, 13, generator=torch.Generator().manual_seed(1)) < 0.6
    y = layer(x, mask)
    for sample, real, found in zip(x, mask, y):
        assert error(found[real], layer(sample[real].unsqueeze(0))[0]) < 1e-6


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exponential"])
def test_forget_gates_start_open_and_graded(forget_gate):
    """From keeping almost all to forgetting almost all from one token to the next, and never growing."""
    layer = SLSTM(64, 2, forget_gate=forget_gate)
    bias = layer.gate_bias[1].detach()
    kept = torch.sigmoid(bias) if forget_gate == "sigmoid" else bias.exp()
    assert (kept <= 1).all()
    assert kept.max() > 0.99
    assert kept.min() < 1e-3


def test_heads_must_divide():
    with pytest.raises(QuintetError, match="num_heads=5"):
        SLSTM(64, 5)


@pytest.mark.peers
def test_equals_the_layer_of_xlstm():
    """There the parameter `fgate` feeds the input gate, `igate` the forget gate, and 1 is added to the norm's scale."""
    layers = pytest.importorskip("xlstm.blocks.slstm.layer", reason="needs xlstm, of the [peers] extra")
    config = layers.sLSTMLayerConfig(
        embedding_dim=24, num_heads=3, conv1d_kernel_size=4, backend="vanilla", dtype="float32",
        enable_automatic_mixed_precision=False,
    )  # fmt: skip
    torch.manual_seed(0)
    peer, layer = layers.sLSTMLayer(config).double(), build().double()
    cell = peer.slstm_cell
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.normal_(std=0.5)
        layer.gate_weight.copy_(torch.stack([getattr(peer, f"{name}gate").weight for name in "fizo"]))
        layer.gate_bias.copy_(cell._bias_int2ext(cell._bias).transpose(0, 1))
        layer.recurrent_weight.copy_(cell._recurrent_kernel_int2ext(cell._recurrent_kernel))
        layer.convolution.weight.copy_(peer.conv1d.conv.weight.squeeze(1))
        layer.convolution.bias.copy_(peer.conv1d.conv.bias)
        layer.norm.weight.copy_(1 + peer.group_norm.weight)
        x = torch.randn(2, 11, 24, dtype=torch.float64)
        assert error(layer(x), peer(x)) < 1e-10


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exponential"])
def test_weights_at_the_start(forget_gate):
    """Gates of variance 2 / (5 dim), no memory mixing, forget gates from 5 down to -7 in each head."""
    layer = SLSTM(256, 4, forget_gate=forget_gate)
    assert layer.gate_weight.std().item() == pytest.approx((2 / (5 * 256)) ** 0.5, rel=0.02)
    assert layer.recurrent_weight.count_nonzero() == 0
    wanted = 5 - 12 * (torch.arange(64) / 63) ** 0.3
    wanted = wanted if forget_gate == "sigmoid" else -torch.log1p(torch.exp(-wanted))
    torch.testing.assert_close(layer.gate_bias[1], wanted.expand(4, 64))
    assert layer.gate_bias[[0, 2, 3]].count_nonzero() == 0
