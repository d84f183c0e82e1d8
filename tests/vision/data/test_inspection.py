"""Faults planted among masks and among photographs: each is found, by name, before training."""

import numpy as np
import pytest
from PIL import Image

from quintet.cli import main
from quintet.vision.data import ImageFolder, MaskFolder


def scene(seed: int, size=(64, 48)) -> Image.Image:
    """A smooth picture that no other one resembles."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def stripes(values, size=(64, 48), seed=0) -> Image.Image:
    columns = np.array(values)[(np.arange(size[0]) + seed) * len(values) // size[0] % len(values)]
    return Image.fromarray(np.broadcast_to(columns, (size[1], size[0])).astype(np.uint8))


@pytest.fixture
def masks(tmp_path):
    """images/ and masks/ with train/ and val/, of the classes 0 and 1, and one fault of every kind."""
    root = tmp_path / "scenes"

    def add(name, image=None, mask=None, part="train"):
        for kind, content in (("images", image), ("masks", mask)):
            path = root / kind / part / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            elif content is not None:
                content.save(path)

    for number in range(8):
        add(f"{number:02}", scene(number), stripes([0, 1], seed=number))
    for number in range(20, 23):
        add(f"{number:02}", scene(number), stripes([0, 1], seed=number), "val")
    add("half_binary", scene(30), stripes([0, 255]))
    add("unseen", scene(31), stripes([0, 1, 7]), "val")
    add("other_size", scene(32), stripes([0, 1], size=(60, 48)))
    add("truncated", (root / "images/train/00.png").read_bytes()[:300], stripes([0, 1]))
    add("empty", b"", stripes([0, 1]))
    add("no_mask", scene(33))
    add("no_image", None, stripes([0, 1]))
    add("huge", scene(34, size=(640, 480)), stripes([0, 1], size=(640, 480)))
    add("copied", (root / "images/train/03.png").read_bytes(), stripes([0, 1], seed=3), "val")
    add("resaved", scene(4).resize((60, 45)).resize((64, 48)), stripes([0, 1], seed=4), "val")
    coloured = Image.fromarray(np.random.default_rng(0).integers(0, 9, (48, 64, 3)).astype(np.uint8))
    add("coloured", scene(35), coloured)
    soft = Image.fromarray(np.linspace(0, 255, 64).round().astype(np.uint8)[None].repeat(48, 0))
    hard = np.asarray(soft).copy()
    hard[:30] = 255
    hard[30:40] = 0
    add("soft", scene(36), Image.fromarray(hard))
    return root


PLANTED_IN_MASKS = {
    "half_binary": "holds 0 and 255 while others hold 0 and 1",
    "unseen": "holds the id 7, which no training mask holds",
    "other_size": "is 60 x 48, its image",
    "truncated": "is truncated",
    "empty": "is empty (0 bytes)",
    "no_mask": "has no mask of its name",
    "no_image": "has no image of its name",
    "coloured": "holds colours and no palette",
    "soft": "values between black and white",
}
REMARKED_IN_MASKS = {
    "copied": "1 file stands in two parts (leakage)",
    "resaved": "1 image stands in two parts in nearly the same form (leakage)",
    "huge": "1 image has far more or fewer pixels than the others",
}


def test_every_fault_planted_among_masks_is_found(masks):
    found = MaskFolder(masks, num_workers=0).examination
    for name, what in PLANTED_IN_MASKS.items():
        matching = [fault for fault in found.faults if name in fault.where]
        assert len(matching) == 1, (name, found.faults)
        assert what in matching[0].what
        assert matching[0].remedy
    assert len(found.faults) == len(PLANTED_IN_MASKS)
    for name, what in REMARKED_IN_MASKS.items():
        assert [remark for remark in found.remarks if what in remark and name in remark], (name, found.remarks)


@pytest.fixture
def photographs(tmp_path):
    """train/, val/ and test/ of cats and dogs, and one fault of every kind."""
    root = tmp_path / "pets"

    def add(place, content):
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content) if isinstance(content, bytes) else content.save(path)

    for index, part in enumerate(("train", "val", "test")):
        for kind, label in enumerate(("cat", "dog")):
            for number in range(4):
                add(f"{part}/{label}/{number}.png", scene(100 * index + 10 * kind + number))
    add("test/horse/0.png", scene(900))
    add("train/cat/truncated.png", (root / "train/cat/0.png").read_bytes()[:200])
    add("train/cat/empty.png", b"")
    add("val/dog/text.jpg", b"no picture at all")
    np.save(root / "train/dog/fractions.npy", np.full((8, 8), np.nan, np.float32))
    add("val/cat/copied.png", (root / "train/cat/1.png").read_bytes())
    scene(2).save(root / "test/cat/resaved.jpg", quality=70)
    add("train/dog/tiny.png", scene(901).resize((8, 6)))
    (root / "train/bird").mkdir()
    return root


PLANTED_IN_PHOTOGRAPHS = {
    "test/horse/0.png": "has the label 'horse', which train does not know",
    "truncated": "is truncated",
    "empty": "is empty (0 bytes)",
    "text": "is not an image Pillow knows",
    "fractions": "values that are not finite",
    "train/bird": "is a class folder without images",
}
REMARKED_IN_PHOTOGRAPHS = {
    "copied": "1 file stands in two parts (leakage)",
    "resaved": "1 image stands in two parts in nearly the same form (leakage)",
    "tiny": "1 image has far more or fewer pixels than the others",
}


def test_every_fault_planted_among_photographs_is_found(photographs):
    found = ImageFolder(photographs, num_workers=0).examination
    for name, what in PLANTED_IN_PHOTOGRAPHS.items():
        matching = [fault for fault in found.faults if name in fault.where]
        assert len(matching) == 1, (name, found.faults)
        assert what in matching[0].what
    assert len(found.faults) == len(PLANTED_IN_PHOTOGRAPHS)
    for name, what in REMARKED_IN_PHOTOGRAPHS.items():
        assert [remark for remark in found.remarks if what in remark and name in remark], (name, found.remarks)


def test_the_command_names_them_and_writes_a_sheet_once(masks, photographs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "500")  # names are not folded
    assert main(["inspect", str(masks)]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert f"{len(PLANTED_IN_MASKS)} faults" in said
    assert all(name in said for name in (*PLANTED_IN_MASKS, *REMARKED_IN_MASKS))
    assert "wrote inspect/scenes/contact_sheet.png" in said
    with Image.open(tmp_path / "inspect/scenes/contact_sheet.png") as sheet:
        assert min(sheet.size) > 300
    # A second look has a folder of its own.
    assert main(["inspect", str(masks)]) == 1
    assert (tmp_path / "inspect/scenes_2/contact_sheet.png").is_file()
    assert main(["inspect", str(photographs), "output=here"]) == 1
    assert (tmp_path / "here/contact_sheet.png").is_file()
    assert main(["inspect", str(photographs), "output=here"]) == 1
    assert "exists and is not overwritten" in capsys.readouterr().err


def test_a_clean_folder_has_no_faults_and_a_sheet(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number in range(10):
        for kind, content in (("images", scene(number)), ("masks", stripes([0, 1, 2], seed=number))):
            (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
            content.save(tmp_path / "data" / kind / f"{number}.png")
    assert main(["inspect", "data"]) == 0
    assert "no faults found" in capsys.readouterr().out
    assert (tmp_path / "inspect/data/contact_sheet.png").is_file()
