"""What a widget may be given: every kind of picture, mask, palette and name; and what is refused, in which words."""
import base64
import gc
import io
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from pixcl_nb.images.data import load_data
from pixcl_nb.widgets import CopyPasteStudio, SeparationExplorer
from pixcl_nb.widgets.base import ALIVE, PixelWidget, as_class_names, as_image, as_mask, as_palette, as_uint8_image, named_entries, picture_uri, uri_picture


def noise(*shape, seed=0): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
def picture(height, width, seed=0): return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


PHOTO = picture(48, 64)
ROWS_LAST = PHOTO.permute(1, 2, 0).numpy()
PIL = Image.fromarray(ROWS_LAST)


# ---------------------------------------------------------------- pictures
@pytest.mark.parametrize("value", [PHOTO, PHOTO[None], PHOTO.long(), PHOTO.numpy(), ROWS_LAST, ROWS_LAST[None], ROWS_LAST.tolist(), PIL, PIL.convert("RGBA"), torch.from_numpy(ROWS_LAST.copy()),
                                   np.dstack([ROWS_LAST, np.full((48, 64), 255, np.uint8)]), torch.cat([PHOTO, torch.full((1, 48, 64), 255, dtype=torch.uint8)])])
def test_every_way_of_saying_the_same_picture_is_the_same_picture(value):
    assert torch.equal(as_image("image", value), PHOTO)


@pytest.mark.parametrize("value", [PHOTO[:1], PHOTO[0], PHOTO[0].numpy(), PHOTO[0].numpy()[..., None], Image.fromarray(PHOTO[0].numpy())])
def test_grey_has_three_equal_channels(value): assert torch.equal(as_image("image", value), PHOTO[:1].expand(3, -1, -1))


def test_floats_are_read_by_a_stated_rule():
    assert torch.equal(as_uint8_image("image", PHOTO / 255), PHOTO)
    mean, std = torch.tensor([.485, .456, .406])[:, None, None], torch.tensor([.229, .224, .225])[:, None, None]
    assert (as_uint8_image("image", (PHOTO / 255 - mean) / std).int() - PHOTO.int()).abs().max() <= 1
    assert as_image("image", np.zeros((4, 4, 3), np.float64)).is_floating_point()
    see_through = torch.cat([PHOTO / 255, torch.zeros(1, 48, 64)])
    assert (as_image("image", see_through) == 1).all()                        # transparent: white


@pytest.mark.parametrize("value, words", [(PHOTO.float(), "divide by 255"), (PHOTO.float().numpy(), "0…255"), (PHOTO.long() + 1, "0…255"), (PHOTO.long() - 300, "0…255"), (noise(3, 8, 8).mul(float("nan")), "NaN"),
                                          (torch.zeros(5, 8, 8), "shape"), (torch.zeros(2, 3, 8, 8), "batch of 2"), (torch.zeros(3, 0, 8), "shape"), ("photo.png", "str"), (None, "NoneType"),
                                          (Image.fromarray(np.zeros((4, 4), np.int32)), "mode 'I'"), (torch.zeros(7), "shape")])
def test_what_is_no_picture_is_refused_by_name(value, words):
    with pytest.raises((ValueError, TypeError), match=words) as raised: as_image("the_image", value)
    assert str(raised.value).startswith("the_image")


def test_a_picture_is_never_white_because_its_floats_run_to_255():
    for make in (lambda v: SeparationExplorer(v, noise(4, 6, 8), torch.ones(48, 64).bool().tril()), lambda v: CopyPasteStudio([v], size=32)):
        with pytest.raises(ValueError, match="divide by 255"): make(PHOTO.float())


def test_large_photographs_travel_at_the_size_they_are_shown():
    smooth = torch.nn.functional.interpolate(picture(12, 16)[None].float(), (1500, 2000), mode="bicubic")[0].clamp(0, 255).to(torch.uint8)
    uri = picture_uri("image", smooth)
    assert len(uri) < 500_000 and uri_picture(uri).shape == (960, 1280, 3)
    assert abs(uri_picture(uri).mean() - smooth.float().mean()) < 1
    widget = SeparationExplorer(smooth, noise(4, 15, 20), torch.ones(1500, 2000).bool().tril())
    assert widget.size == [1500, 2000] and len(widget.image) < 500_000        # pixels are still counted in the photograph's own
    figure = widget.picture()
    assert figure.axes[0].get_xlim() == (-.5, 1999.5) and figure.axes[0].images[0].get_extent() == [-.5, 1999.5, 1499.5, -.5]


