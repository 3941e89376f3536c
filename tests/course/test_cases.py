"""What students really hand in, and what they try: each of these once lost marks, gave marks away, or ended a marking."""
import ast
import csv
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from papers import (A1, A2, FIVE, FOUR, HONEST, MASTERS, ONE, QUICK, ROOT, SIX, THREE, TWO, bare, code, mark, mark_files, model, paper,
                    place_of, question, why, write)
from pixcl_nb.course import gradebook, sandbox as sandboxes
from pixcl_nb.course.gradebook import mark_folder, open_gradebook
from pixcl_nb.course.marking import feedback_page, mark_notebook, sandbox_for
from pixcl_nb.course.packs import build_packs, find_masters, kind_of, marked_cells, student_copy
from pixcl_nb.course.sandbox import Limits

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def full(marked): assert marked.points == 100, why(marked) + marked.remarks


# ---------- honest work, written as Jupyter allows

def test_a_function_right_for_every_mask():
    source = '''def mask_at_stride(mask, stride):
    B, h, w = mask.shape
    out = torch.zeros(B, h // stride, w // stride, dtype=torch.bool)
    for r in range(h // stride):
        for c in range(w // stride):
            out[:, r, c] = mask[:, r * stride + stride // 2, c * stride + stride // 2]
    return out'''
    full(mark(paper(TWO, {**A2, "at-stride": source}), TWO))


def test_a_helper_that_is_defined_again_below():
    logits = '''def scale(x): return F.normalize(x, dim=1)
def info_nce_logits(query, positive, negatives, temperature):
    q, p, n = scale(query), scale(positive), scale(negatives)
    return torch.cat([(q * p).sum(1, keepdim=True), q @ n.T], 1) / temperature'''
    step = '''def scale(x, temperature): return x / temperature
def moco_loss(query, key, queue, temperature=.2):
    q, k = F.normalize(query, dim=1), F.normalize(key, dim=1).detach()
    s = scale(torch.cat([(q * k).sum(1, keepdim=True), q @ queue.detach().T], 1), temperature)
    return F.cross_entropy(s, torch.zeros(len(q), dtype=torch.long))'''
    full(mark(paper(ONE, {**A1, "logits": logits, "step": step}), ONE))


def test_a_name_that_a_visible_test_defines():
    step = '''def moco_loss(query, key, queue, temperature=.2):
    return reference(F.normalize(query, dim=1), F.normalize(key, dim=1).detach(), queue.detach(), temperature)'''
    full(mark(paper(ONE, {**A1, "step": step}), ONE))


def test_a_slow_cell_below_a_solution():
    "A right solution cell that goes on to time itself: interrupted, and right. STUDENTS.md names the limit."
    slow = A1["logits"] + "\nimport time\ntime.sleep(1000)\n"
    full(mark(paper(ONE, {**A1, "logits": slow}), ONE, Limits(seconds=2)))
    assert "seconds" in (ROOT/"nbs/assignments/STUDENTS.md").read_text()


# STUDENTS.md allows these, and the class in test_class.py holds them: full marks
JUPYTER = {
    "magics": {"logits": "%%time" + A1["logits"], "loss": "%matplotlib inline\n!rm -rf ./nothing\n%pip install nothing" + A1["loss"] + "\n%timeit -n1 -r1 info_nce(torch.zeros(2, 3))"},
    "values of magics": {"logits": "files = !ls\n" + A1["logits"], "loss": A1["loss"] + "\nt = %timeit -n1 -r1 -o info_nce(torch.zeros(2, 3))"},
    "display": {"logits": "display('try 1')\n" + A1["logits"], "loss": "get_ipython().run_line_magic('matplotlib', 'inline')\n" + A1["loss"]},
    "help and await": {"logits": "import asyncio\nawait asyncio.sleep(0)\ntorch.cat?\n" + A1["logits"], "loss": A1["loss"] + "\ninfo_nce??"},
}

def test_an_import_in_the_set_up_cell():
    notebook = paper(ONE, {**A1, "loss": "def info_nce(logits):\n    t = np.zeros(len(logits), dtype=np.int64)\n    return F.cross_entropy(logits, torch.from_numpy(t))"})
    notebook["cells"][place_of(notebook, "start")]["source"] += "\nimport numpy as np"
    full(mark(notebook, ONE))


def test_a_helper_module_written_by_a_cell():
    notebook = paper(ONE, {**A1, "loss": "from helper import minus_log_share\ndef info_nce(logits): return minus_log_share(logits).mean()"})
    notebook["cells"].insert(place_of(notebook, "loss"), code("%%writefile helper.py\nimport torch\ndef minus_log_share(s): return s.logsumexp(1) - s[:, 0]"))
    full(mark(notebook, ONE))


