#!/usr/bin/env python3
"""Write the shipped encoders and what their manifest says of them.

    pixcl claims --data samples --size 128 128 --steps 400 --rows comparison --out runs/claims-samples --threads 1
    python tests/tools/make_checkpoints.py adversarial runs/claims-samples
    python tests/tools/make_checkpoints.py natural runs/regimes

`adversarial`: the arms of a claims run on the samples, seed 0 of every method at equal steps, into data_samples/checkpoints.
`natural`: the starts of the map of regimes (pixcl_nb.experiments.regimes), seed 0, into data_samples/checkpoints/natural; those
that the folder has not are trained (about 8 CPU minutes on one thread for the five, beside the world's 2,400 scenes).
Weights are kept in one byte each (networks.weights.compress_state).
"""
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save

from pixcl_nb.checks import atomic_write
from pixcl_nb.experiments.claims import ARMS
from pixcl_nb.experiments.regimes import NETWORK, Regime, start_of, STARTS, view_of
from pixcl_nb.networks.weights import compress_state
from pixcl_nb.training.checkpoints import last_checkpoint

OUT = Path(__file__).parents[2] / "data_samples" / "checkpoints"
ARMS_SHIPPED = "moco", "densecl", "cp2", "label", "auxiliary"
CLAIMS = "pixcl claims --data samples --size 128 128 --steps 400 --rows comparison --out runs/claims-samples --threads 1"
NATURAL = {
    "moco": Regime("moco", steps=1000), "densecl": Regime("densecl", steps=1000), "auxiliary": Regime("auxiliary", views="grey often", steps=700),
    "cp2": Regime("cp2", steps=400), "label": Regime("label", steps=300, labels=160)}


def write_encoder(path, state):
    "An encoder's tensors, one byte a weight."
    path.parent.mkdir(exist_ok=True)
    print(atomic_write(path, save(compress_state(state))), path.stat().st_size, flush=True)


def write_manifest(folder, world, commands, encoders, **network):
    "What `sample_encoder` and a reader have to know of a folder's encoders."
    stored = "weights int8 with one scale for each output channel, the rest float16"
    about = {"world": world, "commands": commands, "network": {"name": "pixcl_tiny", **network}, "stored": stored, "encoders": encoders}
    atomic_write(folder / "manifest.json", json.dumps(about, indent=1) + "\n")


def adversarial(runs):
    "Five encoders out of a claims run on the samples."
    for name in ARMS_SHIPPED:
        state = last_checkpoint(runs / "arms" / f"{name}-seed0")[1]["method"]
        write_encoder(OUT / f"{name}.safetensors", {key.removeprefix("branch.encoder."): value for key, value in state.items() if key.startswith("branch.encoder.")})


def adversarial_manifest():
    said = {name: {"title": ARMS[name].title, "data": f"240 scenes of data_samples/train.txt, {'with' if name == 'label' else 'without'} labels", "steps": 400, "seed": 0}
            for name in ARMS_SHIPPED}
    write_manifest(OUT, "adversarial", [CLAIMS, "python tests/tools/make_checkpoints.py adversarial runs/claims-samples"], said)


def natural(runs):
    "Five starts of the map of regimes, trained where `runs` has them not."
    torch.set_num_threads(1)
    for name, start in NATURAL.items(): write_encoder(OUT / "natural" / f"{name}.safetensors", start_of(start, runs).state_dict())


def natural_manifest():
    said = {}
    for name, start in NATURAL.items():
        title, method, settings, training = STARTS[name]
        scenes = f"{start.labels} labelled" if name == "label" else f"{start.scenes} unlabelled"
        said[name] = {"title": title, "data": f"{scenes} scenes of the natural world", "steps": start.steps, "seed": start.seed,
                      "method": method, "settings": settings, "training": training, "views": start.views, "view": asdict(view_of(start))}
    write_manifest(OUT / "natural", "natural", ["python tests/tools/make_checkpoints.py natural runs/regimes"], said, **NETWORK)


if __name__ == "__main__":
    makers = {"adversarial": (adversarial, adversarial_manifest), "natural": (natural, natural_manifest)}
    make, say = makers[sys.argv[1]]
    if len(sys.argv) > 2: make(Path(sys.argv[2]))               # without a folder of runs: the manifest alone
    say()
