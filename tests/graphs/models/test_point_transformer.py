"""Point Transformer: PyG's layer on the same weights, its formula in float64, and what a move of a cloud changes."""

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.nn import PointTransformerConv

from quintet.core.errors import QuintetError
from quintet.graphs.data.store import GraphStore
from quintet.graphs.models import PointTransformer, PointTransformerLayer
from quintet.graphs.models.neighbours import nearest
from quintet.graphs.models.point_transformer import PointDownsample

SIZES = (11, 1, 6)
PTR = torch.tensor([0, 11, 12, 18])


def clouds(dtype: torch.dtype = torch.float64) -> Tensor:
    positions = torch.randn(18, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return (positions.mul(256).round() / 256).to(dtype)  # so that a move by whole numbers is exact


def features(dim: int = 8, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(18, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(dtype)


def small(**arguments) -> PointTransformer:
    torch.manual_seed(0)
    return PointTransformer(num_outputs=3, widths=(8, 16), depths=(1, 1), neighbours=5, **arguments).double()


def a_batch(positions: Tensor, ptr: Tensor = PTR, **fields: Tensor) -> Batch:
    return Batch(positions=positions, ptr=ptr, **fields)


def two_layers(dim: int) -> nn.Module:
    return nn.Sequential(nn.Linear(dim, 4), nn.ReLU(), nn.Linear(4, dim))


@pytest.mark.parametrize("attention", [None, two_layers])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_the_layer_of_pyg(attention, dtype):
    torch.manual_seed(0)
    layer = PointTransformerLayer(8, 12, position=nn.Linear, attention=attention).to(dtype)
    theirs = PointTransformerConv(8, 12, nn.Linear(3, 12), attention and attention(12), add_self_loops=False)
    theirs = theirs.to(dtype)
    for own, other in [
        (layer.query, theirs.lin_dst),
        (layer.key, theirs.lin_src),
        (layer.value, theirs.lin),
        (layer.position, theirs.pos_nn),
        *([(layer.attention, theirs.attn_nn)] if attention else []),
    ]:
        own.load_state_dict(other.state_dict())
    near = nearest(clouds(dtype), PTR, 5)
    targets = torch.arange(18).unsqueeze(1).expand_as(near.index)
    edges = torch.stack([near.index[near.real], targets[near.real]])
    expected = theirs(features(dtype=dtype), clouds(dtype), edges)
    difference = (layer(features(dtype=dtype), clouds(dtype), near) - expected).abs().max()
    assert difference <= (1e-6 if dtype == torch.float32 else 1e-14)


def test_the_published_formula_with_shared_weights():
    torch.manual_seed(0)
    layer, x, positions = PointTransformerLayer(8, 16).double(), features(), clouds()
    near, rows = nearest(clouds(), PTR, 5), []
    for i in range(18):
        logits, values = [], []
        for j in near.index[i][near.real[i]].tolist():
            delta = layer.position(positions[i] - positions[j])
            logits.append(layer.attention(layer.query.weight @ x[i] - layer.key.weight @ x[j] + delta))
            values.append(layer.value.weight @ x[j] + delta)
        weights = [torch.stack([each.exp()[c % 2] for c in range(16)]) for each in logits]  # one weight for 8 channels
        rows.append(sum(w * v for w, v in zip(weights, values)) / sum(weights))
    expected = torch.stack(rows)
    assert (layer(x, positions, near) - expected).norm() < 1e-12 * expected.norm()


def test_weights_that_do_not_divide_the_channels_are_refused():
    layer = PointTransformerLayer(8, 8, attention=lambda dim: nn.Linear(dim, 3)).double()
    with pytest.raises(QuintetError, match="3 weights cannot be shared out among 8 channels"):
        layer(features(), clouds(), nearest(clouds(), PTR, 4))


def test_the_way_down_takes_the_highest_of_the_nearest():
    torch.manual_seed(0)
    down, near = PointDownsample(8, 4).double(), nearest(clouds(), PTR, 5)
    rows = [down.norm(down.linear(features()[near.index[i][near.real[i]]])).relu().max(0).values for i in range(18)]
    assert (down(features(), near) - torch.stack(rows)).norm() < 1e-12


def test_a_moved_cloud_is_the_same_cloud():
    network = small()
    still, moved = network(a_batch(clouds())), network(a_batch(clouds() + torch.tensor([64.0, -32.0, 16.0])))
    assert (moved - still).norm() <= 1e-12 * still.norm()
    turned = network(a_batch(clouds()[:, [1, 2, 0]]))
    assert (turned - still).norm() > 1e-3 * still.norm()


def test_clouds_are_apart_and_their_order_of_points_says_nothing():
    network, both = small(), small()(a_batch(clouds()))
    for number, (start, end) in enumerate(zip(PTR.tolist(), PTR[1:].tolist())):
        order = torch.randperm(end - start, generator=torch.Generator().manual_seed(2)) + start
        alone = network(a_batch(clouds()[order], torch.tensor([0, end - start])))
        assert (alone[0] - both[number]).norm() < 1e-12 * both.norm()


def test_a_store_makes_its_batches_and_all_parameters_learn():
    fields = {"positions": clouds(), "node_values": features(2)}
    store = GraphStore(torch.tensor(SIZES), torch.zeros(3).long(), torch.zeros(2, 0).long(), fields)
    network = small(node_values=2)
    logits = network(store.take([2, 0]))
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    silent = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    assert not silent
    assert network.pool(store.take([0, 1, 2]), network.embed(store.take([0, 1, 2]))).shape == (3, 16)


def test_pooling_is_the_mean_over_the_points_that_are_left():
    network, batch = small(), a_batch(clouds())
    left = network.embed(batch)
    assert len(left) == 3 + 1 + 2  # one in four of 11, 1 and 6 points, rounded up
    expected = torch.stack([left[:3].mean(0), left[3], left[4:].mean(0)])
    assert (network.pool(batch, left) - expected).norm() < 1e-12


@pytest.mark.parametrize(
    ("arguments", "fields", "message"),
    [
        ({"node_values": 2}, {}, "2 values beside its position; the batch has 0"),
        ({}, {"node_values": torch.zeros(18, 2).double()}, "0 values beside its position; the batch has 2"),
        ({"dims": 2}, {}, "a position of 2 numbers; the batch has 3"),
    ],
)
def test_batches_of_other_sizes_are_refused(arguments, fields, message):
    with pytest.raises(QuintetError, match=message):
        small(**arguments)(a_batch(clouds(), **fields))


def test_what_it_does_not_know_is_refused():
    for unknown in ({"node_categories": [3]}, {"edge_values": 1}, {"encodings": {"laplacian": 4}}, {"level": "node"}):
        with pytest.raises(QuintetError, match="predicts for whole clouds"):
            PointTransformer(**unknown)
    with pytest.raises(QuintetError, match="one each a stage"):
        PointTransformer(widths=(8, 16), depths=(1,))
