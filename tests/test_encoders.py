"Encoders, heads, projectors and published checkpoints."
import argparse
import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pixcl_nb.networks.encoders import ASPPHead, DenseProjector, FCNHead, Projector, create_encoder
from pixcl_nb.networks.weights import load_checkpoint, plain_state, read_checkpoint


def convolutions(network): return [(m.kernel_size, m.stride, m.dilation, m.padding, m.in_channels, m.out_channels) for m in network.modules() if isinstance(m, nn.Conv2d)]


@pytest.fixture(scope="module")
def resnet(): return create_encoder("resnet18")


@pytest.mark.parametrize("name, output_stride, channels, stride", [
    ("pixcl_tiny", None, 256, 8), ("pixcl_tiny", 4, 256, 4), ("pixcl_tiny", 16, 256, 16), ("resnet18", None, 512, 32), ("resnet18", 16, 512, 16),
    ("resnet18", 8, 512, 8), ("vit_small_patch16_224", None, 384, 16), ("vit_small_patch16_224", 16, 384, 16), ("convnext_atto", 16, 320, 16),
    ("vit_tiny_patch16_224", None, 192, 16), ("deit_tiny_distilled_patch16_224", None, 192, 16)])
def test_map(name, output_stride, channels, stride):
    encoder = create_encoder(name, output_stride)
    assert (encoder.channels, encoder.stride) == (channels, stride)
    with torch.no_grad(): out = encoder.eval()(torch.randn(2, 3, 64, 96))
    assert out.shape == (2, channels, -(-64//stride), -(-96//stride)) and torch.isfinite(out).all()


def test_resnet50_at_16_is_torchvisions():
    import torchvision
    ours = create_encoder("resnet50", 16)
    theirs = torchvision.models.resnet50(replace_stride_with_dilation=[False, False, True])
    theirs.fc = nn.Identity()
    assert convolutions(ours) == convolutions(theirs)
    assert set(plain_state(ours)) == set(theirs.state_dict())


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_finer_maps_contain_the_coarse_one(name):
    "Stride 16 and 8 with the weights of stride 32: every second (fourth) cell is the same number."
    torch.manual_seed(0)
    coarse = create_encoder(name, 32, zero_init_last=False)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        coarse(images); a = coarse.eval()(images)                              # a training pass first, so that the running statistics matter
        for stride in (16, 8):
            fine = create_encoder(name, stride).eval(); fine.load_state_dict(coarse.state_dict())
            b = fine(images)[..., ::32//stride, ::32//stride]
            torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-3*float(a.abs().max()))


def test_resnet18_equals_torchvision_in_value(resnet, tmp_path):
    import torchvision
    theirs = torchvision.models.resnet18().eval()
    torch.save(theirs.state_dict(), tmp_path/"resnet18-abc.pth")
    ours = create_encoder("resnet18").eval()
    report = load_checkpoint(ours, tmp_path/"resnet18-abc.pth")
    assert report.matched == report.total and report.unused == ["fc.weight", "fc.bias"]
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad(): torch.testing.assert_close(ours(images).mean((2, 3)) @ theirs.fc.weight.T + theirs.fc.bias, theirs(images), rtol=1e-4, atol=1e-5)


def test_tokens_are_laid_out_row_by_row():
    encoder = create_encoder("vit_tiny_patch16_224").eval()
    images = torch.randn(1, 3, 32, 64)
    with torch.no_grad(): out, tokens = encoder(images), encoder.body.forward_features(images)
    assert out.shape == (1, 192, 2, 4) and tokens.shape == (1, 9, 192)
    torch.testing.assert_close(out[0, :, 1, 2], tokens[0, 1 + 1*4 + 2])


def test_encoder_copies_and_state():
    for name in ["pixcl_tiny", "resnet18", "vit_tiny_patch16_224"]:
        encoder = create_encoder(name).eval()
        twin, other = copy.deepcopy(encoder), create_encoder(name).eval()
        other.load_state_dict(encoder.state_dict())
        images = torch.randn(1, 3, 32, 32)
        with torch.no_grad():
            assert torch.equal(twin(images), encoder(images)) and torch.equal(other(images), encoder(images))
        assert (twin.channels, twin.stride) == (encoder.channels, encoder.stride)


def test_tiny_trains_under_autocast_and_is_seeded():
    torch.manual_seed(0); first = create_encoder("pixcl_tiny")
    torch.manual_seed(0); second = create_encoder("pixcl_tiny", 16)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values()))
    with torch.autocast("cpu", torch.bfloat16): loss = first(torch.randn(2, 3, 32, 32)).float().square().mean()
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in first.parameters())
    zero = create_encoder("pixcl_tiny", zero_init_residual=True)
    assert all((block.second[1].weight == 0).all() for block in zero.blocks)


