"`pixcl_nb.evaluation`: scores against torchmetrics, encoders left untouched, every bad input named."
import copy
import json

import pytest
import torch
from torch import nn
from torchmetrics.classification import MulticlassJaccardIndex

from pixcl_nb.evaluation.finetuning import finetune, random_crop
from pixcl_nb.evaluation.probe import features_at, fit_softmax_regression, linear_probe
from pixcl_nb.evaluation.protocols import evaluate
from pixcl_nb.evaluation.retrieve_and_cluster import cluster, match_clusters, NearestNeighbours, retrieve
from pixcl_nb.evaluation.score import batches_of_one_size, boundary_counts, boundary_f_score, confusion_matrix, Items, predict_logits, predict_mask, SegmentationResult, Segmenter, window_starts
from pixcl_nb.evaluation.separation import foreground_separation, separability
from pixcl_nb.losses.collapse import alignment, effective_rank, uniformity
from pixcl_nb.images.cells import pad_to_stride


class Bars:
    "Noisy images of three classes, told apart by colour; 255 on a border column."
    num_classes, class_names, extents = 3, ["red", "green", "blue"], None
    def __init__(self, count=6, size=(32, 40), seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.items = []
        for index in range(count):
            mask = torch.randint(0, 3, (size[0] // 8, size[1] // 8), generator=generator).repeat_interleave(8, 0).repeat_interleave(8, 1)
            image = 60 + 120 * torch.eye(3)[mask].permute(2, 0, 1) + 20 * torch.rand(3, *size, generator=generator)
            mask[:, 0] = 255
            self.items.append((image.to(torch.uint8), mask))
    def __len__(self): return len(self.items)
    def __getitem__(self, index): return self.items[index]


class Small(nn.Module):
    channels, stride = 8, 4
    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.net = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1))
    def forward(self, images): return self.net(images)


@pytest.fixture(autouse=True)
def seeded(): torch.manual_seed(0)


@pytest.fixture(scope="module")
def train(): return Bars(6)
@pytest.fixture(scope="module")
def test(): return Bars(4, seed=1)


# --- the score -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(12))
def test_miou_is_torchmetrics(seed):
    generator = torch.Generator().manual_seed(seed)
    classes, absent = 2 + seed, seed % 3
    top = max(2, classes - absent)                                         # the last classes occur nowhere
    target, prediction = (torch.randint(0, top, (3, 17, 23), generator=generator) for _ in range(2))
    target[torch.rand(target.shape, generator=generator) < .2] = 255
    if seed % 2: prediction[prediction == 0] = 1                           # a class never predicted
    metric = MulticlassJaccardIndex(classes, average="macro", ignore_index=255)
    metric.update(prediction, target)
    result = SegmentationResult(confusion_matrix(prediction, target, classes), [str(c) for c in range(classes)])
    assert abs(result.miou - float(metric.compute())) < 1e-6
    per_class = MulticlassJaccardIndex(classes, average="none", ignore_index=255)(prediction, target)
    assert torch.allclose(result.iou.nan_to_num(0).float(), per_class, atol=1e-6)


def test_confusion_is_the_loop():
    prediction, target = torch.tensor([[0, 1], [1, 2]]), torch.tensor([[0, 0], [1, 255]])
    slow = torch.zeros(3, 3, dtype=torch.long)
    for p, t in zip(prediction.flatten().tolist(), target.flatten().tolist()):
        if t != 255: slow[t, p] += 1
    assert torch.equal(confusion_matrix(prediction, target, 3), slow)


def test_empty_union_leaves_the_mean():
    result = SegmentationResult(torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]]), ["a", "b", "c"])
    assert result.miou == pytest.approx((3 / 4 + 4 / 5) / 2) and result.iou[2].isnan()
    assert result.restrict([0, 2]).miou == pytest.approx(3 / 4)
    assert result.pixel_accuracy == pytest.approx(7 / 8)
    again = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert again["iou"]["c"] is None and again["confusion"] == result.confusion.tolist()
    assert "mIoU 0.775" in repr(result) and "<table>" in result._repr_html_()


