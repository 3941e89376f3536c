"""A score says what it is of; a network sees the colours it was trained with; cells look where they look."""
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from pixcl_nb.cli import main
from pixcl_nb.evaluation.protocols import EvaluationReport, evaluate
from pixcl_nb.evaluation.score import confusion_matrix, SegmentationResult
from pixcl_nb.images.cells import cell_to_pixel
from pixcl_nb.images.views import random_view, ViewConfig
from pixcl_nb.methods.contract import create_method
from pixcl_nb.networks.encoders import cell_offset, create_encoder
from pixcl_nb.networks.encoding import encode, encode_images, looks_at
from pixcl_nb.positives.matching import geometric_matches, geometric_positions, match_points


def written(root, sizes, mask, names=("a", "b"), train="0\n1\n", val="2\n3\n"):
    "A folder data set of random pictures; `mask(size)` draws each label."
    rng = np.random.default_rng(0)
    for part in ("images", "labels"): (root / part).mkdir(parents=True)
    for i, size in enumerate(sizes):
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(root / f"images/{i}.png")
        Image.fromarray(mask(size)).save(root / f"labels/{i}.png")
    (root / "train.txt").write_text(train), (root / "val.txt").write_text(val), (root / "classes.json").write_text(json.dumps(list(names)))
    return root


def wires(size):
    mask = np.zeros(size, np.uint8)
    mask[5::8] = 1                                                     # lines of one pixel, which vanish when shrunk
    return mask


PRETRAIN = ["--steps", "1", "--batch-size", "2", "--set", "view.size=32", "--set", "queue_size=8", "--threads", "1", "--no-progress"]
PROBE = ["--set", "linear_probe.iterations=2", "--set", "linear_probe.pixels=200", "--threads", "1"]


# --- own resolution, words ---------------------------------------------------------------------------------------------
def test_a_run_is_scored_at_the_masks_own_size(tmp_path, capsys):
    root = written(tmp_path / "set", [(128, 128), (128, 128), (128, 128), (96, 120)], wires, ("ground", "wire"))
    data = ["--data", "folder", "--root", str(root), "--size", "32", "32"]
    colours = ["--set", "view.mean=[0.5,0.5,0.5]", "--set", "view.std=[0.25,0.25,0.25]"]
    assert main(["pretrain", "moco", *data, "--out", f"{tmp_path}/run", *PRETRAIN, *colours]) == 0
    capsys.readouterr()
    assert main(["evaluate", f"{tmp_path}/run", "--protocols", "linear_probe", "retrieve", "--out", f"{tmp_path}/r.json", *PROBE]) == 0
    said, report = capsys.readouterr().out, json.loads((tmp_path / "r.json").read_text())
    confusion = np.array(report["results"]["linear_probe"]["confusion"])
    assert confusion.sum() == 128 * 128 + 96 * 120 and confusion[1].sum() == 16 * 128 + 12 * 120
    scored = report["results"]["linear_probe"]["info"]["scored"]
    assert scored["masks"] == "from 96×120 to 128×128" and scored["images_at"] == "from 26×32 to 32×32" and report["results"]["retrieve"]["info"]["scored"]["masks"] == scored["masks"]
    assert report["info"]["mean"] == scored["mean"] == [.5, .5, .5] and report["info"]["std"] == [.25, .25, .25] and report["info"]["weights"]["not_loaded"] == []
    for words in (f"{confusion.sum():,} pixels of masks from 96×120 to 128×128", "images seen at", "of 2 classes", "mean 0.5/0.5/0.5", "tensors of"): assert words in said, (words, said)


class Set:
    def __init__(self, items, names): self.items, self.class_names, self.num_classes = items, names, len(names)
    def __len__(self): return len(self.items)
    def __getitem__(self, index): return self.items[index]


