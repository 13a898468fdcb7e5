"""Fashion-MNIST, CIFAR, signs, flowers, tables, labels in file names; options for all sources; several processes."""

import csv
import functools
import gzip
import hashlib
import http.server
import io
import json
import os
import pathlib
import pickle
import signal
import struct
import subprocess
import sys
import tarfile
import threading
import time

import cv2
import h5py
import numpy as np
import pytest
from PIL import Image

from errors import UserError
from pipeline import images, listing, statistics, tfrecord
from pipeline.convert import convert, pool
from pipeline.convert.sources import arrays, folders, tables
from pipeline.pictures import decode
from tfcompat import tf

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared/data"
RANDOM = np.random.default_rng(0)


def png(pixels):
    return images.encode_png(pixels).data


def converted(name, out, *arguments, **options):
    """Converts; returns the content of dataset.json."""
    convert(name, out, *arguments, **options)
    return json.loads((pathlib.Path(out) / "dataset.json").read_text())


def read_back(directory, dataset):
    """{split: {file name: (label, pixels)}}"""
    encoded = tf.placeholder(tf.string, [])
    pixels, splits = decode(encoded, dataset["channels"]), {}
    with tf.Session() as session:
        for split, part in dataset["splits"].items():
            splits[split] = {}
            for shard in part["shards"]:
                for found in tfrecord.walk(pathlib.Path(directory) / shard["file"]):
                    features = tf.train.Example.FromString(found.payload).features.feature
                    name = features["image/filename"].bytes_list.value[0].decode()
                    data = features["image/encoded"].bytes_list.value[0]
                    label = features["image/class/label"].int64_list.value[0]
                    splits[split][name] = label, session.run(pixels, {encoded: data})
    return splits


def counts(dataset):
    return {name: part["examples"] for name, part in dataset["splits"].items()}


# Arrays


def write_idx(directory, shape=(30, 4, 4), labels=None):
    """MNIST's four files; `shape` is in the header of the training pictures."""
    directory.mkdir()
    labels = np.arange(shape[0]) % 10 if labels is None else labels
    for part, size in ("train", shape), ("t10k", (len(labels), 4, 4)):
        content = struct.pack(">HBB3i", 0, 8, 3, *size) + bytes(max(0, int(np.prod(size, dtype=np.int64))))
        (directory / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
        content = struct.pack(">HBBi", 0, 8, 1, len(labels)) + labels.astype(np.uint8).tobytes()
        (directory / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(content))


def test_fashion_mnist_has_mnists_format_and_its_own_classes(tmp_path):
    write_idx(tmp_path / "raw")
    dataset = converted("fashion_mnist", str(tmp_path / "out"), str(tmp_path / "raw"))
    assert dataset["class_names"][::9] == ["T-shirt/top", "Ankle boot"]
    assert counts(dataset) == {"train": 20, "validation": 10, "test": 30}


@pytest.mark.parametrize("shape", [(0, 4, 4), (30, 0, 0), (30, -4, -4), (2**22, 2**21, 2**21)])
def test_idx_files_with_impossible_shapes(shape, tmp_path):
    write_idx(tmp_path / "idx", shape, np.arange(30) % 10)
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz is no complete IDX file"):
        convert("mnist", str(tmp_path / "out"), str(tmp_path / "idx"))


@pytest.mark.parametrize("name", ["{}.gz", "{}", "MNIST/raw/{}", "{}/{}", "train-images.idx3-ubyte"])
def test_idx_files_as_others_leave_them(name, tmp_path):
    write_idx(tmp_path / "raw")
    expected = arrays.fashion_mnist(tmp_path / "raw", None)
    for path in list((tmp_path / "raw").iterdir()):
        stem, content = path.name.removesuffix(".gz"), gzip.decompress(path.read_bytes())
        path.unlink()
        new = name.format(stem, stem) if "{" in name else stem.replace("-idx", ".idx")
        (tmp_path / "raw" / new).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / new).write_bytes(content)  # .gz only by its name
    data = arrays.fashion_mnist(tmp_path / "raw", None)
    for one, two in zip(data.splits["train"], expected.splits["train"], strict=True):
        assert one[:2] == two[:2]
        np.testing.assert_array_equal(one.image, two.image)


@pytest.mark.parametrize("shape", [(30, 4, 4), (2**11, 2**11, 2**11)])
def test_a_compression_bomb_is_not_unpacked(shape, tmp_path, monkeypatch):
    write_idx(tmp_path / "raw")
    unpacked = []
    read = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, n=-1: unpacked.append(read(self, n)) or unpacked[-1])
    bomb = struct.pack(">HBB3i", 0, 8, 3, *shape) + bytes(2**26)
    (tmp_path / "raw" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bomb, 1))
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz is no complete IDX file"):
        arrays.mnist(tmp_path / "raw", None)
    assert sum(map(len, unpacked)) < 1000


def test_archives_of_arrays_are_measured_before_they_are_unpacked(tmp_path):
    big = dict.fromkeys(("mean", "deviation", "minimum", "maximum"), np.zeros((512, 512, 3)))
    np.savez_compressed(tmp_path / statistics.PIXEL_STATS, **big)
    assert (tmp_path / statistics.PIXEL_STATS).stat().st_size < 2**15
    with pytest.raises(UserError, match=r"pixel_stats\.npz cannot be read .*unpacks to more than 2,097,152 bytes"):
        statistics.load(tmp_path, 3)


