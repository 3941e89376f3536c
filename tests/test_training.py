"""The loop: one result for one (seed, step, rank), whatever happened in between."""
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from toy import ToyData, ToyMethod

from pixcl_nb.training import (BatchOrder, TrainConfig, TrainingStopped, choose_device, last_checkpoint, learning_rate, pretrain, read_checkpoint,
                               save_checkpoint, step_seed)

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


WORKER = """
import sys, gc, torch, torch.distributed as dist
sys.path[:0] = [{here!r}]
from toy import *; from pixcl_nb.training import *
dist.init_process_group("gloo")
assert dist.get_world_size() == 2
method = ToyMethod(noise=0.)
pretrain(method, ToyData(), TrainConfig(steps=6, batch_size=4, lr=.1, device="cpu", progress=False), run_dir={folder!r})
torch.save(method.state_dict(), {folder!r} + f"/rank{{dist.get_rank()}}.pt")
del method; gc.collect(); dist.destroy_process_group()
"""


def test_two_processes_equal_one_with_the_whole_batch(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER.format(here=str(Path(__file__).parent), folder=str(tmp_path)))
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    ranks = [torch.load(tmp_path / f"rank{r}.pt", weights_only=True) for r in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(ranks[0].values(), ranks[1].values()))
    alone = ToyMethod(noise=0.)
    pretrain(alone, ToyData(), TrainConfig(steps=6, batch_size=8, lr=.1, device="cpu", progress=False))
    for name, value in alone.state_dict().items(): torch.testing.assert_close(ranks[0][name], value, atol=1e-6, rtol=1e-5)


def test_a_torchrun_environment_nobody_joined_is_an_error(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="torch.distributed is not initialised"): pretrain(ToyMethod(), ToyData(), CONFIG)
