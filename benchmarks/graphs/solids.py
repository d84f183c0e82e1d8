"""Which of six solids a cloud of 256 points was drawn from, told by a Point Transformer and by a forest beside it.

    OMP_NUM_THREADS=1 python benchmarks/graphs/solids.py [--seconds 120]

Spheres, boxes, cylinders, cones, tori and tetrahedra of random proportions; points uniform on the surface, the cloud
turned at random about all axes, moved, scaled to a mean square distance of 1 from its centre, with noise of a standard
deviation of 0.03 on every coordinate. The network sees positions, and beside them how far each point is from the centre
of its cloud. Training clouds are drawn as they are needed for so many CPU seconds; those of
validation (the state that is kept) and of the test come from generators of their own. The forest sees histograms of
distances between points and from the centre ("D2" and "D1" shape distributions), which no turn changes, of as many
clouds as its training takes.
"""

import argparse
import copy
import math
import time
from collections.abc import Callable

import torch
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor
from torch_geometric.data import Batch

from quintet.core.weights.registry import count_parameters
from quintet.graphs.models import PointTransformer

POINTS, NOISE = 256, 0.03
BATCH, EVERY = 16, 100  # clouds a step, steps from one validation to the next
SEEDS = {"train": 1, "validate": 2, "test": 3, "forest": 4}
CLOUDS = {"validate": 300, "test": 3000, "forest": 6000}

Draw = Callable[..., Tensor]


def uniform(generator: torch.Generator, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator)


def circle(radius: Tensor, angle: Tensor, height: Tensor) -> Tensor:
    return torch.stack([radius * angle.cos(), radius * angle.sin(), height + 0 * angle], -1)


def sphere(count: int, generator: torch.Generator) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(count, POINTS, 3, generator=generator), dim=-1)


def box(count: int, generator: torch.Generator) -> Tensor:
    edges = uniform(generator, count, 1, 3, low=0.6)
    points = uniform(generator, count, POINTS, 3, low=-0.5, high=0.5)
    areas = edges.prod(-1, keepdim=True) / edges  # of the faces at right angles to each axis
    axis = torch.multinomial(areas.squeeze(1), POINTS, replacement=True, generator=generator).unsqueeze(-1)
    side = points.gather(2, axis).sign() * 0.5
    return points.scatter(2, axis, side) * edges


def cylinder(count: int, generator: torch.Generator) -> Tensor:
    radius, height = uniform(generator, count, 1, low=0.3, high=0.7), uniform(generator, count, 1, low=0.8, high=1.6)
    draw, angle, where = uniform(generator, 3, count, POINTS)
    on_side = draw < height / (height + radius)
    out = torch.where(on_side, radius, radius * where.sqrt())
    end = torch.where(uniform(generator, count, POINTS) < 0.5, 0.0, height)
    return circle(out, 2 * math.pi * angle, torch.where(on_side, where * height, end))


def cone(count: int, generator: torch.Generator) -> Tensor:
    radius, height = uniform(generator, count, 1, low=0.4, high=0.8), uniform(generator, count, 1, low=0.8, high=1.6)
    draw, angle, where = uniform(generator, 3, count, POINTS)
    slope, from_top = (radius**2 + height**2).sqrt(), where.sqrt()
    on_side = draw < slope / (slope + radius)
    return circle(radius * from_top, 2 * math.pi * angle, torch.where(on_side, height * (1 - from_top), 0.0))


def torus(count: int, generator: torch.Generator) -> Tensor:
    tube = uniform(generator, count, 1, low=0.2, high=0.5)
    draw, around, along = uniform(generator, 3, count, POINTS)
    angle = 2 * math.pi * around
    # The outer half has more surface: of an angle and its mirror image one is taken in proportion to theirs.
    angle = torch.where(draw < (1 + tube * angle.cos()) / 2, angle, math.pi - angle)
    return circle(1 + tube * angle.cos(), 2 * math.pi * along, tube * angle.sin())


def tetrahedron(count: int, generator: torch.Generator) -> Tensor:
    corners = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    corners = corners * uniform(generator, count, 1, 3, low=0.6)
    faces = corners[:, torch.tensor([[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]])]
    areas = torch.linalg.cross(faces[:, :, 1] - faces[:, :, 0], faces[:, :, 2] - faces[:, :, 0]).norm(dim=-1)
    face = torch.multinomial(areas, POINTS, replacement=True, generator=generator)
    chosen = faces[torch.arange(count).unsqueeze(1), face]
    shares = -uniform(generator, count, POINTS, 3, low=1e-9).log()
    return (chosen * (shares / shares.sum(-1, keepdim=True)).unsqueeze(-1)).sum(2)


SOLIDS: dict[str, Draw] = {
    "sphere": sphere,
    "box": box,
    "cylinder": cylinder,
    "cone": cone,
    "torus": torus,
    "tetrahedron": tetrahedron,
}


