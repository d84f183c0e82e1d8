"""What layers get beside their tokens and what they say aside, by hand."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch import nn

from quintet.core.aside import listened_to, listening, run, tell, told_within
from quintet.core.attention import Attention, LinearAttention
from quintet.core.blocks.block import Block
from quintet.core.blocks.encoder import Encoder, StagedEncoder
from quintet.core.errors import QuintetError
from quintet.core.norm import AdaptiveNorm, BatchNorm


class Telling(nn.Module):
    """Says the mean square of what its output is the tanh of."""

    tells = frozenset({"loss"})

    def __init__(self, dim):
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, x):
        y = self.linear(x)
        tell(self, "loss", y.square().mean())
        return y.tanh()


def error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def test_layers_get_what_they_take_and_nothing_else():
    class Taking(nn.Module):
        takes = frozenset({"mask", "bias"})

        def forward(self, x, mask=None, bias=None):
            return mask, bias

    given = {"mask": 1, "bias": None, "edges": 3}
    assert run(Taking(), torch.zeros(1), given) == (1, None)
    x = torch.randn(2, 3)
    assert run(nn.Identity(), x, given) is x


def test_batch_norm_over_padded_tokens_is_batch_norm_without_them():
    """Sequences of 7 and 3 tokens against the formula of a block over these ten, written out."""
    torch.manual_seed(0)
    encoder = Encoder(8, 2, mixer=partial(Attention, num_heads=1), norm=BatchNorm).double()
    x, mask = torch.randn(2, 7, 8).double(), torch.arange(7) < torch.tensor([[7], [3]])

    def norm(module, rows):
        mean, variance = rows.mean(0), rows.var(0, unbiased=False)
        return (rows - mean) / (variance + module.eps).sqrt() * module.weight + module.bias

    rows = x[mask]
    for block in encoder.blocks:
        normed = norm(block.norm1, rows)
        rows = rows + torch.cat([block.mixer(part[None])[0] for part in normed.split([7, 3])])
        rows = rows + block.feedforward(norm(block.norm2, rows))
    expected = norm(encoder.norm, rows)
    y = encoder(x, mask)
    assert error(y[mask], expected) < 1e-12
    assert not y[~mask].any()


def test_batch_norm_with_a_mask_in_low_precision_and_without_a_real_token():
    torch.manual_seed(0)
    x, mask = 30 + torch.randn(4, 64, 8).bfloat16(), torch.rand(4, 64) > 0.3
    norm = BatchNorm(8)
    with torch.autocast("cpu", torch.bfloat16):
        y = norm(x, mask)
    rows = x[mask].double()
    expected = (rows - rows.mean(0)) / (rows.var(0, unbiased=False) + norm.eps).sqrt()
    assert y.dtype is torch.bfloat16
    assert error(y[mask].double(), expected) < 1e-2
    assert error(norm.running_mean.double(), 0.1 * rows.mean(0)) < 1e-5
    assert error(norm.running_var.double(), 0.9 + 0.1 * rows.var(0)) < 1e-4
    before = norm.running_mean.clone(), norm.running_var.clone()
    assert not norm(x, torch.zeros_like(mask)).any()
    assert torch.equal(norm.running_mean, before[0])
    assert torch.equal(norm.running_var, before[1])


def test_first_tokens_of_batch_norm_are_normalized_with_all():
    torch.manual_seed(0)
    encoder, x = Encoder(16, 2, norm=BatchNorm), torch.randn(3, 5, 16)
    assert error(encoder(x, queries=1), encoder(x)[:, :1]) < 1e-6


def test_a_condition_reaches_the_norms_alone():
    torch.manual_seed(0)
    block, x, condition = Block(16, norm=AdaptiveNorm), torch.randn(2, 5, 16), torch.randn(2, 16)
    for norm in (block.norm1, block.norm2):
        nn.init.normal_(norm.linear.weight)
    h = x + block.mixer(block.norm1(x, condition))
    assert error(block(x, condition=condition), h + block.feedforward(block.norm2(h, condition))) < 1e-6


def test_what_nobody_takes_is_refused():
    x = torch.randn(1, 4, 32)
    with pytest.raises(
        QuintetError, match="no layer of this Encoder takes conditon; they take bias, cu_seqlens, mask, queries"
    ):
        Encoder(32, 1)(x, conditon=x)
    with pytest.raises(QuintetError, match="takes bias; they take cu_seqlens, mask, queries"):
        list(Encoder(32, 1, LinearAttention).layers(x, bias=x))
    with pytest.raises(QuintetError, match="no layer of this StagedEncoder takes edges"):
        StagedEncoder([32], [1], nn.Linear)(x, edges=x)
    Encoder(32, 2, [Attention, LinearAttention])(x, bias=torch.zeros(1, 1, 4, 4))
    with pytest.raises(QuintetError, match="no layer of this Encoder tells wieghts; they tell weights"):
        listening(Encoder(32, 1), "wieghts").__enter__()
    with pytest.raises(QuintetError, match="they tell nothing"):
        listening(nn.Linear(2, 2), "loss").__enter__()


def test_what_is_told_is_heard_by_path_and_only_while_someone_listens():
    torch.manual_seed(0)
    first, second = Telling(4), Telling(4)
    network = nn.Sequential(first, second, first)
    x = torch.randn(3, 4)
    assert told_within(network) == {"loss"}
    network(x)
    with listening(network, "loss") as heard, listening(second, "loss") as nearer:
        network(x)
        Telling(4)(x)  # not of this network
    network(x)
    one = first.linear(x)
    two = second.linear(one.tanh())
    three = first.linear(two.tanh())
    expected = [one.square().mean(), three.square().mean()]
    assert heard["loss"]["0"] == expected
    assert heard["loss"] == {"0": expected, "1": [two.square().mean()]}
    assert nearer["loss"] == {"": [two.square().mean()]}


def losses_and_gradients(network, call, x):
    network.zero_grad()
    with listening(network, "loss") as heard:
        y = call(x)
        told = [loss for losses in heard["loss"].values() for loss in losses]
        (y.square().mean() + sum(told)).backward()
        assert sum(map(len, heard["loss"].values())) == len(told), "going back told something again"
    return [loss.item() for loss in told], [parameter.grad.clone() for parameter in network.parameters()]


def network_with_losses(checkpointing):
    torch.manual_seed(0)
    return Encoder(16, 2, feedforward=Telling, gradient_checkpointing=checkpointing)


def test_checkpointing_tells_the_same_once():
    x = torch.randn(2, 5, 16)
    plain, kept = network_with_losses(False), network_with_losses(True)
    losses, gradients = losses_and_gradients(plain, plain, x)
    found, own = losses_and_gradients(kept, kept, x)
    assert len(losses) == 2
    assert found == losses
    assert all(error(one, other) < 1e-6 for one, other in zip(own, gradients))


class Asking(Telling):
    """Makes its loss only where someone listens."""

    def forward(self, x):
        y = self.linear(x)
        if listened_to(self, "loss"):
            tell(self, "loss", y.square().mean())
        return y.tanh()


def test_going_back_after_listening_layers_do_as_they_did_while_it_lasted():
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = Encoder(16, 2, Asking, gradient_checkpointing=checkpointing)
        with listening(network, "loss") as heard:
            y = network(torch.ones(2, 5, 16))
        (y.square().mean() + sum(losses[0] for losses in heard["loss"].values())).backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]))
    assert error(*gradients) < 1e-6


def test_what_was_computed_before_someone_listened_tells_nothing_going_back():
    network = Encoder(16, 2, Telling, gradient_checkpointing=True)
    loss = network(torch.randn(2, 5, 16)).square().mean()
    with listening(network, "loss") as heard:
        loss.backward()
    assert heard == {"loss": {}}


def test_each_thread_hears_its_own_calls_alone():
    network = Encoder(16, 2, Telling, gradient_checkpointing=True)
    listening_all = threading.Barrier(2, timeout=10)

    def calls(times):
        with listening(network, "loss") as heard:
            listening_all.wait()
            for _ in range(times):
                network(torch.randn(2, 5, 16))
                listening_all.wait()
            for _ in range(3 - times):
                listening_all.wait()
        return [len(losses) for losses in heard["loss"].values()]

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(calls, [1, 3])) == [[1, 1], [3, 3]]


def test_an_error_ends_listening_and_what_is_withheld():
    network = Encoder(16, 2, Telling, lambda dim: nn.Linear(dim + 1, dim), gradient_checkpointing=True)
    with pytest.raises(RuntimeError), listening(network, "loss"):
        network(torch.randn(2, 5, 16))
    told = Telling(4)
    with listening(told, "loss") as heard:
        told(torch.randn(3, 4))
    assert len(heard["loss"][""]) == 1


@pytest.mark.compilation
def test_a_network_may_listen_to_its_own_layers_compiled():
    class Watching(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = Encoder(16, 2)

        def forward(self, x):
            with listening(self.encoder, "weights") as heard:
                self.encoder(x)
            return heard["weights"]["blocks.1.mixer"][0].values

    network, x = Watching(), torch.randn(2, 5, 16)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    assert error(compiled(x), network(x)) < 1e-5


@pytest.mark.compilation
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_networks_tell_the_same(checkpointing):
    torch._dynamo.reset()
    x = torch.randn(2, 5, 16)
    network = network_with_losses(checkpointing)
    losses, gradients = losses_and_gradients(network, network, x)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    silent = compiled(x)
    for _ in range(2):
        found, own = losses_and_gradients(network, compiled, x)
        assert found == pytest.approx(losses, rel=1e-5)
        assert all(error(one, other) < 1e-5 for one, other in zip(own, gradients))
    assert torch.equal(compiled(x), silent)
