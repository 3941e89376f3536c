"""What CONTRIBUTING.md calls easy to add is added here as a newcomer would, and each addition is seen at work: a data set, an augmentation, a loss, a
method, a protocol, a widget."""
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image
from torch.nn.functional import normalize

from pixcl_nb import TrainConfig, create_encoder, create_method, evaluate, load_data, pretrain, random_view
from pixcl_nb.cli import main
from pixcl_nb.evaluation.protocols import PROTOCOLS
from pixcl_nb.images.data import READERS, SegmentationData, id_lookup
from pixcl_nb.images.inspection import inspect_data
from pixcl_nb.images.views import AUGMENTATIONS, ViewConfig, distort_colour
from pixcl_nb.losses.collapse import embedding_spread
from pixcl_nb.methods.contract import Method, make_encoder
from pixcl_nb.networks.encoding import encode
from pixcl_nb.plots import new_figure
from pixcl_nb.widgets.base import PixelWidget

ROOT = Path(__file__).parent.parent
ADDITIONS = ("a data set", "an augmentation", "a loss", "a method", "a protocol of evaluation", "a widget")
SHORT = TrainConfig(steps=3, batch_size=8, lr=.05, warmup_steps=0, device="cpu", progress=False)
generator = lambda seed=0: torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("what", ADDITIONS)
def test_contributing_names_the_file_to_open(what):
    row, = [line for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if line.startswith(f"| {what} |")]
    first = re.search(r"\]\((nbs/[^)]+\.ipynb)\)", row)
    assert first and (ROOT / first[1]).is_file(), row


# ---------------------------------------------------------------------------------------------- a data set

def read_pairs(root, split, size):
    "A layout of its own: NAME.png beside NAME_mask.png, in a folder for each split."
    masks = sorted((Path(root) / split).glob("*_mask.png"))
    names = [mask.name.removesuffix("_mask.png") for mask in masks]
    images = [mask.with_name(f"{name}.png") for mask, name in zip(masks, names)]
    palette = np.array([[30, 60, 200], [230, 160, 0]], np.uint8)
    return SegmentationData(images, masks, names, ["left", "right"], palette, id_lookup(2), size, f"pairs {split}")


@pytest.fixture
def pairs(tmp_path, monkeypatch):
    "Twelve scenes a split: the left half dark and of class 0, the right half bright and of class 1."
    for split, seed in (("train", 0), ("val", 1)):
        (tmp_path / split).mkdir()
        for index in range(12):
            mask = np.zeros((32, 32), np.uint8)
            mask[:, 10 + index:] = 1
            noise = np.random.default_rng([seed, index]).integers(-30, 30, (32, 32, 3))
            picture = (np.where(mask, 200, 60)[..., None] + noise).astype(np.uint8)
            Image.fromarray(picture).save(tmp_path / split / f"{index:02}.png")
            Image.fromarray(mask).save(tmp_path / split / f"{index:02}_mask.png")
    monkeypatch.setitem(READERS, "pairs", read_pairs)
    return tmp_path


def test_a_data_set_is_a_reader(pairs, capsys):
    data = load_data("pairs", pairs, size=(24, 24))
    image, mask = data[3]
    assert len(data) == 12 and image.shape == (3, 24, 24) and image.dtype == torch.uint8 and data.class_names == ["left", "right"]
    assert image[:, mask == 0].float().mean() < 100 < image[:, mask == 1].float().mean()
    assert not inspect_data("pairs", pairs).faults                              # the inspection reads it by the same reader
    assert len(pretrain(create_method("moco", queue_size=8, view=ViewConfig(size=16)), data, SHORT)) == 3
    assert main(["data", "--data", "pairs", "--root", str(pairs)]) == 0         # and so does the command line
    assert "left" in capsys.readouterr().out
    (pairs / "train" / "03.png").unlink()
    assert inspect_data("pairs", pairs).faults


# ---------------------------------------------------------------------------------------------- an augmentation

def posterize(images, strength):
    "From 2 to 8 levels a channel, the fewer the stronger."
    step = 256 / (2 + (6 * (1 - strength)).round())[:, None, None, None]
    return (images / step).floor() * step


