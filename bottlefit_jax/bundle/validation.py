"""The checks that a valid manifest passes, and those of the tables' file against it.

A reader also refuses a manifest in which

- `tail.head` is not `head.id`;
- `labels` is neither empty nor as long as `model.num_classes`;
- `image.resize` is less than `image.height` or `image.width`;
- `latent.zero_point` is not a value of `latent.bits` bits;
- two of `heads` have the same `runtime`, or an `input.shape` or `output.shape` is not that of `image` and `latent`;
- two of `rates` have the same `id`, one is called `raw`, one has another number of `steps` than the latent has
  channels, or not all have the same `tables`;
- `default_rate` is neither `raw` nor the id of a rate;
- `files` lacks a file that another field names, or has `manifest.json` itself.

The file `tables` must have the same head, shape, zero point, rates and steps as the manifest.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottlefit_jax import __version__
from bottlefit_jax.bundle import older_formats, schema
from bottlefit_jax.bundle.manifest import FORMAT, MANIFEST, RAW, Manifest
from bottlefit_jax.errors import UserError

if TYPE_CHECKING:
    from bottlefit_jax.codec.rates import Rates

MAX_PROBLEMS = 20  # in one message


@functools.cache
def manifest_schema(of_format: int = FORMAT) -> dict[str, Any]:
    """Return manifest.schema.json, for manifests of the given format."""
    rules = json.loads(Path(__file__).with_name("manifest.schema.json").read_text(encoding="utf-8"))
    if of_format < FORMAT:
        rules = older_formats.schema_of(of_format, rules)
    schema.check(rules)
    return rules


def validate(values: Any, path: Path) -> Manifest:
    """Check JSON values and return the manifest that they are.

    Args:
        values: as `json.loads` returns them, of any format.
        path: of manifest.json, for the error.

    Raises:
        UserError: a newer format, values that the schema rejects, or values that contradict each other.
    """
    written = values.get("format") if isinstance(values, dict) else None
    if isinstance(written, int) and written > FORMAT:
        raise UserError(f"{path} has format {written}; {_who_reads(values)}")
    older = next((each for each in older_formats.FORMATS if each == written and written is not True), None)
    rules = manifest_schema() if older is None else manifest_schema(older)
    raise_problems(schema.problems(values, rules), f"{path} is not valid")
    manifest = Manifest.from_json(values if older is None else older_formats.upgrade(values))
    raise_problems(_contradictions(manifest), f"{path} is not valid")
    return manifest


def rates_problems(rates: Rates, manifest: Manifest) -> Iterator[str]:
    """Yield why the content of a tables' file does not belong to a manifest."""
    if rates.head != manifest.head.id:
        yield f"its tables are those of head {rates.head[:12]}…, not of {manifest.head.id[:12]}…"
    if rates.shape != manifest.latent.shape:
        yield f"its tables are for latents {list(rates.shape)}, not {list(manifest.latent.shape)}"
    if (zero_point := rates.rates[0].zero_point) != manifest.latent.zero_point:
        yield f"its tables are for zero point {zero_point}, not {manifest.latent.zero_point}"
    ids, named = ([each.id for each in entries] for entries in (rates.rates, manifest.rates))
    if ids != named:
        yield f"it has the rates {', '.join(ids)}; {MANIFEST} has {', '.join(named)}"
        return
    for rate, entry in zip(rates.rates, manifest.rates, strict=True):
        if rate.steps != entry.steps:
            yield f"rate {rate.id} has the steps {list(rate.steps)}; {MANIFEST} has {list(entry.steps)}"


def raise_problems(problems: Iterable[str], beginning: str) -> None:
    """Raise a UserError of one line with all problems, if there are any."""
    lines = [" ".join(problem.split()) for problem in problems]
    if lines:
        rest = [f"and {len(lines) - MAX_PROBLEMS:,} more"] if len(lines) > MAX_PROBLEMS else []
        raise UserError(f"{beginning}: {'; '.join(lines[:MAX_PROBLEMS] + rest)}")


def _who_reads(values: dict[str, Any]) -> str:
    """Say which formats this version reads, and which version wrote the manifest."""
    versions = values.get("versions")
    writer = versions.get("bottlefit_jax") if isinstance(versions, dict) else None
    newer = f"bottlefit-jax {writer}, which wrote it, reads it" if isinstance(writer, str) else "a newer one is needed"
    return f"this is bottlefit-jax {__version__}, which reads formats 1 to {FORMAT}; {newer}"


def _contradictions(manifest: Manifest) -> Iterator[str]:
    """Yield what a schema cannot express."""
    image, latent, classes = manifest.image, manifest.latent, manifest.model.num_classes
    if manifest.tail.head != manifest.head.id:
        yield f"its tail belongs to head {manifest.tail.head[:12]}…, not to its head {manifest.head.id[:12]}…"
    if manifest.labels and len(manifest.labels) != classes:
        yield f"it has {len(manifest.labels):,} labels for {classes:,} classes"
    if image.resize < max(image.height, image.width):
        yield f"image.resize is {image.resize}, too small to cut {image.height} x {image.width} from it"
    if latent.zero_point >= 2**latent.bits:
        largest = 2**latent.bits - 1
        yield f"latent.zero_point is {latent.zero_point}; the largest value of {latent.bits} bits is {largest}"
    yield from _heads_contradictions(manifest)
    yield from _rates_contradictions(manifest)
    if MANIFEST in manifest.files:
        yield f"files has {MANIFEST} itself"
    yield from (f"files has no {name}" for name in sorted(set(manifest.named) - manifest.files.keys()))


def _heads_contradictions(manifest: Manifest) -> Iterator[str]:
    runtimes = [head.runtime for head in manifest.heads]
    yield from (f"it has {runtimes.count(name)} heads for {name}" for name in _repeated(runtimes))
    image, latent = (1, manifest.image.height, manifest.image.width, 3), (1, *manifest.latent.shape)
    for number, head in enumerate(manifest.heads):
        for name, shape, right in (("input", head.input.shape, image), ("output", head.output.shape, latent)):
            if shape != right:
                yield f"heads[{number}].{name}.shape is {list(shape)}; it must be {list(right)}"


def _rates_contradictions(manifest: Manifest) -> Iterator[str]:
    ids, channels = [rate.id for rate in manifest.rates], manifest.latent.shape[2]
    yield from (f"it has {ids.count(name)} rates {name}" for name in _repeated(ids))
    for number, rate in enumerate(manifest.rates):
        if rate.id == RAW:
            yield f"rates[{number}].id is {RAW!r}, which is the name of what is sent without a rate"
        if len(rate.steps) != channels:
            yield f"rates[{number}].steps has {len(rate.steps)} steps for {channels} channels"
        if rate.tables != manifest.tables:
            yield f"rates[{number}].tables is {rate.tables!r}; all rates share {manifest.tables!r}"
    if manifest.default_rate not in (RAW, *ids):
        yield f"default_rate is {manifest.default_rate!r}; it must be {' or '.join(map(repr, (RAW, *ids)))}"


def _repeated(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
