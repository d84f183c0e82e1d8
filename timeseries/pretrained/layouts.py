"""What other projects call the tensors of the forecasting models.

Layouts: THUML_ITRANSFORMER (https://github.com/thuml/iTransformer, also of Time-Series-Library), OFFICIAL_PATCHTST
(https://github.com/yuqinie98/PatchTST, PatchTST_supervised), OFFICIAL_INFORMER
(https://github.com/zhouhaoyi/Informer2020) and OFFICIAL_NILMFORMER (https://github.com/adrienpetralia/NILMFormer). None
of them publishes weights; their users' files load.
"""

import torch

from ...core.weights.pretrained import Layout, StateDict, stack_projections


def join_queries_keys_values(state: StateDict) -> StateDict:
    """`stack_projections`, and without the kernel axis of convolutions over one step."""
    return {
        key: value.squeeze(-1) if ".feedforward." in key and value.dim() == 3 else value
        for key, value in stack_projections(state).items()
    }


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


def join_informer(state: StateDict) -> StateDict:
    """`join_queries_keys_values`, after the cross attention's keys and values, and the steps of each convolution."""
    joined = {}
    for key, value in state.items():
        if ".cross.value." in key:
            continue
        if ".cross.key." in key:
            value = torch.cat([value, state[key.replace(".key.", ".value.")]])
            key = key.replace(".key.", ".kv.")
        elif key.endswith("convolution.weight"):
            value = value.permute(0, 2, 1).flatten(1)
        joined[key.replace(".cross.query.", ".cross.q.")] = value
    return join_queries_keys_values(joined)


OFFICIAL_INFORMER = Layout(
    name="Informer2020",
    marker=r"^enc_embedding\.value_embedding\.tokenConv\.",
    renames=(
        (r"^enc_embedding\.", "embedding."),
        (r"^dec_embedding\.", "decoder_embedding."),
        (r"embedding\.value_embedding\.tokenConv\.", "embedding.convolution."),
        (r"embedding\.temporal_embedding\.embed\.", "embedding.calendar."),
        # The table of sines and cosines, which they save.
        (r".*\.position_embedding\.pe$", ""),
        (r"^encoder\.attn_layers\.", "encoder.blocks."),
        (r"^encoder\.conv_layers\.(\d+)\.downConv\.", r"encoder.distillations.\1.convolution."),
        (r"^encoder\.conv_layers\.", "encoder.distillations."),
        (r"^decoder\.layers\.", "decoder."),
        (r"^decoder\.norm\.", "norm."),
        (r"\.(attention|self_attention)\.(query|key|value)_projection\.", r".mixer.\2."),
        (r"\.(attention|self_attention)\.out_projection\.", ".mixer.proj."),
        (r"\.cross_attention\.(query|key|value)_projection\.", r".cross.\1."),
        (r"\.cross_attention\.out_projection\.", ".cross.proj."),
        (r"\.conv([12])\.", r".feedforward.fc\1."),
        (r"^projection\.", "head."),
    ),
    convert=join_informer,
)


def flatten_calendar(state: StateDict) -> StateDict:
    """`join_queries_keys_values`, and the calendar's convolution over one step as a matrix."""
    joined = join_queries_keys_values(state)
    return {key: value.squeeze(-1) if key == "calendar.weight" else value for key, value in joined.items()}


OFFICIAL_NILMFORMER = Layout(
    name="NILMFormer",
    marker=r"^EmbedBlock\.network\.",
    renames=(
        (r"^EmbedBlock\.network\.(\d+)\.layers\.0\.", r"embedding.\1.convolution."),
        (r"^EmbedBlock\.network\.(\d+)\.layers\.2\.", r"embedding.\1.norm."),
        (r"^ProjEmbedding\.", "calendar."),
        (r"^ProjStats1\.", "statistics."),
        (r"^ProjStats2\.", "output_statistics."),
        (r"^EncoderBlock\.(\d+)\.attention_layer\.wq\.", r"blocks.\1.mixer.query."),
        (r"^EncoderBlock\.(\d+)\.attention_layer\.wk\.", r"blocks.\1.mixer.key."),
        (r"^EncoderBlock\.(\d+)\.attention_layer\.wv\.", r"blocks.\1.mixer.value."),
        (r"^EncoderBlock\.(\d+)\.attention_layer\.wo\.", r"blocks.\1.mixer.proj."),
        (r"^EncoderBlock\.(\d+)\.pffn\.layer([12])\.", r"blocks.\1.feedforward.fc\2."),
        (r"^EncoderBlock\.(\d+)\.(norm[12])\.", r"blocks.\1.\2."),
        (r"^EncoderBlock\.\d+\.", "norm."),
        (r"^DownstreamTaskHead\.", "head."),
    ),
    convert=flatten_calendar,
)
