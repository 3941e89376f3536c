"""The documentation: one offline site without a dead link or a solution in it, and pages whose commands and code are those there are."""
import ast
import contextlib
import html
import importlib
import importlib.util
import io
import json
import re
import shlex
import sys
import tempfile
from configparser import ConfigParser
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup
from fastcore.docments import docments

from browser import chromium, no_browser
from pixcl_nb.cli import build_parser
from pixcl_nb.course.packs import find_masters, read_notebook, student_copy

ROOT = Path(__file__).parent.parent
SITE = ROOT / "nbs" / "site"
SETTINGS = ConfigParser(delimiters=["="])
SETTINGS.read(ROOT / "settings.ini", encoding="utf-8")
GIT = SETTINGS["DEFAULT"]["git_url"]
WIDGETS = ["studio", "face"]                               # those that are quick to make; `make docs` makes all
NOTEBOOKS = [path for path in sorted((ROOT / "nbs").rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]
MODULES = sorted(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in (ROOT / "pixcl_nb").rglob("*.py")
                 if path.name != "_modidx.py" and re.search(r"^__all__ = \['", path.read_text(), re.M))


# ---------- the site

@pytest.fixture(scope="module")
def built(tmp_path_factory):
    "(exit code, what was said, the site). Laid out in this process, which has torch loaded; two widgets."
    folder, said = tmp_path_factory.mktemp("site"), tempfile.TemporaryFile("w+")
    sys.path.insert(0, str(SITE))
    try:
        from make_site import assemble, build
        broken = assemble(folder / "source", WIDGETS)
    finally: sys.path.remove(str(SITE))
    code = build(folder / "source", folder / "docs", said)
    said.seek(0)
    return code, said.read() + "".join(f"WARNING: {one}\n" for one in broken), folder / "docs"


@pytest.fixture(scope="module")
def site(built):
    if not (built[2] / "index.html").exists(): pytest.fail(built[1])
    return built[2]


class Page(HTMLParser):
    "What a page offers (anchors), where it leads (links), and what it loads."
    LOADED = {("script", "src"), ("img", "src"), ("img", "srcset"), ("iframe", "src"), ("source", "src"), ("source", "srcset"), ("video", "src"), ("audio", "src"), ("embed", "src"), ("object", "data"), ("input", "src"), ("use", "href"), ("image", "href")}

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.loads, self.words, self.silent = set(), [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, given):
        given = {key: value or "" for key, value in given}
        self.anchors |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given: self.links.append(given["href"])
        if tag == "form": self.links.append(given.get("action", ""))
        if tag == "link" and not {"prev", "next", "index", "search", "author", "canonical"} & set(given.get("rel", "").split()): self.loads.append(given.get("href", ""))
        self.loads += [given[key] for key in given if (tag, key) in self.LOADED]
        self.loads += re.findall(r"url\(['\"]?([^'\")]+)", given.get("style", ""))
        if tag in ("script", "style"): self.silent = tag

    def handle_endtag(self, tag):
        if tag == self.silent: self.silent = ""

    def handle_data(self, data):
        if self.silent == "style": self.loads += loads_of_sheet(data)
        if not self.silent: self.words.append(data)

    @property
    def text(self): return "".join(self.words)


def loads_of_sheet(text): return re.findall(r"url\(\s*['\"]?([^'\")]+)", text) + re.findall(r"@import\s+['\"]([^'\"]+)", text)


@pytest.fixture(scope="module")
def pages(site): return {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}


def fault_of(link, path, pages, site):
    "What is wrong with a link of a page, or None."
    if link.startswith(GIT + "/"):
        file, _, line = link.removeprefix(GIT + "/").partition("/main/")[2].partition("#L")
        there = ROOT / file
        return None if there.exists() and (not line or int(line) <= len(there.read_text().split("\n"))) else "no such file or line in the repository"
    parts = urlsplit(link)
    if parts.scheme or not link or link in ("#", "#!"): return None
    if parts.fragment.startswith("pixcl:"): return None             # moves a widget: static/common.js answers it, no anchor does
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.is_relative_to(site): return "leads out of the site"
    if not target.is_file(): return "no such file"
    if parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors: return "no such anchor"


def test_site_is_built_without_a_warning(built):
    code, said, _ = built
    assert code == 0 and "WARNING" not in said, said[-6000:]


def test_every_notebook_and_guide_is_a_page(site):
    wanted = NOTEBOOKS + sorted((ROOT / "nbs" / "guide").glob("*.md"))
    missing = [path.name for path in wanted if not (site / path.relative_to(ROOT / "nbs")).with_suffix(".html").exists()]
    assert not missing and len(wanted) > 60 and not (site / "assignments" / "GUIDE.html").exists()
    reached, start = set(), (site / "index.html").read_text()
    for path in wanted: reached |= {path.name} if f'href="{path.relative_to(ROOT / "nbs").with_suffix(".html")}"' in start or path.name == "index.ipynb" or path.parent.name == "assignments" else set()
    assert reached == {path.name for path in wanted}, "not in the start page's contents"


def test_every_link_leads_somewhere(site, pages):
    faults = [f"{path.relative_to(site)}: {link}: {fault}" for path, page in pages.items() for link in page.links + page.loads if (fault := fault_of(link, path, pages, site))]
    assert not faults, "\n".join(faults[:30])
    assert sum(len(page.links) for page in pages.values()) > 5000          # the parser sees links at all


def test_nothing_is_loaded_from_another_host(site, pages):
    loads = [(path, load) for path, page in pages.items() for load in page.loads] + [(path, load) for path in site.rglob("*.css") for load in loads_of_sheet(path.read_text(encoding="utf-8"))]
    foreign = [f"{path.relative_to(site)}: {load}" for path, load in loads if re.match(r"(https?:)?//", load.strip())]
    assert not foreign and len(loads) > 500, "\n".join(foreign[:30])


def test_the_site_is_of_modest_size(site):
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < 60e6


# ---------- solutions

def lines_of(source): return {line.strip() for line in source.split("\n") if line.strip()}
def regions(source, what): return lines_of("\n".join(re.findall(rf"### BEGIN {what}\n(.*?)### END {what}", source, re.S)))
def sources(notebook): return lines_of("\n".join(cell["source"] for cell in notebook["cells"]))


@pytest.fixture(scope="module")
def secrets():
    "Assignment → lines of its solutions and hidden tests that stand in no page which may show them: neither in its own student copy nor in the library."
    library = "\n".join(line for path in NOTEBOOKS if path.parent.name != "assignments" for line in sources(read_notebook(path)))
    found = {}
    for name, path in find_masters(ROOT / "nbs" / "assignments").items():
        master = read_notebook(path)
        hidden = set().union(*(regions(cell["source"], what) for cell in master["cells"] for what in ("SOLUTION", "HIDDEN TESTS")))
        shown = "\n".join(cell["source"] for cell in student_copy(master)["cells"])        # a folded line may be part of a line that students see
        hidden = {line for line in hidden if line not in shown}
        found[name] = (hidden, {line for line in hidden if line not in library})
    return found


def test_no_solution_is_in_the_site(site, pages, secrets):
    for name, (hidden, unique) in secrets.items():
        assert len(hidden) > 20 and len(unique) > 15, name                 # the masters were read
        page = lines_of(pages[site / "assignments" / f"{name}.html"].text)
        assert not page & hidden, f"{name}: {sorted(page & hidden)[:5]}"
        assert "raise NotImplementedError()" in page and "# YOUR CODE HERE" in page
    everything = set().union(*(lines_of(page.text) for page in pages.values()))
    leaked = everything & set().union(*(unique for _, unique in secrets.values()))
    assert not leaked, sorted(leaked)[:5]


def test_no_file_of_the_site_holds_a_long_solution_line(site, secrets):
    "Sources, scripts and data too, not only what is shown."
    long = {line for _, unique in secrets.values() for line in unique if len(line) > 30}
    text = {path.name: html.unescape(re.sub(r"<[^>]+>", "", path.read_text(encoding="utf-8"))) for path in site.rglob("*") if path.suffix in (".html", ".js", ".json", ".txt", ".ipynb", ".md", ".inv")  and path.name != "objects.inv"}
    leaked = [(name, line) for line in long for name, content in text.items() if line in content]
    assert len(long) > 50 and not leaked, leaked[:5]
    assert not list(site.rglob("*.ipynb")) and not list((site / "_sources").rglob("*.*"))


# ---------- the reference

def squeezed(text): return re.sub(r"[\s`]+", "", text)

def described(value):
    "What the code's own comments say of a function's parameters, or a class's, as fastcore reads them."
    with contextlib.redirect_stderr(io.StringIO()):
        try: found = docments(value)
        except Exception: return {}
    return {name: about for name, about in found.items() if about and name not in ("self", "return")}


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_in_the_reference(site, name):
    module = importlib.import_module(name)
    page = BeautifulSoup((site / "api" / f"{name.removeprefix('pixcl_nb.')}.html").read_text(encoding="utf-8"), "html.parser")
    for public in module.__all__:
        head = page.find(id=f"{name}.{public}")
        assert head is not None, f"{name}.{public} has no entry"
        entry, value = head.parent.get_text(), getattr(module, public)
        assert f"/pixcl_nb/" in str(head.parent.find_all(href=re.compile(re.escape(GIT)))), f"{public}: no link to its source"
        if not callable(value): continue
        if isinstance(value, type): about = {} if "__init__" not in vars(value) or hasattr(value, "__dataclass_fields__") else described(value.__init__)
        else: about = described(value)
        for parameter, comment in about.items():
            assert parameter in entry and squeezed(comment) in squeezed(entry), f"{name}.{public}: {parameter} ({comment})"
        own = value.__doc__ if getattr(value, "__doc__", None) and value.__module__ == name and not (hasattr(value, "__dataclass_fields__") and value.__doc__.startswith(value.__name__ + "(")) else ""
        assert squeezed(own.strip().split("\n")[0]) in squeezed(entry), f"{name}.{public}: its docstring is not shown"


def test_parameters_are_described_and_fields_and_methods_too(site):
    "Some entries word by word, so that the test above cannot pass by comparing nothing with nothing."
    text = lambda name, of: squeezed(BeautifulSoup((site / "api" / f"{name}.html").read_text(encoding="utf-8"), "html.parser").find(id=of).parent.get_text())
    assert squeezed("temperature τ, above 0: a number, or a scalar tensor that may be learned") in text("losses.infonce", "pixcl_nb.losses.infonce.info_nce")
    assert squeezed("flip float probability of a left-right flip") in text("images.views", "pixcl_nb.images.views.ViewConfig")
    assert squeezed("returns dict data: h·w·C int8 in row-major cells") in text("widgets.base", "pixcl_nb.widgets.base.quantise")
    assert squeezed("query_mask (B, h, w) bool") in text("methods.cp2", "pixcl_nb.methods.cp2.CP2.terms")
    importable = [value for name in ("losses.label_losses", "images.views", "images.data", "training.settings", "training.loop") for value in vars(importlib.import_module(f"pixcl_nb.{name}")).values() if callable(value) and getattr(value, "__module__", "") == f"pixcl_nb.{name}" and not isinstance(value, type)]
    assert sum(len(described(value)) for value in importable) > 150
    assert (site / "genindex.html").read_text().count("(in module pixcl_nb.") > 150


# ---------- what the pages tell the reader to type

WRITTEN = [path for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "nbs").rglob("*.md"))]]
TARGETS = set(re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(), re.M))


