"""A file or a folder appears as a whole or not at all, and writing it leaves the process as it is."""

import errno
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bottlefit_jax import files, interrupt, lock
from bottlefit_jax.errors import UserError, is_disk_full, write_error
from bottlefit_jax.files import atomic_directory, atomic_file, write_text


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def full_disk(*arguments, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def write_both(folder):
    """Replace a file and a folder, as a user's program would by a call of ours."""
    folder.mkdir(exist_ok=True)
    write_text(folder / "file", "text")
    with atomic_directory(folder / "folder") as temporary:
        (temporary / "part").write_text("text")
    return names_in(folder)


def write_half_a_file(path, error):
    with atomic_file(path) as temporary:
        temporary.write_text("half")
        raise error


def write_half_a_folder(folder, error):
    with atomic_directory(folder) as temporary:
        (temporary / "half").touch()
        raise error


def process_state():
    """Return what a library must not change in the process that calls it."""
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    handlers = [signal.getsignal(signum) for signum in interrupt.SIGNALS]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    outputs = [os.fstat(descriptor)[:3] for descriptor in (1, 2)]
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    return wakeup, handlers, mask, outputs, descriptors, dict(os.environ), os.getcwd(), threading.active_count()


def test_a_file_is_replaced_at_the_end_of_the_block(tmp_path):
    path = tmp_path / "report.md"
    path.write_text("old")
    with atomic_file(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path  # os.replace needs the same file system
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names_in(tmp_path) == ["report.md"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_in_the_block_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / "report.md"
    path.write_text("old")
    with pytest.raises(error):
        write_half_a_file(path, error)
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["report.md"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_alone(tmp_path, monkeypatch, function):
    path = tmp_path / "report.md"
    path.write_text("old")
    monkeypatch.setattr(files.os, function, full_disk)
    with pytest.raises(UserError) as caught:
        write_text(path, "new")
    assert str(caught.value) == f"cannot write {path}: no space left on the disk"
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["report.md"]


def test_the_first_error_is_raised_if_the_temporary_file_cannot_be_removed_either(tmp_path, monkeypatch):
    def read_only(path, missing_ok=False):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(files.os, "fsync", full_disk)
    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(UserError, match="no space left on the disk"):
        write_text(tmp_path / "report.md", "new")


def test_a_missing_folder_is_an_error_with_the_name_that_was_given(tmp_path):
    with pytest.raises(UserError) as caught:
        write_text(tmp_path / "none" / "report.md", "new")
    assert str(caught.value) == f"cannot write {tmp_path / 'none' / 'report.md'}: No such file or directory"


def test_a_folder_in_the_way_of_a_file_is_an_error(tmp_path):
    (tmp_path / "report.md").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*/report\.md: Is a directory"):
        write_text(tmp_path / "report.md", "new")
    assert names_in(tmp_path) == ["report.md"]


def test_an_error_of_another_file_in_the_block_names_that_file(tmp_path):
    with pytest.raises(UserError) as caught, atomic_file(tmp_path / "report.md"):
        (tmp_path / "input.json").read_text()
    assert str(caught.value) == (
        f"cannot write {tmp_path / 'report.md'}: {tmp_path / 'input.json'}: No such file or directory"
    )


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with (
        pytest.raises(UserError, match=r"cannot write .*report\.md: No such file"),
        atomic_file(tmp_path / "report.md"),
    ):
        pass
    assert names_in(tmp_path) == []


def test_a_surrogate_is_written_as_its_escape(tmp_path):
    """A file's name that is not UTF-8 reaches a report as surrogates."""
    write_text(tmp_path / "report.md", f"{os.fsdecode(bytes([0xE9]))}.jpg é\n")
    assert (tmp_path / "report.md").read_bytes() == "\\udce9.jpg é\n".encode()


def test_a_file_whose_name_is_not_utf8_is_written(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9.md"))
    try:
        path.touch()
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    write_text(path, "text")
    assert path.read_text() == "text"
    assert os.listdir(os.fsencode(tmp_path)) == [b"\xe9.md"]


def test_one_writer_at_a_time_has_an_exclusive_file(tmp_path):
    path = tmp_path / "head.plan"
    with atomic_file(path, exclusive=True) as temporary:
        temporary.write_text("first")
        with pytest.raises(lock.InUseError, match=rf"{path} is in use by process {os.getpid()} "):  # noqa: SIM117
            with atomic_file(path, exclusive=True):
                pytest.fail("two writers")
    assert path.read_text() == "first"
    assert names_in(tmp_path) == ["head.plan"]


def test_threads_that_write_the_same_file_do_not_mix_their_text(tmp_path):
    path, barrier = tmp_path / "report.md", threading.Barrier(4)

    def write(letter):
        with atomic_file(path) as temporary, temporary.open("w") as file:
            for _ in range(20):
                barrier.wait(60)
                file.write(letter)
                file.flush()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, "abcd"))
    assert path.read_text() in [letter * 20 for letter in "abcd"]
    assert names_in(tmp_path) == ["report.md"]


def test_a_folder_is_replaced_at_the_end_of_the_block(tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "old").touch()
    with atomic_directory(folder) as temporary:
        (temporary / "new").touch()
        assert names_in(folder) == ["old"]
    assert names_in(folder) == ["new"]
    assert names_in(tmp_path) == ["bundle"]


def test_the_folders_above_a_new_folder_are_made(tmp_path):
    with atomic_directory(tmp_path / "a" / "b" / "bundle") as temporary:
        (temporary / "file").touch()
    assert names_in(tmp_path / "a" / "b") == ["bundle"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_in_the_block_leaves_the_old_folder_alone(tmp_path, error):
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "old").touch()
    with pytest.raises(error):
        write_half_a_folder(folder, error)
    assert names_in(folder) == ["old"]
    assert names_in(tmp_path) == ["bundle"]


def test_a_full_disk_leaves_no_folder(tmp_path):
    with pytest.raises(UserError) as caught:
        write_half_a_folder(tmp_path / "bundle", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert str(caught.value) == f"cannot write {tmp_path / 'bundle'}: no space left on the disk"
    assert names_in(tmp_path) == []


def test_an_error_of_ours_names_the_folder_that_was_given(tmp_path):
    with pytest.raises(UserError) as caught, atomic_directory(tmp_path / "bundle") as temporary:
        raise UserError(f"{temporary / 'head.onnx'} has no output")
    assert str(caught.value) == f"{tmp_path / 'bundle' / 'head.onnx'} has no output"


def test_a_folder_that_exists_is_replaced_only_with_overwrite(tmp_path):
    (tmp_path / "bundle").mkdir()
    with pytest.raises(UserError, match="has just been written by another process"):  # noqa: SIM117
        with atomic_directory(tmp_path / "bundle", overwrite=False):
            pass
    assert names_in(tmp_path) == ["bundle"]


def test_one_writer_at_a_time_has_a_folder(tmp_path):
    with atomic_directory(tmp_path / "bundle"):
        with pytest.raises(lock.InUseError, match="bundle is in use by process"):  # noqa: SIM117
            with atomic_directory(tmp_path / "bundle"):
                pytest.fail("two writers")
        assert lock.beside(tmp_path / "bundle").exists()
    assert names_in(tmp_path) == ["bundle"]


def test_writing_changes_nothing_else_in_the_process(tmp_path):
    before = process_state()
    assert write_both(tmp_path) == ["file", "folder"]
    assert process_state() == before


def test_any_thread_can_write(tmp_path):
    before = process_state()
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(write_both, [tmp_path / str(index) for index in range(8)]))
    assert results == [["file", "folder"]] * 8
    assert process_state() == before


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "x"), True),
        (OSError(errno.EDQUOT, "x"), True),
        (RuntimeError("INTERNAL: write failed: No space left on device"), True),
        (RuntimeError("Disk quota exceeded [type.googleapis.com]"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (None, False),
    ],
)
def test_a_full_disk_is_recognised_by_its_number_or_by_the_systems_text(error, full):
    assert is_disk_full(error) == full


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.EACCES, "Permission denied"), "cannot write runs/x: Permission denied"),
        (OSError(errno.EACCES, "Permission denied", "runs/.x.12.part"), "cannot write runs/x: Permission denied"),
        (OSError(errno.EACCES, "Permission denied", "runs"), "cannot write runs/x: Permission denied"),
        (OSError(errno.EACCES, "Permission denied", "/y"), "cannot write runs/x: /y: Permission denied"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "cannot write runs/x: no space left on the disk"),
        (OSError("a library's text"), "cannot write runs/x: a library's text"),
    ],
)
def test_an_error_of_writing_names_the_path_and_the_reason(error, message):
    assert str(write_error(Path("runs/x"), error)) == message
