"""Two processes are one run: the same loss, gradient and queue as one process with the whole batch, and nothing lost when one of them dies."""
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from conftest import START
from shares import cases, step
from toy import ToyData, ToyMethod

from pixcl_nb.processes import all_ranks, distributed_world, from_first, share_of_mean
from pixcl_nb.training.distributed import check_world, Job, leave_processes, start_processes
from pixcl_nb.methods.contract import create_method
from pixcl_nb.methods.label_contrast import paired, partners
from pixcl_nb.networks.momentum import (
    embed_keys, KeyQueue, set_batch_norm, split_batch_norm, SyncBatchNorm2d)
from pixcl_nb.processes import gather_uneven_rows
from pixcl_nb.training.checkpoints import check_same_run, last_checkpoint
from pixcl_nb.training.loop import pretrain
from pixcl_nb.training.settings import TrainConfig
from pixcl_nb.images.views import ViewConfig

PLAIN = ViewConfig(size=32, scale=(1., 1.), ratio=(1., 1.), flip=0., jitter=0., grayscale=0., blur=0.)      # nothing is drawn: a share of the batch sees what the whole saw
TRAIN = dict(steps=30, lr=.1, device="cpu", progress=False, seed=3, checkpoint_every=4)
generator = lambda seed=0: torch.Generator().manual_seed(seed)


class Pictures(torch.utils.data.Dataset):
    extents, num_classes = None, 3
    def __init__(self): self.images, self.masks = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=generator(1)), torch.randint(0, 3, (8, 32, 32), generator=generator(2))
    def __len__(self): return len(self.images)
    def __getitem__(self, i): return self.images[i], self.masks[i]
    def mask(self, i): return self.masks[i]


