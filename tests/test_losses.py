"pixcl_nb.losses, densecl and cp2: golden numbers, loops, bad input, edges."
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pixcl_nb.losses.infonce import info_nce
from pixcl_nb.losses.label_losses import FORMS, pixel_contrast
from pixcl_nb.methods.cp2 import cp2_dense_loss, foreground_cosines, masked_pool
from pixcl_nb.methods.densecl import densecl_loss
from pixcl_nb.processes import gather_rows

GOLDEN = Path(__file__).parent/"golden"
def golden(name): return {k: torch.from_numpy(np.asarray(v)) for k, v in np.load(GOLDEN/f"{name}.npz").items()}
def close(a, b, rtol=1e-5, atol=0): torch.testing.assert_close(torch.as_tensor(a).double(), torch.as_tensor(b).double(), rtol=rtol, atol=atol)


def info_nce_dense(query, positive, negatives, temperature):
    logits = torch.cat([(query * positive).sum(1, keepdim=True), query @ negatives.T], 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.long))

@pytest.mark.parametrize("dtype,scale,temperature", [(torch.float64, 1, .2), (torch.float64, 1, .005), (torch.float64, 30, .01), (torch.float32, 1, .2), (torch.float32, 1, .005)])
@pytest.mark.parametrize("learned", ["query", "all"])
def test_info_nce_equals_cross_entropy(dtype, scale, temperature, learned):
    torch.manual_seed(0)
    make = lambda n: (F.normalize(torch.randn(n, 16, dtype=dtype), dim=1) * scale)
    tensors = [make(130), make(130), make(2100)]
    a, b = ([x.clone().requires_grad_(i == 0 or learned == "all") for i, x in enumerate(tensors)] for _ in range(2))
    mine, theirs = info_nce(*a, temperature), info_nce_dense(*b, temperature)
    (3 * mine).backward(); (3 * theirs).backward()
    exact = dtype == torch.float64
    close(mine, theirs, rtol=1e-12 if exact else 1e-5)
    for x, y in zip(a, b):
        assert (x.grad is None) == (y.grad is None)
        if x.grad is not None: close(x.grad, y.grad, rtol=1e-9 if exact else 1e-4, atol=1e-12 if exact else 2e-5)


def test_densecl_golden():
    g = golden("densecl")
    lam = float(g["lam"])
    backbone = lambda x: F.normalize(x.flatten(2), dim=1)
    match = (backbone(g["query_backbone"]).transpose(1, 2) @ backbone(g["key_backbone"])).argmax(2)
    query_dense, query_global = g["query_dense"].requires_grad_(), g["query_global"].requires_grad_()
    dense = lam * densecl_loss(query_dense, g["key_dense"], match, g["queue_dense"].T)
    single = (1 - lam) * info_nce(F.normalize(query_global, dim=1), F.normalize(g["key_global"], dim=1), g["queue_global"].T)
    (dense + single).backward()
    close(dense, g["loss_dense_weighted"]); close(single, g["loss_global_weighted"]); close(dense + single, g["loss"])
    close(query_dense.grad, g["grad_query_dense"], 0, 1e-6); close(query_global.grad, g["grad_query_global"], 0, 1e-6)


def test_cp2_golden():
    g = golden("cp2")
    query_map = g["query_map"].requires_grad_()
    dense = cp2_dense_loss(query_map, g["key_map"], g["query_mask"], g["key_mask"])
    instance = info_nce(masked_pool(query_map, g["query_mask"]), masked_pool(g["key_map"], g["key_mask"]), g["queue"].T)
    loss = instance + .2 * dense
    loss.backward()
    close(dense, g["loss_dense"]); close(instance, g["loss_instance"]); close(loss, g["loss"])
    close(query_map.grad, g["grad_query_map"], 0, 1e-6)
    close(masked_pool(g["key_map"], g["key_mask"]).T, g["enqueued"], 1e-5, 1e-6)