def pictures(count, seed=0, side=32, classes=2):
    g = torch.Generator().manual_seed(seed)
    return [(torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=g), torch.randint(0, classes, (side // 8, side // 8), generator=g).repeat_interleave(8, 0).repeat_interleave(8, 1)) for _ in range(count)]


class Blocks(nn.Module):
    channels, stride = 3, 8
    def forward(self, images): return F.avg_pool2d(images, 8)


def test_a_stray_pixel_is_said():
    target = torch.tensor([0, 1, 2]).repeat_interleave(10_000)
    stray = target.clone(); stray[5] = 3
    result = SegmentationResult(confusion_matrix(stray, target, 4), list("abcd"))
    assert result.miou == pytest.approx(.75, abs=1e-3) and result.absent == [3] and result.counted == [0, 1, 2, 3]
    said = repr(EvaluationReport("x", {"linear_probe": result}))
    assert "mean over 4 of 4 classes (not in the truth: d; predicted all the same, so counted as 0: d)" in said and "30,000 pixels" in said
    clean = SegmentationResult(confusion_matrix(target, target, 4), list("abcd"))
    assert "mean over 3 of 4 classes (not in the truth: d)" in repr(clean) and clean.to_dict()["not_in_truth"] == ["d"]


def test_two_classes_of_one_name_are_kept():
    target = torch.tensor([0, 1, 2])
    plain = SegmentationResult(confusion_matrix(torch.tensor([0, 0, 2]), target, 3), ["road", "car", "road"]).to_dict()
    assert plain["iou"] == {"road": .5, "car": 0., "road (id 2)": 1.}


def test_the_same_picture_on_both_sides_is_said(tmp_path, capsys):
    items = pictures(4)
    both = evaluate(Blocks(), (Set(items, ["a", "b"]), Set(items[2:] + pictures(1, 9), ["a", "b"])), "retrieve", options={"retrieve": dict(k=1)})
    assert both.info["in_both"] == ["0", "1"] and "2 of 3 test pictures are in both parts, train and test (0, 1)" in repr(both)
    apart = evaluate(Blocks(), (Set(items, ["a", "b"]), Set(pictures(2, 9), ["a", "b"])), "retrieve")
    assert apart.info["in_both"] == [] and "BEWARE" not in repr(apart)
    root = written(tmp_path / "set", [(64, 64)] * 4, wires, val="0\n3\n")
    (root / "images/3.png").write_bytes((root / "images/1.png").read_bytes())                          # one picture under two names
    assert main(["evaluate", "--data", "folder", "--root", str(root), "--protocols", "retrieve", "--set", "retrieve.k=1", "--threads", "1"]) == 0
    assert "2 of 2 test pictures are in both parts, train and test (0, 3)" in capsys.readouterr().out


def test_collapse_is_measured_without_labels(tmp_path, capsys):
    blind = Set([(image, torch.full_like(mask, 255)) for image, mask in pictures(3, side=64)], ["?"])
    found = evaluate(Blocks(), (blind, blind), "rank").results["rank"]
    assert 1 <= found["effective_rank"] <= 3 and found["cells"] == 3 * 64
    with pytest.raises(ValueError, match="holds no labelled pixel.*'rank' needs none"): evaluate(Blocks(), (blind, blind), ["rank", "cluster"])
    for i, (image, _) in enumerate(pictures(3, side=64)): Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"{i}.png")
    assert main(["evaluate", "--data", "images", "--root", str(tmp_path), "--protocols", "rank", "--threads", "1"]) == 0
    assert "effective_rank" in capsys.readouterr().out


# --- colours -----------------------------------------------------------------------------------------------------------
class Spy(Blocks):
    "Remembers what it was shown."
    def __init__(self, mean=None, std=None):
        super().__init__()
        self.seen = []
        if mean: self.mean, self.std = (mean,) * 3, (std,) * 3
    def __deepcopy__(self, memo): return self
    def forward(self, images):
        self.seen.append((float(images.min()), float(images.max())))
        return super().forward(images)


@pytest.mark.parametrize("protocol", ["linear_probe", "retrieve", "cluster", "separation", "rank", "finetune"])
def test_every_protocol_feeds_the_encoders_own_colours(protocol):
    spy, data = Spy(.5, .5), (Set(pictures(4), ["a", "b"]), Set(pictures(3, 9), ["a", "b"]))
    evaluate(spy, data, protocol, options={"finetune": dict(steps=2, batch_size=2)})
    assert min(low for low, _ in spy.seen) >= -1.001 and max(high for _, high in spy.seen) <= 1.001 and max(high for _, high in spy.seen) > .9
    spy.seen.clear()
    encode(spy, pictures(1)[0][0][None]), encode_images(spy, [pictures(1)[0][0]])
    assert all(-1.001 <= low and high <= 1.001 for low, high in spy.seen)


def test_timms_own_colours_and_a_methods():
    assert create_encoder("vit_tiny_patch16_224").mean == (.5, .5, .5) and create_encoder("resnet18").std == (.229, .224, .225)
    own = Spy(.5, .5)
    assert create_method("moco", own).config.view.mean == (.5, .5, .5)                       # nothing given: the encoder's
    given = create_method("moco", own, view=ViewConfig(mean=(.1, .2, .3)))
    assert given.encoder.mean == (.1, .2, .3) and given.config.view.mean == (.1, .2, .3)     # given: the encoder is fed so from now on
    assert create_method("cp2", Spy(.5, .5)).config.compose.view.std == (.5, .5, .5)
    bad = Blocks(); bad.mean, bad.std = (.5,), (.5,)
    with pytest.raises(ValueError, match="encoder: its .mean"): encode(bad, pictures(1)[0][0][None])


# --- where cells look --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name, stride", [("pixcl_tiny", 8), ("pixcl_tiny", 16), ("vit_tiny_patch16_224", 16), ("mobilenetv3_small_050", 32), ("tf_efficientnet_lite0", 32)])
def test_the_offset_is_the_centre_of_the_receptive_field(name, stride):
    encoder = create_encoder(name, stride if name == "pixcl_tiny" else None)
    expected = {"pixcl_tiny": (1 - stride) / 2, "vit_tiny_patch16_224": 0., "mobilenetv3_small_050": -15.5, "tf_efficientnet_lite0": 15.5}[name]
    assert encoder.stride == stride and encoder.offset == (expected, expected)
    assert cell_to_pixel(torch.tensor([0]), (2, 2), stride, encoder.offset).tolist()[0] == [stride / 2 + expected] * 2


def test_a_network_of_ones_own_is_measured_once_and_left_alone():
    torch.manual_seed(0)
    class Own(nn.Module):
        channels, stride = 4, 4
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        def forward(self, images): return self.net(images)
    own = Own(); before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    assert cell_offset(own) == (-1.5, -1.5) == own.offset
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.state_dict().items()) and own.training
    class Noise(nn.Module):
        channels, stride = 2, 8
        def forward(self, images): return torch.randn(len(images), 2, *(side // 8 for side in images.shape[2:]))
    assert cell_offset(Noise()) == (0., 0.)


class Corner(nn.Module):
    "Each cell holds the colour of the pixel in its corner and of three more beside it: it looks 3 pixels to the upper left of its centre."
    channels, stride, offset = 12, 8, (-3., -3.)
    def forward(self, images): return torch.cat([images[..., dy::8, dx::8] for dy in (0, 1) for dx in (0, 1)], 1)


def test_matches_between_mirrored_views_are_where_the_cells_look():
    torch.manual_seed(0)
    smooth = F.interpolate(torch.rand(6, 3, 40, 40), (192, 192), mode="bicubic").clamp(0, 1).mul(255).to(torch.uint8)
    views = [random_view(smooth, ViewConfig(size=128, flip=flip, jitter=0, grayscale=0, blur=0, scale=(.6, 1.)), torch.Generator().manual_seed(1)) for flip in (0., 1.)]
    a, b = (Corner()(view.image) for view in views)
    def difference(offset):
        match = geometric_matches(*views, 8, offset)
        there, kept = b.flatten(2).gather(2, match.clamp_min(0)[:, None].expand(-1, 12, -1)), match >= 0
        mirrored = there.view(6, 2, 2, 3, -1).flip(2).reshape(there.shape)               # the block's own left and right change places
        return float((a.flatten(2) - mirrored).abs().mean(1)[kept].mean())
    assert difference(Corner.offset) < .75 * difference((0., 0.))
    place = cell_to_pixel(geometric_matches(*views, 8, Corner.offset), (16, 16), 8, Corner.offset)
    apart = (place - geometric_positions(*views, 8, Corner.offset)).abs()
    assert apart[~apart.isnan()].max() <= 4.001                                            # within half a cell of where it looks


def test_points_of_a_mirrored_picture_are_found_where_they_are():
    "Cell (5, 5) of a looks at (40, 40); mirrored that is (56, 40), where cell (5, 7) of b looks. Taken for their centres, the answer is 4 pixels off."
    a, b = torch.full((2, 12, 12), .1), torch.full((2, 12, 12), .1)
    a[0, 5, 5] = b[0, 5, 7] = 1
    assert match_points(a, b, torch.tensor([[40., 40.]]), 8, refine=False, offset=(-4., -4.)).tolist() == [[96 - 40., 40.]]
    assert match_points(a, b, torch.tensor([[40., 40.]]), 8, refine=False).tolist() == [[60., 44.]]


def test_what_weights_look_at_is_measured_by_mirror_images():
    x, y = looks_at(Corner())
    assert abs(x + 3) < 1 and abs(y + 3) < 1
    assert looks_at(Blocks()) == pytest.approx((0., 0.), abs=.5)