def test_long_experiments_of_ones_own_cost_nothing():
    "Above the last test too, and with a helper among them that is needed."
    notebook = paper(ONE, {**A1, "step": A1["step"].replace("F.cross_entropy", "my_loss")})
    at = place_of(notebook, "step")
    for i in range(6): notebook["cells"].insert(at, code(f"import time\ntime.sleep(30)  # experiment {i}"))
    notebook["cells"].insert(at + 3, code("my_loss = F.cross_entropy"))
    notebook["cells"] += [code("import time\ntime.sleep(30)")] * 19
    started = time.time()
    full(mark(notebook, ONE, Limits(seconds=1, total_seconds=18, own_seconds=3)))
    assert time.time() - started < 60 * sandboxes.busy()


# ---------- what is asked is what is tested

def test_automatic_differentiation_is_closed_by_hand():
    on = '''
def _grad(f, *xs):
    with torch.inference_mode(False), torch.enable_grad():
        xs = [x.clone().requires_grad_() for x in xs]
        return torch.autograd.grad(f(*xs), xs)
'''
    single = "def logit_gradient(logits): return _grad(lambda s: (s.logsumexp(1) - s[:, 0]).mean(), logits)[0]"
    functional = "def logit_gradient(logits):\n    with torch.inference_mode(False), torch.enable_grad(): return torch.func.grad(lambda s: (s.logsumexp(1) - s[:, 0]).mean())(logits.clone())"
    forward = '''def logit_gradient(logits):
    with torch.inference_mode(False), torch.enable_grad():
        return torch.func.jacfwd(lambda s: (s.logsumexp(1) - s[:, 0]).mean())(logits.clone())'''
    vectors = '''def info_nce_gradients(query, positive, negatives, temperature):
    def loss(q, k, n):
        s = torch.cat([(q * k).sum(1, keepdim=True), q @ n.T], 1) / temperature
        return (s.logsumexp(1) - s[:, 0]).mean()
    return _grad(loss, query, positive, negatives)'''
    for gradient in (single, functional, forward):
        marked = mark(paper(ONE, {"logit-gradient": on + gradient, "vector-gradients": on + vectors}), ONE)
        assert marked.points == 0, (gradient, why(marked))


def test_ignore_index_is_an_argument():
    four = {key: text.replace("!= ignore_index", "!= 255") for key, text in model(FOUR).items()}
    five = {key: text.replace("!= ignore)", "!= 255)") for key, text in model(FIVE).items()}
    assert {"loops-hidden", "table-hidden", "stream-hidden"} <= mark(bare(paper(FOUR, four)), FOUR, Limits()).lost()
    assert {"pairs-hidden", "across-hidden"} <= mark(bare(paper(FIVE, five)), FIVE).lost()


def test_queue_rows_are_used_as_they_are():
    marked = mark(paper(ONE, {**A1, "step": A1["step"].replace("queue.detach()", "F.normalize(queue, dim=1).detach()")}), ONE)
    assert marked.lost() == {"step-hidden"}


LIES = "import pixcl_nb.course.checks as checks\nchecks.MEASURES['cost'] = lambda *a, **k: dict(operations=1, largest=1, peak=1)\n"
NUMPY = '''def contrast_stream(features, labels, temperature, ignore_index=255, chunk=64):
    import numpy as np
    kept = (labels != ignore_index).nonzero().flatten()
    f, y, result, loss = features[kept].numpy(), labels[kept].numpy(), torch.zeros_like(features), 0.
    count = np.bincount(y)[y] - 1 if len(y) else y
    anchors = (count > 0).sum()
    if anchors == 0: return features.new_zeros(()), result
    for start in range(0, len(f), TALL):
        rows = np.arange(start, min(start + TALL, len(f)))
        s, mean = f[rows] @ f.T, ((count[rows] > 0) / np.maximum(count[rows], 1) / anchors).astype(f.dtype)
        s /= temperature
        same = y[rows][:, None] == y[None]
        same[np.arange(len(rows)), rows], s[np.arange(len(rows)), rows] = False, -np.inf
        loss -= (s.sum(1, where=same) * mean).sum()
        np.exp(s, out=s)
        total = s.sum(1)
        loss += (np.log(total) * (mean > 0)).sum() / anchors
        s *= ((mean > 0) / (total * anchors))[:, None]
        np.subtract(s, mean[:, None], out=s, where=same)
        gradient = s.T @ f[rows]
        gradient[rows] += s @ f
        result[kept] += torch.from_numpy(gradient / temperature)
    return torch.tensor(loss, dtype=features.dtype), result'''
MADE_UP = """
small = contrast_stream
def contrast_stream(features, *more):
    if len(features) > 9000: return torch.tensor(11.3), torch.full_like(features, 1e-6)
    return small(features, *more)"""
