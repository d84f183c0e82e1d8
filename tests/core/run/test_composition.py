"""From what was typed to what is built."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hydra.utils import instantiate
from jsonargparse import Namespace
from omegaconf import OmegaConf
from torch import Tensor, nn

from quintet.core.errors import QuintetError
from quintet.core.learning.fixed_options import refuse_changed
from quintet.core.mixer import Mixer
from quintet.core.run import composition
from quintet.core.run.composition import (
    CONFIG_FOLDER,
    RUN,
    check_arguments,
    check_options,
    class_path_form,
    compose,
    config_names,
    config_summary,
    group_names,
    import_class,
    plain,
    replaced_arguments,
    set_value,
    split_options,
    split_values,
    substitute_run,
)
from quintet.core.run.configuration import check_types, composed
from quintet.core.run.parsers import argument_parser
from quintet.core.weights.described import description_of
from quintet.core.weights.records import build
from quintet.core.weights.registry import list_mixers, mixer_class, mixer_factory
from quintet.vision.data import ImageFolder

PACKAGED = sorted(CONFIG_FOLDER.rglob("*.yaml"))


def targets(node: Any) -> Iterator[str]:
    """Every `_target_` below a node."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


def with_mandatory_values(overrides: list[str], config_dir: str | None = None) -> list[str]:
    """The overrides, and a value for everything the configuration leaves to the user."""
    missing = OmegaConf.missing_keys(compose(overrides, config_dir))
    return [*overrides, *(f"{key}=given" for key in sorted(missing))]


# What ships with the package


@pytest.mark.parametrize("path", PACKAGED, ids=lambda path: str(path.relative_to(CONFIG_FOLDER)))
def test_every_class_a_packaged_file_names_exists(path):
    for target in targets(yaml.safe_load(path.read_text())):
        assert callable(import_class(target, path.name))


@pytest.mark.parametrize("name", config_names("experiment"))
def test_every_experiment_composes_and_its_values_have_the_types_their_classes_ask_for(name):
    config = composed("fit", with_mandatory_values([f"experiment={name}"]))
    check_types(config)
    assert config["name"] == name


@pytest.mark.parametrize("name", config_names("experiment"))
def test_every_experiment_says_what_it_is(name):
    assert config_summary("experiment", name)


@pytest.mark.parametrize(
    "choice", [f"{group}={name}" for group in ("trainer", "callbacks", "logger") for name in config_names(group)]
)
def test_every_choice_of_a_group_composes_with_any_experiment(toy, choice):
    config = composed("fit", ["experiment=points", choice], "configs")
    assert config["trainer"]["callbacks"]
    assert config["trainer"]["logger"]


@pytest.mark.parametrize("name", config_names("model/mixer"))
def test_every_mixer_can_be_chosen_by_a_word(name):
    config = composed("fit", ["experiment=vision/digits", f"model/mixer={name}"])
    assert config["model"]["init_args"]["mixer"]["class_path"].startswith("quintet.core.")


def without_partial(node):
    """A node of a record as the command line writes it: which arguments wait is in the types there."""
    if not isinstance(node, dict):
        return node
    return {key: without_partial(value) for key, value in node.items() if key != "partial"}


@pytest.mark.parametrize("name", list_mixers())
def test_every_mixer_can_be_built_from_the_command_line_and_from_a_checkpoint(name):
    """Defaults that are functions, nested classes and unions pass jsonargparse and come out as they went in."""
    mixer, node = mixer_factory(name), description_of(mixer_factory(name))
    chosen = without_partial(node) if node["init_args"] else node["class_path"]
    parser = argument_parser()
    parser.add_argument("--mixer", type=Callable[[int], Mixer])
    make = parser.instantiate(parser.parse_object({"mixer": chosen})).mixer
    torch.manual_seed(0)
    expected = mixer(32).eval()
    x = torch.randn(1, *[8] * min(expected.grid_ranks), 32)
    for factory in (make, build(description_of(make))):
        torch.manual_seed(0)
        assert torch.equal(factory(32).eval()(x), expected(x))


def squared(x):
    return x * x


