"""Directories of TensorFlow Datasets, written here as tensorflow-datasets 4.9.10 writes them, and read in place."""

import json

import numpy as np
import pytest

from config import InputOptions
from errors import UserError
from pipeline import check, tfrecord
from pipeline.batches import evaluation_batches
from pipeline.corruption import Reader
from pipeline.dataset import Dataset, Selection, has_dataset
from pipeline.images import encode_jpeg, encode_png
from pipeline.index import known_contents
from pipeline.prepare import prepare_data
from pipeline.preprocess import Preprocessor
from tfcompat import tf

PACKAGE = "tensorflow_datasets.core.features"
IMAGE = {
    "image": {"dtype": "uint8", "shape": {"dimensions": ["6", "6", "3"]}},
    "pythonClassName": f"{PACKAGE}.image_feature.Image",
}
LABEL = {"classLabel": {"numClasses": "2"}, "pythonClassName": f"{PACKAGE}.class_label_feature.ClassLabel"}
TEXT = {"pythonClassName": f"{PACKAGE}.text_feature.Text", "text": {}}
FEATURES = {"id": TEXT, "image": IMAGE, "label": LABEL}
TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
NAMES = ("cat", "dog")


def dictionary(features):
    return {"featuresDict": {"features": features}, "pythonClassName": f"{PACKAGE}.features_dict.FeaturesDict"}


def image(channels, dtype="uint8"):
    return {**IMAGE, "image": {"dtype": dtype, "shape": {"dimensions": ["-1", "-1", str(channels)]}}}


def picture(number, channels=3):
    return np.random.default_rng(number).integers(0, 256, (6, 6, channels), np.uint8)


def record(number, label=None, keys=("image", "label"), encoded=None):
    example = tf.train.Example()
    features = example.features.feature
    features["id"].bytes_list.value.append(f"train_{number:05d}".encode())
    features[keys[0]].bytes_list.value.append(encode_png(picture(number)).data if encoded is None else encoded)
    features[keys[1]].int64_list.value.append(number % 2 if label is None else label)
    return example.SerializeToString()


@pytest.fixture
def tfds(tmp_path):
    """tfds({split: [records of a shard, …]}, …) -> the path of a directory as TFDS makes it."""

    def make(splits, features=FEATURES, names=NAMES, label="label", info=True):
        directory = tmp_path / "pets" / "1.0.0"
        directory.mkdir(parents=True, exist_ok=True)
        listed = []
        for split, shards in splits.items():
            for number, records in enumerate(shards):
                name = f"pets-{split}.tfrecord-{number:05d}-of-{len(shards):05d}"
                (directory / name).write_bytes(b"".join(map(tfrecord.framed, records)))
            lengths = [str(len(records)) for records in shards]
            size = str(sum(len(one) for records in shards for one in records))
            listed.append({"filepathTemplate": TEMPLATE, "name": split, "numBytes": size, "shardLengths": lengths})
        (directory / "features.json").write_text(json.dumps(dictionary(features), indent=4, sort_keys=True))
        if names:
            (directory / f"{label}.labels.txt").write_text("\n".join(names) + "\n")
        if info:
            content = {"fileFormat": "tfrecord", "name": "pets", "splits": listed, "version": "1.0.0"}
            (directory / "dataset_info.json").write_text(json.dumps(content, indent=2))
        return directory

    return make


@pytest.fixture
def pets(tfds):
    """40 training records in two shards, 6 test records, and 3 in a split that is left out."""
    shards = [[record(i) for i in range(start, start + 20)] for start in (0, 20)]
    return tfds({"train": shards, "test": [[record(i) for i in range(100, 106)]], "extra": [[record(7)] * 3]})


def examples(data, split):
    index = data.index(split)
    return [index.example(row) for row in range(len(index.offsets))]


def test_pictures_labels_and_names_are_read(pets):
    data = Dataset.load(str(pets))
    assert has_dataset(str(pets))
    assert (data.class_names, data.channels) == (NAMES, 3)
    assert {split: data.size(split) for split in data.splits} == {"train": 36, "validation": 4, "test": 6}
    read = {example.filename: example for split in data.splits for example in examples(data, split)}
    assert sorted(read) == [f"train_{i:05d}" for i in [*range(40), *range(100, 106)]]
    for name, example in read.items():
        number = int(name.removeprefix("train_"))
        assert example.label == number % 2
        np.testing.assert_array_equal(example.pixels(3), picture(number))


