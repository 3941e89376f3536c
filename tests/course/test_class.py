"""A class of more than forty, marked in one go: good, differently good, partial, blank, endless, crashing, tampering."""
import csv
import hashlib
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from papers import A1, FIVE, FOUR, HONEST, MASTERS, ONE, ROOT, SIX, THREE, TWO, bare, code, mark_files, model, paper, place_of
from test_cases import JUPYTER, WAYS
from pixcl_nb.course.gradebook import open_gradebook
from pixcl_nb.course.packs import kind_of, marked_cells
from pixcl_nb.course.sandbox import Limits

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


def submissions(canary):
    "student → (assignment, notebook, points)."
    half = {"logits": A1["logits"], "loss": A1["loss"]}
    made = {f"honest{name[0]}": (name, paper(name, answers), 100) for name, answers in HONEST.items()}
    made |= {f"model{name[0]}": (name, bare(paper(name, model(name))), 100) for name in (ONE, TWO, THREE, FOUR, FIVE)}
    made |= {f"blank{name[0]}": (name, bare(paper(name)), 0) for name in MASTERS if name != SIX}
    made |= {f"jupyter {what}": (ONE, bare(paper(ONE, {**A1, **cells})), 100) for what, cells in JUPYTER.items()}
    made |= {f"way {way}": (ONE, bare(paper(ONE, {"logits": A1["logits"], "loss": source})), 20) for way, source in WAYS.items()}
    made["half"] = ONE, bare(paper(ONE, half)), 35
    made["syntax"] = ONE, bare(paper(ONE, {**half, "logits": "def info_nce_logits(:"})), 15
    made["no name"] = ONE, bare(paper(ONE, {**half, "logits": "def my_logits(*a): pass"})), 15
    stripped, deleted, edited = (bare(paper(ONE, A1)) for _ in range(3))
    for cell in stripped["cells"]: cell["metadata"] = {}
    deleted["cells"] = [cell for cell in deleted["cells"] if kind_of(cell) not in ("tests", "setup")]
    for cell in edited["cells"]:
        if kind_of(cell) == "tests": cell["source"] = "print('100 of 100'); 100"
    made |= {"stripped": (ONE, stripped, 100), "deleted": (ONE, deleted, 100), "edited": (ONE, edited, 100)}
    vandal = f"""import os, pathlib, shutil
for place in ({str(canary)!r}, {str(canary.parent)!r}, {str(ROOT)!r}, os.path.expanduser("~"), "/"):
    for what in (lambda p: shutil.rmtree(p), lambda p: os.remove(p), lambda p: open(p, "w").write("gone"), lambda p: pathlib.Path(p, "x").write_text("x")):
        try: what(place)
        except Exception: pass
""" + A1["loss"]
    made["vandal"] = ONE, bare(paper(ONE, {**half, "loss": vandal})), 35
    helper = bare(paper(ONE, {**A1, "loss": "def info_nce(s): return minus_log(s).mean()"}))
    helper["cells"].insert(place_of(helper, "loss"), code("def minus_log(s): return s.logsumexp(1) - s[:, 0]"))
    made["helper"] = ONE, helper, 100
    return made


def prints(folder):
    "Content of every file of the lecturer's."
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts}


@pytest.mark.long
def test_a_class_of_more_than_forty(tmp_path):
    canary = tmp_path/"desk"/"marks_of_last_year.csv"
    canary.parent.mkdir()
    canary.write_text("ann,100\n")
    made = submissions(canary)
    assert len(made) >= 40
    before = prints(ROOT/"nbs") | prints(ROOT/"pixcl_nb") | prints(canary.parent)
    results, course = mark_files(tmp_path, {f"{student}/{name}.ipynb": notebook for student, (name, notebook, _) in made.items()},
                                 Limits(seconds=3, total_seconds=60), fresh=[student for student in made if student.startswith("way") or student == "vandal"],
                                 patient=[student for student in made if student.startswith(("honest", "model"))])
    wanted = {(student, name): points for student, (name, _, points) in made.items()}
    found = {(marked.student, marked.assignment): marked.points for marked in results}
    assert found == wanted, {key: (found.get(key), wanted[key]) for key in wanted if found.get(key) != wanted[key]}
    assert prints(ROOT/"nbs") | prints(ROOT/"pixcl_nb") | prints(canary.parent) == before
    rows = {row["student"]: row for row in csv.DictReader(open(course/"marks.csv"))}
    assert {student: float(row["points"]) for student, row in rows.items()} == {student: points for student, (_, _, points) in made.items()}
    with open_gradebook(course) as book: assert len(list(book.assignment_submissions(ONE))) == sum(name == ONE for name, _, _ in made.values())
    for page in (course/"feedback").rglob("*.html"):
        text = page.read_text()
        assert "HIDDEN TESTS" not in text and "fresh_seed(" not in text and "<script" not in text
    assert "logits-seen was edited; the original was used" in rows["edited"]["remarks"] and "start was deleted; it was put back" in rows["deleted"]["remarks"]
