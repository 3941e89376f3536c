"""Assignments: what students get, what marks their work earns, and what a hostile submission cannot do."""
import copy
import csv
import html
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from mutants import MUTANTS
from pixcl_nb.capstone import CURVE, check_recipe, curve_points, published_scores, score_recipe
from pixcl_nb.course import (Limits, Server, build_packs, check_master, close_modules, compare, cost, find_masters, grade_folder, grade_notebook, kind_of, likely_cause, marked_cells, pack,
                             read_notebook, receive, replace_regions, student_copy, unpack, value_and_gradients, write_notebook)

ROOT = Path(__file__).parent.parent
MASTERS = {name: read_notebook(path) for name, path in find_masters(ROOT/"nbs"/"assignments").items()}
QUICK = Limits(seconds=20, total_seconds=60)         # generous: the machine may be busy


@pytest.fixture(scope="module")
def server():
    with Server() as running: yield running


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    return folder, build_packs(ROOT/"nbs"/"assignments", folder)


def changed(name, **sources):
    "A student copy of an assignment with other sources (grade_id with _ for -)."
    notebook = student_copy(MASTERS[name])
    for grade_id, source in sources.items(): marked_cells(notebook)[grade_id.replace("_", "-")]["source"] = source
    return notebook


def solved(name, *which):
    "A student copy with the master's solutions in some cells (all if none is named), without the markers."
    notebook = student_copy(MASTERS[name])
    for grade_id, cell in marked_cells(MASTERS[name]).items():
        if kind_of(cell) == "solution" and (not which or grade_id in which):
            marked_cells(notebook)[grade_id]["source"] = "\n".join(line for line in cell["source"].split("\n") if "### " not in line)
    return notebook


# ---------- masters and packs

@pytest.mark.parametrize("name", MASTERS)
def test_masters_keep_the_rules(name):
    check_master(MASTERS[name], name)                # 100 points, blanks of at most 25 lines, unique ids
    kinds = Counter(kind_of(cell) for cell in MASTERS[name]["cells"])
    assert kinds["written"] == 1 and kinds["setup"] == 1 and kinds["solution"] >= 3
    for cell in MASTERS[name]["cells"]:
        marks = cell["metadata"].get("nbgrader")
        if marks: assert marks["schema_version"] == 3 and {"grade", "solution", "locked", "task", "grade_id"} <= set(marks) and (("points" in marks) == bool(marks["grade"]))
        if kind_of(cell) == "written": assert cell["cell_type"] == "markdown" and marks["points"] == 10 and "*Marked for*" in cell["source"]
    assert "**Time**" in MASTERS[name]["cells"][0]["source"]
    hidden = [cell for cell in MASTERS[name]["cells"] if "### BEGIN HIDDEN TESTS" in cell["source"]]
    seen = [cell for cell in MASTERS[name]["cells"] if kind_of(cell) == "tests" and cell not in hidden]
    assert len(hidden) >= 3 and len(seen) >= 3


@pytest.mark.parametrize("name", MASTERS)
def test_no_line_of_a_solution_is_in_a_student_copy(packs, name):
    "Neither of its own solutions nor of any other assignment's; nor of the hidden tests."
    region = lambda what, source: [line.strip() for block in re.findall(rf"### BEGIN {what}\n(.*?)### END {what}", source, re.S) for line in block.split("\n") if line.strip()]
    text = (packs[0]/"student"/f"{name}.ipynb").read_text()
    lines = {line.strip() for cell in json.loads(text)["cells"] for line in "".join(cell["source"]).split("\n")}
    assert "BEGIN SOLUTION" not in text and "HIDDEN" not in text and "### END" not in text
    for other, master in MASTERS.items():
        for cell in master["cells"]:
            leaked = [line for line in region("SOLUTION", cell["source"]) if line in lines]
            assert not leaked, f"{name} holds a line of the solution of {other}: {leaked}"
            if other == name and kind_of(cell) == "tests": assert not [line for line in region("HIDDEN TESTS", cell["source"]) if line in lines]


def test_packs(packs):
    folder, written = packs
    assert {kind: len(paths) for kind, paths in written.items()} == dict(student=6, solution=6, grading=6, source=6)
    assert (folder/"instructor"/"GUIDE.md").exists() and (folder/"student"/"README.md").exists() and (folder/"instructor"/"nbgrader_config.py").exists()
    for path in written["student"]:
        for cell in json.loads(path.read_text())["cells"]:
            assert not cell.get("outputs"), "a student copy shows results"
            if kind_of(cell) in ("setup", "tests"): assert cell["metadata"]["deletable"] is False
            if kind_of(cell) == "solution": assert "raise NotImplementedError()" in "".join(cell["source"])
    for path in written["grading"]: assert "HIDDEN TESTS" in path.read_text() and "BEGIN SOLUTION" not in path.read_text()