@pytest.mark.parametrize("value", [PIL, ROWS_LAST, ROWS_LAST.tolist(), PIL.convert("RGBA"), PHOTO])
def test_both_widgets_take_every_kind(value):
    mask = torch.ones(48, 64).bool().tril()
    assert SeparationExplorer(value, noise(4, 6, 8), mask).image == SeparationExplorer(PHOTO, noise(4, 6, 8), mask).image
    assert CopyPasteStudio({"a": value}, size=32, stride=8).foregrounds == CopyPasteStudio({"a": PHOTO}, size=32, stride=8).foregrounds
    assert CopyPasteStudio([value, value], size=32, stride=8).foregrounds[1]["name"] == "image 1"


def test_a_batch_of_arrays_is_a_list_of_pictures():
    assert len(CopyPasteStudio(np.stack([ROWS_LAST] * 3), size=32, stride=8).foregrounds) == 3
    assert len(CopyPasteStudio(torch.stack([PHOTO] * 3), size=32, stride=8, limit=2).foregrounds) == 2


# ---------------------------------------------------------------- masks
def half(value, dtype=np.uint8):
    mask = np.zeros((48, 64), dtype)
    mask[:24] = value
    return mask


@pytest.mark.parametrize("mask", [half(1, bool), half(1), half(1.0, np.float32), half(1).tolist(), torch.from_numpy(half(1)), torch.from_numpy(half(1))[None], Image.fromarray(half(1)), Image.fromarray(half(255)).convert("1"), half(1, np.uint16)])
def test_every_way_of_saying_the_same_mask_is_the_same_mask(mask):
    widget = SeparationExplorer(PHOTO, noise(4, 6, 8), mask)
    assert list(widget.layers[0]["mask"]) == [1] * 24 + [0] * 24


@pytest.mark.parametrize("mask", [half(255), Image.fromarray(half(255)), torch.from_numpy(half(255)), half(255, np.int64).tolist()])
def test_a_mask_of_0_and_255_is_asked_about_and_can_be_told(mask):
    with pytest.raises(ValueError, match="255 means ignored.*foreground=255"): SeparationExplorer(PHOTO, noise(4, 6, 8), mask)
    assert list(SeparationExplorer(PHOTO, noise(4, 6, 8), mask, foreground=255).layers[0]["mask"]) == [1] * 24 + [0] * 24


def test_255_beside_0_and_1_is_ignored():
    mask = half(1)
    mask[:, 32:] = 255
    assert list(SeparationExplorer(PHOTO, noise(4, 6, 8), mask).layers[0]["mask"]) == ([1] * 4 + [255] * 4) * 3 + ([0] * 4 + [255] * 4) * 3


@pytest.mark.parametrize("value", [PIL, "mask.png", torch.zeros(2, 4, 4), None])
def test_what_is_no_mask_is_refused(value):
    with pytest.raises((ValueError, TypeError), match="mask"): as_mask("mask", value)


# ---------------------------------------------------------------- colours and names
RGB = ["#e69f00", "#000000", "#ffffff"]


@pytest.mark.parametrize("palette", [[[230, 159, 0], [0, 0, 0], [255, 255, 255]], np.array([[230, 159, 0], [0, 0, 0], [255, 255, 255]], np.uint8), torch.tensor([[230, 159, 0], [0, 0, 0], [255, 255, 255]]),
                                     [(.902, .6235, 0), (0., 0, 0), (1., 1, 1)], np.array([[.902, .6235, 0], [0, 0, 0], [1, 1, 1]]), RGB, ["#E69F00", "black", "w"], {2: "white", 0: "#e69f00", 1: [0, 0, 0]}])
def test_every_way_of_saying_the_same_colours(palette): assert as_palette("palette", palette) == RGB


@pytest.mark.parametrize("palette, words", [([[300, 0, 0]], "300"), ([[-1, 0, 0]], "-1"), ([[1.5, 0, 0]], "1.5"), ([[1, 0, 0], [0, 1, 0]], "1.0"), (["no colour"], "no colour"), ([[0, 0]], "three numbers"), ([["a", "b", "c"]], "palette")])
def test_what_is_no_colour_is_refused(palette, words):
    with pytest.raises(ValueError, match=words) as raised: as_palette("palette", palette)
    assert str(raised.value).startswith("palette")


