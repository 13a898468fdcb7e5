"""dataset.json, TF-Slim's directories, the index of record offsets and what becomes of corrupt records."""

import dataclasses
import json
import os
import pathlib
import re
import shutil

import numpy as np
import pytest

from errors import UserError
from pipeline import statistics, tfrecord
from pipeline.dataset import Dataset
from pipeline.index import INDEX_NPZ, add_fault


def shard_of(split, i):
    dataset, _ = split
    return pathlib.Path(dataset.directory) / dataset.splits["train"].shards[i].file


def damage(path, byte):
    data = bytearray(path.read_bytes())
    data[byte] ^= 1
    path.write_bytes(data)


def places(index):
    return list(zip(index.shards.tolist(), index.offsets.tolist(), strict=True))


def test_the_index_spans_the_shards(write_split):
    dataset, _ = write_split([3, 1, 2])
    index = dataset.index("train")
    assert [os.path.basename(f) for f in index.files] == [shard.file for shard in dataset.splits["train"].shards]
    assert index.shards.tolist() == [0, 0, 0, 1, 2, 2]
    assert index.offsets[[0, 3, 4]].tolist() == [0, 0, 0]
    assert not index.replaced.any()
    taken = index.take(np.array([4, 1]))
    assert (taken.shards.tolist(), taken.offsets.tolist()) == ([2, 0], index.offsets[[4, 1]].tolist())


def test_shards_are_walked_once_and_again_when_they_change(write_split, monkeypatch):
    split = dataset, _ = write_split([3, 4, 2])
    walked, walk = [], tfrecord.walk
    monkeypatch.setattr(tfrecord, "walk", lambda path, *to: walked.append(os.path.basename(path)) or walk(path, *to))
    first = dataset.index("train")
    assert walked == [shard.file for shard in dataset.splits["train"].shards]
    walked.clear()
    assert places(dataset.index("train")) == places(first)
    assert walked == []
    os.utime(shard_of(split, 1), ns=(1, 1))
    assert places(dataset.index("train")) == places(first)
    assert walked == [shard_of(split, 1).name]
    walked.clear()
    (pathlib.Path(dataset.directory) / INDEX_NPZ).write_bytes(b"PK\3\4 damaged")
    assert places(dataset.index("train")) == places(first)
    assert len(walked) == 3


def test_the_index_of_a_read_only_directory_lies_in_the_cache(write_split, monkeypatch, cache):
    dataset, _ = write_split([3])
    monkeypatch.setattr(os, "access", lambda path, mode: path != dataset.directory)
    first = dataset.index("train")
    assert not (pathlib.Path(dataset.directory) / INDEX_NPZ).exists()
    assert len(list(cache.rglob(INDEX_NPZ))) == 1
    monkeypatch.setattr(tfrecord, "walk", lambda path: pytest.fail("walked again"))
    assert places(dataset.index("train")) == places(first)


@pytest.mark.parametrize("length", [False, True], ids=["payload", "length"])
def test_a_corrupt_record_is_named_or_replaced_in_its_place(length, write_split, capsys):
    split = dataset, _ = write_split([3, 4, 2])
    whole = dataset.index("train")
    offset = int(whole.offsets[4])
    damage(shard_of(split, 1), offset if length else offset + 30)
    with pytest.raises(
        UserError, match=rf"{re.escape(str(shard_of(split, 1)))}: the record at byte {offset} is corr.*skip"
    ):
        dataset.index("train")
    index = dataset.index("train", "skip")
    assert f"the record at byte {offset} is corrupt" in capsys.readouterr().out
    bad = [4, 5, 6] if length else [4]  # what follows a damaged length cannot be found
    assert np.flatnonzero(index.replaced).tolist() == bad
    good = [row for row in range(9) if row not in bad]
    assert [places(index)[row] for row in good] == [places(whole)[row] for row in good]
    assert {places(index)[row] for row in bad} <= {places(whole)[row] for row in good}
    assert places(dataset.index("train", "skip")) == places(index)
    assert places(index.intact()) == [places(whole)[row] for row in good]


def test_without_a_sound_record_nothing_can_stand_in(write_split):
    split = dataset, _ = write_split([2])
    damage(shard_of(split, 0), 0)
    with pytest.raises(UserError, match="no record is intact"):
        dataset.index("train", "skip")


def test_a_fault_that_is_noted_stays(write_split):
    split = dataset, _ = write_split([3, 4])
    offset = int(dataset.index("train").offsets[5])
    add_fault(dataset.directory, shard_of(split, 1).name, offset, "its picture cannot be decoded")
    with pytest.raises(UserError, match=rf"at byte {offset} is corrupt: its picture cannot be decoded; 1 of 7"):
        dataset.index("train")
    assert np.flatnonzero(dataset.index("train", "skip").replaced).tolist() == [5]


