"""One process at a time holds a lock, and the others say which process it is."""

import os
import time

import pytest

from bottlefit_jax import lock
from bottlefit_jax.errors import UserError
from tests.test_interrupt import start


def test_one_process_holds_a_lock_and_another_names_it(tmp_path):
    main = """
with lock.hold(Path("run/.lock"), "run", hint=", or give another --workdir"):
    ready(); time.sleep(600)
"""
    first, path = start(main, cwd=tmp_path), tmp_path / "run" / ".lock"
    assert first.stdout.readline() == "ready\n"
    second = start(main, cwd=tmp_path)
    out, err = second.communicate(timeout=60)
    assert (second.returncode, out) == (2, "")
    holder = f"process {first.pid} on {os.uname().nodename} since "
    assert err.startswith(f"error: run is in use by {holder}{time.strftime('%Y-')}"), err
    assert err.endswith(": wait until that has ended, or give another --workdir\n")
    first.kill()  # the system unlocks the file, which then names no holder
    first.communicate()
    assert path.exists()
    with (
        lock.hold(path, "run"),
        pytest.raises(lock.InUseError, match=f"process {os.getpid()} "),
        lock.hold(path, "run"),
    ):
        pass
    assert not path.exists()


def test_a_process_that_waits_goes_on_when_the_lock_is_free(tmp_path):
    main = """
with lock.hold(Path(".lock"), "the report", wait=True):
    print("written", flush=True)
"""
    with lock.hold(tmp_path / ".lock", "the report"):
        second = start(main, cwd=tmp_path)
        line = second.stdout.readline()
        assert line.startswith(f"waiting for the report, which is in use by process {os.getpid()} on "), line
    out, err = second.communicate(timeout=60)
    assert (second.returncode, out, err) == (0, "written\n", "")
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, capsys):
    def flock(descriptor, operation):
        raise OSError(lock.NO_LOCKS[0], "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with lock.hold(tmp_path / ".lock", "run"):
        pass
    assert "no locks on the file system" in capsys.readouterr().err


def test_a_lock_that_cannot_be_written_names_the_folder_and_the_reason(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as caught, lock.hold(tmp_path / "file" / ".lock", "run"):
        pass
    assert str(caught.value) == f"cannot write {tmp_path / 'file'}: Not a directory"
    monkeypatch.setattr(lock.os, "open", lambda *_: os.close(-1))
    with pytest.raises(UserError) as caught, lock.hold(tmp_path / ".lock", "run"):
        pass
    assert str(caught.value) == f"cannot write {tmp_path}: Bad file descriptor"
