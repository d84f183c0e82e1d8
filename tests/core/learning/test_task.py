"""The base of every domain's task: schedule, freezing, checkpoints that describe themselves."""

import copy
import dataclasses
import functools
import math
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from quintet.core.aside import tell
from quintet.core.blocks.encoder import Encoder
from quintet.core.data.module import DataModule
from quintet.core.errors import QuintetError
from quintet.core.learning.task import (
    RECORD,
    StepResult,
    Task,
    command,
    commands_of,
    load_task,
    record_of,
    restored_task,
)
from quintet.core.weights.described import description_of
from quintet.core.weights.pretrained import read_checkpoint
from quintet.core.weights.registry import count_parameters

HERE = __name__.split(".")[0]


@dataclasses.dataclass
class Description:
    classes: list[str]
    scale: float = 1.0


class Body(nn.Sequential):
    def __init__(self, dim: int, width: int = 4) -> None:
        super().__init__(nn.Linear(dim, width), nn.BatchNorm1d(width), nn.ReLU())


class Signs(DataModule):
    """Whether the sum of two numbers is positive."""

    def prepare(self, stages):
        points = torch.randn(24, 2, generator=torch.Generator().manual_seed(0))
        for stage in stages:
            self.datasets[stage] = TensorDataset(points, (points.sum(1) > 0).long())

    def train_dataloader(self):
        return DataLoader(self.datasets["train"], batch_size=8)

    def description(self):
        return Description(["negative", "positive"])

    def table(self):
        return Table("signs")


class Signed(Task):
    description_type = Description

    def __init__(self, body: Any = Body, **task: Any) -> None:
        super().__init__(**task)
        self.make_body = body
        self.initialised = 0

    def make(self, description: Description) -> None:
        self.body = self.make_body(2)
        self.head = nn.Linear(4, len(description.classes))

    def initialise(self) -> None:
        self.initialised += 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))

    def step(self, batch: Any) -> StepResult:
        points, labels = batch
        logits = self(points)
        return StepResult(nn.functional.cross_entropy(logits, labels), logits, labels)

    def metrics(self) -> MetricCollection:
        return MetricCollection({"accuracy": MulticlassAccuracy(2, average="micro")})

    def layer_groups(self) -> list[list[str]]:
        return [["body.0"], ["body.1"]]

    @command
    def extra(self, data: Any, trainer: Any, folder: Any) -> list:
        """A command of this task alone."""
        return []


class Other(Signed):
    """Another task of the same shape."""


def trainer(tmp_path, **arguments):
    return L.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **{"max_epochs": 2} | arguments,
    )


def adopted(**arguments):
    task = Signed(**arguments)
    task.adopt(Description(["negative", "positive"]))
    return task


class SayingBody(Body):
    """Says a quarter of its squared weights aside."""

    tells = frozenset({"loss"})

    def forward(self, x):
        tell(self, "loss", self[0].weight.square().sum() / 4)
        return super().forward(x)


