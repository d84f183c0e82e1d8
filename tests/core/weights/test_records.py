"""Records of checkpoints: what they may say, and that nothing else is built, imported or called."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from quintet.core.errors import QuintetError
from quintet.core.weights.described import Described
from quintet.core.weights.records import RECORD, build, build_node, record_of, restore_description
from quintet.core.weights.trusted import check_trust

HERE = __name__.split(".")[0]


class Base(Described, nn.Module):
    def __init__(self, width: int, *, factory: Any = None) -> None:
        super().__init__()
        self.width = width


class Bomb(nn.Module):
    fired = False

    def __init__(self) -> None:
        super().__init__()
        type(self).fired = True


FOREIGN = [
    "os.system",
    "posix.system",
    "builtins.eval",
    "subprocess.Popen",
    "quintet.cli.main",
    "quintet.core.run.runner.run_composed",
    "quintet.core.run.runner.Runner",
    "quintet.core.weights.pretrained.download",
    "quintet.core.learning.task.load_task",
    "quintet.core.weights.described.inspect.getfile",
    "quintet.core.attention.dense.softmax.nothing",
    "torch.load",
    "torch.save",
    "torch.hub.load",
    "torch.jit.ScriptModule",
    "torch.fx.GraphModule",
    "torch.nn.DataParallel",
    "torch.distributed.nn.RemoteModule",
    "torch.utils.cpp_extension.load_inline",
    "torch.nn.functional.importlib",
    "torch.nn.functional.warnings.warn",
    "torch.distributed.elastic.multiprocessing.subprocess_handler.SubprocessHandler",
    "torchvision.models.resnet18",
    "torchmetrics.multimodal.CLIPScore",
    "torchmetrics.image.fid.FrechetInceptionDistance",
    "lightning.pytorch.demos.boring_classes.BoringModel",
    "timm.create_model",
    "timm.models.load_checkpoint",
    "typing.NamedTuple",
    "math.prod",
    "quintet.vision.models.vit.math",
    "quintet.vision.data.images.NamedTuple",
    "quintetx.attack",
    "quintet",
    "",
    ".",
    "..os.system",
    "torch.nn.Linear ",
    "torch.nn.modules.linear.__builtins__",
    f"{__name__}.Bomb",
]


@pytest.mark.parametrize("path", FOREIGN)
@pytest.mark.parametrize("form", ["class", "partial", "function", "nested"])
def test_a_description_runs_no_code(path, form):
    described = {
        "class": {"class_path": path, "init_args": {}},
        "partial": {"class_path": path, "init_args": {"command": "true"}, "partial": True},
        "function": {"function": path},
        "nested": {"class_path": "torch.nn.Dropout", "init_args": {"p": [{"class_path": path}]}},
    }[form]
    with pytest.raises(QuintetError, match="the file asks for"):
        build(described)
    assert not Bomb.fired


@pytest.mark.parametrize("path", ["subprocess.Popen", "os.system", "torch.hub.load", "lightning.Trainer"])
def test_nobody_is_advised_to_trust_what_is_no_code_of_theirs(path):
    with pytest.raises(QuintetError) as refused:
        build({"class_path": path, "init_args": {}})
    assert "trust=" not in str(refused.value)


@pytest.mark.parametrize("package", ["subprocess", "os", "builtins", "torch", "timm", "a-b", "", 7])
def test_only_packages_of_the_user_s_own_can_be_trusted(package):
    with pytest.raises(QuintetError, match="trust="):
        check_trust([package])
    check_trust(["my_nets", HERE])


@pytest.mark.parametrize(
    "described",
    [
        {"_target_": "torch.nn.GELU"},
        {"a": {"_target_": "torch.nn.GELU", "x": 1}},
        [{"a": ({"_partial_": True, "_target_": "os.system"},)}],
        {"class_path": "torch.nn.GELU", "init_args": {}, "dict_kwargs": {"a": 1}},
        {"class_path": "torch.nn.GELU", "init_args": {"approximate": "tanh"}, "_target_": "os.system"},
        {"class_path": "torch.nn.GELU", "init_args": {"approximate": {"init_args": {}}}},
        {"class_path": "torch.nn.GELU", "init_args": [1]},
        {"class_path": "torch.nn.GELU", "init_args": {"__class__": 1}},
        {"class_path": "torch.nn.GELU", "init_args": {1: 1}},
        {"class_path": "torch.nn.GELU", "partial": "yes"},
        {"class_path": 7},
        {"class_path": ["torch.nn.GELU"]},
        {"function": 7, "class_path": "torch.nn.GELU"},
        torch.zeros(1),
        {"a": torch.zeros(1)},
        {(1, 2): 3},
        {"a": b"bytes"},
    ],
    ids=str,
)
def test_what_is_not_of_the_grammar_is_refused(described):
    with pytest.raises(QuintetError):
        build(described)


@pytest.mark.parametrize(
    ("path", "arguments", "complaint"),
    [
        ("torch.nn.Dropout", {"p": "torch.nn.GELU"}, "p is 'torch.nn.GELU', not float"),
        ("torch.nn.Dropout", {"q": 0.1}, "no argument 'q'"),
        ("quintet.vision.tasks.ImageClassifier", {"optimizer": "helper.run"}, "optimizer is 'helper.run'"),
        ("quintet.vision.tasks.ImageClassifier", {"lr": "fast"}, "lr is 'fast', not float"),
        ("quintet.vision.tasks.ImageClassifier", {"mixer": "helper.run"}, "no mixer is called 'helper.run'"),
        ("quintet.vision.tasks.ImageClassifier", {"mixer": 7}, "mixer is 7"),
        ("quintet.vision.tasks.ImageClassifier", {"backbone": 7}, "backbone is 7"),
        ("quintet.vision.tasks.ImageClassifier", {"freeze": [1]}, "freeze is"),
        ("quintet.vision.tasks.ImageClassifier", {"nonsense": 1}, "no argument 'nonsense'"),
    ],
)
def test_arguments_are_held_against_the_types_of_the_constructor(path, arguments, complaint):
    with pytest.raises(QuintetError) as refused:
        build({"class_path": path, "init_args": arguments})
    assert complaint in str(refused.value)


def test_a_function_is_not_called_while_building():
    with pytest.raises(QuintetError, match="asks to call"):
        build({"class_path": "torch.nn.functional.relu", "init_args": {"input": 1}})


def test_a_function_that_a_trusted_module_imported_from_elsewhere_is_refused(monkeypatch):
    from quintet.core import attention
    from quintet.core.weights import pretrained

    monkeypatch.setattr(attention, "download", pretrained.download, raising=False)
    with pytest.raises(QuintetError, match="not a layer"):
        build({"function": "quintet.core.attention.download"})


def test_trust_is_of_one_package_and_said_how():
    described = {"class_path": f"{__name__}.Base", "init_args": {"width": 1}}
    with pytest.raises(QuintetError, match=f"trust={HERE}"):
        build(described)
    with pytest.raises(QuintetError, match=f"trust={HERE}"):
        build(described, trusted=[f"{HERE}x"])
    assert build(described, trusted=[HERE]).width == 1


def test_what_a_trusted_module_imported_is_not_trusted_with_it():
    with pytest.raises(QuintetError, match="not a layer"):
        build({"class_path": f"{__name__}.pytest", "init_args": {}}, trusted=[HERE])
    with pytest.raises(QuintetError, match="not a layer"):
        build({"function": f"{__name__}.get_args", "init_args": {}} and {"function": f"{__name__}.dataclasses"}, [HERE])


def test_an_object_of_another_kind_is_not_taken_for_a_task():
    with pytest.raises(QuintetError, match=r"describes a torch\.nn\.GELU, not a Base"):
        build_node({"class_path": "torch.nn.GELU", "init_args": {}}, Base, {}, "file.ckpt")


# The record around the nodes

HONEST = {
    "version": "0.1.0",
    "task": {"class_path": "quintet.vision.tasks.ImageClassifier", "init_args": {}},
    "description": {},
}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ([1], "its record is a list"),
        ({"task": None}, "should describe an object"),
        ({"task": [1]}, "should describe an object"),
        ({"task": {"class_path": 3}}, "no class_path"),
        ({"description": [1]}, "description in its record is "),
        ({"version": 7}, "version in its record is 7"),
        ({"trust": ["subprocess"]}, r"written by a newer quintet \(0\.1\.0; this is"),
        ({"data": {"_target_": "os.system"}}, "no class_path"),
        ({"data": {"class_path": "quintet.vision.data.Digits", "init_args": {"a": {"_target_": "x"}}}}, "'_target_'"),
        ({"origin": {"weights": 1, "licence": ""}}, "origin in its record is"),
        ({"origin": {"files": "a"}}, "origin in its record is"),
        ({"training": {"epoch": "one"}}, "epoch in its record is 'one'"),
        ({"training": {"callbacks": {}}}, "newer quintet"),
        ({"digest": 3}, "digest in its record is 3"),
    ],
    ids=str,
)
def test_a_record_that_is_none_is_refused_in_one_line(change, complaint):
    record = change if isinstance(change, list) else HONEST | change
    with pytest.raises(QuintetError, match=complaint) as refused:
        record_of({RECORD: record, "state_dict": {}}, "file.ckpt")
    assert "file.ckpt" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("part", ["version", "task", "description"])
def test_a_record_without_a_part_is_refused(part):
    record = {key: value for key, value in HONEST.items() if key != part}
    with pytest.raises(QuintetError, match=f"its record has no {part}"):
        record_of({RECORD: record, "state_dict": {}}, "file.ckpt")


@pytest.mark.parametrize("weights", [None, [1], "text"])
def test_a_checkpoint_without_weights_is_refused(weights):
    with pytest.raises(QuintetError, match="no weights"):
        record_of({RECORD: HONEST, "state_dict": weights}, "file.ckpt")


@dataclasses.dataclass
class Known:
    channels: list[str]
    mean: float = 0.0


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"channels": ["a"], "new_thing": 1}, "newer quintet"),
        ({"mean": 1.0}, "lacks 'channels'"),
        ({"channels": ["a"], "mean": "one"}, "mean in it is 'one', not float"),
        ({"channels": "ab"}, "channels in it is 'ab'"),
        ({"channels": [1]}, "channels in it is"),
    ],
)
def test_what_is_known_of_the_data_is_held_against_its_fields(values, complaint):
    with pytest.raises(QuintetError, match=complaint):
        restore_description(Known, HONEST | {"description": values}, "file.ckpt")


def test_what_is_known_of_the_data_comes_back():
    assert restore_description(Known, HONEST | {"description": {"channels": ["a"], "mean": 2}}) == Known(["a"], 2)
