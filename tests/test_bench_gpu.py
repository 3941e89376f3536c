"""bench_gpu on a machine without a GPU: every part runs at tiny sizes and leaves its JSON; what hangs is cut, what crashes is a line, and no figure of a CPU is held against a goal."""
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from conftest import cpu_seconds, pace

BENCH = Path(__file__).parent / "bench"
sys.path.insert(0, str(BENCH))
import bench_gpu
import bench_losses

# what a machine with torch, torchvision and timm need not have
ABSENT = """
NAMES = {"lazy_loader", "joblib", "sklearn", "skimage", "scipy", "pandas", "seaborn", "matplotlib", "umap", "ipywidgets", "anywidget", "fastcore", "nbdev", "IPython", "tensorboard"}
from importlib.machinery import PathFinder
found = PathFinder.find_spec
PathFinder.find_spec = classmethod(lambda cls, name, path=None, target=None: None if name.partition(".")[0] in NAMES else found(name, path, target))
"""


def numbers(value):
    "Every number and word of a JSON."
    if isinstance(value, dict): value = value.values()
    if isinstance(value, (str, int, float)) or value is None: return [value]
    return [one for part in value for one in numbers(part)]


@pytest.mark.long
@pytest.mark.skipif(torch.cuda.is_available(), reason="there it would measure")
def test_every_part_runs_on_a_cpu_with_nothing_but_torch_torchvision_and_timm(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(ABSENT)
    before = cpu_seconds()
    run = subprocess.run([sys.executable, str(BENCH / "bench_gpu.py"), "--out", str(tmp_path / "out")], capture_output=True, text=True, timeout=900, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    spent = cpu_seconds() - before
    assert run.returncode == 0, run.stderr[-3000:]
    assert spent < 60 * pace(), spent
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["device"] == ["cpu"] and summary["not_run"] == [] and {one["verdict"] for one in summary["goals"]} == {"not run"}
    for name in bench_gpu.PARTS:
        found = json.loads((tmp_path / "out" / f"{name}.json").read_text())
        log = (tmp_path / "out" / f"{name}.log").read_text()[-2000:]
        assert (found["state"], found["device"], found["tiny"]) == ("done", "cpu", True), log
        assert found["found"] and not summary["parts"][name]["errors"], log
        assert all(math.isfinite(one) for one in numbers(found) if isinstance(one, float)) and not {"nan", "inf", "-inf"} & set(numbers(found))
    assert "not run  DenseCL at most 1.01 × MoCo v2" in run.stdout and not list((tmp_path / "out").glob("*.tmp"))
    off = json.loads((tmp_path / "out" / "values.json").read_text())["found"]                       # what a CPU can say: both paths are right
    assert len(off) == 5 and all(one["value_off"] < 1e-5 and one["gradient_off"] < 1e-4 for one in off.values())
    exact = json.loads((tmp_path / "out" / "exact.json").read_text())["found"]["densecl"]
    assert exact["killed_with"] == -9 and exact["resumed_same_bits"] and exact["resumed_from"] == 2


SCRIPT = """
import os, time, bench_gpu
def good(bench, notes): notes["one"] = {"value": 1.}
def forked(bench, notes):
    if bench.context == "forkserver": raise RuntimeError("Cannot re-initialize CUDA in forked subprocess.")
    notes["two"] = {"context": bench.context}
def hang(bench, notes):
    notes["before"] = {"value": 2.}
    time.sleep(600)
def crash(bench, notes):
    notes["before"] = {"value": 3.}
    raise RuntimeError("CUDA out of memory\\nand a page about it")
def die(bench, notes): os.abort()
def half(bench, notes):
    notes.attempt("bad", lambda: 1 / 0)
    notes.attempt("good", lambda: {"value": 4.})
bench_gpu.PRELOAD = ["torch"]
if __name__ == "__main__": bench_gpu.main(parts={"first": (good, 60), "hang": (hang, 5), "crash": (crash, 60), "die": (die, 60), "half": (half, 60), "good": (good, 60), "forked": (forked, 60)})
"""

@pytest.mark.long
@pytest.mark.skipif(torch.cuda.is_available(), reason="tested without")
def test_what_hangs_is_cut_and_what_crashes_is_a_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "parts.py").write_text(SCRIPT)
    run = subprocess.run([sys.executable, str(tmp_path / "parts.py"), "--out", str(tmp_path / "out")], capture_output=True, text=True, timeout=300, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(BENCH)})
    assert run.returncode == 0, run.stderr[-3000:]
    parts = json.loads((tmp_path / "out" / "summary.json").read_text())["parts"]
    assert {name: one["state"] for name, one in parts.items()} == {"first": "done", "hang": "cut at its limit of 5 s", "crash": "failed: RuntimeError: CUDA out of memory", "die": "died: exit code -6", "half": "done", "forked": "done", "good": "done"}
    assert parts["half"]["errors"] == ["bad: ZeroDivisionError: division by zero"]
    kept = {name: json.loads((tmp_path / "out" / f"{name}.json").read_text())["found"] for name in parts}
    assert kept["hang"]["before"]["value"] == 2. and kept["crash"]["before"]["value"] == 3. and kept["half"]["good"]["value"] == 4. and kept["die"] == {}
    assert sum("CUDA out of memory" in line for line in run.stdout.splitlines()) == 2                # as it happens, and in the table
    assert kept["forked"]["two"] == {"context": "spawn"}                                             # where a fork cannot begin CUDA
    monkeypatch.setattr(os, "environ", dict(os.environ))
    bench_gpu.main(["--out", str(tmp_path / "out"), "--part", "good", "--minutes", "0"], {"good": (None, 60)})
    assert "no time left" in capsys.readouterr().out and json.loads((tmp_path / "out" / "good.json").read_text())["found"]["one"] == {"value": 1.}


