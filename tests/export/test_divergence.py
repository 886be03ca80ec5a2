"""A wrong file makes the export fail, and the message names the layer that diverges first."""

import re

import pytest

from bottlefit_jax.errors import ParityError
from export import ExportOptions, bundle, export_bundle, head, litert


@pytest.fixture
def wrong_last_layer(monkeypatch):
    """A converter that turns the sign of the encoder's last layer, the only one with 3 channels."""
    right = litert.to_tflite

    def wrong(function, shape, **names):
        return right(lambda x: function(x) * (-1 if function(x).shape[-1] == 3 else 1), shape, **names)

    monkeypatch.setattr(litert, "to_tflite", wrong)


@pytest.mark.usefixtures("wrong_last_layer")
def test_a_wrong_layer_is_named_and_nothing_is_written(workdir, tmp_path, capsys):
    flags = ("--workdir", workdir, "--output", tmp_path / "x", "--head", "float32", "--images", 40, "--calibration", 10)
    assert bundle.main(list(map(str, flags))) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"error: .*head\.tflite is off by .*; encoder/6 diverges first: its values .*\n", err), err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("wrong_last_layer")
def test_a_wrong_layer_of_a_patch_student_is_named(patch_workdir, tmp_path):
    options = ExportOptions(patch_workdir, tmp_path / "x", head="float32", images=10, calibration=10)
    with pytest.raises(ParityError, match="encoder/9 diverges first"):
        export_bundle(options)


def test_a_wrong_fold_is_named(workdir, tmp_path, monkeypatch):
    right = head._apply
    monkeypatch.setattr(head, "_apply", lambda x, layer, affine: -right(x, layer, affine))
    options = ExportOptions(workdir, tmp_path / "x", head="float32", images=40, calibration=10)
    with pytest.raises(ParityError, match="encoder, as it is folded, diverges first"):
        export_bundle(options)
