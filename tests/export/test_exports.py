"""The public face of export, bundle and codec; tests/test_public_face.py has the lists of names."""

import importlib
import subprocess
import sys

from bottlefit_jax import bundle, codec


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
