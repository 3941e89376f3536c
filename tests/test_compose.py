"pixcl_nb.images.compositor: exact composition, the released rectangles' numbers, the leakless ones, backgrounds, objects, bad input."
import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import RandomErasing

from pixcl_nb.images.cells import mask_at_stride
from pixcl_nb.images.compositor import (
    background_rows, compose, copy_paste, CopyPasteConfig, object_map, paste_mask, paste_views,
    place_block)
from pixcl_nb.images.views import View, ViewConfig, apply_view, size_pair

PLAIN = ViewConfig(jitter=0., grayscale=0., blur=0.)


def seeded(seed=0): return torch.Generator().manual_seed(seed)


def flat_images(batch=6, height=60, width=80):
    "Image b is one flat colour of its own, so that every composed pixel tells which image it came from."
    return torch.arange(batch).mul(30).add(20).to(torch.uint8).view(-1, 1, 1, 1).expand(batch, 3, height, width).contiguous()


def owner(image):
    "Which flat image each pixel of a normalised picture came from."
    return ((image[:, 0] * .229 + .485) * 255 - 20).div(30).round().long()


# ------------------------------------------------------------------------------------------------ masks
def test_released_rectangles_have_the_measured_numbers():
    "papers/cp2_densecl.md 1.1: area .650, centre 1, edge midpoints .030, corners .001; 81 to 169 of 196 cells, mean .654; two rectangles share .526 and at least .247."
    masks = torch.cat([paste_mask(500, 224, None, seeded(seed)) for seed in range(6)])
    probability = masks.float().mean(0)
    edge, corner = [probability[0, 112], probability[-1, 112], probability[112, 0], probability[112, -1]], [probability[i, j] for i in (0, -1) for j in (0, -1)]
    assert abs(probability.mean() - .650) < .006 and probability[112, 112] == 1
    assert abs(sum(edge) / 4 - .030) < .007 and sum(corner) / 4 < .003
    area = masks.float().mean((1, 2))
    assert .495 < area.min() and area.max() < .805
    cells = mask_at_stride(masks, 16).flatten(1).sum(1)
    assert 81 <= cells.min() and cells.max() <= 169 and abs(cells.float().mean() / 196 - .654) < .006
    both = (masks[:1500] & masks[1500:]).float().mean((1, 2))
    assert abs(both.mean() - .526) < .01 and both.min() > .2


def test_rectangles_are_distributed_like_random_erasing():
    masks, blank = paste_mask(1500, 128, None, seeded()), torch.zeros(3, 128, 128)
    ours = torch.stack([masks.any(2).to(torch.uint8).argmax(1), masks.any(1).to(torch.uint8).argmax(1), masks.any(2).sum(1), masks.any(1).sum(1)]).float()
    assert torch.equal(ours[2] * ours[3], masks.sum((1, 2)).float())                                     # solid rectangles
    theirs = torch.tensor([RandomErasing.get_params(blank, (.5, .8), (.8, 1.25), [0.])[:4] for _ in range(1500)]).T.float()
    assert (ours.sort(1).values - theirs.sort(1).values).abs().mean(1).max() < 2


def test_anywhere_covers_every_cell_equally_and_never_nothing():
    for size, stride in ((224, 16), (96, 16), (100, 16), ((64, 96), 8), (96, 32)):
        config = CopyPasteConfig(size=size, position="anywhere", stride=stride, area=(.3, .6))
        cells = mask_at_stride(torch.cat([paste_mask(1000, size, config, seeded(seed)) for seed in range(3)]), stride)
        assert cells.flatten(1).any(1).all()
        probability = cells.float().mean(0)
        assert (probability - probability.mean()).abs().max() < 5 * (probability.mean() * (1 - probability.mean()) / 3000).sqrt()


