"""Writes the tail into a model repository of NVIDIA Triton, which KServe serves as well.

FOLDER/NAME/config.pbtxt            input latent, outputs logits and identity, all versions, dynamic batching, a bounded
                                    queue; parameters head, tail (of the newest version) and format
FOLDER/NAME/labels.txt              if the labels are known: Triton's classification extension shows them
FOLDER/NAME/VERSION/model.onnx      the bundle's tail.onnx, with the output identity

All versions of a model belong to one head: devices do not name a version, and Triton answers with the newest.
"""

import re
from pathlib import Path

from bottlefit_jax.bundle import Bundle
from bottlefit_jax.errors import UserError, write_error
from bottlefit_jax.files import atomic_directory, write_text
from bottlefit_jax.protocol.names import FORMAT, HEAD, ID_DIGITS, IDENTITY, INPUT, OUTPUT, TAIL

CONFIG = "config.pbtxt"
LABELS = "labels.txt"
# Triton uses a request's own timeout only if it is shorter than this, so this must be longer than devices' deadlines
QUEUE_TIMEOUT_US = 10_000_000
QUEUE_BATCHES = 8  # batches that may wait; further requests are refused at once
# In a config.pbtxt; its groups are the text before an id, and the id
ID = r'(key: "{key}"\s+value\s*\{{\s*string_value: ")([0-9a-f]*)'


def write_repository(
    bundle: Bundle, folder: Path, *, max_batch_size: int = 32, delay_us: int = 0, overwrite: bool = False
) -> None:
    """Add the bundle's tail to a model repository, whole or not at all.

    If the repository has a model of that name and head, the model gets one more version, and only the tail's id changes
    in its config.pbtxt.

    Args:
        bundle: its name and version become those of the model.
        folder: the repository, created if it is missing; its other models are not changed.
        max_batch_size: images that Triton runs at once.
        delay_us: microseconds that a request may wait for others although an instance is idle.
        overwrite: replace that version if it exists, and the whole model if it has another head.

    Raises:
        UserError: a model of that name has that version or another head, a number is out of range, the disk is full, or
            the folder cannot be written.
    """
    if max_batch_size < 1:
        raise UserError(f"max_batch_size is {max_batch_size}; it must be at least 1")
    if delay_us < 0:
        raise UserError(f"delay_us is {delay_us}; it must be at least 0")
    manifest = bundle.manifest
    check_free(folder, manifest.name, manifest.version, overwrite=overwrite)
    check_fits(bundle, folder, overwrite=overwrite)
    place = folder / manifest.name
    try:
        if (place / CONFIG).exists() and _mismatch(bundle, place) is None:
            _add_version(bundle, place)
            return
        with atomic_directory(place) as model:
            (model / CONFIG).write_text(config(bundle, max_batch_size=max_batch_size, delay_us=delay_us))
            if manifest.labels:
                (model / LABELS).write_text(_labels(bundle), encoding="utf-8")
            version = model / str(manifest.version)
            version.mkdir()
            _write_model(bundle, version)
    except OSError as error:
        raise write_error(place, error) from error


def check_free(folder: Path, name: str, version: int, *, overwrite: bool) -> None:
    """Raise UserError if that version of the model `name` cannot be added to the repository `folder`."""
    place = folder / name
    above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not above.is_dir():
        raise UserError(f"cannot write {place}: {above} is not a folder")
    if not place.exists() and not place.is_symlink():
        return
    if place.is_symlink() or not place.is_dir() or (any(place.iterdir()) and not (place / CONFIG).exists()):
        raise UserError(f"{place} is not a model of a Triton repository, so it is not replaced: give another folder")
    if (place / str(version)).exists() and not overwrite:
        raise UserError(
            f"{place} has version {version}: another --version adds one with the same head, --overwrite replaces it"
        )


def check_fits(bundle: Bundle, folder: Path, *, overwrite: bool) -> None:
    """Raise UserError if the tail does not fit the versions that the model has, and may not replace them."""
    place = folder / bundle.manifest.name
    if overwrite or not (place / CONFIG).exists():
        return
    if problem := _mismatch(bundle, place):
        raise UserError(f"{place} {problem}: give another --name, or --overwrite to replace the model")


