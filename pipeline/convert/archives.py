"""Zip and tar archives as folders: a Place in one is taken by files.list_directory and the sources as a Path is."""

import bz2
import contextlib
import gzip
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from errors import UserError
from files import open_regular
from pipeline.convert import members
from pipeline.convert.members import Member

READ = ".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"
ENDINGS = {*(".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz", ".tbz2", ".xz", ".txz", ".zst", ".rar", ".7z")}
BLOCK = 2**20
_STREAMS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_OTHERS = {b"Rar!": "a RAR archive", b"7z\xbc\xaf": "a 7z archive", b"\x28\xb5\x2f\xfd": "compressed by Zstandard"}
_OTHERS |= {
    b"\x1f\x9d": "compressed by compress",
    b"\x04\x22\x4d\x18": "compressed by LZ4",
    b"LZIP": "compressed by lzip",
}


@dataclass(frozen=True)
class Archive:
    """What an archive holds."""

    path: Path  # as the user gave it
    files: dict[str, Member]
    folders: dict[str, dict[str, bool]]  # of the path of each: the names in it, and whether each is a folder

    @classmethod
    def of(cls, path: Path, files: dict[str, Member], empty: list[str]) -> "Archive":
        """`files` and `empty`, folders that may have no files, are those of members.read_index."""
        folders: dict[str, dict[str, bool]] = {".": {}, **{place: {} for place in empty}}
        for place in [*files, *empty]:
            is_folder = place not in files
            while place != ".":
                parent, _, name = place.rpartition("/")
                known = folders.setdefault(parent or ".", {})
                if name in known:
                    break
                known[name] = is_folder
                place, is_folder = parent or ".", True
        return cls(path, files, folders)


@dataclass(frozen=True, order=True)
class Place:
    """A file or folder in an archive. Places sort as the paths of unpacked files do."""

    inner: PurePosixPath  # '.' for the archive itself
    archive: Archive = field(compare=False, repr=False)

    name = property(lambda self: self.inner.name)
    suffix = property(lambda self: self.inner.suffix)
    parent = property(lambda self: Place(self.inner.parent, self.archive))
    member = property(lambda self: self.archive.files[str(self.inner)], doc="Where the file lies.")

    def __truediv__(self, name: str) -> "Place":
        return Place(self.inner / name, self.archive)

    def __str__(self) -> str:
        return str(self.archive.path / self.inner)

    def relative_to(self, folder: "Place") -> PurePosixPath:
        """The path from a folder above it."""
        return self.inner.relative_to(folder.inner)

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return str(self.inner) in self.archive.folders

    def entries(self) -> Iterator[tuple[str, bool]]:
        """The names in a folder, and whether each is a folder."""
        return iter(self.archive.folders[str(self.inner)].items())


@contextlib.contextmanager
def opened(path: Path, scratch: Path) -> Iterator[Place]:
    """An archive as a folder. One that is compressed as a whole is decompressed into the directory `scratch` meanwhile.

    Raises UserError for a file that is no archive, or one that members.read_index refuses.
    """
    with open_regular(path) as file:
        start = file.read(tarfile.BLOCKSIZE)
    plain = scratch / ".archive.tar"
    try:
        if start.startswith((b"PK\3\4", b"PK\5\6")):
            found = members.read_index(path, path, is_zip=True)
        elif members.is_tar(start):
            found = members.read_index(path, path, is_zip=False)
        elif stream := next((_STREAMS[magic] for magic in _STREAMS if start.startswith(magic)), None):
            _decompress(path, stream, plain)
            found = members.read_index(plain, path, is_zip=False)
        else:
            kind = next((_OTHERS[magic] for magic in _OTHERS if start.startswith(magic)), "no archive")
            advice = "name one, or a directory" if kind == "no archive" else members.UNPACK
            raise UserError(f"--source {path} is {kind}; read are {', '.join(READ)}: {advice}")
        yield Place(PurePosixPath(), Archive.of(path, *found))
    finally:
        plain.unlink(missing_ok=True)


def _decompress(path: Path, stream: object, plain: Path) -> None:
    """Decompresses a tar archive: its pictures are read by their place, several times and by several processes."""
    packed, size = path.stat().st_size, 0
    try:
        bar = tqdm(total=packed, desc=f"decompressing {path.name}", unit="B", unit_scale=True, disable=None)
        with bar, open_regular(path) as raw, stream(raw) as file, open(plain, "wb") as out:
            while block := file.read(BLOCK):
                if size == 0 and not members.is_tar(block[: tarfile.BLOCKSIZE]):
                    raise UserError(f"--source {path} is a compressed file, but no tar archive; decompress it")
                size += len(block)
                if size > members.most_unpacked(packed):
                    raise members.too_large(path, size, packed)
                out.write(block)
                bar.update(raw.tell() - bar.n)
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{path} is damaged or truncated ({error}); fetch or pack it again") from None
    except MemoryError:  # the header of an .xz names the memory that it needs, up to 4 GiB
        raise UserError(f"{path} needs more memory to be decompressed than there is; {members.UNPACK}") from None
    except OSError as error:
        if error.errno is None:  # what bz2 raises, and a full disk does not
            raise UserError(f"{path} is damaged ({error}); fetch or pack it again") from None
        raise


def inside(files: list) -> str:
    """A hint for an error, where there are archives among files that hold no pictures by themselves; else ''."""
    found = sorted(path for path in files if os.path.splitext(path.name)[1].lower() in ENDINGS)
    if not found:
        return ""
    names = f"{', '.join(str(path) for path in found[:3])}{', …' if found[3:] else ''}"
    if isinstance(found[0], Place):
        return f"; it holds the archive{'s' if found[1:] else ''} {names}, which must be unpacked first"
    one = f"name it with --source {found[0]}" if len(found) == 1 else "name one of them with --source, or unpack them"
    return f"; it holds the archive{'s' if found[1:] else ''} {names}: {one}"