@pytest.fixture
def posterized(monkeypatch): monkeypatch.setitem(AUGMENTATIONS, "posterize", posterize)


def test_an_augmentation_is_a_function_and_a_name_in_the_view_configuration(posterized):
    ramp = torch.arange(256, dtype=torch.uint8).expand(6, 3, 32, 256).contiguous()
    plain = dict(size=(32, 256), scale=(1., 1.), ratio=(8., 8.), flip=0., jitter=0., grayscale=0., blur=0., mean=(0.,) * 3, std=(1.,) * 3)
    views = lambda share: random_view(ramp, ViewConfig(**plain, extra=(("posterize", share),)), generator()).image
    levels = lambda images: [len((255 * image).round().unique()) for image in images]
    assert all(2 <= count <= 9 for count in levels(views(1.)))
    assert levels(views(0.)) == [256] * 6 and torch.equal(views(0.), random_view(ramp, ViewConfig(**plain), generator()).image)
    some = levels(views(.5))
    assert 0 < sum(count < 10 for count in some) < 6                            # some images, the generator says which
    assert torch.equal(views(.5), views(.5))
    assert levels(distort_colour(views(0.), ViewConfig(**plain, extra=(("posterize", 1.),)), generator()))[0] < 10


def test_every_method_trains_with_it_and_a_run_file_names_it(posterized, tmp_path):
    words = ["pretrain", "moco", "--steps", "2", "--batch-size", "4", "--device", "cpu", "--no-progress", "--out", str(tmp_path / "run"),
             "--set", "view.size=32", "--set", "queue_size=8", "--set", "view.extra=[[posterize, .5]]"]
    assert main(words) == 0
    assert "posterize" in (tmp_path / "run" / "run.yaml").read_text()
    assert main(["rerun", str(tmp_path / "run")]) == 0                          # the same bits again
    with pytest.raises(ValueError, match="did you mean 'posterize'"): ViewConfig(extra=(("posterise", .5),))
    with pytest.raises(ValueError, match="extra"): ViewConfig(extra=(("posterize", 1.5),))


# ---------------------------------------------------------------------------------------------- a loss, and a method that uses it

def pull_together(query, key):
    "A loss: one minus the cosine of cells at the same place, mean over cells; maps (B, D, h, w) → scalar."
    if query.shape != key.shape: raise ValueError(f"key: has shape {tuple(key.shape)}, the query {tuple(query.shape)}")
    return 1 - (normalize(query, dim=1) * normalize(key, dim=1)).sum(1).mean()


@dataclass
class SamePlaceConfig:
    view: ViewConfig = field(default_factory=lambda: ViewConfig(size=32))
    weight: float = 1.            # of the loss


class SamePlace(Method):
    "Two colourings of one crop: a cell should look the same in both. Without negatives, so it is for a test only."
    Config = SamePlaceConfig

    def __init__(self, encoder="pixcl_tiny", **config):
        super().__init__(**config)
        self.branch = torch.nn.ModuleDict({"encoder": make_encoder(encoder)})

    @property
    def encoder(self): return self.branch["encoder"]

    def loss(self, images, masks=None, generator=None, extents=None):
        one = random_view(images, self.config.view, generator, extents=extents)
        other = random_view(images, self.config.view, generator, extents=extents, geometry=one)
        maps = [self.encoder(view.image) for view in (one, other)]
        return {"loss": self.config.weight * pull_together(*maps), "spread": embedding_spread(normalize(maps[0].mean((2, 3)), dim=1))}

    def after_step(self): pass


def test_a_loss_is_a_function_of_tensors():
    draw = lambda: torch.randn(2, 5, 3, 4, generator=generator(), dtype=torch.float64)
    query, key = draw(), draw().flip(3)
    by_loops = [1 - torch.dot(query[b, :, y, x], key[b, :, y, x]) / query[b, :, y, x].norm() / key[b, :, y, x].norm()
                for b in range(2) for y in range(3) for x in range(4)]
    assert torch.allclose(pull_together(query, key), torch.stack(by_loops).mean())
    assert torch.autograd.gradcheck(pull_together, (query.requires_grad_(), key.requires_grad_()))
    with pytest.raises(ValueError, match="key: has shape"): pull_together(query, key[:, :4])


