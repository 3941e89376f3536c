"""The reference pages: what each exported module offers, read from its text (nothing is imported)."""
import ast
import io
import re
import tokenize
from dataclasses import dataclass, field, replace
from pathlib import Path

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class Entry:
    "A public name, or a public member of a class."
    name: str
    kind: str                # the Python domain's word: function, class, method, property, data
    line: int                # in the module
    text: str = ""           # the docstring, or a constant's comment
    signature: str = ""      # "(query, temperature=0.2)"
    value: str = ""          # of a constant, if short
    returns: tuple = ("", "")                      # annotation, comment
    parameters: list = field(default_factory=list) # (name, annotation, comment)
    members: list = field(default_factory=list)    # entries


@dataclass
class Module:
    "An exported module."
    name: str                # pixcl_nb.losses.infonce
    path: str                # pixcl_nb/losses/infonce.py
    notebook: str            # nbs/4_losses/41_infonce.ipynb
    text: str                # the docstring
    names: list              # __all__
    entries: list
    cells: list              # (line of the marker, cell id)

    def cell_of(self, entry):
        "The id of the notebook's cell that an entry was exported from."
        return [cell for line, cell in self.cells if line < entry.line][-1]


# ---------- reading

def trailing_comments(source):
    "Line → the comment behind its code."
    found, code = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and token.start[0] in code: found[token.start[0]] = token.string.lstrip("# ").rstrip()
        elif token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT): code.update(range(token.start[0], token.end[0] + 1))
    return found


def arguments_of(function):
    "(argument, its default or None, its mark) in order; the mark is \"\", \"*\" or \"**\"."
    a = function.args
    plain = a.posonlyargs + a.args
    rows = [(arg, default, "") for arg, default in zip(plain, [None] * (len(plain) - len(a.defaults)) + a.defaults)]
    if a.vararg: rows.append((a.vararg, None, "*"))
    rows += [(arg, default, "") for arg, default in zip(a.kwonlyargs, a.kw_defaults)]
    return rows + ([(a.kwarg, None, "**")] if a.kwarg else [])


def signature_of(function, skip_first=False):
    "Names and defaults, as text in brackets."
    a, rows = function.args, arguments_of(function)
    words = [f"{mark}{arg.arg}" + ("" if default is None else f"={ast.unparse(default)}") for arg, default, mark in rows]
    if a.posonlyargs: words.insert(len(a.posonlyargs), "/")
    if a.kwonlyargs and not a.vararg: words.insert(len(a.posonlyargs) + len(a.args) + bool(a.posonlyargs), "*")
    return "(" + ", ".join(words[1:] if skip_first else words) + ")"


def parameters_of(function, comments, skip_first=False):
    "(name, annotation, comment): a comment belongs to the parameters that end on its line."
    rows = arguments_of(function)[1 if skip_first else 0:]
    last = [(default or arg.annotation or arg).end_lineno if default is not None or arg.annotation else arg.end_lineno for arg, default, _ in rows]
    heads = {function.lineno} if function.body[0].lineno == function.lineno else set()
    return [(mark + arg.arg, ast.unparse(arg.annotation) if arg.annotation else "", "" if line in heads else comments.get(line, ""))
            for (arg, _, mark), line in zip(rows, last)]


def returns_of(function, comments):
    "(annotation, comment) of what comes back."
    first, head = function.body[0].lineno, max([function.lineno] + [arg.end_lineno for arg, *_ in arguments_of(function)])
    words = [comments[line] for line in range(head + (head != function.lineno), first) if line in comments] if first > head else []
    return (ast.unparse(function.returns) if function.returns else "", words[-1] if words else "")


def function_entry(function, comments, kind="function"):
    inside = kind != "function"
    marks = [ast.unparse(mark) for mark in function.decorator_list]
    if "property" in marks: kind = "property"
    skip = inside and "staticmethod" not in marks
    return Entry(function.name, kind, function.lineno, ast.get_docstring(function) or "", "" if kind == "property" else signature_of(function, skip),
                 returns=returns_of(function, comments), parameters=parameters_of(function, comments, skip))


def fields_of(node, comments):
    "(name, annotation, comment) of a class's fields: all of a dataclass, of others those with a comment."
    rows = []
    for part in node.body:
        comment = comments.get(part.end_lineno, "") if isinstance(part, (ast.AnnAssign, ast.Assign)) else ""
        if isinstance(part, ast.AnnAssign): rows.append((part.target.id, ast.unparse(part.annotation), comment))
        elif isinstance(part, ast.Assign) and comment: rows += [(name, "", comment) for name in names_of(part)]
    return [row for row in rows if not row[0].startswith("_")]


