"""EmbeddingExplorer: every point is the pixel it says it is, in Python, in the browser, and on the way between them."""
import numpy as np
import pytest
import torch

from pixcl_nb.widgets.embedding import (EmbeddingExplorer, aligned_layouts, atlas_uri, cell_colours, cell_majority, cell_of_pixels, cell_stride, choose_cells,
                                        cluster_rows, pca_layout, procrustes, umap_layout)

from browser import open_widget   # noqa: F401  a fixture

GENERATOR = torch.Generator().manual_seed(0)


def scene(count=4, size=(32, 48), grid=(8, 12), channels=6, classes=3):
    "Images whose left, middle and right third are three classes, with features that say so, plus noise."
    masks = torch.arange(size[1]).mul(classes).div(size[1], rounding_mode="floor").expand(count, *size).contiguous()
    images = torch.stack([masks * 80, 255 - masks * 80, masks * 0 + 40], 1).to(torch.uint8)
    means = 3 * torch.nn.functional.one_hot(torch.arange(classes), channels).float()
    cells = torch.arange(grid[1]).mul(classes).div(grid[1], rounding_mode="floor")
    features = means[cells].T[None, :, None].expand(count, channels, *grid) + .3 * torch.randn(count, channels, *grid, generator=GENERATOR)
    return images, features, masks


IMAGES, FEATURES, MASKS = scene()


def explorer(**keywords):
    return EmbeddingExplorer(IMAGES, keywords.pop("features", FEATURES), **{"masks": MASKS, "class_names": ["left", "middle", "right"], "layout": "pca", **keywords})


def opened(open_widget, widget, **settings):
    "The page, when its plot is drawn."
    page = open_widget(widget, **settings)
    page.until("document.querySelector('.pxw').dataset.ready === 'yes'")
    page.settle(3)
    return page


def selection(page):
    return page.js("() => [...new Int32Array(window.pixcl.model.get('selection').buffer.slice(0))]")


# ---------------------------------------------------------------- layouts
def test_pca_agrees_with_a_singular_value_decomposition():
    rows = torch.randn(200, 9, generator=GENERATOR, dtype=torch.double)
    ours, kept = pca_layout(rows, 3)
    left, values, _ = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    assert torch.allclose(ours.abs(), (left * values)[:, :3].abs(), atol=1e-9)
    assert abs(kept - float((values[:3] ** 2).sum() / (values ** 2).sum())) < 1e-12
    assert pca_layout(torch.ones(5, 1), 3)[0].shape == (5, 3)


def test_procrustes_undoes_any_rotation_and_mirror_and_keeps_distances():
    points = torch.randn(50, 3, generator=GENERATOR, dtype=torch.double)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=GENERATOR, dtype=torch.double))[0]
    for matrix in (turn, -turn):
        back = procrustes(points @ matrix + 5, points)
        assert torch.allclose(back, points - points.mean(0), atol=1e-9)
    other = torch.randn(50, 3, generator=GENERATOR, dtype=torch.double)
    assert torch.allclose(torch.cdist(procrustes(other, points), procrustes(other, points)), torch.cdist(other, other), atol=1e-6)
    with pytest.raises(ValueError, match="reference"): procrustes(points, points[:9])


def test_layouts_of_all_steps_are_aligned_and_fill_the_same_square():
    rows = torch.randn(100, 8, generator=GENERATOR) * torch.tensor([4., 3, 1, 1, 1, 1, 1, 1])
    layouts = aligned_layouts([rows, -rows, rows.flip(1)], 2)
    assert torch.allclose(layouts[0], layouts[1], atol=1e-6) and torch.allclose(layouts[0], layouts[2], atol=1e-6)
    assert torch.allclose(torch.quantile(layouts.abs().amax(2), .995, dim=1), torch.ones(3, dtype=torch.double))


@pytest.mark.slow
def test_umap_finds_the_islands_that_were_put_there_and_keeps_to_the_step_before():
    centres = 8 * torch.eye(5)
    rows = (centres[:, None] + torch.randn(5, 60, 5, generator=GENERATOR)).flatten(0, 1)
    first, second = aligned_layouts([rows, rows + .05 * torch.randn(rows.shape, generator=GENERATOR)], 2, "umap")
    labels = torch.arange(5).repeat_interleave(60)
    near = torch.cdist(first, first).fill_diagonal_(9).topk(5, largest=False).indices
    assert (labels[near] == labels[:, None]).double().mean() > .98
    centres = [layout.view(5, 60, 2).mean(1) for layout in (first, second)]
    assert torch.cdist(*centres).argmin(1).tolist() == [0, 1, 2, 3, 4]      # every island is where it was, nearer to itself than to another
    assert torch.equal(umap_layout(rows, seed=3), umap_layout(rows, seed=3))
    widget = explorer(layout="auto")
    assert widget.status.startswith("UMAP is") and widget.layout_shown == "pca"
    assert widget.wait(120).layout_shown == "umap" and widget.status == ""


def test_umap_that_fails_says_so(monkeypatch):
    import pixcl_nb.widgets.embedding as module
    def broken(*arguments, **keywords): raise RuntimeError("no luck")
    monkeypatch.setattr(module, "umap_layout", broken)
    widget = explorer(layout="auto")
    with pytest.raises(RuntimeError, match="no luck"): widget.wait(10)
    assert widget.status == "UMAP failed: no luck" and widget.layout_shown == "pca"


