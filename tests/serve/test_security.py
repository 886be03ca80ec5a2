import logging
import re
import subprocess
import urllib.request

import grpc
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from bottlefit_jax.errors import UserError
from bottlefit_jax.serve import security
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


def tls_flags(pki, name="server", key=None):
    return ["--tls-cert", pki / f"{name}.pem", "--tls-key", pki / f"{key or name}.key"]


def test_tls(pki, bundle):
    with example.serving("--bundle", bundle, *tls_flags(pki)) as running:
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
        example.serving("--bundle", bundle, *tls_flags(pki), "--tls-client-ca", pki / "ca.pem") as running,
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


def refused(bundle, *flags):
    with pytest.raises(UserError) as caught, example.serving("--bundle", bundle, *flags):
        pass
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_certificates_that_cannot_work_are_told_at_start(pki, bundle):
    assert "expired.pem cannot be used: certificate has expired" in refused(bundle, *tls_flags(pki, "expired"))
    assert "device.key is not the key of --tls-cert" in refused(bundle, *tls_flags(pki, "server", "device"))
    assert "encrypted.key is encrypted" in refused(bundle, *tls_flags(pki, "server", "encrypted"))
    assert "cannot be read: No such file" in refused(bundle, *tls_flags(pki, "nothing"))
    swapped = ["--tls-cert", pki / "server.key", "--tls-key", pki / "server.pem"]
    assert "cannot be used" in refused(bundle, *swapped)
    for name, said in (("server.key", "holds no PEM certificate"), ("expired_ca.pem", "certificate has expired")):
        assert said in refused(bundle, *tls_flags(pki), "--tls-client-ca", pki / name)


def test_a_token_is_wanted_for_every_method(bundle, tmp_path):
    (tmp_path / "token").write_text("s3cret-t0ken\n")
    with (
        example.serving("--bundle", bundle, "--token-file", tmp_path / "token") as running,
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


@pytest.mark.parametrize("content", [b"", b"  \n", b"two words", "ключ".encode(), b"x" * 5000])
def test_a_token_file_holds_one_word(tmp_path, content):
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(UserError, match="must hold one word"):
        security.read_token(path)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "edge.example"])
def test_plaintext_stays_on_the_loopback(bundle, host):
    assert f"--host {host} without TLS would let everyone read along" in refused(bundle, "--host", host)


def test_plaintext_elsewhere_when_told(bundle):
    with (
        example.serving("--bundle", bundle, "--host", "0.0.0.0", "--allow-plaintext") as running,
        triton.InferenceServerClient(f"127.0.0.1:{running.port}") as client,
    ):
        assert client.is_server_ready()


@pytest.mark.parametrize(("host", "loopback"), [("localhost", True), ("127.3.2.1", True), ("[::1]", True), ("", False)])
def test_loopback(host, loopback):
    assert security.is_loopback(host) == loopback


def of_calls(caplog):
    return [record.fields for record in caplog.records if record.getMessage() == "call"]


def test_refused_calls_are_logged_with_the_name_in_the_certificate(pki, bundle, caplog):
    files = {"private_key": str(pki / "device.key"), "certificate_chain": str(pki / "device.pem")}
    with (
        caplog.at_level(logging.INFO, logger="bottlefit_jax.serve"),
        example.serving("--bundle", bundle, *tls_flags(pki), "--tls-client-ca", pki / "ca.pem") as running,
        triton.InferenceServerClient(
            f"localhost:{running.port}", ssl=True, root_certificates=str(pki / "ca.pem"), **files
        ) as client,
        pytest.raises(InferenceServerException, match="PERMISSION_DENIED"),
    ):
        client.unload_model("digits")
    (fields,) = of_calls(caplog)
    assert (fields["method"], fields["client"]) == ("RepositoryModelUnload", "device")
    assert re.fullmatch(r"ipv[46]:.*:\d+", fields["peer"])


def test_calls_without_the_token_are_logged_and_counted(bundle, tmp_path, caplog):
    (tmp_path / "token").write_text("s3cret-t0ken")
    flags = ("--token-file", tmp_path / "token", "--metrics-port", "0")
    with (
        caplog.at_level(logging.INFO, logger="bottlefit_jax.serve"),
        example.serving("--bundle", bundle, *flags) as running,
        example.channel_to(running.address) as channel,
    ):
        for method in ("ModelInfer", "ModelInfer", "Made" + "Up" * 500):
            assert status_of(example.raw_method(channel, method), b"")[0] == grpc.StatusCode.UNAUTHENTICATED
        with urllib.request.urlopen(f"http://127.0.0.1:{running.metrics_port}/metrics", timeout=60) as response:
            text = response.read().decode()
    assert 'bottlefit_refused_calls_total{method="ModelInfer",status="UNAUTHENTICATED"} 2.0' in text
    assert 'bottlefit_refused_calls_total{method="other",status="UNAUTHENTICATED"} 1.0' in text
    calls = of_calls(caplog)
    assert [fields["method"][:10] for fields in calls] == ["ModelInfer", "ModelInfer", "MadeUpUpUp"]
    assert all(fields["peer"].startswith("ipv4:127.0.0.1:") for fields in calls)
    assert all(fields["status"] == "UNAUTHENTICATED" and len(fields["method"]) <= 128 for fields in calls)
