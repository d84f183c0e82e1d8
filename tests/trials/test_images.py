"""Photographs and lists of them as people have them, damaged or hostile: read right, or refused with a reason."""

import csv
import io
import os
import random
import socket
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from quintet.cli import main
from quintet.core.errors import QuintetError
from quintet.vision import ImageClassifier, ImageFolder, MaskFolder
from quintet.vision.data.bands import read_bands
from quintet.vision.data.images import ImageDescription, read_image
from quintet.vision.data.masks import read_mask
from quintet.vision.data.scan import facts_of
from quintet.vision.tasks import features
from quintet.vision.tasks.classification import ImagePredictions


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("QUINTET_CACHE", str(folder))
    return folder


def photograph(path, seed=0, size=(20, 16), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(60, 190, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    return path


def photographs(root, classes=("ant", "bee"), count=8, name="{}.jpg"):
    for place, label in enumerate(classes):
        for number in range(count):
            photograph(root / label / name.format(number), 100 * place + number)
    return root


def folder(root, **arguments) -> ImageFolder:
    return ImageFolder(root, **{"image_size": 16, "batch_size": 4, "num_workers": 0, **arguments})


def refused(data, stage="fit") -> str:
    with pytest.raises(QuintetError) as caught:
        data.setup(stage)
    assert str(caught.value).count("\n") <= 1
    assert len(str(caught.value)) < 600
    return str(caught.value)


# Files that are none, and files that lie


def special(kind, path):
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(path.parent)  # names of sockets are short
        try:
            with socket.socket(socket.AF_UNIX) as end:
                end.bind(path.name)
        finally:
            os.chdir(here)
    elif kind == "endless device":
        path.symlink_to("/dev/zero")
    elif kind == "link to nothing":
        path.symlink_to(path.parent / "gone")
    elif kind == "link to itself":
        path.symlink_to(path)


@pytest.mark.parametrize("kind", ["pipe", "socket", "endless device", "link to nothing", "link to itself"])
def test_special_files_are_refused_and_can_be_left_out(tmp_path, kind):
    root = photographs(tmp_path / "photos")
    special(kind, root / "ant" / "z.jpg")
    message = refused(folder(root))
    assert message.startswith("ant/z.jpg ")
    assert (
        "does not exist" in message if "nothing" in kind else "is no file but" in message or "cannot be read" in message
    )
    data = folder(root, on_error="skip")
    assert sum(map(len, data.examination.parts.values())) == 16
    later = folder(root)
    later.adopt(data.description())
    assert "ant/z.jpg" in refused(later, "predict")


@pytest.mark.parametrize("where", ["images", "masks"])
def test_pipes_among_masks(tmp_path, where):
    for number in range(4):
        photograph(tmp_path / "images" / f"{number}.jpg", number)
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.eye(16, 20, number, np.uint8)).save(tmp_path / "masks" / f"{number}.png")
    ending = "jpg" if where == "images" else "png"
    (tmp_path / where / f"2.{ending}").unlink()
    os.mkfifo(tmp_path / where / f"2.{ending}")
    assert "is no file but" in refused(MaskFolder(tmp_path, image_size=16, num_workers=0))


@pytest.mark.parametrize("name", ["classes.txt", "labels.json", "list.csv"])
def test_pipes_of_other_names(tmp_path, name):
    for number in range(4):
        photograph(tmp_path / "images" / f"{number}.jpg", number)
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.eye(16, 20, number, np.uint8)).save(tmp_path / "masks" / f"{number}.png")
    os.mkfifo(tmp_path / name)
    data = MaskFolder(tmp_path / name if name == "list.csv" else tmp_path, image_size=16, num_workers=0)
    if name == "labels.json":
        data.setup("fit")  # annotations are not looked for where there are masks
    else:
        with pytest.raises(QuintetError):
            data.setup("fit")