# ---------------------------------------------------------------- cells
@pytest.mark.parametrize("grid,size,stride", [((8, 12), (32, 48), (4, 4)), ((17, 16), (130, 128), (8, 8)), ((50, 50), (128, 128), (2.56, 2.56))])
def test_every_pixel_belongs_to_the_cell_that_covers_it(grid, size, stride):
    assert cell_stride(grid, size) == stride
    cells = cell_of_pixels(grid, size)
    for y, x in ((0, 0), (size[0] - 1, size[1] - 1), (size[0] // 2, size[1] // 3)):
        assert int(cells[y, x]) == int((y + .5) // stride[0]) * grid[1] + int((x + .5) // stride[1])


def test_a_cells_label_is_the_commonest_of_its_labelled_pixels():
    mask = torch.randint(0, 4, (2, 16, 16), generator=GENERATOR)
    mask[0, :4, :4] = 255; mask[1, 0, 0] = 255
    found = cell_majority("masks", mask, (4, 4), (16, 16))
    for b in range(2):
        for r in range(4):
            for c in range(4):
                block = mask[b, 4*r:4*r+4, 4*c:4*c+4].flatten()
                block = block[block != 255]
                assert int(found[b, 4*r + c]) == (int(torch.bincount(block).argmax()) if len(block) else 255)
    assert torch.equal(cell_majority("masks", found.view(2, 4, 4), (4, 4), (16, 16)), found)


def test_cell_colours_are_means():
    pictures = torch.randint(0, 255, (2, 8, 8, 3), generator=GENERATOR, dtype=torch.uint8)
    expected = pictures.permute(0, 3, 1, 2).float()
    expected = torch.nn.functional.avg_pool2d(expected, 4).flatten(2).transpose(1, 2)
    assert (cell_colours(pictures.numpy(), (2, 2)).float() - expected).abs().max() <= .5


def test_drawn_cells_are_different_and_the_same_for_one_seed():
    cells = choose_cells(1000, 50, 3)
    assert len(torch.unique(cells)) == 50 and torch.equal(cells, choose_cells(1000, 50, 3)) and not torch.equal(cells, choose_cells(1000, 50, 4))


def test_clusters_are_the_classes_where_features_say_so():
    rows = FEATURES.flatten(2).transpose(1, 2).flatten(0, 1)
    ids, labels = cluster_rows(rows, 3), cell_majority("masks", MASKS, (8, 12), (32, 48)).flatten()
    assert all(len(torch.unique(ids[labels == label])) == 1 for label in range(3)) and len(torch.unique(ids)) == 3
    assert len(torch.unique(cluster_rows(torch.ones(30, 4), 5))) == 1


# ---------------------------------------------------------------- Python's side of the widget
def test_points_stand_for_the_cells_they_name():
    widget = explorer(points=100)
    assert widget.count == 100
    widget.selected = [0, 7, 99]
    for (image, row, column), index in zip(widget.selected_cells, widget.selected):
        vector = torch.nn.functional.normalize(FEATURES[image, :, row, column], dim=0)
        assert torch.allclose(vector, widget.rows[-1][index], atol=1e-6)
    assert widget.selected_maps.sum() == 3 and all(widget.selected_maps[tuple(cell)] for cell in widget.selected_cells)


def test_selection_travels_both_ways_and_observers_hear_it():
    widget, heard = explorer(), []
    widget.observe(lambda change: heard.append(change["new"].tolist()), "selected")
    widget.set_state({"selection": memoryview(np.array([3, 5], np.int32).tobytes())})       # as the browser sends it
    assert widget.selected.tolist() == [3, 5] and heard == [[3, 5]]
    widget.selected = [9, 2, 2]
    assert np.frombuffer(widget.selection, np.int32).tolist() == [2, 9] and heard[-1] == [2, 9]
    widget.set_state({"hovered": 4, "colour_by": "image", "step": 0})
    assert widget.hovered == 4 and widget.colour_by == "image"


def test_colourings_hold_class_prediction_cluster_image_and_colour():
    half = MASKS.clone(); half[:, :16] = 255
    widget = explorer(masks=half, predictions=MASKS)
    assert [c["name"] for c in widget.colourings] == ["class", "prediction", "cluster", "image", "image colour", "PCA"]
    entry = widget.colourings[0]
    ids = np.frombuffer(widget.colour_data, np.uint16, widget.count, entry["offset"])
    assert entry["names"] == ["left", "middle", "right", "no label"] and (ids.reshape(4, 8, 12)[:, :4] == 3).all() and (ids.reshape(4, 8, 12)[:, 4:, 0] == 0).all()
    widget.colour_by = "image colour"
    assert widget.point_colours().reshape(4, 8, 12, 3)[0, 0, 0].tolist() == [0, 255, 40]


def test_a_map_for_each_training_step_keeps_the_same_points():
    widget = explorer(features={0: FEATURES, 10: -FEATURES, "end": FEATURES.flip(1)})
    assert widget.steps == [0, 10, "end"] and widget.step == 2
    packed = np.frombuffer(widget.pca, np.int16).reshape(3, widget.count, 2)
    assert np.abs(packed[0].astype(int) - packed[1]).max() <= 2         # negated features: the same layout


def test_from_encoder_takes_images_masks_and_predictions():
    class Data:
        class_names, num_classes = ["left", "middle", "right"], 3
        def __len__(self): return len(IMAGES)
        def batch(self, indices): return IMAGES[indices], MASKS[indices], None
    class Encoder(torch.nn.Module):
        channels, stride = 3, 4
        def forward(self, images): return torch.nn.functional.avg_pool2d(images, 4)
    widget = EmbeddingExplorer.from_encoder({0: Encoder(), 5: Encoder()}, Data(), count=3, predictor=lambda image: MASKS[0], layout="pca")
    assert widget.count == 3 * 96 and widget.steps == [0, 5] and widget.colour_by == "class" and "prediction" in [c["name"] for c in widget.colourings]


@pytest.mark.parametrize("keywords,words", [
    (dict(features=FEATURES[:3]), "features: has size 3 on axis 0"), (dict(features=FEATURES.double() * float("nan")), "features: holds"),
    (dict(features={1: FEATURES, 2: FEATURES[..., :6]}), "features"), (dict(features=FEATURES.long()), "float"), (dict(features={}), "empty dictionary"),
    (dict(features=torch.zeros(1, 1, 1, 1).expand(4, 3_000_000, 8, 12)), "GB"), (dict(masks=MASKS[:, :9]), "masks: has"), (dict(masks=MASKS[:2]), "2 masks for 4 images"),
    (dict(class_names=["one"]), "class_names: 1 names"), (dict(palette=[[0, 0, 0]]), "palette: 1 colours"), (dict(colour_by="clas"), "did you mean 'class'"), (dict(colour_by="prediction"), "colour_by"),
    (dict(layout="tsne"), "layout"), (dict(dims=4), "dims"), (dict(points=0), "points")])
def test_errors_name_the_argument(keywords, words):
    with pytest.raises(ValueError, match=words): explorer(**keywords)


def test_wrong_assignments_are_refused():
    widget = explorer()
    with pytest.raises(ValueError, match="selected: index 9999"): widget.selected = [9999]
    with pytest.raises(ValueError, match="did you mean 'image"): widget.colour_by = "imag"
    with pytest.raises(ValueError, match="components"): widget.components = [0, 1, 2]
    for trait, value in (("cut", 2), ("nearest", -1), ("votes", 0), ("step", 5)):
        with pytest.raises(ValueError, match=trait): setattr(widget, trait, value)
    with pytest.raises(TypeError, match="did you mean 'density'"): explorer(densety=True)
    with pytest.raises(ValueError, match="is empty"): widget.propagate_selection()


def test_static_picture_shows_points_and_lit_cells():
    widget = explorer()
    widget.selected = np.arange(96)
    left, right = widget.picture().axes
    assert len(left.collections) == 2 and len(left.collections[1].get_offsets()) == 96
    assert right.get_title() == "96 selected"
    assert right.images[0].get_array()[:32, :48].mean() > 2 * right.images[0].get_array()[:32, 52:100].mean()


# ---------------------------------------------------------------- what is taken
def test_lists_of_pictures_palettes_and_names_of_every_kind_are_taken():
    from PIL import Image
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in IMAGES]
    for images in (pictures, [np.asarray(picture) for picture in pictures], IMAGES.permute(0, 2, 3, 1).numpy(), IMAGES / 255):
        widget = EmbeddingExplorer(images, FEATURES, layout="pca", clusters=0)
        assert (widget.picture_data == IMAGES.permute(0, 2, 3, 1).numpy()).all()
    for palette in ([[1., 0, 0], [0, 1., 0], [0, 0, 1.]], ["#ff0000", "lime", "#0000ff"], np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]])):
        assert explorer(palette=palette).colouring("class")["palette"] == ["#ff0000", "#00ff00", "#0000ff"]
    assert explorer(class_names={0: "left", 2: "right"}).colouring("class")["names"] == ["left", "class 1", "right"]