def test_a_shard_cut_between_records_is_noticed(write_split):
    split = dataset, _ = write_split([3, 4])
    os.truncate(shard_of(split, 1), [f.offset for f in tfrecord.walk(shard_of(split, 1))][3])
    with pytest.raises(
        UserError, match=rf"{re.escape(str(shard_of(split, 1)))} holds 3 records, dataset.json says 4.*skip"
    ):
        dataset.index("train")
    assert np.flatnonzero(dataset.index("train", "skip").replaced).tolist() == [6]


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_more_records_than_dataset_json_says_are_no_matter_of_skipping(on_error, write_split):
    dataset, _ = write_split([3, 4])
    shards = tuple(shard._replace(examples=3) for shard in dataset.splits["train"].shards)
    dataset = dataclasses.replace(dataset, splits={"train": dataset.splits["train"]._replace(shards=shards)})
    with pytest.raises(UserError, match=r"holds 4 records, dataset.json says 3; convert the data again$"):
        dataset.index("train", on_error)


def test_a_missing_shard_is_named(write_split):
    split = dataset, _ = write_split([3, 4])
    shard_of(split, 0).unlink()
    with pytest.raises(UserError, match=f"{re.escape(str(shard_of(split, 0)))}: No such file.*convert"):
        dataset.index("train")


@pytest.mark.parametrize("split", ["validation", "test"])  # unknown; known and empty
def test_a_split_the_data_lack_is_named_with_those_there_are(split, write_split):
    dataset, _ = write_split([3])
    with pytest.raises(UserError, match=f"has no {split} split; it has train$"):
        dataset.index(split)


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
        Dataset.load(str(tmp_path))


SHARD = {"file": "a.tfrecord", "examples": 3}
TRAIN = {"examples": 3, "shards": [SHARD]}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"class_names": ["a", "a"]}, "class_names must be two names or more, each once"),
        ({"class_names": ["a", ["b"]]}, "class_names must be"),
        ({"class_names": ["a", "\udce9"]}, "class_names must be"),  # a name that cannot be printed
        ({"channels": True}, "channels must be 1 to 16"),
        ({"channels": 3.0}, "channels must be 1 to 16"),
        ({"channels": [3]}, "channels must be 1 to 16"),
        ({"statistics": [1]}, "statistics must be an object or null"),
        ({"splits": [TRAIN]}, "each of splits"),
        ({"splits": {"train": TRAIN | {"examples": 4}}}, "each of splits"),
        ({"splits": {"train": TRAIN | {"examples": True}}}, "each of splits"),
        ({"splits": {"train": TRAIN | {"every": "third"}}}, "each of splits"),
        ({"splits": {"train": TRAIN | {"part": "tenth"}}}, "each of splits"),
        ({"splits": {"train": TRAIN | {"missing": [1]}}}, "each of splits"),
        ({"splits": {"train": TRAIN, "test": TRAIN}}, "a shard is listed twice"),
        *(
            ({"splits": {"train": {"examples": number, "shards": [{"file": "a", "examples": number}]}}}, "each of spl")
            for number in (-1, 1.0, float("nan"), 10**9)
        ),
        *(
            ({"splits": {"train": {"examples": 3, "shards": [{"file": name, "examples": 3}]}}}, "each of splits")
            for name in ("../a", "/etc/passwd", "", "..", "a\0", "\udcff", 7)
        ),
    ],
)
def test_what_was_edited_by_hand_in_dataset_json_is_named(changed, message, tmp_path):
    dataset = {"class_names": ["a", "b"], "channels": 3, "splits": {"train": TRAIN}, "statistics": None}
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(dataset))
    assert Dataset.load(str(tmp_path)).description == dataset
    path.write_text(json.dumps(dataset | changed))
    with pytest.raises(UserError, match=f"^{re.escape(str(path))} is no description of a data set: {message}"):
        Dataset.load(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("dataset.json", lambda dataset: Dataset.load(dataset.directory)),
        ("labels.txt", lambda dataset: Dataset.load(dataset.directory)),
        ("pixel_stats.npz", lambda dataset: Dataset.of(dataset.directory, dataset.description)),
        ("fake_train_00000-of-00001.tfrecord", lambda dataset: dataset.index("train")),
    ],
)
def test_only_regular_files_are_read(name, read, write_split):
    """A FIFO waits for a writer: this test would hang."""
    dataset, _ = write_split([3])
    path = pathlib.Path(dataset.directory) / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(UserError, match=rf"^{re.escape(str(path))}.*no regular file"):
        read(dataset)


def test_an_index_that_is_no_regular_file_is_made_anew(write_split):
    dataset, _ = write_split([3])
    os.mkfifo(pathlib.Path(dataset.directory) / INDEX_NPZ)
    assert len(dataset.index("train").offsets) == 3


STATISTICS = {"mean": [1.0], "deviation": [1.0], "eigenvalues": [1.0], "components": [[1.0]]}


