"""CSV files: of paths and labels, or of labels and pixels."""

import csv as csv_module
import io
import math
import os
from pathlib import Path
from typing import TextIO

import numpy as np

from errors import UserError
from files import open_regular
from pipeline.convert.sources.contract import SPLIT_NAMES, Example, Source, carved, numbered


def csv(source: Path | None, cache: Path) -> Source:
    """A CSV file with a header: path, label and, where you have them, split (train, validation, test); paths count from
    the file's directory. Or label, pixel0, pixel1, … with square pictures in grey, as Kaggle's digits. Without splits,
    or without validation, a tenth of each class is carved from train."""
    if source is None or not source.is_file():
        raise UserError("the csv source needs --source FILE.csv with the columns path,label[,split] or label,pixel0,…")
    try:
        with _opened(source) as file:
            header = [name.strip().lower() for name in next(csv_module.reader(file), [])]
        if len(set(header)) != len(header):
            raise UserError(f"{source} has two columns of one name: {','.join(header)[:80]}")
        if {"path", "label"} <= set(header):
            return _paths(source, header)
        pixels = [name for name in header if name.startswith("pixel")]
        if "label" in header and pixels and len(pixels) == len(header) - 1:
            return _pixels(source, header)
    except UnicodeDecodeError as error:
        raise UserError(f"{source} is no text in UTF-8 ({error})") from None
    except csv_module.Error as error:
        raise UserError(f"{source} is no CSV file ({error})") from None
    raise UserError(
        f"{source} begins with {','.join(header)[:80]!r}; its first line must be path,label or path,label,split or "
        "label,pixel0,pixel1,…"
    )


def _opened(source: Path) -> TextIO:
    return io.TextIOWrapper(open_regular(source), encoding="utf-8-sig", newline="")


def _class_names(labels: set[str]) -> list[str]:
    """Sorted, as numbers where all are."""
    numbers = all(name.isdecimal() and len(name) < 20 for name in labels)  # int() refuses thousands of digits
    return sorted(labels, key=lambda name: (int(name), name)) if numbers else sorted(labels)


def _paths(source: Path, header: list[str]) -> Source:
    splits: dict[str, list[tuple[str, str, Path]]] = {}
    seen = set()
    with _opened(source) as file:
        reader = csv_module.reader(file)
        next(reader)
        for row in reader:
            if not row:
                continue
            place = f"{source}, line {reader.line_num},"
            if len(row) != len(header):
                raise UserError(f"{place} has {len(row)} fields; the header has {len(header)}")
            fields = dict(zip(header, (field.strip() for field in row), strict=True))
            path = source.parent / fields["path"]
            if not fields["path"] or not os.path.isfile(path):  # Path.is_file fails on what is too long
                raise UserError(
                    f"{place} names {fields['path'][:80]!r}, which is no file; paths count from {source.parent}"
                )
            if not fields["label"]:
                raise UserError(f"{place} has no label")
            file_named = os.path.realpath(path)  # one picture by two names could come into two splits
            if file_named in seen:
                raise UserError(f"{place} names {fields['path']} for the second time; remove one of the lines")
            seen.add(file_named)
            split = SPLIT_NAMES.get(fields.get("split", "train").lower())
            if split is None:
                raise UserError(f"{place} has the split {fields['split']!r}; known are train, validation and test")
            splits.setdefault(split, []).append((fields["path"], fields["label"], path))
    if "train" not in splits:
        raise UserError(f"{source} names no training pictures")
    class_names = _class_names({label for _, label, _ in splits["train"]})
    numbers = {name: i for i, name in enumerate(class_names)}
    strangers = {label for rows in splits.values() for _, label, _ in rows} - set(class_names)
    if strangers:
        raise UserError(f"{source} has labels that no training picture has: {', '.join(sorted(strangers))}")
    return _source(
        source,
        class_names,
        3,
        {split: [Example(name, numbers[label], path) for name, label, path in rows] for split, rows in splits.items()},
    )


def _pixels(source: Path, header: list[str]) -> Source:
    side = math.isqrt(len(header) - 1)
    if side**2 != len(header) - 1:
        raise UserError(f"{source} has {len(header) - 1} pixels a row, which is no square picture in grey")
    try:
        with _opened(source) as file:  # which has no comments: a row that begins with # is an error
            table = np.loadtxt(file, np.int64, comments=None, delimiter=",", skiprows=1, ndmin=2)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{source} holds what is no table of whole numbers ({error})") from None
    if table.shape[1] != len(header) or not len(table):
        raise UserError(f"{source} has {len(table)} rows of {table.shape[1]} numbers; the header has {len(header)}")
    column = header.index("label")
    labels, pixels = table[:, column], np.delete(table, column, 1)
    if pixels.min() < 0 or pixels.max() > 255 or labels.min() < 0:
        raise UserError(f"{source} has pixels from {pixels.min()} to {pixels.max()}; they must be 0 to 255")
    values, numbers = np.unique(labels, return_inverse=True)
    examples = numbered("row", pixels.astype(np.uint8).reshape(-1, side, side), numbers)
    return _source(source, [str(value) for value in values], 1, {"train": examples})


def _source(source: Path, class_names: list[str], channels: int, splits: dict[str, list[Example]]) -> Source:
    if len(class_names) < 2:
        raise UserError(f"{source} has {len(class_names)} classes; at least two are needed")
    return Source(class_names, channels, carved(splits, class_names, source))
