#!/usr/bin/env python3
"""Load exported backbones with mmsegmentation's and detectron2's own classes and loaders, where those can be imported, and compare features.

    PYTHONPATH=/where/mmseg/and/detectron2/are python tests/tools/check_export.py [--golden tests/golden/export_layouts.json]

Neither tool is needed by pixcl_nb. mmsegmentation's package imports compiled operators that its ResNet does not use, so the
two modules that matter are imported without it; their files are unchanged. `--golden` writes the names and shapes found.
"""
import argparse
import importlib
import importlib.machinery
import importlib.util
import json
import sys
import tempfile
import types
from pathlib import Path

import torch

from pixcl_nb.networks.encoders import create_encoder
from pixcl_nb.experiments.export import dilations, export_encoder, feature_gap, resnet_kind

NETWORKS = [("mmseg", "resnet18", 32), ("mmseg", "resnet50", 32), ("mmseg", "resnet50", 16), ("mmseg", "resnet50", 8), ("mmseg", "resnet50c", 16), ("mmseg", "resnet50d", 32),
            ("detectron2", "resnet18", 32), ("detectron2", "resnet50", 32), ("detectron2", "resnet101", 32)]


def scrambled(encoder):
    "Normalisation that is not the identity, so that a wrong name cannot pass unseen."
    generator = torch.Generator().manual_seed(1)
    for name, tensor in encoder.state_dict().items():
        if "running_mean" in name or name.endswith("bias"): tensor.copy_(.1 * torch.randn(tensor.shape, generator=generator))
        if "running_var" in name: tensor.copy_(.5 + torch.rand(tensor.shape, generator=generator))
        if tensor.dim() == 1 and name.endswith("weight"): tensor.copy_(.5 + .5 * torch.rand(tensor.shape, generator=generator))
    return encoder.eval()


def mmseg_module():
    "mmseg.models.backbones.resnet, without the packages around it."
    import mmseg
    root = Path(mmseg.__file__).parent
    for name in ("models", "models/backbones", "models/utils"):
        module = types.ModuleType("mmseg." + name.replace("/", "."))
        module.__path__, module.__spec__ = [str(root / name)], importlib.machinery.ModuleSpec(module.__name__, None, is_package=True)
        sys.modules[module.__name__] = module
    sys.modules["mmseg.models.utils"].ResLayer = importlib.import_module("mmseg.models.utils.res_layer").ResLayer
    return importlib.import_module("mmseg.models.backbones.resnet")


def in_mmseg(path, name, stride):
    from mmengine.runner import load_checkpoint
    depth, variant = resnet_kind(name, "mmseg")
    strides, steps = dilations(stride)
    module = mmseg_module()
    kind = {"": module.ResNet, "c": module.ResNetV1c, "d": module.ResNetV1d}[variant]
    network = kind(depth=depth, strides=strides, dilations=steps, contract_dilation=True, style="pytorch")
    network.eval()                                                          # mmseg's returns nothing
    load_checkpoint(network, str(path), map_location="cpu", strict=True)
    return network, lambda images: network(images)[-1]


def in_detectron2(path, name, stride):
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import get_cfg
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.backbone.resnet import build_resnet_backbone
    cfg = get_cfg()
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.STRIDE_IN_1X1, cfg.MODEL.RESNETS.OUT_FEATURES = resnet_kind(name, "detectron2")[0], False, ["res5"]
    if cfg.MODEL.RESNETS.DEPTH < 50: cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    network = build_resnet_backbone(cfg, ShapeSpec(channels=3)).eval()
    whole = torch.nn.ModuleDict({"backbone": torch.nn.ModuleDict({"bottom_up": network})})          # as a detector holds it: names are matched by their ends
    unmatched = DetectionCheckpointer(whole).load(str(path))
    assert not network.state_dict().keys() - {k.removeprefix("backbone.bottom_up.") for k in whole.state_dict()}
    return network, lambda images: network(images)["res5"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--golden", type=Path, help="write the layouts found to this file")
    arguments, layouts, failed = parser.parse_args(), {}, 0
    for tool, name, stride in NETWORKS:
        if importlib.util.find_spec(tool) is None: print(f"{tool}: not importable, {name} not checked"); continue
        torch.manual_seed(0)
        encoder = scrambled(create_encoder(name, None if stride == 32 else stride))
        for suffix in (".pth", ".pkl") if tool == "detectron2" else (".pth",):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"backbone{suffix}"
                export_encoder(encoder, name, tool, path)
                network, features = {"mmseg": in_mmseg, "detectron2": in_detectron2}[tool](path, name, stride)
            gap = feature_gap(encoder, features, side=96)
            failed += not gap < 1e-5
            print(f"{tool:11} {name:10} stride {stride:2} {suffix}: features differ by {gap:.1e} of their largest value")
        if (tool, name) in (("mmseg", "resnet50"), ("mmseg", "resnet50c"), ("mmseg", "resnet50d"), ("detectron2", "resnet50"), ("detectron2", "resnet18")):
            layouts[f"{tool}/{name}"] = {key: list(tensor.shape) for key, tensor in network.state_dict().items()}
    if arguments.golden and layouts: arguments.golden.write_text(json.dumps(layouts, separators=(",", ":")) + "\n")
    return int(failed > 0)


if __name__ == "__main__": sys.exit(main())
