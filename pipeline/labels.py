"""Labels and class names in records, compared with the class names of the data set.

Records made by TF-Slim's scripts name their class (image/class/text, image/class/synset). A name need not be that of
labels.txt, which may have another language or synsets. But where it is the name of another class, labels and names are
of two maps, and each result would be given to the wrong class.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline import storage, tfrecord
from pipeline.index import Content
from pipeline.records import NO_LABEL, TEXT_KEYS, Fault, text_hash
from tfcompat import tf


class ClassNames(NamedTuple):
    """The names of the classes in label order, and the file that they are from."""

    names: Sequence[str]
    file: str


class Located(NamedTuple):
    """A shard: its path and its records."""

    path: str
    content: Content


def label_mistake(shards: Sequence[Located], classes: ClassNames) -> str | None:
    """What is wrong with labels that name no class, and what to do; None where all do."""
    last = len(classes.names) - 1
    outside = [_outside(shard.content, last) for shard in shards]
    wrong = sum(map(np.count_nonzero, outside))
    if not wrong:
        return None
    labels = np.concatenate([shard.content.notes["label"] for shard in shards])
    labels = labels[labels != NO_LABEL]
    if labels.min() == 1 and labels.max() == last + 1:
        one = f"the labels count from 1: they are 1 to {last + 1}, and {classes.file} names 0 to {last}"
        if classes.file.endswith(tfrecord.DATASET_JSON):
            return f"{one}; put a name for 0, such as background, first in its class_names"
        return f"{one}; number its lines from 1, and class 0, which has no records, is named background"
    shard, rows = next((shard, rows) for shard, rows in zip(shards, outside, strict=True) if rows.any())
    row = int(np.argmax(rows))
    remedy = "Name all classes there, or convert the data again"
    if labels.min() < 0:
        remedy = "A label cannot be negative; convert the data again with labels from 0"
    return (
        f"{shard.path}: the record at byte {shard.content.offsets[row]} has label {shard.content.notes['label'][row]}, "
        f"and {classes.file} names 0 to {last}; {wrong:,} of {len(labels):,} labels are outside. {remedy}"
    )


def _outside(content: Content, last: int) -> np.ndarray:
    labels = content.notes["label"]
    return (labels != NO_LABEL) & ((labels < 0) | (labels > last))


def name_mistake(shards: Sequence[Located], others: Sequence[Content], classes: ClassNames) -> Fault | None:
    """Names the first record whose class name is that of another class; None where there is none.

    It is compared with the names of the classes, and with what most records of a class say, those of `others` (further
    shards of the data set) included.
    """
    notes = np.concatenate([shard.content.notes for shard in shards])
    valid = (notes["label"] >= 0) & (notes["label"] < len(classes.names))
    hashes = np.array([text_hash(os.fsencode(name)) for name in classes.names], np.uint64)
    for key in TEXT_KEYS:
        suspects = np.flatnonzero(valid & (notes[key] != 0))
        suspects = suspects[notes[key][suspects] != hashes[notes["label"][suspects]]]
        if not len(suspects):  # as in all data that the converter made
            continue
        everything = np.concatenate([notes, *(content.notes for content in others)])
        usual = _usual(everything["label"], everything[key], len(hashes))
        labels, texts = notes["label"][suspects], notes[key][suspects]
        # A name that several classes share, as ImageNet's two cranes do, tells nothing.
        told = np.where(_shared(usual)[labels] & (usual[labels] == texts), 0, texts)
        for names, origin in ((hashes, classes.file), (usual, "most records")):
            owner = _owner(names, told)
            wrong = np.flatnonzero((owner >= 0) & (names[labels] != texts))
            if len(wrong):
                row, another = int(suspects[wrong[0]]), int(owner[wrong[0]])
                return _describe(shards, row, key, another, len(wrong), origin, classes)
    return None


def _usual(labels: np.ndarray, texts: np.ndarray, classes: int) -> np.ndarray:
    """The most frequent text of each class, uint64 [classes]; 0 for none."""
    rows = np.flatnonzero((labels >= 0) & (labels < classes) & (texts != 0))
    order = rows[np.lexsort((texts[rows], labels[rows]))]
    labels, texts = labels[order], texts[order]
    begin = np.flatnonzero(np.concatenate([[True], (labels[1:] != labels[:-1]) | (texts[1:] != texts[:-1])]))
    counts = np.diff([*begin, len(labels)])
    usual = np.zeros(classes, np.uint64)
    ascending = begin[np.argsort(counts, kind="stable")]
    usual[labels[ascending]] = texts[ascending]  # of several values for one place the last one stays
    return usual


def _shared(names: np.ndarray) -> np.ndarray:
    """Which of the names stand at more than one class: bool [classes]."""
    _, name_of, counts = np.unique(names, return_inverse=True, return_counts=True)
    return counts[name_of] > 1


def _owner(names: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """The class that alone has each text as its name: int64 [texts], -1 for none."""
    known = np.flatnonzero((names != 0) & ~_shared(names))
    known = known[np.argsort(names[known])]
    if not len(known):
        return np.full(len(texts), -1)
    place = known[np.minimum(np.searchsorted(names[known], texts), len(known) - 1)]
    return np.where(names[place] == texts, place, -1)


def _describe(
    shards: Sequence[Located], row: int, key: str, another: int, count: int, origin: str, classes: ClassNames
) -> Fault:
    """The fault of the record in place `row` of the shards, whose class name is that of the class `another`."""
    for shard in shards:
        if row < len(shard.content.offsets):
            break
        row -= len(shard.content.offsets)
    offset, label = int(shard.content.offsets[row]), int(shard.content.notes["label"][row])
    payload = tfrecord.read_at(shard.path, offset, storage.open_file).payload or b""
    value = tf.train.Example.FromString(payload).features.feature[f"image/class/{key}"].bytes_list.value
    text = value[0].decode("utf-8", "backslashreplace") if value else ""
    return Fault(
        shard.path,
        offset,
        f"it has label {label} ({classes.names[label]}) and image/class/{key} '{text[:80]}', which is in {origin} the "
        f"name of class {another} ({classes.names[another]}); {count:,} records contradict. Correct the order of names "
        f"in {classes.file}, or convert all splits again with one map",
        replaceable=False,
    )