def test_hdf5_files_that_unpack_to_gigabytes_are_refused(tmp_path):
    write_signs(tmp_path / "raw", "test", 6)
    write_signs(tmp_path / "raw", "train", 33, train_set_x=None)
    with h5py.File(tmp_path / "raw" / "train_signs.h5", "a") as file:
        file.create_dataset("train_set_x", (200_000, 64, 64, 3), np.uint8, chunks=(1, 64, 64, 3), compression=9)
    with pytest.raises(UserError, match=r"train_signs\.h5 unpacks to more than 2 GiB"):
        arrays.signs(tmp_path / "raw", None)


@pytest.fixture
def cifar_files(tmp_path):
    raw = tmp_path / "raw" / "cifar-10-batches-bin"
    raw.mkdir(parents=True)
    for name, number in ("data_batch_1", 20), ("data_batch_2", 10), ("test_batch", 10):
        labels = (np.arange(number) % 10).astype(np.uint8)
        planes = RANDOM.integers(0, 256, (number, 3072), np.uint8)
        (raw / f"{name}.bin").write_bytes(np.concatenate([labels[:, None], planes], 1).tobytes())
    return raw


def test_cifar_planes_become_pictures(cifar_files, tmp_path):
    dataset = converted("cifar10", str(tmp_path / "out"), str(cifar_files.parent))
    assert counts(dataset) == {"train": 20, "validation": 10, "test": 10}
    assert (dataset["class_names"][3], dataset["channels"]) == ("cat", 3)
    back = read_back(tmp_path / "out", dataset)
    data = (cifar_files / "test_batch.bin").read_bytes()
    for i in range(10):
        label, pixels = back["test"][f"test_batch_{i:05d}.png"]
        record = np.frombuffer(data, np.uint8)[i * 3073 : (i + 1) * 3073]
        assert label == record[0]
        np.testing.assert_array_equal(pixels[4, 7], record[[1 + c * 1024 + 4 * 32 + 7 for c in range(3)]])


def test_cifar_files_that_are_missing_are_named(cifar_files, capsys):
    arrays.cifar10(cifar_files, None)
    assert "lacks data_batch_3, data_batch_4, data_batch_5, each" in capsys.readouterr().out
    for i in (3, 4, 5):
        (cifar_files / f"data_batch_{i}.bin").write_bytes(bytes(3073))
    arrays.cifar10(cifar_files, None)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: (raw / "test_batch.bin").unlink(), "holds no test_batch"),
        (lambda raw: (raw / "data_batch_2.bin").write_bytes(bytes(3000)), "data_batch_2.bin has 3000 bytes"),
        (lambda raw: (raw / "data_batch_2.bin").write_bytes(b"\x0b" + bytes(3072)), "holds the label 11"),
        (lambda raw: (raw / "data_batch_2.bin").write_bytes(b""), "has 0 bytes"),
    ],
)
def test_unusable_cifar_files(change, message, cifar_files, tmp_path):
    change(cifar_files)
    with pytest.raises(UserError, match=message):
        convert("cifar10", str(tmp_path / "out"), str(cifar_files))


@pytest.mark.parametrize(
    ("name", "copy", "message"),
    [
        ("data_batch_1.bin", "data_batch_1_old.bin", "are both data_batch_1; remove"),
        ("data_batch_1.bin", "data_batch_1 (copy).bin", "are both data_batch_1; remove"),
        ("data_batch_1.bin", "../more/data_batch_1.bin", "are both data_batch_1; remove"),
        ("test_batch.bin", "test_batch_first1000.bin", "are both test_batch; remove"),
        ("data_batch_1.bin", "data_batch_3 (1).bin", "none of data_batch_1 to data_batch_5; rename"),
        ("data_batch_1.bin", "data_batch_6.bin", "none of data_batch_1 to data_batch_5; rename"),
    ],
)
def test_copies_of_cifar_files_are_named(name, copy, message, cifar_files):
    (cifar_files / copy).parent.mkdir(exist_ok=True)
    (cifar_files / copy).write_bytes((cifar_files / name).read_bytes())
    with pytest.raises(UserError, match=message) as error:
        arrays.cifar10(cifar_files.parent, None)
    named = [name, pathlib.Path(copy).name] if "both" in message else [copy]
    assert all(f"/{each}" in str(error.value) for each in named)


def test_the_name_of_cifars_test_file_may_go_on(cifar_files):
    expected = arrays.cifar10(cifar_files, None).splits["train"]
    (cifar_files / "test_batch.bin").rename(cifar_files / "test_batch_first1000.bin")
    (cifar_files / "data_batch_1").touch()  # of the Python version, beside the binary one
    data = arrays.cifar10(cifar_files, None)
    assert [e.filename for e in data.splits["train"]] == [e.filename for e in expected]
    assert data.splits["test"][3].filename == "test_batch_first1000_00003.png"


class Python2Pickler(pickle._Pickler):
    """Writes bytes as the strings of Python 2."""

    def save_string(self, value):
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch = {**pickle._Pickler.dispatch, bytes: save_string}  # noqa: RUF012


def pickled(value, writer):
    if writer != "Python 2":
        return pickle.dumps(value, writer)
    file = io.BytesIO()
    Python2Pickler(file, 2).dump(value)
    return file.getvalue().replace(b"numpy._core", b"numpy.core")