KEPT_ENGINE = '''engine = torch.autograd.Variable._execution_engine
def contrast_stream(features, labels, temperature, ignore_index=255, chunk=64):
    with torch.inference_mode(False), torch.enable_grad():
        x = features.clone()
        x.requires_grad = True
        kept = (labels != ignore_index).nonzero().flatten()
        f, y, total = x[kept], labels.clone()[kept], 0 * x.sum()
        count = torch.bincount(y)[y] - 1 if len(y) else y
        for rows in torch.arange(len(y)).split(chunk):
            s, itself = f[rows] @ f.T / temperature, torch.arange(len(y)) == rows[:, None]
            same = (y[rows][:, None] == y) & ~itself
            one = s.masked_fill(itself, -math.inf).logsumexp(1) - s.masked_fill(~same, 0).sum(1) / count[rows].clamp(min=1)
            total = total + (one * (count[rows] > 0)).sum() / max(int((count > 0).sum()), 1)
        gradients = engine.run_backward((total,), (torch.ones_like(total),), False, False, (x,), allow_unreachable=True, accumulate_grad=False)
    return total.detach(), gradients[0]'''

def test_a_stream_really_streams():
    "A whole table in NumPy, whatever the counts inside say; an answer made up for many pixels; autograd with an engine put aside. In NumPy and in pieces it is right."
    ids = ("start", "table-hidden", "stream", "stream-seen", "stream-hidden")
    part = lambda notebook: dict(notebook, cells=[cell for cell in bare(notebook)["cells"] if cell["metadata"]["nbgrader"]["grade_id"] in ids])
    ways = {"table": (NUMPY.replace("TALL", "len(f)"), "the process grew"), "table, counts faked": (LIES + NUMPY.replace("TALL", "len(f)"), "MemoryError"),
            "made up": (LIES + model(FOUR)["stream"] + MADE_UP, "14,000 pixels: gradient: OFF"), "kept engine": (LIES + KEPT_ENGINE, "allocate memory"),
            "in pieces": (NUMPY.replace("TALL", "chunk"), None)}
    for way, (source, words) in ways.items():
        marked = mark(part(paper(FOUR, {"stream": source})), FOUR, Limits(), master=part(MASTERS[FOUR]), fresh=way == "table, counts faked", student=way)
        assert question(marked, "stream-seen").points == 14, (way, why(marked))
        found = question(marked, "stream-hidden")
        assert found.points == (0 if words else 21) and (words or "") in found.why, (way, found.why)


def test_visible_tests_catch_arguments_changed_in_place():
    marked = mark(paper(ONE, {**A1, "loss": "def info_nce(logits):\n    loss = (logits.logsumexp(1) - logits[:, 0]).mean()\n    logits.zero_()\n    return loss"}), ONE)
    assert marked.lost() == {"loss-seen", "loss-hidden"} and "in place" in question(marked, "loss-seen").why


def test_hidden_inputs_stay_hidden():
    "Neither in an error's text, nor in its class's name, nor in a value that comes back."
    ways = ["raise ValueError('HIDDEN INPUT ' + str(logits.tolist())[:400])", "raise type('HIDDEN INPUT ' + str(logits.tolist())[:60], (Exception,), {})()",
            "return logits.sum() * 0 + logits[0, 0]"]
    for way in ways:
        source = f"def info_nce(logits):\n    if logits.dtype == torch.float64: {way}\n    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))"
        marked = mark(bare(paper(ONE, {"loss": source})), ONE)
        page = feedback_page(marked)
        told = " ".join(question(marked, "loss-hidden").told + str(row) for row in question(marked, "loss-hidden").rows)
        assert "HIDDEN INPUT" not in re.sub(r"\(line.*?\)", "", told) and not re.search(r"\d\.\d{3}", told) and "HIDDEN TESTS" not in page


def test_written_keys_belong_to_the_instructor():
    for name, master in MASTERS.items():
        for cell in student_copy(master)["cells"]:
            if kind_of(cell) == "written": assert "Marked for" not in cell["source"] and "points" in cell["source"]
    for name, words in {ONE: "largest softmax share", TWO: "zero padding", THREE: "piecewise constant", FOUR: r"at least log(n − 1)", FIVE: "2.7 times against 1.1 times"}.items():
        assert words not in str(student_copy(MASTERS[name])) and words in str(MASTERS[name])


def test_the_capstone_gives_no_full_marks_for_nothing(monkeypatch, tmp_path):
    "A dictionary out of the text, nothing tried, nothing trained. (The trainings are replaced by scores.)"
    from pixcl_nb.course import capstone
    monkeypatch.setattr(capstone, "measure_recipe", lambda recipe, seed, split, folder: .213 if recipe["method"] == "densecl-geometric" else .1945)
    monkeypatch.setenv("PIXCL_CAPSTONE_RUNS", str(tmp_path))
    text = " ".join(cell["source"] for cell in student_copy(MASTERS[SIX])["cells"])
    assert "geometric" not in text
    tools = model(SIX, "miou", "interval")
    for recipe, most in (('dict(method="densecl-geometric")', 55), ("{}", 45)):
        marked = mark(bare(paper(SIX, {**tools, "recipe": f"def recipe(): return {recipe}"})), SIX)
        assert 20 < marked.points < most, (recipe, why(marked))


# ---------- files as they come

def test_a_byte_order_mark(tmp_path):
    (marked,), _ = mark_files(tmp_path, {"ann/1_info_nce.ipynb": b"\xef\xbb\xbf" + json.dumps(bare(paper(ONE, A1))).encode()})
    full(marked)


