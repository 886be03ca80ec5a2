"""An open-loop load generator: ModelInfer calls begin when they are due, whether or not earlier ones have ended.

    python -m benchmarks.open_loop HOST:PORT MESSAGE --deadline-ms 500 --rate 2000 --seconds 5
    python -m benchmarks.open_loop HOST:PORT MESSAGE --deadline-ms 500 --closed 32 --seconds 5    # for the capacity

MESSAGE is a file with a serialised ModelInferRequest. The generator has its own HTTP/2 code, with which a call costs it
0.02 ms of CPU; gRPC's Python client would take as much CPU as the server. Plaintext only. It prints one line of JSON.
"""

import argparse
import contextlib
import json
import random
import re
import selectors
import socket
import struct
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np

PATH = b"/inference.GRPCInferenceService/ModelInfer"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
WINDOW, FRAME, STREAMS = 65_535, 16_384, 1000  # HTTP/2's initial window and frame size; our streams at once
STATUS = re.compile(rb"grpc-status[\x01\x02](\d\d?)")  # uncompressed, as we announce no header table
CODES = {0: "OK", 1: "CANCELLED", 4: "DEADLINE_EXCEEDED", 8: "RESOURCE_EXHAUSTED", 14: "UNAVAILABLE"}
REFUSALS = ("RESOURCE_EXHAUSTED", "CANCELLED", "UNAVAILABLE", "RESET")  # by the server; a missed deadline is not one
TICK = 0.0005  # seconds between two polls, which leave the processor to the server


def main() -> int:
    """Run the load and print its results."""
    parser = argparse.ArgumentParser(description="An open-loop load on one method.")
    parser.add_argument("address")
    parser.add_argument("message", type=Path)
    parser.add_argument("--deadline-ms", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=5, help="of load, after --warm-up")
    parser.add_argument("--warm-up", type=float, default=1, help="seconds of load before those that count")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--rate", type=float, help="calls a second, with random times between them")
    kind.add_argument("--closed", type=int, help="calls at once, each begun when another has ended")
    args = parser.parse_args()
    host, _, port = args.address.rpartition(":")
    message = args.message.read_bytes()
    connections = [Connection(host, int(port), message, args.deadline_ms) for _ in range(args.connections)]
    load = Load(connections, args.deadline_ms / 1e3)
    if args.closed:
        load.run(args.warm_up, args.seconds, closed=args.closed)
    else:
        load.run(args.warm_up, args.seconds, arrivals=arrivals(args.rate, args.seed))
    print(json.dumps(load.summary(args.seconds)))
    return 0


def arrivals(rate: float, seed: int) -> Iterator[float]:
    """Yield the times of a Poisson process, in seconds from its beginning."""
    source, at = random.Random(seed), 0.0
    while True:
        at += source.expovariate(rate)
        yield at


