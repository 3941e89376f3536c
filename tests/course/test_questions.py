"""Every question is worth its points: wrong solutions lose what they should, and right ones of every make lose nothing."""
import ast
import copy
import re
import shutil
import sys
from collections import Counter
from itertools import zip_longest
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
from mutants import MUTANTS
from papers import HONEST, MASTERS, ROOT, SIX, bare, code, mark, model, paper, place_of, why
from pixcl_nb.course import capstone
from pixcl_nb.course.packs import check_master, kind_of, marked_cells, replace_regions, student_copy
from pixcl_nb.course.sandbox import Limits

walls = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
SCORES = {"moco": .1945, "densecl": .1966, "densecl-mutual": .2085, "densecl-geometric": .213}
STREAMS = [pytest.param(name, marks=pytest.mark.long) if name.startswith("4_") else name for name in MASTERS]        # a stream that really streams computes for seconds
PARTIAL = {SIX: {"curve-hidden", "claim-hidden"}}        # open curves: nobody has all of these


@pytest.fixture
def measured(monkeypatch, tmp_path):
    "Trainings of the capstone are replaced by scores; the table of the model solution comes out."
    rows = {"RECIPE_METHODS": capstone.RECIPE_METHODS}
    exec(model(SIX, "tried")["tried"].replace("def tried", "def _tried"), rows)
    key = lambda recipe: str(sorted(recipe.items()))
    known = {key(capstone.check_recipe(settings)): scores for settings, scores in rows["_tried"]()}
    def measure(recipe, seed, split, folder):
        if split == "held-out": return SCORES.get(recipe["method"], .19)
        return known[key(recipe)][seed] if key(recipe) in known else .15
    monkeypatch.setattr(capstone, "measure_recipe", measure)
    monkeypatch.setenv("PIXCL_CAPSTONE_RUNS", str(tmp_path))


def without_slow_part(name, *questions):
    "The master; for assignment 4 without the stream, where it is none of the questions."
    if not name.startswith("4_") or "stream" in questions: return MASTERS[name]
    cells = [cell for cell in MASTERS[name]["cells"] if not (kind_of(cell) and cell["metadata"]["nbgrader"]["grade_id"].startswith("stream"))]
    return dict(MASTERS[name], cells=cells)


# ---------- masters

@pytest.mark.parametrize("name", MASTERS)
def test_masters_keep_the_rules(name):
    check_master(MASTERS[name], name)
    kinds = Counter(kind_of(cell) for cell in MASTERS[name]["cells"])
    assert kinds["written"] == 1 and kinds["setup"] >= 1 and kinds["solution"] >= 3
    for cell in MASTERS[name]["cells"]:
        marks = cell["metadata"].get("nbgrader")
        if marks: assert marks["schema_version"] == 3 and {"grade", "solution", "locked", "task", "grade_id"} <= set(marks) and (("points" in marks) == bool(marks["grade"]))
        if kind_of(cell) == "written": assert cell["cell_type"] == "markdown" and marks["points"] == 10 and "*Marked for*" in cell["source"]
    first = MASTERS[name]["cells"][0]["source"]
    assert "**Time**" in first and "**Needs**" in first and "Minutes per part" in first
    headings = re.findall(r"^## \d+\. .*\((\d+) points", "\n".join(cell["source"] for cell in MASTERS[name]["cells"]), re.M)
    assert sum(map(int, headings)) == 110, headings        # what the text promises is what the tests are worth, and ten on top


@pytest.mark.parametrize("name", MASTERS)
def test_closed_modules_exist(name):
    "A module that was renamed would not be closed any more."
    import importlib.util
    from pixcl_nb.course.packs import closed_modules
    for module in closed_modules(MASTERS[name]): assert importlib.util.find_spec(module) is not None, module


@pytest.mark.parametrize("name", MASTERS)
def test_no_line_of_a_solution_is_in_a_student_copy(name):
    region = lambda what, source: [line.strip() for block in re.findall(rf"### BEGIN {what}\n(.*?)### END {what}", source, re.S) for line in block.split("\n") if len(line.strip()) > 20]        # not the ")" and "compare(" of long calls
    lines = {line.strip() for cell in student_copy(MASTERS[name])["cells"] for line in cell["source"].split("\n")}
    for other, master in MASTERS.items():
        for cell in master["cells"]:
            leaked = [line for line in region("SOLUTION", cell["source"]) if line in lines]
            assert not leaked, f"{name} holds a line of the solution of {other}: {leaked}"
            if other == name and kind_of(cell) == "tests": assert not [line for line in region("HIDDEN TESTS", cell["source"]) if line in lines]


# ---------- wrong

def rounds(name):
    """Mutants that are marked in one notebook: one of each second question, so that the questions between them show whether they lose by a neighbour's mistake.
    The capstone's questions speak of each other; there each mutant has its own."""
    if name == SIX: return [[mutant] for mutant in MUTANTS[name]]
    of_question = {}
    for mutant in MUTANTS[name]: of_question.setdefault(mutant[0], []).append(mutant)
    halves = [list(of_question.values())[first::2] for first in (0, 1)]
    return [[mutant for mutant in together if mutant] for half in halves for together in zip_longest(*half)]


def lost_by(question, loses):
    "Ids of the tests that a mutant loses."
    return set(loses) if isinstance(loses, list) else {"both": {f"{question}-seen", f"{question}-hidden"}, "hidden": {f"{question}-hidden"}}[loses]


def test_every_mutant_is_in_one_round():
    for name, mutants in MUTANTS.items(): assert Counter(mutant[:2] for together in rounds(name) for mutant in together) == Counter(mutant[:2] for mutant in mutants)


