"""Checks name the argument, the fault and the remedy; files appear whole or not at all."""
import pytest
import torch

from pixcl_nb.checks import atomic_write, check_finite, check_name, check_range, check_tensor, full_precision


@pytest.mark.parametrize("value, keywords, message", [
    (torch.zeros(2, 3), dict(shape="N D h"), "map: has 2 axes"),
    (torch.zeros(2, 3), dict(shape="N 4"), "map: has size 3 on axis 1"),
    (torch.zeros(2, 3), dict(shape="N N"), "expected N = 2"),
    (torch.zeros(2, 3), dict(dtype="integer"), "map: expected integer values, got torch.float32"),
    (torch.zeros(0, 3), {}, "map: is empty"),
    (torch.tensor([1., float("inf")]), dict(finite=True), "map: holds 1 NaN or infinite"),
])
def test_check_tensor_names_argument_and_fault(value, keywords, message):
    with pytest.raises(ValueError, match=message): check_tensor("map", value, **keywords)


def test_check_tensor_wants_a_tensor():
    with pytest.raises(TypeError, match="map: expected a torch.Tensor, got ndarray"): check_tensor("map", torch.zeros(2).numpy())


def test_sizes_are_shared_between_arguments():
    sizes = {}
    check_tensor("a", torch.zeros(2, 5), "N D", sizes=sizes)
    with pytest.raises(ValueError, match="b: .* expected D = 5"): check_tensor("b", torch.zeros(7, 4), "K D", sizes=sizes)


def test_large_but_finite_values_pass():
    check_finite("x", torch.full((8,), 3e38))


def test_names_and_ranges():
    with pytest.raises(ValueError, match="form: unknown name 'supconn', did you mean 'supcon'"): check_name("form", "supconn", ["supcon"])
    with pytest.raises(ValueError, match="temperature: nan is out of range"): check_range("temperature", float("nan"), above=0)


def test_full_precision_switches_autocast_off():
    a = torch.full((4, 4), 1.001)
    with torch.autocast("cpu", torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16
        assert full_precision(torch.mm)(a, a).dtype == torch.float32


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = atomic_write(tmp_path / "note", b"old")
    def fail(temporary):
        open(temporary, "w").write("half")
        raise OSError("disk full")
    with pytest.raises(OSError, match="disk full"): atomic_write(path, fail)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
