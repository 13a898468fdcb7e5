"""The files in zip and tar archives: where each lies, so that any process reads it without the archive's own index.

Nothing is unpacked to a path that an archive names. What only a hostile or damaged archive holds is an error.
"""

import errno
import io
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from errors import UserError
from files import MOST_BYTES, MOST_LEVELS, open_regular
from pipeline.decoders import ImageError

# An archive may unpack to 1 GiB, or to so many times its size: pictures are packed already, drawings as BMP hold less.
MOST_UNPACKED, MOST_RATIO = 2**30, 200
MOST_PATH = 4096  # bytes of the path of a file, as on Linux
MOST_HEADER = 2**20  # bytes that tarfile may read at once: long names, and the attributes of pax
UNPACK = "unpack it, and give the directory"
_OTHER_KINDS = {stat.S_IFLNK: "symbolic link", stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket"}
_OTHER_KINDS |= {stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
_OTHER_TYPES = {tarfile.SYMTYPE: "symbolic link", tarfile.LNKTYPE: "hard link", tarfile.FIFOTYPE: "FIFO"}
_OTHER_TYPES |= {tarfile.CHRTYPE: "device", tarfile.BLKTYPE: "device", tarfile.GNUTYPE_SPARSE: "sparse file"}
_METHODS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "XZ", 99: "AES encryption"}


class TarMember(NamedTuple):
    """A file in a tar archive that is not compressed."""

    archive: str
    offset: int
    size: int

    def read(self) -> bytes:
        """The content. Raises OSError or ImageError."""
        with open_regular(self.archive, buffering=0) as file:
            return _part(file, self.offset, self.size)


class ZipMember(NamedTuple):
    """A file in a zip archive, stored or deflated."""

    archive: str
    offset: int  # of its header
    size: int
    packed_size: int
    method: int
    crc: int

    def read(self) -> bytes:
        """The content, which is no longer than the archive says. Raises OSError or ImageError."""
        with open_regular(self.archive, buffering=0) as file:
            signature, name, extra = struct.unpack("<4s22xHH", _part(file, self.offset, 30))
            if signature != b"PK\3\4":
                raise ImageError("damaged: it is not where the zip archive says")
            data = _part(file, self.offset + 30 + name + extra, self.packed_size)
        if self.method == zipfile.ZIP_DEFLATED:
            _check_size(self.size, self.archive)
            try:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, self.size + 1)
            except zlib.error as error:
                raise ImageError(f"damaged: {error}") from None
        if len(data) != self.size or zlib.crc32(data) != self.crc:
            raise ImageError("damaged: it differs from its checksum in the zip archive")
        return data


Member = TarMember | ZipMember


def _part(file: BinaryIO, offset: int, size: int) -> bytes:
    _check_size(size, file.name)
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise ImageError("damaged: the archive is cut short")
    return data


def _check_size(size: int, archive: str) -> None:
    if size > MOST_BYTES:
        raise OSError(errno.EFBIG, "larger than 2 GiB", archive)


def most_unpacked(packed: int) -> int:
    """The bytes that an archive of `packed` bytes may unpack to."""
    return max(MOST_UNPACKED, MOST_RATIO * packed)


def read_index(path: Path, title: object, is_zip: bool) -> tuple[dict[str, Member], list[str]]:
    """The files of an archive, in its order, and its folders, by their paths in it, such as 'cat/1.jpg'.

    Errors name the archive by `title`. Raises UserError for one that is damaged or truncated, and for members that are
    no plain files: links, devices, sparse files, encrypted ones; paths that lead out of the archive, and paths twice.
    """
    files: dict[str, Member] = {}
    folders: dict[str, None] = {}
    try:
        for name, member in (_walk_zip if is_zip else _walk_tar)(path, title):
            place = _checked(name, title)
            if member is None:
                folders[place] = None
            elif place in files or place == ".":
                raise UserError(f"{title} holds {place} twice; {UNPACK}")
            else:
                files[place] = member
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        ValueError,
        NotImplementedError,
        OverflowError,
        struct.error,
    ) as error:
        raise UserError(f"{title} is damaged or truncated ({error}); fetch or pack it again") from None
    parents = {str(parent) for place in files for parent in PurePosixPath(place).parents}
    if both := sorted(files.keys() & parents.union(folders)):
        raise UserError(f"{title} holds {both[0]} as a file and as a folder; pack it again")
    if not files:
        raise UserError(f"{title} holds no files")
    return files, list(folders)


def _checked(name: str, title: object) -> str:
    """A path as it is compared, without ./ and double slashes. Raises UserError for one that leads out or too deep."""
    size, levels = len(name.encode(errors="surrogatepass")), name.count("/")
    if size > MOST_PATH or levels > MOST_LEVELS:
        path = f"{name[:50]!r}…, a path of {size:,} bytes in {levels:,} folders"
        raise UserError(f"{title} holds {path}; allowed are {MOST_PATH:,} and {MOST_LEVELS}: pack it again")
    if name.startswith("/") or ".." in name.split("/") or "\0" in name or re.match(r"[A-Za-z]:[/\\]", name):
        raise UserError(
            f"{title} holds {name!r}, a path outside of the archive, as in an attack; pack the pictures' folder again"
        )
    return str(PurePosixPath(name))


