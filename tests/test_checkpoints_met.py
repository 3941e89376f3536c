"""Files of weights as people have them: each loads exactly what its author says is to be used, or is refused and loads nothing."""
import argparse
import datetime
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from pixcl_nb.experiments.export import export_encoder
from pixcl_nb.experiments.runs import save_encoder
from pixcl_nb.networks.encoders import create_encoder
from pixcl_nb.networks.weights import load_checkpoint, plain_state, sample_encoder


def network(seed, name="resnet18", **options):
    torch.manual_seed(seed)
    found = timm.create_model(name, num_classes=options.pop("num_classes", 10), **options)
    with torch.no_grad():
        for buffer in found.buffers():
            if buffer.is_floating_point(): buffer.uniform_(.5, 1.5)
    return found


RIGHT_NETWORK = network(1)
RIGHT, OTHER = RIGHT_NETWORK.state_dict(), network(5).state_dict()


def under(prefix, state=None): return {prefix + name: tensor for name, tensor in (RIGHT if state is None else state).items()}


def numbered(prefix=""):
    children = list(RIGHT_NETWORK.named_children())[:-1]
    return {f"{prefix}{i}.{name}": tensor for i, (_, child) in enumerate(children) for name, tensor in child.state_dict().items()}


LAYOUTS = {
    "DDP": under("module."), "compile": under("_orig_mod."), "DDP + compile": under("module._orig_mod."),
    "compile + DDP": under("_orig_mod.module."), "Lightning": {"state_dict": under("model."), "pytorch-lightning_version": "2"},
    "Lightning around compile": {"state_dict": under("model._orig_mod.backbone."), "loops": {"epoch": 3}},
    "lightly": {"state_dict": numbered("backbone.")}, "Sequential of children": numbered(), "deep nest": {"checkpoint": {"trainer": {"model": {"net": RIGHT}}}},
    "fp16": {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in RIGHT.items()},
    "MoCo": {"state_dict": {**under("module.encoder_q."), **under("module.encoder_k.", OTHER)}},
    "MoCo v3": {"state_dict": {**under("module.momentum_encoder.", OTHER), **under("module.base_encoder.")}},
    "raw before EMA": {"state_dict": OTHER, "state_dict_ema": RIGHT}, "EMA before raw": {"model_ema": RIGHT, "model": OTHER},
    "EMA inside one dictionary": {"state_dict": {**under("model.", OTHER), **under("ema_model.")}},
    "DINO": {"student": under("module.backbone.", OTHER), "teacher": under("backbone.")},
    "DINO, teacher first": {"teacher": under("backbone."), "student": under("module.backbone.", OTHER)},
    "student and teacher of Lightning": {"state_dict": {**under("student_backbone.", OTHER), **under("teacher_backbone.")}},
    "BYOL": {"state_dict": {**under("target_network.encoder.", OTHER), **under("online_network.encoder.")}},
    "solo-learn": {"state_dict": {**under("momentum_backbone.", OTHER), **under("backbone.")}},
    "one network twice": {"model": RIGHT, "state_dict": dict(RIGHT)},
    "scalars, paths, dates": {"epoch": 3, "best": np.float64(.7), "n": np.int64(3), "ok": np.bool_(True), "table": np.arange(3), "when": datetime.datetime(2026, 1, 1),
                              "args": argparse.Namespace(out=Path("/x"), lr=.1), "state_dict": RIGHT}}


def holds(encoder, state=None, tolerance=0.):
    state = RIGHT if state is None else state
    return all(torch.allclose(tensor, state[name].float(), atol=tolerance) for name, tensor in plain_state(encoder).items() if "num_batches" not in name)


@pytest.mark.parametrize("title", LAYOUTS)
def test_the_right_network_of_every_layout(title, tmp_path):
    torch.save(LAYOUTS[title], tmp_path / "w.pth")
    encoder = create_encoder("resnet18")
    report = load_checkpoint(encoder, tmp_path / "w.pth")
    assert holds(encoder, tolerance=1e-3 if title == "fp16" else 0.) and report.matched == report.total and not report.not_loaded