def test_batches_hold_what_the_records_hold(pets):
    data = Dataset.load(str(pets))
    batches = evaluation_batches(data.index("test"), Preprocessor("none", 6, 3, data.statistics), 6)
    with tf.Session() as session:
        batches.start(session)
        images, labels = session.run([batches.images, batches.labels])
    assert labels.tolist() == [0, 1] * 3
    np.testing.assert_array_equal(images, np.stack([picture(i) for i in range(100, 106)]))


def test_a_stored_index_of_other_keys_is_not_used(tfds):
    both = [tf.train.Example.FromString(record(i)) for i in range(10)]
    for example in both:
        example.features.feature["other"].int64_list.value.append(1)
    directory = tfds({"validation": [[example.SerializeToString() for example in both]]})
    first = Dataset.load(str(directory))
    (directory / "features.json").write_text(json.dumps(dictionary({"image": IMAGE, "other": LABEL})))
    data = Dataset.load(str(directory))
    assert [example.label for example in examples(first, "validation")] == [0, 1] * 5
    data.check_labels("validation")
    assert [example.label for example in examples(data, "validation")] == [1] * 10
    (content,) = known_contents(data.directory).values()
    assert content.notes["label"].tolist() == [1] * 10


def test_a_run_reads_its_data_by_its_own_description(pets, tmp_path):
    data = Dataset.load(str(pets))
    data.copy_description(tmp_path)
    again = Dataset.load(str(tmp_path))
    assert (again.keys, again.class_names) == (data.keys, data.class_names)
    options = InputOptions(dataset="folder", data=str(pets))
    assert prepare_data(options, str(tmp_path)).description == data.description


def test_other_splits_are_named_as_left_out(pets, tmp_path, capsys):
    prepare_data(InputOptions(dataset="folder", data=str(pets)), str(tmp_path / "run"))
    assert "other splits, too, which are left out: extra" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["validation", "val", "valid"])
def test_a_validation_split_is_used(word, tfds):
    data = Dataset.load(str(tfds({"train": [[record(i) for i in range(8)]], word: [[record(i) for i in range(3)]]})))
    assert {split: data.size(split) for split in data.splits} == {"train": 8, "validation": 3}


def test_an_unlabelled_test_split_is_left_out(tfds):
    directory = tfds({"train": [[record(i) for i in range(20)]], "test": [[record(i, -1) for i in range(5)]]})
    data = Dataset.load(str(directory))
    assert list(data.splits) == ["train", "validation"]
    assert data.description["left_out"] == ["test (all its labels are -1, for unlabelled)"]


def test_a_single_negative_label_is_an_error(tfds):
    data = Dataset.load(str(tfds({"test": [[record(0), record(1, -1)]]})))
    with pytest.raises(UserError, match=r"has label -1, and .*/label.labels.txt names 0 to 1.*cannot be negative"):
        data.check_labels("test")


def test_labels_beyond_the_names_are_an_error(tfds):
    data = Dataset.load(str(tfds({"test": [[record(0), record(1, 2)]]})))
    with pytest.raises(UserError, match=r"has label 2, and .*/label.labels.txt names 0 to 1; 1 of 2 labels"):
        data.check_labels("test")


def test_classes_without_names_are_numbered(tfds):
    data = Dataset.load(str(tfds({"test": [[record(0)]]}, names=())))
    assert data.class_names == ("0", "1")
    assert data.names.file.endswith("features.json")


def test_names_are_of_any_text(tfds):
    names = ("Ångström: 1", "b, c")
    assert Dataset.load(str(tfds({"test": [[record(0)]]}, names=names))).class_names == names


def test_of_several_features_image_and_label_are_taken(tfds):
    features = {**FEATURES, "mask": image(1), "coarse": LABEL, "n": {"tensor": {}, "pythonClassName": "x.Scalar"}}
    data = Dataset.load(str(tfds({"test": [[record(0)]]}, features)))
    assert (data.keys.encoded, data.keys.label, data.keys.filename) == ("image", "label", "id")


def test_a_single_picture_and_label_may_have_any_name(tfds):
    features = {"photo": IMAGE, "breed": LABEL}
    rows = [record(i, keys=("photo", "breed")) for i in range(3)]
    data = Dataset.load(str(tfds({"test": [rows]}, features, label="breed")))
    assert [example.label for example in examples(data, "test")] == [0, 1, 0]
    assert [example.filename for example in examples(data, "test")] == [""] * 3


