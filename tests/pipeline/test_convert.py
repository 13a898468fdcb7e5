"""Conversion: arrays, folders and ImageNet; what is stored, rejected and refused; the files that remain."""

import collections
import contextlib
import csv
import functools
import gzip
import hashlib
import http.server
import io
import json
import os
import pathlib
import re
import struct
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from errors import UserError, reported
from pipeline import images
from pipeline.convert import SOURCES, Conversion, __main__, convert, duplicates
from pipeline.convert.sources import Example, Source, arrays, folders, split_off, with_all_splits
from pipeline.dataset import Dataset
from pipeline.pictures import decode
from tfcompat import tf

ROOT = pathlib.Path(__file__).resolve().parents[2]


def converted(name, out, *arguments, **options):
    """Converts; returns the content of dataset.json."""
    convert(name, out, *arguments, **options)
    return json.loads((pathlib.Path(out) / "dataset.json").read_text())


def decoded(examples, channels):
    encoded = tf.placeholder(tf.string, [])
    pixels = decode(encoded, channels)
    with tf.Session() as session:
        return [session.run(pixels, {encoded: e["image/encoded"]}) for e in examples]


def counts(dataset):
    return {name: part["examples"] for name, part in dataset["splits"].items()}


def names(examples):
    return [e["image/filename"].decode() for e in examples]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    out = tmp_path_factory.mktemp("digits") / "out"
    return out, converted("digits", str(out))


def test_digits_are_all_there_with_scikit_learns_labels(digits, read_split):
    out, dataset = digits
    assert counts(dataset) == {"train": 1259, "validation": 179, "test": 359}
    assert {
        "dataset.json",
        "pixel_stats.npz",
        *(s["file"] for p in dataset["splits"].values() for s in p["shards"]),
    } == set(os.listdir(out))
    bunch, seen = load_digits(), []
    for split, number in counts(dataset).items():
        examples = read_split(out, dataset, split)
        assert len(examples) == number
        rows = [int(re.fullmatch(r"digit(\d{4})\.png", name)[1]) for name in names(examples)]
        seen += rows
        labels = [e["image/class/label"] for e in examples]
        assert labels == bunch.target[rows].tolist()
        assert [e["image/class/text"] for e in examples] == [b"%d" % label for label in labels]
        assert {(e["image/format"], e["image/height"], e["image/width"]) for e in examples} == {(b"png", 8, 8)}
        pixels = np.stack(decoded(examples, 1))[..., 0]
        np.testing.assert_array_equal(pixels, np.rint(bunch.images[rows] / 16 * 255))
        by_class = np.bincount(labels) / np.bincount(bunch.target)
        np.testing.assert_allclose(by_class, number / 1797, atol=0.006)  # stratified: a class has 174 to 183 pictures
    assert sorted(seen) == list(range(1797))


def test_digits_converted_again_are_the_same_bytes(digits, tmp_path):
    again = convert("digits", str(tmp_path / "again"))
    expected = Conversion(
        str(tmp_path / "again"), digits[1]["class_names"], counts(digits[1]), 0, {}, again.balance, [], 1
    )
    assert again == expected
    assert sorted(os.listdir(tmp_path / "again")) == sorted(os.listdir(digits[0]))
    for path in (tmp_path / "again").iterdir():
        assert path.read_bytes() == (digits[0] / path.name).read_bytes(), path.name


def assert_statistics(dataset, pictures):
    rows = np.concatenate([p.reshape(-1, dataset["channels"]) for p in pictures]).astype(float)
    assert "0 to 255" in dataset["statistics"]["units"]
    statistics = {key: np.array(value) for key, value in dataset["statistics"].items() if key != "units"}
    np.testing.assert_allclose(statistics["mean"], rows.mean(0))
    np.testing.assert_allclose(statistics["deviation"], rows.std(0))
    components, eigenvalues = statistics["components"], statistics["eigenvalues"]
    covariance = np.cov(rows.T, bias=True).reshape(components.shape)
    np.testing.assert_allclose(components.T @ np.diag(eigenvalues) @ components, covariance, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(components @ components.T, np.eye(len(components)), atol=1e-9)
    assert list(eigenvalues) == sorted(eigenvalues, reverse=True)


def test_statistics_are_those_of_all_training_pixels(digits, read_split):
    out, dataset = digits
    assert_statistics(dataset, decoded(read_split(out, dataset, "train"), 1))


# MNIST


def idx(array):
    return gzip.compress(
        struct.pack(f">HBB{array.ndim}i", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes(), mtime=0
    )


IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
FAKE_LABELS = {"train": np.arange(120) % 10, "t10k": np.arange(5)}
FAKE_IMAGES = {
    part: np.random.default_rng(i).integers(0, 256, (len(FAKE_LABELS[part]), 28, 28), np.uint8)
    for i, part in enumerate(FAKE_LABELS)
}


@pytest.fixture
def mnist_files(tmp_path):
    """MNIST's four files with 120 and 5 pictures in them."""
    directory = tmp_path / "raw"
    directory.mkdir()
    for part in FAKE_LABELS:
        (directory / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(FAKE_IMAGES[part]))
        (directory / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(FAKE_LABELS[part]))
    return directory


def assert_is_the_fake_mnist(out, dataset, read_split):
    assert counts(dataset) == {"train": 110, "validation": 10, "test": 5}
    files = set()
    for split in dataset["splits"]:
        part = "t10k" if split == "test" else "train"
        examples = read_split(out, dataset, split)
        files |= set(names(examples))
        rows = [int(name[-9:-4]) for name in names(examples)]
        assert [e["image/class/label"] for e in examples] == FAKE_LABELS[part][rows].tolist()
        np.testing.assert_array_equal(np.stack(decoded(examples, 1))[..., 0], FAKE_IMAGES[part][rows])
        if split == "validation":  # a twelfth of each class
            assert sorted(FAKE_LABELS[part][rows]) == list(range(10))
    assert len(files) == 125


def test_mnist_from_files(mnist_files, tmp_path, read_split):
    dataset = converted("mnist", str(tmp_path / "out"), str(mnist_files))
    assert dataset["source"] == str(mnist_files)
    assert dataset["class_names"] == [str(i) for i in range(10)]
    assert_is_the_fake_mnist(tmp_path / "out", dataset, read_split)


def garbled(data, at):
    return data[:at] + bytes(b ^ 0x55 for b in data[at : at + 40]) + data[at + 40 :]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (IMAGES, None),
        (IMAGES, b""),
        (IMAGES, b"<html>not found</html>"),
        (IMAGES, idx(FAKE_IMAGES["train"])[:-2000]),
        (IMAGES, garbled(idx(FAKE_IMAGES["train"]), 0)),
        (IMAGES, garbled(idx(FAKE_IMAGES["train"]), 10)),  # where gzip's header ends
        (IMAGES, garbled(idx(FAKE_IMAGES["train"]), 9000)),
        (IMAGES, gzip.compress(gzip.decompress(idx(FAKE_IMAGES["train"]))[:-1])),
        (IMAGES, gzip.compress(gzip.decompress(idx(FAKE_IMAGES["train"]))[:9])),
        (IMAGES, gzip.compress(b"\0\0\x0d\3" + gzip.decompress(idx(FAKE_IMAGES["train"]))[4:])),  # of floats
        (IMAGES, idx(FAKE_LABELS["train"])),  # another file under this name
        (LABELS, idx(FAKE_IMAGES["train"])),
        (LABELS, idx(FAKE_LABELS["train"][1:])),
        (LABELS, idx(FAKE_LABELS["train"] + 7)),  # up to 10
    ],
    ids=[
        *(
            "missing",
            "empty",
            "html",
            "cut",
            "garbled at 0",
            "garbled at 10",
            "garbled at 9000",
            "cut inside",
            "cut header",
            "floats",
        ),
        *("labels for images", "images for labels", "one label short", "label 10"),
    ],
)
def test_a_damaged_mnist_file_is_named(name, data, mnist_files, tmp_path):
    (mnist_files / name).unlink()
    if data is not None:
        (mnist_files / name).write_bytes(data)
    with pytest.raises(UserError, match=re.escape(str(mnist_files / name))):
        convert("mnist", str(tmp_path / "out"), str(mnist_files))
    assert os.listdir(tmp_path) == ["raw"]


