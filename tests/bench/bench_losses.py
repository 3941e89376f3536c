"""Seconds and peak memory of the losses, forward + backward, against what people use today.

    python tests/bench/bench_losses.py --quick            # 5 minutes on 2 cores
    python tests/bench/bench_losses.py --out losses.json  # everything up to 65,536 pixels and 128 images
    python tests/bench/bench_losses.py --device cuda      # up to a million pixels; torch path and Triton kernels side by side
    python tests/bench/bench_losses.py --cpu-time         # one thread, CPU seconds: for a machine others are using

Every case runs in a process of its own (peak = high-water mark of the resident memory above what a warm-up and the data hold, the gradient included; on CUDA max_memory_allocated). The cases of one size follow
each other in every round, each round begins with another of them, and the ratio printed is the median over rounds of the ratio within a round: a machine that is busy for a while hurts all of them alike.
The rate of a plain float32 matrix product is measured in the same run; "of matmul" is the rate at which a loss does its own products of 2·N²·D operations (torch path 2 of them, by symmetry; Triton 3; released 2 and a bit).
The pytorch-metric-learning row needs `pip install pytorch-metric-learning==2.9.0`; without it the row is skipped.
"""
import argparse
import gc
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time

D, CLASSES, TAU = 128, 12, .07


# ---- the contestants: each takes a problem and returns a scalar ------------------------------------------------------

def pixels(n, device):
    import torch
    torch.manual_seed(0)
    centres, y = torch.randn(CLASSES, D), torch.randint(0, CLASSES, (n,))
    rows = torch.nn.functional.normalize(centres[y] * .5 + torch.randn(n, D), dim=1).to(device).requires_grad_()
    return dict(rows=rows, y=y.to(device))

def ours_supcon(rows, y):
    from pixcl_nb.losses.label_losses import pixel_contrast
    return pixel_contrast(rows[None], y[None], form="supcon", temperature=TAU)

def ours_released(rows, y):
    from pixcl_nb.losses.label_losses import pixel_contrast
    return pixel_contrast(rows[None], y[None], form="released_within", temperature=TAU)

def triton_supcon(rows, y):
    from pixcl_nb.losses.streaming import use_backend
    with use_backend("triton"): return ours_supcon(rows, y)

def triton_released(rows, y):
    from pixcl_nb.losses.streaming import use_backend
    with use_backend("triton"): return ours_released(rows, y)

def ours_paper(rows, y):
    "Anchors and contrast are one set of rows here, each with a gradient of its own side."
    from pixcl_nb.losses.label_losses import pixel_contrast
    return pixel_contrast(rows[None], y[None], rows[None], y[None], form="paper_within", temperature=TAU)

def triton_paper(rows, y):
    from pixcl_nb.losses.streaming import use_backend
    with use_backend("triton"): return ours_paper(rows, y)

def dense_paper(rows, y):
    s = rows @ rows.T / TAU
    same = y[:, None] == y
    return (s.logsumexp(1) - (s * same).sum(1) / same.sum(1)).mean()

def pml(rows, y):
    from pytorch_metric_learning.losses import SupConLoss
    return SupConLoss(temperature=TAU)(rows, y)

def dense_supcon(rows, y):
    import torch
    s = rows @ rows.T / TAU
    myself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    log_p = s - s.masked_fill(myself, -torch.inf).logsumexp(1, keepdim=True)
    positive = (y[:, None] == y) & ~myself
    return -((log_p * positive).sum(1) / positive.sum(1).clamp(min=1))[positive.any(1)].mean()

def checkpoint_supcon(rows, y):
    import torch
    from torch.utils.checkpoint import checkpoint
    def block(anchors, index):
        s = anchors @ rows.T / TAU
        myself = index[:, None] == torch.arange(len(rows), device=rows.device)
        positive = (y[index][:, None] == y) & ~myself
        log_p = s - s.masked_fill(myself, -torch.inf).logsumexp(1, keepdim=True)
        return ((log_p * positive).sum(1) / positive.sum(1).clamp(min=1)).sum()
    index = torch.arange(len(rows), device=rows.device).split(1024)
    return -sum(checkpoint(block, rows[i], i, use_reentrant=False) for i in index) / len(rows)

