"`pixcl_nb.images.scenes`, `.data` and `.pairs`: the generator's bits, every reader on a made-up folder, every fault and its message."
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixcl_nb.images import scenes as scenes_module
from pixcl_nb.images.data import (
    check_labelled, fit, fit_image, fit_mask, id_lookup, label_subset, load_data, read_image, read_mask,
    SegmentationData, spread_palette)
from pixcl_nb.images.pairs import load_keypoint_pairs, load_pairs, load_photos, stereo_pair
from pixcl_nb.images.scenes import (
    cache_folder, correspondences, random_things, rendered_folder, SAMPLE_CLASSES, sample_folder,
    sample_pair, SAMPLE_PALETTE, sample_scene, SAMPLE_SPLITS, Thing, uniform, wave, write_samples)

SHIPPED = Path(__file__).resolve().parent.parent/"data_samples"
GOLDEN_WORDS = [11749869230777074271, 4976686463289251617]     # numpy.random.PCG64([0, 0, 0]).random_raw(2)


def save(path, array, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8), mode).save(path)
    return path


@pytest.fixture
def own(tmp_path):
    "A folder data set: three images of 12×16, ids 0, 1, 2 and 255, names with another extension each."
    rng = np.random.default_rng(0)
    for name, ending in [("a", "png"), ("b", "jpg"), ("deep/c.x", "bmp")]:
        save(tmp_path/"images"/f"{name}.{ending}", rng.integers(0, 256, (12, 16, 3)))
        mask = rng.integers(0, 3, (12, 16))
        mask[0] = 255
        save(tmp_path/"labels"/f"{name}.png", mask)
    (tmp_path/"train.txt").write_text("a\nb.jpg\ndeep/c.x\n\n")
    (tmp_path/"classes.json").write_text(json.dumps({"names": ["x", "y", "z"], "palette": [[1, 2, 3]] * 3}))
    return tmp_path


# --- the generator ---------------------------------------------------------------------------------------------------------

def test_random_bits_are_those_written_down():
    words = [int(word) for word in np.random.PCG64([0, 0, 0]).random_raw(2)]
    assert words == GOLDEN_WORDS
    assert uniform(np.random.PCG64([0, 0, 0]), size=2).tolist() == [(word >> 11) / 2**53 for word in words]
    values = uniform(np.random.PCG64([3]), -2, 5, 1000)
    assert values.min() >= -2 and values.max() < 5 and abs(values.mean() - 1.5) < .3


def test_wave_is_the_sine():
    turns = np.linspace(-2, 2, 777)
    assert np.abs(wave(turns) - np.sin(2 * np.pi * turns)).max() < 2e-3
    assert wave(.25) == 1 and wave(0.) == 0 and (wave(turns) + wave(-turns) == 0).mean() > .99


@pytest.mark.parametrize("split,index", [("train", 0), ("train", 137), ("val", 39), ("test", 5), ("test", 59)])
def test_shipped_scene_equals_rendered(split, index):
    image, mask = sample_scene(split, index)
    assert np.array_equal(np.array(Image.open(SHIPPED/"images"/f"{split}_{index:03d}.png")), image)
    with Image.open(SHIPPED/"labels"/f"{split}_{index:03d}.png") as file:
        assert file.mode == "P" and np.array_equal(np.array(file), mask)
        assert file.getpalette()[:33] == [value for colour in SAMPLE_PALETTE for value in colour]


def test_colours_of_the_classes_stay_apart_for_every_reader():
    "CIEDE2000 between any two classes, and to the white of ignored pixels: normal, deuteranope and protanope vision (Machado et al. 2009)."
    from skimage.color import deltaE_ciede2000, rgb2lab
    machado = {"deuteranope": [[.367322, .860646, -.227968], [.280085, .672501, .047413], [-.011820, .042940, .968881]], "protanope": [[.152286, 1.052583, -.204868], [.114503, .786281, .099216], [-.003882, -.048116, 1.051998]]}
    def nearest(palette, matrix):
        colours = np.array([*palette, [255, 255, 255]]) / 255
        linear = (np.where(colours <= .04045, colours / 12.92, ((colours + .055) / 1.055) ** 2.4) @ np.transpose(matrix)).clip(0, 1)
        lab = rgb2lab(np.where(linear <= .0031308, linear * 12.92, 1.055 * linear.clip(1e-9) ** (1 / 2.4) - .055)[None])[0]
        first, second = np.triu_indices(len(lab), 1)
        return deltaE_ciede2000(lab[first], lab[second]).min()
    palette = load_data("samples", SHIPPED, "test").palette.tolist()
    assert palette == SAMPLE_PALETTE and min(nearest(palette, matrix) for matrix in (np.eye(3), *machado.values())) > 18
    before = [[116, 173, 209], [65, 130, 60], [49, 54, 149], [165, 90, 60], [140, 140, 140], [255, 217, 47], [166, 216, 84], [215, 48, 39], [253, 174, 97], [244, 109, 180], [118, 42, 131]]
    assert nearest(before, machado["deuteranope"]) < 1                         # melons and fish were one colour


