"""TF-Slim's directories: what is held out, channels, names of classes and of shards, records of other programs."""

import base64
import json
import os
import pathlib

import numpy as np
import pytest

from config import InputOptions
from errors import UserError
from pipeline import index, tfrecord
from pipeline.corruption import Reader
from pipeline.dataset import Dataset, Selection
from pipeline.images import encode_png
from pipeline.prepare import prepare_data
from pipeline.records import SLIM, note
from tfcompat import tf

RANDOM = np.random.default_rng(0)


def record(label, text="", channels=3, pixels=None):
    pixels = RANDOM.integers(0, 256, (6, 6, channels), np.uint8) if pixels is None else pixels
    return tfrecord.serialize(encode_png(pixels), label, text, "")


@pytest.fixture
def slim(tmp_path):
    """slim({file: records}, names) -> the path of a directory with labels.txt, whose first number is `first`."""

    def make(files, names=("a", "b"), first=0):
        for name, records in files.items():
            (tmp_path / name).write_bytes(b"".join(map(tfrecord.framed, records)))
        lines = (f"{number}:{name}\n" for number, name in enumerate(names, start=first))
        (tmp_path / "labels.txt").write_text("".join(lines))
        return str(tmp_path)

    return make


def examples(dataset, split):
    index = dataset.index(split)
    return [index.example(row) for row in range(len(index.offsets))]


# Validation that is held out


def test_a_tenth_of_each_class_is_held_out(slim):
    rare = [record(2) for _ in range(10)]
    data = Dataset.load(slim({"train.tfrecord": [record(i % 2) for i in range(100)] + rare}, "abc"))
    labels = {split: [example.label for example in examples(data, split)] for split in data.splits}
    assert {split: np.bincount(each).tolist() for split, each in labels.items()} == {
        "train": [45, 45, 9],
        "validation": [5, 5, 1],
    }
    pictures = {split: {example.encoded for example in examples(data, split)} for split in data.splits}
    assert not pictures["train"] & pictures["validation"]
    assert {split: data.size(split) for split in data.splits} == {"train": 99, "validation": 11}


def test_copies_of_a_picture_are_held_out_together(slim):
    pictures = RANDOM.integers(0, 256, (43, 6, 6, 3), np.uint8)
    records = [record(i % 2, pixels=pixels) for i, pixels in enumerate(pictures)]
    data = Dataset.load(slim({"train.tfrecord": records * 5}))
    pictures = {split: [example.encoded for example in examples(data, split)] for split in data.splits}
    assert not set(pictures["train"]) & set(pictures["validation"])
    assert len(pictures["validation"]) == 20


def test_pictures_that_share_a_trailer_are_not_copies():
    pictures = [encode_png(RANDOM.integers(0, 256, (6, 6, 3), np.uint8)).data + bytes(5000) for _ in range(9)]
    payloads = [example(image__encoded=[picture], image__class__label=[i % 2]) for i, picture in enumerate(pictures)]
    assert len({note(payload, SLIM)[-1] for payload in payloads}) == len(pictures)


def test_an_index_of_another_version_is_made_anew(slim, monkeypatch):
    directory = slim({"train.tfrecord": [record(i % 2) for i in range(20)]})
    Dataset.load(directory)
    assert index.known_contents(directory)
    monkeypatch.setattr(index, "VERSION", b"another")
    assert not index.known_contents(directory)
    assert index.is_damaged(directory)


def test_what_is_held_out_does_not_depend_on_the_order_of_records(slim):
    records = [record(i % 2) for i in range(60)]
    held_out = []
    for order in (1, -1):
        data = Dataset.load(slim({"train.tfrecord": records[::order]}))
        held_out.append({example.encoded for example in examples(data, "validation")})
    assert held_out[0] == held_out[1]


def test_a_corrupt_training_record_is_not_replaced_by_one_that_is_held_out(slim):
    directory = pathlib.Path(slim({"train.tfrecord": [record(i % 2) for i in range(20)]}))
    data = Dataset.load(str(directory))
    with (directory / "train.tfrecord").open("r+b") as file:
        for offset in data.index("train").offsets[:12].tolist():
            file.seek(offset + 30)
            file.write(b"\0\0\0\0")
    parts = [data.index(split, "skip") for split in ("train", "validation")]
    assert parts[0].replaced.sum() == 12
    assert not set(parts[0].offsets.tolist()) & set(parts[1].offsets.tolist())


def as_in_an_earlier_version(description):
    """The content of dataset.json with each tenth record held out."""
    whole = {**description["splits"]["train"], "examples": 20}
    del whole["part"]
    splits = {
        "train": {**whole, "examples": 18, "every": "other"},
        "validation": {**whole, "examples": 2, "every": "tenth"},
    }
    return {**description, "splits": splits}


