"""The mLSTM layer against its equations in float64, and against xlstm."""

import pytest
import torch
import torch.nn.functional as F

from quintet.core.errors import QuintetError
from quintet.core.ssm import MLSTM


def error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def build(dim=24, num_heads=3, **arguments):
    torch.manual_seed(0)
    layer = MLSTM(dim, num_heads, **arguments)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def equations(layer, x):
    """Of one sample (time, dim), head by head, without a stabilizer."""
    layer, x = layer.double(), x.double()
    capped = (15 * torch.tanh(gate(x) / 15) for gate in (layer.input_gate, layer.forget_gate))
    write, keep = (torch.exp(gate) if first else torch.sigmoid(gate) for first, gate in zip((True, False), capped))
    query, key, value = (part(x).unflatten(-1, (layer.num_heads, -1)) for part in (layer.query, layer.key, layer.value))
    heads = []
    for head in range(layer.num_heads):
        cell, normalizer, rows = 0.0, 0.0, []
        for i, f, q, k, v in zip(write[:, head], keep[:, head], query[:, head], key[:, head], value[:, head]):
            cell = f * cell + i * torch.outer(k, v)
            normalizer = f * normalizer + i * k
            q = q / len(q) ** 0.5
            rows.append(q @ cell / (q @ normalizer).abs().clamp_min(1.0))
        heads.append(F.layer_norm(torch.stack(rows), (layer.dim // layer.num_heads,), eps=1e-6))
    return layer.proj(torch.sigmoid(layer.output_gate(x)) * torch.cat(heads, -1) * layer.norm.weight)


def test_equals_its_equations():
    layer, x = build(), torch.randn(70, 24)
    assert error(layer(x.unsqueeze(0))[0], equations(layer, x)) < 1e-4


def test_a_masked_token_leaves_the_memory_as_it_is():
    layer, x = build(), torch.randn(2, 13, 24)
    mask = torch.rand(2, 13, generator=torch.Generator().manual_seed(1)) < 0.6
    for sample, real, found in zip(x, mask, layer(x, mask)):
        assert error(found[real], layer(sample[real].unsqueeze(0))[0]) < 1e-5


def test_keys_must_be_split_into_heads():
    with pytest.raises(QuintetError, match="keys of width 12, which cannot be split into num_heads=8"):
        MLSTM(24, 8)


def test_bfloat16_tokens_under_autocast():
    """As they come from a layer before; the gates then still have float32 weights."""
    layer, x = build(), torch.randn(2, 20, 24)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x.to(torch.bfloat16))
    assert error(y, layer(x)) < 5e-2


@pytest.mark.peers
def test_equals_the_layer_of_xlstm():
    large = pytest.importorskip("xlstm.xlstm_large.model", reason="needs xlstm and mlstm_kernels, of the [peers] extra")
    backend = large.mLSTMBackendConfig(
        chunkwise_kernel="chunkwise--native_autograd", sequence_kernel="native_sequence__native", step_kernel="native",
        mode="train", chunk_size=8, autocast_kernel_dtype="float32",
    )  # fmt: skip
    config = large.mLSTMLayerConfig(embedding_dim=24, num_heads=3, mlstm_backend=backend)
    torch.manual_seed(0)
    peer, layer = large.mLSTMLayer(config), build()
    names = {
        "query": "q", "key": "k", "value": "v", "input_gate": "igate_preact", "forget_gate": "fgate_preact",
        "output_gate": "ogate_preact", "norm": "multihead_norm", "proj": "out_proj",
    }  # fmt: skip
    peer.load_state_dict(
        {f"{names[key.split('.')[0]]}.{key.split('.')[1]}": tensor for key, tensor in layer.state_dict().items()}
    )
    x = torch.randn(2, 40, 24)
    assert error(layer(x), peer(x)[0]) < 1e-4


def test_weights_at_the_start():
    """Gates say the same of every token; memories reach from 20 tokens (a bias of 3) to 400 (of 6)."""
    torch.manual_seed(0)
    layer = MLSTM(512, 256)
    for gate in (layer.input_gate, layer.forget_gate):
        assert gate.weight.count_nonzero() == 0
    torch.testing.assert_close(layer.forget_gate.bias, 3 + 3 * torch.arange(256) / 255)
    assert layer.input_gate.bias.std().item() == pytest.approx(0.1, rel=0.15)
    assert abs(layer.input_gate.bias.mean().item()) < 0.03
