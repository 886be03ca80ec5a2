"""Loads or unloads models of a server that runs, by the port that it was given with --repository-port.

    python -m bottlefit_jax.serve.load --server 127.0.0.1:8002 digits
    python -m bottlefit_jax.serve.load --server 127.0.0.1:8002 --unload digits

Loading looks through the server's folders of bundles again: versions of the model that are new or changed are loaded,
those that are gone are unloaded, and the others go on. Without a name it lists what there is. Exit code 2: one line on
standard error says what is wrong, and what was served is served as before.
"""

from bottlefit_jax import interrupt

if __name__ == "__main__":
    interrupt.watch("; the server goes on with what it was asked for")

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bottlefit_jax.cli import command
from bottlefit_jax.cli.command import Parser, print_error
from bottlefit_jax.errors import UserError

TIMEOUT = 600  # seconds: loading verifies every file, and waits until what an old version had taken is done


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program) and return the exit code."""
    try:
        args = parse(sys.argv[1:] if argv is None else argv)
        lines = run(args)
    except UserError as error:
        return print_error(error)
    print("\n".join(lines))
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line.

    Raises:
        UserError: flags that are unknown, missing or do not go together.
    """
    parser = Parser("bottlefit_jax.serve.load", __doc__)
    parser.add_argument("model", nargs="*", help="names of models, as the bundles' manifests have them")
    parser.add_argument("--server", required=True, help="HOST:PORT, as the server's line says: loading on HOST:PORT")
    parser.add_argument("--unload", action="store_true", help="unload instead, all versions")
    parser.add_argument("--token-file", type=Path, help="that the server was started with")
    args = parser.parse_args(argv)
    if args.unload and not args.model:
        raise UserError("--unload needs the names of the models")
    return args


def run(args: argparse.Namespace) -> list[str]:
    """Load or unloads `args.model`, and return a line for each bundle that the server has then.

    Raises:
        UserError: the server does not answer, or refuses.
    """
    import grpc

    from bottlefit_jax.protocol.stubs import pb
    from bottlefit_jax.serve.security import read_token

    token = None if args.token_file is None else read_token(args.token_file)
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    done = "Unload" if args.unload else "Load"
    options = [("grpc.enable_http_proxy", 0)]  # the port is on the loopback
    with grpc.insecure_channel(args.server, options) as channel:

        def call(method: str, request: Any) -> bytes:
            function = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
            return function(request.SerializeToString(), timeout=TIMEOUT, metadata=metadata)

        try:
            for name in args.model:
                request = getattr(pb, f"RepositoryModel{done}Request")(model_name=name)
                call(f"RepositoryModel{done}", request)
            index = pb.RepositoryIndexResponse.FromString(call("RepositoryIndex", pb.RepositoryIndexRequest()))
        except grpc.RpcError as error:
            code, details = error.code(), error.details()  # pyright: ignore[reportAttributeAccessIssue]
            raise UserError(f"{args.server}: {code.name}: {details}") from error
    return [_line(model) for model in index.models]


def _line(model: Any) -> str:
    name = f"{model.name}:{model.version}" if model.version else model.name
    return f"{name} {model.state}{': ' if model.reason else ''}{model.reason}"


if __name__ == "__main__":
    command.run(main, extra="serve")
