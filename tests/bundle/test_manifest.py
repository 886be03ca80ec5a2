import dataclasses
import hashlib
import json
import os
import shutil

import pytest

from bottlefit_jax.bundle import identity, read_bundle, write_manifest
from bottlefit_jax.bundle import manifest as room
from bottlefit_jax.errors import UserError
from tests.bundle import example

NEEDED = [(key,) for key in example.manifest()]
for _part in ("model", "image", "latent", "head", "tail", "calibration"):
    NEEDED += [(_part, key) for key in example.manifest()[_part]]
NEEDED += [("files", "tail.onnx", "sha256"), ("files", "tail.onnx", "bytes"), ("versions", "bottlefit_jax")]


def parent_of(value, path):
    for key in path[:-1]:
        value = value[key]
    return value


def refusal(folder, **options):
    """What read_bundle says, which must be one line."""
    with pytest.raises(UserError) as caught:
        read_bundle(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_good_bundle_is_read_as_it_was_written(tmp_path):
    bundle = read_bundle(example.write(tmp_path / "digits"))
    assert bundle.manifest.model.options == {"width": 16}
    assert bundle.manifest.labels == ("zero", "one", "two", 'the "three"')
    assert bundle.manifest.latent == room.Latent((5, 6, 3), "uint8", 8, 0.02, 128)
    assert bundle.manifest.local is None
    assert bundle.manifest.calibration == room.Calibration("train", 2, "c" * 64)
    assert bundle.path(bundle.manifest.tail.onnx).read_bytes() == b"tail"
    assert json.loads(json.dumps(dataclasses.asdict(bundle.manifest))) == example.manifest()
    with pytest.raises(UserError, match=r"no file 'nose', only head\.onnx"):
        bundle.path("nose")


def test_the_whole_student_is_a_file_like_the_others(tmp_path):
    folder = example.write(tmp_path, files={**example.FILES, "local.tflite": b"all"}, local={"litert": "local.tflite"})
    assert "files has no local.tflite" in refusal(folder)
    write_manifest(folder, json.loads((folder / "manifest.json").read_text()))
    bundle = read_bundle(folder)
    assert bundle.manifest.local == room.Local("local.tflite")
    assert bundle.path("local.tflite").read_bytes() == b"all"


@pytest.mark.parametrize("path", NEEDED, ids=".".join)
def test_a_missing_field_is_named(tmp_path, path):
    value = example.manifest()
    del parent_of(value, path)[path[-1]]
    example.write(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps(value))
    assert f"{path[-1]} is missing" in refusal(tmp_path)


@pytest.mark.parametrize("path", NEEDED, ids=".".join)
def test_a_field_of_another_type_is_named(tmp_path, path):
    value = example.manifest()
    parent_of(value, path)[path[-1]] = True
    example.write(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps(value))
    assert f"{path[-1]} is True; it must be" in refusal(tmp_path)


@pytest.mark.parametrize("path", [(), ("model",), ("image",), ("latent",), ("head",), ("tail",), ("calibration",)])
def test_a_field_too_many_is_named(tmp_path, path):
    value = example.manifest()
    parent_of(value, (*path, "extra"))["extra"] = 1
    example.write(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps(value))
    assert "extra is not known" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("path", "wrong", "told"),
    [
        (("name",), "../digits", "name is '../digits'; it must match"),
        (("name",), "digits\n", "name is 'digits\\n'; it must match"),
        (("version",), 0, "version is 0; it must be at least 1"),
        (("version",), 2**31, "it must be at most 2147483647"),
        (("model", "num_classes"), 0, "model.num_classes is 0; it must be at least 1"),
        (("model", "num_classes"), 5, "it has 4 labels for 5 classes"),
        (("image", "order"), "BGR", "image.order is 'BGR'; it must be 'RGB'"),
        (("image", "resize"), 31, "image.resize is 31, too small to cut 32 x 32 from it"),
        (("latent", "shape"), [5, 6], "latent.shape is [5, 6]; it must have at least 3 items"),
        (("latent", "shape"), [5, 0, 3], "latent.shape[1] is 0; it must be at least 1"),
        (("latent", "dtype"), "int8", "latent.dtype is 'int8'; it must be 'uint8'"),
        (("latent", "bits"), 9, "latent.bits is 9; it must be at most 8"),
        (("latent", "bits"), 7, "latent.zero_point is 128; 7 bits end at 127"),
        (("latent", "scale"), 0, "latent.scale is 0; it must be above 0"),
        (("latent", "zero_point"), 256, "latent.zero_point is 256; it must be at most 255"),
        (("latent", "zero_point"), 1.5, "latent.zero_point is 1.5; it must be an integer"),
        (("head", "id"), "A" * 64, "head.id is 'AAAA"),
        (("head", "precision"), "int4", "head.precision is 'int4'; it must be 'int8' or 'float16' or 'float32'"),
        (("labels",), ["a\nb", "c", "d", "e"], "labels[0] is 'a\\nb'; it must match"),
        (("local",), {"litert": "local.tflite"}, "files has no local.tflite"),
        (("files",), {}, "files is {}; it must have at least 1 entries"),
        (("tail", "head"), "c" * 64, "its tail belongs to head cccccccccccc…, not to its head aaaaaaaaaaaa…"),
        (("tail", "onnx"), "../tail.onnx", "tail.onnx is '../tail.onnx'; it must match"),
        (("head", "litert"), "/etc/passwd", "head.litert is '/etc/passwd'; it must match"),
        (("head", "litert"), "a/../../b", "head.litert is 'a/../../b'; it must match"),
        (("head", "litert"), "..\\b", "head.litert is '..\\\\b'; it must match"),
    ],
)
def test_a_value_out_of_range_is_quoted(tmp_path, path, wrong, told):
    value = example.manifest()
    parent_of(value, path)[path[-1]] = wrong
    example.write(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps(value))
    assert told in refusal(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is no manifest: Expecting value"),
        ("[1]", "the manifest is [1]; it must be an object"),
        ('{"name": "a", "name": "b"}', "is no manifest: 'name' is there twice"),
        ('{"latent": NaN}', "is no manifest: NaN is not JSON"),
        ("[" * 100_000, "is no manifest: it is nested too deeply"),
        ('{"format": 1e999}', "format is inf; it must be 1"),
        ('{"version": ' + "9" * 5000 + "}", "is no manifest: Exceeds the limit"),
        (b"\xff\xfe", "is no manifest: 'utf-8' codec"),
    ],
)
def test_what_is_no_manifest_is_one_line(tmp_path, text, told):
    example.write(tmp_path)
    (tmp_path / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert told in refusal(tmp_path)


def test_a_manifest_is_not_read_into_memory_whatever_its_size(tmp_path):
    example.write(tmp_path)
    os.truncate(tmp_path / "manifest.json", room.LARGEST + 1)
    assert "a manifest has at most 67,108,864" in refusal(tmp_path)


def test_no_folder_and_no_bundle_are_told_apart(tmp_path):
    assert refusal(tmp_path / "none").startswith(f"no folder {tmp_path / 'none'}")
    assert refusal(tmp_path) == f"{tmp_path} is no bundle: it has no manifest.json"


def test_a_newer_format_says_who_reads_it(tmp_path):
    example.write(tmp_path, format=3, versions={"bottlefit_jax": "7.1"}, shape="unheard of")
    assert "has format 3; this is bottlefit-jax" in refusal(tmp_path)
    assert refusal(tmp_path).endswith("which reads formats 1 to 2; bottlefit-jax 7.1, which wrote it, reads it")
    example.write(tmp_path, format=3, versions=None)
    assert refusal(tmp_path).endswith("a newer one is needed")


OLD = {"split": "train", "pictures": ["1.png", "2.png"]}


def test_a_bundle_of_format_1_is_read_and_its_names_become_their_digest(tmp_path):
    old = read_bundle(example.write(tmp_path / "old", format=1, calibration=OLD)).manifest
    assert old.calibration == room.Calibration("train", 2, identity("1.png", "2.png"))
    new = read_bundle(example.write(tmp_path / "new")).manifest
    assert dataclasses.replace(old, format=2, calibration=new.calibration) == new


@pytest.mark.parametrize(
    ("written", "calibration", "told"),
    [
        (1, {"split": "train"}, "calibration.pictures is missing"),
        (1, {**OLD, "pictures": ["a", 1]}, "calibration.pictures[1] is 1; it must be a string"),
        (2, OLD, "calibration.count is missing; calibration.sha256 is missing; calibration.pictures is not known"),
    ],
)
def test_a_calibration_of_another_format_is_named(tmp_path, written, calibration, told):
    assert told in refusal(example.write(tmp_path, format=written, calibration=calibration))


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
    bundle = read_bundle(folder, verify=lambda manifest: [manifest.head.litert])
    assert bundle.path("head.tflite").read_bytes() == b"lite head"
    (folder / "head.tflite").write_bytes(b"lite heaD")
    told = refusal(folder, verify=lambda manifest: [manifest.head.litert])
    assert "head.tflite was changed or damaged" in told
    assert "tail" not in told.replace(str(folder), "")


def test_all_that_is_wrong_with_the_files_is_one_line(tmp_path):
    example.write(tmp_path)
    (tmp_path / "head.onnx").unlink()
    (tmp_path / "tail.onnx").write_bytes(b"longer")
    (tmp_path / "tail.stablehlo").write_bytes(b"HLO")
    found = refusal(tmp_path)
    assert "head.onnx is missing; tail.onnx has 6 bytes instead of 4; tail.stablehlo was changed" in found
    assert "head.onnx is missing" in refusal(tmp_path, verify=False)


def test_a_link_that_leads_out_is_refused_and_one_that_stays_inside_is_not(tmp_path):
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


def test_a_bundle_may_itself_be_behind_a_link_and_hold_what_was_put_there_later(tmp_path):
    folder = example.write(tmp_path / "digits")
    (folder / "head.plan").write_bytes(b"an engine")
    (tmp_path / "link").symlink_to(folder)
    assert read_bundle(tmp_path / "link").manifest.name == "digits"


def test_writing_computes_the_files_from_the_folder(tmp_path):
    example.write(tmp_path)
    (tmp_path / "parity.json").write_text("{}")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "notes.txt").write_text("n")
    given = {key: value for key, value in example.manifest().items() if key != "files"}
    written = write_manifest(tmp_path, given)
    assert read_bundle(tmp_path) == written
    assert set(written.manifest.files) == {*example.FILES, "parity.json", "more/notes.txt"}
    assert "files" not in given
    assert write_manifest(tmp_path, given) == written


