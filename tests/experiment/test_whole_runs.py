"""Whole runs on folders of images: own classes, and a student with a static range."""

import json
import signal

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_digits

from bottlefit_jax.training.checkpoint import load_variables
from tests import signalled
from tests.test_main import ROOT, run


def digit_images(root, digits, *, each):
    """Write scikit-learn's digits of a few classes as PNG folders: `each` to train, half as many to evaluate."""
    images, labels = load_digits(return_X_y=True)
    for digit in digits:
        for index, image in enumerate(images[labels == digit][: each + each // 2]):
            folder = root / ("train" if index < each else "val") / f"my {digit}"
            folder.mkdir(parents=True, exist_ok=True)
            large = cv2.resize((image.reshape(8, 8) * 15.9).astype(np.uint8), (32, 32), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(folder / f"{index}.png"), large)
    return root


@pytest.mark.slow
def test_own_classes_are_learnt_on_a_given_body_and_resumed_bit_identically(tmp_path):
    """The body of a network of ten digits, and 60 images each of three classes under other names."""
    stages = [f"--config.stages.{name}.epochs" for name in ("teacher", "stage1", "stage2")]
    code, _, err = run(
        f"--workdir={tmp_path / 'all'}",
        "--config.teacher.options.width=8",
        *(f"{key}={epochs}" for key, epochs in zip(stages, (4, 0, 0), strict=True)),
    )
    assert code == 0, err
    own = (
        f"--config.teacher.weights={tmp_path / 'all' / 'teacher'}",
        f"--config.dataset.root={digit_images(tmp_path / 'set', (3, 4, 8), each=60)}",
        "--config.dataset.resize=32",
        "--config.dataset.flip=False",
        "--config.dataset.crop_scale=(0.7, 1.0)",
        "--config.student.bottleneck.channels=6",
        "--config.checkpoint.every_steps=2",
        "--config.stages.teacher.learning_rate=0.02",
        *(f"{key}={epochs}" for key, epochs in zip(stages, (4, 1, 1), strict=True)),
    )
    code, out, err = run(*own, f"--workdir={tmp_path / 'run'}", config="configs/own_classes.py")
    assert code == 0, err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["teacher"]["top1"] >= 95
    assert [stage["name"] for stage in report["stages"]] == ["teacher", "stage1", "stage2"]
    metas = [load_variables(tmp_path / "run" / name)[1] for name in ("teacher", "student")]
    assert [(meta.num_classes, meta.labels, meta.image_size) for meta in metas] == [
        (3, (("my 3",), ("my 4",), ("my 8",)), 32)
    ] * 2

    flags = ("--config=configs/own_classes.py", *own, f"--workdir={tmp_path / 'killed'}")
    path = tmp_path / "killed" / "checkpoints" / "teacher" / "4"
    assert signalled.run("bottlefit_jax.main", *flags, signum=signal.SIGKILL, path=path)[0] == -signal.SIGKILL
    code, out, err = run(*own, f"--workdir={tmp_path / 'killed'}", config="configs/own_classes.py")
    assert code == 0, err
    assert "teacher: resuming from step" in out
    again = [load_variables(tmp_path / "killed" / name)[1].digest for name in ("teacher", "student")]
    assert again == [meta.digest for meta in metas]


@pytest.mark.slow
def test_a_run_with_a_teacher_from_a_folder_a_static_range_and_skipped_images_is_complete(teacher, tmp_path):
    """Two of the teacher's twelve classes; one training image is truncated."""
    rng = np.random.default_rng(0)
    for split, name in (("train", "thing 4"), ("train", "thing 7"), ("val", "thing 4"), ("val", "thing 7")):
        folder = tmp_path / "set" / split / name
        folder.mkdir(parents=True)
        for index in range(9):
            cv2.imwrite(str(folder / f"{index}.jpg"), rng.integers(0, 256, (40, 48, 3), np.uint8))
    victim = tmp_path / "set" / "train" / "thing 4" / "3.jpg"
    victim.write_bytes(victim.read_bytes()[:-200])
    code, out, err = run(
        f"--workdir={tmp_path / 'run'}",
        f"--config.teacher.weights={teacher}",
        "--config.teacher.options.width=8",
        "--config.student.bottleneck.quantize_training=True",
        "--config.dataset.name=folder",
        f"--config.dataset.root={tmp_path / 'set'}",
        "--config.dataset.on_bad_image=skip",
        "--config.student.bottleneck.range=static",
        *(
            f"--config.stages.{stage}.{value}"
            for stage in ("stage1", "stage2")
            for value in ("epochs=1", "batch_size=6")
        ),
    )
    assert (code, err) == (0, ""), err
    assert f"skipped 1 of 18 images of train, first {victim}" in out
    report = (tmp_path / "run" / "report.md").read_text()
    assert "resnet18 + 3-channel bottleneck" in report
    assert ROOT.name not in report.split("```")[0]


@pytest.mark.slow
def test_a_run_without_labels_is_resumed_bit_identically_with_other_workers_and_reports_agreement(teacher, tmp_path):
    digit_images(tmp_path / "frames", (3, 4), each=20)
    flags = (
        f"--config.teacher.weights={teacher}",
        "--config.teacher.options.width=8",
        "--config.dataset.name=",
        f"--config.dataset.unlabelled={tmp_path / 'frames'}",
        "--config.checkpoint.every_steps=2",
        "--config.stages.stage1.epochs=2",
        "--config.stages.stage1.batch_size=8",
        "--config.stages.stage2.epochs=0",
    )
    code, out, err = run(*flags, f"--workdir={tmp_path / 'run'}")
    assert code == 0, err
    assert "agreement with the teacher is measured on 6 images that are held out" in out
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert (report["evaluation"]["measure"], report["evaluation"]["images"]) == ("agreement", 6)
    assert report["student"]["top1"] is None
    assert 0 <= report["student"]["agreement"] <= 100
    assert report["student"]["tables_from"] == "train"

    killed = (*flags, f"--workdir={tmp_path / 'killed'}")
    path = tmp_path / "killed" / "checkpoints" / "stage1" / "4"
    command = ("bottlefit_jax.main", "--config=configs/digits.py", *killed)
    assert signalled.run(*command, signum=signal.SIGKILL, path=path)[0] == -signal.SIGKILL
    code, out, err = run(*killed, "--config.dataset.workers=3")
    assert code == 0, err
    assert "stage1: resuming from step" in out
    digests = {load_variables(tmp_path / name / "student")[1].digest for name in ("run", "killed")}
    assert len(digests) == 1
    rates = [(tmp_path / name / "rates.json").read_bytes() for name in ("run", "killed")]
    assert rates[0] == rates[1]
