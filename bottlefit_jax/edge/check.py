"""Compare what this device makes of a bundle's golden images with what the export made of them.

    python -m bottlefit_jax.edge.check --bundle BUNDLE [--runtime tensorrt] [--server HOST:PORT] [--json]

A bundle has five images, and beside them the latents, payloads and logits that its files gave where it was exported.
This command runs the head here, makes the payloads, runs the local network if its file is here, and asks the server, if
one is named, for the answers to the golden latents. One line for each says how far it is off.

A float32 head may differ by one step of the quantiser, another one, or an engine, by 8 of 255. Payloads are the same to
the bit. Classes are those of the export. Exit codes: 0, all is so; 1, something differs; 2, a flag, a file, the bundle
or the server is invalid.
"""

from bottlefit_jax import interrupt

if __name__ == "__main__":
    interrupt.watch()

import dataclasses
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bottlefit_jax.cli import command
from bottlefit_jax.edge.options import SECURITY, Security

if TYPE_CHECKING:
    import numpy as np

    from bottlefit_jax.bundle import Bundle, Manifest
    from bottlefit_jax.bundle.golden import Golden

LARGEST_STEPS = {"float32": 1}  # that a latent may differ by, by the precision of the head's file
OTHER_STEPS = 8  # of another precision, or of an engine: 3 % of 255, what the export's parity check allows
LARGEST_PROBABILITY = 0.01  # by which an answer may differ
DEADLINE_MS = 10_000


@dataclass(frozen=True)
class CheckOptions(Security):
    """What to check; the security is that of `server`.

    Attributes:
        bundle: the folder.
        server: HOST:PORT; None asks no server.
        runtime, providers, threads: of the head, as EdgeClient takes them.
    """

    bundle: Path
    server: str | None = None
    runtime: str = "auto"
    providers: tuple[str, ...] = ()
    threads: int = 1


@dataclass(frozen=True)
class Finding:
    """One comparison.

    Attributes:
        what: was compared.
        same: it is as it was at the export, within what is allowed.
        difference: in words.
        ms: median of an image; None where nothing was timed.
    """

    what: str
    same: bool
    difference: str
    ms: float | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program) and return the exit code."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it would log errors that we print
    options, as_json = parse(sys.argv[1:] if argv is None else argv)
    findings = check(options)
    if as_json:
        print(json.dumps([dataclasses.asdict(each) for each in findings]))
    else:
        print(_table(findings))
    return int(not all(each.same for each in findings))


def make_parser() -> command.Parser:
    """Return the parser of the command line."""
    from bottlefit_jax.edge import flags

    parser = command.Parser("bottlefit_jax.edge.check", __doc__)
    parser.group(flags.DEVICE)("--bundle", type=flags.path, required=True, metavar="FOLDER", help="the bundle")
    flags.add_runtime(parser)
    add = parser.group(flags.SERVER)
    add("--server", metavar="HOST:PORT", help="check what this server answers, too (default: no server)")
    flags.add_security(parser, "with --server: ")
    parser.group(flags.OUTPUT)("--json", action="store_true", help="print a JSON array instead of a table")
    return parser


def parse(argv: Sequence[str]) -> tuple[CheckOptions, bool]:
    """Read the command line; return the options, and whether to print JSON.

    Raises:
        UserError: a flag is unknown, missing or invalid.
    """
    from bottlefit_jax.errors import UserError
    from bottlefit_jax.onnx_session import check_providers

    args = vars(make_parser().parse_args(argv))
    check_providers(args["providers"], "--providers")
    given = [name for name in SECURITY if args[name]]
    if given and args["server"] is None:
        raise UserError(f"--{given[0].replace('_', '-')} goes with --server HOST:PORT only")
    as_json = args.pop("json")
    return CheckOptions(**args), as_json


def check(options: CheckOptions) -> list[Finding]:
    """Run all comparisons for which there is a file or a server.

    Args:
        options: what to check.

    Raises:
        UserError: the bundle has no golden images, a file is missing or damaged, or the server refuses this device.
        Unavailable: the server does not answer.
    """
    from bottlefit_jax.bundle import read_bundle
    from bottlefit_jax.bundle.golden import read_golden
    from bottlefit_jax.edge.runtimes import RUNTIMES, choose

    runtime = options.runtime

    def needed(manifest: "Manifest") -> tuple[str, ...]:
        nonlocal runtime
        runtime = choose(options.runtime, manifest, options.bundle)
        golden = () if manifest.golden is None else (manifest.golden,)
        return (*manifest.device_files(RUNTIMES[runtime].head), *golden)

    bundle = read_bundle(options.bundle, verify=needed)
    golden = read_golden(bundle)
    findings = [_head(bundle, golden, runtime, options)]
    if bundle.manifest.rates:
        findings.append(_payloads(bundle, golden))
    if bundle.manifest.local is not None and (bundle.folder / bundle.manifest.local.litert).is_file():
        findings.append(_local(bundle, golden, options))
    if options.server is not None:
        findings.append(_server(golden, options, options.server))
    return findings