def test_score_bad_input():
    with pytest.raises(ValueError, match="prediction: has shape"): confusion_matrix(torch.zeros(2, 2).long(), torch.zeros(2, 3).long(), 2)
    with pytest.raises(ValueError, match="prediction: holds class id 5"): confusion_matrix(torch.tensor([5]), torch.tensor([0]), 2)
    with pytest.raises(ValueError, match="target: holds class id -1"): confusion_matrix(torch.tensor([0]), torch.tensor([-1]), 2)
    with pytest.raises(ValueError, match="classes: ids"): SegmentationResult(torch.eye(2), ["a", "b"], classes=[2])
    with pytest.raises(ValueError, match="class_names"): SegmentationResult(torch.eye(2), ["a"])


# --- features at pixels ----------------------------------------------------------------------------------------------
def test_features_at_is_upsampling():
    features = torch.randn(1, 5, 3, 4)
    upsampled = torch.nn.functional.interpolate(features, scale_factor=8, mode="bilinear", align_corners=False)
    rows, columns = torch.arange(24).repeat_interleave(32), torch.arange(32).repeat(24)
    assert torch.allclose(features_at(features, rows, columns, 8), upsampled[0].flatten(1).T, atol=1e-5)


def test_segmenter_size_and_geometry():
    "Cells stay where they are when the image is no multiple of the stride."
    class Mean(nn.Module):
        channels, stride = 3, 8
        def forward(self, x): return torch.nn.functional.avg_pool2d(x, 8)
    image = torch.zeros(1, 3, 27, 34); image[..., 17:, :] = 1
    logits = Segmenter(Mean(), nn.Identity())(image)
    assert logits.shape == (1, 3, 27, 34)
    assert torch.allclose(logits[0, 0, 4], torch.zeros(34)) and logits[0, 0, 20, 5] > .7


# --- probe and fine-tuning -------------------------------------------------------------------------------------------
def fingerprint(module): return [value.clone() for value in module.state_dict().values()], [m.training for m in module.modules()], [p.requires_grad for p in module.parameters()]


def same(first, second): return all(torch.equal(a, b) for a, b in zip(first[0], second[0])) and first[1:] == second[1:]


RUNS = {"linear_probe": lambda e, a, b: linear_probe(e, a, b, pixels=2000), "finetune": lambda e, a, b: finetune(e, a, b, steps=3, batch_size=2)}


@pytest.mark.parametrize("name", RUNS)
def test_deterministic_and_untouched(name, train, test):
    encoder = Small().train()
    before, state = fingerprint(encoder), torch.get_rng_state()
    first, second = RUNS[name](encoder, train, test), RUNS[name](encoder, train, test)
    assert same(before, fingerprint(encoder)) and torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.confusion, second.confusion) and first.history == second.history
    assert first.confusion.sum() == sum((mask != 255).sum() for _, mask in test.items)
    json.dumps(first.to_dict(), allow_nan=False)
    assert first.predict(test[0][0]).shape == test[0][1].shape


def test_probe_learns_colours(train, test):
    assert linear_probe(Small(), train, test, pixels=5000).miou > .55
    assert linear_probe(Small(), train, test, pixels=5000, classes=[0]).classes == [0]


def test_probe_is_the_minimum(train):
    "The gradient of the convex objective vanishes, and a different start of the draw changes little."
    from pixcl_nb.evaluation.probe import fit_softmax_regression
    rows, labels = torch.randn(500, 6), torch.randint(0, 3, (500,))
    weight, bias, history = fit_softmax_regression(rows, labels, 3, 1e-2, 200)
    weight.requires_grad_(True)
    loss = torch.nn.functional.cross_entropy(rows @ weight.T + bias, labels) + 5e-3 * weight.square().sum()
    assert torch.autograd.grad(loss, weight)[0].abs().max() < 5e-4 and history[-1] <= history[0]


def test_finetune_learns(train, test):
    result = finetune(Small(), train, test, steps=30, batch_size=4, lr=1e-2)
    assert result.miou > .5 and result.history[-1] < result.history[0] and len(result.history) == 30


