"""A server put together from the flags of the command."""

import argparse
import asyncio
import functools
import weakref
from collections.abc import Callable

from prometheus_client import start_http_server

from bottlefit_jax.bundle import Bundle
from bottlefit_jax.errors import UserError
from bottlefit_jax.serve import security
from bottlefit_jax.serve.batching import Batcher
from bottlefit_jax.serve.grpc_server import GrpcServer
from bottlefit_jax.serve.protocol import Protocol
from bottlefit_jax.serve.repository import Repository
from bottlefit_jax.serve.tail import open_tail
from bottlefit_jax.serve.telemetry import Metrics


class Running:
    """A server that listens; `start` makes it.

    `port` and `metrics_port` (or None) are the real ones; `names` the models as NAME:VERSION; `line` says it all.
    """

    def __init__(self, server: GrpcServer, repository: Repository, args: argparse.Namespace):
        self._server, self._repository = server, repository
        self._stop_metrics: Callable[[], None] = lambda: None
        self.port, self.metrics_port = server.port, None
        self.address = f"{args.host}:{server.port}"
        self.names = [f"{model.manifest.name}:{model.manifest.version}" for model in repository.models()]
        how = "plaintext" if args.tls_cert is None else "TLS" if args.tls_client_ca is None else "mutual TLS"
        how += "" if args.token_file is None else ", token"
        self.line = f"listening on {self.address} ({how}): {', '.join(self.names)}"

    @classmethod
    async def start(cls, args: argparse.Namespace) -> "Running":
        """Checks what is given, loads the bundles and listens; the event loop that runs this serves.

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
        token = () if args.token_file is None else (security.BearerToken(security.read_token(args.token_file)),)
        metrics = Metrics()
        repository = Repository(
            args.bundle, args.bundles, start=functools.partial(_batcher, args, metrics), max_batch=args.max_batch
        )
        try:
            await asyncio.to_thread(repository.load_all)
            protocol = Protocol(
                repository,
                backend=args.backend,
                max_batch=args.max_batch,
                delay=args.batch_delay_ms / 1e3,
                metrics=metrics,
            )
            server = GrpcServer(
                protocol,
                metrics,
                host=args.host,
                port=args.port,
                message_limit=repository.message_limit,
                log_one_in=args.log_calls,
                credentials=tls,
                interceptors=token,
            )
            await server.start()
            running = cls(server, repository, args)
            try:
                running._serve_metrics(args, metrics)
            except UserError:
                await server.stop(0)
                raise
        except UserError:
            repository.close()
            raise
        return running

    async def stop(self, grace: float) -> None:
        """Takes no more, finishes what was taken within `grace` seconds, and frees everything."""
        await self._server.stop(grace)
        await asyncio.to_thread(self._repository.close)
        self._stop_metrics()

    def _serve_metrics(self, args: argparse.Namespace, metrics: Metrics) -> None:
        """Metrics are plaintext, so they go where plaintext may go."""
        if args.metrics_port is None:
            return
        host = args.host if args.allow_plaintext else "127.0.0.1"
        try:
            http, thread = start_http_server(args.metrics_port, host, metrics.registry)
        except OSError as error:
            raise UserError(f"cannot listen on {host}:{args.metrics_port}: {error.strerror}") from error
        self.metrics_port = http.server_port

        def stop() -> None:
            http.shutdown()
            http.server_close()
            thread.join()

        self._stop_metrics = stop
        self.line += f"; metrics on http://{host}:{self.metrics_port}/metrics"


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
