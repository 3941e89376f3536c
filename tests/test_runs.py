"""A run is a function of its file: configurations round-trip, a rerun has the same bits, what differs is said."""
import dataclasses
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from hypothesis import given, settings as hypothesis_settings, strategies as st

import pixcl_nb.experiments.runs as runs
from pixcl_nb.images.data import load_data
from pixcl_nb.networks.encoders import create_encoder
from pixcl_nb.methods.contract import METHODS, create_method
from pixcl_nb.experiments.runs import (
    build_method, check_same_config, compare_runs, default_settings, setting_differences, encoder_shape, Shape,
    layered, load_run, merged, nested, read_config, rerun, run, run_config, save_encoder,
    with_steps, write_config)
from pixcl_nb.training.checkpoints import FolderLock, last_checkpoint
from pixcl_nb.training.settings import TrainConfig

SMALL = {"method": "moco", "threads": 1, "settings": {"queue_size": 32, "view": {"size": 32}}, "train": {"steps": 4, "batch_size": 8, "device": "cpu", "progress": False}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    method, history = run(run_config(SMALL), folder)
    return folder, method, history


@pytest.mark.parametrize("name", METHODS)
def test_default_settings_are_the_methods_own(name):
    found, small = default_settings(name, Shape(8, 8)), {"queue_size": 8} if hasattr(default_settings(name, Shape(8, 8)), "queue_size") else {}
    assert replace(found, **small) == create_method(name, **small).config


@pytest.mark.parametrize("suffix", ["yaml", "json"])
@pytest.mark.parametrize("name", METHODS)
def test_configurations_round_trip_through_a_file(name, suffix, tmp_path):
    config = run_config({"method": name, "train": {"steps": 3, "lr": 1e-5}, "size": [60, 80], "epochs": 1.5})
    write_config(tmp_path / f"run.{suffix}", config, made_with={"torch": "1"})
    assert run_config(read_config(tmp_path / f"run.{suffix}")) == replace(config, train=replace(config.train, steps=1))


@hypothesis_settings(max_examples=30, deadline=None)
@given(st.floats(1e-6, 10), st.integers(1, 10**6), st.booleans(), st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1))
def test_every_kind_of_field_survives_yaml(lr, steps, fast, root):
    import tempfile, pathlib
    config = run_config({"method": "moco", "root": root, "train": {"steps": steps, "lr": lr, "channels_last": fast}})
    with tempfile.TemporaryDirectory() as folder: assert run_config(read_config(write_config(pathlib.Path(folder) / "x.yaml", config))) == config


@pytest.mark.parametrize("values, words", [
    ({"settings": {"temprature": 1}}, "setting of settings: unknown name 'temprature', did you mean 'temperature'"), ({"train": {"steps": 1, "larning_rate": 1}}, "setting of train: unknown name"),
    ({"settings": {"temperature": "warm"}}, "settings.temperature: expected a number, got 'warm'"), ({"train": {"steps": 2.5}}, "train.steps: expected a whole number"), ({"train": {"steps": True}}, "train.steps: expected a whole number"),
    ({"settings": {"view": 3}}, "settings.view: holds settings of its own"), ({"settings": {"view": {"size": {"x": 1}}}}, "has no settings inside"), ({"enc": "x"}, "setting: unknown name 'enc'"),
    ({"encoder": "resnet51"}, "unknown encoder 'resnet51'"), ({"epochs": 0}, "epochs: 0"), ({"threads": 0}, "threads: 0"), ({"train": {"steps": 1, "progress": "yes"}}, "expected true or false")])
def test_wrong_values_are_one_clear_line(values, words):
    with pytest.raises(ValueError) as error: run_config(merged(SMALL, values))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_who_wins():
    assert layered({"epochs": 5, "train": {"lr": 1}}, {"train": {"steps": 3}}) == {"train": {"lr": 1, "steps": 3}}
    assert layered({"train": {"steps": 3}}, {"epochs": 2})["epochs"] == 2
    assert nested(["a.b=1", "train.lr=.5", "method=moco"]) == {"settings": {"a": {"b": 1}}, "train": {"lr": .5}, "method": "moco"}


def test_epochs_are_whole_batches_of_the_data():
    config = run_config({**SMALL, "epochs": 3})
    assert with_steps(config, 100, 1).train.steps == 3 * 12 and with_steps(config, 100, 4).train.steps == 3 * 3
    with pytest.raises(ValueError, match="more than the 7 images"): with_steps(config, 7, 1)


