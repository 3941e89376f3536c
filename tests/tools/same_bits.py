#!/usr/bin/env python3
"""Hash what the library computes, so that a change of its layout can be shown to change no bit.

    OMP_NUM_THREADS=1 python tests/tools/same_bits.py before.json              (about a minute)
    python tests/tools/same_bits.py after.json --only methods losses           (some sections only)
    python tests/tools/same_bits.py --compare before.json after.json           (exit status 1 if anything differs)

Every item has the SHA-256 of its raw bytes and a rounded value for people. Names are looked up in all modules of the
package, so that it does not matter where a function lives; a name that is in none is written down as missing, an item
that fails as an error, and both count as a difference. Bits are equal only on one machine type, with equal versions and
one thread: these are noted, and `--compare` says when they differ.
"""
import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import argparse
import hashlib
import importlib
import inspect
import itertools
import json
import math
import pkgutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "pixcl_nb"
TIMES = ("images_per_second", "input_wait", "gpu_busy", "seconds")     # columns of a log that a clock writes

# A name that was changed: today's name here, followed by what it may be called elsewhere.
RENAMED = {
    "class_separation": ["class_separability", "separation"],
    "cluster": ["cluster_and_score", "cluster_protocol"],
    "effective_rank": ["rank_of_rows"],
    "embedding_spread": ["spread_of_rows"],
    "encode": ["encode_maps", "encode_batch"],
    "foreground_separation": ["foreground_separability"],
    "load_pairs": ["load_sample_pairs"],
    "match_features": ["feature_matches"],
    "matching_loss": ["place_loss", "view_matching_loss"],
    "sample_encoder": ["shipped_encoder", "load_sample_encoder"],
    "separability": ["auroc"],
    "spread": ["feature_rank", "cell_spread", "rank", "effective_rank_of_cells", "collapse_of_cells"],
}


class Missing(LookupError):
    "A name that no module defines."


class Package:
    "All modules of the package, and what they define."
    def __init__(self):
        root = importlib.import_module(PACKAGE)
        self.modules, self.problems = {PACKAGE: root}, {}
        for info in pkgutil.walk_packages(root.__path__, PACKAGE + "."):
            try:
                self.modules[info.name] = importlib.import_module(info.name)
            except Exception as error:
                self.problems[info.name] = f"{type(error).__name__}: {error}"

    def definitions(self, name):
        "Every different object of this name, by the module that defines it."
        found = {}
        for module_name, module in self.modules.items():
            if name not in vars(module): continue
            value = vars(module)[name]
            if inspect.ismodule(value): continue
            home = getattr(value, "__module__", None) or module_name
            if not str(home).startswith(PACKAGE): home = module_name
            found.setdefault(id(value), (home, value))
        return list(found.values())

    def find(self, name, near=""):
        "The one object of this name or of its other names; `near`: part of the module's name, where several share it."
        for alias in [name, "_" + name, *RENAMED.get(name, [])]:
            found = self.definitions(alias)
            if len(found) > 1 and near: found = [pair for pair in found if near in pair[0]] or found
            if len(found) == 1: return found[0][1]
            if found: raise Missing(f"{alias} is defined in several modules: {sorted(home for home, _ in found)}")
        raise Missing(f"{name} is in no module of {PACKAGE}")


def raw_bytes(value):
    "Bytes that stand for a value, with its type and shape; dictionaries in the order of their keys."
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous()
        if value.dtype == torch.bfloat16: value = value.view(torch.int16)
        return raw_bytes(value.numpy())
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes()
    if isinstance(value, dict):
        return b"".join(str(key).encode() + b"=" + raw_bytes(value[key]) for key in sorted(value, key=str))
    if isinstance(value, (list, tuple)):
        return b"[" + b",".join(raw_bytes(one) for one in value) + b"]"
    if isinstance(value, bytes): return value
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool): return repr(float(value)).encode()
    if isinstance(value, bool) or value is None or isinstance(value, str): return repr(value).encode()
    raise TypeError(f"{type(value).__name__} has no bytes to compare")


