"""Scores of a network trained in bf16 beside those of one trained in float32, seed by seed, with the interval of their difference (a few CPU minutes).

    python tests/bench/precision_scores.py --out nbs/walkthroughs/results/precision_samples.json

DenseCL with pixcl_tiny on the samples by the laptop recipe; probe and fine-tuning (in the arm's own precision) on the test split. What is done is kept under runs/precision."""
import argparse
import json
import shlex
import sys
from pathlib import Path

import torch

from pixcl_nb.checks import atomic_write, made_by
from pixcl_nb.experiments.bench import DemoConfig, demo_data, evaluate_start, pretrained_method, stored_result
from pixcl_nb.experiments.claims import paired_difference

ARMS, PROTOCOLS = ("float32", "bf16"), ("probe", "finetune")


def scores(config, seed, folder, data):
    "The scores of one arm and seed, made once."
    train, labelled, test = data
    method, history = pretrained_method(config.methods[0], config, seed, train, folder, progress=False)
    settings = {name: getattr(config, name) for name in ("methods", "steps", "batch_size", "crop", "finetune_steps", "precision")} | {"seed": seed}
    return {protocol: stored_result(folder / f"{protocol}-seed{seed}.json", {**settings, "protocol": protocol},
                                    lambda: evaluate_start(method, protocol, False, config, seed, labelled, test))["score"] for protocol in PROTOCOLS}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="densecl", choices=["moco", "densecl"])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--finetune-steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/precision"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    size = dict(steps=arguments.steps, batch_size=arguments.batch_size, crop=arguments.crop, finetune_steps=arguments.finetune_steps)
    config = lambda precision: DemoConfig(methods=(arguments.method,), precision=precision, **size)
    data = demo_data(config("bf16"))
    found = {arm: [scores(config(arm), seed, arguments.runs / arm, data) for seed in arguments.seeds] for arm in ARMS}
    values = {protocol: {arm: [one[protocol] for one in found[arm]] for arm in ARMS} for protocol in PROTOCOLS}
    differences = {protocol: paired_difference(values[protocol]["bf16"], values[protocol]["float32"]) for protocol in PROTOCOLS}
    command = "python tests/bench/precision_scores.py " + shlex.join(sys.argv[1:])
    result = {"command": command.strip(), "method": arguments.method, "encoder": "pixcl_tiny", **size,
              "seeds": arguments.seeds, "score": values, "bf16_minus_float32": differences, "machine": made_by(torch.device("cpu"))}
    print(json.dumps(result, indent=1))
    if arguments.out: atomic_write(arguments.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__": main()