# ---- pixel_contrast -------------------------------------------------------------------------------------------------

def views_of(g, form, f, f_aug):
    perm = g["perm"]
    if form == "paper_cross": return (f_aug, f_aug[perm]), (g["labels_aug"], g["labels_aug"][perm])
    if form == "released_cross": return f_aug[perm], g["labels_aug"][perm]
    return f_aug, g["labels_aug"]

@pytest.mark.parametrize("file,form", [("full", f) for f in list(FORMS)[:4]] + [("ignore", f) for f in list(FORMS)[:2]])
@pytest.mark.parametrize("dtype,tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("chunk", [None, 7])
def test_label_contrast_golden(file, form, dtype, tolerance, chunk):
    g = golden(f"label_contrast_{file}")
    f, f_aug = (g[k].to(dtype).requires_grad_() for k in ("f", "f_aug"))
    other, other_labels = views_of(g, form, f, f_aug)
    loss = pixel_contrast(f, g["labels"], other, other_labels, form=form, temperature=float(g["tau"]), chunk=chunk)
    loss.backward()
    close(loss, g[form], tolerance)
    close(f.grad, g[f"{form}_grad_f"], 0, tolerance); close(f_aug.grad, g[f"{form}_grad_f_aug"], 0, tolerance)


def related(scope, image):
    same = image[:, None] == image
    return {"any": torch.ones_like(same), "same image": same, "other image": ~same}[scope]

def dense(rows, y, image, bag, group, total, form, scope, self_pairs, reduction, temperature):
    "Every switch with the full matrix and boolean masks, straight from the definitions."
    s, eye = rows @ rows.T / temperature, torch.eye(len(rows), dtype=torch.bool)
    in_bag = bag[:, None] == bag
    P = (y[:, None] == y) & related(scope[0], image) & in_bag & (~eye if self_pairs == "exclude" else ~eye | eye)
    N = (y[:, None] != y) & related(scope[1], image) & in_bag
    if form == "supcon": pair = -(s - s.masked_fill(~(P | N | ((y[:, None] == y) & related(scope[0], image) & in_bag & ~eye)), -torch.inf).logsumexp(1, keepdim=True))
    else: pair = -F.logsigmoid(s - s.masked_fill(~N, -torch.inf).logsumexp(1, keepdim=True))
    n = P.sum(1)
    row = pair.masked_fill(~P, 0).sum(1) / n.clamp(min=1)
    if reduction == "rows": return row[n > 0].mean()
    means = [row[(group == i) & (n > 0)].mean() if ((group == i) & (n > 0)).any() else row.sum() * 0 for i in range(total)]
    count = total if reduction == "released" else sum(bool(((group == i) & (n > 0)).any()) for i in range(total))
    return sum(means) / count

@pytest.mark.parametrize("form", ["supcon", "released_cross"])
@pytest.mark.parametrize("scope", list(itertools.product(["any", "same image", "other image"], repeat=2)))
@pytest.mark.parametrize("self_pairs", ["include", "exclude"])
def test_every_switch_equals_dense(form, scope, self_pairs):
    torch.manual_seed(1)
    B, N, D, tau = 4, 30, 8, .1
    f = F.normalize(torch.randn(B, N, D, dtype=torch.float64), dim=2)
    y = torch.randint(0, 4, (B, N))
    y[torch.rand(B, N) < .2] = 255
    y[1] = 255; y[2, :20] = 3; y[0, 0] = 9     # an ignored image, a class that fills an image, a class of one pixel
    keep = (y != 255).flatten()
    image = torch.arange(B)[:, None].expand(B, N).flatten()[keep]
    for reduction, chunk in (("released", None), ("valid images", 11), ("rows", None)):
        a, b = (f.clone().requires_grad_() for _ in range(2))
        if form == "supcon":
            mine = pixel_contrast(a, y, form=form, scope=scope, self_pairs=self_pairs, reduction=reduction, temperature=tau, chunk=chunk)
            theirs = dense(b.flatten(0, 1)[keep], y.flatten()[keep], image, torch.zeros_like(image), image, B, form, scope, self_pairs, reduction, tau)
        else:
            mine = pixel_contrast(a[:2], y[:2], a[2:], y[2:], form=form, scope=scope, self_pairs=self_pairs, reduction=reduction, temperature=tau, chunk=chunk)
            theirs = dense(b.flatten(0, 1)[keep], y.flatten()[keep], image, image % 2, image % 2, 2, form, scope, self_pairs, reduction, tau)
        (2 * mine).backward(); (2 * theirs).backward()
        close(mine, theirs, 1e-10); close(a.grad, b.grad, 1e-8, 1e-12)


def one_bag(f, y, form, **kw): return pixel_contrast(f[None], y[None], form=form, **kw)

@pytest.mark.parametrize("form", ["supcon", "released_within"])
@pytest.mark.parametrize("length", [1., 12.])
def test_low_temperature_and_long_rows_are_stable(form, length):
    "tau = .005: logits of ±200, and of ±28800 with rows of length 12. float32 against the float64 matrix."
    torch.manual_seed(2)
    f = F.normalize(torch.randn(90, 16, dtype=torch.float64), dim=1) * length
    y = torch.randint(0, 3, (90,))
    a, b = f.float().requires_grad_(), f.clone().requires_grad_()
    zeros = torch.zeros(90, dtype=torch.long)
    mine = one_bag(a, y, form, temperature=.005, chunk=32)
    theirs = dense(b, y, zeros, zeros, zeros, 1, form, ("any", "any"), "exclude" if form == "supcon" else "include", "rows", .005)
    mine.backward(); theirs.backward()
    close(mine, theirs, 1e-5)
    assert (a.grad.double() - b.grad).norm() < 2e-4 * length**2 * b.grad.norm()


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast(form, dtype):
    "Half inputs give the float32 loss of the rounded rows, and autocast changes nothing."
    torch.manual_seed(3)
    f = F.normalize(torch.randn(2, 40, 16), dim=2).to(dtype)
    y = torch.randint(0, 3, (2, 40))
    other = ((f, f.flip(0)), (y, y.flip(0))) if form == "paper_cross" else (f.flip(0), y.flip(0))
    full = ((f.float(), f.float().flip(0)), (y, y.flip(0))) if form == "paper_cross" else (f.float().flip(0), y.flip(0))
    half = f.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16): loss = pixel_contrast(half, y, *other, form=form, temperature=.005)
    loss.backward()
    assert loss.dtype == torch.float32 and half.grad.dtype == dtype and half.grad.isfinite().all()
    close(loss, pixel_contrast(f.float(), y, *full, form=form, temperature=.005), 1e-5)


