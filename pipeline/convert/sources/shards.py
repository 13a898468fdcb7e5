"""Data in several files, such as train-00000-of-00002.parquet: which split each is of, and whether some are missing."""

import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pooch

from errors import UserError
from files import all_files, open_regular
from pipeline.convert.sources.layout import WORDS
from pipeline.convert.sources.tables import class_names_of
from pipeline.tfrecord import SPLITS

_OF = re.compile(r"(.*?)[-_.]?(\d{1,9})-of-(\d{1,9})(?:-[0-9a-f]+)?")  # the Hub once appended a hash
_NUMBERED = re.compile(r"(.*?)(\d{1,9})")
# What browsers and other programs append to the name of a file until it is complete.
UNFINISHED = ".part", ".partial", ".crdownload", ".download", ".aria2", ".incomplete"
START = 2**16  # bytes of files of one size that are compared before all of them are
NAMED = 3  # files that a message names
MOST = 1_000_000  # shards of one split


class _Sequence(NamedTuple):
    """Files that differ only in their number."""

    folder: Path
    prefix: str
    total: int | None  # where their names say it


def find_shards(source: Path, ending: str) -> dict[str, list[Path]]:
    """{split: its files that have the ending, in any case, in order}. `source` is a directory or one file.

    A split is a word in the name of the file or of a folder that it is in: imagenet1k-validation-00.tar, train/0.tar.
    Without such words all files are the training split. Prints a note where a number is missing between others.

    Raises UserError for no files, for names that mean two splits or none beside others that do, for splits without
    train that are not test alone, for files that are missing or too many by a number such as -of-00002, for files of a
    split with equal content, and for unfinished downloads.
    """
    there = [source] if source.is_file() else all_files(source)
    files = [source] if source.is_file() else [path for path in there if path.name.lower().endswith(ending)]
    names = ((path, path.name.lower()) for path in there)
    if unfinished := next((path for path, name in names if ending in name and name.endswith(UNFINISHED)), None):
        raise UserError(f"{unfinished} is an unfinished download; fetch the whole file, or remove it")
    root = source.parent if source.is_file() else source
    if not files:
        raise UserError(f"{source} holds no {ending} files")
    found = defaultdict(list)
    for path in files:
        found[_split(path, root)].append(path)
    if None in found and len(found) > 1:
        names = ", ".join(map(str, found[None][:NAMED]))
        raise UserError(f"{names}: no split is in the name, such as train or test, but in those of other files; rename")
    splits = {split or "train": paths for split, paths in found.items()}
    if "train" not in splits and set(splits) != {"test"}:
        needed = "train must be among them, or test alone, to evaluate on: rename the files"
        raise UserError(f"{source} has only {' and '.join(splits)} by the names of its files; {needed}")
    for split, paths in splits.items():
        _check(split, paths)
        _check_copies(split, paths)
    return {split: splits[split] for split in SPLITS if split in splits}


def _split(path: Path, root: Path) -> str | None:
    parts = [*path.relative_to(root).parent.parts, path.name.partition(".")[0]]
    words = [word for part in parts for word in re.findall(r"[a-z]+", part.lower()) if word in WORDS]
    if len({WORDS[word] for word in words}) > 1:
        raise UserError(f"{path} has {' and '.join(words)} in its name, which are two splits; rename it")
    return WORDS[words[0]] if words else None


