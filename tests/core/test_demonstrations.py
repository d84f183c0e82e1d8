"""Designs of the literature from the parts of core, each against its formula written out or a property of its paper."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from quintet.core.aside import Edges, listening, tell
from quintet.core.attention import Attention, CrossAttention, NeighborhoodAttention
from quintet.core.blocks import CrossBlock, Parallel, Reduction, Repeated, StagedDecoder
from quintet.core.blocks.encoder import Encoder, StagedEncoder
from quintet.core.mixer import Mixer, mask_tokens
from quintet.core.norm import BatchNorm
from quintet.vision.models import NeighborhoodAttentionTransformer, VisionTransformer


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


# Graphs: a GPS layer is a message passing network whose edges change, and attention, side by side (arXiv 2205.12454).


class GatedGCN(Mixer):
    """h_i' = U h_i + sum_j s(e_ij) V h_j / sum_j s(e_ij), e_ij' = e_ij + relu(A h_i + B h_j + C e_ij), 1711.07553."""

    grid_ranks = frozenset({1})
    takes = frozenset({"mask", "edges"})

    def __init__(self, dim):
        super().__init__()
        self.dim, self.nodes, self.edge = dim, nn.Linear(dim, 4 * dim), nn.Linear(dim, dim)

    def forward(self, x, mask=None, *, edges):
        own, value, target, source = self.nodes(mask_tokens(x, mask)).flatten(0, -2).chunk(4, -1)
        (j, i), features = edges
        features = features + F.relu(target[i] + source[j] + self.edge(features))
        gates = features.sigmoid()
        sums = torch.zeros_like(own).index_add(0, i, gates * value[j])
        y = own + sums / torch.zeros_like(own).index_add(0, i, gates).clamp(min=1e-6)
        return mask_tokens(y.view_as(x), mask), {"edges": Edges(edges.index, features)}

    def forward_packed(self, tokens, cu_seqlens, edges):
        return self(tokens, edges=edges)  # edges stay within their graphs by themselves


def gps(depth=2):
    torch.manual_seed(0)
    return Encoder(16, depth, partial(Parallel, mixers=[GatedGCN, partial(Attention, num_heads=2)]), norm=BatchNorm)


def test_edges_of_a_graph_transformer_change_from_layer_to_layer():
    encoder, x = gps().double(), torch.randn(2, 4, 16).double()
    mask = torch.tensor([[True] * 4, [True, True, True, False]])
    edges = Edges(torch.tensor([[0, 1, 3, 4, 5], [1, 2, 0, 5, 6]]), torch.randn(5, 16).double())
    layers = list(encoder.layers(x, mask, edges=edges))
    first, second = (layer.given["edges"].features for layer in layers)
    assert error(first, edges.features) > 0.01
    assert error(second, first) > 0.01
    # The second layer by hand, from what the first one left.
    block, tokens = encoder.blocks[1], layers[0].x
    normed = block.norm1(tokens, mask)
    local, attention = block.mixer.branches
    y, changes = local(normed, mask, edges=Edges(edges.index, first))
    h = tokens + y + attention(normed, mask)
    h = h + block.feedforward(block.norm2(h, mask))
    assert error(layers[1].x[mask], h[mask]) < 1e-12
    assert torch.equal(changes["edges"].features, second)


def test_packed_graphs_are_padded_graphs():
    encoder, x = gps().double(), torch.randn(2, 4, 16).double()
    mask = torch.tensor([[True] * 4, [True, True, True, False]])
    index, features = torch.tensor([[0, 1, 3, 4, 5], [1, 2, 0, 5, 6]]), torch.randn(5, 16).double()
    expected = encoder(x, mask, edges=Edges(index, features))[mask]
    found = encoder.forward_packed(x[mask], torch.tensor([0, 4, 7]), edges=Edges(index, features))
    assert error(found, expected) < 1e-10


# Shared weights and experts (arXiv 1807.03819, 2101.03961).


class Experts(nn.Module):
    """y = p_k(x) expert_k(x), k the most probable; says E sum_k (share of tokens of k) (mean p_k) aside."""

    tells = frozenset({"loss"})

    def __init__(self, dim, experts=3):
        super().__init__()
        self.router = nn.Linear(dim, experts)
        self.experts = nn.ModuleList(nn.Linear(dim, dim) for _ in range(experts))

    def forward(self, x):
        p = self.router(x).softmax(-1)
        chosen = F.one_hot(p.argmax(-1), p.shape[-1]).to(p.dtype)
        tell(self, "loss", p.shape[-1] * (chosen.flatten(0, -2).mean(0) * p.flatten(0, -2).mean(0)).sum())
        weights = chosen * p
        return sum(weights[..., k, None] * expert(x) for k, expert in enumerate(self.experts))


def mixture(checkpointing=False):
    torch.manual_seed(0)
    shared = partial(Repeated, times=3)
    return Encoder(16, 2, feedforward=Experts, block=shared, gradient_checkpointing=checkpointing)


def loss_and_gradients(network, call, x):
    network.zero_grad()
    with listening(network, "loss") as heard:
        y = call(x)
    told = {path: [value.item() for value in values] for path, values in heard["loss"].items()}
    (y.square().mean() + sum(sum(values) for values in heard["loss"].values())).backward()
    return told, torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


def test_shared_experts_under_checkpointing():
    x, plain, kept = torch.randn(2, 5, 16), mixture(), mixture(checkpointing=True)
    told, gradients = loss_and_gradients(plain, plain, x)
    assert {path: len(values) for path, values in told.items()} == {
        "blocks.0.block.feedforward": 3,
        "blocks.1.block.feedforward": 3,
    }
    assert all(1 / 3 < value < 3 for values in told.values() for value in values)
    found, own = loss_and_gradients(kept, kept, x)
    assert found == told
    assert error(own, gradients) < 1e-6


@pytest.mark.compilation
@pytest.mark.parametrize("checkpointing", [False, True])
def test_shared_experts_compiled(checkpointing):
    torch._dynamo.reset()
    x, network = torch.randn(2, 5, 16), mixture(checkpointing)
    told, gradients = loss_and_gradients(network, network, x)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    found, own = loss_and_gradients(network, compiled, x)
    for path, values in told.items():
        assert found[path] == pytest.approx(values, rel=1e-5)
    assert error(own, gradients) < 1e-5


# Fewer tokens (arXiv 2210.09461) and fewer layers (arXiv 2004.12993).


class Merging(Reduction):
    """Of the tokens at even places the `merged` most similar to one at an odd place are averaged into it."""

    takes = frozenset({"mask", "sizes"})

    def __init__(self, dim, merged=2):
        super().__init__()
        self.merged = merged

    def forward(self, x, mask=None, sizes=None):
        sizes = x.new_ones(*x.shape[:2], 1) if sizes is None else sizes
        even, odd = torch.cat([x * sizes, sizes], -1).unflatten(1, (-1, 2)).unbind(2)  # sums, and of how many
        best, partner = (F.normalize(x[:, ::2], dim=-1) @ F.normalize(x[:, 1::2], dim=-1).mT).max(-1)
        order = best.argsort(-1, descending=True)
        going, staying = (
            part.unsqueeze(-1).expand(-1, -1, even.shape[-1])
            for part in order.split([self.merged, order.shape[1] - self.merged], 1)
        )
        into = partner.gather(1, going[..., 0]).unsqueeze(-1).expand_as(going)
        sums, sizes = torch.cat([even.gather(1, staying), odd.scatter_add(1, into, even.gather(1, going))], 1).split(
            [x.shape[-1], 1], -1
        )
        return sums / sizes, {"mask": None, "sizes": sizes}


def test_merged_tokens_keep_their_mass():
    torch.manual_seed(0)
    encoder = Encoder(16, 3, reductions={0: Merging, 1: partial(Merging, merged=3)}, final_norm=False)
    layers = list(encoder.layers(x := torch.randn(2, 12, 16)))
    assert [layer.x.shape[1] for layer in layers] == [10, 7, 7]
    assert encoder(x).shape == (2, 7, 16)
    assert torch.equal(layers[-1].given["sizes"].sum(1), torch.full((2, 1), 12.0))
    plain = encoder.blocks[0](x)  # the sum of all tokens, each as often as it stands for one, stays
    assert error((layers[0].x * layers[0].given["sizes"]).sum(1), plain.sum(1)) < 1e-5
    assert encoder.intermediates(x, [0, 2])[0].shape == (2, 10, 16)


def test_leaving_early():
    torch.manual_seed(0)
    encoder, head, x = Encoder(16, 6), nn.Linear(16, 3), torch.randn(1, 5, 16)
    answers = [head(encoder.norm(layer.x)).mean(1).softmax(-1) for layer in encoder.layers(x)]
    sure = sorted(answer.max().item() for answer in answers)[3]
    runs = []
    for number, block in enumerate(encoder.blocks):
        block.register_forward_hook(lambda *_, number=number: runs.append(number))
    for layer, _ in encoder.layers(x):
        answer = head(encoder.norm(layer)).mean(1).softmax(-1)
        if answer.max() >= sure:
            break
    expected = next(index for index, found in enumerate(answers) if found.max() >= sure)
    assert runs == list(range(expected + 1))
    assert torch.equal(answer, answers[expected])


# Two streams, and the way up again.


def test_perceiver():
    """Latents read an image of any size; where its tokens stand makes no difference (arXiv 2103.03206)."""
    torch.manual_seed(0)
    read = CrossBlock(32, cross=partial(CrossAttention, context_dim=8))
    think, latents = Encoder(32, 2), torch.randn(1, 6, 32)
    pixels = torch.randn(2, 5, 7, 8)
    z = think(read(latents.expand(2, -1, -1), context=pixels))
    assert z.shape == (2, 6, 32)
    shuffled = pixels.flatten(1, 2)[:, torch.randperm(35)]
    assert error(think(read(latents.expand(2, -1, -1), context=shuffled)), z) < 1e-5
    seen = torch.arange(35).expand(2, 35) < 20
    cut = think(read(latents.expand(2, -1, -1), context=shuffled[:, :20]))
    assert error(think(read(latents.expand(2, -1, -1), context=shuffled, context_mask=seen)), cut) < 1e-5


class Halving(nn.Module):
    def __init__(self, dim, out_dim):
        super().__init__()
        self.convolution = nn.Conv3d(dim, out_dim, 3, stride=2, padding=1)

    def forward(self, x):
        return self.convolution(x.movedim(-1, 1)).movedim(1, -1)


def test_a_u_shape_of_volumes():
    torch.manual_seed(0)
    dims, local = (8, 16, 32), partial(NeighborhoodAttention, rank=3, kernel_size=3)
    down = StagedEncoder(dims, (1, 1, 1), Halving, mixer=local)
    up = StagedDecoder(dims, (1, 1), mixer=local)
    volume = torch.randn(1, 5, 6, 7, 8)
    outputs = up(down(volume))
    assert [tuple(output.shape[1:]) for output in outputs] == [(5, 6, 7, 8), (3, 3, 4, 16), (2, 2, 2, 32)]
    outputs[0].square().sum().backward()
    assert all(parameter.grad is not None for parameter in (*down.parameters(), *up.parameters()))


# Where networks look.


def test_attention_weights_by_listening():
    torch.manual_seed(0)
    vit = VisionTransformer(num_classes=2, image_size=16, patch_size=4, dim=32, depth=2, num_heads=2).eval()
    nat = NeighborhoodAttentionTransformer(num_classes=2, dim=32, depths=[1, 1], kernel_size=3, stem_stride=1).eval()
    images = torch.randn(2, 3, 16, 16)
    with listening(vit, "weights") as of_vit, listening(nat, "weights") as of_nat:
        vit(images), nat(images)
    assert list(of_vit["weights"]) == ["encoder.blocks.0.mixer", "encoder.blocks.1.mixer"]
    (weights,) = of_vit["weights"]["encoder.blocks.0.mixer"]
    mixer, tokens = vit.encoder.blocks[0].mixer, vit.encoder.blocks[0].norm1(vit.embed(images))
    query, key, _ = mixer.qkv(tokens).unflatten(-1, (3, 2, 16)).transpose(1, 3).unbind(2)
    assert error(weights.dense(), (query @ key.mT / 4).softmax(-1)) < 1e-5
    for weights in (told for listed in of_nat["weights"].values() for told in listed):
        assert torch.allclose(weights.dense().sum(-1), torch.ones(()))
        assert weights.seen(0).nonzero().amax(0).tolist() == [2, 2]  # the window of a corner shifts inwards
