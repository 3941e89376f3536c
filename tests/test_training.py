"""The loop: one result for one (seed, step, rank), whatever happened in between."""
import dataclasses
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from toy import ToyData, ToyMethod

import pixcl_nb.checks
import pixcl_nb.training.checkpoints
import pixcl_nb.training.settings
from pixcl_nb.training.checkpoints import (
    best_checkpoint, last_checkpoint, read_broken, read_checkpoint, room_on, save_checkpoint, term_mean)
from pixcl_nb.training.loop import (
    BatchOrder, batches, check_terms, gpu_busy, History, Meter, pretrain, progress_bar, replay, wake)
from pixcl_nb.training.settings import (
    choose_device, LARS, learning_rate, make_optimizer, step_seed, TrainConfig, TrainingStopped)

CONFIG = TrainConfig(steps=40, batch_size=8, lr=.1, device="cpu", seed=3, checkpoint_every=7, progress=False)
same = lambda a, b: all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


class Kill(Exception): pass


def run(folder=None, moments=(), config=CONFIG, method=ToyMethod):
    "Run with interruptions at the given steps, then to the end."
    for moment in moments:
        def cut(step, terms, method):
            if step == moment: raise Kill
        with pytest.raises(Kill): pretrain(method(), ToyData(), config, run_dir=folder, on_step=cut)
    trained = method()
    return trained, pretrain(trained, ToyData(), config, run_dir=folder)


@pytest.fixture(scope="module")
def unkilled(): return run()


def test_twenty_kills_end_in_the_same_bits(tmp_path, unkilled):
    moments = sorted(random.Random(0).choices(range(40), k=20))
    # a moment that the run has already passed would never come, so each is at or after the last checkpoint
    trained, history = run(tmp_path, [m for m in moments if m < 39])
    assert same(trained, unkilled[0]) and history["loss"] == unkilled[1]["loss"]
    assert [row["step"] for row in map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())] == list(range(40))


