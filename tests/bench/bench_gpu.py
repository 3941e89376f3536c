"""What only a GPU can say, in one command of under nine minutes.

    python tests/bench/bench_gpu.py --out runs/gpu                    # every part, the most important first
    python tests/bench/bench_gpu.py --out runs/gpu --part triton      # one part (again); the others' results stay
    python tests/bench/bench_gpu.py --out runs/gpu --tiny             # tiny sizes, a minute; without CUDA always so

It needs torch, torchvision, timm and this tree; scenes are rendered on the spot by all cores. Each part runs in a process of its own, forked from one that has imported
torch and not touched CUDA, and is killed at its limit. What a part finds is on disk (`PART.json`, never half written) before it begins the next thing, so whatever cuts a
run off, what it had measured stays; `PART.log` holds what it printed. `summary.json` and the table at the end say of each part: done, cut, failed and why; of each goal:
met, missed, not run.

Seconds are wall seconds after torch.cuda.synchronize(). "Of the matrix rate": the products that a path does itself (bench_losses.PRODUCTS: 2 for the torch path, by symmetry;
3 for Triton) at 2·N²·D operations each, over its seconds, over the rate of one large product in the same precision, measured in the same process. On a CPU nothing here is a
measurement: the sizes are tiny, Triton runs in its interpreter, torch.compile without its code generator; it shows that the command works.
"""
import argparse
import importlib
import json
import math
import os
import signal
import statistics
import sys
import time
import traceback
from functools import partial
from importlib.machinery import ModuleSpec
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType, SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]
for place in (str(ROOT), str(ROOT / "tests" / "bench")):
    if place not in sys.path: sys.path.insert(0, place)
PRELOAD = ["bench_gpu", "torch", "torchvision", "timm", "pixcl_nb.training.loop", "pixcl_nb.methods.densecl", "pixcl_nb.methods.cp2", "pixcl_nb.methods.auxiliary_contrast"]


def attach(package, submod_attrs):
    "What the packages of this tree need of lazy_loader, for a machine without it."
    where = {name: module for module, names in submod_attrs.items() for name in names}
    def get(name):
        if name in where: return getattr(importlib.import_module(f"{package}.{where[name]}"), name)
        raise AttributeError(f"{package}: no name {name!r}")
    return get, lambda: sorted(where), sorted(where)

def stand_in(name, **names):
    "An almost empty module where a package is not installed that this tree imports and nothing here calls."
    try: return importlib.import_module(name)
    except ImportError: made = ModuleType(name)
    made.__spec__, made.__dict__["__path__"] = ModuleSpec(name, None, is_package=True), []
    vars(made).update(names)
    sys.modules[name] = made
    return made

stand_in("lazy_loader", attach=attach)
stand_in("matplotlib").pyplot = stand_in("matplotlib.pyplot")


# ---- what a part has found -----------------------------------------------------------------------------------------------

def write_json(path, found):
    "Whole or not at all; NaN and infinity are written as words, so that whoever reads it need not know Python."
    def plain(value):
        if isinstance(value, dict): return {str(key): plain(one) for key, one in value.items()}
        if isinstance(value, (list, tuple)): return [plain(one) for one in value]
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value
    temporary = Path(path).with_suffix(".tmp")
    temporary.write_text(json.dumps(plain(found), indent=1, allow_nan=False, default=str))
    os.replace(temporary, path)


class Notes:
    "The JSON of a part: every entry is on disk before the next thing is begun."
    def __init__(self, path, **head):
        self.path, self.found = Path(path), {**head, "state": "running", "found": {}}
        write_json(self.path, self.found)

    def __setitem__(self, name, value):
        self.found["found"][name] = value
        write_json(self.path, self.found)
        print(f"{name}: {json.dumps(value, default=str)[:300]}", flush=True)

    def attempt(self, name, work):
        "The entry `work()`; where it fails, why: the next one may still go well."
        try: self[name] = work()
        except Exception as error:
            traceback.print_exc()
            self[name] = {"error": first_line(error)}

    def end(self, state, seconds):
        self.found |= {"state": state, "seconds": round(seconds, 2)}
        write_json(self.path, self.found)


def first_line(error): return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'nothing said'}"[:300]


# ---- clocks and sizes ----------------------------------------------------------------------------------------------------

def wait(device):
    if device.type == "cuda":
        import torch
        torch.cuda.synchronize()

def seconds(work, device):
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start

