"pixcl_nb.images.views: geometry against torch and a ramp, colours against PIL, both forms against each other, randomness, bad input."
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as pil_steps
from torchvision.transforms import RandomResizedCrop
from PIL import Image, ImageFilter

from pixcl_nb.images.views import (
    View, ViewConfig, apply_view, blur_image, blur_matrix, distort_colour, draw_view, random_view,
    resize_matrix, shift_hue)

PLAIN = dict(jitter=0., grayscale=0., blur=0.)


def seeded(seed=0): return torch.Generator().manual_seed(seed)


def scene(batch=6, height=90, width=120, seed=0):
    "Smooth coloured pictures with flat, saturated, grey, black and white parts."
    noise = torch.rand(batch, 3, 6, 8, generator=seeded(seed))
    images = (F.interpolate(noise, (height, width), mode="bilinear") * 300 - 20).clamp(0, 255)
    images[:, :, :10, :10], images[:, :, :10, 10:20], images[:, :, 10:20, :10] = 0, 255, 128
    return images.round().to(torch.uint8)


def extents_of(images): return torch.tensor(images.shape[-2:]).expand(len(images), 2)


def grey_levels(image, config=ViewConfig()):
    mean, std = (torch.tensor(values)[:, None, None] for values in (config.mean, config.std))
    return (image * std + mean) * 255


# ------------------------------------------------------------------------------------------------ geometry
def test_coordinates_by_hand():
    view = View(torch.zeros(2, 3, 2, 4), torch.tensor([[10., 20., 8., 6.]] * 2), torch.tensor([False, True]), (100, 100))
    assert view.coordinates.shape == (2, 2, 2, 4)
    assert view.coordinates[0, 0, 0].tolist() == [11., 13., 15., 17.] and view.coordinates[1, 0, 0].tolist() == [17., 15., 13., 11.]
    assert view.coordinates[0, 1, :, 0].tolist() == [21.5, 24.5] == view.coordinates[1, 1, :, 3].tolist()
    assert view.coordinates_at(2)[0, 0].tolist() == [[12., 16.]] and view.coordinates_at(2)[1, 1].tolist() == [[23., 23.]]


def test_coordinates_at_is_the_mean_of_a_cell_and_drops_partial_cells():
    view = random_view(scene(), ViewConfig(size=(40, 52)), seeded())
    assert view.coordinates_at(16).shape == (6, 2, 2, 3)
    torch.testing.assert_close(view.coordinates_at(4), F.avg_pool2d(view.coordinates, 4), atol=1e-3, rtol=0)


@pytest.mark.parametrize("form", ["pieces", "batched"])
def test_pixels_come_from_where_the_coordinates_say(form):
    "A picture whose red is x and whose green is y, 1 to 1: every view must read back its own coordinates."
    ramp = torch.zeros(1, 3, 200, 250, dtype=torch.uint8)
    ramp[:, 0], ramp[:, 1] = torch.arange(250), torch.arange(200)[:, None]
    config = ViewConfig(size=48, flip=.5, **PLAIN)
    view = apply_view(ramp.expand(12, -1, -1, -1), draw_view(config, torch.tensor([[200, 250]] * 12), seeded(3)), config, form=form)
    assert view.flipped.any() and not view.flipped.all()
    seen = grey_levels(view.image)[:, :2, 2:-2, 2:-2] + .5
    assert (seen - view.coordinates[..., 2:-2, 2:-2]).abs().max() < (1.1 if form == "pieces" else .15)      # uint8 rounds in each of two passes
    assert (seen - view.coordinates[..., 2:-2, 2:-2]).mean().abs() < .05


def test_resize_matrix_equals_torchs_antialiased_resize():
    images = torch.rand(1, 3, 70, 90, generator=seeded()) * 255
    for left, top, width, height, size in ((0, 0, 90, 70, (32, 32)), (11, 5, 60, 40, (32, 24)), (30, 30, 9, 7, (32, 32)), (3, 2, 64, 64, (64, 64))):
        rows = resize_matrix(torch.tensor([float(top)]), torch.tensor([float(height)]), None, 70, size[0])
        columns = resize_matrix(torch.tensor([float(left)]), torch.tensor([float(width)]), torch.tensor([True]), 90, size[1])
        ours = rows[:, None] @ images @ columns[:, None].mT
        theirs = F.interpolate(images[..., top:top + height, left:left + width], size=size, mode="bilinear", antialias=True).flip(-1)
        torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)