def rounded(value):
    "A value as a person reads it."
    if isinstance(value, (bool, int, str)) or value is None: return value
    if isinstance(value, (float, np.number)): return float(f"{float(value):.7g}") if math.isfinite(value) else str(value)
    if isinstance(value, np.ndarray): value = torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, torch.Tensor):
        if value.numel() == 1: return rounded(float(value))
        numbers = value.detach().double()
        spread = numbers.std(correction=0) if numbers.numel() else 0
        mean = numbers.mean() if numbers.numel() else 0
        return f"{list(value.shape)} mean {float(mean):.6g} deviation {float(spread):.6g}"
    if isinstance(value, dict): return {str(key): rounded(one) for key, one in list(value.items())[:12]}
    if isinstance(value, (list, tuple)): return [rounded(one) for one in value[:8]]
    return f"{len(value)} bytes"


class Record:
    "Items by name, each measured in a fresh state of every random generator."
    def __init__(self, package):
        self.package, self.items = package, {}

    def add(self, name, value):
        if name in self.items: raise KeyError(f"{name} is measured twice")
        self.items[name] = {"sha256": hashlib.sha256(raw_bytes(value)).hexdigest(), "value": rounded(value)}

    def measure(self, name, function):
        "Add what `function` returns: one value, or a dictionary of values that become items of their own."
        torch.manual_seed(0)
        np.random.seed(0)
        try:
            value = function()
            if isinstance(value, dict):
                for key, one in value.items(): self.add(f"{name}/{key}", one)
            else: self.add(name, value)
        except Missing as error: self.items[name] = {"missing": str(error)}
        except Exception as error: self.items[name] = {"error": f"{type(error).__name__}: {error}"[:300]}


# ---------------------------------------------------------------------------------------------- losses

FORMS = ("released_within", "released_cross", "paper_within", "paper_cross", "supcon")


def draw(*shape, seed, unit=None, dtype=torch.float32):
    "Seeded normal numbers; unit: the axis along which they have length 1. They take a gradient."
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if unit is not None: values = normalize(values, dim=unit)
    return values.to(dtype).requires_grad_()


def whole(low, high, *shape, seed):
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


def value_and_gradients(loss, *inputs):
    "A loss and what it wants of each input."
    value = loss(*inputs)
    if not value.requires_grad: return {"value": value}
    gradients = torch.autograd.grad(value, inputs, allow_unused=True)
    return {"value": value, "gradient": [torch.zeros(0) if one is None else one for one in gradients]}


def simple_losses(record):
    find = record.package.find
    for dtype in (torch.float32, torch.float64):
        kind = str(dtype).removeprefix("torch.")
        rows = [draw(n, 16, seed=seed, unit=1, dtype=dtype) for seed, n in enumerate((12, 12, 40))]
        for temperature in (.2, .07):
            record.measure(f"losses/info_nce/{kind}/{temperature}", lambda: value_and_gradients(
                lambda q, p, n: find("info_nce")(q, p, n, temperature=temperature), *rows))
        maps = [draw(3, 16, 20, seed=seed, dtype=dtype) for seed in (3, 4)]
        for name, low in (("all", 0), ("some", -1)):
            match = whole(low, 20, 3, 20, seed=5)
            if low: match[1, :7] = -1
            record.measure(f"losses/densecl_loss/{kind}/{name} matched", lambda: value_and_gradients(
                lambda q, k, n: find("densecl_loss")(q, k, match, n, temperature=.2), *maps, rows[2]))
        grids = [draw(3, 16, 5, 6, seed=seed, dtype=dtype) for seed in (6, 7)]
        masks = [whole(0, 2, 3, 5, 6, seed=seed).bool() for seed in (8, 9)]
        for axis, temperature in itertools.product(("query", "key"), (1., .2)):
            record.measure(f"losses/cp2_dense_loss/{kind}/{axis}/{temperature}", lambda: value_and_gradients(
                lambda q, k: find("cp2_dense_loss")(q, k, *masks, temperature=temperature, softmax_over=axis), *grids))
        record.measure(f"losses/masked_pool/{kind}", lambda: find("masked_pool")(grids[0], masks[0]))
        ids = whole(0, 4, 3, 20, seed=10)
        ids[0, :4] = 255
        views = [draw(3, 20, 16, seed=seed, unit=2, dtype=dtype) for seed in (11, 12)]
        match = whole(-1, 20, 3, 20, seed=13)
        record.measure(f"losses/matching_loss/{kind}", lambda: value_and_gradients(
            lambda a, b: find("matching_loss")(a, b, match, ids, temperature=.1), *views))
    grids = [draw(3, 16, 5, 6, seed=seed) for seed in (6, 7)]
    masks = [whole(0, 2, 3, 5, 6, seed=seed).bool() for seed in (8, 9)]
    record.measure("losses/foreground_cosines", lambda: list(find("foreground_cosines")(*grids, *masks)))
    nothing = torch.full((3, 20), -1)
    maps = [draw(3, 16, 20, seed=seed) for seed in (3, 4)]
    record.measure("losses/densecl_loss/nothing matched", lambda: value_and_gradients(
        lambda q, k: find("densecl_loss")(q, k, nothing, draw(40, 16, seed=2, unit=1).detach()), *maps))
    logits, masks = draw(2, 5, 8, 8, seed=14), whole(0, 5, 2, 8, 8, seed=15)
    masks[0, :3] = 255
    record.measure("losses/segmentation_loss", lambda: value_and_gradients(
        lambda x: find("segmentation_loss")(x, masks), logits))


