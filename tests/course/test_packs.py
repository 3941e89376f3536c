"""What students are given, what the instructor keeps, and that marks in there survive."""
import copy
import json
import re
import shutil
import struct
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from papers import MASTERS, ONE, ROOT
from pixcl_nb.course import capstone, sandbox
from pixcl_nb.course.gradebook import add_commands, similar_pairs
from pixcl_nb.course.packs import build_packs, check_master, course_seed, kind_of, marked_cells, replace_regions, student_copy
from pixcl_nb.course.sandbox import Limits, bubblewrap, plain, receive, rich, send


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    return folder, build_packs(ROOT/"nbs"/"assignments", folder)


def test_the_students_zip(packs):
    "It runs by itself, and nothing of the instructor's is in it."
    folder, written = packs
    archive = zipfile.ZipFile(folder/"student.zip")
    names = archive.namelist()
    assert {f"student/{name}.ipynb" for name in MASTERS} <= set(names) and {"student/requirements.lock", "student/README.md", "student/pixcl_nb/__init__.py"} <= set(names)
    assert not [name for name in names if re.search(r"assignments|mutants|\.git|tests/|GUIDE|EXAM|__pycache__|solution|nbs/", name)]
    text = "\n".join(archive.read(name).decode() for name in names if name.endswith((".ipynb", ".md", ".lock")))
    for words in ("BEGIN SOLUTION", "HIDDEN TESTS", "Marked for", "checkout", str(ROOT)): assert words not in text, words
    assert re.search(r"^torch==[\d.]+$", archive.read("student/requirements.lock").decode(), re.M) and "pixcl" not in archive.read("student/requirements.lock").decode()
    archive.extractall(folder/"unzipped")
    setup = marked_cells(MASTERS[ONE])["start"]["source"]
    done = subprocess.run([sys.executable, "-c", setup + "\nfrom pixcl_nb.images.data import load_data\nprint(len(load_data('samples')))"], cwd=folder/"unzipped"/"student", capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 0 and int(done.stdout) > 0, done.stderr


def test_the_instructors_folder(packs):
    folder, written = packs
    assert {kind: len(paths) for kind, paths in written.items()} == dict.fromkeys(("student", "solution", "source"), len(MASTERS))
    for name in ("GUIDE.md", "nbgrader_config.py", "Containerfile", "term.json"): assert (folder/"instructor"/name).exists(), name
    for path in written["student"]:
        for cell in json.loads(path.read_text())["cells"]:
            assert not cell.get("outputs"), "a student copy shows results"
            if kind_of(cell) in ("setup", "tests"): assert cell["metadata"]["deletable"] is False


def test_packs_made_again_keep_marks_and_seed(packs):
    folder, _ = packs
    kept = folder/"instructor"/"gradebook.db"
    kept.write_text("marks")
    seed = course_seed(folder/"instructor")
    build_packs(ROOT/"nbs"/"assignments", folder)
    assert kept.read_text() == "marks" and course_seed(folder/"instructor") == seed


def test_every_term_has_another_seed(tmp_path): assert course_seed(tmp_path/"a") != course_seed(tmp_path/"b")


def test_rules_are_enforced():
    for broken in ("### BEGIN SOLUTION\n1", "1\n### END SOLUTION", "### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION"):
        with pytest.raises(ValueError, match="missing"): replace_regions(broken, "SOLUTION", [])
    def changed(grade_id, old, new):
        bad = copy.deepcopy(MASTERS[ONE])
        cell = marked_cells(bad)[grade_id]
        cell["source"] = cell["source"].replace(old, new)
        return bad
    bad = copy.deepcopy(MASTERS[ONE])
    marked_cells(bad)["loss-seen"]["metadata"]["nbgrader"]["points"] = 7
    with pytest.raises(ValueError, match="worth 101 points"): check_master(bad, "bad")
    marked_cells(bad)["loss"]["metadata"]["nbgrader"]["grade_id"] = "step"
    with pytest.raises(ValueError, match="'step' occurs twice"): check_master(bad, "bad")
    with pytest.raises(ValueError, match="a blank of 26 lines"): check_master(changed("loss", "    ### END", "    pass\n" * 25 + "    ### END"), "long")
    with pytest.raises(ValueError, match="outside its region"): check_master(changed("written", "### BEGIN SOLUTION", "*Marked for*: all\n### BEGIN SOLUTION"), "key")


# ---------- what crosses the wall

def test_values_cross_and_nothing_else():
    def pair(): return [end.makefile("rwb") for end in socket.socketpair()]
    for value in (torch.randn(3, 2), torch.tensor(True), torch.zeros(0, 3, dtype=torch.long), torch.randn(4).bfloat16(), [1, (2., None), {"a": torch.ones(1), "b": torch.zeros(3)}], "é", float("nan"), {5: "x"}):
        a, b = pair()
        send(a, value)
        assert str(receive(b)) == str(value)
    class Sly:
        def __reduce__(self): return print, ("pickled",)
    for bad in (Sly(), lambda x: x, {1, 2}, [object()]):
        with pytest.raises(TypeError, match="cannot be handed over"): plain(bad, [])
    for forged in ({"dtype": "load"}, {"tensor": ["load", [1], 0, 4]}, {"tensor": ["float32", [9], 0, 4]}, {"tensor": ["float32", [1], 9, 4]}):
        with pytest.raises((KeyError, RuntimeError, ValueError)): rich(forged, bytearray(b"1234"))
    for lengths in ((2**40, 0), (0, 2**40), (2**21, 0)):
        a, b = pair()
        a.write(struct.pack(">QQ", *lengths)), a.flush()
        with pytest.raises(ValueError, match="at most"): receive(b)


def test_without_bubblewrap_marking_is_refused(monkeypatch, tmp_path):
    from pixcl_nb.course.gradebook import mark_folder
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="apt-get install bubblewrap.*--unsafe"): bubblewrap()
    with pytest.raises(RuntimeError, match="--unsafe"): mark_folder(tmp_path, tmp_path/"course")
    with pytest.raises(RuntimeError, match="--unsafe"): sandbox.Sandbox()


