"""methods.label_contrast: labels on the grid, pairs, pixel samplers, the method and its robustness."""
import itertools
import os
import subprocess
import sys

import pytest
import torch
from torch.nn.functional import normalize

from pixcl_nb.images.data import label_subset, load_data
from pixcl_nb.networks.encoders import create_encoder
from pixcl_nb.evaluation.finetuning import finetune
from pixcl_nb.losses.label_losses import FORMS, pixel_contrast
from pixcl_nb.methods.contract import create_method
from pixcl_nb.images.cells import aligned_index, labels_at_grid
from pixcl_nb.methods.label_contrast import two_colours
from pixcl_nb.losses.collapse import compactness
from pixcl_nb.methods.label_contrast import (
    fill_batch, LabelContrast, LabelContrastConfig, nearest_class_mean, partners, PixelClassifier,
    place_in_group, sample_pixels, STRATEGIES, take_pixels, two_classes)
from pixcl_nb.training.loop import BatchOrder, pretrain
from pixcl_nb.training.settings import TrainConfig
from pixcl_nb.images.views import ViewConfig

VIEW = ViewConfig(size=64, blur=0.)
SMALL = dict(view=VIEW, dim=16, hidden=16)
generator = lambda seed=0: torch.Generator().manual_seed(seed)
images = lambda n=6, size=72: torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator())
def close(a, b, rtol=1e-5, atol=1e-6): torch.testing.assert_close(a, b, rtol=rtol, atol=atol)

def masks(n=6, size=72, classes=4):
    "Blocks of 9×9 pixels of one class, one of them ignored."
    blocks = torch.randint(0, classes, (n, 8, 8), generator=generator(1))
    blocks[:, 0, 0] = 255
    return blocks.repeat_interleave(9, 1).repeat_interleave(9, 2)


class Pictures(torch.utils.data.Dataset):
    extents = None
    def __init__(self, n=12): self.images, self.masks = images(n), masks(n)
    def __len__(self): return len(self.images)
    def __getitem__(self, i): return self.images[i], self.masks[i]


# ---- labels on the grid ---------------------------------------------------------------------------------------------

def test_deeplabs_grid_is_every_eighth_pixel():
    assert torch.equal(aligned_index(513, 65), 8 * torch.arange(65))

@pytest.mark.parametrize("source,cells", [(33, 65), (41, 65), (96, 12), (7, 7), (6, 3), (5, 1), (2, 2)])
def test_aligned_index_rounds_half_away_from_zero(source, cells):
    from fractions import Fraction
    exact = [Fraction(i * (source - 1), max(1, cells - 1)) for i in range(cells)]
    expected = [int(x + Fraction(1, 2)) for x in exact]                                    # floor(x + ½) is half away for x ≥ 0
    assert aligned_index(source, cells).tolist() == expected
    if cells > 1: assert expected[0] == 0 and expected[-1] == source - 1

def test_released_labels_are_pixels_of_the_mask():
    mask = torch.arange(54).view(1, 6, 9)
    assert torch.equal(labels_at_grid(mask, (3, 4), "released")[0], mask[0][torch.tensor([0, 3, 5])][:, torch.tensor([0, 3, 5, 8])])