@pytest.mark.parametrize("form", list(FORMS))
def test_edges(form):
    f, g = (F.normalize(torch.randn(2, 6, 4), dim=2).requires_grad_() for _ in range(2))
    call = lambda y: pixel_contrast(f, y, (g, g) if form == "paper_cross" else g, (y, y) if form == "paper_cross" else y, form=form)
    for name, y in {"all ignored": torch.full((2, 6), 255), "one pixel": torch.full((2, 6), 255).index_fill(1, torch.tensor(0), 3), "one class": torch.zeros(2, 6, dtype=torch.long),
                    "every pixel its own class": torch.arange(12).view(2, 6), "uint8": torch.ones(2, 6, dtype=torch.uint8)}.items():
        f.grad = g.grad = None
        loss = call(y)
        loss.backward()
        assert loss.isfinite() and f.grad.isfinite().all() and g.grad.isfinite().all(), name
        if name == "all ignored": assert loss == 0 and not f.grad.any() and not g.grad.any()
    assert f.grad.shape == f.shape


def test_ignored_pixels_have_no_say():
    torch.manual_seed(4)
    f, y = F.normalize(torch.randn(2, 30, 8), dim=2).requires_grad_(), torch.randint(0, 3, (2, 30))
    y[:, 20:] = 255
    loss = pixel_contrast(f, y, form="supcon")
    loss.backward()
    close(loss, pixel_contrast(f[:, :20], y[:, :20], form="supcon")); assert not f.grad[:, 20:].any() and f.grad[:, :20].any()
    with torch.no_grad(): close(loss, pixel_contrast(f, y, form="supcon"))


