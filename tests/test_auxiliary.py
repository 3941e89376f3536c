"Labels nobody drew: clustering, outliers, storage, interruption, and the verdict on a labelling against pairs of pixels counted one by one."
import itertools
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.metrics import v_measure_score
from torch import nn

from pixcl_nb.positives.auxiliary_labels import (
    AuxiliaryData, ColourFeatures, describe_encoder, fit_auxiliary_labels, label_grids,
    LabelGrid, load_auxiliary_labels, majority_in_superpixels, mirrored, rows_at, sample_rows)
from pixcl_nb.positives.clustering import (
    cluster_features, distinct_rows, Labeller, nearest, outlier_radius, spherical_kmeans)
from pixcl_nb.positives.quality import label_quality
from pixcl_nb.networks.encoders import create_encoder
from pixcl_nb.networks.encoding import ImageFeatures


@pytest.fixture(autouse=True)
def seeded(): torch.manual_seed(0)


def unit(n, d=8): return F.normalize(torch.randn(n, d), dim=1)


class Pictures(torch.utils.data.Dataset):
    "Images of three coloured stripes at random places; class = stripe. With `pad` they lie in a larger frame whose rest is bright red."
    num_classes, class_names, title = 3, ["a", "b", "c"], "pictures"
    COLOURS = torch.tensor([[200, 30, 30], [30, 200, 30], [30, 30, 200]])
    def __init__(self, n=6, size=(40, 56), pad=0, names=None):
        self.names, self.size, self.pad = names or [f"picture {i}" for i in range(n)], size, pad
        self.extents = torch.tensor([size] * n) if pad else None
    def __len__(self): return len(self.names)
    def __getitem__(self, i):
        if not 0 <= i < len(self): raise IndexError(i)
        rng = np.random.default_rng(i)
        mask = torch.from_numpy(np.sort(rng.integers(0, 3, self.size[0])))[:, None].expand(self.size).clone()
        image = (self.COLOURS[mask].permute(2, 0, 1) + torch.from_numpy(rng.integers(-20, 20, (3, *self.size)))).clamp(0, 255).to(torch.uint8)
        if self.pad:
            image, mask = F.pad(image, (0, self.pad, 0, self.pad), value=255), F.pad(mask, (0, self.pad, 0, self.pad), value=255)
            image[1:, self.size[0]:], image[1:, :, self.size[1]:] = 0, 0
        return image, mask
    def subset(self, indices): return Pictures(names=[self.names[i] for i in indices], size=self.size, pad=self.pad)


