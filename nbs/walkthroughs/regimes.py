# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: python3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Where pretraining helps
# > A map: gain over random weights as one dial turns, measured, with the places where there is none
#
# All four papers report better segmentation after pretraining. On the samples of this kit every method is a *worse* start for fine-tuning than random weights. Both are true, of different worlds. This page draws the map between them. Every number is read from a file, and the command that makes it is printed above its figure. (The first three sweeps were put together from stored points; `pixcl demo --seeds 0 1 2` has since made DenseCL and random weights of the headline again, to the same bits with every seed.) How a point is made is the lesson [regimes](../9_experiments/98_regimes.ipynb).
#
# Every arm has the same labelled scenes, head, crops, steps and seeds. A *gain* is the score after pretraining minus the score from random weights, seed by seed; bars are the 95 % interval of its mean over three seeds. `test` was read once, after the recipe had been chosen on `val` among the few that the end of this page names.

# %%
import itertools
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from pixcl_nb.experiments.claims import paired_difference
from pixcl_nb.experiments.regimes import gains, STARTS, SWEEPS

made = json.loads(Path("results/regimes.json").read_text())
print("made:", ", ".join(made))
print("written and not run here:", ", ".join(name for name in SWEEPS if name not in made))
COLOUR = {
    "densecl": "#1f78b4", "auxiliary": "#33a02c", "moco": "#e31a1c", "label": "#6a3d9a", "cp2": "#ff7f00"}
SHORT = {"densecl": "DenseCL", "auxiliary": "auxiliary contrast", "moco": "MoCo v2", "cp2": "CP2"}

def rows_of(sweep, protocol="finetune"):
    "The gains of a sweep."
    return gains(made[sweep]["points"], protocol)

PROTOCOLS = {"probe": "frozen linear probe", "finetune": "after fine-tuning"}

def gains_of(sweep, *fields):
    "Protocol → what these fields of an arm's record say → its paired difference to random weights."
    print(made[sweep]["command"])
    return {protocol: {tuple(row["regime"][name] for name in fields): row["difference"]
                       for row in rows_of(sweep, protocol)} for protocol in PROTOCOLS}

def panels(found, names, colour):
    "Gains side by side, one place for each of `names`: 95 % intervals, and the seeds as dots."
    figure, axes = plt.subplots(1, 2, figsize=(8.5, 2.6), layout="constrained")
    for axis, (protocol, title) in zip(axes, PROTOCOLS.items()):
        for place, (key, name) in enumerate(names.items()):
            one = found[protocol][key]
            mean, low, high = (100 * one[part] for part in ("mean", "low", "high"))
            axis.errorbar(place, mean, high - mean, color=colour, marker="o", capsize=3)
            axis.plot([place] * len(one["each"]), 100 * np.array(one["each"]), "k.", markersize=4)
            print(f"{title:20s} {' '.join(name.split()):28s} {mean:+.1f} ({low:+.1f} … {high:+.1f})")
        axis.axhline(0, color="k", linewidth=.8)
        axis.set_xticks(range(len(names)), names.values(), fontsize=8)
        axis.set_title(title, fontsize=9)
        axis.margins(x=.15)
    axes[0].set_ylabel("gain, points")

def against(sweep, protocol, one, other):
    "Two pretrained arms of a sweep, seed by seed."
    scores = {row["regime"]["method"]: row["scores"] for row in rows_of(sweep, protocol)}
    return paired_difference(scores[one], scores[other])

# %% [markdown]
# ## A setting where it helps
#
# The *natural* world: colour tells four classes in five, things carry parts, context matters (the lesson [worlds](../1_images/18_worlds.ipynb) shows it). 2,400 unlabelled scenes to pretrain on, 20 labelled ones to fine-tune on, 120 to be scored. Every arm is fine-tuned for 300 steps of 8 crops at 3e-3, with colour changes of the crops.

