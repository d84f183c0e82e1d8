"""Damages files of every format at random, 300 times each: they are read right or refused, and nothing else happens.

    pytest -m slow tests/trials/test_fuzz_images.py -s      # prints the table of docs/reliability.md

Each format is read in a process of its own, so that a signal shows; a read that takes longer than `LONGEST` is a hang.
"""

import io
import json
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow
NUMBER, LONGEST = 300, 20  # files a format, seconds a file

READER = """
import faulthandler, json, os, sys, tempfile
from pathlib import Path
os.environ["QUINTET_CACHE"] = tempfile.mkdtemp()
from quintet.core.errors import QuintetError
from quintet.vision.data import ImageFolder, MaskFolder
from quintet.vision.data.images import ImageDescription, load_image
from quintet.vision.data.masks import read_mask
from quintet.vision.data.scan import facts_of
from quintet.vision.data.sources import find_labelled
from quintet.vision.data.mask_sources import find_masks

def read(path):
    if path.name.startswith("list"):
        return len(find_labelled(path).entries)
    if path.name.startswith("coco"):
        listing = find_masks(path)
        for entry in listing.entries:
            read_mask(entry.mask)
        return len(listing.entries)
    found = facts_of(path)
    if isinstance(found, str):
        raise QuintetError(found)
    for channels in (1, 3):
        depth = 8 if found.brightest is None else 16
        known = ImageDescription(["a", "b"], channels, [8, 8], [0.5] * channels, [0.5] * channels, [1, 1], depth)
        known.span = found.span and list(found.span)
        try:
            load_image(path, known)
        except QuintetError:
            pass
    try:
        read_mask(path)
        read_mask(path, threshold=128)
    except QuintetError:
        pass
    return found.digest

for path in sorted(Path(sys.argv[1]).iterdir()):
    if path.is_dir():
        continue
    faulthandler.dump_traceback_later(int(sys.argv[2]), exit=True)
    try:
        read(path)
        result = "read"
    except QuintetError as error:
        result = "refused" if str(error).count("\\n") < 2 else "long message"
    except BaseException as error:
        result = f"raised {type(error).__name__}: {error}"
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps([path.name, result]), flush=True)
"""


def picture(seed=0, bands=3):
    rows, columns = np.mgrid[:48, :64]
    noise = np.random.default_rng(seed).integers(0, 40, (48, 64, bands))
    return (3 * rows[..., None] + columns[..., None] + noise).clip(0, 255).astype(np.uint8)


def saved(mode="RGB", **arguments):
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture()).convert(mode).save(file, exif=exif, **arguments)
    return file.getvalue()


def several_frames(kind):
    file = io.BytesIO()
    frames = [Image.fromarray(picture(seed)) for seed in range(3)]
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    return file.getvalue()


def png_of_16_bits():
    values = picture().astype(">u2") * 257
    header = struct.pack(">IIBBBBB", 64, 48, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(values, **arguments):
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(file, values, **arguments)
    return file.getvalue()


def array():
    file = io.BytesIO()
    np.save(file, picture().astype(np.float32))
    return file.getvalue()


def coco():
    images = [{"id": number, "file_name": f"{number}.png", "width": 64, "height": 48} for number in range(4)]
    square, runs = [4, 4, 30, 4, 30, 20, 4, 20], {"size": [48, 64], "counts": [100, 40, 2932]}
    annotations = [
        {"id": place, "image_id": place % 4, "category_id": 1 + place % 2, "segmentation": [square], "iscrowd": 0}
        for place in range(6)
    ]
    annotations += [{"id": 9, "image_id": 1, "category_id": 2, "segmentation": runs, "iscrowd": 1}]
    text = {"size": [48, 64], "counts": "T3X1k\\2"}
    annotations += [{"id": 10, "image_id": 2, "category_id": 2, "segmentation": text, "iscrowd": 1}]
    categories = [{"id": 1, "name": "ant"}, {"id": 2, "name": "bee"}]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories}).encode()


def table():
    rows = [f'images/{number % 4}.png,"{"ant" if number % 2 else "bee"}",train,{number}' for number in range(12)]
    return "\n".join(["path,label,split,group", *rows, ""]).encode()


