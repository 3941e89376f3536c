"""Past one machine: two rendezvous agents are one run, an agent that dies is replaced or done without, and 64 processes agree with one.

The "nodes" are agents of torchrun on this machine, each with a store connection, a rendezvous and workers of its own; what is not tested is the wire between them."""
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
from test_distributed import equal_one, same_on_both, PLAIN, TRAIN, generator
from toy import ToyData, ToyMethod

from pixcl_nb.methods.contract import create_method
from pixcl_nb.networks.momentum import KeyQueue, SyncBatchNorm2d, embed_keys, set_batch_norm
from pixcl_nb.processes import all_ranks, distributed_world, from_first, gather_rows, gather_uneven_rows, leave_processes, share_of_mean
from pixcl_nb.training.checkpoints import last_checkpoint
from pixcl_nb.training.loop import pretrain
from pixcl_nb.training.settings import TrainConfig

WORDS = "keep_alive_interval=1,keep_alive_max_attempt=4,last_call_timeout=15"

# torchrun 2.14 tells a node that joins later nothing of where the first process listens, and it waits in vain, unless the nodes do not share their store
ALONE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def agent(name, folder, port, script, nodes="2", restarts=0):
    "A node: torchrun with one worker. The first one holds the rendezvous."
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", nodes, "--nproc-per-node", "1", "--max-restarts", str(restarts), "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "test",
               "--rdzv-conf", f"{WORDS},is_host={int(name == 'a')}", "--local-addr", "127.0.0.1", "--monitor-interval", ".2", script, str(folder)]
    return subprocess.Popen(command, stdout=open(folder / f"{name}.log", "w"), stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1", "NODE": name, **ALONE}, start_new_session=True)


def ended(agents, folder, timeout=600):
    "Return codes of the agents, all of whose processes are gone then."
    try: return [one.wait(timeout) for one in agents]
    finally:
        for one in agents: one.kill()
        for path in folder.glob("pid-*"):
            try: os.kill(int(path.read_text()), signal.SIGKILL)
            except ProcessLookupError: pass

def said(folder): return "\n".join(path.read_text(errors="replace")[-3000:] for path in sorted(folder.glob("*.log")))


# ---- two nodes ------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory):
    "What both workers of test_distributed saw, started by two agents instead of one."
    folder, port = tmp_path_factory.mktemp("nodes"), free_port()
    agents = [agent(name, folder, port, str(Path(__file__).with_name("test_distributed.py"))) for name in "ab"]
    assert ended(agents, folder) == [0, 0], said(folder)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
def test_two_nodes_equal_one_process(two_nodes): equal_one(two_nodes), same_on_both(two_nodes)


# ---- a node dies ------------------------------------------------------------------------------------------------------------

def train(folder):
    "The worker of a node that will die: a slow toy run in a shared folder."
    node = os.environ["NODE"]
    (folder / f"pid-{node}").write_text(str(os.getpid()))
    method = ToyMethod()
    pretrain(method, ToyData(), TrainConfig(batch_size=4, **TRAIN), run_dir=folder / "run", resume={"yes": True}.get(word := (folder / "resume").read_text(), word),
             on_step=lambda *_: time.sleep(.15 if (folder / "slow").exists() else 0))
    torch.save(method.state_dict(), folder / f"end-{node}.pt")


def begun_and_cut(folder, nodes, resume):
    "Two nodes train until two checkpoints are there; then the second loses its power. Returns the first and the port."
    (folder / "slow").touch(), (folder / "resume").write_text(resume)
    port = free_port()
    first, second = (agent(name, folder, port, __file__, nodes, restarts=4) for name in "ab")
    while len(list(folder.glob("run/step-*.pt"))) < 2 and first.poll() is second.poll() is None: time.sleep(.05)
    assert first.poll() is second.poll() is None, said(folder)
    second.kill(), os.kill(int((folder / "pid-b").read_text()), signal.SIGKILL), second.wait()
    (folder / "slow").unlink()
    return first, port

def starts(folder): return [json.loads(line) for line in (folder / "run" / "starts.jsonl").read_text().splitlines()]
def steps(folder): return [json.loads(line)["step"] for line in (folder / "run" / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_dead_node_is_replaced_and_the_bits_are_those_of_an_unbroken_run(two_nodes, tmp_path):
    first, port = begun_and_cut(tmp_path, "2", "yes")
    third = agent("c", tmp_path, port, __file__, "2", restarts=4)                           # what a scheduler does
    assert ended([first, third], tmp_path) == [0, 0], said(tmp_path)
    for node in "ac":
        state = torch.load(tmp_path / f"end-{node}.pt", weights_only=True)
        assert all(torch.equal(a, b) for a, b in zip(state.values(), two_nodes[0][1].values(), strict=True))
    assert steps(tmp_path) == list(range(30))
    assert [one["processes"] for one in starts(tmp_path)] == [2] * len(starts(tmp_path)) and len(starts(tmp_path)) >= 2
    assert 0 < starts(tmp_path)[-1]["step"] < 30


@pytest.mark.slow
def test_without_the_dead_node_it_is_another_run_and_says_so(two_nodes, tmp_path):
    "--nnodes 1:2: the one that is left trains half as many images a step. That is no resumption of the same run, so it must be asked for."
    first, _ = begun_and_cut(tmp_path, "1:2", "anyway")
    assert ended([first], tmp_path) == [0], said(tmp_path)
    assert steps(tmp_path) == list(range(30)) and last_checkpoint(tmp_path / "run")[1]["step"] == 30
    assert [one["processes"] for one in starts(tmp_path)][0] == 2 and starts(tmp_path)[-1]["processes"] == 1
    assert "goes on with another run, as asked: processes (was 2, now 1)" in said(tmp_path)
    state = torch.load(tmp_path / "end-a.pt", weights_only=True)
    assert not torch.equal(state["encoder.weight"], two_nodes[0][1]["encoder.weight"])       # other images in every step since


# ---- 64 processes -------------------------------------------------------------------------------------------------------------

MANY = 64

class Small(nn.Module):
    "Two convolutions, the second normalised: enough for everything that processes say to each other."
    channels, stride, mean, std, weights = 8, 8, (.5, .5, .5), (.25, .25, .25), None
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Conv2d(8, 8, 2, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    def forward(self, images): return self.layers(images)


class ManyPictures(torch.utils.data.Dataset):
    extents = None
    def __init__(self): self.images = torch.randint(0, 256, (2 * MANY, 3, 32, 32), dtype=torch.uint8, generator=generator(1))
    def __len__(self): return len(self.images)
    def __getitem__(self, i): return self.images[i], torch.zeros(32, 32, dtype=torch.long)


def common():
    "What 64 processes with a share each and one process with everything must agree on."
    rank, world = distributed_world()
    mine = lambda x: x.chunk(world)[rank]
    found = {}
    rows = torch.randn(MANY, 5, generator=generator(3), dtype=torch.float64)
    small, long = KeyQueue(100, 5, generator(4)), KeyQueue(1000, 5, generator(4))
    for step in range(3):
        for queue in (small, long): queue.enqueue(mine(rows + step).float())                # 100 rows: the second step passes its end
    found |= {f"queue {len(queue.rows)} {name}": value for queue in (small, long) for name, value in queue.state_dict().items()}
    weight = torch.eye(5, dtype=torch.float64, requires_grad=True)
    whole = gather_rows(mine(rows) @ weight)                                                 # every row against every row
    (whole @ whole.T / 5).logsumexp(1).mean().backward()
    found |= {"gathered": whole.detach(), "gathered gradient": sum(all_ranks(weight.grad)) / world}
    counts = torch.arange(MANY) % 4                                                          # so many valid values has an image: the mean over all, by shares
    values = torch.randn(MANY, 4, generator=generator(5), dtype=torch.float64)
    valid = torch.arange(4) < counts[:, None]
    own, known = mine(values), mine(valid)
    mean = own[known].mean() if known.any() else own.sum() * 0
    found["mean of all values"] = sum(all_ranks(mean * share_of_mean(known.sum()))) / world
    found["uneven rows"] = gather_uneven_rows(own[known])
    x, norm = torch.randn(MANY, 3, 2, 2, generator=generator(6)), set_batch_norm(nn.Sequential(nn.BatchNorm2d(3)), "sync")
    found |= {"normalised": torch.cat(all_ranks(norm(mine(x)).detach())), "variance": norm[0].running_var}
    for kind, settings in (("moco", {}), ("densecl", {"negatives": "matched"})):
        method = create_method(kind, Small(), seed=0, view=PLAIN, queue_size=300, dim=8, batch_norm="sync", **settings)
        pretrain(method, ManyPictures(), TrainConfig(steps=3, batch_size=2 * MANY // world, lr=.05, device="cpu", progress=False))
        found |= {f"{kind} trained: {name}": value.detach().clone() for name, value in method.state_dict().items()}
    return found


def only_many(rank):
    "What only many processes can show."
    assert distributed_world() == (rank, MANY) and all_ranks(rank) == list(range(MANY)) and from_first(rank + 7) == 7
    network, images = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval(), torch.randn(2, 3, 2, 2, generator=generator(rank))
    network.load_state_dict(from_first(network.state_dict()))
    with torch.no_grad(): assert torch.allclose(embed_keys(network, images, generator(rank), "shuffle"), network(images), atol=1e-6)      # keys come back in their own order


def one_of_many(rank, folder):
    only_many(rank)
    found = common()
    told = all_ranks({name: value.double().sum().item() for name, value in found.items() if "running" not in name})
    assert all(other == told[0] for other in told)                                           # every process holds the same
    if rank == 0: torch.save(found, folder / "many.pt")


def fork(count, work):
    "`work(rank)` in so many processes, forked after the imports, so that they share them; nothing has been computed before."
    children, port = [], free_port()
    for rank in range(count):
        if not (child := os.fork()):
            code = 1
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            try: work(rank); leave_processes(); code = 0
            except BaseException as error: print(f"rank {rank}: {type(error).__name__}: {error}", flush=True)
            finally: os._exit(code)
        children.append(child)
    codes = {}
    while children:
        child, status = os.wait()
        children.remove(child)
        codes[child] = os.waitstatus_to_exitcode(status)
        if codes[child]:                                                                     # the others would wait for it
            for other in children: os.kill(other, signal.SIGKILL)
    if any(codes.values()): raise SystemExit("a process failed")


def many(folder):
    fork(MANY, lambda rank: one_of_many(rank, folder))
    torch.save(common(), folder / "one.pt")


@pytest.mark.slow
def test_64_processes_equal_one(tmp_path):
    run = subprocess.run([sys.executable, __file__, "many", str(tmp_path)], capture_output=True, text=True, timeout=900, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    of_many, of_one = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("many", "one"))
    assert of_many.keys() == of_one.keys()
    for name, value in of_one.items():
        trained = "trained" in name
        torch.testing.assert_close(of_many[name], value, atol=3e-6 if trained else 1e-6, rtol=1e-4 if trained else 1e-6, msg=lambda text: f"{name}: {text}")
    start = create_method("moco", Small(), seed=0, view=PLAIN, queue_size=300, dim=8, batch_norm="sync").state_dict()
    name = "branch.projector.layers.0.weight"
    assert (of_one[f"moco trained: {name}"] - start[name]).abs().max() > 1e-3                 # and it did move
    assert int(of_one["moco trained: queue.pointer"]) == 3 * 2 * MANY % 300 and isinstance(set_batch_norm(nn.Sequential(nn.BatchNorm2d(3)), "sync")[0], SyncBatchNorm2d)


# ---- the bill of what is said ---------------------------------------------------------------------------------------------------

SAID = {"moco shuffle": ("moco", {"batch_norm": "shuffle"}), "moco sync": ("moco", {"batch_norm": "sync"}), "moco plain": ("moco", {}), "densecl shuffle": ("densecl", {"batch_norm": "shuffle", "negatives": "matched"}), "cp2": ("cp2", {})}
SHARE = 4

def said_config(name):
    from pixcl_nb.experiments.runs import run_config
    method, settings = SAID[name]
    small = {"compose": {"size": 32, "stride": 8}, "decoder_width": 16} if method == "cp2" else {"view": {"size": 32}}
    return run_config({"method": method, "settings": {**small, "queue_size": 64, "dim": 16, **settings}, "train": {"steps": 1, "batch_size": SHARE, "device": "cpu", "progress": False}})


def overhear(rank, folder):
    "One step of each method; every collective of more than one number is written down. DistributedDataParallel's own is not heard."
    import torch.distributed as dist
    from pixcl_nb.experiments.runs import build_method
    said, heard = {}, []
    gather, reduce = dist.all_gather, dist.all_reduce
    def all_gather(parts, rows): heard.append(("gather", rows.numel() * rows.element_size())); return gather(parts, rows)
    def all_reduce(x): heard.append(("reduce", x.numel() * x.element_size())) if x.numel() > 1 else None; return reduce(x)
    dist.all_gather, dist.all_reduce = all_gather, all_reduce
    for name in SAID:
        heard.clear()
        config = said_config(name)
        pretrain(build_method(config), ManyPictures(), config.train)
        said[name] = list(heard)
    if rank == 0: (folder / "said.json").write_text(json.dumps(said))


@pytest.mark.slow
def test_the_bill_counts_what_two_processes_say(tmp_path):
    from pixcl_nb.experiments.recipes import collectives, count_exchange
    run = subprocess.run([sys.executable, __file__, "overhear", str(tmp_path)], capture_output=True, text=True, timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    for name, heard in json.loads((tmp_path / "said.json").read_text()).items():
        config = said_config(name)
        billed = collectives(count_exchange(config), SHARE, 2, config.settings.batch_norm)
        gathered, reduced = ([size for kind, size in heard if kind == wanted] for wanted in ("gather", "reduce"))
        # of two processes each sends its own rows once, and of a ring's sum 2·1/2 = 1 times its size
        assert len(gathered) == billed["keys"][0] + billed.get("shuffle", (0, 0))[0] and sum(gathered) == billed["keys"][1] + billed.get("shuffle", (0, 0))[1], name
        assert (len(reduced), sum(reduced)) == billed.get("statistics", (0, 0)), name


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "many": many(Path(sys.argv[2]))
    elif sys.argv[1] == "overhear": fork(2, lambda rank: overhear(rank, Path(sys.argv[2])))
    else: train(Path(sys.argv[1]))
