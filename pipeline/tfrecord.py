"""TFRecord files and the tf.train.Example messages in them, written and read without TensorFlow.

The converter's processes must not load TensorFlow (625 MB and seconds for each). A record is the length (8 bytes), the
CRC of the length, the payload and the CRC of the payload. A CRC here is the CRC-32C, rotated by 15 bits, plus a
constant: the CRC of data that contain their own CRC would be weak.
"""

import contextlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import google_crc32c

from channels import USUAL
from errors import UserError
from files import open_regular
from pipeline.images import StoredImage

DATASET_JSON = "dataset.json"
SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test"}
SHARD_BYTES = 128 * 2**20  # a shard is closed once it is larger
HEADER_BYTES, FOOTER_BYTES = 12, 4
LOST = "; any records after it in the file are lost"  # how the fault of a record ends after which no other can be found
PLAIN_NEEDED = "records are read by their place, which needs plain files. Decompress each of the shards"


class Found(NamedTuple):
    """One record of a file. After a record with a damaged length the next one cannot be found: it is the last."""

    offset: int
    payload: bytes | None  # None if the record is damaged
    fault: str | None


def masked_crc(data: bytes) -> int:
    """The CRC that TFRecord stores for data."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def framed(payload: bytes) -> bytes:
    """The bytes of one record: length, CRC, payload, CRC."""
    length = struct.pack("<Q", len(payload))
    crcs = [struct.pack("<I", masked_crc(part)) for part in (length, payload)]
    return b"".join([length, crcs[0], payload, crcs[1]])


def walk(path: "str | Path", open_file: Callable[..., BinaryIO] = open_regular) -> Iterator[Found]:
    """The records of a file in order, each checked against its CRCs, up to a damaged length or a truncated record.

    open_file(path, buffering) opens it. Raises UserError for a file that is something else as a whole, such as one that
    is compressed.
    """
    with open_file(path, buffering=2**20) as file:
        size, offset = file.seek(0, os.SEEK_END), file.seek(0)
        while offset is not None and offset < size:
            found, offset = _read(file, size, offset)
            if found.offset == 0 and offset is None:  # no length: another kind of file
                file.seek(0)
                _check_format(path, file.read(HEADER_BYTES))
            yield found


def _check_format(path: "str | Path", head: bytes) -> None:
    """Raises UserError for a file whose first record is damaged since it is no TFRecord file, or a compressed one."""
    if head.startswith(b"\x1f\x8b"):
        raise UserError(f"{path} is compressed (GZIP); {PLAIN_NEEDED}: gzip -dc < FILE > NEW, and rename NEW to FILE")
    if len(head) >= 2 and head[0] == 0x78 and int.from_bytes(head[:2], "big") % 31 == 0:
        code = "import sys, zlib; sys.stdout.buffer.write(zlib.decompress(sys.stdin.buffer.read()))"
        command = f"python -c '{code}' < FILE > NEW, and rename NEW to FILE"
        raise UserError(f"{path} is compressed (ZLIB); {PLAIN_NEEDED}: {command}")
    if head.startswith(b"version http"):
        raise UserError(f"{path} is a pointer of Git LFS and holds no records; fetch the file: git lfs pull")


def read_at(path: "str | Path", offset: int, open_file: Callable[..., BinaryIO] = open_regular) -> Found:
    """The record at a byte offset, checked as in `walk`."""
    with open_file(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(offset)
        return _read(file, size, offset)[0]


def _read(file: BinaryIO, size: int, offset: int) -> tuple[Found, int | None]:
    """The record at `offset`, the current position of a file of `size` bytes; and the offset of the next, if known."""
    header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        return Found(offset, None, f"the file ends within its length{LOST}"), None
    length, crc = struct.unpack("<QI", header)
    if masked_crc(header[:8]) != crc:
        return Found(offset, None, f"the CRC of its length is wrong{LOST}"), None
    end = offset + HEADER_BYTES + length + FOOTER_BYTES
    if end > size:
        return Found(offset, None, f"the file ends within it{LOST}"), None
    payload = file.read(length)
    intact = struct.unpack("<I", file.read(FOOTER_BYTES))[0] == masked_crc(payload)
    return (Found(offset, payload, None) if intact else Found(offset, None, "its CRC is wrong")), end


def serialize(image: StoredImage, label: int, class_name: str, filename: str) -> bytes:
    """One tf.train.Example with TF-Slim's keys, byte-equal to SerializeToString(deterministic=True)."""
    values = {
        "image/class/label": label,
        "image/class/text": os.fsencode(class_name),
        "image/encoded": image.data,
        "image/filename": os.fsencode(filename),
        "image/format": image.format.encode(),
        "image/height": image.height,
        "image/width": image.width,
    }
    channels = image.pixels.shape[2]
    if channels not in USUAL:  # which the file itself does not say then: its height is that of all channels
        values["image/channels"] = channels
    entries = []
    for key, value in sorted(values.items()):
        if isinstance(value, bytes):
            feature = _message(1, _message(1, value))  # Feature.bytes_list, BytesList.value
        else:
            feature = _message(3, _message(1, _varint(value)))  # Feature.int64_list, Int64List.value, packed
        entries.append(_message(1, _message(1, key.encode()) + _message(2, feature)))  # Features.feature: key, value
    return _message(1, b"".join(entries))  # Example.features


def _message(field: int, content: bytes) -> bytes:
    """A length-delimited protocol buffer field."""
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """A non-negative integer, seven bits in each byte, the lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_shards(records: Iterable[bytes], directory: Path, prefix: str) -> list[dict]:
    """Writes shards named as TF-Slim's, PREFIX_00000-of-00002.tfrecord. Returns the list of them for dataset.json."""
    counts, file = [], None
    with contextlib.ExitStack() as stack:
        for record in records:
            if not file or file.tell() > SHARD_BYTES:
                stack.close()
                file = stack.enter_context(open(directory / f"{prefix}_{len(counts)}", "wb", buffering=2**20))
                counts.append(0)
            file.write(framed(record))
            counts[-1] += 1
    shards = []
    for i, count in enumerate(counts):
        name = f"{prefix}_{i:05d}-of-{len(counts):05d}.tfrecord"
        os.replace(directory / f"{prefix}_{i}", directory / name)
        shards.append({"file": name, "examples": count})
    return shards
