"""The limits that keep notebooks and package readable, and a check of the checker.

    pytest tests/test_house.py                        every rule, on everything
    pytest -s tests/test_house.py -k figures          the same as a table
    python tests/test_house.py                        the table, then every violation
    python tests/test_house.py nbs/4_losses/41_infonce.ipynb …     the violations of single notebooks, with cell numbers

Cells are numbered from 0, as in the JSON file. Exceptions stand in tests/house.json, each with its reason; one that is
no longer needed fails. The script uses the standard library only and works on the checkout that the notebooks lie in.
"""
import ast
import io
import json
import re
import subprocess
import sys
import tokenize
from collections import namedtuple
from pathlib import Path

try: import pytest
except ImportError: pytest = None                     # the script needs none

PACKAGE = "pixcl_nb"
# A chapter's number is its place here, from 1; nothing imports from a later one.
CHAPTERS = ["images", "networks", "positives", "losses", "methods", "training", "evaluation", "widgets", "experiments",
            "course"]
LONGEST_CELL, WIDEST_LINE, WIDEST_EVER, LONGEST_RUN = 25, 110, 120, 3
PUBLIC_NAMES, DOOR_NAMES, DOCUMENTED, FEW = 400, 70, .9, 15

RULES = {
    "length": f"an exported cell has at most {LONGEST_CELL} lines that are not blank",
    "width": f"a code line has at most {WIDEST_LINE} characters, and none over {WIDEST_EVER} whatever the reason",
    "run": f"at most {LONGEST_RUN} exported cells in a row before a cell uses one of their names",
    "figure": "a cell that shows a picture is followed by text that says what is seen",
    "docments": f"at least {DOCUMENTED:.0%} of the parameters of a notebook's public functions have a comment",
    "tautology": "no test that cannot fail",
    "error": "no error among the committed outputs",
    "answer": "every question and exercise has an answer",
    "number": "every notebook of a chapter has a number of its own that begins with the chapter's",
    "place": "a notebook's module lies in the package of its chapter",
    "import": "no module imports from a later chapter, nor from a later notebook of its chapter when it is imported",
    "meaning": "no public name is defined in two modules",
    "public": f"at most {PUBLIC_NAMES} public names in all",
    "door": f"at most {DOOR_NAMES} names in {PACKAGE}.__all__, each public in a module",
}
OF_NOTEBOOK = ["length", "width", "run", "figure", "docments", "tautology", "error", "answer"]

Violation = namedtuple("Violation", "rule where cell text source")      # `source`: where an exception's `contains` is sought


def show(violation):
    cell = "" if violation.cell is None else f" [{violation.cell}]"
    return f"{violation.where}{cell} {violation.rule}: {violation.text}"


# ---------------------------------------------------------------------------------------------- cells

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Cell:
    "One cell: its text, its code without directives and magics, and what it defines and uses."
    def __init__(self, number, raw):
        self.number, self.kind, self.outputs = number, raw["cell_type"], raw.get("outputs", [])
        self.text = raw["source"] if isinstance(raw["source"], str) else "".join(raw["source"])
        self.is_code = self.kind == "code"
        self.directives = self.read_directives() if self.is_code else {}
        self.exported = bool({"export", "exporti", "exports"} & set(self.directives))
        self.public = bool({"export", "exports"} & set(self.directives))
        self.tree = self.parse() if self.is_code else None

    def read_directives(self):
        "Word → rest of the line, of the `#| word` lines before the code."
        found = {}
        for line in self.text.splitlines():
            match = re.match(r"\s*#\s*\|\s*(\w+)\s*(.*)", line)
            if match: found[match[1]] = match[2]
            elif line.strip() and not line.lstrip().startswith("#"): break
        return found

    @property
    def lines(self):
        "Code lines that are not blank, directives left out."
        return [line for line in self.text.splitlines() if line.strip() and not re.match(r"\s*#\s*\|", line)]

    def parse(self):
        "The syntax tree, or None for a cell that is no Python."
        plain = "\n".join(re.sub(r"^(\s*)[%!].*", r"\1pass", line) for line in self.text.splitlines())
        try: return ast.parse(plain)
        except SyntaxError: return None

    @property
    def defines(self):
        "Names that the cell makes at its top level, with the methods of its classes and the attributes it sets."
        names = set()
        for node in self.tree.body if self.tree else []:
            if isinstance(node, (*FUNCTIONS, ast.ClassDef)): names.add(node.name)
            if isinstance(node, ast.ClassDef):
                names |= {one.name for one in node.body if isinstance(one, FUNCTIONS)}
            if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    for one in ast.walk(target):
                        if isinstance(one, ast.Name): names.add(one.id)
                        if isinstance(one, ast.Attribute): names.add(one.attr)
        return {name for name in names if not name.startswith("__")}

    @property
    def uses(self):
        "Names and attributes that occur in the code."
        if self.tree is None: return set(re.findall(r"[A-Za-z_]\w*", self.text))
        found = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Name): found.add(node.id)
            if isinstance(node, ast.Attribute): found.add(node.attr)
            if isinstance(node, ast.alias): found.add(node.name)
        return found

    @property
    def is_demonstration(self): return self.is_code and not self.exported

    @property
    def counts_as_export(self):
        "Exported, and more than imports and a docstring."
        return self.exported and bool(self.defines)

    @property
    def pictures(self):
        "How many pictures the outputs hold: a figure, a widget, or a widget's still."
        kinds = ("image/", "application/vnd.jupyter.widget-view")
        return sum(any(key.startswith(kinds) for key in output.get("data", {})) for output in self.outputs)


class Notebook:
    def __init__(self, path, root=None):
        self.path = Path(path).resolve()
        self.root = Path(root).resolve() if root else root_of(self.path)
        inside = self.root and self.path.is_relative_to(self.root)
        self.where = self.path.relative_to(self.root).as_posix() if inside else self.path.name
        self.cells = [Cell(number, raw) for number, raw in enumerate(json.loads(self.path.read_text())["cells"])]
        self.code = [cell for cell in self.cells if cell.is_code]

    @property
    def number(self):
        "The digits before the name, or None."
        match = re.match(r"(\d+)_", self.path.name)
        return match[1] if match else None

    @property
    def module(self):
        "What the notebook is exported to, such as losses.infonce, or None."
        names = (cell.directives.get("default_exp") for cell in self.code)
        return next((name.strip() for name in names if name), None)

    def violation(self, rule, cell, text): return Violation(rule, self.where, cell.number, text, cell.text)


