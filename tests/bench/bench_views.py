"""Composed CP2 pairs per second: the released recipe in PIL against pixcl_nb, one thread, decoding included.

python tests/bench/bench_views.py [--rounds 5] [--batch 32] [--parts]

Times are CPU seconds of this process (one thread), so a busy machine disturbs them less; cases alternate within every round and the ratios are
medians of per-round ratios. The photographs are scikit-image's and scikit-learn's, scaled to 480x360 and JPEG-encoded in memory."""
import argparse
import io
import random
import statistics
import time

import numpy as np
import torch
import torchvision.transforms as T
from PIL import Image, ImageFilter
from skimage import data as photos
from sklearn.datasets import load_sample_image
from torchvision.io import ImageReadMode, decode_jpeg

from pixcl_nb.images.compositor import CopyPasteConfig, copy_paste
from pixcl_nb.images.views import ViewConfig, apply_view, draw_view, random_view


GOALS = {"ours: 3 decodes, 4 views": 3., "ours: 1 decode, 2 views": 6.5}     # of issue 8


class Blur:
    "MoCo v2's blur: PIL's GaussianBlur with a radius drawn from .1 to 2."
    def __call__(self, image): return image.filter(ImageFilter.GaussianBlur(random.uniform(.1, 2.)))


def recipe(erase=False):
    "The list of transforms of one view as the released pipelines write it, on PIL images."
    steps = [T.RandomResizedCrop(224, scale=(.2, 1.)), T.RandomApply([T.ColorJitter(.4, .4, .4, .1)], p=.8), T.RandomGrayscale(.2), T.RandomApply([Blur()], p=.5),
             T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize((.485, .456, .406), (.229, .224, .225))]
    return T.Compose(steps + ([T.RandomErasing(1., scale=(.5, .8), ratio=(.8, 1.25), value=0)] if erase else []))


def encoded_photos(batch):
    "`batch` JPEG files in memory, 480x360."
    arrays = [photos.astronaut(), photos.coffee(), photos.chelsea(), photos.rocket(), load_sample_image("china.jpg"), load_sample_image("flower.jpg")]
    files = []
    for array in arrays:
        handle = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(array[..., :3])).resize((480, 360), Image.BICUBIC).save(handle, "jpeg", quality=90)
        files.append(handle.getvalue())
    return [files[i % len(files)] for i in range(batch)]


def pil_pairs(files, decodes, passes):
    "One batch of composed pairs from PIL views."
    view, erased = recipe(), recipe(erase=True)
    read = lambda file: Image.open(io.BytesIO(file)).convert("RGB")
    foreground = [read(file) for file in files]
    pairs = [torch.stack([view(image) for image in foreground]) for _ in range(2)]
    if passes == 4:
        behind = [foreground[k:] + foreground[:k] if decodes == 1 else [read(file) for file in files[k:] + files[:k]] for k in (1, 2)]
        backgrounds = [torch.stack([erased(image) for image in images]) for images in behind]
    else: backgrounds = [torch.stack([recipe(True).transforms[-1](image) for image in pairs[0].roll(k, 0)]) for k in (1, 2)]
    masks = [(background[:, :1] == 0).float() for background in backgrounds]
    return [view * mask + background for view, mask, background in zip(pairs, masks, backgrounds)]


def read_batch(files):
    "Decoded (B, 3, H, W) uint8 batch. torchvision decodes to height × width × channel; stacking in that order saves two transpositions an image."
    images = [decode_jpeg(torch.frombuffer(bytearray(file), dtype=torch.uint8), mode=ImageReadMode.RGB) for file in files]
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)


def our_pairs(files, decodes, passes, generator):
    "The same from pixcl_nb."
    images, backgrounds = read_batch(files), read_batch(files + files) if decodes == 3 else None
    config = CopyPasteConfig(backgrounds="second draw" if decodes == 3 else "shuffled batch", background_views="fresh" if passes == 4 else "reused")
    return copy_paste(images, config, generator, backgrounds=backgrounds)


def measure(cases, rounds):
    "CPU seconds of every case in every round; the cases alternate."
    for case in cases.values(): case()
    times = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            start = time.process_time()
            case()
            times[name].append(time.process_time() - start)
    return times


def table(times, per, against):
    "Print medians and ratios."
    print(f"{'case':<44}{'ms each':>9}{'a second':>10}{'ratio':>8}   (rounds)")
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(times[against], seconds)]
        print(f"{name:<44}{statistics.median(seconds) / per * 1e3:9.2f}{per / statistics.median(seconds):10.0f}{statistics.median(ratios):8.2f}   {min(ratios):.2f}-{max(ratios):.2f}")


def parts(files, generator):
    "Where the time of our view goes."
    last = read_batch(files)
    plain = last.contiguous()
    pil, view = [Image.open(io.BytesIO(file)).convert("RGB") for file in files], recipe()
    small = torch.nn.functional.interpolate(plain, (120, 160), mode="bilinear", antialias=True)
    run = lambda images, **options: lambda: random_view(images, ViewConfig(**options), generator)
    off = dict(jitter=0., grayscale=0., blur=0.)
    return {"PIL: one view": lambda: torch.stack([view(image) for image in pil]), "ours: one view": run(plain), "ours: one view, channels_last input": run(last),
            "  crop, resize, flip, normalise": run(last, **off), "  + jitter": run(last, **off | dict(jitter=.8)), "  + jitter without hue": run(last, **off | dict(jitter=.8, hue=0.)),
            "  + blur": run(last, **off | dict(blur=.5)), "ours: batched form (GPU) on this CPU": lambda: apply_view(last, draw_view(ViewConfig(), torch.tensor([[360, 480]]).expand(len(last), 2), generator), ViewConfig(), form="batched"),
            "parameters alone": lambda: draw_view(ViewConfig(), torch.tensor([[360, 480]]).expand(len(last), 2), generator),
            "decode (torchvision)": lambda: read_batch(files), "decode (PIL)": lambda: [Image.open(io.BytesIO(file)).convert("RGB") for file in files], "96-pixel view of 120x160": run(small, size=96)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--parts", action="store_true", help="also time the parts of one view")
    options = parser.parse_args()
    torch.set_num_threads(1)
    files, generator = encoded_photos(options.batch), torch.Generator().manual_seed(0)
    cases = {f"{who}: {decodes} decode{'s' * (decodes > 1)}, {passes} views": (lambda make=make, d=decodes, p=passes: make(files, d, p))
             for decodes, passes in ((3, 4), (1, 4), (1, 2)) for who, make in (("PIL", pil_pairs), ("ours", lambda files, d, p: our_pairs(files, d, p, generator)))}
    times = measure(cases, options.rounds)
    table(times, options.batch, "PIL: 3 decodes, 4 views")
    for name, goal in GOALS.items():
        reached = statistics.median(a / b for a, b in zip(times["PIL: 3 decodes, 4 views"], times[name]))
        print(f"goal: {name} at {goal} times the released recipe or more: {reached:.2f}, {'reached' if reached >= goal else 'missed'}")
    if options.parts: print(); table(measure(parts(files, generator), options.rounds), options.batch, "PIL: one view")


if __name__ == "__main__": main()
