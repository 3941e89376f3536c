"""Folders and files as chance makes them, against a reader so slow and plain that one sees it is right.

500 folders: kinds of picture and mask, names and spellings, lists and their encodings, classes.json, files beside. `load_data` either gives the very pixels and classes that the plain reader gives, or both refuse;
`inspect_data` never raises, and finds a fault exactly where something was refused.
"""
import json
import shutil
import struct
import unicodedata
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pixcl_nb.images.data import load_data, ONLY_255
from pixcl_nb.images.inspection import inspect_data

HEIGHT, WIDTH = 2, 3
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
BAD = object()                                                    # what the plain reader refuses


# ---------------------------------------------------------------------------------------------- what is on disk

def exif_of(tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    return exif


# where the pixel that is shown at (y, x) lies in the stored (h, w) picture, from EXIF's own table
STORED = {1: lambda y, x, h, w: (y, x), 2: lambda y, x, h, w: (y, w - 1 - x), 3: lambda y, x, h, w: (h - 1 - y, w - 1 - x), 4: lambda y, x, h, w: (h - 1 - y, x),
          5: lambda y, x, h, w: (x, y), 6: lambda y, x, h, w: (h - 1 - x, y), 7: lambda y, x, h, w: (h - 1 - x, w - 1 - y), 8: lambda y, x, h, w: (x, w - 1 - y)}


def stored_for(shown, tag):
    "The stored array that a viewer shows as `shown`, pixel by pixel."
    h, w = shown.shape[:2] if tag < 5 else shown.shape[1::-1]
    stored = np.zeros((h, w, *shown.shape[2:]), shown.dtype)
    for y in range(shown.shape[0]):
        for x in range(shown.shape[1]): stored[STORED[tag](y, x, h, w)] = shown[y, x]
    return stored


def four_bits(path, ids):
    rows = b"".join(b"\0" + bytes((int(row[i]) << 4) | (int(row[i + 1]) if i + 1 < len(row) else 0) for i in range(0, len(row), 2)) for row in ids)
    block = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + block(b"IHDR", struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], 4, 0, 0, 0, 0)) + block(b"IDAT", zlib.compress(rows)) + block(b"IEND", b""))


def write_picture(path, kind, tag, values):
    "Write a picture; what a viewer shows of it, (H, W, 3), or BAD."
    grey = values[..., 0]
    if kind == "rgb": Image.fromarray(values).save(path, format="PNG")
    if kind == "grey": Image.fromarray(grey).save(path, format="PNG")
    if kind == "jpeg": Image.fromarray(values).save(path, format="JPEG")
    if kind == "alpha": Image.fromarray(np.dstack([values, np.where(grey % 2, 255, 0).astype(np.uint8)])).save(path, format="PNG")
    if kind == "sixteen": Image.fromarray((np.maximum(grey, 32).astype(np.uint16) * 257)).save(path, format="PNG")
    if kind == "twelve": Image.fromarray((np.maximum(grey, 1).astype(np.uint16) * 16)).save(path, format="PNG")
    if kind == "fractions": Image.fromarray((grey / 255).astype(np.float32)).save(path, format="TIFF")
    if kind == "gif inside": Image.fromarray(values).quantize().save(path, format="GIF")
    if kind == "turned": Image.fromarray(stored_for(values, tag)).save(path, format="PNG", exif=exif_of(tag))
    if kind == "cut":
        Image.fromarray(values).save(path, format="PNG")
        path.write_bytes(path.read_bytes()[:43])
    if kind == "text": path.write_text("no picture")
    if kind in ("cut", "text", "twelve"): return BAD
    if kind in ("jpeg", "gif inside"):
        with Image.open(path) as file: return np.array(file.convert("RGB"))
    shown = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            for channel in range(3):
                value = int(values[y, x, channel if kind in ("rgb", "alpha", "turned") else 0])
                if kind == "sixteen": value = max(value, 32)
                shown[y, x, channel] = 255 if kind == "alpha" and grey[y, x] % 2 == 0 else value
    return shown