class Broken(nn.Module):
    channels, stride = 4, 8
    def forward(self, images): return torch.full((len(images), 4, images.shape[2] // 8, images.shape[3] // 8), float("nan"))


# ---------------------------------------------------------------- k-means

def test_nearest_equals_every_distance_written_out():
    rows, anchors = torch.randn(1000, 16), torch.randn(7, 16)
    ids, distances = nearest(rows, anchors, chunk=64)
    every = torch.cdist(rows.double(), anchors.double()) ** 2
    assert torch.equal(ids, every.argmin(1))
    torch.testing.assert_close(distances.double(), every.amin(1), rtol=1e-4, atol=1e-4)


def test_same_start_as_scikit_learn_same_inertia():
    rows = unit(5000, 16)
    theirs = KMeans(12, init=rows[:12].numpy(), n_init=1, max_iter=20, tol=0).fit(rows.numpy())
    ours = cluster_features(rows, 12, init=rows[:12])
    assert ours.inertia == pytest.approx(theirs.inertia_, rel=1e-3)
    assert (ours.ids.numpy() == theirs.labels_).mean() > .999


def test_the_cheap_start_is_as_good_as_the_dear_one():
    centres = 3 * unit(20, 16)
    rows = centres[torch.randint(0, 20, (30_000,))] + .3 * torch.randn(30_000, 16)
    theirs = np.mean([KMeans(20, n_init=1, max_iter=20, random_state=s).fit(rows.numpy()).inertia_ for s in range(3)])
    ours = np.mean([cluster_features(rows, 20, seed=s).inertia for s in range(3)])
    assert ours < 1.05 * theirs


def test_a_seed_fixes_the_clusters():
    rows = unit(3000)
    a, b, c = (cluster_features(rows, 9, seed=s) for s in (1, 1, 2))
    assert torch.equal(a.ids, b.ids) and torch.equal(a.centres, b.centres) and not torch.equal(a.centres, c.centres)


def test_spherical_centres_are_unit_and_no_row_prefers_another():
    found = cluster_features(torch.randn(2000, 8) * torch.rand(2000, 1), 6, spherical=True, iterations=50)
    torch.testing.assert_close(found.centres.norm(dim=1), torch.ones(6))
    assert torch.equal(nearest(F.normalize(found.centres, dim=1), found.centres)[0], torch.arange(6))
    rows = F.normalize(torch.randn(500, 8), dim=1)
    found = cluster_features(rows, 5, spherical=True)
    assert torch.equal(found.ids, (rows @ found.centres.T).argmax(1))


def test_spherical_iterations_never_raise_the_cost():
    rows = unit(2000)
    costs = [float(nearest(rows, spherical_kmeans(rows, rows[:7], i))[1].sum()) for i in (1, 2, 4, 8, 16)]
    assert all(b <= a + 1e-3 for a, b in itertools.pairwise(costs))


def test_k_is_refused_when_there_are_not_so_many_rows():
    with pytest.raises(ValueError, match="k: 11 clusters of 10 rows"): cluster_features(unit(10), 11)
    with pytest.raises(ValueError, match="k: 4 clusters, but rows holds only 3 distinct rows of 900"): cluster_features(unit(3).repeat(300, 1), 4)
    assert cluster_features(unit(3).repeat(300, 1), 3).sizes.tolist() == [300] * 3
    with pytest.raises(ValueError, match="rows: holds 1 NaN"): cluster_features(torch.tensor([[0., 1.], [float("nan"), 0]]), 1)
    with pytest.raises(ValueError, match="init: has size 3"): cluster_features(unit(10), 2, init=unit(3))
    with pytest.raises(ValueError, match="k: 0 is out of range"): cluster_features(unit(10), 0)


def test_rare_distinct_rows_are_found_where_a_sample_misses_them():
    rows = np.zeros((50_000, 2), np.float32)
    rows[:3, 0] = 1, 2, 3
    assert len(np.unique(distinct_rows(rows, 4, 0), axis=0)) == 4
    assert cluster_features(torch.from_numpy(rows), 4).inertia < 1e-9


@pytest.mark.parametrize("spherical", [False, True])
def test_an_empty_cluster_moves_to_a_row_served_badly(spherical):
    rows = F.normalize(torch.cat([torch.tensor([[1., 0, 0]]) + .01 * torch.randn(200, 3), torch.tensor([[0., 1, 0]]) + .01 * torch.randn(200, 3)]), dim=1)
    init = torch.tensor([[1., 0, 0], [0, 1, 0], [0, 0, -1]])                  # nobody is near the third
    found = cluster_features(rows, 3, init=init, spherical=spherical)
    assert (found.sizes > 0).all() and found.sizes.sum() == 400


# ---------------------------------------------------------------- outliers

@pytest.mark.parametrize("share", [0., .05, .2])
def test_outliers_are_the_farthest_share(share):
    distances, ids = torch.rand(4000) * torch.tensor([1., 2.]).repeat(2000), torch.tensor([0, 1]).repeat(2000)
    overall, per_cluster = (outlier_radius(distances, ids, 3, share, scope) for scope in ("overall", "per_cluster"))
    assert (distances > overall[ids]).float().mean() == pytest.approx(share, abs=.001)
    for cluster in (0, 1): assert (distances > per_cluster[ids])[ids == cluster].float().mean() == pytest.approx(share, abs=.001)
    if share == .2: assert (distances > overall[ids])[ids == 0].sum() == 0                # the wide cluster pays for all
    assert per_cluster[2] == float("inf")                                     # a cluster without rows loses nothing


def test_a_labeller_says_minus_one_beyond_its_radius():
    labeller = Labeller(torch.tensor([[0., 0], [10, 0], [5, 0]]), torch.tensor([0, 1, -1]), torch.tensor([1., 2., 9.]))
    assert labeller.assign(torch.tensor([[.5, 0], [1.5, 0], [8.5, 0], [5.1, 0]])).tolist() == [0, -1, 1, -1] and labeller.k == 2


# ---------------------------------------------------------------- the label grid

def test_rows_between_cells_are_torchs_bilinear_resize():
    features, size = torch.randn(6, 5, 7), (40, 56)
    for stride in (8, 4, 2, 1):
        grid = LabelGrid(ImageFeatures(features, size, size, 8), size, stride)
        ours = rows_at(grid.features, grid.y[:, None], grid.x[None]).permute(2, 0, 1)
        theirs = F.interpolate(features[None], grid.shape, mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(ours, F.normalize(theirs, dim=0), rtol=1e-4, atol=1e-5)
        cells = torch.randperm(len(grid))[:9]
        torch.testing.assert_close(grid.rows(cells), ours.flatten(1).T[cells])


def test_bands_do_not_change_the_ids():
    grid = LabelGrid(ImageFeatures(torch.randn(6, 5, 7), (37, 50), (37, 50), 8), (37, 50), 3)
    labeller = Labeller(unit(5, 6), torch.arange(5), torch.full((5,), float("inf")))
    whole = grid.ids(labeller)
    assert whole.shape == (37, 50) and torch.equal(whole, grid.ids(labeller, budget=1))
    assert torch.equal(whole[:36, :48].view(12, 3, 16, 3)[:, 0, :, 0], whole[1:36:3, 1:48:3])          # one id a cell


def test_the_sample_does_not_depend_on_the_batch():
    encoder = create_encoder("pixcl_tiny")
    a, b = (sample_rows(encoder, Pictures(), 60, 4, seed=3, batch_size=size) for size in (1, 6))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert len(a) == 60 and torch.allclose(a.norm(dim=1), torch.ones(60))


def test_a_mirrored_margin_shifts_nothing():
    image = torch.randint(0, 256, (3, 20, 28), dtype=torch.uint8)
    assert torch.equal(mirrored(image, 8), F.pad(image.float(), (8,) * 4, mode="reflect").byte()) and mirrored(image[:, :1, :2], 5).shape == (3, 11, 12)
    data, cells = Pictures(n=2, size=(37, 51)), lambda margin, stride: torch.cat([grid.rows(torch.arange(len(grid))) for _, _, grid in label_grids(ColourFeatures(4), data, [0, 1], stride, margin=margin)])
    assert cells(0, 4).shape == cells(3, 4).shape == (2 * 10 * 13, 4)
    inner = (torch.arange(10)[:, None] < 9) & (torch.arange(13) < 12)        # the last cells stick out of the image: there the margin shows
    torch.testing.assert_close(cells(0, 4).view(2, 10, 13, 4)[:, inner], cells(3, 4).view(2, 10, 13, 4)[:, inner])


def test_without_a_margin_the_border_is_a_kind_of_its_own():
    "An encoder with zero padding, images of one colour: with a mirrored margin all cells are equal, without it those at the border differ."
    class Flat(Pictures):
        def __getitem__(self, i): return torch.full((3, *self.size), 90 + i, dtype=torch.uint8), torch.zeros(self.size, dtype=torch.long)
    encoder = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
    encoder.channels, encoder.stride = 8, 8
    kinds = [fit_auxiliary_labels(encoder, Flat(n=2, size=(64, 64)), 2, outliers=0, margin=margin)[0].unique().numel() for margin in (0, 2)]
    assert kinds == [2, 1]


# ---------------------------------------------------------------- labelling a data set

@pytest.mark.parametrize("algorithm, options", [("kmeans", {}), ("kmeans", dict(spherical=True)), ("dbscan", dict(sample=1500, eps=.15)), ("hdbscan", dict(sample=1500))])
def test_three_colours_become_three_labels(algorithm, options):
    data = Pictures()
    labels = fit_auxiliary_labels(ColourFeatures(stride=1), data, 3 if algorithm == "kmeans" else None, algorithm=algorithm, options=options, outliers=0, pixels=3000)
    quality = labels.quality(data)
    assert labels.k == 3 and labels.ignore_index == 255
    assert quality["positive_precision"] > .999 and quality["recall"] > .999 and quality["coverage"] > (.95 if algorithm == "kmeans" else .5)


def test_a_twentieth_of_the_pixels_is_set_aside():
    data = Pictures(n=12)
    for scope in ("overall", "per_cluster"):
        labels = fit_auxiliary_labels(ColourFeatures(stride=1), data, 3, outliers=.05, outlier_scope=scope, pixels=20_000)
        assert labels.quality(data)["coverage"] == pytest.approx(.95, abs=.01)
    assert fit_auxiliary_labels(ColourFeatures(stride=1), data, 3, outliers=0).quality(data)["coverage"] == 1


def test_padding_never_takes_part():
    bare, framed = Pictures(), Pictures(pad=24)
    a, b = (fit_auxiliary_labels(ColourFeatures(stride=8), data, 3, outliers=0, stride=4) for data in (bare, framed))
    assert b.sizes == [(40, 56)] * 6 and all(torch.equal(x, y) for x, y in zip(a, b)) and torch.equal(a.labeller.anchors, b.labeller.anchors)
    image, ids = b.dataset(framed)[0]
    assert image.shape[1:] == ids.shape == (64, 80) and (ids[40:] == 255).all() and (ids[:, 56:] == 255).all() and (ids[:40, :56] < 3).all()
    assert b.quality(framed) == a.quality(bare)


def test_the_encoder_is_left_as_it_was():
    encoder = create_encoder("pixcl_tiny").train()
    encoder.blocks[0].eval()
    before, digest = [part.training for part in encoder.modules()], describe_encoder(encoder)
    fit_auxiliary_labels(encoder, Pictures(), 4)
    assert [part.training for part in encoder.modules()] == before and describe_encoder(encoder) == digest and all(p.requires_grad and p.grad is None for p in encoder.parameters())


def test_wrong_calls_name_the_argument():
    data, encoder = Pictures(n=2), ColourFeatures(8)
    for error, message, call in [
            (ValueError, "encoder: its features of image 0: holds .* NaN", lambda: fit_auxiliary_labels(Broken(), data, 3)),
            (ValueError, "k: 90 clusters of 70 sampled pixels", lambda: fit_auxiliary_labels(encoder, data, 90)),
            (ValueError, "k: kmeans needs the number of clusters", lambda: fit_auxiliary_labels(encoder, data)),
            (ValueError, "algorithm: unknown name 'kmean', did you mean 'kmeans'", lambda: fit_auxiliary_labels(encoder, data, 3, algorithm="kmean")),
            (ValueError, "outliers: 1.5 is out of range", lambda: fit_auxiliary_labels(encoder, data, 3, outliers=1.5)),
            (ValueError, "refine: unknown name 'slik'", lambda: fit_auxiliary_labels(encoder, data, 3, refine="slik")),
            (ValueError, "min_samples: 10 of only 2 rows", lambda: fit_auxiliary_labels(encoder, data, algorithm="dbscan", pixels=2)),
            (ValueError, "eps: every row is noise", lambda: fit_auxiliary_labels(encoder, data, algorithm="dbscan", options=dict(eps=1e-9))),
            (ValueError, "two images are called 'x'", lambda: fit_auxiliary_labels(encoder, Pictures(n=2, names=["x.png", "x.jpg"]), 3)),
            (ValueError, "leads out of the labels' folder", lambda: fit_auxiliary_labels(encoder, Pictures(n=1, names=["../x"]), 3)),
            (TypeError, "encoder: expected an nn.Module", lambda: fit_auxiliary_labels(nn.Linear(3, 3), data, 3))]:
        with pytest.raises(error, match=message): call()


# ---------------------------------------------------------------- files

def test_stored_labels_are_indexed_pngs_with_a_manifest(tmp_path):
    data = Pictures(names=["city/a.1", "city/b", "c.png", "d", "e", "f"])
    labels = fit_auxiliary_labels(ColourFeatures(8), data, 3, tmp_path, stride=4)
    with Image.open(tmp_path / "labels" / "city" / "a.1.png") as file: assert file.mode == "P" and (np.array(file) == labels[0].numpy()).all()
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["settings"]["k"] == 3 and manifest["settings"]["seed"] == 0 and len(manifest["encoder"]["weights"]) == 64 and manifest["images"]["c"] == [40, 56]
    memory = fit_auxiliary_labels(ColourFeatures(8), data, 3, stride=4)
    assert all(torch.equal(a, b) for a, b in zip(labels, memory)) and memory.digest == labels.digest == load_auxiliary_labels(tmp_path).digest
    saved = memory.save(tmp_path / "again")
    assert saved.digest == memory.digest and all(torch.equal(a, b) for a, b in zip(saved, memory))


def test_more_than_255_clusters_take_16_bits(tmp_path):
    data = Pictures(size=(64, 64))
    labels = fit_auxiliary_labels(ColourFeatures(1), data, 300, tmp_path, pixels=6000, outliers=.1, options=dict(iterations=2))
    assert labels.ignore_index == 65_535 and labels.for_method()["ignore_index"] == 65_535
    with Image.open(tmp_path / "labels" / "picture 0.png") as file: assert file.mode.startswith("I;16") and np.array(file).max() == 65_535
    ids = torch.stack(list(load_auxiliary_labels(tmp_path)))
    assert ids[ids != 65_535].max() > 255 and (ids == 65_535).float().mean() == pytest.approx(.1, abs=.02)
    quality = labels.quality(data)
    assert quality["coverage"] == pytest.approx(.9, abs=.02) and quality["clusters"] > 255


class Interrupted(Pictures):
    "Image number 4 is readable the first time only (the fit), then the power fails."
    reads = 0
    def __getitem__(self, i):
        if i == 4: self.reads += 1
        if i == 4 and self.reads > 2: raise KeyboardInterrupt
        return super().__getitem__(i)


def test_an_interrupted_labelling_goes_on_and_ends_alike(tmp_path):
    encoder = ColourFeatures(8)
    whole = fit_auxiliary_labels(encoder, Pictures(), 3, tmp_path / "whole", batch_size=2)
    with pytest.raises(KeyboardInterrupt): fit_auxiliary_labels(encoder, Interrupted(), 3, tmp_path / "part", batch_size=2)
    done = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "part" / "labels").glob("*.png")}
    assert sorted(done) == [f"picture {i}.png" for i in range(4)]
    with pytest.raises(ValueError, match="no label file for image 'picture 4'; the labelling was interrupted"): load_auxiliary_labels(tmp_path / "part")
    part = fit_auxiliary_labels(encoder, Pictures(), 3, tmp_path / "part", batch_size=2)
    assert all(torch.equal(a, b) for a, b in zip(whole, part)) and whole.digest == part.digest
    assert all((tmp_path / "part" / "labels" / name).stat().st_mtime_ns == time for name, time in done.items())


def test_a_folder_of_other_labels_is_refused(tmp_path):
    encoder, data = create_encoder("pixcl_tiny"), Pictures()
    fit_auxiliary_labels(encoder, data, 3, tmp_path)
    with pytest.raises(ValueError, match=r"k \(was 3, now 4\), seed \(was 0, now 1\)"): fit_auxiliary_labels(encoder, data, 4, tmp_path, seed=1)
    with pytest.raises(ValueError, match="encoder weights"): fit_auxiliary_labels(create_encoder("pixcl_tiny"), data, 3, tmp_path)
    with pytest.raises(ValueError, match="image names"): fit_auxiliary_labels(encoder, Pictures(n=5), 3, tmp_path)
    assert fit_auxiliary_labels(encoder, data, 4, tmp_path, resume=False).k == 4
    options = dict(options=dict(sample=2000, min_cluster_size=30), algorithm="hdbscan")
    assert fit_auxiliary_labels(ColourFeatures(1), data, None, tmp_path / "again", **options).digest == fit_auxiliary_labels(ColourFeatures(1), data, None, tmp_path / "again", **options).digest


def test_a_manifest_that_does_not_fit_its_images_is_refused(tmp_path):
    labels = fit_auxiliary_labels(ColourFeatures(8), Pictures(), 3, tmp_path)
    with pytest.raises(ValueError, match="has no label for image 'other'"): labels.dataset(Pictures(names=[*labels.names[:5], "other"]))
    with pytest.raises(ValueError, match="another order"): labels.dataset(Pictures(names=labels.names[::-1]))
    with pytest.raises(ValueError, match=r"image 'picture 0' is \(48, 48\), its label \(40, 56\)"): labels.dataset(Pictures(size=(48, 48)))[0]
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "labels" / "picture 2.png")
    with pytest.raises(ValueError, match=r"picture 2.png: is \(9, 9\), but the manifest says \(40, 56\)"): load_auxiliary_labels(tmp_path)
    (tmp_path / "labels" / "picture 2.png").unlink()
    with pytest.raises(ValueError, match="no label file for image 'picture 2'"): load_auxiliary_labels(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 1}')
    with pytest.raises(ValueError, match="has no encoder, settings"): load_auxiliary_labels(tmp_path)
    (tmp_path / "manifest.json").write_text('{')
    with pytest.raises(ValueError, match="is not JSON"): load_auxiliary_labels(tmp_path)
    with pytest.raises(FileNotFoundError, match="no manifest"): load_auxiliary_labels(tmp_path / "labels")


