"""Checkpoints, by Orbax: of a stage while it runs, and of finished networks. The only file that imports Orbax.

A stage's folder keeps its last and its best checkpoint, each with a digest of its arrays. One that is incomplete, or
was changed on the disk since, is moved aside with a warning that names it, and the one before it is used.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from bottlefit_jax.errors import UserError, first_line, is_disk_full
from bottlefit_jax.training.network_meta import FORMAT, NetworkMeta
from bottlefit_jax.training.sharding import to_host

log = logging.getLogger(__name__)

MARKER = "_CHECKPOINT_METADATA"  # Orbax puts it in every checkpoint


@dataclasses.dataclass(frozen=True)
class Saved:
    """A checkpoint that was read and is intact.

    Attributes:
        step: optimiser steps done in the stage.
        state: NumPy arrays in the structure of the given template.
        meta: what was saved beside it.
    """

    step: int
    state: Any
    meta: dict[str, Any]


class StageCheckpoints:
    """The checkpoints of one stage, in one folder, by step; the last and the best are kept."""

    def __init__(self, folder: Path):
        """Open or create `folder`, and delete what an interrupted save left in it.

        Args:
            folder: of this stage alone.
        """
        self.folder = folder.absolute()
        primary = jax.process_index() == 0
        if self.folder.is_dir() and primary:
            for path in sorted(self.folder.iterdir()):
                if ".orbax-checkpoint-tmp" in path.name:
                    log.warning("skipped %s: it is incomplete", path)
                    shutil.rmtree(path, ignore_errors=True)
        best = checkpoint_managers.BestN(get_metric_fn=_top1, n=1, keep_checkpoints_without_metrics=False)
        policy = checkpoint_managers.AnyPreservationPolicy([checkpoint_managers.LatestN(1), best])
        # Without best_fn the manager would neither write nor read the metrics that the policy uses.
        options = ocp.CheckpointManagerOptions(preservation_policy=policy, best_fn=_top1)
        with _disk_errors(self.folder):
            self._manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, step: int, state: Any, meta: dict[str, Any], *, top1: float | None = None) -> None:
        """Copy the state off the devices and write it in the background.

        Args:
            step: optimiser steps done in the stage.
            state: arrays, replicated.
            meta: anything JSON can hold.
            top1: accuracy in percent, where it was measured; the highest is "best".

        Raises:
            UserError: the disk is full.
        """
        host = to_host(state)
        meta = {**meta, "format": FORMAT, "step": step, "digest": digest(host)}
        with _disk_errors(self.folder):
            self._manager.save(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardSave(host), meta=ocp.args.JsonSave(meta)),
                metrics=None if top1 is None else {"top1": top1},
            )

    def latest(self, like: Any) -> Saved | None:
        """Read the last intact checkpoint, if there is one; damaged ones are moved aside.

        Args:
            like: a tree of arrays or shapes that gives the structure.
        """
        while (step := self._manager.latest_step()) is not None:
            try:
                return self._read(step, like)
            except Exception as error:  # Orbax raises many kinds for a damaged file
                self._move_aside(step, error)
        return None

    def best(self, like: Any) -> Saved | None:
        """Read the checkpoint with the best accuracy; None where none was measured or it is damaged.

        Args:
            like: as in `latest`.
        """
        step = self._manager.best_step()
        if step is None:
            return None
        try:
            return self._read(step, like)
        except Exception as error:  # as above
            self._move_aside(step, error)
            return None

    def last_path(self) -> Path | None:
        """Return the folder of the last checkpoint, if there is one."""
        step = self._manager.latest_step()
        return None if step is None else self.folder / str(step)

    def wait(self) -> None:
        """Return when everything is on the disk.

        Raises:
            UserError: the disk is full.
        """
        with _disk_errors(self.folder):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, then end the manager's threads."""
        self.wait()
        self._manager.close()

    def _read(self, step: int, like: Any) -> Saved:
        template = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(template), meta=ocp.args.JsonRestore())
        restored: Any = self._manager.restore(step, args=args)
        if digest(restored.state) != restored.meta["digest"]:
            raise ValueError("its arrays differ from those that were saved")
        return Saved(step, restored.state, restored.meta)

    def _move_aside(self, step: int, error: Exception) -> None:
        path = self.folder / str(step)
        log.warning("skipped the damaged checkpoint %s: %s", path, first_line(error))
        if jax.process_index() == 0:
            target = path.with_name(f"{step}.damaged")
            shutil.rmtree(target, ignore_errors=True)
            path.rename(target)
        self._manager.reload()