def texts_of(path):
    "The Markdown of a page, or of a notebook's cells."
    if path.suffix == ".md": return [path.read_text(encoding="utf-8")]
    return ["".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "markdown"]


def fences(text): return [(words.split(" ")[0].strip("{}"), body) for words, body in re.findall(r"^```([^\n`]*)\n(.*?)^```", text, re.M | re.S)]
def shell_lines(body): return [line.strip().removeprefix("$ ") for line in body.replace("\\\n", " ").split("\n") if line.strip() and not line.strip().startswith("#")]
def commands_of(path): return [line for text in texts_of(path) for language, body in fences(text) if language in ("bash", "sh", "shell", "console", "") for line in shell_lines(body)]


PARSER = build_parser()

def commands():
    "Word → parser of each of pixcl's commands."
    return next(action.choices for action in PARSER._actions if action.dest == "command")


def command_fault(line):
    "What is wrong with a shell line, or None. Only `pixcl` and `make` are judged."
    for part in re.split(r"\s(?:&&|\|\||\||;)\s", re.sub(r"\s[12]?>>?\s*\S+", " ", line)):
        if not re.search(r"\b(make|pixcl|pixcl_nb\.cli)\b", part): continue
        words = shlex.split(part, comments=True)
        while words and re.match(r"\w+=", words[0]): words = words[1:]
        if words[:1] == ["torchrun"] or words[1:3] == ["-m", "pixcl_nb.cli"]: words = ["pixcl"] + words[words.index("pixcl_nb.cli") + 1:] if "pixcl_nb.cli" in words else []
        if words[:1] == ["make"]:
            unknown = [word for word in words[1:] if "=" not in word and word not in TARGETS]
            if unknown: return f"make has no {unknown}"
        if words[:1] == ["pixcl"] and "…" in words:                        # left out by the writer: what is there must exist
            known = commands().get(words[1])
            unknown = [word for word in words[2:] if word.startswith("--") and word not in known._option_string_actions] if known else words[1:2]
            if unknown: return f"pixcl has no {unknown}"
        elif words[:1] == ["pixcl"]:
            said = io.StringIO()
            try:
                with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said): PARSER.parse_args(words[1:])
            except SystemExit as end:
                if end.code: return said.getvalue().strip().split("\n")[-1]


