"""Data in shards: webdataset's tar files and Hugging Face's Parquet files; CIFAR-100."""

import io
import itertools
import json
import pathlib
import pickle
import subprocess
import sys
import tarfile

import cv2
import numpy as np
import pytest

from errors import UserError
from pipeline import images, listing
from pipeline.convert import convert, duplicates, members, pool
from pipeline.convert.sources import arrays, shards
from pipeline.convert.sources.parquet import Cell, parquet
from pipeline.convert.sources.webdataset import webdataset

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared/data"
RANDOM = np.random.default_rng(0)


def png():
    return images.encode_png(RANDOM.integers(0, 256, (5, 5, 3), np.uint8)).data


def tar(path, rows):
    """Writes a tar archive of (name, content)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in rows:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))


def samples(count=6, labels="01"):
    found = [(f"{i:04d}.png", png(), f"{i:04d}.cls", labels[i % len(labels)].encode()) for i in range(count)]
    return [(name, content) for row in found for name, content in zip(row[::2], row[1::2], strict=True)]


def read(data):
    """{split: [(class name, content)]}"""
    return {split: [(data.class_names[e.label], e.read()) for e in part] for split, part in data.splits.items()}


# Names of files


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a-000.x", "a-001.x"], {"train": 2}),
        (["imagenet-train-000012.x", "imagenet1k-validation-00.x"], {"train": 1, "validation": 1}),
        (["train/0000.x", "val/0000.x", "test/0000.x"], {"train": 1, "validation": 1, "test": 1}),
        (["data/train-00000-of-00002.x", "data/train-00001-of-00002-0123456789abcdef.x"], {"train": 2}),
        (["train-1-of-2.x", "train-2-of-2.x"], {"train": 2}),
        (["test-0.x"], {"test": 1}),
        (["train/val2017.x"], "two splits"),
        (["train-0.x", "other-0.x"], r"other-0\.x: no split is in the name"),
        (["val-0.x"], "has only validation"),
        (["train-00000-of-00003.x", "train-00002-of-00003.x"], r"lacks 1 of 3 files of train: train-00001-of-00003\.x"),
        (["train-00005-of-00003.x"], "has a number that no file of 3 has"),
        (["a/train-0-of-1.x", "b/train-0-of-1.x"], "of two sets of the train split"),
        (["train-0-of-9999999.x"], "that no file of 9999999 has"),
        (["train-1.x", "train-01.x"], "have one number"),
        (["a-000.X", "a-001.x"], {"train": 2}),
        (["a-000.x", "a-001.x.crdownload"], r"a-001\.x\.crdownload is an unfinished download"),
        (["a-000.x", "a-001.X.part"], r"a-001\.X\.part is an unfinished download"),
        ([], r"holds no \.x files"),
    ],
)
def test_splits_by_names(names, expected, tmp_path):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            shards.find_shards(tmp_path, ".x")
    else:
        assert {split: len(paths) for split, paths in shards.find_shards(tmp_path, ".x").items()} == expected


@pytest.mark.parametrize(
    ("numbers", "lacks"),
    [
        (("000", "002", "003"), "1 files by the numbers of others (a-001.x)"),
        (("005", "006"), "4 files by the numbers of others (a-001.x, a-002.x, a-003.x, …)"),
        (("1", "2", "4"), "1 files by the numbers of others (a-3.x)"),
        (("7",), None),
        (("0", "1"), None),
        (("01440764", "01443537"), None),
    ],
)
def test_gaps_are_named(numbers, lacks, tmp_path, capsys):
    for number in numbers:
        (tmp_path / f"a-{number}.x").touch()
    shards.find_shards(tmp_path, ".x")
    printed = capsys.readouterr().out
    assert (f"{tmp_path} lacks {lacks}" in printed) if lacks else printed == ""


@pytest.mark.parametrize("copy", ["a-000 (1).x", "backup/a-000.x", "a-001.x", "b.x"])
def test_copies_are_named(copy, tmp_path):
    content = RANDOM.bytes(shards.START + 9)
    (tmp_path / copy).parent.mkdir(exist_ok=True)
    for name in "a-000.x", copy:
        (tmp_path / name).write_bytes(content)
    (tmp_path / "c.x").write_bytes(content[:-1] + bytes(1))
    (tmp_path / "d.x").write_bytes(content[:-2])
    with pytest.raises(UserError, match="have the same content; remove one") as error:
        shards.find_shards(tmp_path, ".x")
    assert all(str(tmp_path / name) in str(error.value) for name in ("a-000.x", copy))
    (tmp_path / copy).unlink()
    assert len(shards.find_shards(tmp_path, ".x")["train"]) == 3


# webdataset


def test_shards_that_webdatasets_writer_writes(tmp_path, monkeypatch):
    wds = pytest.importorskip("webdataset")
    names = ["cat", "dog", "bird"]
    for split, count in ("train", 40), ("validation", 9):
        with wds.ShardWriter(str(tmp_path / f"pets-{split}-%06d.tar"), maxcount=10, verbose=0) as writer:
            for i in range(count):
                key = {"__key__": f"some.folder/{i:04d}", "cls": i % 3, "json": {"i": i}, "seg.png": png()}
                writer.write({**key, ("JPEG", "png", "webp")[i % 3]: png()})
    (tmp_path / "classnames.txt").write_text("\n".join(names) + "\n")
    data = webdataset(tmp_path, None)
    assert (data.class_names, data.ignored) == (names, {".json": 49, ".seg.png": 49})
    for split, found in read(data).items():
        urls = sorted(map(str, tmp_path.glob(f"*{split}*.tar")))
        expected = []
        for sample in wds.WebDataset(urls, shardshuffle=False):
            picture = next(sample[kind] for kind in ("jpeg", "png", "webp") if kind in sample)
            expected.append((names[int(sample["cls"])], picture))
        assert found == expected
    assert {split: len(part) for split, part in read(data).items()} == {"train": 40, "validation": 9}
    monkeypatch.setattr(pool, "FEW", 10)
    done = convert("webdataset", str(tmp_path / "../out"), str(tmp_path), processes=2)
    assert done.splits == {"train": 40, "validation": 9, "test": 0}


@pytest.mark.parametrize(
    ("labels", "file", "expected"),
    [
        (["2", "10"], None, ["2", "10"]),
        (["dog", "cat"], None, ["cat", "dog"]),
        (["1", "0"], "cat\ndog\n", ["cat", "dog"]),
        (["dog", "cat"], "dog\ncat", ["dog", "cat"]),
        (["1", "0"], "1:dog\n0:cat\n", ["cat", "dog"]),
        (["1", "0"], "crane\ncrane\n", ["crane (0)", "crane (1)"]),
    ],
)
def test_class_names_beside_the_shards(labels, file, expected, tmp_path):
    tar(tmp_path / "0.tar", samples(4, labels))
    if file:
        (tmp_path / "classes.txt").write_text(file)
    data = webdataset(tmp_path / "0.tar", None)
    assert data.class_names == expected
    first = expected[int(labels[0])] if file and labels[0].isdecimal() else labels[0]
    assert [name for name, _ in read(data)["train"]][::2] == [first] * 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([("9.png", b"x")], r"0\.tar holds 9\.png without a label, \.cls, of the same name"),
        ([("9.cls", b"1")], r"0\.tar holds 9\.cls without a picture"),
        ([("9.png", b"x"), ("9.jpg", b"x"), ("9.cls", b"1")], r"holds 9\.png and 9\.jpg, two files for one picture"),
        ([("9.png", b"x"), ("9.cls", b"1"), ("9.CLS", b"1")], r"two files for one label"),
        ([("9.png", b"x"), ("9.cls", b"7")], r"labels without a class: 7; the classes are cat to dog, 2 in all"),
        ([("9.png", b"x"), ("9.cls", b"-1")], r"labels without a class: -1; .* must be 0 or more"),
        ([("9.png", b"x"), ("9.cls", b"bird")], r"labels without a class: bird"),
        ([("9.png", b"x"), ("9.cls", b"\xff")], r"9\.cls, which is no text"),
        ([("9.png", b"x"), ("9.cls", b"")], r"9\.cls, which is no text"),
        ([("9.png", b"x"), ("9.cls", b"1" * 2000)], r"9\.cls, which is no text"),
        ([("../9.png", b"x")], r"a path outside of the archive"),
        ([("0001.png", b"x")], r"0\.tar holds 0001\.png twice"),
    ],
)
def test_unusable_samples(more, message, tmp_path):
    tar(tmp_path / "raw/0.tar", samples() + more)
    (tmp_path / "raw/classnames.txt").write_text("cat\ndog")
    with pytest.raises(UserError, match=message):
        convert("webdataset", str(tmp_path / "out"), str(tmp_path / "raw"))
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("1.tar", b"", r"1\.tar is no tar archive"),
        ("1.tar.gz", b"x", r"1\.tar\.gz is compressed; .* plain tar files: decompress"),
        ("1.TGZ", b"x", r"1\.TGZ is compressed"),
        ("1.tar.part", b"x", r"1\.tar\.part is an unfinished download; fetch the whole"),
        ("1.tar.gz.part", b"x", r"1\.tar\.gz\.part is an unfinished download"),
        ("nshards.txt", b"2", r"nshards\.txt says '2' shards, but 1 are there"),
        ("labels.txt", b"a\nb\nc", r"name other classes"),
        ("labels.txt", b"0:a\n2:b", r"must number its 2 classes from 0"),
        ("labels.txt", b"a\n\nb", r"a class name in each line"),
    ],
)
def test_unusable_files_beside_shards(name, content, message, tmp_path):
    tar(tmp_path / "0.tar", samples())
    if "name other" in message:
        (tmp_path / "classes.txt").write_text("a\nb")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        webdataset(tmp_path, None)
    (tmp_path / name).unlink()
    tar(tmp_path / "1.tar", [("a.txt", b"x"), ("__key__", b"x")])
    with pytest.raises(UserError, match=r"1\.tar holds no pictures with \.cls files, only \.txt"):
        webdataset(tmp_path, None)


def test_an_array_beside_a_picture_is_no_second_picture(tmp_path):
    array = io.BytesIO()
    np.save(array, RANDOM.integers(0, 256, (5, 5, 3), np.uint8))
    found = [*samples(6), ("0000.npy", b"an embedding"), ("0001.NPY", b"one more")]
    tar(tmp_path / "0.tar", [found[-1], *found[:-1], ("9.npy", array.getvalue()), ("9.cls", b"1")])
    data = webdataset(tmp_path, None)
    expected = [("0", found[0][1]), ("1", found[2][1])]
    assert {(n, c) for n, c in read(data)["train"]} >= {*expected, ("1", array.getvalue())}
    assert (len(data.splits["train"]), data.ignored) == (7, {".npy": 2})


def test_class_names_beside_one_tar_are_listed(tmp_path):
    tar(tmp_path / "0.TAR", samples())
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    (tmp_path / "notes.txt").touch()
    before = listing.list_source("webdataset", tmp_path / "0.TAR")
    assert before.keys() == {"0.TAR", "classnames.txt"}
    (tmp_path / "classnames.txt").write_text("dog\ncat\n")
    now = listing.list_source("webdataset", tmp_path / "0.TAR")
    assert listing.differences(before, now, "webdataset") == "1 changed (classnames.txt)"
    assert listing.list_source("webdataset", tmp_path).keys() == {"0.TAR", "classnames.txt", "notes.txt"}


def test_changes_of_shards_are_seen(tmp_path, monkeypatch):
    tar(tmp_path / "0.tar", samples())
    (tmp_path / "README.md").touch()
    before = listing.list_source("webdataset", tmp_path)
    assert [(name, entry.is_timed) for name, entry in before.items()] == [("0.tar", False)]
    (tmp_path / "0.tar").write_bytes((tmp_path / "0.tar").read_bytes().replace(b"0001.png", b"0009.png"))
    assert "1 changed (0.tar)" in listing.differences(before, listing.list_source("webdataset", tmp_path), "webdataset")
    before = listing.list_source("webdataset", tmp_path)
    (tmp_path / "0.tar").rename(tmp_path / "test-0.tar")  # another split
    now = listing.list_source("webdataset", tmp_path)
    assert listing.differences(before, now, "webdataset") == "1 new (test-0.tar), 1 gone (0.tar)"
    (tmp_path / "test-0.tar").rename(tmp_path / "0.tar")
    monkeypatch.setattr(listing, "HASHED", 100)
    assert listing.list_source("webdataset", tmp_path / "0.tar")["0.tar"].is_timed


# Parquet


@pytest.fixture
def arrow():
    pytest.importorskip("pyarrow.parquet", reason="pip install -r requirements-parquet.txt")
    import pyarrow

    return pyarrow


@pytest.fixture
def write(arrow, tmp_path):
    """write(name, columns, features, row group size): a file as datasets 5.2 writes it."""
    picture = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])

    def file(name, columns, features=None, group=None, types=None):
        types = {"image": picture, "img": picture, **(types or {})}
        made = {key: arrow.array(value, types.get(key)) for key, value in columns.items()}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})} if features is not None else None
        path = tmp_path / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        table = arrow.table(made).replace_schema_metadata(metadata)
        arrow.parquet.write_table(table, path, row_group_size=group)
        return path

    return file


FEATURES = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}


def rows(count=6, **columns):
    found = {"image": [{"bytes": png(), "path": f"{i}.png"} for i in range(count)]}
    return {**found, "label": [i % 2 for i in range(count)], **columns}


def test_parquet_gives_the_pictures_and_labels(write, tmp_path, monkeypatch):
    parts = [rows(150), rows(30), rows(9)]
    for name, part in zip(("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"), parts, strict=True):
        write(f"data/{name}.parquet", part, FEATURES, group=70)
    data = parquet(tmp_path / "raw", None)
    pairs = [[(("cat", "dog")[n], p["bytes"]) for p, n in zip(*part.values(), strict=True)] for part in parts]
    assert read(data) == {"train": pairs[0] + pairs[1], "test": pairs[2]}
    assert [e.read() for e in reversed(data.splits["train"])] == [p for _, p in reversed(pairs[0] + pairs[1])]
    assert data.splits["test"][3].filename == "data/test-00000-of-00001.parquet/3-3.png"
    monkeypatch.setattr(pool, "FEW", 10)
    done = convert("parquet", str(tmp_path / "out"), str(tmp_path / "raw"), processes=2)
    assert done.splits == {"train": 162, "validation": 18, "test": 9}


def test_only_a_few_pictures_are_in_memory(write, tmp_path, arrow):
    part = {"image": [{"bytes": RANDOM.bytes(2**14), "path": None} for _ in range(12800)], "label": [0, 1] * 6400}
    write("train.parquet", part, FEATURES)  # 200 MiB in one row group
    code = f"""
