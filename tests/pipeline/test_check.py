"""Every record looked at; and what becomes of a run when one turns out to be corrupt."""

import re
import sys

import cv2
import numpy as np
import pytest

from errors import UserError
from pipeline import check, tfrecord
from pipeline.convert import convert
from pipeline.dataset import evaluation_batches, training_batches, training_rows
from pipeline.images import encode_png
from pipeline.records import load_dataset, load_index
from tfcompat import tf

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)


@pytest.fixture
def data(tmp_path):
    """Two classes of six pictures, converted."""
    for i, pixels in enumerate(PIXELS):
        path = tmp_path / "raw" / "train" / ("ant", "bee")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(pixels).data)
    for split in "val", "test":
        for name in "ant", "bee":
            path = tmp_path / "raw" / split / name / "0.png"
            path.parent.mkdir(parents=True)
            path.write_bytes(encode_png(PIXELS[0]).data)
    convert("folder", str(tmp_path / "data"), str(tmp_path / "raw"))
    return tmp_path / "data"


def shard_of(data, split="train"):
    return data / load_dataset(str(data))["splits"][split]["shards"][0]["file"]


def rewrite(data, row, payload=None, **changed):
    """Puts another payload, or other values of its keys, into a record, with right CRCs. Returns its offset."""
    payloads = [found.payload for found in tfrecord.walk(shard_of(data))]
    example = tf.train.Example.FromString(payloads[row])
    for key, value in changed.items():
        feature = example.features.feature[f"image/{key.replace('_', '/')}"]
        if value is None:
            del example.features.feature[f"image/{key.replace('_', '/')}"]
        elif isinstance(value, int):
            feature.int64_list.value[:] = [value]
        else:
            feature.bytes_list.value[:] = [value]
    payloads[row] = payload if payload is not None else example.SerializeToString()
    frames = list(map(tfrecord.framed, payloads))
    shard_of(data).write_bytes(b"".join(frames))
    return sum(map(len, frames[:row]))


def run(data, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["check", str(data), *arguments])
    check.main()


def test_sound_data_are_counted_by_class(data, monkeypatch, capsys):
    run(data, monkeypatch)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["class", "train", "validation", "test"],
        ["ant", "6", "1", "1"],
        ["bee", "6", "1", "1"],
        ["all", "12", "2", "2"],
        ["the", "largest", "class", "has", "1.0", "times", "the", "smallest"],
        f"{data}: all 16 records are sound".split(),
    ]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"class_label": 2}, r"its label is 2; the classes are 0 to 1"),
        ({"class_label": None}, r"it has no image/class/label"),
        ({"encoded": None}, r"it has no image/encoded"),
        ({"encoded": b"\x89PNG\r\n\x1a\n"}, r"its picture cannot be decoded"),
        ({"height": 7}, r"image/height is 7; its picture has 8"),
        ({"payload": b"\xff\xff"}, r"it is no tf.train.Example"),
    ],
)
def test_what_is_wrong_with_a_record_is_named_with_shard_and_byte(changed, reason, data, monkeypatch, capsys):
    offset = rewrite(data, 4, **changed)
    with pytest.raises(UserError, match=rf"^1 faults in {re.escape(str(data))}"):
        run(data, monkeypatch)
    assert re.search(
        rf"{re.escape(str(shard_of(data)))}: the record at byte {offset}: {reason}", capsys.readouterr().out
    )


@pytest.mark.parametrize("cut", ["within", "between"])
def test_truncation_is_named(cut, data, monkeypatch, capsys):
    offsets = [found.offset for found in tfrecord.walk(shard_of(data))]
    with shard_of(data).open("r+b") as file:
        file.truncate(offsets[9] + (5 if cut == "within" else 0))
    with pytest.raises(UserError, match="faults"):
        run(data, monkeypatch)
    out = capsys.readouterr().out
    if cut == "within":
        assert f"the record at byte {offsets[9]}: the file ends within" in out
    else:
        assert f"byte {offsets[9]}: it is missing; the file ends after 9 of 12 records" in out