def test_files_that_are_no_configuration(tmp_path):
    for text, words in (("a: [", "is not YAML"), ("- a\n- b", "holds list"), ("", "holds NoneType")):
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(ValueError, match=words): read_config(tmp_path / "c.yaml")
    with pytest.raises(FileNotFoundError, match="only runs of `pixcl pretrain`"): read_config(tmp_path)


def test_the_folder_holds_everything(made):
    folder, method, history = made
    whole = yaml.safe_load((folder / "run.yaml").read_text())
    assert set(whole) == {"config", "made_with", "data", "processes"} and whole["config"]["settings"]["view"]["blur"] == .5 and whole["made_with"]["torch"] == str(torch.__version__)
    assert set(whole["config"]["train"]) == {field.name for field in dataclasses.fields(TrainConfig)}
    again, config = load_run(folder)
    assert config == run_config(SMALL) and all(torch.equal(a, b) for a, b in zip(method.state_dict().values(), again.state_dict().values()))


def test_rerun_from_the_folder_alone_is_equal_bit_for_bit(made, tmp_path):
    said = []
    report = rerun(made[0], tmp_path / "again", say=said.append)
    assert report.equal and report.compared == len(made[1].state_dict()) and said == ["versions: the same"]
    assert "equal, bit for bit" in repr(report)


def test_rerun_says_which_versions_differ_and_which_tensors(made, tmp_path, monkeypatch):
    now = runs.made_by
    monkeypatch.setattr(runs, "made_by", lambda device: {**now(device), "torch": "9.9"})
    monkeypatch.setattr(runs, "build_method", lambda config, folder=None: build_method(replace(config, train=replace(config.train, seed=1)), folder))     # as another version of a library might
    said = []
    report = rerun(made[0], tmp_path / "again", say=said.append)
    assert "torch (was" in said[0] and "now '9.9')" in said[0] and not report.equal and report.largest > 0 and "tensors differ, by up to" in repr(report)


def test_rerun_of_what_is_no_finished_run(made, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no run.yaml"): rerun(tmp_path)
    with pytest.raises(ValueError, match="is the run itself"): rerun(made[0], made[0])
    run(run_config(merged(SMALL, {"train": {"steps": 4, "log_every": 1}})), tmp_path / "cut", on_step=lambda step, terms, method: "stop" if step == 1 else None)
    with pytest.raises(ValueError, match="ended at step 2 of 4; finish it first: pixcl pretrain --config"): rerun(tmp_path / "cut")


def test_start_weights_are_kept_in_the_folder(tmp_path):
    torch.manual_seed(5)
    save_encoder(create_encoder("pixcl_tiny"), tmp_path / "first.safetensors")
    config = run_config(merged(SMALL, {"start": str(tmp_path / "first.safetensors"), "train": {"steps": 2}}))
    run(config, tmp_path / "run")
    (tmp_path / "first.safetensors").unlink()                                             # the folder alone
    said = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())["start"]
    count = sum(not name.endswith("num_batches_tracked") for name in create_encoder("pixcl_tiny").state_dict())
    assert (Path(said["file"]).name, said["loaded"], said["of"], said["not_loaded"]) == ("first.safetensors", count, count, [])
    assert rerun(tmp_path / "run", say=lambda text: None).equal
    other = build_method(replace(config, start=None)).encoder.state_dict()
    assert not torch.equal(next(iter(other.values())), next(iter(build_method(config, tmp_path / "run").encoder.state_dict().values())))


def test_what_start_loaded_stays_on_record(tmp_path):
    torch.manual_seed(5)
    save_encoder(create_encoder("pixcl_tiny"), tmp_path / "first.safetensors")
    config = run_config(merged(SMALL, {"start": str(tmp_path / "first.safetensors"), "train": {"steps": 4, "checkpoint_every": 2}}))
    run(config, tmp_path / "run", on_step=lambda step, terms, method: "stop" if step == 1 else None)
    first = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())["start"]
    assert first["file"].endswith("first.safetensors") and first["loaded"] == first["of"] > 0
    run(config, tmp_path / "run")                                                # goes on from the folder's own start.safetensors
    assert yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())["start"] == first
    run(run_config(merged(SMALL, {"train": {"steps": 2}})), tmp_path / "random")
    assert "start" not in yaml.safe_load((tmp_path / "random" / "run.yaml").read_text())


