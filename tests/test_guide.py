"""The guide's own method is a method like the five: it fits in sixty lines, is created by name, resumes with the same bits, is remade from its file, runs on two processes."""
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pixcl_nb.images.data import load_data
from pixcl_nb.training.distributed import start_processes
from pixcl_nb.methods.contract import create_method
from pixcl_nb.experiments.runs import build_method, rerun, run, run_config
from pixcl_nb.training.loop import pretrain

ROOT = Path(__file__).parent.parent
RUN = {"method": "pix_contrast:PixContrast", "threads": 1, "settings": {"view": {"size": 32}}, "train": {"steps": 6, "batch_size": 8, "device": "cpu", "progress": False, "checkpoint_every": 2}}


@pytest.fixture(scope="module")
def method_file(tmp_path_factory):
    "The notebook's marked cells as a file, on the path."
    cells = json.loads((ROOT / "nbs" / "guide" / "own_method.ipynb").read_text())["cells"]
    source = "\n\n".join(text for text in ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code") if text.startswith("# pix_contrast.py"))
    path = tmp_path_factory.mktemp("own") / "pix_contrast.py"
    path.write_text(source)
    sys.path.insert(0, str(path.parent))
    yield path
    sys.path.remove(str(path.parent))
    sys.modules.pop("pix_contrast", None)


def test_it_is_shorter_than_sixty_lines(method_file):
    lines = [line for line in method_file.read_text().splitlines() if line.strip() and not line.startswith("# pix_contrast.py")]
    assert 30 < len(lines) < 60


def test_it_is_created_by_name_and_its_settings_are_checked(method_file):
    method = create_method("pix_contrast:PixContrast", seed=0, temperature=.1)
    assert method.config.temperature == .1 and method.encoder.channels
    with pytest.raises(ValueError, match="did you mean 'temperature'"): create_method("pix_contrast:PixContrast", temprature=.1)
    with pytest.raises(ValueError, match="name: 'pix_contrast:PicContrast' cannot be imported"): create_method("pix_contrast:PicContrast")
    with pytest.raises(TypeError, match="name: 'pix_contrast:PixContrastConfig' is not a method"): create_method("pix_contrast:PixContrastConfig")
    for wrong in (None, 3, ":PixContrast", ".pix_contrast:PixContrast", "pix_contrast:"):
        with pytest.raises(ValueError, match="name: "): create_method(wrong)
    assert type(create_method("pixcl_nb.methods.moco:MoCo", queue_size=8)).__name__ == "MoCo"


def test_killed_and_resumed_it_has_the_same_bits(method_file, tmp_path):
    config, data = run_config(RUN), load_data("samples")
    def kill(step, terms, method):
        if step >= 4: raise KeyboardInterrupt
    whole, killed, resumed = (build_method(config) for _ in range(3))
    pretrain(whole, data, config.train)
    with pytest.raises(KeyboardInterrupt): pretrain(killed, data, config.train, run_dir=tmp_path, on_step=kill)
    assert not all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), killed.state_dict().values()))
    pretrain(resumed, data, config.train, run_dir=tmp_path)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values()): assert torch.equal(a, b), name


def test_a_run_of_it_is_remade_from_its_file(method_file, tmp_path):
    run(run_config(RUN), tmp_path / "run")
    assert rerun(tmp_path / "run", say=lambda *words: None).equal


@pytest.mark.long
def test_from_the_command_line_on_two_processes_in_the_folder_where_it_lies(method_file, tmp_path, monkeypatch):
    words = "pretrain pix_contrast:PixContrast --set view.size=32 --steps 2 --batch-size 8 --device cpu"
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(method_file.parent)
    start_processes(words, tmp_path / "run").wait(120)
    assert (tmp_path / "run" / "encoder.safetensors").exists()
    wrong = subprocess.run([sys.executable, "-m", "pixcl_nb.cli", *words.split(), "--out", "run"], cwd=tmp_path, capture_output=True, text=True)
    assert wrong.returncode == 1 and "cannot be imported" in wrong.stderr and "Traceback" not in wrong.stderr