def test_make_course_target():
    makefile = (ROOT/"Makefile").read_text()
    assert re.search(r"^course:", makefile, re.M) and any(line.strip("/") == "course" for line in (ROOT/".gitignore").read_text().split())


def test_rules_are_enforced():
    with pytest.raises(ValueError, match="without ### END"): replace_regions("### BEGIN SOLUTION\n1", "SOLUTION", [])
    with pytest.raises(ValueError, match="a second one"): replace_regions("### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION", "SOLUTION", [])
    bad = copy.deepcopy(MASTERS["1_info_nce"])
    marked_cells(bad)["loss-seen"]["metadata"]["nbgrader"]["points"] = 7
    with pytest.raises(ValueError, match="worth 101 points"): check_master(bad, "bad")
    marked_cells(bad)["loss"]["metadata"]["nbgrader"]["grade_id"] = "step"
    with pytest.raises(ValueError, match="'step' occurs twice"): check_master(bad, "bad")
    long = copy.deepcopy(MASTERS["1_info_nce"])
    cell = marked_cells(long)["loss"]
    cell["source"] = cell["source"].replace("    ### END", "    pass\n" * 25 + "    ### END")
    with pytest.raises(ValueError, match="a blank of 26 lines"): check_master(long, "long")


# ---------- marks

@pytest.mark.parametrize("name", MASTERS)
def test_untouched_is_0_and_solution_100(server, name):
    marked = grade_notebook(student_copy(MASTERS[name]), MASTERS[name], server, QUICK)
    assert marked.points == 0 and marked.out_of == 100 and not marked.remarks
    for notebook in (MASTERS[name], solved(name)):
        marked = grade_notebook(notebook, MASTERS[name], server, QUICK)
        assert marked.points == 100 and not marked.remarks, [(q["id"], q["why"]) for q in marked.questions if q["why"]]
    assert list(marked.written.values()) == [10]


@pytest.mark.parametrize("name", MASTERS)
def test_another_course_seed_changes_nothing_for_the_solution(server, name, monkeypatch):
    for seed in ("7", "2026"):
        monkeypatch.setenv("PIXCL_COURSE_SEED", seed)
        assert grade_notebook(MASTERS[name], MASTERS[name], server, QUICK).points == 100


@pytest.mark.parametrize("name", MASTERS)
def test_mutants_lose_the_points_they_should(server, name):
    questions = {grade_id for grade_id, cell in marked_cells(MASTERS[name]).items() if kind_of(cell) == "solution"}
    counts = Counter(question for question, *_ in MUTANTS[name])
    assert set(counts) == questions and min(counts.values()) >= 3
    wrong = []
    for question, what, text, replacement, loses in MUTANTS[name]:
        notebook = copy.deepcopy(MASTERS[name])
        cell = marked_cells(notebook)[question]
        assert text in cell["source"] and text != replacement, f"{question}: {what} no longer fits the solution"
        cell["source"] = cell["source"].replace(text, replacement)
        marked = grade_notebook(notebook, MASTERS[name], server, QUICK)
        if loses == "curve":
            expected = 40 + curve_points(list(published_scores(check_recipe(dict(method=eval(replacement)))).values()))
            right = marked.points == expected < 100
        else: right = marked.lost() == {"both": {f"{question}-seen", f"{question}-hidden"}, "hidden": {f"{question}-hidden"}, "all": {"recipe-seen", "recipe-hidden", "curve-hidden"}}[loses]
        if not right: wrong.append((question, what, loses, marked, [q["why"] for q in marked.questions if q["why"]]))
    assert not wrong, wrong


