"""What the device's command was asked for."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bottlefit_jax.protocol.authorization import read_token

# Images of a stream that are on their way at once, at most: where all are sent at one rate, where the policy chooses,
# and by flag. At one rate more of them only wait for each other on a slow link. The policy sends what can be in time,
# and during an outage images with a long deadline wait for their turn of the local network.
IN_FLIGHT, AUTO_IN_FLIGHT, MAX_IN_FLIGHT = 8, 16, 64


@dataclass(frozen=True, kw_only=True)
class Security:
    """How a connection to the server is secured.

    Attributes:
        tls, tls_ca, tls_cert, tls_key: as EdgeClient takes them.
        token_file: holds the bearer token.
    """

    tls: bool = False
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    token_file: Path | None = None

    def for_client(self) -> dict[str, Any]:
        """Return what EdgeClient takes of it.

        Raises:
            UserError: the token's file cannot be read, or holds no token.
        """
        token = None if self.token_file is None else read_token(self.token_file)
        files = {"tls_ca": self.tls_ca, "tls_cert": self.tls_cert, "tls_key": self.tls_key}
        return {"tls": self.tls, **files, "token": token}


SECURITY = tuple(each.name for each in fields(Security))


@dataclass(frozen=True)
class ClassifyOptions(Security):
    """What to classify, and where; the security is that of `server`.

    Attributes:
        bundle: the folder.
        images: files and folders; empty with a camera.
        camera: its source, as `camera.frames` takes it; None for `images`.
        frames: of the camera; None until Ctrl-C.
        in_flight: frames that are on their way at once, at most; None: as EdgeClient.stream chooses.
        camera_size, camera_rate: (width, height) of its frames in pixels, and frames a second; None: its own.
        device_id: that the JSON objects of a camera's frames name.
        wait: wait for a server that does not answer at the start, however long.
        health: a file that is written about once a second while a camera's frames have results.
        server: HOST:PORT; None runs the whole network here.
        local: run the whole network here where the server's answer would come too late.
        policy: of the path of each image, as EdgeClient takes it.
        bytes_per_second: that the policy may send; None: as many as the link carries.
        tail_version: None is the newest that belongs to the bundle's head.
        json: print a JSON object for each image, not a table.
        top: how many of the likeliest classes to ask for and to show; None asks for 5, of which a table shows one.
        rate: of the payloads, or "raw"; None is the manifest's default.
        deadline_ms: of an image, with retries.
        compress: compress requests by gRPC's gzip.
        threads: that the head may use.
        runtime: what runs the head, as EdgeClient takes it.
        providers: of ONNX Runtime, likewise.
    """

    bundle: Path
    images: Sequence[Path] = ()
    camera: str | None = None
    frames: int | None = None
    in_flight: int | None = None
    camera_size: tuple[int, int] | None = None
    camera_rate: float | None = None
    device_id: str = field(default_factory=socket.gethostname)
    wait: bool = False
    health: Path | None = None
    server: str | None = None
    local: bool = False
    policy: str = "auto"
    bytes_per_second: float | None = None
    tail_version: int | None = None
    json: bool = False
    top: int | None = None
    rate: str | None = None
    deadline_ms: float = 2000
    compress: bool = False
    threads: int = 1
    runtime: str = "auto"
    providers: tuple[str, ...] = ()