def test_sigkill_of_a_process(tmp_path, unkilled):
    "The real thing: a process that is killed with SIGKILL while training."
    code = (f"import sys, time; sys.path[:0] = [{str(Path(__file__).parent)!r}]\nfrom toy import *; from pixcl_nb.training import *\n"
            f"pretrain(ToyMethod(), ToyData(), TrainConfig(**{dataclasses.asdict(CONFIG)!r}), run_dir={str(tmp_path)!r}, on_step=lambda *a: time.sleep(.05))")
    process = subprocess.Popen([sys.executable, "-c", code])
    while not list(tmp_path.glob("step-*.pt")) and process.poll() is None: time.sleep(.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert same(run(tmp_path)[0], unkilled[0])


def test_sigterm_saves_and_exits(tmp_path, unkilled):
    code = (f"import sys, time; sys.path[:0] = [{str(Path(__file__).parent)!r}]\nfrom toy import *; from pixcl_nb.training import *\n"
            f"pretrain(ToyMethod(), ToyData(), TrainConfig(**{dict(dataclasses.asdict(CONFIG), checkpoint_every=0)!r}), run_dir={str(tmp_path)!r}, on_step=lambda *a: (print('step', flush=True), time.sleep(.05)))")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(5): process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM and "stopped by signal after step" in errors
    assert last_checkpoint(tmp_path)[1]["step"] >= 5
    assert same(run(tmp_path)[0], unkilled[0])


def test_workers_change_nothing(unkilled):
    assert same(run(config=dataclasses.replace(CONFIG, workers=2))[0], unkilled[0])


def test_global_generator_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    run()
    assert torch.equal(before, torch.get_rng_state())


def test_seed_changes_the_run(unkilled):
    assert not same(run(config=dataclasses.replace(CONFIG, seed=4))[0], unkilled[0])


def test_truncated_and_foreign_checkpoints_are_passed_over(tmp_path, unkilled, capsys):
    pretrain(ToyMethod(), ToyData(), CONFIG, run_dir=tmp_path, on_step=lambda step, *_: "stop" if step == 20 else None)
    newest = sorted(tmp_path.glob("step-*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:200])
    (tmp_path / "step-99999999-0123456789abcdef.pt").write_bytes(b"not a checkpoint")
    trained, _ = run(tmp_path)
    assert same(trained, unkilled[0])
    assert capsys.readouterr().err.count("going back to the checkpoint before it") == 2


def test_pickled_code_is_not_executed(tmp_path):
    class Bomb:
        def __reduce__(self): return (os.system, ("touch /tmp/pixcl_bomb",))
    path = save_checkpoint(tmp_path, 1, {"step": 1})
    import hashlib, io
    buffer = io.BytesIO(); torch.save({"step": Bomb()}, buffer)
    bad = tmp_path / f"step-00000002-{hashlib.sha256(buffer.getvalue()).hexdigest()[:16]}.pt"
    bad.write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="not a checkpoint of pixcl_nb"): read_checkpoint(bad)
    assert not Path("/tmp/pixcl_bomb").exists() and last_checkpoint(tmp_path)[0] == path


def test_other_settings_are_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(ValueError, match=r"run_dir: holds a run with other settings: lr \(was 0.1, now 0.2\)"): run(tmp_path, config=dataclasses.replace(CONFIG, lr=.2))
    with pytest.raises(ValueError, match="method"): run(tmp_path, method=lambda: ToyMethod(noise=.2))
    run(tmp_path, config=dataclasses.replace(CONFIG, workers=1, checkpoint_every=3))


def test_fresh_start_removes_the_old_run(tmp_path):
    run(tmp_path)
    history = pretrain(ToyMethod(), ToyData(), dataclasses.replace(CONFIG, steps=5), run_dir=tmp_path, resume=False)
    assert len(history) == 5 and last_checkpoint(tmp_path)[1]["step"] == 5


def test_nan_stops_and_names_the_term(tmp_path):
    class Broken(ToyMethod):
        def loss(self, images, **keywords):
            terms = super().loss(images, **keywords)
            return {**terms, "dense": terms["loss"] * (float("nan") if self.steps >= 10 else 1)}
    with pytest.raises(TrainingStopped, match="step 10: the term 'dense' is nan"): pretrain(Broken(), ToyData(), CONFIG, run_dir=tmp_path)
    assert last_checkpoint(tmp_path)[1]["step"] == 7


def test_bad_settings():
    with pytest.raises(ValueError, match="optimizer: unknown name 'sdg'"): TrainConfig(steps=1, optimizer="sdg")
    with pytest.raises(ValueError, match="batch_size: 65 images"): BatchOrder(64, 65)
    with pytest.raises(ValueError, match="device: cannot use 'gpu'"): choose_device("gpu")
    with pytest.raises(ValueError, match="method: has no parameter"): pretrain(ToyMethod().requires_grad_(False), ToyData(), CONFIG)


def test_a_method_that_needs_labels_is_refused_data_without_any():
    class Labelled(ToyMethod): uses_labels = True
    class Ignored(ToyData):
        def __getitem__(self, i): return self.images[i], torch.full((4, 4), 255)
    with pytest.raises(ValueError, match="data: .* has no labelled pixel"): pretrain(Labelled(), Ignored(), CONFIG)
    assert len(pretrain(Labelled(), ToyData(), dataclasses.replace(CONFIG, steps=2))) == 2


def test_images_of_different_sizes():
    class Mixed(ToyData):
        def __getitem__(self, i): return (torch.zeros(3, 4 + i % 2, 4, dtype=torch.uint8), torch.zeros(4 + i % 2, 4).long())
    with pytest.raises(ValueError, match="data: images of different sizes"): pretrain(ToyMethod(), Mixed(), CONFIG)


def test_every_epoch_shows_every_image_once():
    order = BatchOrder(20, 5, seed=1)
    for epoch in range(3): assert sorted(sum((order.indices(4 * epoch + s) for s in range(4)), [])) == list(range(20))
    assert order.indices(0) != order.indices(4)


def test_ranks_share_the_batch_of_one_process():
    for step in range(5): assert sorted(sum((BatchOrder(64, 4, 0, rank, 2).indices(step) for rank in range(2)), [])) == sorted(BatchOrder(64, 8, 0).indices(step))


def test_step_seed_has_no_neighbours():
    assert len({step_seed(seed, step, rank) for seed in range(8) for step in range(50) for rank in range(4)}) == 8 * 50 * 4


def test_schedule_ends_at_zero():
    for schedule in ("cosine", "poly"):
        config = TrainConfig(steps=100, lr=1., warmup_steps=10, schedule=schedule)
        rates = [learning_rate(config, step) for step in range(100)]
        assert max(rates) == 1 and rates[-1] < .05 and all(a >= b for a, b in zip(rates[10:], rates[11:]))


def test_a_torchrun_environment_nobody_joined_is_an_error(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="each would train alone"): pretrain(ToyMethod(), ToyData(), CONFIG)


# ---- options of the loop -------------------------------------------------------------------------------------------------

change = lambda **changes: dataclasses.replace(CONFIG, **changes)
near = lambda a, b, tolerance=1e-5: all(torch.allclose(x.float(), y.float(), atol=tolerance) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
quiet = lambda: ToyMethod(noise=0.)


class Cells(nn.Module):
    "An encoder without batch normalisation, so that an image's features do not depend on the rest of its batch."
    channels, stride = 6, 8
    def __init__(self): super().__init__(); self.layer = nn.Conv2d(3, 6, 8, 8)
    def forward(self, images): return self.layer(images)


def queue_method(name, **settings):
    from pixcl_nb.images.compositor import CopyPasteConfig
    from pixcl_nb.methods.contract import create_method
    from pixcl_nb.images.views import ViewConfig
    view = ViewConfig(size=32, scale=(1., 1.), ratio=(1., 1.), flip=0., jitter=0., grayscale=0., blur=0.)
    own = dict(compose=CopyPasteConfig(size=32, stride=8, view=view), decoder="fcn", decoder_width=4) if name == "cp2" else dict(view=view)
    with torch.random.fork_rng(): torch.manual_seed(0); return create_method(name, Cells(), seed=0, queue_size=20, **own, **settings)


class Squares(torch.utils.data.Dataset):
    extents = None
    def __init__(self): self.images = torch.randint(0, 256, (24, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    def __len__(self): return 24
    def __getitem__(self, i): return self.images[i], torch.zeros(32, 32, dtype=torch.long)


@pytest.mark.parametrize("name", ["moco", "densecl"])
def test_a_batch_in_parts_is_the_whole_batch_for_queue_methods(name):
    methods = [queue_method(name) for _ in range(2)]
    for method, parts in zip(methods, (1, 3)): pretrain(method, Squares(), TrainConfig(steps=4, batch_size=6, lr=.1, accumulate=parts, device="cpu", progress=False))
    assert near(*methods) and not same(*methods) and int(methods[1].queue.filled) == 20
    assert (methods[0].branch.projector.layers[0].weight - queue_method(name).branch.projector.layers[0].weight).abs().max() > 1e-3


def test_all_parts_keys_join_the_queue():
    method = queue_method("cp2")
    pretrain(method, Squares(), TrainConfig(steps=2, batch_size=6, lr=.1, accumulate=2, device="cpu", progress=False))
    assert int(method.queue.filled) == 12


def test_parts_of_a_batch_average_their_terms_and_gradients():
    whole, parts = quiet(), quiet()
    a, b = (pretrain(method, ToyData(), change(accumulate=count)) for method, count in ((whole, 1), (parts, 4)))
    assert near(whole, parts) and a["loss"] == pytest.approx(b["loss"], abs=1e-6)
    with pytest.raises(ValueError, match="accumulate: 3 equal parts cannot be made of batch_size 8"): change(accumulate=3)


def test_a_run_in_parts_resumes_to_the_same_bits(tmp_path):
    config = change(accumulate=2, optimizer="lars", schedule="poly", warmup_steps=5, lr=5.)
    whole, resumed = ToyMethod(), ToyMethod()
    pretrain(whole, ToyData(), config)
    pretrain(ToyMethod(), ToyData(), config, run_dir=tmp_path, on_step=lambda step, *_: "stop" if step == 11 else None)
    pretrain(resumed, ToyData(), config, run_dir=tmp_path)
    assert same(whole, resumed) and not same(whole, ToyMethod())


def test_lars_is_the_papers_formula():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    weights, velocities = [p.detach().double() for p in net.parameters()], [0.] * 4
    optimizer = LARS(net.parameters(), lr=2., momentum=.8, weight_decay=.05, trust=.02)
    for step in range(3):
        net.zero_grad()
        net(torch.randn(7, 5, generator=torch.Generator().manual_seed(step))).square().sum().backward()
        optimizer.step()
        for k, gradient in enumerate(p.grad.double() for p in net.parameters()):
            w, matrix = weights[k], weights[k].ndim > 1
            rate = .02 * w.norm() / (gradient.norm() + .05 * w.norm()) if matrix else 1.
            velocities[k] = .8 * velocities[k] + 2. * rate * (gradient + (.05 * w if matrix else 0.))
            weights[k] = w - velocities[k]
    for p, w in zip(net.parameters(), weights): torch.testing.assert_close(p.detach().double(), w, atol=1e-5, rtol=1e-4)


def test_lars_with_nothing_to_divide_by():
    zero, still = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([zero, still, nn.Parameter(torch.ones(3))], lr=1., momentum=0., weight_decay=0.)
    zero.grad, still.grad = torch.ones(2, 2), torch.zeros(2, 2)
    assert optimizer.step(lambda: torch.tensor(3.)) == 3.
    assert torch.equal(zero.detach(), -torch.ones(2, 2)) and torch.equal(still.detach(), torch.ones(2, 2))
    with pytest.raises(ValueError, match="fused: LARS has no fused form"): change(optimizer="lars", fused=True)


@pytest.mark.parametrize("optimizer, lr", [("sgd", .1), ("adamw", .01)])
def test_fused_is_the_same_optimiser(optimizer, lr):
    plain, fused = quiet(), quiet()
    for method, wanted in ((plain, False), (fused, True)): pretrain(method, ToyData(), change(optimizer=optimizer, lr=lr, fused=wanted))
    assert near(plain, fused)
    assert make_optimizer(fused, change(optimizer=optimizer, fused=True)).param_groups[0]["fused"]


def test_compiled_networks_compute_the_same(monkeypatch):
    original, compiled = nn.Module.compile, []
    monkeypatch.setattr(nn.Module, "compile", lambda self: (compiled.append(self), original(self, backend="aot_eager")))     # traced as for real, without minutes of a C++ compiler
    methods = [queue_method("moco") for _ in range(2)]
    for method, wanted in zip(methods, (False, True)): pretrain(method, Squares(), TrainConfig(steps=3, batch_size=6, lr=.1, compile=wanted, device="cpu", progress=False))
    assert compiled == [methods[1].branch, methods[1].slow] and near(*methods)
    assert methods[1].branch._compiled_call_impl is None and list(methods[0].state_dict()) == list(methods[1].state_dict())


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_for_real():
    methods = [queue_method("moco") for _ in range(2)]
    for method, wanted in zip(methods, (False, True)): pretrain(method, Squares(), TrainConfig(steps=3, batch_size=6, lr=.1, compile=wanted, device="cpu", progress=False))
    assert near(*methods, 1e-4)


def test_channels_last_and_bf16_train_the_same_method():
    methods = [queue_method("densecl") for _ in range(3)]
    for method, more in zip(methods, ({}, {"channels_last": True}, {"precision": "bf16"})): pretrain(method, Squares(), TrainConfig(steps=3, batch_size=6, lr=.1, device="cpu", progress=False, **more))
    assert near(*methods[:2]) and near(methods[0], methods[2], .05) and not near(methods[0], methods[2], 1e-6)
    assert methods[1].encoder.layer.weight.is_contiguous(memory_format=torch.channels_last)


def test_auto_takes_the_best_device_there_is(monkeypatch):
    tried = []
    monkeypatch.setattr(pixcl_nb.training.settings.torch, "empty", lambda *a, device: tried.append(device))
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        assert choose_device("auto").type == expected == tried[-1]


def test_determinism_is_asked_for_and_put_back(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    inside = []
    pretrain(ToyMethod(), ToyData(), change(steps=1, deterministic=True), on_step=lambda *_: inside.append((torch.are_deterministic_algorithms_enabled(), os.environ.get("CUBLAS_WORKSPACE_CONFIG"))))
    assert inside == [(True, ":4096:8")] and not torch.are_deterministic_algorithms_enabled()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", ["moco", "densecl", "cp2"])
def test_cuda_resumes_to_the_same_bits(name, tmp_path):
    config = TrainConfig(steps=6, batch_size=6, lr=.1, device="cuda", deterministic=True, precision="bf16", fused=True, checkpoint_every=2, progress=False)
    whole, resumed = queue_method(name), queue_method(name)
    history = pretrain(whole, Squares(), config)
    pretrain(queue_method(name), Squares(), dataclasses.replace(config, log_every=1), run_dir=tmp_path, on_step=lambda step, *_: "stop" if step == 2 else None)
    pretrain(resumed, Squares(), config, run_dir=tmp_path)
    assert same(whole, resumed) and len(history) == 6 and 0 <= history.rows[-1]["input_wait"] <= 1


# ---- nothing lost ----------------------------------------------------------------------------------------------------------

def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path, unkilled, monkeypatch):
    "The disk fills while the third checkpoint is written: one line says so, and with room again the run ends in the same bits."
    write, count = pixcl_nb.checks.os.fsync, iter(range(100))
    def fsync(handle):
        if next(count) == 5: raise OSError(errno.ENOSPC, "No space left on device")         # 0 to 2: config, log, step 7 …
        return write(handle)
    monkeypatch.setattr(pixcl_nb.checks.os, "fsync", fsync)
    with pytest.raises(TrainingStopped, match=r"the disk of .* is full; step-000000\d\d-\w+.pt is the last good checkpoint; free some space") as caught: run(tmp_path)
    assert "\n" not in str(caught.value) and not list(tmp_path.glob(".*tmp"))
    monkeypatch.undo()
    assert last_checkpoint(tmp_path)[1]["step"] in (14, 21)
    assert same(run(tmp_path)[0], unkilled[0])


def test_a_really_full_disk(tmp_path, unkilled):
    "A file system of 64 kB, filled up from the outside."
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True).returncode: pytest.skip("mounting a small disk needs root")
    try:
        def fill(step, terms, method):
            if step == 16:
                with pytest.raises(OSError), open(disk / "ballast", "wb") as file:
                    while True: file.write(b"0" * 512); file.flush()
        with pytest.raises(TrainingStopped, match="is full; step-00000014"): pretrain(ToyMethod(), ToyData(), CONFIG, run_dir=disk / "run", on_step=fill)
        (disk / "ballast").unlink()
        trained, history = run(disk / "run")
        assert same(trained, unkilled[0]) and history["loss"] == unkilled[1]["loss"]
    finally: subprocess.run(["umount", str(disk)], check=True)


def test_other_errors_of_the_disk_stay_what_they_are(tmp_path):
    with pytest.raises(PermissionError), room_on(tmp_path): raise PermissionError(errno.EACCES, "no")
    with pytest.raises(TrainingStopped, match="there is no checkpoint yet"), room_on(tmp_path): raise OSError(errno.EDQUOT, "quota")


def test_best_is_kept_besides_the_last(tmp_path):
    def judge(step, terms, method): terms["score"] = -abs(step - 17) / 10                     # best between steps 14 and 20
    run_dir = tmp_path / "run"
    pretrain(ToyMethod(), ToyData(), change(best="+score"), run_dir=run_dir, on_step=judge)
    assert [path.name.split("-")[1] for path in sorted(run_dir.glob("best-*.pt"))] == ["00000021"] == [f"{best_checkpoint(run_dir)[1]['step']:08d}"]
    assert [path.name.split("-")[1] for path in sorted(run_dir.glob("step-*.pt"))] == ["00000035", "00000040"]
    assert "score" in json.loads((run_dir / "log.jsonl").read_text().splitlines()[0])
    # a killed run keeps the same best
    def cut(step, terms, method):
        judge(step, terms, method)
        if step == 30: raise Kill
    with pytest.raises(Kill): pretrain(ToyMethod(), ToyData(), change(best="+score"), run_dir=tmp_path / "cut", on_step=cut)
    pretrain(ToyMethod(), ToyData(), change(best="+score"), run_dir=tmp_path / "cut", on_step=judge)
    assert best_checkpoint(tmp_path / "cut")[0].name.split("-")[1] == "00000021"
    # killed between a checkpoint and its second name; the only name cut short
    newest = best_checkpoint(tmp_path / "cut")[0]
    copied = tmp_path / "cut" / newest.name.replace("best-", "step-")
    shutil.copy(newest, copied), newest.write_bytes(b"cut short")
    for later in list((tmp_path / "cut").glob("step-*.pt")): later == copied or later.unlink()
    pretrain(ToyMethod(), ToyData(), change(best="+score"), run_dir=tmp_path / "cut", on_step=judge)
    assert best_checkpoint(tmp_path / "cut")[0].name.split("-")[1] == "00000021"
    pretrain(ToyMethod(), ToyData(), change(best="", steps=9), run_dir=tmp_path / "none")
    assert best_checkpoint(tmp_path / "none") is None and term_mean([{"loss": 2.}], "") is None


def test_a_checkpoint_of_an_earlier_version_still_resumes(tmp_path, unkilled):
    pretrain(ToyMethod(), ToyData(), CONFIG, run_dir=tmp_path, on_step=lambda step, *_: "stop" if step == 20 else None)
    _, state = last_checkpoint(tmp_path)
    for name in ("accumulate", "compile", "fused", "lars_trust", "best", "cache", "tensorboard"): state["identity"]["config"].pop(name)
    state["identity"].pop("processes"), state.pop("lowest")
    for old in tmp_path.glob("step-*.pt"): old.unlink()
    save_checkpoint(tmp_path, 21, state)
    assert same(run(tmp_path)[0], unkilled[0])
    with pytest.raises(ValueError, match=r"accumulate \(was 1, now 2\)"): run(tmp_path, config=change(accumulate=2))


# ---- the log ---------------------------------------------------------------------------------------------------------------

def test_every_step_is_logged_however_rarely_one_looks(tmp_path, unkilled):
    looks = []
    history = pretrain(ToyMethod(), ToyData(), change(log_every=9), run_dir=tmp_path, on_step=lambda step, *_: looks.append(step))
    assert looks == [8, 17, 26, 35, 39] and history["loss"] == unkilled[1]["loss"]
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(40)) and rows[3]["lr"] == learning_rate(CONFIG, 3)
    assert len(history["images_per_second"]) == 10                                              # at five looks and six checkpoints, of which the last is both


def test_a_nan_between_looks_is_not_saved(tmp_path):
    class Broken(ToyMethod):
        def loss(self, images, **keywords):
            terms = super().loss(images, **keywords)
            return {**terms, "dense": terms["loss"] * (float("nan") if self.steps == 10 else 1)}
    with pytest.raises(TrainingStopped, match="step 10: the term 'dense' is nan"): pretrain(Broken(), ToyData(), change(log_every=40), run_dir=tmp_path)
    assert last_checkpoint(tmp_path)[1]["step"] == 7


def test_collapse_counts_looks_not_steps():
    rows = [{"step": step, "spread": .001} for step in range(100)]
    check_terms(rows, change(collapse_below=.02), log_every=10)
    with pytest.raises(TrainingStopped, match="collapse"): check_terms(rows * 2, change(collapse_below=.02), log_every=10)


def test_each_start_is_on_record(tmp_path):
    pretrain(ToyMethod(), ToyData(), CONFIG, run_dir=tmp_path, on_step=lambda step, *_: "stop" if step == 9 else None)
    run(tmp_path)
    starts = [json.loads(line) for line in (tmp_path / "starts.jsonl").read_text().splitlines()]
    assert [start["step"] for start in starts] == [0, 10] and starts[0]["identity"]["config"]["lr"] == .1
    assert starts[1]["made_by"]["torch"] == torch.__version__ and {"pixcl_nb", "git", "python", "machine", "threads", "device"} <= set(starts[1]["made_by"])
    pretrain(ToyMethod(), ToyData(), change(steps=2), run_dir=tmp_path, resume=False)
    assert len((tmp_path / "starts.jsonl").read_text().splitlines()) == 1 and best_checkpoint(tmp_path)[1]["step"] == 2


def test_the_log_reaches_the_file_while_the_run_goes_on(tmp_path, monkeypatch):
    now, seen = [0.], []
    monkeypatch.setattr(pixcl_nb.training.checkpoints.time, "monotonic", lambda: now[0])
    def slow(step, terms, method):
        seen.append(len((tmp_path / "log.jsonl").read_text().splitlines()))
        now[0] += 1.
    pretrain(ToyMethod(), ToyData(), change(steps=6, checkpoint_every=0), run_dir=tmp_path, on_step=slow)
    assert seen == [0, 0, 2, 2, 4, 4]


def test_tensorboard_gets_every_row(tmp_path, monkeypatch):
    written = []
    class Writer:
        def __init__(self, folder, purge_step): written.append((Path(folder).name, purge_step))
        def add_scalar(self, name, value, step): written.append((name, step))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    pretrain(ToyMethod(), ToyData(), change(steps=3, tensorboard=True), run_dir=tmp_path)
    assert written[0] == ("tensorboard", 0) and [step for name, step in written[1:] if name == "loss"] == [0, 1, 2] and ("lr", 2) in written and not any(name == "step" for name, _ in written)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="tensorboard: the package is not installed; pip install tensorboard"): pretrain(ToyMethod(), ToyData(), change(steps=6, tensorboard=True), run_dir=tmp_path / "other")
    with pytest.raises(ValueError, match="tensorboard: .* give a run_dir"): pretrain(ToyMethod(), ToyData(), change(tensorboard=True))


def test_the_bar_shows_the_time_that_is_left(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress_bar(change(progress=True), 5, 0) as bar: bar.set_postfix_str("loss 1.000, 80 images/s"); bar.update(10); line = str(bar)
    assert "15/40" in line and "<" in line and "loss 1.000" in line                            # elapsed<remaining
    with progress_bar(change(progress=True), 0, 1) as bar: assert bar.disable         # the second process is silent


def test_busy_share_where_a_driver_tells(monkeypatch):
    assert gpu_busy(torch.device("cpu")) is None
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 87)
    assert gpu_busy(torch.device("cuda")) == .87
    def missing(device): raise ModuleNotFoundError("pynvml")
    monkeypatch.setattr(torch.cuda, "utilization", missing)
    assert gpu_busy(torch.device("cuda")) is None
    meter = Meter(CONFIG, torch.device("cpu"), 1)
    def slow():
        for k in range(3): time.sleep(.02); yield k
    assert list(meter.timed(slow())) == [0, 1, 2] and meter.waited >= .06
    meter.device = torch.device("cuda")
    meter.note(0, {"loss": torch.tensor(2.)})
    rows, number = meter.read()
    assert number == 0 and rows[0]["loss"] == 2. and 0 < rows[0]["input_wait"] <= 1 and "gpu_busy" not in rows[0]


def test_history_plots_itself():
    import matplotlib.pyplot as plt
    history = History([{"step": k, "lr": .1, "images_per_second": 9., "loss": 1. / (k + 1), **({"score": .5} if k % 2 else {})} for k in range(6)])
    figure = history.plot(smooth=2)
    assert [axis.get_title() for axis in figure.axes] == ["loss", "score"] and len(figure.axes[0].lines[0].get_xdata()) == 5
    plt.close(figure)
    with pytest.raises(ValueError, match="history: is empty"): History().plot()
    with pytest.raises(ValueError, match="terms: unknown name 'los', did you mean 'loss'"): history.plot(["los"])
    with pytest.raises(ValueError, match="smooth: 4 is out of range"): history.plot(smooth=4)


# ---- a run is itself -------------------------------------------------------------------------------------------------------

def test_a_million_steps_start_at_once():
    "The shipped ImageNet recipes: 1.28 M images, 1,000,800 steps, from the start and from far inside."
    class Black(torch.utils.data.Dataset):
        def __len__(self): return 1_281_167
        def __getitem__(self, i): return torch.zeros(3, 2, 2, dtype=torch.uint8), torch.zeros(2, 2, dtype=torch.long)
    for start in (0, 1_000_000):
        order = BatchOrder(len(Black()), 256)
        tracemalloc.start(); clock = time.process_time()
        steps = batches(Black(), order, start, 1_000_800)
        indices, images, _ = next(steps)
        seconds, (held, peak) = time.process_time() - clock, tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert seconds < 1 and peak < 50 * 2**20 and held < 10 * 2**20 and len(indices) == len(images) == 256
        assert indices == np.random.default_rng([0, start // 5004]).permutation(1_281_167)[start % 5004 * 256:][:256].tolist()


FILE_CALLS = ("replace", "unlink", "link", "fsync", "open", "utime", "rename")

def killed_at(call, folder, **settings):
    "A child that trains and is killed by SIGKILL before its call number `call` of the file system; True if it got so far."
    child = os.fork()
    if not child:
        left = [call]
        def counted(function):
            def run(*arguments, **keywords):
                left[0] -= 1
                if left[0] < 0: os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **keywords)
            return run
        for name in FILE_CALLS: setattr(os, name, counted(getattr(os, name)))
        with open(os.devnull, "w") as sys.stderr:
            try: pretrain(ToyMethod(), ToyData(), CONFIG, run_dir=folder, **settings)
            finally: os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_kills_during_start_lock_and_clean_up(tmp_path, unkilled, capfd):
    "SIGKILL before file operations drawn at random: lock, configuration, checkpoint, deletion of the old ones, release."
    draw, killed = random.Random(5), 0
    for call in [1, 3, 5, *(draw.randrange(6, 26) for _ in range(3)), 7]: killed += killed_at(call, tmp_path / "run")
    assert killed >= 6 and (tmp_path / "run" / "run.lock").exists()
    trained, history = run(tmp_path / "run")
    assert "is gone; its lock" in capfd.readouterr().err
    assert same(trained, unkilled[0]) and history["loss"] == unkilled[1]["loss"]
    rows = [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert rows == list(range(40)) and not list((tmp_path / "run").glob(".*.tmp")) and not (tmp_path / "run" / "run.lock").exists()


def test_a_start_from_nothing_that_is_killed_leaves_nothing_wrong(tmp_path, unkilled):
    run(tmp_path)
    for call in (2, 4, 6, 9): killed_at(call, tmp_path, resume=False)
    assert same(run(tmp_path)[0], unkilled[0])


def test_a_second_run_in_the_folder_is_refused(tmp_path):
    def second(step, terms, method):
        if step == 3:
            before = sorted(path.name for path in tmp_path.iterdir())
            there = threading.Thread(target=attempt); there.start(); there.join()
            assert sorted(path.name for path in tmp_path.iterdir()) == before
    refused = []
    def attempt():
        for resume in (True, False, "anyway"):
            try: pretrain(ToyMethod(), ToyData(), change(lr=.2), run_dir=tmp_path, resume=resume)
            except RuntimeError as error: refused.append(str(error))
    assert len(pretrain(ToyMethod(), ToyData(), change(steps=9), run_dir=tmp_path, on_step=second)) == 9
    assert len(refused) == 3 and all(f"is in use: process {os.getpid()} on" in words and "\n" not in words for words in refused)


def test_a_run_whose_folder_was_taken_over_ends(tmp_path):
    def taken(step, *_):
        if step == 9: (tmp_path / "run.lock").write_text("{}")
    with pytest.raises(TrainingStopped, match="another run took over"): pretrain(ToyMethod(), ToyData(), CONFIG, run_dir=tmp_path, on_step=taken)
    assert last_checkpoint(tmp_path)[1]["step"] == 7


class Shifted(ToyData):
    "As many images as ToyData has, others."
    def __init__(self): super().__init__(); self.images = self.images.roll(1, 0)


class Tanh(ToyMethod):
    "The same settings and as many parameters."
    def __init__(self): super().__init__(); self.encoder = nn.Sequential(self.encoder, nn.Tanh())


def test_only_the_same_run_goes_on(tmp_path, capsys, monkeypatch):
    def begin(folder): pretrain(ToyMethod(), ToyData(), CONFIG, run_dir=folder, on_step=lambda step, *_: "stop" if step == 9 else None)
    begin(tmp_path)
    with pytest.raises(ValueError, match=r"data: items \(was '\w+', now '\w+'\).*resume='anyway'"): pretrain(ToyMethod(), Shifted(), CONFIG, run_dir=tmp_path)
    with pytest.raises(ValueError, match=r"architecture \(was"): pretrain(Tanh(), ToyData(), CONFIG, run_dir=tmp_path)
    monkeypatch.setattr(pixcl_nb.training.checkpoints, "library_code", lambda: "another version")
    with pytest.raises(ValueError, match=r"code \(was .*, now '\S+ another version"): pretrain(ToyMethod(), ToyData(), CONFIG, run_dir=tmp_path)
    assert last_checkpoint(tmp_path)[1]["step"] == 10
    history = pretrain(ToyMethod(), Shifted(), change(lr=.05), run_dir=tmp_path, resume="anyway")
    said = capsys.readouterr().err
    assert len(history) == 40 and "goes on with another run, as asked" in said and "lr (was 0.1, now 0.05)" in said and "data: items" in said
    with pytest.raises(ValueError, match="resume: unknown name 'anyhow', did you mean 'anyway'"): pretrain(ToyMethod(), ToyData(), CONFIG, run_dir=tmp_path, resume="anyhow")


def test_unreadable_checkpoints_neither_delete_new_ones_nor_are_lost(tmp_path, capsys):
    for best in ("", "loss"):
        folder = tmp_path / (best or "none")
        config = change(best=best, checkpoint_every=2)
        pretrain(ToyMethod(), ToyData(), config, run_dir=folder, on_step=lambda step, *_: "stop" if step == 9 else None)
        for path in folder.glob("step-*.pt"): path.write_bytes(path.read_bytes()[:-5])
        pretrain(ToyMethod(), ToyData(), config, run_dir=folder, on_step=lambda step, *_: "stop" if step == 5 else None)
        assert last_checkpoint(folder)[1]["step"] == 6 and len(list(folder.glob("unusable-step-*.pt"))) >= 2
        assert "no good checkpoint is left" in capsys.readouterr().err
    # an older one, kept as the best, is found and named
    folder = tmp_path / "older"
    pretrain(ToyMethod(), ToyData(), change(best="+score"), run_dir=folder, on_step=lambda step, terms, _: terms.update(score=-step))
    for path in folder.glob("step-*.pt"): path.write_bytes(b"cut")
    path, state = last_checkpoint(folder)
    assert state["step"] == 7 and path.name.startswith("best-00000007") and f"{path.name} is good (step 7)" in capsys.readouterr().err


def test_a_checkpoint_without_numbers_is_never_the_last(tmp_path):
    def poison(step, terms, method):
        if step == 13: method.encoder.weight.data[0, 0] = float("nan")
    with pytest.raises(TrainingStopped, match="step 13: encoder.weight holds NaN .* nothing of it is saved"): pretrain(ToyMethod(), ToyData(), CONFIG, run_dir=tmp_path, on_step=poison)
    path, state = last_checkpoint(tmp_path)
    assert state["step"] == 7
    state["step"], state["method"]["encoder.weight"] = 8, torch.full((8, 48), float("inf"))
    save_checkpoint(tmp_path, 8, state)                                      # as an earlier version might have written
    assert last_checkpoint(tmp_path)[0] == path
    with pytest.raises(ValueError, match="encoder.weight holds NaN or infinite values before the first step"):
        broken = ToyMethod(); poison(13, {}, broken); pretrain(broken, ToyData(), CONFIG)


# ---- alarms that are true --------------------------------------------------------------------------------------------------

class Diverging(ToyMethod):
    "A loss whose gradient is infinite from the tenth step on; after it, weights would be NaN and the loss an error."
    def loss(self, images, **keywords):
        if not torch.isfinite(self.encoder.weight).all(): raise ValueError("query: holds 3 NaN or infinite values of 3")
        terms = super().loss(images, **keywords)
        steep = (terms["loss"] - terms["loss"].detach()).abs().sqrt() if self.steps >= 10 else 0.
        return {**terms, "loss": terms["loss"] + steep}


@pytest.mark.parametrize("log_every", [1, 20])
def test_the_row_that_stopped_the_run_is_in_the_log_and_the_step_can_be_done_again(log_every, tmp_path):
    with pytest.raises(TrainingStopped, match=f"step 10: the gradient holds NaN .*lower lr .*pixcl replay {tmp_path}"): pretrain(Diverging(), ToyData(), change(log_every=log_every), run_dir=tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(11)) and last_checkpoint(tmp_path)[1]["step"] == 7
    whole = ToyMethod()
    pretrain(whole, ToyData(), CONFIG, on_step=lambda step, *_: "stop" if step == 9 else None)
    kept = read_broken(tmp_path)
    assert kept["step"] == 10 and torch.equal(kept["method"]["encoder.weight"], whole.encoder.weight)      # before the step, not after
    found = replay(Diverging(), tmp_path)
    assert found.again and found.gradients == ["encoder.weight", "encoder.bias"] and float(found.terms["loss"]) == rows[10]["loss"]
    with pytest.raises(FileNotFoundError, match="no step that broke"): replay(ToyMethod(), tmp_path / "nowhere")


def test_an_error_out_of_bad_numbers_is_the_promised_one(tmp_path):
    class Late(Diverging):
        def after_step(self):
            super().after_step()
            if self.steps == 5: self.encoder.weight.data.fill_(float("inf"))
    with pytest.raises(TrainingStopped, match="step 5: query: holds 3 NaN"): pretrain(Late(), ToyData(), change(log_every=20, checkpoint_every=0), run_dir=tmp_path)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 5
    class Slip(ToyMethod):
        def loss(self, images, **keywords): raise ValueError("images: too small")
    with pytest.raises(ValueError, match="images: too small$"): pretrain(Slip(), ToyData(), CONFIG, run_dir=tmp_path / "slip")


def test_one_vector_has_no_spread():
    class One(ToyMethod):
        def loss(self, images, **keywords): return {**super().loss(images, **keywords), "spread": torch.tensor(0. if len(images) == 1 else 1.)}
    for settings in (dict(batch_size=1), dict(batch_size=4, accumulate=4)):
        history = pretrain(One(), ToyData(), change(**settings))
        assert len(history) == 40 and "spread" not in history.terms


# ---- settings that say nothing, state that is the loop's ---------------------------------------------------------------------

@pytest.mark.parametrize("settings, words", [
    (dict(momentum=1.5), "momentum: 1.5 is out of range"), (dict(warmup_steps=40), "warmup_steps: 40 is not less than"), (dict(steps=2.5), "steps: 2.5 is no whole number"),
    (dict(seed=-1), "seed: -1 is out of range"), (dict(lr=float("inf")), "lr: inf"), (dict(optimizer="adamw", momentum=.5), "momentum: means nothing to adamw"),
    (dict(lars_trust=.1), "lars_trust: means nothing to sgd"), (dict(precision="fp16"), "precision: unknown name 'fp16'")])
def test_settings_that_say_nothing(settings, words):
    with pytest.raises(ValueError, match=words): change(**settings)


def test_a_slip_in_best_and_a_queue_that_never_fills(tmp_path, capsys):
    with pytest.raises(ValueError, match="best: unknown name 'lsos', did you mean 'loss'"): pretrain(ToyMethod(), ToyData(), change(best="lsos"))
    with pytest.raises(ValueError, match="best: unknown name 'spraed'"): pretrain(ToyMethod(), ToyData(), change(best="+spraed"), on_step=lambda *_: None)
    pretrain(ToyMethod(), ToyData(), change(best="+miou", steps=2), on_step=lambda *_: None)
    assert "no term 'miou' yet" in capsys.readouterr().err
    pretrain(queue_method("moco"), Squares(), TrainConfig(steps=3, batch_size=6, device="cpu", progress=False))
    assert "queue: holds 20 rows, but this run makes 18 keys" in capsys.readouterr().err
    pretrain(queue_method("moco"), Squares(), TrainConfig(steps=4, batch_size=6, device="cpu", progress=False))
    assert "queue" not in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"parameters stay float32, where torch.float16 was asked for"): pretrain(queue_method("moco").half(), Squares(), TrainConfig(steps=1, device="cpu", batch_size=6))


class Normed(Cells):
    "Cells with batch normalisation behind them."
    def __init__(self): super().__init__(); self.layer = nn.Sequential(self.layer, nn.BatchNorm2d(6))


def test_what_is_frozen_stays_so_and_what_follows_it_too():
    from pixcl_nb.methods.contract import create_method
    from pixcl_nb.images.views import ViewConfig
    encoder = Normed().requires_grad_(False).eval()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    method = create_method("moco", encoder, seed=0, view=ViewConfig(size=32), queue_size=20)
    projector = method.branch.projector.layers[0].weight.clone()
    pretrain(method, Squares(), TrainConfig(steps=3, batch_size=6, lr=.1, device="cpu", progress=False))
    for one in (method.encoder, method.slow.network.encoder): assert all(torch.equal(value, before[name]) for name, value in one.state_dict().items())
    assert not torch.equal(method.branch.projector.layers[0].weight, projector) and method.slow.network.projector.training
    free = create_method("moco", Normed(), seed=0, view=ViewConfig(size=32), queue_size=20).eval()
    assert all(part.training for part in wake(free).modules())


@pytest.mark.parametrize("cut", [lambda data: torch.utils.data.Subset(data, range(0, 12)), lambda data: torch.utils.data.random_split(data, [12, 12])[0], lambda data: torch.utils.data.ConcatDataset([data, data])])
def test_a_part_of_padded_data_knows_where_its_images_end(cut):
    class Padded(Squares):
        extents = torch.tensor([[32, 8]]).expand(24, 2)
    seen = []
    class Method(ToyMethod):
        def loss(self, images, extents=None, **keywords): seen.append(extents); return super().loss(images[:, :, :4, :4], **keywords)
    pretrain(Method(), cut(Padded()), change(steps=2, batch_size=4))
    assert all(extents.tolist() == [[32, 8]] * 4 for extents in seen) and len(seen) == 2


class Noisy(ToyData):
    "Draws from every generator there is when an image is read, and from one of its own."
    def __init__(self): super().__init__(); self.own = np.random.default_rng(0)
    def __getitem__(self, i):
        drawn = [torch.rand(1).item(), np.random.rand(), random.random(), self.own.random()]
        return torch.tensor(drawn).mul(255).byte().view(1, 2, 2).repeat(3, 2, 2), torch.zeros(4, 4, dtype=torch.long)


def test_data_sets_draw_for_seed_step_and_rank(tmp_path):
    def seen(seed=0, rank=0, start=0, workers=0): return [images for _, images, _ in batches(Noisy(), BatchOrder(64, 4, seed, rank, 2), start, 5, workers)]
    whole = seen()
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], seen(start=2))) and all(torch.equal(a, b) for a, b in zip(whole, seen(workers=1)))
    for other in (seen(seed=1), seen(rank=1), whole[1:]): assert not any((a == b).all(dim=0).flatten(1).all() for a, b in zip(whole, other))
    a, b = ToyMethod(), ToyMethod()
    pretrain(a, Noisy(), CONFIG)
    pretrain(ToyMethod(), Noisy(), CONFIG, run_dir=tmp_path, on_step=lambda step, *_: "stop" if step == 9 else None)
    pretrain(b, Noisy(), CONFIG, run_dir=tmp_path)
    assert same(a, b)


