"""Students: the recognition of their bottleneck, and heads that a teacher completes."""

import argparse
import collections
import json
import pathlib

import jax
import numpy as np
import pytest

import bottlefit_jax.compare.designs  # noqa: F401  registers the designs that only the comparison uses
from bottlefit_jax import models
from bottlefit_jax.convert import from_torch, students, to_torch
from bottlefit_jax.convert.network import to_state_dict
from bottlefit_jax.errors import UserError
from bottlefit_jax.training.checkpoint import load_variables
from tests.convert.state_dicts import WIDTH, equal, head_of, import_, run, save_npz, save_torch, state_dict

MANIFEST = json.loads((pathlib.Path(__file__).parents[1] / "goldens" / "manifest.json").read_text())["models"]
QUANTIZER = {"name": "Quantizer", "params": {"num_bits": 4}}


@pytest.mark.parametrize(
    ("params", "flag", "bits", "source"),
    [
        ({"compressor": QUANTIZER}, None, 4, "as its config says"),
        ({"compressor": None}, None, None, "as its config says; --bits 8 adds one"),
        ({"compressor": None}, 8, 8, "by --bits"),
        (None, None, 8, "assumed; --bits N sets another number"),
        (None, 0, None, "by --bits"),
    ],
)
def test_bits_come_from_the_flag_the_config_or_the_reference(params, flag, bits, source):
    beside = {} if params is None else {"config": {"models": {"student_model": {"params": params}}}}
    assert students.bits_of(beside, flag) == (bits, source)


def test_a_compressor_that_is_not_ours_asks_for_bits():
    beside = {"config": {"models": {"student_model": {"params": {"compressor": {"name": "X"}}}}}}
    with pytest.raises(UserError, match=r"has the compressor .*give --bits N"):
        students.bits_of(beside, None)
    assert students.bits_of(beside, 3)[0] == 3


def test_a_students_bottleneck_follows_from_its_arrays(tmp_path, capsys, student):
    assert import_(save_npz(tmp_path / "s.npz", student), tmp_path / "s", model="custom_resnet18") == 0
    out = capsys.readouterr().out
    assert "bottleneck: version 2, 3 channels, 8 bits (assumed" in out
    assert f"--config.student.weights={tmp_path / 's'}" in out
    variables, meta = load_variables(tmp_path / "s")
    assert meta.bottleneck == {
        "channels": 3, "hidden": 16, "design": "bottlefit", "version": 2, "bits": 8, "cut": None, "image_size": 224,
        "per": "image", "range": "dynamic", "quantize_training": False,
    }  # fmt: skip
    equal(to_state_dict(variables, meta)[0], student)


# Shapes of the encoders' convolutions, from custom/model.py of the reference; batch norms have one axis.
@pytest.mark.parametrize(
    ("version", "convolutions"),
    [
        (1, {0: (6, 3, 7, 7)}),
        (2, {0: (64, 3, 7, 7), 6: (6, 64, 2, 2)}),
        (3, {0: (64, 3, 7, 7), 6: (512, 64, 2, 2), 9: (6, 512, 2, 2)}),
    ],
)
def test_versions_of_a_resnet152_are_recognised(version, convolutions):
    arrays = {f"module.bottleneck.encoder.{n}.weight": np.zeros(shape) for n, shape in convolutions.items()}
    arrays |= {"module.bottleneck.encoder.1.weight": np.zeros(64), "module.bottleneck.decoder.2.weight": np.zeros(1)}
    assert students.is_student(arrays)
    found = students.bottleneck_of("resnet152", arrays, 8)
    assert (found["version"], found["channels"]) == (version, 6)
    if version != 2:
        message = (
            r"of a densenet that are recognised are 7×7, 2×2 \(version 2\); 4×4, .* \(design patch\): is --model dense"
        )
        with pytest.raises(UserError, match=message):
            students.bottleneck_of("densenet169", arrays, 8)


@pytest.mark.parametrize(("entry", "channels"), [("custom_densenet169_3ch", 3), ("custom_resnet152_12ch_ver2", 12)])
def test_the_references_own_students_are_recognised(entry, channels):
    arrays = {key: np.broadcast_to(np.float32(0), shape) for key, shape in MANIFEST[entry]["keys"]}
    assert students.is_student(arrays)
    assert not students.is_head(arrays)
    found = students.bottleneck_of(entry.split("_")[1], arrays, 8)
    assert (found["version"], found["channels"]) == (2, channels)


