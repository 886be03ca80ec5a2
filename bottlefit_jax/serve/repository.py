"""Which bundles are served: by name and version, loaded and unloaded while requests run."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bottlefit_jax.bundle import Bundle, Manifest, read_bundle
from bottlefit_jax.errors import UserError
from bottlefit_jax.serve.batching import Batcher

MANIFEST = "manifest.json"
SLACK = 1 << 16  # bytes of a request beside its latents: names, shape, parameters, id


class NoSuchModel(LookupError):
    """No bundle of that name and version; says so in one sentence."""


@dataclass(frozen=True)
class Model:
    """A bundle and its running tail."""

    bundle: Bundle
    batcher: Batcher

    @property
    def manifest(self) -> Manifest:
        """That of the bundle."""
        return self.bundle.manifest


@dataclass(frozen=True)
class Known:
    """A line of the index; `reason` says what is wrong with a bundle that cannot be read."""

    name: str
    version: int | None
    ready: bool
    reason: str = ""


class Repository:
    """Thread-safe: readers see the models before a load or unload, or after it, and never half of it.

    Args:
      folders: bundles.
      parents: folders of bundles, FOLDER/BUNDLE or FOLDER/NAME/VERSION; they are looked through at each load.
      start: makes the Batcher of a bundle that was verified; may raise UserError.
      max_batch: pictures in one request at most.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        parents: Sequence[Path],
        *,
        start: Callable[[Bundle], Batcher],
        max_batch: int,
    ):
        self._folders, self._parents, self._start, self._max_batch = folders, parents, start, max_batch
        self._models: dict[str, dict[int, Model]] = {}
        self._changing = threading.Lock()
        self.message_limit = SLACK

    def load_all(self) -> None:
        """Loads all bundles, and sets `message_limit` by them.

        Raises:
          UserError: there is none, one cannot be used, or two have the same name and version.
        """
        found, broken = self._find()
        if broken:
            raise next(iter(broken.values()))
        if not found:
            raise UserError(f"no bundle in {', '.join(map(str, self._parents))}")
        self.message_limit = max(_message_bytes(bundle.manifest, self._max_batch) for bundle in found)
        for name in sorted({bundle.manifest.name for bundle in found}):
            self.load(name)

    def get(self, name: str, version: int | None = None) -> Model:
        """The model, the newest of its versions where none is asked for.

        Raises:
          NoSuchModel: it is not loaded.
        """
        versions = self._models.get(name)
        if not versions:
            raise NoSuchModel(f"no model {_quote(name)} is loaded; loaded: {', '.join(self._models) or 'none'}")
        if version is not None and version not in versions:
            there = ", ".join(map(str, sorted(versions)))
            raise NoSuchModel(f"no version {version} of model {_quote(name)} is loaded; loaded: {there}")
        return versions[max(versions) if version is None else version]

    def models(self) -> Iterator[Model]:
        """All that is loaded."""
        yield from (versions[version] for _, versions in sorted(self._models.items()) for version in sorted(versions))

    def index(self) -> list[Known]:
        """All that is loaded or could be, and what is broken."""
        found, broken = self._find()
        loaded = {(model.manifest.name, model.manifest.version) for model in self.models()}
        there = {(bundle.manifest.name, bundle.manifest.version) for bundle in found}
        lines = [Known(*key, ready=key in loaded) for key in sorted(loaded | there)]
        return lines + [Known(folder.name, None, False, str(error)) for folder, error in broken.items()]

    def load(self, name: str) -> None:
        """Loads all versions of `name` that are on the disk, verified; one that is loaded and unchanged goes on.

        All or nothing: after an error the models are as they were.

        Raises:
          NoSuchModel: no bundle has the name.
          UserError: one of its bundles cannot be used.
        """
        with self._changing:
            before = self._models.get(name, {})
            found, broken = self._find()
            for model in before.values():
                if model.bundle.folder in broken:
                    raise broken[model.bundle.folder]
            bundles = [bundle for bundle in found if bundle.manifest.name == name]
            if not bundles:
                unreadable = f"; {next(iter(broken.values()))}" if broken else ""
                raise NoSuchModel(f"no bundle has the name {_quote(name)}{unreadable}")
            after: dict[int, Model] = {}
            try:
                for bundle in bundles:
                    version = bundle.manifest.version
                    if version in after:
                        both = f"{after[version].bundle.folder} and {bundle.folder}"
                        raise UserError(f"{both} are both version {version} of {name!r}")
                    after[version] = self._opened(bundle.folder, before.get(version))
            except UserError:
                _close(after, except_for=before)
                raise
            self._models = {**self._models, name: after}
            _close(before, except_for=after)

    def unload(self, name: str) -> None:
        """Takes all versions of `name` away, and returns when what they had taken is done.

        Raises:
          NoSuchModel: it is not loaded.
        """
        with self._changing:
            versions = self._models.get(name)
            if versions is None:
                self.get(name)
            self._models = {other: models for other, models in self._models.items() if other != name}
            _close(versions or {}, except_for={})

    def close(self) -> None:
        """Unloads everything."""
        for name in list(self._models):
            self.unload(name)

    def _opened(self, folder: Path, before: Model | None) -> Model:
        bundle = read_bundle(folder)
        if before is not None and before.manifest == bundle.manifest:
            return before
        needed = _message_bytes(bundle.manifest, self._max_batch)
        if needed > self.message_limit:
            raise UserError(
                f"{folder} needs messages of {needed:,} bytes; this server was started for {self.message_limit:,} "
                "at most: start it with this bundle"
            )
        return Model(bundle, self._start(bundle))

    def _find(self) -> tuple[list[Bundle], dict[Path, UserError]]:
        """The bundles on the disk, unverified, and the folders whose manifest cannot be used."""
        found, broken = [], {}
        folders = [*self._folders]
        for parent in self._parents:
            manifests = [*parent.glob(f"*/{MANIFEST}"), *parent.glob(f"*/*/{MANIFEST}")]
            folders += sorted(path.parent for path in manifests)
        for folder in dict.fromkeys(folder.resolve() for folder in folders):
            try:
                found.append(read_bundle(folder, verify=False))
            except UserError as error:
                broken[folder] = error
        return found, broken


def _message_bytes(manifest: Manifest, max_batch: int) -> int:
    """The largest ModelInfer request. As typed contents a uint8 above 127 takes two bytes, raw it takes one."""
    height, width, channels = manifest.latent.shape
    return 2 * max_batch * height * width * channels + SLACK


def _close(models: dict[int, Model], *, except_for: dict[int, Model]) -> None:
    kept = list(except_for.values())
    for model in models.values():
        if model not in kept:
            model.batcher.close()


def _quote(name: str) -> str:
    return repr(name) if len(name) <= 60 else f"{name[:57]!r}..."
