"""Class folders in zip and tar archives: the same records as unpacked; damaged and hostile archives."""

import bz2
import gzip
import io
import itertools
import json
import lzma
import pathlib
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest

from errors import UserError
from pipeline import images, listing
from pipeline.convert import archives, convert, members, pool

ROOT = pathlib.Path(__file__).resolve().parents[2]
RANDOM = np.random.default_rng(0)
FORMS = ["zip", "tar", "gztar", "bztar", "xztar"]


def png(value=None):
    pixels = RANDOM.integers(0, 256, (5, 5, 3), np.uint8) if value is None else np.full((5, 5, 3), value, np.uint8)
    return images.encode_png(pixels).data


def write(folder, names, numbers=5):
    for name, i in itertools.product(names, range(numbers)):
        path = folder / name / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png())


@pytest.fixture
def pets(tmp_path):
    """A folder with all that the layout of folders knows: splits in an outer folder, subfolders, files to leave out."""
    root = tmp_path / "pets"
    write(root, ["outer/train/cat", "outer/train/dog/young", "outer/train/dog.old", "outer/val/cat", "outer/val/dog"])
    write(root, ["outer/train/.hidden", "outer/train/@eaDir/cat", "outer/val/dog.old", "outer/more"])
    for name in (
        "outer/train/beside.png",
        "outer/train/cat/.cat.png",
        "outer/train/cat/ünï.png",
        f"outer/val/cat/{'long' * 40}.png",
    ):
        (root / name).write_bytes(png())
    (root / "outer/train/cat/notes.txt").write_text("x")
    (root / "outer/val/dog.old/copy.png").write_bytes((root / "outer/train/cat/0.png").read_bytes())
    return root


def contents(out):
    """The files of a data set but for the list of its source, and its description but for the source."""
    files = {path.name: path.read_bytes() for path in pathlib.Path(out).iterdir() if path.name != listing.LISTING}
    description = json.loads(files.pop("dataset.json"))
    return files, {key: value for key, value in description.items() if key != "source"}


@pytest.mark.parametrize("form", FORMS)
def test_an_archive_gives_the_records_of_its_folder(form, pets, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "made"), form, pets)
    shutil.move(archive, tmp_path / "pets.bin")  # known by its content
    one = convert("folder", str(tmp_path / "one"), str(pets))
    two = convert("folder", str(tmp_path / "two"), str(tmp_path / "pets.bin"))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert two.ignored == one.ignored
    assert {".txt": 1, "folder @eaDir": 1, "folder more": 1, "hidden pictures": 1}.items() <= two.ignored.items()
    assert (two.splits, len(two.duplicates)) == ({"train": 16, "validation": 17, "test": 0}, 1)
    assert {path.name for path in tmp_path.iterdir()} == {"pets", "pets.bin", "one", "two"}


def test_processes_read_archives_and_labels_in_names(tmp_path, monkeypatch):
    write(tmp_path / "raw", ["all"], 1)
    for i in range(70):
        (tmp_path / f"raw/all/{'cat' if i % 2 else 'dog'}.{i}.png").write_bytes(png())
    (tmp_path / "raw/all/0.png").unlink()
    monkeypatch.setattr(pool, "FEW", 10)
    options = {"label_regex": r"^(\w+)\.", "processes": 2}
    convert("folder", str(tmp_path / "one"), str(tmp_path / "raw"), **options)
    for form in ("zip", "gztar"):
        archive = shutil.make_archive(str(tmp_path / "raw"), form, tmp_path / "raw")
        convert("folder", str(tmp_path / form), archive, **options)
        assert contents(tmp_path / form) == contents(tmp_path / "one")


def test_flowers_take_an_archive_and_others_say_that_they_do_not(pets, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "pets"), "tar", pets)
    assert convert("flowers", str(tmp_path / "out"), archive).class_names == ["cat", "dog", "dog.old"]
    with pytest.raises(UserError, match=r"pets\.tar is no directory; archives are for folder"):
        convert("cifar10", str(tmp_path / "other"), archive)


