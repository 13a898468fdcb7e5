"""The format on disk: shards, dataset.json, the index of record offsets."""

import json
import os
import re

import numpy as np
import pytest

from errors import UserError
from pipeline import records
from pipeline.images import encode_png
from pipeline.records import load_dataset, load_index, record_offsets
from tfcompat import tf


def write_records(path, payloads):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for payload in payloads:
            writer.write(payload)


def test_record_offsets_are_where_the_records_begin(tmp_path):
    path, payloads = tmp_path / "a.tfrecord", [bytes([65 + i]) * (100 * i) for i in range(5)]  # the first is empty
    write_records(path, payloads)
    offsets = record_offsets(str(path))
    # A record: its length, the length's checksum, itself, its checksum.
    assert offsets.tolist() == [0, 16, 132, 348, 664]
    assert offsets.dtype == np.int64
    data = path.read_bytes()
    assert [data[o + 12 : o + 12 + len(p)] for o, p in zip(offsets, payloads, strict=True)] == payloads


def test_a_file_without_records_has_no_offsets(tmp_path):
    write_records(tmp_path / "a.tfrecord", [])
    assert record_offsets(str(tmp_path / "a.tfrecord")).tolist() == []


@pytest.mark.parametrize("cut", [1, 100, 115])  # in the last checksum, in the payload, in the length
def test_a_file_cut_within_a_record_is_named_with_the_byte(cut, tmp_path):
    path = tmp_path / "a.tfrecord"
    write_records(path, [b"x" * 100] * 3)
    os.truncate(path, path.stat().st_size - cut)
    with pytest.raises(UserError, match=rf"{re.escape(str(path))} is cut short or damaged.*at byte 232;"):
        record_offsets(str(path))


def test_a_garbled_length_is_named_with_the_byte(tmp_path):
    path = tmp_path / "a.tfrecord"
    write_records(path, [b"x" * 100] * 3)
    data = bytearray(path.read_bytes())
    data[116 + 7] = 0xFF
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"{re.escape(str(path))} is cut short or damaged.*at byte 116;"):
        record_offsets(str(path))


def test_the_index_spans_the_shards(write_split):
    directory, dataset, _ = write_split([3, 1, 2])
    index = load_index(directory, dataset, "train")
    assert [os.path.basename(f) for f in index.files] == [s["file"] for s in dataset["splits"]["train"]["shards"]]
    assert index.shards.tolist() == [0, 0, 0, 1, 2, 2]
    assert index.offsets[[0, 3, 4]].tolist() == [0, 0, 0]
    taken = index.take(np.array([4, 1]))
    assert (taken.shards.tolist(), taken.offsets.tolist()) == ([2, 0], index.offsets[[4, 1]].tolist())


def test_a_shard_cut_between_records_is_noticed(write_split):
    directory, dataset, _ = write_split([3, 4])
    path = os.path.join(directory, dataset["splits"]["train"]["shards"][1]["file"])
    os.truncate(path, int(record_offsets(path)[3]))
    with pytest.raises(UserError, match=rf"{re.escape(path)} holds 3 records, dataset.json says 4"):
        load_index(directory, dataset, "train")


def test_a_missing_shard_is_named(write_split):
    directory, dataset, _ = write_split([3, 4])
    path = os.path.join(directory, dataset["splits"]["train"]["shards"][0]["file"])
    os.remove(path)
    with pytest.raises(UserError, match=f"{re.escape(path)} is missing"):
        load_index(directory, dataset, "train")


@pytest.mark.parametrize("split", ["validation", "test"])  # unknown; known and empty
def test_a_split_the_data_lack_is_named_with_those_there_are(split, write_split):
    directory, dataset, _ = write_split([3])
    with pytest.raises(UserError, match=f"has no {split} split; it has train$"):
        load_index(directory, dataset, split)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing"),
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[]", "is no desc"),
        (b"{}", "is no desc"),
        (b'{"class_names": ["a", "b"], "channels": 1, "splits": {}, "statistics": 1}', "is no desc"),
    ],
)
def test_a_dataset_json_that_is_none_is_named(content, message, tmp_path):
    if content is not None:
        (tmp_path / "dataset.json").write_bytes(content)
    with pytest.raises(UserError, match=f"{re.escape(str(tmp_path / 'dataset.json'))} {message}.*convert"):
        load_dataset(str(tmp_path))


def test_dataset_json_is_read_as_it_is(tmp_path):
    dataset = {"class_names": ["a", "b"], "channels": 1, "splits": {}, "more": [1]}
    (tmp_path / "dataset.json").write_text(json.dumps(dataset))
    assert load_dataset(str(tmp_path)) == dataset


def test_a_shard_is_closed_once_it_is_large_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "SHARD_BYTES", 250)
    shards = records.write_shards((b"%d" % i * 100 for i in range(8)), tmp_path, "some_train")
    names = [f"some_train_{i:05d}-of-00003.tfrecord" for i in range(3)]
    assert shards == [{"file": n, "examples": c} for n, c in zip(names, (3, 3, 2), strict=True)]
    assert sorted(os.listdir(tmp_path)) == names
    read = [r for n in names for r in tf.io.tf_record_iterator(str(tmp_path / n))]
    assert read == [b"%d" % i * 100 for i in range(8)]


def test_an_example_has_tf_slims_keys():
    image = encode_png(np.arange(12, dtype=np.uint8).reshape(3, 4))
    features = tf.train.Example.FromString(records.serialize(image, 7, "sevên", "a/b.png")).features.feature
    assert {key: list(f.bytes_list.value or f.int64_list.value) for key, f in features.items()} == {
        "image/encoded": [image.data],
        "image/format": [b"png"],
        "image/class/label": [7],
        "image/class/text": ["sevên".encode()],
        "image/height": [3],
        "image/width": [4],
        "image/filename": [b"a/b.png"],
    }
