"""`make docs`: the notebooks as committed, the guide, the reference and the live widgets as one site that needs no server and no network.

    python nbs/site/make_site.py [--source build/docs-source] [--out build/docs] [--widgets correspondence,studio | none]

`assemble` lays the pages into the source folder with the layout of nbs/, `build` runs Sphinx over them; warnings are errors.
"""
import argparse
import html
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from configparser import ConfigParser
from pathlib import Path

import api_pages

SITE = Path(__file__).resolve().parent
ROOT = SITE.parent.parent
NBS = ROOT / "nbs"
GUIDE = ["glossary", "which_method", "own_data", "own_method", "scaling", "install", "scope"]             # their order; what else lies in nbs/guide follows
CHAPTERS = {"1_images": "1 Images", "2_networks": "2 Networks", "3_positives": "3 Positives", "4_losses": "4 Losses", "5_methods": "5 Methods", "6_training": "6 Training",
            "7_evaluation": "7 Evaluation", "8_widgets": "8 Widgets", "9_experiments": "9 Experiments", "": "Shared by all chapters", "course": "Course"}    # folder of nbs/ → its caption
STARTED = ["start_here", "densecl", "cp2", "label_contrast", "auxiliary_contrast", "comparison", "shortcut", "regimes", "from_imagenet", "explore", "claims", "results"]


def settings():
    parser = ConfigParser(delimiters=["="])
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    return parser["DEFAULT"]


# ---------- which page shows which file

def student_copies(folder):
    "The students' notebooks, made by the package: solutions and hidden tests are never read from the masters by anything else here."
    from pixcl_nb.course.packs import build_packs
    return {f"assignments/{path.stem}": path for path in build_packs(NBS / "assignments", folder)["student"]}


def in_order(paths, first): return sorted(paths, key=lambda path: (first.index(path.stem) if path.stem in first else len(first), path.stem))


def reading_order(path): return int(re.match(r"\d*", path.stem)[0] or 0), path.stem


def find_pages(copies):
    "Page → its file, for everything that is written by hand; the assignments as student copies only."
    pages = {path.relative_to(NBS).with_suffix("").as_posix(): path for folder in ("", *CHAPTERS) for path in sorted((NBS / folder).glob("*.ipynb"), key=reading_order)}
    pages |= {f"walkthroughs/{path.stem}": path for path in in_order((NBS / "walkthroughs").glob("*.ipynb"), STARTED)}
    pages |= {f"guide/{path.stem}": path for path in in_order([path for path in (NBS / "guide").glob("*.*") if path.suffix in (".md", ".ipynb")], GUIDE)}
    return pages | {"widgets": SITE / "widgets.md", "assignments/STUDENTS": NBS / "assignments" / "STUDENTS.md"} | copies


def shown_by(pages, modules):
    "File of the repository → page that shows it, for links."
    of = {path: page for page, path in pages.items() if path.is_relative_to(ROOT)}
    of |= {NBS / f"{page}.ipynb": page for page in pages if page.startswith("assignments/") and page != "assignments/STUDENTS"}
    return of | {ROOT / module.path: api_pages.page_of(module) for module in modules} | {ROOT / "pixcl_nb": "api/index"}


# ---------- one page

LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")

class Links:
    "Rewrites relative links: to the page that shows the file, else to the file in the public repository. Pictures are taken along."
    def __init__(self, of, folder, git_url): self.of, self.folder, self.git_url, self.broken = of, folder, git_url, []

    def __call__(self, text, home, page):
        "The Markdown of `page`, whose links are meant from the file `home`; code is left alone."
        parts = re.split(r"(^(?:```|~~~).*?^(?:```|~~~)[ ]*$|`[^`\n]+`)", text, flags=re.M | re.S)
        joined = "".join(f"\0{at}\0" if at % 2 else part for at, part in enumerate(parts))          # code inside a link's text stays in it
        joined = LINK.sub(lambda found: self.one(found, home, page), joined)
        return re.sub("\0(\\d+)\0", lambda found: parts[int(found[1])], joined)

    def one(self, found, home, page):
        picture, words, (target, mark, anchor) = found[1], found[2], found[3].partition("#")
        if found[3].startswith("#pixcl:"): return f'<a href="{html.escape(found[3])}">{words}</a>'       # moves a widget, see site.js; no anchor is looked for
        if re.match(r"#?[a-z]+:", found[3]): return found[0]
        anchor = anchor.lower()                                                  # Jupyter's headings keep their capitals, the site's do not
        if not target: return f"{picture}[{words}](#{anchor})"
        file = (home.parent / target).resolve()
        if file in self.of: return f"{picture}[{words}](/{self.page_file(self.of[file])}{mark}{anchor})"
        if not file.exists() or not file.is_relative_to(ROOT):
            self.broken.append(f"{home.relative_to(ROOT)} links to {found[3]}")
            return words
        if picture: return f"![{words}](/{self.take(file)})"
        return f"[{words}]({self.git_url}/{'tree' if file.is_dir() else 'blob'}/main/{file.relative_to(ROOT)}{mark}{anchor})"

    def page_file(self, page):
        "A page with the ending of its file."
        return page + (".ipynb" if any(path.suffix == ".ipynb" for path, one in self.of.items() if one == page) else ".md")

    def take(self, file):
        copied = Path("pictures") / file.relative_to(ROOT)
        (self.folder / copied).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, self.folder / copied)
        return copied.as_posix()