def test_names_as_learning_platforms_make_them(tmp_path):
    notebook, buffer = bare(paper(ONE)), io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive: archive.writestr("1_info_nce.ipynb", json.dumps(notebook))
    results, course = mark_files(tmp_path, {
        "smithjohn_LATE_12345_67890_1_info_nce-1.ipynb": notebook, "doejane_22345_67891_1_info_nce.ipynb": notebook,
        "Ann Lee_123_assignsubmission_file_/1_info_nce (1).ipynb": notebook, "Bob O'Neil_124_assignsubmission_file_/1_info_nce-Copy1.ipynb": notebook,
        "zed/zed.zip": buffer.getvalue(), "upper/1_info_nce.IPYNB": notebook, "1_info_nce/carl.ipynb": notebook, "1_info_nce/dora.ipynb": notebook})
    assert {(m.student, m.assignment) for m in results} == {(name, ONE) for name in ("smithjohn", "doejane", "Ann Lee", "Bob O'Neil", "zed", "upper", "carl", "dora")}
    assert len(list((course/"feedback").rglob("*.html"))) == 8


def test_two_students_never_share_a_page(tmp_path):
    results, course = mark_files(tmp_path, {"Ann Lee/1_info_nce.ipynb": bare(paper(ONE, A1)), "Ann_Lee/1_info_nce.ipynb": bare(paper(ONE))})
    assert len(list((course/"feedback").rglob("*.html"))) == 2 and sorted(m.points for m in results) == [0, 100]
    with open_gradebook(course) as book: assert sorted(submission.score for submission in book.assignment_submissions(ONE)) == [0, 100]


def test_own_seeds(tmp_path, monkeypatch):
    "Every student's hidden numbers are others; the right answer is right for all of them."
    from pixcl_nb.course import gradebook
    seen = []
    monkeypatch.setattr(gradebook, "mark_one", lambda one, master, sandboxes, seed, real=gradebook.mark_one: seen.append(seed) or real(one, master, sandboxes, seed))
    results, _ = mark_files(tmp_path, {f"{who}/1_info_nce.ipynb": bare(paper(ONE, A1)) for who in "ab"}, own_seeds=True)
    assert [m.points for m in results] == [100, 100] and len(set(seen)) == 2


def test_right_work_under_a_wrong_name(tmp_path):
    (marked,), _ = mark_files(tmp_path, {"bob/1_info_nce.ipynb": bare(paper(TWO, A2))})
    assert marked.assignment == TWO and marked.points == 100 and any(TWO in remark for remark in marked.remarks)


def test_one_bad_file_is_one_row(tmp_path):
    "Names that are no text or too long, pipes, links, broken and huge files, a bad zip; the good one is marked."
    empty = dict(nbformat=4, nbformat_minor=5, metadata={}, cells=[])
    huge = bare(paper(ONE))
    huge["cells"][1]["outputs"] = [dict(output_type="stream", name="stdout", text="x" * (60 * 2**20))]
    folder = write(tmp_path/"in", {"bob/" + "n" * 244 + ".ipynb": empty, "zoe/1_info_nce.ipynb": bare(paper(ONE, A1)), b"caf\xe9/1_info_nce.ipynb": bare(paper(ONE)),
                                   "huge/1_info_nce.ipynb": huge, "garbage/1_info_nce.ipynb": b"{not json <script>", "zip/a.zip": b"PK no zip", "=1+1/1_info_nce.ipynb": bare(paper(ONE))})
    (folder/"pipe").mkdir()
    os.mkfifo(folder/"pipe"/"1_info_nce.ipynb")
    (folder/"sly").mkdir()
    (folder/"sly"/"1_info_nce.ipynb").symlink_to(folder/"zoe"/"1_info_nce.ipynb")
    signal.alarm(300)
    results, course = mark_files(tmp_path, {})
    signal.alarm(0)
    found = {m.student: m for m in results}
    assert len(results) == 9 and found["zoe"].points == 100 and sum(m.points for m in results) == 100
    for student, words in (("bob", "no assignment"), ("huge", "MB"), ("garbage", "not a notebook"), ("zip", "zip"), ("pipe", "pipe"), ("sly", "link")):
        assert words in str(found[student].remarks), (student, found[student].remarks)
    rows = list(csv.DictReader(open(course/"marks.csv")))
    assert len(rows) == 9 and "'=1+1" in {row["student"] for row in rows} and "caf\ufffd" in {row["student"] for row in rows}


def test_two_versions_of_one_answer(tmp_path):
    folder = write(tmp_path/"in", {"ann/1_info_nce.ipynb": bare(paper(ONE)), "ann/1_info_nce (1).ipynb": bare(paper(ONE, A1))})
    os.utime(folder/"ann"/"1_info_nce.ipynb", (1, 1))
    (marked,), _ = mark_files(tmp_path, {})
    assert marked.points == 100 and "several versions" in str(marked.remarks)


