"""The widgets in a headless Chromium: exported pages opened from file:// with the network off, and one notebook in a real JupyterLab."""
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from browser import find_chromium, no_browser, open_widget  # noqa: F401  (a fixture)
from pixcl_nb.images.compositor import CopyPasteConfig, copy_paste
from pixcl_nb.images.data import load_data
from pixcl_nb.plots import to_picture
from pixcl_nb.widgets import CopyPasteStudio, CorrespondenceExplorer, SeparationExplorer
from pixcl_nb.widgets.copy_paste import block_mask

TOOLS = Path(__file__).parent / "tools"


def noise(*shape, seed=0): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
def picture(height, width, seed=0): return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def make_explorer(**traits):
    "B is A moved by 3 cells = 24 pixels to the right, with some noise; the second features are pure noise."
    a = noise(32, 12, 16)
    disparity = torch.full((96, 128), -24.)
    layers = {"moved": (a, a.roll(3, 2) + .3 * noise(32, 12, 16, seed=1)), "noise": (noise(8, 6, 8, seed=2), noise(8, 6, 8, seed=3))}
    return CorrespondenceExplorer(picture(96, 128), picture(96, 128, 1), layers, truth=disparity, **traits)


# ---------------------------------------------------------------- CorrespondenceExplorer
def test_hovering_shows_the_match_that_python_computes(open_widget):
    widget = make_explorer()
    page = open_widget(widget)
    for x, y in ((.3, .2), (.52, .81), (.05, .97)):
        page.hover("[data-view=query]", x, y)
        pixel = page.state("pixel")
        assert pixel == pytest.approx([x * 128, y * 96], abs=1.5)
        expected = widget.scores(pixel)
        assert page.state("match") == pytest.approx(expected["match"]) and page.state("similarity") == pytest.approx(expected["similarity"], abs=1e-9)
        assert page.state("mutual") == expected["mutual"]
        truth = widget.true_place(pixel)
        assert page.state("error") == (None if truth is None else pytest.approx(np.hypot(*(np.array(truth) - expected["match"])), abs=1e-6))
        assert f"cosine {expected['similarity']:.2f}" in page.text()


def test_the_heat_map_is_drawn_from_the_cosines(open_widget):
    widget = make_explorer(strongest=1.)
    page = open_widget(widget)
    page.hover("[data-view=query]", .4, .4)
    drawn = np.array(page.js("""() => { const c = document.querySelector('[data-view=key] canvas'); return [c.width, c.height, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; }"""))
    assert drawn[:2].tolist() == [16, 12]
    cosines = widget.scores(page.state("pixel"))["cosines"]
    share = (cosines - cosines.min()) / (cosines.max() - cosines.min())
    from matplotlib import colormaps
    expected = (colormaps["cividis"](np.minimum((share * 255.999).astype(int), 255))[..., :3] * 255).round()
    assert np.abs(drawn[2:].reshape(12, 16, 4)[..., :3] - expected).max() <= 8          # one step of the table at most
    assert page.js("() => document.querySelector('[data-view=key] canvas').getBoundingClientRect().width / document.querySelector('[data-view=key]').getBoundingClientRect().width") == pytest.approx(1, abs=.01)


def test_marks_are_drawn_and_move_with_the_pointer(open_widget):
    page = open_widget(make_explorer())
    ink = "() => { const c = document.querySelector('.marks'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0, x = 0; for (let i = 3; i < d.length; i += 4) if (d[i]) { n++; x += ((i - 3) / 4) % c.width; } return [n, x / n]; }"
    page.hover("[data-view=query]", .2, .5)
    first = page.js(ink)
    page.hover("[data-view=query]", .8, .5)
    second = page.js(ink)
    assert first[0] > 300 and second[0] > 300 and second[1] > first[1] + 50


def test_a_click_pins_a_pixel_and_a_second_click_lets_it_go(open_widget):
    page = open_widget(make_explorer())
    page.click("[data-view=query]", .3, .3)
    pinned = page.state("pixel")
    page.hover("[data-view=query]", .8, .8)
    assert page.state("pixel") == pinned and "pinned" in page.text("[data-view=query] >> xpath=..")
    page.click("[data-view=query]", .3, .3)
    page.hover("[data-view=query]", .8, .8)
    assert page.state("pixel") != pinned


