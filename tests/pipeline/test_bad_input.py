"""Unusual folders and files of a user: nothing is left out silently, and no mistake ends in a traceback."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from errors import UserError
from pipeline.convert import __main__, convert
from pipeline.images import encode_png

ROOT = pathlib.Path(__file__).resolve().parents[2]
RANDOM = np.random.default_rng(0)


def write_pictures(directory, number=4):
    directory.mkdir(parents=True, exist_ok=True)
    for i in range(number):
        (directory / f"{i}.png").write_bytes(encode_png(RANDOM.integers(0, 256, (4, 5, 3), np.uint8)).data)


@pytest.fixture
def raw(tmp_path):
    for name in "cat", "dog":
        write_pictures(tmp_path / "raw" / name)
    return tmp_path / "raw"


@pytest.fixture
def made(raw, tmp_path):
    """made() converts the folder and returns the Conversion."""
    return lambda **options: convert("folder", str(tmp_path / "out"), str(raw), **options)


def total(conversion):
    return sum(conversion.splits.values())


# Links


def test_links_to_folders_and_to_pictures_are_followed(raw, made, tmp_path):
    (raw / "dog").rename(tmp_path / "dogs")
    (raw / "dog").symlink_to("../dogs")
    write_pictures(tmp_path / "more" / "deep", 3)
    (raw / "cat" / "linked").symlink_to(tmp_path / "more")
    (raw / "cat" / "one.png").symlink_to(tmp_path / "more" / "deep" / "0.png")
    conversion = made()
    assert conversion.class_names == ["cat", "dog"]
    assert total(conversion) == 4 + 4 + 3 + 1


@pytest.mark.parametrize("target", ["..", ".", "../cat"])
def test_a_link_to_a_parent_folder_is_named(target, raw, made):
    (raw / "cat" / "back").symlink_to(target)
    with pytest.raises(UserError, match=r"cat/back.* is a link to a folder that contains it; remove the link$"):
        made()


def test_links_that_form_a_loop_are_named(raw, made):
    (raw / "cat" / "dogs").symlink_to("../dog")
    assert total(made()) == 12  # one link is no loop
    (raw / "dog" / "cats").symlink_to("../cat")
    with pytest.raises(UserError, match="is a link to a folder that contains it"):
        convert("folder", str(raw.parent / "again"), str(raw))


@pytest.mark.parametrize("kind", ["nowhere", "fifo"])
def test_a_picture_that_is_no_regular_file_is_rejected(kind, raw, made):
    path = raw / "cat" / "special.png"
    path.symlink_to("nowhere") if kind == "nowhere" else os.mkfifo(path)
    reason = {"nowhere": "No such file or directory", "fifo": "no regular file"}[kind]
    with pytest.raises(UserError, match=rf"^1 of \d+ pictures cannot be used, the first is cat/special\.png: {reason}"):
        made()


@pytest.mark.parametrize("out", ["raw", "raw/out", "raw/cat/out", "link/out"])
def test_out_must_not_be_in_the_source(out, raw, tmp_path):
    (tmp_path / "link").symlink_to("raw")
    with pytest.raises(UserError, match=r"^--out .* is in --source .*choose another directory"):
        convert("folder", str(tmp_path / out), str(raw))
    assert not (tmp_path / out / "dataset.json").exists()


# Nothing is left out silently


@pytest.fixture
def forbidden(monkeypatch):
    """forbidden(directory) simulates missing permissions, which do not stop root."""

    def forbid(directory):
        scandir = os.scandir

        def refusing(path):
            if path == directory:
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refusing)

    return forbid


@pytest.mark.parametrize("folder", [".", "cat", "cat/below"])
def test_a_folder_that_cannot_be_read_is_named(folder, raw, made, forbidden):
    (raw / "cat" / "below").mkdir()
    forbidden(raw / folder)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\)"):
        made()


def test_ignored_files_are_reported(raw, tmp_path, monkeypatch, capsys):
    write_pictures(raw, 2)
    (raw / "cat" / "notes.txt").write_text("")
    (raw / "README").write_text("")
    out = str(tmp_path / "out")
    monkeypatch.setattr(sys, "argv", ["convert", "folder", "--out", out, "--source", str(raw)])
    __main__.main()
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "left out: 1 .txt, 2 pictures beside the folders, 1 without an ending"


def test_files_beside_the_splits_are_reported(raw, made):
    for folder in "train/cat", "train/dog", "Val/cat", "TEST/dog", "masks":
        write_pictures(raw / folder)
    for name in "cat", "dog":
        for path in (raw / name).iterdir():
            path.unlink()
        (raw / name).rmdir()
    write_pictures(raw, 1)
    write_pictures(raw / "train", 2)
    conversion = made()
    assert conversion.splits == {"train": 8, "validation": 4, "test": 4}
    assert conversion.ignored == {"folder masks": 1, "pictures beside the folders": 3}
    write_pictures(raw / "valid" / "cat")
    with pytest.raises(UserError, match="has both Val and valid; keep one of them"):
        convert("folder", str(raw.parent / "again"), str(raw))


def test_a_class_with_the_name_of_a_split_is_named(raw, made):
    write_pictures(raw / "Train")
    with pytest.raises(UserError, match="raw/Train, the training split, holds no class folders; at least two"):
        made()


def test_hidden_files_are_no_data(raw, made):
    write_pictures(raw / ".trash")
    write_pictures(raw / "cat" / ".thumbnails")
    conversion = made()
    assert (conversion.class_names, total(conversion)) == (["cat", "dog"], 8)
    assert conversion.ignored == {"folder .thumbnails": 1, "folder .trash": 1}


# System errors


def test_a_class_whose_name_is_not_utf_8_is_named(raw, made):
    try:
        (raw / "dog").rename(raw / os.fsdecode(b"caf\xe9"))
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(UserError, match=r"the name of the class 'caf\\udce9' is no text in UTF-8; rename it"):
        made()


def test_a_system_error_is_reported_in_one_line(made, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device", "there")

    monkeypatch.setattr("pipeline.tfrecord.write_shards", full)
    with pytest.raises(UserError, match=r"^there: No space left on device$"):
        made()
    with pytest.raises(UserError, match="does not exist"):
        convert("folder", str(tmp_path / "out"), "x" * 5000)


def test_directory_names_need_not_be_utf_8(raw, tmp_path):
    out, source = tmp_path / os.fsdecode(b"caf\xe9"), tmp_path / os.fsdecode(b"\xff")
    try:
        raw.rename(source)
    except OSError:
        pytest.skip("this file system has no such names")
    calls = ["-m", "pipeline.convert", "folder", "--out", out, "--source", source], ["-m", "pipeline.check", out]
    for call in calls:
        done = subprocess.run([sys.executable, *call], cwd=ROOT, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert b"caf\\udce9" in done.stdout
