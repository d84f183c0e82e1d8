"""What is generated from a specification: it catches wrong operations, and takes states, None and nested outputs."""

import dataclasses
import math

import pytest
import torch

from quintet.kernels import OpSpec, list_specs
from quintet.kernels._runtime import OPERATIONS, Backends
from quintet.kernels._spec import LAYOUTS, Cost, Sampler, benchmark, errors, evaluate, operations_table, relative_error


def accumulate_reference(x, state=None, factor=1.0):
    """Cumulative sum with a state (total, count); returns the sums and the new state."""
    total, count = (x.new_zeros(x.shape[1:]), 0) if state is None else state
    sums = total + factor * x.cumsum(0)
    return sums, (sums[-1], count + len(x))


def accumulate_torch(x, state=None, factor=1.0):
    total, count = (torch.zeros_like(x[0]), 0) if state is None else state
    sums = torch.cat((total[None], factor * x)).cumsum(0)[1:]
    return sums, (sums[-1], count + len(x))


@pytest.fixture
def accumulate():
    backends = Backends("accumulate", accumulate_reference, accumulate_torch)

    def function(x, state=None, factor=1.0, *, backend=None):
        """Sum up."""
        return backends.select(backend, x)(x, state, factor)

    yield OpSpec(
        function=function,
        backends=backends,
        cases={
            "no state": lambda random: {"x": random.normal(5, 3), "state": None},
            "state": lambda random: {"x": random.normal(5, 3), "state": (random.normal(3), random.integers(3, high=9))},
        },
        differentiable=("x", "state"),
        floor=lambda x, **_: (Cost(2 * x.numel(), x.numel()), Cost(2 * x.numel(), x.numel())),
        paper="none",
        benchmarks={"long": lambda random: {"x": random.normal(50, 3)}},
        float32=("state",),
    )
    del OPERATIONS["accumulate"]


def test_specifications_of_the_files_are_found():
    assert {"rms_norm", "neighborhood_attention"} <= set(list_specs())
    for name in ("rms_norm", "neighborhood_attention"):
        assert f"| `{name}` |" in operations_table()


def test_states_none_and_nested_outputs_are_compared(accumulate):
    assert set(errors(accumulate, "torch", "no state", torch.float32)) == {"output[0]", "output[1][0]", "gradient of x"}
    found = errors(accumulate, "torch", "state", torch.float32)
    assert set(found) == {"output[0]", "output[1][0]", "output[1][1]", "gradient of x", "gradient of state[0]"}
    assert max(found.values()) < 1e-6


def test_states_stay_float32_in_half_precision(accumulate):
    inputs = accumulate.inputs("state", torch.float16)
    assert (inputs["x"].dtype, inputs["state"][0].dtype, inputs["state"][1].dtype) == (
        torch.float16,
        torch.float32,
        torch.int64,
    )


def test_wrong_value_wrong_gradient_and_nan_are_caught(accumulate):
    wrong_forms = {
        "value": lambda function: lambda x, state=None, factor=1.0: function(x * 1.001, state, factor),
        "gradient": lambda function: lambda x, state=None, factor=1.0: function(x.detach() + 0 * x, state, factor),
        "nan": lambda function: lambda x, state=None, factor=1.0: function(x * torch.nan, state, factor),
    }
    for wrong in wrong_forms.values():
        form = wrong(accumulate_torch)
        backends = dataclasses.replace(accumulate.backends, torch=form)

        def function(x, state=None, factor=1.0, *, backend=None, backends=backends):
            return backends.select(backend, x)(x, state, factor)

        spec = dataclasses.replace(accumulate, backends=backends, function=function)
        assert any(not error <= 1e-6 for error in errors(spec, "torch", "state", torch.float32).values())
        with pytest.raises(ValueError, match="accumulate, long: wrong is wrong by"):
            next(benchmark(spec, {"wrong": form}))


def test_benchmark_times_each_backend(accumulate):
    forms = {"loop": accumulate_reference, "cat": accumulate_torch}
    rows = list(benchmark(accumulate, forms, forward_only=("cat",), repeats=1))
    assert [row.implementation for row in rows] == ["loop", "cat"]
    assert all(row.forward > 0 and row.error < 1e-6 for row in rows)
    assert rows[0].training > 0
    assert math.isnan(rows[1].training)


def test_two_cases_of_one_name_are_refused(accumulate):
    with pytest.raises(ValueError, match="two cases have the same name"):
        dataclasses.replace(accumulate, benchmarks={"state": accumulate.cases["state"]})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_hold_the_same_values(accumulate, layout):
    plain, laid_out = (accumulate.inputs("no state", layout=name)["x"] for name in ("contiguous", layout))
    assert torch.equal(plain, laid_out)
    assert laid_out.is_contiguous() == (layout == "contiguous")


def test_gradients_given_to_outputs_are_the_same_in_every_dtype(accumulate):
    wide, narrow = (
        evaluate(accumulate, accumulate.function, accumulate.inputs("no state", dtype), torch.float16)
        for dtype in (torch.float64, torch.float32)
    )
    assert relative_error(narrow["gradient of x"], wide["gradient of x"]) < 1e-6


def test_relative_error_of_a_zero_truth_is_on_the_scale_of_the_inputs():
    assert relative_error(torch.full((4,), 1e-7), torch.zeros(4)) == pytest.approx(1e-7)
    assert relative_error(torch.full((4,), 2e-5), torch.full((4,), 1e-5)) == pytest.approx(1.0)


def test_sampler_repeats_itself():
    first, second = (Sampler(3).normal(4) for _ in range(2))
    assert torch.equal(first, second)
    assert Sampler(3).boolean(1000, probability=0.2).double().mean() < 0.3