@pytest.mark.parametrize("name, output_stride, match", [
    ("resnt18", None, "name: unknown encoder 'resnt18'.*resnet18"), ("pixcl_tny", None, "pixcl_tiny"), ("", None, "name"), (None, None, "name: unknown encoder None"), (18, None, "name"),
    ("resnet18", 4, "output_stride"), ("resnet18", 64, "output_stride"), ("pixcl_tiny", 5, "output_stride"), ("pixcl_tiny", 32, "output_stride"),
    ("vit_small_patch16_224", 8, "output_stride.*16"), ("swin_tiny_patch4_window7_224", 8, "output_stride")])
def test_bad_encoder(name, output_stride, match):
    with pytest.raises(ValueError, match=match): create_encoder(name, output_stride)


def test_pretrained_without_network(monkeypatch):
    import timm
    real = timm.create_model
    def offline(name, pretrained=False, **options):
        if pretrained: raise OSError("no network")
        return real(name, pretrained=False, **options)
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(RuntimeError, match="pretrained: .*load_checkpoint"): create_encoder("resnet18", pretrained=True)
    with pytest.raises(ValueError, match="pretrained"): create_encoder("pixcl_tiny", pretrained=True)


def test_images_that_do_not_fit_the_patches():
    with pytest.raises(ValueError, match="images: .*32 x 48"): create_encoder("vit_tiny_patch16_224")(torch.zeros(1, 3, 40, 60))


# -- projectors ---------------------------------------------------------------------------------------------------

def test_projectors_agree_cell_by_cell():
    "The dense projector is the global one at every cell."
    torch.manual_seed(0)
    dense, whole = DenseProjector(6, 5, 4), Projector(6, 5, 4)
    for one, other in zip(whole.layers, dense.layers):
        if isinstance(one, nn.Linear): one.weight.data = other.weight.data[:, :, 0, 0]; one.bias.data = other.bias.data
    features = torch.randn(2, 6, 3, 2, requires_grad=True)
    out = dense(features)
    assert out.shape == (2, 4, 3, 2)
    for r in range(3):
        for c in range(2): torch.testing.assert_close(out[:, :, r, c], whole(features[:, :, r, c]))
    torch.testing.assert_close(whole(features), whole(features.mean((2, 3))))
    grad, = torch.autograd.grad(out[:, :, 1, 1].sum(), features)
    assert grad[:, :, 1, 1].abs().sum() > 0 and grad[:, :, 0].abs().sum() == 0


def test_projector_shapes_and_options():
    assert [tuple(p.shape) for p in Projector(2048).parameters()] == [(2048, 2048), (2048,), (128, 2048), (128,)]
    assert [tuple(p.shape) for p in Projector(512, layers=1).parameters()] == [(128, 512), (128,)]
    zhao = DenseProjector(64, 32, 16, layers=3, norm="batch")
    assert [type(m).__name__ for m in zhao.layers] == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d", "ReLU", "Conv2d"]
    assert zhao.layers[0].bias is None and zhao.layers[-1].bias is not None
    kaiming = Projector(256, init="kaiming")
    assert abs(kaiming.layers[0].weight.std().item() - (2/256)**.5) < .005 and (kaiming.layers[0].bias == 0).all()
    for arguments in [dict(norm="layer"), dict(init="kaming")]:
        with pytest.raises(ValueError, match=next(iter(arguments))): Projector(8, **arguments)
    with pytest.raises(ValueError, match="layers"): DenseProjector(8, layers=0)