def test_the_keyboard_moves_by_cells_pins_and_swaps(open_widget):
    widget = make_explorer(pixel=(60, 44))
    page = open_widget(widget)
    page.press("[data-view=query]", "ArrowRight", "ArrowDown")
    page.until("JSON.stringify(pixcl.model.get('pixel')) === '[68,52]'")
    page.press("[data-view=query]", "Shift+ArrowLeft")
    page.until("JSON.stringify(pixcl.model.get('pixel')) === '[28,52]'")
    assert page.hook("w.now.pinned")
    page.press("[data-view=query]", "s")
    assert page.state("swapped") and page.text("[data-view=query] >> xpath=..").startswith("B")
    widget.swapped = True
    page.until(f"Math.abs(pixcl.model.get('similarity') - {widget.scores((28, 52))['similarity']}) < 1e-9")


def test_two_features_answer_for_the_same_pixel(open_widget):
    widget = make_explorer()
    page = open_widget(widget)
    assert not page.page.locator("[data-view=other]").is_visible()
    page.field("Compare with").select_option("noise")
    page.settle(3)
    assert page.page.locator("[data-view=other]").is_visible() and page.state("other") == "noise"
    page.hover("[data-view=query]", .6, .3)
    found = page.hook("w.now.answers.map(a => [a.layer.name, a.similarity])")
    assert found == [[name, pytest.approx(widget.scores(page.state("pixel"), name)["similarity"], abs=1e-9)] for name in ("moved", "noise")]
    page.field("Features").select_option("noise")
    page.settle(3)
    assert page.hook("w.now.answers.map(a => a.layer.name)") == ["noise", "noise"]


def test_the_number_of_matches_and_all_mutual_ones(open_widget):
    page = open_widget(make_explorer())
    for count in (1, 5):
        page.slide("Matches", count)
        page.settle(3)
        assert len(page.state("top")) == count
    top = page.state("top")
    assert [row[2] for row in top] == sorted((row[2] for row in top), reverse=True) and top[0][:2] == page.state("match")
    page.field("All mutual matches").check()
    page.until("pixcl.model.get('mutual_count').length === 1")
    assert 100 <= page.state("mutual_count")[0] <= 192


def test_touch_works(open_widget):
    page = open_widget(make_explorer(pixel=(60, 44)), touch=True)
    page.tap("[data-view=query]", .25, .75)
    page.until("pixcl.model.get('pixel')[0] < 40")
    assert page.state("pixel") == pytest.approx([32, 72], abs=2)


def test_python_can_point_at_a_pixel(open_widget):
    widget = make_explorer()
    page = open_widget(widget)
    page.set("pixel", [10, 90])
    page.until(f"Math.abs(pixcl.model.get('similarity') - {widget.scores((10, 90))['similarity']}) < 1e-9")


# ---------------------------------------------------------------- CopyPasteStudio
@pytest.fixture
def studio(): return CopyPasteStudio(load_data("samples", split="val"), size=(96, 112), stride=8, limit=3)


def drawn(page, side):
    "The composed picture and the mask as the page has them."
    pixels, mask, shape = page.js("""side => { const w = document.querySelector('.pxw').pxw, c = document.querySelector(`[data-view=${side}] canvas`);
        return [Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data), Array.from(w.now.sides[side].mask), [c.height, c.width]]; }""", side)
    return np.array(pixels).reshape(*shape, 4)[..., :3], np.array(mask).reshape(shape).astype(bool)


def agree(page, studio):
    "The page's pair is `compose`'s: masks bit for bit, pixels within 1/255."
    studio.set_state({key: page.state(key) for key in ("foreground", "shape", "object", "position", "stride", "query", "key")})
    query, key, query_mask, key_mask = studio.compose()
    for side, pair, mask in (("query", query, query_mask), ("key", key, key_mask)):
        pixels, found = drawn(page, side)
        assert (found == mask[0].numpy()).all()
        assert np.abs(pixels - to_picture(pair)[0] * 255).max() <= 1
    assert page.state("counts") == studio.describe().counts and page.state("code") == studio.code and page.text(".pxw pre") == studio.code


def test_the_composed_pair_is_that_of_compose(open_widget, studio):
    page = open_widget(studio)
    page.until("document.querySelector('.pxw').pxw.now.ready")
    agree(page, studio)
    page.slide("Area of the query", .62), page.slide("Aspect of the query", .8), page.slide("Left of the key", .123), page.slide("Top of the key", .987)
    page.settle(4)
    agree(page, studio)
    page.field("Position").select_option("anywhere")
    page.field("Stride").select_option("16")
    page.settle(4)
    agree(page, studio)
    page.field("Background of the key").select_option(studio.backgrounds[0]["name"])
    page.settle(4)
    agree(page, studio)
    page.field("Shape").select_option("object")
    page.settle(4)
    assert page.hook("w.now.shape") == "object" and not page.field("Position").is_visible()
    agree(page, studio)


