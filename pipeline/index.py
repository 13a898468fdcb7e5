"""Records: their content, a tf.train.Example, and their places in the shards of a split.

Byte offsets and corrupt records are found once and stored beside the shards.
"""

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pooch
from google.protobuf.message import DecodeError
from tqdm import tqdm

from errors import UserError
from files import absolute, atomic_write, check_unpacked, is_remote, open_regular
from pipeline import images, storage, tfrecord
from pipeline.records import NO_NOTE, NOTE, SLIM, RecordKeys, describe_features, note
from pipeline.splits import BY_POSITION, Split, members
from tfcompat import tf

INDEX_NPZ = ".index.npz"
VERSION = b"2"  # of what a NOTE holds; an index of another version is made anew
SUBSET = 2  # folded into the seed, beside the purposes of pipeline.batches


class InvalidExample(Exception):
    """A payload that is no labelled picture; the message says why. `label` is its label, where it has one."""

    def __init__(self, message: str, label: int | None = None):
        super().__init__(message)
        self.label = label


class StoredExample(NamedTuple):
    """A parsed record."""

    encoded: bytes  # JPEG or PNG
    label: int
    filename: str  # of the picture that it was made from; '' where the record has none
    size: tuple[int, int]  # height and width as the record states them, 0 where it does not

    def pixels(self, channels: int) -> np.ndarray:
        """Decodes the picture: uint8 [H, W, channels]. Raises images.ImageError."""
        return images.stored_pixels(self.encoded, channels)


def parse(payload: bytes, keys: RecordKeys) -> StoredExample:
    """Parses the payload of a record. Raises InvalidExample where it is no labelled picture."""
    try:
        features = tf.train.Example.FromString(payload).features.feature
    except DecodeError:
        raise InvalidExample("it is no tf.train.Example") from None
    labels, encoded = features[keys.label].int64_list.value, features[keys.encoded].bytes_list.value
    if len(labels) != 1:
        raise InvalidExample(f"it has no {keys.label} that is one int64; {describe_features(payload)}")
    if len(encoded) != 1:
        raise InvalidExample(f"it has no {keys.encoded}, one file as bytes; {describe_features(payload)}", labels[0])
    names = (keys.filename and features[keys.filename].bytes_list.value) or [b""]
    height, width = ((features[side].int64_list.value or [0])[0] for side in keys.size) if keys.size else (0, 0)
    return StoredExample(encoded[0], labels[0], names[0].decode(errors="backslashreplace"), (height, width))


def read_example(path: str, offset: int, keys: RecordKeys) -> StoredExample:
    """Reads the record at a byte offset of a shard. Raises InvalidExample, or OSError where that fails."""
    found = tfrecord.read_at(path, offset, storage.open_file)
    if found.payload is None:
        raise InvalidExample(found.fault)
    return parse(found.payload, keys)


def parse_tensor(serialized: tf.Tensor, keys: RecordKeys) -> tuple[tf.Tensor, tf.Tensor]:
    """Parses a serialized example, a scalar string: the encoded picture, a scalar string, and its label, int64."""
    types = {keys.encoded: tf.string, keys.label: tf.int64}
    features = {key: tf.io.FixedLenFeature([], dtype) for key, dtype in types.items()}
    parsed = tf.io.parse_single_example(serialized, features)
    return tuple(parsed[key] for key in types)


