"""Fixtures of this room."""

import pytest

from tests.data import images as pictures


@pytest.fixture
def folder(tmp_path):
    return pictures.make_folder(tmp_path / "pictures")
