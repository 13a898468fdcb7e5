"""Shards in a remote place, as TensorFlow's file system in memory, ram://, has it: read as local ones are."""

import os
import pathlib
import shutil

import numpy as np
import pooch
import pytest

from config import InputOptions
from errors import UserError
from files import absolute, expand, expand_data, is_remote
from pipeline import check, storage, tfrecord
from pipeline.batches import evaluation_batches
from pipeline.convert import convert
from pipeline.corruption import Reader
from pipeline.dataset import Dataset, Selection, has_dataset
from pipeline.images import encode_png
from pipeline.index import stored_index
from pipeline.prepare import find_data, prepare_data
from pipeline.preprocess import Preprocessor
from tfcompat import tf
from tiny_net import configured, evaluated, exported, planned, train


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The index goes here and not to the user's cache."""
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    return tmp_path / "cache"


@pytest.fixture
def copied(request):
    """copied(directory) -> the name of a copy of its files in ram://, which is as good as new in each test."""
    place = f"ram://{request.node.name.translate(str.maketrans('[]/', '___'))}"

    def copy(directory, below="shards"):
        for path in pathlib.Path(directory).iterdir():
            if path.is_file() and not path.name.startswith("."):
                write(f"{place}/{below}/{path.name}", path.read_bytes())
        return f"{place}/{below}"

    return copy


def write(path, content):
    tf.io.gfile.makedirs(os.path.dirname(path))
    if tf.io.gfile.exists(path):  # ram:// would append
        tf.io.gfile.remove(path)
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(content)


def tensors(prefix):
    reader = tf.train.NewCheckpointReader(str(prefix))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def record(number):
    pixels = np.random.default_rng(number).integers(0, 256, (6, 6, 3), np.uint8)
    return tfrecord.serialize(encode_png(pixels), number % 2, "", f"{number}.png")


def slim(directory, count=20, extra=b""):
    """A directory as TF-Slim's scripts make it."""
    directory.mkdir(exist_ok=True)
    (directory / "labels.txt").write_text("0:cat\n1:dog\n")
    rows = [record(i) for i in range(count)]
    (directory / "x_train_00000-of-00001.tfrecord").write_bytes(b"".join(map(tfrecord.framed, rows)) + extra)
    return directory


def test_remote_data_are_those_that_were_copied(digits_data, copied, cache):
    local, remote = Dataset.load(digits_data), Dataset.load(copied(digits_data) + "/")
    assert remote.description == local.description
    np.testing.assert_array_equal(remote.statistics.pixels["mean"], local.statistics.pixels["mean"])
    for split in local.splits:
        assert list(remote.examples(split)) == list(local.examples(split))
        remote.check_labels(split)
    assert stored_index(remote.directory).is_relative_to(cache)
    assert stored_index(remote.directory) == stored_index(remote.directory.rstrip("/"))


def test_remote_shards_are_checked_once(digits_data, copied, monkeypatch):
    data = copied(digits_data)
    Dataset.load(data).index("train")
    monkeypatch.setattr(tfrecord, "walk", lambda *_: pytest.fail("read again"))
    assert len(Dataset.load(data).index("train").offsets) == Dataset.load(digits_data).size("train")
    (name,) = (shard.file for shard in Dataset.load(data).splits["test"].shards)
    monkeypatch.undo()
    write(f"{data}/{name}", b"")  # a change is seen
    with pytest.raises(UserError, match=r"holds 0 records, dataset\.json says"):
        Dataset.load(data).index("test")


def test_a_training_on_remote_data_ends_with_the_same_bits(digits_data, copied, tmp_path):
    runs, steps = [tmp_path / "local", tmp_path / "remote"], ("--total-steps", "10", "--validate-every-steps", "10")
    for run, data in zip(runs, (digits_data, copied(digits_data)), strict=True):
        assert train(configured("--run-dir", str(run), "--data", data, *steps)) == 0
    local, remote = (tensors(run / "model.ckpt-10") for run in runs)
    assert local.keys() == remote.keys()
    for name, values in local.items():
        np.testing.assert_array_equal(values, remote[name])
    counts = [evaluated(run) for run in runs]
    assert counts[0] == counts[1]
    assert evaluated(runs[0], data=copied(digits_data)) == counts[0]
    assert (runs[1] / "pixel_stats.npz").read_bytes() == (runs[0] / "pixel_stats.npz").read_bytes()
    longer = configured("--run-dir", str(runs[1]), "--data", copied(digits_data), "--total-steps", "12")
    assert train(longer.replace(validate_every_steps=10)) == 0  # resumes
    assert exported(runs[1], "frozen", out=str(tmp_path / "export"))