# -- heads --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("make", [lambda classes: FCNHead(16, classes, hidden=8), lambda classes: ASPPHead(16, classes, width=8)])
def test_head(make):
    features = torch.randn(2, 16, 6, 5)
    bare = make(None)
    assert bare.classifier is None and bare(features).shape == (2, 8, 6, 5) == bare.features(features).shape
    assert not any("classifier" in name for name in bare.state_dict())
    head = make(3)
    assert head(features).shape == (2, 3, 6, 5) and head.channels == 8
    head.body.load_state_dict(bare.body.state_dict())                                       # what CP2 pretrains is what fine-tuning takes over
    head.eval(), bare.eval()
    torch.testing.assert_close(head(features), F.conv2d(bare(features), head.classifier[1].weight, head.classifier[1].bias))
    twin = copy.deepcopy(bare).set_classes(7)
    assert twin(features).shape == (2, 7, 6, 5) and twin.set_classes(None)(features).shape == (2, 8, 6, 5)
    head.train(); head.body.eval()
    assert not torch.equal(head(features), head(features)) and torch.equal(head.features(features), head.features(features))     # dropout after the body only
    with pytest.raises(ValueError, match="num_classes"): make(0)


def test_fcn_sizes_follow_mmsegmentation():
    body = FCNHead(2048).body
    assert [(m.in_channels, m.out_channels, m.kernel_size[0]) for m in body.modules() if isinstance(m, nn.Conv2d)] == [(2048, 512, 3), (512, 512, 3), (2560, 512, 3)]
    assert FCNHead(2048, concat_input=False).body.join is None
    with pytest.raises(ValueError, match="convolutions"): FCNHead(16, convolutions=0)


def test_aspp_is_its_branches():
    "Against the branches written out, pooling as GAP – 1×1 – bilinear."
    head = ASPPHead(12, width=4, rates=(2, 3)).eval()
    assert [(m.in_channels, m.out_channels, m.kernel_size[0], m.dilation[0]) for m in head.modules() if isinstance(m, nn.Conv2d)] == \
           [(12, 4, 1, 1), (12, 4, 3, 2), (12, 4, 3, 3), (12, 4, 1, 1), (16, 4, 3, 1)]
    x = torch.randn(2, 12, 7, 9)
    pooled = F.interpolate(head.body.image_pool(F.adaptive_avg_pool2d(x, 1)), (7, 9), mode="bilinear", align_corners=False)
    torch.testing.assert_close(head(x), head.body.join(torch.cat([pooled, *[b(x) for b in head.body.branches]], 1)))
    with pytest.raises(ValueError, match="features: .*batch of 2"): head.train()(x[:1])
    count = sum(p.numel() for p in ASPPHead(2048).parameters()) + sum(p.numel() for p in DenseProjector(512).parameters())
    assert abs(count/1e6 - 42.5) < .5                   # what papers/cp2 counted in the release, millions


# -- checkpoints --------------------------------------------------------------------------------------------------

def prefixed(state, *prefixes): return {prefix + name: value for prefix in prefixes for name, value in state.items()}

OPTIMIZER = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": .03, "params": [0, 1]}]}
HEADS = {"fc.0.weight": torch.zeros(4, 4), "fc.2.weight": torch.zeros(2, 4)}