def placed(clouds: Tensor, generator: torch.Generator) -> Tensor:
    """Turned, scaled, noisy, moved."""
    turn, upper = torch.linalg.qr(torch.randn(len(clouds), 3, 3, generator=generator))
    turn = turn * upper.diagonal(dim1=1, dim2=2).sign().unsqueeze(1)
    turn[:, :, 0] *= torch.linalg.det(turn).unsqueeze(1)
    clouds = (clouds - clouds.mean(1, keepdim=True)) @ turn
    clouds = clouds / clouds.square().sum(2).mean(1).sqrt().view(-1, 1, 1)
    clouds = clouds + NOISE * torch.randn(clouds.shape, generator=generator)
    return clouds + uniform(generator, len(clouds), 1, 3, low=-2.0, high=2.0)


def drawn(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Clouds (count, 256, 3) and numbers of their solids, as many of each."""
    each = count // len(SOLIDS)
    clouds = torch.cat([draw(each, generator) for draw in SOLIDS.values()])
    return placed(clouds, generator), torch.arange(len(SOLIDS)).repeat_interleave(each)


def a_batch(clouds: Tensor) -> Batch:
    from_centre = (clouds - clouds.mean(1, keepdim=True)).norm(dim=2).view(-1, 1)
    borders = torch.arange(len(clouds) + 1) * clouds.shape[1]
    return Batch(positions=clouds.flatten(0, 1), node_values=from_centre, ptr=borders)


@torch.no_grad()
def predicted(network: PointTransformer, clouds: Tensor) -> Tensor:
    network.eval()
    return torch.cat([network(a_batch(part)).argmax(1) for part in clouds.split(100)])


def trained(network: PointTransformer, seconds: float, rate: float = 2e-3) -> PointTransformer:
    """The best state by validation of a training that takes so many CPU seconds, drawing and validating included."""
    generator = torch.Generator().manual_seed(SEEDS["train"])
    clouds, solids = drawn(CLOUDS["validate"], torch.Generator().manual_seed(SEEDS["validate"]))
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.01)
    best, kept, step, began = -1.0, network, 0, time.process_time()
    while (spent := (time.process_time() - began) / seconds) < 1:
        optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 20) * (1 - spent)
        points, labels = drawn(BATCH, generator)
        loss = torch.nn.functional.cross_entropy(network.train()(a_batch(points)), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if step % EVERY == 0:
            right = (predicted(network, clouds) == solids).double().mean().item()
            print(f"{step * BATCH:6,} clouds, {spent * seconds:4.0f} s: {right:.3f}, loss {loss:.4f}", flush=True)
            if right > best:
                best, kept = right, copy.deepcopy(network)
    print(f"{step * BATCH:,} clouds in {time.process_time() - began:.0f} CPU seconds")
    return kept


def histograms(clouds: Tensor, bins: int = 32) -> Tensor:
    """Shares of distances between points and from the centre, of each cloud."""
    between = torch.cdist(clouds, clouds).flatten(1)
    centre = (clouds - clouds.mean(1, keepdim=True)).norm(dim=2)
    return torch.stack(
        [
            torch.cat([torch.histc(one, bins, 0, 3.5) / len(one), torch.histc(other, bins, 0, 2) / len(other)])
            for one, other in zip(between, centre)
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120.0)
    options = parser.parse_args()
    torch.manual_seed(0)
    network = PointTransformer(num_outputs=len(SOLIDS), node_values=1, widths=(16, 64, 128))
    network = trained(network, options.seconds)
    clouds, solids = drawn(CLOUDS["test"], torch.Generator().manual_seed(SEEDS["test"]))
    began = time.process_time()
    forest = RandomForestClassifier(300, random_state=0)
    seen, labels = drawn(CLOUDS["forest"], torch.Generator().manual_seed(SEEDS["forest"]))
    forest.fit(histograms(seen), labels)
    spent = time.process_time() - began
    moved = predicted(network, clouds[::10] + torch.tensor([8.0, -16.0, 4.0]))
    found = {
        f"Point Transformer, {count_parameters(network):,} parameters, {options.seconds:.0f} CPU seconds": predicted(
            network, clouds
        ),
        f"random forest on distances, {spent:.0f} CPU seconds": torch.from_numpy(forest.predict(histograms(clouds))),
    }
    print(
        f"of {len(clouds[::10])} clouds moved by (8, -16, 4), {(moved == predicted(network, clouds[::10])).sum()} keep"
    )
    print(f"| model | all | {' | '.join(SOLIDS)} |\n|{'---|' * (len(SOLIDS) + 2)}")
    for name, told in found.items():
        right = (told == solids).double()
        each = [f"{right[solids == number].mean():.1%}" for number in range(len(SOLIDS))]
        print(f"| {name} | {right.mean():.1%} | {' | '.join(each)} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