# %%
print(made["headline"]["command"])
rows = {protocol: rows_of("headline", protocol) for protocol in ("probe", "finetune")}
figure, axes = plt.subplots(1, 2, figsize=(8.5, 2.8), layout="constrained", sharey=True)
for axis, (protocol, found) in zip(axes, rows.items()):
    bars = {"random weights": ("#888888", found[0]["random"])}
    for row in found: bars[SHORT[row["regime"]["method"]]] = COLOUR[row["regime"]["method"]], row["scores"]
    for place, (colour, scores) in enumerate(bars.values()):
        axis.bar(place, 100 * np.mean(scores), .6, color=colour)
        axis.plot([place] * len(scores), 100 * np.array(scores), "k.", markersize=4)
    axis.set_xticks(range(len(bars)), bars, fontsize=8)
    axis.set_title({"probe": "frozen linear probe", "finetune": "after fine-tuning"}[protocol], fontsize=9)
axes[0].set_ylabel("mIoU on test, %")
difference = {
    (protocol, row["regime"]["method"]): row["difference"] for protocol in rows for row in rows[protocol]}
for (protocol, method), found in difference.items():
    print(f"{protocol:9s} {SHORT[method]:18s} gain {100 * found['mean']:+.1f}, "
          f"95 % interval {100 * found['low']:+.1f} … {100 * found['high']:+.1f}, each "
          + " ".join(f"{100 * each:+.1f}" for each in found["each"]))
assert difference["finetune", "densecl"]["mean"] > .05 and difference["finetune", "densecl"]["low"] > 0
assert difference["probe", "densecl"]["low"] > .05
assert difference["finetune", "auxiliary"]["mean"] > .05 and difference["finetune", "auxiliary"]["low"] > 0
assert difference["probe", "auxiliary"]["mean"] > difference["probe", "densecl"]["mean"] > .1
assert min(min(found["each"]) for found in difference.values()) > .04
none = rows["finetune"][0]["random"]
assert max(none) - min(none) > difference["finetune", "densecl"]["mean"]

# %% [markdown]
# Both methods without labels end above random weights, after fine-tuning too, with every seed, and both intervals lie above zero. Under the frozen probe the gain is about twice as large. Auxiliary contrast gains more than DenseCL. Its ids are 24 clusters of nothing but the mean colour and the place of a cell, found without a label, and half of its views are grey. So the network must tell from texture and outline what colour would have told; in a world where colour goes with class, that is a teacher for nothing. (A likely reason; the control, the same clusters with coloured views, was not run.)
#
# A caution about the interval: it holds three seeds, and a seed decides which 20 scenes are labelled. Random weights differ by eight points from one choice to another (the dots), more than they differ from DenseCL; only the paired differences tell the two apart.

# %% [markdown]
# ## Fewer labels, and more
#
# The same starts, fine-tuned on 10 and on 40 labelled scenes.

# %%
for name in ("fewer labels", "more labels"): print(made[name]["command"])
by_labels, counts = {}, (10, 20, 40)
for name in ("fewer labels", "headline", "more labels"):
    for row in rows_of(name): by_labels[row["regime"]["method"], row["regime"]["labels"]] = row
figure, axis = plt.subplots(figsize=(5, 2.6), layout="constrained")
shown = "densecl", "auxiliary"
for shift, method in enumerate(shown):
    found = [by_labels[method, count]["difference"] for count in counts]
    mean = 100 * np.array([one["mean"] for one in found])
    reach = 100 * np.array([one["high"] for one in found]) - mean
    axis.errorbar(np.arange(3) + .06 * shift, mean, reach, color=COLOUR[method], marker="o", capsize=3,
                  label=SHORT[method])
    for place, one in enumerate(found):
        axis.plot([place + .06 * shift] * 3, 100 * np.array(one["each"]), ".", color=COLOUR[method], alpha=.5)
