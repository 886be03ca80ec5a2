"""Who may import whom: the order of rooms that docs/architecture.md draws."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bottlefit_jax"
EXPORT = ROOT / "export"

# From the top: a room imports itself and the rooms below it, and no other.
ORDER = (
    "__main__",
    "main",
    "prepare",
    "compare",
    "export",
    "links",
    "experiment",
    "convert",
    "edge",
    "serve",
    "cli",
    "evaluation",
    "training",
    "models",
    "protocol",
    "bundle",
    "codec",
    "data",
    "images",
    "config_check",
    "recipe",
    "drawing",
    "onnx_session",
    "tensorrt_engine",
    "files",
    "lock",
    "interrupt",
    "paths",
    "lazy",
    "errors",
)
WITHOUT_JAX = ("links", "edge", "serve", "protocol", "bundle", "codec", "images", "drawing")
# library -> the only places that may import it
ONLY_IN = {
    "orbax": ("training/checkpoint.py",),
    "tensorflow_datasets": ("data/",),
    "grain": ("data/",),
    "tensorflow": ("data/tfds_writer.py",),
    "ml_collections": ("cli/config_file.py", "recipe.py"),
    "onnx": ("export/",),
    "onnxruntime": ("export/", "onnx_session.py"),
    "openvino": ("serve/tail.py",),
    "ai_edge_litert": ("edge/runtimes/litert.py",),
    "tflite_runtime": ("edge/runtimes/litert.py",),
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
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(path):
    relative = path.relative_to(ROOT).with_suffix("")
    return ".".join(relative.parts[:-1] if relative.name == "__init__" else relative.parts)


FILES = sorted(path for path in [*PACKAGE.rglob("*.py"), *EXPORT.rglob("*.py")] if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(place_of(path)))
def test_a_room_imports_only_the_rooms_below_it(path):
    room = room_of(path)
    for name in imports(path):
        top, _, rest = name.partition(".")
        other = "export" if top == "export" else rest.partition(".")[0] if top == "bottlefit_jax" else ""
        if other in ("", "__version__"):
            continue
        assert ORDER.index(room) <= ORDER.index(other), f"{room} imports {name}, which stands above it"


def test_no_two_files_import_each_other_in_a_circle():
    files = {module_of(path): path for path in FILES}
    above = {}
    for module, path in files.items():
        found = (name if name in files else name.rpartition(".")[0] for name in imports(path))
        above[module] = {name for name in found if name in files}
    TopologicalSorter(above).prepare()  # CycleError names the circle


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(place_of(path)))
def test_a_library_is_imported_in_its_place_alone(path):
    for name in imports(path):
        top = name.partition(".")[0]
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
    modules = [module_of(path) for path in FILES if room_of(path) in WITHOUT_JAX and path.name != "__main__.py"]
    code = (
        "import sys, importlib; sys.modules.update(dict.fromkeys(('jax', 'flax', 'tensorflow', 'cv2', 'grain')))\n"
        f"for module in {modules}: importlib.import_module(module)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