def test_whole_image_at_its_own_size_is_the_image():
    images = scene(2, 64, 64)
    config = ViewConfig(size=64, flip=0., **PLAIN)
    parameters = replace(draw_view(config, extents_of(images), seeded()), box=torch.tensor([[0., 0., 64., 64.]] * 2))
    for form in ("pieces", "batched"):
        torch.testing.assert_close(grey_levels(apply_view(images, parameters, config, form=form).image), images.float(), atol=1e-2, rtol=0)


def test_crops_have_the_configured_area_ratio_and_place():
    config, extents = ViewConfig(), torch.tensor([[300, 400]] * 4000)
    left, top, width, height = draw_view(config, extents, seeded()).box.unbind(1)
    share, ratio = width * height / 120000, width / height
    theirs = [RandomResizedCrop.get_params(torch.zeros(1, 300, 400), (.2, 1.), (3/4, 4/3)) for _ in range(4000)]
    expected = torch.tensor([h * w / 120000 for _, _, h, w in theirs])
    assert .19 < share.min() and share.max() <= 1 and (share.sort().values - expected.sort().values).abs().max() < .04
    assert ratio.min() > .74 and ratio.max() < 1.35
    assert abs(ratio.log().mean() - torch.tensor([math.log(w / h) for _, _, h, w in theirs]).mean()) < .015
    assert left.min() >= 0 and (left + width).max() <= 400 and (top + height).max() <= 300
    assert torch.equal(left, left.round()) and torch.equal(width, width.round())
    free = 400 - width
    assert abs(((left + .5) / (free + 1)).mean() - .5) < .02


def test_crop_falls_back_to_the_centre_of_a_very_wide_image():
    box = draw_view(ViewConfig(scale=(1., 1.)), torch.tensor([[30, 300]] * 3), seeded()).box
    assert box.tolist() == [[130., 0., 40., 30.]] * 3


def test_tiny_and_single_pixel_images():
    for height, width in ((1, 1), (2, 3), (1, 7)):
        view = random_view(torch.full((2, 3, height, width), 90, dtype=torch.uint8), ViewConfig(size=8, **PLAIN), seeded())
        torch.testing.assert_close(grey_levels(view.image), torch.full((2, 3, 8, 8), 90.), atol=1e-2, rtol=0)


def test_extents_keep_crops_inside():
    images = torch.zeros(200, 3, 60, 80, dtype=torch.uint8)
    images[:, :, 50:], images[:, :, :, 30:] = 255, 255
    view = random_view(images, ViewConfig(size=16, **PLAIN), seeded(), extents=torch.tensor([[50, 30]]).expand(200, 2))
    assert (view.box[:, 0] + view.box[:, 2]).max() <= 30 and (view.box[:, 1] + view.box[:, 3]).max() <= 50
    torch.testing.assert_close(grey_levels(view.image), torch.zeros(200, 3, 16, 16), atol=1e-2, rtol=0)