def write_mask(path, kind, tag, ids):
    "Write a mask; its ids, or BAD."
    plain = {"grey": "PNG", "bmp": "BMP", "tif": "TIFF", "jpeg": "JPEG", "gif": "GIF"}
    if kind in plain: Image.fromarray(ids).save(path, format=plain[kind])
    if kind == "palette":
        image = Image.fromarray(ids).convert("P")
        image.putpalette(bytes((i * 37) % 256 for i in range(768)))
        image.save(path, format="PNG", transparency=0)
    if kind == "four bits": four_bits(path, ids)
    if kind == "sixteen": Image.fromarray(ids.astype(np.uint16)).save(path, format="PNG")
    if kind == "turned": Image.fromarray(stored_for(ids, tag)).save(path, format="PNG", exif=exif_of(tag))
    if kind == "fractions": Image.fromarray(ids.astype(np.float32)).save(path, format="TIFF")
    if kind == "colours": Image.fromarray(np.dstack([ids] * 3)).save(path, format="PNG")
    if kind == "other size": Image.fromarray(np.zeros((HEIGHT + 1, WIDTH), np.uint8)).save(path, format="PNG")
    if kind == "cut":
        Image.fromarray(ids).save(path, format="PNG")
        path.write_bytes(path.read_bytes()[:43])
    return BAD if kind in ("jpeg", "fractions", "colours", "cut") else np.zeros((HEIGHT + 1, WIDTH), np.uint8) if kind == "other size" else ids


# ---------------------------------------------------------------------------------------------- the plain reader

def same_name(name): return unicodedata.normalize("NFC", name.replace("\\", "/").removeprefix("./"))
def known_ending(name): return next((end for end in ENDINGS if name.lower().endswith(end)), "")
def stem(name): return name[:len(name) - len(known_ending(name))]


def meant(name, files, folder):
    "The files that a name may mean, by looking at each."
    bare = same_name(name).removeprefix(f"{folder}/")
    for fits in (lambda file: file == name, lambda file: same_name(file)[:len(stem(file))] == bare[:len(stem(bare))] and stem(bare) != bare and same_name(file).lower() == bare.lower() and stem(same_name(file)) == stem(bare),
                 lambda file: stem(same_name(file)) == bare, lambda file: stem(same_name(file)) == stem(bare)):
        found = [file for file in files if fits(file)]
        if found: return found
    return []


def plain_classes(about, masks):
    "(how many classes, function id → class, 255 or BAD), or BAD."
    if about == "none":
        seen = [int(value) for ids in masks if ids is not BAD for value in np.ravel(ids) if value < 255]
        if all(ids is BAD for ids in masks) or not seen: return BAD
        return max(seen) + 1, lambda value, mask: value if value <= max(seen) or value == 255 else BAD
    if about == ["x", "y", "z"]: return 3, lambda value, mask: value if value < 3 or value == 255 else BAD
    if about == {"names": ["x", "y"], "ignore": []}: return 2, lambda value, mask: value if value < 2 else 1 if value == 255 and 1 not in mask else BAD
    if about == {"names": ["x", "y", "z"], "ignore": [2]}: return 3, lambda value, mask: 255 if value == 2 else value if value < 2 else BAD
    if about == {"names": ["x", "y"], "ids": {"0": "x", "7": "y", "255": "y"}}: return 2, lambda value, mask: {0: 0, 7: 1, 255: 1}.get(value, BAD)
    if about == {"names": ["x", "y"], "ids": [[1, 2], 7], "ignore": [0, 255]}: return 2, lambda value, mask: {1: 0, 2: 0, 7: 1, 0: 255, 255: 255}.get(value, BAD)
    return BAD


def plain_reader(lines, images, labels, about):
    "(classes, [(picture, mask)]) of what was written, or BAD."
    classes, items = plain_classes(about, list(labels.values())), []
    if classes is BAD or not lines: return BAD
    for line in lines:
        left = right = line
        if not meant(line, images, "images") and " labels/" in line: left, right = line.rsplit(" labels/", 1)
        image, label = meant(left, images, "images"), meant(right, labels, "labels")
        if len(image) == 1 and not label: label = meant(image[0], labels, "labels")
        if len(image) != 1 or len(label) != 1: return BAD
        picture, ids = images[image[0]], labels[label[0]]
        if picture is BAD or ids is BAD or picture.shape[:2] != ids.shape: return BAD
        mask = [[classes[1](int(value), ids) for value in row] for row in ids]
        if any(value is BAD for row in mask for value in row): return BAD
        items.append((picture, mask))
    return classes[0], items


# ---------------------------------------------------------------------------------------------- folders by chance

