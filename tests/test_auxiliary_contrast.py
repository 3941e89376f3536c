"Auxiliary contrast: the loss against loops, the ids of a view, the switches, and labels that change in training."
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pixcl_nb.positives.auxiliary_labels import (
    ColourFeatures, fit_auxiliary_labels, load_auxiliary_labels)
from pixcl_nb.losses.label_losses import pixel_contrast
from pixcl_nb.positives.matching import geometric_matches
from pixcl_nb.methods.contract import create_method
from pixcl_nb.methods.auxiliary_contrast import AuxiliaryContrast, ids_at_cells, matching_loss
from pixcl_nb.training.relabelling import Relabel
from pixcl_nb.training.loop import pretrain
from pixcl_nb.training.settings import TrainConfig
from pixcl_nb.images.views import ViewConfig, random_view

VIEW = ViewConfig(size=32, scale=(.4, 1.))
generator = lambda seed=0: torch.Generator().manual_seed(seed)
unit = lambda *shape: F.normalize(torch.randn(*shape, generator=generator(1), dtype=torch.float64), dim=-1)


class Tiny(nn.Module):
    "A convolution a cell."
    channels, stride = 8, 8
    def __init__(self): super().__init__(); self.layer = nn.Conv2d(3, 8, 8, 8)
    def forward(self, images): return self.layer(images)