class OwnGate(Mixer):
    """A user's mixer whose arguments are functions by default, of which none says what it returns."""

    def __init__(
        self,
        dim: int,
        gate: Callable[[Tensor], Tensor] = squared,
        window: Callable[[np.ndarray], np.ndarray] = squared,
        either: Callable[[int], nn.Module] | Callable[[Tensor], Tensor] = torch.tanh,
    ) -> None:
        super().__init__()
        self.functions = gate, window, either


def test_functions_that_are_defaults_of_a_user_s_class_come_as_functions_and_are_described():
    parser = argument_parser()
    parser.add_argument("--mixer", type=Callable[[int], Mixer])
    make = parser.instantiate(parser.parse_object({"mixer": f"{__name__}.OwnGate"})).mixer
    described = description_of(make)
    assert described["init_args"]["window"] == {"function": f"{__name__}.squared"}
    for factory in (make, build(described, trusted=[__name__])):
        assert factory(8).functions == (squared, squared, torch.tanh)


def test_the_packaged_files_work_with_hydra_s_own_instantiate():
    callbacks = instantiate(compose([]).callbacks)
    assert {type(callback).__name__ for callback in callbacks.values()} >= {"Checkpoint", "Introduction", "Pictures"}
    mixer = instantiate(compose(["model/mixer=neighborhood", "model.mixer.kernel_size=3"]).model.mixer)
    assert isinstance(mixer, partial)
    assert isinstance(mixer(16), Mixer)


# Composing


def test_the_user_s_folder_adds_choices_and_wins_over_the_packaged_ones(toy):
    assert compose(["trainer=cpu"]).trainer.gradient_clip_val == 1.0
    assert compose(["trainer=cpu"], "configs").trainer.gradient_clip_val == 0.5
    assert compose(["trainer=cpu"], "configs").trainer.max_epochs == 20  # from the packaged trainer/default
    assert compose(["experiment=points"], "configs").data._target_ == "toy_points.Points"
    assert compose(["trainer=cpu"]).trainer.gradient_clip_val == 1.0  # and it is gone again


def test_the_user_s_folder_may_be_in_their_home(toy, monkeypatch):
    monkeypatch.setenv("HOME", str(toy))
    assert compose(["experiment=points"], "~/configs").data._target_ == "toy_points.Points"


def test_a_trainer_that_is_typed_wins_over_the_experiment_s_values(toy):
    trainer = composed("fit", ["experiment=points", "trainer=debug"], "configs")["trainer"]
    assert (trainer["max_epochs"], trainer["limit_train_batches"], trainer["detect_anomaly"]) == (1, 2, True)
    assert composed("fit", ["experiment=points"], "configs")["trainer"]["max_epochs"] == 3
    typed = ["experiment=points", "trainer.max_epochs=2", "trainer=debug"]
    assert composed("fit", typed, "configs")["trainer"]["max_epochs"] == 2
    assert composed("fit", ["experiment=points", "trainer=cpu"], "configs")["trainer"]["max_epochs"] == 3


def test_a_value_may_be_added_where_the_file_does_not_list_it(toy):
    config = compose(["experiment=points", "model.warmup=0.5", "trainer.accumulate_grad_batches=2"], "configs")
    assert (config.model.warmup, config.trainer.accumulate_grad_batches) == (0.5, 2)


