"""What docs/operations.md says, and the files in docs/service that it names."""

import re
import shlex
from pathlib import Path

from bottlefit_jax.edge.client import EdgeClient
from tests.bundle import example as bundle_example
from tests.edge import conftest as edge
from tests.serve import example

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "operations.md").read_text()
HEAD, OTHER_HEAD = bundle_example.HEAD, "c" * 64


def block(word):
    """The one block of shell commands in the guide that has this word."""
    (found,) = (text for text in re.findall(r"^```sh\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE) if word in text)
    return found


def commands(module, *, of):
    """The arguments of every `python -m MODULE` in a block."""
    lines = [shlex.split(line, comments=True) for line in of.replace("\\\n", " ").splitlines()]
    return [words[3:] for words in lines if words[:3] == ["python", "-m", module]]


def table(heading):
    """The rows of the guide's table whose first column has this heading, as lists of their cells."""
    (rows,) = re.findall(rf"^\| {re.escape(heading)} \|.*\n\| --- .*\n((?:\|.*\n)+)", GUIDE, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split(" |")] for row in rows.splitlines()]


def write(folder, source, *, version=1, head=HEAD, seed=0):
    """Write a bundle with rates that a device and a server can run.

    Args:
        folder: of the bundle.
        source: a bundle of tests/edge, whose head it gets.
        version: of the model.
        head: the id of the head.
        seed: of the tail; its id has this number.
    """
    files = {name: (source / name).read_bytes() for name in ("head.tflite", "head.onnx", "local.tflite")}
    files["tail.onnx"] = example.onnx_tail(seed, tuple(edge.LATENT), edge.CLASSES)
    values = {key: value for key, value in edge.manifest().items() if key not in ("files", "rates", "default_rate")}
    tail = {**values["tail"], "id": f"{seed:064x}", "head": head}
    values |= {"version": version, "head": {"id": head}, "tail": tail}
    files, tables = {**bundle_example.FILES, **files}, bundle_example.rates(edge.LATENT, head=head)
    return bundle_example.write(folder, **bundle_example.with_rates(tables, files=files, **values))


def device(bundle, address, **options):
    """A device that has time on a busy machine."""
    return EdgeClient(bundle, address, **{"deadline_ms": 60_000, "policy": "fixed", **options})
