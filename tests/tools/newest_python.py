#!/usr/bin/env python3
"""The core of the library on the newest Python that this machine has, with the newest packages and no constraints.

    .venv/bin/python tests/tools/newest_python.py

`make test-newest` and the end of `.ci/run` call it. Its environment is build/newest, made by uv and kept. Without a Python newer than the one that runs this, it says so and ends well.
"""
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PLACE = ROOT/"build"/"newest"
TESTS = "losses matching methods compose files evaluation training cli".split()
LONG = "sigterm sigkill compile two_processes kills every_protocol decoder_and_keypoints auxiliary_contrast pipe export_of".split()   # words in names of tests that take long and tell nothing of Python
TOOLS = ["pytest", "pytest-xdist", "torchmetrics"]                  # what those tests need besides the library
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_CONSTRAINT", "PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME"))}


def version_of(python):
    "(3, 13, 0) of an interpreter that can make environments, None of one that does not run."
    program = "import sys, venv, ensurepip; print(*sys.version_info[:3])"
    try: done = subprocess.run([python, "-c", program], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired): return None
    return tuple(map(int, done.stdout.split())) if done.returncode == 0 else None


def newest(path=None, pyenv=Path.home()/".pyenv"):
    "(version, interpreter) of the newest Python 3 on PATH or among pyenv's; pyenv's shims may stand for nothing."
    folders = [Path(folder) for folder in (os.environ.get("PATH", "") if path is None else path).split(os.pathsep) if folder]
    folders += sorted(pyenv.glob("versions/3.*/bin"))
    found = [str(one) for folder in folders if folder.is_dir() for one in folder.iterdir() if re.fullmatch(r"python3\.\d+", one.name)]
    known = [(version, python) for python in found if (version := version_of(python))]
    return max(known, default=(None, None))


def install(python):
    "The environment, made when Python, settings or tools have changed. Its packages are the newest there are."
    key = hashlib.sha256(repr((python, TOOLS, (ROOT/"settings.ini").read_text(), (ROOT/"setup.py").read_text())).encode()).hexdigest()
    stamp = PLACE/".installed"
    if stamp.exists() and stamp.read_text() == key: return
    shutil.rmtree(PLACE, ignore_errors=True)
    subprocess.run([python, "-m", "venv", PLACE], check=True, env=CLEAN)
    subprocess.run([PLACE/"bin"/"python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv"], check=True, env=CLEAN)
    subprocess.run([PLACE/"bin"/"uv", "pip", "install", "--quiet", "--python", PLACE/"bin"/"python", "-e", ROOT, *TOOLS], check=True, env=CLEAN)
    stamp.write_text(key)


def main():
    version, python = newest()
    if version is None or version[:2] <= sys.version_info[:2]:
        return print(f"newest Python: none newer than {'.'.join(map(str, sys.version_info[:2]))} on this machine; its pass is skipped")
    started = time.time()
    install(python)
    says = "import sys, torch, numpy; print('Python', *sys.version.split()[:1], 'torch', torch.__version__, 'numpy', numpy.__version__)"
    said = subprocess.run([PLACE/"bin"/"python", "-c", says], check=True, env=CLEAN, capture_output=True, text=True).stdout.strip()
    print(f"newest Python: {said}; the environment took {time.time() - started:.0f} s", flush=True)
    words = [*(ROOT/"tests"/f"test_{name}.py" for name in TESTS), "-k", " and ".join(f"not {word}" for word in LONG), *sys.argv[1:]]
    environment = {**CLEAN, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    return subprocess.run([PLACE/"bin"/"python", "-m", "pytest", "-q", "-n", "2", *words], cwd=ROOT, env=environment).returncode


if __name__ == "__main__": sys.exit(main())
