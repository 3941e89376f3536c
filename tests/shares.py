"""Every method on fixed rows with unequal counts, behind the `loss` that a step calls: what parts of a batch and processes must agree on. Importable, so that child processes can use it too."""
import torch
from torch import nn
from torch.nn.functional import normalize

from pixcl_nb.losses.label_losses import FORMS
from pixcl_nb.methods.auxiliary_contrast import AuxiliaryContrast, AuxiliaryContrastConfig
from pixcl_nb.methods.cp2 import CP2, CP2Config
from pixcl_nb.methods.densecl import DenseCL, DenseCLConfig
from pixcl_nb.methods.label_contrast import LabelContrast, LabelContrastConfig
from pixcl_nb.losses.infonce import info_nce
from pixcl_nb.methods.moco import MoCo, MoCoConfig
from pixcl_nb.networks.momentum import KeyQueue
from pixcl_nb.processes import all_ranks, distributed_world
from pixcl_nb.training.loop import train_step

IMAGES, CELLS = 4, 12
generator = lambda seed=0: torch.Generator().manual_seed(seed)
rows = lambda f, w: normalize(f @ w, dim=2)
dense = lambda f, w: (f @ w).transpose(1, 2)


def fixed(kind, config, loss):
    "A method without networks: `loss(method, weight, which images, generator)` on fixed rows, behind the contract's `loss(images)`."
    class Fixed(kind):
        def loss(self, images, masks=None, generator=None, extents=None): return loss(self, self.weight, images[:, 0, 0, 0].long(), generator)
    method = Fixed.__new__(Fixed)
    nn.Module.__init__(method)
    method.config, method.lambda_now = config, .5
    for name in ("queue", "dense_queue"): setattr(method, name, KeyQueue(32, 5, generator(9)))
    method.weight = nn.Parameter(torch.randn(6, 5, generator=generator(3), dtype=torch.float64))
    return method


def moco(method, query, key):
    "MoCo's loss of two vectors an image, and the keys it leaves for the queue."
    method.pending = normalize(key, dim=1).detach()
    return {"loss": info_nce(normalize(query, dim=1), method.pending, method.queue.rows)}


def cases(seed):
    "name → method; the seed draws who is ignored, matched or foreground, never equally many in two images."
    g = generator(seed)
    x, x_hat = (torch.randn(IMAGES, CELLS, 6, generator=g, dtype=torch.float64) for _ in range(2))
    y, y_hat = (torch.randint(0, 3, (IMAGES, CELLS), generator=g) for _ in range(2))
    for image in range(IMAGES): y[image, :int(torch.randint(0, CELLS, (), generator=g))] = 255
    y[seed % IMAGES] = 255 if seed % 2 else y[seed % IMAGES].clamp(max=0)                        # no label at all, or one class only
    y_hat[(seed + 1) % IMAGES] = 7                                                              # nothing here has a positive in the other view
    some = torch.randint(0, CELLS, (IMAGES, CELLS), generator=g)
    for image in range(IMAGES): some[image, int(torch.randint(0, CELLS, (), generator=g)):] = -1
    some[seed % IMAGES] = -1
    mask = torch.rand(IMAGES, CELLS, generator=g) < .4
    mask[:, 3], mask[seed % IMAGES] = True, True                                                # no background in one image
    square = lambda f, w: dense(f, w).unflatten(2, (3, 4))
    label = lambda m, w, i, g: m.terms(rows(x[i], w), rows(x_hat[i], w), y[i], g)
    auxiliary = lambda m, w, i, g: m.terms(rows(x[i], w), rows(x_hat[i], w), y[i], y_hat[i], some[i], g)
    cells = lambda match: lambda m, w, i, g: m.terms(x[i].mean(1) @ w, (x_hat[i].mean(1) @ w).detach(), dense(x[i], w), dense(x_hat[i], w).detach(), match[i])
    made = {"moco": fixed(MoCo, MoCoConfig(), lambda m, w, i, g: moco(m, x[i].mean(1) @ w, x_hat[i].mean(1) @ w))}
    for form in FORMS:
        made[f"label {form}"] = fixed(LabelContrast, LabelContrastConfig(form=form), label)
        made[f"auxiliary {form}"] = fixed(AuxiliaryContrast, AuxiliaryContrastConfig(form=form), auxiliary)
    for positives in ("within", "across"): made[f"auxiliary supcon {positives}"] = fixed(AuxiliaryContrast, AuxiliaryContrastConfig(positives=positives, match_weight=0.), auxiliary)
    for positives, match in (("geometric", some), ("mutual", some.flip(0)), ("feature", some.clamp(min=0)), ("index", torch.arange(CELLS).expand(IMAGES, -1))):
        for negatives in ("pooled", "matched"): made[f"densecl {positives} {negatives}"] = fixed(DenseCL, DenseCLConfig(positives=positives, negatives=negatives), cells(match))
    made["densecl, cells without a match against its hint"] = fixed(DenseCL, DenseCLConfig(), cells(some))
    for axis in ("query", "key"):
        made[f"cp2 {axis}"] = fixed(CP2, CP2Config(softmax_over=axis), lambda m, w, i, g: m.terms(square(x[i], w), square(x_hat[i], w).detach(), mask[i].unflatten(1, (3, 4)), mask.flip(1)[i].unflatten(1, (3, 4))))
    return made


def step(method, parts=1):
    "(loss, gradient, what the queues will take) of this process's share, after the mean over processes that DDP takes."
    rank, world = distributed_world()
    images = torch.arange(IMAGES, dtype=torch.uint8).chunk(world)[rank][:, None, None, None].expand(-1, 3, 2, 2)
    found = train_step(method.loss, torch.optim.SGD([method.weight], 0.), images, None, None, generator(11 + 3 * rank), "float32", parts, method)
    keys = [torch.cat(all_ranks(getattr(method, name))) for name in method.noted]
    return sum(all_ranks(found["loss"].double())) / world, sum(all_ranks(method.weight.grad)) / world, keys
