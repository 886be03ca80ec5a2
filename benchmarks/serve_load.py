"""The server under overload, and the CPU time of a request beside the tail.

    python -m benchmarks.serve_load --bundle bundles/digits --deadline-ms 500
    python -m benchmarks.serve_load --bundle B --deadline-ms 2000      # as in benchmarks/serve.py

The load comes from a process of its own (benchmarks/open_loop.py) on the same cores as the server. A round measures the
capacity with as many calls at once as fill two batches, then offers a multiple of it at random times, then measures the
capacity again. The ratio is computed for each round, so that other load on the machine affects both sides. The cost of
a request is the CPU time of the server's process, user and system, next to that of a grpc.aio server that does nothing.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.serve import BATCH, cores, serving
from benchmarks.serve_input import device_request, make_images
from bottlefit_jax.bundle import Bundle, read_bundle
from bottlefit_jax.errors import UserError

TIMES = (1.3, 2.0, 5.0)  # of the capacity
IN_TIME, REFUSED_MS = 0.9, 20.0  # the limits to keep
CLOSED_S, PATIENT_MS = 3.0, 60_000  # a measurement of the capacity; a deadline that is never reached in it
EMPTY = """
import asyncio, grpc

async def main():
    async def echo(data, context):
        return data
    server = grpc.aio.server()
    methods = {"ModelInfer": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()

asyncio.run(main())
"""


def main(argv: list[str] | None = None) -> int:
    """Run the load and print a table and a line of JSON; return the exit code."""
    parser = argparse.ArgumentParser(description="The server under overload.")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--deadline-ms", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=10, help="of each load")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(argv)
    try:
        load = os.getloadavg()[0]
        bundle = read_bundle(options.bundle)
        with tempfile.TemporaryDirectory() as folder:
            message = Path(folder) / "message"
            message.write_bytes(request(bundle, options.deadline_ms))
            results = {
                "load_before": load,
                "cost": cost(bundle, message, options.rounds),
                "overload": overload(bundle, message, options),
            }
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    report(bundle, options.deadline_ms, results)
    return 0


def request(bundle: Bundle, deadline_ms: int) -> bytes:
    """Make the message that a device sends for one image."""
    return device_request(bundle, make_images(bundle, 1), deadline_ms / 1000)[0]


def overload(bundle: Bundle, message: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure the answers in time for each multiple of the capacity, next to the capacity before and after."""
    results: dict[str, Any] = {}
    with ours(bundle, "--log-calls", "0") as (_, address):
        for times in TIMES:
            rounds = []
            for seed in range(options.rounds):
                before = capacity(address, message)
                rate = times * before
                words = ["--rate", f"{rate}", "--seconds", f"{options.seconds}", "--seed", f"{seed}"]
                offered = loaded(address, message, options.deadline_ms, *words)
                possible = (before + capacity(address, message)) / 2
                rounds.append({**offered, "capacity_per_s": possible, "ratio": offered["in_time_per_s"] / possible})
            results[f"{times:g}"] = {
                "rounds": rounds,
                "capacity_per_s": statistics.median(one["capacity_per_s"] for one in rounds),
                "in_time_per_s": statistics.median(one["in_time_per_s"] for one in rounds),
                "ratio": statistics.median(one["ratio"] for one in rounds),
                "refused_p95_ms": max((one["refused_ms"][1] for one in rounds if one["refused_ms"]), default=0.0),
                "given_up": statistics.median(one["given_up"] for one in rounds),
            }
    return results


def cost(bundle: Bundle, message: Path, rounds: int) -> dict[str, float]:
    """Measure the CPU milliseconds of a request, in turns: our server, the same with a short log, an empty server."""
    servers = {
        "all_lines": lambda: ours(bundle),
        "one_line_in_1000": lambda: ours(bundle, "--log-calls", "1000"),
        "empty": lambda: serving([sys.executable, "-c", EMPTY]),
    }
    costs: dict[str, list[float]] = {name: [] for name in servers}
    for _ in range(rounds):
        for name, server in servers.items():
            with server() as (process, address):
                loaded(address, message, PATIENT_MS, "--closed", f"{2 * BATCH}", "--seconds", "0.5")
                before = cpu_seconds(process.pid)
                done = loaded(address, message, PATIENT_MS, "--closed", f"{2 * BATCH}", "--seconds", f"{CLOSED_S}")
                costs[name].append(1e3 * (cpu_seconds(process.pid) - before) / done["calls"])
    return {name: statistics.median(values) for name, values in costs.items()}


@contextlib.contextmanager
def ours(bundle: Bundle, *flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start our server as a process; yield it and its address."""
    words = [sys.executable, "-m", "bottlefit_jax.serve", "--bundle", str(bundle.folder), "--port", "0", *flags]
    with serving(words) as (process, address):
        yield process, address


def capacity(address: str, message: Path) -> float:
    """Measure the largest number of answers per second."""
    return loaded(address, message, PATIENT_MS, "--closed", f"{2 * BATCH}", "--seconds", f"{CLOSED_S}")["in_time_per_s"]


def loaded(address: str, message: Path, deadline_ms: int, *flags: str) -> dict[str, Any]:
    """Run the load generator and return its results."""
    words = [sys.executable, "-m", "benchmarks.open_loop", address, str(message), "--deadline-ms", str(deadline_ms)]
    done = subprocess.run([*words, *flags], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"the load generator failed: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}")
    return json.loads(done.stdout)


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(bundle: Bundle, deadline_ms: int, results: dict[str, Any]) -> None:
    """Print the results as a table, then as one line of JSON."""
    load = results["load_before"]
    print(f"{bundle.manifest.model.name}, deadlines of {deadline_ms} ms, {cores()} cores, load {load:.1f}")
    for name, value in results["cost"].items():
        print(f"CPU of a request, {name:<20} {value:6.2f} ms")
    print("offered  capacity/s  in time/s  ratio  refused p95, ms  given up")
    for times, row in results["overload"].items():
        met = row["ratio"] >= IN_TIME and row["refused_p95_ms"] <= REFUSED_MS
        print(
            f"{times:>6}x {row['capacity_per_s']:11.1f} {row['in_time_per_s']:10.1f} {row['ratio']:6.2f} "
            f"{row['refused_p95_ms']:16.1f}  {row['given_up']:17.1%}   {'met' if met else 'MISSED'}"
        )
    print(json.dumps(results))


if __name__ == "__main__":
    sys.exit(main())
