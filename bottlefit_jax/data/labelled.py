"""A flat folder of evaluation images with a table of labels: ROOT/labels.csv, ROOT/synset_words.txt, ROOT/*.jpg."""

import csv
import os
import unicodedata

from bottlefit_jax.data.labels import read_labels
from bottlefit_jax.data.source import FileSource
from bottlefit_jax.errors import UserError
from bottlefit_jax.images import SUFFIXES, is_hidden

TABLE = "labels.csv"
NAMES = "synset_words.txt"


class Labelled(FileSource):
    """The images that `labels.csv` names, in its order. There is no training split.

    The first line of the table has the columns' names: `filename`, and `class_index`, `wnid` (WordNet's id) or both.
    The classes are the lines of `synset_words.txt` (`n01440764 tench, Tinca tinca`), including those without an image;
    if there is no such file they are the wnids of the table, sorted.
    """

    def __init__(self, root: str, *, split: str, on_bad_image: str = "error"):
        """Read the table.

        Args:
            root: holds the table, the names and the images.
            split: 'val'.
            on_bad_image: as in `Source`.

        Raises:
            UserError: the split is 'train', or the table cannot be read, lacks a column or has an unknown class.
        """
        if split != "val":
            raise UserError(f"folder {root!r} with its {TABLE} is for evaluation; training needs train/CLASS/*.jpg")
        rows = _read_table(os.path.join(root, TABLE))
        classes, labels = _classes(root, rows)
        super().__init__("folder", split=split, class_names=classes, on_bad_image=on_bad_image)
        self.root = root
        self._files = _on_disk(root, [row["filename"] for row in rows])
        self._labels = labels
        named = set(self._files)
        images = (name for name in os.listdir(root) if os.path.splitext(name)[1].lower() in SUFFIXES)
        self._leave_out((n for n in images if n not in named and not is_hidden(n)), f"not named in {TABLE}")

    def path(self, index: int) -> str:
        """Return the path of the file."""
        return os.path.join(self.root, self._files[index])


def _on_disk(root: str, files: list[str]) -> list[str]:
    """Return the files' names as the disk spells them: é may be one character in the table and two on the disk."""
    spellings: dict[str, dict[str, str]] = {}  # folder -> any spelling -> the disk's
    for folder in {os.path.dirname(file) for file in files}:
        path = os.path.join(root, folder)
        names = os.listdir(path) if os.path.isdir(path) else []
        spellings[folder] = {_nfc(name): name for name in names} | {name: name for name in names}
    return [
        os.path.join(folder, spellings[folder].get(name) or spellings[folder].get(_nfc(name), name))
        for folder, name in map(os.path.split, files)
    ]


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _read_table(path: str) -> list[dict[str, str]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:  # Excel begins with a byte order mark
            table = csv.DictReader(file)
            rows, columns = list(table), table.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if "filename" not in columns or not {"class_index", "wnid"} & {*columns}:
        raise UserError(f"{path} has the columns {', '.join(columns)}; it needs filename, and class_index or wnid")
    if not rows:
        raise UserError(f"{path} names no image")
    if short := [number for number, row in enumerate(rows, 2) if None in row or None in row.values()]:
        raise UserError(f"{path}: line {short[0]} does not have {len(columns)} fields")
    return rows


def _classes(root: str, rows: list[dict[str, str]]) -> tuple[list[str], list[int]]:
    """Return the classes, and the label of every row."""
    path, names = os.path.join(root, TABLE), os.path.join(root, NAMES)
    named = os.path.exists(names)
    if named:
        classes = [words[0] for words in read_labels(names)]
    elif "wnid" in rows[0]:
        classes = sorted({row["wnid"] for row in rows})
    else:
        raise UserError(f"{path} has no wnid, so the classes need {names}, one a line")
    known, labels = {name: label for label, name in enumerate(classes)}, []
    for number, row in enumerate(rows, 2):
        candidates = {known.get(row["wnid"])} if "wnid" in row else set()
        if named and "class_index" in row:
            index = row["class_index"]
            candidates.add(int(index) if index.isdecimal() and int(index) < len(classes) else None)
        if len(candidates) != 1 or None in candidates:
            text = " ".join(row[column] for column in ("class_index", "wnid") if column in row)
            raise UserError(f"{path}: line {number} has class {text}, which is not one of the {len(classes)} classes")
        labels.extend(candidates)
    return classes, labels
