"""Reads datasets in TFDS's layout from ArrayRecord, without TensorFlow. `bottlefit_jax.prepare` writes them."""

from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder
from tensorflow_datasets.proto import tf_example_pb2

from bottlefit_jax.data.source import Source
from bottlefit_jax.errors import UserError

_EXAMPLE = getattr(tf_example_pb2, "Example")  # noqa: B009  # made at run time, which pyright cannot see
# Our splits -> TFDS's names for them, the preferred one first.
_SPLITS = {"train": ("train",), "val": ("validation", "val", "test")}


class Catalogue(Source):
    """One split of a prepared TFDS classification set, whose features are `image` and `label`."""

    def __init__(self, name: str, *, split: str, data_dir: str = "", on_bad_image: str = "error"):
        """Open the set.

        Args:
            name: as TFDS calls it, such as 'imagenette/160px-v2'.
            split: 'train' or 'val'.
            data_dir: the folder that holds the set; '' is TFDS's default.
            on_bad_image: as in `Source`.

        Raises:
            UserError: the set is not in `data_dir`, is not stored as ArrayRecord, has no such split, or has no image
                and class label.
        """
        info = _open_builder(name, data_dir).info
        features = info.features
        if not _is_classification(features):
            names = ", ".join(sorted(features or ()))
            raise UserError(f"set {name!r} has the features {names}; it needs 'image' and a class 'label'")
        stored = next((choice for choice in _SPLITS[split] if choice in info.splits), None)
        if stored is None:
            raise UserError(f"set {name!r} has the splits {', '.join(info.splits)}; none of them can be {split!r}")
        super().__init__(name, split=split, class_names=features["label"].names, on_bad_image=on_bad_image)
        self._data_dir = data_dir
        self._stored_split = stored
        self._records = self._open()

    def _open(self) -> Any:
        builder = _open_builder(self.name, self._data_dir)
        method = tfds.decode.DeserializeMethod.RAW_BYTES  # other methods import TensorFlow or decode the image
        return builder.as_data_source(self._stored_split, deserialize_method=method)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_records"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for key, value in state.items():
            setattr(self, key, value)
        self._records = self._open()

    def __len__(self) -> int:
        return len(self._records)

    def read(self, index: int) -> tuple[bytes, int]:
        """Return the bytes of the stored file, as the set's author encoded it, and the label."""
        feature = _EXAMPLE.FromString(self._records[index]).features.feature
        return feature["image"].bytes_list.value[0], feature["label"].int64_list.value[0]

    def image_name(self, index: int) -> str:
        """Return, for instance, 'imagenette/train[7]'."""
        return f"{self.name}/{self._stored_split}[{index}]"


def prepare_command(name: str, data_dir: str) -> str:
    """Return the command that writes a set."""
    return f"python -m bottlefit_jax.prepare --name {name} --data_dir {data_dir or '~/tensorflow_datasets'}"


def _open_builder(name: str, data_dir: str) -> Any:
    try:
        # `tfds.builder` would import the set's own code, which often needs TensorFlow; the files have all we need
        builder = read_only_builder.builder_from_files(name, data_dir=data_dir or None)
    except tfds.core.DatasetNotFoundError:
        where = repr(data_dir) if data_dir else "TFDS's default data_dir"
        hint = f"run {prepare_command(name, data_dir)}"
        raise UserError(f"set {name!r} is not prepared in {where}; {hint} ('digits' and 'folder' need none)") from None
    formats = {file_format.value for file_format in builder.info.available_file_formats()}
    if "array_record" not in formats:
        stored = ", ".join(sorted(formats))
        command = prepare_command(name, "ANOTHER_DIR")
        raise UserError(f"set {name!r} in {data_dir!r} is stored as {stored}, not ArrayRecord; run {command}")
    return builder


def _is_classification(features: Any) -> bool:
    if features is None or not {"image", "label"} <= set(features):
        return False
    image, label = features["image"], features["label"]
    return isinstance(image, tfds.features.Image) and isinstance(label, tfds.features.ClassLabel)
