"""The widgets from Python's side: what they take, what they refuse, what they compute; `set_state` plays the browser."""
import base64
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pixcl_nb.images.cells import mask_at_stride
from pixcl_nb.images.compositor import compose, copy_paste, CopyPasteConfig
from pixcl_nb.images.data import load_data
from pixcl_nb.images.pairs import load_pairs, StereoPair
from pixcl_nb.networks.encoders import create_encoder
from pixcl_nb.evaluation.separation import foreground_separation
from pixcl_nb.positives.matching import geometric_positions, match_features
from pixcl_nb.methods.contract import create_method
from pixcl_nb.images.views import ViewConfig, random_view
from pixcl_nb.widgets import CopyPasteStudio, CorrespondenceExplorer, SeparationExplorer
from pixcl_nb.widgets.base import PixelWidget, dequantise, offline_page, picture_uri, quantise, uri_picture
from pixcl_nb.widgets.copy_paste import block_mask
from pixcl_nb.widgets.separation import foreground_of, mask_cells


def noise(*shape, seed=0): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
def picture(height, width, seed=0): return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def explorer():
    a = noise(32, 12, 16)
    return CorrespondenceExplorer(picture(96, 128), picture(96, 128, 1), a, a.roll(3, 2) + .4 * noise(32, 12, 16, seed=1))


@pytest.fixture(scope="module")
def pair(): return copy_paste(load_data("samples", split="val").batch(range(4)).images, CopyPasteConfig(size=128, stride=8, area=(.2, .3)), torch.Generator().manual_seed(0))


# ---------------------------------------------------------------- the base
def test_quantised_cosines_are_within_a_hundredth_and_zero_vectors_stay_zero():
    a = noise(64, 9, 7); a[:, 0, 0] = 0
    back = dequantise(quantise("a", a))
    unit = F.normalize(a, dim=0)
    assert (back[:, 0, 0] == 0).all()
    cosines = lambda m: m.flatten(1).T @ m.flatten(1)
    assert (cosines(back) - cosines(unit)).abs().max() < .01


def test_huge_and_tiny_features_quantise_like_any_others():
    a = noise(16, 4, 4)
    for factor in (1e30, 1e-25): assert quantise("a", a * factor)["data"] == quantise("a", a)["data"]


@pytest.mark.parametrize("change, words", [(lambda a: a[0], "features_a.*axes"), (lambda a: a.masked_fill(a > 2, float("nan")), "features_a.*NaN"),
                                           (lambda a: (a * 9).int(), "features_a.*float"), (lambda a: a[:, :0], "features_a.*empty"),
                                           (lambda a: torch.zeros(1).expand(1024, 2100, 2100), "features_a.*GB")])
def test_bad_features_are_refused_in_one_clear_line(change, words):
    with pytest.raises(ValueError, match=words): CorrespondenceExplorer(picture(96, 128), picture(96, 128), change(noise(32, 12, 16)), noise(32, 12, 16))


def test_a_map_of_another_shape_than_its_image_is_refused():
    with pytest.raises(ValueError, match="features_b.*do not fit"): CorrespondenceExplorer(picture(96, 128), picture(96, 128), noise(8, 12, 16), noise(8, 16, 12))
    with pytest.raises(ValueError, match="channels"): CorrespondenceExplorer(picture(96, 128), picture(96, 128), noise(8, 12, 16), noise(9, 12, 16))


def test_several_maps_that_are_too_much_together_are_refused(monkeypatch):
    from pixcl_nb.widgets import base
    monkeypatch.setattr(base, "STATE_LIMIT", 20_000)
    with pytest.raises(ValueError, match="GB"): CorrespondenceExplorer(picture(96, 128), picture(96, 128), {str(i): (noise(32, 12, 16), noise(32, 12, 16)) for i in range(3)})


def test_a_picture_survives_the_journey_bit_for_bit():
    image = picture(33, 47)
    assert (uri_picture(picture_uri("image", image)) == image.permute(1, 2, 0).numpy()).all()


def test_the_output_holds_the_live_view_and_a_picture(explorer):
    data, _ = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    width, height = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).size
    assert width >= 400 and height >= 100


