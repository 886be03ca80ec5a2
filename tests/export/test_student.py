"""What the export takes from a workdir, where there is nothing to take."""

import json

import pytest

from bottlefit_jax.errors import UserError
from export.student import read_student


@pytest.mark.parametrize(
    ("epochs", "weights", "match"),
    [
        (0, "", r"run is the run of a teacher alone: train .* --config\.teacher\.weights=\S+/run/teacher and epochs"),
        (3, "", r"run holds no finished student: the command that began the run goes on from where it stopped"),
        (0, "s", r"run holds no finished student"),
    ],
)
def test_a_run_without_a_student_says_what_to_do(tmp_path, epochs, weights, match):
    folder = tmp_path / "run"
    folder.mkdir()
    stages = {"teacher": {"epochs": 5}, "stage1": {"epochs": epochs}, "stage2": {"epochs": 0}}
    (folder / "config.json").write_text(json.dumps({"student": {"weights": weights}, "stages": stages}))
    with pytest.raises(UserError, match=match):
        read_student(folder)