def written(kind, state):
    "A checkpoint as each project writes it."
    other = {name: torch.full_like(value, 9) for name, value in state.items()}          # the key network: must not be taken
    return {
        "moco": {"epoch": 200, "arch": "resnet18", "optimizer": OPTIMIZER, "state_dict": {**prefixed({**other, **HEADS}, "module.encoder_k."),
                 **prefixed({**state, **HEADS}, "module.encoder_q."), "module.queue": torch.zeros(128, 8), "module.queue_ptr": torch.zeros(1).long()}},
        "densecl": {"meta": {"epoch": 200, "mmcv_version": "1"}, "optimizer": OPTIMIZER, "state_dict": {**prefixed(state, "encoder_q.0.", "backbone."), **prefixed(other, "encoder_k.0."),
                    "encoder_q.1.mlp.0.weight": torch.zeros(3, 3), "queue": torch.zeros(128, 8), "queue2": torch.zeros(128, 8)}},
        "densecl_extracted": {"state_dict": dict(state), "author": "DenseCL"},
        "mmselfsup": {"state_dict": {**prefixed(state, "backbone."), "neck.mlp.0.weight": torch.zeros(3, 3), **prefixed(other, "encoder_k.module.0.")}},
        "cp2": {"epoch": 20, "state_dict": {**prefixed(state, "module.encoder_q.backbone."), **prefixed(other, "module.encoder_k.backbone."),
                "module.encoder_q.decode_head.conv_seg.weight": torch.zeros(21, 512, 1, 1)}},
        "pixpro": {"opt": argparse.Namespace(arch="resnet18", lr=1.), "model": {**prefixed(state, "module.encoder."), **prefixed(other, "module.encoder_k."),
                   "module.projector.linear1.weight": torch.zeros(4, 4, 1, 1)}, "optimizer": OPTIMIZER, "scheduler": {"base": 1}, "epoch": 100},
        "plain": {**state, "fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)},
        "ours": {"step": 7, "method": {**prefixed(state, "branch.encoder.body."), **prefixed(other, "slow.network.encoder.body."), "queue.rows": torch.zeros(4, 4)}},
        "ours_plain": {"step": 7, "method": prefixed(state, "encoder.body.")},
    }[kind]

LAYOUT = {"moco": "MoCo", "densecl": "DenseCL", "densecl_extracted": "plain", "mmselfsup": "mmselfsup", "cp2": "CP2", "pixpro": "PixPro", "plain": "plain", "ours": "pixcl_nb", "ours_plain": "pixcl_nb"}

@pytest.mark.parametrize("kind", LAYOUT)
def test_layouts(kind, tmp_path):
    torch.manual_seed(1)
    source, target = create_encoder("resnet18"), create_encoder("resnet18")
    with torch.no_grad():
        for buffer in source.buffers():
            if buffer.is_floating_point(): buffer.uniform_(.5, 1.5)
    torch.save(written(kind, plain_state(source)), tmp_path/"file.pth")
    report = load_checkpoint(target, tmp_path/"file.pth")
    assert LAYOUT[kind] in report.layout and report.matched == report.total == 100 and not report.missing
    for name, value in plain_state(target).items():
        if not name.endswith("tracked"): assert torch.equal(value, plain_state(source)[name]), name
    assert "100 of 100" in repr(report)


@pytest.mark.parametrize("name", ["pixcl_tiny", "vit_tiny_patch16_224", "resnet18"])
def test_own_files_and_safetensors(name, tmp_path):
    from safetensors.torch import save_file
    source, target = create_encoder(name), create_encoder(name)
    save_file({f"encoder.{key}": value.contiguous() for key, value in source.state_dict().items()}, tmp_path/"encoder.safetensors")
    torch.save(source.state_dict(), tmp_path/"bare.pt")
    for file in ["encoder.safetensors", "bare.pt"]:
        target = create_encoder(name)
        report = load_checkpoint(target, tmp_path/file)
        assert report.matched == report.total and not report.unused
        assert "pixcl_nb" in report.layout or (name, file) == ("pixcl_tiny", "bare.pt")             # bare names have no owner
        assert all(torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values()))
    if name == "pixcl_tiny": assert next(target.parameters()).is_contiguous(memory_format=torch.channels_last)


def test_cp2s_transformer_has_no_last_norm(tmp_path):
    source, target = create_encoder("vit_small_patch16_224"), create_encoder("vit_small_patch16_224")
    state = {name: value for name, value in plain_state(source).items() if name not in ("norm.weight", "norm.bias")}
    torch.save({"state_dict": prefixed(state, "module.encoder_q.backbone.")}, tmp_path/"cp2-vit.pth")
    report = load_checkpoint(target, tmp_path/"cp2-vit.pth")
    assert report.layout == "CP2" and report.missing == ["norm.weight", "norm.bias"] and report.matched == report.total - 2


