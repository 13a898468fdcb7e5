"""Files of data sets: on this machine, or in a remote place such as gs://bucket/shards, which is only read.

Remote is any name with a scheme, SCHEME://, that TensorFlow's file systems read (tf.io.gfile), in the graph as here.
Local files are opened as ever.
"""

import contextlib
import errno
import io
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from glob import escape, glob
from pathlib import Path
from typing import BinaryIO

from errors import UserError
from files import MOST_BYTES, is_remote, list_directory, open_regular, read_regular
from tfcompat import tf

BUFFER_BYTES = 2**16
REQUESTS = 32  # at a time: a set of a thousand shards is a thousand requests
# ram:// states no times of changes, and its files last as long as the process. So does an index of them.
STARTED = time.time_ns()


def open_file(path: "str | Path", buffering: int = -1) -> BinaryIO:
    """Opens a regular file to read its bytes. Raises OSError where it is missing or none, as open_regular.

    Raises UserError for a remote place that cannot be reached, or whose scheme TensorFlow does not know.
    """
    if not is_remote(path):
        return open_regular(path, buffering)
    return io.BufferedReader(_RemoteFile(os.fspath(path)), max(buffering, BUFFER_BYTES))


def read(path: "str | Path") -> bytes:
    """The content of a regular file. Raises the errors of open_file, and OSError for one larger than MOST_BYTES."""
    if not is_remote(path):
        return read_regular(path)
    if stamp(path)[0] > MOST_BYTES:
        raise OSError(errno.EFBIG, "larger than 2 GiB", os.fspath(path))
    with open_file(path) as file:
        return file.read()


def exists(path: "str | Path") -> bool:
    """Whether there is such a file or directory. Raises UserError where a remote place cannot be reached."""
    if not is_remote(path):
        return os.path.exists(path)
    with _reported(path):
        return tf.io.gfile.exists(path)


def stamp(path: "str | Path") -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds, which change with the content. Raises OSError."""
    if not is_remote(path):
        status = os.stat(path)
        return status.st_size, status.st_mtime_ns
    with _reported(path):
        status = tf.io.gfile.stat(path)
        return status.length, status.mtime_nsec or STARTED


def stamps(paths: Sequence[str]) -> list[tuple[int, int]]:
    """The stamp of each file; of remote ones many at a time. Raises OSError for the first that is missing."""
    if not any(map(is_remote, paths)):
        return list(map(stamp, paths))
    with ThreadPoolExecutor(REQUESTS) as threads:
        return list(threads.map(stamp, paths))


def list_files(directory: str) -> list[str]:
    """Names of the files in a directory, sorted, without hidden ones. Raises UserError where it cannot be read."""
    if not is_remote(directory):
        return [path.name for path in list_directory(Path(directory))[1]]
    try:
        with _reported(directory):
            tf.io.gfile.stat(directory)  # listdir says of all errors that there is no such directory
            found = tf.io.gfile.listdir(directory)
    except FileNotFoundError:
        raise UserError(f"{directory} is missing") from None
    return sorted(name for name in found if name and not name.startswith(".") and not name.endswith("/"))


def empty_files(directory: str, names: Sequence[str]) -> set[str]:
    """Those of the files whose size is 0; a local FIFO is none of them."""
    paths = [os.path.join(directory, name) for name in names]
    sizes = (size for size, _ in stamps(paths))
    return {
        name
        for name, path, size in zip(names, paths, sizes, strict=True)
        if not size and (is_remote(path) or os.path.isfile(path))
    }


def find(directory: str, pattern: str) -> list[str]:
    """Paths below a directory that match a pattern with *, sorted."""
    if not is_remote(directory):
        return sorted(glob(os.path.join(escape(directory), pattern)))
    try:
        with _reported(directory):
            return sorted(tf.io.gfile.glob(os.path.join(directory, pattern)))
    except FileNotFoundError:  # there is not even such a bucket
        return []


class _RemoteFile(io.RawIOBase):
    """A remote file, for io.BufferedReader. It knows its size and place, since GFile makes a request for each seek."""

    def __init__(self, path: str):
        self.path, self.place = path, 0
        with _reported(path):
            status = tf.io.gfile.stat(path)
            if status.is_directory:
                raise OSError(errno.EINVAL, "no regular file", path)
            self.size, self.file = status.length, tf.io.gfile.GFile(path, "rb")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.size}[whence]
        return self.place

    def readinto(self, buffer: memoryview) -> int:
        if self.place >= self.size:
            return 0
        with _reported(self.path):
            if self.file.tell() != self.place:
                self.file.seek(self.place)
            found = self.file.read(len(buffer))
        buffer[: len(found)] = found
        self.place += len(found)
        return len(found)

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()


@contextlib.contextmanager
def _reported(path: "str | Path") -> Iterator[None]:
    """Raises FileNotFoundError for a remote file that is missing, UserError for all other errors of TensorFlow's."""
    try:
        yield
    except tf.errors.NotFoundError:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path)) from None
    except tf.errors.UnimplementedError:
        known = ", ".join(f"{scheme}://" for scheme in tf.io.gfile.get_registered_schemes() if scheme)
        raise UserError(
            f"{path} cannot be read: this TensorFlow reads {known}; copy the shards to a local disk, and name that"
        ) from None
    except tf.errors.OpError as error:
        reason = " ".join(error.message.split())[:200]
        raise UserError(f"{path} cannot be read ({reason}); correct the name, the network or the permission") from None
