"""Copies of the records of other programs whose pictures TensorFlow alone would show otherwise than images.store.

TensorFlow's decoders ignore orientation and transparency, cut off 16 bits and convert CMYK in their own way, but
predict.py does not. So such records, of TF-Slim's shards, are rewritten once, into a file beside the index of the
shards, and the index of a split points there. All others are read where they are, at the same speed as ever.
"""

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pooch
from tqdm import tqdm

from errors import UserError
from files import atomic_write, locked, open_regular
from pipeline import images, storage, tfrecord
from pipeline.index import Index, InvalidExample, parse, stored_index
from pipeline.records import SLIM
from tfcompat import tf

DIRECTORY = ".rewritten"
VERSION = b"2"  # of what images.standard makes, and of the .npz
WAIT = 0.5  # seconds between two looks at the lock of another program


def with_copies(index: Index, directory: str, split: str, channels: int) -> Index:
    """The index of a split of a directory, in which the records that need it are replaced by rewritten copies."""
    copies = stored_index(directory).parent / DIRECTORY / f"{split}.tfrecord"
    key = _key(index, channels)
    places = _load(copies, key)
    if places is None:
        try:
            copies.parent.mkdir(parents=True, exist_ok=True)
            with _locked(copies):
                places = _load(copies, key)  # another program may have made them meanwhile
                if places is None:
                    places = _write(copies, key, index, channels)
        except OSError as error:
            print(
                f"{copies} cannot be written ({error.strerror}); pictures with transparency, an orientation, CMYK or "
                "16 bits are read as TensorFlow decodes them, unlike in predict.py",
                file=sys.stderr,
            )
            return index
    rows, offsets = places
    if not len(rows):
        return index
    files = [*index.files, str(copies)]
    made = index._replace(files=files, shards=index.shards.copy(), offsets=index.offsets.copy())
    made.shards[rows], made.offsets[rows] = len(index.files), offsets
    return made


@contextlib.contextmanager
def _locked(copies: Path) -> Iterator[None]:
    """Holds the lock of the copies, and waits while another program writes them. Raises OSError as files.locked."""
    lock, waiting = copies.with_name(f".{copies.stem}.lock"), False
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(lock))
                break
            except BlockingIOError:
                if not waiting:
                    print(f"another program is writing {copies}; this one waits for it", file=sys.stderr)
                waiting = True
                time.sleep(WAIT)
        yield


def _key(index: Index, channels: int) -> str:
    """Changes where the shards do, or the records of the index."""
    digest = hashlib.sha256(VERSION + bytes([channels]))
    for file in index.files:
        size, changed = storage.stamp(file)
        digest.update(f"{os.path.basename(file)} {size} {changed}\n".encode())
    if index.keys != SLIM:
        digest.update(f"{index.keys.encoded} {index.keys.label}\n".encode())
    for array in index.shards, index.offsets:
        digest.update(array.tobytes())
    return digest.hexdigest()


def _load(copies: Path, key: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows of the index and the byte offsets of their copies; None where they are missing, damaged or of another key.

    The copies are hashed, since a damaged one would be reported as a corrupt record of the user's data.
    """
    try:
        with open_regular(copies.with_suffix(".npz")) as file, np.load(file) as stored:
            if stored["key"] == key and stored["sha256"] == pooch.file_hash(copies):
                return stored["rows"], stored["offsets"]
            return None
    except Exception:  # missing; or what zipfile, zlib and NumPy's parser raise
        return None


def _write(copies: Path, key: str, index: Index, channels: int) -> tuple[np.ndarray, np.ndarray]:
    rows, offsets = [], []
    with atomic_write(copies) as partial, open(partial, "wb") as file:
        for row in tqdm(range(len(index.offsets)), desc="checking pictures", disable=None, delay=1):
            if payload := _rewritten(index, row, channels):
                rows.append(row)
                offsets.append(file.tell())
                file.write(tfrecord.framed(payload))
    places = np.array(rows, np.int64), np.array(offsets, np.int64)
    with atomic_write(copies.with_suffix(".npz")) as partial:
        np.savez(partial, key=key, sha256=pooch.file_hash(copies), rows=places[0], offsets=places[1])
    return places


def _rewritten(index: Index, row: int, channels: int) -> bytes | None:
    """The payload of a record with its picture as images.store would have stored it; None where that is no change."""
    path, offset = index.place(row)
    try:
        payload = tfrecord.read_at(path, offset, storage.open_file).payload or b""
        stored = images.standard(parse(payload, index.keys).encoded, channels)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    except (InvalidExample, images.ImageError):  # reported when it is read, if TensorFlow cannot decode it either
        return None
    if stored is None:
        return None
    message = tf.train.Example.FromString(payload)
    features = message.features.feature
    features[index.keys.encoded].bytes_list.value[:] = [stored.data]
    if index.keys == SLIM:
        features["image/format"].bytes_list.value[:] = [stored.format.encode()]
    for key, value in zip(index.keys.size or (), (stored.height, stored.width), strict=False):
        features[key].int64_list.value[:] = [value]
    return message.SerializeToString(deterministic=True)
