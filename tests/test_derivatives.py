"""Every loss by every input that can carry a gradient: first derivatives of the fast path against float64 loops, second derivatives of the slow path against the loops' own, and one error where a derivative cannot be had."""
import functools
import itertools

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from pixcl_nb.losses.infonce import info_nce
from pixcl_nb.losses.label_losses import FORMS, pixel_contrast
from pixcl_nb.losses.streaming import ClassTail, log_sum_exp_loss, use_backend
from pixcl_nb.methods.auxiliary_contrast import matching_loss
from pixcl_nb.methods.cp2 import cp2_dense_loss
from pixcl_nb.methods.densecl import densecl_loss

draw = lambda *shape, seed=0: torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
LABELS, LABELS_2 = torch.tensor([[0, 1, 0, 255, 1], [2, 2, 0, 1, 0]]), torch.tensor([[1, 1, 0, 0, 255], [0, 2, 1, 0, 2]])
MATCH, IDS = torch.tensor([[2, -1, 0, 1], [3, 3, -1, 0]]), torch.tensor([[0, 1, 255, 0], [1, 1, 0, 2]])
MASKS = torch.tensor([[[1, 0], [1, 0]], [[0, 1], [0, 0]]]).bool(), torch.tensor([[[0, 0], [1, 0]], [[1, 1], [1, 0]]]).bool()
Y, Y_TAIL = torch.tensor([0, 1, 1, 2]), torch.tensor([0, 0, 1, 2, 2])


# ---- the losses as their formulas read, one number at a time ---------------------------------------------------------

def nce(q, positive, negatives, tau): return torch.logsumexp(torch.stack([q @ positive / tau, *(q @ k / tau for k in negatives)]), 0) - q @ positive / tau

def loops_nce(query, positive, negatives, tau): return sum(nce(q, p, negatives, tau) for q, p in zip(query, positive)) / len(query)

def loops_densecl(query, key, negatives, tau):
    unit = lambda x: x / x.norm()
    cells = [nce(unit(query[n, :, i]), unit(key[n, :, j]), negatives, tau) for n in range(2) for i, j in enumerate(MATCH[n].tolist()) if j >= 0]
    return sum(cells) / len(cells)

def loops_cp2(query, key, tau, over):
    total = 0
    for n in range(2):
        q, k = ([x[n, :, i] / x[n, :, i].norm() for i in range(4)] for x in (query.flatten(2), key.flatten(2)))
        inside = [mask[n].flatten().nonzero().flatten().tolist() for mask in MASKS]
        pairs = list(itertools.product(*inside))
        total = total - sum(q[x] @ k[y] / tau - torch.logsumexp(torch.stack([q[z] @ k[y] / tau if over == "query" else q[x] @ k[z] / tau for z in range(4)]), 0) for x, y in pairs) / len(pairs)
    return total / 2

def loops_sums(rows, columns, weights, extra, tau):
    tail = len(columns) - len(Y_TAIL)
    seen = lambda i: [k for k in range(len(columns)) if k < tail or Y_TAIL[k - tail] == Y[i]]
    return sum(weights[i] * torch.logsumexp(torch.stack([extra[i], *(rows[i] @ columns[k] / tau for k in seen(i))]), 0) for i in range(len(rows)))

def loops_matching(f, g, tau):
    rows = [(f[b, i], (b, int(MATCH[b, i]))) for b in range(2) for i in range(4) if MATCH[b, i] >= 0]
    rows += [(g[b, j], (b, j)) for b in range(2) for j in sorted({int(m) for m in MATCH[b] if m >= 0})]
    kind, total = [int(IDS[place]) if IDS[place] != 255 else place for _, place in rows], 0
    for i, (row, place) in enumerate(rows):
        negatives = [row @ other / tau for j, (other, _) in enumerate(rows) if kind[j] != kind[i]]
        positives = [row @ other / tau for j, (other, at) in enumerate(rows) if j != i and at == place]
        total = total + sum(torch.logsumexp(torch.stack([s, *negatives]), 0) - s for s in positives) / len(positives)
    return total / len(rows)

def loops_rows(rows, labels, images, tau, per_pair, near, myself):
    "(term, does it count) of every row of a bag: the released forms and SupCon."
    for p in range(len(rows)):
        P = [q for q in range(len(rows)) if labels[q] == labels[p] and (myself or q != p)]
        N = [rows[p] @ rows[q] / tau for q in range(len(rows)) if labels[q] != labels[p] and (not near or images[q] == images[p])]
        S = [rows[p] @ rows[q] / tau for q in P]
        if P: yield sum((torch.logsumexp(torch.stack([s, *N]), 0) if per_pair else torch.logsumexp(torch.stack(S + N), 0)) - s for s in S) / len(P)

