"""Shared by all tests: the `--slow` option, one thread, and no display."""
import os

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")      # here and in every process a test starts: on tensors this small a second thread is waited for more than it helps, on a busy machine ten times as long

import pytest
import torch


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the slow tests and the notebooks' slow cells")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: left out unless --slow is given")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"): return
    for item in items:
        if "slow" in item.keywords: item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))


@pytest.fixture(autouse=True)
def one_thread():
    "A command with --threads, called in this process, leaves its number to the tests that follow."
    yield
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