def dense_released(rows, y):
    import torch
    s = rows @ rows.T / TAU
    positive = (y[:, None] == y).float()
    negatives = (s.exp() * (1 - positive)).sum(1, keepdim=True)
    pair = -(s.exp() / (s.exp() + negatives)).log()
    return ((pair * positive).sum(1) / positive.sum(1)).mean()

def released_steps(rows, y):
    "The same value in the steps of the released TensorFlow code: masks as float matrices, validity, ratio, logarithm."
    s, valid = rows @ rows.T / TAU, (y != 255).float()
    valid = valid[:, None] * valid
    same = (y[:, None] == y).float()
    positive, negative = same * valid, (1 - same) * valid
    e = s.exp() * valid
    ratio = e / (e + (e * negative).sum(1, keepdim=True) + (1 - valid))
    pair = -(ratio + (1 - valid)).log() * positive
    row = pair.sum(1) / positive.sum(1).clamp(min=1e-6)
    return row.sum() / (positive.sum(1) > 0).sum()

def cells(images, device):
    import torch
    torch.manual_seed(0)
    make = lambda *shape: torch.randn(*shape)
    q, k = make(images, D, 49).to(device).requires_grad_(), make(images, D, 49).to(device)
    return dict(q=q, k=k, match=torch.randint(0, 49, (images, 49)).to(device), queue=torch.nn.functional.normalize(make(65536, D), dim=1).to(device))

def ours_densecl(q, k, match, queue):
    from pixcl_nb.methods.densecl import densecl_loss
    return densecl_loss(q, k, match, queue)

def matched_rows(q, k, match):
    import torch.nn.functional as F
    t = F.normalize(k, dim=1).gather(2, match[:, None].expand_as(k))
    return (x.transpose(1, 2).reshape(-1, D) for x in (F.normalize(q, dim=1), t))

def pattern_densecl(q, k, match, queue):
    "The usual pattern: every logit, concatenated, divided, cross-entropy."
    import torch
    r, t = matched_rows(q, k, match)
    logits = torch.cat([torch.einsum("nc,nc->n", r, t)[:, None], torch.einsum("nc,kc->nk", r, queue)], 1)
    logits /= .2
    return torch.nn.functional.cross_entropy(logits, torch.zeros(len(r), dtype=torch.long, device=r.device))

def checkpoint_densecl(q, k, match, queue):
    "logaddexp(pos, LSE(neg)) in chunks of 196 rows, recomputed in the backward."
    import torch
    from torch.utils.checkpoint import checkpoint
    r, t = matched_rows(q, k, match)
    s_pos = (r * t).sum(1) / .2
    block = lambda rows: (rows @ queue.T / .2).logsumexp(1)
    L = torch.cat([checkpoint(block, rows, use_reentrant=False) for rows in r.split(196)])
    return (torch.logaddexp(s_pos, L) - s_pos).mean()

CASES = {"supcon": (pixels, dict(ours=ours_supcon, triton=triton_supcon, pml=pml, dense=dense_supcon, checkpoint=checkpoint_supcon)),
         "released_within": (pixels, dict(ours=ours_released, triton=triton_released, dense=dense_released, steps=released_steps)),
         "paper_within": (pixels, dict(ours=ours_paper, triton=triton_paper, dense=dense_paper)),
         "densecl": (cells, dict(ours=ours_densecl, pattern=pattern_densecl, checkpoint=checkpoint_densecl))}
PRODUCTS = {("supcon", "ours"): 2, ("supcon", "triton"): 3, ("released_within", "ours"): 2, ("released_within", "triton"): 3, ("paper_within", "ours"): 3, ("paper_within", "triton"): 4}   # of 2·N²·D operations that each does
MATRICES = dict(pml=12, dense=6, steps=12, pattern=5)      # N×N (or rows × queue) float32 matrices a contestant needs, to skip what would not fit


