"""CSV files, with paths and labels or with labels and pixels."""

import csv as csv_module
import math
import os
import re
from pathlib import Path, PureWindowsPath

import numpy as np

from errors import UserError
from pipeline.convert.sources import Example, Source, array_examples
from pipeline.table_files import Table, column_names, find_picture, open_table
from pipeline.tfrecord import SPLIT_NAMES


def csv(source: Path | None, cache: Path) -> Source:
    """A table with the header path,label[,split] or label,pixel0,pixel1,… (Kaggle's digits).
    Paths are relative to the directory of the file; split is train, validation or test. Rows of pixels are square grey
    pictures. If the table has no splits, or no validation, a tenth of each class is split off train."""
    if source is None or not source.is_file():
        raise UserError("the csv source needs --source FILE.csv with the columns path,label[,split] or label,pixel0,…")
    try:
        table = open_table(source)
        with table.text() as file:
            header = column_names(next(table.rows(file), []))
        if len(set(header)) != len(header):
            raise UserError(f"{source} has two columns of one name: {','.join(header)[:80]}")
        if {"path", "label"} <= set(header):
            return _paths(table, header)
        pixels = [name for name in header if name.startswith("pixel")]
        if "label" in header and pixels and len(pixels) == len(header) - 1:
            return _pixels(table, header)
    except UnicodeDecodeError as error:
        raise UserError(f"{source} is no text in UTF-8 ({error}); save it as CSV in UTF-8") from None
    except csv_module.Error as error:
        raise UserError(f"{source} is no CSV file ({error})") from None
    allowed = "path,label or path,label,split or label,pixel0,pixel1,…"
    raise UserError(f"{source} begins with {','.join(header)[:80]!r}; its first line must be {allowed}")


def class_names_of(labels: set[str]) -> list[str]:
    """The class names in label order: sorted as numbers if all are numbers, else as text."""
    numbers = all(name.isdecimal() and len(name) < 20 for name in labels)  # int() refuses thousands of digits
    return sorted(labels, key=lambda name: (int(name), name)) if numbers else sorted(labels)


def _paths(table: Table, header: list[str]) -> Source:
    source = table.path
    splits: dict[str, list[tuple[str, str, Path]]] = {}
    seen = set()
    with table.text() as file:
        reader = table.rows(file)
        next(reader)
        for row in filter(None, reader):
            place = f"{source}, line {reader.line_num},"
            if len(row) != len(header):
                raise UserError(f"{place} has {len(row)} fields; the header has {len(header)}")
            fields = dict(zip(header, (field.strip() for field in row), strict=True))
            split, name = _check_row(source.parent, place, fields)
            path = source.parent / name
            real = os.path.realpath(path)  # one picture under two names could get into two splits
            if real in seen:
                raise UserError(f"{place} names {fields['path']} for the second time; remove one of the lines")
            seen.add(real)
            splits.setdefault(split, []).append((name, fields["label"], path))
    if "train" not in splits:
        raise UserError(f"{source} names no training pictures")
    class_names = class_names_of({label for _, label, _ in splits["train"]})
    numbers = {name: i for i, name in enumerate(class_names)}
    unknown = {label for rows in splits.values() for _, label, _ in rows}.difference(class_names)
    if unknown:
        raise UserError(f"{source} has labels that no training picture has: {', '.join(sorted(unknown))}")
    examples = {}
    for split, rows in splits.items():
        examples[split] = [Example(name, numbers[label], path) for name, label, path in rows]
    return Source(class_names, 3, examples)


def _check_row(directory: Path, place: str, fields: dict[str, str]) -> tuple[str, str]:
    """The split and the path of a row, relative to `directory`.

    Raises UserError, naming the `place` of the row, if a field is invalid.
    """
    path = find_picture(directory, fields["path"])
    if path is None:
        advice = f"paths are relative to {directory}"
        if PureWindowsPath(fields["path"]).drive:
            advice = f"it is a path on a Windows drive; make it relative to {directory}"
        elif fields["path"][0:1] in ("'", '"'):
            advice += ", and quotes must be double quotes around the whole field"
        raise UserError(f"{place} names {fields['path'][:80]!r}, which is no file; {advice}")
    if not fields["label"]:
        raise UserError(f"{place} has no label")
    split = SPLIT_NAMES.get(fields.get("split", "train").lower())
    if split is None:
        raise UserError(f"{place} has the split {fields['split']!r}; known are train, validation and test")
    return split, path


def _pixels(table: Table, header: list[str]) -> Source:
    source = table.path
    side = math.isqrt(len(header) - 1)
    if side**2 != len(header) - 1:
        raise UserError(f"{source} has {len(header) - 1} pixels a row, which is no square grey picture")
    order = _pixel_columns(source, header)
    try:
        with table.text() as file:  # CSV has no comments: a row that begins with # is an error
            options = {"delimiter": table.delimiter, "quotechar": '"', "comments": None}
            values = np.loadtxt(file, np.int64, skiprows=1, ndmin=2, **options)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{source} is no table of whole numbers ({error})") from None
    if values.shape[1] != len(header) or not len(values):
        raise UserError(f"{source} has {len(values)} rows of {values.shape[1]} numbers; the header has {len(header)}")
    column = header.index("label")
    labels, pixels = values[:, column], values[:, order]
    if labels.min() < 0:
        raise UserError(f"{source} has the label {labels.min()}; labels must be 0 or more: number the classes from 0")
    if pixels.min() < 0 or pixels.max() > 255:
        raise UserError(f"{source} has pixels from {pixels.min()} to {pixels.max()}; they must be 0 to 255")
    classes, numbers = np.unique(labels, return_inverse=True)
    examples = array_examples("row", pixels.astype(np.uint8).reshape(-1, side, side), numbers)
    class_names = [str(value) for value in classes]
    return Source(class_names, 1, {"train": examples})


def _pixel_columns(source: Path, header: list[str]) -> list[int]:
    """The columns of the pixels in the order of their numbers: a table may hold them in another."""
    found = {i: re.fullmatch(r"pixel[ _-]?(\d{1,9})", name) for i, name in enumerate(header) if name != "label"}
    numbers = {int(match[1]): i for i, match in found.items() if match}
    columns = [i for _, i in sorted(numbers.items())]
    first = min(numbers, default=0)
    if len(columns) != len(found) or first not in (0, 1) or max(numbers) != first + len(columns) - 1:
        needed = f"pixel0 to pixel{len(found) - 1}, or pixel1 to pixel{len(found)}, each once"
        wrong = next((header[i] for i, match in found.items() if not match), f"{len(found)} columns of pixels")
        raise UserError(f"{source} has {wrong}; they must be called {needed}, row by row of the picture")
    return columns
