"""Sphinx's settings. make_site.py copies this file beside the assembled pages."""
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
