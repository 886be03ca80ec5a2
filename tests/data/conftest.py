"""Fixtures of this room."""

import pytest

from tests.data import images


@pytest.fixture
def folder(tmp_path):
    return images.make_folder(tmp_path / "images")