@pytest.mark.parametrize("model", ["resnet18", "mobilenet_v2"])
def test_a_patch_student_makes_the_round_trip(tmp_path, capsys, model):
    given = state_dict(model, bottleneck={"channels": 4, "design": "patch"})
    assert given["bottleneck.encoder.3.weight"].shape == (48, 1, 3, 3)
    options = WIDTH if model == "resnet18" else ()
    assert import_(save_npz(tmp_path / "s.npz", given), tmp_path / "s", model=model, options=options) == 0
    assert "bottleneck: design patch, 4 channels, 8 bits (assumed" in capsys.readouterr().out
    variables, meta = load_variables(tmp_path / "s")
    assert (meta.bottleneck["design"], meta.bottleneck["version"]) == ("patch", 2)
    equal(to_state_dict(variables, meta)[0], given)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_the_decoders_inner_width_follows_from_the_file(tmp_path, version):
    given = state_dict(bottleneck={"channels": 4, "version": version, "hidden": 24})
    assert import_(save_npz(tmp_path / "s.npz", given), tmp_path / "s") == 0
    variables, meta = load_variables(tmp_path / "s")
    assert (meta.bottleneck["hidden"], meta.bottleneck["version"]) == (24, version)
    equal(to_state_dict(variables, meta)[0], given)


@pytest.mark.torch
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_patch_student_goes_to_a_file_and_back(tmp_path, suffix):
    pytest.importorskip("torch")
    given = state_dict(bottleneck={"channels": 4, "design": "patch"})
    assert import_(save_npz(tmp_path / "s.npz", given), tmp_path / "s") == 0
    file = tmp_path / f"s.{suffix}"
    assert run("--to", "torch", "--input", tmp_path / "s", "--output", file) == 0
    assert import_(file, tmp_path / "again") == 0
    (first, _), (again, meta) = load_variables(tmp_path / "s"), load_variables(tmp_path / "again")
    jax.tree.map(np.testing.assert_array_equal, again, first)
    assert meta.bottleneck["design"] == "patch"


@pytest.mark.torch
def test_a_patch_student_computes_the_same_in_torch():
    torch = pytest.importorskip("torch")
    bottleneck = {"channels": 4, "design": "patch"}
    given = state_dict(bottleneck=bottleneck)
    module = models.create("resnet18", num_classes=7, bottleneck=bottleneck, width=8)
    layers = torch.nn.Sequential()
    for layer, inputs in zip(module.design.encoder, (3, 48, 0, 48, 48, 0, 48, 48, 0, 48), strict=True):
        plan = (int(layer.width), layer.kernel, layer.stride, layer.padding)
        if layer.kind in ("conv", "depthwise"):
            groups = inputs if layer.kind == "depthwise" else 1
            layers.append(torch.nn.Conv2d(inputs, *plan, groups=groups, bias=False))
        else:
            layers.append(torch.nn.BatchNorm2d(inputs) if layer.kind == "norm" else torch.nn.ReLU())
    front = "bottleneck.encoder."
    mine = {key.removeprefix(front): value for key, value in given.items() if key.startswith(front)}
    layers.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in mine.items()})
    images = np.random.default_rng(0).standard_normal((2, 34, 41, 3)).astype(np.float32)
    with torch.no_grad():
        want = layers.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy().transpose(0, 2, 3, 1)
    variables = from_torch("resnet18", given, bottleneck=bottleneck, width=8)
    got = np.asarray(module.apply(variables, images, method="encode"))
    assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()


@pytest.mark.parametrize(
    ("name", "plan", "options"),
    [
        ("resnet18", {"design": "autoencoder", "channels": 3}, {"width": 8}),
        ("resnet18", {"design": "reduction", "channels": 3}, {"width": 8}),
        ("resnet18", {"design": "spinn", "channels": 16}, {"width": 8}),
        ("densenet121", {"design": "spinn", "channels": 256}, {}),
        ("mobilenet_v2", {"design": "spinn", "channels": 32, "cut": "features4"}, {}),
    ],
)
def test_designs_after_the_cut_make_the_round_trip_and_are_not_recognised(name, plan, options):
    given = state_dict(name, bottleneck=plan, counters=False, **options)
    variables = from_torch(name, given, bottleneck=plan, **options)
    equal(to_torch(name, variables, bottleneck=plan, **options), given)
    assert students.is_student(given)
    assert set(given) > {key for key in state_dict(name, counters=False, **options) if "layer1." in key}
    with pytest.raises(UserError, match=r"^the encoder in the file has the convolutions .*is --model \S+ right\?$"):
        students.bottleneck_of(name, given, 8)


