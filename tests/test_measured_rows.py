"""The guide and the pages that a newcomer reads first quote measured figures: each equals the committed JSON."""
import json
import re
from pathlib import Path

import pytest

from pixcl_nb.experiments.claims import paired_difference
from pixcl_nb.experiments.regimes import gains, STARTS

NBS = Path(__file__).parent.parent / "nbs"
RESULTS = NBS / "walkthroughs" / "results"
REGIMES = json.loads((RESULTS / "regimes.json").read_text())
NUMBER_OF_LABELS = {"fewer labels": 10, "headline": 20, "more labels": 40}


def claim(file, name):
    "A row of a committed file of claims."
    return next(row for row in json.loads((RESULTS / f"claims_{file}.json").read_text())["rows"] if row["row"] == name)


def written(difference):
    "A paired difference as the pages write it: mean (low … high), points."
    mean, low, high = (f"{100 * difference[name]:+.1f}".replace("-", "−") for name in ("mean", "low", "high"))
    return f"{mean} ({low} … {high})"


def gain(sweep, method, protocol, **fields):
    "The paired gain of one arm of a sweep."
    found, = [row["difference"] for row in gains(REGIMES[sweep]["points"], protocol)
              if row["regime"]["method"] == method and all(row["regime"][name] == value for name, value in fields.items())]
    return found


def natural_rows():
    return [f"| natural world, {count} labels | {STARTS[method][0]} | {written(gain(sweep, method, 'probe'))} | {written(gain(sweep, method, 'finetune'))} |"
            for sweep, count in NUMBER_OF_LABELS.items() for method in ("densecl", "auxiliary")]


def patient_rows():
    "The same starts, fine-tuned four times as long."
    return [f"| natural world, {count} labels, fine-tuned for 1,200 steps | {STARTS[method][0]} | {written(gain('headline, longer', method, 'probe', labels=count))} | {written(gain('headline, longer', method, 'finetune', labels=count))} |"
            for count in (20, 60, 240) for method in ("densecl", "auxiliary")]


def short_rows():
    "MoCo on 240 scenes: the same few steps in both worlds."
    return [f"| {world}, 40 labels, 240 scenes | MoCo v2, {views} colour changes | {written(gain('views', 'moco', 'probe', world=name, views=views))} | {written(gain('views', 'moco', 'finetune', world=name, views=views))} |"
            for name, world in {"natural": "natural world", "adversarial": "samples' world"}.items() for views in ("gentle", "strong")]


def dial_rows():
    "MoCo and CP2; DenseCL's partners and λ at 400 steps; label contrast by labels."
    arms = {"lambda 0": ("lambda", "DenseCL without its dense term"), "by feature": ("partners", "DenseCL, by features"), "densecl": ("lambda", "DenseCL, geometric positives")}
    first = [f"| natural world, 20 labels{', 400 steps' if arm == 'cp2' else ''} | {title} | {written(gain(sweep, arm, 'probe'))} | {written(gain(sweep, arm, 'finetune'))} |"
             for arm, sweep, title in (("moco", "moco and label", "MoCo v2, 1,000 steps"), ("cp2", "cp2", "CP2"))]
    dense = [f"| natural world, 20 labels, 400 steps | {title} | {written(gain(sweep, arm, 'probe'))} | {written(gain(sweep, arm, 'finetune'))} |" for arm, (sweep, title) in arms.items()]
    return first + dense + [f"| natural world, {count} labels, no other scenes | Label contrast | {written(gain(sweep, 'label', 'probe', labels=count))} | {written(gain(sweep, 'label', 'finetune', labels=count))} |"
                            for count, sweep in ((10, "labels"), (20, "moco and label"), (40, "labels"), (160, "labels"))]