def test_the_data_set_behaves_like_one():
    data = Pictures(pad=8)
    labelled = fit_auxiliary_labels(ColourFeatures(8), data, 3).dataset(data)
    assert isinstance(labelled, AuxiliaryData) and len(labelled) == 6 and labelled.num_classes == 3 and len(labelled.class_names) == len(labelled.palette) == 3
    batch = labelled.batch([4, 1])
    assert batch.images.shape == (2, 3, 48, 64) and torch.equal(batch.masks[1], labelled.mask(1)) and batch.extents.tolist() == [[40, 56]] * 2
    part = labelled.subset([4, 0])
    assert part.names == ["picture 4", "picture 0"] and torch.equal(part.mask(0), labelled.mask(4)) and len(part.cache()) == 2
    with pytest.raises(IndexError): labelled[6]
    assert torch.equal(labelled[-1][1], labelled[5][1])


# ---------------------------------------------------------------- edges

def test_a_superpixel_takes_the_label_of_its_majority():
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    image[:, :, 16:] = 255
    ids = (torch.arange(32) >= 16).long().expand(32, 32).clone()
    ids[:, 12:16] = torch.where(torch.rand(32, 4) < .3, 1, 0)                # a ragged border, and some pixels without a label
    ids[3:6, 20:22] = -1
    refined = majority_in_superpixels(image, ids, side=8)
    assert torch.equal(refined, (torch.arange(32) >= 16).long().expand(32, 32))
    assert (majority_in_superpixels(image, torch.full((32, 32), -1)) == -1).all()


