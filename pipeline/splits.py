"""Splits: their shards, and which of the records of TF-Slim's training shards are held out for validation."""

from typing import NamedTuple

import numpy as np

HELD_OUT = 10  # TF-Slim data without a validation split: a tenth of the training records is validation
BY_POSITION, BY_PICTURE = ("tenth", "other"), ("held_out", "rest")  # the part of validation, and that of training


class Shard(NamedTuple):
    """A TFRecord file."""

    file: str  # beside dataset.json
    examples: int


class Split(NamedTuple):
    """A part of a data set."""

    examples: int
    shards: tuple[Shard, ...]
    # Of TF-Slim's training records: 'held_out' for validation, 'rest' for training, by class and picture; in runs of
    # earlier versions 'tenth' and 'other', by position.
    part: str | None = None
    missing: tuple[str, ...] = ()  # shards that the names of the others speak of


def members(part: Split, notes: np.ndarray) -> np.ndarray:
    """Which of the records of its shards belong to a split: bool [records], from their NOTEs."""
    if part.part is None:
        return np.ones(len(notes), bool)
    by_position = part.part in BY_POSITION
    chosen = np.arange(len(notes)) % HELD_OUT == HELD_OUT - 1 if by_position else _held_out(notes)
    return chosen if part.part in ("tenth", "held_out") else ~chosen


def _held_out(notes: np.ndarray) -> np.ndarray:
    """Which training records become validation: bool [records], from their NOTEs.

    A tenth of each class, the pictures of the lowest hashes, so that equal pictures stay together.
    """
    chosen = np.zeros(len(notes), bool)
    usable = np.flatnonzero(notes["picture"])  # a corrupt record replaces nothing in validation
    pictures, first, picture_of, copies = np.unique(
        notes["picture"][usable], return_index=True, return_inverse=True, return_counts=True
    )
    if len(pictures) < 2:
        return chosen
    labels = notes["label"][usable][first]
    order = np.lexsort((pictures, labels))
    _, begin, class_of = np.unique(labels[order], return_index=True, return_inverse=True)
    sizes = np.add.reduceat(copies[order], begin)
    before = np.cumsum(sizes) - sizes
    # Between 0 and 1 in each class, so that the lowest of all are about as many of each.
    place = (np.cumsum(copies[order]) - copies[order] / 2 - before[class_of]) / sizes[class_of]
    order = order[np.lexsort((pictures[order], place))]
    fitting = np.count_nonzero(np.cumsum(copies[order]) <= len(notes) // HELD_OUT)
    chosen[usable] = np.isin(picture_of, order[:fitting] if fitting else np.argmin(copies))
    return chosen
