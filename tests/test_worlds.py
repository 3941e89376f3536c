"""Worlds: each dial does what it says, the samples keep their pixels, thousands of scenes are rendered once."""
import json
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest

from pixcl_nb.evaluation.keypoints import pck_pairs
from pixcl_nb.experiments.bench import DemoConfig, keypoint_score
from pixcl_nb.experiments.claims import ClaimsConfig, point_score
from pixcl_nb.images import worlds
from pixcl_nb.images.data import load_data, scene_folder
from pixcl_nb.images.pairs import load_pairs
from pixcl_nb.images.scenes import sample_pair, sample_scene, SAMPLES, World
from pixcl_nb.images.worlds import world_card, world_folder, WORLDS
from pixcl_nb.networks.weights import sample_encoder


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path): monkeypatch.setenv("PIXCL_NB_CACHE", str(tmp_path/"cache"))


def bits(world):
    parts = [sample_scene("unlabelled", index, world=world) for index in range(3)]
    return sha256(b"".join(array.tobytes() for pair in parts for array in pair)).hexdigest()[:16]


def test_the_pixels_of_every_preset():
    "A changed pixel needs a new SAMPLE_VERSION, which is part of the cached folder's name, and new values here."
    assert {name: bits(world) for name, world in WORLDS.items()} == PIXELS


PIXELS = {"adversarial": "849dc70fde5882a9", "natural": "62230c4e9aaed475", "grey": "c90c1d6d85185acf", "coloured": "4b1b000cd95de704"}


@pytest.mark.parametrize("dial, value", [("colour", 1.), ("saturation", .5), ("light", 0.), ("parts", 1.), ("clutter", (50, 60))])
def test_a_dial_of_appearance_moves_no_thing(dial, value):
    image, mask = sample_scene("train", 2)
    other, same = sample_scene("train", 2, world=replace(SAMPLES, **{dial: value}))
    if dial in ("saturation", "light"): assert np.array_equal(mask, same)
    assert not np.array_equal(image, other)


@pytest.mark.parametrize("dial, value", [("texture", 0.), ("outline", 0.), ("layout", 1.), ("context", 1.), ("pose", 0.), ("scale", (8, 12))])
def test_a_dial_of_content_changes_the_picture(dial, value):
    changed = [not np.array_equal(sample_scene("train", index)[0], sample_scene("train", index, world=replace(SAMPLES, **{dial: value}))[0]) for index in range(4)]
    assert any(changed)


def test_colour_tells_as_much_as_its_dial_says():
    "Share of grass pixels that are green (more green than red and blue)."
    def green(colour):
        hits = count = 0
        for index in range(40):
            image, mask = sample_scene("train", index, world=World(colour=colour))
            pixels = image[mask == 1].astype(int)
            hits, count = hits + ((pixels[:, 1] > pixels[:, 0]) & (pixels[:, 1] > pixels[:, 2])).sum(), count + len(pixels)
        return hits / count
    assert green(0.) < green(.5) < green(1.) and green(1.) > .9


def test_grey_has_no_colour_and_keeps_the_masks():
    image, mask = sample_scene("val", 1, world=WORLDS["grey"])
    assert not np.ptp(image.astype(int), axis=2).any() and np.array_equal(mask, sample_scene("val", 1)[1])


def test_pairs_show_the_same_things_in_every_world():
    for world in WORLDS.values():
        image_a, image_b, points = sample_pair(3, world=world)
        assert len(points) > 100 and set(points[:, 4]) <= set(range(5, 11)) and not np.array_equal(image_a, image_b)


@pytest.mark.parametrize("settings, word", [({"colour": -.1}, "colour"), ({"pose": 2}, "pose"), ({"light": 3}, "light"), ({"scale": (5, 5)}, "scale"), ({"clutter": (0, 3)}, "clutter")])
def test_a_dial_out_of_range_is_named(settings, word):
    with pytest.raises(ValueError, match=word): World(**settings)


def test_a_world_is_rendered_once_and_under_its_own_name(tmp_path):
    splits = {"train": 2, "unlabelled": 3, "pairs": 1}
    folder = world_folder("natural", splits=splits, jobs=1, progress=False)
    stamp = (folder/"classes.json").stat().st_mtime_ns
    assert world_folder("natural", splits=splits, jobs=1) == folder and (folder/"classes.json").stat().st_mtime_ns == stamp
    other = world_folder(replace(WORLDS["natural"], context=.7), splits=splits, jobs=1, progress=False)
    more = world_folder("natural", splits=splits | {"unlabelled": 4}, jobs=1, progress=False)
    assert len({folder, other, more}) == 3
    assert World(**{name: tuple(value) if isinstance(value, list) else value for name, value in json.loads((folder/"classes.json").read_text())["about"]["world"].items()}) == WORLDS["natural"]
    data = load_data("samples", root=folder, split="unlabelled")
    assert len(data) == 3 and np.array_equal(data[1][0].permute(1, 2, 0).numpy(), sample_scene("unlabelled", 1, world=WORLDS["natural"])[0])


def test_the_natural_world_is_a_data_set_with_a_name(monkeypatch):
    "From Python, and from a shell with its pairs; asked for once, whatever asks."
    asked = []
    def few(name):
        asked.append(name)
        return world_folder(name, splits=dict(train=12, val=2, test=3, unlabelled=4, pairs=1), jobs=1, progress=False)
    monkeypatch.setattr(worlds, "world_folder", few)
    data = {split: load_data("natural", split=split) for split in ("train", "val", "test", "unlabelled")}
    assert {split: len(part) for split, part in data.items()} == dict(train=12, val=2, test=3, unlabelled=4) and set(asked) == {"natural"}
    assert np.array_equal(data["train"][1][0].permute(1, 2, 0).numpy(), sample_scene("train", 1, world=WORLDS["natural"])[0])
    pairs = load_pairs(scene_folder("natural"))
    assert len(pairs) == 1 and np.array_equal(pairs[0].image_a.permute(1, 2, 0).numpy(), sample_pair(0, world=WORLDS["natural"])[0])
    encoder = sample_encoder("densecl", "natural")
    for score in (point_score(encoder, ClaimsConfig(data="natural", size=(128, 128))), keypoint_score(encoder, DemoConfig(data="natural"))["score"]):
        assert score == pck_pairs(encoder, pairs)["pck"]
    asked.clear()
    assert len(load_data("natural", root=few("natural"), split="val")) == 2 and asked == ["natural"]           # a folder that is told is taken
    with pytest.raises((ValueError, FileNotFoundError), match="valid"): load_data("natural", split="valid")


def test_two_processes_render_the_same_files():
    one = world_folder("grey", splits={"train": 4}, jobs=1, progress=False)
    files = {path.name: path.read_bytes() for path in (one/"images").iterdir()}
    import shutil
    shutil.rmtree(one)
    two = world_folder("grey", splits={"train": 4}, jobs=2, progress=False)
    assert {path.name: path.read_bytes() for path in (two/"images").iterdir()} == files


def test_an_unknown_world_is_named():
    with pytest.raises(ValueError, match="natural"): world_folder("naturl")
    with pytest.raises(ValueError, match="World"): world_folder(3)


@pytest.mark.long
def test_a_card_scores_all_three_learners():
    folder = world_folder("coloured", splits={"train": 12, "test": 4}, jobs=1, progress=False)
    card = world_card("coloured", (0, 1), folder=folder, steps=2)
    assert card["scenes"] == {"train": 12, "test": 4} and len(card["trees"]) == len(card["network"]) == 2 and card["colour table"][0] > .15
