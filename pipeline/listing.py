"""The files that a data set was made from, so that a change of them is seen before a training. Free of TensorFlow.

The converter lists them into LISTING beside the shards: name, size, and the time of the last change or, for tables and
archives, the SHA-256 of the content. A copy keeps names and sizes, but often not the times.
"""

import contextlib
import csv
import gzip
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pooch

import own_code
from errors import UserError, printable
from files import BY_PRODUCTS, atomic_write, open_regular, read_regular
from pipeline.images import EXTENSIONS
from pipeline.table_files import column_names, find_picture, open_table

LISTING = ".source.csv.gz"
ARRAYS = ("mnist", "fashion_mnist", "cifar10", "cifar100", "signs")  # sources whose files hold many pictures each
SHARDS = {"webdataset": (".tar", ".txt"), "parquet": (".parquet",)}  # sources in archives, and the files they read
CLASS_FILES = "classnames.txt", "classes.txt", "labels.txt"  # beside webdataset's shards: the names of classes
# Sources whose table or archive may have any name; those of shards say which split they are of.
RENAMED = "folder", "flowers", "csv"
HASHED = 4 * 2**30  # bytes of archives that are read for a comparison, in seconds; times are compared of larger ones
NAMED = 3  # examples of each kind of difference
ROUNDED = 2 * 10**9  # nanoseconds: FAT and zip archives keep times of even seconds


class Entry(NamedTuple):
    """A file of the source."""

    size: int
    state: str  # time of its last change in nanoseconds, or the SHA-256 of its content, in hexadecimal digits

    @property
    def is_timed(self) -> bool:
        """Whether the state is a time."""
        return len(self.state) < 64


Listing = dict[str, Entry]  # names relative to the source


def list_source(name: str, source: Path) -> Listing:
    """The files that the source `name` reads: for csv the table and the pictures that it names, for others those in
    the directory; for a user's own also the file of its code. Raises UserError for one that cannot be read."""
    try:
        if own_code.is_own(name):
            file = Path(own_code.split(name)[0])
            code = {file.name: _whole(file)} if file.exists() else {}
            return code | ({source.name: _whole(source)} if source.is_file() else dict(_walk(str(source))))
        if name in SHARDS:
            root = source.parent if source.is_file() else source
            if source.is_file():
                beside = [root / file for file in CLASS_FILES if name == "webdataset"]
                found = {file.name: _stamp(file.stat()) for file in [source, *beside] if file.is_file()}
            else:
                found = {file: entry for file, entry in _walk(str(source)) if file.lower().endswith(SHARDS[name])}
            whole = sum(entry.size for entry in found.values()) <= HASHED
            return {file: _whole(root / file) for file in found} if whole else found
        if source.is_file():
            return {source.name: _whole(source), **dict(_pictures_of_table(source) if name == "csv" else ())}
        if name in ARRAYS:
            return {found: _whole(source / found) for found, _ in _walk(str(source))}
        return {found: entry for found, entry in _walk(str(source)) if os.path.splitext(found)[1].lower() in EXTENSIONS}
    except OSError as error:
        raise UserError(f"{error.filename or source} cannot be read ({error.strerror})") from None


def _walk(directory: str, prefix: str = "", parents: tuple[str, ...] = ()) -> Iterator[tuple[str, Entry]]:
    """The files in a directory and its subfolders; hidden names are left out. Strings, for millions of files."""
    real = os.path.realpath(directory)
    if real in parents:
        return  # a link to a folder that contains it, which the converter reports
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if entry.name.lower() not in BY_PRODUCTS:
                    yield from _walk(entry.path, f"{prefix}{entry.name}/", (*parents, real))
                continue
            try:
                yield f"{prefix}{entry.name}", _stamp(entry.stat())
            except FileNotFoundError:  # a broken link
                continue


def _stamp(status: os.stat_result) -> Entry:
    return Entry(status.st_size, str(status.st_mtime_ns))


def _whole(path: Path) -> Entry:
    with open_regular(path) as file:  # no FIFO
        return Entry(os.fstat(file.fileno()).st_size, pooch.file_hash(path))


def _pictures_of_table(source: Path) -> Iterator[tuple[str, Entry]]:
    """The files in the column path of a table, where it has one. Its mistakes are for the converter to report."""
    with contextlib.suppress(csv.Error, UnicodeError, UserError):
        table = open_table(source)
        with table.text() as file:
            rows = table.rows(file)
            header = column_names(next(rows, []))
            column = header.index("path") if "path" in header else len(header)
            for row in rows:
                name = find_picture(source.parent, row[column].strip()) if column < len(row) else None
                if name:
                    yield name, _stamp(os.stat(source.parent / name))


def save(listing: Listing, directory: Path) -> None:
    """Writes LISTING into the directory of a data set."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows((name, *entry) for name, entry in sorted(listing.items()))
    with atomic_write(directory / LISTING) as partial:
        partial.write_bytes(gzip.compress(text.getvalue().encode(errors="surrogateescape"), 6, mtime=0))


def load(directory: str) -> Listing | None:
    """The listing of a data set; None for data that were made without one. Raises UserError where it is damaged."""
    path = os.path.join(directory, LISTING)
    try:
        text = gzip.decompress(read_regular(path)).decode(errors="surrogateescape")
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        found = {name: Entry(int(size), state) for name, size, state in rows}
        for entry in found.values():
            int(entry.state, 10 if entry.is_timed else 16)
        if not found:
            raise ValueError("it names no files")
        return found
    except FileNotFoundError:
        return None
    except Exception as error:  # what zlib, csv and int raise
        raise UserError(f"{path} is damaged ({error}), so --source cannot be compared") from None


def differences(before: Listing, now: Listing, name: str) -> str | None:
    """How the files have changed, such as '2 new (cat/8.jpg, cat/9.jpg), 1 gone (dog/1.jpg)'; None for not at all.

    A table or an archive of the source `name` that has another name and the same content has not changed, if that is
    one of RENAMED. Times count only where they differ for some of the files: in a copy all may have other times,
    `written_anew`.
    """
    if before == now:  # at once, also for a million files
        return None
    both = before.keys() & now.keys()
    changed = {name for name in both if before[name].size != now[name].size}
    if not written_anew(before, now):
        changed |= _other_times(before, now)
    changed |= {name for name in both if before[name].state != now[name].state and not before[name].is_timed}
    new, gone = now.keys() - before.keys(), before.keys() - now.keys()
    same = {now[file] for file in new} & {before[file] for file in gone} if name in RENAMED else set()
    same = {entry for entry in same if not entry.is_timed}
    new, gone = ({file for file in part if of[file] not in same} for part, of in ((new, now), (gone, before)))
    kinds = {"new": new, "gone": gone, "changed": changed}
    return ", ".join(_count(kind, names) for kind, names in kinds.items() if names) or None


def written_anew(before: Listing, now: Listing) -> bool:
    """Whether all files that are in both have other times: they were copied, unpacked again, or rewritten."""
    timed = {name for name in before.keys() & now.keys() if before[name].is_timed}
    return bool(timed) and timed == _other_times(before, now)


def _other_times(before: Listing, now: Listing) -> set[str]:
    timed = (name for name in before.keys() & now.keys() if before[name].is_timed and now[name].is_timed)
    return {name for name in timed if abs(int(before[name].state) - int(now[name].state)) > ROUNDED}


def _count(kind: str, names: set[str]) -> str:
    first = sorted(names)[:NAMED]
    return f"{len(names):,} {kind} ({printable(', '.join(first))}{', …' if len(names) > NAMED else ''})"
