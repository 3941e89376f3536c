"""CorrespondenceExplorer's veil, upsampling, neighbours, presets and links: what the browser draws is what Python computes."""
import gc
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from browser import chromium, find_chromium, no_browser, open_widget  # noqa: F401  (a fixture)
from pixcl_nb.images.pairs import load_pairs, stereo_pair
from pixcl_nb.networks.encoders import create_encoder
from pixcl_nb.networks.weights import sample_encoder
from pixcl_nb.widgets import CorrespondenceExplorer
from pixcl_nb.widgets.base import read_static, uri_picture
from pixcl_nb.widgets.correspondence import joint_bilateral, strongest_level, text_link


def noise(*shape, seed=0): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
def picture(height, width, seed=0):
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def make_explorer(**traits):
    "B is A moved by 3 cells = 24 pixels to the right, with some noise; the second features are pure noise."
    a = noise(32, 12, 16)
    layers = {"moved": (a, a.roll(3, 2) + .3 * noise(32, 12, 16, seed=1)), "noise": (noise(8, 6, 8, seed=2), noise(8, 6, 8, seed=3))}
    return CorrespondenceExplorer(picture(96, 128), picture(96, 128, 1), layers, truth=torch.full((96, 128), -24.), **traits)


# ---------------------------------------------------------------- what is taken
@pytest.mark.parametrize("image", [Image.fromarray(picture(64, 96).permute(1, 2, 0).numpy()), picture(64, 96).permute(1, 2, 0).numpy(), picture(64, 96)[:1],
                                   torch.cat([picture(64, 96), torch.full((1, 64, 96), 255, dtype=torch.uint8)]), picture(64, 96)[None], picture(64, 96) / 255])
def test_images_of_every_kind_are_taken(image):
    widget = CorrespondenceExplorer(image, image, noise(8, 8, 12), noise(8, 8, 12))
    assert widget.size_a == [64, 96] and uri_picture(widget.image_a).shape == (64, 96, 3)


def test_floats_up_to_255_are_refused():
    with pytest.raises(ValueError, match="image_b.*0…255"): CorrespondenceExplorer(picture(64, 96), picture(64, 96).float(), noise(8, 8, 12), noise(8, 8, 12))


@pytest.mark.parametrize("traits, error, words", [(dict(k=0), ValueError, "k: 0"), (dict(opacity=65), ValueError, "opacity: 65"), (dict(strongest=-1), ValueError, "strongest"), (dict(nearest=1000), ValueError, "nearest"),
                                                  (dict(opacty=.5), TypeError, "did you mean 'opacity'"), (dict(other="nois"), ValueError, "did you mean 'noise'"), (dict(upsampling="cubic"), Exception, "upsampling")])
def test_wrong_settings_are_refused(traits, error, words):
    with pytest.raises(error, match=words): make_explorer(**traits)


def test_names_may_be_numbers_and_must_differ():
    pair = (noise(8, 8, 12), noise(8, 8, 12))
    widget = CorrespondenceExplorer(picture(64, 96), picture(64, 96), {0: pair, 100: pair}, other=100)
    assert widget.layer == "0" and widget.other == "100" and widget.scores((5, 5), 100)["similarity"] <= 1.01
    with pytest.raises(ValueError, match="two keys are called '1'"): CorrespondenceExplorer(picture(64, 96), picture(64, 96), {1: pair, "1": pair})


def test_large_photographs_travel_at_the_size_they_are_shown():
    large = torch.nn.functional.interpolate(picture(30, 40)[None].float(), (2250, 3000), mode="bilinear")[0].to(torch.uint8)
    widget = CorrespondenceExplorer(large, large, noise(8, 30, 40), noise(8, 30, 40), presets=())
    assert len(widget.image_a) < 2e6 and max(uri_picture(widget.image_a).shape) == 1280 and widget.size_a == [2250, 3000]
    assert widget.point(2999, 2249).pixel == [2999, 2249]


def test_a_widget_that_is_replaced_is_let_go():
    widget = make_explorer()
    first = weakref.ref(widget)
    for _ in range(5): widget = make_explorer()
    gc.collect()
    assert first() is None and widget is not None


