"""Parquet files as Hugging Face's datasets writes them: a struct of the bytes of a picture, and its label."""

import functools
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from errors import UserError
from files import open_regular
from pipeline.convert import members
from pipeline.convert.sources import Example, Source
from pipeline.convert.sources.shards import find_shards, label_numbers
from pipeline.decoders import ImageError

BATCH, BATCH_BYTES = 64, 2**26  # the most pictures of a file, and of their bytes, that are in memory
LABELS = "label", "labels", "fine_label"  # in this order; CIFAR-100 has fine_label and coarse_label


class Cell(NamedTuple):
    """A picture in a Parquet file."""

    path: str
    column: str
    group: int
    row: int  # in its row group
    size: int
    digest: bytes  # of the content: reading them in another order than that of the file is slow

    def read(self) -> bytes:
        """The content of the picture file. Raises OSError, ImageError, or UserError, if the file has changed."""
        rows = _rows(self.path, self.column, self.group)
        if self.row < rows.start:
            _rows.cache_clear()
            rows = _rows(self.path, self.column, self.group)
        data = rows.get(self.row)
        if data is None or len(data) != self.size:
            raise ImageError("damaged: the Parquet file has changed")
        return data


class _Rows:
    """The pictures of a row group, read forwards, a page at a time: a group may be larger than the memory."""

    def __init__(self, path: str, column: str, group: int):
        self.path, self.start, self.values = path, 0, []
        self.batches = _batches(_open(Path(path)), group, [f"{column}.bytes"])

    def get(self, row: int) -> bytes | None:
        """The bytes in a row that is not before `start`; None beyond the end. Raises UserError for a damaged file."""
        with _errors_of(self.path):
            while row >= self.start + len(self.values):
                self.start += len(self.values)
                if not (batch := next(self.batches, None)):
                    return None
                self.values = _bytes(batch.column(0))
        return self.values[row - self.start].as_py()


_rows = functools.lru_cache(maxsize=1)(_Rows)  # one a process, which gets pictures in the order of the file


class _Format(NamedTuple):
    """What the files of a data set have in common."""

    columns: list[str]  # with types
    image: str
    label: str
    class_names: list[str] | None


def parquet(source: Path | None, cache: Path) -> Source:
    """Parquet files of Hugging Face with the columns image and label; needs pyarrow.
    Splits are found by the names of the files or their folders. Class names are in the metadata that datasets writes;
    otherwise they are the labels. Where all labels of a split but train are missing (-1), the split is left out."""
    if source is None:
        raise UserError("the parquet source needs --source DIR with .parquet files, or one such file")
    _pyarrow()
    shards = find_shards(source, ".parquet")
    root = source.parent if source.is_file() else source
    form, first, found = None, None, {}
    for split, paths in shards.items():
        found[split] = []
        for path in paths:
            with _errors_of(path):
                file = _open(path)
                this = _format(path, file.schema_arrow)
                form, first = form or this, first or path
                if this != form:
                    raise UserError(f"{path} and {first} have other columns or class names; keep files of one data set")
                found[split] += _read(path, root, file, form)
    ignored = {}
    for split in [split for split in found if split != "train"]:
        if found[split] and all(label in (None, -1) for _, label, _ in found[split]):
            ignored[f"pictures of {split} without labels"] = len(found.pop(split))
    _check_labels(found, form, source)
    labels = {split: [label for _, label, _ in rows] for split, rows in found.items()}
    names, numbers = label_numbers(labels, form.class_names, source)
    splits = {
        split: [Example(name, numbers[label], cell) for name, label, cell in rows] for split, rows in found.items()
    }
    return Source(names, 3, splits, ignored)


def _check_labels(found: dict[str, list], form: _Format, source: Path) -> None:
    if not found:
        raise UserError(f"{source} has no labels in the column {form.label}: all are -1 or null")
    for split, rows in found.items():
        if not rows:
            raise UserError(f"{source} has no rows in the {split} split; remove its files")
        lacking = [name for name, label, _ in rows if label in (None, -1)]
        if lacking:
            count = f"{len(lacking):,} of {len(rows):,} pictures of {split}"
            raise UserError(f"{source}: {count} have no label (-1 or null), the first is {lacking[0]}; leave them out")


def _pyarrow() -> object:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        install = "pip install -r requirements-parquet.txt"
        raise UserError(f"the parquet source needs pyarrow, which cannot be loaded ({error}): {install}") from None
    return pyarrow


