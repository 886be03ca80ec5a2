"""The bundles that are served, by name and version; they are loaded and unloaded while requests run."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bottlefit_jax.bundle import Bundle, Manifest, read_bundle
from bottlefit_jax.codec.rates import Rates
from bottlefit_jax.errors import UserError, quote
from bottlefit_jax.protocol.names import ID_DIGITS
from bottlefit_jax.protocol.response import ResponseMaker
from bottlefit_jax.serve.batching import Batcher
from bottlefit_jax.serve.discovery import BundlesOnDisk, find_bundles
from bottlefit_jax.serve.model_statistics import Statistics

MOST_SHOWN = 5  # problems that one line shows
SLACK = 1 << 16  # bytes of a request beside its latents: names, shape, parameters, id


class NoSuchModel(UserError):
    """There is no model of that name and version."""


class OtherHead(UserError):
    """The tails of that name and version belong to other heads."""


class HeadMissing(UserError):
    """The request names no head, and tails of several heads are loaded."""


@dataclass(frozen=True)
class Model:
    """A bundle, its running tail, and the rates of the payloads that it takes, if any."""

    bundle: Bundle
    batcher: Batcher
    responses: ResponseMaker
    rates: Rates | None
    statistics: Statistics = field(default_factory=Statistics)

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.bundle.manifest

    @property
    def head(self) -> str:
        """The digits of the head's id that requests have."""
        return self.manifest.head.id[:ID_DIGITS]


@dataclass(frozen=True)
class IndexEntry:
    """A bundle in the index.

    Attributes:
        name: of the model, or of the folder where the bundle is damaged.
        version: None where the bundle is damaged.
        ready: whether it is loaded.
        reason: why a bundle is not served; empty where nothing is wrong with it.
    """

    name: str
    version: int | None
    ready: bool
    reason: str = ""


