"""Images a second of a whole training step (views, networks, loss, bank, update) against a plain loop over lightly's transform, loss and bank; and the start of a long run.

    python tests/bench/bench_training.py                 # 64 and 96 px, batch 32, one thread, both methods and encoders: a few minutes
    python tests/bench/bench_training.py --full          # 64, 96 and 224 px, batches of 32 and 64, one thread and two: an hour or more
    python tests/bench/bench_training.py --out nbs/walkthroughs/results/bench_training.json

All loops train equal networks (the same encoder, the same projector) on the same decoded pictures. They take turns, and who goes first changes; times are CPU
seconds of this process, and each figure is the median of the turns' ratios. lightly is optional (pip install lightly); without it the rest is measured.
"float32" computes exactly what lightly's loop does; "layout" is float32 with channels_last; "auto" is what precision="auto" takes on this machine.
The second table says where our own float32 step goes. What is not networks: views, loss with its gradient, optimiser, and what follows a step (slow copy, queue)."""
import argparse
import contextlib
import copy
import itertools
import json
import shlex
import statistics
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from unittest import mock

import torch
from torchvision.transforms.functional import to_pil_image

from pixcl_nb.images.data import load_data
from pixcl_nb.checks import atomic_write, made_by
from pixcl_nb.images.views import ViewConfig
from pixcl_nb.methods.contract import create_method
from pixcl_nb.precision import fastest
from pixcl_nb.training.loop import batches, BatchOrder, train_step, wake

try:
    from lightly.loss import NTXentLoss
    from lightly.models import utils
    from lightly.transforms import DenseCLTransform, MoCoV2Transform
except ImportError: NTXentLoss = None

GOALS = {"auto": 1.7, "float32": 1.05, "outside": .10}        # of issue 17, at 96 px
NETWORKS = ("networks forward", "networks backward", "key network")
PARTS = ("views", *NETWORKS, "loss", "loss backward", "optimiser", "after the step")


def start_of_a_long_run():
    "CPU seconds and MB until the first batch of 1,000,800 steps over 1.28 million images, at three places."
    class Black(torch.utils.data.Dataset):
        def __len__(self): return 1_281_167
        def __getitem__(self, index): return torch.zeros(3, 2, 2, dtype=torch.uint8), torch.zeros(2, 2, dtype=torch.long)
    found = []
    for step in (0, 500_000, 1_000_000):
        tracemalloc.start()
        clock = time.process_time()
        next(batches(Black(), BatchOrder(len(Black()), 256), step, 1_000_800))
        seconds, peak = time.process_time() - clock, tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        print(f"first batch from step {step:>9,}: {seconds:.2f} s of CPU, {peak:.0f} MB at most (goals: under 1 s, under 50 MB)")
        found.append({"step": step, "seconds": round(seconds, 3), "mb": round(peak, 1)})
    return found


class Ours:
    "A method of this library, stepped as `pretrain` does."
    def __init__(self, name, images, size, encoder, kind):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.method = wake(create_method(name, encoder, queue_size=4096, view=ViewConfig(size=size)))
        way = {"precision": "float32", "channels_last": kind == "layout"}
        if kind == "auto": way = fastest(self.method.branch, torch.device("cpu"), (size, size))
        if way["channels_last"]: self.method.to(memory_format=torch.channels_last)
        self.images, self.precision, self.way = images, way["precision"], way["precision"] + ", channels last" * way["channels_last"]
        self.optimizer = torch.optim.SGD(self.method.branch.parameters(), .03, momentum=.9, weight_decay=1e-4)

    def step(self, number):
        train_step(self.method.loss, self.optimizer, self.images, None, None, torch.Generator().manual_seed(number), self.precision)
        self.method.after_step()

    def parts(self, number):
        "CPU seconds of the parts of one step, by clocks around them in the step itself."
        method, module, spent, loss_from = self.method, sys.modules[type(self.method).__module__], Counter(), []
        def timed(name, function):
            def call(*arguments, **keywords):
                clock = time.process_time()
                try: return function(*arguments, **keywords)
                finally: spent[name] += time.process_time() - clock
            return call
        def watched(*arguments, **keywords):                # the gradient's arrival at the networks' outputs ends the loss's share
            found = timed("networks forward", forward)(*arguments, **keywords)
            for part in found if isinstance(found, tuple) else (found,): part.requires_grad and part.register_hook(lambda gradient: loss_from.append(time.process_time()))
            return found
        def backward(tensor, *arguments):
            clock = time.process_time()
            plain(tensor, *arguments)
            spent["loss backward"] += loss_from[-1] - clock
            spent["networks backward"] += time.process_time() - loss_from[-1]
        forward, plain = method.branch.forward, torch.Tensor.backward
        with contextlib.ExitStack() as patches:
            for owner, name, new in ((module, "random_view", timed("views", module.random_view)), (method.branch, "forward", watched), (method, "embed_keys", timed("key network", method.embed_keys)),
                                     (torch.Tensor, "backward", backward), (self.optimizer, "step", timed("optimiser", self.optimizer.step)), (method, "after_step", timed("after the step", method.after_step))):
                patches.enter_context(mock.patch.object(owner, name, new))
            clock = time.process_time()
            self.step(number)
            whole = time.process_time() - clock
        spent["loss"] = whole - sum(spent.values())
        return {name: spent[name] / whole for name in PARTS}


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
    "name of a loop → CPU seconds of each step, in turns; shares of the parts of our float32 step; what \"auto\" took."
    data = load_data("samples")
    images = torch.stack([data[index % len(data)][0] for index in range(batch)])
    loops = {kind: Ours(name, images, size, encoder, kind) for kind in ("float32", "layout", "auto")}
    if NTXentLoss: loops["lightly"] = Lightly(name, [to_pil_image(image) for image in images], size, loops["float32"])
    seconds, parts = {kind: [] for kind in loops}, []
    for turn in range(rounds + 1):
        for kind in list(loops)[::1 if turn % 2 else -1]:
            clock = time.process_time()
            loops[kind].step(turn)
            if turn: seconds[kind].append(time.process_time() - clock)
        if turn: parts.append(loops["float32"].parts(turn))
    return seconds, {part: statistics.median(one[part] for one in parts) for part in PARTS}, loops["auto"].way