def test_a_changed_byte_is_named(data, monkeypatch, capsys):
    offset = [found.offset for found in tfrecord.walk(shard_of(data))][5]
    content = bytearray(shard_of(data).read_bytes())
    content[offset + 40] ^= 1
    shard_of(data).write_bytes(content)
    with pytest.raises(UserError, match="1 faults"):
        run(data, monkeypatch)
    assert f"the record at byte {offset}: its CRC is wrong" in capsys.readouterr().out


def test_of_many_classes_the_extremes_are_shown():
    balance = {"train": check.Counter({label: label + 1 for label in range(100)})}
    lines = check.describe(balance, [f"c{label}" for label in range(100)]).splitlines()
    assert [line.split()[0] for line in lines[1:6]] == ["c99", "c98", "c97", "c96", "c95"]
    assert lines[6].startswith("… 90 classes")
    assert lines[-1] == "the largest class has 100.0 times the smallest"


@pytest.mark.parametrize("arguments", [(), ("--augment", "cifar", "--image-size", "16"), ("--split", "test")])
def test_the_montage_is_a_picture(arguments, data, monkeypatch, tmp_path):
    run(data, monkeypatch, "--montage", str(tmp_path / "sheet.png"), *arguments)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape[1] > 1000
    assert len(np.unique(sheet)) > 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--augment", "cifr", "--montage", "a.png"), "unknown preprocessing 'cifr': did you mean cifar"),
        (("--augment", "cifar"), "--augment belongs to --montage"),
        (("--montage", "nowhere/a.png"), "must be a .png in a directory that is there"),
        (("--montage", "a.jpg"), "must be a .png"),
        (("--image-size", "0"), "must be 1 to 4096"),
    ],
)
def test_bad_arguments(arguments, message, data, monkeypatch):
    with pytest.raises(UserError, match=message):
        run(data, monkeypatch, *arguments)


# While a run reads


def corrupt_picture(data, row):
    return rewrite(data, row, encoded=encode_png(PIXELS[0]).data[:-30])


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_picture_that_does_not_decode_is_named_or_replaced(on_error, data):
    directory, dataset = str(data), load_dataset(str(data))
    offset = corrupt_picture(data, 7)
    index = load_index(directory, dataset, "train")  # its CRCs are right
    with tf.Session() as session:
        batches = training_batches(index, 3, "unit", 8, 4, 0)
        records = check.Records(
            batches, index, lambda: load_index(directory, dataset, "train", on_error), directory, dataset, on_error
        )
        records.batches.start(session)
        seen = []

        def read(step):
            return records.attempt(
                session,
                lambda: session.run(batches.rows),
                rows=lambda: training_rows(12, 0, step * 4, 4),
                step=step,
            )

        if on_error == "stop":
            with pytest.raises(
                UserError, match=rf"the record at byte {offset}: its picture cannot be.*--on-error skip"
            ):
                [read(step) for step in range(3)]
            return
        seen = np.concatenate([read(step) for step in range(6)])
        np.testing.assert_array_equal(seen, training_rows(12, 0, 0, 24))  # the order stays
        assert np.flatnonzero(records.index.replaced).tolist() == [7]
    assert np.flatnonzero(load_index(directory, dataset, "train", "skip").replaced).tolist() == [7]  # noted


def test_other_failures_are_left_as_they_are(data):
    directory, dataset = str(data), load_dataset(str(data))
    with tf.Session() as session:
        index = load_index(directory, dataset, "train")
        batches = evaluation_batches(index, 3, "unit", 8, 4)
        records = check.Records(batches, index, lambda: index, directory, dataset, "skip")
        failing = tf.debugging.Assert(tf.constant(False), ["something else"])
        with pytest.raises(tf.errors.InvalidArgumentError, match="something else"):
            records.attempt(session, lambda: session.run(failing), rows=lambda: range(12), step=0)