# ---------------------------------------------------------------- first sight
def test_the_first_pixel_is_chosen_by_a_rule_and_named():
    widget = make_explorer(other="noise")
    assert widget.preset == "where training helps" and widget.error < 8 and widget.mutual
    pixels = widget.survey_pixels()
    ranks = [widget.survey(pixels, name) for name in ("moved", "noise")]
    gain = np.where(np.nan_to_num(ranks[0]["off"], nan=9) <= 1.5, ranks[1]["rank"] / ranks[0]["rank"], 0)
    assert widget.pixel == pixels[gain.argmax()].tolist()
    assert f"as number {int(ranks[1]['rank'][gain.argmax()])}" in widget.presets[0]["sentence"]


def test_ranks_are_those_of_a_loop():
    widget = make_explorer()
    for pixel in ([20, 20], [60, 50], [90, 90]):
        cosines, truth = widget.scores(pixel)["cosines"], widget.true_place(pixel)
        right = cosines[int(truth[1] // 8), int(truth[0] // 8)]
        found = widget.survey(np.array([pixel]))
        assert int(found["rank"][0]) == int((cosines > right + 1e-9).sum()) + 1 and bool(found["mutual"][0]) == widget.scores(pixel)["mutual"]


def test_scenes_and_stereo_open_on_a_right_match():
    pair = load_pairs()[0]
    first, second, truth = stereo_pair()
    torch.manual_seed(0)
    encoders = {"DenseCL": sample_encoder("densecl"), "random weights": create_encoder("pixcl_tiny").eval()}
    for images, known, size in (((pair.image_a, pair.image_b), (pair.points_a, pair.points_b), None), ((first, second), truth, 256)):
        widget = CorrespondenceExplorer(*images, encoders, truth=known, size=size)
        cell = widget.layers[0]["b"]["across"] * widget.size_b[1]
        assert widget.error < 2 * cell and widget.mutual and widget.preset == "a part and its partner"


def test_presets_can_be_ones_own_or_none():
    own = [dict(name="left", sentence="the left edge", pixel=[2, 50], other="noise", k=5)]
    widget = make_explorer(presets=own)
    assert widget.preset == "left" and widget.pixel == [2, 50] and widget.other == "noise" and widget.k == 5
    assert make_explorer(presets=()).preset == "" and make_explorer(pixel=(7, 9)).pixel == [7, 9]
    with pytest.raises(ValueError, match="did you mean 'left'"): widget.show_preset("lef")
    with pytest.raises(ValueError, match="presets"): make_explorer(presets=[dict(name="x", sentence="", size_a=[1, 1])])


def test_without_a_truth_the_pixel_that_stands_out_is_shown():
    widget = CorrespondenceExplorer(picture(96, 128), picture(96, 128, 1), noise(16, 12, 16), noise(16, 12, 16).roll(1, 2))
    assert [preset["name"] for preset in widget.presets] == ["a part and its partner"] and widget.mutual and widget.error is None


# ---------------------------------------------------------------- in the browser: the veil
HEAT = """() => { const c = document.querySelector('[data-view=key] canvas'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
    return [c.width, c.height, ...Array.from(d).filter((v, i) => i % 4 === 3)]; }"""


def test_only_the_strongest_cells_are_veiled_and_the_photograph_stays_in_colour(open_widget):
    widget = make_explorer(upsampling="sharp")
    page = open_widget(widget)
    for share in (.1, .25, 1):
        page.slide("Strongest", share)
        page.settle(3)
        cosines = widget.scores(page.state("pixel"))["cosines"]
        width, height, *alpha = page.js(HEAT)
        veiled = np.array(alpha).reshape(height, width) > 0
        assert (veiled == (cosines >= strongest_level(cosines, share))).all() and veiled.sum() == round(share * 192)
        assert page.hook("w.now.answers[0].level") == pytest.approx(strongest_level(cosines, share), abs=1e-9)
    assert page.js("() => getComputedStyle(document.querySelector('[data-view=key] img')).filter") == "none"


def test_the_contour_runs_where_the_veil_ends(open_widget):
    widget = make_explorer(strongest=.2)
    page = open_widget(widget)
    lines = np.array(page.hook("w.now.answers[0].edge")).reshape(-1, 2)
    cosines = widget.scores(page.state("pixel"))["cosines"]
    from scipy.ndimage import map_coordinates
    values = map_coordinates(cosines, [lines[:, 1] - .5, lines[:, 0] - .5], order=1)
    assert len(lines) > 20 and np.abs(values - page.hook("w.now.answers[0].level")).max() < 1e-6
    page.field("Between cells").select_option("sharp")
    page.settle(3)
    borders = np.array(page.hook("w.now.answers[0].edge"))
    veiled = np.pad(cosines >= strongest_level(cosines, .2), 1, mode="edge")
    expected = (veiled[1:-1, 1:] != veiled[1:-1, :-1])[:, 1:-1].sum() + (veiled[1:, 1:-1] != veiled[:-1, 1:-1])[1:-1].sum()
    assert (borders == borders.round()).all() and len(borders) == 4 * expected
    page.field("Contour").uncheck()
    page.settle(3)
    assert page.hook("w.now.answers[0].edge") == []


def test_the_browsers_upsampling_is_pythons(open_widget):
    widget = make_explorer(upsampling="bilateral")
    page = open_widget(widget)
    page.until("document.querySelector('.pxw').pxw.keys[0].lift")
    page.hover("[data-view=query]", .4, .6)
    page.settle(3)
    found = np.array(page.hook("[...w.keys[0].lift.out]")).reshape(96, 128) * page.hook("w.now.answers[0].unit")
    expected = joint_bilateral(widget.scores(page.state("pixel"))["cosines"], uri_picture(widget.image_b) / 255)
    assert np.abs(found - expected).max() < 2e-3 and page.hook("w.keys[0].lift.factor") == 8


# ---------------------------------------------------------------- neighbours, presets, links
def test_products_are_those_of_a_plain_loop_with_and_without_webassembly():
    "Rows that 16 does not divide, the largest entries, one cell, and a page that forbids WebAssembly."
    browser = chromium()
    if isinstance(browser, str): no_browser(browser)
    page = browser.new_page()
    code = "([script, cells, channels, forbidden]) => { if (forbidden) delete window.WebAssembly;" + """
      const { dotAll, fastRows } = new Function(script + '; return { dotAll, fastRows };')();
      const data = Int8Array.from({ length: cells * channels }, (_, i) => (i * 7919) % 255 - 127), vector = Int32Array.from({ length: channels }, (_, k) => k % 3 ? 127 : -127), out = new Int32Array(cells);
      data.fill(127, 0, channels);
      const map = { data, cells, channels };
      dotAll(map, vector, out); dotAll(map, vector, out);
      const plain = Array.from({ length: cells }, (_, i) => { let sum = 0; for (let k = 0; k < channels; k++) sum += data[i * channels + k] * vector[k]; return sum; });
      return [[...out].join() === plain.join(), Boolean(map.fast)]; }"""
    try:
        for forbidden in (False, True):
            for cells, channels in ((1, 1), (7, 16), (5, 40), (64, 130), (3, 512)):
                assert page.evaluate(code, [read_static("common.js"), cells, channels, forbidden]) == [True, not forbidden], (cells, channels, forbidden)
    finally: page.close()


def test_a_click_shows_the_nearest_cells_of_both_images(open_widget):
    widget = make_explorer()
    page = open_widget(widget)
    page.click("[data-view=query]", .3, .3)
    page.settle(4)
    found, expected = page.state("neighbours"), widget.neighbours_of(page.state("pixel"))
    assert [row[0] for row in found] == [row[0] for row in expected]
    assert np.allclose([row[1:] for row in found], [row[1:] for row in expected], atol=1e-6) and {"a", "b"} == {row[0] for row in widget.neighbours_of((40, 30), count=60)}
    patches = page.page.locator(".pxw-patch")
    assert patches.count() == 8 and f"{expected[0][3]:.2f}" in patches.first.inner_text()
    patches.first.click()
    page.settle(4)
    assert page.state("swapped") == (expected[0][0] == "b") and page.state("pixel") == pytest.approx([int(expected[0][1]), int(expected[0][2])], abs=1)


def test_presets_are_buttons_with_a_sentence_that_goes_when_one_points(open_widget):
    widget = make_explorer(other="noise")
    page = open_widget(widget)
    assert page.text(".sentence") == widget.presets[0]["sentence"]
    page.hover("[data-view=query]", .1, .1)
    assert page.text(".sentence") == "" and page.state("preset") == ""
    fails = next(preset for preset in widget.presets if preset["name"] == "where it fails") if len(widget.presets) > 2 else widget.presets[-1]
    page.page.get_by_role("button", name=fails["name"]).click()
    page.settle(4)
    assert page.state("pixel") == fails["pixel"] and page.text(".sentence") == fails["sentence"]
    page.hover("[data-view=query]", .9, .9)                                        # pinned: the pointer does not take it away
    assert page.state("pixel") == fails["pixel"]


def test_links_in_the_text_and_in_the_page_move_the_widget(open_widget):
    widget = make_explorer(name="the pair", text="See [the corner](pixel=3,5) and [noise](layer=noise&opacity=0.25).")
    page = open_widget(widget)
    page.page.get_by_role("button", name="the corner").click()
    page.settle(4)
    assert page.state("pixel") == [3, 5] and page.hook("w.now.pinned") and page.state("preset") == ""      # its sentence was about another pixel
    page.page.get_by_role("button", name="noise").click()
    page.settle(4)
    assert page.state("layer") == "noise" and page.state("opacity") == .25
    link = text_link(widget, "there", pixel=(100, 50), layer="moved", swapped=True)
    address = link[link.index("(") + 1:-1]
    add = "(a) => { const l = document.createElement('a'); l.href = a; l.textContent = 'go'; document.body.append(l); l.click(); l.remove(); }"
    page.js(add, address)
    page.settle(4)
    assert page.state("pixel") == [100, 50] and page.state("layer") == "moved" and page.state("swapped")
    for wrong in ("#pixcl:other?pixel=1,1", "#pixcl:the%20pair?size_a=1,1", "#pixcl:the%20pair?pixel=a,b", "#pixcl:%E0%A4%A?pixel=1,1"):
        page.js(add, wrong)
        page.settle(2)
        assert page.state("pixel") == [100, 50] and page.state("size_a") == [96, 128]
    page.js("() => window.postMessage({ pixcl: 'the%20pair?pixel=7,8' }, '*')")     # a page around a frame
    page.until("pixcl.model.get('pixel')[0] === 7")


def test_text_is_never_markup(open_widget):
    page = open_widget(make_explorer(text="<img src=x onerror='window.bad=1'>[<b>x</b>](pixel=1,1)", label="<script>window.bad=2</script>"))
    page.page.wait_for_timeout(100)
    assert page.js("() => window.bad") is None and page.page.locator(".pxw-text img, .pxw-text b").count() == 0


# ---------------------------------------------------------------- every screen
@pytest.mark.parametrize("style", ["", "transform:scale(1.5);transform-origin:0 0", "zoom:1.5"])
def test_marks_and_pointer_agree_in_a_scaled_page(open_widget, style):
    page = open_widget(make_explorer(), width=1500)
    page.js("style => { document.querySelector('main').style.cssText += ';max-width:900px;' + style; }", style)
    page.page.wait_for_timeout(150)
    page.hover("[data-view=query]", .5, .5)
    assert page.state("pixel") == pytest.approx([64, 48], abs=1.5)
    found = page.js("""() => { const c = document.querySelector('.marks'), b = c.getBoundingClientRect(), s = document.querySelector('.stage').getBoundingClientRect(), q = document.querySelector('[data-view=query]').getBoundingClientRect();
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, right = (q.right - b.left) / b.width * c.width; let x = 0, n = 0;
        const y = Math.round((q.top + q.height / 2 - b.top) / b.height * c.height);
        for (let i = 0; i < right; i++) if (d[4 * (y * c.width + i) + 3] > 0) { x += i; n++; }
        return { layer: [b.width, s.width], left: (b.left + (x / n) / c.width * b.width - q.left) / q.width }; }""")
    assert found["layer"][0] == pytest.approx(found["layer"][1], abs=2)
    page.set("all_mutual", False)
    assert page.overflow() >= 0 and .3 < found["left"] < 1


@pytest.mark.parametrize("box", ["[data-view=query]", "[data-view=key]"])
def test_a_finger_scrolls_past_the_pictures(open_widget, box):
    page = open_widget(make_explorer(), phone=True, width=390, height=400)
    page.js("() => document.querySelector('.pxw').style.marginBottom = '500px'")
    before = page.state("pixel")
    page.js("selector => document.querySelector(selector).scrollIntoView({ block: 'center' })", box)
    scrolled = page.js("() => scrollY")
    page.swipe(box, dy=-120)
    assert page.js("() => scrollY") > scrolled + 40
    page.swipe("[data-view=query]", dx=60)                                          # sideways: the pixel follows the finger
    assert page.state("pixel") != before


def test_paper_has_the_pictures_and_no_controls(open_widget):
    page = open_widget(make_explorer(other="noise"), scheme="dark")
    page.page.emulate_media(media="print")
    page.settle(6)
    assert page.js("() => document.querySelector('.pxw').dataset.theme") == "light" and not page.page.locator(".pxw-controls").first.is_visible() and not page.page.locator("kbd").first.is_visible()
    marks, stage = (page.js("s => { const b = document.querySelector(s).getBoundingClientRect(); return [b.width, b.height]; }", selector) for selector in (".marks", ".stage"))
    assert marks == pytest.approx(stage, abs=2)


def test_two_widgets_on_a_page_do_not_answer_for_each_other(open_widget):
    page = open_widget(make_explorer(name="one"))
    page.js("""async () => { const { model } = window.pixcl, el = document.createElement('div'); document.body.append(el);
        const second = { ...model, state: { ...model.state, name: 'two' } };
        const heard = {}; second.get = (k) => second.state[k]; second.set = (k, v) => { second.state[k] = v; (heard['change:' + k] || []).forEach((f) => f()); };
        second.on = (n, f) => (heard[n] = heard[n] || []).push(f); second.off = () => {}; window.second = second; await window.pixcl.render({ model: second, el }); }""")
    page.js("() => { const l = document.createElement('a'); l.href = '#pixcl:two?pixel=9,9'; document.body.append(l); l.click(); }")
    page.until("window.second.get('pixel')[0] === 9")
    assert page.state("pixel") != [9, 9]


# ---------------------------------------------------------------- in JupyterLab
NOTEBOOK = ["""import sys; sys.path.insert(0, {tests!r})
import ipywidgets
from test_correspondence import make_explorer
from test_embedding import FEATURES, explorer
pair = make_explorer(name="pair", other="noise")
cloud = explorer(features={{0: FEATURES, 5: FEATURES.flip(1)}}, name="cloud")
heard = ipywidgets.Label()
def tell(change): heard.value = f"pixel={{pair.pixel}} step={{cloud.step}} asked={{cloud.asked}} near={{[i for i, _ in cloud.neighbours] == [i for i, _ in cloud.neighbours_of(cloud.asked)]}}"
pair.observe(tell, ["pixel"]), cloud.observe(tell, ["step", "asked", "neighbours"])""",
            "display(pair, heard)", "cloud",
            "from IPython.display import Markdown; Markdown(f'Look at {{pair.link(\"the corner\", pixel=(5, 7))}}, then at {{cloud.link(\"the beginning\", step=0)}} and {{cloud.link(\"this point\", asked=9)}}.')"]
ACTIONS = [{"do": "click", "cell": 3, "selector": "a:has-text('the corner')", "at": [3, 3]}, {"do": "expect", "cell": 1, "text": "pixel=[5, 7]", "timeout": 30},
           {"do": "click", "cell": 3, "selector": "a:has-text('the beginning')", "at": [3, 3]}, {"do": "expect", "cell": 1, "text": "step=0", "timeout": 30},
           {"do": "click", "cell": 3, "selector": "a:has-text('this point')", "at": [3, 3]}, {"do": "expect", "cell": 1, "text": "asked=9 near=True", "timeout": 30}]


@pytest.mark.long
def test_in_jupyterlab_links_of_the_text_move_the_widgets_and_python_hears(tmp_path):
    if find_chromium() is None: no_browser("no Chromium was found")
    import nbformat
    here = Path(__file__).parent
    cells = [nbformat.v4.new_code_cell(text.format(tests=str(here))) for text in NOTEBOOK]
    path = tmp_path / "links.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}), path)
    (tmp_path / "actions.json").write_text(json.dumps(ACTIONS))
    done = subprocess.run([sys.executable, here / "tools" / "browser_check.py", path, "--out", tmp_path / "shots", "--actions", tmp_path / "actions.json", "--timeout", "180"],
                          capture_output=True, text=True, env={**os.environ, "CHROMIUM": find_chromium(), "OMP_NUM_THREADS": "1"}, timeout=560)
    assert done.stdout, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["ok"], report["problems"]
