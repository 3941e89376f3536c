"pixcl_nb.losses.streaming: kernels against full matrices, tiles against all pairs, memory, precision."
import itertools
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from pixcl_nb.losses.streaming import (
    BITS, ClassTail, PairTiles, contrast_per_pair, contrast_shared, log_sum_exp_loss, logit_bound,
    pair_log_sum_exp, panel_height, push_pairs, sort_by, stream_rows, streamed, use_backend, wide)


def unit(n, d=8, dtype=torch.float64): return F.normalize(torch.randn(n, d, dtype=dtype), dim=1)
def close(a, b, rtol=1e-9, atol=1e-12): torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


@pytest.mark.parametrize("temperature", [.5, .05, .001])
@pytest.mark.parametrize("chunk", [None, 1, 7])
@pytest.mark.parametrize("with_extra", [True, False])
def test_rows_equal_logsumexp(temperature, chunk, with_extra):
    torch.manual_seed(0)
    r, c, e, w = unit(20).requires_grad_(), unit(1500).requires_grad_(), torch.randn(20, dtype=torch.float64, requires_grad=True), torch.rand(20, dtype=torch.float64)
    s = r @ c.T / temperature
    full = (w * (torch.cat([e[:, None], s], 1) if with_extra else s).logsumexp(1)).sum()
    mine = log_sum_exp_loss(r, c, w, temperature, e if with_extra else None, chunk=chunk)
    leaves = (r, c, e) if with_extra else (r, c)
    close(mine, full)
    for a, b in zip(torch.autograd.grad(mine, leaves), torch.autograd.grad(full, leaves, retain_graph=True)): close(a, b)
    only_rows, = torch.autograd.grad(log_sum_exp_loss(r, c.detach(), w, temperature, None, chunk=chunk), r)       # the cheap path, tiles of columns
    close(only_rows, torch.autograd.grad((w * s.logsumexp(1)).sum(), r)[0])

@pytest.mark.parametrize("temperature", [.3, .002])
def test_tail_is_seen_by_its_class_only(temperature):
    torch.manual_seed(1)
    y, y_tail = torch.randint(0, 4, (23,)).sort().values, torch.randint(0, 5, (31,)).sort().values
    r, c, w = unit(23).requires_grad_(), unit(10 + 31).requires_grad_(), torch.rand(23, dtype=torch.float64)
    hidden = torch.cat([torch.zeros(23, 10).bool(), y[:, None] != y_tail], 1)
    full = (w * (r @ c.T / temperature).masked_fill(hidden, -torch.inf).logsumexp(1)).sum()
    for chunk in (None, 5):
        mine = log_sum_exp_loss(r, c, w, temperature, tail=ClassTail(y, y_tail), chunk=chunk)
        close(mine, full)
        for a, b in zip(torch.autograd.grad(mine, (r, c)), torch.autograd.grad(full, (r, c), retain_graph=True)): close(a, b)

@pytest.mark.parametrize("pairs,scope", list(itertools.product(["all", "same", "different"], ["any", "same image", "other image"])))
@pytest.mark.parametrize("tile", [None, 1, 6])
def test_every_pair_exactly_once(pairs, scope, tile):
    torch.manual_seed(2)
    n, y, g, bag = 40, torch.randint(0, 5, (40,)), torch.randint(0, 4, (40,)), None
    bag = g // 2
    wanted = {"all": torch.ones(n, n).bool(), "same": y[:, None] == y, "different": y[:, None] != y}[pairs] & (bag[:, None] == bag) & ~torch.eye(n).bool()
    same = g[:, None] == g
    wanted &= {"any": torch.ones_like(same), "same image": same, "other image": ~same}[scope]
    tiles, count = PairTiles(y, g, bag, pairs, scope, tile), torch.zeros(n, n).long()
    order = torch.arange(n) if tiles.order is None else tiles.order
    for I, J, hidden in tiles:
        seen = torch.ones(I.stop - I.start, J.stop - J.start).long() if hidden is None else (~hidden).long()
        count[order[I][:, None], order[J]] += seen
        if I != J: count[order[J][:, None], order[I]] += seen.T
    assert torch.equal(count, wanted.long())
    for careful in (False, True):
        f, w = unit(n), torch.rand(n, dtype=torch.float64) * wanted.any(1)
        s = (f.requires_grad_() @ f.T / .1).masked_fill(~wanted, -torch.inf)
        close(pair_log_sum_exp(f.detach(), tiles, .1, careful), s.logsumexp(1))
        G, rows = torch.zeros_like(f), w > 0
        if rows.any():
            push_pairs(G, f.detach(), tiles, s.logsumexp(1).detach(), w, .1, careful)
            close(G, torch.autograd.grad((w[rows] * s[rows].logsumexp(1)).sum(), f)[0])