def sample_rows():
    table, titles = claim("samples", "comparison")["table"], {"moco": "MoCo v2", "densecl": "DenseCL, by features", "cp2": "CP2", "auxiliary": "Auxiliary contrast, clusters of DenseCL's features"}
    over = lambda protocol, arm: written(paired_difference(table[protocol][arm], table[protocol]["random"]))
    return [f"| samples, 20 labels (probe: 240) | {title} | {over('probe', arm)} | {over('finetune@20', arm)} |" for arm, title in titles.items()]


def street_rows():
    against = claim("extractor", "extractor_probe")["against"]
    tuned = claim("extractor", "extractor_finetune")["against"]
    return [f"| street scenes, 8, 18 and 73 labels | Auxiliary contrast, clusters of an ImageNet network | {written(against['start'])} | {written(tuned['start'])} |"]


@pytest.mark.parametrize("row", [*natural_rows(), *patient_rows(), *dial_rows(), *short_rows(), *sample_rows(), *street_rows()])
def test_the_guides_table_is_the_committed_one(row):
    assert row in (NBS / "guide" / "which_method.md").read_text().splitlines()


def test_the_sentences_under_the_table_hold():
    table = claim("samples", "comparison")["table"]
    difference = lambda protocol, arm: paired_difference(table[protocol][arm], table[protocol]["random"])["mean"]
    probe = {arm: difference("probe", arm) for arm in ("moco", "densecl", "cp2", "auxiliary")}
    assert min(probe.values()) > 0 and max(probe, key=probe.get) == "auxiliary" and all(difference("finetune@20", arm) < 0 for arm in probe)
    for sweep in NUMBER_OF_LABELS:
        assert gain(sweep, "auxiliary", "probe")["mean"] > gain(sweep, "densecl", "probe")["mean"] > 0
        assert all(min(gain(sweep, method, "finetune")["each"]) > 0 for method in ("densecl", "auxiliary"))
    assert all(max(row["difference"]["each"]) < 0 for row in gains(REGIMES["views"]["points"], "finetune"))
    for found in (gain("moco and label", "moco", "finetune"), gain("cp2", "cp2", "finetune")): assert found["low"] < 0 < found["high"]
    assert all(.055 < one["mean"] < .065 and one["low"] > 0 for one in (gain("moco and label", "label", "finetune"), gain("labels", "label", "finetune", labels=40)))
    assert min(gain("views", "moco", "probe", world="natural", views="gentle")["each"]) > 0 > max(gain("views", "moco", "probe", world="natural", views="strong")["each"])
    order = [gain("partners", arm, "probe")["mean"] for arm in ("same place", "by feature", "densecl")]
    assert order == sorted(order) and gain("labels", "label", "finetune", labels=40)["low"] > 0 and min(gain("labels", "label", "finetune", labels=160)["each"]) > 0
    street, labels = claim("extractor", "extractor_probe"), claim("camvid", "label_budget")["values"]
    assert street["against"]["noise"]["low"] > 0 and street["against"]["extractor"]["high"] < 0 and min(street["against"]["start"]["each"]) > 0
    found = {count: paired_difference(labels[f"contrast, {count} labels"], labels[f"scratch, {count} labels"]) for count in (8, 18, 37, 367)}
    assert all(found[count]["low"] < 0 and found[count]["mean"] < .01 for count in (8, 18, 37)) and .01 < found[367]["mean"] < .015 and found[367]["low"] > 0