class Repository:
    """The loaded models. Thread-safe: a reader sees the models as they are before a load or unload, or after it.

    Args:
        bundles: folders of one bundle each.
        parents: folders that hold bundles, PARENT/BUNDLE or PARENT/NAME/VERSION; they are read again at each load.
        start: makes the Batcher of a verified bundle and its rates; may raise UserError.
        max_batch: images in one request at most.

    Attributes:
        message_limit: bytes of the largest request.
        left_out: folders that are not served -> why.
    """

    def __init__(
        self,
        bundles: Sequence[Path],
        parents: Sequence[Path],
        *,
        start: Callable[[Bundle, Rates | None], Batcher],
        max_batch: int,
    ):
        self._bundles, self._parents, self._start, self._max_batch = bundles, parents, start, max_batch
        self._models: dict[str, dict[int, Model]] = {}
        self._changing = threading.Lock()
        self.message_limit = SLACK
        self.left_out: dict[Path, UserError] = {}

    def load_all(self) -> None:
        """Load all bundles, and set `message_limit` to what the largest of them needs.

        In a folder of bundles an invalid one is left out, and the others are served: `left_out` says which.

        Raises:
            UserError: there is no valid bundle, or one of `bundles` is invalid, or two of them have the same name and
                version.
        """
        on_disk = find_bundles(self._bundles, self._parents)
        left_out = {**on_disk.damaged}
        for folder in self._bundles:
            if folder.resolve() in on_disk.damaged:
                raise on_disk.damaged[folder.resolve()]
        sizes = [_message_bytes(bundle.manifest, self._max_batch) for bundle in on_disk.bundles]
        self.message_limit = max(sizes, default=SLACK)
        named = {folder.resolve() for folder in self._bundles}
        for name in sorted({bundle.manifest.name for bundle in on_disk.bundles}):
            bundles = [bundle for bundle in on_disk.bundles if bundle.manifest.name == name]
            models, failed = self._open_all(bundles, {}, may_fail=lambda folder: folder not in named)
            left_out |= failed
            if models:
                self._models = {**self._models, name: models}
        self.left_out = {**left_out, **on_disk.skipped}
        if not self._models:
            where = ", ".join(map(str, self._parents))
            reasons = first_few([str(error) for error in self.left_out.values()], "; ")
            raise UserError(f"no valid bundle in {where}: {reasons}" if reasons else f"no bundle in {where}")

    def get(self, name: str, version: int | None = None) -> Model:
        """Return the model of that version, or of the newest.

        Raises:
            NoSuchModel: it is not loaded.
        """
        return max(self._candidates(name, version), key=_version)

    def choose(self, name: str, version: int | None, head: str | None) -> Model:
        """Return the model for a latent of `head`.

        Args:
            name: of the model.
            version: None is the newest whose tail belongs to the head.
            head: the first ID_DIGITS digits of its id; None where the request names none.

        Raises:
            NoSuchModel: it is not loaded.
            OtherHead: the loaded tails belong to other heads.
            HeadMissing: `head` is None, and tails of several heads are loaded.
        """
        candidates = self._candidates(name, version)
        heads = sorted({model.head for model in candidates})
        if head is None and len(heads) > 1:
            raise HeadMissing(
                f"tails of several heads are loaded as {quote(name)}: the request must name its head (parameter head) "
                "or a version"
            )
        if head is not None and head not in heads:
            tail = f"tail of model {quote(name)}" if version is None else f"version {version} of model {quote(name)}"
            others = ", ".join(f"{one[:12]}…" for one in heads)
            raise OtherHead(f"the {tail} belongs to head {others}, and the request's latent to head {head[:12]}…")
        return max((model for model in candidates if head in (None, model.head)), key=_version)

    def versions(self, name: str) -> list[Model]:
        """Return the loaded models of a name, the oldest version first.

        Raises:
            NoSuchModel: there is none.
        """
        return sorted(self._candidates(name, None), key=_version)

    def models(self) -> Iterator[Model]:
        """Yield the loaded models, by name and version."""
        yield from (versions[version] for _, versions in sorted(self._models.items()) for version in sorted(versions))

    def index(self) -> list[IndexEntry]:
        """Return an entry for each bundle that is loaded or on the disk, then the folders that are not served."""
        on_disk = find_bundles(self._bundles, self._parents)
        loaded = {(model.manifest.name, model.manifest.version) for model in self.models()}
        valid = {(bundle.manifest.name, bundle.manifest.version) for bundle in on_disk.bundles}
        entries = [IndexEntry(*key, ready=key in loaded) for key in sorted(loaded | valid)]
        problems = self._problems(on_disk)
        return entries + [IndexEntry(folder.name, None, False, str(error)) for folder, error in problems.items()]

    def load(self, name: str) -> None:
        """Verify and load all versions of `name` that are on the disk; those that are loaded and unchanged stay.

        After an error the models are as they were. A folder that was left out before, and is still invalid, is no
        error.

        Raises:
            NoSuchModel: no bundle has the name.
            UserError: one of its bundles is invalid.
        """
        with self._changing:
            before = self._models.get(name, {})
            on_disk = find_bundles(self._bundles, self._parents)
            for model in before.values():
                if model.bundle.folder in on_disk.damaged:
                    raise on_disk.damaged[model.bundle.folder]
            bundles = [bundle for bundle in on_disk.bundles if bundle.manifest.name == name]
            if not bundles:
                unreadable = f"; {next(iter(on_disk.damaged.values()))}" if on_disk.damaged else ""
                raise NoSuchModel(f"no bundle has the name {quote(name)}{unreadable}")
            after, failed = self._open_all(bundles, before, may_fail=self.left_out.__contains__)
            if not after:
                raise failed[bundles[0].folder]
            opened = {model.bundle.folder for model in after.values()}
            problems = {folder: error for folder, error in self._problems(on_disk).items() if folder not in opened}
            self.left_out = {**problems, **failed}
            self._models = {**self._models, name: after}
            _close(before, except_for=after)

    def unload(self, name: str) -> None:
        """Unload all versions of `name`, and return when the requests that they took are done.

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
        """Unload everything."""
        for name in list(self._models):
            self.unload(name)

    def _candidates(self, name: str, version: int | None) -> list[Model]:
        """Return the loaded models of that name, and of that version where one is given."""
        versions = self._models.get(name)
        if not versions:
            raise NoSuchModel(f"no model {quote(name)} is loaded; loaded: {', '.join(self._models) or 'none'}")
        if version is None:
            return [*versions.values()]
        if version not in versions:
            loaded = ", ".join(map(str, sorted(versions)))
            raise NoSuchModel(f"no version {version} of model {quote(name)} is loaded; loaded: {loaded}")
        return [versions[version]]

    def _open_all(
        self, bundles: list[Bundle], before: dict[int, Model], *, may_fail: Callable[[Path], bool]
    ) -> tuple[dict[int, Model], dict[Path, UserError]]:
        """Open all versions of one name.

        Args:
            bundles: of that name.
            before: the versions that are loaded.
            may_fail: whether an invalid bundle in this folder is left out.

        Returns:
            The models by version, and the folders that were left out with the reasons.

        Raises:
            UserError: another bundle is invalid; what was started for this call is stopped.
        """
        after: dict[int, Model] = {}
        failed: dict[Path, UserError] = {}
        for bundle in bundles:
            version = bundle.manifest.version
            try:
                _check_alone(bundle, bundles)
                after[version] = self._opened(bundle.folder, before.get(version))
            except UserError as error:
                if not may_fail(bundle.folder):
                    _close(after, except_for=before)
                    raise
                failed[bundle.folder] = error
        return after, failed

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
        rates = bundle.read_rates()
        return Model(bundle, self._start(bundle, rates), ResponseMaker(bundle.manifest), rates)

    def _problems(self, on_disk: BundlesOnDisk) -> dict[Path, UserError]:
        """Return why folders on the disk are not served, from now or from when they were last verified."""
        folders = {bundle.folder for bundle in on_disk.bundles}
        before = {folder: error for folder, error in self.left_out.items() if folder in folders}
        return {**before, **on_disk.damaged, **on_disk.skipped}


def first_few(texts: list[str], separator: str = ", ") -> str:
    """Join the first MOST_SHOWN texts, and say how many more there are."""
    rest = [f"and {len(texts) - MOST_SHOWN} more"] if len(texts) > MOST_SHOWN else []
    return separator.join(texts[:MOST_SHOWN] + rest)


def _check_alone(bundle: Bundle, bundles: list[Bundle]) -> None:
    """Raise UserError where another one of `bundles` has the same version."""
    name, version = bundle.manifest.name, bundle.manifest.version
    same = [other.folder for other in bundles if other.manifest.version == version]
    if len(same) > 1:
        raise UserError(f"{' and '.join(map(str, same))} are both version {version} of {name!r}")


def _version(model: Model) -> int:
    return model.manifest.version


def _message_bytes(manifest: Manifest, max_batch: int) -> int:
    """Return the bytes of the largest ModelInfer request: a uint8 takes up to two as typed contents, one as raw."""
    height, width, channels = manifest.latent.shape
    return 2 * max_batch * height * width * channels + SLACK


def _close(models: dict[int, Model], *, except_for: dict[int, Model]) -> None:
    kept = list(except_for.values())
    for model in models.values():
        if model not in kept:
            model.batcher.close()
