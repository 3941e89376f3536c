"What the course's tests hand in: copies of a master with cells filled, and a way to mark them."
import atexit
import functools
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent))
from honest import A1, A2, A3
from pixcl_nb.course import gradebook
from pixcl_nb.course.marking import mark_notebook
from pixcl_nb.course.packs import closed_modules, find_masters, kind_of, marked_cells, read_notebook, student_copy
from pixcl_nb.course.sandbox import Limits, Sandbox

ROOT = Path(__file__).parent.parent.parent
MASTERS = {name: read_notebook(path) for name, path in find_masters(ROOT/"nbs"/"assignments").items()}
ONE, TWO, THREE, FOUR, FIVE, SIX = list(MASTERS)[:6]
HONEST = {ONE: A1, TWO: A2, THREE: A3}
QUICK = Limits(seconds=5, total_seconds=90)


def paper(name, answers=None):
    "A student copy with some cells filled (grade_id → source), blanks elsewhere."
    notebook = student_copy(MASTERS[name])
    for grade_id, source in (answers or {}).items(): marked_cells(notebook)[grade_id]["source"] = source
    return notebook


def model(name, *which):
    "The master's own solution cells (all, or those named), without the markers."
    cells = {grade_id: cell for grade_id, cell in marked_cells(MASTERS[name]).items() if kind_of(cell) == "solution"}
    lines = {grade_id: [line for line in cell["source"].split("\n") if not line.strip().startswith("### ")] for grade_id, cell in cells.items()}
    return {grade_id: "\n".join(source) for grade_id, source in lines.items() if not which or grade_id in which}


def bare(notebook):
    "Without the cells that are nobody's: for tests of tests, where the pictures only cost time."
    return dict(notebook, cells=[cell for cell in notebook["cells"] if kind_of(cell)])


def code(source): return dict(cell_type="code", source=source, metadata={}, outputs=[], execution_count=None)


def place_of(notebook, grade_id):
    "The number of a marked cell."
    return next(i for i, cell in enumerate(notebook["cells"]) if kind_of(cell) and cell["metadata"]["nbgrader"]["grade_id"] == grade_id)


class Kept(Sandbox):
    "A sandbox whose server serves every notebook that is ours, so that torch is read once. What is hostile gets a fresh one, as every submission does that `pixcl grade` marks."
    fresh = False
    def stop(self):
        if self.fresh: super().stop()

    def __exit__(self, *error): self.stop()
    def end(self): Sandbox.stop(self), Sandbox.__exit__(self)


@functools.cache
def kept(closed):
    "The sandbox in which these modules are closed, for the whole run."
    sandbox = Kept(QUICK, closed)
    atexit.register(sandbox.end)
    return sandbox


def lend(master, limits=QUICK, unsafe=False, fresh=False):
    "A kept sandbox in place of `sandbox_for`'s."
    sandbox = kept(tuple(closed_modules(master)))
    walls = lambda limits: (limits.memory, limits.processes, limits.disk)
    if fresh or sandbox.fresh or walls(limits) != walls(sandbox.limits): Sandbox.stop(sandbox)
    sandbox.limits, sandbox.fresh = limits, fresh
    return sandbox


def mark(notebook, name, limits=QUICK, fresh=False, master=None, student="student"):
    "Marks of one notebook."
    return mark_notebook(notebook, master or MASTERS[name], lend(MASTERS[name], limits, fresh=fresh), student, name)


def question(marked, grade_id): return next(question for question in marked.questions if question.id == grade_id)


def why(marked): return [(question.id, question.why) for question in marked.questions if question.why]


def write(folder, files):
    "Files of submissions: notebooks (dicts) or bytes, by their path; a path may be bytes that are no UTF-8."
    for path, content in files.items():
        target = Path(folder)/path if isinstance(path, str) else Path(os.fsdecode(os.fsencode(str(folder)) + b"/" + path))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return Path(folder)


@functools.cache
def blank_course():
    "An instructor's folder with nothing handed in, made once: nbgrader's database and its copy of assignment 1."
    folder = tempfile.TemporaryDirectory()
    gradebook.generate_assignments(Path(folder.name), {ONE: MASTERS[ONE]})
    return folder


def mark_files(folder, files, limits=QUICK, say=lambda line: None, fresh=(), patient=(), **more):
    "(results, the course's folder) of files marked as a class; fresh: whose sandboxes are started anew, as `pixcl grade` starts everybody's; patient: whose right answers compute for long, and have `pixcl grade`'s own limits."
    course = Path(folder)/"course"
    if not (course/"gradebook.db").exists(): shutil.copytree(blank_course().name, course, dirs_exist_ok=True)
    def mark_one(notebook, master, sandbox, student, assignment):
        return mark_notebook(notebook, master, lend(master, Limits() if student in patient else limits, fresh=student in fresh), student, assignment)
    with mock.patch.multiple(gradebook, sandbox_for=lend, mark_notebook=mark_one):
        results = gradebook.mark_folder(write(Path(folder)/"in", files), course, ROOT/"nbs"/"assignments", limits, say=say, **more)
    return results, course
