"""dataset.json and the index of record offsets: what is read before the first picture.

A data set is a directory of shards, TFRecord files of tf.train.Example with TF-Slim's keys (FEATURES), and
dataset.json:

    {"name", "source", "class_names", "channels", "short_side",
     "splits": {"train": {"examples": 1259, "shards": [{"file": "…", "examples": 1259}]}, …},
     "statistics": {"units", "mean": [C], "deviation": [C], "eigenvalues": [C], "components": [C][C]},
     "rejected", "ignored"}

Statistics are over all pixels of the training split, on the scale 0 to 255; eigenvalues are variances on that scale,
the largest first, and row i of components is the unit vector of eigenvalue i. short_side is what convert shrank larger
pictures to, so that prediction does the same; null for none. Data without a training split, to be
evaluated on, have null for statistics.

A directory that TF-Slim's scripts made has labels.txt instead and is read as it is.
"""

import io
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from errors import UserError
from files import os_errors_as_user_errors, read_regular
from pipeline import tfrecord
from pipeline.convert.sources.contract import SPLIT_NAMES, is_text, listed
from pipeline.shard_index import scan
from pipeline.tfrecord import DATASET_JSON
from tfcompat import tf

LABELS_TXT = "labels.txt"
MOST_RECORDS = 2**23  # of a shard, which is closed at 128 MB: a larger number is a mistake and would take all memory
HELD_OUT = 10  # TF-Slim data without a validation split: every tenth training record

FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/format": tf.io.FixedLenFeature([], tf.string, ""),
    "image/class/label": tf.io.FixedLenFeature([], tf.int64),
    "image/class/text": tf.io.FixedLenFeature([], tf.string, ""),
    "image/height": tf.io.FixedLenFeature([], tf.int64, 0),
    "image/width": tf.io.FixedLenFeature([], tf.int64, 0),
    "image/filename": tf.io.FixedLenFeature([], tf.string, ""),
}


class Index(NamedTuple):
    """Where each record of a split lies."""

    files: list[str]
    shards: np.ndarray  # int32 [examples], index into files
    offsets: np.ndarray  # int64 [examples], byte offset of the record in its file
    replaced: np.ndarray  # bool [examples]: corrupt, and another record stands in its place

    def take(self, rows: np.ndarray) -> "Index":
        """The index of some of the records."""
        return Index(self.files, self.shards[rows], self.offsets[rows], self.replaced[rows])

    def intact(self) -> "Index":
        """Without the records that are replaced: evaluation counts none twice."""
        return self.take(np.flatnonzero(~self.replaced))

    def place(self, row: int) -> tuple[str, int]:
        """Shard and byte offset of a record."""
        return self.files[self.shards[row]], int(self.offsets[row])


def has_dataset(directory: str) -> bool:
    """Whether there is a data set that load_dataset reads: converted, or TF-Slim's."""
    return any(os.path.exists(os.path.join(directory, name)) for name in (DATASET_JSON, LABELS_TXT))


@os_errors_as_user_errors()
def load_dataset(directory: str) -> dict:
    """Reads dataset.json, or finds out what it would say of TF-Slim's shards. Raises UserError where both are missing
    or damaged."""
    path = Path(directory) / DATASET_JSON
    try:
        dataset = json.loads(read_regular(path))
    except FileNotFoundError:
        if (path.parent / LABELS_TXT).exists():
            return _slim_dataset(Path(directory))
        raise UserError(
            f"{path} is missing; make it with python -m pipeline.convert NAME --out {directory}, "
            f"or name another directory of shards with --data (TF-Slim's own have {LABELS_TXT} instead)"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); convert the data again") from None
    mistake = _mistake(dataset)
    if mistake:
        raise UserError(f"{path} is no description of a data set: {mistake}; convert the data again")
    return dataset