axis.axhline(0, color="k", linewidth=.8)
axis.set_xticks(range(3), counts)
axis.set(xlabel="labelled scenes", ylabel="gain after fine-tuning, points", xlim=(-.3, 2.4))
axis.legend(frameon=False, fontsize=8)
for (method, count), row in by_labels.items():
    one = row["difference"]
    before, after = 100 * np.mean(row["random"]), 100 * np.mean(row["scores"])
    print(f"{count} labels, {SHORT[method]:18s} {before:.1f} → {after:.1f}: "
          f"{100 * one['mean']:+.1f} ({100 * one['low']:+.1f} … {100 * one['high']:+.1f})")
auxiliary, densecl = (by_labels[method, 40]["difference"] for method in ("auxiliary", "densecl"))
assert auxiliary["low"] > .05 and min(densecl["each"]) > 0 > densecl["low"]
assert densecl["mean"] > .04
assert all(by_labels[method, 10]["difference"]["mean"] < by_labels[method, 20]["difference"]["mean"]
           for method in shown)

# %% [markdown]
# With 40 labels auxiliary contrast keeps its lead, with an interval far above zero. DenseCL's mean gain is nearly what it was and all three seeds are above zero, but one of them hardly, so its interval now includes zero: three seeds do not settle it. With 10 labels both gain less than with 20; why was not taken apart. Where the lead ends with more labels was not measured.

# %% [markdown]
# ## The same question on the samples
#
# The *adversarial* world: each scene and each thing has colours of its own, and colour names no class. These runs are those of [the claims](claims.ipynb): all methods, 300 steps on 240 scenes, gentle colour changes of the views, fine-tuned on 20, 60 and 240 labelled scenes. The dial is the number of labels.

# %%
def claim(name, data):
    "A row of the committed claims."
    rows = json.loads(Path(f"results/claims_{data}.json").read_text())["rows"]
    return next(row for row in rows if row["row"] == name)

compared = claim("comparison", "samples")
print(compared["command"])
budgets, others = (20, 60, 240), ("moco", "densecl", "cp2", "auxiliary")
harm = {name: [paired_difference(compared["table"][f"finetune@{count}"][name],
                                 compared["table"][f"finetune@{count}"]["random"]) for count in budgets]
        for name in others}
figure, axis = plt.subplots(figsize=(6, 2.8), layout="constrained")
for shift, (name, found) in enumerate(harm.items()):
    places, mean = np.arange(len(budgets)) + .08 * (shift - 1.5), np.array([one["mean"] for one in found])
    reach = np.array([one["high"] - one["mean"] for one in found])
    axis.errorbar(places, 100 * mean, 100 * reach, color=COLOUR[name], marker="o", capsize=3,
                  label=SHORT[name])
axis.axhline(0, color="k", linewidth=.8)
axis.set_xticks(range(len(budgets)), budgets)
axis.set(xlabel="labelled scenes", ylabel="gain after fine-tuning, points")
axis.legend(frameon=False, fontsize=8, ncols=4)
means = {SHORT[name]: [round(100 * one["mean"], 1) for one in found] for name, found in harm.items()}
print(means)
assert all(value < 0 for values in means.values() for value in values)
assert harm["moco"][0]["high"] < 0 and harm["auxiliary"][0]["high"] < 0

# %% [markdown]
# Every mean is below zero, and more labels do not mend it. For MoCo and auxiliary contrast at 20 labels the whole interval is. The cause is taken apart in [the shortcut](shortcut.ipynb): gentle views leave colour, colour tells images apart, the first layer turns to plain colour, and here colour is of no use.

# %%
natural = next(row for row in rows["finetune"] if row["regime"]["method"] == "densecl")
twenty = harm["densecl"][0]
print(f"DenseCL after fine-tuning on 20 scenes: samples {100 * twenty['mean']:+.1f}, "
      f"natural world {100 * natural['difference']['mean']:+.1f}")
assert twenty["mean"] < 0 < natural["difference"]["mean"]

