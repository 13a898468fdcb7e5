"""The user's files: read only where they are files, and what the system says of them told in one line."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from errors import UserError

MOST_BYTES = 2**31  # four times the largest picture that is taken: 64 million pixels of 16 bits and four channels


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
def system_errors_told() -> Iterator[None]:
    """Raises UserError for OSError: a file that may not be read, a disk that is full. Of use as a decorator, too."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error