def is_dataclass(node): return any("dataclass" in ast.unparse(mark) for mark in node.decorator_list)


def dataclass_signature(node):
    rows = [part for part in node.body if isinstance(part, ast.AnnAssign)]
    return "(" + ", ".join(row.target.id + ("" if row.value is None else "=…" if "field(" in ast.unparse(row.value) else f"={ast.unparse(row.value)}") for row in rows) + ")"


def class_entry(node, comments):
    "A class with its fields, and its public members that say what they do."
    parts = [part for part in node.body if isinstance(part, DEFINITIONS)]
    begin = next((part for part in parts if part.name == "__init__"), None)
    entry = Entry(node.name, "class", node.lineno, ast.get_docstring(node) or "", parameters=fields_of(node, comments))
    if begin:
        entry.signature = signature_of(begin, True)
        entry.parameters = parameters_of(begin, comments, True) + entry.parameters
        entry.text += ("\n\n" if entry.text else "") + (ast.get_docstring(begin) or "")
    elif is_dataclass(node): entry.signature = dataclass_signature(node)
    entry.members = said([function_entry(part, comments, "method") for part in parts if not part.name.startswith("_")])
    return entry


def said(members): return [member for member in members if member.text or any(row[2] for row in member.parameters)]


def add_members(entry, node, tree, comments):
    "What a class takes from the small base classes that its module builds it from, and what later cells set on it: `Class.name = function`."
    functions = {part.name: part for part in tree.body if isinstance(part, DEFINITIONS)}
    for base in bases_of(node, tree): entry.members += [one for one in class_entry(base, comments).members if one.name not in {member.name for member in entry.members}]
    for part in tree.body:
        if not isinstance(part, ast.Assign) or not isinstance(part.targets[0], ast.Attribute): continue
        target, value = part.targets[0], part.value
        if ast.unparse(target.value) != entry.name or target.attr.startswith("_"): continue
        kind = "property" if isinstance(value, ast.Call) and ast.unparse(value.func) == "property" else "method"
        function = functions.get(ast.unparse(value.args[0] if kind == "property" else value))
        if function: entry.members += said([replace(function_entry(function, comments, "method"), name=target.attr, kind=kind)])


def bases_of(node, tree):
    """The classes of the same module that are not public and from which a class is made, nearest first. A class may grow
    over cells as `class A(A)`: its base is the definition before it."""
    before = [part for part in tree.body if isinstance(part, ast.ClassDef) and part.lineno < node.lineno]
    classes, found = {part.name: part for part in before}, []
    for base in node.bases:
        one = classes.get(ast.unparse(base))
        if one and one.name not in public_of(tree): found += [one, *bases_of(one, tree)]
    return found


def public_of(tree):
    "`__all__`, [] where there is none."
    return next((ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign) and "__all__" in names_of(node)), [])


def names_of(node):
    "The names that an assignment binds."
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [part.id for target in targets for part in (target.elts if isinstance(target, ast.Tuple) else [target]) if isinstance(part, ast.Name)]


def data_entry(node, name, comments):
    value = ast.unparse(node.value) if node.value is not None and len(names_of(node)) == 1 else ""
    return Entry(name, "data", node.lineno, comments.get(node.end_lineno, ""), value=value if len(value) <= 100 and "\n" not in value else "")


def read_module(path, root):
    "What a module offers. `ValueError` if a name of __all__ is defined nowhere in it."
    source = path.read_text(encoding="utf-8")
    tree, comments, found = ast.parse(source), trailing_comments(source), {}
    names = public_of(tree)
    for node in tree.body:
        if isinstance(node, DEFINITIONS): found[node.name] = function_entry(node, comments)
        elif isinstance(node, ast.ClassDef):
            found[node.name] = class_entry(node, comments)
            add_members(found[node.name], node, tree, comments)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for name in names_of(node): found.setdefault(name, data_entry(node, name, comments))
    missing = [name for name in names if name not in found]
    if missing: raise ValueError(f"{path}: __all__ has {missing}, which it does not define")
    markers = [(number, *match) for number, line in enumerate(source.split("\n"), 1) for match in re.findall(r"^# %% (\S+\.ipynb) #(\w+)$", line)]
    notebook = (path.parent / markers[0][1]).resolve().relative_to(root).as_posix()
    dotted = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    return Module(dotted, path.relative_to(root).as_posix(), notebook, ast.get_docstring(tree) or "", names,
                  sorted((found[name] for name in names), key=lambda entry: entry.line), [(line, cell) for line, _, cell in markers])