@pytest.mark.parametrize("options", [dict(head="aspp"), dict(optimiser="sgd", lr=1e-2), dict(batch_norm="eval"), dict(precision="bf16"), dict(crop=(16, 24)), dict(window=16)])
def test_finetune_options(options, train, test):
    result = finetune(Small(), train, test, steps=2, batch_size=2, **options)
    assert 0 <= result.miou <= 1 and len(result.history) == 2


def test_pretrained_head_is_copied(train, test):
    from pixcl_nb.networks.encoders import FCNHead
    head = FCNHead(8, None)
    before = fingerprint(head)
    result = finetune(Small(), train, test, steps=1, batch_size=2, head=head, lr=1e-9)
    assert same(before, fingerprint(head))
    key = next(k for k, v in head.state_dict().items() if k.endswith("weight"))
    assert torch.allclose(head.state_dict()[key], result.model.head.state_dict()[key], atol=1e-6)


def test_few_and_mixed_sizes(test):
    "One image is enough, and images may differ in size, or be padded."
    mixed = Bars(3)
    mixed.items = [(image[:, :20 + 3 * i], mask[:20 + 3 * i]) for i, (image, mask) in enumerate(mixed.items)]
    assert linear_probe(Small(), Bars(1), mixed, pixels=500).confusion.sum() == sum((m != 255).sum() for _, m in mixed.items)
    finetune(Small(), mixed, mixed, steps=1, batch_size=2)
    padded = Bars(2)
    padded.extents = torch.tensor([[24, 40], [32, 16]])
    padded.items = [(image, torch.where((torch.arange(32)[:, None] < e[0]) & (torch.arange(40) < e[1]), mask, 255)) for (image, mask), e in zip(padded.items, padded.extents)]
    assert [tuple(i.shape) for i, _, _ in batches_of_one_size(Items("test", padded))] == [(1, 3, 24, 40), (1, 3, 32, 16)]
    assert linear_probe(Small(), Bars(2), padded, pixels=500).confusion.sum() == sum((m != 255).sum() for _, m in padded.items)


# --- bad input -------------------------------------------------------------------------------------------------------
def edited(data, change):
    data = copy.deepcopy(data)
    change(data)
    return data


def all_ignored(data): data.items = [(image, torch.full_like(mask, 255)) for image, mask in data.items]
def other_size(data): data.items[1] = (data.items[1][0], data.items[1][1][:-1])
def large_id(data): data.items[0][1][3, 3] = 7
def float_image(data): data.items[0] = (data.items[0][0].float(), data.items[0][1])
def emptied(data): data.items = []


BAD = [(all_ignored, "train: holds no labelled pixel"), (other_size, r"train\[1\] mask: has size"), (large_id, r"train\[0\] mask: holds class id 7"),
       (float_image, r"train\[0\] image: expected uint8"), (emptied, "train: is empty")]


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("change,message", BAD)
def test_bad_data(run, change, message, train, test):
    with pytest.raises(ValueError, match=message): RUNS[run](Small(), edited(train, change), test)
    with pytest.raises(ValueError, match=message.replace("train", "test").replace("test: holds no labelled", "holds no labelled")): RUNS[run](Small(), train, edited(test, change))


def test_faults_of_the_last_test_image_show_before_training(train, test):
    def last_id(data): data.items[-1][1][0, 5] = 9
    steps = []
    with pytest.raises(ValueError, match=r"test\[3\] mask: holds class id 9"): finetune(Small(), train, edited(test, last_id), steps=2, batch_size=2, on_step=lambda *a: steps.append(a))
    assert steps == []


def test_transformers_too(train, test):
    from pixcl_nb.networks.encoders import create_encoder
    encoder = create_encoder("vit_tiny_patch16_224", img_size=32, depth=1)
    assert linear_probe(encoder, train, test, pixels=500).confusion.sum() == retrieve(encoder, train, test, memory_size=100).confusion.sum()
    finetune(encoder, train, test, steps=1, batch_size=2)


