"""`compare.md` for people and `compare.json` for scripts: what BottleFit saves against what else a user could do.

The sentences above the table are computed from its rows, and say who wins whichever way it goes. A difference that the
seeds do not settle is called one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bottlefit_jax.evaluation.alternatives import interval
from bottlefit_jax.evaluation.markdown import bytes_text, count_text, markdown_table
from bottlefit_jax.evaluation.report import plain_values
from bottlefit_jax.evaluation.report_text import DROP_GOAL
from bottlefit_jax.files import write_text

RATE_ACCURACY, LATENCY = "compare_rate_accuracy.png", "compare_latency.png"
OURS = ("bottlefit", "bottlefit-patch")
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
        comparison: what `compare.json` is to hold. NumPy and JAX scalars are fine.
        command: what a reader types to get the same result, or None.

    Raises:
        ValueError: a number is NaN or infinite: a bug of ours. Nothing has been written.
        UserError: a file cannot be written (full disk, no such folder, no permission).
    """
    told = plain_values(comparison)
    as_json = json.dumps(told, indent=2, allow_nan=False) + "\n"
    write_text(workdir / "compare.md", _markdown(told, workdir, command))
    write_text(workdir / "compare.json", as_json)


def measured(row: dict) -> bool:
    """Return whether a row has an accuracy and a size: whether its method did not fail."""
    return not row["error"] and row["top1"] is not None and row["bytes"] is not None


def within_goal(row: dict) -> bool:
    """Return whether a measured row loses no more than the paper's 0.6 points, in the digits that are shown."""
    return round(row["drop_points"], 2) <= DROP_GOAL


def best(rows: Sequence[dict]) -> dict:
    """Choose among measured rows: the fewest bytes within the goal, or the smallest drop where none is within it."""
    near = [row for row in rows if within_goal(row)]
    if near:
        return min(near, key=lambda row: (row["bytes"]["mean"], row["drop_points"]))
    return min(rows, key=lambda row: (row["drop_points"], row["bytes"]["mean"]))


def named(row: dict) -> str:
    """Return what a person calls a row: "JPEG, quality 50"."""
    return ", ".join(part for part in (row["title"], row["setting"]) if part)


def _markdown(comparison: dict, workdir: Path, command: str | None) -> str:
    """Put the whole text together."""
    teacher, dataset = comparison["teacher"], comparison["dataset"]
    rates = f"![Top-1 against bytes per image, a marker per method and setting]({RATE_ACCURACY})"
    links = f"![Time for an image against the rate of the link, a line per method]({LATENCY})"
    blocks = [
        f"# {teacher['name']} on {dataset}: what else a user could do",
        _headline(comparison),
        *_verdict(comparison),
        *_failures(comparison["rows"]),
        *([rates] if (workdir / RATE_ACCURACY).exists() else []),
        _table(comparison),
        _legend(comparison),
        *([links] if (workdir / LATENCY).exists() else []),
        *(["\n".join(f"- {_one_line(note)}" for note in comparison["notes"])] if comparison["notes"] else []),
        "## Reproduce",
        *([f"```sh\n{command.strip()}\n```"] if command else []),
        "Every number, seed by seed, is in [compare.json](compare.json).",
        "## Made with",
        ", ".join(f"{name} {value}" for name, value in comparison["versions"].items()),
    ]
    return "\n\n".join(blocks) + "\n"


def _rivals(rows: Sequence[dict]) -> list[dict]:
    """Return the measured rows that need a link; the whole classifier on the device sends nothing by definition."""
    return [row for row in rows if measured(row) and row["method"] != "local"]


def _headline(comparison: dict) -> str:
    """Say who stays near the teacher, who of them sends the fewest bytes, and how much fewer than JPEG that is."""
    rows, teacher, jpeg = _rivals(comparison["rows"]), comparison["teacher"], comparison["jpeg95_bytes"]
    goal = f"{DROP_GOAL} points of the teacher ({teacher['top1']:.2f} % top-1)"
    near = [row for row in rows if within_goal(row)]
    sending = [row for row in near if row["bytes"]["mean"] > 0]
    if not near:
        if not rows:
            return "Nothing that uses a link was measured."
        row = best(rows)
        return (
            f"**Nothing that uses a link stays within {goal}**; the nearest is {named(row)}, which loses "
            f"{row['drop_points']:.2f} points with {bytes_text(row['bytes']['mean'])} per image, "
            f"{_against_jpeg(row, jpeg)}."
        )
    stay = f"Within {goal} {'lies' if len(near) == 1 else 'lie'} {_listed(near)}"
    if not sending:
        return f"{stay}, and none of them sends anything."
    fewest = min(round(row["bytes"]["mean"]) for row in sending)
    first = [row for row in sending if round(row["bytes"]["mean"]) == fewest]
    who = _joined([named(row) for row in first])
    return (
        f"{stay}; of these **{who} {'sends' if len(first) == 1 else 'send'} the fewest bytes, {fewest:,} per "
        f"image**, {_against_jpeg(first[0], jpeg)}."
    )


