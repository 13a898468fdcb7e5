"""The records of a shard and the corrupt ones among them, found once and stored beside the shards."""

import hashlib
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pooch
from tqdm import tqdm

from errors import UserError
from files import atomic_write, open_regular
from pipeline import tfrecord

INDEX_NPZ = ".index.npz"


class Content(NamedTuple):
    """The records of a shard."""

    offsets: np.ndarray  # int64 [records]
    faults: dict[int, str]  # position of a corrupt record: the reason


def scan(directory: str, names: list[str]) -> list[Content]:
    """The records of shards. Every CRC is verified when a shard is new, or has changed in size or modification time.

    The result is stored as INDEX_NPZ in the directory or, where that cannot be written, in the user's cache.

    Raises UserError for a shard that is missing or cannot be read.
    """
    stamps = {}
    for name in names:
        try:
            stamps[name] = _stamp(directory, name)
        except OSError as error:
            raise UserError(f"{os.path.join(directory, name)}: {error.strerror}; convert the data again") from None
    index = _load(directory)
    new = [name for name in names if index.get(name, (None,))[0] != stamps[name]]
    size = sum(stamps[name][0] for name in new)
    if new:
        with tqdm(total=size, desc="checking shards", unit="B", unit_scale=True, disable=None, delay=1) as progress:
            for name in new:
                index[name] = stamps[name], _walk(os.path.join(directory, name))
                progress.update(stamps[name][0])
        _save(directory, index)
    return [index[name][1] for name in names]


def _stamp(directory: str, name: str) -> tuple[int, int]:
    status = os.stat(os.path.join(directory, name))
    return status.st_size, status.st_mtime_ns


def known(directory: str) -> dict[str, Content]:
    """The entries of the stored index for shards that have not changed since."""
    index = {n: entry for n, entry in _load(directory).items() if os.path.exists(os.path.join(directory, n))}
    return {name: content for name, (stamp, content) in index.items() if stamp == _stamp(directory, name)}


def add_fault(directory: str, name: str, offset: int, fault: str) -> None:
    """Marks a record as corrupt whose CRCs are right, but whose picture does not decode."""
    index = _load(directory)
    if name in index:
        content = index[name][1]
        content.faults[int(np.searchsorted(content.offsets, offset))] = fault
        _save(directory, index)


def _walk(path: str) -> Content:
    offsets, faults = [], {}
    try:
        for found in tfrecord.walk(path):
            if found.fault:
                faults[len(offsets)] = found.fault
            offsets.append(found.offset)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    return Content(np.array(offsets, np.int64), faults)


def place(directory: str) -> Path:
    """The path of the stored index."""
    if os.access(directory, os.W_OK):
        return Path(directory) / INDEX_NPZ
    key = hashlib.sha256(os.fsencode(os.path.realpath(directory))).hexdigest()[:16]
    return Path(pooch.os_cache("slimgraph")) / "index" / key / INDEX_NPZ


def _load(directory: str) -> dict[str, tuple[tuple[int, int], Content]]:
    """Shard name to stamp and content; {} where there is no index as _save writes it."""
    try:
        with open_regular(place(directory)) as file, np.load(file) as stored:
            arrays = dict(stored)
            if arrays.pop("digest").tobytes() != _digest(arrays):
                return {}
            offsets = np.split(arrays["offsets"], np.cumsum(arrays["counts"])[:-1])
            stamps = [tuple(stamp) for stamp in arrays["stamps"].tolist()]
            faults = [{} for _ in stamps]
            for shard, position, fault in zip(
                arrays["fault_shards"], arrays["fault_positions"], arrays["faults"], strict=True
            ):
                faults[shard][int(position)] = str(fault)
            entries = zip(stamps, map(Content, offsets, faults), strict=True)
            return dict(zip(arrays["names"].tolist(), entries, strict=True))
    except Exception:  # missing; or what zipfile, zlib and NumPy's parser raise
        return {}


def _digest(arrays: dict[str, np.ndarray]) -> bytes:
    """Detects an index that was edited by hand, since training relies on it."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.digest()


def _save(directory: str, index: dict[str, tuple[tuple[int, int], Content]]) -> None:
    contents = [content for _, content in index.values()]
    faults = [(i, *fault) for i, content in enumerate(contents) for fault in content.faults.items()]
    arrays = {
        "names": np.array(list(index), np.str_),
        "stamps": np.array([stamp for stamp, _ in index.values()], np.int64).reshape(-1, 2),
        "counts": np.array([len(content.offsets) for content in contents], np.int64),
        "offsets": np.concatenate([content.offsets for content in contents]),
        "fault_shards": np.array([i for i, _, _ in faults], np.int64),
        "fault_positions": np.array([position for _, position, _ in faults], np.int64),
        "faults": np.array([text for _, _, text in faults], np.str_),
    }
    path = place(directory)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            np.savez(partial, digest=np.frombuffer(_digest(arrays), np.uint8), **arrays)
    except OSError as error:
        print(f"{path} cannot be written ({error.strerror}); the next run checks the shards again", file=sys.stderr)
