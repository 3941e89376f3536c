"""The second pass of CI takes the newest Python that really runs, and says in one line that there is none."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent/"tools"))
import newest_python


def fake(folder, name, says, code=0):
    folder.mkdir(parents=True, exist_ok=True)
    (folder/name).write_text(f"#!/bin/sh\necho {says}\nexit {code}\n")
    (folder/name).chmod(0o755)


def test_the_newest_python_that_runs(tmp_path):
    "On PATH or among pyenv's; a shim that stands for nothing, and a Python 2, are none."
    for name, says, code in (("python3.12", "3 12 1", 0), ("python3.99", "pyenv: not found", 127), ("python3.13-config", "3 98 0", 0), ("python2.7", "2 7 18", 0)): fake(tmp_path/"bin", name, says, code)
    fake(tmp_path/"pyenv"/"versions"/"3.13.0"/"bin", "python3.13", "3 13 0")
    version, python = newest_python.newest(str(tmp_path/"bin"), tmp_path/"pyenv")
    assert version == (3, 13, 0) and python.endswith("3.13.0/bin/python3.13")
    assert newest_python.newest(str(tmp_path/"bin"), tmp_path/"none")[0] == (3, 12, 1)
    assert newest_python.newest(str(tmp_path), tmp_path/"none") == (None, None)


def test_without_a_newer_one_it_says_so(monkeypatch, capsys):
    for version in (None, sys.version_info[:3]):
        monkeypatch.setattr(newest_python, "newest", lambda: (version, sys.executable))
        assert not newest_python.main() and "its pass is skipped" in capsys.readouterr().out


def test_the_files_are_there_and_the_makefile_calls_it():
    for name in newest_python.TESTS: assert (newest_python.ROOT/"tests"/f"test_{name}.py").is_file(), name
    assert "tests/tools/newest_python.py" in (newest_python.ROOT/"Makefile").read_text() and "make test-newest" in (newest_python.ROOT/".ci/run").read_text()
