"""What can be held of the GPU benchmark without a GPU: its arithmetic, its mistakes, its summary of what was cut."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest

from benchmarks import gpu_summary
from benchmarks.step_cost import MatrixProduct, share_of_peak, stage1_flops
from bottlefit_jax import models
from bottlefit_jax.errors import UserError
from bottlefit_jax.evaluation.cost import macs
from bottlefit_jax.recipe import base_config
from bottlefit_jax.training import stages, step
from tests.test_configs import check, load

ROOT = Path(__file__).parents[2]


def gpu(*arguments, **environment):
    given = {"PYTHON": sys.executable, "JAX_PLATFORMS": "cpu", **environment}
    return subprocess.run(
        ["benchmarks/gpu.sh", *map(str, arguments)], cwd=ROOT, env=os.environ | given, capture_output=True, text=True
    )


@pytest.fixture
def images(tmp_path):
    """A folder set of two classes with four images a split."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            folder = tmp_path / "set" / split / name
            folder.mkdir(parents=True)
            for index in range(4):
                cv2.imwrite(str(folder / f"{index}.jpg"), rng.integers(0, 256, (40, 48, 3), np.uint8))
    return tmp_path / "set"


@pytest.fixture(scope="module")
def networks():
    """Teacher and student of a ResNet-50, and the shapes of their variables at 224 px."""
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    teacher = models.create("resnet50", num_classes=10)
    student = models.create("resnet50", bottleneck={"channels": 12}, num_classes=10)
    shapes = (jax.eval_shape(module.init, jax.random.key(0), image) for module in (teacher, student))
    return teacher, student, *shapes


def test_a_steps_cost_is_the_sum_of_its_passes(networks):
    teacher, student, teacher_shapes, shapes = networks
    counted = stage1_flops(teacher, student, teacher_shapes, shapes, 224)
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    whole = 2 * macs(lambda v, x: teacher.apply(v, x)[0], teacher_shapes, image)
    classifier = 2 * 2048 * 10
    assert counted["teacher"] == whole - classifier
    halves = 2 * macs(lambda v, x: student.apply(v, x)[1]["decoded"], shapes, image)
    assert counted["backward"] == counted["student"] + halves
    assert counted["step"] == counted["teacher"] + counted["student"] + counted["backward"]


def test_the_convention_is_close_to_what_the_gradients_jaxpr_multiplies(networks):
    teacher, student, teacher_shapes, shapes = networks
    stage = stages.create_stage(
        "stage1", base_config().stages.stage1, parts=student.parts, matched=student.matched, drift=False
    )
    loss_fn = step.loss_terms(stage, student, teacher, (0.5,) * 3, (0.5,) * 3)
    arguments = (
        step.trained_params(shapes, stage),
        shapes,
        teacher_shapes,
        jax.ShapeDtypeStruct((1, 224, 224, 3), np.uint8),
        jax.ShapeDtypeStruct((1,), np.int32),
        jax.eval_shape(jax.random.key, 0),
    )
    true = 2 * macs(jax.value_and_grad(loss_fn, has_aux=True), *arguments)
    assert stage1_flops(teacher, student, teacher_shapes, shapes, 224)["step"] == pytest.approx(true, rel=0.005)


def test_share_of_peak():
    assert share_of_peak(3000, 60e9, 720e12) == pytest.approx(0.25)


def test_the_matrix_product_counts_its_operations():
    product = MatrixProduct("float32")
    product.run()
    product.wait()
    assert product.flops == 2 * 1024**3


def test_without_a_gpu_or_a_module_it_says_so_in_one_line(images, tmp_path):
    done = gpu(images, tmp_path / "output")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(("error: JAX sees no GPU;", "error: this Python lacks torch:"))


@pytest.mark.torch
def test_without_a_gpu_it_names_the_way_to_try_it(images, tmp_path):
    done = gpu(images, tmp_path / "output")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: JAX sees no GPU; BOTTLEFIT_ALLOW_CPU=1")