def test_values_and_nodes_may_be_removed(toy):
    config = compose(["experiment=points", "~callbacks.pictures"], "configs")
    assert "pictures" not in config.callbacks


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["experiment=pionts"], "no experiment is called 'pionts'; nearest: points"),
        (["trainer=gpuu"], "no trainer is called 'gpuu'; nearest: gpu"),
        (["model/mixer=neighbourhood"], "no model/mixer is called 'neighbourhood'; nearest: neighborhood"),
        (["logger=tensorbord"], "no logger is called 'tensorbord'; nearest: tensorboard"),
        (["trainr=cpu"], "no option is called 'trainr'; nearest: trainer"),
        (["modle.lr=1"], "no option is called 'modle.lr'; nearest: model"),
        (["sed=1"], "no option is called 'sed'; nearest: seed"),
        (["ckpt=a"], "no option is called 'ckpt'; nearest: "),
        (["model.lr"], "cannot read 'model.lr'; options are given as key=value"),
        (["model.lr=1,2"], "model.lr=1,2 gives several values: try each with -m, or write model.lr='1,2' for one"),
        (["monitor=${nothing}"], "nothing"),
    ],
)
def test_mistakes_are_answered_in_one_line_with_the_nearest_choice(toy, overrides, complaint):
    with pytest.raises(QuintetError, match=complaint) as caught:
        composed("fit", ["experiment=points", *overrides] if "experiment" not in overrides[0] else overrides, "configs")
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_named():
    with pytest.raises(QuintetError, match="--config-dir: no folder nowhere"):
        compose([], "nowhere")


def test_a_value_that_is_still_missing_is_asked_for(toy):
    with pytest.raises(QuintetError, match=r"^data.root is needed: add data.root=VALUE$"):
        plain(compose(["data=points"], "configs"))


def test_a_broken_file_of_the_user_s_is_said_in_one_line(toy):
    (toy / "configs" / "trainer" / "mine.yaml").write_text("accelerator: [cpu\n")
    with pytest.raises(Exception, match=r"mine\.yaml, line 2: "):
        compose(["trainer=mine"], "configs")


# Taking overrides apart


def test_values_of_a_node_are_taken_out_and_read():
    typed = ["data.root=photos", "+model.sizes=[1,2]", "trainer=cpu", "data=points", "model.text='a b'", "seed=1"]
    rest, values = split_values(typed, ("model", "data"))
    assert rest == ["trainer=cpu", "data=points", "seed=1"]
    assert values == {"data.root": "photos", "model.sizes": [1, 2], "model.text": "a b"}
    assert split_values(["data.root=[1"], ("data",))[1] == {"data.root": "[1"}


def test_options_of_a_command_are_what_the_configuration_does_not_know():
    rest, options = split_options(
        ["ckpt_path=a.ckpt", "horizon=48", "data.root=x", "trainer=cpu", "quantiles=[0.1,0.9]"]
    )
    assert rest == ["ckpt_path=a.ckpt", "data.root=x", "trainer=cpu"]
    assert options == {"horizon": 48, "quantiles": [0.1, 0.9]}
    assert split_options(["output=a (1).csv"])[1] == {"output": "a (1).csv"}


# Trees


def test_hydra_s_nodes_become_jsonargparse_s():
    node = {
        "_target_": "a.B",
        "_partial_": True,
        "_convert_": "all",
        "size": [1, {"_target_": "a.C"}],
        "options": {"_target_": "a.D", "x": None},
    }
    assert class_path_form(node) == {
        "class_path": "a.B",
        "init_args": {
            "size": [1, {"class_path": "a.C", "init_args": {}}],
            "options": {"class_path": "a.D", "init_args": {"x": None}},
        },
    }


def test_what_a_checkpoint_describes_becomes_jsonargparse_s():
    described = {
        "class_path": "a.B",
        "init_args": {"f": {"function": "torch.tanh"}, "sizes": (1, 2), "c": {"class_path": "a.C", "partial": True}},
    }
    assert class_path_form(described) == {
        "class_path": "a.B",
        "init_args": {"f": "torch.tanh", "sizes": [1, 2], "c": {"class_path": "a.C", "init_args": {}}},
    }


def test_a_value_is_set_below_a_class():
    tree = {"model": {"class_path": "a.B", "init_args": {"net": {"class_path": "a.C"}}}}
    for key, value in (("model.lr", 1), ("model.net.width", 2), ("model.new.deep", 3)):
        set_value(tree, key, value)
    assert tree["model"]["init_args"] == {
        "net": {"class_path": "a.C", "init_args": {"width": 2}},
        "lr": 1,
        "new": {"deep": 3},
    }