@pytest.mark.parametrize("run", RUNS)
def test_class_mismatch_and_nan_encoder(run, train, test):
    other = edited(test, lambda data: setattr(data, "num_classes", 4))
    with pytest.raises(ValueError, match="test: has 4 classes"): RUNS[run](Small(), train, other)
    broken = Small()
    broken.net[0].weight.data[0] = float("nan")
    with pytest.raises(ValueError, match="encoder: its feature map: holds"): RUNS[run](broken, train, test)
    with pytest.raises(TypeError, match="encoder: expected"): RUNS[run](nn.Conv2d(3, 3, 1), train, test)
    wrong = Small()
    wrong.channels = 9
    with pytest.raises(ValueError, match="encoder: gave features"): RUNS[run](wrong, train, test)


@pytest.mark.parametrize("options,message", [(dict(steps=0), "steps: 0"), (dict(head="fnc"), "head: unknown name 'fnc', did you mean 'fcn'"), (dict(batch_size=1), "batch_size"),
                                             (dict(lr=0), "lr"), (dict(optimiser="adam"), "optimiser"), (dict(batch_norm="off"), "batch_norm"), (dict(precision="half"), "precision"),
                                             (dict(head=nn.Conv2d(8, 5, 1)), "head: gives"), (dict(head=nn.Conv2d(4, 3, 1)), "head: cannot take")])
def test_finetune_bad_options(options, message, train, test):
    with pytest.raises(ValueError, match=message): finetune(Small(), train, test, **{"steps": 1, "batch_size": 2, **options})


def test_finetune_stops_at_nan(train, test):
    with pytest.raises(RuntimeError, match="the loss became"): finetune(Small(), train, test, steps=30, batch_size=2, lr=1e30, optimiser="sgd")


@pytest.mark.parametrize("options,message", [(dict(pixels=0), "pixels"), (dict(iterations=0), "iterations"), (dict(batch_size=0), "batch_size")])
def test_probe_bad_options(options, message, train, test):
    with pytest.raises(ValueError, match=message): linear_probe(Small(), train, test, **options)


# --- crops and windows -----------------------------------------------------------------------------------------------
def test_crop_keeps_image_and_mask_together():
    mask = torch.arange(64).view(8, 8).repeat_interleave(4, 0).repeat_interleave(4, 1)
    image = mask.to(torch.uint8).expand(3, -1, -1).contiguous() * 3
    for seed in range(5):
        picture, cut = random_crop(image, mask, (24, 24), (1., 1.), generator=torch.Generator().manual_seed(seed))
        assert cut.shape == (24, 24) and (cut != 255).all()
        assert ((picture[0].float() - 3 * cut).abs() < 1).float().mean() > .5       # pixel-exact inside blocks
    _, cut = random_crop(image, mask, (64, 64), (.5, .5), generator=torch.Generator().manual_seed(0))
    assert (cut == 255).any() and (cut != 255).any()


def test_crop_is_identity_at_scale_one():
    image, mask = Bars(1)[0]
    picture, cut = random_crop(image, mask, mask.shape, (1., 1.), flip=0.)
    assert torch.equal(picture, image) and torch.equal(cut, mask)
    picture, cut = random_crop(image, mask, mask.shape, (1., 1.), flip=1.1)
    assert torch.equal(picture, image.flip(-1)) and torch.equal(cut, mask.flip(-1))


@pytest.mark.parametrize("length,window,overlap", [(10, 4, .5), (10, 10, .5), (7, 20, .5), (31, 8, 0.), (31, 8, .9)])
def test_windows_cover(length, window, overlap):
    starts = window_starts(length, window, overlap)
    covered = {p for s in starts for p in range(s, min(s + window, length))}
    assert covered == set(range(length)) and (starts[-1] + window == length or window >= length)


def test_sliding_window_of_a_pixelwise_model_is_the_whole():
    model, image = nn.Conv2d(3, 4, 1), torch.randint(0, 256, (3, 37, 50), dtype=torch.uint8)
    assert torch.allclose(predict_logits(model, image[None]), predict_logits(model, image[None], (16, 20), .5), atol=1e-5)
    assert torch.equal(predict_mask(model, image), predict_mask(model, image, window=16)) and model.training
    with pytest.raises(ValueError, match="overlap"): predict_mask(model, image, 16, 1.)
    with pytest.raises(ValueError, match="image"): predict_mask(model, image.float())


