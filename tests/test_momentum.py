"The momentum encoder, the key queue and split batch normalisation."
import copy
import os

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conftest import START
from pixcl_nb.networks.encoders import Projector, create_encoder
from pixcl_nb.networks.momentum import (
    KeyQueue, MomentumEncoder, shuffled, split_batch_norm, SplitBatchNorm2d)
from pixcl_nb.processes import all_gather_rows


def network(): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))


# -- momentum encoder ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("momentum", [0, .5, .9, .999, 1])
def test_update_is_the_moving_average(momentum):
    torch.manual_seed(0)
    online = network()
    slow = MomentumEncoder(online, momentum)
    by_hand = [p.detach().double() for p in online.parameters()]
    for _ in range(5):
        with torch.no_grad():
            for p in online.parameters(): p.add_(torch.randn_like(p))
        slow.update()
        by_hand = [momentum*h + (1 - momentum)*p.detach().double() for h, p in zip(by_hand, online.parameters())]
    for h, k in zip(by_hand, slow.network.parameters()): torch.testing.assert_close(k.double(), h, rtol=1e-6, atol=1e-6)
    if momentum == 0: assert all(torch.equal(a, b) for a, b in zip(online.parameters(), slow.network.parameters()))


def test_schedule_and_bounds():
    online = network(); slow = MomentumEncoder(online, 1.)
    with torch.no_grad(): online[0].weight.add_(1)
    slow.update(); assert not torch.equal(slow.network[0].weight, online[0].weight)
    slow.update(0.); assert torch.equal(slow.network[0].weight, online[0].weight)
    for bad in (-.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="momentum"): MomentumEncoder(online, bad)
        with pytest.raises(ValueError, match="momentum"): slow.update(bad)


def test_no_gradient_and_own_statistics():
    online = network(); slow = MomentumEncoder(online)
    assert not any(p.requires_grad for p in slow.parameters()) and all(p.requires_grad for p in online.parameters())
    images = torch.randn(4, 3, 8, 8)
    out = slow(images.requires_grad_())
    assert not out.requires_grad and out.shape == (4, 2, 6, 6)
    assert (online[1].running_mean == 0).all() and (slow.network[1].running_mean != 0).all()       # it normalised with its own batch
    before = slow.network[1].running_mean.clone()
    online(torch.randn(4, 3, 8, 8) + 5); slow.update()
    assert torch.equal(slow.network[1].running_mean, before)


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = network(); self.key = MomentumEncoder(self.encoder, .9); self.queue = KeyQueue(8, 4)


def test_state_holds_each_tensor_once_and_survives():
    pair = Pair(); pair.queue.enqueue(torch.randn(3, 4))
    assert len(pair.state_dict()) == 2*len(pair.encoder.state_dict()) + 3
    assert len(list(pair.parameters())) == 2*len(list(pair.encoder.parameters()))
    twin = copy.deepcopy(pair)
    assert twin.key.online is twin.encoder and twin.key.online is not pair.encoder
    other = Pair(); other.load_state_dict(pair.state_dict())
    keys = torch.randn(7, 4)
    for one in (pair, twin, other):
        with torch.no_grad(): one.encoder[0].weight.add_(1)
        one.key.update(); one.queue.enqueue(keys)
    for one in (twin, other): assert all(torch.equal(a, b) for a, b in zip(pair.state_dict().values(), one.state_dict().values()))