import pathlib, pyarrow.compute, pyarrow.parquet
from pipeline.convert.sources.parquet import parquet
most = lambda: int(pathlib.Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])  # KiB
before = most()
data = parquet(pathlib.Path({str(tmp_path / "raw")!r}), None)
print(len(data.splits["train"][-1].read()), most() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    length, kibibytes = map(int, done.stdout.split())
    assert length == 2**14
    assert kibibytes < 160 * 2**10


def test_equal_pictures_are_found_without_reading_them_again(write, tmp_path, monkeypatch):
    part = rows(8)
    part["image"][7] = part["image"][0]
    data = parquet(write("train.parquet", part, FEATURES), None)
    monkeypatch.setattr(Cell, "read", None)
    first, last = (data.splits["train"][i].filename for i in (0, 7))
    assert duplicates.find_copies(data) == {first: first, last: first}


@pytest.mark.parametrize(
    ("columns", "features", "expected"),
    [
        ({"label": [3, 7] * 3}, None, ["3", "7"]),
        ({"label": ["dog", "cat"] * 3}, {}, ["cat", "dog"]),
        ({"fine_label": [0, 1] * 3, "coarse_label": [0] * 6, "label": None}, None, ["0", "1"]),
        ({"kind": [0, 1] * 3, "label": None}, {"kind": FEATURES["label"]}, ["cat", "dog"]),
        ({"kind": [0, 1] * 3, "label": None, "id": list(range(6))}, {"kind": FEATURES["label"]}, ["cat", "dog"]),
    ],
)
def test_columns_of_labels(columns, features, expected, write, tmp_path):
    columns = {"img" if key == "image" else key: value for key, value in rows(**columns).items() if value is not None}
    path = write("a.parquet", columns, features)
    assert parquet(path, None).class_names == expected


def test_a_split_without_labels_is_left_out_and_counted(write, tmp_path):
    write("train.parquet", rows(20), FEATURES)
    write("test.parquet", rows(7, label=[-1] * 7), FEATURES)
    done = convert("parquet", str(tmp_path / "out"), str(tmp_path / "raw"))
    assert done.ignored == {"pictures of test without labels": 7}
    assert done.splits == {"train": 16, "validation": 2, "test": 2}


def test_one_value_for_many_rows_is_not_unpacked_for_all(write, tmp_path, monkeypatch):
    part = {"image": [{"bytes": bytes(2**20), "path": None}] * 64, "label": [0, 1] * 32}
    path = write("train.parquet", part, FEATURES)
    assert path.stat().st_size < 2**17
    module, read = sys.modules["pipeline.convert.sources.parquet"], []
    monkeypatch.setattr(module, "BATCH_BYTES", 2**22)
    batches = module._batches
    monkeypatch.setattr(module, "_batches", lambda *a: (read.append(b.num_rows) or b for b in batches(*a)))
    assert [len(e.read()) for e in parquet(path, None).splits["train"][::30]] == [2**20] * 3
    assert max(read) <= 4
    monkeypatch.setattr(members, "MOST_UNPACKED", 2**25)
    monkeypatch.setattr(members, "MOST_RATIO", 20)
    with pytest.raises(UserError, match=r"train\.parquet has [\d,]+ bytes and unpacks to [\d,]+ or more"):
        parquet(path, None)


NO_BYTES = [{"bytes": None, "path": "1.png"}] * 6
UNUSABLE = {
    "no pictures": (
        {"image": None, "text": ["a"] * 6},
        FEATURES,
        r"columns label \(int64\), text \(string\).*found: none",
    ),
    "plain binary": (
        {"image": [b"x"] * 6, "thumb": [{"bytes": b"x", "path": None}] * 6},
        FEATURES,
        r"the column image is binary; it must be a struct of bytes and path",
        {"image": None},
    ),
    "bytes as lists": ({"image": [{"bytes": [1]}] * 6}, FEATURES, r"the bytes in .* image are list<", {"image": None}),
    "bytes as text": ({"image": [{"bytes": "x"}] * 6}, FEATURES, r"the bytes in .* are string; th", {"image": None}),
    "path only": ({"image": NO_BYTES}, FEATURES, r"train\.parquet/0 holds only the path '1\.png' in the column image"),
    "null": ({"image": [None] * 6}, FEATURES, r"train\.parquet/0 holds null in the column image"),
    "no labels": ({"label": None}, None, r"must have one of labels"),
    "several labels": (
        {"label": None, "a": [1] * 6, "b": [1] * 6},
        None,
        r"must have one of labels, or one that is called",
    ),
    "lists": ({"label": [[1]] * 6}, None, r"the column label is list<.*it must have a number or a class name"),
    "floats": ({"label": [0.5] * 6}, None, r"the column label is double"),
    "out of range": ({"label": [0, 1, 2] * 2}, FEATURES, r"labels without a class: 2; the classes are cat to dog"),
    "some without": (
        {"label": [0, 1, -1] * 2},
        FEATURES,
        r"2 of 6 pictures of train have no label.*the first is .*/2-",
    ),
    "null labels": ({"label": [0, 1, None] * 2}, FEATURES, r"2 of 6 pictures of train have no label"),
    "all without": ({"label": [-1] * 6}, FEATURES, r"6 of 6 pictures of train have no label"),
    "class names": ({}, {"label": {"names": ["a", "a"], "_type": "ClassLabel"}}, r"has damaged metadata"),
    "metadata": ({}, [1], r"has damaged metadata of Hugging Face"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_unusable_columns(kind, write, tmp_path):
    columns, features, message, *types = UNUSABLE[kind]
    found = {k: v for k, v in rows(**columns).items() if v is not None}
    write("train.parquet", found, features, types=types[0] if types else None)
    with pytest.raises(UserError, match=message):
        convert("parquet", str(tmp_path / "out"), str(tmp_path / "raw"))
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_unusable_parquet_files(write, tmp_path, monkeypatch):
    path = write("train-0.parquet", rows(), FEATURES)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[20:60] = b"\xff" * 40
    for content in (whole[:-9], whole[:300], b"", b"x" * 999, bytes(damaged)):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"train-0\.parquet is no complete Parquet file"):
            parquet(tmp_path / "raw", None)
    path.write_bytes(whole)
    other = write("train-1.parquet", rows(extra=[1] * 6), FEATURES)
    with pytest.raises(UserError, match=r"train-1\.parquet and \S+train-0\.parquet have other columns or class names"):
        parquet(tmp_path / "raw", None)
    other.unlink()
    monkeypatch.setattr(members, "most_unpacked", lambda packed: 100)
    with pytest.raises(UserError, match=r"train-0\.parquet has [\d,]+ bytes and unpacks to"):
        parquet(tmp_path / "raw", None)


def test_without_pyarrow_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "raw").mkdir()
    with pytest.raises(UserError, match=r"needs pyarrow.*pip install -r requirements-parquet\.txt"):
        convert("parquet", str(tmp_path / "out"), str(tmp_path / "raw"))


# CIFAR


NAMES = [f"class_{i:02d}" for i in range(100)]


def cifar100(folder, binary, **changed):
    """Writes CIFAR-100 in one of its formats, with changed entries in Python's train and meta."""
    folder.mkdir()
    for split, count in ("train", 300), ("test", 100):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 3072), np.uint8)
        fine = np.arange(count) * 7 % 100
        if binary:
            bytes_of = np.concatenate([fine[:, None] // 5, fine[:, None], pixels], 1).astype(np.uint8)
            (folder / f"{split}.bin").write_bytes(bytes_of.tobytes())
            continue
        batch = {b"data": pixels, b"fine_labels": fine.tolist(), b"coarse_labels": (fine // 5).tolist()}
        batch |= {b"filenames": [b"x.png"] * count, b"batch_label": b"batch 1 of 1"}
        batch |= {key.encode(): value for key, value in changed.items() if split == "train"}
        (folder / split).write_bytes(pickle.dumps(batch, 2))
    names = {b"fine_label_names": changed.get("names", [name.encode() for name in NAMES]), b"coarse_label_names": []}
    if binary:
        (folder / "fine_label_names.txt").write_text("\n".join(NAMES) + "\n\n")
    else:
        (folder / "meta").write_bytes(pickle.dumps(names, 2))
    return folder


def test_both_versions_of_cifar_100_are_read(tmp_path):
    one = arrays.cifar100(cifar100(tmp_path / "python", False), None)
    two = arrays.cifar100(cifar100(tmp_path / "binary", True), None)
    assert one.class_names == two.class_names == NAMES
    for split, count in ("train", 300), ("test", 100):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 3072), np.uint8)
        for i, (a, b) in enumerate(zip(one.splits[split], two.splits[split], strict=True)):
            assert a[:2] == b[:2] == (f"{split}_{i:05d}.png", i * 7 % 100)
            np.testing.assert_array_equal(a.image, b.image)
            np.testing.assert_array_equal(a.image, pixels[i].reshape(3, 32, 32).transpose(1, 2, 0))
    done = convert("cifar100", str(tmp_path / "out"), str(tmp_path / "python"))
    assert done.splits == {"train": 200, "validation": 100, "test": 100}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"fine_labels": [100] * 300}, r"train does not hold 3072 bytes and a label of 0 to 99"),
        ({"fine_labels": None}, r"train (does not hold|is no pickle of CIFAR-100)"),
        ({"names": [b"a"] * 100}, r"meta must have the names of 100 fine classes, each once"),
        ({"names": None}, r"meta must have the names of 100 fine classes, each once; it has 0"),
        ({"names": [1] * 100}, r"meta must have the names"),
        (
            {"data": itertools.count()},
            r"train is no pickle of CIFAR-100's Python version \(it would run itertools\.count",
        ),
    ],
)
def test_unusable_cifar_100(changed, message, tmp_path):
    with pytest.raises(UserError, match=message):
        arrays.cifar100(cifar100(tmp_path / "raw", False, **changed), None)