def _top1(metrics: Any) -> float:
    return metrics["top1"]


def save_variables(folder: Path, variables: Any, meta: NetworkMeta) -> None:
    """Write a finished network: its collections, and what it is.

    Args:
        folder: created or replaced.
        variables: {"params", "batch_stats", ...}.
        meta: its description; the digest is set here.

    Raises:
        UserError: the disk is full.
    """
    folder = folder.absolute()
    host = to_host(variables)
    description = dataclasses.replace(meta, digest=digest(host)).to_json()
    with _disk_errors(folder), ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        checkpointer.save(
            folder,
            args=ocp.args.Composite(variables=ocp.args.StandardSave(host), meta=ocp.args.JsonSave(description)),
            force=True,
        )


def load_variables(folder: Path) -> tuple[Any, NetworkMeta]:
    """Read what `save_variables` wrote.

    Returns:
        NumPy arrays, and their description.

    Raises:
        UserError: there is no such folder, or what is in it is not a whole network with finite weights.
    """
    folder = folder.absolute()
    _check_network(folder)
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            restored = checkpointer.restore(
                folder, args=ocp.args.Composite(variables=ocp.args.StandardRestore(), meta=ocp.args.JsonRestore())
            )
        variables, description = restored["variables"], restored["meta"]
    except Exception as error:
        raise UserError(f"{folder} does not hold a whole network: {first_line(error)}") from error
    meta = NetworkMeta.from_json(description, folder)
    if digest(variables) != meta.digest:
        raise UserError(f"{folder} is damaged: its arrays differ from those that were saved")
    if (bad := non_finite(variables)) is not None:
        raise UserError(
            f"{folder} holds a network that diverged when it was trained: {bad} is not finite; train it again"
        )
    return variables, meta


def load_meta(folder: Path) -> NetworkMeta:
    """Read the description that `save_variables` wrote beside the arrays.

    Raises:
        UserError: as `load_variables`.
    """
    folder = folder.absolute()
    _check_network(folder)
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            description = checkpointer.restore(folder, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
    except Exception as error:
        raise UserError(f"{folder} does not hold a whole network: its description cannot be read") from error
    return NetworkMeta.from_json(description, folder)


def _check_network(folder: Path) -> None:
    """Raise UserError where a folder is no network's, in a message that names those in it that are."""
    if not folder.is_dir():
        raise UserError(f"no weights at {folder}: name the folder of a converted or trained network")
    if (folder / MARKER).exists():
        return
    inside = [str(path) for path in (folder / "teacher", folder / "student") if (path / MARKER).exists()]
    if inside:
        raise UserError(f"{folder} is the folder of a run, which holds several things: name {' or '.join(inside)}")
    if (folder / "config.json").is_file():
        raise UserError(f"{folder} is the folder of a run that has finished no network yet")
    raise UserError(f"{folder} does not hold a whole network: name the folder of a converted or trained one")


def non_finite(tree: Any) -> str | None:
    """Return the path of the first leaf that holds NaN or an infinity; None where all are finite."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        if jax.numpy.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
            return jax.tree_util.keystr(path, simple=True, separator="/")
    return None


def digest(tree: Any) -> str:
    """Return the SHA-256 of every leaf's path, dtype, shape and bytes: equal only for trees that are bit-identical."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        # Lists and tuples are restored as what the template has, so the digest has the names of keys, not their types.
        total.update(json.dumps([jax.tree_util.keystr(path), str(array.dtype), array.shape]).encode())
        total.update(array.tobytes())
    return total.hexdigest()


def silence_echoes() -> None:
    """Keep back what Orbax's and TensorStore's threads print of an error that is raised in ours as well.

    Where one array cannot be read or written, each of the others complains that its event loop is closed.
    """

    def is_echo(error: BaseException | None) -> bool:
        return str(error) == "Event loop is closed" or is_disk_full(error)

    shown, unraisable, in_thread = sys.excepthook, sys.unraisablehook, threading.excepthook
    sys.excepthook = lambda kind, error, trace: None if is_echo(error) else shown(kind, error, trace)
    sys.unraisablehook = lambda hooked: None if is_echo(hooked.exc_value) else unraisable(hooked)
    threading.excepthook = lambda hooked: None if is_echo(hooked.exc_value) else in_thread(hooked)


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Raise UserError for a full disk, which the user can correct."""
    try:
        yield
    except Exception as error:
        if is_disk_full(error):
            raise UserError(
                f"no space left on the disk of {folder}: free some, and start the same command again"
            ) from error
        raise
