"Which cell corresponds to which: the cell-pixel convention, matching by features and by geometry, PCK."
import json
import math
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from pixcl_nb.evaluation.keypoints import pck, pck_keypoints, pck_pairs, stereo_points
from pixcl_nb.images.cells import cell_to_pixel, grid_size, pixel_to_cell
from pixcl_nb.networks.encoding import encode_images, prepare_image
from pixcl_nb.positives.matching import (
    check_views, choose_matches, from_source, geometric_matches, geometric_positions, match_accuracy,
    match_features, match_points, parabola_peak, refine_matches, similarity_blocks, to_source,
    top_k_matches)
from pixcl_nb.images.views import View, ViewConfig, random_view

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def seeded(): torch.manual_seed(0)


def make_view(box, size, flipped=False, source=(64, 80)):
    "A view without randomness; `random_view`'s own are used where they are what is tested."
    (height, width), (left, top, wide, high) = size, box
    x = left + (torch.arange(width) + .5) / width * wide
    if flipped: x = x.flip(0)
    y = top + (torch.arange(height) + .5) / height * high
    coordinates = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)])[None]
    return types.SimpleNamespace(image=torch.zeros(1, 3, height, width), coordinates=coordinates, box=torch.tensor([box], dtype=torch.float32),
                                 flipped=torch.tensor([flipped]), mask=None, source_size=source)


# ---------------------------------------------------------------- cells and pixels

