"""Checking every record; and corrupt records while a run reads."""

import io
import json
import os
import re
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from errors import UserError
from pipeline import check, tfrecord
from pipeline.batches import evaluation_batches, training_batches, training_rows
from pipeline.convert import convert
from pipeline.corruption import Reader
from pipeline.dataset import Dataset, Selection
from pipeline.images import encode_jpeg, encode_png
from pipeline.preprocess import Preprocessor
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
    return data / Dataset.load(str(data)).splits[split].shards[0].file


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
        ["largest", "class:", "1.0", "×", "the", "smallest"],
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
    with pytest.raises(UserError, match=rf"^1 fault in {re.escape(str(data))}"):
        run(data, monkeypatch)
    assert re.search(
        rf"{re.escape(str(shard_of(data)))}: the record at byte {offset}: {reason}", capsys.readouterr().out
    )


@pytest.mark.parametrize("cut", ["within", "between"])
def test_truncation_is_named(cut, data, monkeypatch, capsys):
    offsets = [found.offset for found in tfrecord.walk(shard_of(data))]
    with shard_of(data).open("r+b") as file:
        file.truncate(offsets[9] + (5 if cut == "within" else 0))
    with pytest.raises(UserError, match="fault"):
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
    with pytest.raises(UserError, match="1 fault"):
        run(data, monkeypatch)
    assert f"the record at byte {offset}: its CRC is wrong" in capsys.readouterr().out


def test_of_many_classes_the_extremes_are_shown():
    balance = {"train": check.Counter({label: label + 1 for label in range(100)})}
    lines = check.describe(balance, [f"c{label}" for label in range(100)]).splitlines()
    assert [line.split()[0] for line in lines[1:6]] == ["c99", "c98", "c97", "c96", "c95"]
    assert lines[6].startswith("… 90 classes")
    assert lines[-1] == "largest class: 100.0 × the smallest"


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


