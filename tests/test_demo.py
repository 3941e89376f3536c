"""The demo: every job once, the same bits after a kill, a report that needs no network."""
import functools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from toy import few_to_measure

from pixcl_nb.cli import main
from pixcl_nb.experiments import bench, demo, regimes
from pixcl_nb.images.data import load_data
from pixcl_nb.images.worlds import world_folder
from pixcl_nb.experiments.bench import demo_data, DemoConfig, stored_result, untrained_method
from pixcl_nb.experiments.demo import run_demo, separation
from pixcl_nb.training.checkpoints import last_checkpoint, read_checkpoint

TINY = dict(data="samples", steps=12, batch_size=4, crop=64, finetune_steps=2, labels=4)
SHORT = dict(pixels=2000, iterations=10)            # of the probe: asked is whether it is made, not what it scores
quiet = dict(say=lambda text: None, progress=False)


@pytest.fixture(scope="module", autouse=True)
def short_probe():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "linear_probe", functools.partial(bench.linear_probe, **SHORT))
        patch.setattr(demo, "demo_data", few_to_measure(demo.demo_data))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return folder, run_demo(DemoConfig(**TINY), folder, **quiet)


def test_report_is_one_file_without_links(finished):
    page = (finished[0] / "report.html").read_text()
    assert page.count("<img") == 7 and "http" not in page.replace("http-equiv", "")
    for text in ("CP2 with its pretrained decoder", "MoCo v2", "random initialisation", "AUROC", "melon"): assert text in page


def test_results_hold_every_start_under_every_protocol(finished):
    results = json.loads((finished[0] / "results.json").read_text())
    assert set(results["score"]) == {"random/probe", "moco/probe", "cp2/probe", "random/finetune", "moco/finetune", "cp2/finetune", "cp2+decoder/finetune"}
    assert all(0 <= value <= 1 for values in results["score"].values() for value in values)
    assert set(results["differences"]) == set(results["score"]) - {"random/probe", "random/finetune"}


def test_second_call_does_nothing_again(finished):
    before = {p: p.stat().st_mtime_ns for p in (finished[0] / "results").iterdir()}
    assert run_demo(DemoConfig(**TINY), finished[0], **quiet)["runs"] == finished[1]["runs"]
    assert before == {p: p.stat().st_mtime_ns for p in (finished[0] / "results").iterdir()}


@pytest.mark.long
def test_sigkill_while_training_ends_in_the_same_bits(finished, tmp_path):
    "Kill the shell command in the middle of pretraining; start it again; compare every parameter of both methods."
    words = ["demo", "--out", str(tmp_path), "--threads", str(torch.get_num_threads())]
    for name, value in TINY.items(): words += ["--" + name.replace("_", "-"), str(value)]
    short = f"import functools, sys, time, dataclasses\nfrom pixcl_nb.cli import main\nimport pixcl_nb.experiments.bench as bench\nbench.linear_probe = functools.partial(bench.linear_probe, **{SHORT})\n" \
            f"import pixcl_nb.experiments.demo as demo\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom toy import few_to_measure\ndemo.demo_data = few_to_measure(demo.demo_data)\n"
    often = "plain = bench.pretrain\n" \
            "def often(method, data, config, **k): return plain(method, data, dataclasses.replace(config, checkpoint_every=3), on_step=lambda *a: time.sleep(.1), **k)\n" \
            "bench.pretrain = often\n"
    call = "sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, "-c", short + often + call, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("cp2-seed0/step-*.pt")) and process.poll() is None: time.sleep(.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    done = subprocess.run([sys.executable, "-c", short + call, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("moco-seed0", "cp2-seed0"):
        a, b = (last_checkpoint(folder / name)[1]["method"] for folder in (finished[0], tmp_path))
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a), name
    assert json.loads((tmp_path / "results.json").read_text())["runs"] == finished[1]["runs"]


