"""What a DenseCL step costs over a MoCo v2 step: measured in turns, and counted.

    python tests/bench/bench_methods.py                        # the sizes that a CPU can do
    python tests/bench/bench_methods.py --cases tiny-96 --steps 40 --out methods.json
    python tests/bench/bench_methods.py --device cuda          # ResNet-50 at 224, batch 256, bf16, queue 65,536 too

Each step of one method is followed by a step of the other on the same images, and who goes first changes, so whatever else the machine does falls on both:
read the ratio (median of the ratios of neighbouring steps, with its quartiles), not the seconds. "More arithmetic" counts the multiply-adds of matrix
products and convolutions of one step (torch's FlopCounterMode); what it leaves out, reading memory and small kernels, is the difference between the two columns.
"""
import argparse
import json
import platform
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from pixcl_nb.experiments.claims import step_times
from pixcl_nb.methods.contract import create_method
from pixcl_nb.images.views import ViewConfig
from pixcl_nb.networks.encoders import cell_offset

# name: encoder, side of a view, batch, queue, needs a GPU
CASES = {"tiny-96": ("pixcl_tiny", 96, 32, 2048, False), "resnet18-96": ("resnet18", 96, 64, 4096, False), "resnet18-224": ("resnet18", 224, 16, 4096, False),
         "resnet50-224": ("resnet50", 224, 8, 4096, False), "resnet50-224-b256": ("resnet50", 224, 256, 65536, True)}


def measure(encoder, side, batch, queue, steps, device, precision):
    "Ratio of the two methods' step times with quartiles, and of their arithmetic."
    images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(device)
    methods = {name: create_method(name, encoder, seed=0, queue_size=queue, view=ViewConfig(size=side)).to(device, memory_format=torch.channels_last).train() for name in ("moco", "densecl")}
    flops, _ = {}, cell_offset(methods["densecl"].encoder)         # measured once and kept: no part of a step, and FlopCounterMode cannot count it
    for name, method in methods.items():
        with FlopCounterMode(display=False) as counter: method.loss(images, generator=torch.Generator().manual_seed(0))["loss"].backward()
        flops[name] = counter.get_total_flops()
    times = step_times(methods, images, steps, precision)
    ratios = np.divide(times["densecl"], times["moco"])
    cells = int(methods["densecl"].encoder(torch.zeros(2, 3, side, side, device=device)).shape[2]) ** 2
    return {"batch": batch, "side": side, "queue": queue, "cells": cells, "steps": steps, "overhead": float(np.median(ratios)) - 1, "quartiles": [float(q) - 1 for q in np.percentile(ratios, [25, 75])],
            "more_arithmetic": flops["densecl"] / flops["moco"] - 1, "seconds": {name: float(np.median(t)) for name, t in times.items()}}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=None, help="accepted for `make bench ARGS=…`, not used")
    parser.add_argument("--quick", action="store_true", help="the two small cases")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["float32", "bf16"], help="default: float32 on a CPU, bf16 on a GPU")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    precision = arguments.precision or ("bf16" if arguments.device == "cuda" else "float32")
    chosen = arguments.cases or (["tiny-96", "resnet18-96"] if arguments.quick else [name for name, case in CASES.items() if arguments.device == "cuda" or not case[4]])
    results = {"machine": {"device": torch.cuda.get_device_name() if arguments.device == "cuda" else platform.processor() or "cpu", "threads": arguments.threads, "torch": torch.__version__, "precision": precision}, "cases": {}}
    print(f"{'case':18} {'cells':>5} {'batch':>5} {'DenseCL over MoCo v2':>22} {'more arithmetic':>16}")
    for name in chosen:
        encoder, side, batch, queue, _ = CASES[name]
        found = results["cases"][name] = measure(encoder, side, batch, queue, arguments.steps, arguments.device, precision)
        low, high = found["quartiles"]
        print(f"{name:18} {found['cells']:5} {batch:5} {found['overhead']:+8.1%} ({low:+.1%}…{high:+.1%}) {found['more_arithmetic']:+12.1%}", flush=True)
        if arguments.out: arguments.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__": main()
