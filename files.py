"""Files and directories that are there whole or not at all, however a program ends."""

import contextlib
import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from errors import UserError


def fsync(path: "str | Path") -> None:
    """Waits until a file, or the names in a directory, have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def whole_file(path: "str | Path") -> Iterator[Path]:
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
    """As whole_file, for a file that an option named. Raises UserError where the system fails."""
    try:
        with whole_file(path) as partial:
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
def whole_directory(path: "str | Path") -> Iterator[Path]:
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
