"""What a device sees of a server that is restarted, stopped or killed: one server alone, and two behind a TCP proxy.

    python -m benchmarks.restarts --bundle B [--deadline-ms 1000 500] [--every-ms 20] [--rounds 3]

The servers are `bottlefit_jax.serve` in processes of their own, the device is an EdgeClient in this one, without a
local network, that takes an image every 20 ms and waits for its answer. The proxy leads each connection to the first
server that accepts it, as a load balancer of layer 4 does. Of each round it prints how many images were answered and
how long the slowest took.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bottlefit_jax.bundle import read_bundle
from bottlefit_jax.bundle.golden import read_golden
from bottlefit_jax.edge import EdgeClient
from bottlefit_jax.errors import BottleFitError

SECONDS = 3.0  # in which the device goes on after the event; longer than a start takes


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(description="What a device sees of a server that ends.")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--deadline-ms", type=float, nargs="+", default=[1000.0, 500.0])
    parser.add_argument("--every-ms", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(argv)
    image = read_golden(read_bundle(options.bundle)).images[0]
    for name, run in (("restart", _restart), ("stop, two servers", _stop), ("kill, two servers", _kill)):
        for deadline in options.deadline_ms:
            for _ in range(options.rounds):
                row = run(options.bundle, image, deadline, options.every_ms / 1e3)
                print(json.dumps({"event": name, "deadline_ms": deadline, **row}), flush=True)
    return 0


class _Server:
    """A server in a process of its own, which can be started again on its port."""

    def __init__(self, bundle: Path):
        self._bundle, self.port = bundle, 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "bottlefit_jax.serve", "--bundle", str(self._bundle), "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command, "--log-calls", "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().split()[2].rpartition(":")[2])

    def end(self, signum: int = signal.SIGTERM) -> None:
        self.process.send_signal(signum)  # nothing where it has ended
        self.process.wait()


def _restart(bundle: Path, image: np.ndarray, deadline: float, every: float) -> dict[str, float]:
    """One server is stopped and started again."""
    server = _Server(bundle)
    away = 0.0

    def event() -> None:
        nonlocal away
        began = time.monotonic()
        server.end()
        server.start()
        away = time.monotonic() - began

    try:
        return {
            **_watch(bundle, f"127.0.0.1:{server.port}", image, deadline, every, event),
            "away_ms": round(1e3 * away),
        }
    finally:
        server.end()


def _stop(bundle: Path, image: np.ndarray, deadline: float, every: float) -> dict[str, float]:
    """Of two servers behind a proxy the one that has the device is stopped."""
    return _of_two(bundle, image, deadline, every, signal.SIGTERM)


def _kill(bundle: Path, image: np.ndarray, deadline: float, every: float) -> dict[str, float]:
    """Of two servers behind a proxy the one that has the device is killed."""
    return _of_two(bundle, image, deadline, every, signal.SIGKILL)


def _of_two(bundle: Path, image: np.ndarray, deadline: float, every: float, signum: int) -> dict[str, float]:
    first, second = _Server(bundle), _Server(bundle)
    try:
        with _proxy([first.port, second.port]) as port:
            return _watch(bundle, f"127.0.0.1:{port}", image, deadline, every, lambda: first.end(signum))
    finally:
        for server in (first, second):
            server.end()


def _watch(
    bundle: Path, server: str, image: np.ndarray, deadline: float, every: float, event: Callable[[], None]
) -> dict[str, float]:
    """Send images while something happens.

    Returns:
        Images that were sent and that were answered, and the slowest of the answered ones, milliseconds.
    """
    with EdgeClient(bundle, server, deadline_ms=deadline) as client:
        for _ in range(20):
            client.infer(image)
        thread = threading.Thread(target=event)
        thread.start()
        times, sent, ends = [], 0, time.monotonic() + SECONDS
        while thread.is_alive() or time.monotonic() < ends:
            began, sent = time.monotonic(), sent + 1
            with contextlib.suppress(BottleFitError):
                client.infer(image)
                times.append(time.monotonic() - began)
            time.sleep(every)
        thread.join()
    return {"images": sent, "answered": len(times), "slowest_ms": round(1e3 * max(times))}


@contextlib.contextmanager
def _proxy(ports: list[int]) -> Iterator[int]:
    """Yield the port of a TCP proxy that leads each connection to the first of `ports` that accepts it."""
    loop = asyncio.new_event_loop()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        with contextlib.suppress(asyncio.CancelledError):
            for port in ports:
                with contextlib.suppress(OSError):
                    there = await asyncio.open_connection("127.0.0.1", port)
                    ends.append(there[1])
                    await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))
                    break
        for end in ends:
            end.close()

    server = loop.run_until_complete(asyncio.start_server(connected, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:

        async def end() -> None:
            server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


if __name__ == "__main__":
    sys.exit(main())
