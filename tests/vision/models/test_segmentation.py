"""Networks that segment: pyramids over backbones of one stride, and scores at the size of the images."""

import pytest
import torch
from torch import nn

from quintet.vision.models import (
    NeighborhoodAttentionTransformer,
    SegFormerHead,
    SegmentationNetwork,
    VisionTransformer,
)
from quintet.vision.models.segmentation import FeaturePyramid, with_pyramid


class Maps(nn.Module):
    """A backbone that only has maps, of given strides and 16 channels."""

    def __init__(self, *strides):
        super().__init__()
        self.feature_info = [(16, stride) for stride in strides]
        self.layers = nn.ModuleList(nn.Conv2d(3, 16, 1) for _ in strides)

    def feature_maps(self, images):
        maps = [layer(images)[..., ::stride, ::stride] for layer, (_, stride) in zip(self.layers, self.feature_info)]
        return [x.contiguous() for x in maps]

    def layer_groups(self):
        return [["layers.0"], ["layers.1"]]


@pytest.mark.parametrize("strides", [(16,), (16, 16, 16), (2, 4, 8, 16, 32), (16, 32, 64), (14,), (8, 16)])
@pytest.mark.parametrize("size", [(288, 352), (97, 131)])
def test_every_backbone_gets_strides_4_to_32(strides, size):
    pyramid = FeaturePyramid(Maps(*strides))
    maps = pyramid.feature_maps(torch.randn(2, 3, *size))
    assert [stride for _, stride in pyramid.feature_info] == [4, 8, 16, 32]
    expected = [
        (2, channels, -(-size[0] // stride), -(-size[1] // stride)) for channels, stride in pyramid.feature_info
    ]
    assert [tuple(x.shape) for x in maps] == expected


def test_a_stride_the_backbone_has_is_its_last_map_of_it():
    backbone = Maps(16, 16)
    pyramid = FeaturePyramid(backbone)
    images = torch.randn(1, 3, 64, 80)
    torch.testing.assert_close(pyramid.feature_maps(images)[2], backbone.feature_maps(images)[1])


def test_a_coarser_map_is_the_mean_of_what_there_is():
    backbone = Maps(16)
    images = torch.randn(1, 3, 80, 64)
    (map_16,) = backbone.feature_maps(images)
    map_32 = FeaturePyramid(backbone).feature_maps(images)[3]
    assert map_32.shape[-2:] == (3, 2)
    torch.testing.assert_close(map_32[0, :, 0, 0], map_16[0, :, :2, :2].mean((1, 2)))
    torch.testing.assert_close(map_32[0, :, 2, 0], map_16[0, :, 4, :2].mean(1))


def test_a_pyramid_only_where_one_is_needed():
    plain = with_pyramid(VisionTransformer(num_classes=0, dim=32, depth=1, image_size=32, patch_size=16))
    assert isinstance(plain, FeaturePyramid)
    assert plain.layer_groups()[0][0] == "backbone.patch_embedding"
    staged = NeighborhoodAttentionTransformer(num_classes=0, dim=32, depths=(1, 1), kernel_size=3, stem_stride=1)
    assert with_pyramid(staged) is staged


@pytest.mark.parametrize("size", [(32, 40), (33, 47)])
def test_scores_have_the_size_of_the_images(size):
    backbone = with_pyramid(VisionTransformer(num_classes=0, dim=32, depth=1, image_size=32, patch_size=8))
    network = SegmentationNetwork(backbone, SegFormerHead(backbone.feature_info, 6, dim=8))
    assert network(torch.randn(2, 3, *size)).shape == (2, 6, *size)
    assert set(network.head_keys) <= {name for name, _ in network.named_parameters()}