def _verdict(comparison: dict) -> list[str]:
    """Say how BottleFit's best row stands: what it sends and loses, and whether another method beats it."""
    rows = _rivals(comparison["rows"])
    mine = [row for row in rows if row["method"] in OURS]
    if not mine:
        return []
    row = best(mine)
    loses = round(row["drop_points"], 2)
    lost = (
        f"{abs(loses):.2f} points {'less' if loses > 0 else 'more'} than the teacher" if loses else "as the teacher has"
    )
    stands = (
        f"BottleFit's best row is {named(row)}: {bytes_text(row['bytes']['mean'])} per image, "
        f"{_against_jpeg(row, comparison['jpeg95_bytes'])}, and {row['top1']['mean']:.2f} % top-1, {lost}."
    )
    others = [other for other in rows if other["method"] not in OURS]
    frugal = [other for other in others if round(other["bytes"]["mean"]) <= round(row["bytes"]["mean"])]
    by_method: dict[str, dict] = {}
    for other in sorted(frugal, key=lambda other: -other["top1"]["mean"]):
        by_method.setdefault(other["method"], other)  # the most accurate of each
    ahead = [other for other in by_method.values() if _lead(other, row) > 0]
    if ahead:
        by = [f"{_standing(other)}, {_difference(other, row)}{_effort(other, row)}" for other in ahead]
        beaten = _joined(by, "; and by ", "; by ")
        told = [f"{stands} **It is beaten** with no more bytes by {beaten}."]
        level = [other for other in by_method.values() if _lead(other, row) <= 0 and not _settled(other, row)]
        if level:
            listed = _joined([f"{_standing(other)}, {_difference(other, row)}" for other in level], "; and ", "; ")
            told.append(f"Undecided: {listed}.")
        return [" ".join(told)]
    if not others:
        return [f"{stands} No other method that uses a link was measured."]
    if not by_method:
        return [f"{stands} No other method sends as little."]
    nearest = next(iter(by_method.values()))
    return [
        f"{stands} No other method with as few bytes is right more often; the nearest is {_standing(nearest)}, "
        f"{_difference(nearest, row)}."
    ]


def _lead(row: dict, over: dict) -> float:
    """Return by how many points of top-1 a row is ahead of another, in the digits that are shown."""
    return round(row["top1"]["mean"] - over["top1"]["mean"], 2)


def _standing(row: dict) -> str:
    return f"{named(row)} ({bytes_text(row['bytes']['mean'])}, {row['top1']['mean']:.2f} %)"


def _difference(other: dict, row: dict) -> str:
    """Say by how much two rows differ, and whether the seeds settle it."""
    lead = _lead(other, row)
    points = f"{abs(lead):.2f} points {'more' if lead > 0 else 'less'}" if lead else "just as often right"
    spreads = _spreads(other, row)
    if not spreads:
        return f"{points} (one seed: the spread is not known)"
    if not _settled(other, row):
        return f"{points}, which is **within the seeds' spread** ({' and '.join(f'± {one:.2f}' for one in spreads)})"
    return points


def _spreads(*rows: dict) -> list[float]:
    return [spread for row in rows if (spread := row["top1"]["std"]) is not None]


def _settled(other: dict, row: dict) -> bool:
    """Return whether two rows differ by more than their seeds do, as far as that is known."""
    spreads = _spreads(other, row)
    return not spreads or abs(_lead(other, row)) > sum(spreads)


def _effort(other: dict, row: dict) -> str:
    """Say what the device computes for the lead, where it is not the same."""
    if not (other["macs"] and row["macs"]) or 0.95 < (ratio := other["macs"] / row["macs"]) < 1.05:
        return ""
    return f", for {ratio:.2g} times the multiply-adds on the device"


def _failures(rows: Sequence[dict]) -> list[str]:
    failed = list(dict.fromkeys(named(row) for row in rows if not measured(row)))
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
            f"{title} ({_settings(found)})" if len(found) > 1 else ", ".join(part for part in (title, *found) if part)
            for title, found in settings.items()
        ]
    )


def _settings(settings: Sequence[str]) -> str:
    """Write "quality 70, 90" for "quality 70" and "quality 90", "4, 8 channels" likewise, and count more than three."""
    if len(settings) > 3:
        return f"{len(settings)} settings"
    words = [setting.split() for setting in settings]
    if all(len(found) == 2 for found in words):
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
    why = f"failed: {_one_line(row['error'] or 'it gave no numbers')}"
    return (row["title"], row["setting"] or NOTHING, why, *[NOTHING] * (len(_HEADING) - 3))


def _spread(value: dict[str, Any] | None) -> str:
    """Write "84.90 ± 0.20", or the mean alone where there is nothing to spread."""
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
    """Say what the columns are."""
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
