"""Directories of TF-Slim's scripts: shards named by split, and labels.txt; what dataset.json would say about them.

tfds_directory does the same for TensorFlow Datasets, whose shards are found and described here as well.
"""

import io
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping

import numpy as np
from PIL import Image

from errors import UserError
from pipeline import storage
from pipeline.index import Content, InvalidExample, read_example, scan
from pipeline.records import SLIM, wrong_format
from pipeline.splits import BY_PICTURE, BY_POSITION, Split, members
from pipeline.tfrecord import SPLIT_NAMES

LABELS_TXT = "labels.txt"
MOST_SHARDS = 100_000  # that a name may speak of: each missing one is named in dataset.json of a run
SAMPLE = 1000  # records whose headers are read: data are grey where all of these are
Names = dict[str, list[str]]  # of files, by split
GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B")

_NAME = re.compile(
    r"((?:.+_)?)(train|validation|valid|val|test)(?:[-_]?(\d+)(?:-of-(\d+))?)?(?:\.tfrec(?:ords?)?)?(?:\.gz)?"
)
_RECORDS = re.compile(r".+(?:\.tfrec(?:ords?)?|-\d+-of-\d+)(?:\.gz)?")


def describe(directory: str, like: Mapping | None = None) -> dict:
    """The content of a dataset.json for TF-Slim's shards and labels.txt, which have no statistics.

    like is the description of a run's data: channels are the run's, and so is the way in which validation is held out,
    where there is no such split. Raises UserError for a directory that cannot be read as one data set.
    """
    classes, first = _read_labels(os.path.join(directory, LABELS_TXT))
    names, missing = find_shards(directory, _NAME)
    contents = {split: scan(directory, part, SLIM) for split, part in names.items()}
    if not any(len(content.offsets) for part in contents.values() for content in part):
        named = "flowers_train_00000-of-00005.tfrecord or train-00000-of-01024"
        raise UserError(f"{directory} has {LABELS_TXT} but no records in files named like {named}")
    if first == 1:
        _check_first(
            os.path.join(directory, LABELS_TXT), [each for part in contents.values() for each in part], len(classes) - 1
        )
    channels = like["channels"] if like else _channels(directory, names, contents)
    counts = {split: [len(content.offsets) for content in part] for split, part in contents.items()}
    splits = describe_splits(names, missing, contents, counts, like)
    return {"class_names": classes, "channels": channels, "splits": splits, "statistics": None}


def describe_splits(
    names: Names,
    missing: Names,
    contents: dict[str, list[Content]],
    counts: dict[str, list[int]],
    like: Mapping | None,
) -> dict[str, dict]:
    """The `splits` of dataset.json; validation is held out of train where there is none.

    All are by split: the files, the names of those that are missing, what the files hold, and what they should hold.
    """
    splits = {}
    for split, part in names.items():
        shards = [{"file": name, "examples": count} for name, count in zip(part, counts[split], strict=True)]
        splits[split] = {"examples": sum(counts[split]), "shards": shards}
        if missing[split]:
            splits[split]["missing"] = missing[split]
    if "train" in splits and "validation" not in splits:
        splits |= _hold_out(splits["train"], contents["train"], like)
    return splits


def _hold_out(train: dict, contents: list[Content], like: Mapping | None) -> dict[str, dict]:
    """The description of the splits train and validation, both of the training shards."""
    earlier = bool(like) and "every" in like["splits"].get("validation", {})  # a run of an earlier version
    key, (held_out, rest) = ("every", BY_POSITION) if earlier else ("part", BY_PICTURE)
    shards = zip(contents, train["shards"], strict=True)
    notes = np.concatenate([content.padded(shard["examples"]) for content, shard in shards])
    examples = int(np.count_nonzero(members(Split(0, (), held_out), notes)))
    return {
        "train": {**train, "examples": train["examples"] - examples, key: rest},
        "validation": {**train, "examples": examples, key: held_out},
    }


def find_shards(directory: str, pattern: re.Pattern) -> tuple[Names, Names]:
    """The files of each split, and the names of those that are missing or empty.

    The groups of the pattern are all before the word for the split, that word, the number and the total.
    Raises UserError for two sets of one split.
    """
    files: Names = {}
    sets: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)  # (split, prefix): files and their numbers
    missing: Names = defaultdict(list)
    kinds: dict[tuple[str, str], tuple[str, int]] = {}  # the word for the split and the number of shards, 0 for none
    for name in storage.list_files(directory):
        if not (match := pattern.fullmatch(name)):
            continue
        prefix, word, number, total = match.groups()
        if int(total or 0) > MOST_SHARDS:
            raise UserError(
                f"{directory}/{name} is one of {total} shards by its name; at most {MOST_SHARDS:,} are allowed; "
                "correct the name"
            )
        key, kind, number = (SPLIT_NAMES[word], prefix), (word, int(total or 0)), int(number or 0)
        if kinds.setdefault(key, kind) != kind or number in sets[key].values():
            one = next(one for one, other in sets[key].items() if kinds[key] != kind or other == number)
            raise UserError(
                f"{directory} has {one} and {name}, which are of two conversions of the {key[0]} split; "
                "keep the shards of one, and move the others away"
            )
        sets[key][name] = number
        files.setdefault(key[0], []).append(name)
    for split, part in files.items():  # TF-Slim writes none that are empty: a copy that failed
        empty = storage.empty_files(directory, part)
        missing[split] += [name for name in part if name in empty]
    for key, shards in sets.items():
        missing[key[0]] += _missing(directory, shards, kinds[key][1]) if kinds[key][1] else []
    return files, missing


