from pathlib import Path

import pytest

from bottlefit_jax.errors import UserError
from export import ExportOptions


def options(**changes):
    return ExportOptions(**{"workdir": Path("run"), "output": Path("bundles/digits"), **changes})


def test_the_model_is_called_like_the_output_folder_unless_it_has_a_name():
    assert options().model_name == "digits"
    assert options(name="other").model_name == "other"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "int4"}, "--head is 'int4'; it must be one of float32, float16, int8"),
        ({"calibration": 0}, "--calibration is 0; it must be at least 1 training images"),
        ({"images": -3}, "--images is -3; it must be at least 1 evaluation images"),
        ({"version": 0}, "--version is 0; it must be at least 1"),
        ({"version": "2"}, "--version is '2'; it must be at least 1"),
        ({"name": "a b"}, "--name 'a b' is invalid: letters, digits"),
        ({"output": Path("my bundle")}, "--name 'my bundle' is invalid: letters, digits"),
    ],
)
def test_a_value_out_of_range_is_quoted(changes, message):
    with pytest.raises(UserError) as caught:
        options(**changes)
    assert str(caught.value).startswith(message)


def test_a_folder_with_other_files_is_never_replaced(tmp_path):
    (tmp_path / "run").mkdir()
    given = {"workdir": tmp_path / "run", "output": tmp_path / "b"}
    options(**given).check_folders()
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match="b exists: give another --output, or --overwrite to replace it"):
        options(**given).check_folders()
    options(**given, overwrite=True).check_folders()  # it is empty
    (tmp_path / "b" / "thesis.pdf").touch()
    with pytest.raises(UserError, match="b is not a bundle, so --overwrite does not remove it"):
        options(**given, overwrite=True).check_folders()
    (tmp_path / "b" / "manifest.json").touch()
    options(**given, overwrite=True).check_folders()


def test_a_missing_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no run at .*nowhere"):
        options(workdir=tmp_path / "nowhere").check_folders()


def test_rates_can_only_be_kept_from_a_bundle(tmp_path):
    (tmp_path / "run").mkdir()
    given = options(workdir=tmp_path / "run", output=tmp_path / "b", rates_from=tmp_path / "old")
    with pytest.raises(UserError, match=r"--rates-from .*old is not a bundle: it has no manifest\.json$"):
        given.check_folders()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "manifest.json").touch()
    given.check_folders()