def test_sort_by_is_lexicographic():
    a, b = torch.randint(0, 3, (50,)), torch.randint(-2, 3, (50,))
    order = sort_by(a, b).tolist()
    assert order == sorted(range(50), key=lambda i: (a[i].item(), b[i].item()))

def test_bound_and_heights():
    f = 3 * unit(30)
    assert (f @ f.T / .1).abs().max() <= logit_bound(f, f, .1) * (1 + 1e-12)
    assert panel_height(16384, torch.device("cpu")) * 16384 * 4 <= 2**23 and panel_height(10**6, torch.device("cpu"), 5) == 5
    assert [t.dtype for t in wide(torch.zeros(1).half(), torch.zeros(1).bfloat16())] == [torch.float32] * 2 and wide(torch.zeros(1).double(), None)[1] is None
    assert abs(2**BITS - 2.718281828) < 1e-8

def test_nothing_is_kept_without_grad():
    r = unit(5, dtype=torch.float32).requires_grad_()
    with torch.no_grad(): assert not log_sum_exp_loss(r, r, torch.ones(5)).requires_grad
    assert stream_rows(r.detach(), r.detach(), None, torch.ones(5), 1., want_rows=False)[1:] == (None, None)

def test_backward_twice_gives_the_same():
    r = unit(5).requires_grad_()
    loss = log_sum_exp_loss(r, r.detach(), torch.ones(5, dtype=torch.float64))
    first, = torch.autograd.grad(loss, r, retain_graph=True); second, = torch.autograd.grad(2 * loss, r)
    close(second, 2 * first)

def test_rows_without_negatives_cost_nothing():
    "One class only: L = −inf, the released loss is 0 and so is its gradient."
    f, y = unit(9).requires_grad_(), torch.zeros(9).long()
    tiles = lambda pairs: PairTiles(y, y, y, pairs, "any", tile=4)
    loss = streamed(f, contrast_per_pair, tiles("same"), tiles("different"), torch.ones(9, dtype=torch.float64), True, temperature=.1)
    assert loss == 0 and not torch.autograd.grad(loss, f)[0].any()

def test_weightless_rows_stay_finite():
    "A row alone in its class has weight 0 and count 0, but stands in every denominator."
    f, y = unit(4).requires_grad_(), torch.tensor([0, 0, 0, 7])
    count, w = torch.tensor([2, 2, 2, 0]), torch.tensor([1., 1., 1., 0.], dtype=torch.float64)
    tiles = [PairTiles(y, y * 0, y * 0, "all", "any")]
    loss = streamed(f, contrast_shared, tiles, [(1, y.clamp(max=1), 2)], w, count, False, True, temperature=.1)
    gradient, = torch.autograd.grad(loss, f)
    assert loss.isfinite() and gradient.isfinite().all() and gradient[3].any()