@pytest.fixture
def cifar_pickles(cifar_files, tmp_path):
    """write(protocol) -> a directory with the content of cifar_files as Python leaves it, and text files beside it."""

    def write(protocol, folder="cifar-10-batches-py"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "readme.html").touch()
        for path in cifar_files.iterdir():
            rows = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 3073)
            names = [b"%d.png" % i for i in range(len(rows))]
            batch = {b"data": rows[:, 1:].copy(), b"labels": rows[:, 0].tolist(), b"filenames": names}
            (tmp_path / folder / path.stem).write_bytes(pickled(batch, protocol))
        return tmp_path / folder

    return write


@pytest.mark.parametrize("protocol", ["Python 2", 2, 4, 5])
def test_cifar_as_python_pickles_it(protocol, cifar_files, cifar_pickles):
    expected, data = arrays.cifar10(cifar_files, None), arrays.cifar10(cifar_pickles(protocol), None)
    assert data.splits.keys() == expected.splits.keys()
    for split, examples in expected.splits.items():
        for one, two in zip(data.splits[split], examples, strict=True):
            assert one[:2] == two[:2]
            np.testing.assert_array_equal(one.image, two.image)


@pytest.mark.parametrize("protocol", [2, 5])
def test_cifar_labels_as_keras_has_them(protocol, cifar_files, cifar_pickles, monkeypatch):
    expected, raw = arrays.cifar10(cifar_files, None), cifar_pickles(protocol)
    for path in raw.glob("*_batch*"):
        batch = pickle.loads(path.read_bytes())
        path.write_bytes(pickle.dumps({**batch, b"labels": np.array(batch[b"labels"])[:, None]}, protocol))
    assert [e.label for e in arrays.cifar10(raw, None).splits["train"]] == [e.label for e in expected.splits["train"]]
    monkeypatch.setattr(arrays, "MOST_PICKLE", 1000)
    with pytest.raises(UserError, match=r"data_batch_1 is no pickle .*\(it is larger than 1,000 bytes\)"):
        arrays.cifar10(raw, None)


def encoded(times):
    """A pickle of text that is encoded as hexadecimal digits again and again, each time twice as long."""
    text, name = b"U\x01A", b"X\x03\0\0\0hex"
    for _ in range(times):
        text = b"c_codecs\nencode\n(" + text + name + b"tR"
    return b"\x80\x02}U\x04data" + text + b"s."


NESTED = functools.reduce(lambda found, _: [found] * 10, range(9), 1)  # a billion labels in some bytes


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"data": Evil()}), r"is no pickle of CIFAR-10.* \(it would run posix\.mkdir\)"),
        (
            pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 10]}),
            "a label of 0 to 9 for each picture",
        ),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}), "a label of 0 to 9"),
        (pickle.dumps({"data": np.zeros((1, 3072)), "labels": [0]}), "does not hold 3072 bytes"),
        (encoded(34), r"\(it would encode other than text as latin1\)"),
        (pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": NESTED}), "the labels are no flat list"),
        (pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [[0]]}), "the labels are no flat list"),
        (pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [0.0]}), "the labels are no flat list"),
        (pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": np.zeros((1, 2), int)}), "no flat list"),
        (pickle.dumps([1]), "is no pickle of CIFAR-10"),
        (pickle.dumps({"data": np.zeros((9, 3072), np.uint8)})[:-2000], "is no pickle of CIFAR-10"),
        (b"", "is no pickle of CIFAR-10"),
        (b"<html>not found</html>", "is no pickle of CIFAR-10"),
    ],
)
def test_unusable_pickles_run_nothing(content, message, cifar_pickles, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = cifar_pickles(2)
    (raw / "data_batch_2").write_bytes(content)
    with pytest.raises(UserError, match=rf"data_batch_2 .*{message}"):
        arrays.cifar10(raw, None)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("ending", ["", ".bin"])
def test_cifar_100_is_named(ending, tmp_path):
    for name in "train", "test", "meta":
        (tmp_path / f"{name}{ending}").touch()
    with pytest.raises(
        UserError,
        match=r"the names of CIFAR-100's files; .* cifar100 source; cifar10 needs cifar-10-binary\.tar\.gz or",
    ):
        arrays.cifar10(tmp_path, None)


def write_signs(directory, split, number, classes=(0, 1, 2), **changed):
    directory.mkdir(exist_ok=True)
    arrays = {
        f"{split}_set_x": RANDOM.integers(0, 256, (number, 8, 8, 3), np.uint8),
        f"{split}_set_y": np.arange(number)[None] % 3,
        "list_classes": np.array(classes),
    } | changed
    with h5py.File(directory / f"{split}_signs.h5", "w") as file:
        for key, value in arrays.items():
            if value is not None:
                file[key] = value
    return arrays


def test_signs_are_read_from_hdf5(tmp_path):
    write_signs(tmp_path / "raw", "train", 33)
    test = write_signs(tmp_path / "raw", "test", 6)
    dataset = converted("signs", str(tmp_path / "out"), str(tmp_path / "raw"))
    assert dataset["class_names"] == ["0", "1", "2"]
    assert counts(dataset) == {"train": 30, "validation": 3, "test": 6}
    for i, (name, (label, pixels)) in enumerate(sorted(read_back(tmp_path / "out", dataset)["test"].items())):
        assert (name, label) == (f"test{i:05d}.png", i % 3)
        np.testing.assert_array_equal(pixels, test["test_set_x"][i])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"test_set_x": None}, "must hold train_set_x and test_set_x.*found: train"),
        ({"test_set_y": None}, "no complete HDF5"),
        ({"test_set_y": np.arange(6) % 4}, "test_set_y does not label 6 pictures with 3 classes"),
        ({"test_set_x": np.zeros((6, 8, 8), np.uint8)}, r"test_set_x is uint8 \(6, 8, 8\)"),
        ({"test_set_x": np.zeros((6, 8, 8, 3))}, r"test_set_x is float64"),
        ({"list_classes": np.arange(4)}, "other classes than the file before"),
    ],
)
def test_unusable_signs(changed, message, tmp_path):
    write_signs(tmp_path / "raw", "train", 33)
    write_signs(tmp_path / "raw", "test", 6, **changed)
    with pytest.raises(UserError, match=message):
        convert("signs", str(tmp_path / "out"), str(tmp_path / "raw"))