@pytest.mark.parametrize("title, content, words", [
    ("two without roles", {"a": under("", OTHER), "b": RIGHT}, "holds 2 networks that could be meant, nothing was loaded: 'a: ' .100 tensors.; 'b: '"),
    ("target without online", {"encoder": under("module.", OTHER), "target_encoder": under("module.")}, "holds 2 networks"),
    ("three members", {"models": [OTHER, RIGHT, OTHER]}, "holds 3 networks"),
    ("whole module", RIGHT_NETWORK, "pickled Python objects .timm.models.resnet.ResNet.*refused")])
def test_refused_and_untouched(title, content, words, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    encoder = create_encoder("resnet18")
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with pytest.raises(ValueError, match=words): load_checkpoint(encoder, tmp_path / "w.pth")
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items()) and encoder.weights is None


def test_a_network_by_name_and_the_choice_is_said(tmp_path, capsys):
    torch.save({"a": OTHER, "b": RIGHT}, tmp_path / "w.pth")
    encoder = create_encoder("resnet18")
    load_checkpoint(encoder, tmp_path / "w.pth", network="b")
    assert holds(encoder) and "took 'b: '" in capsys.readouterr().out
    with pytest.raises(ValueError, match="network: 'c' names 0 of the networks"): load_checkpoint(encoder, tmp_path / "w.pth", network="c")
    torch.save({"teacher": network(2, "resnet50").state_dict(), "student": RIGHT}, tmp_path / "distilled.pth")    # the rule says teacher, which does not fit
    with pytest.raises(ValueError, match="other shape.*The file also holds .'student: '.: choose with network="): load_checkpoint(encoder, tmp_path / "distilled.pth")


@pytest.mark.parametrize("ending", ["w.pth", "w.bin", "w"])
def test_safetensors_under_another_ending(ending, tmp_path):
    save_file(RIGHT, tmp_path / ending)
    encoder = create_encoder("resnet18")
    load_checkpoint(encoder, tmp_path / ending)
    torch.save(RIGHT, tmp_path / "other.safetensors")                                          # and the other way round
    assert holds(encoder) and load_checkpoint(create_encoder("resnet18"), tmp_path / "other.safetensors").plain


def test_a_plain_pickle_of_arrays_runs_nothing(tmp_path):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": {name: tensor.numpy() for name, tensor in RIGHT.items()}, "at": Path("/x")}, protocol=2))
    encoder = create_encoder("resnet18")
    assert load_checkpoint(encoder, tmp_path / "w.pkl").plain and holds(encoder)
    class Trap:
        def __reduce__(self): return (open, (str(tmp_path / "sprung"), "w"))
    (tmp_path / "trap.pkl").write_bytes(pickle.dumps({"model": RIGHT, "trap": Trap()}, protocol=2))
    with pytest.raises(ValueError, match="refused"): load_checkpoint(encoder, tmp_path / "trap.pkl")
    assert not (tmp_path / "sprung").exists()


# --- shapes ------------------------------------------------------------------------------------------------------------
def transformer(**options): return network(1, options.pop("name", "vit_tiny_patch16_224"), num_classes=0, **options)


def test_patch_8_into_16_is_refused_unless_asked_for(tmp_path, capsys):
    source = transformer(patch_size=8)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"nothing was loaded.*patch_embed.proj.weight: \(192, 3, 8, 8\) in the file, \(192, 3, 16, 16\) here.*adapt=True"):
        load_checkpoint(create_encoder("vit_tiny_patch16_224"), tmp_path / "w.pth")
    encoder = create_encoder("vit_tiny_patch16_224")
    report = load_checkpoint(encoder, tmp_path / "w.pth", adapt=True)
    from timm.layers import resample_patch_embed
    assert torch.allclose(encoder.body.patch_embed.proj.weight, resample_patch_embed(source.patch_embed.proj.weight, [16, 16]))
    assert {words.split(":")[0] for words in report.changed} == {"patch_embed.proj.weight", "pos_embed"} and "adapted" in capsys.readouterr().out
    left = create_encoder("vit_tiny_patch16_224")
    report = load_checkpoint(left, tmp_path / "w.pth", leave="patch_embed.proj.weight")
    assert report.not_loaded == ["patch_embed.proj.weight"] == left.weights["not_loaded"] and "patch_embed.proj.weight" in capsys.readouterr().out
    with pytest.raises(ValueError, match="leave: unknown name 'patch_embd.proj.weight'"): load_checkpoint(left, tmp_path / "w.pth", leave="patch_embd.proj.weight")