# ---------- the capstone's measures

def test_recipes_keep_the_budget():
    assert capstone.check_recipe({})["steps"] == 400
    for bad in (dict(steps=401), dict(steps=10.5), dict(batch_size=33), dict(crop=100), dict(crop=90), dict(method="label_contrast"), dict(method="auxiliary_contrast"), dict(pretrained=True), dict(lr=0.), dict(lr=float("nan")), dict(steps=True), dict(warmup_steps=300, steps=200), "moco", None):
        with pytest.raises(ValueError): capstone.check_recipe(bad)


def test_the_curve_is_open_and_rises():
    values = json.loads((ROOT/"nbs"/"walkthroughs"/"results"/"claims_samples.json").read_text())["rows"][0]["values"]
    assert capstone.curve_points([0.]) == 0 and abs(capstone.curve_points(values["random"])) < 1 and max(map(capstone.curve_points, values.values())) < 30
    points = [capstone.curve_points([miou]) for miou in (.17, .19, .21, .25, .35)]
    assert points == sorted(set(points)) and points[-1] < 40


def test_honest_claims_pay_best():
    generator = torch.Generator().manual_seed(0)
    truths = (.01 + .006 * torch.randn(4000, generator=generator)).tolist()
    earned = {half: sum(capstone.claim_points(.01 - half, .01 + half, truth) for truth in truths) / 4000 for half in (.0005, .002, 1.28 * .006, .02, .04)}
    assert max(earned, key=earned.get) == 1.28 * .006 and capstone.claim_points(.2, .1, .15) == 0 == capstone.claim_points(float("nan"), 1, 0)


@pytest.mark.long
def test_a_small_recipe_is_trained_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXCL_CAPSTONE_RUNS", str(tmp_path))
    recipe = dict(steps=2, warmup_steps=1, batch_size=4, crop=48, queue_size=32)
    first = capstone.score_recipe(recipe, seeds=(0,), split="held-out")
    monkeypatch.setattr(capstone, "measure_recipe", None)
    assert 0 < first[0] < 1 and capstone.score_recipe(recipe, seeds=(0,), split="held-out") == first
    monkeypatch.setenv("PIXCL_COURSE_SEED", "another term")
    with pytest.raises(TypeError): capstone.score_recipe(recipe, seeds=(0,), split="held-out")          # other scenes: measured anew


# ---------- from the shell

def test_commands(tmp_path):
    import argparse
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    arguments = parser.parse_args(["course", "--out", str(tmp_path/"course"), "--masters", str(ROOT/"nbs"/"assignments")])
    arguments.run(arguments)
    assert len(list((tmp_path/"course"/"student").glob("*.ipynb"))) == len(MASTERS)
    with pytest.raises(ValueError, match="FOLDER"):
        arguments = parser.parse_args(["grade"])
        arguments.run(arguments)
    if shutil.which("bwrap"):
        arguments = parser.parse_args(["grade", str(tmp_path/"nowhere"), "--course", str(tmp_path/"course"/"instructor")])
        with pytest.raises(FileNotFoundError, match="not a folder"): arguments.run(arguments)


def test_copied_work_is_found():
    copied = {name: student_copy(MASTERS[ONE]) for name in ("ann", "bob", "eve")}
    for name, source in dict(ann="def info_nce(logits):\n    total = logits.logsumexp(1)\n    return (total - logits[:, 0]).mean()", bob="def info_nce(s):   # mine\n    z = s.logsumexp(1)\n    return (z - s[:, 0]).mean()",
                             eve="def info_nce(logits):\n    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))").items(): marked_cells(copied[name])["loss"]["source"] = source
    pairs = similar_pairs(copied)
    assert pairs[0][0] == 1 and set(pairs[0][1:]) == {"ann", "bob"} and pairs[1][0] < 1