def collapse_measures(record):
    find = record.package.find
    rows, others = draw(40, 16, seed=20).detach(), draw(40, 16, seed=21).detach()
    labels = whole(0, 5, 40, seed=22)
    record.measure("collapse/embedding_spread", lambda: find("embedding_spread")(rows))
    record.measure("collapse/effective_rank", lambda: find("effective_rank")(rows))
    record.measure("collapse/uniformity", lambda: find("uniformity")(rows))
    record.measure("collapse/alignment", lambda: find("alignment")(rows, others))
    record.measure("collapse/compactness", lambda: find("compactness")(rows, labels))


def pixel_contrast_cases():
    "(name, keywords) of every form with every switch that it has."
    for form in FORMS:
        for chunk in (None, 7): yield f"{form}/chunk {chunk}", dict(form=form, chunk=chunk)
        for reduction in ("released", "valid images", "rows"):
            yield f"{form}/reduction {reduction}", dict(form=form, reduction=reduction)
        yield f"{form}/temperature 0.5", dict(form=form, temperature=.5)
        yield f"{form}/ignore 3", dict(form=form, ignore_index=3)
        if form.startswith("paper"): continue
        for self_pairs in ("include", "exclude"):
            yield f"{form}/self pairs {self_pairs}", dict(form=form, self_pairs=self_pairs)
        names = ["any", "same image", "other image"][:2 if form == "released_within" else 3]
        for scope in [*names, *itertools.product(names, names)]:
            yield f"{form}/scope {scope}", dict(form=form, scope=scope, chunk=9)


def pixel_contrast_losses(record):
    find = record.package.find
    labels, other_labels, third_labels = (whole(0, 4, 4, 14, seed=seed) for seed in (30, 31, 32))
    for one in (labels, other_labels, third_labels): one[:, ::5] = 255
    labels[0, :9], labels[1, 1], labels[3] = 255, 7, 255          # few pixels, a class of one, an image without any
    other_labels[0, 4:], third_labels[2, 6] = 255, 9
    for dtype in (torch.float32, torch.float64):
        kind = str(dtype).removeprefix("torch.")
        views = [draw(4, 14, 16, seed=seed, unit=2, dtype=dtype) for seed in (33, 34, 35)]

        def loss(how, f, g, h):
            contrast, form = find("pixel_contrast"), how["form"]
            if form == "paper_cross": return contrast(f, labels, (g, h), (other_labels, third_labels), **how)
            if form == "released_cross": return contrast(f, labels, g, other_labels, **how)
            return contrast(f, labels, g, **how)

        for name, how in pixel_contrast_cases():
            if dtype == torch.float64 and "scope" in how: continue
            record.measure(f"losses/pixel_contrast/{kind}/{name}", lambda: value_and_gradients(
                lambda *inputs: loss(how, *inputs), *views))
        for form in ("released_within", "supcon"):
            record.measure(f"losses/pixel_contrast/{kind}/{form}/one view", lambda: value_and_gradients(
                lambda f: find("pixel_contrast")(f, labels, form=form), views[0]))
        record.measure(f"losses/pixel_contrast/{kind}/supcon/image ids", lambda: value_and_gradients(
            lambda f, g: find("pixel_contrast")(f, labels, g, other_labels, form="supcon", scope="same image",
                                                image_ids=torch.tensor([4, 4, 9, 2])), *views[:2]))
        record.measure(f"losses/pixel_contrast/{kind}/supcon/all ignored", lambda: value_and_gradients(
            lambda f: find("pixel_contrast")(f, torch.full_like(labels, 255), form="supcon"), views[0]))


