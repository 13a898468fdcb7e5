import pathlib

import numpy as np
import pooch
import pytest

from pipeline import tfrecord
from pipeline.dataset import Dataset
from pipeline.images import encode_png
from tfcompat import tf

FEATURES = {
    **{f"image/{key}": tf.io.FixedLenFeature([], tf.string) for key in ("encoded", "format", "class/text", "filename")},
    **{f"image/{key}": tf.io.FixedLenFeature([], tf.int64) for key in ("class/label", "height", "width")},
}


@pytest.fixture(autouse=True)
def _graph_of_its_own():
    with tf.Graph().as_default():
        yield


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Downloads go here and not to the user's cache."""
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    return tmp_path / "cache"


@pytest.fixture
def write_split(tmp_path, monkeypatch):
    """write_split([shards' sizes], side, channels) -> (Dataset, pictures), labels 0, 1, …"""

    def write(counts, side=6, channels=3):
        pictures = np.random.default_rng(0).integers(0, 256, (sum(counts), side, side, channels), np.uint8)
        directory, shards = tmp_path / "shards", []
        directory.mkdir(exist_ok=True)
        rows = (tfrecord.serialize(encode_png(p), i, f"class {i}", f"{i}.png") for i, p in enumerate(pictures))
        for i, count in enumerate(counts):
            file = f"fake_train_{i:05d}-of-{len(counts):05d}.tfrecord"
            with tf.io.TFRecordWriter(str(directory / file)) as writer:
                for _ in range(count):
                    writer.write(next(rows))
            shards.append({"file": file, "examples": count})
        splits = {"train": {"examples": sum(counts), "shards": shards}, "test": {"examples": 0, "shards": []}}
        names = [f"class {i}" for i in range(sum(counts))]
        description = {"class_names": names, "channels": channels, "splits": splits, "statistics": None}
        return Dataset.of(str(directory), description), pictures

    return write


@pytest.fixture
def read_split():
    """read_split(directory, dataset.json's content, split) -> its examples in order: key to value."""

    def read(directory, dataset, split):
        names = [shard["file"] for shard in dataset["splits"][split]["shards"]]
        serialized = tf.placeholder(tf.string, [])
        parsed = tf.io.parse_single_example(serialized, FEATURES)
        rows = [r for n in names for r in tf.io.tf_record_iterator(str(pathlib.Path(directory) / n))]
        with tf.Session() as session:
            return [session.run(parsed, {serialized: row}) for row in rows]

    return read
