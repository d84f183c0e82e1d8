"""Checkpoints of each task that earlier code wrote, in tests/checkpoints: they load and predict what they did then.

`numbers.safetensors` holds, for each file, what the task was given (`NAME.input.0`, ...) and what it gave then
(`NAME.output`). Files are added when something about checkpoints changes; none is ever written anew.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from quintet.core.learning.task import load_task

FOLDER = Path(__file__).parent / "checkpoints"
NUMBERS = load_file(FOLDER / "numbers.safetensors")
FILES = sorted(path for path in FOLDER.iterdir() if path.suffix != ".txt" and path.stem != "numbers")


def test_every_task_is_among_them():
    tasks = {type(load_task(path)).__name__ for path in FILES}
    assert tasks >= {"ImageClassifier", "SemanticSegmenter", "FeatureExtractor", "Forecaster", "Imputer"}
    assert tasks >= {"AnomalyDetector", "SeriesClassifier", "Disaggregator"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_checkpoint_of_earlier_code_predicts_what_it_did(path):
    inputs = [NUMBERS[name] for name in sorted(NUMBERS) if name.startswith(f"{path.name}.input.")]
    with torch.no_grad():
        found = load_task(path)(*inputs)
    expected = NUMBERS[f"{path.name}.output"]
    assert (found - expected).norm() <= 1e-5 * expected.norm()