def test_positions_are_resampled_as_timm_does(tmp_path, capsys):
    source, target = transformer(name="vit_tiny_patch16_384"), transformer()
    torch.save(source.state_dict(), tmp_path / "w.pth")
    encoder = create_encoder("vit_tiny_patch16_224")
    load_checkpoint(encoder, tmp_path / "w.pth")
    from timm.models.vision_transformer import checkpoint_filter_fn
    assert torch.allclose(encoder.body.pos_embed, checkpoint_filter_fn(source.state_dict(), target)["pos_embed"])
    said = capsys.readouterr().out
    assert "pos_embed: resampled, (1, 577, 192) in the file, (1, 197, 192) here" in said and "150 of 150" in said
    small = timm.create_model("vit_tiny_patch16_224", num_classes=0, embed_dim=96, num_heads=3)
    torch.save(small.state_dict(), tmp_path / "narrow.pth")
    with pytest.raises(ValueError, match="does not fit"): load_checkpoint(encoder, tmp_path / "narrow.pth")


@pytest.mark.parametrize("name, options", [("resnet18", {"in_chans": 1}), ("resnet18", {"in_chans": 4}), ("resnet18d", {}), ("resnet34", {})])
def test_resnets_with_another_first_layer_are_refused(name, options, tmp_path):
    torch.save(network(1, name, **options).state_dict(), tmp_path / "w.pth")
    wanted = "resnet50" if name == "resnet34" else "resnet18"
    with pytest.raises(ValueError, match="nothing was loaded"): load_checkpoint(create_encoder(wanted), tmp_path / "w.pth")
    torch.save(RIGHT, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="nothing was loaded.*conv1"): load_checkpoint(create_encoder("resnet18d"), tmp_path / "w.pth")


def test_one_channel_is_adapted_when_asked(tmp_path):
    source = network(1, in_chans=1)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    encoder, grey = create_encoder("resnet18").eval(), torch.rand(1, 1, 64, 64)
    assert load_checkpoint(encoder, tmp_path / "w.pth", adapt=True).changed == ["conv1.weight: adapted, (64, 1, 7, 7) in the file, (64, 3, 7, 7) here"]
    with torch.no_grad(): torch.testing.assert_close(encoder(grey.expand(-1, 3, -1, -1)), source.eval().forward_features(grey), rtol=1e-4, atol=1e-4)


def test_a_missing_filter_or_statistic_is_never_left_random(tmp_path):
    for gone in ("conv1.weight", "layer4.1.conv2.weight", "bn1.running_mean"):
        torch.save({name: tensor for name, tensor in RIGHT.items() if name != gone}, tmp_path / "w.pth")
        with pytest.raises(ValueError, match=f"missing 1 .{gone}."): load_checkpoint(create_encoder("resnet18"), tmp_path / "w.pth")
    torch.save({**RIGHT, "conv1.weight": (RIGHT["conv1.weight"] * 99).to(torch.int8)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="conv1.weight: torch.int8 in the file"): load_checkpoint(create_encoder("resnet18"), tmp_path / "w.pth")


# --- our own files -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name, stride, to, file", [
    ("resnet18", 16, "timm", "a.safetensors"), ("resnet18", None, "timm", "a.pth"), ("vit_tiny_patch16_224", None, "timm", "a.pth"), ("convnext_atto", None, "timm", "a.safetensors"),
    ("resnet18", 32, "torchvision", "a.pth"), ("resnet18", 16, "mmseg", "a.pth"), ("resnet18d", None, "mmseg", "a.pth"), ("resnet50c", 8, "mmseg", "a.pth"),
    ("resnet18", 32, "detectron2", "a.pth"), ("resnet18", 32, "detectron2", "a.pkl")])