def test_real_network_channels_last_and_autocast():
    online = nn.Sequential(create_encoder("pixcl_tiny"), Projector(256))
    slow = MomentumEncoder(online)
    assert slow.network[0].stem[0].weight.is_contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16): out = slow(torch.randn(2, 3, 32, 32))
    slow.update()
    assert out.dtype == torch.bfloat16 and all(p.dtype == torch.float32 for p in slow.parameters())
    assert slow.network[0].stem[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_half_precision_and_changed_networks_are_refused():
    pair = Pair().bfloat16()
    with pytest.raises(ValueError, match="online: .*float32"): pair.key.update()
    online = network(); slow = MomentumEncoder(online)
    online.append(nn.Conv2d(2, 2, 1))
    with pytest.raises(ValueError, match="online: .*changed"): slow.update()


# -- queue --------------------------------------------------------------------------------------------------------

def test_queue_against_a_list():
    "Any batch size, against a plain Python list of the last K keys."
    generator = torch.Generator().manual_seed(3)
    queue, kept, number = KeyQueue(7, 2), [], 0
    for size in [1, 3, 7, 2, 5, 20, 7, 6, 13, 1]:
        keys = torch.arange(number, number + size).float()[:, None].expand(-1, 2); number += size
        queue.enqueue(keys); kept = (kept + keys[:, 0].tolist())[-7:]
        ages = queue.ages()
        filled = int(queue.filled)
        assert filled == min(7, number) == len(kept)
        order = ages.argsort()[:filled].flip(0)
        assert queue.rows[order, 0].tolist() == kept
        assert queue.ages().sort().values.tolist() == list(range(7))


def test_queue_follows_cp2_golden_convention():
    "One batch lands at the pointer, in order."
    queue = KeyQueue(6, 3); before = queue.rows.clone(); keys = torch.randn(4, 3)
    queue.enqueue(keys)
    assert torch.equal(queue.rows[:4], keys) and torch.equal(queue.rows[4:], before[4:]) and int(queue.pointer) == 4
    again = torch.randn(4, 3); queue.enqueue(again)
    assert torch.equal(queue.rows[[4, 5, 0, 1]], again) and torch.equal(queue.rows[2:4], keys[2:]) and int(queue.pointer) == 2


def test_queue_start_is_seeded_unit_noise_without_copies():
    first, second = (KeyQueue(100, 16, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first.rows, second.rows) and int(first.filled) == 0 and len(first) == 100
    torch.testing.assert_close(first.rows.norm(dim=1), torch.ones(100))
    address = first.rows.data_ptr(); first.enqueue(torch.randn(30, 16, dtype=torch.float64, requires_grad=True))
    assert first.rows.data_ptr() == address and first.rows.dtype == torch.float32 and not first.rows.requires_grad


def test_queue_resumes_in_place():
    queue = KeyQueue(5, 2); queue.enqueue(torch.ones(3, 2))
    other = KeyQueue(5, 2); other.load_state_dict(queue.state_dict())
    for one in (queue, other): one.enqueue(torch.arange(8.).view(4, 2))
    assert torch.equal(queue.rows, other.rows) and int(other.pointer) == 2 and int(other.filled) == 5
    assert set(queue.state_dict()) == {"rows", "pointer", "filled"}


@pytest.mark.parametrize("keys, error, match", [
    (torch.zeros(2, 3), ValueError, "keys: .*axis 1"), (torch.zeros(2, 4, 1), ValueError, "keys"), (torch.zeros(0, 4), ValueError, "keys: is empty"),
    (torch.full((2, 4), float("nan")), ValueError, "keys: holds .* NaN"), (torch.zeros(2, 4).long(), ValueError, "keys: expected float"), ([[1.]*4], TypeError, "keys")])
def test_bad_keys(keys, error, match):
    queue = KeyQueue(8, 4); before = queue.rows.clone()
    with pytest.raises(error, match=match): queue.enqueue(keys)
    assert torch.equal(queue.rows, before) and int(queue.pointer) == 0


def test_bad_queue():
    with pytest.raises(ValueError, match="size"): KeyQueue(0, 4)
    with pytest.raises(ValueError, match="dim"): KeyQueue(4, 0)


def test_backward_after_enqueue_is_an_error_not_a_wrong_gradient():
    queue = KeyQueue(8, 4); query = torch.randn(2, 4, requires_grad=True)
    loss = (query @ queue.rows.T).exp().sum(); queue.enqueue(torch.randn(2, 4))
    with pytest.raises(RuntimeError, match="inplace"): loss.backward()


def rank_queue(rank, port, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    queue, alone = KeyQueue(5, 2, torch.Generator().manual_seed(0)), KeyQueue(5, 2, torch.Generator().manual_seed(0), gather=None)
    for step in range(3):
        keys = torch.full((2, 2), 10.*step + rank); queue.enqueue(keys); alone.enqueue(keys)
    torch.save((queue.state_dict(), alone.rows), f"{folder}/{rank}.pt")
    torch.distributed.barrier(); torch.distributed.destroy_process_group()


def test_two_processes_keep_one_queue(tmp_path):
    import socket
    with socket.socket() as s: s.bind(("127.0.0.1", 0)); port = s.getsockname()[1]
    torch.multiprocessing.start_processes(rank_queue, (port, str(tmp_path)), nprocs=2, start_method=START)
    (first, alone0), (second, alone1) = (torch.load(tmp_path/f"{rank}.pt") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first) and not torch.equal(alone0, alone1)
    assert first["rows"][:, 0].sort().values.tolist() == [11., 20., 20., 21., 21.] and int(first["pointer"]) == 12 % 5
    rows = torch.randn(3, 2); assert all_gather_rows(rows) is rows


# -- split batch normalisation ------------------------------------------------------------------------------------

def test_split_is_batch_norm_of_each_part():
    torch.manual_seed(0)
    whole = nn.BatchNorm2d(3); nn.init.uniform_(whole.weight); nn.init.uniform_(whole.bias)
    split = split_batch_norm(nn.Sequential(copy.deepcopy(whole)), 2)[0]
    x = torch.randn(6, 3, 4, 5, requires_grad=True)
    parts = [copy.deepcopy(whole)(part) for part in x.chunk(2)]
    out = split(x)
    torch.testing.assert_close(out, torch.cat(parts))
    torch.testing.assert_close(*(torch.autograd.grad(o.square().sum()*.5 + o[0].sum(), x)[0] for o in (out, torch.cat(parts))))
    copies = [copy.deepcopy(whole) for _ in range(2)]
    for one, part in zip(copies, x.chunk(2)): one(part)
    torch.testing.assert_close(split.running_mean, (copies[0].running_mean + copies[1].running_mean)/2)
    torch.testing.assert_close(split.running_var, (copies[0].running_var + copies[1].running_var)/2)
    assert int(split.num_batches_tracked) == 1
    reference = copy.deepcopy(whole).eval(); reference.load_state_dict(split.state_dict())
    torch.testing.assert_close(split.eval()(x), reference(x))


def test_split_one_is_plain_and_uneven_batches_work():
    whole = nn.BatchNorm2d(3); one = split_batch_norm(nn.Sequential(copy.deepcopy(whole)), 1)[0]
    x = torch.randn(5, 3, 4, 4)
    torch.testing.assert_close(one(x), whole(x)); torch.testing.assert_close(one.running_var, whole.running_var)
    assert split_batch_norm(nn.Sequential(nn.BatchNorm2d(3)), 2)[0](x).shape == x.shape


def test_split_network():
    encoder = create_encoder("resnet18"); names = list(encoder.state_dict())
    assert split_batch_norm(encoder, 2) is encoder and list(encoder.state_dict()) == names
    assert sum(type(m) is SplitBatchNorm2d for m in encoder.modules()) == 20
    twin = copy.deepcopy(encoder); assert twin.body.bn1.splits == 2
    encoder(torch.randn(4, 3, 64, 64)).sum().backward()
    with pytest.raises(ValueError, match="images: 1 images"): encoder(torch.randn(1, 3, 64, 64))
    with pytest.raises(ValueError, match="network"): split_batch_norm(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="splits"): split_batch_norm(encoder, 0)


def test_shuffled_puts_rows_back():
    images = torch.arange(6.)[:, None]
    order = []
    network = lambda x: (order.append(x[:, 0].tolist()), (x*2, (x*3, x[:, 0])))[1]
    double, (triple, flat) = shuffled(network, images, torch.Generator().manual_seed(0))
    assert torch.equal(double, images*2) and torch.equal(triple, images*3) and torch.equal(flat, images[:, 0])
    assert order[0] != images[:, 0].tolist() and sorted(order[0]) == images[:, 0].tolist()
    shuffled(network, images, torch.Generator().manual_seed(0))
    assert order[0] == order[1]
    split = split_batch_norm(nn.Sequential(nn.BatchNorm2d(3)), 2)
    x = torch.randn(8, 3, 2, 2)
    assert not torch.allclose(split(x), shuffled(split, x, torch.Generator().manual_seed(1)))           # other companions, other numbers
    split.eval(); torch.testing.assert_close(split(x), shuffled(split, x))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    pair = Pair().cuda(); pair.queue.enqueue(torch.randn(3, 4, device="cuda"))
    pair.key.update()
    assert pair.queue.rows.is_cuda and int(pair.queue.pointer) == 3 and pair.queue.ages().is_cuda
    assert KeyQueue(4, 2, torch.Generator("cuda").manual_seed(0)).rows.is_cuda


@pytest.mark.parametrize("load", ["load_state_dict", "copy_", "a new layer's values, through the whole method"])
def test_weights_that_come_after_the_copy_reach_it(load):
    torch.manual_seed(0)
    online, other = network(), network()
    slow = MomentumEncoder(online, .9)
    if load == "load_state_dict": online.load_state_dict(other.state_dict())
    else:
        with torch.no_grad():
            for own, theirs in zip([*online.parameters(), *online.buffers()], [*other.parameters(), *other.buffers()]): own.copy_(theirs)
    if load.startswith("a new"): slow(torch.randn(2, 3, 8, 8))                # whoever asks first
    for name, value in slow.state_dict().items():
        if "running" not in name and "tracked" not in name: assert torch.equal(value, other.state_dict()[name.removeprefix("network.")])
    with torch.no_grad(): online[0].weight.add_(1.)                              # a step: now it lags
    slow.update()
    lag = slow.network[0].weight.clone()
    online.load_state_dict(network().state_dict())
    assert torch.equal(slow.network[0].weight, lag)


def test_a_method_that_goes_on_keeps_its_lag():
    torch.manual_seed(0)
    class Method(nn.Module):
        def __init__(self): super().__init__(); self.branch = network(); self.slow = MomentumEncoder(self.branch, .5)
    first, second = Method(), Method()
    with torch.no_grad(): first.branch[0].weight.add_(1.)
    first.slow.update()
    second.load_state_dict(first.state_dict())
    for one in (second, copy.deepcopy(second)):
        assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), first.state_dict().values(), strict=True))
        assert not torch.equal(one.slow.network[0].weight, one.branch[0].weight)