def test_shipped_pair_equals_rendered():
    image_a, image_b, points = sample_pair(7)
    assert np.array_equal(np.array(Image.open(SHIPPED/"pairs"/"07_a.png")), image_a)
    assert np.array_equal(np.array(Image.open(SHIPPED/"pairs"/"07_b.png")), image_b)
    assert np.array_equal(np.load(SHIPPED/"pairs"/"07_points.npy"), points)


def test_shipped_amount_and_size():
    assert [len(load_data("samples", SHIPPED, split)) for split in ("train", "val", "test")] == [240, 40, 60]
    files = [path for part in ("images", "labels", "pairs") for path in (SHIPPED/part).iterdir()]
    assert sum(path.stat().st_size for path in files) < 16e6 and len(files) == 340 * 2 + 40 * 3


def test_every_split_holds_every_class_and_another_seed_differs():
    for split in ("train", "val", "test"): assert load_data("samples", split=split).presence.any(0).all()
    assert not np.array_equal(sample_scene("train", 0, seed=1)[0], sample_scene("train", 0)[0])
    assert not np.array_equal(sample_scene("val", 0)[0], sample_scene("train", 0)[0])
    assert len(SAMPLE_CLASSES) == len(SAMPLE_PALETTE) == 11


def test_pose_is_undone():
    for thing in random_things(np.random.PCG64([4]), 6, 6):
        x, y = np.array([3.25, 64.5, 120.]), np.array([9.5, 80., 1.])
        u, v = thing.to_image(*thing.to_local(x, y))
        assert np.abs(u - x).max() < 5e-3 and np.abs(v - y).max() < 5e-3


def test_correspondences_by_hand():
    "A box moved by (+10, -6) and doubled: every point goes where arithmetic says; what another thing hides is left out."
    here = Thing("box", np.ones(3), np.ones(3), "plain", 1., centre=(40., 40.), radius=10.)
    there = Thing("box", np.ones(3), np.ones(3), "plain", 1., centre=(50., 34.), radius=20.)
    grid = np.arange(128) + .5
    x, y = np.tile(grid, (128, 1)), np.tile(grid[:, None], 128)
    owners = [np.where(one.covers(x, y), 0, -1) for one in (here, there)]
    hidden = owners[1].copy()
    hidden[:, :50] = 3
    rows = correspondences([here], [there], np.full((128, 128), 7), *owners) / np.array([16, 16, 16, 16, 1])
    assert .75 * (owners[0][::2, ::2] == 0).sum() < len(rows) and (rows[:, 4] == 7).all()           # rims may round outwards
    assert np.abs((rows[:, :2] - [40, 40]) * 2 + [50, 34] - rows[:, 2:4]).max() < .05
    part = correspondences([here], [there], np.full((128, 128), 7), owners[0], hidden)
    assert 0 < len(part) < len(rows) and (part[:, 2] >= 800).all()


