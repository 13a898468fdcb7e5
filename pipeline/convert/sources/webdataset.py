"""Tar archives as webdataset writes them: files of one name, up to its first dot, are one example."""

import re
from collections import Counter
from pathlib import Path

from errors import UserError
from files import all_files, read_regular
from pipeline.convert import members
from pipeline.convert.members import TarMember
from pipeline.convert.sources import Example, Source
from pipeline.convert.sources.shards import UNFINISHED, find_shards, label_numbers
from pipeline.images import EXTENSIONS
from pipeline.listing import CLASS_FILES

ARRAY = ".npy"
MOST_LABEL = 1000  # bytes of a .cls file
_KEY = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)")  # of base_plus_ext in webdataset's tariterators.py
_PACKED = re.compile(r"\.(tar\.\w+|tgz|tbz2?|txz)$")
_META = re.compile(r"__[^/]*__($|/)")  # of its tar_file_iterator
COUNT_FILE = "nshards.txt"  # beside the shards of CLIP's benchmark


class _Sample:
    """The files of an example that are used."""

    def __init__(self) -> None:
        self.picture: tuple[str, TarMember] | None = None
        self.label: tuple[str, TarMember] | None = None


def webdataset(source: Path | None, cache: Path) -> Source:
    """Tar shards with KEY.jpg and KEY.cls for each picture, or one such tar; and classnames.txt.
    Splits are found by the names of the shards or their folders. KEY.cls holds a number or a class name; the names of
    numbers are in classnames.txt, classes.txt or labels.txt, one a line or as NUMBER:NAME."""
    if source is None:
        raise UserError("the webdataset source needs --source DIR with tar shards, or one tar")
    shards = find_shards(source, ".tar") if source.is_file() else _shards(source)
    root = source.parent if source.is_file() else source
    ignored: Counter = Counter()
    found = {split: [row for path in paths for row in _read(path, root, ignored)] for split, paths in shards.items()}
    labels = {split: [label for _, label, _ in rows] for split, rows in found.items()}
    negative = min((x for part in labels.values() for x in part if isinstance(x, int)), default=0)
    if negative < 0:
        raise UserError(f"{source} has labels without a class: {negative}; numbers in .cls files must be 0 or more")
    names, numbers = label_numbers(labels, _class_names(root, shards), source)
    splits = {
        split: [Example(name, numbers[label], image) for name, label, image in rows] for split, rows in found.items()
    }
    return Source(names, 3, splits, dict(sorted(ignored.items())))


def _shards(source: Path) -> dict[str, list[Path]]:
    files = all_files(source)
    names = [(path, path.name.lower()) for path in files]
    packed = [path for path, name in names if _PACKED.search(name) and not name.endswith(UNFINISHED)]
    if packed:
        why = "pictures are read by their place, which needs plain tar files"
        raise UserError(f"{packed[0]} is compressed; {why}: decompress each of the shards, as with gunzip")
    shards = find_shards(source, ".tar")
    for path in (path for path in files if path.name == COUNT_FILE):
        there = sum(shard.parent == path.parent for part in shards.values() for shard in part)
        if (total := read_regular(path).decode("utf-8", "replace").strip()) != str(there):
            raise UserError(f"{path} says {total[:80]!r} shards, but {there} are there; fetch the others")
    return shards


def _read(path: Path, root: Path, ignored: Counter) -> list[tuple[str, int | str, TarMember]]:
    """The file name, label and picture of each example of a shard. Counts the files that are not used.

    Raises UserError for a picture without a label, a label without a picture, and two of them with one key.
    """
    with path.open("rb") as file:
        start = file.read(512)
    if not members.is_tar(start):
        raise UserError(f"{path} is no tar archive, or a compressed one; decompress it, or remove it")
    samples: dict[str, _Sample] = {}
    for name, member in members.read_index(path, path, is_zip=False)[0].items():
        match = _KEY.fullmatch(name)
        ending = f".{match[2].lower()}" if match else ""
        if _META.match(name) or (ending != ".cls" and ending not in EXTENSIONS):
            ignored[ending or "without an ending"] += 1
            continue
        field, sample = "label" if ending == ".cls" else "picture", samples.setdefault(match[1], _Sample())
        if sample.picture and field == "picture" and _is_array(name) != _is_array(sample.picture[0]):
            ignored[ARRAY] += 1  # an embedding beside its picture
            if _is_array(name):
                continue
            sample.picture = None
        if first := getattr(sample, field):
            raise UserError(f"{path} holds {first[0]} and {name}, two files for one {field}; leave one out")
        setattr(sample, field, (name, member))
    if not samples:
        kinds = ", ".join(ignored) or "nothing"
        raise UserError(f"{path} holds no pictures with .cls files, only {kinds}")
    for sample in samples.values():
        if not sample.label or not sample.picture:
            alone, lacks = (sample.picture, "label, .cls") if sample.picture else (sample.label, "picture")
            raise UserError(f"{path} holds {alone[0]} without a {lacks}, of the same name up to the first dot")
    place = path.relative_to(root)
    return [(f"{place}/{s.picture[0]}", _label(path, *s.label), s.picture[1]) for s in samples.values()]


def _is_array(name: str) -> bool:
    return name.lower().endswith(ARRAY)


def _label(path: Path, name: str, member: TarMember) -> int | str:
    """The content of a .cls file: a number, or the name of a class."""
    try:
        text = member.read().decode().strip() if member.size <= MOST_LABEL else ""
    except UnicodeDecodeError:
        text = ""
    if not text or not text.isprintable():
        raise UserError(f"{path} holds {name}, which is no text of a number or a class name")
    return int(text) if re.fullmatch(r"-?\d{1,18}", text) else text


def _class_names(root: Path, shards: dict[str, list[Path]]) -> list[str] | None:
    """The class names of CLASS_FILES beside the shards or in `root`; None where there are none."""
    folders = {root, *(path.parent for paths in shards.values() for path in paths)}
    found = [path for folder in sorted(folders) for path in map(folder.joinpath, CLASS_FILES) if path.is_file()]
    lists = [_read_class_names(path) for path in found]
    for path, names in zip(found, lists, strict=True):
        if names != lists[0]:
            raise UserError(f"{found[0]} and {path} name other classes; keep the one that belongs to the labels")
    return lists[0] if lists else None


def _read_class_names(path: Path) -> list[str]:
    """The names in a file, one a line or all as NUMBER:NAME; a name that several classes share gets its number."""
    try:
        names = [line.strip() for line in read_regular(path).decode("utf-8-sig").strip().splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8 ({error})") from None
    numbered = [re.fullmatch(r"(\d{1,9}):(.*)", name) for name in names]
    if all(numbered):
        if sorted(int(match[1]) for match in numbered) != list(range(len(names))):
            raise UserError(f"{path} must number its {len(names)} classes from 0, each number once")
        names = [match[2].strip() for match in sorted(numbered, key=lambda match: int(match[1]))]
    if len(names) < 2 or not all(names):
        raise UserError(f"{path} must have a class name in each line, at least two")
    shared = Counter(names)
    return [f"{name} ({number})" if shared[name] > 1 else name for number, name in enumerate(names)]