def values(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


def test_gradient_checkpointing_reaches_the_network_or_is_refused():
    def encoder(dim):
        return nn.Sequential(nn.Unflatten(1, (1, dim)), Encoder(dim, 2), nn.Flatten(), nn.Linear(dim, 4))

    for chosen in (False, True):
        task = adopted(body=encoder, gradient_checkpointing=chosen)
        assert task.body[1].gradient_checkpointing is chosen
    with pytest.raises(QuintetError, match="no part of this Signed has gradient checkpointing"):
        adopted(gradient_checkpointing=True)


# What is logged


def test_losses_that_layers_tell_are_learned(tmp_path):
    """One step of plain descent moves the weights by the slope of the told loss too: rate * weight / 2."""
    descent = {"optimizer": torch.optim.SGD, "weight_decay": 0.0, "warmup": 0.0, "lr": 0.1}
    moved = []
    for body in (Body, SayingBody):
        torch.manual_seed(0)
        task = adopted(body=body, **descent)
        before = task.body[0].weight.detach().clone()
        runner = trainer(tmp_path, max_steps=1, limit_val_batches=0)
        runner.fit(task, Signs())
        moved.append(task.body[0].weight.detach() - before)
    torch.testing.assert_close(moved[1] - moved[0], -0.1 * before / 2)


def test_losses_are_means_over_samples_whatever_the_batches(tmp_path):
    """Batches of 8, 8, 8, 8 and 1: the last sample counts as much as any other."""
    task = adopted()
    points = torch.randn(33, 2, generator=torch.Generator().manual_seed(1))
    labels = (points.sum(1) > 0).long()
    points[-1] *= 100
    with torch.no_grad():
        expected = nn.functional.cross_entropy(task.eval()(points), labels)
    loader = DataLoader(TensorDataset(points, labels), batch_size=8)
    found = trainer(tmp_path).test(task, loader, verbose=False)[0]
    assert set(found) == {"test/loss", "test/accuracy"}
    assert found["test/loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_the_progress_bar_shows_validation_and_training_alone(tmp_path):
    running, data = trainer(tmp_path), Signs(batch_size=8)
    task = Signed()
    running.fit(task, datamodule=data)
    assert set(running.progress_bar_metrics) == {"train/loss", "val/loss", "val/accuracy"}
    running.test(task, datamodule=data, verbose=False)
    assert not set(running.progress_bar_metrics) & {"test/loss", "test/accuracy"}
    assert {"test/loss", "test/accuracy"} == set(running.callback_metrics)


# Optimization


def rates(task, total, steps):
    """Learning rates of each group at each step."""
    task.trainer = SimpleNamespace(estimated_stepping_batches=total)
    configured = task.configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    seen = []
    for _ in range(steps):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return seen


def test_the_rate_rises_linearly_and_falls_by_a_half_cosine_to_a_share_of_the_peak():
    found = [row[0] for row in rates(adopted(lr=2.0, warmup=0.2, final_lr=0.1), total=10, steps=12)]
    # (1 / 3, 2 / 3) of the peak, then 0.1 + 0.45 * (1 + cos(pi * k / 8)) of it for k = 0 ... 8, then no further.
    root = math.sqrt(0.5)
    cosines = [1.0, math.cos(math.pi / 8), root, math.sin(math.pi / 8), 0.0]
    cosines += [-value for value in cosines[3::-1]]
    expected = [2 / 3, 4 / 3, *(2 * (0.1 + 0.45 * (1 + value)) for value in cosines), 0.2]
    assert found == pytest.approx(expected, rel=1e-12)
    assert found[2] == 2.0


@pytest.mark.parametrize(
    ("warmup", "final_lr", "total", "expected"),
    [
        (0.0, 0.0, 4, [1.0, 0.5 + 0.5 * math.sqrt(0.5), 0.5, 0.5 - 0.5 * math.sqrt(0.5), 0.0]),
        (0.0, 1.0, 4, [1.0] * 5),
        (1.0, 0.5, 4, [0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.05, 0.01, 1, [1.0, 0.01, 0.01]),
        (0.05, 0.01, 0, [1.0, 0.01]),
    ],
)
def test_the_ends_of_the_schedule(warmup, final_lr, total, expected):
    found = rates(adopted(lr=1.0, warmup=warmup, final_lr=final_lr), total, len(expected))
    assert [row[0] for row in found] == pytest.approx(expected, rel=1e-12)


def test_layers_keep_their_share_of_the_rate_at_every_step():
    for row in rates(adopted(lr=1.0, layer_decay=0.5, warmup=0.2), total=10, steps=10):
        assert row == pytest.approx([row[-1] * share for share in (0.25, 0.25, 0.5, 1.0, 1.0)], rel=1e-12)


def test_vectors_do_not_decay():
    task = adopted(weight_decay=0.3)
    task.trainer = SimpleNamespace(estimated_stepping_batches=1)
    decays = {
        parameter.ndim: group["weight_decay"]
        for group in task.configure_optimizers()["optimizer"].param_groups
        for parameter in group["params"]
    }
    assert decays == {1: 0.0, 2: 0.3}


def test_adam_steps_at_once_on_a_cpu_as_it_does_tensor_by_tensor():
    stepped = []
    for optimizer in (torch.optim.AdamW, functools.partial(torch.optim.AdamW, fused=False, foreach=False)):
        torch.manual_seed(0)
        task = adopted(lr=0.1, weight_decay=0.1, optimizer=optimizer, warmup=0.0).double()
        task.trainer = SimpleNamespace(estimated_stepping_batches=3)
        steps = task.configure_optimizers()["optimizer"]
        assert bool(steps.param_groups[0]["fused"]) is (optimizer is torch.optim.AdamW)
        for _ in range(3):
            steps.zero_grad()
            sum((own**2).sum() for own in task.parameters()).backward()
            steps.step()
        stepped.append(torch.cat([own.detach().flatten() for own in task.parameters()]))
    torch.testing.assert_close(*stepped, rtol=1e-12, atol=1e-12)


def test_the_optimizer_is_the_user_s_and_the_task_s_rate_and_decay_win_over_its_own():
    sgd = functools.partial(torch.optim.SGD, lr=9.0, momentum=0.9, weight_decay=9.0)
    task = adopted(lr=0.5, weight_decay=0.1, optimizer=sgd, warmup=0.0)
    task.trainer = SimpleNamespace(estimated_stepping_batches=1)
    optimizer = task.configure_optimizers()["optimizer"]
    assert type(optimizer) is torch.optim.SGD
    assert {(group["lr"], group["momentum"]) for group in optimizer.param_groups} == {(0.5, 0.9)}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.1}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", -1.0),
        ("lr", math.nan),
        ("weight_decay", -0.1),
        ("warmup", 1.1),
        ("warmup", -0.1),
        ("final_lr", 2.0),
        ("layer_decay", 1.5),
        ("layer_decay", -0.5),
    ],
)
def test_values_out_of_their_range_are_refused(name, value):
    with pytest.raises(QuintetError, match=rf"model.{name} is {value}; it lies between 0 and (1|inf)"):
        Signed(**{name: value})