def test_a_dry_run_reads_the_remote_data(digits_data, copied, tmp_path, capsys):
    assert train(configured("--run-dir", str(tmp_path / "run"), "--data", copied(digits_data), "--dry-run")) == 0
    assert "making" not in capsys.readouterr().out


def test_tf_slims_directories_are_read_there(tmp_path, copied):
    local, remote = Dataset.load(str(slim(tmp_path / "x"))), Dataset.load(copied(tmp_path / "x"))
    assert remote.description == local.description
    assert {split: remote.size(split) for split in remote.splits} == {"train": 18, "validation": 2}
    assert list(remote.examples("validation")) == list(local.examples("validation"))


def test_records_that_need_it_are_rewritten_into_the_cache(tmp_path, copied, cache):
    deep = np.random.default_rng(0).integers(0, 2**16, (6, 6), np.uint16)
    import cv2

    example = tf.train.Example.FromString(record(0))
    example.features.feature["image/encoded"].bytes_list.value[:] = [cv2.imencode(".png", deep)[1].tobytes()]
    slim(tmp_path / "x", extra=tfrecord.framed(example.SerializeToString()))
    index = Dataset.load(copied(tmp_path / "x")).index("train")
    assert pathlib.Path(index.files[-1]).is_relative_to(cache)
    assert index.example(int(np.argmax(index.shards))).encoded != example.features.feature["image/encoded"]


@pytest.mark.parametrize("files", [{}, {"dataset_info.json": '{"name": "x", "splits": [{"name": "train"}]}'}])
def test_directories_of_tensorflow_datasets_are_read_there(files, tmp_path, copied):
    picture = {"image": {"dtype": "uint8", "shape": {"dimensions": ["6", "6", "3"]}}}
    features = {"image/encoded": picture, "image/class/label": {"classLabel": {"numClasses": "2"}}}
    slim(tmp_path / "x")
    (tmp_path / "x" / "labels.txt").rename(tmp_path / "x" / "other.txt")
    (tmp_path / "x" / "x_train_00000-of-00001.tfrecord").rename(tmp_path / "x" / "x-train.tfrecord-00000-of-00001")
    (tmp_path / "x" / "features.json").write_text(str({"featuresDict": {"features": features}}).replace("'", '"'))
    for name, content in files.items():
        (tmp_path / "x" / name).write_text(content.replace('"train"', '"train", "shardLengths": ["20"]'))
    remote = Dataset.load(copied(tmp_path / "x", "x/1.0.0"))
    assert {split: remote.size(split) for split in remote.splits} == {"train": 18, "validation": 2}
    assert remote.counted_in == (next(iter(files), None))
    above = os.path.dirname(remote.directory)
    with pytest.raises(UserError, match=rf"{above} holds data sets .*: 1.0.0; name one of them: --data {above}/1.0.0$"):
        Dataset.load(above)


def test_a_corrupt_record_is_named(tmp_path, copied):
    data = Dataset.load(copied(slim(tmp_path / "x")))
    index = data.index("validation")
    path, offset = index.place(1)
    content = bytearray(storage.read(path))
    content[offset + 40] ^= 1
    batches = evaluation_batches(index, Preprocessor("none", 6, 3, data.statistics), 2)
    write(path, bytes(content))
    reader = Reader(batches, Selection(data, "validation"))
    with tf.Session() as session:
        reader.start(session)
        with pytest.raises(UserError, match=rf"{path}: the record at byte {offset}: its CRC is wrong"):
            reader.attempt(session, lambda: session.run(batches.labels))
    shutil.rmtree(stored_index(data.directory).parent)
    with pytest.raises(UserError, match=rf"{path}: the record at byte {offset} is corrupt: its CRC is wrong"):
        data.index("train")  # a corrupt record is never held out


