"""Fixtures of this room."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import pictures


@pytest.fixture
def folder(tmp_path):
    return pictures.make_folder(tmp_path / "pictures")
