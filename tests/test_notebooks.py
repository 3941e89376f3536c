"""The notebooks are the source: the package is their export, and each of them runs."""
import atexit
import filecmp
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import cpu_seconds, pace

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
LONG = set("""start_here explore densecl cp2 label_contrast auxiliary_contrast comparison shortcut from_imagenet own_data own_method
              18_worlds 21_encoders 23_momentum 31_matching 34_auxiliary_labels 52_moco 65_distributed 82_correspondence 83_embedding 86_monitor
              95_demo 96_claims 97_cli 103_sandbox 106_capstone""".split())       # about 10 CPU seconds and more, as with the tests: they train, or start processes, before one's eyes. Run with --long, as CI does
LIMIT = 120                                   # CPU seconds of a notebook, times what `pace` says; 30 is the aim, and the table at the end shows who misses it
PATIENCE = 1200                               # seconds by the clock, for a notebook that hangs
FORK_SERVER = multiprocessing.get_context("forkserver")      # each notebook has a process of its own, and these libraries are read once for all of them; ours are not among them
FORK_SERVER.set_forkserver_preload(["torch", "torch._dynamo", "torchvision", "timm", "sklearn.cluster", "matplotlib.pyplot", "seaborn", "ipywidgets", "anywidget", "nbdev.test"])


def nbdev(command, *arguments, cwd=ROOT):
    "Run one of nbdev's commands from this environment."
    script = Path(sys.executable).with_name(command)
    return subprocess.run([script, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, env={**os.environ, "MPLBACKEND": "agg"})


def python_files(folder): return {p.relative_to(folder) for p in folder.rglob("*.py")}


def test_package_is_the_export_of_the_notebooks(tmp_path):
    for name in ("settings.ini", "pyproject.toml", "setup.py", "README.md"): shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "nbs", tmp_path / "nbs", ignore=shutil.ignore_patterns("results", ".ipynb_checkpoints"))
    done = nbdev("nbdev_export", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    written = subprocess.run([sys.executable, "-c", f"from pathlib import Path; from pixcl_nb.public import write_packages; write_packages(Path({str(tmp_path / 'pixcl_nb')!r}))"],
                             cwd=ROOT, capture_output=True, text=True)
    assert written.returncode == 0, written.stderr
    fresh, committed = tmp_path / "pixcl_nb", ROOT / "pixcl_nb"
    assert python_files(fresh) == python_files(committed)
    differing = [str(name) for name in python_files(fresh) if not filecmp.cmp(fresh / name, committed / name, shallow=False)]
    assert not differing, f"out of step with the notebooks: {differing}; run make export (or nbdev_update if the module was edited)"


def pace_if_needed(used): return pace() if used > LIMIT else 1.      # measuring it costs as much as a small notebook


def run_notebook(path, flags, log):
    "nbdev_test in this process, which is a notebook's own: what it prints goes to a file, its status is the exit status."
    from nbdev.test import nbdev_test
    multiprocessing.set_start_method(None, force=True)       # its own data workers start as they would anywhere
    for stream in (1, 2): os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.chdir(ROOT)
    start = sum(os.times()[:4])
    try: nbdev_test(path=str(path), flags=flags, n_workers=0)
    finally:
        used = sum(os.times()[:4]) - start    # of this process and of those it has waited for
        Path(f"{log}.cpu").write_text(f"{used} {pace_if_needed(used)}")
        atexit._run_exitfuncs()               # temporary folders go, as at the end of any Python
        for stream in (sys.stdout, sys.stderr): stream.flush()


def run_forked(path, flags, log):
    "What nbdev_test says in a fork of the process that has read the libraries."
    process = FORK_SERVER.Process(target=run_notebook, args=(path, flags, log))
    process.start()
    process.join(None if flags else PATIENCE)
    if process.is_alive(): process.kill()
    said = log.read_text() if log.exists() else ""
    return said if process.exitcode == 0 else f"{path.name} ended with {process.exitcode} (None: killed after {PATIENCE} s):\n{said.replace('Success.', '')}"


def run_alone(path, flags):
    "What nbdev_test says in a fresh process."
    done = nbdev("nbdev_test", "--path", path, "--n_workers", "0", *(["--flags", flags] if flags else []))
    return done.stdout + done.stderr if done.returncode == 0 else (done.stdout + done.stderr).replace("Success.", "")


@pytest.mark.parametrize("path", [pytest.param(p, marks=pytest.mark.long if p.stem in LONG else ()) for p in NOTEBOOKS], ids=lambda p: p.stem)
def test_notebook_runs(path, request, tmp_path):
    flags = "slow" if request.config.getoption("--slow") else ""
    alone = "TRITON_INTERPRET" in path.read_text()               # asked when triton is read, which torchvision does: this notebook needs a process of its own
    before = cpu_seconds()
    said = run_alone(path, flags) if alone else run_forked(path, flags, tmp_path / "log")
    assert "Success." in said, said[-4000:]
    if flags: return
    if alone: used = cpu_seconds() - before
    used, slower = (used, pace_if_needed(used)) if alone else map(float, (tmp_path / "log.cpu").read_text().split())
    assert used < LIMIT * slower, f"{path.name} took {used:.0f} CPU seconds, {used / slower:.0f} at the usual pace; {LIMIT} are allowed. Make it shorter, or flag its long cells `#| slow`"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_committed_executed_and_small(path):
    notebook = json.loads(path.read_text())
    assert path.stat().st_size <= 1_500_000
    assert "widgets" not in notebook["metadata"], "widget state is committed; run tests/tools/run_notebook.py"
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) < 3 or any(cell["outputs"] or cell["execution_count"] for cell in code), "committed, but never executed"
    errors = [out["ename"] for cell in code for out in cell["outputs"] if out["output_type"] == "error"]
    assert not errors


def test_no_runtime_need_of_nbdev():
    "The exported library needs neither nbdev nor fastcore."
    for module in (ROOT / "pixcl_nb").rglob("*.py"):
        if module.name != "_modidx.py": assert not re.search(r"^\s*(from|import) (fastcore|nbdev)", module.read_text(), re.M), module