@pytest.mark.parametrize(
    "changed",
    [
        {"train_set_x": np.zeros((0, 8, 8, 3), np.uint8), "train_set_y": np.zeros(0, int)},
        {"train_set_x": np.zeros((12, 0, 4, 3), np.uint8)},
        {"train_set_x": np.float64(1)},
        {"train_set_x": h5py.Empty("u1")},
        {"train_set_x": "text"},
        {"train_set_y": np.arange(12) / 12},
        {"train_set_y": ["0"] * 12},
        {"train_set_y": h5py.Empty("i8")},
        {"list_classes": [b"\xff", b"\xfe", b"\xfd"]},
        {"list_classes": [b"a", b"a", b"b"]},
        {"list_classes": h5py.Empty("i8")},
    ],
)
def test_signs_with_wrong_types_and_shapes(changed, tmp_path):
    for split in "train", "test":
        own = {key: value for key, value in changed.items() if key.startswith((split, "list"))}
        write_signs(tmp_path / "raw", split, 12, **own)
    with pytest.raises(UserError, match=r"raw/t(rain|est)_signs\.h5"):
        convert("signs", str(tmp_path / "out"), str(tmp_path / "raw"))


@pytest.mark.parametrize("name", ["mnist", "signs", "cifar10"])
def test_a_class_with_too_few_pictures_is_named(name, tmp_path):
    few = np.array([0, *np.arange(27) % 9 + 1], np.uint8)  # a single 0
    raw = tmp_path / "raw"
    if name == "mnist":
        write_idx(raw, (28, 4, 4), few)
    elif name == "signs":
        write_signs(raw, "train", 12, train_set_y=np.array([0] + [1] * 11))
        write_signs(raw, "test", 12)
    else:
        raw.mkdir()
        for file in "data_batch_1.bin", "test_batch.bin":
            (raw / file).write_bytes(np.concatenate([few[:, None], np.zeros((len(few), 3072), np.uint8)], 1).tobytes())
    with pytest.raises(UserError, match=r"holds fewer than 3 pictures of (0|airplane)"):
        convert(name, str(tmp_path / "out"), str(raw))


def test_flowers_are_downloaded_once_and_checked(tmp_path, monkeypatch, cache):
    made = tmp_path / "made/flower_photos"
    for name in ("daisy", "roses"):
        (made / name).mkdir(parents=True)
        for i in range(4):
            (made / name / f"{i}.png").write_bytes(png(RANDOM.integers(0, 256, (6, 6, 3), np.uint8)))
    (made / "LICENSE.txt").write_text("of the photographs")
    (tmp_path / "served").mkdir()
    archive = tmp_path / "served/flower_photos.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(made, "flower_photos")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=archive.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(folders, "FLOWERS_URL", f"http://127.0.0.1:{server.server_port}/flower_photos.tgz")
        with pytest.raises(UserError, match=r"could not be downloaded.*hash.*--source DIR"):
            convert("flowers", str(tmp_path / "wrong"))
        checksum = f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"
        monkeypatch.setattr(folders, "FLOWERS_CHECKSUM", checksum)
        first = converted("flowers", str(tmp_path / "first"))
        server.shutdown()
    assert (first["class_names"], first["source"]) == (["daisy", "roses"], None)
    assert [part["examples"] for part in first["splits"].values()] == [4, 2, 2]
    assert converted("flowers", str(tmp_path / "again")) == first
    cache.rename(tmp_path / "elsewhere")  # the server has stopped, too
    with pytest.raises(UserError, match=r"could not be downloaded \(no connection\); give files .*--source DIR"):
        convert("flowers", str(tmp_path / "offline"))


@pytest.mark.skipif(not (SHARED / "signs").is_dir(), reason=f"{SHARED}/signs is missing")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("signs", {"train": 972, "validation": 108, "test": 120}),
        ("cifar10", {"train": 9001, "validation": 999, "test": 1000}),
    ],
)
def test_the_real_files(name, expected, tmp_path):
    dataset = converted(name, str(tmp_path / "out"), str(SHARED / name))
    assert counts(dataset) == expected


# Tables


def write_table(tmp_path, rows, name="table.csv"):
    with (tmp_path / name).open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return str(tmp_path / name)


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "pictures").mkdir()
    for i in range(40):
        (tmp_path / "pictures" / f"{i}.png").write_bytes(png(np.full((4, 4, 3), i, np.uint8)))
    return [f"pictures/{i}.png" for i in range(40)]


@pytest.mark.parametrize("splits", [True, False])
def test_a_table_of_paths(splits, pictures, tmp_path):
    rows = [["Path", "label", "split"][: 2 + splits]]
    for i, path in enumerate(pictures):
        rows.append([path, str(i % 2 + 9), ("val" if i < 4 else "test" if i < 8 else "train")][: 2 + splits])
    dataset = converted("csv", str(tmp_path / "out"), write_table(tmp_path, rows))
    assert dataset["class_names"] == ["9", "10"]  # as numbers
    expected = {"train": 32, "validation": 4, "test": 4}
    assert counts(dataset) == expected
    for split, examples in read_back(tmp_path / "out", dataset).items():
        for name, (label, pixels) in examples.items():
            assert label == pixels[0, 0, 0] % 2
            assert not splits or (name in pictures[:4]) == (split == "validation")


