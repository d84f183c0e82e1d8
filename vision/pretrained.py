"""Published weights of the vision models: where they are, under which licence, and how their projects name the tensors.

Layouts: TIMM (https://github.com/huggingface/pytorch-image-models), SHI_LABS
(https://github.com/SHI-Labs/Neighborhood-Attention-Transformer), HUGGING_FACE (Nat and Dinat of transformers) and the
four of SegFormer (https://github.com/NVlabs/SegFormer).
"""

from math import isqrt

import torch

from ..core.weights.pretrained import Layout, Source, StateDict, stack_projections

# Vision Transformer


def add_positions_to_tokens(state: StateDict) -> StateDict:
    """Moves the positions of class and register tokens into these tokens, and gives the others the grid's shape.

    Published tables have a row for no, one or every such token, in front of the rows of a square grid of patches.
    """
    state = dict(state)
    table = state.pop("position.position")
    side = isqrt(table.shape[1])
    rows, patches = table.split((table.shape[1] - side**2, side**2), dim=1)
    for name in ("class_token", "register_tokens"):
        if name in state and rows.shape[1]:
            count = state[name].shape[1]
            state[name] = state[name] + rows[:, :count]
            rows = rows[:, count:]
    return state | {"position.position": patches.reshape(side, side, -1)}


TIMM_VIT = Layout(
    name="timm",
    marker=r"^blocks\.\d+\.attn\.qkv\.",
    renames=(
        (r"^cls_token$", "class_token"),
        (r"^reg_token$", "register_tokens"),
        (r"^pos_embed$", "position.position"),
        (r"^patch_embed\.proj\.", "patch_embedding.projection."),
        (r"^(blocks|norm)\.", r"encoder.\1."),
        (r"\.attn\.", ".mixer."),
        (r"\.mlp\.", ".feedforward."),
        (r"\.ls([12])\.", r".scale\1."),
    ),
    convert=add_positions_to_tokens,
)

HALVES = "images scaled to [-1, 1]: mean 0.5, standard deviation 0.5"
IMAGENET = "images normalised by ImageNet's mean and standard deviation"


def timm_sources(model: str, *tags: str) -> dict[str, Source]:
    """Sources on timm's hub, by tag; the first one is the default."""
    sources = {}
    for tag in tags:
        by_imagenet_statistics = tag.startswith(("dino", "mae"))
        sources[tag] = Source(
            f"hub:timm/{model}.{tag}",
            licence="cc-by-nc-4.0" if tag == "mae" else "apache-2.0",
            note=IMAGENET if by_imagenet_statistics else HALVES,
        )
    return sources


VIT_TINY = timm_sources("vit_tiny_patch16_224", "augreg_in21k_ft_in1k", "augreg_in21k")
VIT_SMALL = timm_sources("vit_small_patch16_224", "augreg_in21k_ft_in1k", "augreg_in1k", "augreg_in21k", "dino")
VIT_SMALL_PATCH8 = timm_sources("vit_small_patch8_224", "dino")
VIT_SMALL_PATCH32 = timm_sources("vit_small_patch32_224", "augreg_in21k_ft_in1k", "augreg_in21k")
VIT_BASE = timm_sources(
    "vit_base_patch16_224",
    "augreg2_in21k_ft_in1k",
    "augreg_in21k_ft_in1k",
    "orig_in21k_ft_in1k",
    "augreg_in1k",
    "sam_in1k",
    "augreg_in21k",
    "orig_in21k",
    "dino",
    "mae",
)
VIT_BASE_PATCH8 = timm_sources(
    "vit_base_patch8_224", "augreg2_in21k_ft_in1k", "augreg_in21k_ft_in1k", "augreg_in21k", "dino"
)
VIT_BASE_PATCH32 = timm_sources(
    "vit_base_patch32_224", "augreg_in21k_ft_in1k", "augreg_in1k", "sam_in1k", "augreg_in21k", "orig_in21k"
)
VIT_LARGE = timm_sources("vit_large_patch16_224", "augreg_in21k_ft_in1k", "augreg_in21k", "orig_in21k", "mae")
VIT_LARGE_PATCH32 = timm_sources("vit_large_patch32_224", "orig_in21k")