def test_every_block_of_the_sliders_has_the_size_compose_gives_it(open_widget, studio):
    page = open_widget(studio)
    random = np.random.default_rng(0)
    blocks = [dict(area=round(float(random.integers(1, 101)) / 100, 2), aspect=round(float(2 ** random.uniform(-2, 2)), 2), x=round(float(random.uniform(0, .999)), 3), y=round(float(random.uniform(0, .999)), 3))
              for _ in range(200)]
    for position, stride, size in (("released", 8, (96, 112)), ("anywhere", 16, (224, 224))):
        found = page.js("""([blocks, size, position, stride]) => { const w = document.querySelector('.pxw').pxw;
            return blocks.map(b => { const m = w.blockMask(b, size, position, stride); let sum = 0, moment = 0; m.forEach((v, i) => { if (v) { sum++; moment += i; } }); return [sum, moment]; }); }""", [blocks, list(size), position, stride])
        for block, (area, moment) in zip(blocks, found):
            mask = block_mask(**block, size=size, position=position, stride=stride).flatten()
            assert (int(mask.sum()), int(mask.nonzero().sum())) == (area, moment), block


def test_dragging_and_arrow_keys_move_the_block(open_widget, studio):
    page = open_widget(studio)
    page.until("document.querySelector('.pxw').pxw.now.ready")
    before = page.state("query")
    page.drag("[data-view=query]", [(.4, .5), (.55, .6)])
    moved = page.state("query")
    assert moved["x"] > before["x"] and moved["y"] > before["y"] and moved["area"] == before["area"]
    agree(page, studio)
    page.press("[data-view=query]", "ArrowLeft")
    page.settle(3)
    assert page.state("query")["x"] < moved["x"]
    page.press("[data-view=key]", "ArrowUp")
    page.settle(3)
    assert page.state("key")["y"] < before["y"]


def test_the_pairs_are_those_of_the_loss(open_widget, studio):
    page = open_widget(studio)
    page.until("document.querySelector('.pxw').pxw.now.ready")
    cells, colours = page.js("""() => { const w = document.querySelector('.pxw').pxw, c = document.querySelector('[data-view=pairs] canvas'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        return [['query', 'key'].map(s => Array.from(w.now.sides[s].cells)), Array.from(d)]; }""")
    query, key = (np.array(part, bool) for part in cells)
    shown = np.array(colours).reshape(len(query), len(key), 4)[..., :3]
    positive, negative = (shown == [86, 180, 233]).all(-1), (shown == [230, 159, 0]).all(-1)
    assert (positive == (query[:, None] & key[None])).all() and (negative == (~query[:, None] & key[None])).all()
    page.hover("[data-view=pairs]", .5, .5)
    assert page.state("anchor") == len(key) // 2
    page.press("[data-view=pairs]", "ArrowRight")
    page.until(f"pixcl.model.get('anchor') === {len(key) // 2 + 1}")


# ---------------------------------------------------------------- SeparationExplorer
@pytest.fixture
def separation():
    pair = copy_paste(load_data("samples", split="val").batch(range(3)).images, CopyPasteConfig(size=128, stride=8, area=(.2, .3)), torch.Generator().manual_seed(0))
    foreground = pair.masks_at(8)[0][0]
    maps = {}
    for step, gain in ((0, .05), (100, .3), (200, .7)):
        maps[f"step {step}"] = noise(48, 16, 16)
        maps[f"step {step}"][:, foreground] += gain
    return SeparationExplorer(pair, maps)


def test_what_the_page_measures_is_what_python_measures(open_widget, separation):
    page = open_widget(separation)
    for name in ("step 0", "step 200"):
        page.field("Features").select_option(name)
        page.settle(3)
        separation.set_state({"layer": name})
        separation.describe()
        for trait in ("auroc", "gap", "iou", "threshold"): assert page.state(trait) == pytest.approx(getattr(separation, trait), abs=1e-9), trait
        assert page.state("counts") == separation.counts
        assert f"AUROC {separation.auroc:.3f}" in page.text() and f"IoU {separation.iou:.2f}" in page.text()
    assert separation.auroc > .7
    separation.set_state({"layer": "step 0"})


