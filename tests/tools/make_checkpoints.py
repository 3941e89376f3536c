#!/usr/bin/env python3
"""Write `data_samples/checkpoints/*.safetensors` from the arms of a claims run on the samples.

    pixcl claims --data samples --size 128 128 --steps 400 --rows comparison --out runs/claims-samples --threads 1
    python tests/tools/make_checkpoints.py runs/claims-samples

Seed 0 of every method at equal steps, one byte a weight (encoders.compress_state).
"""
import sys
from pathlib import Path

from safetensors.torch import save

from pixcl_nb.checks import atomic_write
from pixcl_nb.networks.weights import compress_state
from pixcl_nb.training.checkpoints import last_checkpoint

out = Path(__file__).parents[2] / "data_samples" / "checkpoints"
for name in ("moco", "densecl", "cp2", "label", "auxiliary"):
    state = last_checkpoint(Path(sys.argv[1]) / "arms" / f"{name}-seed0")[1]["method"]
    encoder = {key.removeprefix("branch.encoder."): value for key, value in state.items() if key.startswith("branch.encoder.")}
    path = atomic_write(out / f"{name}.safetensors", save(compress_state(encoder)))
    print(path, path.stat().st_size)
