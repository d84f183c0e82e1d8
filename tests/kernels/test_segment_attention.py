"""Segment attention against its definition spelt out token by token, and what segments promise each other."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from quintet.kernels import segment_attention as module
from quintet.kernels._spec import relative_error
from quintet.kernels.segment_attention import segment_attention

BACKENDS = pytest.mark.parametrize("backend", ["reference", "torch"])


def boundaries(lengths):
    return torch.tensor([0, *lengths]).cumsum(0)


def by_definition(query, key, value, lengths, edges, edge_bias, causal, scale):
    segment = [number for number, length in enumerate(lengths) for _ in range(length)]
    y = torch.zeros_like(query)
    for i in range(len(query)):
        for h in range(query.shape[1]):
            seen = [j for j in range(len(key)) if segment[j] == segment[i] and (j <= i or not causal)]
            scores = torch.stack([scale * query[i, h] @ key[j, h] for j in seen])
            for number, (source, target) in enumerate(edges):
                if target == i and source in seen:
                    scores[seen.index(source)] += edge_bias[number, h]
            y[i, h] = scores.softmax(0) @ value[seen, h]
    return y


@st.composite
def problems(draw):
    lengths = draw(st.lists(st.integers(0, 7), min_size=1, max_size=4))
    first = boundaries(lengths).tolist()
    edges = []
    if sum(lengths):
        segments = st.sampled_from([number for number, length in enumerate(lengths) if length])
        for number in draw(st.lists(segments, max_size=8)):
            token = st.integers(first[number], first[number + 1] - 1)
            edges.append((draw(token), draw(token)))
    return lengths, edges * draw(st.integers(1, 2)), draw(st.booleans()), draw(st.integers(0, 99))


@BACKENDS
@given(problem=problems())
def test_agrees_with_the_definition(backend, problem):
    lengths, edges, causal, seed = problem
    generator = torch.Generator().manual_seed(seed)
    query, key, value = torch.randn(3, sum(lengths), 2, 3, generator=generator, dtype=torch.float64).unbind()
    edge_bias = torch.randn(len(edges), 2, generator=generator, dtype=torch.float64)
    edge_index = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T
    settings = {"causal": causal, "scale": 0.7, "backend": backend}
    found = segment_attention(query, key, value, boundaries(lengths), edge_index, edge_bias, **settings)
    expected = by_definition(query, key, value, lengths, edges, edge_bias, causal, 0.7)
    assert relative_error(found, expected) < 1e-12


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("most", [1, 200, 1 << 20])
def test_gradients_of_the_torch_form(monkeypatch, causal, most):
    """Written out by hand; also where scores are computed a few rows, or a few segments, at a time."""
    monkeypatch.setattr(module, "MAX_SCORES", most)
    monkeypatch.setattr(module, "CAUSAL_ROWS", 4)
    torch.manual_seed(0)
    lengths = [3, 0, 9, 9, 1, 7, 8, 17]
    leaves = [torch.randn(sum(lengths), 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    cu_seqlens, edges = boundaries(lengths), torch.tensor([[0, 0, 4, 11, 2, 37, 53, 40], [2, 2, 3, 5, 2, 42, 40, 53]])
    edge_bias = torch.randn(edges.shape[1], 2, dtype=torch.float64, requires_grad=True)

    def attend(*inputs):
        return segment_attention(*inputs[:3], cu_seqlens, edges, inputs[3], causal=causal, backend="torch")

    assert torch.autograd.gradcheck(attend, (*leaves, edge_bias), fast_mode=True)
    reference = segment_attention(*leaves, cu_seqlens, edges, edge_bias, causal=causal, backend="reference")
    assert relative_error(attend(*leaves, edge_bias).detach(), reference.detach()) < 1e-12


@BACKENDS
def test_segments_do_not_see_each_other(backend):
    """Not even what would spoil a sum: other segments are NaN."""
    lengths, heads = [5, 8, 0, 6, 7], 2
    torch.manual_seed(0)
    query, key, value = torch.randn(3, sum(lengths), heads, 4).unbind()
    cu_seqlens = boundaries(lengths)
    whole = segment_attention(query, key, value, cu_seqlens, backend=backend)
    for first, stop in zip(cu_seqlens[:-1].tolist(), cu_seqlens[1:].tolist()):
        outside = torch.ones(len(query), dtype=torch.bool)
        outside[first:stop] = False
        poisoned = [
            tensor.masked_fill(outside[:, None, None], torch.nan).requires_grad_() for tensor in (query, key, value)
        ]
        y = segment_attention(*poisoned, cu_seqlens, backend=backend)[first:stop]
        assert torch.equal(y.detach(), whole[first:stop])
        gradients = torch.autograd.grad(y.sum(), poisoned)
        for gradient in gradients:
            assert gradient[first:stop].isfinite().all()


@BACKENDS
def test_order_of_segments_does_not_matter_and_empty_ones_change_nothing(backend):
    torch.manual_seed(0)
    parts = [torch.randn(3, length, 2, 4) for length in (6, 3, 11)]
    forth = segment_attention(*torch.cat(parts, 1).unbind(), boundaries([6, 3, 11]), backend=backend)
    back = segment_attention(*torch.cat(parts[::-1], 1).unbind(), boundaries([0, 11, 0, 0, 3, 6, 0]), backend=backend)
    assert relative_error(torch.cat([back[14:], back[11:14], back[:11]]), forth) < 1e-6


def test_one_segment_is_plain_attention():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 37, 3, 8).unbind()
    for causal in (False, True):
        double = (tensor.double().transpose(0, 1)[None] for tensor in (query, key, value))
        expected = F.scaled_dot_product_attention(*double, is_causal=causal)[0].transpose(0, 1)
        assert relative_error(segment_attention(query, key, value, boundaries([37]), causal=causal), expected) < 1e-6


@BACKENDS
def test_edges_act_from_source_to_target_and_only_there(backend):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 9, 2, 4).unbind()
    cu_seqlens, strong = boundaries([4, 5]), torch.full((1, 2), 60.0)
    plain = segment_attention(query, key, value, cu_seqlens, backend=backend)
    y = segment_attention(query, key, value, cu_seqlens, torch.tensor([[8], [5]]), strong, backend=backend)
    assert relative_error(y[5], value[8]) < 1e-6
    others = torch.arange(9) != 5
    assert relative_error(y[others], plain[others]) < 1e-6


def call(**changes):
    inputs = {"query": torch.zeros(6, 2, 4), "cu_seqlens": torch.tensor([0, 2, 6])}
    inputs = inputs | dict.fromkeys(("key", "value"), inputs["query"]) | changes
    return segment_attention(**inputs)


EDGES = {"edge_index": torch.tensor([[0, 3], [1, 1]]), "edge_bias": torch.zeros(2, 2)}


@BACKENDS
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cu_seqlens": torch.tensor([0, 2, 5])}, r"must rise from 0 to the number of tokens, 6; it is \[0, 2, 5\]"),
        ({"cu_seqlens": torch.tensor([0, 4, 2, 6])}, "must rise from 0"),
        ({"cu_seqlens": torch.tensor([1, 6])}, "must rise from 0"),
        (EDGES, "edge 1 goes from token 3 to token 1, which are not two of the 6 tokens in one segment"),
        (EDGES | {"edge_index": torch.tensor([[0, 6], [1, 5]])}, "edge 1 goes from token 6 to token 5"),
        ({"cu_seqlens": torch.tensor([6])}, r"cu_seqlens has shape \(1,\); it needs one number more than"),
        ({"edge_index": EDGES["edge_index"]}, "edge_index and edge_bias belong together"),
        (EDGES | {"edge_bias": torch.zeros(2, 3)}, r"they must be \(2, edges\) and \(edges, 2\)"),
        ({"key": torch.zeros(6, 2, 4).double()}, "query, key and value must be alike"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_and_why(backend, changes, message):
    with pytest.raises(ValueError, match=message):
        call(**changes, backend=backend)


# One stride is told to the kernels for all three

LAUNCH = {"cu_seqlens": torch.tensor([0, 2, 6]), "edge_index": None, "edge_bias": None, "causal": False, "scale": 1.0}


@pytest.mark.parametrize("name", ["query", "key", "value"])
def test_kernels_get_tensors_of_one_layout(name):
    generator = torch.Generator().manual_seed(0)
    given = dict(zip(("query", "key", "value"), torch.randn(3, 6, 2, 4, generator=generator)))
    other = given | {name: given[name].transpose(0, 1).contiguous().transpose(0, 1)}
    for tensors in (other, {key: tensor.mT.contiguous().mT for key, tensor in given.items()}):
        launch = module._launch(**tensors, **LAUNCH)
        for key, tensor in given.items():
            assert launch.tensors[f"{key}_ptr"].is_contiguous()
            assert torch.equal(launch.tensors[f"{key}_ptr"], tensor)
        assert (launch.settings["token_stride"], launch.settings["head_stride"]) == (8, 4)


def test_parts_of_one_projection_are_not_copied():
    parts = dict(zip(("query", "key", "value"), torch.zeros(6, 3, 2, 4).unbind(1)))
    launch = module._launch(**parts, **LAUNCH)
    assert all(launch.tensors[f"{key}_ptr"].data_ptr() == tensor.data_ptr() for key, tensor in parts.items())
    assert (launch.settings["token_stride"], launch.settings["head_stride"]) == (24, 4)