def _mismatch(bundle: Bundle, place: Path) -> str | None:
    """Return why the bundle's tail cannot be one more version of the model in `place`; None if it can."""
    manifest = bundle.manifest
    try:
        text = (place / CONFIG).read_text(encoding="utf-8")
        labels = (place / LABELS).read_text(encoding="utf-8") if (place / LABELS).exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {place}: {error}") from error
    head = re.search(ID.format(key=HEAD), text)
    if head is None:
        return "does not name the head of its tails"
    if head[2] != manifest.head.id:
        return f"has the tail of head {head[2][:12]}…, and this bundle that of head {manifest.head.id[:12]}…"
    if _tensors(bundle) not in text or "version_policy" not in text:
        return "has other inputs and outputs, or was written by an older version"
    if labels != _labels(bundle):
        return "has other labels"
    return None


def _add_version(bundle: Bundle, place: Path) -> None:
    """Add or replace one version; the config has the tail's id of the newest."""
    manifest = bundle.manifest
    others = [int(path.name) for path in place.iterdir() if path.name.isdecimal()]
    with atomic_directory(place / str(manifest.version)) as version:
        _write_model(bundle, version)
    if manifest.version >= max(others, default=0):
        before = (place / CONFIG).read_text(encoding="utf-8")
        text = re.sub(ID.format(key=TAIL), rf"\g<1>{manifest.tail.id}", before)
        write_text(place / CONFIG, text)


def _write_model(bundle: Bundle, version: Path) -> None:
    from export.tail_identity import with_identity  # importing onnx is slow, and check_free does not need it

    tail = bundle.path(bundle.manifest.tail.onnx).read_bytes()
    (version / "model.onnx").write_bytes(with_identity(tail, bundle.manifest).SerializeToString())


def _labels(bundle: Bundle) -> str:
    return "".join(f"{label}\n" for label in bundle.manifest.labels)


def _tensors(bundle: Bundle) -> str:
    """Return the tensors' part of config.pbtxt. The batch is implicit: dims begin after it."""
    manifest = bundle.manifest
    dims = ", ".join(map(str, manifest.latent.shape))
    labels = f'\n    label_filename: "{LABELS}"' if manifest.labels else ""
    return f"""\
input [
  {{
    name: "{INPUT}"
    data_type: TYPE_UINT8
    dims: [ {dims} ]
  }}
]
output [
  {{
    name: "{OUTPUT}"
    data_type: TYPE_FP32
    dims: [ {manifest.model.num_classes} ]{labels}
  }},
  {{
    name: "{IDENTITY}"
    data_type: TYPE_UINT8
    dims: [ {ID_DIGITS} ]
  }}
]
"""


def config(bundle: Bundle, *, max_batch_size: int, delay_us: int) -> str:
    """Return config.pbtxt, a ModelConfig message as text."""
    manifest = bundle.manifest
    preferred = sorted({max(1, max_batch_size // part) for part in (4, 2, 1)})
    parameters = {HEAD: manifest.head.id, TAIL: manifest.tail.id, FORMAT: manifest.format}
    entries = [
        f'parameters {{\n  key: "{key}"\n  value {{ string_value: "{value}" }}\n}}' for key, value in parameters.items()
    ]
    return f"""\
name: "{manifest.name}"
platform: "onnxruntime_onnx"
backend: "onnxruntime"
max_batch_size: {max_batch_size}
version_policy {{ all {{ }} }}
{_tensors(bundle)}\
dynamic_batching {{
  preferred_batch_size: [ {", ".join(map(str, preferred))} ]
  max_queue_delay_microseconds: {delay_us}
  default_queue_policy {{
    timeout_action: REJECT
    default_timeout_microseconds: {QUEUE_TIMEOUT_US}
    allow_timeout_override: true
    max_queue_size: {QUEUE_BATCHES * max_batch_size}
  }}
}}
{chr(10).join(entries)}
"""