def test_a_python_without_the_modules_is_told_which(images, tmp_path):
    python = tmp_path / "bare"
    python.write_text(f'#!/bin/sh\nunset PYTHONPATH\nexec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    done = gpu(images, tmp_path / "output", PYTHON=str(python))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: this Python lacks absl-py, array-record,")
    assert "jax, matplotlib, ml-collections" in line


def test_a_missing_data_folder_is_one_line(tmp_path):
    done = gpu(tmp_path / "nowhere", tmp_path / "output")
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {tmp_path}/nowhere has no folder train; DATA must hold train/CLASS/*.jpg and val/CLASS/*.jpg\n"
    )
    assert not (tmp_path / "output").exists()


def test_the_full_imagenette_takes_two_models():
    for model, channels in (("resnet50", 12), ("densenet169", 3)):
        config = load("imagenette_full", model)
        check(config)
        assert (config.teacher.name, config.student.bottleneck.channels) == (model, channels)
        assert (config.dataset.image_size, config.compute_dtype) == (224, "bfloat16")
    with pytest.raises(UserError, match="does not know 'resnet18'; it knows resnet50 and densenet169"):
        load("imagenette_full", "resnet18")


def test_no_arguments_print_the_usage():
    done = gpu()
    assert done.returncode == 2
    assert done.stderr.startswith("What needs a GPU")
    assert "2 something is missing." in done.stderr
    assert "set -" not in done.stderr


def test_the_summarys_help_and_its_mistakes_are_no_traceback(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        gpu_summary.main(["--help"])
    assert left.value.code == 0
    assert "OUTPUT RUNS DEVICE" in capsys.readouterr().out
    for arguments, message in (
        ([], "the following arguments are required: OUTPUT, RUNS, DEVICE"),
        ([str(tmp_path), "nowhere", "GPU"], "RUNS is nowhere; it must be a folder that gpu.sh wrote"),
        (["gs://b/x", str(tmp_path), "GPU"], "'gs://b/x' is not on this machine"),
    ):
        assert gpu_summary.main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    (tmp_path / "train_step.json").write_text("{")
    assert gpu_summary.main([str(tmp_path), str(tmp_path), "GPU"]) == 2
    assert f"error: {tmp_path / 'train_step.json'} is not JSON" in capsys.readouterr().err
    assert not (tmp_path / "reports.json").exists()


def test_the_summary_says_what_was_cut(tmp_path, capsys):
    runs = tmp_path / "runs"
    (runs / "resnet50").mkdir(parents=True)
    (runs / "train_step.end").write_text("done in 140 s\n")
    (runs / "resnet50.end").write_text("cut after 200 s\n")
    epochs = [{"stage": "teacher", "epoch": n, "top1": 10.0 * n, "images_per_second": 1000.0} for n in (1, 2)]
    torn = '{"stage": "stage1", "epo'
    (runs / "resnet50" / "metrics.jsonl").write_text("".join(f"{json.dumps(epoch)}\n" for epoch in epochs) + torn)
    speed = {
        "losses_differ": 1e-3,
        "flops_per_image": {"step": 60e9},
        "rates": {"ours": [3000.0, 3200.0, 3100.0], "torch": [2000.0, 2000.0, 2000.0]},
        "ratios": [1.5, 1.6, 1.55],
        "shares_of_peak": {"ours": [0.25, 0.26, 0.27], "torch": [0.1, 0.2, 0.3]},
        "peak_flops_per_second": [700e12, 720e12, 710e12],
        "product": "8192³ bfloat16",
    }
    options = {"model": "resnet152", "size": 224, "batch": 128, "dtype": "bfloat16", "torch": "compiled"}
    (tmp_path / "train_step.json").write_text(json.dumps({"options": options, "speed": speed}))
    assert gpu_summary.main([str(tmp_path), str(runs), "NVIDIA H200"]) == 1
    out = capsys.readouterr().out
    assert "resnet50: cut after 200 s" in out
    assert "densenet169: not begun" in out
    assert "- teacher: epoch 2, top-1 20.00 %, 1000 images/s\n- no report" in out
    assert "| ours | 3100.0 | 3000.0..3200.0 | 26.0 % |" in out
    assert "| ratio | 1.55 | 1.50..1.60 | |" in out
    assert json.loads((tmp_path / "reports.json").read_text()) == {"resnet50": None, "densenet169": None}