# Neighborhood Attention Transformer


SHI_LABS = Layout(
    name="SHI-Labs",
    marker=r"^levels\.\d+\.blocks\.\d+\.attn\.",
    renames=(
        (r"^patch_embed\.proj\.", "stem.convolutions."),
        (r"^patch_embed\.norm\.", "stem.norm."),
        (r"^levels\.(\d+)\.blocks\.", r"encoder.stages.\1.blocks."),
        (r"^levels\.(\d+)\.downsample\.", r"encoder.downsamples.\1."),
        (r"\.attn\.", ".mixer."),
        (r"\.mlp\.", ".feedforward."),
        (r"\.gamma([12])$", r".scale\1.gamma"),
    ),
)


def join_queries_keys_values(state: StateDict) -> StateDict:
    """`stack_projections`, and the two layer scales of each block, which it holds in one tensor."""
    joined = {}
    for key, value in stack_projections(state).items():
        if key.endswith(".layer_scale_parameters"):
            for number, gamma in enumerate(value, start=1):
                joined[key.replace("layer_scale_parameters", f"scale{number}.gamma")] = gamma
        else:
            joined[key] = value
    return joined


HUGGING_FACE_NAT = Layout(
    name="Hugging Face",
    marker=r"^(dinat|nat)\.encoder\.levels\.",
    renames=(
        (r"^(dinat|nat)\.embeddings\.patch_embeddings\.projection\.", "stem.convolutions."),
        (r"^(dinat|nat)\.embeddings\.norm\.", "stem.norm."),
        (r"^(dinat|nat)\.encoder\.levels\.(\d+)\.layers\.", r"encoder.stages.\2.blocks."),
        (r"^(dinat|nat)\.encoder\.levels\.(\d+)\.downsample\.", r"encoder.downsamples.\2."),
        (r"^(dinat|nat)\.layernorm\.", "norm."),
        (r"^classifier\.", "head."),
        (r"\.layernorm_before\.", ".norm1."),
        (r"\.layernorm_after\.", ".norm2."),
        (r"\.attention\.self\.", ".mixer."),
        (r"\.attention\.output\.dense\.", ".mixer.proj."),
        (r"\.intermediate\.dense\.", ".feedforward.fc1."),
        (r"\.output\.dense\.", ".feedforward.fc2."),
    ),
    convert=join_queries_keys_values,
)


def shi_labs_source(path: str) -> Source:
    return Source(f"https://shi-labs.com/projects/{path}.pth", licence="mit", note=IMAGENET)


def shi_labs_hub(name: str) -> Source:
    return Source(f"hub:shi-labs/{name}", licence="mit", note=IMAGENET)


def nat_sources(size: str) -> dict[str, Source]:
    return {
        "in1k": shi_labs_source(f"nat/checkpoints/CLS/nat_{size}"),
        "hub_in1k": shi_labs_hub(f"nat-{size}-in1k-224"),
    }


def dinat_sources(size: str) -> dict[str, Source]:
    return {
        "in1k": shi_labs_source(f"dinat/checkpoints/imagenet1k/dinat_{size}_in1k_224"),
        "hub_in1k": shi_labs_hub(f"dinat-{size}-in1k-224"),
    }


DINAT_LARGE = {
    "in22k_ft_in1k": shi_labs_source("dinat/checkpoints/imagenet1k/dinat_large_in22k_in1k_224"),
    "hub_in22k_ft_in1k": shi_labs_hub("dinat-large-in22k-in1k-224"),
    "in22k": shi_labs_source("dinat/checkpoints/imagenet22k/dinat_large_in22k_224"),
}
DINAT_LARGE_384 = {
    "in22k_ft_in1k": shi_labs_source("dinat/checkpoints/imagenet1k/dinat_large_in22k_in1k_384"),
    "hub_in22k_ft_in1k": shi_labs_hub("dinat-large-in22k-in1k-384"),
}
DINAT_LARGE_384_KERNEL11 = {
    "in22k_ft_in1k": shi_labs_source("dinat/checkpoints/imagenet1k/dinat_large_in22k_in1k_384_11x11"),
    "hub_in22k_ft_in1k": shi_labs_hub("dinat-large-11x11-in22k-in1k-384"),
}