# ---- precision ---------------------------------------------------------------------------------------------------------------

def test_auto_precision_is_measured_once_recorded_and_kept(tmp_path, monkeypatch):
    from pixcl_nb import precision
    monkeypatch.setenv("PIXCL_NB_CACHE", str(tmp_path / "cache"))
    asked = []
    def seconds(network, images, learn=True, turns=3): asked.append(learn); return {way: 1. if way == ("bf16", True) else 2. for way in precision.WAYS}
    monkeypatch.setattr(precision, "pass_seconds", seconds)
    config = TrainConfig(steps=4, batch_size=6, lr=.1, device="cpu", progress=False, precision="auto", checkpoint_every=2)
    for _ in range(2): pretrain(queue_method("moco"), Squares(), config, run_dir=tmp_path / "run", on_step=lambda step, *_: "stop" if step == 1 else None)
    saved = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert asked == [True] and (saved["precision"], saved["channels_last"]) == ("bf16", True)
    monkeypatch.setattr(precision, "pass_seconds", lambda *a, **k: pytest.fail("measured again"))
    shutil.rmtree(tmp_path / "cache")
    assert len(pretrain(queue_method("moco"), Squares(), config, run_dir=tmp_path / "run")) == 4      # keeps what it began with


# ---- small and odd inputs ------------------------------------------------------------------------------------------------------

