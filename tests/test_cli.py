"""The command line: every command, its help, its one-line errors, its exit codes."""
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from pixcl_nb.cli import COMMANDS, Command, asked_options, build_parser, field_comments, given_fields, main
from pixcl_nb.images.scenes import write_samples
from pixcl_nb.networks.encoders import create_encoder
from pixcl_nb.networks.weights import load_checkpoint
from pixcl_nb.evaluation.protocols import PROTOCOLS
from pixcl_nb.experiments.runs import RunConfig
from pixcl_nb.training.checkpoints import last_checkpoint
from pixcl_nb.training.settings import TrainConfig

PYTHON = [sys.executable, "-m", "pixcl_nb.cli"]
TINY = "--batch-size 8 --device cpu --no-progress --threads 1 --set view.size=32 --set queue_size=32"


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder, {"train": 12, "val": 6, "test": 3, "pairs": 2}, progress=False)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory, samples):
    folder = tmp_path_factory.mktemp("runs") / "moco"
    assert main(f"pretrain moco --steps 3 {TINY} --data folder --root {samples} --out {folder}".split()) == 0
    return folder


def told(words, capsys):
    "Exit code, stdout, stderr."
    capsys.readouterr()
    code = main(words.split() if isinstance(words, str) else words)
    return code, *capsys.readouterr()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_every_option_with_examples_and_exit_codes(name, capsys):
    with pytest.raises(SystemExit) as stopped: main([name, "--help"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0 and "examples:" in text and "exit codes: 0 done" in text and COMMANDS[name].summary[:30] in text
    for example in COMMANDS[name].examples:
        if example.startswith("pixcl "):                                          # an example is a command line that parses
            words = re.sub(r" > .*", "", example).split()
            assert build_parser().parse_args(words[1:]).command == name


def test_every_option_says_what_it_is():
    for config in (RunConfig, TrainConfig): assert set(field_comments(config)) == set(config.__dataclass_fields__)
    assert field_comments(TrainConfig)["lr"] == "peak learning rate"


def test_a_command_is_added_in_one_line(monkeypatch, capsys):
    monkeypatch.setitem(COMMANDS, "compare", Command("compare a folder", ("pixcl compare here",), lambda parser: parser.add_argument("folder"), lambda arguments: print(arguments.folder) or 3))
    assert told("compare here", capsys)[:2] == (3, "here\n")


# --- errors and exit codes

@pytest.mark.parametrize("words, message", [
    ("pretrain moco --out x", "say how long: --steps N"), ("pretrain cp2 --steps 0 --out x", "steps: 0"), ("pretrain mocco --steps 1 --out x", "did you mean 'moco'"), ("pretrain --steps 1 --out x", "name one of"),
    ("pretrain moco --steps 1 --out x --set temprature=1", "unknown name 'temprature', did you mean 'temperature'"), ("pretrain moco --steps 1 --out x --set temperature", "has no '='"),
    ("pretrain moco --steps 1 --encoder resnet51 --out x", "unknown encoder 'resnet51'"), ("pretrain --recipe mocco --out x", "recipe: unknown name 'mocco'"), ("pretrain --recipe cp2-quick-imagenet --out x", "needs --start"),
    ("pretrain --config /nowhere.yaml --out x", "no file /nowhere.yaml"), ("pretrain moco --steps 1 --device tpu --out x", "device: cannot use 'tpu'"), ("pretrain auxiliary_contrast --steps 1 --out x", "pixcl labels"),
    ("evaluate /nowhere.pt", "nowhere.pt"), ("evaluate --protocols guess", "unknown name 'guess'"), ("evaluate --set finetune=1", "is not PROTOCOL.NAME=VALUE"), ("evaluate --set guess.k=1", "unknown name 'guess'"),
    ("export --to timm --out x.pth", "timm has no pixcl_tiny"), ("export --encoder resnet18 --to onnx --out x.pth", "unknown name 'onnx'"), ("rerun /nowhere", "/nowhere holds no run.yaml"), ("recipes mocco", "recipe: unknown name"),
    ("data --data photos", "unknown name 'photos'"), ("claims --rows guess", "unknown name 'guess'")])
def test_errors_are_one_line_and_exit_1(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = told(words, capsys)
    assert code == 1 and message in error and error.count("\n") == 1 and error.startswith(f"pixcl {words.split()[0]}: "), error
    assert not (tmp_path / "x").exists() or not list((tmp_path / "x").glob("*.pt"))


@pytest.mark.parametrize("words", ["prettrain", "pretrain moco", "export x --out y.pth", "pretrain moco --steps many --out x"])
def test_wrong_usage_is_exit_2(words, capsys):
    with pytest.raises(SystemExit) as stopped: main(words.split())
    assert stopped.value.code == 2


def test_without_a_command_it_says_which_there_are(capsys):
    assert main([]) == 0
    said = capsys.readouterr()
    assert said.err == "" and all(f"\n    {word} " in said.out for word in COMMANDS if len(word) < 18)


def test_ctrl_c_is_one_line(monkeypatch, capsys):
    def interrupt(arguments): raise KeyboardInterrupt
    monkeypatch.setitem(COMMANDS, "data", Command("x", (), lambda parser: None, interrupt))
    assert main(["data"]) == 130 and capsys.readouterr().err == "pixcl data: stopped by Ctrl-C\n"


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.setitem(COMMANDS, "data", Command("x", (), lambda parser: None, lambda arguments: {}["missing"]))
    with pytest.raises(KeyError): main(["data"])


def test_ctrl_c_is_130(monkeypatch):
    def stop(arguments): raise KeyboardInterrupt
    monkeypatch.setitem(COMMANDS, "data", Command("x", (), lambda parser: None, stop))
    assert main(["data"]) == 130


@pytest.mark.long
def test_sigterm_saves_and_exits_143_and_the_same_command_goes_on(tmp_path, samples):
    words = [*PYTHON, *f"pretrain moco --steps 60 {TINY} --data folder --root {samples} --checkpoint-every 1 --out {tmp_path}/run".split()]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    started = time.time()
    while not list(tmp_path.glob("run/step-*.pt")) and process.poll() is None and time.time() - started < 300: time.sleep(.05)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 143 and "stopped by signal" in error, error
    stopped = last_checkpoint(tmp_path / "run")[1]["step"]
    assert main(words[3:]) == 0 and stopped < last_checkpoint(tmp_path / "run")[1]["step"] == 60


def test_head_of_a_pipe_is_no_error():
    done = subprocess.run(f"{' '.join(PYTHON)} recipes densecl-coco | head -1; exit ${{PIPESTATUS[0]}}", shell=True, executable="/bin/bash", capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr and done.stdout.startswith("# densecl-coco")


# --- each command

def test_data(samples, tmp_path, capsys):
    code, out, _ = told(f"data --data folder --root {samples} --picture {tmp_path}/sheet.png --out {tmp_path}/report.json", capsys)
    assert code == 0 and "12 images read, 11 classes" in out and (tmp_path / "sheet.png").stat().st_size > 1000 and json.loads((tmp_path / "report.json").read_text())["images"] == 12
    (tmp_path / "images").mkdir(); (tmp_path / "labels").mkdir(); (tmp_path / "train.txt").write_text("gone\n")
    code, out, _ = told(f"data --data folder --root {tmp_path}", capsys)
    assert code == 3 and "FAULT" in out and "2 faults" in out


def test_recipes(capsys):
    code, out, _ = told("recipes", capsys)
    assert code == 0 and "cp2-quick-imagenet" in out and "auxiliary contrast: none" in out
    assert yaml.safe_load(told("recipes label-voc", capsys)[1])["method"] == "label_contrast"
    assert "gpus: is a question of the cost; add --cost" in told("recipes moco-imagenet --gpus 64", capsys)[2]
    assert "96 processes cannot share equally" in told("recipes moco-imagenet --cost --gpus 96", capsys)[2]


def test_pretrain_writes_the_whole_configuration(trained, samples):
    config = yaml.safe_load((trained / "run.yaml").read_text())["config"]
    assert config["root"] == str(samples) and config["settings"]["view"]["size"] == 32 and config["train"]["steps"] == 3 and config["train"]["weight_decay"] == 1e-4
    report = load_checkpoint(create_encoder("pixcl_tiny"), trained / "encoder.safetensors")
    assert report.matched == report.total


def test_config_of_one_run_starts_another_with_one_thing_changed(trained, tmp_path, capsys):
    assert told(f"pretrain --config {trained}/run.yaml --seed 3 --set temperature=.3 --steps 2 --out {tmp_path}/b", capsys)[0] == 0
    a, b = (yaml.safe_load((folder / "run.yaml").read_text())["config"] for folder in (trained, tmp_path / "b"))
    assert (b["train"].pop("seed"), b["settings"].pop("temperature"), b["train"].pop("steps")) == (3, .3, 2)
    for gone in ("seed", "steps"): a["train"].pop(gone)
    a["settings"].pop("temperature")
    assert a == b


@pytest.mark.parametrize("field", ["settings.view.brightness=.1", "train.lr=.5", "encoder_options.stem=16", "split=val", "settings.momentum=.9"])
def test_every_field_can_be_overridden(field):
    import argparse
    from pixcl_nb.cli import add_pretrain, asked_config
    parser = argparse.ArgumentParser()
    add_pretrain(parser)
    config = asked_config(parser.parse_args(["moco", "--steps", "1", "--set", field, "--out", "x"]))
    *parents, last = field.split("=")[0].split(".")
    for name in parents: config = getattr(config, name)
    assert yaml.safe_load(field.split("=")[1]) == (config[last] if isinstance(config, dict) else getattr(config, last))


def test_another_run_is_not_overwritten(trained, capsys):
    before = (trained / "run.yaml").read_bytes()
    code, _, error = told(f"pretrain --config {trained}/run.yaml --lr .5 --out {trained}", capsys)
    assert code == 1 and "train.lr (was 0.03, now 0.5)" in error and (trained / "run.yaml").read_bytes() == before


def test_rerun_is_exit_0_for_equal_bits_and_3_for_others(trained, tmp_path, capsys):
    code, out, _ = told(f"rerun {trained} --out {tmp_path}/again", capsys)
    assert code == 0 and "equal, bit for bit" in out
    import shutil
    shutil.copytree(trained, tmp_path / "touched")
    text = (tmp_path / "touched" / "run.yaml").read_text()
    (tmp_path / "touched" / "run.yaml").write_text(text.replace("lr: 0.03", "lr: 0.04"))
    code, out, _ = told(f"rerun {tmp_path}/touched", capsys)
    assert code == 3 and "tensors differ, by up to" in out


def test_evaluate_every_protocol_and_saves_the_report(trained, samples, tmp_path, capsys):
    fast = "--set linear_probe.pixels=500 --set linear_probe.iterations=5 --set retrieve.memory_size=500 --set cluster.cells=500 --set overcluster.cells=500 --set rank.cells=200 --steps 2 --set finetune.batch_size=4"
    code, out, error = told(f"evaluate {trained} --protocols all pck --data samples --root {samples} {fast} --out {tmp_path}/report.json", capsys)
    assert code == 0, error
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report["results"]) >= {*PROTOCOLS, "boundary"} - {"finetune_with_head", "pck"} and 0 <= report["results"]["linear_probe"]["miou"] <= 1 and set(report["results"]["boundary"]) >= {"linear_probe", "finetune"}


@pytest.mark.long
def test_evaluate_takes_a_runs_decoder_and_keypoints(samples, tmp_path, capsys):
    assert told(f"pretrain cp2 --steps 2 --batch-size 4 --device cpu --no-progress --threads 1 --set compose.size=48 --set decoder=fcn --set decoder_width=16 --set queue_size=16 --data folder --root {samples} --out {tmp_path}/cp2", capsys)[0] == 0
    code, out, error = told(f"evaluate {tmp_path}/cp2 --protocols finetune pck --steps 2 --set finetune.batch_size=4 --set finetune_with_head.batch_size=4 --images 6 --data samples --root {samples} --out {tmp_path}/r.json", capsys)
    assert code == 0, error
    found = json.loads((tmp_path / "r.json").read_text())
    assert set(found["results"]) == {"finetune", "finetune_with_head", "pck"} and found["info"]["train"] == 6


def test_evaluate_options(capsys):
    options = asked_options(build_parser().parse_args("evaluate --steps 9 --set probe.pixels=5 --set cluster.k=30".split()))
    assert options == {"finetune": {"steps": 9}, "finetune_with_head": {"steps": 9}, "linear_probe": {"pixels": 5}, "cluster": {"k": 30}}


def test_labels_and_auxiliary_contrast(trained, samples, tmp_path, capsys):
    assert told(f"labels {trained} --clusters 6 --data folder --root {samples} --out {tmp_path}/labels", capsys)[0] == 0
    code, out, error = told(f"pretrain auxiliary_contrast --labels {tmp_path}/labels --steps 2 --batch-size 4 --device cpu --no-progress --set view.size=32 --set samples=16 --data folder --root {samples} --out {tmp_path}/run", capsys)
    assert code == 0 and (tmp_path / "run" / "auxiliary" / "manifest.json").exists(), error


def test_export_of_a_run_and_of_a_file(samples, tmp_path, capsys):
    assert told(f"pretrain moco --encoder resnet18 --steps 1 {TINY} --data folder --root {samples} --out {tmp_path}/run", capsys)[0] == 0
    code, out, error = told(f"export {tmp_path}/run --to torchvision --out {tmp_path}/backbone.pth", capsys)
    assert code == 0 and "loaded by torchvision itself" in out, error
    code, out, _ = told(f"export {tmp_path}/backbone.pth --encoder resnet18 --to detectron2 --out {tmp_path}/d2.pkl", capsys)
    assert code == 0 and "STRIDE_IN_1X1: False" in out
    assert told(f"export {tmp_path}/run --encoder resnet18 --to timm --out {tmp_path}/t.pth", capsys)[0] == 1


def test_evaluate_uses_the_runs_own_data_and_another_stride(trained, tmp_path, capsys):
    code, out, error = told(f"evaluate {trained} --protocols rank --set rank.cells=100 --output-stride 4 --out {tmp_path}/r.json", capsys)
    info = json.loads((tmp_path / "r.json").read_text())["info"]
    assert code == 0 and (info["train"], info["test"], info["seed"], info["in_both"]) == (12, 6, 0, []), error
    assert info["mean"] == [.485, .456, .406] and info["weights"]["file"] == str(trained)


def test_a_finetuning_recipe_reaches_finetune(monkeypatch):
    import pixcl_nb.cli as cli
    arguments = build_parser().parse_args("evaluate moco.pth --recipe densecl-voc --steps 7".split())
    options = cli.merged(cli.follow_recipe(arguments), asked_options(arguments))
    assert (arguments.encoder, arguments.output_stride, arguments.data, arguments.protocols) == ("resnet50", 8, "voc", ["finetune"]) and (options["finetune"]["steps"], options["finetune"]["lr"]) == (7, .01)


def test_dry_run_of_a_command_line(tmp_path, capsys):
    code, out, _ = told(f"pretrain moco --steps 9000 {TINY} --dry-run --out {tmp_path}/dry", capsys)
    assert code == 0 and "2 rows to step 1" in out
