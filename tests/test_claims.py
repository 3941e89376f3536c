"""Claims: figures to verdicts by rule, jobs made once, rows that resume, commands that make them again."""
import dataclasses
import functools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from toy import few_to_measure

from pixcl_nb.experiments import claims
from pixcl_nb.experiments.claims import (
    ARMS, LABELLINGS, ROWS, SCALES, Bench, ClaimsConfig, NoiseFeatures, claim_row, claim_command_line,
    extractor, paired_difference, run_claims, score, step_times, verdict)
from pixcl_nb.cli import main

quiet = dict(say=lambda text: None)
TINY = dict(data="samples", size=(128, 128), split="val", seeds=(0,), steps=2, quick_steps=2, finetune_steps=2, finetune_batch=2, batch_size=4, crop=64, labels=6, budgets=(2, 6), contrast_steps=2,
            auxiliary_steps=2, clusters=6, few_labels=4)


@pytest.fixture(scope="module", autouse=True)
def few_and_short():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claims, "demo_data", few_to_measure(claims.demo_data))
        patch.setattr(claims, "linear_probe", functools.partial(claims.linear_probe, pixels=2000, iterations=10))
        yield


def test_interval_is_students_t():
    from scipy.stats import ttest_rel
    a, b = np.random.default_rng(0).normal(size=(2, 5))
    found, expected = paired_difference(a, b), ttest_rel(a, b).confidence_interval(.95)
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
    assert found["each"] == pytest.approx(list(a - b))


@pytest.mark.parametrize("differences, said", [([.02, .021, .019], "reproduced"), ([-.02, -.021, -.019], "contradicted"), ([.05, -.01, .01], "not at this scale"), ([.3], "one seed: no verdict")])
def test_verdict_is_a_rule(differences, said): assert verdict(paired_difference(differences, np.zeros(len(differences)))) == said


@pytest.fixture(scope="module")
def bench(tmp_path_factory): return Bench(ClaimsConfig(**TINY), tmp_path_factory.mktemp("claims"), **quiet)


def test_a_score_is_made_once_and_its_arm_not_trained_again(bench):
    first = score(bench, "moco", "probe", 0)
    weights = bench.out / "arms" / "moco-seed0"
    assert list(weights.glob("step-*.pt"))
    for path in weights.iterdir(): path.unlink()
    assert score(bench, "moco", "probe", 0) == first and not list(weights.glob("step-*.pt"))


def test_a_score_depends_on_its_own_settings_only(bench, tmp_path):
    made = []
    bench_like = lambda **changes: type("B", (Bench,), {"__init__": lambda self: self.__dict__.update(bench.__dict__, config=dataclasses.replace(bench.config, **changes))})()
    key = lambda b, *a: b.settings(*a)
    assert key(bench_like(clusters=99), "steps") == key(bench, "steps") and key(bench_like(steps=9), "steps") != key(bench, "steps")


def test_arms_of_a_seed_share_their_first_weights(bench):
    from pixcl_nb.experiments.claims import new_method
    first = [new_method(bench, ARMS[name], 3).encoder.state_dict() for name in ("random", "moco", "densecl-mutual", "cp2")]
    for other in first[1:]: assert all(torch.equal(other[name], value) for name, value in first[0].items())


def test_arm_with_a_start_begins_where_the_other_ended(bench):
    from pixcl_nb.experiments.claims import new_method
    trained, begun = bench.method("moco", 0).encoder.state_dict(), new_method(bench, ARMS["cp2-quick"], 0).encoder.state_dict()
    assert all(torch.equal(begun[name], value) for name, value in trained.items())


def test_row_holds_figures_verdict_command_machine(bench):
    row = claim_row(bench, "densecl_matches", "laptop")
    assert set(row["values"]) >= {"random", "moco", "densecl", "densecl-geometric"} and row["verdict"] == "one seed: no verdict"
    assert row["difference"]["mean"] == pytest.approx(row["values"]["densecl"][0] - row["values"]["random"][0])
    assert len(row["course"]["densecl"][0]) == 2 and row["machine"]["threads"] == torch.get_num_threads()
    assert json.loads((bench.out / "rows" / "densecl_matches.json").read_text())["values"] == row["values"]


def test_command_makes_the_same_configuration_again(bench):
    import argparse
    from pixcl_nb.cli import build_parser, given_fields
    words = claim_command_line(bench.config, "label_budget", "laptop").split()
    arguments = build_parser().parse_args(words[1:])
    again = ClaimsConfig(**{**SCALES[arguments.scale], **given_fields(arguments, ClaimsConfig)})
    assert again == dataclasses.replace(bench.config, rows=("label_budget",)) and arguments.threads == torch.get_num_threads()