def test_the_threshold_can_be_dragged_slid_and_typed(open_widget, separation):
    page = open_widget(separation)
    start = page.state("threshold")
    page.drag("[data-plot='0']", [(.5, .5), (.8, .5)])
    page.until("pixcl.model.get('threshold') === pixcl.model.get('thresholds')['step 0']")       # told at most twenty times a second
    dragged = page.state("threshold")
    assert dragged != start and page.state("thresholds") == {"step 0": dragged}
    separation.set_state({"thresholds": {"step 0": dragged}})
    assert page.state("counts") == separation.describe().counts
    page.press("[data-plot='0']", "ArrowLeft")
    page.until(f"Math.abs(pixcl.model.get('threshold') - ({dragged} - .01)) < 1e-9")
    page.slide("Threshold", .05)
    page.until("pixcl.model.get('threshold') === .05")
    page.page.get_by_role("button", name="Best threshold").click()
    page.until(f"Math.abs(pixcl.model.get('threshold') - {start}) < 1e-9")
    separation.set_state({"thresholds": {}})


def test_the_mask_is_painted_where_cells_pass(open_widget, separation):
    page = open_widget(separation)
    page.field("Features").select_option("step 200")
    page.settle(3)
    blue = page.js("""() => { const c = document.querySelector('[data-view=result] canvas'), g = c.getContext('2d'), out = [];
        for (let r = 0; r < 16; r++) for (let k = 0; k < 16; k++) { const d = g.getImageData(Math.floor((k + .5) * c.width / 16), Math.floor((r + .5) * c.height / 16), 1, 1).data; out.push(d[3] > 100 && d[2] > d[0] ? 1 : d[3] > 100 && d[0] > d[2] + 60 ? 2 : 0); } return out; }""")
    found, truth = separation.found_mask("step 200").flatten().numpy(), separation.cells_of("step 200")[1] == 1
    blue = np.array(blue)
    assert (blue == 1).sum() == (found & truth).sum() and ((blue == 1) == (found & truth)).all() and (blue == 2).sum() == (found & ~truth).sum()


def test_two_steps_side_by_side_and_a_walk_through_all(open_widget, separation):
    page = open_widget(separation)
    page.field("Compare with").select_option("step 200")
    page.settle(3)
    assert page.page.locator("[data-plot='1']").is_visible() and page.hook("w.now.shown.map(s => s.layer.name)") == ["step 0", "step 200"]
    aurocs = []
    for index in range(3):
        page.slide("Step through", index)
        page.settle(3)
        aurocs.append(page.state("auroc"))
    assert page.state("layer") == "step 200" and aurocs[0] < aurocs[1] < aurocs[2]


def test_a_cell_pointed_at_becomes_the_anchor(open_widget, separation):
    page = open_widget(separation)
    page.click("[data-view=image]", .5, .25)
    page.settle(3)
    assert page.state("anchors") == "cell"
    separation.set_state({"anchors": "cell", "pixel": page.state("pixel")})
    assert page.state("auroc") == pytest.approx(separation.describe().auroc, abs=1e-9)
    page.press("[data-view=image]", "ArrowRight", "Escape")
    page.until("pixcl.model.get('anchors') === 'foreground'")
    separation.set_state({"anchors": "foreground"})


# ---------------------------------------------------------------- all of them
WIDGETS = {"correspondence": lambda: make_explorer(other="noise"), "copy_paste": lambda: CopyPasteStudio(load_data("samples", split="val"), size=96, stride=8, limit=2),
           "separation": lambda: SeparationExplorer(picture(96, 96), {"a": noise(8, 12, 12), "b": noise(8, 12, 12, seed=1)}, torch.arange(96 * 96).reshape(96, 96) < 3000, other="b")}


@pytest.mark.parametrize("name", WIDGETS)
@pytest.mark.parametrize("width, scheme", [(960, "dark"), (900, "light"), (480, "light")])
def test_nothing_overflows_and_every_control_has_a_name(open_widget, name, width, scheme):
    page = open_widget(WIDGETS[name](), width=width, scheme=scheme)
    page.page.wait_for_timeout(100)
    assert page.overflow() <= 0
    assert page.js("() => document.querySelector('.pxw').dataset.theme") == scheme
    nameless = page.js("""() => [...document.querySelectorAll('.pxw input, .pxw select, .pxw button, .pxw [tabindex]')]
        .filter(e => !(e.getAttribute('aria-label') || e.labels?.length || e.textContent.trim())).map(e => e.outerHTML.slice(0, 80))""")
    assert nameless == []
    clipped = page.js("""() => { const root = document.querySelector('.pxw').getBoundingClientRect(); return [...document.querySelectorAll('.pxw .pxw-field, .pxw .view, .pxw button, .pxw .plot')]
        .filter(e => e.offsetParent && (e.getBoundingClientRect().right > root.right || e.getBoundingClientRect().left < root.left)).map(e => e.outerHTML.slice(0, 80)); }""")
    assert clipped == []