def test_a_table_of_pixels(tmp_path):
    pixels = RANDOM.integers(0, 256, (60, 9))
    rows = [["label", *(f"pixel{i}" for i in range(9))], *([i % 3 * 2, *row] for i, row in enumerate(pixels))]
    dataset = converted("csv", str(tmp_path / "out"), write_table(tmp_path, rows))
    assert (dataset["class_names"], dataset["channels"]) == (["0", "2", "4"], 1)
    back = {name: v for examples in read_back(tmp_path / "out", dataset).values() for name, v in examples.items()}
    assert len(back) == 60
    for i in range(60):
        label, picture = back[f"row{i:05d}.png"]
        assert label == i % 3
        np.testing.assert_array_equal(picture.reshape(-1), pixels[i])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "begins with ''"),
        ([["file", "class"]], "begins with 'file,class'; its first line must be path,label"),
        ([["path", "label"], ["pictures/0.png"]], "line 2, has 1 fields; the header has 2"),
        ([["path", "label"], ["gone.png", "a"]], "line 2, names 'gone.png', which is no file"),
        ([["path", "label"], ["pictures/0.png", ""]], "line 2, has no label"),
        ([["path", "label"], *[["pictures/0.png", "a"]] * 2], "line 3, names pictures/0.png for the second time"),
        ([["path", "label", "split"], ["pictures/0.png", "a", "dev"]], "line 2, has the split 'dev'"),
        ([["path", "label", "split"], ["pictures/0.png", "a", "test"]], "names no training pictures"),
        ([["path", "label"], ["pictures/0.png", "a"]], "has only one class"),
        ([["path", "label"], ["pictures/0.png", "a"], ["pictures/1.png", "b"]], "fewer than 3 pictures of a"),
        ([["label", "pixel0", "pixel1"], [0, 1, 2]], "has 2 pixels a row, which is no square"),
        ([["label", "pixel0"], [0, "x"]], "no table of whole numbers"),
        ([["label", "pixel0"], [-1, 3]], "has the label -1; labels must be 0 or more"),
        (
            [["label", *(f"pixel{i}" for i in (0, 1, 2, 4))], [0] * 5],
            "has 4 columns of pixels; .* pixel0 to pixel3, or",
        ),
        ([["label", *(f"pixel{i}" for i in (1, 2, 3, "03"))], [0] * 5], "has 4 columns of pixels; .* pixel0 to"),
        ([["label", "pixel_r0c0"], [0, 1]], "has pixel_r0c0; they must be called pixel0 to pixel0, or"),
        ([["label", "pixel0"], [0, 256]], "has pixels from 256 to 256"),
        ([["label", "pixel0"]], "has 0 rows"),
        ([["path", "label", "label"]], "two columns of one name"),
        ([["path", "label"], ["x" * 200_000, "a"]], "is no CSV file"),
        ([["label", "pixel0"], [0, 1], ["#1", 2]], "no table of whole numbers"),  # CSV has no comments
        ([["label", "pixel0"], [0, 10**30]], "no table of whole numbers"),
        ([["label", "pixel0"], [0, "1e400"]], "no table of whole numbers"),
        ([["path", "label"], ["pictures/0.png", "a"], ["./pictures/0.png", "b"]], "line 3, names ./pic.* second time"),
        ([["path", "label"], ["pictures/0.png", "a"], ["pictures/../pictures/0.png", "b"]], "line 3, .* second time"),
        ([["path", "label"], ["x" * 100_000, "a"]], "line 2, names 'x{80}', which is no file"),
        ([["path", "label"], ["pictures", "a"]], "line 2, names 'pictures', which is no file"),
        ([["path", "label"], ["pictures/0.png", "9" * 5000], ["pictures/1.png", "1"]], "fewer than 3 pictures of 1"),
    ],
)
@pytest.mark.filterwarnings("ignore:loadtxt")
def test_unusable_tables(rows, message, pictures, tmp_path):
    with pytest.raises(UserError, match=message):
        convert("csv", str(tmp_path / "out"), write_table(tmp_path, rows))


def test_a_table_that_is_not_utf_8(tmp_path):
    (tmp_path / "table.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is no text in UTF-8"):
        convert("csv", str(tmp_path / "out"), str(tmp_path / "table.csv"))
    with pytest.raises(UserError, match=r"needs --source FILE\.csv"):
        convert("csv", str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("delimiter", "encoding", "slash"), [(";", "utf-8", "/"), ("\t", "utf-16", "/"), (",", "utf-8-sig", "\\")]
)
def test_tables_that_spreadsheets_and_windows_write(delimiter, encoding, slash, pictures, tmp_path):
    lines = [delimiter.join(["path", "label"])]
    lines += [f'"{path.replace("/", slash)}"{delimiter}"größe {i % 2}"' for i, path in enumerate(pictures)]
    (tmp_path / "table.csv").write_text("\r\n".join(lines), encoding=encoding)
    data = tables.csv(tmp_path / "table.csv", None)
    assert data.class_names == ["größe 0", "größe 1"]
    assert [(e.filename, e.label) for e in data.splits["train"]] == [(path, i % 2) for i, path in enumerate(pictures)]


