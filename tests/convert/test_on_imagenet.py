"""A converted teacher on real images, by the commands that the README gives."""

import json
import pathlib
import subprocess
import sys

import pytest

from tests.test_main import ROOT, run

DATA = pathlib.Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data, which is not part of the repository")
@pytest.mark.parametrize(("resize", "top1", "top5"), [(224, 78.08, 94.31), (227, 80.00, 94.62)])
def test_the_keras_teacher_reaches_what_its_readme_reports(tmp_path, resize, top1, top5):
    command = [sys.executable, "-m", "bottlefit_jax.convert", "--model", "mobilenet_v2"]
    paths = ["--input", str(DATA / "mobilenet_v2_imagenet.npz"), "--output", str(tmp_path / "teacher")]
    subprocess.run([*command, *paths], cwd=ROOT, check=True, capture_output=True)
    code, _, err = run(
        f"--workdir={tmp_path / 'run'}",
        f"--config.teacher.weights={tmp_path / 'teacher'}",
        f"--config.dataset.root={DATA / 'ilsvrc_val1300'}",
        f"--config.dataset.resize={resize}",
        config="configs/evaluate.py",
    )
    assert (code, err) == (0, ""), err
    teacher = json.loads((tmp_path / "run" / "report.json").read_text())["teacher"]
    assert teacher["top1"] == pytest.approx(top1, abs=0.3)
    assert teacher["top5"] == pytest.approx(top5, abs=0.3)