POSTSCRIPT = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
(touched) (w) file closefile
showpage
%%EOF
"""


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_postscript_called_an_image_is_not_run(tmp_path, monkeypatch, name):
    """Pillow opens files by their content and hands PostScript to another program."""
    monkeypatch.setattr(subprocess, "Popen", None)
    (tmp_path / name).write_bytes(POSTSCRIPT)
    assert facts_of(tmp_path / name) == "is not an image Pillow knows"
    with pytest.raises(QuintetError, match="is not an image Pillow knows"):
        read_mask(tmp_path / name)
    with pytest.raises(QuintetError, match="is not an image Pillow knows"):
        read_image(tmp_path / name)


def test_a_file_that_is_larger_than_any_image(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2**40)
    assert facts_of(tmp_path / "a.png") == "is too large to be read (1,024 GiB)"


def test_files_of_the_system_are_not_waited_for(tmp_path):
    """Those have no size, and some give what comes as a pipe does."""
    (tmp_path / "a.png").symlink_to("/proc/self/status")
    assert facts_of(tmp_path / "a.png") == "is empty (0 bytes)"


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(values, rows=None, header=None):
    """A PNG of 16 bits in gray with alpha, colour, or colour with alpha."""
    height, width, bands = values.shape
    kind = {2: 4, 3: 2, 4: 6}[bands]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values) if rows is None else rows
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0) if header is None else header
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


VALUES = np.random.default_rng(0).integers(0, 65536, (9, 13, 4)).astype(np.uint16)


@pytest.mark.parametrize("bands", [2, 3, 4])
def test_png_of_16_bits_is_read_whole(bands):
    found = read_bands(png(VALUES[..., :bands]))
    assert (found.values == VALUES[..., :bands]).all()
    assert found.alpha == (bands in (2, 4))


def test_png_of_16_bits_is_read_upright():
    content = png(VALUES[..., :3])
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = content[:33] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + content[33:]
    assert (read_bands(turned).values == np.rot90(VALUES[..., :3], -1)).all()


BROKEN = {
    "rows are missing": png(VALUES[..., :3], rows=b"\0" * 40),
    "no rows": png(VALUES[..., :3], rows=b""),
    "huge": png(VALUES[..., :3], header=struct.pack(">IIBBBBB", 10**6, 10**6, 16, 2, 0, 0, 0)),
    "no width": png(VALUES[..., :3], header=struct.pack(">IIBBBBB", 0, 9, 16, 2, 0, 0, 0)),
    "another filter": png(VALUES[..., :3], rows=b"\x09" * (9 * 79)),
    "wrong checksum": png(VALUES[..., :3])[:-20] + b"\0" * 20,
    "cut": png(VALUES[..., :3])[:100],
    "cut in the header": png(VALUES[..., :3])[:30],
    "nothing but the beginning": png(VALUES[..., :3])[:26],
    "a chunk that is too long": png(VALUES[..., :3])[:33] + b"\xff\xff\xff\xffIDAT" + b"0" * 50,
}


@pytest.mark.parametrize("kind", BROKEN)
def test_damaged_png_of_16_bits(tmp_path, kind):
    (tmp_path / "a.png").write_bytes(BROKEN[kind])
    assert isinstance(facts_of(tmp_path / "a.png"), str)


def mutated(content, draw):
    """A file with some bytes changed, cut out, or put in, or its end missing; with right checksums every other time."""
    content = bytearray(content)
    for _ in range(draw.choice((1, 3, 10))):
        place, kind = draw.randrange(len(content)), draw.random()
        if kind < 0.7:
            content[place] = draw.randrange(256)
        elif kind < 0.8:
            del content[place : place + draw.randrange(1, 20)]
        elif kind < 0.9:
            content[place:place] = draw.randbytes(draw.randrange(1, 20))
        else:
            del content[max(place, 1) :]
        content = content or bytearray(b"\0")
    if draw.random() < 0.5:
        return bytes(content)
    mended, place = bytes(content[:8]), 8
    while place + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        mended += chunk(kind, bytes(content[place + 8 : place + 8 + length]))
        place += 12 + length
    return mended


READER = """
import sys
from pathlib import Path
from quintet.vision.data.scan import facts_of
for path in sorted(Path(sys.argv[1]).iterdir()):
    found = facts_of(path)
    print("fault" if isinstance(found, str) else f"{found.width}x{found.height}")
