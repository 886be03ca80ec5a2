"""TLS: the device's files, and why a handshake failed.

gRPC calls every failed handshake UNAVAILABLE. Some of its words name the reason; where a server only closes the
connection they do not, and a handshake of our own finds out more.
"""

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import grpc

from bottlefit_jax.edge.address import Address
from bottlefit_jax.errors import UserError

# words of gRPC and of OpenSSL -> what they mean; the first line that matches is used
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
# gRPC's words where the server closed the connection without a reason
_CLOSED = ("closed", "reset", "Broken pipe", "EOF", "TSI_DATA_CORRUPTED")


class Problem(NamedTuple):
    """Why there is no TLS connection. A permanent one is certain, and another attempt would end alike."""

    text: str
    permanent: bool


@dataclass(frozen=True)
class Files:
    """PEM files that were read and checked; None where gRPC's public authorities or no certificate are used.

    Attributes:
        ca: who may have signed the server's certificate.
        cert, key: this device's.
    """

    ca: Path | None
    cert: Path | None
    key: Path | None

    def credentials(self) -> grpc.ChannelCredentials:
        """For a gRPC channel."""
        return grpc.ssl_channel_credentials(
            *(None if path is None else path.read_bytes() for path in (self.ca, self.key, self.cert))
        )


def check_files(
    *, ca: Path | str | None = None, cert: Path | str | None = None, key: Path | str | None = None
) -> Files:
    """Files of TLS, or of mutual TLS where `cert` and `key` are given.

    Raises:
        UserError: a file that is missing, no PEM, or a pair that does not match.
    """
    if (cert is None) != (key is None):
        raise UserError("a certificate and its key go together: --tls-cert and --tls-key")
    name = "" if ca is None else str(ca)
    try:  # gRPC takes any bytes and fails later without a reason
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
    """Why a connection to `server` failed, if TLS is the reason.

    Args:
        details: gRPC's words.
        server: asked once more, where the words do not say.
        files: None for plaintext.
        seconds: that the question may take.
    """
    if files is not None and (reason := _reason(details)):
        return Problem(f"TLS with {server.text} failed: {reason} ({details})", True)
    if not any(word in details for word in _CLOSED):
        return None
    return _ask_without_tls(server, seconds) if files is None else _ask(server, files, seconds)


def _reason(words: str) -> str | None:
    return next((reason for found, reason in _REASONS if any(word in words for word in found)), None)


def _ask_without_tls(server: Address, seconds: float) -> Problem | None:
    """A server that completes a handshake, or refuses one with an alert, speaks TLS."""
    context = _unverified()
    try:
        with socket.create_connection((server.host, server.port), seconds) as plain:
            context.wrap_socket(plain, server_hostname=server.host).close()
    except OSError as error:
        if "ALERT" not in str(error):
            return None
    return Problem(
        f"{server.text} speaks TLS: add --tls, or --tls-ca with the file of who signed its certificate", True
    )


def _ask(server: Address, files: Files, seconds: float) -> Problem | None:
    """What the server says of our certificate, or of none. Its own was verified by gRPC before."""
    context = _unverified()
    if files.cert is not None:
        context.load_cert_chain(files.cert, files.key, password=lambda: "")
    try:
        with socket.create_connection((server.host, server.port), seconds) as plain:
            plain.settimeout(seconds)
            with context.wrap_socket(plain, server_hostname=server.host) as encrypted:
                if encrypted.recv(1):  # a server of HTTP/2 speaks first
                    return None
    except TimeoutError:
        return None
    except ssl.SSLError as error:
        if reason := _reason(str(error)):
            return Problem(f"TLS with {server.text} failed: {reason} ({error.reason})", True)
        if not isinstance(error, ssl.SSLEOFError):
            return None
    except ConnectionResetError:  # after a handshake that the server did not like, or by a proxy without a server
        pass
    except OSError:
        return None
    if files.cert is None:
        wish = "wants a certificate of the device: give --tls-cert and --tls-key"
    else:
        wish = f"does not accept the device's certificate, {files.cert}"
    return Problem(f"it closed the connection after the TLS handshake, like a server that {wish}", False)


def _unverified() -> ssl.SSLContext:
    """For a handshake over which nothing is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context
