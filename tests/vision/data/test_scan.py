"""Files are looked into once, and what was found is remembered outside the user's folder."""

import os

import pytest

from quintet.vision.data import scan as scan_module
from quintet.vision.data.scan import ImageFacts, other_bands, scan


def decoded(monkeypatch) -> list:
    """Names of the files that are decoded from here on."""
    names, facts_of = [], scan_module.facts_of
    monkeypatch.setattr(scan_module, "facts_of", lambda path: names.append(path.name) or facts_of(path))
    return names


def test_facts_of_a_photograph(tmp_path, photograph):
    path = photograph(tmp_path / "a.jpg", size=(300, 200))
    facts, faults = scan([path], tmp_path)
    assert faults == []
    assert (facts[path].width, facts[path].height, facts[path].mode, facts[path].frames) == (300, 200, "RGB", 1)


def test_good_files_are_decoded_once(tmp_path, photograph, monkeypatch, cache):
    root = tmp_path / "photos"
    paths = [photograph(root / f"{name}.png", seed) for seed, name in enumerate("abc")]
    before = sorted(os.listdir(root))
    names = decoded(monkeypatch)
    first, _ = scan(paths, root)
    assert sorted(names) == ["a.png", "b.png", "c.png"]
    again, _ = scan(paths, root)
    assert len(names) == 3
    assert again == first
    assert sorted(os.listdir(root)) == before
    assert any(cache.rglob("*.json"))


def test_a_changed_file_is_decoded_again(tmp_path, photograph, monkeypatch):
    paths = [photograph(tmp_path / f"{name}.png", seed) for seed, name in enumerate("ab")]
    scan(paths, tmp_path)
    names = decoded(monkeypatch)
    paths[1].write_bytes(paths[1].read_bytes()[:-60])
    facts, faults = scan(paths, tmp_path)
    assert names == ["b.png"]
    assert list(facts) == [paths[0]]
    assert [(fault.where, fault.what) for fault in faults] == [("b.png", "is truncated")]


def test_a_damaged_memory_is_forgotten(tmp_path, photograph, cache):
    path = photograph(tmp_path / "a.png")
    first, _ = scan([path], tmp_path)
    for file in cache.rglob("*.json"):
        file.write_text("{")
    assert scan([path], tmp_path)[0] == first


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_cache_is_no_obstacle(tmp_path, photograph, cache):
    cache.chmod(0o500)
    path = photograph(tmp_path / "a.png")
    assert path in scan([path], tmp_path)[0]


def facts(width=10, height=10, **more) -> ImageFacts:
    return ImageFacts(**{"width": width, "height": height, "mode": "RGB", "digest": ""} | more)


@pytest.mark.parametrize(
    ("bands", "picture", "channels", "complaint"),
    [
        (1, True, 4, "has 1 band and data.channels is 4"),
        (4, True, 5, "has 4 bands and data.channels is 5"),
        (4, False, 3, "has 4 bands and data.channels is 3"),
        (4, False, 4, None),
        (4, True, 3, None),  # colours with transparency
        (1, True, 3, None),
        (3, True, 1, None),
    ],
)
def test_images_of_other_bands(tmp_path, bands, picture, channels, complaint):
    paths = [tmp_path / "a.tif", tmp_path / "b.tif"]
    found = {path: facts(bands=bands, picture=picture) for path in paths}
    faults = other_bands(found, channels, tmp_path)
    assert list(found) == ([] if complaint else paths)
    assert [(fault.where, fault.what) for fault in faults] == (
        [("a.tif", f"{complaint} (2 images like it)")] if complaint else []
    )
    assert all(f"data.channels={bands} data.normalization=data" in fault.remedy for fault in faults)