GOOD_PICTURES, BAD_PICTURES = ["rgb", "grey", "jpeg", "alpha", "sixteen", "fractions", "gif inside", "turned"], ["twelve", "cut", "text"]
GOOD_MASKS, BAD_MASKS = ["grey", "bmp", "tif", "palette", "four bits", "sixteen", "turned"], ["jpeg", "fractions", "colours", "other size", "cut", "none"]
ABOUT = ["none", ["x", "y", "z"], {"names": ["x", "y"], "ignore": []}, {"names": ["x", "y", "z"], "ignore": [2]}, {"names": ["x", "y"], "ids": {"0": "x", "7": "y", "255": "y"}},
         {"names": ["x", "y"], "ids": [[1, 2], 7], "ignore": [0, 255]}]
BAD_ABOUT = ["{", "[]", '{"names": "x"}', '{"names": ["x"], "ignore": 255}', '{"names": ["x"], "ignored": []}', '{"names": ["x"], "ids": {"a": "x"}}', '{"names": ["x"], "palette": [[0, 0]]}', "3", "[1]", '{"names": ["x"], "background": 4}', "\xff"]
SPELLINGS = {"stem": lambda image, label: stem(image), "file": lambda image, label: image, "dot": lambda image, label: f"./{image}", "backslash": lambda image, label: image.replace("/", "\\"), "accents": lambda image, label: unicodedata.normalize("NFD", image),
             "folder": lambda image, label: f"images/{image}", "columns": lambda image, label: f"images/{image} labels/{label}", "upper ending": lambda image, label: stem(image) + known_ending(image).upper(), "typing error": lambda image, label: stem(image) + "x"}