def left_out(directory: str) -> list[str]:
    """Names of files of records that are of no split by their names."""
    return [name for name in storage.list_files(directory) if _RECORDS.fullmatch(name) and not _NAME.fullmatch(name)]


def _missing(directory: str, shards: dict[str, int], total: int) -> list[str]:
    """The names of missing shards, of `total` that count from 0 or 1. Raises UserError for one that is too many."""
    numbers = set(shards.values())
    first = 1 if 0 not in numbers and total in numbers else 0
    last = max(shards, key=shards.get)
    if shards[last] >= first + total:
        raise UserError(f"{directory} has {last}, a shard too many by its own name; remove it, or correct the name")
    lacking = [number for number in range(first, first + total) if number not in numbers]
    return [re.sub(r"\d+(?=-of-)", lambda match, i=i: f"{i:0{len(match[0])}d}", last) for i in lacking]


def _read_labels(path: str) -> tuple[list[str], int]:
    """The class names of TF-Slim's labels.txt, and its first number. It has a line 'NUMBER:NAME' for each class.

    A name that several share gets its number.
    """
    names = {}
    for number, line in enumerate(storage.read(path).decode("utf-8-sig", "replace").splitlines(), start=1):
        label, colon, name = line.partition(":")
        if not line.strip():
            continue
        if not colon or not re.fullmatch(r"\s*\d{1,9}\s*", label) or int(label) in names:
            raise UserError(f"{path}, line {number}, is {line[:80]!r}; it must be like '0:daisy', each number once")
        names[int(label)] = name.strip()
    last = max(names, default=0)
    if len(names) < 2:
        raise UserError(f"{path} names {len(names)} classes; at least two are needed")
    if last > 2 * len(names):
        raise UserError(
            f"{path} names {len(names)} classes up to number {last}; at most every second number may be left out: "
            "number the classes from 0, and convert the data again where their labels are other ones"
        )
    every = [names.get(i, "background" if i == 0 else f"class {i}") for i in range(last + 1)]
    shared = Counter(every)
    return [f"{name} ({i})" if shared[name] > 1 else name for i, name in enumerate(every)], min(names)


def _check_first(path: str, contents: list[Content], last: int) -> None:
    """Raises UserError where labels.txt counts from 1, but the labels from 0: each name would be of another class."""
    labels = np.unique(np.concatenate([content.notes["label"] for content in contents]))
    if 0 in labels and last not in labels:
        raise UserError(
            f"{path} counts from 1, but the labels of the records from 0: none is {last}; number its lines from 0, "
            "or add a line '0:NAME' where class 0 is one more class"
        )


def _channels(directory: str, names: dict[str, list[str]], contents: dict[str, list[Content]]) -> int:
    """1 where all pictures of a sample that is spread over all shards are grey, else 3.

    Raises UserError where the training records, or without such the first ones, hold no labelled pictures.
    """
    splits = sorted(names, key=lambda split: split != "train")
    shards = [shard for split in splits for shard in zip(names[split], contents[split], strict=True)]
    ends = np.cumsum([len(content.offsets) for _, content in shards])
    training = ends[len(names["train"]) - 1] if "train" in names else 0
    reason, usable = None, False
    for row in np.unique(np.linspace(0, ends[-1] - 1, SAMPLE, dtype=np.int64)):
        if row >= training > 0 and not usable:
            break
        shard = int(np.searchsorted(ends, row, "right"))
        path, offset = os.path.join(directory, shards[shard][0]), int(shards[shard][1].offsets[row - ends[shard]])
        try:
            example = read_example(path, offset, SLIM)
            if unusable := wrong_format(example.encoded, example.size):
                raise InvalidExample(unusable)
            mode = Image.open(io.BytesIO(example.encoded)).mode
        except Exception as error:  # InvalidExample, or what Pillow's plugins raise
            said = str(error) if isinstance(error, InvalidExample) else "its picture is damaged"
            reason = reason or f"{path}: the record at byte {offset}: {said}"
            continue
        usable = True
        if mode not in GREY_MODES:
            return 3
    if not usable:
        raise UserError(f"no record is a labelled picture as TF-Slim stores them. {reason}")
    return 1
