"""Tables of what a folder of photographs holds, line by line."""

import io

import pytest
from rich.console import Console

from quintet.core.data.module import Fault
from quintet.vision.data import ImageFolder
from quintet.vision.data.report import facts_table, problems_table
from quintet.vision.data.scan import ImageFacts


def lines_of(table) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines() if line.strip()]


def facts(width, height, **more) -> ImageFacts:
    return ImageFacts(**{"width": width, "height": height, "mode": "RGB", "digest": ""} | more)


def test_sizes_and_modes_of_images():
    """The smallest and the largest by their pixels: 10 x 90 has fewer than 40 x 40, 20 x 100 has more."""
    images = [facts(40, 40), facts(10, 90), facts(20, 100, mode="L"), facts(41, 41), facts(39, 43)]
    assert lines_of(facts_table(images, (24, 32))) == [
        "width x height 39 x 43 in the middle, 10 x 90 to 20 x 100",
        "modes RGB 4, L 1",
        "network sees 32 x 24",
    ]
    deep = [facts(8, 8, brightest=900), facts(8, 8, brightest=4095), facts(8, 8)]
    assert lines_of(facts_table(deep, (8, 8)))[2] == "beyond 8 bits 2 images, values up to 4095"
    assert lines_of(facts_table([], (8, 8))) == []


def test_parts_and_classes_of_a_folder(tmp_path, photograph):
    for part, counts in (("train", {"a": 6, "b": 3}), ("val", {"a": 2})):
        for name, count in counts.items():
            for number in range(count):
                photograph(tmp_path / part / name / f"{number}.png", seed=100 * len(part) + 10 * ord(name) + number)
    lines = lines_of(ImageFolder(tmp_path, image_size=16, test_fraction=0.0, num_workers=0).table())
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert rows["train"][:5] == ["9", "2", "3", "to", "6"]
    assert rows["val"][:5] == ["2", "1", "2", "to", "2"]
    assert rows["a"] == ["6", "2", "0", 24 * "\u2588"] or rows["a"] == ["6", "2", 24 * "\u2588"]
    assert rows["b"][-1] == 9 * "\u2588"  # 3 of at most 8
    assert any(line.startswith("note val") and line.endswith("has no image of b") for line in lines)


@pytest.mark.parametrize("skipped", [True, False])
def test_problems(skipped):
    faults = [Fault(f"{number}.png", "is truncated", "save it again") for number in range(22)]
    lines = lines_of(problems_table(faults, ["a remark"], skipped))
    assert lines[0] == f"fault 0.png is truncated; {'left out' if skipped else 'save it again'}"
    assert lines[-2:] == ["fault and 2 more", "note a remark"]
    assert len(lines) == 22
    assert problems_table([], [], skipped) is None