def test_discovered_labels_are_kept_in_the_folder(tmp_path):
    from pixcl_nb.positives.auxiliary_labels import ColourFeatures, fit_auxiliary_labels
    import shutil
    fit_auxiliary_labels(ColourFeatures(), load_data("samples", split="val"), 6, tmp_path / "labels", pixels=2000)
    values = {"method": "auxiliary_contrast", "threads": 1, "split": "val", "settings": {"view": {"size": 32}, "samples": 16}, "train": {**SMALL["train"], "steps": 2}}
    with pytest.raises(ValueError, match="make them with `pixcl labels`"): run(run_config(values), tmp_path / "none")
    run(run_config({**values, "labels": str(tmp_path / "labels")}), tmp_path / "run")
    shutil.rmtree(tmp_path / "labels")
    assert rerun(tmp_path / "run", say=lambda text: None).equal


def test_another_run_in_the_same_folder_is_refused_and_the_file_stays(made):
    before = (made[0] / "run.yaml").read_bytes()
    with pytest.raises(ValueError, match=r"holds a run with other settings: settings.temperature \(was 0.2, now 0.1\)"): run(run_config(merged(SMALL, {"settings": {"temperature": .1}})), made[0])
    assert (made[0] / "run.yaml").read_bytes() == before
    check_same_config(made[0], replace(run_config(SMALL), threads=2, root="/elsewhere"))   # what may differ


def test_compare_counts_values_shapes_and_absences():
    a = {"x": torch.zeros(3), "y": torch.ones(2), "z": torch.ones(1)}
    report = compare_runs(a, {"x": torch.zeros(3), "y": torch.ones(2) + .5, "w": torch.ones(1)}, "out")
    assert report.differing == ["y", "z"] and report.largest == .5


def test_stride_without_weights(): assert [encoder_shape(*words).stride for words in (("resnet18",), ("resnet50", 8), ("pixcl_tiny", 4), ("vit_tiny_patch16_224",))] == [32, 8, 4, 16]


def test_differences_name_the_place(): assert setting_differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2, "d": 4}) == ["a.b (was 1, now 3)", "d (was None, now 4)"]


def pictures(root, seed):
    "Six pictures of noise in an empty folder."
    shutil.rmtree(root, ignore_errors=True); root.mkdir(parents=True)
    noise = np.random.default_rng(seed)
    for k in range(6): Image.fromarray(noise.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(root / f"{k}.png")


def test_other_pictures_of_the_same_number_and_names_are_refused_and_the_record_stays(tmp_path):
    root, out = tmp_path / "pictures", tmp_path / "run"
    values = {"method": "moco", "data": "images", "root": str(root), "threads": 1, "settings": {"queue_size": 8, "view": {"size": 32}},
              "train": {"steps": 4, "batch_size": 2, "checkpoint_every": 1, "progress": False, "device": "cpu"}}
    pictures(root, 0)
    run(run_config(values), out, on_step=lambda step, *_: "stop" if step == 1 else None)
    before = (out / "run.yaml").read_text()
    pictures(root, 99)
    with pytest.raises(ValueError, match=r"out: .* other settings: data.pictures \(was '\w+', now '\w+'\); .*--anyway"): run(run_config(values), out)
    assert (out / "run.yaml").read_text() == before and last_checkpoint(out)[1]["step"] == 2
    (out / "run.lock").write_text(json.dumps(FolderLock(tmp_path / "elsewhere").owner))
    for resume in (True, False, "anyway"):
        with pytest.raises(RuntimeError, match="is in use"): run(run_config(values), out, resume=resume)
    assert (out / "run.yaml").read_text() == before
    (out / "run.lock").unlink()
    _, history = run(run_config(values), out, resume="anyway")
    assert len(history) == 4 and yaml.safe_load((out / "run.yaml").read_text())["data"]["fingerprint"] != yaml.safe_load(before)["data"]["fingerprint"]
    assert not (out / "run.lock").exists()


def test_a_run_that_broke_is_replayed_from_its_folder(tmp_path, capsys):
    from pixcl_nb.cli import main
    words = f"pretrain moco --steps 9 --batch-size 8 --lr 1e12 --threads 1 --device cpu --set queue_size=8 --set view.size=32 --out {tmp_path}/run"
    assert main(words.split()) == 1
    said = capsys.readouterr().err
    assert f"pixcl replay {tmp_path}/run" in said and ": step " in said and "lower lr" in said
    assert main(["replay", f"{tmp_path}/run"]) == 0
    assert "it breaks again" in capsys.readouterr().out
    assert main(["replay", str(tmp_path)]) == 1


def test_a_warm_up_counts_with_epochs_too():
    config = run_config({"method": "moco", "epochs": 2., "train": {"warmup_steps": 5, "batch_size": 10}})
    assert with_steps(config, 100, 1).train.steps == 20
    with pytest.raises(ValueError, match="warmup_steps: 5 is not less than the run's 2 steps"): with_steps(config, 10, 1)
