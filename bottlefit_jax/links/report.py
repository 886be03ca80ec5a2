"""The report of a measurement: bench.json for programs, bench.md for people."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bottlefit_jax.files import write_text
from bottlefit_jax.links.summary import (
    MIN_IMAGES,
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
        command: the command line.
        link: kind of the link.
        link_how: how it is shaped, in words.
        counts: which bytes it counts, in words.
        energy: where the energy is from, in words; None without.
        slower: how many times as long the device is assumed to compute; 1: nothing is modelled.
        count: images of each row.
        images: the number of different images, which are taken in turns.
        machine: in words.
        notes: what a reader has to know.
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
    """Write bench.json and bench.md.

    Args:
        folder: for both.
        setting: of the measurement.
        rows: as measured.
        figure: file name of the plot, which bench.md shows; None without.

    Raises:
        UserError: a file cannot be written.
    """
    values: dict[str, Any] = {
        **asdict(setting),
        "rows": as_json(rows),
        "crossings": [asdict(crossing) for crossing in crossings(rows)],
    }
    write_text(folder / "bench.json", json.dumps(values, indent=1, allow_nan=False) + "\n")
    write_text(folder / "bench.md", "\n".join(_lines(setting, rows, figure)) + "\n")


def _lines(setting: Setting, rows: Sequence[Row], figure: str | None) -> Iterator[str]:
    """Yield the lines of bench.md."""
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
    """Yield what a reader has to know before the numbers."""
    yield f"{setting.count} images a row, {setting.images} different ones in turns, on {setting.machine}."
    shaped = "" if setting.link == "direct" else " The delay is one-way and added in each direction."
    yield f"Link ({setting.link}): {setting.link_how}.{shaped}"
    yield f"Sent: {setting.counts}; mean of the row."
    unknown = "unknown, as no meter can be read here; --watts-compute, --watts-send and --watts-idle model it"
    yield f"Energy: {setting.energy or unknown}."
    if setting.slower != 1:
        yield (
            f"**A model of a device that computes {setting.slower:g} times as long as this machine**: preprocess, "
            "head, quantizer and encode are measured times multiplied; the other steps are as measured."
        )
    shown = [f"p{p}" for p, fewest in PERCENTILES.items() if setting.count >= fewest]
    absent = [f"p{p} needs {fewest:,} images a row" for p, fewest in PERCENTILES.items() if setting.count < fewest]
    yield (
        f"Times are {' / '.join(shown)} in ms{''.join(f'; {text}' for text in absent)}. The interval holds the median "
        "of the total with 95 %. A method is called faster, and is bold, only where its interval is below the other's."
    )
    yield (
        "preprocess: from a decoded image to the network's input size. head: what the device computes; for JPEG the "
        "encoding, for local only the whole network. encode: from the latent to the payload. network: from the request "
        "to the answer, without the server's queue, decode and tail. decode: from the payloads of a batch to latents. "
        "tail: the rest of the network on the server; for JPEG all of it."
    )
    yield from setting.notes


def _table(rows: Sequence[Row], *, energy: bool) -> Iterator[str]:
    """Yield a table with a row for each rate and method; the fastest method of a rate is bold."""
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
    """Return p50 / p95 / p99 of a step."""
    times = row.ms.get(step)
    return "–" if times is None or not any(times.values()) else " / ".join(_short(value) for value in times.values())


def _short(ms: float) -> str:
    return f"{ms:,.0f}" if ms >= 100 else f"{ms:.1f}" if ms >= 10 else f"{ms:.2f}"


def _sentences(rows: Sequence[Row], delay: float | None) -> Iterator[str]:
    """Yield one paragraph: every crossing, and for each two methods which is faster at which rates."""
    here, lines = [crossing for crossing in crossings(rows) if crossing.delay_ms == delay], at(rows, delay)
    sentences = [_crossing(crossing) for crossing in here]
    crossed = {frozenset((crossing.below, crossing.above)) for crossing in here}
    for first, second in (("split", "jpeg"), ("split", "local"), ("jpeg", "local")):
        both = pairs(lines, first, second)
        if both and any(row.interval is None for pair in both for row in pair):
            sentences.append(
                f"{_beginning(first)} and {NAMES[second]} are not compared: an interval needs {MIN_IMAGES} images "
                "a row, better --count 50."
            )
        elif both:
            sentences += _compared(both, crossed=frozenset((first, second)) in crossed)
    yield " ".join(sentences) or "Nothing could be compared."


def _crossing(crossing: Crossing) -> str:
    low, high = crossing.between
    return (
        f"From {crossing.rate_mbit:.2g} Mbit/s on, {NAMES[crossing.above]} is faster than {NAMES[crossing.below]}: the "
        f"lines meet there at {crossing.ms:.3g} ms, the intervals do not overlap at {low:g} and {high:g} Mbit/s."
    )


def _compared(both: Sequence[tuple[Row, Row]], *, crossed: bool) -> Iterator[str]:
    """Yield at which rates which method is faster, unless a crossing says it, and at which rates neither is."""
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
            "intervals overlap; more images (--count) or a quieter machine may separate them."
        )


def _at(rates: Sequence[float | None], *, of: int) -> str:
    """Return at which of `of` rates, in words."""
    if None in rates:
        return " on this link"
    if len(rates) == of:
        return " at every rate measured" if of > 1 else f" at {rates[0]:g} Mbit/s"
    return f" at {', '.join(f'{rate:g}' for rate in rates)} Mbit/s"


def _warnings(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a line about disturbed rows, in which something else than the method took time."""
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
    """Return the name of a method for the beginning of a sentence."""
    return NAMES[method][0].upper() + NAMES[method][1:]