DIRECTIVE = re.compile(r"^\s*#\s*\|\s*([\w-]+).*\n?", re.M)
HIDDEN, KEPT_TAGS = {"hide", "default_exp", "default_cls_lvl"}, {"export": "export", "exports": "export", "exporti": "export", "slow": "slow", "notest": "not-run"}

def shown_cell(cell):
    "A code cell as a reader sees it, or None: nbdev's directives become tags, views of widgets give way to their pictures."
    found = set(DIRECTIVE.findall(cell["source"]))
    outputs = [without_views(output) for output in cell["outputs"]]
    cell = {**cell, "source": DIRECTIVE.sub("", cell["source"]).strip("\n"), "outputs": [output for output in outputs if output], "execution_count": None,
            "metadata": {"tags": sorted({KEPT_TAGS[word] for word in found & set(KEPT_TAGS)})}}
    return cell if (cell["source"] or cell["outputs"]) and not found & {"hide"} else None


def without_views(output):
    "An output without what needs a running kernel; None if nothing else is in it."
    if "data" not in output: return output
    data = {kind: value for kind, value in output["data"].items() if "widget" not in kind}
    return {**output, "data": data, "metadata": {}, **({"execution_count": None} if "execution_count" in output else {})} if data else None


def note_of(page, module):
    "One line under the title of a notebook that a module is exported from."
    return f"\n\n{{.origin}}\nNotebook `nbs/{page}.ipynb`, from which [`{module.name}`](/{api_pages.page_of(module)}.md) is exported; its cells are labelled *exported*."