def test_label_budget_is_paired_and_nested(bench):
    row = claim_row(bench, "label_budget", "small")
    assert set(row["values"]) == {f"{name}, {n} labels" for name in ("scratch", "contrast") for n in (2, 6)} and row["verdict"] == "machinery only"
    assert set(row["baseline_at_twice_the_steps"]) == {2, 6} and row["gains"][2]["mean"] == pytest.approx(row["values"]["contrast, 2 labels"][0] - row["values"]["scratch, 2 labels"][0])
    assert set(row["separation"][6]) == {"scratch", "contrast"} and all(0 < run[where] < 1 for n in (2, 6) for runs in row["separation"][n].values() for run in runs for where in ("own", "test"))
    assert row["separation"][2]["scratch"][0]["test"] == row["separation"][6]["scratch"][0]["test"], "random weights do not depend on the labels"


def test_random_ids_know_nothing_and_come_again_with_their_seed(bench):
    made = [bench.labels(LABELLINGS["random ids"], seed) for seed in (0, 0, 1)]
    same, again, other = ([torch.as_tensor(found.dataset(bench.train)[i][1]) for i in range(4)] for found in made)
    assert all(torch.equal(x, y) for x, y in zip(same, again)) and not all(torch.equal(x, y) for x, y in zip(same, other))
    quality = made[0].quality(bench.train)
    assert quality["positive_precision"] == pytest.approx(quality["positive_chance"], abs=.02) and quality["v_measure"] < .05
    assert isinstance(extractor(bench, "noise", 0), NoiseFeatures)


def test_equal_steps_compares_with_the_best_that_sees_no_labels(bench, monkeypatch):
    values = {"random": [.1, .1], "moco": [.2, .3], "densecl": [.3, .3], "cp2": [.1, .2], "auxiliary": [.3, .4], "label": [.9, .9]}
    monkeypatch.setattr("pixcl_nb.experiments.claims.scores", lambda bench, names, protocol: values)
    row = ROWS["equal_steps"].work(bench)
    assert row["compared"] == ["auxiliary", "densecl"] and row["difference"]["each"] == pytest.approx([0, .1]) and row["to_random"]["cp2"]["mean"] == pytest.approx(.05)


def test_a_row_that_fails_does_not_stop_the_others(bench, tmp_path, monkeypatch):
    def broken(bench): raise ValueError("labels: all of them are outliers")
    monkeypatch.setitem(ROWS, "auxiliary_algorithm", dataclasses.replace(ROWS["auxiliary_algorithm"], work=broken))
    rows = run_claims(dataclasses.replace(bench.config, rows=("auxiliary_algorithm", "densecl_matches")), bench.out, **quiet)["rows"]
    assert rows["auxiliary_algorithm"]["error"] == "ValueError: labels: all of them are outliers" and rows["densecl_matches"]["verdict"] == "one seed: no verdict"


@pytest.mark.long
def test_same_figures_bit_for_bit_in_another_folder(bench, tmp_path):
    again = Bench(bench.config, tmp_path, **quiet)
    for name, protocol in (("densecl", "probe"), ("cp2", "finetune+decoder")): assert score(again, name, protocol, 0) == score(bench, name, protocol, 0)


def test_steps_take_turns():
    order = []
    class Method(torch.nn.Linear):
        def loss(self, images, masks=None, generator=None): order.append(self.title); return {"loss": self(images).sum()}
        def after_step(self): pass
    methods = {}
    for title in "ab": methods[title] = Method(2, 1); methods[title].title = title
    found = step_times(methods, torch.ones(1, 2), steps=4)
    assert "".join(order) == "baab" * 3 + "ba" and {len(t) for t in found.values()} == {4}


def test_all_arms_may_begin_with_a_files_weights(bench, tmp_path):
    from pixcl_nb.experiments.claims import new_method
    from pixcl_nb.networks.encoders import create_encoder
    from pixcl_nb.networks.weights import plain_state
    begun = []
    for number in range(2):
        torch.manual_seed(number + 7)
        weights = create_encoder("pixcl_tiny").state_dict()
        torch.save(weights, tmp_path / "w.pth")                                    # the same name, other weights
        other = Bench(dataclasses.replace(bench.config, start=str(tmp_path / "w.pth")), tmp_path, **quiet)
        for arm in ("random", "densecl"):
            found = plain_state(new_method(other, ARMS[arm], 0).encoder)
            assert all(torch.equal(found[name], value) for name, value in weights.items())
        begun.append(other.settings("steps"))
    assert begun[0] != begun[1] and "start" not in bench.settings("steps")
    assert "--start" in claim_command_line(other.config, "densecl_probe", "laptop")


