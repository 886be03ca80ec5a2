"""bench.json and bench.md: the same measurement for a program and for a person."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bottlefit_jax.edge.bench.summary import STEPS, Crossing, Row, as_json, at, crossings, winner
from bottlefit_jax.errors import UserError, is_disk_full

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
        count: pictures of each row.
        pictures: different ones that were taken in turns.
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
    pictures: int
    machine: str
    notes: Sequence[str]


def write(folder: Path, setting: Setting, rows: Sequence[Row], *, picture: str | None) -> None:
    """Writes bench.json and bench.md, which shows `picture` where there is one.

    Raises:
        UserError: they cannot be written.
    """
    found: dict[str, Any] = {
        **asdict(setting),
        "rows": as_json(rows),
        "crossings": [asdict(x) for x in crossings(rows)],
    }
    _write(folder / "bench.json", json.dumps(found, indent=1, allow_nan=False) + "\n")
    _write(folder / "bench.md", "\n".join(_lines(setting, rows, picture)) + "\n")


def _lines(setting: Setting, rows: Sequence[Row], picture: str | None) -> Iterator[str]:
    """The report."""
    yield f"# {setting.bundle}: split, local only, or JPEG"
    yield ""
    yield f"    {setting.command}"
    yield ""
    if picture:
        yield f"![latency against link rate]({picture})"
        yield ""
    yield from (f"- {note}" for note in _how(setting))
    for delay in sorted({row.delay_ms for row in rows}):
        yield ""
        yield f"## {delay:g} ms each way"
        yield ""
        yield from _table([row for row in rows if row.delay_ms == delay], energy=setting.energy is not None)
        yield ""
        yield from _sentences(rows, delay)


def _how(setting: Setting) -> Iterator[str]:
    """What a reader has to know before the numbers."""
    yield f"{setting.count} pictures a row, {setting.pictures} different ones in turns, on {setting.machine}."
    yield f"Link ({setting.link}): {setting.link_how}. The delay is one-way and added in each direction."
    yield f"Sent: {setting.counts}; mean of the row."
    unknown = "not known: no meter can be read here; --watts-compute, --watts-send and --watts-idle model it"
    yield f"Energy: {setting.energy or unknown}."
    if setting.slower != 1:
        yield (
            f"**A model of a device that computes {setting.slower:g} times as long as this machine**: prepare, head "
            "and quantizer are measured times multiplied; network, queue and tail are as measured."
        )
    yield (
        "Times are p50 / p95 / p99 in ms. prepare: to the network's input size, from a decoded picture. head: what the "
        "device computes, for JPEG writing the file, for local only the whole network. network: from leaving to "
        "answer, without the server's queue and tail. tail: the rest of the network on the server, for JPEG all of it."
    )
    yield from setting.notes


def _table(rows: Sequence[Row], *, energy: bool) -> Iterator[str]:
    """A row per rate and method; who wins a rate is bold."""
    heads = ["Mbit/s", "method", "total", *STEPS[:-1], "sent, bytes", *(["energy, mJ"] if energy else [])]
    yield f"| {' | '.join(heads)} |"
    yield f"|{'|'.join(['--:', ':--', *['--:'] * (len(heads) - 2)])}|"
    for rate in sorted({row.rate_mbit for row in rows}):
        here = [row for row in rows if row.rate_mbit == rate]
        best = winner(here)
        for row in here:
            bold = "**" if row is best else ""
            cells = [f"{rate:g}", f"{bold}{NAMES[row.method]}{bold}"]
            if row.error:
                cells += [row.error.replace("|", "/"), *["–"] * (len(heads) - 3)]
            else:
                cells.append(f"{bold}{_times(row, 'total')}{bold}")
                cells += [_times(row, step) for step in STEPS[:-1]]
                cells.append("–" if row.bytes_sent is None else f"{row.bytes_sent:,.0f}")
                if energy:
                    cells.append("–" if row.energy_mj is None else f"{row.energy_mj:,.1f}")
            yield f"| {' | '.join(cells)} |"


def _times(row: Row, step: str) -> str:
    """p50 / p95 / p99 of a step."""
    found = row.ms.get(step)
    return "–" if found is None or not any(found.values()) else " / ".join(_short(value) for value in found.values())


def _short(ms: float) -> str:
    return f"{ms:,.0f}" if ms >= 100 else f"{ms:.1f}" if ms >= 10 else f"{ms:.2f}"


def _sentences(rows: Sequence[Row], delay: float) -> Iterator[str]:
    """Who wins where, and every crossing."""
    found = [one for one in crossings(rows) if one.delay_ms == delay]
    yield " ".join([*(_crossing(one) for one in found), *_never(rows, delay, found)]) or "Nothing could be compared."


def _crossing(one: Crossing) -> str:
    return (
        f"From {one.rate_mbit:.2g} Mbit/s on, {NAMES[one.above]} is faster than {NAMES[one.below]} "
        f"(both take {one.ms:.3g} ms there)."
    )


def _never(rows: Sequence[Row], delay: float, found: Sequence[Crossing]) -> Iterator[str]:
    """A sentence for every pair of methods that never cross."""
    lines = at(rows, delay)
    crossed = {frozenset((one.below, one.above)) for one in found}
    for first, second in (("split", "jpeg"), ("split", "local"), ("jpeg", "local")):
        pairs = [
            (a, b)
            for one in lines[first]
            for other in lines[second]
            if one.rate_mbit == other.rate_mbit and (a := one.p(50)) is not None and (b := other.p(50)) is not None
        ]
        if pairs and frozenset((first, second)) not in crossed:
            better, worse = (first, second) if pairs[0][0] < pairs[0][1] else (second, first)
            beginning = NAMES[better] if NAMES[better] == "JPEG" else NAMES[better].capitalize()
            yield f"{beginning} is faster than {NAMES[worse]} at every rate measured."


def _write(path: Path, text: str) -> None:
    """Writes it beside its place, then moves it there."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        reason = "no space left on the disk" if is_disk_full(error) else error.strerror
        raise UserError(f"cannot write {path}: {reason}") from error
