"""Every method keeps one contract; MoCo v2, DenseCL and CP2 are equal to the authors' released losses."""
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

import shares
from pixcl_nb.images.compositor import CopyPasteConfig
from pixcl_nb.networks.encoders import create_encoder
from pixcl_nb.methods.cp2 import foreground_cosines
from pixcl_nb.positives.matching import match_features, match_accuracy
from pixcl_nb.methods.contract import METHODS, create_method
from pixcl_nb.methods.cp2 import CP2, CP2Config
from pixcl_nb.methods.densecl import DenseCL, DenseCLConfig
from pixcl_nb.networks.momentum import KeyQueue
from pixcl_nb.processes import share_of_mean
from pixcl_nb.training.loop import pretrain, train_step
from pixcl_nb.training.settings import TrainConfig
from pixcl_nb.images.views import ViewConfig

VIEW = ViewConfig(size=64)
SMALL = {"moco": dict(view=VIEW, queue_size=32), "densecl": dict(view=VIEW, queue_size=32),
         "cp2": dict(compose=CopyPasteConfig(size=64, stride=8, view=VIEW), decoder="fcn", decoder_width=32, queue_size=32),
         "label_contrast": dict(view=VIEW), "auxiliary_contrast": dict(view=VIEW, samples=16)}
golden = lambda name: {key: torch.from_numpy(value) for key, value in np.load(Path(__file__).parent / "golden" / f"{name}.npz").items()}
images = lambda n=6, size=72: torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
masks = lambda n=6, size=72: torch.randint(0, 3, (n, 3, 3), generator=torch.Generator().manual_seed(1)).repeat_interleave(size // 3, 1).repeat_interleave(size // 3, 2)
generator = lambda seed=0: torch.Generator().manual_seed(seed)


class Pictures(torch.utils.data.Dataset):
    extents = None
    num_classes = 3
    def __init__(self, n=24): self.images, self.masks = images(n), masks(n)
    def __len__(self): return len(self.images)
    def __getitem__(self, i): return self.images[i], self.masks[i]
    def mask(self, i): return self.masks[i]


def bare(kind, config, **queues):
    "A method without networks: its terms on given maps and queues."
    method = kind.__new__(kind)
    nn.Module.__init__(method)
    method.config = config
    for name, rows in queues.items():
        queue = KeyQueue(*rows.shape)
        queue.rows.copy_(rows)
        setattr(method, name, queue)
    return method


def test_cp2_equals_the_released_code():
    g = golden("cp2")
    method, query = bare(CP2, CP2Config(), queue=g["queue"].T), g["query_map"].requires_grad_()
    terms = method.terms(query, g["key_map"], g["query_mask"], g["key_mask"])
    terms["loss"].backward()
    for ours, theirs in (("loss", "loss"), ("instance", "loss_instance"), ("dense", "loss_dense")): torch.testing.assert_close(terms[ours].detach(), g[theirs], rtol=1e-5, atol=0)
    torch.testing.assert_close(query.grad, g["grad_query_map"], rtol=0, atol=1e-6)
    torch.testing.assert_close(method.pending.T, g["enqueued"], rtol=0, atol=1e-6)


def test_densecl_equals_the_released_code():
    g = golden("densecl")
    method = bare(DenseCL, DenseCLConfig(), queue=g["queue_global"].T, dense_queue=g["queue_dense"].T)
    method.lambda_now = float(g["lam"])
    query_global, query_dense = g["query_global"].requires_grad_(), g["query_dense"].requires_grad_()
    terms = method.terms(query_global, g["key_global"], query_dense, g["key_dense"], match_features(g["query_backbone"], g["key_backbone"]))
    terms["loss"].backward()
    torch.testing.assert_close(terms["loss"].detach(), g["loss"], rtol=1e-5, atol=0)
    torch.testing.assert_close(terms["global"].detach() / 2, g["loss_global_weighted"], rtol=1e-5, atol=0)
    torch.testing.assert_close(terms["dense"].detach() / 2, g["loss_dense_weighted"], rtol=1e-5, atol=0)
    for ours, theirs in ((query_global.grad, "grad_query_global"), (query_dense.grad, "grad_query_dense"), (method.pending.T, "enqueued_global"), (method.pending_dense.T, "enqueued_dense")):
        torch.testing.assert_close(ours, g[theirs], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_contract(name):
    method = create_method(name, seed=0, **SMALL[name])
    before = {key: value.clone() for key, value in method.state_dict().items() if key.startswith("queue")}
    terms = method.loss(images(), masks(), generator=generator())
    assert terms["loss"].ndim == 0 and torch.isfinite(terms["loss"])
    assert all(torch.equal(method.state_dict()[key], value) for key, value in before.items())          # looking at a loss changes no queue
    terms["loss"].backward()
    assert all(p.grad is not None for p in method.branch.parameters())
    method.after_step()
    if not method.uses_labels:
        assert all(p.grad is None for p in method.slow.parameters())
        assert int(method.queue.filled) == 6
    assert not any(key.startswith("encoder.") for key in method.state_dict())                           # a weight is stored once
    assert (method.head is not None) == (name == "cp2")


@pytest.mark.parametrize("name", METHODS)
def test_same_generator_same_loss(name):
    losses = [create_method(name, seed=0, **SMALL[name]).loss(images(), masks(), generator=generator(s))["loss"].item() for s in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("name", METHODS)
def test_resumed_run_has_the_same_bits(name, tmp_path):
    config = TrainConfig(steps=4, batch_size=6, lr=.03, precision="bf16", channels_last=True, device="cpu", checkpoint_every=2, progress=False)
    whole, resumed = (create_method(name, seed=0, **SMALL[name]) for _ in range(2))
    pretrain(whole, Pictures(), config)
    pretrain(create_method(name, seed=0, **SMALL[name]), Pictures(), config, run_dir=tmp_path, on_step=lambda step, *_: "stop" if step == 1 else None)
    pretrain(resumed, Pictures(), config, run_dir=tmp_path)
    for key, value in whole.state_dict().items(): assert torch.equal(value, resumed.state_dict()[key]), key


def test_densecl_with_lambda_zero_is_moco():
    config = TrainConfig(steps=3, batch_size=6, lr=.03, device="cpu", progress=False)
    moco, densecl = create_method("moco", seed=0, **SMALL["moco"]), create_method("densecl", seed=0, loss_lambda=0, **SMALL["densecl"])
    assert pretrain(moco, Pictures(), config)["loss"] == pretrain(densecl, Pictures(), config)["loss"]
    assert all(torch.equal(a, b) for a, b in zip(moco.encoder.state_dict().values(), densecl.encoder.state_dict().values()))


def test_lambda_warms_up_and_survives_a_checkpoint():
    method = create_method("densecl", seed=0, lambda_warmup_steps=2, **SMALL["densecl"])
    seen = []
    for step in range(4):
        seen.append(method.lambda_now)
        method.loss(images(), generator=generator(step))
        method.after_step()
    assert seen == [0, 0, .5, .5]
    again = create_method("densecl", seed=0, lambda_warmup_steps=2, **SMALL["densecl"])
    again.load_state_dict(method.state_dict())
    assert again.lambda_now == .5


@pytest.mark.parametrize("positives", ["feature", "geometric", "mutual", "index"])
@pytest.mark.parametrize("negatives", ["pooled", "matched"])
def test_densecl_choices(positives, negatives):
    method = create_method("densecl", seed=0, positives=positives, negatives=negatives, **SMALL["densecl"])
    terms = method.loss(images(), generator=generator())
    terms["loss"].backward()
    if positives == "geometric": assert terms["agreement"] == 1
    method.after_step()
    if (positives, negatives) == ("feature", "matched"): assert int(method.dense_queue.filled) == 32    # 6 images × 64 cells, a queue of 32
    if negatives == "pooled": assert int(method.dense_queue.filled) == 6


@pytest.mark.parametrize("grid", [1, 4, 8])
def test_densecl_grid(grid):
    terms = create_method("densecl", seed=0, grid=grid, **SMALL["densecl"]).loss(images(), generator=generator())
    assert torch.isfinite(terms["loss"])


def test_densecl_grid_larger_than_the_map():
    with pytest.raises(ValueError, match="grid: 9 cells a side, but the encoder's map has 8×8"): create_method("densecl", grid=9, **SMALL["densecl"]).loss(images(), generator=generator())


def test_agreement_counts_neighbours():
    truth = torch.tensor([[0, 5, 10, -1]])
    assert match_accuracy(torch.tensor([[1, 5, 12, 0]]), truth, tolerance=1, grid=(4, 4), unmatched="left out") == pytest.approx(2 / 3)


def test_agreement_is_0_and_no_nan_where_no_cell_has_a_match(monkeypatch):
    import pixcl_nb.methods.densecl as densecl
    none = lambda kind, query_map, *_, **__: torch.full((len(query_map), query_map[0, 0].numel()), -1)
    monkeypatch.setattr(densecl, "choose_matches", none)
    terms = create_method("densecl", seed=0, **SMALL["densecl"]).loss(images(), generator=generator())
    assert terms["agreement"] == 0 and terms["agreement"].dtype == torch.float32 and terms["dense"] == 0


def test_background_cells_learn_only_with_the_released_axis():
    g = golden("cp2")
    for axis, learns in (("query", True), ("key", False)):
        query = g["query_map"].clone().requires_grad_()
        bare(CP2, CP2Config(softmax_over=axis), queue=g["queue"].T).terms(query, g["key_map"], g["query_mask"], g["key_mask"])["dense"].backward()
        assert bool(query.grad.transpose(0, 1)[:, ~g["query_mask"]].abs().max() > 1e-9) == learns


def test_foreground_cosines_equal_the_table_of_pairs():
    g = golden("cp2")
    found = foreground_cosines(g["query_map"], g["key_map"], g["query_mask"], g["key_mask"])
    q, k = (normalize(g[name], dim=1).flatten(2) for name in ("query_map", "key_map"))
    for value, flip in zip(found, (False, True)):
        means = [(q[n].T @ k[n])[g["query_mask"][n].flatten() ^ flip][:, g["key_mask"][n].flatten()].mean() for n in range(2)]
        assert value.item() == pytest.approx(float(sum(means) / 2), abs=1e-6)


def test_no_matches_at_all_gives_zero_and_zero_gradient():
    g = golden("densecl")
    method = bare(DenseCL, DenseCLConfig(negatives="matched"), queue=g["queue_global"].T, dense_queue=g["queue_dense"].T)
    method.lambda_now = 1.
    query_dense = g["query_dense"].requires_grad_()
    terms = method.terms(g["query_global"], g["key_global"], query_dense, g["key_dense"], torch.full((4, 49), -1))
    terms["loss"].backward()
    assert terms["loss"] == 0 and query_dense.grad.abs().max() == 0


@pytest.mark.parametrize("name", METHODS)
def test_other_backbones(name):
    encoder = create_encoder("resnet18", output_stride=16)
    settings = SMALL[name] if name != "cp2" else {**SMALL["cp2"], "compose": CopyPasteConfig(size=64, stride=16, view=VIEW)}
    terms = create_method(name, encoder, seed=0, **settings).loss(images(), masks(), generator=generator())
    terms["loss"].backward()
    assert torch.isfinite(terms["loss"])


@pytest.mark.slow
@pytest.mark.parametrize("name, stride", [("resnet50", 16), ("vit_small_patch16_224", 16)])
def test_cp2_at_the_papers_size(name, stride):
    method = create_method("cp2", create_encoder(name, output_stride=stride if "resnet" in name else None), seed=0, queue_size=64)
    terms = method.loss(images(2, 256), generator=generator())
    terms["loss"].backward()
    assert torch.isfinite(terms["loss"])


def test_padding_never_enters_a_view():
    padded = images(6)
    padded[:, :, 48:] = 0
    extents = torch.tensor([[48, 72]] * 6)
    plain = dict(view=ViewConfig(size=64, brightness=0, contrast=0, saturation=0, hue=0, grayscale=0, blur=0), queue_size=8)
    with_extents = create_method("moco", seed=0, **plain).loss(padded, generator=generator(), extents=extents)
    cut = create_method("moco", seed=0, **plain).loss(padded[:, :, :48].contiguous(), generator=generator())
    assert with_extents["loss"].item() == pytest.approx(cut["loss"].item(), abs=1e-5)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="name: unknown name 'cp3', did you mean 'cp2'"): create_method("cp3")
    with pytest.raises(ValueError, match="CP2 setting: unknown name 'dense_wait'"): create_method("cp2", dense_wait=1)
    with pytest.raises(ValueError, match="temperature: -1 is out of range"): create_method("moco", temperature=-1)
    with pytest.raises(ValueError, match="positives: unknown name 'geometry'"): create_method("densecl", positives="geometry")
    with pytest.raises(ValueError, match="compose: masks are guaranteed at stride 16"): create_method("cp2", compose=CopyPasteConfig())
    assert create_method("cp2", queue_size=4).config.compose.stride == 8
    with pytest.raises(TypeError, match="encoder: expected a name or a module"): create_method("moco", 3)
    with pytest.raises(ValueError, match="images"): create_method("moco", **SMALL["moco"]).loss(images().float(), generator=generator())
    with pytest.raises(ValueError, match="images: a batch of 1"): create_method("cp2", **SMALL["cp2"]).loss(images(1), generator=generator())


def test_settings_tell_what_a_run_was():
    method = create_method("cp2", seed=0, **SMALL["cp2"])
    assert method.settings["dense_weight"] == .2 and method.settings["compose"]["size"] == 64 and "TinyResNet" in method.settings["encoder"]
    assert dataclasses.asdict(method.config)["queue_size"] == 32


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_a_batch_equal_the_whole(seed, parts):
    "Every method, form and kind of positives, over masks with unequal counts: loss, gradient and keys of the queues. (Processes: test_distributed.)"
    whole, cut = shares.cases(seed), shares.cases(seed)
    for name in whole:
        for ours, theirs in zip(shares.step(cut[name], parts), shares.step(whole[name])): torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6, msg=lambda text: f"{name}: {text}")


@pytest.mark.parametrize("name, settings", [("moco", {}), ("densecl", {}), ("densecl", dict(positives="geometric")), ("densecl", dict(positives="mutual")), ("label_contrast", dict(form="supcon")), ("label_contrast", dict(form="paper_within")),
                                            ("label_contrast", {}), ("auxiliary_contrast", dict(samples=None)), ("auxiliary_contrast", dict(samples=None, form="paper_within"))])
def test_parts_of_real_images_equal_the_whole(name, settings):
    "From images to the gradient of every weight; nothing is drawn in the views, and batch normalisation is in evaluation mode, since it sees a part."
    plain = ViewConfig(size=32, scale=(1., 1.), ratio=(1., 1.), flip=0., jitter=0., grayscale=0., blur=0.)
    found = []
    for parts in (1, 2, 4):
        method = create_method(name, seed=0, **{**SMALL[name], "view": plain, **settings}).eval()
        labels = masks(4, 36)
        labels[0, :, :30], labels[1] = 255, 2
        terms = train_step(method.loss, torch.optim.SGD(method.branch.parameters(), 0.), images(4, 36), labels, None, generator(), "float32", parts, method)
        found.append((terms["loss"], torch.cat([p.grad.flatten() for p in method.branch.parameters()])))
    for loss, gradient in found[1:]:
        torch.testing.assert_close(loss, found[0][0], rtol=1e-5, atol=1e-6)
        assert (gradient - found[0][1]).norm() < 1e-5 * found[0][1].norm()


def test_a_batch_in_parts_is_heard_before_it_is_answered(monkeypatch):
    "Passes: one where counts are equal, two where they are not or rows are gathered; statistics and generators move once."
    calls = []
    for name, passes in (("densecl feature pooled", 1), ("densecl geometric pooled", 2), ("densecl, cells without a match against its hint", 2), ("label supcon", 2), ("label released_within", 1), ("auxiliary released_within", 2)):
        method = shares.cases(0)[name]
        loss = method.loss
        monkeypatch.setattr(type(method), "loss", lambda self, *a, **k: calls.append(torch.is_grad_enabled()) or loss(*a, **k))
        shares.step(method, 2)
        assert len(calls) == 2 * passes and all(calls[-2:]), name
        assert all(calls) == (passes == 1 or not method.couples_images), name         # what is only heard needs no gradient
        calls.clear()
    method, draws = create_method("label_contrast", seed=0, form="supcon", **SMALL["label_contrast"]), generator()
    train_step(method.loss, torch.optim.SGD(method.parameters(), 0.), images(4), masks(4), None, draws, "float32", 2, method)
    assert method.branch.projector.layers[1].num_batches_tracked == 4               # two parts, two views
    again = generator()
    for part in images(4).chunk(2): method.loss(part, masks(2), generator=again)
    assert torch.equal(draws.get_state(), again.get_state())


def test_parts_that_cannot_agree_are_named():
    class Moody(nn.Module):
        noted, couples_images = (), False
        def __init__(self): super().__init__(); self.weight, self.calls = nn.Parameter(torch.ones(())), 0
        def loss(self, images, masks=None, generator=None):
            self.calls += 1
            return {"loss": self.weight * share_of_mean(torch.tensor(self.calls))}
    class Uneven(Moody):
        def loss(self, images, masks=None, generator=None): return {"loss": self.weight * (share_of_mean(torch.tensor(1)) if images[0, 0, 0, 0] else 1.)}
    batch = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 3, 2, 2)
    for method, parts, message in ((Moody(), 2, "accumulate: the parts"), (Uneven(), 4, "accumulate: the parts of a batch did not ask the same"), (Moody(), 3, "accumulate: 4 images cannot be cut into 3 equal parts")):
        with pytest.raises((ValueError, RuntimeError), match=message): train_step(method.loss, torch.optim.SGD([method.weight], 0.), batch, None, None, None, "float32", parts, method)
    from pixcl_nb.processes import batch_place
    assert batch_place() == (0, 1)                                                  # an error leaves no batch open