# --- retrieval and clustering ----------------------------------------------------------------------------------------
class Colours(nn.Module):
    "Mean colour of 4x4 cells: separable by construction."
    channels, stride = 3, 4
    def forward(self, images): return torch.nn.functional.avg_pool2d(images, 4)


LOOKUPS = {"retrieve": lambda e, a, b: retrieve(e, a, b, memory_size=300), "cluster": lambda e, a, b: cluster(e, b, cells=300)}


@pytest.mark.parametrize("name", LOOKUPS)
def test_lookups_are_deterministic_and_leave_the_encoder(name, train, test):
    encoder = Small().train()
    before, state = fingerprint(encoder), torch.get_rng_state()
    first, second = LOOKUPS[name](encoder, train, test), LOOKUPS[name](encoder, train, test)
    assert same(before, fingerprint(encoder)) and torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.confusion, second.confusion)
    assert LOOKUPS[name](Colours(), train, test).miou > .8


def test_retrieval_is_the_loop(train, test):
    "One query cell at a time, one neighbour at a time."
    from pixcl_nb.evaluation.retrieve_and_cluster import NearestNeighbours
    rows, shares = nn.functional.normalize(torch.randn(20, 5), dim=1), torch.rand(20, 3)
    features = torch.randn(2, 5, 2, 3)
    fast = NearestNeighbours(rows, shares, 4, .1, chunk=5)(features)
    for b in range(2):
        for r in range(2):
            for c in range(3):
                query = features[b, :, r, c] / features[b, :, r, c].norm()
                cosines = [float(query @ row) for row in rows]
                best = sorted(range(20), key=lambda i: -cosines[i])[:4]
                weights = torch.tensor([cosines[i] / .1 for i in best]).softmax(0)
                assert torch.allclose(sum(w * shares[i] for w, i in zip(weights, best)), fast[b, :, r, c], atol=1e-5)


def test_cell_labels_count_pixels():
    from pixcl_nb.images.cells import cell_labels
    mask = torch.tensor([[[0, 0, 1], [0, 255, 1]]])
    assert torch.equal(cell_labels(mask, 2, 2), torch.tensor([[[[.75, 0.]], [[0., .5]]]]))


def test_cluster_matching():
    from pixcl_nb.evaluation.retrieve_and_cluster import match_clusters
    counts = torch.tensor([[0, 9, 1, 0], [8, 0, 0, 2]])
    assert match_clusters(counts, "hungarian").tolist() == [[9, 0, 1], [0, 8, 2]]
    assert match_clusters(counts, "majority").tolist() == [[10, 0, 0], [0, 10, 0]]
    result = SegmentationResult(match_clusters(counts, "hungarian"), ["a", "b"])
    assert result.miou == pytest.approx((.9 + .8) / 2) and result.pixel_accuracy == pytest.approx(17 / 20)


@pytest.mark.parametrize("call,message", [
    (lambda a, b: retrieve(Small(), a, b, k=0), "k: 0"), (lambda a, b: retrieve(Small(), a, b, temperature=0), "temperature"),
    (lambda a, b: retrieve(Small(), edited(a, all_ignored), b), "memory: holds no labelled"), (lambda a, b: retrieve(Small(), a, edited(b, lambda d: setattr(d, "num_classes", 5))), "test: has 5"),
    (lambda a, b: cluster(Small(), b, matching="best"), "matching: unknown"), (lambda a, b: cluster(Small(), b, k=1), "k: 1"), (lambda a, b: cluster(Small(), b, k=40, cells=20), "cells"),
    (lambda a, b: cluster(Small(), edited(b, emptied)), "test: is empty")])
def test_lookup_bad_input(call, message, train, test):
    with pytest.raises(ValueError, match=message): call(train, test)


