"""What is exported of tasks on images: resizing as in evaluation, any size of image, and the graphs themselves."""

import functools
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from quintet.core.learning.task import RECORD
from quintet.core.position.resampling import CUBIC, LINEAR
from quintet.core.run.export import traced, verified
from quintet.vision import ImageClassifier, SemanticSegmenter
from quintet.vision.data.images import ImageDescription
from quintet.vision.data.masks import MaskDescription, MaskSample
from quintet.vision.data.transforms import ResizeTo
from quintet.vision.models import NeighborhoodAttentionTransformer, VisionTransformer
from quintet.vision.tasks.deployment import fitted

SMALL_NAT = {"dim": 32, "depths": [1, 1], "kernel_size": 3, "stem_stride": 1}
NAT = functools.partial(NeighborhoodAttentionTransformer, **SMALL_NAT)
VIT = functools.partial(VisionTransformer, image_size=8, patch_size=4, dim=32, depth=1)
SMALL = {"dims": [8, 16], "depths": [1, 1], "num_heads": [1, 1], "reductions": [2, 1]}


def classifier(backbone, arguments=None, size=(8, 12)) -> ImageClassifier:
    torch.manual_seed(0)
    task = ImageClassifier(backbone, arguments)
    task.adopt(ImageDescription(["a", "b", "c"], 3, [*size], [0.5, 0.4, 0.3], [0.2, 0.3, 0.2], [1, 1, 1]))
    return task.eval()


def segmenter(fit: str = "stretch") -> SemanticSegmenter:
    torch.manual_seed(0)
    task = SemanticSegmenter("mit_b0", SMALL)
    known = {"fit": fit, "ids": [0, 7], "palette": [[0, 0, 0], [255, 0, 0]]}
    task.adopt(MaskDescription(["ground", "thing"], 3, [32, 40], [0.5, 0.4, 0.3], [0.2, 0.3, 0.2], [1, 1], **known))
    return task.eval()


def picture(height: int, width: int) -> Image.Image:
    rows, columns = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(-20, 20, (height, width, 3))
    waves = 127 + 90 * (np.sin(rows / 7) * np.cos(columns / 6))[..., None]
    return Image.fromarray((waves + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(37, 61), (90, 41), (9, 13), (24, 32), (20, 10)])
def test_images_are_brought_to_their_size_as_pillow_does(fit, size):
    """Pillow rounds to 8 bits after each axis."""
    image = picture(*size)
    expected = transforms.pil_to_tensor(ResizeTo([24, 32], fit)(image)).float() / 255
    found = fitted(transforms.pil_to_tensor(image)[None].float() / 255, (24, 32), fit, CUBIC)[0].clamp(0, 1)
    assert (found - expected).abs().max() < 2.5 / 255
    assert (found - expected).abs().mean() < 0.5 / 255


def test_images_of_a_segmenter_are_resized_as_torchvision_does():
    image = torch.rand(1, 3, 50, 29)
    expected = torch.nn.functional.interpolate(image, (24, 32), mode="bilinear", antialias=True)
    torch.testing.assert_close(fitted(image, (24, 32), "stretch", LINEAR), expected, rtol=0, atol=1e-5)


def test_a_classifier_gives_what_it_predicts():
    """From the pixels of a file, through the data module's own transform, and through what is exported."""
    from quintet.vision.data.transforms import evaluation

    task, image = classifier(NAT), picture(40, 31)
    known = task.description
    (found,) = task.deployable().module(transforms.pil_to_tensor(image)[None].float() / 255)
    expected = task.probabilities(evaluation(known.image_size, known.mean, known.std)(image)[None])
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)
    assert found.sum().item() == pytest.approx(1, abs=1e-5)


def test_a_segmenter_gives_the_mask_it_predicts_at_the_size_of_the_image():
    task, image = segmenter(), torch.rand(1, 3, 45, 61)
    probabilities, classes = task.deployable().module(image)
    known = task.description
    small = torch.nn.functional.interpolate(image, (32, 40), mode="bilinear", antialias=True)
    seen = (small - torch.tensor(known.mean)[:, None, None]) / torch.tensor(known.std)[:, None, None]
    (expected, _), *_ = task.segmented(MaskSample(seen, None, ["x"], [(45, 61)]), task.probabilities)
    assert probabilities.shape == (1, 2, 45, 61)
    assert (classes[0] == expected).float().mean() > 0.999


def test_what_the_file_says_of_itself():
    about = segmenter().deployable().about
    assert about["classes"] == ["ground", "thing"]
    assert about["ids"] == [0, 7]
    assert about["palette"][1] == [255, 0, 0]
    assert about["inputs"] == {"images": "float32 (batch, 3, height, width) in [0, 1]"}


# Graphs: tracing and run-time shape checks do not go together


@pytest.mark.compilation
@pytest.mark.parametrize(
    ("backbone", "options", "free", "note"),
    [
        (NAT, {}, True, ""),
        (NAT, {"resize": False}, False, "NeighborhoodAttention is planned for one size of grid"),
        (VIT, {"resize": False}, True, ""),
        ("timm:resnet10t", {"resize": False}, True, ""),
    ],
    ids=["nat", "nat at its own size", "vit at its own size", "timm at its own size"],
)
def test_a_classifier_is_traced_for_any_size_it_can_take(backbone, options, free, note):
    deployable = classifier(backbone, size=(64, 72) if backbone == "timm:resnet10t" else (8, 12)).deployable(**options)
    program, remark = traced(deployable)
    assert remark == ""
    assert note in deployable.note
    assert (set(deployable.axes["images"]) == {0, 2, 3}) == free
    module = program.module()
    checks = verified(deployable, lambda inputs: list(module(*inputs)))
    assert len({shapes.split(" x ", 1)[1] for shapes, _ in checks}) == 1 + free
    assert max(error for _, error in checks) < 1e-5


@pytest.mark.compilation
@pytest.mark.parametrize("fit", ["stretch", "window"])
def test_a_segmenter_is_traced_for_any_size(fit):
    deployable = segmenter(fit).deployable()
    assert ("without sliding a window" in deployable.note) == (fit == "window")
    module = traced(deployable)[0].module()
    assert verified(deployable, lambda inputs: list(module(*inputs)))
    found = module(torch.rand(1, 3, 33, 70))
    assert [tuple(part.shape) for part in found] == [(1, 2, 33, 70), (1, 33, 70)]


ONNX = """
import sys, torch
from quintet.core.run.export import export_checkpoint
for line in export_checkpoint(sys.argv[1], {"format": "onnx", "output": sys.argv[2]}):
    print(line)
"""


@pytest.mark.peers
@pytest.mark.parametrize("make", [lambda: classifier("nat_mini", SMALL_NAT), segmenter], ids=["nat", "segformer"])
def test_onnx_of_tasks_on_images(make, tmp_path):
    """In a process of its own, without run-time shape checks."""
    onnxruntime = pytest.importorskip("onnxruntime")
    task = make()
    torch.save({RECORD: task.record(), "state_dict": task.state_dict()}, tmp_path / "model.ckpt")
    command = [sys.executable, "-c", ONNX, str(tmp_path / "model.ckpt"), str(tmp_path / "model.onnx")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("verified: images") == 3
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    images = torch.rand(1, 3, 21, 50)
    found = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        expected = task.deployable().module(images)
    torch.testing.assert_close(torch.from_numpy(found[0]), expected[0], rtol=1e-4, atol=1e-5)
    about = json.loads(session.get_modelmeta().custom_metadata_map["quintet"])
    assert about["classes"] == task.description.classes
