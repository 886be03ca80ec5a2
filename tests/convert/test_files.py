"""Files of weights: recognised by their content, refused in one line, written whole or not at all."""

import argparse
import collections
import io
import json
import os
import pathlib
import struct
import sys
import zipfile

import numpy as np
import pytest

from bottlefit_jax.convert import files
from bottlefit_jax.errors import UserError

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
TINY = ["tiny_checkpoint.pt", "tiny_checkpoint_legacy.pt", "tiny_state_dict.pt"]


def refused(path, match):
    with pytest.raises(UserError, match=match) as caught:
        files.read(path)
    assert "\n" not in str(caught.value)


class Runs:
    """An object whose pickle calls open: unpickling would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


class Custom:
    """A class of the script that saved it."""


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {"fc.weight": rng.random((3, 2), np.float32), "fc.bias": np.zeros(3, np.float32)}


def test_npz_is_recognised_by_its_content(tmp_path, arrays):
    np.savez(tmp_path / "weights.npz", **arrays)
    (tmp_path / "weights.npz").rename(tmp_path / "weights.pth")
    file = files.read(tmp_path / "weights.pth")
    assert (file.kind, file.beside) == ("npz", {})
    for key, value in arrays.items():
        np.testing.assert_array_equal(file.arrays[key], value)


def test_an_npz_with_pickled_objects_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", odd=np.array([Runs(tmp_path / "ran")], object))
    refused(tmp_path / "x.npz", "damaged, or no file of weights: .*allow_pickle=False")
    assert not (tmp_path / "ran").exists()


def test_a_file_without_weights_is_one_line(tmp_path, arrays):
    refused(tmp_path / "none.pth", "cannot read .*none.pth: No such file")
    refused(tmp_path, "is a folder; a file of weights is needed")
    for content in (b"", b"hello, this is text\n", b"\x00\x01\x02" * 100, struct.pack("<Q", 10**9) + b'{"a"'):
        (tmp_path / "odd").write_bytes(content)
        refused(tmp_path / "odd", r"odd is not a file of PyTorch \(\.pth, \.pt\), safetensors or NumPy \(\.npz\)")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("a.txt", "hello")
    refused(tmp_path / "photos.zip", "a zip file, but neither PyTorch's nor NumPy's")
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    content = bytearray(buffer.getvalue())
    (tmp_path / "short.npz").write_bytes(content[:-40])
    refused(tmp_path / "short.npz", "is damaged or cut short")
    content[content.index(arrays["fc.weight"].tobytes())] ^= 1
    (tmp_path / "flipped.npz").write_bytes(content)
    refused(tmp_path / "flipped.npz", r"is damaged: the checksum of fc.weight.npy in it is wrong")


@pytest.mark.parametrize(("library", "name"), [("torch", "PyTorch"), ("safetensors", "safetensors")])
def test_a_library_that_is_missing_is_one_line(tmp_path, monkeypatch, library, name):
    for module in [library, *(key for key in sys.modules if key.startswith(f"{library}."))]:
        monkeypatch.setitem(sys.modules, module, None)
    header = json.dumps({}).encode()
    path = tmp_path / "x"
    path.write_bytes((GOLDENS / TINY[0]).read_bytes() if library == "torch" else struct.pack("<Q", 2) + header + b" ")
    refused(path, rf"reading .*x needs {name}: pip install 'bottlefit-jax\[convert\]'")
    target = tmp_path / ("y.pt" if library == "torch" else "y.safetensors")
    with pytest.raises(UserError, match=rf"writing .*{target.name} needs {name}: pip install"):
        files.write(target, {})
    assert os.listdir(tmp_path) == ["x"]


def test_an_unknown_suffix_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"must end in \.pth, \.pt or \.safetensors"):
        files.write(tmp_path / "weights.onnx", {})


@pytest.mark.torch
@pytest.mark.parametrize("name", TINY)
def test_the_references_files_are_read(name):
    pytest.importorskip("torch")
    file = files.read(GOLDENS / name)
    with np.load(GOLDENS / "tiny_checkpoint_expected.npz") as expected:
        assert file.arrays.keys() == set(expected.files)
        for key in expected.files:
            assert file.arrays[key].dtype == expected[key].dtype
            assert file.arrays[key].shape == expected[key].shape
            np.testing.assert_array_equal(file.arrays[key], expected[key])
    assert file.arrays["1.num_batches_tracked"] == 7
    if name != "tiny_state_dict.pt":
        assert list(file.beside) == ["optimizer", "best_value", "lr_scheduler", "config", "args"]
        assert isinstance(file.beside["args"], argparse.Namespace)
        assert isinstance(file.beside["lr_scheduler"]["milestones"], collections.Counter)


@pytest.mark.torch
@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_file_is_refused_and_does_not_run(tmp_path, legacy):
    torch = pytest.importorskip("torch")
    marker, path = tmp_path / "ran", tmp_path / "x.pth"
    saved = {"model": {"fc.weight": torch.ones(2)}, "args": Runs(marker)}
    torch.save(saved, path, _use_new_zipfile_serialization=not legacy)
    refused(path, r"asks for \S*open, which is not run here; .*save the state dict alone: torch\.save\(")
    assert not marker.exists()


@pytest.mark.torch
def test_an_unknown_class_is_named(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"model": {"a": torch.ones(2)}, "config": Custom()}, tmp_path / "x.pth")
    refused(tmp_path / "x.pth", rf"asks for {Custom.__module__}\.Custom, which is not run here")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pth")
    refused(tmp_path / "x.pth", r"asks for torch\.nn\.modules\.linear\.Linear, which is not run here")


@pytest.mark.torch
def test_damaged_torch_files_and_programs_are_one_line(tmp_path):
    torch = pytest.importorskip("torch")
    for name in TINY[:2]:
        content = (GOLDENS / name).read_bytes()
        for length in (20, len(content) // 2, len(content) - 50):
            (tmp_path / name).write_bytes(content[:length])
            refused(tmp_path / name, "is damaged")
    with zipfile.ZipFile(tmp_path / "program.pt", "w") as archive:
        for member in ("program/data.pkl", "program/constants.pkl", "program/code/__torch__.py"):
            archive.writestr(member, b"")
    refused(tmp_path / "program.pt", "is a TorchScript program: save the weights alone")
    torch.save([torch.ones(2)], tmp_path / "x.pt")
    refused(tmp_path / "x.pt", "holds a list, not a dictionary of weights")
    torch.save({"names": {"a": "b"}, "epoch": 3}, tmp_path / "x.pt")
    refused(
        tmp_path / "x.pt", "holds no weights: no dictionary of named tensors is there or under its keys, names, epoch"
    )


@pytest.mark.torch
def test_weights_are_read_at_the_top_or_under_a_key_and_in_any_float_type(tmp_path):
    torch = pytest.importorskip("torch")
    given = {
        "wide": torch.full((2,), 1.5, dtype=torch.float64),
        "half": torch.full((2,), 1.5, dtype=torch.float16),
        "brain": torch.nn.Parameter(torch.full((2,), 1.5, dtype=torch.bfloat16)),
        "turned": torch.arange(6.0).reshape(2, 3).T,
        "count": torch.tensor(7),
        "note": "not a tensor",
    }
    for saved in (given, {"model": given, "epoch": 3}, {"state_dict": given, "model": "resnet18", "epoch": 3}):
        torch.save(saved, tmp_path / "x.pth")
        file = files.read(tmp_path / "x.pth")
        types = {key: str(value.dtype) for key, value in file.arrays.items()}
        assert types == {
            "wide": "float64", "half": "float16", "brain": "float32", "turned": "float32", "count": "int64",
            "note": "object",
        }  # fmt: skip
        np.testing.assert_array_equal(file.arrays["turned"], [[0, 3], [1, 4], [2, 5]])
        assert (file.arrays["brain"] == 1.5).all()
        assert file.beside == ({} if saved is given else {k: v for k, v in saved.items() if v is not given})


@pytest.mark.torch
def test_safetensors_with_bfloat16_is_read_and_damage_is_one_line(tmp_path):
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("safetensors.torch")
    path = tmp_path / "x.bin"
    library.save_file({"a": torch.full((2,), 1.5, dtype=torch.bfloat16), "n": torch.tensor(7)}, path)
    file = files.read(path)
    assert file.kind == "safetensors"
    assert (str(file.arrays["a"].dtype), file.arrays["a"].tolist(), file.arrays["n"]) == ("float32", [1.5, 1.5], 7)
    path.write_bytes(path.read_bytes()[:-4])
    refused(path, "is damaged, or no file of weights")


@pytest.mark.torch
@pytest.mark.parametrize("name", ["x.pth", "x.pt", "x.safetensors"])
def test_a_written_file_is_read_back_to_the_bit(tmp_path, arrays, name):
    torch = pytest.importorskip("torch")
    given = {**arrays, "bn.num_batches_tracked": np.asarray(7, np.int64)}
    path = tmp_path / "deep" / name
    files.write(path, given)
    back = files.read(path).arrays
    assert back.keys() == given.keys()
    for key, value in given.items():
        assert (back[key].dtype, back[key].shape) == (value.dtype, value.shape)
        assert back[key].tobytes() == value.tobytes()
    assert os.listdir(path.parent) == [name]
    if path.suffix != ".safetensors":
        loaded = torch.load(path, weights_only=True)
        assert isinstance(loaded, collections.OrderedDict)
        assert loaded["bn.num_batches_tracked"].dtype == torch.int64
        layer = torch.nn.Linear(2, 3)
        layer.load_state_dict({key.removeprefix("fc."): loaded[key] for key in arrays})


@pytest.mark.torch
def test_a_disk_that_is_full_leaves_the_old_file(tmp_path, arrays, monkeypatch):
    pytest.importorskip("torch")
    path = tmp_path / "x.pth"
    path.write_text("old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*x\.pth: no space left on the disk"):
        files.write(path, arrays)
    assert (path.read_text(), os.listdir(tmp_path)) == ("old", ["x.pth"])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*y\.pth: "):
        files.write(tmp_path / "file" / "y.pth", arrays)