@pytest.mark.long
def test_clusters_of_an_existing_network_against_their_controls(bench, tmp_path):
    from pixcl_nb.experiments.claims import extracted_encoder, extracted_labels, extractor_probe, first_encoder
    bench = Bench(dataclasses.replace(bench.config, size=(64, 64), crop=32, budgets=(2, 4)), tmp_path, **quiet)
    bench.train, bench.test = bench.train.subset(range(16)).cache(), bench.test.subset(range(6)).cache()
    row = claim_row(bench, "extractor_probe", "small")
    assert len(row["values"]) == 5 * 2 and all(0 <= value[0] <= 1 for value in row["values"].values())
    assert set(row["against"]) == {"start", "augmentation", "noise", "extractor"}
    begun, trained = first_encoder(bench.config, 0).state_dict(), {name: extracted_encoder(bench, name, 0).state_dict() for name in ("augmentation", "noise", "clusters")}
    for state in trained.values(): assert not torch.equal(state["stem.0.weight"], begun["stem.0.weight"])
    assert not torch.equal(trained["noise"]["stem.0.weight"], trained["clusters"]["stem.0.weight"])
    quality = {name: extracted_labels(bench, name, 0).quality(bench.train) for name in ("noise", "clusters")}
    assert quality["clusters"]["v_measure"] > quality["noise"]["v_measure"] + .05
    places = extracted_labels(bench, "augmentation", 0)
    shared = set(places[0].flatten().tolist()) & set(places[1].flatten().tolist())
    assert not shared and places.k == 16 * len(bench.train)                          # 64 pixels a side, squares of 16


def test_every_row_says_what_it_claims():
    for name, row in ROWS.items(): assert row.claim and row.paper and row.measure and row.work.__doc__, name


def test_claims_from_the_shell(tmp_path, capsys):
    assert main(["claims", "--rows", "densecl_prob"]) == 1
    assert "rows: unknown name 'densecl_prob', did you mean 'densecl_probe'" in capsys.readouterr().err
    assert main(["claims", "--data", "camvid", "--root", str(tmp_path / "none"), "--out", str(tmp_path)]) == 1
    assert str(tmp_path / "none") in capsys.readouterr().err


def test_a_failed_row_is_told_and_is_an_exit_code(bench, monkeypatch, capsys):
    def broken(bench): raise ValueError("labels: all of them are outliers")
    monkeypatch.setitem(ROWS, "auxiliary_algorithm", dataclasses.replace(ROWS["auxiliary_algorithm"], work=broken))
    assert main(["claims", "--rows", "auxiliary_algorithm", "--scale", "small", "--threads", str(torch.get_num_threads()), "--out", str(bench.out / "shell")]) == 1
    assert "ValueError: labels: all of them are outliers" in capsys.readouterr().out


def test_arms_that_go_on_begin_with_the_start_and_label_contrast_sees_the_images_that_are_probed(bench, tmp_path, monkeypatch):
    torch.save(claims.first_encoder(bench.config, 5).state_dict(), tmp_path / "start.pt")
    config = dataclasses.replace(bench.config, start=str(tmp_path / "start.pt"), budgets=(3,), rates=(.001, .1), split="test")
    seen, probed = {}, []
    class Result:
        history = ()
        def __init__(self, encoder): self.miou = float(sum(weight.detach().double().sum() for weight in encoder.parameters()))
        def to_dict(self): return {"iou": {}}
    monkeypatch.setattr(claims, "linear_probe", lambda encoder, labelled, *more, **options: (probed.append(labelled), Result(encoder))[1])
    trained = claims.pretrain
    monkeypatch.setattr(claims, "pretrain", lambda method, data, settings, run_dir: (seen.setdefault(str(run_dir), (method, data, settings.lr)), trained(method, data, settings, run_dir=run_dir)))
    ours = Bench(config, tmp_path / "on", **quiet)
    found = claims.going_on(ours, "label-on", "probe")
    assert found["val"].keys() == {"start", "moco-on", "label-on"} and list(found["val"]["start"]) == ["none"]
    rates = {lr for _, _, lr in seen.values()}
    assert rates == {.001, .1}
    labelled = [data for path, (_, data, _) in seen.items() if "label-on" in path]
    expected = claims.label_subset(ours.labelled, count=3, seed=0)
    for data in [*labelled, *probed]: assert len(data) == 3 and all(torch.equal(data[i][0], expected[i][0]) for i in range(3))
    again = Bench(config, tmp_path / "on", say=lambda text: pytest.fail(text))
    assert claims.going_on(again, "label-on", "probe")["values"] == found["values"]