# %% [markdown]
# The sign turns between the two. Not one dial alone was moved: world, scenes (240 and 2,400), views, positives and steps differ. The next section moves two of them alone.
#
# ## Two dials: the world, and how far the views change colour
#
# MoCo v2, 300 steps on 240 scenes, fine-tuned on 40. Only the world and the colour changes of the views move. The shortcut would say: in the samples gentle views harm and strong ones do not, and in the natural world there is little harm.

# %%
found = gains_of("views", "world", "views")
places = list(itertools.product(("adversarial", "natural"), ("gentle", "strong")))
panels(found, {(world, views): f"{world},\n{views} views" for world, views in places}, COLOUR["moco"])
colour = {(row["regime"]["world"], row["regime"]["views"]): [] for row in rows_of("views")}
for point in made["views"]["points"]:
    if point["regime"]["method"]:
        colour[point["regime"]["world"], point["regime"]["views"]].append(point["scores"]["plain_colour"])
print("plain colour in the first layer:", {" ".join(key): round(float(np.mean(each)), 2) for key, each in colour.items()})
tuned, probed = ({key: found[protocol][key] for key in places} for protocol in ("finetune", "probe"))
assert all(max(one["each"]) < 0 for one in tuned.values())
for world in ("adversarial", "natural"):
    assert np.mean(colour[world, "gentle"]) > np.mean(colour[world, "strong"]) + .2
    assert probed[world, "gentle"]["mean"] > probed[world, "strong"]["mean"]
    assert abs(tuned[world, "gentle"]["mean"] - tuned[world, "strong"]["mean"]) < .03
assert probed["natural", "gentle"]["low"] > 0 > max(probed["natural", "strong"]["each"])

# %% [markdown]
# Half of it holds. Strong views halve the plain colour of the first layer, in both worlds. Under the frozen probe the world decides what that is worth: where colour tells class, gentle views gain and strong ones, which teach the network not to see it, fall below random weights with every seed. After fine-tuning no such thing is seen: all four are below random weights with every seed, the natural world too, and the views hardly matter. So neither the world nor the views alone make a start that is worse than none into a better one; with 240 scenes, 300 steps and one vector an image it stays worse. (In [the shortcut](shortcut.ipynb) MoCo's first layer was the harm; that was one seed, gentle views, and no colour changes while fine-tuning. Here every arm has them.)
#
# ## Label contrast: more labels, more gain?
#
# The paper says that contrast before cross-entropy helps most where labels are few. On street scenes (CamVid), from 8 to 367 labelled frames:

# %%
budget = claim("label_budget", "camvid")
print(budget["command"])
frames = [8, 18, 37, 73, 183, 367]
each = {count: paired_difference(budget["values"][f"contrast, {count} labels"],
                                 budget["values"][f"scratch, {count} labels"]) for count in frames}
figure, axis = plt.subplots(figsize=(6, 2.6), layout="constrained")
mean = np.array([each[count]["mean"] for count in frames])
reach = np.array([each[count]["high"] - each[count]["mean"] for count in frames])
axis.errorbar(frames, 100 * mean, 100 * reach, color=COLOUR["label"], marker="o", capsize=3)
axis.axhline(0, color="k", linewidth=.8)
axis.set(xscale="log", xlabel="labelled frames", ylabel="gain, points")
axis.set_xticks(frames, frames)
axis.minorticks_off()
print({count: round(100 * each[count]["mean"], 1) for count in frames})
assert each[8]["mean"] < 0 < each[367]["mean"]

# %% [markdown]
# Here it is the other way round: below zero with 8 frames, above with 367. The contrast sees the same few frames that fine-tuning sees, so with few of them it has nothing to add; the gain that shrinks as labels grow was not found at this scale.
#
# ## Which pixels are positives
#
# DenseCL with four kinds of positives, under the frozen probe on the samples. The order is the clearest effect of all: where the partner is known to be right, more is learned.