@pytest.mark.parametrize("first", [0, 1])
def test_pixels_are_ordered_by_their_numbers(first, tmp_path):
    columns = [*range(first + 15, first + 7, -1), "label", *range(first + 7, first - 1, -1)]
    header = [name if name == "label" else f"pixel{name}" for name in columns]
    rows = [[label if name == "label" else name for name in columns] for label in (0, 1)]
    data = tables.csv(pathlib.Path(write_table(tmp_path, [header, *rows])), None)
    for label, example in enumerate(data.splits["train"]):
        assert example.label == label
        assert example.image.reshape(-1).tolist() == list(range(first, first + 16))


def test_quoted_pixels(tmp_path):
    (tmp_path / "table.csv").write_text('"label";"pixel0"\n"0";"7"\n"1";"8"\n')
    data = tables.csv(tmp_path / "table.csv", None)
    assert [(e.label, int(e.image.squeeze())) for e in data.splits["train"]] == [(0, 7), (1, 8)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,label\nC:\\pics\\1.png,a", r"names 'C:.*1\.png', .* on a Windows drive; make it relative to"),
        (b"path,label\n\\\\nas\\pics\\1.png,a", "on a Windows drive"),
        (b"path,label\n'pictures/0.png','a'", "quotes must be double quotes"),
        (gzip.compress(b"path,label\n", mtime=0), r"table\.csv is compressed by gzip; unpack it"),
        (b"PK\3\4", "is a spreadsheet or zip archive; save it as CSV in UTF-8"),
        ("path,label\n0.png,größe".encode("cp1252"), "is no text in UTF-8 .*; save it as CSV in UTF-8"),
    ],
)
def test_tables_that_need_another_form_are_named_with_the_remedy(content, message, pictures, tmp_path):
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        tables.csv(tmp_path / "table.csv", None)


# Labels in file names


@pytest.fixture
def flat(tmp_path):
    """cat.0.jpg and so on, as in Kaggle's data."""
    (tmp_path / "raw").mkdir()
    for name in "cat", "dog":
        for i in range(20):
            Image.fromarray(RANDOM.integers(0, 256, (9, 9, 3), np.uint8)).save(tmp_path / "raw" / f"{name}.{i}.jpg")
    return tmp_path / "raw"


def test_labels_are_found_in_file_names(flat, tmp_path):
    dataset = converted("folder", str(tmp_path / "out"), str(flat), label_regex=r"^(\w+)\.")
    assert dataset["class_names"] == ["cat", "dog"]
    assert counts(dataset) == {"train": 32, "validation": 4, "test": 4}
    for examples in read_back(tmp_path / "out", dataset).values():
        assert all(name.startswith(["cat", "dog"][label]) for name, (label, _) in examples.items())


@pytest.mark.parametrize(
    ("regex", "message"),
    [
        (None, "holds no class folders.*--label-regex"),
        ("(", "is no regular expression"),
        (r"^\w+", "has 0 groups; one is needed"),
        (r"^(cat)", "finds no class in .*dog.0.jpg"),
        (r"(\.)", "holds one class in its file names"),
    ],
)
def test_unusable_label_expressions(regex, message, flat, tmp_path):
    with pytest.raises(UserError, match=message):
        convert("folder", str(tmp_path / "out"), str(flat), label_regex=regex)


def test_only_folders_have_labels_in_file_names(tmp_path):
    with pytest.raises(UserError, match="--label-regex belongs to folder, not to digits"):
        convert("digits", str(tmp_path / "out"), label_regex="(a)")


# Options for all sources


@pytest.fixture
def photos(tmp_path):
    """Two classes of pictures of several sizes and kinds."""
    for name in "a", "b":
        (tmp_path / "raw" / name).mkdir(parents=True)
        for i in range(12):
            pixels = cv2.resize(RANDOM.integers(0, 256, (5, 7, 3), np.uint8), (70 + i, 50 + i))
            ending, kwargs = (".png", {}) if i % 3 == 0 else (".jpg", {"quality": 90})
            Image.fromarray(pixels).save(tmp_path / "raw" / name / f"{i}{ending}", **kwargs)
    return tmp_path / "raw"


def test_short_side_shrinks_larger_pictures_by_area(photos, tmp_path):
    dataset = converted("folder", str(tmp_path / "out"), str(photos), short_side=55)
    for examples in read_back(tmp_path / "out", dataset).values():
        for name, (_, pixels) in examples.items():
            original = cv2.imread(str(photos / name), cv2.IMREAD_COLOR_RGB)
            assert min(pixels.shape[:2]) == min(55, *original.shape[:2])
            width = max(55, round(original.shape[1] * 55 / original.shape[0]))
            if original.shape[0] > 55:
                original = cv2.resize(original, (width, 55), interpolation=cv2.INTER_AREA)
            assert np.abs(pixels.astype(int) - original).mean() < (0.01 if name.endswith("png") else 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_are_the_requested_ones(channels, photos, tmp_path):
    dataset = converted("folder", str(tmp_path / "out"), str(photos), channels=channels)
    assert dataset["channels"] == channels == len(dataset["statistics"]["mean"])
    flag = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB
    for examples in read_back(tmp_path / "out", dataset).values():
        for name, (_, pixels) in examples.items():
            np.testing.assert_array_equal(pixels, np.atleast_3d(cv2.imread(str(photos / name), flag)))


def test_grey_data_in_colour(tmp_path):
    dataset = converted("digits", str(tmp_path / "out"), channels=3)
    assert dataset["channels"] == 3
    np.testing.assert_allclose(np.ptp(dataset["statistics"]["mean"]), 0)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"short_side": 0}, "--short-side is 0; it must be at least 1"),
        ({"max_pixels": 0}, "--max-pixels is 0"),
        ({"processes": -1}, "--processes is -1"),
        ({"processes": True}, "--processes is True, .* it must be a number"),
        ({"channels": 17}, "--channels is 17; it must be at least 1 and at most 16"),
        ({"on_error": "ignore"}, "--on-error is 'ignore', which it cannot be"),
        ({"on_duplicates": "skip"}, "--on-duplicates is 'skip', which it cannot be"),
    ],
)
def test_options_out_of_range(option, message, tmp_path):
    with pytest.raises(UserError, match=message):
        convert("digits", str(tmp_path / "out"), **option)
    assert os.listdir(tmp_path) == []


