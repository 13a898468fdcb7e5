"""Pictures whose bytes are equal: in several splits they make the evaluation too good, under several classes one label
is wrong."""

import csv
import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from files import open_regular
from pipeline.convert.sources import Example, Source
from pipeline.decoders import ImageError
from pipeline.tfrecord import SPLITS

DUPLICATES_CSV = "duplicates.csv"
TAIL = 4096  # bytes at the end of a file; headers are alike


class Duplicate(NamedTuple):
    """One of several equal pictures."""

    file: str
    split: str
    label: str


def find_copies(data: Source) -> dict[str, str]:
    """For each picture that is there several times: its file name, and that of the first of its copies.

    Most files need not be read whole: first sizes are compared, then the last bytes. Files that cannot be read or are
    empty are left out.
    """
    groups = [[example for split in SPLITS for example in data.splits.get(split, [])]]
    for key in (_size, _tail, _digest):
        groups = [part for group in groups for part in _equal(group, key)]
    return {example.filename: group[0].filename for group in groups for example in group}


def _equal(examples: Iterable[Example], key: Callable[[Example], Hashable]) -> Iterator[list[Example]]:
    """The examples of which several have the same key, by key."""
    groups = defaultdict(list)
    for example in examples:
        try:
            groups[key(example)].append(example)
        except (OSError, ImageError):  # it is rejected later, with the reason
            continue
    return (group for found, group in groups.items() if found and len(group) > 1)


def _size(example: Example) -> Hashable:
    if isinstance(example.image, np.ndarray):
        return example.image.shape
    return os.path.getsize(example.image) if isinstance(example.image, Path) else example.image.size


def _tail(example: Example) -> Hashable:
    if not isinstance(example.image, Path):
        return "no file of its own"
    with open_regular(example.image, buffering=0) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
        return file.read(TAIL)


def _digest(example: Example) -> Hashable:
    if known := getattr(example.image, "digest", None):  # where reading it again would be slow
        return known
    content = example.image.tobytes() if isinstance(example.image, np.ndarray) else example.read()
    return hashlib.blake2b(content, digest_size=16).digest()


def find_conflicts(data: Source, copies: Mapping[str, str]) -> list[list[Duplicate]]:
    """Equal pictures that are in several splits or under several classes."""
    groups: dict[str, list[Duplicate]] = defaultdict(list)
    for split in SPLITS if copies else ():
        for example in data.splits.get(split, []):
            if first := copies.get(example.filename):
                groups[first].append(Duplicate(example.filename, split, data.class_names[example.label]))
    return [group for group in groups.values() if _count([group], "split") or _count([group], "label")]


def _count(conflicts: list[list[Duplicate]], field: str) -> int:
    """The number of pictures that are in several splits (field 'split') or under several classes ('label')."""
    return sum(len({getattr(row, field) for row in group}) > 1 for group in conflicts)


def describe(conflicts: list[list[Duplicate]]) -> str:
    """The numbers of pictures that are in several splits and under several classes, and the first of each."""
    parts = []
    for field, words in (("split", "in several splits"), ("label", "under several classes")):
        if number := _count(conflicts, field):
            first = next(group for group in conflicts if _count([group], field))
            other = next(row for row in first if getattr(row, field) != getattr(first[0], field))
            parts.append(f"{number:,} {words} (such as {first[0].file} and {other.file})")
    return f"equal pictures: {', '.join(parts)}"


def without_conflicts(data: Source, conflicts: list[list[Duplicate]]) -> Source:
    """The data without duplicates, which are counted as ignored.

    Of a picture in several splits those in test stay, or else those in validation: training is what is left to change
    if the evaluation is to be of unknown pictures. Of a picture under several classes none stays, as its class is not
    known.
    """
    dropped = set()
    for group in conflicts:
        kept = max((row.split for row in group), key=SPLITS.index) if not _count([group], "label") else None
        dropped.update(row.file for row in group if row.split != kept)
    splits = {split: [e for e in examples if e.filename not in dropped] for split, examples in data.splits.items()}
    ignored = {**(data.ignored or {}), "duplicates": len(dropped)} if dropped else data.ignored
    return data._replace(splits=splits, ignored=ignored)


def write(conflicts: list[list[Duplicate]], directory: Path) -> None:
    """Writes duplicates.csv, where there are any: a row for each file, with the same number for equal ones."""
    if conflicts:
        rows = [(number, *row) for number, group in enumerate(conflicts, start=1) for row in group]
        with open(directory / DUPLICATES_CSV, "w", newline="", errors="surrogateescape") as file:
            csv.writer(file).writerows([("picture", *Duplicate._fields), *rows])
