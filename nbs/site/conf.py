"""Sphinx's settings. make_site.py copies this file beside the assembled pages."""
import functools
import re
import sys

from sphinx.search.en import SearchEnglish

sys.modules.setdefault("rfc3987_syntax", None)                      # a grammar of addresses that jsonschema reads for a second where it is installed; no address is checked here
SearchEnglish.stem = functools.cache(SearchEnglish.stem)            # the same words, page after page

project, author, copyright = "pixcl_nb", "The pixcl_nb authors", "2026 onwards, The pixcl_nb authors"
extensions = ["myst_nb", "sphinx.ext.mathjax"]
exclude_patterns = ["extra"]

# notebooks: as committed, nothing runs
nb_execution_mode = "off"
nb_merge_streams = True
nb_output_stderr = "show"                   # two notebooks show what the library says there
nb_number_source_lines = False
myst_enable_extensions = ["attrs_block", "colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 4
myst_dmath_double_inline = True

# formulas: one local file, see math_script in make_site.py; nothing is fetched, not even on a right click
mathjax_path = "tex-svg-full.js"
mathjax3_config = {"options": {"enableMenu": False, "enableEnrichment": False, "enableExplorer": False, "enableAssistiveMml": True}, "tex": {"packages": {"[-]": ["noundefined"]}}, "svg": {"fontCache": "local", "scale": .93}}
mathjax_options = {"defer": "defer"}

# the reference
add_module_names = False
python_maximum_signature_line_length = 90
toc_object_entries_show_parents = "hide"

html_theme = "furo"
pygments_dark_style = "github-dark"
smartquotes = False                         # "query" in a docstring is a value
html_title = "pixcl_nb"
html_static_path = ["_static"]
html_extra_path = ["extra"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_search_summary = False            # summaries are fetched, which a browser forbids on file://
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}


# ---------- the contents on every page: resolved and given furo's checkboxes once, then its links are made relative to each page (anew for each, that is two thirds of the build's time)

def contents_for(page, tree):
    "The contents as furo shows them on the start page, for another page: its own entry and those above it are marked as current, and open."
    tree = re.sub(r'href="(?![a-z]+:|#)', f'href="{"../" * page.count("/")}', tree)
    own = f'href="{"../" * page.count("/")}{page}.html"'
    above = []
    for tag in re.finditer(r'<li class="([^"]*)|</li>', tree[:max(0, tree.find(own))]): above.append(tag) if tag[1] else above.pop()
    for tag in reversed(above):
        classes = tag[1].replace(" has-children", "") + " current" + " has-children" * ("has-children" in tag[1]) + " current-page" * (tag is above[-1])
        rest = tree[tag.end():]
        if "has-children" in tag[1]: rest = rest.replace('" class="toctree-checkbox"', '" checked="" class="toctree-checkbox"', 1)
        tree = f"{tree[:tag.start(1)]}{classes}{rest}"
    return tree.replace(f'class="reference internal" {own}', 'class="current reference internal" href="#"')


def setup(app):
    trees = {}
    def resolve_once(app, page, template, context, doctree):
        if doctree is None or page == app.config.root_doc: return
        def toctree(**options):
            key = tuple(sorted(options.items()))
            if key not in trees: trees[key] = app.builder._get_local_toctree(app.config.root_doc, **options)
            return trees[key]                                       # the same words each time: furo remembers what it made of them
        context["toctree"] = toctree
    def mark_current(app, page, template, context, doctree):
        if doctree is not None and page != app.config.root_doc: context["furo_navigation_tree"] = contents_for(page, context["furo_navigation_tree"])
    app.connect("html-page-context", resolve_once, priority=400)
    app.connect("html-page-context", mark_current, priority=600)