def test_a_changed_archive_is_seen(pets, tmp_path):
    archive = pathlib.Path(shutil.make_archive(str(tmp_path / "pets"), "zip", pets))
    before = listing.list_source("folder", archive)
    assert [len(entry.state) for entry in before.values()] == [64]
    other = archive.rename(tmp_path / "pets (1).zip")
    assert listing.differences(before, listing.list_source("folder", other), "folder") is None
    other.rename(archive)
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("outer/train/cat/new.png", png())
    assert "1 changed (pets.zip)" in listing.differences(before, listing.list_source("folder", archive), "folder")


# Damaged and hostile archives


PICTURES = {f"{name}/{i}.png": png() for name in ("cat", "dog") for i in range(4)}


def tarred(more=(), **changed):
    """A tar archive with PICTURES and more members, (name, content) each, the last with changed fields."""
    data, form = b"", changed.pop("format", tarfile.GNU_FORMAT)
    for name, content in [*PICTURES.items(), *more]:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        for key, value in changed.items() if (name, content) in more else ():
            setattr(info, key, value)
        data += info.tobuf(form, "utf-8", "surrogateescape") + content + bytes(-len(content) % 512)
    return data + bytes(1024)


def zipped(more=(), method=zipfile.ZIP_DEFLATED, **changed):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in [*PICTURES.items(), *more]:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            for key, value in changed.items() if (name, content) in more else ():
                setattr(info, key, value)
            archive.writestr(info, content)
    return file.getvalue()


def patched(data, old, new):
    assert old in data
    return data.replace(old, new)


def central(data, offset, form, value, name=b"cat/3.png"):
    """A zip archive with one field in the list of files changed."""
    start = data.rindex(b"PK\1\2", 0, data.rindex(name))
    data = bytearray(data)
    struct.pack_into(form, data, start + offset, value)
    return bytes(data)