class Index(NamedTuple):
    """Where each record of a split lies."""

    files: list[str]
    shards: np.ndarray  # int32 [examples], index into files
    offsets: np.ndarray  # int64 [examples], byte offset of the record in its file
    replaced: np.ndarray  # bool [examples], whether the record is corrupt and another record replaces it
    keys: RecordKeys  # of all of them
    lost: str = ""  # how many records are lost at the ends of damaged shards, beside these; '' for none

    def take(self, rows: np.ndarray) -> "Index":
        """The index of some of the records."""
        return self._replace(shards=self.shards[rows], offsets=self.offsets[rows], replaced=self.replaced[rows])

    def intact(self) -> "Index":
        """Without the replaced records, so that evaluation counts no record twice."""
        return self.take(np.flatnonzero(~self.replaced))

    def first_shuffled(self, examples: int | None, seed: int) -> "Index":
        """The first `examples` records of the shuffled index; all for None. A smaller set is part of a larger one."""
        if examples is None or examples >= len(self.offsets):
            return self
        return self.take(np.random.default_rng([seed, SUBSET]).permutation(len(self.offsets))[:examples])

    def place(self, row: int) -> tuple[str, int]:
        """Shard and byte offset of a record."""
        return self.files[self.shards[row]], int(self.offsets[row])

    def example(self, row: int) -> StoredExample:
        """Reads and parses a record."""
        return read_example(*self.place(row), self.keys)

    def pictures(self, rows: Sequence[int], channels: int) -> list[np.ndarray]:
        """The pictures of some records as they are stored, uint8 [H, W, channels]."""
        return [self.example(row).pixels(channels) for row in rows]


def make_index(directory: str, part: Split, on_error: str, keys: RecordKeys, counted_in: str | None) -> Index:
    """Finds the records of a split, each checked against its CRCs once.

    counted_in is the file that states their number, with which it is compared; None for none. on_error='skip' replaces
    a corrupt record by another one, the same each time, so that the order of the others does not change; 'stop' raises
    UserError for it, as for shards that are missing, cut short or of another length.
    """
    if on_error not in ("stop", "skip"):
        raise UserError(f"--on-error is {on_error!r}; it must be stop or skip")
    if part.missing:
        _report_missing(directory, part, on_error)
    names = [shard.file for shard in part.shards]
    files = [os.path.join(directory, name) for name in names]
    offsets, notes, faults = [], [], {}
    contents = scan(directory, names, keys)
    for path, content, (_, expected) in zip(files, contents, part.shards, strict=True):
        start, found = sum(map(len, offsets)), content.offsets
        missing, counts = (
            expected - len(found),
            f"{len(found)} records, {counted_in or tfrecord.DATASET_JSON} says {expected}",
        )
        if missing < 0 or (missing and not content.faults and on_error == "stop"):
            skip = "" if missing < 0 else ", or continue without the missing ones: --on-error skip"
            raise UserError(f"{path} holds {counts}; convert the data again{skip}")
        for position, text in content.faults.items():
            faults[start + position] = f"{path}: the record at byte {found[position]} is corrupt: {text}"
        faults.update(dict.fromkeys(range(start + len(found), start + expected), f"{path} ends after {counts}"))
        offsets.append(np.concatenate([found, np.full(missing, -1, np.int64)]))
        if part.part:
            notes.append(content.padded(expected))
    shards = np.repeat(np.arange(len(files), dtype=np.int32), list(map(len, offsets)))
    lost = "" if counted_in else _lost(names, contents)
    index = Index(files, shards, np.concatenate(offsets), np.zeros(len(shards), bool), keys, lost)
    if not part.part:
        return _replaced(index, faults, on_error, directory)
    rows = np.flatnonzero(members(part, np.concatenate(notes)))
    if part.part in BY_POSITION:  # of an earlier version, in which a record could be replaced by one of the other part
        return _replaced(index, faults, on_error, directory).take(rows)
    faults = {new: faults[row] for new, row in enumerate(rows.tolist()) if row in faults}
    return _replaced(index.take(rows), faults, on_error, directory)


def _report_missing(directory: str, part: Split, on_error: str) -> None:
    """Raises UserError that names shards that are missing or empty; prints them for on_error='skip'."""
    empty = {shard.file for shard in part.shards}.intersection(part.missing)
    first, more = part.missing[0], f" and {len(part.missing) - 1} more" if len(part.missing) > 1 else ""
    lack = f"{directory} lacks {first}{more}, as the names of its other shards say"
    if empty:
        few = ", ".join(sorted(empty)[:3]) + (f" and {len(empty) - 3} more" if len(empty) > 3 else "")
        lack = f"{directory} has empty shards (0 bytes): {few}"
        lack += f"; and it lacks {len(part.missing) - len(empty)} more" if len(part.missing) > len(empty) else ""
    if on_error == "stop":
        raise UserError(f"{lack}; fetch what is missing, or continue without it: --on-error skip")
    print(f"{lack}; the others are read")


