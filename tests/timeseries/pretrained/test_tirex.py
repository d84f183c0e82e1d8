"""The published layouts of TiRex: what their names mean, what sizes they state, and the terms that must be accepted."""

import pytest
import torch

from quintet.cli import main
from quintet.core.errors import QuintetError
from quintet.core.weights.pretrained import find_weights, load_weights
from quintet.core.weights.registry import create_model, model_entry
from quintet.timeseries import Forecaster, SeriesData
from quintet.timeseries.models import TiRex
from quintet.timeseries.pretrained import TIREX, TIREX2

LEVELS = (0.1, 0.5, 0.9)
CONFIG = {
    "input_patch_size": 4,
    "output_patch_size": 4,
    "quantiles": list(LEVELS),
    "input_ff_dim": 12,
    "block_kwargs": {"all_slstm": True, "embedding_dim": 8, "num_blocks": 1, "num_heads": 2},
}


def published_state():
    """A state dict of one block as tirex-ts names it, each tensor of its own random numbers."""
    torch.manual_seed(0)
    shapes = {f"{gate}gate.weight": (2, 4, 4) for gate in "fizo"}
    shapes |= {"slstm_cell._recurrent_kernel_": (2, 4, 16), "slstm_cell._bias_": (32,), "group_norm.weight": (8,)}
    shapes = {f"slstm_layer.{key}": shape for key, shape in shapes.items()}
    shapes |= {"norm_slstm.weight": (8,), "norm_ffn.weight": (8,), "ffn.proj_down.weight": (8, 64)}
    shapes |= {f"ffn.proj_up{end}.weight": (64, 8) for end in ("_gate", "")}
    shapes = {f"block_stack.blocks.0.{key}": shape for key, shape in shapes.items()}
    shapes |= {"block_stack.out_norm.weight": (8,)}
    for side, (inner, outer) in {"input": (8, 8), "output": (8, 12)}.items():
        layers = {"hidden_layer": (12, inner), "output_layer": (outer, 12), "residual_layer": (outer, inner)}
        for name, (rows, columns) in layers.items():
            shapes |= {f"{side}_patch_embedding.{name}.weight": (rows, columns)}
            shapes |= {f"{side}_patch_embedding.{name}.bias": (rows,)}
    return {key: torch.randn(shape) for key, shape in shapes.items()}


@pytest.fixture
def published(tmp_path):
    path = tmp_path / "model.ckpt"
    sizes = {"model_config": CONFIG, "train_ctx_len": 512}
    torch.save({"hyper_parameters": sizes, "state_dict": published_state()}, path)
    return path


def test_names_and_gates(published):
    state = published_state()
    model = create_model("timeseries/tirex", pretrained=str(published), accept_license=True)
    assert (model.levels, model.patch_size, model.max_context) == (LEVELS, 4, 512)
    mixer, layer = model.encoder.blocks[0].mixer, "block_stack.blocks.0.slstm_layer."
    for place, gate in enumerate("fizo"):  # what they call f is where the recurrence takes i
        assert torch.equal(mixer.gate_weight[place], state[f"{layer}{gate}gate.weight"])
    bias = state[f"{layer}slstm_cell._bias_"]
    assert mixer.gate_bias[3, 1, 2] == bias[1 * 16 + 3 * 4 + 2]  # head, gate, channel
    kernel = state[f"{layer}slstm_cell._recurrent_kernel_"]
    assert mixer.recurrent_weight[1, 2, 3, 0] == kernel[1, 2, 3 * 4]
    assert torch.equal(mixer.norm.weight, state[f"{layer}group_norm.weight"] + 1)
    assert model(torch.randn(2, 9, 1)).isfinite().all()


def test_layouts_are_told_apart():
    ours = TiRex(levels=LEVELS, patch_size=4, dim=8, depth=1, num_heads=2).state_dict()
    assert TIREX.matches(published_state())
    assert TIREX2.matches({"stack.3.time_mixer.norm_lstm.weight": torch.zeros(1)})
    for layout in (TIREX, TIREX2):
        assert not layout.matches(ours)
    assert not TIREX2.matches(published_state())


def test_terms_are_accepted_or_nothing_is_loaded(published):
    complaint = r"NXAI Community License, which restricts its use .* model.accept_license=true"
    model = TiRex(levels=LEVELS, patch_size=4, dim=8, depth=1, num_heads=2, hidden_dim=12)
    before = model.embedding.fc1.weight.clone()
    with pytest.raises(QuintetError, match=complaint):
        load_weights(model, published)
    assert torch.equal(model.embedding.fc1.weight, before)
    assert "licence of the weights: NXAI Community License" in str(load_weights(model, published, accept_license=True))
    with pytest.raises(QuintetError, match=complaint):  # before anything is downloaded
        find_weights("NX-AI/TiRex", model_entry("tirex").pretrained, "tirex")


def test_terms_are_accepted_in_a_pull_and_in_what_it_prints_next(published, capsys):
    assert main(["pull", "tirex", str(published)]) == 1
    assert "say so with accept_license=true (in a run: model.accept_license=true)" in capsys.readouterr().err
    assert main(["pull", "tirex", str(published), "accept_license=true"]) == 0
    *_, following = capsys.readouterr().out.splitlines()
    assert following.startswith("next: quintet fit experiment=timeseries/finetune data.path=FILE ")
    assert following.endswith(f"model.backbone=timeseries/tirex model.pretrained={published} model.accept_license=true")


def test_a_folder_as_the_hub_lays_it_out(published, tmp_path):
    assert find_weights(str(tmp_path), {}) == published
    (tmp_path / "empty").mkdir()
    with pytest.raises(QuintetError, match=r"has no model.safetensors or pytorch_model.bin or model.ckpt"):
        find_weights(str(tmp_path / "empty"), {})


def test_another_variant_is_refused(tmp_path):
    changed = CONFIG | {"block_kwargs": CONFIG["block_kwargs"] | {"all_slstm": False}}
    torch.save({"hyper_parameters": {"model_config": changed, "train_ctx_len": 32}}, tmp_path / "other.ckpt")
    with pytest.raises(QuintetError, match="no TiRex of sLSTM blocks"):
        TiRex.arguments_from(tmp_path / "other.ckpt")
    torch.save({"state_dict": published_state()}, tmp_path / "bare.ckpt")
    assert TiRex.arguments_from(tmp_path / "bare.ckpt") == {}


def test_the_sizes_of_the_file_travel_with_the_task(published, csv, capsys):
    data = SeriesData(csv(), 24, 6)
    data.setup()
    task = Forecaster("tirex", pretrained=str(published), accept_license=True)
    task.adopt(data.description())
    assert "licence of the weights: NXAI" in capsys.readouterr().out
    assert task.quantiles == list(LEVELS)
    recorded = task.record()["task"]["init_args"]["backbone_arguments"]
    assert recorded["dim"] == 8
    published.unlink()
    again = Forecaster("tirex", recorded, pretrained=str(published), accept_license=True)
    again.adopt(task.description, restoring=True)
    again.load_state_dict(task.state_dict())


def test_the_sizes_of_a_checkpoint_of_quintet_are_read_too(published, csv, tmp_path):
    data = SeriesData(csv(), 24, 6)
    data.setup()
    task = Forecaster("tirex", {"dim": 16, "depth": 1, "hidden_dim": 8})
    task.adopt(data.description())
    torch.save({"state_dict": task.state_dict(), "quintet": task.record()}, tmp_path / "own.ckpt")
    model = create_model("timeseries/tirex", pretrained=str(tmp_path / "own.ckpt"))
    assert torch.equal(model.head.fc2.weight, task.network.head.fc2.weight)
