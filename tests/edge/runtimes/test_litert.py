import os
import subprocess
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from bottlefit_jax.edge.runtimes.litert import Interpreter
from bottlefit_jax.errors import UserError
from export import litert

SHAPE = (8, 6, 3)


@pytest.fixture(scope="module")
def model():
    """The mean colour of an image."""
    return litert.to_tflite(lambda image: image.astype(jnp.float32).mean((1, 2)), (1, *SHAPE))


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


def test_it_runs_one_image(model, image):
    interpreter = Interpreter(model)
    assert (interpreter.input_shape, interpreter.output_shape) == (SHAPE, (3,))
    assert (interpreter.output_dtype, interpreter.scale, interpreter.zero_point) == (np.float32, None, None)
    assert np.allclose(interpreter.run(image), image.mean((0, 1)))


def test_a_result_outlives_the_next_run(model, image):
    interpreter = Interpreter(model, threads=2)
    first = interpreter.run(image)
    kept = first.copy()
    interpreter.run(image // 2)
    assert np.array_equal(first, kept)


def test_a_path_gives_the_same_as_its_content(model, image, tmp_path):
    path = tmp_path / "head.tflite"
    path.write_bytes(model)
    assert np.array_equal(Interpreter(path).run(image), Interpreter(model).run(image))
    assert np.array_equal(Interpreter(str(path)).run(image), Interpreter(model).run(image))


@pytest.mark.parametrize(
    "wrong", [np.zeros((6, 8, 3), np.uint8), np.zeros(SHAPE, np.float32), np.zeros((1, *SHAPE), np.uint8)]
)
def test_another_image_is_refused(model, wrong):
    with pytest.raises(UserError, match=r"this model takes uint8 \(8, 6, 3\)"):
        Interpreter(model).run(wrong)


def test_a_file_that_is_not_a_model_is_refused(tmp_path):
    path = tmp_path / "head.tflite"
    for content in (b"", b"no model", bytes(4096)):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"head.tflite is not a LiteRT model"):
            Interpreter(path)


def test_half_a_model_is_refused(model):
    with pytest.raises(UserError, match="not a LiteRT model"):
        Interpreter(model[: len(model) // 2])


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*none.tflite: No such file"):
        Interpreter(tmp_path / "none.tflite")


def test_what_a_program_writes_while_a_model_is_opened_reaches_its_file_descriptors(model, monkeypatch, capfd):
    """No library call redirects file descriptors 1 and 2, which belong to the whole process."""
    from ai_edge_litert.interpreter import Interpreter as LiteRT

    class Writing(LiteRT):
        def __init__(self, **options):
            os.write(1, b"out\n")
            super().__init__(**options)

        def allocate_tensors(self):
            os.write(2, b"err\n")
            super().allocate_tensors()

    Interpreter(model)  # LiteRT prints its own line about the first model of a process
    capfd.readouterr()
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", types.SimpleNamespace(Interpreter=Writing))
    Interpreter(model)
    assert capfd.readouterr() == ("out\n", "err\n")


def test_a_missing_package_is_one_line(model, monkeypatch):
    for name in ("ai_edge_litert.interpreter", "tflite_runtime.interpreter"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"pip install 'bottlefit-jax\[edge\]'"):
        Interpreter(model)


@pytest.mark.parametrize(
    "line",
    ["raise ImportError('libc.so.6: version GLIBC_2.38 not found')", "raise ValueError('numpy.dtype size changed')"],
)
def test_a_package_that_cannot_be_imported_says_why(model, tmp_path, monkeypatch, line):
    (tmp_path / "ai_edge_litert").mkdir()
    (tmp_path / "ai_edge_litert" / "__init__.py").write_text("")
    (tmp_path / "ai_edge_litert" / "interpreter.py").write_text(line)
    for name in ("ai_edge_litert", "ai_edge_litert.interpreter"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"is installed but cannot be imported: (libc.so.6: version|numpy.dtype size)"):
        Interpreter(model)


def test_it_never_imports_jax(model, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(model)
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('jax', 'flax', 'tensorflow')))\n"
        "import numpy as np; from bottlefit_jax.edge.runtimes.litert import Interpreter\n"
        f"print(Interpreter({str(path)!r}).run(np.full({SHAPE}, 7, np.uint8)))\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[7. 7. 7.]"
    assert all(line.startswith("INFO: ") for line in done.stderr.splitlines())  # LiteRT's