# Freezing


def test_frozen_parts_neither_learn_nor_change_their_statistics(tmp_path):
    task = Signed(lr=0.1, warmup=0.0, freeze=["body.*"])
    task.adopt(Description(["negative", "positive"]))
    before = values(task)
    trainer(tmp_path).fit(task, datamodule=Signs())
    changed = {key for key, value in values(task).items() if not torch.equal(value, before[key])}
    assert changed == {"head.weight", "head.bias"}
    assert [name for name, parameter in task.named_parameters() if parameter.requires_grad] == [
        "head.weight",
        "head.bias",
    ]


def test_frozen_parts_learn_from_the_epoch_on_at_which_they_thaw(tmp_path):
    class Watch(L.Callback):
        def __init__(self):
            self.seen = []

        def on_train_epoch_end(self, trainer, task):
            self.seen.append(values(task))

    watch = Watch()
    task = Signed(lr=0.1, warmup=0.0, freeze=["body.0.*", "body.1.*"], unfreeze_epoch=2)
    task.adopt(Description(["negative", "positive"]))
    watch.seen.append(values(task))
    trainer(tmp_path, max_epochs=3, callbacks=[watch]).fit(task, datamodule=Signs())
    for epoch, keys in enumerate([{"head"}, {"head"}, {"head", "body"}]):
        first, second = watch.seen[epoch : epoch + 2]
        assert {key.split(".")[0] for key in first if not torch.equal(first[key], second[key])} == keys
    assert not torch.equal(watch.seen[2]["body.1.running_mean"], watch.seen[3]["body.1.running_mean"])


def test_frozen_parts_thaw_one_after_another(tmp_path):
    learning = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, task, *_):
            learning.append({name for name, parameter in task.named_parameters() if parameter.requires_grad})

    task = Signed(lr=0.1, freeze=["body.*"], unfreeze={1: ["body.1.*"], 2: ["body.0.weight"]}, unfreeze_epoch=3)
    task.adopt(Description(["negative", "positive"]))
    trainer(tmp_path, max_epochs=4, callbacks=[Watch()], limit_train_batches=1).fit(task, datamodule=Signs())
    names = {name for name, _ in task.named_parameters()}
    head = {name for name in names if name.startswith("head")}
    norm = {name for name in names if name.startswith("body.1")}
    assert learning == [head, head | norm, head | norm | {"body.0.weight"}, names]
    assert list(description_of(task)["init_args"]["unfreeze"]) == [1, 2]