# %%
kinds = claim("densecl_probe", "samples")
print(kinds["command"])
titles = {"random": "random weights", "moco": "none (MoCo v2)", "densecl": "by feature",
          "densecl-mutual": "mutual", "densecl-geometric": "geometric"}
figure, axis = plt.subplots(figsize=(6, 2.3), layout="constrained")
for place, name in enumerate(titles):
    values = 100 * np.array(kinds["values"][name])
    axis.bar(place, values.mean(), .6, color="#1f78b4" if "densecl" in name else "#888888")
    axis.plot([place] * len(values), values, "k.", markersize=4)
axis.set_xticks(range(len(titles)), titles.values(), fontsize=8)
axis.set_ylabel("probe, mIoU %")
order = [np.mean(kinds["values"][name]) for name in titles]
print({title: round(float(100 * value), 1) for title, value in zip(titles.values(), order)})
assert order == sorted(order)

# %% [markdown]
# Each step to the right is higher: random weights, MoCo, matches by feature, mutual matches, matches from geometry. It is why the setting above uses geometric positives.
#
# ## What is written and was not run
#
# The sweeps below are lists of points with their command; they were not run for want of computing time, so nothing is drawn from them. `python -m pixcl_nb.experiments.regimes regimes.json NAME` makes one; it may be killed and goes on where it was.

# %%
unfinished = {name: len(set(points)) for name, points in SWEEPS.items() if name not in made}
for name, points in unfinished.items(): print(f"{name:9s} {points:3d} points")

# %% [markdown]
# How the setting at the top was found, on `val` with seed 0, one run a trial, so pointers and no results: views that show textures at the size at which they are segmented (`scale=(.2, .6)` of 128 pixels on 64), negatives from every matched cell in place of one vector an image, many small steps of AdamW in place of few of SGD, all raised the probe. Colour changes while fine-tuning raised random weights more than the pretrained starts: a part of what pretraining gives is that light and hue do not matter, and that can be had from crops as well. They are therefore in every arm. Training the head alone first (`head_first`) gave nothing. Of the full search that the sweep `recipes` writes down, only these few points were run.
#
# ## Summary
#
# - "Does pretraining help?" is a question about a world, its scenes, its labels and its recipe; the answer can have either sign.
# - In the natural world, with 2,400 scenes and 20 labels, two methods without labels are the better start. On the samples, with 240 scenes and gentle views, every method is a worse one.
# - The baseline deserves the same recipe: colour changes while fine-tuning are in every arm.
# - What was not measured is named, with its command.
#
# ### Questions
# 1. Why are gains taken seed by seed, and not between means?
#
# <details><summary>Answer</summary>
#
# A seed decides which scenes are labelled, and some twenty scenes are better teachers than others. Both arms of a seed have the same ones, so that part of the spread cancels in the difference.
#
# </details>
#
# 2. The frozen probe gains more than the fine-tune. Why is that to be expected?
#
# <details><summary>Answer</summary>
#
# The probe can only use what is there. Fine-tuning can make what is missing from the labels, and the more it makes, the less the start matters.
#
# </details>
#
# 3. A friend reports +5 points "from pretraining", with a baseline that had no augmentation while fine-tuning. What would you ask for?
#
# <details><summary>Answer</summary>
#
# The same augmentation for the baseline, and the same search of learning rates. Views teach invariance before fine-tuning; augmentation teaches it during. What remains after both have it is what pretraining found beyond.
#
# </details>
#
# ### Exercise
# 1. Which of the two starts above would you send to a friend who keeps the encoder frozen, and which to one who fine-tunes? Let the numbers answer.
#
# The answer:

# %%
best = {protocol: max(found, key=lambda row: row["difference"]["mean"]) for protocol, found in rows.items()}
for protocol, row in best.items():
    print(f"{protocol}: {STARTS[row['regime']['method']][0]}, {100 * row['difference']['mean']:+.1f}")
assert best["probe"]["difference"]["mean"] > best["finetune"]["difference"]["mean"]
