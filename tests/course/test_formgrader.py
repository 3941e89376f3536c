"""nbgrader's own Formgrader on our gradebook, in a browser: a person reads, marks, comments; then everything is marked again."""
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
import browser
from papers import A1, ONE, bare, mark_files, paper
from pixcl_nb.course.gradebook import export_marks, open_gradebook

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


@pytest.fixture
def formgrader(tmp_path):
    "Jupyter in the course's folder, with nbgrader's extensions; gives the address."
    files = {"ann/1_info_nce.ipynb": bare(paper(ONE, {"loss": A1["loss"], "written": "**My answer** about the sky."})), "bob/1_info_nce.ipynb": bare(paper(ONE, A1))}
    results, course = mark_files(tmp_path, files)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "JUPYTER_CONFIG_DIR": str(tmp_path/"config"), "JUPYTER_DATA_DIR": str(tmp_path/"data"),
                   "JUPYTER_RUNTIME_DIR": str(tmp_path/"runtime")}
    command = [sys.executable, "-m", "jupyter", "server", "--no-browser", "--allow-root", f"--port={port}", "--ServerApp.token=", "--ServerApp.password=", "--ServerApp.disable_check_xsrf=True",
               "--ServerApp.jpserver_extensions={'nbgrader.server_extensions.formgrader': True}"]
    log = open(tmp_path/"jupyter.log", "w")
    server = subprocess.Popen(command, cwd=course, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    for _ in range(120):
        try: urllib.request.urlopen(f"{address}/api", timeout=2); break
        except OSError: time.sleep(.5)
    yield address, course, tmp_path, files
    server.terminate()
    server.wait(20)


@pytest.mark.long
def test_a_person_marks_in_formgrader(formgrader):
    address, course, tmp_path, files = formgrader
    page = browser.chromium().new_page(viewport=dict(width=1400, height=1000))
    page.goto(f"{address}/formgrader/manage_assignments")
    page.get_by_text(ONE).first.wait_for(timeout=60_000)
    page.goto(f"{address}/formgrader/gradebook/{ONE}/{ONE}")
    page.get_by_text("Submission #1").first.wait_for(timeout=60_000)
    with open_gradebook(course) as book: submission = book.find_submission_notebook(ONE, ONE, "ann").id
    page.goto(f"{address}/formgrader/submissions/{submission}/?index=0")
    page.get_by_text("about the sky").first.wait_for(timeout=60_000)
    assert page.get_by_text("is missing, or did not run").count() + page.get_by_text("still to be done").count() > 0        # what our tests said is beside the cells
    if "COURSE_PICTURE" in os.environ: page.screenshot(path=os.environ["COURSE_PICTURE"], full_page=True)
    score = page.locator('input#written.score')
    score.fill("7")
    score.dispatch_event("change")
    words = page.locator('textarea#written-comment')
    words.fill("The push is argued well; say what the temperature does.")
    words.dispatch_event("change")
    for _ in range(40):
        with open_gradebook(course) as book:
            if book.find_grade("written", ONE, ONE, "ann").manual_score == 7 and book.find_comment("written", ONE, ONE, "ann").manual_comment: break
        time.sleep(.25)
    page.close()
    results, _ = mark_files(tmp_path, files, again=True)
    with open_gradebook(course) as book:
        assert book.find_grade("written", ONE, ONE, "ann").manual_score == 7 and book.find_submission(ONE, "ann").score == 22 and book.find_submission(ONE, "bob").score == 100
    export_marks(course)
    text = (course/"feedback"/"ann"/f"{ONE}.html").read_text()
    assert "7 of 10" in text and "argued well" in text and ",22," in (course/"marks.csv").read_text()


def test_nbgraders_own_export(tmp_path):
    "nbgrader export reads the same book."
    _, course = mark_files(tmp_path, {"ann/1_info_nce.ipynb": bare(paper(ONE, {"loss": A1["loss"]}))})
    done = subprocess.run([sys.executable, "-m", "nbgrader", "export", "--to=grades.csv"], cwd=course, capture_output=True, text=True, env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"})
    assert done.returncode == 0, done.stderr[-1500:]
    assert ONE in (course/"grades.csv").read_text() and ",15.0," in (course/"grades.csv").read_text()