class Odd(Squares):
    "Pictures as somebody might give them."
    def __init__(self, count=8, channels=3, scale=None): super().__init__(); self.count, self.channels, self.scale = count, channels, scale
    def __len__(self): return self.count
    def __getitem__(self, i):
        image = self.images[i][:self.channels]
        return (image.float() / self.scale if self.scale else image), torch.zeros(32, 32, dtype=torch.long)


@pytest.mark.parametrize("data, settings, words", [
    (Odd(3), {}, "batch_size: 4 images on each of 1 processes, but the data set has 3"), (Odd(channels=1), {}, "images"), (Odd(scale=255), {}, "images: expected uint8")])
def test_odd_pictures_are_refused_by_name(data, settings, words):
    with pytest.raises(ValueError, match=words): pretrain(queue_method("moco"), data, TrainConfig(steps=2, batch_size=4, device="cpu", progress=False))


def test_a_last_batch_that_does_not_fill_waits():
    assert len(pretrain(queue_method("moco"), Odd(7), TrainConfig(steps=3, batch_size=4, device="cpu", progress=False))) == 3
    assert len(pretrain(queue_method("moco"), Odd(7), TrainConfig(steps=22, batch_size=1, device="cpu", progress=False))) == 22      # no false collapse


def test_a_watched_loss_can_still_be_told_not_to_synchronise():
    from contextlib import contextmanager
    from pixcl_nb.training.loop import GradientGuard, terms_of_parts
    from pixcl_nb.processes import Shares
    class Loss:
        quiet, calls = False, []
        def __call__(self, images, masks=None, generator=None): self.calls.append(self.quiet); return {"loss": images.square().mean()}
        @contextmanager
        def no_sync(self):
            self.quiet = True
            try: yield
            finally: self.quiet = False
    weight = torch.ones(4, requires_grad=True)
    loss = Loss()
    watched = GradientGuard(torch.optim.SGD([weight], .1)).watched(loss)
    with Shares(2) as shares: list(terms_of_parts(watched, [(part, None, None) for part in weight.chunk(2)], None, "float32", shares))
    assert loss.calls == [True, False]                                           # only the last part synchronises
    assert not hasattr(GradientGuard(torch.optim.SGD([weight], .1)).watched(lambda images: {}), "no_sync")