@pytest.mark.parametrize("key", STATISTICS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30, 10**400, "x", {}, [1], None])
def test_statistics_that_no_picture_has_are_refused(key, value, tmp_path):
    assert statistics.load(tmp_path, 1, STATISTICS).mean == [1]
    wrong = [[value]] if key == "components" else [value]
    with pytest.raises(UserError, match=r"dataset\.json has damaged statistics; convert the data again"):
        statistics.load(tmp_path, 1, STATISTICS | {key: wrong})


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((2, 2, 1), np.nan), "values that no picture has, such as NaN"),
        (np.full((2, 2, 1), -np.inf), "values that no picture has"),
        (np.zeros((0, 2, 1)), "is not of pictures with 1 channels"),  # another shape than the rest
        (np.zeros((2, 2)), "is not of pictures with 1 channels"),
        (np.full((2, 2, 1), "x"), "cannot be read"),
        (np.full((2, 2, 1), None), "cannot be read"),
    ],
)
def test_statistics_of_each_pixel_that_no_picture_has_are_refused(array, message, tmp_path):
    arrays = dict.fromkeys(("mean", "deviation", "minimum", "maximum"), np.zeros((2, 2, 1)))
    np.savez(tmp_path / "pixel_stats.npz", **arrays)
    assert statistics.load(tmp_path, 1).pixels.keys() == arrays.keys()
    np.savez(tmp_path / "pixel_stats.npz", **arrays | {"deviation": array})
    with pytest.raises(UserError, match=rf"pixel_stats\.npz.* {message}.*convert the data again"):
        statistics.load(tmp_path, 1)


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("offsets", np.zeros_like),  # all training would be on one picture
        ("counts", lambda counts: counts - 1),
        ("offsets", lambda offsets: offsets.astype(np.float64)),
        ("names", lambda names: names[:0]),
        ("digest", lambda digest: digest[::-1]),
    ],
)
def test_an_index_that_was_changed_by_hand_is_made_anew(key, change, write_split):
    dataset, _ = write_split([3, 4])
    first, path = dataset.index("train"), pathlib.Path(dataset.directory) / INDEX_NPZ
    whole = path.read_bytes()
    with np.load(path) as stored:
        arrays = dict(stored)
    np.savez(path, **arrays | {key: change(arrays[key])})
    assert places(dataset.index("train")) == places(first)
    assert path.read_bytes() == whole


def test_dataset_json_is_read_as_it_is(tmp_path):
    dataset = {"class_names": ["a", "b"], "channels": 1, "splits": {}, "more": [1]}
    (tmp_path / "dataset.json").write_text(json.dumps(dataset))
    assert Dataset.load(str(tmp_path)).description == dataset


# TF-Slim's own


@pytest.fixture
def slim_directory(write_split, tmp_path):
    """slim_directory(names) -> a directory of TF-Slim's shards, of 11 grey pictures each, and labels.txt."""
    dataset, _ = write_split([11], channels=1)
    shard = pathlib.Path(dataset.directory) / dataset.splits["train"].shards[0].file
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
    dataset = Dataset.load(directory)
    assert dataset.class_names == tuple(f"class {i}" for i in range(11))
    assert dataset.channels == 1
    assert {name: part.examples for name, part in dataset.splits.items()} == {"train": 22, "validation": 11}
    assert dataset.index("train").shards.tolist() == [0] * 11 + [1] * 11


@pytest.mark.parametrize("name", ["train-00000-of-00001", "cifar10_train.tfrecord", "mnist_train.tfrecord"])
def test_without_validation_every_tenth_training_record_is_held_out(name, slim_directory):
    directory = slim_directory(name, name.replace("train", "test"))
    dataset = Dataset.load(directory)
    assert {n: part.examples for n, part in dataset.splits.items()} == {"train": 10, "validation": 1, "test": 11}
    indices = {split: places(dataset.index(split)) for split in dataset.splits}
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
        (("x_train.tfrecord",), "0:a\n" + "9" * 5000 + ":b\n", "line 2, is '9999"),
    ],
)
def test_tf_slims_directories_that_are_none(names, labels, message, slim_directory):
    with pytest.raises(UserError, match=message):
        Dataset.load(slim_directory(*names, labels=labels))


def test_names_that_classes_share_get_their_numbers(slim_directory):
    directory = slim_directory("x_train.tfrecord", labels="0:tench\n1:crane\n2:crane\n")
    assert Dataset.load(directory).class_names == ("tench", "crane (1)", "crane (2)")


def test_a_shard_without_records_tells_no_channels(slim_directory):
    directory = slim_directory("x_train_00001-of-00002.tfrecord")
    (pathlib.Path(directory) / "x_train_00000-of-00002.tfrecord").write_bytes(b"")
    assert Dataset.load(directory).channels == 1


def test_a_missing_record_is_no_record_at_byte_minus_one(write_split, capsys):
    split = dataset, _ = write_split([3, 4])
    os.truncate(shard_of(split, 1), [f.offset for f in tfrecord.walk(shard_of(split, 1))][3])
    dataset.index("train", "skip")
    expected = (
        f"{shard_of(split, 1)} ends after 3 records, dataset.json says 4; 1 such records are replaced by others\n"
    )
    assert capsys.readouterr().out == expected