def test_refinement_reaches_the_files():
    data = Pictures()
    plain, refined = (fit_auxiliary_labels(ColourFeatures(8), data, 3, outliers=0, refine=refine) for refine in (None, "slic"))
    assert torch.equal(refined[0], majority_in_superpixels(data[0][0], plain[0])) and not torch.equal(refined[0], plain[0])
    assert (fit_auxiliary_labels(ColourFeatures(8), data, 3, refine=lambda image, ids: ids * 0)[0] == 0).all()


# ---------------------------------------------------------------- the verdict

def by_hand(ids, truth, images, ignore=255, cross=False, only=None):
    "Every pair of pixels, one by one."
    pixels = [(a, c, i) for a, c, i in zip(ids, truth, images) if c != ignore and a != ignore]
    n = dict(every=0, same_id=0, same_class=0, both=0)
    for (a, c, i), (b, d, j) in itertools.permutations(pixels, 2) if only is not None else itertools.combinations(pixels, 2):
        if (cross and i == j) or (only is not None and c != only): continue
        n["every"] += 1; n["same_id"] += a == b; n["same_class"] += c == d; n["both"] += a == b and c == d
    ratio = lambda a, b: a / b if b else float("nan")
    rates = dict(positive_precision=ratio(n["both"], n["same_id"]), positive_chance=ratio(n["same_class"], n["every"]), recall=ratio(n["both"], n["same_class"]))
    if only is None: rates.update(negative_precision=ratio(n["every"] - n["same_id"] - n["same_class"] + n["both"], n["every"] - n["same_id"]), negative_chance=ratio(n["every"] - n["same_class"], n["every"]))
    return rates