def root_of(path):
    "The checkout that a file lies in."
    return next((folder for folder in Path(path).resolve().parents if (folder / "settings.ini").exists()), None)


# ---------------------------------------------------------------------------------------------- rules of one notebook

def check_length(notebook):
    for cell in notebook.code:
        if cell.exported and len(cell.lines) > LONGEST_CELL:
            yield notebook.violation("length", cell, f"{len(cell.lines)} lines, at most {LONGEST_CELL}")


def check_width(notebook):
    for cell in notebook.code:
        for line in cell.text.splitlines():
            if len(line) > WIDEST_LINE:
                text = f"{len(line)} characters: {line.strip()[:60]}…"
                yield Violation("width", notebook.where, cell.number, text, line)


def unused_runs(notebook):
    "(cell, length) of every exported cell that follows others without a use between."
    waiting = []
    for cell in notebook.code:
        if cell.counts_as_export:
            waiting.append(cell)
            yield cell, len(waiting)
        elif cell.is_demonstration and any(cell.uses & one.defines for one in waiting): waiting = []


def check_run(notebook):
    for cell, length in unused_runs(notebook):
        if length == LONGEST_RUN + 1:
            text = f"exported cell number {length} in a row, and no cell between uses one of their names"
            yield notebook.violation("run", cell, text)


def says_something(markdown):
    "Whether a markdown cell holds a sentence before its first heading."
    before = re.split(r"^#{1,6} ", re.sub(r"<!--.*?-->", "", markdown, flags=re.S), maxsplit=1, flags=re.M)[0]
    return len(re.findall(r"\w+", before)) >= 4


def mute_figures(notebook):
    for cell, after in zip(notebook.cells, notebook.cells[1:] + [None]):
        if cell.is_code and cell.pictures and not (after and after.kind == "markdown" and says_something(after.text)):
            yield cell, "nothing" if after is None else "code" if after.is_code else "a heading"


def check_figure(notebook):
    for cell, after in mute_figures(notebook):
        text = f"the picture is followed by {after}; say what is seen, in a markdown cell right after it"
        yield notebook.violation("figure", cell, text)


def comment_lines(source):
    "Lines of a source that end in a comment or are one."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0] for token in tokens if token.type == tokenize.COMMENT and token.string.strip("# ")}


def public_parameters(cell):
    """(function or class, parameter, documented) of a public cell: arguments of functions and of `__init__`, fields of
    dataclasses."""
    if not cell.public or cell.tree is None: return
    commented = comment_lines(cell.text)
    for node in cell.tree.body:
        if getattr(node, "name", "_").startswith("_"): continue
        if isinstance(node, FUNCTIONS): yield from parameters(node, node.name, commented)
        if isinstance(node, ast.ClassDef):
            starts = [one for one in node.body if isinstance(one, FUNCTIONS) and one.name == "__init__"]
            for one in starts: yield from parameters(one, node.name, commented)
            if is_record(node): yield from fields(node, commented)


def parameters(function, name, commented):
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    named = [one for one in named if one is not None and one.arg not in ("self", "cls")]
    for one in named:
        alone = [other.lineno for other in named].count(one.lineno) == 1
        yield name, one.arg, alone and one.lineno in commented


def is_record(node):
    words = {ast.unparse(one).split("(")[0].split(".")[-1] for one in [*node.decorator_list, *node.bases]}
    return bool(words & {"dataclass", "NamedTuple"})


def fields(node, commented):
    for one in node.body:
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            yield node.name, one.target.id, one.lineno in commented or one.end_lineno in commented


def documented(notebook):
    "(with a comment, all) parameters, and the names of those without."
    found = [(cell, *one) for cell in notebook.code for one in public_parameters(cell)]
    bare = [(cell, f"{owner}.{name}") for cell, owner, name, has in found if not has]
    return len(found) - len(bare), len(found), bare


def check_docments(notebook):
    have, count, bare = documented(notebook)
    if count and have < DOCUMENTED * count:
        names = ", ".join(name for _, name in bare[:12]) + (" …" if len(bare) > 12 else "")
        yield notebook.violation("docments", bare[0][0], f"{have} of {count} parameters have a comment; not: {names}")


HARMLESS = {"clone", "detach", "copy", "deepcopy", "numpy", "tolist", "item", "float", "cpu", "double", "long", "list", "dict",
            "tuple", "set"}
COMPARISONS = {"test_eq", "test_close", "test_is", "test_eq_type", "equal", "allclose", "array_equal", "assert_close",
               "assert_allclose", "assert_array_equal"}


def last_name(node):
    "The last part of a name such as copy.deepcopy, or None."
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None


def is_fixed(node):
    "No call in it could give another value the second time."
    return all(last_name(one.func) in HARMLESS for one in ast.walk(node) if isinstance(one, ast.Call))


def is_constant(node):
    "Nothing in it comes from the program."
    return not any(isinstance(one, (ast.Name, ast.Call, ast.Attribute, ast.Await)) for one in ast.walk(node))


def without_copies(node):
    "The expression inside x.clone(), copy.deepcopy(x), list(x) and so on."
    while isinstance(node, ast.Call) and last_name(node.func) in HARMLESS:
        if isinstance(node.func, ast.Attribute) and not node.args: node = node.func.value
        elif len(node.args) == 1: node = node.args[0]
        else: break
    return node


def compared(statement):
    "The pairs of expressions that a statement says are equal."
    for node in ast.walk(statement):
        if isinstance(node, ast.Call) and last_name(node.func) in COMPARISONS:
            if len(node.args) >= 2: yield node.args[0], node.args[1]
            elif len(node.args) == 1 and isinstance(node.func, ast.Attribute): yield node.func.value, node.args[0]
        if isinstance(statement, ast.Assert) and isinstance(node, ast.Compare) and len(node.ops) == 1:
            if isinstance(node.ops[0], (ast.Eq, ast.Is)): yield node.left, node.comparators[0]