def trained(kind, world, steps=3, **settings):
    "A method after a few real steps with all of its batch normalisation synchronised."
    method = create_method(kind, seed=0, view=PLAIN, **settings, **({} if kind == "label_contrast" else {"batch_norm": "sync"}))
    set_batch_norm(method.branch, "sync")                                                  # label contrast has no such setting, and no slow copy
    pretrain(method, Pictures(), TrainConfig(steps=steps, batch_size=4 // world, lr=.05, device="cpu", progress=False))
    return {name: value.detach().clone() for name, value in method.state_dict().items()}


def results():
    "Everything that one process with all images and two with half of them must agree on. Means over processes are taken here, as DDP takes them."
    rank, world = distributed_world()
    found = {}
    for seed, parts in ((0, 1), (1, 1), (1, 2), (2, 2)):                                      # processes, and parts of a batch within them
        for name, method in cases(seed).items():
            for what, value in zip(("loss", "gradient", "keys"), step(method, parts if world > 1 else 1)): found[f"{name}, masks {seed}, {parts} parts: {what}"] = value
    for name, kind, settings in (("moco", "moco", dict(queue_size=32)), ("densecl", "densecl", dict(queue_size=32, negatives="matched")), ("label", "label_contrast", dict(form="supcon", steps=1))):       # from its second step on weights that differ by 1e-6 end 3e-4 apart in one process, too
        found |= {f"{name} trained: {key}": value for key, value in trained(kind, world, **settings).items()}
    toy = ToyMethod(noise=0.)
    pretrain(toy, ToyData(), TrainConfig(steps=6, batch_size=8 // world, accumulate=2, lr=.1, device="cpu", progress=False))
    found |= {f"toy: {key}": value.clone() for key, value in toy.state_dict().items()}
    torch.manual_seed(5)
    x, norm = torch.randn(8, 3, 4, 4), set_batch_norm(nn.Sequential(nn.BatchNorm2d(3)), "sync")
    part = x.chunk(world)[rank].clone().requires_grad_()
    out = norm(part)
    (out ** 3).sum().backward()
    found |= {"sync: value": torch.cat(all_ranks(out.detach())), "sync: gradient": torch.cat(all_ranks(part.grad)), "sync: mean": norm[0].running_mean, "sync: variance": norm[0].running_var,
              "sync: weight": sum(all_ranks(norm[0].weight.grad))}
    return found


def check_two(rank):
    "What only two processes can show."
    assert distributed_world() == (rank, 2) and all_ranks(rank) == [0, 1] and from_first(rank + 7) == 7
    assert share_of_mean(torch.tensor(1 + 2 * rank)) == (.5, 1.5)[rank]
    rows = torch.full((rank * 2, 3), float(rank))
    assert torch.equal(gather_uneven_rows(rows), torch.ones(2, 3))
    queue = KeyQueue(7, 4, generator())
    for step in range(5): queue.enqueue(torch.randn(2, 4, generator=generator(10 * step + rank)))
    states = all_ranks(queue.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values())) and int(queue.filled) == 7
    # keys come back in their own order, and normalised in other company
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    network.load_state_dict(from_first(network.state_dict()))
    images = torch.randn(4, 3, 2, 2, generator=generator(rank))
    with torch.no_grad():
        assert torch.allclose(embed_keys(network.eval(), images, generator(rank), "shuffle"), network(images), atol=1e-6)
        own = network.train()(images)
        assert not torch.allclose(embed_keys(network, images, generator(rank), "shuffle"), own, atol=1e-2)
    with pytest.raises(RuntimeError, match="WORLD_SIZE is 3, but 2 processes answered"): check_world(3)
    with pytest.raises(ValueError, match=r"processes \(was 2, now 1\)"): check_same_run(*({"config": {"steps": 1}, "method": "", "data": "", "processes": count} for count in (2, 1)))
    moco = create_method("moco", seed=rank, view=PLAIN, queue_size=8)                      # made with another seed in each process
    pretrain(moco, Pictures(), TrainConfig(steps=2, batch_size=2, device="cpu", progress=False))
    states = [{name: value for name, value in state.items() if "running" not in name} for state in all_ranks(moco.state_dict())]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    method = ToyMethod()
    pretrain(method, ToyData(), TrainConfig(batch_size=4, **TRAIN))                       # each process draws noise of its own
    return method.state_dict()


def worker(folder):
    folder, (rank, world) = Path(folder), distributed_world()
    assert world == 2
    if (folder / "slow").exists():                                                         # the run that is killed
        (folder / f"pid{rank}").write_text(str(os.getpid()))
        method = ToyMethod()
        pretrain(method, ToyData(), TrainConfig(batch_size=4, **TRAIN), run_dir=folder / "run", on_step=lambda *_: time.sleep(.1 if (folder / "slow").read_text() else 0))
        torch.save(method.state_dict(), folder / f"killed{rank}.pt")
    else:
        found, unkilled = results(), check_two(rank)
        torch.save((found, unkilled), folder / f"rank{rank}.pt")
    print(f"rank {rank} is done", flush=True)


def torchrun(folder, wait=True):
    process = subprocess.Popen([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               env={**os.environ, "OMP_NUM_THREADS": "1"})
    if not wait: return process
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0 and "rank 0 is done" in said and "rank 1 is done" in said, said[-3000:]


def one_of_two(rank, port, folder):
    "What torchrun does, in a process that has read torch already. (torchrun itself: the long tests.)"
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    worker(folder)
    leave_processes()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as s: s.bind(("127.0.0.1", 0)); port = s.getsockname()[1]
    torch.multiprocessing.start_processes(one_of_two, (port, str(folder)), nprocs=2, start_method=START)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def equal_one(two):
    "What each of two processes found is what one finds."
    one = results()
    for rank in range(2):
        assert one.keys() == two[rank][0].keys()
        for name, value in one.items():
            fixed_rows = "masks" in name
            torch.testing.assert_close(two[rank][0][name], value, atol=1e-6 if fixed_rows else 2e-5, rtol=1e-6 if fixed_rows else 1e-3, msg=lambda text: f"{name}: {text}")
    return one


def test_two_processes_equal_one(two):
    one = equal_one(two)
    start = create_method("moco", seed=0, view=PLAIN, queue_size=32).state_dict()
    assert (one["moco trained: branch.projector.layers.0.weight"] - start["branch.projector.layers.0.weight"]).abs().max() > 1e-3      # and it did move


def same_on_both(two):
    for a, b in zip(two, two[1:]):
        for part in (0, 1):
            for name in a[part]:
                if "running" not in name: torch.testing.assert_close(a[part][name], b[part][name], rtol=0, atol=0, msg=name)


def test_both_processes_hold_the_same_bits(two): same_on_both(two)


@pytest.mark.long
def test_one_process_killed_and_resumed_to_the_same_bits(two, tmp_path):
    (tmp_path / "slow").write_text("yes")
    process = torchrun(tmp_path, wait=False)
    while len(list(tmp_path.glob("run/step-*.pt"))) < 2 and process.poll() is None: time.sleep(.05)
    os.kill(int((tmp_path / "pid1").read_text()), signal.SIGKILL)                           # the second process; the first one writes
    said, _ = process.communicate(timeout=300)
    assert process.returncode != 0 and last_checkpoint(tmp_path / "run")[1]["step"] < 30, said[-2000:]
    (tmp_path / "slow").write_text("")
    torchrun(tmp_path)
    for rank in range(2):
        killed = torch.load(tmp_path / f"killed{rank}.pt", weights_only=True)
        assert all(torch.equal(a, b) for a, b in zip(killed.values(), two[rank][1].values(), strict=True))
    assert [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()] == list(range(30))
    assert [json.loads(line)["processes"] for line in (tmp_path / "run" / "starts.jsonl").read_text().splitlines()] == [2, 2]


@pytest.mark.long
def test_torchrun_of_the_command_line_and_a_monitor_beside_it(tmp_path):
    from pixcl_nb.widgets import TrainingMonitor
    job = start_processes("pretrain moco --data samples --steps 100000 --batch-size 4 --checkpoint-every 3 --set view.size=32 --set queue_size=16 --device cpu", tmp_path / "run")
    while not list(job.run_dir.glob("step-*.pt")) and job.running: time.sleep(.1)
    assert job.running, job.said(30)
    monitor = TrainingMonitor(job.run_dir)
    assert "loss" in monitor.columns
    job.stop(timeout=300)                                                                  # SIGTERM to torchrun reaches both
    assert job.process.returncode != 0 and not job.running
    assert "stopped by signal after step" in job.said(5)
    started, rows = json.loads((job.run_dir / "starts.jsonl").read_text()), [json.loads(line) for line in (job.run_dir / "log.jsonl").read_text().splitlines()]
    assert started["processes"] == 2 and started["made_by"]["torch"] == str(torch.__version__)
    state = last_checkpoint(job.run_dir)[1]
    assert [row["step"] for row in rows] == list(range(state["step"]))
    assert int(state["method"]["queue.pointer"]) == state["step"] * 8 % 16                   # both processes' keys


def test_a_failed_job_says_why(tmp_path):
    (tmp_path / "processes.log").write_text("W0101 torchrun\npixcl pretrain: batch_size: too many\nRoot Cause\n")
    job = Job(subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"]), tmp_path)
    with pytest.raises(RuntimeError, match="(?s)ended with code 1:\npixcl pretrain: batch_size: too many$"): job.wait(60)
    with pytest.raises(ValueError, match="processes: 0 is out of range"): start_processes("demo", tmp_path, processes=0)


def test_alone():
    assert distributed_world() == (0, 1) and all_ranks("a") == ["a"] and from_first(3) == 3 and share_of_mean(torch.tensor(0)) == 1.
    rows = torch.randn(2, 3)
    assert gather_uneven_rows(rows) is rows
    f, labels = torch.randn(4, 2, 3), torch.arange(8).view(4, 2)
    assert torch.equal(paired(f, labels, generator())[0], f[partners(4, generator())])


def test_a_scheduler_that_left_half_of_torchruns_words_is_an_error(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"): monkeypatch.delenv(name, raising=False)
    with pytest.raises(RuntimeError, match="each would train alone"): distributed_world()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert distributed_world() == (0, 1)


def test_what_cannot_be_synchronised_is_named():
    class Own(nn.BatchNorm2d): pass
    with pytest.raises(ValueError, match="batch_norm: a Own cannot be synchronised"): set_batch_norm(nn.Sequential(Own(3)), "sync")
    with pytest.raises(ValueError, match="batch_norm: unknown name 'synced'"): set_batch_norm(nn.Sequential(nn.BatchNorm2d(3)), "synced")
    assert type(set_batch_norm(nn.Sequential(nn.BatchNorm2d(3)), "sync")[0]) is SyncBatchNorm2d
    assert isinstance(set_batch_norm(nn.Sequential(nn.LayerNorm(3)), "sync")[0], nn.LayerNorm)


if __name__ == "__main__":
    torch.set_num_threads(1)
    worker(sys.argv[1])