END = tarred().rindex(PICTURES["dog/3.png"])  # where the last file begins
NEW = [("cat/new.png", b"")]
TARS = {
    "traversal": (tarred([("../x.png", b"")]), r"holds '\.\./x\.png', a path outside of the archive"),
    "traversal inside": (tarred([("cat/../../x.png", b"")]), r"a path outside"),
    "long path": (tarred([(f"cat/{'a' * 4096}.png", b"")]), r"holds 'cat/a{46}'…, a path of 4,104 bytes in 1 folders"),
    "deep path": (tarred([("a/" * 101 + "x.png", b"")]), r"a path of 207 bytes in 101 folders; allowed are 4,096 and"),
    "endless path": (tarred([("a/" * 400_000, b"")]), r"a path of 800,00\d bytes in 4\d\d,\d{3} folders"),
    "absolute": (tarred([("/etc/x.png", b"")]), r"holds '/etc/x\.png', a path outside"),
    "drive": (tarred([("C:\\x.png", b"")]), r"a path outside"),
    "symbolic link": (tarred(NEW, type=tarfile.SYMTYPE, linkname="/etc/passwd"), r"cat/new\.png as a symbolic link"),
    "hard link": (tarred(NEW, type=tarfile.LNKTYPE, linkname="cat/1.png"), r"as a hard link; unpack it"),
    "device": (tarred(NEW, type=tarfile.CHRTYPE), r"as a device"),
    "fifo": (tarred(NEW, type=tarfile.FIFOTYPE), r"as a FIFO"),
    "volume": (tarred(NEW, type=b"M"), r"as a special file"),
    "sparse": (
        tarred(NEW, format=tarfile.PAX_FORMAT, pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "9"}),
        r"as a sparse file",
    ),
    "within a header": (tarred()[: END - 100], r"is truncated: it has no end mark"),
    "within a file": (tarred()[: END + 10], r"is damaged or truncated \(unexpected end of data\)"),
    "at the end": (tarred()[: END + 512], r"is truncated: it has no end mark"),
    "damaged header": (patched(tarred(), b"dog/2.png", b"dog/9.png"), r"is damaged at byte \d.*, where a file begins"),
    "joined": (tarred() + tarred(), r"goes on after its end mark.*tar --concatenate"),
    "negative": (tarred(NEW, size=-512), r"damaged or truncated \(.*-512 bytes"),
    "twice": (tarred([("cat/./1.png", b"")]), r"holds cat/1\.png twice"),
    "file and folder": (tarred([("cat/1.png/x.png", b"")]), r"holds cat/1\.png as a file and as a folder"),
    "empty": (bytes(10240), r"holds no files"),
    "no file": (b"", r"is no archive; read are \.zip"),
    "text": (b"x" * 2000, r"is no archive"),
    "RAR": (b"Rar!\x1a\x07\1\0" + bytes(600), r"is a RAR archive; read are .*: unpack it"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(600), r"is a 7z archive"),
    "truncated gzip": (gzip.compress(tarred())[:-300], r"is damaged or truncated \(Compressed file ended"),
    "truncated bzip2": (bz2.compress(tarred())[:-100], r"is damaged or truncated"),
    "truncated xz": (lzma.compress(tarred())[:-100], r"is damaged or truncated"),
    "damaged gzip": (gzip.compress(tarred())[:90] + b"\xff" * 9 + gzip.compress(tarred())[99:], r"is damaged"),
    "damaged bzip2": (bz2.compress(tarred())[:90] + b"\xff" * 9 + bz2.compress(tarred())[99:], r"is damaged"),
    "joined gzip": (gzip.compress(tarred()) * 2, r"goes on after its end mark"),
    "gzip of text": (gzip.compress(b"path,label\n" * 999), r"is a compressed file, but no tar archive"),
    "class that is no text": (tarred([(f"\udcff/{i}.png", png()) for i in range(4)]), r"is no text in UTF-8; rename"),
}
FLAG, METHOD, CRC, PACKED, SIZE, OFFSET = 8, 10, 16, 20, 24, 42  # fields of the list of files
ZIPS = {
    "traversal": (zipped([("../x.png", b"")]), r"holds '\.\./x\.png', a path outside of the archive"),
    "traversal of Windows": (zipped([("..\\x.png", b"")], create_system=0), r"a path outside of the archive"),
    "deep path": (zipped([("a/" * 30_000 + "x.png", b"")]), r"a path of 60,005 bytes in 30,000 folders; allowed are"),
    "absolute": (zipped([("/x.png", b"")]), r"a path outside of the archive"),
    "symbolic link": (
        zipped([("cat/l.png", b"1.png")], external_attr=0o120777 << 16),
        r"cat/l\.png as a symbolic link",
    ),
    "device": (zipped([("cat/l.png", b"")], external_attr=0o20777 << 16), r"cat/l\.png as a device"),
    "encrypted": (central(zipped(), FLAG, "<H", 1), r"holds cat/3\.png encrypted; unpack it"),
    "bzip2": (zipped(method=zipfile.ZIP_BZIP2), r"packed by bzip2; only Store and Deflate are read"),
    "Deflate64": (central(zipped(), METHOD, "<H", 9), r"packed by Deflate64"),
    "truncated": (zipped()[:-30], r"is damaged or truncated \(File is not a zip file\)"),
    "truncated early": (zipped()[:300], r"is damaged or truncated"),
    "joined": (zipped() + zipped(), r"holds files before those of its list, as where two archives were joined"),
    "overlapping": (central(zipped(), OFFSET, "<L", 0), r"holds files that overlap, as a zip bomb does"),
    "beyond the end": (central(zipped(), PACKED, "<L", 10**6), r"holds files that overlap"),
    "declared size": (
        central(zipped(), SIZE, "<L", 2**32 - 2),
        r"and unpacks to 4,294,9\d\d,\d{3} or more, as a zip bomb",
    ),
    "twice": (patched(zipped([("cat/x.png", b"")]), b"cat/x.png", b"cat/1.png"), r"holds cat/1\.png twice"),
    "names in cp437": (patched(zipped([("cat/q.png", b"")]), b"cat/q.png", b"cat/\xff.png"), r"that is not in UTF-8"),
    "names of wrong UTF-8": (patched(zipped([("cat/é.png", b"")]), b"\xc3\xa9", b"\xff\xff"), r"that is not in UTF-8"),
    "empty": (b"PK\5\6" + bytes(18), r"holds no files"),
}