FORMATS = {
    "PNG": ("png", lambda: saved(format="PNG")),
    "PNG, palette": ("png", lambda: saved("P", format="PNG")),
    "PNG, 16 bits gray": ("png", lambda: deep_gray()),
    "PNG, 16 bits colour": ("png", png_of_16_bits),
    "JPEG": ("jpg", lambda: saved(format="JPEG")),
    "TIFF": ("tif", lambda: saved(format="TIFF", compression="tiff_lzw")),
    "TIFF, five bands": ("tif", lambda: tiff(picture(bands=5), planarconfig="contig", photometric="minisblack")),
    "TIFF, 16 bits, deflate": (
        "tif",
        lambda: tiff(picture().astype(np.uint16) * 257, photometric="rgb", compression="zlib", predictor=True),
    ),
    "WebP": ("webp", lambda: saved(format="WEBP")),
    "GIF, frames": ("gif", lambda: several_frames("GIF")),
    "BMP": ("bmp", lambda: saved(format="BMP")),
    "NumPy": ("npy", array),
    "COCO": ("json", coco),
    "CSV": ("csv", table),
}


def deep_gray():
    file = io.BytesIO()
    Image.fromarray(picture(bands=1)[..., 0].astype(np.uint16) * 257).save(file, "PNG")
    return file.getvalue()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def mutated(content, draw, suffix):
    """Some bytes changed, cut out, doubled or put in, or the end missing; numbers and brackets of texts too."""
    content = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        place, kind = draw.randrange(len(content)), draw.random()
        length = draw.randrange(1, 30)
        if kind < 0.4:
            content[place] = draw.randrange(256)
        elif kind < 0.5:
            content[place] ^= 1 << draw.randrange(8)
        elif kind < 0.6:
            del content[place : place + length]
        elif kind < 0.7:
            content[place:place] = content[draw.randrange(len(content)) :][:length]
        elif kind < 0.8:
            content[place : place + 4] = draw.choice(
                (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\1\0\0")
            )
        elif kind < 0.95 and suffix in ("json", "csv"):
            words = (
                b"1e9",
                b"-1",
                b"null",
                b"[",
                b"]",
                b"{}",
                b"1e300",
                b'"',
                b",",
                b"99999999999999999999",
                b"\n",
                b"NaN",
            )
            content[place : place + draw.randrange(4)] = draw.choice(words)
        elif kind > 0.97:
            del content[max(1, place) :]
        content = content or bytearray(b"\0")
    # Every other PNG gets right checksums, so that its decoder sees the damage.
    if suffix == "png" and draw.random() < 0.5:
        mended, place = bytes(content[:8]), 8
        while place + 8 <= len(content):
            length, kind = struct.unpack(">I4s", content[place : place + 8])
            mended += chunk(kind, bytes(content[place + 8 : place + 8 + length]))
            place += 12 + length
        return mended
    return bytes(content)


@pytest.fixture(scope="module")
def counts():
    rows: dict[str, dict[str, int]] = {}
    yield rows
    print("\n\n| format | read | refused | anything else |\n|---|---|---|---|")
    for name, found in rows.items():
        print(f"| {name} | {found['read']} | {found['refused']} | {found['else']} |")


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files(tmp_path, name, counts):
    suffix, make = FORMATS[name]
    draw = random.Random(name)
    original = make()
    for number in range(4):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(picture(number)).save(tmp_path / "images" / f"{number}.png")
    prefix = {"json": "coco", "csv": "list"}.get(suffix, "image")
    (tmp_path / f"{prefix}_000.{suffix}").write_bytes(original)
    for number in range(1, NUMBER + 1):
        (tmp_path / f"{prefix}_{number:03}.{suffix}").write_bytes(mutated(original, draw, suffix))
    command = [sys.executable, "-W", "ignore", "-c", READER, str(tmp_path), str(LONGEST)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    results = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    others = {path: result for path, result in results.items() if result not in ("read", "refused")}
    missing = NUMBER + 1 - len(results)
    found = list(results.values())
    counts[name] = {"read": found.count("read") - 1, "refused": found.count("refused"), "else": len(others) + missing}
    assert results[f"{prefix}_000.{suffix}"] == "read"
    assert not others
    assert done.returncode == 0, f"{done.returncode} after {max(results)}: {done.stderr[-800:]}"
    assert not missing
    left = {Path(path).name for path in tmp_path.iterdir()} - {*results, "images"}
    assert not left
