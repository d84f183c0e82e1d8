"""What the published files of TiRex and TiRex-2 hold: names of tensors, sizes, and the terms of the weights.

Layouts: TIREX (https://huggingface.co/NX-AI/TiRex, files as `tirex-ts` reads them) and TIREX2
(https://huggingface.co/NX-AI/TiRex-2, as `tirex-2` reads them: model.safetensors with config.json beside it).
"""

import json
import re
from pathlib import Path
from typing import Any

import torch

from ...core.errors import QuintetError
from ...core.weights.pretrained import Layout, Source, StateDict, Terms, read_checkpoint, stack_projections

NXAI_TERMS = Terms(
    "NXAI Community License",
    "products must say 'Built with technology from NXAI', companies above EUR 100 million of revenue need NXAI's "
    "permission",
)
TIREX_SOURCES = {
    name: Source(f"hub:{name}/model.ckpt", NXAI_TERMS.licence, terms=NXAI_TERMS)
    for name in ("NX-AI/TiRex", "NX-AI/TiRex-1.1-gifteval")
}


def join_slstm(state: StateDict) -> StateDict:
    """Stacks the gates of each sLSTM and the halves of each gated feed-forward layer.

    The published layers hand what they call the gate f to the recurrence where it takes i, and i where it takes f: the
    names are theirs, the order i, f, z, o is ours.
    """
    joined = {}
    for key, value in state.items():
        if key.endswith(".fgate.weight"):
            gates = [state[key.replace(".fgate.", f".{name}gate.")] for name in "fizo"]
            joined[key.replace(".fgate.weight", ".gate_weight")] = torch.stack(gates)
        elif key.endswith(".recurrent_weight"):
            heads, width = value.shape[:2]
            joined[key] = value.reshape(heads, width, 4, width)
        elif key.endswith(".gate_bias"):
            heads = state[key.replace(".gate_bias", ".recurrent_weight")].shape[0]
            joined[key] = value.reshape(heads, 4, -1).transpose(0, 1)
        elif key.endswith(".feedforward.gate.weight"):
            joined[key.replace(".gate.", ".fc1.")] = torch.cat([value, state[key.replace(".gate.", ".value.")]])
        elif not re.search(r"\.[izo]gate\.weight$|\.feedforward\.value\.weight$", key):
            joined[key] = value
    return joined


def join_tirex(state: StateDict) -> StateDict:
    """`join_slstm`; and the scale of a head's norm, which TiRex's first version keeps as what is added to 1."""
    return {key: value + 1 if key.endswith(".mixer.norm.weight") else value for key, value in join_slstm(state).items()}


PATCH_LAYERS = (
    (r"^input_patch_embedding\.", "embedding."),
    (r"^output_patch_embedding\.", "head."),
    (r"^(embedding|head)\.hidden_layer\.", r"\1.fc1."),
    (r"^(embedding|head)\.output_layer\.", r"\1.fc2."),
    (r"^(embedding|head)\.residual_layer\.", r"\1.skip."),
)

TIREX = Layout(
    name="tirex-ts",
    marker=r"(^|\.)blocks\.\d+\.slstm_layer\.",
    renames=(
        (r"^block_stack\.", ""),
        *PATCH_LAYERS,
        (r"^blocks\.", "encoder.blocks."),
        (r"^out_norm\.", "encoder.norm."),
        (r"\.norm_slstm\.", ".norm1."),
        (r"\.norm_ffn\.", ".norm2."),
        (r"\.slstm_layer\.slstm_cell\._recurrent_kernel_$", ".mixer.recurrent_weight"),
        (r"\.slstm_layer\.slstm_cell\._bias_$", ".mixer.gate_bias"),
        (r"\.slstm_layer\.group_norm\.", ".mixer.norm."),
        (r"\.slstm_layer\.", ".mixer."),
        (r"\.ffn\.proj_up_gate\.", ".feedforward.gate."),
        (r"\.ffn\.proj_up\.", ".feedforward.value."),
        (r"\.ffn\.proj_down\.", ".feedforward.fc2."),
    ),
    convert=join_tirex,
    terms=NXAI_TERMS,
)


def tirex_arguments(path: Path) -> dict[str, Any]:
    """Sizes of a TiRex from what its checkpoint, published or quintet's, says; none where it does not.

    Raises QuintetError for a variant this TiRex is not.
    """
    content = read_checkpoint(path)
    if "quintet" in content:
        return _arguments_of_task(content["quintet"])
    stated = content.get("hyper_parameters")
    if not stated or "model_config" not in stated:
        return {}
    config = stated["model_config"]
    blocks = config["block_kwargs"]
    if not blocks.get("all_slstm", True) or config["input_patch_size"] != config["output_patch_size"]:
        raise QuintetError(f"{path} is no TiRex of sLSTM blocks whose input and output patches are of one size")
    return {
        "levels": tuple(config["quantiles"]),
        "patch_size": config["input_patch_size"],
        "dim": blocks["embedding_dim"],
        "depth": blocks["num_blocks"],
        "num_heads": blocks["num_heads"],
        "hidden_dim": config["input_ff_dim"],
        "max_context": stated["train_ctx_len"],
    }


def join_tirex2(state: StateDict) -> StateDict:
    """`join_slstm`; and queries, keys and values of each attention in one."""
    return stack_projections(join_slstm(state), "attention")


