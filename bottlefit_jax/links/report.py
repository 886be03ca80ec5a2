"""bench.json and bench.md: the same measurement for a program and for a person."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bottlefit_jax.files import write_text
from bottlefit_jax.links.summary import (
    LEAST_IMAGES,
    NOISY,
    PERCENTILES,
    STEPS,
    Crossing,
    Row,
    as_json,
    at,
    crossings,
    delays,
    faster,
    pairs,
    winner,
)

NAMES = {"split": "split", "local": "local only", "jpeg": "JPEG"}


@dataclass(frozen=True)
class Setting:
    """What was measured, and how.

    Attributes:
        bundle: name and version.
        command: what was typed.
        link, link_how, counts: kind of the link, how it is shaped, what its bytes are, in words.
        energy: where it is from, in words; None without.
        slower: how many times as long the device is taken to compute as it did; 1: all was measured.
        count: images of each row.
        images: different ones that were taken in turns.
        machine: in words.
        notes: what a reader has to know, a sentence each.
    """

    bundle: str
    command: str
    link: str
    link_how: str
    counts: str
    energy: str | None
    slower: float
    count: int
    images: int
    machine: str
    notes: Sequence[str]


def write(folder: Path, setting: Setting, rows: Sequence[Row], *, figure: str | None) -> None:
    """Write bench.json and bench.md, which shows `figure` where there is one.

    Raises:
        UserError: they cannot be written.
    """
    found: dict[str, Any] = {
        **asdict(setting),
        "rows": as_json(rows),
        "crossings": [asdict(x) for x in crossings(rows)],
    }
    write_text(folder / "bench.json", json.dumps(found, indent=1, allow_nan=False) + "\n")
    write_text(folder / "bench.md", "\n".join(_lines(setting, rows, figure)) + "\n")


def _lines(setting: Setting, rows: Sequence[Row], figure: str | None) -> Iterator[str]:
    """The report."""
    yield f"# {setting.bundle}: split, local only, or JPEG"
    yield ""
    yield f"    {setting.command}"
    yield ""
    if figure:
        yield f"![latency against link rate]({figure})"
        yield ""
    yield from (f"- {note}" for note in _how(setting))
    for delay in delays(rows):
        here = [row for row in rows if row.delay_ms == delay]
        yield ""
        yield "## The link as it is" if delay is None else f"## {delay:g} ms each way"
        yield ""
        yield from _table(here, energy=setting.energy is not None)
        yield ""
        yield from _sentences(rows, delay)
        yield from _warnings(here)


def _how(setting: Setting) -> Iterator[str]:
    """What a reader has to know before the numbers."""
    yield f"{setting.count} images a row, {setting.images} different ones in turns, on {setting.machine}."
    shaped = "" if setting.link == "direct" else " The delay is one-way and added in each direction."
    yield f"Link ({setting.link}): {setting.link_how}.{shaped}"
    yield f"Sent: {setting.counts}; mean of the row."
    unknown = "not known: no meter can be read here; --watts-compute, --watts-send and --watts-idle model it"
    yield f"Energy: {setting.energy or unknown}."
    if setting.slower != 1:
        yield (
            f"**A model of a device that computes {setting.slower:g} times as long as this machine**: prepare, head "
            "and quantizer are measured times multiplied; network, queue and tail are as measured."
        )
    given = [f"p{p}" for p, least in PERCENTILES.items() if setting.count >= least]
    fewer = [f"p{p} takes {least:,} images a row" for p, least in PERCENTILES.items() if setting.count < least]
    yield (
        f"Times are {' / '.join(given)} in ms{''.join(f'; {one}' for one in fewer)}. The interval holds the median of "
        "the total with 95 %; a method is called faster, and is bold, only where its interval lies below the other's."
    )
    yield (
        "prepare: to the network's input size, from a decoded image. head: what the device computes, for JPEG "
        "writing the file, for local only the whole network. network: from leaving to answer, without the server's "
        "queue and tail. tail: the rest of the network on the server, for JPEG all of it."
    )
    yield from setting.notes


def _table(rows: Sequence[Row], *, energy: bool) -> Iterator[str]:
    """A row per rate and method; who wins a rate is bold."""
    heads = [
        "Mbit/s",
        "method",
        "total",
        "interval of p50",
        *STEPS[:-1],
        "sent, bytes",
        *(["energy, mJ"] if energy else []),
    ]
    yield f"| {' | '.join(heads)} |"
    yield f"|{'|'.join(['--:', ':--', *['--:'] * (len(heads) - 2)])}|"
    for rate in sorted({row.rate_mbit for row in rows}, key=lambda rate: rate or 0.0):
        here = [row for row in rows if row.rate_mbit == rate]
        best = winner(here)
        for row in here:
            bold = "**" if row is best else ""
            cells = ["–" if rate is None else f"{rate:g}", f"{bold}{NAMES[row.method]}{bold}"]
            if row.error:
                cells += [row.error.replace("|", "/"), *["–"] * (len(heads) - 3)]
            else:
                cells.append(f"{bold}{_times(row, 'total')}{bold}")
                cells.append("–" if row.interval is None else " to ".join(_short(value) for value in row.interval))
                cells += [_times(row, step) for step in STEPS[:-1]]
                sent = row.payload if row.bytes_sent is None else row.bytes_sent
                cells.append("–" if sent is None else f"{sent:,.0f}")
                if energy:
                    cells.append("–" if row.energy_mj is None else f"{row.energy_mj:,.1f}")
            yield f"| {' | '.join(cells)} |"


def _times(row: Row, step: str) -> str:
    """p50 / p95 / p99 of a step."""
    found = row.ms.get(step)
    return "–" if found is None or not any(found.values()) else " / ".join(_short(value) for value in found.values())


def _short(ms: float) -> str:
    return f"{ms:,.0f}" if ms >= 100 else f"{ms:.1f}" if ms >= 10 else f"{ms:.2f}"


def _sentences(rows: Sequence[Row], delay: float | None) -> Iterator[str]:
    """Every crossing, and who is faster where, for each two methods that were measured on the same links."""
    found, lines = [one for one in crossings(rows) if one.delay_ms == delay], at(rows, delay)
    sentences = [_crossing(one) for one in found]
    crossed = {frozenset((one.below, one.above)) for one in found}
    for first, second in (("split", "jpeg"), ("split", "local"), ("jpeg", "local")):
        both = pairs(lines, first, second)
        if both and any(row.interval is None for pair in both for row in pair):
            sentences.append(
                f"{_beginning(first)} and {NAMES[second]} are not compared: an interval takes {LEAST_IMAGES} images "
                "a row, better --count 50."
            )
        elif both:
            sentences += _compared(both, crossed=frozenset((first, second)) in crossed)
    yield " ".join(sentences) or "Nothing could be compared."


def _crossing(one: Crossing) -> str:
    low, high = one.between
    return (
        f"From {one.rate_mbit:.2g} Mbit/s on, {NAMES[one.above]} is faster than {NAMES[one.below]}: the lines meet "
        f"there at {one.ms:.3g} ms, the intervals part at {low:g} and {high:g} Mbit/s."
    )


def _compared(both: Sequence[tuple[Row, Row]], *, crossed: bool) -> Iterator[str]:
    """Who is faster at which rates, where no crossing says it, and at which rates nothing is decided."""
    first, second = (row.method for row in both[0])
    rates: dict[int, list[float | None]] = {-1: [], 0: [], 1: []}
    for one, other in both:
        rates[faster(one, other)].append(one.rate_mbit)
    for sign, better, worse in ((-1, first, second), (1, second, first)):
        if rates[sign] and not crossed:
            yield f"{_beginning(better)} is faster than {NAMES[worse]}{_at(rates[sign], of=len(both))}."
    if rates[0]:
        yield (
            f"**{_beginning(first)} and {NAMES[second]} are not distinguished{_at(rates[0], of=len(both))}**: their "
            "intervals overlap; more images (--count) or a quieter machine may part them."
        )


def _at(rates: Sequence[float | None], *, of: int) -> str:
    """At which of `of` rates, in words."""
    if None in rates:
        return " on this link"
    if len(rates) == of:
        return " at every rate measured" if of > 1 else f" at {rates[0]:g} Mbit/s"
    return f" at {', '.join(f'{rate:g}' for rate in rates)} Mbit/s"


def _warnings(rows: Sequence[Row]) -> Iterator[str]:
    """A line about rows in which something else than the method took time."""
    noisy = [row for row in rows if row.noisy]
    if noisy:
        worst = max(noisy, key=lambda row: (row.p(95) or 0.0) / (row.p(50) or 1.0))
        where = "" if worst.rate_mbit is None else f" at {worst.rate_mbit:g} Mbit/s"
        yield ""
        yield (
            f"**Disturbed**: {len(noisy)} of {len(rows)} rows have a p95 above {NOISY:g} times their p50, "
            f"{NAMES[worst.method]}{where} {(worst.p(95) or 0.0) / (worst.p(50) or 1.0):.0f} times. Something else ran "
            "on this machine or on the link: measure again before you rely on these."
        )


def _beginning(method: str) -> str:
    """The name of a method at the beginning of a sentence."""
    return NAMES[method][0].upper() + NAMES[method][1:]
