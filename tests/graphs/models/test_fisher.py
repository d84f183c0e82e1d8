"""Fisher information embedding: its formula as loops over nodes in float64, one Gaussian, means without labels."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from quintet.core.errors import QuintetError
from quintet.graphs.models import FisherInformationLayer, FisherInformationPooling
from quintet.graphs.models.fisher import KernelProjection, LinearProjection, spherical_means

# Two edges from 1 to 0, none to 5.
EDGES = torch.tensor([[1, 1, 2, 0, 3, 4, 2, 0, 5, 3], [0, 0, 0, 1, 2, 2, 3, 4, 4, 3]])


def features(rows: int = 6, dim: int = 4) -> Tensor:
    return torch.randn(rows, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def unsettled(layer):
    """With means that are not of unit length and priors that differ."""
    generator = torch.Generator().manual_seed(1)
    layer = layer.double()
    layer.mixture.means.data.normal_(generator=generator)
    layer.mixture.log_priors.data.normal_(generator=generator)
    return layer


def softmax(numbers: list[float]) -> list[float]:
    return [math.exp(each) / sum(map(math.exp, numbers)) for each in numbers]


def moves(x: Tensor, members: list[int], means: Tensor, priors: Tensor) -> Tensor:
    unit = [mean / mean.norm() for mean in means]
    shares = [
        softmax([((w @ x[j] / x[j].norm() + b) / x.shape[1]).item() for w, b in zip(unit, priors)]) for j in members
    ]
    parts = []
    for p, w in enumerate(unit):
        weights = softmax([share[p] for share in shares]) if members else []
        parts.append(sum((a * x[j] for a, j in zip(weights, members)), torch.zeros_like(w)) - w)
    return torch.cat(parts)


def project(z: Tensor, anchors: Tensor, sigma: float) -> Tensor:
    unit = torch.stack([row / row.norm() for row in anchors])
    kappa = lambda s: torch.exp((s - 1) / sigma**2)  # noqa: E731
    among = kappa(unit @ unit.T)
    inverse = torch.from_numpy(np.linalg.inv(sqrtm((among + 0.01 * torch.eye(len(among))).detach().numpy()).real))
    return torch.stack([row.norm() * kappa(unit @ (row / row.norm())) @ inverse for row in z])


@pytest.mark.parametrize("by_degree", [False, True])
def test_the_published_layer(by_degree):
    torch.manual_seed(0)
    layer = unsettled(FisherInformationLayer(4, 5, mixtures=3, scale_by_degree=by_degree))
    x, sources = features(), [EDGES[0][EDGES[1] == node].tolist() for node in range(6)]
    z = torch.stack([moves(x, members, layer.mixture.means, layer.mixture.log_priors) for members in sources])
    assert (layer.moves(x, EDGES) - z).norm() < 1e-12 * z.norm()
    expected = project(z, layer.projection.anchors, 0.5)
    if by_degree:
        expected = expected * torch.tensor([[math.log(1 + len(members))] for members in sources], dtype=torch.float64)
    assert (layer(x, EDGES) - expected).norm() < 1e-9 * expected.norm()


def test_one_gaussian_is_the_mean_of_the_neighbours():
    layer, x = unsettled(FisherInformationLayer(4, 5, mixtures=1)), features()
    w = layer.mixture.means[0] / layer.mixture.means[0].norm()
    expected = torch.stack([x[1] * 2 / 3 + x[2] / 3, x[0], (x[3] + x[4]) / 2, (x[2] + x[3]) / 2, (x[0] + x[5]) / 2])
    assert (layer.moves(x, EDGES)[:5] - (expected - w)).norm() < 1e-12
    assert (layer.moves(x, EDGES)[5] + w).norm() < 1e-12


def test_pooling_is_the_same_over_the_nodes_of_a_graph():
    torch.manual_seed(0)
    pooling, x, batch = (
        unsettled(FisherInformationPooling(4, 5, mixtures=3)),
        features(),
        torch.tensor([0] * 4 + [2] * 2),
    )
    members = [range(4), [], range(4, 6)]
    mixture = pooling.mixture
    z = torch.stack([moves(x, list(nodes), mixture.means, mixture.log_priors) for nodes in members])
    assert (pooling.moves(x, batch, 3) - z).norm() < 1e-12 * z.norm()
    expected = project(z, pooling.projection.anchors, 0.5)
    assert (pooling(x, batch, 3) - expected).norm() < 1e-9 * expected.norm()


def test_projections_are_parts():
    layer = FisherInformationLayer(4, 5, 2, LinearProjection).double().eval()
    linear, norm, z = layer.projection.linear, layer.projection.norm, layer.moves(features(), EDGES)
    expected = (z @ linear.weight.T + linear.bias) / math.sqrt(1 + norm.eps)
    assert (layer(features(), EDGES) - expected.clamp(min=0)).norm() < 1e-12


@pytest.mark.parametrize("layer", [FisherInformationLayer(4, 5, 2), FisherInformationPooling(4, 5, 2)])
def test_gradients_are_those_of_differences(layer):
    torch.manual_seed(0)
    layer, rest = (
        unsettled(layer),
        (EDGES,) if isinstance(layer, FisherInformationLayer) else (torch.zeros(6).long(), 1),
    )
    assert torch.autograd.gradcheck(lambda x: layer(x, *rest), features().requires_grad_())
    layer(features(), *rest).sum().backward()
    assert all(parameter.grad.norm() > 0 for parameter in layer.parameters())


def test_lengths_of_means_and_anchors_say_nothing():
    torch.manual_seed(0)
    layer, x = unsettled(FisherInformationLayer(4, 5, 3)), features()
    before = layer(x, EDGES)
    layer.mixture.means.data.mul_(7.0)
    layer.projection.anchors.data.mul_(0.2)
    assert (layer(x, EDGES) - before).norm() < 1e-12 * before.norm()


def test_means_without_labels_lie_among_the_rows():
    generator = torch.Generator().manual_seed(3)
    axes = torch.eye(4).double()
    x = (axes.repeat_interleave(20, 0) + 0.05 * torch.randn(80, 4, generator=generator).double()) * 3
    found = [spherical_means(x, 4, torch.Generator().manual_seed(seed)) for seed in range(20)]
    best = max(found, key=lambda centres: float((x @ centres.T).max(1).values.sum()))
    expected = torch.stack([(part / part.norm(dim=1, keepdim=True)).sum(0) for part in x.split(20)])
    expected = expected / expected.norm(dim=1, keepdim=True)
    cosines = best @ expected.T
    assert (cosines.max(1).values - 1).norm() < 1e-12
    assert sorted(cosines.argmax(1).tolist()) == [0, 1, 2, 3]


def test_a_cluster_that_loses_its_rows_begins_anew():
    x = torch.tensor([[1.0, 0.0]] * 5 + [[0.0, 1.0]]).double()
    for seed in range(6):
        centres = spherical_means(x, 2, torch.Generator().manual_seed(seed))
        assert sorted(centres.tolist()) == [[0.0, 1.0], [1.0, 0.0]]
    with pytest.raises(QuintetError, match="7 clusters of 6 rows"):
        spherical_means(x, 7)


@pytest.mark.parametrize("make", [FisherInformationLayer, FisherInformationPooling])
def test_initialised_without_labels_it_repeats_itself_by_its_generator(make):
    x, rest = features(), (EDGES,) if make is FisherInformationLayer else (torch.tensor([0, 0, 1, 1, 2, 2]), 3)
    states = []
    for seed in (0, 0):
        layer = make(4, 3, 2).double()
        layer.initialise(x, *rest, torch.Generator().manual_seed(seed))
        states.append(layer.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    neighbours = x[EDGES[0]] if make is FisherInformationLayer else x
    cosines = states[0]["mixture.means"] @ (neighbours / neighbours.norm(dim=1, keepdim=True)).T
    assert cosines.max() > 0.5
    assert (states[0]["projection.anchors"].norm(dim=1) - 1).norm() < 1e-12


def test_anchors_that_are_alike_or_at_right_angles_have_gradients():
    projection = KernelProjection(4, 4).double()
    for anchors in (torch.eye(4), torch.eye(4)[[0, 0, 1, 2]]):
        projection.anchors.data.copy_(anchors)
        z = features(3)

        def of(anchors: Tensor, z: Tensor = z) -> Tensor:
            return torch.func.functional_call(projection, {"anchors": anchors}, z)

        assert torch.autograd.gradcheck(of, projection.anchors.detach().clone().requires_grad_())


def test_a_kernel_of_anchors_on_themselves_is_nearly_the_kernel():
    projection = KernelProjection(4, 3).double()
    u = projection.anchors / projection.anchors.norm(dim=1, keepdim=True)
    y = projection(u.detach())
    kernel = ((u @ u.T - 1) / 0.25).exp()
    assert (y @ y.T - kernel).norm() < 0.03 * kernel.norm()


def test_sizes_below_one_are_refused():
    with pytest.raises(QuintetError, match="mixtures=0; each is at least 1"):
        FisherInformationLayer(4, 5, mixtures=0)