@pytest.fixture
def mnist_server(mnist_files, monkeypatch):
    """A local server of the files in place of MNIST's; stop() stops it."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=mnist_files))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.stop = lambda: (server.shutdown(), server.server_close())
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(arrays, "MNIST_URL", f"http://127.0.0.1:{server.server_address[1]}/")
    checksums = {n: "md5:" + hashlib.md5((mnist_files / n).read_bytes()).hexdigest() for n in arrays.MNIST_FILES}
    monkeypatch.setattr(arrays, "MNIST_FILES", checksums)
    yield server
    server.stop()


def test_mnist_is_downloaded_once(mnist_server, cache, tmp_path, read_split):
    dataset = converted("mnist", str(tmp_path / "out"))
    assert dataset["source"] is None
    assert_is_the_fake_mnist(tmp_path / "out", dataset, read_split)
    assert sorted(os.listdir(cache / "slimgraph" / "mnist")) == sorted(arrays.MNIST_FILES)
    mnist_server.stop()
    assert converted("mnist", str(tmp_path / "again")) == dataset


@pytest.mark.parametrize("trouble", ["checksum", "missing", "no server"])
def test_a_failed_download_names_the_address_and_the_source_option(trouble, mnist_server, mnist_files, tmp_path):
    if trouble == "checksum":
        (mnist_files / LABELS).write_bytes(idx(FAKE_LABELS["train"][::-1]))
    elif trouble == "missing":
        (mnist_files / LABELS).unlink()
    else:
        mnist_server.stop()
    failing = IMAGES if trouble == "no server" else LABELS
    with pytest.raises(UserError, match=rf"{re.escape(arrays.MNIST_URL + failing)} could not.*--source DIR"):
        convert("mnist", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


# Folders

QUADRANTS = np.kron(
    np.uint8([[[250, 10, 10], [10, 250, 10]], [[10, 10, 250], [250, 250, 10]]]), np.ones((16, 24, 1), np.uint8)
)


def encoded(extension, pixels=QUADRANTS, **kwargs):
    buffer = io.BytesIO()
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    image.save(buffer, {".jpg": "JPEG", ".tif": "TIFF"}.get(extension, extension[1:].upper()), **kwargs)
    return buffer.getvalue()


def noise(seed):
    return np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)


def write_classes(directory, classes, number):
    for label, name in enumerate(classes):
        (directory / name).mkdir(parents=True)
        for i in range(number):
            (directory / name / f"{i:02d}.png").write_bytes(encoded(".png", noise(100 * label + i)))


@pytest.fixture
def raw(tmp_path):
    """Two classes, each with four training pictures and one picture for validation and for test."""
    directory = tmp_path / "raw"
    for split, number in ("train", 4), ("val", 1), ("test", 1):
        write_classes(directory / split, ("cat", "dog"), number)
    return directory


def remaining(tmp_path):
    return sorted(set(os.listdir(tmp_path)) - {"raw"})


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("train", "val", "test"), {"train": 30, "validation": 6, "test": 6}),
        (("train", "validation"), {"train": 30, "validation": 6, "test": 0}),
        (("train", "test"), {"train": 27, "validation": 3, "test": 6}),
        (("train",), {"train": 24, "validation": 3, "test": 3}),
        ((), {"train": 24, "validation": 3, "test": 3}),
    ],
)
def test_class_folders_in_splits_and_without(folders, expected, tmp_path, read_split):
    classes = ["10", "9", "ape"]  # as sorted by code point
    raw = tmp_path / "raw"
    for folder in folders or ("",):
        write_classes(raw / folder, classes, 10 if folder in ("train", "") else 2)
    dataset = converted("folder", str(tmp_path / "out"), str(raw))
    assert dataset["class_names"] == classes
    assert counts(dataset) == expected
    seen = []
    for split in expected:
        examples = read_split(tmp_path / "out", dataset, split)
        seen += names(examples)
        parts = [pathlib.Path(name).parts for name in names(examples)]
        assert [classes[e["image/class/label"]] for e in examples] == [p[-2] for p in parts]
        assert [e["image/class/text"].decode() for e in examples] == [p[-2] for p in parts]
        if len(folders) > 1 and split == "test":
            assert {p[0] for p in parts} <= {"test"}
        shares = collections.Counter(e["image/class/label"] for e in examples)
        assert set(shares.values()) <= {expected[split] // 3}
    assert sorted(seen) == sorted(str(p.relative_to(raw)) for p in raw.rglob("*.png"))


def listed(raw, paths, **options):
    """What the folder source finds among empty files: {split: {class: number of pictures}}, and what it leaves out."""
    for path in paths:
        (raw / path).parent.mkdir(parents=True, exist_ok=True)
        (raw / path).touch()
    data = folders.folder(raw, None, **options)
    found = {
        split: dict(collections.Counter(data.class_names[example.label] for example in examples))
        for split, examples in data.splits.items()
    }
    return found, data.ignored


def two_classes(*places, classes=("cat", "dog")):
    """Paths of two pictures in each class folder of these places."""
    return [f"{place}/{name}/{i}.jpg" for place in places for name in classes for i in (0, 1)]


BOTH = {"cat": 2, "dog": 2}


@pytest.mark.parametrize(
    ("places", "splits", "ignored"),
    [
        (["training_set", "test_set"], ["train", "test"], {}),
        (["train_set", "val_set", "test_set"], ["train", "validation", "test"], {}),
        (["Training", "Testing"], ["train", "test"], {}),
        (["training", "validation"], ["train", "validation"], {}),
        (["train", "dev", "test"], ["train", "validation", "test"], {}),
        (["train", "eval"], ["train", "validation"], {}),
        (["trainset", "valset"], ["train", "validation"], {}),
        (["TrainImages", "TestImages"], ["train", "test"], {}),
        (["train2017", "val2017"], ["train", "validation"], {}),
        (["dataset/training_set"], ["train"], {}),
        (["seg_train/seg_train", "seg_test/seg_test", "seg_pred/x"], ["train", "test"], {"folder seg_pred": 1}),
        (["outer/dataset/train", "outer/dataset/test"], ["train", "test"], {}),
        (["train/images", "test/images"], ["train", "test"], {}),
        (["archive/pictures"], ["train"], {}),
        (["train", "test1"], ["train"], {"folder test1": 1}),
        (["train-20230101T000000Z-001/train", "test-20230101T000000Z-001/test"], ["train", "test"], {}),
        (["part 1/training_set", "part 2/test_set"], ["train", "test"], {}),
        (["train", "training", "train_masks"], ["train"], {"folder train_masks": 1, "folder training": 1}),
    ],
)
def test_splits_are_found_by_their_names_and_at_any_depth(places, splits, ignored, tmp_path):
    assert listed(tmp_path, two_classes(*places)) == (dict.fromkeys(splits, BOTH), ignored)


def test_splits_of_pictures_with_labels_in_their_names(tmp_path):
    paths = [f"outer/{split}/{name}.{i}.jpg" for split in ("training", "testing") for name in BOTH for i in (0, 1)]
    found, _ = listed(tmp_path, paths, label_regex=r"^(\w+)\.")
    assert found == {"train": BOTH, "test": BOTH}
    wrapped = [path.replace("outer/", "outer/x-").replace("ing/", "ing/testing/") for path in paths]
    wrapped = [path.replace("x-training/testing", "x-training/training") for path in wrapped]
    assert listed(tmp_path / "wrapped", wrapped, label_regex=r"^(\w+)\.")[0] == found


def test_unlabelled_pictures_beside_the_splits_are_left_out(tmp_path):
    paths = [*two_classes("train", "val"), "testing/0.jpg", "test_images/1.jpg"]
    expected = {"train": BOTH, "validation": BOTH}, {"folder test_images": 1, "folder testing": 1}
    assert listed(tmp_path, paths) == expected


def test_pictures_in_class_folders_may_be_deep(tmp_path):
    deep = ["cat/a/0.jpg", "cat/b/c/1.jpg", "dog/d/0.jpg", "dog/b/1.jpg"]
    assert listed(tmp_path / "1", deep) == ({"train": BOTH}, {})
    same = ["cat/images/0.jpg", "cat/images/1.jpg", "dog/images/0.jpg", "dog/images/1.jpg"]
    assert listed(tmp_path / "2", same) == ({"train": BOTH}, {})
    parts = ["train/cat/a/0.jpg", "train/cat/1.jpg", "train/dog/0.jpg", "train/dog/1.jpg", "test/cat/a/0.jpg"]
    assert listed(tmp_path / "3", parts)[0] == {"train": BOTH, "test": {"cat": 1}}
    named = two_classes("", classes=("training", "match", "test_tube"))[1:]
    assert listed(tmp_path / "4", [path.lstrip("/") for path in named])[0].keys() == {"train"}


def test_folders_without_pictures_beside_the_data_are_left_out(tmp_path):
    paths = [*two_classes("ILSVRC/Data/CLS-LOC/train"), "ILSVRC/Annotations/CLS-LOC/train/cat/0.xml"]
    expected = {"train": BOTH}, {"folder Annotations": 1, ".txt": 1}
    assert listed(tmp_path, [*paths, "ILSVRC/LICENSE.txt"]) == expected


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (
            ["color", "grayscale"],
            "color and grayscale, both with folders cat, dog and without .*--source .*/color; if they",
        ),
        (["Data", "Annotations"], "holds Annotations and Data"),
        (["train/color", "train/gray"], "train holds color and gray"),
        (["ILSVRC_img_train", "ILSVRC_img_val"], "if they are splits, name them train, validation and test"),
        (
            ["train/train", "train/test"],
            "holds test and train, .*; these splits are not at the top; give --source .*/train$",
        ),
        (["train-001/train", "train-002/train"], "has both train-001/train and train-002/train; move the content"),
        (["training_set", "train_set"], "has both train_set and training_set; keep one of them"),
    ],
)
def test_folders_that_are_no_classes_are_refused(places, message, tmp_path):
    with pytest.raises(UserError, match=message):
        listed(tmp_path, two_classes(*places))


@pytest.mark.parametrize(("name", "split"), [("train", "training"), ("val", "validation"), ("Test", "test")])
def test_a_class_with_the_name_of_a_split_is_named(name, split, tmp_path):
    paths = [path.lstrip("/") for path in two_classes("", classes=(name, "car", "bus"))]
    taken = f"{name} is taken for the {split.removesuffix('ing')} split by its name, and bus, car beside it left out"
    with pytest.raises(UserError, match=f"{taken}: .* such as {name}_class$"):
        listed(tmp_path, paths)
    os.rename(tmp_path / name, tmp_path / f"{name}_class")
    assert listed(tmp_path, [])[0]["train"].keys() == {f"{name}_class", "car", "bus"}


def test_a_class_in_other_letters_is_named(tmp_path):
    paths = [*two_classes("train", classes=("Apple", "pear")), *two_classes("test", classes=("apple", "pear"))]
    with pytest.raises(UserError, match="test has classes that train lacks: apple; train has Apple: write them the sa"):
        listed(tmp_path, paths)


def test_splits_within_the_classes_are_refused(tmp_path):
    with pytest.raises(UserError, match="splits must be outside of the classes: test/cat, test/dog; move the folders"):
        listed(tmp_path, two_classes("cat", "dog", classes=("train", "test")))


def test_unlabelled_test_pictures_are_named(tmp_path):
    with pytest.raises(UserError, match="test holds no pictures in class folders"):
        listed(tmp_path, [*two_classes("train"), "test/0.jpg"])


def test_by_products_of_systems_are_left_out_and_counted(tmp_path):
    junk = ["cat/@eaDir/0.jpg/THUMB_M.jpg", "cat/.ipynb_checkpoints/0-checkpoint.jpg", "__MACOSX/cat/._0.jpg"]
    junk += ["lost+found/x.jpg", ".thumbnails/0.jpg", "cat/._0.jpg", "cat/Thumbs.db", "dog/.DS_Store", "@eaDir/a.jpg"]
    found, ignored = listed(tmp_path, [*(path.lstrip("/") for path in two_classes("")), *junk])
    assert found == {"train": BOTH}
    assert ignored == {
        **{"folder @eaDir": 2, "folder .ipynb_checkpoints": 1, "folder __MACOSX": 1, "folder lost+found": 1},
        **{"folder .thumbnails": 1, "hidden pictures": 1, ".db": 1},
    }


def test_which_files_are_pictures(raw, tmp_path, read_split):
    cats = raw / "train" / "cat"
    (cats / "more" / "deep").mkdir(parents=True)
    (cats / "more" / "deep" / "UPPER.JPG").write_bytes(encoded(".jpg"))
    (cats / "notes.txt").write_text("no picture")
    (raw / "train" / ".hidden").mkdir()
    dataset = converted("folder", str(tmp_path / "out"), str(raw))
    assert dataset["class_names"] == ["cat", "dog"]
    assert (dataset["rejected"], dataset["ignored"]) == (0, {".txt": 1, "folder .hidden": 1})
    found = names(read_split(tmp_path / "out", dataset, "train"))
    assert [n for n in found if n.startswith("train/cat")] == [
        *(f"train/cat/{i:02d}.png" for i in range(4)), "train/cat/more/deep/UPPER.JPG",
    ]  # fmt: skip


def stored(data, extension, raw, tmp_path, read_split):
    """The stored example of a picture file, and its pixels as training decodes them."""
    (raw / "test" / "cat" / "00.png").unlink()
    (raw / "test" / "cat" / f"it{extension}").write_bytes(data)
    dataset = converted("folder", str(tmp_path / "out"), str(raw))
    example = read_split(tmp_path / "out", dataset, "test")[0]
    assert example["image/filename"].decode() == f"test/cat/it{extension}"
    pixels = decoded([example], dataset["channels"])[0]
    assert pixels.shape[:2] == (example["image/height"], example["image/width"])
    return example, pixels


GRAY = QUADRANTS[..., 0]
# The header of a PSD file (version, channels, height, width, depth, mode: RGB), three empty sections, raw planes.
PSD = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, *QUADRANTS.shape[:2], 8, 3) + bytes(12)
PSD += struct.pack(">H", 0) + QUADRANTS.transpose(2, 0, 1).tobytes()


@pytest.mark.parametrize(
    ("extension", "data"),
    [
        (".jpg", encoded(".jpg", quality=50)),
        (".jpg", encoded(".jpg", progressive=True)),
        (".jpeg", encoded(".jpeg", GRAY)),
        (".png", encoded(".png")),
        (".png", encoded(".png", GRAY)),
        (".png", encoded(".jpg")),  # the content counts, not the name
    ],
    ids=["JPEG", "progressive", "gray JPEG", "PNG", "gray PNG", "JPEG called PNG"],
)
def test_jpeg_and_png_are_stored_byte_for_byte(extension, data, raw, tmp_path, read_split):
    example, pixels = stored(data, extension, raw, tmp_path, read_split)
    assert example["image/encoded"] == data
    assert example["image/format"] == (b"jpeg" if data.startswith(b"\xff\xd8") else b"png")
    expected = np.dstack([GRAY] * 3) if Image.open(io.BytesIO(data)).mode == "L" else QUADRANTS
    assert np.abs(pixels.astype(int) - expected).mean() < 8


def rotated(extension, orientation, stored_pixels, **kwargs):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(extension, np.ascontiguousarray(stored_pixels), exif=exif, **kwargs)


@pytest.mark.parametrize(
    ("extension", "data", "tolerance"),
    [
        (".jpg", rotated(".jpg", 3, QUADRANTS[::-1, ::-1], quality=95), 8),
        (".jpg", rotated(".jpg", 6, np.rot90(QUADRANTS), quality=95), 8),
        (".jpg", rotated(".jpg", 5, QUADRANTS.transpose(1, 0, 2), quality=95), 8),
        (".png", rotated(".png", 8, np.rot90(QUADRANTS, -1)), 0),
        (".jpg", encoded(".jpg", Image.fromarray(QUADRANTS).convert("CMYK"), quality=95), 8),
        (".png", encoded(".png", Image.fromarray(QUADRANTS).quantize(4)), 0),
        (".png", encoded(".png", np.dstack([QUADRANTS, np.full_like(GRAY, 255)])), 0),
        (".psd", PSD, 0),
        (".ppm", encoded(".ppm"), 0),
        (".ico", encoded(".ico", sizes=[QUADRANTS.shape[1::-1]]), 0),
        (".bmp", encoded(".bmp"), 0),
        (".gif", encoded(".gif", Image.fromarray(QUADRANTS).quantize(4)), 0),
        (".webp", encoded(".webp", lossless=True), 0),
        (".tif", encoded(".tif"), 0),
    ],
    ids=[
        *("EXIF 3", "EXIF 6", "EXIF 5", "EXIF 8 of PNG", "CMYK", "palette", "alpha", "PSD", "PPM", "ICO"),
        *("BMP", "GIF", "WebP", "TIFF"),
    ],
)
def test_other_pictures_are_encoded_again_as_upright_rgb(extension, data, tolerance, raw, tmp_path, read_split):
    example, pixels = stored(data, extension, raw, tmp_path, read_split)
    assert example["image/format"] == (b"jpeg" if extension == ".jpg" else b"png")
    assert example["image/encoded"].startswith(b"\xff\xd8" if extension == ".jpg" else b"\x89PNG")
    assert example["image/encoded"] != data
    assert pixels.shape == QUADRANTS.shape
    assert np.abs(pixels.astype(int) - QUADRANTS).mean() <= tolerance


def test_statistics_of_a_folder_are_those_of_its_training_pixels(raw, tmp_path, read_split):
    (raw / "train" / "cat" / "rotated.jpg").write_bytes(rotated(".jpg", 6, np.rot90(QUADRANTS)))
    dataset = converted("folder", str(tmp_path / "out"), str(raw))
    assert dataset["channels"] == 3
    assert_statistics(dataset, decoded(read_split(tmp_path / "out", dataset, "train"), 3))


JPEG, PNG = encoded(".jpg", cv2.resize(noise(0), (64, 64)), quality=90), encoded(".png", cv2.resize(noise(0), (64, 64)))
DAMAGED = {
    "JPEG cut in half": (".jpg", JPEG[: len(JPEG) // 2]),
    "JPEG cut by 2 bytes": (".jpg", JPEG[:-2]),
    "JPEG with zeros": (".jpg", JPEG[:-200] + bytes(200)),
    # OpenCV accepts a marker among the pixels, TensorFlow does not: training would stop there.
    "JPEG with a marker": (".jpg", JPEG[:-300] + b"\xff\xc4" + JPEG[-298:]),
    "PNG cut in half": (".png", PNG[: len(PNG) // 2]),
    "PNG garbled": (".png", PNG[:200] + bytes([PNG[200] ^ 1]) + PNG[201:]),
    "text": (".jpg", b"<html>not found</html>"),
    "empty": (".png", b""),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_picture_stops_the_conversion_and_is_named(kind, raw, tmp_path):
    extension, data = DAMAGED[kind]
    path = raw / "train" / "dog" / f"damaged{extension}"
    path.write_bytes(data)
    name = f"train/dog/damaged{extension}"
    with pytest.raises(UserError, match=rf"^1 of 13 pictures .* {re.escape(name)}: .*--on-error skip"):
        convert("folder", str(tmp_path / "out"), str(raw))
    assert remaining(tmp_path) == ["out.rejected.csv"]
    row = rejected(tmp_path / "out.rejected.csv")[0]
    assert (row["file"], row["split"], row["label"], bool(row["reason"])) == (name, "train", "dog", True)


def rejected(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_damaged_pictures_are_skipped_and_counted_on_request(raw, tmp_path, read_split):
    for kind, split in ("JPEG cut in half", "train"), ("text", "test"):
        extension, data = DAMAGED[kind]
        (raw / split / "dog" / f"damaged{extension}").write_bytes(data)
    with pytest.raises(UserError, match="2 of 14 pictures"):
        convert("folder", str(tmp_path / "out"), str(raw))
    dataset = converted("folder", str(tmp_path / "out"), str(raw), on_error="skip")
    rows = rejected(tmp_path / "out" / "rejected.csv")
    assert [row["file"] for row in rows] == ["train/dog/damaged.jpg", "test/dog/damaged.jpg"]
    assert [row["reason"][:10] for row in rows] == ["damaged: p", "no picture"]
    assert dataset["rejected"] == 2
    assert counts(dataset) == {"train": 8, "validation": 2, "test": 2}
    for split in dataset["splits"]:
        assert not any("damaged" in name for name in names(read_split(tmp_path / "out", dataset, split)))
    assert remaining(tmp_path) == ["out"]


@pytest.mark.parametrize("kind", ["file", "directory"])
@pytest.mark.parametrize("damaged", [False, True])
def test_a_file_of_the_user_is_neither_deleted_nor_overwritten(kind, damaged, raw, tmp_path):
    theirs = tmp_path / "out.rejected.csv"
    theirs.mkdir() if kind == "directory" else theirs.write_text("mine")
    if damaged:
        (raw / "train" / "dog" / "damaged.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"out\.rejected\.csv is where .* would be listed; move it away"):
        convert("folder", str(tmp_path / "out"), str(raw))
    assert remaining(tmp_path) == ["out.rejected.csv"]
    assert kind == "directory" or theirs.read_text() == "mine"


def test_a_picture_with_too_many_pixels_in_its_header_is_not_decoded(monkeypatch):
    small = images.PictureFormat(max_pixels=30)
    assert images.store(encoded(".png", noise(0)), small).pixels.shape == (5, 6, 3)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(images.ImageError, match="its header has 6×6 pixels, more than 30"):
        images.store(encoded(".png", np.zeros((6, 6), np.uint8)), small)
    with pytest.raises(images.ImageError, match="its header has far more than 30 pixels"):
        images.store(encoded(".png", np.zeros((9, 9), np.uint8)), small)


def test_a_class_with_only_damaged_pictures_is_named(raw, tmp_path):
    for path in (raw / "train" / "dog").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"rejected of dog; 4 were rejected, see .*/out\.rejected\.csv$"):
        convert("folder", str(tmp_path / "out"), str(raw), on_error="skip")
    assert remaining(tmp_path) == ["out.rejected.csv"]
    assert {row["label"] for row in rejected(tmp_path / "out.rejected.csv")} == {"dog"}


def test_a_file_name_that_is_not_utf_8_is_stored_or_named(raw, tmp_path):
    try:
        (raw / "train" / "cat" / os.fsdecode(b"caf\xe9.png")).write_bytes(PNG)
    except OSError:
        pytest.skip("this file system has no such names")
    with contextlib.suppress(UserError):
        convert("folder", str(tmp_path / "out"), str(raw))
        assert (tmp_path / "out" / "dataset.json").exists()


def emptied(raw):
    for path in [*raw.rglob("*")][::-1]:
        path.unlink() if path.is_file() else path.rmdir()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (emptied, "holds no class folders; at least two"),
        (lambda raw: [p.unlink() for p in raw.rglob("*.png")], "holds no pictures"),
        (lambda raw: [(raw / "train" / "dog" / f"0{i}.png").unlink() for i in (0, 1)], "fewer than 3 pictures of dog"),
        (lambda raw: (raw / "train" / "dog").rename(raw.parent / "dog"), "holds one class folder; at least two"),
        (lambda raw: (raw / "test" / "dog").rename(raw / "test" / "fox"), "test has classes that train lacks: fox"),
        (lambda raw: (raw / "train").rename(raw.parent / "gone"), "test, val but no train"),
        (lambda raw: raw.rename(raw.parent / "gone"), "raw does not exist"),
    ],
    ids=["empty", "no pictures", "two pictures", "one class", "a class only in test", "no train", "missing"],
)
def test_unusable_folders(change, message, raw, tmp_path):
    change(raw)
    with pytest.raises(UserError, match=message):
        convert("folder", str(tmp_path / "out"), str(raw))
    assert not [name for name in os.listdir(tmp_path) if "out" in name]


def test_the_folder_source_needs_a_folder(tmp_path):
    with pytest.raises(UserError, match="needs --source DIR"):
        convert("folder", str(tmp_path / "out"))


# Equal pictures


def example(name, label=0, value=None):
    """An example of a picture of the file name's number, or of a value."""
    value = int(name.rstrip("abc")) if value is None else value
    return Example(name, label, np.full((2, 2), value, np.uint8))