def larger_losses(record):
    "Enough rows for several tiles and panels."
    find = record.package.find
    labels, other_labels = (whole(0, 9, 4, 400, seed=seed) for seed in (36, 37))
    labels[:, ::7], other_labels[1, :100] = 255, 255
    features, other = (draw(4, 400, 32, seed=seed, unit=2) for seed in (38, 39))
    for form in FORMS:
        def loss(f, g):
            other, other_labels_ = (g, other_labels if form.endswith("cross") else None)
            if form == "paper_cross": other, other_labels_ = (g, g.flip(0)), (labels, other_labels)
            return find("pixel_contrast")(f, labels, other, other_labels_, form=form)
        record.measure(f"losses/large/{form}", lambda: value_and_gradients(loss, features, other))
    query, positive, negatives = (draw(n, 64, seed=seed, unit=1) for seed, n in ((42, 700), (43, 700), (44, 5000)))
    record.measure("losses/large/info_nce", lambda: value_and_gradients(find("info_nce"), query, positive, negatives))
    maps = [draw(4, 64, 28, 28, seed=seed) for seed in (45, 46)]
    masks = [whole(0, 2, 4, 28, 28, seed=seed).bool() for seed in (47, 48)]
    record.measure("losses/large/cp2_dense_loss", lambda: value_and_gradients(
        lambda q, k: find("cp2_dense_loss")(q, k, *masks), *maps))


# ---------------------------------------------------------------------------------------------- images

def samples(package, split, count):
    data = package.find("load_data")("samples", split=split)
    return data.subset(list(range(count)))


def image_batch(package, count=4):
    items = [samples(package, "train", count)[index] for index in range(count)]
    return tuple(torch.stack(part) for part in zip(*items))


def scenes(record):
    find = record.package.find
    for split, index, seed in (("train", 0, 0), ("val", 3, 0), ("test", 7, 0), ("train", 2, 5)):
        record.measure(f"scenes/{split} {index}, seed {seed}", lambda: dict(zip(
            ("image", "mask"), find("sample_scene")(split, index, seed))))
    for index in (0, 11):
        record.measure(f"scenes/pair {index}", lambda: dict(zip(("a", "b", "points"), find("sample_pair")(index))))
    record.measure("data/shipped files", lambda: {
        folder: [path.read_bytes() for path in sorted((ROOT / "data_samples" / folder).glob("*"))]
        for folder in ("images", "labels", "pairs")})
    record.measure("data/batch", lambda: dict(zip(("images", "masks"), image_batch(record.package))))
    record.measure("data/resized", lambda: dict(zip(("image", "mask"), find("load_data")("samples", size=(48, 80))[1])))
    record.measure("data/label_subset", lambda: find("label_subset")(
        find("load_data")("samples"), count=12, seed=3).names)
    record.measure("data/read from", lambda: str(Path(find("load_data")("samples").images[0]).relative_to(ROOT)))


def view_fields(view):
    fields = {name: getattr(view, name) for name in ("image", "mask", "box", "flipped")}
    return {name: value for name, value in fields.items() if value is not None}


def views(record):
    find, (images, masks) = record.package.find, image_batch(record.package)
    extents = torch.tensor([[128, 128], [100, 128], [128, 90], [64, 64]])
    generator = lambda: torch.Generator().manual_seed(11)
    settings = {"released": {}, "strong colours": dict(brightness=.8, contrast=.8, saturation=.8, hue=.2, blur=0.),
                "plain": dict(jitter=0., grayscale=0., blur=0., flip=0.),
                "blurred": dict(blur=1., blur_sigma=(.5, 1.5)),
                "oblong": dict(size=(48, 80), scale=(.1, .3))}
    for name, how in settings.items():
        record.measure(f"views/{name}", lambda: view_fields(
            find("random_view")(images, find("ViewConfig")(**{"size": 64, **how}), generator(), masks=masks)))
    record.measure("views/padded images", lambda: view_fields(
        find("random_view")(images, find("ViewConfig")(size=64), generator(), masks=masks, extents=extents)))

    def two_views():
        config, draws = find("ViewConfig")(size=64), generator()
        return [find("random_view")(images, config, draws) for _ in range(2)]
    record.measure("views/geometric_matches", lambda: find("geometric_matches")(*two_views(), 8))
    for mutual in (False, True):
        record.measure(f"matches/match_features, mutual {mutual}", lambda: find("match_features")(
            draw(2, 16, 6, 7, seed=40).detach(), draw(2, 16, 5, 8, seed=41).detach(), mutual=mutual))