def mean(values): return sum(values) / len(values) if values else 0

def loops_contrast(form, f, g, tau):
    kept = lambda x, y, b: (x[b][y[b] != 255], y[b][y[b] != 255].tolist())
    if form == "supcon":
        (a, y_a), (b, y_b) = ([torch.cat([kept(x, y, i)[0] for i in range(2)]), sum((kept(x, y, i)[1] for i in range(2)), [])] for x, y in ((f, LABELS), (g, LABELS_2)))
        return mean(list(loops_rows(torch.cat([a, b]), y_a + y_b, [0] * 99, tau, False, False, False)))
    if form == "released_within": return sum(mean(list(loops_rows(*kept(x, y, b), [0] * 99, tau, True, True, True))) for x, y in ((f, LABELS), (g, LABELS_2)) for b in range(2)) / 2
    total = []
    for b in range(2):
        (a, y_a), (own, y_own), (pair, y_pair) = kept(f, LABELS, b), kept(g, LABELS_2, b), kept(g, LABELS_2, 1 - b)
        if form == "released_cross":
            total.append(mean(list(loops_rows(torch.cat([a, own]), y_a + y_own, [0] * len(y_a) + [1] * len(y_own), tau, True, True, True))))
            continue
        terms = []
        for row, y in zip(a, y_a):
            S = [row @ r / tau for r, label in zip(own, y_own) if label == y]
            paired = [row @ r / tau for r, label in zip(pair, y_pair) if label == y] if form == "paper_cross" else []
            D = torch.logsumexp(torch.stack([row @ r / tau for r in own] + paired), 0)
            if S + paired: terms.append(mean([D - s for s in S + paired]))
        if terms: total.append(mean(terms))
    return mean(total)


# ---- name → (inputs, fast(*inputs), loops(*inputs)); the temperature comes last --------------------------------------

def contrast(form, chunk=None):
    def fast(f, g, tau):
        other = ((g, g.flip(0)), (LABELS_2, LABELS_2.flip(0))) if form == "paper_cross" else (g, LABELS_2)
        return pixel_contrast(f, LABELS, *other, form=form, temperature=tau, chunk=chunk)
    return fast

def table():
    vectors, maps, views = [draw(3, 3), draw(3, 3, seed=1), draw(4, 3, seed=2)], [draw(2, 3, 4), draw(2, 3, 4, seed=1)], [draw(2, 5, 3), draw(2, 5, 3, seed=1)]
    square = [x.unflatten(2, (2, 2)) for x in maps]
    tail = ClassTail(Y, Y_TAIL)
    rows = dict(rows=draw(4, 3), columns=draw(8, 3, seed=1), weights=draw(4, seed=2).abs(), extra=draw(4, seed=3))
    named = {
        "info_nce": (dict(zip(("query", "positive", "negatives"), vectors)), info_nce, loops_nce),
        "densecl_loss": (dict(query_dense=maps[0], key_dense=maps[1], negatives=vectors[2]), lambda q, k, n, t: densecl_loss(q, k, MATCH, n, t), loops_densecl),
        "log_sum_exp_loss": (rows, lambda r, c, w, e, t: log_sum_exp_loss(r, c, w, t, e, tail, chunk=2), loops_sums),
        "matching_loss": (dict(rows_a=draw(2, 4, 3), rows_b=draw(2, 4, 3, seed=1)), lambda f, g, t: matching_loss(f, g, MATCH, IDS, t), loops_matching)}
    for over in ("query", "key"):
        named[f"cp2_dense_loss {over}"] = dict(query_map=square[0], key_map=square[1]), lambda q, k, t, over=over: cp2_dense_loss(q, k, *MASKS, t, over), functools.partial(loops_cp2, over=over)
    for form in FORMS: named[f"pixel_contrast {form}"] = dict(features=views[0], other_features=views[1]), contrast(form, 2), functools.partial(loops_contrast, form)
    return named

TABLE = table()
CASES = [(loss, given) for loss, (inputs, _, _) in TABLE.items() for given in (*inputs, "temperature")]

def leaves(loss, temperature=.7):
    "Fresh inputs that want a gradient, by name."
    return {name: x.clone().requires_grad_() for name, x in (TABLE[loss][0] | {"temperature": torch.tensor(temperature, dtype=torch.float64)}).items()}