def test_a_head_and_its_teacher_make_a_student(tmp_path, capsys, refused, teacher, student):
    head = head_of(student)
    # The convolutions of version 2b for ImageNet, src/models/mimic/resnet_mimic.py of head-network-distillation.
    convolutions = [key for key, value in head.items() if value.ndim == 4 and key.startswith("module_seq")]
    assert sorted(convolutions) == sorted(f"module_seq.{i}.weight" for i in (2, 5, 8, 11, 14))
    source, folder = save_npz(tmp_path / "head.npz", head), tmp_path / "teacher"
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"class {i}\n" for i in range(7)))
    assert import_(save_npz(tmp_path / "t.npz", teacher), folder, "--labels", labels) == 0
    assert import_(source, tmp_path / "s", "--teacher", folder, options=()) == 0
    assert "named as the teacher's" in capsys.readouterr().out
    variables, meta = load_variables(tmp_path / "s")
    tail = {key: value for key, value in teacher.items() if key in student}
    halves = {key: value for key, value in student.items() if key.startswith("bottleneck.")}
    equal(to_state_dict(variables, meta)[0], tail | halves)
    assert (meta.bottleneck["channels"], meta.options, meta.labels[6]) == (3, {"width": 8}, ("class 6",))

    args = ("--model", "resnet18", "--output", tmp_path / "x")
    refused(tmp_path / "x", "holds a head alone; convert its teacher first, and name", *args, "--input", source)
    aux = save_npz(tmp_path / "aux.npz", head | {"module_seq.linear.weight": np.zeros(1)})
    needs = ("--input", aux, "--teacher", folder)
    refused(tmp_path / "x", "1 problem: unknown module_seq.linear.weight", *args, *needs)
    refused(tmp_path / "x", "holds a student; --teacher needs the folder of a whole resnet18", *args, "--input", source,
            "--teacher", tmp_path / "s")  # fmt: skip
    refused(tmp_path / "x", "--teacher is for files that hold a head alone", *args, *WIDTH, "--teacher", folder,
            "--input", tmp_path / "t.npz")  # fmt: skip


@pytest.mark.torch
def test_a_checkpoint_of_bottlefit_is_a_student(tmp_path, capsys, refused):
    pytest.importorskip("torch")
    student = state_dict(bottleneck={"channels": 2, "version": 3})
    config = {"models": {"student_model": {"name": "custom_resnet18", "params": {"compressor": QUANTIZER}}}}
    source = save_torch(
        tmp_path / "s.pt", student, optimizer={"state": {}, "param_groups": []}, best_value=77.5,
        lr_scheduler={"milestones": collections.Counter({5: 1})}, config=config, args=argparse.Namespace(seed=None),
    )  # fmt: skip
    assert import_(source, tmp_path / "s", model="custom_resnet18") == 0
    assert "bottleneck: version 3, 2 channels, 4 bits (as its config says)" in capsys.readouterr().out
    variables, meta = load_variables(tmp_path / "s")
    assert meta.bottleneck["bits"] == 4
    equal(to_state_dict(variables, meta)[0], student)
    args = ("--model", "resnet152", "--input", source, "--output", tmp_path / "x")
    refused(tmp_path / "x", "of resnet18, not resnet152: give --model resnet18", *args)


@pytest.mark.torch
def test_a_checkpoint_of_head_network_distillation_needs_its_teacher(tmp_path, capsys, refused, teacher, student):
    pytest.importorskip("torch")
    beside = {"type": "resnet18", "epoch": 20}
    source = save_torch(tmp_path / "t.pt", teacher, acc=70.0, **beside)
    assert import_(source, tmp_path / "t") == 0
    head = save_torch(tmp_path / "h.pt", head_of(student), best_valid_value=68.0, student=True, **beside)
    assert import_(head, tmp_path / "s", "--teacher", tmp_path / "t", "--bits", 6, options=()) == 0
    assert "3 channels, 6 bits (by --bits)" in capsys.readouterr().out
    args = ("--model", "resnet18", "--input", head, "--output", tmp_path / "x")
    refused(tmp_path / "x", "name that folder with --teacher DIR", *args)


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2, 3])
def test_whole_students_of_resnet152_make_the_round_trip(tmp_path, capsys, version):
    student = state_dict("resnet152", num_classes=1000, bottleneck={"channels": 12, "version": version})
    source = save_npz(tmp_path / "s.npz", student)
    assert import_(source, tmp_path / "s", model="custom_resnet152", options=()) == 0
    assert f"bottleneck: version {version}, 12 channels" in capsys.readouterr().out
    equal(to_state_dict(*load_variables(tmp_path / "s"))[0], student)
