"""TLS: what works, and the messages where it does not."""

import contextlib
import socket
import ssl
import subprocess
import threading

import grpc
import pytest

from bottlefit_jax.edge.client import EdgeClient, Unavailable
from bottlefit_jax.errors import BottleFitError, UserError
from tests.edge.server import serve


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """ca.pem, and of each of server, other, device, foreign and expired NAME.pem and NAME.key."""
    folder = tmp_path_factory.mktemp("certificates")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for ca in ("ca", "foreign"):
        openssl(folder, "req", "-x509", *key, "-keyout", f"{ca}.key", "-out", f"{ca}.pem", "-subj", f"/CN={ca}")
    for name in ("server", "other", "device", "expired"):
        names = "DNS:edge.example" if name == "other" else "DNS:localhost,IP:127.0.0.1"
        (folder / "names").write_text(f"subjectAltName={names}")
        openssl(folder, "req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        days = ("-not_before", "20200101000000Z", "-not_after", "20200102000000Z")
        common = ("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-extfile", "names")
        try:
            openssl(folder, *common, *(days if name == "expired" else ("-days", "9")), "-out", f"{name}.pem")
        except subprocess.CalledProcessError:  # before OpenSSL 3.4 there is no -not_before, but a day may be negative
            openssl(folder, *common, "-days", "-1", "-out", f"{name}.pem")
    return folder


@contextlib.contextmanager
def tls_server(tail, folder, name="server", mutual=False):
    """localhost:PORT."""
    pair = [((folder / f"{name}.key").read_bytes(), (folder / f"{name}.pem").read_bytes())]
    ca = (folder / "ca.pem").read_bytes() if mutual else None
    server, port = serve(tail, credentials=grpc.ssl_server_credentials(pair, ca, require_client_auth=mutual))
    yield f"localhost:{port}"
    server.stop(0).wait()


def test_tls_and_mutual_tls(bundle, tail, image, certificates):
    device = {"tls_cert": certificates / "device.pem", "tls_key": certificates / "device.key"}
    with tls_server(tail, certificates) as server, EdgeClient(bundle, server, tls_ca=certificates / "ca.pem") as client:
        client.infer(image)
        sent = [client.infer(image).bytes_sent for _ in range(5)]
        assert min(one.total - one.payload for one in sent) <= 200  # others may have a ping of HTTP/2
    with tls_server(tail, certificates, mutual=True) as server:
        with EdgeClient(bundle, server, tls_ca=certificates / "ca.pem", **device) as client:
            client.infer(image)
        client = EdgeClient(bundle, server, tls_ca=certificates / "ca.pem", deadline_ms=500)
        with client, pytest.raises(BottleFitError):
            client.infer(image)


@pytest.mark.parametrize(("name", "ca"), [("expired", "ca.pem"), ("server", "device.pem"), ("server", None)])
def test_a_certificate_that_cannot_be_trusted_is_reported_at_once(bundle, tail, image, certificates, name, ca, clock):
    with tls_server(tail, certificates, name) as server:
        trusted = None if ca is None else certificates / ca
        with EdgeClient(bundle, server, tls=True, tls_ca=trusted) as client:
            with pytest.raises(UserError, match=f"TLS with {server} failed: .*CERTIFICATE_VERIFY_FAILED") as caught:
                client.infer(image)
            assert not clock.pauses
    assert "\n" not in str(caught.value)
    assert not tail.requests
    if name == "expired":
        assert "expired" in str(caught.value)


def test_invalid_tls_files_are_one_line(bundle, certificates, tmp_path):
    (tmp_path / "no.pem").write_text("hello")
    device = certificates / "device.pem"
    for files, problem in (
        ({"tls_ca": tmp_path / "none.pem"}, "none.pem for TLS: No such file or directory$"),
        ({"tls_ca": tmp_path / "no.pem"}, "no.pem for TLS: no PEM file"),
        ({"tls_cert": device}, "go together"),
        ({"tls_cert": device, "tls_key": tmp_path / "no.pem"}, "device.pem with .*no.pem for TLS"),
        ({"tls_cert": device, "tls_key": certificates / "server.key"}, "KEY_VALUES_MISMATCH"),
    ):
        with pytest.raises(UserError, match=problem) as caught:
            EdgeClient(bundle, "localhost:8001", **files)
        assert "\n" not in str(caught.value)


def refusal(bundle, server, image, **files):
    """One line of a UserError, which must not come only at the deadline."""
    with EdgeClient(bundle, server, **files) as client:
        with pytest.raises(UserError) as caught:
            client.infer(image)
        assert not isinstance(caught.value, Unavailable)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_certificate_for_another_name_is_not_retried(bundle, tail, image, certificates):
    with tls_server(tail, certificates, "other") as server:
        message = refusal(bundle, server, image, tls_ca=certificates / "ca.pem")
    assert message.startswith(f"TLS with {server} failed: its certificate is for another name")


def test_tls_against_plaintext_and_the_reverse_say_so(bundle, server, tail, image, certificates):
    message = refusal(bundle, server, image, tls_ca=certificates / "ca.pem")
    assert message.startswith(f"TLS with {server} failed: it does not speak TLS on this port: leave out --tls")
    for mutual in (False, True):
        with tls_server(tail, certificates, mutual=mutual) as encrypted:
            assert f"{encrypted} speaks TLS: add --tls" in refusal(bundle, encrypted, image)
    assert not tail.requests


def test_a_missing_or_foreign_client_certificate_says_so(bundle, tail, image, certificates, clock):
    """gRPC's server closes the connection without a reason, as one that is down behind a proxy may: it is retried."""
    foreign = {"tls_cert": certificates / "foreign.pem", "tls_key": certificates / "foreign.key"}
    with tls_server(tail, certificates, mutual=True) as server:
        for files, words in (
            ({}, "like a server that wants a certificate of the device: give --tls-cert and --tls-key"),
            (foreign, f"like a server that does not accept the device's certificate, {certificates}/foreign.pem"),
        ):
            client = EdgeClient(bundle, server, tls_ca=certificates / "ca.pem", **files)
            with client, pytest.raises(Unavailable) as caught:
                client.infer(image)
            assert words in str(caught.value)


@pytest.mark.parametrize("files", [{}, {"tls_cert": "foreign.pem", "tls_key": "foreign.key"}])
def test_a_server_that_gives_its_reason_is_quoted(bundle, image, certificates, files):
    """OpenSSL's own server sends an alert, unlike gRPC's."""
    words = "it asks for a certificate of this device" if not files else "it does not accept this device's certificate"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def work():
            with contextlib.suppress(OSError):
                while True:
                    plain, _ = listening.accept()
                    with contextlib.suppress(OSError), plain:
                        context.wrap_socket(plain, server_side=True)

        threading.Thread(target=work, daemon=True).start()
        given = {name: certificates / file for name, file in files.items()}
        address = f"localhost:{listening.getsockname()[1]}"
        assert words in refusal(bundle, address, image, tls_ca=certificates / "ca.pem", **given)
        listening.shutdown(socket.SHUT_RDWR)
