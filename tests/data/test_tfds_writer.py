"""A folder becomes a set in TFDS's layout with the same images, without TensorFlow."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from bottlefit_jax import prepare
from bottlefit_jax.data import eval_batches, open_source, tfds_writer
from bottlefit_jax.errors import UserError
from tests.data.images import truncate

READ = """
import sys
import numpy as np
import tensorflow_datasets as tfds
from bottlefit_jax.data import open_source, train_batches

folder, data_dir = sys.argv[1:]
for split in ("train", "val"):
    ours, files = open_source("insects", split=split, root=data_dir), open_source("folder", split=split, root=folder)
    assert ours.class_names == files.class_names and len(ours) == len(files)
    for index in range(len(files)):
        assert np.array_equal(ours[index]["image"], files[index]["image"])
        assert ours[index]["label"] == files[index]["label"]
        assert ours.read(index)[0] == files.read(index)[0]
theirs = tfds.data_source("insects", split="validation", data_dir=data_dir, download=False)
assert np.array_equal(theirs[3]["image"], files[3]["image"]) and theirs[3]["label"] == 0
next(train_batches(ours, batch_size=2, image_size=8, seed=0))
assert "tensorflow" not in sys.modules
print("equal")
"""


def run_without_tensorflow(tmp_path, arguments):
    """Run Python with a package in place of TensorFlow whose import is an error."""
    fake = tmp_path / "fake" / "tensorflow"
    fake.mkdir(parents=True, exist_ok=True)
    (fake / "__init__.py").write_text("raise ImportError('TensorFlow must not be imported here')\n")
    repository = str(pathlib.Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": f"{fake.parent}{os.pathsep}{repository}"}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=120)


def test_prepared_folder_equals_the_folder_without_tensorflow(folder, tmp_path):
    data_dir = tmp_path / "prepared"
    command = ["-m", "bottlefit_jax.prepare", "--name=insects", f"--folder={folder}", f"--data_dir={data_dir}"]
    done = run_without_tensorflow(tmp_path, command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(data_dir / "insects" / "1.0.0")
    assert "TensorFlow" not in done.stderr
    assert [path.name for path in data_dir.iterdir()] == ["insects"]
    done = run_without_tensorflow(tmp_path, ["-W", "error", "-c", READ, str(folder), str(data_dir)])
    assert done.stdout == "equal\n", done.stderr


def test_processes_read_a_prepared_set(folder, tmp_path):
    tfds_writer.write_folder_set(str(folder), "insects", data_dir=str(tmp_path))
    options = {"batch_size": 4, "image_size": 24}
    files = list(eval_batches(open_source("folder", split="val", root=str(folder)), **options))
    source = open_source("insects", split="val", root=str(tmp_path))
    for ours, theirs in zip(eval_batches(source, **options, workers=1, worker_type="process"), files, strict=True):
        np.testing.assert_array_equal(ours["image"], theirs["image"])


def test_several_shards_are_read_in_order(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_writer, "_SHARD_BYTES", 4000)
    path = pathlib.Path(tfds_writer.write_folder_set(str(folder), "insects", data_dir=str(tmp_path)))
    assert len(list(path.glob("*train.array_record*"))) > 1
    ours, files = (open_source(n, split="train", root=str(r)) for n, r in (("insects", tmp_path), ("folder", folder)))
    for index in range(len(files)):
        np.testing.assert_array_equal(ours[index]["image"], files[index]["image"])


def test_an_interrupted_write_leaves_nothing(folder, tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(tfds_writer.tfds.folder_dataset, "write_metadata", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tfds_writer.write_folder_set(str(folder), "insects", data_dir=str(tmp_path / "data"))
    assert list((tmp_path / "data").iterdir()) == []


def test_truncated_image_is_not_prepared(folder, tmp_path):
    truncate(folder / "val" / "bee" / "00.jpg")
    with pytest.raises(UserError, match=r"bee/00\.jpg"):
        tfds_writer.write_folder_set(str(folder), "insects", data_dir=str(tmp_path / "data"))
    assert not (tmp_path / "data").exists()


def test_existing_set_is_not_overwritten(folder, tmp_path):
    tfds_writer.write_folder_set(str(folder), "insects", data_dir=str(tmp_path))
    with pytest.raises(UserError, match="'insects' exists already"):
        tfds_writer.write_folder_set(str(folder), "insects", data_dir=str(tmp_path))


@pytest.mark.parametrize("name", ["digits", "folder", "My-Set", "", "a b", "../x"])
def test_an_invalid_name_is_quoted(folder, tmp_path, name):
    with pytest.raises(UserError, match="must be lower-case letters"):
        tfds_writer.write_folder_set(str(folder), name, data_dir=str(tmp_path))


def test_catalogue_set_without_tensorflow_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert prepare.main(["--name", "imagenette", "--data_dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "pip install 'bottlefit-jax[prepare]'" in error
    assert error.count("\n") == 1


def test_other_formats_and_other_features_are_errors(folder, tmp_path):
    path = pathlib.Path(tfds_writer.write_folder_set(str(folder), "insects", data_dir=str(tmp_path)))
    info, features = path / "dataset_info.json", path / "features.json"
    kept = info.read_text()
    info.write_text(kept.replace('"array_record"', '"tfrecord"'))
    with pytest.raises(
        UserError, match=r"is stored as tfrecord, not ArrayRecord; run python -m bottlefit_jax\.prepare"
    ):
        open_source("insects", split="train", root=str(tmp_path))
    info.write_text(kept)
    features.write_text(features.read_text().replace('"label"', '"target"'))
    (path / "label.labels.txt").rename(path / "target.labels.txt")
    with pytest.raises(UserError, match="features image, target; it needs"):
        open_source("insects", split="train", root=str(tmp_path))
