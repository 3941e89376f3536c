"""Seconds and peak memory of clustering and assigning pixel features, against scikit-learn's KMeans from the same starting rows.

    python tests/bench/bench_kmeans.py --quick                 # under a minute on 2 cores
    python tests/bench/bench_kmeans.py --out kmeans.json       # also the 50-million-pixel assignment through a whole data set
    python tests/bench/bench_kmeans.py --pixels 5000000        # that assignment at another size
    python tests/bench/bench_kmeans.py --cpu-time              # one thread, CPU seconds: for a machine others are using

fit:    200,000 × 128 unit rows, 50 clusters, 20 iterations; cluster_features and KMeans(algorithm="lloyd", tol=0) start from the same 50 rows; also each with its own k-means++ start.
assign: 1,000,000 × 128 rows to 64 centres; nearest and KMeans.predict.
stream: fit_auxiliary_labels' second pass over a data set of that many pixels (1024 × 1024 images, 128 channels at stride 8, mixed bilinearly for every pixel, 64 clusters, PNGs written).
Every case runs in a process of its own; peak = growth of ru_maxrss from the data and a warm-up to the end. The cases of one kind follow each other in every round, so a busy
machine hurts all of them: compare the ratios of one run only.
"""
import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time

D = 128


def unit_rows(n, seed=0):
    "Rows around 80 directions, as features of pixels are: not one cloud, not clean clusters."
    import torch
    generator = torch.Generator().manual_seed(seed)
    centres, rows = torch.randn(80, D, generator=generator), torch.empty(n, D)
    for block in rows.split(50_000): block.copy_(torch.nn.functional.normalize(centres[torch.randint(0, 80, (len(block),), generator=generator)] + 1.5 * torch.randn(len(block), D, generator=generator), dim=1))
    return rows


# ---- the contestants: prepare(n, k) → a function that returns (inertia or None) -------------------------------------

def fit_ours(n, k, given=True):
    from pixcl_nb.positives.clustering import cluster_features
    rows = unit_rows(n)
    init = rows[:k].clone() if given else None
    cluster_features(rows[:5000], k)
    return lambda: cluster_features(rows, k, iterations=20, init=init).inertia / n

def fit_sklearn(n, k, given=True):
    from sklearn.cluster import KMeans
    rows = unit_rows(n).numpy()
    init = rows[:k].copy() if given else "k-means++"
    KMeans(k, init=rows[:k], n_init=1, max_iter=2).fit(rows[:5000])
    return lambda: float(KMeans(k, init=init, n_init=1, max_iter=20, tol=0, algorithm="lloyd", random_state=0).fit(rows).inertia_) / n

def assign_ours(n, k):
    from pixcl_nb.positives.clustering import nearest
    rows = unit_rows(n)
    nearest(rows[:5000], rows[:k])
    return lambda: nearest(rows, rows[:k])

def assign_sklearn(n, k):
    from sklearn.cluster import KMeans
    rows = unit_rows(n).numpy()
    found = KMeans(k, init=rows[:k], n_init=1, max_iter=1, tol=0).fit(rows[:5000])
    found.cluster_centers_ = rows[:k].copy()
    found.predict(rows[:5000])
    return lambda: found.predict(rows)