def _mistake(dataset: object) -> str | None:
    """Why this is not what dataset.json holds: what is read here may have been edited by hand."""
    if not isinstance(dataset, dict):
        return "it is no object"
    names, splits = dataset.get("class_names"), dataset.get("splits")
    if not isinstance(names, list) or not all(map(is_text, names)) or not 2 <= len(names) == len(set(names)):
        return "class_names must be two names or more, each once"
    if not _is_whole(dataset.get("channels")) or dataset["channels"] not in (1, 3):
        return "channels must be 1 or 3"
    if dataset.get("short_side") is not None and not (_is_whole(dataset["short_side"]) and dataset["short_side"]):
        return "short_side must be at least 1, or null"
    if not isinstance(dataset.get("statistics"), dict | None):
        return "statistics must be an object or null"
    if not isinstance(splits, dict) or not all(map(_is_split, splits.values())):
        return "each of splits must have the number of its examples and a list of shards, files beside it, that add up"
    files = [shard["file"] for part in splits.values() if "every" not in part for shard in part["shards"]]
    return None if len(files) == len(set(files)) else "a shard is there twice"


def _is_whole(value: object) -> bool:
    return type(value) is int and value >= 0  # True is an int, too


def _is_split(part: object) -> bool:
    if not isinstance(part, dict) or not _is_whole(part.get("examples")) or not isinstance(part.get("shards"), list):
        return False
    for shard in part["shards"]:
        if not isinstance(shard, dict) or not _is_whole(shard.get("examples")) or not is_text(shard.get("file")):
            return False
        if shard["examples"] > MOST_RECORDS or not re.fullmatch(r"(?!\.\.?$)[^/\0]+", shard["file"]):
            return False
    if "every" in part:
        return part["every"] in ("tenth", "other")
    return part["examples"] == sum(shard["examples"] for shard in part["shards"])


def load_index(directory: str, dataset: dict, split: str, on_error: str = "stop") -> Index:
    """Finds the records of a split, each checked against its CRCs once (shard_index says how), and compares their
    number with dataset.json.

    Args:
        directory: of the shards.
        dataset: what load_dataset gives.
        split: train, validation or test.
        on_error: 'stop' raises at a corrupt record; 'skip' puts another one of the split in its place, the same each
            time, so that the order of the others does not change.

    Raises:
        UserError: a split the data lacks; shards that are missing, cut short, of another length or corrupt.
    """
    if not dataset["splits"].get(split, {}).get("examples"):
        have = ", ".join(name for name, part in dataset["splits"].items() if part["examples"])
        raise UserError(f"{directory} has no {split} split; it has {have}")
    part = dataset["splits"][split]
    names = [shard["file"] for shard in part["shards"]]
    contents = scan(directory, names)
    shards, offsets, faults = [], [], []
    for i, (content, shard) in enumerate(zip(contents, part["shards"], strict=True)):
        path, expected = os.path.join(directory, shard["file"]), shard["examples"]
        found = content.offsets
        missing = expected - len(found)
        if missing < 0 or (missing and not content.faults and on_error == "stop"):
            raise UserError(
                f"{path} holds {len(found)} records, dataset.json says {expected}; convert the data again"
                + ("" if missing < 0 else ", or go on without what is missing: --on-error skip")
            )
        start = sum(map(len, offsets))
        faults += [
            (start + position, f"{path}: the record at byte {found[position]} is corrupt: {text}")
            for position, text in content.faults.items()
        ]
        lost = f"{path} ends after {len(found)} records, dataset.json says {expected}"
        faults += [(start + position, lost) for position in range(len(found), expected)]
        shards.append(np.full(expected, i, np.int32))
        offsets.append(np.concatenate([found, np.full(max(missing, 0), -1, np.int64)]))
    index = Index(
        [os.path.join(directory, name) for name in names],
        np.concatenate(shards),
        np.concatenate(offsets),
        np.zeros(sum(map(len, offsets)), bool),
    )
    if faults:
        index = _without(index, faults, on_error, directory)
    if "every" in part:
        held_out = np.arange(len(index.offsets)) % HELD_OUT == HELD_OUT - 1
        index = index.take(np.flatnonzero(held_out if part["every"] == "tenth" else ~held_out))
    return index


