"""Objects that say how they were built, and are built again from that."""

import copy
import enum
import functools
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import quintet
from quintet.core.attention import Attention, LinearAttention
from quintet.core.errors import QuintetError
from quintet.core.weights.described import Described, description_of, from_json, to_json
from quintet.core.weights.records import build

HERE = __name__.split(".")[0]


class Base(Described, nn.Module):
    def __init__(self, width: int, *, factory: Any = None, **options: Any) -> None:
        super().__init__()
        self.width = width
        self.factory = factory
        self.options = options


class Child(Base):
    def __init__(self, depth: int = 1, **base: Any) -> None:
        super().__init__(**base)
        self.depth = depth


class Listed(Described):
    def __init__(self, *items: int) -> None:
        self.items = items


class Colour(str, enum.Enum):  # noqa: UP042 (the hardest of the kinds of string)
    RED = "red"


class Plain:
    def __init__(self, width: int = 1) -> None:
        self.width = width


class Rotated(nn.Module):
    """Its attribute has another name than its argument."""

    def __init__(self, angle: float = 0.0) -> None:
        super().__init__()
        self.radians = angle / 57.3


def double(x: Any) -> Any:
    return 2 * x


def round_trip(value: Any) -> Any:
    return build(description_of(value), trusted=[HERE])


MEANING = ("class_path", "init_args", "function")  # keys by which objects are told from mappings
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(
            st.text().filter(lambda key: key not in ("class_path", "init_args", "function")) | st.integers(), inner
        )
    ),
    max_leaves=12,
)


@given(PLAIN)
def test_plain_data_comes_back_as_it_was(value):
    again = round_trip(value)
    assert again == value
    assert type(again) is type(value)


@given(PLAIN | st.dictionaries(st.sampled_from(["(tuple)", "(mapping)", "a"]), PLAIN))
def test_plain_data_come_back_from_json_too(value):
    again = from_json(to_json(value))
    assert again == value
    assert repr(again) == repr(value)  # tuples are no lists, 1 is not 1.0


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float64(0.5), 0.5),
        (np.int64(3), 3),
        (np.str_("a"), "a"),
        (Colour.RED, "red"),
        (Path("a/b"), "a/b"),
        ({np.int64(1): np.float32(2)}, {1: 2.0}),
    ],
)
def test_what_resembles_plain_data_becomes_plain_data(value, plain, tmp_path):
    described = description_of(value)
    assert described == plain
    torch.save(described, tmp_path / "file")
    assert torch.load(tmp_path / "file", weights_only=True) == plain


def test_arguments_are_recorded_by_name_also_those_of_the_base_and_of_a_nested_object():
    module = Child(2, width=8, factory=Base(3, colour="red"))
    assert description_of(module) == {
        "class_path": f"{__name__}.Child",
        "init_args": {
            "depth": 2,
            "width": 8,
            "factory": {"class_path": f"{__name__}.Base", "init_args": {"width": 3, "colour": "red"}},
        },
    }
    again = round_trip(module)
    assert (again.depth, again.width, again.factory.width, again.factory.options) == (2, 8, 3, {"colour": "red"})


def test_defaults_are_left_to_the_constructor():
    assert description_of(Child(width=1))["init_args"] == {"width": 1}


@pytest.mark.parametrize("factory", [functools.partial(LinearAttention, num_heads=2), LinearAttention])
def test_a_class_that_waits_for_arguments_waits_again(factory):
    again = round_trip(Base(1, factory=factory)).factory
    first, second = factory(64), again(64)
    assert type(second) is LinearAttention
    assert repr(first) == repr(second)


@pytest.mark.parametrize(
    "function", [torch.nn.functional.gelu, torch.nn.functional.relu, torch.sigmoid, torch.tanh, double]
)
def test_a_function_is_found_again(function):
    assert round_trip(Base(1, factory=function)).factory is function


def test_a_partial_function_is_completed_again():
    again = round_trip(functools.partial(torch.nn.functional.softmax, dim=0))
    assert torch.equal(again(torch.zeros(2)), torch.full((2,), 0.5))


@pytest.mark.parametrize(
    "layer",
    [nn.Dropout(0.3), nn.GELU("tanh"), nn.LeakyReLU(0.4), nn.Flatten(0, 1), nn.ReLU(inplace=True), nn.Identity()],
)
def test_a_layer_without_tensors_keeps_its_settings(layer):
    assert repr(round_trip(layer)) == repr(layer)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (nn.Linear(2, 2), "a Linear, which a checkpoint cannot describe"),
        (nn.Sequential(nn.ReLU()), "a Sequential"),
        (nn.BatchNorm1d(2, affine=False), "a BatchNorm1d"),
        (Rotated(90.0), "a Rotated"),
        (torch.zeros(2), "a Tensor"),
        (Plain(), "a Plain"),
        (lambda x: x, "could not find again"),
        (functools.partial(double, 2), "positional arguments"),
        ("".join, "could not find again"),
        (torch.Tensor.abs, "could not find again"),
        (torch.load, "could not find again"),
        (torch.Generator, "could not find again"),
        ({Plain(): 1}, "a Plain"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_built_again_is_refused_with_the_argument_named(value, complaint):
    with pytest.raises(QuintetError, match="factory") as caught:
        description_of(Base(1, factory=value))
    assert complaint in str(caught.value)


def test_a_class_inside_a_function_is_refused():
    class Local(Base):
        pass

    with pytest.raises(QuintetError, match="could not find again"):
        description_of(Local(1))


def test_positional_lists_of_arguments_are_refused():
    with pytest.raises(QuintetError, match=r"Listed\(\*items\)"):
        description_of(Listed(1, 2))


def test_the_index_of_a_bad_item_is_named():
    with pytest.raises(QuintetError, match=r"'options\.sizes\[1\]'|'sizes\[1\]'"):
        description_of(Base(1, sizes=[1, torch.zeros(1)]))


def test_wrong_arguments_are_the_constructor_s_own_complaint():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'width'"):
        Base()


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_remembers_too(copied):
    module = Child(2, width=8, factory=LinearAttention)
    assert description_of(copied(module)) == description_of(module)


def test_a_deep_copy_does_not_share_arguments():
    module = Base(1, sizes=[1, 2])
    copy.deepcopy(module).constructor_arguments["sizes"].append(3)
    assert description_of(module)["init_args"]["sizes"] == [1, 2]


def test_every_layer_of_quintet_can_be_an_argument():
    again = round_trip(Base(1, factory=functools.partial(Attention, num_heads=1, causal=True))).factory
    assert again(8).causal


def test_what_turned_out_otherwise_is_recorded():
    class Sized(Described):
        def __init__(self, path: str, size: int = 1) -> None:
            self.restate(path="(an object)")

    sized = Sized("a", size=2)
    sized.restate(size=3)
    assert sized.constructor_arguments == {"path": "(an object)", "size": 3}


def test_nobody_else_writes_what_was_recorded_or_calls_a_cached_property_of_a_base():
    root = Path(quintet.__file__).parent
    files = [path for room in ("core", "vision", "timeseries") for path in (root / room).rglob("*.py")]
    written = re.compile(r"constructor_arguments(\[.*?\])? *\|?= |constructor_arguments\.(update|setdefault|pop)")
    assert [path.name for path in files if written.search(path.read_text())] == ["described.py"]
    assert not [path.name for path in files if re.search(r"\.func\(self\)", path.read_text())]
