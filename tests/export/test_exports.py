"""The public names of export, bundle and codec."""

import importlib
import subprocess
import sys

import pytest

from bottlefit_jax import bundle, codec

NAMES = {
    "export": "EngineOptions ExportOptions Exported NotBuiltError Parity build_engine export_bundle write_repository",
    "bottlefit_jax.bundle": (
        "FORMAT Bundle Calibration File Head Image Latent Local Manifest Model Tail identity read_bundle write_manifest"
    ),
    "bottlefit_jax.codec": (
        "RANGE_BYTES Affine dequantize dynamic_range levels_of pack_bits payload_bytes quantize static_range "
        "unpack_bits"
    ),
}


@pytest.mark.parametrize("room", NAMES)
def test_a_room_exports_these_names(room):
    module = importlib.import_module(room)
    assert sorted(module.__all__) == sorted(NAMES[room].split())
    assert all(hasattr(module, name) for name in module.__all__)


def test_an_exported_name_is_that_of_its_file():
    assert bundle.Manifest is importlib.import_module("bottlefit_jax.bundle.manifest").Manifest
    assert codec.quantize is importlib.import_module("bottlefit_jax.codec.quantizer").quantize


def test_the_options_of_an_export_are_made_without_jax():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('jax', 'flax', 'numpy', 'onnx')))\n"
        "from pathlib import Path; from export import EngineOptions, ExportOptions\n"
        "print(ExportOptions(Path('run'), Path('out')).head, EngineOptions(Path('out')).part)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "int8 head\n"