@pytest.mark.parametrize("keywords, words", [(dict(palette=[[300, 0, 0]] * 3), "palette"), (dict(masks=MASKS.clamp(max=1) * 255), "255 means 'no label'"), (dict(features={1: FEATURES, "1": FEATURES}), "two keys are called '1'")])
def test_what_could_be_meant_two_ways_is_refused(keywords, words):
    with pytest.raises(ValueError, match=words): explorer(**keywords)


def test_floats_up_to_255_and_images_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="images.*0…255"): EmbeddingExplorer(IMAGES.float(), FEATURES, layout="pca")
    with pytest.raises(ValueError, match="sizes"): EmbeddingExplorer([IMAGES[0], IMAGES[1, :, :, :40]], FEATURES[:2], layout="pca")


def test_photographs_travel_at_the_size_they_are_shown():
    large = torch.nn.functional.interpolate(IMAGES.float(), (2000, 3000)).to(torch.uint8)
    widget = EmbeddingExplorer(large, FEATURES, layout="pca", clusters=0)
    assert len(widget.atlas) < 2e6 and widget.grid["tile"] == [427, 640] and widget.grid["width"] == 3000


def test_umap_of_constant_features_ends():
    import time
    started = time.time()
    widget = explorer(features=torch.ones_like(FEATURES), layout="umap")
    assert time.time() - started < 20 and np.isfinite(widget.positions()).all() and np.abs(widget.positions()).max() == 0