def test_cp2_without_background_cells():
    method = create_method("cp2", seed=0, **SMALL["cp2"])
    maps, everywhere = torch.randn(2, 3, 128, 2, 2, generator=generator()), torch.ones(3, 2, 2, dtype=torch.bool)
    terms = method.terms(*maps, everywhere, everywhere)
    assert "fg_bg" not in terms and all(value.isfinite() for value in terms.values())
    some = everywhere.clone()
    some[1, 0, 0] = False
    assert method.terms(*maps, some, everywhere)["fg_bg"] == foreground_cosines(*(x[1:2] for x in maps), some[1:2], everywhere[1:2])[1]


@pytest.mark.parametrize("name", METHODS)
def test_parameters_stay_float32(name):
    method = create_method(name, seed=0, **SMALL[name])
    for change in (lambda: method.half(), lambda: method.bfloat16(), lambda: method.double(), lambda: method.to(torch.float16)):
        with pytest.raises(ValueError, match="parameters stay float32, where torch.*precision="): change()
    assert {p.dtype for p in method.to("cpu", memory_format=torch.channels_last).float().parameters()} == {torch.float32}
    for wrong in ("0.1", float("inf"), None):
        with pytest.raises((ValueError, TypeError), match="temperature: "): create_method(name, temperature=wrong)