def read_package(root):
    "Every module that exports a name."
    paths = sorted((root / "pixcl_nb").rglob("*.py"))
    return [read_module(path, root) for path in paths if path.name != "_modidx.py" and re.search(r"^__all__ = \['", path.read_text(encoding="utf-8"), re.M)]


# ---------- writing

def plain(text):
    "Text as Markdown that shows it unchanged; what stands in `backticks` stays code."
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(part if at % 2 else re.sub(r"([\\*_\[\]<>$#|{}~`^&!])", r"\\\1", part) for at, part in enumerate(parts))


def in_cell(text): return re.sub(r"(?<!\\)\|", r"\\|", plain(text).replace("\n", " "))
def code(text): return f"`{text}`" if text else ""
def page_of(module): return "api/" + module.name.removeprefix("pixcl_nb.")
def target_of(module, cell): return f"src-{Path(module.notebook).stem}-{cell}".lower().replace("_", "-")


def table_of(entry):
    "The parameters (or fields) and what comes back, as a Markdown table; \"\" where no comment says anything."
    rows = [(code(name), code(kind).replace("|", "\\|"), in_cell(about)) for name, kind, about in entry.parameters]
    if entry.returns[1]: rows.append(("*returns*", code(entry.returns[0]).replace("|", "\\|"), in_cell(entry.returns[1])))
    if not any(about for *_, about in rows): return ""
    if not any(kind for _, kind, _ in rows): return "\n".join(["| name | meaning |", "|---|---|"] + [f"| {name} | {about} |" for name, _, about in rows])
    return "\n".join(["| name | type | meaning |", "|---|---|---|"] + [f"| {' | '.join(row)} |" for row in rows])


def links_of(module, entry, git_url):
    notebook = Path(module.notebook).stem
    return f"[{notebook}](#{target_of(module, module.cell_of(entry))}) · [{Path(module.path).name}]({git_url}/blob/main/{module.path}#L{entry.line})"


def entry_text(module, entry, git_url, fence="::::::"):
    "One name as a directive of Sphinx's Python domain."
    head = entry.name + entry.signature + (f" -> {entry.returns[0]}" if entry.returns[0] and entry.kind in ("function", "method") else "")
    options = [f":type: {entry.returns[0]}"] if entry.kind == "property" and entry.returns[0] else [f":value: {entry.value}"] if entry.value else []
    body = [plain(entry.text), table_of(entry)] + [entry_text(module, member, git_url, fence[:-1]) for member in entry.members]
    if fence == "::::::": body.append(f"{{.source}}\n{links_of(module, entry, git_url)}")
    return "\n\n".join(["\n".join([f"{fence}{{py:{entry.kind}}} {head}", *options]), *filter(None, body), fence])


def module_page(module, git_url):
    "A module's page as MyST Markdown."
    notebook = f"[{Path(module.notebook).stem}](/{module.notebook.removeprefix('nbs/')})"
    head = [f"# {module.name}", f"{plain(module.text)}.",
            f"`import {module.name}` · exported from the notebook {notebook} · [{module.path}]({git_url}/blob/main/{module.path})", f"```{{py:module}} {module.name}\n```"]
    return "\n\n".join(head + [entry_text(module, entry, git_url) for entry in module.entries]) + "\n"


def index_page(modules):
    "All modules and all names."
    rows = "\n".join(f"| [{module.name}](/{page_of(module)}.md) | {in_cell(module.text)} |" for module in modules)
    lists = "\n\n".join(f"**{module.name}**: " + ", ".join(f"{{py:obj}}`~{module.name}.{name}`" for name in sorted(module.names, key=str.lower)) for module in modules)
    tree = "```{toctree}\n:hidden:\n\n" + "\n".join(page_of(module).removeprefix("api/") for module in modules) + "\n```"
    about = ("Every public name of the package, from the exported modules: signature, what it does, its arguments with their shapes and units, and the errors it raises. "
             "Each entry leads to the cell of the notebook that it was exported from, where it is explained and tested. {ref}`All names from A to Z <genindex>`.")
    return f"# Reference\n\n{about}\n\n| module | what it is about |\n|---|---|\n{rows}\n\n## Names by module\n\n{lists}\n\n{tree}\n"


def write_pages(modules, folder, git_url):
    "The reference into a folder of pages."
    (folder / "api").mkdir(parents=True, exist_ok=True)
    for module in modules: (folder / f"{page_of(module)}.md").write_text(module_page(module, git_url), encoding="utf-8")
    (folder / "api" / "index.md").write_text(index_page(modules), encoding="utf-8")
