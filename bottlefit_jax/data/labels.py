"""Matches the classes of a dataset to the classes of a network, by WordNet id (wnid) or by name."""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from bottlefit_jax.errors import UserError

_WNID_LENGTH = 9
_SHOWN = 5  # classes in a message


def read_labels(path: str) -> tuple[tuple[str, ...], ...]:
    """Read one class per line: `n01440764 tench, Tinca tinca` (synset_words.txt), a wnid alone, or a name.

    Args:
        path: a text file in UTF-8.

    Returns:
        For each class its names, the wnid first if there is one: (('n01440764', 'tench', 'Tinca tinca'), ...).

    Raises:
        UserError: the file cannot be read, is empty, or has an empty line among the classes.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:  # Excel and Notepad begin with a byte order mark
            lines = file.read().rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"labels {path!r} cannot be read: {error}") from None
    if not lines:
        raise UserError(f"labels {path!r} is empty; it needs one class per line")
    labels = []
    for number, line in enumerate(lines, 1):
        first, _, rest = line.strip().partition(" ")
        names = [first, *rest.split(",")] if _is_wnid(first) else line.split(",")
        names = [name.strip() for name in names if name.strip()]
        if not names:
            raise UserError(f"labels {path!r}: line {number} is empty; it needs one class per line")
        labels.append(tuple(names))
    return tuple(labels)


def match_labels(class_names: Sequence[str], teacher_labels: Sequence[str | Sequence[str]]) -> np.ndarray:
    """Find every class of the data among the teacher's; upper case equals lower case, and '_' equals ' '.

    Args:
        class_names: the data's classes, a wnid or a name each.
        teacher_labels: the teacher's classes in the order of its logits, each a name or several (`read_labels`).

    Returns:
        int32 [len(class_names)]: the teacher's index of each class.

    Raises:
        UserError: a class is missing, or several of the teacher's classes have its name; the message lists all.
    """
    indices_by_name: dict[str, list[int]] = {}
    for index, names in enumerate(teacher_labels):
        for key in {_key(name) for name in ([names] if isinstance(names, str) else names)}:
            indices_by_name.setdefault(key, []).append(index)
    matches = [indices_by_name.get(_key(name), []) for name in class_names]
    missing = [name for name, indices in zip(class_names, matches, strict=True) if not indices]
    shared = [f"{n} ({i})" for n, i in zip(class_names, matches, strict=True) if len(i) > 1]
    problems = []
    if missing:
        problems.append(f"not among the teacher's {len(teacher_labels)} labels: {', '.join(missing)}")
    if shared:
        problems.append(f"ambiguous, name them by wnid: {', '.join(shared)}")
    if problems:
        raise UserError(f"classes that cannot be matched to the teacher's: {'; '.join(problems)}")
    return np.asarray([indices[0] for indices in matches], np.int32)


def class_columns(
    class_names: Sequence[str], labels: Sequence[Sequence[str]], num_classes: int
) -> tuple[int, ...] | None:
    """Return the columns of a network's logits that belong to the data's classes.

    Args:
        class_names: the data's classes.
        labels: the names of each of the network's classes; () if they are unknown.
        num_classes: of the network.

    Returns:
        A column for each class; None if the columns are all of them, in order.

    Raises:
        UserError: the classes cannot be matched, the number of labels is not `num_classes`, or the labels are unknown
            and the data's classes sort differently as numbers and as text.
    """
    if [(name,) for name in class_names] == [tuple(names) for names in labels] and len(labels) == num_classes:
        return None
    if not labels:
        if len(class_names) == num_classes:
            _check_order(class_names)
            return None
        raise UserError(
            f"the teacher has {num_classes} classes and the dataset {len(class_names)}: "
            "set config.teacher.labels to a file with the teacher's class names, one a line"
        )
    if len(labels) != num_classes:
        raise UserError(f"config.teacher.labels has {len(labels)} names for a teacher of {num_classes} classes")
    return tuple(int(index) for index in match_labels(class_names, labels))


def describe_order(class_names: Sequence[str]) -> str:
    """Return a line that says which class each output is taken to be, for weights that do not name their classes."""
    named = ", ".join(f"{index} {name!r}" for index, name in enumerate(class_names[:_SHOWN]))
    return f"the weights do not name their classes; their outputs are taken to be {named}{_more(class_names)}"


def _check_order(class_names: Sequence[str]) -> None:
    """Raise UserError if the order of the classes is ambiguous: '1', '10', '2' as text is 1, 2, 10 as numbers."""
    by_number = sorted(class_names, key=lambda name: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", name)])
    if list(class_names) == sorted(class_names) and list(class_names) != by_number:
        as_text, as_numbers = (", ".join(names[:_SHOWN]) + _more(names) for names in (class_names, by_number))
        raise UserError(
            f"the weights do not name their classes, and the dataset's sort as text ({as_text}) and as numbers "
            f"({as_numbers}): set config.teacher.labels to a file with the class names in the order of the outputs"
        )


def _more(names: Sequence[str]) -> str:
    return ", ..." if len(names) > _SHOWN else ""


def _is_wnid(word: str) -> bool:
    return len(word) == _WNID_LENGTH and word[0] == "n" and word[1:].isdigit()


def _key(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name.replace("_", " ").casefold()).split())
