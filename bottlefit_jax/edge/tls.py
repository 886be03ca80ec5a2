"""TLS: the device's files, and why a handshake failed.

gRPC reports every failed handshake as UNAVAILABLE. Its message often names the reason. Where the server only closes the
connection it does not, and then a handshake of our own finds the reason.
"""

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import grpc

from bottlefit_jax.edge.address import Address
from bottlefit_jax.errors import UserError

# parts of messages of gRPC and OpenSSL -> what they mean; the first row that matches is used
_REASONS = (
    (("Hostname Verification Check failed",), "its certificate is for another name"),
    (("WRONG_VERSION_NUMBER", "HTTP_REQUEST"), "it does not speak TLS on this port: leave out --tls"),
    (("CERTIFICATE_REQUIRED",), "it asks for a certificate of this device: give --tls-cert and --tls-key"),
    (
        ("ALERT_UNKNOWN_CA", "ALERT_BAD_CERTIFICATE", "ALERT_CERTIFICATE", "ALERT_UNSUPPORTED_CERTIFICATE"),
        "it does not accept this device's certificate",
    ),
    (("CERTIFICATE_VERIFY_FAILED", "certificate"), "its certificate cannot be trusted"),
    (("SSL_ERROR", "Tls handshake failed"), "the handshake failed"),
)
# parts of gRPC's messages where the server closed the connection without a reason
_CLOSED = ("closed", "reset", "Broken pipe", "EOF", "TSI_DATA_CORRUPTED")


class Problem(NamedTuple):
    """Why there is no TLS connection.

    Attributes:
        text: one line.
        permanent: the reason is certain, and another attempt would fail too.
    """

    text: str
    permanent: bool


@dataclass(frozen=True)
class Files:
    """PEM files that have been checked.

    Attributes:
        ca: the authorities that may have signed the server's certificate; None for the public ones that gRPC knows.
        cert, key: this device's certificate and its key; None without.
    """

    ca: Path | None
    cert: Path | None
    key: Path | None

    def credentials(self) -> grpc.ChannelCredentials:
        """Return the credentials for a gRPC channel."""
        return grpc.ssl_channel_credentials(
            *(None if path is None else path.read_bytes() for path in (self.ca, self.key, self.cert))
        )


def check_files(
    *, ca: Path | str | None = None, cert: Path | str | None = None, key: Path | str | None = None
) -> Files:
    """Check the files of TLS; with `cert` and `key`, of mutual TLS.

    Args:
        ca: PEM file of the authorities to trust; None for public ones.
        cert: PEM file of this device's certificate.
        key: PEM file of its key.

    Raises:
        UserError: a file is missing or not PEM, or certificate and key do not match.
    """
    if (cert is None) != (key is None):
        raise UserError("a certificate and its key go together: --tls-cert and --tls-key")
    name = "" if ca is None else str(ca)
    try:  # gRPC accepts any bytes here, and fails later without a reason
        context = ssl.create_default_context(cafile=ca)
        if cert is not None:
            name = f"{cert} with {key}"
            context.load_cert_chain(cert, key, password=lambda: "")
    except ssl.SSLError as error:
        raise UserError(f"cannot use {name} for TLS: no PEM file of a certificate and its key ({error})") from None
    except OSError as error:
        raise UserError(f"cannot use {name} for TLS: {error.strerror}") from None
    return Files(*(None if path is None else Path(path) for path in (ca, cert, key)))


def find_problem(details: str, server: Address, files: Files | None, seconds: float) -> Problem | None:
    """Return why a connection failed, if TLS is the reason.

    Args:
        details: gRPC's message.
        server: where the message names no reason, one more handshake is made with it.
        files: None for plaintext.
        seconds: that this handshake may take.
    """
    if files is not None and (reason := _reason(details)):
        return Problem(f"TLS with {server.text} failed: {reason} ({details})", True)
    if not any(part in details for part in _CLOSED):
        return None
    return _try_tls(server, seconds) if files is None else _try_certificate(server, files, seconds)


def _reason(message: str) -> str | None:
    return next((reason for parts, reason in _REASONS if any(part in message for part in parts)), None)


def _try_tls(server: Address, seconds: float) -> Problem | None:
    """Return that the server speaks TLS, if it completes a handshake or refuses one with an alert."""
    context = _unverified()
    try:
        with socket.create_connection((server.host, server.port), seconds) as plain:
            context.wrap_socket(plain, server_hostname=server.host).close()
    except OSError as error:
        if "ALERT" not in str(error):
            return None
    return Problem(
        f"{server.text} speaks TLS: add --tls, or --tls-ca with the file of the authority that signed its certificate",
        True,
    )


def _try_certificate(server: Address, files: Files, seconds: float) -> Problem | None:
    """Return why the server refuses our certificate, or that we have none. gRPC has verified the server's before."""
    context = _unverified()
    if files.cert is not None:
        context.load_cert_chain(files.cert, files.key, password=lambda: "")
    try:
        with socket.create_connection((server.host, server.port), seconds) as plain:
            plain.settimeout(seconds)
            with context.wrap_socket(plain, server_hostname=server.host) as encrypted:
                if encrypted.recv(1):  # in HTTP/2 the server sends first
                    return None
    except TimeoutError:
        return None
    except ssl.SSLError as error:
        if reason := _reason(str(error)):
            return Problem(f"TLS with {server.text} failed: {reason} ({error.reason})", True)
        if not isinstance(error, ssl.SSLEOFError):
            return None
    except ConnectionResetError:  # the server refused the handshake, or a proxy has no server
        pass
    except OSError:
        return None
    if files.cert is None:
        behaviour = "wants a certificate of the device: give --tls-cert and --tls-key"
    else:
        behaviour = f"does not accept the device's certificate, {files.cert}"
    return Problem(f"it closed the connection after the TLS handshake, like a server that {behaviour}", False)


def _unverified() -> ssl.SSLContext:
    """Return a context for a handshake after which no data is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context