def test_the_decoders_message_is_reported(data, monkeypatch, capsys):
    jpeg = encode_jpeg(np.kron(PIXELS[0], np.ones((8, 8, 1), np.uint8))).data
    rewrite(data, 0, encoded=jpeg[: len(jpeg) // 2], height=64, width=64)
    rewrite(data, 1, encoded=b"")
    with pytest.raises(UserError, match="2 faults"):
        run(data, monkeypatch)
    out = capsys.readouterr().out
    assert "its picture cannot be decoded (jpeg::Uncompress failed. Invalid JPEG data or crop window.)" in out
    assert "its picture cannot be decoded (Input is empty.)" in out


def test_the_sheet_leaves_out_what_is_no_example(data, monkeypatch, tmp_path):
    rewrite(data, 3, **CORRUPT["it is no tf.train.Example"])
    rewrite(data, 4, class_label=-1)
    with pytest.raises(UserError, match="2 faults"):
        run(data, monkeypatch, "--montage", str(tmp_path / "sheet.png"))
    assert cv2.imread(str(tmp_path / "sheet.png")) is not None


SKIP = "--on-error skip"


@pytest.mark.parametrize(
    ("change", "message", "skip"),
    [
        (lambda data: rewrite(data, 4, encoded=None), "it has no image/encoded", True),
        (lambda data: shard_of(data).unlink(), "the file cannot be read (No such file or directory)", False),
        (lambda data: (shard_of(data).unlink(), os.mkfifo(shard_of(data))), "cannot be read (no regular file)", False),
        (lambda data: said(data, 11), "holds 12 records; dataset.json says 11", False),
        (lambda data: said(data, 13), "it is missing; the file ends after 12 of 13 records", True),
        (lambda data: os.truncate(shard_of(data), 500), "the file ends within it; any records after it in the", False),
        (lambda data: misled(data), ".index.npz does not agree with it; remove that file", False),
    ],
)
def test_to_skip_is_advised_where_it_helps(change, message, skip, data, monkeypatch, capsys):
    change(data)
    with pytest.raises(UserError) as raised:
        run(data, monkeypatch)
    assert message in capsys.readouterr().out
    assert (SKIP in str(raised.value)) is skip
    if skip:
        assert Dataset.load(str(data)).index("train", "skip").files


def said(data, number):
    dataset = json.loads((data / "dataset.json").read_text())
    dataset["splits"]["train"] |= {"examples": number, "shards": [{"file": shard_of(data).name, "examples": number}]}
    (data / "dataset.json").write_text(json.dumps(dataset))


def misled(data):
    """Another shard of the same size and time than the one that the index is of."""
    Dataset.load(str(data)).index("train")
    status = shard_of(data).stat()
    payloads = [found.payload for found in tfrecord.walk(shard_of(data))]
    longer, shorter = sorted({len(payload) for payload in payloads})[-1], min(map(len, payloads))
    payloads.sort(key=len, reverse=len(payloads[0]) == shorter)
    assert longer > shorter
    shard_of(data).write_bytes(b"".join(map(tfrecord.framed, payloads)))
    assert shard_of(data).stat().st_size == status.st_size
    os.utime(shard_of(data), ns=(status.st_atime_ns, status.st_mtime_ns))


def test_an_index_that_agrees_is_no_fault(data, monkeypatch, capsys):
    Dataset.load(str(data)).index("train")
    run(data, monkeypatch)
    assert "all 16 records are sound" in capsys.readouterr().out


def test_an_index_that_is_not_used_is_named(data, monkeypatch, capsys):
    Dataset.load(str(data)).index("train")
    run(data, monkeypatch)
    assert ".index.npz" not in capsys.readouterr().out
    with np.load(data / ".index.npz") as stored:
        arrays = dict(stored)
    np.savez(data / ".index.npz", **arrays | {"counts": arrays["counts"] + 1})
    run(data, monkeypatch)
    assert f"{data / '.index.npz'} is damaged, edited or of another version; it is not used" in capsys.readouterr().out


def test_names_of_classes_are_compared(data, monkeypatch, capsys):
    dataset = json.loads((data / "dataset.json").read_text())
    dataset["class_names"].reverse()
    (data / "dataset.json").write_text(json.dumps(dataset))
    with pytest.raises(UserError, match=r"^1 fault") as raised:
        run(data, monkeypatch)
    assert SKIP not in str(raised.value)
    named = (
        r"the record at byte 0: it has label 0 \(bee\) and image/class/text 'ant', which is in .*dataset.json the name"
    )
    assert re.search(named + r" of class 1 \(ant\); 16 records contradict", capsys.readouterr().out)


def test_a_label_without_a_class_is_no_record_to_skip(data, monkeypatch):
    rewrite(data, 4, class_label=2)
    with pytest.raises(UserError, match=r"^1 fault .* has label 2, and .*dataset.json names 0 to 1; 1 of ") as raised:
        run(data, monkeypatch)
    assert SKIP not in str(raised.value)


@pytest.fixture
def slim(data, tmp_path):
    """slim(name) -> a directory of TF-Slim with the training shard under that name."""

    def make(name):
        directory = tmp_path / "slim"
        directory.mkdir()
        (directory / name).write_bytes(shard_of(data).read_bytes())
        (directory / "labels.txt").write_text("0:ant\n1:bee\n")
        return directory

    return make


def test_records_of_which_some_are_held_out_are_counted_once(slim, monkeypatch, capsys):
    run(slim("train.tfrecord"), monkeypatch)
    out = capsys.readouterr().out
    assert "left out" not in out
    assert "all 12 records are sound" in out
    assert [line.split() for line in out.splitlines() if line.startswith("all ")] == [["all", "11", "1"]]


def test_files_of_no_split_are_named(slim, monkeypatch, capsys):
    directory = slim("train.tfrecord")
    (directory / "extra-00000-of-00001").touch()
    run(directory, monkeypatch)
    assert "left out, since their names have no split such as train or test: extra-00000" in capsys.readouterr().out


def test_missing_shards_are_faults(slim, monkeypatch, capsys):
    directory = slim("train-00000-of-00002")
    with pytest.raises(UserError, match=r"^1 fault"):
        run(directory, monkeypatch)
    assert f"{directory}/train-00001-of-00002: it is missing; the names of other shards" in capsys.readouterr().out


def test_of_many_missing_shards_a_few_are_named(slim, monkeypatch, capsys):
    directory = slim("train-00000-of-00500")
    (directory / "train-00001-of-00500").touch()
    with pytest.raises(UserError, match=r"^11 faults"):
        run(directory, monkeypatch)
    out = capsys.readouterr().out
    assert f"{directory}/train-00001-of-00500: it is empty" in out
    assert f"{directory}: 489 more shards are missing" in out


def test_data_without_records_are_not_sound(data, monkeypatch):
    dataset = json.loads((data / "dataset.json").read_text())
    dataset["splits"] = {"train": {"examples": 0, "shards": []}}
    (data / "dataset.json").write_text(json.dumps(dataset))
    with pytest.raises(UserError, match="holds no records; convert the data again"):
        run(data, monkeypatch)


@pytest.mark.parametrize("place", ["x" * 250 + ".png", "there.png", "/proc/sheet.png"])
def test_a_sheet_that_cannot_be_written_is_an_error_before_all_are_read(place, data, monkeypatch, tmp_path):
    monkeypatch.setattr(check, "check", lambda *_: pytest.fail("all were read"))
    (tmp_path / "there.png").mkdir()
    with pytest.raises(UserError, match=r"^--montage .*(cannot be written|must be a \.png)"):
        run(data, monkeypatch, "--montage", str(tmp_path / place))


# While a run reads


def gif(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "GIF")
    return file.getvalue()


CORRUPT = {
    "its picture cannot be": {"encoded": encode_png(PIXELS[0]).data[:-30]},
    "its picture is neither JPEG nor PNG": {"encoded": gif(PIXELS[0])},
    "it is no tf.train.Example": {"payload": b"\xff\xfe\x80 no text"},  # which TensorFlow cites, in no UTF-8
}


@pytest.mark.parametrize("reason", CORRUPT)
@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_record_that_cannot_be_used_is_named_or_replaced(on_error, reason, data):
    dataset = Dataset.load(str(data))
    offset = rewrite(data, 7, **CORRUPT[reason])
    selection = Selection(dataset, "train", on_error)  # its CRCs are right
    with tf.Session() as session:
        batches = training_batches(selection.index(), Preprocessor("unit", 8, 3), 4, 0)
        reader = Reader(batches, selection)
        reader.start(session)

        def read(step):
            return reader.attempt(session, lambda: session.run(batches.rows), step)

        if on_error == "stop":
            with pytest.raises(UserError, match=rf"the record at byte {offset}: {reason}.*--on-error skip"):
                [read(step) for step in range(3)]
            return
        seen = np.concatenate([read(step) for step in range(6)])
        np.testing.assert_array_equal(seen, training_rows(12, 0, 0, 24))  # the order stays
        assert np.flatnonzero(batches.index.replaced).tolist() == [7]
    assert np.flatnonzero(dataset.index("train", "skip").replaced).tolist() == [7]  # marked


def test_a_fault_that_cannot_be_marked_ends_the_run(data, monkeypatch):
    selection = Selection(Dataset.load(str(data)), "train", "skip")
    rewrite(data, 7, **CORRUPT["it is no tf.train.Example"])
    monkeypatch.setattr("pipeline.index._save", lambda *_: None)  # a full disk
    with tf.Session() as session:
        reader = Reader(evaluation_batches(selection.index(), Preprocessor("unit", 8, 3), 12), selection)
        reader.start(session)
        with pytest.raises(UserError, match=r"no tf.train.Example, which cannot be marked in .*\.index\.npz; convert"):
            reader.attempt(session, lambda: session.run(reader.batches.rows))


def test_other_failures_are_left_as_they_are(data):
    selection = Selection(Dataset.load(str(data)), "train", "skip")
    with tf.Session() as session:
        reader = Reader(evaluation_batches(selection.index(), Preprocessor("unit", 8, 3), 4), selection)
        failing = tf.debugging.Assert(tf.constant(False), ["something else"])
        with pytest.raises(tf.errors.InvalidArgumentError, match="something else"):
            reader.attempt(session, lambda: session.run(failing))
