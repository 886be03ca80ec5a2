"""The options of a server, and the checks of their values."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bottlefit_jax.errors import UserError
from bottlefit_jax.onnx_session import check_providers
from bottlefit_jax.protocol.authorization import is_loopback
from bottlefit_jax.serve.tail import BACKENDS

# option -> the smallest and the largest valid value
LIMITS: dict[str, tuple[float, float]] = {
    "threads": (1, 1024),
    "max_batch": (1, 1024),
    "batch_delay_ms": (0, 10_000),
    "queue": (1, 1_000_000),
    "log_calls": (0, 1_000_000),
    "port": (0, 65_535),
    "repository_port": (0, 65_535),
    "metrics_port": (0, 65_535),
}


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """What a server serves, and how. Only `bundles` or `parents` must be given.

    Attributes:
        bundles: folders of one bundle each.
        parents: folders that hold bundles, PARENT/BUNDLE or PARENT/NAME/VERSION. They are read again at each load.
        host: the address to listen on. Other addresses than the loopback need TLS, or `allow_plaintext`.
        port: of the protocol; 0 is a free one.
        backend: what runs the tail, a key of tail.BACKENDS.
        threads: that run one batch.
        providers: what onnxruntime computes with, keys of onnx_session.PROVIDERS in the order of preference; none: all
            that are installed, the fastest first.
        max_batch: the largest number of images that are run at once.
        batch_delay_ms: milliseconds that an idle tail waits for more requests. Requests that arrive while the tail runs
            are run together anyway; 2 ms made 4 clients of a tail of 0.3 ms wait 2.7 ms instead of 0.8.
        queue: the largest number of requests that wait, whatever their deadlines.
        repository_port: on the loopback, for the calls that load and unload models; 0 is a free one, None is none.
        metrics_port: for /metrics and /healthz; 0 is a free one, None is none.
        metrics_host: the address that port listens on, always in plaintext; None is `host` with `allow_plaintext`, else
            the loopback.
        log_calls: of so many calls that end alike one is logged; 0 is none.
        tls_cert: PEM file of the server's certificate, followed by those up to its authority.
        tls_key: PEM file of the certificate's key.
        tls_client_ca: PEM file; only clients with a certificate of this authority are served.
        token_file: only clients that send the token in this file are served.
        allow_plaintext: serve without TLS on other addresses than the loopback.
    """

    bundles: Sequence[Path | str] = ()
    parents: Sequence[Path | str] = ()
    host: str = "127.0.0.1"
    port: int = 0
    backend: str = "onnx"
    threads: int = field(default_factory=cores)
    providers: Sequence[str] = ()
    max_batch: int = 8
    batch_delay_ms: float = 0.0
    queue: int = 1024
    repository_port: int | None = None
    metrics_port: int | None = None
    metrics_host: str | None = None
    log_calls: int = 1
    tls_cert: Path | str | None = None
    tls_key: Path | str | None = None
    tls_client_ca: Path | str | None = None
    token_file: Path | str | None = None
    allow_plaintext: bool = False

    def check(self, name: Callable[[str], str] = str) -> None:
        """Check the values, and that they go together. No file is opened.

        Args:
            name: makes the name of an option, as a message shows it, from the name of its field.

        Raises:
            UserError: a value is invalid.
        """
        self._check_folders(name)
        if self.backend not in BACKENDS:
            raise UserError(f"{name('backend')} is {self.backend!r}; it must be one of {', '.join(BACKENDS)}")
        check_providers(self.providers, name("providers"))
        if self.providers and self.backend != "onnx":
            raise UserError(f"{name('providers')} belongs to {name('backend')} onnx, and the backend is {self.backend}")
        for option, (least, most) in LIMITS.items():
            value = getattr(self, option)
            if value is not None or option not in ("repository_port", "metrics_port"):
                _check_number(name(option), value, least, most, whole=option != "batch_delay_ms")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UserError(f"{name('tls_cert')} and {name('tls_key')} go together")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise UserError(f"{name('tls_client_ca')} needs {name('tls_cert')} and {name('tls_key')}")
        if self.metrics_host is not None and self.metrics_port is None:
            raise UserError(f"{name('metrics_host')} needs {name('metrics_port')}")
        self._check_plaintext(name)

    def _check_folders(self, name: Callable[[str], str]) -> None:
        for option in ("bundles", "parents"):
            value = getattr(self, option)
            if isinstance(value, str | os.PathLike):
                raise UserError(f"{name(option)} is {str(value)!r}; it must be a list of folders")
        if not self.bundles and not self.parents:
            raise UserError(f"{name('bundles')} is missing; an example: bundles/digits")
        for folder in self.parents:
            if not Path(folder).is_dir():
                raise UserError(f"no folder {folder}: {name('parents')} must be a folder that holds bundles")

    def _check_plaintext(self, name: Callable[[str], str]) -> None:
        if self.tls_cert is None and not self.allow_plaintext and not is_loopback(self.host):
            raise UserError(
                f"{name('host')} {self.host} without TLS would let everyone read along: give {name('tls_cert')} and "
                f"{name('tls_key')}, or {name('allow_plaintext')}"
            )


def _check_number(name: str, value: Any, least: float, most: float, *, whole: bool) -> None:
    is_number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not is_number or math.isnan(value) or not least <= value <= most:
        shown = f"{value:g}" if is_number else repr(value)
        kind = "a whole number from " if not is_number and whole else ""
        raise UserError(f"{name} is {shown}; it must be {kind}{least:,} to {most:,}")
