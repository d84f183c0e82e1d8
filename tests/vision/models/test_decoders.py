"""Decoders: any backbone fits, every parameter learns, and SegFormer's shortcut computes what the paper says."""

import pytest
import torch
import torch.nn.functional as F

from quintet.core.errors import QuintetError
from quintet.vision.models import LinearProbe, SegFormerHead, UNetDecoder, UPerNet
from quintet.vision.models.decoders import enlarge

PYRAMIDS = {
    "four": [(8, 4), (12, 8), (16, 16), (20, 32)],
    "two, fine": [(6, 1), (10, 2)],
    "one": [(12, 16)],
}


def maps_of(info, height=96, width=67, batch=2):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, channels, -(-height // stride), -(-width // stride), generator=generator)
        for channels, stride in info
    ]


@pytest.mark.parametrize("pyramid", PYRAMIDS)
@pytest.mark.parametrize("decoder", [SegFormerHead, UNetDecoder, UPerNet, LinearProbe])
def test_any_pyramid_fits_and_everything_learns(decoder, pyramid):
    info = PYRAMIDS[pyramid]
    arguments = {} if decoder is LinearProbe else {"dim": 8}
    built = decoder(feature_info=info, num_classes=5, **arguments)
    maps = maps_of(info)
    scores = built(maps)
    level = -1 if decoder is LinearProbe else 0
    assert scores.shape == (2, 5, *maps[level].shape[-2:])
    scores.square().sum().backward()
    assert all(parameter.grad is not None for parameter in built.parameters())
    names = [name for name, _ in built.named_parameters()]
    assert set(built.head_keys) <= set(names)


def test_fusing_before_enlarging_is_what_the_paper_does():
    torch.manual_seed(0)
    info = PYRAMIDS["four"]
    head = SegFormerHead(info, 5, dim=16).eval().double()
    head.norm.running_mean.normal_()
    maps = [x.double() for x in maps_of(info)]
    projected = [
        F.interpolate(
            projection(x.movedim(1, -1)).movedim(-1, 1), maps[0].shape[2:], mode="bilinear", align_corners=False
        )
        for projection, x in zip(head.projections, maps)
    ]
    expected = head.classifier(head.norm(head.fuse(torch.cat(projected[::-1], dim=1))).relu())
    torch.testing.assert_close(head(maps), expected, rtol=1e-12, atol=1e-12)


def test_a_probe_reads_the_level_it_is_told():
    info = PYRAMIDS["four"]
    assert LinearProbe(info, 5, level=1)(maps_of(info)).shape == (2, 5, 12, 9)
    with pytest.raises(QuintetError, match="level is 4, but this backbone has the maps 0 to 3"):
        LinearProbe(info, 5, level=4)


def test_enlarging_to_the_same_size_is_nothing():
    x = torch.randn(1, 2, 3, 4)
    assert enlarge(x, torch.zeros(1, 1, 3, 4)) is x


@pytest.mark.parametrize(("grid", "size"), [((6, 8), (45, 60)), ((5, 7), (5, 14)), ((1, 1), (3, 2)), ((9, 9), (4, 5))])
def test_enlarging_for_training_is_bilinear_and_so_is_its_gradient(grid, size):
    """On the CPU training multiplies matrices; torch's own interpolation is the reference."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, *grid, dtype=torch.float64, generator=generator, requires_grad=True)
    weights = torch.randn(2, 3, *size, dtype=torch.float64, generator=generator)
    expected = torch.nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
    found = enlarge(x, weights)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (found, expected)]
    assert torch.allclose(*gradients, rtol=0, atol=1e-12)
    with torch.no_grad():
        assert torch.equal(enlarge(x.detach(), weights), expected)