def test_the_home_directory_is_meant_by_its_sign(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    done = convert("folder", "~/out", "~/raw")
    assert (done.directory, sorted(os.listdir(tmp_path))) == (str(tmp_path / "out"), ["out", "raw"])
    with pytest.raises(UserError, match="home directory of nobody_x, but there is no such user"):
        convert("folder", "~nobody_x/out", "~/raw")
    assert sorted(os.listdir(tmp_path)) == ["out", "raw"]


def test_the_remedy_is_the_whole_command(photos, tmp_path):
    (photos / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UserError, match=r"folder --source \S+ --out \S+ --channels 1 --short-side 9 --on-error skip$"):
        convert("folder", str(tmp_path / "out"), str(photos), channels=1, short_side=9)


def test_statistics_of_each_pixel(tmp_path):
    dataset = converted("digits", str(tmp_path / "out"))
    pictures = [pixels for _, pixels in read_back(tmp_path / "out", dataset)["train"].values()]
    stacked = np.stack(pictures).astype(float)
    loaded = statistics.load(tmp_path / "out", dataset["channels"], dataset["statistics"])
    np.testing.assert_allclose(loaded.pixels["mean"], stacked.mean(0))
    np.testing.assert_allclose(loaded.pixels["deviation"], stacked.std(0), atol=1e-9)
    assert (loaded.pixels["deviation"] == 0).sum() == (np.ptp(stacked, 0) == 0).sum() > 0
    np.testing.assert_array_equal(loaded.pixels["minimum"], stacked.min(0))
    np.testing.assert_array_equal(loaded.pixels["maximum"], stacked.max(0))
    np.testing.assert_allclose(loaded.mean, stacked.mean((0, 1, 2)))


def test_pictures_of_several_sizes_have_no_pixel_statistics(photos, tmp_path):
    dataset = converted("folder", str(tmp_path / "out"), str(photos))
    assert not (tmp_path / "out" / statistics.PIXEL_STATS).exists()
    assert statistics.load(tmp_path / "out", dataset["channels"], dataset["statistics"]).pixels is None


def test_sums_do_not_depend_on_the_grouping():
    pictures = RANDOM.integers(0, 256, (30, 6, 5, 3), np.uint8)
    whole, parts = statistics.Moments(3), [statistics.Moments(3) for _ in range(3)]
    merged = statistics.Moments(3)
    for i, picture in enumerate(pictures):
        whole.add(picture)
        parts[i * i % 3].add(picture)
    for part in parts:
        merged.merge(part)
    assert merged.channel_statistics() == whole.channel_statistics()
    for key in whole.pixels:
        np.testing.assert_array_equal(merged.pixels[key], whole.pixels[key])
    other = statistics.Moments(3)
    other.add(pictures[0, :4])
    merged.merge(other)
    assert merged.pixels is None


def test_damaged_statistics_are_named(tmp_path):
    (tmp_path / statistics.PIXEL_STATS).write_bytes(b"PK\3\4")
    with pytest.raises(UserError, match="cannot be read"):
        statistics.load(tmp_path, 3)
    (tmp_path / statistics.PIXEL_STATS).unlink()
    for damaged in {"mean": [1]}, {key: [1, 2] for key in ("mean", "deviation", "eigenvalues", "components")}:
        with pytest.raises(UserError, match="damaged statistics"):
            statistics.load(tmp_path, 3, damaged)
    np.savez(
        tmp_path / statistics.PIXEL_STATS, **dict.fromkeys(("mean", "deviation", "minimum", "maximum"), np.ones(4))
    )
    with pytest.raises(UserError, match="is not of pictures with 3 channels"):
        statistics.load(tmp_path, 3)


# In several processes


def test_the_bytes_do_not_depend_on_the_number_of_processes(photos, tmp_path, monkeypatch):
    (photos / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    monkeypatch.setattr(pool, "FEW", 0)
    monkeypatch.setattr(pool, "CHUNK", 5)
    for processes in 1, 2, 3:
        out = str(tmp_path / f"out{processes}")
        convert("folder", out, str(photos), on_error="skip", processes=processes)
    contents = [
        {path.name: path.read_bytes() for path in (tmp_path / f"out{processes}").iterdir()} for processes in (1, 2, 3)
    ]
    assert contents[0] == contents[1] == contents[2]
    assert len(contents[0]) == 6  # three shards, dataset.json, rejected.csv, and the listing of the source


def conversion(out, *arguments):
    """Starts a conversion of 200,000 small pictures in two processes; returns it once it has written 1 MiB."""
    code = (
        "import errors, numpy as np; from pipeline.convert import SOURCES, __main__\n"
        "from pipeline.convert.sources.arrays import Source, array_examples\n"
        "def many(source, cache):\n"
        "    examples = array_examples('t', np.zeros((200_000, 28, 28), np.uint8), np.arange(200_000) % 2)\n"
        "    return Source(['0', '1'], 1, {'train': examples, 'validation': []})\n"
        "SOURCES['many'] = many\n"
        "with errors.reported():\n    __main__.main()"
    )
    command = [sys.executable, "-c", code, "many", "--out", str(out), "--processes", "2", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (begun := [*out.parent.glob(f".{out.name}.partial/many_train_0")]) or begun[0].stat().st_size < 2**20:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def children(pid):
    out = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True, check=False).stdout
    return [int(word) for word in out.split()]


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGKILL", -9)])
def test_a_stopped_conversion_leaves_no_output(name, status, tmp_path):
    out = tmp_path / "out"
    process = conversion(out)
    helpers = children(process.pid)
    assert len(helpers) >= 2
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert "Traceback" not in err
    assert not out.exists()
    deadline = time.monotonic() + 20
    while any(pathlib.Path(f"/proc/{pid}").exists() for pid in helpers):  # all end
        assert time.monotonic() < deadline
        time.sleep(0.1)
    if name == "SIGKILL":  # the next conversion removes the rest
        assert sorted(os.listdir(tmp_path)) == [".out.lock", ".out.partial"]
        convert("digits", str(out))
        assert os.listdir(tmp_path) == ["out"]
    else:
        assert os.listdir(tmp_path) == []


def test_the_processes_do_not_load_tensorflow(tmp_path):
    process = conversion(tmp_path / "out")
    loaded = [pathlib.Path(f"/proc/{pid}/maps").read_text() for pid in [process.pid, *children(process.pid)]]
    process.kill()
    process.communicate()
    assert len(loaded) >= 3
    assert any("cv2" in maps for maps in loaded)
    assert not any("tensorflow" in maps for maps in loaded)


# What the shards were made from


def test_a_listing_sees_what_a_table_and_its_pictures_have_become(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("a/0.png", "a/1.png", "not_named.png"):
        (tmp_path / name).write_bytes(b"123")
    table = tmp_path / "table.csv"
    table.write_text("label,Path\ncat,a/0.png\ndog,a/1.png\n")
    before = listing.list_source("csv", table)
    listing.save(before, tmp_path)
    assert listing.load(str(tmp_path)) == before
    assert set(before) == {"table.csv", "a/0.png", "a/1.png"}
    table.write_text("label,Path\ndog,a/0.png\ndog,a/1.png\n")  # of the same size
    os.utime(tmp_path / "a/0.png", (0, 0))
    assert listing.differences(before, listing.list_source("csv", table), "csv") == "2 changed (a/0.png, table.csv)"
    os.utime(tmp_path / "a/1.png", (0, 0))  # all: a copy
    now = listing.list_source("csv", table)
    assert listing.differences(before, now, "csv") == "1 changed (table.csv)"
    assert listing.written_anew(before, now)
    table.write_bytes(b"path\n\0\xff")
    assert "2 gone (a/0.png, a/1.png)" in listing.differences(before, listing.list_source("csv", table), "csv")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"damaged",
        gzip.compress(b"", mtime=0),
        gzip.compress(b"a.png,3,x\n", mtime=0),
        gzip.compress(b"a", mtime=0),
    ],
    ids=["empty", "garbled", "no files", "a wrong time", "one column"],
)
def test_a_damaged_listing_is_named(content, tmp_path):
    assert listing.load(str(tmp_path)) is None
    (tmp_path / listing.LISTING).write_bytes(content)
    with pytest.raises(UserError, match=r"\.source\.csv\.gz is damaged .*so --source cannot be compared"):
        listing.load(str(tmp_path))


@pytest.mark.parametrize(
    ("delimiter", "encoding", "slash"), [(";", "utf-8", "/"), ("\t", "utf-16", "/"), (",", "utf-8-sig", "\\")]
)
def test_a_listing_reads_a_table_as_the_converter_does(delimiter, encoding, slash, pictures, tmp_path):
    lines = [delimiter.join(["Path ", "label"])] + [f"{path.replace('/', slash)}{delimiter}a" for path in pictures]
    (tmp_path / "table.csv").write_text("\r\n".join(lines), encoding=encoding)
    assert set(listing.list_source("csv", tmp_path / "table.csv")) == {"table.csv", *pictures}


@pytest.mark.parametrize("content", [b"\x1f\x8b", b"PK\3\4", b"\xff\xfe\0", b"path\n\xff", b"", b"path,label\n,a\n\n"])
def test_a_listing_leaves_the_mistakes_of_a_table_to_the_converter(content, tmp_path):
    (tmp_path / "table.csv").write_bytes(content)
    assert set(listing.list_source("csv", tmp_path / "table.csv")) == {"table.csv"}


def test_a_listing_of_a_folder_has_what_the_converter_reads(tmp_path):
    for name in ("cat/0.JPG", "cat/.hidden/1.jpg", "cat/@eaDir/2.jpg", "cat/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"123")
    (tmp_path / "cat/broken.jpg").symlink_to("nowhere")
    (tmp_path / "cat/loop").symlink_to(tmp_path)
    assert list(listing.list_source("folder", tmp_path)) == ["cat/0.JPG"]
    arrays = listing.list_source("mnist", tmp_path)
    assert {name: entry.is_timed for name, entry in arrays.items()} == {"cat/0.JPG": False, "cat/notes.txt": False}