def is_test(statement):
    "An assertion, or a call of test_eq and its like as a statement."
    if isinstance(statement, ast.Assert): return True
    called = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(called, ast.Call) and last_name(called.func) in COMPARISONS


def names_itself(a, b):
    "Whether they are f.__name__ and 'f'."
    if not isinstance(a, ast.Attribute) or a.attr != "__name__": return False
    return isinstance(b, ast.Constant) and b.value == last_name(a.value)


def why_it_cannot_fail(statement, before):
    "What makes a test one that cannot fail, or None. `before`: the statement before it, or None."
    if isinstance(statement, ast.Assert):
        test = statement.test
        if isinstance(test, ast.Tuple) and test.elts: return "a tuple is always true; the message stands without brackets"
        if is_constant(test): return "asserts something that is fixed in the text"
        if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.Or) and any(map(is_constant, test.values)):
            return "`or` with a constant"
        if re.fullmatch(r"len\(.*\) >= 0", ast.unparse(test)): return "a length is never negative"
    copied = None
    if isinstance(before, ast.Assign) and len(before.targets) == 1 and without_copies(before.value) is not before.value:
        copied = {ast.dump(before.targets[0]).replace("Store", "Load"), ast.dump(without_copies(before.value))}
    for a, b in compared(statement):
        if ast.dump(a) == ast.dump(b) and is_fixed(a): return f"compares {ast.unparse(a)} with itself"
        if names_itself(a, b) or names_itself(b, a): return "compares a name with itself"
        if isinstance(statement, ast.Expr) and is_constant(a) and is_constant(b): return "compares two constants"
        if copied == {ast.dump(a), ast.dump(b)}:
            return f"compares {ast.unparse(a)} with a copy made in the statement before"
    return None


def statements(tree):
    "(statement, the one before it in its block)."
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list): yield from zip(block, [None] + block)


def check_tautology(notebook):
    for cell in notebook.code:
        for statement, before in statements(cell.tree) if cell.tree else []:
            reason = why_it_cannot_fail(statement, before) if is_test(statement) else None
            if reason: yield notebook.violation("tautology", cell, f"{ast.unparse(statement)[:80]}: {reason}")


def check_error(notebook):
    for cell in notebook.code:
        for output in cell.outputs:
            if output.get("output_type") == "error":
                yield notebook.violation("error", cell, f"{output.get('ename')} is committed")


ASKS = r"^(?:(#{1,6})\s*(?:\d+\W*)?|\*\*)((?:Questions?|Exercises?)\b[^\n]*)$"


def asking_sections(notebook):
    "(cell of the heading, its title, markdown of the section, number of code cells in it)."
    current = None
    for cell in notebook.cells:
        if cell.is_code:
            if current and cell.lines: current[3] += 1
            continue
        inside_details = 0
        for line in cell.text.splitlines():
            heading, asks = re.match(r"(#{1,6}) ", line), re.match(ASKS, line, re.I)
            if asks or (heading and current and not inside_details and len(heading[1]) <= current[4]):
                if current: yield current[:4]
                current = [cell, asks[2].strip("* "), "", 0, len(asks[1]) if asks[1] else 7] if asks else None
                if asks and not asks[1]: current[2] += line.split("**")[-1] + "\n"
            elif current: current[2] += line + "\n"
            inside_details += line.count("<details") - line.count("</details")
    if current: yield current[:4]


def items_in(text): return len(re.findall(r"^ {0,3}(?:\*\*)?\d+[.)]", text, re.M))


def answers_missing(text, code_cells):
    """(questions, answers) of a section: numbered questions outside <details>, against details (or numbered answers in
    one) and code cells."""
    details = re.findall(r"<details.*?</details>", text, re.S)
    asked = max(1, items_in(re.sub(r"<details.*?</details>", "", text, flags=re.S)))
    return asked, sum(max(1, items_in(one)) for one in details) + code_cells


def check_answer(notebook):
    "Assignments are graded work: their answers are the solutions, which students do not get."
    if "assignments" in notebook.path.parts: return
    for cell, title, text, code_cells in asking_sections(notebook):
        exercise = title.lower().startswith("exercise")
        asked, answered = answers_missing(text, code_cells if exercise else 0)
        if answered < asked:
            remedy = "put each answer in <details><summary>Answer</summary> … </details>"
            yield notebook.violation("answer", cell, f"{title[:40]!r} asks {asked} and answers {answered}; {remedy}")


NOTEBOOK_CHECKS = {name: globals()[f"check_{name}"] for name in OF_NOTEBOOK}


def check_notebook(notebook): return [one for rule in OF_NOTEBOOK for one in NOTEBOOK_CHECKS[rule](notebook)]


# ---------------------------------------------------------------------------------------------- rules of the whole

def inside(name):
    "A module's full name without the package's own."
    return name.removeprefix(PACKAGE).lstrip(".")


