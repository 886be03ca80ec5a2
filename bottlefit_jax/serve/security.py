"""TLS and bearer tokens. Invalid files are a UserError at the start, not a failed connection."""

import contextlib
import hmac
import ssl
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import grpc

from bottlefit_jax.errors import UserError

TOKEN_MISSING = "this server needs the metadata `authorization: Bearer TOKEN`"


@dataclass(frozen=True)
class Tls:
    """What a server with TLS needs.

    Attributes:
        credentials: for gRPC. The files are not read again.
        expiries: name of a file's flag, without dashes -> when its first certificate expires, seconds since 1970.
    """

    credentials: grpc.ServerCredentials
    expiries: dict[str, int] = field(default_factory=dict)


class BearerToken(grpc.aio.ServerInterceptor):
    """Answers UNAUTHENTICATED to every call, of any method, whose `authorization` is not `Bearer TOKEN`."""

    def __init__(self, token: str, *, refused: Callable[[str, dict[str, str]], None] = lambda method, caller: None):
        """Take the token, and a function that is called for each refused call.

        Args:
            token: that every call must have.
            refused: called with the full name of the method, and with `caller_of` the call.
        """
        self._expected = f"Bearer {token}".encode()
        self._refused = refused

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Return the method's handler, or a refusal. The comparison takes the same time for every wrong token."""
        metadata = handler_call_details.invocation_metadata
        given = [value for key, value in metadata if key == "authorization" and isinstance(value, str)]
        if len(given) == 1 and hmac.compare_digest(given[0].encode(), self._expected):
            return await continuation(handler_call_details)

        async def refuse(_: bytes, context: grpc.aio.ServicerContext) -> NoReturn:
            self._refused(handler_call_details.method, caller_of(context))
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, TOKEN_MISSING)

        return grpc.unary_unary_rpc_method_handler(refuse)


def caller_of(context: grpc.aio.ServicerContext) -> dict[str, str]:
    """Return who calls, for the log: the address as `peer`, and the name in its certificate, if any, as `client`."""
    caller = {"peer": urllib.parse.unquote(context.peer())[:128]}
    identity = context.auth_context()
    names = [*identity.get("x509_common_name", ()), *identity.get("x509_subject_alternative_name", ())]
    if names:
        caller["client"] = bytes(names[0]).decode(errors="replace")[:128]
    return caller


def read_tls(cert: Path, key: Path, client_ca: Path | None) -> Tls:
    """Read and check the files of a server with TLS.

    Args:
        cert: PEM file of the certificate, followed by those up to its authority.
        key: PEM file of the certificate's key.
        client_ca: PEM file; only clients with a certificate of that authority are served. None is TLS for all.

    Raises:
        UserError: a file is invalid, the key belongs to another certificate, or a certificate has expired or is not yet
            valid.
    """
    chain, secret = _read(cert, "--tls-cert"), _read(key, "--tls-key")
    authority = None if client_ca is None else _read(client_ca, "--tls-client-ca")
    expiries = {"tls-cert": _check_pair(cert, key)}
    if client_ca is not None and (expiry := _check_authority(client_ca)) is not None:
        expiries["tls-client-ca"] = expiry
    credentials = grpc.ssl_server_credentials([(secret, chain)], authority, require_client_auth=authority is not None)
    return Tls(credentials, expiries)


def _read(path: Path, flag: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{flag} {path} cannot be read: {error.strerror}") from error


def _check_pair(cert: Path, key: Path) -> int:
    """Do a handshake in memory: OpenSSL reports what a client would find wrong with the certificate.

    Returns:
        When the certificate expires, seconds since 1970.
    """

    def no_password() -> NoReturn:
        raise UserError(f"--tls-key {key} is encrypted; the server needs it without a password")

    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False  # the server does not know the names by which it is reached
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # trust the certificate itself, whoever signed it
    try:
        server.load_cert_chain(cert, key, password=no_password)
        client.load_verify_locations(cert)
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True)
        for _ in range(4):  # more flights than a handshake of TLS 1.2 has
            for end in ends:
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
        return _seconds((ends[0].getpeercert() or {})["notAfter"])
    except ssl.SSLCertVerificationError as error:
        raise UserError(f"--tls-cert {cert} is invalid: {error.verify_message}") from error
    except ssl.SSLError as error:
        if "MISMATCH" in (error.reason or ""):
            raise UserError(f"--tls-key {key} is not the key of --tls-cert {cert}") from error
        reason = (error.reason or "no PEM certificate and key").replace("_", " ").lower()
        raise UserError(f"--tls-cert {cert} and --tls-key {key} are invalid: {reason}") from error


def _check_authority(path: Path) -> int | None:
    """Return when the first of the authorities expires, seconds since 1970; None where the file has none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise UserError(f"--tls-client-ca {path} holds no PEM certificate") from error
    dates = [certificate["notAfter"] for certificate in context.get_ca_certs()]
    for date in dates:
        if _seconds(date) < time.time():
            raise UserError(f"--tls-client-ca {path} is invalid: certificate has expired ({date})")
    return min(map(_seconds, dates), default=None)


def _seconds(date: Any) -> int:
    """Return a date of a certificate, as Python's ssl writes it, in seconds since 1970."""
    return ssl.cert_time_to_seconds(str(date))