@pytest.mark.parametrize("change,match", [
    (dict(form="supkon"), "form: unknown name 'supkon', did you mean 'supcon'"), (dict(scope="elsewhere"), "scope: unknown name"), (dict(scope=("any",) * 3), "scope: expected"),
    (dict(self_pairs="maybe"), "self_pairs: unknown"), (dict(reduction="sum"), "reduction: unknown"), (dict(temperature=0.), "temperature: 0.0 is out of range"), (dict(chunk=0), "chunk: 0"),
    (dict(features=torch.zeros(2, 5)), "features: has 2 axes"), (dict(features=torch.zeros(2, 5, 3).long()), "features: expected float"), (dict(features=torch.full((2, 5, 3), torch.nan)), "features: holds 30 NaN"),
    (dict(features=torch.zeros(2, 0, 3)), "features: is empty"), (dict(labels=torch.zeros(2, 4).long()), "labels: has size 4"), (dict(labels=torch.zeros(2, 5)), "labels: expected integer"),
    (dict(form="released_cross"), "other_features: form 'released_cross'"), (dict(form="paper_within"), "other_features: form"), (dict(form="paper_cross"), "other_features: paper_cross needs"),
    (dict(form="released_cross", other_features=torch.zeros(2, 5, 3)), "other_labels"), (dict(form="paper_within", scope="any", other_features=torch.zeros(2, 5, 3)), "scope: form 'paper_within'"),
    (dict(form="released_within", image_ids=torch.arange(2)), "image_ids: form"), (dict(image_ids=torch.arange(3)), "image_ids: has 3 ids"), (dict(image_ids=torch.rand(2)), "image_ids: expected integer"),
    (dict(form="released_within", scope="other image"), "scope: released_within"), (dict(other_features=torch.zeros(2, 5, 4)), "other_features: has size 4")])
def test_pixel_contrast_bad_input(change, match):
    arguments = dict(features=torch.zeros(2, 5, 3), labels=torch.zeros(2, 5).long(), form="supcon") | change
    with pytest.raises(ValueError, match=match): pixel_contrast(arguments.pop("features"), arguments.pop("labels"), **arguments)


def test_supcon_appends_the_other_view():
    torch.manual_seed(5)
    f, g, y = F.normalize(torch.randn(2, 8, 4), dim=2), F.normalize(torch.randn(3, 5, 4), dim=2), torch.randint(0, 2, (2, 8))
    y_g = torch.randint(0, 2, (3, 5))
    close(pixel_contrast(f, y, g, y_g, form="supcon"), one_bag(torch.cat([f.flatten(0, 1), g.flatten(0, 1)]), torch.cat([y.flatten(), y_g.flatten()]), "supcon"), 1e-6)


