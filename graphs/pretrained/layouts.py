"""Layouts: GRAPHGPS (https://github.com/rampasek/GraphGPS), PYG_GPS (torch_geometric.nn.GPSConv).

PyG has layers and no network: PYG_GPS takes the state of a `ModuleList` of GPSConv under the name `convs`, as in PyG's
examples, and leaves embeddings and heads, which each user writes anew, as they are.
"""

import re

import torch

from ...core.weights.layout import Layout, StateDict

LAYER = r"encoder.blocks.\1."
GATED = {"A": 0, "B": 1, "D": 2, "E": 3}  # places of GatedGCN's projections of nodes among ours


def join_columns(state: StateDict) -> StateDict:
    """Tables of words one after another, and the four projections of nodes in GatedGCN as one."""
    joined: StateDict = {}
    stacks: dict[str, dict[int, torch.Tensor]] = {}
    for key, value in state.items():
        if column := re.search(r"(.*\.categories\.)(\d+)\.weight$", key):
            stacks.setdefault(f"{column[1]}weight", {})[int(column[2])] = value
        elif gate := re.search(r"(.*\.local\.)([ABDE])\.(weight|bias)$", key):
            stacks.setdefault(f"{gate[1]}nodes.{gate[3]}", {})[GATED[gate[2]]] = value
        else:
            joined[key] = value
    return joined | {key: torch.cat([parts[place] for place in sorted(parts)]) for key, parts in stacks.items()}


GRAPHGPS = Layout(
    name="GraphGPS",
    marker=r"(^|\.)layers\.\d+\.(local_model|self_attn|ff_linear1)\.",
    renames=(
        (r"^model\.", ""),
        (r"^layers\.(\d+)\.", LAYER),
        (r"\.local_model\.(A|B|D|E)\.", r".local.\1."),
        (r"\.local_model\.C\.", ".local.edge."),
        (r"\.local_model\.bn_node_x\.", ".local.node_norm."),
        (r"\.local_model\.bn_edge_e\.", ".local.edge_norm."),
        (r"\.local_model\.", ".local.convolution."),
        (r"\.self_attn\.in_proj_(weight|bias)$", r".mixer.qkv.\1"),
        (r"\.self_attn\.out_proj\.", ".mixer.proj."),
        (r"(blocks\.\d+)\.norm2\.", r"\1.norm3."),
        (r"\.norm1_local\.", ".norm1."),
        (r"\.norm1_attn\.", ".norm2."),
        (r"\.ff_linear([12])\.", r".feedforward.fc\1."),
        (r"^encoder\.node_encoder\.(encoder1\.)?atom_embedding_list\.(\d+)\.", r"features.nodes.categories.\2."),
        (r"^encoder\.node_encoder\.(encoder1\.)?encoder\.weight$", "features.nodes.categories.0.weight"),
        (r"^encoder\.edge_encoder\.bond_embedding_list\.(\d+)\.", r"features.edges.categories.\1."),
        (r"^encoder\.edge_encoder\.encoder\.weight$", "features.edges.categories.0.weight"),
        (r"^encoder\.node_encoder\.encoder2\.raw_norm\.", "encoders.random_walk.norm."),
        (r"^encoder\.node_encoder\.encoder2\.pe_encoder\.(weight|bias)$", r"encoders.random_walk.projection.\1"),
        (r"^encoder\.node_encoder\.encoder2\.linear_A\.", "encoders.laplacian.phi.0."),
        (r"^encoder\.node_encoder\.encoder2\.pe_encoder\.1\.", "encoders.laplacian.phi.2."),
        (r"^post_mp\.FC_layers\.", "head.layers."),
        (r"^post_mp\.layer_post_mp\.(model\.0\.)?(model\.)?", "head.layers.0."),
    ),
    convert=join_columns,
)

PYG_GPS = Layout(
    name="PyG",
    marker=r"^convs\.\d+\.attn\.in_proj_weight$",
    renames=(
        (r"^convs\.(\d+)\.", LAYER),
        (r"(blocks\.\d+)\.conv\.", r"\1.local.convolution."),
        (r"\.attn\.in_proj_(weight|bias)$", r".mixer.qkv.\1"),
        (r"\.attn\.out_proj\.", ".mixer.proj."),
        (r"\.mlp\.0\.", ".feedforward.fc1."),
        (r"\.mlp\.3\.", ".feedforward.fc2."),
        (r"\.(norm[123])\.module\.", r".\1."),
    ),
)