@pytest.mark.parametrize("stride", range(1, 33))
def test_round_trip_every_stride_and_odd_sizes(stride):
    for height, width in (1, 1), (31, 33), (64, 96), (97, 65), (stride, stride + 1), (2 * stride + 1, 3 * stride - 1 if stride > 1 else 3):
        grid = grid_size((height, width), stride)
        assert grid == (math.ceil(height / stride), math.ceil(width / stride))
        index = torch.arange(grid[0] * grid[1])
        assert torch.equal(pixel_to_cell(cell_to_pixel(index, grid, stride), grid, stride), index)
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")     # every pixel, by integer division
        cell = pixel_to_cell(torch.stack([x + .5, y + .5], -1), grid, stride, size=(height, width))
        assert torch.equal(cell, (y // stride) * grid[1] + x // stride)
        assert cell.unique().tolist() == index.tolist()


def test_centres_by_hand():
    centre = cell_to_pixel(torch.tensor([[0, 5], [6, -1]]), (2, 5), 4)
    assert torch.equal(centre[0], torch.tensor([[2., 2.], [2., 6.]])) and torch.equal(centre[1, 0], torch.tensor([6., 6.]))
    assert centre[1, 1].isnan().all()
    assert cell_to_pixel(torch.tensor([1]), (2, 2), (8, 4)).tolist() == [[6., 4.]]          # (vertical, horizontal)


def test_fractional_stride_of_a_pooled_map():
    assert grid_size((96, 96), 96 / 7) == (7, 7)
    index = torch.arange(49)
    assert torch.equal(pixel_to_cell(cell_to_pixel(index, (7, 7), 96 / 7), (7, 7), 96 / 7), index)


def test_points_outside():
    points = torch.tensor([[-.01, 3.], [0., 0.], [12., 3.], [11.99, 7.99], [float("nan"), 1.]])
    assert pixel_to_cell(points, (2, 3), 4).tolist() == [-1, 0, -1, 5, -1]
    assert pixel_to_cell(points, (2, 3), 4, outside="nearest").tolist() == [0, 0, 2, 5, -1]
    assert pixel_to_cell(points, (2, 3), 4, size=(8, 11)).tolist() == [-1, 0, -1, -1, -1]   # the last cell sticks out of an 11 pixel image
    with pytest.raises(ValueError, match="points: 3 of 5"): pixel_to_cell(points, (2, 3), 4, outside="error")
    assert pixel_to_cell(torch.tensor([[float("inf"), 1.]]), (2, 3), 4).tolist() == [-1]


@pytest.mark.parametrize("call, message", [
    (lambda: cell_to_pixel(torch.tensor([6]), (2, 3), 4), "index: must lie in -1 ... 5"),
    (lambda: cell_to_pixel(torch.tensor([-2]), (2, 3), 4), "index"),
    (lambda: cell_to_pixel(torch.tensor([1.]), (2, 3), 4), "index: expected integer"),
    (lambda: cell_to_pixel(torch.tensor([1]), 6, 4), "grid"),
    (lambda: cell_to_pixel(torch.tensor([1]), (2, 0), 4), "grid"),
    (lambda: cell_to_pixel(torch.tensor([1]), (2, 2.5), 4), "grid"),
    (lambda: cell_to_pixel(torch.tensor([1]), (2, 3), 0), "stride"),
    (lambda: cell_to_pixel(torch.tensor([1]), (2, 3), float("nan")), "stride"),
    (lambda: cell_to_pixel(torch.tensor([1]), (2, 3), (4, 4, 4)), "stride"),
    (lambda: pixel_to_cell(torch.zeros(4, 3), (2, 3), 4), "points: the last axis"),
    (lambda: pixel_to_cell(torch.zeros(4, 2, dtype=torch.long), (2, 3), 4), "points: expected float"),
    (lambda: pixel_to_cell(torch.zeros(0, 2), (2, 3), 4), "points: is empty"),
    (lambda: pixel_to_cell(torch.zeros(1, 2), (2, 3), 4, outside="nearst"), "did you mean 'nearest'"),
])
def test_cell_mapping_refuses(call, message):
    with pytest.raises(ValueError, match=message): call()


# ---------------------------------------------------------------- matching by features

def loop_matches(query, key, mutual=False):
    "Plain loops over images and cells."
    (count, _, *grid), cells = query.shape, []
    for n in range(count):
        q, k = query[n].flatten(1).T.double(), key[n].flatten(1).T.double()
        table = [[float(a @ b / max(a.norm() * b.norm(), 1e-300)) for b in k] for a in q]
        best = [max(range(len(k)), key=lambda j: row[j]) for row in table]
        if mutual: best = [j if max(range(len(q)), key=lambda i: table[i][j]) == i else -1 for i, j in enumerate(best)]
        cells.append(best)
    return torch.tensor(cells)


@pytest.mark.parametrize("mutual", [False, True])
@pytest.mark.parametrize("key_grid", [(4, 5), (3, 7), (1, 1)])
def test_equals_loops(mutual, key_grid):
    query, key = torch.randn(3, 6, 4, 5), torch.randn(3, 6, *key_grid)
    assert torch.equal(match_features(query, key, mutual), loop_matches(query, key, mutual))


@pytest.mark.parametrize("budget", [1, 20, 61, 400, 10**6])
def test_blocks_cover_everything_once(budget):
    query, key = torch.randn(3, 4, 20), torch.randn(3, 4, 20)
    seen, table = torch.zeros(3, 20, 20), torch.zeros(3, 20, 20)
    for images, cells, block in similarity_blocks(query, key, budget):
        assert block.numel() <= max(budget, 20)
        seen[images, cells] += 1
        table[images, cells] = block
    assert (seen == 1).all()
    assert torch.allclose(table, query.transpose(1, 2) @ key, atol=1e-6)


@pytest.mark.parametrize("mutual", [False, True])
def test_block_size_changes_nothing(mutual, monkeypatch):
    import pixcl_nb.positives.matching as matching
    query, key = torch.randn(2, 8, 6, 7), torch.randn(2, 8, 5, 9)
    whole, blocks = match_features(query, key, mutual), similarity_blocks
    monkeypatch.setattr(matching, "similarity_blocks", lambda q, k: blocks(q, k, 100))
    assert torch.equal(match_features(query, key, mutual), whole)


def test_golden_backbone_maps():
    "The argmax of DenseCL's released loss, from the golden inputs in float64."
    golden = np.load(GOLDEN / "densecl.npz")
    query, key = (torch.from_numpy(golden[name]) for name in ("query_backbone", "key_backbone"))
    flat = [F / F.norm(dim=1, keepdim=True) for F in (query.flatten(2).double(), key.flatten(2).double())]
    assert torch.equal(match_features(query, key), torch.einsum("ncs,nct->nst", *flat).argmax(2))


def test_cosine_not_product():
    "A long key vector must not win by its length."
    query, key = torch.tensor([1., 0.]).view(1, 2, 1, 1), torch.tensor([[1., 5.], [0., 9.]]).view(1, 2, 1, 2)
    assert match_features(query, key).item() == 0


def test_no_gradient_and_dtypes():
    query, key = torch.randn(1, 4, 3, 3, requires_grad=True), torch.randn(1, 4, 3, 3)
    match = match_features(query, key)
    assert match.dtype == torch.long and not match.requires_grad
    for dtype in torch.float64, torch.bfloat16, torch.float16:
        low = query.detach().to(dtype), key.to(dtype)
        assert torch.equal(match_features(*low), match_features(*(part.double() for part in low)))
    with torch.autocast("cpu", torch.bfloat16): assert torch.equal(match_features(query, key), match)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e25, 1e37])