# Tar


class _HeaderFile(io.FileIO):
    """A tar archive, of which tarfile reads only headers: hostile ones ask for gigabytes, or for less than 0."""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MOST_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return super().read(size)


def is_tar(start: bytes) -> bool:
    """Whether a file that begins with 512 bytes is a tar archive; zeros are one without files."""
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return len(start) == tarfile.BLOCKSIZE and not any(start)
    return True


def _walk_tar(path: Path, title: object) -> Iterator[tuple[str, TarMember | None]]:
    """The path of each member, and where it lies; None for a folder."""
    with _HeaderFile(path) as file:
        if any(file.read(tarfile.BLOCKSIZE)):
            file.seek(0)
            tar = tarfile.TarFile(fileobj=file, encoding="utf-8", errors="surrogateescape")
            while info := tar.next():
                tar.members.clear()  # it keeps all, which are gigabytes for millions
                if info.size < 0:
                    raise tarfile.ReadError(f"{info.name} has {info.size} bytes")
                if not (info.isreg() or info.isdir()) or info.issparse():
                    of_type = tarfile.GNUTYPE_SPARSE if info.issparse() else info.type  # pax's sparse files are regular
                    kind = _OTHER_TYPES.get(of_type, "special file")
                    raise UserError(f"{title} holds {info.name} as a {kind}; {UNPACK}")
                yield info.name, None if info.isdir() else TarMember(str(path), info.offset_data, info.size)
            file.seek(tar.offset)
        else:
            file.seek(0)
        _check_end(file, title)


def _check_end(file: BinaryIO, title: object) -> None:
    """Raises UserError where the end mark, a block of zeros, is not next, or is followed by more than zeros.

    tarfile takes a damaged header, and a file that is cut short after a member, for the end.
    """
    place, block = file.tell(), file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise UserError(f"{title} is truncated: it has no end mark; fetch or pack it again")
    if any(block):
        raise UserError(f"{title} is damaged at byte {place:,}, where a file begins; fetch or pack it again")
    while block := file.read(MOST_HEADER):
        if block.strip(b"\0"):
            again = "tar --concatenate joins archives, cat does not"
            raise UserError(f"{title} goes on after its end mark, where programs stop to read; {again}: pack it again")


# Zip


def _walk_zip(path: Path, title: object) -> Iterator[tuple[str, ZipMember | None]]:
    """The path of each member, and where it lies; None for a folder."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            found, end = archive.infolist(), archive.start_dir
    except UnicodeDecodeError as error:
        raise UserError(f"{title} holds {error.object!r}, a name that is not in UTF-8; {UNPACK}") from None
    _check_sizes(found, end, path.stat().st_size, title)
    for info in found:
        name = _zip_name(info, title)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.flag_bits & 0x1:
            raise UserError(f"{title} holds {name} encrypted; {UNPACK}")
        if kind in _OTHER_KINDS:
            raise UserError(f"{title} holds {name} as a {_OTHER_KINDS[kind]}; {UNPACK}")
        if name.endswith("/"):
            yield name, None
            continue
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            method = _METHODS.get(info.compress_type, f"method {info.compress_type}")
            raise UserError(f"{title} holds {name}, packed by {method}; only Store and Deflate are read: {UNPACK}")
        place = info.header_offset, info.file_size, info.compress_size
        yield name, ZipMember(str(path), *place, info.compress_type, info.CRC)


def _zip_name(info: zipfile.ZipInfo, title: object) -> str:
    """The path of a member. zipfile reads names without the flag of UTF-8 as cp437, but macOS writes UTF-8 there."""
    name = info.orig_filename
    if not info.flag_bits & 0x800 and not name.isascii():
        try:
            name = name.encode("cp437").decode()
        except UnicodeError:
            raise UserError(f"{title} holds {name!r}, a name that is not in UTF-8; {UNPACK}") from None
    # Old programs of Windows write \ for /; elsewhere it is part of a name.
    return name.replace("\\", "/") if info.create_system == 0 and "/" not in name else name


def _check_sizes(found: list[zipfile.ZipInfo], end: int, packed: int, title: object) -> None:
    """Raises UserError where members overlap, are not the first bytes, or unpack to more than `packed` bytes should."""
    limits = sorted((info.header_offset, info.header_offset + 30 + info.compress_size) for info in found)
    for (_, stop), (start, _) in pairwise([*limits, (end, end)]):
        if stop > start:
            raise UserError(
                f"{title} holds files that overlap, as a zip bomb does, or is damaged; fetch or pack it again"
            )
    if limits and limits[0][0] > 0:
        joined = "files before those of its list, as where two archives were joined"
        raise UserError(f"{title} holds {joined}; unpack both, and give the directory")
    if (size := sum(info.file_size for info in found)) > most_unpacked(packed):
        raise too_large(title, size, packed)


def too_large(title: object, size: int, packed: int) -> UserError:
    """The error for an archive of `packed` bytes that unpacks to `size` bytes or more."""
    return UserError(
        f"{title} has {packed:,} bytes and unpacks to {size:,} or more, as a zip bomb does; if that is right, {UNPACK}"
    )
