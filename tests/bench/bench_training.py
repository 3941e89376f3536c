"""Images a second of a whole training step (views, networks, loss, bank, update) against a plain loop over lightly's transform, loss and bank; and the start of a long run.

    python tests/bench/bench_training.py --quick                 # 96 px, batch 32, one thread: about a minute
    python tests/bench/bench_training.py --sizes 64 96 224 --batches 32 64 --threads 1 2

Both loops train equal networks (timm's encoder, the same projector) from the same decoded pictures. They take turns, and who goes first changes; times are CPU
seconds of this process, and each figure is the median of the turns' ratios. lightly is optional (pip install lightly); without it the rest is measured.
The last table says where our own float32 step goes: views, networks alone (same forward and backward passes), and all the rest."""
import argparse
import copy
import statistics
import time
import tracemalloc

import torch
from torch import nn
from torchvision.transforms.functional import to_pil_image

from pixcl_nb.images.data import load_data
from pixcl_nb.images.views import random_view, ViewConfig
from pixcl_nb.methods.contract import create_method
from pixcl_nb.precision import autocast, fastest
from pixcl_nb.training.loop import batches, BatchOrder, train_step, wake

try:
    from lightly.loss import NTXentLoss
    from lightly.models import utils
    from lightly.transforms import DenseCLTransform, MoCoV2Transform
except ImportError: NTXentLoss = None

GOALS = {"auto": 1.7, "float32": 1.05}        # of issue 17, at 96 px


def start_of_a_long_run():
    "CPU seconds and MB until the first batch of 1,000,800 steps over 1.28 million images, at three places."
    class Black(torch.utils.data.Dataset):
        def __len__(self): return 1_281_167
        def __getitem__(self, index): return torch.zeros(3, 2, 2, dtype=torch.uint8), torch.zeros(2, 2, dtype=torch.long)
    for step in (0, 500_000, 1_000_000):
        tracemalloc.start(); clock = time.process_time()
        steps = batches(Black(), BatchOrder(len(Black()), 256), step, 1_000_800)
        next(steps)
        seconds, peak = time.process_time() - clock, tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        print(f"first batch from step {step:>9,}: {seconds:.2f} s of CPU, {peak:.0f} MB at most (goals: under 1 s, under 50 MB)")


class Ours:
    "A method of this library, stepped as `pretrain` does."
    def __init__(self, name, images, size, encoder, precision):
        self.method = wake(create_method(name, encoder, seed=0, queue_size=4096, view=ViewConfig(size=size)))
        self.images, self.precision = images, "float32"
        if precision == "auto":
            found = fastest(self.method.branch, torch.device("cpu"), (size, size))
            self.precision = found["precision"]
            if found["channels_last"]: self.method.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(self.method.branch.parameters(), .03, momentum=.9, weight_decay=1e-4)

    def step(self, number):
        train_step(self.method.loss, self.optimizer, self.images, None, None, torch.Generator().manual_seed(number), self.precision)
        self.method.after_step()

    def parts(self, size):
        "CPU seconds of: two views; the networks alone, forward and backward as in a step."
        clock = time.process_time()
        views = [random_view(self.images, ViewConfig(size=size), torch.Generator().manual_seed(k)).image for k in (0, 1)]
        seen, clock = time.process_time() - clock, time.process_time()
        with autocast(self.precision):
            found = self.method.branch(views[0])
            self.method.slow(views[1])
        sum(part.float().mean() for part in (found[1:] if isinstance(found, tuple) else (found,))).backward()
        return seen, time.process_time() - clock