def test_writing_what_is_not_valid_leaves_the_manifest_that_was_there(tmp_path):
    example.write(tmp_path)
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(UserError, match="version is 0; it must be at least 1"):
        write_manifest(tmp_path, example.manifest(version=0))
    (tmp_path / ".hidden").write_text("")
    with pytest.raises(UserError, match=r"a name in files is '\.hidden'; it must match"):
        write_manifest(tmp_path, example.manifest())
    (tmp_path / ".hidden").unlink()
    (tmp_path / "tail.onnx").unlink()
    with pytest.raises(UserError, match=r"files has no tail\.onnx"):
        write_manifest(tmp_path, example.manifest())
    assert (tmp_path / "manifest.json").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_is_one_line_and_leaves_the_manifest_that_was_there(tmp_path, monkeypatch):
    example.write(tmp_path)
    before = (tmp_path / "manifest.json").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bottlefit_jax.files.os.replace", full)
    with pytest.raises(UserError, match=r"cannot write .*: no space left on the disk"):
        write_manifest(tmp_path, example.manifest(version=9))
    assert (tmp_path / "manifest.json").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_an_identity_depends_on_every_byte_and_on_where_parts_end():
    assert identity("ab", b"c") == identity(b"ab", "c")
    assert len({identity("ab", "c"), identity("a", "bc"), identity("abc"), identity("abc", ""), identity()}) == 5
