"""The tail as a model repository of NVIDIA Triton, which KServe serves as well.

FOLDER/NAME/config.pbtxt            input latent, output logits, dynamic batching; parameters head, tail and format
FOLDER/NAME/labels.txt              where the labels are known: Triton's classification extension shows them
FOLDER/NAME/VERSION/model.onnx      the bundle's tail.onnx
"""

import shutil
from pathlib import Path

from bottlefit_jax.bundle import Bundle
from bottlefit_jax.command import in_place_of
from bottlefit_jax.errors import UserError, is_disk_full

CONFIG = "config.pbtxt"


def write_repository(
    bundle: Bundle, folder: Path, *, max_batch_size: int = 32, delay_us: int = 2000, overwrite: bool = False
) -> None:
    """Adds the bundle's tail to the model repository `folder`: whole, or not at all.

    Args:
      folder: made where it is not there; other models in it are left alone.
      max_batch_size: pictures that Triton runs at once.
      delay_us: microseconds that a request may wait for others.
      overwrite: replace the model of the same name, all its versions.

    Raises:
      UserError: a model of that name exists, a number out of range, the disk is full, the folder cannot be written.
    """
    if max_batch_size < 1:
        raise UserError(f"max_batch_size is {max_batch_size}; it must be at least 1")
    if delay_us < 0:
        raise UserError(f"delay_us is {delay_us}; it must be at least 0")
    manifest = bundle.manifest
    check_free(folder, manifest.name, overwrite=overwrite)
    place = folder / manifest.name
    try:
        with in_place_of(place) as model:
            (model / CONFIG).write_text(config(bundle, max_batch_size=max_batch_size, delay_us=delay_us))
            if manifest.labels:
                (model / "labels.txt").write_text("".join(f"{label}\n" for label in manifest.labels), encoding="utf-8")
            version = model / str(manifest.version)
            version.mkdir()
            shutil.copyfile(bundle.path(manifest.tail.onnx), version / "model.onnx")
    except OSError as error:
        reason = "no space left on the disk" if is_disk_full(error) else error.strerror or str(error)
        raise UserError(f"cannot write {place}: {reason}") from error


def check_free(folder: Path, name: str, *, overwrite: bool) -> None:
    """Raises UserError where the model `name` cannot be put into the repository `folder`."""
    place = folder / name
    above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not above.is_dir():
        raise UserError(f"cannot write {place}: {above} is not a folder")
    if not place.exists() and not place.is_symlink():
        return
    if not overwrite:
        raise UserError(f"{place} exists: name another folder, or --overwrite to replace the model in it")
    if place.is_symlink() or not place.is_dir() or (any(place.iterdir()) and not (place / CONFIG).exists()):
        raise UserError(f"{place} is no model of a Triton repository, so --overwrite does not remove it")


def config(bundle: Bundle, *, max_batch_size: int, delay_us: int) -> str:
    """config.pbtxt, a ModelConfig message as text. The batch is implicit: dims begin after it."""
    manifest = bundle.manifest
    dims = ", ".join(map(str, manifest.latent.shape))
    labels = '\n    label_filename: "labels.txt"' if manifest.labels else ""
    preferred = sorted({max(1, max_batch_size // part) for part in (4, 2, 1)})
    parameters = {"head": manifest.head.id, "tail": manifest.tail.id, "format": manifest.format}
    entries = [
        f'parameters {{\n  key: "{key}"\n  value {{ string_value: "{value}" }}\n}}' for key, value in parameters.items()
    ]
    return f"""\
name: "{manifest.name}"
platform: "onnxruntime_onnx"
backend: "onnxruntime"
max_batch_size: {max_batch_size}
input [
  {{
    name: "latent"
    data_type: TYPE_UINT8
    dims: [ {dims} ]
  }}
]
output [
  {{
    name: "logits"
    data_type: TYPE_FP32
    dims: [ {manifest.model.num_classes} ]{labels}
  }}
]
dynamic_batching {{
  preferred_batch_size: [ {", ".join(map(str, preferred))} ]
  max_queue_delay_microseconds: {delay_us}
}}
{chr(10).join(entries)}
"""