# ---------------------------------------------------------------- the full space, components, regions
def test_neighbours_are_those_of_the_full_space():
    strength = torch.logspace(0, -1.5, 200)[:, None, None]                                       # as real features: few axes hold most
    widget = explorer(features=torch.randn(4, 200, 8, 12, generator=GENERATOR) * strength)
    rows = widget.rows[-1].double()
    for point in (0, 57, 300):
        cosines = rows @ rows[point]
        found = widget.neighbours_of(point, 10)
        exact = cosines.masked_fill(torch.arange(len(rows)) == point, -2).topk(10).indices.tolist()
        assert len({i for i, _ in found} & set(exact)) >= 8 and point not in dict(found)           # 128 of 200 axes, int8
        assert max(abs(cosine - float(cosines[i])) for i, cosine in found) < .03
    assert widget.vector_channels == 128 and .95 < widget.vector_share[0] < 1
    where = torch.from_numpy(widget.positions().copy())
    near = torch.cdist(where, where).fill_diagonal_(9).topk(8, largest=False).indices
    assert all(set(widget.plane_neighbours_of(point)) == set(near[point].tolist()) for point in (3, 200))


def test_components_have_one_basis_for_all_images_and_signs():
    widget = explorer(colour_by="PCA")
    first = pca_layout(torch.nn.functional.normalize(widget.rows[-1].double(), dim=1), 1)[0][:, 0].numpy()
    red = widget.point_colours()[:, 0].astype(int)
    order = np.argsort(first)
    assert (np.diff(red[order]) >= 0).all() and red.min() == 0 and red.max() == 255
    widget.components = [-1, 2, 3]
    assert (widget.point_colours()[:, 0] == 255 - red).all()
    widget.cut = .25
    hidden = ~widget.shown_points()
    assert hidden.sum() == pytest.approx(.25 * widget.count, abs=12) and (255 - red)[hidden].max() < (255 - red)[~hidden].min()


