"Figures: what goes in is checked, what is drawn is looked at."
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from pixcl_nb import plots
from pixcl_nb.plots import (auroc, class_palette, colour_masks, figure_to_png, moving_average, pca_basis, pca_rgb, show_confusion, show_curves, show_features,
                            show_images, show_masks, show_matches, show_overlay, show_pairs, show_results, show_separation, show_similarity,
                            show_similarity_matrix, to_picture)

MEAN, STD = torch.tensor([.485, .456, .406])[:, None, None], torch.tensor([.229, .224, .225])[:, None, None]


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.fixture
def images(): return torch.randint(0, 256, (3, 3, 16, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def drawn(axis): return np.asarray(axis.images[0].get_array())


# -- colours ------------------------------------------------------------------------------------------------------

DEUTERANOPIA = np.array([[.367322, .860646, -.227968], [.280085, .672501, .047413], [-.011820, .042940, .968881]])
PROTANOPIA = np.array([[.152286, 1.052583, -.204868], [.114503, .786281, .099216], [-.003882, -.048116, 1.051998]])

def test_palette_stays_apart_for_colour_blind_readers():
    from skimage.color import rgb2lab
    colours = class_palette(24).numpy()/255
    linear = np.where(colours <= .04045, colours/12.92, ((colours + .055)/1.055)**2.4)
    for matrix in (np.eye(3), DEUTERANOPIA, PROTANOPIA):
        seen = (linear @ matrix.T).clip(0, 1)
        lab = rgb2lab(np.where(seen <= .0031308, seen*12.92, 1.055*seen**(1/2.4) - .055)[None])[0]
        distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1) + 1e3*np.eye(24)
        assert distance.min() > 15
    assert torch.equal(class_palette(30)[:24], class_palette(24)) and class_palette(30).shape == (30, 3) and class_palette(3).dtype == torch.uint8
    with pytest.raises(ValueError, match="n: 0"): class_palette(0)


def test_masks_become_colours():
    masks = torch.tensor([[[0, 1], [255, 2]]])
    palette = torch.tensor([[10, 20, 30], [0, 0, 0], [255, 0, 0]], dtype=torch.uint8)
    assert (colour_masks(masks, palette)*255).round().tolist() == [[[[10, 20, 30], [0, 0, 0]], [[255, 255, 255], [255, 0, 0]]]]
    assert np.allclose(colour_masks(masks)[0, 1, 1]*255, class_palette(3)[2])
    assert (colour_masks(torch.full((1, 2, 2), 255)) == 1).all()
    assert colour_masks(torch.ones(2, 2).bool()).shape == (1, 2, 2, 3)
    with pytest.raises(ValueError, match="masks: hold id 2, but palette has 2"): colour_masks(masks, palette[:2])
    with pytest.raises(ValueError, match="masks: hold id -1"): colour_masks(torch.tensor([[-1]]))
    with pytest.raises(ValueError, match="masks: expected class ids"): colour_masks(torch.zeros(1, 2, 2))


# -- images -------------------------------------------------------------------------------------------------------

def test_every_kind_of_image_gives_the_same_picture(images):
    floats = images/255
    for kind in (images, floats, (floats - MEAN)/STD, floats.double().requires_grad_()):
        assert np.allclose(to_picture(kind), images.permute(0, 2, 3, 1)/255, atol=1e-5)
    figure = show_images(images, titles=["a", "b", "c"], columns=2)
    assert len(figure.axes) == 4 and [a.get_title() for a in figure.axes[:3]] == ["a", "b", "c"] and np.allclose(drawn(figure.axes[1]), images[1].permute(1, 2, 0)/255)
    assert len(show_images(images[0]).axes) == 1


@pytest.mark.parametrize("bad, error, match", [
    (torch.zeros(2, 1, 4, 4), ValueError, "images: .*axis 1"), (torch.zeros(4, 4), ValueError, "images"), (np.zeros((3, 4, 4)), TypeError, "images"),
    (torch.full((1, 3, 2, 2), float("nan")), ValueError, "images: holds"), (torch.zeros(0, 3, 4, 4), ValueError, "images: is empty"),
    (torch.zeros(1, 3, 4, 4).long(), ValueError, "images: expected uint8 or float")])
def test_bad_images(bad, error, match):
    with pytest.raises(error, match=match): show_images(bad)


def test_masks_and_overlay(images):
    masks = torch.randint(0, 4, (3, 16, 24)); masks[:, :2] = 255
    figure = show_masks(images, masks, class_names=["sky", "tree", "road", "car"], columns=2)
    assert len(figure.axes) == 8 and [t.get_text() for t in figure.legends[0].get_texts()] == ["sky", "tree", "road", "car", "ignored"]
    assert np.allclose(drawn(figure.axes[2]), colour_masks(masks)[0]) and np.allclose(drawn(figure.axes[4]), to_picture(images)[2])
    overlay = show_overlay(images, masks, alpha=.5, class_names=["sky", "tree", "road", "car"])
    grey = to_picture(images).mean(-1, keepdims=True)
    assert np.allclose(drawn(overlay.axes[0])[:2], np.broadcast_to(grey[0, :2], (2, 24, 3)), atol=1e-5)
    assert np.allclose(drawn(overlay.axes[0])[2:], .5*grey[0, 2:] + .5*colour_masks(masks)[0, 2:], atol=1e-5)
    with pytest.raises(ValueError, match="masks: .*axis 0"): show_masks(images, masks[:2])
    with pytest.raises(ValueError, match="masks: .*axis 1"): show_overlay(images, masks[:, :8])
    with pytest.raises(ValueError, match="alpha"): show_overlay(images, masks, alpha=2)
    with pytest.raises(ValueError, match="titles"): show_images(images, titles=["a"])
    with pytest.raises(ValueError, match="columns"): show_images(images, columns=-1)


def test_pairs_outline_the_mask(images):
    mask = torch.zeros(3, 16, 24).bool(); mask[0, 4:9, 5:12] = True; mask[1] = True
    figure = show_pairs(images, images.flip(0), mask, mask)
    line = figure.axes[0].collections[-1].get_paths()[0].vertices
    assert np.allclose([line[:, 0].min(), line[:, 0].max(), line[:, 1].min(), line[:, 1].max()], [4.5, 11.5, 3.5, 8.5])
    assert not figure.axes[2].collections                                                   # an empty mask has no border
    assert len(figure.axes) == 6 and np.allclose(drawn(figure.axes[3]), images[2].permute(1, 2, 0)/255)
    show_pairs(images, images)
    with pytest.raises(ValueError, match="key: shape"): show_pairs(images, images[:2])
    with pytest.raises(ValueError, match="query_mask"): show_pairs(images, images, mask[:, :4], mask)


# -- features -----------------------------------------------------------------------------------------------------

def test_pca_against_svd():
    torch.manual_seed(0)
    features = torch.randn(3, 10, 4, 5)*torch.arange(10, 0, -1)[:, None, None] + 7
    rows = features.permute(0, 2, 3, 1).reshape(-1, 10).double()
    mean, directions, low, high = pca_basis(features)
    _, _, truth = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    torch.testing.assert_close((directions.T * truth[:3]).sum(1).abs(), torch.ones(3).double())
    assert (directions.gather(0, directions.abs().argmax(0, keepdim=True)) > 0).all()
    values = (rows - mean) @ directions
    expected = ((values - low)/(high - low)).clamp(0, 1).reshape(3, 4, 5, 3).permute(0, 3, 1, 2)
    torch.testing.assert_close(pca_rgb(features), expected.float())


def test_pca_shares_one_basis_and_keeps_its_signs():
    torch.manual_seed(0)
    features = torch.randn(4, 8, 6, 6)*torch.arange(8, 0, -1)[:, None, None]
    colours = pca_rgb(features)
    torch.testing.assert_close(pca_rgb(features[[2, 0, 3, 1]]), colours[[2, 0, 3, 1]])                # order does not matter
    torch.testing.assert_close(pca_rgb(features[1:2], pca_basis(features)), colours[1:2])             # a basis can be kept
    same = features.clone(); same[3] = same[0]
    assert torch.equal(pca_rgb(same)[3], pca_rgb(same)[0])                                            # equal features, equal colours
    assert (pca_rgb(features + .01*torch.randn_like(features)) - colours).abs().mean() < .02          # a little noise flips no sign
    assert not torch.equal(pca_rgb(features[:1]), colours[:1])                                        # one image alone has another basis


def test_pca_of_little():
    assert (pca_rgb(torch.ones(2, 8, 3, 3)) == .5).all()
    one = torch.zeros(1, 5, 2, 2); one[0, 2, 0, 0] = 4.
    assert torch.isfinite(pca_rgb(one)).all() and pca_rgb(torch.randn(1, 2, 3, 3)).shape == (1, 3, 3, 3)
    for bad, match in [(torch.full((1, 4, 2, 2), float("inf")), "features: holds"), (torch.zeros(1, 4, 2), "features"), (torch.zeros(1, 4, 2, 2).long(), "features: expected float")]:
        with pytest.raises(ValueError, match=match): pca_rgb(bad)
    with pytest.raises(ValueError, match="features"): pca_rgb(torch.randn(1, 4, 2, 2), pca_basis(torch.randn(1, 5, 2, 2)))


def test_features(images):
    features = torch.randn(3, 8, 2, 3, requires_grad=True)
    assert len(show_features(features).axes) == 3
    figure = show_features(features, images)
    assert np.allclose(drawn(figure.axes[3]), pca_rgb(features)[0].permute(1, 2, 0)) and list(figure.axes[3].images[0].get_extent()) == [0, 24, 16, 0]
    with pytest.raises(ValueError, match="images: 2 images for 3"): show_features(features, images[:2])


# -- matches, similarity ------------------------------------------------------------------------------------------

def test_matches(images):
    points = torch.tensor([[.5, .5], [10., 3.], [20., 12.]])
    figure = show_matches(images[0], images[1], points, points + 1, correct=torch.tensor([True, False, True]))
    lines = [a for a in figure.artists]
    assert len(lines) == 3 and [matplotlib.colors.to_hex(line.get_edgecolor()) for line in lines] == [c.lower() for c in (plots.RIGHT, plots.WRONG, plots.RIGHT)]
    assert lines[1].xy1 == (10., 3.) or list(lines[1].xy1) == [10., 3.]
    assert list(lines[1].xy2) == [11., 4.] and "2 of 3 right" in figure.get_supxlabel()
    assert len(show_matches(images[0], images[1][:, :8], torch.rand(100, 2), torch.rand(100, 2), most=10).artists) == 10
    with pytest.raises(ValueError, match="points_b"): show_matches(images[0], images[1], points, points[:2])
    with pytest.raises(ValueError, match="points_a"): show_matches(images[0], images[1], points[:, :1], points)
    with pytest.raises(ValueError, match="correct"): show_matches(images[0], images[1], points, points, torch.ones(2).bool())


def test_similarity(images):
    heat = torch.rand(4, 6)
    figure = show_similarity(images[0], heat, point=(3.5, 2.5), limits=(-1, 1))
    assert np.allclose(drawn(figure.axes[1]), heat) and figure.axes[1].images[0].get_clim() == (-1, 1) and figure.axes[0].lines[0].get_xydata().tolist() == [[3.5, 2.5]]
    with pytest.raises(ValueError, match="heat"): show_similarity(images[0], heat[None])
    labels = torch.tensor([1, 0, 1, 0])
    matrix = torch.arange(16.).view(4, 4)
    figure = show_similarity_matrix(matrix, labels, ["sky", "tree"])
    assert drawn(figure.axes[0]).tolist() == matrix[[1, 3, 0, 2]][:, [1, 3, 0, 2]].tolist()
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["sky", "tree"]
    show_similarity_matrix(torch.rand(4, 7), labels)
    with pytest.raises(ValueError, match="labels"): show_similarity_matrix(matrix, labels[:3])


# -- curves -------------------------------------------------------------------------------------------------------

def test_moving_average_against_loops():
    values = np.random.default_rng(0).normal(size=30); values[4] = np.nan
    for window in (1, 3, 50):
        loop = [np.nanmean(values[max(0, t + 1 - window):t + 1]) if np.isfinite(values[max(0, t + 1 - window):t + 1]).any() else np.nan for t in range(30)]
        assert np.allclose(moving_average(values, window), loop, equal_nan=True)


def test_curves():
    figure = show_curves({"a": torch.arange(10., requires_grad=True), "b": ([0, 5], [1., 2.])}, smooth=3)
    lines = figure.axes[0].lines
    assert len(lines) == 4 and lines[1].get_ydata()[-1] == 8. and lines[3].get_xdata().tolist() == [0, 5]
    assert lines[1].get_linestyle() != lines[3].get_linestyle()
    for bad in ({}, [1, 2], {"a": []}, {"a": [[1.]]}, {"a": ([1, 2], [1.])}):
        with pytest.raises(ValueError, match="curves"): show_curves(bad)
    with pytest.raises(ValueError, match="smooth"): show_curves({"a": [1.]}, smooth=0)


def test_auroc_against_scikit_learn():
    from sklearn.metrics import roc_auc_score
    torch.manual_seed(0)
    high, low = (torch.randn(80) + .5).mul(3).round().div(3), torch.randn(50).mul(3).round().div(3)          # rounded: with ties
    truth = roc_auc_score([1]*80 + [0]*50, torch.cat([high, low]))
    assert abs(auroc(high, low) - truth) < 1e-12 and auroc(torch.ones(3), torch.zeros(2)) == 1 and auroc(torch.ones(3), torch.ones(2)) == .5
    figure = show_separation(high.view(8, 10), low, title="before")
    assert f"{truth:.3f}" in figure.axes[0].get_title() and "before" in figure.axes[0].get_title()
    show_separation(torch.ones(3), torch.ones(2))
    with pytest.raises(ValueError, match="positive: is empty"): auroc(torch.zeros(0), low)
    with pytest.raises(ValueError, match="negative"): show_separation(high, torch.full((2,), float("nan")))


# -- results ------------------------------------------------------------------------------------------------------

def test_confusion():
    counts = torch.tensor([[8, 2], [0, 0]])
    figure = show_confusion(counts, ["sky", "tree"])
    assert drawn(figure.axes[0]).tolist() == [[.8, .2], [0, 0]] and [t.get_text() for t in figure.axes[0].texts] == ["0.80", "0.20", "0.00", "0.00"]
    assert drawn(show_confusion(counts, normalise="none").axes[0]).tolist() == counts.tolist()
    assert drawn(show_confusion(counts, normalise="prediction").axes[0]).tolist() == [[1, 1], [0, 0]]
    for bad, match in [(dict(confusion=torch.zeros(2, 3)), "confusion"), (dict(confusion=counts, class_names=["a"]), "class_names"), (dict(confusion=counts, normalise="row"), "normalise")]:
        with pytest.raises(ValueError, match=match): show_confusion(**bad)


class Result:
    def __init__(self, miou): self.miou = miou


def test_results():
    figure = show_results({"random": [.2, .3], "cp2": [Result(.4), Result(.5)]}, {"random": torch.tensor([.1, float("nan")]), "cp2": torch.tensor([.5, .4])}, ["sky", "tree"])
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert np.allclose(heights, [.25, .45])
    assert any(np.allclose(line.get_ydata(), [.2, .4]) for line in figure.axes[0].lines if len(line.get_ydata()) == 2)      # seed 0 with seed 0
    assert [t.get_text() for t in figure.axes[1].texts] == ["0.10", "–", "0.50", "0.40"]
    show_results({"one": .3}); show_results({"one": [.3, .4], "other": [.1]})
    with pytest.raises(ValueError, match="paired"): show_results({"one": [.3, .4], "other": [.1]}, paired=True)
    for bad in ({}, {"a": []}, {"a": [float("nan")]}):
        with pytest.raises(ValueError, match="results"): show_results(bad)
    with pytest.raises(ValueError, match="class_names"): show_results({"a": [.1]}, {"a": torch.zeros(2)})
    with pytest.raises(ValueError, match="per_class"): show_results({"a": [.1]}, {"a": torch.zeros(2)}, ["x"])


def test_png_is_reproducible_and_closes():
    make = lambda: show_curves({"a": [1., 2., 3.]})
    figure = make(); first, second = figure_to_png(figure), figure_to_png(make())
    assert first[:8] == b"\x89PNG\r\n\x1a\n" and first == second and not plt.get_fignums()