def test_pairs():
    pairs = load_pairs(SHIPPED)
    assert len(pairs) == SAMPLE_SPLITS["pairs"] >= 40
    for pair in pairs:
        assert pair.image_a.dtype == torch.uint8 and pair.image_a.shape == pair.image_b.shape == (3, 128, 128)
        assert pair.points_a.shape == pair.points_b.shape == (len(pair.labels), 2) and len(pair.labels) >= 200
        assert pair.points_b.min() >= 0 and pair.points_b.max() < 128 and set(pair.labels.tolist()) <= set(range(5, 11))


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("PIXCL_NB_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path/"xdg"))
    assert cache_folder() == tmp_path/"xdg"/"pixcl_nb"
    monkeypatch.setenv("PIXCL_NB_CACHE", str(tmp_path/"own"))
    assert cache_folder() == tmp_path/"own"
    monkeypatch.delenv("PIXCL_NB_CACHE"), monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home()/".cache"/"pixcl_nb"


def test_render_into_cache_is_whole_or_absent(monkeypatch, tmp_path):
    monkeypatch.setenv("PIXCL_NB_CACHE", str(tmp_path))
    monkeypatch.setattr(scenes_module, "shipped_folder", lambda name: tmp_path/"site-packages"/name)     # as where nothing was shipped
    monkeypatch.setattr(scenes_module, "SAMPLE_SPLITS", {"train": 2, "val": 1, "test": 0, "pairs": 1})
    write = scenes_module.write_sample
    def fails(folder, split, *scene):
        if split == "val": raise KeyboardInterrupt
        write(folder, split, *scene)
    monkeypatch.setattr(scenes_module, "write_sample", fails)
    with pytest.raises(KeyboardInterrupt): sample_folder()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(scenes_module, "write_sample", write)
    assert len(load_data("samples")) == 2 and len(load_pairs()) == 1
    assert [path.name for path in tmp_path.iterdir()] == [f"samples-v{scenes_module.SAMPLE_VERSION}"]
    before = os.stat(sample_folder()/"classes.json").st_mtime_ns
    assert os.stat(sample_folder()/"classes.json").st_mtime_ns == before                                 # not again


def test_killed_render_leaves_nothing_under_the_final_name(tmp_path):
    code = ("import os, pixcl_nb.images.scenes as d\nold = d.write_sample\ndef kill(*scene):\n    old(*scene)\n    os.kill(os.getpid(), 9)\n"
            "d.write_sample = kill\nd.rendered_folder(d.cache_folder()/'scenes', lambda folder: d.write_samples(folder, {'train': 3}))")
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PIXCL_NB_CACHE": str(tmp_path)}, capture_output=True)
    assert done.returncode == -9 and [path.suffix for path in tmp_path.iterdir()] == [".tmp"]
    [left] = tmp_path.iterdir()
    os.utime(left, (0, 0))
    os.environ["PIXCL_NB_CACHE"], before = str(tmp_path), os.environ.get("PIXCL_NB_CACHE")
    try: rendered_folder(tmp_path/"scenes", lambda folder: write_samples(folder, {"train": 1}))
    finally: os.environ.pop("PIXCL_NB_CACHE") if before is None else os.environ.update(PIXCL_NB_CACHE=before)
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]     # the old litter is swept


# --- items, sizes, batches -------------------------------------------------------------------------------------------------

def test_item_types_and_metadata(own):
    data = load_data("folder", own)
    assert len(data) == 3 and data.names == ["a", "b.jpg", "deep/c.x"] and data.num_classes == 3 and data.class_names == ["x", "y", "z"]
    assert data.palette.dtype == torch.uint8 and data.palette.tolist() == [[1, 2, 3]] * 3 and data.extents is None
    for image, mask in (data[index] for index in range(3)):
        assert image.dtype == torch.uint8 and image.shape == (3, 12, 16) and mask.dtype == torch.int64 and mask.shape == (12, 16)
        assert set(mask.unique().tolist()) == {0, 1, 2, 255}
    assert torch.equal(data[-1][1], data[2][1]) and torch.equal(data.mask(1), data[1][1])
    with pytest.raises(IndexError): data[3]
    assert "3 images, 3 classes" in repr(data)


def test_without_classes_json_classes_are_counted(own):
    (own/"classes.json").unlink()
    assert load_data("folder", own).class_names == ["class 0", "class 1", "class 2"]
    (own/"classes.json").write_text('["x", "y", "z", "rare"]')
    assert load_data("folder", own).num_classes == 4


def test_fit_by_hand():
    assert fit(10, 20, (10, 10)) == (5, 10) and fit(20, 10, (10, 10)) == (10, 5) and fit(3, 3, (12, 9)) == (9, 9) and fit(1, 500, (8, 8)) == (1, 8)


