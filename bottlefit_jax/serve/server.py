"""A server put together from its options."""

import asyncio
import functools
import weakref
from logging import WARNING
from pathlib import Path
from typing import Any

import numpy as np

from bottlefit_jax.bundle import Bundle
from bottlefit_jax.codec import wire
from bottlefit_jax.codec.rates import Rates
from bottlefit_jax.protocol.authorization import read_token
from bottlefit_jax.protocol.names import SERVICE
from bottlefit_jax.serve import security
from bottlefit_jax.serve.batching import Batcher, Decode
from bottlefit_jax.serve.grpc_server import GrpcServer
from bottlefit_jax.serve.health import Health
from bottlefit_jax.serve.http_server import HttpServer
from bottlefit_jax.serve.log import CallLog, log
from bottlefit_jax.serve.methods import METHODS, InferenceService
from bottlefit_jax.serve.metrics import Metrics
from bottlefit_jax.serve.options import ServerOptions
from bottlefit_jax.serve.repository import Model, Repository, first_few
from bottlefit_jax.serve.tail import open_tail

LOOPBACK = "127.0.0.1"


class Server:
    """A server that listens, from `await Server.start(options)` to `await server.stop()`.

    Attributes:
        options: that it was started with.
        address: HOST:PORT of the protocol.
        port: of the protocol, a real one where the options say 0.
        repository_port: for the calls that load and unload models; None where there is none.
        metrics_port: for /metrics and /healthz; None where there is none.
        models: that were loaded at the start, as NAME:VERSION.
        line: all of this in one line.
    """

    def __init__(self, options: ServerOptions, repository: Repository, metrics: Metrics):
        """Only `start` calls this."""
        self.options, self._repository, self._metrics = options, repository, metrics
        self._health = Health([SERVICE])
        self._servers: list[GrpcServer] = []
        self._log = CallLog(options.log_calls)  # of calls that are refused before a GrpcServer sees them
        self._http: HttpServer | None = None
        self._stopping = False
        self.port, self.address, self.line = 0, "", ""
        self.metrics_port: int | None = None
        self.repository_port: int | None = None
        self.models = [f"{model.manifest.name}:{model.manifest.version}" for model in repository.models()]

    @classmethod
    async def start(cls, options: ServerOptions) -> "Server":
        """Check the options, load the bundles and listen. The running event loop serves.

        Raises:
            UserError: an option, a file or a bundle is invalid, or a port is taken. Nothing is left running.
        """
        options.check()
        tls = _read_tls(options)
        token = None if options.token_file is None else read_token(Path(options.token_file))
        metrics = Metrics()
        repository = Repository(
            [Path(folder) for folder in options.bundles],
            [Path(folder) for folder in options.parents],
            start=functools.partial(_batcher, options, metrics),
            max_batch=options.max_batch,
        )
        metrics.left_out.set_function(lambda: len(repository.left_out))
        metrics.watch_models(lambda: map(_labels, repository.models()))
        for file, seconds in ({} if tls is None else tls.expiries).items():
            metrics.expiry.labels(file).set(seconds)
        try:
            await asyncio.to_thread(repository.load_all)
            server = cls(options, repository, metrics)
            try:
                await server._listen(tls, token)
            except BaseException:
                await server._stop_listening(0)
                raise
        except BaseException:
            repository.close()
            raise
        for folder, error in repository.left_out.items():
            log("left out", level=WARNING, folder=str(folder), reason=str(error))
        return server

    async def stop(self, grace: float = 10.0) -> None:
        """Take no more requests, finish those that were taken within `grace` seconds, and free everything."""
        await self._stop_listening(grace)
        await asyncio.to_thread(self._repository.close)

    async def _stop_listening(self, grace: float) -> None:
        self._stopping = True
        self._health.stop()
        await asyncio.gather(*(server.stop(grace) for server in self._servers))
        self._log.write()
        if self._http is not None:
            await asyncio.to_thread(self._http.stop)

    async def _listen(self, tls: security.Tls | None, token: str | None) -> None:
        """Open the ports and describe them in `line`."""
        options = self.options
        main = await self._serve(options.host, options.port, token, tls=tls, may_load=False)
        self.port, self.address = main.port, f"{options.host}:{main.port}"
        how = "plaintext" if tls is None else "TLS" if options.tls_client_ca is None else "mutual TLS"
        how += "" if token is None else ", token"
        self.line = f"listening on {self.address} ({how}): {', '.join(self.models)}"
        if self._repository.left_out:
            folders = [folder.name for folder in self._repository.left_out]
            self.line += f"; {len(folders)} left out, the log says why: {first_few(folders)}"
        if options.repository_port is not None:
            loading = await self._serve(LOOPBACK, options.repository_port, token, may_load=True)
            self.repository_port = loading.port
            self.line += f"; loading on {LOOPBACK}:{self.repository_port}"
        if options.metrics_port is not None:
            host = options.metrics_host or (options.host if options.allow_plaintext else LOOPBACK)
            self._http = HttpServer(
                host, options.metrics_port, registry=self._metrics.registry, ready=lambda: not self._stopping
            )
            self.metrics_port = self._http.port
            self.line += f"; metrics on http://{host}:{self.metrics_port}/metrics"

    async def _serve(
        self,
        host: str,
        port: int,
        token: str | None,
        *,
        tls: security.Tls | None = None,
        may_load: bool,
    ) -> GrpcServer:
        """Open one port of the protocol."""
        options = self.options
        service = InferenceService(
            self._repository,
            backend=options.backend,
            max_batch=options.max_batch,
            delay=options.batch_delay_ms / 1e3,
            metrics=self._metrics,
            may_load=may_load,
        )
        server = GrpcServer(
            service,
            self._metrics,
            host=host,
            port=port,
            message_limit=self._repository.message_limit,
            log_one_in=options.log_calls,
            credentials=None if tls is None else tls.credentials,
            interceptors=() if token is None else (security.BearerToken(token, refused=self._unauthenticated),),
            other_services=self._health.handlers,
        )
        await server.start()
        self._servers.append(server)
        return server

    def _unauthenticated(self, method: str, caller: dict[str, str]) -> None:
        """Count and log a call without the token."""
        service, _, name = method.strip("/").partition("/")
        # a caller without a token must not fill the memory with names of its own
        label = name if service == SERVICE and name in METHODS else "other"
        self._metrics.refused.labels(label, "UNAUTHENTICATED").inc()
        if self._log.takes(label, "UNAUTHENTICATED"):
            fields: dict[str, Any] = {"method": name[:128], "status": "UNAUTHENTICATED", **caller}
            self._log.add(level=WARNING, **fields)