# Mix Transformer and SegFormer. The same weights go by four sets of names: the authors' (stages counted from one, keys
# and values in one matrix), two generations of transformers, and segmentation_models_pytorch.

Renames = tuple[tuple[str, str], ...]

NVLABS_ENCODER: Renames = (
    *((rf"\bpatch_embed{stage}\.proj\.", f"patch_embed{stage}.projection.") for stage in range(1, 5)),
    (r"\bpatch_embed1\.", "embedding."),
    *((rf"\bpatch_embed{stage}\.", f"encoder.downsamples.{stage - 2}.") for stage in range(2, 5)),
    *((rf"\bblock{stage}\.", f"encoder.stages.{stage - 1}.blocks.") for stage in range(1, 5)),
    *((rf"^(|backbone\.)norm{stage}\.", rf"\1encoder.stages.{stage - 1}.norm.") for stage in range(1, 5)),
    (r"\.attn\.q\.", ".mixer.query."),
    (r"\.attn\.kv\.", ".mixer.key_value."),
    (r"\.attn\.sr\.", ".mixer.reduction."),
    (r"\.attn\.", ".mixer."),
    (r"\.mlp\.dwconv\.dwconv\.", ".feedforward.depthwise."),
    (r"\.mlp\.", ".feedforward."),
)
HUGGING_FACE_4_TO_5: Renames = (
    (r"^segformer\.encoder\.patch_embeddings\.(\d)\.", r"segformer.stages.\1.patch_embeddings."),
    (r"^segformer\.encoder\.block\.(\d)\.", r"segformer.stages.\1.blocks."),
    (r"^segformer\.encoder\.layer_norm\.(\d)\.", r"segformer.stages.\1.layer_norm."),
    (r"\.attention\.self\.sr\.", ".attention.sequence_reduction.sequence_reduction."),
    (r"\.attention\.self\.layer_norm\.", ".attention.sequence_reduction.layer_norm."),
    (r"\.attention\.self\.([qkv])\w+\.", r".attention.\1_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.layer_norm_1\.", ".layernorm_before."),
    (r"\.layer_norm_2\.", ".layernorm_after."),
    (r"\.mlp\.dense([12])\.", r".mlp.fc\1."),
)
HUGGING_FACE_ENCODER: Renames = (
    (r"\bstages\.0\.patch_embeddings\.", "embedding."),
    *((rf"\bstages\.{stage}\.patch_embeddings\.", f"encoder.downsamples.{stage - 1}.") for stage in range(1, 4)),
    (r"\b(embedding|downsamples\.\d)\.proj\.", r"\1.projection."),
    (r"\b(embedding|downsamples\.\d)\.layer_norm\.", r"\1.norm."),
    (r"\bstages\.(\d)\.layer_norm\.", r"encoder.stages.\1.norm."),
    (r"\bstages\.(\d)\.blocks\.", r"encoder.stages.\1.blocks."),
    (r"\.attention\.q_proj\.", ".mixer.query."),
    (r"\.attention\.k_proj\.", ".mixer.key."),
    (r"\.attention\.v_proj\.", ".mixer.value."),
    (r"\.attention\.o_proj\.", ".mixer.proj."),
    (r"\.attention\.sequence_reduction\.sequence_reduction\.", ".mixer.reduction."),
    (r"\.attention\.sequence_reduction\.layer_norm\.", ".mixer.norm."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.mlp\.dwconv\.dwconv\.", ".feedforward.depthwise."),
    (r"\.mlp\.", ".feedforward."),
    (r"^classifier\.", "head."),
)

# Heads, to the names of a SegmentationNetwork. mmsegmentation's base class adds a layer that SegFormer never runs.
NVLABS_HEAD: Renames = (
    (r"^decode_head\.conv_seg\..*", ""),
    *((rf"^decode_head\.linear_c{stage}\.proj\.", f"decoder.projections.{stage - 1}.") for stage in range(1, 5)),
    (r"^decode_head\.linear_fuse\.conv\.", "decoder.fuse."),
    (r"^decode_head\.linear_fuse\.bn\.", "decoder.norm."),
    (r"^decode_head\.linear_pred\.", "decoder.classifier."),
)
HUGGING_FACE_HEAD: Renames = (
    (r"^decode_head\.linear_(?:c|projections)\.(\d)\.proj\.", r"decoder.projections.\1."),
    (r"^decode_head\.linear_fuse\.", "decoder.fuse."),
    (r"^decode_head\.batch_norm\.", "decoder.norm."),
    (r"^decode_head\.classifier\.", "decoder.classifier."),
)
SMP_HEAD: Renames = (
    *((rf"^decoder\.mlp_stage\.{3 - stage}\.linear\.", f"decoder.projections.{stage}.") for stage in range(4)),
    (r"^decoder\.fuse_stage\.0\.", "decoder.fuse."),
    (r"^decoder\.fuse_stage\.1\.", "decoder.norm."),
    (r"^segmentation_head\.0\.", "decoder.classifier."),
)


def fit_segformer(state: StateDict) -> StateDict:
    """Stacks keys and values of each attention."""
    fitted = {}
    for key, value in state.items():
        if ".mixer.value." in key:
            continue
        if ".mixer.key." in key:
            value = torch.cat([value, state[key.replace(".key.", ".value.")]])
            key = key.replace(".key.", ".key_value.")
        fitted[key] = value
    return fitted


def fit_smp(state: StateDict) -> StateDict:
    """`fit_segformer`, and the word that scores are enlarged with corners aligned, as nobody else does."""
    return fit_segformer(state) | {"align_corners": torch.ones((), dtype=torch.bool)}


def segformer_layouts(whole: bool) -> tuple[Layout, ...]:
    """Layouts of a SegmentationNetwork (`whole`), or of its Mix Transformer, which takes its part of either's files."""
    ours = "backbone." if whole else ""
    dropped: Renames = () if whole else ((r"^(decode_head|decoder|segmentation_head)\..*", ""),)

    def layout(name: str, marker: str, *renames: tuple[str, str]) -> Layout:
        return Layout(name, marker, (*dropped, *renames), fit_smp if whole and name == "smp" else fit_segformer)

    hugging_face = ((r"^segformer\.", ours), *HUGGING_FACE_HEAD, *HUGGING_FACE_ENCODER)
    return (
        layout("NVlabs", r"^(backbone\.)?patch_embed1\.", (r"^backbone\.", ours), *NVLABS_HEAD, *NVLABS_ENCODER),
        layout("smp", r"^encoder\.patch_embed1\.", (r"^encoder\.", ours), *SMP_HEAD, *NVLABS_ENCODER),
        layout("Hugging Face 4", r"^segformer\.encoder\.block\.", *HUGGING_FACE_4_TO_5, *hugging_face),
        layout("Hugging Face 5", r"^segformer\.stages\.", *hugging_face),
    )


MIX_TRANSFORMER_LAYOUTS = segformer_layouts(whole=False)
SEGFORMER_LAYOUTS = segformer_layouts(whole=True)

NVIDIA = "NVIDIA Source Code License, non-commercial"


def mix_transformer_sources(size: str) -> dict[str, Source]:
    return {"in1k": Source(f"hub:nvidia/mit-{size}", licence=NVIDIA, note=IMAGENET)}


def segformer_sources(size: str) -> dict[str, Source]:
    """Weights trained to segment; the default ones know the 150 classes of ADE20K."""
    side = 640 if size == "b5" else 512
    cityscapes = f"hub:nvidia/segformer-{size}-finetuned-cityscapes-1024-1024"
    return {
        "ade20k": Source(f"hub:nvidia/segformer-{size}-finetuned-ade-{side}-{side}", licence=NVIDIA, note=IMAGENET),
        "cityscapes": Source(cityscapes, licence=NVIDIA, note=f"19 classes; {IMAGENET}"),
    }