class Lightly:
    "The loop of lightly's own examples around the same networks, in float32."
    def __init__(self, name, pictures, size, ours):
        self.name, self.pictures = name, pictures
        self.transform = (DenseCLTransform if name == "densecl" else MoCoV2Transform)(input_size=size)
        self.branch = copy.deepcopy(ours.method.branch)
        self.slow = copy.deepcopy(self.branch)
        utils.deactivate_requires_grad(self.slow)
        self.criteria = [NTXentLoss(temperature=.2, memory_bank_size=(4096, 128)) for _ in range(2)]
        self.optimizer = torch.optim.SGD(self.branch.parameters(), .03, momentum=.9, weight_decay=1e-4)

    def step(self, number):
        utils.update_momentum(self.branch, self.slow, .999)
        views = [torch.stack(view) for view in zip(*(self.transform(picture) for picture in self.pictures))]
        query = self.branch(views[0])
        with torch.no_grad(): key = self.slow(views[1])
        if self.name == "moco": loss = self.criteria[0](query, key)
        else:
            rows = lambda part: part.flatten(2).transpose(1, 2)
            pooled = [found[1] for found in (query, key)]                      # a branch gives cells, pooled vector, dense vectors
            cells, dense = ([rows(found[k]) for found in (query, key)] for k in (0, 2))
            chosen = utils.select_most_similar(cells[0], cells[1], dense[1])
            loss = .5 * self.criteria[0](*pooled) + .5 * self.criteria[1](dense[0].flatten(0, 1), chosen.flatten(0, 1))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def measure(name, size, batch, encoder, rounds):
    "name of a loop → CPU seconds of each step, in turns; and the parts of our float32 step."
    data = load_data("samples")
    images = torch.stack([data[index % len(data)][0] for index in range(batch)])
    loops = {kind: Ours(name, images, size, encoder, kind) for kind in ("float32", "auto")}
    if NTXentLoss: loops["lightly"] = Lightly(name, [to_pil_image(image) for image in images], size, loops["float32"])
    seconds, parts = {kind: [] for kind in loops}, []
    for turn in range(rounds + 1):
        for kind in list(loops)[::1 if turn % 2 else -1]:
            clock = time.process_time()
            loops[kind].step(turn)
            if turn: seconds[kind].append(time.process_time() - clock)
        if turn: parts.append(loops["float32"].parts(size))
    return seconds, parts, loops["auto"].precision


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96])
    parser.add_argument("--batches", type=int, nargs="+", default=[32])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--methods", nargs="+", default=["moco", "densecl"], choices=["moco", "densecl"])
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="96 px, batch 32, one thread, two rounds")
    arguments = parser.parse_args()
    if arguments.quick: arguments.sizes, arguments.batches, arguments.threads, arguments.rounds = [96], [32], [1], 2
    start_of_a_long_run()
    if NTXentLoss is None: print("lightly is not installed (pip install lightly): only our own loops are measured")
    print(f"\n{'method':8} {'px':>4} {'batch':>5} {'threads':>7} | {'lightly/float32':>15} {'lightly/auto':>12} {'float32/auto':>12} (auto) | views  nets  rest of a float32 step")
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for name in arguments.methods:
            for size in arguments.sizes:
                for batch in arguments.batches:
                    seconds, parts, taken = measure(name, size, batch, arguments.encoder, arguments.rounds)
                    ratio = lambda a, b: f"{statistics.median(x / y for x, y in zip(seconds[a], seconds[b])):.2f}" if a in seconds else "–"
                    views, nets = (statistics.median(part[k] / whole for part, whole in zip(parts, seconds["float32"])) for k in (0, 1))
                    print(f"{name:8} {size:4} {batch:5} {threads:7} | {ratio('lightly', 'float32'):>15} {ratio('lightly', 'auto'):>12} {ratio('float32', 'auto'):>12} ({taken}) "
                          f"| {views:4.0%}  {nets:4.0%}  {1 - views - nets:4.0%}", flush=True)
    print(f"\ngoals at 96 px: lightly/float32 {GOALS['float32']}, lightly/auto {GOALS['auto']} where the CPU has bf16; views and rest together at most 10 % of a float32 step")


if __name__ == "__main__": main()
