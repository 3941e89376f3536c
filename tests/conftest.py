"""Shared by all tests: the `--slow` option, two threads, and no display."""
import os

os.environ.setdefault("MPLBACKEND", "agg")

import pytest
import torch


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the slow tests and the notebooks' slow cells")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: left out unless --slow is given")
    torch.set_num_threads(2)


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"): return
    for item in items:
        if "slow" in item.keywords: item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))