def test_refused(resnet, tmp_path):
    before = {name: value.clone() for name, value in resnet.state_dict().items()}
    refused = lambda match, error=ValueError: pytest.raises(error, match=match)
    state = plain_state(create_encoder("resnet18"))
    torch.save(dict(list(state.items())[:100]), tmp_path/"partial.pth")
    with refused("path: partial.pth does not fit.*missing .*layer4"): load_checkpoint(resnet, tmp_path/"partial.pth")
    torch.save(plain_state(create_encoder("resnet50")), tmp_path/"deep.pth")
    with refused("other shape .*layer1.0.conv1.weight: .64, 64, 1, 1. in the file, .64, 64, 3, 3. here"): load_checkpoint(resnet, tmp_path/"deep.pth")
    torch.save({"something": {"weight": torch.zeros(3)}}, tmp_path/"other.pth")
    with refused("other.pth does not fit.*unknown layout"): load_checkpoint(resnet, tmp_path/"other.pth")
    torch.save({"loss": 3., "names": ["a"]}, tmp_path/"empty.pth")
    with refused("no dictionary of tensors"): load_checkpoint(resnet, tmp_path/"empty.pth")
    torch.save({**state, "conv1.weight": torch.full((64, 3, 7, 7), float("nan"))}, tmp_path/"nan.pth")
    with refused("nan.pth: conv1.weight: holds .* NaN"): load_checkpoint(resnet, tmp_path/"nan.pth")
    with refused("path: no file", FileNotFoundError): load_checkpoint(resnet, tmp_path/"nowhere.pth")
    with refused("path: no file", FileNotFoundError): load_checkpoint(resnet, tmp_path)
    whole = (tmp_path/"deep.pth").read_bytes()
    for size in (0, 10, len(whole)//2, len(whole) - 30):
        (tmp_path/"cut.pth").write_bytes(whole[:size])
        with refused("path: cut.pth is cut off"): load_checkpoint(resnet, tmp_path/"cut.pth")
    (tmp_path/"cut.safetensors").write_bytes(whole[:1000])
    with refused("path: cut.safetensors is cut off"): load_checkpoint(resnet, tmp_path/"cut.safetensors")
    (tmp_path/"page.pth").write_text("<html>not found</html>")
    with refused("path: page.pth"): load_checkpoint(resnet, tmp_path/"page.pth")
    assert all(torch.equal(value, before[name]) for name, value in resnet.state_dict().items())


class Trap:
    def __init__(self, path): self.path = path
    def __reduce__(self): return (open, (str(self.path), "w"))


def test_no_code_runs(resnet, tmp_path):
    torch.save({"state_dict": plain_state(resnet), "trap": Trap(tmp_path/"sprung")}, tmp_path/"trap.pth")
    with pytest.raises(ValueError, match="pickled Python objects.*refused"): load_checkpoint(resnet, tmp_path/"trap.pth")
    assert not (tmp_path/"sprung").exists()
    torch.save({"state_dict": plain_state(resnet), "best": np.float64(1.5)}, tmp_path/"numpy.pth")                 # a number beside the weights does no harm
    assert load_checkpoint(resnet, tmp_path/"numpy.pth").plain


def test_namespace_is_only_data(tmp_path):
    torch.save({"opt": argparse.Namespace(lr=1.)}, tmp_path/"n.pth")
    assert read_checkpoint(tmp_path/"n.pth")["opt"].lr == 1.


@pytest.mark.parametrize("name", ["moco", "densecl"])
def test_a_training_checkpoint_of_ours(name, tmp_path):
    methods = pytest.importorskip("pixcl_nb.methods")
    method = methods.create_method(name)
    with torch.no_grad():
        for parameter in method.slow.parameters(): parameter.zero_()                       # the slow copy must not be taken
    torch.save({"step": 3, "method": method.state_dict(), "optimizer": OPTIMIZER}, tmp_path/"step-3.pt")
    encoder = create_encoder("pixcl_tiny")
    report = load_checkpoint(encoder, tmp_path/"step-3.pt")
    assert report.prefix == "branch.encoder." and report.layout == "pixcl_nb" and report.matched == report.total
    assert all(torch.equal(a, b) for a, b in zip(encoder.state_dict().values(), method.encoder.state_dict().values()))