def test_pure_cells_hold_one_class_only():
    mask = masks(5, 72)
    mask[0, 3, 3], mask[1, 70, 70] = 255, 2
    for grid in ((8, 8), (9, 9), (4, 4), (5, 7)):
        found = labels_at_grid(mask, grid, "pure")
        for b, i, j in itertools.product(range(5), range(grid[0]), range(grid[1])):
            edge = lambda k, n: (k * 72 // n, -((-(k + 1) * 72) // n))
            (top, bottom), (left, right) = edge(i, grid[0]), edge(j, grid[1])
            inside = torch.unique(mask[b, top:bottom, left:right])
            assert found[b, i, j] == (inside[0] if len(inside) == 1 else 255)

def test_one_ignored_pixel_spoils_a_pure_cell():
    mask = torch.zeros(1, 8, 8, dtype=torch.uint8)
    mask[0, 0, 0] = 255
    assert torch.equal(labels_at_grid(mask, (2, 2), "pure"), torch.tensor([[[255, 0], [0, 0]]]))

@pytest.mark.parametrize("rule", ["released", "pure"])
def test_at_full_resolution_labels_are_the_mask(rule):
    assert torch.equal(labels_at_grid(masks(2), (72, 72), rule), masks(2))

@pytest.mark.parametrize("value", [-1, 256])
def test_labels_out_of_range_are_refused(value):
    wrong = masks()
    wrong[0, 5, 5] = value
    with pytest.raises(ValueError, match="masks: hold labels from .* classes are 0…254, ignored pixels 255"): labels_at_grid(wrong, (8, 8))
    with pytest.raises(ValueError, match="masks: hold labels"): create_method("label_contrast", seed=0, **SMALL).loss(images(), wrong.clamp(max=256), generator(3))

@pytest.mark.parametrize("call,match", [
    (lambda: labels_at_grid(masks(), (8, 8), "nearest"), "rule: unknown name 'nearest'"), (lambda: labels_at_grid(masks(), (80, 8)), "grid: 80 is out of range"),
    (lambda: labels_at_grid(masks().float(), (8, 8)), "masks: expected integer"), (lambda: labels_at_grid(masks()[0], (8, 8)), "masks: has 2 axes")])
def test_bad_grids_are_named(call, match):
    with pytest.raises(ValueError, match=match): call()


# ---- pairs ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("count", [2, 3, 7])
def test_a_derangement_has_no_fixed_point_and_reaches_everybody(count):
    seen = set()
    for seed in range(200):
        pair = partners(count, generator(seed))
        assert torch.equal(pair.sort().values, torch.arange(count)) and not (pair == torch.arange(count)).any()
        seen |= {(i, int(j)) for i, j in enumerate(pair)}
    assert len(seen) == count * (count - 1)

def test_a_shuffle_has_one_fixed_point_on_average():
    fixed = [(partners(6, generator(s), "shuffle") == torch.arange(6)).sum().item() for s in range(600)]
    assert abs(sum(fixed) / 600 - 1) < .15 and max(fixed) > 1

def test_one_image_has_no_partner():
    with pytest.raises(ValueError, match="images: a batch of 1 has no other image"): partners(1)
    with pytest.raises(ValueError, match="images: a batch of 1"): create_method("label_contrast", seed=0, form="paper_cross", **SMALL).loss(images(1), masks(1), generator())
    assert create_method("label_contrast", seed=0, form="released_cross", pairing="shuffle", **SMALL).loss(images(1), masks(1), generator())["loss"].isfinite()


# ---- samplers -------------------------------------------------------------------------------------------------------

def some_labels(seed=0, B=5, N=200):
    y = torch.multinomial(torch.tensor([.6, .25, .1, .04, .01]), B * N, True, generator=generator(seed)).view(B, N)
    y[:, ::7] = 255
    y[2] = 255
    return y

def drawn(y, count, strategy, seed=0, **keywords):
    found = sample_pixels(y, count, strategy, generator(seed), **keywords)
    for b, row in enumerate(found):
        kept = row[row >= 0]
        assert len(torch.unique(kept)) == len(kept) and not (y[b, kept] == 255).any()      # nothing twice, nothing ignored
    return found

def test_all_takes_every_labelled_pixel():
    y = some_labels()
    found = drawn(y, None, "all")
    for b in range(len(y)): assert torch.equal(found[b][found[b] >= 0], (y[b] != 255).nonzero()[:, 0])

def test_random_is_uniform_over_labelled_pixels():
    y = some_labels(B=3)
    times = torch.zeros(200)
    for seed in range(400): times[drawn(y, 40, "random", seed)[0]] += 1
    valid = y[0] != 255
    assert times[~valid].sum() == 0 and abs(times[valid].mean() - 400 * 40 / valid.sum()) < 1e-3
    assert times[valid].std() < 2 * (400 * .23 * .77) ** .5

def test_an_image_with_too_few_pixels_gives_what_it_has():
    y = some_labels()
    for strategy in ("random", "balanced"):
        found = drawn(y, 180, strategy)
        assert found.shape == (5, 180) and (found[2] == -1).all() and (found[0] >= 0).sum() == (y[0] != 255).sum()

@pytest.mark.parametrize("count", [1, 7, 40, 100])
def test_balanced_fills_classes_evenly(count):
    "Water-filling: a class is short of the fullest one by more than 1 only if all of it was taken."
    y = some_labels()
    for b, row in enumerate(drawn(y, count, "balanced")):
        if b == 2: continue
        classes, owned = torch.unique(y[b][y[b] != 255], return_counts=True)
        got = torch.stack([(y[b, row[row >= 0]] == c).sum() for c in classes])
        assert got.sum() == min(count, owned.sum()) and ((got >= got.max() - 1) | (got == owned)).all()

@pytest.mark.parametrize("count", [10, 40, 120])
def test_hard_takes_half_wrong_half_right_and_fills_up(count):
    y = some_labels()
    predictions = torch.where(torch.rand(y.shape, generator=generator(5)) < .3, (y + 1) % 5, y)
    found = drawn(y, count, "hard", predictions=predictions)
    pairs = sum(len(torch.unique(row[row != 255])) for row in y)
    n = len(y) * count // pairs
    for b, row in enumerate(found):
        row = row[row >= 0]
        for c in torch.unique(y[b][y[b] != 255]):
            wrong, right = (int(((y[b] == c) & (side(predictions[b], c))).sum()) for side in (torch.ne, torch.eq))
            got_wrong, got_right = (int(((y[b, row] == c) & (side(predictions[b, row], c))).sum()) for side in (torch.ne, torch.eq))
            assert got_wrong + got_right == min(n, wrong + right)
            assert got_wrong == min(wrong, max(n // 2, n - right)) and got_right == min(right, n - got_wrong)
    assert (found[2] == -1).all()

def test_hard_leaves_small_classes_out_if_asked():
    y, everywhere = some_labels(), torch.zeros(5, 200, dtype=torch.long)
    found = drawn(y, 50, "hard", predictions=everywhere, least=30)
    for b, row in enumerate(found):
        for c in torch.unique(y[b, row[row >= 0]]): assert (y[b] == c).sum() >= 30
    assert drawn(y, 50, "hard", predictions=everywhere, least=1000).shape == (5, 0)          # ContrastiveSeg's code stops with an error here

def test_taking_pixels_marks_what_is_missing():
    y, f = some_labels(), torch.randn(5, 200, 3)
    chosen = sample_pixels(y, 180, "random", generator())
    rows, labels = take_pixels(f, y, chosen)
    assert (labels[2] == 255).all()
    for b in range(5):
        kept = chosen[b] >= 0
        assert torch.equal(rows[b, kept], f[b, chosen[b, kept]]) and torch.equal(labels[b, kept], y[b, chosen[b, kept]])

def test_all_sampled_gives_the_exact_loss():
    y, f = some_labels(), normalize(torch.randn(5, 200, 8), dim=2)
    rows, labels = take_pixels(f, y, sample_pixels(y))
    for form in ("released_within", "supcon"): close(pixel_contrast(rows, labels, form=form), pixel_contrast(f, y, form=form))

def test_ranks_are_a_permutation_of_each_group():
    groups = torch.tensor([[0, 1, 0, -1, 1, 0], [2, 2, 2, 2, 2, -1]])
    ranks, sizes = place_in_group(groups, 3, generator())
    assert sizes.tolist() == [[3, 2, 0], [0, 0, 5]]
    for b, c in ((0, 0), (0, 1), (1, 2)): assert ranks[b][groups[b] == c].sort().values.tolist() == list(range(int(sizes[b, c])))

def test_nearest_class_mean_predicts_separate_classes():
    y = torch.tensor([[3, 3, 7, 7, 255]])
    f = torch.tensor([[[1., 0.], [1., .1], [0., 1.], [1., -.1], [0., 1.]]])
    assert nearest_class_mean(f, y)[0, :3].tolist() == [3, 3, 7]
    assert (nearest_class_mean(f, torch.full((1, 5), 255)) == 255).all()

@pytest.mark.parametrize("arguments,match", [
    (dict(strategy="easy"), "strategy: unknown name 'easy'"), (dict(strategy="random"), "count: 0 is out of range"), (dict(strategy="hard", count=5), "predictions: strategy 'hard'"),
    (dict(strategy="hard", count=5, predictions=torch.zeros(5, 10).long()), "predictions: has size 10")])
def test_bad_sampling_is_named(arguments, match):
    with pytest.raises(ValueError, match=match): sample_pixels(some_labels(), **arguments)


# ---- what to watch --------------------------------------------------------------------------------------------------

def test_compactness_equals_loops():
    f, y = torch.randn(60, 5), torch.randint(0, 4, (60,))
    y[:9] = 255
    rows = normalize(f, dim=1)
    means = {c: normalize(rows[y == c].mean(0), dim=0) for c in range(4)}
    found = compactness(f, y)
    close(found["compact"], torch.stack([rows[i] @ means[int(y[i])] for i in range(9, 60)]).mean())
    close(found["close"], torch.stack([means[a] @ means[b] for a in range(4) for b in range(4) if a != b]).mean())

def test_two_classes_counts_images_with_a_contrast():
    y = torch.tensor([[0, 0, 255], [0, 1, 255], [255, 255, 255], [5, 5, 5], [255, 255, 3]])
    assert two_classes(y).tolist() == [False, True, False, False, False] and two_classes(y.to(torch.uint8)).tolist() == [False, True, False, False, False]


# ---- the method -----------------------------------------------------------------------------------------------------

def test_two_colours_share_their_geometry():
    plain = ViewConfig(size=64, jitter=0., grayscale=0., blur=0.)
    first, second = two_colours(images(), masks(), VIEW, generator())
    assert torch.equal(first.box, second.box) and torch.equal(first.flipped, second.flipped) and not torch.equal(first.image, second.image)
    assert (first.parameters.brightness == 1).all() and (second.parameters.brightness != 1).any()
    both, _ = two_colours(images(), masks(), VIEW, generator(), colours="both")
    assert (both.parameters.brightness != 1).any()
    same = two_colours(images(), masks(), plain, generator())
    assert torch.equal(same[0].image, same[1].image)

@pytest.mark.parametrize("form", FORMS)
def test_contract(form):
    method = create_method("label_contrast", seed=0, form=form, **SMALL)
    a, b, c = (method.loss(images(), masks(), generator(s)) for s in (1, 1, 2))
    assert a["loss"].item() == b["loss"].item() != c["loss"].item() and a["loss"].ndim == 0
    a["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.branch.parameters())
    assert method.uses_labels and method.head is None and not any(key.startswith("encoder.") for key in method.state_dict())
    method.after_step()

def test_the_loss_is_the_named_form_of_the_two_versions():
    for form in FORMS:
        method = create_method("label_contrast", seed=0, form=form, temperature=.2, label_rule="pure", **SMALL).eval()
        draw = generator(4)
        first, second = two_colours(images(), masks(), VIEW, draw)
        f, g = (normalize(method.branch(view.image).flatten(2).transpose(1, 2), dim=2) for view in (first, second))
        y = labels_at_grid(first.mask, (8, 8), "pure").flatten(1)
        others = (g, y)
        if form.endswith("cross"):
            pair = partners(6, draw)
            others = (g[pair], y[pair]) if form == "released_cross" else ((g, g[pair]), (y, y[pair]))
        close(method.loss(images(), masks(), generator(4))["loss"], pixel_contrast(f, y, *others, form=form, temperature=.2))

@pytest.mark.parametrize("change", [dict(projector="paper"), dict(label_rule="pure"), dict(resolution=12), dict(colours="both"), dict(decoder="fcn", decoder_width=16), dict(decoder="aspp", decoder_width=16),
                                    dict(form="released_cross", pairing="shuffle"), *[dict(sampling=s, samples=20) for s in STRATEGIES[1:]], dict(sampling="balanced", samples=20, form="paper_cross")])
def test_choices_train(change):
    method = create_method("label_contrast", seed=0, **{**SMALL, **change})
    terms = method.loss(images(), masks(), generator())
    terms["loss"].backward()
    assert terms["loss"].isfinite() and all(p.grad is not None for p in method.branch.parameters())
    assert (method.head is not None) == ("decoder" in change)

def test_projectors_are_the_papers():
    kinds = lambda name: [type(m).__name__ for m in create_method("label_contrast", projector=name, view=VIEW).branch.projector.layers]
    assert kinds("released") == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d"] and kinds("paper") == ["Conv2d", "ReLU", "Conv2d", "ReLU", "Conv2d"]
    assert create_method("label_contrast").branch.projector.channels == 256

def test_features_are_resized_before_they_are_projected():
    method = create_method("label_contrast", seed=0, resolution=5, **SMALL).eval()
    x = torch.randn(2, 3, 64, 64)
    small = torch.nn.functional.interpolate(method.encoder(x), (5, 5), mode="bilinear", align_corners=True)
    close(method.branch(x), method.branch.projector(small))

EDGES = {"all ignored": lambda m: m.fill_(255), "one class": lambda m: m.fill_(3), "one pixel": lambda m: m.fill_(255).index_put_((torch.tensor(0), torch.tensor(36), torch.tensor(36)), torch.tensor(1)),
         "one labelled image": lambda m: m.index_fill_(0, torch.arange(1, 6), 255)}

@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sampling", STRATEGIES)
def test_edges_stay_finite(form, sampling):
    for name, edit in EDGES.items():
        method = create_method("label_contrast", seed=0, form=form, sampling=sampling, samples=8, **{**SMALL, "view": ViewConfig(size=32, scale=(1., 1.), ratio=(1., 1.), blur=0.)})
        terms = method.loss(images(), edit(masks()), generator())
        terms["loss"].backward()
        assert all(value.isfinite() for value in terms.values()), name
        gradient = torch.cat([p.grad.flatten() for p in method.branch.parameters()])
        assert gradient.isfinite().all(), name
        if name == "all ignored": assert terms["loss"] == 0 and not gradient.any()
        if name == "one class" and form.startswith("released"): assert terms["loss"] == 0 and not gradient.any()

def test_one_labelled_pixel_of_the_grid():
    "A single row: no negative for the released forms, only itself for the printed one, no positive for SupCon's own view."
    method = LabelContrast.__new__(LabelContrast)
    torch.nn.Module.__init__(method)
    f, g = (normalize(torch.randn(2, 9, 4), dim=2).requires_grad_() for _ in range(2))
    y = torch.full((2, 9), 255)
    y[1, 3] = 2
    for form in FORMS:
        method.config = LabelContrastConfig(form=form)
        loss = method.terms(f, g, y, generator())["loss"]
        gradients = torch.autograd.grad(loss, (f, g))
        assert loss.abs() < 1e-5 and all(part.abs().max() < 1e-4 for part in gradients), form

def test_masks_are_asked_for():
    with pytest.raises(ValueError, match="masks: label contrast learns from labels"): create_method("label_contrast", seed=0, **SMALL).loss(images())

@pytest.mark.parametrize("change,match", [
    (dict(form="within"), "form: unknown name 'within'"), (dict(temperature=0), "temperature: 0 is out of range"), (dict(projector="mlp"), "projector: unknown"), (dict(label_rule="nearest"), "label_rule: unknown"),
    (dict(pairing="roll"), "pairing: unknown"), (dict(sampling="easy"), "sampling: unknown"), (dict(samples=0), "samples: 0"), (dict(colours="one"), "colours: unknown"), (dict(decoder="unet"), "decoder: unknown"),
    (dict(resolution=1), "resolution: 1"), (dict(tau=1), "LabelContrast setting: unknown name 'tau'")])
def test_bad_settings_are_named(change, match):
    with pytest.raises(ValueError, match=match): create_method("label_contrast", **change)

def test_other_backbones():
    terms = create_method("label_contrast", create_encoder("resnet18", output_stride=16), seed=0, **SMALL).loss(images(), masks(), generator())
    terms["loss"].backward()
    assert terms["loss"].isfinite()

def test_resumed_run_has_the_same_bits(tmp_path):
    config = TrainConfig(steps=4, batch_size=6, lr=.03, precision="bf16", channels_last=True, device="cpu", checkpoint_every=2, progress=False)
    make = lambda: create_method("label_contrast", seed=0, form="released_cross", sampling="hard", samples=20, **SMALL)
    whole, resumed = make(), make()
    pretrain(whole, Pictures(), config)
    pretrain(make(), Pictures(), config, run_dir=tmp_path, on_step=lambda step, *_: "stop" if step == 1 else None)
    pretrain(resumed, Pictures(), config, run_dir=tmp_path)
    for key, value in whole.state_dict().items(): assert torch.equal(value, resumed.state_dict()[key]), key

def test_training_makes_classes_compact_and_far_apart():
    "Classes that are colours: 25 steps must raise compactness and lower closeness on what was learned from."
    data = Pictures()
    colour = torch.tensor([[200, 30, 30], [30, 200, 30], [30, 30, 200], [200, 200, 30]])
    data.images = (colour[data.masks.clamp(max=3)].permute(0, 3, 1, 2) + torch.randint(-30, 30, (12, 3, 72, 72))).clamp(0, 255).to(torch.uint8)
    method = create_method("label_contrast", seed=0, temperature=.1, **{**SMALL, "view": ViewConfig(size=64, jitter=0., grayscale=0., blur=0.)})
    history = pretrain(method, data, TrainConfig(steps=25, batch_size=12, lr=.06, device="cpu", progress=False))
    gap = [a - b for a, b in zip(history["compact"], history["close"])]
    assert gap[-1] > gap[0] + .2 and history["loss"][-1] < history["loss"][0]


# ---- stage 2, and few images ----------------------------------------------------------------------------------------

def test_few_labelled_images_train_and_finetune():
    train, test = load_data("samples", split="train"), load_data("samples", split="val").subset(range(3))
    eight = label_subset(train, count=3).cache()
    with pytest.raises(ValueError, match="batch_size: 8 images on each of 1 processes, but the data set has 3"): BatchOrder(len(eight), 8)
    method = create_method("label_contrast", "pixcl_tiny", seed=0, form="paper_cross", **SMALL)
    filled = fill_batch(eight, 8)
    assert len(filled) == 9 and sorted(set(filled.names)) == sorted(eight.names) and len(filled.memory) == 9
    history = pretrain(method, filled, TrainConfig(steps=2, batch_size=8, lr=.03, device="cpu", progress=False))
    assert len(history) == 2 and fill_batch(train, 8) is train
    result = finetune(method.encoder, eight, test, steps=2, batch_size=4, crop=(64, 64), head=PixelClassifier(method.encoder.channels))
    assert 0 <= result.miou <= 1 and sum(p.numel() for p in result.model.head.parameters()) == 11 * (256 + 1)

def test_the_classifier_starts_from_finetunes_seed():
    train, test = (load_data("samples", split=s).subset(range(2)) for s in ("train", "val"))
    encoder = create_encoder("pixcl_tiny")
    weights = [finetune(encoder, train, test, steps=1, batch_size=2, crop=(32, 32), head=PixelClassifier(256), seed=s).model.head.classifier.weight for s in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


# ---- several processes ----------------------------------------------------------------------------------------------

def worker():
    "2 processes with half a batch each (one of them with an ignored image) must together be one process with all of it, for every form whose pairs stay inside a process or that gathers."
    import gc
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    torch.manual_seed(7)
    x, x_hat, y, start = torch.randn(4, 12, 6), torch.randn(4, 12, 6), torch.randint(0, 3, (4, 12)), torch.randn(6, 5)
    y[3] = 255
    method = LabelContrast.__new__(LabelContrast)
    torch.nn.Module.__init__(method)
    mine = slice(2 * rank, 2 * rank + 2)
    for form in ("released_within", "paper_within", "supcon"):
        method.config = LabelContrastConfig(form=form)
        whole, half = (start.clone().requires_grad_() for _ in range(2))
        loss = pixel_contrast(normalize(x @ whole, dim=2), y, normalize(x_hat @ whole, dim=2), y, form=form)
        loss.backward()
        part = method.terms(normalize(x[mine] @ half, dim=2), normalize(x_hat[mine] @ half, dim=2), y[mine], generator())["loss"]
        part.backward()
        total = part.detach().clone()
        for tensor in (total, half.grad): torch.distributed.all_reduce(tensor)
        close(total / 2, loss.detach()); close(half.grad / 2, whole.grad, 1e-4, 1e-6)
    print(f"rank {rank} agrees", flush=True)
    del method, whole, half, loss, part, total; gc.collect()
    torch.distributed.destroy_process_group()

@pytest.mark.long
def test_two_processes_equal_one():
    run = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", __file__], capture_output=True, text=True, timeout=240, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert run.returncode == 0, run.stderr[-2000:]
    assert "rank 0 agrees" in run.stdout and "rank 1 agrees" in run.stdout

if __name__ == "__main__": worker()


def test_hard_pixels_are_counted_over_the_whole_batch():
    from pixcl_nb.methods.label_contrast import hard_pixels
    from pixcl_nb.processes import Shares
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 5, (4, 200), generator=generator)
    labels[:2] = labels[:2].clamp(max=1)                                        # the first half holds two classes an image, the other five
    wrong = torch.rand(4, 200, generator=generator) < .4
    draw = lambda part, flags: hard_pixels(part, 5, 30, flags, torch.Generator().manual_seed(1))
    counted = lambda chosen: torch.stack([torch.bincount((2 * labels + wrong)[row][chosen[row]], minlength=10) for row in range(4)])
    whole, alone = counted(draw(labels, wrong)), counted(torch.cat([draw(labels[:2], wrong[:2]), draw(labels[2:], wrong[2:])]))
    assert not torch.equal(whole, alone)                                        # each half for itself takes other numbers
    with Shares(2) as shares:
        for _ in range(3):
            parts = [draw(labels[2 * part:2 * part + 2], wrong[2 * part:2 * part + 2]) for part in shares.parts()]
            if shares.settled(): break
    assert torch.equal(counted(torch.cat(parts)), whole)
    method = create_method("label_contrast", seed=0, form="released_within", sampling="hard", samples=16)
    assert method.couples_images and not create_method("label_contrast", form="released_within").couples_images