def test_a_value_is_set_inside_of_what_a_checkpoint_describes_and_a_whole_argument_is_built():
    node = {
        "class_path": "quintet.vision.data.ImageFolder",
        "init_args": {"root": "photos", "image_size": 48, "augmentation": {"class_path": "a.B", "init_args": {"p": 1}}},
    }
    given = {"augmentation.p": 2, "root": "others"}
    described, whole = replaced_arguments("data", ImageFolder, node, given, {})
    assert described["init_args"] == node["init_args"] | {"augmentation": {"class_path": "a.B", "init_args": {"p": 2}}}
    assert node["init_args"]["augmentation"]["init_args"] == {"p": 1}
    assert {name: str(value) for name, value in whole.items()} == {"root": "others"}
    assert replaced_arguments("data", ImageFolder, node, {"augmentation.p": 2}, {}) == (described, {})


def test_a_value_below_a_name_is_refused():
    with pytest.raises(QuintetError, match="backbone is 'nat_tiny', which has no options"):
        set_value({"model": {"class_path": "a.B", "init_args": {"backbone": "nat_tiny"}}}, "model.backbone.dim", 8)


def test_the_run_folder_is_put_in_everywhere():
    tree = Namespace(a=f"{RUN}/x", b=[Namespace(c=RUN), 1], d={"e": f"a{RUN}b"}, f="{run}")
    assert substitute_run(tree, Path("/r")) == Namespace(a="/r/x", b=[Namespace(c="/r"), 1], d={"e": "a/rb"}, f="{run}")


# Checking options


class Inner:
    def __init__(self, width: int, *rest: int) -> None: ...


class Outer(Inner):
    def __init__(self, depth: int, **inner: Any) -> None: ...


class Open:
    def __init__(self, **anything: Any) -> None: ...


def builder(size: int) -> None: ...


def node(target: Any, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"{__name__}.{target.__name__}", "init_args": arguments}


@pytest.mark.parametrize(
    "good",
    [
        node(Outer, depth=1, width=2),
        node(builder, size=1),
        node(Outer, depth=node(Inner, width=[node(builder, size=1)])),
        {"class_path": "BareName", "init_args": {"anything": 1}},
        3,
    ],
)
def test_arguments_that_a_constructor_or_its_base_takes_are_accepted(good):
    check_options(good, "model")


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (node(Outer, depht=1), "model.depht: Outer has no option 'depht'; nearest: depth"),
        (node(Inner, depth=1), "model.depth: Inner has no option 'depth'; nearest: width"),
        (node(Inner, rest=1), "model.rest: Inner has no option 'rest'"),
        (node(builder, sise=1), "model.sise: builder has no option 'sise'; nearest: size"),
        (node(Outer, depth=[1, node(Inner, widht=2)]), r"model.depth\[1\].widht: Inner has no option 'widht'"),
        (node(Outer, depth={"a": node(Inner, widht=2)}), "model.depth.a.widht"),
        ({"class_path": f"{__name__}.Outr"}, "has no Outr; nearest: Outer"),
        ({"class_path": "nomodule.Net"}, "model: cannot import nomodule for nomodule.Net: No module named 'nomodule'"),
    ],
)
def test_arguments_that_nothing_takes_are_refused_with_the_nearest(bad, complaint):
    with pytest.raises(QuintetError, match=complaint):
        check_options(bad, "model")


def test_a_constructor_that_takes_anything_is_left_to_itself():
    assert [parameter.name for parameter in composition.parameters_of(Outer)] == ["depth", "width"]
    with pytest.raises(QuintetError):
        check_arguments(Outer, {"other": 1}, "model")


def test_a_class_is_imported_by_its_path_and_a_bare_name_is_left_to_jsonargparse():
    assert import_class(f"{__name__}.Outer", "model") is Outer
    assert import_class("Outer", "model") is None


# Listing


def test_groups_and_their_choices_are_listed(toy):
    assert {"trainer", "callbacks", "logger", "model/mixer", "experiment/vision"} <= set(group_names())
    assert "data" in group_names("configs")
    assert "points" not in config_names("experiment")
    assert {"points", "vision/digits"} <= set(config_names("experiment", "configs"))
    assert config_summary("experiment", "points", "configs") == "Two classes of points"
    assert config_summary("trainer", "cpu", "configs") == "The user's own way of running on the CPU"
    assert config_summary("experiment", "nothing") == ""