def test_figures_quoted_in_the_guides_sentences():
    text = (NBS / "guide" / "which_method.md").read_text()
    scopes = {row["regime"]["method"]: row["scores"] for row in gains(REGIMES["scopes"]["points"], "finetune")}
    few, whole, long = gain("scenes", "densecl", "finetune", scenes=240), paired_difference(scopes["label"], scopes["within"]), gain("labels, longer", "label", "finetune", labels=160)
    for words in (f"better start in the natural world ({written(few)} with 20 labels)", f"than with one image, {written(whole)}.", f"the {written(gain('labels', 'label', 'finetune', labels=160)).split()[0]} of 160 labels became {written(long)}."): assert words in text, words
    assert min(one["low"] for one in (few, whole, long)) > 0
    patient = {(method, count): gain("headline, longer", method, "finetune", labels=count) for method in ("densecl", "auxiliary") for count in (20, 60, 240)}
    assert f"DenseCL kept {written(patient['densecl', 20]).split()[0]} and auxiliary contrast {written(patient['auxiliary', 20]).split()[0]}" in text and min(patient["densecl", 20]["each"]) > 0 < patient["auxiliary", 20]["low"]
    assert all(one["low"] < 0 for (_, count), one in patient.items() if count > 20)
    lost, same, ahead = claim("start", "densecl_start_probe"), claim("start", "densecl_start_finetune"), claim("extractor", "extractor_finetune")["against"]["extractor"]
    pasted = claim("start", "cp2_start_probe")
    assert f"cost {-100 * lost['difference']['mean']:.1f} points of the probe (DenseCL) and {-100 * pasted['difference']['mean']:.1f} (CP2)" in text
    assert lost["verdict"] == pasted["verdict"] == "contradicted" and same["verdict"] == claim("start", "cp2_start_finetune")["verdict"] == "not at this scale"
    before = claim("extractor", "extractor_probe")["against"]["extractor"]
    assert f"itself stayed {-100 * before['mean']:.1f} points above it; fine-tuned, the clusters gained nothing sure and it stayed {-100 * ahead['mean']:.1f} above" in text and max(before["high"], ahead["high"]) < 0


@pytest.mark.parametrize("page", ["start_here", "comparison", "claims", "results"])
def test_what_a_newcomer_reads_first_quotes_the_map(page):
    text = "".join(line for cell in json.loads((NBS / "walkthroughs" / f"{page}.ipynb").read_text())["cells"] if cell["cell_type"] == "markdown" for line in cell["source"])
    quoted = re.search(r"(\+[\d.]+) points \(DenseCL\) and (\+[\d.]+) points \(auxiliary contrast\) above random weights, with three of three seeds", text)
    measured = {method: gain("headline", method, "finetune") for method in ("densecl", "auxiliary")}
    assert quoted.groups() == tuple(f"{100 * found['mean']:+.1f}" for found in measured.values())
    assert all(len(found["each"]) == 3 and min(found["each"]) > 0 for found in measured.values())
    patient = {method: gain("headline, longer", method, "finetune", labels=20) for method in measured}
    left = re.search(r"three of three seeds.*? That is after 300 steps of fine-tuning; with four times the steps (\+[\d.]+) and (\+[\d.]+) are left, again with three of three seeds", text)
    assert left.groups() == tuple(f"{100 * found['mean']:+.1f}" for found in patient.values()) and all(min(found["each"]) > 0 for found in patient.values())
    again = re.search(r"by (\+[\d.]+) and (\+[\d.]+) points on average", text)
    assert (again is not None) == (page == "start_here") and (not again or again.groups() == quoted.groups())


def test_the_comparison_shows_both_worlds_from_the_committed_files():
    "The table of the page, as it was printed, against the two files that it is read from."
    cells = json.loads((NBS / "walkthroughs" / "comparison.ipynb").read_text())["cells"]
    page, = ["".join(output["data"]["text/html"]) for cell in cells for output in cell.get("outputs", []) if "natural world" in "".join(output.get("data", {}).get("text/html", []))]
    table = claim("samples", "comparison")["table"]
    plain = lambda one: written(one).replace("−", "-")
    natural = {"moco": "moco and label", "densecl": "headline", "cp2": "cp2", "label": "moco and label", "auxiliary": "headline"}
    for arm, sweep in natural.items():
        ours = [gain(sweep, arm, protocol) for protocol in ("probe", "finetune")] + [paired_difference(table[protocol][arm], table[protocol]["random"]) for protocol in ("probe", "finetune@20")]
        assert all(f"<td>{plain(one)}</td>" in page for one in ours), arm