def test_a_run_continued_inside_an_epoch_learns_what_the_epoch_frees(tmp_path):
    learning = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, task, *_):
            learning.append((trainer.global_step, sum(p.requires_grad for p in task.parameters())))
            if trainer.global_step == 5:
                trainer.save_checkpoint(tmp_path / "inside.ckpt")

    def fit(**arguments):
        task = Signed(lr=0.1, freeze=["body.*"], unfreeze={1: ["body.1.*"]}, unfreeze_epoch=2)
        # Three batches an epoch: the checkpoint is written after the second of the second.
        trainer(tmp_path, max_epochs=3, callbacks=[Watch()]).fit(task, datamodule=Signs(), **arguments)

    fit()
    first = list(learning)
    assert first == [(1, 2), (2, 2), (3, 2), (4, 4), (5, 4), (6, 4), (7, 6), (8, 6), (9, 6)]
    learning.clear()
    fit(ckpt_path=tmp_path / "inside.ckpt")
    assert learning == first[5:]


@pytest.mark.parametrize(("start", "epoch"), [(None, 0), (1, 0)])
def test_freezing_everything_is_refused_before_the_first_step(tmp_path, start, epoch):
    task = Signed(freeze=["*"], unfreeze_epoch=start)
    with pytest.raises(QuintetError, match=rf"model.freeze=\['\*'\] leaves no parameter to learn in epoch {epoch}"):
        trainer(tmp_path).fit(task, datamodule=Signs())


def test_what_is_freed_from_the_start_may_be_all_that_learns(tmp_path):
    task = Signed(freeze=["*"], unfreeze={0: ["head.*"]})
    trainer(tmp_path, max_epochs=1).fit(task, datamodule=Signs())
    assert [name for name, parameter in task.named_parameters() if parameter.requires_grad] == [
        "head.weight",
        "head.bias",
    ]


class Dropping(nn.Sequential):
    """Blocks with dropout in a body that has a parameter of its own, as a class token is."""

    def __init__(self, dim: int) -> None:
        super().__init__(*(nn.Sequential(nn.Linear(dim if not at else 4, 4), nn.Dropout()) for at in range(2)))
        self.token = nn.Parameter(torch.zeros(4))


def test_frozen_blocks_drop_nothing_and_freed_ones_do():
    task = adopted(body=Dropping, freeze=["body.*"], unfreeze={1: ["body.1.*"]})

    def modes():
        return {name: module.training for name, module in task.body.named_modules()}

    assert not any(modes().values())
    assert task.training
    assert task.head.training
    task._freeze(1)
    assert modes() == {"": True, "0": False, "0.0": False, "0.1": False, "1": True, "1.0": True, "1.1": True}


# Adapters beside what else decides what learns


def learning_names(task):
    return {name for name, parameter in task.named_parameters() if parameter.requires_grad}


def test_adapters_learn_where_their_weights_are_frozen_by_name_too():
    adapters = {f"body.0.parametrizations.weight.0.{part}" for part in ("up", "down")}
    for pattern in ("body.*", "body.0.weight"):
        task = adopted(lora_rank=1, lora_targets=["body.*"], lora_also=["head.*", "body.0.weight"], freeze=[pattern])
        assert learning_names(task) == {"head.weight", "head.bias"} | adapters
    with pytest.raises(QuintetError, match=r"model.lora_rank learns adapters in place of weights"):
        Signed(lora_rank=1, freeze=["body.*"], unfreeze_epoch=1)


@pytest.mark.parametrize(
    "arguments", [{"lora_rank": -1}, {"lora_alpha": 8.0}, {"lora_targets": ["body.*"]}, {"lora_also": ["head.*"]}]
)
def test_what_says_how_adapters_are_without_any_is_refused(arguments):
    rank = arguments.get("lora_rank", 0)
    with pytest.raises(QuintetError, match=f"model.lora_rank is {rank}; adapters have a rank of 1 or more"):
        Signed(**arguments)


