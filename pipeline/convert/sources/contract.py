"""What a source gives, and what several sources need for it."""

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pooch

from errors import UserError, why_not_fetched

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test"}
SPLIT_SEED = 0  # of the data set, not of a run: all runs share their test pictures


class Example(NamedTuple):
    """A picture, not yet decoded where it is a file."""

    filename: str
    label: int
    image: np.ndarray | Path  # uint8 [H, W, C], or where the file lies


class Source(NamedTuple):
    """A data set: its classes in label order, and its splits: train and validation, or test alone."""

    class_names: list[str]
    channels: int
    splits: dict[str, list[Example]]
    ignored: dict[str, int] | None = None  # what is left out, such as files that are no pictures by their ending


def is_text(name: object) -> bool:
    """Whether this is a name that can be printed and stored as UTF-8: what Linux calls files need not be."""
    return isinstance(name, str) and not re.search("[\ud800-\udfff]", name)


def listed(directory: Path) -> tuple[list[Path], list[Path]]:
    """The folders and the files in a directory, in order, links followed, without hidden ones.

    Raises UserError where they cannot be read: what lies there would be lost without a word.
    """
    try:
        with os.scandir(directory) as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"{directory} cannot be read ({error.strerror}); mend or remove it") from None
    folders, files = ([directory / name for name, is_folder in found if is_folder is kind] for kind in (True, False))
    return folders, files


def files_below(directory: Path, above: tuple[str, ...] = ()) -> list[Path]:
    """All files in a directory and its folders, in order. `above` are those that it lies in."""
    place = os.path.realpath(directory)
    if place in above:
        raise UserError(f"{directory} is a link to a folder that it lies in; remove it")
    folders, files = listed(directory)
    return sorted([*files, *(path for folder in folders for path in files_below(folder, (*above, place)))])


def numbered(prefix: str, images: np.ndarray, labels: np.ndarray) -> list[Example]:
    """Examples of pictures [N, H, W] or [N, H, W, C] and labels [N] that come without file names."""
    return [
        Example(f"{prefix}{i:05d}.png", int(label), image)
        for i, (image, label) in enumerate(zip(images, labels, strict=True))
    ]


def carve(examples: Iterable[Example], fraction: float) -> tuple[list[Example], list[Example]]:
    """Splits off a fraction of each class, at least one picture: those whose seeded hash of the file name is lowest.

    Returns (rest, part), in the order given. A file keeps its side when others come and go, but for those at the edge.
    """
    examples = list(examples)
    by_class = defaultdict(list)
    for example in examples:
        key = hashlib.sha256(os.fsencode(f"{SPLIT_SEED}/{example.filename}")).digest()
        by_class[example.label].append((key, example.filename))
    chosen = set()
    for keys in by_class.values():
        chosen.update(name for _, name in sorted(keys)[: max(1, round(fraction * len(keys)))])
    return [e for e in examples if e.filename not in chosen], [e for e in examples if e.filename in chosen]


def carved(
    splits: dict[str, list[Example]], class_names: list[str], place: object, fraction: float = 0.1
) -> dict[str, list[Example]]:
    """Adds what is missing to train alone, or to train with test: a tenth for test, a fraction of the rest for
    validation.

    What is there stays as it is, so that no choice ever looks at the test pictures.

    Raises UserError for a class with too few training pictures in `place` to spare some for validation and test.
    """
    counts = Counter(example.label for example in splits["train"])
    for label, name in enumerate(class_names):
        if counts[label] < 3:
            raise UserError(
                f"{place} holds fewer than 3 pictures of {name}; a class needs one each for training, validation and "
                "test"
            )
    splits = dict(splits)
    if set(splits) == {"train"}:
        splits["train"], splits["test"] = carve(splits["train"], 0.1)
    if "validation" not in splits:
        splits["train"], splits["validation"] = carve(splits["train"], fraction)
    return splits


def download(url: str, checksum: str, cache: Path, processor: object = None) -> "Path | list[str]":
    """Fetches a file once, with a progress bar, and compares its checksum."""
    try:
        got = pooch.retrieve(
            url, checksum, fname=url.rsplit("/", 1)[1], path=cache, processor=processor, progressbar=True
        )
    except (OSError, ValueError) as error:  # no network, or a checksum that differs
        reason = why_not_fetched(error)
        raise UserError(f"{url} could not be downloaded ({reason}); give files you have with --source DIR") from None
    return got if processor else Path(got)