class Module:
    "A file of the package: its syntax, and where it stands in the reading order."
    def __init__(self, path, house):
        parts = path.relative_to(house.package).with_suffix("").parts
        self.path, self.is_package = path, parts[-1] == "__init__"
        self.name = ".".join(parts[:-1] if self.is_package else parts)            # "" is the package itself
        self.tree = ast.parse(path.read_text())
        self.notebook = house.exports.get(".".join(parts)) or (house.exports.get(self.name) if self.name else None)
        self.chapter, self.place = self.position()

    def position(self):
        """(chapter's number, digits of the notebook). 0 is the ground floor; a module at the top belongs to the chapter of
        its notebook; a package's own file without a notebook comes last in its chapter."""
        top, number = self.name.split(".")[0], self.notebook.number or "" if self.notebook else ""
        if top in CHAPTERS: return CHAPTERS.index(top) + 1, number or ("~" if self.is_package else "")
        return chapter_of(self.notebook.path) or 0 if self.notebook else 0, number

    @property
    def all_names(self):
        "`__all__` where it is a literal, else []."
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets):
                try: return list(ast.literal_eval(node.value))
                except ValueError: return []
        return []

    @property
    def definitions(self):
        "Names made at the top level; what is imported is made elsewhere."
        blocks = [node for node in self.tree.body if isinstance(node, (*FUNCTIONS, ast.ClassDef))]
        names = {node.name for node in blocks}
        for statement in self.tree.body:
            for node in ast.walk(statement) if statement not in blocks else []:
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store): names.add(node.id)
        return {name for name in names if not name.startswith("_")}

    def imports(self):
        "(full name inside the package, name imported or None, whether it happens when the module is imported)."
        yield from self.walk(self.tree, True)

    def walk(self, node, at_import):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test): continue        # never runs
            inner = at_import and not isinstance(child, (*FUNCTIONS, ast.Lambda))
            if isinstance(child, ast.Import):
                for one in child.names:
                    if one.name.split(".")[0] == PACKAGE: yield inside(one.name), None, at_import
            elif isinstance(child, ast.ImportFrom):
                base = self.absolute(child)
                if base is not None:
                    for one in child.names: yield base, one.name, at_import
            elif isinstance(child, ast.Call) and last_name(child.func) in ("import_module", "__import__"):
                named = getattr(child.args[0], "value", None) if child.args else None
                if str(named).startswith(PACKAGE + "."): yield inside(named), None, at_import
            yield from self.walk(child, inner)

    def absolute(self, node):
        "The module that `from … import` names, without the package's own name; None if it is of another package."
        if node.level == 0:
            if (node.module or "").split(".")[0] != PACKAGE: return None
            return inside(node.module)
        here = self.name.split(".") if self.name else []
        if not self.is_package: here = here[:-1]
        here = here[:len(here) - (node.level - 1)]
        return ".".join([*here, *([node.module] if node.module else [])])


def chapter_of(path):
    "The number of a notebook's chapter: 0 on the ground floor, None where it has none (walkthroughs, guide, …)."
    parts = Path(path).parts
    folder = parts[-2] if len(parts) > 1 else ""
    name = re.sub(r"^\d+_", "", folder)
    if name in CHAPTERS: return CHAPTERS.index(name) + 1
    return 0 if folder == "nbs" and re.match(r"\d", parts[-1]) else None