def test_extreme_scales(scale):
    query, key = torch.randn(1, 4, 3, 3), torch.randn(1, 4, 3, 3)
    assert torch.equal(match_features(query * scale, key * scale), match_features(query, key))


def test_zero_vectors_are_safe():
    query, key = torch.randn(1, 4, 2, 2), torch.randn(1, 4, 2, 2)
    query[:, :, 0, 0] = 0
    index, cosine = top_k_matches(query, key, 4)
    assert cosine.isfinite().all() and (cosine[0, 0] == 0).all()
    assert ((0 <= match_features(query, key)) & (match_features(query, key) < 4)).all()
    assert ((-1 <= match_features(query, key * 0, mutual=True)) & (match_features(query, key * 0, mutual=True) < 4)).all()


def test_identity_is_found():
    maps = torch.randn(2, 16, 5, 6)
    for mutual in False, True: assert torch.equal(match_features(maps, maps * 3, mutual), torch.arange(30).expand(2, -1))


def test_top_k():
    query, key = torch.randn(2, 8, 3, 4), torch.randn(2, 8, 5, 2)
    index, cosine = top_k_matches(query, key, 10)
    assert torch.equal(index[..., 0], match_features(query, key))
    assert (cosine.diff(dim=-1) <= 0).all() and torch.equal(index.sort(-1)[0], torch.arange(10).expand(2, 12, -1))
    table = torch.cosine_similarity(query.flatten(2)[..., None], key.flatten(2)[:, :, None], 1)
    assert torch.allclose(table.gather(2, index), cosine, atol=1e-6)
    for k in (0, 11):
        with pytest.raises(ValueError, match="k:"): top_k_matches(query, key, k)


@pytest.mark.parametrize("function", [match_features, top_k_matches, refine_matches])
def test_bad_maps(function):
    good = torch.randn(2, 4, 3, 3)
    bad = good.clone(); bad[0, 0, 0, 0] = float("nan")
    for query, key, message in [(good, torch.randn(2, 5, 3, 3), "key: has size 5 on axis 1"), (good, torch.randn(1, 4, 3, 3), "key: has size 1 on axis 0"),
                                (bad, good, "query: holds 1 NaN"), (good, bad, "key: holds 1 NaN"), (torch.zeros(2, 4, 0, 3), good, "query: is empty"),
                                (good, torch.zeros(2, 4, 3, 0), "key: is empty"), (good[0], good, "query: has 3 axes"), (good.long(), good, "query: expected float")]:
        with pytest.raises(ValueError, match=message): function(query, key)
    with pytest.raises(TypeError, match="query"): function([1], good)


