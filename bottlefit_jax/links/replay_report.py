"""The report of replayed traces: bench.json for programs, bench.md for people, frames.csv and plots of the policy."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bottlefit_jax.edge.path import LOCAL
from bottlefit_jax.edge.runtimes import AUTO
from bottlefit_jax.errors import BottleFitError
from bottlefit_jax.files import write_text
from bottlefit_jax.links.run import Run
from bottlefit_jax.links.world import Outcome

NO_PLOTS = "no plots: they need matplotlib, pip install matplotlib"


@dataclass(frozen=True)
class Setting:
    """What was measured, and how.

    Attributes:
        bundle: name and version.
        command: the command line.
        machine: in words.
        deadline_ms: of an image.
        fps: images a second; None: one after the other.
        images: the number of different images, which are taken in turns.
        top1: of each path, percent, as the manifest has it.
    """

    bundle: str
    command: str
    machine: str
    deadline_ms: float
    fps: float | None
    images: int
    top1: Mapping[str, float]

    def outcome(self, runs: Sequence[Run]) -> Outcome:
        """Return the outcome of the images of all these runs."""
        return Outcome.of_all(run.outcome(self.deadline_ms / 1e3, self.top1) for run in runs)


def write(folder: Path, setting: Setting, runs: Sequence[Run]) -> None:
    """Write the files of the report.

    Raises:
        UserError: a file cannot be written.
    """
    plots = _draw(folder, setting, runs)
    values = {
        **asdict(setting),
        "rows": [
            {"trace": run.trace.name, "delay_ms": run.delay_ms, "method": run.method, **_row(setting, [run])}
            for run in runs
        ],
        "total": {method: _row(setting, _of(runs, method)) for method in _methods(runs)},
    }
    write_text(folder / "bench.json", json.dumps(values, indent=1, allow_nan=False) + "\n")
    write_text(folder / "frames.csv", _frames(runs))
    write_text(folder / "bench.md", "\n".join(_lines(setting, runs, plots)) + "\n")


def _methods(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(run.method for run in runs))


def _of(runs: Sequence[Run], method: str) -> list[Run]:
    return [run for run in runs if run.method == method]


def _row(setting: Setting, runs: Sequence[Run]) -> dict[str, Any]:
    """Return outcome, latencies in ms of answers in time, and by how many ms results came after their deadline."""
    outcome = setting.outcome(runs)
    late = [max(1e3 * answer.seconds - setting.deadline_ms, 0.0) for run in runs for answer in run.answers]
    return {
        **outcome.to_json(),
        "images": outcome.images,
        "p50_ms": _percentile([1e3 * each for each in outcome.times], 50),
        "p95_ms": _percentile([1e3 * each for each in outcome.times], 95),
        "late_p99_ms": _percentile(late, 99),
        "error": next((run.error for run in runs if run.error), None),
    }


def _percentile(values: Sequence[float], percent: float) -> float | None:
    return float(np.percentile(values, percent)) if values else None


def _frames(runs: Sequence[Run]) -> str:
    """Return a table of all images that had a result."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["trace", "delay_ms", "method", "taken_s", "ms", "path"])
    for run in runs:
        for answer in run.answers:
            times = [f"{answer.taken:.4f}", f"{1e3 * answer.seconds:.2f}"]
            rows.writerow([run.trace.name, f"{run.delay_ms:g}", run.method, *times, answer.path or ""])
    return text.getvalue()


def _lines(setting: Setting, runs: Sequence[Run], plots: Sequence[str]) -> Iterator[str]:
    """Yield the lines of bench.md."""
    pace = "one image after the other" if setting.fps is None else f"{setting.fps:g} images a second"
    yield f"# {setting.bundle}: deadlines of {setting.deadline_ms:g} ms on links that change"
    yield ""
    yield f"    {setting.command}"
    yield ""
    yield (
        f"{pace[0].upper()}{pace[1:]}, {setting.images} different images; {setting.machine}. Device and server are "
        "processes on this one machine, the link is a proxy with the rates of the traces in both directions: no loss, "
        "no packet headers. "
        "In time: percent of all images that were answered by the deadline, those included that the device had no "
        "time for. Top-1: mean over all images of the manifest's top-1 of the path that answered, 0 where none did. "
        "Bytes are TCP's payload from the device. Late: by how much results came after the deadline, the 99th "
        "percentile."
    )
    yield from _table(setting, "all traces", {method: _of(runs, method) for method in _methods(runs)})
    for name, delay in dict.fromkeys((run.trace.name, run.delay_ms) for run in runs):
        chosen = [run for run in runs if (run.trace.name, run.delay_ms) == (name, delay)]
        yield from _table(setting, f"{name}, {delay:g} ms each way", {run.method: [run] for run in chosen})
        if (plot := _plot_name(name, delay)) in plots:
            yield from ("", f"![The link's rate, and the latency of every image]({plot})")


def _table(setting: Setting, title: str, rows: Mapping[str, Sequence[Run]]) -> Iterator[str]:
    yield from ("", f"## {title}", "")
    yield "| | in time, % | top-1, % | bytes an image | p50, ms | p95, ms | late, ms | answered by |"
    yield "| :--- | ---: | ---: | ---: | ---: | ---: | ---: | :--- |"
    for method, runs in rows.items():
        row = _row(setting, runs)
        paths = ", ".join(f"{path} {share:.1f} %" for path, share in row["paths"].items())
        values = [f"{row['in_time']:.2f}", f"{row['top1']:.2f}", f"{row['bytes']:,.0f}"]
        values += ["-" if row[key] is None else f"{row[key]:.1f}" for key in ("p50_ms", "p95_ms", "late_p99_ms")]
        yield f"| {_name(method)} | {' | '.join(values)} | {row['error'] or (paths if method == AUTO else '')} |"


def _name(method: str) -> str:
    return {AUTO: "**auto**", LOCAL: "local only"}.get(method, method)


def _plot_name(trace: str, delay_ms: float) -> str:
    return f"{trace}-{delay_ms:g}ms.png"


def _draw(folder: Path, setting: Setting, runs: Sequence[Run]) -> list[str]:
    """Draw the policy's runs, and return the names of the files; without matplotlib a line says so."""
    try:
        from bottlefit_jax.links import timeline
    except ImportError:
        print(NO_PLOTS, file=sys.stderr)
        return []
    drawn = []
    for run in _of(runs, AUTO):
        name = _plot_name(run.trace.name, run.delay_ms)
        try:
            timeline.draw(
                folder / name, run, setting.outcome([run]), paths=list(setting.top1), deadline_ms=setting.deadline_ms
            )
        except BottleFitError as error:
            print(f"no {name}: {error}", file=sys.stderr)
        else:
            drawn.append(name)
    return drawn
