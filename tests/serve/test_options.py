"""The options of a server: their defaults, their checks, and the flags of the command."""

import dataclasses
import math

import pytest

from bottlefit_jax.errors import UserError
from bottlefit_jax.serve import ServerOptions
from bottlefit_jax.serve.__main__ import parse

FLAGS = ["--bundle", "a", "--port", "0"]


def test_the_flags_have_the_defaults_of_the_options():
    options, log_level = parse(FLAGS)
    defaults = dataclasses.asdict(ServerOptions())
    assert {**dataclasses.asdict(options), "bundles": (), "parents": ()} == defaults
    assert log_level == "info"


def test_every_option_has_a_flag(tmp_path):
    values = {
        "host": "localhost",
        "port": 1,
        "backend": "jax",
        "threads": 2,
        "max_batch": 3,
        "batch_delay_ms": 4.5,
        "queue": 6,
        "repository_port": 7,
        "metrics_port": 8,
        "metrics_host": "192.0.2.1",
        "log_calls": 9,
        "tls_cert": tmp_path / "cert",
        "tls_key": tmp_path / "key",
        "tls_client_ca": tmp_path / "ca",
        "token_file": tmp_path / "token",
    }
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    folders = ["--bundle", str(tmp_path / "a"), "--bundle", str(tmp_path / "b"), "--bundles", str(tmp_path)]
    options, log_level = parse([*flags, *folders, "--allow-plaintext", "--log-level", "error"])
    expected = ServerOptions(
        **values, bundles=[tmp_path / "a", tmp_path / "b"], parents=[tmp_path], allow_plaintext=True
    )
    assert (options, log_level) == (expected, "error")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bundles": ()}, "bundles is missing; an example: bundles/digits"),
        ({"bundles": "bundles/digits"}, "bundles is 'bundles/digits'; it must be a list of folders"),
        ({"parents": ["nowhere"]}, "no folder nowhere: parents must be a folder that holds bundles"),
        ({"backend": "torch"}, "backend is 'torch'; it must be one of onnx, jax, openvino"),
        ({"port": 70_000}, "port is 70000; it must be 0 to 65,535"),
        ({"port": None}, "port is None; it must be a whole number from 0 to 65,535"),
        ({"metrics_port": -1}, "metrics_port is -1; it must be 0 to 65,535"),
        ({"metrics_host": "::"}, "metrics_host needs metrics_port"),
        ({"log_calls": -1}, "log_calls is -1; it must be 0 to 1,000,000"),
        ({"max_batch": 0}, "max_batch is 0; it must be 1 to 1,024"),
        ({"max_batch": 2.5}, "max_batch is 2.5; it must be a whole number from 1 to 1,024"),
        ({"threads": "4"}, "threads is '4'; it must be a whole number from 1 to 1,024"),
        ({"queue": True}, "queue is True; it must be a whole number from 1 to 1,000,000"),
        ({"batch_delay_ms": math.nan}, "batch_delay_ms is nan; it must be 0 to 10,000"),
        ({"tls_key": "key"}, "tls_cert and tls_key go together"),
        ({"tls_client_ca": "ca"}, "tls_client_ca needs tls_cert and tls_key"),
        ({"host": "0.0.0.0"}, "host 0.0.0.0 without TLS would let everyone read along: give tls_cert and tls_key, or "),
    ],
)
def test_an_invalid_option_is_named_with_what_would_be_valid(changes, message):
    with pytest.raises(UserError) as caught:
        ServerOptions(**{"bundles": ["a"], **changes}).check()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_the_command_names_the_flag_instead():
    with pytest.raises(UserError, match=r"^--batch-delay-ms is nan; it must be 0 to 10,000$"):
        parse([*FLAGS, "--batch-delay-ms", "nan"])
    with pytest.raises(UserError, match=r"^no folder nowhere: --bundles must be a folder that holds bundles$"):
        parse([*FLAGS, "--bundles", "nowhere"])
    with pytest.raises(UserError, match=r"give --tls-cert and --tls-key, or --allow-plaintext$"):
        parse([*FLAGS, "--host", "0.0.0.0"])


def test_options_without_tls_are_valid_on_the_loopback_and_where_plaintext_is_allowed():
    for host in ("localhost", "127.0.0.1", "::1", "[::1]"):
        ServerOptions(bundles=["a"], host=host).check()
    ServerOptions(bundles=["a"], host="0.0.0.0", allow_plaintext=True).check()
    ServerOptions(bundles=["a"], host="0.0.0.0", tls_cert="cert", tls_key="key").check()