def test_large_map_stays_linear():
    "33 thousand cells against 4 thousand: the whole table would take 540 MB."
    import resource
    query, key = torch.randn(1, 2, 128, 256), torch.randn(1, 2, 64, 64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    match = match_features(query, key, mutual=True)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 150          # MB
    assert 0 < (match >= 0).sum() <= 4096


# ---------------------------------------------------------------- geometry

def test_source_round_trip_against_coordinates():
    "The affine rule must give the coordinates that random_view wrote for every pixel, flips included."
    images = torch.randint(0, 256, (8, 3, 50, 70), dtype=torch.uint8)
    view = random_view(images, ViewConfig(size=(24, 36)), torch.Generator().manual_seed(1))
    assert 0 < view.flipped.sum() < 8
    y, x = torch.meshgrid(torch.arange(24) + .5, torch.arange(36) + .5, indexing="ij")
    points = torch.stack([x, y], -1).view(-1, 2)
    source = to_source(view, points)
    assert torch.allclose(source, view.coordinates.flatten(2).transpose(1, 2), atol=1e-3)
    assert torch.allclose(from_source(view, source), points.expand(8, -1, -1), atol=1e-3)


def loop_geometric(view_a, view_b, stride):
    "For every cell: walk to the source, then look for the cell of b whose rectangle in the source holds the point."
    (height, width), (other_height, other_width) = view_a.image.shape[2:], view_b.image.shape[2:]
    answers = []
    for n in range(len(view_a.box)):
        (left, top, wide, high), (left_b, top_b, wide_b, high_b) = view_a.box[n].double().tolist(), view_b.box[n].double().tolist()
        row_of = []
        for r in range(math.ceil(height / stride)):
            for c in range(math.ceil(width / stride)):
                x, y = (c + .5) * stride, (r + .5) * stride
                if x >= width or y >= height: row_of.append(-1); continue
                u = 1 - x / width if view_a.flipped[n] else x / width
                sx, sy = left + u * wide, top + y / height * high
                found = -1
                for rb in range(math.ceil(other_height / stride)):
                    for cb in range(math.ceil(other_width / stride)):
                        x0, x1 = cb * stride / other_width, min((cb + 1) * stride, other_width) / other_width
                        y0, y1 = rb * stride / other_height, min((rb + 1) * stride, other_height) / other_height
                        ub, vb = (sx - left_b) / wide_b, (sy - top_b) / high_b
                        if view_b.flipped[n]: ub = 1 - ub
                        if x0 <= ub < x1 and y0 <= vb < y1: found = rb * math.ceil(other_width / stride) + cb
                row_of.append(found)
        answers.append(row_of)
    return torch.tensor(answers)


@pytest.mark.parametrize("stride, size_a, size_b", [(8, 48, 48), (7, (33, 47), (47, 33)), (16, (30, 50), 32), (32, 33, 65)])
def test_geometric_equals_loops(stride, size_a, size_b):
    images = torch.randint(0, 256, (6, 3, 60, 90), dtype=torch.uint8)
    generator = torch.Generator().manual_seed(3)
    a, b = (random_view(images, ViewConfig(size=size), generator) for size in (size_a, size_b))
    match, slow = geometric_matches(a, b, stride), loop_geometric(a, b, stride)
    assert match.shape == slow.shape and match.dtype == torch.long
    assert (match != slow).float().mean() < .01                # a point within rounding of an edge may fall on either side
    assert (match >= 0).any() and (stride > 8 or (match < 0).any())


def test_same_view_matches_itself_and_its_mirror():
    a, mirror = make_view((10, 4, 40, 30), (24, 32)), make_view((10, 4, 40, 30), (24, 32), flipped=True)
    index = torch.arange(12)[None]
    assert torch.equal(geometric_matches(a, a, 8), index)
    assert torch.equal(geometric_matches(a, mirror, 8), index.view(1, 3, 4).flip(2).flatten(1))


def test_shift_by_a_cell_and_no_overlap():
    a, b, far = make_view((0, 0, 32, 32), (32, 32)), make_view((8, 0, 32, 32), (32, 32)), make_view((40, 40, 32, 32), (32, 32))
    assert geometric_matches(a, b, 8).view(4, 4).tolist() == [[-1, 0, 1, 2], [-1, 4, 5, 6], [-1, 8, 9, 10], [-1, 12, 13, 14]]
    assert (geometric_matches(a, far, 8) == -1).all() and geometric_positions(a, far, 8).isnan().all()


def test_positions_are_the_same_source_point():
    images = torch.randint(0, 256, (6, 3, 60, 90), dtype=torch.uint8)
    generator = torch.Generator().manual_seed(3)
    a, b = (random_view(images, ViewConfig(size=56), generator) for _ in range(2))
    there = geometric_positions(a, b, 8)
    centre = to_source(a, cell_to_pixel(torch.arange(49), (7, 7), 8).double())
    known = there.isfinite().all(-1)
    assert torch.allclose(to_source(b, there)[known], centre[known], atol=1e-4)
    assert torch.equal(known, geometric_matches(a, b, 8) >= 0)
    assert torch.equal(pixel_to_cell(there, (7, 7), 8), geometric_matches(a, b, 8))


def test_cell_centre_beyond_the_picture_has_no_match():
    view = make_view((0, 0, 80, 64), (33, 33))                 # stride 32: 2x2 cells, three of them with a centre at pixel 48 of 33
    assert geometric_matches(view, view, 32).tolist() == [[0, -1, -1, -1]]


def test_bad_views():
    view = make_view((0, 0, 32, 32), (32, 32))
    two = random_view(torch.zeros(2, 3, 40, 40, dtype=torch.uint8), ViewConfig(size=32))
    with pytest.raises(ValueError, match="view_b.image: has size 2"): geometric_matches(view, two, 8)
    with pytest.raises(ValueError, match="view_a: has no `.image`"): geometric_matches(torch.zeros(1, 3, 8, 8), view, 8)
    flat = make_view((0, 0, 0, 32), (32, 32))
    with pytest.raises(ValueError, match="view_b.box: holds a crop without an area"): geometric_matches(view, flat, 8)
    with pytest.raises(ValueError, match="stride"): geometric_matches(view, view, -8)
    broken = make_view((0, 0, float("nan"), 32), (32, 32))
    with pytest.raises(ValueError, match="view_a.box: holds 1 NaN"): geometric_positions(broken, view, 8)


# ---------------------------------------------------------------- sub-cell, points

def bump_map(points, size=12, width=1.5):
    "A map whose features vary smoothly with the cell's place: cosine falls with distance. Channels are bumps on a lattice."
    grid = torch.arange(-2, size + 3, dtype=torch.float64)
    lattice = torch.cartesian_prod(grid, grid)
    return torch.exp(-((points[..., None, :] - lattice) ** 2).sum(-1) / (2 * width ** 2))


def test_parabola_by_hand():
    peak = parabola_peak(torch.tensor([.5, 1., 0., 0., float("nan")]), torch.tensor([1., 1., 1., 0., 1.]), torch.tensor([.9, 1., 1.2, 1., 0.]))
    assert torch.allclose(peak, torch.tensor([1 / 3, 0., .5, 0., 0.]))


def test_refinement_finds_a_known_shift():
    y, x = torch.meshgrid(torch.arange(12) + .5, torch.arange(12) + .5, indexing="ij")
    centres = torch.stack([x, y], -1).double()
    shift = torch.tensor([.3, -.2], dtype=torch.float64)
    query, key = (bump_map(points).permute(2, 0, 1)[None] for points in (centres, centres - shift))
    match = match_features(query, key)
    coarse, fine = cell_to_pixel(match, (12, 12), 1), refine_matches(query, key, match)
    truth = (centres + shift).view(1, -1, 2)
    inner = ((centres > 1) & (centres < 11)).all(-1).view(1, -1)
    error = lambda found: (found - truth).norm(dim=-1)[inner].max()
    assert error(coarse) > .3 and error(fine) < .05
    assert torch.allclose(refine_matches(query, key, match, stride=8), fine * 8)
    assert torch.equal(refine_matches(query, key), fine)


def test_refinement_stays_in_the_cell_and_keeps_no_match():
    query, key = torch.randn(2, 8, 5, 6), torch.randn(2, 8, 4, 7)
    match = match_features(query, key, mutual=True)
    fine, coarse = refine_matches(query, key, match), cell_to_pixel(match, (4, 7), 1)
    assert torch.equal(fine.isnan().any(-1), match < 0)
    assert ((fine - coarse).abs()[match >= 0] <= .5 + 1e-6).all()
    with pytest.raises(ValueError, match="match: has size 29"): refine_matches(query, key, match[:, :29])
    with pytest.raises(ValueError, match="index"): refine_matches(query, key, match + 28)
    with pytest.raises(ValueError, match="match: expected integer"): refine_matches(query, key, match.float())


def test_points_between_images_of_different_sizes():
    "Image b is a window of image a: every point moves by the window's corner."
    y, x = torch.meshgrid(torch.arange(12) + .5, torch.arange(12) + .5, indexing="ij")
    features = bump_map(torch.stack([x, y], -1).double()).permute(2, 0, 1)
    window = features[:, 3:11, 2:9]
    points = torch.tensor([[40., 44.], [33.3, 61.7], [50., 52.]], dtype=torch.float64)
    found = match_points(features, window, points, stride=8)
    assert torch.allclose(found, points - torch.tensor([16., 24.], dtype=torch.float64), atol=.5)
    coarse = match_points(features, window, points, stride=8, refine=False)
    assert (coarse - found).abs().max() <= 4 + 1e-6 and ((coarse - 4) % 8 == 0).all()


def test_padding_is_no_candidate():
    features = torch.zeros(2, 2, 3)
    features[0, 0, 2] = 1                                     # the only good cell lies in the padding
    points = torch.tensor([[20., 4.]])
    assert match_points(features, features, points, 8, refine=False).tolist() == [[20., 4.]]
    for width in (16, 18, 20):                                # its centre lies at 20: not inside an image of 20 pixels
        assert match_points(features, features, points, 8, refine=False, size_b=(16, width))[0, 0] < 16
    assert match_points(features, features, points, 8, refine=False, size_b=(16, 21)).tolist() == [[20., 4.]]


def test_bad_points():
    features = torch.randn(4, 3, 3)
    for arguments, message in [((features, torch.randn(5, 3, 3), torch.zeros(1, 2)), "features_b: has size 5"), ((features[None], features, torch.zeros(1, 2)), "features_a"),
                               ((features, features, torch.zeros(0, 2)), "points_a: is empty"), ((features, features, torch.full((1, 2), float("nan"))), "points_a: holds 2 NaN")]:
        with pytest.raises(ValueError, match=message): match_points(*arguments, 8)


# ---------------------------------------------------------------- scores

def test_pck_by_hand():
    truth = torch.tensor([[0., 0.], [10., 0.], [float("nan"), 5.], [4., 4.]])
    found = torch.tensor([[3., 4.], [10., 6.], [4., 5.], [float("nan"), 4.]])
    assert pck(found, truth, 5) == 1 / 3                       # at the limit counts; unknown truth leaves; an unfound point is wrong
    assert pck(found, truth, 4.9) == 0 and pck(found, truth, torch.tensor([0., 6., 9., 9.])) == 1 / 3
    assert pck(found[None].repeat(2, 1, 1), truth[None].repeat(2, 1, 1), torch.tensor([[5.], [6.]])) == .5
    assert isinstance(pck(found, truth, 5), float)


@pytest.mark.parametrize("call, message", [
    (lambda z: pck(z, z * float("nan"), 1), "truth: no point is known"),
    (lambda z: pck(z, z[:3], 1), "predicted, truth"),
    (lambda z: pck(z[:, :1], z[:, :1], 1), "predicted, truth"),
    (lambda z: pck(z, z, -1), "threshold"),
    (lambda z: pck(z, z, float("nan")), "threshold"),
    (lambda z: pck(z, z, torch.ones(3)), "threshold: shape"),
    (lambda z: pck(z.long(), z, 1), "predicted: expected float"),
    (lambda z: pck(z[:0], z[:0], 1), "predicted: is empty"),
])
def test_pck_refuses(call, message):
    with pytest.raises(ValueError, match=message): call(torch.zeros(4, 2))


def test_match_accuracy():
    truth, match = torch.tensor([[0, 5, -1, 7, 3]]), torch.tensor([[0, 6, 2, -1, 4]])
    assert match_accuracy(match, truth) == .25 and match_accuracy(match, truth, unmatched="left out") == 1 / 3
    assert match_accuracy(match, truth, 1, (2, 4)) == .5       # 5 and 6 are neighbours; 3 ends row 0 and 4 begins row 1
    assert match_accuracy(match, truth, 1, (1, 8)) == .75
    assert math.isnan(match_accuracy(match, torch.full_like(truth, -1)))
    with pytest.raises(ValueError, match="grid: a tolerance"): match_accuracy(match, truth, 1)
    with pytest.raises(ValueError, match="match: shape"): match_accuracy(match[:, :2], truth)
    with pytest.raises(ValueError, match="unmatched"): match_accuracy(match, truth, unmatched="skip")


# ---------------------------------------------------------------- positives by name

def test_choose_matches():
    images = torch.randint(0, 256, (3, 3, 60, 90), dtype=torch.uint8)
    generator = torch.Generator().manual_seed(3)
    a, b = (random_view(images, ViewConfig(size=64), generator) for _ in range(2))
    query, key = torch.randn(3, 5, 4, 4), torch.randn(3, 5, 4, 4)
    assert torch.equal(choose_matches("feature", query, key), match_features(query, key))
    assert torch.equal(choose_matches("mutual", query, key), match_features(query, key, mutual=True))
    assert torch.equal(choose_matches("index", query, key), torch.arange(16).expand(3, -1))
    for stride in None, 16: assert torch.equal(choose_matches("geometric", query, key, a, b, stride), geometric_matches(a, b, 16))
    pooled = choose_matches("geometric", query[..., :3, :3], key[..., :3, :3], a, b)
    assert torch.equal(pooled, geometric_matches(a, b, 64 / 3)) and pooled.shape == (3, 9)
    for arguments, message in [(("geometrc", query, key, a, b), "positives: unknown name 'geometrc', did you mean 'geometric'"), (("geometric", query, key), "view_a, view_b"),
                               (("geometric", query, key, a, b, 8), "query_map: 3 maps"), (("geometric", query, key, a, b, 0), "stride"), (("geometric", query, key[..., :3], a, b), "key_map"),
                               (("geometric", query[:2], key[:2], a, b), "query_map"), (("index", query, key[..., :3]), "key_map: has size 3")]:
        with pytest.raises(ValueError, match=message): choose_matches(*arguments)


# ---------------------------------------------------------------- encoders on pairs

class Pooling(torch.nn.Module):
    "The mean colour of each cell: an encoder whose cells are exactly where the convention says."
    stride, channels = 8, 3
    def __init__(self): super().__init__(); self.calls, self.norm = 0, torch.nn.BatchNorm2d(3)
    def forward(self, images):
        self.calls += 1
        return torch.nn.functional.avg_pool2d(images, 8) + 0 * self.norm(images).mean()


def shifted_pairs():
    "A picture whose colour tells the place (red: x, green: y, blue full), and two windows of it."
    y, x = torch.meshgrid(torch.arange(112), torch.arange(144), indexing="ij")
    image = torch.stack([40 + x, 40 + y, torch.full_like(x, 255)]).to(torch.uint8)
    a, b = image[:, :96, :128], image[:, 5:101, 13:141]
    points = torch.rand(9, 2) * torch.tensor([80., 60.]) + torch.tensor([30., 20.])
    return [types.SimpleNamespace(image_a=a, image_b=b, points_a=points, points_b=points - torch.tensor([13., 5.]), kind=name) for name in ("cat", "cow", "cat")]


def test_pairs_of_shifted_images():
    encoder, pairs = Pooling().train(), shifted_pairs()
    encoder.norm.eval()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    result = pck_pairs(encoder, pairs, threshold=1.5)
    assert result["pck"] == 1 and result["pairs"] == 3 and result["points"] == 27 and result["per_class"] == {"cat": 1, "cow": 1}
    assert encoder.calls == 1                                  # two images of one size, used by three pairs: one batch
    assert encoder.training and not encoder.norm.training and all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert pck_pairs(encoder, pairs, threshold=1.5, refine=False)["pck"] < 1                 # the centre of an 8-pixel cell is not that near
    for size in (64, 100, 200, 256): assert pck_pairs(encoder, pairs, size=size, threshold=1.)["pck"] == 1     # answers in the image's own pixels
    coarse = pck_pairs(encoder, pairs, threshold=4., refine=False)
    assert pck_pairs(encoder, pairs, alpha=4 / 128, refine=False) == coarse                  # the longer side of image b is 128
    for pair in pairs: pair.box_b = (10., 10., 14., 50.)
    assert pck_pairs(encoder, pairs, alpha=.1, refine=False) == coarse                       # the box's longer side is 40
    assert 0 < coarse["pck"] < 1
    pairs[0].points_b = pairs[0].points_b * float("nan")
    pairs[1].points_b = pairs[1].points_b + torch.tensor([50., 0.])
    pairs[2].points_a = pairs[2].points_a.clone()
    pairs[2].points_a[0, 0] = float("nan")
    result = pck_pairs(encoder, pairs, threshold=1.5)
    assert (result["pairs"], result["points"], result["pck"], result["pck_points"], result["per_class"]) == (2, 17, .5, 8 / 17, {"cat": 1, "cow": 0})


def test_images_of_different_scales():
    "Image b is image a drawn at 1.5 times the size: each is resized by its own factor, and the answer comes in b's pixels."
    pair = shifted_pairs()[0]
    y, x = torch.meshgrid((torch.arange(144) + .5) / 1.5, (torch.arange(192) + .5) / 1.5, indexing="ij")
    pair.image_b = torch.stack([39.5 + x, 39.5 + y, torch.full_like(x, 255)]).round().to(torch.uint8)
    pair.points_b = pair.points_a * 1.5
    for size in (None, 128, 96): assert pck_pairs(Pooling(), [pair], size=size, threshold=2.)["pck"] == 1


def test_classes_of_points():
    pair = shifted_pairs()[0]
    pair.kind, pair.labels = None, torch.tensor([3] * 4 + [1] * 5)
    pair.points_b = pair.points_b + torch.tensor([50., 0.]) * (pair.labels == 1)[:, None]
    assert pck_pairs(Pooling(), [pair], threshold=1.5) == dict(pck=4 / 9, pck_points=4 / 9, pairs=1, points=9, per_class={1: 0, 3: 1})


def test_keypoints_from_a_folder(tmp_path):
    "A data set of one pair, in the layout of the VOC keypoints."
    from PIL import Image
    pair, folder = shifted_pairs()[0], tmp_path / "VOCdevkit" / "VOC2012" / "JPEGImages"
    folder.mkdir(parents=True)
    for name, picture in ("one", pair.image_a), ("two", pair.image_b): Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / f"{name}.jpg", quality=100, subsampling=0)
    visible = lambda points: [[x, y, 1] for x, y in points.tolist()]
    animals = [dict(image=name, split="val", cls="cat", voc_id=8, bbox_xyxy=[0, 0, 30, 60], keypoints=visible(points)) for name, points in (("one", pair.points_a), ("two", pair.points_b))]
    (tmp_path / "keypoints.json").write_text(json.dumps(dict(names=[f"point {i}" for i in range(9)], instances=animals)))
    (tmp_path / "pairs.csv").write_text("split,class,image_a,image_b,shared_keypoints\nval,cat,one,two,9\n")
    result = pck_keypoints(Pooling(), tmp_path, size=128)
    assert result == dict(pck=1, pck_points=1, pairs=1, points=9, per_class={"cat": 1})
    assert pck_keypoints(Pooling(), tmp_path, size=128, alpha=0.)["pck"] == 0
    with pytest.raises(ValueError, match="split"): pck_keypoints(Pooling(), tmp_path, split="tst")