@pytest.mark.parametrize("clusters, classes", [(4, 3), (1, 4), (5, 1), (40, 3)])
def test_quality_equals_counting_every_pair(clusters, classes):
    ids, truth = torch.randint(0, clusters, (3, 5, 6)), torch.randint(0, classes, (3, 5, 6))
    ids[torch.rand(3, 5, 6) < .2], truth[torch.rand(3, 5, 6) < .2] = 255, 255
    quality, flat = label_quality(ids, truth), (ids.flatten().tolist(), truth.flatten().tolist(), torch.arange(3).repeat_interleave(30).tolist())
    close = lambda ours, theirs: all(ours[key] == pytest.approx(value, abs=1e-12, nan_ok=True) for key, value in theirs.items())
    assert close(quality, by_hand(*flat)) and close(quality["cross_image"], by_hand(*flat, cross=True))
    assert sorted(quality["per_class"]) == sorted(set(flat[1]) - {255})
    for c, values in quality["per_class"].items():
        assert close(values, by_hand(*flat, only=c)) and close(values["cross_image"], by_hand(*flat, only=c, cross=True))
        assert values["coverage"] == pytest.approx(((truth == c) & (ids != 255)).sum() / (truth == c).sum()) and values["share"] == pytest.approx((truth == c).sum() / (truth != 255).sum())
    kept = (ids != 255) & (truth != 255)
    assert quality["v_measure"] == pytest.approx(v_measure_score(truth[kept].numpy(), ids[kept].numpy()), abs=1e-9)
    assert quality["coverage"] == pytest.approx(kept.sum() / (truth != 255).sum())
    assert quality == label_quality(ids.flatten(), truth.flatten(), image_ids=torch.arange(3).repeat_interleave(30)) or math.isnan(quality["negative_precision"])


