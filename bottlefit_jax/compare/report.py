"""`compare.md` for people and `compare.json` for scripts: what BottleFit saves against what else a user could do.

The sentences above the table are computed from its rows, and name the winner whichever way it goes. Where the spread of
the seeds is larger than a difference, the text says so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bottlefit_jax.compare.methods import OURS
from bottlefit_jax.compare.same_bytes import same_bytes_text
from bottlefit_jax.evaluation.alternatives import interval
from bottlefit_jax.evaluation.markdown import bytes_text, count_text, markdown_table
from bottlefit_jax.evaluation.report import plain_values
from bottlefit_jax.evaluation.report_text import DROP_GOAL
from bottlefit_jax.files import write_text

RATE_ACCURACY, LATENCY = "compare_rate_accuracy.png", "compare_latency.png"
NOTHING = "–"

_HEADING = (
    "method",
    "setting",
    "top-1 %",
    "top-5 %",
    "drop, points",
    "bytes, mean",
    "bytes, p95",
    "saving vs JPEG 95, %",
    "parameters on the device",
    "multiply-adds on the device",
    "device, ms",
    "server, ms",
)


def write_comparison(workdir: Path, comparison: dict, *, command: str | None) -> None:
    """Write `compare.md` and `compare.json`; each appears complete or not at all, the JSON last.

    Args:
        workdir: the comparison's folder. Plots that it already holds are shown in the text, so draw them first.
        comparison: the content of `compare.json`. NumPy and JAX scalars are fine.
        command: what a reader types to get the same result, or None.

    Raises:
        ValueError: a number is NaN or infinite: a bug of ours. Nothing has been written.
        UserError: a file cannot be written (full disk, no such folder, no permission).
    """
    plain = plain_values(comparison)
    as_json = json.dumps(plain, indent=2, allow_nan=False) + "\n"
    write_text(workdir / "compare.md", _markdown(plain, workdir, command))
    write_text(workdir / "compare.json", as_json)


def measured(row: dict) -> bool:
    """Return whether a row has an accuracy and a size: whether its method did not fail."""
    return not row["error"] and row["top1"] is not None and row["bytes"] is not None


def within_goal(row: dict) -> bool:
    """Return whether a measured row loses at most the 0.6 points of the paper, in the digits that are shown."""
    return round(row["drop_points"], 2) <= DROP_GOAL


def best(rows: Sequence[dict]) -> dict:
    """Choose among measured rows: the fewest bytes within the goal, or the smallest drop where none is within it."""
    near = [row for row in rows if within_goal(row)]
    if near:
        return min(near, key=lambda row: (row["bytes"]["mean"], row["drop_points"]))
    return min(rows, key=lambda row: (row["drop_points"], row["bytes"]["mean"]))


def row_name(row: dict) -> str:
    """Return the name of a row for people: "JPEG, quality 50"."""
    return ", ".join(part for part in (row["title"], row["setting"]) if part)


def _markdown(comparison: dict, workdir: Path, command: str | None) -> str:
    """Write the whole text."""
    teacher, dataset = comparison["teacher"], comparison["dataset"]
    rates = f"![Top-1 against bytes per image, a marker per method and setting, a curve per method]({RATE_ACCURACY})"
    latencies = f"![Time for an image against the rate of the link, a line per method]({LATENCY})"
    blocks = [
        f"# {teacher['name']} on {dataset}: what else a user could do",
        _headline(comparison),
        *_verdict(comparison),
        *_failures(comparison["rows"]),
        *([rates] if (workdir / RATE_ACCURACY).exists() else []),
        _table(comparison),
        _legend(comparison),
        *same_bytes_text(comparison["same_bytes"]),
        *([latencies] if (workdir / LATENCY).exists() else []),
        *(["\n".join(f"- {_one_line(note)}" for note in comparison["notes"])] if comparison["notes"] else []),
        "## Reproduce",
        *([f"```sh\n{command.strip()}\n```"] if command else []),
        "Every number, seed by seed, is in [compare.json](compare.json).",
        "## Made with",
        ", ".join(f"{name} {value}" for name, value in comparison["versions"].items()),
    ]
    return "\n\n".join(blocks) + "\n"


def _rows_with_link(rows: Sequence[dict]) -> list[dict]:
    """Return the measured rows that use a link: all but the whole classifier on the device."""
    return [row for row in rows if measured(row) and row["method"] != "local"]


def _headline(comparison: dict) -> str:
    """Name the rows near the teacher, which of them send the fewest bytes, and how many fewer than JPEG that is."""
    rows, teacher, jpeg = _rows_with_link(comparison["rows"]), comparison["teacher"], comparison["jpeg95_bytes"]
    goal = f"{DROP_GOAL} points of the teacher ({teacher['top1']:.2f} % top-1)"
    near = [row for row in rows if within_goal(row)]
    sending = [row for row in near if row["bytes"]["mean"] > 0]
    if not near:
        if not rows:
            return "No method that uses a link was measured."
        row = best(rows)
        return (
            f"**No method that uses a link stays within {goal}**; the nearest is {row_name(row)}, which loses "
            f"{row['drop_points']:.2f} points with {bytes_text(row['bytes']['mean'])} per image, "
            f"{_against_jpeg(row, jpeg)}."
        )
    within = f"Within {goal} {'lies' if len(near) == 1 else 'lie'} {_listed(near)}"
    if not sending:
        return f"{within}, and none of them sends anything."
    fewest = min(round(row["bytes"]["mean"]) for row in sending)
    first = [row for row in sending if round(row["bytes"]["mean"]) == fewest]
    names = _joined([row_name(row) for row in first])
    return (
        f"{within}; of these **{names} {'sends' if len(first) == 1 else 'send'} the fewest bytes, {fewest:,} per "
        f"image**, {_against_jpeg(first[0], jpeg)}."
    )


def _verdict(comparison: dict) -> list[str]:
    """State what BottleFit's best row sends and loses, and whether another method beats it."""
    rows = _rows_with_link(comparison["rows"])
    ours = [row for row in rows if row["method"] in OURS]
    if not ours:
        return []
    row = best(ours)
    loses = round(row["drop_points"], 2)
    lost = f"{abs(loses):.2f} points {'less' if loses > 0 else 'more'} than the teacher" if loses else "as the teacher"
    summary = (
        f"BottleFit's best row is {row_name(row)}: {bytes_text(row['bytes']['mean'])} per image, "
        f"{_against_jpeg(row, comparison['jpeg95_bytes'])}, and {row['top1']['mean']:.2f} % top-1, {lost}."
    )
    others = [other for other in rows if other["method"] not in OURS]
    as_small = [other for other in others if round(other["bytes"]["mean"]) <= round(row["bytes"]["mean"])]
    by_method: dict[str, dict] = {}
    for other in sorted(as_small, key=lambda other: -other["top1"]["mean"]):
        by_method.setdefault(other["method"], other)  # the most accurate of each
    ahead = [other for other in by_method.values() if _lead(other, row) > 0]
    if ahead:
        by = [f"{_described(other)}, {_difference(other, row)}{_effort(other, row)}" for other in ahead]
        beaten = _joined(by, "; and by ", "; by ")
        sentences = [f"{summary} **It is beaten** with no more bytes by {beaten}."]
        undecided = [other for other in by_method.values() if _lead(other, row) <= 0 and not _settled(other, row)]
        if undecided:
            listed = _joined([f"{_described(other)}, {_difference(other, row)}" for other in undecided], "; and ", "; ")
            sentences.append(f"Undecided: {listed}.")
        return [" ".join(sentences)]
    if not others:
        return [f"{summary} No other method that uses a link was measured."]
    if not by_method:
        return [f"{summary} No other method sends as little."]
    nearest = next(iter(by_method.values()))
    return [
        f"{summary} No other method with as few bytes is more accurate; the nearest is {_described(nearest)}, "
        f"{_difference(nearest, row)}."
    ]


