"""Weights in the names of GraphGPS give what its formulas give, and those of every published kind find their place."""

import torch
from torch import nn
from torch_geometric.nn import GINEConv, global_add_pool

from quintet.core.weights.pretrained import load_weights
from quintet.core.weights.registry import create_model
from quintet.graphs.pretrained import GRAPHGPS


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


class Layer(nn.Module):
    """A layer as GraphGPS names and computes it."""

    def __init__(self, dim, heads):
        super().__init__()
        self.local_model = GINEConv(nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim)))
        self.self_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm1_local, self.norm1_attn, self.norm2 = (nn.BatchNorm1d(dim) for _ in range(3))
        self.ff_linear1, self.ff_linear2 = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, h, edges, e, counts):
        local = self.norm1_local(h + self.local_model(h, edges, e))
        parts = [self.self_attn(part, part, part)[0] for part in h.split(counts)]
        h = local + self.norm1_attn(h + torch.cat(parts))
        return self.norm2(h + self.ff_linear2(self.ff_linear1(h).relu()))


def published(dim=16, walks=4, depth=2):
    """Modules under GraphGPS's names, of ZINC's kind."""
    model = nn.Module()
    model.encoder, model.encoder.node_encoder = nn.Module(), nn.Module()
    words, walk = nn.Module(), nn.Module()
    words.encoder = nn.Embedding(28, dim - walks)
    walk.raw_norm, walk.pe_encoder = nn.BatchNorm1d(8), nn.Linear(8, walks)
    model.encoder.node_encoder.encoder1, model.encoder.node_encoder.encoder2 = words, walk
    model.encoder.edge_encoder = nn.Module()
    model.encoder.edge_encoder.encoder = nn.Embedding(4, dim)
    model.layers = nn.ModuleList(Layer(dim, 4) for _ in range(depth))
    model.post_mp = nn.Module()
    sizes = [dim, dim // 2, dim // 4, 1]
    model.post_mp.FC_layers = nn.ModuleList(nn.Linear(*pair) for pair in zip(sizes, sizes[1:]))  # noqa: RUF007
    return model


def test_weights_of_graphgps_give_its_predictions(graphs, tmp_path):
    torch.manual_seed(0)
    theirs, whole = published().eval(), graphs.batch()
    for value in theirs.state_dict().values():
        if value.is_floating_point():
            value += 0.1 * torch.rand_like(value)
    for layer in theirs.layers:
        layer.local_model.eps.zero_()
    state = {f"model.{key}": value for key, value in theirs.state_dict().items()}
    torch.save({"model_state": state}, tmp_path / "100.ckpt")
    sizes = {"dim": 16, "depth": 2, "encodings": {"random_walk": 8}, "encoding_dim": 4}
    ours = create_model("graphs/gps_zinc", **sizes, node_categories=(28,)).eval()
    torch.save(state, tmp_path / "weights.pt")
    load_weights(ours, tmp_path / "weights.pt")
    whole.node_categories = whole.node_categories[:, :1].clamp(min=1)
    whole.edge_categories = whole.edge_categories.clamp(min=1)
    walk = theirs.encoder.node_encoder.encoder2
    nodes = theirs.encoder.node_encoder.encoder1.encoder(whole.node_categories[:, 0] - 1)
    h = torch.cat([nodes, walk.pe_encoder(walk.raw_norm(whole.random_walk))], 1)
    e = theirs.encoder.edge_encoder.encoder(whole.edge_categories[:, 0] - 1)
    for layer in theirs.layers:
        h = layer(h, graphs.edges, e, list(graphs.counts))
    h = global_add_pool(h, whole.batch)
    for layer in theirs.post_mp.FC_layers[:-1]:
        h = layer(h).relu()
    assert error(ours(whole), theirs.post_mp.FC_layers[-1](h)) < 1e-5


def test_gates_columns_of_words_and_laplacians_find_their_place():
    """The names of a checkpoint of Peptides-func, with the sizes of its configuration."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    linear = ("weight", "bias")
    node, atoms = "encoder.node_encoder", (119, 4, 12, 12, 10, 6, 6, 2, 2)
    shapes = {f"{node}.encoder1.atom_embedding_list.{n}.weight": (count, 80) for n, count in enumerate(atoms)}
    shapes |= {f"{node}.encoder2.linear_A.weight": (32, 2), f"{node}.encoder2.linear_A.bias": (32,)}
    shapes |= {f"{node}.encoder2.pe_encoder.1.weight": (16, 32), f"{node}.encoder2.pe_encoder.1.bias": (16,)}
    shapes |= {f"encoder.edge_encoder.bond_embedding_list.{n}.weight": (c, 96) for n, c in enumerate((5, 6, 2))}
    for layer in range(4):
        name = f"layers.{layer}"
        for part in (*(f"local_model.{letter}" for letter in "ABCDE"), "self_attn.out_proj"):
            shapes |= {f"{name}.{part}.weight": (96, 96), f"{name}.{part}.bias": (96,)}
        shapes |= {f"{name}.self_attn.in_proj_weight": (288, 96), f"{name}.self_attn.in_proj_bias": (288,)}
        for part in ("local_model.bn_node_x", "local_model.bn_edge_e", "norm1_local", "norm1_attn", "norm2"):
            shapes |= {f"{name}.{part}.{key}": (96,) if key != norm[-1] else () for key in norm}
        shapes |= {f"{name}.ff_linear1.weight": (192, 96), f"{name}.ff_linear1.bias": (192,)}
        shapes |= {f"{name}.ff_linear2.weight": (96, 192), f"{name}.ff_linear2.bias": (96,)}
    shapes |= {
        f"post_mp.layer_post_mp.model.0.model.{key}": (10, 96)[: 2 - number] for number, key in enumerate(linear)
    }
    state = {f"model.{name}": torch.full(shape, number) for number, (name, shape) in enumerate(shapes.items())}
    assert GRAPHGPS.matches(state)
    network = create_model("graphs/gps_peptides_func")
    network.load_state_dict(GRAPHGPS.apply(state))
    letters = [network.encoder.blocks[1].local.nodes.bias[96 * place].item() for place in range(4)]
    names = list(shapes)
    assert letters == [names.index(f"layers.1.local_model.{letter}.bias") for letter in "ABDE"]
    assert network.encoder.blocks[1].norm3.weight[0] == names.index("layers.1.norm2.weight")
    assert network.features["nodes"].categories.weight[[118, 119], 0].tolist() == [0, 1]
