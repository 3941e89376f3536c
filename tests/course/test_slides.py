"""Slides come out of the method notebooks: a figure there is a figure here."""
import json
import shutil
from pathlib import Path

import pytest

from pixcl_nb.course.slides import METHODS, first_words, method_notebooks, picture_of, slides_of, write_slides
from pixcl_nb.course.packs import read_notebook


@pytest.mark.parametrize("name", METHODS)
def test_every_figure_and_heading_is_on_a_slide(name, tmp_path):
    notebook = read_notebook(method_notebooks()[name])
    pictures = [picture_of(cell) for cell in notebook["cells"] if cell["cell_type"] == "code" and picture_of(cell)]
    assert [picture for _, _, picture in slides_of(notebook) if picture] == pictures and len(pictures) >= 2
    page, = write_slides(tmp_path, [name], pdf=False)
    text = page.read_text()
    assert text.count("<section") == len(slides_of(notebook)) and text.count("<img") == len(pictures) and "http://" not in text.split("</script>")[-1]


def test_few_words_stand_on_a_slide():
    for name in METHODS:
        for title, text, picture in slides_of(read_notebook(method_notebooks()[name])):
            assert title and len(text.split()) < 200, (name, title)
    assert first_words("a " * 50 + "\n\n" + "b " * 50) .strip() == ("a " * 50).strip()


@pytest.mark.skipif(not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), reason="no Chromium")
def test_a_deck_as_pdf(tmp_path):
    page, pdf = write_slides(tmp_path, ["cp2"])
    count = pdf.read_bytes().count(b"/Type /Page") - pdf.read_bytes().count(b"/Type /Pages")
    assert count == page.read_text().count("<section")