class House:
    "All notebooks and modules of a checkout."
    def __init__(self, root):
        self.root, self.package = Path(root).resolve(), Path(root).resolve() / PACKAGE
        paths = sorted(path for path in (self.root / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
        self.notebooks = [Notebook(path, self.root) for path in paths]
        self.exports = {notebook.module: notebook for notebook in self.notebooks if notebook.module}
        files = [path for path in sorted(self.package.rglob("*.py")) if path.name != "_modidx.py"]
        self.modules = [Module(path, self) for path in files]
        self.by_name = {module.name: module for module in self.modules}

    @property
    def numbered(self): return [module for module in self.modules if module.name]

    @property
    def public_names(self): return {name for module in self.numbered for name in module.all_names}

    @property
    def door(self):
        "`__all__` of the package: read where it is a literal, else by importing it; None if there is none."
        module = self.by_name.get("")
        if module is None or "__all__" not in module.path.read_text(): return None
        if module.all_names: return module.all_names
        asked = f"import json, {PACKAGE}; print(json.dumps(list({PACKAGE}.__all__)))"
        done = subprocess.run([sys.executable, "-c", asked], cwd=self.root, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    def where(self, path): return path.relative_to(self.root).as_posix()


def whole(rule, where, text, source=""): return Violation(rule, where, None, text, source or text)


def check_number(house):
    taken = {}
    for notebook in house.notebooks:
        chapter, number = chapter_of(notebook.path), notebook.number
        if number is not None: taken.setdefault(number, []).append(notebook.where)
        if chapter is None: continue
        if number is None: yield whole("number", notebook.where, "has no number; its name is <number>_name.ipynb")
        elif not re.fullmatch(rf"{chapter}\d+", number):
            kind = f"those of chapter {chapter}, {CHAPTERS[chapter - 1]}," if chapter else "those of the ground floor"
            yield whole("number", notebook.where, f"has number {number}, but {kind} begin with {chapter}")
    for number, places in taken.items():
        if len(places) > 1: yield whole("number", places[1], f"number {number} is also that of {places[0]}")


def check_place(house):
    for notebook in house.notebooks:
        chapter = chapter_of(notebook.path)
        if chapter is None or not notebook.module: continue
        wanted = CHAPTERS[chapter - 1] if chapter else ""
        if notebook.module.rpartition(".")[0] != wanted:
            target = f"the package {wanted}" if wanted else "the top of the package"
            text = f"is exported to {notebook.module}, outside {target}"
            yield whole("place", notebook.where, text, f"default_exp {notebook.module}")
    for module in house.numbered:
        if module.notebook is None and not module.is_package:
            yield whole("place", house.where(module.path), "no notebook exports this module")


def import_target(house, base, name):
    "The module that an import reaches: a submodule where the name is one."
    inner = f"{base}.{name}".lstrip(".") if name else base
    return house.by_name.get(inner) or house.by_name.get(base)


def check_import(house):
    "Each pair of modules once."
    found = {}
    for one in wrong_imports(house): found.setdefault((one.where, one.text), one)
    yield from found.values()


def wrong_imports(house):
    for module in house.modules:
        for base, name, at_import in module.imports():
            target = import_target(house, base, name)
            text = None if target is module else why_wrong(module, target, base, name, at_import)
            said = f"imports {base or PACKAGE}" + (f" ({name})" if name else "")
            if text: yield whole("import", house.where(module.path), text, f"{text}; {said}")


def why_wrong(module, target, base, name, at_import):
    "What is wrong with an import, or None."
    if target is None: return f"imports {base}, which is no module"
    if target.name == "" and name and not name.startswith("__"):
        return f"takes {name} from the public door; import it from its chapter"
    if target.chapter > module.chapter:
        return f"imports {target.name}, of the later chapter {CHAPTERS[target.chapter - 1]}"
    if target.chapter == module.chapter and at_import and target.place > module.place:
        return f"imports {target.name} (notebook {target.place}), which comes after it"
    return None


def check_meaning(house):
    homes = {}
    for module in house.numbered:
        for name in module.definitions: homes.setdefault(name, []).append(module.name)
    for name in sorted(house.public_names):
        if len(homes.get(name, [])) > 1:
            yield whole("meaning", PACKAGE, f"{name} is defined in {' and '.join(homes[name])}", name)


def check_public(house):
    count = len(house.public_names)
    if count > PUBLIC_NAMES: yield whole("public", PACKAGE, f"{count} public names; mark helpers with #| exporti")


def check_door(house):
    names = house.door
    where = f"{PACKAGE}/__init__.py"
    if not names: yield whole("door", where, "has no __all__")
    else:
        if len(names) > DOOR_NAMES: yield whole("door", where, f"{len(names)} names")
        for name in sorted(set(names) - house.public_names - {"__version__"}):
            yield whole("door", where, f"{name} is public in no module", name)


HOUSE_CHECKS = {name: globals()[f"check_{name}"] for name in RULES if name not in OF_NOTEBOOK}


def check_house(house):
    found = [one for notebook in house.notebooks for one in check_notebook(notebook)]
    return found + [one for rule in HOUSE_CHECKS for one in HOUSE_CHECKS[rule](house)]


# ---------------------------------------------------------------------------------------------- exceptions

def read_exceptions(root):
    path = Path(root) / "tests" / "house.json" if root else None
    return json.loads(path.read_text())["exceptions"] if path and path.exists() else []


def excuses(exception, violation):
    "Whether an exception covers a violation. No line may be wider than the widest ever."
    if violation.rule == "width" and len(violation.source) > WIDEST_EVER: return False
    same = exception["rule"] == violation.rule and exception["where"] == violation.where
    return same and exception.get("contains", "") in violation.source


def left_over(violations, exceptions):
    "(violations that no exception covers, exceptions that cover nothing)."
    open_ones = [one for one in violations if not any(excuses(exception, one) for exception in exceptions)]
    return open_ones, [exception for exception in exceptions if not any(excuses(exception, one) for one in violations)]


# ---------------------------------------------------------------------------------------------- what is not yet so

def read_unfinished(root):
    """{rule: {where: count}}: how often a rule is still broken, for the notebooks that are not yet rewritten. A count may
    only fall; a rule or a file that is not listed holds without exception."""
    path = Path(root) / "tests" / "house.json" if root else None
    return json.loads(path.read_text()).get("unfinished", {}) if path and path.exists() else {}


def counts_of(violations):
    found = {}
    for one in violations:
        found.setdefault(one.rule, {}).setdefault(str(one.where), 0)
        found[one.rule][str(one.where)] += 1
    return {rule: dict(sorted(found[rule].items())) for rule in sorted(found)}


def compared_with(allowed, violations):
    "(where there is more than is allowed, what is allowed and not needed any more: lower it)."
    found = counts_of(violations)
    pairs = {(rule, where) for table in (found, allowed) for rule in table for where in table[rule]}
    change = {(rule, where): found.get(rule, {}).get(where, 0) - allowed.get(rule, {}).get(where, 0) for rule, where in pairs}
    return sorted(pair for pair in pairs if change[pair] > 0), sorted(pair for pair in pairs if change[pair] < 0)


def record_unfinished(root):
    "Write today's counts (`python tests/test_house.py --record`)."
    path = Path(root) / "tests" / "house.json"
    kept = json.loads(path.read_text())
    kept["unfinished"] = counts_of(left_over(check_house(House(root)), kept["exceptions"])[0])
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


# ---------------------------------------------------------------------------------------------- the table

def used_soon(notebook):
    "(exported cells that one of the next three code cells, not exported, uses; exported cells)."
    used = count = 0
    for index, cell in enumerate(notebook.code):
        if not cell.counts_as_export: continue
        count += 1
        used += any(one.is_demonstration and one.uses & cell.defines for one in notebook.code[index + 1:index + 4])
    return used, count


def assertions(cell):
    "Assertions, calls of test_… and expected errors in a cell that is not exported."
    if cell.exported or cell.tree is None: return 0
    calls = [str(last_name(node.func)) for node in ast.walk(cell.tree) if isinstance(node, ast.Call)]
    tests = sum(name.startswith(("test_", "assert_")) or name in ("ExceptionExpected", "expect_fail") for name in calls)
    return tests + sum(isinstance(node, ast.Assert) for node in ast.walk(cell.tree))


def asserted_figures(notebook):
    "Figures with an assertion in their own cell or in the code cell before or after."
    near = [notebook.code[max(0, index - 1):index + 2] for index, cell in enumerate(notebook.code) if cell.pictures]
    return sum(any(map(assertions, cells)) for cells in near)


def figures_of(notebook):
    "One row of the table."
    lines = [line for cell in notebook.code for line in cell.text.splitlines() if line.strip()]
    have, count, _ = documented(notebook)
    used, exported = used_soon(notebook)
    return {"notebook": notebook.where.removeprefix("nbs/"), "cells": len(notebook.cells),
            "longest": max((len(cell.lines) for cell in notebook.code if cell.exported), default=0),
            "widest": max(map(len, lines), default=0),
            "run": max((length for _, length in unused_runs(notebook)), default=0),
            "figures": sum(bool(cell.pictures) for cell in notebook.code), "mute": len(list(mute_figures(notebook))),
            "asserted": asserted_figures(notebook), "asserts": sum(map(assertions, notebook.code)),
            "documented": have, "parameters": count, "used": used, "exported": exported,
            "too long": sum(cell.exported and len(cell.lines) > LONGEST_CELL for cell in notebook.code),
            "lines": len(lines), "over 100": sum(len(line) > 100 for line in lines)}


def lessons_ahead(house):
    "(notebook, module) wherever a cell that is not exported imports from a later chapter: allowed, and worth knowing."
    found = set()
    for notebook in house.notebooks:
        chapter = chapter_of(notebook.path)
        if chapter is None: continue
        for cell in notebook.code:
            for node in ast.walk(cell.tree) if cell.tree and not cell.exported else []:
                if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] != PACKAGE: continue
                base = inside(node.module)
                targets = [import_target(house, base, one.name) for one in node.names]
                found |= {(notebook.where, target.name) for target in targets if target and target.chapter > chapter}
    return sorted(found)


def share(part, of, digits=0): return f"{part / of:.{digits}%}" if of else "–"


COLUMNS = {"cells": None, "longest": LONGEST_CELL, "widest": WIDEST_LINE, "run": LONGEST_RUN, "figures": None, "mute": 0,
           "asserted": None, "docments": f"{DOCUMENTED:.0%}", "used>3": None, "asserts": None}       # heading → limit


def table(house):
    "The figures of every notebook, and their totals."
    rows = [figures_of(notebook) for notebook in house.notebooks]
    width = max(len(row["notebook"]) for row in rows)
    limits = ["" if limit is None else str(limit) for limit in COLUMNS.values()]
    lines = [" ".join([f"{name:<{width}}", *[f"{value:>8}" for value in values]])
             for name, values in (("notebook", COLUMNS), ("(limit)", limits))]
    for row in rows:
        shown = {**row, "docments": share(row["documented"], row["parameters"]), "used>3": share(row["used"], row["exported"])}
        lines.append(" ".join([f"{row['notebook']:<{width}}", *[f"{shown[name]:>8}" for name in COLUMNS]]))
    return "\n".join([*lines, "", *totals(house, rows)])


def totals(house, rows):
    "Lines under the table."
    names = set(rows[0]) - {"notebook", "longest", "widest", "run"}
    total, door = {name: sum(row[name] for row in rows) for name in names}, house.door
    part = lambda name, of, digits=0: f"{total[name]} of {total[of]} = {share(total[name], total[of], digits)}"
    ahead = {where for where, _ in lessons_ahead(house)}
    return [f"{len(rows)} notebooks, {total['cells']} cells, {total['exported']} exported cells with a definition",
            f"exported cells over {LONGEST_CELL} lines: {total['too long']}",
            f"exported cells used within three cells: {part('used', 'exported')}",
            f"code lines over 100 characters: {part('over 100', 'lines', 1)}",
            f"assertions: {total['asserts']}",
            f"figures: {total['figures']}, without a word {total['mute']}, with an assertion near {total['asserted']}",
            f"documented parameters: {part('documented', 'parameters')}",
            f"notebooks whose lesson imports from a later chapter: {len(ahead)}",
            f"public names: {len(house.public_names)}, at the door: {len(door) if door else 'none'}"]


# ---------------------------------------------------------------------------------------------- the tests

ROOT = root_of(__file__) or root_of(Path.cwd() / "x")


def told(violations): return "\n".join(map(show, violations))


if pytest:
    @pytest.fixture(scope="module")
    def house(): return House(ROOT)

    @pytest.fixture(scope="module")
    def violations(house): return check_house(house)

    @pytest.mark.parametrize("rule", RULES)
    def test_rule_holds(rule, violations):
        remaining, _ = left_over([one for one in violations if one.rule == rule], read_exceptions(ROOT))
        allowed = {rule: read_unfinished(ROOT).get(rule, {})}
        more, fewer = compared_with(allowed, remaining)
        new = [one for one in remaining if (rule, str(one.where)) in more]
        assert not new, f"not so: {RULES[rule]} (one of these is new)\n{told(new)}"
        assert not fewer, f"better than tests/house.json says; run python tests/test_house.py --record: {fewer}"

    def test_counts_may_only_fall(tmp_path):
        wide = small(tmp_path, [code("x = 1  # " + "long " * 30), code("x = 2  # " + "long " * 30)])
        found, where = list(check_width(wide)), str(wide.where)
        assert counts_of(found) == {"width": {where: 2}}
        assert compared_with({"width": {where: 2}}, found) == ([], [])
        assert compared_with({"width": {where: 1}}, found) == ([("width", where)], [])
        assert compared_with({"width": {where: 3}}, found) == ([], [("width", where)])
        assert compared_with({}, found) == ([("width", where)], [])

    def test_exceptions_are_needed(violations):
        _, unneeded = left_over(violations, read_exceptions(ROOT))
        assert not unneeded, f"these exceptions cover nothing any more, delete them from tests/house.json: {unneeded}"

    def test_exceptions_are_few_and_reasoned():
        exceptions = read_exceptions(ROOT)
        assert len(exceptions) <= FEW
        for exception in exceptions:
            assert set(exception) <= {"rule", "where", "contains", "reason"} and exception["rule"] in RULES, exception
            assert (ROOT / exception["where"]).exists(), f"{exception['where']} is not there"
            assert len(exception["reason"].split()) >= 5, f"say why: {exception}"

    def test_figures(house):
        text = table(house)
        print("\n" + text)
        names = [notebook.where.removeprefix("nbs/") for notebook in house.notebooks]
        assert len(names) > 20 and all(name in text for name in names)

    # ------------------------------------------------------------------------------------------ the checker is checked

    def code(*lines, outputs=()): return {"cell_type": "code", "source": "\n".join(lines), "outputs": list(outputs)}
    def text(source): return {"cell_type": "markdown", "source": source}

    PICTURE = {"output_type": "display_data", "data": {"image/png": "…"}}
    WIDGET = {"output_type": "execute_result", "data": {"application/vnd.jupyter.widget-view+json": {}}}
    FUNCTION = code("#| export", "def double(", "    x, # a number", "):", '    "Twice x."', "    return 2 * x")
    USE = code("assert double(2) == 4")
    SEEN = text("The bars rise from left to right.")
    GOOD = [text("# A lesson"), code("#| default_exp images.lesson"), FUNCTION, USE, code("show()", outputs=[PICTURE]), SEEN,
            text("## Questions\n\n1. Why?\n\n<details><summary>Answer</summary>\n\nBecause.\n\n</details>\n\n"
                 "2. How?\n\n<details><summary>Answer</summary>\n\nSo.\n\n</details>"),
            text("## Exercise\n\n1. Write it."), code("written = 1")]

    def small(tmp_path, cells, name="11_lesson.ipynb"):
        path = tmp_path / "nbs" / "1_images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"cells": cells, "metadata": {}}))
        return Notebook(path, tmp_path)

    def define(name, kind="export"): return code(f"#| {kind}", f"def {name}(): return 1")

    def test_a_good_notebook_has_no_violation(tmp_path): assert not check_notebook(small(tmp_path, GOOD))

    SPOILT = {
        "length": [
            [code("#| export", *[f"x{i} = {i}" for i in range(26)])],
            [code("#| exporti", *[f"x{i} = {i}" for i in range(26)])]],
        "width": [
            [code("x = " + "1" * 107)],
            [code("#| export", "x = 1 # " + "é" * 103)]],
        "run": [
            [define("a"), define("b"), define("c"), define("d"), code("d()")],
            [define("a"), define("b", "exporti"), code("print('a b')"), define("c"), text("a, b"), define("d", "exporti"), code("a()")],
            [code("#| export", "class A: pass"), *[code("#| exporti", f"def _m{i}(self): return {i}", f"A.m{i} = _m{i}") for i in range(3)]]],
        "figure": [
            [code("show()", outputs=[PICTURE])],
            [code("show()", outputs=[PICTURE]), code("1")],
            [code("show()", outputs=[WIDGET]), text("## Next")],
            [code("show()", outputs=[PICTURE]), text("## Next\n\nWhat the next section is about, at some length.")],
            [code("show()", outputs=[PICTURE]), text("<!-- nothing that anybody sees here -->\n")]],
        "docments": [
            [code("#| export", "def f(", "    a, # first", "    b", "): return a")],
            [code("#| export", "def f(a, b): # two numbers", "    return a")],
            [code("#| export", "class A:", "    def __init__(self,", "        size", "    ): self.size = size")],
            [code("#| export", "@dataclass(frozen=True)", "class A:", "    size: int = 3")]],
        "tautology": [
            [code("test_eq(x, x)")],
            [code("assert x[0] == x[0]")],
            [code("assert True")],
            [code("assert (x > 1, 'too small')")],
            [code("assert 1 + 1 == 2")],
            [code("assert broken or True")],
            [code("assert len(rows) >= 0")],
            [code("test_eq(2, 2)")],
            [code("test_eq(grade.__name__, 'grade')")],
            [code("assert grade.__name__ == 'grade'")],
            [code("before = method.queue.rows.clone()", "test_eq(method.queue.rows, before)")],
            [code("for _ in range(2):", "    old = copy.deepcopy(x)", "    assert torch.equal(old, x)")],
            [code("y = x.detach().clone()", "assert x.equal(y)")]],
        "error": [[code("1/0", outputs=[{"output_type": "error", "ename": "ZeroDivisionError"}])]],
        "answer": [
            [text("## Questions\n\n1. Why?")],
            [text("### Exercises\n\n1. Write it.\n2. Measure it."), code("written = 1")],
            [text("## Questions\n\n1. Why?\n2. How?\n\n<details>Because.</details>")],
            [text("## Questions\n\n1. Why?"), code("x = 1"), text("## Summary\n\n<details>Something else.</details>")],
            [text("Text.\n\n**Exercise.** Change the temperature.")]],
    }

    @pytest.mark.parametrize("rule, cells", [(rule, cells) for rule, many in SPOILT.items() for cells in many])
    def test_a_spoilt_notebook_is_found(rule, cells, tmp_path):
        found = check_notebook(small(tmp_path, cells))
        assert {one.rule for one in found} == {rule}, told(found)
        assert all(one.cell is not None and one.where == "nbs/1_images/11_lesson.ipynb" for one in found)

    FINE = [
        [code("#| export", *[f"x{i} = {i}" for i in range(24)], "", "", "y = 1")],                         # blank lines do not count
        [code("x = " + "1" * 106)],                                                                        # 110 characters
        [define("a"), define("b"), define("c"), code("b()"), define("d"), code("d()")],
        [code("#| export", "import torch"), define("a"), define("b"), define("c"), code("a()")],             # imports are no definition
        [code("#| export", "class A: pass"), code("A()"), *[code("#| exporti", f"def _m{i}(self): return 1", f"A.m{i} = _m{i}") for i in range(3)],
         code("A().m1()"), define("z"), code("z()")],
        [code("#| export", "def _private(a, b): return a"), code("#| exporti", "def helper(a, b): return a"), code("helper(1, _private(2))")],
        [code("test_eq(f(1), f(1))", "assert f(x) == f(x)")],                                                # a function may give another value
        [code("before = x.clone()", "change(x)", "assert not torch.equal(before, x)")],
        [code("assert f.__name__ == 'g'")],
        [text("**The question.** Which pixels are alike? No exercise here."), text("## The question\n\nIt has no answer yet.")],
        [text("## Questions\n\n1. Why?\n2. How?\n\n<details><summary>Answers</summary>\n\n1. Because.\n2. So.\n\n</details>")],
    ]

    @pytest.mark.parametrize("cells", FINE)
    def test_what_is_allowed_is_not_found(cells, tmp_path): assert not check_notebook(small(tmp_path, cells))

    def test_assignments_keep_their_answers_to_themselves(tmp_path):
        path = tmp_path / "nbs" / "assignments" / "1_task.ipynb"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"cells": [text("## Questions\n\n1. Why?"), code("show()", outputs=[PICTURE])]}))
        assert [one.rule for one in check_notebook(Notebook(path, tmp_path))] == ["figure"]

    def build(folder, notebooks, modules, door="__all__ = ['a']"):
        "A small checkout: notebook → module, module → source."
        (folder / "settings.ini").write_text("")
        for where, module in notebooks.items():
            path = folder / "nbs" / where
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"cells": [code(f"#| default_exp {module}")] if module else []}))
        for name, source in {"__init__": door, **modules}.items():
            path = folder / PACKAGE / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        return [one for rule in HOUSE_CHECKS for one in HOUSE_CHECKS[rule](House(folder))]

    NOTEBOOKS = {"01_checks.ipynb": "checks", "1_images/11_data.ipynb": "images.data", "1_images/12_views.ipynb": "images.views",
                 "4_losses/41_infonce.ipynb": "losses.infonce", "course/101_marking.ipynb": "course.marking", "index.ipynb": None,
                 "walkthroughs/start.ipynb": None, "assignments/1_infonce.ipynb": None}
    MODULES = {"checks": "", "images/__init__": "", "images/data": "__all__ = ['a']\ndef a(): pass",
               "images/views": "from ..checks import x\nfrom .data import a", "losses/__init__": "",
               "losses/infonce": "from pixcl_nb.images.data import a\ndef f():\n    from ..images import views",
               "course/__init__": "", "course/marking": "import pixcl_nb.losses.infonce\nfrom .. import checks"}

    def test_a_good_house_has_no_violation(tmp_path): assert not build(tmp_path, NOTEBOOKS, MODULES)

    def changed(dictionary, **changes): return {key: value for key, value in {**dictionary, **changes}.items() if value is not False}

    MISBUILT = {
        "number, taken twice": (changed(NOTEBOOKS, **{"1_images/11_other.ipynb": None}), MODULES),
        "number, none": (changed(NOTEBOOKS, **{"1_images/data.ipynb": None}), MODULES),
        "number, another chapter's": (changed(NOTEBOOKS, **{"4_losses/52_x.ipynb": None}), MODULES),
        "number, in the corridor": (changed(NOTEBOOKS, **{"12_widgets.ipynb": None}), MODULES),
        "place, another chapter's package": (changed(NOTEBOOKS, **{"1_images/13_x.ipynb": "losses.x"}), changed(MODULES, **{"losses/x": ""})),
        "place, a module without a notebook": (NOTEBOOKS, changed(MODULES, **{"losses/x": ""})),
        "import, upward": (NOTEBOOKS, changed(MODULES, **{"images/data": "__all__ = ['a']\nfrom ..losses.infonce import a\ndef a(): pass"})),
        "import, upward in a function": (NOTEBOOKS, changed(MODULES, **{"checks": "def f():\n    from .images import data"})),
        "import, upward by a string": (NOTEBOOKS, changed(MODULES, **{"checks": "def f(): importlib.import_module('pixcl_nb.images.data')"})),
        "import, upward from the ground floor": (NOTEBOOKS, changed(MODULES, **{"checks": "import pixcl_nb.images.data"})),
        "import, later in the chapter": (NOTEBOOKS, changed(MODULES, **{"images/views": "", "images/data": "from .views import b\n__all__ = ['a']\ndef a(): pass"})),
        "import, through the door": (NOTEBOOKS, changed(MODULES, **{"losses/infonce": "from pixcl_nb import a"})),
        "import, of nothing": (NOTEBOOKS, changed(MODULES, **{"losses/infonce": "from ..pictures import a"})),
        "meaning, public twice": (NOTEBOOKS, changed(MODULES, **{"losses/infonce": "__all__ = ['a']\ndef a(): pass"})),
        "meaning, helper of the same name": (NOTEBOOKS, changed(MODULES, **{"losses/infonce": "a = 1"})),
        "public, too many": (NOTEBOOKS, changed(MODULES, checks=f"__all__ = {[f'n{i}' for i in range(400)]}")),
    }

    @pytest.mark.parametrize("name", MISBUILT)
    def test_a_misbuilt_house_is_found(name, tmp_path):
        found = build(tmp_path, *MISBUILT[name])
        assert {one.rule for one in found} == {name.split(",")[0]}, told(found)

    @pytest.mark.parametrize("door", ["", f"__all__ = {[f'n{i}' for i in range(71)]}", "__all__ = ['nowhere']", "__all__ = list({'nowhere': 1})"])
    def test_a_wrong_door_is_found(door, tmp_path):
        names = [f"n{i}" for i in range(71)]
        found = build(tmp_path, NOTEBOOKS, changed(MODULES, checks=f"__all__ = {names}"), door)
        assert {one.rule for one in found} == {"door"}, told(found)

    def test_within_a_chapter_a_function_may_look_ahead(tmp_path):
        ahead = "__all__ = ['a']\ndef a():\n    from .views import b"
        assert not build(tmp_path, NOTEBOOKS, changed(MODULES, **{"images/data": ahead, "images/views": "def b(): pass"}))

    def test_exceptions_cover_what_they_name_and_nothing_else(tmp_path):
        wide, wider = "x = " + "1" * 110, "y = " + "1" * 130
        found = check_notebook(small(tmp_path, [code(wide), code(wider)]))
        exceptions = [{"rule": "width", "where": "nbs/1_images/11_lesson.ipynb", "contains": start} for start in ("x =", "y =", "z =")]
        remaining, unneeded = left_over(found, exceptions)
        assert [one.source for one in remaining] == [wider]                       # over 120 there is no exception
        assert unneeded == exceptions[1:]
        assert left_over(found, [{"rule": "length", "where": found[0].where}])[0] == found

    def test_the_table_counts(tmp_path):
        notebook = small(tmp_path, [define("a"), define("b"), code("a()", "assert a() == 1"), code("show()", outputs=[PICTURE]), text("## Next")])
        row = figures_of(notebook)
        assert (row["cells"], row["run"], row["used"], row["exported"], row["figures"], row["mute"], row["asserted"]) == (5, 2, 1, 2, 1, 1, 1)
        assert row["asserts"] == 1 and row["longest"] == 1

    def test_the_script_prints_cell_numbers(tmp_path):
        path = small(tmp_path, [text("# x"), code("assert True")]).path
        done = subprocess.run([sys.executable, __file__, str(path)], capture_output=True, text=True)
        assert done.returncode == 1 and "[1] tautology" in done.stdout
        good = subprocess.run([sys.executable, __file__, str(small(tmp_path, GOOD).path)], capture_output=True, text=True)
        assert good.returncode == 0, good.stdout


def main(paths):
    "Violations of the notebooks named, or the table and all violations of the checkout; --record writes their counts."
    if paths == ["--record"]: return record_unfinished(ROOT)
    if paths and all(path.endswith(".ipynb") for path in paths):
        root = root_of(paths[0])
        found = [one for path in paths for one in check_notebook(Notebook(path))]
    else:
        root = Path(paths[0]) if paths else root_of(Path.cwd() / "x") or ROOT
        house = House(root)
        print(table(house) + "\n")
        found = check_house(house)
    remaining, _ = left_over(found, read_exceptions(root))
    print(told(remaining) + ("\n" if remaining else "") + f"{len(remaining)} violations"
          + (f", {len(found) - len(remaining)} more are excepted" if len(found) > len(remaining) else ""))
    return int(bool(remaining))


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