def test_adapters_learn_at_the_rate_of_their_weight():
    task = adopted(lr=1.0, layer_decay=0.5, lora_rank=1, lora_also=["head.*"])
    task.layer_groups = lambda: [["body.0.weight", "body.0.bias"], ["body.1"]]  # by names, as timm says it
    task.trainer = SimpleNamespace(estimated_stepping_batches=1)
    groups = task.configure_optimizers()["optimizer"].param_groups
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    rate = {names[id(p)]: group["initial_lr"] for group in groups for p in group["params"]}
    assert rate["body.0.parametrizations.weight.0.up"] == rate["body.0.bias"] == 0.25
    assert rate["head.parametrizations.weight.0.down"] == rate["head.bias"] == 1.0


def test_the_rate_rises_and_falls_over_steps_of_several_batches(tmp_path):
    seen = []

    class Watch(L.Callback):
        def on_before_optimizer_step(self, trainer, task, optimizer):
            seen.append(optimizer.param_groups[0]["lr"])

    # Three batches an epoch, of which two make a step, and one the second: four steps, of which two warm up.
    task = Signed(lr=3.0, warmup=0.5, final_lr=0.5)
    trainer(tmp_path, accumulate_grad_batches=2, callbacks=[Watch()]).fit(task, datamodule=Signs())
    assert seen == pytest.approx([1.0, 2.0, 3.0, 2.25])


def test_a_schedule_that_cannot_be_followed_is_refused():
    with pytest.raises(QuintetError, match=r"model.unfreeze has nothing to free"):
        Signed(unfreeze={1: ["body.*"]})
    with pytest.raises(QuintetError, match=r"model.unfreeze: no parameter matches 'bdy\.\*'; nearest: body\.\*"):
        adopted(freeze=["body.*"], unfreeze={5: ["bdy.*"]})


def test_frozen_normalization_keeps_its_statistics_after_a_validation_in_the_middle_of_an_epoch(tmp_path):
    task = Signed(lr=0.1, freeze=["body.*"])
    task.adopt(Description(["negative", "positive"]))
    before = task.body[1].running_mean.clone()
    trainer(tmp_path, val_check_interval=1).fit(task, datamodule=Signs())
    assert torch.equal(task.body[1].running_mean, before)


def test_a_pattern_that_matches_nothing_is_answered_with_the_nearest():
    with pytest.raises(QuintetError, match=r"model.freeze: no parameter matches 'bdy\.\*'; nearest: body\.\*"):
        adopted(freeze=["bdy.*"])


# Building


def test_a_task_is_built_from_the_data_s_description_and_initialised_once(tmp_path):
    task = Signed()
    run = trainer(tmp_path, max_epochs=1)
    run.fit(task, datamodule=Signs())
    run.test(task, datamodule=Signs(), verbose=False)
    assert task.description == Description(["negative", "positive"])
    assert task.initialised == 1


def test_a_restored_task_is_not_initialised():
    task = Signed()
    task.adopt(Description(["a", "b"]), restoring=True)
    assert task.initialised == 0


def test_other_data_modules_are_refused(tmp_path):
    loader = DataLoader(TensorDataset(torch.zeros(4, 2), torch.zeros(4)))
    with pytest.raises(QuintetError, match="Signed learns its sizes from a quintet data module; got None"):
        trainer(tmp_path).fit(Signed(), loader)


def test_what_a_checkpoint_cannot_describe_is_refused_before_training(tmp_path):
    with pytest.raises(QuintetError, match=r"argument 'body' .* a checkpoint could not find again"):
        trainer(tmp_path).fit(Signed(body=lambda dim: Body(dim)), datamodule=Signs())