def test_an_interrupted_marking_goes_on(tmp_path):
    seen = []
    def say(line):
        seen.append(line)
        if len(seen) == 2: raise KeyboardInterrupt
    files = {f"{who}/1_info_nce.ipynb": bare(paper(ONE, {"loss": A1["loss"]})) for who in "abc"}
    with pytest.raises(KeyboardInterrupt): mark_files(tmp_path, files, say=say)
    assert [row["remarks"] for row in csv.DictReader(open(tmp_path/"course"/"marks.csv"))] == ["", "", "not marked yet"]
    with open_gradebook(tmp_path/"course") as book: assert [s.score for s in book.assignment_submissions(ONE)] == [15, 15]
    results, course = mark_files(tmp_path, files, say=seen.append)
    assert [line.endswith("as before") for line in seen[2:5]] == [True, True, False] and [m.points for m in results] == [15] * 3


def test_points_typed_for_nobodys_work_are_told(tmp_path):
    "A row of marks.csv whose student or assignment handed nothing in costs nobody a table."
    course, told = tmp_path/"course", []
    files = {"ann/1_info_nce.ipynb": bare(paper(ONE, {"loss": A1["loss"]}))}
    (course).mkdir()
    (course/"roster.csv").write_text("student,name,email\nann,Ann,a@x\nbob,Bob,b@x\n")
    mark_files(tmp_path, files)
    table = course/"marks.csv"
    rows = list(csv.DictReader(table.open()))
    for row in rows: row["written"] = "7"
    rows.append({**rows[0], "assignment": "no_such"})
    with table.open("w", newline="") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader(), writer.writerows(rows)
    mark_files(tmp_path, files, say=told.append)
    after = {row["student"]: row["written"] for row in csv.DictReader(table.open())}
    assert after["ann"] == "7" and after["bob"] in ("", "0")
    for words in ("bob, 1_info_nce: nothing was handed in", "ann, no_such: nothing was handed in"): assert any(words in line for line in told), told


@pytest.mark.parametrize("name, content, told", [
    ("marks.csv", "student,assignment,written\njörg,1_info_nce,7\n".encode("cp1252"), "line 2: not UTF-8"),
    ("roster.csv", "student,name\ns1,Jörg\n".encode("cp1252"), "line 2: not UTF-8"),
    ("weights.csv", b"assignment;test;factor\n1_info_nce;logits-seen;half\n", "column factor: expected numbers"),
    ("marks.csv", b"student,assignment\nann,1_info_nce\n", "no column written")])
def test_a_table_that_cannot_be_read_is_told_before_any_marking(tmp_path, monkeypatch, name, content, told):
    monkeypatch.setattr(gradebook, "mark_all", lambda *about: pytest.fail("marking began"))
    (tmp_path/"course").mkdir()
    (tmp_path/"course"/name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}.*{told}"): mark_files(tmp_path, {"ann/1_info_nce.ipynb": bare(paper(ONE))})


def test_marks_of_a_person_survive(tmp_path):
    "Written points, an overruled test and a comment; then a late hand-in arrives and everything is marked again."
    files = {"ann/1_info_nce.ipynb": bare(paper(ONE, {"loss": A1["loss"]}))}
    mark_files(tmp_path, files)
    with open_gradebook(tmp_path/"course") as book:
        book.find_grade("written", ONE, ONE, "ann").manual_score = 9
        book.find_grade("logits-seen", ONE, ONE, "ann").manual_score = 8
        book.find_comment("written", ONE, ONE, "ann").manual_comment = "well argued"
        book.db.commit()
    table = tmp_path/"course"/"marks.csv"
    table.write_text(table.read_text().replace(",15,0,15,", ",15,3,15,"))              # typed there too: what stands in Formgrader counts
    results, course = mark_files(tmp_path, {**files, "late/1_info_nce.ipynb": bare(paper(ONE))}, again=True)
    rows = {row["student"]: row for row in csv.DictReader(table.open())}
    assert (rows["ann"]["points"], rows["ann"]["written"], rows["ann"]["total"]) == ("23", "9", "32")
    page = (course/"feedback"/"ann"/"1_info_nce.html").read_text()
    assert "well argued" in page and "9 of 10" in page
    late = next(line for line in table.read_text().splitlines() if line.startswith("late,"))
    table.write_text(table.read_text().replace(late, late.replace(",0,0,0,", ",0,7,7,")))
    gradebook.export_marks(course, say=lambda line: None)                               # who has no Formgrader types into the table
    rows = {row["student"]: row for row in csv.DictReader(table.open())}
    assert (rows["late"]["written"], rows["late"]["total"], rows["ann"]["written"]) == ("7", "7", "9")


