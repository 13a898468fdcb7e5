"""Files and directories: atomic writing, locks, safe reading, and system errors as UserError."""

import contextlib
import errno
import os
import re
import shutil
import stat
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from filelock import FileLock, Timeout

from errors import UserError

# Folders that systems and network drives leave among a user's files: thumbnails, deleted files, copies of metadata.
BY_PRODUCTS = {"@eadir", "@tmp", "@recycle", "@__thumb", "#recycle", "#snapshot", "$recycle.bin", "__macosx"}
BY_PRODUCTS |= {"__pycache__", "lost+found", "system volume information"}
# File systems that cannot lock files (some of NFS and Lustre) or sync directories (some of CIFS) answer with these.
UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
MOST_BYTES = 2**31  # four times the largest picture that is accepted: 64 million pixels of 16 bits and four channels

MOST_LEVELS = 100  # folders in folders, below the limit of recursion


def expand(path: "str | os.PathLike") -> str:
    """The path with a leading ~ or ~user replaced by the home directory: a shell leaves it in --out=~/data.

    Raises UserError where there is no such directory: a new directory called ~ or ~user is never meant; and for a
    remote place, since only shards are read from there; also for one that lacks a slash, such as gs:/bucket.
    """
    if is_remote(path):
        raise UserError(
            f"{path} is a remote place, from which only --data, the directory of shards, is read; name a local file or "
            "directory here, and copy to or from it, such as with gcloud storage cp or aws s3 cp"
        )
    slip = re.match(r"(?i)(gs|s3|s3a|hdfs|file|https?):/", path) if isinstance(path, str) else None
    if slip and not os.path.lexists(slip[0]):
        meant = f"{slip[1].lower()}://{path[slip.end() :]}"
        raise UserError(f"{path} would be a local file; did you mean {meant}? Else give ./{path}")
    expanded = os.path.expanduser(os.fspath(path))
    first = expanded.split(os.sep)[0]
    if first == "~":
        raise UserError(f"{expanded} names the home directory, but there is none (HOME is not set); give a whole path")
    if re.fullmatch(r"~[A-Za-z_][\w.-]*", first) and not os.path.lexists(first):
        user = f"{expanded} names the home directory of {first[1:]}, but there is no such user"
        raise UserError(f"{user}; give a whole path, or ./{expanded} for a file of that name")
    return expanded


def is_remote(path: "str | os.PathLike") -> bool:
    """Whether a path is the name of a remote place, such as gs://bucket/shards."""
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", os.fspath(path)))


def expand_data(path: "str | os.PathLike") -> str:
    """As `expand`, for shards, which may lie in a remote place: its name is returned unchanged.

    Raises UserError also for a remote place without the name of a bucket.
    """
    if not is_remote(path):
        return expand(path)
    if re.fullmatch(r".*://+", os.fspath(path)):
        raise UserError(f"{path} names no bucket; give it and the directory, such as gs://bucket/shards")
    return os.fspath(path)


def absolute(path: str) -> str:
    """The absolute path; that of a remote place is its name without slashes at its end."""
    return re.sub(r"(?<=[^/:])/+$", "", path) if is_remote(path) else os.path.abspath(path)


def moved_places(path: str, beside: str) -> Iterator[str]:
    """Where `path` may lie now, if a project that held it was moved together with `beside`: its last parts, below each
    of the folders that `beside` lies in; the most parts and the nearest folder first."""
    parts = Path(path).parts[1:]
    for start in range(len(parts)):
        for folder in Path(os.path.abspath(beside)).parents:
            yield os.path.join(folder, *parts[start:])


