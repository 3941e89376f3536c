"""The five widgets as pages that answer without a kernel: ImageNet's small network on photographs, the sample encoders on the samples."""
import contextlib
import io
import re

import torch
import torch.nn.functional as F

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


def imagenet(layer, pretrained="package"):
    "Some layers of EfficientNet-Lite0 (extra `imagenet`), or of the same network with random weights."
    with torch.random.fork_rng(), contextlib.redirect_stdout(io.StringIO()):
        torch.manual_seed(0)
        return create_encoder("tf_efficientnet_lite0", pretrained=pretrained, layer=layer).eval()


def part(photo, top, left, bottom, right, height=512):
    "A part of a photograph, so many pixels high."
    cut = photo[None, :, top:bottom, left:right].float()
    return F.interpolate(cut, (height, round(height * (right - left) / (bottom - top))), mode="bicubic", antialias=True)[0].clamp(0, 255).round().to(torch.uint8)


def face():
    "The cat's eye in the woman's face: four places marked by hand, as in explore."
    photos = load_photos()
    cat, woman = part(photos["chelsea"], 0, 0, 300, 451), part(photos["astronaut"], 0, 100, 210, 352)
    on_cat = torch.tensor([[173, 111], [314, 131], [267, 240], [256, 267]]) * 512 / 300
    on_woman = (torch.tensor([[204, 101], [247, 103], [224, 127], [224, 146]]) - torch.tensor([100, 0])) * 512 / 210
    encoders = {"ImageNet": imagenet(16), "random weights": imagenet(16, False)}
    return CorrespondenceExplorer(cat, woman, encoder=encoders, truth=(on_cat, on_woman), size=512, other="random weights", name="face")


def correspondence():
    first, second, truth = stereo_pair()
    encoders = {"ImageNet": imagenet([8, 16]), "random weights": imagenet([8, 16], False), "DenseCL": sample_encoder("densecl")}
    return CorrespondenceExplorer(first, second, encoder=encoders, truth=truth, size=512, other="random weights", name="bike")


def scenes():
    "A correspondence explorer for two renderings of one scene, by the encoders that were trained on such."
    pair, encoders = load_pairs()[1], {"CP2": sample_encoder("cp2"), "random weights": untrained(), "DenseCL": sample_encoder("densecl"), "label contrast": sample_encoder("label")}
    return CorrespondenceExplorer(pair.image_a, pair.image_b, encoder=encoders, truth=(pair.points_a, pair.points_b), other="random weights", name="scene")


def things():
    "Six photographs in the colours of ImageNet's features."
    squares = []
    for photo in load_photos().values():
        height, width = photo.shape[1:]
        short = min(height, width)
        squares.append(part(photo, (height - short) // 2, (width - short) // 2, (height + short) // 2, (width + short) // 2, 448))
    with torch.no_grad(): features = encode(imagenet([8, 16, 32]), torch.stack(squares))
    return EmbeddingExplorer(torch.stack(squares), features, layout="pca", colour_by="PCA", paint=True, clusters=0, name="things")


def embedding():
    test = load_data("samples", split="test")
    batch = test.batch(range(0, 56, 7))
    encoders = {"random weights": untrained(), "DenseCL": sample_encoder("densecl"), "label contrast": sample_encoder("label")}
    with torch.no_grad(): maps = {name: encode(encoder, batch.images) for name, encoder in encoders.items()}
    return EmbeddingExplorer(batch.images, maps, masks=batch.masks, class_names=test.class_names, palette=test.palette, layout="pca", colour_by="PCA", paint=True, name="cloud")


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


WIDGETS = dict(face=face, correspondence=correspondence, scenes=scenes, things=things, embedding=embedding, studio=studio, separation=separation, monitor=monitor)   # name of the page → its maker
IN_EXPLORE = dict(face="face", bike="correspondence", scene="scenes", things="things", cloud="embedding", studio="studio", apart="separation")   # what explore calls it → name of the page


def write_widgets(folder, names=None):
    "One offline page for each of the named widgets, all if None. Returns the paths."
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in WIDGETS if names is None else names:
        path = WIDGETS[name]().export_html(folder / f"{name}.html")
        path.write_text(re.sub(r"<h1>.*?</h1>", "", path.read_text(encoding="utf-8"), count=1).replace("</body>", TALK + "</body>"), encoding="utf-8")
        paths.append(path)
    return paths
