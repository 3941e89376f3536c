"""Shared by all tests: the options `--long` and `--slow`, one thread, no display, and what each test costs in CPU seconds."""
import os

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)    # the workers, and each process a test starts, would compile our files again
os.environ.setdefault("OMP_NUM_THREADS", "1")      # here and in every process a test starts: on tensors this small a second thread is waited for more than it helps, on a busy machine ten times as long

import contextlib
import ctypes
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

sys.dont_write_bytecode = False
LINUX = sys.platform.startswith("linux")
if LINUX: ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)       # PR_SET_CHILD_SUBREAPER: a killed child's children are ours, and their time is counted
START = "fork" if LINUX and not torch.cuda.is_available() else "spawn"       # of the second process of a test: a fork has read torch already, of which CUDA hears nothing good
LONG_TO_SET_UP = {"built"}                              # fixtures of 10 CPU seconds and more: what needs them is long (the documentation's site)
APART = {"test_notebooks"}                              # files whose tests share nothing: the workers take them one by one
FIRST = ["course", "test_docs", "test_widgets"]         # what takes longest goes first, so that the workers end together


def cpu_seconds():
    "User and system time of this process, of those it has waited for, and (Linux) of all its descendants that are there."
    total = sum(os.times()[:4])
    if not LINUX: return total
    waiting = children(os.getpid())
    while waiting:
        process = waiting.pop()
        try: fields = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()      # the name before may hold anything
        except OSError: continue                                                                   # it ended meanwhile
        total += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        waiting += children(process)
    return total


def children(process):
    "The living children of a process, as Linux lists them by thread: no other process is looked at, of which there may be hundreds."
    found = []
    with contextlib.suppress(OSError):
        for thread in os.scandir(f"/proc/{process}/task"):
            with contextlib.suppress(OSError): found += Path(thread.path, "children").read_text().split()
    return found


def pace():
    "How many times longer a piece of work of ours takes a core now than when these limits were set, at least 1: a neighbour who fills the caches makes CPU seconds longer too."
    def work():
        started = time.process_time()
        table = {i % 997: str(i) for i in range(60_000)}
        x = torch.linspace(-1, 1, 4 * 8 * 40 * 40).reshape(4, 8, 40, 40)
        for _ in range(30): x = torch.conv2d(x, x.new_full((8, 8, 3, 3), 1 / 72), padding=1).relu()
        return time.process_time() - started + 0 * len(table)
    return max(1., sorted(work() for _ in range(9))[4] / .02)


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="also run what takes 10 CPU seconds and more, as CI does")
    parser.addoption("--slow", action="store_true", help="all that, the tests of minutes and the notebooks' slow cells")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: 10 CPU seconds and more; left out unless --long or --slow is given (CI gives --long)")
    config.addinivalue_line("markers", "slow: minutes; left out unless --slow is given")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "With pytest-xdist (`-n 2`) a file's tests share their set-up and stay with one worker, in the order of collection; the notebooks come last, one by one."
    from xdist.scheduler import LoadScopeScheduling
    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid): return nodeid if Path(nodeid.partition("::")[0]).stem in APART else nodeid.partition("::")[0]
    config.option.loadscopereorder = False
    return ByFile(config, log)


def pytest_collection_modifyitems(config, items):
    place = lambda item: next((i for i, word in enumerate(FIRST) if word in item.path.parts or item.path.stem.startswith(word)), len(FIRST))
    items.sort(key=lambda item: (item.path.stem in APART, place(item)))
    if config.getoption("--slow"): return
    for item in items:
        if LONG_TO_SET_UP & set(item.fixturenames): item.add_marker(pytest.mark.long)
        if "slow" in item.keywords: item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))
        if "long" in item.keywords and not config.getoption("--long"): item.add_marker(pytest.mark.skip(reason="long; run with --long, as CI does"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    "A test's CPU seconds, its fixtures' among them, go into its report."
    item.cpu_before = cpu_seconds()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "teardown": report.user_properties = [*report.user_properties, ("cpu", cpu_seconds() - item.cpu_before)]
    return report


def pytest_terminal_summary(terminalreporter, config):
    "A table like --durations, in CPU seconds, which a busy machine does not lengthen."
    spent = {report.nodeid: value for reports in terminalreporter.stats.values() for report in reports
             for key, value in getattr(report, "user_properties", ()) if key == "cpu"}
    files = Counter()
    for test, seconds in spent.items(): files[test.partition("::")[0]] += seconds
    if sum(spent.values()) < 1: return
    terminalreporter.section("CPU seconds, of children too")
    shown = 400 if os.environ.get("PIXCL_ALL") else 20
    for test, seconds in sorted(spent.items(), key=lambda one: -one[1])[:shown]:
        if seconds >= .5: terminalreporter.line(f"{seconds:7.1f}  {test}")
    terminalreporter.line("by file: " + ", ".join(f"{Path(name).stem} {seconds:.0f}" for name, seconds in files.most_common() if seconds >= 1))
    terminalreporter.line(f"tests {sum(spent.values()):.0f}; all, with collection and imports {cpu_seconds():.0f}")


@pytest.fixture(autouse=True)
def one_thread():
    "A command with --threads, called in this process, leaves its number to the tests that follow."
    yield
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
