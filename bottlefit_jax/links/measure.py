"""Measures every method over every link. A measurement that fails or is interrupted gives a row with the reason."""

import contextlib
import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bottlefit_jax.errors import BottleFitError
from bottlefit_jax.links.energy import Meter, Watts
from bottlefit_jax.links.link import Link
from bottlefit_jax.links.methods import Method
from bottlefit_jax.links.servers import Server
from bottlefit_jax.links.summary import Row, Sample, median_interval, percentiles

WARM_UP = 2  # images before the measured ones: they open connections, fill caches, and widen TCP's window
INTERRUPTED = "interrupted"


def measure(
    method: Method,
    link: Link,
    images: Sequence[np.ndarray],
    *,
    rate_mbit: float | None,
    delay_ms: float | None,
    count: int,
    meter: Meter | None = None,
    watts: Watts | None = None,
    slower: float = 1.0,
) -> Row:
    """Measure one method over the link as it is shaped.

    Args:
        method: to measure.
        link: that the method uses.
        images: [H, W, 3] uint8 each, taken in turns.
        rate_mbit: the link's, for the row; None where it is not shaped.
        delay_ms: the link's, for the row; None where it is not shaped.
        count: images to measure.
        meter: measures the energy.
        watts: model the energy where there is no meter.
        slower: how many times as long the device is assumed to compute.
    """
    row = Row(method.name, rate_mbit, delay_ms)
    turns = itertools.cycle(images)
    samples: list[Sample] = []
    joules, sent = None, None
    try:
        for _ in range(WARM_UP):
            method.once(next(turns))
        before = link.sent()
        with meter or contextlib.nullcontext():
            for _ in range(count):
                samples.append(method.once(next(turns)))
        joules = meter.joules if meter else None
        after = link.sent()
        sent = None if before is None or after is None else after - before
    except (BottleFitError, KeyboardInterrupt) as error:
        reason = INTERRUPTED if isinstance(error, KeyboardInterrupt) else " ".join(str(error).split())
        row = replace(row, error=f"{reason}, after {len(samples)} of {count} images")
    if not samples:
        return row
    samples = [sample.on_a_slower_device(slower) for sample in samples]
    row = replace(
        row,
        images=len(samples),
        ms=percentiles(samples),
        payload=_mean([sample.payload for sample in samples]),
        interval=median_interval([sample.ms["total"] for sample in samples]),
    )
    if row.error:
        return row
    if not row.payload:
        sent = 0  # the link counted the other methods' idle connections
    mean_sent = None if sent is None else sent / count
    return replace(row, bytes_sent=mean_sent, energy_mj=_energy(samples, joules, mean_sent, rate_mbit, watts))


def measure_all(
    methods: dict[str, Method | str],
    servers: Sequence[Server],
    link: Link,
    images: Sequence[np.ndarray],
    *,
    rates: Sequence[float | None],
    delays: Sequence[float | None],
    progress: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
    **options: Any,
) -> tuple[list[Row], bool]:
    """Measure every method over every link.

    The local network does not depend on the link: it is measured once, in its first row.

    Args:
        methods: by name; for a method that is not available, a line with the reason.
        servers: that the methods need. One that has ended is started again before the next measurement.
        link: shaped before each measurement.
        images: [H, W, 3] uint8 each, taken in turns.
        rates: Mbit/s; [None] for a link that is not shaped.
        delays: ms in each direction; [None] for a link that is not shaped.
        progress: takes a line of progress.
        options: count, meter, watts and slower, as of `measure`.

    Returns:
        The rows in the order of delay, rate and method, and whether the measurement was interrupted.
    """
    # All rows exist from the start, so that an interruption at any time loses none.
    rows = [
        Row(name, rate, delay, error=method if isinstance(method, str) else INTERRUPTED)
        for delay, rate in itertools.product(delays, rates)
        for name, method in methods.items()
    ]
    local: Row | None = None
    with contextlib.suppress(KeyboardInterrupt):
        for number, row in enumerate(rows):
            method = methods[row.method]
            if isinstance(method, str):
                continue
            if row.method == "local" and local is not None:
                rows[number] = replace(local, rate_mbit=row.rate_mbit, delay_ms=row.delay_ms)
                continue
            rows[number] = _shape_and_measure(
                method, servers, link, images, row=row, progress=progress, options=options
            )
            progress(_progress(rows[number]))
            if (rows[number].error or "").startswith(INTERRUPTED):
                return rows, True
            local = rows[number] if row.method == "local" else local
        return rows, False
    return rows, True


def _shape_and_measure(
    method: Method,
    servers: Sequence[Server],
    link: Link,
    images: Sequence[np.ndarray],
    *,
    row: Row,
    progress: Callable[[str], None],
    options: dict[str, Any],
) -> Row:
    """Shape the link as `row` says and measure; the error of a failed row also names the servers that have ended."""
    try:
        _restart_ended(servers, progress)
        if row.rate_mbit is not None and row.delay_ms is not None:
            link.shape(row.rate_mbit, row.delay_ms)
        row = measure(method, link, images, rate_mbit=row.rate_mbit, delay_ms=row.delay_ms, **options)
    except BottleFitError as error:
        return replace(row, error=str(error))
    except KeyboardInterrupt:
        return replace(row, error=INTERRUPTED)
    lost = [f"the {server.name}: {reason}" for server in servers if (reason := server.lost())]
    return replace(row, error="; ".join([row.error, *lost])) if row.error and lost else row


def _restart_ended(servers: Sequence[Server], progress: Callable[[str], None]) -> None:
    """Start the servers again that have ended."""
    for server in servers:
        reason = server.lost()
        if reason:
            progress(f"the {server.name} is started again: {reason}")
            server.start()


def _energy(
    samples: list[Sample], joules: float | None, sent: float | None, rate_mbit: float | None, watts: Watts | None
) -> float | None:
    """Return the energy of one image in mJ; None where it is unknown."""
    if joules is not None:
        return 1e3 * joules / len(samples)
    if watts is None or sent is None or rate_mbit is None:
        return None
    return _mean(
        [
            watts.millijoules(
                compute_ms=sample.compute_ms,
                network_ms=sample.ms.get("network", 0.0),
                wait_ms=sample.ms.get("queue", 0.0) + sample.ms.get("tail", 0.0),
                sent=sent,
                mbit=rate_mbit,
            )
            for sample in samples
        ]
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _progress(row: Row) -> str:
    shaped = "" if row.rate_mbit is None else f"{row.delay_ms:g} ms, {row.rate_mbit:g} Mbit/s, "
    return f"{shaped}{row.method}: {row.error}" if row.error else f"{shaped}{row.method}: {row.p(50):.1f} ms"