# --- separability, boundaries, collapse ------------------------------------------------------------------------------
def test_auroc_is_pair_counting():
    together, apart = torch.randint(0, 6, (40,)).float(), torch.randint(0, 5, (30,)).float()
    pairs = [(1. if a > b else .5 if a == b else 0.) for a in together.tolist() for b in apart.tolist()]
    assert separability(together, apart) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    assert separability(torch.ones(3), torch.ones(5)) == .5 and separability(torch.tensor([2.]), torch.tensor([1.])) == 1.
    with pytest.raises(ValueError, match="fg_bg: is empty"): separability(torch.ones(2), torch.zeros(0))
    with pytest.raises(ValueError, match="fg_fg: holds 1 NaN"): separability(torch.tensor([float("nan")]), torch.ones(2))


def test_foreground_separation_is_the_loop():
    features, mask = torch.randn(2, 4, 2, 3), torch.tensor([[[1, 1, 0], [0, 0, 1]], [[0, 0, 0], [1, 1, 0]]]).bool()
    unit, fg_fg, fg_bg = nn.functional.normalize(features.flatten(2), dim=1), [], []
    for b in range(2):
        for i in range(6):
            for j in range(i + 1, 6):
                value, kinds = float(unit[b, :, i] @ unit[b, :, j]), int(mask[b].flatten()[i]) + int(mask[b].flatten()[j])
                if kinds == 2: fg_fg.append(value)
                if kinds == 1: fg_bg.append(value)
    found = foreground_separation(features, mask)
    assert torch.allclose(found["fg_fg"].sort().values, torch.tensor(sorted(fg_fg)), atol=1e-6)
    assert torch.allclose(found["fg_bg"].sort().values, torch.tensor(sorted(fg_bg)), atol=1e-6)
    assert found["auroc"] == pytest.approx(separability(torch.tensor(fg_fg), torch.tensor(fg_bg)), abs=1e-9)
    with pytest.raises(ValueError, match="mask: no image"): foreground_separation(features, torch.zeros(2, 2, 3))
    with pytest.raises(ValueError, match="mask: has size"): foreground_separation(features, torch.zeros(2, 4, 6))


def test_boundary_f_score():
    target = torch.zeros(12, 16, dtype=torch.long); target[:, 8:] = 1
    shifted = torch.zeros_like(target); shifted[:, 10:] = 1
    perfect = boundary_f_score(boundary_counts(target, target, 3))
    assert perfect[:2].tolist() == [1, 1] and perfect[2].isnan()
    assert boundary_f_score(boundary_counts(shifted, target, 2, tolerance=2)).tolist() == [1, 1]
    assert boundary_f_score(boundary_counts(shifted, target, 2, tolerance=1)).tolist() == [0, 0]
    hidden = target.clone(); hidden[:, 6:10] = 255
    assert torch.equal(boundary_counts(target, hidden, 2), boundary_counts(target, target, 2))          # a thin band: the boundary is its middle
    assert boundary_counts(target, hidden, 2, fill=0)[:, 1].tolist() == [0, 0]
    assert boundary_counts(target, torch.full_like(target, 255), 2).sum() == 0
    with pytest.raises(ValueError, match="prediction: has shape"): boundary_counts(target, target[1:], 2)


def test_alignment_uniformity_rank():
    rows = torch.randn(30, 8)
    assert alignment(rows, 3 * rows) == pytest.approx(0, abs=1e-6)
    assert alignment(torch.eye(2), torch.eye(2).flip(0)) == pytest.approx(2)
    unit, pairs = nn.functional.normalize(rows, dim=1), []
    for i in range(30):
        for j in range(i): pairs.append(torch.exp(-2 * (unit[i] - unit[j]).square().sum()))
    assert uniformity(rows) == pytest.approx(float(torch.stack(pairs).mean().log()), abs=1e-5)
    assert effective_rank(torch.eye(5)) == pytest.approx(5) and effective_rank(torch.ones(9, 5)) == pytest.approx(1, abs=1e-3)
    assert uniformity(torch.ones(4, 3)) == pytest.approx(0, abs=1e-6) and effective_rank(torch.zeros(4, 3)) == 1
    with pytest.raises(ValueError, match="second: has size 3"): alignment(rows, torch.zeros(30, 3))
    with pytest.raises(ValueError, match="rows: needs two"): uniformity(torch.ones(1, 3))


