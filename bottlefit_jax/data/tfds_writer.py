"""Writes a dataset as ArrayRecord in TFDS's layout, whole or not at all. The command is `bottlefit_jax.prepare`."""

import importlib.util
import itertools
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath

from bottlefit_jax import lock
from bottlefit_jax.data.check import check_images
from bottlefit_jax.data.folder import Folder
from bottlefit_jax.errors import UserError
from bottlefit_jax.files import atomic_directory
from bottlefit_jax.paths import local_path

VERSION = "1.0.0"
_STORED_SPLITS = {"train": "train", "val": "validation"}
_SHARD_BYTES = 256 * 2**20
_CATALOGUE_NEEDS = ("tensorflow", "importlib_resources")  # TFDS imports the latter but does not depend on it
_RESERVED = ("digits", "folder")


def write_catalogue_set(name: str, *, data_dir: str) -> str:
    """Download a set of TFDS's catalogue and write it as ArrayRecord.

    Args:
        name: as TFDS calls it, such as 'imagenette/160px-v2'.
        data_dir: the folder that gets the set.

    Returns:
        The folder of the set.

    Raises:
        UserError: TensorFlow is missing, the catalogue has no such set, or data_dir holds it in another format.
    """
    data_dir = str(local_path(data_dir))
    missing = [module for module in _CATALOGUE_NEEDS if importlib.util.find_spec(module) is None]
    if missing:
        raise UserError(
            f"preparing {name!r} of TFDS's catalogue needs {' and '.join(missing)}: "
            "pip install 'bottlefit-jax[prepare]'"
        )
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        reason = str(error).splitlines()[0]
        if "File format is already set" in reason:
            reason = f"{data_dir!r} holds it in another format; give another data_dir"
        raise UserError(f"TFDS cannot open {name!r}: {reason}") from None
    with lock.hold(lock.beside(Path(data_dir) / name), f"{name!r} in {data_dir}"):
        builder.download_and_prepare(file_format="array_record")
    return str(builder.data_dir)


def write_folder_set(folder: str, name: str, *, data_dir: str) -> str:
    """Write the images of a folder as a TFDS set; needs no TensorFlow.

    Args:
        folder: holds train/CLASS/*.jpg and val/CLASS/*.jpg.
        name: of the new set: lower-case letters, digits and '_'.
        data_dir: the set becomes data_dir/name/1.0.0.

    Returns:
        The path of the set.

    Raises:
        UserError: the folder has no such layout, an image cannot be decoded, the name is invalid or taken, or the set
            cannot be written.
    """
    folder = str(local_path(folder))
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or name in _RESERVED:
        raise UserError(f"name {name!r} must be lower-case letters, digits and '_', and none of {', '.join(_RESERVED)}")
    target = local_path(data_dir) / name
    if target.exists():
        raise UserError(f"set {name!r} exists already; remove {str(target)!r} or give another name")
    sources = [Folder(folder, split=split) for split in _STORED_SPLITS]
    for source in sources:
        check_images(source, at_most=len(source), decode_bytes=sys.maxsize)
        if left_out := source.left_out():
            print(f"left out of {source.split}: {left_out}", file=sys.stderr)
    with atomic_directory(target, overwrite=False) as temporary:
        _write(sources, name, temporary / VERSION)
    return str(target / VERSION)


def _write(sources: Sequence[Folder], name: str, folder: Path) -> None:
    """Write the shards into a new folder, then the description that makes them a TFDS set."""
    folder.mkdir()
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=list(sources[0].class_names)),
        }
    )
    template = tfds.core.ShardedFileTemplate(
        data_dir=epath.Path(folder), dataset_name=name, filetype_suffix="array_record"
    )
    splits = []
    for source in sources:
        split = _STORED_SPLITS[source.split]
        lengths, size = _write_split(source, features, template.replace(split=split))
        splits.append(tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size))
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=splits,
        filename_template=template,
        version=VERSION,
        supervised_keys=("image", "label"),
        check_data=False,  # it would read through TensorFlow
    )


def _write_split(source: Folder, features: tfds.features.FeaturesDict, template) -> tuple[list[int], int]:
    """Write a split in the source's order.

    Returns:
        The number of records of each shard, and the bytes of all records.
    """
    total = sum(os.path.getsize(source.path(index)) for index in range(len(source)))
    shards = min(len(source), math.ceil(total / _SHARD_BYTES))
    bounds = [round(len(source) * shard / shards) for shard in range(shards + 1)]
    size = 0
    for shard, (start, stop) in enumerate(itertools.pairwise(bounds)):
        path = template.sharded_filepath(shard_index=shard, num_shards=shards)
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for index in range(start, stop):
            data, label = source.read(index)
            record = features.serialize_example({"image": data, "label": label})
            writer.write(record)
            size += len(record)
        writer.close()
    return [stop - start for start, stop in itertools.pairwise(bounds)], size