def stream(n, k):
    import torch
    from torch import nn
    from pixcl_nb.positives.auxiliary_labels import label_images, write_ids
    from pixcl_nb.positives.clustering import Labeller
    class Scenes:
        "Random images, made when asked for: nothing is held."
        extents = None
        def __len__(self): return -(-n // 2**20)
        def __getitem__(self, i): return torch.randint(0, 256, (3, 1024, 1024), dtype=torch.uint8, generator=torch.Generator().manual_seed(i)), None
    class Features(nn.Module):
        channels, stride = D, 8
        def __init__(self): super().__init__(); self.layer = nn.Conv2d(3, D, 8, 8)
        def forward(self, images): return self.layer(images)
    torch.manual_seed(0)
    data, encoder, labeller, folder = Scenes(), Features(), Labeller(unit_rows(k), torch.arange(k), torch.full((k,), 1e9)), tempfile.TemporaryDirectory()
    def once(indices):
        for index, ids in label_images(encoder, data, labeller, indices, 1, 255, batch_size=1): write_ids(f"{folder.name}/{index}.png", ids)
    once([0])
    return lambda: once(range(len(data)))

CASES = {"fit, same start": (dict(ours=fit_ours, sklearn=fit_sklearn), 200_000, 50),
         "fit, own start": (dict(ours=lambda n, k: fit_ours(n, k, False), sklearn=lambda n, k: fit_sklearn(n, k, False)), 200_000, 50),
         "assign": (dict(ours=assign_ours, sklearn=assign_sklearn), 1_000_000, 64),
         "stream": (dict(ours=stream), None, 64)}


# ---- one case, in this process ----------------------------------------------------------------------------------------

def peak_mb(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

def run_case(problem, name, size, repeats, threads, clock):
    import torch
    torch.set_num_threads(threads)
    contestants, _, k = CASES[problem]
    work = contestants[name](size, k)
    before, seconds, value = peak_mb(), [], None
    for _ in range(repeats):
        start = clock()
        value = work()
        seconds.append(clock() - start)
    return dict(seconds=seconds, value=value if isinstance(value, float) else None, peak_mb=peak_mb() - before, peak_total_mb=peak_mb())

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, and a streamed assignment of 2 million pixels")
    parser.add_argument("--out", help="write all figures as JSON here")
    parser.add_argument("--device", default="cpu", choices=["cpu"], help="scikit-learn runs on the CPU")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--cpu-time", action="store_true", help="one thread, CPU seconds of the process instead of wall seconds")
    parser.add_argument("--problems", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--pixels", type=int, help="pixels of the streamed assignment (default 50 million; 2 million with --quick)")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--case", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cpu_time: options.threads = 1
    clock = time.process_time if options.cpu_time else time.perf_counter
    if options.case:
        problem, name, size, repeats = options.case
        return print(json.dumps(run_case(problem, name, int(size), int(repeats), options.threads, clock)))
    environment = {**os.environ, **{name: str(options.threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}}
    pixels = options.pixels or (2_000_000 if options.quick else 50_000_000)
    report = dict(command=" ".join(sys.argv), machine=platform.processor() or platform.machine(), threads=options.threads, clock="CPU seconds" if options.cpu_time else "wall seconds", load=os.getloadavg(), rows=[])
    for problem in options.problems:
        contestants, size, k = CASES[problem]
        size, results = size or pixels, {}
        for _ in range(1 if problem == "stream" else options.rounds or (1 if options.quick else 3)):
            for name in contestants:
                command = [sys.executable, "-W", "ignore", __file__, "--case", problem, name, str(size), "1" if problem == "stream" else "3", "--threads", str(options.threads)] + ["--cpu-time"] * options.cpu_time
                run = subprocess.run(command, capture_output=True, text=True, env=environment)
                if run.returncode: sys.exit(f"{problem}, {name} failed: {run.stderr.strip()[-2000:]}")
                results.setdefault(name, []).append(json.loads(run.stdout.strip().splitlines()[-1]))
        theirs = results.get("sklearn")
        for name, runs in results.items():
            row = dict(problem=problem, size=size, name=name, seconds=statistics.median(s for r in runs for s in r["seconds"]), peak_mb=max(r["peak_mb"] for r in runs),
                       peak_total_mb=max(r["peak_total_mb"] for r in runs), value=statistics.median(r["value"] for r in runs) if runs[0]["value"] is not None else None)
            row["ratio"] = row["seconds"] / statistics.median(s for r in theirs for s in r["seconds"]) if theirs else None
            report["rows"].append(row)
            print(f"{problem:16} {size:10,} {name:8} {row['seconds']:8.2f} s" + (f"   x{row['ratio']:.2f} of sklearn" if theirs else "") + f"   +{row['peak_mb']:.0f} MB (process {row['peak_total_mb']:.0f} MB)"
                  + (f"   mean squared distance {row['value']:.5f}" if row["value"] is not None else ""), flush=True)
    report["load_after"] = os.getloadavg()
    if options.out:
        from pixcl_nb.checks import atomic_write
        atomic_write(options.out, json.dumps(report, indent=1))

if __name__ == "__main__": main()
