"""`report.json` for scripts and `report.md` for people, written once at the end of a run."""

from __future__ import annotations

import json
from pathlib import Path

from bottlefit_jax.evaluation.report import Report
from bottlefit_jax.evaluation.report_text import CURVE, IMAGES, report_text
from bottlefit_jax.files import write_text


def write_report(workdir: Path, report: Report, *, command: str | None = None) -> None:
    """Write `report.json` and `report.md`; each appears complete or not at all, the JSON last.

    Args:
        workdir: the run's folder. Plots that it already holds are shown in the text, so draw them first.
        report: of the run.
        command: what a reader types to get the same result; None refers to the stored configuration.

    Raises:
        ValueError: a number is NaN or infinite: a bug of ours. Nothing has been written.
        UserError: the files cannot be written (full disk, no such folder, no permission).
    """
    as_json = json.dumps(report.to_json(), indent=2, allow_nan=False) + "\n"
    images = [name for name in (CURVE, *IMAGES) if (workdir / name).exists()]
    write_text(workdir / "report.md", report_text(report, images, command))
    write_text(workdir / "report.json", as_json)