def test_pipeline_check_reads_there(tmp_path, copied, monkeypatch, capsys):
    directory = copied(slim(tmp_path / "x"))
    monkeypatch.setattr("sys.argv", ["check", directory, "--montage", str(tmp_path / "sheet.png")])
    check.main()
    assert f"{directory}: all 20 records are sound" in capsys.readouterr().out
    path = f"{directory}/x_train_00000-of-00001.tfrecord"
    write(path, storage.read(path)[:-5])
    with pytest.raises(UserError, match="1 fault"):
        check.main()
    assert f"{path}: the record at byte" in capsys.readouterr().out


def test_a_compressed_shard_is_named(tmp_path, copied):
    slim(tmp_path / "x")
    (tmp_path / "x" / "x_train_00000-of-00001.tfrecord").write_bytes(b"\x1f\x8b" + bytes(40))
    with pytest.raises(UserError, match="is compressed"):
        Dataset.load(copied(tmp_path / "x"))


# Places that cannot be read or written


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            "ram://nothing/there",
            r"there/dataset\.json is missing .*; correct the name, or convert to a local disk",
        ),
        ("s3://bucket/shards", "s3://bucket/shards/dataset.json cannot be read: this TensorFlow reads .*gs://.*; copy"),
        ("gs:///shards", "cannot be read .*bucket"),
    ],
)
def test_places_that_cannot_be_read(place, message, tmp_path):
    with pytest.raises(UserError, match=message) as raised:
        planned("--run-dir", str(tmp_path / "run"), "--data", place)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError):
        Dataset.load(place)


@pytest.mark.parametrize("kind", ["PermissionDeniedError", "FailedPreconditionError", "UnavailableError"])
def test_errors_of_the_network_are_one_line(kind, copied, tmp_path, monkeypatch):
    data = copied(slim(tmp_path / "x"))

    def fails(*_):
        raise getattr(tf.errors, kind)(None, None, "Error executing an HTTP request:\n\t could not resolve host")

    for name in ("exists", "stat", "GFile"):
        with monkeypatch.context() as patched:
            patched.setattr(tf.io.gfile, name, fails)
            with pytest.raises(UserError, match=r"cannot be read \(Error executing an HTTP request: could not resolve"):
                Dataset.load(data).index("train")


@pytest.mark.parametrize(("path", "meant"), [("gs:/y", "gs://y"), ("s3:/y/z", "s3://y/z"), ("GS:/y", "gs://y")])
def test_a_remote_place_without_a_slash_is_no_local_directory(path, meant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for read in (expand, expand_data):
        with pytest.raises(UserError, match=f"^{path} would be a local file; did you mean {meant}[?] Else "):
            read(path)
    assert expand(f"./{path}") == f"./{path}"
    (tmp_path / path.split("/")[0]).mkdir()
    assert expand(path) == path


def test_a_run_knows_its_remote_data_without_reaching_them(tmp_path):
    assert find_data("gs://no-such-bucket/shards", str(tmp_path)) == "gs://no-such-bucket/shards"
    assert absolute("gs://bucket/shards//") == "gs://bucket/shards"
    assert absolute("gs://") == "gs://"
    assert absolute("a/") == os.path.abspath("a")
    assert expand_data("gs://bucket/~x") == "gs://bucket/~x"
    with pytest.raises(UserError, match="gs:// names no bucket"):
        configured("--data", "gs://")
    assert [is_remote(name) for name in ("a", "/a", "a:b", "a//b", "ram://a", "https://a")] == [False] * 4 + [True] * 2


@pytest.mark.parametrize("option", ["--run-dir", "--source", "--init-from"])
def test_all_else_is_local(option):
    with pytest.raises(UserError, match=r"gs://b/x is a remote place, from which only --data.*copy to or from it"):
        configured(option, "gs://b/x")


def test_nothing_is_written_there_or_read_from_there():
    for call in (
        lambda: evaluated("gs://b/x"),
        lambda: convert("digits", "gs://b/x"),
        lambda: convert("folder", "out", source="gs://b/x"),
        lambda: expand(pathlib.PurePosixPath("gs:") / "b") and expand("s3://b/x"),
    ):
        with pytest.raises(UserError, match=r"/x is a remote place, from which only --data"):
            call()
    with pytest.raises(UserError, match=r"ram://empty/place/dataset\.json is missing"):
        prepare_data(InputOptions(data="ram://empty/place"), "no run")
    assert not has_dataset("ram://empty/place")