def test_marking_a_folder(tmp_path, monkeypatch):
    "Twelve submissions, as they come: marks, CSV and feedback."
    monkeypatch.setenv("SECRET_OF_THE_GRADER", "hunter2")
    one, three = "1_info_nce", "3_dense_matching"
    correct = lambda *which: {grade_id.replace("-", "_"): marked_cells(solved(one))[grade_id]["source"] for grade_id in which}
    tampered = changed(one, logits="print('100 of 100')\nimport torch\ntorch.allclose = torch.equal = lambda *a, **k: True\nimport pixcl_nb.course\npixcl_nb.course.compare = lambda *a, **k: None\ndef info_nce_logits(*a): return 'exact'",
                       **{name.replace("-", "_"): "assert True  # 100 points" for name in marked_cells(MASTERS[one]) if name.endswith(("seen", "hidden"))})
    deleted = solved(one)
    deleted["cells"] = [cell for cell in deleted["cells"] if kind_of(cell) not in ("tests", "setup")]
    renamed = solved(three)
    stripped = solved(one)                            # an editor that throws cell metadata away: the functions are found by name
    for cell in stripped["cells"]: cell["metadata"] = {}
    wanted = {  # student → (assignment, what is handed in, marks)
        "ada": (one, solved(one), 100), "bob": (three, renamed, 100),
        "blank": (one, student_copy(MASTERS[one]), 0),
        "partial": (one, changed(one, **correct("logits", "loss")), 35),
        "endless": (one, changed(one, **correct("logits"), loss="while True: pass"), 20),
        "sleeper": (one, changed(one, **correct("logits"), loss="import time\ndef info_nce(logits): time.sleep(1000)"), 20),
        "crash": (one, changed(one, **correct("logits", "step"), loss="import os\ndef info_nce(logits): os._exit(0)", logit_gradient="import ctypes\ndef logit_gradient(logits): ctypes.string_at(0)"), 35),
        "syntax": (one, changed(one, **correct("loss"), logits="def info_nce_logits(:"), 15),
        "tampered": (one, tampered, 0), "deleted": (one, deleted, 100), "stripped": (one, stripped, 100),
        "garbage": (one, None, 0)}
    for student, (name, notebook, _) in wanted.items():
        path = tmp_path/"handed_in"/student/(f"{name}.ipynb" if student != "ada" else f"{name}/{name}.ipynb")
        path.parent.mkdir(parents=True)
        path.write_text("{not json <script>alert(1)</script>") if notebook is None else write_notebook(path, notebook)
    (tmp_path/"handed_in"/"bob"/f"{three}.ipynb").rename(tmp_path/"handed_in"/"bob"/"my homework final.ipynb")
    lines = []
    results = grade_folder(tmp_path/"handed_in", ROOT/"nbs"/"assignments", tmp_path/"marks", Limits(seconds=4, total_seconds=60), say=lines.append)
    assert {m.student: m.points for m in results} == {student: points for student, (_, _, points) in wanted.items()}, results
    rows = list(csv.DictReader(open(tmp_path/"marks"/"marks.csv")))
    assert {row["student"]: (row["assignment"], float(row["points"]), row["out_of"]) for row in rows} == {student: (name, points, "100") for student, (name, _, points) in wanted.items()}
    remarks = {row["student"]: row["remarks"] for row in rows}
    assert remarks["ada"] == "" and "endless" in remarks["endless"] and "cannot" not in remarks["endless"] and "cannot be read" not in remarks["ada"] and "not a notebook" in remarks["garbage"]
    assert "logits-seen was edited; the original was used" in remarks["tampered"] and "start was deleted; it was put back" in remarks["deleted"]
    tests = list(csv.DictReader(open(tmp_path/"marks"/"questions.csv")))
    assert sum(float(row["points"]) for row in tests) == sum(float(row["points"]) for row in rows)
    why = {(row["student"], row["test"]): row["why"] for row in tests}
    assert "still to be done" in why["blank", "loss-seen"] and "took longer than" in why["sleeper", "loss-seen"] and "the process ended" in why["crash", "loss-seen"] and "is missing, or did not run" in why["syntax", "logits-seen"]
    for student, (name, _, _) in wanted.items():
        page = (tmp_path/"marks"/"feedback"/student/f"{name}.html").read_text()
        assert "HIDDEN" not in page and "fresh_seed(" not in page and "<script" not in page and "hunter2" not in page
    assert html.escape("print('100 of 100')") in (tmp_path/"marks"/"feedback"/"tampered"/f"{one}.html").read_text()