class Clock:
    "Adds up what passes between the begin and the end of some functions' work on the device."
    def __init__(self, device): self.device, self.spans = device, []

    def mark(self):
        if self.device.type == "cpu": return time.perf_counter()
        import torch
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def around(self, function):
        def timed(*arguments, **keywords):
            start = self.mark()
            found = function(*arguments, **keywords)
            self.spans.append((start, self.mark()))
            return found
        return timed

    def total(self):
        wait(self.device)
        return sum(b - a if self.device.type == "cpu" else a.elapsed_time(b) / 1000 for a, b in self.spans)

def matrix_rate(precision, device, tiny):
    "Operations a second of one large product, in bf16, tf32 or float32 (ieee)."
    import torch
    n = 256 if tiny else 16384
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32) for _ in range(2))
    return 2 * n**3 / min(seconds(lambda: a @ b, device) for _ in range(5))


# ---- the parts: each is given `bench` (out, device, tiny) and `notes` ------------------------------------------------------

def machine(bench, notes):
    "Versions, the card, the cores."
    import subprocess
    import torch
    from pixcl_nb.checks import made_by
    notes["versions"] = made_by(bench.device)
    notes["cores"] = os.cpu_count()
    if bench.device.type == "cuda":
        card = torch.cuda.get_device_properties(bench.device)
        notes["card"] = {"name": card.name, "memory_gib": round(card.total_memory / 2**30, 1), "multiprocessors": card.multi_processor_count, "capability": list(torch.cuda.get_device_capability())}
    try: notes["nvidia-smi"] = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version,clocks.max.sm,power.limit,memory.total", "--format=csv,noheader"], capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError): notes["nvidia-smi"] = "not here"

def matrix(bench, notes):
    "The matrix rate of the card."
    for precision in ("bf16", "tf32", "float32"): notes[precision] = {"operations_per_second": matrix_rate(precision, bench.device, bench.tiny)}


# pixels, form, precision: the goals first
PIXELS = [(262_144, "supcon", "tf32"), (1_000_000, "supcon", "tf32"), (262_144, "released_within", "tf32"), (262_144, "supcon", "float32"), (65_536, "supcon", "tf32"), (16_384, "supcon", "tf32"),
          (1_000_000, "released_within", "tf32"), (1_000_000, "supcon", "float32"), (65_536, "supcon", "float32"), (16_384, "supcon", "float32")]

def set_precision(path, precision):
    import torch
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    if path == "triton":
        from pixcl_nb.losses import triton
        triton.PRECISION["name"] = {"float32": "ieee"}.get(precision, precision)

def pixel_case(path, n, form, precision, bench, rates):
    "Seconds and peak memory of one call, forward and backward."
    import bench_losses
    device, of = bench.device, precision.replace("x3", "")
    if of not in rates: rates[of] = matrix_rate(of, device, bench.tiny)
    set_precision(path, precision)
    name = "triton" if path == "triton" else "ours"
    loss = bench_losses.CASES[form][1][name]
    def once(problem):
        problem["rows"].grad = None
        value = loss(**problem)
        value.backward()
        return value
    if not bench.tiny: once(bench_losses.pixels(4096, device))                                    # compiles, and wakes the libraries
    problem = bench_losses.pixels(n, device)
    before = bench_losses.memory_now(device.type)
    times = [seconds(lambda: once(problem), device) for _ in range(1 if bench.tiny or n > 500_000 else 3)]
    peak, value = bench_losses.peak_bytes(device.type) - before, once(problem).item() if n <= 65_536 else None
    products, least = bench_losses.PRODUCTS[form, name], min(times)
    share = products * 2 * n**2 * bench_losses.D / least / rates[of]
    return {"pixels": n, "form": form, "path": path, "precision": precision, "seconds": least, "all_seconds": times, "peak_mb": peak / 2**20, "products": products, "of_matrix_rate": share,
            "gradient": problem["rows"].grad.norm().item(), **({} if value is None else {"value": value})}

def pixels(path, bench, notes):
    "Pixel contrast from 16 thousand to a million pixels, forward and backward."
    cases = [(96, "supcon", "tf32"), (96, "released_within", "float32")] if bench.tiny else PIXELS
    if path == "torch": cases = sorted(cases, key=lambda case: case[0] > 500_000)                     # a million may be cut off, the others must not
    elif not bench.tiny: cases = cases + [(262_144, "supcon", "tf32x3"), (1_000_000, "supcon", "tf32x3")]
    rates = {}
    for n, form, precision in cases: notes.attempt(f"{form} {n} {precision}", partial(pixel_case, path, n, form, precision, bench, rates))


