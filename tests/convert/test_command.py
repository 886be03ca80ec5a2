"""python -m bottlefit_jax.convert: runs of the command, and every mistake as one line with exit code 2."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from bottlefit_jax import models
from bottlefit_jax.convert.network import to_state_dict
from bottlefit_jax.training.checkpoint import digest, load_variables
from bottlefit_jax.training.network_meta import NetworkMeta
from tests.convert.state_dicts import WIDTH, equal, import_, run, save_npz, save_torch, state_dict

ROOT = pathlib.Path(__file__).parents[2]


def test_a_teacher_makes_the_round_trip_through_a_folder(tmp_path, capsys, teacher):
    source = save_npz(tmp_path / "t.npz", {f"module.{key}": value for key, value in teacher.items()})
    folder = tmp_path / "deep" / "teacher"
    assert import_(source, folder) == 0
    out, err = capsys.readouterr()
    assert err == ""
    count = sum(value.size for key, value in teacher.items() if key.endswith((".weight", ".bias")))
    assert f"t.npz (npz): resnet18, a teacher of 7 classes, {count:,} parameters" in out
    assert "7 without names; --labels FILE gives them" in out
    assert f"--config.teacher.weights={folder}" in out
    variables, meta = load_variables(folder)
    assert meta == NetworkMeta(
        name="resnet18",
        options={"width": 8},
        num_classes=7,
        bottleneck=None,
        labels=(),
        image_size=224,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        num_batches_tracked={key: int(value) for key, value in teacher.items() if key.endswith("num_batches_tracked")},
        source={"file": "t.npz", "sha256": hashlib.sha256(source.read_bytes()).hexdigest()},
        digest=digest(variables),
    )
    assert meta.num_batches_tracked["layer1.0.bn1.num_batches_tracked"] == len("layer1.0.bn1.")
    equal(to_state_dict(variables, meta)[0], teacher)
    assert os.listdir(folder.parent) == ["teacher"]


def test_classes_have_the_names_of_imagenet_or_of_a_file(tmp_path, capsys, refused, teacher):
    labels, source = tmp_path / "labels.txt", tmp_path / "x.npz"
    for classes, first in ((1000, ("n01440764", "tench", "Tinca tinca")), (1001, ("background",))):
        changed = {"fc.weight": np.ones((classes, 64)), "fc.bias": np.ones(classes)}
        assert import_(save_npz(source, teacher | changed), tmp_path / "x", "--overwrite") == 0
        names = load_variables(tmp_path / "x")[1].labels
        assert (len(names), names[0]) == (classes, first)
        assert names[-1] == ("n15075141", "toilet tissue", "toilet paper", "bathroom tissue")
        assert "assumed to be ImageNet's 1000" in capsys.readouterr().out
    labels.write_text("".join(f"class {i}\n" for i in range(1000)))
    assert import_(source, tmp_path / "x", "--overwrite", "--labels", labels) == 0
    assert load_variables(tmp_path / "x")[1].labels[:2] == (("background",), ("class 0",))
    capsys.readouterr()
    args = ("--model", "resnet18", *WIDTH, "--output", tmp_path / "y")
    labels.write_text("one\ntwo\n")
    refused(tmp_path / "y", "has 2 classes, the network 1001", *args, "--input", source, "--labels", labels)
    labels.write_text("")
    refused(tmp_path / "y", "is empty", *args, "--input", source, "--labels", labels)


def test_inception_notes_the_option_of_torchvisions_weights(tmp_path, capsys):
    arrays = state_dict("inception_v3", aux_logits=False)
    source = save_npz(tmp_path / "i.npz", arrays)
    assert import_(source, tmp_path / "i", model="inception_v3", options=()) == 0
    assert "need --option transform_input=true" in capsys.readouterr().out
    meta = load_variables(tmp_path / "i")[1]
    assert (meta.options, meta.image_size) == ({"aux_logits": False, "transform_input": False}, 299)


@pytest.mark.parametrize(
    ("match", "args"),
    [
        ("the following arguments are required: --input, --output; --help", []),
        ("--model is missing", ["--input", "t.npz", "--output", "x"]),
        ("unrecognized arguments: --inptu", ["--input", "t.npz", "--output", "x", "--inptu", "y"]),
        ("invalid choice: 9", ["--input", "t.npz", "--output", "x", "--bits", "9"]),
        ("invalid choice: 'onnx'", ["--input", "t.npz", "--output", "x", "--to", "onnx"]),
        ("cannot read none.pth: No such file", ["--model", "resnet18", "--input", "none.pth", "--output", "x"]),
        ("a folder; a file of weights is needed", ["--model", "resnet18", "--input", "folder", "--output", "x"]),
        ("folder exists: give another --output", ["--model", "resnet18", "--input", "t.npz", "--output", "folder"]),
        ("t.npz is a file", ["--model", "resnet18", "--input", "t.npz", "--output", "t.npz", "--overwrite"]),
        ("is a folder without a network", ["--model", "x", "--input", "t.npz", "--output", "folder", "--overwrite"]),
        ("t.npz is not a folder that can", ["--model", "resnet18", "--input", "t.npz", "--output", "t.npz/x"]),
        ("none is not a file", ["--model", "x", "--input", "t.npz", "--output", "x", "--labels", "none"]),
        ("--teacher none is not a folder", ["--model", "x", "--input", "t.npz", "--output", "x", "--teacher", "none"]),
        ("'width' must be KEY=VALUE", ["--model", "x", "--input", "t.npz", "--output", "x", "--option", "width"]),
        ("--model does not go with --to", ["--to", "torch", "--model", "x", "--input", "folder", "--output", "x.pth"]),
        ("no folder t.npz", ["--to", "torch", "--input", "t.npz", "--output", "x.pth"]),
        ("must end in .pth, .pt or", ["--to", "torch", "--input", "folder", "--output", "x.onnx"]),
        ("y.pth is a folder", ["--to", "torch", "--input", "folder", "--output", "y.pth", "--overwrite"]),
        # From here on JAX is needed.
        ("does not hold a whole network", ["--to", "torch", "--input", "folder", "--output", "x.pth"]),
        ("unknown model 'resnet19'", ["--model", "resnet19", "--input", "t.npz", "--output", "x"]),
        ("do not fit resnet34", ["--model", "resnet34", "--input", "t.npz", "--output", "x"]),
        ("unknown option depth=3", ["--model", "resnet18", "--input", "t.npz", "--output", "x", "--option", "depth=3"]),
        ("dtype follows", ["--model", "resnet18", "--input", "t.npz", "--output", "x", "--option", "dtype=float16"]),
        ("width='w' must be", ["--model", "resnet18", "--input", "t.npz", "--output", "x", "--option", "width=w"]),
        ("--bits is for students", ["--model", "resnet18", "--input", "t.npz", "--output", "x", "--bits", "4"]),
    ],
)  # fmt: skip
def test_every_mistake_is_one_line(tmp_path, monkeypatch, refused, teacher, match, args):
    monkeypatch.chdir(tmp_path)
    save_npz("t.npz", teacher)
    for folder in ("folder", "y.pth"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "photo.jpg").touch()
    refused(tmp_path / "x", match, *args)


def test_invalid_values_are_listed(tmp_path, refused, teacher):
    odd = np.ones(7, np.float32)
    odd[3] = np.inf
    counts = {"bn1.num_batches_tracked": np.zeros(2), "bn9.num_batches_tracked": np.int64(3)}
    for changed, matches in (
        ({"fc.bias": odd, "bn1.weight": np.ones(8, np.int32)}, ["2 problems", "fc.bias has values that are not finite",
                                                                 "bn1.weight holds int32 and not floating-point"]),
        (counts, ["2 problems", "bn1.num_batches_tracked holds float64 of shape (2,)",
                  "unknown bn9.num_batches_tracked"]),
    ):  # fmt: skip
        source = save_npz(tmp_path / "x.npz", teacher | changed)
        for match in matches:
            refused(tmp_path / "x", match, "--model", "resnet18", "--input", source, "--output", tmp_path / "x", *WIDTH)


def test_overwrite_replaces_a_network_and_a_failure_leaves_it(tmp_path, capsys, refused, teacher, student, monkeypatch):
    source = save_npz(tmp_path / "t.npz", teacher)
    assert import_(source, tmp_path / "x") == 0
    assert import_(save_npz(tmp_path / "s.npz", student), tmp_path / "x", "--overwrite") == 0
    assert load_variables(tmp_path / "x")[1].bottleneck["channels"] == 3
    capsys.readouterr()

    def full(folder, *_):
        (folder / "half").touch()
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr("bottlefit_jax.training.checkpoint.save_variables", full)
    match = f"cannot write {tmp_path / 'x'}: no space left on the disk"
    args = ("--model", "resnet18", "--input", source, "--output", tmp_path / "x", "--overwrite", *WIDTH)
    refused(tmp_path / "x", match, *args)
    assert load_variables(tmp_path / "x")[1].bottleneck["channels"] == 3


def test_a_folder_without_a_description_of_its_network_is_one_line(tmp_path, capsys, refused, teacher):
    assert import_(save_npz(tmp_path / "t.npz", teacher), tmp_path / "odd") == 0
    (tmp_path / "odd" / "meta" / "metadata").write_text(json.dumps({"name": "resnet18"}))
    capsys.readouterr()
    args = ("--to", "torch", "--input", tmp_path / "odd", "--output", tmp_path / "x.pth")
    refused(tmp_path / "x.pth", "nothing in it says num_classes, bottleneck, labels", *args)


def test_the_process_ends_with_one_line_before_jax_is_loaded(tmp_path):
    code = (
        "import sys; from bottlefit_jax.convert.__main__ import main\n"
        "code = main(sys.argv[1:]); assert 'jax' not in sys.modules; sys.exit(code)\n"
    )
    (tmp_path / "x.pth").write_text("hello")
    args = ["--model", "resnet18", "--input", tmp_path / "x.pth", "--output", tmp_path / "y"]
    for command in ([sys.executable, "-c", code], [sys.executable, "-m", "bottlefit_jax.convert"]):
        done = subprocess.run([*command, *args], capture_output=True, text=True, cwd=ROOT)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"error: {args[3]} is not a file of PyTorch (.pth, .pt), safetensors or NumPy (.npz)\n"


@pytest.mark.torch
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_torch_file_makes_the_round_trip_to_the_bit(tmp_path, capsys, teacher, suffix):
    pytest.importorskip("torch")
    from bottlefit_jax.convert import files

    source = save_torch(tmp_path / "t.pth", {f"module.{key}": value for key, value in teacher.items()})
    assert import_(source, tmp_path / "teacher") == 0
    back = tmp_path / f"back{suffix}"
    assert run("--to", "torch", "--input", tmp_path / "teacher", "--output", back) == 0
    equal(files.read(back).arrays, teacher)
    assert import_(back, tmp_path / "again") == 0
    equal(to_state_dict(*load_variables(tmp_path / "again"))[0], teacher)
    capsys.readouterr()
    assert run("--to", "torch", "--input", tmp_path / "again", "--output", back) == 2
    assert "exists: give another --output" in capsys.readouterr().err


@pytest.mark.torch
@pytest.mark.parametrize("under", [None, "state_dict"])
def test_what_is_no_tensor_is_listed(tmp_path, refused, teacher, under):
    torch = pytest.importorskip("torch")
    weights = {key: torch.from_numpy(np.array(value)) for key, value in teacher.items()}
    weights |= {"note": "mine", "fc.bias": [1, 2]}
    torch.save({under: weights} if under else weights, tmp_path / "x.pth")
    args = ("--model", "resnet18", *WIDTH, "--input", tmp_path / "x.pth", "--output", tmp_path / "x")
    refused(tmp_path / "x", "unknown note", *args)


@pytest.mark.parametrize(("kind", "count"), [("teacher", 1), ("student", 2)])
def test_a_file_is_read_with_few_creations_of_its_network(tmp_path, monkeypatch, request, kind, count):
    """A student's second one finds the layers that have the decoder's inner width."""
    source = save_npz(tmp_path / "x.npz", request.getfixturevalue(kind))
    create, calls = models.create, []
    monkeypatch.setattr(models, "create", lambda *args, **options: calls.append(args) or create(*args, **options))
    assert import_(source, tmp_path / "x") == 0
    assert len(calls) == count
