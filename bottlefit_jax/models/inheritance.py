"""What a network begins with of another's weights: a student of its teacher's, a teacher of one with other classes."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from bottlefit_jax.models.network import Network

Variables = Mapping[str, Any]


AUXILIARY = "AuxLogits"  # an Inception's second classifier


def with_body_of(given: Variables, fresh: Variables, network: Network) -> dict[str, Any]:
    """A teacher's variables in which all but the classifiers are those of a network with other classes.

    Args:
        given: the other network's collections.
        fresh: the teacher's, as its `init` made them.
        network: the teacher.
    """
    classifiers = ([part for part in network.parts if part != AUXILIARY][-1], AUXILIARY)
    return {
        collection: {part: tree if part in classifiers else given[collection][part] for part, tree in parts.items()}
        for collection, parts in fresh.items()
    }


def with_tail_of(teacher: Variables, student: Variables) -> dict[str, Any]:
    """A student's variables in which the teacher's take the place of every part that both have.

    Args:
        teacher: the teacher's collections.
        student: the student's, as its `init` made them.
    """
    return {
        collection: {part: teacher.get(collection, {}).get(part, tree) for part, tree in parts.items()}
        for collection, parts in student.items()
    }


def with_stem_of(teacher: Variables, student: Variables, network: Network) -> dict[str, Any]:
    """A student's variables whose encoder begins with the filters of the teacher's stem, where there is room for them.

    In ResNets and DenseNets the encoder's first layers are the stem's: convolution 7×7/2, batch norm, ReLU. A wider
    encoder has the teacher's filters first, and keeps its own behind them. Where the layers are others, or the encoder
    is narrower, nothing changes. The reference begins at random; from here stage 1 needs fewer epochs.

    Args:
        teacher: the teacher's collections.
        student: the student's, as its `init` made them.
        network: the student.
    """
    encoder, (conv, norm) = network.design.encoder, network.backbone()[:2]
    kernel = teacher.get("params", {}).get(conv.name, {}).get("kernel")
    if kernel is None or [layer.kind for layer in encoder[:2]] != ["conv", "norm"]:
        return dict(student)
    first = encoder[0]
    if (first.kernel, first.stride, first.padding) != conv.window or int(first.width) < kernel.shape[-1]:
        return dict(student)

    def in_front(own: Any, theirs: Any) -> np.ndarray:
        return np.concatenate([theirs, np.asarray(own)[..., theirs.shape[-1] :]], axis=-1)

    begun = {collection: dict(parts) for collection, parts in student.items()}
    for collection, number, part in (("params", "0", conv), ("params", "1", norm), ("batch_stats", "1", norm)):
        layers = begun[collection]["encoder"]
        layer = jax.tree.map(in_front, layers[number], dict(teacher[collection][part.name]))
        begun[collection]["encoder"] = {**layers, number: layer}
    return begun