def test_the_judge_of_commands_can_say_no():
    assert command_fault("pixcl pretrain cp2 --steps 5 --out runs/x") is None and command_fault("OMP_NUM_THREADS=1 pixcl demo > log.txt") is None
    assert command_fault("pixcl pretrain cp2 --stpes 5 --out runs/x") and command_fault("pixcl pretain cp2") and command_fault("make tset") and command_fault("make docs && make nothing")
    assert command_fault("pixcl pretrain … --outt x") and command_fault("pixcl pretain …") and command_fault("pixcl pretrain … --out x") is None
    assert command_fault("torchrun --nproc-per-node 2 -m pixcl_nb.cli pretrain cp2 --outt x") and command_fault("torchrun --nproc-per-node 2 -m pixcl_nb.cli pretrain cp2 --out x") is None


@pytest.mark.parametrize("path", WRITTEN + NOTEBOOKS, ids=lambda path: path.name)
def test_commands_are_those_there_are(path):
    faults = [f"{line}: {fault}" for line in commands_of(path) if (fault := command_fault(line))]
    inline = [code for text in texts_of(path) for code in re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))]
    faults += [f"{code}: {fault}" for code in inline if re.match(r"(make|pixcl) [a-z]", code) and (fault := command_fault(code if code.startswith("make") else f"{code} …"))]     # in a sentence words may be left out
    assert not faults, "\n".join(faults)