def test_mask_is_nearest_and_image_is_averaged():
    mask = torch.tensor([[0, 1, 2, 3, 4, 5]], dtype=torch.uint8)
    small = fit_mask(mask, (1, 2))[0]
    assert small.tolist() == [int(mask[0, int((index + .5) * 3)]) for index in range(2)] == [1, 4]
    stripes = torch.tensor([0, 200], dtype=torch.uint8).repeat(8)[None, None].expand(3, 16, 16)
    assert (fit_image(stripes, (4, 4)).float() - 100).abs().max() < 25                                  # aliasing would give 0 or 200


def test_padding_and_extents(own):
    save(own/"images"/"a.png", np.full((12, 8, 3), 90))
    save(own/"labels"/"a.png", np.ones((12, 8)))
    data = load_data("folder", own, size=(24, 24))
    assert data.extents.tolist() == [[24, 16], [18, 24], [18, 24]]
    image, mask = data[0]
    assert image.shape == (3, 24, 24) and (image[:, :, 16:] == 0).all() and (mask[:, 16:] == 255).all() and (mask[:, :16] == 1).all() and (image[:, :, :16] == 90).all()
    batch = data.batch([2, 0])
    assert batch.images.shape == (2, 3, 24, 24) and batch.masks.dtype == torch.int64 and batch.extents.tolist() == [[18, 24], [24, 16]]
    with pytest.raises(ValueError, match="indices: their images differ in size"): load_data("folder", own).batch([0, 1])
    assert load_data("folder", own, size=(12, 16)).subset([1, 2]).extents is None                        # nothing is padded there


def test_cache_subset_pickle_and_workers(own):
    data = load_data("folder", own)
    part = data.subset([2, 0])
    assert part.names == ["deep/c.x", "a"] and torch.equal(part[0][0], data[2][0])
    data.cache()
    for path in (own/"images").rglob("*.*"): path.is_file() and path.unlink()
    assert data.subset([1])[0][1].dtype == torch.int64 and torch.equal(pickle.loads(pickle.dumps(data))[0][0], data[0][0])
    with pytest.raises(FileNotFoundError, match="no such image"): part[0]
    first, mask = next(iter(torch.utils.data.DataLoader(data, batch_size=3, num_workers=1)))
    assert first.shape == (3, 3, 12, 16) and mask.dtype == torch.int64


def test_cached_items_cannot_be_spoilt(own):
    data = load_data("folder", own).cache()
    data[0][1].fill_(1), data[0][0].fill_(1)
    assert data[0][0].unique().numel() > 50 and set(data[0][1].unique().tolist()) == {0, 1, 2, 255}


# --- faults ----------------------------------------------------------------------------------------------------------------

def test_faults_of_the_call(own):
    for name, message in [("sample", "name: unknown name 'sample', did you mean 'samples'"), (None, "name: unknown name None")]:
        with pytest.raises(ValueError, match=message): load_data(name)
    for name in ("camvid", "voc", "cityscapes", "pets", "folder"):
        with pytest.raises(ValueError, match=f"root: '{name}' needs the folder"): load_data(name)
        with pytest.raises(FileNotFoundError, match="root: there is no folder /nowhere"): load_data(name, "/nowhere")
    for name in ("voc", "cityscapes", "pets"):
        with pytest.raises(FileNotFoundError, match="root: .* holds no "): load_data(name, own)
    with pytest.raises(FileNotFoundError, match="split: there is no .*test.txt; splits found: .'train'."): load_data("folder", own, "test")
    with pytest.raises(ValueError, match="download: 'camvid' cannot be downloaded"): load_data("camvid", own, download=True)
    for size in ("64", 64, 64., (64,), (64, 64, 3), (64., 64), (True, 4)):
        with pytest.raises(TypeError, match="size: expected None or two whole numbers"): load_data("folder", own, size=size)
    for size in ((0, 64), (64, -1)):
        with pytest.raises(ValueError, match="size: .* is out of range"): load_data("folder", own, size=size)


def test_faults_of_the_lists(own):
    (own/"train.txt").write_text("a\nmissing\n")
    with pytest.raises(FileNotFoundError, match="train.txt lists 'missing', but there is no such image"): load_data("folder", own)
    save(own/"images"/"missing.png", np.zeros((4, 4, 3)))
    with pytest.raises(FileNotFoundError, match="train.txt lists 'missing', but there is no such label"): load_data("folder", own)
    (own/"train.txt").write_text("\n \n")
    with pytest.raises(ValueError, match="split: .*train.txt is empty"): load_data("folder", own)
    (own/"train.txt").unlink()
    with pytest.raises(FileNotFoundError, match="split: there is no .*train.txt; write one name per line"): load_data("folder", own)
    with pytest.raises(ValueError, match="is empty"): SegmentationData([], [], [], ["x"])