def test_nbconvert_shows_the_picture_where_there_is_no_widget_state(explorer):
    import nbformat
    from nbconvert import HTMLExporter
    data, _ = explorer._repr_mimebundle_()
    cell = nbformat.v4.new_code_cell("w", outputs=[nbformat.v4.new_output("execute_result", data=data, execution_count=1)])
    body, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    assert "data:image/png;base64," in body


def test_an_exported_page_is_whole_and_asks_the_network_for_nothing(explorer, tmp_path):
    path = explorer.export_html(tmp_path / "a" / "page.html", title="A <b>")
    text = path.read_text()
    assert "<title>A &lt;b&gt;</title>" in text
    markup = re.sub(r'<script type="application/json".*?</script>', "", text, flags=re.S)
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:)?//|@import|url\(|fetch\(|import\(""", markup)
    state = json.loads(re.search(r'<script type="application/json" id="state">(.*?)</script>', text, re.S).group(1))
    assert base64.b64decode(state["layers"][0]["a"]["data"]["$bytes"]) == explorer.layers[0]["a"]["data"]
    assert "_esm" not in state and "layout" not in state


def test_text_that_would_close_a_script_does_not():
    text = offline_page("const a = '</script>';\nexport default { render };", "", {"label": "</script><script>alert(1)</script>"}, "t")
    assert text.count("</script>") == 2


def test_a_page_needs_exactly_one_module():
    with pytest.raises(ValueError, match="export default"): offline_page("const a = 1;", "", {}, "t")


def test_an_unknown_script_is_named():
    with pytest.raises(ValueError, match="static/nothing.js"):
        class Nothing(PixelWidget): script = "nothing"


def test_widgets_are_imported_one_by_one():
    code = "import sys, pixcl_nb.widgets as w; assert 'pixcl_nb.widgets.embedding' not in sys.modules; w.CorrespondenceExplorer; assert 'pixcl_nb.widgets.separation' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    import pixcl_nb.widgets
    with pytest.raises(AttributeError, match="pixcl_nb.widgets attribute Unknown"): pixcl_nb.widgets.Unknown


def test_the_package_data_holds_the_front_end():
    from importlib.resources import files
    names = {file.name for file in (files("pixcl_nb") / "static").iterdir()}
    assert {f"{name}.{kind}" for name in ("common", "correspondence", "copy_paste", "separation") for kind in ("js", "css")} <= names