@pytest.mark.parametrize("loss, given", CASES)
def test_first_derivative_equals_the_loops(loss, given):
    "Alone and together with the others, at a temperature whose logits need no shift and at one where maxima are subtracted."
    _, fast, loops = TABLE[loss]
    for temperature in (.7, .004):
        for alone in (False, True):
            mine, theirs = leaves(loss, temperature), leaves(loss, temperature)
            if alone:
                for name, x in mine.items(): x.requires_grad_(name == given)
            a, b = fast(*mine.values()), loops(*theirs.values())
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(torch.autograd.grad(3 * a, mine[given])[0], torch.autograd.grad(3 * b, theirs[given])[0], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("loss", TABLE)
def test_gradcheck_of_the_fast_path(loss): assert gradcheck(TABLE[loss][1], tuple(leaves(loss).values()), fast_mode=True)


@pytest.mark.parametrize("loss", TABLE)
def test_slow_path_is_differentiable_again(loss):
    "All inputs at once, so that the mixed second derivatives are in it; and the loops' own Hessian times a vector."
    _, fast, loops = TABLE[loss]
    with use_backend("matrix"):
        mine = leaves(loss)
        assert gradcheck(fast, tuple(mine.values()), fast_mode=True) and gradgradcheck(fast, tuple(mine.values()), fast_mode=True)
    theirs = leaves(loss)
    with use_backend("matrix"): value = fast(*mine.values())
    torch.testing.assert_close(value, fast(*mine.values()), rtol=1e-12, atol=1e-12)
    found = []
    for value, inputs in ((value, mine), (loops(*theirs.values()), theirs)):
        gradients = torch.autograd.grad(value, tuple(inputs.values()), create_graph=True)
        found.append(torch.autograd.grad(sum(g.sin().sum() for g in gradients), tuple(inputs.values())))
    for a, b in zip(*found): torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("loss, given", CASES)
def test_fast_path_never_drops_a_second_derivative(loss, given):
    "Whatever the gradient is taken of, and by whatever it is derived again: an error that names the slow path."
    inputs = leaves(loss)
    gradient, = torch.autograd.grad(TABLE[loss][1](*inputs.values()) ** 2, inputs[given], create_graph=True)
    for again in inputs:
        if inputs[again].ndim:
            with pytest.raises(RuntimeError, match=r'cannot be differentiated twice.*use_backend\("matrix"\)'): torch.autograd.grad(gradient.square().sum(), inputs[again], retain_graph=True)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    plain, = torch.autograd.grad(scale * TABLE[loss][1](*inputs.values()), inputs[given])
    assert not plain.requires_grad and plain.isfinite().all()


def test_a_penalty_far_from_the_loss_is_refused_too():
    "The gradient by a layer's input, derived by the layer's weight: other paths exist, and none of them may be taken alone."
    x, weight = draw(6, 5).requires_grad_(), draw(5, 3).requires_grad_()
    gradient, = torch.autograd.grad(info_nce(torch.tanh(x @ weight), draw(6, 3, seed=1), draw(9, 3, seed=2), .3), x, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"): torch.autograd.grad(gradient.square().sum(), weight, retain_graph=True)
    gradient.sum().item()                                                     # to look at it is no crime
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"): gradient.sum().backward()


@pytest.mark.parametrize("loss", TABLE)
def test_transforms_are_right_or_refused(loss):
    _, fast, _ = TABLE[loss]
    inputs = [x.detach() for x in leaves(loss).values()]
    first = lambda x: fast(x, *inputs[1:])
    wanted, = torch.autograd.grad(first(x := inputs[0].clone().requires_grad_()), x)
    for transform in (torch.func.grad, torch.func.jacrev):
        with pytest.raises(RuntimeError, match="torch.func: the transform .* cannot follow the fast kernels.*matrix"): transform(first)(inputs[0])
        with use_backend("matrix"): torch.testing.assert_close(transform(first)(inputs[0]), wanted)
    for backend in ("auto", "matrix"):
        with use_backend(backend), pytest.raises(RuntimeError, match="vmap: this loss cannot be mapped"): torch.func.vmap(first)(inputs[0][None])
    tangent = draw(*inputs[0].shape, seed=5)
    with use_backend("matrix"): torch.testing.assert_close(torch.func.jvp(first, (inputs[0],), (tangent,))[1], (wanted * tangent).sum())
    with forward_ad.dual_level():
        with pytest.raises(RuntimeError, match="forward mode"): first(forward_ad.make_dual(inputs[0], tangent))


@pytest.mark.parametrize("loss", TABLE)
@pytest.mark.parametrize("wrong, error", [("0.1", TypeError), (None, TypeError), (True, TypeError), (float("nan"), ValueError), (float("inf"), ValueError), (0, ValueError), (-1., ValueError), (torch.ones(3), ValueError), (torch.tensor(1), ValueError), (torch.tensor(0.), ValueError)])
def test_a_temperature_that_is_none(loss, wrong, error):
    with pytest.raises(error, match="temperature: "): TABLE[loss][1](*TABLE[loss][0].values(), wrong)


def test_logits_that_the_precision_cannot_hold_are_named():
    for small in (1e-40, torch.tensor(1e-40, dtype=torch.float64)):
        with pytest.raises(ValueError, match="temperature: rows of this length over 1e-40 give logits up to .* more than torch.float32 holds"):
            info_nce(torch.ones(2, 3), torch.ones(2, 3), torch.ones(4, 3), small)


@pytest.mark.parametrize("loss", TABLE)
def test_a_temperature_of_any_kind(loss):
    "A parameter of one element, of another precision, and without a gradient: the same value; and half the precision it was given in."
    fast, inputs = TABLE[loss][1], list(TABLE[loss][0].values())
    plain = fast(*inputs, .5)
    for tau in (torch.nn.Parameter(torch.tensor([.5])), torch.tensor(.5), torch.tensor(.5, dtype=torch.float16, requires_grad=True)):
        value = fast(*inputs, tau)
        torch.testing.assert_close(value, plain, rtol=1e-12, atol=1e-12)
        if tau.requires_grad:
            value = fast(*(x.requires_grad_(False) for x in inputs), tau)
            gradient, = torch.autograd.grad(value, tau)
            assert gradient.shape == tau.shape and gradient.dtype == tau.dtype and gradient.abs().sum() > 0


@pytest.mark.parametrize("loss", TABLE)
def test_mixed_precision_is_computed_in_the_widest(loss):
    "One float32 input among float64 ones: a float64 loss, gradients in each input's own type; all in half: float32."
    _, fast, _ = TABLE[loss]
    for name, x in TABLE[loss][0].items():
        inputs = {other: (y.float() if other == name else y).clone().requires_grad_() for other, y in TABLE[loss][0].items()}
        value = fast(*inputs.values(), .5)
        assert value.dtype == torch.float64
        for y, gradient in zip(inputs.values(), torch.autograd.grad(value, tuple(inputs.values()))): assert gradient.dtype == y.dtype and gradient.isfinite().all()
        torch.testing.assert_close(value, fast(*(y.detach().double() for y in inputs.values()), .5))
    for dtype in (torch.float16, torch.bfloat16):
        half = [x.to(dtype).requires_grad_() for x in TABLE[loss][0].values()]
        value = fast(*half, .5)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, fast(*(x.detach().float() for x in half), .5))
        assert all(g.dtype == dtype for g in torch.autograd.grad(value, half))


def test_nothing_to_compare_is_0_with_a_gradient_of_0_for_everybody():
    none, ignored = torch.full_like(MATCH, -1), torch.full_like(LABELS, 255)
    empty = {"densecl_loss": lambda q, k, n, t: densecl_loss(q, k, none, n, t), "matching_loss": lambda f, g, t: matching_loss(f, g, none, IDS, t)}
    for form in FORMS:
        empty[f"pixel_contrast {form}"] = lambda f, g, t, form=form: pixel_contrast(f, ignored, *(((g, g), (ignored, ignored)) if form == "paper_cross" else (g, ignored)), form=form, temperature=t)
    for loss, fast in empty.items():
        inputs = leaves(loss)
        value = fast(*inputs.values())
        assert value == 0
        for gradient in torch.autograd.grad(value, tuple(inputs.values())): assert not gradient.any()


def test_a_mask_that_wants_a_gradient_is_refused():
    q, k = TABLE["cp2_dense_loss query"][0].values()
    with pytest.raises(ValueError, match="query_mask: wants a gradient"): cp2_dense_loss(q, k, MASKS[0].double().requires_grad_(), MASKS[1])


def test_nothing_is_kept_alive_for_the_error():
    "What the refusal of a second derivative hangs on holds no memory: rows that nobody else keeps are gone before the backward."
    import weakref
    f = draw(40, 3).requires_grad_()
    rows = f * 1
    loss, kept = info_nce(rows, draw(40, 3, seed=1), draw(50, 3, seed=2)), weakref.ref(rows)
    sums = log_sum_exp_loss(again := f * 1, draw(50, 3, seed=2), torch.ones(40))
    gone = weakref.ref(again)
    del rows, again
    assert gone() is None and torch.autograd.grad(sums, f)[0].any()