def test_our_exports_load_back_with_equal_features(name, stride, to, file, tmp_path):
    torch.manual_seed(0)
    encoder, images = create_encoder(name, stride).eval(), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for buffer in encoder.buffers():
            if buffer.is_floating_point(): buffer.uniform_(.5, 1.5)
    encoder.mean, encoder.std = (.1, .2, .3), (.4, .5, .6)
    export_encoder(encoder, name, to, tmp_path / file)
    again = create_encoder(name, stride).eval()
    assert load_checkpoint(again, tmp_path / file).plain
    with torch.no_grad(): assert torch.equal(encoder(images), again(images))
    if file != "a.pth" or to in ("mmseg", "detectron2"): assert (again.mean, again.std) == (encoder.mean, encoder.std)     # the others have no place for it


def test_a_runs_encoder_carries_its_colours(tmp_path):
    encoder = create_encoder("pixcl_tiny")
    encoder.mean, encoder.std = (.5, .5, .5), (.25, .25, .25)
    again = create_encoder("pixcl_tiny")
    load_checkpoint(again, save_encoder(encoder, tmp_path / "e.safetensors"))
    assert (again.mean, again.std) == (encoder.mean, encoder.std) and again.weights["loaded"] == again.weights["of"]
    assert sample_encoder("moco").weights["file"] == "moco.safetensors"


SHIPPED = Path(__file__).parent.parent / "data_samples" / "checkpoints"
SHIPPED_NAMES = ["auxiliary", "cp2", "densecl", "label", "moco"]


@pytest.mark.parametrize("world, folder", [("adversarial", SHIPPED), ("natural", SHIPPED / "natural")])
def test_every_shipped_encoder_loads_and_its_manifest_says_what_made_it(world, folder):
    about = json.loads((folder / "manifest.json").read_text())
    assert about["world"] == world and sorted(about["encoders"]) == sorted(path.stem for path in folder.glob("*.safetensors")) == SHIPPED_NAMES
    assert any("tests/tools/make_checkpoints.py " + world in command for command in about["commands"])
    images, seen = torch.rand(1, 3, 64, 64), []
    for name, made in about["encoders"].items():
        assert made["steps"] >= 300 and "scenes" in made["data"] and made["seed"] == 0
        encoder = sample_encoder(name, world)
        assert encoder.weights == {"file": f"{name}.safetensors", "loaded": encoder.weights["of"], "of": encoder.weights["of"], "not_loaded": []}
        with torch.no_grad(): seen.append(encoder(images))
    assert all(torch.isfinite(one).all() for one in seen) and not any(torch.equal(one, seen[0]) for one in seen[1:])


def test_the_samples_encoders_are_what_a_name_alone_gives():
    ours, named = (sample_encoder("densecl", *world).state_dict() for world in ((), ("adversarial",)))
    assert all(torch.equal(ours[name], named[name]) for name in ours)


@pytest.mark.parametrize("wrong, said", [(("dense",), "name: unknown name 'dense'.*'densecl'"), (("dense", "natural"), r"name: unknown name 'dense'.*\['auxiliary', 'cp2', 'densecl', 'label', 'moco'\]"),
                                         (("densecl", "grey"), r"world: unknown name 'grey'.*\['adversarial', 'natural'\]")])
def test_an_encoder_that_is_not_shipped_is_answered_with_those_that_are(wrong, said):
    with pytest.raises(ValueError, match=said): sample_encoder(*wrong)


def test_all_shipped_encoders_are_small():
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) < 10_000_000