def compositions(record):
    find, (images, masks) = record.package.find, image_batch(record.package)
    second = torch.cat([images.flip(0), images.roll(1, 0)])
    cases = {"released": {}, "anywhere": dict(position="anywhere"), "reused": dict(background_views="reused"),
             "object": dict(shape="object"), "second draw": dict(backgrounds="second draw"),
             "small blocks": dict(position="anywhere", area=(.1, .3), aspect=(.5, 2.))}
    for name, how in cases.items():
        def composed():
            config = find("CopyPasteConfig")(**{"size": 64, "stride": 8, **how})
            pairs = find("copy_paste")(images, config, torch.Generator().manual_seed(12), masks=masks,
                                       backgrounds=second if name == "second draw" else None)
            return {key: getattr(pairs, key) for key in ("query", "key", "query_mask", "key_mask")} | {
                "backgrounds": [pairs.query_background, pairs.key_background],
                "labels": [pairs.query_view.mask, pairs.key_view.mask]}
        record.measure(f"copy_paste/{name}", composed)


# ---------------------------------------------------------------------------------------------- training

def small_view(package, **how): return package.find("ViewConfig")(size=64, **how)


def method_cases(package):
    "(name, method, settings, settings of the training): every method with every option that changes its numbers."
    small = dict(dim=16, queue_size=64, momentum=.9)
    def paste(**how): return package.find("CopyPasteConfig")(size=64, stride=8, **how)

    moco = lambda **how: dict(view=small_view(package), **small, **how)
    yield "moco", "moco", moco(), {}
    yield "moco/split", "moco", moco(batch_norm="split", splits=2), {}
    yield "moco/adamw, poly, warm-up", "moco", moco(), dict(optimizer="adamw", lr=.001, schedule="poly", warmup_steps=2)
    yield "moco/lars, constant", "moco", moco(), dict(optimizer="lars", schedule="constant")
    yield "moco/in two parts", "moco", moco(), dict(accumulate=2)
    yield "moco/bf16", "moco", moco(), dict(precision="bf16")
    yield "moco/another seed", "moco", moco(), dict(seed=7)
    yield "densecl", "densecl", moco(), {}
    for positives in ("geometric", "mutual", "index"):
        yield f"densecl/{positives}", "densecl", moco(positives=positives), {}
    yield "densecl/matched negatives", "densecl", moco(negatives="matched"), {}
    yield "densecl/geometric, matched negatives", "densecl", moco(positives="geometric", negatives="matched"), {}
    yield "densecl/grid", "densecl", moco(grid=5), {}
    yield "densecl/warm-up", "densecl", moco(lambda_warmup_steps=2, loss_lambda=.7), {}
    cp2 = dict(small, decoder="fcn")
    yield "cp2/released", "cp2", {**small, "compose": paste(), "decoder": "aspp", "decoder_width": 32}, {}
    yield "cp2/fcn", "cp2", dict(cp2, compose=paste()), {}
    yield "cp2/softmax over keys", "cp2", dict(cp2, compose=paste(), softmax_over="key"), {}
    yield "cp2/anywhere", "cp2", dict(cp2, compose=paste(position="anywhere")), {}
    yield "cp2/reused", "cp2", dict(cp2, compose=paste(background_views="reused")), {}
    yield "cp2/split", "cp2", dict(cp2, compose=paste(), batch_norm="split", splits=2), {}
    yield "cp2/strong dense term", "cp2", dict(cp2, compose=paste(), dense_weight=2., dense_temperature=.2), {}
    yield from label_cases(package)
    yield from auxiliary_cases(package)


def label_cases(package):
    strong = small_view(package, brightness=.8, contrast=.8, saturation=.8, hue=.2, blur=0.)
    label = dict(view=strong, dim=16, hidden=32, sampling="random", samples=24)
    for form in FORMS: yield f"label_contrast/{form}", "label_contrast", dict(label, form=form), {}
    yield "label_contrast/paper projector", "label_contrast", dict(label, form="paper_within", projector="paper"), {}
    yield "label_contrast/both coloured", "label_contrast", dict(label, colours="both"), {}
    yield "label_contrast/pure", "label_contrast", dict(label, label_rule="pure"), {}
    yield "label_contrast/shuffle", "label_contrast", dict(label, form="released_cross", pairing="shuffle"), {}
    for sampling in ("all", "balanced", "hard"):
        yield f"label_contrast/{sampling}", "label_contrast", dict(label, sampling=sampling), {}
    resized = dict(label, decoder="fcn", decoder_width=32, resolution=9)
    yield "label_contrast/fcn, resized", "label_contrast", resized, {}