def with_copies(*examples, classes=("cat", "dog"), **splits):
    data = Source(list(classes), 1, {"train": list(examples), **splits})
    return data, duplicates.find_copies(data)


def test_splits_of_data_without_copies_do_not_change():
    examples = [example(f"{i}", i % 2) for i in range(40)]
    _, copies = with_copies(*examples)
    assert copies == {}
    _, part = split_off(examples, 0.2, copies)
    keys = sorted((hashlib.sha256(f"0/{e.filename}".encode()).digest(), e.label, e.filename) for e in examples)
    expected = {name for label in (0, 1) for name in [key[2] for key in keys if key[1] == label][:4]}
    assert {e.filename for e in part} == expected


def test_equal_pictures_come_into_one_split():
    examples = [example(f"{i}{copy}", i % 2) for i in range(30) for copy in ("", "a", "b")[: 1 + i % 3]]
    examples.append(example("6c", 1))  # under another class
    data, copies = with_copies(*examples)
    assert len(copies) == 52
    split = with_all_splits(data, "raw", copies).splits
    assert {name: len(part) for name, part in split.items()} == {"train": 49, "test": 6, "validation": 6}
    values = [{int(e.image[0, 0]) for e in part} for part in split.values()]
    assert sum(map(len, values)) == len(set.union(*values)) == 30
    assert all({e.label for e in part} == {0, 1} for part in split.values())


