"""Shards, dataset.json and the index of record offsets: the format on disk.

A shard is a TFRecord file of tf.train.Example with TF-Slim's keys (FEATURES). Beside the shards lies dataset.json:

    {"name", "source", "class_names", "channels",
     "splits": {"train": {"examples": 1259, "shards": [{"file": "…", "examples": 1259}]}, …},
     "statistics": {"mean": [C], "deviation": [C], "components": [C][C], "eigenvalues": [C]}}

Statistics are over all pixels of the training split, on the scale 0 to 255; eigenvalues are variances on that scale,
the largest first, and row i of components is the unit vector of eigenvalue i. Data without a training split, to be
evaluated on, have null for statistics.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from errors import UserError
from pipeline.images import EncodedImage
from tfcompat import tf

DATASET_JSON = "dataset.json"
SHARD_BYTES = 128 * 2**20  # a shard is closed once it is larger
HEADER_BYTES, FOOTER_BYTES = 12, 4  # length and its CRC; the payload's CRC

FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/format": tf.io.FixedLenFeature([], tf.string),
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

    def take(self, rows: np.ndarray) -> "Index":
        """The index of some of the records."""
        return Index(self.files, self.shards[rows], self.offsets[rows])


def serialize(image: EncodedImage, label: int, class_name: str, filename: str) -> bytes:
    """One tf.train.Example with TF-Slim's keys."""
    height, width = image.pixels.shape[:2]
    values = {
        "image/encoded": image.data,
        "image/format": image.format.encode(),
        "image/class/label": label,
        "image/class/text": os.fsencode(class_name),
        "image/height": height,
        "image/width": width,
        "image/filename": os.fsencode(filename),
    }
    features = {
        key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        if isinstance(value, bytes)
        else tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        for key, value in values.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


def write_shards(records: Iterable[bytes], directory: Path, prefix: str) -> list[dict]:
    """Writes records into as many shards as they need, named as TF-Slim names them: PREFIX_00000-of-00002.tfrecord.

    Returns dataset.json's list of shards.
    """
    counts, writer, size = [], None, 0
    for record in records:
        if writer is None or size > SHARD_BYTES:
            if writer:
                writer.close()
            writer, size = tf.io.TFRecordWriter(str(directory / f"{prefix}_{len(counts)}")), 0
            counts.append(0)
        writer.write(record)
        size += len(record)
        counts[-1] += 1
    if writer:
        writer.close()
    shards = []
    for i, count in enumerate(counts):
        name = f"{prefix}_{i:05d}-of-{len(counts):05d}.tfrecord"
        os.replace(directory / f"{prefix}_{i}", directory / name)
        shards.append({"file": name, "examples": count})
    return shards


def load_dataset(directory: str) -> dict:
    """Reads dataset.json. Raises UserError where it is missing or damaged."""
    path = Path(directory) / DATASET_JSON
    try:
        dataset = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing; make it with python -m pipeline.convert NAME --out {directory}, "
            "or name another directory of shards with --data"
        ) from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); convert the data again") from None
    well_formed = isinstance(dataset, dict) and (
        isinstance(dataset.get("class_names"), list)
        and len(dataset["class_names"]) >= 2
        and all(isinstance(name, str) for name in dataset["class_names"])
        and dataset.get("channels") in (1, 3)
        and isinstance(dataset.get("statistics"), dict | None)
        and isinstance(dataset.get("splits"), dict)
        and all(isinstance(part, dict) and {"examples", "shards"} <= set(part) for part in dataset["splits"].values())
    )
    if not well_formed:
        raise UserError(f"{path} is no description of a data set; convert the data again")
    return dataset


def load_index(directory: str, dataset: dict, split: str) -> Index:
    """Finds the records of a split by walking their headers, and compares their number with dataset.json.

    Raises UserError for a split the data lacks, and for shards that are missing, cut short or of another length.
    """
    if not dataset["splits"].get(split, {}).get("examples"):
        have = ", ".join(name for name, part in dataset["splits"].items() if part["examples"])
        raise UserError(f"{directory} has no {split} split; it has {have}")
    files, shards, offsets = [], [], []
    for i, shard in enumerate(dataset["splits"][split]["shards"]):
        path = os.path.join(directory, shard["file"])
        found = record_offsets(path)
        if len(found) != shard["examples"]:
            raise UserError(
                f"{path} holds {len(found)} records, dataset.json says {shard['examples']}; convert the data again"
            )
        files.append(path)
        shards.append(np.full(len(found), i, np.int32))
        offsets.append(found)
    return Index(files, np.concatenate(shards), np.concatenate(offsets))


def record_offsets(path: str) -> np.ndarray:
    """Byte offsets, int64 [n], of the records of a TFRecord file. Raises UserError where the file ends within one."""
    try:
        data = np.memmap(path, np.uint8, mode="r") if os.path.getsize(path) else np.empty(0, np.uint8)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; convert the data again") from None
    offsets, position = [], 0
    while position < len(data):
        offsets.append(position)
        length = int.from_bytes(data[position : position + 8].tobytes(), "little")
        position += HEADER_BYTES + length + FOOTER_BYTES
        if position > len(data):
            raise UserError(f"{path} is cut short or damaged in the record at byte {offsets[-1]}; convert it again")
    return np.array(offsets, np.int64)
