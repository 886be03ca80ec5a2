import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bottlefit_jax.cli import silence
from bottlefit_jax.cli.silence import silenced

ROOT = Path(__file__).parents[2]


@pytest.fixture
def in_a_command(monkeypatch):
    monkeypatch.setattr(silence, "_is_command", True)


def test_in_a_users_program_nothing_is_redirected(capfd):
    with silenced():
        print("by Python")
        os.write(2, b"by C++\n")
    assert capfd.readouterr() == ("by Python\n", "by C++\n")


def test_in_a_command_nothing_comes_through_meanwhile_and_all_comes_through_afterwards(in_a_command, capfd):
    with silenced():
        print("by Python")
        print("by Python", file=sys.stderr)
        os.write(1, b"by C++\n")
        os.write(2, b"by C++\n")
    print("out")
    os.write(2, b"err\n")
    assert capfd.readouterr() == ("out\n", "err\n")


def test_an_exception_passes_and_ends_the_silence(in_a_command, capfd):
    with pytest.raises(ValueError, match="wrong"), silenced():
        raise ValueError("wrong")
    os.write(1, b"out\n")
    assert capfd.readouterr().out == "out\n"


def test_closed_streams_stay_closed():
    code = (
        "import os\nfrom bottlefit_jax.cli.silence import allow, silenced\nallow()\n"
        "os.close(1)\nwith silenced(): os.write(2, b'x')\n"
    )
    code += "os.write(2, b'open'); os.write(1, b'')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.startswith("open")
    assert "Bad file descriptor" in done.stderr


def test_what_is_silenced_may_silence_again(in_a_command):
    def nested():
        with silenced(), silenced():
            pass

    thread = threading.Thread(target=nested, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