def part(found, tiny=False, state="done"): return {"device": "some card", "tiny": tiny, "state": state, "found": found}
def row(n, seconds, share): return {"pixels": n, "form": "supcon", "path": "triton", "precision": "tf32", "seconds": seconds, "of_matrix_rate": share}
verdicts = lambda found: [one["verdict"] for one in bench_gpu.judged(found)]

def test_goals_are_judged_by_what_was_measured():
    bits = {name: {"resumed_same_bits": True} for name in ("moco", "densecl")}
    off = {"a": {"value_off": 1e-6, "gradient_off": 2e-5, "precision": "float32", "path": "torch", "pixels": 16}, "b": {"value_off": 1., "gradient_off": 1., "precision": "tf32", "path": "torch", "pixels": 16}}
    found = {"triton": part({"a": row(262_144, .1, .41), "b": row(1_000_000, 3.9, .5)}), "torch": part({"a": row(262_144, .2, .2), "b": {"error": "out of memory"}}), "ratio": part({"a": {"overhead": .009}}),
             "methods": part({"moco": {"shares": {"views": .04}}, "cp2": {"shares": {"views": .05}}}), "values": part(off), "exact": part(bits)}
    assert verdicts(found) == ["met"] * 6
    slower = {**found, "triton": part({"a": row(262_144, .1, .39), "b": row(1_000_000, 4., .5)}), "ratio": part({"a": {"overhead": .011}}), "methods": part({"moco": {"shares": {"views": .04}}, "cp2": {"shares": {"views": .06}}}),
              "values": part({"a": {**off["a"], "gradient_off": 2e-4}}), "exact": part({**bits, "cp2": {"resumed_same_bits": False}})}
    assert verdicts(slower) == ["missed"] * 6
    assert bench_gpu.judged(slower)[3]["of"] == "cp2" and "cp2" in bench_gpu.judged(slower)[5]["of"]
    assert verdicts({name: {**one, "tiny": True} for name, one in found.items()}) == ["not run"] * 6 == verdicts({})
    unfinished = {**found, "methods": part(found["methods"]["found"], state="cut at its limit of 9 s"), "exact": part({**bits, "cp2": {"error": "no deterministic kernel"}})}
    assert verdicts(unfinished)[3] == verdicts(unfinished)[5] == "not run"                             # a method that was not measured is not one that passed


def test_the_float64_reference_is_the_dense_loss():
    torch.manual_seed(0)
    rows, y = normalize(torch.randn(60, 8, dtype=torch.float64), dim=1).requires_grad_(), torch.arange(60) % 4
    loss = bench_losses.dense_supcon(rows, y)
    loss.backward()
    chosen = torch.tensor([0, 7, 59])
    value, gradient = bench_gpu.reference(rows, y, chosen, bench_losses.TAU, 7)
    torch.testing.assert_close(value, loss.detach())
    torch.testing.assert_close(gradient, rows.grad[chosen])


def test_notes_are_whole_and_readable_by_anyone(tmp_path):
    notes = bench_gpu.Notes(tmp_path / "a.json", part="a")
    notes["x"] = {"value": math.nan, "list": [1., -math.inf]}
    assert json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail) == {"part": "a", "state": "running", "found": {"x": {"value": "nan", "list": [1., "-inf"]}}}


def test_lazy_loader_has_a_stand_in():
    get, names, public = bench_gpu.attach("pixcl_nb.images", {"views": ["ViewConfig"]})
    assert get("ViewConfig")().size == 224 and names() == public == ["ViewConfig"]
    with pytest.raises(AttributeError, match="no name 'Views'"): get("Views")


def test_the_driver_is_asked_how_busy_the_card_is(tmp_path, monkeypatch):
    import time
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 87\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with bench_gpu.Watch() as watch:
        while not watch.seen: time.sleep(.1)
    assert watch.seen[0] == .87
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with bench_gpu.Watch() as watch: watch.thread.join()                                             # it ends by itself where nobody answers
    assert watch.seen == []


@pytest.mark.parametrize("name, views", [("moco", "random_view"), ("cp2", "copy_paste"), ("label_contrast", "two_colours")])
def test_shares_of_a_step_are_of_the_step(name, views):
    from types import SimpleNamespace
    one = bench_gpu.Trainee(name, SimpleNamespace(tiny=True, device=torch.device("cpu")))
    module = sys.modules[type(one.method).__module__]
    before = getattr(module, views), getattr(module, "info_nce", None)
    shares = one.shares(2)
    assert 0 < shares["views"] < 1 and 0 < shares["loss"] < 1 and shares["views"] + shares["loss"] < 1
    assert before == (getattr(module, views), getattr(module, "info_nce", None)) and "clock" not in str(one.method.__dict__.get("terms", "")).lower()