def fsync(path: "str | Path") -> None:
    """Waits until a file, or the list of names in a directory, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED or not os.path.isdir(path):
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_write(path: "str | Path") -> Iterator[Path]:
    """Yields a temporary path to write to; the file replaces `path` when the block ends without an error.

    Where `path` is a link, its target is replaced and the link is kept, as in `open(path, "w")`.
    """
    path = Path(os.path.realpath(path))
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")  # some writers choose the format by the suffix
    try:
        yield partial
        fsync(partial)  # before the rename: otherwise a power cut may leave an empty file under the final name
        partial.replace(path)
        fsync(path.parent)
    finally:
        with contextlib.suppress(OSError):  # the first error is the one to report
            partial.unlink(missing_ok=True)


def check_output(flag: str, path: str, *suffixes: str) -> None:
    """Raises UserError if `output_file` could not write to `path`. Called before the work that makes the file.

    flag is the option that names the file; suffixes are the allowed ones, such as '.png'.
    """
    directory, name = os.path.split(os.path.realpath(path))
    if not path.endswith(suffixes) or not os.path.isdir(directory) or os.path.isdir(path):
        raise UserError(f"{flag} {path} must be a {' or '.join(suffixes)} in a directory that is there")
    try:
        tempfile.NamedTemporaryFile(dir=directory, prefix=f".{name}.partial").close()
    except OSError as error:
        raise UserError(f"{flag} {path} cannot be written ({error.strerror})") from None


@contextlib.contextmanager
def output_file(flag: str, path: str) -> Iterator[Path]:
    """Like atomic_write, for a file that an option names. Raises UserError if the file cannot be written."""
    try:
        with atomic_write(path) as partial:
            yield partial
    except OSError as error:
        raise UserError(f"{flag} {path} cannot be written ({error.strerror or error})") from None


@contextlib.contextmanager
def locked(path: "str | Path") -> Iterator[None]:
    """Holds the lock file `path` until the block or the process ends, kill -9 included. Then removes the file.

    On a file system without locks it prints a warning and holds none.

    Raises BlockingIOError if another process, or another block of this one, holds it; OSError if it cannot be created.
    """
    try:
        lock = FileLock(path, blocking=False, fallback_to_soft=False).acquire()
    except Timeout:
        # filelock also times out in a directory where no file can be made: that raises the system's error here.
        tempfile.TemporaryFile(dir=os.path.dirname(os.path.abspath(path))).close()
        raise BlockingIOError(errno.EWOULDBLOCK, "another process holds this lock", os.fspath(path)) from None
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        place = os.path.dirname(os.path.abspath(path))
        print(f"{place} cannot be locked ({error.strerror}): start nothing else that writes there", file=sys.stderr)
        with contextlib.suppress(OSError):
            os.unlink(path)
        yield
        return
    with lock:
        held = os.stat(path)
        try:
            yield
        finally:
            # Unlinked before the lock is released. A process that has opened the file earlier gets the lock of a file
            # without a name; filelock checks for that (st_nlink is 0) and refuses it, so two processes never hold
            # `path`. Windows cannot delete an open file; there filelock deletes it on release.
            with contextlib.suppress(OSError):
                if os.path.samestat(held, os.stat(path)):
                    os.unlink(path)


@contextlib.contextmanager
def atomic_directory(path: "str | Path", is_old: Callable[[Path], bool] = lambda directory: False) -> Iterator[Path]:
    """Yields a directory to fill; it replaces `path` when the block ends without an error.

    is_old says whether a directory holds only what an earlier call made, and may be replaced. Raises UserError if
    `path` contains other files, cannot be created, or is being made by another process.
    """
    target = Path(os.path.realpath(path))
    with contextlib.ExitStack() as stack:
        try:
            _check_free(target, path, is_old)
            target.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(target.with_name(f".{target.name}.lock")))
            partial = target.with_name(f".{target.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed
            stack.callback(shutil.rmtree, partial, ignore_errors=True)
            partial.mkdir()
        except BlockingIOError:
            raise UserError(f"another process is making {path}; wait for it or choose another directory") from None
        except OSError as error:
            raise UserError(f"{path} cannot be made ({error})") from None
        yield partial
        _check_free(target, path, is_old)
        try:
            if target.exists() and any(target.iterdir()):
                old = partial.with_name(f".{target.name}.old")
                shutil.rmtree(old, ignore_errors=True)
                target.replace(old)
                stack.callback(shutil.rmtree, old, ignore_errors=True)
            partial.replace(target)
        except OSError as error:  # a mount point, or the working directory
            reason = f"{path} cannot be replaced ({error.strerror})"
            raise UserError(f"{reason}; choose a directory that does not exist") from None


def _check_free(target: Path, name: "str | Path", is_old: Callable[[Path], bool]) -> None:
    if target.exists() and not target.is_dir():
        raise UserError(f"{name} is a file; choose another name for the directory")
    if target.exists() and any(target.iterdir()) and not is_old(target):
        raise UserError(f"{name} exists and is not empty; remove it or choose another directory")


def open_regular(path: "str | Path", buffering: int = -1) -> BinaryIO:
    """Opens a regular file to read its bytes. Raises OSError for anything else: reading a FIFO would block forever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "no regular file", os.fspath(path))
    return open(path, "rb", buffering)