def test_pairs_by_name_are_read_once():
    pairs, read = shifted_pairs(), []
    pictures = {"a": pairs[0].image_a, "b": pairs[0].image_b}
    for pair in pairs: pair.image_a, pair.image_b = "a", "b"
    assert pck_pairs(Pooling(), pairs, threshold=1.5, read=lambda name: (read.append(name), pictures[name])[1])["pck"] == 1
    assert sorted(read) == ["a", "b"]
    with pytest.raises(ValueError, match="pairs: hold image names"): pck_pairs(Pooling(), pairs)


def test_prepare_and_encode():
    image = torch.randint(0, 256, (3, 37, 61), dtype=torch.uint8)
    picture, size = prepare_image(image, Pooling())
    assert picture.shape == (3, 40, 64) and size == (37, 61) and (picture[:, 37:] == 0).all() and (picture[:, :, 61:] == 0).all()
    picture, size = prepare_image(image, Pooling(), size=32)
    assert picture.shape == (3, 24, 32) and size == (19, 32)
    encoded = encode_images(Pooling(), [image, image.transpose(1, 2), image], size=32)
    assert [tuple(e.features.shape) for e in encoded] == [(3, 3, 4), (3, 4, 3), (3, 3, 4)]
    assert torch.allclose(encoded[0].features, encoded[2].features) and torch.allclose(encoded[0].scale, torch.tensor([32 / 61, 19 / 37]))


