import dataclasses
import hashlib
import json
import shutil

import pytest

from bottlefit_jax import files
from bottlefit_jax.bundle import Local, Manifest, read_bundle, write_manifest
from bottlefit_jax.errors import UserError
from tests.bundle import example


def parsed(**changes):
    return Manifest.from_json(example.manifest(**changes))


def refusal(folder, **options):
    """The message of read_bundle, which must be one line."""
    with pytest.raises(UserError) as caught:
        read_bundle(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_bundle_gives_the_paths_of_its_files_and_of_no_others(tmp_path):
    bundle = read_bundle(example.write(tmp_path / "digits"))
    assert bundle.path(bundle.manifest.tail.onnx).read_bytes() == b"tail"
    with pytest.raises(UserError, match=r"no file 'nose', only head\.onnx"):
        bundle.path("nose")


def test_the_local_network_is_a_file_like_the_others(tmp_path):
    folder = example.write(
        tmp_path, files={**example.FILES, "local.tflite": b"all"}, local={"litert": "local.tflite", "top1": 74.8}
    )
    assert "files has no local.tflite" in refusal(folder)
    write_manifest(folder, parsed(local={"litert": "local.tflite", "top1": 74.8}))
    bundle = read_bundle(folder)
    assert bundle.manifest.local == Local("local.tflite", 74.8)
    assert bundle.path("local.tflite").read_bytes() == b"all"


def test_a_missing_folder_and_a_folder_without_a_manifest_have_different_messages(tmp_path):
    assert refusal(tmp_path / "none").startswith(f"no folder {tmp_path / 'none'}")
    assert refusal(tmp_path) == f"{tmp_path} is not a bundle: it has no manifest.json"


@pytest.mark.parametrize("name", list(example.FILES))
def test_one_flipped_bit_is_found(tmp_path, name):
    example.write(tmp_path)
    data = bytearray((tmp_path / name).read_bytes())
    data[1] ^= 4
    (tmp_path / name).write_bytes(data)
    assert f"{name} was changed or damaged: its sha256 is {hashlib.sha256(data).hexdigest()[:12]}…" in refusal(tmp_path)
    assert read_bundle(tmp_path, verify=False).manifest.name == "digits"


def test_a_device_needs_and_checks_only_the_files_that_it_uses(tmp_path):
    folder = example.write(tmp_path)
    (folder / "tail.onnx").unlink()
    (folder / "tail.stablehlo").write_bytes(b"changed")
    bundle = read_bundle(folder, verify=lambda manifest: manifest.device_files())
    assert bundle.path("head.tflite").read_bytes() == b"lite head"
    (folder / "head.tflite").write_bytes(b"lite heaD")
    message = refusal(folder, verify=lambda manifest: manifest.device_files())
    assert "head.tflite was changed or damaged" in message
    assert "tail" not in message.replace(str(folder), "")


def test_all_problems_of_the_files_are_in_one_line(tmp_path):
    example.write(tmp_path)
    (tmp_path / "head.onnx").unlink()
    (tmp_path / "tail.onnx").write_bytes(b"longer")
    (tmp_path / "tail.stablehlo").write_bytes(b"HLO")
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path} is not a valid bundle: ")
    assert "head.onnx is missing; tail.onnx has 6 bytes instead of 4; tail.stablehlo was changed" in message
    assert "head.onnx is missing" in refusal(tmp_path, verify=False)


def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_not(tmp_path):
    folder = example.write(tmp_path / "digits")
    shutil.move(folder / "tail.onnx", folder / "inside")
    (folder / "tail.onnx").symlink_to("inside")
    assert read_bundle(folder).path("tail.onnx").read_bytes() == b"tail"
    shutil.move(folder / "inside", tmp_path / "outside")
    (folder / "tail.onnx").unlink()
    (folder / "tail.onnx").symlink_to("../outside")
    assert f"tail.onnx leads out of the folder, to {tmp_path / 'outside'}" in refusal(folder, verify=False)
    (folder / "tail.onnx").unlink()
    (folder / "tail.onnx").symlink_to("tail.onnx")
    assert "tail.onnx" in refusal(folder)


def test_a_bundle_may_be_a_link_and_have_files_that_were_added_later(tmp_path):
    folder = example.write(tmp_path / "digits")
    (folder / "head.plan").write_bytes(b"an engine")
    (tmp_path / "link").symlink_to(folder)
    assert read_bundle(tmp_path / "link").manifest.name == "digits"


def test_writing_computes_the_files_from_the_folder(tmp_path):
    example.write(tmp_path)
    (tmp_path / "parity.json").write_text("{}")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "notes.txt").write_text("n")
    manifest = dataclasses.replace(parsed(), files={})
    written = write_manifest(tmp_path, manifest)
    assert read_bundle(tmp_path) == written
    assert set(written.manifest.files) == {*example.FILES, "parity.json", "more/notes.txt"}
    assert manifest.files == {}
    assert write_manifest(tmp_path, manifest) == written


def test_writing_keeps_the_layout_of_the_file(tmp_path):
    folder = example.write(tmp_path)
    write_manifest(folder, parsed())
    values = example.manifest(files=dict(sorted(example.manifest()["files"].items())))
    assert (folder / "manifest.json").read_text() == json.dumps(values, indent=2) + "\n"


def test_writing_an_invalid_manifest_leaves_the_earlier_one(tmp_path):
    example.write(tmp_path)
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(UserError, match="version is 0; it must be at least 1"):
        write_manifest(tmp_path, parsed(version=0))
    (tmp_path / ".hidden").write_text("")
    with pytest.raises(UserError, match=r"a name in files is '\.hidden'; it must match"):
        write_manifest(tmp_path, parsed())
    (tmp_path / ".hidden").unlink()
    (tmp_path / "tail.onnx").unlink()
    with pytest.raises(UserError, match=r"files has no tail\.onnx"):
        write_manifest(tmp_path, parsed())
    assert (tmp_path / "manifest.json").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_is_one_line_and_leaves_the_earlier_manifest(tmp_path, monkeypatch):
    example.write(tmp_path)
    before = (tmp_path / "manifest.json").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(UserError, match=r"cannot write .*: no space left on the disk"):
        write_manifest(tmp_path, parsed(version=9))
    assert (tmp_path / "manifest.json").read_bytes() == before
    assert not list(tmp_path.glob(".*"))