def test_missing_and_wrong_cifar_100_files(tmp_path):
    raw = cifar100(tmp_path / "raw", True)
    (raw / "test.bin").write_bytes(bytes(3073))
    with pytest.raises(UserError, match=r"test\.bin has 3073 bytes, which is no multiple of 3074"):
        arrays.cifar100(raw, None)
    (raw / "test.bin").write_bytes(b"\0\x64" + bytes(3072))
    with pytest.raises(UserError, match=r"holds the label 100; the classes are 0 to 99"):
        arrays.cifar100(raw, None)
    (raw / "fine_label_names.txt").unlink()
    (raw / "data_batch_1").touch()
    with pytest.raises(
        UserError, match=r"must hold train, test and meta of .*data_batch_\* of CIFAR-10 use the cifar10"
    ):
        arrays.cifar100(raw, None)


@pytest.mark.skipif(not (SHARED / "cifar10").is_dir(), reason=f"{SHARED}/cifar10 is missing")
def test_real_pictures_are_the_same_in_every_form(tmp_path, write):
    data = arrays.cifar10(SHARED / "cifar10", None)
    chosen = {"train": data.splits["train"][:300], "test": data.splits["test"]}
    names = data.class_names
    expected = {split: sorted((names[e.label], e.image.tobytes()) for e in part) for split, part in chosen.items()}
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    for split, part in chosen.items():
        encoded = [images.encode_png(e.image).data for e in part]
        files = (
            [(f"{i:05d}.png", data), (f"{i:05d}.cls", names[e.label].encode())]
            for i, (e, data) in enumerate(zip(part, encoded, strict=True))
        )
        tar(tmp_path / f"wds/{split}-0.tar", [row for pair in files for row in pair])
        pictures = [{"bytes": data, "path": None} for data in encoded]
        write(f"{split}-00000-of-00001.parquet", {"image": pictures, "label": [e.label for e in part]}, features, 100)
    for found in (webdataset(tmp_path / "wds", None), parquet(tmp_path / "raw", None)):
        for split, part in read(found).items():
            pixels = ((name, cv2.imdecode(np.frombuffer(d, np.uint8), cv2.IMREAD_COLOR)) for name, d in part)
            assert sorted((name, cv2.cvtColor(p, cv2.COLOR_BGR2RGB).tobytes()) for name, p in pixels) == expected[split]
