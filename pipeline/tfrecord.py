"""TFRecord files and the tf.train.Example in them, written and walked without TensorFlow.

The converter's processes must not load TensorFlow (625 MB and seconds each). A record is 8 bytes of length, their CRC,
the payload and its CRC; CRCs are CRC-32C, rotated by 15 bits and shifted by a constant, so that the CRC of data which
hold CRCs stays a good one.
"""

import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import google_crc32c

from files import open_regular
from pipeline.images import StoredImage

DATASET_JSON = "dataset.json"
SPLITS = ("train", "validation", "test")
SHARD_BYTES = 128 * 2**20  # a shard is closed once it is larger
HEADER_BYTES, FOOTER_BYTES = 12, 4


class Found(NamedTuple):
    """A record of a file. Where its length is damaged, the file cannot be followed further and this is the last one."""

    offset: int
    payload: bytes | None  # None where it is damaged
    fault: str | None


def masked_crc(data: bytes) -> int:
    """The CRC that TFRecord stores for data."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def framed(payload: bytes) -> bytes:
    """The bytes of a record."""
    length = struct.pack("<Q", len(payload))
    return b"".join(
        [length, struct.pack("<I", masked_crc(length)), payload, struct.pack("<I", masked_crc(payload))]
    )  # fmt: skip


def walk(path: "str | Path") -> Iterator[Found]:
    """The records of a file, in order, each checked against its CRCs.

    What is damaged comes with its fault; the walk ends after a damaged length or a record that the file ends within.
    """
    with open_regular(path, buffering=2**20) as file:
        size, offset = os.fstat(file.fileno()).st_size, 0
        while offset is not None and offset < size:
            found, offset = _read(file, size, offset)
            yield found


def read_at(path: "str | Path", offset: int) -> Found:
    """The record at a byte offset, checked as in `walk`."""
    with open_regular(path) as file:
        file.seek(offset)
        return _read(file, os.fstat(file.fileno()).st_size, offset)[0]


def _read(file: BinaryIO, size: int, offset: int) -> tuple[Found, int | None]:
    """The record at `offset`, where the file of `size` bytes is, and where the next one begins, if that can be told."""
    header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        return Found(offset, None, "the file ends within its length"), None
    length, crc = struct.unpack("<QI", header)
    if masked_crc(header[:8]) != crc:
        return Found(offset, None, "the CRC of its length is wrong; what follows in the file cannot be found"), None
    end = offset + HEADER_BYTES + length + FOOTER_BYTES
    if end > size:
        return Found(offset, None, "the file ends within it"), None
    payload = file.read(length)
    intact = struct.unpack("<I", file.read(FOOTER_BYTES))[0] == masked_crc(payload)
    return (Found(offset, payload, None) if intact else Found(offset, None, "its CRC is wrong")), end


def serialize(image: StoredImage, label: int, class_name: str, filename: str) -> bytes:
    """One tf.train.Example with TF-Slim's keys: what SerializeToString(deterministic=True) gives."""
    values = {
        "image/class/label": label,
        "image/class/text": os.fsencode(class_name),
        "image/encoded": image.data,
        "image/filename": os.fsencode(filename),
        "image/format": image.format.encode(),
        "image/height": image.height,
        "image/width": image.width,
    }
    entries = []
    for key, value in sorted(values.items()):
        if isinstance(value, bytes):
            feature = _message(1, _message(1, value))  # Feature.bytes_list, BytesList.value
        else:
            feature = _message(3, _message(1, _varint(value)))  # Feature.int64_list, Int64List.value, packed
        entries.append(_message(1, _message(1, key.encode()) + _message(2, feature)))  # Features.feature: key, value
    return _message(1, b"".join(entries))  # Example.features


def _message(field: int, content: bytes) -> bytes:
    """A length-delimited field of a protocol buffer."""
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """A non-negative integer, seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_shards(records: Iterable[bytes], directory: Path, prefix: str) -> list[dict]:
    """Writes records into as many shards as they need, named as TF-Slim names them: PREFIX_00000-of-00002.tfrecord.

    Returns dataset.json's list of shards.
    """
    counts, file = [], None
    try:
        for record in records:
            if file is None or file.tell() > SHARD_BYTES:
                if file:
                    file.close()
                file = open(directory / f"{prefix}_{len(counts)}", "wb", buffering=2**20)  # noqa: SIM115
                counts.append(0)
            file.write(framed(record))
            counts[-1] += 1
    finally:
        if file:
            file.close()
    shards = []
    for i, count in enumerate(counts):
        name = f"{prefix}_{i:05d}-of-{len(counts):05d}.tfrecord"
        os.replace(directory / f"{prefix}_{i}", directory / name)
        shards.append({"file": name, "examples": count})
    return shards