class Pictures(torch.utils.data.Dataset):
    extents, num_classes, class_names = None, 2, ["a", "b"]
    def __init__(self, n=12, size=40):
        self.images = torch.randint(0, 256, (n, 3, size // 8, size // 8), dtype=torch.uint8, generator=generator()).repeat_interleave(8, 2).repeat_interleave(8, 3)
        self.names = [f"{i}" for i in range(n)]
    def __len__(self): return len(self.images)
    def __getitem__(self, i): return self.images[i], torch.zeros(self.images.shape[2:], dtype=torch.long)


def method(seed=0, **config):
    torch.manual_seed(seed)
    return create_method("auxiliary_contrast", Tiny(), **{**dict(view=VIEW, dim=16), **config})


def batch(data=None, k=5):
    data = data or Pictures()
    return fit_auxiliary_labels(ColourFeatures(8), data, k).dataset(data).batch(range(6))


# ---------------------------------------------------------------- ids

def test_a_cell_takes_the_id_at_its_centre():
    masks = torch.randint(0, 9, (2, 32, 48), generator=generator())
    assert torch.equal(ids_at_cells(masks, (4, 6)), masks[:, 4::8, 4::8])
    assert torch.equal(ids_at_cells(masks, (32, 48)), masks)
    assert ids_at_cells(masks[:, :31, :33], (4, 5)).shape == (2, 4, 5)


def test_pure_cells_only():
    masks = torch.randint(0, 1000, (2, 4, 6), generator=generator()).repeat_interleave(8, 1).repeat_interleave(8, 2)
    assert torch.equal(ids_at_cells(masks, (4, 6), "pure", 65_535), masks[:, ::8, ::8])
    masks[0, 0, 0] += 1
    expected = masks[:, 4::8, 4::8].clone()
    expected[0, 0, 0] = 65_535
    assert torch.equal(ids_at_cells(masks, (4, 6), "pure", 65_535), expected)


def test_another_ignored_id_than_the_method_expects_is_refused():
    with pytest.raises(ValueError, match=r"id 65535, but ignore_index is 255; create the method with \*\*labels.for_method"): ids_at_cells(torch.full((1, 8, 8), 65_535), (1, 1))
    with pytest.raises(ValueError, match="id -1"): ids_at_cells(torch.full((1, 8, 8), -1), (1, 1))
    assert ids_at_cells(torch.full((1, 8, 8), 255), (1, 1), ignore_index=65_535).item() == 255      # cluster 255 of many


# ---------------------------------------------------------------- the matching term

def by_loops(f, g, match, ids, tau, ignore=255):
    "Cells that show one place are positives; cells of other clusters negatives."
    rows, place, kind = [], [], []
    def add(row, b, cell):
        rows.append(row); place.append((b, cell)); kind.append(("alone", b, cell) if ids[b, cell] == ignore else int(ids[b, cell]))
    for b in range(len(f)):
        for i in range(f.shape[1]):
            if match[b, i] >= 0: add(f[b, i], b, int(match[b, i]))
        for cell in sorted({int(m) for m in match[b] if m >= 0}): add(g[b, cell], b, cell)
    total = 0.
    for i, row in enumerate(rows):
        negatives = sum(torch.exp(row @ other / tau) for j, other in enumerate(rows) if kind[j] != kind[i])
        pairs = [-torch.log(torch.exp(row @ rows[j] / tau) / (torch.exp(row @ rows[j] / tau) + negatives)) for j in range(len(rows)) if j != i and place[j] == place[i]]
        total = total + sum(pairs) / len(pairs)
    return total / len(rows)


def test_matching_loss_equals_loops_in_value_and_gradient():
    f, g = unit(3, 7, 8).requires_grad_(), unit(2, 3, 6, 8)[1].clone().requires_grad_()
    match, ids = torch.randint(-1, 6, (3, 7), generator=generator(2)), torch.randint(0, 3, (3, 6), generator=generator(3))
    ids[0, :3] = 255
    ours, loops = matching_loss(f, g, match, ids, .2), by_loops(f, g, match, ids, .2)
    torch.testing.assert_close(ours, loops)
    for a, b in zip(torch.autograd.grad(ours, (f, g)), torch.autograd.grad(loops, (f, g))): torch.testing.assert_close(a, b)


def test_matching_without_a_match_is_zero_with_a_zero_gradient():
    f = unit(2, 4, 8).requires_grad_()
    loss = matching_loss(f, f.detach(), torch.full((2, 4), -1), torch.zeros(2, 4, dtype=torch.long))
    assert loss == 0 and torch.autograd.grad(loss, f)[0].abs().sum() == 0


def test_pixels_of_one_cluster_never_push_each_other():
    "One cluster, no negatives: nothing is left to pay for. And a cell's own place is never among its negatives, whatever its other view is labelled."
    f = unit(2, 4, 8)
    assert matching_loss(f, unit(2, 4, 8), torch.arange(4).expand(2, -1), torch.ones(2, 4, dtype=torch.long)) == pytest.approx(0, abs=1e-9)


# ---------------------------------------------------------------- the method

def test_the_terms_are_what_they_say():
    images, masks, _ = batch()
    model = method(match_weight=.3)
    terms = model.loss(images, masks, generator(4))
    torch.testing.assert_close(terms["loss"], terms["auxiliary"] + .3 * terms["matching"])
    draw = generator(4)
    views = [random_view(images, VIEW, draw, masks=masks) for _ in range(2)]
    f, g = (F.normalize(model.branch(view.image).flatten(2).transpose(1, 2), dim=2) for view in views)
    ids = [view.mask[:, 4::8, 4::8].flatten(1) for view in views]
    torch.testing.assert_close(terms["auxiliary"], pixel_contrast(f, ids[0], g, ids[1], form="supcon", temperature=.1))
    torch.testing.assert_close(terms["matching"], matching_loss(f, g, geometric_matches(*views, 8), ids[1], .1))


@pytest.mark.parametrize("positives, scope", [("any", "any"), ("within", "same image"), ("across", "other image")])
def test_positives_choose_the_scope(positives, scope):
    f, g, ids = unit(4, 9, 8).float(), unit(5, 4, 9, 8)[2].float(), torch.randint(0, 3, (4, 9), generator=generator())
    ours = method(positives=positives, match_weight=0).terms(f, g, ids, ids, None)["loss"]
    torch.testing.assert_close(ours, pixel_contrast(f, ids, g, ids, form="supcon", temperature=.1, scope=(scope, "any")))


@pytest.mark.parametrize("form", ["supcon", "released_within", "released_cross", "paper_within", "paper_cross"])
@pytest.mark.parametrize("samples", [None, 5])
def test_every_form_trains(form, samples):
    images, masks, _ = batch()
    model = method(form=form, samples=samples)
    terms = model.loss(images, masks, generator())
    terms["loss"].backward()
    assert all(torch.isfinite(value) for value in terms.values()) and all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.loss(images, masks, generator())["loss"] == method(form=form, samples=samples).loss(images, masks, generator())["loss"] != model.loss(images, masks, generator(1))["loss"]


def test_ignored_pixels_change_nothing_but_the_matches():
    images, masks, _ = batch()
    nothing = torch.full_like(masks, 255)
    terms = method().loss(images, nothing, generator())
    assert terms["auxiliary"] == 0 and terms["matching"] > 0 and "compact" not in terms
    model = method(match_weight=0)
    loss = model.loss(images, nothing, generator())["loss"]
    loss.backward()
    assert loss == 0 and all(p.grad.abs().sum() == 0 for p in model.parameters())


def test_ids_of_16_bits_are_ignored_where_they_should_be():
    images, masks, _ = batch()
    small = masks.clone()
    small[:, :9] = 255
    large = torch.where(small == 255, 65_535, small + 255)                   # the same clusters by other names, one of them 255
    a, b = method().loss(images, small, generator()), method(ignore_index=65_535).loss(images, large, generator())
    for key in a: torch.testing.assert_close(a[key], b[key])


def test_names_of_clusters_do_not_matter():
    images, masks, _ = batch()
    order = torch.randperm(256, generator=generator()); order[255] = 255
    order[order == 255] = torch.where(torch.arange(256)[order == 255] == 255, 255, 777)
    a, b = (method().loss(images, m, generator())["loss"] for m in (masks, order[masks]))
    torch.testing.assert_close(a, b)


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="positives: form 'paper_within' fixes which pairs"): method(form="paper_within", positives="across")
    with pytest.raises(ValueError, match="cells: unknown name 'center', did you mean 'centre'"): method(cells="center")
    with pytest.raises(ValueError, match="masks: auxiliary contrast learns from discovered labels"): method().loss(Pictures().images)
    assert isinstance(method(), AuxiliaryContrast) and method().uses_labels


# ---------------------------------------------------------------- training, relabelling

CONFIG = TrainConfig(steps=9, batch_size=6, lr=.05, device="cpu", checkpoint_every=2, progress=False)


def start(data, k=5): return fit_auxiliary_labels(ColourFeatures(8), data, k)


def test_a_labelling_trains_the_method(tmp_path):
    data, model = Pictures(), method()
    labels = start(data).save(tmp_path)
    model = method(**labels.for_method())
    history = pretrain(model, labels.dataset(data), TrainConfig(steps=40, batch_size=6, lr=.1, device="cpu", progress=False))
    assert sum(history["loss"][-5:]) < sum(history["loss"][:5]) and model.settings["labels"] == load_auxiliary_labels(tmp_path).digest


def relabelled(run_dir=None, stop=None):
    "A run of nine steps with new labels after 3 and 6; optionally stopped (and its last checkpoint is then older than its last labels)."
    data, model = Pictures(), method()
    dataset = start(data).dataset(data)
    hook = Relabel(dataset, 5, every=3, run_dir=run_dir, pixels=200)
    on_step = (lambda step, terms, method: (hook(step, terms, method), "stop" if step == stop else None)[1])
    pretrain(model, dataset, CONFIG, run_dir, on_step=on_step)
    return model, dataset, hook


def test_relabelling_exchanges_the_labels_on_time():
    seen, data, model = [], Pictures(), method()
    dataset = start(data).dataset(data)
    first, hook = dataset.labels, Relabel(dataset, 5, every=3, pixels=200)
    pretrain(model, dataset, CONFIG, on_step=lambda *a: (hook(*a), seen.append(dataset.labels))[0])
    assert hook.steps == [3, 6, 9] and [labels is first for labels in seen] == [True] * 2 + [False] * 7
    assert len({id(labels) for labels in seen}) == 4 and seen[2].manifest["encoder"]["weights"] != seen[5].manifest["encoder"]["weights"]


@pytest.mark.parametrize("stop", [1, 4, 6])
def test_a_resumed_run_with_new_labels_has_the_same_bits(tmp_path, stop):
    whole, whole_data, _ = relabelled()
    relabelled(tmp_path, stop)
    resumed, data, hook = relabelled(tmp_path)
    for key, value in whole.state_dict().items(): assert torch.equal(value, resumed.state_dict()[key]), key
    assert all(torch.equal(a, b) for a, b in zip(whole_data.labels, data.labels)) and hook.steps == [step for step in (3, 6, 9) if step > stop + 1]


def test_a_kill_between_new_labels_and_the_next_checkpoint_changes_nothing(tmp_path):
    whole, *_ = relabelled()
    class Killed(Exception): pass
    data, model = Pictures(), method()
    dataset = start(data).dataset(data)
    hook = Relabel(dataset, 5, every=3, run_dir=tmp_path, pixels=200)
    def on_step(step, terms, method):
        hook(step, terms, method)
        if step == 2: raise Killed
    with pytest.raises(Killed): pretrain(model, dataset, CONFIG, tmp_path, on_step=on_step)          # labels of step 3 stand there, the checkpoint is of step 2
    assert (tmp_path / "labels" / "step-00000003" / "manifest.json").exists()
    resumed, _, hook = relabelled(tmp_path)
    assert hook.steps == [3, 6, 9]
    for key, value in whole.state_dict().items(): assert torch.equal(value, resumed.state_dict()[key]), key


def test_relabelling_says_what_it_cannot_do():
    data = Pictures()
    dataset = start(data).dataset(data)
    with pytest.raises(TypeError, match="dataset: expected what labels.dataset"): Relabel(data, 5, every=3)
    hook = Relabel(dataset, 5, every=3)
    with pytest.raises(ValueError, match="every: the hook was called after 4 steps but not after 3; set TrainConfig.log_every"): hook(3, {}, method())
    with pytest.raises(ValueError, match="workers: labels that change in training"): pretrain(method(), dataset, TrainConfig(steps=1, batch_size=6, workers=1, device="cpu", progress=False))
    with pytest.raises(ValueError, match="ignore 65535, but the method 255"): Relabel(dataset, 260, every=1, stride=1, pixels=3000, outliers=0)(0, {}, method())
