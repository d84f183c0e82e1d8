"""What other projects call the tensors of the forecasting models.

Layouts: THUML_ITRANSFORMER (https://github.com/thuml/iTransformer, also of Time-Series-Library) and OFFICIAL_PATCHTST
(https://github.com/yuqinie98/PatchTST, PatchTST_supervised). None of them publishes weights; their users' files load.
"""

import re

import torch

from ..core.pretrained import Layout, StateDict


def join_queries_keys_values(state: StateDict) -> StateDict:
    """Stacks the three projections of each attention, and drops the kernel axis of convolutions over one step."""
    joined = {}
    for key, value in state.items():
        if re.search(r"\.mixer\.(key|value)\.", key):
            continue
        if ".mixer.query." in key:
            parts = [state[key.replace(".query.", f".{name}.")] for name in ("query", "key", "value")]
            key, value = key.replace(".query.", ".qkv."), torch.cat(parts)
        elif ".feedforward." in key and value.dim() == 3:
            value = value.squeeze(-1)
        joined[key] = value
    return joined


THUML_ITRANSFORMER = Layout(
    name="thuml",
    marker=r"^enc_embedding\.value_embedding\.",
    renames=(
        (r"^enc_embedding\.value_embedding\.", "embedding."),
        (r"^encoder\.attn_layers\.", "encoder.blocks."),
        (r"\.attention\.(query|key|value)_projection\.", r".mixer.\1."),
        (r"\.attention\.out_projection\.", ".mixer.proj."),
        (r"\.conv([12])\.", r".feedforward.fc\1."),
        (r"^(projector|projection)\.", "head."),
    ),
    convert=join_queries_keys_values,
)

OFFICIAL_PATCHTST = Layout(
    name="PatchTST",
    marker=r"(^|\.)backbone\.W_P\.",
    renames=(
        (r"^model\.", ""),
        (r"^backbone\.W_pos$", "position.position"),
        (r"^backbone\.W_P\.", "embedding."),
        (r"^backbone\.encoder\.layers\.", "encoder.blocks."),
        # The constant 1 / sqrt(head_dim), which they save.
        (r".*\.sdp_attn\.scale$", ""),
        (r"\.self_attn\.W_Q\.", ".mixer.query."),
        (r"\.self_attn\.W_K\.", ".mixer.key."),
        (r"\.self_attn\.W_V\.", ".mixer.value."),
        (r"\.self_attn\.to_out\.0\.", ".mixer.proj."),
        (r"\.norm_attn\.1\.", ".norm1.norm."),
        (r"\.norm_ffn\.1\.", ".norm2.norm."),
        (r"\.ff\.0\.", ".feedforward.fc1."),
        (r"\.ff\.3\.", ".feedforward.fc2."),
        (r"^head\.linear\.", "head."),
    ),
    convert=join_queries_keys_values,
)