def test_masks_follow_the_pixels():
    "Label = 25 times the block a pixel lies in; the picture shows the same blocks as grey values."
    blocks = (torch.arange(64) // 16)[:, None] * 4 + torch.arange(64) // 16
    masks = blocks.expand(5, 64, 64).clone()
    masks[0, :8] = 255
    images = (blocks * 16).to(torch.uint8).expand(5, 3, 64, 64)
    for form in ("pieces", "batched"):
        config = ViewConfig(size=40, **PLAIN)
        view = apply_view(images, draw_view(config, extents_of(images), seeded(2)), config, masks, form=form)
        assert view.mask.dtype == torch.int64 and view.mask.shape == (5, 40, 40)
        x, y = view.coordinates.long().unbind(1)
        for row in range(5): assert torch.equal(view.mask[row], masks[row][y[row], x[row]])
        inner = (view.mask[1:] * 16 - grey_levels(view.image)[1:, 0]).abs() < 2
        assert inner.float().mean() > .75                                   # all but the borders of blocks
    assert set(view.mask.unique().tolist()) <= set(masks.unique().tolist())


# ------------------------------------------------------------------------------------------------ colour
def by_pil(image, p, row, size):
    left, top, width, height = p.box[row].long().tolist()
    picture = geometry = pil_steps.resized_crop(Image.fromarray(image.permute(1, 2, 0).numpy()), top, left, height, width, [size, size])
    steps = (pil_steps.adjust_brightness, p.brightness), (pil_steps.adjust_contrast, p.contrast), (pil_steps.adjust_saturation, p.saturation), (pil_steps.adjust_hue, p.hue)
    for kind in p.order[row].tolist(): picture = steps[kind][0](picture, steps[kind][1][row].item())
    if p.grayscale[row]: picture = pil_steps.rgb_to_grayscale(picture, 3)
    if p.blur_sigma[row]: picture = picture.filter(ImageFilter.GaussianBlur(p.blur_sigma[row].item()))
    return [pil_steps.pil_to_tensor(pil_steps.hflip(part) if p.flipped[row] else part).float() for part in (geometry, picture)]


def photographs():
    import numpy as np
    from skimage import data
    arrays = data.astronaut()[:384], data.coffee(), data.chelsea(), data.rocket()
    images = [torch.from_numpy(np.array(a)).permute(2, 0, 1)[None] for a in arrays]
    return torch.cat([F.interpolate(image, (180, 240), mode="bilinear", antialias=True) for image in images]).repeat(8, 1, 1, 1)


def test_views_equal_pils_for_the_same_parameters():
    "The released recipe in PIL: geometry within 1 of 255, colours within 3 in the mean."
    images, config = photographs(), ViewConfig(size=80)
    p = draw_view(config, extents_of(images), seeded(1))
    bare = replace(p, brightness=torch.ones(32), contrast=torch.ones(32), saturation=torch.ones(32), hue=torch.zeros(32), grayscale=torch.zeros(32, dtype=torch.bool), blur_sigma=torch.zeros(32))
    ours, geometry = (grey_levels(apply_view(images, q, config).image) for q in (p, bare))
    pil = [by_pil(image, p, row, 80) for row, image in enumerate(images)]
    assert max((a - b[0]).abs().max() for a, b in zip(geometry, pil)) < 1.01
    assert torch.stack([(a - b[1]).abs().mean() for a, b in zip(ours, pil)]).mean() < 3


@pytest.mark.parametrize("name, function, value", [("brightness", pil_steps.adjust_brightness, .7), ("contrast", pil_steps.adjust_contrast, 1.3), ("contrast", pil_steps.adjust_contrast, .6),
                                                   ("saturation", pil_steps.adjust_saturation, 1.4), ("saturation", pil_steps.adjust_saturation, .6), ("hue", pil_steps.adjust_hue, .1), ("hue", pil_steps.adjust_hue, -.07)])
def test_each_colour_step_alone(name, function, value):
    images, config = photographs()[:4], ViewConfig(size=64, flip=0., **PLAIN)
    p = replace(draw_view(config, extents_of(images), seeded()), **{name: torch.full((4,), value)})
    bare = grey_levels(apply_view(images, replace(p, **{name: torch.zeros(4) if name == "hue" else torch.ones(4)}), config).image).round().to(torch.uint8)
    torch.testing.assert_close(grey_levels(apply_view(images, p, config).image), function(bare, value).float(), atol=1.6, rtol=0)


def test_grey_views_are_grey():
    image = grey_levels(random_view(scene(), ViewConfig(size=32, grayscale=1.), seeded()).image)
    torch.testing.assert_close(image[:, 0], image[:, 1], atol=1e-2, rtol=0)
    torch.testing.assert_close(image[:, 0], image[:, 2], atol=1e-2, rtol=0)


def test_values_stay_in_the_range_of_pixels():
    image = grey_levels(random_view(scene(20), ViewConfig(size=32, brightness=.9, contrast=.9, jitter=1.), seeded()).image)
    assert image.min() > -.01 and image.max() < 255.01 and image.isfinite().all()


def test_hue_keeps_the_largest_and_smallest_channel_and_greys():
    colours = torch.randint(0, 256, (3, 500), generator=seeded()).float()
    colours[:, :50] = colours[0, :50]
    for turns in (.1, -.3, .5):
        turned = shift_hue(colours, turns)
        torch.testing.assert_close(turned.amax(0), colours.amax(0), atol=1e-3, rtol=0)
        torch.testing.assert_close(turned.amin(0), colours.amin(0), atol=1e-3, rtol=0)
        torch.testing.assert_close(turned[:, :50], colours[:, :50])
        torch.testing.assert_close(shift_hue(turned, -turns), colours, atol=5e-3, rtol=0)
    torch.testing.assert_close(shift_hue(torch.tensor([[255.], [0.], [0.]]), 1 / 3), torch.tensor([[0.], [255.], [0.]]), atol=1e-3, rtol=0)      # red -> green
    batched = shift_hue(colours.expand(2, 3, 500), torch.tensor([[.1], [-.2]]))
    torch.testing.assert_close(batched[1], shift_hue(colours, -.2), atol=1e-3, rtol=0)


def test_blur_forms_agree_and_keep_the_mean_of_a_flat_picture():
    image = torch.rand(3, 40, 56, generator=seeded())
    for sigma in (.1, .4, 1., 2.):
        rows, columns = (blur_matrix(torch.tensor([sigma]), side, 2.)[0] for side in (40, 56))
        torch.testing.assert_close(blur_image(image.clone(), sigma), rows @ image @ columns.T, atol=1e-5, rtol=0)
    torch.testing.assert_close(blur_image(torch.full((3, 9, 9), 4.), 2.), torch.full((3, 9, 9), 4.))
    assert blur_image(image, 2.).var() < .2 * image.var()
    torch.testing.assert_close(blur_image(image[:, :2, :2].clone(), 2.).mean(), image[:, :2, :2].mean(), atol=.1, rtol=0)      # smaller than the kernel


def test_forms_agree():
    images, config = photographs(), ViewConfig(size=64)
    p = draw_view(config, extents_of(images), seeded(5))
    a, b = (apply_view(images, p, config, form=form) for form in ("pieces", "batched"))
    assert (grey_levels(a.image) - grey_levels(b.image)).abs().mean() < .5 and torch.equal(a.coordinates, b.coordinates)
    again = apply_view(images.contiguous(memory_format=torch.channels_last), p, config)
    torch.testing.assert_close(again.image, a.image, atol=1e-5, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_sees_the_same_views():
    images, config = scene(), ViewConfig(size=48)
    masks = torch.randint(0, 5, (6, 90, 120))
    a = random_view(images, config, seeded(), masks)
    b = random_view(images.cuda(), config, seeded(), masks.cuda())
    assert b.image.is_cuda and torch.equal(a.box, b.box.cpu()) and torch.equal(a.mask, b.mask.cpu())
    assert (grey_levels(a.image) - grey_levels(b.image.cpu())).abs().mean() < .7


# ------------------------------------------------------------------------------------------------ randomness
def test_same_generator_state_same_bits_and_global_state_untouched():
    images, state = scene(), torch.get_rng_state()
    a, b, c = (random_view(images, ViewConfig(size=32), seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(a.image, b.image) and not torch.equal(a.image, c.image)
    assert torch.equal(state, torch.get_rng_state())


def test_thread_count_changes_no_bit_and_is_restored():
    images, threads, seen = scene(4, 300, 400), torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            seen.append(random_view(images, ViewConfig(size=224), seeded()).image)
            assert torch.get_num_threads() == count
    finally: torch.set_num_threads(threads)
    assert torch.equal(*seen)


def test_autocast_does_not_touch_pixels():
    images, config = scene(), ViewConfig(size=32)
    p = draw_view(config, extents_of(images), seeded())
    for form in ("pieces", "batched"):
        plain = apply_view(images, p, config, form=form).image
        with torch.autocast("cpu", torch.bfloat16): inside = apply_view(images, p, config, form=form).image
        assert inside.dtype == torch.float32 and torch.equal(plain, inside)


def test_input_is_left_untouched():
    images, masks = scene(), torch.ones(6, 90, 120, dtype=torch.int64)
    before = images.clone()
    view = random_view(images, ViewConfig(size=32), seeded(), masks)
    assert torch.equal(images, before)
    kept = view.image.clone()
    distort_colour(view.image, ViewConfig(jitter=1., blur=1.), seeded())
    assert torch.equal(view.image, kept)


def test_probabilities():
    p = draw_view(ViewConfig(), torch.tensor([[100, 100]] * 5000), seeded())
    for values, expected in ((p.flipped, .5), (p.brightness != 1, .8), (p.grayscale, .2), (p.blur_sigma > 0, .5)): assert abs(values.float().mean() - expected) < .03
    assert torch.equal(p.hue != 0, p.contrast != 1)                         # the four happen together or not at all
    assert p.brightness.min() >= .6 and p.brightness.max() <= 1.4 and p.hue.abs().max() <= .1
    assert p.blur_sigma[p.blur_sigma > 0].min() >= .1 and p.blur_sigma.max() <= 2
    assert len(p.order.unique(dim=0)) == 24 and len(p) == 5000 and len(p[:7]) == 7


def test_rows_choose_the_source_image():
    images, config = scene(), ViewConfig(size=32)
    p = draw_view(config, extents_of(images), seeded())
    rows = torch.tensor([3, 3, 0, 1, 5, 2])
    for form in ("pieces", "batched"):
        torch.testing.assert_close(apply_view(images, p, config, rows=rows, form=form).image, apply_view(images[rows], p, config, form=form).image)


def test_views_can_be_painted_into_a_tensor_where_a_mask_says():
    images, config = scene(), ViewConfig(size=32)
    p, mask = draw_view(config, extents_of(images), seeded()), torch.rand(6, 32, 32, generator=seeded()) > .5
    for form in ("pieces", "batched"):
        plain, canvas = apply_view(images, p, config, form=form).image, torch.full((6, 3, 32, 32), 7.)
        painted = apply_view(images, p, config, form=form, out=canvas, where=mask).image
        assert torch.equal(painted, torch.where(mask[:, None], plain, 7.)) and painted.data_ptr() == canvas.data_ptr()
        assert torch.equal(apply_view(images, p, config, form=form, out=canvas).image, plain)


def test_geometry_reuse_and_recolouring():
    images, config = scene(), ViewConfig(size=32)
    view = random_view(images, config, seeded())
    other = random_view(images, config, seeded(9), geometry=view)
    assert torch.equal(view.coordinates, other.coordinates) and not torch.equal(view.image, other.image)
    bare = random_view(images, ViewConfig(size=32, **PLAIN), seeded(9), geometry=view)
    torch.testing.assert_close(distort_colour(bare.image, ViewConfig(**PLAIN)), bare.image, atol=1e-4, rtol=0)
    assert distort_colour(view.image, config, seeded()).shape == view.image.shape


# ------------------------------------------------------------------------------------------------ bad input
@pytest.mark.parametrize("change, name", [(dict(size=0), "size"), (dict(size=(32,)), "size"), (dict(size=32.), "size"), (dict(scale=(0, 1)), "scale"), (dict(scale=(.2, 1.5)), "scale"), (dict(scale=.5), "scale"),
                                          (dict(ratio=(2, 1)), "ratio"), (dict(flip=1.1), "flip"), (dict(jitter=-1), "jitter"), (dict(hue=.6), "hue"), (dict(brightness=float("nan")), "brightness"),
                                          (dict(blur_sigma=(0, 1)), "blur_sigma"), (dict(std=(.2, 0, .2)), "std"), (dict(mean=(.5,)), "mean")])
def test_bad_config(change, name):
    with pytest.raises(ValueError, match=name): ViewConfig(**change)


@pytest.mark.parametrize("change, error, name", [
    (dict(images=torch.rand(2, 3, 8, 8)), ValueError, "images: expected uint8"), (dict(images=torch.zeros(2, 1, 8, 8, dtype=torch.uint8)), ValueError, "images"),
    (dict(images=torch.zeros(3, 8, 8, dtype=torch.uint8)), ValueError, "images"), (dict(images=torch.zeros(0, 3, 8, 8, dtype=torch.uint8)), ValueError, "images: is empty"),
    (dict(images=[1]), TypeError, "images"), (dict(masks=torch.zeros(2, 9, 8, dtype=torch.long)), ValueError, "masks"), (dict(masks=torch.zeros(2, 8, 8)), ValueError, "masks: expected integer"),
    (dict(extents=torch.tensor([[8, 8]])), ValueError, "extents"), (dict(extents=torch.tensor([[8, 9]] * 2)), ValueError, "extents"), (dict(extents=torch.tensor([[8, 0]] * 2)), ValueError, "extents"),
    (dict(extents=torch.tensor([[8., 8.]] * 2)), ValueError, "extents")])
def test_bad_input(change, error, name):
    with pytest.raises(error, match=name): random_view(**(dict(images=torch.zeros(2, 3, 8, 8, dtype=torch.uint8), config=ViewConfig(size=8)) | change))


def test_bad_geometry_form_stride_and_floats():
    images = scene(2)
    view = random_view(images, ViewConfig(size=32), seeded())
    with pytest.raises(ValueError, match="geometry"): random_view(images, ViewConfig(size=16), geometry=view)
    with pytest.raises(ValueError, match="geometry"): random_view(images[:1], ViewConfig(size=32), geometry=view)
    with pytest.raises(ValueError, match="form"): apply_view(images, view.parameters, ViewConfig(size=32), form="piece")
    with pytest.raises(ValueError, match="stride"): view.coordinates_at(0)
    with pytest.raises(ValueError, match="images: expected float"): distort_colour(images)
    with pytest.raises(ValueError, match="images: holds 1 NaN"): distort_colour(torch.tensor([1., float("nan"), 0.]).view(1, 3, 1, 1))
