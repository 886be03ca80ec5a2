"""A bundle as a folder: the only code that reads or writes manifest.json, and that checks a bundle's files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from bottlefit_jax.bundle.manifest import MANIFEST, File, Manifest
from bottlefit_jax.bundle.validation import raise_problems, rates_problems, validate
from bottlefit_jax.errors import UserError
from bottlefit_jax.files import sha256_of, write_text

if TYPE_CHECKING:
    from bottlefit_jax.codec.rates import Rates

MAX_BYTES = 1 << 26  # of manifest.json: enough for a million labels, and small enough for a device's memory
MAX_TABLES_BYTES = 1 << 22  # of the tables' file, which has about 64 kB


@dataclass(frozen=True)
class Bundle:
    """A bundle that `read_bundle` has checked."""

    folder: Path
    manifest: Manifest

    def path(self, name: str) -> Path:
        """Return where the file `name` of the manifest is, as `bundle.path(bundle.manifest.tail.onnx)`.

        Raises:
            UserError: the bundle has no such file.
        """
        if name not in self.manifest.files:
            raise UserError(f"{self.folder} has no file {name!r}, only {', '.join(sorted(self.manifest.files))}")
        return self.folder / name

    def read_rates(self) -> Rates | None:
        """Read the code tables of the bundle's rates; None if it has no rates.

        Raises:
            UserError: the file is missing, changed, invalid, or belongs to another bundle.
        """
        from bottlefit_jax.codec.rates import parse_rates  # NumPy, which nothing else of a bundle needs

        if self.manifest.tables is None:
            return None
        path, wanted = self.path(self.manifest.tables), self.manifest.files[self.manifest.tables]
        try:
            if path.stat().st_size > MAX_TABLES_BYTES:
                raise UserError(f"{path} has {path.stat().st_size:,} bytes; tables have at most {MAX_TABLES_BYTES:,}")
            data = path.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        if (sha256 := hashlib.sha256(data).hexdigest()) != wanted.sha256:
            raise UserError(f"{path} {_changed(sha256, wanted)}")
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not a valid file of rates: {error}") from error
        rates = parse_rates(text, str(path))
        raise_problems(rates_problems(rates, self.manifest), f"{path} does not fit its bundle")
        return rates


def read_bundle(folder: Path | str, *, verify: bool | Callable[[Manifest], Collection[str]] = True) -> Bundle:
    """Read and check a bundle.

    Args:
        folder: that of manifest.json.
        verify: True compares size and sha256 of every file; False only checks that every file exists. A function that
            picks files by name, as `lambda manifest: manifest.device_files()`, compares those alone; the others may be
            missing, since a device does not need the tail.

    Raises:
        UserError: there is no bundle, the manifest is invalid or of a newer format, a file is missing, changed or
            outside of the folder, or the tail belongs to another head.
    """
    folder = Path(folder)
    manifest = validate(_parse(folder), folder / MANIFEST)
    if isinstance(verify, bool):
        problems = _file_problems(folder, manifest.files, verify)
    else:
        problems = _file_problems(folder, {name: manifest.files[name] for name in verify(manifest)}, True)
    raise_problems(problems, f"{folder} is not a valid bundle")
    return Bundle(folder, manifest)


def write_manifest(folder: Path | str, manifest: Manifest) -> Bundle:
    """Write manifest.json for the files in a folder.

    Args:
        folder: with all files of the bundle.
        manifest: its `files` are computed from the folder.

    Returns:
        The bundle, whose manifest has the files.

    Raises:
        UserError: the manifest is invalid or cannot be written; an earlier manifest.json stays as it was.
    """
    folder = Path(folder)
    try:
        paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
        files = {path.relative_to(folder).as_posix(): _describe(path) for path in paths}
    except OSError as error:
        raise UserError(f"cannot read {error.filename or folder}: {error.strerror}") from error
    values = dataclasses.replace(manifest, files=files).to_json()
    checked = validate(values, folder / MANIFEST)
    raise_problems(_file_problems(folder, checked.files, verify=False), f"{folder} is not a valid bundle")
    write_text(folder / MANIFEST, json.dumps(values, indent=2, allow_nan=False) + "\n")
    return Bundle(folder, checked)


def _parse(folder: Path) -> Any:
    """Return manifest.json as JSON values."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise UserError(f"no folder {folder}: a bundle is the folder that python -m export.bundle writes")
    if not path.is_file():
        raise UserError(f"{folder} is not a bundle: it has no {MANIFEST}")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path} has {path.stat().st_size:,} bytes; a manifest has at most {MAX_BYTES:,}")
        text = path.read_text(encoding="utf-8")
        return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except RecursionError as error:
        raise UserError(f"{path} is not a manifest: it is nested too deeply") from error
    except ValueError as error:  # from json or from decoding the text
        raise error if isinstance(error, UserError) else UserError(f"{path} is not a manifest: {error}") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dictionary; of two equal keys two readers might take different ones."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is repeated")
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _file_problems(folder: Path, files: dict[str, File], verify: bool) -> Iterator[str]:
    """Yield what is wrong with the files themselves."""
    inside = folder.resolve()
    for name, wanted in sorted(files.items()):
        path = folder / name
        try:
            if not path.resolve().is_relative_to(inside):  # by a link; the schema refuses '..'
                yield f"{name} leads out of the folder, to {path.resolve()}"
            elif not path.is_file():
                yield f"{name} is missing"
            elif verify and path.stat().st_size != wanted.bytes:
                yield f"{name} has {path.stat().st_size:,} bytes instead of {wanted.bytes:,}"
            elif verify and (sha256 := _describe(path).sha256) != wanted.sha256:
                yield f"{name} {_changed(sha256, wanted)}"
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            yield f"{name} cannot be read: {getattr(error, 'strerror', None) or error}"


def _changed(sha256: str, wanted: File) -> str:
    return f"was changed or damaged: its sha256 is {sha256[:12]}… instead of {wanted.sha256[:12]}…"


def _describe(path: Path) -> File:
    """Compute a file's entry in `Manifest.files`."""
    return File(*sha256_of(path))
