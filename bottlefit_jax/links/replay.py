"""Replays traces of links between real processes: what the policy reaches, beside each path alone."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from bottlefit_jax import interrupt
from bottlefit_jax.bundle import read_bundle
from bottlefit_jax.edge.classify import connect
from bottlefit_jax.edge.client import EdgeClient
from bottlefit_jax.edge.path import LOCAL, Path, paths_of
from bottlefit_jax.edge.runtimes import AUTO
from bottlefit_jax.errors import BottleFitError
from bottlefit_jax.links import replay_report
from bottlefit_jax.links.inputs import make_folder, read_images
from bottlefit_jax.links.machine import cores, describe_machine
from bottlefit_jax.links.options import ReplayOptions
from bottlefit_jax.links.proxy import ProcessLink
from bottlefit_jax.links.run import Answer, Run
from bottlefit_jax.links.servers import Server, edge_server
from bottlefit_jax.links.trace import Trace, read_traces

FAST_MBIT = 1000.0  # of the link before a trace begins, while a client connects
WARM_UP = 3  # images before a trace begins
CONNECT_SECONDS = 5.0  # for the server to answer then


def replay(options: ReplayOptions, *, command_line: str) -> int:
    """Measure all methods on all traces, and write the report.

    Args:
        options: what to measure.
        command_line: for the report.

    Returns:
        The exit code: 130 after an interruption, else 0.

    Raises:
        BottleFitError: an option is invalid, or the server does not start.
    """
    traces = read_traces(options.trace)
    manifest = read_bundle(options.bundle).manifest
    local = manifest.local is not None and not options.without_local
    paths = paths_of(manifest, local=local)
    images = read_images(options.images)
    make_folder(options.output)
    runs: list[Run] = []
    with interrupt.raised(), contextlib.ExitStack() as stack:
        link = stack.enter_context(ProcessLink())
        stack.enter_context(interrupt.undone(link.close))
        server = edge_server(options.bundle, link)
        stack.enter_context(interrupt.undone(server.stop))
        stack.enter_context(server)
        stopped = not _measure(options, runs, _clients(options, paths, link, server), link, traces, images)
    setting = replay_report.Setting(
        bundle=f"{manifest.name} version {manifest.version}",
        command=command_line,
        machine=describe_machine(),
        deadline_ms=options.deadline_ms,
        fps=options.fps,
        images=len(images),
        top1={path.name: path.top1 for path in paths},
    )
    late_signals: list[int] = []
    with interrupt.asked(late_signals.append):  # a signal now does not lose the report
        replay_report.write(options.output, setting, runs)
    print(f"wrote {options.output / 'bench.md'}")
    return 130 if stopped or late_signals else 0


def _clients(
    options: ReplayOptions, paths: Sequence[Path], link: ProcessLink, server: Server
) -> dict[str, Callable[[], EdgeClient]]:
    """Return what makes the client of each method: the policy's first."""
    host, port = link.through(server.port)
    create = partial(
        EdgeClient, options.bundle, f"{host}:{port}", deadline_ms=options.deadline_ms, threads=max(cores() - 1, 1)
    )
    clients: dict[str, Callable[[], EdgeClient]] = {
        AUTO: partial(create, policy=AUTO, local=any(path.work == LOCAL for path in paths))
    }
    for path in paths:
        clients[path.name] = (
            partial(EdgeClient, options.bundle, None) if path.work == LOCAL else partial(create, rate=path.name)
        )
    return clients


def _measure(
    options: ReplayOptions,
    runs: list[Run],
    clients: Mapping[str, Callable[[], EdgeClient]],
    link: ProcessLink,
    traces: Sequence[Trace],
    images: Sequence[np.ndarray],
) -> bool:
    """Append every run to `runs`; return whether it was not interrupted. The local network is measured once."""
    alone: Run | None = None
    try:
        for delay, trace in itertools.product(options.delays, traces):
            for method, create in clients.items():
                if method == LOCAL and alone is not None:
                    runs.append(Run(LOCAL, trace, delay, alone.images, alone.answers, 0, alone.error))
                    continue
                run = _run(options, Run(method, trace, delay), create, link, images)
                runs.append(run)
                alone = run if method == LOCAL else alone
                words = run.error or f"{len(run.answers):,} of {run.images:,} images had a result"
                print(f"{trace.name}, {delay:g} ms, {method}: {words}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        return False
    return True


def _run(
    options: ReplayOptions, run: Run, create: Callable[[], EdgeClient], link: ProcessLink, images: Sequence[np.ndarray]
) -> Run:
    """Measure one method on one trace."""
    answers: list[Answer] = []
    taken, sent = 0, link.sent()
    seconds = run.trace.seconds if options.seconds is None else options.seconds
    error = None
    try:
        link.shape(FAST_MBIT, 0)
        with create() as client:
            _warm_up(client, run.method, images)
            began, sent = link.follow(run.trace, run.delay_ms), link.sent()
            began_at = time.time() - (time.monotonic() - began)  # as results say when an image was taken
            frames = _frames(images, options.fps, began + seconds, began)
            in_turn = options.fps is None
            for result in client.stream(frames, in_flight=1 if in_turn else None, drop=not in_turn):
                path = None if result.prediction is None else result.prediction.route.path
                answers.append(Answer(result.taken - began_at, time.time() - result.taken, path))
                taken = result.number
    except BottleFitError as raised:
        error = " ".join(str(raised).split())
    return Run(run.method, run.trace, run.delay_ms, taken, answers, link.sent() - sent, error)


def _warm_up(client: EdgeClient, method: str, images: Sequence[np.ndarray]) -> None:
    """Connect, and classify some images over a fast link."""
    if method == LOCAL:
        client.load_local()
    else:
        connect(client, CONNECT_SECONDS)
    for image in images[:WARM_UP]:
        with contextlib.suppress(BottleFitError):  # a short deadline before the first connection is warm
            client.infer_local(image) if method == LOCAL else client.infer(image)


def _frames(images: Sequence[np.ndarray], fps: float | None, until: float, since: float) -> Iterator[Any]:
    """Yield images in turns: whenever one is asked for, or at a rate as a camera does; times are monotonic."""
    for number, image in enumerate(itertools.cycle(images)):
        if fps is not None:
            due = since + number / fps
            time.sleep(max(due - time.monotonic(), 0.0))
            if due >= until:
                return
        elif time.monotonic() >= until:
            return
        yield image
