"""dataset.json, TF-Slim's directories, the index of record offsets and what becomes of corrupt records."""

import json
import os
import pathlib
import re
import shutil

import numpy as np
import pytest

from errors import UserError
from pipeline import shard_index, tfrecord
from pipeline.records import load_dataset, load_index


def shard_of(split, i):
    directory, dataset, _ = split
    return pathlib.Path(directory) / dataset["splits"]["train"]["shards"][i]["file"]


def damage(path, byte):
    data = bytearray(path.read_bytes())
    data[byte] ^= 1
    path.write_bytes(data)


def places(index):
    return list(zip(index.shards.tolist(), index.offsets.tolist(), strict=True))


def test_the_index_spans_the_shards(write_split):
    directory, dataset, _ = write_split([3, 1, 2])
    index = load_index(directory, dataset, "train")
    assert [os.path.basename(f) for f in index.files] == [s["file"] for s in dataset["splits"]["train"]["shards"]]
    assert index.shards.tolist() == [0, 0, 0, 1, 2, 2]
    assert index.offsets[[0, 3, 4]].tolist() == [0, 0, 0]
    assert not index.replaced.any()
    taken = index.take(np.array([4, 1]))
    assert (taken.shards.tolist(), taken.offsets.tolist()) == ([2, 0], index.offsets[[4, 1]].tolist())


def test_shards_are_walked_once_and_again_when_they_change(write_split, monkeypatch):
    split = directory, dataset, _ = write_split([3, 4, 2])
    walked, walk = [], tfrecord.walk
    monkeypatch.setattr(tfrecord, "walk", lambda path: walked.append(os.path.basename(path)) or walk(path))
    first = load_index(directory, dataset, "train")
    assert walked == [s["file"] for s in dataset["splits"]["train"]["shards"]]
    walked.clear()
    assert places(load_index(directory, dataset, "train")) == places(first)
    assert walked == []
    os.utime(shard_of(split, 1), ns=(1, 1))
    assert places(load_index(directory, dataset, "train")) == places(first)
    assert walked == [shard_of(split, 1).name]
    walked.clear()
    (pathlib.Path(directory) / shard_index.INDEX_NPZ).write_bytes(b"PK\3\4 damaged")
    assert places(load_index(directory, dataset, "train")) == places(first)
    assert len(walked) == 3


def test_the_index_of_a_read_only_directory_lies_in_the_cache(write_split, monkeypatch, cache):
    directory, dataset, _ = write_split([3])
    monkeypatch.setattr(os, "access", lambda path, mode: path != directory)
    first = load_index(directory, dataset, "train")
    assert not (pathlib.Path(directory) / shard_index.INDEX_NPZ).exists()
    assert len(list(cache.rglob(shard_index.INDEX_NPZ))) == 1
    monkeypatch.setattr(tfrecord, "walk", lambda path: pytest.fail("walked again"))
    assert places(load_index(directory, dataset, "train")) == places(first)


@pytest.mark.parametrize("length", [False, True], ids=["payload", "length"])
def test_a_corrupt_record_is_named_or_replaced_in_its_place(length, write_split, capsys):
    split = directory, dataset, _ = write_split([3, 4, 2])
    whole = load_index(directory, dataset, "train")
    offset = int(whole.offsets[4])
    damage(shard_of(split, 1), offset if length else offset + 30)
    with pytest.raises(
        UserError, match=rf"{re.escape(str(shard_of(split, 1)))}: the record at byte {offset} is corr.*skip"
    ):
        load_index(directory, dataset, "train")
    index = load_index(directory, dataset, "train", "skip")
    assert f"the record at byte {offset} is corrupt" in capsys.readouterr().out
    bad = [4, 5, 6] if length else [4]  # what follows a damaged length cannot be found
    assert np.flatnonzero(index.replaced).tolist() == bad
    good = [row for row in range(9) if row not in bad]
    assert [places(index)[row] for row in good] == [places(whole)[row] for row in good]
    assert {places(index)[row] for row in bad} <= {places(whole)[row] for row in good}
    assert places(load_index(directory, dataset, "train", "skip")) == places(index)
    assert places(index.intact()) == [places(whole)[row] for row in good]


def test_without_a_sound_record_nothing_can_stand_in(write_split):
    split = directory, dataset, _ = write_split([2])
    damage(shard_of(split, 0), 0)
    with pytest.raises(UserError, match="no record is intact"):
        load_index(directory, dataset, "train", "skip")


