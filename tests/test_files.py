"""No pixel, name or class without a word: what people's folders hold, each with the value that is right.

The kinds come from public trackers: pictures that lie on their side, masks of 0 and 255, names with dots, links, lists as Windows writes them.
"""
import json
import os
import struct
import unicodedata
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from pixcl_nb.cli import main
from pixcl_nb.images.compositor import CopyPasteConfig, copy_paste
from pixcl_nb.images.data import data_fingerprint, load_data, READER_VERSION, shared_pictures
from pixcl_nb.images.files import file_digests, header_sizes, native_size, read_ids, read_image
from pixcl_nb.images.inspection import inspect_data, propose_classes
from pixcl_nb.images.views import ViewConfig
from pixcl_nb.training.cache import cached

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
SEEN = np.full((12, 18, 3), 20, np.uint8)
SEEN[:6] = 230                                        # bright above, dark below: as a viewer shows it


def save(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values)).save(path, **options)
    return path


def folder(root, masks, names=None, about=None, ending="png"):
    "images/, labels/ and train.txt of grey pictures with these masks (name → ids)."
    for name, ids in masks.items():
        save(root / f"images/{name}.{ending}", np.full((*np.shape(ids), 3), 90, np.uint8))
        save(root / f"labels/{name}.png", np.asarray(ids, np.uint8))
    (root / "train.txt").write_text("\n".join(names or masks))
    if about is not None: (root / "classes.json").write_text(json.dumps(about))
    return root


def png(width, height, depth, colour, rows, behind=b""):
    block = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return (b"\x89PNG\r\n\x1a\n" + block(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)) + block(b"IDAT", zlib.compress(rows))
            + (block(b"eXIf", behind) if behind else b"") + block(b"IEND", b""))