def read_regular(path: "str | Path") -> bytes:
    """The content of a regular file. Raises OSError as open_regular does, and for a file larger than MOST_BYTES."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > MOST_BYTES:
            raise OSError(errno.EFBIG, "larger than 2 GiB", os.fspath(path))
        return file.read()


def check_unpacked(archive: zipfile.ZipFile, most: int = MOST_BYTES) -> None:
    """Raises OSError if the content of an archive, such as an .npz, is larger than `most` bytes.

    A zip file can hold a thousand times its own size. zipfile reads no more than the sizes that are checked here.
    """
    if sum(entry.file_size for entry in archive.infolist()) > most:
        raise OSError(errno.EFBIG, f"it unpacks to more than {most:,} bytes")


def is_text(name: object) -> bool:
    """Whether `name` is a string that can be printed and stored as UTF-8; a file name on Linux can be any bytes."""
    return isinstance(name, str) and not re.search("[\ud800-\udfff]", name)


@runtime_checkable
class Folder(Protocol):
    """A folder within a file, such as an archive. Also a Path for what list_directory and all_files need of one."""

    def entries(self) -> Iterator[tuple[str, bool]]:
        """The names in it, and whether each is a folder."""
        ...


def list_directory(directory: Path, left_out: list[Path] | None = None) -> tuple[list[Path], list[Path]]:
    """The folders and the files in a directory, each sorted; links are followed.

    Names that begin with a dot and BY_PRODUCTS are left out, and added to `left_out`. Raises UserError if the directory
    cannot be read.
    """
    try:
        if isinstance(directory, Folder):
            found = sorted(directory.entries())
        else:
            with os.scandir(directory) as entries:
                found = sorted((entry.name, entry.is_dir()) for entry in entries)
    except OSError as error:
        raise UserError(f"{directory} cannot be read ({error.strerror}); repair or remove it") from None
    parts: dict[bool, list[Path]] = {True: [], False: []}
    for name, is_folder in found:
        if name.startswith(".") or (is_folder and name.lower() in BY_PRODUCTS):
            if left_out is not None:
                left_out.append(directory / name)
        else:
            parts[is_folder].append(directory / name)
    return parts[True], parts[False]


def all_files(directory: Path, parents: tuple[str, ...] = (), *, left_out: list[Path] | None = None) -> list[Path]:
    """All files in a directory and its subfolders, sorted. `parents` are the real paths of the folders above it.

    `left_out` is that of list_directory. Raises UserError if a folder cannot be read, is a link to one of its parents,
    or has more than MOST_LEVELS of them.
    """
    real = os.path.realpath(str(directory))
    if real in parents:
        raise UserError(f"{directory} is a link to a folder that contains it; remove the link")
    if len(parents) > MOST_LEVELS:
        raise UserError(f"{directory} has more than {MOST_LEVELS} folders above it; move or remove it")
    folders, files = list_directory(directory, left_out)
    below = (path for folder in folders for path in all_files(folder, (*parents, real), left_out=left_out))
    return sorted([*files, *below])


@contextlib.contextmanager
def os_errors_as_user_errors() -> Iterator[None]:
    """Raises UserError instead of OSError, such as a file without permission or a full disk. Also a decorator."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error
