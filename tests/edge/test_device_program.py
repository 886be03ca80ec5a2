"""What a program on a device has to import, and what that does not do."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
sys.modules.update(dict.fromkeys(("jax", "flax", "tensorflow", "cv2", "onnxruntime")))
from bottlefit_jax.edge import EdgeClient

with EdgeClient(sys.argv[1], sys.argv[2]) as client:
    print(client.infer(sys.argv[3]).label)
"""


def run(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True).stdout


def test_a_program_on_a_device_needs_one_import(bundle, server, image, image_file):
    assert run(PROGRAM, bundle, server, image_file) == f"class {image[1:30, 2:31].sum() % 10}\n"


def test_importing_the_room_imports_no_package():
    code = "import sys, bottlefit_jax.edge; print([name for name in ('grpc', 'numpy', 'PIL') if name in sys.modules])"
    assert run(code) == "[]\n"


def test_a_resolver_that_the_user_chose_stays():
    code = "import os; os.environ['GRPC_DNS_RESOLVER'] = 'ares'\n"
    code += "import bottlefit_jax.edge; print(os.environ['GRPC_DNS_RESOLVER'])"
    assert run(code) == "ares\n"
