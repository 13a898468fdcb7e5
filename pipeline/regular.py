"""The user's files, read only where they are files."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_regular(path: "str | Path", buffering: int = -1) -> BinaryIO:
    """Opens a file to read its bytes. Raises OSError, too, for what is no regular file: a FIFO would wait for ever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "no regular file", os.fspath(path))
    return open(path, "rb", buffering)


def read_regular(path: "str | Path") -> bytes:
    """The content of a file, opened as above."""
    with open_regular(path) as file:
        return file.read()