def test_a_folder_with_traps(tmp_path):
    "A link to the master, characters that are no characters, a formula for a name, and a stray notebook."
    one = "1_info_nce"
    broken = changed(one, loss="def info_nce(logits): raise ValueError('\ud800 <script>')")
    for student, notebook in {"=1+1": student_copy(MASTERS[one]), "odd": broken, "stray": dict(nbformat=4, nbformat_minor=5, metadata={}, cells=[])}.items():
        (tmp_path/"in"/student).mkdir(parents=True)
        (tmp_path/"in"/student/f"{'notes' if student == 'stray' else one}.ipynb").write_text(json.dumps(notebook))
    (tmp_path/"in"/"sly").mkdir()
    (tmp_path/"in"/"sly"/f"{one}.ipynb").symlink_to(ROOT/"nbs"/"assignments"/f"{one}.ipynb")
    results = {m.student: m for m in grade_folder(tmp_path/"in", ROOT/"nbs"/"assignments", tmp_path/"out", QUICK, say=lambda _: None)}
    assert [results[student].points for student in ("=1+1", "odd", "sly", "stray")] == [0, 0, 0, 0]
    assert "link" in str(results["sly"].remarks) and "no assignment" in str(results["stray"].remarks)
    assert "'=1+1" in (tmp_path/"out"/"marks.csv").read_text() and "<script" not in (tmp_path/"out"/"feedback"/"odd"/f"{one}.html").read_text()


# ---------- what a submission cannot do

def attack(server, source, name="1_info_nce", **keywords):
    "The marks of a submission whose `loss` cell is hostile; `logits` is right, so 20 points is what it should keep."
    return grade_notebook(changed(name, logits=marked_cells(solved(name))["logits"]["source"], loss=source), MASTERS[name], server, Limits(**{"seconds": 8, "total_seconds": 60, **keywords}), hide=[ROOT/"nbs"])


def test_values_cross_and_nothing_else():
    import struct
    for value in (torch.randn(3, 2), torch.tensor(True), torch.zeros(0, 3, dtype=torch.long), torch.randn(4).bfloat16(), [1, (2., None), {"a": torch.ones(1)}], "é", float("nan")):
        message = pack(value)
        length, size = struct.unpack(">QQ", message[:16])
        assert str(unpack(message[16:16 + length], message[16 + length:])) == str(value)
    class Sly: __reduce__ = lambda self: (os.system, ("true",))
    for bad in (Sly(), lambda x: x, {1, 2}, [object()]):
        with pytest.raises(TypeError, match="cannot be handed over"): pack(bad)
    for forged in (b'{"dtype": "load"}', b'{"tensor": ["load", [1], 4]}'):
        with pytest.raises(ValueError, match="no dtype"): unpack(forged, b"1234")
    a, b = socket.socketpair()
    a.sendall(struct.pack(">QQ", 2**40, 0))
    with pytest.raises(ValueError, match="at most"): receive(b, time.monotonic() + 5)


def test_objects_that_lie_about_themselves_are_not_values(server):
    marked = attack(server, "class Yes(float):\n    __eq__ = __ne__ = lambda *a: True\ndef info_nce(logits): return Yes(1)")
    assert marked.points == 20
    marked = attack(server, "import torch\nclass Yes(torch.Tensor):\n    @classmethod\n    def __torch_function__(cls, *a, **k): return True\ndef info_nce(logits): return torch.zeros(()).as_subclass(Yes)")
    assert marked.points == 20


def test_nonsense_on_the_wire_costs_only_its_own_points(server):
    "A submission that finds the socket and writes into it."
    noise = """
import gc, os, socket, stat
def info_nce(logits):
    for number in range(3, 64):
        try:
            if stat.S_ISSOCK(os.fstat(number).st_mode): os.write(number, %s)
        except OSError: pass
    return logits.sum()
"""
    for message in ("b'x' * 64", "b'\\0' * 7 + b'\\4' + b'\\0' * 8 + b'true'", "b'\\0' * 7 + b'\\2' + b'\\0' * 8 + b'[]'"): assert attack(server, noise % message).points == 20