def test_some_commands_were_judged(): assert sum(line.startswith(("pixcl ", "make ")) for path in WRITTEN + NOTEBOOKS for line in commands_of(path)) >= 2


def is_module(name):
    try: return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError: return False


def missing_imports(code):
    "Names that a piece of code asks of pixcl_nb and that are not there. SyntaxError if it is no Python."
    missing = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pixcl_nb":
            module = importlib.import_module(node.module)
            missing += [f"{node.module}.{alias.name}" for alias in node.names if not hasattr(module, alias.name) and not is_module(f"{node.module}.{alias.name}")]
        if isinstance(node, ast.Import): missing += [alias.name for alias in node.names if alias.name.split(".")[0] == "pixcl_nb" and not is_module(alias.name)]
    return missing


def test_the_judge_of_imports_can_say_no():
    assert missing_imports("from pixcl_nb.losses import info_nce, nothing_of_the_kind") == ["pixcl_nb.losses.nothing_of_the_kind"]
    assert missing_imports("from pixcl_nb import load_data, lode_data") == ["pixcl_nb.lode_data"]
    with pytest.raises(SyntaxError): missing_imports("from pixcl_nb import (")


@pytest.mark.parametrize("path", WRITTEN + NOTEBOOKS, ids=lambda path: path.name)
def test_python_in_the_text_compiles_and_imports(path):
    for text in texts_of(path):
        for language, body in fences(text):
            if language in ("python", "py"): assert not missing_imports(body), body


LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")

def dead_links(path):
    "Relative links of a page or a notebook's text cells that lead to no file."
    texts = [re.sub(r"^```.*?^```|`[^`\n]+`", "", text, flags=re.M | re.S) for text in texts_of(path)]
    targets = [unquote(target.partition("#")[0]) for text in texts for target in LINK.findall(text) if not re.match(r"[a-z]+:|#", target)]
    return [target for target in targets if target and not (path.parent / target).exists()]


@pytest.mark.parametrize("path", WRITTEN + NOTEBOOKS, ids=lambda path: path.name)
def test_links_in_the_repository_lead_to_files(path): assert not dead_links(path)


def test_dead_links_are_found(tmp_path):
    (tmp_path / "here.md").write_text("[a](here.md) [b](there.md#x) ![c](https://x.example/y.png) `[d](code.md)`")
    assert dead_links(tmp_path / "here.md") == ["there.md"]


# ---------- citation

PAPERS = {"CP2: Copy-Paste Contrastive Pretraining": "arxiv.org/abs/2203.11709", "Dense Contrastive Learning for Self-Supervised Visual": "arxiv.org/abs/2011.09157",
          "Contrastive Learning for Label Efficient Semantic Segmentation": "arxiv.org/abs/2012.06985", "Looking Beyond Single Images": "proceedings.neurips.cc/paper/2021/hash/1a68e5f4ade56ed1d4bf273e55510750",
          "Improved Baselines with Momentum Contrastive Learning": "arxiv.org/abs/2003.04297"}


