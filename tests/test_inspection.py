"""What a data set holds, and every fault of it at once."""
import json

import numpy as np
import pytest
from PIL import Image

from pixcl_nb.images.data import load_data
from pixcl_nb.images.inspection import contact_sheet, inspect_data, save_contact_sheet


@pytest.fixture
def folder(tmp_path):
    for place in ("images", "labels"): (tmp_path / place).mkdir()
    for name in "abc":
        Image.new("RGB", (20, 10)).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(np.arange(200, dtype=np.uint8).reshape(10, 20) % 2).save(tmp_path / "labels" / f"{name}.png")
    (tmp_path / "train.txt").write_text("a\nb\n")
    (tmp_path / "val.txt").write_text("c\n")
    return tmp_path


def test_counts_of_a_sound_folder(folder):
    report = inspect_data("folder", folder)
    assert (report.images, report.pixels.tolist(), report.holders.tolist(), report.ignored, report.faults, report.notes) == (2, [200, 200], [2, 2], 0, [], [])
    assert json.loads(json.dumps(report.to_dict()))["sizes"] == [[10, 20, 2]]


def test_every_fault_is_listed(folder):
    (folder / "train.txt").write_text("a\nb\nc\nd\nb\n")
    (folder / "labels" / "a.png").unlink()
    Image.new("L", (5, 5)).save(folder / "labels" / "b.png")
    (folder / "images" / "c.png").write_bytes(b"cut")
    report = inspect_data("folder", folder)
    said = "\n".join(report.faults)
    for words in ("lists 'a', but there is no such label", "lists 'd', but there is no such image", "mask is (5, 5)", "cannot be decoded"): assert words in said
    assert any("1 names of train.txt are in val.txt too (first: c)" in note for note in report.notes) and any("listed twice" in note for note in report.notes)


def test_notes(folder):
    Image.new("RGB", (30, 10)).save(folder / "images" / "b.png"); Image.new("L", (30, 10), 255).save(folder / "labels" / "b.png")
    Image.new("RGB", (9, 9)).save(folder / "images" / "stray.png")
    (folder / "classes.json").write_text('["x", "y", "z"]')
    notes = " | ".join(inspect_data("folder", folder).notes)
    for words in ("1 images have no labelled pixel (first: b)", "no pixel of 1 classes: z", "different sizes", "1 images are in no list (first: stray)"): assert words in notes


def test_nothing_labelled_is_a_fault(folder):
    for name in "ab": Image.new("L", (20, 10), 255).save(folder / "labels" / f"{name}.png")
    (folder / "classes.json").write_text('["x"]')
    assert "not one pixel is labelled" in inspect_data("folder", folder).faults[0]


def test_missing_folders_and_names(tmp_path):
    assert "there is no folder" in inspect_data("folder", tmp_path / "none").faults[0] and inspect_data("cityscapes", tmp_path).faults
    with pytest.raises(ValueError, match="unknown name 'folders'"): inspect_data("folders", tmp_path)


def test_pictures_without_labels(folder):
    report = inspect_data("images", folder / "images")
    assert report.images == 3 and not report.faults and report.labelled == 0


def test_contact_sheet(folder, tmp_path):
    figure = contact_sheet(load_data("samples"), 5, side=64)
    assert len([axis for axis in figure.axes if axis.images]) == 5
    assert save_contact_sheet(load_data("images", folder / "images"), tmp_path / "sheet.png", 2).read_bytes()[:4] == b"\x89PNG"
    assert inspect_data("samples", limit=4).images == 4