def test_metrics_are_of_the_whole_set(tmp_path):
    task, run = Signed(lr=0.0), trainer(tmp_path)
    data = Signs(batch_size=10)  # 10, 10 and 4 samples
    (measured,) = run.test(task, datamodule=data, verbose=False)
    points, labels = data.datasets["test"].tensors
    with torch.no_grad():
        logits = task.eval()(points)
    assert measured["test/accuracy"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    assert measured["test/loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-6)


def test_the_commands_of_a_task():
    assert commands_of(Task) == ["predict"]
    assert commands_of(Signed) == ["extra", "predict"]


def test_a_task_without_predictions_says_so(tmp_path):
    with pytest.raises(QuintetError, match="Signed cannot write predictions"):
        Signed().write_predictions([], tmp_path)


def test_parameters_are_counted_frozen_or_not():
    assert count_parameters(adopted(freeze=["body.*"])) == 2 * 4 + 4 + 2 * 4 + 4 * 2 + 2


# Checkpoints


@pytest.fixture
def checkpoint(tmp_path):
    """A task trained for one epoch, and the file it was saved in."""
    task = Signed(body=functools.partial(Body, width=4), lr=0.1)
    run = trainer(tmp_path, max_epochs=1)
    run.fit(task, datamodule=Signs(seed=3))
    run.save_checkpoint(tmp_path / "a.ckpt")
    return task.eval(), tmp_path / "a.ckpt"


def edited(path, change):
    content = torch.load(path, weights_only=True)
    change(content)
    content.get(RECORD, {}).pop("digest", None)
    torch.save(content, path)
    return path


def test_a_checkpoint_says_how_to_build_the_task_and_its_data(checkpoint):
    _, path = checkpoint
    record = torch.load(path, weights_only=True)[RECORD]
    assert record["task"] == {
        "class_path": f"{__name__}.Signed",
        "init_args": {
            "body": {"class_path": f"{__name__}.Body", "init_args": {"width": 4}, "partial": True},
            "lr": 0.1,
        },
    }
    assert record["data"] == {"class_path": f"{__name__}.Signs", "init_args": {"seed": 3}}
    assert record["description"] == {"classes": ["negative", "positive"], "scale": 1.0}


def test_a_loaded_task_answers_as_the_saved_one(checkpoint):
    task, path = checkpoint
    again = load_task(path, trusted=[HERE])
    points = torch.randn(5, 2)
    assert torch.equal(again(points), task(points))
    assert not again.training
    assert again.initialised == 0
    assert again.description == task.description


def test_a_loaded_task_can_be_saved_again(checkpoint, tmp_path):
    _, path = checkpoint
    again = load_task(path, trusted=[HERE])
    run = trainer(tmp_path, max_epochs=1)
    run.fit(again, datamodule=Signs(seed=3))
    run.save_checkpoint(tmp_path / "b.ckpt")
    records = [torch.load(tmp_path / name, weights_only=True)[RECORD] for name in ("a.ckpt", "b.ckpt")]
    training = [record.pop("training") for record in records]
    assert records[0] == records[1]
    assert training[0].keys() == training[1].keys()
    assert all(found["metrics"].keys() >= {"train/loss", "val/loss"} for found in training)


def test_numbers_of_numpy_in_a_description_do_not_make_a_checkpoint_unsafe(tmp_path):
    task = Signed()
    task.adopt(Description(["a", "b"], scale=np.float64(2.0)))
    run = trainer(tmp_path, max_epochs=1)
    run.fit(task, datamodule=Signs())
    run.save_checkpoint(tmp_path / "a.ckpt")
    assert load_task(tmp_path / "a.ckpt", trusted=[HERE]).description.scale == 2.0


def test_code_outside_the_trusted_packages_is_refused(checkpoint):
    _, path = checkpoint
    with pytest.raises(QuintetError, match=f"asks for {__name__}.Signed, .* allow it with trust={HERE}"):
        load_task(path)


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "quintet.cli.main"])
@pytest.mark.parametrize("place", ["task", "argument"])
def test_a_record_that_names_something_else_is_refused(checkpoint, name, place):
    _, path = checkpoint
    evil = {"class_path": name, "init_args": {"command": "true"}}
    change = {
        "task": lambda content: content[RECORD].update(task=evil),
        "argument": lambda content: content[RECORD]["task"]["init_args"].update(body=evil),
    }[place]
    with pytest.raises(QuintetError, match=f"the file asks for {name}"):
        load_task(edited(path, change), trusted=[HERE])


