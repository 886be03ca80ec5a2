"""Takes every method over every link. What fails, or is interrupted, is a row that says why."""

import contextlib
import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bottlefit_jax.errors import BottleFitError
from bottlefit_jax.links.energy import Meter, Watts
from bottlefit_jax.links.methods import Method
from bottlefit_jax.links.servers import Server
from bottlefit_jax.links.shaper import AnyLink
from bottlefit_jax.links.summary import Row, Sample, median_interval, percentiles

WARM_UP = 2  # images before the measured ones: connections, caches, TCP's window
INTERRUPTED = "interrupted"


def measure(
    method: Method,
    link: AnyLink,
    images: Sequence[np.ndarray],
    *,
    rate_mbit: float | None,
    delay_ms: float | None,
    count: int,
    meter: Meter | None = None,
    watts: Watts | None = None,
    slower: float = 1.0,
) -> Row:
    """One method over the link as it is.

    Args:
        images: uint8 [H, W, 3] each, taken in turns.
        rate_mbit, delay_ms: the link's, for the row; None where nobody shapes it.
        count: images to measure.
        meter: reads the energy; without one, watts model it.
        slower: how many times as long the device is to compute as it did.
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
        why = INTERRUPTED if isinstance(error, KeyboardInterrupt) else " ".join(str(error).split())
        row = replace(row, error=f"{why}, after {len(samples)} of {count} images")
    if not samples:
        return row
    samples = [sample.on_a_slower_device(slower) for sample in samples]
    row = replace(
        row,
        images=len(samples),
        ms=percentiles(samples),
        payload=_mean([one.payload for one in samples]),
        interval=median_interval([sample.ms["total"] for sample in samples]),
    )
    if row.error:
        return row
    if not row.payload:
        sent = 0  # what went by meanwhile are the other methods' idle connections
    each = None if sent is None else sent / count
    return replace(row, bytes_sent=each, energy_mj=_energy(samples, joules, each, rate_mbit, watts))


def measure_all(
    methods: dict[str, Method | str],
    servers: Sequence[Server],
    link: AnyLink,
    images: Sequence[np.ndarray],
    *,
    rates: Sequence[float | None],
    delays: Sequence[float | None],
    progress: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
    **options: Any,
) -> tuple[list[Row], bool]:
    """Every method over every link; rows in the order of delay, rate and method, and whether it was interrupted.

    Args:
        methods: by name; in the place of one that cannot be had, a line that says why.
        servers: that the methods need. One that is lost is started again before the next link.
        rates, delays: Mbit/s, and ms in each direction; [None] for a link that nobody shapes.
        progress: takes a line of progress.
        options: count, meter, watts and slower, as in measure.

    The local network does not depend on the link: it is measured once, in its first row.
    """
    # From the beginning all rows are there, so that an interruption, whenever it comes, costs none.
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
            rows[number] = _cell(method, servers, link, images, row=row, progress=progress, options=options)
            progress(_progress(rows[number]))
            if (rows[number].error or "").startswith(INTERRUPTED):
                return rows, True
            local = rows[number] if row.method == "local" else local
        return rows, False
    return rows, True


def _cell(
    method: Method,
    servers: Sequence[Server],
    link: AnyLink,
    images: Sequence[np.ndarray],
    *,
    row: Row,
    progress: Callable[[str], None],
    options: dict[str, Any],
) -> Row:
    """Shapes the link as `row` says and measures; a failed row also says which servers are no more."""
    try:
        _ready(servers, progress)
        if row.rate_mbit is not None and row.delay_ms is not None:
            link.shape(row.rate_mbit, row.delay_ms)
        row = measure(method, link, images, rate_mbit=row.rate_mbit, delay_ms=row.delay_ms, **options)
    except BottleFitError as error:
        return replace(row, error=str(error))
    except KeyboardInterrupt:
        return replace(row, error=INTERRUPTED)
    lost = [f"the {server.name}: {why}" for server in servers if (why := server.lost())]
    return replace(row, error="; ".join([row.error, *lost])) if row.error and lost else row


def _ready(servers: Sequence[Server], progress: Callable[[str], None]) -> None:
    """Start what was lost."""
    for server in servers:
        lost = server.lost()
        if lost:
            progress(f"the {server.name} is started again: {lost}")
            server.start()


def _energy(
    samples: list[Sample], joules: float | None, sent: float | None, rate_mbit: float | None, watts: Watts | None
) -> float | None:
    """MJ of one image."""
    if joules is not None:
        return 1e3 * joules / len(samples)
    if watts is None or sent is None or rate_mbit is None:
        return None
    return _mean(
        [
            watts.millijoules(
                compute_ms=one.computing,
                network_ms=one.ms.get("network", 0.0),
                wait_ms=one.ms.get("queue", 0.0) + one.ms.get("tail", 0.0),
                sent=sent,
                mbit=rate_mbit,
            )
            for one in samples
        ]
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _progress(row: Row) -> str:
    shaped = "" if row.rate_mbit is None else f"{row.delay_ms:g} ms, {row.rate_mbit:g} Mbit/s, "
    return f"{shaped}{row.method}: {row.error}" if row.error else f"{shaped}{row.method}: {row.p(50):.1f} ms"