def row_of(name, size, batch, encoder, threads, rounds):
    "One line of both tables, as numbers."
    torch.set_num_threads(threads)
    seconds, parts, way = measure(name, size, batch, encoder, rounds)
    ratio = {kind: statistics.median(x / y for x, y in zip(seconds["lightly"], seconds[kind])) for kind in ("float32", "layout", "auto")} if "lightly" in seconds else {}
    gain = statistics.median(x / y for x, y in zip(seconds["float32"], seconds["auto"]))
    return {"method": name, "encoder": encoder, "size": size, "batch": batch, "threads": threads, "over_lightly": ratio, "auto_over_float32": gain, "auto": way, "shares": parts,
            "outside_networks": 1 - sum(parts[part] for part in NETWORKS), "seconds": {kind: statistics.median(each) for kind, each in seconds.items()}}


def table(rows):
    "The shares of our float32 step, below one another."
    print(f"\nshares of our float32 step\n{'method':8} {'encoder':10} {'px':>4} {'batch':>5} {'threads':>7} | " + "  ".join(f"{part:>17}" for part in PARTS) + "  outside the networks")
    for row in rows:
        print(f"{row['method']:8} {row['encoder']:10} {row['size']:4} {row['batch']:5} {row['threads']:7} | " + "  ".join(f"{row['shares'][part]:17.1%}" for part in PARTS) + f"  {row['outside_networks']:.1%}")
    print(f"\ngoals at 96 px: float32 {GOALS['float32']}, auto {GOALS['auto']} where the CPU has bf16; outside the networks at most {GOALS['outside']:.0%} of a float32 step")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96])
    parser.add_argument("--batches", type=int, nargs="+", default=[32])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--methods", nargs="+", default=["moco", "densecl"], choices=["moco", "densecl"])
    parser.add_argument("--encoders", nargs="+", default=["resnet18", "pixcl_tiny"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="96 px, ResNet-18, two rounds: about a minute")
    parser.add_argument("--full", action="store_true", help="64, 96 and 224 px, batches of 32 and 64, one thread and two: an hour or more")
    parser.add_argument("--out", type=Path, help="a JSON file for all of it")
    arguments = parser.parse_args()
    if arguments.full: arguments.sizes, arguments.batches, arguments.threads = [64, 96, 224], [32, 64], [1, 2]
    if arguments.quick: arguments.sizes, arguments.batches, arguments.threads, arguments.encoders, arguments.rounds = [96], [32], [1], ["resnet18"], 2
    start = start_of_a_long_run()
    if NTXentLoss is None: print("lightly is not installed (pip install lightly): only our own loops are measured")
    print(f"\nlightly's CPU seconds over ours\n{'method':8} {'encoder':10} {'px':>4} {'batch':>5} {'threads':>7} | {'float32':>7} {'layout':>7} {'auto':>7} | float32/auto (auto)")
    rows = []
    for case in itertools.product(arguments.threads, arguments.methods, arguments.encoders, arguments.sizes, arguments.batches):
        threads, name, encoder, size, batch = case
        row = row_of(name, size, batch, encoder, threads, arguments.rounds)
        rows.append(row)
        over = " ".join(f"{row['over_lightly'][kind]:7.2f}" if row["over_lightly"] else f"{'–':>7}" for kind in ("float32", "layout", "auto"))
        print(f"{name:8} {encoder:10} {size:4} {batch:5} {threads:7} | {over} | {row['auto_over_float32']:12.2f} ({row['auto']})", flush=True)
    table(rows)
    command = "python tests/bench/bench_training.py " + shlex.join(sys.argv[1:])
    if arguments.out: atomic_write(arguments.out, json.dumps({"command": command.strip(), "rounds": arguments.rounds, "start": start, "rows": rows, "machine": made_by(torch.device("cpu"))}, indent=1) + "\n")


if __name__ == "__main__": main()
