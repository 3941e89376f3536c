"""The five widgets as pages that answer without a kernel, made from the sample encoders, the samples and photographs."""
import re

import torch

from pixcl_nb.images.compositor import CopyPasteConfig, copy_paste
from pixcl_nb.images.data import load_data
from pixcl_nb.images.pairs import load_pairs, load_photos, stereo_pair
from pixcl_nb.networks.encoders import create_encoder
from pixcl_nb.networks.weights import sample_encoder
from pixcl_nb.networks.encoding import encode
from pixcl_nb.methods.contract import create_method
from pixcl_nb.training.settings import TrainConfig
from pixcl_nb.images.views import ViewConfig
from pixcl_nb.widgets import CopyPasteStudio, CorrespondenceExplorer, EmbeddingExplorer, SeparationExplorer, TrainingMonitor

# The page around a frame says light or dark; the frame says how high it is. Neither may look into the other: from file:// every file is a stranger to the next.
TALK = """<script>
addEventListener("message", event => event.data?.theme && window.pixcl?.model.set("theme", event.data.theme));
if (parent !== window) new ResizeObserver(() => parent.postMessage({ frame: location.pathname.split("/").pop(), height: document.documentElement.offsetHeight }, "*")).observe(document.documentElement);
</script>"""


def untrained():
    "Random weights, the same at every build."
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return create_encoder("pixcl_tiny").eval()


def correspondence():
    first, second, truth = stereo_pair()
    return CorrespondenceExplorer(first, second, encoder={"DenseCL": sample_encoder("densecl"), "random weights": untrained()}, truth=truth, size=256)


def scenes():
    "A correspondence explorer for two renderings of one scene, by three encoders."
    pair, encoders = load_pairs()[0], {"DenseCL": sample_encoder("densecl"), "random weights": untrained(), "MoCo v2": sample_encoder("moco")}
    return CorrespondenceExplorer(pair.image_a, pair.image_b, encoder=encoders, truth=(pair.points_a, pair.points_b), other="random weights")


def embedding():
    test = load_data("samples", split="test")
    batch = test.batch(range(0, 56, 7))
    with torch.no_grad(): maps = {name: encode(encoder, batch.images) for name, encoder in (("random weights", untrained()), ("DenseCL", sample_encoder("densecl")))}
    return EmbeddingExplorer(batch.images, maps, masks=batch.masks, class_names=test.class_names, palette=test.palette, layout="pca")


def studio(): return CopyPasteStudio(dict(list(load_photos().items())[:4]), size=160, stride=16)


def separation():
    batch = load_data("samples", split="test").batch(range(0, 56, 7))
    view = ViewConfig(size=128, scale=(.5, 1.), brightness=.2, contrast=.2, saturation=.2, hue=.05, grayscale=0, blur=0)
    pair = copy_paste(batch.images, CopyPasteConfig(size=128, stride=8, position="anywhere", view=view), torch.Generator().manual_seed(1))
    return SeparationExplorer(pair, {"CP2": sample_encoder("cp2"), "random weights": untrained()}, other="random weights")


def monitor():
    "A finished run: DenseCL, a minute's worth of steps."
    data, images = load_data("samples", split="train"), load_data("samples", split="test").batch(range(4)).images
    watched = TrainingMonitor(images=images, every=20)
    watched.run(create_method("densecl", seed=0, queue_size=1024, view=ViewConfig(size=64)), data, TrainConfig(steps=80, batch_size=16, lr=.03, device="cpu", progress=False))
    watched.wait()
    return watched


WIDGETS = dict(correspondence=correspondence, scenes=scenes, embedding=embedding, studio=studio, separation=separation, monitor=monitor)   # name of the page → its maker


def write_widgets(folder, names=None):
    "One offline page for each of the named widgets, all if None. Returns the paths."
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in WIDGETS if names is None else names:
        path = WIDGETS[name]().export_html(folder / f"{name}.html")
        path.write_text(re.sub(r"<h1>.*?</h1>", "", path.read_text(encoding="utf-8"), count=1).replace("</body>", TALK + "</body>"), encoding="utf-8")
        paths.append(path)
    return paths
