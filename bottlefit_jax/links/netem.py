"""A link of a given rate and delay in the kernel: a network namespace and a pair of virtual cards with `tc netem`.

Needs root, iproute2 and a kernel with sch_netem. Everything is removed at the end of the context. What a killed run has
left is removed by the next one.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from bottlefit_jax.errors import UserError
from bottlefit_jax.links.link import check_shape

PREFIX = "bottlefit-"
NETWORK = "198.18"  # reserved for benchmarks (RFC 2544), so that no network uses it
QUEUE_PACKETS = 10_000  # netem's default of 1,000 would drop a burst on a long fast link
COMMAND_SECONDS = 20.0


def run(argv: Sequence[str]) -> str:
    """Run a command of iproute2 and return its output.

    Raises:
        UserError: it failed, or took longer than COMMAND_SECONDS.
    """
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"`{' '.join(argv)}` did not work: {' '.join(str(error).split())}") from error
    if done.returncode != 0:
        reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[0]
        raise UserError(f"`{' '.join(argv)}` did not work: {reason}")
    return done.stdout


class NetemLink:
    """Servers in a network namespace, reached over a shaped pair of virtual cards. A ShapedLink; a context.

    Attributes:
        kind: "netem".
        host: as of a ShapedLink; within the namespace.
        counts: as of a Link.
        namespace: its name.
    """

    kind = "netem"
    counts = "bytes of Ethernet frames from the device, acknowledgements included, counted by its network card"

    def __init__(self, run: Callable[[Sequence[str]], str] = run):
        """Build nothing yet.

        Args:
            run: runs a command, returns its output, and raises UserError where it fails.
        """
        self._run = run
        pid = os.getpid()
        self.namespace, self._near, self._far = f"{PREFIX}{pid}", f"bf{pid}a", f"bf{pid}b"
        self._address, self.host = (f"{NETWORK}.{pid % 256}.{end}" for end in (1, 2))
        self._port = 20_000

    def __enter__(self) -> "NetemLink":
        if os.geteuid() != 0:
            raise UserError("netem needs root")
        for tool in ("ip", "tc"):
            if shutil.which(tool) is None:
                raise UserError(f"netem needs `{tool}` of iproute2")
        try:
            self._remove_stale()
            self._build()
            self.shape(100, 0)
        except BaseException:  # Ctrl-C too
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _build(self) -> None:
        near, far, inside = self._near, self._far, ["ip", "-n", self.namespace]
        self._run(["ip", "netns", "add", self.namespace])
        # one packet at a time, as on a radio link: merged packets of 64 KB would be delayed as one
        self._run(["ip", "link", "add", near, "gso_max_segs", "1", "type", "veth", "peer", "name", far])
        self._run(["ip", "link", "set", far, "netns", self.namespace])
        self._run([*inside, "link", "set", far, "gso_max_segs", "1"])
        self._run(["ip", "address", "add", f"{self._address}/30", "dev", near])
        self._run([*inside, "address", "add", f"{self.host}/30", "dev", far])
        self._run(["ip", "link", "set", near, "up"])
        self._run([*inside, "link", "set", far, "up"])
        self._run([*inside, "link", "set", "lo", "up"])

    def close(self) -> None:
        """Remove the cards and the namespace. One card goes with the other; each step runs even where another fails."""
        for argv in (["ip", "link", "delete", self._near], ["ip", "netns", "delete", self.namespace]):
            with contextlib.suppress(UserError):
                self._run(argv)

    def _remove_stale(self) -> None:
        """Remove the namespaces of processes that have ended; their cards go with them."""
        for line in self._run(["ip", "netns", "list"]).splitlines():
            name = line.split()[0] if line.split() else ""
            pid = name.removeprefix(PREFIX)
            if name.startswith(PREFIX) and pid.isdecimal() and not Path(f"/proc/{pid}").exists():
                with contextlib.suppress(UserError):
                    self._run(["ip", "netns", "delete", name])

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs `argv` on the servers' side of the link."""
        return ["ip", "netns", "exec", self.namespace, *argv]

    def free_port(self) -> int:
        """Return a port that a server can listen on: within the namespace all are free."""
        self._port += 1
        return self._port

    def through(self, port: int) -> tuple[str, int]:
        """Return host and port by which a client reaches the server at `port` over the link."""
        return self.host, port

    def shape(self, rate_mbit: float, delay_ms: float) -> None:
        """Set the rate in Mbit/s, and the delay in ms that is added in each direction.

        Raises:
            UserError: the rate or the delay is out of range, or the kernel has no netem.
        """
        check_shape(rate_mbit, delay_ms)
        netem = ["netem", "rate", f"{round(rate_mbit * 1e6)}bit", "delay", f"{round(delay_ms * 1e3)}us"]
        for inside, card in (([], self._near), (["-n", self.namespace], self._far)):
            self._run(["tc", *inside, "qdisc", "replace", "dev", card, "root", *netem, "limit", str(QUEUE_PACKETS)])

    def sent(self) -> int:
        """Return the bytes that the device has sent."""
        return int(Path(f"/sys/class/net/{self._near}/statistics/tx_bytes").read_text())
