import logging
import re
import subprocess
import urllib.request
from datetime import UTC, datetime

import grpc
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from bottlefit_jax.errors import UserError
from tests.serve import example
from tests.serve.example import infer_request, latents, status_of


def openssl(*words, cwd):
    subprocess.run(["openssl", *map(str, words)], cwd=cwd, check=True, capture_output=True, text=True)


CONFIG = """
[ca]
default_ca = plain
[plain]
database = index
new_certs_dir = .
rand_serial = yes
default_md = sha256
policy = any
unique_subject = no
copy_extensions = copy
[any]
commonName = supplied
"""
VALID, EXPIRED = ("20200101000000Z", "20990101000000Z"), ("20200101000000Z", "20200102000000Z")


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """An authority, what it signed for server and device, another authority's device, and broken ones."""
    folder = tmp_path_factory.mktemp("pki")
    (folder / "config").write_text(CONFIG)
    (folder / "index").touch()
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")

    def signed(name, dates, *signer):
        dates = ("-startdate", dates[0], "-enddate", dates[1])
        files = ("-in", f"{name}.csr", "-out", f"{name}.pem", "-notext")
        openssl("ca", "-config", "config", "-batch", *dates, *files, *signer, cwd=folder)

    for name in ("ca", "other_ca", "server", "device", "stranger", "expired", "expired_ca"):
        authority = "basicConstraints=critical,CA:true"
        extension = authority if name.endswith("ca") else "subjectAltName=DNS:localhost,IP:127.0.0.1"
        files = ("-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl("req", "-new", *key, *files, "-subj", f"/CN={name}", "-addext", extension, cwd=folder)
    for name, dates in (("ca", VALID), ("other_ca", VALID), ("expired_ca", EXPIRED)):
        signed(name, dates, "-selfsign", "-keyfile", f"{name}.key")
    for name, dates, authority in (
        ("server", VALID, "ca"),
        ("device", VALID, "ca"),
        ("stranger", VALID, "other_ca"),
        ("expired", EXPIRED, "ca"),
    ):
        signed(name, dates, "-cert", f"{authority}.pem", "-keyfile", f"{authority}.key")
    openssl("ec", "-in", "server.key", "-aes128", "-passout", "pass:secret", "-out", "encrypted.key", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return example.write(tmp_path_factory.mktemp("bundle") / "a")


def tls_files(pki, name="server", key=None):
    return {"tls_cert": pki / f"{name}.pem", "tls_key": pki / f"{key or name}.key"}


def test_tls(pki, bundle):
    with example.serving(bundle, **tls_files(pki)) as running:
        address = f"localhost:{running.port}"
        with triton.InferenceServerClient(address, ssl=True, root_certificates=str(pki / "ca.pem")) as client:
            assert client.is_server_ready()
        with (
            triton.InferenceServerClient(address, ssl=True, root_certificates=str(pki / "other_ca.pem")) as client,
            pytest.raises(InferenceServerException, match="UNAVAILABLE"),
        ):
            client.is_server_ready()
        with example.channel_to(address) as channel:
            method = example.raw_method(channel, "ServerReady")
            assert status_of(method, b"")[0] == grpc.StatusCode.UNAVAILABLE
    assert "(TLS)" in running.line


@pytest.mark.parametrize(("name", "accepted"), [("device", True), ("stranger", False), (None, False)])
def test_mutual_tls(pki, bundle, name, accepted):
    files = {"private_key": str(pki / f"{name}.key"), "certificate_chain": str(pki / f"{name}.pem")}
    own = {} if name is None else files
    with (
        example.serving(bundle, **tls_files(pki), tls_client_ca=pki / "ca.pem") as running,
        triton.InferenceServerClient(
            f"localhost:{running.port}", ssl=True, root_certificates=str(pki / "ca.pem"), **own
        ) as client,
    ):
        assert "(mutual TLS)" in running.line
        if accepted:
            assert client.is_server_ready()
        else:
            with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
                client.is_server_ready()


def error_of(bundle, **options):
    with pytest.raises(UserError) as caught, example.serving(bundle, **options):
        pass
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_invalid_certificates_are_an_error_at_the_start(pki, bundle):
    assert "expired.pem is invalid: certificate has expired" in error_of(bundle, **tls_files(pki, "expired"))
    assert "device.key is not the key of --tls-cert" in error_of(bundle, **tls_files(pki, "server", "device"))
    assert "encrypted.key is encrypted" in error_of(bundle, **tls_files(pki, "server", "encrypted"))
    assert "cannot be read: No such file" in error_of(bundle, **tls_files(pki, "nothing"))
    assert "are invalid" in error_of(bundle, tls_cert=pki / "server.key", tls_key=pki / "server.pem")
    for name, message in (("server.key", "holds no PEM certificate"), ("expired_ca.pem", "certificate has expired")):
        assert message in error_of(bundle, **tls_files(pki), tls_client_ca=pki / name)


def metrics_of(host, port):
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=60) as response:
        return response.read().decode()


def test_the_metrics_say_when_the_certificates_expire(pki, bundle):
    with example.serving(bundle, **tls_files(pki), tls_client_ca=pki / "ca.pem", metrics_port=0) as running:
        text = metrics_of("127.0.0.1", running.metrics_port)
    ends = datetime.strptime(VALID[1], "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
    expiries = re.findall(r'^bottlefit_certificate_expiry_timestamp_seconds\{file="(.*)"\} (\S+)$', text, re.MULTILINE)
    assert {file: float(value) for file, value in expiries} == {"tls-cert": ends, "tls-client-ca": ends}


def test_the_metrics_of_a_server_with_tls_listen_where_they_are_told(pki, bundle):
    for options, host in (({}, "127.0.0.1"), ({"metrics_host": "0.0.0.0"}, "0.0.0.0")):
        with example.serving(bundle, **tls_files(pki), host="localhost", metrics_port=0, **options) as running:
            assert f"metrics on http://{host}:{running.metrics_port}/metrics" in running.line
            assert "bottlefit_model_info" in metrics_of("127.0.0.1", running.metrics_port)


def test_every_method_needs_the_token(bundle, tmp_path):
    (tmp_path / "token").write_text("s3cret-t0ken\n")
    with (
        example.serving(bundle, token_file=tmp_path / "token") as running,
        example.channel_to(running.address) as channel,
    ):
        data = infer_request(latents()).SerializeToString()
        for method, message in (("ServerReady", b""), ("ModelInfer", data), ("ModelInfer", b"\xff"), ("Nothing", b"")):
            call = example.raw_method(channel, method)
            for given in ([], ["s3cret-t0ken"], ["Bearer s3cret-t0keN"], ["Bearer "], ["Bearer s3cret-t0ken"] * 2):
                metadata = [("authorization", value) for value in given]
                assert status_of(call, message, metadata=metadata)[0] == grpc.StatusCode.UNAUTHENTICATED
        method = example.raw_method(channel, "ModelInfer")
        assert status_of(method, data, metadata=[("authorization", "Bearer s3cret-t0ken")])[0] == grpc.StatusCode.OK
    assert "token" in running.line


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "edge.example"])
def test_plaintext_stays_on_the_loopback(bundle, host):
    assert f"host {host} without TLS would let everyone read along" in error_of(bundle, host=host)


