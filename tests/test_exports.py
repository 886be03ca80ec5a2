"""Importing a room imports nothing heavy; its names are loaded when they are asked for."""

import importlib
import subprocess
import sys

import pytest

ROOMS = ("compare", "convert", "data", "edge", "evaluation", "experiment", "links", "protocol", "serve", "training")


def test_importing_these_rooms_imports_no_package():
    rooms = ", ".join(f"bottlefit_jax.{room}" for room in ROOMS)
    code = f"import sys, {rooms}; print([name for name in ('jax', 'numpy', 'matplotlib') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("room", ROOMS)
def test_a_name_that_a_room_does_not_export_is_an_attribute_error(room):
    module = importlib.import_module(f"bottlefit_jax.{room}")
    with pytest.raises(AttributeError, match=f"'bottlefit_jax.{room}' has no attribute 'nothing'"):
        _ = module.nothing
