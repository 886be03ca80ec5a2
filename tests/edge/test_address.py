"""Names that only the system resolves, and proxies that the environment names."""

import ctypes.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bottlefit_jax.edge.address import parse_server
from bottlefit_jax.edge.client import EdgeClient

ROOT = Path(__file__).parents[2]
# getaddrinfo that knows names of .local, as with nss-mdns; gRPC's own resolver asks DNS servers instead
MDNS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
typedef int (*look)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    size_t n = name ? strlen(name) : 0;
    const char *host = n > 6 && !strcmp(name + n - 6, ".local") ? "127.0.0.1" : name;
    return ((look)dlsym(RTLD_NEXT, "getaddrinfo"))(host, service, hints, found);
}
"""


@pytest.mark.parametrize(
    ("server", "loopback", "local"),
    [
        ("localhost:1", True, True),
        ("127.0.0.9:1", True, True),
        ("[::1]:1", True, True),
        ("192.168.1.4:1", False, True),
        ("100.64.0.1:1", False, True),
        ("[fe80::1]:1", False, True),
        ("raspberrypi.local:1", False, True),
        ("edge-server:1", False, True),
        ("8.8.8.8:1", False, False),
        ("edge.example.org:1", False, False),
    ],
)
def test_servers_on_this_machine_and_in_this_network(server, loopback, local):
    address = parse_server(server)
    assert (address.is_loopback, address.is_local) == (loopback, local)


def test_a_proxy_of_the_environment_is_not_used_for_a_local_server(bundle, server, image, monkeypatch):
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    with EdgeClient(bundle, server) as client:
        client.infer(image)
    with EdgeClient(bundle, server.replace("localhost", "127.0.0.1")) as client:
        client.infer(image)


@pytest.mark.skipif(not sys.platform.startswith("linux") or shutil.which("gcc") is None, reason="preloads a library")
def test_a_name_that_only_the_system_resolves_is_resolved(bundle, server, image_file, tmp_path):
    (tmp_path / "mdns.c").write_text(MDNS)
    libraries = ["-ldl"] if ctypes.util.find_library("dl") else []
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", "mdns.so", "mdns.c", *libraries], cwd=tmp_path, check=True)
    code = "import sys; from bottlefit_jax.edge.client import EdgeClient; EdgeClient(*sys.argv[1:3]).infer(sys.argv[3])"
    address = server.replace("localhost", "edge-server.local")
    subprocess.run(
        [sys.executable, "-c", code, bundle, address, image_file],
        cwd=ROOT,
        env={"LD_PRELOAD": str(tmp_path / "mdns.so"), "PATH": ""},
        check=True,
    )