def auxiliary_cases(package):
    auxiliary = dict(view=small_view(package), dim=16, hidden=32, samples=24)
    for form in FORMS: yield f"auxiliary_contrast/{form}", "auxiliary_contrast", dict(auxiliary, form=form), {}
    for positives in ("within", "across"):
        yield f"auxiliary_contrast/{positives}", "auxiliary_contrast", dict(auxiliary, positives=positives), {}
    yield "auxiliary_contrast/pure", "auxiliary_contrast", dict(auxiliary, cells="pure"), {}
    yield "auxiliary_contrast/all cells", "auxiliary_contrast", dict(auxiliary, samples=None), {}
    yield "auxiliary_contrast/no matching", "auxiliary_contrast", dict(auxiliary, match_weight=0), {}


def run_method(package, data, name, settings, training):
    "Four steps from a fixed start: each logged term, the weights by name, and the weights whatever their names."
    method = package.find("create_method")(name, "pixcl_tiny", seed=3, **settings)
    how = {"steps": 4, "batch_size": 4, "lr": .05, "seed": 1, "device": "cpu", "workers": 0, "progress": False,
           "collapse_below": 0, **training}
    history = package.find("pretrain")(method, data, package.find("TrainConfig")(**how))
    names = sorted({key for row in history.rows for key in row} - set(TIMES))
    weights = {key: value for key, value in method.state_dict().items() if isinstance(value, torch.Tensor)}
    digests = b"".join(sorted(hashlib.sha256(raw_bytes(value)).digest() for value in weights.values()))
    encoder = torch.cat([value.double().flatten() for value in method.encoder.state_dict().values()])
    return {**{f"log {key}": [row.get(key) for row in history.rows] for key in names},
            "weights": weights, "weights without their names": digests, "encoder": encoder}


def auxiliary_labels(package):
    encoder = package.find("create_encoder")("pixcl_tiny")
    return package.find("fit_auxiliary_labels")(encoder, samples(package, "train", 8), k=6, pixels=1500, batch_size=4)


def methods(record):
    package = record.package
    data = samples(package, "train", 8)
    discovered = None
    for label, name, settings, training in method_cases(package):
        def run():
            nonlocal discovered
            if name != "auxiliary_contrast": return run_method(package, data, name, settings, training)
            if discovered is None: discovered = auxiliary_labels(package)
            return run_method(package, discovered.dataset(data), name, settings, training)
        record.measure(f"methods/{label}", run)


def resumed(record):
    "A run that is cut after two of four steps and goes on from its folder."
    package = record.package
    settings = dict(view=small_view(package), dim=16, queue_size=64, momentum=.9)
    def run():
        data, states = samples(package, "train", 8), []
        config = package.find("TrainConfig")(steps=4, batch_size=4, lr=.05, seed=1, device="cpu", workers=0,
                                             progress=False, checkpoint_every=2)
        with tempfile.TemporaryDirectory() as folder:
            for stop in (2, 4):
                method = package.find("create_method")("densecl", "pixcl_tiny", seed=3, **settings)
                package.find("pretrain")(method, data, config, run_dir=folder,
                                         on_step=lambda step, terms, method: "stop" if step + 1 == stop else None)
                states.append(method.state_dict())
        return {"cut": states[0], "resumed": states[1]}
    record.measure("methods/densecl, cut and resumed", run)


# ---------------------------------------------------------------------------------------------- evaluation

def shipped_encoder(package, name):
    "An encoder with a shipped checkpoint, read from this checkout."
    network = package.find("create_encoder")("pixcl_tiny")
    package.find("load_checkpoint")(network, ROOT / "data_samples" / "checkpoints" / f"{name}.safetensors")
    return network.eval()


