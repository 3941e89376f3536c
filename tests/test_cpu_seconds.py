"""What a test costs is counted with everything it starts, and a busy machine's pace is known."""
import subprocess
import sys
import time

import pytest

from conftest import LINUX, cpu_seconds, pace

BURN = "import time\nwhile time.process_time() < .4: pass\n"


def burnt(work):
    before = cpu_seconds()
    work()
    return cpu_seconds() - before


def test_own_time_and_a_childs(tmp_path):
    def own():
        end = time.process_time() + .3
        while time.process_time() < end: pass
    assert burnt(own) == pytest.approx(.3, abs=.1)
    assert .35 < burnt(lambda: subprocess.run([sys.executable, "-c", BURN])) < 1.5
    assert burnt(lambda: time.sleep(.3)) < .1


@pytest.mark.skipif(not LINUX, reason="only Linux lists its processes")
def test_a_process_that_nobody_waits_for_is_counted_too():
    "A grandchild whose parent ends at once, while it still runs."
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {BURN + 'time.sleep(5)'!r}])"
    def work():
        subprocess.run([sys.executable, "-c", code])
        end = time.monotonic() + 60
        while time.monotonic() < end and cpu_seconds() - before < .4: time.sleep(.05)
    before = cpu_seconds()
    assert burnt(work) > .35


def test_the_pace_is_at_least_one(): assert pace() >= 1
