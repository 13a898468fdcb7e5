"""TFRecords written and read without TensorFlow, compared with TensorFlow."""

import os
import subprocess
import sys

import numpy as np
import pytest

from errors import UserError
from pipeline import tfrecord
from pipeline.images import encode_png
from tfcompat import tf

PAYLOADS = [bytes([65 + i]) * (100 * i) for i in range(5)]  # the first is empty


@pytest.fixture
def shard(tmp_path):
    """A file that TensorFlow wrote."""
    path = tmp_path / "a.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for payload in PAYLOADS:
            writer.write(payload)
    return path


def test_records_are_found_at_their_offsets(shard):
    found = list(tfrecord.walk(shard))
    # A record: its length, the length's checksum, itself, its checksum.
    assert [f.offset for f in found] == [0, 16, 132, 348, 664]
    assert [f.payload for f in found] == PAYLOADS
    assert [f.fault for f in found] == [None] * 5
    assert [tfrecord.read_at(shard, f.offset) for f in found] == found


def test_a_file_without_records_has_none(tmp_path):
    (tmp_path / "a.tfrecord").touch()
    assert list(tfrecord.walk(tmp_path / "a.tfrecord")) == []


def test_framing_is_the_same_as_tensorflows(shard):
    assert b"".join(map(tfrecord.framed, PAYLOADS)) == shard.read_bytes()


@pytest.mark.parametrize("cut", [1, 100, 410, 415])  # in the last checksum, in the payload, in the length
def test_a_truncated_file_ends_with_a_faulty_record(cut, shard):
    os.truncate(shard, shard.stat().st_size - cut)
    found = list(tfrecord.walk(shard))
    assert [f.offset for f in found] == [0, 16, 132, 348, 664]
    assert [f.fault is None for f in found] == [True] * 4 + [False]
    assert "ends within" in found[4].fault
    assert tfrecord.read_at(shard, 664).fault


@pytest.mark.parametrize(
    ("byte", "good_before", "goes_on"), [(16, 1, False), (24, 1, False), (40, 1, True), (130, 1, True)]
)
def test_a_changed_byte_is_found(byte, good_before, goes_on, shard):
    """In the length, its checksum, the payload, and the payload's checksum of the record at 16."""
    data = bytearray(shard.read_bytes())
    data[byte] ^= 1
    shard.write_bytes(data)
    found = list(tfrecord.walk(shard))
    assert [f.fault is None for f in found[:2]] == [True, False]
    assert [f.payload for f in found[2:]] == (PAYLOADS[2:] if goes_on else [])
    assert found[1].offset == 16
    assert tfrecord.read_at(shard, 16).fault
    with pytest.raises(tf.errors.DataLossError):
        list(tf.io.tf_record_iterator(str(shard)))


@pytest.mark.parametrize("compression", ["GZIP", "ZLIB"])
def test_a_compressed_file_is_named_with_the_command_that_decompresses_it(compression, shard, tmp_path):
    plain = shard.read_bytes()
    with tf.io.TFRecordWriter(str(shard), compression) as writer:
        for payload in PAYLOADS:
            writer.write(payload)
    with pytest.raises(UserError, match=rf"a.tfrecord is compressed \({compression}\); .*plain files.*NEW") as raised:
        list(tfrecord.walk(shard))
    command = str(raised.value).split("shards: ")[1].split(", and rename")[0]
    command = (
        command.replace("FILE", str(shard)).replace("NEW", str(tmp_path / "new")).replace("python", sys.executable)
    )
    subprocess.run(command, shell=True, check=True)
    assert (tmp_path / "new").read_bytes() == plain


def test_a_pointer_of_git_lfs_is_named(shard):
    shard.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(UserError, match=r"is a pointer of Git LFS and holds no records; .*git lfs pull"):
        list(tfrecord.walk(shard))


@pytest.mark.parametrize("label", [0, 7, 127, 128, 999, 2**40])
def test_an_example_is_byte_equal_to_tensorflows_with_tf_slims_keys(label):
    image = encode_png(np.arange(600, dtype=np.uint8).reshape(30, 20))
    payload = tfrecord.serialize(image, label, "sevên", "a/b.png")
    example = tf.train.Example.FromString(payload)
    assert {key: list(f.bytes_list.value or f.int64_list.value) for key, f in example.features.feature.items()} == {
        "image/encoded": [image.data],
        "image/format": [b"png"],
        "image/class/label": [label] if label else [0],
        "image/class/text": ["sevên".encode()],
        "image/height": [30],
        "image/width": [20],
        "image/filename": [b"a/b.png"],
    }
    assert payload == example.SerializeToString(deterministic=True)


def test_a_shard_is_closed_once_it_is_large_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(tfrecord, "SHARD_BYTES", 350)
    shards = tfrecord.write_shards((b"%d" % i * 100 for i in range(8)), tmp_path, "some_train")
    names = [f"some_train_{i:05d}-of-00002.tfrecord" for i in range(2)]
    assert shards == [{"file": n, "examples": c} for n, c in zip(names, (4, 4), strict=True)]
    assert sorted(os.listdir(tmp_path)) == names
    read = [r for n in names for r in tf.io.tf_record_iterator(str(tmp_path / n))]
    assert read == [b"%d" % i * 100 for i in range(8)]
