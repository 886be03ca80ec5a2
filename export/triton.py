"""Writes the tail into a model repository of NVIDIA Triton, which KServe serves as well.

FOLDER/NAME/config.pbtxt            input latent, outputs logits, probabilities and identity, all versions, dynamic
                                    batching; parameters head, tail (of the newest version) and format
FOLDER/NAME/labels.txt              if the labels are known: Triton's classification extension shows them
FOLDER/NAME/VERSION/model.onnx      the bundle's tail.onnx, with the outputs that it lacks

A bundle with rates adds two models, so that Triton takes payloads:

FOLDER/NAME-decode                  payload -> latent, of the Python backend: VERSION/model.py, which needs NumPy alone,
                                    and VERSION/rates.json
FOLDER/NAME-payload                 payload -> logits, probabilities and identity: an ensemble of the newest versions of
                                    the others; parameters payload (the version of payloads) and rates (their key)

All versions of a model belong to one head: devices do not name a version, and Triton answers with the newest.
"""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bottlefit_jax.bundle import Bundle
from bottlefit_jax.codec.rates import rates_text
from bottlefit_jax.errors import UserError, write_error
from bottlefit_jax.files import atomic_directory, write_text
from bottlefit_jax.protocol.names import HEAD, RATES, TAIL
from export.triton_config import LABELS, ModelConfig, decode_config, payload_config, tail_config
from export.triton_places import CONFIG, check_free, payload_models
from export.triton_source import decoder_source

TABLES = "rates.json"  # triton_decoder.py reads it
# In a config.pbtxt; its groups are the text before an id, and the id
ID = r'(key: "{key}"\s+value\s*\{{\s*string_value: ")([0-9a-f]*)'


@dataclass(frozen=True)
class _Model:
    """A model of the repository.

    Attributes:
        place: its folder.
        config: its config.pbtxt.
        labels: the content of LABELS, empty if it has none.
        write_version: writes the files of a version into an empty folder.
    """

    place: Path
    config: ModelConfig
    labels: str
    write_version: Callable[[Path], None]


def write_repository(
    bundle: Bundle, folder: Path, *, max_batch_size: int = 32, delay_us: int = 0, overwrite: bool = False
) -> None:
    """Add the bundle's tail to a model repository; each model whole or not at all.

    If the repository has a model of that name and head, the model gets one more version, and only the ids of the tail
    and of the rates change in its config.pbtxt.

    Args:
        bundle: its name and version become those of the models.
        folder: the repository, created if it is missing; its other models are not changed.
        max_batch_size: images that Triton runs at once.
        delay_us: microseconds that a request may wait for others although an instance is idle.
        overwrite: replace that version if it exists, and the whole models if they have another head.

    Raises:
        UserError: a model of that name has that version or another head, a number is out of range, the disk is full, or
            the folder cannot be written.
    """
    if max_batch_size < 1:
        raise UserError(f"max_batch_size is {max_batch_size}; it must be at least 1")
    if delay_us < 0:
        raise UserError(f"delay_us is {delay_us}; it must be at least 0")
    check_free(folder, bundle.manifest.name, bundle.manifest.version, overwrite=overwrite)
    check_fits(bundle, folder, overwrite=overwrite)
    models = _models(bundle, folder, max_batch_size=max_batch_size, delay_us=delay_us)
    replace = any(_mismatch(bundle, model) for model in models)
    try:
        for model in models:
            _write(bundle, model, whole=replace)
        if replace and len(models) == 1:
            _removepayload_models(folder, bundle.manifest.name)
    except OSError as error:
        raise write_error(folder / bundle.manifest.name, error) from error


def check_fits(bundle: Bundle, folder: Path, *, overwrite: bool) -> None:
    """Raise UserError if the tail does not fit the versions that the models have, and may not replace them."""
    if overwrite:
        return
    for model in _models(bundle, folder):
        if problem := _mismatch(bundle, model):
            raise UserError(f"{model.place} {problem}: give another --name, or --overwrite to replace the model")


