"""The tool that shows that a change of layout changed no bit: it must see a changed bit, a lost name and a failure."""
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parent / "tools" / "same_bits.py"
specification = importlib.util.spec_from_file_location("same_bits", SCRIPT)
same_bits = importlib.util.module_from_spec(specification)
specification.loader.exec_module(same_bits)


def record_of(**values):
    record = same_bits.Record(None)
    for name, value in values.items(): record.measure(name, lambda: value)
    return {"machine": {"threads": 1}, "items": record.items}


def files(folder, *reports):
    paths = [folder / f"{index}.json" for index in range(len(reports))]
    for path, report in zip(paths, reports): path.write_text(json.dumps(report))
    return list(map(str, paths))


def compare(folder, before, after):
    command = [sys.executable, SCRIPT, "--compare", *files(folder, before, after)]
    return subprocess.run(command, capture_output=True, text=True)


def test_equal_is_equal(tmp_path):
    done = compare(tmp_path, record_of(a=torch.ones(3), b=2.), record_of(b=2., a=torch.ones(3)))
    assert done.returncode == 0 and done.stdout.startswith("0 of 2"), done.stdout


@pytest.mark.parametrize("value", [torch.tensor([1., 1., 1.0000001]), torch.ones(3, dtype=torch.float64), torch.ones(3, 1)])
def test_the_last_bit_the_type_and_the_shape_are_seen(value, tmp_path):
    done = compare(tmp_path, record_of(a=torch.ones(3)), record_of(a=value))
    assert done.returncode == 1 and "differs      a" in done.stdout, done.stdout


def test_lost_and_failed_items_are_differences_even_if_they_were_before():
    def lost(): raise same_bits.Missing("gone")
    def failed(): raise ValueError("broken")
    record = same_bits.Record(None)
    record.measure("lost", lost), record.measure("failed", failed), record.measure("new", lambda: 1)
    after = {"items": record.items}
    before = record_of(lost=1, failed=2, dropped=3)
    assert [line.split(":")[0] for line in same_bits.compare(before, after)] == [
        "only before  dropped", "not measured failed", "not measured lost", "only after   new"]
    assert len(same_bits.compare(after, after)) == 2
    assert "gone" in record.items["lost"]["missing"] and "broken" in record.items["failed"]["error"]


def test_names_are_found_wherever_they_live_and_a_lost_one_is_said(monkeypatch):
    package = same_bits.Package()
    assert not package.problems
    assert package.find("info_nce")(torch.eye(2), torch.eye(2), torch.eye(2)).ndim == 0
    with pytest.raises(same_bits.Missing, match="no_such_loss is in no module"): package.find("no_such_loss")
    monkeypatch.setitem(same_bits.RENAMED, "old_name_of_info_nce", ["info_nce"])
    assert package.find("old_name_of_info_nce") is package.find("info_nce")


def test_every_loss_and_result_is_measured(tmp_path):
    out = tmp_path / "bits.json"
    done = subprocess.run([sys.executable, SCRIPT, out, "--only", "losses", "collapse", "results"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    items = json.loads(out.read_text())["items"]
    for form in same_bits.FORMS: assert f"losses/pixel_contrast/float32/{form}/chunk 7/gradient" in items
    assert {name.split("/")[1] for name in items} >= {"info_nce", "densecl_loss", "cp2_dense_loss", "matching_loss"}
    assert any(name.startswith("results/") for name in items)