def _without(index: Index, faults: list[tuple[int, str]], on_error: str, directory: str) -> Index:
    """The index with others in the place of corrupt and missing records, or the error that names the first of them."""
    first = faults[0][1]
    if on_error == "stop":
        raise UserError(
            f"{first}; {len(faults)} of {len(index.offsets)} records are corrupt or missing; python -m pipeline.check "
            f"{directory} names them. Convert the data again, or go on with others in their place: --on-error skip"
        )
    print(f"{first}; others stand in for {len(faults)} such records")
    rows = np.array([row for row, _ in faults])
    index.replaced[rows] = True
    intact = np.flatnonzero(~index.replaced)
    if not len(intact):
        raise UserError(f"{directory}: no record is intact; convert the data again")
    for row in rows:
        other = np.random.default_rng(row).choice(intact)
        index.shards[row], index.offsets[row] = index.shards[other], index.offsets[other]
    return index


_SLIM_NAME = re.compile(r"(?:.+_)?(train|validation|valid|val|test)(?:[-_]\d+-of-\d+)?(?:\.tfrecords?)?")


def _slim_dataset(directory: Path) -> dict:
    """What dataset.json would say of TF-Slim's shards and labels.txt. They carry no statistics."""
    class_names = _read_labels(directory / LABELS_TXT)
    files: dict[str, list[str]] = {}
    for path in listed(directory)[1]:
        match = _SLIM_NAME.fullmatch(path.name)
        if match:
            files.setdefault(SPLIT_NAMES[match[1]], []).append(path.name)
    splits = {}
    for split, names in files.items():
        counts = [len(content.offsets) for content in scan(str(directory), names)]
        shards = [{"file": name, "examples": count} for name, count in zip(names, counts, strict=True)]
        splits[split] = {"examples": sum(counts), "shards": shards}
    if not any(part["examples"] for part in splits.values()):
        raise UserError(
            f"{directory} has {LABELS_TXT} but no records in files named like flowers_train_00000-of-00005.tfrecord or "
            "train-00000-of-01024"
        )
    first = next(shard["file"] for part in splits.values() for shard in part["shards"] if shard["examples"])
    if "train" in splits and "validation" not in splits:
        whole = splits["train"]
        held_out = whole["examples"] // HELD_OUT
        splits["train"] = {**whole, "examples": whole["examples"] - held_out, "every": "other"}
        splits["validation"] = {**whole, "examples": held_out, "every": "tenth"}
    return {
        "class_names": class_names,
        "channels": _channels(directory / first),
        "splits": splits,
        "statistics": None,
    }


def _read_labels(path: Path) -> list[str]:
    """TF-Slim's labels.txt: a line 'NUMBER:NAME' for each class. A name that several share gets its number."""
    names = {}
    for number, line in enumerate(read_regular(path).decode("utf-8", "replace").splitlines(), start=1):
        label, colon, name = line.partition(":")
        if not line.strip():
            continue
        if not colon or not re.fullmatch(r"\s*\d{1,9}\s*", label) or int(label) in names:
            raise UserError(f"{path}, line {number}, is {line[:80]!r}; it must be like '0:daisy', each number once")
        names[int(label)] = name.strip()
    if len(names) < 2 or max(names) >= 2 * len(names) + 1:
        raise UserError(
            f"{path} names {len(names)} classes up to number {max(names, default=0)}; at least two are needed"
        )
    every = [names.get(i, "background" if i == 0 else f"class {i}") for i in range(max(names) + 1)]
    shared = Counter(every)
    return [f"{name} ({i})" if shared[name] > 1 else name for i, name in enumerate(every)]


def _channels(path: Path) -> int:
    """1 where the first picture of a shard is grey, else 3."""
    found = next(tfrecord.walk(path))
    try:
        features = tf.train.Example.FromString(found.payload or b"").features.feature
        header = Image.open(io.BytesIO(features["image/encoded"].bytes_list.value[0]))
    except Exception as error:  # protobuf's, Pillow's, or an empty list
        raise UserError(f"{path}: the first record is no picture with TF-Slim's keys ({error})") from None
    return 1 if header.mode in ("L", "1") else 3
