"""Which bundles are served: by name and version, loaded and unloaded while requests run."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bottlefit_jax.bundle import Bundle, Manifest, read_bundle
from bottlefit_jax.errors import UserError
from bottlefit_jax.protocol.names import ID_DIGITS
from bottlefit_jax.serve.batching import Batcher
from bottlefit_jax.serve.discovery import Found, find_bundles
from bottlefit_jax.serve.model_statistics import Statistics

MOST_SHOWN = 5  # problems in one line
SLACK = 1 << 16  # bytes of a request beside its latents: names, shape, parameters, id


class NoSuchModel(LookupError):
    """No bundle of that name and version; says so in one sentence."""


class OtherHead(LookupError):
    """The tails of that name and version belong to other heads; says so in one sentence."""


class HeadMissing(LookupError):
    """Tails of several heads could be meant; says so in one sentence."""


@dataclass(frozen=True)
class Model:
    """A bundle and its running tail."""

    bundle: Bundle
    batcher: Batcher
    statistics: Statistics = field(default_factory=Statistics)

    @property
    def manifest(self) -> Manifest:
        """That of the bundle."""
        return self.bundle.manifest

    @property
    def head(self) -> str:
        """The head's id as requests carry it."""
        return self.manifest.head.id[:ID_DIGITS]


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
        max_batch: images in one request at most.
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
        self.left_out: dict[Path, UserError] = {}  # folders that cannot be served, and why

    def load_all(self) -> None:
        """Load all bundles, and set `message_limit` by them.

        In a folder of bundles, one that cannot be used is left out, and the others are served: `left_out` says which.

        Raises:
            UserError: there is none, one that was named cannot be used, or two that were named have the same name and
                version.
        """
        found = find_bundles(self._folders, self._parents)
        left_out = {**found.damaged}
        for folder in self._folders:
            if folder.resolve() in found.damaged:
                raise found.damaged[folder.resolve()]
        sizes = [_message_bytes(bundle.manifest, self._max_batch) for bundle in found.bundles]
        self.message_limit = max(sizes, default=SLACK)
        named = {folder.resolve() for folder in self._folders}
        for name in sorted({bundle.manifest.name for bundle in found.bundles}):
            bundles = [bundle for bundle in found.bundles if bundle.manifest.name == name]
            models, failed = self._open_all(bundles, {}, may_fail=lambda folder: folder not in named)
            left_out |= failed
            if models:
                self._models = {**self._models, name: models}
        self.left_out = {**left_out, **found.skipped}
        if not self._models:
            where = ", ".join(map(str, self._parents))
            reasons = first_few([str(error) for error in self.left_out.values()], "; ")
            raise UserError(f"no bundle in {where} can be used: {reasons}" if reasons else f"no bundle in {where}")

    def get(self, name: str, version: int | None = None) -> Model:
        """The model, the newest of its versions where none is asked for.

        Raises:
            NoSuchModel: it is not loaded.
        """
        return max(self._candidates(name, version), key=_version)

    def choose(self, name: str, version: int | None, head: str | None) -> Model:
        """The model for a latent of `head`: that version, or the newest whose tail belongs to the head.

        Args:
            head: the first ID_DIGITS digits of its id; None where the request does not say.

        Raises:
            NoSuchModel: it is not loaded.
            OtherHead: what is loaded belongs to other heads.
            HeadMissing: without `head` tails of several heads could be meant.
        """
        candidates = self._candidates(name, version)
        heads = sorted({model.head for model in candidates})
        if head is None and len(heads) > 1:
            raise HeadMissing(
                f"tails of several heads are loaded as {_quote(name)}: the request must name its head (parameter head) "
                "or a version"
            )
        if head is not None and head not in heads:
            tail = f"tail of model {_quote(name)}" if version is None else f"version {version} of model {_quote(name)}"
            others = ", ".join(f"{one[:12]}…" for one in heads)
            raise OtherHead(f"the {tail} belongs to head {others}, and the request's latent to head {head[:12]}…")
        return max((model for model in candidates if head in (None, model.head)), key=_version)

    def versions(self, name: str) -> list[Model]:
        """The loaded models of a name, the oldest version first.

        Raises:
            NoSuchModel: there is none.
        """
        return sorted(self._candidates(name, None), key=_version)

    def models(self) -> Iterator[Model]:
        """All that is loaded."""
        yield from (versions[version] for _, versions in sorted(self._models.items()) for version in sorted(versions))

    def index(self) -> list[Known]:
        """All that is loaded or could be, and what is broken."""
        found = find_bundles(self._folders, self._parents)
        loaded = {(model.manifest.name, model.manifest.version) for model in self.models()}
        there = {(bundle.manifest.name, bundle.manifest.version) for bundle in found.bundles}
        lines = [Known(*key, ready=key in loaded) for key in sorted(loaded | there)]
        problems = self._problems(found)
        return lines + [Known(folder.name, None, False, str(error)) for folder, error in problems.items()]

    def load(self, name: str) -> None:
        """Load all versions of `name` that are on the disk, verified; one that is loaded and unchanged goes on.

        All or nothing: after an error the models are as they were. A folder that was left out before and still cannot
        be used does not prevent it.

        Raises:
            NoSuchModel: no bundle has the name.
            UserError: one of its bundles cannot be used.
        """
        with self._changing:
            before = self._models.get(name, {})
            found = find_bundles(self._folders, self._parents)
            for model in before.values():
                if model.bundle.folder in found.damaged:
                    raise found.damaged[model.bundle.folder]
            bundles = [bundle for bundle in found.bundles if bundle.manifest.name == name]
            if not bundles:
                unreadable = f"; {next(iter(found.damaged.values()))}" if found.damaged else ""
                raise NoSuchModel(f"no bundle has the name {_quote(name)}{unreadable}")
            after, failed = self._open_all(bundles, before, may_fail=self.left_out.__contains__)
            if not after:
                raise failed[bundles[0].folder]
            opened = {model.bundle.folder for model in after.values()}
            problems = {folder: error for folder, error in self._problems(found).items() if folder not in opened}
            self.left_out = {**problems, **failed}
            self._models = {**self._models, name: after}
            _close(before, except_for=after)

    def unload(self, name: str) -> None:
        """Take all versions of `name` away, and return when what they had taken is done.

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

    def _candidates(self, name: str, version: int | None) -> list[Model]:
        """What is loaded of that name, and of that version where one is asked for."""
        versions = self._models.get(name)
        if not versions:
            raise NoSuchModel(f"no model {_quote(name)} is loaded; loaded: {', '.join(self._models) or 'none'}")
        if version is None:
            return [*versions.values()]
        if version not in versions:
            there = ", ".join(map(str, sorted(versions)))
            raise NoSuchModel(f"no version {version} of model {_quote(name)} is loaded; loaded: {there}")
        return [versions[version]]

    def _open_all(
        self, bundles: list[Bundle], before: dict[int, Model], *, may_fail: Callable[[Path], bool]
    ) -> tuple[dict[int, Model], dict[Path, UserError]]:
        """All versions of one name, and the folders that failed where they may.

        Raises:
            UserError: another one cannot be used; nothing that was started for this is left.
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
        return Model(bundle, self._start(bundle))

    def _problems(self, found: Found) -> dict[Path, UserError]:
        """Why folders on the disk are not served: as they are now, or as they were when they were last verified."""
        there = {bundle.folder for bundle in found.bundles}
        before = {folder: error for folder, error in self.left_out.items() if folder in there}
        return {**before, **found.damaged, **found.skipped}


def first_few(texts: list[str], separator: str = ", ") -> str:
    """The first MOST_SHOWN of them in one line, and how many more there are."""
    rest = [f"and {len(texts) - MOST_SHOWN} more"] if len(texts) > MOST_SHOWN else []
    return separator.join(texts[:MOST_SHOWN] + rest)


def _check_alone(bundle: Bundle, bundles: list[Bundle]) -> None:
    """Raise UserError where another of `bundles` has its version: nothing says which of the two is right."""
    name, version = bundle.manifest.name, bundle.manifest.version
    same = [other.folder for other in bundles if other.manifest.version == version]
    if len(same) > 1:
        raise UserError(f"{' and '.join(map(str, same))} are both version {version} of {name!r}")


def _version(model: Model) -> int:
    return model.manifest.version


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