def _head(bundle: "Bundle", golden: "Golden", runtime: str, options: CheckOptions) -> Finding:
    """Compare latents, in steps of the quantiser."""
    import numpy as np

    from bottlefit_jax.edge.device_head import DeviceHead
    from bottlefit_jax.edge.runtimes import RUNTIMES, open_head

    entry = bundle.manifest.head_file(RUNTIMES[runtime].head)
    opened = open_head(runtime, bundle, threads=options.threads, providers=options.providers)
    providers = getattr(opened, "providers", ())
    head = DeviceHead(opened, bundle)
    latents, ms = _timed(head.run, golden.images)
    expected = golden.latents[entry.runtime]
    steps = np.stack(
        [
            np.abs(head.quantise(mine).astype(int) - head.quantise(theirs))
            for mine, theirs in zip(latents, expected, strict=True)
        ]
    )
    allowed = OTHER_STEPS if runtime == "tensorrt" else LARGEST_STEPS.get(entry.precision, OTHER_STEPS)
    differ = f"{np.count_nonzero(steps):,} of {steps.size:,} values differ, by {steps.max()} steps at most"
    differ += f" (provider {providers[0]})" if providers else ""
    return Finding(f"{entry.file} by {runtime}", bool(steps.max() <= allowed), differ, ms)


def _payloads(bundle: "Bundle", golden: "Golden") -> Finding:
    """Compare the payloads of the golden latents at every rate."""
    from bottlefit_jax.bundle import identity
    from bottlefit_jax.codec.wire import encode

    rates = bundle.read_rates()
    assert rates is not None
    payloads, ms = _timed(lambda latent: [encode(latent, rate) for rate in rates.rates], golden.sent)
    wrong = [
        rate.id
        for rate, ours in zip(rates.rates, zip(*payloads, strict=True), strict=True)
        if identity(*ours) != golden.payloads[rate.id]
    ]
    difference = f"other bytes at {', '.join(wrong)}" if wrong else "the same bytes"
    return Finding(f"payloads at {len(rates.rates)} rates", not wrong, difference, ms / len(rates.rates))


def _local(bundle: "Bundle", golden: "Golden", options: CheckOptions) -> Finding:
    """Compare the probabilities of the whole network."""
    import numpy as np

    from bottlefit_jax.edge.client import EdgeClient
    from bottlefit_jax.protocol.response import softmax

    assert bundle.manifest.local is not None
    assert golden.local is not None
    with EdgeClient(options.bundle, None, threads=options.threads) as client:
        ours, ms = _timed(lambda image: client.infer_local(image).probabilities, golden.images)
    same, difference = _compared(np.stack(ours), np.stack([softmax(logits) for logits in golden.local]))
    return Finding(bundle.manifest.local.litert, same, difference, ms)


def _server(golden: "Golden", options: CheckOptions, server: str) -> Finding:
    """Compare the probabilities that the server answers to raw latents."""
    import numpy as np

    from bottlefit_jax.bundle import RAW
    from bottlefit_jax.edge.client import EdgeClient
    from bottlefit_jax.protocol.response import softmax

    client = EdgeClient(
        options.bundle,
        server,
        deadline_ms=DEADLINE_MS,
        **options.for_client(),
        rate=RAW,
        full=True,
        runtime=options.runtime,
        providers=options.providers,
    )
    with client:
        ours, ms = _timed(lambda latent: client.infer_latent(latent).probabilities, golden.sent)
    same, difference = _compared(np.stack(ours), np.stack([softmax(logits) for logits in golden.logits]))
    return Finding(f"the tail on {server}", same, difference, ms)


def _compared(ours: "np.ndarray", theirs: "np.ndarray") -> tuple[bool, str]:
    """Compare probabilities [N, classes]; return whether they are the same, and how far they are off."""
    import numpy as np

    equal, largest = int((ours.argmax(1) == theirs.argmax(1)).sum()), float(np.abs(ours - theirs).max())
    words = f"{equal} of {len(ours)} classes are equal, probabilities differ by {largest:.1e} at most"
    return equal == len(ours) and largest <= LARGEST_PROBABILITY, words


def _timed(compute: Callable, values: "np.ndarray") -> tuple[list, float]:
    """Return what is computed of each value, and the median milliseconds of one; the first is computed twice."""
    compute(values[0])
    results, seconds = [], []
    for value in values:
        started = time.perf_counter()
        results.append(compute(value))
        seconds.append(time.perf_counter() - started)
    return results, 1000 * statistics.median(seconds)


def _table(findings: Sequence[Finding]) -> str:
    width = max(len(each.what) for each in findings)
    return "\n".join(
        f"{each.what:<{width}}  {'same   ' if each.same else 'DIFFERS'}  {each.difference}"
        f"{'' if each.ms is None else f'; {each.ms:.2f} ms an image'}"
        for each in findings
    )


if __name__ == "__main__":
    command.run(main, extra="edge")
