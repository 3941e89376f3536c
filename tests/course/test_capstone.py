"""The capstone for real: recipes are trained, one is chosen by val, and `pixcl grade` confirms a claim, or not, on scenes that nobody has seen. Nothing is replaced here."""
import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from papers import ROOT, SIX, bare, model, paper, write
from pixcl_nb.course import capstone

SHORT = dict(steps=60, warmup_steps=10, batch_size=16, crop=64, queue_size=512)
METHODS = ("moco", "densecl", "densecl-mutual", "densecl-geometric")


def notebook(table, recipe, ablation, claim):
    "A hand-in: the two tools of the model solution, and a student's own recipe, table and claim."
    answers = dict(recipe=f"def recipe(): return {recipe!r}", tried=f"def tried(): return {table!r}",
                   claim=f"def ablation(): return {ablation!r}\ndef claim(): return {claim!r}")
    return bare(paper(SIX, {**model(SIX, "miou", "interval"), **answers}))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_a_claim_is_confirmed_on_hidden_scenes(tmp_path, monkeypatch):
    "ann trains, chooses by val and claims what she saw, with room on both sides; bob hands in her recipe with better numbers and a bold claim; cas chose a recipe that val does not favour."
    monkeypatch.setenv("PIXCL_CAPSTONE_RUNS", str(tmp_path/"at home"))
    table = [(dict(SHORT, method=name), capstone.score_recipe(dict(SHORT, method=name), seeds=(0, 1))) for name in METHODS]
    ranked = sorted(table, key=lambda row: -sum(row[1]))
    (best, mine), (worst, theirs) = ranked[0], ranked[-1]
    gain = sum(mine) / 2 - sum(theirs) / 2
    better = [(recipe, [score + .03 for score in scores]) for recipe, scores in table]
    claims = {"ann": (gain - .018, gain + .018), "bob": (.1, .12), "cas": (-gain - .018, -gain + .018)}
    write(tmp_path/"in", {f"ann/{SIX}.ipynb": notebook(table, best, worst, claims["ann"]), f"bob/{SIX}.ipynb": notebook(better, best, worst, claims["bob"]),
                          f"cas/{SIX}.ipynb": notebook(table, worst, best, claims["cas"])})
    done = subprocess.run([sys.executable, "-m", "pixcl_nb.cli", "grade", str(tmp_path/"in"), "--course", str(tmp_path/"course"), "--seed", "5"], cwd=tmp_path, text=True, capture_output=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT), "PIXCL_CAPSTONE_RUNS": ""})
    assert done.returncode == 0, done.stderr[-2000:]
    rows = list(csv.DictReader((tmp_path/"course"/"questions.csv").open()))
    points = {(row["student"], row["test"]): float(row["points"]) for row in rows}
    measured = [json.loads(path.read_text()) for path in (tmp_path/"course"/"capstone").glob("score-*.json")]
    hidden = {name: [one["miou"] for one in measured if one["split"] == "held-out" and one["recipe"]["method"] == name] for name in METHODS}
    ours, others = hidden[best["method"]], hidden[worst["method"]]
    truth = sum(ours) / 3 - sum(others) / 3
    print(f"val: {best['method']} {mine}, {worst['method']} {theirs}, gain {gain:+.4f}; hidden scenes: {ours} and {others}, gain {truth:+.4f}")
    for student in claims: print(student, claims[student], {row["test"]: row["points"] for row in rows if row["student"] == student})
    assert (len(ours), len(others)) == (3, 3) and not set(ours + others) & set(mine + theirs)              # three seeds each, on other scenes than val
    assert len(list((tmp_path/"course"/"capstone").glob("scenes-*-60/images/*"))) == 60
    for student, sign in (("ann", 1), ("bob", 1), ("cas", -1)):
        assert points[student, "claim-seen"] == points[student, "recipe-seen"] == 5
        assert points[student, "claim-hidden"] == capstone.claim_points(*claims[student], sign * truth)
        assert points[student, "curve-hidden"] == capstone.curve_points(others if student == "cas" else ours)
    assert points["ann", "tried-hidden"] == 15 and points["ann", "claim-hidden"] > 0 and points["bob", "claim-hidden"] == 0
    assert points["bob", "tried-hidden"] == points["cas", "tried-hidden"] == 0
    why = {row["student"]: row["why"] for row in rows if row["test"] == "tried-hidden"}
    assert "measured again" in why["bob"] and "not the table's best by val" in why["cas"]