@pytest.mark.parametrize(("channels", "read"), [(1, 1), (3, 3), (4, 3)])
def test_channels_are_those_of_the_feature(channels, read, tfds):
    rows = [record(i, encoded=encode_jpeg(picture(i)).data) for i in range(3)]
    assert Dataset.load(str(tfds({"test": [rows]}, {**FEATURES, "image": image(channels)}))).channels == read


def test_transparent_pictures_are_read_as_predict_reads_them(tfds):
    import cv2

    pixels = picture(0, 4)
    encoded = cv2.imencode(".png", pixels)[1].tobytes()
    data = Dataset.load(str(tfds({"test": [[record(0, encoded=encoded)]]}, {**FEATURES, "image": image(4)})))
    (example,) = examples(data, "test")
    white = pixels[..., :3][..., ::-1] * (pixels[..., 3:] / 255) + (255 - pixels[..., 3:].astype(float))
    assert example.filename == "train_00000"
    assert cv2.imdecode(np.frombuffer(example.encoded, np.uint8), cv2.IMREAD_UNCHANGED).shape == (6, 6, 3)  # rewritten
    np.testing.assert_allclose(example.pixels(3), white, atol=1)


# Mistakes


def without(*keys):
    return {key: feature for key, feature in FEATURES.items() if key not in keys}


SEQUENCE = {"sequence": {"feature": IMAGE, "length": "-1"}, "pythonClassName": f"{PACKAGE}.sequence_feature.Sequence"}


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (
            without("label"),
            r"no feature is ClassLabel; its features are id \(Text\), image \(Image\). Needed",
        ),
        (without("image"), "no feature is Image; its features are id"),
        ({**FEATURES, "image": SEQUENCE}, r"no feature is Image; .*image \(Sequence\)"),
        ({"example": dictionary(FEATURES)}, r"no feature is Image; its features are example \(FeaturesDict\)"),
        ({"one": IMAGE, "two": IMAGE, "label": LABEL}, "several features are Image, none of them named image; .*two"),
        ({"image": IMAGE, "fine": LABEL, "rough": LABEL}, "several features are ClassLabel, none of them named label"),
        ({**FEATURES, "image": image(1, "uint16")}, "the pictures in image are uint16 with 1 channels; only uint8"),
        ({**FEATURES, "image": image(2)}, "the pictures in image are uint8 with 2 channels"),
        ({**FEATURES, "image": {"image": {}}}, "with an unknown number of channels"),
        ({**FEATURES, "label": {"classLabel": {"numClasses": "3"}}}, "names 2 classes, but features.json states 3"),
        ([], "lists no features"),
    ],
)
def test_features_that_are_no_labelled_picture(features, message, tfds):
    with pytest.raises(UserError, match=message):
        Dataset.load(str(tfds({"test": [[record(0)]]}, features)))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("features.json", "{", "features.json is not JSON"),
        ("features.json", "[]", "features.json holds no JSON object"),
        ("features.json", '{"type": "x", "content": {}}', "old version of TensorFlow Datasets"),
        ("label.labels.txt", "cat\ncat\n", r"names the classes \['cat', 'cat'\]; two or more, each once"),
        ("dataset_info.json", '{"splits": [{"name": "train"', "dataset_info.json is not JSON"),
        ("dataset_info.json", '{"name": "pets", "splits": [{"name": "test", "shardLengths": ["x"]}]}', "is damaged"),
        ("dataset_info.json", '{"name": "pets", "splits": [{"name": "test", "shardLengths": [1e400]}]}', "is damaged"),
        (
            "dataset_info.json",
            '{"name": "p", "splits": [{"name": "test", "shardLengths": [1000000000]}]}',
            "is damaged",
        ),
        ("dataset_info.json", '{"name": "pets", "splits": [{"name": "test", "shardLengths": [-1]}]}', "is damaged"),
        ("dataset_info.json", '{"fileFormat": "riegeli"}', "the files are riegeli; only TFRecord is read"),
        (
            "dataset_info.json",
            '{"name": "pets", "splits": [{"name": "test", "filepathTemplate": "{SPLIT}"}]}',
            "files are named {SPLIT}; only {DATASET}",
        ),
        ("dataset_info.json", "{}", "pets-test.tfrecord-00000-of-00001, which dataset_info.json does not list"),
    ],
)
def test_damaged_files(file, content, message, pets):
    (pets / file).write_text(content)
    with pytest.raises(UserError, match=message):
        Dataset.load(str(pets))


