"""What an assignment says under its figures is true of the model solution."""
import sys
from pathlib import Path

import matplotlib
import pytest
import torch

sys.path[:0] = [str(Path(__file__).parent)]
from papers import MASTERS
from pixcl_nb.course.checks import cost
from pixcl_nb.course.packs import kind_of

matplotlib.use("agg")


def shown(number, start):
    "The names of an assignment after its figure cell, run with the model solution and without its tests."
    name, = [name for name in MASTERS if name.startswith(f"{number}_")]
    names = {}
    for cell in MASTERS[name]["cells"]:
        if cell["cell_type"] != "code" or kind_of(cell) == "tests": continue
        source = "\n".join(line for line in "".join(cell["source"]).splitlines() if not line.startswith("%"))
        if source.startswith(start):
            exec(source, names)
            return names
        if "close_modules(" not in source: exec(source, names)
        else: exec(source.split("close_modules(")[0] + source.split("close_modules(")[1].partition(")\n")[2], names)
    raise AssertionError(f"{name} has no cell that begins with {start!r}")


def test_1_the_positive_is_nearest():
    arrows = {"plus": (.6, .8), "up": (0, 1), "left": (-1, 0)}
    degrees = {name: round(float(torch.rad2deg(torch.acos(torch.tensor(float(x)))))) for name, (x, _) in arrows.items()}
    assert degrees == {"plus": 53, "up": 90, "left": 180}
    turned = torch.tensor([.9, .435889894])                                   # the query, turned towards the positive
    assert turned @ torch.tensor([0., 1.]) > 0 and turned @ torch.tensor([-1., 0.]) > -1


def test_2_blocks_cover_the_middle_and_position_tells():
    names = shown(2, "pictures = torch.stack")
    masks = names["masks"]
    assert masks[:, 48, 64].all() and len(set(masks.flatten(1).sum(1).tolist())) == 4
    names = shown(2, "released = [")
    share = names["released"][0].float().mean(0)
    corners = torch.stack([share[0, 0], share[0, -1], share[-1, 0], share[-1, -1]])
    assert share[2:4, 2:4].min() > .95 and corners.max() < .4
    assert names["position_auroc"](*names["released"]) > .8


def test_3_lines_rise_and_cross():
    names = shown(3, "photo = load_photos()")
    match, (x, y) = names["match"], names["points"].T
    drawn = torch.tensor([i for i in range(0, 64, 3) if match[i] >= 0])
    assert len(drawn) > 10 and (y[match[drawn]] < y[drawn]).all()
    for row in range(8):
        cells = torch.tensor([i for i in range(8 * row, 8 * row + 8) if match[i] >= 0])
        if len(cells) > 1: assert (x[match[cells]].diff() <= 0).all()


def test_4_the_table_grows_with_the_square():
    names = shown(4, "counts = [100")
    largest = lambda function, n: cost(function, *names["pixels"](n, 4, seed=0), .2)["largest"]
    stream = lambda *values: names["contrast_stream"](*values, 255, 32)
    ratio = {name: largest(function, 1600) / largest(function, 100) for name, function in (("table", names["contrast_table"]), ("stream", stream))}
    assert 250 < ratio["table"] < 260 and 12 < ratio["stream"] < 20


def test_5_clusters_follow_the_paint():
    names = shown(5, 'data = load_data("samples")')
    clusters, classes = names["clusters"].flatten(), names["classes"].flatten()
    purest = [classes[clusters == label].bincount().max() / (clusters == label).sum() for label in clusters.unique()]
    assert sum(share > .5 for share in purest) < len(purest) / 2
    usual = [{int(one[truth == label].mode().values) for one, truth in zip(names["clusters"], names["classes"]) if (truth == label).sum() > 30} for label in range(11)]
    assert sum(len(labels) > 2 for labels in usual) > 5


def test_8_the_foreground_is_pulled():
    names = shown(8, "import matplotlib.pyplot as plt\nq, k, m")
    size, inside = names["size"], names["m"][0]
    assert 2 < size[inside].mean() / size[~inside].mean() < 4 and size[~inside].min() > 0


def test_9_positives_and_negatives_decide():
    "What stands under the dots."
    names = shown(9, "import matplotlib.pyplot as plt\nshares")
    image, place = ({kind: [value[panel] for value in values] for kind, values in names["shares"].items()} for panel in (0, 1))
    mean = lambda values: sum(values) / len(values)
    assert max(image, key=lambda kind: mean(image[kind])) == "global" and max(place, key=lambda kind: mean(place[kind])) == "inside"
    assert abs(mean(place["global"]) - mean(place["random"])) < .05
    assert mean(image["inside"]) < .12 and mean(place["inside"]) > .8
    assert mean(image["geometric"]) > 3 * mean(image["inside"]) and mean(place["geometric"]) > .5
    assert mean(place["matched"]) < mean(place["random"]) - .05