def test_a_region_is_found_where_features_say_so():
    widget = explorer()
    widget.selected = [i for i in range(widget.count) if widget.chosen[i] // 96 == 1 and widget.chosen[i] % 12 < 4]
    maps, rows = widget.propagate_selection()
    assert not maps[1].any() and [row["image"] for row in rows] == [0, 2, 3] and all(row["iou"] > .95 for row in rows)
    assert (maps[0][:, :4]).float().mean() > .95 and not maps[0][:, 4:].any()
    plain = EmbeddingExplorer(IMAGES, FEATURES, layout="pca")
    plain.selected = [0]
    assert "iou" not in plain.propagate_selection()[1][0]


def test_clusters_are_named_by_their_class_or_shown_by_a_patch():
    widget = explorer(clusters=3)
    entry = widget.colouring("cluster")
    assert sorted(name.split(": ")[1] for name in entry["names"]) == ["left 100 %", "middle 100 %", "right 100 %"] and entry["named"]
    entry = EmbeddingExplorer(IMAGES, FEATURES, layout="pca", clusters=3).colouring("cluster")
    assert entry["names"] == ["cluster 0", "cluster 1", "cluster 2"] and not entry["named"]
    assert len({int(i) % 12 // 4 for i in entry["central"]}) == 3                              # one patch from each third


def test_the_selection_is_a_table():
    widget = explorer()
    widget.selected = [0, 100, 200]
    table = widget.selected_frame
    assert list(table.columns[:6]) == ["point", "image", "row", "column", "x", "y"] and table["class"].tolist() == [["left", "middle", "right"][i % 12 // 4] for i in (0, 100, 200)]
    assert table[["image", "row", "column"]].values.tolist() == widget.selected_cells.tolist() and table["x"].iloc[0] == 2


def test_names_of_steps_are_not_called_steps():
    assert ", step 5," in explorer(features={0: FEATURES, 5: FEATURES}).picture().axes[0].get_title()
    assert ", MoCo v2," in explorer(features={"random": FEATURES, "MoCo v2": FEATURES}).picture().axes[0].get_title()


def test_a_data_sets_colours_are_passed_on():
    from pixcl_nb.images.data import load_data
    from pixcl_nb.networks.encoders import create_encoder
    data = load_data("samples", split="test")
    entry = EmbeddingExplorer.from_encoder(create_encoder("pixcl_tiny"), data, count=2, layout="pca").colouring("class")
    assert [list(bytes.fromhex(colour[1:])) for colour in entry["palette"]][:data.num_classes] == data.palette.tolist()


# ---------------------------------------------------------------- in the browser
def around(page, points):
    "A lasso round some points: corners of their box as shares of the plot."
    where = np.array(page.js("(ids) => { const w = document.querySelector('.pxw').pxw; return ids.map((i) => w.at(i)); }", points))
    width, height = page.hook("w.size")
    low, high = where.min(0) - 6, where.max(0) + 6
    corners = [(low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1])]
    return [((x + 1) / (width + 2), (y + 1) / (height + 2)) for x, y in corners], low, high


def test_lasso_hover_legend_and_keys(open_widget):
    widget = explorer(renderer="webgl")
    page = opened(open_widget, widget)
    assert page.js("() => document.querySelector('.pxw').dataset.renderer") == "webgl"
    left = [i for i in range(widget.count) if widget.chosen[i] % 12 < 4]                   # all cells of the left third
    path, low, high = around(page, left)
    page.drag(".pxe-plot", path)
    picked = selection(page)
    where = np.array(page.js("(n) => { const w = document.querySelector('.pxw').pxw; return [...Array(n).keys()].map((i) => w.at(i)); }", widget.count))
    inside = np.flatnonzero(((where > low - 1) & (where < high + 1)).all(1)).tolist()
    assert set(left) <= set(picked) and set(picked) <= set(inside)
    widget.set_state({"selection": np.array(picked, np.int32).tobytes()})
    assert widget.selected_maps[:, :, :4].all()

    # the pictures: lit on the left, dark on the right
    shade = "(x) => { const c = document.querySelector('.pxe-pictures'), w = document.querySelector('.pxw').pxw, k = c.width / c.clientWidth, b = w.cellBox(x); const d = c.getContext('2d').getImageData((b[0] + b[2] / 2) * k, (b[1] + b[3] / 2) * k, 1, 1).data; return d[0] + d[1] + d[2]; }"
    dark = page.js(shade, 11)
    page.press(".pxe-plot", "Escape")
    assert selection(page) == [] and page.js(shade, 11) > 1.8 * dark

    # a pixel and its point
    x, y, w, h = page.hook("w.cellBox(100)")
    box = page.page.locator(".pxe-pictures").bounding_box()
    page.hover(".pxe-pictures", (x + w / 2) / box["width"], (y + h / 2) / box["height"])
    page.settle()
    assert widget.chosen[int(page.js("() => document.querySelector('.pxw').dataset.hovered"))] == 100
    assert page.text(".pxe-readout") == "image 1, row 0, column 4 · class middle"
    ink = page.js("() => { const w = document.querySelector('.pxw').pxw, c = document.querySelector('.pxe-over'), k = c.width / c.clientWidth, [x, y] = w.at(100); return c.getContext('2d').getImageData((x + 7) * k - 2, y * k - 2, 4, 4).data.filter((v, i) => i % 4 === 3 && v > 150).length; }")
    assert ink > 0                                                                         # the ring

    # the legend selects a class, by keyboard; a second press takes it back
    key = page.page.get_by_role("button", name="middle")
    key.press("Enter"); page.settle()
    assert [i % 12 // 4 for i in widget.chosen[selection(page)]] == [1] * 128
    page.page.get_by_role("button", name="right").click(modifiers=["Shift"]); page.settle()
    assert [i % 12 // 4 for i in sorted(widget.chosen[selection(page)], key=lambda i: i % 12)] == [1] * 128 + [2] * 128
    page.press(".pxe-plot", "Escape")
    key.press("Enter"); page.settle(); key.press("Enter"); page.settle()
    assert selection(page) == []

    # arrows and Enter on the pictures: a row of cells
    page.hover("h1", .5, .5)
    page.press(".pxe-pictures", "ArrowRight", "ArrowRight", "Enter", "ArrowRight", "Enter")
    first, second = widget.chosen[selection(page)]
    assert second == first + 1
    page.press(".pxe-plot", "ArrowLeft", "ArrowUp", "+", "+")
    assert page.hook("w.view.zoom") > 1.5
    page.press(".pxe-plot", "0")
    assert page.hook("w.view.zoom") == 1


def test_a_lasso_on_the_pictures_takes_their_pixels(open_widget):
    widget = explorer()
    page = opened(open_widget, widget, scheme="dark")
    box = page.page.locator(".pxe-pictures").bounding_box()
    corners = [page.hook(f"w.cellBox({cell})") for cell in (13, 16, 52, 49)]               # rows 1 … 4, columns 1 … 4 of image 0
    path = [((x + w / 2 + dx * w * .3) / box["width"], (y + h / 2 + dy * h * .3) / box["height"]) for (x, y, w, h), (dx, dy) in zip(corners, [(-1, -1), (1, -1), (1, 1), (-1, 1)])]
    page.drag(".pxe-pictures", path, steps=12)
    assert sorted(widget.chosen[selection(page)].tolist()) == [r * 12 + c for r in range(1, 5) for c in range(1, 5)]
    background = page.js("() => getComputedStyle(document.querySelector('.pxw')).backgroundColor")
    assert background == "rgb(20, 23, 27)"


def lit_share(page, path):
    "Share of the plot's pixels that differ from its ground."
    from PIL import Image
    page.page.locator(".pxe-plot").screenshot(path=str(path))
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)[3:-3, 3:-3]
    return (np.abs(pixels - pixels[0, 0]).sum(2) > 60).mean()


def test_without_webgl_the_canvas_draws_the_same_picture(open_widget, tmp_path):
    shares = []
    for renderer in ("webgl", "canvas"):
        page = opened(open_widget, explorer(renderer=renderer), width=520)
        assert page.js("() => document.querySelector('.pxw').dataset.renderer") == renderer and page.overflow() == 0
        shares.append(lit_share(page, tmp_path / "plot.png"))
        page.drag(".pxe-plot", around(page, [0, 12, 24])[0])
        assert {0, 12, 24} <= set(selection(page))
    assert min(shares) > .01 and abs(shares[0] - shares[1]) < .25 * shares[0]


def test_a_lost_context_changes_over_to_the_canvas(open_widget, tmp_path):
    page = opened(open_widget, explorer(renderer="webgl"))
    page.hook("w.renderer.end()")
    page.until("document.querySelector('.pxw').dataset.renderer === 'canvas'")
    page.settle(4)
    assert lit_share(page, tmp_path / "plot.png") > .01


def test_steps_move_the_points_and_the_colour_can_be_changed(open_widget):
    features = {0: FEATURES, 5: FEATURES + 2 * torch.randn(FEATURES.shape, generator=GENERATOR)}
    widget = explorer(features=features, colour_by="image colour")
    page = opened(open_widget, widget)
    packed = np.frombuffer(widget.pca, np.int16).reshape(2, -1, 2) * (4 / 32767)
    def drawn(): return np.array(page.js("() => { const w = document.querySelector('.pxw').pxw; return [...Array(50).keys()].map((i) => w.at(i)); }"))
    def expected(step):
        width, height = page.hook("w.size")
        side = min(width, height) * .94
        return np.stack([(width + packed[step, :50, 0] * side) / 2, (height - packed[step, :50, 1] * side) / 2], 1)
    assert np.abs(drawn() - expected(1)).max() < .1
    page.slide("Step", 0)
    page.until("document.querySelector('.pxw').pxw.view.moved === 1")
    assert np.abs(drawn() - expected(0)).max() < .1 and page.state("step") == 0
    assert page.hook("[...w.colours.slice(0, 3)]") == [0, 255, 40]                         # the image's own colour
    page.field("Colour").select_option("class")
    page.settle()
    assert page.state("colour_by") == "class" and page.page.locator(".pxe-key").count() == 3
    page.set("layout_shown", "umap")                                                        # not there yet: nothing changes
    assert page.js("() => document.querySelector('.pxw').dataset.layout") == "pca"


def test_touch_taps_a_point_and_three_axes_turn(open_widget):
    widget = explorer(dims=3)
    page = opened(open_widget, widget, touch=True, width=480)
    x, y = page.hook("w.at(40)")
    width, height = page.hook("w.size")
    page.tap(".pxe-plot", (x + 1) / (width + 2), (y + 1) / (height + 2))
    assert len(selection(page)) == 1
    page.page.get_by_role("button", name="Turn").click()
    before = page.hook("w.view.yaw")
    page.drag(".pxe-plot", [(.4, .5), (.7, .5)])
    assert page.hook("w.view.yaw") > before + .3 and len(selection(page)) == 1


# ---------------------------------------------------------------- asking, painting, spreading in the browser
def test_a_click_asks_the_full_space_and_the_plane(open_widget):
    widget = explorer()
    page = opened(open_widget, widget)
    x, y = page.hook("w.at(150)")
    width, height = page.hook("w.size")
    page.click(".pxe-plot", (x + 1) / (width + 2), (y + 1) / (height + 2))
    page.settle(3)
    asked = page.state("asked")
    assert asked in [150, *widget.plane_neighbours_of(150, 4)]                                # points may lie over each other
    expected = widget.neighbours_of(asked)
    assert [row[0] for row in page.state("neighbours")] == [i for i, _ in expected]
    assert np.allclose([row[1] for row in page.state("neighbours")], [cosine for _, cosine in expected], atol=1e-9)
    assert page.state("plane_neighbours") == widget.plane_neighbours_of(asked)
    same = sum(widget.ids_of("class")[i] == widget.ids_of("class")[asked] for i, _ in expected)
    assert f"{same} of 8 of the same class" in page.text(".pxw-strip") and page.page.locator(".pxw-patch").count() == 16
    page.page.locator(".pxw-patch").first.click()                                             # a patch can be asked in turn
    page.settle(3)
    assert page.state("asked") == expected[0][0]
    page.press(".pxe-plot", "Escape")
    assert page.state("asked") == -1 and page.page.locator(".pxw-patch:visible").count() == 0


def test_components_are_those_of_python_and_painted_over_the_cells(open_widget):
    widget = explorer(features={0: FEATURES.flip(0), 9: FEATURES})
    page = opened(open_widget, widget)
    page.field("Colour").select_option("PCA")
    page.field("Green").select_option("-3")
    page.slide("Hide", .4)
    page.field("Paint cells").check()
    page.settle(4)
    for step in (1, 0):
        page.slide("Step", step)
        page.settle(4)
        widget.set_state({"colour_by": "PCA", "components": page.state("components"), "cut": page.state("cut"), "step": step})
        assert widget.components == [1, -3, 3] and widget.cut == .4
        assert (np.array(page.hook("[...w.colours]")).reshape(-1, 4)[:, :3] == widget.point_colours()).all()
        assert (np.array(page.hook("[...w.visible]")) == widget.shown_points()).all()
    assert "threshold" in page.text()
    shown, hidden = (int(np.flatnonzero(widget.shown_points() == value)[0]) for value in (True, False))
    ink = "(i) => { const c = document.querySelector('.pxe-pictures'), w = document.querySelector('.pxw').pxw, k = c.width / c.clientWidth, b = w.cellBox(w.cells[i]); return [...c.getContext('2d').getImageData((b[0] + b[2] / 2) * k, (b[1] + b[3] / 2) * k, 1, 1).data].slice(0, 3); }"
    assert np.abs(np.array(page.js(ink, shown)) - widget.point_colours()[shown]).max() < 60      # 85 % of it
    assert sum(page.js(ink, hidden)) < .5 * sum(IMAGES[0, :, 0, 0].tolist()) + 150               # dark


def test_a_region_is_found_elsewhere_as_in_python(open_widget):
    widget = explorer(features=FEATURES + 2 * torch.randn(FEATURES.shape, generator=GENERATOR))
    page = opened(open_widget, widget)
    page.field("Find elsewhere").check()
    region = [i for i in range(widget.count) if widget.chosen[i] // 96 == 2 and widget.chosen[i] % 12 < 4]
    page.js("(l) => window.pixcl.model.set('selection', new DataView(Int32Array.from(l).buffer))", region)
    page.until("pixcl.model.get('propagated').length === 3")
    widget.selected = region
    maps, rows = widget.propagate_selection()
    assert page.state("propagated") == [{key: pytest.approx(value) for key, value in row.items()} for row in rows]
    assert (np.array(page.hook("[...w.found]")) == maps.flatten().numpy()[widget.chosen]).all()
    total = {key: sum(row[key] for row in rows) for key in ("found", "truth", "both")}
    assert f"IoU {total['both'] / (total['found'] + total['truth'] - total['both']):.2f} over 3 images" in page.text(".pxe-verdict")
    page.field("Find elsewhere").uncheck()
    page.until("pixcl.model.get('propagated').length === 0")


def test_a_rectangle_takes_what_lies_in_it(open_widget):
    widget = explorer()
    page = opened(open_widget, widget)
    page.page.get_by_role("button", name="Rectangle").click()
    page.drag(".pxe-plot", [(.2, .1), (.7, .85)])
    width, height = page.hook("w.size")
    where = np.array(page.js("(n) => { const w = document.querySelector('.pxw').pxw; return [...Array(n).keys()].map((i) => w.at(i)); }", widget.count))
    low, high = np.array([.2, .1]) * [width, height], np.array([.7, .85]) * [width, height]
    surely = ((where > low + 2) & (where < high - 2)).all(1)
    perhaps = ((where > low - 2) & (where < high + 2)).all(1)
    picked = np.isin(np.arange(widget.count), selection(page))
    assert picked.any() and not picked.all() and picked[surely].all() and not picked[~perhaps].any()
    page.press(".pxe-plot", "Escape", "l")
    assert page.js("() => document.querySelector('.pxw').dataset.tool") == "lasso"


def test_density_lines_hold_the_bulk_of_each_class_and_names_stand_there(open_widget):
    widget = explorer()
    page = opened(open_widget, widget)
    page.field("Density").check()
    groups = page.hook("w.groups.map(g => ({ id: g.id, line: g.lines[0], peak: g.peak }))")
    assert sorted(group["id"] for group in groups) == [0, 1, 2]
    positions, ids = widget.positions(), widget.ids_of("class")
    for group in groups:
        line, own = np.array(group["line"]).reshape(-1, 2), positions[ids == group["id"]]
        assert len(line) > 8 and (np.abs(own.mean(0) - group["peak"]) < .35).all()
        inside = ((own > line.min(0)) & (own < line.max(0))).all(1).mean()
        assert .4 < inside < 1
    ink = "() => { const c = document.querySelector('.pxe-groups'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0; for (let i = 3; i < d.length; i += 4) if (d[i] > 100) n++; return n; }"
    with_both = page.js(ink)
    page.field("Density").uncheck(), page.settle(3)
    names_only = page.js(ink)
    page.field("Names").uncheck(), page.settle(3)
    assert with_both > names_only > page.js(ink) == 0


def test_patches_stand_for_points_when_zoomed_in(open_widget):
    page = opened(open_widget, explorer())
    assert page.hook("w.stats.patches") is None                                               # from afar: points
    page.press(".pxe-plot", "0")
    x, y = page.hook("w.at(40)")
    width, height = page.hook("w.size")
    page.hover(".pxe-plot", (x + 1) / (width + 2), (y + 1) / (height + 2))
    page.page.mouse.wheel(0, -900)
    page.until("document.querySelector('.pxw').pxw.view.zoom > 3 && document.querySelector('.pxw').pxw.stats.patches > 3")
    page.field("Patches").uncheck()
    page.settle(3)
    page.js("() => { document.querySelector('.pxw').pxw.stats.patches = -1; document.querySelector('.pxw').pxw.paint(); }")
    assert page.hook("w.stats.patches") == -1


def test_what_is_seen_can_be_saved_and_fill_the_screen(open_widget, tmp_path):
    from PIL import Image
    for renderer in ("canvas", "webgl"):
        page = opened(open_widget, explorer(renderer=renderer))
        with page.page.expect_download() as download: page.page.get_by_role("button", name="PNG").click()
        path = tmp_path / f"{renderer}.png"
        download.value.save_as(path)
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
        width, height = page.hook("w.size")
        assert pixels.shape[0] >= height - 1 and pixels.shape[1] > width + 100
        assert (np.abs(pixels[:, :int(width)] - pixels[4, 4]).sum(2) > 60).mean() > .005 and pixels[:, int(width) + 20:].std() > 20
        page.page.get_by_role("button", name="Full screen").click()
        page.until("document.fullscreenElement?.classList.contains('pxw')")
        page.page.get_by_role("button", name="Full screen").click()
        page.until("!document.fullscreenElement")


def test_points_on_the_canvas_are_round(open_widget):
    widget = EmbeddingExplorer(IMAGES[:1], FEATURES[:1], layout="pca", clusters=0, renderer="canvas")
    page = opened(open_widget, widget)
    page.field("Names").uncheck(), page.settle(3)
    lit = page.js("""() => { const c = document.querySelector('.pxe-points'), w = document.querySelector('.pxw').pxw, g = c.getContext('2d'), k = c.width / c.clientWidth, ground = [...g.getImageData(1, 1, 1, 1).data].slice(0, 3);
        const xs = [...Array(w.cells.length).keys()].map((i) => w.at(i)), alone = xs.findIndex(([x, y], i) => xs.every(([u, v], j) => i === j || Math.hypot(x - u, y - v) > 14));
        const [x, y] = xs[alone], r = 8, d = g.getImageData(Math.round(x * k) - r, Math.round(y * k) - r, 2 * r + 1, 2 * r + 1).data;
        return Array.from({ length: (2 * r + 1) ** 2 }, (_, i) => Math.abs(d[4 * i] - ground[0]) + Math.abs(d[4 * i + 1] - ground[1]) + Math.abs(d[4 * i + 2] - ground[2])); }""")
    ink = np.array(lit).reshape(17, 17).astype(float)
    ink /= ink.max()
    y, x = np.mgrid[:17, :17]
    cy, cx = (ink * y).sum() / ink.sum(), (ink * x).sum() / ink.sum()
    straight, slanted = [], []
    for angle in np.arange(0, 360, 45):
        steps = [ink[int(round(cy + t * np.sin(np.radians(angle)))), int(round(cx + t * np.cos(np.radians(angle))))] for t in np.linspace(0, 6, 25)]
        (slanted if angle % 90 else straight).append(np.sum(steps) * .25)
    assert abs(np.mean(straight) - np.mean(slanted)) < .3 * np.mean(straight), "a plus sign, not a disc"


def test_links_move_the_embedding(open_widget):
    widget = explorer(features={0: FEATURES, 5: FEATURES.flip(1)}, name="cloud", text="[the beginning](step=0), [by image](colour_by=image), [this one](asked=7)")
    page = opened(open_widget, widget)
    for label, key, value in (("the beginning", "step", 0), ("by image", "colour_by", "image"), ("this one", "asked", 7)):
        page.page.get_by_role("button", name=label).click()
        page.settle(3)
        assert page.state(key) == value
    assert page.page.locator(".pxw-patch").count() == 16 and page.js("() => document.querySelector('.pxw').dataset.step") == "0"
    assert widget.link("x", step=1, components=[1, 2, -3]) == "[x](#pixcl:cloud?step=1&components=1,2,-3)"


# ---------------------------------------------------------------- every screen
@pytest.mark.parametrize("css", ["", "transform: scale(1.5); transform-origin: 0 0", "zoom: 1.5"])
def test_the_point_under_the_pointer_is_hit_in_an_enlarged_slide(open_widget, css):
    page = opened(open_widget, explorer(), width=1500)
    page.style(f"main {{ width: 900px; margin: 0; {css} }}")
    page.page.wait_for_timeout(150)
    x, y = page.hook("w.at(40)")
    width, height = page.hook("w.size")
    page.hover(".pxe-plot", (x + 1) / (width + 2), (y + 1) / (height + 2))
    page.settle(2)
    hit = int(page.js("() => document.querySelector('.pxw').dataset.hovered"))
    where = page.hook(f"w.at({hit})") if hit >= 0 else [-99, -99]
    assert np.hypot(where[0] - x, where[1] - y) < 3
    cell = page.hook("w.cellBox(100)")
    sizes = page.js("() => { const c = document.querySelector('.pxe-pictures'); return [c.clientWidth, c.clientHeight]; }")
    page.hover(".pxe-pictures", (cell[0] + cell[2] / 2) / sizes[0], (cell[1] + cell[3] / 2) / sizes[1])
    page.settle(2)
    assert page.hook("w.cells[document.querySelector('.pxw').dataset.hovered]") == 100


@pytest.mark.parametrize("box", [".pxe-plot", ".pxe-pictures"])
def test_a_finger_scrolls_past_and_draws_when_a_tool_is_pressed(open_widget, box):
    page = opened(open_widget, explorer(), phone=True, width=390, height=500)
    page.js("() => document.querySelector('.pxw').style.marginBottom = '500px'")
    page.js("selector => document.querySelector(selector).scrollIntoView({ block: 'center' })", box)
    before = page.js("() => scrollY")
    page.swipe(box, dy=-150)
    assert page.js("() => scrollY") > before + 40 and selection(page) == []
    page.page.get_by_role("button", name="Rectangle").tap()
    page.settle(2)
    page.js("selector => document.querySelector(selector).scrollIntoView({ block: 'center' })", box)
    page.settle(2)
    before = page.js("() => scrollY")
    page.swipe(box, dx=150, dy=-150, start=(.3, .8))
    assert abs(page.js("() => scrollY") - before) < 3 and len(selection(page)) > 0
    page.page.get_by_role("button", name="Rectangle").tap()
    assert page.js("() => document.querySelector('.pxw').dataset.finger") == "no"


def test_the_legend_is_whole_on_a_phone_and_paper_is_light(open_widget):
    page = opened(open_widget, explorer(), phone=True, width=390, height=800, scheme="dark")
    clipped = page.js("() => { const l = document.querySelector('.pxe-legend').getBoundingClientRect(); return [...document.querySelectorAll('.pxe-key')].filter((k) => k.getBoundingClientRect().bottom > l.bottom + 1).length; }")
    assert clipped == 0 and page.overflow() == 0
    page.page.emulate_media(media="print")
    page.settle(6)
    assert page.js("() => document.querySelector('.pxw').dataset.theme") == "light" and not page.page.locator(".pxw-controls").first.is_visible()


def test_a_denser_screen_gets_more_pixels(open_widget):
    page = opened(open_widget, explorer(renderer="canvas"))
    ratio = "() => [...document.querySelectorAll('.pxe-points, .pxe-over, .pxe-pictures')].map((c) => c.width / c.clientWidth)"
    assert page.js(ratio) == pytest.approx([1, 1, 1], abs=.02)
    page.density(2)
    page.settle(4)
    assert page.js(ratio) == pytest.approx([2, 2, 2], abs=.03)