def shown_notebook(path, page, links, modules):
    "A notebook as a page: links turned, directives out, a target before every cell that something public comes from."
    notebook = json.loads(path.read_text(encoding="utf-8"))
    module, cells = next((module for module in modules if module.notebook == f"nbs/{page}.ipynb"), None), []
    targets = {module.cell_of(entry) for entry in module.entries} if module else set()
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
        if cell["cell_type"] == "markdown": cell["source"] = links(cell["source"], NBS / f"{page}.ipynb", page)
        if cell["cell_type"] == "markdown" and module and cell is notebook["cells"][0]: cell["source"] = cell["source"].replace("\n\n", note_of(page, module) + "\n\n", 1) if "\n\n" in cell["source"] else cell["source"] + note_of(page, module)
        if cell.get("id") in targets: cells.append(dict(cell_type="markdown", id=f"to-{cell['id']}", metadata={}, source=f"({api_pages.target_of(module, cell['id'])})="))
        if cell["cell_type"] == "code": cell = shown_cell(cell)
        if cell: cells.append(cell)
    return {"cells": cells, "metadata": {"kernelspec": notebook["metadata"].get("kernelspec", {"name": "python3", "display_name": "python3", "language": "python"}), "language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 5}


def frame(name, page, called=None):
    "A widget's page within a page, as raw HTML in Markdown; links of the text call it by its `name`."
    file = "../" * page.count("/") + f"live/{name}.html"
    return (f'```{{raw}} html\n<iframe class="live" id="live-{name}" data-name="{called or name}" src="{file}" title="{called or name}" loading="lazy"></iframe>\n'
            f'<p class="source"><a href="{file}">this widget alone</a></p>\n```')


def with_frames(text, names, page): return re.sub(r"^<!-- widget: (\w+) -->$", lambda found: frame(found[1], page) if found[1] in names else "", text, flags=re.M)


def with_live_cells(notebook, names, page):
    "Cells of explore that show a widget get the live one in place of its picture, so that the links of the text move it here too."
    from live_widgets import IN_EXPLORE
    cells = []
    for cell in notebook["cells"]:
        called = cell["source"].rsplit("\n", 1)[-1].strip() if cell["cell_type"] == "code" else ""
        name = IN_EXPLORE.get(called)
        if name in names: cell = {**cell, "outputs": [output for output in cell["outputs"] if "image/png" not in output.get("data", {})]}
        cells.append(cell)
        if name in names: cells.append(dict(cell_type="markdown", id=f"live-{name}", metadata={}, source=frame(name, page, called)))
    return {**notebook, "cells": cells}


def first_sight(notebook, links, names):
    "The start page begins with a picture that the text drives."
    if "face" not in names: return notebook
    text = with_frames(links((SITE / "first.md").read_text(encoding="utf-8"), SITE / "first.md", "index"), names, "index")
    cells = notebook["cells"]
    return {**notebook, "cells": [cells[0], dict(cell_type="markdown", id="first-sight", metadata={}, source=text), *cells[1:]]}


# ---------- all of them

def tree(caption, lines): return "```{toctree}\n:hidden:\n" + (f":caption: {caption}\n" if caption else "") + "\n" + "\n".join(lines) + "\n```"


def contents(pages):
    "The site's table of contents, for the start page."
    named = lambda page: f"{Path(page).name.replace('_', ' ')} <{page}>"
    of = lambda folder: [page for page in pages if re.fullmatch(rf"{re.escape(folder)}/?\d+_\w+", page)]
    trees = [tree("Guide", [page for page in pages if page.startswith("guide/")]), tree("Walkthroughs", [page for page in pages if page.startswith("walkthroughs/")])]
    first = {"8_widgets": ["Live, in this page <widgets>"], "course": ["assignments/STUDENTS"]}
    for folder, caption in CHAPTERS.items(): trees.append(tree(caption, first.get(folder, []) + [named(page) for page in of(folder)]))
    return "\n\n".join([one for one in trees if not one.endswith("\n\n\n```")] + [tree("Reference", ["Modules and names <api/index>"])])


def math_script():
    "MathJax, one file that draws formulas as SVG: no fonts to load, so it works from file://, and from a package of the index."
    return next(file.locate() for file in importlib.metadata.files("sphinx-mathjax-offline") if file.name == "tex-svg-full.js")


def assemble(folder, widgets=None):
    "Lay every page into a fresh folder; `widgets` names those to build, None = all. Returns the links that lead to no file."
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    git_url, modules = settings()["git_url"], api_pages.read_package(ROOT)
    with tempfile.TemporaryDirectory() as packs:
        pages = find_pages(student_copies(Path(packs)))
        links, shown = Links(shown_by(pages, modules), folder, git_url), live(folder, widgets)
        for page, path in pages.items():
            target = folder / (page + path.suffix)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".ipynb": text = shown_notebook(path, page, links, modules)
            else: text = links(path.read_text(encoding="utf-8"), path, page)
            if page == "index":
                text = first_sight(text, links, shown)
                text["cells"].append(dict(cell_type="markdown", id="contents", metadata={}, source=contents(pages)))
            if page == "walkthroughs/explore" and shown: text = with_live_cells(text, shown, page)
            if page == "assignments/STUDENTS": text += "\n\n" + tree("", [one.removeprefix("assignments/") for one in pages if one.startswith("assignments/") and one != page]) + "\n"
            if page == "widgets": text = with_frames(text, shown, page)
            target.write_text(json.dumps(text) if isinstance(text, dict) else text, encoding="utf-8")
    api_pages.write_pages(modules, folder, git_url)
    (folder / "_static").mkdir()
    for file in (SITE / "site.css", SITE / "site.js", math_script()): shutil.copy(file, folder / "_static")
    shutil.copy(SITE / "conf.py", folder)
    return links.broken


def live(folder, names):
    "The widgets' own pages beside the others. Returns their names."
    if names is not None and not names: return []
    import torch
    from live_widgets import write_widgets
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try: return [path.stem for path in write_widgets(folder / "extra" / "live", names)]
    finally: torch.set_num_threads(threads)


def build(source, out, report=None):
    "Run Sphinx; a warning is an error, reported after all pages are done. Returns the exit code; `report` is a file for what it says, None = the screen."
    parsed = source.parent / f"{source.name}.parsed"                            # anew each time: a page that is not read again repeats no warning
    for folder in (out, parsed): shutil.rmtree(folder, ignore_errors=True)
    (source / "extra").mkdir(exist_ok=True)
    code = subprocess.run([sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-d", parsed, source, out], stdout=report, stderr=report).returncode
    shutil.rmtree(parsed, ignore_errors=True)
    return code


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--source", type=Path, default=ROOT / "build" / "docs-source")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "docs")
    parser.add_argument("--widgets", help="names with commas between, or none; default: all")
    asked = parser.parse_args(words)
    os.environ.setdefault("MPLBACKEND", "agg")
    started, widgets = time.time(), None if asked.widgets is None else [name for name in asked.widgets.split(",") if name != "none"]
    broken = assemble(asked.source.resolve(), widgets)
    print(f"pages assembled in {time.time() - started:.0f} s", flush=True)
    code = build(asked.source.resolve(), asked.out.resolve())
    size = sum(file.stat().st_size for file in asked.out.rglob("*") if file.is_file())
    print(f"{asked.out}/index.html: {len(list(asked.out.rglob('*.html')))} pages, {size / 1e6:.0f} MB, {time.time() - started:.0f} s")
    if broken: print("WARNING: links to what does not exist:", *broken, sep="\n  ", file=sys.stderr)
    return code or bool(broken)


if __name__ == "__main__": sys.exit(main())
