"""A command that signals itself when a file comes to hold some text: no other process could do it in time for certain.

python -m tests.signalled FILE TEXT NUMBER MODULE FLAG...     TEXT may be empty; FILE may be a folder then
"""

import os
import runpy
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(module, *flags, signum, path, text=""):
    """Runs `python -m module flags` until `path` is there with `text` in it: then comes the signal.

    Returns the exit code and both outputs.
    """
    words = [sys.executable, "-m", "tests.signalled", path, text, str(int(signum)), module, *flags]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=900)
    return done.returncode, done.stdout, done.stderr


def _watch(path: Path, text: str, number: int) -> None:
    while not path.exists() or (text and text not in path.read_text()):
        time.sleep(0.001)
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    _, path, text, number, module, *flags = sys.argv
    threading.Thread(target=_watch, args=(Path(path), text, int(number)), daemon=True).start()
    sys.argv = [module, *flags]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
