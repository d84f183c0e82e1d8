"""Fine-tuning TiRex on a user's own series: all weights, the head, or adapters; and what such a checkpoint holds."""

import math

import lightning as L
import pytest
import torch

from quintet.core.adaptation.lora import adapters_of, merge_adapters
from quintet.core.errors import QuintetError
from quintet.core.learning.task import load_task
from quintet.timeseries import Forecaster, SeriesData
from quintet.timeseries.metrics.quantiles import pinball
from quintet.timeseries.models import TiRex

SIZES = {"patch_size": 4, "dim": 24, "depth": 2, "num_heads": 2, "hidden_dim": 48, "max_context": 64}
QUIET = dict.fromkeys(("logger", "enable_progress_bar", "enable_checkpointing", "enable_model_summary"), False)
WAYS = {
    "full": {"lr": 2e-3},
    "head": {"lr": 1e-2, "freeze": ["network.embedding.*", "network.encoder.*"]},
    "lora": {"lr": 1e-2, "lora_rank": 4, "lora_also": []},
}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A small TiRex that has learned sines of many periods, as a file."""
    torch.manual_seed(0)
    model = TiRex(36, 12, **SIZES).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    levels = torch.tensor(model.levels)
    for _ in range(40):
        period, start = 4 + 20 * torch.rand(16, 1, 1), 2 * math.pi * torch.rand(16, 1, 1)
        waves = torch.sin(2 * math.pi * torch.arange(48)[None, :, None] / period + start) + 0.1 * torch.randn(16, 48, 1)
        forecast, truth = model.training_forecasts(waves[:, :36], waves[:, 36:])
        optimizer.zero_grad()
        pinball(forecast, truth, levels).mean().backward()
        optimizer.step()
    path = tmp_path_factory.mktemp("tirex") / "small.pth"
    torch.save(model.state_dict(), path)
    return path


def held_out(task, data):
    """Pinball loss of the windows after the rows that were trained or chosen on."""
    windows = data.datasets["test"].__getitems__(range(len(data.datasets["test"])))
    training = task.training
    with torch.no_grad():
        loss = task.eval().step(windows).loss.item()
    task.train(training)
    return loss


def fitted(path, pretrained, **arguments):
    """The task, its data, and the held-out loss before and after."""
    data = SeriesData(path, 36, 12)
    data.setup()
    L.seed_everything(0, verbose=False)
    task = Forecaster("tirex", SIZES, pretrained=str(pretrained), **arguments)
    task.adopt(data.description())
    before = held_out(task, data)
    L.Trainer(max_epochs=12, accelerator="cpu", **QUIET).fit(task, data)
    return task, data, before, held_out(task, data)


@pytest.mark.parametrize("way", WAYS)
def test_finetuning_lowers_the_pinball_loss_after_the_cutoff(way, pretrained, shared_data):
    start = torch.load(pretrained)
    task, _, before, after = fitted(shared_data("ts_small") / "AirPassengers.csv", pretrained, **WAYS[way])
    print(f"{way}: {before:.4f} to {after:.4f}")
    assert after < 0.9 * before
    if way == "lora":
        assert adapters_of(task)
        merge_adapters(task)
    end = task.network.state_dict()
    changed = {name.split(".")[0] for name in start if not torch.equal(start[name], end[name])}
    assert changed == ({"head"} if way == "head" else {"embedding", "encoder", "head"})


def test_adapters_travel_in_the_checkpoint_and_merge(pretrained, csv, tmp_path):
    task, data, *_ = fitted(csv(channels=1), pretrained, lora_rank=2)
    learning = [name for name, parameter in task.named_parameters() if parameter.requires_grad]
    assert all(".parametrizations." in name or name.startswith("network.head.") for name in learning)
    assert any("recurrent_weight" in name for name in learning)
    trainer = task.trainer
    trainer.strategy.connect(task)
    trainer.save_checkpoint(tmp_path / "tuned.ckpt")
    loaded = load_task(tmp_path / "tuned.ckpt")
    windows = data.datasets["test"].__getitems__(range(4))
    with torch.no_grad():
        expected = task.eval()(windows.context)
        assert torch.equal(loaded(windows.context), expected)
        merge_adapters(loaded)
        torch.testing.assert_close(loaded(windows.context), expected, rtol=1e-5, atol=1e-5)
    assert set(loaded.network.state_dict()) == set(TiRex(36, 12, **SIZES).state_dict())


def test_adapters_without_a_rank_are_refused():
    with pytest.raises(QuintetError, match=r"model.lora_rank is 0; adapters have a rank of 1 or more"):
        Forecaster("tirex", lora_targets=["network.*"])


def test_forecasts_go_beyond_the_horizon_of_training_but_not_beyond_reach(csv, tmp_path):
    trained, data = SeriesData(csv(channels=1), 36, 12), SeriesData(csv(channels=1), 36, 12)
    trained.setup()
    task = Forecaster("tirex", SIZES)
    task.adopt(trained.description())
    data.adopt(task.description)
    trainer = L.Trainer(accelerator="cpu", **QUIET)
    task.predict(data, trainer, tmp_path, horizon=40)
    lines = (tmp_path / "forecast.csv").read_text().splitlines()
    assert len(lines) == 41
    assert lines[0].count("quantile") == 9
    assert all(len(line.strip(",").split(",")) == 10 for line in lines)
    assert (tmp_path / "forecast.png").is_file()
    with pytest.raises(QuintetError, match="horizon=65: this model forecasts 1 to 64 steps"):
        task.predict(data, trainer, tmp_path, horizon=65)
    with pytest.raises(QuintetError, match=r"quantiles=0.25: this model gives 0.1, 0.2"):
        task.predict(data, trainer, tmp_path, quantiles=[0.25])
    with pytest.raises(QuintetError, match=r"tirex forecasts the levels 0.1, 0.2, .*; leave model.quantiles out"):
        Forecaster("tirex", SIZES, quantiles=[0.5]).adopt(task.description)
