"""What `pip install` brings: the wheel is the kit, outside any checkout. `--slow` installs it with all it needs into an empty environment."""
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SAYS = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}


def tracked():
    "The files of the repository, those to be committed among them; in an unpacked archive, all there are."
    said = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], capture_output=True, text=True)
    if said.returncode == 0: return [path for name in said.stdout.split("\0") if name and (path := ROOT / name).is_file()]
    return [path for path in ROOT.rglob("*") if path.is_file() and ".venv" not in path.parts]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    "Folder with the sdist and the wheel that was made from it, and what was said meanwhile."
    folder = tmp_path_factory.mktemp("built")
    for path in tracked():
        target = folder / "tree" / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    done = subprocess.run([sys.executable, "-m", "build", "--no-isolation", "-o", folder / "dist", folder / "tree"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder / "dist", done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(built): return next(built[0].glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    "`run(*words)`: a command of an empty folder's Python that has the wheel's library and no checkout."
    place = tmp_path_factory.mktemp("site")
    done = subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", place, wheel], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    empty = tmp_path_factory.mktemp("empty")
    def run(*words):
        return subprocess.run([sys.executable, *map(str, words)], cwd=empty, capture_output=True, text=True,
                              env={**SAYS, "PYTHONPATH": str(place), "PIXCL_NB_CACHE": str(empty / "cache")})
    assert run("-c", "import pixcl_nb; print(pixcl_nb.__file__)").stdout.startswith(str(place))
    return run, empty


def said(done):
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def test_the_wheel_holds_the_kit_and_no_solution(wheel, built):
    names = zipfile.ZipFile(wheel).namelist()
    inside = lambda folder: {Path(name).name for name in names if Path(name).parent.as_posix() == f"pixcl_nb/{folder}"}
    for folder, ours in (("static", ROOT / "pixcl_nb/static"), ("data_samples/checkpoints", ROOT / "data_samples/checkpoints"),
                         ("data_samples/checkpoints/natural", ROOT / "data_samples/checkpoints/natural"),
                         ("data_samples/images", ROOT / "data_samples/images"), ("lessons/walkthroughs", ROOT / "nbs/walkthroughs"), ("lessons/guide", ROOT / "nbs/guide")):
        wanted = {path.name for path in ours.iterdir() if path.is_file()}
        assert wanted and wanted <= inside(folder), (folder, wanted - inside(folder))
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "pixcl_nb").rglob("*.py")}
    assert modules <= set(names), modules - set(names)
    assert not [name for name in names if "assignment" in name or "/course/1" in name or name.startswith(("tests/", "nbs/"))]
    assert wheel.stat().st_size < 40_000_000
    assert "absent from the `packages`" not in built[1] and "is importable" not in built[1]       # setuptools' words for a folder that it may drop one day


def test_the_sdist_makes_the_same_wheel(built):
    "python -m build makes the wheel out of the sdist; what the tree itself would give is the same."
    other = built[0].parent / "other"
    done = subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--wheel", "-o", other, built[0].parent / "tree"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    content = lambda path: {one.filename: one.CRC for one in zipfile.ZipFile(path).infolist() if not one.filename.endswith("/RECORD")}
    assert content(next(other.glob("*.whl"))) == content(next(built[0].glob("*.whl")))


def test_version_and_console_script_are_the_settings(wheel):
    from pixcl_nb import __version__
    archive = zipfile.ZipFile(wheel)
    read = lambda what: archive.read(next(name for name in archive.namelist() if name.endswith(f".dist-info/{what}"))).decode()
    assert f"\nVersion: {__version__}\n" in read("METADATA") and "Programming Language :: Python :: 3.13" in read("METADATA")
    assert "pixcl = pixcl_nb.__main__:from_shell" in read("entry_points.txt")
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {__version__}\n" in citation and "\ndate-released: " in citation
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_encoders_and_samples_are_there_at_once(installed):
    run, empty = installed
    out = said(run("-c", """
import torch
from pixcl_nb import load_data, sample_encoder
data = load_data("samples")
print(len(data), sample_encoder("densecl", world="natural").channels, torch.isfinite(sample_encoder("cp2")(data[0][0][None] / 255.)).all().item())"""))
    assert out.split() == ["240", "128", "True"]
    assert not list((empty / "cache").rglob("*.png"))                                            # nothing was rendered


def test_a_widget_is_exported(installed):
    run, empty = installed
    said(run("-c", """
import torch
from pixcl_nb import CorrespondenceExplorer, load_data, sample_encoder
data = load_data("samples")
CorrespondenceExplorer(data[0][0], data[1][0], sample_encoder("densecl")).export_html("page.html")"""))
    assert (empty / "page.html").stat().st_size > 50_000


@pytest.mark.long
def test_a_lesson_runs_where_it_was_copied(installed):
    run, empty = installed
    out = said(run("-m", "pixcl_nb", "lessons", "kit"))
    assert "files written" in out and (empty / "kit/index.ipynb").is_file()
    assert "kept as they were" in said(run("-m", "pixcl_nb", "lessons", "kit"))
    said(run(ROOT / "tests/tools/run_notebook.py", "kit/walkthroughs/claims.ipynb"))
    assert said(run("-m", "pixcl_nb")).startswith("usage: pixcl ")


SHORT = "--data samples --steps 4 --batch-size 4 --crop 32 --labels 4 --methods moco --protocols probe --threads 1".split()


@pytest.mark.long
def test_the_demo_runs(installed):
    run, empty = installed
    said(run("-m", "pixcl_nb", "demo", "--out", "shown", *SHORT))
    assert (empty / "shown/report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_an_empty_environment(built, kind, tmp_path):
    "With all that it needs, from the index: the shortest demo, a lesson, and no tool of a developer's."
    python, empty = tmp_path / "env/bin/python", tmp_path / "empty"
    empty.mkdir()
    run = lambda *words: said(subprocess.run([str(word) for word in words], cwd=empty, capture_output=True, text=True, env={**SAYS, "PYTHONPATH": "", "PIXCL_NB_CACHE": str(empty / "cache")}))
    run(sys.executable, "-m", "venv", tmp_path / "env")
    run(python, "-m", "pip", "install", "-q", "torch", "torchvision")
    run(python, "-m", "pip", "install", "-q", f"{next(built[0].glob(kind))}[lab]", "nbclient")
    run(python.with_name("pixcl"), "lessons", "kit")
    run(python, ROOT / "tests/tools/run_notebook.py", "kit/walkthroughs/claims.ipynb")
    run(python.with_name("pixcl"), "demo", "--out", "shown", *SHORT)
    assert (empty / "shown/report.html").is_file()
    run(python, "-c", "import importlib.util as u; assert not [n for n in ('nbdev', 'fastcore', 'pytest') if u.find_spec(n)]")
