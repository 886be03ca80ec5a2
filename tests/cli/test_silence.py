import os
import subprocess
import sys
from pathlib import Path

import pytest

from bottlefit_jax.cli.silence import silenced

ROOT = Path(__file__).parents[2]


def test_nothing_comes_through_meanwhile_and_all_comes_through_afterwards(capfd):
    with silenced():
        print("by Python")
        print("by Python", file=sys.stderr)
        os.write(1, b"by C++\n")
        os.write(2, b"by C++\n")
    print("out")
    os.write(2, b"err\n")
    assert capfd.readouterr() == ("out\n", "err\n")


def test_an_exception_passes_and_ends_the_silence(capfd):
    with pytest.raises(ValueError, match="wrong"), silenced():
        raise ValueError("wrong")
    os.write(1, b"out\n")
    assert capfd.readouterr().out == "out\n"


def test_closed_streams_stay_closed():
    code = (
        "import os\nfrom bottlefit_jax.cli.silence import silenced\nos.close(1)\nwith silenced(): os.write(2, b'x')\n"
    )
    code += "os.write(2, b'open'); os.write(1, b'')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.startswith("open")
    assert "Bad file descriptor" in done.stderr
