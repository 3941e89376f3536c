"""How long the frozen linear probe takes: ResNet-18 on 367 images of 180×240, 50,000 labelled pixels, 233 test images.

    python tests/bench/bench_probe.py --root PATH/TO/camvid
    python tests/bench/bench_probe.py                        # the samples instead, enlarged and repeated to the same sizes

Prints the seconds of the parts: encoding and sampling the training pixels with the fit, and the test images. Goal: under four minutes on 2 cores. Random weights: the time does not depend on them.
"""
import argparse
import os
import time

import torch

from pixcl_nb.images.data import load_data
from pixcl_nb.networks.encoders import create_encoder
from pixcl_nb.evaluation.probe import linear_probe


def data(root, split, count):
    "CamVid at 180×240, or as many samples brought to that size."
    if root: return load_data("camvid", root, split, (180, 240))
    samples = load_data("samples", split=split)
    batch = samples.batch([i % len(samples) for i in range(count)])
    images = torch.nn.functional.interpolate(batch.images.float(), (180, 240), mode="bilinear").round().byte()
    masks = torch.nn.functional.interpolate(batch.masks[:, None].float(), (180, 240), mode="nearest")[:, 0].to(batch.masks.dtype)
    class Held(torch.utils.data.Dataset):
        num_classes, class_names = samples.num_classes, samples.class_names
        def __len__(self): return count
        def __getitem__(self, index): return images[index], masks[index]
    return Held()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="CamVid's folder")
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    train, test = data(options.root, "train", 367), data(options.root, "test", 233)
    encoder, started = create_encoder(options.encoder), time.perf_counter()
    result = linear_probe(encoder, train, test)
    print(f"{options.encoder}, {len(train)} + {len(test)} images of {tuple(train[0][0].shape[1:])}, {options.threads} threads, load {os.getloadavg()[0]:.1f}: "
          f"{time.perf_counter() - started:.0f} s, of which {result.info['seconds_fit']:.0f} s until the classifier stood; mIoU {100 * result.miou:.1f} %; goal 240 s")


if __name__ == "__main__": main()