RARELY = lambda often, seldom: st.sampled_from(list(often) * (12 * len(seldom) // len(often) + 1) + list(seldom))      # about one in thirteen
IDS = [[0, 1], [0, 255], [0, 1, 2], [0, 7, 255], [1, 2, 7], [0, 1, 255], [255]]
FITTING = {"none": IDS[:6], "['x', 'y', 'z']": [[0, 1], [0, 1, 2], [0, 1, 255], [0, 255]], str(ABOUT[2]): [[0, 1], [0, 255]], str(ABOUT[3]): [[0, 1, 2]], str(ABOUT[4]): [[0, 7, 255]], str(ABOUT[5]): [[0, 1, 2], [1, 2, 7], [0, 255]]}


@st.composite
def folders(draw):
    "What a folder holds: a dictionary of plain values, so that a failure can be read."
    names = draw(st.lists(st.sampled_from(["a", "b", "a.1", "a.2", "sub/a", "café", "two words", "IMG.rf.0a"]), min_size=1, max_size=3, unique=True))
    about = draw(RARELY(ABOUT, BAD_ABOUT))
    ids = draw(RARELY(FITTING.get(str(about), IDS), IDS))
    item = lambda name: dict(
        name=name, picture=draw(RARELY(GOOD_PICTURES, BAD_PICTURES)), tag=draw(st.integers(1, 8)), ending=draw(st.sampled_from([".png", ".jpg", ".PNG", ".Jpeg", ".tif"])), mask=draw(RARELY(GOOD_MASKS, BAD_MASKS)),
        mask_ending=draw(st.sampled_from([".png", ".png", ".PNG", ".bmp"])), spelling=draw(RARELY([s for s in SPELLINGS if s != "typing error"], ["typing error"])), ids=draw(st.lists(st.sampled_from(ids), min_size=6, max_size=6)),
        values=draw(st.binary(min_size=18, max_size=18)), twin=draw(RARELY([""], ["images", "labels"])))
    return dict(items=[item(name) for name in names], about=about, encoding=draw(RARELY(["plain", "bom", "crlf"], ["utf-16", "latin-1", "blank"])),
                beside=draw(st.sets(st.sampled_from(["._a.png", "a.json", "Thumbs.db", ".a.png", "a.gif", "b.txt"]), max_size=2)))


def write_folder(root, spec):
    "Write it; (lines, images, labels) as the plain reader wants them."
    images, labels, lines = {}, {}, []
    for part in ("images", "labels"): (root / part / "sub").mkdir(parents=True)
    for one in spec["items"]:
        values, ids = np.frombuffer(one["values"], np.uint8).reshape(HEIGHT, WIDTH, 3), np.array(one["ids"], np.uint8).reshape(HEIGHT, WIDTH)
        image, label = one["name"] + one["ending"], one["name"] + one["mask_ending"]
        images[image] = write_picture(root / "images" / image, one["picture"], one["tag"], values)
        kind = "grey" if one["mask"] == "four bits" and ids.max() > 15 else one["mask"]
        if kind != "none": labels[label] = write_mask(root / "labels" / label, kind, one["tag"], ids)
        if one["twin"] == "images": images[one["name"] + ".webp"] = write_picture(root / "images" / (one["name"] + ".webp"), "rgb", 1, values)
        if one["twin"] == "labels": labels[one["name"] + ".tiff"] = write_mask(root / "labels" / (one["name"] + ".tiff"), "grey", 1, ids)
        lines.append(SPELLINGS[one["spelling"]](image, label))
    for name in spec["beside"]:
        for part in ("images", "labels"): (root / part / name).write_bytes(b"leftover")
    text = "\n".join(lines)
    content = {"plain": text.encode(), "bom": b"\xef\xbb\xbf" + text.encode(), "crlf": ("\n" + text + "\n\n").replace("\n", "\r\n").encode(), "utf-16": text.encode("utf-16"),
               "latin-1": (text + "\né").encode("latin-1", "replace"), "blank": b"\n \n"}[spec["encoding"]]
    (root / "train.txt").write_bytes(content)
    if spec["about"] != "none": (root / "classes.json").write_bytes(spec["about"].encode("latin-1") if isinstance(spec["about"], str) else json.dumps(spec["about"]).encode())
    return [] if spec["encoding"] in ("utf-16", "latin-1", "blank") else lines, images, labels


def ours(root):
    "(classes, items) as the library reads them; its refusals are ValueError or FileNotFoundError, in words."
    try:
        data = load_data("folder", root)
        return data.num_classes, [(image.permute(1, 2, 0).numpy(), mask.tolist()) for image, mask in (data[index] for index in range(len(data)))]
    except (ValueError, FileNotFoundError) as error:
        assert str(root) in str(error) and "\n" not in str(error), error          # the file is named, in one line
        return BAD


COUNTS = {"read": 0, "refused": 0}

@pytest.fixture(scope="module")
def place(tmp_path_factory):
    yield tmp_path_factory.mktemp("fuzz") / "set"
    if sum(COUNTS.values()) == 500: assert min(COUNTS.values()) >= 100, COUNTS     # both kinds were tried


@settings(max_examples=500, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(spec=folders())
def test_no_folder_is_read_otherwise_without_a_word(place, spec):
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    expected = plain_reader(*write_folder(place, spec), spec["about"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, report = ours(place), inspect_data("folder", place)
    assert (found is BAD) == (expected is BAD), ("ours is refused" if found is BAD else "the plain reader refuses", report.faults)
    COUNTS["refused" if found is BAD else "read"] += 1
    if found is BAD: assert report.faults
    else:
        assert found[0] == expected[0] and len(found[1]) == len(expected[1])
        for (image, mask), (picture, plain) in zip(found[1], expected[1]): assert np.array_equal(image, picture) and mask == plain
        assert all(ONLY_255 in fault or "not one pixel is labelled" in fault for fault in report.faults)
        if {value for _, mask in found[1] for row in mask for value in row} == {0, 255} and spec["about"] in ("none", ["x", "y", "z"]): assert report.faults      # a perfect score for nothing


@settings(max_examples=100, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(content=st.one_of(st.binary(max_size=40), st.text(max_size=40).map(lambda text: text.encode()), st.recursive(st.none() | st.booleans() | st.integers(-2, 300) | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3)
       | st.dictionaries(st.sampled_from(["names", "ids", "ignore", "background", "palette", "other"]), inner, max_size=4), max_leaves=8).map(lambda value: json.dumps(value).encode())), which=st.sampled_from(["classes.json", "train.txt"]))
def test_any_text_is_read_or_refused_in_words(place, content, which):
    shutil.rmtree(place, ignore_errors=True)
    for part, values in (("images", np.zeros((2, 3, 3), np.uint8)), ("labels", np.zeros((2, 3), np.uint8))):
        (place / part).mkdir(parents=True)
        Image.fromarray(values).save(place / part / "a.png")
    (place / "train.txt").write_text("a")
    (place / which).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, report = ours(place), inspect_data("folder", place)
    assert bool(report.faults) == (found is BAD) or "not one pixel" in report.faults[0]