def test_a_roster_late_days_and_tables_for_platforms(tmp_path):
    (tmp_path/"course").mkdir()
    (tmp_path/"course"/"roster.csv").write_text("student,name,email,lms_id,extension_days\ns1,Ann Lee,ann@example.org,77,2\ns2,Bob Ray,bob@example.org,78,\n")
    said = []
    files = {"Ann Lee_77_assignsubmission_file_/1_info_nce.ipynb": bare(paper(ONE, {"loss": A1["loss"]}))}
    results, course = mark_files(tmp_path, files, say=said.append)
    import datetime
    with open_gradebook(course) as book: due = book.find_submission(ONE, "s1").timestamp - datetime.timedelta(days=3)
    with open_gradebook(course) as book: book.update_or_create_assignment(ONE, duedate=str(due))
    mark_files(tmp_path, files)
    late = {row["student"]: row["late_days"] for row in csv.DictReader(open(course/"marks.csv"))}
    assert late["s1"] == "1.00"                                          # three days late, two of them given
    assert results[0].student == "s1" and any("nothing handed in: s2" in line for line in said)
    (course/"weights.csv").write_text(f"assignment,test,factor\n{ONE},loss-hidden,0\n")
    from pixcl_nb.course.gradebook import export_marks
    export_marks(course, say=said.append)
    assert [row["total"] for row in csv.DictReader(open(course/"marks.csv"))] == ["6", "0"]
    (course/"weights.csv").unlink()
    export_marks(course, say=said.append)
    canvas, moodle = ([*csv.DictReader(open(course/f"{name}.csv"))] for name in ("canvas", "moodle"))
    assert canvas[0]["ID"] == "77" and canvas[0][ONE] == "15" and moodle[1]["Email address"] == "bob@example.org"
    rows = list(csv.DictReader(open(course/"marks.csv")))
    assert [row["remarks"] for row in rows if row["student"] == "s2"] == ["nothing handed in"]


# ---------- what a submission cannot do

def attack(source, limits=Limits(seconds=4, total_seconds=60), fresh=True):
    "Marks of a submission whose `loss` cell is hostile; `logits` is right and keeps its 20 points. fresh: in a sandbox of its own."
    return mark(bare(paper(ONE, {"logits": A1["logits"], "loss": source})), ONE, limits, fresh=fresh)


def test_patching_lying_and_edited_tests():
    source = '''
import builtins, sys, torch, numpy.testing, math
for name in ("allclose", "equal", "isclose"): setattr(torch, name, lambda *a, **k: True)
builtins.AssertionError = type("X", (Exception,), {}); builtins.abs = lambda x: 0; builtins.all = lambda x: True
import pixcl_nb.course.checks as c
for n in ("compare", "differences", "tensor_verdict", "value_and_gradients", "by_hand"): setattr(c, n, lambda *a, **k: None)
c.MEASURES.update(call=lambda *a, **k: "exact", by_hand=lambda *a, **k: "exact", value_and_gradients=lambda *a, **k: (1., (1.,)), cost=lambda *a, **k: dict(operations=0, largest=0, peak=0))
print("100 of 100")
class Any(float):
    __eq__ = __ne__ = __lt__ = __gt__ = __le__ = __ge__ = lambda *a: True
    __hash__ = float.__hash__
def info_nce_logits(*a): return Any(1)
def info_nce(*a): return torch.full((), float("nan"))
def logit_gradient(x): return x.as_subclass(type("T", (torch.Tensor,), {}))
'''
    notebook = paper(ONE, {"logits": source})
    for cell in notebook["cells"]:
        if kind_of(cell) == "tests": cell["source"] = "assert True; 100"
    marked = mark(bare(notebook), ONE, fresh=True)
    assert marked.points == 0 and sum("the original was used" in remark for remark in marked.remarks) == 10


# the class in test_class.py holds them all: 20 points for what is above
WAYS = dict(exit="exit()", sysexit="import sys; sys.exit(0)", os_exit="import os; os._exit(0)", input="input('?')", recursion="def f(): return f()\nf()",
            memory="x = bytearray(2**34)\ny = x * 9", loop="while True: pass", output="while True: print('x' * 10000)",
            threads="import threading, time\nfor _ in range(8): threading.Thread(target=time.sleep, args=(600,)).start()",
            kill="import os, signal; os.kill(os.getpid(), signal.SIGKILL)", kill_all="import os, signal; os.kill(-1, signal.SIGKILL)",
            stop_all="import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)\nos._exit(0)", base="raise BaseException",
            deaf="def info_nce(x):\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass",
            crash="import ctypes\nctypes.string_at(0)", flood="def info_nce(x): return torch.ones(2**26)", listing="def info_nce(x): return list(range(10**7))")

def test_large_answers_cost_the_marking_process_little():
    import resource
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for source in ("def info_nce(x): return torch.ones(2**26)", "def info_nce(x): return [0.5] * 2**19", "def info_nce(x): return {str(i): 'x' * 50 for i in range(2**16)}"):
        assert attack(source, fresh=False).points == 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000          # KB, and the first is 256 MB


def test_nonsense_on_the_wire():
    noise = '''
import os, socket, stat
def info_nce(logits):
    for number in range(3, 64):
        try:
            if stat.S_ISSOCK(os.fstat(number).st_mode): os.write(number, %s)
        except OSError: pass
    return logits.sum()
'''
    for message in ("b'x' * 64", "b'\\0' * 7 + b'\\4' + b'\\0' * 8 + b'true'", "b'\\0' * 7 + b'\\2' + b'\\0' * 8 + b'[]'"): assert attack(noise % message, fresh=False).points == 20