def reference(rows, y, chosen, temperature, panel):
    "The supcon loss of all rows and its gradient at `chosen` ones in float64, panel by panel of the whole matrix."
    import torch
    f, n = rows.detach().double(), len(rows)
    index = torch.arange(n, device=f.device)
    def logits(some):
        s = f[some] @ f.T / temperature
        s[torch.arange(len(some), device=f.device), some] = -math.inf
        return s
    L = torch.cat([logits(some).logsumexp(1) for some in index.split(panel)])
    counts = torch.bincount(y)
    of_class = torch.zeros(len(counts), f.shape[1], dtype=f.dtype, device=f.device).index_add_(0, y, f)
    others, many = of_class[y] - f, (counts[y] - 1)[:, None]
    value = (L - (f * others / many).sum(1) / temperature).mean()
    s = logits(chosen)
    push = (s - L[chosen, None]).exp() + (s - L[None]).exp()
    return value, (push @ f - 2 * (others / many)[chosen]) / (n * temperature)

def values(bench, notes):
    "Both paths in every precision against float64: the value, and the gradient of 256 rows."
    import bench_losses
    import torch
    for n in [96] if bench.tiny else [16_384, 65_536, 262_144]:
        problem = bench_losses.pixels(n, bench.device)
        rows, chosen = problem["rows"], torch.arange(0, n, max(1, n // 256), device=bench.device)
        value, gradient = reference(rows, problem["y"], chosen, bench_losses.TAU, 32 if bench.tiny else 1024)
        def compared(path, precision):
            set_precision(path, precision)
            rows.grad = None
            found = bench_losses.CASES["supcon"][1]["triton" if path == "triton" else "ours"](**problem)
            found.backward()
            off = (rows.grad[chosen].double() - gradient).norm() / gradient.norm()
            return {"pixels": n, "path": path, "precision": precision, "value": found.item(), "float64": value.item(), "value_off": abs(found.item() / value.item() - 1), "gradient_off": off.item()}
        for path, precision in (("torch", "float32"), ("triton", "float32"), ("triton", "tf32x3"), ("torch", "tf32"), ("triton", "tf32")):
            notes.attempt(f"{n} {path} {precision}", partial(compared, path, precision))


def densecl(bench, notes):
    "DenseCL's dense loss: 49 cells an image against 65,536 negatives; ours, Triton, and the usual pattern."
    import bench_losses
    import torch
    from pixcl_nb.losses.streaming import use_backend
    def with_triton(**problem):
        with use_backend("triton"): return bench_losses.ours_densecl(**problem)
    contestants = {"torch": bench_losses.ours_densecl, "triton": with_triton, "pattern": bench_losses.pattern_densecl}
    def case(images, name, precision):
        set_precision("triton", precision)
        def once(problem):
            problem["q"].grad = None
            value = contestants[name](**problem)
            value.backward()
            return value
        problem = bench_losses.cells(images, bench.device)
        if bench.tiny: problem["queue"] = problem["queue"][:64]
        else: once(bench_losses.cells(1, bench.device))
        before = bench_losses.memory_now(bench.device.type)
        times = [seconds(lambda: once(problem), bench.device) for _ in range(1 if bench.tiny else 5)]
        peak = bench_losses.peak_bytes(bench.device.type) - before
        return {"images": images, "path": name, "precision": precision, "seconds": statistics.median(times), "peak_mb": peak / 2**20, "value": once(problem).item(), "gradient": problem["q"].grad.norm().item()}
    for images in [1] if bench.tiny else [256, 32]:
        for precision in ("tf32", "float32"):
            for name in contestants: notes.attempt(f"{images} images {name} {precision}", partial(case, images, name, precision))


def new_method(name, tiny, encoder=None, side=None, queue=None):
    "A method as the parts below train it: ResNet-50 and views of 224 pixels, or next to nothing."
    import torch
    from pixcl_nb.images.compositor import CopyPasteConfig
    from pixcl_nb.images.views import ViewConfig
    from pixcl_nb.methods.contract import create_method
    from pixcl_nb.networks.encoders import create_encoder
    side, queue = side or (32 if tiny else 224), queue or (64 if tiny else 65_536)
    torch.manual_seed(0)
    encoder = create_encoder(encoder or ("pixcl_tiny" if tiny else "resnet50"), output_stride=None if tiny or name != "cp2" else 16)
    settings = {"view": ViewConfig(size=side)}
    if name == "cp2": settings = {"compose": CopyPasteConfig(size=side, stride=encoder.stride), **({"decoder_width": 16} if tiny else {})}
    if name in ("moco", "densecl", "cp2"): settings["queue_size"] = queue
    return create_method(name, encoder, seed=0, **settings)

def squares(count, side, seed=0):
    "(uint8 images of noise, int64 masks of 8×8 squares of 8 classes)"
    import torch
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 8, (count, 8, 8), generator=generator).repeat_interleave(side // 8, 1).repeat_interleave(side // 8, 2)

class Trainee:
    "A method on its device with an optimiser, one batch of noise, and a step."
    def __init__(self, name, bench):
        import torch
        self.bench, self.batch = bench, 4 if bench.tiny else 256
        self.method = new_method(name, bench.tiny).to(bench.device, memory_format=torch.channels_last).train()
        self.images, self.masks = (x.to(bench.device) for x in squares(self.batch, 32 if bench.tiny else 256))
        self.optimizer, self.count = torch.optim.SGD([p for p in self.method.parameters() if p.requires_grad], .01, momentum=.9), 0

    def step(self):
        import torch
        from pixcl_nb.training.loop import train_step
        self.count += 1
        masks = self.masks if self.method.uses_labels else None
        terms = train_step(self.method.loss, self.optimizer, self.images, masks, None, torch.Generator().manual_seed(self.count), "float32" if self.bench.tiny else "bf16")
        self.method.after_step()
        return terms

    def timed(self, steps): return [seconds(self.step, self.bench.device) for _ in range(steps)]

    def shares(self, steps):
        "Share of a step that its views take, and its loss (forward, in which the streamed losses make their gradient as well)."
        module, views, loss = sys.modules[type(self.method).__module__], Clock(self.bench.device), Clock(self.bench.device)
        makers = [name for name in ("random_view", "two_colours", "copy_paste") if hasattr(module, name)]
        owner, term = (self.method, "terms") if hasattr(self.method, "terms") else (module, "info_nce")
        before = [(module, name, getattr(module, name)) for name in makers] + [(owner, term, getattr(owner, term))]
        for place, name, function in before: setattr(place, name, (loss if name == term else views).around(function))
        try: whole = sum(self.timed(steps))
        finally:
            for place, name, function in before: setattr(place, name, function)
        return {"views": views.total() / whole, "loss": loss.total() / whole}

    def profile(self):
        "The kernels (on a CPU: operators) that take longest, milliseconds a step, and their sum over all."
        from torch.profiler import ProfilerActivity, profile
        cuda = self.bench.device.type == "cuda"
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda
        with profile(activities=activities) as profiled: spent = seconds(self.step, self.bench.device)
        own = lambda event: (getattr(event, "self_device_time_total", None) or getattr(event, "self_cuda_time_total", 0)) if cuda else event.self_cpu_time_total
        events = [event for event in profiled.key_averages() if own(event) and (not cuda or str(event.device_type).endswith("CUDA"))]
        longest = sorted(events, key=own, reverse=True)[:15]
        return {"milliseconds": {event.key[:90]: round(own(event) / 1000, 3) for event in longest}, "sum_ms": sum(map(own, events)) / 1000, "step_ms": spent * 1000}

def methods(bench, notes):
    "Step time, images a second, memory, shares and profile of every method."
    import torch
    from pixcl_nb.methods.contract import METHODS
    def case(name):
        one = Trainee(name, bench)
        one.timed(1 if bench.tiny else 4)
        if bench.device.type == "cuda": torch.cuda.reset_peak_memory_stats()
        times = one.timed(1 if bench.tiny else 12)
        peak = torch.cuda.max_memory_allocated() / 2**30 if bench.device.type == "cuda" else None
        found = {"batch": one.batch, "step_seconds": statistics.median(times), "images_per_second": one.batch / statistics.median(times), "peak_gib": peak, "shares": one.shares(1 if bench.tiny else 5), "loss": float(one.step()["loss"])}
        return {**found, "profile": one.profile()}
    for name in METHODS:
        notes.attempt(name, partial(case, name))
        if bench.device.type == "cuda": torch.cuda.empty_cache()

def ratio(bench, notes):
    "A DenseCL step over a MoCo v2 step, in turns."
    import bench_methods
    case = ("pixcl_tiny", 32, 4, 64, 1) if bench.tiny else ("resnet50", 224, 256, 65_536, 20)
    notes["densecl over moco"] = bench_methods.measure(*case, bench.device.type, "float32" if bench.tiny else "bf16")


class Squares:
    "A data set of noise with labels, the same in every process."
    extents, num_classes, class_names = None, 8, [f"class {number}" for number in range(8)]
    def __init__(self, count, side): self.images, self.masks = squares(count, side, seed=1)
    def __len__(self): return len(self.images)
    def __getitem__(self, i): return self.images[i], self.masks[i]
    def mask(self, i): return self.masks[i]

def deterministic_run(name, tiny, device, folder, die_at=None):
    "The state after a short deterministic run; with `die_at` the process is killed after that step."
    import torch
    from pixcl_nb.training.loop import pretrain
    from pixcl_nb.training.settings import TrainConfig
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(1)
    side, steps = (32, 4) if tiny else (64, 12)
    method = new_method(name, tiny, None if tiny else "resnet18", side, 64 if tiny else 1024)
    config = TrainConfig(steps=steps, batch_size=4 if tiny else 32, lr=.05, device=device, precision="float32" if tiny else "bf16", checkpoint_every=steps // 4, log_every=1, deterministic=True, progress=False)
    def hook(step, *_):
        if step == die_at: os.kill(os.getpid(), signal.SIGKILL)
    pretrain(method, Squares(8 if tiny else 128, side), config, run_dir=folder, on_step=hook)
    return {key: value.cpu() for key, value in method.state_dict().items()}

def exact(bench, notes):
    "deterministic=True: a run that was killed (SIGKILL) and resumed, and a second whole one, have the bits of a whole one."
    import torch
    from pixcl_nb.methods.contract import METHODS
    def case(name):
        folder = bench.out / "exact" / f"{name} {time.time_ns()}"
        run = partial(deterministic_run, name, bench.tiny, bench.device.type)
        victim = get_context(bench.context).Process(target=run, args=(folder / "killed", 2 if bench.tiny else 7))
        victim.start()
        whole = run(folder / "whole")
        victim.join()
        saved = [int(path.stem.split("-")[1]) for path in (folder / "killed").glob("step-*.pt")]
        same = lambda other: all(torch.equal(a, b) for a, b in zip(whole.values(), other.values(), strict=True))
        resumed = run(folder / "killed")
        off = max((float((a.double() - b.double()).abs().max()) for a, b in zip(whole.values(), resumed.values()) if a.numel()), default=0.)
        again = run(folder / "again") if not bench.tiny else None
        return {"killed_with": victim.exitcode, "resumed_from": max(saved, default=None), "resumed_same_bits": same(resumed), "largest_difference": off, "repeated_same_bits": None if again is None else same(again)}
    for name in ["densecl"] if bench.tiny else METHODS: notes.attempt(name, partial(case, name))


def render(job):
    from pixcl_nb.images.scenes import write_sample
    write_sample(*job)

def scene_folder(bench):
    "Scenes for the parts that train on pictures, rendered by all cores at the first call."
    import shutil
    from pixcl_nb.images.scenes import rendered_folder
    from pixcl_nb.images.worlds import WORLDS
    splits = {"train": 4, "val": 4, "test": 4} if bench.tiny else {"train": 1024, "val": 60, "test": 120}
    def write(folder):
        for name in ("images", "labels", "pairs"): (folder / name).mkdir()
        todo = [(folder, split, index, 0, WORLDS["natural"]) for split, count in splits.items() for index in range(count)]
        with get_context("fork").Pool(1 if bench.tiny else os.cpu_count()) as pool: pool.map(render, todo, chunksize=4)
        for split, count in splits.items(): (folder / f"{split}.txt").write_text("".join(f"{split}_{index:03d}\n" for index in range(count)))
        shutil.copy(ROOT / "data_samples" / "classes.json", folder)
    return rendered_folder(bench.out / ("scenes-tiny" if bench.tiny else "scenes"), write)

def scenes(bench, notes):
    "Rendering the scenes."
    start, there = time.perf_counter(), scene_folder(bench)
    notes["rendered"] = {"folder": there.name, "scenes": len(list((there / "images").iterdir())), "seconds": time.perf_counter() - start, "cores": 1 if bench.tiny else os.cpu_count()}

class Watch:
    "Asks nvidia-smi twice a second how busy the card is, beside the work."
    def __enter__(self):
        import threading
        self.seen, self.over = [], threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()
        return self

    def look(self):
        import subprocess
        while not self.over.wait(.5):
            try: self.seen.append(float(subprocess.run(["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=5).stdout.split()[0]) / 100)
            except (OSError, ValueError, IndexError, subprocess.SubprocessError): return

    def __exit__(self, *error):
        self.over.set()
        self.thread.join()

def busy(bench, notes):
    "How busy the card is while `pretrain` feeds it with pictures from disk, and with pictures from memory."
    from pixcl_nb.images.data import load_data
    from pixcl_nb.training.loop import pretrain
    from pixcl_nb.training.settings import TrainConfig
    data = load_data("samples", root=scene_folder(bench), split="train", size=(32, 32) if bench.tiny else (256, 256))
    steps, batch = (2, 4) if bench.tiny else (40, 256)
    def case(kept, workers):
        config = TrainConfig(steps=steps, batch_size=batch, device=bench.device.type, precision="float32" if bench.tiny else "bf16", channels_last=True, workers=workers, log_every=1 if bench.tiny else 10, progress=False)
        with Watch() as watch: history = pretrain(new_method("densecl", bench.tiny), data.cache() if kept else data, config)
        rows = [row for row in history.rows if "images_per_second" in row][1:]                       # the first look holds the start
        mean = lambda name: statistics.mean(row[name] for row in rows) if rows and name in rows[0] else None
        driver = statistics.mean(watch.seen[len(watch.seen) // 3:]) if watch.seen else None
        found = {"images_per_second": mean("images_per_second"), "input_wait": mean("input_wait"), "busy_torch": mean("gpu_busy"), "busy_nvidia_smi": driver}
        if driver is None and found["busy_torch"] is None: found["busy"] = "not measured: neither nvidia-smi nor torch.cuda.utilization (nvidia-ml-py) is here" if bench.device.type == "cuda" else "not measured: no GPU"
        return {**found, "workers": workers, "batch": batch}
    notes.attempt("from disk", lambda: case(False, 0 if bench.tiny else min(14, os.cpu_count() - 1)))
    if not bench.tiny: notes.attempt("from memory", lambda: case(True, 4))

def compile_networks(bench, notes):
    "torch.compile of both networks: what the first step costs, what a step costs afterwards, and whether the loss is the same."
    one = Trainee("moco", bench)
    first_loss = float(one.step()["loss"])
    one.timed(0 if bench.tiny else 3)
    eager = statistics.median(one.timed(1 if bench.tiny else 10))
    notes["eager"] = {"step_seconds": eager, "loss_of_step_1": first_loss}
    two = Trainee("moco", bench)
    for network in two.method.networks: network.compile(**({"backend": "eager"} if bench.tiny else {}))
    losses = []
    start = seconds(lambda: losses.append(float(two.step()["loss"])), bench.device)
    notes["first compiled step"] = {"seconds": start, "loss_of_step_1": losses[0], "off": abs(losses[0] / first_loss - 1), "code_generated": not bench.tiny}
    two.timed(0 if bench.tiny else 3)
    after = statistics.median(two.timed(1 if bench.tiny else 10))
    notes["compiled"] = {"step_seconds": after, "over_eager": after / eager}

SCIENCE = ("densecl_overhead", "densecl_probe", "cp2_finetune", "label_budget")

def science(bench, notes):
    "Rows of `pixcl claims --scale gpu` on rendered scenes, seed by seed; jobs that are done stay in `claims/`, so another call goes on."
    from pixcl_nb.experiments.claims import ClaimsConfig, run_claims, SCALES
    settings = SCALES["gpu"] | dict(data="samples", root=str(scene_folder(bench)), size=(128, 128), crop=96, steps=400, quick_steps=100, finetune_steps=200, contrast_steps=100, auxiliary_steps=100, budgets=(18, 73))
    if bench.tiny: settings |= dict(encoder="pixcl_tiny", output_stride=None, device="cpu", precision="float32", size=(32, 32), crop=32, batch_size=4, steps=1)
    def row(name, seed):
        found = run_claims(ClaimsConfig(**settings, seeds=(seed,), rows=(name,)), bench.out / "claims", "small" if bench.tiny else "gpu")["rows"][name]
        if "error" in found: raise RuntimeError(found["error"])
        return found
    for seed in (0,) if bench.tiny else (0, 1, 2):
        for name in SCIENCE[:1] if bench.tiny else SCIENCE: notes.attempt(f"{name}, seed {seed}", partial(row, name, seed))


# name: (work, seconds it may take on a GPU); the order is that of importance
PARTS = {"machine": (machine, 30), "matrix": (matrix, 30), "triton": (partial(pixels, "triton"), 80), "torch": (partial(pixels, "torch"), 70), "ratio": (ratio, 60), "methods": (methods, 110),
         "values": (values, 50), "densecl": (densecl, 30), "exact": (exact, 90), "scenes": (scenes, 45), "busy": (busy, 70), "compile": (compile_networks, 100), "science": (science, 240)}


# ---- the goals -----------------------------------------------------------------------------------------------------------

def entries(found, *parts): return [one for part in parts for one in found.get(part, {}).get("found", {}).values() if isinstance(one, dict) and "error" not in one]
def pixel_rows(found, n, form="supcon"): return [one for one in entries(found, "triton", "torch") if one["pixels"] == n and one["form"] == form]

def best_share(found): return max(((one["of_matrix_rate"], f"{one['path']}, {one['precision']}") for one in pixel_rows(found, 262_144)), default=None)
def fastest_million(found): return min(((one["seconds"], f"{one['path']}, {one['precision']}") for one in pixel_rows(found, 1_000_000)), default=None)
def densecl_ratio(found): return max(((1 + one["overhead"], "median of neighbouring steps") for one in entries(found, "ratio")), default=None)
def dearest_views(found): return max(((one["shares"]["views"], name) for name, one in found.get("methods", {}).get("found", {}).items() if "error" not in one), default=None)
def float32_off(found): return max(((max(one["value_off"], one["gradient_off"]), f"{one['path']}, {one['pixels']:,} pixels") for one in entries(found, "values") if one["precision"] == "float32"), default=None)
def other_bits(found): return max(((float(not one["resumed_same_bits"]), name) for name, one in found.get("exact", {}).get("found", {}).items() if "error" not in one), default=None)

# sentence, figure, what it must be, from which parts
GOALS = [("262,144 pixels at 40 % of the matrix rate or more", best_share, lambda v: v >= .4, ("triton", "torch")), ("1,000,000 pixels, exact, forward and backward in one call, under 4 s", fastest_million, lambda v: v < 4, ("triton", "torch")),
         ("DenseCL at most 1.01 × MoCo v2", densecl_ratio, lambda v: v <= 1.01, ("ratio",)), ("views at most 5 % of a step, in every method", dearest_views, lambda v: v <= .05, ("methods",)),
         ("float32 within 1e-4 of float64, value and gradient", float32_off, lambda v: v <= 1e-4, ("values",)), ("killed and resumed to the same bits, every method", other_bits, lambda v: v == 0, ("exact",))]

def judged(found):
    "For each goal: met, missed or not run, the figure, and where it comes from. Nothing of a CPU is held against a goal."
    rows = []
    for sentence, figure, good, parts in GOALS:
        there = {name: one for name, one in found.items() if name in parts and not one["tiny"]}
        value = figure(there)
        errors = sum("error" in one for name in parts for one in there.get(name, {}).get("found", {}).values() if isinstance(one, dict))
        states = [there[name]["state"] for name in parts if name in there]
        verdict = "not run" if value is None else "met" if good(value[0]) else "missed"
        if verdict == "met" and sentence.endswith("every method") and (errors or states != ["done"]): verdict = "not run"         # some method is missing
        rows.append({"goal": sentence, "verdict": verdict, **({} if value is None else {"figure": value[0], "of": value[1]}), **({"errors": errors} if errors else {})})
    return rows

def summarise(out, names):
    "summary.json from what lies in the folder; returns it."
    found = {name: json.loads((out / f"{name}.json").read_text()) for name in names if (out / f"{name}.json").exists()}
    parts = {name: {"state": one["state"], "seconds": one.get("seconds"), "tiny": one["tiny"], "entries": len(one["found"]), "errors": [f"{key}: {entry['error']}" for key, entry in one["found"].items() if isinstance(entry, dict) and "error" in entry]} for name, one in found.items()}
    summary = {"device": sorted({one["device"] for one in found.values()}), "parts": parts, "not_run": [name for name in names if name not in found], "goals": judged(found)}
    write_json(out / "summary.json", summary)
    return summary

def table(summary):
    lines = [f"{'part':10} {'seconds':>8}  state"]
    for name, one in summary["parts"].items():
        lines.append(f"{name:10} {one['seconds'] if one['seconds'] is not None else '':>8}  {one['state']}" + (", tiny" if one["tiny"] else "") + "".join(f"\n{'':21}{error}" for error in one["errors"]))
    lines += [f"{name:10} {'':8}  not run" for name in summary["not_run"]] + [""]
    for one in summary["goals"]: lines.append(f"{one['verdict']:8} {one['goal']}" + (f": {one['figure']:.4g} ({one['of']})" if "figure" in one else ""))
    return "\n".join(lines)


# ---- one process a part --------------------------------------------------------------------------------------------------

def child(name, work, out, tiny, context):
    "A part, in a process and a session of its own."
    os.setsid()
    with open(out / f"{name}.log", "w") as log: os.dup2(log.fileno(), 1), os.dup2(log.fileno(), 2)
    import torch
    if tiny: torch.set_num_threads(1)
    device, start = torch.device("cpu" if tiny and not torch.cuda.is_available() else "cuda"), time.perf_counter()
    notes = Notes(out / f"{name}.json", part=name, device=str(device), tiny=tiny, began=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()), torch=torch.__version__)
    try:
        if device.type == "cuda": notes.found["device"] = torch.cuda.get_device_name()
        work(SimpleNamespace(out=out, device=device, tiny=tiny, context=context), notes)
    except BaseException as error:
        traceback.print_exc()
        notes.end(f"failed: {first_line(error)}", time.perf_counter() - start)
        raise SystemExit(1) from None
    notes.end("done", time.perf_counter() - start)

def run_part(name, work, limit, out, tiny, context):
    "Start a part, wait for it as long as it may take, and say in its JSON how it ended where it could not itself. Returns that state."
    path, start = out / f"{name}.json", time.perf_counter()
    path.unlink(missing_ok=True)
    process = get_context(context).Process(target=child, args=(name, work, out, tiny, context))
    process.start()
    try: process.join(limit)
    finally:                                                                                        # also after Ctrl-C
        cut = process.is_alive()
        try: os.killpg(process.pid, signal.SIGKILL)                                                 # the part, or what it left behind
        except ProcessLookupError: pass
        if cut: process.kill()                                                                      # it may not have had a session yet
    process.join()
    spent = time.perf_counter() - start
    found = json.loads(path.read_text()) if path.exists() else {"part": name, "device": "unknown", "tiny": tiny, "state": "running", "found": {}}
    if found["state"] == "running":
        found |= {"state": f"cut at its limit of {limit:.0f} s" if cut else f"died: exit code {process.exitcode}", "seconds": round(spent, 2)}
        write_json(path, found)
    print(f"{name:10} {spent:6.1f} s  {found['state']}", flush=True)
    return found["state"]

def main(arguments=None, parts=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parts or PARTS
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of the JSON files (default runs/gpu)")
    parser.add_argument("--part", action="append", choices=list(parts), help="only this part; may be given again")
    parser.add_argument("--minutes", type=float, default=8.8, help="for everything together (default 8.8)")
    parser.add_argument("--limit", type=float, help="seconds a part may take, instead of its own limit")
    parser.add_argument("--tiny", "--quick", action="store_true", help="tiny sizes; without CUDA always")
    parser.add_argument("--rounds", type=int, help="accepted for `make bench ARGS=…`, not used")
    options = parser.parse_args(arguments)
    import torch
    here, began = torch.cuda.is_available(), time.perf_counter()
    tiny, out = options.tiny or not here, options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if not here: os.environ["TRITON_INTERPRET"] = "1"                                                # must be said before triton is read
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "bench"), os.environ.get("PYTHONPATH", "")])
    os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker:UserWarning"                             # of the locks of parts that were killed
    get_context("forkserver").set_forkserver_preload(PRELOAD)
    waiting, context = list(options.part or parts), "forkserver"
    while waiting:
        name = waiting.pop(0)
        work, limit = parts[name]
        left = 60 * options.minutes - (time.perf_counter() - began)
        if left < 5: print(f"{name:10}         no time left", flush=True)
        else: state = run_part(name, work, min(left, options.limit or limit), out, tiny, context)
        if left >= 5 and context == "forkserver" and state.startswith("failed") and ("forked subprocess" in state or "initialization" in state):
            print("CUDA cannot be begun in a forked process here: from now on each part imports everything itself", flush=True)
            waiting, context = [name, *waiting], "spawn"
        summary = summarise(out, list(parts))
    print(f"\n{table(summary)}\n\nJSON in {options.out}")


if __name__ == "__main__": main()