def _lead(row: dict, over: dict) -> float:
    """Return by how many points of top-1 a row is ahead of another, in the digits that are shown."""
    return round(row["top1"]["mean"] - over["top1"]["mean"], 2)


def _described(row: dict) -> str:
    return f"{row_name(row)} ({bytes_text(row['bytes']['mean'])}, {row['top1']['mean']:.2f} %)"


def _difference(other: dict, row: dict) -> str:
    """Write by how much two rows differ, and whether that is more than the spread of the seeds."""
    lead = _lead(other, row)
    points = f"{abs(lead):.2f} points {'more' if lead > 0 else 'less'}" if lead else "equally accurate"
    spreads = _spreads(other, row)
    if not spreads:
        return f"{points} (one seed: the spread is not known)"
    if not _settled(other, row):
        return f"{points}, which is **within the seeds' spread** ({' and '.join(f'± {one:.2f}' for one in spreads)})"
    return points


def _spreads(*rows: dict) -> list[float]:
    return [spread for row in rows if (spread := row["top1"]["std"]) is not None]


def _settled(other: dict, row: dict) -> bool:
    """Return whether two rows differ by more than the spread of their seeds, as far as that is known."""
    spreads = _spreads(other, row)
    return not spreads or abs(_lead(other, row)) > sum(spreads)


def _effort(other: dict, row: dict) -> str:
    """Write how much more or less the device computes for the lead, where the costs differ."""
    if not (other["macs"] and row["macs"]) or 0.95 < (ratio := other["macs"] / row["macs"]) < 1.05:
        return ""
    return f", for {ratio:.2g} times the multiply-adds on the device"