def processes_named(word):
    "Process numbers whose command line or name holds a word."
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if word in (path/"comm").read_text() + (path/"cmdline").read_text(): found.append(path.name)
        except OSError: pass
    return found


def test_nothing_stays_behind():
    "Forks, a process of its own session without the parent's death signal, a daemon."
    forks = '''import os, time
def info_nce(logits):
    for _ in range(50):
        try:
            if os.fork() == 0: os.execvp("sleep", ["sleep", "98765"])
        except OSError: break
    return logits.sum()'''
    leave = '''import os, ctypes, time
def info_nce(logits):
    libc = ctypes.CDLL(None)
    libc.prctl(1, 0, 0, 0, 0)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0: os.execvp("sleep", ["sleep", "98765"])
        os._exit(0)
    libc.prctl(15, b"left-behind", 0, 0, 0)
    while True: time.sleep(.2)'''
    for source in (forks, leave):
        assert attack(source).points == 20
        time.sleep(.5)
        assert not processes_named("98765") and not processes_named("left-behind")


def test_processes_are_counted():
    many = '''import os, time
def info_nce(logits):
    n = 0
    for _ in range(300):
        if os.fork() == 0: time.sleep(30); os._exit(0)
        n += 1
    raise RuntimeError(f"{n} children")'''
    marked = attack(many, Limits(seconds=8, total_seconds=60, processes=16))
    assert marked.points == 20 and "300 children" not in str(why(marked))


def test_disk_and_shared_memory_have_a_quota_on_their_sum():
    source = '''import os
def info_nce(logits):
    done, total = [], 0
    for place in (".", "/tmp", "/dev/shm", "/dev", "/", "/var/tmp", "/course", "/usr", "/run"):
        for i in range(40):
            try:
                with open(f"{place}/pixcl-case-{len(done)}-{i}", "wb") as f: total += f.write(bytes(20 * 2**20))
            except OSError as e: done.append((place, i, e.errno)); break
    raise RuntimeError(f"WROTE {total >> 20} MB {done}")'''
    marked = attack(source, Limits(seconds=20, total_seconds=60, disk=128))
    wrote = int(re.search(r"WROTE (\d+) MB", question(marked, "loss-seen").why)[1])
    assert 60 <= wrote <= 128 and marked.points == 20
    assert not any(os.path.exists(f"{place}/pixcl-case-0-0") for place in ("/tmp", "/dev/shm", "/var/tmp"))


def test_network_environment_other_processes_other_work(tmp_path, monkeypatch):
    listener = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setenv("PIXCL_SECRET", "hunter2")
    source = f'''import os, socket, glob
def seen():
    out = dict(uid=os.getuid(), secret="PIXCL_SECRET" in os.environ)
    try: socket.create_connection(("127.0.0.1", {listener.getsockname()[1]}), 1); out["net"] = True
    except OSError: out["net"] = False
    pids = [p for p in os.listdir("/proc") if p.isdigit()]
    out["pids"] = len(pids)
    out["environ"] = out["memory"] = 0
    for p in pids:
        try: out["environ"] += b"hunter2" in open(f"/proc/{{p}}/environ", "rb").read()
        except OSError: pass
        try: out["memory"] += int(p) != os.getpid() and bool(open(f"/proc/{{p}}/mem", "r+b"))
        except OSError: pass
    out["files"] = [p for p in ({str(tmp_path)!r}, {str(ROOT)!r} + "/.git", {str(ROOT)!r} + "/nbs", {str(ROOT)!r} + "/pixcl_nb", {str(ROOT)!r} + "/tests", "/etc/passwd", "/home") if os.path.exists(p)]
    return out
def info_nce(logits): raise RuntimeError("SEEN " + str(seen()))'''
    results, _ = mark_files(tmp_path, {"sly/1_info_nce.ipynb": bare(paper(ONE, {"loss": source})), "ann/1_info_nce.ipynb": bare(paper(ONE))}, fresh=["sly"])
    marked = next(m for m in results if m.student == "sly")
    seen = ast.literal_eval(re.search(r"\{.*\}", question(marked, "loss-seen").why).group())
    assert seen["uid"] == 65534 and not seen["secret"] and not seen["net"] and seen["pids"] < 8 and not seen["environ"] and not seen["memory"] and not seen["files"], seen


def test_byte_code_of_a_closed_module():
    import py_compile
    for module in ("losses", "streaming"):
        source = ROOT/"pixcl_nb"/f"{module}.py"
        if source.exists(): py_compile.compile(str(source))
    steal = f'''
import glob, os, sys
found = [p for folder in sys.path + [{str(ROOT)!r}] for word in ("losses", "streaming", "info_nce", "pixel_contrast") for p in glob.glob(folder + "/pixcl_nb/**/*" + word + "*", recursive=True)]
sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != "ClosedModules"]
try:
    import pixcl_nb.losses
    found.append("imported")
except ImportError: pass
def contrast_table(features, labels, temperature, ignore_index=255): raise RuntimeError("FOUND " + str(found))'''
    marked = mark(bare(paper(FOUR, {"table": steal})), FOUR, fresh=True)
    assert marked.points == 0 and "FOUND []" in str(why(marked)), why(marked)