def _read_tls(options: ServerOptions) -> security.Tls | None:
    if options.tls_cert is None or options.tls_key is None:
        return None
    client_ca = None if options.tls_client_ca is None else Path(options.tls_client_ca)
    return security.read_tls(Path(options.tls_cert), Path(options.tls_key), client_ca)


def _labels(model: Model) -> tuple[str, str, str, str]:
    """Return what the metrics say about a model."""
    manifest = model.manifest
    return manifest.name, str(manifest.version), manifest.head.id, manifest.tail.id


def _batcher(options: ServerOptions, metrics: Metrics, bundle: Bundle, rates: Rates | None) -> Batcher:
    """Start the tail of a bundle, and its decoder if it has rates."""
    name, version = bundle.manifest.name, bundle.manifest.version
    tail = open_tail(
        bundle,
        backend=options.backend,
        threads=options.threads,
        max_batch=options.max_batch,
        providers=options.providers,
    )
    batcher = Batcher(
        tail,
        max_batch=options.max_batch,
        delay=options.batch_delay_ms / 1e3,
        limit=options.queue,
        decode=None if rates is None else _decoder(rates),
        ran=metrics.ran(name, version),
    )
    waiting = weakref.ref(batcher)  # metrics outlive a model that is unloaded, and must not keep its tail
    metrics.watch_queue(name, version, lambda: len(waiting() or ()))
    return batcher


def _decoder(rates: Rates) -> Decode:
    """Return the decoder of a bundle's payloads, after it has decoded one of each rate: the first makes arrays."""
    latent = np.full(rates.shape, rates.rates[0].zero_point, np.uint8)
    wire.decode_batch([wire.encode(latent, rate) for rate in rates.rates], rates)
    return functools.partial(wire.decode_batch, rates=rates)
