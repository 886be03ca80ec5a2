"""Loads or unloads models of a running server, by the port that --repository-port opened.

    python -m bottlefit_jax.serve.load --server 127.0.0.1:8002 digits
    python -m bottlefit_jax.serve.load --server 127.0.0.1:8002 --unload digits

To load, the server reads its folders of bundles again: new and changed versions of the model are loaded, those that are
gone are unloaded, and the others stay. Without a name it lists the models. Exit code 2: one line on standard error says
what is wrong, and the server goes on as before.
"""

from bottlefit_jax import interrupt

if __name__ == "__main__":
    interrupt.watch("; the server finishes what it was asked for")

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bottlefit_jax.cli import command
from bottlefit_jax.cli.command import Parser, print_error
from bottlefit_jax.errors import BottleFitError, ProtocolError, Unavailable, UserError

TIMEOUT = 600  # seconds: loading verifies every file, and waits for the requests that an old version took


def make_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser("bottlefit_jax.serve.load", __doc__)
    add = parser.group("what to load")
    add(
        "model",
        nargs="*",
        metavar="NAME",
        help="names of models, as the bundles' manifests have them (default: only list the models)",
    )
    add("--unload", action="store_true", help="unload all versions instead")
    add = parser.group("the server")
    add(
        "--server",
        required=True,
        metavar="HOST:PORT",
        help="the port for loading, as the server's line has it: loading on HOST:PORT",
    )
    add(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="the file that the server was started with (default: no token)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program) and return the exit code."""
    try:
        args = make_parser().parse_args(sys.argv[1:] if argv is None else argv)
        if args.unload and not args.model:
            raise UserError("--unload needs the names of the models")
        lines = change_models(args.server, args.model, unload=args.unload, token_file=args.token_file)
    except BottleFitError as error:
        return print_error(error)
    print("\n".join(lines))
    return 0


def change_models(
    server: str, models: Sequence[str], *, unload: bool = False, token_file: Path | None = None
) -> list[str]:
    """Load or unload models, and list what the server has afterwards.

    Args:
        server: HOST:PORT.
        models: their names; none to list only.
        unload: unload them instead of loading them.
        token_file: of the server.

    Returns:
        A line for each bundle of the server.

    Raises:
        UserError: the token file is invalid.
        Unavailable: the server does not answer.
        ProtocolError: the server refuses.
    """
    import grpc

    from bottlefit_jax.protocol.authorization import read_token
    from bottlefit_jax.protocol.names import SERVICE
    from bottlefit_jax.protocol.stubs import pb
    from bottlefit_jax.protocol.text import status_line

    token = None if token_file is None else read_token(token_file)
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    change = "RepositoryModelUnload" if unload else "RepositoryModelLoad"
    options = [("grpc.enable_http_proxy", 0)]  # the port is on the loopback
    with grpc.insecure_channel(server, options) as channel:

        def call(method: str, request: Any) -> bytes:
            function = channel.unary_unary(f"/{SERVICE}/{method}")
            return function(request.SerializeToString(), timeout=TIMEOUT, metadata=metadata)

        try:
            for name in models:
                call(change, getattr(pb, f"{change}Request")(model_name=name))
            index = pb.RepositoryIndexResponse.FromString(call("RepositoryIndex", pb.RepositoryIndexRequest()))
        except grpc.RpcError as error:
            code = error.code()  # pyright: ignore[reportAttributeAccessIssue]
            no_answer = code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            raise (Unavailable if no_answer else ProtocolError)(
                f"{server}: {status_line(error, limit=2000)}"
            ) from error
    return [_line(model) for model in index.models]


def _line(model: Any) -> str:
    name = f"{model.name}:{model.version}" if model.version else model.name
    return f"{name} {model.state}{': ' if model.reason else ''}{model.reason}"


if __name__ == "__main__":
    command.run(main, extra="serve")