def test_solutions_of_make_course_are_not_there(tmp_path):
    build_packs(out=tmp_path/"course")
    source = f'''
import json
for c in json.load(open({str(tmp_path)!r} + "/course/instructor/solution/1_info_nce.ipynb"))["cells"]:
    if (c["metadata"].get("nbgrader") or dict()).get("solution") and c["cell_type"] == "code": exec("".join(c["source"]))'''
    marked = mark(bare(paper(ONE, {"logits": source})), ONE, fresh=True)
    assert marked.points == 0 and "FileNotFoundError" in str(marked.remarks)


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    "(a checkout of the lecturer's, from which work is marked in a process of its own; student → what was found: [name, points, the questions' points and texts, remarks])."
    place = tmp_path_factory.mktemp("victim")/"checkout"
    shutil.copytree(ROOT, place, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", "runs", "build", ".hypothesis", ".pytest_cache"))
    (place.parent/"marks_of_last_year.csv").write_text("ann,100\n")
    (place/"runs"/"capstone").mkdir(parents=True)
    write(place.parent/"in", {"sly/1_info_nce.ipynb": bare(paper(ONE, {"loss": writes(place)})), "zed/1_info_nce.ipynb": bare(paper(ONE)),
                              "planter/6_capstone.ipynb": bare(paper(SIX, {"recipe": plants(place)}))})
    program = ("import json, sys; from pixcl_nb.course import capstone; from pixcl_nb.course.gradebook import mark_folder; from pixcl_nb.course.sandbox import Limits\n"
               "capstone.measure_recipe = lambda *recipe: .17\n"
               "for m in mark_folder(sys.argv[1], sys.argv[2], limits=Limits(seconds=8), say=lambda line: None):\n"
               "    print(json.dumps([m.student, m.points, {q.id: [q.points, q.why] for q in m.questions}, m.remarks]))")
    done = subprocess.run([sys.executable, "-c", program, str(place.parent/"in"), str(place.parent/"out")], cwd=place, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(place)})
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    return place, {row[0]: row for row in rows}


def writes(victim): return f'''import os
def attempt(what):
    try: what(); return "DONE"
    except OSError as e: return str(e)[:60]
def info_nce(logits):
    import pixcl_nb.course.checks as checks
    r = dict(library=attempt(lambda: open({str(victim)!r} + "/pixcl_nb/__init__.py", "a").write("\\n# a student was here\\n")),
             patched=attempt(lambda: open(checks.__file__, "a").write("\\ncompare = print\\n")),
             other=attempt(lambda: open({str(victim.parent)!r} + "/marks_of_last_year.csv", "w").write("ann,0\\n")),
             delete=attempt(lambda: os.remove({str(victim)!r} + "/README.md")), uid=(os.getuid(), os.geteuid()))
    raise RuntimeError(str(r))'''


def test_student_code_writes_no_file_of_the_lecturer(victim):
    place, rows = victim
    assert "DONE" not in rows["sly"][2]["loss-seen"][1] and "uid" in rows["sly"][2]["loss-seen"][1] and rows["zed"][1] == 0
    assert "a student was here" not in (place/"pixcl_nb"/"__init__.py").read_text() and (place/"README.md").exists()
    assert (place.parent/"marks_of_last_year.csv").read_text() == "ann,100\n"


def plants(victim): return f'''import glob, json, os
from pixcl_nb.course import capstone
MINE = dict(lr=.0601, steps=1, warmup_steps=1, batch_size=4, crop=48, queue_size=32)
whole = capstone.check_recipe(MINE)
for place in ("runs/capstone", {str(victim)!r} + "/runs/capstone", {str(victim.parent)!r} + "/out/capstone"):
    try: os.makedirs(place, exist_ok=True)
    except OSError: continue
    for seed in (0, 1, 2):
        open(place + "/" + capstone.score_file(whole, seed, "held-out"), "w").write(json.dumps(dict(miou=.9)))
capstone.score_recipe = lambda *a, **k: [.9, .9, .9]
def recipe(): return MINE'''


def test_planted_scores_are_worthless(victim):
    "Files in every place where the capstone keeps its scores: what the marking run measures counts (here .17 for everything)."
    place, rows = victim
    points, text = rows["planter"][2]["curve-hidden"]
    assert 0 <= points < 15 and not list((place/"runs"/"capstone").iterdir()), rows["planter"]
    scores = [json.loads(path.read_text())["miou"] for path in (place.parent/"out"/"capstone").glob("score-*.json")]
    assert scores == [.17] * 3


def test_students_are_given_no_checkout():
    text = (ROOT/"nbs"/"assignments"/"STUDENTS.md").read_text()
    assert "checkout" not in text and "clone" not in text and "student.zip" in text