def _failures(rows: Sequence[dict]) -> list[str]:
    failed = list(dict.fromkeys(row_name(row) for row in rows if not measured(row)))
    return [f"Not measured, see the table for the reason: {_joined(failed)}."] if failed else []


def _against_jpeg(row: dict, jpeg: float) -> str:
    saving = _saving(row, jpeg)
    change = f"{abs(saving):.1f} % {'less' if saving >= 0 else '**more**'}"
    return f"{change} than JPEG at quality 95 ({bytes_text(jpeg)})"


def _saving(row: dict, jpeg: float) -> float:
    return 100 * (1 - row["bytes"]["mean"] / jpeg)


def _listed(rows: Sequence[dict]) -> str:
    """Name rows, the settings of a method once: "GHND, JPEG (quality 70, 90) and BottleFit"."""
    settings: dict[str, list[str]] = {}
    for row in rows:
        settings.setdefault(row["title"], []).append(row["setting"])
    return _joined(
        [
            f"{title} ({_settings(each)})" if len(each) > 1 else ", ".join(part for part in (title, *each) if part)
            for title, each in settings.items()
        ]
    )


def _settings(settings: Sequence[str]) -> str:
    """Write "quality 70, 90" for "quality 70" and "quality 90", "4, 8 channels" likewise, and count more than three."""
    if len(settings) > 3:
        return f"{len(settings)} settings"
    words = [setting.split() for setting in settings]
    if all(len(pair) == 2 for pair in words):
        if len({first for first, _ in words}) == 1:
            return f"{words[0][0]} {', '.join(last for _, last in words)}"
        if len({last for _, last in words}) == 1:
            return f"{', '.join(first for first, _ in words)} {words[0][1]}"
    return ", ".join(settings)


def _joined(parts: Sequence[str], last: str = " and ", between: str = ", ") -> str:
    return parts[0] if len(parts) == 1 else between.join(parts[:-1]) + last + parts[-1]


def _table(comparison: dict) -> str:
    """Write the one table, a row per method and setting in the order that was given."""
    cells = [_failed(row) if not measured(row) else _cells(row, comparison) for row in comparison["rows"]]
    return markdown_table([_HEADING, *cells], "ll" + "r" * (len(_HEADING) - 2))


def _cells(row: dict, comparison: dict) -> tuple[str, ...]:
    size, ms = row["bytes"], row["ms"] or {}
    return (
        row["title"],
        row["setting"] or NOTHING,
        _spread(row["top1"]),
        _spread(row["top5"]),
        f"{round(row['drop_points'], 2) + 0.0:.2f}",  # + 0.0: there is no -0.00
        f"{size['mean']:,.0f}",
        NOTHING if size["p95"] is None else f"{size['p95']:,.0f}",
        f"{round(_saving(row, comparison['jpeg95_bytes']), 1) + 0.0:.1f}",
        NOTHING if row["params"] is None else count_text(row["params"]),
        NOTHING if row["macs"] is None else count_text(row["macs"]),
        _ms(ms.get("device")),
        _ms(ms.get("server")),
    )


def _failed(row: dict) -> tuple[str, ...]:
    reason = f"failed: {_one_line(row['error'] or 'it gave no numbers')}"
    return (row["title"], row["setting"] or NOTHING, reason, *[NOTHING] * (len(_HEADING) - 3))


def _spread(value: dict[str, Any] | None) -> str:
    """Write "84.90 ± 0.20", or the mean alone where there is no standard deviation."""
    if value is None:
        return NOTHING
    return f"{value['mean']:.2f}" if value["std"] is None else f"{value['mean']:.2f} ± {value['std']:.2f}"


def _ms(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _one_line(text: str) -> str:
    return " ".join(str(text).split())


def _legend(comparison: dict) -> str:
    """Explain the columns."""
    teacher, seeds = comparison["teacher"], [str(seed) for seed in comparison["seeds"]]
    if len(seeds) > 1:
        trained = f" Trained rows are mean ± standard deviation over the seeds {_joined(seeds)}."
    else:
        trained = f" Trained rows are from seed {seeds[0]} alone." if seeds else ""
    low, high = interval(teacher["top1"], comparison["images"])
    return (
        f"{comparison['images']:,} images of {comparison['dataset']} at {comparison['image_size']} pixels. The "
        f"teacher, {teacher['name']}, has {teacher['top1']:.2f} % top-1 (95 % interval for so many images: {low:.2f} "
        f"to {high:.2f}) and {teacher['top5']:.2f} % top-5.{trained} "
        f"Bytes are per image, {bytes_text(comparison['jpeg95_bytes'])} as JPEG at quality 95. Times are medians on "
        f"one core of the measuring machine. {NOTHING} is not measured."
    )