def test_changed_settings_are_not_served_from_old_files(tmp_path):
    work = iter([{"x": 1}, {"x": 2}])
    assert stored_result(tmp_path / "a.json", {"lr": 1}, lambda: next(work), say=lambda t: None) == {"x": 1}
    assert stored_result(tmp_path / "a.json", {"lr": 2}, lambda: next(work), say=lambda t: None) == {"x": 2}


def test_separation_is_chance_for_equal_pixels():
    config = DemoConfig(**TINY)
    method = untrained_method("cp2", config, 0)
    for parameter in method.branch.projector.parameters(): torch.nn.init.ones_(parameter)
    fg_fg, fg_bg = separation(method, load_data("samples", split="val").batch(range(4)).images)
    assert fg_fg.mean() == pytest.approx(1, abs=1e-5) and fg_bg.mean() == pytest.approx(1, abs=1e-5)


def test_protocols_of_matching(tmp_path):
    results = run_demo(DemoConfig(methods=("densecl-geometric",), protocols=("matches", "pck"), **{**TINY, "steps": 2}), tmp_path, **quiet)
    assert set(results["score"]) == {f"{start}/{protocol}" for start in ("random", "densecl-geometric") for protocol in ("matches", "pck")}
    assert len(results["curves"]["densecl-geometric"][0]["agreement"]) == 2


def test_a_first_look_from_the_shell(tmp_path, monkeypatch, capsys):
    few = world_folder("adversarial", splits=dict(train=24, val=4, unlabelled=64), jobs=1, progress=False)
    monkeypatch.setitem(regimes.FOLDERS, "adversarial", few)
    words = f"demo --world adversarial --scenes 64 --steps 3 --labels 8 --tune-steps 3 --split val --seeds 0 1 --out {tmp_path}".split()
    assert main(words) == 0
    page, results = (tmp_path / "report.html").read_text(), json.loads((tmp_path / "results.json").read_text())
    assert page.count("<img") == 2 and "Did it help?" in page and "src=http" not in page
    assert results["command"] == "pixcl demo --seeds 0 1 --labels 8 --scenes 64 --steps 3 --tune-steps 3 --split val --world adversarial"
    assert [point["regime"]["method"] for point in results["points"]] == [None, "densecl"] * 2
    for protocol in ("probe", "finetune"):                                       # the sentence is the numbers
        scores = {(point["regime"]["method"], point["regime"]["seed"]): point["scores"][protocol] for point in results["points"]}
        above = sum(scores["densecl", seed] > scores[None, seed] for seed in (0, 1))
        mean = 50 * sum(scores["densecl", seed] - scores[None, seed] for seed in (0, 1))
        assert f"{mean:+.1f} points to random weights, above them with {above} of 2 seeds." in page
    assert set(results["found_again"]) == {"random weights", "DenseCL, geometric positives"}
    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("points/*.json")}
    assert main(words) == 0 and {path: path.stat().st_mtime_ns for path in tmp_path.glob("points/*.json")} == made      # nothing twice
    capsys.readouterr()
    assert main(["demo", "--batch-size", "4"]) == 1 and "batch_size: only with --data NAME" in capsys.readouterr().err


def test_bad_settings_in_one_line(capsys, tmp_path):
    for words, message in (("demo --data photos", "data: unknown name 'photos'"), ("demo --data samples --methods mocco", "methods: unknown name 'mocco', did you mean 'moco'"),
                           (f"demo --data camvid --root {tmp_path}/none --out {tmp_path}", str(tmp_path / "none"))):
        assert main(words.split()) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error


def test_voc_halves_its_val(tmp_path):
    root = Path(__file__).parents[2] / "shared" / "data" / "voc"
    if not root.is_dir(): pytest.skip(f"{root} is not on this machine")
    val, test = (demo_data(DemoConfig(data="voc", root=str(root), split=split, size=(32, 32)))[2] for split in ("val", "test"))
    assert not set(val.names) & set(test.names) and len(val) + len(test) == 445