def _lost(names: Sequence[str], contents: "list[Content]") -> str:
    """How many records are lost at the ends of damaged shards whose number of records nothing states; '' for none.

    The whole shards tell how many about: those of a set mostly have the same number.
    """
    ends = [content.faults.get(len(content.offsets) - 1, "").endswith(tfrecord.LOST) for content in contents]
    if not any(ends):
        return ""
    whole = [
        len(content.offsets) for content, cut in zip(contents, ends, strict=True) if not cut and content.offsets.size
    ]
    cut = [(name, len(content.offsets)) for name, content, cut in zip(names, contents, ends, strict=True) if cut]
    more = f" and {len(cut) - 1} more" if len(cut) > 1 else ""
    number = "an unknown number of"
    if whole:
        count = sum(max(0, int(np.median(whole)) - records) for _, records in cut)
        if not count:  # the damaged records are the last ones of their shards
            return ""
        number = f"about {count:,}"
    return f"{number} further records are lost at the end of {cut[0][0]}{more}"


def _replaced(index: Index, faults: dict[int, str], on_error: str, directory: str) -> Index:
    """Replaces corrupt and missing records, which `faults` names by row; or raises UserError with the first of them."""
    if not faults:
        return index
    rows, first = list(faults), next(iter(faults.values()))
    lost = f", and {index.lost}" if index.lost else ""
    if on_error == "stop":
        raise UserError(
            f"{first}; {len(faults)} of {len(index.offsets)} records are corrupt or missing{lost}; "
            f"python -m pipeline.check {directory} lists them. Convert the data again, or replace them by other "
            "records: --on-error skip"
        )
    print(f"{first}; {len(faults)} such records are replaced by others{lost}")
    index.replaced[rows] = True
    intact = np.flatnonzero(~index.replaced)
    if not len(intact):
        raise UserError(f"{directory}: no record is intact; convert the data again")
    for row in rows:
        other = np.random.default_rng(row).choice(intact)
        index.shards[row], index.offsets[row] = index.shards[other], index.offsets[other]
    return index


class Content(NamedTuple):
    """The records of a shard."""

    offsets: np.ndarray  # int64 [records]
    faults: dict[int, str]  # position of a corrupt record: the reason
    notes: np.ndarray  # NOTE [records]

    def padded(self, expected: int) -> np.ndarray:
        """The notes of a shard that should hold `expected` records: NOTE [expected], those that are missing empty."""
        return np.concatenate([self.notes, np.array([NO_NOTE] * (expected - len(self.notes)), NOTE)])


class Entry(NamedTuple):
    """A shard in the stored index."""

    stamp: tuple[int, int]  # size and modification time
    keys: str  # of the features that the notes are of
    content: Content


def scan(directory: str, names: list[str], keys: RecordKeys) -> list[Content]:
    """The records of shards. Every CRC is verified when a shard is new, or has changed in size or modification time.

    The result is stored as INDEX_NPZ in the directory or, where that cannot be written, in the user's cache. Raises
    UserError for a shard that is missing or cannot be read.
    """
    try:
        found = storage.stamps([os.path.join(directory, name) for name in names])
        stamps = dict(zip(names, found, strict=True))
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; convert the data again") from None
    index = _load(directory)
    new = [name for name in names if name not in index or index[name][:2] != (stamps[name], _text(keys))]
    if new:
        size = sum(stamps[name][0] for name in new)
        with tqdm(total=size, desc="checking shards", unit="B", unit_scale=True, disable=None, delay=1) as progress:
            for name in new:
                index[name] = Entry(stamps[name], _text(keys), _walk(os.path.join(directory, name), keys))
                progress.update(stamps[name][0])
        _save(directory, index)
    return [index[name].content for name in names]


def _text(keys: RecordKeys) -> str:
    return f"{keys.encoded} {keys.label}"


def known_contents(directory: str) -> dict[str, Content]:
    """The entries of the stored index for shards that have not changed since."""
    index, there = _load(directory), set(storage.list_files(directory))
    names = [name for name in index if name in there]
    stamps = storage.stamps([os.path.join(directory, name) for name in names])
    return {name: index[name].content for name, stamp in zip(names, stamps, strict=True) if index[name].stamp == stamp}