class Connection:
    """One HTTP/2 connection that repeats the same call."""

    def __init__(self, host: str, port: int, message: bytes, deadline_ms: int):
        self.socket = socket.create_connection((host.strip("[]"), port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.calls: dict[int, float] = {}  # stream -> when the call was due
        self._waiting: deque[float] = deque()
        self._headers = header_block(host, deadline_ms)
        self._body = struct.pack(">BI", 0, len(message)) + message
        self._stream, self._window = 1, WINDOW
        # no header table, so that each block can be read alone; a window that is never full
        settings = struct.pack(">HIHI", 1, 0, 4, (1 << 31) - 1)
        self._out = bytearray(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, settings))
        self._out += frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", (1 << 31) - 1 - WINDOW))
        self._in = bytearray()
        self.flush()
        self.socket.setblocking(False)

    @property
    def busy(self) -> bool:
        """Whether a call is still open."""
        return bool(self.calls or self._waiting)

    def begin(self, due: float) -> None:
        """Begin a call as soon as the peer's window has room for it."""
        self._waiting.append(due)
        self._send()

    def cancel(self, stream: int) -> None:
        """Cancel a call, as a client does at its deadline."""
        del self.calls[stream]
        self._out += frame(RST_STREAM, 0, stream, struct.pack(">I", 8))

    def flush(self) -> None:
        """Write as much as the socket takes."""
        if self._out:
            with contextlib.suppress(BlockingIOError):
                del self._out[: self.socket.send(self._out)]

    def ended(self) -> Iterator[tuple[int, str]]:
        """Read what has arrived; yield the streams that ended, and their statuses."""
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        if not data:
            raise SystemExit("the server closed a connection")
        self._in += data
        start = 0
        while len(self._in) - start >= 9:
            length, kind, flags, stream = self._head_at(start)
            if len(self._in) - start - 9 < length:
                break
            payload = self._in[start + 9 : start + 9 + length]
            start += 9 + length
            if kind == HEADERS and flags & END_STREAM:
                yield stream, status_of(payload)
            elif kind == RST_STREAM:
                yield stream, "RESET"
            elif kind != DATA:
                self._control(kind, flags, stream, payload)
        del self._in[:start]

    def _head_at(self, start: int) -> tuple[int, int, int, int]:
        first, second, stream = struct.unpack_from(">IBI", self._in, start)
        return first >> 8, first & 255, second, stream & 0x7FFFFFFF

    def _control(self, kind: int, flags: int, stream: int, payload: bytearray) -> None:
        if kind == SETTINGS and not flags & ACK:
            self._out += frame(SETTINGS, ACK, 0)
        elif kind == PING and not flags & ACK:
            self._out += frame(PING, ACK, 0, bytes(payload))
        elif kind == WINDOW_UPDATE and not stream:
            self._window += struct.unpack(">I", payload)[0]
            self._send()
        elif kind == GOAWAY:
            raise SystemExit(f"the server ended a connection: {bytes(payload[8:])!r}")

    def _send(self) -> None:
        while self._waiting and self._window >= len(self._body) and len(self.calls) < STREAMS:
            self._window -= len(self._body)
            self.calls[self._stream] = self._waiting.popleft()
            self._out += frame(HEADERS, END_HEADERS, self._stream, self._headers)
            for at in range(0, len(self._body), FRAME):
                flags = END_STREAM if at + FRAME >= len(self._body) else 0
                self._out += frame(DATA, flags, self._stream, self._body[at : at + FRAME])
            self._stream += 2


def header_block(host: str, deadline_ms: int) -> bytes:
    """Make the request's headers in HPACK: indexed fields of RFC 7541's static table, and literals."""

    def text(value: bytes) -> bytes:
        return bytes([len(value)]) + value

    block = b"\x83\x86\x04" + text(PATH) + b"\x01" + text(host.encode()) + b"\x0f\x10" + text(b"application/grpc")
    for name, value in ((b"te", b"trailers"), (b"grpc-timeout", f"{deadline_ms}m".encode())):
        block += b"\x00" + text(name) + text(value)
    return block


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Make a frame of RFC 9113."""
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


def status_of(block: bytearray) -> str:
    """Return the status in a block of trailers."""
    match = STATUS.search(block)
    if match is None:
        raise SystemExit(f"trailers without a status that this generator can read: {bytes(block)!r}")
    code = int(match[1])
    return CODES.get(code, str(code))


class Load:
    """The calls over all connections, and their results."""

    def __init__(self, connections: list[Connection], deadline: float):
        self._connections, self._deadline = connections, deadline
        self._selector = selectors.DefaultSelector()
        for connection in connections:
            self._selector.register(connection.socket, selectors.EVENT_READ, connection)
        self._calls: list[tuple[str, float, float, float]] = []  # status, when it was due, seconds, when it ended
        self._cpu, self._next = 0.0, 0

    def run(self, warm_up: float, seconds: float, *, closed: int = 0, arrivals: Iterator[float] | None = None) -> None:
        """Make calls for `warm_up` and then for `seconds`, and wait for the last ones up to their deadline."""
        began, cpu = time.monotonic(), time.process_time()
        self._first, self._last = began + warm_up, began + warm_up + seconds
        due = began + next(arrivals) if arrivals else float("inf")
        now = began
        for _ in range(closed):
            self._begin(now)
        while now < self._last or (now < self._last + 1.1 * self._deadline and any(c.busy for c in self._connections)):
            while due <= now and due < self._last:
                self._begin(due)
                assert arrivals is not None
                due = began + next(arrivals)
            self._expire(now)
            for connection in self._connections:
                connection.flush()
            time.sleep(TICK)
            for key, _ in self._selector.select(0):
                now = time.monotonic()
                for stream, status in key.data.ended():
                    self._end(key.data, stream, status, now)
                    if closed and now < self._last:
                        self._begin(now)
            now = time.monotonic()
        self._cpu = time.process_time() - cpu

    def _begin(self, due: float) -> None:
        self._next = (self._next + 1) % len(self._connections)
        self._connections[self._next].begin(due)

    def _end(self, connection: Connection, stream: int, status: str, now: float) -> None:
        due = connection.calls.pop(stream, None)
        if due is not None:
            self._calls.append((status, due, now - due, now))

    def _expire(self, now: float) -> None:
        for connection in self._connections:
            while connection.calls:
                stream, due = next(iter(connection.calls.items()))
                if now < due + self._deadline:
                    break
                connection.cancel(stream)
                self._calls.append(("LATE", due, now - due, now))

    def summary(self, seconds: float) -> dict[str, object]:
        """Return counts by status, answers in time per second, percentiles in milliseconds, the share given up."""
        calls = [call for call in self._calls if self._first <= call[1] < self._last]
        counts = Counter(status for status, *_ in calls)
        answered = [took for status, _, took, _ in calls if status == "OK" and took <= self._deadline]
        refused = [took for status, _, took, _ in calls if status in REFUSALS]
        given_up = sum(status in ("LATE", "DEADLINE_EXCEEDED") for status, *_ in calls)
        return {
            "calls": len(self._calls),
            "offered_per_s": len(calls) / seconds,
            "in_time_per_s": len(answered) / seconds,
            "statuses": dict(counts),
            "answered_ms": percentiles(answered),
            "refused_ms": percentiles(refused),
            "given_up": given_up / max(len(calls), 1),
            "generator_cpu_ms": 1e3 * self._cpu / max(len(self._calls), 1),
        }


def percentiles(seconds: list[float]) -> list[float]:
    """Return p50, p95 and p99 in milliseconds; empty without values."""
    return [round(float(value), 3) for value in 1e3 * np.percentile(seconds, (50, 95, 99))] if seconds else []


if __name__ == "__main__":
    sys.exit(main())
