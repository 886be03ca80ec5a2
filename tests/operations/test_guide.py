"""What docs/operations.md quotes: messages, events of the log, formats, the unit, the simulation."""

import ast
import re
import shlex
import subprocess

import pytest

from bottlefit_jax.bundle.manifest import FORMAT
from bottlefit_jax.codec import wire
from bottlefit_jax.codec.rate import FORMATS
from bottlefit_jax.links.simulate import main as simulate
from bottlefit_jax.serve.__main__ import GRACE, parse
from tests.operations import GUIDE, ROOT, block, commands, table, write

QUOTED = re.findall(r"^\| `([^`]+)`[^|]*\|[^|]*\|[^|]*\|$", GUIDE.partition("## When something fails")[2], re.MULTILINE)


def texts_of_the_code():
    """Every string in the package and the export but docstrings; where a value goes, there is a NUL."""
    for folder in ("bottlefit_jax", "export"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            nodes = [*ast.walk(ast.parse(path.read_text()))]
            docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
            for node in nodes:
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                    yield node.value
                elif isinstance(node, ast.JoinedStr):
                    yield "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)


@pytest.fixture(scope="module")
def texts():
    return [*texts_of_the_code()]


def is_in(message, texts):
    """Whether a text has all parts of a message, in this order; gRPC's own part after a colon is not ours."""
    parts = [re.escape(part.strip()) for part in message.split("…") if part.strip()]
    pattern = re.compile(".*?".join(parts), re.DOTALL)
    return any(pattern.search(text) for text in texts)


def test_there_are_many_messages():
    assert len(QUOTED) > 40
    assert len(QUOTED) == len(set(QUOTED))


@pytest.mark.parametrize("message", QUOTED)
def test_every_quoted_message_is_in_the_code(message, texts):
    grpcs = ": UNAVAILABLE: failed to connect"
    assert is_in(message.removesuffix(grpcs), texts)


def test_a_message_that_is_not_there_is_found(texts):
    assert not is_in("no answer from … within … hours", texts)
    assert not is_in("the certificate is green", texts)


def test_every_event_of_the_log_is_in_the_guide():
    listed = {name.strip("`") for row in table("event") for name in row[0].split(", ")}
    source = "".join(path.read_text() for path in (ROOT / "bottlefit_jax" / "serve").glob("*.py"))
    logged = set(re.findall(r'\blog\("([\w ]+)"', source)) | set(re.findall(r'self\._change\("(\w+)"', source))
    assert listed == logged


def test_the_formats_are_those_of_the_code():
    rows = {row[0]: row[1:3] for row in table("format")}
    assert rows["bundle (`manifest.json`, `format`)"] == [f"formats 1 to {FORMAT}", str(FORMAT)]
    assert rows["code tables (`rates.json`, `format`)"] == [
        f"formats {' and '.join(map(str, FORMATS))}",
        str(max(FORMATS)),
    ]
    assert rows["payload (two bits of its first byte)"] == [f"version {wire.VERSION}", str(wire.VERSION)]


def test_the_servers_unit_has_valid_flags_and_waits_for_its_end(tmp_path):
    unit = (ROOT / "docs" / "service" / "bottlefit-serve.service").read_text()
    words = shlex.split(re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE)[1])
    assert words[1:3] == ["-m", "bottlefit_jax.serve"]
    options, _ = parse([word.replace("/srv/bottlefit/bundles", str(tmp_path)) for word in words[3:]])
    given = {
        name
        for name in ("server.pem", "server.key", "ca.pem")
        if f"LoadCredential={name}:/etc/bottlefit/{name}\n" in unit
    }
    assert {
        str(path).rpartition("/")[2] for path in (options.tls_cert, options.tls_key, options.tls_client_ca)
    } == given
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[1]) > GRACE


def test_the_simulation_runs_and_has_the_columns_of_the_guide(bundle, bundles, tmp_path, monkeypatch, capsys):
    text = block("links.simulate")
    monkeypatch.chdir(tmp_path)
    write(bundles / "digits-1", bundle)
    made = [line for line in text.splitlines() if line.startswith(("mkdir", "printf"))]
    subprocess.run(["bash", "-e", "-c", "\n".join(made)], check=True)
    (words,) = commands("bottlefit_jax.links.simulate", of=text)
    fewer = [{"500": "50", "120": "20"}.get(word, word) for word in words]
    assert simulate(fewer) == 0
    printed = capsys.readouterr().out.splitlines()
    shown = re.search(r"^```text\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)[1].splitlines()
    assert printed[1] == shown[1]
    assert all(lines[-1].startswith("goal of 99 %: ") for lines in (printed, shown))