def add_fault(directory: str, name: str, offset: int, fault: str) -> None:
    """Marks a record as corrupt whose CRCs are right, but whose picture does not decode."""
    index = _load(directory)
    if name in index:
        content = index[name].content
        content.faults[int(np.searchsorted(content.offsets, offset))] = fault
        _save(directory, index)


def _walk(path: str, keys: RecordKeys) -> Content:
    offsets, faults, notes = [], {}, []
    try:
        for found in tfrecord.walk(path, storage.open_file):
            if found.fault:
                faults[len(offsets)] = found.fault
            offsets.append(found.offset)
            notes.append(note(found.payload, keys))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    return Content(np.array(offsets, np.int64), faults, np.array(notes, NOTE))


def stored_index(directory: str) -> Path:
    """The path of INDEX_NPZ."""
    if not is_remote(directory) and os.access(directory, os.W_OK):
        return Path(directory) / INDEX_NPZ
    place = absolute(directory) if is_remote(directory) else os.path.realpath(directory)
    key = hashlib.sha256(os.fsencode(place)).hexdigest()[:16]
    return Path(pooch.os_cache("slimgraph")) / "index" / key / INDEX_NPZ


def _load(directory: str) -> dict[str, Entry]:
    """The entries by the names of shards; {} where there is no index as _save writes it."""
    try:
        return _read(stored_index(directory))
    except Exception:  # missing; or what zipfile, zlib and NumPy's parser raise
        return {}


def is_damaged(directory: str) -> bool:
    """Whether there is a stored index that is not as _save writes it; then it is made anew."""
    return os.path.lexists(stored_index(directory)) and not _load(directory)


def _read(path: Path) -> dict[str, Entry]:
    with open_regular(path) as file, np.load(file) as stored:
        check_unpacked(stored.zip)
        arrays = dict(stored)
    if arrays.pop("digest").tobytes() != _digest(arrays):
        raise ValueError("the digest is wrong")
    ends = np.cumsum(arrays["counts"])[:-1]
    parts = (np.split(arrays[key], ends) for key in ("offsets", "notes"))
    contents = [Content(offsets, {}, notes) for offsets, notes in zip(*parts, strict=True)]
    faults = (arrays[key].tolist() for key in ("fault_shards", "fault_positions", "faults"))
    for shard, position, fault in zip(*faults, strict=True):
        contents[shard].faults[position] = fault
    names = arrays["names"].tolist()
    keys = arrays["keys"].tolist() if "keys" in arrays else [_text(SLIM)] * len(names)  # of an earlier version
    return dict(zip(names, map(Entry, map(tuple, arrays["stamps"].tolist()), keys, contents), strict=True))


def _digest(arrays: dict[str, np.ndarray]) -> bytes:
    """Detects an index that was edited by hand, since training relies on it, and one of another version."""
    digest = hashlib.sha256(VERSION)
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.digest()


def _save(directory: str, index: dict[str, Entry]) -> None:
    stamps, keys, contents = zip(*index.values(), strict=True)
    faults = [(i, *fault) for i, content in enumerate(contents) for fault in content.faults.items()]
    arrays = {
        "names": np.array(list(index), np.str_),
        "keys": np.array(keys, np.str_),
        "stamps": np.array(stamps, np.int64).reshape(-1, 2),
        "counts": np.array([len(content.offsets) for content in contents], np.int64),
        "offsets": np.concatenate([content.offsets for content in contents]),
        "notes": np.concatenate([content.notes for content in contents]),
        "fault_shards": np.array([i for i, _, _ in faults], np.int64),
        "fault_positions": np.array([position for _, position, _ in faults], np.int64),
        "faults": np.array([text for _, _, text in faults], np.str_),
    }
    path = stored_index(directory)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            np.savez(partial, digest=np.frombuffer(_digest(arrays), np.uint8), **arrays)
    except OSError as error:
        print(f"{path} cannot be written ({error.strerror}); the next run checks the shards again", file=sys.stderr)