@pytest.mark.parametrize("form", [*(f"tar, {key}" for key in TARS), *(f"zip, {key}" for key in ZIPS)])
def test_hostile_and_damaged_archives_are_one_error(form, tmp_path):
    kind, key = form.split(", ")
    content, message = (TARS if kind == "tar" else ZIPS)[key]
    path = tmp_path / "pets.bin"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        convert("folder", str(tmp_path / "out"), str(path))
    assert "pets.bin" in str(caught.value) or "class" in key
    assert [left.name for left in tmp_path.iterdir()] == ["pets.bin"]


def test_the_command_prints_one_line_and_ends_with_2(tmp_path):
    (tmp_path / "pets.tar.gz").write_bytes(gzip.compress(tarred([("../x.png", b"")])))
    command = [sys.executable, "-m", "pipeline.convert", "folder", "--source", tmp_path / "pets.tar.gz"]
    done = subprocess.run([*command, "--out", tmp_path / "out"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert [left.name for left in tmp_path.iterdir()] == ["pets.tar.gz"]


@pytest.mark.parametrize("packer", [gzip, bz2, lzma])
def test_a_compressed_archive_out_of_all_proportion_is_not_decompressed(packer, tmp_path, monkeypatch):
    monkeypatch.setattr(members, "MOST_UNPACKED", 2**22)
    bomb = tarred([("cat/huge.bmp", bytes(2**25))])
    (tmp_path / "pets.tgz").write_bytes(packer.compress(bomb))
    sizes = []
    check = members.most_unpacked
    monkeypatch.setattr(members, "most_unpacked", lambda packed: sizes.append(packed) or check(packed))
    with pytest.raises(UserError, match=r"pets\.tgz has [\d,]+ bytes and unpacks to [\d,]+ or more, as a zip bomb"):
        convert("folder", str(tmp_path / "out"), str(tmp_path / "pets.tgz"))
    assert len(sizes) * archives.BLOCK <= max(2**23, 2 * members.MOST_RATIO * sizes[0])
    assert [left.name for left in tmp_path.iterdir()] == ["pets.tgz"]


def test_an_archive_that_needs_more_memory_than_there_is(tmp_path, monkeypatch):
    def read(self, size):
        raise MemoryError

    monkeypatch.setattr(lzma.LZMAFile, "read", read)
    (tmp_path / "pets.tar.xz").write_bytes(lzma.compress(tarred()))
    with pytest.raises(UserError, match=r"pets\.tar\.xz needs more memory to be decompressed than there is; unpack it"):
        convert("folder", str(tmp_path / "out"), str(tmp_path / "pets.tar.xz"))
    assert [left.name for left in tmp_path.iterdir()] == ["pets.tar.xz"]


def test_paths_as_deep_as_allowed_are_read(tmp_path):
    (tmp_path / "pets.tar").write_bytes(tarred([("cat/" + "a/" * 99 + "x.png", png())]))
    assert sum(convert("folder", str(tmp_path / "out"), str(tmp_path / "pets.tar")).splits.values()) == 9
    (tmp_path / f"raw/cat/{'a/' * 101}").mkdir(parents=True)
    with pytest.raises(UserError, match=r"has more than 100 folders above it"):
        convert("folder", str(tmp_path / "out2"), str(tmp_path / "raw"))


@pytest.mark.parametrize("change", ["content", "size", "place"])
def test_a_damaged_member_of_a_zip_is_a_rejected_picture(change, tmp_path):
    stored = zipped(method=zipfile.ZIP_STORED)
    data = {
        "content": patched(stored, PICTURES["cat/3.png"], PICTURES["cat/3.png"][:-1] + b"\0"),
        "size": central(zipped(), SIZE, "<L", 20),  # it unpacks to more
        "place": stored.replace(b"PK\3\4", b"PK\0\0").replace(b"PK\0\0", b"PK\3\4", 3),
    }[change]
    (tmp_path / "pets.zip").write_bytes(data)
    with pytest.raises(UserError, match=r"first is cat/3\.png: damaged: it (differs from its checksum|is not where)"):
        convert("folder", str(tmp_path / "out"), str(tmp_path / "pets.zip"))
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["out.rejected.csv", "pets.zip"]


def test_names_that_macos_and_old_windows_write(tmp_path):
    more = [("née\\1.png", png()), ("née\\2.png", png()), ("née\\3.png", png())]
    data = bytearray(zipped(more, create_system=0))
    for magic, flag in (b"PK\3\4", 6), (b"PK\1\2", 8):  # without the flag of UTF-8
        start = -1
        while (start := data.find(magic, start + 1)) >= 0:
            struct.pack_into("<H", data, start + flag, 0)
    (tmp_path / "pets.zip").write_bytes(data)
    done = convert("folder", str(tmp_path / "out"), str(tmp_path / "pets.zip"))
    assert done.class_names == ["cat", "dog", "née"]


def test_an_empty_class_folder_counts_as_in_a_directory(tmp_path):
    write(tmp_path / "raw", ["cat", "dog"])
    (tmp_path / "raw/empty").mkdir()
    found = []
    for source in (tmp_path / "raw", *(shutil.make_archive(str(tmp_path / "raw"), f, tmp_path / "raw") for f in FORMS)):
        with pytest.raises(UserError, match=r"holds fewer than 3 pictures of empty") as caught:
            convert("folder", str(tmp_path / "out"), str(source))
        found.append(str(caught.value).partition(" holds ")[2])
    assert len(set(found)) == 1


def test_archives_where_folders_are_expected_are_named(tmp_path):
    write(tmp_path / "raw", ["cat"])
    one_class = shutil.make_archive(str(tmp_path / "one"), "zip", tmp_path / "raw")
    with pytest.raises(UserError, match=r"one\.zip holds one class folder; at least two are needed"):
        convert("folder", str(tmp_path / "out"), one_class)
    (tmp_path / "outer").mkdir()
    shutil.move(one_class, tmp_path / "outer/train.zip")
    with pytest.raises(
        UserError, match=r"outer holds no class folders.*the archive \S+/train\.zip: name it with --source"
    ):
        convert("folder", str(tmp_path / "out"), str(tmp_path / "outer"))
    nested = shutil.make_archive(str(tmp_path / "nested"), "tar", tmp_path / "outer")
    with pytest.raises(UserError, match=r"it holds the archive \S+nested\.tar/train\.zip, which must be unpacked"):
        convert("folder", str(tmp_path / "out"), nested)
    shutil.copytree(tmp_path / "raw", tmp_path / "classes")
    (tmp_path / "classes/dog").mkdir()
    write(tmp_path / "splits/train", ["cat", "dog"])
    (tmp_path / "splits/val").mkdir()
    shutil.copy(tmp_path / "outer/train.zip", tmp_path / "splits/val/cat.zip")
    with pytest.raises(UserError, match=r"val holds no pictures in class folders .*; it holds the archive"):
        convert("folder", str(tmp_path / "out"), str(tmp_path / "splits"))
