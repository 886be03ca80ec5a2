"""A server put together from the flags of the command."""

import argparse
import asyncio
import functools
import weakref
from logging import WARNING
from typing import Any

import grpc

from bottlefit_jax.bundle import Bundle
from bottlefit_jax.errors import UserError
from bottlefit_jax.serve import security
from bottlefit_jax.serve.batching import Batcher
from bottlefit_jax.serve.grpc_server import GrpcServer
from bottlefit_jax.serve.health import Health
from bottlefit_jax.serve.http_server import HttpServer
from bottlefit_jax.serve.protocol import METHODS, SERVICE, Protocol
from bottlefit_jax.serve.repository import Repository, first_few
from bottlefit_jax.serve.tail import open_tail
from bottlefit_jax.serve.telemetry import CallLog, Metrics, log

LOOPBACK = "127.0.0.1"


class Running:
    """A server that listens; `start` makes it.

    `port`, `metrics_port` and `repository_port` (or None) are the real ones; `names` the models as NAME:VERSION; `line`
    says it all.
    """

    def __init__(self, args: argparse.Namespace, repository: Repository, metrics: Metrics):
        self._args, self._repository, self._metrics = args, repository, metrics
        self._health = Health([SERVICE])
        self._servers: list[GrpcServer] = []
        self._log = CallLog(args.log_calls)  # of calls that no server sees
        self._http: HttpServer | None = None
        self._stopping = False
        self.port, self.address, self.line = 0, "", ""
        self.metrics_port: int | None = None
        self.repository_port: int | None = None
        self.names = [f"{model.manifest.name}:{model.manifest.version}" for model in repository.models()]

    @classmethod
    async def start(cls, args: argparse.Namespace) -> "Running":
        """Check what is given, load the bundles and listens; the event loop that runs this serves.

        Args:
            args: as bottlefit_jax.serve.__main__.parse returns them.

        Raises:
            UserError: something of it cannot be used; nothing is left behind.
        """
        loopback = security.is_loopback(args.host)
        if args.tls_cert is None and not loopback and not args.allow_plaintext:
            raise UserError(
                f"--host {args.host} without TLS would let everyone read along: give --tls-cert and --tls-key, "
                "or --allow-plaintext"
            )
        tls = None if args.tls_cert is None else security.credentials(args.tls_cert, args.tls_key, args.tls_client_ca)
        token = None if args.token_file is None else security.read_token(args.token_file)
        metrics = Metrics()
        repository = Repository(
            args.bundle, args.bundles, start=functools.partial(_batcher, args, metrics), max_batch=args.max_batch
        )
        metrics.left_out.set_function(lambda: len(repository.left_out))
        try:
            await asyncio.to_thread(repository.load_all)
            running = cls(args, repository, metrics)
            try:
                await running._listen(tls, token)
            except UserError:
                await running._stop_listening(0)
                raise
        except UserError:
            repository.close()
            raise
        for folder, error in repository.left_out.items():
            log("left out", level=WARNING, folder=str(folder), reason=str(error))
        return running

    async def stop(self, grace: float) -> None:
        """Take no more, finishes what was taken within `grace` seconds, and frees everything."""
        await self._stop_listening(grace)
        await asyncio.to_thread(self._repository.close)

    async def _stop_listening(self, grace: float) -> None:
        self._stopping = True
        self._health.stop()
        await asyncio.gather(*(server.stop(grace) for server in self._servers))
        self._log.write()
        if self._http is not None:
            await asyncio.to_thread(self._http.stop)

    async def _listen(self, tls: grpc.ServerCredentials | None, token: str | None) -> None:
        """Open the ports, and write the line."""
        args = self._args
        main = await self._serve(args.host, args.port, token, tls=tls, may_load=False)
        self.port, self.address = main.port, f"{args.host}:{main.port}"
        how = "plaintext" if tls is None else "TLS" if args.tls_client_ca is None else "mutual TLS"
        how += "" if token is None else ", token"
        self.line = f"listening on {self.address} ({how}): {', '.join(self.names)}"
        if self._repository.left_out:
            folders = [folder.name for folder in self._repository.left_out]
            self.line += f"; {len(folders)} left out, the log says why: {first_few(folders)}"
        if args.repository_port is not None:
            self.repository_port = (await self._serve(LOOPBACK, args.repository_port, token, may_load=True)).port
            self.line += f"; loading on {LOOPBACK}:{self.repository_port}"
        if args.metrics_port is not None:
            host = args.host if args.allow_plaintext else LOOPBACK  # they are plaintext, and go where plaintext may go
            self._http = HttpServer(
                host, args.metrics_port, registry=self._metrics.registry, ready=lambda: not self._stopping
            )
            self.metrics_port = self._http.port
            self.line += f"; metrics on http://{host}:{self.metrics_port}/metrics"

    async def _serve(
        self,
        host: str,
        port: int,
        token: str | None,
        *,
        tls: grpc.ServerCredentials | None = None,
        may_load: bool,
    ) -> GrpcServer:
        """A port that answers the protocol."""
        args = self._args
        protocol = Protocol(
            self._repository,
            backend=args.backend,
            max_batch=args.max_batch,
            delay=args.batch_delay_ms / 1e3,
            metrics=self._metrics,
            may_load=may_load,
        )
        server = GrpcServer(
            protocol,
            self._metrics,
            host=host,
            port=port,
            message_limit=self._repository.message_limit,
            log_one_in=args.log_calls,
            credentials=tls,
            interceptors=() if token is None else (security.BearerToken(token, refused=self._unauthenticated),),
            services=self._health.handlers,
        )
        await server.start()
        self._servers.append(server)
        return server

    def _unauthenticated(self, method: str, caller: dict[str, str]) -> None:
        service, _, name = method.strip("/").partition("/")
        # a caller without a token must not fill the memory with names of its own
        label = name if service == SERVICE and name in METHODS else "other"
        self._metrics.refused.labels(label, "UNAUTHENTICATED").inc()
        if self._log.takes(label, "UNAUTHENTICATED"):
            fields: dict[str, Any] = {"method": name[:128], "status": "UNAUTHENTICATED", **caller}
            self._log.add(level=WARNING, **fields)


def _batcher(args: argparse.Namespace, metrics: Metrics, bundle: Bundle) -> Batcher:
    name, version = bundle.manifest.name, bundle.manifest.version
    tail = open_tail(bundle, backend=args.backend, threads=args.threads, max_batch=args.max_batch)
    sizes = metrics.batch.labels(name, str(version))
    batcher = Batcher(
        tail, max_batch=args.max_batch, delay=args.batch_delay_ms / 1e3, limit=args.queue, ran=sizes.observe
    )
    waiting = weakref.ref(batcher)  # metrics outlive a model that is unloaded, and must not keep its tail
    metrics.watch_queue(name, version, lambda: len(waiting() or ()))
    return batcher