def test_citation_names_the_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] and citation["title"].startswith("pixcl_nb") and citation["authors"]
    for title, url in PAPERS.items():
        paper, = [one for one in citation["references"] if one["title"].startswith(title)]
        assert url in paper["url"] and paper["year"] and all(author["family-names"] for author in paper["authors"]), title


# ---------- in a browser, from file://, without a network

@pytest.fixture(scope="module")
def visit(site):
    "A function that opens a page of the site and returns it; complaints and requests to a network are collected and judged at the end."
    browser, problems = chromium(), []
    if isinstance(browser, str): no_browser(browser)
    context = browser.new_context(viewport={"width": 1400, "height": 900}, color_scheme="light", offline=True)
    page = context.new_page()
    page.on("console", lambda m: m.type in ("error", "warning") and "willReadFrequently" not in m.text and problems.append(f"{page.url}: {m.text}"))
    page.on("pageerror", lambda e: problems.append(f"{page.url}: {e}"))
    page.on("request", lambda r: r.url.startswith(("http", "ws")) and problems.append(f"{page.url} asks for {r.url}"))
    def go(address):
        page.goto(f"{site.as_uri()}/{address}")
        return page
    yield go
    context.close()
    assert not problems, problems


def test_every_formula_is_drawn(site, pages, visit):
    "One page as it opens; then every formula of the site by the same script, in one go."
    page = visit("4_losses/41_infonce.html")
    page.wait_for_function("() => document.querySelectorAll('span.math, div.math').length === document.querySelectorAll('mjx-container svg').length", timeout=20_000)
    formulas = sorted({html.unescape(found) for path in pages for found in re.findall(r'class="math[^>]*>\s*(?:\\\(|\\\[)(.*?)(?:\\\)|\\\])\s*</', path.read_text(encoding="utf-8"), re.S)})
    refused = page.evaluate("formulas => formulas.filter(formula => MathJax.tex2svg(formula).querySelector('[data-mjx-error], [data-mml-node=merror]'))", formulas)
    assert not refused and len(formulas) > 200, refused
    assert page.evaluate("MathJax.tex2svg('\\\\nosuchthing').querySelector('[data-mjx-error], [data-mml-node=merror]') !== null"), "a wrong formula would not be noticed"


def test_search_finds_from_a_file(visit):
    page = visit("search.html?q=info_nce")
    page.wait_for_function("() => [...document.querySelectorAll('#search-results li a')].some(a => a.href.endsWith('api/losses.infonce.html#pixcl_nb.losses.infonce.info_nce'))", timeout=20_000)


def test_widget_answers_and_follows_the_page(visit):
    page = visit("widgets.html")
    page.locator("iframe.live").first.scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelector('iframe.live').offsetHeight > 330", timeout=20_000)             # it said how high it is
    inside = next(frame for frame in page.frames if "/live/" in frame.url)
    inside.wait_for_selector(".pxw[data-theme=light]")
    page.evaluate("document.body.dataset.theme = 'dark'")
    inside.wait_for_selector(".pxw[data-theme=dark]")
    before = inside.locator(".pxw").inner_text()
    inside.locator("input[type=range]").first.evaluate("input => { input.value = input.max; input.dispatchEvent(new Event('input', { bubbles: true })); }")
    inside.wait_for_function("before => document.querySelector('.pxw').innerText !== before", arg=before)


@pytest.mark.parametrize("address, link", [("index.html", "the mouth"), ("walkthroughs/explore.html", "a part and its partner")])
def test_links_of_the_text_move_the_widget_of_the_page(visit, address, link):
    "The start page and explore: a frame that was asleep hears the link too."
    page = visit(address)
    words = page.get_by_role("link", name=link).first
    words.scroll_into_view_if_needed()
    frame = page.locator("iframe[data-name=face]")
    frame.wait_for()
    words.click()
    inside = frame.element_handle().content_frame()
    inside.wait_for_function("() => window.pixcl?.shown")
    wanted = {"the mouth": "model.get('pixel').join() === '437,456' && model.get('preset') !== 'where training helps'", "a part and its partner": "model.get('preset') === 'a part and its partner'"}[link]
    inside.wait_for_function(f"() => {{ const {{ model }} = window.pixcl; return {wanted}; }}")
    assert page.url.endswith(address)                                         # no jump, no other page


@pytest.mark.parametrize("width", [390, 1000, 1400])
def test_no_page_is_wider_than_the_window(visit, width):
    page = visit("index.html")
    page.set_viewport_size({"width": width, "height": 900})
    for address in ("index.html", "4_losses/41_infonce.html", "api/losses.infonce.html", "widgets.html"):
        assert visit(address).evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0, address