def test_runs_of_an_earlier_version_keep_what_they_hold_out(slim, tmp_path):
    directory = slim({"train.tfrecord": [record(i // 10) for i in range(20)]})
    description = as_in_an_earlier_version(Dataset.load(directory).description)
    run = tmp_path / "run"
    run.mkdir()
    (run / "dataset.json").write_text(json.dumps(description))
    data = Dataset.load(directory, Dataset.load(str(run)))
    assert data.description == description
    walked = [found.offset for found in tfrecord.walk(tmp_path / "train.tfrecord")]
    assert data.index("validation").offsets.tolist() == [walked[9], walked[19]]
    assert prepare_data(InputOptions(dataset="folder", data=directory), str(run)).description == description


# Channels


@pytest.mark.parametrize(("grey", "channels"), [(range(1), 3), (range(19), 3), (range(20), 1), (range(1, 20), 3)])
def test_data_are_grey_where_all_pictures_are(grey, channels, slim):
    records = [record(i % 2, channels=1 if i in grey else 3) for i in range(20)]
    assert Dataset.load(slim({"train-0-of-2": records[:10], "train-1-of-2": records[10:]})).channels == channels


def test_data_have_the_channels_of_the_run_that_reads_them(slim, tmp_path):
    directory = slim({"validation.tfrecord": [record(i % 2, channels=1) for i in range(4)]})
    run = {"class_names": ["a", "b"], "channels": 3, "splits": {}}
    assert Dataset.load(directory, Dataset.of(str(tmp_path), run)).channels == 3


# Names of classes


def load(directory, split="train", on_error="stop"):
    return Selection(Dataset.load(directory), split, on_error).index()


NAMES = ("tulip", "rose", "daisy")


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_record_that_names_another_class_is_named(on_error, slim):
    texts = ("Daisy", "rose", "tulip")
    directory = slim({"train.tfrecord": [record(1, "rose"), *(record(i % 3, texts[i % 3]) for i in range(8))]}, NAMES)
    with pytest.raises(
        UserError,
        match=r"train.tfrecord: the record at byte \d\d+: it has label 0 \(tulip\) and image/class/text 'Daisy', which "
        r"is in .*labels.txt the name of class 2 \(daisy\); 5 records contradict\. Correct the order",
    ):
        load(directory, on_error=on_error)


def test_splits_of_two_maps_are_named(slim):
    """labels.txt has names of its own, so only the records contradict one another."""
    train, other = ("n1", "n2", "n3"), ("n2", "n1", "n3")
    directory = slim(
        {
            "train.tfrecord": [record(i % 3, train[i % 3]) for i in range(12)],
            "validation.tfrecord": [record(i % 3, other[i % 3]) for i in range(6)],
        },
        NAMES,
    )
    load(directory)
    with pytest.raises(UserError, match=r"validation.* has label 0 .*'n2', which is in most records the name of class"):
        load(directory, "validation")


@pytest.mark.parametrize(
    ("names", "texts"),
    [
        (NAMES, ("Tulpe", "Rose ", "Gänseblümchen")),  # another language
        (("n02012849", "n03126707", "n1"), ("crane", "crane", "tench")),  # two classes of one name
        (("crane", "lifting_crane", "tench"), ("crane", "crane", "tench")),
        (("crane (bird)", "crane", "tench"), ("crane", "crane", "tench")),
        (NAMES, ("", "", "")),
        (NAMES, ("flower", "flower", "flower")),
        (NAMES, ("TULIP", "rose", "daisy")),
    ],
)
def test_names_of_another_kind_are_no_contradiction(names, texts, slim):
    assert len(load(slim({"train.tfrecord": [record(i % 3, texts[i % 3]) for i in range(12)]}, names)).offsets) == 11


def test_class_names_of_dataset_json_are_compared(write_split):
    dataset, _ = write_split([4])
    renamed = {**dataset.description, "class_names": ["class 0", "class 2", "class 1", "class 3"]}
    Selection(dataset, "train").index()
    (pathlib.Path(dataset.directory) / "dataset.json").write_text(json.dumps(renamed))
    with pytest.raises(UserError, match=r"'class 1', which is in .*dataset.json the name of class 2"):
        load(dataset.directory)


# Labels


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_labels_that_count_from_1_are_named(on_error, slim):
    directory = slim({"train.tfrecord": [record(1 + i % 2) for i in range(8)]})
    with pytest.raises(UserError, match=r"count from 1: they are 1 to 2, and .*labels.txt names 0 to 1; number its li"):
        load(directory, on_error=on_error)
    assert len(load(slim({}, first=1)).offsets) == 7  # what the message says


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_label_without_a_class_is_named_and_never_skipped(on_error, slim):
    directory = slim({"train.tfrecord": [record(i % 2) for i in range(8)] + [record(7)]})
    with pytest.raises(UserError, match=r"has label 7, and .*labels.txt names 0 to 1; 1 of 9 labels") as raised:
        load(directory, on_error=on_error)
    assert "skip" not in str(raised.value)


def test_a_negative_label_has_another_remedy(slim):
    directory = slim(
        {
            "train.tfrecord": [record(i % 2) for i in range(8)]
            + [example(image__encoded=[PNG], image__class__label=[-1])]
        }
    )
    with pytest.raises(UserError, match=r"has label -1, .*A label cannot be negative; convert") as raised:
        load(directory)
    assert "Name all classes" not in str(raised.value)


def test_labels_txt_may_have_a_byte_order_mark(slim, tmp_path):
    directory = slim({"train.tfrecord": [record(i % 2) for i in range(8)]})
    (tmp_path / "labels.txt").write_text("0:cat\r\n1:dog\r\n", encoding="utf-8-sig")
    assert Dataset.load(directory).class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0:a\n1:b\n1000000:c\n", "names 3 classes up to number 1000000; at most every second number may be left out"),
        ("0:a\n", "names 1 classes; at least two are needed"),
    ],
)
def test_numbers_of_labels_txt_that_cannot_be(text, message, slim, tmp_path):
    directory = slim({"train.tfrecord": [record(i % 2) for i in range(8)]})
    (tmp_path / "labels.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        Dataset.load(directory)


def test_labels_txt_that_counts_from_1_beside_labels_from_0(slim):
    directory = slim({"train.tfrecord": [record(i % 2) for i in range(8)]}, first=1)
    with pytest.raises(UserError, match="counts from 1, but the labels of the records from 0: none is 2; number"):
        load(directory)


def test_a_label_that_is_wrong_while_a_run_reads_is_not_replaced(slim):
    """As where the index could not be stored."""
    records = [record(i % 2) for i in range(8)] + [record(7)]
    dataset = Dataset.load(slim({"train.tfrecord": records, "validation.tfrecord": records}))

    class Batches:
        index = dataset.index("train")

        def rows_at(self, step):
            return range(len(self.index.offsets))

    def fail():
        raise tf.errors.InvalidArgumentError(None, None, "label")

    with pytest.raises(
        UserError, match=r"its label is 7; the classes are 0 to 1\. python -m pipeline.check [^ ]* list"
    ):
        Reader(Batches(), Selection(dataset, "train", "skip")).attempt(None, fail)


# Names of shards


def shards(*names):
    return {name: [record(i % 2) for i in range(4)] for name in names}


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (("x_train_00000-of-00003.tfrecord", "x_train_00002-of-00003.tfrecord"), "x_train_00001-of-00003.tfrecord"),
        (("train-00001-of-00004",), "train-00000-of-00004 and 2 more"),
        (("train-2-of-3", "train-3-of-3"), "train-1-of-3"),  # some count from 1
    ],
)
def test_missing_shards_are_named_or_left_out(names, missing, slim, capsys):
    directory = slim(shards(*names))
    dataset = Dataset.load(directory)
    with pytest.raises(UserError, match=f"lacks {missing}, as the names of its other shards say; .*--on-error skip"):
        dataset.index("train")
    assert len(dataset.index("train", "skip").offsets) == dataset.size("train")
    assert f"lacks {missing}" in capsys.readouterr().out
    assert Dataset.of(directory, json.loads(json.dumps(dataset.description))) == dataset


def test_shards_may_count_from_1(slim):
    assert Dataset.load(slim(shards("train-1-of-2", "train-2-of-2"))).index("train").files


@pytest.mark.parametrize(
    "names",
    [
        ("train-00000-of-00001", "train-00000-of-00002"),
        ("train-00000-of-00001.tfrecord", "train.tfrecord"),
        ("train-00000-of-00001", "train-00000-of-00001.tfrecord"),
        ("val-00000-of-00001", "validation-00000-of-00001"),
    ],
)
def test_shards_of_two_conversions_are_refused(names, slim):
    with pytest.raises(UserError, match=f"{names[0]} and {names[1]}, which are of two conv.* keep the shards of one"):
        Dataset.load(slim(shards(*names)))


@pytest.mark.parametrize("names", [("train.tfrecord", "train_1.tfrecord"), ("x_train0.tfrec", "x_train1.tfrec")])
def test_shards_that_are_numbered_without_their_total_are_read(names, slim):
    assert len(Dataset.load(slim(shards(*names))).splits["train"].shards) == 2


def test_an_empty_shard_is_like_a_missing_one(slim, capsys):
    directory = slim(shards("train-00000-of-00003") | {"train-00001-of-00003": [], "train-00002-of-00003": []})
    dataset = Dataset.load(directory)
    with pytest.raises(UserError, match=r"has empty shards \(0 bytes\): train-00001-of-00003, train-0.*-on-error skip"):
        dataset.index("train")
    assert dataset.index("train", "skip").files
    assert "has empty shards" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("others", "number"), [(("train-00001-of-00003", "train-00002-of-00003"), "about 7"), ((), "an unknown number of")]
)
@pytest.mark.parametrize("damage", ["cut", "length"])
def test_records_that_are_lost_after_a_damaged_one_are_counted(damage, others, number, slim, tmp_path, capsys):
    name = "train-00000-of-00003" if others else "train-00000-of-00001"
    directory = slim({file: [record(i % 2) for i in range(10)] for file in (name, *others)})
    offset = [found.offset for found in tfrecord.walk(tmp_path / name)][2]
    with (tmp_path / name).open("r+b") as file:
        if damage == "cut":
            file.truncate(offset + 20)
        else:
            file.seek(offset)
            file.write(b"\xff")
    lost = f"{number} further records are lost at the end of {name}"
    with pytest.raises(UserError, match=f"any records after it in the file are lost; 1 of .*, and {lost}"):
        Dataset.load(directory).index("train")
    train = Dataset.load(directory).index("train", "skip")
    assert train.replaced.sum() == 1
    assert train.lost == train.intact().lost == lost
    assert lost in capsys.readouterr().out