def _check(split: str, paths: list[Path]) -> None:
    """Raises UserError, or prints a note, where files of a split are missing, or are of two sets."""
    sequences: dict[_Sequence, dict[int, Path]] = defaultdict(dict)
    for path in paths:
        stem = path.name.partition(".")[0]
        if match := _OF.fullmatch(stem):
            key, number = _Sequence(path.parent, match[1], int(match[3])), int(match[2])
        elif match := _NUMBERED.fullmatch(stem):
            key, number = _Sequence(path.parent, match[1], None), int(match[2])
        else:
            continue
        if number in sequences[key]:
            raise UserError(f"{sequences[key][number]} and {path} have one number; remove one of them")
        sequences[key][number] = path
    declared = [key for key in sequences if key.total is not None]
    if len(declared) > 1:
        one, two = (min(sequences[key].values()) for key in declared[:2])
        raise UserError(f"{one} and {two} are of two sets of the {split} split; give the folder of one with --source")
    for key, numbered in sequences.items():
        lacking = _lacking(key, numbered)
        names = [_other(numbered[min(numbered)].name, number) for number in lacking[:NAMED]]
        names = f"{', '.join(names)}{', …' if lacking[NAMED:] else ''}"
        if lacking and key.total is not None:
            raise UserError(f"{key.folder} lacks {len(lacking)} of {key.total} files of {split}: {names}; fetch them")
        if lacking:
            print(f"note: {key.folder} lacks {len(lacking)} files by the numbers of others ({names}); these are read")


def _check_copies(split: str, paths: list[Path]) -> None:
    """Raises UserError for two files of equal content: all of their pictures would be twice in a split."""
    groups = [paths]
    for key in _size, _start, pooch.file_hash:  # most files differ by what is read first
        keyed = [(key(path), path) for group in groups for path in group]
        alike = defaultdict(list)
        for value, path in keyed:
            alike[value].append(path)
        groups = [group for value, group in alike.items() if len(group) > 1 and value]
    if groups:
        first, second = groups[0][:2]
        raise UserError(f"{first} and {second} of {split} have the same content; remove one of them")


def _size(path: Path) -> int:
    return path.stat().st_size


def _start(path: Path) -> tuple[int, bytes]:
    with open_regular(path) as file:
        return _size(path), file.read(START)


def _lacking(key: _Sequence, numbered: dict[int, Path]) -> list[int]:
    """The numbers that are missing. Sequences count from 0 or 1; a single file, as of val2017.tar, is none."""
    last = max(numbered)
    if key.total is None:
        if len(numbered) == 1 or last >= MOST:  # the synset n01440764 is no number of a shard
            return []
        padded = numbered[min(numbered)].name.partition(".")[0].removeprefix(key.prefix).startswith("0")
        first = min(numbered) if not padded else min(1, *numbered)
    else:
        first = 1 if 0 not in numbered and key.total in numbered else 0
        if not first <= last < first + key.total <= MOST:
            raise UserError(f"{numbered[last]} has a number that no file of {key.total} has; remove or rename it")
        last = first + key.total - 1
    return [number for number in range(first, last + 1) if number not in numbered]


def _other(name: str, number: int) -> str:
    """The name of the file of another number."""
    return re.sub(r"\d+(?=-of-|\.|$)", lambda match: f"{number:0{len(match[0])}d}", name, count=1)


def label_numbers(labels: dict[str, list], names: list[str] | None, place: object) -> tuple[list[str], dict]:
    """The class names, and the number of each label. `labels` are those of each split: numbers, or class names.

    With `names`, a number is that of a name; without, the labels of the training split, or of test alone, are the
    names. Raises UserError, which names `place`, for a label that is no class.
    """
    if names:
        numbers = {name: number for number, name in enumerate(names)}
        numbers |= {number: number for number in range(len(names))}
    else:
        names = class_names_of({str(label) for label in labels["train" if "train" in labels else "test"]})
        numbers = {name: number for number, name in enumerate(names)}
        numbers |= {int(name): number for name, number in numbers.items() if name.isdecimal() and len(name) < 20}
    unknown = {str(label) for part in labels.values() for label in set(part) if label not in numbers}
    if unknown:
        allowed = f"the classes are {names[0]} to {names[-1]}, {len(names)} in all"
        kinds = ", ".join(sorted(unknown)[:NAMED])
        raise UserError(f"{place} has labels without a class: {kinds[:200]}; {allowed}")
    return names, numbers
