"""Decoded once, read as if from memory: the same bits, never somebody else's."""
import dataclasses
import json
import os
import pickle
import shutil
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from toy import ToyData, ToyMethod

from pixcl_nb.training.cache import (
    CachedData, cache_error, cached, source_digest, with_cache, write_cache)
from pixcl_nb.images.data import load_data
from pixcl_nb.training.loop import pretrain
from pixcl_nb.training.settings import TrainConfig

CONFIG = TrainConfig(steps=6, batch_size=8, lr=.1, device="cpu", seed=3, progress=False)
equal = lambda a, b: all(torch.equal(x, y) and x.dtype == y.dtype for x, y in zip(a, b, strict=True))


@pytest.fixture(scope="module")
def samples(): return load_data("samples", split="train").subset(range(12))


def test_a_cached_item_is_the_item(samples, tmp_path):
    found = cached(samples, tmp_path)
    assert all(equal(found[i], samples[i]) for i in range(-1, 12)) and len(found) == 12
    assert found.names == samples.names and found.extents is samples.extents and torch.equal(found.mask(3), samples.mask(3))
    with pytest.raises(IndexError): found[12]
    found[0][0].zero_()
    assert equal(found[0], samples[0])                                                    # nobody can spoil the file
    assert equal(pickle.loads(pickle.dumps(found))[5], samples[5])                         # a worker opens it itself


def test_training_from_a_cache_has_the_same_bits(tmp_path):
    plain, first, second = (ToyMethod() for _ in range(3))
    pretrain(plain, ToyData(), CONFIG)
    pretrain(first, ToyData(), dataclasses.replace(CONFIG, cache=str(tmp_path), workers=2))
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.u8")}
    pretrain(second, ToyData(), dataclasses.replace(CONFIG, cache=str(tmp_path)))
    for method in (first, second): assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), method.state_dict().values()))
    assert len(times) == 2 and times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.u8")}      # written once


@pytest.mark.parametrize("damage, said", [
    (lambda folder: (folder / "images.u8").write_bytes((folder / "images.u8").read_bytes()[:-7]), "images.u8 is not as long as it should be"),
    (lambda folder: (folder / "manifest.json").write_text("{"), "it has no readable manifest"),
    (lambda folder: (folder / "masks.u8").unlink(), "masks.u8 is not as long"),
    (lambda folder: (folder / "images.u8").write_bytes(bytes((folder / "images.u8").stat().st_size)), "differs from its file"),
    (lambda folder: (folder / "manifest.json").write_text(json.dumps({**json.loads((folder / "manifest.json").read_text()), "source": "0" * 16})), "it holds other images")])
def test_a_damaged_or_foreign_cache_is_made_again(samples, tmp_path, capsys, damage, said):
    folder = cached(samples, tmp_path).folder
    damage(folder)
    assert said in cache_error(folder, samples)
    again = cached(samples, tmp_path)
    assert said in capsys.readouterr().err and equal(again[7], samples[7]) and cache_error(folder, samples) is None


def test_a_changed_file_is_another_cache(tmp_path):
    shutil.copytree(Path(load_data("samples").images[0]).parents[1], tmp_path / "data")
    data = load_data("folder", root=tmp_path / "data", split="val").subset(range(3))
    before = source_digest(data)
    os.utime(data.images[1], ns=(1, 1))
    assert source_digest(data) == before                                   # a copy of the same bytes is the same data
    content, times = Path(data.images[1]).read_bytes(), os.stat(data.images[1])
    Path(data.images[1]).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(data.images[1], ns=(times.st_atime_ns, times.st_mtime_ns))
    assert source_digest(data) != before                                   # as long and as old as before, other bytes
    assert source_digest(data.subset([0, 1])) != source_digest(data.subset([1, 0])) != source_digest(data)


def test_nothing_is_left_of_a_cache_that_failed(tmp_path):
    class Mixed(ToyData):
        def __getitem__(self, i): return torch.zeros(3, 4 + (i == 5), 4, dtype=torch.uint8), torch.zeros(4 + (i == 5), 4, dtype=torch.long)
    class Wide(ToyData):
        def __getitem__(self, i): return self.images[i], torch.full((4, 4), 300)
    with pytest.raises(ValueError, match=r"cache: image 5 is \(3, 5, 4\), the first \(3, 4, 4\); load the data with size"): cached(Mixed(), tmp_path)
    with pytest.raises(ValueError, match="ids from 300 to 300"): write_cache(Wide(), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_of_discovered_labels_only_the_images_are_cached(samples, tmp_path):
    class Labelled(torch.utils.data.Dataset):
        def __init__(self, data): self.data, self.number = data, 1
        def __len__(self): return len(self.data)
        def __getitem__(self, i): image, mask = self.data[i]; return image, torch.full_like(mask, self.number)
    labelled = Labelled(samples)
    found = with_cache(labelled, str(tmp_path))
    assert found is labelled and isinstance(found.data, CachedData) and with_cache(found, str(tmp_path)).data is found.data
    labelled.number = 7                                                                    # labels that change in training are seen
    assert (found[2][1] == 7).all() and torch.equal(found[2][0], samples[2][0])
    assert with_cache(samples, "") is samples
