"""Regimes: a point is made once, random weights count once for all arms, a gain is paired by seed."""
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from pixcl_nb.evaluation.probe import linear_probe
from pixcl_nb.experiments import regimes
from pixcl_nb.experiments.regimes import depends_on, gains, grid, LAMBDAS, PARTNERS, Regime, regime_point, run_sweep, LABEL_FORMS, start_record, STARTS, SWEEPS, view_of, views_told
from pixcl_nb.training import checkpoints
from pixcl_nb.images.data import label_subset, load_data
from pixcl_nb.images.worlds import world_folder
from pixcl_nb.networks.weights import sample_encoder

SMALL = Regime("densecl", "adversarial", scenes=32, steps=2, labels=4, tune_steps=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIXCL_NB_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setitem(regimes.FOLDERS, "adversarial", world_folder("adversarial", splits=dict(train=12, val=2, unlabelled=32), jobs=1, progress=False))
        patch.setattr(regimes, "SCENES", {})
        yield tmp_path_factory.mktemp("regimes")


def test_a_point_is_made_once_and_again_gives_the_same(folder, tmp_path):
    told = []
    first = regime_point(SMALL, folder, told.append)
    assert regime_point(SMALL, folder, told.append) == first and len(told) == 1
    assert regime_point(SMALL, tmp_path, told.append) == first and len(told) == 2          # another folder: computed anew, the same bits


def test_after_an_update_of_the_library_the_folder_is_not_in_the_way(folder, monkeypatch):
    "What `make demo` meets after `git pull`: nothing old is taken for new, and nothing is refused; back at the old code all is there."
    told = []
    first = regime_point(SMALL, folder, told.append)
    told.clear()
    with monkeypatch.context() as patch:
        for module in (regimes, checkpoints): patch.setattr(module, "library_code", lambda: "another")
        assert regime_point(SMALL, folder, told.append) == first and len(told) == 1
    assert regime_point(SMALL, folder, told.append) == first and len(told) == 1


def test_another_number_of_labels_trains_no_second_start(folder):
    before = len(list((folder/"starts").glob("*")))
    regime_point(replace(SMALL, labels=6), folder, lambda words: None)
    assert len(list((folder/"starts").glob("*"))) == max(1, before)


@pytest.mark.parametrize("name, value", [("labels", 5), ("seed", 1), ("tune_colour", .4), ("world", "natural"), ("split", "test"), ("steps", 3), ("views", "strong")])
def test_what_a_point_depends_on_changes_its_key(name, value):
    assert depends_on(replace(SMALL, **{name: value})) != depends_on(SMALL)


def test_random_weights_are_one_arm_for_all():
    none = replace(SMALL, method=None)
    assert depends_on(none) == depends_on(replace(none, steps=7, scenes=9, views="strong"))
    assert depends_on(none) != depends_on(replace(none, seed=1))


def test_only_a_method_that_sees_labels_depends_on_them():
    for method in STARTS:
        same = start_record(replace(SMALL, method=method)) == start_record(replace(SMALL, method=method, labels=5))
        assert same == (STARTS[method][1] != "label_contrast")


@pytest.mark.parametrize("names, setting", [(LAMBDAS, "loss_lambda"), (PARTNERS, "positives"), (LABEL_FORMS, "form")])
def test_arms_of_a_sweep_differ_in_one_setting_only(names, setting):
    others = [({name: value for name, value in STARTS[key][2].items() if name != setting}, *STARTS[key][1::2]) for key in names]
    assert [STARTS[key][2][setting] for key in names] == list(names.values()) and all(one == others[0] for one in others)
    assert len({STARTS[key][0] for key in names}) == len(names)                # legends tell them apart


def test_cp2_composes_the_views_of_its_regime():
    for method in ("cp2", "cp2 without"):
        told = views_told(Regime(method, views="strong"), STARTS[method][2])
        assert told["compose"].view == view_of(Regime(views="strong")) and told["compose"].size == 64 and "view" not in told
    assert STARTS["cp2"][2] | dict(dense_weight=0.) == STARTS["cp2 without"][2]


def test_an_arm_without_dense_weight_is_trained_by_the_other_term(folder):
    "Points of both arms of CP2 are made, and differ: the dense weight reaches the method."
    ours = [regime_point(replace(SMALL, method=method), folder, lambda words: None) for method in ("cp2", "cp2 without")]
    assert ours[0]["probe"] != ours[1]["probe"] or ours[0]["plain_colour"] != ours[1]["plain_colour"]


def test_a_gain_is_taken_seed_by_seed():
    regime = Regime(labels=20)
    scores = {0: (.5, .55), 1: (.7, .74), 2: (.3, .36)}                        # seeds differ far more than arms
    points = [dict(regime=asdict(replace(regime, method=method, seed=seed)), scores=dict(finetune=value))
              for seed, pair in scores.items() for method, value in zip((None, "moco"), pair)]
    found, = gains(points[::-1])                                               # in any order
    assert found["difference"]["mean"] == pytest.approx(.05) and found["difference"]["low"] > 0
    other = dict(regime=asdict(replace(regime, labels=40, method="moco")), scores=dict(finetune=1.))
    with pytest.raises(ValueError, match="points: give random weights"): gains([*points, other])                      # nothing to hold it against


def test_every_arm_of_every_sweep_has_its_baseline():
    for name, points in SWEEPS.items():
        invented = [dict(regime=asdict(one), scores=dict(finetune=.5)) for one in points]
        assert gains(invented), name
        assert all(one.split == "val" for one in points) == name.endswith("recipes")


def test_a_killed_sweep_goes_on(folder):
    points = grid(method=[None, "densecl"], world=["adversarial"], scenes=[32], steps=[2], labels=[4], tune_steps=[2])
    told = []
    done = run_sweep(points, folder, told.append)
    assert [json.dumps(one["scores"]) for one in run_sweep(points, folder, told.append)] == [json.dumps(one["scores"]) for one in done]
    assert len(told) == 1                                                      # DenseCL's point was there


@pytest.mark.parametrize("wrong, message", [(dict(method="mocco"), "method: unknown name 'mocco'"), (dict(views="loud"), "views: unknown"), (dict(steps=0), "steps: 0"), (dict(labels=241), "labels: 241")])
def test_what_means_nothing_is_named(wrong, message):
    with pytest.raises(ValueError, match=message): Regime(**{"method": "moco", **wrong})


MADE = json.loads((Path(__file__).parent.parent / "nbs" / "walkthroughs" / "results" / "regimes.json").read_text())


@pytest.mark.long
@pytest.mark.parametrize("name, sweep, labels", [("moco", "moco and label", 20), ("densecl", "headline", 20), ("auxiliary", "headline", 20), ("cp2", "cp2", 20), ("label", "labels", 160)])
def test_a_shipped_encoder_in_one_byte_a_weight_probes_as_the_start_that_was_measured(name, sweep, labels):
    "Less than .2 points apart: the same labelled scenes, the same test, the committed figure of seed 0."
    root = world_folder("natural", splits=dict(train=240, test=120), progress=False)
    train, test = (load_data("samples", root=root, split=split).cache() for split in ("train", "test"))
    probed = linear_probe(sample_encoder(name, "natural"), label_subset(train, count=labels, seed=0), test, seed=0, pixels=10_000).miou
    measured, = [point["scores"]["probe"] for point in MADE[sweep]["points"] if (point["regime"]["method"], point["regime"]["seed"], point["regime"]["labels"]) == (name, 0, labels)]
    assert abs(probed - measured) < .002


@pytest.mark.slow
@pytest.mark.parametrize("sweep, fields", [("more labels", dict(method=None, seed=1)), ("views", dict(world="adversarial", method="moco", views="gentle", seed=0))])
def test_a_committed_point_made_again_has_the_same_bits(sweep, fields, tmp_path):
    "The point's own settings, a folder with nothing in it: pretraining, fine-tuning and probe give the committed figures to the last digit."
    if MADE[sweep]["machine"]["torch"] != torch.__version__: pytest.skip(f"made with torch {MADE[sweep]['machine']['torch']}")
    committed = next(point for point in MADE[sweep]["points"] if all(point["regime"][name] == value for name, value in fields.items()))
    before = torch.get_num_threads()
    torch.set_num_threads(MADE[sweep]["machine"]["threads"])
    try: again = regime_point(Regime(**committed["regime"]), tmp_path, lambda words: None)
    finally: torch.set_num_threads(before)
    assert again == committed["scores"]
