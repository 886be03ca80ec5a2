"""The link of `tc netem`: its commands, and that nothing is left of it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bottlefit_jax.errors import UserError
from bottlefit_jax.links.netem import NetemLink, run
from bottlefit_jax.links.shaper import open_link
from tests.links.test_proxy import peer_over

__all__ = ["peer_over"]  # the fixture


class Tools:
    """Stands for iproute2: records the commands, and raises an error at one of them."""

    def __init__(self, fails_at=None, error=None, namespaces=""):
        self.commands, self.fails_at, self.error, self.namespaces = [], fails_at, error, namespaces

    def __call__(self, argv):
        self.commands.append(list(argv))
        if len(self.commands) - 1 == self.fails_at:
            raise self.error
        return self.namespaces if list(argv) == ["ip", "netns", "list"] else ""


@pytest.fixture
def root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/sbin/{name}")


def removals(link):
    return [["ip", "link", "delete", link._near], ["ip", "netns", "delete", link.namespace]]


def test_netem_shapes_both_directions(root):
    tools = Tools()
    with NetemLink(tools) as link:
        tools.commands.clear()
        link.shape(0.25, 40)
        wanted = "netem rate 250000bit delay 40000us limit 10000"
        assert [" ".join(argv) for argv in tools.commands] == [
            f"tc qdisc replace dev {link._near} root {wanted}",
            f"tc -n {link.namespace} qdisc replace dev {link._far} root {wanted}",
        ]
        assert link.command(["python", "x"]) == ["ip", "netns", "exec", link.namespace, "python", "x"]
        tools.commands.clear()
    assert tools.commands == removals(link)


@pytest.mark.parametrize("error", [UserError("no such thing"), KeyboardInterrupt()])
def test_netem_is_removed_wherever_building_it_fails(root, error):
    tools = Tools()
    with NetemLink(tools):
        count = len(tools.commands)
    for number in range(count):
        tools = Tools(number, error)
        link = NetemLink(tools)
        with pytest.raises(type(error)), link:
            pass
        assert tools.commands[-2:] == removals(link)


def test_netem_removes_the_namespaces_of_killed_runs(root):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = (f"bottlefit-{dead.pid}", f"bottlefit-{os.getppid()}", "bottlefit-mine", "other")
    tools = Tools(namespaces="".join(f"{name} (id: 0)\n" for name in names))
    with NetemLink(tools):
        deleted = [argv[-1] for argv in tools.commands if argv[:3] == ["ip", "netns", "delete"]]
    assert deleted == [f"bottlefit-{dead.pid}"]


def test_netem_without_root_is_one_line(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UserError, match="netem needs root"), open_link("netem"):
        pass
    with open_link() as (link, how):
        assert link.kind == "process"
        assert "netem needs root" in how


AS_ROOT = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and iproute2")


@AS_ROOT
def test_a_server_in_a_real_namespace_is_reached_over_its_cards(peer_over):
    # without the shaping, so that a kernel without netem runs it too
    with NetemLink(lambda argv: "" if argv[0] == "tc" else run(argv)) as link:
        peer = peer_over(link)
        peer.times(100_000)
        assert 100_000 < link.sent() < 130_000
        peer.close()


@AS_ROOT
def test_a_real_namespace_is_built_and_removed_whether_or_not_there_is_netem():
    with open_link() as (link, _):
        assert link.kind in ("netem", "process")
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert f"bottlefit-{os.getpid()}" not in left
    assert not Path(f"/sys/class/net/bf{os.getpid()}a").exists()