def test_no_network_no_other_processes_no_solutions(server):
    look = """
import os, socket
def reach(where):
    try: socket.create_connection(where, 1); return True
    except OSError: return False
def info_nce(logits):
    found = dict(local=reach(("127.0.0.1", PORT)), nbs=os.path.exists(os.path.join(ROOT, "nbs", "index.ipynb")), secret="PIXCL_TEST_SECRET" in os.environ, pid=os.getpid(), here=os.getcwd())
    raise RuntimeError(str(found))
"""
    listener = socket.create_server(("127.0.0.1", 0))
    marked = attack(server, look.replace("PORT", str(listener.getsockname()[1])).replace("ROOT", repr(str(ROOT))))
    found = eval(re.search(r"\{.*\}", next(q["why"] for q in marked.questions if q["id"] == "loss-seen")).group())
    assert marked.points == 20 and not found["secret"] and "pixcl-student-" in found["here"] and not os.path.exists(found["here"])
    if not marked.granted["network"]: pytest.skip("this system grants no namespaces; pixcl grade says so")
    assert not found["local"]
    if marked.granted["processes"]: assert found["pid"] < 10
    if marked.granted["hidden"]: assert not found["nbs"]
    assert (ROOT/"nbs"/"index.ipynb").exists()        # hidden there, not here


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits as on Linux")
def test_limits(server):
    memory = attack(server, "import torch\ndef info_nce(logits): return torch.ones(2**30).sum()", memory=512)
    assert memory.points == 20 and "memory" in str([q["why"] for q in memory.questions if q["id"] == "loss-seen"]).lower()
    disk = attack(server, "def info_nce(logits):\n    open('big', 'wb').write(bytes(2**21))\n    return logits.sum()", file_size=1)
    assert disk.points == 20
    forks = attack(server, "import os, time\ndef info_nce(logits):\n    children = 0\n    for _ in range(500):\n        if os.fork() == 0: time.sleep(100); os._exit(0)\n        children += 1\n    raise RuntimeError('500 children')", processes=16)
    assert forks.points == 20 and "500 children" not in str([q["why"] for q in forks.questions])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_nothing_stays_behind(server):
    "A child that leaves for a session of its own dies with the submission."
    marked = attack(server, "import os, time\ndef info_nce(logits):\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n            os.execvp('sleep', ['sleep', '987654'])\n        os._exit(0)\n    time.sleep(100)", seconds=2)
    assert marked.points == 20
    if not marked.granted["processes"]: pytest.skip("this system grants no process namespace")
    time.sleep(.5)
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"987654" in (path.read_bytes() if path.exists() else b"")]


def test_closed_modules(server):
    for source in ("from pixcl_nb.losses import info_nce as theirs\ndef info_nce(logits): return theirs(logits, logits, logits)", "import importlib\ndef info_nce(logits): return importlib.import_module('pixcl_nb.losses').FORMS",
                   "def info_nce(logits):\n    import pixcl_nb.methods.moco"):
        marked = attack(server, source)
        assert marked.points == 20 and ("closed in this assignment" in str(marked.remarks) + str([q["why"] for q in marked.questions]))
    opened = changed("1_info_nce", logits="from pixcl_nb.course import close_modules\nclose_modules()\n" + marked_cells(solved("1_info_nce"))["logits"]["source"])     # opens the door from inside …
    marked_cells(opened)["loss"]["source"] = "from pixcl_nb.losses import FORMS\ndef info_nce(logits): return logits.sum()"
    marked = grade_notebook(opened, MASTERS["1_info_nce"], server, QUICK, hide=[ROOT/"pixcl_nb"/"losses.py"])
    if marked.granted["hidden"]: assert "FORMS" in str(marked.remarks)                        # … and finds an empty room
    assert marked.points == 20


def test_extra_cells_help_but_do_not_come_first(server):
    name = "1_info_nce"
    notebook = changed(name, loss="def info_nce(logits): return helper(logits).mean()")
    cells = notebook["cells"]
    at = next(i for i, cell in enumerate(cells) if kind_of(cell) == "solution" and cell["metadata"]["nbgrader"]["grade_id"] == "loss")
    cells.insert(at, dict(cell_type="code", source="%matplotlib inline\n!ls\ndef helper(s): return s.logsumexp(1) - s[:, 0]", metadata={}, outputs=[], execution_count=None))
    cells.insert(0, dict(cell_type="code", source="import pixcl_nb.losses\nassert False, 'I came first'", metadata={}, outputs=[], execution_count=None))
    marked = grade_notebook(notebook, MASTERS[name], server, QUICK)
    assert marked.points == 15 and any("closed" in remark for remark in marked.remarks), marked.remarks


def test_arguments_changed_in_place_are_noticed(server):
    marked = attack(server, "def info_nce(logits):\n    loss = (logits.logsumexp(1) - logits[:, 0]).mean()\n    logits.zero_()\n    return loss")
    assert marked.points == 20 and "in place" in marked.questions[2]["why"]


# ---------- tests that teach

