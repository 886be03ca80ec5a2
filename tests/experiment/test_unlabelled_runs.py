"""Whole runs on images without labels: for rates, killed and resumed on several devices, and on two hosts."""

import json
import signal

import numpy as np
import pytest

from bottlefit_jax.experiment.measurements import ANSWERS
from bottlefit_jax.training.checkpoint import load_variables
from tests import signalled
from tests.experiment.test_whole_runs import digit_images
from tests.test_main import run
from tests.training.test_two_processes import finish, ravel, start_two


@pytest.fixture(scope="module")
def flags(teacher, tmp_path_factory):
    """Those of ten steps of each of the student's stages."""
    frames = digit_images(tmp_path_factory.mktemp("images") / "frames", (3, 4), each=30)
    return (
        f"--config.teacher.weights={teacher}",
        "--config.teacher.options.width=8",
        "--config.dataset.name=",
        f"--config.dataset.unlabelled={frames}",
        "--config.checkpoint.every_steps=2",
        *(f"--config.stages.{stage}.epochs=1" for stage in ("stage1", "stage2")),
        *(f"--config.stages.{stage}.batch_size=8" for stage in ("stage1", "stage2")),
        "--config.stages.stage2.alpha=0",
    )


@pytest.mark.slow
@pytest.mark.parametrize("devices", ["1", "2", "4"])
def test_a_run_for_rates_that_is_killed_in_each_stage_ends_with_the_same_bytes(flags, devices, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", devices)
    flags = (*flags, "--config.student.rate.weight=0.1", "--config.student.rate.steps=(1.0, 2.0, 4.0)")
    code, out, err = run(*flags, f"--workdir={tmp_path / 'run'}")
    assert code == 0, err
    assert f"CPU as {devices} device" in out
    killed = (*flags, f"--workdir={tmp_path / 'killed'}")
    for stage, step in (("stage1", 4), ("stage2", 6)):
        path = tmp_path / "killed" / "checkpoints" / stage / str(step)
        command = ("bottlefit_jax.main", "--config=configs/digits.py", *killed)
        assert signalled.run(*command, signum=signal.SIGKILL, path=path)[0] == -signal.SIGKILL
    code, out, err = run(*killed)
    assert code == 0, err
    assert "stage2: resuming from step" in out
    (variables, meta), (_, again) = (load_variables(tmp_path / name / "student") for name in ("run", "killed"))
    assert again.digest == meta.digest
    assert "density" not in variables["params"]
    rates = [(tmp_path / name / "rates.json").read_bytes() for name in ("run", "killed")]
    assert rates[0] == rates[1]
    losses = [
        [json.loads(line)["terms"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("run", "killed")
    ]
    assert losses[0] == losses[1]
    assert losses[0][0]["rate"] > 0


@pytest.mark.slow
def test_two_processes_train_on_images_without_labels_as_one_does(flags, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    code, _, err = run(*flags, f"--workdir={one}", JAX_NUM_CPU_DEVICES="2")
    assert code == 0, err
    for code, _, err in finish(start_two(*flags, f"--workdir={two}")):
        assert code == 0, err
    alone, together = (load_variables(folder / "student")[0]["params"] for folder in (one, two))
    for part in alone:
        a, b = ravel(alone[part]), ravel(together[part])
        np.testing.assert_allclose(b, a, atol=2e-3 * np.abs(a).max(), err_msg=part)
    answers = [json.loads((folder / ANSWERS).read_text()) for folder in (one, two)]
    assert answers[0] == answers[1]
    reports = [json.loads((folder / "report.json").read_text()) for folder in (one, two)]
    assert [report["evaluation"]["measure"] for report in reports] == ["agreement"] * 2
    assert reports[1]["evaluation"]["images"] == reports[0]["evaluation"]["images"] == len(answers[0])
    assert reports[1]["student"]["agreement"] == pytest.approx(reports[0]["student"]["agreement"], abs=12)