def test_allow_plaintext_serves_plaintext_elsewhere(bundle):
    with (
        example.serving(bundle, host="0.0.0.0", allow_plaintext=True) as running,
        triton.InferenceServerClient(f"127.0.0.1:{running.port}") as client,
    ):
        assert client.is_server_ready()


def fields_of_calls(caplog):
    return [record.fields for record in caplog.records if record.getMessage() == "call"]


def test_refused_calls_are_logged_with_the_name_in_the_certificate(pki, bundle, caplog):
    files = {"private_key": str(pki / "device.key"), "certificate_chain": str(pki / "device.pem")}
    with (
        caplog.at_level(logging.INFO, logger="bottlefit_jax.serve"),
        example.serving(bundle, **tls_files(pki), tls_client_ca=pki / "ca.pem") as running,
        triton.InferenceServerClient(
            f"localhost:{running.port}", ssl=True, root_certificates=str(pki / "ca.pem"), **files
        ) as client,
        pytest.raises(InferenceServerException, match="PERMISSION_DENIED"),
    ):
        client.unload_model("digits")
    (fields,) = fields_of_calls(caplog)
    assert (fields["method"], fields["client"]) == ("RepositoryModelUnload", "device")
    assert re.fullmatch(r"ipv[46]:.*:\d+", fields["peer"])


def test_calls_without_the_token_are_logged_and_counted(bundle, tmp_path, caplog):
    (tmp_path / "token").write_text("s3cret-t0ken")
    options = {"token_file": tmp_path / "token", "metrics_port": 0}
    with (
        caplog.at_level(logging.INFO, logger="bottlefit_jax.serve"),
        example.serving(bundle, **options) as running,
        example.channel_to(running.address) as channel,
    ):
        for method in ("ModelInfer", "ModelInfer", "Made" + "Up" * 500):
            assert status_of(example.raw_method(channel, method), b"")[0] == grpc.StatusCode.UNAUTHENTICATED
        text = metrics_of("127.0.0.1", running.metrics_port)
    assert 'bottlefit_refused_calls_total{method="ModelInfer",status="UNAUTHENTICATED"} 2.0' in text
    assert 'bottlefit_refused_calls_total{method="other",status="UNAUTHENTICATED"} 1.0' in text
    calls = fields_of_calls(caplog)
    assert [fields["method"][:10] for fields in calls] == ["ModelInfer", "ModelInfer", "MadeUpUpUp"]
    assert all(fields["peer"].startswith("ipv4:127.0.0.1:") for fields in calls)
    assert all(fields["status"] == "UNAUTHENTICATED" and len(fields["method"]) <= 128 for fields in calls)
