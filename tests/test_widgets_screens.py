"""Every screen: a slide enlarged by CSS, another pixel density, dark and back, paper, a phone and its finger, two widgets on one page."""
import numpy as np
import pytest
import torch

from browser import open_widget  # noqa: F401  (a fixture)
from pixcl_nb.widgets import CopyPasteStudio, SeparationExplorer
from test_monitor import finished


def noise(*shape, seed=0): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
def picture(height, width, seed=0): return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def make_studio(): return CopyPasteStudio([picture(96, 96, i) for i in range(3)], size=96, stride=8)


def make_separation():
    mask = torch.zeros(96, 96, dtype=torch.bool)
    mask[24:72, 24:72] = True
    return SeparationExplorer(picture(96, 96), {"a": noise(8, 12, 12), "b": noise(8, 12, 12, seed=1)}, mask, other="b")


WIDGETS = {"copy_paste": make_studio, "separation": make_separation, "monitor": finished}
BOXES = {"copy_paste": ["[data-view=query]", "[data-view=key]", "[data-view=pairs]"], "separation": ["[data-view=image]", "[data-view=result]", "[data-plot='0']"],
         "monitor": [".pxm-charts", ".pxm-features"]}
ENLARGED = ["transform: scale(1.5); transform-origin: 0 0", "zoom: 1.5"]
READY = "!document.querySelector('.pxw').pxw.now || document.querySelector('.pxw').pxw.now.ready !== false"


def show(open_widget, name, **settings):
    page = open_widget(WIDGETS[name](), **settings)
    page.until(READY)
    page.settle(4)
    return page


# ---------------------------------------------------------------- slides
@pytest.mark.parametrize("css", ENLARGED)
@pytest.mark.parametrize("name", WIDGETS)
def test_layers_lie_on_what_they_mark_in_an_enlarged_slide(open_widget, name, css):
    page = show(open_widget, name, width=1500)
    page.style(f"main {{ width: 900px; margin: 0; {css} }}")
    page.page.set_viewport_size({"width": 1490, "height": 880})                # as when a slide is fitted: everything is laid out and drawn again
    page.settle(6)
    apart = page.js("""() => [...document.querySelectorAll('.pxw canvas')].filter(c => c.offsetParent && getComputedStyle(c).position === 'absolute').map(c => {
        const a = c.getBoundingClientRect(), b = c.parentElement.getBoundingClientRect(); return Math.max(Math.abs(a.left - b.left), Math.abs(a.right - b.right), Math.abs(a.top - b.top), Math.abs(a.bottom - b.bottom)); })""")
    assert max(apart, default=0) <= 1.5, apart
    blurred = page.js("""() => [...document.querySelectorAll('.pxw .marks, .pxw .plot canvas, .pxw .pxm-chart')].filter(c => c.offsetParent).map(c => c.width / c.getBoundingClientRect().width)""")
    assert min(blurred) >= .99, "drawn with fewer pixels than the enlarged slide shows"


RING = """() => { const c = document.querySelector('.marks'), { data } = c.getContext('2d').getImageData(0, 0, c.width, c.height); let n = 0, x = 0, y = 0;
  for (let i = 0; i < data.length; i += 4) if (data[i] > 250 && data[i + 1] > 250 && data[i + 2] > 250 && data[i + 3] > 250) { n++; x += (i / 4) % c.width; y += Math.floor(i / 4 / c.width); }
  const box = c.getBoundingClientRect(), view = document.querySelector('[data-view=key]').getBoundingClientRect();
  return [(box.left + (x / n + .5) / c.width * box.width - view.left) / view.width, (box.top + (y / n + .5) / c.height * box.height - view.top) / view.height]; }"""


