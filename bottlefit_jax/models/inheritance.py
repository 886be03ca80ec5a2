"""Initial weights from another network: a student's from its teacher, a teacher's from one with other classes."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from bottlefit_jax.models.network import Network

Variables = Mapping[str, Any]

AUXILIARY = "AuxLogits"  # an Inception's second classifier


def with_body_of(given: Variables, fresh: Variables, network: Network) -> dict[str, Any]:
    """Return a teacher's variables with the body, all but the classifiers, of a network with other classes.

    Args:
        given: the other network's collections.
        fresh: the teacher's, from its `init`.
        network: the teacher.
    """
    classifiers = ([part for part in network.parts if part != AUXILIARY][-1], AUXILIARY)
    return {
        collection: {part: tree if part in classifiers else given[collection][part] for part, tree in parts.items()}
        for collection, parts in fresh.items()
    }


def with_tail_of(teacher: Variables, student: Variables) -> dict[str, Any]:
    """Return a student's variables, with the teacher's for every part that both have.

    Args:
        teacher: the teacher's collections.
        student: the student's, from its `init`.
    """
    return {
        collection: {part: teacher.get(collection, {}).get(part, tree) for part, tree in parts.items()}
        for collection, parts in student.items()
    }


def with_stem_of(teacher: Variables, student: Variables, network: Network) -> dict[str, Any]:
    """Return a student's variables, with the filters of the teacher's stem in the encoder's first layer if they fit.

    In ResNets and DenseNets the encoder begins with the layers of the stem: convolution 7×7/2, batch norm, ReLU. In a
    wider encoder the teacher's filters come first, and the encoder's own follow. Where the layers differ, or the
    encoder is narrower, nothing changes. The reference begins with random filters; with the teacher's, stage 1 needs
    fewer epochs.

    Args:
        teacher: the teacher's collections.
        student: the student's, from its `init`.
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

    out = {collection: dict(parts) for collection, parts in student.items()}
    for collection, number, part in (("params", "0", conv), ("params", "1", norm), ("batch_stats", "1", norm)):
        layers = out[collection]["encoder"]
        layer = jax.tree.map(in_front, layers[number], dict(teacher[collection][part.name]))
        out[collection]["encoder"] = {**layers, number: layer}
    return out