def test_compare_says_how_far_off(capsys):
    table = torch.tensor([[1., 2.], [3., 4.]])
    for mine, says in ((table * 5, "5 times the right one"), (-table, "sign is flipped"), (table.T.contiguous(), "transposed"), (table + 2, "plus 2"), (table.flip(0), "another order"), (table * torch.nan, "NaN"),
                       (table.double(), "dtype torch.float64, expected torch.float32"), (table[0], r"shape \(2,\), expected \(2, 2\)"), (None, "nothing was returned"), ("exact", "expected a tensor, got str")):
        with pytest.raises(AssertionError, match=says): compare("table", mine, table)
    compare("table", table, table), compare("table", table + 1e-7, table), compare("pair", (1, 2.), [1, 2.]), compare("nan", float("nan"), float("nan"))
    assert "exact" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="OFF: 2, expected 3"): compare("count", 2, 3)
    with pytest.raises(AssertionError, match="expected a dict"): compare("dict", dict(a=1.), dict(a=1., b=2.))
    with pytest.raises(AssertionError): compare("wrong gradient", value_and_gradients(lambda x: x.detach().sum() + 0 * x.sum(), torch.ones(2))[1], [torch.ones(2)])
    assert cost(lambda x: x @ x.T, torch.ones(100, 2))["largest"] == 40_000 and likely_cause(torch.rand(3).double(), torch.rand(3).double()) == ""


def test_close_modules_is_undone():
    from pixcl_nb import losses
    close_modules("pixcl_nb.losses")
    try:
        with pytest.raises(ImportError, match="closed in this assignment"): from pixcl_nb.losses import info_nce
    finally:
        close_modules()
        sys.modules["pixcl_nb.losses"] = losses             # the same module object as before, for the tests that follow
        vars(sys.modules["pixcl_nb"])["losses"] = losses


# ---------- the capstone

def test_the_curve_is_that_of_our_own_runs():
    rows = json.loads((ROOT/"nbs"/"walkthroughs"/"results"/"claims_samples.json").read_text())["rows"]
    values = next(row["values"] for row in rows if row["row"] == "densecl_probe")
    for (miou, points), name, expected in zip(CURVE, ("random", "moco", "densecl-geometric"), (0, 30, 60)):
        assert abs(sum(values[name]) / len(values[name]) - miou) < 1e-3 and points == expected
    assert curve_points(values["densecl-geometric"]) == 60 and curve_points([0.]) == 0 and curve_points([.9]) == 60 and curve_points([.1945]) == 30
    assert 30 < curve_points(values["densecl"]) < curve_points(values["densecl-mutual"]) < 60


def test_recipes_keep_the_budget():
    assert check_recipe({})["steps"] == 400
    for bad in (dict(steps=401), dict(steps=10.5), dict(batch_size=33), dict(crop=100), dict(crop=90), dict(method="label_contrast"), dict(method="auxiliary_contrast"), dict(pretrained=True), dict(lr=0.), dict(lr=float("nan")), dict(steps=True), dict(warmup_steps=300, steps=200), "moco", None):
        with pytest.raises(ValueError): check_recipe(bad)
    assert published_scores(check_recipe(dict(method="densecl-geometric", lr=.05))) == {}


def test_a_small_recipe_is_trained_and_kept(tmp_path):
    recipe = dict(steps=2, warmup_steps=1, batch_size=4, crop=48, queue_size=32)
    first, said = score_recipe(recipe, seeds=(0,), folder=tmp_path, say=lambda _: None), []
    assert 0 < first[0] < 1 and score_recipe(recipe, seeds=(0,), folder=tmp_path, say=said.append) == first and not said


@pytest.mark.slow
def test_a_published_recipe_is_what_this_module_trains(tmp_path):
    from pixcl_nb.images.data import load_data
    from pixcl_nb.capstone import train_recipe
    from pixcl_nb.evaluation.probe import linear_probe
    recipe = check_recipe(dict(method="densecl-geometric"))
    torch.set_num_threads(1)
    encoder = train_recipe(recipe, 0, tmp_path)
    train, test = (load_data("samples", split=split, size=(128, 128)).cache() for split in ("train", "test"))
    assert abs(linear_probe(encoder, train, test, seed=0).miou - published_scores(recipe)[0]) < .005


# ---------- from the shell

def test_commands(tmp_path):
    import argparse
    from pixcl_nb.course import add_commands
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    arguments = parser.parse_args(["course", "--out", str(tmp_path/"course"), "--masters", str(ROOT/"nbs"/"assignments")])
    arguments.run(arguments)
    assert len(list((tmp_path/"course"/"student").glob("*.ipynb"))) == 6
    arguments = parser.parse_args(["grade", str(tmp_path/"nowhere")])
    with pytest.raises(FileNotFoundError, match="not a folder"): arguments.run(arguments)
