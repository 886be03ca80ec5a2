"""Who may import whom, as docs/architecture.md draws it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bottlefit_jax"
EXPORT = ROOT / "export"

# room -> the rooms of ours that it may import (itself and `errors` always)
MAY_IMPORT = {
    "errors": set(),
    "paths": set(),
    "interrupt": set(),
    "lock": {"interrupt"},
    "command": {"interrupt", "lock", "paths"},
    "codec": set(),
    "models": {"codec"},
    "images": set(),
    "data": {"command", "images", "interrupt", "lock", "paths"},  # prepare is a command, workers are processes
    "convert": {"command", "data", "interrupt", "lock", "models", "paths", "recipe", "training.checkpoint"},
    "recipe": {"paths"},
    "training": {"interrupt", "models"},
    "evaluation": {"models", "data", "codec", "training"},
    # A command over whole runs; what it times are the models of the export.
    "evaluation.compare": {
        "arguments",
        "codec",
        "data",
        "edge.interpreter",
        "evaluation",
        "command",
        "experiment",
        "export",
        "interrupt",
        "lock",
        "models",
        "preparation",
        "recipe",
        "results",
        "training",
    },
    "preparation": {"data", "lock", "models", "recipe", "training"},
    "results": {"codec", "evaluation", "preparation", "recipe"},
    "experiment": {"data", "evaluation", "models", "preparation", "recipe", "results", "training"},
    "config_file": {"paths", "recipe"},
    "arguments": {"command", "config_file", "paths", "recipe", "training"},
    "main": {"arguments", "command", "experiment", "interrupt", "recipe"},
    "bundle": set(),
    "edge": {"bundle", "codec", "command", "images", "interrupt"},
    "serve": {"bundle", "codec", "command", "interrupt"},
    "export": {
        "bundle",
        "codec",
        "command",
        "data",
        "edge.interpreter",
        "evaluation.accuracy",
        "interrupt",
        "models",
        "training.checkpoint",
        "training.step",
    },
}
# library -> the only places that may import it
ONLY_IN = {
    "orbax": ("training/checkpoint.py",),
    "tensorflow_datasets": ("data/",),
    "grain": ("data/",),
    "tensorflow": ("data/prepare.py",),
    "ml_collections": ("config_file.py", "recipe.py", "training/stages.py"),
    "onnx": ("export/",),
    "onnxruntime": ("export/", "serve/"),
    "ai_edge_litert": ("edge/interpreter.py",),
    "tflite_runtime": ("edge/interpreter.py",),
    "ai_edge_quantizer": ("export/litert.py",),
    "litert_converter": ("export/litert.py",),
    "torch": ("convert/files.py",),
    "safetensors": ("convert/files.py",),
    "simplejpeg": ("images/",),
}


def place_of(path):
    """Where a file lies, from the package; the export has a folder of its own beside it."""
    return path.relative_to(ROOT if EXPORT in path.parents else PACKAGE)


def room_of(path):
    relative = place_of(path)
    inner = ".".join(relative.parts[:2])
    return inner if inner in MAY_IMPORT else relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


FILES = sorted(path for path in [*PACKAGE.rglob("*.py"), *EXPORT.rglob("*.py")] if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(place_of(path)))
def test_a_room_imports_only_what_it_may(path):
    room = room_of(path)
    allowed = {room, "errors", *MAY_IMPORT[room]}
    for name in imports(path):
        top, _, rest = name.partition(".")
        assert top != "export" or "export" in (room, *MAY_IMPORT[room]), f"{room} imports the export"
        assert room == "evaluation.compare" or not rest.startswith("evaluation.compare"), (
            f"{room} imports the comparison"
        )
        if top == "bottlefit_jax" and rest and rest != "__version__":
            assert any(rest == a or rest.startswith(f"{a}.") for a in allowed), f"{room} may not import {name}"
        for place in ONLY_IN.get(top, [""]):
            relative = str(place_of(path))
            if relative.startswith(place):
                break
        else:
            pytest.fail(f"{relative} may not import {top}; only {', '.join(ONLY_IN[top])}")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(place_of(path)))
def test_a_file_that_passes_350_lines_is_two_files(path):
    assert len(path.read_text().splitlines()) <= 350


def test_no_file_has_the_name_of_a_package_it_imports():
    for path in FILES:
        assert path.stem not in {name.split(".")[0] for name in imports(path)}, path


def test_what_runs_on_the_device_needs_no_jax():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('jax', 'flax', 'tensorflow')))\n"
        "import bottlefit_jax.codec.quantizer, bottlefit_jax.codec.packing\n"
        "import bottlefit_jax.bundle, bottlefit_jax.edge.interpreter\n"
        "sys.modules.update(dict.fromkeys(('cv2', 'grain')))\n"
        "import bottlefit_jax.edge.picture\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