def test_a_class_of_one_picture_only_is_split_nevertheless():
    data, copies = with_copies(*(example(f"{i}", i % 2, i % 2) for i in range(20)))
    split = with_all_splits(data, "raw", copies).splits
    assert {name: len(part) for name, part in split.items()} == {"train": 16, "test": 2, "validation": 2}


CONFLICTS = {  # value: the places of its copies
    1: ["train/cat", "test/cat"],
    2: ["train/cat", "train/cat", "val/cat", "test/cat"],
    3: ["train/dog", "val/dog"],
    4: ["train/cat", "train/dog"],
    5: ["train/dog", "test/cat"],
    6: ["train/cat", "train/cat"],  # allowed
}


@pytest.fixture
def conflicting(raw):
    """The folder without copies, and 6 pictures that are in several places."""
    for number, path in enumerate(sorted(raw.rglob("*.png"))):
        path.write_bytes(encoded(".png", noise(1000 + number)))
    for value, places in CONFLICTS.items():
        for i, place in enumerate(places):
            (raw / place / f"{value}_{i}.png").write_bytes(encoded(".png", noise(value)))
    return raw


def test_pictures_in_several_splits_and_classes_are_listed(conflicting, tmp_path):
    done = convert("folder", str(tmp_path / "out"), str(conflicting))
    assert [{row.file for row in group} for group in done.duplicates] == [
        {f"{place}/{value}_{i}.png" for i, place in enumerate(CONFLICTS[value])} for value in (1, 2, 4, 3, 5)
    ]
    assert duplicates.describe(done.duplicates) == (
        "equal pictures: 4 in several splits (such as train/cat/1_0.png and test/cat/1_1.png), "
        "2 under several classes (such as train/cat/4_0.png and train/dog/4_1.png)"
    )
    rows = rejected(tmp_path / "out" / "duplicates.csv")
    assert len(rows) == 12
    assert rows[0] == {"picture": "1", "file": "train/cat/1_0.png", "split": "train", "label": "cat"}
    assert done.splits == {"train": 17, "validation": 4, "test": 5}