# ---- one case, in this process ----------------------------------------------------------------------------------------

def status_bytes(field):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(field))

def memory_now(device):
    "Bytes held now; from here on peak_bytes counts anew."
    if device == "cuda":
        import torch
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    with open("/proc/self/clear_refs", "w") as file: file.write("5")      # forget the high-water mark of making the data
    return status_bytes("VmRSS")

def peak_bytes(device):
    import torch
    return torch.cuda.max_memory_allocated() if device == "cuda" else status_bytes("VmHWM")

def matmul_rate(device, threads, clock):
    "Operations a second of a float32 product of 4096×4096 matrices (16,384 on CUDA, where 'tf32' is the same with tensor cores)."
    import torch
    torch.set_num_threads(threads)
    n, rates = (16384 if device == "cuda" else 4096), {}
    a, b = torch.randn(n, n, device=device), torch.randn(n, n, device=device)
    for name, tf32 in (("float32", False), ("tf32", True)) if device == "cuda" else (("float32", False),):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        seconds = []
        for _ in range(4):
            if device == "cuda": torch.cuda.synchronize()
            start = clock()
            a @ b
            if device == "cuda": torch.cuda.synchronize()
            seconds.append(clock() - start)
        rates[name] = 2 * n**3 / min(seconds)
    return rates

def run_case(problem, name, size, repeats, device, threads, clock, precision):
    import torch
    torch.set_num_threads(threads)
    if problem == "matmul": return matmul_rate(device, threads, clock)
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    if name == "triton":
        from pixcl_nb.losses import triton as streaming_triton
        streaming_triton.PRECISION["name"] = precision
    make, losses = CASES[problem]
    def once(arguments):
        leaf = arguments.get("rows", arguments.get("q"))
        leaf.grad = None
        start = clock()
        loss = losses[name](**arguments)
        loss.backward()
        if device == "cuda": torch.cuda.synchronize()
        return clock() - start, loss.item(), leaf.grad.norm().item()
    warm = make(256 if problem != "densecl" else 1, device)
    once(warm); once(warm)
    arguments = make(size, device)
    gc.collect()
    before = memory_now(device)
    results = [once(arguments) for _ in range(repeats)]
    return dict(seconds=[r[0] for r in results], value=results[-1][1], gradient=results[-1][2], peak_mb=(peak_bytes(device) - before) / 2**20)


# ---- all cases, each in a fresh process, in alternating rounds -----------------------------------------------------------

def fits(problem, name, size, device):
    rows, columns = (size * 49, 65536) if problem == "densecl" else (size, size)
    need = MATRICES.get(name, 0) * rows * columns * 4
    if device == "cuda":
        import torch
        return need < .8 * torch.cuda.get_device_properties(0).total_memory
    available = next(int(line.split()[1]) * 1024 for line in open("/proc/meminfo") if line.startswith("MemAvailable"))
    return need < .8 * available

def call_case(problem, name, size, repeats, options):
    "One case in a fresh process; None if it failed."
    command = [sys.executable, "-W", "ignore", __file__, "--case", problem, name, str(size), str(repeats), "--device", options.device, "--threads", str(options.threads), "--precision", options.precision] + ["--cpu-time"] * options.cpu_time
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode: return print(f"  {name} failed: {run.stderr.strip().splitlines()[-1:]}", flush=True)
    return json.loads(run.stdout.strip().splitlines()[-1])

def contestants(problem, size, options):
    "Who can take part: installed, fits in memory, and within a sensible time."
    def able(name):
        if name == "pml": return importlib.util.find_spec("pytorch_metric_learning") and fits(problem, name, size, options.device)
        if name == "triton": return options.device == "cuda" and importlib.util.find_spec("triton")
        return fits(problem, name, size, options.device) and not (name == "checkpoint" and size > 16384)
    return [name for name in CASES[problem][1] if able(name)]

