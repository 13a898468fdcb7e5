"""Readers of data sets, named by SOURCES. Each is a function from the user's files to labelled pictures:

    def name(source: Path | None, cache: Path) -> Source

The first line of its docstring is its line in the converter's --help. This file has what several of them share.
"""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pooch

from errors import UserError, why_not_fetched
from files import read_regular

SPLIT_SEED = 0  # one for all data sets and runs, so that all runs share their test pictures


class Packed(Protocol):
    """A picture file within another file, such as an archive. Small and picklable: it goes to the pool's processes."""

    size: int  # bytes

    def read(self) -> bytes:
        """The content of the picture file. Raises OSError or pipeline.decoders.ImageError where it is damaged."""
        ...


class Example(NamedTuple):
    """A picture with its label; a picture file is not decoded yet."""

    filename: str
    label: int
    image: np.ndarray | Path | Packed  # uint8 [H, W, C], the path of a file, or a file within another one

    def read(self) -> bytes:
        """The content of the picture file; not for pixels. Raises OSError or ImageError."""
        return read_regular(self.image) if isinstance(self.image, Path) else self.image.read()


class HeldOut(NamedTuple):
    """The parts of the training pictures that become splits which a data set lacks."""

    test: float = 0.1  # only where train is the only split
    validation: float = 0.1  # of the rest


class Source(NamedTuple):
    """A data set before its conversion."""

    class_names: list[str]  # in label order
    channels: int  # 3 for RGB, 1 for grey, or another number up to 16
    splits: dict[str, list[Example]]  # as they are given: train, with or without the others; or test alone
    ignored: dict[str, int] | None = None  # number of files left out by kind, such as '.txt'
    held_out: HeldOut = HeldOut()


def array_examples(prefix: str, images: np.ndarray, labels: np.ndarray, digits: int = 5) -> list[Example]:
    """Examples with numbered file names, from pictures [N, H, W] or [N, H, W, C] and labels [N]."""
    pairs = enumerate(zip(images, labels, strict=True))
    return [Example(f"{prefix}{i:0{digits}d}.png", int(label), image) for i, (image, label) in pairs]


def split_off(
    examples: list[Example], fraction: float, copies: Mapping[str, str]
) -> tuple[list[Example], list[Example]]:
    """Splits a fraction of each class off, at least one picture. Returns (rest, part), in the given order.

    The part has the lowest seeded hashes of the file name. So most pictures stay in their split when other pictures are
    added or removed. Equal pictures, by the file names in `copies` that of the first of them, stay together, unless all
    pictures of a class are equal.
    """
    by_class: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for example in examples:
        by_class[example.label][copies.get(example.filename, example.filename)].append(example.filename)
    decided: dict[str, bool] = {}  # whether equal pictures are chosen: the same in each class that they are in
    chosen: set[str] = set()
    for groups in by_class.values():
        if len(groups) == 1:
            groups = {name: [name] for group in groups.values() for name in group}
        left = max(1, round(fraction * sum(map(len, groups.values()))))
        left -= sum(len(names) for key, names in groups.items() if decided.get(key))
        free = sorted(set(groups).difference(decided), key=_place)
        for key in free:
            decided[key] = len(groups[key]) <= left
            left -= len(groups[key]) if decided[key] else 0
        if free and not any(map(decided.get, groups)):
            decided[min(free, key=lambda key: len(groups[key]))] = True
        chosen.update(name for key, names in groups.items() if decided[key] for name in names)
    return [e for e in examples if e.filename not in chosen], [e for e in examples if e.filename in chosen]


def _place(name: str) -> bytes:
    return hashlib.sha256(os.fsencode(f"{SPLIT_SEED}/{name}")).digest()


def with_all_splits(data: Source, origin: object, copies: Mapping[str, str]) -> Source:
    """Splits the missing splits off train: first for test, if train is alone, then for validation.

    Existing splits do not change, so no choice made by validation depends on the test pictures. `copies` is that of
    split_off. Raises UserError, which names `origin`, if there are fewer than 2 classes, or fewer than 3 training
    pictures of a class.
    """
    if "train" not in data.splits:
        return data
    if len(data.class_names) < 2:
        raise UserError(
            f"{origin} has {'only one class' if data.class_names else 'no classes'}; at least two are needed"
        )
    counts = Counter(example.label for example in data.splits["train"])
    for label, name in enumerate(data.class_names):
        if counts[label] < 3:
            needed = "a class needs one each for training, validation and test"
            raise UserError(f"{origin} holds fewer than 3 pictures of {name} to train on; {needed}")
    splits = dict(data.splits)
    if set(splits) == {"train"}:
        splits["train"], splits["test"] = split_off(splits["train"], data.held_out.test, copies)
    if "validation" not in splits:
        splits["train"], splits["validation"] = split_off(splits["train"], data.held_out.validation, copies)
    return data._replace(splits=splits)


def download(url: str, checksum: str, cache: Path, processor: object = None) -> "Path | list[str]":
    """Downloads a file into the cache, if it is not there, and verifies its checksum. Raises UserError on failure.

    Returns its path, or with a pooch processor such as pooch.Untar the processor's list of paths.
    """
    name = url.rsplit("/", 1)[1]
    try:
        got = pooch.retrieve(url, checksum, fname=name, path=cache, processor=processor, progressbar=True)
    except (OSError, ValueError) as error:  # no network, or a wrong checksum
        reason = why_not_fetched(error)
        raise UserError(f"{url} could not be downloaded ({reason}); give files you have with --source DIR") from None
    return got if processor else Path(got)