def test_cp2_is_held_against_itself_without_its_dense_term(bench):
    from pixcl_nb.experiments.claims import new_method
    weights = [new_method(bench, ARMS[name], 0).config for name in ("cp2", "cp2-instance")]
    assert [one.dense_weight for one in weights] == [.2, 0.] and dataclasses.replace(weights[0], dense_weight=0.) == weights[1]
    row = ROWS["cp2_separation"].work(bench)
    expected = claims.class_separation(bench.encoder("cp2-instance", 0), bench.test)["auroc"]
    assert row["values"]["cp2-instance"] == [expected] and row["difference"]["each"] == [row["values"]["cp2"][0] - expected]
    log = [json.loads(line) for line in (bench.out / "arms" / "cp2-instance-seed0" / "log.jsonl").read_text().splitlines()]
    assert row["cosines"]["cp2-instance"]["fg_fg"] == claims.tenth_means([step["fg_fg"] for step in log])[-1:] and set(row["cosines"]) == {"cp2", "cp2-instance"}
    assert set(row["probe"]) == set(row["values"]) == {"random", "moco", "cp2-instance", "cp2"}


def test_gains_are_told_drive_by_drive(bench, tmp_path, monkeypatch):
    "Six frames of two drives, trained on one; the row's scores are those of the probe on each drive's frames alone."
    data = bench.test.subset(range(6))
    data.names = ["seen_1", "seen_2", "new_1", "new_2", "new_3", "new_4"]
    known = bench.train.subset(range(4))
    known.names = ["seen_7", "seen_8", "other_1", "other_2"]
    monkeypatch.setattr(claims, "demo_data", lambda config: (known, known, data))
    torch.save(claims.first_encoder(bench.config, 5).state_dict(), tmp_path / "start.pt")
    config = dataclasses.replace(bench.config, start=str(tmp_path / "start.pt"), budgets=(3,), rates=(.01,), split="test", seeds=(0, 1))
    ours = Bench(config, tmp_path / "drives", **quiet)
    found = claims.densecl_start_drives(ours)
    assert set(found["gains"]) == {f"{split}, {drive}" for split in ("val", "test") for drive in ("seen (trained on)", "new")}
    encoder = claims.first_encoder(ours.config, 1)
    expected = claims.linear_probe(encoder, claims.label_subset(known, count=3, seed=1), data.subset([2, 3, 4, 5]), seed=1).miou
    assert found["values"]["the start itself, test, new"][1] == expected
    seen, new = (found["gains"][f"test, {drive}"]["each"] for drive in ("seen (trained on)", "new"))
    assert found["difference"]["each"] == pytest.approx([a - b for a, b in zip(seen, new)])
    data.names = ["seen_1"] * 6
    monkeypatch.setattr(claims, "pretrain", lambda *a, **k: pytest.fail("training began"))
    with pytest.raises(ValueError, match="data: test has no drives of both kinds"): claims.densecl_start_drives(Bench(config, tmp_path / "one", **quiet))


@pytest.mark.parametrize("name", ["moco", "cp2", "label_contrast"])
def test_a_recipe_takes_the_colours_and_the_stride_of_its_encoder(bench, name):
    from types import SimpleNamespace
    from pixcl_nb.experiments.claims import recipe_of
    settings = recipe_of(name, bench.config, SimpleNamespace(mean=(.5, .5, .5), std=(.4, .3, .2), stride=16))
    view = settings["compose"].view if "compose" in settings else settings["view"]
    assert (view.mean, view.std) == ((.5, .5, .5), (.4, .3, .2)) and ("compose" not in settings or settings["compose"].stride == 16)


@pytest.mark.parametrize("wrong, told", [(dict(rates=()), "rates: is empty"), (dict(rates=(.1, 0.)), "rates: 0"), (dict(budgets=()), "budgets: is empty")])
def test_settings_of_a_search_that_cannot_be_made(wrong, told):
    with pytest.raises(ValueError, match=told): ClaimsConfig(**{**TINY, **wrong})


@pytest.mark.parametrize("row", ["label_budget", "extractor_probe", "densecl_start_probe", "densecl_start_drives", "comparison"])
def test_more_labels_than_there_are_is_told_before_anything_is_trained(bench, tmp_path, row, monkeypatch):
    monkeypatch.setattr(claims, "pretrain", lambda *a, **k: pytest.fail("training began"))
    few = Bench(dataclasses.replace(bench.config, budgets=(99,), start="package"), tmp_path, **quiet)
    with pytest.raises(ValueError, match=r"budgets: \(99,\) are all more than the 6 images"): ROWS[row].work(few)