def checkpoint_features(record):
    package = record.package
    images = torch.stack([samples(package, "test", 3)[index][0] for index in range(3)])
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((.485, .456, .406), (.229, .224, .225)))
    for path in sorted((ROOT / "data_samples" / "checkpoints").glob("*.safetensors")):
        name, encoder = f"checkpoints/{path.stem}", lambda: shipped_encoder(package, path.stem)
        with torch.no_grad():
            record.measure(f"{name}/file", path.read_bytes)
            record.measure(f"{name}/features", lambda: encoder()((images.float() / 255 - mean) / std))
            record.measure(f"{name}/encode", lambda: package.find("encode", near="encod")(encoder(), images))
            record.measure(f"{name}/by name", lambda: [
                list(pair) for pair in package.find("sample_encoder")(path.stem).state_dict().items()])
    if not any(name.startswith("checkpoints/") for name in record.items):
        record.items["checkpoints"] = {"missing": "no file in data_samples/checkpoints"}


def result_numbers(result):
    history = [float(value) for value in result.history]
    return {"confusion": result.confusion, "iou": result.iou, "miou": result.miou, "history": history}


def protocols(record):
    package, find = record.package, record.package.find
    train, test = samples(package, "train", 8), samples(package, "test", 4)
    encoder = shipped_encoder(package, "cp2")
    def add(name, function): record.measure(f"evaluation/{name}", function)
    add("linear_probe", lambda: result_numbers(find("linear_probe")(encoder, train, test, pixels=2000, iterations=20)))
    for head in ("fcn", "aspp"):
        add(f"finetune/{head}", lambda: result_numbers(find("finetune")(
            encoder, train, test, steps=3, batch_size=4, crop=(64, 64), head=head, seed=2)))
    add("finetune/sgd, frozen statistics", lambda: result_numbers(find("finetune")(
        encoder, train, test, steps=3, batch_size=4, crop=(64, 64), optimiser="sgd", lr=.01, batch_norm="eval")))
    add("finetune/sliding window", lambda: result_numbers(find("finetune")(
        encoder, train, test, steps=2, batch_size=4, crop=(64, 64), window=96)))
    add("retrieve", lambda: result_numbers(find("retrieve")(encoder, train, test, k=9, memory_size=1000)))
    add("cluster", lambda: result_numbers(find("cluster")(encoder, test, cells=600)))
    add("cluster/majority", lambda: result_numbers(find("cluster")(
        encoder, test, k=20, matching="majority", cells=600)))
    add("class_separation", lambda: find("class_separation")(encoder, test))
    add("spread", lambda: find("spread")(encoder, test, cells=300))
    pairs = find("load_pairs")()[:3]
    for refine in (True, False):
        def points():
            found = find("pck_pairs")(encoder, pairs, refine=refine)
            return {key: found[key] for key in ("pck", "pck_points", "points")}
        add(f"pck, refined {refine}", points)
    masks = whole(0, 2, 2, 6, 6, seed=50)
    add("foreground_separation", lambda: {key: value for key, value in find("foreground_separation")(
        draw(2, 16, 6, 6, seed=51).detach(), masks.bool()).items() if key in ("auroc", "gap")})
    together, apart = draw(300, seed=52).detach() + .3, draw(200, seed=53).detach()
    add("separability", lambda: find("separability")(together.round(decimals=1), apart.round(decimals=1)))
    add("evaluate", lambda: {f"{protocol} {measure}": value for protocol, measure, value, _ in find("evaluate")(
        encoder, (train, test), protocols=("linear_probe", "retrieve"), seed=4,
        options={"linear_probe": dict(pixels=1000, iterations=5), "retrieve": dict(memory_size=500)}).rows()})


def clusterings(record):
    package, find = record.package, record.package.find
    rows = draw(400, 8, seed=60).detach()
    for spherical in (False, True):
        def run():
            found = find("cluster_features")(rows, 7, seed=1, spherical=spherical)
            return {"ids": found.ids, "centres": found.centres, "inertia": found.inertia}
        record.measure(f"clusters/spherical {spherical}", run)
    ids, truth = whole(0, 6, 2, 30, seed=61), whole(0, 4, 2, 30, seed=62)
    ids[:, ::7], truth[:, ::5] = 255, 255
    record.measure("clusters/label_quality", lambda: {
        key: value for key, value in find("label_quality")(ids, truth).items() if isinstance(value, float)})
    data = samples(package, "train", 4)
    encoder = shipped_encoder(package, "densecl")
    cases = {"kmeans": dict(k=6), "spherical": dict(k=6, options={"spherical": True}),
             "per cluster": dict(k=6, outlier_scope="per_cluster", outliers=.1), "slic": dict(k=6, refine="slic"),
             "dbscan": dict(algorithm="dbscan", options={"eps": .5, "min_samples": 5, "sample": 500}),
             "hdbscan": dict(algorithm="hdbscan", options={"min_cluster_size": 15, "sample": 500})}
    for name, how in cases.items():
        record.measure(f"auxiliary labels/{name}", lambda: [find("fit_auxiliary_labels")(
            encoder, data, **{"pixels": 800, "batch_size": 4, **how})[index] for index in range(len(data))])