def exif_of(tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    return exif


def told(words, capsys):
    code = main([str(word) for word in words])
    out = capsys.readouterr()
    return code, out.out, out.err


# ---------------------------------------------------------------------------------------------- pictures

@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
def test_orientation_in_pixels_sizes_and_masks(tmp_path, tag, kind):
    back = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[tag]                  # the transposition that undoes the tag
    stored = Image.fromarray(SEEN) if back is None else Image.fromarray(SEEN).transpose(Image.Transpose(back))
    path = tmp_path / f"images/a.{kind}"
    path.parent.mkdir()
    stored.save(path, exif=exif_of(tag), **({"quality": 95} if kind != "tif" else {}))
    with Image.open(path) as file: assert ImageOps.exif_transpose(file).size == (18, 12)                      # every viewer
    image = read_image(path).float()
    assert image.shape == (3, 12, 18) and image[:, :5].mean() > 215 and image[:, 7:].mean() < 35
    assert native_size(path) == (12, 18) and header_sizes([path]) == [(12, 18)]
    folder_masks = {"a": np.repeat([[1], [0]], 6, 0).repeat(18, 1)}
    save(tmp_path / "labels/a.png", np.asarray(folder_masks["a"], np.uint8))
    (tmp_path / "train.txt").write_text("a")
    data = load_data("folder", tmp_path, size=(24, 24))
    assert not inspect_data("folder", tmp_path).faults and data.extents.tolist() == [[16, 24]]


def test_orientation_behind_the_pixels_of_a_png_and_of_a_mask(tmp_path):
    tag = exif_of(6).tobytes().removeprefix(b"Exif\0\0")
    path = tmp_path / "a.png"
    path.write_bytes(png(3, 2, 8, 0, b"\0\1\2\3\0\4\5\6", tag))
    assert native_size(path) == tuple(read_image(path).shape[1:]) == (3, 2) and read_ids(path).tolist() == [[4, 1], [5, 2], [6, 3]]
    path.write_bytes(png(3, 2, 8, 0, b"\0\1\2\3\0\4\5\6", b"damaged"))
    assert native_size(path) == (2, 3) == tuple(read_image(path).shape[1:])                                  # as a viewer: as it lies


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L with a key", "RGB with a key"])
def test_transparency_is_laid_over_white(tmp_path, mode):
    path, see = tmp_path / "a.png", np.repeat([[True, False]], 4, 0)
    hidden, shown = 50, 200
    grey = np.where(see, shown, hidden).astype(np.uint8)
    if mode == "RGBA": Image.fromarray(np.dstack([grey] * 3 + [see.astype(np.uint8) * 255])).save(path)
    if mode == "LA": Image.fromarray(np.dstack([grey, see.astype(np.uint8) * 255]), "LA").save(path)
    if mode == "P":
        image = Image.fromarray(see.astype(np.uint8)).convert("P")
        image.putpalette([hidden] * 3 + [shown] * 3)
        image.save(path, transparency=0)
    if mode == "L with a key": Image.fromarray(grey).save(path, transparency=hidden)
    if mode == "RGB with a key": Image.fromarray(np.dstack([grey] * 3)).save(path, transparency=(hidden,) * 3)
    assert read_image(path)[:, 0].tolist() == [[shown, 255]] * 3


def test_deep_pictures_are_scaled_by_their_range_or_refused(tmp_path):
    ramp = np.tile(np.linspace(0, 1, 64), (4, 1))
    for name, values in {"f.tif": ramp.astype(np.float32), "i.tif": (ramp * 65535).astype(np.int32), "s.png": (ramp * 65535).astype(np.uint16)}.items():
        image = read_image(save(tmp_path / name, values))
        assert np.abs(image[0].numpy() - ramp * 255).max() <= 1, name
    for name, values in {"twelve.png": (ramp * 4095).astype(np.uint16), "eight.png": (ramp * 255).astype(np.uint16), "large.tif": (ramp * 1e6).astype(np.int32), "below.tif": (ramp - .5).astype(np.float32),
                         "stretched.tif": (ramp * 700).astype(np.float32), "nan.tif": np.where(ramp > .5, np.nan, ramp).astype(np.float32)}.items():
        with pytest.raises(ValueError, match=f"{name}: holds .*(black and white are not known; save|replace them)"): read_image(save(tmp_path / name, values))
    (tmp_path / "rgb.png").write_bytes(png(2, 1, 16, 2, b"\0" + b"\x0f\xff" * 6))
    with pytest.raises(ValueError, match="rgb.png: its 16-bit colours"): read_image(tmp_path / "rgb.png")


@pytest.mark.parametrize("kind", ["bomb", "cut png", "cut jpg", "text", "empty", "pages"])
def test_a_bad_picture_is_one_fault_line_everywhere(tmp_path, kind, capsys):
    path = tmp_path / "bad.png"
    good = save(tmp_path / "good.png", SEEN).read_bytes()
    if kind == "bomb": path.write_bytes(png(16000, 16000, 1, 0, b"\0" * (16000 // 8 + 1) * 16))
    if kind == "cut png": path.write_bytes(good[:60])
    if kind == "cut jpg":
        save(tmp_path / "bad.jpg", np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
        path.write_bytes((tmp_path / "bad.jpg").read_bytes()[:500])
        (tmp_path / "bad.jpg").unlink()
    if kind in ("text", "empty"): path.write_bytes(b"no picture" if kind == "text" else b"")
    if kind == "pages": Image.fromarray(SEEN).save(path, format="TIFF", save_all=True, append_images=[Image.fromarray(SEEN)])
    report = inspect_data("images", tmp_path)
    assert report.images == 1 and len(report.faults) == 1 and "bad.png" in report.faults[0] and "\n" not in report.faults[0]
    with pytest.raises(ValueError, match="bad.png"): read_image(path)
    if kind in ("bomb", "text", "empty"):
        with pytest.raises(ValueError, match="bad.png"): load_data("images", tmp_path, size=(8, 8)).extents
    code, out, error = told(["data", "images", "--root", tmp_path, "--picture", tmp_path / "sheet.jpg"], capsys)
    assert code == 3 and "Traceback" not in error and "FAULT" in out and not (tmp_path / "sheet.jpg").exists()
    assert "no contact sheet" in out and "was not written" in out


def test_what_the_decoders_give_is_written_down(tmp_path):
    "Whoever changes what the same bytes are read as must raise READER_VERSION, or caches, labels and runs go on with the old pixels."
    rng, files = np.random.default_rng(0), []
    for name, values in {"a.png": rng.integers(0, 256, (5, 7, 3), np.uint8), "b.png": rng.integers(0, 256, (5, 7, 4), np.uint8), "c.png": rng.integers(0, 65536, (5, 7), np.uint16),
                         "d.tif": rng.random((5, 7), np.float32), "e.bmp": rng.integers(0, 256, (5, 7), np.uint8)}.items():
        files.append(save(tmp_path / name, values, **({"exif": exif_of(6)} if name == "a.png" else {})))
    content = b"".join(read_image(path).numpy().tobytes() for path in files) + b"".join(read_ids(path).tobytes() for path in (files[2], files[4]))
    assert (READER_VERSION, zlib.crc32(content)) == (2, GOLDEN_PIXELS)

GOLDEN_PIXELS = 3381729081


# ---------------------------------------------------------------------------------------------- masks and classes

@pytest.mark.parametrize("named", [False, True])
def test_masks_in_every_lossless_kind_are_read_to_the_bit(tmp_path, named):
    yy, xx = np.mgrid[:32, :32]
    truth = ((yy > 16) + 2 * ((xx > 16) & (yy > 16))).astype(np.uint8)
    palette = Image.fromarray(truth).convert("P")
    palette.putpalette(bytes(range(256)) * 3)
    writers = {"A.PNG": lambda path: Image.fromarray(truth).save(path, format="PNG"), "b.bmp": Image.fromarray(truth).save, "c.Tif": lambda path: Image.fromarray(truth).save(path, format="TIFF"),
               "d.png": lambda path: palette.save(path, transparency=0), "e.png": lambda path: path.write_bytes(png(32, 32, 4, 0, b"".join(b"\0" + bytes(a << 4 | b for a, b in zip(row[::2], row[1::2])) for row in truth.tolist()))),
               "f.png": lambda path: Image.fromarray(truth.astype(np.uint16)).save(path), "g.pgm": Image.fromarray(truth).save}
    (tmp_path / "labels").mkdir()
    for name, write in writers.items():
        save(tmp_path / f"images/{name.split('.')[0]}.jpg", np.ones((32, 32, 3), np.uint8))
        write(tmp_path / "labels" / name)
    (tmp_path / "train.txt").write_text("\n".join(name.split(".")[0] for name in writers))
    if named: (tmp_path / "classes.json").write_text('["a", "b", "c", "d"]')
    data, report = load_data("folder", tmp_path), inspect_data("folder", tmp_path)
    for index, name in enumerate(writers): assert np.array_equal(data[index][1].numpy(), truth), name
    assert not report.faults and report.images == 7


def test_masks_that_cannot_be_ids_are_refused(tmp_path):
    ids = np.kron(np.arange(16).reshape(4, 4), np.ones((8, 8))).astype(np.uint8)
    for name, write, words in (("a.jpg", lambda path: Image.fromarray(ids).save(path, quality=100), "JPEG file, which changes the ids"),
                               ("b.png", lambda path: Image.fromarray(ids).save(path, format="JPEG"), "JPEG file"), ("c.tif", lambda path: Image.fromarray((ids / 16).astype(np.float32)).save(path), "fractions"),
                               ("d.png", lambda path: Image.fromarray(np.dstack([ids] * 3)).save(path), "all its channels are equal"), ("e.tif", lambda path: Image.fromarray(ids.astype(np.int32) - 1).save(path), "holds id -1"),
                               ("f.png", lambda path: Image.fromarray(np.dstack([ids, ids]), "LA").save(path), "mode LA")):
        root = tmp_path / name[0]
        save(root / f"images/{name[0]}.png", np.ones((32, 32, 3), np.uint8))
        (root / "labels").mkdir()
        write(root / "labels" / name)
        (root / "train.txt").write_text(name[0])
        (root / "classes.json").write_text(json.dumps([f"c{i}" for i in range(16)]))
        with pytest.raises(ValueError, match=f"{name}: .*{words}"): load_data("folder", root)[0]
        report = inspect_data("folder", root)
        assert len(report.faults) == 1 and words in report.faults[0]


SQUARE = np.pad(np.full((8, 8), 255), 4)              # 0 around, 255 inside: 64 of 256 pixels


def test_masks_of_0_and_255(tmp_path):
    "One class and a quarter ignored is a perfect score for any network: never without a word."
    for number, about in enumerate((None, ["background", "object"], {"names": ["background", "object"]})):
        root = folder(tmp_path / str(number), {"a": SQUARE, "b": SQUARE}, about=about)
        report = inspect_data("folder", root)
        assert len(report.faults) == 1 and "25% of all pixels: the masks hold only 0 and 255" in report.faults[0] and "--propose" in report.faults[0]
        with pytest.warns(UserWarning, match="only 0 and 255"): load_data("folder", root)
    for about in ({"names": ["background", "object"], "ignore": []}, {"names": ["background", "object"], "ids": {"0": "background", "255": "object"}}, {"names": ["background", "object"], "ids": [0, 255]}):
        (root / "classes.json").write_text(json.dumps(about))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            data = load_data("folder", root)
        assert torch.equal(data[0][1], torch.from_numpy(SQUARE // 255)) and not inspect_data("folder", root).faults
    (root / "classes.json").write_text('{"names": ["background", "object"], "ignore": [255]}')                # said, so it is meant
    assert load_data("folder", root)[0][1].unique().tolist() == [0, 255] and not inspect_data("folder", root).faults
    (root / "classes.json").write_text('{"names": ["background", "object"], "ignore": []}')
    save(root / "labels/a.png", np.where(SQUARE == 255, 255, np.eye(16)).astype(np.uint8))                    # 0, 1 and 255 in one mask
    with pytest.raises(ValueError, match="a.png: mask holds id 255"): load_data("folder", root)[0]


def test_ids_that_begin_at_1_shift_no_name(tmp_path):
    "`reduce_zero_label`: 0 is unlabelled, the last class is absent, so no id is out of range."
    root = folder(tmp_path, {"a": [[0, 1, 2, 2]]}, about={"names": ["wall", "sky", "tree"], "ignore": [0, 255]})
    assert [note for note in inspect_data("folder", root).notes if "shifted by one" in note]
    with pytest.warns(UserWarning, match="the first class, 'wall', has no pixel"): load_data("folder", root)
    (root / "classes.json").write_text('["wall", "sky", "tree", "sea"]')
    assert [note for note in inspect_data("folder", root).notes if "no pixel of 1 classes: sea; the last one" in note and "shifted" in note]
    (root / "classes.json").write_text('{"names": ["wall", "sky", "tree"], "ids": [1, 2, 3], "ignore": [0, 255]}')
    data = load_data("folder", root)
    assert data[0][1].tolist() == [[255, 0, 1, 1]] and not [note for note in inspect_data("folder", root).notes if "shifted" in note]


@pytest.mark.parametrize("content, words", [
    (b"{", "is not JSON"), (b"", "is not JSON"), (b"3", "expected a list"), (b'{"names": []}', "expected a list"), (b'{"names": {"0": "x", "1": "y"}}', '"names" is .* not a list'), (b'{"names": "x, y"}', '"names" is "x, y"'),
    (json.dumps([f"c{i}" for i in range(300)]).encode(), "holds 300 names"), (b'["x", ""]', "which is no name"), (b'["x", null]', "which is no name"), (b'{"names": ["x", "y"], "ignore": 255}', '"ignore" is 255, not a list'),
    (b'{"names": ["x", "y"], "ignore": [300]}', '"ignore" holds 300'), (b'{"names": ["x", "y"], "ignore": ["255"]}', '"ignore" holds "255"'), (b'{"names": ["x", "y"], "ignore": [true]}', '"ignore" holds true'),
    (b'{"names": ["x", "y"], "ignored": [255]}', "unknown name 'ignored', did you mean 'ignore'"), (b'{"names": ["x", "y"], "reduce_zero_label": true}', "unknown name 'reduce_zero_label'"),
    (b'{"names": ["x", "y"], "palette": [[0, 0, 0]]}', '"palette" is no list of 2 colours'), (b'{"names": ["x", "y"], "palette": [[0, 0, 0], [0, 0, 256]]}', '"palette" holds'), (b'{"names": ["x", "y"], "background": "z"}', '"background" says "z"'),
    (b'{"names": ["x", "y"], "ids": {"0": "x", "1": "z"}}', '"ids" says "z"'), (b'{"names": ["x", "y"], "ids": {"0": "x", "256": "y"}}', '"ids" holds 256'), (b'{"names": ["x", "y"], "ids": [0, 0]}', '"ids" names an id twice'),
    (b'{"names": ["x", "y"], "ids": [0, 1], "ignore": [1]}', '"ignore" holds 1, which "ids" names'), (b'{"names": ["x", "y"], "names": ["a"]}', "'names' twice"), ('["x", "y"]'.encode("utf-16"), "line 1: is UTF-16"),
    (b'["x",\n "\xfc"]', "line 2: byte 0xfc")])
def test_classes_json_is_checked(tmp_path, content, words, capsys):
    root = folder(tmp_path, {"a": [[0, 1]]})
    (root / "classes.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"classes.json.*{words}"): load_data("folder", root)
    report = inspect_data("folder", root)
    assert len(report.faults) == 1 and report.images == 0
    code, out, error = told(["data", "--data", "folder", "--root", root], capsys)
    assert code == 3 and "classes.json" in out and "Traceback" not in error


def test_a_proposal_is_written_once_and_read_back(tmp_path, capsys):
    root = folder(tmp_path / "one", {"a": SQUARE})
    assert told(["data", "folder", "--root", root, "--propose"], capsys)[0] == 0
    about = json.loads((root / "classes.json").read_text())
    assert about["ids"] == {"0": "background", "255": "object"} and about["background"] == "background" and about["ignore"] == []
    data = load_data("folder", root)
    assert data.background == (0,) and data[0][1].unique().tolist() == [0, 1]
    before = (root / "classes.json").read_bytes()
    code, _, error = told(["data", "folder", "--root", root, "--propose"], capsys)
    assert code == 1 and "not overwritten" in error and (root / "classes.json").read_bytes() == before
    many = folder(tmp_path / "two", {"a": [[0, 7, 33, 255]]})
    assert propose_classes(many)["ids"] == {"0": "class 0", "7": "class 7", "33": "class 33"} and propose_classes(many)["ignore"] == [255]
    save(many / "labels/a.png", np.arange(256, dtype=np.uint8).reshape(16, 16))
    with pytest.raises(ValueError, match="256 values up to 255: soft edges"): propose_classes(many)


def test_the_declared_background_is_never_pasted():
    masks = torch.zeros(4, 64, 64, dtype=torch.long)
    masks[:, 20:44, 20:44], masks[:, 50:60, 4:20] = 15, 3
    images = torch.randint(0, 255, (4, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    def pasted(**background):
        config, draw, found = CopyPasteConfig(size=64, shape="object", stride=8, view=ViewConfig(scale=(.6, 1.)), **background), torch.Generator().manual_seed(0), set()
        for _ in range(6):
            pair = copy_paste(images, config, draw, masks=masks)
            found |= {int(view[mask].mode().values) for view, mask in zip(pair.query_view.mask, pair.query_mask)}
        return found
    assert pasted() <= {15, 3} and 15 in pasted()                          # VOC's 0 unless it is said
    assert pasted(background=(0, 3)) == {15} and 0 in pasted(background=())
    with pytest.raises(ValueError, match="labels .0, 3, 15. are background"): pasted(background=(0, 3, 15))
    with pytest.raises(ValueError, match="background: expected whole numbers"): CopyPasteConfig(background=("sky",))


# ---------------------------------------------------------------------------------------------- names and lists

def test_names_with_dots(tmp_path):
    names = ["IMG_0001_jpg.rf.0a1b2c", "IMG_0001_jpg.rf.9f8e7d", "2024.05.01_frame.0002"]
    root = folder(tmp_path / "roboflow", {name: [[0, 1]] for name in names}, about=["a", "b"], ending="jpg")
    report = inspect_data("folder", root)
    assert load_data("folder", root).names == names and report.images == 3 and not report.faults
    root = folder(tmp_path / "wrong", {"scene.1": [[0]], "scene": [[1]]}, names=["scene.1", "scene.2"], about=["a", "b"])
    save(root / "images/scene.2.png", np.ones((1, 1, 3), np.uint8))
    with pytest.raises(FileNotFoundError, match=r"train.txt lists 'scene.2', but there is no such label in .*labels \(line 2\)"): load_data("folder", root)
    report = inspect_data("folder", root)
    assert report.images == 1 and len(report.faults) == 1 and "scene.2" in report.faults[0]


def test_two_candidates_are_never_settled_by_the_alphabet(tmp_path):
    root = folder(tmp_path, {"a": [[0, 1]], "b": [[1, 0]]}, about=["x", "y"])
    save(root / "labels/a.bmp", np.array([[1, 1]], np.uint8))
    with pytest.raises(ValueError, match=r"lists 'a' \(line 1\), which fits 2 files in .*labels: a.(bmp|png), a.(bmp|png)"): load_data("folder", root)
    assert len(inspect_data("folder", root).faults) == 1 and inspect_data("folder", root).images == 1
    (root / "train.txt").write_text("a.png\nb")
    assert load_data("folder", root)[0][1].tolist() == [[0, 1]]                                   # an exact name is one file
    (root / "train.txt").write_text("images/a.png labels/a.bmp\nb")
    assert load_data("folder", root)[0][1].tolist() == [[1, 1]]                                   # and so are two columns
    save(root / "images/a.jpg", np.ones((1, 2, 3), np.uint8))
    (root / "train.txt").write_text("a")
    with pytest.raises(ValueError, match="fits 2 files in .*images"): load_data("folder", root)


def test_annotations_beside_pictures_and_leftovers_are_no_pictures(tmp_path, capsys):
    root = folder(tmp_path / "set", {"b": [[0, 1]]}, about=["x", "y"], ending="jpg")
    for name in ("b.json", "b.a", ".b.png", "._b.jpg", "Thumbs.db", ".DS_Store", "__MACOSX/b.png", ".ipynb_checkpoints/b.jpg", "b.xml", "~$b.jpg"):
        for part in ("images", "labels"):
            (root / part / name).parent.mkdir(exist_ok=True)
            (root / part / name).write_bytes(b"leftover")
    data, report = load_data("folder", root), inspect_data("folder", root)
    assert data.images[0].name == "b.jpg" and data.labels[0].name == "b.png" and not report.faults and report.images == 1
    pictures = inspect_data("images", root / "images")
    assert pictures.images == 1 and any("1 .json" in note and "7 hidden" in note for note in pictures.notes)
    for name in ("c.gif", "d.HEIC", "e.jp2", "f.jp2"): (root / "images" / name).write_bytes(b"?")
    with pytest.warns(UserWarning, match="left out in .*1 .gif, 1 .heic, 2 .jp2"): assert len(load_data("images", root / "images")) == 1
    code, out, _ = told(["data", "images", "--root", root / "images"], capsys)
    assert code == 0 and "2 .jp2" in out
    (root / "train.txt").write_text("c")
    with pytest.raises(ValueError, match="there is 'c.gif', which is not read"): load_data("folder", root)


def test_links_are_followed_and_circles_end(tmp_path):
    here, disk = tmp_path / "pictures", tmp_path / "disk"
    for number in range(3): save(here / f"part1/{number}.png", SEEN); save(disk / f"{number}.png", SEEN)
    (here / "part2").symlink_to(disk); (here / "part1/again").symlink_to(here); (here / "gone.png").symlink_to("nowhere")
    with pytest.warns(UserWarning, match="every picture below it was taken: part1 .3., part2 .3."): data = load_data("images", here)
    assert data.names == [f"part{part}/{number}.png" for part in (1, 2) for number in range(3)]
    assert any("1 broken links" in note for note in inspect_data("images", here).notes)
    root = tmp_path / "set"
    save(root / "labels/day/0.png", np.zeros((12, 18), np.uint8))
    (root / "images").mkdir(); (root / "images/day").symlink_to(disk)
    (root / "train.txt").write_text("day/0\n")
    assert len(load_data("folder", root)) == 1 and inspect_data("folder", root).images == 1


def test_a_split_that_is_not_there_is_no_split(tmp_path):
    for part, count in (("train2017", 3), ("val2017", 2), ("test2017", 4), ("annotations/overlays", 1)):
        for number in range(count): save(tmp_path / part / f"{number}.jpg", SEEN)
    for split in ("train", "tarin2017", "val", "Train2017"):
        with pytest.raises(FileNotFoundError, match=f"there is no folder '{split}' in .*train2017 .3."): load_data("images", tmp_path, split)
        assert len(inspect_data("images", tmp_path, split).faults) == 1
    assert len(load_data("images", tmp_path, "train2017")) == 3 and len(load_data("images", tmp_path, ".")) == 10
    for split in ("../x", str(tmp_path)):
        with pytest.raises(ValueError, match="leads out of"): load_data("images", tmp_path, split)
    flat = tmp_path / "flat"
    save(flat / "a.jpg", SEEN)
    assert len(load_data("images", flat)) == 1
    with pytest.raises(FileNotFoundError, match="there is no folder 'val'"): load_data("images", flat, "val")
    save(flat / "a_mask.png", SEEN)
    with pytest.warns(UserWarning, match="1 pictures look like the mask of another .first: a_mask.png"): load_data("images", flat)


def test_lists_as_people_write_them(tmp_path):
    names = ["café 1", "it's \"b\"", "x.y z", "日本", "sub/x"]
    root = folder(tmp_path, {name: [[0, 1]] for name in names}, about=["a", "b"])
    stored = [f"images/{name}.png" for name in names]
    for written in (names, [unicodedata.normalize("NFD", name) for name in names], [name.replace("/", "\\") for name in names], [f"./{name}.png" for name in names], stored,
                    [f"{name} {name.replace('images', 'labels')}" for name in stored], [f"{name},{name.replace('images', 'labels')}" for name in stored], [f"{name}\t{name.replace('images', 'labels')}" for name in stored],
                    [str(root / name) for name in stored]):
        (root / "train.txt").write_text("\r\n".join(written) + "\r\n\r\n")
        data = load_data("folder", root)
        assert [path.relative_to(root).as_posix() for path in data.images] == stored and not inspect_data("folder", root).faults
    (root / "train.txt").write_bytes(b"\xef\xbb\xbf" + "\n".join(names).encode())
    assert load_data("folder", root).names == names
    for content, words in (("\n".join(names).encode("utf-16"), "line 1: is UTF-16"), ("\n\ncafé".encode("latin-1"), "line 3: byte 0xe9 is not UTF-8"), (b"\n \r\n", "is empty"), ("café 1 -1".encode(), "lists 'café 1 -1'"),
                           ("CAFÉ 1".encode(), "upper and lower case differ")):
        (root / "train.txt").write_bytes(content)
        with pytest.raises(ValueError, match=f"train.txt.*{words}"): load_data("folder", root)
        assert inspect_data("folder", root).faults


def test_odd_files_beside_a_list_do_no_harm(tmp_path, capsys):
    root = folder(tmp_path, {"a": [[0, 1]]}, about=["x", "y"])
    (root / "val.txt").write_text("\n"); (root / "README.txt").write_bytes("für alle".encode("latin-1")); (root / "notes.txt").write_text("two words\n"); (root / "classes.json").write_bytes(b'\xef\xbb\xbf["x", "y"]')
    code, out, error = told(["data", "folder", "--root", root, "--picture", root / "sheet.png"], capsys)
    assert code == 0 and not error and "note" not in out and (root / "sheet.png").exists()


# ---------------------------------------------------------------------------------------------- the same data?

def test_a_fingerprint_names_what_changed(tmp_path):
    root = folder(tmp_path / "a", {"a": [[0, 1]], "b": [[1, 1]]}, about=["x", "y", "z"])
    before = data_fingerprint(load_data("folder", root))
    changed = lambda: {part for part, value in data_fingerprint(load_data("folder", root)).items() if value != before[part]}
    assert not changed()
    content = (root / "images/a.png").read_bytes()
    save(root / "images/a.png", np.full((1, 2, 3), 91, np.uint8))
    assert changed() == {"pictures"}
    (root / "images/a.png").write_bytes(content); os.utime(root / "images/a.png", ns=(1, 1))
    assert not changed()                                                                       # bytes count, dates do not
    save(root / "labels/b.png", np.array([[1, 2]], np.uint8))
    assert changed() == {"masks"}
    save(root / "labels/b.png", np.array([[1, 1]], np.uint8))
    for about in ({"names": ["x", "y", "z"], "ignore": [2, 255]}, {"names": ["x", "y", "z"], "ids": [1, 0, 2]}, ["x", "z", "y"]):
        (root / "classes.json").write_text(json.dumps(about))
        assert changed() == {"classes"}
    (root / "classes.json").write_text('["x", "y", "z"]')
    (root / "train.txt").write_text("b\na")
    assert changed() == {"masks", "names"}                                   # the two pictures are alike
    assert {part for part, value in data_fingerprint(load_data("folder", root, size=(4, 4))).items() if value != before[part]} >= {"size"}
    assert load_data("folder", root).fingerprint() != load_data("folder", root).subset([0]).fingerprint()


def test_a_cache_follows_the_classes(tmp_path):
    mask = np.zeros((8, 8), np.uint8)
    mask[:4] = 2
    root = folder(tmp_path / "set", {str(number): mask if number in (1, 2) else np.zeros((8, 8)) for number in range(9)})
    for ignore in ([255], [2, 255], [255]):
        (root / "classes.json").write_text(json.dumps({"names": ["a", "b", "c"], "ignore": ignore}))
        plain = load_data("folder", root)
        data = cached(plain, tmp_path / "cache")
        assert all(torch.equal(plain[index][1], data[index][1]) for index in range(9))
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_remembered_sizes_and_digests_follow_the_files(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXCL_NB_CACHE", str(tmp_path / "user"))
    path = save(tmp_path / "a.png", SEEN)
    assert header_sizes([path], keep=1) == [(12, 18)] and len(file_digests([path], keep=1)) == 1
    first, stamp = file_digests([path], keep=1), os.stat(path)
    save(path, SEEN.swapaxes(0, 1)); os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert header_sizes([path], keep=1) == [(18, 12)] and file_digests([path], keep=1) != first
    assert len(list((tmp_path / "user").iterdir())) == 4                                       # both are remembered
    for kept in (tmp_path / "user").glob("bytes-*"): kept.write_text("remembered")
    assert file_digests([path], keep=1) == ["remembered"]


def test_the_same_picture_in_two_parts_is_found(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(4): save(tmp_path / f"images/{number}.png", rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)); save(tmp_path / f"labels/{number}.png", np.eye(8, dtype=np.uint8))
    Image.open(tmp_path / "images/0.png").save(tmp_path / "images/copy.bmp"); save(tmp_path / "labels/copy.png", np.eye(8, dtype=np.uint8))
    (tmp_path / "images/twin.png").write_bytes((tmp_path / "images/1.png").read_bytes()); save(tmp_path / "labels/twin.png", np.eye(8, dtype=np.uint8))
    (tmp_path / "train.txt").write_text("0\n1\n2"); (tmp_path / "val.txt").write_text("3\ncopy\ntwin\n2.png")
    train, val = (load_data("folder", tmp_path, split) for split in ("train", "val"))
    assert shared_pictures(train, val) == [("0", "copy"), ("1", "twin"), ("2", "2.png")] and shared_pictures(train, val.subset([0])) == []
    notes = inspect_data("folder", tmp_path).notes
    assert any("1 names of train.txt are in val.txt too (first: 2)" in note for note in notes) and any("under another name (first: 1 is twin)" in note for note in notes)


# ---------------------------------------------------------------------------------------------- the command line

def test_data_command_as_documented(tmp_path, capsys):
    root = folder(tmp_path, {"a": [[0, 1]]}, about=["x", "y"])
    code, out, _ = told(["data", "folder", "--root", root, "--picture", tmp_path / "sheet.png"], capsys)
    assert code == 0 and "contact sheet: " in out and (tmp_path / "sheet.png").exists()
    assert told(["data", "images", "--root", root / "images"], capsys)[0] == 0
    assert told(["data", "folder", "--data", "images", "--root", root], capsys)[0] == 1
    (tmp_path / "sheet.png").unlink(); (root / "labels/a.png").unlink()
    code, out, _ = told(["data", "folder", "--root", root, "--picture", tmp_path / "sheet.png"], capsys)
    assert code == 3 and "sheet.png was not written" in out and not (tmp_path / "sheet.png").exists()
