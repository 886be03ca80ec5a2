"""The two servers of a measurement, as processes on the far side of the link."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from bottlefit_jax.errors import Unavailable, UserError
from bottlefit_jax.links.link import ShapedLink

START_SECONDS = 120.0  # enough for a tail of a thousand classes on a small machine
STOP_SECONDS = 10.0


class Server:
    """A server process. A context that ends it.

    Attributes:
        name: in words.
        port: on the servers' side of the link.
    """

    def __init__(self, name: str, argv: Sequence[str], port: int):
        """Start nothing yet.

        Args:
            name: in words.
            argv: the command; it prints one line when it listens.
            port: on the servers' side of the link.
        """
        self.name, self.port, self._argv = name, port, list(argv)
        self._process: subprocess.Popen[str] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115

    def __enter__(self) -> "Server":
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._log.close()

    @property
    def pid(self) -> int | None:
        """The id of the process, where it runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it and wait until it listens.

        Raises:
            UserError: the process ended.
            Unavailable: it did not listen within START_SECONDS.
        """
        self.stop()
        # In its own session Ctrl-C does not reach it: it answers until it is stopped.
        self._process = subprocess.Popen(
            self._argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=_read, args=(self._process, lines), daemon=True).start()
        try:
            line = lines.get(timeout=START_SECONDS)
        except queue.Empty:
            message = f"the {self.name} did not listen within {START_SECONDS:g} s{self._last_line()}"
            raise Unavailable(message) from None
        if not line:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
            raise UserError(f"the {self.name} did not start: {self.lost() or 'it printed nothing'}")

    def stop(self) -> None:
        """End it, by SIGKILL where SIGTERM does not."""
        process, self._process = self._process, None
        if process is None:
            return
        for signum in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signum)  # its session: also what it started
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
                break

    def lost(self) -> str | None:
        """Return why it has ended; None while it runs."""
        if self._process is None:
            return "it was stopped"
        code = self._process.poll()
        if code is None:
            return None
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"it ended with {how}{self._last_line()}"

    def _last_line(self) -> str:
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), 4000, max(0, size - 4000)).decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return f": {lines[-1][:300]}" if lines else ""


def edge_server(bundle: Path, link: ShapedLink) -> Server:
    """Return the server of the bundle's tail, not yet started."""
    port = link.free_port()
    argv = ["-m", "bottlefit_jax.serve", "--bundle", str(bundle), "--host", link.host, "--port", str(port)]
    return Server("edge server", link.command([sys.executable, *argv, "--allow-plaintext"]), port)


def jpeg_server(bundle: Path, link: ShapedLink, tail: Server) -> Server:
    """Return the server that takes JPEG and asks `tail`, not yet started."""
    port = link.free_port()
    argv = ["-m", "bottlefit_jax.links.jpeg_server", "--bundle", str(bundle), "--host", link.host]
    argv += ["--port", str(port), "--tail", f"{link.host}:{tail.port}"]
    return Server("JPEG server", link.command([sys.executable, *argv]), port)


def _read(process: subprocess.Popen[str], lines: "queue.Queue[str]") -> None:
    """Read all lines, so that the pipe is never full; "" is the end."""
    assert process.stdout is not None
    with contextlib.suppress(OSError, ValueError), process.stdout:
        for line in process.stdout:
            lines.put(line)
    lines.put("")