def committed_results(record):
    "The numbers in the committed results, with the path of keys to each; strings (commands, hosts) are not compared."
    def numbers(value, path=""):
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        found = [pair for key, one in sorted(inner) for pair in numbers(one, f"{path}/{key}")]
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return [(path, float(value))] if is_number else found
    places = [path for path in ROOT.glob("nbs/**/results/*.json") if ".ipynb_checkpoints" not in path.parts]
    for path in sorted(places, key=lambda path: path.name):
        figures = numbers(json.loads(path.read_text()))
        record.measure(f"results/{path.name}", lambda: {
            "figures": figures, "figures without their keys": [number for _, number in figures]})
    if not places: record.items["results"] = {"missing": "no file in nbs/**/results"}


SECTIONS = {"losses": (simple_losses, pixel_contrast_losses, larger_losses), "collapse": (collapse_measures,),
            "images": (scenes, views, compositions), "methods": (methods, resumed),
            "evaluation": (checkpoint_features, protocols), "clusters": (clusterings,), "results": (committed_results,)}


def measure(only=()):
    "Everything, as a dictionary for JSON."
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    started, clock = time.time(), time.process_time()
    sys.path.insert(0, str(ROOT))
    package = Package()
    record, seconds = Record(package), {}
    for name, problem in package.problems.items(): record.items[f"import/{name}"] = {"error": problem}
    for section, functions in SECTIONS.items():
        if only and section not in only: continue
        begun = time.process_time()
        for function in functions:
            try: function(record)
            except Missing as error: record.items[f"{section}/{function.__name__}"] = {"missing": str(error)}
            except Exception as error:
                record.items[f"{section}/{function.__name__}"] = {"error": f"{type(error).__name__}: {error}"[:300]}
        seconds[section] = round(time.process_time() - begun, 1)
    return {"machine": machine(), "cpu_seconds": round(time.process_time() - clock, 1),
            "wall_seconds": round(time.time() - started, 1), "sections": seconds,
            "package": str(Path(package.modules[PACKAGE].__file__).relative_to(ROOT)), "items": record.items}


def machine():
    "What bits may depend on."
    import platform
    import sklearn
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__,
            "scikit-learn": sklearn.__version__, "processor": platform.machine(),
            "instructions": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}


def faults(items): return {name: item for name, item in items.items() if "sha256" not in item}


def compare(before, after):
    "Lines that say what differs; empty when all bits are the same and everything was measured in both."
    lines, old, new = [], before["items"], after["items"]
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if a is None: lines.append(f"only after   {name}: {b}")
        elif b is None: lines.append(f"only before  {name}: {a.get('value', a)}")
        elif "sha256" not in b: lines.append(f"not measured {name}: {b}")
        elif "sha256" not in a: lines.append(f"not measured before: {name}: {a}")
        elif a["sha256"] != b["sha256"]: lines.append(f"differs      {name}: {a['value']} → {b['value']}")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", help="where to write the hashes")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=(), help="some sections only")
    parser.add_argument("--compare", nargs=2, metavar=("BEFORE", "AFTER"), help="two files of hashes")
    arguments = parser.parse_args()
    if arguments.compare:
        before, after = (json.loads(Path(path).read_text()) for path in arguments.compare)
        for key in before["machine"]:
            if before["machine"][key] != after["machine"].get(key):
                print(f"note: {key} was {before['machine'][key]}, is {after['machine'].get(key)}; "
                      "bits may differ for that reason alone")
        lines = compare(before, after)
        print("\n".join(lines + [f"{len(lines)} of {len(before['items'])} items differ or were not measured"]))
        return int(bool(lines))
    if not arguments.out: parser.error("OUT.json or --compare BEFORE AFTER")
    report = measure(arguments.only)
    Path(arguments.out).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    for name, fault in faults(report["items"]).items(): print(name, fault)
    print(f"{len(report['items'])} items, {len(faults(report['items']))} not measured, "
          f"{report['cpu_seconds']} CPU seconds {report['sections']}")
    return int(bool(faults(report["items"])))


if __name__ == "__main__": sys.exit(main())