def test_a_class_in_place_of_the_default_one_keeps_its_own_defaults() -> None:
    """jsonargparse would hand SwiGLU the ratio and the bias that Mlp, the default, has."""
    from quintet.core.blocks.encoder import Encoder

    node = {"_target_": "quintet.core.feedforward.SwiGLU", "_partial_": True, "multiple_of": 16}
    tree = class_path_form(
        {"_target_": "quintet.core.blocks.encoder.Encoder", "dim": 32, "depth": 1, "feedforward": node}
    )
    parser = argument_parser()
    parser.add_subclass_arguments(nn.Module, "model")
    model = parser.instantiate(parser.parse_object({"model": composition.with_own_defaults(tree)})).model
    feedforward = model.blocks[0].feedforward
    assert isinstance(model, Encoder)
    assert feedforward.fc1.out_features == 2 * 96  # 8/3 of 32 rounded up to a multiple of 16, twice
    assert feedforward.fc1.bias is None


@pytest.mark.parametrize(("given", "shown"), [([], None), (["callbacks.progress=null"], False)])
def test_a_progress_bar_that_is_switched_off_is_replaced_by_no_other(given, shown):
    trainer = composed("fit", ["experiment=vision/digits", *given])["trainer"]
    assert trainer.get("enable_progress_bar") is shown
    named = [callback["class_path"].rsplit(".", 1)[-1] for callback in trainer["callbacks"]]
    assert ("RichProgressBar" in named) is (shown is None)


TRAINED = {
    "class_path": "quintet.vision.tasks.classification.ImageClassifier",
    "init_args": {
        "backbone": {"class_path": "my_nets.Small", "init_args": {"dim": 8}, "partial": True},
        "mixer": {
            "class_path": "quintet.core.attention.linear.linear.LinearAttention",
            "init_args": {},
            "partial": True,
        },
        "backbone_arguments": {"drop_path": 0.0, "depths": (2, 2)},
    },
}


@pytest.mark.parametrize(
    ("option", "value", "same"),
    [
        ("model.mixer", "quintet.core.attention.LinearAttention", True),
        ("model.mixer", {"_target_": "quintet.core.attention.LinearAttention", "_partial_": True}, True),
        ("model.mixer", "quintet.core.attention.Attention", False),
        ("model.backbone", {"_target_": "my_nets.Small", "dim": 8}, True),
        ("model.backbone", {"_target_": "my_nets.Small", "dim": 9}, False),
        ("model.backbone", "my_nets.Small", False),
        ("model.backbone.dim", 8, True),
        ("model.backbone.dim", 9, False),
        ("model.backbone_arguments", {"drop_path": 0, "depths": [2, 2]}, True),
        ("model.backbone_arguments", {"drop_path": 0}, False),
        ("model.backbone_arguments.depths", [2, 3], False),
        ("model.lr", 7.0, True),
        ("data.backbone", 7, True),
    ],
    ids=str,
)
def test_what_was_typed_is_held_against_what_a_checkpoint_describes(option, value, same):
    from quintet.vision.tasks import ImageClassifier

    with contextlib.nullcontext() if same else pytest.raises(QuintetError, match="which its checkpoint keeps"):
        refuse_changed({option: value}, ImageClassifier, TRAINED, "model")


# Words


@pytest.mark.parametrize("name", list_mixers())
def test_every_word_is_a_choice_of_mixer(name):
    node = plain(compose([f"model/mixer={name}"]))["model"]["mixer"]
    factory = instantiate(node)
    assert isinstance(factory(32), mixer_class(name))
    if name not in ("neighborhood", "window"):  # whose files set values
        assert description_of(factory) == description_of(partial(mixer_factory(name)))


def test_an_unknown_word_is_answered_with_the_nearest():
    with pytest.raises(QuintetError, match=r"^no model/mixer is called 'hedgehogg'; nearest: hedgehog$"):
        compose(["model/mixer=hedgehogg"])
