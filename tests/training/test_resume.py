"""A run that was killed ends with bit-identical weights to one that was not; a signal stops it cleanly."""

import re
import signal
from pathlib import Path

import pytest

from bottlefit_jax.training.checkpoint import load_variables
from tests import signalled
from tests.test_main import SMALL, run

ARGUMENTS = (*SMALL, "--config.checkpoint.every_steps=5")


def digests(workdir):
    return [load_variables(Path(workdir) / name)[1].digest for name in ("teacher", "student")]


@pytest.fixture(scope="module")
def whole(demo):
    """Those of a run without a stop; how often it saves does not matter."""
    return digests(demo(*SMALL).workdir)


def stop(workdir, stage, step, signum):
    """Runs until `stage` has written its checkpoint of `step`: then comes the signal."""
    path = workdir / "checkpoints" / stage / str(step)
    flags = ("--config=configs/digits.py", *ARGUMENTS, f"--workdir={workdir}")
    return signalled.run("bottlefit_jax.main", *flags, signum=signum, path=path)


@pytest.mark.slow
def test_a_run_that_is_killed_in_each_stage_ends_with_the_same_weights(tmp_path, whole):
    workdir = tmp_path / "run"
    for stage, step in (("teacher", 10), ("stage1", 20), ("stage2", 5)):
        assert stop(workdir, stage, step, signal.SIGKILL)[0] == -signal.SIGKILL
    code, out, _ = run(*ARGUMENTS, "--config.dataset.workers=4", f"--workdir={workdir}")  # other workers, same images
    assert code == 0
    assert re.search(r"resuming from step \d+ of \d+", out)
    assert digests(workdir) == whole


@pytest.mark.slow
def test_sigterm_saves_and_exits_and_the_same_command_resumes(tmp_path, whole):
    workdir = tmp_path / "run"
    code, out, err = stop(workdir, "stage1", 5, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM, err
    assert "stopped by SIGTERM; the same command goes on from here" in out
    saved = max(int(path.name) for path in (workdir / "checkpoints" / "stage1").iterdir())
    code, out, _ = run(*ARGUMENTS, f"--workdir={workdir}")
    assert code == 0
    assert f"stage1: resuming from step {saved} of" in out
    assert digests(workdir) == whole