@walls
@pytest.mark.parametrize("name", STREAMS)
def test_wrong_solutions_lose_what_they_should(name, measured):
    questions = {grade_id for grade_id, cell in marked_cells(MASTERS[name]).items() if kind_of(cell) == "solution"}
    counts, wrong = Counter(question for question, *_ in MUTANTS[name]), []
    assert set(counts) == questions and min(counts.values()) >= 3, counts
    for together in rounds(name):
        master, answers, expected = without_slow_part(name, *(question for question, *_ in together)), model(name), set()
        for question, what, text, replacement, loses in together:
            assert text in answers[question] and text != replacement, f"{question}: {what} no longer fits the solution"
            answers[question] = answers[question].replace(text, replacement)
            if replacement.count("[") > replacement.count("]") + 1: answers[question] += "]"
            expected |= lost_by(question, loses)
        notebook = bare(paper(name, answers))
        notebook["cells"] = [cell for cell in notebook["cells"] if cell["metadata"]["nbgrader"]["grade_id"] in marked_cells(master)]
        marked = mark(notebook, name, Limits(), master=master)
        if marked.lost() | PARTIAL.get(name, set()) != expected | PARTIAL.get(name, set()): wrong.append(([mutant[:2] for mutant in together], marked.lost() ^ expected, why(marked)))
        if name == SIX and expected & {"claim-hidden"}: assert next(q.points for q in marked.questions if q.id == "claim-hidden") == 0
    assert not wrong, wrong


@walls
@pytest.mark.parametrize("name", MASTERS)
def test_blank_is_0_and_the_solution_all(name, measured):
    blank = mark(student_copy(MASTERS[name]), name, Limits())
    assert blank.points == 0 and blank.out_of == 100
    whole = [bare(paper(name, model(name)))] + [MASTERS[name]] * (name != SIX)      # the capstone's own cells train for half a minute
    for notebook in whole:
        marked = mark(notebook, name, Limits())
        assert marked.lost() == PARTIAL.get(name, set()) and marked.points >= (75 if name == SIX else 100), why(marked)
        assert not [remark for remark in marked.remarks if "KeyboardInterrupt" not in remark and "longer" not in remark], marked.remarks


# ---------- right

class Renamed(ast.NodeTransformer):
    "Other names for everything that a function stores."
    def __init__(self, names): self.names = names
    def visit_Name(self, node): return ast.copy_location(ast.Name(self.names.get(node.id, node.id), node.ctx), node)


def other_names(source):
    "The same code with other names for its own variables."
    tree = ast.parse(source)
    for function in [node for node in tree.body if isinstance(node, ast.FunctionDef)]:
        inner = [node for node in ast.walk(function) if isinstance(node, (ast.FunctionDef, ast.Lambda))]
        given = {a.arg for node in inner for a in node.args.args}
        stored = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)} - given
        for statement in function.body: Renamed({name: f"my_{name}" for name in stored}).visit(statement)
    return ast.unparse(ast.fix_missing_locations(tree))


def functions_of(source): return [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]


def delegated(source):
    "Every function written under another name, and handed on by a lambda-like wrapper."
    names = functions_of(source)
    for name in names: source = source.replace(f"def {name}(", f"def own_{name}(")
    return source + "".join(f"\ndef {name}(*values, **keywords): return own_{name}(*values, **keywords)" for name in names)


IN_DOUBLE = """
def in_double(function):
    def wrapped(*values, **keywords):
        wide = [x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in values]
        return function(*wide, **keywords)
    return wrapped
"""
KEEPS_DTYPE = {"compose", "logits"}                     # the text asks for the dtype of the inputs

def variants(name):
    "(what is different, notebook) with right solutions of another make, all questions of one make together."
    answers = model(name)
    def filled(sources, above=lambda question: []):
        notebook = bare(paper(name, {**answers, **sources}))
        for question in sources:
            at = place_of(notebook, question)
            notebook["cells"][at:at] = [code(cell) for cell in above(question)]
        return notebook
    def in_double(question):
        return "" if question in KEEPS_DTYPE else "\n".join(f"{n} = in_double({n})" for n in functions_of(answers[question]))
    yield "other names", filled({question: other_names(source) for question, source in answers.items()})
    yield "in another cell", filled(dict.fromkeys(answers, "# see the cell above"), lambda question: [answers[question]])
    yield "in float64, with a helper cell", filled({question: f"{source}\n{in_double(question)}" for question, source in answers.items()}, lambda question: [IN_DOUBLE])
    yield "handed on", filled({question: "%%time\n" + delegated(source) for question, source in answers.items()})
    if name in HONEST: yield "written by another person", filled(HONEST[name])


@walls
@pytest.mark.parametrize("name", STREAMS)
def test_right_solutions_lose_nothing(name, measured):
    lost = []
    for what, notebook in variants(name):
        marked = mark(notebook, name, Limits(), student=what)
        if marked.lost() != PARTIAL.get(name, set()): lost.append((what, why(marked), marked.remarks))
    assert not lost, lost


@walls
@pytest.mark.parametrize("name", [name for name in MASTERS if name != SIX])
def test_nobody_loses_a_point_by_the_draw(name, monkeypatch, request):
    "Four other terms, twelve with --long. (The stream of assignment 4 takes a while: one of them, or two.)"
    long = request.config.getoption("--long")
    for seed in range(1, 13 if long else 5):
        monkeypatch.setenv("PIXCL_COURSE_SEED", str(seed))
        master = MASTERS[name] if seed < 2 + long else without_slow_part(name, "loops")
        notebook = bare(paper(name, HONEST.get(name) or model(name)))
        notebook["cells"] = [cell for cell in notebook["cells"] if cell["metadata"]["nbgrader"]["grade_id"] in marked_cells(master)]
        marked = mark(notebook, name, Limits(), master=master)
        assert not marked.lost(), (seed, why(marked))