def test_duplicates_are_dropped_for_an_honest_evaluation(conflicting, tmp_path, read_split):
    out = tmp_path / "out"
    dataset = converted("folder", str(out), str(conflicting), on_duplicates="drop")
    stored = {name for split in dataset["splits"] for name in names(read_split(out, dataset, split))}
    assert {name for name in stored if re.match(r"[1-6]_", pathlib.Path(name).name)} == {
        *("test/cat/1_1.png", "test/cat/2_3.png", "val/dog/3_1.png", "train/cat/6_0.png", "train/cat/6_1.png")
    }
    assert (dataset["ignored"], counts(dataset)) == ({"duplicates": 9}, {"train": 10, "validation": 3, "test": 4})
    assert len(rejected(out / "duplicates.csv")) == 12


def test_duplicates_stop_a_conversion_on_request(conflicting, tmp_path):
    with pytest.raises(UserError, match=r"^equal pictures: 4 in several.*leave them out with --on-duplicates drop"):
        convert("folder", str(tmp_path / "out"), str(conflicting), on_duplicates="stop")
    assert remaining(tmp_path) == []


def test_files_are_compared_by_their_content(tmp_path):
    contents = {"a": bytes(9000), "b": bytes(9000), "c": b"1" + bytes(8999), "d": bytes(8999), "e": b"", "f": b""}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link").symlink_to("a")
    os.mkfifo(tmp_path / "fifo")
    examples = [Example(name, 0, tmp_path / name) for name in [*contents, "link", "fifo", "missing"]]
    assert with_copies(*examples)[1] == {"a": "a", "b": "a", "link": "a"}


