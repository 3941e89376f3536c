"""Files for other tools: the names those tools have, and equal features.

timm and torchvision load the files themselves. For mmsegmentation and detectron2 the names and shapes of their own classes
are in golden/export_layouts.json (made by tools/check_export.py, which loads with the tools themselves), and a reference
network written in those names gives the features."""
import importlib.util
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.nn.functional import max_pool2d

from pixcl_nb.networks.encoders import create_encoder
from pixcl_nb.experiments.export import (
    STATES, caveat, check_export, export_encoder, feature_gap, packed, resnet_kind)

LAYOUTS = json.loads((Path(__file__).parent / "golden" / "export_layouts.json").read_text())
sys.path.insert(0, str(Path(__file__).parent / "tools"))
from check_export import scrambled


def slow(*cases): return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


def trained(name, stride=None):
    torch.manual_seed(0)
    return scrambled(create_encoder(name, stride))


def reference(state, images, blocks, strides, dilations, layout):
    "A ResNet by its equations, reading tensors by the names of a layout; the first block of a dilated stage keeps the dilation before it."
    convolution, norm, stage, around = layout
    bn = lambda x, key: F.batch_norm(x, state[f"{key}.running_mean"], state[f"{key}.running_var"], state[f"{key}.weight"], state[f"{key}.bias"], eps=1e-5)
    conv = lambda x, key, stride=1, dilation=1: F.conv2d(x, state[f"{key}.weight"], stride=stride, padding=dilation * (state[f"{key}.weight"].shape[-1] // 2), dilation=dilation)
    if "stem.0.weight" in state:
        x = images
        for index, stride in ((0, 2), (3, 1), (6, 1)): x = F.relu(bn(conv(x, f"stem.{index}", stride), f"stem.{index + 1}"))
    else: x = F.relu(bn(conv(images, convolution("", 1), 2), norm("", 1)))
    x = max_pool2d(x, 3, 2, 1)
    for i, count in enumerate(blocks):
        for b in range(count):
            own, skip, stride = f"{stage(i)}.{b}.", x, strides[i] if b == 0 else 1
            dilation = max(1, dilations[i] // 2) if b == 0 else dilations[i]
            deep = f"{own}conv3.weight" in state
            y = x
            for n in (1, 2, 3) if deep else (1, 2):
                y = bn(conv(y, f"{own}conv{n}", stride if n == (2 if deep else 1) else 1, dilation if state[f"{own}conv{n}.weight"].shape[-1] == 3 else 1), norm(own, n))
                if n < (3 if deep else 2): y = F.relu(y)
            if f"{around(own)[0]}.weight" in state: skip = bn(conv(x, around(own)[0], stride), around(own)[1])
            x = F.relu(y + skip)
    return x


OPEN = (lambda own, n: "conv1", lambda own, n: f"{own}bn{n}", lambda i: f"layer{i + 1}", lambda own: (f"{own}downsample.0", f"{own}downsample.1"))
D2 = (lambda own, n: "stem.conv1", lambda own, n: f"{own}conv{n}.norm" if own else "stem.conv1.norm", lambda i: f"res{i + 2}", lambda own: (f"{own}shortcut", f"{own}shortcut.norm"))


@pytest.mark.parametrize("name, stride", [("resnet18", 16), ("vit_tiny_patch16_224", None), *slow(("resnet50", 16), ("resnet50", 8), ("resnet50d", None), ("efficientnet_b0", None))])
def test_timm_loads_its_file_and_gives_equal_features(name, stride, tmp_path):
    encoder = trained(name, stride)
    report = export_encoder(encoder, name, "timm", tmp_path / "backbone.safetensors")
    assert report.gap < 1e-5 and report.tensors == len(encoder.state_dict())
    eval(report.usage.splitlines()[0], {"timm": __import__("timm")})                      # the line that the report gives works as it stands
    assert export_encoder(encoder, name, "timm", tmp_path / "backbone.pth").gap < 1e-5


@pytest.mark.parametrize("name, stride", [("resnet18", None), ("resnet50", 16), *slow(("resnet50", None), ("resnet50", 8), ("resnext50_32x4d", None))])
def test_torchvision_loads_its_file_and_gives_equal_features(name, stride, tmp_path):
    encoder = trained(name, stride)
    report = export_encoder(encoder, name, "torchvision", tmp_path / "backbone.pth")
    assert report.gap < 1e-5
    import torchvision
    place = {"torch": torch, "torchvision": torchvision}
    exec(report.usage, place)
    assert place["network"].load_state_dict(torch.load(tmp_path / "backbone.pth", weights_only=True), strict=False).missing_keys == ["fc.weight", "fc.bias"]


@pytest.mark.slow
def test_torchvision_segmentation_takes_the_file_as_its_backbone(tmp_path):
    "torchvision's own segmenters hold the same ResNet under `backbone`."
    from torchvision.models.segmentation import fcn_resnet50
    encoder = trained("resnet50", 8)
    export_encoder(encoder, "resnet50", "torchvision", tmp_path / "backbone.pth")
    network = fcn_resnet50(weights=None, weights_backbone=None, num_classes=3).eval()
    network.backbone.load_state_dict(torch.load(tmp_path / "backbone.pth", weights_only=True))
    assert feature_gap(encoder, lambda images: network.backbone(images)["out"]) < 1e-5


@pytest.mark.parametrize("key", LAYOUTS)
def test_names_and_shapes_are_those_of_the_tools_own_classes(key):
    tool, name = key.split("/")
    with torch.device("meta"): encoder = create_encoder(name)
    assert {k: list(v.shape) for k, v in STATES[tool](encoder, name).items()} == LAYOUTS[key]


@pytest.mark.parametrize("tool, name, stride", [("mmseg", "resnet50", 16), ("mmseg", "resnet50c", 16), ("detectron2", "resnet18", 32), ("detectron2", "resnet50", 32), *slow(("mmseg", "resnet50", 32), ("mmseg", "resnet50", 8))])
def test_a_reference_network_in_the_tools_names_gives_equal_features(tool, name, stride, tmp_path):
    encoder = trained(name, None if stride == 32 else stride)
    report = export_encoder(encoder, name, tool, tmp_path / "backbone.pth")
    state = torch.load(tmp_path / "backbone.pth", weights_only=True)[{"mmseg": "state_dict", "detectron2": "model"}[tool]]
    blocks, (strides, dilations) = {"resnet18": (2, 2, 2, 2)}.get(name, (3, 4, 6, 3)), {32: ((1, 2, 2, 2), (1, 1, 1, 1)), 16: ((1, 2, 2, 1), (1, 1, 1, 2)), 8: ((1, 2, 1, 1), (1, 1, 2, 4))}[stride]
    assert report.caveat is None and feature_gap(encoder, lambda images: reference(state, images, blocks, strides, dilations, OPEN if tool == "mmseg" else D2)) < 1e-5
    if tool == "mmseg": assert f"strides={strides}, dilations={dilations}, contract_dilation=True" in report.usage and "bgr_to_rgb=True, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]" in report.usage
    else: assert "PIXEL_MEAN: [123.675, 116.28, 103.53]" in report.usage and "STRIDE_IN_1X1: False" in report.usage and "FORMAT: RGB" in report.usage


def test_both_detectron2_formats_hold_the_same(tmp_path):
    encoder = trained("resnet18")
    for suffix in (".pkl", ".pth"): export_encoder(encoder, "resnet18", "detectron2", tmp_path / f"b{suffix}")
    zoo, plain = pickle.loads((tmp_path / "b.pkl").read_bytes()), torch.load(tmp_path / "b.pth", weights_only=True)
    assert zoo.keys() == plain.keys() == {"model", "__author__", "matching_heuristics", "pixcl_nb"} and zoo["matching_heuristics"] is True
    assert all(torch.equal(torch.from_numpy(zoo["model"][k]), plain["model"][k]) for k in plain["model"])


@pytest.mark.parametrize("tool, name, stride, words", [("detectron2", "resnet50", 16, "dilates the first block"), ("mmseg", "resnet18", 16, "basic block"), ("mmseg", "resnet50d", 16, "does not average"), ("mmseg", "resnet50", 16, None)])
def test_networks_that_differ_when_dilated_are_said(tool, name, stride, words):
    found = caveat(tool, name, stride)
    assert found is None if words is None else words in found and "NOT equal" in found


def test_a_wrong_tensor_is_noticed_before_anything_is_written(tmp_path):
    encoder = trained("resnet18")
    state = {**STATES["torchvision"](encoder, "resnet18")}
    state["layer1.0.bn1.weight"] = state["layer1.0.bn1.weight"] + 1
    with pytest.raises(RuntimeError, match="features differ by"): check_export(packed(state, "torchvision", ".pth", {}), encoder, "resnet18", "torchvision", ".pth")


@pytest.mark.parametrize("name, to, file, words", [("pixcl_tiny", "timm", "a.pth", "has no pixcl_tiny"), ("resnet50c", "torchvision", "a.pth", "no network 'resnet50c'"), ("resnet50c", "detectron2", "a.pth", "single-convolution stem"),
                                                    ("vit_tiny_patch16_224", "mmseg", "a.pth", "are made of the ResNets"), ("resnet18", "mmseg", "a.pkl", "ends in .pth"), ("resnet18", "onnx", "a.pth", "unknown name 'onnx'")])
def test_what_cannot_be_exported_is_refused_in_one_line(name, to, file, words, tmp_path):
    with pytest.raises(ValueError, match=words) as error: export_encoder(create_encoder(name), name, to, tmp_path / file)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_with_the_tools_themselves_where_they_are():
    "mmsegmentation and detectron2 are not needed; where both can be imported, they load the files and give the features."
    if not all(map(importlib.util.find_spec, ("mmseg", "detectron2"))): pytest.skip("mmseg and detectron2 are not importable; see tests/tools/check_export.py")
    done = subprocess.run([sys.executable, "-W", "ignore", str(Path(__file__).parent / "tools" / "check_export.py")], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("features differ") >= 10, done.stdout + done.stderr