def test_a_method_is_named_by_its_module(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    name = f"{__name__.rpartition('.')[2]}:SamePlace"
    sys.modules.setdefault(name.split(":")[0], sys.modules[__name__])
    method, start = (create_method(name, seed=0, weight=2.) for _ in range(2))
    images = load_data("samples").batch(range(16)).images
    before = method.loss(images, generator=generator())["loss"].item()
    pretrain(method, load_data("samples").subset(range(16)), TrainConfig(**{**vars(SHORT), "steps": 12}))
    assert method.loss(images, generator=generator())["loss"].item() < .85 * before      # the loss it was written for falls
    assert not torch.equal(*(next(one.encoder.parameters()) for one in (method, start)))
    with pytest.raises(ValueError, match="did you mean 'weight'"): create_method(name, wieght=1.)


# ---------------------------------------------------------------------------------------------- a protocol

def brightness_correlation(encoder, head, train, test, seed, options):
    "A protocol: the largest correlation of any channel with the brightness of its cell."
    images = torch.stack([test[index][0] for index in range(options.get("images", 4))])
    maps = encode(encoder, images).detach()
    grey = torch.nn.functional.adaptive_avg_pool2d(images.float().mean(1, keepdim=True), maps.shape[-2:])
    columns = torch.cat([grey, maps], 1).transpose(0, 1).flatten(1)
    return {"correlation": float(torch.corrcoef(columns)[0, 1:].abs().nan_to_num().max())}


def test_a_protocol_is_an_entry(monkeypatch, tmp_path):
    monkeypatch.setitem(PROTOCOLS, "brightness", brightness_correlation)
    data = load_data("samples", split="val").subset(range(8))
    torch.manual_seed(0)                                                       # the filters below are these
    report = evaluate(create_encoder("pixcl_tiny"), (data, data), ["brightness"], options={"brightness": {"images": 2}}, save=tmp_path / "report.json")
    assert .3 < report.results["brightness"]["correlation"] <= 1               # random filters still see light and dark
    assert "brightness" in (tmp_path / "report.json").read_text() and "brightness" in repr(report)
    assert main(["evaluate", "--protocols", "brightness", "--threads", "1"]) == 0
    with pytest.raises(ValueError, match="did you mean 'brightness'"): evaluate(create_encoder("pixcl_tiny"), data, ["brightnes"])


# ---------------------------------------------------------------------------------------------- a widget

COUNTER = """
export default { render({ model, el }) { el.textContent = model.get("threshold") } }
"""


class CellCounter(PixelWidget):
    "How many cells of a map lie above a threshold; Python and the page share the threshold."
    script, title = COUNTER, "Cells above"
    threshold = traitlets.Float(.5).tag(sync=True)
    count = traitlets.Int().tag(sync=True)

    def __init__(self, cells, **traits):
        self.cells = cells
        super().__init__(**traits)
        self.recount()

    @traitlets.observe("threshold")
    def recount(self, change=None): self.count = int((self.cells > self.threshold).sum())

    def picture(self):
        figure, axes = new_figure(1, 1, 3, 1)
        np.ravel(axes)[0].imshow((self.cells > self.threshold).numpy())
        return figure


def test_a_widget_stands_on_the_base(tmp_path):
    widget = CellCounter(torch.linspace(0, 1, 11).reshape(1, -1))
    assert widget.count == 5
    widget.threshold = .75                                                     # as the page would
    assert widget.count == 3 and widget.front_state()["count"] == 3
    page = widget.export_html(tmp_path / "page.html", title="mine").read_text()
    assert "el.textContent = model.get" in page and "0.75" in page                                  # alive without a kernel
    assert widget.picture().axes[0].images[0].get_array().sum() == 3
    with pytest.raises(TypeError, match="did you mean 'threshold'"): CellCounter(torch.zeros(1, 1), treshold=.1)