PEAK = """
import resource, torch, torch.nn.functional as F
from pixcl_nb.losses.label_losses import pixel_contrast
torch.set_num_threads(1)
f, y = F.normalize(torch.randn(1, 6000, 64), dim=2).requires_grad_(), torch.randint(0, 9, (1, 6000))
for form in ("supcon", "released_within"): pixel_contrast(f[:, :700], y[:, :700], form=form).backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for form in ("supcon", "released_within"): pixel_contrast(f, y, form=form).backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""

def test_memory_is_linear():
    "6,000 pixels: one matrix would be 137 MB; everything together must stay below 40."
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", PEAK], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-800:]
    assert float(run.stdout) < 40

@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("form", ["supcon", "released_within"])
def test_cuda_equals_cpu(form):
    from pixcl_nb.losses.label_losses import pixel_contrast
    f, y = F.normalize(torch.randn(2, 3000, 32), dim=2), torch.randint(0, 9, (2, 3000))
    results = []
    for device in ("cpu", "cuda"):
        x = f.to(device).requires_grad_()
        loss = pixel_contrast(x, y.to(device), form=form)
        loss.backward()
        results.append((loss.detach().cpu(), x.grad.cpu()))
    for a, b in zip(*results): torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


# ---- Triton ---------------------------------------------------------------------------------------------------------

has_triton = pytest.mark.skipif(not __import__("importlib").util.find_spec("triton"), reason="needs triton")

def both_backends(compute):
    "What `compute` returns with the torch path and with the kernels."
    with use_backend("torch"): expected = compute()
    with use_backend("triton"): return list(zip(compute(), expected))

def check_kernels(device, n=150):
    "Every relation, the tail, the extra logit and every form of pixel_contrast, values and gradients, kernels against the torch path."
    from pixcl_nb.losses.label_losses import FORMS, pixel_contrast
    torch.manual_seed(3)
    agree = lambda pairs, what: [torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-5, msg=lambda m: f"{what}: {m}") for a, b in pairs]
    y, g = torch.randint(0, 5, (n,), device=device), torch.randint(0, 4, (n,), device=device)
    f, w = F.normalize(torch.randn(n, 20, device=device), dim=1), torch.rand(n, device=device)
    for pairs, scope, bag, temperature in itertools.product(["all", "same", "different"], ["any", "same image", "other image"], [y * 0, g // 2], [.1, .01]):
        tiles = PairTiles(y, g, bag, pairs, scope)
        L = pair_log_sum_exp(f, tiles, temperature, True)
        def sums():
            G, used = torch.zeros_like(f), w * L.isfinite()
            push_pairs(G, f, tiles, L, used, temperature, True)
            return pair_log_sum_exp(f, tiles, temperature, True), G * temperature
        agree(both_backends(sums), (pairs, scope, temperature))
    extra, c = torch.randn(n, device=device), F.normalize(torch.randn(70, 20, device=device), dim=1)
    agree(both_backends(lambda: stream_rows(f, c, extra, w, .07, True, True)), "extra")
    tail = ClassTail(y.sort().values - 2, torch.randint(-2, 4, (30,), device=device).sort().values)
    agree(both_backends(lambda: stream_rows(f, c, None, w, .07, True, True, tail)), "tail")
    labels = torch.randint(0, 3, (4, n // 4), device=device)
    labels[0, :9], labels[3] = 255, 255
    for form in FORMS:
        def loss():
            a, b = (F.normalize(torch.randn(4, n // 4, 20, generator=torch.Generator().manual_seed(s)), dim=2).to(device).requires_grad_() for s in (0, 1))
            other = ((b, b.flip(0)), (labels, labels.flip(0))) if form == "paper_cross" else (b.flip(0), labels.flip(0)) if form == "released_cross" else (b, labels)
            value = pixel_contrast(a, labels, *other, form=form)
            value.backward()
            return value.detach(), a.grad, b.grad
        agree(both_backends(loss), form)

@has_triton
def test_kernels_equal_the_torch_path_in_the_interpreter():
    run = subprocess.run([sys.executable, "-W", "ignore", __file__], capture_output=True, text=True, timeout=300, env=os.environ | {"TRITON_INTERPRET": "1"})
    assert run.returncode == 0 and "kernels agree" in run.stdout, run.stderr[-3000:]

@has_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("n", [150, 5000])
def test_kernels_equal_the_torch_path_on_a_gpu(n): check_kernels("cuda", n)

def test_auto_is_the_torch_path():
    "The kernels have not been measured; until they have, nothing but an explicit wish may choose them."
    from pixcl_nb.losses.streaming import fused
    assert fused(torch.zeros(3, 4)) is None
    with use_backend("torch"): assert fused(torch.zeros(3, 4)) is None

@has_triton
def test_a_wish_that_cannot_be_met_is_named():
    with use_backend("triton"), pytest.raises(ValueError, match="backend: 'triton' needs CUDA, the rows are on cpu"): pair_log_sum_exp(torch.zeros(3, 4), None, 1., True)
    with pytest.raises(ValueError, match="backend: unknown name 'cuda'"):
        with use_backend("cuda"): pass
    with use_backend("auto"): pass

@has_triton
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["ieee", "tf32x3", "tf32"])
def test_kernels_compile_for_a_gpu_that_is_not_here(precision):
    "Machine code for an H100 or H200 (sm_90) can be made on any computer; a program's blocks must fit into an A100's 163 KB on the chip."
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from pixcl_nb.losses import triton as kernels
    sizes = kernels.block_sizes(128) | {"PRECISION": precision}
    run = {name: sizes.pop(name) for name in ("num_stages", "num_warps")}
    relation = dict(PAIRS=2, MYSELF=True, OTHER_IMAGE=True, BAGS=True)
    for kernel, own in ((kernels.log_sum_exp_kernel, dict(EXTRA=True)), (kernels.push_kernel, dict(OWN=True, OTHERS=True))):
        constants = sizes | relation | own
        integer = lambda name: name in ("starts", "stops") or name.startswith(("row_", "column_"))
        signature = {name: "constexpr" if name in constants else "*i32" if integer(name) else "i32" if name in ("n", "K") else "fp32" if "scale" in name else "*fp32" for name in kernel.arg_names}
        made = triton.compile(ASTSource(kernel, signature, constexprs=constants), target=GPUTarget("cuda", 90, 32), options=run)
        assert made.asm["cubin"] and made.metadata.shared <= 163 * 1024

if __name__ == "__main__":
    check_kernels("cpu")
    from pixcl_nb.losses.streaming import fused
    with use_backend("triton"):
        for rows in (torch.zeros(3, 4).double(), torch.zeros(3, 513)):
            with pytest.raises(ValueError, match="backend: 'triton' takes float32 rows of at most 512 channels"): fused(rows)
    print("kernels agree")