@pytest.mark.parametrize("text,message", [("{", "classes.json: is not JSON"), ("{}", "classes.json: expected a list"), ("3", "classes.json: expected a list"),
                                          ("[]", "classes.json: expected a list")])
def test_faults_of_classes_json(own, text, message):
    (own/"classes.json").write_text(text)
    with pytest.raises(ValueError, match=message): load_data("folder", own)


def test_faults_of_the_files(own):
    data, label, image = load_data("folder", own), own/"labels"/"a.png", own/"images"/"a.png"
    whole = label.read_bytes()
    save(label, np.full((12, 16), 3))
    with pytest.raises(ValueError, match="a.png: mask holds id 3, above the 3 classes"): data[0]
    with pytest.raises(ValueError, match="a.png: mask holds id 3"): data.presence
    Image.fromarray(np.full((12, 16), 300, np.uint16)).save(label)
    with pytest.raises(ValueError, match="a.png: mask holds id 300"): data[0]
    save(label, np.zeros((12, 16, 3)))
    with pytest.raises(ValueError, match="a.png: mask has mode RGB"): data[0]
    save(label, np.zeros((16, 12)))
    with pytest.raises(ValueError, match="labels/a.png: mask is .16, 12., its image .*images/a.png is .12, 16."): data[0]
    label.write_bytes(whole[:len(whole) // 2])
    with pytest.raises(ValueError, match="labels/a.png: cannot be decoded"): data[0]
    label.unlink()
    with pytest.raises(FileNotFoundError, match="labels/a.png: no such mask"): data[0]
    label.write_bytes(whole)
    cut = image.read_bytes()
    image.write_bytes(cut[:len(cut) // 2])
    with pytest.raises(ValueError, match="images/a.png: cannot be decoded"): data[0]
    image.write_bytes(b"")
    with pytest.raises(ValueError, match="images/a.png: cannot be decoded"): data[0]
    with pytest.raises(ValueError, match="images/a.png: cannot be decoded"): load_data("folder", own, size=(4, 4)).extents
    jpeg = own/"images"/"b.jpg"
    jpeg.write_bytes(jpeg.read_bytes()[:400])
    with pytest.raises(ValueError, match="images/b.jpg: cannot be decoded"): data[1]
    jpeg.write_bytes(b"not an image at all")
    with pytest.raises(ValueError, match="images/b.jpg: cannot be decoded"): data[1]


def test_faults_of_masks_without_labels(own):
    data = load_data("folder", own)
    assert check_labelled(data) is data
    for path in (own/"labels").rglob("*.png"): save(path, np.full((12, 16), 255))
    with pytest.raises(ValueError, match="data: folder train has no labelled pixel"): check_labelled(data)
    with pytest.raises(ValueError, match="data: it has no labelled pixel"): check_labelled([(None, torch.full((2, 2), 255))])
    (own/"classes.json").unlink()
    with pytest.raises(ValueError, match="hold no class at all"): load_data("folder", own)


def test_odd_but_good_files(tmp_path):
    "Grey, transparent, indexed and 16-bit images all become uint8 RGB; a 1-bit mask is classes 0 and 1."
    for mode in ("L", "RGBA", "P", "LA", "CMYK"):
        path = tmp_path/f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}"
        Image.new(mode, (5, 4)).save(path)
        image = read_image(path)
        assert image.dtype == torch.uint8 and image.shape == (3, 4, 5)
    Image.fromarray(np.full((4, 5), 40000, np.uint16)).save(tmp_path/"deep.png")
    assert read_image(tmp_path/"deep.png").unique().tolist() == [40000 >> 8]
    Image.new("1", (5, 4), 1).save(tmp_path/"bits.png")
    assert read_mask(tmp_path/"bits.png", id_lookup(2)).unique().tolist() == [1]


# --- the data sets, as small copies of their layouts -----------------------------------------------------------------------

def test_camvid(tmp_path):
    save(tmp_path/"images"/"one.jpg", np.zeros((4, 6, 3)))
    save(tmp_path/"labels"/"one.png", np.array([[0, 3, 10, 11, 11, 1]] * 4))
    (tmp_path/"val.txt").write_text("one\n")
    data = load_data("camvid", tmp_path, "val")
    assert data.num_classes == 11 and data.class_names[3] == "Road" and data[0][1][0].tolist() == [0, 3, 10, 255, 255, 1]


def test_voc(tmp_path):
    base = tmp_path/"VOCdevkit"/"VOC2012"
    save(base/"JPEGImages"/"2007_000001.jpg", np.zeros((4, 3, 3)))
    save(base/"SegmentationClass"/"2007_000001.png", np.array([[0, 255, 20]] * 4))
    (base/"ImageSets"/"Segmentation").mkdir(parents=True)
    (base/"ImageSets"/"Segmentation"/"train.txt").write_text("2007_000001\n")
    data = load_data("voc", tmp_path)
    assert data.num_classes == 21 and data[0][1][0].tolist() == [0, 255, 20] and data.palette[15].tolist() == [192, 128, 128]
    (base/"ImageSets"/"Segmentation"/"val.txt").write_text("2007_000002\n")
    with pytest.raises(FileNotFoundError, match="2007_000002.jpg: is missing though it is listed"): load_data("voc", tmp_path, "val")


def test_voc_agrees_with_torchvision(tmp_path):
    from torchvision.datasets import VOCSegmentation
    test_voc(tmp_path)
    [(image, mask)] = VOCSegmentation(tmp_path, image_set="train")
    ours = load_data("voc", tmp_path)[0]
    assert np.array_equal(np.array(mask), ours[1].numpy()) and np.array_equal(np.array(image), ours[0].permute(1, 2, 0).numpy())


def test_cityscapes(tmp_path):
    name = "bochum_000000_000885"
    save(tmp_path/"leftImg8bit"/"val"/"bochum"/f"{name}_leftImg8bit.png", np.zeros((2, 6, 3)))
    label = save(tmp_path/"gtFine"/"val"/"bochum"/f"{name}_gtFine_labelIds.png", np.array([[7, 0, 33, 11, 5, 26]] * 2))
    data = load_data("cityscapes", tmp_path, "val")
    assert data.num_classes == 19 and data.class_names[0] == "road" and data.names == [f"bochum/{name}"]
    assert data[0][1][0].tolist() == [0, 255, 18, 2, 255, 13] and data.palette[0].tolist() == [128, 64, 128]
    with pytest.raises(ValueError, match="split: unknown name 'train'"): load_data("cityscapes", tmp_path, "train")
    label.unlink()
    with pytest.raises(FileNotFoundError, match="labelIds.png: is missing"): load_data("cityscapes", tmp_path, "val")


def test_pets(tmp_path):
    base = tmp_path/"oxford-iiit-pet"
    names = [f"Bengal_{number}" for number in range(20)]
    for name in names:
        save(base/"images"/f"{name}.jpg", np.zeros((2, 3, 3)))
        save(base/"annotations"/"trimaps"/f"{name}.png", np.array([[1, 2, 3]] * 2))
    for split in ("trainval", "test"): (base/"annotations"/f"{split}.txt").write_text("".join(f"{name} 1 1 1\n" for name in names))
    data = {split: load_data("pets", tmp_path, split) for split in ("train", "val", "trainval", "test")}
    assert {split: len(part) for split, part in data.items()} == {"train": 18, "val": 2, "trainval": 20, "test": 20}
    assert not set(data["train"].names) & set(data["val"].names)
    assert data["train"].class_names == ["background", "pet"] and data["train"][0][1][0].tolist() == [1, 0, 255]


def test_palette_is_vocs():
    assert spread_palette(6) == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128]]


# --- subsets, photographs, keypoints ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(5))
def test_label_subset_is_nested_and_covers(seed):
    data = load_data("samples", SHIPPED)
    parts = [label_subset(data, count, seed=seed) for count in (1, 2, 5, 20)] + [label_subset(data, fraction=f, seed=seed) for f in (.2, 1.)]
    assert [len(part) for part in parts] == [1, 2, 5, 20, 48, 240]
    for small, large in zip(parts, parts[1:]): assert set(small.names) < set(large.names)
    for part in parts[2:]: assert part.presence.any(0).all()
    assert label_subset(data, 5, seed=seed).names == parts[2].names


def test_label_subset_covers_a_rare_class(own):
    names = [f"n{number}" for number in range(30)]
    for number, name in enumerate(names):
        save(own/"images"/f"{name}.png", np.zeros((2, 2, 3)))
        save(own/"labels"/f"{name}.png", np.full((2, 2), 2 if number == 17 else number % 2))
    (own/"train.txt").write_text("\n".join(names))
    data = load_data("folder", own)
    for seed in range(6): assert "n17" in label_subset(data, 3, seed=seed).names and label_subset(data, 3, seed=seed).presence.any(0).all()
    assert len({tuple(label_subset(data, 8, seed=seed).names) for seed in range(6)}) == 6


@pytest.mark.parametrize("arguments,message", [({}, "give exactly one"), ({"count": 3, "fraction": .5}, "give exactly one"), ({"count": 0}, "count: 0"),
                                               ({"count": 241}, "count: 241"), ({"fraction": 0}, "fraction: 0"), ({"fraction": 1.5}, "fraction: 1.5"),
                                               ({"fraction": float("nan")}, "fraction: nan")])
def test_faults_of_label_subset(arguments, message):
    with pytest.raises(ValueError, match=message): label_subset(load_data("samples", SHIPPED), **arguments)


def test_photos_come_with_the_wheels():
    photos = load_photos()
    assert {"astronaut", "chelsea", "coffee", "rocket", "china", "flower"} <= set(photos)
    for photo in photos.values(): assert photo.dtype == torch.uint8 and photo.shape[0] == 3 and photo.float().std() > 20


def test_stereo_pair_points_where_it_says():
    left, right, disparity = stereo_pair()
    assert left.shape == right.shape == (3, *disparity.shape) and disparity.dtype == torch.float32
    known = disparity.isfinite()
    assert .8 < known.float().mean() < 1 and disparity[~known].isnan().all() and disparity[known].min() > 0
    row, column = torch.meshgrid(*map(torch.arange, disparity.shape), indexing="ij")
    def difference(sign):
        there = (column + sign * disparity).round()
        inside = known & (there >= 0) & (there < disparity.shape[1])
        return (left[:, row[inside], column[inside]].float() - right[:, row[inside], there[inside].long()].float()).abs().mean()
    assert difference(-1) < 10 and difference(1) > 30


def test_keypoint_pairs(tmp_path):
    animal = lambda image, shown: {"image": image, "split": "val", "cls": "dog", "voc_id": 12, "bbox_xyxy": [1, 2, 50, 40],
                                   "keypoints": [[10 + place, 20 * (image == "b"), float(place in shown)] for place in range(3)]}
    (tmp_path/"keypoints.json").write_text(json.dumps({"names": ["nose", "ear", "tail"], "instances": [animal("a", [0, 1]), animal("b", [1, 2])]}))
    (tmp_path/"pairs.csv").write_text("split,class,image_a,image_b,shared_keypoints\nval,dog,a,b,1\ntrain,dog,b,a,1\n")
    [pair] = load_keypoint_pairs(tmp_path)
    assert (pair.image_a, pair.image_b, pair.kind, pair.keypoints) == ("a", "b", "dog", ["ear"])
    assert pair.points_a.tolist() == [[11, 0]] and pair.points_b.tolist() == [[11, 20]] and pair.box_b.tolist() == [1, 2, 50, 40]
    assert load_keypoint_pairs(tmp_path, "train")[0].image_a == "b"
    with pytest.raises(ValueError, match="split: unknown name 'test'"): load_keypoint_pairs(tmp_path, "test")
    with pytest.raises(FileNotFoundError, match="root: there is no folder"): load_keypoint_pairs(tmp_path/"no")


def test_a_folder_of_pictures_without_labels(tmp_path):
    for name, side in (("train/cats/a.jpg", 40), ("train/b.PNG", 50), ("notes.txt", 0)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (side, 30)).save(tmp_path / name, format="png") if side else (tmp_path / name).write_text("no picture")
    data = load_data("images", tmp_path, size=(32, 32))
    assert (len(data), data.names, data.extents.tolist()) == (2, ["b.PNG", "cats/a.jpg"], [[19, 32], [24, 32]])
    assert (data[0][1] == 255).all() and data.batch([0, 1]).images.shape == (2, 3, 32, 32)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no picture below"): load_data("images", tmp_path / "empty")
