"""A widget's life in a real JupyterLab: a cell run again, an output cleared, a busy kernel, a notebook opened again, a kernel restarted."""
import os
import sys
from pathlib import Path

import pytest

from browser import chromium, no_browser

HERE = Path(__file__).parent
CELLS = ["""import sys; sys.path.insert(0, {tests!r})
import gc, time, weakref
from pixcl_nb.widgets.base import ALIVE
from test_widgets_screens import make_separation, make_studio
references = []""",
         "named = make_separation(); references.append(weakref.ref(named)); named",
         "make_separation()",                                       # the last line of a cell: no name holds it
         "display(make_studio(), make_studio())",                   # two of a kind
         """gc.collect(); print("alive", sum(reference() is not None for reference in references), "of", len(references), "named; all", len(ALIVE),
    "thresholds", sorted((type(widget).__name__, len(widget.thresholds)) for widget in list(ALIVE) if hasattr(widget, "thresholds")))""",
         "time.sleep(8); print('awake')"]


class Lent:
    "A context of the one browser of all tests, as browser_check wants it."
    def __init__(self, browser): self.context = browser.new_context(viewport={"width": 1300, "height": 1400})


class Notebook:
    "The few things done to a notebook here."
    def __init__(self, page): self.page = page
    def command(self, cell, name): self.page.page.evaluate("""async ([cell, name]) => { const { content } = window.jupyterapp.shell.currentWidget; content.activeCellIndex = cell; await window.jupyterapp.commands.execute(name); }""", [cell, name])
    def run(self, cell): self.command(cell, "notebook:run-cell"), self.page._settle(.3)
    def views(self, cell): return self.page.scope({"cell": cell}).locator(".pxw")
    def text(self, cell): return self.page.scope({"cell": cell}).inner_text()

    def probe(self, expected):
        "What Python says, once it has heard all."
        for _ in range(20):
            self.run(4)
            if expected in self.text(4): return
            self.page.page.wait_for_timeout(200)
        raise AssertionError(f"{expected!r} not in {self.text(4)!r}")


@pytest.fixture
def notebook(tmp_path):
    browser = chromium()
    if isinstance(browser, str): no_browser(browser)
    import nbformat
    sys.path.insert(0, str(HERE / "tools"))
    from browser_check import LabServer, NotebookPage
    cells = [nbformat.v4.new_code_cell(text.format(tests=str(HERE)) if i == 0 else text) for i, text in enumerate(CELLS)]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), tmp_path / "life.ipynb")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with LabServer(tmp_path) as server:
        lent = Lent(browser)
        page = NotebookPage(lent, server, "life.ipynb", timeout=120)
        page.page.on("dialog", lambda dialog: dialog.accept())
        try: yield Notebook(page)
        finally: lent.context.close()


@pytest.mark.long
def test_a_widgets_life_in_jupyterlab(notebook):
    page = notebook.page
    page.run_all()
    assert [notebook.views(cell).count() for cell in (1, 2, 3)] == [1, 1, 2]
    notebook.probe("alive 1 of 1 named; all 4")

    for _ in range(5): notebook.run(1)                              # run again: the old one goes, in Python and on the page
    assert notebook.views(1).count() == 1
    notebook.probe("alive 1 of 6 named; all 4")
    for _ in range(3): notebook.run(2), notebook.run(3)             # also where no name holds it, and IPython's Out would
    assert [notebook.views(cell).count() for cell in (2, 3)] == [1, 2]
    notebook.probe("alive 1 of 6 named; all 4")

    notebook.views(2).locator("[data-plot='0']").press("ArrowRight")          # nobody's widget is alive all the same
    notebook.probe("thresholds [('SeparationExplorer', 0), ('SeparationExplorer', 1)]")

    notebook.command(3, "notebook:clear-cell-output")               # a cleared output takes the views away; the cell can be run again
    assert notebook.views(3).count() == 0
    notebook.run(3)
    assert notebook.views(3).count() == 2
    notebook.probe("alive 1 of 6 named; all 4")

    page.page.evaluate("() => { const { content } = window.jupyterapp.shell.currentWidget; content.activeCellIndex = 5; window.jupyterapp.commands.execute('notebook:run-cell'); }")
    page.page.wait_for_timeout(500)
    plot = notebook.views(1).locator("[data-plot='0']")
    before = plot.get_attribute("aria-valuenow")
    plot.press("ArrowRight")                                        # the page answers while the kernel sleeps; it draws at its next frame
    page.page.wait_for_function("([plot, before]) => plot.getAttribute('aria-valuenow') !== before", arg=[plot.element_handle(), before], timeout=20_000)
    assert "awake" not in notebook.text(5)
    shown = float(plot.get_attribute("aria-valuenow"))
    page.act({"do": "expect", "cell": 5, "text": "awake", "timeout": 30})
    notebook.probe("thresholds [('SeparationExplorer', 1), ('SeparationExplorer', 1)]")
    assert shown == pytest.approx(float(notebook.views(1).locator("[data-plot='0']").get_attribute("aria-valuenow")))

    page.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    page.page.reload()                                              # opened again: the kernel still has the widgets, and gives their state
    page.page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.context?.isReady && window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'", timeout=120_000)
    page.page.wait_for_function("() => document.querySelectorAll('.jp-Notebook .pxw').length === 4", timeout=60_000)
    assert float(notebook.views(1).locator("[data-plot='0']").get_attribute("aria-valuenow")) == pytest.approx(shown)
    page.page.evaluate("() => { window.callbackErrors = []; }")

    page.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    page._settle()
    for cell in (1, 2):                                             # what is left of an old kernel on the page answers by itself, and breaks nothing
        plot = notebook.views(cell).locator("[data-plot='0']")
        if plot.count(): plot.press("ArrowRight")
    page.run_all()
    assert [notebook.views(cell).count() for cell in (1, 2, 3)] == [1, 1, 2]
    notebook.probe("alive 1 of 1 named; all 4")
    ours = [problem for problem in page.report()["problems"] if "debugger state" not in problem["text"]]     # JupyterLab's own, about the restart
    assert ours == []
