import dataclasses
import json
import os

import pytest

from bottlefit_jax.bundle import Calibration, Latent, Manifest, folder, identity, read_bundle
from bottlefit_jax.errors import UserError
from tests.bundle import example

REQUIRED = [(key,) for key in example.manifest()]
for _part in ("model", "image", "latent", "head", "tail", "calibration"):
    REQUIRED += [(_part, key) for key in example.manifest()[_part]]
REQUIRED += [("files", "tail.onnx", "sha256"), ("files", "tail.onnx", "bytes"), ("versions", "bottlefit_jax")]


def parent_of(value, path):
    for key in path[:-1]:
        value = value[key]
    return value


def refusal(path):
    """The message of read_bundle, which must be one line."""
    with pytest.raises(UserError) as caught:
        read_bundle(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_valid_manifest_becomes_dataclasses(tmp_path):
    manifest = read_bundle(example.write(tmp_path / "digits")).manifest
    assert manifest.model.options == {"width": 16}
    assert manifest.labels == ("zero", "one", "two", 'the "three"')
    assert manifest.latent == Latent((5, 6, 3), "uint8", 8, 0.02, 128)
    assert manifest.local is None
    assert manifest.calibration == Calibration("train", 2, "c" * 64)


def test_json_values_survive_the_round_trip_in_their_order():
    values = example.manifest(local={"litert": "local.tflite"})
    values["model"]["options"] = {"sizes": [1, [2, 3]], "none": None}
    written = Manifest.from_json(values).to_json()
    assert written == values
    assert json.dumps(written) == json.dumps(values)
    tuples = dataclasses.replace(Manifest.from_json(values).model, options={"sizes": (1, (2, 3)), "none": None})
    assert dataclasses.replace(Manifest.from_json(values), model=tuples).to_json() == values


@pytest.mark.parametrize("path", REQUIRED, ids=".".join)
def test_a_missing_field_is_named(tmp_path, path):
    values = example.manifest()
    del parent_of(values, path)[path[-1]]
    assert f"{path[-1]} is missing" in refusal(example.write_values(tmp_path, values))


@pytest.mark.parametrize("path", REQUIRED, ids=".".join)
def test_a_field_of_another_type_is_named(tmp_path, path):
    values = example.manifest()
    parent_of(values, path)[path[-1]] = True
    assert f"{path[-1]} is True; it must be" in refusal(example.write_values(tmp_path, values))


@pytest.mark.parametrize("path", [(), ("model",), ("image",), ("latent",), ("head",), ("tail",), ("calibration",)])
def test_an_unknown_field_is_named(tmp_path, path):
    values = example.manifest()
    parent_of(values, (*path, "extra"))["extra"] = 1
    assert "extra is not known" in refusal(example.write_values(tmp_path, values))


@pytest.mark.parametrize(
    ("path", "wrong", "message"),
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
        (("latent", "bits"), 7, "latent.zero_point is 128; the largest value of 7 bits is 127"),
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
def test_a_value_out_of_range_is_quoted(tmp_path, path, wrong, message):
    values = example.manifest()
    parent_of(values, path)[path[-1]] = wrong
    assert message in refusal(example.write_values(tmp_path, values))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a manifest: Expecting value"),
        ("[1]", "the manifest is [1]; it must be an object"),
        ('{"name": "a", "name": "b"}', "is not a manifest: the key 'name' is repeated"),
        ('{"latent": NaN}', "is not a manifest: NaN is not JSON"),
        ("[" * 100_000, "is not a manifest: it is nested too deeply"),
        ('{"format": 1e999}', "format is inf; it must be 1"),
        ('{"version": ' + "9" * 5000 + "}", "is not a manifest: Exceeds the limit"),
        (b"\xff\xfe", "is not a manifest: 'utf-8' codec"),
    ],
)
def test_a_file_that_is_not_a_manifest_is_refused_in_one_line(tmp_path, text, message):
    example.write(tmp_path)
    (tmp_path / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert message in refusal(tmp_path)


def test_a_manifest_that_is_too_large_is_not_read_into_memory(tmp_path):
    example.write(tmp_path)
    os.truncate(tmp_path / "manifest.json", folder.MAX_BYTES + 1)
    assert "a manifest has at most 67,108,864" in refusal(tmp_path)


def test_a_newer_format_names_the_version_that_reads_it(tmp_path):
    example.write(tmp_path, format=3, versions={"bottlefit_jax": "7.1"}, shape="unknown")
    assert "has format 3; this is bottlefit-jax" in refusal(tmp_path)
    assert refusal(tmp_path).endswith("which reads formats 1 to 2; bottlefit-jax 7.1, which wrote it, reads it")
    example.write(tmp_path, format=3, versions=None)
    assert refusal(tmp_path).endswith("a newer one is needed")


FORMAT_1 = {"split": "train", "pictures": ["1.png", "2.png"]}


def test_format_1_is_read_with_the_digest_of_its_calibration_names(tmp_path):
    old = read_bundle(example.write(tmp_path / "old", format=1, calibration=FORMAT_1)).manifest
    assert old.calibration == Calibration("train", 2, identity("1.png", "2.png"))
    new = read_bundle(example.write(tmp_path / "new")).manifest
    assert dataclasses.replace(old, format=2, calibration=new.calibration) == new
    assert old.to_json() == example.manifest(calibration=dataclasses.asdict(old.calibration))


@pytest.mark.parametrize(
    ("written", "calibration", "message"),
    [
        (1, {"split": "train"}, "calibration.pictures is missing"),
        (1, {**FORMAT_1, "pictures": ["a", 1]}, "calibration.pictures[1] is 1; it must be a string"),
        (2, FORMAT_1, "calibration.count is missing; calibration.sha256 is missing; calibration.pictures is not known"),
    ],
)
def test_a_calibration_of_another_format_is_refused(tmp_path, written, calibration, message):
    assert message in refusal(example.write(tmp_path, format=written, calibration=calibration))


def test_an_identity_depends_on_every_byte_and_on_where_parts_end():
    assert identity("ab", b"c") == identity(b"ab", "c")
    assert len({identity("ab", "c"), identity("a", "bc"), identity("abc"), identity("abc", ""), identity()}) == 5
