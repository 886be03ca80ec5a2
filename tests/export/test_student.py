import json

import pytest

from bottlefit_jax.errors import UserError
from export.student import read_student


def test_a_run_without_a_student_says_how_to_finish_it(workdir, tmp_path):
    (tmp_path / "config.json").write_text((workdir / "config.json").read_text())
    with pytest.raises(UserError, match="holds no finished student: the command that began the run continues"):
        read_student(tmp_path)


def test_a_run_that_only_has_a_teacher_needs_another_run(workdir, tmp_path):
    config = json.loads((workdir / "config.json").read_text())
    config["stages"]["stage1"]["epochs"] = config["stages"]["stage2"]["epochs"] = 0
    (tmp_path / "teacher").mkdir()
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError) as caught:
        read_student(tmp_path)
    assert "its stage1 and stage2 have 0 epochs, so the run only has a teacher" in str(caught.value)
    assert f"--config.teacher.weights={tmp_path / 'teacher'}" in str(caught.value)
    assert "continues" not in str(caught.value)


def test_a_damaged_config_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        read_student(tmp_path)