def shard(directory, number=1):
    return directory / f"pets-train.tfrecord-{number:05d}-of-00002"


def test_a_missing_shard_is_named(pets):
    shard(pets).unlink()
    data = Dataset.load(str(pets))
    with pytest.raises(UserError, match=r"lacks pets-train.tfrecord-00001-of-00002, as the names.*--on-error skip"):
        data.index("train")
    assert {len(data.index(split, "skip").offsets) for split in ("train", "validation")} == {18, 2}


def test_missing_splits_are_named(pets):
    (pets / "pets-test.tfrecord-00000-of-00001").unlink()
    with pytest.raises(UserError, match=r"lacks pets-test.tfrecord-00000-of-00001 and all other shards of test"):
        Dataset.load(str(pets))


def test_a_shard_too_many_is_named(pets):
    (pets / "pets-validation.tfrecord-00000-of-00001").write_bytes(shard(pets).read_bytes())
    with pytest.raises(UserError, match=r"has pets-validation.tfrecord-00000-of-00001, which dataset_info.json does n"):
        Dataset.load(str(pets))


def test_a_shard_cut_short_between_records_is_named(pets):
    offsets = [found.offset for found in tfrecord.walk(shard(pets))]
    shard(pets).write_bytes(shard(pets).read_bytes()[: offsets[15]])
    data = Dataset.load(str(pets))
    assert (data.size("train"), data.size("validation")) == (36, 4)
    with pytest.raises(UserError, match=r"00001-of-00002 holds 15 records, dataset_info.json says 20"):
        data.index("train")
    assert data.index("train", "skip").replaced.sum() == 5


def test_a_corrupt_record_is_named_while_a_run_reads(pets):
    data = Dataset.load(str(pets))
    index = data.index("test")
    name, offset = index.place(2)
    batches = evaluation_batches(index, Preprocessor("none", 6, 3, data.statistics), 6)
    with open(name, "r+b") as file:
        file.seek(offset + 40)
        file.write(b"\0\0\0\0")
    reader = Reader(batches, Selection(data, "test"))
    with tf.Session() as session:
        reader.start(session)
        with pytest.raises(UserError, match=rf"{name}: the record at byte {offset}: its CRC is wrong"):
            reader.attempt(session, lambda: session.run(batches.labels))


@pytest.mark.parametrize("kind", ["array_record", "riegeli", "parquet"])
def test_files_of_other_formats_are_named(kind, pets):
    for path in pets.glob("*.tfrecord-*"):
        path.rename(str(path).replace("tfrecord", kind))
    with pytest.raises(UserError, match=f"holds {kind} files; only TFRecord is read: .*file_format.*convert_format"):
        Dataset.load(str(pets))


@pytest.mark.parametrize("above", [1, 2])
def test_versions_are_named_where_the_directory_above_is_given(above, pets, tmp_path):
    directory = str(pets.parents[above - 1])
    names = "pets/1.0.0" if above == 2 else "1.0.0"
    message = rf"{directory} holds data sets of TensorFlow Datasets: {names}; name one of them: --data {pets}$"
    with pytest.raises(UserError, match=message):
        Dataset.load(directory)
    with pytest.raises(UserError, match=message):
        prepare_data(InputOptions(data=directory), str(tmp_path / "run"))


def test_pipeline_check_reads_all(pets, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["check", str(pets)])
    check.main()
    out = capsys.readouterr().out
    assert "left out: the splits extra\n" in out
    assert "all 46 records are sound" in out
    assert "cat" in out


def test_pipeline_check_names_a_cut_shard(pets, monkeypatch, capsys):
    offsets = [found.offset for found in tfrecord.walk(shard(pets))]
    shard(pets).write_bytes(shard(pets).read_bytes()[: offsets[19]])
    monkeypatch.setattr("sys.argv", ["check", str(pets)])
    with pytest.raises(UserError, match="1 fault"):
        check.main()
    assert "the file ends after 19 of 20 records" in capsys.readouterr().out
