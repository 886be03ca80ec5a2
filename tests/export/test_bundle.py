"""From a finished run to a bundle, as a person would do it; what cannot be used is one line, and nothing is written."""

import importlib.util
import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bottlefit_jax import models
from bottlefit_jax.bundle import identity, read_bundle
from bottlefit_jax.codec.quantizer import Affine, quantize
from bottlefit_jax.edge.interpreter import Interpreter
from bottlefit_jax.errors import UserError
from bottlefit_jax.files import atomic_directory
from bottlefit_jax.training.checkpoint import save_variables
from bottlefit_jax.training.sharding import to_host
from export import bundle, head, litert
from export.parity import run_onnx, session_of
from export.student import read_images, read_student
from tests.test_main import ROOT


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """What a run on the digits leaves, without the training."""
    return run_without_training(tmp_path_factory.mktemp("runs") / "digits")


def run_without_training(workdir, **bottleneck):
    workdir.mkdir()
    spec = importlib.util.spec_from_file_location("digits", ROOT / "configs" / "digits.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (workdir / "config.json").write_text(json.dumps(module.get_config().to_dict()))
    plan = {"channels": 3, "version": 2, "bits": 8, "image_size": 32} | bottleneck
    student = models.create("resnet18", num_classes=10, bottleneck=plan, width=8)
    variables = to_host(jax.jit(student.init)(jax.random.key(0, impl="unsafe_rbg"), jnp.zeros((1, 32, 32, 3))))
    meta = {"name": "resnet18", "options": {"width": 8}, "num_classes": 10, "bottleneck": plan, "image_size": 32}
    names = {"labels": [[str(digit)] for digit in range(10)], "mean": [0.5] * 3, "std": [0.25] * 3}
    save_variables(workdir / "student", variables, {**meta, **names})
    return workdir


def export(*arguments):
    return bundle.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def made(workdir, tmp_path_factory):
    """A float32 bundle with a local file."""
    output = tmp_path_factory.mktemp("bundles") / "digits"
    flags = ("--head", "float32", "--local", "--images", 60, "--calibration", 20)
    assert export("--workdir", workdir, "--output", output, *flags) == 0
    return output


def test_the_bundle_holds_what_its_manifest_says(made, workdir):
    assert sorted(path.name for path in made.iterdir()) == [
        "head.onnx",
        "head.tflite",
        "local.tflite",
        "manifest.json",
        "parity.json",
        "tail.onnx",
        "tail.stablehlo",
    ]
    manifest = read_bundle(made).manifest
    assert (manifest.name, manifest.labels) == ("digits", tuple("0123456789"))
    raw = json.loads((made / "manifest.json").read_text())
    assert raw["image"] == {"height": 32, "width": 32, "order": "RGB", "dtype": "uint8", "resize": 32}
    assert raw["latent"]["shape"] == [5, 5, 3]
    names = read_images(read_student(workdir), "train", limit=20).names
    assert raw["calibration"] == {"split": "train", "count": 20, "sha256": identity(*names)}
    assert raw["head"]["id"] == raw["tail"]["head"]


def test_the_files_do_what_the_network_does(made, workdir):
    result = json.loads((made / "parity.json").read_text())
    assert result["images"] == 60
    assert result["agreement_percent"] == 100
    assert max(row["largest_difference"] for row in result["files"].values()) < 1e-4
    student = read_student(workdir)
    images = read_images(student, "val", limit=5)
    raw = json.loads((made / "manifest.json").read_text())["latent"]
    affine = Affine(np.float32(raw["scale"]), np.int32(raw["zero_point"]), np.float32(0))
    device, tail = Interpreter(made / "head.tflite"), session_of(made / "tail.onnx")
    sent = np.stack([quantize(device.run(image), affine) for image in images.images])
    (logits,) = run_onnx(tail, sent)
    local = Interpreter(made / "local.tflite")
    np.testing.assert_allclose(logits, [local.run(image) for image in images.images], atol=0.3)
    restored = jax.export.deserialize(bytearray((made / "tail.stablehlo").read_bytes()))
    np.testing.assert_allclose(logits, restored.call(sent), atol=1e-4)


def test_a_patch_student_exports_as_any_other(tmp_path, capsys):
    workdir = run_without_training(tmp_path / "patch", design="patch")
    output = tmp_path / "bundle"
    flags = ("--head", "float32", "--local", "--images", 40, "--calibration", 20)
    assert export("--workdir", workdir, "--output", output, *flags) == 0, capsys.readouterr().err
    result = json.loads((output / "parity.json").read_text())
    assert result["agreement_percent"] == 100
    assert sorted(result["files"]) == ["head.onnx", "head.tflite", "local.tflite", "tail.onnx", "tail.stablehlo"]
    assert max(row["largest_difference"] for row in result["files"].values()) < 1e-4
    raw = json.loads((output / "manifest.json").read_text())
    assert (raw["latent"]["shape"], raw["model"]["bottleneck"]["design"]) == ([5, 5, 3], "patch")
    read_bundle(output)


def test_a_wrong_layer_of_a_patch_student_is_named(tmp_path, monkeypatch, capsys):
    workdir = run_without_training(tmp_path / "patch", design="patch")
    right = litert.to_tflite

    def wrong(function, shape, **names):
        return right(lambda x: function(x) * (-1 if function(x).shape[-1] == 3 else 1), shape, **names)

    monkeypatch.setattr(litert, "to_tflite", wrong)
    flags = ("--head", "float32", "--images", 10, "--calibration", 10)
    assert export("--workdir", workdir, "--output", tmp_path / "x", *flags) == 1
    assert "encoder/9 departs first" in capsys.readouterr().err


@pytest.mark.parametrize("design", ["autoencoder", "reduction", "spinn"])
def test_a_device_that_runs_the_teachers_layers_is_refused(workdir, tmp_path, capsys, design):
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    (run_folder / "config.json").write_text((workdir / "config.json").read_text())
    student = read_student(workdir)
    channels = student.module.cut_channels if design == "spinn" else 3
    plan = {**student.meta["bottleneck"], "design": design, "channels": channels, "image_size": 64}
    save_variables(run_folder / "student", student.variables, {**student.meta, "bottleneck": plan})
    assert export("--workdir", run_folder, "--output", tmp_path / "x") == 2
    out, err = capsys.readouterr()
    assert re.fullmatch(
        rf"error: .*'{design}' cannot be exported.*those that can are 'bottlefit' and 'patch'\n", err
    ), err
    assert out == ""
    assert not (tmp_path / "x").exists()


def test_the_same_student_gives_the_same_bytes(made, workdir, tmp_path):
    flags = ("--head", "float32", "--local", "--images", 10, "--calibration", 20, "--name", "digits")
    assert export("--workdir", workdir, "--output", tmp_path / "again", *flags) == 0
    for name in ("head.tflite", "head.onnx", "local.tflite", "tail.onnx", "manifest.json"):
        again = (tmp_path / "again" / name).read_bytes()
        if name == "manifest.json":
            assert json.loads(again)["head"] == json.loads((made / name).read_text())["head"]
        else:
            assert again == (made / name).read_bytes(), name


def test_a_wrong_layer_is_named_and_nothing_is_written(workdir, tmp_path, monkeypatch, capsys):
    """A converter that turns the sign of the encoder's last layer, the only one with 3 channels."""
    right = litert.to_tflite

    def wrong(function, shape, **names):
        return right(lambda x: function(x) * (-1 if function(x).shape[-1] == 3 else 1), shape, **names)

    monkeypatch.setattr(litert, "to_tflite", wrong)
    flags = ("--head", "float32", "--images", 40, "--calibration", 10)
    assert export("--workdir", workdir, "--output", tmp_path / "x", *flags) == 1
    err = capsys.readouterr().err
    assert re.fullmatch(r"error: .*head\.tflite is off by .*; encoder/6 departs first: its values .*\n", err), err
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_fold_is_told(workdir, tmp_path, monkeypatch, capsys):
    right = head._apply
    monkeypatch.setattr(head, "_apply", lambda x, layer, affine: -right(x, layer, affine))
    flags = ("--head", "float32", "--images", 40, "--calibration", 10)
    assert export("--workdir", workdir, "--output", tmp_path / "x", *flags) == 1
    assert "encoder, as it is folded, departs first" in capsys.readouterr().err


MISTAKES = [
    (["--workdir", "nowhere"], "no run at nowhere"),
    (["--workdir", "."], r"\. holds no run: --workdir is the one of"),
    (["--head", "int4"], "invalid choice: 'int4'"),
    (["--calibration", "0"], "--calibration is 0; it must be at least 1 training images"),
    (["--version", "-1"], "--version is -1; it must be at least 1"),
    (["--output", "README.md"], "README.md exists: give another --output, or --overwrite"),
    (["--output", "docs", "--overwrite"], "docs is no bundle, so --overwrite does not remove it"),
    (["--output", "README.md/x"], "cannot write .*: Not a directory"),
    (["--verbose"], "unrecognized arguments: --verbose"),
]


@pytest.mark.parametrize(("arguments", "said"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(workdir, tmp_path, capsys, arguments, said, monkeypatch):
    monkeypatch.chdir(ROOT)
    given = {"--workdir": str(workdir), "--output": str(tmp_path / "x")}
    rest = list(arguments)
    for flag in tuple(given):
        if flag in rest:
            given[flag] = rest.pop(rest.index(flag) + 1)
            rest.remove(flag)
    code = export(*(item for pair in given.items() for item in pair), *rest)
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"error: .*{said}.*\n", err), err
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_not_finished_is_told(workdir, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text((workdir / "config.json").read_text())
    assert export("--workdir", tmp_path / "run", "--output", tmp_path / "x") == 2
    assert "holds no finished student: the command that began the run goes on" in capsys.readouterr().err


def test_a_run_with_a_teacher_alone_is_not_sent_to_go_on(workdir, tmp_path, capsys):
    config = json.loads((workdir / "config.json").read_text())
    config["stages"]["stage1"]["epochs"] = config["stages"]["stage2"]["epochs"] = 0
    (tmp_path / "run" / "teacher").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    assert export("--workdir", tmp_path / "run", "--output", tmp_path / "x") == 2
    message = capsys.readouterr().err
    assert "its stage1 and stage2 have 0 epochs, so that the run has a teacher alone" in message
    assert f"--config.teacher.weights={tmp_path / 'run' / 'teacher'}" in message
    assert "goes on" not in message


def test_int8_sends_eight_bits_and_no_fewer(workdir, tmp_path, capsys):
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    (run_folder / "config.json").write_text((workdir / "config.json").read_text())
    student = read_student(workdir)
    plan = {**student.meta["bottleneck"], "bits": 4}
    save_variables(run_folder / "student", student.variables, {**student.meta, "bottleneck": plan})
    assert export("--workdir", run_folder, "--output", tmp_path / "x") == 2
    assert "--head int8 sends 8 bits a value, and this student was trained for 4" in capsys.readouterr().err


def test_what_fails_leaves_the_old_bundle(tmp_path):
    old = tmp_path / "bundle"
    old.mkdir()
    (old / "manifest.json").write_text("old")
    with pytest.raises(UserError, match="No such file"), atomic_directory(old) as folder:  # noqa: PT012
        (folder / "manifest.json").write_text("new")
        (folder / "head.tflite").read_bytes()
    assert (old / "manifest.json").read_text() == "old"
    with atomic_directory(old) as folder:
        (folder / "manifest.json").write_text("new")
    assert (old / "manifest.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.slow
def test_the_readme_makes_an_int8_bundle_of_the_demo(demo, tmp_path):
    command = [
        sys.executable,
        "-m",
        "export.bundle",
        "--workdir",
        demo(whole=True).workdir,
        "--output",
        tmp_path / "bundle",
    ]
    flags = ["--head", "int8", "--triton", tmp_path / "triton"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    result = json.loads((tmp_path / "bundle" / "parity.json").read_text())
    assert result["flax"]["top1"] - result["bundle"]["top1"] <= 0.5
    assert "head.tflite" in done.stdout
    assert (tmp_path / "triton" / "bundle" / "config.pbtxt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_a_trained_patch_student_makes_a_bundle(demo, tmp_path, capsys, precision):
    trained = demo("--config.student.bottleneck.design=patch", whole=True)
    assert (trained.code, trained.err) == (0, ""), trained.err
    flags = ("--head", precision, "--local", "--output", tmp_path / "bundle")
    assert export("--workdir", trained.workdir, *flags) == 0, capsys.readouterr().err
    result = json.loads((tmp_path / "bundle" / "parity.json").read_text())
    assert result["flax"]["top1"] > 80
    assert result["flax"]["top1"] - result["bundle"]["top1"] <= 0.5
    if precision == "int8":
        assert result["files"]["head.tflite"]["largest_difference"] <= 8


@pytest.mark.parametrize("size", ["16k", "3m"])
def test_a_full_disk_is_one_line_and_leaves_nothing(workdir, tmp_path, capsys, size):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a full disk is made with mount, which needs root here")
    try:
        filler = disk / "filler"
        filler.write_bytes(bytes(2_600_000 if size == "3m" else 10))
        code = export("--workdir", workdir, "--output", disk / "x", "--head", "float32", "--images", 20, "--local")
        left = [path.name for path in disk.iterdir()]
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
    err = capsys.readouterr().err
    assert code == 2, err
    assert re.fullmatch(r"error: cannot write .*/x: no space left on the disk\n", err), err
    assert left == ["filler"]
