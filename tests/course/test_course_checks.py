"""What a student's notebook calls: verdicts that teach, measures of a call, closed modules."""
import sys

import numpy as np
import pytest
import torch

from pixcl_nb.course import checks
from pixcl_nb.course.checks import by_hand, call, close_modules, compare, cost, differences, value_and_gradients


def test_compare_says_how_far_off(capsys):
    table = torch.tensor([[1., 2.], [3., 4.]])
    for mine, says in ((table * 5, "5 times the right one"), (-table, "sign is flipped"), (table.T.contiguous(), "transposed"), (table + 2, "plus 2"), (table.flip(0), "another order"), (table * torch.nan, "NaN"),
                       (table > 2, "dtype torch.bool"), (table[0], r"shape \(2,\), expected \(2, 2\)"), (None, "nothing was returned"), ("exact", "expected a tensor, got str")):
        with pytest.raises(AssertionError, match=says): compare("table", mine, table)
    for mine, theirs in ((table, table), (table + 1e-7, table), (table.double(), table), (table.numpy(), table), ((1, 2.), [1, 2.]), (float("nan"), float("nan")), ({"a": 1}, {"a": 1})): compare("fine", mine, theirs)
    for mine, theirs, says in ((2, 3, "OFF: 2, expected 3"), (dict(a=1.), dict(a=1., b=2.), "expected"), ([1, 2], [1, 2, 3], "3 values"), ([1, 9, 9], [1, 2, 3], "2 of 3 are wrong"), (True, 2, "OFF"), ("1", 1, "OFF")):
        with pytest.raises(AssertionError, match=says): compare("value", mine, theirs)
    with pytest.raises(AssertionError, match="dtype"): compare("asked for", table.double(), table, same_dtype=True)
    assert capsys.readouterr().out.count("number 1") == 0             # a list of plain values is one line


def test_short_verdicts_hold_no_number_of_ours():
    for mine, theirs in ((torch.tensor([1.5]), torch.tensor([7.25])), (3, 7), (torch.zeros(2), torch.zeros(3)), ({"a": 1}, {"b": 7.25}), ([1, 2], [7, 7])):
        for _, verdict in differences("x", mine, theirs): assert not verdict.right and "7" not in verdict.short and "3" not in verdict.short


def test_measures():
    with pytest.raises(AssertionError): compare("wrong gradient", value_and_gradients(lambda x: x.detach().sum() + 0 * x.sum(), torch.ones(2))[1], [torch.ones(2)])
    counted = cost(lambda x: x @ x.T, torch.ones(100, 2))
    assert counted["largest"] == 40_000 and counted["operations"] >= 1
    in_numpy = cost(lambda x: np.ones((2000, 2000)).sum(), torch.ones(1))
    assert in_numpy["largest"] == 0 and (in_numpy["peak"] is None or in_numpy["peak"] > 25_000_000)
    for measure in (call, by_hand, cost):
        with pytest.raises((ValueError, RuntimeError), match="in place"): measure(lambda x: x.mul_(2), torch.ones(3))
    with pytest.raises(TypeError, match="scalar"): value_and_gradients(lambda x: x, torch.ones(2))


def test_by_hand_gives_the_engine_back():
    for function in (lambda x: torch.autograd.grad(x, x), lambda x: x.requires_grad_(), torch.func.jacfwd(lambda x: x.sum()), torch.func.jvp and (lambda x: torch.func.jvp(torch.sum, (x,), (x,)))):
        with pytest.raises(RuntimeError): by_hand(function, torch.ones(2))
    x = torch.ones(2).requires_grad_()
    x.square().sum().backward()
    assert torch.equal(x.grad, torch.full((2,), 2.)) and torch.equal(torch.func.jacfwd(lambda x: x.sum())(torch.ones(2)), torch.ones(2))


def test_close_modules_is_undone():
    from sklearn import cluster
    close_modules("sklearn.cluster")
    try:
        with pytest.raises(ImportError, match="closed in this assignment"): from sklearn.cluster import KMeans
        checks.MARKING["listener"] = print               # while work is marked nothing is closed here
        close_modules("torch")
        assert checks.CLOSED == ["sklearn.cluster"]
    finally:
        checks.MARKING["listener"] = None
        close_modules()
        sys.modules["sklearn.cluster"] = cluster
        vars(sys.modules["sklearn"])["cluster"] = cluster