def test_anywhere_starts_cover_each_cell_centre_equally_by_count():
    uniform = torch.linspace(0, .99999, 5000, dtype=torch.float64)
    for size, stride, length in ((96, 16, 40), (100, 16, 17), (64, 8, 64), (33, 16, 20)):
        starts = place_block(uniform, torch.full((5000,), float(length)), size, "anywhere", stride).unique()
        centres = [min(stride * k + stride // 2, size - 1) for k in range(-(-size // stride))]      # of every cell; the last may stick out
        assert {int(((starts <= c) & (c < starts + length)).sum()) for c in centres} == {length}
        assert all(any(s <= c < s + length for c in centres) for s in starts.tolist())


def test_area_of_the_whole_image_is_allowed():
    assert paste_mask(3, 32, CopyPasteConfig(size=32, area=(1., 1.), aspect=(1., 1.)), seeded()).all()


def test_mask_at_stride_takes_centres():
    mask = torch.rand(2, 50, 64, generator=seeded()) > .5
    assert torch.equal(mask_at_stride(mask, 16), mask[:, [8, 24, 40, 49]][:, :, [8, 24, 40, 56]])              # 50 = 3·16 + 2: the fourth centre is outside
    assert torch.equal(mask_at_stride(mask, 1), mask)
    full = torch.rand(2, 224, 224) > .5
    assert torch.equal(mask_at_stride(full, 16), full[:, 8::16, 8::16])                                   # the released line


@pytest.mark.parametrize("position", ["released", "anywhere"])
@pytest.mark.parametrize("size, stride", [(100, 8), (100, 16), ((90, 100), 16), (33, 16)])
def test_masks_have_the_grid_of_an_encoder(size, stride, position):
    config = CopyPasteConfig(size=size, stride=stride, position=position, area=(.5, .8))
    image = torch.zeros(1, 1, *size_pair(size))
    for _ in range(stride.bit_length() - 1): image = F.conv2d(image, torch.ones(1, 1, 3, 3), stride=2, padding=1)
    masks = copy_paste(torch.zeros(3, 3, 128, 128, dtype=torch.uint8), config, seeded()).masks_at(stride)
    assert all(mask.shape[1:] == image.shape[2:] and mask.flatten(1).any(1).all() for mask in masks)


def test_cp2_trains_at_a_size_that_the_stride_does_not_divide():
    from pixcl_nb.methods.contract import create_method
    torch.manual_seed(0)
    method = create_method("cp2", compose=CopyPasteConfig(size=100, stride=8), decoder="fcn")
    loss = method.loss(torch.randint(0, 256, (2, 3, 112, 112), dtype=torch.uint8), generator=seeded())["loss"]
    loss.backward()
    assert loss.isfinite() and any(p.grad is not None and p.grad.abs().sum() > 0 for p in method.encoder.parameters())


# ------------------------------------------------------------------------------------------------ composition
def test_compose_is_exact():
    a, b = torch.randn(2, 3, 5, 7), torch.randn(2, 3, 5, 7)
    mask = torch.rand(2, 5, 7) > .5
    composed = compose(a, b, mask)
    for n in range(2):
        for y in range(5):
            for x in range(7): assert torch.equal(composed[n, :, y, x], (a if mask[n, y, x] else b)[n, :, y, x])
    into = b.clone()
    assert torch.equal(compose(a, into, mask, out=into), composed) and torch.equal(into, composed)
    assert torch.equal(compose(a, torch.full_like(a, float("inf")), torch.ones_like(mask)), a)            # 0 · inf never happens


@pytest.mark.parametrize("reuse", ["fresh", "reused"])
@pytest.mark.parametrize("position", ["released", "anywhere"])
def test_every_pixel_comes_from_the_right_image(reuse, position):
    config = CopyPasteConfig(size=48, position=position, background_views=reuse, view=PLAIN)
    pairs = copy_paste(flat_images(), config, seeded())
    for image, mask, background in ((pairs.query, pairs.query_mask, pairs.query_background), (pairs.key, pairs.key_mask, pairs.key_background)):
        expected = torch.where(mask, torch.arange(6).view(-1, 1, 1), background.view(-1, 1, 1))
        assert torch.equal(owner(image), expected)
    assert not torch.equal(pairs.query_mask, pairs.key_mask)
    assert pairs.masks_at(16)[0].shape == (6, 3, 3) and pairs.masks_at(16)[0].flatten(1).any(1).all()


def test_foreground_is_the_view_and_views_are_independent():
    images = torch.randint(0, 256, (4, 3, 60, 80), dtype=torch.uint8, generator=seeded())
    config = CopyPasteConfig(size=48)
    pairs = copy_paste(images, config, seeded(3))
    view = apply_view(images, pairs.query_view.parameters, ViewConfig(size=48)).image
    mask = pairs.query_mask[:, None].expand_as(view)
    torch.testing.assert_close(pairs.query[mask], view[mask], atol=1e-5, rtol=0)
    assert torch.equal(pairs.query_view.image[mask], pairs.query[mask])
    for name in ("box", "order"): assert not torch.equal(getattr(pairs.query_view.parameters, name), getattr(pairs.key_view.parameters, name))
    assert pairs.query_view.coordinates.shape == (4, 2, 48, 48)


def test_reused_views_in_both_forms():
    "In place along cycles (CPU) and as one gather (GPU) give the same pairs, for rolls of one cycle and of several."
    for batch in (2, 3, 6, 8):
        for seed in range(4):
            rows, masks = background_rows(batch, seeded(seed)), [torch.rand(batch, 9, 11, generator=seeded(seed + k)) > .5 for k in range(2)]
            images = [torch.randn(batch, 3, 9, 11, generator=seeded(seed + k)) for k in range(2)]
            expected = [compose(image, images[0][row], mask) for image, mask, row in zip(images, masks, rows)]
            for form in ("pieces", "batched"):
                views = [View(image.clone(), torch.zeros(batch, 4), torch.zeros(batch, dtype=torch.bool), (9, 11)) for image in images]
                paste_views(views, masks, rows, form=form)
                for view, image in zip(views, expected): assert torch.equal(view.image, image)


def test_second_draw_uses_the_given_images():
    images, others = flat_images(3), flat_images(6, 50, 50) + 5
    config = CopyPasteConfig(size=48, backgrounds="second draw", view=PLAIN)
    pairs = copy_paste(images, config, seeded(), backgrounds=others)
    assert (owner(pairs.query)[~pairs.query_mask].unique().tolist(), owner(pairs.key)[~pairs.key_mask].unique().tolist()) == ([0, 1, 2], [3, 4, 5])
    assert pairs.query_background.tolist() == [0, 1, 2] and pairs.key_background.tolist() == [3, 4, 5]
    assert copy_paste(images[:1], config, seeded(), backgrounds=others[:2]).query.shape == (1, 3, 48, 48)       # one image is enough here


def test_backgrounds_are_never_the_image_itself():
    for batch in range(2, 12):
        for seed in range(5):
            query, key = background_rows(batch, seeded(seed))
            assert (query != torch.arange(batch)).all() and (key != torch.arange(batch)).all()
            assert torch.equal(query.sort().values, torch.arange(batch)) and (batch == 2 or (query != key).all())
    assert len({tuple(background_rows(8, seeded(seed))[0].tolist()) for seed in range(40)}) == 7                 # every shift happens


def test_deterministic_and_input_untouched():
    images = torch.randint(0, 256, (4, 3, 60, 80), dtype=torch.uint8, generator=seeded())
    before, state = images.clone(), torch.get_rng_state()
    a, b, c = (copy_paste(images, CopyPasteConfig(size=48), seeded(seed)) for seed in (1, 1, 2))
    for name in ("query", "key", "query_mask", "key_mask"): assert torch.equal(getattr(a, name), getattr(b, name))
    assert not torch.equal(a.query, c.query) and torch.equal(images, before) and torch.equal(state, torch.get_rng_state())


def test_extents_and_masks_reach_the_views():
    images = flat_images(4); images[:, :, 40:] = 255; images[:, :, :, 50:] = 255
    masks = torch.zeros(4, 60, 80, dtype=torch.long); masks[:, 40:] = 255; masks[:, :, 50:] = 255
    pairs = copy_paste(images, CopyPasteConfig(size=48, view=PLAIN), seeded(), masks=masks, extents=torch.tensor([[40, 50]] * 4))
    assert owner(pairs.query).max() <= 3 and owner(pairs.key).max() <= 3                                  # backgrounds too
    assert (pairs.query_view.mask == 0).all() and (pairs.key_view.mask == 0).all()
    pairs = copy_paste(images, CopyPasteConfig(size=48, shape="object", view=PLAIN), seeded(), masks=masks.clone().index_fill_(1, torch.arange(10), 1), extents=torch.tensor([[40, 50]] * 4))
    assert owner(pairs.query).max() <= 3


# ------------------------------------------------------------------------------------------------ objects
def test_object_map_separates_pieces_and_classes():
    objects = object_map(torch.tensor([[[2, 2, 0, 2], [255, 255, 0, 2], [2, 255, 0, 0]]]))[0]
    assert objects[0, 0] == objects[0, 1] and objects[0, 3] == objects[1, 3] and len({int(objects[y, x]) for y, x in ((0, 0), (0, 3), (2, 0), (0, 2))}) == 4
    assert (objects[1, :2] == 0).all()


def test_object_masks_are_one_object_and_not_empty():
    masks = torch.full((8, 60, 80), 255)
    masks[:, 5:35, 5:40], masks[:, 30:58, 50:78] = 3, 3
    config = CopyPasteConfig(size=64, shape="object", stride=16, view=ViewConfig(scale=(.2, .4), jitter=0., grayscale=0., blur=0.))
    pairs = copy_paste(flat_images(8), config, seeded(), masks=masks)
    for mask, view in ((pairs.query_mask, pairs.query_view), (pairs.key_mask, pairs.key_view)):
        cells = mask_at_stride(mask, 16).flatten(1)
        assert cells.any(1).all() and not cells.all(1).any() and (view.mask[mask] == 3).all()
        x = view.coordinates[:, 0]
        for row in range(8): assert (x[row][mask[row]] < 45).all() or (x[row][mask[row]] > 45).all()      # one of the two pieces
    sides = [pairs.query_view.coordinates[row, 0][pairs.query_mask[row]].mean() < 45 for row in range(8)]
    assert sides == [pairs.key_view.coordinates[row, 0][pairs.key_mask[row]].mean() < 45 for row in range(8)]   # the same piece in both
    assert len(set(map(bool, sides))) == 2


# ------------------------------------------------------------------------------------------------ bad input
@pytest.mark.parametrize("change, name", [(dict(area=(0, .5)), "area"), (dict(area=(.5, 1.2)), "area"), (dict(area=(.8, .5)), "area"), (dict(area=(.001, .5)), "area: a block"), (dict(aspect=(0, 1)), "aspect"),
                                          (dict(position="centre"), "position"), (dict(shape="circle"), "shape"), (dict(backgrounds="shuffled"), "backgrounds"), (dict(background_views="new"), "background_views"),
                                          (dict(stride=0), "stride"), (dict(stride=97), "stride"), (dict(stride=64, area=(.1, .2)), "area: a block"), (dict(stride=1.5), "stride"), (dict(size=(96, 0)), "size")])
def test_bad_config(change, name):
    with pytest.raises(ValueError, match=name): CopyPasteConfig(**(dict(size=96) | change))


@pytest.mark.parametrize("change, error, name", [
    (dict(images=torch.rand(3, 3, 8, 8)), ValueError, "images: expected uint8"), (dict(images=torch.zeros(1, 3, 8, 8, dtype=torch.uint8)), ValueError, "images: a batch of 1"), (dict(images=None), TypeError, "images"),
    (dict(masks=torch.zeros(3, 8, 9, dtype=torch.long)), ValueError, "masks"), (dict(extents=torch.tensor([[9, 9]] * 3)), ValueError, "extents"),
    (dict(backgrounds=torch.zeros(6, 3, 8, 8, dtype=torch.uint8)), ValueError, "backgrounds: is given"), (dict(config=CopyPasteConfig(size=32, backgrounds="second draw")), ValueError, "backgrounds: give"),
    (dict(config=CopyPasteConfig(size=32, backgrounds="second draw"), backgrounds=torch.zeros(3, 3, 8, 8, dtype=torch.uint8)), ValueError, "backgrounds: has size 3"),
    (dict(config=CopyPasteConfig(size=32, backgrounds="second draw", background_views="reused"), backgrounds=torch.zeros(6, 3, 8, 8, dtype=torch.uint8)), ValueError, "backgrounds: a second draw needs"),
    (dict(config=CopyPasteConfig(size=32, shape="object")), ValueError, "masks: shape='object'"),
    (dict(config=CopyPasteConfig(size=32, shape="object"), masks=torch.full((3, 8, 8), 255)), ValueError, "masks: images"),
    (dict(config=CopyPasteConfig(size=32, shape="object"), masks=torch.zeros(3, 8, 8, dtype=torch.long)), ValueError, "masks: images")])
def test_bad_input(change, error, name):
    with pytest.raises(error, match=name): copy_paste(**(dict(images=torch.zeros(3, 3, 8, 8, dtype=torch.uint8), config=CopyPasteConfig(size=32)) | change))


def test_bad_parts():
    a, mask = torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.bool)
    with pytest.raises(ValueError, match="mask: expected bool"): compose(a, a, mask.float())
    with pytest.raises(ValueError, match="background: has size 9"): compose(a, torch.zeros(1, 3, 8, 9), mask)
    with pytest.raises(ValueError, match="mask: has size 4"): compose(a, a, mask[:, :4])
    with pytest.raises(ValueError, match="mask: has 2 axes"): mask_at_stride(mask[0], 4)
    with pytest.raises(ValueError, match="stride"): mask_at_stride(mask, 9)
    with pytest.raises(ValueError, match="batch"): paste_mask(0, 64)
    with pytest.raises(ValueError, match="size"): paste_mask(1, 0)
    with pytest.raises(ValueError, match="area: a block"): paste_mask(1, 64, CopyPasteConfig(size=224, area=(.02, .1)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_makes_the_same_pairs():
    images = torch.randint(0, 256, (4, 3, 60, 80), dtype=torch.uint8, generator=seeded())
    masks = torch.randint(0, 3, (4, 60, 80), generator=seeded())
    for config in (CopyPasteConfig(size=48), CopyPasteConfig(size=48, background_views="reused"), CopyPasteConfig(size=48, shape="object", stride=4)):
        a, b = copy_paste(images, config, seeded(), masks), copy_paste(images.cuda(), config, seeded(), masks.cuda())
        assert b.query.is_cuda and b.query_mask.is_cuda and torch.equal(a.query_mask, b.query_mask.cpu())
        assert (a.query - b.query.cpu()).abs().mean() < .02