@pytest.mark.parametrize("names", [["sky", "road"], ("sky", "road"), {0: "sky", 1: "road"}, {"0": "sky", "1": "road"}, {1: "road", 0: "sky"}])
def test_names_of_classes(names): assert as_class_names("class_names", names, 3) == ["sky", "road", "class 2"]


def test_names_that_cannot_be():
    for names, words in (({1: "a", "1": "b"}, "two keys"), ({"sky": 0}, "no class id"), ({-1: "x"}, "no class id"), ({1.5: "x"}, "no class id"), ("sky", "text")):
        with pytest.raises(ValueError, match=words): as_class_names("class_names", names, 2)
    assert as_class_names("class_names", None, 1) == ["class 0"] and as_class_names("class_names", {}, 1) == ["class 0"]


def test_keys_that_are_numbers_are_names():
    maps = {1: noise(4, 6, 8), 2: noise(4, 6, 8, seed=1)}
    widget = SeparationExplorer(PHOTO, maps, half(1), other=2, thresholds={"1": .2})
    assert [layer["name"] for layer in widget.layers] == ["1", "2"] and widget.other == "2" and widget.threshold == .2
    with pytest.raises(ValueError, match="two keys are called '1'"): SeparationExplorer(PHOTO, {1: maps[1], "1": maps[2]}, half(1))
    with pytest.raises(ValueError, match="empty"): named_entries("features", {})


# ---------------------------------------------------------------- arguments that are none
@pytest.mark.parametrize("make, close", [(lambda **k: SeparationExplorer(PHOTO, noise(4, 6, 8), half(1), **k), "thresholds"), (lambda **k: CopyPasteStudio([PHOTO], size=32, **k), "stride")])
def test_a_misspelt_argument_is_an_error_with_the_closest_name(make, close):
    with pytest.raises(TypeError, match=f"did you mean {close!r}"): make(**{close + "x": 8})


@pytest.mark.parametrize("settings", [dict(stride=0), dict(stride=64), dict(query=dict(area=2)), dict(query=dict(aera=.3)), dict(key=dict(x=-1)), dict(query=dict(background="nobody")), dict(foreground="nobody")])
def test_settings_of_the_studio_are_checked(settings):
    with pytest.raises(ValueError, match=next(iter(settings))): CopyPasteStudio([PHOTO, PHOTO], size=32, **{"stride": 8, **settings})


def test_settings_of_the_explorer_are_checked():
    for settings, words in ((dict(thresholds={"feature": .2}), "did you mean 'features'"), (dict(thresholds={"features": 7}), "thresholds"), (dict(other="b"), "other"), (dict(layer="b"), "layer")):
        with pytest.raises(ValueError, match=words): SeparationExplorer(PHOTO, noise(4, 6, 8), half(1), **settings)


# ---------------------------------------------------------------- memory
def test_a_name_given_to_another_widget_frees_the_first():
    gc.collect()
    before = len(ALIVE)
    widget = CopyPasteStudio([PHOTO, PHOTO], size=32, stride=8)
    references = [weakref.ref(widget)]
    for _ in range(5):
        widget = SeparationExplorer(PHOTO, noise(64, 24, 32), half(1))
        references.append(weakref.ref(widget))
    gc.collect()
    assert [reference() is not None for reference in references] == [False] * 5 + [True] and len(ALIVE) <= before + 1
    widget.close()
    last = weakref.ref(widget)
    del widget
    gc.collect()
    assert last() is None


def test_a_widget_is_still_found_by_those_who_ask_for_all():
    from ipywidgets.widgets.widget import _instances
    widget = SeparationExplorer(PHOTO, noise(4, 6, 8), half(1))
    found = _instances[widget.model_id]                             # whom a page asks that is opened again
    assert found.get_state("auroc") == {"auroc": widget.auroc} and isinstance(found, PixelWidget)
    identity = widget.model_id
    del widget, found
    gc.collect()
    assert identity not in _instances


def test_a_widget_in_a_box_stays():
    import ipywidgets
    box = ipywidgets.VBox([SeparationExplorer(PHOTO, noise(4, 6, 8), half(1))])
    gc.collect()
    assert box.children[0].auroc is not None