def measure(problem, size, rounds, repeats, options):
    "Every contestant in every round; a round begins with another one each time. The ratio is the median of the ratios within a round."
    names, results = contestants(problem, size, options), {}
    for turn in range(rounds):
        order, found = names[turn % len(names):] + names[:turn % len(names)], {}
        for name in order:
            run = call_case(problem, name, size, repeats, options)
            if run: found[name] = run
        for name, run in found.items():
            ratio = statistics.median(run["seconds"]) / statistics.median(found["ours"]["seconds"]) if "ours" in found else float("nan")
            results.setdefault(name, []).append(run | dict(ratio=ratio))
    return {name: dict(seconds=statistics.median(s for r in runs for s in r["seconds"]), fastest=min(s for r in runs for s in r["seconds"]), peak_mb=max(r["peak_mb"] for r in runs),
                       ratio=statistics.median(r["ratio"] for r in runs), ratios=[round(r["ratio"], 3) for r in runs], value=runs[0]["value"], gradient=runs[0]["gradient"]) for name, runs in results.items()}

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="N = 1024 and 8192, 32 images, 2 rounds")
    parser.add_argument("--out", help="write all figures as JSON here")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--cpu-time", action="store_true", help="one thread, CPU seconds of the process instead of wall seconds")
    parser.add_argument("--problems", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--sizes", nargs="+", type=int, help="pixels (supcon, released_within) instead of the usual ones")
    parser.add_argument("--rounds", type=int, help="default 3, with --quick 2")
    parser.add_argument("--precision", default="ieee", choices=["ieee", "tf32x3", "tf32"], help="of the products on CUDA: ieee float32; tf32x3 (Triton only; torch stays ieee); tf32 for both")
    parser.add_argument("--case", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cpu_time: options.threads = 1
    clock = time.process_time if options.cpu_time else time.perf_counter
    if options.case:
        problem, name, size, repeats = options.case
        return print(json.dumps(run_case(problem, name, int(size), int(repeats), options.device, options.threads, clock, options.precision)))
    rounds = options.rounds or (2 if options.quick else 3)
    largest = [2**k for k in range(10, 21)] if options.device == "cuda" else [1024, 2048, 4096, 8192, 16384, 32768, 65536]
    sizes = options.sizes or ([1024, 8192] if options.quick else largest)
    report = dict(command=" ".join(sys.argv), machine=platform.processor() or platform.machine(), threads=options.threads, clock="CPU seconds" if options.cpu_time else "wall seconds", load=os.getloadavg(), precision=options.precision, rows=[])
    if options.device == "cuda":
        import torch
        report["machine"] = torch.cuda.get_device_name()
    report["matmul"] = call_case("matmul", "rate", 0, 1, options)
    print("matrix product:", ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in report["matmul"].items()), flush=True)
    rate = report["matmul"]["tf32" if options.precision != "ieee" and "tf32" in report["matmul"] else "float32"]
    for problem in options.problems:
        for size in ([32] if options.quick else [32, 128]) if problem == "densecl" else sizes:
            repeats = 5 if problem == "densecl" and size <= 32 else 3 if problem == "densecl" else max(1, min(21, 16384 // size * 2))
            for name, r in measure(problem, size, rounds, repeats, options).items():
                if (problem, name) in PRODUCTS: r["of_matmul"] = PRODUCTS[problem, name] * 2 * size**2 * D / r["seconds"] / rate
                report["rows"].append(dict(problem=problem, size=size, loss=name, **r))
                share = f"   {r['of_matmul']:4.0%} of matmul" if "of_matmul" in r else ""
                print(f"{problem:16} {size:7} {name:11} {r['seconds']:8.4f} s  {r['peak_mb']:8.0f} MB   x{r['ratio']:5.2f} of ours {r['ratios']}   value {r['value']:.5f}  |gradient| {r['gradient']:.5g}{share}", flush=True)
    report["load_after"] = os.getloadavg()
    if options.out:
        from pixcl_nb.checks import atomic_write
        atomic_write(options.out, json.dumps(report, indent=1))

if __name__ == "__main__": main()
