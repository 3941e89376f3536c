"pixcl_nb.losses: golden numbers, loops, bad input, edges."
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pixcl_nb.losses import cp2_dense_loss, densecl_loss, info_nce, masked_pool

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

from pixcl_nb.losses import FORMS, pixel_contrast

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