def test_bad_pairs():
    pairs = shifted_pairs()[:1]
    with pytest.raises(ValueError, match="pairs: is empty"): pck_pairs(Pooling(), [])
    with pytest.raises(ValueError, match="encoder: has no integer `.stride`"): pck_pairs(torch.nn.Conv2d(3, 4, 1), pairs)
    wrong = Pooling(); wrong.stride = 4
    with pytest.raises(ValueError, match="encoder: gave"): pck_pairs(wrong, pairs)
    pairs[0].points_a = pairs[0].points_a * float("nan")
    with pytest.raises(ValueError, match="pairs: none has a point"): pck_pairs(Pooling(), pairs)
    with pytest.raises(ValueError, match="image: expected uint8"): prepare_image(torch.zeros(3, 8, 8), Pooling())


def test_stereo_points():
    disparity = torch.full((16, 24), 4.)
    disparity[:, 12:] = torch.inf
    left, right = stereo_points(disparity, 8)
    assert left.tolist() == [[4.5, 4.5], [4.5, 12.5]] and torch.equal(right, left - torch.tensor([4., 0.]))
    with pytest.raises(ValueError, match="disparity: holds no finite"): stereo_points(disparity * torch.nan)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_agrees():
    query, key = torch.randn(2, 32, 20, 20), torch.randn(2, 32, 20, 20)
    for mutual in False, True: assert torch.equal(match_features(query.cuda(), key.cuda(), mutual).cpu(), match_features(query, key, mutual))
    assert torch.allclose(refine_matches(query.cuda(), key.cuda()).cpu(), refine_matches(query, key), atol=1e-4)
    view = make_view((10, 4, 40, 30), (24, 32), flipped=True)
    moved = types.SimpleNamespace(**{**vars(view), **{name: getattr(view, name).cuda() for name in ("image", "box", "flipped", "coordinates")}})
    assert torch.equal(geometric_matches(moved, moved, 8).cpu(), geometric_matches(view, view, 8))
    assert pck(torch.zeros(3, 2).cuda(), torch.zeros(3, 2).cuda(), torch.ones(3)) == 1