def _models(bundle: Bundle, folder: Path, *, max_batch_size: int = 1, delay_us: int = 0) -> list[_Model]:
    """Return the bundle's models; the ensemble is last, since it needs the others."""
    name, rates = bundle.manifest.name, bundle.read_rates()
    labels = "".join(f"{label}\n" for label in bundle.manifest.labels)
    config = tail_config(bundle, max_batch_size=max_batch_size, delay_us=delay_us)
    tail = _Model(folder / name, config, labels, lambda version: _write_tail(bundle, version))
    if rates is None:
        return [tail]
    ensemble, decoder = payload_models(folder, name)

    def write_decoder(version: Path) -> None:
        (version / "model.py").write_text(decoder_source(), encoding="utf-8")
        (version / TABLES).write_text(rates_text(rates), encoding="utf-8")

    config = decode_config(bundle, rates, max_batch_size=max_batch_size, delay_us=delay_us)
    whole = payload_config(bundle, rates, max_batch_size=max_batch_size)
    return [
        _Model(decoder, config, "", write_decoder),
        tail,
        _Model(ensemble, whole, labels, lambda version: None),  # Triton wants the folder of a version, though empty
    ]


def _mismatch(bundle: Bundle, model: _Model) -> str | None:
    """Return why the bundle cannot be one more version of a model; None if it can, or if there is no such model yet."""
    place, head_id = model.place, bundle.manifest.head.id
    if not (place / CONFIG).exists():
        return None
    try:
        text = (place / CONFIG).read_text(encoding="utf-8")
        labels = (place / LABELS).read_text(encoding="utf-8") if (place / LABELS).exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {place}: {error}") from error
    head = re.search(ID.format(key=HEAD), text)
    if head is None:
        return "does not name the head of its tails"
    if head[2] != head_id:
        return f"has the tail of head {head[2][:12]}…, and this bundle that of head {head_id[:12]}…"
    if model.config.tensors not in text or ("version_policy" in model.config.before and "version_policy" not in text):
        return "has other inputs and outputs, or was written by an older version"
    if labels != model.labels:
        return "has other labels"
    return None


def _parameters(text: str) -> dict[str, str]:
    """Return the ids in a config.pbtxt."""
    matches = {key: re.search(ID.format(key=key), text) for key in (HEAD, TAIL, RATES)}
    return {key: match[2] for key, match in matches.items() if match is not None}


def _write(bundle: Bundle, model: _Model, *, whole: bool) -> None:
    """Add or replace a version of a model, or the whole model."""
    place, number = model.place, bundle.manifest.version
    if whole or not (place / CONFIG).exists():
        with atomic_directory(place) as folder:
            (folder / CONFIG).write_text(model.config.text, encoding="utf-8")
            if model.labels:
                (folder / LABELS).write_text(model.labels, encoding="utf-8")
            (folder / str(number)).mkdir()
            model.write_version(folder / str(number))
        return
    others = [int(path.name) for path in place.iterdir() if path.name.isdecimal()]
    with atomic_directory(place / str(number)) as version:
        model.write_version(version)
    if number >= max(others, default=0):  # the config has the ids of the newest
        text = (place / CONFIG).read_text(encoding="utf-8")
        for key, value in _parameters(model.config.text).items():
            text = re.sub(ID.format(key=key), rf"\g<1>{value}", text)
        write_text(place / CONFIG, text)


def _removepayload_models(folder: Path, name: str) -> None:
    """Remove the models that took payloads for a replaced tail, unless they are somebody else's."""
    for place in payload_models(folder, name):
        config = place / CONFIG
        if config.exists() and HEAD in _parameters(config.read_text(encoding="utf-8", errors="replace")):
            shutil.rmtree(place)


def _write_tail(bundle: Bundle, version: Path) -> None:
    from export.tail_identity import with_identity  # importing onnx is slow, and check_free does not need it

    tail = bundle.path(bundle.manifest.tail.onnx).read_bytes()
    (version / "model.onnx").write_bytes(with_identity(tail, bundle.manifest).SerializeToString())