# ImageNet

MAPPING = "n01440764 tench, Tinca tinca\nn02012849 crane\nn03126707 crane\nn01443537 goldfish, Carassius auratus\n"
SAMPLE = pathlib.Path(__file__).resolve().parents[3] / "shared/data/imagenet_sample"


@pytest.fixture
def imagenet_files(tmp_path):
    """The mapping, and three pictures whose synsets are in their names, in their folder's, and in both."""
    raw = tmp_path / "raw"
    for name in "pictures/n01443537_goldfish.JPEG", "train/n03126707/7.png", "train/n01440764/n02012849_8.png":
        path = raw / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(".png"))
    (raw / "labels").mkdir()
    (raw / "labels" / folders.IMAGENET_CLASSES).write_text(MAPPING)
    return raw


def test_imagenet_is_a_test_split(imagenet_files, tmp_path, read_split, monkeypatch, capsys):
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["convert", "imagenet", "--out", str(out), "--source", str(imagenet_files)])
    __main__.main()
    first, *table = capsys.readouterr().out.splitlines()
    assert first == f"{out}: 0 train, 0 validation, 3 test; 4 classes; 0 pictures rejected"
    assert [line.split() for line in table[:2]] == [["class", "test"], ["tench,", "Tinca", "tinca", "0"]]
    dataset = Dataset.load(str(out))
    assert dataset.description["statistics"] is None
    assert dataset.description["class_names"] == [
        *("tench, Tinca tinca", "crane (n02012849)", "crane (n03126707)", "goldfish, Carassius auratus")
    ]
    examples = read_split(out, dataset.description, "test")
    assert {name: e["image/class/label"] for name, e in zip(names(examples), examples, strict=True)} == {
        "pictures/n01443537_goldfish.JPEG": 3,
        "train/n03126707/7.png": 2,
        "train/n01440764/n02012849_8.png": 1,  # the file's name comes first
    }
    assert len(dataset.index("test").offsets) == 3
    with pytest.raises(UserError, match=r"has no train split; it has test$"):
        dataset.index("train")


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("labels/LOC_synset_mapping.txt", None, "must hold one LOC_synset_mapping.txt.*found: none"),
        ("LOC_synset_mapping.txt", MAPPING, "must hold one LOC_synset_mapping.txt.*found: .*, .*labels"),
        ("labels/LOC_synset_mapping.txt", MAPPING + "tench\n", "line 5, is 'tench'; it must be like"),
        ("labels/LOC_synset_mapping.txt", MAPPING + "n0144076 tench\n", "line 5, is 'n0144076 tench'"),
        ("labels/LOC_synset_mapping.txt", MAPPING + "n01440765 \n", "line 5, is 'n01440765 '"),
        ("labels/LOC_synset_mapping.txt", MAPPING + "n01440764 trout\n", "line 5, has n01440764 for the second time"),
        ("labels/LOC_synset_mapping.txt", "", "holds 0 classes; at least two"),
        ("pictures/n01491361_shark.JPEG", "", "n01491361_shark.JPEG is of n01491361, which LOC_.* lacks"),
        ("n01491361/1.JPEG", "", "1.JPEG is of n01491361, which LOC_.* lacks"),
        ("pictures/ILSVRC2012_val_1.JPEG", "", "ILSVRC2012_val_1.JPEG has no synset"),
        ("n014407640/n014407640.png", "", "n014407640.png has no synset"),
    ],
)
def test_unusable_imagenet_files(path, content, message, imagenet_files, tmp_path):
    path = imagenet_files / path
    path.parent.mkdir(exist_ok=True)
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=message):
        convert("imagenet", str(tmp_path / "out"), str(imagenet_files))
    assert remaining(tmp_path) == []