@pytest.mark.parametrize("name", WIDGETS)
def test_text_can_be_read_on_its_ground_in_both_themes(open_widget, name):
    for scheme in ("light", "dark"):
        page = open_widget(WIDGETS[name](), scheme=scheme)
        ratios = page.js("""() => { const lum = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; };
            const ground = lum(getComputedStyle(document.querySelector('.pxw')).backgroundColor);
            return [...document.querySelectorAll('.pxw label, .pxw .pxw-caption, .pxw output, .pxw .pxw-legend span')].filter(e => e.offsetParent && !e.closest('.off')).map(e => { const a = lum(getComputedStyle(e).color); return (Math.max(a, ground) + .05) / (Math.min(a, ground) + .05); }); }""")
        assert min(ratios) >= 4.5


@pytest.mark.parametrize("name", WIDGETS)
def test_the_theme_can_be_changed_and_the_widget_taken_away(open_widget, name):
    page = open_widget(WIDGETS[name]())
    page.set("theme", "dark")
    assert page.js("() => document.querySelector('.pxw').dataset.theme") == "dark"
    page.js("async () => { const { model } = window.pixcl, el = document.createElement('div'); document.body.append(el); const clean = await widget_render(model, el); clean(); if (el.children.length) throw new Error('left behind'); }"
            .replace("widget_render(model, el)", "window.pixcl.render({ model, el })"))
    page.settle()


NOTEBOOK = [
    """import sys; sys.path.insert(0, {tests!r})
import torch, ipywidgets
from test_widgets_browser import WIDGETS
heard = {{name: ipywidgets.Label() for name in WIDGETS}}
shown = {{name: make() for name, make in WIDGETS.items()}}""",
    """def tell(change): w = shown["correspondence"]; heard["correspondence"].value = f"pixel={{w.pixel}} same={{abs(w.similarity - w.scores(w.pixel)['similarity']) < 1e-9 and w.match == w.scores(w.pixel)['match']}}"
shown["correspondence"].observe(tell, ["similarity", "match", "pixel"])
display(shown["correspondence"], heard["correspondence"])""",
    """def tell(change): w = shown["copy_paste"]; heard["copy_paste"].value = f"area={{w.query['area']:.2f}} code={{w.code == w.write_code()}}"
shown["copy_paste"].observe(tell, ["query", "code"])
display(shown["copy_paste"], heard["copy_paste"])""",
    """def tell(change): w = shown["separation"]; heard["separation"].value = f"set={{'a' in w.thresholds}} threshold={{w.threshold:.2f}}"
shown["separation"].observe(tell, ["threshold", "thresholds"])
display(shown["separation"], heard["separation"])""",
]
ACTIONS = [
    {"do": "hover", "cell": 1, "selector": "[data-view=query]", "at": [60, 40]}, {"do": "click", "cell": 1, "selector": "[data-view=query]", "at": [100, 90]}, {"do": "expect", "cell": 1, "text": "same=True", "timeout": 30},
    {"do": "press", "cell": 2, "selector": "[aria-label='Area of the query']", "keys": ["ArrowRight", "ArrowRight"]}, {"do": "expect", "cell": 2, "text": "area=0.37 code=True", "timeout": 30},
    {"do": "press", "cell": 3, "selector": "[data-plot='0']", "keys": ["ArrowRight"]}, {"do": "expect", "cell": 3, "text": "set=True", "timeout": 30},
]


@pytest.mark.long
def test_in_jupyterlab_python_receives_what_was_done(tmp_path):
    if find_chromium() is None: no_browser("no Chromium was found")
    import nbformat
    cells = [nbformat.v4.new_code_cell(text.format(tests=str(Path(__file__).parent))) for text in NOTEBOOK]
    path = tmp_path / "widgets.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}), path)
    (tmp_path / "actions.json").write_text(json.dumps(ACTIONS))
    done = subprocess.run([sys.executable, TOOLS / "browser_check.py", path, "--out", tmp_path / "shots", "--actions", tmp_path / "actions.json", "--timeout", "180"],
                          capture_output=True, text=True, env={**os.environ, "CHROMIUM": find_chromium(), "OMP_NUM_THREADS": "1"}, timeout=560)
    assert done.stdout, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["ok"], report["problems"]