def test_a_fault_that_is_noted_stays(write_split):
    split = directory, dataset, _ = write_split([3, 4])
    offset = int(load_index(directory, dataset, "train").offsets[5])
    shard_index.add_fault(directory, shard_of(split, 1).name, offset, "its picture cannot be decoded")
    with pytest.raises(UserError, match=rf"at byte {offset} is corrupt: its picture cannot be decoded; 1 of 7"):
        load_index(directory, dataset, "train")
    assert np.flatnonzero(load_index(directory, dataset, "train", "skip").replaced).tolist() == [5]


def test_a_shard_cut_between_records_is_noticed(write_split):
    split = directory, dataset, _ = write_split([3, 4])
    os.truncate(shard_of(split, 1), [f.offset for f in tfrecord.walk(shard_of(split, 1))][3])
    with pytest.raises(
        UserError, match=rf"{re.escape(str(shard_of(split, 1)))} holds 3 records, dataset.json says 4.*skip"
    ):
        load_index(directory, dataset, "train")
    assert np.flatnonzero(load_index(directory, dataset, "train", "skip").replaced).tolist() == [6]


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_more_records_than_dataset_json_says_are_no_matter_of_skipping(on_error, write_split):
    directory, dataset, _ = write_split([3, 4])
    dataset["splits"]["train"]["shards"][1]["examples"] = 3
    with pytest.raises(UserError, match=r"holds 4 records, dataset.json says 3; convert the data again$"):
        load_index(directory, dataset, "train", on_error)


def test_a_missing_shard_is_named(write_split):
    split = directory, dataset, _ = write_split([3, 4])
    shard_of(split, 0).unlink()
    with pytest.raises(UserError, match=f"{re.escape(str(shard_of(split, 0)))}: No such file.*convert"):
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
        (
            b'{"class_names": ["a", "b"], "channels": 1, "splits": {"train": {"examples": 1, "shards": [1]}}}',
            "is no desc",
        ),
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


# TF-Slim's own


@pytest.fixture
def slim_directory(write_split, tmp_path):
    """slim_directory(names) -> a directory of TF-Slim's shards, of 11 grey pictures each, and labels.txt."""
    directory, dataset, _ = write_split([11], channels=1)
    shard = pathlib.Path(directory) / dataset["splits"]["train"]["shards"][0]["file"]
    slim = tmp_path / "slim"
    slim.mkdir()

    def make(*names, labels=None):
        labels = labels or "".join(f"{i}:class {i}\n" for i in range(11))
        for name in names:
            shutil.copy(shard, slim / name)
        (slim / "labels.txt").write_text(labels)
        return str(slim)

    return make


def test_tf_slims_directories_are_read_in_place(slim_directory):
    directory = slim_directory(
        "flowers_train_00000-of-00002.tfrecord",
        "flowers_train_00001-of-00002.tfrecord",
        "flowers_validation_00000-of-00001.tfrecord",
    )
    dataset = load_dataset(directory)
    assert dataset["class_names"] == [f"class {i}" for i in range(11)]
    assert dataset["channels"] == 1
    assert {name: part["examples"] for name, part in dataset["splits"].items()} == {"train": 22, "validation": 11}
    assert load_index(directory, dataset, "train").shards.tolist() == [0] * 11 + [1] * 11


@pytest.mark.parametrize("name", ["train-00000-of-00001", "cifar10_train.tfrecord", "mnist_train.tfrecord"])
def test_without_validation_every_tenth_training_record_is_held_out(name, slim_directory):
    directory = slim_directory(name, name.replace("train", "test"))
    dataset = load_dataset(directory)
    assert {n: part["examples"] for n, part in dataset["splits"].items()} == {"train": 10, "validation": 1, "test": 11}
    indices = {split: places(load_index(directory, dataset, split)) for split in dataset["splits"]}
    assert {split: len(index) for split, index in indices.items()} == {"train": 10, "validation": 1, "test": 11}
    assert sorted(indices["train"] + indices["validation"]) == indices["test"]


@pytest.mark.parametrize(
    ("names", "labels", "message"),
    [
        ((), "0:a\n1:b\n", "no records in files named like"),
        (("x_train.tfrecord",), "0:a\nb\n", "line 2, is 'b'"),
        (("x_train.tfrecord",), "0:a\n0:b\n", "line 2, is '0:b'"),
        (("x_train.tfrecord",), "0:a\n", "names 1 classes"),
        (("x_train.tfrecord",), "0:a\n900000000:b\n", "up to number 900000000"),
    ],
)
def test_tf_slims_directories_that_are_none(names, labels, message, slim_directory):
    with pytest.raises(UserError, match=message):
        load_dataset(slim_directory(*names, labels=labels))