def test_cp2_trains_with_labelled_objects(tmp_path):
    from pixcl_nb.images.data import load_data
    data = load_data("samples", split="val").subset(range(8))
    compose = CopyPasteConfig(size=64, stride=8, shape="object", background=(), view=ViewConfig(size=64))
    method = create_method("cp2", seed=0, compose=compose, decoder="fcn", decoder_width=32, queue_size=32)
    history = pretrain(method, data, TrainConfig(steps=2, batch_size=4, lr=.03, device="cpu", progress=False), run_dir=tmp_path)
    assert len(history) == 2 and all(torch.tensor(history["loss"]).isfinite())
    images, masks = (torch.stack([data[index][part] for index in range(4)]) for part in (0, 1))
    draw = lambda: torch.Generator().manual_seed(1)
    with pytest.raises(ValueError, match="masks: shape='object' pastes a labelled object"): method.loss(images, generator=draw())
    assert method.loss(images, masks, draw())["loss"] == method.loss(images, masks, draw())["loss"]
    rectangle = create_method("cp2", seed=0, compose=dataclasses.replace(compose, shape="rectangle"), decoder="fcn", decoder_width=32, queue_size=32)
    assert not rectangle.uses_labels and rectangle.loss(images, masks, draw())["loss"] == rectangle.loss(images, None, draw())["loss"]
    unlabelled = torch.full_like(masks, 255)
    with pytest.raises(ValueError, match="no labelled object"): method.loss(images, unlabelled, draw())
