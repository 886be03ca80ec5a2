"""Fixtures of the device's tests, and what a server exports."""

import re
import urllib.request

import pytest

from tests.edge.conftest import bundle, image, image_file
from tests.operations import write

__all__ = ["bundle", "image", "image_file"]


@pytest.fixture
def bundles(bundle, tmp_path):
    """A folder of bundles with one of them, digits-1."""
    write(tmp_path / "bundles" / "digits-1", bundle)
    return tmp_path / "bundles"


@pytest.fixture(scope="session")
def answered():
    """A function from the port of metrics to {version: answered requests}."""

    def count(port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as response:
            text = response.read().decode()
        found = re.findall(r'^bottlefit_requests_total\{.*status="OK",version="(.*)"\} (.*)$', text, re.MULTILINE)
        return {int(version): float(value) for version, value in found}

    return count