# --- one call --------------------------------------------------------------------------------------------------------
def test_evaluate_report(tmp_path, train, test):
    encoder = Small()
    before = fingerprint(encoder)
    small = dict(linear_probe=dict(pixels=500), cluster=dict(cells=200), overcluster=dict(cells=200), retrieve=dict(memory_size=200), rank=dict(cells=100))
    report = evaluate(encoder, (train, test), options=small, save=tmp_path / "report.json")
    assert same(before, fingerprint(encoder)) and set(report.results) == {*small, "separation"}
    saved = json.loads((tmp_path / "report.json").read_text())
    assert saved["results"]["linear_probe"]["miou"] == pytest.approx(report.results["linear_probe"].miou)
    assert "linear_probe" in repr(report) and "<table>" in report._repr_html_() and report.plot() is not None
    single = evaluate(encoder, train, "linear_probe", options=small)
    assert single.info["train"] == 4 and single.info["test"] == 2


def test_evaluate_with_pretrained_head(train, test):
    from pixcl_nb.networks.encoders import FCNHead
    report = evaluate(Small(), (train, test), ["finetune"], head=FCNHead(8, None), options={p: dict(steps=1, batch_size=2) for p in ("finetune", "finetune_with_head")})
    assert set(report.results) == {"finetune", "finetune_with_head"}


def test_evaluate_bad_input(train, test):
    with pytest.raises(ValueError, match='options: "pck" needs image pairs'): evaluate(Small(), (train, test), ["pck"])
    with pytest.raises(ValueError, match="protocols: unknown name 'linear_prob', did you mean"): evaluate(Small(), (train, test), ["linear_prob"])
    with pytest.raises(ValueError, match="protocols: is empty"): evaluate(Small(), (train, test), [])
    with pytest.raises(ValueError, match="protocols: unknown"): evaluate(Small(), (train, test), ["rank"], options={"sprad": {}})
    with pytest.raises(ValueError, match="head: 'finetune_with_head'"): evaluate(Small(), (train, test), ["finetune_with_head"])
    with pytest.raises(ValueError, match="data: 1 images"): evaluate(Small(), Bars(1), ["rank"])


# --- precision -------------------------------------------------------------------------------------------------------
def test_an_encoder_in_bf16_is_one_to_everybody(train):
    from pixcl_nb.networks.encoding import encode, frozen, in_precision, looks_at
    encoder, images = Small(), torch.stack([train[index][0] for index in range(4)])
    encoder.mean, encoder.std, encoder.offset = (.5,) * 3, (.25,) * 3, (1., 2.)
    before, fast = fingerprint(encoder), in_precision(encoder, "bf16")
    with torch.no_grad(): exact, rounded, copied = (encode(one, images) for one in (frozen(encoder), fast, frozen(fast)))
    assert same(before, fingerprint(encoder)) and rounded.dtype == torch.float32 and torch.equal(rounded, copied)
    assert 0 < (exact - rounded).norm() < .02 * exact.norm()
    assert (fast.mean, fast.std, fast.offset, fast.stride, fast.channels) == (encoder.mean, encoder.std, encoder.offset, 4, 8) and len(looks_at(fast)) == 2
    with torch.no_grad(): assert torch.equal(encode(in_precision(encoder, "float32"), images), exact)
    with pytest.raises(ValueError, match="precision: unknown name 'fp16'"): in_precision(encoder, "fp16")
    with pytest.raises(AttributeError): fast.nothing_of_the_kind