def test_runs_under_compile():
    f, y = F.normalize(torch.randn(1, 20, 8), dim=2), torch.randint(0, 3, (1, 20))
    step = torch.compile(lambda x: pixel_contrast(F.normalize(x * 2, dim=2), y, form="supcon") + info_nce(x[0], x[0], x[0]), backend="eager")
    a, b = f.clone().requires_grad_(), f.clone().requires_grad_()
    step(a).backward(); (pixel_contrast(F.normalize(b * 2, dim=2), y, form="supcon") + info_nce(b[0], b[0], b[0])).backward()
    close(a.grad, b.grad, 1e-4, 1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs a C++ compiler")
def test_compiled_by_inductor_gives_the_same():
    "The code around the loss is compiled, the streaming kernels stay what they are: value and gradient are unchanged."
    torch.manual_seed(8)
    y = torch.randint(0, 3, (2, 20))
    y[0, :4] = 255
    def step(x, form):
        f, g = F.normalize(torch.tanh(x) + x, dim=2), F.normalize(x * 2 + 1, dim=2)
        other = ((g, g.flip(0)), (y, y.flip(0))) if form == "paper_cross" else (g.flip(0), y.flip(0))
        return pixel_contrast(f, y, *other, form=form) * 3
    for form in ("supcon", "paper_cross"):
        torch._dynamo.reset()
        a, b = (torch.randn(2, 20, 8, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2))
        compiled, plain = torch.compile(step)(a, form), step(b, form)
        compiled.backward(); plain.backward()
        close(compiled, plain, 1e-5); close(a.grad, b.grad, 1e-4, 1e-6)


@pytest.mark.parametrize("form", list(FORMS))
def test_rows_are_used_as_given(form):
    "Rows that are not unit length are not normalised: twice the length is a quarter of the temperature."
    torch.manual_seed(9)
    f, g, y = torch.randn(2, 12, 5, dtype=torch.float64), torch.randn(2, 12, 5, dtype=torch.float64), torch.randint(0, 3, (2, 12))
    def value(scale, temperature):
        a, b = f * scale, g * scale
        other = ((b, b.flip(0)), (y, y.flip(0))) if form == "paper_cross" else (b.flip(0), y.flip(0)) if form == "released_cross" else (b, y)
        return pixel_contrast(a, y, *other, form=form, temperature=temperature)
    close(value(2, 1.), value(1, .25), 1e-12)
    assert (value(1, 1.) - value(2, 1.)).abs() > 1e-3


@pytest.mark.parametrize("form", list(FORMS))
def test_labels_of_another_convention(form):
    "-1 and -100 for 'ignore', small types, a type that cannot hold the ignored label: the same loss as with 255, or an error."
    torch.manual_seed(10)
    f, g = (F.normalize(torch.randn(2, 12, 6), dim=2) for _ in range(2))
    y, gone = torch.randint(0, 3, (2, 12)), torch.rand(2, 12) < .4
    value = lambda y, **how: pixel_contrast(f, y, *(((g, g), (y, y)) if form == "paper_cross" else (g, y)), form=form, **how)
    marked = lambda ignored: y.masked_fill(gone, ignored)
    wanted = value(marked(255))
    for same in (marked(255).int(), marked(255).to(torch.uint8), marked(255).to(torch.uint16), marked(255).short()): close(value(same), wanted)
    for ignored in (-1, -100, 0): close(value(marked(ignored) if ignored else (y + 1).masked_fill(gone, 0), ignore_index=ignored), wanted)
    close(value(y.to(torch.int8)), value(y))                                    # nothing is ignored, and -128 … 127 holds no 255
    for wrong, found in ((marked(-1), -1), (marked(-100), -100), (marked(255).to(torch.uint8).view(torch.int8), -1)):
        with pytest.raises(ValueError, match=f"labels: hold {found}, no class id; ignored pixels are 255 here, pass ignore_index={found}"): value(wrong)
    with pytest.raises(ValueError, match="ignore_index: -1 cannot occur in labels of type torch.uint8"): value(marked(255).to(torch.uint8), ignore_index=-1)
    for wrong in (None, "255", 255., True):
        with pytest.raises(TypeError, match="ignore_index: expected an integer"): value(marked(255), ignore_index=wrong)
    if form != "supcon":
        with pytest.raises(ValueError, match="other_labels: hold -1"): pixel_contrast(f, marked(255), *(((g, g), (y, marked(-1))) if form == "paper_cross" else (g, marked(-1))), form=form)


# ---- DenseCL, CP2, InfoNCE: bad input and edges ---------------------------------------------------------------------

@pytest.mark.parametrize("change,match", [
    (dict(query=torch.zeros(3)), "query: has 1 axes"), (dict(positive=torch.zeros(2, 4)), "positive: has size 2"), (dict(negatives=torch.zeros(5, 3)), "negatives: has size 3"), (dict(negatives=torch.zeros(0, 4)), "negatives: is empty"),
    (dict(query=torch.full((3, 4), torch.inf)), "query: holds 12"), (dict(temperature=-1.), "temperature"), (dict(query=torch.zeros(3, 4).long()), "query: expected float")])
def test_info_nce_bad_input(change, match):
    with pytest.raises(ValueError, match=match): info_nce(**(dict(query=torch.zeros(3, 4), positive=torch.zeros(3, 4), negatives=torch.zeros(5, 4)) | change))

@pytest.mark.parametrize("change,match", [
    (dict(key_dense=torch.zeros(2, 4, 8)), "key_dense: has size 8"), (dict(match=torch.zeros(2, 9)), "match: expected integer"), (dict(match=torch.full((2, 9), 9)), "match: holds cells 9 to 9"), (dict(match=torch.full((2, 9), -2)), "match: holds"),
    (dict(negatives=torch.zeros(4, 0).T), "negatives: is empty"), (dict(negatives=torch.zeros(4, 7)), "negatives: has size 7"), (dict(query_dense=torch.full((2, 4, 9), torch.nan)), "query_dense: holds"), (dict(negatives=torch.full((7, 4), torch.nan)), "negatives: holds")])
def test_densecl_bad_input(change, match):
    arguments = dict(query_dense=torch.rand(2, 4, 9), key_dense=torch.rand(2, 4, 9), match=torch.zeros(2, 9).long(), negatives=torch.rand(7, 4))
    with pytest.raises(ValueError, match=match): densecl_loss(**(arguments | change))

def test_densecl_unmatched_cells_leave_the_mean():
    q, k, queue = torch.randn(2, 4, 9, requires_grad=True), torch.randn(2, 4, 9), F.normalize(torch.randn(7, 4), dim=1)
    match = torch.randint(0, 9, (2, 9))
    match[0, 3:] = -1
    loss = densecl_loss(q, k, match, queue)
    loss.backward()
    parts = torch.stack([densecl_loss(q[n:n+1, :, i:i+1].expand(-1, -1, 9), k[n:n+1], torch.full((1, 9), int(match[n, i])), queue) for n in range(2) for i in range(9) if match[n, i] >= 0])
    close(loss, parts.mean()); assert not q.grad[0, :, 3:].any() and q.grad[1].any()
    q.grad = None
    empty = densecl_loss(q, k, torch.full((2, 9), -1), queue)
    empty.backward()
    assert empty == 0 and q.grad is not None and not q.grad.any()

def cp2_loops(q_map, k_map, M_q, M_k, temperature, softmax_over):
    q, k = F.normalize(q_map, dim=1).flatten(2), F.normalize(k_map, dim=1).flatten(2)
    losses = []
    for n in range(len(q)):
        s = q[n].T @ k[n] / temperature
        log_p = s.log_softmax(0 if softmax_over == "query" else 1)
        losses.append(-log_p[M_q[n].flatten()][:, M_k[n].flatten()].mean())
    return torch.stack(losses).mean()

@pytest.mark.parametrize("softmax_over", ["query", "key"])
@pytest.mark.parametrize("temperature", [1., .01])
def test_cp2_dense_equals_loops(softmax_over, temperature):
    torch.manual_seed(6)
    maps = [torch.randn(3, 8, 5, 7, dtype=torch.float64) for _ in range(2)]
    masks = [torch.rand(3, 5, 7) < .5 for _ in range(2)]
    a, b = ([m.clone().requires_grad_() for m in maps] for _ in range(2))
    mine, theirs = cp2_dense_loss(*a, *masks, temperature, softmax_over), cp2_loops(*b, *masks, temperature, softmax_over)
    mine.backward(); theirs.backward()
    close(mine, theirs, 1e-12)
    for x, y in zip(a, b): close(x.grad, y.grad, 1e-9, 1e-12)
    background = ~masks[0][:, None].expand_as(a[0])
    assert (a[0].grad[background].abs().max() < 1e-12) == (softmax_over == "key")
    close(mine, cp2_dense_loss(*maps, *[m.float() for m in masks], temperature, softmax_over), 1e-12)

@pytest.mark.parametrize("change,match", [
    (dict(query_mask=torch.stack([torch.ones(3, 4), torch.zeros(3, 4)])), "query_mask: no foreground cell in image 1"), (dict(key_mask=torch.zeros(2, 3, 4)), "key_mask: no foreground cell in image 0 \\(2 images"), (dict(key_mask=torch.full((2, 3, 4), .5)), "key_mask: holds values other"),
    (dict(key_mask=torch.ones(2, 1, 3, 4)), "key_mask: has 4 axes"), (dict(key_map=torch.rand(2, 6, 3, 3)), "key_map: has size 3"), (dict(query_map=torch.full((2, 6, 3, 4), torch.nan)), "query_map: holds"), (dict(softmax_over="both"), "softmax_over: unknown"), (dict(temperature=0), "temperature")])
def test_cp2_bad_input(change, match):
    arguments = dict(query_map=torch.rand(2, 6, 3, 4), key_map=torch.rand(2, 6, 3, 4), query_mask=torch.ones(2, 3, 4), key_mask=torch.ones(2, 3, 4))
    with pytest.raises(ValueError, match=match): cp2_dense_loss(**(arguments | change))

def test_foreground_cosines():
    mask = torch.zeros(1, 2, 2, dtype=torch.bool); mask[:, 0] = True
    query = torch.zeros(1, 2, 2, 2); query[:, 0, 0] = 3.; query[:, 1, 1] = 2.      # foreground (1, 0), background (0, 1)
    assert foreground_cosines(query, query, mask, mask) == (1., 0.)
    assert foreground_cosines(query, query, torch.ones_like(mask), mask)[1].isnan()


# ---- several processes ----------------------------------------------------------------------------------------------

def worker():
    "Run by torchrun in 2 processes: both must report the loss and the averaged gradient of one process with the whole batch."
    import gc
    torch.distributed.init_process_group("gloo")
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    assert world == 2
    torch.manual_seed(7)
    x, y, start = torch.randn(4, 12, 6), torch.randint(0, 3, (4, 12)), torch.randn(6, 5)
    x_hat, pair = torch.randn(4, 12, 6), torch.tensor([2, 0, 3, 1])
    y[3, 4:] = 255
    def value(f, g, labels, form):
        other = ((g, g[pair]), (labels, labels[pair])) if form == "paper_cross" else (g[pair], labels[pair]) if form == "released_cross" else (g, labels)
        return pixel_contrast(f, labels, *other, form=form)
    own = slice(2*rank, 2*rank + 2)
    for form in FORMS:
        whole, mine = (start.clone().requires_grad_() for _ in range(2))
        loss = value(F.normalize(x @ whole, dim=2), F.normalize(x_hat @ whole, dim=2), y, form)
        loss.backward()
        shared = value(*(gather_rows(part) for part in (F.normalize(x[own] @ mine, dim=2), F.normalize(x_hat[own] @ mine, dim=2), y[own])), form)
        shared.backward()
        torch.distributed.all_reduce(mine.grad)
        close(shared, loss, 1e-6); close(mine.grad / world, whole.grad, 1e-4, 1e-6)
    print(f"rank {rank} of {world} agrees", flush=True)
    del whole, mine, loss, shared; gc.collect()
    torch.distributed.destroy_process_group()

@pytest.mark.long
def test_two_processes_equal_one():
    run = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", __file__], capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert run.returncode == 0, run.stderr[-2000:]
    assert "rank 0 of 2 agrees" in run.stdout and "rank 1 of 2 agrees" in run.stdout

if __name__ == "__main__": worker()