def test_a_perfect_labelling_and_a_useless_one():
    truth = torch.randint(0, 4, (2, 30, 30))
    perfect, one, alone = label_quality(truth + 7, truth), label_quality(truth * 0, truth), label_quality(torch.arange(1800).view(2, 30, 30), truth, auxiliary_ignore=65_535)
    assert all(perfect[key] == 1 for key in ("positive_precision", "negative_precision", "recall", "coverage")) and perfect["v_measure"] == pytest.approx(1)
    assert one["positive_precision"] == one["positive_chance"] and one["recall"] == 1 and math.isnan(one["negative_precision"]) and one["v_measure"] == 0
    assert math.isnan(alone["positive_precision"]) and alone["recall"] == 0 and alone["negative_precision"] == alone["negative_chance"]


def test_edges_of_the_verdict():
    truth, ids = torch.tensor([[0, 0, 2, 255]]), torch.tensor([[1, 1, 255, 1]])
    quality = label_quality(ids, truth)
    assert list(quality["per_class"]) == [0, 2] and quality["per_class"][2]["coverage"] == 0 and math.isnan(quality["per_class"][2]["positive_precision"])   # class 1 is absent, class 2 never labelled
    assert math.isnan(quality["cross_image"]["positive_precision"])           # one image only
    nothing = label_quality(torch.full((2, 3), 255), torch.zeros(2, 3, dtype=torch.long))
    assert nothing["coverage"] == 0 and math.isnan(nothing["positive_precision"]) and math.isnan(nothing["v_measure"])
    huge = label_quality(torch.tensor([[10**9, 10**9, 3]]), torch.tensor([[0, 0, 1]]))
    assert huge["positive_precision"] == 1 and huge["clusters"] == 2
    assert label_quality(torch.tensor([[255, 255, 65_535]]), torch.tensor([[0, 0, 1]]), auxiliary_ignore=65_535)["clusters"] == 1      # 255 is a cluster among many
    with pytest.raises(ValueError, match=r"true_labels: has shape \(2,\), auxiliary_ids \(3,\)"): label_quality(torch.zeros(3).long(), torch.zeros(2).long())
    with pytest.raises(ValueError, match="auxiliary_ids: holds id -1"): label_quality(torch.tensor([-1, 0]), torch.tensor([0, 0]))
    with pytest.raises(ValueError, match="auxiliary_ids: expected integer"): label_quality(torch.zeros(3), torch.zeros(3).long())


def test_counts_do_not_overflow():
    from pixcl_nb.positives.quality import Contingency, pair_sums
    n = 10**10
    total, _ = pair_sums(Contingency(np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([n, n, n])), np.array([0, 1]))
    assert total.tolist() == [3 * n * (3 * n - 1) // 2, n * (2 * n - 1) + n * (n - 1) // 2, n * (n - 1) // 2 + n * (2 * n - 1), 3 * (n * (n - 1) // 2)]