@pytest.mark.parametrize("css", ["", *ENLARGED])
def test_the_anchor_is_ringed_where_its_cell_is_and_a_block_follows_the_pointer(open_widget, css):
    page = show(open_widget, "copy_paste", width=1500)
    page.style(f"main {{ width: 900px; margin: 0; {css} }}")
    anchor = page.hook("w.now.anchor")
    expected = [((anchor % 12) * 8 + 4.5) / 96, (anchor // 12 * 8 + 4.5) / 96]
    assert page.js(RING) == pytest.approx(expected, abs=.02)
    page.drag("[data-view=query]", [(.2, .2), (.4, .45)])                       # grasped outside: its middle comes to the pointer and stays there
    page.settle(4)
    block = page.hook("w.now.sides.query.mask.reduce((s, v, i) => v ? [s[0] + 1, s[1] + i % 96, s[2] + Math.floor(i / 96)] : s, [0, 0, 0])")
    assert [(block[1] / block[0] + .5) / 96, (block[2] / block[0] + .5) / 96] == pytest.approx([.4, .45], abs=.02)


@pytest.mark.parametrize("css", ["", *ENLARGED])
def test_cells_thresholds_and_steps_are_hit_in_an_enlarged_slide(open_widget, css):
    sheet = f"main {{ width: 900px; margin: 0; {css} }}"
    page = show(open_widget, "separation", width=1500)
    page.style(sheet)
    page.click("[data-view=image]", .5, .25)
    assert page.state("pixel") == pytest.approx([48, 24], abs=1)
    page.press("[data-view=image]", "Escape")
    page.drag("[data-plot='0']", [(.3, .5), (.7, .5)])
    low, high = page.js("() => { const w = document.querySelector('.pxw').pxw; const b = w.now.shown[0].result.bins; return [b.from, b.to]; }")
    plot = page.js("() => document.querySelector('[data-plot=\"0\"]').clientWidth")
    assert page.state("thresholds")["a"] == pytest.approx(low + (.7 * plot - 10) / (plot - 20) * (high - low), abs=.003 + 1.5 / plot * (high - low))
    page = show(open_widget, "monitor", width=1500)
    page.style(sheet)
    page.hover("[data-term=loss] canvas", .6, .5)
    wide = page.js("() => document.querySelector('[data-term=loss] canvas').clientWidth")
    assert page.hook("w.cursor") == pytest.approx((.6 * wide - 42) / (wide - 48) * 199, abs=2)


# ---------------------------------------------------------------- another screen
@pytest.mark.parametrize("name", WIDGETS)
def test_a_denser_screen_gets_more_pixels(open_widget, name):
    page = show(open_widget, name)
    ratio = "() => [...document.querySelectorAll('.pxw .marks, .pxw .plot canvas, .pxw .pxm-chart')].filter(c => c.offsetParent).map(c => c.width / c.clientWidth)"
    assert page.js(ratio) == pytest.approx([1] * len(page.js(ratio)), abs=.02)
    page.density(2)
    assert page.js(ratio) == pytest.approx([2] * len(page.js(ratio)), abs=.02)
    page.density(1)
    assert page.js(ratio) == pytest.approx([1] * len(page.js(ratio)), abs=.02)


# ---------------------------------------------------------------- dark and light
INK = {"copy_paste": "[data-view=pairs] canvas", "separation": "[data-plot='0'] canvas", "monitor": "[data-term=loss] canvas"}


def brightness(page, selector):
    "Mean brightness of what is drawn."
    return page.js("""selector => { const c = document.querySelector(selector), { data } = c.getContext('2d').getImageData(0, 0, c.width, c.height); let n = 0, s = 0;
        for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 200) { n++; s += data[i] + data[i + 1] + data[i + 2]; } return s / n / 3; }""", selector)


@pytest.mark.parametrize("name", WIDGETS)
def test_canvases_follow_the_theme_while_they_are_looked_at(open_widget, name):
    page = show(open_widget, name)
    light = brightness(page, INK[name])
    page.page.emulate_media(color_scheme="dark")
    page.settle(6)
    dark = brightness(page, INK[name])
    assert page.js("() => document.querySelector('.pxw').dataset.theme") == "dark" and abs(dark - light) > 10
    page.page.emulate_media(color_scheme="light")
    page.settle(6)
    assert brightness(page, INK[name]) == light
    for say, expected in (("document.body.dataset.jpThemeLight = 'false'", dark), ("document.body.dataset.jpThemeLight = 'true'", light),          # JupyterLab
                          ("delete document.body.dataset.jpThemeLight; document.body.classList.add('quarto-dark')", dark), ("document.body.classList.replace('quarto-dark', 'quarto-light')", light)):
        page.js(f"() => {{ {say} }}")
        page.settle(6)
        assert brightness(page, INK[name]) == expected, say


# ---------------------------------------------------------------- paper
@pytest.mark.parametrize("name", WIDGETS)
def test_on_paper_it_is_light_whole_and_without_controls(open_widget, name):
    page = show(open_widget, name, scheme="dark")
    before = brightness(page, INK[name])
    page.js("""() => { window.printed = null; window.addEventListener('beforeprint', () => { const root = document.querySelector('.pxw');
        window.printed = [root.dataset.theme, root.offsetWidth, [...root.querySelectorAll('canvas')].filter(c => c.offsetParent && c.parentElement.clientWidth > 40 && c.style.width).map(c => c.clientWidth / c.parentElement.clientWidth)]; }); }""")
    assert page.page.pdf(format="A4").startswith(b"%PDF")
    theme, width, shares = page.js("() => window.printed")                       # what stood there when the browser took it
    assert theme == "light" and width <= 680 and max(shares, default=1) <= 1.01
    assert page.js("() => document.querySelector('.pxw').dataset.theme") == "dark" and page.js("() => document.querySelector('.pxw').style.width") == ""
    page.page.emulate_media(media="print", color_scheme="dark")
    page.settle(6)
    assert page.js("() => document.querySelector('.pxw').dataset.theme") == "light" and brightness(page, INK[name]) != before
    seen = page.js("() => [...document.querySelectorAll('.pxw button, .pxw select, .pxw input')].filter(e => e.offsetParent && !e.classList.contains('pxm-shot')).map(e => e.outerHTML.slice(0, 80))")
    assert seen == [] and page.overflow() <= 0
    cut = page.js("() => [...document.querySelectorAll('.pxw pre, .pxw .pxw-caption, .pxw .pxw-legend, .pxw .pxm-strip, .pxw .pxm-message')].filter(e => e.offsetParent && e.scrollWidth > e.clientWidth + 1).map(e => e.className || e.tagName)")
    assert cut == []
    page.page.emulate_media(media="screen", color_scheme="dark")
    page.settle(6)
    assert brightness(page, INK[name]) == before


# ---------------------------------------------------------------- a phone
STATE = "() => JSON.stringify(Object.fromEntries(['query', 'key', 'anchor', 'pixel', 'anchors', 'thresholds'].map(k => [k, window.pixcl.model.get(k)])))"


@pytest.mark.parametrize("name", WIDGETS)
def test_a_finger_scrolls_past_every_box_and_changes_nothing(open_widget, name):
    page = show(open_widget, name, width=390, height=500, phone=True)
    page.js("() => { document.querySelector('main').style.paddingBottom = document.querySelector('main').style.paddingTop = '600px'; }")
    for box in BOXES[name]:
        page.page.locator(box).first.evaluate("e => e.scrollIntoView({ block: 'center' })")
        page.settle(4)
        before, start = page.js(STATE), page.js("() => scrollY")
        page.swipe(box, dy=-150)
        assert abs(page.js("() => scrollY") - start) > 60, box
        assert page.js(STATE) == before, box


@pytest.mark.parametrize("name", WIDGETS)
def test_on_a_phone_nothing_is_cut_off(open_widget, name):
    page = show(open_widget, name, width=390, height=800, phone=True)
    assert page.overflow() <= 0
    cut = page.js("""() => [...document.querySelectorAll('.pxw .pxw-caption, .pxw .pxw-legend, .pxw .pxw-legend span, .pxw .pxm-message, .pxw .summary, .pxw .read, .pxw .pxw-field')]
        .filter(e => e.offsetParent && (e.scrollWidth > e.clientWidth + 1 || e.getBoundingClientRect().right > innerWidth)).map(e => e.textContent.slice(0, 40))""")
    assert cut == []
    small = page.js("() => [...document.querySelectorAll('.pxw .pxw-button, .pxw select')].filter(e => e.offsetParent && e.offsetHeight < 32).map(e => e.outerHTML.slice(0, 60))")
    assert small == [], "too small for a finger"


def test_a_finger_drags_sideways_and_taps(open_widget):
    page = show(open_widget, "copy_paste", width=390, height=800, phone=True)
    before = page.state("query")
    page.swipe("[data-view=query]", dx=40, start=(.4, .5))
    page.settle(4)
    assert page.state("query")["x"] > before["x"]
    page.tap("[data-view=pairs]", .25, .5)
    page.until(f"pixcl.model.get('anchor') === {144 // 4}")
    page = show(open_widget, "separation", width=390, height=800, phone=True)
    page.swipe("[data-plot='0']", dx=80, start=(.3, .5))
    page.until("pixcl.model.get('thresholds').a !== undefined")
    page.tap("[data-view=image]", .5, .25)
    page.until("pixcl.model.get('anchors') === 'cell'")
    assert page.state("pixel") == pytest.approx([48, 24], abs=1)
    page = show(open_widget, "monitor", width=390, height=800, phone=True)
    page.tap("[data-term=loss] canvas", .6, .5)
    assert page.hook("w.cursor") == pytest.approx(117, abs=8)


# ---------------------------------------------------------------- the whole cell, and two of a kind
@pytest.mark.parametrize("name", WIDGETS)
@pytest.mark.parametrize("width", [738, 1500])
def test_the_widget_fills_its_cell(open_widget, name, width):
    page = show(open_widget, name, width=width)
    inside, outside = page.js("() => [document.querySelector('.pxw').offsetWidth, document.querySelector('main').clientWidth]")
    assert inside == outside > width - 40 and page.overflow() <= 0


SECOND = """async () => {
  const heard = {}, first = window.pixcl.model, state = Object.fromEntries(Object.entries(first.state).map(([k, v]) => [k, v instanceof DataView ? new DataView(v.buffer.slice(0)) : v === null || typeof v !== 'object' ? v : structuredClone(v)]));
  const model = { get: (k) => state[k], set(k, v) { state[k] = v; (heard[`change:${k}`] || []).forEach((f) => f(model, v)); }, on(n, f) { n.split(' ').forEach((k) => (heard[k] = heard[k] || []).push(f)); }, off(n, f) { heard[n] = (heard[n] || []).filter((g) => g !== f); }, save_changes() {}, send() {}, state };
  const el = document.createElement('div'); el.id = 'second'; document.querySelector('main').append(el);
  window.second = { model, clean: await window.pixcl.render({ model, el }) };
}"""


@pytest.mark.parametrize("name", WIDGETS)
def test_two_of_a_kind_on_a_page_do_not_hear_each_other(open_widget, name):
    page = show(open_widget, name)
    page.js(SECOND)
    page.settle(6)
    ids = page.js("() => [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(set(ids)) == len(ids)
    labels = page.js("() => [...document.querySelectorAll('#second label')].every(l => document.getElementById(l.htmlFor)?.closest('#second'))")
    assert labels
    before = page.js(STATE)
    box = {"copy_paste": "#second [data-view=query]", "separation": "#second [data-plot='0']", "monitor": "#second [data-term=loss] canvas"}[name]
    page.drag(box, [(.2, .4), (.6, .6)])
    page.settle(6)
    assert page.js(STATE) == before
    if name == "monitor": assert page.js("() => [document.querySelector('#widget .pxw').pxw.cursor, document.querySelector('#second .pxw').pxw.cursor !== null]") == [None, True]
    else: assert page.js("() => JSON.stringify([window.second.model.get('query'), window.second.model.get('thresholds')]) !== JSON.stringify([window.pixcl.model.get('query'), window.pixcl.model.get('thresholds')])")
    page.js("() => { window.second.clean(); }")
    assert page.js("() => document.querySelector('#second').children.length") == 0
    page.page.emulate_media(color_scheme="dark")                               # what was taken away hears nothing any more
    page.settle(4)
    assert page.js("() => document.querySelector('#widget .pxw').dataset.theme") == "dark"


# ---------------------------------------------------------------- the keyboard
@pytest.mark.parametrize("name", WIDGETS)
def test_every_stop_of_the_tab_key_has_a_name_and_shows_itself(open_widget, name):
    page, stops = show(open_widget, name), []
    for _ in range(80):
        page.page.keyboard.press("Tab")
        stop = page.js("""() => { const e = document.activeElement; if (!e || e === document.body) return null; const s = getComputedStyle(e);
            return [e.outerHTML.slice(0, 60), e.getAttribute('aria-label') || [...(e.labels || [])].map(l => l.textContent).join() || (e.tagName === 'BUTTON' ? e.textContent : '') || e.title, s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 1]; }""")
        if stop is None or stop in stops: break
        stops.append(stop)
    assert len(stops) >= 5
    assert [stop for stop in stops if not stop[1] or not stop[2]] == []