def test_after_the_last_record_none_are_lost(slim, tmp_path):
    directory = slim(shards("train-00000-of-00002", "train-00001-of-00002"))
    os.truncate(tmp_path / "train-00001-of-00002", (tmp_path / "train-00001-of-00002").stat().st_size - 3)
    assert not Dataset.load(directory).index("train", "skip").lost


def test_an_absurd_number_of_shards_is_refused(slim):
    with pytest.raises(UserError, match="is one of 100001 shards by its name; at most 100,000"):
        Dataset.load(slim(shards("train-00000-of-100001")))


def test_a_shard_too_many_is_refused(slim):
    names = [f"train-0000{i}-of-00002" for i in (0, 1, 2)]
    with pytest.raises(UserError, match="train-00002-of-00002, a shard too many by its own name"):
        Dataset.load(slim(shards(*names)))


# Records of other programs


def example(**features):
    kinds = {int: "int64_list", float: "float_list", bytes: "bytes_list"}
    message = tf.train.Example()
    for key, values in features.items():
        getattr(message.features.feature[key.replace("__", "/")], kinds[type(values[0])]).value[:] = values
    return message.SerializeToString()


PNG = encode_png(np.zeros((6, 6, 3), np.uint8)).data
RAW = bytes(108)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"image__encoded": [PNG], "image__class__label": [1.0]}, r"no image/class/label that is one int64; its .*"),
        ({"image__encoded": [PNG], "image__class__label": [0, 1]}, r"one int64; .*label \(2 int64\), image/encoded"),
        ({"image__encoded": [PNG], "image__class__label": [b"1"]}, r"one int64; .*label \(1 bytes\), image/encoded"),
        ({"image_raw": [PNG], "label": [1]}, r"features are image_raw \(1 bytes\), label \(1 int64\)"),
        ({"image": [1.0, 2.0], "image__class__label": [1]}, r"no image/encoded.* image \(2 float\), image/class/l"),
        (
            {"image__encoded": [RAW], "image__class__label": [1], "image__height": [6], "image__width": [6]},
            r"neither JPEG nor PNG but 108 bytes of raw pixels, 3 for each of 6×6",
        ),
        ({"image__encoded": [base64.b64encode(PNG)], "image__class__label": [1]}, "but base64 text"),
        ({"image__encoded": [base64.urlsafe_b64encode(PNG)], "image__class__label": [1]}, "but base64 text"),
    ],
)
def test_records_of_other_programs_are_described(features, message, slim):
    with pytest.raises(UserError, match=rf"^no record .*train.tfrecord: the record at byte 0: .*{message}.*docs/data"):
        Dataset.load(slim({"train.tfrecord": [example(**features)] * 3}))


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff\xe0", PNG])
def test_pictures_of_the_right_format(data):
    from pipeline.records import wrong_format

    assert wrong_format(data, (6, 6)) is None


def test_the_first_record_may_be_damaged(slim):
    directory = slim({"train.tfrecord": [example(label=[1]), *(record(i % 2, channels=1) for i in range(10))]})
    assert Dataset.load(directory).channels == 1
    assert os.path.exists(os.path.join(directory, ".index.npz"))
