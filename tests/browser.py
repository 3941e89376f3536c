"""A headless Chromium for the widgets' tests: opens exported HTML from file:// with the network off and remembers every complaint.

    from browser import open_widget          # a fixture
    def test_x(open_widget):
        page = open_widget(widget)           # exports, opens, waits until it is shown
        page.hover("[data-view=query]", .5, .5)
        assert page.state("pixel") == [64, 64]

After the test the fixture asserts that there was no console error, no uncaught error and no request to a network.
Where no browser can be had the tests are skipped with a reason; with PIXCL_NEED_BROWSER=1 (set by .ci/run) they fail instead.
"""
import atexit
import functools
import os
import shutil

import pytest

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]


def find_chromium():
    "The browser's path, or None."
    wanted = [os.environ.get("CHROMIUM")] + [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    return next((path for path in wanted if path and os.path.exists(path)), None)


def no_browser(reason):
    if os.environ.get("PIXCL_NEED_BROWSER") == "1": pytest.fail(f"PIXCL_NEED_BROWSER=1, but {reason}")
    pytest.skip(f"BROWSER TESTS NOT RUN: {reason}. Install Chromium (Debian: apt-get install chromium) or set CHROMIUM to its path, and pip install playwright.")


@functools.cache
def chromium():
    "One browser for the whole run, or the reason (a str) why there is none."
    path = find_chromium()
    if path is None: return "no Chromium was found"
    try: from playwright.sync_api import sync_playwright
    except ImportError: return "Python's package playwright is missing"
    driver = sync_playwright().start()
    browser = driver.chromium.launch(executable_path=path, headless=True, args=FLAGS)
    atexit.register(lambda: (browser.close(), driver.stop()))
    return browser


OF_THE_TEST = ("willReadFrequently", "GPU stall due to ReadPixels")      # Chromium's remarks on how a test reads a canvas, and on its own software renderer
IDLE = {}                     # settings of a context → its pages that no test uses: a renderer of its own costs a test four times what its page does


class WidgetPage:
    "An exported widget, open in the browser."
    def __init__(self, browser, path, width=960, height=900, scheme="light", touch=False, phone=False):
        self.kind = (touch or phone, phone)
        self.problems, self.session, idle = [], None, IDLE.setdefault(self.kind, [])
        self.page = idle.pop() if idle else browser.new_context(offline=True, has_touch=self.kind[0], **(dict(is_mobile=True, device_scale_factor=2) if phone else {})).new_page()
        self.context = self.page.context
        self.page.set_viewport_size(dict(width=width, height=height))
        self.page.emulate_media(media="null", color_scheme=scheme)
        self.listeners = {"console": lambda m: m.type in ("error", "warning") and not any(words in m.text for words in OF_THE_TEST) and self.problems.append(f"console {m.type}: {m.text}"),
                          "pageerror": lambda e: self.problems.append(f"uncaught: {e}"),
                          "request": lambda r: r.url.startswith(("http", "ws")) and self.problems.append(f"network: {r.url}")}
        for event, listener in self.listeners.items(): self.page.on(event, listener)
        self.page.goto(path.as_uri())
        self.page.wait_for_function("() => window.pixcl?.shown", timeout=20_000)
        self.settle()

    def close(self):
        "Leave the page to the next test: empty, with nobody listening, the pointer outside. One whose screen was changed goes."
        if self.session: return self.context.close()
        for event, listener in self.listeners.items(): self.page.remove_listener(event, listener)
        self.page.mouse.up(), self.page.mouse.move(0, 0)
        self.page.goto("about:blank")
        IDLE[self.kind].append(self.page)

    def settle(self, frames=2): "Let the page paint."; self.page.evaluate(f"async () => {{ for (let i = 0; i < {frames}; i++) await new Promise(requestAnimationFrame); }}")
    def js(self, code, *values): "Run a JavaScript function in the page."; return self.page.evaluate(code, *values)
    def state(self, key): "A trait as the front end holds it."; return self.page.evaluate("key => window.pixcl.model.get(key)", key)
    def set(self, key, value): "Set a trait, as Python would."; self.page.evaluate("([key, value]) => window.pixcl.model.set(key, value)", [key, value]), self.settle()
    def hook(self, code): "Evaluate an expression on the widget's test hook, `root.pxw` (called w)."; return self.page.evaluate(f"() => {{ const w = document.querySelector('.pxw').pxw; return {code}; }}")
    def text(self, selector=".pxw"): return self.page.locator(selector).first.inner_text()
    def field(self, label): "The control with this label."; return self.page.get_by_label(label, exact=True)

    def at(self, selector, x, y):
        "Where (x, y), shares of an element, lies on the page."
        element = self.page.locator(selector).first
        element.scroll_into_view_if_needed()
        box = element.bounding_box()
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def hover(self, selector, x, y): self.page.mouse.move(*self.at(selector, x, y)), self.settle()
    def click(self, selector, x, y): self.page.mouse.click(*self.at(selector, x, y)), self.settle()
    def tap(self, selector, x, y): self.page.touchscreen.tap(*self.at(selector, x, y)), self.settle()

    def drag(self, selector, points, steps=6):
        "Press at the first of the points, shares of an element, move along the others, let go."
        self.page.mouse.move(*self.at(selector, *points[0]))
        self.page.mouse.down()
        for point in points[1:]: self.page.mouse.move(*self.at(selector, *point), steps=steps)
        self.page.mouse.up()
        self.settle()

    def swipe(self, selector, dx=0, dy=0, start=(.5, .5)):
        "A finger put down in the middle of an element (or at other shares of it), moved by so many pixels, and lifted."
        self.page.locator(selector).first.evaluate("e => e.scrollIntoView({ block: 'center' })")
        self.settle()
        box, size = self.page.locator(selector).first.bounding_box(), self.page.viewport_size
        x, y = box["x"] + start[0] * box["width"], min(max(box["y"] + start[1] * box["height"], 70), size["height"] - 70)
        session = self.context.new_cdp_session(self.page)
        touch = lambda kind, *points: session.send("Input.dispatchTouchEvent", dict(type=kind, touchPoints=[dict(x=px, y=py) for px, py in points]))
        touch("touchStart", (x, y))
        for step in range(1, 13): touch("touchMove", (x + dx * step / 12, y + dy * step / 12)), self.page.wait_for_timeout(12)
        touch("touchEnd")
        self.page.wait_for_timeout(250)
        session.detach()

    def style(self, css): "Add a style sheet to the page, and let it settle."; self.page.add_style_tag(content=css), self.settle(4)
    def density(self, factor):
        "Move the window to a screen with so many pixels in a CSS pixel; the widget's size in CSS pixels stays (the window is made a little higher)."
        size = dict(self.page.viewport_size)
        size["height"] += factor
        self.session = self.context.new_cdp_session(self.page)          # the setting lasts as long as the session
        self.session.send("Emulation.setDeviceMetricsOverride", dict(width=size["width"], height=size["height"], deviceScaleFactor=factor, mobile=False))
        self.until(f"window.devicePixelRatio === {factor}")
        self.settle(4)

    def slide(self, label, value):
        "Move a slider."
        self.field(label).evaluate("(input, value) => { input.value = value; input.dispatchEvent(new Event('input', { bubbles: true })); }", str(value))
        self.settle()

    def press(self, selector, *keys):
        element = self.page.locator(selector).first
        element.focus()
        for key in keys: element.press(key)
        self.settle()

    def until(self, code, timeout=10):
        "Wait until a JavaScript expression is true."
        self.page.wait_for_function(f"() => {code}", timeout=timeout * 1000)

    def shoot(self, path): "A picture of the widget."; self.page.locator(".pxw").first.screenshot(path=str(path)); return path
    def overflow(self): "How many pixels the page is too wide."; return self.page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")


@pytest.fixture
def open_widget(tmp_path):
    "A function that exports a widget, opens it offline, and returns its `WidgetPage`."
    browser, opened = chromium(), []
    if isinstance(browser, str): no_browser(browser)
    def opener(widget, **settings):
        page = WidgetPage(browser, widget.export_html(tmp_path / f"widget_{len(opened)}.html"), **settings)
        opened.append(page)
        return page
    yield opener
    problems = [problem for page in opened for problem in page.problems]
    for page in opened: page.close()
    assert not problems, problems
