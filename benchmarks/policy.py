"""What the policy reaches on many links, deadlines and delays, in virtual time: beside the oracle and every fixed path.

    python -m benchmarks.policy --bundle B --traces FOLDER --head-ms 5 --local-ms 40 --tail-ms 3 [--seconds 60]

For each deadline, delay and pace a row: percent of images answered in time and mean top-1 over all images, for the
policy with and without the local network; how far its top-1 is from that of an oracle, and from that of the fixed path
which is the best for that row; without a local network also the share of the oracle's answers. `links.simulate` has the
details of one setting.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path

from bottlefit_jax.errors import UserError
from bottlefit_jax.links.options import SimulateOptions
from bottlefit_jax.links.simulate import simulate

DEADLINES_MS, DELAYS_MS, PACES = (50.0, 100.0, 200.0, 500.0), (5.0, 40.0), (None, 30.0)
HEADING = (
    "| deadline, delay, pace | in time | top-1 | oracle's top-1 | best fixed path | alone: in time | of the oracle's |"
)


def main(argv: list[str] | None = None) -> int:
    """Run all settings and print a table, and a line of JSON for each; return the exit code."""
    parser = argparse.ArgumentParser(description="The policy against an oracle and every fixed path.")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--traces", type=Path, required=True, help="a CSV file, or a folder of them")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each trace")
    for part in ("head", "local", "tail"):
        parser.add_argument(f"--{part}-ms", type=float, required=True)
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each setting, too")
    options = parser.parse_args(argv)
    print(HEADING)
    print("| :--- |" + " ---: |" * 6)
    try:
        for deadline, delay, fps in itertools.product(DEADLINES_MS, DELAYS_MS, PACES):
            found = {local: _simulate(options, deadline, delay, fps, local) for local in (True, False)}
            print(_row(deadline, delay, fps, found[True], found[False]), flush=True)
            if options.json:
                print(json.dumps({"deadline": deadline, "delay": delay, "fps": fps, "with": found[True]}), flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _simulate(options: argparse.Namespace, deadline: float, delay: float, fps: float | None, local: bool) -> dict:
    return simulate(
        SimulateOptions(
            options.bundle,
            options.traces,
            deadline,
            delay_ms=delay,
            fps=fps,
            seconds=options.seconds,
            without_local=not local,
            head_ms=options.head_ms,
            local_ms=options.local_ms,
            tail_ms=options.tail_ms,
        )
    )


def _row(deadline: float, delay: float, fps: float | None, found: dict, alone: dict) -> str:
    """Return a row of the table."""
    paths = {**found["fixed"], "local": found["local"]}
    name, best = max(paths.items(), key=lambda item: item[1]["top1"])
    auto, oracle = found["auto"], found["oracle"]
    share = 100 * alone["auto"]["in_time"] / max(alone["oracle"]["in_time"], 1e-9)
    cells = [
        f"{deadline:g} ms, {delay:g} ms, {'one by one' if fps is None else f'{fps:g} a second'}",
        f"{auto['in_time']:.2f} (of {oracle['in_time']:.2f})",
        f"{auto['top1']:.2f}",
        f"{oracle['top1']:.2f} ({auto['top1'] - oracle['top1']:+.2f})",
        f"{name} {best['top1']:.2f} ({auto['top1'] - best['top1']:+.2f})",
        f"{alone['auto']['in_time']:.2f}",
        f"{share:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