def test_imagenet_without_pictures(imagenet_files, tmp_path):
    with pytest.raises(UserError, match=r"needs --source DIR with LOC_synset_mapping.txt, which Kaggle has"):
        convert("imagenet", str(tmp_path / "out"))
    pictures = [*imagenet_files.rglob("*.png"), *imagenet_files.rglob("*.JPEG")]
    for path in pictures:
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no picture is left for the test split; 3 were rejected"):
        convert("imagenet", str(tmp_path / "out"), str(imagenet_files), on_error="skip")
    for path in pictures:
        path.unlink()
    with pytest.raises(UserError, match="holds no pictures"):
        convert("imagenet", str(tmp_path / "out"), str(imagenet_files))
    assert remaining(tmp_path) == ["out.rejected.csv"]  # of the second conversion


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"{SAMPLE} is missing")
def test_the_real_imagenet_classes():
    data = folders.imagenet(SAMPLE, None)
    assert len(set(data.class_names)) == len(data.class_names) == 1000
    assert len(data.splits["test"]) == 150
    for example in data.splits["test"]:  # n01443537_goldfish.JPEG
        word = pathlib.Path(example.filename).stem.split("_", 1)[1].replace("_", " ")
        assert word.lower() in data.class_names[example.label].lower()


def test_out_may_be_missing_or_empty_and_is_never_overwritten(raw, tmp_path):
    (tmp_path / "empty").mkdir()
    for out in tmp_path / "empty", tmp_path / "a" / "b":
        convert("folder", str(out), str(raw))
        assert (out / "dataset.json").stat().st_mode & 0o444 == 0o444
        assert out.stat().st_mode & 0o777 == 0o755
    before = sorted(p.read_bytes() for p in out.iterdir())
    (tmp_path / "file").write_text("precious")
    for out in tmp_path / "a" / "b", tmp_path / "file":
        with pytest.raises(UserError, match=f"{re.escape(str(out))} (exists and is not empty|is a file)"):
            convert("folder", str(out), str(raw))
    assert sorted(p.read_bytes() for p in (tmp_path / "a" / "b").iterdir()) == before
    assert (tmp_path / "file").read_text() == "precious"
    assert remaining(tmp_path) == ["a", "empty", "file"]