TIREX2 = Layout(
    name="tirex-2",
    marker=r"^stack\.\d+\.time_mixer\.",
    renames=(
        *PATCH_LAYERS,
        (r"^stack_out_norm\.", "norm."),
        (r"^stack\.", "blocks."),
        (r"\.time_mixer\.norm_lstm\.", ".norm1."),
        (r"\.time_mixer\.norm_ffn\.", ".norm2."),
        (r"\.time_mixer\.ffn\.proj_up_gate\.", ".feedforward.gate."),
        (r"\.time_mixer\.ffn\.proj_up\.", ".feedforward.value."),
        (r"\.time_mixer\.ffn\.proj_down\.", ".feedforward.fc2."),
        (r"\.time_mixer\.combination\.", ".mixer.combination."),
        # Both directions share one cell, and a file may hold its tensors under either name, or both.
        (r"\.time_mixer\.(fwd|rev)_cell\.", ".mixer.cell."),
        (r"\.cell\.(_recurrent_kernel_|recurrent_kernel)$", ".cell.recurrent_weight"),
        (r"\.cell\._bias_$", ".cell.gate_bias"),
        (r"\.cell\.(group_norm|multihead_norm)\.", ".cell.norm."),
        (r"\.cell\.q\.", ".cell.query."),
        (r"\.cell\.k\.", ".cell.key."),
        (r"\.cell\.v\.", ".cell.value."),
        (r"\.cell\.igate_preact\.", ".cell.input_gate."),
        (r"\.cell\.fgate_preact\.", ".cell.forget_gate."),
        (r"\.cell\.ogate_preact\.", ".cell.output_gate."),
        (r"\.cell\.out_proj\.", ".cell.proj."),
        (r"\.variate_mixer\.norm_attn\.", ".norm3."),
        (r"\.variate_mixer\.norm_ffn\.", ".norm4."),
        (r"\.variate_mixer\.attn\.WQ\.", ".attention.query."),
        (r"\.variate_mixer\.attn\.WK\.", ".attention.key."),
        (r"\.variate_mixer\.attn\.WV\.", ".attention.value."),
        (r"\.variate_mixer\.attn\.WO\.", ".attention.proj."),
        (r"\.variate_mixer\.ffn\.wi\.", ".mlp.fc1."),
        (r"\.variate_mixer\.ffn\.wo\.", ".mlp.fc2."),
    ),
    convert=join_tirex2,
)
TIREX2_SOURCES = {"NX-AI/TiRex-2": Source("hub:NX-AI/TiRex-2/model.safetensors", "Apache-2.0", beside=("config.json",))}
CELLS = {"bi-mlstm": "mlstm", "bi-slstm": "slstm"}


def tirex2_arguments(path: Path) -> dict[str, Any]:
    """Constructor arguments of a TiRex-2 from the config.json beside its weights, or a checkpoint of quintet.

    Raises QuintetError for a configuration this TiRex-2 is not.
    """
    file = path.with_name("config.json")
    if not file.is_file():
        content = read_checkpoint(path)
        return _arguments_of_task(content["quintet"]) if "quintet" in content else {}
    try:
        config = json.loads(file.read_text())
        stack = config["stack_config"]
        blocks = [stack["templates"][name] for name in stack["recipe"]]
        times, variates = ([block[part] for block in blocks] for part in ("time_mixer", "variate_mixer"))
        scaler, norm = config["scaler_cfg"], config.get("stack_out_norm_config")
        own = {
            "levels": tuple(config["quantiles"]),
            "patch_size": config["input_patch_size"],
            "dim": config["embedding_dim"],
            "recipe": tuple(CELLS[time["model_type"]] for time in times),
            "num_heads": _only(file, "time_mixer.num_heads", [time.get("num_heads", 4) for time in times]),
            "slstm_heads": _only(
                file, "num_slstm_heads", [time.get("num_slstm_heads") or time.get("num_heads", 4) for time in times]
            ),
            "variate_heads": _only(file, "variate_mixer.num_heads", [part.get("num_heads", 4) for part in variates]),
            "hidden_dim": config["input_ff_dim"],
            "head_dim": int(config["embedding_dim"] * config["h_expand"]),
            "activation": config["act_func"].rsplit(".", 1)[-1],
            "dropout": _only(file, "dropout", [config["dropout"], *(block["dropout"] for block in blocks)]),
            "qk_norm": config.get("use_qk_norm", True),
            "final_norm": None if norm is None else norm.get("eps", 1e-7),
            "arcsinh": scaler.get("use_arcsinh", False),
            "keep_binary": scaler.get("binaryaware", False),
            "scale_eps": scaler.get("eps", 1e-8),
            "max_context": config["context_len"],
            "max_horizon": config["future_len"],
            "differencing": config.get("tta_diff", True),
            "calibration": True,
            "sign_flip": config.get("tta_sign_flip", False),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise QuintetError(f"{file} is no configuration of TiRex-2: {type(error).__name__} {error}") from None
    _only(file, "patch size", [config["input_patch_size"], config["output_patch_size"]])
    stride = config["tokenizer_cfg"].get("input_patch_stride", own["patch_size"])
    _only(file, "patch size and stride", [own["patch_size"], stride])
    return own


def _arguments_of_task(record: dict[str, Any]) -> dict[str, Any]:
    """What a task of quintet gave its backbone by name, less the mixer, which is an argument of the task."""
    given = record["task"].get("init_args", {}).get("backbone_arguments") or {}
    return {name: value for name, value in given.items() if name != "mixer"}


def _only(file: Path, name: str, values: list[Any]) -> Any:
    """The one value that all blocks share. Raises QuintetError where they differ."""
    if len(set(values)) != 1:
        raise QuintetError(f"{file} has {name} of {', '.join(map(str, dict.fromkeys(values)))}; one is supported")
    return values[0]
