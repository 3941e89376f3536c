"""Does it help to place a cell where it looks instead of at its centre? Linear probes of three seeds either way: mIoU and boundary score (a few CPU minutes).

    python tests/bench/offset_scores.py --out nbs/walkthroughs/results/offset_samples.json

60 labelled images of the samples, 20,000 pixels, scored on the test split; "random" has other weights with each seed, the shipped networks other labelled images and pixels."""
import argparse
import json
import shlex
import sys
from pathlib import Path

import torch

from pixcl_nb.checks import atomic_write, made_by
from pixcl_nb.evaluation.probe import linear_probe
from pixcl_nb.evaluation.score import boundary_quality
from pixcl_nb.experiments.claims import paired_difference
from pixcl_nb.images.data import label_subset, load_data
from pixcl_nb.networks.encoders import cell_offset, create_encoder
from pixcl_nb.networks.weights import sample_encoder


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoders", nargs="+", default=["densecl", "moco", "random"], choices=["densecl", "moco", "random"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train, test = (load_data("samples", split=split).cache() for split in ("train", "test"))
    encoders = {}
    for name in arguments.encoders:
        places = {"centre": [], "offset": []}
        for seed in arguments.seeds:
            torch.manual_seed(seed)
            encoder = create_encoder("pixcl_tiny") if name == "random" else sample_encoder(name)
            labelled = label_subset(train, count=60, seed=seed).cache()
            for place, offset in (("centre", (0., 0.)), ("offset", tuple(cell_offset(encoder)))):
                result = linear_probe(encoder, labelled, test, pixels=20_000, seed=seed, offset=offset)
                places[place].append({"miou": result.miou, "boundary": boundary_quality(result, test), "offset": offset})
                print(name, seed, place, places[place][-1], flush=True)
        gain = {measure: paired_difference(*([one[measure] for one in places[place]] for place in ("offset", "centre"))) for measure in ("miou", "boundary")}
        encoders[name] = {**places, "offset_minus_centre": gain}
    command = "python tests/bench/offset_scores.py " + shlex.join(sys.argv[1:])
    result = {"command": command.strip(), "seeds": arguments.seeds, "encoders": encoders, "machine": made_by(torch.device("cpu"))}
    if arguments.out: atomic_write(arguments.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__": main()