# ---------------------------------------------------------------- CorrespondenceExplorer
def test_the_match_is_that_of_match_features_on_the_same_rounded_maps(explorer):
    layer = explorer.layers[0]
    a, b = (dequantise({key: layer[side][key] for key in ("data", "scale", "rows", "columns", "channels")}) for side in "ab")
    best = match_features(a[None].double(), b[None].double())[0]
    agree = 0
    for cell in range(0, 192, 7):
        found = explorer.scores((cell % 16 * 8 + 3, cell // 16 * 8 + 3))
        agree += found["match"] == [best[cell] % 16 * 8 + 4, best[cell] // 16 * 8 + 4]
    assert agree >= 27                                     # 28 cells; match_features divides by the rounded lengths, which can turn a tie


def test_what_the_browser_sends_reaches_python_and_observers(explorer):
    seen = []
    explorer.observe(lambda change: seen.append(change.new), "match")
    explorer.set_state({"pixel": [3, 4], "match": [60.0, 12.0], "similarity": .5, "mutual": True, "error": None, "top": [[60.0, 12.0, .5]]})
    assert explorer.pixel == [3, 4] and seen == [[60.0, 12.0]] and explorer.mutual and explorer.error is None
    explorer.unobserve_all("match")


def test_pointing_from_python_fills_in_the_answer(explorer):
    explorer.point(70, 20)
    assert explorer.pixel == [70, 20] and explorer.match == explorer.scores((70, 20))["match"] and -1 <= explorer.similarity <= 1.02
    with pytest.raises(ValueError, match="x: 128"): explorer.point(128, 0)


def test_swapping_sides_swaps_the_question(explorer):
    there = explorer.scores((70, 20))
    if there["mutual"]:
        explorer.swapped = True
        back = explorer.scores([int(v) for v in there["match"]])
        explorer.swapped = False
        assert back["mutual"] and back["match"] == [8 * (70 // 8) + 4, 8 * (20 // 8) + 4]
    else: pytest.fail("choose another pixel; this one has no mutual match")


def test_an_encoder_is_run_on_both_images_with_its_padding_known():
    torch.manual_seed(0)
    widget = CorrespondenceExplorer(picture(50, 75), picture(64, 64, 1), create_encoder("pixcl_tiny"))
    a, b = widget.layers[0]["a"], widget.layers[0]["b"]
    assert (a["rows"], a["columns"]) == (7, 10) and a["down"] == pytest.approx(8 / 50) and a["across"] == pytest.approx(8 / 75)
    assert (b["rows"], b["columns"]) == (8, 8)


def test_methods_encoders_and_maps_can_be_listed_together():
    torch.manual_seed(0)
    widget = CorrespondenceExplorer(picture(64, 64), picture(64, 64, 1), {"moco": create_method("moco", seed=0), "maps": (noise(4, 8, 8), noise(4, 8, 8))}, other="maps")
    assert [layer["name"] for layer in widget.layers] == ["moco", "maps"] and widget.layers[0]["a"]["channels"] == 256
    with pytest.raises(ValueError, match="map"): widget.layer = "mapps"
    with pytest.raises(TypeError, match="encoder"): CorrespondenceExplorer(picture(64, 64), picture(64, 64), {"x": 3})


def test_the_ways_of_giving_features_exclude_each_other():
    a = noise(4, 8, 8)
    for arguments in (dict(features_a=a), dict(features_b=a), dict(), dict(features_a=a, features_b=a, encoder=create_encoder("pixcl_tiny"))):
        with pytest.raises((ValueError, TypeError)): CorrespondenceExplorer(picture(64, 64), picture(64, 64), **arguments)


def test_disparity_gives_the_true_place():
    disparity = torch.full((60, 90), 10.); disparity[:, :40] = float("nan")
    widget = CorrespondenceExplorer(picture(60, 90), picture(60, 90, 1), noise(4, 6, 9), noise(4, 6, 9, seed=1), truth=disparity)
    assert widget.true_place((70, 30)) == pytest.approx([60.5, 30.5], abs=1e-4)
    assert widget.true_place((20, 30)) is None
    widget.swapped = True
    assert widget.true_place((60, 30)) == pytest.approx([70.5, 30.5], abs=1.)


def test_two_views_give_the_true_place_flips_included():
    image = picture(80, 100)[None]
    config = ViewConfig(size=64, scale=(.5, .9))
    a, b = (random_view(image, config, torch.Generator().manual_seed(seed)) for seed in (1, 5))
    assert bool(a.flipped[0]) != bool(b.flipped[0]), "choose seeds with one flip"
    widget = CorrespondenceExplorer(a.image[0], b.image[0], noise(4, 8, 8), noise(4, 8, 8), truth=(a, b))
    there = geometric_positions(a, b, 1)[0].reshape(64, 64, 2)
    compared = 0
    for y in range(1, 64, 9):
        for x in range(1, 64, 9):
            if there[y, x].isfinite().all():
                assert widget.true_place((x, y)) == pytest.approx(there[y, x].tolist(), abs=1e-3)
                compared += 1
    assert compared > 10


def test_points_give_the_true_place_near_them_only():
    points = load_pairs()[0]
    widget = CorrespondenceExplorer(points.image_a, points.image_b, noise(4, 16, 16), noise(4, 16, 16), truth=(points.points_a, points.points_b))
    x, y = points.points_a[0].tolist()
    assert widget.true_place((int(x), int(y))) is not None
    far = next((x, y) for x in range(0, 128, 4) for y in range(0, 128, 4) if (points.points_a - torch.tensor([x + .5, y + .5])).norm(dim=1).min() > 6)
    assert widget.true_place(far) is None


@pytest.mark.parametrize("truth, words", [(torch.zeros(3, 3), "truth"), (torch.full((96, 128), float("nan")), "known"), ((noise(4, 2), noise(5, 2)), "truth"), ("left", "truth")])
def test_a_truth_that_cannot_be_is_refused(truth, words):
    with pytest.raises(ValueError, match=words): CorrespondenceExplorer(picture(96, 128), picture(96, 128), noise(8, 12, 16), noise(8, 12, 16), truth=truth)


# ---------------------------------------------------------------- CopyPasteStudio
@pytest.fixture(scope="module")
def studio(): return CopyPasteStudio(load_data("samples", split="val"), size=96, stride=8, limit=3)


@pytest.mark.parametrize("declared, offered", [((0,), False), (None, False), ((), True)])
def test_studio_offers_no_background_as_an_object(declared, offered):
    data = load_data("samples", split="val")
    data.background = declared                                                   # None: what CopyPasteConfig takes
    studio = CopyPasteStudio(data, size=96, stride=8, limit=3, shape="object")
    names = [name for entry in studio.foregrounds for name in entry["objects"]["names"]]
    assert names and any("sky" in name for name in names) == offered
    assert ("background=()" in studio.code) == offered


def test_a_block_is_one_that_paste_mask_could_have_drawn():
    mask = block_mask(.3, 1.25, .5, 0, 96, stride=8)[0]
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    assert mask.sum() == len(rows) * len(columns)
    assert abs(len(rows) * len(columns) / 96**2 - .3) < .01 and abs(len(rows) / len(columns) - 1.25) < .03
    assert rows[0] == 0 and abs((columns[0] + columns[-1]) / 2 - 47.5) <= 1
    over = block_mask(.3, 1., 0, .9999, (64, 96), "anywhere", 8)
    assert over[0, -1, 0] and mask_at_stride(over, 8).sum() == 1


@pytest.mark.parametrize("changes, words", [(dict(area=0), "area"), (dict(aspect=-1), "aspect"), (dict(x=1.5), "x"), (dict(size=0), "size"), (dict(position="left"), "position"), (dict(stride=200), "stride")])
def test_a_block_that_cannot_be_is_refused(changes, words):
    with pytest.raises(ValueError, match=words): block_mask(**{**dict(area=.3, aspect=1, x=0, y=0, size=96), **changes})


def test_the_printed_python_makes_the_pair(studio):
    for settings in (dict(shape="rectangle", position="anywhere", query={**studio.query, "x": .9, "area": .4}), dict(shape="object", object=0)):
        studio.set_state(settings)
        studio.describe()
        names = {"studio": studio}
        exec(studio.code, names)
        query, key, query_mask, key_mask = studio.compose()
        assert torch.equal(names["query"], query) and torch.equal(names["key"], key) and torch.equal(names["query_mask"], query_mask)
        assert int(names["query_cells"].sum()) == studio.counts["query"] and isinstance(names["config"], CopyPasteConfig)
    studio.set_state(dict(shape="rectangle", position="released"))


def test_pairs_are_counted_as_the_loss_uses_them(studio):
    studio.describe()
    *_, query, key = studio.compose()
    q, k = (mask_at_stride(mask, 8)[0].flatten() for mask in (query, key))
    assert studio.counts["positives"] == int((q[:, None] & k[None]).sum()) and studio.counts["negatives"] == int((~q[:, None] & k[None]).sum())
    assert studio.counts["positives"] + studio.counts["negatives"] + studio.counts["unused"] == 12**4


def test_a_block_that_a_config_refuses_is_said_to_be(studio):
    studio.set_state({"query": {**studio.query, "area": .005}})
    assert "refuses" in studio.describe().code
    studio.set_state({"query": {**studio.query, "area": .35}})


def test_the_studio_refuses_what_it_cannot_show():
    for bad, words in (([], "empty"), ({"a": 99 * noise(3, 8, 8)}, "uint8"), (7, "expected")):
        with pytest.raises((ValueError, TypeError), match=words): CopyPasteStudio(bad)
    with pytest.raises(ValueError, match="background"): CopyPasteStudio([picture(64, 64), picture(64, 64, 1)], size=64, query={"background": "nobody"})
    with pytest.raises(ValueError, match="same name"): CopyPasteStudio([picture(64, 64)], [picture(64, 64)], size=64)


# ---------------------------------------------------------------- SeparationExplorer
def test_separation_is_that_of_evaluation_on_the_same_rounded_map(pair):
    features = noise(48, 16, 16); features[:, pair.masks_at(8)[0][0]] += .4
    widget = SeparationExplorer(pair, features)
    rounded = dequantise({key: widget.layers[0]["map"][key] for key in ("data", "scale", "rows", "columns", "channels")})
    reference = foreground_separation(rounded[None], pair.masks_at(8)[0][:1])
    assert widget.auroc == pytest.approx(reference["auroc"], abs=2e-3) and widget.gap == pytest.approx(reference["gap"], abs=2e-3)
    assert widget.auroc > .6, "the foreground was made alike"


def test_the_best_threshold_is_best(pair):
    features = noise(48, 16, 16); features[:, pair.masks_at(8)[0][0]] += .5
    widget = SeparationExplorer(pair, features)
    best = widget.iou
    for step in (-.05, -.01, .01, .05):
        widget.set_state({"thresholds": {"features": widget.best_threshold() + step}})
        assert widget.describe().iou <= best + 1e-9
    widget.set_state({"thresholds": {}})
    assert widget.describe().iou == best and best > .5


def test_one_cell_can_be_the_anchor(pair):
    widget = SeparationExplorer(pair, noise(8, 16, 16))
    widget.set_state({"anchors": "cell", "pixel": [100, 20]})
    found = widget.describe().separation()
    assert len(found["fg_fg"]) + len(found["fg_bg"]) == 255 and found["score"][2 * 16 + 12] == found["score"].max()


def test_masks_come_to_cells_by_majority_and_ignored_pixels_do_not_vote():
    mask = torch.zeros(8, 8, dtype=torch.long); mask[:4, :3] = 1; mask[:2, :2] = 255; mask[4:, 4:] = 255
    assert mask_cells(mask, (2, 2)).tolist() == [[1, 0], [0, 255]]


@pytest.mark.parametrize("mask, words", [(torch.zeros(128, 128), "foreground"), (torch.ones(128, 128).bool(), "background"), (torch.arange(128 * 128).reshape(128, 128) % 7, "foreground="),
                                         (torch.zeros(64, 128).bool(), "mask"), (torch.full((128, 128), float("nan")), "mask"), (None, "mask")])
def test_a_mask_that_cannot_be_compared_is_refused(mask, words):
    with pytest.raises(ValueError, match=words): SeparationExplorer(picture(128, 128), noise(8, 16, 16), mask)


def test_a_pair_and_a_method_are_compared_as_the_loss_does(pair):
    method = create_method("cp2", seed=0, compose=CopyPasteConfig(size=128, stride=8), decoder="fcn", queue_size=16)
    method.train()
    widget = SeparationExplorer(pair, {"encoder": method, }, index=2), SeparationExplorer(pair, method, index=2, of="projection")
    assert widget[0].layers[0]["map"]["channels"] == 256 and widget[1].layers[0]["map"]["channels"] == 128
    assert method.training and method.branch.training
    assert np.frombuffer(widget[0].layers[0]["mask"], np.uint8).sum() == int(pair.masks_at(8)[0][2].sum())


@pytest.mark.parametrize("make", [lambda image, network: CorrespondenceExplorer(image, image, encoder=network), lambda image, network: SeparationExplorer(image, network, torch.arange(64).expand(64, 64) < 32)])
def test_pictures_are_shown_in_the_networks_own_colours(make):
    from pixcl_nb.networks.encoders import create_encoder
    from pixcl_nb.widgets.base import uri_picture
    network, photo = create_encoder("pixcl_tiny"), picture(64, 64)
    network.mean, network.std = (.5,) * 3, (.25,) * 3
    widget = make((photo / 255 - .5) / .25, network)
    shown = uri_picture(getattr(widget, "image_a", None) or widget.image)
    assert torch.equal(torch.from_numpy(shown).permute(2, 0, 1), photo)