"""


def test_damage_does_not_end_the_process(tmp_path):
    draw = random.Random(0)
    for number in range(48):
        (tmp_path / f"{number:03}.png").write_bytes(mutated(png(VALUES[..., : 2 + number % 3]), draw))
    done = subprocess.run([sys.executable, "-c", READER, tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-500:]
    assert len(done.stdout.splitlines()) == 48
    assert done.stdout.splitlines().count("fault") > 30


def npy(header):
    text = header.encode()
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text


LIES = {
    "array larger than its file": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (100000, 100000)}\n"),
    "array of objects": npy("{'descr': '|O', 'fortran_order': False, 'shape': (3, 3)}\n") + b"cos\nsystem\n(S'x'\ntR.",
    "header that is code": npy("__import__('os').abort()\n"),
    "header that is deep": npy("(" * 5000 + "\n"),
    "negative shape": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-3, 3)}\n"),
}


@pytest.mark.parametrize("kind", LIES)
def test_arrays_that_lie(tmp_path, kind):
    (tmp_path / "a.npy").write_bytes(LIES[kind])
    assert "is no NumPy array of numbers" in facts_of(tmp_path / "a.npy")


def test_tiff_that_claims_more_than_it_holds(tmp_path):
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(file, VALUES[..., :3], photometric="rgb")
    content = bytearray(file.getvalue())
    with tifffile.TiffFile(io.BytesIO(file.getvalue())) as read:
        places = {tag.code: tag.valueoffset for tag in read.pages[0].tags}
    for code in (256, 257):
        content[places[code] : places[code] + 2] = struct.pack("<H", 65535)
    (tmp_path / "a.tif").write_bytes(content)
    assert "is said to be 65535 x 65535" in facts_of(tmp_path / "a.tif")
    content[places[257] : places[257] + 2] = struct.pack("<H", 2000)
    (tmp_path / "a.tif").write_bytes(content)
    assert isinstance(facts_of(tmp_path / "a.tif"), str)


# Lists


def listed(root, text, name="labels.csv"):
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root / name


ROWS = "".join(f"{label}/{number}.jpg,{label}\n" for label in ("ant", "bee") for number in range(8))

LISTS = {
    "a cell of 300,000 characters": ("path,label\n" + ROWS + "ant/1.jpg," + "x" * 300_000 + "\n", "row 18 is no row"),
    "a path of 5,000 characters": ("path,label\n" + ROWS + "x" * 5000 + ",ant\n", "which does not exist"),
    "a path of many folders": ("path,label\n" + ROWS + "x/" * 3000 + ",ant\n", "which does not exist"),
    "a path with a zero": ("path,label\n" + ROWS + "ant\0.jpg,ant\n", "labels.csv row 18"),
    "a quote without an end": ("path,label\n" + ROWS + '"ant/1.jpg,ant\n' + ROWS, "is no row of a CSV"),
    "two columns of one name": ("path,label,Label\n" + ROWS, "has two columns called label"),
    "two columns path": ("path,path,label\nant/1.jpg,bee/1.jpg,ant\n", "has two columns called path"),
    "a field too many": (
        "path,label\n" + ROWS + "ant/1.jpg,ant, the small one\n",
        "row 18 has 3 fields and the header 2",
    ),
    "Latin-1": (
        b"path,label\n" + ROWS.encode() + "ant/1.jpg,gr\xfcn\n".encode("latin-1"),
        "row 18 is not UTF-8",
    ),
    "UTF-16": (("path,label\n" + ROWS).encode("utf-16"), "row 1 is not UTF-8"),
    "nothing": ("", "has no column 'path'"),
    "a zero byte": (b"\0", "has no column"),
    "a header of 300,000 characters": ("path,label," + "x" * 300_000 + "\n", "is no row of a CSV"),
    "a folder for a path": ("path,label\n" + ROWS + "ant,ant\n", "names ant, which does not exist"),
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists(tmp_path, kind):
    root = photographs(tmp_path)
    text, complaint = LISTS[kind]
    assert complaint in refused(folder(listed(root, text)))


def test_lists_that_are_right(tmp_path):
    root = photographs(tmp_path)
    text = "\ufeffPath;Label;\r\n" + ROWS.replace(",", ";").replace("\n", ";\r\n") + "\r\n"
    data = folder(listed(root, text))
    assert data.faults() == []
    assert sum(map(len, data.examination.parts.values())) == 16
    quoted = "path,label\n" + "".join(
        f'"{row.split(",")[0]}","a ""quoted"", {row.split(",")[1]}"\n' for row in ROWS.split()
    )
    assert folder(listed(root, quoted)).description().classes == ['a "quoted", ant', 'a "quoted", bee']


@pytest.mark.parametrize("content", ["gr\xfcn\nrot\n".encode("latin-1"), b"\xff\xfea\0"])
def test_names_of_classes_that_are_not_utf_8(tmp_path, content):
    for number in range(4):
        photograph(tmp_path / "images" / f"{number}.jpg", number)
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.eye(16, 20, number, np.uint8)).save(tmp_path / "masks" / f"{number}.png")
    (tmp_path / "classes.txt").write_bytes(content)
    message = refused(MaskFolder(tmp_path, image_size=16, num_workers=0))
    assert message.endswith("classes.txt row 1 is not UTF-8 text; save it as UTF-8")


# Masks among photographs


@pytest.mark.parametrize(
    ("mask", "pattern"),
    [
        ("{}.png", "*.png"),
        ("{}_mask.jpg", "*_mask.*"),
        ("{}_mask.png", "*_mask.*"),
        ("{}-seg.gif", "*-seg.*"),
        ("masks/{}.jpg", "*masks/*"),
        ("annotations/{}.png", "*annotations/*"),
    ],
)
@pytest.mark.parametrize("number", [1, 8])
def test_a_photograph_and_its_mask(tmp_path, mask, pattern, number):
    name = "images/{}.jpg" if "/" in mask else "{}.jpg"
    root = photographs(tmp_path, name=name)
    for label in ("ant", "bee"):
        for place in range(number):
            photograph(root / label / mask.format(place), place, mode="L")
    data = folder(root)
    fault = data.faults()[0]
    assert "may be the mask of" in fault.what
    assert f"data.exclude='{pattern}'" in fault.remedy
    assert refused(data).startswith(fault.where)
    assert f"({2 * number} pairs like it)" in fault.what
    data = folder(root, exclude=pattern)
    assert data.faults() == []
    assert sum(map(len, data.examination.parts.values())) == 16
    assert all(path.match(name.format("*")) for path in data.examination.facts)
    assert any("leaves" in remark for remark in data.examination.remarks)
    both = folder(root, exclude=[])
    assert both.faults() == []
    assert sum(map(len, both.examination.parts.values())) == 16 + 2 * number


def test_folders_of_images_and_masks_are_no_two_classes(tmp_path):
    for number in range(6):
        photograph(tmp_path / "images" / f"{number}.jpg", number)
        photograph(tmp_path / "masks" / f"{number}.png", number, mode="L")
    assert "may be the mask of" in refused(folder(tmp_path))


@pytest.mark.parametrize("name", ["{}.png", "{}_mask.jpg"])
def test_photographs_of_another_size_are_no_masks(tmp_path, name):
    root = photographs(tmp_path)
    photograph(root / "ant" / name.format(1), 5, size=(30, 20))
    assert folder(root).faults() == []


def test_what_is_excluded_from_prediction_is_said(tmp_path, capsys):
    root = photographs(tmp_path)
    photograph(root / "ant" / "1.png")
    data = folder(root, exclude="*.png")
    later = folder(root, exclude="*.png")
    later.adopt(data.description())
    later.setup("predict")
    assert len(later.datasets["predict"]) == 16
    assert "data.exclude leaves 1 images out" in capsys.readouterr().out
    none = folder(root, exclude="*")
    none.adopt(data.description())
    assert "leaves no image" in refused(none, "predict")


def test_a_test_says_which_part_it_is_of(tmp_path, capsys):
    data = folder(photographs(tmp_path, count=28))
    data.setup("fit")
    assert capsys.readouterr().out == ""
    for stage, arguments in (("test", {}), ("validate", {})):
        later = folder(tmp_path, **arguments)
        later.adopt(data.description())
        later.setup(stage)
        assert f"on 8 of the 56 images of {tmp_path} (15% of each class, seed 0); data." in capsys.readouterr().out
    everything = folder(tmp_path, test_fraction=1.0, val_fraction=0.0)
    everything.adopt(data.description())
    everything.setup("test")
    assert len(everything.datasets["test"]) == 56
    assert capsys.readouterr().out == ""


# What is written, printed and remembered


def described(classes, several=False) -> ImageDescription:
    return ImageDescription(
        list(classes), 3, [8, 8], [0.5] * 3, [0.5] * 3, [1] * len(classes), multi_label=several, training_images=4
    )


@pytest.mark.parametrize("several", [False, True])
def test_predictions_hold_no_formulas(tmp_path, several):
    classes = ["=HYPERLINK(A1)", "@b"]
    task = ImageClassifier()
    task.description = described(classes, several)
    paths = ["=a.png", "-b.png", "/c,d.png"]
    found = ImagePredictions(paths, torch.tensor([[0.9, 0.8], [0.1, 0.9], [0.7, 0.2]]), torch.zeros(3, 3, 8, 8))
    table, _ = task.write_predictions([found], tmp_path)
    with table.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header[2:] == ["probability_=HYPERLINK(A1)", "probability_@b"]
    assert [row[0] for row in rows] == ["./=a.png", "./-b.png", "/c,d.png"]
    first = "'=HYPERLINK(A1)"
    expected = [f"{first};'@b", "'@b", first] if several else [first, "'@b", first]
    assert [row[1] for row in rows] == expected
    with pytest.raises(QuintetError, match="exists and is not overwritten"):
        task.write_predictions([found], tmp_path)


def test_names_of_classes_move_no_cursor(tmp_path, monkeypatch, capsys):
    root = photographs(tmp_path / "photos", ("ant", "bee\x1b[2J\x1b]0;title\x07", "c\u202eat"))
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", "photos"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b[2J" not in shown
    assert "\x07" not in shown
    assert "\u202e" not in shown
    assert "\\x1b[2J" in shown
    (root / "ant" / "x\x1b[31m.jpg").write_bytes(b"no image")
    assert main(["inspect", "photos"]) == 1
    assert "\x1b[31m" not in capsys.readouterr().out


def test_names_that_are_no_text(tmp_path, monkeypatch, capsys):
    """On Linux the name of a file is any bytes; these are no UTF-8, and in letters that take a picture for formulas."""
    root = photographs(tmp_path / "photos")
    for name in (b"\xff\xfe.jpg", b"$x^{.jpg", b"two\nlines.jpg"):
        os.rename(photograph(root / "ant" / "new.jpg", len(name)), os.fsencode(root / "ant") + b"/" + name)
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", "photos"]) == 0
    paths = [str(path) for path in folder(root).examination.facts]
    task = ImageClassifier()
    task.description = described(["ant", "bee"])
    found = ImagePredictions(paths, torch.full((len(paths), 2), 0.5), torch.zeros(3, 3, 8, 8))
    table, _ = task.write_predictions([found], tmp_path / "out")
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(paths) == 19
    assert any(row["path"].endswith("ant/\\udcff\\udcfe.jpg") for row in rows)
    vectors = features.ImageEmbeddings(paths, torch.zeros(len(paths), 4))
    assert features.write_embeddings([vectors], {}, tmp_path / "out").is_file()


def test_a_cache_on_a_full_disk_leaves_nothing(tmp_path, cache, monkeypatch):
    from pathlib import Path

    root = photographs(tmp_path)

    def full(self, text, *_, **__):
        with self.open("w") as file:
            file.write(text[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    data = folder(root)
    assert data.faults() == []
    assert [path for path in cache.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "content", ["[]", "{", "7", '{"version": 3}', '{"version": 3, "files": 7}', "[" * 100_000, "\xff"]
)
def test_a_damaged_cache_is_forgotten(tmp_path, cache, content):
    root = photographs(tmp_path)
    assert folder(root).faults() == []
    (file,) = (cache / "images").iterdir()
    file.write_text(content, encoding="latin-1")
    assert folder(root).faults() == []


def test_embeddings_are_written_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(features.pq.ParquetWriter, "write_table", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    found = features.ImageEmbeddings(["a.png"], torch.zeros(1, 4))
    with pytest.raises(QuintetError, match="cannot write"):
        features.write_embeddings([found], {}, tmp_path / "out")
    assert not list(tmp_path.rglob("*.parquet"))
