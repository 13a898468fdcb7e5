"""Files: written and replaced atomically, read only where they are regular files; system errors for the user."""

import contextlib
import errno
import fcntl
import glob
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from errors import UserError

MOST_BYTES = 2**31  # four times the largest picture that is taken: 64 million pixels of 16 bits and four channels


def fsync(path: "str | Path") -> None:
    """Waits until a file, or the names in a directory, have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_write(path: "str | Path") -> Iterator[Path]:
    """Yields the path to write to; the file takes the place of `path` when the block ends without an error."""
    path = Path(path)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")  # writers go by the ending
    try:
        yield partial
        fsync(partial)  # else, after a power cut, the name may stand for an empty file
        partial.replace(path)
        fsync(path.parent)
    finally:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            partial.unlink(missing_ok=True)


def check_output(flag: str, path: str, *endings: str) -> None:
    """Raises UserError where `output_file` could not write, before the work that makes the file is done.

    flag is the option that named it, endings are those it may have, such as '.png'.
    """
    directory, name = os.path.split(os.path.abspath(path))
    if not name.endswith(endings) or not os.path.isdir(directory) or os.path.isdir(path):
        raise UserError(f"{flag} {path} must be a {' or '.join(endings)} in a directory that is there")
    try:
        tempfile.NamedTemporaryFile(dir=directory, prefix=f".{name}.partial").close()
    except OSError as error:
        raise UserError(f"{flag} {path} cannot be written ({error.strerror})") from None


@contextlib.contextmanager
def output_file(flag: str, path: str) -> Iterator[Path]:
    """As atomic_write, for a file that an option named. Raises UserError where the system fails."""
    try:
        with atomic_write(path) as partial:
            yield partial
    except OSError as error:
        raise UserError(f"{flag} {path} cannot be written ({error.strerror or error})") from None


@contextlib.contextmanager
def _held(directory: Path) -> Iterator[None]:
    """Holds a directory until the block ends or the process does. Raises OSError where another process holds it."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_directory(path: "str | Path") -> Iterator[Path]:
    """Yields a directory to fill; it takes the place of `path` when the block ends without an error.

    Raises UserError where `path` holds files already, or cannot be made.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise UserError(f"{path} exists and is not empty; remove it or choose another directory")
        target.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{target.name}.partial-"
        for left in target.parent.glob(f"{glob.escape(prefix)}*"):  # by a process that was killed
            with contextlib.suppress(OSError), _held(left):
                shutil.rmtree(left)
        partial = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    except OSError as error:
        raise UserError(f"{path} cannot be made ({error})") from None
    try:
        with _held(partial):
            yield partial
        partial.chmod(0o755)  # mkdtemp makes it private
        try:
            partial.replace(target)
        except OSError as error:  # a mount point, or the working directory
            raise UserError(
                f"{path} cannot be replaced ({error.strerror}); choose a directory that is not there"
            ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def open_regular(path: "str | Path", buffering: int = -1) -> BinaryIO:
    """Opens a file to read its bytes. Raises OSError, too, for what is no regular file: a FIFO would wait for ever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "no regular file", os.fspath(path))
    return open(path, "rb", buffering)


def read_regular(path: "str | Path") -> bytes:
    """The content of a file, opened as above. Raises OSError, too, for what memory may not hold."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > MOST_BYTES:
            raise OSError(errno.EFBIG, "larger than 2 GiB", os.fspath(path))
        return file.read()


@contextlib.contextmanager
def os_errors_as_user_errors() -> Iterator[None]:
    """Raises UserError for OSError: a file that may not be read, a disk that is full. Of use as a decorator, too."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error