def test_a_record_of_something_that_is_no_task_is_refused(checkpoint):
    _, path = checkpoint
    change = lambda content: content[RECORD].update(task={"class_path": "torch.nn.ReLU", "init_args": {}})  # noqa: E731
    with pytest.raises(QuintetError, match=r"describes a torch\.nn\.ReLU, not a Task"):
        load_task(edited(path, change))


def test_a_file_without_a_record_says_what_to_do(checkpoint):
    _, path = checkpoint
    with pytest.raises(QuintetError, match=r"was not written by quintet; .* model.pretrained=FILE"):
        load_task(edited(path, lambda content: content.pop(RECORD)))
    with pytest.raises(QuintetError, match="here was not written by quintet"):
        record_of({}, "here")


def test_weights_of_another_model_are_refused_and_counted(checkpoint):
    _, path = checkpoint
    change = lambda content: content["state_dict"].update({"body.0.weight": torch.zeros(5, 2), "more": torch.zeros(1)})  # noqa: E731
    complaint = r"of another model: 1 tensors missing or of another shape, 1 unexpected \(first: body.0.weight\)"
    with pytest.raises(QuintetError, match=complaint):
        load_task(edited(path, change), trusted=[HERE])


@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.complex64])
def test_weights_of_another_kind_of_number_are_refused(checkpoint, kind):
    _, path = checkpoint
    change = lambda content: content["state_dict"].update({"body.0.weight": torch.ones(5, 3).to(kind)})  # noqa: E731
    with pytest.raises(QuintetError, match=r"another kind of number \(first: body.0.weight of \w+, not float32\)"):
        load_task(edited(path, change), trusted=[HERE])


def test_a_checkpoint_of_another_task_is_refused_on_resuming(checkpoint, tmp_path):
    _, path = checkpoint
    with pytest.raises(QuintetError, match="the checkpoint is of a Signed, this run builds a Other"):
        trainer(tmp_path).fit(Other(), datamodule=Signs(), ckpt_path=path)


def test_a_task_is_adopted_from_a_checkpoint_before_its_weights_are_loaded(checkpoint, tmp_path):
    task, path = checkpoint
    again = Signed(body=functools.partial(Body, width=4))
    trainer(tmp_path).test(again, datamodule=Signs(), ckpt_path=path, verbose=False)
    assert torch.equal(again.head.weight, task.head.weight)


def test_a_deep_copy_is_a_task_of_its_own(checkpoint):
    task, _ = checkpoint
    twin = copy.deepcopy(task)
    assert twin.record()["task"] == task.record()["task"]
    nn.init.zeros_(twin.head.weight)
    assert task.head.weight.abs().sum() > 0


@pytest.mark.compilation
def test_a_compiled_network_learns_and_its_checkpoint_is_like_any_other(tmp_path):
    # Not Adam: it makes whole steps of the rounding errors that are the gradient of a bias before a normalization.
    plain, compiled = (Signed(lr=0.1, optimizer=torch.optim.SGD, compile=flag) for flag in (False, True))
    for task in (plain, compiled):
        torch.manual_seed(0)
        run = trainer(tmp_path, max_epochs=1)
        run.fit(task, datamodule=Signs())
    assert compiled.body._compiled_call_impl is not None
    assert plain.body._compiled_call_impl is None
    assert values(plain).keys() == values(compiled).keys()
    for key, value in values(plain).items():
        assert torch.allclose(value, values(compiled)[key], rtol=1e-4, atol=1e-5), key
    run.save_checkpoint(tmp_path / "a.ckpt")
    again = load_task(tmp_path / "a.ckpt", trusted=[HERE])
    assert again.body._compiled_call_impl is None, "a file does not start the compiler"
    assert not again.compile_network
    asked = restored_task(read_checkpoint(tmp_path / "a.ckpt"), "a.ckpt", {"compile": True}, [HERE])
    assert asked.body._compiled_call_impl is not None
    points = torch.randn(5, 2)
    assert torch.allclose(again(points), compiled.eval()(points), atol=1e-6)