def test_every_protocol_takes_the_precision_and_says_it(train, test):
    options = dict(linear_probe=dict(pixels=500), retrieve=dict(memory_size=200), cluster=dict(cells=200), finetune=dict(steps=2, batch_size=2))
    asked = [*options, "separation"]
    usual, named, fast = (evaluate(Small(), (train, test), asked, options=options, **more) for more in ({}, dict(precision="float32"), dict(precision="bf16")))
    for name in options:
        assert torch.equal(usual.results[name].confusion, named.results[name].confusion)                  # unless asked, the bits of before
    for report, precision in ((usual, "float32"), (fast, "bf16")):
        found = {name: result.info if hasattr(result, "info") else result for name, result in report.results.items()}
        assert {name: info["scored"]["precision"] for name, info in found.items() if name != "finetune"} == dict.fromkeys(set(asked) - {"finetune"}, precision)
        assert found["finetune"]["precision"] == report.info["precision"] == precision and found["finetune"]["scored"]["precision"] == "float32"
    assert "computed in bf16" in repr(fast) and "bf16" not in repr(usual)
    assert fast.results["finetune"].history != usual.results["finetune"].history
    assert abs(fast.results["linear_probe"].miou - usual.results["linear_probe"].miou) < .05


def test_auto_is_measured_for_the_task_and_what_was_taken_is_said(train, test, monkeypatch, tmp_path):
    from pixcl_nb import precision
    asked = []
    def seconds(network, images, learn=True, turns=3):
        asked.append((learn, tuple(images.shape[2:])))
        return {way: 1. if way == ("bf16", learn) else 2. for way in precision.WAYS}
    monkeypatch.setattr(precision, "pass_seconds", seconds)
    monkeypatch.setattr(precision, "cache_folder", lambda: tmp_path)
    report = evaluate(Small(), (train, test), ["linear_probe", "finetune"], precision="auto", options=dict(linear_probe=dict(pixels=500), finetune=dict(steps=1, batch_size=2, crop=(16, 24))))
    assert asked == [(False, (32, 40)), (True, (16, 24))]
    assert report.info["precision"] == report.results["finetune"].info["precision"] == "bf16"
    assert report.results["finetune"].model.encoder.net[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("seed", range(6))
def test_one_auroc_to_the_last_bit(seed):
    from scipy.stats import rankdata
    from pixcl_nb.plots import auroc
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(int(count), generator=generator) for count in torch.randint(1, 3000, (2,), generator=generator))
    if seed % 2: a, b = a.mul(4).round(), b.mul(4).round()                                      # with ties
    n, ranks = len(a), rankdata(torch.cat([a, b]).double().numpy())
    by_ranks = float((ranks[:n].sum() - n * (n + 1) / 2) / (n * len(b)))
    assert separability(a, b) == auroc(a, b) == by_ranks


@pytest.mark.parametrize("offset", [(-3.5, -3.5), (2., -1.), (0., 0.)])
def test_cells_are_placed_where_they_are_said_to_look(offset, train, test):
    generator = torch.Generator().manual_seed(0)
    slope = torch.randn(3, 2, generator=generator)
    places = torch.stack(torch.meshgrid((torch.arange(6) + .5) * 4 + offset[1], (torch.arange(8) + .5) * 4 + offset[0], indexing="ij")[::-1])      # x, y of each cell
    features = torch.einsum("cp,phw->chw", slope, places)[None]                # a linear function of where a cell looks …
    class Linear(nn.Module):
        channels, stride = 3, 4
        def forward(self, images): return features
    rows, columns = torch.meshgrid(torch.arange(8, 16), torch.arange(8, 24), indexing="ij")
    truth = slope @ torch.stack([columns + .5, rows + .5]).flatten(1).float()   # … is that function at every pixel between them
    read = features_at(features, rows.flatten(), columns.flatten(), 4, offset)
    logits = Segmenter(Linear(), nn.Identity(), offset)(torch.zeros(1, 3, 24, 32))[0, :, 8:16, 8:24].flatten(1)
    torch.testing.assert_close(read.T, truth, rtol=0, atol=1e-4)
    torch.testing.assert_close(logits, truth, rtol=0, atol=1e-4)
    probe = linear_probe(Small(), train, test, pixels=500, offset=offset)
    assert probe.info["offset"] == list(offset) and probe.model.offset == offset
    if offset == (0., 0.): assert torch.equal(probe.confusion, linear_probe(Small(), train, test, pixels=500).confusion)