@contextmanager
def _errors_of(path: object) -> Iterator[None]:
    """Raises what pyarrow finds as errors of the converter."""
    try:
        yield
    except (_pyarrow().ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # of the system; pyarrow's have none
            raise
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is no complete Parquet file ({reason[:300]}); fetch it again") from None


def _open(path: Path) -> object:
    """The opened file, of which a little is buffered. Raises UserError or ArrowException."""
    file = _pyarrow().parquet.ParquetFile(open_regular(path), buffer_size=2**20, pre_buffer=False)
    groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
    size, packed = sum(group.total_byte_size for group in groups), os.path.getsize(path)
    if size > members.most_unpacked(packed):
        raise members.too_large(path, size, packed)
    return file


def _batches(file: object, group: int, columns: list[str]) -> Iterator:
    """The rows of a group, so many at once that they fit also if each is as large as the group: one value of a
    dictionary may be that of all rows."""
    size = max(1, file.metadata.row_group(group).total_byte_size)
    return file.iter_batches(
        max(1, min(BATCH, BATCH_BYTES // size)), row_groups=[group], columns=columns, use_threads=False
    )


def _bytes(column: object) -> object:
    """The bytes of a column of pictures, null where there is no picture."""
    import pyarrow.compute

    return pyarrow.compute.struct_field(column, "bytes")


def _format(path: Path, schema: object) -> _Format:
    """The columns of a file. Raises UserError where those of a picture and its label are not there, or not clear."""
    types = _pyarrow().types
    known = [f"{field.name} ({field.type})" for field in schema]
    images = [f.name for f in schema if types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0]
    if "image" in schema.names and "image" not in images:
        needed = "a struct of bytes and path, as cast_column of datasets makes it of binary"
        raise UserError(f"{path}: the column image is {schema.field('image').type}; it must be {needed}")
    if len(images) != 1 and "image" not in images:
        found = f"several: {', '.join(images)}" if images else "none"
        needed = "it must have one column of pictures, or one called image: a struct of bytes and path"
        raise UserError(f"{path} has the columns {', '.join(known)}; {needed}; found: {found}")
    image = "image" if "image" in images else images[0]
    content = schema.field(image).type.field("bytes").type
    if not (types.is_binary(content) or types.is_large_binary(content)):
        raise UserError(f"{path}: the bytes in the column {image} are {content}; they must be binary")
    features = _features(path, schema)
    classes = {name: f for name, f in features.items() if isinstance(f, dict) and f.get("_type") == "ClassLabel"}
    candidates = [field.name for field in schema if field.name in classes]
    candidates = candidates or [f.name for f in schema if types.is_integer(f.type) or types.is_string(f.type)]
    label = next((name for name in LABELS if name in schema.names), candidates[0] if len(candidates) == 1 else None)
    if label is None:
        needed = "it must have one of labels, or one that is called label"
        raise UserError(f"{path} has the columns {', '.join(known)}; {needed}: rename it with rename_column")
    kind = schema.field(label).type
    if not (types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)):
        raise UserError(f"{path}: the column {label} is {kind}; it must have a number or a class name for each picture")
    return _Format(known, image, label, classes.get(label, {}).get("names"))


def _features(path: Path, schema: object) -> dict:
    """The descriptions of the columns that datasets writes; empty for files of other programs."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        for feature in features.values():
            names = feature.get("names") if isinstance(feature, dict) else None
            if names is not None and (not all(isinstance(n, str) for n in names) or len(set(names)) < len(names)):
                raise ValueError(f"the class names {names}")
        return features
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path} has damaged metadata of Hugging Face ({str(error)[:200]})") from None


def _read(path: Path, root: Path, file: object, form: _Format) -> list[tuple[str, int | str | None, Cell]]:
    """The name, label and picture of each row. All pictures are read once: their bytes are compared later."""
    rows, place, total, packed = [], path.relative_to(root), 0, os.path.getsize(path)
    kind = file.schema_arrow.field(form.image).type
    columns = [f"{form.image}.{name}" for name in ("bytes", "path") if kind.get_field_index(name) >= 0]
    for group in range(file.num_row_groups):
        row = 0
        for batch in _batches(file, group, [*columns, form.label]):
            pictures, labels = batch.column(form.image).to_pylist(), batch.column(form.label).to_pylist()
            for picture, label in zip(pictures, labels, strict=True):
                name = f"{place}/{len(rows)}"
                if picture is None or picture["bytes"] is None:
                    only = f"only the path {picture['path']!r}" if picture and picture.get("path") else "null"
                    advice = "write the files with the bytes of the pictures in them, as push_to_hub does"
                    raise UserError(f"{name} holds {only} in the column {form.image}; {advice}")
                if picture.get("path"):
                    name += f"-{os.path.basename(picture['path'])}"
                if (total := total + len(picture["bytes"])) > members.most_unpacked(packed):
                    raise members.too_large(path, total, packed)
                digest = hashlib.blake2b(picture["bytes"], digest_size=16).digest()
                rows.append((name, label, Cell(str(path), form.image, group, row, len(picture["bytes"]), digest)))
                row += 1
    return rows
