"""An incomplete tritonclient, which raises an error of its own where a package is missing."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["bottlefit_jax.serve.load", "bottlefit_jax.edge"])
def test_a_package_that_tritonclient_lacks_is_named(module, tmp_path):
    (tmp_path / "rapidjson.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'rapidjson'\", name='rapidjson')"
    )
    words = {"bottlefit_jax.serve.load": ["--server", "127.0.0.1:9"]}.get(
        module, ["--bundle", "b", "--server", "127.0.0.1:9", "a.jpg"]
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, "-m", module, *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("error: rapidjson is not installed")
    assert done.stderr.count("\n") == 1
