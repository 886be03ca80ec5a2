"""The two files of a report: both whole, or the earlier ones kept."""

import dataclasses
import errno
import json
import os

import pytest

from bottlefit_jax.errors import UserError
from bottlefit_jax.evaluation.report_files import write_report
from tests.evaluation.example import REPORT


def test_both_files_are_written_and_the_text_shows_the_plots_that_are_there(tmp_path):
    (tmp_path / "latents.png").touch()
    (tmp_path / "rate_curve.png").touch()
    write_report(tmp_path, REPORT)
    assert json.loads((tmp_path / "report.json").read_text()) == json.loads(json.dumps(REPORT.to_json()))
    text = (tmp_path / "report.md").read_text()
    assert text.index("(rate_curve.png)") < text.index("(latents.png)")
    assert "(training_curves.png)" not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "latents.png",
        "rate_curve.png",
        "report.json",
        "report.md",
    ]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused_and_nothing_is_written(tmp_path, bad):
    with pytest.raises(ValueError, match="not JSON compliant") as caught:
        write_report(tmp_path, dataclasses.replace(REPORT, config={"rate": bad}))
    assert not isinstance(caught.value, UserError)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_report_and_no_partial_files(tmp_path, monkeypatch):
    write_report(tmp_path, REPORT)
    before = (tmp_path / "report.json").read_text()

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*report\.md: no space left on the disk"):
        write_report(tmp_path, dataclasses.replace(REPORT, dataset="another"))
    assert (tmp_path / "report.json").read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md"]


def test_a_missing_folder_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot write"):
        write_report(tmp_path / "missing", REPORT)