# The command line


def test_an_unknown_name_exits_with_2_and_the_nearest(tmp_path):
    command = [sys.executable, "-m", "pipeline.convert", "digist", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: unknown data set 'digist': did you mean digits? known are")
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []


def test_the_command_prints_its_result(raw, tmp_path, monkeypatch, capsys):
    (raw / "train" / "dog" / "damaged.png").write_bytes(b"")
    out = str(tmp_path / "out")
    monkeypatch.setattr(sys, "argv", ["convert", "folder", "--out", out, "--source", str(raw), "--on-error", "skip"])
    __main__.main()
    assert capsys.readouterr().out.splitlines() == [
        f"{out}: 8 train, 2 validation, 2 test; 2 classes; 1 picture rejected",
        "class       train  validation        test",
        "cat             4           1           1",
        "dog             4           1           1",
        "all             8           2           2",
        "largest class: 1.0 × the smallest",
        f"{out}/rejected.csv lists them with the reasons",
        "note: equal pictures: 2 in several splits (such as train/cat/00.png and val/cat/00.png); "
        f"{out}/duplicates.csv lists all, --on-duplicates drop leaves them out",
    ]


def test_names_are_printed_without_control_characters(tmp_path, monkeypatch, capsys):
    names = ["do\x1b[31mg", "ca\u202et"]
    conversion = Conversion("out", names, {"train": 2}, 0, {".t\nxt": 1, "duplicates": 1}, {}, [])
    conversion = conversion._replace(balance={"train": collections.Counter([0, 1])})
    group = [duplicates.Duplicate(f"{name}/1\n.jpg", "train", name) for name in names]
    monkeypatch.setattr(__main__.tyro, "cli", lambda *args, **options: conversion._replace(duplicates=[group]))
    __main__.main()
    text = capsys.readouterr().out
    assert all(line.isprintable() for line in text.splitlines())
    for expected in (
        r"do\x1b[31mg   ",
        r"ca\u202et   ",
        r"such as do\x1b[31mg/1\n.jpg",
        r"left out: 1 .t\nxt, 1 duplicate",
    ):
        assert expected in text
    with pytest.raises(SystemExit), reported():
        raise UserError(f"{names[0]} is no class")
    assert capsys.readouterr().err == "error: do\\x1b[31mg is no class\n"


def test_help_has_one_line_for_each_source(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["convert", "--help"])
    with pytest.raises(SystemExit, match="0"):
        __main__.main()
    lines = capsys.readouterr().out.splitlines()
    for name, source in SOURCES.items():
        text = source.__doc__.splitlines()[0].rstrip(".")
        assert len(text) > 20
        assert f"   {name:<13}  {text}" in [line.rstrip() for line in lines]
